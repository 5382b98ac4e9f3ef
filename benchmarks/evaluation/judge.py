"""Which metric orders corrupted images rightly, from how many on, and what depends on the network of the features.

``python -m benchmarks.evaluation.judge --data fashion-mnist --folder runs/judge`` takes real images that no generator
has touched, corrupts others of them in twelve ways, each in three grades, and asks every metric of ``gan-blocks
evaluate``. A metric orders a corruption rightly where its values get worse with every grade, the first being that of
images as they are. The table gives the least number of samples from which it does, for each network; ``-`` where it
does with none of them.

It takes hours, the small numbers of samples first. What is found is in ``cells.jsonl`` of the folder, a line for each
corruption, grade, number and network; the same command continues where it stopped, and ``--tables`` prints what is
there. What a corruption leaves as it was is not measured again: the features of images that are not changed, and all
but what looks at labels where these alone are.

Tested in ``tests/benchmarks/evaluation/test_judge.py``.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.evaluation.corruptions import GRADES, corruptions
from benchmarks.timing import machine
from gan_blocks import frechet_distance, nearest_neighbors
from gan_blocks.engine import load_images
from gan_blocks.engine.data.held_out import selected_images
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.sources import parse_source, shape_of_source, side_of_source
from gan_blocks.engine.evaluation import METRICS
from gan_blocks.engine.evaluation.features.cache import Cache, digest_of_images
from gan_blocks.engine.evaluation.features.rows import FeatureSet, computed_rows, feature_set
from gan_blocks.engine.evaluation.features.sets import FeatureSets
from gan_blocks.engine.evaluation.real_side import RealSide
from gan_blocks.engine.evaluation.scores.frechet import frechet_of_classes

__all__ = ["Cell", "Cells", "Judge", "tables"]

CELLS = "cells.jsonl"
PLAIN = "none"  # the corruption of images as they are
ASKED = ("kernel", "slices", "classifier_score", "neighborhoods", "copies")  # beside the Fréchet distances
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


class Cell(NamedTuple):
    """What is measured at once."""

    features: str
    size: int
    corruption: str
    grade: int


Cells = Mapping[Cell, Mapping[str, float]]
"""The values of every metric, by the part of its name before the network."""


def planned(networks: Sequence[str], sizes: Sequence[int], names: Sequence[str]) -> Iterator[Cell]:
    """All cells, the small sizes first, so that a study that is stopped has something to tell."""
    for size in sizes:
        for features in networks:
            yield Cell(features, size, PLAIN, 0)
            yield from (Cell(features, size, name, grade) for name in names for grade in range(1, GRADES + 1))


class Judge:
    """All metrics with one network.

    Args:
        side: The real images, and the network.
        others: Images that stand for samples, as many as any cell has.
        seed: Of the corruptions.
    """

    def __init__(self, side: RealSide, others: ImageSet, seed: int) -> None:
        self._side, self._others, self._seed = side, others, seed
        images, labels = others.batch(torch.arange(len(others)))
        sets = side.sets(images[:1], labels[:1])
        assert sets is not None
        kept = side.cache.rows(sets.network, images, digest_of_images(images))
        self._sets = replace(sets, generated=feature_set(sets.network, images, labels, kept))
        self._places = {_pixels(image): place for place, image in enumerate(images)}

    def __call__(self, cell: Cell, plain: Mapping[str, float] | None = None) -> dict[str, float]:
        """Corrupt as many images as the cell says, and measure them.

        Args:
            cell: What to measure.
            plain: What was found of as many images as they are; None: these are to be measured.
        """
        before, labels = self._others.batch(torch.arange(cell.size))
        images = before
        if cell.corruption != PLAIN:
            rng = torch.Generator().manual_seed(self._seed + cell.grade)
            images, labels = corruptions(self._side.real)[cell.corruption](before, labels, cell.grade, rng)
        sets = replace(self._sets, generated=self._looked_at(images, labels))
        if plain is None or not torch.equal(images, before):
            plain = self._of_images(images, labels, sets)
        return {**plain, **self._of_labels(labels, sets)}

    def _looked_at(self, images: Tensor, labels: Tensor) -> FeatureSet:
        """Features of images, of which some may be as they were."""
        known = self._sets.generated
        places = torch.tensor([self._places.get(_pixels(image), -1) for image in images])
        rows = torch.empty(len(images), known.rows.shape[1])
        rows[places >= 0] = known.rows[places[places >= 0]]
        if len(new := images[places < 0]):
            rows[places < 0] = torch.cat([found for _, found in computed_rows(known.network, new)])
        return feature_set(known.network, images, labels, rows)

    def _of_images(self, images: Tensor, labels: Tensor, sets: FeatureSets) -> dict[str, float]:
        """What looks at images, whatever their labels are."""
        found = {"FD": frechet_distance(sets.real.moments(), sets.generated.moments())}
        samples = self._side.samples(images, labels, sets=sets)
        for name in ASKED:
            report: Any = METRICS[name].measure(METRICS[name].options(), samples)
            for score in report.scores if report is not None else ():
                found[score.name.replace(f"-{sets.network.name}", "")] = score.value
        nearest = nearest_neighbors(images[:IN_PIXELS], self._side.images, rows_at_once=1024)
        return found | {"novelty": nearest.distances.mean().item()}

    def _of_labels(self, labels: Tensor, sets: FeatureSets) -> dict[str, float]:
        """What looks at labels."""
        distances = frechet_of_classes(sets)[0].values()
        found = {"intra-class FD": sum(distances) / len(distances)}
        logits = sets.generated.logits()
        if logits is not None and logits.shape[1] == self._side.num_classes:
            found["agreement"] = (logits.argmax(dim=1) == labels).double().mean().item()
        return found


def _pixels(image: Tensor) -> bytes:
    return image.contiguous().numpy().tobytes()


def kept_cells(path: Path, about: Mapping[str, object]) -> dict[Cell, dict[str, float]]:
    """What was found before from the same images; a line that was cut off is measured again."""
    found: dict[Cell, dict[str, float]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["about"] == about:
            found[Cell(*entry["cell"])] = entry["values"]
    return found


def orders(values: Sequence[float], sign: int) -> bool:
    """Whether each grade is worse than the one before."""
    return all(sign * (after - before) > 0 for before, after in pairwise(values))


def whole_sizes(cells: Cells, features: str, names: Sequence[str]) -> list[int]:
    """The numbers of samples with which a network has judged all corruptions."""
    sizes = sorted({cell.size for cell in cells if cell.features == features})
    return [size for size in sizes if all(cell in cells for cell in planned([features], [size], names))]


def least_sizes(cells: Cells, features: str, corruption: str, sizes: Sequence[int]) -> dict[str, str]:
    """For each metric the least number of samples from which on its order is right, of some."""
    graded = {size: [cells[cell] for cell in planned([features], [size], [corruption])] for size in sizes}
    found = {}
    for metric, sign in WORSE.items():
        if graded and all(metric in at for grades in graded.values() for at in grades):
            found[metric] = "-"
            for size in reversed(graded):
                if not orders([at[metric] for at in graded[size]], sign):
                    break
                found[metric] = f"{size:,}"
    return found


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return [lines[0], f"|{' --- |' * len(head)}", *lines[1:]]


def tables(cells: Cells) -> list[str]:
    """Markdown: a table for each network, where two of them disagree, and how bad each finds the corruptions.

    Numbers of samples with which not all corruptions are measured are left out; where networks are compared, so are
    those that only one of them has.
    """
    networks = list(dict.fromkeys(cell.features for cell in cells))
    names = [name for name in dict.fromkeys(cell.corruption for cell in cells) if name != PLAIN]
    whole = {features: whole_sizes(cells, features, names) for features in networks}
    lines = []
    for features, sizes in whole.items():
        rows = {name: least_sizes(cells, features, name, sizes) for name in names}
        metrics = [metric for metric in WORSE if any(metric in row for row in rows.values())]
        body = [[name, *(row.get(metric, "") for metric in metrics)] for name, row in rows.items()]
        lines += ["", f"{features}, samples: {_listed(sizes)}", "", *_markdown(["corruption", *metrics], body)]
    for pair in combinations(networks, 2):
        if common := _common(whole[features] for features in pair):
            found = [{name: least_sizes(cells, features, name, common) for name in names} for features in pair]
            lines += ["", f"{' and '.join(pair)}, samples: {_listed(common)}", "", *_disagreements(pair, *found)]
    if len(networks) > 1 and (common := _common(whole.values())):
        lines += ["", *_ranks(cells, networks, names, common[-1])]
    return lines


def _common(sizes: Iterable[Sequence[int]]) -> list[int]:
    return sorted(set.intersection(*map(set, sizes)))


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(f"{size:,}" for size in sizes) or "none whole"


def _disagreements(
    pair: tuple[str, str], rows: Mapping[str, Mapping[str, str]], others: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Metrics whose order is right with one network of two."""
    body = []
    for name, row in rows.items():
        both = [metric for metric in row if metric in others[name]]
        alone = [
            [m for m in both if (a[m] != "-") > (b[m] != "-")] for a, b in ((row, others[name]), (others[name], row))
        ]
        if any(alone):
            body.append([name, *(", ".join(each) or "-" for each in alone)])
    return _markdown(["corruption", f"right only with {pair[0]}", f"only with {pair[1]}"], body)


def _ranks(cells: Cells, networks: Sequence[str], names: Sequence[str], size: int) -> list[str]:
    """The Fréchet distance of the middle grade, and which place it has among the corruptions."""
    columns = []
    for features in networks:
        at = {name: cells[Cell(features, size, name, 2)]["FD"] for name in names}
        place = {name: number for number, name in enumerate(sorted(names, key=at.__getitem__), 1)}
        columns.append({name: f"{at[name]:.4g} ({place[name]})" for name in names})
    head = ["corruption, grade 2", *(f"FD-{features} of {size:,} (place)" for features in networks)]
    return _markdown(head, [[name, *(column[name] for column in columns)] for name in names])


def loaded(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[ImageSet, ImageSet, list[int]]:
    """The real images, as many others as the largest number of samples, and the numbers that there are enough for."""
    source = parse_source(options.data)
    shape = shape_of_source(source, None)
    channels = 3 if shape is None else shape.channels
    images = load_images(options.data, resolution=side_of_source(source), channels=channels, num_classes=None)
    count = min(options.real, len(images) // 2)
    most = len(images) - count
    sizes = sorted(size for size in options.sizes if size <= most)
    if not sizes:
        parser.error(f"--sizes must have a number of at most {most}: the images of {options.data} beside {count} real.")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(options.seed))
    return selected_images(images, order[:count]), selected_images(images, order[count : count + sizes[-1]]), sizes


def measure(
    options: argparse.Namespace,
    real: ImageSet,
    others: ImageSet,
    sizes: Sequence[int],
    found: dict[Cell, dict[str, float]],
    about: object,
) -> None:
    """Measure all cells that are missing, each network's in their turn, and write down each."""
    print(f"{len(real):,} real images of {options.data}, {len(others):,} others; {machine()}", flush=True)
    options.folder.mkdir(parents=True, exist_ok=True)
    cells = list(planned(options.features, sizes, options.only or list(corruptions(real))))
    judges: dict[str, Judge] = {}
    for cell in cells:
        if cell in found:
            continue
        if (features := cell.features) not in judges:
            judges[features] = Judge(_side(options, real, features), others, options.seed)
        plain = found.get(Cell(features, cell.size, PLAIN, 0))
        found[cell] = judges[features](cell, plain)
        with (options.folder / CELLS).open("a") as file:
            file.write(json.dumps({"about": about, "cell": cell, "values": found[cell]}) + "\n")
        print(f"{sum(each in found for each in cells)} of {len(cells)}:", *cell, flush=True)


def _side(options: argparse.Namespace, real: ImageSet, features: str) -> RealSide:
    return RealSide.of(
        real,
        None,
        num_classes=real.num_classes,
        seed=options.seed,
        cache=Cache(options.folder / "features"),
        features=features,
        device=torch.device("cpu"),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge the judge for each network, and print the tables."""
    parser = argparse.ArgumentParser(description="Which metric orders graded corruptions of real images rightly.")
    parser.add_argument("--data", default="fashion-mnist", help="real images, as --data of a training names them")
    parser.add_argument("--features", nargs="+", default=["efflite0-64", "classifier"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 2000, 10_000], help="samples; 1000 2000 10000")
    parser.add_argument("--real", type=int, default=10_000, help="real images to compare with, at most half of all")
    parser.add_argument("--only", nargs="*", default=[], help="some of the corruptions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True, help="where all values and the features are kept")
    parser.add_argument("--tables", action="store_true", help="measure nothing; print what the folder has")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    about = {"data": options.data, "seed": options.seed, "real": options.real}
    found = kept_cells(options.folder / CELLS, about)
    if not options.tables:
        measure(options, *loaded(parser, options), found, about)
    print("\n".join(tables(found)), flush=True)


if __name__ == "__main__":
    main()
