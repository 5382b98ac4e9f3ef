"""BigGAN-deep in the layout of BigGAN-PyTorch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from gan_blocks.engine import UserError
from recipes.biggan_deep import RECIPE, Config
from recipes.families.attention import attention_names, stages_at
from recipes.layouts.biggan_pytorch_layers import (
    Names,
    attention_layers,
    attention_places,
    channel_unit,
    conditional_norm,
    last_norm,
    rows_of,
)
from recipes.layouts.key_map import KeyMap, NormalizedLayer, PlainTensor, rolled

__all__ = [
    "MODEL",
    "RECIPE",
    "STANDARD",
    "attention_of",
    "discriminator_map",
    "generator_map",
    "own_options",
    "read_config",
]

STANDARD = replace(RECIPE.presets["imagenet-128"](), wide_rgb_conv=False)
MODEL = "BigGANdeep"


def read_config(g: Mapping[str, Tensor], d: Mapping[str, Tensor] | None, channels: int | None) -> Config:
    """The Config of the networks that the shapes belong to.

    Raises:
        KeyError: If a tensor that tells a size is missing.
        UserError: If the recipe cannot build them.
    """
    outputs = rows_of(g, "blocks.{}.0.conv4.weight")
    generator = (g["blocks.0.0.conv1.weight"].shape[1], *outputs[1::2])
    if d is None:
        discriminator = generator[::-1]  # D mirrors G, as in Tables 7 to 9
    else:
        discriminator = (d["input_conv.weight"].shape[0], *rows_of(d, "blocks.{}.1.conv4.weight"))
    unit = channel_unit((*generator, *discriminator), channels)
    resolution = 4 * 2 ** (len(generator) - 1)
    num_classes, embedding_dim = g["shared.weight"].shape
    final_size = 8 if resolution == 32 else 4
    # A block of G counts for itself there, and a stage of D for its two.
    of_g = [4 * 2 ** ((place + 1) // 2) for place in attention_places(g)]
    of_d = [height for height in of_g if 8 <= height < resolution][-1:]
    if d is not None:
        of_d = [max(resolution // 2 ** (stage + 1), final_size) for stage in attention_places(d)]
    first = max((height for height in of_g if height in of_d and height >= 8), default=0)
    image_channels: Any = g["output_layer.2.weight"].shape[0]  # the Config says which numbers it takes
    return replace(
        STANDARD,
        data=f"folder:data/imagenet-{resolution}",
        resolution=resolution,
        image_channels=image_channels,
        num_classes=num_classes,
        channels=unit,
        generator_widths=tuple(width // unit for width in generator),
        discriminator_widths=tuple(width // unit for width in discriminator),
        discriminator_final_size=final_size,
        attention_resolution=first,
        generator_attention=_without(of_g, first),
        discriminator_attention=_without(of_d, first),
        latent_dim=g["linear.weight"].shape[1] - embedding_dim,
        embedding_dim=embedding_dim,
    )


def own_options(config: Config) -> dict[str, object]:
    """Options of that code that are BigGAN-deep's alone."""
    return {
        "dim_z": config.latent_dim,
        "shared_dim": config.embedding_dim,
        "hier": True,
        "G_shared": True,
        "G_depth": 2,
        "D_depth": 2,
    }


def attention_of(config: Config) -> tuple[list[int], list[int]]:
    """Heights of G's non-local blocks, and the numbers of D's stages that one follows."""
    of_g, of_d = _heights(config)
    return of_g, stages_at(of_d, config.discriminator_heights)


def generator_map(config: Config) -> KeyMap:
    """The tensors of G.

    Raises:
        UserError: If its last convolution has channels that are not kept, for which the layout has no place.
    """
    if config.wide_rgb_conv:
        raise UserError("the layout biggan-pytorch has no --wide-rgb-conv: its last convolution makes the image.")
    layers = [
        NormalizedLayer("stem", "linear", columns=rolled(config.embedding_dim)),
        NormalizedLayer("to_rgb", "output_layer.2"),
    ]
    tensors = [PlainTensor("embedding.weight", "shared.weight"), *last_norm()]
    for number in range(2 * (len(config.generator_widths) - 1)):
        ours, theirs = f"blocks.{number}", f"blocks.{number}.0"
        for part in range(1, 5):
            layers.append(NormalizedLayer(f"{ours}.conv{part}", f"{theirs}.conv{part}"))
            norm = conditional_norm(f"{ours}.norm{part}", f"{theirs}.bn{part}", config.embedding_dim)
            layers += norm[0]
            tensors += norm[1]
    for stage, ours in _attention_names(config, _heights(config)[0], config.generator_heights).items():
        attention = attention_layers(ours, f"blocks.{2 * stage + 1}.1")
        layers += attention[0]
        tensors += attention[1]
    return KeyMap(Names(), tuple(layers), tuple(tensors))


def discriminator_map(config: Config) -> KeyMap:
    """The tensors of D."""
    layers = [
        NormalizedLayer("stem", "input_conv"),
        NormalizedLayer("head.linear", "linear"),
        NormalizedLayer("head.embedding", "embed"),
    ]
    tensors: list[PlainTensor] = []
    widths = config.discriminator_widths
    for stage in range(len(widths) - 1):
        for part in range(2):
            ours, theirs = f"blocks.{2 * stage + part}", f"blocks.{stage}.{part}"
            layers += [NormalizedLayer(f"{ours}.conv{number}", f"{theirs}.conv{number}") for number in range(1, 5)]
        if widths[stage] != widths[stage + 1]:
            layers.append(NormalizedLayer(f"blocks.{2 * stage}.shortcut", f"blocks.{stage}.0.conv_sc"))
    for stage, ours in _attention_names(config, _heights(config)[1], config.discriminator_heights).items():
        attention = attention_layers(ours, f"blocks.{stage}.2")
        layers += attention[0]
        tensors += attention[1]
    return KeyMap(Names(), tuple(layers), tuple(tensors))


def _heights(config: Config) -> tuple[list[int], list[int]]:
    """Heights of the non-local blocks of G and of D, that of both first."""
    both = [config.attention_resolution] if config.attention_resolution else []
    return [*both, *config.generator_attention], [*both, *config.discriminator_attention]


def _attention_names(config: Config, wanted: list[int], heights: list[int]) -> dict[int, str]:
    """Our names of the non-local blocks, by the stage that they follow."""
    names = {stage: f"further_attention.{name}" for stage, name in attention_names(wanted, heights).items()}
    return {**names, stages_at(wanted, heights)[0]: "attention"} if config.attention_resolution else names


def _without(heights: list[int], first: int) -> tuple[int, ...]:
    """All but one of that height."""
    place = heights.index(first) if first else len(heights)
    return tuple(heights[:place] + heights[place + 1 :])
