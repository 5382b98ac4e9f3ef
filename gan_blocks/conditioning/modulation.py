"""Gains and biases from a condition, without normalization.

Tested in ``tests/conditioning/test_modulation.py``.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from gan_blocks._checks import check_factories, check_feature_map, check_sizes, check_vectors
from gan_blocks.layers._placing import placed

__all__ = ["FiLM2d"]


class FiLM2d(nn.Module):
    r"""Scale and shift every channel by what a condition says, and leave its statistics alone.

    .. math:: y_{nchw} = (1 + W^{\text{gain}}_c \cdot h_n)\,x_{nchw} + W^{\text{bias}}_c \cdot h_n

    This is :class:`ConditionalBatchNorm2d` without the normalization, for generators of which only the weights
    are normalized, spectrally or otherwise. In BigGAN that crippled training. Train and eval mode do the same.

    Args:
        num_features: Number of channels of the feature map, at least 1.
        condition_dim: Width of the condition h, at least 1.
        linear_layer: Factory of both projections, called as
            ``linear_layer(condition_dim, num_features, bias=False)`` like ``nn.Linear``.
        device: Device of both projections.
        dtype: Dtype of both projections.

    Attributes:
        gain: The projection to the gains, less 1.
        bias: The projection to the biases.

    Shape:
        - x: ``(batch, num_features, height, width)``
        - condition: ``(batch, condition_dim)``
        - returns: same as ``x``

    Raises:
        ValueError: If a size is not positive, or an input has another shape.
        TypeError: If an input is no tensor.

    References:
        Perez et al. 2018, "FiLM"; Brock et al. 2018, Appendix H for batch normalization taken out of G.

    Example:
        >>> modulation = FiLM2d(64, 148)
        >>> modulation(torch.randn(4, 64, 8, 8), torch.randn(4, 148)).shape
        torch.Size([4, 64, 8, 8])
    """

    takes_condition = True

    def __init__(
        self,
        num_features: int,
        condition_dim: int,
        *,
        linear_layer: Callable[..., nn.Module] = nn.Linear,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        owner = "FiLM2d"
        check_factories(owner, linear_layer=linear_layer)
        check_sizes(owner, num_features=num_features, condition_dim=condition_dim)
        self.num_features = num_features
        self.condition_dim = condition_dim
        self.gain = placed(linear_layer(condition_dim, num_features, bias=False), device, dtype)
        self.bias = placed(linear_layer(condition_dim, num_features, bias=False), device, dtype)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Scale and shift each sample's channels by what its condition says."""
        check_feature_map("FiLM2d", x, self.num_features)
        check_vectors("FiLM2d", "condition", condition, self.condition_dim, batch=x.shape[0])
        factors = (1 + self.gain(condition), self.bias(condition))
        gain, bias = (rearrange(value, "batch c -> batch c 1 1").to(x.dtype) for value in factors)
        return torch.addcmul(bias, x, gain)
