"""The two players, their optimizers and the average of the generator: all that a checkpoint must bring back.

Tested in ``tests/engine/recipe/test_build.py``.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn, optim

from gan_blocks import ExponentialMovingAverage
from gan_blocks.engine.runs.optimizers import flatten_optimizer, restore_optimizer
from gan_blocks.engine.runs.weights import load_weights

__all__ = [
    "TrainingState",
]


@dataclass(frozen=True)
class TrainingState:
    """What training changes, on its device and in its precision."""

    generator: nn.Module
    discriminator: nn.Module
    ema: ExponentialMovingAverage
    optimizer_g: optim.Optimizer
    optimizer_d: optim.Optimizer
    device: torch.device
    bf16: bool
    nan_scores: Tensor
    """How many generated images of the last batch that top-k training chose from had no score but NaN, ``()``."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Counters and tensors of the recipe's own, which its training step puts here; saved and brought back."""

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The context of every forward pass: bf16 autocast where it was asked for."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything to save, by file name."""
        parts = {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "ema": self.ema.module.state_dict(),
            "optimizer_g": flatten_optimizer(self.optimizer_g, self.generator),
            "optimizer_d": flatten_optimizer(self.optimizer_d, self.discriminator),
        }
        return {**parts, "extra": self.extra} if self.extra else parts

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Bring back what :meth:`tensors` gave, bit for bit.

        Raises:
            UserError: If names or shapes do not fit.
        """
        load_weights(self.generator, tensors["generator"], "generator")
        load_weights(self.discriminator, tensors["discriminator"], "discriminator")
        load_weights(self.ema.module, tensors["ema"], "ema")
        restore_optimizer(self.optimizer_g, self.generator, tensors["optimizer_g"])
        restore_optimizer(self.optimizer_d, self.discriminator, tensors["optimizer_d"])
        self.extra.clear()
        self.extra.update({name: value.to(self.device, copy=True) for name, value in tensors.get("extra", {}).items()})
