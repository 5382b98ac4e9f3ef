"""The one place that words argument errors.

Every message reads ``Owner: `name` must be RULE, but got name=VALUE.`` and may end with one sentence of remedy.
The functions return the exception, so that the ``raise`` stays visible where the value is used.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gan_blocks._transforms import is_traced, is_transformed

__all__ = [
    "RESIZE",
    "bad_dtype",
    "bad_kind",
    "bad_shape",
    "bad_value",
    "check_at_least_0",
    "check_batch",
    "check_classes",
    "check_exactly_one",
    "check_factories",
    "check_feature_map",
    "check_finite",
    "check_flags",
    "check_initialized",
    "check_labels",
    "check_module",
    "check_positive",
    "check_rank",
    "check_real_floating",
    "check_sizes",
    "check_vectors",
    "check_whole",
]

RESIZE = 'Resize both sets: F.interpolate(images, size=32, mode="bilinear", antialias=True).'
"""The remedy of a metric that does not take images of every size."""


def bad_value(owner: str, name: str, rule: str, value: object, remedy: str = "") -> ValueError:
    """Word a ValueError for an argument of the right kind with a wrong value."""
    return ValueError(_message(owner, name, rule, f"{name}={value!r}", remedy))


def bad_kind(owner: str, name: str, rule: str, value: object, remedy: str = "") -> TypeError:
    """Word a TypeError for an argument of the wrong kind."""
    got = f"the class {value.__name__}" if isinstance(value, type) else f"{name} of type {type(value).__name__}"
    return TypeError(_message(owner, name, rule, got, remedy))


def bad_shape(owner: str, name: str, pattern: str, value: Tensor, remedy: str = "") -> ValueError:
    """Word a ValueError for a tensor whose shape does not follow ``pattern``, such as ``(batch, channels)``."""
    return ValueError(_message(owner, name, f"of shape {pattern}", f"{name} of shape {tuple(value.shape)}", remedy))


def bad_dtype(owner: str, name: str, rule: str, value: Tensor, remedy: str = "") -> TypeError:
    """Word a TypeError for a tensor of the wrong dtype; ``rule`` names the right one, such as ``int64``."""
    return TypeError(_message(owner, name, f"of dtype {rule}", f"{name} of dtype {value.dtype}", remedy))


def check_positive(owner: str, **values: float) -> None:
    """Raise unless every keyword's value is greater than zero."""
    for name, value in values.items():
        if isinstance(value, str):
            raise bad_kind(owner, name, "a number greater than 0", value)
        if not value > 0:
            raise bad_value(owner, name, "greater than 0", value)


def check_whole(owner: str, **values: object) -> None:
    """Raise unless every keyword's value is an integer, of any kind but bool."""
    for name, value in values.items():
        if isinstance(value, bool) or not hasattr(type(value), "__index__"):
            raise bad_kind(owner, name, "a whole number", value)


def check_sizes(owner: str, **values: int) -> None:
    """Raise unless every keyword's value is a whole number greater than zero."""
    for name, value in values.items():
        check_whole(owner, **{name: value})
        check_positive(owner, **{name: value})


def check_at_least_0(owner: str, **values: float) -> None:
    """Raise unless every keyword's value is zero or greater."""
    for name, value in values.items():
        if not value >= 0:
            raise bad_value(owner, name, "at least 0", value)


def check_finite(owner: str, **values: float) -> None:
    """Raise unless every keyword's value is finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise bad_value(owner, name, "finite", value)


def check_flags(owner: str, **values: object) -> None:
    """Raise if a keyword's value is a word, such as that of another option: it would count as True."""
    for name, value in values.items():
        if isinstance(value, str):
            raise bad_kind(owner, name, "True or False", value)


def check_module(owner: str, name: str, value: object) -> None:
    """Raise unless ``value`` is a module; its class is none, nor are its parameters."""
    if not isinstance(value, nn.Module):
        raise bad_kind(owner, name, "a module, such as nn.Linear(4, 3)", value)


def check_initialized(owner: str, name: str, value: nn.Module) -> None:
    """Raise if a module has lazy parameters, whose shapes are not known before its first batch."""
    lazy = [key for key, parameter in value.named_parameters() if is_lazy(parameter)]
    if lazy:
        rule = f"{owner}: `{name}` must not have uninitialized parameters, but got {name} with {', '.join(lazy)}."
        raise RuntimeError(f"{rule} Run a batch through it first.")


def check_factories(owner: str, **values: object) -> None:
    """Raise unless every keyword's value can be called to make layers, which a layer cannot."""
    for name, value in values.items():
        if isinstance(value, nn.Module) or not callable(value):
            kind = type(value).__name__
            remedy = f"Pass the class {kind}, or a functools.partial of it." if isinstance(value, nn.Module) else ""
            raise bad_kind(owner, name, "a class or function that makes layers", value, remedy)


def check_exactly_one(owner: str, **values: object) -> None:
    """Raise unless exactly one of the keywords is given, the others being None."""
    if sum(value is not None for value in values.values()) != 1:
        names = " and ".join(f"`{name}`" for name in values)
        got = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ValueError(f"{owner}: exactly one of {names} must be given, but got {got}.")


def check_rank(owner: str, name: str, value: Tensor, axes: Sequence[str]) -> None:
    """Raise unless ``value`` has one dimension per name in ``axes``."""
    if value.dim() != len(axes):
        raise bad_shape(owner, name, f"({', '.join(axes)}{',' * (len(axes) == 1)})", value)


def check_vectors(owner: str, name: str, value: Tensor, width: int, *, batch: int | None = None) -> None:
    """Raise unless ``value`` is a tensor of one vector of so many numbers per sample of the batch."""
    if not isinstance(value, Tensor):
        raise bad_kind(owner, name, "a tensor", value)
    if value.dim() != 2 or value.shape[1] != width or (batch is not None and value.shape[0] != batch):
        raise bad_shape(owner, name, f"({'batch' if batch is None else batch}, {width})", value)


def check_batch(owner: str, name: str, value: Tensor) -> None:
    """Raise unless ``value`` is a tensor of samples, of any shape and a real floating dtype."""
    if not isinstance(value, Tensor):
        raise bad_kind(owner, name, "a tensor", value)
    if value.dim() < 2 or value.numel() == 0:
        raise bad_shape(owner, name, "(batch, ...) with at least one sample", value)
    check_real_floating(owner, name, value)


def check_real_floating(owner: str, name: str, value: Tensor) -> None:
    """Raise unless ``value`` is of a floating dtype and not complex."""
    if not value.is_floating_point():
        raise TypeError(_message(owner, name, "of a real floating dtype", f"{name} of dtype {value.dtype}", ""))


def check_labels(owner: str, name: str, value: Tensor, num_classes: int) -> None:
    """Raise unless ``value`` holds one int64 class index per sample; the range is checked only on the CPU."""
    if not isinstance(value, Tensor):
        raise bad_kind(owner, name, "a tensor of labels", value)
    if value.dtype != torch.int64:
        raise bad_dtype(owner, name, "int64", value)
    check_rank(owner, name, value, ("batch",))
    # Reading values would stall a CUDA stream and break a compiled graph. In transforms and traces there are none.
    if value.device.type != "cpu" or torch.compiler.is_compiling() or type(value) is not Tensor:
        return
    if is_transformed(value) or is_traced() or value.numel() == 0:
        return
    low, high = (int(extreme) for extreme in value.aminmax())
    if low < 0 or high >= num_classes:
        rule = f"at least 0 and less than num_classes={num_classes}"
        got = f"values from {low} to {high}" if low < high else str(low)
        raise ValueError(_message(owner, name, rule, got, ""))


def check_classes(owner: str, name: str, value: Tensor, num_classes: int) -> None:
    """Raise unless ``value`` holds labels, or floating weights of shape ``(batch, num_classes)`` that mix classes."""
    if not isinstance(value, Tensor):
        raise bad_kind(owner, name, "a tensor of labels or of class weights", value)
    if not value.is_floating_point():
        check_labels(owner, name, value, num_classes)
    elif value.dim() != 2 or value.shape[1] != num_classes:
        remedy = "Labels are int64, of shape (batch,)." if value.dim() == 1 else ""
        raise bad_shape(owner, name, f"(batch, {num_classes}) where it is floating", value, remedy)


def _message(owner: str, name: str, rule: str, got: str, remedy: str) -> str:
    message = f"{owner}: `{name}` must be {rule}, but got {got}."
    return f"{message} {remedy}" if remedy else message


def check_feature_map(owner: str, x: Tensor, channels: int) -> None:
    """Raise unless ``x`` is a tensor, and a feature map of so many channels."""
    if not isinstance(x, Tensor):
        raise bad_kind(owner, "x", "a tensor", x)
    if x.dim() != 4 or x.shape[1] != channels:
        raise bad_shape(owner, "x", f"(batch, {channels}, height, width)", x)
