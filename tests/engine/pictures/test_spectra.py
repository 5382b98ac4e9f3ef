from pathlib import Path

import numpy as np
import pytest
import torch

from gan_blocks.engine.pictures.spectra import SigmaCurves, draw_spectra, thinned


def test_thinning_a_long_curve_loses_no_spike(rng: torch.Generator):
    values = torch.rand(3, 12_345, generator=rng, dtype=torch.float64).numpy()
    values[1, 7_777] = 50.0
    values[2, 0] = np.nan
    steps, thin = thinned(np.arange(12_345), values)
    assert thin.shape == (3, len(steps)) == (3, 1000)
    assert thin[1].max() == 50.0
    assert steps[thin[1].argmax()] == pytest.approx(7_777, abs=13)
    assert np.isfinite(thin).all()
    short = thinned(np.arange(1000), values[:, :1000])
    np.testing.assert_array_equal(short[1], values[:, :1000])


@pytest.mark.parametrize("sigmas", [np.ones((2, 1, 3)), np.zeros((2, 4, 3)), np.full((1, 3, 3), np.nan)])
def test_pictures_of_little_are_drawn_too(sigmas: np.ndarray, tmp_path: Path):
    layers = tuple(f"layer{number}" for number in range(len(sigmas)))
    draw_spectra(tmp_path / "out.png", {"generator": SigmaCurves(np.arange(sigmas.shape[1]), layers, sigmas)}, "little")
    assert (tmp_path / "out.png").stat().st_size > 1000
