"""The exponential moving average of a model's weights.

Tested in ``tests/training/test_ema.py``.
"""

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gan_blocks._checks import bad_kind, bad_value, check_module
from gan_blocks.spectral.advancing import advance_power_iteration
from gan_blocks.spectral.torch_layouts import torch_singular_vectors
from gan_blocks.spectral.tracking import SingularVectorTracker

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage:
    r"""A copy of a model whose weights follow the model's slowly; samples are drawn from it.

    .. math:: \bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta

    What happens to a tensor of the model:

    - parameters, and buffers of a floating or complex dtype, running statistics among them: averaged;
    - other buffers, such as counters and random states: copied;
    - the singular vectors of ``torch.nn.utils`` spectral norms, by parametrization or by hook, and the buffers that a
      module names in an attribute ``copied_buffers``: copied, since an average of unit vectors is none;
    - the singular vectors u and v of :func:`gan_blocks.spectral_norm` and :func:`gan_blocks.clamp_sigma`: neither.
      They start as the model's and then advance once per update on the averaged weights, by the same rule as in the
      model, so that they stay converged there.

    Averaging takes place in the dtype of the weights. In float32 an update moves a weight w by :math:`(1 - d)` times
    its distance, and is lost to rounding once that is below :math:`2^{-25} |w|`: for a decay of 0.9999 the
    average stands still within a relative distance of 3e-4 to 6e-4 of a weight that has settled. In bfloat16 it would
    hardly move at all: average the float32 weights of a model that runs under autocast.

    All that it holds is in the state of :attr:`module`, which is its own :meth:`state_dict`: after loading it, the run
    continues bit for bit.

    Args:
        model: The model to follow; it is copied and not changed.
        decay: The decay d, from 0 (follow at once) to 1 (stand still). The paper uses 0.9999.

    Attributes:
        module: The averaged copy, in eval mode and without gradients.
        decay: The decay of :meth:`update` where none is given.

    Raises:
        ValueError: If ``decay`` is outside its range.
        TypeError: If ``model`` is no module.

    References:
        Brock et al. 2018, section 3 and Appendix C; Karras et al. 2018, "Progressive Growing of GANs", Appendix A.1.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> average = ExponentialMovingAverage(model, decay=0.75)
        >>> before = average.module.weight.clone()
        >>> with torch.no_grad():
        ...     _ = model.weight.add_(4)  # what an optimizer would do
        >>> average.update(model)
        >>> round((average.module.weight - before).item(), 4)
        1.0
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999) -> None:
        check_module("ExponentialMovingAverage", "model", model)
        self.decay = _checked_decay(decay)
        self.module: nn.Module = copy.deepcopy(model).eval().requires_grad_(False)
        # A deep copy brings the gradients along.
        self.module.zero_grad(set_to_none=True)

    @torch.no_grad()
    def update(self, model: nn.Module, *, decay: float | None = None) -> None:
        """Move the average toward the model; call it after each optimizer step.

        Args:
            model: The model that was copied, or one of the same names and shapes.
            decay: From 0 to 1, only for this update; 0 copies the model exactly, with u and v, and 1 changes
                nothing. None takes the decay of the constructor.

        Raises:
            ValueError: If ``decay`` is outside its range, or the tensors of ``model`` differ in name or shape.
        """
        check_module("ExponentialMovingAverage", "model", model)
        decay = self.decay if decay is None else _checked_decay(decay)
        averages, values = _tensors(self.module), _tensors(model)
        _check_alike(averages, values)
        if decay == 1:
            return
        moving: tuple[list[Tensor], list[Tensor]] = ([], [])
        copied: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, average in averages.items():
            if decay > 0 and average.kind == "advances":
                continue
            group = copied if decay == 0 or average.kind == "copied" else moving
            group[0].append(average.tensor)
            value = values[name].tensor
            alike = value.dtype == average.tensor.dtype and value.device == average.tensor.device
            group[1].append(value if alike else value.to(average.tensor))
        if moving[0]:
            torch._foreach_lerp_(*moving, weight=1 - decay)
        if copied[0]:
            torch._foreach_copy_(*copied)
        if decay > 0:
            advance_power_iteration(self.module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the averaged copy."""
        return self.module(*args, **kwargs)

    def state_dict(self) -> dict[str, Tensor]:
        """The state of the averaged copy; the decay is no part of it."""
        state: dict[str, Tensor] = self.module.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load what :meth:`state_dict` gave, or the state dict of the model itself, to begin with it.

        Raises:
            RuntimeError: If names or shapes differ, as of :class:`torch.nn.Module`.
        """
        self.module.load_state_dict(state_dict)

    def __repr__(self) -> str:
        return f"ExponentialMovingAverage({type(self.module).__name__}, decay={self.decay})"


def _checked_decay(decay: float) -> float:
    if isinstance(decay, str):
        raise bad_kind("ExponentialMovingAverage", "decay", "a number from 0 to 1", decay)
    if not 0 <= decay <= 1:
        raise bad_value("ExponentialMovingAverage", "decay", "from 0 to 1", decay)
    return decay


_Kind = Literal["averaged", "copied", "advances"]


class _Entry(NamedTuple):
    """A parameter or buffer of a model."""

    tensor: Tensor
    kind: _Kind


def _tensors(model: nn.Module) -> dict[str, _Entry]:
    """List parameters and buffers by name, a shared one once, in a single walk: this happens at every update."""
    found: dict[str, _Entry] = {}
    seen: set[int] = set()
    for prefix, module in _walk(model, ""):
        buffers = module._buffers
        if not buffers and not module._parameters:
            continue
        advancing = ("u", "v", "reference") if buffers and isinstance(module, SingularVectorTracker) else ()
        copied = _copied_buffers(module) if buffers else ()
        for name, tensor in (*module._parameters.items(), *buffers.items()):
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                linear = (tensor.is_floating_point() or tensor.is_complex()) and name not in copied
                kind: _Kind = "advances" if name in advancing else "averaged" if linear else "copied"
                found[f"{prefix}{name}"] = _Entry(tensor, kind)
    return found


def _walk(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """As ``named_modules``, with a dot after each name, in less than half of the time."""
    todo, seen = [(prefix, module)], set()
    while todo:
        prefix, module = todo.pop()
        if id(module) not in seen:
            seen.add(id(module))
            yield prefix, module
            children = reversed(module._modules.items())
            todo += [(f"{prefix}{name}.", child) for name, child in children if child is not None]


def _copied_buffers(module: nn.Module) -> Collection[str]:
    """The buffers of one module that are not linear in its weights."""
    return [*torch_singular_vectors(module), *getattr(module, "copied_buffers", ())]


def _check_alike(averages: dict[str, _Entry], values: dict[str, _Entry]) -> None:
    if averages.keys() == values.keys() and all(
        entry.tensor.shape == values[name].tensor.shape for name, entry in averages.items()
    ):
        return
    shapes = [{name: entry.tensor.shape for name, entry in entries.items()} for entries in (averages, values)]
    for name in [*averages, *values]:
        wanted, got = (f"{name} of shape {tuple(shape[name])}" if name in shape else f"no {name}" for shape in shapes)
        if wanted != got:
            raise ValueError(f"ExponentialMovingAverage: `model` must have {wanted}, as the average, but has {got}.")
