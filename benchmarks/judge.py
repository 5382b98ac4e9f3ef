"""Which metric orders corrupted images rightly, from how many on, and what depends on the network of the features.

``python -m benchmarks.judge --data npz:cifar10.npz`` takes real images that no generator has touched, corrupts others
of them in twelve ways, each in three grades, and asks every metric of ``gan-blocks evaluate``. A metric orders a
corruption rightly where its values get worse with every grade, the first being that of images as they are. The table
gives the least number of samples from which it does, for each network; ``-`` where it does with none of them. It takes
an hour or two.
"""

import argparse
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.timing import machine
from gan_blocks import nearest_neighbors
from gan_blocks.engine import load_images
from gan_blocks.engine.data.held_out import selected_images
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.sources import parse_source, shape_of_source, side_of_source
from gan_blocks.engine.evaluation import METRICS
from gan_blocks.engine.evaluation.features.cache import Cache
from gan_blocks.engine.evaluation.features.sets import FeatureSets
from gan_blocks.engine.evaluation.real_side import RealSide

GRADES = 3
ASKED = ("frechet", "kernel", "slices", "classifier_score", "neighborhoods", "copies")
WORSE = {  # the sign of a change for the worse
    "FD": 1,
    "intra-class FD": 1,
    "KD": 1,
    "SD": 1,
    "CS": -1,
    "precision": -1,
    "recall": -1,
    "density": -1,
    "coverage": -1,
    "copies": 1,
    "agreement": -1,
    "novelty": -1,
}
IN_PIXELS = 1000  # samples whose nearest training image is looked for

Corruption = Callable[[Tensor, Tensor, int, torch.Generator], tuple[Tensor, Tensor]]
"""Of images in [-1, 1] and their labels, for a grade from 1 to 3."""


def of_pixels(change: Callable[[Tensor, int, torch.Generator], Tensor]) -> Corruption:
    """A corruption that leaves the labels as they are."""
    return lambda images, labels, grade, rng: (change(images, grade, rng).clamp(-1, 1), labels)


def blurred(images: Tensor, grade: int, _rng: torch.Generator) -> Tensor:
    """By a Gaussian of 0.5, 1 and 2 pixels."""
    sigma = (0.5, 1.0, 2.0)[grade - 1]
    at = torch.arange(-6, 7).float()
    weights = (-at.square() / (2 * sigma**2)).exp()
    kernel = (weights / weights.sum()).expand(images.shape[1], 1, 1, -1)
    rows = F.conv2d(F.pad(images, (6, 6, 0, 0), mode="replicate"), kernel, groups=images.shape[1])
    return F.conv2d(F.pad(rows, (0, 0, 6, 6), mode="replicate"), kernel.mT, groups=images.shape[1])


def noisy(images: Tensor, grade: int, rng: torch.Generator) -> Tensor:
    """With normal noise of 5, 10 and 20 % of the range."""
    return images + (0.1, 0.2, 0.4)[grade - 1] * torch.randn(images.shape, generator=rng)


def compressed(images: Tensor, grade: int, _rng: torch.Generator) -> Tensor:
    """By JPEG of quality 60, 30 and 10."""
    found = []
    for pixels in ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy():
        packed = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
            packed, "JPEG", quality=(60, 30, 10)[grade - 1]
        )
        opened = np.asarray(Image.open(packed))
        found.append(torch.from_numpy(opened.reshape(pixels.shape).copy()).permute(2, 0, 1))
    return torch.stack(found).float() / 127.5 - 1


def shifted_in_color(images: Tensor, grade: int, _rng: torch.Generator) -> Tensor:
    """The first channel brighter by 5, 10 and 20 % of the range, the last one darker."""
    shift = torch.linspace(1, -1, images.shape[1]) if images.shape[1] > 1 else torch.ones(1)
    return images + (0.1, 0.2, 0.4)[grade - 1] * shift[:, None, None]


def faded(images: Tensor, grade: int, _rng: torch.Generator) -> Tensor:
    """With 80, 60 and 40 % of the contrast."""
    return (0.8, 0.6, 0.4)[grade - 1] * images


def covered(images: Tensor, grade: int, rng: torch.Generator) -> Tensor:
    """By a gray square of 1/8, 1/4 and 1/2 of the side, anywhere."""
    side = images.shape[2]
    size = side * (1, 2, 4)[grade - 1] // 8
    found = images.clone()
    for image, (top, left) in zip(
        found, torch.randint(side - size + 1, (len(images), 2), generator=rng).tolist(), strict=True
    ):
        image[:, top : top + size, left : left + size] = 0
    return found


def coarse(images: Tensor, grade: int, _rng: torch.Generator) -> Tensor:
    """In blocks of 2, 4 and 8 pixels."""
    size = 2**grade
    return F.interpolate(F.avg_pool2d(images, size), scale_factor=size)


def blended(images: Tensor, grade: int, rng: torch.Generator) -> Tensor:
    """With 10, 25 and 50 % of another image."""
    share = (0.1, 0.25, 0.5)[grade - 1]
    return (1 - share) * images + share * images[torch.randperm(len(images), generator=rng)]


SHARES = 0.1, 0.3, 0.5


def without_classes(images: Tensor, labels: Tensor, grade: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images of 10, 30 and 50 % of the classes replaced by some of the other classes."""
    classes = labels.unique()
    lost = classes[: max(1, round(SHARES[grade - 1] * len(classes)))]
    kept = torch.isin(labels, lost, invert=True).nonzero().flatten()
    numbers = torch.arange(len(labels))
    gone = torch.isin(labels, lost)
    numbers[gone] = kept[torch.randint(len(kept), (int(gone.sum()),), generator=rng)]
    return images[numbers], labels[numbers]


def repeated(images: Tensor, labels: Tensor, grade: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image 2, 5 and 20 times."""
    few = torch.randperm(len(images), generator=rng)[: max(1, len(images) // (2, 5, 20)[grade - 1])]
    numbers = few[torch.arange(len(images)) % len(few)]
    return images[numbers], labels[numbers]


def mislabeled(images: Tensor, labels: Tensor, grade: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """With the label of another image, for 10, 30 and 50 % of them."""
    chosen = torch.randperm(len(labels), generator=rng)[: round(SHARES[grade - 1] * len(labels))]
    found = labels.clone()
    found[chosen] = labels[chosen.roll(1)]
    return images, found


def corruptions(training: ImageSet) -> dict[str, Corruption]:
    """All twelve, by name."""

    def copied(images: Tensor, labels: Tensor, grade: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Training images in the place of 10, 30 and 50 %, with a little noise."""
        count = round(SHARES[grade - 1] * len(images))
        taken = torch.randperm(len(training), generator=rng)[:count]
        some, classes = training.batch(taken)
        some = (some + 0.02 * torch.randn(some.shape, generator=rng)).clamp(-1, 1)
        places = torch.randperm(len(images), generator=rng)[: len(taken)]
        found, found_labels = images.clone(), labels.clone()
        found[places], found_labels[places] = some, classes
        return found, found_labels

    return {
        "blur": of_pixels(blurred),
        "noise": of_pixels(noisy),
        "JPEG": of_pixels(compressed),
        "color shift": of_pixels(shifted_in_color),
        "low contrast": of_pixels(faded),
        "covered square": of_pixels(covered),
        "coarse pixels": of_pixels(coarse),
        "blended pairs": of_pixels(blended),
        "classes dropped": without_classes,
        "duplicates": repeated,
        "swapped labels": mislabeled,
        "training copies": copied,
    }


def measured(side: RealSide, sets: FeatureSets, images: Tensor, labels: Tensor) -> dict[str, float]:
    """The value of every metric, by the part of its name before the network."""
    count = len(sets.generated)
    samples = side.samples(images[:count], labels[:count], sets=sets)
    found: dict[str, float] = {}
    for name in ASKED:
        report: Any = METRICS[name].measure(METRICS[name].options(), samples)
        for score in report.scores if report is not None else ():
            found[score.name.replace(f"-{sets.network.name}", "")] = score.value
    logits = sets.generated.logits()
    if logits is not None and logits.shape[1] == side.num_classes:
        found["agreement"] = (logits.argmax(dim=1) == labels[:count]).double().mean().item()
    some = images[: min(count, IN_PIXELS)]
    found["novelty"] = nearest_neighbors(some, side.images, rows_at_once=1024).distances.mean().item()
    return found


def judged(
    side: RealSide, others: ImageSet, sizes: Sequence[int], seed: int, only: Sequence[str]
) -> dict[str, dict[int, list[dict[str, float]]]]:
    """For each corruption and size the values of every metric, by grade."""
    images, labels = others.batch(torch.arange(max(sizes)))
    found: dict[str, dict[int, list[dict[str, float]]]] = {}
    plain: dict[int, dict[str, float]] = {}

    def values(some: Tensor, of_classes: Tensor) -> dict[int, dict[str, float]]:
        sets = side.sets(some, of_classes)
        assert sets is not None
        parts = {size: replace(sets, generated=sets.generated.among(torch.arange(size))) for size in sizes}
        return {size: measured(side, part, some, of_classes) for size, part in parts.items()}

    plain = values(images, labels)
    for name, corrupt in corruptions(side.real).items():
        if only and name not in only:
            continue
        found[name] = {size: [plain[size]] for size in sizes}
        for grade in range(1, GRADES + 1):
            corrupted = corrupt(images, labels, grade, torch.Generator().manual_seed(seed + grade))
            for size, at in values(*corrupted).items():
                found[name][size].append(at)
        print(f"  {name}: done", flush=True)
    return found


def orders(values: Sequence[float], sign: int) -> bool:
    """Whether each grade is worse than the one before."""
    return all(sign * (after - before) > 0 for before, after in pairwise(values))


def table(found: Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]]) -> list[str]:
    """Markdown: a row a corruption, a column a metric, the least number of samples from which the order is right."""
    first = next(iter(next(iter(found.values())).values()))[0]
    metrics = [name for name in WORSE if name in first]
    lines = [f"| corruption | {' | '.join(metrics)} |", f"| --- |{' --- |' * len(metrics)}"]
    for name, by_size in found.items():
        cells = []
        for metric in metrics:
            right = {size: orders([at[metric] for at in grades], WORSE[metric]) for size, grades in by_size.items()}
            least = "-"
            for size in sorted(right, reverse=True):
                if not right[size]:
                    break
                least = f"{size:,}"
            cells.append(least)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Judge the judge for each network, and print a table of each."""
    parser = argparse.ArgumentParser(description="Which metric orders graded corruptions of real images rightly.")
    parser.add_argument("--data", default="mnist5k", help="real images, as --data of a training names them")
    parser.add_argument("--features", nargs="+", default=["efflite0-64", "classifier"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 2000, 10_000], help="samples; 1000 2000 10000")
    parser.add_argument("--real", type=int, default=10_000, help="real images to compare with")
    parser.add_argument("--only", nargs="*", default=[], help="some of the corruptions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where all values go as JSON")
    options = parser.parse_args()
    source = parse_source(options.data)
    shape = shape_of_source(source, None)
    channels = 3 if shape is None else shape.channels
    images = load_images(options.data, resolution=side_of_source(source), channels=channels, num_classes=None)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(options.seed))
    count = min(options.real, len(images) // 2)
    real = selected_images(images, order[:count])
    others = selected_images(images, order[count:])
    sizes = sorted(size for size in options.sizes if size <= len(others))
    print(f"{len(real):,} real images of {options.data}, {len(others):,} others; {machine()}", flush=True)
    everything = {}
    with tempfile.TemporaryDirectory() as folder:
        for features in options.features:
            side = RealSide.of(
                real,
                None,
                num_classes=images.num_classes,
                seed=options.seed,
                cache=Cache(Path(folder)),
                features=features,
                device=torch.device("cpu"),
            )
            print(f"\n{features}", flush=True)
            found = judged(side, others, sizes, options.seed, options.only)
            everything[features] = found
            print("\n".join(table(found)), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
