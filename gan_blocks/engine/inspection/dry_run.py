"""Building and running networks without memory, arithmetic or delay.

A network on torch's meta device needs neither memory nor arithmetic. But most kernels of that device are written in
Python, and the first one to be called imports torch's compiler, which takes as long as importing torch itself.

Tested in ``tests/engine/inspection/test_dry_run.py``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gan_blocks.engine.recipe.build import construct
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.recipe import Recipe

__all__ = ["DryRun", "WithoutInitialization", "build_on_meta"]


class WithoutInitialization(TorchFunctionMode):
    """A context in which the random and constant fillers of ``torch.nn.init`` leave their tensor as it is.

    Example:
        >>> with WithoutInitialization(), torch.device("meta"):
        ...     layer = torch.nn.Embedding(1000, 128)
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or return the tensor that it would fill."""
        kwargs = kwargs or {}
        # Some functions are method wrappers, which have no module.
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def build_on_meta(recipe: Recipe[Any], config: TrainingConfig) -> tuple[nn.Module, nn.Module]:
    """G and D of a Config in eval mode, on the meta device.

    Raises:
        UserError: If a size is beyond what a tensor can have, or a layer refuses its arguments.
    """
    with WithoutInitialization(), torch.device("meta"):
        generator = construct("generator", lambda: recipe.build_generator(config), copies=0)
        discriminator = construct("discriminator", lambda: recipe.build_discriminator(config), copies=0)
    return generator.eval(), discriminator.eval()


class _Counter:
    """What :class:`DryRun` does, in a class that is not a mode: torch imports its compiler to exclude a mode's own."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = _by_rule(func, args, kwargs)
        if out is NotImplemented:
            with self:  # type: ignore[attr-defined]
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:  # then its parts have been counted
                return out
            out = func(*args, **kwargs)
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
        return out


class DryRun(_Counter, TorchDispatchMode):
    """A context that counts what is multiplied in it, with short cuts for common operators on the meta device.

    The count is that of :class:`torch.utils.flop_counter.FlopCounterMode`, by the same formulas for the operators
    that torch executes. One without a short cut, and any outside of the meta device, runs as it does elsewhere: it is
    counted all the same, but the first such operator on the meta device takes a second or two.

    What comes out of a short cut is contiguous, whatever the memory layout of its arguments.

    Attributes:
        flops: Multiplications and additions so far; one multiply-add is two of them.

    Example:
        >>> with DryRun() as run:
        ...     _ = torch.empty(2, 3, device="meta") @ torch.empty(3, 5, device="meta")
        >>> run.flops
        60
    """


def _by_rule(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    rule = _RULES.get(func)
    if rule is None or not all(value.is_meta for value in _tensors(*args, *kwargs.values())):
        return NotImplemented
    return rule(func, *args, **kwargs)


# Rules: each returns what the operator does on the meta device, or NotImplemented where it cannot tell.


def _elementwise(_func: Any, *args: Any, **kwargs: Any) -> Any:
    tensors = _tensors(*args)
    dtypes = {value.dtype for value in tensors} | {kwargs.get("dtype") or tensors[0].dtype}
    if len(dtypes) > 1 or not tensors[0].is_floating_point():
        return NotImplemented
    return _meta(tensors[0], torch.broadcast_tensors(*tensors)[0].shape)


def _rowwise(positions: tuple[int, ...], func: Any, *args: Any, **kwargs: Any) -> Any:
    """Ask the CPU for the shape of a row, without any rows, so that there is nothing to compute.

    Row i of the output is that of the arguments at ``positions``; the other arguments belong to all rows.
    """
    rows = {tuple(value.shape[:1]) for position in positions for value in _tensors(args[position])}
    rowless = (_on_cpu(value, rowless=position in positions) for position, value in enumerate(args))
    try:
        out = func(*rowless, **kwargs)
    except RuntimeError:  # perhaps only the CPU refuses; if not, the meta device says so
        return NotImplemented
    outs = _tensors(out)
    if len(rows) != 1 or any(value.shape[:1] != (0,) for value in outs):  # such as a sum over the rows
        return NotImplemented
    whole = tuple(_meta(value, (*next(iter(rows)), *value.shape[1:])) for value in outs)
    return whole[0] if isinstance(out, Tensor) else whole


def _convolution(
    func: Any,
    x: Tensor,
    weight: Tensor,
    _bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Any:
    inputs, outputs = (0, 1) if transposed else (1, 0)
    channels = {inputs: weight.shape[inputs], outputs: weight.shape[outputs]}
    channels[1] *= groups
    if x.shape[1] != channels[inputs]:
        return NotImplemented
    # One channel shows the size. The CPU copies the whole weight, even where there is nothing to multiply it with.
    settings = (stride, padding, dilation, transposed, output_padding, 1)
    out = _rowwise((0,), func, x[:, :1], weight[:1, :1], None, *settings)
    return out if out is NotImplemented else _meta(x, (x.shape[0], channels[outputs], *out.shape[2:]))


def _batch_norm(_func: Any, x: Tensor, *args: Any) -> Any:
    training = args[4]
    return NotImplemented if training else (_meta(x, x.shape), _meta(x, (0,)), _meta(x, (0,)))


def _cat(func: Any, parts: list[Tensor], dim: int = 0) -> Any:
    along_rows = dim in (0, -parts[0].dim())
    return NotImplemented if along_rows else _rowwise((0,), func, parts, dim)


def _view(_func: Any, x: Tensor, size: list[int]) -> Any:
    return x.reshape(size)  # a view may rely on the memory layout, which the other rules do not follow


def _meta(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device="meta")


def _on_cpu(value: Any, *, rowless: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_on_cpu(part, rowless=rowless) for part in value]
    if not isinstance(value, Tensor):
        return value
    shape = (0, *value.shape[1:]) if rowless else value.shape
    return torch.empty((), dtype=value.dtype, device="cpu").expand(shape)  # the memory of one element


def _tensors(*values: Any) -> list[Tensor]:
    flat = (part for value in values for part in (value if isinstance(value, list | tuple) else (value,)))
    return [part for part in flat if isinstance(part, Tensor)]


_aten = torch.ops.aten
_RULES: dict[Any, Callable[..., Any]] = {
    _aten._safe_softmax.default: _elementwise,
    _aten.add.Tensor: _elementwise,
    _aten.addcmul.default: _elementwise,
    _aten.leaky_relu.default: _elementwise,
    _aten.mul.Scalar: _elementwise,
    _aten.mul.Tensor: _elementwise,
    _aten.relu.default: _elementwise,
    _aten.sub.Tensor: _elementwise,
    _aten.tanh.default: _elementwise,
    _aten.addmm.default: partial(_rowwise, (1,)),
    _aten.avg_pool2d.default: partial(_rowwise, (0,)),
    _aten.bmm.default: partial(_rowwise, (0, 1)),
    _aten.embedding.default: partial(_rowwise, (1,)),
    _aten.max_pool2d_with_indices.default: partial(_rowwise, (0,)),
    _aten.mm.default: partial(_rowwise, (0,)),
    _aten.sum.dim_IntList: partial(_rowwise, (0,)),
    _aten.upsample_nearest2d.default: partial(_rowwise, (0,)),
    _aten.cat.default: _cat,
    _aten.convolution.default: _convolution,
    _aten.native_batch_norm.default: _batch_norm,
    _aten.view.default: _view,
}
