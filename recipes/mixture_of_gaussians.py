"""Mixture of Gaussians: what top-k training does to quality and mode dropping (Sinha et al. 2020, section 4, Table 1).

Generator and discriminator are perceptrons that learn a grid of narrow Gaussians in the plane with the non-saturating
loss. Plain and top-k training of several seeds run side by side, one on each core; both arms of a seed begin with the
same weights and see the same samples, and each learns what it would learn alone.

What the paper leaves out are options: the modes are a centered square grid of spacing 2, divided by 2.828, z is N(0, I)
in two dimensions, the networks have four hidden layers with ReLU and start from torch's weights, Adam has its usual
betas, unless --divide-by, --latent-dim, --hidden-layers, --activation, --init, --adam-beta1 and --adam-beta2 say
otherwise. --study baseline compares them, by plain training alone: the defaults are what it chose.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn, optim
from tqdm import tqdm

from gan_blocks import (
    bce_discriminator_loss,
    non_saturating_generator_loss,
    top_k_mask,
)
from gan_blocks.engine import UserError
from gan_blocks.engine.base import (
    StopRequest,
    parse_options,
    random_stream,
    replace_durably,
    run_command,
    seeded_construction,
    use_threads,
)
from gan_blocks.engine.runs import RecipeIdentity
from gan_blocks.engine.studies import print_continuation
from recipes.mixtures.baseline import StudyStoppedError, study_baseline
from recipes.mixtures.config import Config
from recipes.mixtures.gans import Gan
from recipes.mixtures.networks import Perceptron, init_he_
from recipes.mixtures.session import MixtureOptions, MixtureSession
from recipes.mixtures.table import Row, tabulate

__all__ = ["Config", "Options", "build_gans", "main", "train_step", "train_steps"]

NAME = "mixture_of_gaussians"
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": partial(nn.LeakyReLU, 0.2),
    "tanh": nn.Tanh,
}
TABLE_1 = ((25, 5), (64, 3), (100, 3))  # modes and seeds


def build_gans(config: Config) -> list[Gan]:
    """Fresh networks, the seeds of one arm after those of the other; those of a seed are the same in both arms."""
    gans, betas = [], (config.adam_beta1, config.adam_beta2)
    for arm in config.arm_names():
        for seed in config.all_seeds():
            with seeded_construction(seed, "generator"):
                g = _network(config, inputs=config.latent_dim, outputs=2)
            with seeded_construction(seed, "discriminator"):
                d = _network(config, inputs=2, outputs=1)
            of_g, of_d = (
                optim.Adam(net.parameters(), lr=config.learning_rate, betas=betas, fused=True) for net in (g, d)
            )
            gans.append(Gan(arm, seed, g, d, of_g, of_d))
    return gans


def _network(config: Config, *, inputs: int, outputs: int) -> Perceptron:
    hidden = [config.hidden_units] * config.hidden_layers
    network = Perceptron([inputs, *hidden, outputs], ACTIVATIONS[config.activation])
    if config.init == "he":
        init_he_(network)
    return network


def train_step(gan: Gan, config: Config, step: int) -> tuple[Tensor, Tensor]:
    """One update of D, then of G; the loss of each."""
    real, z_d, z_g = _draw(config, gan.seed, step)
    g, d = gan.generator, gan.discriminator

    with torch.no_grad():
        fake = g(z_d)
    real_logits, fake_logits = d(torch.cat([real, fake])).squeeze(-1).chunk(2)
    loss_d = bce_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
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
    """Real samples, latents for D's update and for G's, a function of only seed and step."""
    stream = random_stream(seed, "step", step)
    modes = torch.randint(config.modes, (config.batch_size,), generator=stream)
    real = config.centers()[modes] + config.mode_std() * torch.randn(config.batch_size, 2, generator=stream)
    z = torch.randn(2, config.batch_size, config.latent_dim, generator=stream)
    return real, z[0], z[1]


@dataclass(frozen=True)
class Options(MixtureOptions):
    """How the run is carried out, and what is made of it; may change when it is continued."""

    analysis: bool = False
    """At the end, measure how one update from the best or the worst samples moves samples (Figures 2 and 3)."""
    table: Path | None = None
    """Train all of Table 1 (25, 64, 100 modes; 5, 3, 3 seeds) in sub-folders of --run-dir; write it to this file."""
    study: Literal["baseline"] | None = None
    """Compare the settings that the paper leaves out by plain training of 25 modes, 50,000 steps unless --steps says
    otherwise; table.md, study.json, settings.png and all runs are written to --run-dir."""


@dataclass(frozen=True)
class Command(Config, Options):
    """All options of the command line."""


def _part(kind: type[Any], command: Command) -> Any:
    return kind(**{field.name: getattr(command, field.name) for field in fields(kind)})


def _train(command: Command) -> int:
    config, options = _part(Config, command), _part(Options, command)
    if options.analysis and config.arms == "top-k":
        raise UserError("--analysis looks at plain training: --arms must be plain or both.")
    if options.table is not None and config.arms != "both":
        raise UserError("--table compares both arms: leave out --arms.")
    if options.study is not None and (config.arms == "top-k" or options.table is not None):
        raise UserError("--study looks at plain training: leave out --arms and --table.")
    for note in use_threads(options.threads):
        print(note)
    with StopRequest() as stop:
        if options.study is not None:
            return _study(config, options, options.run_dir or Path("runs") / f"{NAME}-{options.study}", stop)
        if options.table is not None:
            return _train_table(config, options, options.run_dir or Path("runs") / f"{NAME}-table", stop)
        return _train_one(config, options, options.run_dir or Path("runs") / f"{NAME}-{config.modes}", stop)


def _train_one(config: Config, options: Options, folder: Path, stop: StopRequest) -> int:
    began = time.monotonic()
    session = _session(config, options, folder)
    scores = session.carry_out(stop)
    if scores is None:
        return _stopped(session, stop)
    for arm, quality, recovered in zip(config.arm_names(), scores["high_quality"], scores["recovered"], strict=True):
        shown = ", ".join(f"{a:.1f} % / {b:.1f} %" for a, b in zip(quality, recovered, strict=True))
        print(f"{arm}: high quality / modes recovered, by seed: {shown}")
    if options.analysis:
        session.analyze()
    tqdm.write(f"Done at step {session.step}, after {time.monotonic() - began:.0f} s: {folder}", file=sys.stderr)
    return 0


def _train_table(config: Config, options: Options, folder: Path, stop: StopRequest) -> int:
    """Train the rows of Table 1 one after the other, each in its own run, and write the table."""
    rows = []
    for modes, seeds in TABLE_1:
        session = _session(replace(config, modes=modes, seeds=seeds), options, folder / f"{modes}-modes")
        scores = session.carry_out(stop)
        if scores is None:
            return _stopped(session, stop)
        rows.append(Row(modes, seeds, session.step, scores["high_quality"], scores["recovered"]))
    text = tabulate(rows)
    assert options.table is not None
    replace_durably(options.table, text.encode())
    print(text)
    return 0


def _study(config: Config, options: Options, folder: Path, stop: StopRequest) -> int:
    try:
        table = study_baseline(config, options, folder, session=_session, stop=stop)
    except StudyStoppedError:
        tqdm.write(f"Stopped: {folder}", file=sys.stderr)
        return 128 + stop.signal
    print(table.read_text(), end="")
    return 0


def _session(config: Config, options: MixtureOptions, folder: Path) -> MixtureSession:
    train = partial(train_steps, config=config)
    return MixtureSession(RecipeIdentity(NAME), config, options, folder, gans=build_gans(config), train=train)


def _stopped(session: MixtureSession, stop: StopRequest) -> int:
    tqdm.write(f"Stopped at step {session.step}: {session.folder.path}", file=sys.stderr)
    return 128 + stop.signal


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or continue a run; see ``python -m recipes.mixture_of_gaussians --help``."""

    def command() -> int:
        prog = f"python -m recipes.{NAME}"
        status = _train(parse_options(Command, prog=prog, description=__doc__ or "", args=argv))
        if status > 128:
            print_continuation(prog, argv)
        return status

    return run_command(NAME, command)


if __name__ == "__main__":
    raise SystemExit(main())
