import dataclasses
import hashlib
import re
import signal
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.distributed as dist
from torch import nn

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel import processes
from gan_blocks.engine.base.parallel.launch import Launch
from gan_blocks.engine.base.parallel.processes import (
    World,
    current_world,
    joined_processes,
    largest,
    naming_the_missing,
    require_same,
    sum_gradients,
)
from gan_blocks.engine.base.parallel.roll_call import RollCall
from gan_blocks.engine.recipe.batches import check_parts, check_split
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.training import agreement
from gan_blocks.engine.training.agreement import (
    check_same_state,
    code_version,
    first_difference,
    newest_checkpoint,
    sums_of_bits,
)
from recipes import biggan_deep, progan


def test_a_process_by_itself_needs_no_group():
    with joined_processes("cpu") as device:
        assert device == "cpu"
        assert current_world() == World(rank=0, size=1)
        assert largest(7) == 7
        layer = nn.Linear(2, 1)
        layer(torch.ones(1, 2)).sum().backward()
        layer.bias.grad = None
        sum_gradients(layer)
        assert layer.weight.grad.tolist() == [[1, 1]]
        assert layer.bias.grad is None
        check_same_state({"generator": layer.state_dict()}, step=1)


@pytest.mark.parametrize(
    ("batch_size", "size", "accumulate", "message"),
    [
        (12, 5, 1, "--batch-size must be a multiple of 5 for 5 processes, but got 12; the nearest is 10."),
        (2, 8, 1, "--batch-size must be a multiple of 8 for 8 processes, but got 2; the nearest is 8."),
        (
            20,
            3,
            2,
            "--batch-size must be a multiple of 6 for 3 processes of 2 micro-batches each, but got 20; "
            "the nearest is 18.",
        ),
    ],
)
def test_a_batch_that_processes_cannot_share_is_refused(batch_size: int, size: int, accumulate: int, message: str):
    config = dataclasses.replace(biggan_deep.Config(), batch_size=batch_size)
    with pytest.raises(UserError) as error:
        check_split(config, RunOptions(accumulate=accumulate), World(rank=0, size=size))
    assert str(error.value) == message


@pytest.mark.parametrize("batch_size", [16, 6])  # which batch sizes by resolution replace
def test_each_batch_of_a_growing_network_must_be_shared(batch_size: int):
    config = progan.Config(batch_size=batch_size, batch_sizes=(12, 8, 6, 4))
    with pytest.raises(UserError) as error:
        check_split(config, RunOptions(), World(rank=0, size=4))
    assert str(error.value) == (
        "--batch-sizes must each be a multiple of 4 for 4 processes, but got 6; the nearest is 8."
    )
    check_split(dataclasses.replace(config, initial_resolution=32), RunOptions(), World(rank=0, size=4))


@pytest.mark.parametrize(
    ("accumulate", "processes", "words"),
    [
        (2, 1, "--accumulate 2 would make micro-batches of 5 of a batch of 10"),
        (4, 2, "--accumulate 4 and 2 processes would make micro-batches of 1 of a batch of 8"),
    ],
)
def test_samples_that_a_discriminator_compares_must_make_groups(accumulate: int, processes: int, words: str):
    config = progan.Config(batch_sizes=(8, 8, 10, 8))
    check_parts(config, RunOptions(), World(rank=0, size=1))
    check_parts(dataclasses.replace(config, stddev_group_size=0), RunOptions(accumulate=2), World(rank=0, size=1))
    with pytest.raises(UserError) as error:
        check_parts(config, RunOptions(accumulate=accumulate), World(rank=0, size=processes))
    rule = "each needs a divisor from 2 to --stddev-group-size for D's statistics across samples."
    assert str(error.value) == f"{words}; {rule}"


@pytest.mark.parametrize(
    ("config", "smallest"), [(biggan_deep.Config(batch_size=5), 5), (progan.Config(batch_sizes=(9, 3, 8, 4)), 3)]
)
def test_more_micro_batches_than_images_are_refused(config: TrainingConfig, smallest: int):
    check_split(config, RunOptions(accumulate=smallest), World())
    message = f"--accumulate must be at most {smallest}, the images of the smallest batch, but got {smallest + 1}."
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        check_split(config, RunOptions(accumulate=smallest + 1), World())


def test_a_single_process_takes_a_batch_of_any_size():
    config = dataclasses.replace(biggan_deep.Config(), batch_size=7)
    check_split(config, RunOptions(accumulate=2), World())


def test_the_first_setting_that_differs_is_named():
    same = {"--seed": 1, "code": "abc"}
    assert first_difference([same, same]) is None
    other = first_difference([same, same, {"--seed": 1, "code": "abd"}])
    assert other == "code is abc in rank 0 but abd in rank 2"


def test_the_code_version_is_a_function_of_the_source():
    assert code_version(biggan_deep.RECIPE) == code_version(biggan_deep.RECIPE)
    assert len(code_version(biggan_deep.RECIPE)) == 12
    assert code_version(progan.RECIPE) == code_version(biggan_deep.RECIPE)  # of one package


def test_the_code_version_of_a_recipe_in_a_file_of_its_own_is_that_of_the_library_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module = ModuleType("a_gan_of_my_own")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.__file__ = str(tmp_path / "a_gan_of_my_own.py")
    versions = []
    for content in (b"first", b"second", b"first"):
        (tmp_path / "a_gan_of_my_own.py").write_bytes(content)
        module.RECIPE = dataclasses.replace(biggan_deep.RECIPE, module=module.__name__)
        library, _, file = code_version(module.RECIPE).partition("-")
        assert len(library) == 12
        assert file == hashlib.sha256(content).hexdigest()
        versions.append((library, file))
    assert versions[0] == versions[2] != versions[1]
    assert versions[0][0] == versions[1][0]


def test_the_code_version_of_a_recipe_in_a_package_is_that_of_the_library_and_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package, module = ModuleType("gans_of_my_own"), ModuleType("gans_of_my_own.small")
    package.__path__ = [str(tmp_path)]  # without an __init__.py, so that there is no __file__
    for each in (package, module):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    module.RECIPE = dataclasses.replace(biggan_deep.RECIPE, module=module.__name__)
    versions = []
    for content in ("first", "second", "first"):
        (tmp_path / "layers.py").write_text(content)
        versions.append(code_version(module.RECIPE))
    assert versions[0] == versions[2] != versions[1]
    assert {len(version) for version in versions} == {12}


@pytest.mark.parametrize("bucket", [processes.BUCKET, 20])
def test_gradients_of_any_memory_format_are_added_up_in_place(bucket: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "current_world", lambda: World(rank=0, size=2))
    monkeypatch.setattr(processes, "BUCKET", bucket)
    monkeypatch.setattr(dist, "all_reduce", lambda joined: joined.mul_(3))
    network = nn.ParameterList(
        [torch.randn(4, 3), torch.randn(4, 3).T, torch.randn(6, 4)[::2], torch.randn(2, 3, 4, 4)]
    )
    network.append(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last))
    network.append(torch.randn(2, 3, 4, 4, 4).to(memory_format=torch.channels_last_3d))
    before = []
    for parameter in network:
        parameter.grad = torch.empty_strided(parameter.shape, parameter.stride()).normal_()
        before.append(parameter.grad.clone())
    sum_gradients(network)
    for parameter, gradient in zip(network, before, strict=True):
        assert torch.equal(parameter.grad, 3 * gradient)


def test_the_bits_of_a_state_that_lies_on_two_devices_come_from_each_in_one_transfer(monkeypatch: pytest.MonkeyPatch):
    """The meta device stands for a GPU: sums of both cannot be stacked either, and what comes from it is 0 here."""
    moved: list[torch.device] = []

    def to_cpu(tensor: torch.Tensor) -> torch.Tensor:
        moved.append(tensor.device)
        return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor

    monkeypatch.setattr(torch.Tensor, "cpu", to_cpu)
    elsewhere, empty = torch.ones(3, device="meta"), torch.empty(0)
    state = [elsewhere, empty, elsewhere, torch.tensor([3, 4]), torch.tensor([True, True, False])]
    assert sums_of_bits(state).tolist() == [0, 0, 0, 7, 2]
    assert [device.type for device in moved] == ["meta", "cpu"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_the_sum_of_bits_tells_the_smallest_difference(dtype: torch.dtype):
    value = torch.tensor([1.0, 2.0], dtype=dtype)
    other = value.clone()
    other.view(torch.uint8)[0] += 1
    first, second = sums_of_bits([value, other])
    assert first != second


def test_what_one_process_sees_of_files_must_be_what_all_see(monkeypatch: pytest.MonkeyPatch):
    require_same("the file of the weights", "step_2")  # in one process
    monkeypatch.setattr(processes, "gather_objects", lambda own: [own, own, "step_1"])
    message = "the file of the weights is step_2 in rank 0 but step_1 in rank 2. All processes must see the same files."
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        require_same("the file of the weights", "step_2")


def test_what_the_environment_says_is_checked_before_anything_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    message = "WORLD_SIZE must be a whole number from 1 to 1000000, but got two."
    with pytest.raises(UserError, match=f"^{message}$"), joined_processes("cpu"):
        pass


SHARED = "the run folder must be shared by all processes."


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([(None, "")], "rank 1 finds no checkpoint of step 2 in {}: " + SHARED),
        ([(2, ""), (1, "")], "rank 2 finds no checkpoint of step 2 in {}: " + SHARED),
        ([(4, "")], "rank 0 finds no checkpoint of step 4 in {}: " + SHARED),
        ([(None, "all are damaged.")], "rank 1 finds no checkpoint of step 2 in {}: all are damaged."),
    ],
)
def test_all_processes_must_find_the_checkpoint_that_is_continued(
    others: list[tuple[int | None, str]], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = RunFolder.create_at(tmp_path / "run", biggan_deep.RECIPE.identity, "small", {})
    assert newest_checkpoint(run) is None
    run.save(2, {"generator": {"weight": torch.zeros(1)}}, keep_last=1)
    found = newest_checkpoint(run)
    assert found is not None
    assert found.step == 2
    monkeypatch.setattr(agreement, "gather_objects", lambda own: [own, *others])
    with pytest.raises(UserError) as error:
        newest_checkpoint(run)
    assert str(error.value) == message.format(run.checkpoints)


GLOO = "[/home/who/pytorch/third_party/gloo/gloo/transport/tcp/"


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (f"{GLOO}pair.cc:553] Connection closed by peer [127.0.0.1]:39217. GLHF!", "connection lost"),
        (f"{GLOO}unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation", "timed out"),
        (f"{GLOO}device.cc:90] Unable to resolve hostname", "Unable to resolve hostname"),
    ],
)
def test_a_lost_connection_is_one_plain_line(error: str, how: str):
    roll_call = RollCall(dist.HashStore(), Launch(0, 1, 0, "head", 29500, by_torchrun=False), grace=0.1)
    message = f"rank 0 lost touch with the other processes: all other processes gave up, too ({how})"
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"), naming_the_missing(roll_call, 0):
            raise RuntimeError(error)
    finally:
        signal.signal(signal.SIGTERM, before)
        roll_call.close()


def test_other_errors_are_left_as_they_are():
    roll_call = RollCall(dist.HashStore(), Launch(0, 1, 0, "head", 29500, by_torchrun=False), grace=0.1)
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2"), naming_the_missing(roll_call, 0):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    roll_call.close()


def test_a_port_in_use_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, str(value))
        message = f"the port of 127.0.0.1:{port} is in use; choose another MASTER_PORT."
        with pytest.raises(UserError, match=message), joined_processes("cpu", timeout=1):
            pass


def test_a_process_that_never_comes_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError, match="2 processes"), joined_processes("cpu", timeout=1):
        pass
