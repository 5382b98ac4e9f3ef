"""BigGAN-deep in the layout of BigGAN-PyTorch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from gan_blocks.engine import UserError
from recipes.biggan_deep import EPS, RECIPE, Config
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

__all__ = ["RECIPE", "STANDARD", "describe", "discriminator_map", "generator_map", "read_config"]

STANDARD = replace(RECIPE.presets["imagenet-128"](), wide_rgb_conv=False)


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
    places = attention_places(g)
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
        discriminator_final_size=8 if resolution == 32 else 4,
        attention_resolution=4 * 2 ** ((places[-1] + 1) // 2) if places else 0,
        latent_dim=g["linear.weight"].shape[1] - embedding_dim,
        embedding_dim=embedding_dim,
    )


def describe(config: Config) -> dict[str, object]:
    """The options of that code which build the networks of a Config."""
    return {
        "resolution": config.resolution,
        "ch": config.channels,
        "dim_z": config.latent_dim,
        "shared_dim": config.embedding_dim,
        "num_classes": config.num_classes,
        "G_attn": config.attention_resolution,
        "G_depth": 2,
        "hier": True,
        "G_shared": True,
        "bn_eps": EPS,
        "sn_eps": EPS,
    }


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
    if config.attention_resolution:
        place = 2 * ((config.attention_resolution // 4).bit_length() - 1) - 1
        attention = attention_layers("attention", f"blocks.{place}.1")
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
    if config.attention_resolution:
        stage = (config.resolution // config.attention_resolution).bit_length() - 2
        attention = attention_layers("attention", f"blocks.{stage}.2")
        layers += attention[0]
        tensors += attention[1]
    return KeyMap(Names(), tuple(layers), tuple(tensors))
