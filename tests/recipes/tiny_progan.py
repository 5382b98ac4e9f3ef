"""A tiny ProGAN and its training step by step, for the tests of the recipe."""

from pathlib import Path
from typing import Any

from torch import Tensor

from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.recipe.batches import BatchSource
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.state import TrainingState
from recipes import progan
from tests.engine.kept_gradients import keep_gradients

# Batches of 8, so that every phase lasts two steps: 4x4, fade to 8x8, 8x8, fade to 16x16, 16x16.
TINY = progan.Config(
    resolution=16, widths=(6, 5, 4), latent_dim=6, batch_size=8, stabilize_images=16, fade_images=16, planned_steps=10
)
TINY_ARGS = [
    *("--resolution", "16", "--widths", "6", "5", "4", "--latent-dim", "6", "--batch-size", "8"),
    *("--stabilize-images", "16", "--fade-images", "16", "--planned-steps", "10", "--sample-every", "0"),
]


class Training:
    """A training step by step, without its folder."""

    def __init__(self, data: Path, config: progan.Config, **run: Any) -> None:
        options = RunOptions(**{"threads": 1, "channels_last": False, "device": "cpu", **run})
        images = load_images(f"npz:{data}", resolution=config.resolution, channels=1, num_classes=1)
        self.config, self.source = config, BatchSource(images, progan.RECIPE.build_prior(config), config, options)
        self.state: TrainingState = build_state(progan.RECIPE, config, options)
        keep_gradients(self.state)

    def step(self, step: int) -> dict[str, Tensor]:
        return progan.RECIPE.train_step(self.state, self.source.step(step), self.config)

    def real_images(self, step: int, update: int = 0) -> Tensor:
        (part,) = self.source.step(step).discriminator(update)
        return part.real_images


def spy_on_discriminator(state: TrainingState) -> list[tuple[Tensor, Tensor]]:
    """Images and logits of each of its calls from now on."""
    calls: list[tuple[Tensor, Tensor]] = []
    hook = lambda _, args, kwargs, output: calls.append((args[0].detach(), output.detach()))  # noqa: E731
    state.discriminator.register_forward_hook(hook, with_kwargs=True)
    return calls
