"""What residual blocks share: norms with and without a condition, and residuals that start at zero.

Tested in ``tests/blocks/test_residual_options.py``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from gan_blocks._checks import bad_kind, bad_value, check_positive
from gan_blocks.conditioning.batchnorm import project_together

__all__ = ["check_groups", "grouped", "norms_for", "zero_weight_"]


def norms_for(
    owner: str, norms: Sequence[nn.Module], x: Tensor, condition: Tensor | None
) -> list[Callable[[Tensor], Tensor]]:
    """The norms of a block with its condition, as functions of a feature map; all projections are one product."""
    together = project_together(norms, len(x), condition)
    return together or [partial(_apply_norm, owner, norm, condition) for norm in norms]


def _apply_norm(owner: str, norm: nn.Module, condition: Tensor | None, x: Tensor) -> Tensor:
    """Normalize; the condition goes to a norm with a true attribute ``takes_condition``, and to no other."""
    takes_condition = getattr(norm, "takes_condition", False)
    if takes_condition and condition is None:
        raise bad_kind(owner, "condition", f"what {type(norm).__name__} takes", condition)
    y: Tensor = norm(x, condition) if takes_condition else norm(x)
    return y


def check_groups(owner: str, groups: int, **channels: int) -> None:
    """Check that a number of groups divides these channels."""
    if not isinstance(groups, int):
        raise bad_value(owner, "groups", "a whole number", groups)
    check_positive(owner, groups=groups)
    for name, number in channels.items():
        if number % groups:
            raise bad_value(owner, name, f"a multiple of groups={groups}", number)


def grouped(groups: int) -> dict[str, int]:
    """The option of a convolution; a factory that is to make none with groups need not know it."""
    return {} if groups == 1 else {"groups": groups}


def zero_weight_(owner: str, layer: nn.Module) -> None:
    """Let a convolution give nothing but its bias, now and after :meth:`reset_parameters`.

    Raises:
        ValueError: If its weight cannot be zero, as one that is divided by its own norm.
    """
    _fill_with_zeros(owner, layer)
    vars(layer)["reset_parameters"] = partial(_reset_to_zero, owner, layer)


def _reset_to_zero(owner: str, layer: Any) -> None:
    type(layer).reset_parameters(layer)
    _fill_with_zeros(owner, layer)


@torch.no_grad()
def _fill_with_zeros(owner: str, layer: nn.Module) -> None:
    scale = _scale_of(layer)
    if scale is None:
        rule = "a factory of layers whose weight can be zero, with zero_init_residual"
        raise bad_kind(owner, "conv_layer", rule, layer, "Torch's spectral norm would divide 0 by 0.")
    nn.init.zeros_(scale)


def _scale_of(layer: nn.Module) -> Tensor | None:
    """The tensor of a layer whose zeros make its weight zero."""
    hooks = list(layer._forward_pre_hooks.values())
    if any(isinstance(hook, SpectralNorm) for hook in hooks):
        return None
    if any(isinstance(hook, WeightNorm) for hook in hooks):
        return layer.get_parameter("weight_g")
    chains = getattr(layer, "parametrizations", None)
    if chains is None or "weight" not in chains:
        return layer._parameters.get("weight")
    chain = chains["weight"]
    if any(isinstance(step, _SpectralNorm) for step in chain):
        return None
    originals = dict(chain.named_parameters(recurse=False))
    # Torch's weight norm keeps the lengths of the filters first.
    return originals.get("original", originals.get("original0"))
