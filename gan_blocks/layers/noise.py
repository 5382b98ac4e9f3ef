"""Noise whose strength follows the discriminator's output, for least-squares GANs.

Tested in ``tests/layers/test_noise.py``.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gan_blocks._checks import bad_shape, bad_value, check_module, check_positive
from gan_blocks._precision import wide_dtype

__all__ = ["AdaptiveGaussianNoise", "update_adaptive_noise"]


class AdaptiveGaussianNoise(nn.Module):
    r"""Multiplicative Gaussian noise in a discriminator, the stronger the surer that one is of generated images.

    .. math:: y_{nc} = x_{nc}\,(1 + s\,\sqrt{C}\,\epsilon_{nc}), \quad \epsilon_{nc} \sim \mathcal{N}(0, 1), \qquad
        s = 0.2 \max(0, \hat d - 0.5)^2, \quad \hat d \leftarrow 0.9\,\hat d + 0.1\,d

    Every sample n has one draw for each of its C channels, from torch's global generator, as dropout has. d is how sure
    the discriminator is that generated images are generated, from 0 to 1. The noise keeps a least-squares GAN from
    spiralling out of control when that approaches 1. ProGAN has one before each 3x3 and 4x4 convolution. Call
    :func:`update_adaptive_noise` after each training step; forward passes change nothing. In eval mode the input is
    returned.

    The paper calls d the discriminator's output and leaves the axes of the noise open; both are told here as in its
    published code. There, generated images have the target 1, so that its output is d. Here larger means more real.

    Args:
        strength: The factor 0.2, greater than 0.
        threshold: The certainty 0.5 from which on there is noise.
        decay: The decay 0.9 of the average, at least 0 and less than 1.
        device: Device of the average.
        dtype: Dtype of the average.

    Attributes:
        output_average: The average :math:`\hat d`, a scalar buffer that starts at 0.

    Shape:
        - x: ``(batch, channels, ...)``
        - returns: same as ``x``

    Raises:
        ValueError: If ``strength`` is not greater than 0, ``decay`` is outside its range, or the input has no channels.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", Appendix B.

    Example:
        >>> noise = AdaptiveGaussianNoise()
        >>> torch.equal(noise(torch.ones(1, 3)), torch.ones(1, 3))  # the average starts at 0
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
        """Multiply every channel of every sample by a draw around 1, in training mode."""
        if x.dim() < 2:
            raise bad_shape("AdaptiveGaussianNoise", "x", "(batch, channels, ...)", x)
        if not self.training:
            return x
        batch, channels = x.shape[:2]
        deviation = self.strength * (self.output_average - self.threshold).clamp(min=0).square() * math.sqrt(channels)
        draws = torch.randn(batch, channels, *[1] * (x.dim() - 2), device=x.device, dtype=x.dtype)
        return x * (1 + deviation.to(x.dtype) * draws)

    def update(self, fake_logits: Tensor) -> None:
        """Let the average follow the discriminator's outputs on generated images; see :func:`update_adaptive_noise`.

        Raises:
            ValueError: If ``fake_logits`` is empty or not one-dimensional.
        """
        self._follow(_certainty(fake_logits))

    @torch.no_grad()
    def _follow(self, certainty: Tensor) -> None:
        # One step whose outputs are NaN, which a GradScaler would skip, must not stay in the average for good.
        known = torch.where(certainty.isnan(), self.output_average, certainty.to(self.output_average))
        self.output_average.lerp_(known, 1 - self.decay)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"strength={self.strength}, threshold={self.threshold}, decay={self.decay}"


def update_adaptive_noise(discriminator: nn.Module, *, fake_logits: Tensor) -> None:
    r"""Tell all :class:`AdaptiveGaussianNoise` layers of a discriminator its latest outputs on generated images.

    .. math:: \hat d \leftarrow 0.9\,\hat d + 0.1\,d, \qquad
        d = \min\Bigl(1, \max\Bigl(0, 1 - \frac{1}{n}\sum_i D(G(z_i))\Bigr)\Bigr)

    Call it once a training step, with the outputs that the discriminator learned from. Its targets are 1 for real and
    0 for generated images, so d is 1 where it is sure. A discriminator without such layers is left as it is.

    Args:
        discriminator: The network that holds the layers.
        fake_logits: Its outputs on a batch of generated images; larger means more real. If their mean is NaN, the
            average stays as it is. Where ``torch.distributed`` is
            initialized, they are averaged over all processes, each of which has to call this.

    Shape:
        - fake_logits: ``(batch,)``

    Raises:
        ValueError: If ``fake_logits`` is empty or not one-dimensional.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", Appendix B.

    Example:
        >>> noise = AdaptiveGaussianNoise()
        >>> update_adaptive_noise(torch.nn.Sequential(noise), fake_logits=torch.tensor([0.0, 0.5]))
        >>> round(noise.output_average.item(), 6)
        0.075
    """
    check_module("update_adaptive_noise", "discriminator", discriminator)
    certainty = _certainty(fake_logits)
    for module in discriminator.modules():
        if isinstance(module, AdaptiveGaussianNoise):
            module._follow(certainty)


@torch.no_grad()
def _certainty(fake_logits: Tensor) -> Tensor:
    """How sure a discriminator is that generated images are generated, over the samples of all processes."""
    if fake_logits.dim() != 1 or fake_logits.numel() == 0:
        raise bad_shape("update_adaptive_noise", "fake_logits", "(batch,) with at least one sample", fake_logits)
    wide = fake_logits.to(wide_dtype(fake_logits))
    total_and_count = torch.stack([wide.sum(), torch.full_like(wide[0], len(wide))])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total_and_count)
    certainty: Tensor = 1 - total_and_count[0] / total_and_count[1]
    return certainty.clamp(0, 1)
