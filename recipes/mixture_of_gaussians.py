"""Mixture of Gaussians: what top-k training does to quality and mode dropping (Sinha et al. 2020, section 4, Table 1).

Generator and discriminator are perceptrons that learn a grid of narrow Gaussians in the plane with the non-saturating
loss. Plain and top-k training of several seeds run side by side as one batched computation; both arms of a seed begin
with the same weights and see the same samples, and each learns what it would learn alone, up to rounding.

What the paper leaves out is fixed here, once: the modes are a centred square grid of spacing 2, z is N(0, I) in two
dimensions, the networks have four hidden layers with ReLU, Adam has its usual betas.
"""

import io
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
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
from recipes._engine.random_streams import random_stream, seeded_construction
from recipes._engine.replicas import ReplicatedMLP, perceptron
from recipes._engine.run_folder import RunFolder, compare_configs

__all__ = ["Config", "Options", "Replicas", "build_replicas", "main", "train_step"]

NAME = "mixture_of_gaussians"
TABLE_1 = ((25, 3), (64, 2), (100, 2))  # modes and seeds


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


@dataclass(frozen=True)
class Options:
    """How the run is carried out; may change when it is continued."""

    run_dir: Path | None = None
    """Folder of the run; the same command continues what it holds (default: runs/mixture_of_gaussians-MODES)."""
    steps: int | None = None
    """Stop when the run has this many steps in all (default: --planned-steps)."""
    threads: int | None = None
    """CPU threads (default: torch's choice)."""
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
class Replicas:
    """All networks of a run. Replica ``arm * seeds + s`` is that arm's of seed s; the plain arm comes first."""

    config: Config
    generator: ReplicatedMLP
    discriminator: ReplicatedMLP
    optimizer_g: optim.Optimizer
    optimizer_d: optim.Optimizer

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms in their order."""
        return ("plain", "top-k") if self.config.arms == "both" else (self.config.arms,)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything to save, by file name."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer_g": flatten_optimizer(self.optimizer_g, self.generator),
            "optimizer_d": flatten_optimizer(self.optimizer_d, self.discriminator),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Bring back what :meth:`tensors` gave, bit for bit."""
        load_weights(self.generator, checkpoint.tensors["generator"], "generator")
        load_weights(self.discriminator, checkpoint.tensors["discriminator"], "discriminator")
        restore_optimizer(self.optimizer_g, self.generator, checkpoint.tensors["optimizer_g"])
        restore_optimizer(self.optimizer_d, self.discriminator, checkpoint.tensors["optimizer_d"])

    def samples(self, count: int) -> Tensor:
        """The same latents through every generator of a seed, ``(arms, seeds, count, 2)``."""
        shape = (count, self.config.latent_dim)
        z = [torch.randn(shape, generator=random_stream(seed, "evaluation")) for seed in _seeds(self.config)]
        with torch.no_grad():
            points: Tensor = self.generator(torch.stack(z).repeat(len(self.arms), 1, 1))
        return rearrange(points, "(arm seed) sample xy -> arm seed sample xy", arm=len(self.arms))


def build_replicas(config: Config) -> Replicas:
    """Fresh networks; those of a seed are the same in both arms and in any number of seeds."""
    hidden, arms = [config.hidden_units] * 4, 2 if config.arms == "both" else 1
    networks = []
    for name, widths in (("generator", [config.latent_dim, *hidden, 2]), ("discriminator", [2, *hidden, 1])):
        replicas = []
        for seed in _seeds(config):
            with seeded_construction(seed, name):
                replicas.append(perceptron(widths))
        networks.append(ReplicatedMLP(replicas * arms))
    of_g, of_d = (optim.Adam(network.parameters(), lr=config.learning_rate, fused=True) for network in networks)
    return Replicas(config, networks[0], networks[1], of_g, of_d)


def train_step(replicas: Replicas, step: int, schedule: TopKSchedule, centres: Tensor) -> dict[str, Tensor]:
    """One update of every D, then of every G; the losses of each replica, ``(arms, seeds)``."""
    config, arms = replicas.config, len(replicas.arms)
    draws = [_draw(config, centres, seed, step) for seed in _seeds(config)]
    real, z_d, z_g = (torch.stack(tensors).repeat(arms, 1, 1) for tensors in zip(*draws, strict=True))

    with torch.no_grad():
        fake = replicas.generator(z_d)
    real_logits, fake_logits = replicas.discriminator(torch.cat([real, fake], dim=1)).squeeze(-1).chunk(2, dim=1)
    losses_d = torch.vmap(lambda real, fake: non_saturating_discriminator_loss(real_logits=real, fake_logits=fake))(
        real_logits, fake_logits
    )
    replicas.optimizer_d.zero_grad()
    losses_d.sum().backward()
    replicas.optimizer_d.step()

    k = schedule.k(steps=step - 1)
    replicas.discriminator.requires_grad_(False)
    logits = replicas.discriminator(replicas.generator(z_g)).squeeze(-1)
    losses_g = torch.cat([_generator_losses(part, k) for part in _arm_logits(logits, replicas.arms)])
    replicas.optimizer_g.zero_grad()
    losses_g.sum().backward()
    replicas.optimizer_g.step()
    replicas.discriminator.requires_grad_(True)
    return {"loss_d": losses_d.detach(), "loss_g": losses_g.detach()}


def _arm_logits(logits: Tensor, arms: Sequence[str]) -> list[tuple[str, Tensor]]:
    return list(zip(arms, logits.chunk(len(arms)), strict=True))


def _generator_losses(arm_logits: tuple[str, Tensor], k: int) -> Tensor:
    """The loss of each replica of an arm: over the whole batch, or over the k best."""
    arm, logits = arm_logits
    if arm == "top-k" and k < logits.shape[1]:
        mask = top_k_mask(logits, k)
        if int(mask.sum()) != k * len(logits):
            raise UserError("a logit is not a number: the training has diverged. Try a lower --learning-rate.")
        logits = logits[mask].unflatten(0, (-1, k))
    losses: Tensor = torch.vmap(lambda row: non_saturating_generator_loss(fake_logits=row))(logits)
    return losses


def _draw(config: Config, centres: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Real samples, latents for D's update and for G's, a function of seed and step alone."""
    stream = random_stream(seed, "step", step)
    modes = torch.randint(config.modes, (config.batch_size,), generator=stream)
    real = centres[modes] + config.std * torch.randn(config.batch_size, 2, generator=stream)
    z = torch.randn(2, config.batch_size, config.latent_dim, generator=stream)
    return real, z[0], z[1]


def _seeds(config: Config) -> range:
    return range(config.seed, config.seed + config.seeds)


def evaluate(replicas: Replicas) -> dict[str, list[list[float]]]:
    """High-quality share and share of recovered modes of each arm and seed, in per cent."""
    config, centres = replicas.config, replicas.config.centres()
    found = [
        [mode_coverage(points, centres, radius=4 * config.std) for points in arm]
        for arm in replicas.samples(config.evaluation_samples)
    ]
    return {
        "high_quality": [[100 * coverage.high_quality for coverage in arm] for arm in found],
        "recovered": [[100 * coverage.recovered for coverage in arm] for arm in found],
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
        self.replicas = build_replicas(config)
        self.step = self._restore()
        self.last_step = config.planned_steps if options.steps is None else options.steps
        self._saved_step = self.step
        self._metadata = self.folder.metadata()

    def carry_out(self, stop: StopRequest) -> dict[str, list[list[float]]] | None:
        """Train to the end and evaluate; None when a signal came first."""
        self.folder.truncate_log(after_step=self.step)
        self.folder.append_log({"event": "start", "step": self.step, "torch": torch.__version__})
        schedule, centres = self.config.schedule(), self.config.centres()
        bar = tqdm(total=self.last_step, initial=self.step, unit="step", dynamic_ncols=True, desc=self.folder.path.name)
        with bar:
            while self.step < self.last_step and not stop.signal:
                self.step += 1
                losses = train_step(self.replicas, self.step, schedule, centres)
                bar.update()
                if self.step % self.options.log_every == 0:
                    self._log(losses, schedule)
                if self.step % self.options.evaluate_every == 0 and self.step < self.last_step:
                    self._evaluate()
                if self.step % self.options.checkpoint_every == 0:
                    self._save()
        if self.step > self._saved_step or self.step == 0:
            self._save()
        return None if stop.signal and self.step < self.last_step else self._evaluate()

    def analyse(self) -> None:
        """Write what one update from the best and from the worst samples does, of the plain arm."""
        count = self.config.seeds
        g, d = self.replicas.generator, self.replicas.discriminator
        found = [
            analyse(
                g.select(seed),
                d.select(seed),
                centres=self.config.centres(),
                std=self.config.std,
                z=torch.randn(
                    10_000, self.config.latent_dim, generator=random_stream(self.config.seed + seed, "analysis")
                ),
                learning_rate=self.config.learning_rate,
            )
            for seed in range(count)
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
        self.replicas.restore(checkpoint)
        return checkpoint.step

    def _log(self, losses: dict[str, Tensor], schedule: TopKSchedule) -> None:
        values = {name: loss.tolist() for name, loss in losses.items()}
        if not all(math.isfinite(value) for row in values.values() for value in row):
            raise UserError(f"a loss is not finite at step {self.step}. Try a lower --learning-rate.")
        self.folder.append_log({"step": self.step, "k": schedule.k(steps=self.step - 1), **values})

    def _save(self) -> None:
        save_checkpoint(self.folder.checkpoints, self.step, self.replicas.tensors(), {}, self._metadata, keep_last=2)
        self._saved_step = self.step

    def _evaluate(self) -> dict[str, list[list[float]]]:
        result = evaluate(self.replicas)
        self.folder.append_log({"event": "evaluation", "step": self.step, "arms": self.replicas.arms, **result})
        _draw_samples(self.folder.samples_path(self.step), self.replicas, result)
        return result


def _draw_samples(path: Path, replicas: Replicas, result: dict[str, list[list[float]]]) -> None:
    """A picture of each arm and seed: samples over the modes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    config, points = replicas.config, replicas.samples(2000)
    figure = Figure(figsize=(4 * config.seeds, 4.3 * len(replicas.arms)), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(replicas.arms), config.seeds, sharex=True, sharey=True, squeeze=False)
    reach = config.centres().max().item() + config.spacing / 2
    for arm, row in enumerate(grid):
        for number, axes in enumerate(row):
            x, y = config.centres().T
            axes.scatter(x, y, s=60, facecolors="none", edgecolors="tab:orange", linewidths=0.8)
            x, y = points[arm, number].T
            axes.scatter(x, y, s=1, color="tab:blue", linewidths=0)
            quality, modes = (result[name][arm][number] for name in ("high_quality", "recovered"))
            title = f"{replicas.arms[arm]}, seed {config.seed + number}: {quality:.1f} % near, {modes:.0f} % of modes"
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
            session.replicas.arms, result["high_quality"], result["recovered"], strict=True
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
