"""The spectra of both networks during a run: measured into the log, and read back from it.

Tested in ``tests/engine/training/test_spectra.py``.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import nn

from gan_blocks import LayerSpectrum, SpectrumMonitor
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.pictures.spectra import SigmaCurves

__all__ = ["NETWORKS", "SpectrumRecorder", "WeightsNotFiniteError", "sigma_curves"]

NETWORKS = ("generator", "discriminator")
EVENT = "spectra"
NUM_SINGULAR_VALUES = 3  # "the most informative" statistics (section 4.1)


class WeightsNotFiniteError(Exception):
    """A weight has NaN or infinite entries: the training has diverged."""


class SpectrumRecorder:
    """Measure the largest singular values of both networks' weights, each time from the vectors of the last.

    Nothing of the networks changes, and no random number is drawn from a generator of the training.

    Raises:
        UserError: If the package that draws the picture is missing: better now than at the end of the run.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        if find_spec("matplotlib") is None:
            raise UserError(
                "--spectra-every draws its picture with matplotlib, which is missing: pip install matplotlib."
            )
        self._monitors = {
            name: SpectrumMonitor(network, NUM_SINGULAR_VALUES)
            for name, network in zip(NETWORKS, (generator, discriminator), strict=True)
        }

    def measure(self, step: int) -> dict[str, Any]:
        """An entry for the log.

        Raises:
            WeightsNotFiniteError: If a weight has NaN or infinite entries; names the network and the parameter.
        """
        return {"event": EVENT, "step": step} | {name: _measure(name, one) for name, one in self._monitors.items()}


def sigma_curves(log: Sequence[Mapping[str, Any]]) -> dict[str, SigmaCurves]:
    """The curves of each network; empty if there is no measurement in the log.

    A step that was measured twice, as after a run that began again, counts as it was measured last.
    """
    entries = {entry["step"]: entry for entry in log if entry.get("event") == EVENT}
    steps = sorted(entries)
    return {name: _curves(steps, [entries[step][name] for step in steps]) for name in NETWORKS if steps}


def _measure(name: str, monitor: SpectrumMonitor) -> dict[str, dict[str, Any]]:
    try:
        spectra = monitor.measure()
    except ValueError:
        strange = [key for key, value in monitor.model.named_parameters() if not value.isfinite().all()]
        if not strange:
            raise
        raise WeightsNotFiniteError(f"{strange[0]} of the {name}") from None
    return {layer: _to_json(spectrum) for layer, spectrum in spectra.items()}


def _to_json(spectrum: LayerSpectrum) -> dict[str, Any]:
    """Six digits are more than the monitor promises, and keep the log small."""
    return {
        "sigmas": [float(f"{sigma:.6g}") for sigma in spectrum.sigmas.tolist()],
        "frobenius": float(f"{spectrum.frobenius_norm.item():.6g}"),
    }


def _curves(steps: list[int], measured: list[Mapping[str, Any]]) -> SigmaCurves:
    layers = tuple(measured[-1])
    sigmas = np.full((len(layers), len(steps), NUM_SINGULAR_VALUES), np.nan)
    for at, spectra in enumerate(measured):
        for depth, layer in enumerate(layers):
            found = spectra[layer]["sigmas"]
            sigmas[depth, at, : len(found)] = found
    return SigmaCurves(np.array(steps), layers, sigmas)
