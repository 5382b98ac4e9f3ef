"""Small perceptrons that train faster than torch's own layers.

Tested in ``tests/recipes/test_mixture_of_gaussians.py``.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Perceptron", "init_he_"]


class Perceptron(nn.Sequential):
    """Linear layers, ReLU between them: what torch's compute, up to rounding, to be differentiated once.

    Args:
        widths: Features of the input, of each hidden layer and of the output. The weights begin as torch's do, drawn
            from the global random state.
        act_layer: Makes what stands between them; other than with ReLU, the layers are torch's.

    Shape:
        - x: ``(batch, widths[0])``
        - returns: ``(batch, widths[-1])``
    """

    def __init__(self, widths: Sequence[int], act_layer: Callable[[], nn.Module] = nn.ReLU) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), act_layer()]
        super().__init__(*layers[:-1])
        self.widths = tuple(widths)
        self._is_fast = act_layer is nn.ReLU

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers, with ReLU on the CPU in float32 by oneDNN."""
        if not self._is_fast or x.device.type != "cpu" or x.dtype != torch.float32 or not _has_onednn():
            y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return y
        linear = [layer for layer in self if isinstance(layer, nn.Linear)]
        for layer in linear:
            x = _LinearReLU.apply(x, layer.weight, layer.bias, layer is not linear[-1])  # type: ignore[no-untyped-call]
        return x


@torch.no_grad()
def init_he_(perceptron: Perceptron) -> None:
    """Draw the weights anew: He's uniform ones, and Glorot's in the last layer; biases of 0."""
    *hidden, last = (layer for layer in perceptron if isinstance(layer, nn.Linear))
    for layer in hidden:
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    nn.init.xavier_uniform_(last.weight)
    for layer in (*hidden, last):
        nn.init.zeros_(layer.bias)


class _LinearReLU(torch.autograd.Function):
    """A linear layer, by choice with ReLU behind it, forward and backward by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        x = x.contiguous()  # kept like this: the backward pass multiplies by it, too
        y = _times_transposed(x, weight, bias)
        y = y.relu_() if relu else y  # oneDNN's own ReLU makes 0 of NaN
        ctx.save_for_backward(x, weight, y if relu else None)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError("Perceptron has no second derivatives in float32 on the CPU: use float64.")
        x, weight, y = ctx.saved_tensors
        grad = grads[0].contiguous() if y is None else torch.ops.aten.threshold_backward(grads[0], y, 0)
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            _times_transposed(grad, weight.mT) if of_x else None,
            _times_transposed(grad.mT.contiguous(), x.mT) if of_weight else None,
            grad.sum(0) if of_bias else None,
            None,
        )


# Measured on two AMD cores with AVX-512, for 256 x 256 matrices: twice as fast as MKL, which torch's layers call and
# which uses half of a core's width there.
def _times_transposed(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """By oneDNN, which torch keeps for compiled models: ``a @ b.mT + bias``; a is row-major, b or its transpose."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return product


@cache
def _has_onednn() -> bool:
    """Whether this torch has the product, in the form used here, and exact."""
    digits = torch.full((64, 64), 1 + 2**-12, device="cpu", dtype=torch.float32)  # more than bfloat16 and TF32 have
    try:
        product = _times_transposed(digits, digits).double()
        return torch.allclose(product, digits.double() @ digits.double(), rtol=1e-5, atol=0)
    except (AttributeError, RuntimeError, TypeError):
        return False
