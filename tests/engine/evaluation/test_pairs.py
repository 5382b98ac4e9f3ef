import pytest
import torch

from gan_blocks.engine.evaluation.pairs import PairReport, measure_pairs, random_pairs
from tests.engine.evaluation.textures import textures


def test_pairs_are_different_images_of_one_class_and_all_of_them_occur():
    labels = torch.tensor([0, 2, 2, 0, 1, 2, 4])  # the 1 and the 4 are alone in their classes
    pairs = random_pairs(labels, 2000, torch.Generator().manual_seed(0))
    counts = {pair: pairs.tolist().count(list(pair)) for pair in {tuple(pair) for pair in pairs.tolist()}}
    wanted = {(0, 3): 0.2, (3, 0): 0.2} | {(i, j): 0.1 for i in (1, 2, 5) for j in (1, 2, 5) if i != j}
    assert counts.keys() == wanted.keys()
    for pair, share in wanted.items():
        assert counts[pair] / 2000 == pytest.approx(share, abs=0.03)


def test_repeated_samples_are_more_alike_than_real_images():
    real, labels = textures(40, seed=0), torch.arange(40) % 2
    alike = 0.9 * real[:2].repeat(10, 1, 1, 1) + 0.1 * textures(20, seed=1)
    report = measure_pairs(alike, labels[:20], real, labels, pairs=50, seed=0)
    assert report.samples > 0.8 > report.real
    assert report == measure_pairs(alike, labels[:20], real, labels, pairs=50, seed=0)
    assert PairReport(pairs=10_000, samples=0.28381, real=0.28544).lines() == [
        "  MS-SSIM    0.2838  mean over 10,000 pairs of a class, higher = less varied (real images: 0.2854)"
    ]
