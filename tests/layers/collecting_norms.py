"""Batch norms with random parameters, and collecting statistics with them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_blocks import CrossReplicaBatchNorm2d
from tests.drawn import draw
from tests.reference import layers as reference

kinds = pytest.mark.parametrize("statistics", ["running", "batch"])
affinities = pytest.mark.parametrize("affine", [True, False])


def build(num_features: int = 3, *, seed: int = 1, **options: Any) -> CrossReplicaBatchNorm2d:
    """A float64 layer whose gain and bias are not the identity."""
    norm = CrossReplicaBatchNorm2d(num_features, dtype=torch.float64, **options)
    for offset, parameter in enumerate(norm.parameters()):
        parameter.data.copy_(draw(num_features, seed=seed + offset))
    return norm


def expected(norm: CrossReplicaBatchNorm2d, x: Tensor, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    gain, bias = (np.full(norm.num_features, default) for default in (1.0, 0.0))
    if norm.weight is not None and norm.bias is not None:
        gain, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    return reference.batch_norm(x.numpy(), mean, variance, gain, bias, norm.eps)


def collect(norm: CrossReplicaBatchNorm2d, *batches: Tensor, store: bool = True) -> None:
    norm.start_collecting()
    for batch in batches:
        norm(batch)
    norm.stop_collecting(store=store)
