"""Two processes that train a net under a wrapper of torch; started by test_wrappers.py.

``python -m tests.spectral.wrapped_ranks FOLDER`` saves the results of each rank in the folder.
"""

import copy
import importlib
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from gan_blocks import advance_power_iteration, clamp_sigma, spectral_norm

WRAPPERS = ("plain", "ddp", "ddp without buffers", "fsdp", "fully_shard")
PROCESSES = 2


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    first, second = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
    return nn.Sequential(spectral_norm(first), nn.ReLU(), clamp_sigma(spectral_norm(second), maximum=0.9))


def wrapped(kind: str, model: nn.Module) -> nn.Module:
    if kind.startswith("ddp"):
        return DistributedDataParallel(model, broadcast_buffers=kind == "ddp")
    if kind == "fsdp":
        return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    if kind == "fully_shard":
        mesh = init_device_mesh("cpu", (PROCESSES,))
        for layer in (model[0], model[2]):
            fully_shard(layer, mesh=mesh)
    return model


def train(model: nn.Module, steps: int, after_step: Callable[[], None] = lambda: None) -> nn.Module:
    """Descend with a rate of 1 on the same batch in every process."""
    torch.manual_seed(1)
    x, target = torch.randn(32, 64), 3 * torch.randn(32, 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(model(x), target).backward()
        optimizer.step()
        after_step()
    return model


def output(model: nn.Module) -> Tensor:
    torch.manual_seed(2)
    with torch.no_grad():
        y: Tensor = model(torch.randn(4, 64))
    return y


def whole(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix("module."): (value.full_tensor() if hasattr(value, "full_tensor") else value).clone()
        for name, value in state.items()
    }


def results_of(kind: str) -> dict[str, Any]:
    model = train(wrapped(kind, net()), 5)
    saved = copy.deepcopy(model.state_dict())
    expected = whole(train(model, 5).state_dict())
    again = wrapped(kind, net(seed=7))
    again.load_state_dict(saved)
    return {
        "after 20": output(train(wrapped(kind, net()), 20)),
        "uninterrupted": expected,
        "resumed": whole(train(again, 5).state_dict()),
    }


def explicit(kind: str) -> Tensor:
    model = wrapped(kind, net())
    return output(train(model, 20, lambda: advance_power_iteration(model)))


def message_of(read: Callable[[], object]) -> str:
    try:
        read()
    except ValueError as wrong:
        return str(wrong)
    return ""


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torch's, of FSDP on a CPU
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=PROCESSES)
    report: dict[str, Any] = {kind: results_of(kind) for kind in WRAPPERS}
    report["explicit"] = {kind: explicit(kind) for kind in ("plain", "fully_shard")}
    sharded = wrapped("fully_shard", net())
    report["message"] = message_of(lambda: sharded[0].weight)
    other = wrapped("ddp", net(seed=rank))
    report["other seed"] = whole(train(other, 5).state_dict())
    torch.save(report, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    # Forked, so that torch, whose import takes longer than all the rest, is imported once.
    importlib.import_module("torch._dynamo")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=main, args=(rank, Path(sys.argv[1]))) for rank in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))
