"""A small evaluation while a run trains: does D remember its images, and how far away are samples?

Nothing that the training depends on changes: neither a state nor a stream of random numbers.

Tested in ``tests/engine/training/test_evaluator.py``.
"""

from pathlib import Path

import torch
from torch import nn

from gan_blocks import Prior
from gan_blocks.engine.base.eval_mode import eval_mode
from gan_blocks.engine.base.randomness import random_stream, seeded_noise
from gan_blocks.engine.data.held_out import selected_images
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.evaluation.features.cache import Cache
from gan_blocks.engine.evaluation.features.choice import CLASSIFIER
from gan_blocks.engine.evaluation.features.sets import LEAST
from gan_blocks.engine.evaluation.memorization import measure_memorization
from gan_blocks.engine.evaluation.real_side import RealSide
from gan_blocks.engine.evaluation.scores.frechet import frechet_score
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.sampling.samples import draw_latents, even_labels, generate
from gan_blocks.engine.sampling.trained import critic_of

__all__ = ["Evaluator"]

SAMPLES = 500
SHOWN = 1000  # images of each kind that D is asked of
COMPARED = 5000  # real images that the classifier learns, and samples are compared with


class Evaluator:
    """Compares samples with the images of a run.

    Args:
        training: The images that it is trained on, none of them mirrored.
        held_out: Those kept from it, if some are.
        config: The Config.
        folder: Of the run, which keeps the classifier and its features.
    """

    def __init__(self, training: ImageSet, held_out: ImageSet | None, config: TrainingConfig, folder: Path) -> None:
        self._config = config
        some, others = _some(training, config.seed), None if held_out is None else _some(held_out, config.seed)
        classified = _can_be_classified(some) and (others is None or len(others) >= LEAST)
        self._side = RealSide(
            some,
            others,
            some.num_classes,
            config.seed,
            Cache(folder / "features" if classified else None),
            features=CLASSIFIER if classified else None,
        )

    def measure(self, generator: nn.Module, discriminator: nn.Module, prior: Prior) -> dict[str, float]:
        """What to log: shares of images that D calls real, and the distance beside that of other real images.

        Nothing, as long as the networks grow: samples are smaller than the images.

        Args:
            generator: The averaged G, ready to sample.
            discriminator: D as it is being trained.
            prior: What z is drawn from.
        """
        config, side = self._config, self._side
        classes = side.real.labels.unique().tolist()  # others have no real images to compare with
        count = max(SAMPLES, 2 * len(classes))
        labels = even_labels(count, classes)
        # Some layers make noise in every mode.
        noise = seeded_noise(config.seed, "evaluation", device=next(discriminator.parameters()).device)
        with noise, eval_mode(discriminator):
            images = generate(generator, draw_latents(prior, count, seed=config.seed), labels)
            if images.shape[-1] < config.resolution or not images.isfinite().all():
                return {}  # of what is not finite the next losses tell
            samples = side.samples(images, labels)
            shares = measure_memorization(critic_of(discriminator, seed=config.seed), samples, images=SHOWN)
        found = {f"called_real_{name}": share[0] for name, share in vars(shares).items() if share is not None}
        if samples.features is not None:
            score = frechet_score(samples.features)
            found |= {"frechet_distance": score.value, "frechet_distance_real": score.floor or 0.0}
        return found


def _some(images: ImageSet, seed: int) -> ImageSet:
    """So many that an evaluation takes seconds, chosen by the seed."""
    order = torch.randperm(len(images), generator=random_stream(seed, "evaluated images"))
    return images if len(images) <= COMPARED else selected_images(images, order[:COMPARED].sort().values)


def _can_be_classified(images: ImageSet) -> bool:
    sizes = images.labels.unique(return_counts=True)[1]
    return len(sizes) > 1 and int(sizes.max()) > 1 and len(images) >= 2 * LEAST
