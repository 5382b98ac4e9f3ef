"""The layout of BigGAN-PyTorch, for the networks of four recipes: BigGAN, BigGAN-deep, SA-GAN and SN-GAN.

Its generator sees [class vector, z], ours [z, class vector]. Each of its normalized layers keeps a left singular vector
``u0`` and no right one: in evaluation it takes one more step of power iteration from there,

    v = normalize(u0 W),  u = normalize(v W^T),  sigma = v W^T u^T,

which are the u and v that the conversion gives our layers. The other way u becomes u0, so what it evaluates with is
one step further than what we do: the same once the iteration has converged. ``sv0`` is a record of sigma that it never
reads.

Its files do not say what BatchNorm adds to variances: in blocks that is its option ``BN_eps``, in the generator's last
norm always 1e-5.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from gan_blocks.engine import UserError
from recipes.layouts import biggan_pytorch_deep, biggan_pytorch_residual
from recipes.layouts.biggan_pytorch_layers import DISCRIMINATOR, GENERATOR, Architecture, canonical
from recipes.layouts.biggan_pytorch_options import (
    LAST_EPS,
    check_options,
    describe,
    obstacles,
    read_epsilons,
    says_thin,
    unit_of,
)
from recipes.layouts.biggan_pytorch_tables import SAGAN, SNGAN, THIN_SNGAN, has_thin_blocks
from recipes.layouts.key_map import Converted, check_fits, expected_state

__all__ = [
    "LAST_EPS",
    "biggan_pytorch_obstacles",
    "biggan_pytorch_options",
    "convert_biggan_pytorch",
    "export_biggan_pytorch",
]

ARCHITECTURES: tuple[Architecture, ...] = (biggan_pytorch_residual, biggan_pytorch_deep, SAGAN, SNGAN)


def convert_biggan_pytorch(
    generator_state: Mapping[str, Tensor],
    discriminator_state: Mapping[str, Tensor] | None = None,
    *,
    config: Mapping[str, object] | None = None,
    bn_eps: float | None = None,
    last_bn_eps: float | None = None,
) -> Converted:
    """Convert the state dicts of BigGAN-PyTorch's ``Generator`` and ``Discriminator``.

    Args:
        generator_state: As its ``G.pth`` or ``G_ema.pth`` holds it, of any of its batch norms, with or without ``sv0``.
        discriminator_state: As its ``D.pth`` holds it; None: the Config describes a D that mirrors G.
        config: Its options, as its ``state_dict.pth`` has them: ``G_ch``, ``dim_z``, ``BN_eps`` and so on. What shows
            in the tensors is checked against them; others are ignored. None: the tensors speak for themselves.
        bn_eps: What BatchNorm in blocks adds to variances; None: ``BN_eps`` of the options, or 1e-5.
        last_bn_eps: The same for the last norm of G; None: 1e-5, as always in that code.

    Returns:
        The Config of ``recipes.biggan_deep``, ``recipes.biggan``, ``recipes.sagan`` or ``recipes.sngan``, with the
        training settings of the paper, and both networks. BatchNorm has the statistics that were stored with them.

    Raises:
        UserError: If keys are missing or unexpected or shapes do not fit, or the config is that of another network;
            the first ten of each kind are named.
    """
    given = config or {}
    g, d = canonical(generator_state), None if discriminator_state is None else canonical(discriminator_state)
    _check_places(g, d)
    architecture = _architecture_in(g, d, given)
    recipe = architecture.RECIPE
    try:
        found = architecture.read_config(g, d, unit_of(given, discriminator=d is not None))
    except (KeyError, IndexError, ValueError, ArithmeticError):  # a tensor is missing, or of no such shape
        found = architecture.STANDARD  # what it should have been, to say how it differs
    except UserError as error:
        raise UserError(f"{GENERATOR} is no network that recipes.{recipe.name} can build: {error}") from None
    check_options(architecture, found, given, discriminator=d is not None)
    recorded = any(name.endswith(".sv0") for name in generator_state)
    epsilons = read_epsilons(given, bn_eps, last_bn_eps, recorded=recorded)
    found = replace(found, bn_eps=epsilons.blocks, last_bn_eps=epsilons.last)
    g_map, d_map = architecture.generator_map(found), architecture.discriminator_map(found)
    check_fits(GENERATOR, g, g_map.to_theirs(expected_state(recipe.build_generator, found)))
    discriminator = None
    if d is not None:
        check_fits(DISCRIMINATOR, d, d_map.to_theirs(expected_state(recipe.build_discriminator, found)))
        discriminator = d_map.to_ours(d)
    notes = [epsilons.note]
    if any(name.endswith(".bn.running_var") for name in generator_state):
        notes.append(
            "Gains of cross_replica norms scale, as that code trains them on several GPUs; its sampling adds them."
        )
    return Converted(recipe, found, g_map.to_ours(g), discriminator, None, tuple(notes))


def export_biggan_pytorch(
    generator: Mapping[str, Tensor],
    discriminator: Mapping[str, Tensor] | None = None,
    *,
    config: Any,
    last_bn_eps: float | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Lay networks of the four recipes out for BigGAN-PyTorch: the conversion's inverse.

    Everything comes back from there bit for bit but the singular vectors, which are one step of power iteration
    further: equal up to rounding once they have converged.

    Args:
        generator: State dict of ``build_generator(config)``.
        discriminator: State dict of ``build_discriminator(config)``; None: there is none.
        config: The Config of one of the recipes.
        last_bn_eps: What G's last norm will add to variances: 1e-5 in that code. The variances that are written make up
            for the difference. None: the Config's, with the variances as they are.

    Returns:
        The state dicts for its ``Generator`` and ``Discriminator``.

    Raises:
        UserError: If a state dict is not that of the Config, or the Config's network has no such layout.
    """
    architecture = _architecture_of(config)
    recipe = architecture.RECIPE
    g_map, d_map = architecture.generator_map(config), architecture.discriminator_map(config)
    check_fits("the generator", generator, expected_state(recipe.build_generator, config))
    theirs = g_map.to_theirs(generator)
    if last_bn_eps is not None:
        # The norm divides by the root of only their sum.
        name = "output_layer.0.stored_var"
        theirs[name] = (theirs[name].double() + config.last_bn_eps - last_bn_eps).to(theirs[name].dtype)
    if discriminator is None:
        return theirs, None
    check_fits("the discriminator", discriminator, expected_state(recipe.build_discriminator, config))
    return theirs, d_map.to_theirs(discriminator)


def biggan_pytorch_options(config: Any) -> dict[str, object]:
    """The options with which that code builds the networks of a Config that :func:`export_biggan_pytorch` takes."""
    return describe(_architecture_of(config), config)


def biggan_pytorch_obstacles(config: Any, *, discriminator: bool = True) -> list[str]:
    """Why that code cannot build these networks, whose tensors have a layout nevertheless; empty if it can."""
    return obstacles(_architecture_of(config), config, discriminator=discriminator)


def _check_places(g: Mapping[str, Tensor], d: Mapping[str, Tensor] | None) -> None:
    """Refuse networks that are in each other's place, of two kinds, or of a kind that no recipe has."""
    if "embed.weight" in g and "output_layer.2.weight" not in g:
        raise UserError(f"{GENERATOR} has the names of a discriminator: that is for --discriminator.")
    if d is not None and "output_layer.2.weight" in d and "embed.weight" not in d:
        raise UserError(f"{DISCRIMINATOR} has the names of a generator: that is for --generator.")
    if d is not None and (deep := _is_deep(g)) != _is_deep(d) and "blocks.0.0.conv1.weight" in d:
        kinds = ("of BigGAN-deep", "not of BigGAN-deep")
        raise UserError(f"{GENERATOR} is {kinds[not deep]}, but {DISCRIMINATOR} is {kinds[deep]}.")
    if {"shared.weight", "linear.weight"} <= g.keys() and not any(key.endswith(".u0") for key in g):
        raise UserError(f"{GENERATOR} has no u0: without spectral norm in G, only networks with class tables are read.")


def _is_deep(state: Mapping[str, Tensor]) -> bool:
    return any(".conv4." in key for key in state)


def _architecture_in(
    g: Mapping[str, Tensor], d: Mapping[str, Tensor] | None, given: Mapping[str, object]
) -> Architecture:
    """The networks whose names these are."""
    if _is_deep(g):
        return biggan_pytorch_deep
    norm = "blocks.0.0.bn1.gain"
    if "shared.weight" in g or f"{norm}.weight" not in g or f"{norm}.u0" in g:
        return biggan_pytorch_residual
    thin = says_thin(given) if d is None else has_thin_blocks(d)
    if thin:
        return THIN_SNGAN
    return SAGAN if "linear.u0" in g else SNGAN


def _architecture_of(config: Any) -> Architecture:
    for architecture in ARCHITECTURES:
        if type(config) is architecture.RECIPE.config:  # a study's may stand for other networks
            return architecture
    raise UserError(f"the layout biggan-pytorch has no networks of a {type(config).__module__}.Config.")
