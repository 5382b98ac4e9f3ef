"""Real images with a classifier that has learned them once, to judge the samples of many runs or checkpoints.

Tested in ``tests/recipes/studies/test_latents.py``.
"""

from dataclasses import dataclass

from torch import Tensor

from gan_blocks import Rows
from gan_blocks.engine.data.loading import load_images_of
from gan_blocks.engine.evaluation.classifier import TrainedClassifier, train_classifier
from gan_blocks.engine.evaluation.image_rows import RealImages
from gan_blocks.engine.evaluation.quality import QualityReport, class_agreement, measure_quality
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.sampling.samples import draw_samples
from gan_blocks.engine.sampling.trained import TrainedGenerator

__all__ = ["Judge"]


@dataclass(frozen=True)
class Judge:
    """What samples are compared with; a function of the data, the seed and the number of threads."""

    images: Rows
    labels: Tensor
    classifier: TrainedClassifier
    seed: int

    @classmethod
    def of_data(cls, config: TrainingConfig, *, seed: int) -> "Judge":
        """Load the images that a Config names and train the classifier.

        Raises:
            UserError: If the data cannot be loaded, or have no class with two images.
        """
        real = load_images_of(config)
        images = RealImages(real)
        classifier = train_classifier(images, real.labels, num_classes=config.num_classes, seed=seed)
        return cls(images, real.labels, classifier, seed)

    def agreement(self, trained: TrainedGenerator, count: int) -> float:
        """Share of ``count`` samples that the classifier assigns to the class that was asked for."""
        images, labels = draw_samples(trained, count, seed=self.seed)
        return class_agreement(self.classifier.classifier, images, labels)

    def report(self, trained: TrainedGenerator, count: int) -> QualityReport:
        """All that `measure_quality` finds in the same samples."""
        images, labels = draw_samples(trained, count, seed=self.seed)
        num_classes = trained.config.num_classes
        return measure_quality(
            images,
            labels,
            self.images,
            self.labels,
            num_classes=num_classes,
            seed=self.seed,
            judge=self.classifier,
        )
