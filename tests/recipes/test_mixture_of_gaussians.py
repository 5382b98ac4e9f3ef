"""Runs of recipes.mixture_of_gaussians on tiny networks."""

import copy
import dataclasses
import json
import math
import os
import shlex
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.randomness import seeded_construction
from recipes import mixture_of_gaussians as mixture
from recipes.mixtures import networks as perceptrons
from recipes.mixtures import session
from recipes.mixtures.analysis import analyze
from recipes.mixtures.config import OF_OLDER_RUNS
from recipes.mixtures.gans import Gan
from recipes.mixtures.networks import Perceptron
from recipes.mixtures.table import Row, tabulate

SMALL = mixture.Config(
    modes=4, hidden_units=8, batch_size=16, top_k_gamma=0.5, top_k_period=2, seeds=2, evaluation_samples=50
)
ARGS = [
    *("--modes", "4", "--hidden-units", "8", "--batch-size", "16", "--top-k-period", "2", "--seeds", "2"),
    *("--evaluation-samples", "50", "--planned-steps", "6", "--checkpoint-every", "2", "--log-every", "1"),
    *("--threads", "1"),
]


def trained(config: mixture.Config, steps: int = 6, dtype: torch.dtype = torch.float64) -> list[Gan]:
    gans = mixture.build_gans(config)
    torch.set_default_dtype(dtype)
    try:
        for gan in gans:
            gan.generator.to(dtype)
            gan.discriminator.to(dtype)
            for step in range(1, steps + 1):
                mixture.train_step(gan, config, step)
    finally:
        torch.set_default_dtype(torch.float32)
    return gans


def weights_of(gan: Gan) -> list[dict[str, Tensor]]:
    return [gan.generator.state_dict(), gan.discriminator.state_dict()]


def newest_weights(run: Path) -> dict[str, bytes]:
    newest = sorted((run / "checkpoints").glob("step_*"))[-1]
    return {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}


def test_a_perceptron_computes_what_torchs_layers_do(rng: torch.Generator):
    network = Perceptron([3, 5, 4, 2])
    layers = nn.Sequential(*copy.deepcopy(network))
    x = torch.randn(7, 3, generator=rng)
    slope = torch.randn(7, 2, generator=rng)
    results = []
    for compute in (network, layers):
        own = x.clone().requires_grad_()
        output = compute(own)
        (output * slope).sum().backward()
        results.append([output, own.grad, *(parameter.grad for parameter in compute.parameters())])
    torch.testing.assert_close(*results)


def test_a_frozen_perceptron_passes_gradients_on_and_gets_none(rng: torch.Generator):
    network = Perceptron([3, 5, 2]).requires_grad_(False)
    x = torch.randn(7, 3, generator=rng, requires_grad=True)
    network(x).sum().backward()
    assert x.grad.any()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_perceptron_refuses_to_be_differentiated_twice(rng: torch.Generator):
    x = torch.randn(7, 3, generator=rng, requires_grad=True)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        torch.autograd.grad(Perceptron([3, 5, 1])(x).sum(), x, create_graph=True)


def test_without_onednn_a_perceptron_computes_the_same(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    network, x = Perceptron([3, 5, 4, 2]), torch.randn(7, 3, generator=rng)
    fast = network(x)
    with monkeypatch.context() as patch:
        patch.setattr(torch.ops, "mkldnn", SimpleNamespace())
        perceptrons._has_onednn.cache_clear()
        assert not perceptrons._has_onednn()
        plain = network(x)
    perceptrons._has_onednn.cache_clear()
    torch.testing.assert_close(fast, plain)


def test_a_perceptron_hands_nan_on():
    network = Perceptron([1, 300, 1])
    assert network(torch.full((200, 1), math.nan)).isnan().all()


def test_each_seed_and_arm_learns_what_it_learns_alone():
    together = trained(SMALL)
    assert [(gan.arm, gan.seed) for gan in together] == [("plain", 0), ("plain", 1), ("top-k", 0), ("top-k", 1)]
    for gan in together:
        (alone,) = trained(dataclasses.replace(SMALL, seeds=1, seed=gan.seed, arms=gan.arm))
        torch.testing.assert_close(weights_of(gan), weights_of(alone), rtol=0, atol=0)
    first, second, top, _ = (gan.generator[0].weight for gan in together)
    assert not torch.allclose(first, top)  # top-k has parted from plain training
    assert not torch.allclose(first, second)


@pytest.mark.slow
def test_processes_side_by_side_and_a_stop_in_between_change_no_byte(tmp_path: Path):
    here, side_by_side = [*ARGS, "--run-dir", str(tmp_path / "1")], [*ARGS, "--run-dir", str(tmp_path / "2")]
    assert mixture.main(here) == 0
    assert mixture.main([*side_by_side, "--threads", "2", "--steps", "3"]) == 0
    assert mixture.main([*side_by_side, "--threads", "2"]) == 0
    assert newest_weights(tmp_path / "1") == newest_weights(tmp_path / "2")


@pytest.mark.slow
def test_a_worker_that_fails_ends_the_command_with_its_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    args = [*ARGS, "--run-dir", str(run), "--threads", "2", "--learning-rate", "1e30"]
    assert mixture.main(args) == 2
    assert "mixture_of_gaussians: error: a lo" in capfd.readouterr().err  # a logit or a loss, whichever comes first


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_a_step_is_the_papers_update_written_out(dtype: torch.dtype, tolerance: float):
    """One step of plain and of top-k training against perceptrons of torch and losses from their definition."""
    config = dataclasses.replace(SMALL, seeds=1, top_k_gamma=0.75, top_k_period=1)
    for arm in ("plain", "top-k"):
        chosen = dataclasses.replace(config, arms=arm)
        (gan,) = trained(chosen, steps=1, dtype=dtype)
        with seeded_construction(0, "generator"):
            g = nn.Sequential(*Perceptron([2, 8, 8, 8, 8, 2]).to(dtype))
        with seeded_construction(0, "discriminator"):
            d = nn.Sequential(*Perceptron([2, 8, 8, 8, 8, 1]).to(dtype))
        of_g, of_d = (torch.optim.Adam(network.parameters(), lr=1e-4) for network in (g, d))
        torch.set_default_dtype(dtype)
        real, z_d, z_g = mixture._draw(config, 0, 1)
        real2, z_d2, z_g2 = mixture._draw(config, 0, 2)
        torch.set_default_dtype(torch.float32)
        for x, zd, zg, k in ((real, z_d, z_g, 16), (real2, z_d2, z_g2, 12)):
            of_d.zero_grad()
            (F.softplus(-d(x)).mean() + F.softplus(d(g(zd).detach())).mean()).backward()
            of_d.step()
            of_g.zero_grad()
            scores = d(g(zg)).flatten()
            best = sorted(range(16), key=lambda i: -scores[i].item())[: k if arm == "top-k" else 16]
            F.softplus(-scores[best]).mean().backward()
            of_g.step()
        torch.set_default_dtype(dtype)
        mixture.train_step(gan, chosen, 2)
        torch.set_default_dtype(torch.float32)
        torch.testing.assert_close(weights_of(gan), [g.state_dict(), d.state_dict()], rtol=tolerance, atol=tolerance)


def test_the_modes_stand_on_a_centered_grid():
    centers = mixture.Config(modes=25, divide_by="nothing").centers()
    assert sorted(map(tuple, centers.tolist())) == [
        (float(x), float(y)) for x in range(-4, 5, 2) for y in range(-4, 5, 2)
    ]


@pytest.mark.parametrize("modes", [1, 25, 64])
def test_divided_by_the_deviation_the_data_have_deviation_one(modes: int):
    config = mixture.Config(modes=modes, divide_by="deviation", batch_size=20_000)
    real, _, _ = mixture._draw(config, 0, 1)
    exact = config.centers().pow(2).mean() + config.mode_std() ** 2  # centered, both coordinates alike
    assert exact.item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(real.std(dim=0), torch.ones(2), rtol=0.03, atol=0)


def test_the_toy_codes_divisor_scales_grid_and_gaussians_alike():
    raw, divided = mixture.Config(batch_size=64, divide_by="nothing"), mixture.Config(batch_size=64, divide_by="2.828")
    torch.testing.assert_close(divided.centers() * 2.828, raw.centers())
    torch.testing.assert_close(mixture._draw(divided, 0, 1)[0] * 2.828, mixture._draw(raw, 0, 1)[0])


@pytest.mark.parametrize("name", ["leaky-relu", "tanh"])
def test_both_networks_have_the_activation_after_each_hidden_layer(name: str, rng: torch.Generator):
    config = mixture.Config(arms="plain", hidden_units=8, activation=name, latent_dim=3)
    (gan,) = mixture.build_gans(config)
    act = {"leaky-relu": lambda h: torch.where(h > 0, h, 0.2 * h), "tanh": torch.tanh}[name]
    for network, inputs in ((gan.generator, 3), (gan.discriminator, 2)):
        x = h = torch.randn(5, inputs, generator=rng)
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        assert len(linear) == 5
        for layer in linear[:-1]:
            h = act(h @ layer.weight.T + layer.bias)
        torch.testing.assert_close(network(x), h @ linear[-1].weight.T + linear[-1].bias)


@pytest.mark.parametrize("layers", [3, 4])
def test_the_number_of_hidden_layers_is_that_of_both_networks(layers: int):
    (gan,) = mixture.build_gans(mixture.Config(arms="plain", hidden_units=5, hidden_layers=layers))
    for network, ends in ((gan.generator, (2, 2)), (gan.discriminator, (2, 1))):
        assert network.widths == (ends[0], *[5] * layers, ends[1])


def test_weights_start_as_in_the_toy_code_where_init_is_he():
    """Uniform, with variance 2 / inputs; in the last layer 2 / (inputs + outputs)."""
    (gan,) = mixture.build_gans(mixture.Config(arms="plain", hidden_units=200, init="he"))
    for network in (gan.generator, gan.discriminator):
        *hidden, last = (layer for layer in network if isinstance(layer, nn.Linear))
        variances = [2 / layer.in_features for layer in hidden] + [2 / (last.in_features + last.out_features)]
        for layer, variance in zip((*hidden, last), variances, strict=True):
            bound = (3 * variance) ** 0.5
            assert 0.97 * bound < layer.weight.abs().max() <= bound
            assert layer.weight.square().mean().item() == pytest.approx(variance, rel=0.15)
            assert not layer.bias.any()


def test_both_optimizers_have_the_betas():
    (gan,) = mixture.build_gans(mixture.Config(arms="plain", hidden_units=4, adam_beta1=0.5, adam_beta2=0.9))
    assert [optimizer.defaults["betas"] for optimizer in (gan.optimizer_g, gan.optimizer_d)] == [(0.5, 0.9)] * 2


def test_a_run_from_before_these_were_options_is_continued_as_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def as_before(config: mixture.Config) -> dict[str, object]:
        return {name: value for name, value in dataclasses.asdict(config).items() if name not in OF_OLDER_RUNS}

    args = [*ARGS, "--run-dir", str(tmp_path / "run"), "--divide-by", "nothing"]
    with monkeypatch.context() as patch:
        patch.setattr(session, "asdict", as_before)
        assert mixture.main([*args, "--steps", "1"]) == 0
    assert "activation" not in (tmp_path / "run" / "config.json").read_text()
    assert mixture.main([*args, "--adam-beta1", "0.5"]) == 2
    assert mixture.main([*args, "--divide-by", "deviation"]) == 2
    assert mixture.main([*args, "--steps", "2"]) == 0


def test_a_run_continued_by_the_same_command_has_the_bytes_of_one_that_was_not_interrupted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert mixture.main([*ARGS, "--run-dir", str(whole)]) == 0
    assert mixture.main([*ARGS, "--run-dir", str(parts), "--steps", "3"]) == 0
    assert mixture.main([*ARGS, "--run-dir", str(parts)]) == 0
    assert newest_weights(whole) == newest_weights(parts)
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["k"] for line in lines if "k" in line] == [16, 16, 15, 15, 15, 15]
    assert (whole / "samples" / "step_000006.png").is_file()
    assert "high quality / modes recovered, by seed:" in capfd.readouterr().out


@pytest.mark.parametrize("more", [[], ["--table", "table.md"], ["--study", "baseline", "--arms", "plain"]])
def test_a_stopped_command_prints_the_one_that_continues_it(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(session.MixtureSession, "carry_out", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    args = [*ARGS, "--run-dir", str(tmp_path / "a run"), *more]
    assert mixture.main(args) == 143
    said = capfd.readouterr()
    assert said.err.splitlines()[-1].startswith("Stopped")
    *_, head, last = said.out.splitlines()
    assert head == "Next:"
    words = shlex.split(last)
    assert words[0] == "continue:"
    assert words[2:] == ["-m", "recipes.mixture_of_gaussians", *args]


def test_the_table_trains_all_rows_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mixture, "TABLE_1", ((25, 2), (64, 1)))
    out = tmp_path / "table.md"
    args = [*ARGS[2:], "--run-dir", str(tmp_path / "runs"), "--table", str(out)]
    assert mixture.main([*args, "--steps", "2"]) == 0
    assert mixture.main(args) == 0
    rows = out.read_text().splitlines()[2:]
    assert [row.split(" | ")[:3] for row in rows] == [["| 25", "2", "6"], ["| 64", "1", "6"]]
    assert "(85.6)" in rows[0]


def test_the_table_shows_mean_and_standard_deviation_beside_the_paper():
    row = Row(25, 3, 100_000, [[80.0, 82.0, 84.0], [90.0, 90.0, 90.0]], [[100.0] * 3, [96.0, 100.0, 100.0]])
    last = tabulate([row]).splitlines()[-1]
    cells = "82.0 ± 2.0 (85.6) | 90.0 ± 0.0 (95.5) | 100.0 ± 0.0 (100.0) | 98.7 ± 2.3 (100.0)"
    assert last == f"| 25 | 3 | 100,000 | {cells} |"


def test_the_analysis_moves_samples_by_the_gradient_of_the_best_and_of_the_worst(rng: torch.Generator):
    """A linear G and D, whose update can be written down: every sample moves along D's slope."""
    g, d = Perceptron([2, 2]), Perceptron([2, 1])
    slope = torch.tensor([[1.0, 0.0]])
    with torch.no_grad():
        g[0].weight.copy_(torch.eye(2))
        g[0].bias.zero_()
        d[0].weight.copy_(slope)
        d[0].bias.zero_()
    z = 0.1 * torch.randn(400, 2, generator=rng)
    centers, std, rate = torch.tensor([[0.0, 0.0]]), 0.05, 1e-3
    effect = analyze(g, d, centers=centers, std=std, z=z, learning_rate=rate)

    points = [[float(x), float(y)] for x, y in z.double()]
    order = sorted(range(400), key=lambda i: -points[i][0])
    for name, kept in (("top", order[:300]), ("bottom", order[300:])):
        # The non-saturating loss pulls sample i along +x by 1 - sigmoid(x_i).
        pulls = {i: 1 / (1 + math.exp(points[i][0])) / len(kept) for i in kept}
        wx, wy, b = (
            sum(pulls[i] * factor(points[i]) for i in kept) for factor in (lambda p: p[0], lambda p: p[1], lambda p: 1)
        )
        bins: dict[int, list[tuple[float, float]]] = {}
        for x, y in points:
            move = rate * (wx * x + wy * y + b)
            distance = math.hypot(x, y)
            cosine = math.copysign(1, move) * -x / distance
            change = (math.hypot(x + move, y) - distance) / std
            bins.setdefault(min(4, math.ceil(distance / std) - 1), []).append((cosine, change))
        assert effect.counts.tolist() == [len(bins.get(number, [])) for number in range(5)]
        for number, pairs in bins.items():
            assert effect.cosine[name][number].item() == pytest.approx(sum(c for c, _ in pairs) / len(pairs), abs=1e-9)
            assert effect.change[name][number].item() == pytest.approx(sum(c for _, c in pairs) / len(pairs), abs=1e-9)


def test_the_analysis_is_written_at_the_end(tmp_path: Path):
    assert mixture.main([*ARGS, "--run-dir", str(tmp_path / "run"), "--analysis", "True", "--arms", "plain"]) == 0
    assert "2 seeds" in (tmp_path / "run" / "analysis.md").read_text()
    assert (tmp_path / "run" / "analysis.png").is_file()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--modes", "24"], "--modes must be a square number, but got 24."),
        (["--top-k-gamma", "0"], "--top-k-gamma must be greater than 0 and at most 1, but got 0.0."),
        (["--top-k-floor", "1.5"], "--top-k-floor must be greater than 0 and at most 1, but got 1.5."),
        (
            ["--analysis", "True", "--arms", "top-k"],
            "--analysis looks at plain training: --arms must be plain or both.",
        ),
        (["--adam-beta2", "1"], "--adam-beta2 must be at least 0 and less than 1, but got 1.0."),
        (
            ["--study", "baseline", "--arms", "top-k"],
            "--study looks at plain training: leave out --arms and --table.",
        ),
        (["--study", "baseline", "--table", "t.md"], "--study looks at plain training: leave out --arms and --table."),
        (["--hidden-layers", "0"], "--hidden-layers must be greater than 0, but got 0."),
        (["--steps", "0"], "--steps must be greater than 0, but got 0."),
        (["--threads", "2000"], "--threads must be from 1 to 1,024, but got 2000."),
        (["--arms", "top-k", "--table", "t.md"], "--table compares both arms: leave out --arms."),
    ],
)
def test_bad_options_end_with_one_line_and_status_2(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert mixture.main(args) == 2
    assert capfd.readouterr().err == f"mixture_of_gaussians: error: {message}\n"
    assert not list(tmp_path.iterdir())


def test_rejects_another_config_for_a_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    args = [*ARGS, "--run-dir", str(tmp_path / "run"), "--steps", "1"]
    assert mixture.main(args) == 0
    capfd.readouterr()
    assert mixture.main([*args, "--spacing", "3"]) == 2
    assert "--spacing is 3.0 here, but the run was started with 2.0." in capfd.readouterr().err


def test_a_critic_that_says_nan_ends_the_run_with_a_word():
    gan = mixture.build_gans(SMALL)[2]
    with torch.no_grad():
        gan.generator[0].weight[0, 0] = math.nan
    with pytest.raises(UserError, match=r"^a logit is not a number: the training has diverged"):
        mixture.train_step(gan, SMALL, 5)
