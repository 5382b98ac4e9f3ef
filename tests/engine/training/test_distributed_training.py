"""Real processes on this machine, joined by gloo as torchrun joins them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_blocks.engine.runs.checkpoints import list_checkpoints, load_latest_checkpoint

PARTS = ["generator", "discriminator", "ema", "optimizer_g", "optimizer_d"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scenarios, carried out by processes forked from one that has imported torch."""
    return carried_out("together", tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More scenarios, for the slow tests."""
    return carried_out("further", tmp_path_factory.mktemp("more_ranks"))


def carried_out(scenarios: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "tests.engine.training.training_ranks", scenarios, str(folder)]
    subprocess.run(command, cwd=Path(__file__).parents[3], check=True, timeout=500)
    return folder


def statuses(folder: Path, name: str) -> list[int]:
    return json.loads((folder / f"{name}_status.json").read_text())


def said(folder: Path, name: str, rank: int) -> str:
    return (folder / f"{name}_{rank}.txt").read_text()


def tensors(folder: Path, run: str) -> dict[str, Tensor]:
    checkpoint = load_latest_checkpoint(folder / run / "checkpoints")
    return {f"{part}/{name}": tensor for part in PARTS for name, tensor in checkpoint.tensors[part].items()}


def losses(folder: Path, run: str) -> dict[int, dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / run / "log.jsonl").read_text().splitlines()]
    return {line.pop("step"): line for line in lines if "event" not in line}


def assert_same_run(folder: Path, run: str, wanted: str) -> None:
    own, others = tensors(folder, run), tensors(folder, wanted)
    assert own.keys() == others.keys()
    for name, tensor in own.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-9, atol=1e-9, msg=name)
    logged = losses(folder, run)
    for step, values in losses(folder, wanted).items():
        assert logged[step] == pytest.approx(values, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("size", [2, 3])
def test_a_batch_split_over_processes_trains_as_one_process_does(folder: Path, size: int):
    assert statuses(folder, f"split_{size}") == [0] * size
    assert {name.rsplit(".", 1)[-1] for name in tensors(folder, "split_1")} >= {"running_mean", "running_var", "u", "v"}
    assert_same_run(folder, f"split_{size}", "split_1")


def test_micro_batches_hold_the_same_samples_over_any_number_of_processes(folder: Path):
    assert_same_run(folder, "accumulated_2", "accumulated_1")
    with pytest.raises(AssertionError):  # not so the whole batch at once: G's BatchNorm sees each micro-batch
        assert_same_run(folder, "accumulated_2", "split_1")


@pytest.mark.slow
def test_a_batch_split_over_four_processes_trains_as_one_process_does(further: Path):
    assert statuses(further, "split_4") == [0] * 4
    assert_same_run(further, "split_4", "split_1")


@pytest.mark.slow
@pytest.mark.parametrize(("size", "parts"), [(1, 2), (2, 1), (2, 2), (1, 12)])
def test_discriminator_gradients_do_not_depend_on_the_split_of_the_batch(further: Path, size: int, parts: int):
    wanted = torch.load(further / "gradients_1_1_0.pt", weights_only=True)
    assert min(gradient.abs().max() for gradient in wanted.values()) > 1e-6
    for rank in range(size):
        found = torch.load(further / f"gradients_{size}_{parts}_{rank}.pt", weights_only=True)
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_activations_that_are_computed_again_change_no_bit_over_several_processes(further: Path, size: int):
    assert statuses(further, f"recomputed_{size}") == [0] * size
    wanted = tensors(further, f"split_{size}")
    found = tensors(further, f"recomputed_{size}")
    assert [name for name, tensor in found.items() if not torch.equal(tensor, wanted[name])] == []
    assert losses(further, f"recomputed_{size}") == losses(further, f"split_{size}")


def test_top_k_chooses_over_all_processes(folder: Path):
    assert losses(folder, "top_k_1")[6]["k"] == 3  # of 12, from the second epoch on
    assert_same_run(folder, "top_k_3", "top_k_1")


@pytest.mark.slow
def test_a_discriminator_with_batch_norm_sees_and_ranks_the_batch_of_all_processes(further: Path):
    assert losses(further, "plain_1")[6]["k"] == 3
    assert_same_run(further, "plain_3", "plain_1")


def test_a_growing_pair_is_updated_together_by_all_processes(folder: Path):
    assert losses(folder, "growing_1")[6]["k"] == 4  # half of 8
    (average,) = {
        value.item() for name, value in tensors(folder, "growing_1").items() if name.endswith("output_average")
    }
    assert 0 < average < 0.5
    assert_same_run(folder, "growing_2", "growing_1")


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_a_run_of_four_processes_continues_on_fewer(further: Path, size: int):
    assert statuses(further, f"continued_{size}") == [0] * size
    assert_same_run(further, f"continued_{size}", "whole")


@pytest.mark.slow
def test_a_run_on_shards_of_two_processes_continues_on_one_in_the_middle_of_an_epoch(further: Path):
    assert statuses(further, "sharded_2") == [0, 0]
    assert "Continuing after step 2" in said(further, "sharded_1", 0)
    assert_same_run(further, "sharded", "whole")  # of one process, whose images were in memory


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_samples_and_their_standing_statistics_do_not_depend_on_the_number_of_processes(further: Path, size: int):
    wanted = torch.load(further / "drawn_1_0.pt", weights_only=True)
    assert len(wanted) == 7
    for rank in range(size):
        drawn = torch.load(further / f"drawn_{size}_{rank}.pt", weights_only=True)
        torch.testing.assert_close(drawn, wanted, rtol=0, atol=1e-6)


def test_the_main_process_alone_writes_and_speaks(folder: Path):
    assert "Done at step 3" in said(folder, "split_3", 0)
    assert said(folder, "split_3", 1) == said(folder, "split_3", 2) == ""
    start = json.loads((folder / "split_3" / "log.jsonl").read_text().splitlines()[0])
    assert start["event"] == "start"
    assert start["processes"] == 3


def test_after_the_death_of_a_process_the_others_say_who_is_missing_and_a_restart_changes_no_bit(folder: Path):
    status, killed = statuses(folder, "killed")
    assert (status, killed) == (2, -9)
    assert "biggan_deep: error: rank 0 lost touch with the other processes: no word from rank 1" in said(
        folder, "killed", 0
    )
    assert "Continuing after step 2" in said(folder, "restarted", 0)
    assert statuses(folder, "restarted") == [0, 0]
    undisturbed = tensors(folder, "split_2")
    assert all(torch.equal(tensor, undisturbed[name]) for name, tensor in tensors(folder, "killed").items())


def test_a_process_that_does_not_answer_within_the_timeout_is_named(folder: Path):
    assert statuses(folder, "silent")[0] == 2
    assert "no word from rank 1" in said(folder, "silent", 0)


def test_a_signal_to_one_process_stops_all_after_the_same_step_with_a_checkpoint(folder: Path):
    assert statuses(folder, "stopped") == [143, 143]
    assert [path.name for path in list_checkpoints(folder / "stopped" / "checkpoints")] == ["step_000002"]
    assert "Stopped at step 2.\n" in said(folder, "stopped", 0)
    continued = r"  continue: .*torch\S+ --nproc-per-node 2 -m \S+ --resume \S+/stopped"
    assert re.search(continued, said(folder, "stopped", 0))


def test_the_first_tensor_that_differs_between_processes_is_named(folder: Path):
    assert statuses(folder, "drifted") == [2, 2]
    assert "biggan_deep: error: after step 2, generator/norm.running_var" in said(folder, "drifted", 0)
    assert "of rank 1 differ from those of rank 0" in said(folder, "drifted", 0)
    assert said(folder, "drifted", 1) == ""


def test_processes_started_with_different_options_name_the_option(folder: Path):
    assert statuses(folder, "unlike") == [2, 2]
    message = "the processes were started differently: --batch-size is 12 in rank 0 but 16 in rank 1."
    assert message in said(folder, "unlike", 0)
    assert not (folder / "unlike").exists()


def test_data_that_differ_between_processes_are_refused_at_the_start(folder: Path):
    assert statuses(folder, "other_data") == [2, 2]
    assert "error: the processes read different data under one name: the pixels of " in said(folder, "other_data", 0)
    assert not (folder / "other_data").exists()
