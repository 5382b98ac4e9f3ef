"""Equalized learning rate: weights drawn from N(0, 1) and scaled by He's constant at run time.

Tested in ``tests/layers/test_equalized.py``.
"""

import math
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from gan_blocks._checks import bad_value, check_module, check_positive, check_sizes

__all__ = ["EqualizedConv2d", "EqualizedConvTranspose2d", "EqualizedLearningRate", "EqualizedLinear", "equalized_lr"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class EqualizedLearningRate(nn.Module):
    r"""Multiply a weight by a constant; registered by :func:`equalized_lr`.

    .. math:: \hat w = c\,w

    Args:
        scale: The constant c, greater than 0.

    Shape:
        - weight: ``(...)``
        - returns: same as ``weight``

    Raises:
        ValueError: If ``scale`` is not greater than 0.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 4.1.

    Example:
        >>> EqualizedLearningRate(0.5)(torch.tensor([4.0, 2.0])).tolist()
        [2.0, 1.0]
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        check_positive("EqualizedLearningRate", scale=scale)
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight that the layer works with."""
        return weight * self.scale

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the stored weight that gives ``weight``; assigning to the layer's weight goes through here."""
        return weight / self.scale

    def extra_repr(self) -> str:
        """Show the constant."""
        return f"scale={self.scale:.6g}"


def equalized_lr(
    module: ModuleT, name: str = "weight", *, gain: float = math.sqrt(2.0), fan_in: int | None = None
) -> ModuleT:
    r"""Equalize the learning rate of a weight: draw it from N(0, 1) and scale it by He's constant at run time.

    .. math:: \hat w = \frac{g}{\sqrt{n}}\,w, \qquad w_i \sim \mathcal{N}(0, 1)

    n is the fan-in, the number of inputs of one output. The layer starts as with He's initialization, but all stored
    weights have one dynamic range, so that Adam and other scale-invariant optimizers move all layers at one speed.

    The weight gets new values, from torch's global generator; a bias is left alone. Other parametrizations, such as
    :func:`spectral_norm`, come after it and see the scaled weight. ``layer.weight`` is the scaled weight, too:
    initialize ``layer.parametrizations.weight.original`` instead.

    A deep copy shares the class that torch makes for a parametrized layer, so ``remove_parametrizations`` on the copy
    takes the weight from the original, too. Build the network anew instead, load the state dict, and remove them there.

    Args:
        module: Any layer.
        name: The parameter to equalize.
        gain: The gain g, greater than 0: :math:`\sqrt 2` before a (leaky) ReLU, 1 in a linear last layer.
        fan_in: The fan-in n, at least 1. None counts all dimensions but the first, or, in transposed convolutions,
            which store (in, out, ...), all but the second: as if the stride were 1.

    Returns:
        ``module`` itself. In its state dict ``weight`` has become ``parametrizations.weight.original``.

    Raises:
        ValueError: If the module has no such parameter, it has fewer than two dimensions, or ``gain`` or ``fan_in``
            is not greater than 0.
        RuntimeError: If the parameter has a parametrization already.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 4.1; He et al. 2015, "Delving Deep into Rectifiers".

    Example:
        >>> layer = equalized_lr(torch.nn.Linear(8, 4), gain=1.0)
        >>> torch.allclose(layer.weight * 8**0.5, layer.parametrizations.weight.original)
        True
    """
    owner = "equalized_lr"
    check_module(owner, "module", module)
    if is_parametrized(module, name):
        raise RuntimeError(f"{owner}: `{name}` must not be parametrized already. Equalize the learning rate first.")
    weight = module._parameters.get(name)
    if weight is None or weight.dim() < 2:
        rule = f"a parameter of {type(module).__name__} with two or more dimensions"
        raise bad_value(owner, "name", rule, name)
    if fan_in is None:
        fan_in = weight[:, 0].numel() // _groups(module) if isinstance(module, _TRANSPOSED) else weight[0].numel()
    check_sizes(owner, fan_in=fan_in)
    check_positive(owner, gain=gain)
    register_parametrization(module, name, EqualizedLearningRate(gain / math.sqrt(fan_in)))
    nn.init.normal_(_stored(module, name))
    if not isinstance(module, (EqualizedLinear, EqualizedConv2d, EqualizedConvTranspose2d)):
        vars(module)["reset_parameters"] = partial(_draw_again, module, name)
    return module


class EqualizedLinear(nn.Linear):
    r"""A linear layer with :func:`equalized_lr`: weights from N(0, 1), scaled by gain / sqrt(in_features); bias 0.

    .. math:: y = \frac{g}{\sqrt{n}}\, W x + b

    Args:
        in_features: Size n of the input, at least 1.
        out_features: Size of the output, at least 1.
        bias: Whether there is a b, which starts at zero and is not scaled.
        gain: The gain g, greater than 0; 1 for a linear last layer.
        device: Device of the parameters.
        dtype: Floating dtype of the parameters.

    Shape:
        - x: ``(..., in_features)``
        - returns: ``(..., out_features)``

    Raises:
        ValueError: If ``in_features`` or ``gain`` is not greater than 0.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 4.1.

    Example:
        >>> EqualizedLinear(512, 1, gain=1.0)(torch.randn(4, 512)).shape
        torch.Size([4, 1])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        gain: float = math.sqrt(2.0),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_sizes("EqualizedLinear", in_features=in_features, out_features=out_features)
        check_positive("EqualizedLinear", gain=gain)
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        equalized_lr(self, gain=gain)

    def reset_parameters(self) -> None:
        """Draw the stored weight from N(0, 1) and set the bias to zero."""
        _reset(self)


class EqualizedConv2d(nn.Conv2d):
    r"""A convolution with :func:`equalized_lr`: weights from N(0, 1), scaled by gain / sqrt(fan-in); bias 0.

    .. math:: y = \frac{g}{\sqrt{n}}\, w * x + b, \qquad n = \text{in\_channels} \cdot k^2 / \text{groups}

    Args:
        in_channels: Channels of the input, at least 1.
        out_channels: Channels of the output, at least 1.
        kernel_size: Height and width k of the kernel.
        stride: Step of the kernel in pixels.
        padding: Zeros on each side of the input.
        dilation: Distance between neighboring taps of the kernel in pixels.
        groups: Groups of channels that are convolved apart; it must divide both numbers of channels.
        bias: Whether there is a b, which starts at zero and is not scaled.
        gain: The gain g, greater than 0; 1 for a linear last layer, such as ProGAN's ``toRGB``.
        device: Device of the parameters.
        dtype: Floating dtype of the parameters.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - returns: as ``torch.nn.Conv2d``

    Raises:
        ValueError: If ``in_channels`` or ``gain`` is not greater than 0.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 4.1.

    Example:
        >>> EqualizedConv2d(16, 32, 3, padding=1)(torch.randn(2, 16, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        gain: float = math.sqrt(2.0),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_sizes("EqualizedConv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        check_positive("EqualizedConv2d", gain=gain)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            device=device,
            dtype=dtype,
        )
        equalized_lr(self, gain=gain)

    def reset_parameters(self) -> None:
        """Draw the stored weight from N(0, 1) and set the bias to zero."""
        _reset(self)


class EqualizedConvTranspose2d(nn.ConvTranspose2d):
    r"""A transposed convolution with :func:`equalized_lr`: weights from N(0, 1), scaled by gain / sqrt(fan-in); bias 0.

    The fan-in is in_channels :math:`\cdot k^2`, as if the stride were 1 and every output met the whole kernel. On a
    single pixel each output meets one weight per channel, so that ProGAN's first layer, a 4x4 kernel on the 1x1 latent
    map, starts at a quarter of He's magnitude: so does the authors' code, which writes it as a dense layer of
    gain :math:`\sqrt 2 / 4`.

    Args:
        in_channels: Channels of the input, at least 1.
        out_channels: Channels of the output, at least 1.
        kernel_size: Height and width k of the kernel.
        stride: Step between the kernel's copies in pixels of the output.
        padding: Pixels cut off each side of the output.
        bias: Whether there is a bias, which starts at zero and is not scaled.
        gain: The gain, greater than 0.
        device: Device of the parameters.
        dtype: Floating dtype of the parameters.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - returns: as ``torch.nn.ConvTranspose2d``

    Raises:
        ValueError: If ``in_channels`` or ``gain`` is not greater than 0.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 4.1 and Table 2.

    Example:
        >>> EqualizedConvTranspose2d(512, 64, 4)(torch.randn(2, 512, 1, 1)).shape
        torch.Size([2, 64, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        gain: float = math.sqrt(2.0),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_sizes("EqualizedConvTranspose2d", in_channels=in_channels, out_channels=out_channels)
        check_positive("EqualizedConvTranspose2d", gain=gain)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias, device=device, dtype=dtype)
        equalized_lr(self, gain=gain)

    def reset_parameters(self) -> None:
        """Draw the stored weight from N(0, 1) and set the bias to zero."""
        _reset(self)


def _draw_again(module: Any, name: str) -> None:
    # The layer's own method fills the scaled weight, which is computed at each read, and all else as it should be.
    if hasattr(type(module), "reset_parameters"):
        type(module).reset_parameters(module)
    if is_parametrized(module, name):
        nn.init.normal_(_stored(module, name))


def _groups(module: nn.Module) -> int:
    return int(getattr(module, "groups", 1))


def _stored(module: nn.Module, name: str) -> Tensor:
    return module.get_parameter(f"parametrizations.{name}.original")


def _reset(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    # torch's constructors call reset_parameters before the parametrization is there, which then draws the weight.
    if is_parametrized(layer, "weight"):
        nn.init.normal_(_stored(layer, "weight"))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
