"""What residual blocks share: norms with and without a condition, and residuals that start at zero.

Tested in ``tests/blocks/test_residual_options.py``.
"""

import torch
from torch import Tensor, nn

from gan_blocks._checks import bad_kind, bad_value, check_positive

__all__ = ["apply_norm", "check_groups", "grouped", "zero_weight_"]


def apply_norm(owner: str, norm: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    """Normalize; the condition goes to a norm with a true attribute ``takes_condition``, and to no other."""
    takes_condition = getattr(norm, "takes_condition", False)
    if takes_condition and condition is None:
        raise bad_kind(owner, "condition", f"what {type(norm).__name__} takes", condition)
    y: Tensor = norm(x, condition) if takes_condition else norm(x)
    return y


def check_groups(owner: str, groups: int, **channels: int) -> None:
    """Check that a number of groups divides these channels."""
    check_positive(owner, groups=groups)
    for name, number in channels.items():
        if number % groups:
            raise bad_value(owner, name, f"a multiple of groups={groups}", number)


def grouped(groups: int) -> dict[str, int]:
    """The option of a convolution; a factory that is to make none with groups need not know it."""
    return {} if groups == 1 else {"groups": groups}


@torch.no_grad()
def zero_weight_(layer: nn.Module) -> None:
    """Let a convolution give nothing but its bias, whatever its weight is parametrized by."""
    chains = getattr(layer, "parametrizations", None)
    weight = layer.weight if chains is None else chains["weight"].original
    assert isinstance(weight, Tensor)
    nn.init.zeros_(weight)
