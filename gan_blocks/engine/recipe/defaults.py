"""What a recipe does where it does not say otherwise: the prior of its latent fields, Adam for each network.

Tested in ``tests/engine/recipe/test_defaults.py``.
"""

from dataclasses import fields
from typing import Any

from torch import nn, optim

from gan_blocks import NormalPrior, Prior
from gan_blocks.engine.base.checks import require_positive
from gan_blocks.engine.recipe.config import AdamFields
from gan_blocks.engine.recipe.latent import LatentFields, latent_prior

__all__ = [
    "adam_optimizers",
    "check_default_optimizers",
    "check_default_prior",
    "default_optimizers",
    "default_prior",
]


def default_prior(config: Any) -> Prior:
    """The prior that a Config names: by ``LatentFields``, or N(0, I) of its ``latent_dim``."""
    if isinstance(config, LatentFields):
        return latent_prior(config)
    require_positive(config, "latent_dim")
    return NormalPrior(config.latent_dim)


def check_default_prior(kind: type[Any]) -> None:
    """Check that :func:`default_prior` has what it needs of a Config's class.

    Raises:
        TypeError: If the Config has neither latent fields nor a ``latent_dim``.
    """
    if issubclass(kind, LatentFields) or "latent_dim" in (field.name for field in fields(kind)):
        return
    raise TypeError(
        "Recipe: the Config must inherit LatentFields or have a field `latent_dim`, or else `build_prior` must be "
        f"given, but got {kind.__name__} without either."
    )


def default_optimizers(
    config: Any, generator: nn.Module, discriminator: nn.Module
) -> tuple[optim.Optimizer, optim.Optimizer]:
    """:func:`adam_optimizers` for a Config that inherits ``AdamFields``."""
    return adam_optimizers(config, generator, discriminator)


def check_default_optimizers(kind: type[Any]) -> None:
    """Check that :func:`default_optimizers` has what it needs of a Config's class.

    Raises:
        TypeError: If the Config does not inherit ``AdamFields``.
    """
    if not issubclass(kind, AdamFields):
        raise TypeError(
            "Recipe: the Config must inherit AdamFields, or else `build_optimizers` must be given, "
            f"but got {kind.__name__} without it."
        )


def adam_optimizers(
    config: AdamFields, generator: nn.Module, discriminator: nn.Module
) -> tuple[optim.Adam, optim.Adam]:
    """Adam for G and for D as the Config says."""
    rates = ((generator, config.generator_lr), (discriminator, config.discriminator_lr))
    betas = (config.adam_beta1, config.adam_beta2)
    of_g, of_d = (optim.Adam(network.parameters(), lr=lr, betas=betas, fused=True) for network, lr in rates)
    return of_g, of_d
