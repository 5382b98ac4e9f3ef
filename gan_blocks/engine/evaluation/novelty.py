"""Whether generated images are new: how far they are from the training images, beside other real images.

Tested in ``tests/engine/evaluation/test_quality.py``.
"""

import torch

from gan_blocks import Rows
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation.distances import nearest_distances
from gan_blocks.engine.evaluation.features.cache import MEASURED_ANEW, RealFigures
from gan_blocks.engine.evaluation.image_rows import SelectedImages

__all__ = ["novelty_ratio"]

MAX_COMPARED = 2000  # images of each kind whose nearest training image is looked for


def novelty_ratio(
    generated: Rows,
    training: Rows,
    held_out: Rows | None = None,
    *,
    seed: int = 0,
    figures: RealFigures = MEASURED_ANEW,
) -> float:
    r"""Mean distance from a generated image to its nearest training image, over the same for real images.

    .. math:: \frac{\tfrac{1}{n} \sum_i \min_j \lVert g_i - t_j \rVert_2}
       {\tfrac{1}{m} \sum_i \min_j \lVert h_i - t_j \rVert_2}

    ``training`` must hold every image that the generator saw: a copy of an image that is missing here would pass as
    new. Most generators saw all there is, and then nothing is left to be ``held_out``. Without it, every training
    image takes its turn: its distance to the nearest *other* training image is what an image of the same
    distribution has, one image short of the whole set. (Setting a fifth of the training images aside instead would
    let a generator that recites its training set score 0.2.) More than 2,000 training images take that turn evenly
    spaced in their order; of more than 2,000 generated or held-out images as many are chosen at random.

    Args:
        generated: Generated images, of shape ``(images, ...)``.
        training: All images that the generator was trained on.
        held_out: Real images that it was not trained on, if there are any.
        seed: Seed of the choice, where there are more than 2,000.
        figures: Keeps what is found of the real images alone.

    Returns:
        0 for copies of training images; 1 for new images of the same distribution. Far more than 1 means unlike any
        real image; less than 1 may also mean blurred, because an average lies nearer to everything.

    Raises:
        UserError: If there are fewer than two training images, or the real images have distance 0, each a copy.
    """
    if len(training) < 2:
        raise UserError(f"Novelty needs two or more real images, but there are {len(training)}.")
    baseline: float = figures("newness", (seed, MAX_COMPARED), lambda: _newness_of_real(training, held_out, seed))
    if baseline == 0:
        raise UserError("Every real image occurs twice, so novelty cannot be measured: remove the duplicates.")
    return _newness(generated, training, seed) / baseline


def _newness(images: Rows, training: Rows, seed: int) -> float:
    """Mean distance to the nearest training image."""
    if len(images) > MAX_COMPARED:
        order = torch.randperm(len(images), generator=random_stream(seed, "novelty"))
        images = SelectedImages(images, order[:MAX_COMPARED])
    return nearest_distances(images, training).mean().item()


def _newness_of_real(training: Rows, held_out: Rows | None, seed: int) -> float:
    if held_out is not None:
        return _newness(held_out, training, seed)
    turns = torch.arange(0, len(training), -(-len(training) // MAX_COMPARED))
    return nearest_distances(SelectedImages(training, turns), training, excluded=turns).mean().item()
