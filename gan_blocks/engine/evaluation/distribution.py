"""Real images that samples without classes are compared with as a whole: by features, patches, spread and newness.

Tested in ``tests/recipes/studies/test_top_k.py``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gan_blocks import FeatureMoments, frechet_distance, sliced_wasserstein_distance
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.evaluation.classifier import TrainedClassifier, class_features, split_by_class, train_classifier
from gan_blocks.engine.evaluation.distances import mean_pairwise_distance, nearest_distances
from gan_blocks.engine.evaluation.features.choice import CLASSIFIER, parse_features
from gan_blocks.engine.evaluation.features.network import FeatureNetwork
from gan_blocks.engine.evaluation.features.rows import feature_set
from gan_blocks.engine.evaluation.quality import check_finite

__all__ = ["DistributionJudge", "DistributionReport", "FeatureDistance", "load_network"]

COMPARED = 1000  # images of each set for what takes time in the square of them, or much memory for each
BATCH_SIZE = 250


@dataclass(frozen=True)
class DistributionReport:
    """How far images are from real ones as a distribution.

    Attributes:
        frechet: Fréchet distance of the features of a small classifier trained on the real images. It is no FID.
        sliced_wasserstein: Distance of patches times 1,000, by the resolution of the level, finest first.
        diversity: Mean distance between two images, over that of real ones.
        novelty: Mean distance to the nearest real image, over that of other real images.
    """

    frechet: float
    sliced_wasserstein: dict[int, float]
    diversity: float
    novelty: float

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        levels = {str(size): distance for size, distance in self.sliced_wasserstein.items()}
        return vars(self) | {"sliced_wasserstein": levels}


@dataclass(frozen=True)
class DistributionJudge:
    """A classifier of the real images, those that it has learned, and those held back from it.

    All is a function of the images, the seed and the number of threads.
    """

    learned: Tensor
    held_out: Tensor
    classifier: TrainedClassifier
    features: Tensor
    """Features of the images that the classifier has learned."""
    spread: float
    """Mean distance between two of the real images held out."""
    newness: float
    """Mean distance of the real images held out to their nearest one of the others."""
    seed: int

    @classmethod
    def of_images(cls, real: ImageSet, *, seed: int) -> "DistributionJudge":
        """Train the classifier on four fifths of each class.

        Raises:
            UserError: If no class has two images.
        """
        images = real.batch(torch.arange(len(real)))[0]
        classifier = train_classifier(images, real.labels, num_classes=real.num_classes, seed=seed)
        split = split_by_class(real.labels, seed=seed)  # the classifier's own
        learned, held_out = images[split.training], images[split.held_out]
        # The images of a data set may be in the order of their classes.
        held_out = held_out[torch.randperm(len(held_out), generator=torch.Generator().manual_seed(seed))]
        some = held_out[:COMPARED]
        return cls(
            learned,
            held_out,
            classifier,
            class_features(classifier, learned),
            mean_pairwise_distance(some),
            nearest_distances(some, learned).mean().item(),
            seed,
        )

    def report(self, images: Tensor) -> DistributionReport:
        """Compare images in [-1, 1] with the real ones.

        Raises:
            UserError: If they hold values that are not finite.
        """
        check_finite(images)
        some = images[:COMPARED]
        return DistributionReport(
            frechet=frechet_distance(self.features, class_features(self.classifier, images)),
            sliced_wasserstein=self._patches(some),
            diversity=mean_pairwise_distance(some) / self.spread,
            novelty=nearest_distances(some, self.learned).mean().item() / self.newness,
        )

    def _patches(self, images: Tensor) -> dict[int, float]:
        # Evenly spaced, for the same reason as above; equal draws for all sets that are compared.
        places = torch.linspace(0, len(self.learned) - 1, min(len(images), len(self.learned))).long()
        stream = torch.Generator().manual_seed(self.seed)
        sets = (self.learned[places].split(BATCH_SIZE), images[: len(places)].split(BATCH_SIZE))
        return sliced_wasserstein_distance(*sets, generator=stream)


@dataclass(frozen=True)
class FeatureDistance:
    """The Fréchet distance of images to real ones, in the features of a network that ``--features`` names."""

    network: FeatureNetwork
    real: FeatureMoments

    @classmethod
    def to_images(cls, network: FeatureNetwork, real: Tensor) -> "FeatureDistance":
        """Look at the real images, in [-1, 1]."""
        return cls(network, _moments(network, real))

    @property
    def name(self) -> str:
        """FD, and the network with the side of its input."""
        return self.network.distance_name

    def of(self, images: Tensor) -> float:
        """The distance of images in [-1, 1]."""
        return frechet_distance(self.real, _moments(self.network, images))


def load_network(features: str, side: int) -> FeatureNetwork:
    """The network that ``--features`` names; images of ``side`` pixels are what one looks at that names no side.

    Raises:
        UserError: If it is unknown or cannot be loaded, or is the classifier, which is trained.
    """
    choice = parse_features(features)
    if choice.kind == CLASSIFIER:
        raise UserError("--features must be a network other than the classifier, whose distance is there already.")
    return choice.load(torch.device("cpu"), side)


def _moments(network: FeatureNetwork, images: Tensor) -> FeatureMoments:
    return feature_set(network, images, torch.zeros(len(images), dtype=torch.int64)).moments()
