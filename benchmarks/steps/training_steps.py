"""Training steps of the recipes on images of noise, for the benchmarks to time, and other ways to take them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from gan_blocks import SpectralNorm, fold_spectral_norm
from gan_blocks.engine import ImageSet, Recipe, StepBatches, TrainingConfig, TrainingState
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.recipe.batches import BatchSource
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions
from recipes import biggan, biggan_deep, progan, sngan

__all__ = [
    "SYSTEMS",
    "TINY_SYSTEMS",
    "System",
    "changed",
    "noise_images",
    "plain_trainer",
    "systems",
    "trainer",
    "unfused",
    "with_torch_spectral_norm",
    "without_spectral_norm",
]

Step = Callable[[TrainingState, StepBatches, Any], dict[str, Tensor]]
System = tuple[Recipe[Any], Any]  # with its Config
Change = Callable[[nn.Module], nn.Module]


def _biggan_128(discriminator_steps: int, orthogonal_penalty: float) -> biggan.Config:
    return replace(
        biggan.imagenet_128(),
        channels=32,
        batch_size=8,
        discriminator_steps=discriminator_steps,
        generator_orthogonal_penalty=orthogonal_penalty,
    )


def _progan_64() -> progan.Config:
    """Table 2's networks up to 64x64, a quarter as wide, fully grown from the start: a step takes about a second."""
    config = replace(progan.table1_h(), widths=(128, 128, 128, 128, 64), resolution=64, initial_resolution=64)
    return replace(config, latent_dim=128, batch_size=16, batch_sizes=())


SYSTEMS: dict[str, System] = {
    "BigGAN-128": (biggan.RECIPE, _biggan_128(1, 0.0)),
    "BigGAN-128, 2 D steps, ortho": (biggan.RECIPE, _biggan_128(2, 1e-4)),
    "BigGAN-deep-128": (biggan_deep.RECIPE, replace(biggan_deep.imagenet_128(), channels=32, batch_size=8)),
    "ProGAN-64": (progan.RECIPE, _progan_64()),
    "SN-GAN-32": (sngan.RECIPE, replace(sngan.cifar10_32(), batch_size=16)),
    "demo": (biggan_deep.RECIPE, biggan_deep.mnist5k_32()),
}
"""What is measured, by name; BigGAN-deep with 2 updates of D and orthogonal regularization, as its preset."""

_TINY_BIGGAN = replace(biggan.mnist5k_32(), channels=8, batch_size=4)
_TINY_DEEP = (biggan_deep.RECIPE, replace(biggan_deep.mnist5k_32(), channels=8, batch_size=4))
TINY_SYSTEMS: dict[str, System] = {
    "BigGAN-128": (biggan.RECIPE, _TINY_BIGGAN),
    "BigGAN-128, 2 D steps, ortho": (biggan.RECIPE, replace(_TINY_BIGGAN, generator_orthogonal_penalty=1e-4)),
    "BigGAN-deep-128": _TINY_DEEP,
    "ProGAN-64": (progan.RECIPE, replace(progan.mnist5k_32(), widths=(8, 8, 8, 8), batch_size=4)),
    "SN-GAN-32": (sngan.RECIPE, replace(sngan.cifar10_32(), channels=8, batch_size=4)),
    "demo": _TINY_DEEP,
}
"""Small ones under the same names, to try the benchmarks themselves."""


def systems(*, tiny: bool) -> dict[str, System]:
    """All that is measured, or all small ones."""
    return TINY_SYSTEMS if tiny else SYSTEMS


def noise_images(config: TrainingConfig, *, count: int = 64) -> ImageSet:
    """Images of noise in the Config's shape, with labels in turn."""
    layout = PixelLayout(config.resolution, config.image_channels)
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, *layout.shape), dtype=torch.uint8, generator=random)
    labels = torch.arange(count) % config.num_classes
    names = tuple(f"noise {number}" for number in range(config.num_classes))
    return ImageSet(lambda indices: pixels[indices], labels, names, layout, ())


def trainer(
    recipe: Recipe[Any], config: TrainingConfig, step: Step | None = None, options: RunOptions | None = None
) -> Callable[[int], None]:
    """A function that takes one training step, of any number, with networks of its own.

    Args:
        recipe: Builds them.
        config: Its Config.
        step: Instead of the recipe's.
        options: Of the run.
    """
    options = options or RunOptions()
    state = build_state(recipe, config, options)
    source = BatchSource(noise_images(config), recipe.build_prior(config), config, options)
    taken = step or recipe.train_step

    def train(number: int) -> None:
        taken(state, source.step(number), config)

    return train


def changed(recipe: Recipe[Any], change: Change) -> Recipe[Any]:
    """The recipe with something done to both networks once they are built."""
    return replace(
        recipe,
        build_generator=lambda config: change(recipe.build_generator(config)),
        build_discriminator=lambda config: change(recipe.build_discriminator(config)),
    )


def unfused(network: nn.Module) -> nn.Module:
    """Add a no-op hook to each convolution, which prevents fusing."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _module, _inputs: None)
    return network


def without_spectral_norm(network: nn.Module) -> nn.Module:
    """Plain weights."""
    return fold_spectral_norm(network) if _normalized(network) else network


def with_torch_spectral_norm(network: nn.Module) -> nn.Module:
    """Torch's spectral norm in the place of the library's."""
    modules = _normalized(network)
    without_spectral_norm(network)
    for module in modules:
        parametrizations.spectral_norm(module, eps=1e-4)
    return network


def _normalized(network: nn.Module) -> list[nn.Module]:
    """The modules whose weights have spectral norm."""
    return [
        module
        for module in network.modules()
        if parametrize.is_parametrized(module, "weight")
        and any(isinstance(part, SpectralNorm) for part in module.parametrizations["weight"])  # type: ignore[index]
    ]


def plain_trainer(recipe: Recipe[Any], config: TrainingConfig) -> Callable[[int], None]:
    """The same steps the plain way: torch's spectral norm, no fused convolutions, images as NCHW."""
    plain = changed(recipe, lambda network: with_torch_spectral_norm(unfused(network)))
    return trainer(plain, config, options=RunOptions(channels_last=False))
