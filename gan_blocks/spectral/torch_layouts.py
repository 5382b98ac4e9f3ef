"""Torch's own spectral norms: where their singular vectors are, and state dicts of them.

Tested in ``tests/spectral/test_torch_layouts.py``.
"""

import copy
import re
from collections.abc import MutableMapping
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from gan_blocks._checks import bad_value

__all__ = ["from_torch_spectral_norm", "torch_singular_vectors"]

StateDict = TypeVar("StateDict", bound=MutableMapping[str, Tensor])

_NEWER_VECTOR = re.compile(r"(?P<place>(?:.+\.)?parametrizations\.[^.]+\.\d+)\._(?P<part>[uv])")
_OLDER = re.compile(r"(?P<layer>(?:.+\.)?)(?P<name>[^.]+)_(?P<part>orig|u|v)")


def from_torch_spectral_norm(state_dict: StateDict) -> StateDict:
    """Convert the state of torch's two spectral norms into that of :func:`spectral_norm`.

    ==============================  ==================================  ==================================
    ``torch.nn.utils``              ``...utils.parametrizations``       here
    ==============================  ==================================  ==================================
    ``NAME_orig``                   ``parametrizations.NAME.original``  ``parametrizations.NAME.original``
    ``NAME_u`` of shape (out,)      ``parametrizations.NAME.0._u``      ``parametrizations.NAME.0.u`` (1, out)
    ``NAME_v`` of shape (rest,)     ``parametrizations.NAME.0._v``      ``parametrizations.NAME.0.v`` (1, rest)
    ==============================  ==================================  ==================================

    All three divide by the same ``u @ W @ v``, so a converted model computes what the old one did in evaluation, as
    long as that is above ``eps``. Other entries, also those converted before, are kept as they are.

    Args:
        state_dict: State of a whole model or of one layer; it is not changed.

    Returns:
        A new state dict of the same type, sharing the tensors.

    Raises:
        ValueError: If ``NAME_v`` is missing beside ``NAME_orig`` and ``NAME_u``, as in state saved by torch 1.0.

    Example:
        >>> old = torch.nn.utils.spectral_norm(torch.nn.Linear(3, 2, bias=False))
        >>> list(from_torch_spectral_norm(old.state_dict()))
        ['parametrizations.weight.original', 'parametrizations.weight.0.u', 'parametrizations.weight.0.v']
    """
    # A copy, because torch hangs the versions of the modules on the state dict as an attribute.
    converted = copy.copy(state_dict)
    converted.clear()
    for key, value in state_dict.items():
        if newer := _NEWER_VECTOR.fullmatch(key):
            converted[f"{newer['place']}.{newer['part']}"] = value.unsqueeze(0)
        elif (older := _OLDER.fullmatch(key)) and _is_normalized(older["layer"] + older["name"], state_dict):
            place = f"{older['layer']}parametrizations.{older['name']}"
            if older["part"] == "orig":
                converted[f"{place}.original"] = value
            else:
                converted[f"{place}.0.{older['part']}"] = value.unsqueeze(0)
        else:
            converted[key] = value
    return converted


def torch_singular_vectors(module: nn.Module) -> list[str]:
    """Name the buffers of a module, not of its children, in which torch's spectral norms keep singular vectors."""
    if isinstance(module, _SpectralNorm):
        return ["_u", "_v"]
    hooks = [hook.name for hook in module._forward_pre_hooks.values() if isinstance(hook, SpectralNorm)]
    return [f"{name}_{side}" for name in hooks for side in "uv"]


def _is_normalized(tensor: str, state_dict: MutableMapping[str, Tensor]) -> bool:
    present = [f"{tensor}_{part}" for part in ("orig", "u", "v") if f"{tensor}_{part}" in state_dict]
    if present == [f"{tensor}_orig", f"{tensor}_u"]:
        rule = f"complete, with {tensor}_v beside {tensor}_u"
        raise bad_value(
            "from_torch_spectral_norm",
            "state_dict",
            rule,
            present,
            "Load it into the old model with a newer torch and save it again.",
        )
    return len(present) == 3
