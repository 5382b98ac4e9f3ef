"""A small evaluation while a run trains: does D remember its images, and how far away are samples?

Nothing that the training depends on changes: neither a state nor a stream of random numbers.

Tested in ``tests/engine/training/test_evaluator.py``.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from gan_blocks import Prior
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.data.held_out import selected_images
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.evaluation.features.cache import Cache
from gan_blocks.engine.evaluation.features.choice import CLASSIFIER
from gan_blocks.engine.evaluation.features.sets import LEAST
from gan_blocks.engine.evaluation.memorization import measure_memorization
from gan_blocks.engine.evaluation.metric import Samples
from gan_blocks.engine.evaluation.real_side import RealSide
from gan_blocks.engine.evaluation.scores.frechet import frechet_score
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.sampling.samples import draw_latents, even_labels, generate

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
        self._training, self._held_out = (_some(each, config.seed) for each in (training, held_out))
        assert self._training is not None
        self._side = RealSide(
            self._training,
            self._held_out,
            self._training.num_classes,
            config.seed,
            Cache(folder / "features"),
            features=CLASSIFIER if self._can_be_classified(self._training) else None,
        )

    def measure(self, generator: nn.Module, discriminator: nn.Module, prior: Prior) -> dict[str, float]:
        """What to log: shares of images that D calls real, and the distance beside that of other real images.

        Args:
            generator: The averaged G, ready to sample.
            discriminator: D as it is being trained.
            prior: What z is drawn from.
        """
        config, side = self._config, self._side
        count = max(SAMPLES, 2 * config.num_classes)
        labels = even_labels(count, range(config.num_classes))
        images = generate(generator, draw_latents(prior, count, seed=config.seed), labels).clamp_(-1, 1)
        if not images.isfinite().all():
            return {}  # the next losses tell of it
        samples = Samples(
            images,
            labels,
            side.images,
            side.real.labels,
            config.num_classes,
            config.seed,
            held_out=side.held_out_images,
            held_out_labels=None if side.held_out is None else side.held_out.labels,
        )
        was_training = discriminator.training
        discriminator.eval()
        try:
            with torch.random.fork_rng():  # some layers make noise in every mode
                shares = measure_memorization(_critic(discriminator), samples, images=SHOWN)
        finally:
            discriminator.train(was_training)
        found = {f"called_real_{name}": share[0] for name, share in vars(shares).items() if share is not None}
        sets = side.sets(images, labels)
        if sets is not None:
            score = frechet_score(sets)
            found |= {"frechet_distance": score.value, "frechet_distance_real": score.floor or 0.0}
        return found

    def _can_be_classified(self, images: ImageSet) -> bool:
        sizes = images.labels.unique(return_counts=True)[1]
        return len(sizes) > 1 and int(sizes.max()) > 1 and len(images) >= 2 * LEAST


def _some(images: ImageSet | None, seed: int) -> ImageSet | None:
    """So many that an evaluation takes seconds, chosen by the seed."""
    if images is None or len(images) <= COMPARED:
        return images
    order = torch.randperm(len(images), generator=random_stream(seed, "evaluated images"))
    return selected_images(images, order[:COMPARED].sort().values)


def _critic(discriminator: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    reference = next(discriminator.parameters())

    @torch.no_grad()
    def logits(images: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = discriminator(images.to(reference), labels.to(reference.device))
        return found

    return logits
