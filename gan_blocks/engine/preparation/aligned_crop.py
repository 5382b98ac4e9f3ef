r"""The oriented crop of CelebA-HQ: a square that follows eyes and mouth of a face (Karras et al. 2018, Appendix C).

.. math::
    x' &= e_1 - e_0, \qquad y' = \tfrac12 (e_0 + e_1) - \tfrac12 (m_0 + m_1) \\
    c &= \tfrac12 (e_0 + e_1) - 0.1\, y', \qquad s = \max(4.0 |x'|, 3.6 |y'|) \\
    x &= \mathrm{Normalize}(x' - \mathrm{Rotate90}(y')), \qquad y = \mathrm{Rotate90}(x)

The vector y' points from the mouth up to the eyes, so Rotate90 is the quarter turn that takes up to left.

Where the paper is silent, this is ours: what lies outside the image is mirrored at its outermost pixels, and blends
into its Gaussian-blurred self, with a standard deviation of 2 % of the crop's size, over the first 10 % of that size
outside. The image itself is never blurred. The paper samples 4096 x 4096 points for 1024 x 1024 pixels, 4 x 4 for each
pixel; so do we at any resolution, or a larger power of two where the crop has more pixels than that.

Differences from the paper: no networks remove JPEG artifacts or enlarge the image beforehand, and no images are
discarded by their spectrum afterward.

Tested in ``tests/engine/preparation/test_aligned_crop.py``.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch.nn import functional as F

__all__ = ["CropRectangle", "FacePoints", "aligned_crop", "crop_rectangle"]

_BLUR = 0.02
_RAMP = 0.1
_CUT = 3.0  # standard deviations, beyond which the Gaussian is cut off
_LARGEST = 4.0  # crops, in sides of the image; more would be mirror images of mirror images
_SAMPLES = 2**22  # taken at once, to bound the memory
_BLOCK = 64

Vector = NDArray[np.float64]
Pixels = NDArray[np.float32]


class FacePoints(NamedTuple):
    """Eyes and corners of the mouth in pixels, (x, y); (0, 0) is the middle of the image's top left pixel.

    Number 0 is the one on the left of the picture when the face is upright.
    """

    eye_0: tuple[float, float]
    eye_1: tuple[float, float]
    mouth_0: tuple[float, float]
    mouth_1: tuple[float, float]


class CropRectangle(NamedTuple):
    """A square in the coordinates of the image, whose y axis points down."""

    center: Vector
    size: float
    x: Vector
    """Unit vector from the left of the crop to the right."""
    y: Vector
    """Unit vector from the bottom of the crop to the top."""


def crop_rectangle(points: FacePoints) -> CropRectangle:
    """The crop of a face, as the equations say.

    Raises:
        ValueError: If the points coincide or are not finite, so that there is no square or no direction.
    """
    e0, e1, m0, m1 = np.array(points, dtype=np.float64)
    across = e1 - e0
    up = (e0 + e1) / 2 - (m0 + m1) / 2
    size = max(4.0 * math.hypot(*across), 3.6 * math.hypot(*up))
    direction = across - _rotate90(up)
    length = math.hypot(*direction)
    if not (math.isfinite(size) and length > 1e-6 * size):
        raise ValueError("the landmarks give no direction")
    x = direction / length
    return CropRectangle((e0 + e1) / 2 - 0.1 * up, size, x, _rotate90(x))


def aligned_crop(image: NDArray[np.uint8], points: FacePoints, resolution: int) -> NDArray[np.uint8]:
    """Crop a face, upright and centered, and resample it.

    Args:
        image: Pixels of the upright image.
        points: Landmarks of the face.
        resolution: Height and width of the result.

    Returns:
        The pixels of the crop, rounded to the nearest level.

    Shape:
        - image: ``(height, width, channels)``
        - returns: ``(channels, resolution, resolution)``

    Raises:
        ValueError: If the landmarks give no crop, or one whose center is outside the image, or that is more than four
            times as large as the image.
    """
    rectangle = crop_rectangle(points)
    height, width = image.shape[:2]
    inside = 0 <= rectangle.center[0] <= width - 1 and 0 <= rectangle.center[1] <= height - 1
    if not inside or rectangle.size > _LARGEST * max(height, width):
        raise ValueError("the landmarks do not fit into the image")
    corners = np.abs(rectangle.x) + np.abs(rectangle.y)
    # One pixel more on each side, because bilinear interpolation looks at the four around a point.
    start = np.floor(rectangle.center - corners * rectangle.size / 2).astype(int) - 1
    stop = np.ceil(rectangle.center + corners * rectangle.size / 2).astype(int) + 2
    region = _extended(image, start, stop, rectangle.size)
    return _sampled(region, rectangle._replace(center=rectangle.center - start), resolution)


def _rotate90(vector: Vector) -> Vector:
    return np.array([vector[1], -vector[0]])


def _extended(image: NDArray[np.uint8], start: NDArray[np.int_], stop: NDArray[np.int_], size: float) -> Pixels:
    """The pixels from ``start`` up to ``stop`` (x, y), wherever they are; those outside are mirrored and blurred."""
    height, width = image.shape[:2]
    outside = [
        np.maximum(np.maximum(-place, place - (length - 1)), 0)
        for place, length in ((np.arange(start[1], stop[1]), height), (np.arange(start[0], stop[0]), width))
    ]
    deviation = _BLUR * size
    margin = math.ceil(_CUT * deviation) if any(distance.any() for distance in outside) else 0
    rows = _mirrored(start[1] - margin, stop[1] + margin, height)
    columns = _mirrored(start[0] - margin, stop[0] + margin, width)
    region: Pixels = image[rows[:, None], columns].astype(np.float32)
    if margin == 0:
        return region
    plain = region[margin:-margin, margin:-margin]
    distance = np.hypot(outside[0][:, None], outside[1]).astype(np.float32)
    share: Pixels = np.minimum(distance / np.float32(_RAMP * size), np.float32(1))[..., None]
    blurred = _blurred(_blurred(region, deviation, margin).swapaxes(0, 1), deviation, margin).swapaxes(0, 1)
    return plain + share * (blurred - plain)


def _mirrored(start: int, stop: int, length: int) -> NDArray[np.int_]:
    """Where in 0 to ``length - 1`` each place is, mirrored at the first and the last as often as it takes."""
    period = max(2 * (length - 1), 1)
    place = np.arange(start, stop) % period
    mirrored: NDArray[np.int_] = np.minimum(place, period - place) if length > 1 else place
    return mirrored


def _blurred(pixels: Pixels, deviation: float, margin: int) -> Pixels:
    """Convolve the first axis with a Gaussian, without the margin on each side."""
    kernel = np.exp(-0.5 * (np.arange(-margin, margin + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    # Block by block a product with a matrix whose rows are shifted kernels, which is faster than a loop over taps.
    matrix = np.zeros((_BLOCK, _BLOCK + 2 * margin), np.float32)
    for row in range(_BLOCK):
        matrix[row, row : row + len(kernel)] = kernel
    flat = pixels.reshape(len(pixels), -1)
    result = np.empty((len(pixels) - 2 * margin, flat.shape[1]), np.float32)
    for first in range(0, len(result), _BLOCK):
        count = min(_BLOCK, len(result) - first)
        part = flat[first : first + count + 2 * margin]
        result[first : first + count] = matrix[:count, : count + 2 * margin] @ part
    return result.reshape(-1, *pixels.shape[1:])


def _sampled(region: Pixels, rectangle: CropRectangle, resolution: int) -> NDArray[np.uint8]:
    """Bilinear samples on a grid finer than the pixels by a whole factor, averaged over each pixel."""
    height, width, channels = region.shape
    extent = np.array([width, height])
    factor = max(4, 2 ** math.ceil(math.log2(rectangle.size / resolution)))
    source = rearrange(torch.from_numpy(np.ascontiguousarray(region)), "h w c -> 1 c h w")
    pixels = np.empty((channels, resolution, resolution), np.uint8)
    rows = max(1, _SAMPLES // (resolution * factor * factor))
    for first in range(0, resolution, rows):
        last = min(first + rows, resolution)
        # torch's coordinates: -1 and 1 are the outer edges of the first and the last pixel, v points down.
        share, middle = (last - first) / resolution, (first + last) / resolution - 1
        u = rectangle.size * rectangle.x / extent
        v = -rectangle.size * rectangle.y / extent
        origin = (2 * rectangle.center + 1) / extent - 1 + middle * v
        theta = torch.from_numpy(np.stack([u, share * v, origin], axis=1))[None]
        grid = F.affine_grid(theta, [1, 1, (last - first) * factor, resolution * factor], align_corners=False)
        samples = F.grid_sample(source, grid.float(), mode="bilinear", padding_mode="border", align_corners=False)
        levels = F.avg_pool2d(samples, factor)[0].add_(0.5).clamp_(0, 255)
        pixels[:, first:last] = levels.to(torch.uint8).numpy()
    return pixels
