"""Real images and all that is made of them for comparing samples with them: once, however many samples there are.

Tested in ``tests/engine/evaluation/features/test_kept_features.py``.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gan_blocks import Rows
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.evaluation.classifier import TrainedClassifier
from gan_blocks.engine.evaluation.features.cache import Cache, RealFigures, digest_of_images, digest_of_tensors
from gan_blocks.engine.evaluation.features.choice import CLASSIFIER, parse_features
from gan_blocks.engine.evaluation.features.network import FeatureNetwork
from gan_blocks.engine.evaluation.features.rows import FeatureSet, feature_set
from gan_blocks.engine.evaluation.features.sets import FeatureSets
from gan_blocks.engine.evaluation.features.trained import classifier_network, kept_classifier
from gan_blocks.engine.evaluation.image_rows import RealImages
from gan_blocks.engine.evaluation.memorization import Critic
from gan_blocks.engine.evaluation.metric import Samples

__all__ = ["RealSide"]


@dataclass(eq=False)
class RealSide:
    """One side of a comparison.

    Attributes:
        real: The images that a generator learned from.
        held_out: Those that were kept from its training, if some were.
        num_classes: Classes of the networks.
        seed: Seed of everything random in a measurement.
        cache: Where what is found is kept.
        given: The network that ``--features`` names, if it names one that the data do not train.
        features: What ``--features`` says; None: nothing is looked at.
    """

    real: ImageSet
    held_out: ImageSet | None
    num_classes: int
    seed: int
    cache: Cache
    given: FeatureNetwork | None = None
    features: str | None = None

    @classmethod
    def of(
        cls,
        real: ImageSet,
        held_out: ImageSet | None,
        *,
        num_classes: int,
        seed: int,
        cache: Cache,
        features: str | None,
        device: torch.device,
    ) -> "RealSide":
        """Load the network that ``features`` names, so that what is wrong with it is said before any work.

        Raises:
            UserError: If it cannot be loaded.
        """
        choice = None if features is None else parse_features(features)
        given = None if choice is None or choice.kind == CLASSIFIER else choice.load(device, real.resolution)
        return cls(real, held_out, num_classes, seed, cache, given, features)

    @cached_property
    def images(self) -> Rows:
        """The real images by number."""
        return RealImages(self.real)

    @cached_property
    def held_out_images(self) -> Rows | None:
        """Those held out by number."""
        return None if self.held_out is None else RealImages(self.held_out)

    @cached_property
    def digest(self) -> str:
        """Of the real images."""
        return digest_of_images(self.images)

    @cached_property
    def figures(self) -> RealFigures:
        """What is found of these images alone."""
        return RealFigures(self.cache, lambda: self._contents)

    @cached_property
    def _held_out_digest(self) -> str:
        return "" if self.held_out_images is None else digest_of_images(self.held_out_images)

    @cached_property
    def _contents(self) -> tuple[str, ...]:
        labels = {"labels": self.real.labels}
        if self.held_out is not None:
            labels["held out"] = self.held_out.labels
        return self.digest, self._held_out_digest, digest_of_tensors(labels)

    @cached_property
    def judge(self) -> TrainedClassifier | None:
        """The classifier of the real images, where features or the cache make it worth keeping."""
        kept = self.cache.folder is not None or (self.features is not None and self.given is None)
        if not kept or self.num_classes == 1:
            return None
        return kept_classifier(
            self.images,
            self.real.labels,
            num_classes=self.num_classes,
            seed=self.seed,
            cache=self.cache,
            digest=self.digest,
        )

    def samples(
        self, generated: Rows, labels: Tensor, *, critic: Critic | None = None, sets: FeatureSets | None = None
    ) -> Samples:
        """What metrics measure: generated images beside these.

        Args:
            generated: Images in [-1, 1], ``(images, channels, height, width)``.
            labels: The classes that were asked for.
            critic: D, where there is one to ask.
            sets: Features of all of them, where they are known already.

        Raises:
            UserError: If a feature is not finite.
        """
        return Samples(
            generated,
            labels,
            self.images,
            self.real.labels,
            self.num_classes,
            self.seed,
            self.real.class_names,
            self.held_out_images,
            None if self.held_out is None else self.held_out.labels,
            sets or self.sets(generated, labels),
            self.judge,
            critic,
            self.figures,
        )

    def sets(self, generated: Rows, labels: Tensor) -> FeatureSets | None:
        """Features of samples and of real images; None where no network was asked for.

        Raises:
            UserError: If a feature is not finite.
        """
        if self.features is None:
            return None
        real, held_out = self._looked_at
        fake = feature_set(self._network, generated, labels)
        return FeatureSets(self._network, fake, real, held_out, self.seed, self.figures)

    @cached_property
    def _network(self) -> FeatureNetwork:
        if self.given is not None:
            return self.given
        assert self.judge is not None
        return classifier_network(self.judge)

    @cached_property
    def _looked_at(self) -> tuple[FeatureSet, FeatureSet | None]:
        """Features of real and of held-out images."""
        real = self._of(self.images, self.real, self.digest)
        if self.held_out is None or self.held_out_images is None:
            return real, None
        return real, self._of(self.held_out_images, self.held_out, self._held_out_digest)

    def _of(self, images: Rows, image_set: ImageSet, digest: str) -> FeatureSet:
        rows = self.cache.rows(self._network, images, digest)
        return feature_set(self._network, images, image_set.labels, rows)
