"""Three numbers that say what a generator draws: the right class, varied, and not copied.

None of them suffices alone: noise is varied and new, a copied data set shows the right classes, and a single good
image per class is in its class. All three look at pixels and at one small classifier trained on the spot, so they
compare runs on the same data; they are no substitute for a Fréchet distance. A generator without classes has the last
two alone.

Tested in ``tests/engine/evaluation/test_quality.py``.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from torch import Tensor, nn

from gan_blocks import Rows
from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.image_set import class_name
from gan_blocks.engine.evaluation.classifier import TrainedClassifier, class_scores, train_classifier
from gan_blocks.engine.evaluation.distances import mean_pairwise_distance
from gan_blocks.engine.evaluation.features.cache import MEASURED_ANEW, RealFigures
from gan_blocks.engine.evaluation.image_rows import SelectedImages, in_batches
from gan_blocks.engine.evaluation.metric import Metric, Plan, Samples
from gan_blocks.engine.evaluation.novelty import novelty_ratio

__all__ = [
    "QUALITY",
    "QualityReport",
    "check_finite",
    "check_same_size",
    "check_sample_count",
    "class_agreement",
    "diversity_ratio",
    "measure_quality",
]

MAX_PAIRED = 10_000  # images of a class whose pairs are measured: there are 50 million already
MAX_CLASSES_SHOWN = 20


@dataclass(frozen=True)
class QualityReport:
    """What `measure_quality` found.

    Attributes:
        num_generated: Number of generated images.
        num_real: Number of real images, those that train and those that test the classifier together.
        classifier_accuracy: The classifier's accuracy on real images that it has not seen: what perfect images reach;
            None where there is one class.
        agreement: Share of generated images that the classifier puts into the class that was asked for, or None.
        diversity: Spread within a class, generated over real; see `diversity_ratio`.
        novelty: Distance to the nearest training image, generated over real; see `novelty_ratio`.
        agreement_by_class: Agreement of each class that was asked for; empty where there is one class.
        classes_without_spread: Classes that the diversity leaves out, since they have one real image.
        class_names: One name a class, as far as classes have names.
    """

    num_generated: int
    num_real: int
    classifier_accuracy: float | None
    agreement: float | None
    diversity: float
    novelty: float
    agreement_by_class: dict[int, float]
    classes_without_spread: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON; classes become strings because JSON keys are."""
        by_class = {str(label): share for label, share in self.agreement_by_class.items()}
        return asdict(self) | {"agreement_by_class": by_class}

    def lines(self, class_names: Sequence[str] | None = None) -> list[str]:
        """Render for a console of 100 columns; of more than 20 classes only the worst are listed."""
        where = "of all images" if self.agreement is None else "within a class"
        return [
            f"{self.num_generated:,} generated images against {self.num_real:,} real ones",
            *self._agreement_lines(),
            f"  diversity {self.diversity:7.2f}  spread {where}, 1 = as the real images, 0 = one image repeated",
            f"  novelty   {self.novelty:7.2f}  distance to the training images, 1 = as another real image, 0 = a copy",
            *self._class_lines(class_names),
            *self._left_out_lines(),
        ]

    def _agreement_lines(self) -> list[str]:
        if self.agreement is None:
            return []
        unseen = f"(unseen real images: {self.classifier_accuracy:.1%})"
        return [f"  agreement {self.agreement:7.1%}  drawn in the class asked for {unseen}"]

    def _left_out_lines(self) -> list[str]:
        if not self.classes_without_spread:
            return []
        first = class_name(self.class_names, self.classes_without_spread[0])
        shown = f"{len(self.classes_without_spread):,}, such as class {first}"
        return [f"  without a class's diversity, for want of a second real image: {shown}"]

    def _class_lines(self, class_names: Sequence[str] | None) -> list[str]:
        if not self.agreement_by_class:
            return []
        shown = sorted(self.agreement_by_class.items(), key=lambda item: item[1])[:MAX_CLASSES_SHOWN]
        few = len(self.agreement_by_class) <= MAX_CLASSES_SHOWN
        names = {label: class_name(class_names or self.class_names, label) for label, _ in shown}
        # A class and its share stay together when the line is wrapped.
        text = ", ".join(f"{names[label]}\xa0{share:.0%}" for label, share in (sorted(shown) if few else shown))
        head = "  by class: " if few else f"  the {MAX_CLASSES_SHOWN} worst of {len(self.agreement_by_class)} classes: "
        wrapped = textwrap.wrap(text, 98, initial_indent=head, subsequent_indent="    ", break_on_hyphens=False)
        return [line.replace("\xa0", " ") for line in wrapped]


def measure_quality(
    generated: Rows,
    generated_labels: Tensor,
    real: Rows,
    real_labels: Tensor,
    *,
    num_classes: int,
    seed: int,
    epochs: int = 10,
    held_out: Rows | None = None,
    judge: TrainedClassifier | None = None,
    class_names: Sequence[str] = (),
    figures: RealFigures = MEASURED_ANEW,
) -> QualityReport:
    """Train a classifier on the real images and measure agreement, diversity and novelty of the generated ones.

    With one class there is nothing to agree with and no classifier.

    Args:
        generated: Generated images in [-1, 1], of shape ``(images, channels, height, width)``.
        generated_labels: Classes that the generator was asked for, int64 of shape ``(images,)``.
        real: The images that the generator was trained on, all of them.
        real_labels: Their classes.
        num_classes: Number of classes.
        seed: Seed of everything random in here: the same seed, images and thread count give the same report.
        epochs: Passes of the classifier over its training part.
        held_out: Real images that the generator has not seen, where there are any; see `novelty_ratio`.
        judge: A classifier that `train_classifier` made of these real images before; None: one is trained now.
        class_names: One name a class, for the report.
        figures: Keeps what is found of the real images alone.

    Raises:
        UserError: If the images differ in shape, generated values are not finite, a requested class has no real
            image or a single generated one, or the real images do not differ from each other.
    """
    _check_images(generated, generated_labels, real)
    diversity = diversity_ratio(generated, generated_labels, real, real_labels, figures=figures)
    novelty = novelty_ratio(generated, real, held_out, seed=seed, figures=figures)
    report = QualityReport(
        num_generated=len(generated),
        num_real=len(real),
        classifier_accuracy=None,
        agreement=None,
        diversity=diversity,
        novelty=novelty,
        agreement_by_class={},
        classes_without_spread=tuple(_without_spread(generated_labels, real_labels)),
        class_names=tuple(class_names),
    )
    if num_classes == 1:
        return report
    if judge is None:
        judge = train_classifier(real, real_labels, num_classes=num_classes, seed=seed, epochs=epochs)
    agreement = _agreement(judge.classifier, generated, generated_labels)
    return replace(
        report,
        classifier_accuracy=judge.held_out_accuracy,
        agreement=agreement.mean().item(),
        agreement_by_class={c: agreement[generated_labels == c].mean().item() for c in _classes(generated_labels)},
    )


def class_agreement(classifier: nn.Module, images: Rows, requested_labels: Tensor) -> float:
    """Share of images that the classifier assigns to the class that was requested, from 0 to 1."""
    return _agreement(classifier, images, requested_labels).mean().item()


def diversity_ratio(
    generated: Rows,
    generated_labels: Tensor,
    real: Rows,
    real_labels: Tensor,
    *,
    figures: RealFigures = MEASURED_ANEW,
) -> float:
    r"""Mean pairwise distance within a class, generated over real.

    .. math:: \frac{\sum_{c \in C} \bar d(G_c)}{\sum_{c \in C} \bar d(R_c)}, \qquad
       \bar d(X) = \frac{1}{n(n-1)} \sum_{i \ne j} \lVert x_i - x_j \rVert_2

    C holds the classes among ``generated_labels``: numerator and denominator see the same ones. Each class weighs
    the same on its side, however many images it has; the ratio is that of the two averages over classes, not the
    average of ratios, so that a class whose real images hardly differ cannot dominate. A class with a single real
    image has no spread and does not count. Of more than 10,000 images of a class some are left out, evenly spaced in
    their order.

    Returns:
        1 for real images; 0 for one repeated image per class; more than 1 for images more spread out than real ones,
        such as noise.

    Raises:
        UserError: If a class of C has no real image or a single generated one, no class has two real images, or those
            of each class are all the same.
    """
    left_out = _without_spread(generated_labels, real_labels)
    classes = [label for label in _classes(generated_labels) if label not in left_out]
    if not classes:
        raise UserError("No class that was asked for has two real images, so diversity cannot be measured.")
    spread = _spread("generated", generated, generated_labels, classes)
    of_real: float = figures("spread", (classes, MAX_PAIRED), lambda: _spread("real", real, real_labels, classes))
    if of_real == 0:
        raise UserError("The real images of each class are all the same, so diversity cannot be measured.")
    return spread / of_real


def _spread(kind: str, images: Rows, labels: Tensor, classes: Sequence[int]) -> float:
    """Mean distance between two images of a class, added up over the classes."""
    spread = 0.0
    for label in classes:
        members = (labels == label).nonzero().flatten()
        if len(members) < 2:
            raise UserError(f"Class {label} has {len(members)} {kind} image(s), but diversity needs two or more.")
        spread += mean_pairwise_distance(SelectedImages(images, members[:: -(-len(members) // MAX_PAIRED)]))
    return spread


def _agreement(classifier: nn.Module, images: Rows, requested_labels: Tensor) -> Tensor:
    return (class_scores(classifier, images).argmax(dim=1) == requested_labels).double()


def _classes(labels: Tensor) -> list[int]:
    return sorted(set(labels.tolist()))


def _without_spread(generated_labels: Tensor, real_labels: Tensor) -> list[int]:
    """The classes asked for that have a single real image."""
    return [label for label in _classes(generated_labels) if (real_labels == label).sum() == 1]


def check_finite(generated: Rows) -> None:
    """Check that generated images can be measured.

    Raises:
        UserError: If they hold values that are not finite.
    """
    if not all(images.isfinite().all() for images in in_batches(generated, 256)):
        raise UserError("The generated images hold values that are not finite: the generator has diverged.")


def _check_images(generated: Rows, generated_labels: Tensor, real: Rows) -> None:
    if len(generated_labels) == 0:
        raise UserError("There are no generated images to measure.")
    check_same_size(generated.shape[1:], real.shape[1:])
    check_finite(generated)


def check_same_size(generated: Sequence[int], real: Sequence[int]) -> None:
    """Check that generated images can be compared with real ones.

    Args:
        generated: Channels, height and width.
        real: Those of the real images.

    Raises:
        UserError: If they differ.
    """
    if tuple(generated) != tuple(real):
        sizes = " but real ones ".join("x".join(map(str, size)) for size in (generated, real))
        cause = "they come from different data, or the networks are still to grow"
        raise UserError(f"Generated images are {sizes} (channels x height x width): {cause}.")


def check_sample_count(num: int, classes: int) -> None:
    """Check that so many samples, drawn of the classes evenly, are two of each: for the diversity.

    Raises:
        UserError: If they are fewer.
    """
    if num < 2 * classes:
        rule = f"at least {2 * classes:,} for {classes:,} classes, since diversity needs two samples of a class"
        raise UserError(f"--num must be {rule}, but got {num}.")


@dataclass(frozen=True)
class QualityOptions(Fields):
    """Agreement, diversity and novelty, which every evaluation measures."""


def _check_plan(_options: QualityOptions, plan: Plan) -> None:
    sizes = plan.real.labels.unique(return_counts=True)[1]
    if plan.given is None:
        check_sample_count(plan.num, len(sizes))
    if sizes.max() < 2:
        raise UserError("No class has two real images, so diversity cannot be measured.")


def _measure(_options: QualityOptions, samples: Samples) -> QualityReport:
    return measure_quality(
        samples.generated,
        samples.labels,
        samples.real,
        samples.real_labels,
        num_classes=samples.num_classes,
        seed=samples.seed,
        held_out=samples.held_out,
        judge=samples.judge,
        class_names=samples.class_names,
        figures=samples.figures,
    )


QUALITY = Metric(name="quality", options=QualityOptions, check=_check_plan, measure=_measure)
