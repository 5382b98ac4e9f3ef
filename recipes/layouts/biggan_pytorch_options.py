"""The options of BigGAN-PyTorch: which network they describe, and whether that is the one in the files.

Its options are those of its command line, as its ``state_dict.pth`` keeps them: ``G_ch``, ``dim_z``, and so on.
Most of them show in names and shapes of tensors, which are compared; what none shows, such as ``BN_eps``, is taken from
them. Tested in ``tests/recipes/layouts/test_biggan_pytorch_variants.py``.
"""

import math
from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

from gan_blocks.engine import UserError
from recipes.layouts.biggan_pytorch_layers import GENERATOR, Architecture
from recipes.layouts.key_map import shown

__all__ = ["LAST_EPS", "Epsilons", "check_options", "describe", "obstacles", "read_epsilons", "says_thin", "unit_of"]

LAST_EPS = 1e-5
"""Of the generator's last norm there, whatever ``BN_eps`` is."""
_SN_EPS = 1e-4

# Widths of its networks in units of G_ch and D_ch, by model and resolution; of BigGAN-deep after each stage.
_DEEP_G = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
_G_TABLES = {"BigGAN": {**_DEEP_G, 512: (16, 16, 8, 8, 4, 2, 1, 1)}, "BigGANdeep": _DEEP_G}
_D_TABLE = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
}

_ALIASES = {"num_classes": "n_classes", "bn_eps": "BN_eps"}
_SWITCHES = ("hier", "G_shared", "D_wide")
_RELU = ("relu", "inplace_relu", "ir")
_UNCHECKED = ("BN_eps", "SN_eps", "D_param", "cross_replica", "mybn", "num_G_SVs", "num_D_SVs")


class Epsilons(NamedTuple):
    """What BatchNorm adds to variances, and where that is known from."""

    blocks: float
    last: float
    note: str
    """For the user."""


def describe(architecture: Architecture, config: Any) -> dict[str, object]:
    """The options with which that code builds the networks of a Config, unless there are :func:`obstacles`."""
    g_heights, d_stages = architecture.attention_of(config)
    g_table, d_table = _tables(architecture, config)
    labels = _d_labels(config)
    return {
        "model": architecture.MODEL,
        "resolution": config.resolution,
        "n_classes": config.num_classes,
        "G_ch": _unit(config.generator_widths, config.channels, g_table) or config.channels,
        "D_ch": _unit(config.discriminator_widths, config.channels, d_table) or config.channels,
        "G_attn": _joined(g_heights),
        "D_attn": _joined([labels[stage] for stage in d_stages]),
        "G_param": "SN",
        "D_param": "SN",
        "D_wide": True,
        "G_nl": "relu",
        "D_nl": "relu",
        "norm_style": "bn",
        "cross_replica": False,
        "mybn": False,
        "num_G_SVs": 1,
        "num_D_SVs": 1,
        "BN_eps": config.bn_eps,
        "SN_eps": _SN_EPS,
        **architecture.own_options(config),
    }


def obstacles(architecture: Architecture, config: Any, *, discriminator: bool) -> list[str]:
    """Why that code cannot build the networks of a Config from :func:`describe`; empty if it can."""
    _, d_stages = architecture.attention_of(config)
    g_table, d_table = _tables(architecture, config)
    found = []
    if config.image_channels != 3:
        found.append("its images are RGB")
    if _unit(config.generator_widths, config.channels, g_table) is None:
        found.append(f"its G of {config.resolution} pixels has other widths" if g_table else "it has no such G")
    if not discriminator:
        return found
    last = 8 if config.resolution == 32 else 4
    if _unit(config.discriminator_widths, config.channels, d_table) is None or config.discriminator_final_size != last:
        found.append(f"its D of {config.resolution} pixels has other widths" if d_table else "it has no such D")
    labels = _d_labels(config)
    chosen = {labels[stage] for stage in d_stages}
    if sorted(d_stages) != [stage for stage, label in enumerate(labels) if label in chosen]:
        found.append("its D has attention after all blocks of a height")
    return found


def check_options(architecture: Architecture, config: Any, given: Mapping[str, object], *, discriminator: bool) -> None:
    """Compare options with the Config of the networks in the files.

    Raises:
        UserError: If they are those of another network, or of one that the recipe cannot build.
    """
    known = describe(architecture, config)
    compared = {**known, "ch": config.channels, "D_thin": not known["D_wide"]}
    if given and given.keys().isdisjoint({*compared, *_ALIASES}):
        listed = ", ".join(f"{name:.40}" for name in islice(given, 5))
        raise UserError(f"--config holds none of BigGAN-PyTorch's options, such as G_ch or BN_eps, but {listed}.")
    for name, value in compared.items():
        alias = next((other for other, real in _ALIASES.items() if real == name and other in given), name)
        if alias not in given or name in _UNCHECKED or (name.startswith("D_") and not discriminator):
            continue
        if not _same(name, given[alias], given, known, value):
            raise UserError(
                f"{GENERATOR} does not fit its config: {alias} is {shown(given[alias])} there, not {value}."
            )


def read_epsilons(given: Mapping[str, object], blocks: float | None, last: float | None, *, recorded: bool) -> Epsilons:
    """What BatchNorm adds to variances: as it is asked for, else as the options say, else as that code's scripts do.

    Args:
        given: Its options.
        blocks: Of the norms in blocks, as the user asks for it.
        last: The same for the last norm.
        recorded: Whether there is ``sv0``, as in all files but those of the released generators.

    Raises:
        UserError: If the option is no positive number.
    """
    said = given.get("BN_eps", given.get("bn_eps"))
    guessed = blocks is None and said is None
    if blocks is not None:
        source = "as --bn-eps says"
    elif said is not None:
        blocks, source = _positive(said), "as BN_eps in the config says"
    else:
        blocks, source = LAST_EPS, "as that code's launch scripts have it, since the files do not say (--bn-eps)"
    of_last = "as --last-bn-eps says" if last is not None else "as always in that code (--last-bn-eps)"
    last = LAST_EPS if last is None else last
    note = f"BatchNorm's eps is {blocks:g}, {source}; in G's last norm {last:g}, {of_last}."
    if guessed and not recorded:
        note += " Without sv0 it may be a released generator that it converted: those have --bn-eps 1e-4."
    return Epsilons(blocks, last, note)


def says_thin(given: Mapping[str, object]) -> bool:
    """Whether options name SN-GAN's pattern of channels in D."""
    return _is_true(given.get("D_thin", False)) or not _is_true(given.get("D_wide", True))


def unit_of(given: Mapping[str, object], *, discriminator: bool) -> int | None:
    """The channel unit that options name, in which both networks can be counted; None: they name none."""
    names = ("G_ch", "D_ch") if discriminator else ("G_ch",)
    units = [unit for name in names if (unit := _whole_number(given.get(name)))]
    return _whole_number(given.get("ch")) or (math.gcd(*units) if units else None)


def _tables(architecture: Architecture, config: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return _G_TABLES[architecture.MODEL].get(config.resolution, ()), _D_TABLE.get(config.resolution, ())


def _unit(widths: tuple[int, ...], channels: int, table: tuple[int, ...]) -> int | None:
    """The number by which a table is multiplied to give these widths; None: it gives others."""
    if len(widths) != len(table) or widths[0] * channels % table[0]:
        return None
    unit = widths[0] * channels // table[0]
    return unit if all(width * channels == unit * entry for width, entry in zip(widths, table, strict=True)) else None


def _d_labels(config: Any) -> list[int]:
    """What it calls the heights of its D's blocks, for ``D_attn``: at 32 pixels, all of them 16."""
    heights: list[int] = config.discriminator_heights
    return [16] * len(heights) if config.resolution == 32 else heights


def _joined(heights: list[int]) -> str:
    return "_".join(map(str, sorted(set(heights)))) or "0"


def _same(name: str, value: object, given: Mapping[str, object], known: Mapping[str, object], wanted: object) -> bool:
    """Whether an option builds the same; it may be text, as from the metadata of a file."""
    if name in (*_SWITCHES, "D_thin"):
        return _is_true(value) == wanted
    if name in ("G_attn", "D_attn"):
        return _heights(name, value, known) == _heights(name, wanted, known)
    if name == "ch":
        return str(value) in (str(wanted), str(known["G_ch"]))
    if name == "dim_z":
        return _floored(_whole_number(value), known) == wanted
    if name == "shared_dim":
        first = _whole_number(value) or _whole_number(given.get("dim_z", 128))
        return not known["G_shared"] or first == wanted
    if name == "G_param":
        return (str(value) == "SN") == (wanted == "SN")
    if name in ("G_nl", "D_nl"):
        return str(value) in _RELU
    if name == "model":
        model = str(value).replace("-", "").replace("_", "").lower()
        return model not in ("biggan", "biggandeep") or model == str(wanted).lower()
    return str(value) == str(wanted)


def _floored(dim_z: int | None, known: Mapping[str, object]) -> int | None:
    """It cuts z into equal chunks, and leaves over what does not go into them."""
    if dim_z is None or not known["hier"] or known["model"] != "BigGAN":
        return dim_z
    chunks = int(str(known["resolution"])).bit_length() - 2  # one for 4x4 pixels, and one for each doubling
    return dim_z // chunks * chunks


def _heights(name: str, value: object, known: Mapping[str, object]) -> set[int]:
    """The heights that are named and that there are, as that code leaves out others."""
    resolution = int(str(known["resolution"]))
    low, high = (8, resolution) if name == "G_attn" else (4, resolution // 2)
    wanted = {_whole_number(part) or 0 for part in str(value).split("_")}
    return {height for height in wanted if low <= height <= high and height & (height - 1) == 0} - (
        {4, 8} if name == "D_attn" and resolution == 32 else set()
    )


def _is_true(value: object) -> bool:
    return str(value).strip().lower() in ("true", "1")


def _positive(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{GENERATOR} has a config with BN_eps {shown(value)}: it must be a number greater than 0.")
    return number


def _whole_number(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isdecimal() and len(text) < 10 and int(text) > 0 else None
