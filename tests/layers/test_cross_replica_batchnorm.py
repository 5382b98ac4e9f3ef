import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_blocks import CrossReplicaBatchNorm2d
from tests.layers import batchnorm_ranks as ranks
from tests.reference import conditioning as conditioning_reference
from tests.reference import layers as reference

kinds = pytest.mark.parametrize("kind", ranks.KINDS)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three processes finds; one group serves all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.layers.batchnorm_ranks", str(folder)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=300)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(3)]


def whole_batch(kind: str) -> dict[str, Any]:
    norm = ranks.layer(kind)
    return ranks.trained(norm, norm, ranks.inputs(kind), ranks.output_weights())


def joined(reports: list[dict[str, Any]], kind: str, name: str) -> Tensor:
    return torch.cat([report[kind][name] for report in reports])


@kinds
def test_three_processes_normalize_as_one_with_the_whole_batch(reports: list[dict[str, Any]], kind: str):
    torch.testing.assert_close(joined(reports, kind, "y"), whole_batch(kind)["y"], rtol=1e-12, atol=1e-12)


def test_the_output_is_that_of_the_formula(reports: list[dict[str, Any]]):
    norm, (x,) = ranks.layer("plain"), ranks.inputs("plain")
    gain, bias = (parameter.detach().numpy() for parameter in norm.parameters())
    wanted = reference.batch_norm(x.numpy(), *reference.moments(x.numpy()), gain, bias, norm.eps)
    np.testing.assert_allclose(joined(reports, "plain", "y"), wanted, rtol=1e-10, atol=1e-10)
    norm, (x, condition) = ranks.layer("conditional"), ranks.inputs("conditional")
    weights = (projection.weight.detach().numpy() for projection in (norm.gain, norm.bias))
    wanted = conditioning_reference.conditional_batch_norm(x.numpy(), condition.numpy(), *weights, norm.norm.eps, None)
    np.testing.assert_allclose(joined(reports, "conditional", "y"), wanted, rtol=1e-10, atol=1e-10)


@kinds
def test_gradients_are_those_of_the_whole_batch(reports: list[dict[str, Any]], kind: str):
    wanted = whole_batch(kind)
    torch.testing.assert_close(joined(reports, kind, "x"), wanted["x"], rtol=1e-12, atol=1e-12)
    for name, gradient in wanted["parameters"].items():
        total = sum(report[kind]["parameters"][name] for report in reports)
        torch.testing.assert_close(total, gradient, rtol=1e-12, atol=1e-12)


@kinds
def test_running_statistics_are_those_of_the_whole_batch_and_the_same_bits_everywhere(
    reports: list[dict[str, Any]], kind: str
):
    wanted = whole_batch(kind)["buffers"]
    for report in reports:
        assert report[kind]["buffers"].keys() == wanted.keys()
        for name, buffer in report[kind]["buffers"].items():
            assert torch.equal(buffer, reports[0][kind]["buffers"][name])
            torch.testing.assert_close(buffer, wanted[name], rtol=1e-12, atol=1e-12)


def test_gradients_of_both_orders_agree_with_finite_differences_over_all_processes(reports: list[dict[str, Any]]):
    assert [report["gradients"] for report in reports] == [[True, True]] * 3


@pytest.mark.parametrize("kind", ["plain", "conditional"])
def test_compiles_without_graph_breaks(reports: list[dict[str, Any]], kind: str):
    for report in reports:
        for name in ("y", "x"):
            torch.testing.assert_close(report["compiled"][kind][name], report[kind][name], rtol=1e-12, atol=1e-12)


def test_bfloat16_inputs_get_float32_statistics_of_the_whole_batch(reports: list[dict[str, Any]]):
    x = ranks.inputs("plain", mean=20.0)[0].bfloat16().double().numpy()
    wanted = reference.batch_norm(x, *reference.moments(x), np.ones(3), np.zeros(3), 1e-4)
    y = torch.cat([report["bfloat16"] for report in reports])
    assert y.dtype == torch.bfloat16
    np.testing.assert_allclose(y.double(), wanted, atol=0.012)


def test_a_named_group_is_normalized_as_one_and_another_process_by_itself(reports: list[dict[str, Any]]):
    x = ranks.inputs("plain")[0].split([5, 2])
    wanted = torch.cat([CrossReplicaBatchNorm2d(ranks.CHANNELS, dtype=torch.float64)(part).detach() for part in x])
    y = torch.cat([report["pair"] for report in reports])
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)


def test_standing_statistics_pool_the_batches_of_all_processes(reports: list[dict[str, Any]]):
    mean, variance = reference.moments(ranks.inputs("plain")[0].numpy())
    for report in reports:
        np.testing.assert_allclose(report["standing"]["running_mean"], mean, rtol=1e-13)
        np.testing.assert_allclose(report["standing"]["running_var"], variance, rtol=1e-10)
        assert torch.equal(report["standing"]["running_var"], reports[0]["standing"]["running_var"])


def test_one_process_evaluates_and_collects_alone(reports: list[dict[str, Any]]):
    wanted = whole_batch("plain")["y"]  # standing statistics of one batch are those of train mode
    torch.testing.assert_close(reports[1]["alone"], wanted, rtol=1e-12, atol=1e-12)


def test_standing_statistics_of_no_batch_anywhere_are_an_error_everywhere(reports: list[dict[str, Any]]):
    for report in reports:
        assert report["error"].startswith("standing_statistics: `batches` must be an iterable of at least one tuple")
