"""Mixture of Gaussians: what top-k training does to quality and mode dropping (Sinha et al. 2020, section 4, Table 1).

Generator and discriminator are perceptrons that learn a grid of narrow Gaussians in the plane with the non-saturating
loss. Plain and top-k training of several seeds run side by side, one on each core; both arms of a seed begin with the
same weights and see the same samples, and each learns what it would learn alone.

What the paper leaves out is fixed here, once: the modes are a centred square grid of spacing 2, z is N(0, I) in two
dimensions, the networks have four hidden layers with ReLU, Adam has its usual betas.
"""

import io
import math
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, optim
from tqdm import tqdm

from gan_blocks import (
    TopKSchedule,
    mode_coverage,
    non_saturating_discriminator_loss,
    non_saturating_generator_loss,
    top_k_mask,
)
from recipes._engine.checkpoints import (
    Checkpoint,
    flatten_optimizer,
    list_checkpoints,
    load_latest_checkpoint,
    load_weights,
    remove_stale_temporaries,
    restore_optimizer,
    save_checkpoint,
)
from recipes._engine.command_line import parse_options, run_command
from recipes._engine.config_checks import require, require_positive, require_within
from recipes._engine.durable_files import replace_durably, writing_error
from recipes._engine.errors import UserError
from recipes._engine.interrupts import StopRequest
from recipes._engine.mixture_analysis import analyse, draw_analysis, tabulate_analysis
from recipes._engine.mixture_table import Row, tabulate
from recipes._engine.perceptrons import Perceptron
from recipes._engine.random_streams import random_stream, seeded_construction
from recipes._engine.run_folder import RunFolder, compare_configs
from recipes._engine.workers import side_by_side

__all__ = ["Config", "Gan", "Options", "build_gans", "main", "train_step", "train_steps"]

NAME = "mixture_of_gaussians"
TABLE_1 = ((25, 3), (64, 2), (100, 2))  # modes and seeds
ROUND_SECONDS = 2.0  # between two looks for a signal; to hand a GAN to a process and back takes about a step's time


@dataclass(frozen=True)
class Config:
    """What is trained; fixed once a run has started."""

    modes: int = 25
    """Number of Gaussians: a square number, for they stand on a square grid."""
    spacing: float = 2.0
    """Distance between neighbouring modes."""
    std: float = 0.05
    """Standard deviation of each Gaussian in both directions."""
    seeds: int = 1
    """How many seeds to train at once, from --seed on."""
    arms: Literal["both", "plain", "top-k"] = "both"
    """Plain training, top-k training, or both from the same weights on the same samples."""
    hidden_units: int = 256
    """Width of each of the four hidden layers of both networks."""
    latent_dim: int = 2
    """Dimension of z."""
    batch_size: int = 256
    """Samples in a batch."""
    learning_rate: float = 1e-4
    """Adam's learning rate for both networks."""
    top_k_gamma: float = 0.99
    """Factor by which k decays, greater than 0, at most 1."""
    top_k_floor: float = 0.75
    """Least k as a share of the batch."""
    top_k_period: int = 2000
    """Steps from one decay of k to the next."""
    planned_steps: int = 100_000
    """Length of the run, in updates of each network, unless --steps says otherwise."""
    evaluation_samples: int = 10_000
    """Samples of each generator that an evaluation looks at."""
    seed: int = 0
    """The first seed. All randomness is a function of the seed, the step and the purpose."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        require(self, "modes", self.modes > 0 and math.isqrt(self.modes) ** 2 == self.modes, "a square number")
        require_positive(self, "spacing", "std", "seeds", "hidden_units", "latent_dim", "batch_size", "learning_rate")
        require_positive(self, "top_k_period", "planned_steps", "evaluation_samples")
        require(self, "top_k_gamma", 0 < self.top_k_gamma <= 1, "greater than 0 and at most 1")
        require(self, "top_k_floor", 0 < self.top_k_floor <= 1, "greater than 0 and at most 1")
        require_within(self, 0, 2**31, "seed")

    def schedule(self) -> TopKSchedule:
        """How k falls."""
        return TopKSchedule(
            batch_size=self.batch_size,
            gamma=self.top_k_gamma,
            floor_share=self.top_k_floor,
            decay_steps=self.top_k_period,
        )

    def centres(self) -> Tensor:
        """The modes, ``(modes, 2)``."""
        side = math.isqrt(self.modes)
        axis = (torch.arange(side) - (side - 1) / 2) * self.spacing
        return torch.cartesian_prod(axis, axis)

    def arm_names(self) -> tuple[str, ...]:
        """The arms in their order."""
        return ("plain", "top-k") if self.arms == "both" else (self.arms,)

    def all_seeds(self) -> range:
        """The seeds in their order."""
        return range(self.seed, self.seed + self.seeds)

    def by_arm(self, values: list[float]) -> list[list[float]]:
        """Split what there is for each GAN by arm, then seed."""
        return [values[first : first + self.seeds] for first in range(0, len(values), self.seeds)]


@dataclass(frozen=True)
class Options:
    """How the run is carried out; may change when it is continued."""

    run_dir: Path | None = None
    """Folder of the run; the same command continues what it holds (default: runs/mixture_of_gaussians-MODES)."""
    steps: int | None = None
    """Stop when the run has this many steps in all (default: --planned-steps)."""
    threads: int | None = None
    """CPU threads, shared by processes that train GANs of their own (default: torch's choice)."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; one is also written at the end and on SIGINT or SIGTERM."""
    evaluate_every: int = 10_000
    """Steps between evaluations with a picture; one is also made at the end."""
    log_every: int = 100
    """Steps between lines of log.jsonl."""
    analysis: bool = False
    """At the end, measure how one update from the best or the worst samples moves samples (Figures 2 and 3)."""
    table: Path | None = None
    """Train all of Table 1 (25, 64, 100 modes; 3, 2, 2 seeds) in sub-folders of --run-dir; write it to this file."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        for name in ("steps", "threads", "checkpoint_every", "evaluate_every", "log_every"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"--{name.replace('_', '-')} must be greater than 0, but got {value}.")


@dataclass(frozen=True)
class Gan:
    """A generator and a discriminator, which learn by themselves."""

    arm: str
    seed: int
    generator: Perceptron
    discriminator: Perceptron
    optimizer_g: optim.Optimizer
    optimizer_d: optim.Optimizer

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything to save, by file and name."""
        parts = {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer_g": flatten_optimizer(self.optimizer_g, self.generator),
            "optimizer_d": flatten_optimizer(self.optimizer_d, self.discriminator),
        }
        return {part: {self._prefix + name: tensor for name, tensor in own.items()} for part, own in parts.items()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Bring back what :meth:`tensors` gave, bit for bit."""
        own = {
            part: {name.removeprefix(self._prefix): t for name, t in tensors.items() if name.startswith(self._prefix)}
            for part, tensors in checkpoint.tensors.items()
        }
        who = f"{self.arm}, seed {self.seed}"
        load_weights(self.generator, own["generator"], f"the generator of {who}")
        load_weights(self.discriminator, own["discriminator"], f"the discriminator of {who}")
        restore_optimizer(self.optimizer_g, self.generator, own["optimizer_g"], f"the generator's optimizer of {who}")
        restore_optimizer(
            self.optimizer_d, self.discriminator, own["optimizer_d"], f"the discriminator's optimizer of {who}"
        )

    def samples(self, count: int) -> Tensor:
        """The same latents in both arms of a seed, ``(count, 2)``."""
        stream = random_stream(self.seed, "evaluation")
        with torch.no_grad():
            points: Tensor = self.generator(torch.randn(count, self.generator.widths[0], generator=stream))
        return points

    @property
    def _prefix(self) -> str:
        return f"{self.arm}.seed_{self.seed}."


def build_gans(config: Config) -> list[Gan]:
    """Fresh networks, the seeds of one arm after those of the other; those of a seed are the same in both arms."""
    hidden, gans = [config.hidden_units] * 4, []
    for arm in config.arm_names():
        for seed in config.all_seeds():
            with seeded_construction(seed, "generator"):
                g = Perceptron([config.latent_dim, *hidden, 2])
            with seeded_construction(seed, "discriminator"):
                d = Perceptron([2, *hidden, 1])
            of_g, of_d = (optim.Adam(net.parameters(), lr=config.learning_rate, fused=True) for net in (g, d))
            gans.append(Gan(arm, seed, g, d, of_g, of_d))
    return gans


def train_step(gan: Gan, config: Config, step: int) -> tuple[Tensor, Tensor]:
    """One update of D, then of G; the loss of each."""
    real, z_d, z_g = _draw(config, gan.seed, step)
    g, d = gan.generator, gan.discriminator

    with torch.no_grad():
        fake = g(z_d)
    real_logits, fake_logits = d(torch.cat([real, fake])).squeeze(-1).chunk(2)
    loss_d = non_saturating_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
    gan.optimizer_d.zero_grad()
    loss_d.backward()
    gan.optimizer_d.step()

    d.requires_grad_(False)
    logits = d(g(z_g)).squeeze(-1)
    if gan.arm == "top-k":
        logits = _top(logits, config.schedule().k(steps=step - 1))
    loss_g = non_saturating_generator_loss(fake_logits=logits)
    gan.optimizer_g.zero_grad()
    loss_g.backward()
    gan.optimizer_g.step()
    d.requires_grad_(True)
    return loss_d.detach(), loss_g.detach()


def train_steps(gan: Gan, config: Config, first: int, last: int) -> tuple[Gan, tuple[float, float]]:
    """Take steps with the numbers from first to last; the GAN, wherever it was trained, and D's and G's last loss."""
    for step in range(first, last + 1):
        loss_d, loss_g = train_step(gan, config, step)
    return gan, (float(loss_d), float(loss_g))


def _top(logits: Tensor, k: int) -> Tensor:
    best = logits[top_k_mask(logits, k)]
    if len(best) != k:
        raise UserError("a logit is not a number: the training has diverged. Try a lower --learning-rate.")
    return best


def _draw(config: Config, seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Real samples, latents for D's update and for G's, a function of seed and step alone."""
    stream = random_stream(seed, "step", step)
    modes = torch.randint(config.modes, (config.batch_size,), generator=stream)
    real = config.centres()[modes] + config.std * torch.randn(config.batch_size, 2, generator=stream)
    z = torch.randn(2, config.batch_size, config.latent_dim, generator=stream)
    return real, z[0], z[1]


Scores = dict[str, list[list[float]]]
"""Measures by arm and seed."""


def evaluate(gans: Sequence[Gan], config: Config) -> Scores:
    """High-quality share and share of recovered modes of each arm and seed, in per cent."""
    found = [
        mode_coverage(gan.samples(config.evaluation_samples), config.centres(), radius=4 * config.std) for gan in gans
    ]
    return {
        "high_quality": config.by_arm([100 * coverage.high_quality for coverage in found]),
        "recovered": config.by_arm([100 * coverage.recovered for coverage in found]),
    }


class Session:
    """One session of training: from its start or last checkpoint to its end or a signal."""

    def __init__(self, config: Config, options: Options, folder: Path) -> None:
        self.config, self.options = config, options
        if RunFolder.holds_run(folder):
            self.folder = RunFolder.open(folder)
            if self.folder.recipe != NAME:
                raise UserError(f"{folder} holds a run of recipes.{self.folder.recipe}, not of recipes.{NAME}.")
            compare_configs(self.folder.config(), asdict(config))
        else:
            self.folder = RunFolder.create_at(folder, NAME, f"{config.modes}-modes", asdict(config))
        self.gans = build_gans(config)
        self.step = self._restore()
        self.last_step = config.planned_steps if options.steps is None else options.steps
        self._saved_step, self._round = self.step, 1
        self._metadata = self.folder.metadata()

    def carry_out(self, stop: StopRequest) -> Scores | None:
        """Train to the end and evaluate; None when a signal came first."""
        self.folder.truncate_log(after_step=self.step)
        self.folder.append_log({"event": "start", "step": self.step, "torch": torch.__version__})
        threads = torch.get_num_threads()
        workers = min(threads, len(self.gans))
        bar = tqdm(total=self.last_step, initial=self.step, unit="step", dynamic_ncols=True, desc=self.folder.path.name)
        with bar, side_by_side(workers, threads=threads // workers) as apply:
            while self.step < self.last_step and not stop.signal:
                first, last = self.step + 1, self._next_stop()
                work = partial(train_steps, config=self.config, first=first, last=last)
                began = time.monotonic()
                try:
                    self.gans, losses = map(list, zip(*apply(work, self.gans), strict=True))
                except BrokenProcessPool:
                    if stop.signal:  # it has reached a worker that was not yet deaf to it
                        break
                    raise UserError(f"a worker has died: the same command continues {self.folder.path}.") from None
                steps_a_second = (last - self.step) / (time.monotonic() - began)
                self._round = max(1, round(ROUND_SECONDS * steps_a_second))
                bar.update(last - self.step)
                self.step = last
                if self.step % self.options.log_every == 0:
                    self._log(losses)
                if self.step % self.options.evaluate_every == 0 and self.step < self.last_step:
                    self._evaluate()
                if self.step % self.options.checkpoint_every == 0:
                    self._save()
        if self.step > self._saved_step or self.step == 0:
            self._save()
        return None if stop.signal and self.step < self.last_step else self._evaluate()

    def analyse(self) -> None:
        """Write what one update from the best and from the worst samples does, of the plain arm."""
        found = [
            analyse(
                gan.generator,
                gan.discriminator,
                centres=self.config.centres(),
                std=self.config.std,
                z=torch.randn(10_000, self.config.latent_dim, generator=random_stream(gan.seed, "analysis")),
                learning_rate=self.config.learning_rate,
            )
            for gan in self.gans
            if gan.arm == "plain"
        ]
        text = tabulate_analysis(found, steps=self.step, modes=self.config.modes)
        _write(self.folder.path / "analysis.md", text.encode())
        draw_analysis(self.folder.path / "analysis.png", found)
        print(text)

    def _restore(self) -> int:
        remove_stale_temporaries(self.folder.checkpoints)
        if not list_checkpoints(self.folder.checkpoints):
            return 0
        checkpoint = load_latest_checkpoint(self.folder.checkpoints)
        for note in checkpoint.notes:
            tqdm.write(note, file=sys.stderr)
        for gan in self.gans:
            gan.restore(checkpoint)
        return checkpoint.step

    def _next_stop(self) -> int:
        """The next step after which there is something to do, soon enough for a signal to be heeded."""
        periods = (self.options.log_every, self.options.evaluate_every, self.options.checkpoint_every)
        due = [self.step - self.step % period + period for period in periods]
        return min(self.last_step, self.step + self._round, *due)

    def _log(self, losses: list[tuple[float, float]]) -> None:
        of_d, of_g = map(list, zip(*losses, strict=True))
        if not all(map(math.isfinite, of_d + of_g)):
            raise UserError(f"a loss is not finite at step {self.step}. Try a lower --learning-rate.")
        k = self.config.schedule().k(steps=self.step - 1)
        values = {"loss_d": self.config.by_arm(of_d), "loss_g": self.config.by_arm(of_g)}
        self.folder.append_log({"step": self.step, "k": k, **values})

    def _save(self) -> None:
        tensors: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for gan in self.gans:
            for part, own in gan.tensors().items():
                tensors[part] |= own
        save_checkpoint(self.folder.checkpoints, self.step, tensors, {}, self._metadata, keep_last=2)
        self._saved_step = self.step

    def _evaluate(self) -> Scores:
        result = evaluate(self.gans, self.config)
        self.folder.append_log({"event": "evaluation", "step": self.step, "arms": self.config.arm_names(), **result})
        _draw_samples(self.folder.samples_path(self.step), self.gans, self.config, result)
        return result


def _draw_samples(path: Path, gans: Sequence[Gan], config: Config, result: Scores) -> None:
    """A picture of each arm and seed: samples over the modes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(config.arm_names())
    figure = Figure(figsize=(4 * config.seeds, 4.3 * rows), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, config.seeds, sharex=True, sharey=True, squeeze=False).flatten()
    reach = config.centres().max().item() + config.spacing / 2
    for axes, gan, quality, modes in zip(grid, gans, *(chain(*result[name]) for name in result), strict=True):
        x, y = config.centres().T
        axes.scatter(x, y, s=60, facecolors="none", edgecolors="tab:orange", linewidths=0.8)
        x, y = gan.samples(2000).T
        axes.scatter(x, y, s=1, color="tab:blue", linewidths=0)
        title = f"{gan.arm}, seed {gan.seed}: {quality:.1f} % near, {modes:.0f} % of modes"
        axes.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.title.set_fontsize(9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    _write(path, picture.getvalue())


def _write(path: Path, data: bytes) -> None:
    try:
        replace_durably(path, data)
    except OSError as error:
        raise writing_error(path, error) from error


@dataclass(frozen=True)
class Command(Config, Options):
    """All options of the command line."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        Config.__post_init__(self)
        Options.__post_init__(self)


def _part(kind: type[Any], command: Command) -> Any:
    return kind(**{field.name: getattr(command, field.name) for field in fields(kind)})


def _train(command: Command) -> int:
    config, options = _part(Config, command), _part(Options, command)
    if options.analysis and config.arms == "top-k":
        raise UserError("--analysis looks at plain training: --arms must be plain or both.")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    folder = Path("runs") / f"{NAME}-{config.modes}" if options.run_dir is None else options.run_dir
    with StopRequest() as stop:
        if options.table is not None:
            return _train_table(
                config, options, Path("runs") / f"{NAME}-table" if options.run_dir is None else folder, stop
            )
        began = time.monotonic()
        session = Session(config, options, folder)
        result = session.carry_out(stop)
        if result is None:
            return _stopped(session, stop)
        for arm, quality, recovered in zip(
            config.arm_names(), result["high_quality"], result["recovered"], strict=True
        ):
            shown = ", ".join(f"{a:.1f} % / {b:.1f} %" for a, b in zip(quality, recovered, strict=True))
            print(f"{arm}: high quality / modes recovered, by seed: {shown}")
        if options.analysis:
            session.analyse()
        tqdm.write(f"Done at step {session.step}, after {time.monotonic() - began:.0f} s: {folder}", file=sys.stderr)
    return 0


def _train_table(config: Config, options: Options, folder: Path, stop: StopRequest) -> int:
    """Train the rows of Table 1 one after the other, each in its own run, and write the table."""
    if config.arms != "both":
        raise UserError("--table compares both arms: leave out --arms.")
    rows = []
    for modes, seeds in TABLE_1:
        session = Session(replace(config, modes=modes, seeds=seeds), options, folder / f"{modes}-modes")
        result = session.carry_out(stop)
        if result is None:
            return _stopped(session, stop)
        rows.append(Row(modes, seeds, session.step, result["high_quality"], result["recovered"]))
    text = tabulate(rows)
    assert options.table is not None
    _write(options.table, text.encode())
    print(text)
    return 0


def _stopped(session: Session, stop: StopRequest) -> int:
    line = f"Stopped at step {session.step}; the same command continues {session.folder.path}"
    tqdm.write(line, file=sys.stderr)
    return 128 + stop.signal


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or continue a run; see ``python -m recipes.mixture_of_gaussians --help``."""

    def command() -> int:
        prog = f"python -m recipes.{NAME}"
        return _train(parse_options(Command, prog=prog, description=__doc__ or "", args=argv))

    return run_command(NAME, command)


if __name__ == "__main__":
    raise SystemExit(main())
