"""The classifier of the real images as a feature network, as the paper trained one for JFT-300M: trained once, kept.

Tested in ``tests/engine/evaluation/features/test_networks.py``.
"""

import torch
from torch import Tensor, nn

from gan_blocks import Rows
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.evaluation.classifier import TrainedClassifier, restored_classifier, train_classifier
from gan_blocks.engine.evaluation.features.cache import Cache, digest_of_tensors
from gan_blocks.engine.evaluation.features.choice import CLASSIFIER
from gan_blocks.engine.evaluation.features.network import FeatureNetwork

__all__ = ["check_classes", "classifier_network", "kept_classifier"]

SIDE = 32  # that the classifier averages images to
ACCURACY = "held_out_accuracy"


def check_classes(num_classes: int) -> None:
    """Check that there is something to classify.

    Raises:
        UserError: If there is one class.
    """
    if num_classes < 2:
        raise UserError("--features classifier needs real images of two or more classes: there is one to learn from.")


def kept_classifier(
    images: Rows, labels: Tensor, *, num_classes: int, seed: int, cache: Cache, digest: str
) -> TrainedClassifier:
    """The classifier that ``train_classifier`` makes of the real images, from the cache where it is there.

    Args:
        images: The real images.
        labels: Their classes.
        num_classes: How many there are.
        seed: Seed of the training.
        cache: Where it is kept.
        digest: Of the images.
    """

    def train() -> dict[str, Tensor]:
        trained = train_classifier(images, labels, num_classes=num_classes, seed=seed)
        accuracy = torch.tensor(trained.held_out_accuracy, dtype=torch.float64)
        return {**trained.classifier.state_dict(), ACCURACY: accuracy}

    key = (digest, digest_of_tensors({"labels": labels}), num_classes, seed, torch.get_num_threads())

    def restored(weights: dict[str, Tensor]) -> TrainedClassifier:
        parts = dict(weights)
        accuracy = parts.pop(ACCURACY).item()
        return restored_classifier(parts, images.shape[1], num_classes, accuracy, images.device)

    try:
        return restored(cache.tensors("classifier", key, train))
    except (RuntimeError, KeyError):  # whoever may write the cache may have put anything there
        return restored(train())


def classifier_network(trained: TrainedClassifier) -> FeatureNetwork:
    """Its last map averaged over the pixels, 96 features, and its logits."""
    *layers, flatten, linear = trained.classifier.children()
    body = nn.Sequential(*layers).eval()

    @torch.no_grad()
    def look(images: Tensor) -> Tensor:
        maps = body(images)
        return torch.cat([maps.mean(dim=(2, 3)), linear(flatten(maps))], dim=1)

    digest = digest_of_tensors(trained.classifier.state_dict())
    num_features = next(layer.out_channels for layer in reversed(layers) if isinstance(layer, nn.Conv2d))
    return FeatureNetwork(f"{CLASSIFIER}-{SIDE}", look, num_features, in_color=False, digest=digest)
