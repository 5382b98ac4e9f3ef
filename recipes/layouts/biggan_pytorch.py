"""The layout of BigGAN-PyTorch, for the networks of ``recipes.biggan_deep`` and ``recipes.biggan``.

Its generator sees [class vector, z], ours [z, class vector]. Each of its normalized layers keeps a left singular vector
``u0`` and no right one: in evaluation it takes one more step of power iteration from there,

    v = normalize(u0 W),  u = normalize(v W^T),  sigma = v W^T u^T,

which are the u and v that the conversion gives our layers. The other way u becomes u0, so what it evaluates with is
one step further than what we do: the same once the iteration has converged. ``sv0`` is a record of sigma that it never
reads.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gan_blocks.engine import UserError
from recipes.layouts import biggan_pytorch_deep, biggan_pytorch_residual
from recipes.layouts.biggan_pytorch_layers import DISCRIMINATOR, GENERATOR, Architecture
from recipes.layouts.key_map import Converted, check_fits, expected_state, shown

__all__ = ["biggan_pytorch_options", "convert_biggan_pytorch", "export_biggan_pytorch"]

ARCHITECTURES: tuple[Architecture, ...] = (biggan_pytorch_residual, biggan_pytorch_deep)


def convert_biggan_pytorch(
    generator_state: Mapping[str, Tensor],
    discriminator_state: Mapping[str, Tensor] | None = None,
    *,
    config: Mapping[str, object] | None = None,
) -> Converted:
    """Convert the state dicts of BigGAN-PyTorch's ``Generator`` and ``Discriminator``.

    Args:
        generator_state: As its ``G.pth`` or ``G_ema.pth`` holds it.
        discriminator_state: As its ``D.pth`` holds it; None: the Config describes a D that mirrors G.
        config: Its options, to check the tensors against: ``ch``, ``resolution``, ``dim_z``, ``shared_dim``,
            ``num_classes``, ``G_attn``, ``bn_eps``, ``sn_eps``, ``hier``, ``G_shared``; others are ignored. None: the
            tensors speak for themselves.

    Returns:
        The Config of ``recipes.biggan_deep`` or ``recipes.biggan``, with the training settings of the paper, and both
        networks. BatchNorm has the statistics that were stored with them.

    Raises:
        UserError: If keys are missing or unexpected or shapes do not fit, or the config is that of another network;
            the first ten of each kind are named.
    """
    architecture = biggan_pytorch_deep if any(".conv4." in key for key in generator_state) else biggan_pytorch_residual
    recipe = architecture.RECIPE
    try:
        found = architecture.read_config(generator_state, discriminator_state, _whole_number(config, "ch"))
    except (KeyError, IndexError, ValueError, ArithmeticError):  # a tensor is missing, or of no such shape
        found = architecture.STANDARD  # what it should have been, to say how it differs
    except UserError as error:
        raise UserError(f"{GENERATOR} is no network that recipes.{recipe.name} can build: {error}") from None
    _check_config(architecture.describe(found), config or {})
    g_map, d_map = architecture.generator_map(found), architecture.discriminator_map(found)
    check_fits(GENERATOR, generator_state, g_map.to_theirs(expected_state(recipe.build_generator, found)))
    discriminator = None
    if discriminator_state is not None:
        wanted = d_map.to_theirs(expected_state(recipe.build_discriminator, found))
        check_fits(DISCRIMINATOR, discriminator_state, wanted)
        discriminator = d_map.to_ours(discriminator_state)
    return Converted(recipe, found, g_map.to_ours(generator_state), discriminator, None)


def export_biggan_pytorch(
    generator: Mapping[str, Tensor],
    discriminator: Mapping[str, Tensor] | None = None,
    *,
    config: Any,
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Lay networks of ``recipes.biggan_deep`` or ``recipes.biggan`` out for BigGAN-PyTorch: the conversion's inverse.

    Everything comes back from there bit for bit but the singular vectors, which are one step of power iteration
    further: equal up to rounding once they have converged.

    Args:
        generator: State dict of ``build_generator(config)``.
        discriminator: State dict of ``build_discriminator(config)``; None: there is none.
        config: The Config of one of the two recipes.

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
    if discriminator is None:
        return theirs, None
    check_fits("the discriminator", discriminator, expected_state(recipe.build_discriminator, config))
    return theirs, d_map.to_theirs(discriminator)


def biggan_pytorch_options(config: Any) -> dict[str, object]:
    """The options with which that code builds the networks of a Config that :func:`export_biggan_pytorch` takes."""
    return _architecture_of(config).describe(config)


def _architecture_of(config: Any) -> Architecture:
    for architecture in ARCHITECTURES:
        if type(config) is architecture.RECIPE.config:  # a study's may stand for other networks
            return architecture
    raise UserError(f"the layout biggan-pytorch has no networks of a {type(config).__module__}.Config.")


def _check_config(found: Mapping[str, object], given: Mapping[str, object]) -> None:
    for name, value in found.items():
        if name in given and not _same(given[name], value):
            raise UserError(f"{GENERATOR} does not fit its config: {name} is {shown(given[name])} there, not {value}.")


def _same(given: object, value: object) -> bool:
    """Options may come as text, as from the metadata of a file."""
    if isinstance(value, float):
        try:
            return float(str(given)) == value
        except ValueError:
            return False
    return str(given) == str(value)


def _whole_number(config: Mapping[str, object] | None, name: str) -> int | None:
    text = str((config or {}).get(name, ""))
    return int(text) if text.isdecimal() and len(text) < 10 and int(text) > 0 else None
