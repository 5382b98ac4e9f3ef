"""A trained generator, found by the run that holds it or by a weights file alone.

Tested in ``tests/engine/sampling/test_trained.py`` and ``tests/engine/commands/test_sample.py``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import torch
from torch import Tensor, nn

from gan_blocks import Prior, TruncatedBatchNormStatistics
from gan_blocks.engine.base.checks import perhaps_meant
from gan_blocks.engine.base.devices import notes_on_precision
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.memory import keep_freed_memory, within_memory
from gan_blocks.engine.base.randomness import seeded_construction, seeded_noise
from gan_blocks.engine.data.held_out import split_held_out
from gan_blocks.engine.data.image_set import ImageSet, class_name
from gan_blocks.engine.data.loading import load_images_of
from gan_blocks.engine.data.record import DataRecord, changes, record_of
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.registry import find_recipe, recipe_of
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.identity import RecipeIdentity
from gan_blocks.engine.runs.weights import load_weights, read_weights
from gan_blocks.engine.sampling.converted import read_tables
from gan_blocks.engine.sampling.inference import SamplingPrecision

__all__ = ["TrainedGenerator", "critic_of", "load_critic", "load_trained"]


@dataclass(frozen=True)
class TrainedGenerator:
    """The averaged generator of a run with what it takes to sample from it."""

    recipe: Recipe[Any]
    average: nn.Module
    prior: Prior
    config: TrainingConfig
    source: Path
    """The file that the weights came from."""
    notes: tuple[str, ...]
    """What to tell the user, such as a damaged checkpoint that was passed over, or a precision that is slow here."""
    converted: bool = False
    """Whether it comes from another layout, and is sampled with its own singular vectors and statistics."""
    tables: TruncatedBatchNormStatistics | None = None
    """The statistics for each truncation, where it was converted with some."""
    class_names: tuple[str, ...] = ()
    """Of the data that it has learned from; the networks may have more classes, which have numbers alone."""
    record: DataRecord | None = None
    """What was written down of these data, where it comes from a run that has it."""
    precision: SamplingPrecision = "fp32"
    """What it is sampled in."""
    step: int | None = None
    """Of the checkpoint, where it comes from a run."""

    def name_of(self, label: int) -> str:
        """What to call a class."""
        return class_name(self.class_names, label)

    def label_of(self, word: str | int) -> int:
        """The number of a class that is asked for by its name or, where no class is called so, by its number.

        Raises:
            UserError: If there is no such class.
        """
        # A Mac takes letters with their accents apart, a keyboard does not.
        names = [normalize("NFC", name) for name in self.class_names]
        if (asked := normalize("NFC", str(word))) in names:
            return names.index(asked)
        num_classes = self.config.num_classes
        rule = f"{'names of classes or ' if names else ''}numbers from 0 to {num_classes - 1}"
        try:
            label = int(word)
        except ValueError:
            listed = f"{', '.join(self.class_names[:10])}{', ...' if len(names) > 10 else ''}"
            perhaps = perhaps_meant(asked, names) or (f" The names are {listed}." if names else "")
            raise UserError(f"--classes must be {rule}, but got {word}.{perhaps}") from None
        if not 0 <= label < num_classes:
            raise UserError(f"--classes must be {rule}, but got {label}.")
        return label

    def load_images(self, data: str | None = None) -> tuple[ImageSet, list[str]]:
        """The images that it has learned from, and what the user should know of them, a line each.

        What was converted or skipped is told where the training has not: of data given here, and of a converted run.

        Args:
            data: Where to take them from; None: where they were found last.

        Raises:
            UserError: If they cannot be read.
        """
        training, _, notes = self.load_split(data)
        return training, notes

    def load_split(self, data: str | None = None) -> tuple[ImageSet, ImageSet | None, list[str]]:
        """The same with those that were kept from its training between them, if some were; see :meth:`load_images`."""
        place = data or (self.config.data if self.record is None else self.record.source)
        images = load_images_of(self.config, place)
        training, held_out = split_held_out(images, self.config.hold_out, seed=self.config.seed)
        notes = [*images.notes] if data is not None or self.record is None else []
        if self.record is not None:
            problem = changes(self.record, record_of(images, place, seed=self.config.seed))
            notes += [f"{place} is not what the run has learned from: {problem}."] if problem else []
        return training, held_out, notes


def load_trained(
    *,
    run: Path | None,
    weights: Path | None,
    device: torch.device,
    recipe: Recipe[Any] | str | None = None,
    precision: SamplingPrecision = "fp32",
) -> TrainedGenerator:
    """Load the moving average of G from the newest sound checkpoint of a run, or from one weights file.

    Args:
        run: Folder of a run.
        weights: A weights file, instead of a run.
        device: Where the generator goes.
        recipe: The recipe that made them, or the file or module that holds it, where it is none that is registered.
        precision: What it is sampled in.

    Raises:
        UserError: If not exactly one of them is given, it is not there, or it does not fit its recipe.
    """
    if run is not None and weights is not None:
        raise UserError("give one of --run RUN and --weights FILE.")
    notes = notes_on_precision(precision, device)
    record, step = None, None
    if run is not None:
        folder = RunFolder.open(run)
        record = None if (saved := folder.data()) is None else DataRecord.from_dict(saved)
        checkpoint = folder.newest_checkpoint(only=("ema",))
        tensors, metadata, notes = checkpoint.tensors["ema"], checkpoint.metadata, (*notes, *checkpoint.notes)
        weights, step = checkpoint.path / "ema.safetensors", checkpoint.step
    elif weights is not None:
        tensors, metadata = read_weights(weights)
    else:
        raise UserError("give one of --run RUN and --weights FILE.")
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    made_by = RecipeIdentity.from_dict(metadata)
    recipe = recipe_of(made_by, run or weights, recipe)
    if change := recipe.identity.changed_since(made_by):
        notes = (*notes, change)
    config = recipe.config_from_json(metadata["config"])
    keep_freed_memory()
    with within_memory(f"the networks of {run or weights}", copies=1), seeded_construction(config.seed, "generator"):
        generator = recipe.build_generator(config).to(device)
    load_weights(generator, tensors, str(weights))
    average, prior = generator.eval().requires_grad_(False), recipe.build_prior(config)
    converted = "converted" in metadata
    return TrainedGenerator(
        recipe,
        average,
        prior,
        config,
        weights,
        notes,
        converted,
        tables=read_tables(weights) if converted else None,
        class_names=_class_names(metadata, record),
        record=record,
        precision=precision,
        step=step,
    )


def load_critic(trained: TrainedGenerator, run: Path, *, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """D of the checkpoint that a generator is from, as a function from images in [-1, 1] and labels to CPU logits.

    Args:
        trained: The generator.
        run: The run that it was loaded from.
        device: Where D goes.

    Raises:
        UserError: If the run has no D, or that of the generator's checkpoint is damaged.
    """
    checkpoint = RunFolder.open(run).newest_checkpoint(only=("discriminator",), step=trained.step)
    config = trained.config
    with within_memory(f"the networks of {run}", copies=1), seeded_construction(config.seed, "discriminator"):
        discriminator = trained.recipe.build_discriminator(config).to(device)
    load_weights(discriminator, checkpoint.tensors["discriminator"], str(checkpoint.path))
    return critic_of(discriminator.eval().requires_grad_(False), seed=config.seed)


def critic_of(discriminator: nn.Module, *, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """D as a function from images in [-1, 1] and labels, wherever they lie, to logits on the CPU, without gradients.

    Where layers make noise in every mode, it is the same in each call: a function of the seed.
    """
    reference = next(discriminator.parameters())

    @torch.no_grad()
    def logits(images: Tensor, labels: Tensor) -> Tensor:
        with seeded_noise(seed, "critic", device=reference.device):
            found: Tensor = discriminator(images.to(reference), labels.to(reference.device))
        return found.float().cpu()

    return logits


def _class_names(metadata: Mapping[str, Any], record: DataRecord | None) -> tuple[str, ...]:
    if record is not None:
        return record.class_names
    names = metadata.get("class_names")
    return tuple(map(str, names)) if isinstance(names, list) else ()
