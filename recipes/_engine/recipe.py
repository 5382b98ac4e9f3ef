"""What a training recipe offers to the engine and to the commands that work on any run."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from torch import Tensor, nn, optim

from gan_blocks import Prior
from recipes._engine.config_fields import TopKPlayers
from recipes._engine.errors import UserError

if TYPE_CHECKING:
    from recipes._engine.batches import StepBatches
    from recipes._engine.state import TrainingState

__all__ = ["Recipe", "RecipeConfig", "choose_preset", "config_from_json", "config_to_json", "load_recipe"]


class RecipeConfig(Protocol):
    """The fields that the engine reads of every recipe's Config, which is a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def data(self) -> str: ...
    @property
    def resolution(self) -> int: ...
    @property
    def image_channels(self) -> int: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def mirror(self) -> bool: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def discriminator_steps(self) -> int: ...
    @property
    def planned_steps(self) -> int: ...
    @property
    def top_k_gamma(self) -> float: ...
    @property
    def top_k_floor(self) -> float: ...
    @property
    def top_k_decay_images(self) -> int: ...
    @property
    def top_k_players(self) -> TopKPlayers: ...
    @property
    def ema_decay(self) -> float: ...
    @property
    def ema_start(self) -> int: ...
    @property
    def standing_batches(self) -> int: ...
    @property
    def seed(self) -> int: ...
    def batch_size_at(self, step: int) -> int: ...
    def all_batch_sizes(self) -> tuple[int, ...]: ...
    def images_before(self, step: int) -> int: ...


class Recipe(Protocol):
    """A training recipe's module."""

    __name__: str
    __doc__: str | None
    Config: Callable[..., RecipeConfig]
    PRESETS: Mapping[str, Callable[[], RecipeConfig]]

    def build_generator(self, config: Any) -> nn.Module: ...
    def build_discriminator(self, config: Any) -> nn.Module: ...
    def build_prior(self, config: Any) -> Prior: ...
    def build_optimizers(
        self, config: Any, generator: nn.Module, discriminator: nn.Module
    ) -> tuple[optim.Optimizer, optim.Optimizer]: ...
    def train_step(self, state: "TrainingState", batches: "StepBatches", config: Any) -> dict[str, Tensor]: ...


def load_recipe(name: str) -> Recipe:
    """Import ``recipes.NAME``.

    Raises:
        UserError: If there is no such training recipe.
    """
    try:
        module: ModuleType = importlib.import_module(f"recipes.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"recipes.{name}":
            raise
        raise UserError(f"there is no recipe named {name}.") from None
    if not hasattr(module, "PRESETS"):
        raise UserError(f"recipes.{name} is a command, not a training recipe.")
    return cast(Recipe, module)


def choose_preset(recipe: Recipe, asked: str | None) -> str:
    """The name of the preset asked for, or of the recipe's first.

    Raises:
        UserError: If the recipe has no preset of that name.
    """
    preset = next(iter(recipe.PRESETS)) if asked is None else asked
    if preset not in recipe.PRESETS:
        raise UserError(f"--preset must be one of {', '.join(recipe.PRESETS)}, but got {preset}.")
    return preset


def config_to_json(config: RecipeConfig) -> dict[str, Any]:
    """A Config as JSON values: tuples become lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}


def config_from_json(recipe: Recipe, values: Mapping[str, Any]) -> RecipeConfig:
    """The Config that :func:`config_to_json` wrote down.

    A field that it lacks is younger than it and takes the Config's default; so the default of a new field has to mean
    what was done before there was the field.

    Raises:
        UserError: If there are unknown fields, as when another version of the recipe wrote them.
    """
    default = next(iter(recipe.PRESETS.values()))()
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(default)})
    if unknown:
        raise UserError(f"the saved Config fits another version of {recipe.__name__}: fields {', '.join(unknown)}.")
    return recipe.Config(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
