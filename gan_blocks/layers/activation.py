"""An activation with a bias of its own for every channel.

Tested in ``tests/layers/test_activation.py``.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gan_blocks._checks import bad_shape, check_factories, check_sizes

__all__ = ["BiasedActivation", "leaky_relu"]

leaky_relu = partial(nn.LeakyReLU, 0.2)


class BiasedActivation(nn.Module):
    r"""Add a learned bias to every channel, then apply an activation.

    .. math:: y_{nc\dots} = A(x_{nc\dots} + b_c)

    It stands behind a layer without a bias, such as a grouped convolution. As ``norm_layer`` of a block whose
    ``act_layer`` is ``nn.Identity``, it is that block's activation.

    Args:
        num_features: Number of channels, at least 1.
        act_layer: Factory of the activation A, called without arguments; leaky ReLU of 0.2 by default.
        device: Device of the bias.
        dtype: Dtype of the bias.

    Attributes:
        bias: The bias b, zero at first.

    Shape:
        - x: ``(batch, num_features, ...)``
        - returns: same as ``x``

    Raises:
        ValueError: If ``num_features`` is not positive, or ``x`` has another number of channels.

    References:
        Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern Baseline GAN", whose blocks have it.

    Example:
        >>> layer = BiasedActivation(2)
        >>> _ = torch.nn.init.ones_(layer.bias)
        >>> layer(torch.tensor([[1.0, -2.0]])).tolist()
        [[2.0, -0.20000000298023224]]
    """

    def __init__(
        self,
        num_features: int,
        *,
        act_layer: Callable[[], nn.Module] = leaky_relu,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_factories("BiasedActivation", act_layer=act_layer)
        check_sizes("BiasedActivation", num_features=num_features)
        self.num_features = num_features
        self.bias = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype))
        self.act = act_layer()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the bias zero."""
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations."""
        if x.dim() < 2 or x.shape[1] != self.num_features:
            raise bad_shape("BiasedActivation", "x", f"(batch, {self.num_features}, ...)", x)
        y: Tensor = self.act(x + self.bias.to(x.dtype).reshape(-1, *[1] * (x.dim() - 2)))
        return y

    def extra_repr(self) -> str:
        """Return the channel count as ``repr`` shows it."""
        return str(self.num_features)
