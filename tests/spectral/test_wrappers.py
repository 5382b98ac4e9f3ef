"""Under torch's wrappers for several processes the singular vectors are those of one process, and runs resume."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.spectral import wrapped_ranks as ranks


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.spectral.wrapped_ranks", str(folder)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=300)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(ranks.PROCESSES)]


@pytest.mark.parametrize("kind", ranks.WRAPPERS)
def test_a_resumed_run_continues_bit_for_bit(reports: list[dict[str, Any]], kind: str):
    for report in reports:
        torch.testing.assert_close(report[kind]["resumed"], report[kind]["uninterrupted"], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ranks.WRAPPERS)
def test_the_norm_is_that_of_one_process(reports: list[dict[str, Any]], kind: str):
    alone = ranks.output(ranks.train(ranks.net(), 20))
    for report in reports:
        torch.testing.assert_close(report[kind]["after 20"], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "fully_shard"])
def test_an_explicit_advance_takes_weights_in_shards(reports: list[dict[str, Any]], kind: str):
    for report in reports:
        torch.testing.assert_close(report["explicit"][kind], reports[0]["explicit"]["plain"], rtol=0, atol=1e-4)


def test_a_weight_in_shards_is_refused_outside_of_its_layer(reports: list[dict[str, Any]]):
    expected = (
        "SpectralNorm: `weight` must be a whole tensor, but got a shard of one. "
        "Read it in the forward pass of its layer, which gathers it."
    )
    assert [report["message"] for report in reports] == [expected, expected]


def test_processes_that_were_seeded_apart_agree_once_wrapped(reports: list[dict[str, Any]]):
    torch.testing.assert_close(reports[1]["other seed"], reports[0]["other seed"], rtol=0, atol=0)
