"""Values that change while images are seen, and decays of averages told as half-lives.

Tested in ``tests/training/test_ramps.py``.
"""

import math

from gan_blocks._checks import bad_value, check_positive

__all__ = ["cosine_ramp", "gaussian_ramp", "half_life_decay", "linear_ramp"]


def linear_ramp(images: int, over: int, *, start: float, end: float) -> float:
    r"""Go from one value to another in equal steps, and stay there.

    .. math:: v = v_0 + (v_1 - v_0) \, t, \qquad t = \min(1, \text{images} / \text{over})

    Args:
        images: Images seen, at least 0.
        over: Images until the end is reached, greater than 0.
        start: The value at 0 images.
        end: The value from ``over`` images on, exactly.

    Returns:
        The value.

    Raises:
        ValueError: If ``images`` is negative, or ``over`` is not greater than 0.

    Example:
        >>> [linear_ramp(images, 100, start=1.0, end=0.0) for images in (0, 25, 500)]
        [1.0, 0.75, 0.0]
    """
    return _between(start, end, _progress("linear_ramp", images, over))


def cosine_ramp(images: int, over: int, *, start: float, end: float) -> float:
    r"""Go from one value to another along half a cosine, slowly at both ends, and stay there.

    .. math:: v = v_1 + (v_0 - v_1) \, \tfrac{1}{2} (1 + \cos \pi t), \qquad t = \min(1, \text{images} / \text{over})

    Args:
        images: Images seen, at least 0.
        over: Images until the end is reached, greater than 0.
        start: The value at 0 images.
        end: The value from ``over`` images on, exactly.

    Returns:
        The value.

    Raises:
        ValueError: If ``images`` is negative, or ``over`` is not greater than 0.

    References:
        Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern Baseline GAN", whose rates, betas and penalties
        follow it.

    Example:
        >>> [round(cosine_ramp(images, 100, start=1.0, end=0.0), 3) for images in (0, 25, 50, 500)]
        [1.0, 0.854, 0.5, 0.0]
    """
    return _between(start, end, (1 - math.cos(math.pi * _progress("cosine_ramp", images, over))) / 2)


def gaussian_ramp(images: int, over: int, *, end: float) -> float:
    r"""Rise to a value along one side of a bell curve, from 0.7 % of it, and stay there.

    .. math:: v = v_1 \, e^{-5 (1 - t)^2}, \qquad t = \min(1, \text{images} / \text{over})

    Args:
        images: Images seen, at least 0.
        over: Images until the end is reached, greater than 0.
        end: The value from ``over`` images on, exactly.

    Returns:
        The value.

    Raises:
        ValueError: If ``images`` is negative, or ``over`` is not greater than 0.

    References:
        Laine and Aila 2017, "Temporal Ensembling for Semi-Supervised Learning". Learning rates of ProGAN's published
        code rise so over the first 40,000 images.

    Example:
        >>> [round(gaussian_ramp(images, 100, end=1.0), 3) for images in (0, 50, 100, 500)]
        [0.007, 0.287, 1.0, 1.0]
    """
    return end * math.exp(-5 * (1 - _progress("gaussian_ramp", images, over)) ** 2)


def half_life_decay(half_life_images: float, *, batch_size: int) -> float:
    r"""The decay of an average that is to forget half of what it holds within so many images.

    .. math:: d = 2^{-\text{batch size} / \text{half-life}}

    A ramp of the half-life is one of the decay: an average that starts as ``half_life_decay(min(half_life,
    0.05 * images), batch_size=...)`` does not remember the first weights for long.

    Args:
        half_life_images: The half-life, at least 0; 0 is no memory, a decay of 0.
        batch_size: Images of an update, greater than 0.

    Returns:
        The decay for :class:`ExponentialMovingAverage`, from 0 to 1.

    Raises:
        ValueError: If an argument is outside its range.

    References:
        Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", whose code tells it so.

    Example:
        >>> half_life_decay(10_000, batch_size=10_000)
        0.5
    """
    owner = "half_life_decay"
    check_positive(owner, batch_size=batch_size)
    if not half_life_images >= 0:
        raise bad_value(owner, "half_life_images", "at least 0", half_life_images)
    return 0.5 ** (batch_size / half_life_images) if half_life_images > 0 else 0.0


def _progress(owner: str, images: int, over: int) -> float:
    check_positive(owner, over=over)
    if not images >= 0:
        raise bad_value(owner, "images", "at least 0", images)
    return min(1.0, images / over)


def _between(start: float, end: float, share: float) -> float:
    return end if share == 1 else start + (end - start) * share
