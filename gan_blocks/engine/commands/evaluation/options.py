"""The options of ``gan-blocks evaluate``.

Tested in ``tests/engine/commands/test_evaluate.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gan_blocks.engine.base.checks import Fields, check_threads, require, require_at_least, require_positive
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.evaluation.features.choice import features_at_hand, parse_features
from gan_blocks.engine.recipe.next_steps import Steps, console_command, of_run
from gan_blocks.engine.sampling.inference import SamplingPrecision
from gan_blocks.engine.sampling.samples import TruncationKind, check_truncation

__all__ = ["Options", "one_run_each"]


@dataclass(frozen=True)
class Options(Fields):
    """What to evaluate, and how."""

    run: Path | None = None
    """Folder of a run; the moving average of its newest checkpoint is evaluated, with standing statistics. Several:
    each is, and a table compares them."""

    images: str | None = None
    """Images to evaluate instead of a run: a folder, an .npz file, a store, or a source as --data names it."""

    against: str | None = None
    """The real images to compare --images with."""

    recipe: str | None = None
    """The recipe that made the run, or those of several, where it is none that is registered: its file (my_gan.py) or
    module."""

    num: int | None = None
    """How many samples, classes evenly (default: 1000, or two of each class where these are more)."""

    truncation: float | None = None
    """Truncate z: less is better looking and less varied (default: no truncation)."""

    truncation_by: TruncationKind | None = None
    """What the number means. threshold: components beyond it are drawn again (the paper's, default). scaled: it times a
    normal distribution cut at 2 (the released models')."""

    truncation_sweep: tuple[float, ...] = ()
    """Evaluate at each of these truncations, too, and draw quality against variety; needs --features."""

    features: str | None = None
    """Compare features, too, of efflite0-SIDE or efflite2-SIDE, of the classifier of the real images (classifier), of a
    TorchScript file (net.pt@SIDE) or of a function (module:function@SIDE)."""

    cache: Path | None = None
    """Where to keep features and figures of the real images (default: in the run, if --features is given)."""

    resolution: int | None = None
    """Side to which --images and --against are brought (default: that of --images)."""

    seed: int = 0
    """Seed of the latents, of the classifier, of patches and pairs."""

    data: str | None = None
    """Where the real images are, when they have moved since the training."""

    precision: SamplingPrecision = "fp32"
    """Draw the samples in fp32 or bf16 (autocast, faster where the processor has it)."""

    out: Path | None = None
    """A .json for the figures (default: evaluation.json in the run, or here)."""

    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, ... or auto."""

    threads: int | None = None
    """CPU threads (default: torch's choice); another number gives other last bits."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if self.num is not None:
            require_at_least(self, 2, "num")
        require(self, "seed", -(2**63) <= self.seed < 2**63, "a whole number of 64 bits")
        check_threads(self.threads)
        check_truncation(min(self.truncation_sweep, default=self.truncation), self.truncation_by)
        require_positive(self, "resolution")
        if self.out is not None and self.out.suffix != ".json":
            raise UserError(f"--out must end in .json, but got {self.out}.")
        if self.features is not None:
            parse_features(self.features)
        self._check_what()
        if self.truncation_sweep:
            self._check_sweep()

    def next_steps(self, num_classes: int) -> Steps:
        """What else there is to measure, and to look at."""
        if self.run is None:
            what: list[object] = ["--images", self.images, "--against", self.against]
            what += [] if self.resolution is None else ["--resolution", self.resolution]
        else:
            what = [*of_run(self.run, self.recipe), *([] if self.data is None else ["--data", self.data])]
        steps: dict[str, Sequence[object]] = {}
        if self.run is not None:
            steps["report"] = [self.run / "report.html"]
            steps["nearest images"] = console_command("neighbors", *what)
        if self.features is None and (features := features_at_hand(num_classes)) is not None:
            steps["what a network sees"] = console_command("evaluate", *what, "--features", features)
        return steps

    def _check_what(self) -> None:
        if self.images is None and self.against is None:
            if self.run is None:
                raise UserError("--run must be given. See --help.")
            if self.resolution is not None:
                raise UserError("--resolution is for --images and --against; a run has one.")
            return
        if self.images is None or self.against is None:
            raise UserError("--images and --against are given together, without --run.")
        of_runs = ("run", "recipe", "num", "truncation", "data")
        given = [name for name in of_runs if getattr(self, name) is not None]
        if given or self.precision != "fp32":
            raise UserError(f"--{next(iter(given), 'precision')} is for a run, but --images gives the images.")

    def _check_sweep(self) -> None:
        if self.run is None:
            raise UserError("--truncation-sweep is for a run, but --images gives the images.")
        if self.features is None:
            raise UserError("--truncation-sweep needs --features, whose scores it draws.")
        if self.truncation is not None:
            raise UserError("--truncation-sweep names all truncations: leave out --truncation.")
        for truncation in self.truncation_sweep:
            require(self, "truncation_sweep", 0 < truncation < float("inf"), "finite numbers greater than 0")


def one_run_each(args: Sequence[str]) -> list[list[str]]:
    """The command lines of ``--run A B``: one with ``--run A``, and one with ``--run B``."""
    before: list[str] = []
    runs: list[str] = []
    taking = False
    for word in args:
        if word == "--run":
            taking = True
        elif taking and not word.startswith("--"):
            runs.append(word)
        else:
            taking = False
            before.append(word)
    if len(runs) < 2:
        return [list(args)]
    if len(set(runs)) < len(runs):
        raise UserError(f"--run must name each run once, but got {' '.join(runs)}.")
    return [["--run", run, *before] for run in runs]
