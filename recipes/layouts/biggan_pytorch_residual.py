"""BigGAN in the layout of BigGAN-PyTorch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from recipes.biggan import EPS, RECIPE, Config
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

__all__ = ["RECIPE", "STANDARD", "describe", "discriminator_map", "generator_map", "read_config"]

STANDARD = RECIPE.presets["imagenet-128"]()


def read_config(g: Mapping[str, Tensor], d: Mapping[str, Tensor] | None, channels: int | None) -> Config:
    """The Config of the networks that the shapes belong to.

    Raises:
        KeyError: If a tensor that tells a size is missing.
        UserError: If the recipe cannot build them.
    """
    generator = (g["blocks.0.0.conv1.weight"].shape[1], *rows_of(g, "blocks.{}.0.conv2.weight"))
    # Without a D, one that mirrors G as in Tables 4 to 6.
    discriminator = generator[::-1] if d is None else tuple(rows_of(d, "blocks.{}.0.conv2.weight"))
    unit = channel_unit((*generator, *discriminator), channels)
    stages = len(generator) - 1
    resolution = 4 * 2**stages
    num_classes, embedding_dim = g["shared.weight"].shape
    chunk = g["linear.weight"].shape[1]
    skip_z = g["blocks.0.0.bn1.gain.weight"].shape[1] > embedding_dim
    of_g = tuple(8 * 2**place for place in attention_places(g))
    final_size = 8 if resolution == 32 else 4
    if d is None:
        of_d = tuple(size for size in of_g if final_size <= size < resolution)
    else:
        of_d = tuple(resolution // 2 ** (place + 1) for place in attention_places(d))
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
        generator_attention=of_g,
        discriminator_attention=of_d,
        skip_z=skip_z,
        latent_dim=chunk * (stages + 1) if skip_z else chunk,
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
        "G_attn": "_".join(map(str, config.generator_attention)) or "0",
        "hier": config.skip_z,
        "G_shared": True,
        "bn_eps": EPS,
        "sn_eps": EPS,
    }


def generator_map(config: Config) -> KeyMap:
    """The tensors of G."""
    layers = [NormalizedLayer("stem", "linear"), NormalizedLayer("to_rgb", "output_layer.2")]
    tensors = [PlainTensor("embedding.weight", "shared.weight"), *last_norm()]
    for number in range(config.stages):
        ours, theirs = f"blocks.{number}", f"blocks.{number}.0"
        layers.append(NormalizedLayer(f"{ours}.shortcut", f"{theirs}.conv_sc"))
        for part in (1, 2):
            layers.append(NormalizedLayer(f"{ours}.conv{part}", f"{theirs}.conv{part}"))
            norm = conditional_norm(f"{ours}.norm{part}", f"{theirs}.bn{part}", config.embedding_dim)
            layers += norm[0]
            tensors += norm[1]
    for size in config.generator_attention:
        attention = attention_layers(f"attention.{size}", f"blocks.{(size // 8).bit_length() - 1}.1")
        layers += attention[0]
        tensors += attention[1]
    return KeyMap(Names(), tuple(layers), tuple(tensors))


def discriminator_map(config: Config) -> KeyMap:
    """The tensors of D."""
    layers = [NormalizedLayer("head.linear", "linear"), NormalizedLayer("head.embedding", "embed")]
    tensors: list[PlainTensor] = []
    before, size = 0, config.resolution
    for number, width in enumerate(config.discriminator_widths):
        ours, theirs = f"blocks.{number}", f"blocks.{number}.0"
        layers += [NormalizedLayer(f"{ours}.conv{part}", f"{theirs}.conv{part}") for part in (1, 2)]
        downsample = size > config.discriminator_final_size
        if downsample or width != before:
            layers.append(NormalizedLayer(f"{ours}.shortcut", f"{theirs}.conv_sc"))
        before, size = width, size // 2 if downsample else size
    for height in config.discriminator_attention:
        place = (config.resolution // height).bit_length() - 2
        attention = attention_layers(f"attention.{height}", f"blocks.{place}.1")
        layers += attention[0]
        tensors += attention[1]
    return KeyMap(Names(), tuple(layers), tuple(tensors))
