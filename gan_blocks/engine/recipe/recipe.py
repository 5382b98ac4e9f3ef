"""A recipe as a value: what the engine needs to know to train a GAN, and all that it knows of it.

Tested in ``tests/engine/recipe/test_recipe.py``.
"""

import hashlib
import importlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor, nn, optim

from gan_blocks import Prior
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import as_seen_from_here
from gan_blocks.engine.recipe.batches import StepBatches
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.config_json import config_from_json, config_to_json
from gan_blocks.engine.recipe.defaults import (
    check_default_optimizers,
    check_default_prior,
    default_optimizers,
    default_prior,
)
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.runs.identity import RecipeIdentity

__all__ = ["Recipe"]

ConfigT = TypeVar("ConfigT", bound=TrainingConfig)


def _calling_module() -> str:
    """The module whose code makes a Recipe, also where it does so by ``dataclasses.replace``."""
    frame = sys._getframe()
    while frame.f_globals["__name__"] in (__name__, "dataclasses", "copy"):
        assert frame.f_back is not None
        frame = frame.f_back
    return str(frame.f_globals["__name__"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe(Generic[ConfigT]):
    """A system to train: its Config, presets, networks and training step.

    The module that makes one assigns it to a name, ``RECIPE`` as a rule; a run saves ``module:NAME`` with its weights.
    The module's docstring is the head of ``--help``. The module may lie anywhere: in a package or as a single file.

    Args:
        config: The Config's class, a frozen dataclass that inherits :class:`TrainingConfig`. Its fields hold what a run
            can save: numbers, text, paths, None, and tuples and dataclasses of these.
        presets: Functions that give a Config, by the names of ``--preset``; the first is the default.
        build_generator: G for a Config, with fresh weights from torch's global random state. It is called as
            ``generator(z, labels)`` and returns images ``(batch, image_channels, resolution, resolution)``.
        build_discriminator: The same for D, called as ``discriminator(images, labels)``; returns logits ``(batch,)``.
        train_step: One step: updates both players (:func:`update_discriminator`, :func:`update_generator`) and returns
            what to log, tensors of shape ``()`` by name. Names that begin with ``loss_`` are also shown and drawn.
        build_prior: What z is drawn from. By default what the Config's :class:`LatentFields` say, or N(0, I) where it
            has only a ``latent_dim``.
        build_optimizers: The optimizers of G and of D. By default Adam as the Config's :class:`AdamFields` say.
        module: Name of the module that the recipe belongs to; by default the one that makes it.

    Raises:
        TypeError: If the Config does not inherit ``TrainingConfig``, or lacks what a default needs.
        ValueError: If there is no preset.

    Example:
        A whole file is in the tutorial "A GAN of your own"; it ends with

        .. code-block:: python

            RECIPE = Recipe(
                config=Config,
                presets={"digits": Config},
                build_generator=Generator,
                build_discriminator=Discriminator,
                train_step=train_step,
            )

            if __name__ == "__main__":
                raise SystemExit(RECIPE.main())
    """

    config: type[ConfigT]
    presets: Mapping[str, Callable[[], ConfigT]]
    build_generator: Callable[[ConfigT], nn.Module]
    build_discriminator: Callable[[ConfigT], nn.Module]
    train_step: Callable[[TrainingState, StepBatches, ConfigT], dict[str, Tensor]]
    build_prior: Callable[[ConfigT], Prior] = default_prior
    build_optimizers: Callable[[ConfigT, nn.Module, nn.Module], tuple[optim.Optimizer, optim.Optimizer]] = (
        default_optimizers
    )
    module: str = field(default_factory=_calling_module)

    def __post_init__(self) -> None:
        """Check what can be checked before there is a Config."""
        if not (isinstance(self.config, type) and issubclass(self.config, TrainingConfig)):
            raise TypeError(f"Recipe: `config` must be a class that inherits TrainingConfig, but got {self.config!r}.")
        if not self.presets:
            raise ValueError("Recipe: `presets` must have one entry or more, but got none.")
        for name, make in self.presets.items():
            if not callable(make):
                raise TypeError(f"Recipe: `presets` must be functions that return a Config, but {name} is a {make!r}.")
        if "__annotations__" in vars(self.config) and "__dataclass_params__" not in vars(self.config):
            raise TypeError(
                f"Recipe: `config` must be a dataclass; {self.config.__name__} lacks @dataclass(frozen=True)."
            )
        options = {"preset", "help", *(option.name for option in fields(RunOptions))}
        if taken := options & {one.name for one in fields(self.config)}:
            raise TypeError(f"Recipe: no field of a Config may be called {min(taken)}: the engine has such an option.")
        if self.build_prior is default_prior:
            check_default_prior(self.config)
        if self.build_optimizers is default_optimizers:
            check_default_optimizers(self.config)

    @cached_property
    def identity(self) -> RecipeIdentity:
        """What a run saves of the recipe.

        Raises:
            RuntimeError: If the module has no name for this value.
        """
        module = sys.modules[self.module]
        names = [name for name, value in vars(module).items() if value is self]
        if not names:
            raise RuntimeError(f"Recipe: the value must have a name in {self.module}, as in RECIPE = Recipe(...).")
        source = getattr(module, "__file__", None)
        spec = getattr(module, "__spec__", None)
        name = self.module
        if name == "__main__":  # of `python -m NAME` the spec knows the name, of `python FILE` the file
            name = spec.name if spec is not None else Path(source or "unnamed").stem
        reference = f"{name}:{names[0]}"
        if "." in name or source is None:
            return RecipeIdentity(reference)
        path = Path(source).resolve()
        return RecipeIdentity(reference, str(path), hashlib.sha256(path.read_bytes()).hexdigest())

    @property
    def name(self) -> str:
        """The short name, as in the names of run folders."""
        return self.identity.name

    @property
    def description(self) -> str:
        """The docstring of the recipe's module."""
        return sys.modules[self.module].__doc__ or ""

    @property
    def command(self) -> str:
        """How this recipe's command line is typed."""
        identity = self.identity
        module = identity.reference.partition(":")[0]
        if identity.file is None:
            return f"python -m {module}"
        return f"python {shlex.quote(str(as_seen_from_here(Path(identity.file))))}"

    def main(self, argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
        """Train, or continue a run: the command line of this recipe.

        Args:
            argv: Its words; None: those of the process.
            prog: How it was started, as its help and its last lines say it; None: as a module or file. Empty: as a part
                of another command, which says itself what to do next.

        Returns:
            0 when it is done, 2 after an error that the user can fix, 128 + N after signal N.
        """
        # The loop is built on this contract, so it is only looked up when a training begins.
        loop = importlib.import_module("gan_blocks.engine.training.loop")
        status: int = loop.train(self, argv, prog=self.command if prog is None else prog)
        return status

    def choose_preset(self, asked: str | None) -> str:
        """The name of the preset asked for, or of the first.

        Raises:
            UserError: If there is no preset of that name.
        """
        preset = next(iter(self.presets)) if asked is None else asked
        if preset not in self.presets:
            raise UserError(f"--preset must be one of {', '.join(self.presets)}, but got {preset}.")
        made = self.presets[preset]()
        if not isinstance(made, self.config):
            kind = type(made).__name__
            raise UserError(f"the preset {preset} must return a {self.config.__name__}, but returned {kind}.")
        return preset

    def preset_values(self, name: str) -> dict[str, Any] | None:
        """The Config of a preset as JSON values; None if there is none of this name, as for converted weights."""
        return config_to_json(self.presets[name]()) if name in self.presets else None

    def config_from_json(self, values: Mapping[str, Any]) -> ConfigT:
        """The Config that a run saved as JSON values.

        A field that it lacks is younger than it and takes the Config's default; so the default of a new field has to
        mean what was done before there was the field.

        Raises:
            UserError: If there are unknown fields, as when another version of the recipe wrote them, or a value does
                not fit its field.
        """
        return config_from_json(self.config, self._without_moved_fields(values))

    def _without_moved_fields(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values without those of fields that are in another recipe now; it is named if they are not its default."""
        kept, ours = dict(values), {one.name for one in fields(self.config)}
        for kind in self.config.__mro__:
            for module, moved in vars(kind).get("moved_fields", {}).items():
                for name in moved.keys() & kept.keys() - ours:
                    value = kept.pop(name)
                    if value != moved[name]:
                        option = f"--{name.replace('_', '-')} {value}"
                        rule = f"an option that moved to python -m {module}"
                        raise UserError(
                            f"the saved Config has {option}, {rule}; the version that made the run still reads it."
                        )
        return kept
