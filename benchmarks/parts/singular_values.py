"""Time and error of ways to find the three largest singular values of every weight of BigGAN-128.

``python -m benchmarks.parts.singular_values`` makes the weights (a few training steps, minutes at full size), measures
each method in a process of its own and prints one table for each set of weights. ``--folder`` keeps the weights for
another run; ``--channels 16`` is a quick look. ``--large`` measures the perturbed weights of both sides at least 256
alone, cold, and trains nothing: orthogonal weights with noise are the hard case, and large ones take most of the time.

The sets: *perturbed*, orthogonal plus normal noise of standard deviation 0.02 (at the orthogonal start every value is
1 and there is nothing to find); *trained*, after 11 training steps; warm methods start from what they found, or from
the exact vectors, after step 10. A method's time is the sum over weights of the medians over repeats; its error the
worst relative one of all values, against float64.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.steps.plain_biggan import Discriminator, Generator, initialize, train, weights
from benchmarks.timing import add_clock_option, clock_of, machine
from gan_blocks import top_singular_triplets

PARAMETERS = {96: (70_433_988, 87_982_370), 64: (31_978_628, 39_448_258)}
Weights = dict[str, Tensor]
# Takes weights of one shape and what `prepare` made of their predecessors; returns values (n, 3 or fewer).
Method = Callable[[list[Tensor], Any], Any]


def count(weight: Tensor) -> int:
    """How many values to ask for."""
    return min(3, len(weight), weight[0].numel())


def ours(tol: float) -> Method:
    """The library's function, on all weights of a shape in one call."""
    return lambda group, start: top_singular_triplets(group, count(group[0]), tol=tol, start=start).s


def ours_before(tol: float) -> Method:
    """Start vectors: what the library found a step earlier."""
    return lambda group, _: top_singular_triplets(group, count(group[0]), tol=tol)


def one_by_one(values: Callable[[Tensor], Any]) -> Method:
    """Apply to each weight what takes only one."""
    return lambda group, _: [values(weight) for weight in group]


def arpack(tol: float) -> Method:
    """Scipy's sparse solver, with its default tolerance when 0."""

    def values(weight: Tensor) -> Any:
        from scipy.sparse.linalg import svds  # type: ignore[import-untyped]  # no other method shall load it

        if min(weight.shape) <= 3:  # ARPACK finds fewer than all
            return np.linalg.svd(weight.numpy(), compute_uv=False)
        return svds(weight.numpy(), k=3, tol=tol, rng=np.random.default_rng(0))[1][::-1].copy()

    return one_by_one(values)


def gram_eigenvalues(weight: Tensor) -> Tensor:
    """Roots of the eigenvalues of the smaller Gram matrix."""
    side = weight if weight.shape[0] <= weight.shape[1] else weight.T
    values: Tensor = torch.linalg.eigvalsh(side @ side.T)
    return values.flip(0)[: count(weight)].clamp(min=0).sqrt()


def low_rank(weight: Tensor) -> Tensor:
    """Torch's randomized decomposition."""
    values: Tensor = torch.svd_lowrank(weight, q=min(8, *weight.shape), niter=4)[1]
    return values[: count(weight)]


def vectors_before(group: list[Tensor], _: Any) -> Tensor:
    """Left vectors of a step earlier, to more digits than matter."""
    return top_singular_triplets(group, count(group[0]), tol=1e-6).u


def power_step(group: list[Tensor], u: Tensor) -> list[Tensor]:
    """One step of block power iteration from the vectors before, as spectral norm does when it follows three."""
    return [torch.linalg.svdvals(torch.linalg.qr((rows @ w).T).Q.T @ w.T) for rows, w in zip(u, group, strict=True)]


class Case(NamedTuple):
    """A method, what prepares its start from the weights of a step before, and whether it gets few weights."""

    method: Method
    prepare: Method | None = None
    one_of_each_shape: bool = False


CASES = {
    "ours, cold, tol 1e-4 (default)": Case(ours(1e-4)),
    "ours, cold, tol 1e-3": Case(ours(1e-3)),
    "ours, cold, tol 5e-3": Case(ours(5e-3)),
    "scipy svds (ARPACK), default tol": Case(arpack(0)),
    "scipy svds (ARPACK), tol 1e-3": Case(arpack(1e-3)),
    "Gram + eigvalsh": Case(one_by_one(gram_eigenvalues)),
    "torch.svd_lowrank, q 8, niter 4": Case(one_by_one(low_rank)),
    "ours, warm, tol 1e-4": Case(ours(1e-4), ours_before(1e-4)),
    "ours, warm, tol 1e-3": Case(ours(1e-3), ours_before(1e-3)),
    "ours, warm, tol 1e-2": Case(ours(1e-2), ours_before(1e-2)),
    "power iteration, 3 vectors, one warm step": Case(power_step, vectors_before),
    "ours, cold, tol 1e-4, one weight of each shape": Case(ours(1e-4), None, True),
    "ours, cold, tol 1e-3, one weight of each shape": Case(ours(1e-3), None, True),
    "ours, cold, tol 5e-3, one weight of each shape": Case(ours(5e-3), None, True),
    "torch.linalg.svdvals, one weight of each shape": Case(one_by_one(torch.linalg.svdvals), None, True),
}
RATIOS = [
    ("ARPACK / ours, both cold", "scipy svds (ARPACK), default tol", "ours, cold, tol 1e-4 (default)"),
    ("ARPACK / ours, both cold and tol 1e-3", "scipy svds (ARPACK), tol 1e-3", "ours, cold, tol 1e-3"),
    ("ARPACK / ours, cold, tol 5e-3", "scipy svds (ARPACK), default tol", "ours, cold, tol 5e-3"),
    ("ARPACK / ours warm, tol 1e-4", "scipy svds (ARPACK), default tol", "ours, warm, tol 1e-4"),
    ("ARPACK / ours warm, tol 1e-3", "scipy svds (ARPACK), default tol", "ours, warm, tol 1e-3"),
    ("ARPACK / ours warm, tol 1e-2", "scipy svds (ARPACK), default tol", "ours, warm, tol 1e-2"),
    *(
        (
            f"svdvals / ours, cold, tol {tol}",
            "torch.linalg.svdvals, one weight of each shape",
            f"ours, cold, tol {tol}, one weight of each shape",
        )
        for tol in ("1e-4", "1e-3", "5e-3")
    ),
]


LARGE = 256


def is_large(weight: Tensor) -> bool:
    """Whether no side is short."""
    return min(len(weight), weight[0].numel()) >= LARGE


def make_weights(folder: Path, channels: int, steps: int, batch: int, *, large: bool) -> None:
    """Save the sets of weights as NumPy archives; with ``large`` the perturbed ones alone."""
    generator = torch.Generator().manual_seed(0)
    g, d = Generator(channels), Discriminator(channels)
    counts = tuple(sum(p.numel() for p in model.parameters()) for model in (g, d))
    if PARAMETERS.get(channels, counts) != counts:
        raise SystemExit(f"the networks have {counts} parameters, BigGAN-128 has {PARAMETERS[channels]}")
    initialize(g, generator)
    initialize(d, generator)
    save(
        folder / "perturbed",
        {
            name: weight + 0.02 * torch.randn(weight.shape, generator=generator)
            for name, weight in weights(g, d).items()
            if not large or is_large(weight)
        },
    )
    if large:
        return
    for step in train(g, d, batch=batch):
        print(f"step {step} of {steps + 1}", file=sys.stderr)
        if step == steps:
            save(folder / "before", weights(g, d))
        if step > steps:
            break
    save(folder / "trained", weights(g, d))


def save(path: Path, tensors: Weights) -> None:
    """Keep matrices and what is true of them; the files appear only when they are whole."""
    arrays = {name: weight.flatten(1).numpy() for name, weight in tensors.items()}
    np.savez(path.with_suffix(".part.npz"), **arrays)  # type: ignore[arg-type]
    path.with_suffix(".part.npz").rename(path.with_suffix(".npz"))
    truth = {name: exact(weight.flatten(1)) for name, weight in tensors.items()}
    path.with_suffix(".json").write_text(json.dumps(truth))


def exact(weight: Tensor) -> list[float]:
    """Compute the values in float64."""
    side = weight.double() if weight.shape[0] <= weight.shape[1] else weight.double().T
    values: list[float] = torch.linalg.eigvalsh(side @ side.T).flip(0)[: count(weight)].clamp(min=0).sqrt().tolist()
    return values


def load(path: Path, only_one_of_each_shape: bool) -> dict[tuple[int, ...], Weights]:
    """Return the matrices by shape and name."""
    groups: dict[tuple[int, ...], Weights] = defaultdict(dict)
    for name, array in np.load(path.with_suffix(".npz")).items():
        if not (only_one_of_each_shape and array.shape in groups):
            groups[array.shape][name] = torch.from_numpy(array)
    return groups


def measure(folder: Path, weight_set: str, name: str, repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Run one method over one set of weights, in this process."""
    case = CASES[name]
    truth = json.loads((folder / f"{weight_set}.json").read_text())
    groups = load(folder / weight_set, case.one_of_each_shape)
    before = load(folder / "before", case.one_of_each_shape) if case.prepare else {}
    seconds = worst = 0.0
    for shape, group in groups.items():
        start = case.prepare(list(before[shape].values()), None) if case.prepare else None
        times = []
        for _ in range(repeats + 1):  # the first is not counted: it loads libraries
            began = clock()
            found = case.method(list(group.values()), start)
            times.append(clock() - began)
        seconds += statistics.median(times[1:])
        for weight_name, values in zip(group, found, strict=True):
            expected = np.array(truth[weight_name])
            worst = max(worst, float(np.abs(np.asarray(values)[: len(expected)] / expected - 1).max()))
    return {"seconds": seconds, "worst": worst}


def report(folder: Path, weight_set: str, repeats: int, only: str, *, cpu_time: bool) -> None:
    """Measure every method in a process of its own: the spinning threads of one library disturb the next."""
    print(
        f"\n{weight_set} weights, {repeats} repeats\n\n| method | seconds | worst relative error |\n| --- | --- | --- |"
    )
    seconds = {}
    for name, case in CASES.items():
        if not re.search(only, name) or (case.prepare is not None and weight_set != "trained"):
            continue
        command = [sys.executable, "-m", "benchmarks.parts.singular_values", "--folder", str(folder)]
        command += ["--repeats", str(1 if "svdvals" in name else repeats), "--measure", weight_set, name]
        command += ["--cpu-time"] if cpu_time else []
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        seconds[name] = result["seconds"]
        print(f"| {name} | {result['seconds']:.3f} | {result['worst']:.1e} |", flush=True)
    print("\n| ratio of times | |\n| --- | --- |")
    for title, slow, fast in RATIOS:
        if slow in seconds and fast in seconds:
            print(f"| {title} | {seconds[slow] / seconds[fast]:.1f} |")


def main() -> None:
    """Parse the options, make the weights if needed, print the tables."""
    summary, *_ = (__doc__ or "").split("\n")
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--channels", type=int, default=96, help="channel multiplier of BigGAN-128")
    parser.add_argument("--steps", type=int, default=10, help="training steps before the measured one")
    parser.add_argument("--batch", type=int, default=4, help="images in a training step")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median counts")
    parser.add_argument("--folder", type=Path, help="where weights are kept and looked for")
    parser.add_argument("--large", action="store_true", help="large perturbed weights alone")
    parser.add_argument("--only", default="", help="measure only methods whose name this regular expression matches")
    add_clock_option(parser)
    parser.add_argument("--measure", nargs=2, metavar=("SET", "METHOD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        clock = clock_of(options)
        weight_set, name = options.measure
        print(json.dumps(measure(options.folder, weight_set, name, options.repeats, clock)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        sets = ("perturbed",) if options.large else ("perturbed", "trained")
        if not (folder / f"{sets[-1]}.json").exists():
            make_weights(folder, options.channels, options.steps, options.batch, large=options.large)
        print(f"BigGAN-128, {machine()}")
        for weight_set in sets:
            report(folder, weight_set, options.repeats, options.only, cpu_time=options.cpu_time)


if __name__ == "__main__":
    main()
