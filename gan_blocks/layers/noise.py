"""Noise whose strength follows the discriminator's output, for least-squares GANs.

Tested in ``tests/layers/test_noise.py``.
"""

import torch
from torch import Tensor, nn

from gan_blocks._checks import bad_shape, bad_value, check_positive

__all__ = ["AdaptiveGaussianNoise", "update_adaptive_noise"]


class AdaptiveGaussianNoise(nn.Module):
    r"""Multiplicative Gaussian noise in a discriminator, the stronger the surer that one is of real images.

    .. math:: y = x\,(1 + s\,n), \quad n \sim \mathcal{N}(0, 1), \qquad
        s = 0.2 \max(0, \hat d - 0.5)^2, \quad \hat d \leftarrow 0.9\,\hat d + 0.1\,d

    It keeps a least-squares GAN from spiralling out of control when the discriminator's output d on real images
    approaches its target 1. ProGAN has one before each 3x3 and 4x4 convolution. Call :func:`update_adaptive_noise`
    after each update of the discriminator; forward passes change nothing. In eval mode the input is returned.

    Differences from the paper: it leaves open what d is and which axes n has. Here d is the mean output on real
    samples, and n is drawn for each element, from torch's global generator, as dropout does.

    Args:
        strength: The factor 0.2, greater than 0.
        threshold: The output 0.5 from which on there is noise.
        decay: The decay 0.9 of the average, at least 0 and less than 1.
        device: Device of the average.
        dtype: Dtype of the average.

    Attributes:
        output_average: The average :math:`\hat d`, a scalar buffer that starts at 0.

    Shape:
        - x: ``(...)``
        - returns: same as ``x``

    Raises:
        ValueError: If ``strength`` is not greater than 0, or ``decay`` is outside its range.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", Appendix B.

    Example:
        >>> noise = AdaptiveGaussianNoise()
        >>> torch.equal(noise(torch.ones(3)), torch.ones(3))  # the average starts at 0
        True
    """

    output_average: Tensor

    def __init__(
        self,
        *,
        strength: float = 0.2,
        threshold: float = 0.5,
        decay: float = 0.9,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive("AdaptiveGaussianNoise", strength=strength)
        if not 0 <= decay < 1:
            raise bad_value("AdaptiveGaussianNoise", "decay", "at least 0 and less than 1", decay)
        self.strength = strength
        self.threshold = threshold
        self.decay = decay
        self.register_buffer("output_average", torch.empty((), device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the average zero."""
        nn.init.zeros_(self.output_average)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply every element by a draw around 1, in training mode."""
        if not self.training:
            return x
        deviation = self.strength * (self.output_average - self.threshold).clamp(min=0).square()
        return x * (1 + deviation.to(x.dtype) * torch.randn_like(x))

    @torch.no_grad()
    def update(self, real_logits: Tensor) -> None:
        """Let the average follow the mean of the discriminator's outputs on real images, ``(batch,)``.

        Raises:
            ValueError: If ``real_logits`` is empty or not one-dimensional.
        """
        if real_logits.dim() != 1 or real_logits.numel() == 0:
            raise bad_shape("AdaptiveGaussianNoise", "real_logits", "(batch,) with at least one sample", real_logits)
        self.output_average.lerp_(real_logits.mean().to(self.output_average), 1 - self.decay)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"strength={self.strength}, threshold={self.threshold}, decay={self.decay}"


def update_adaptive_noise(discriminator: nn.Module, *, real_logits: Tensor) -> None:
    r"""Tell all :class:`AdaptiveGaussianNoise` layers of a discriminator its latest outputs on real images.

    .. math:: \hat d \leftarrow 0.9\,\hat d + 0.1\,\frac{1}{n}\sum_i D(x_i)

    Call it once per update of the discriminator. A discriminator without such layers is left as it is.

    Args:
        discriminator: The network that holds the layers.
        real_logits: Its outputs on a batch of real images.

    Shape:
        - real_logits: ``(batch,)``

    Raises:
        ValueError: If ``real_logits`` is empty or not one-dimensional.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", Appendix B.

    Example:
        >>> noise = AdaptiveGaussianNoise()
        >>> update_adaptive_noise(torch.nn.Sequential(noise), real_logits=torch.tensor([0.5, 1.5]))
        >>> round(noise.output_average.item(), 6)
        0.1
    """
    for module in discriminator.modules():
        if isinstance(module, AdaptiveGaussianNoise):
            module.update(real_logits)
