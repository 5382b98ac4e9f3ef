"""Pixelwise normalization of feature vectors.

Tested in ``tests/layers/test_normalization.py``.
"""

from torch import Tensor, nn

from gan_blocks._checks import bad_shape, check_positive, check_real_floating
from gan_blocks._precision import wide_dtype

__all__ = ["PixelNorm", "pixel_norm"]


def pixel_norm(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    r"""Scale the feature vector of every pixel to unit mean square.

    .. math:: y_{chw} = x_{chw} \Big/ \sqrt{\tfrac{1}{C}\sum_{k} x_{khw}^2 + \epsilon}

    A batch of vectors is scaled alike: ProGAN's latents are normal draws put on the hypersphere in this way.

    Args:
        x: Feature map or vectors of any floating dtype; the result keeps dtype, device and memory format. The mean
            square is taken in float32 or wider.
        eps: Added to the mean square, inside the root; greater than 0.

    Returns:
        The normalized features.

    Shape:
        - x: ``(batch, channels, ...)``, in networks ``(batch, channels, height, width)``
        - returns: same as ``x``

    Raises:
        ValueError: If ``x`` has fewer than two dimensions, or ``eps`` is not greater than 0.
        TypeError: If ``x`` is not of a real floating dtype.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 4.2.

    Example:
        >>> pixel_norm(torch.full((1, 4, 1, 1), 3.0)).flatten().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    check_positive("pixel_norm", eps=eps)
    if x.dim() < 2:
        raise bad_shape("pixel_norm", "x", "(batch, channels, ...)", x)
    check_real_floating("pixel_norm", "x", x)
    # In half precision squares overflow and eps is zero.
    wide = x.to(wide_dtype(x))
    return (wide / (wide.square().mean(dim=1, keepdim=True) + eps).sqrt()).to(x.dtype)


class PixelNorm(nn.Module):
    r"""The module form of :func:`pixel_norm`; it has no parameters and is the same in training and evaluation.

    Args:
        eps: Added to the mean square, inside the root; greater than 0.

    Shape:
        - x: ``(batch, channels, ...)``
        - returns: same as ``x``

    Raises:
        ValueError: If ``eps`` is not greater than 0, or the input has fewer than two dimensions.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 4.2.

    Example:
        >>> PixelNorm()(torch.tensor([[6.0, 8.0]])).square().mean().item()
        1.0
    """

    def __init__(self, *, eps: float = 1e-8) -> None:
        super().__init__()
        check_positive("PixelNorm", eps=eps)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize every pixel's features."""
        return pixel_norm(x, eps=self.eps)

    def extra_repr(self) -> str:
        """Show eps."""
        return f"eps={self.eps}"
