"""Every command line of README and the documentation parses to its end; and all but the listed ones run, made short.

Making one short means to add options after its own: fewer steps, small networks, few samples. What it reads, runs and
pictures, is there. The tutorials are run page by page, by ``tests/test_tutorials.py``.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_blocks.engine.commands import console
from recipes import biggan_deep, progan
from recipes.layouts.huggingface_biggan_deep import export_huggingface_biggan_deep, huggingface_config
from recipes.pretrained import weights_path
from tests.documented_commands import (
    NOT_PARSED,
    PAGES,
    commands_of,
    find_main,
    make_what_it_reads,
    parse_and_stop,
    recipe_of,
)
from tests.engine.own_gan import run, write_own_gan

# The first page that has it.
PAGE_OF = {command: page for page in reversed(PAGES) for command in commands_of(page)}
PARSED = [command for command in PAGE_OF if not command.startswith(tuple(NOT_PARSED))]

ONLY_PARSED = {
    "make": "its commands are those of this table and of CONTRIBUTING.md",
    "pytest": "it is a part of the tests that run",
    "torchrun --nnodes": "it needs many machines",
    "torchrun --nproc-per-node 8": "it needs eight processes; tests/test_tutorials.py starts two",
    "torchrun --nproc-per-node 2 ddp_gan.py": "tests/test_cookbook.py runs it",
    "python -m benchmarks.gpu_check": "it needs a GPU; tests/benchmarks/test_gpu_check.py runs it small, on the CPU",
    "python -m benchmarks.run": "tests/benchmarks/test_run.py runs it small",
    "python -m benchmarks.steps.checkouts": "tests/benchmarks/steps/test_checkouts.py runs it small",
    "python -m benchmarks.evaluation.judge": "tests/benchmarks/evaluation/test_judge.py runs it small",
    "python -m benchmarks.evaluation.cost": "tests/benchmarks/evaluation/test_cost.py runs it small",
    "python -m benchmarks.results": "tests/benchmarks/test_results.py runs it small",
    "python -m recipes.studies.top_k --table 5": "ten trainings; tests/recipes/studies/test_top_k.py runs it small",
    "python -m benchmarks.trials": "test_trials.py and test_lost_processes.py run a few of its trials",
}
"""The beginnings of command lines that are parsed but not run, and why."""

TRAINING = ["--steps", "1", "--standing-batches", "1", "--threads", "1"]
NARROW = ["--channels", "8", "--batch-size", "2", "--discriminator-steps", "1"]
STUDY = ["--threads", "1", "--seeds", "0"]
MIXTURE = ["--hidden-units", "4", "--batch-size", "8", "--evaluation-samples", "100", "--steps", "2", "--threads", "1"]
SHORTER = {
    "gan-blocks train appendix_h": NARROW,
    "gan-blocks train biggan": NARROW,  # and biggan_deep
    "gan-blocks train top_k_players": NARROW,
    "python -m recipes.biggan": NARROW,
    "python -m recipes.studies.appendix_h": NARROW,
    "torchrun --nproc-per-node 2 -m recipes.biggan": NARROW,
    "gan-blocks evaluate": ["--num", "24"],
    "python -m recipes.mixture_of_gaussians": MIXTURE,
    "python -m recipes.studies.latents": [
        *(*STUDY, "--latents", "normal", "--steps", "1", "--measure-every", "1", "--num", "20", "--processes", "1"),
        *("--recipe", "biggan_deep"),
        *("--preset", "mnist5k-32"),
    ],
    "python -m recipes.studies.orthogonal": [
        *(*STUDY, "--coefficients", "0", "--steps", "1", "--num", "20", "--truncations", "1"),
    ],
    "python -m recipes.studies.stacked_mnist": [
        *(*STUDY, "--methods", "gan", "--images", "1000", "--num", "30", "--processes", "1")
    ],
    "python -m recipes.studies.top_k": [
        *STUDY,
        "--variants",
        "dcgan",
        "--data",
        "mnist5k",
        "--minutes",
        "0.001",
        "--num",
        "20",
    ],
    "python -m benchmarks.steps.growing": ["--resolution", "8", "--batch", "2", "--rounds", "1"],
    "python -m benchmarks.steps.mixture_seeds": ["--seeds", "1", "--rounds", "2"],
    "python -m benchmarks.steps.top_k": ["--channels", "8", "--batch", "2", "--rounds", "1"],
}
"""Options that make commands short, by their beginnings."""


@pytest.mark.parametrize("command", PARSED, ids=PARSED)
def test_every_command_parses_to_its_end(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_own_gan(tmp_path)
    make_what_it_reads(command, tmp_path)
    parse_and_stop(command, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "gan-blocks train biggan --batch-sice 16",
        "gan-blocks train biggan --preset imagenet-1024",
        "gan-blocks train biggan --batch-size 0",
        "gan-blocks evaluat --run runs/NAME",
        "gan-blocks sample --run runs/NAME --truncation small",
        "python -m recipes.studies.latents --seed 0",
        "python -m benchmarks.steps.growing --side 64",
        "torchrun --nproc-per-node 2 -m recipes.biggan_deep --batch-sice 16",
        "make demonstration",
        "pytest tests/losses/test_nothing.py",
    ],
)
def test_a_command_with_a_mistake_would_be_noticed(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError):
        parse_and_stop(command, monkeypatch)


def test_no_reason_is_given_for_a_command_that_is_not_there():
    for table in (NOT_PARSED, ONLY_PARSED, SHORTER):
        assert [start for start in table if not any(command.startswith(start) for command in PAGE_OF)] == []


def starting(command: str, table: Iterable[str]) -> list[str]:
    return [start for start in table if command.startswith(start)]


def essence(command: str) -> str:
    """The command without what is overridden when it is made short, and without the names of its results."""
    overridden = {"--out", "--run-dir", *(word for start in starting(command, SHORTER) for word in SHORTER[start])}
    kept, option = [], ""
    for word in shlex.split(command):
        option = word if word.startswith("--") else option
        kept += [] if option in overridden else [word]
    return shlex.join(kept)


RUN = [
    command
    for command in PARSED
    if not starting(command, ONLY_PARSED) and "--help" not in command and PAGE_OF[command].parent.name != "tutorials"
]
RUN = list({essence(command): command for command in RUN}.values())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a data set of ten classes, and runs of one step."""
    folder = tmp_path_factory.mktemp("commands")
    write_pictures(folder)
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 10
    np.savez(folder / "ten.npz", images=rng.integers(0, 255, (200, 32, 32, 1), dtype=np.uint8), labels=labels)
    write_own_gan(folder)
    run_of = {
        "ten": (biggan_deep.RECIPE, [*NARROW, "--hold-out", "0.3"]),
        "thousand": (biggan_deep.RECIPE, [*NARROW, "--num-classes", "1000"]),
        "progan": (progan.RECIPE, []),
    }
    for name, (recipe, options) in run_of.items():
        words = ["--data", f"npz:{folder / 'ten.npz'}", *options, *TRAINING, "--run-dir", str(folder / "made" / name)]
        assert recipe.main(words) == 0
    return folder


def write_pictures(folder: Path) -> None:
    """Eighty small pictures in two classes under four names, and landmarks of the faces that they might be."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(80):
        path = folder / "pets" / ("cats", "dogs")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
        lines.append(f"{number}.png 18 15 30 15 24 22 19 28 29 28")
    for name in ("my_images", "my_pictures", "photos"):
        shutil.copytree(folder / "pets", folder / name)
    (folder / "img_celeba").mkdir()
    for number in range(0, 6, 2):
        shutil.copy(folder / "pets" / "cats" / f"{number}.png", folder / "img_celeba")
    (folder / "list_landmarks_celeba.txt").write_text("\n".join(lines))


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN, ids=RUN)
def test_every_command_runs(command: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for thing in place.iterdir():
        if thing.name != "made":
            Path(thing.name).symlink_to(thing)
    Path("my_gan.py").unlink()
    write_own_gan(tmp_path)
    program, *words = shlex.split(command)
    words = [str(weights_path("digits")) if word.startswith("$(") else word for word in words]
    furnish(command, words, place)
    words += added(command, words)
    if program == "torchrun":
        run("-m", "torch.distributed.run", *words, cwd=tmp_path)
    else:
        monkeypatch.delitem(sys.modules, "my_gan", raising=False)
        assert find_main(program, words, monkeypatch)() in (0, None)


TRAINED_HERE = {"my_gan.py": ["my_gan.py"], "biggan": ["-m", "recipes.biggan", *NARROW]}
"""How the runs are made of recipes that few commands read."""


def furnish(command: str, words: Sequence[str], place: Path) -> None:
    """Put what the command reads into the working folder."""
    classes = words[words.index("--classes") + 1] if "--classes" in words else "0"
    made = "progan" if recipe_of(words) == "progan" else "ten" if int(classes) < 10 else "thousand"
    for word in words:
        if word.startswith("runs/") and words[words.index(word) - 1] not in ("--run-dir", "--out"):
            path = Path(word.removesuffix("/config.json"))
            if trained := TRAINED_HERE.get(recipe_of(words)):
                run(*trained, "--data", "npz:ten.npz", *TRAINING, "--run-dir", str(path), cwd=Path.cwd())
            else:
                shutil.copytree(place / "made" / made, path)
    if "samples.npz" in words:
        assert console.main(["sample", "--run", str(place / "made" / "ten"), "--out", "samples.npz"]) == 0
    if "--generator" in words:
        write_weights_of_other_code(place)


def write_weights_of_other_code(place: Path) -> None:
    """The files that ``gan-blocks convert`` reads, of small networks."""
    small = replace(biggan_deep.PRESETS["imagenet-128"](), channels=8, latent_dim=4, embedding_dim=4)
    state = biggan_deep.RECIPE.build_generator(small).state_dict()
    torch.save(export_huggingface_biggan_deep(state, config=small), "pytorch_model.bin")
    Path("config.json").write_text(json.dumps(huggingface_config(small)))
    run_folder = str(place / "made" / "ten")
    assert console.main(["convert", "--to", "biggan-pytorch", "--run", run_folder, "--out", "exported"]) == 0
    for name, theirs in (("generator", "G_ema"), ("discriminator", "D")):
        Path(f"exported/{name}.safetensors").rename(f"{theirs}.pth")


def added(command: str, words: Sequence[str]) -> list[str]:
    """What makes it short."""
    options = [word for start in starting(command, SHORTER) for word in SHORTER[start]]
    if "--images" in words:
        return []
    for option, few in (("--swd", "24"), ("--ms-ssim", "4"), ("--memorization", "24")):
        options += [option, few] if option in words else []
    if is_training(command):
        options += TRAINING
        if {"--resume", "--config"} & set(words):
            return ["--steps", "2", "--threads", "1"]
        if not {"--data", "--init-from"} & set(words):
            options += ["--data", "npz:ten.npz"]
    return options


def is_training(command: str) -> bool:
    of_recipe = ("recipes.biggan", "recipes.studies.appendix_h", "my_gan.py")
    return "gan-blocks train" in command or (
        not command.startswith("gan-blocks") and any(f" {word}" in command for word in of_recipe)
    )
