"""The files of the cookbook run as a user would start them, learn what their data hold, and are short."""

import re
from pathlib import Path

import pytest

from tests.engine.own_gan import run

COOKBOOK = Path(__file__).parents[1] / "docs" / "cookbook"
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
LAUNCH = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1")


def check_brightness(said: str) -> None:
    """The images of a class are the brighter the higher its number, once in all that the processes say."""
    (line,) = re.findall(r"brightness of the classes:(.*)", said)
    found = [float(value) for value in line.split()]
    assert len(found) == 10
    assert max(abs(value - (0.15 * label - 0.7)) for label, value in enumerate(found)) < 0.3, found


@pytest.mark.slow
def test_plain_ddp_trains_on_two_processes(tmp_path: Path):
    said = run(*TORCHRUN, str(COOKBOOK / "ddp_gan.py"), cwd=tmp_path)
    check_brightness(said)
    assert re.findall(r"step (\d+):", said) == ["0", "25", "50", "75"]


@pytest.mark.slow
def test_lightning_trains(tmp_path: Path):
    pytest.importorskip("lightning")
    check_brightness(run(str(COOKBOOK / "lightning_gan.py"), cwd=tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), LAUNCH], ids=["one process", "two processes"])
def test_accelerate_trains(launcher: tuple[str, ...], tmp_path: Path):
    pytest.importorskip("accelerate")
    said = run(*launcher, str(COOKBOOK / "accelerate_gan.py"), cwd=tmp_path)
    check_brightness(said)
    assert re.findall(r"epoch (\d+):", said) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("name", ["small_gan", "ddp_gan", "lightning_gan", "accelerate_gan"])
def test_each_file_is_short_and_the_page_shows_it(name: str):
    assert len((COOKBOOK / f"{name}.py").read_text().splitlines()) <= 70
    assert f"{{literalinclude}} cookbook/{name}.py" in (COOKBOOK.parent / "cookbook.md").read_text()
