from dataclasses import dataclass

import pytest

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


def test_what_the_defaults_need_is_said_when_the_recipe_is_made():
    with pytest.raises(TypeError, match=r"^Recipe: the Config must inherit LatentFields or have a field `latent_dim`"):
        recipe_of(config=Bare, presets={"bare": Bare})
    given = {"config": Bare, "presets": {"bare": Bare}, "build_prior": lambda config: NormalPrior(3)}
    with pytest.raises(TypeError, match=r"^Recipe: the Config must inherit AdamFields, or else `build_optimizers`"):
        recipe_of(**given)
    recipe_of(**given, build_optimizers=lambda config, generator, discriminator: ())
