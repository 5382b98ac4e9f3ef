"""ProGAN's presets against the table of docs/progan.md: what the published code did."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_blocks import AdaptiveGaussianNoise, MinibatchStdDev
from gan_blocks.engine.recipe.config_json import config_to_json
from recipes import progan

PAGE = Path(__file__).parents[2] / "docs" / "progan.md"
ROWS = {
    letter: f"table1-{letter}" for letter in ("a", "b", "c", "d", "e-star", "e", "f", "g", "h")
}  # of Table 1, in its order
PAPER = ["celebahq-1024", "lsgan-1024", "lsun-256", "cifar10-32", *ROWS.values()]


def rows(first: str, last: str) -> list[str]:
    letters = list(ROWS)
    return [ROWS[letter] for letter in letters[letters.index(first) : letters.index(last) + 1]]


def phases(images: int) -> dict[str, Any]:
    return {"stabilize_images": images, "fade_images": images}


def rates(rate: float, *, rampup_images: int = 0) -> dict[str, Any]:
    return {"generator_lr": rate, "discriminator_lr": rate, "rampup_images": rampup_images}


BATCHES = {4: 16, 8: 16, 16: 16, 32: 16, 64: 16, 128: 16, 256: 14, 512: 6, 1024: 3}

# Setting, as the first column of the table has it; presets; what they hold.
SETTINGS: list[tuple[str, list[str], dict[str, Any]]] = [
    ("statistics across the batch, all presets below", PAPER, {"stddev_group_size": 0}),
    ("`celebahq-1024`, phases", ["celebahq-1024"], phases(800_000)),
    ("`celebahq-1024`, length", ["celebahq-1024"], {"length": 19_000_000}),
    ("`celebahq-1024`, batches", ["celebahq-1024"], {"batches": BATCHES}),
    ("`celebahq-1024`, mirrored images", ["celebahq-1024"], {"mirror": True}),
    (
        "`celebahq-1024` and `lsun-256`, learning rates",
        ["celebahq-1024", "lsun-256"],
        rates(1e-3, rampup_images=40_000),
    ),
    ("`lsun-256`, batches", ["lsun-256"], {"batches": {4: 16, 8: 16, 16: 16, 32: 16, 64: 16, 128: 16, 256: 16}}),
    ("`lsun-256`, phases", ["lsun-256"], phases(800_000)),
    ("`lsun-256`, length", ["lsun-256"], {"length": 20_000_000}),
    ("`lsun-256`, mirrored images", ["lsun-256"], {"mirror": True}),
    ("`cifar10-32`, widths and latents", ["cifar10-32"], {"widths": (128, 128, 128, 128), "latent_dim": 128}),
    ("`cifar10-32`, phases", ["cifar10-32"], phases(400_000)),
    ("`cifar10-32`, length", ["cifar10-32"], {"length": 20_000_000}),
    ("`cifar10-32`, updates", ["cifar10-32"], {"joint_updates": True, "discriminator_steps": 1}),
    ("`cifar10-32`, target slope", ["cifar10-32"], {"gradient_target": 750.0}),
    ("`cifar10-32`, batch", ["cifar10-32"], {"batches": {4: 16, 8: 16, 16: 16, 32: 16}}),
    ("`cifar10-32`, mirrored images", ["cifar10-32"], {"mirror": False}),
    ("`cifar10-32`, learning rates", ["cifar10-32"], rates(1e-3)),
    (
        "`lsgan-1024`, phases, length, batches",
        ["lsgan-1024"],
        {**phases(800_000), "length": 19_000_000, "batches": BATCHES, **rates(1e-3, rampup_images=40_000)},
    ),
    ("`lsgan-1024`, generated images in D's loss", ["lsgan-1024"], {"loss": "least-squares", "fake_weight": 0.1}),
    ("`table1-a` to `table1-c`, updates of D", rows("a", "c"), {"discriminator_steps": 5}),
    ("`table1-a` to `table1-c`, Adam's second decay", rows("a", "c"), {"adam_beta2": 0.9}),
    ("`table1-a` to `table1-c`, batch", rows("a", "b"), {"all_batches": (64,)}),
    ("`table1-a` to `table1-c`, batch", rows("c", "c"), {"all_batches": (16,)}),
    ("`table1-a` to `table1-c`, decay of G's average", rows("a", "b"), {"ema_decay": 0.999**20}),
    ("`table1-a` to `table1-c`, decay of G's average", rows("c", "c"), {"ema_decay": 0.999**5}),
    ("`table1-a` to `table1-e`, learning rates", rows("a", "e"), rates(1e-4)),
    ("`table1-f` to `table1-h`, learning rates", rows("f", "h"), rates(1e-3)),
    ("`table1-a`, resolution", rows("a", "a"), {"resolution": 128, "initial_resolution": 128}),
    ("`table1-b` to `table1-h`, phases", rows("b", "h"), {**phases(800_000), "initial_resolution": 4}),
    ("`table1-d` to `table1-h`, batch", rows("d", "h"), {"all_batches": (16,), "discriminator_steps": 1}),
    ("`table1-a` to `table1-g`, length", rows("a", "g"), {"length": 10_000_000}),
    ("`table1-h`, length", rows("h", "h"), {"length": 12_000_000}),
]
# The rows about the layers of lsgan-1024, which tests below and those of the layer are about.
LAYERS = {f"`lsgan-1024`, {what}" for what in ("axes of the noise", "size of the noise", "what $\\hat d$ follows")}


def held(config: progan.Config, name: str, wanted: Any) -> Any:
    """What a preset has of a setting."""
    if name == "length":  # the first step at whose end so many images have been seen is the last
        before, after = (config.images_before(config.planned_steps + more) for more in (0, 1))
        return wanted if before < wanted <= after else (before, after)
    if name == "batches":
        return dict(config.schedule.batch_sizes)
    if name == "all_batches":
        return config.all_batch_sizes()
    return getattr(config, name)


@pytest.mark.parametrize(("setting", "presets", "values"), SETTINGS)
def test_presets_hold_what_made_the_papers_numbers(setting: str, presets: list[str], values: dict[str, Any]):
    for preset in presets:
        config = progan.PRESETS[preset]()
        assert {name: held(config, name, value) for name, value in values.items()} == values, preset


def test_every_row_of_the_table_is_checked():
    cells = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    start = next(
        number for number, row in enumerate(cells) if row[:4] == ["setting", "paper's text", "its code", "ours"]
    )
    table = []
    for row in cells[start + 2 :]:
        if len(row) != 4:
            break
        table.append(row[0])
    assert set(table) == {setting for setting, *_ in SETTINGS} | LAYERS


@pytest.mark.parametrize("preset", PAPER)
def test_statistics_are_of_the_whole_batch(preset: str):
    config = progan.PRESETS[preset]()
    with torch.device("meta"):
        discriminator = progan.RECIPE.build_discriminator(config)
    layers = [module for module in discriminator.modules() if isinstance(module, MinibatchStdDev)]
    assert [layer.group_size for layer in layers] == [None] * (config.batch_statistics == "stddev")


def test_the_noise_of_lsgan_1024_is_as_appendix_b_has_it():
    with torch.device("meta"):
        discriminator = progan.RECIPE.build_discriminator(progan.lsgan_1024())
    layers = [module for module in discriminator.modules() if isinstance(module, AdaptiveGaussianNoise)]
    assert len(layers) == 2 * 8 + 2  # one for each 3x3 and 4x4 convolution
    assert {(layer.strength, layer.threshold, layer.decay) for layer in layers} == {(0.2, 0.5, 0.9)}


def test_rows_of_table_1_differ_as_the_table_says():
    configs = {row: progan.PRESETS[name]() for row, name in ROWS.items()}
    changes = {
        ("a", "b"): {"initial_resolution"},
        ("b", "c"): {"batch_size", "ema_decay"},
        ("c", "d"): {
            *("adam_beta2", "discriminator_steps", "ema_decay", "drift_coefficient", "latent", "latent_dim"),
            *("generator_norm", "discriminator_norm", "generator_output"),
        },
        ("d", "e"): {"batch_statistics"},
        ("e-star", "e"): {"batch_statistics"},
        ("e", "f"): {"equalized", "generator_lr", "discriminator_lr"},
        ("f", "g"): {"generator_norm"},
        ("g", "h"): {"widths"},
    }
    for (first, second), names in changes.items():
        differing = {
            field.name
            for field in dataclasses.fields(progan.Config)
            if getattr(configs[first], field.name) != getattr(configs[second], field.name)
        }
        assert differing - {"planned_steps"} == names, (first, second)


NEW_FIELDS = {"rampup_images": 0, "joint_updates": False, "fake_weight": 1.0}


def test_a_saved_config_that_is_older_than_these_settings_means_what_it_meant():
    saved = config_to_json(progan.mnist5k_32())
    assert {name: saved.pop(name) for name in NEW_FIELDS} == NEW_FIELDS
    assert progan.RECIPE.config_from_json(saved) == progan.mnist5k_32()
    older = {**saved, "batch_sizes": [16, 14, 6, 3], "top_k_floor": 5.0}  # top-k was refused, its floor not looked at
    assert progan.RECIPE.config_from_json(older).batch_sizes == (16, 14, 6, 3)


@pytest.mark.parametrize("preset", ["mnist5k-32", "fashion-mnist-32"])
def test_the_small_presets_stay_as_they_were(preset: str):
    """Ten minutes' trainings with records of their own: phases, rates and groups of four."""
    config = progan.PRESETS[preset]()
    standard = dataclasses.asdict(progan.Config())
    differing = {name for name, value in dataclasses.asdict(config).items() if value != standard[name]}
    assert differing <= {"data", "ema_decay", "planned_steps"}
    assert (config.planned_steps, config.stddev_group_size, config.batch_size, config.ema_decay) == (6250, 4, 16, 0.99)
    assert {name: getattr(config, name) for name in NEW_FIELDS} == NEW_FIELDS


@pytest.mark.parametrize("preset", [name for name in progan.PRESETS if name.startswith("table1")])
def test_the_page_shows_what_a_row_of_table_1_consists_of(preset: str):
    page = (Path(__file__).parents[2] / "docs" / "progan.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{preset}` | ") and line.count(" | ") == 9]
    config = progan.PRESETS[preset]()
    assert row.strip("| ").split(" | ")[1:] == [
        config.generator_norm,
        config.discriminator_norm,
        config.generator_output,
        f"{config.latent}, {config.latent_dim}",
        config.batch_statistics,
        "equalized" if config.equalized else "He",
        str(config.discriminator_steps),
        f"{config.adam_beta2:g}",
        f"{config.drift_coefficient:g}",
    ]
