"""The two players, their optimizers and the average of the generator: all that a checkpoint must bring back.

Tested in ``tests/engine/recipe/test_build.py``.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn, optim

from gan_blocks import ExponentialMovingAverage
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel.processes import main_rank_only
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

    built: dict[str, dict[str, str]] = field(init=False, repr=False)
    """Shape and dtype of each tensor of the networks before the training: a run that is resumed has the same then."""

    learning_d: tuple[Tensor, ...] = field(init=False, repr=False)
    """D's parameters that are not frozen when it is built."""

    def __post_init__(self) -> None:
        """Note what the networks hold."""
        learning = tuple(parameter for parameter in self.discriminator.parameters() if parameter.requires_grad)
        object.__setattr__(self, "learning_d", learning)
        self.note_forms()

    def note_forms(self) -> None:
        """Note shapes and dtypes of what the networks hold; a forward pass may have made buffers."""
        object.__setattr__(self, "built", {part: _forms(part, held) for part, held in self._of_networks().items()})

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The context of every forward pass: bf16 autocast where it was asked for."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything to save, by file name.

        Raises:
            UserError: If it could not be restored: an entry is no tensor, or a network has others than before the
                training. The first one is named.
        """
        networks = self._of_networks()
        for part, held in networks.items():
            _check_as_built(part, self.built[part], _forms(part, held))
        optimizers = {
            "optimizer_g": flatten_optimizer(self.optimizer_g, self.generator),
            "optimizer_d": flatten_optimizer(self.optimizer_d, self.discriminator),
        }
        for part, held in optimizers.items():
            _check_tensors(part, held)
        return {**networks, **optimizers, **({"extra": self.extra} if self.extra else {})}

    def _of_networks(self) -> dict[str, dict[str, Tensor]]:
        networks = {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema.module}
        return {part: network.state_dict() for part, network in networks.items()}

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


def _check_tensors(part: str, held: Mapping[str, object]) -> None:
    for name, value in held.items():
        if not isinstance(value, Tensor):
            rule = f"must be a tensor, as all that a checkpoint holds, but is of {type(value).__name__}"
            raise main_rank_only(UserError(f"{part} cannot be saved: {name} {rule}."))


def _forms(part: str, held: Mapping[str, Tensor]) -> dict[str, str]:
    """Shape and dtype of each entry of a state dict, which must be tensors."""
    _check_tensors(part, held)
    return {name: f"{tuple(value.shape)} in {value.dtype}" for name, value in held.items()}


def _check_as_built(part: str, built: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name in {**built, **now}:
        if built.get(name) != now.get(name):
            change = f"{name} was {built.get(name, 'not there')} before training, but is {now.get(name, 'gone')} now"
            remedy = "Give it a fixed shape and dtype, or register it with persistent=False"
            raise main_rank_only(UserError(f"{part} could not be resumed: {change}. {remedy}."))
