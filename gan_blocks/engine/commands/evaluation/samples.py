"""What ``gan-blocks evaluate`` compares: samples of a run, or images that are given, and the real ones beside them.

Tested in ``tests/engine/commands/test_evaluate.py``.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_blocks import Rows
from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.devices import torch_device, use_threads
from gan_blocks.engine.base.memory import check_disk_space
from gan_blocks.engine.base.parallel.processes import current_world, decided_by_main, require_same
from gan_blocks.engine.commands.evaluation.images import load_given_images
from gan_blocks.engine.commands.evaluation.options import Options
from gan_blocks.engine.data.config import ImageFields
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.evaluation.features.cache import Cache
from gan_blocks.engine.evaluation.image_rows import RealImages, StoredImages
from gan_blocks.engine.evaluation.memorization import MEMORIZATION, Critic
from gan_blocks.engine.evaluation.metric import Plan
from gan_blocks.engine.evaluation.metrics import METRICS
from gan_blocks.engine.evaluation.quality import check_same_size
from gan_blocks.engine.evaluation.real_side import RealSide
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.sampling.samples import draw_samples, drawn_shape, even_labels, sample_batches, truncated
from gan_blocks.engine.sampling.trained import TrainedGenerator, load_critic, load_trained

__all__ = ["Asked", "Drawn", "draw"]

DEFAULT_NUM = 1000
IN_MEMORY = 2**27  # bytes of samples; more are kept in a temporary file


Asked = Mapping[str, Fields]
"""Options of metrics, by the names of the table; the others have their defaults."""


class Drawn(NamedTuple):
    """The samples of a run, or images that were given, and the real images to compare them with."""

    config: ImageFields
    source: Path | None
    """The file that the weights came from; None where images were given."""
    images: Rows
    labels: Tensor
    side: RealSide | None
    """The real images; None in other processes than the main one."""
    critic: Critic | None = None
    """D of the run, where it is asked."""
    recipe: Recipe[Any] | None = None
    """That made the run; None for images from elsewhere."""


def draw(options: Options, asked: Asked, known: RealSide | None = None) -> Drawn:
    """Draw the samples once all that can be checked has been; several processes generate a part each.

    Args:
        options: What to evaluate, and how.
        asked: Options of metrics, by their names.
        known: The real images, where the same run was drawn from before.
    """
    speaks = current_world().is_main and known is None  # else it was said before
    for note in use_threads(options.threads):
        if speaks:
            print(note)
    if options.images is not None:
        return _given(options, asked)
    device = torch_device(options.device)
    trained = load_trained(
        run=options.run, weights=None, device=device, recipe=options.recipe, precision=options.precision
    )
    require_same("the file of the weights", str(trained.source))
    for note in trained.notes:
        if speaks:
            print(note)
    trained = truncated(trained, options.truncation, options.truncation_by)
    sides: list[RealSide] = [] if known is None else [known]
    critics: list[Critic] = []

    def load_and_check() -> tuple[int, list[int]]:
        if getattr(asked.get(MEMORIZATION.name), "memorization", 0):
            assert options.run is not None
            critics.append(load_critic(trained, options.run, device=device))
        if not sides:
            sides.append(_real_side(options, trained, device))
        real = sides[0].real
        classes = _classes_to_draw(trained, real)
        count = len(classes) or trained.config.num_classes
        num = max(DEFAULT_NUM, 2 * count) if options.num is None else options.num
        shape = drawn_shape(trained)
        check_same_size(shape, real.layout.shape)
        plan = Plan(trained.config, num, real, held_out=sides[0].held_out, features=options.features)
        _check(asked, plan)
        if num * _image_bytes(shape) > IN_MEMORY:
            check_disk_space("--num", num, _image_bytes(shape), Path(tempfile.gettempdir()))
        return num, classes

    num, classes = decided_by_main(load_and_check)
    images, labels = _draw_images(trained, num, classes, options.seed)
    side, critic = sides[0] if sides else None, critics[0] if critics else None
    return Drawn(trained.config, trained.source, images, labels, side, critic, trained.recipe)


def _check(asked: Asked, plan: Plan) -> None:
    for name, metric in METRICS.items():
        metric.check(asked.get(name) or metric.options(), plan)


def _real_side(options: Options, trained: TrainedGenerator, device: torch.device) -> RealSide:
    """The images of the run, and the network to look at them with."""
    real, held_out, notes = trained.load_split(options.data)
    for note in notes:
        print(note)
    return _side(options, real, held_out, trained.config.num_classes, device)


def _side(
    options: Options, real: ImageSet, held_out: ImageSet | None, num_classes: int, device: torch.device
) -> RealSide:
    default = options.run / "features" if options.run is not None and options.features is not None else None
    return RealSide.of(
        real,
        held_out,
        num_classes=num_classes,
        seed=options.seed,
        cache=Cache(options.cache or default),
        features=options.features,
        device=device,
    )


def _given(options: Options, asked: Asked) -> Drawn:
    """The images that --images and --against name, in the main process; nothing in the others."""
    drawn = [Drawn(ImageFields(), None, torch.empty(0), torch.empty(0), None)]

    def load_and_check() -> None:
        assert options.images is not None
        assert options.against is not None
        given = load_given_images(options.images, options.against, options.resolution)
        for note in given.notes:
            print(note)
        images = given.images
        _check(asked, Plan(given.config, len(images), given.real, given=images, features=options.features))
        side = _side(options, given.real, None, given.config.num_classes, torch_device(options.device))
        drawn[0] = Drawn(given.config, None, RealImages(images), images.labels, side)

    decided_by_main(load_and_check)
    return drawn[0]


def _classes_to_draw(trained: TrainedGenerator, real: ImageSet) -> list[int]:
    """The classes with real images to compare with, which is noted; none where these are all."""
    classes: list[int] = real.labels.unique().tolist()
    config = trained.config
    missing = sorted(set(range(config.num_classes)).difference(classes))
    if not missing:
        return []
    which = f"{len(missing):,} of {config.num_classes:,} classes, such as class {trained.name_of(missing[0])}"
    print(f"Left out, for want of real images: {which}.")
    return classes


def _draw_images(trained: TrainedGenerator, num: int, classes: Sequence[int], seed: int) -> tuple[Rows, Tensor]:
    """Samples, of which many are kept on the disk."""
    shape = drawn_shape(trained)
    if num * _image_bytes(shape) <= IN_MEMORY:
        some: dict[str, Any] = {"classes": classes} if classes else {}
        return draw_samples(trained, num, seed=seed, **some)
    labels = even_labels(num, classes or range(trained.config.num_classes))
    batches = sample_batches(trained, labels, seed=seed)
    if current_world().is_main:
        return StoredImages((num, *shape), batches), labels
    for _ in batches:  # their part of each
        pass
    return torch.empty(0, *shape), labels


def _image_bytes(shape: Sequence[int]) -> int:
    return 4 * math.prod(shape)
