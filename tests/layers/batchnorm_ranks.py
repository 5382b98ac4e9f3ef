"""Three processes that normalize one batch; started by test_cross_replica_batchnorm.py.

``python -m tests.layers.batchnorm_ranks FOLDER`` saves the results of each rank in the folder.
"""

import copy
import importlib
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gan_blocks import ClassConditionalBatchNorm2d, ConditionalBatchNorm2d, CrossReplicaBatchNorm2d, standing_statistics
from tests.drawn import draw

SIZES = (4, 1, 2)  # unequal; the second process has a single sample
CHANNELS, NUM_CLASSES = 3, 5
KINDS = ("plain", "without parameters", "conditional", "by class", "batch statistics")


def own(values: Tensor, rank: int) -> Tensor:
    """This rank's part of a batch."""
    return values.split(SIZES)[rank]


def layer(kind: str, **options: Any) -> nn.Module:
    """A float64 layer whose parameters are not the identity, the same in every process."""
    norm: nn.Module
    if kind == "conditional":
        norm = ConditionalBatchNorm2d(CHANNELS, 2, momentum=0.3, **options)
    elif kind == "by class":
        norm = ClassConditionalBatchNorm2d(CHANNELS, NUM_CLASSES, momentum=0.3, **options)
    else:
        statistics = "batch" if kind == "batch statistics" else "running"
        affine = kind != "without parameters"
        norm = CrossReplicaBatchNorm2d(CHANNELS, affine=affine, momentum=0.3, statistics=statistics, **options)
    norm.double()
    for seed, parameter in enumerate(norm.parameters()):
        parameter.data.copy_(draw(*parameter.shape, seed=10 + seed))
    return norm


def inputs(kind: str, mean: float = 1000.0) -> list[Tensor]:
    """The arguments of a call with the whole batch."""
    x = draw(sum(SIZES), CHANNELS, 2, 3) * torch.tensor([1.0, 2.0, 10.0]).double().reshape(-1, 1, 1) + mean
    if kind == "conditional":
        return [x, draw(sum(SIZES), 2, seed=1)]
    if kind == "by class":
        return [x, torch.arange(sum(SIZES)) % NUM_CLASSES]
    return [x]


def trained(norm: nn.Module, call: Callable[..., Tensor], arguments: list[Tensor], weights: Tensor) -> dict[str, Any]:
    """Output, gradients and running statistics after one pass of a loss that weighs each output differently."""
    x = arguments[0].detach().clone().requires_grad_()
    y = call(x, *arguments[1:])
    (y * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in norm.named_parameters()}
    return {"y": y.detach(), "x": x.grad, "parameters": gradients, "buffers": dict(norm.named_buffers())}


def trained_share(kind: str, rank: int, **how: Any) -> dict[str, Any]:
    norm = layer(kind)
    call = torch.compile(norm, fullgraph=True, backend="eager") if how.get("compiled") else norm
    parts = [own(argument, rank) for argument in inputs(kind)]
    return trained(norm, call, parts, own(output_weights(), rank))


def output_weights() -> Tensor:
    return draw(sum(SIZES), CHANNELS, 2, 3, seed=7)


class Scatter(torch.autograd.Function):
    """From the whole batch, which all ranks have, to this rank's part."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor) -> Tensor:  # noqa: ARG004
        return own(whole, dist.get_rank()).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return Gather.apply(gradient)


class Gather(torch.autograd.Function):
    """From every rank's part to the whole batch."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:  # noqa: ARG004
        whole = part.new_zeros(sum(SIZES), *part.shape[1:])
        own(whole, dist.get_rank()).copy_(part)
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return Scatter.apply(gradient)


def check_gradients(kind: str) -> bool:
    """Finite differences of the whole batch, every rank perturbing the same element at the same time."""
    norm = layer(kind, eps=0.1)
    rest = [own(argument, dist.get_rank()) for argument in inputs(kind)[1:]]

    def run(x: Tensor) -> Tensor:
        return Gather.apply(norm(Scatter.apply(x), *rest))

    x = draw(sum(SIZES), CHANNELS, 1, 1, seed=3).requires_grad_()
    return torch.autograd.gradcheck(run, x, fast_mode=True) and torch.autograd.gradgradcheck(run, x, fast_mode=True)


def bfloat16_result(rank: int) -> Tensor:
    norm = CrossReplicaBatchNorm2d(CHANNELS)
    x = own(inputs("plain", mean=20.0)[0], rank).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = norm(x)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    return y.detach()


def pair_result(rank: int) -> Tensor:
    """Normalize in a group of the first two ranks, of which the third is no member."""
    pair = dist.new_group([0, 1])
    norm = copy.deepcopy(CrossReplicaBatchNorm2d(CHANNELS, process_group=pair).double())
    return norm(own(inputs("plain")[0], rank)).detach()


def standing(rank: int) -> dict[str, Tensor]:
    """Pool two batches of the first rank and one of the third."""
    norm = layer("plain")
    batches = [(part,) for part in inputs("plain")[0].split([2, 4, 1])]
    mine = {0: batches[:2], 1: [], 2: batches[2:]}[rank]
    standing_statistics(norm, mine, process_group=dist.group.WORLD)
    return dict(norm.named_buffers())


def alone() -> Tensor:
    """What one process may do without the others: evaluate, and collect standing statistics."""
    norm = layer("plain")
    standing_statistics(norm, [(inputs("plain")[0],)])
    layer("batch statistics").eval()(inputs("plain")[0])
    return norm.eval()(inputs("plain")[0]).detach()


def error_of_no_batches() -> str:
    try:
        standing_statistics(layer("plain"), [], process_group=dist.group.WORLD)
    except ValueError as wrong:
        return str(wrong)
    return ""


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=len(SIZES))
    report: dict[str, Any] = {kind: trained_share(kind, rank) for kind in KINDS}
    report["compiled"] = {kind: trained_share(kind, rank, compiled=True) for kind in ("plain", "conditional")}
    report["gradients"] = [check_gradients(kind) for kind in ("plain", "conditional")]
    report["bfloat16"] = bfloat16_result(rank)
    report["pair"] = pair_result(rank)
    report["standing"] = standing(rank)
    report["alone"] = alone() if rank == 1 else None
    report["error"] = error_of_no_batches()
    torch.save(report, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    # Forked, so that torch and its compiler, whose import takes longer than all the rest, are imported once.
    importlib.import_module("torch._dynamo")
    processes = [
        multiprocessing.get_context("fork").Process(target=main, args=(r, Path(sys.argv[1]))) for r in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))
