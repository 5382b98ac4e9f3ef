"""A GAN that needs what the engine offers beyond the hinge loss: pairs, penalties of the loss's logits, schedules."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gan_blocks.engine.runs.checkpoints import load_latest_checkpoint
from tests.conftest import write_tiny_data
from tests.engine import r3gan
from tests.engine.own_gan import run

RECIPE_FILE = Path(r3gan.__file__)
SMALL = [
    *("--resolution", "16", "--num-classes", "3", "--latent-dim", "4", "--width", "8", "--batch-size", "8"),
    *("--discriminator-steps", "1", "--ema-start", "2", "--ramp-images", "64", "--threads", "1"),
    *("--sample-every", "0", "--log-every", "1", "--planned-steps", "12"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe and data."""
    folder = tmp_path_factory.mktemp("r3gan")
    (folder / "r3gan.py").write_text(RECIPE_FILE.read_text() + "\nif __name__ == '__main__':\n    RECIPE.main()\n")
    write_tiny_data(folder)
    return folder


def train(place: Path, name: str, *more: str, processes: int = 1) -> dict[str, dict[str, torch.Tensor]]:
    args = [*SMALL, "--data", f"npz:{place / 'tiny.npz'}", "--run-dir", str(place / name), *more]
    if processes == 1:
        assert r3gan.RECIPE.main(args) == 0
    else:
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
        run(*launcher, "r3gan.py", *args, cwd=place)
    return load_latest_checkpoint(place / name / "checkpoints").tensors


def test_the_file_is_short():
    assert len(RECIPE_FILE.read_text().splitlines()) <= 120


def test_it_resumes_bit_for_bit_in_the_middle_of_its_ramps(place: Path):
    whole = train(place, "whole", "--steps", "7")
    train(place, "parts", "--steps", "3")
    parts = train(place, "parts", "--steps", "7")
    for part, tensors in whole.items():
        assert all(torch.equal(value, parts[part][name]) for name, value in tensors.items())
    constant = train(place, "constant", "--steps", "7", "--ramp-images", "1000000")
    assert any(not torch.equal(value, constant["generator"][name]) for name, value in whole["generator"].items())


@pytest.mark.parametrize(
    "top_k",
    [
        pytest.param((), marks=pytest.mark.slow),
        pytest.param(
            ("--top-k-gamma", "0.5", "--top-k-floor", "0.25", "--top-k-decay-images", "8"), marks=pytest.mark.slow
        ),
    ],
)
def test_one_process_trains_as_two_of_two_micro_batches_each(place: Path, top_k: tuple[str, ...]):
    more = ("--steps", "4", "--precision", "fp64", *top_k)
    name = "top_k" if top_k else "all"
    one = train(place, f"{name}_one", *more)
    two = train(place, f"{name}_two", *more, "--accumulate", "2", processes=2)
    for part in ("generator", "discriminator", "ema"):
        for key, value in one[part].items():
            torch.testing.assert_close(two[part][key], value, rtol=0, atol=1e-9)


def test_its_average_has_the_half_life_of_the_images_seen(place: Path):
    """After two steps without an average, decays of 0.5 ** (8 / (0.05 * 16)) and so on are next to none."""
    tensors = train(place, "average", "--steps", "3")
    saved = load_file(next((place / "average" / "checkpoints").glob("step_*3")) / "ema.safetensors")
    assert saved.keys() == tensors["generator"].keys()
    for name, value in tensors["generator"].items():
        torch.testing.assert_close(saved[name], value, rtol=1e-2, atol=1e-2)
    lines = [json.loads(line) for line in (place / "average" / "log.jsonl").read_text().splitlines()]
    assert {"loss_d", "loss_g"} <= next(line for line in lines if line.get("step") == 1 and "event" not in line).keys()
