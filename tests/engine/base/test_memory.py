import subprocess
import sys

import pytest
import torch
from torch import nn

from gan_blocks.engine.base import memory
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.memory import check_fits, free_memory, out_of_memory, within_memory
from gan_blocks.engine.base.terminal.command_line import run_command


def test_what_is_free_is_more_than_nothing_and_less_than_a_limit_that_is_set(monkeypatch: pytest.MonkeyPatch):
    free = free_memory()
    assert free is None or free > 2**20
    if free is not None:
        monkeypatch.setattr("resource.getrlimit", lambda _kind: (2**60, 2**60))
        assert free_memory() == pytest.approx(free, rel=0.2)
        monkeypatch.setattr("resource.getrlimit", lambda _kind: (1000, 1000))
        assert free_memory() == 0


def test_networks_that_fit_are_built_as_without_the_check(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 4 * 3 * (70 + 7))
    torch.manual_seed(0)
    with within_memory("the networks", copies=3):
        built = nn.Linear(10, 7)
    torch.manual_seed(0)
    assert torch.equal(built.weight, nn.Linear(10, 7).weight)
    with (
        pytest.raises(UserError, match=r"^the networks need 9.48e-07 GB or more, but 9.24e-07 GB are free\.$"),
        within_memory("the networks", copies=3),
    ):
        nn.Sequential(nn.Linear(10, 7), nn.Linear(2, 1, bias=False))


@pytest.mark.parametrize(("inputs", "outputs"), [(10**7, 10**7), (2**62, 2**62), (2**63 - 1, 4), (2**40, 1)], ids=str)
def test_sizes_beyond_any_machine_are_one_line(inputs: int, outputs: int):
    with pytest.raises(UserError, match=r"^the networks need .*\.$"), within_memory("the networks", copies=3):
        nn.Linear(inputs, outputs)


def test_other_errors_come_through():
    with pytest.raises(TypeError, match="unexpected keyword"), within_memory("the networks", copies=3):
        nn.Linear(3, 2, depth=1)
    with pytest.raises(RuntimeError, match="shape"), within_memory("the networks", copies=3):
        nn.Linear(3, 2)(torch.zeros(1, 4))


def test_a_layer_that_gets_its_sizes_while_it_is_built_is_passed_over():
    with within_memory("the networks", copies=3):
        layer = nn.LazyLinear(2)
        layer(torch.zeros(1, 4))
    assert layer.weight.shape == (2, 4)


def test_nothing_is_refused_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    check_fits("the images", 2**80)


def test_errors_of_memory_are_known_and_end_a_command_with_one_line(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert out_of_memory(caught.value) == "out of memory: millions of GB more were asked for"
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total ...")
    assert out_of_memory(gpu) == "the GPU is out of memory: 2.50 GiB more were asked for"
    assert out_of_memory(MemoryError()) == "out of memory"
    assert out_of_memory(RuntimeError("shape")) is None

    def command() -> int:
        raise caught.value

    assert run_command("draw", command) == 2
    assert capfd.readouterr().err == (
        "draw: error: out of memory: millions of GB more were asked for; a smaller --batch-size needs less.\n"
    )

    def other() -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_command("draw", other)


_FAULTS = """
import resource, sys, torch
from gan_blocks.engine.base.memory import keep_freed_memory

torch.set_num_threads(1)
if not keep_freed_memory():
    print("unknown")
    sys.exit()
before = 0
for number in range(50):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    first, second = torch.ones(2**24), torch.ones(2**20)
    del first, second
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_the_memory_of_tensors_that_are_freed_is_used_again_without_a_page_fault():
    command = [sys.executable, "-c", _FAULTS]
    faults = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if faults == "unknown":
        pytest.skip("this C library has no mallopt")
    assert int(faults) < 100  # thousands without
