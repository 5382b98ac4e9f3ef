"""What residual blocks share: norms with and without a condition, what their arguments may be, residuals of zero.

Tested in ``tests/blocks/test_residual_options.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm

from gan_blocks._checks import bad_kind, bad_value, check_sizes
from gan_blocks.conditioning.batchnorm import project_together
from gan_blocks.spectral.normalization import SpectralNorm
from gan_blocks.spectral.parametrized import chains_of
from gan_blocks.spectral.torch_layouts import torch_singular_vectors

__all__ = ["check_groups", "check_out_of_place", "grouped", "norms_for", "zero_weight_"]


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


def check_out_of_place(owner: str, norm: nn.Module, act: nn.Module) -> None:
    """Refuse a first activation that overwrites the block's input, which the shortcut and the caller read."""
    if isinstance(norm, nn.Identity) and getattr(act, "inplace", False):
        raise bad_value(owner, "act_layer", "out of place", act, "The shortcut reads what it would change.")


def check_groups(owner: str, groups: int, widths: Mapping[str, int]) -> None:
    """Check that a number of groups divides these numbers of channels, each under what it is in terms of arguments."""
    check_sizes(owner, groups=groups)
    for name, width in widths.items():
        if width % groups:
            raise bad_value(owner, "groups", f"a divisor of {name} = {width}", groups)


def grouped(groups: int) -> dict[str, int]:
    """The option of a convolution; a factory that is to make none with groups need not know it."""
    return {} if groups == 1 else {"groups": groups}


def zero_weight_(owner: str, layer: nn.Module) -> None:
    """Let a convolution give nothing but its bias, now and after :meth:`reset_parameters`.

    It counts as initialized from then on: see ``keeps_initial_values`` of :func:`gan_blocks.init_orthogonal_`.

    Raises:
        TypeError: If it has no weight that can be zero, such as one that is divided by its own norm.
    """
    _fill_with_zeros(owner, layer)
    vars(layer)["reset_parameters"] = partial(_reset_to_zero, owner, layer)
    vars(layer)["keeps_initial_values"] = True


def _reset_to_zero(owner: str, layer: Any) -> None:
    type(layer).reset_parameters(layer)
    _fill_with_zeros(owner, layer)


@torch.no_grad()
def _fill_with_zeros(owner: str, layer: nn.Module) -> None:
    chain = chains_of(layer).get("weight")
    # Ours, or torch's as a hook of the layer or a step of the chain.
    spectral = any(isinstance(step, SpectralNorm) or torch_singular_vectors(step) for step in [layer, *(chain or [])])
    scale = None if spectral else _scale_of(layer, chain)
    if scale is None:
        rule = "a factory of layers whose weight can be zero, with zero_init_residual"
        remedy = (
            "A spectral norm scales the first update up to norm 1: pass nn.Conv2d and call normalize_layers, which "
            "leaves this layer out."
        )
        raise bad_kind(owner, "conv_layer", rule, layer, remedy if spectral else "")
    nn.init.zeros_(scale)


def _scale_of(layer: nn.Module, chain: ParametrizationList | None) -> Tensor | None:
    """The tensor of a layer whose zeros make its weight zero."""
    if any(isinstance(hook, WeightNorm) for hook in layer._forward_pre_hooks.values()):
        return layer.get_parameter("weight_g")
    if chain is None:
        return layer._parameters.get("weight")
    originals = dict(chain.named_parameters(recurse=False))
    # Torch's weight norm keeps the lengths of the filters first.
    return originals.get("original", originals.get("original0"))
