import numpy as np
import pytest
import torch
from torch import Tensor

from gan_blocks.engine.evaluation import patches as patch_distances
from gan_blocks.engine.evaluation.patches import PatchReport, box_blurred, measure_patches
from tests.engine.evaluation.textures import textures


def numbered(count: int, offset: int) -> Tensor:
    """Noise with a number in the corner, by which an image is known again."""
    images = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(offset))
    images[:, 0, 0, 0] = torch.arange(offset, offset + count)
    return images


def test_compares_sets_that_share_no_image(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def spy(real: tuple[Tensor, ...], fake: tuple[Tensor, ...], *, generator: torch.Generator) -> dict[int, float]:
        calls.append((torch.cat(list(real)), torch.cat(list(fake)), generator.initial_seed()))
        return {16: float(len(calls))}

    monkeypatch.setattr(patch_distances, "sliced_wasserstein_distance", spy)
    generated, real = numbered(9, 1000), numbered(14, 0)
    report = measure_patches(generated, real, images=6, seed=0)
    assert (report.samples, report.real, report.blurred) == ({16: 1.0}, {16: 2.0}, {16: 3.0})
    (compared, samples, seed), (first, others, second_seed), (second, blurred, third_seed) = calls
    assert torch.equal(compared, first)
    assert torch.equal(compared, second)
    assert seed == second_seed == third_seed
    numbers = [set(images[:, 0, 0, 0].int().tolist()) for images in (compared, others, samples)]
    assert [len(found) for found in numbers] == [6, 6, 6]
    assert not numbers[0] & numbers[1]
    assert numbers[0] | numbers[1] <= set(range(14))
    assert numbers[2] <= set(range(1000, 1009))
    assert torch.equal(blurred, box_blurred(others))


def test_the_box_is_a_mean_of_nine_pixels_that_repeats_the_edge():
    image = torch.rand(1, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blurred = box_blurred(image)
    for c, h, w in np.ndindex(2, 4, 5):
        around = [
            image[0, c, min(max(h + i, 0), 3), min(max(w + j, 0), 4)].item() for i in (-1, 0, 1) for j in (-1, 0, 1)
        ]
        assert blurred[0, c, h, w].item() == pytest.approx(sum(around) / 9, abs=1e-12)


def test_new_real_images_are_at_the_floor_and_blurred_ones_at_the_other_end():
    real = textures(64, seed=0)
    fresh = measure_patches(textures(32, seed=1), real, images=32, seed=0)
    assert fresh.samples[16] == pytest.approx(fresh.real[16], rel=0.5)
    assert fresh.blurred[16] > 2 * fresh.real[16]
    soft = measure_patches(box_blurred(textures(32, seed=1)), real, images=32, seed=0)
    assert soft.samples[16] == pytest.approx(soft.blurred[16], rel=0.25)
    assert soft == measure_patches(box_blurred(textures(32, seed=1)), real, images=32, seed=0)


def test_the_report_has_a_column_a_level_and_their_mean():
    report = PatchReport(images=1000, samples={32: 12.0, 16: 8.5}, real={32: 3, 16: 2}, blurred={32: 50, 16: 10})
    assert report.lines() == [
        "  sliced Wasserstein distance x 1,000 from 1,000 real images to as many",
        "                                    32x32    16x16     mean",
        "    samples                         12.00     8.50    10.25",
        "    other real images                3.00     2.00     2.50",
        "    these, blurred by a 3x3 box     50.00    10.00    30.00",
    ]
