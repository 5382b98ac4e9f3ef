"""What a training says: of its networks and data when it starts, and of losses that are too large.

Tested in ``tests/engine/training/test_loop.py``.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.record import DataRecord
from gan_blocks.engine.recipe.state import TrainingState

__all__ = ["large_losses", "opening_words"]

LARGE_LOSS = 1e4


def opening_words(
    state: TrainingState, images: ImageSet, held_out: ImageSet | None, data: DataRecord, config: Any, step: int
) -> Iterator[str]:
    """The lines at the start, of a training that stands at ``step``."""
    yield from images.notes
    if classes := data.listed_classes():
        yield classes
    sizes = [sum(p.numel() for p in net.parameters()) for net in (state.generator, state.discriminator)]
    yield f"G has {sizes[0]:,} parameters, D {sizes[1]:,}; {len(images):,} images of {config.data}."
    if held_out is not None:
        yield f"{len(held_out):,} more images are held out."
    batch = config.batch_size_at(step + 1)
    if batch > len(images):
        yield f"A batch of {batch:,} shows each image {batch / len(images):.3g} times; --batch-size makes it smaller."


def large_losses(values: Mapping[str, float]) -> str:
    """Names and values of the losses that are far beyond what scores of images give; empty if there are none."""
    terms = {name: value for name, value in values.items() if name.startswith("loss_") or "penalty" in name}
    return ", ".join(f"{name} {value:.3g}" for name, value in terms.items() if abs(value) > LARGE_LOSS)
