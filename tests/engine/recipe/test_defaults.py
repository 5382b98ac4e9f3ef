from dataclasses import dataclass

import pytest
from torch import nn

from gan_blocks import NormalPrior
from gan_blocks.engine import TrainingConfig
from tests.engine.recipe.test_recipe import RECIPE, Config, network, recipe_of


def test_prior_and_optimizers_have_defaults():
    prior = RECIPE.build_prior(Config())
    assert isinstance(prior, NormalPrior)
    assert prior.dim == 6
    of_g, of_d = RECIPE.build_optimizers(
        Config(generator_lr=0.25, discriminator_lr=0.5), network(Config()), network(Config())
    )
    assert [of_g.param_groups[0]["lr"], of_d.param_groups[0]["lr"]] == [0.25, 0.5]


@dataclass(frozen=True)
class Bare(TrainingConfig):
    pass


def test_what_the_defaults_need_is_said():
    bare = recipe_of(config=Bare, presets={"bare": Bare})
    with pytest.raises(TypeError, match=r"^Recipe: the Config must inherit LatentFields or have a field `latent_dim`"):
        bare.build_prior(Bare())
    with pytest.raises(TypeError, match=r"^Recipe: the Config must inherit AdamFields, or else `build_optimizers`"):
        bare.build_optimizers(Bare(), nn.Linear(1, 1), nn.Linear(1, 1))
