"""The regularization fields of a class-conditional recipe: what each does to the gradients of a training step."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gan_blocks import ClassConditionalBatchNorm2d, SharedEmbedding
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.recipe.batches import BatchSource, PairBatch
from gan_blocks.engine.recipe.config_json import config_to_json
from gan_blocks.engine.recipe.options import RunOptions
from recipes import biggan_deep
from recipes.families.regularization import RegularizationFields, generator_weight_penalty
from tests.recipes.one_step import (
    assert_differ_by,
    assert_penalizes,
    gradients_of,
    off_diagonal,
    raw_weights,
    take_step,
)


@pytest.fixture
def config(tiny_data: Path) -> biggan_deep.Config:
    return biggan_deep.Config(
        data=f"npz:{tiny_data}",
        resolution=16,
        num_classes=3,
        channels=8,
        latent_dim=6,
        embedding_dim=5,
        generator_widths=(2, 2, 1),
        discriminator_widths=(1, 2, 2),
        attention_resolution=8,
        batch_size=6,
        discriminator_steps=1,
    )


@pytest.mark.parametrize("accumulate", [1, 3])
def test_equation_3_adds_its_gradient_and_value_to_the_loss_of_g_once(accumulate: int, config: biggan_deep.Config):
    changed = replace(config, generator_orthogonal_penalty=0.01)
    assert_penalizes(
        biggan_deep.RECIPE, config, changed, "generator", lambda g: 0.01 * off_diagonal(raw_weights(g)), accumulate
    )


def test_tables_of_classes_are_no_filters(config: biggan_deep.Config):
    convolution = nn.Conv2d(3, 4, 3)
    generator = nn.Sequential(SharedEmbedding(5, 3), ClassConditionalBatchNorm2d(3, num_classes=5), convolution)
    nn.init.ones_(generator[1].gain.weight)
    penalty = generator_weight_penalty(generator, replace(config, generator_orthogonal_penalty=1.0))
    assert penalty.item() == pytest.approx(off_diagonal([convolution.weight.double()]).item(), rel=1e-5)


def squared_slopes(discriminator: nn.Module, part: PairBatch) -> Tensor:
    images = part.real_images.clone().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        total = torch.zeros((), dtype=torch.float64)
        for number in range(len(images)):
            logit = discriminator(images[number : number + 1], part.real_labels[number : number + 1]).sum()
            (slope,) = torch.autograd.grad(logit, images, create_graph=True)
            total = total + slope.square().sum()
    return total / len(images)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_r1_adds_its_gradient_to_that_of_the_discriminator(accumulate: int, config: biggan_deep.Config):
    plain = take_step(biggan_deep.RECIPE, config, accumulate=accumulate)
    changed = take_step(biggan_deep.RECIPE, replace(config, r1_penalty=2.0), accumulate=accumulate)
    start = plain.before.discriminator.requires_grad_(True)
    term = gradients_of(start, lambda: 2.0 / 2 * squared_slopes(start, plain.part))
    assert_differ_by(changed.gradients("discriminator"), plain.gradients("discriminator"), term)


@pytest.mark.parametrize(("step", "strength"), [(1, 6.0), (2, 0.0), (3, 0.0), (4, 6.0)])
def test_lazy_r1_is_computed_in_updates_that_are_due_and_as_many_times_as_strong(
    step: int, strength: float, config: biggan_deep.Config
):
    lazy = take_step(biggan_deep.RECIPE, replace(config, r1_penalty=2.0, r1_interval=3), step=step)
    equal = take_step(biggan_deep.RECIPE, replace(config, r1_penalty=strength), step=step)
    for name, gradient in equal.gradients("discriminator").items():
        assert torch.equal(gradient, lazy.gradients("discriminator")[name])


def test_updates_are_counted_over_the_steps_of_the_discriminator(config: biggan_deep.Config):
    config = replace(config, discriminator_steps=2)
    images = load_images(config.data, resolution=16, channels=1, num_classes=3)
    source = BatchSource(images, biggan_deep.RECIPE.build_prior(config), config, RunOptions(device="cpu", accumulate=2))
    steps = [source.step(step) for step in (1, 2)]
    assert [[part.update for part in step.discriminator(n)] for step in steps for n in (0, 1)] == [
        [0, 0],
        [1, 1],
        [2, 2],
        [3, 3],
    ]


def test_the_log_has_the_median_and_the_largest_norm_of_the_class_embeddings(config: biggan_deep.Config):
    step = take_step(biggan_deep.RECIPE, config)
    norms = sorted(sum(value**2 for value in row) ** 0.5 for row in step.state.generator.embedding.weight.tolist())
    assert step.logged["embedding_norm_median"].item() == pytest.approx(norms[1], rel=1e-6)
    assert step.logged["embedding_norm_largest"].item() == pytest.approx(norms[2], rel=1e-6)


def test_a_saved_config_without_the_fields_means_none_of_them(config: biggan_deep.Config):
    values = config_to_json(config)
    for field in fields(RegularizationFields):
        del values[field.name]
    assert biggan_deep.RECIPE.config_from_json(values) == config
    assert generator_weight_penalty(biggan_deep.RECIPE.build_generator(config), config).item() == 0


@pytest.mark.parametrize("preset", ["cifar10-32", "imagenet-128", "imagenet-256", "imagenet-512"])
def test_presets_of_the_paper_have_its_orthogonal_regularization(preset: str):
    config = biggan_deep.PRESETS[preset]()
    assert config.generator_orthogonal_penalty == 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"generator_orthogonal_penalty": -1.0},
            "--generator-orthogonal-penalty must be a finite number of at least 0, but got -1.0.",
        ),
        ({"r1_penalty": 1.0, "r1_interval": 0}, "--r1-interval must be greater than 0, but got 0."),
        ({"r1_interval": 4}, "--r1-interval must be 1 without --r1-penalty, but got 4."),
    ],
)
def test_rejects_what_cannot_work(change: dict[str, Any], message: str, config: biggan_deep.Config):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        replace(config, **change)


def test_the_report_draws_the_norms_beside_the_losses(tiny_args: list[str], tmp_path: Path):
    run = tmp_path / "run"
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(run), "--steps", "2"]) == 0
    log = run / "log.jsonl"
    first, *others = [json.loads(line) for line in log.read_text().splitlines()]
    assert first["event"] == "start"
    page = (run / "report.html").read_text()
    assert re.findall("<h2>(Losses|Norms of the class embeddings)</h2>", page) == [
        "Losses",
        "Norms of the class embeddings",
    ]
    assert page.count('class="raw"') == 4
    assert len([entry for entry in others if "event" not in entry]) == 2


def test_of_a_layer_with_a_table_of_classes_the_table_alone_is_no_filter(config: biggan_deep.Config):
    class Layer(nn.Module):
        class_tables = ("table",)

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.ones(5, 2))
            self.projection = nn.Linear(3, 4)

    layer = Layer()
    penalty = generator_weight_penalty(layer, replace(config, generator_orthogonal_penalty=1.0))
    assert penalty.item() == pytest.approx(off_diagonal([layer.projection.weight.double()]).item(), rel=1e-5)
