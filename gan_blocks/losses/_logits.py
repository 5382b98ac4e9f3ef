"""Outputs of a discriminator as the losses take them: one tensor of any shape, or one for each scale.

Tested in ``tests/losses/test_adversarial.py``.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from torch import Tensor

from gan_blocks._checks import bad_kind, bad_shape, bad_value, check_real_floating
from gan_blocks._precision import wide_dtype

__all__ = ["Logits", "scales_of", "wide_scales_of"]

Logits: TypeAlias = Tensor | Sequence[Tensor]


def wide_scales_of(owner: str, name: str, logits: Logits) -> list[Tensor]:
    """The same in float32 or wider: squares of float16 overflow, and means of bfloat16 have three digits."""
    return [scale.to(wide_dtype(scale)) for scale in scales_of(owner, name, logits)]


def scales_of(owner: str, name: str, logits: Logits) -> list[Tensor]:
    """The tensor of each scale, after a check."""
    if not isinstance(logits, Iterable):  # which a tensor is
        raise bad_kind(owner, name, "a tensor, or a sequence of tensors", logits)
    scales = [logits] if isinstance(logits, Tensor) else list(logits)
    if not scales:
        raise bad_value(owner, name, "a tensor, or a sequence of at least one", logits)
    for scale in scales:
        if not isinstance(scale, Tensor):
            held = f"It holds one of type {type(scale).__name__}."
            raise bad_kind(owner, name, "a tensor, or a sequence of tensors", logits, held)
        if scale.numel() == 0:
            raise bad_shape(owner, name, "(batch, ...) with at least one sample", scale)
        check_real_floating(owner, name, scale)
    return scales
