"""Multi-scale structural similarity: how alike two images are to the eye, and so how little a generator varies.

Tested in ``tests/metrics/test_structural_similarity.py``.
"""

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from gan_blocks._checks import RESIZE, bad_shape, bad_value
from gan_blocks.metrics._samples import check_images

__all__ = ["multiscale_ssim"]

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first: Wang et al.'s experiment
WINDOW, SIGMA = 11, 1.5  # pixels
C1, C2 = 0.01**2, 0.03**2  # for values in [0, 1]
MULTIPLE = 2 ** (len(WEIGHTS) - 1)


@torch.no_grad()
def multiscale_ssim(preds: Tensor, target: Tensor, *, data_range: tuple[float, float] = (-1.0, 1.0)) -> Tensor:
    r"""Compare pairs of images in contrast and structure at five scales, and in brightness at the coarsest.

    .. math:: \text{MS-SSIM}(x, y) = \bar l_5^{\,w_5} \prod_{s=1}^{5} \bar c_s^{\,w_s}, \qquad
        c = \frac{2 \sigma_{xy} + C_2}{\sigma_x^2 + \sigma_y^2 + C_2}, \qquad
        l = \frac{2 \mu_x \mu_y + C_1}{\mu_x^2 + \mu_y^2 + C_1}

    The moments of x and y, their values brought to [0, 1], are those under a Gaussian window of 11x11 pixels and
    standard deviation 1.5, wherever all of it lies within the image; a bar is the mean over places and channels, below
    zero taken as zero, and that of the last scale is of the product :math:`l\,c`. Each scale halves the last by
    averaging 2x2 pixels. C1 is 0.0001 and C2 0.0009; w are the weights 0.0448, 0.2856, 0.3001, 0.2363 and 0.1333.

    Where a scale is smaller than the window, the window shrinks to it, and its standard deviation in proportion.
    ProGAN's published code does so, and has to: at 128x128, where the paper measures, the last scale has 8x8 pixels.
    Many implementations refuse images below 161 pixels instead. Compare numbers of equal resolution only.

    The mean over pairs of generated images, beside that of real ones, tells a lack of variation (Odena et al. take
    pairs of one class): it is higher where images are alike. It hardly sees a loss of colors or textures. It is a
    measure, not a loss: no gradient is recorded.

    Args:
        preds: Images of any floating dtype.
        target: As many, each to be compared with that in its place.
        data_range: The least and the greatest value of an image.

    Returns:
        The similarity of each pair, from 0 to 1 but for rounding, and 1 for equal images.

    Shape:
        - preds: ``(batch, channels, height, width)``, height and width multiples of 16
        - target: same as ``preds``
        - returns: ``(batch,)``

    Raises:
        ValueError: If a shape is not the one above, or the range is empty.
        TypeError: If images are no tensor of a floating dtype.

    References:
        Wang et al. 2003, "Multiscale Structural Similarity for Image Quality Assessment"; Odena et al. 2017,
        "Conditional Image Synthesis with Auxiliary Classifier GANs"; Karras et al. 2018, section 6.1 and Table 1.

    Example:
        >>> images = torch.rand(2, 3, 32, 32)
        >>> multiscale_ssim(images, images).tolist()
        [1.0, 1.0]
    """
    owner = "multiscale_ssim"
    low, high = data_range
    if not low < high:
        raise bad_value(owner, "data_range", "a smaller number before a greater one", data_range)
    for name, images in (("preds", preds), ("target", target)):
        check_images(owner, name, images)
    if preds.dim() != 4 or 0 in preds.shape or preds.shape[2] % MULTIPLE or preds.shape[3] % MULTIPLE:
        rule = f"(batch, channels, height, width) with multiples of {MULTIPLE} as height and width"
        raise bad_shape(owner, "preds", rule, preds, RESIZE)
    if target.shape != preds.shape:
        raise bad_shape(owner, "target", f"{tuple(preds.shape)}, that of `preds`", target)
    dtype = torch.promote_types(torch.promote_types(preds.dtype, target.dtype), torch.float32)
    x, y = ((images.to(dtype) - low) / (high - low) for images in (preds, target))
    similarity = x.new_ones(x.shape[0])
    for scale, weight in enumerate(WEIGHTS):
        if scale > 0:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        brightness, contrast = _maps(x, y)
        last = scale == len(WEIGHTS) - 1
        means = reduce(brightness * contrast if last else contrast, "b c h w -> b", "mean")
        similarity = similarity * means.clamp(min=0) ** weight
    return similarity


def _maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The terms l and c at each place of the window."""
    channels, size = x.shape[1], min(WINDOW, *x.shape[2:])
    places = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    window = torch.exp(-0.5 * (places / (SIGMA * size / WINDOW)) ** 2)
    window = (window / window.sum()).expand(channels, 1, 1, size)

    def blurred(images: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(images, window, groups=channels), window.mT, groups=channels)

    mean_x, mean_y = blurred(x), blurred(y)
    variances = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    brightness = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return brightness, (2 * covariance + C2) / (variances + C2)
