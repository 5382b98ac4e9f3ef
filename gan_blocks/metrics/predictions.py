"""How sure a classifier is of each image, and how varied of all of them: the Inception score with any classifier.

Tested in ``tests/metrics/test_predictions.py``.
"""

from typing import NamedTuple

import torch
from einops import reduce
from torch import Tensor

from gan_blocks._checks import check_sizes
from gan_blocks._precision import to_float64
from gan_blocks.metrics._samples import check_samples

__all__ = ["ClassifierScore", "classifier_score"]


class ClassifierScore(NamedTuple):
    """The classifier score of parts of the images."""

    mean: float
    """Mean over the parts, from 1 to the number of classes."""
    standard_deviation: float
    """Population standard deviation over the parts (divisor: their count), as in the published code; 0 for one part."""


@torch.no_grad()
def classifier_score(logits: Tensor, *, splits: int = 10) -> ClassifierScore:
    r"""Ask whether a classifier is sure of every image, and finds all of its classes among them.

    .. math:: \exp\Big(\frac{1}{n} \sum_i \text{KL}\big(p(y|x_i) \,\|\, p(y)\big)\Big), \qquad
        p(y) = \frac{1}{n} \sum_i p(y|x_i)

    for each of several parts of the images. With the Inception network's 1,000 classes of ImageNet it is the Inception
    score (IS); a score of another classifier is none, and should bear that classifier's name. It is 1 where all
    predictions are the same, and the number of classes where the classifier is sure and finds each class as often.

    It never sees a real image: one good image of each class has the best score. Few images for each class lower it;
    compare equal numbers of images and parts only. The papers take 50,000 images in 10 parts.

    The parts are those of the order that is given, as in the published code, equally large to within one. Shuffle what
    is in the order of its classes, or every part lacks most of them: ``logits[torch.randperm(len(logits))]``.

    Args:
        logits: The classifier's logits, one row an image, of any floating dtype; the rest is computed in float64.
        splits: Number of parts, from 1 to the number of images.

    Returns:
        Mean and standard deviation over the parts.

    Shape:
        - logits: ``(samples, classes)``

    Raises:
        ValueError: If ``splits`` is out of its range, or ``logits`` has another shape, fewer samples than parts or
            values that are not finite.
        TypeError: If ``logits`` is not floating point, or ``splits`` not whole.

    References:
        Salimans et al. 2016, "Improved Techniques for Training GANs", section 4; Barratt and Sharma 2018, "A Note on
        the Inception Score".

    Example:
        >>> sure_of_each_of_four = 1000 * torch.eye(4)
        >>> round(classifier_score(sure_of_each_of_four, splits=1).mean, 6)
        4.0
    """
    owner = "classifier_score"
    check_sizes(owner, splits=splits)
    check_samples(owner, "logits", logits, splits, f"at least splits={splits} samples", axis="classes")
    scores = torch.stack([_score(part) for part in logits.tensor_split(splits)])
    deviation, mean = torch.std_mean(scores, correction=0)
    return ClassifierScore(mean.item(), deviation.item())


def _score(logits: Tensor) -> Tensor:
    """The mean divergence is the entropy of the mean less the mean of the entropies; entr takes 0 log 0 as 0."""
    probabilities = to_float64(logits).softmax(dim=1)
    of_all: Tensor = torch.special.entr(reduce(probabilities, "sample label -> label", "mean")).sum()
    of_each: Tensor = torch.special.entr(probabilities).sum(dim=1).mean()
    return (of_all - of_each).exp()
