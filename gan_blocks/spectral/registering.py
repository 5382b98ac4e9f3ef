"""Making a tracker a parametrization of a layer's tensor, and what then happens at its reads, saving and loading.

Tested in ``tests/spectral/test_tracking.py``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import (
    ParametrizationList,
    is_parametrized,
    register_parametrization,
    type_before_parametrizations,
)

from gan_blocks._checks import bad_value, check_module, check_real_floating
from gan_blocks._precision import full_precision
from gan_blocks._transforms import is_watched
from gan_blocks.spectral.parametrized import chain_input, chains_of, sources_of
from gan_blocks.spectral.power_iteration import matrix_axes, to_torch_order
from gan_blocks.spectral.tracking import SingularVectorTracker

__all__ = ["default_dim", "kind_of", "own_class", "register_tracker", "tensor_to_track", "trackers_of"]


def tensor_to_track(owner: str, module: nn.Module, name: str, kind: type[SingularVectorTracker]) -> Tensor:
    """Return the tensor of a layer that a new tracker will be given, or raise why it cannot have one."""
    check_module(owner, "module", module)
    chains = chains_of(module)
    parameters = [key for key, value in module.named_parameters(recurse=False) if not is_lazy(value)]
    names = sorted([*parameters, *chains])
    if name not in names:
        rule = f"an initialized parameter of {kind_of(module)} ({', '.join(names) or 'it has none'})"
        has_layers = next(module.children(), None) is not None
        remedy = "" if names or not has_layers else "All layers of a model are normalized by normalize_layers."
        raise bad_value(owner, "name", rule, name, remedy)
    if name in chains and any(isinstance(other, kind) for other in chains[name]):
        raise bad_value(owner, "name", f"a parameter without {kind.__name__}", name)
    with torch.no_grad():
        weight: Tensor = getattr(module, name)
    check_real_floating(owner, name, weight)
    return weight


def default_dim(module: nn.Module) -> int:
    """Return the dimension of a layer's weight that counts its outputs."""
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return 1 if isinstance(module, transposed) else 0


def kind_of(module: nn.Module) -> str:
    """Return the name of a layer's class as its author wrote it."""
    return type_before_parametrizations(module).__name__


def register_tracker(module: nn.Module, name: str, tracker: SingularVectorTracker) -> None:
    """Register a tracker as the last parametrization of a tensor.

    Saving the state counts as a read, or a resumed run would lack an advance that was due. So does loading.
    """
    own_class(module)
    register_parametrization(module, name, tracker)
    tracker.unsettled = False  # torch has assigned to the tensor what it had
    chain = chains_of(module)[name]
    if len(trackers_of(chain)) == 1:
        _read_cached_first(module, name)
        chain.register_forward_pre_hook(_before_reading)
        chain.register_state_dict_pre_hook(_before_saving)
        chain.register_state_dict_post_hook(_after_saving)
        chain.register_load_state_dict_pre_hook(_before_loading)
        chain.register_load_state_dict_post_hook(_after_loading)


def _read_cached_first(module: nn.Module, name: str) -> None:
    """Let a read of a tensor take what is known already without a call of its parametrizations, a tenth of the time."""
    plain: property = vars(type(module))[name]
    assert plain.fget is not None
    read_plainly = plain.fget

    def read(self: nn.Module) -> Tensor:
        if not torch.compiler.is_compiling():
            chain: Any = self._modules["parametrizations"]._modules[name]  # type: ignore[union-attr]
            tracker = chain._modules["0"]
            cached = vars(tracker).get("cached")
            if cached is not None and len(chain._modules) == 1 and not _is_called(chain, tracker):
                known: Tensor | None = cached.of(chain._parameters.get("original"))
                if known is not None:
                    return known
        value: Tensor = read_plainly(self)
        return value

    setattr(type(module), name, property(read, plain.fset))


def _is_called(chain: ParametrizationList, tracker: nn.Module) -> bool:
    """Whether somebody else than this module counts on the calls of a read."""
    return is_watched(tracker) or is_watched(chain, own_pre_hooks=1)


def trackers_of(chain: ParametrizationList) -> list[tuple[int, SingularVectorTracker]]:
    """Return the trackers among the parametrizations of one tensor, each with its position."""
    return [(index, module) for index, module in enumerate(chain) if isinstance(module, SingularVectorTracker)]


def own_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own before its parametrizations change.

    torch keeps the parametrized tensors as properties of a class made for one module, but deep copies share that
    class: without this, folding a copy takes the weight away from the original.
    """
    if is_parametrized(module):
        shared = type(module)
        members = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
        module.__class__ = type(shared.__name__, shared.__bases__, members)


def _before_reading(chain: ParametrizationList, *_args: object) -> None:
    for _, tracker in trackers_of(chain):
        tracker.expect_read()


@torch.no_grad()
def _before_saving(chain: ParametrizationList, *_: object) -> None:
    """Take the advances that are due, and let later reads compare with what is saved, as they will after a resume."""
    for index, tracker in trackers_of(chain):
        if tracker.training and not tracker.frozen:
            weight = chain_input(chain, index)
            _read_once(tracker, weight)
            tracker._remember(weight)


@torch.no_grad()
def _after_saving(chain: ParametrizationList, state_dict: dict[str, Any], prefix: str, _metadata: object) -> None:
    """In evaluation mode, save the vectors that a read would take: loaded, they count as those of the weight."""
    for index, tracker in trackers_of(chain):
        if not tracker.training and not tracker.frozen and f"{prefix}{index}.u" in state_dict:
            weight = chain_input(chain, index)
            _, u, v = _read_once(tracker, weight)
            if weight.is_meta or u.data_ptr() == tracker.u.data_ptr():
                continue
            saved = {"u": u, "v": to_torch_order(v, weight, matrix_axes(weight, tracker.dim))}
            for name, rows in saved.items():
                state_dict[f"{prefix}{index}.{name}"] = rows.to(tracker.u.dtype)


def _read_once(tracker: SingularVectorTracker, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    tracker.expect_read()
    with full_precision(weight):
        return tracker._read(weight)


def _before_loading(chain: ParametrizationList, state_dict: Mapping[str, Any], prefix: str, *_args: object) -> None:
    """Take a weight that is loaded without vectors as another than the one that they belong to."""
    if any(key.startswith(f"{prefix}original") for key in state_dict):
        for _, tracker in trackers_of(chain):
            tracker.unsettled = True  # until its own are loaded


@torch.no_grad()
def _after_loading(chain: ParametrizationList, *_: object) -> None:
    """Take the loaded weight as that of the loaded vectors, before somebody can change it."""
    if any(hasattr(source, "full_tensor") or source.is_meta for source in sources_of(chain, len(chain))):
        return  # To gather it now would wait for processes that perhaps load nothing. The next read takes it.
    for index, tracker in trackers_of(chain):
        if not tracker.reference.is_meta and tracker.reference.isnan().any():
            tracker._remember(chain_input(chain, index))
