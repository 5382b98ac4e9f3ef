"""The spectral fields of a class-conditional recipe: what they do to layers, losses and runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gan_blocks import SigmaClamp, SpectralNorm, init_orthogonal_, spectral_norm
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.runs.folder import RunFolder
from recipes import biggan_deep
from recipes.families.spectral_layers import sigma_penalty, spectral_layers

TINY = biggan_deep.Config(
    resolution=16,
    num_classes=3,
    channels=8,
    latent_dim=6,
    embedding_dim=5,
    generator_widths=(2, 2, 1),
    discriminator_widths=(1, 2, 2),
    attention_resolution=8,
)
BUILD = {"generator": biggan_deep.RECIPE.build_generator, "discriminator": biggan_deep.RECIPE.build_discriminator}


def chains(network: nn.Module) -> list[nn.ModuleList]:
    """The parametrizations of every spectrally normalized weight."""
    found = [layer.parametrizations.weight for layer in network.modules() if hasattr(layer, "parametrizations")]
    assert len(found) > 10
    return found


def rank(chain: nn.ModuleList) -> int:
    return min(len(chain.original), chain.original[0].numel())


def losses(run: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if "event" not in entry]


@pytest.mark.parametrize(
    ("build", "plain"),
    [
        (
            lambda layers: layers.conv2d(4, 6, 3, padding=1, bias=False),
            lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False),
        ),
        (lambda layers: layers.linear(5, 7), lambda: nn.Linear(5, 7)),
        (lambda layers: layers.embedding(9, 4), lambda: nn.Embedding(9, 4)),
    ],
)
def test_by_default_a_layer_is_the_orthogonal_and_normalized_one_of_torch_with_the_same_random_numbers(build, plain):
    torch.manual_seed(1)
    layer = build(spectral_layers(eps=1e-3))
    torch.manual_seed(1)
    expected = spectral_norm(init_orthogonal_(plain()), eps=1e-3)
    assert repr(layer) == repr(expected)
    state = layer.state_dict()
    assert list(state) == list(expected.state_dict())
    assert all(value.equal(state[name]) for name, value in expected.state_dict().items())


@pytest.mark.parametrize("clamped", BUILD)
@pytest.mark.parametrize(("field", "bound"), [("clamp", {"maximum": 0.7}), ("clamp_ratio", {"ratio": 1.5})])
def test_a_clamp_reaches_every_weight_of_its_network_before_spectral_norm_and_no_other(
    clamped: str, field: str, bound: dict[str, float]
):
    config = replace(TINY, **{f"{clamped}_sigma_{field}": next(iter(bound.values()))})
    for name, build in BUILD.items():
        for chain in chains(build(config)):
            applies = name == clamped and ("maximum" in bound or rank(chain) > 1)
            assert [type(part) for part in chain] == [SigmaClamp, SpectralNorm] if applies else [SpectralNorm]
            if applies:
                assert {"maximum": chain[0].maximum, "ratio": chain[0].ratio} == {
                    "maximum": None,
                    "ratio": None,
                } | bound


def test_spectral_norm_follows_as_many_singular_values_as_asked_for_or_as_there_are():
    for build in BUILD.values():
        ranks = set()
        for chain in chains(build(replace(TINY, tracked_singular_values=3))):
            assert chain[-1].num_singular_values == len(chain[-1].u) == min(3, rank(chain))
            ranks.add(rank(chain))
        assert {1, 2, 3} & ranks
        assert max(ranks) > 3


@pytest.mark.parametrize("accumulate", ["1", "3"])
@pytest.mark.parametrize(("network", "loss"), [("generator", "loss_g"), ("discriminator", "loss_d")])
def test_a_penalty_changes_the_loss_of_its_network_by_its_exact_value(
    network: str, loss: str, accumulate: str, tiny_args: list[str], tmp_path: Path
):
    """Weights start orthogonal: all singular values of a weight are 1, so its distance from 3 squared is 4."""
    runs: dict[str, list[str]] = {
        "plain": [],
        "penalized": [f"--{network}-sigma-penalty", "0.25", "--sigma-penalty-target", "3"],
    }
    fixed = [*tiny_args, "--steps", "1", "--discriminator-steps", "1", "--accumulate", accumulate]
    for name, options in runs.items():
        assert biggan_deep.RECIPE.main([*fixed, *options, "--run-dir", str(tmp_path / name)]) == 0
    first = {name: losses(tmp_path / name)[0] for name in runs}
    config = biggan_deep.RECIPE.config_from_json(RunFolder.open(tmp_path / "plain").config())
    expected = 0.25 * 4 * len(chains(BUILD[network](config)))
    assert first["penalized"][loss] - first["plain"][loss] == pytest.approx(expected, rel=1e-4)
    if network == "generator":
        assert first["penalized"]["loss_d"] == first["plain"]["loss_d"]


def test_a_penalty_ratio_counts_the_weights_with_a_second_singular_value():
    config = replace(TINY, discriminator_sigma_penalty=2.0, sigma_penalty_ratio=1.5, tracked_singular_values=2)
    network = biggan_deep.RECIPE.build_discriminator(config)
    ranks = [rank(chain) for chain in chains(network)]
    assert 1 in ranks
    expected = 2.0 * 0.25 * sum(count > 1 for count in ranks)
    assert sigma_penalty(network, 2.0, config).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        ["--generator-sigma-clamp-ratio", "1.1", "--discriminator-sigma-clamp", "0.9"],
        [
            *("--tracked-singular-values", "2", "--generator-sigma-penalty", "0.1"),
            *("--discriminator-sigma-penalty", "0.1", "--sigma-penalty-ratio", "1", "--accumulate", "2"),
        ],
    ],
)
def test_a_run_with_the_tools_resumes_bit_for_bit(options: list[str], tiny_args: list[str], tmp_path: Path):
    args, folders = [*tiny_args, *options], [tmp_path / "whole", tmp_path / "parts"]
    for folder, steps in ((folders[0], "3"), (folders[1], "1"), (folders[1], "3")):
        assert biggan_deep.RECIPE.main([*args, "--run-dir", str(folder), "--steps", steps]) == 0
    files = [sorted((folder / "checkpoints" / "step_000003").glob("*.safetensors")) for folder in folders]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_a_run_from_before_the_fields_can_be_continued(tiny_args: list[str], tmp_path: Path):
    run = tmp_path / "run"
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(run), "--steps", "1"]) == 0
    saved = json.loads((run / "config.json").read_text())
    saved["config"] = {name: value for name, value in saved["config"].items() if "sigma" not in name}
    (run / "config.json").write_text(json.dumps(saved))
    assert biggan_deep.RECIPE.main(["--resume", str(run), "--steps", "2"]) == 0


def test_a_saved_config_with_a_field_that_is_not_known_is_one_line(
    tiny_args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(run), "--steps", "1"]) == 0
    saved = json.loads((run / "config.json").read_text())
    saved["config"]["sigma_klamp"] = 1
    (run / "config.json").write_text(json.dumps(saved))
    assert biggan_deep.RECIPE.main(["--resume", str(run)]) == 2
    expected = "the saved Config fits another version of biggan_deep: fields sigma_klamp."
    assert capfd.readouterr().err.splitlines()[-1] == f"biggan_deep: error: {expected}"


FINITE = "a finite number of at least 0"
NO_PENALTY = "0 without --generator-sigma-penalty or --discriminator-sigma-penalty"
EITHER = "greater than 0 for a penalty, or --sigma-penalty-ratio instead (one of the two)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tracked_singular_values": 0}, "--tracked-singular-values must be greater than 0, but got 0."),
        ({"generator_sigma_clamp": -1.0}, f"--generator-sigma-clamp must be {FINITE}, but got -1.0."),
        ({"discriminator_sigma_clamp": float("nan")}, f"--discriminator-sigma-clamp must be {FINITE}, but got nan."),
        (
            {"discriminator_sigma_clamp_ratio": float("inf")},
            f"--discriminator-sigma-clamp-ratio must be {FINITE}, but got inf.",
        ),
        ({"generator_sigma_penalty": -0.1}, f"--generator-sigma-penalty must be {FINITE}, but got -0.1."),
        (
            {"generator_sigma_clamp": 2.0, "generator_sigma_clamp_ratio": 1.5},
            "--generator-sigma-clamp-ratio must be 0 beside --generator-sigma-clamp, since a weight has one clamp, "
            "but got 1.5.",
        ),
        ({"sigma_penalty_target": 1.0}, f"--sigma-penalty-target must be {NO_PENALTY}, but got 1.0."),
        ({"sigma_penalty_ratio": 2.0}, f"--sigma-penalty-ratio must be {NO_PENALTY}, but got 2.0."),
        ({"generator_sigma_penalty": 1.0}, f"--sigma-penalty-target must be {EITHER}, but got 0.0."),
        (
            {"generator_sigma_penalty": 1.0, "sigma_penalty_target": 3.0, "sigma_penalty_ratio": 2.0},
            f"--sigma-penalty-target must be {EITHER}, but got 3.0.",
        ),
        (
            {"generator_sigma_penalty": 1.0, "sigma_penalty_ratio": 2.0},
            "--tracked-singular-values must be at least 2 for a penalty ratio, but got 1.",
        ),
    ],
)
def test_rejects_fields_that_cannot_work(change: dict[str, float], message: str):
    with pytest.raises(UserError) as error:
        replace(TINY, **change)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "change",
    [
        {"generator_sigma_clamp": 2.0, "discriminator_sigma_clamp_ratio": 1.5},
        {
            "discriminator_sigma_penalty": 1.0,
            "sigma_penalty_ratio": 2.0,
            "tracked_singular_values": 2,
            "generator_sigma_clamp": 4.0,
        },
        {"generator_sigma_penalty": 1.0, "sigma_penalty_target": 2.0, "generator_sigma_clamp": 4.0},
    ],
)
def test_accepts_fields_that_go_together(change: dict[str, float]):
    assert replace(TINY, **change) != TINY


def test_a_bad_value_on_the_command_line_is_one_line_with_status_2(capfd: pytest.CaptureFixture[str]):
    assert biggan_deep.RECIPE.main(["--generator-sigma-clamp", "-2"]) == 2
    expected = "--generator-sigma-clamp must be a finite number of at least 0, but got -2.0."
    assert capfd.readouterr().err == f"biggan_deep: error: {expected}\n"
