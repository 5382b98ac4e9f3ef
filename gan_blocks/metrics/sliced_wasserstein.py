"""The sliced Wasserstein distance between the patches of two sets of images, at every scale.

Tested in ``tests/metrics/test_sliced_wasserstein.py``.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from gan_blocks._checks import RESIZE, bad_shape, bad_value, check_rank, check_sizes
from gan_blocks._precision import wide_dtype

__all__ = ["laplacian_pyramid", "sliced_wasserstein_distance"]

COARSEST = 16  # pixels; the level that holds the whole low-pass image
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
PROJECTIONS_AT_ONCE = 32  # bounds the memory of the sorted projections


@torch.no_grad()
def sliced_wasserstein_distance(
    real_images: Iterable[Tensor],
    fake_images: Iterable[Tensor],
    *,
    max_images: int = 16_384,
    patches_per_image: int = 128,
    patch_size: int = 7,
    num_projections: int = 512,
    generator: torch.Generator | None = None,
) -> dict[int, float]:
    r"""Compare the distributions of local patches of two sets of images, one number for each scale.

    Both sets go through :func:`laplacian_pyramid`. On each level every image gives patches at random places, of all its
    channels; each set of patches is normalized to mean 0 and standard deviation 1 per channel, **by its own
    moments**. With N patches X and Y and the m random unit vectors u, the distance is that of the sorted projections:

    .. math:: \text{SWD} = \frac{10^3}{m} \sum_u \frac{1}{N} \sum_{i=1}^{N}
        \bigl|(Xu)_{(i)} - (Yu)_{(i)}\bigr|

    A small number on the finest level says that edges and noise are alike, on the coarsest that large structures
    are. The paper's tables give these numbers, and their mean over the levels. Compare numbers of equal settings only:
    with fewer images all are larger, also those of real against other real images, which is the floor.

    Since each set is normalized by itself, the distance cannot see a global change of brightness or contrast, nor a
    level whose patches differ by a factor.

    All images are read once, in order, and need not fit into memory; the patches must: at the paper's settings 1.2 GB
    for each set of RGB images and level.

    Args:
        real_images: Batches of images of any floating dtype and value range; a list, or a generator read lazily.
        fake_images: Batches of as many generated images of the same shape; batch sizes may differ.
        max_images: Images used of each set; the rest is not read.
        patches_per_image: Patches of an image on each level, at least 1.
        patch_size: Height and width of a patch, odd and at most 15.
        num_projections: Number m of random directions, at least 1.
        generator: Source of places and directions, on the CPU; None is torch's global one. The result does
            not depend on how images are split into batches.

    Returns:
        A thousand times the distance at each level, under its resolution, finest first, as in ``{32: 3.1, 16: 5.2}``.

    Shape:
        - real_images: ``(batch, channels, size, size)`` each, size 16 doubled any number of times
        - fake_images: ``(batch', channels, size, size)`` each

    Raises:
        ValueError: If an argument is outside its range, a set is empty, the sets differ in number, channels or size,
            or the size is not 16 doubled.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 5; borders and normalization are those of the
        published code. Rabin et al. 2011, "Wasserstein Barycenter and its Application to Texture Mixing".

    Example:
        >>> real, fake = torch.rand(8, 3, 32, 32), torch.rand(8, 3, 32, 32)
        >>> distances = sliced_wasserstein_distance(real.split(4), fake.split(4), num_projections=8)
        >>> list(distances)
        [32, 16]
    """
    owner = "sliced_wasserstein_distance"
    check_sizes(owner, max_images=max_images, patches_per_image=patches_per_image, num_projections=num_projections)
    if patch_size % 2 == 0 or not 0 < patch_size < COARSEST:
        raise bad_value(owner, "patch_size", "odd and at most 15", patch_size)
    settings = (max_images, patches_per_image, patch_size, generator)
    real = _collect_patches("real_images", real_images, *settings)
    fake = _collect_patches("fake_images", fake_images, *settings)
    shapes = [{size: tuple(patches.shape) for size, patches in levels.items()} for levels in (real, fake)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{owner}: `fake_images` must be as many and of the same shape as `real_images`, but got "
            f"{_describe(fake, patches_per_image)} against {_describe(real, patches_per_image)}."
        )
    return {size: _distance(real.pop(size), fake.pop(size), num_projections, generator) for size in list(real)}


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    r"""Split images into frequency bands: what each halving of the resolution loses, and the 16x16 images that remain.

    .. math:: L_s = I_s - \text{expand}(I_{s/2}), \qquad I_{s/2} = \text{reduce}(I_s), \qquad L_{16} = I_{16}

    reduce blurs with the binomial filter 1-4-6-4-1 and keeps each second pixel; expand puts zeros between pixels and
    blurs with four times the filter. Borders are mirrored, without repeating the edge.

    Args:
        images: Images of any floating dtype.

    Returns:
        The bands, finest first.

    Shape:
        - images: ``(batch, channels, size, size)``, size 16 doubled any number of times
        - returns: ``(batch, channels, s, s)`` for s = size, size / 2, ..., 16

    Raises:
        ValueError: If ``images`` has another shape.

    References:
        Burt and Adelson 1983, "The Laplacian Pyramid as a Compact Image Code"; Karras et al. 2018, section 5.

    Example:
        >>> [tuple(band.shape[2:]) for band in laplacian_pyramid(torch.randn(1, 3, 64, 64))]
        [(64, 64), (32, 32), (16, 16)]
    """
    check_rank("laplacian_pyramid", "images", images, ("batch", "channels", "size", "size"))
    height, width = images.shape[2:]
    if height != width or height % COARSEST or (height // COARSEST).bit_count() != 1:
        rule = "(batch, channels, size, size) with a size of 16, 32, 64, ..."
        raise bad_shape("laplacian_pyramid", "images", rule, images, RESIZE)
    bands = []
    while images.shape[-1] > COARSEST:
        smaller = _blur(images)[:, :, ::2, ::2]
        bands.append(images - _expand(smaller))
        images = smaller
    return [*bands, images]


def _blur(images: Tensor) -> Tensor:
    """Convolve every channel with the binomial filter, its weights adding up to one."""
    channels = images.shape[1]
    filter_1d = torch.tensor(BINOMIAL, dtype=images.dtype, device=images.device) / sum(BINOMIAL)
    for shape, padding in (((1, 5), (2, 2, 0, 0)), ((5, 1), (0, 0, 2, 2))):
        kernel = filter_1d.reshape(1, 1, *shape).expand(channels, 1, *shape)
        images = F.conv2d(F.pad(images, padding, mode="reflect"), kernel, groups=channels)
    return images


def _expand(images: Tensor) -> Tensor:
    batch, channels, height, width = images.shape
    spread = images.new_zeros(batch, channels, 2 * height, 2 * width)
    spread[:, :, ::2, ::2] = images
    return 4 * _blur(spread)


def _collect_patches(
    name: str,
    batches: Iterable[Tensor],
    max_images: int,
    patches_per_image: int,
    patch_size: int,
    generator: torch.Generator | None,
) -> dict[int, Tensor]:
    """The patches of all images, (patches, channels, height, width) in float32 or wider, for each level."""
    parts: dict[int, list[Tensor]] = {}
    left = max_images
    for batch in batches:
        check_rank("sliced_wasserstein_distance", name, batch, ("batch", "channels", "size", "size"))
        if len(batch) == 0:
            continue
        images = batch[:left].to(wide_dtype(batch))
        bands = laplacian_pyramid(images)
        # Image by image, so that the split into batches does not matter.
        places = [
            [
                torch.randint(band.shape[-1] - patch_size + 1, (2, patches_per_image), generator=generator)
                for band in bands
            ]
            for _ in images
        ]
        for band, of_images in zip(bands, zip(*places, strict=True), strict=True):
            parts.setdefault(band.shape[-1], []).append(_patches(band, torch.stack(of_images), patch_size))
        left -= len(images)
        if left == 0:
            break
    if left == max_images:
        raise bad_value("sliced_wasserstein_distance", name, "at least one image", batches)
    return {size: torch.cat(parts.pop(size)) for size in list(parts)}


def _patches(band: Tensor, places: Tensor, patch_size: int) -> Tensor:
    """Patches whose upper left corners are ``places``, (images, 2, patches)."""
    rows, columns = rearrange(places, "image corner patch -> corner (image patch)").to(band.device)
    images = torch.arange(len(band), device=band.device).repeat_interleave(places.shape[2])
    return band.unfold(2, patch_size, 1).unfold(3, patch_size, 1)[images, :, rows, columns]


def _distance(real: Tensor, fake: Tensor, num_projections: int, generator: torch.Generator | None) -> float:
    """Both sets are normalized in place."""
    for patches in (real, fake):
        deviation, mean = torch.std_mean(patches, dim=(0, 2, 3), correction=0, keepdim=True)
        patches.sub_(mean).div_(torch.where(deviation > 0, deviation, 1))
    flat_real, flat_fake = (rearrange(patches, "patch c h w -> patch (c h w)") for patches in (real, fake))
    directions = torch.randn(flat_real.shape[1], num_projections, generator=generator).to(flat_real)
    directions = directions / reduce(directions.square(), "dim projection -> 1 projection", "sum").sqrt()
    total = 0.0
    for some in directions.split(PROJECTIONS_AT_ONCE, dim=1):
        # One row a projection: sorting along contiguous memory is several times faster.
        sorted_real, sorted_fake = (_sort_rows(some.T @ flat.T) for flat in (flat_real, flat_fake))
        total += reduce((sorted_real - sorted_fake).abs(), "projection patch -> projection", "mean").sum().item()
    return 1e3 * total / num_projections


def _sort_rows(x: Tensor) -> Tensor:
    """Sorts in place where that is faster: torch's sort keeps track of places too and takes ten times as long."""
    if x.device.type != "cpu":
        return x.sort(dim=1).values
    x.numpy().sort(axis=1)
    return x


def _describe(levels: dict[int, Tensor], patches_per_image: int) -> str:
    size, patches = next(iter(levels.items()))
    return f"{len(patches) // patches_per_image} of shape ({patches.shape[1]}, {size}, {size})"
