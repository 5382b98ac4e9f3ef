"""BigGAN in the layout of BigGAN-PyTorch, and what is the same in its networks without shared embedding."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from recipes.biggan import RECIPE, Config
from recipes.families.attention import attention_names, stages_at
from recipes.families.residual_config import ResidualFields
from recipes.layouts.biggan_pytorch_layers import (
    Names,
    attention_layers,
    attention_places,
    channel_unit,
    conditional_norm,
    last_norm,
    rows_of,
)
from recipes.layouts.key_map import KeyMap, NormalizedLayer, PlainTensor

__all__ = [
    "MODEL",
    "RECIPE",
    "STANDARD",
    "attention_of",
    "discriminator_map",
    "generator_layers",
    "generator_map",
    "own_options",
    "read_config",
    "residual_fields",
]

STANDARD = RECIPE.presets["imagenet-128"]()
MODEL = "BigGAN"


def read_config(g: Mapping[str, Tensor], d: Mapping[str, Tensor] | None, channels: int | None) -> Config:
    """The Config of the networks that the shapes belong to.

    Raises:
        KeyError: If a tensor that tells a size is missing.
        UserError: If the recipe cannot build them.
    """
    fields = residual_fields(g, d, channels)
    num_classes, embedding_dim = g["shared.weight"].shape
    chunk = g["linear.weight"].shape[1]
    skip_z = g["blocks.0.0.bn1.gain.weight"].shape[1] > embedding_dim
    return replace(
        STANDARD,
        **fields,
        num_classes=num_classes,
        skip_z=skip_z,
        latent_dim=chunk * len(fields["generator_widths"]) if skip_z else chunk,
        embedding_dim=embedding_dim,
    )


def residual_fields(g: Mapping[str, Tensor], d: Mapping[str, Tensor] | None, channels: int | None) -> dict[str, Any]:
    """The fields of a Config that blocks and attention tell.

    Raises:
        KeyError: If a tensor that tells a size is missing.
    """
    generator = (g["blocks.0.0.conv1.weight"].shape[1], *rows_of(g, "blocks.{}.0.conv2.weight"))
    # Without a D, one that mirrors G as in Tables 4 to 6.
    discriminator = generator[::-1] if d is None else tuple(rows_of(d, "blocks.{}.0.conv2.weight"))
    unit = channel_unit((*generator, *discriminator), channels)
    resolution = 4 * 2 ** (len(generator) - 1)
    final_size = 8 if resolution == 32 else 4
    of_g = tuple(8 * 2**place for place in attention_places(g))
    if d is None:
        of_d = tuple(size for size in of_g if final_size <= size < resolution)
    else:
        of_d = tuple(max(resolution // 2 ** (place + 1), final_size) for place in attention_places(d))
    return {
        "data": f"folder:data/imagenet-{resolution}",
        "resolution": resolution,
        "image_channels": g["output_layer.2.weight"].shape[0],  # the Config says which numbers it takes
        "channels": unit,
        "generator_widths": tuple(width // unit for width in generator),
        "discriminator_widths": tuple(width // unit for width in discriminator),
        "discriminator_final_size": final_size,
        "generator_attention": of_g,
        "discriminator_attention": of_d,
    }


def own_options(config: Config) -> dict[str, object]:
    """Options of that code that are BigGAN's alone."""
    return {
        "dim_z": config.latent_dim,
        "shared_dim": config.embedding_dim,
        "hier": config.skip_z,
        "G_shared": True,
    }


def attention_of(config: ResidualFields) -> tuple[list[int], list[int]]:
    """Heights of G's non-local blocks, and the numbers of D's blocks that one follows."""
    return list(config.generator_attention), stages_at(config.discriminator_attention, config.discriminator_heights)


def generator_map(config: Config) -> KeyMap:
    """The tensors of G."""
    layers, tensors = generator_layers(config)
    tensors.append(PlainTensor("embedding.weight", "shared.weight"))
    for number in range(config.stages):
        for part in (1, 2):
            ours, theirs = f"blocks.{number}.norm{part}", f"blocks.{number}.0.bn{part}"
            norm = conditional_norm(ours, theirs, config.embedding_dim)
            layers += norm[0]
            tensors += norm[1]
    return KeyMap(Names(), tuple(layers), tuple(tensors))


def generator_layers(config: ResidualFields) -> tuple[list[NormalizedLayer], list[PlainTensor]]:
    """The tensors of G but for embedding and inner norms."""
    layers = [NormalizedLayer("stem", "linear"), NormalizedLayer("to_rgb", "output_layer.2")]
    tensors = last_norm()
    for number in range(config.stages):
        ours, theirs = f"blocks.{number}", f"blocks.{number}.0"
        layers.append(NormalizedLayer(f"{ours}.shortcut", f"{theirs}.conv_sc"))
        layers += [NormalizedLayer(f"{ours}.conv{part}", f"{theirs}.conv{part}") for part in (1, 2)]
    for stage, name in attention_names(config.generator_attention, config.generator_heights).items():
        attention = attention_layers(f"attention.{name}", f"blocks.{stage}.1")
        layers += attention[0]
        tensors += attention[1]
    return layers, tensors


def discriminator_map(config: ResidualFields) -> KeyMap:
    """The tensors of D."""
    layers = [NormalizedLayer("head.linear", "linear"), NormalizedLayer("head.embedding", "embed")]
    tensors: list[PlainTensor] = []
    heights = config.discriminator_heights
    sizes = [(config.resolution, 0), *zip(heights, config.discriminator_widths, strict=True)]
    for number in range(len(heights)):
        ours, theirs = f"blocks.{number}", f"blocks.{number}.0"
        layers += [NormalizedLayer(f"{ours}.conv{part}", f"{theirs}.conv{part}") for part in (1, 2)]
        if sizes[number] != sizes[number + 1]:  # height or width changes
            layers.append(NormalizedLayer(f"{ours}.shortcut", f"{theirs}.conv_sc"))
    for stage, name in attention_names(config.discriminator_attention, heights).items():
        attention = attention_layers(f"attention.{name}", f"blocks.{stage}.1")
        layers += attention[0]
        tensors += attention[1]
    return KeyMap(Names(), tuple(layers), tuple(tensors))
