"""Fields that the Configs of several recipes share, as frozen dataclasses to inherit from, with their checks.

A recipe's Config inherits the groups that its system has and adds its networks. The defaults are those of the small
presets; a preset states what it needs otherwise.

Tested in ``tests/engine/recipe/test_recipe.py``.
"""

import dataclasses
import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from gan_blocks.engine.base.checks import (
    Fields,
    broken_rule,
    require,
    require_at_least,
    require_positive,
    require_within,
    shortened,
)
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.config import ImageFields

__all__ = [
    "AdamFields",
    "TopKFields",
    "TrainingConfig",
    "as_options",
    "check_config_saves",
    "config_from_json",
    "config_to_json",
]

ConfigT = TypeVar("ConfigT")

MOST_BATCHES = 1_000_000  # of standing statistics: a bound on the time that a typing error takes


@dataclass(frozen=True)
class AdamFields(Fields):
    """One Adam optimizer for each network."""

    help_group: ClassVar[str] = "optimization"

    generator_lr: float = 1.5e-3
    """Adam's learning rate for G."""
    discriminator_lr: float = 1e-3
    """Adam's learning rate for D."""
    adam_beta1: float = 0.0
    """Adam's decay rate of the mean of gradients."""
    adam_beta2: float = 0.999
    """Adam's decay rate of the mean of their squares."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_at_least(self, 0, "generator_lr", "discriminator_lr")  # a ramp may end at 0
        for beta in ("adam_beta1", "adam_beta2"):
            require(self, beta, 0 <= getattr(self, beta) < 1, "at least 0 and less than 1")


@dataclass(frozen=True)
class TopKFields(Fields):
    """Top-k training (Sinha et al. 2020)."""

    help_group: ClassVar[str] = "regularizers"
    moved_fields: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "recipes.studies.top_k_players": {"top_k_players": "generator"}
    }

    top_k_gamma: float = 1.0
    """G learns from the k samples that D scores best; k falls by this factor each epoch; 1: from all."""
    top_k_floor: float = 0.5
    """Smallest k: share of the batch, or number above 1."""
    top_k_decay_images: int = 0
    """Real images between two decays of k; 0: an epoch."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require(self, "top_k_gamma", 0 < self.top_k_gamma <= 1, "greater than 0 and at most 1")
        require_at_least(self, 0, "top_k_decay_images")


@dataclass(frozen=True)
class TrainingConfig(TopKFields, ImageFields):
    """What every Config says: the images, and the course of a training: batches, updates, averaging, length."""

    help_group: ClassVar[str] = "optimization"

    batch_size: int = 16
    """Images in a batch, over all micro-batches."""
    discriminator_steps: int = 2
    """Updates of D for each update of G.

    BigGAN's paper found 2 best for ImageNet, of 1 to 6; with 1, digits of a class look alike.
    """
    ema_decay: float = 0.98
    """Decay of G's average, which samples are drawn from."""
    ema_rampup: float = 0.0
    """Its half-life is at most this share of the steps.

    Of those so far, so that a young average does not lag behind G; 0: there is no such limit.
    """
    ema_start: int = 100
    """Steps during which the average is a copy of G."""
    standing_batches: int = 50
    """Batches for the BatchNorm statistics of samples."""
    planned_steps: int = 1500
    """Length of the run, in updates of G."""
    seed: int = 0
    """Seed of all randomness, together with the step."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "batch_size", "discriminator_steps", "standing_batches", "planned_steps")
        require(self, "standing_batches", self.standing_batches <= MOST_BATCHES, f"at most {MOST_BATCHES:,}")
        floor, most = self.top_k_floor, self._largest_batch()
        whole = float(floor).is_integer() and 1 < floor <= most
        rule = f"a share greater than 0 and at most 1, or a whole number up to the batch of {most}"
        require(self, "top_k_floor", 0 < floor <= 1 or whole, rule)
        require_within(self, 0, 1, "ema_decay", "ema_rampup")
        require_within(self, 0, 2**63 - 1, "ema_start", "seed")

    def at(self, images: int) -> Self:  # noqa: ARG002
        """The Config of an update after so many real images: a schedule is what a recipe overrides this with.

        Rates and betas of the optimizers, coefficients, ``ema_decay`` and fields of the recipe's own may change; what
        says how long a training is and what its batches hold may not. It is a function of the saved Config and of
        ``images`` alone, so that a resumed run goes on in the middle of a ramp. The ramps of ``gan_blocks`` help::

            def at(self, images: int) -> Self:
                return replace(self, generator_lr=cosine_ramp(images, 1_000_000, start=2e-4, end=5e-5))
        """
        return self

    def batch_size_at(self, step: int) -> int:  # noqa: ARG002
        """Images in a batch at a step, counted from 1; it may change in a network that grows."""
        return self.batch_size

    def _largest_batch(self) -> int:
        """The most samples that top-k may learn from at least; asked before a recipe's own fields are checked."""
        return self.batch_size

    def all_batch_sizes(self) -> tuple[int, ...]:
        """The sizes of all batches that a run may have."""
        return (self.batch_size,)

    def check_part(self, size: int) -> str | None:  # noqa: ARG002
        """What rule a micro-batch of a process breaks by its size, for networks that cannot take every one; or None."""
        return None

    def images_before(self, step: int) -> int:
        """Real images that D has seen before a step, counted from 1."""
        return (step - 1) * self.discriminator_steps * self.batch_size_at(step)


def as_options(values: Mapping[str, Any]) -> str:
    """JSON values of a Config as they are typed.

    Example:
        >>> as_options({"batch_size": 8, "widths": [4, 2], "stages": [[4, 16], [8, 32]]})
        '--batch-size 8 --widths 4 2 --stages 4 16 8 32'
    """
    words = []
    for name, value in values.items():
        if isinstance(value, dict):  # the fields of a dataclass have no prefix
            words.append(as_options(value))
        else:
            words += [f"--{name.replace('_', '-')}", *map(str, _entries(value))]
    return " ".join(words)


def _entries(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for entry in value:
            yield from _entries(entry)
    else:
        yield value


def config_to_json(config: Any) -> dict[str, Any]:
    """The fields of a Config as JSON values: tuples become lists, paths text, and dataclasses objects."""
    return {field.name: _to_json(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init}


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return config_to_json(value)
    if isinstance(value, tuple | list):
        return [_to_json(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def config_from_json(kind: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """A Config of a class from what :func:`config_to_json` gave; what is missing there takes the field's default.

    Args:
        kind: The class.
        values: The JSON values.

    Raises:
        UserError: If there are values of no field, or one does not fit its field.
    """
    known = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    if unknown := {name: values[name] for name in sorted(set(values) - set(known))}:
        rule = f"which this version of {kind.__module__} does not know; the version that wrote it still reads it"
        raise UserError(f"the saved Config has {as_options(unknown)}, {rule}.")
    for name, field in known.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"the saved Config lacks --{name.replace('_', '-')}, which has no default.")
    hints = get_type_hints(kind)
    return kind(**{name: _from_json(value, hints[name]) for name, value in values.items()})


def _from_json(value: Any, annotation: Any) -> Any:
    """The value that an annotation asks for; one that does not fit it stays as it is, for the checks of the Config."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        choices = [] if value is None else [choice for choice in args if choice is not type(None)]
        read = ((_from_json(value, choice), choice) for choice in choices)
        return next((one for one, choice in read if broken_rule(one, choice) is None), value)
    if isinstance(value, list):
        alike = args[-1:] == (...,) or (origin is list and args)
        kinds = repeat(args[0]) if alike else chain(args, repeat(Any))
        entries = [_from_json(entry, kind) for entry, kind in zip(value, kinds, strict=False)]
        return entries if list in (annotation, origin) else tuple(entries)
    if annotation is Path and isinstance(value, str):
        return Path(value)
    if dataclasses.is_dataclass(annotation) and isinstance(value, dict):
        return config_from_json(annotation, value)  # type: ignore[arg-type]
    return value


def check_config_saves(config: Any) -> None:
    """Refuse a Config that a run could not be continued with, because what is saved of it reads as another.

    Raises:
        UserError: The first such field is named.
    """
    hints = get_type_hints(type(config))
    for name, saved in config_to_json(config).items():
        value = getattr(config, name)
        if not _is_read_back(value, saved, hints[name]):
            remedy = "Use numbers, flags, text, paths, None, and tuples, lists or dataclasses of these, annotated so"
            got = shortened(repr(value))
            raise UserError(f"--{name.replace('_', '-')} cannot be read back from a saved run: got {got}. {remedy}.")


def _is_read_back(value: Any, saved: Any, annotation: Any) -> bool:
    try:
        found = _from_json(json.loads(json.dumps(saved)), annotation)
    except (TypeError, ValueError, UserError):
        return False
    return _is_same(found, value)


def _is_same(found: Any, value: Any) -> bool:
    """Whether two values are equal and of one type, and so are all parts of them: a tuple equals one with names."""
    if type(found) is not type(value):
        return False
    if isinstance(value, tuple | list):
        return len(found) == len(value) and all(map(_is_same, found, value))
    if dataclasses.is_dataclass(value):
        return all(_is_same(getattr(found, one.name), getattr(value, one.name)) for one in dataclasses.fields(value))
    return bool(found == value) or repr(found) == repr(value)  # NaN is not equal to itself
