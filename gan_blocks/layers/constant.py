"""A feature map that is learned, for generators that begin with one.

Tested in ``tests/layers/test_constant.py``.
"""

import torch
from torch import Tensor, nn

from gan_blocks._checks import check_sizes, check_vectors

__all__ = ["LearnedConstant2d"]


class LearnedConstant2d(nn.Module):
    r"""A learned feature map, the same for every sample or scaled by what the sample says of its channels.

    .. math:: y_{nchw} = h_{nc}\, C_{chw}

    With h of ones it is the constant input of StyleGAN's generator; with h a projection of the latents, the basis of
    R3GAN's.

    Args:
        num_features: Number of channels, at least 1.
        height: Height of the map, at least 1; the papers have 4.
        width: Its width; None: the height.
        device: Device of the map.
        dtype: Dtype of the map.

    Attributes:
        constant: The map C, normally distributed at first.

    Shape:
        - scale: ``(batch, num_features)``
        - returns: ``(batch, num_features, height, width)``, in the dtype of ``scale``

    Raises:
        ValueError: If a size is not positive, or ``scale`` has another shape.

    References:
        Karras et al. 2019, "A Style-Based Generator Architecture for Generative Adversarial Networks", section 2;
        Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern Baseline GAN".

    Example:
        >>> constant = LearnedConstant2d(16, 4)
        >>> constant(torch.ones(2, 16)).shape
        torch.Size([2, 16, 4, 4])
    """

    keeps_initial_values = True

    def __init__(
        self,
        num_features: int,
        height: int,
        width: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        width = height if width is None else width
        check_sizes("LearnedConstant2d", num_features=num_features, height=height, width=width)
        self.constant = nn.Parameter(torch.empty(num_features, height, width, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the map from a standard normal distribution."""
        nn.init.normal_(self.constant)

    def forward(self, scale: Tensor) -> Tensor:
        """Return a map for every sample."""
        check_vectors("LearnedConstant2d", "scale", scale, len(self.constant))
        return scale[:, :, None, None] * self.constant.to(scale.dtype)

    def extra_repr(self) -> str:
        """Return the sizes as ``repr`` shows them."""
        return ", ".join(map(str, self.constant.shape))
