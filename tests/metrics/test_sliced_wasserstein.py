import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gan_blocks import laplacian_pyramid, sliced_wasserstein_distance
from tests.drawn import draw
from tests.reference import metrics as reference


def textures(count: int, *, seed: int, channels: int = 1) -> Tensor:
    """Smooth 32x32 images with values in about [-1, 1]."""
    coarse = draw(count, channels, 8, 8, seed=seed).float()
    return F.interpolate(coarse, size=32, mode="bicubic").tanh()


def distance(real: Tensor, fake: Tensor, **options) -> dict[int, float]:
    settings = {
        "num_projections": 64,
        "patches_per_image": 16,
        "generator": torch.Generator().manual_seed(1),
        **options,
    }
    return sliced_wasserstein_distance(real.split(256), fake.split(256), **settings)


@pytest.mark.parametrize("size", [16, 32])
def test_the_pyramid_equals_the_loops(size: int):
    images = draw(2, 3, size, size)
    bands = laplacian_pyramid(images)
    for n, c in np.ndindex(2, 3):
        wanted = reference.laplacian_pyramid(images[n, c].numpy())
        assert len(bands) == len(wanted)
        for band, expected in zip(bands, wanted, strict=True):
            np.testing.assert_allclose(band[n, c].numpy(), expected, atol=1e-12)


def test_bands_of_a_constant_are_empty_but_for_the_last():
    *bands, last = laplacian_pyramid(torch.full((1, 2, 64, 64), 0.7, dtype=torch.float64))
    for band in bands:
        torch.testing.assert_close(band, torch.zeros_like(band))
    torch.testing.assert_close(last, torch.full_like(last, 0.7))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_an_independent_reference(channels: int, dtype: torch.dtype):
    real, fake = textures(5, seed=0, channels=channels).double(), draw(5, channels, 32, 32, seed=1)
    count, projections = 6, 9
    options = {"patches_per_image": count, "num_projections": projections}
    got = sliced_wasserstein_distance(
        [real.to(dtype)], [fake.to(dtype)], generator=torch.Generator().manual_seed(4), **options
    )

    stream = torch.Generator().manual_seed(4)  # the draws, in the order of their use
    patches: dict[int, list[np.ndarray]] = {32: [], 16: []}
    for images in (real.numpy(), fake.numpy()):
        pyramids = [[reference.laplacian_pyramid(channel) for channel in image] for image in images]
        places = [[torch.randint(size - 6, (2, count), generator=stream).numpy() for size in patches] for _ in images]
        for level, size in enumerate(patches):
            bands = np.array([[pyramid[level] for pyramid in channels] for channels in pyramids])
            patches[size].append(reference.patches_at(bands, np.array([of[level] for of in places]), 7))
    assert list(got) == [32, 16]
    for size, (x, y) in patches.items():
        directions = torch.randn(channels * 49, projections, generator=stream).double().numpy()
        assert got[size] == pytest.approx(reference.sliced_wasserstein(x, y, directions), rel=1e-4)


def test_noise_is_farther_than_other_real_images():
    """2,000 images against 2,000 others, and against those with noise of 5, 10 and 20 of 255."""
    images = textures(4000, seed=0)
    real, others = images[:2000], images[2000:]
    floor = distance(real, others)
    before = floor[32]
    for deviation in (5, 10, 20):
        noisy = distance(real, others + deviation / 127.5 * draw(*others.shape, seed=deviation).float())
        assert noisy[32] > before
        before = noisy[32]
    assert noisy[16] < noisy[32] / 3  # the coarsest level hardly sees fine noise


def test_a_lack_of_variety_is_farther_than_other_real_images():
    images = textures(800, seed=0)
    real, others, few = images[:400], images[400:], images[400:404].repeat(100, 1, 1, 1)
    floor, collapsed = distance(real, others), distance(real, few)
    assert collapsed[16] > 1.5 * floor[16]


def test_is_blind_to_brightness_and_contrast_as_documented():
    images = textures(200, seed=0)
    plain, changed = distance(images[:100], images[100:]), distance(images[:100], 3 - 0.2 * -images[100:])
    assert changed == pytest.approx(plain, rel=1e-3)


def test_the_split_into_batches_does_not_matter():
    real, fake = textures(20, seed=0), textures(20, seed=1)
    results = [
        sliced_wasserstein_distance(
            real.split(a), fake.split(b), num_projections=8, generator=torch.Generator().manual_seed(0)
        )
        for a, b in ((20, 20), (3, 7))
    ]
    none = real[:0]
    results.append(
        sliced_wasserstein_distance(
            [none, real, none], [none, fake], num_projections=8, generator=torch.Generator().manual_seed(0)
        )
    )
    assert results[2] == results[0]
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_reads_no_more_images_than_it_needs():
    read = []

    def batches() -> Iterator[Tensor]:
        for number in range(100):
            read.append(number)
            yield textures(4, seed=number)

    few = sliced_wasserstein_distance(batches(), batches(), max_images=6, num_projections=4)
    assert read == [0, 1, 0, 1]
    assert list(few) == [32, 16]


def test_leaves_images_and_the_global_generator_alone():
    images = textures(4, seed=0)
    before, state = images.clone(), torch.get_rng_state()
    distance(images, images)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_constant_set_has_a_finite_distance():
    got = distance(torch.zeros(8, 1, 32, 32), textures(8, seed=0))
    assert all(0 < value < 10_000 for value in got.values())


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 1, 48, 48), (2, 1, 8, 8), (2, 1, 32, 16)])
def test_rejects_sizes_that_are_not_sixteen_doubled(shape: tuple[int, ...]):
    rule = "`images` must be of shape (batch, channels, size, size) with a size of 16, 32, 64, ..., but got"
    remedy = 'Resize both sets: F.interpolate(images, size=32, mode="bilinear", antialias=True).'
    message = f"laplacian_pyramid: {rule} images of shape {shape}. {remedy}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sliced_wasserstein_distance([torch.zeros(shape)], [torch.zeros(shape)])


def test_rejects_sets_that_differ():
    rule = (
        r"^sliced_wasserstein_distance: `fake_images` must be as many and of the same shape as `real_images`, "
        r"but got 3 of shape \(1, 32, 32\) against 4 of shape \(1, 32, 32\)\.$"
    )
    with pytest.raises(ValueError, match=rule):
        distance(textures(4, seed=0), textures(3, seed=0))
    with pytest.raises(ValueError, match=r"but got 4 of shape \(3, 32, 32\) against 4 of shape \(1, 32, 32\)\.$"):
        distance(textures(4, seed=0), textures(4, seed=0, channels=3))


def test_rejects_other_wrong_arguments():
    images = textures(2, seed=0)
    for name in ("max_images", "patches_per_image", "num_projections"):
        with pytest.raises(
            ValueError, match=rf"^sliced_wasserstein_distance: `{name}` must be greater than 0, but got"
        ):
            distance(images, images, **{name: 0})
        with pytest.raises(TypeError, match=rf"^sliced_wasserstein_distance: `{name}` must be a whole number, but got"):
            distance(images, images, **{name: 2.5})
    with pytest.raises(
        TypeError, match=r"`fake_images` must be of a real floating dtype, but got fake_images of dtype"
    ):
        sliced_wasserstein_distance([images], [images.to(torch.uint8)])
    for size in (0, 6, 17):
        with pytest.raises(ValueError, match=rf"`patch_size` must be odd and at most 15, but got patch_size={size}\.$"):
            distance(images, images, patch_size=size)
    with pytest.raises(ValueError, match=r"`real_images` must be at least one image, but got real_images=\[\]\.$"):
        sliced_wasserstein_distance([], [images])
    rule = r"`real_images` must be of shape \(batch, channels, size, size\), but got real_images of shape \(1, 32, 32\)"
    with pytest.raises(ValueError, match=rule):
        sliced_wasserstein_distance(images, images)
