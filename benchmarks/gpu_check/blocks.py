"""Every block forward, backward and twice backward, on a device against float32 on the CPU.

Precisions: float32 without TF32, bfloat16 by autocast, and float32 with maps and weights as NHWC. Errors are norms of
differences over norms; the gradients of all parameters are one vector, since some are zero but for rounding.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

import gan_blocks as gb
from benchmarks.gpu_check.findings import Findings

__all__ = ["CASES", "check_blocks"]

CHANNELS, OUT, CONDITION, CLASSES, SIDE, BATCH = 16, 8, 6, 5, 16, 4
BOUNDS = {"float32": (1e-4, 1e-3, 5e-3), "bfloat16": (0.03, 0.1, 0.2), "channels_last": (1e-4, 1e-3, 5e-3)}
"""Of the value, its gradients and theirs."""


def _condition_norm(features: int) -> nn.Module:
    return gb.ConditionalBatchNorm2d(features, CONDITION)


def _class_norm(features: int) -> nn.Module:
    return gb.ClassConditionalBatchNorm2d(features, CLASSES)


def _film(features: int) -> nn.Module:
    return gb.FiLM2d(features, CONDITION)


def _normalized(conv: type[nn.Conv2d]) -> Callable[..., nn.Module]:
    return lambda *args, **options: gb.spectral_norm(conv(*args, **options))


class Case(NamedTuple):
    """A block and what it is told beside its map."""

    make: Callable[[], nn.Module]
    told: str = ""
    """``condition``, ``labels`` or nothing."""
    shape: tuple[int, ...] = (BATCH, CHANNELS, SIDE, SIDE)
    twice: bool = True
    """Whether to take the second derivative, and kernels that have one."""


_SN = _normalized(nn.Conv2d)
_VECTORS = (BATCH, CHANNELS)
_IMAGES = (BATCH, 3, SIDE, SIDE)
CASES = {
    "ResidualGeneratorBlock": Case(
        lambda: gb.ResidualGeneratorBlock(CHANNELS, OUT, norm_layer=_condition_norm, upsample=True, conv_layer=_SN),
        "condition",
    ),
    "ResidualGeneratorBlock, class tables": Case(
        lambda: gb.ResidualGeneratorBlock(CHANNELS, OUT, norm_layer=_class_norm, upsample=True), "labels"
    ),
    "ResidualGeneratorBlock, FiLM": Case(
        lambda: gb.ResidualGeneratorBlock(CHANNELS, OUT, norm_layer=_film, conv_layer=_SN), "condition"
    ),
    "ResidualDiscriminatorBlock": Case(
        lambda: gb.ResidualDiscriminatorBlock(CHANNELS, OUT, downsample=True, conv_layer=_SN)
    ),
    "BottleneckGeneratorBlock": Case(
        lambda: gb.BottleneckGeneratorBlock(CHANNELS, OUT, norm_layer=_condition_norm, upsample=True, conv_layer=_SN),
        "condition",
    ),
    "BottleneckDiscriminatorBlock": Case(
        lambda: gb.BottleneckDiscriminatorBlock(CHANNELS, 2 * CHANNELS, downsample=True, conv_layer=_SN)
    ),
    "PlainGeneratorBlock": Case(lambda: gb.PlainGeneratorBlock(CHANNELS, OUT)),
    "PlainDiscriminatorBlock": Case(lambda: gb.PlainDiscriminatorBlock(CHANNELS, OUT)),
    "ProgressiveGeneratorStem": Case(lambda: gb.ProgressiveGeneratorStem(CHANNELS, OUT), shape=_VECTORS),
    "ProgressiveGeneratorBlock": Case(lambda: gb.ProgressiveGeneratorBlock(CHANNELS, OUT)),
    "ProgressiveDiscriminatorBlock": Case(lambda: gb.ProgressiveDiscriminatorBlock(CHANNELS, OUT)),
    "ProgressiveDiscriminatorHead": Case(
        lambda: gb.ProgressiveDiscriminatorHead(CHANNELS, OUT), shape=(BATCH, CHANNELS, 4, 4)
    ),
    "ToRGB": Case(lambda: gb.ToRGB(CHANNELS)),
    "FromRGB": Case(lambda: gb.FromRGB(3, OUT), shape=_IMAGES),
    "SelfAttention2d": Case(lambda: _with_gamma(gb.SelfAttention2d(CHANNELS, conv_layer=_SN))),
    "SelfAttention2d, fastest kernel": Case(
        lambda: _with_gamma(gb.SelfAttention2d(CHANNELS, conv_layer=_SN)), twice=False
    ),
    "CrossReplicaBatchNorm2d": Case(lambda: gb.CrossReplicaBatchNorm2d(CHANNELS)),
    "MinibatchDiscrimination": Case(lambda: gb.MinibatchDiscrimination(CHANNELS), shape=_VECTORS),
    "ProjectionHead": Case(lambda: gb.ProjectionHead(CHANNELS, CLASSES), "labels", _VECTORS),
    "UnconditionalHead": Case(lambda: gb.UnconditionalHead(CHANNELS), shape=_VECTORS),
    "clamp_sigma": Case(lambda: gb.clamp_sigma(nn.Conv2d(CHANNELS, OUT, 3, padding=1), maximum=0.5)),
}


def _with_gamma(attention: gb.SelfAttention2d) -> nn.Module:
    """Attention that counts: it starts at zero."""
    with torch.no_grad():
        attention.gamma.fill_(0.5)
    return attention


def check_blocks(findings: Findings, device: torch.device) -> None:
    """Check all cases in all precisions."""
    for name, case in CASES.items():
        expected = findings.check(f"{name}, on the CPU", partial(_expected, case))
        for precision in BOUNDS if expected else ():
            findings.check(f"{name}, {precision}", partial(_compared, case, device, precision, expected))


def _expected(case: Case) -> list[Tensor]:
    return list(_results(case, torch.device("cpu"), "float32"))


def _compared(case: Case, device: torch.device, precision: str, expected: list[Tensor]) -> str:
    """The errors; ValueError if they are too large."""
    found, bounds = _results(case, device, precision), BOUNDS[precision]
    errors = [
        ((one - other).norm() / other.norm().clamp(min=1e-12)).item()
        for one, other in zip(found, expected, strict=True)
    ]
    said = f"errors {', '.join(f'{error:.1e}' for error in errors)}"
    if any(not error <= bound for error, bound in zip(errors, bounds, strict=False)):
        raise ValueError(f"{said} beyond {', '.join(f'{bound:.0e}' for bound in bounds)}")
    return said


def _results(case: Case, device: torch.device, precision: str) -> Iterator[Tensor]:
    """A block's value, its gradients and the gradients of their square, each as one vector in float32."""
    torch.manual_seed(0)
    block = case.make().train()  # always the same weights
    random = torch.Generator().manual_seed(1)
    x = torch.randn(case.shape, generator=random)
    condition = torch.randn(len(x), CONDITION, generator=random)
    told = {"": [], "condition": [condition], "labels": [torch.arange(len(x)) % CLASSES]}[case.told]
    layout = torch.channels_last if precision == "channels_last" else torch.contiguous_format
    if x.dim() == 4:
        x = x.contiguous(memory_format=layout)
        block.to(memory_format=layout)  # type: ignore[call-overload]
    block.to(device)
    x = x.to(device).requires_grad_()
    parameters = [parameter for parameter in block.parameters() if parameter.requires_grad]
    kernels = gb.twice_differentiable() if case.twice else contextlib.nullcontext()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"), kernels:
        y = block(x, *(each.to(device) for each in told))
    yield _vector([y])
    # A weight of the result that is no sum: batch normalization takes away what is the same everywhere.
    weight = torch.linspace(-1, 1, y[0].numel()).reshape(y[0].shape).to(device)
    score = (y.float() * weight + y.float().square()).sum()
    first = torch.autograd.grad(score, [x, *parameters], create_graph=case.twice, allow_unused=True)
    yield _vector(first)
    if not case.twice:
        return
    slopes = first[0].float().square().sum()
    second = torch.autograd.grad(slopes, [x, *parameters], allow_unused=True)
    yield _vector(second)


def _vector(tensors: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([each.detach().float().cpu().flatten() for each in tensors if each is not None])
