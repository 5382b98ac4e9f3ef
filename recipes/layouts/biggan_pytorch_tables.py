"""SA-GAN and SN-GAN in the layout of BigGAN-PyTorch: BigGAN's networks there without shared embedding.

Each norm has a table with a row for each class. The SA-GAN is that of its SA-GAN and CIFAR scripts, the SN-GAN has thin
blocks in D, as in its SN-GAN script, or no spectral norm in G.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from gan_blocks.engine import Recipe
from recipes import sagan, sngan
from recipes.families.residual_config import ResidualFields
from recipes.layouts.biggan_pytorch_layers import Names, class_tables
from recipes.layouts.biggan_pytorch_residual import attention_of, discriminator_map, generator_layers, residual_fields
from recipes.layouts.key_map import KeyMap, NormalizedLayer, PlainTensor

__all__ = ["SAGAN", "SNGAN", "THIN_SNGAN", "has_thin_blocks"]


@dataclass
class ClassTables:
    """An architecture of this layout; see ``biggan_pytorch_layers.Architecture``."""

    RECIPE: Recipe[Any]
    STANDARD: Any
    MODEL: str = "BigGAN"

    def read_config(self, g: Mapping[str, Tensor], d: Mapping[str, Tensor] | None, channels: int | None) -> Any:
        """The Config of the networks that the shapes belong to."""
        config = replace(
            self.STANDARD,
            **residual_fields(g, d, channels),
            num_classes=g["blocks.0.0.bn1.gain.weight"].shape[0],
            latent_dim=g["linear.weight"].shape[1],
        )
        if not isinstance(config, sngan.Config):
            return config
        return replace(config, generator_spectral_norm="linear.u0" in g)

    def own_options(self, config: Any) -> dict[str, object]:
        """Options of that code that are these networks' alone."""
        return {
            "dim_z": config.latent_dim,
            "shared_dim": 0,
            "hier": False,
            "G_shared": False,
            "G_param": "SN" if _normalized(config) else "None",
            "D_wide": getattr(config, "discriminator_hidden", "output") == "output",
        }

    def attention_of(self, config: ResidualFields) -> tuple[list[int], list[int]]:
        """Heights of G's non-local blocks, and the numbers of D's blocks that one follows."""
        return attention_of(config)

    def generator_map(self, config: ResidualFields) -> KeyMap:
        """The tensors of G."""
        layers, tensors = generator_layers(config)
        for number in range(config.stages):
            for part in (1, 2):
                tensors += class_tables(f"blocks.{number}.norm{part}", f"blocks.{number}.0.bn{part}")
        if _normalized(config):
            return KeyMap(Names(), tuple(layers), tuple(tensors))
        return KeyMap(Names(), (), (*tensors, *(tensor for layer in layers for tensor in _plain(layer))))

    def discriminator_map(self, config: ResidualFields) -> KeyMap:
        """The tensors of D."""
        return discriminator_map(config)


SAGAN = ClassTables(sagan.RECIPE, sagan.PRESETS["table1-row1"]())
SNGAN = ClassTables(sngan.RECIPE, sngan.PRESETS["cifar10-32"]())
THIN_SNGAN = replace(SNGAN, STANDARD=replace(SNGAN.STANDARD, discriminator_hidden="input"))


def has_thin_blocks(d: Mapping[str, Tensor]) -> bool:
    """Whether the blocks of a D are as wide inside as their input, and not as their output."""
    first, second = (d.get(f"blocks.0.0.conv{part}.weight") for part in (1, 2))
    return first is not None and second is not None and first.shape[:1] != second.shape[:1]


def _normalized(config: Any) -> bool:
    return getattr(config, "generator_spectral_norm", True)


def _plain(layer: NormalizedLayer) -> list[PlainTensor]:
    """The same layer without spectral norm; those of attention have no bias."""
    parts = ("weight",) if layer.ours.startswith("attention.") else ("weight", "bias")
    return [PlainTensor(f"{layer.ours}.{part}", f"{layer.theirs}.{part}") for part in parts]
