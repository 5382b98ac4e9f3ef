"""Up- and downsampling by two, and the blend between two resolutions.

Tested in ``tests/layers/test_resampling.py``.
"""

import torch.nn.functional as F
from torch import Tensor

from gan_blocks._checks import bad_shape, bad_value, check_rank, check_real_floating
from gan_blocks._precision import wide_dtype

__all__ = [
    "downsample_average",
    "downsample_filtered",
    "fade_images",
    "fade_in",
    "upsample_bilinear",
    "upsample_nearest",
]


def upsample_nearest(x: Tensor) -> Tensor:
    r"""Double height and width by repeating every pixel in a 2x2 square.

    .. math:: y_{chw} = x_{c\lfloor h/2 \rfloor\lfloor w/2 \rfloor}

    Args:
        x: Feature map of any floating dtype; the result keeps dtype, device and memory format.

    Returns:
        The larger feature map.

    Shape:
        - x: ``(batch, channels, height, width)``
        - returns: ``(batch, channels, 2 * height, 2 * width)``

    Raises:
        ValueError: If ``x`` is not four-dimensional.

    References:
        Brock et al. 2018, Appendix B; Karras et al. 2018, "Progressive Growing of GANs", section 2.

    Example:
        >>> upsample_nearest(torch.tensor([[[[1.0, 2.0]]]])).tolist()
        [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]
    """
    check_rank("upsample_nearest", "x", x, ("batch", "channels", "height", "width"))
    # einops.repeat says the same, but its backward was 2 to 30 times slower and it loses channels_last.
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def upsample_bilinear(x: Tensor) -> Tensor:
    r"""Double height and width by interpolating linearly between the centers of pixels.

    .. math:: y_{c,2h} = \tfrac{1}{4} x_{c,h-1} + \tfrac{3}{4} x_{c,h}, \qquad
        y_{c,2h+1} = \tfrac{3}{4} x_{c,h} + \tfrac{1}{4} x_{c,h+1}

    along the height, and the same along the width; at the borders the outermost pixel is repeated. That is
    :func:`upsample_nearest` behind which the filter [1, 2, 1] / 4 runs along both axes. In BigGAN's generator it gave
    worse images than :func:`upsample_nearest`; StyleGAN has it, and :func:`downsample_filtered` in its discriminator.

    Args:
        x: Feature map of any floating dtype; the result keeps dtype, device and memory format.

    Returns:
        The larger feature map.

    Shape:
        - x: ``(batch, channels, height, width)``
        - returns: ``(batch, channels, 2 * height, 2 * width)``

    Raises:
        ValueError: If ``x`` is not four-dimensional.
        TypeError: If ``x`` is not of a real floating dtype.

    References:
        Brock et al. 2018, Appendix H; Karras et al. 2019, "A Style-Based Generator Architecture for Generative
        Adversarial Networks", section 2.

    Example:
        >>> upsample_bilinear(torch.tensor([[[[1.0, 3.0]]]]))[0, 0, 0].tolist()
        [1.0, 1.5, 2.5, 3.0]
    """
    check_rank("upsample_bilinear", "x", x, ("batch", "channels", "height", "width"))
    check_real_floating("upsample_bilinear", "x", x)
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def downsample_average(x: Tensor) -> Tensor:
    r"""Halve height and width by averaging every 2x2 square of pixels.

    .. math:: y_{chw} = \tfrac{1}{4} \sum_{i=0}^{1}\sum_{j=0}^{1} x_{c,\,2h+i,\,2w+j}

    It undoes :func:`upsample_nearest`.

    Args:
        x: Feature map of any floating dtype; the result keeps dtype, device and memory format.

    Returns:
        The smaller feature map.

    Shape:
        - x: ``(batch, channels, height, width)`` with even height and width
        - returns: ``(batch, channels, height / 2, width / 2)``

    Raises:
        ValueError: If ``x`` is not four-dimensional, or its height or width is odd or zero: no pixel may be dropped.
        TypeError: If ``x`` is not of a real floating dtype.

    References:
        Brock et al. 2018, Appendix B; Karras et al. 2018, "Progressive Growing of GANs", section 2.

    Example:
        >>> downsample_average(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).item()
        3.0
    """
    _check_even("downsample_average", x)
    return F.avg_pool2d(x, kernel_size=2)


def downsample_filtered(x: Tensor) -> Tensor:
    r"""Halve height and width behind the filter [1, 2, 1] / 4, which keeps fine patterns from turning into coarse ones.

    .. math:: y_{c,h} = \tfrac{1}{8} x_{c,2h-1} + \tfrac{3}{8} x_{c,2h} + \tfrac{3}{8} x_{c,2h+1} +
        \tfrac{1}{8} x_{c,2h+2}

    along the height, and the same along the width; at the borders the outermost pixel is repeated. That is
    :func:`downsample_average` of the filtered map.

    Args:
        x: Feature map of any floating dtype; the result keeps dtype, device and memory format.

    Returns:
        The smaller feature map.

    Shape:
        - x: ``(batch, channels, height, width)`` with even height and width
        - returns: ``(batch, channels, height / 2, width / 2)``

    Raises:
        ValueError: If ``x`` is not four-dimensional, or its height or width is odd or zero.
        TypeError: If ``x`` is not of a real floating dtype.

    References:
        Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", Tri-3; Karras et al. 2019, section 2.

    Example:
        >>> downsample_filtered(torch.tensor([[[[0.0, 0.0, 8.0, 8.0]] * 2]])).tolist()
        [[[[1.0, 7.0]]]]
    """
    _check_even("downsample_filtered", x)
    wide = x.to(wide_dtype(x))  # narrower sums would lose what they add
    return _halved(_halved(wide, 2), 3).to(x.dtype)


def _check_even(owner: str, x: Tensor) -> None:
    axes = ("batch", "channels", "height", "width")
    check_rank(owner, "x", x, axes)
    check_real_floating(owner, "x", x)
    height, width = x.shape[2:]
    if height % 2 or width % 2 or not height or not width:
        raise bad_shape(owner, "x", f"({', '.join(axes)}) with even height and width", x)


def _halved(x: Tensor, axis: int) -> Tensor:
    """The filter [1, 3, 3, 1] / 8 at every second place along one axis."""
    padded = F.pad(x, (1, 1, 0, 0) if axis == 3 else (0, 0, 1, 1), mode="replicate")
    first, second, third, fourth = (padded[..., i::2] if axis == 3 else padded[..., i::2, :] for i in range(4))
    places = x.shape[axis] // 2
    outer = first.narrow(axis, 0, places) + fourth.narrow(axis, 0, places)
    inner = second.narrow(axis, 0, places) + third.narrow(axis, 0, places)
    return outer / 8 + inner * 0.375


def fade_in(old: Tensor, new: Tensor, alpha: float) -> Tensor:
    r"""Blend what a network computed before it grew with what it computes now.

    .. math:: y = (1 - \alpha)\,\text{old} + \alpha\,\text{new}

    Both ends are exact: 0 gives ``old`` and 1 gives ``new``, bit for bit. The generator blends its images, the
    discriminator its feature maps, and :func:`fade_images` the real images, all with one alpha.

    Args:
        old: Path of the previous resolution, brought to the size of ``new``.
        new: Path through the new layers.
        alpha: Weight of the new path, from 0 to 1.

    Returns:
        The blend.

    Shape:
        - old: ``(...)``
        - new: same as ``old``
        - returns: same as ``old``

    Raises:
        ValueError: If the shapes differ, or ``alpha`` is outside its range.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 2, Figure 2.

    Example:
        >>> fade_in(torch.tensor([0.0, 4.0]), torch.tensor([4.0, 8.0]), 0.25).tolist()
        [1.0, 5.0]
    """
    if not 0 <= alpha <= 1:
        raise bad_value("fade_in", "alpha", "from 0 to 1", alpha)
    if old.shape != new.shape:
        raise bad_shape("fade_in", "old", f"{tuple(new.shape)}, that of new", old)
    return old.lerp(new, alpha)


def fade_images(images: Tensor, alpha: float) -> Tensor:
    r"""Blend real images with their own half resolution, as a fading generator blends its two.

    .. math:: y = (1 - \alpha)\,\text{up}(\text{down}(x)) + \alpha\,x

    with :func:`downsample_average` and :func:`upsample_nearest`. Without it a discriminator tells real from generated
    images only by their finest details while a resolution fades in.

    Args:
        images: Real images at the new resolution.
        alpha: Weight of the new resolution, from 0 to 1; 1 returns ``images`` bit for bit.

    Returns:
        The blend.

    Shape:
        - images: ``(batch, channels, height, width)`` with even height and width
        - returns: same as ``images``

    Raises:
        ValueError: If ``images`` has another shape, or ``alpha`` is outside its range.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 2, Figure 2.

    Example:
        >>> fade_images(torch.tensor([[[[0.0, 0.0], [0.0, 4.0]]]]), 0.5).flatten().tolist()
        [0.5, 0.5, 0.5, 2.5]
    """
    return fade_in(upsample_nearest(downsample_average(images)), images, alpha)
