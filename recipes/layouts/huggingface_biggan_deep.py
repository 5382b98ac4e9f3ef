"""The layout of pytorch-pretrained-biggan: BigGAN-deep's generator as released, with 51 tables of statistics.

Its generator sees [z, class vector] as ours does. What differs: the class embedding is a linear layer over one-hot
labels; the first linear layer's output is (height, width, channel); each BatchNorm has one row of statistics for each
of the truncations 0, 0.02, ..., 1.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeGuard

import torch
from einops import rearrange
from torch import Tensor

from gan_blocks import BatchNormTable, TruncatedBatchNormStatistics
from gan_blocks.engine import UserError
from recipes.biggan_deep import PRESETS, RECIPE, Config, Generator
from recipes.layouts.key_map import (
    Converted,
    KeyMap,
    NormalizedLayer,
    PlainTensor,
    Reorder,
    SingularVectors,
    check_fits,
    expected_state,
    shown,
)

__all__ = ["convert_huggingface_biggan_deep", "export_huggingface_biggan_deep", "huggingface_config"]

SOURCE = "the generator (layout huggingface-biggan-deep)"
ROWS = 51
ATTENTION = {"theta": "theta", "phi": "phi", "g": "g", "out": "o_conv"}


def convert_huggingface_biggan_deep(
    state_dict: Mapping[str, Tensor], *, config: Mapping[str, object] | None = None, truncation: float
) -> Converted:
    """Convert the state dict of pytorch-pretrained-biggan's ``BigGAN``.

    Args:
        state_dict: As its ``pytorch_model.bin`` holds it.
        config: The content of its ``config.json``, to check the tensors against; None: they speak for themselves.
        truncation: The truncation from 0 to 1 whose BatchNorm statistics the generator gets, with z drawn from the
            ``"scaled"`` definition of :func:`gan_blocks.truncated_prior`. Between two of its 51 tables they are
            interpolated; the package itself swaps the two weights there, and reads the table beside the right one at
            0.14, 0.28, 0.56, 0.58 and 0.94.

    Returns:
        The Config of ``recipes.biggan_deep``, with the training settings of the paper, the generator and its tables.

    Raises:
        UserError: If keys are missing or unexpected or shapes do not fit, or the config is that of another network;
            the first ten of each kind are named.
        ValueError: If the truncation is not from 0 to 1.
    """
    try:
        found = _read_config(state_dict)
    except (KeyError, IndexError, ValueError, ArithmeticError):  # a tensor is missing, or of no such shape
        found = PRESETS["imagenet-128"]()  # what it should have been, to say how it differs
    if _is_eps(eps := (config or {}).get("eps")):  # no tensor shows it
        found = replace(found, bn_eps=eps, last_bn_eps=eps)
    _check_config(found, config or {})
    names = _norms(found)
    key_map, expected = _key_map(found), expected_state(Generator, found)
    wanted = key_map.to_theirs(_without_statistics(expected))
    for ours, theirs in names.items():
        channels = expected[f"{ours}.running_mean"].shape[0]
        wanted |= {
            f"{theirs}.{kind}": torch.zeros(()).expand(ROWS, channels) for kind in ("running_means", "running_vars")
        }
    check_fits(SOURCE, state_dict, wanted)
    statistics = TruncatedBatchNormStatistics(
        torch.arange(ROWS, dtype=torch.float64) / (ROWS - 1),
        {
            ours: BatchNormTable(state_dict[f"{theirs}.running_means"], state_dict[f"{theirs}.running_vars"])
            for ours, theirs in names.items()
        },
    )
    generator = key_map.to_ours(state_dict)
    for name, (mean, variance) in statistics.at(truncation).items():
        generator |= {f"{name}.running_mean": mean, f"{name}.running_var": variance}
    return Converted(RECIPE, found, generator, None, statistics)


def export_huggingface_biggan_deep(
    generator: Mapping[str, Tensor], *, config: Config, statistics: TruncatedBatchNormStatistics | None = None
) -> dict[str, Tensor]:
    """Lay a generator of ``recipes.biggan_deep`` out for pytorch-pretrained-biggan; the inverse of the conversion.

    Args:
        generator: State dict of ``Generator(config)``.
        config: Its Config. That package has one width for z and the class vector, a last convolution of ch outputs and
            a last stage of width ch.
        statistics: Statistics at the truncations 0, 0.02, ..., 1; None: the generator's own, at each of them.

    Returns:
        The state dict for its ``BigGAN``, whose ``config.json`` is :func:`huggingface_config`'s.

    Raises:
        UserError: If that package cannot build this network, or the state dict is not that of the Config.
        ValueError: If the statistics do not reach from 0 to 1.
    """
    for field, holds, rule in (
        ("embedding_dim", config.embedding_dim == config.latent_dim, f"--latent-dim ({config.latent_dim})"),
        ("wide_rgb_conv", config.wide_rgb_conv, "True"),
        ("generator_widths", config.generator_widths[0] == 16 and config.generator_widths[-1] == 1, "16 ... 1"),
        ("image_channels", config.image_channels == 3, "3"),
    ):
        if not holds:
            option = f"--{field.replace('_', '-')}"
            raise UserError(
                f"the layout huggingface-biggan-deep needs {option} to be {rule}, but got {getattr(config, field)}."
            )
    check_fits("the generator", generator, expected_state(Generator, config))
    theirs = _key_map(config).to_theirs(_without_statistics(generator))
    grid = [row / (ROWS - 1) for row in range(ROWS)]
    rows = None if statistics is None else [statistics.at(truncation) for truncation in grid]
    for ours, name in _norms(config).items():
        # Its config has one eps for all norms; the variances make up for another one of ours.
        difference = config.last_bn_eps - config.bn_eps if ours == "norm" else 0.0
        own = generator[f"{ours}.running_mean"], generator[f"{ours}.running_var"]
        pairs = [own] * ROWS if rows is None else [row[ours] for row in rows]
        theirs[f"{name}.running_means"] = torch.stack([mean for mean, _ in pairs])
        theirs[f"{name}.running_vars"] = torch.stack([variance for _, variance in pairs]) + difference
    return theirs


def huggingface_config(config: Config) -> dict[str, object]:
    """The content of the ``config.json`` with which that package builds the network of a Config."""
    layers: list[tuple[bool, int, int]] = []
    for before, after in zip(config.generator_widths[:-1], config.generator_widths[1:], strict=True):
        layers += [(False, before, before), (True, before, after)]
    return {
        "output_dim": config.resolution,
        "z_dim": config.latent_dim,
        "class_embed_dim": config.embedding_dim,
        "channel_width": config.channels,
        "num_classes": config.num_classes,
        "layers": layers,
        "attention_layer_position": _attention_place(config),
        "eps": config.bn_eps,
        "n_stats": ROWS,
    }


def _read_config(state: Mapping[str, Tensor]) -> Config:
    """The Config of the network that the shapes belong to."""
    channels = state["generator.conv_to_rgb.weight_orig"].shape[0]
    embedding_dim, num_classes = state["embeddings.weight"].shape
    places = [int(key.split(".")[2]) for key in state if key.endswith("snconv1x1_theta.weight_orig")]
    place = min(places, default=-1)
    blocks = 0
    outputs = []
    while (key := f"generator.layers.{blocks + (0 <= place <= blocks)}.conv_3.weight_orig") in state:
        outputs.append(state[key].shape[0])
        blocks += 1
    first = state["generator.layers.0.conv_0.weight_orig"].shape[1]
    widths = tuple(width // channels for width in (first, *outputs[1::2]))
    resolution = 4 * 2 ** (blocks // 2)
    preset = PRESETS.get(f"imagenet-{resolution}", PRESETS["imagenet-128"])()
    try:
        return replace(
            preset,
            resolution=resolution,
            num_classes=num_classes,
            channels=channels,
            generator_widths=widths,
            discriminator_widths=widths[::-1],  # D mirrors G, as in Tables 7 to 9
            attention_resolution=4 * 2 ** (place // 2) if places else 0,
            latent_dim=state["generator.gen_z.weight_orig"].shape[1] - embedding_dim,
            embedding_dim=embedding_dim,
        )
    except UserError as error:
        raise UserError(f"{SOURCE} is no BigGAN-deep that recipes.biggan_deep can build: {error}") from None


def _is_eps(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _check_config(found: Config, given: Mapping[str, object]) -> None:
    known = huggingface_config(found)
    for name, value in known.items():
        if name in given and _plain(given[name]) != _plain(value):
            raise UserError(
                f"{SOURCE} does not fit its config: {name} is {shown(given[name])} there, but the tensors say {value}."
            )


def _plain(value: object, depth: int = 3) -> object:
    """The value with lists for tuples, which are the same in JSON."""
    return [_plain(entry, depth - 1) for entry in value] if depth and isinstance(value, list | tuple) else value


def _attention_place(config: Config) -> int:
    """Index of the non-local block among their layers; -1: none."""
    return 2 * ((config.attention_resolution // 4).bit_length() - 1) if config.attention_resolution else -1


class _Names:
    """The names of torch's older spectral norm."""

    def read(self, state: Mapping[str, Tensor], layer: str) -> SingularVectors:
        return SingularVectors(*(state[f"{layer}.weight_{part}"] for part in ("orig", "u", "v")))

    def write(self, layer: str, tensors: SingularVectors) -> dict[str, Tensor]:
        return {f"{layer}.weight_{part}": value for part, value in zip(("orig", "u", "v"), tensors, strict=True)}


_TRANSPOSED = Reorder(lambda table: table.T, lambda table: table.T)
_SCALAR = Reorder(lambda gamma: gamma.reshape(()), lambda gamma: gamma.reshape(1))
_FEATURES_FIRST = Reorder(
    lambda rows: rearrange(rows, "(h w c) ... -> (c h w) ...", h=4, w=4),
    lambda rows: rearrange(rows, "(c h w) ... -> (h w c) ...", h=4, w=4),
)


def _blocks(config: Config) -> list[tuple[str, str]]:
    """Our name and theirs of every block."""
    place = _attention_place(config)
    number_of_blocks = 2 * (len(config.generator_widths) - 1)
    return [
        (f"blocks.{number}", f"generator.layers.{number + (0 <= place <= number)}")
        for number in range(number_of_blocks)
    ]


def _norms(config: Config) -> dict[str, str]:
    """Their name of every layer with statistics, by ours."""
    inner = {
        f"{ours}.norm{number}.norm": f"{theirs}.bn_{number - 1}"
        for ours, theirs in _blocks(config)
        for number in range(1, 5)
    }
    return {**inner, "norm": "generator.bn"}


def _without_statistics(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.endswith((".running_mean", ".running_var"))}


def _key_map(config: Config) -> KeyMap:
    """Everything but the statistics."""
    layers = [
        NormalizedLayer("stem", "generator.gen_z", rows=_FEATURES_FIRST),
        NormalizedLayer("to_rgb", "generator.conv_to_rgb"),
    ]
    tensors = [
        PlainTensor("embedding.weight", "embeddings.weight", _TRANSPOSED),
        *(PlainTensor(f"norm.{name}", f"generator.bn.{name}") for name in ("weight", "bias")),
    ]
    for ours, theirs in _blocks(config):
        for number in range(1, 5):
            layers += [
                NormalizedLayer(f"{ours}.conv{number}", f"{theirs}.conv_{number - 1}"),
                NormalizedLayer(f"{ours}.norm{number}.gain", f"{theirs}.bn_{number - 1}.scale"),
                NormalizedLayer(f"{ours}.norm{number}.bias", f"{theirs}.bn_{number - 1}.offset"),
            ]
    if config.attention_resolution:
        attention = f"generator.layers.{_attention_place(config)}"
        layers += [NormalizedLayer(f"attention.{o}", f"{attention}.snconv1x1_{t}") for o, t in ATTENTION.items()]
        tensors.append(PlainTensor("attention.gamma", f"{attention}.gamma", _SCALAR))
    return KeyMap(_Names(), tuple(layers), tuple(tensors))
