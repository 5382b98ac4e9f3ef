"""Random tensors that are the same in every run, for tests."""

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["draw", "numpy_state", "randomize"]


def draw(*shape: int, seed: int = 0, mean: float = 0.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers of variance 1, a function of the arguments alone."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) + mean


def randomize(module: nn.Module, scale: float = 1.0) -> nn.Module:
    """In float64, give every parameter another value than the one that it starts with."""
    module.double()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(scale * draw(*parameter.shape, seed=seed))
    return module


def numpy_state(module: nn.Module) -> dict[str, np.ndarray]:
    """The state dict for the references, which know no torch."""
    return {key: value.numpy() for key, value in module.state_dict().items()}
