"""What ``--features`` names, and the network that it is.

Tested in ``tests/engine/evaluation/features/test_networks.py``.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.evaluation.features.efficientnet import LITE_NETWORKS, lite_network
from gan_blocks.engine.evaluation.features.given import function_network, script_network
from gan_blocks.engine.evaluation.features.network import FeatureNetwork

__all__ = ["CLASSIFIER", "FeatureChoice", "features_at_hand", "parse_features"]

CLASSIFIER = "classifier"
SIDES = 32, 1024
SCRIPTS = (".pt", ".pth", ".ts", ".jit", ".torchscript")


class FeatureChoice(NamedTuple):
    """One value of ``--features``."""

    spec: str
    kind: str
    """``classifier``, a name of ``LITE_NETWORKS``, ``script`` or ``function``."""
    place: str
    """The path, or the module and function."""
    side: int | None

    def load(self, device: torch.device, images_side: int) -> FeatureNetwork:
        """The network; one that the data train is none of these.

        Args:
            device: Where it computes.
            images_side: What a file or a function looks at where no side is named.

        Raises:
            UserError: If it cannot be loaded.
        """
        if self.kind in LITE_NETWORKS:
            return lite_network(self.kind, self.side or LITE_NETWORKS[self.kind].side, device)
        make = script_network if self.kind == "script" else function_network
        return make(self.place, self.side, images_side, device)


def parse_features(spec: str) -> FeatureChoice:
    """Understand ``--features``: a name with its side (efflite0-128), a file or a function (net.pt@128).

    Raises:
        UserError: If it is nothing of these.
    """
    if spec == CLASSIFIER:
        return FeatureChoice(spec, CLASSIFIER, "", None)
    if found := re.fullmatch(rf"({'|'.join(LITE_NETWORKS)})(?:-(\d+))?", spec):
        return FeatureChoice(spec, found[1], "", _side(spec, found[2]))
    place, at, side = spec.rpartition("@")
    if not at or not side.isdigit():
        place, side = spec, ""
    if place.lower().endswith(SCRIPTS) or Path(place).is_file():
        if not place.endswith(".py"):
            return FeatureChoice(spec, "script", place, _side(spec, side))
    elif re.fullmatch(r".+:[A-Za-z_]\w*", place):
        return FeatureChoice(spec, "function", place, _side(spec, side))
    names = ", ".join(f"{name}-SIDE" for name in LITE_NETWORKS)
    rule = f"{names}, {CLASSIFIER}, a TorchScript file (net.pt@SIDE) or a function (module:function@SIDE)"
    raise UserError(f"--features must be one of {rule}, but got {spec[:200]}.")


def features_at_hand(num_classes: int) -> str | None:
    """A value of ``--features`` that needs nothing else: a network that is installed, or a classifier of the images."""
    if find_spec(LITE_NETWORKS["efflite0"].package) is not None:
        return "efflite0-128"
    return CLASSIFIER if num_classes > 1 else None


def _side(spec: str, digits: str | None) -> int | None:
    if not digits:
        return None
    low, high = SIDES
    side = int(digits[:9])
    if not low <= side <= high:
        raise UserError(f"--features must have a side from {low} to {high:,} pixels, but got {spec[:200]}.")
    return side
