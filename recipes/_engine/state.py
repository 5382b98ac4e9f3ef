"""The two players, their optimizers and the average of the generator: all that a checkpoint must bring back."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn, optim

from gan_blocks import ExponentialMovingAverage, checkpoint_activations
from recipes._engine.checkpoints import flatten_optimizer, load_weights, restore_optimizer
from recipes._engine.options import RunOptions, torch_device
from recipes._engine.random_streams import seeded_construction
from recipes._engine.recipe import Recipe, RecipeConfig

__all__ = ["TrainingState", "build_state"]


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

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The context of every forward pass: bf16 autocast where it was asked for."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything to save, by file name."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "ema": self.ema.module.state_dict(),
            "optimizer_g": flatten_optimizer(self.optimizer_g, self.generator),
            "optimizer_d": flatten_optimizer(self.optimizer_d, self.discriminator),
        }

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


def build_state(recipe: Recipe, config: RecipeConfig, options: RunOptions) -> TrainingState:
    """Build both players from the Config's seed, ready to train."""
    device, dtype = torch_device(options.device), options.dtype()
    with seeded_construction(config.seed, "generator"):
        generator = recipe.build_generator(config).to(device, dtype)
    with seeded_construction(config.seed, "discriminator"):
        discriminator = recipe.build_discriminator(config).to(device, dtype)
    if options.channels_last:
        _to_channels_last(generator)
        _to_channels_last(discriminator)
    optimizer_g, optimizer_d = recipe.build_optimizers(config, generator, discriminator)
    ema = ExponentialMovingAverage(generator, config.ema_decay)
    if options.checkpoint_activations:
        for network in (generator, discriminator):
            for block in network.get_submodule("blocks").children():
                checkpoint_activations(block)
    return TrainingState(
        generator,
        discriminator,
        ema,
        optimizer_g,
        optimizer_d,
        device,
        bf16=options.precision == "bf16",
        nan_scores=torch.zeros((), dtype=torch.int64, device=device),
    )


def _to_channels_last(network: nn.Module) -> None:
    """Keep the convolutions' weights as NHWC, which makes them give NHWC whatever they are given."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 1:
            module.register_forward_pre_hook(_as_channels_last)


def _as_channels_last(_convolution: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Give a map of one channel the strides of NHWC: its memory is that of both formats, and torch takes it for NCHW.

    D's first and largest blocks would work on NCHW maps otherwise; see ``tests/recipes/test_state.py``.
    """
    return (rearrange(inputs[0], "batch 1 height width -> batch height width 1").permute(0, 3, 1, 2),)
