"""Limits on singular values: what they do to layers, losses and runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from gan_blocks import SigmaClamp, SpectralNorm
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.runs.folder import RunFolder
from recipes.studies.appendix_h import RECIPE, Config
from recipes.studies.singular_values import sigma_penalty
from tests.recipes.test_residual_recipes import TINY_ARGS

TINY = Config(
    resolution=16,
    num_classes=3,
    channels=8,
    latent_dim=6,
    embedding_dim=5,
    generator_widths=(2, 2, 1),
    discriminator_widths=(1, 2, 2),
    generator_attention=(8,),
    discriminator_attention=(8,),
)


@pytest.fixture
def args(tiny_data: Path) -> list[str]:
    return ["--data", f"npz:{tiny_data}", *TINY_ARGS]


BUILD = {"generator": RECIPE.build_generator, "discriminator": RECIPE.build_discriminator}


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
@pytest.mark.parametrize(("network", "player"), [("generator", "g"), ("discriminator", "d")])
def test_a_penalty_is_logged_beside_the_loss_with_its_exact_value(
    network: str, player: str, accumulate: str, args: list[str], tmp_path: Path
):
    """Weights start orthogonal: all singular values of a weight are 1, so its distance from 3 squared is 4."""
    runs: dict[str, list[str]] = {
        "plain": [],
        "penalized": [f"--{network}-sigma-penalty", "0.25", "--sigma-penalty-target", "3"],
    }
    fixed = [*args, "--steps", "1", "--discriminator-steps", "1", "--accumulate", accumulate]
    for name, options in runs.items():
        assert RECIPE.main([*fixed, *options, "--run-dir", str(tmp_path / name)]) == 0
    first = {name: losses(tmp_path / name)[0] for name in runs}
    config = RECIPE.config_from_json(RunFolder.open(tmp_path / "plain").config())
    expected = 0.25 * 4 * len(chains(BUILD[network](config)))
    assert first["penalized"][f"sigma_penalty_{player}"] == pytest.approx(expected, rel=1e-4)
    assert first["penalized"][f"loss_{player}"] == first["plain"][f"loss_{player}"]
    assert not any("penalty" in name for name in first["plain"])


def test_a_penalty_ratio_counts_the_weights_with_a_second_singular_value():
    config = replace(TINY, discriminator_sigma_penalty=2.0, sigma_penalty_ratio=1.5, tracked_singular_values=2)
    network = RECIPE.build_discriminator(config)
    ranks = [rank(chain) for chain in chains(network)]
    assert 1 in ranks
    expected = 2.0 * 0.25 * sum(count > 1 for count in ranks)
    assert sigma_penalty("discriminator", network, config).item() == pytest.approx(expected, rel=1e-4)


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
def test_a_run_with_the_tools_resumes_bit_for_bit(options: list[str], args: list[str], tmp_path: Path):
    args, folders = [*args, *options], [tmp_path / "whole", tmp_path / "parts"]
    for folder, steps in ((folders[0], "3"), (folders[1], "1"), (folders[1], "3")):
        assert RECIPE.main([*args, "--run-dir", str(folder), "--steps", steps]) == 0
    files = [sorted((folder / "checkpoints" / "step_000003").glob("*.safetensors")) for folder in folders]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


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
    assert RECIPE.main(["--generator-sigma-clamp", "-2"]) == 2
    expected = "--generator-sigma-clamp must be a finite number of at least 0, but got -2.0."
    assert capfd.readouterr().err == f"appendix_h: error: {expected}\n"
