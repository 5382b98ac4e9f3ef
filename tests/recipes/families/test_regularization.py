"""The regularization fields of a class-conditional recipe: what each does to the gradients of a training step."""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
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
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.config import config_to_json
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.state import TrainingState
from recipes import biggan_deep
from recipes.families.regularization import RegularizationFields, generator_weight_penalty


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


@dataclass
class Step:
    """A training step in float64 and what it started from. The gradients of both networks are those of the step."""

    before: TrainingState
    state: TrainingState
    part: PairBatch
    logged: dict[str, Tensor]

    def gradients(self, network: str) -> dict[str, Tensor]:
        named = getattr(self.state, network).named_parameters()
        return {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}


def take_step(config: biggan_deep.Config, *, step: int = 1, accumulate: int = 1) -> Step:
    options = RunOptions(precision="fp64", device="cpu", accumulate=accumulate)
    images = load_images(config.data, resolution=16, channels=1, num_classes=3)
    source = BatchSource(images, biggan_deep.RECIPE.build_prior(config), config, options)
    state = build_state(biggan_deep.RECIPE, config, options)
    for network in (state.generator, state.discriminator):  # orthogonal weights would hide a wrong penalty
        rng = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64), alpha=0.1)
    before = copy.deepcopy(state)
    batches = source.step(step)
    whole = BatchSource(images, biggan_deep.RECIPE.build_prior(config), config, replace(options, accumulate=1)).step(
        step
    )
    part = next(whole.discriminator(0))
    return Step(before, state, part, biggan_deep.RECIPE.train_step(state, batches, config))


def gradients_of(network: nn.Module, term: Callable[[], Tensor]) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(term(), parameters, allow_unused=True)
    return {name: value for name, value in zip(names, found, strict=True) if value is not None}


def assert_differ_by(with_term: dict[str, Tensor], plain: dict[str, Tensor], term: dict[str, Tensor]) -> None:
    assert any(value.abs().max() > 1e-6 for value in term.values())
    for name, gradient in with_term.items():
        expected = plain[name] + term.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=1e-9)


def raw_weights(network: nn.Module) -> list[Tensor]:
    """What the optimizer moves of every weight but the class embedding of G."""
    named = network.named_parameters()
    return [value for name, value in named if value.dim() > 1 and name != "embedding.weight"]


def off_diagonal(weights: list[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for weight in weights:
        product = weight.flatten(1) @ weight.flatten(1).T
        total = total + (product * (1 - torch.eye(len(product)))).square().sum()
    return total


def distance_from_identity(weights: list[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for weight in weights:
        product = weight.flatten(1) @ weight.flatten(1).T
        total = total + (product - torch.eye(len(product))).square().sum()
    return total


WEIGHT_TERMS: list[tuple[str, dict[str, Any], Callable[[nn.Module], Tensor]]] = [
    ("generator", {"generator_orthogonal_penalty": 0.01}, lambda g: 0.01 * off_diagonal(raw_weights(g))),
    ("discriminator", {"discriminator_orthogonal_penalty": 0.01}, lambda d: 0.01 * off_diagonal(raw_weights(d))),
    (
        "generator",
        {"generator_orthogonal_penalty": 0.01, "orthogonal_equation": 2},
        lambda g: 0.01 * distance_from_identity(raw_weights(g)),
    ),
    (
        "discriminator",
        {"discriminator_l2_penalty": 0.1},
        lambda d: sum((0.05 * p.square().sum() for p in d.parameters()), torch.zeros(())),
    ),
    ("generator", {"embedding_weight_decay": 0.1}, lambda g: 0.05 * g.get_parameter("embedding.weight").square().sum()),
]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(("network", "change", "term"), WEIGHT_TERMS)
def test_a_penalty_adds_its_gradient_and_value_to_the_loss_of_its_network_once(
    network: str, change: dict[str, Any], term, accumulate: int, config: biggan_deep.Config
):
    plain = take_step(config, accumulate=accumulate)
    changed = take_step(replace(config, **change), accumulate=accumulate)
    start = getattr(plain.before, network)
    start.requires_grad_(True)
    assert_differ_by(changed.gradients(network), plain.gradients(network), gradients_of(start, lambda: term(start)))
    loss = f"loss_{network[0]}"
    difference = changed.logged[loss] - plain.logged[loss]
    torch.testing.assert_close(difference, term(start).detach().double(), atol=1e-10, rtol=1e-9)


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
    plain = take_step(config, accumulate=accumulate)
    changed = take_step(replace(config, r1_penalty=2.0), accumulate=accumulate)
    start = plain.before.discriminator.requires_grad_(True)
    term = gradients_of(start, lambda: 2.0 / 2 * squared_slopes(start, plain.part))
    assert_differ_by(changed.gradients("discriminator"), plain.gradients("discriminator"), term)


@pytest.mark.parametrize(("step", "strength"), [(1, 6.0), (2, 0.0), (3, 0.0), (4, 6.0)])
def test_lazy_r1_is_computed_in_updates_that_are_due_and_as_many_times_as_strong(
    step: int, strength: float, config: biggan_deep.Config
):
    lazy = take_step(replace(config, r1_penalty=2.0, r1_interval=3), step=step)
    equal = take_step(replace(config, r1_penalty=strength), step=step)
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


def test_clipping_shortens_the_whole_gradient_of_each_network_and_keeps_its_direction(config: biggan_deep.Config):
    plain, clipped = take_step(config), take_step(replace(config, gradient_clip=1e-3))
    before, after = (torch.cat([g.flatten() for g in s.gradients("discriminator").values()]) for s in (plain, clipped))
    assert before.norm() > 1e-2
    torch.testing.assert_close(after, before * 1e-3 / before.norm(), atol=1e-8, rtol=1e-3)
    of_generator = torch.cat([gradient.flatten() for gradient in clipped.gradients("generator").values()])
    assert of_generator.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_clipping_by_parameter_limits_each_by_its_own(config: biggan_deep.Config):
    plain = take_step(config).gradients("discriminator")
    limit = torch.stack([gradient.norm() for gradient in plain.values()]).median().item()
    clipped = take_step(replace(config, gradient_clip=limit, gradient_clip_scope="parameter"))
    for name, gradient in clipped.gradients("discriminator").items():
        expected = plain[name] * min(1.0, limit / plain[name].norm().item())
        torch.testing.assert_close(gradient, expected, atol=1e-8, rtol=1e-4)


def test_dropout_drops_features_in_training_alone(config: biggan_deep.Config):
    step = take_step(replace(config, discriminator_dropout=0.5))
    discriminator, part = step.before.discriminator, step.part
    plain = biggan_deep.RECIPE.build_discriminator(config).double()
    plain.load_state_dict(discriminator.state_dict())
    images, labels = part.real_images, part.real_labels
    seen: list[Tensor] = []
    discriminator.get_submodule("head").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    plain.get_submodule("head").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits = [discriminator.train()(images, labels), plain.eval()(images, labels)]
        torch.testing.assert_close(discriminator.eval()(images, labels), logits[1])
    dropped, kept = seen[:2]
    share = (dropped == 0).double().mean().item()
    assert 0.2 < share < 0.8
    torch.testing.assert_close(dropped[dropped != 0], 2 * kept[dropped != 0])


def test_what_is_dropped_is_a_function_of_seed_step_and_purpose(config: biggan_deep.Config):
    config = replace(config, discriminator_dropout=0.5)
    state = torch.get_rng_state()
    first = take_step(config, step=2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)  # whatever was drawn before
    again = take_step(config, step=2)
    for network in ("generator", "discriminator"):
        for name, gradient in first.gradients(network).items():
            assert torch.equal(gradient, again.gradients(network)[name])
    other = take_step(replace(config, seed=1), step=2)
    assert not torch.equal(other.logged["loss_d"], first.logged["loss_d"])


def test_the_log_has_the_median_and_the_largest_norm_of_the_class_embeddings(config: biggan_deep.Config):
    step = take_step(config)
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
    assert (config.generator_orthogonal_penalty, config.orthogonal_equation) == (1e-4, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"generator_orthogonal_penalty": -1.0},
            "--generator-orthogonal-penalty must be a finite number of at least 0, but got -1.0.",
        ),
        (
            {"gradient_clip": float("inf")},
            "--gradient-clip must be a finite number of at least 0, but got inf.",
        ),
        ({"r1_penalty": 1.0, "r1_interval": 0}, "--r1-interval must be greater than 0, but got 0."),
        ({"r1_interval": 4}, "--r1-interval must be 1 without --r1-penalty, but got 4."),
        (
            {"orthogonal_equation": 4, "generator_orthogonal_penalty": 1.0},
            "--orthogonal-equation must be 2 or 3, but got 4.",
        ),
        (
            {"orthogonal_equation": 2},
            "--orthogonal-equation must be 3 without --generator-orthogonal-penalty or "
            "--discriminator-orthogonal-penalty, but got 2.",
        ),
        (
            {"gradient_clip_scope": "layer", "gradient_clip": 1.0},
            "--gradient-clip-scope must be network or parameter, but got layer.",
        ),
        (
            {"gradient_clip_scope": "parameter"},
            "--gradient-clip-scope must be network without --gradient-clip, but got parameter.",
        ),
        (
            {"discriminator_dropout": 1.0},
            "--discriminator-dropout must be at least 0 and less than 1, but got 1.0.",
        ),
    ],
)
def test_rejects_what_cannot_work(change: dict[str, Any], message: str, config: biggan_deep.Config):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        replace(config, **change)


def test_rejects_the_decay_of_an_embedding_that_there_is_not(config: biggan_deep.Config):
    message = "--embedding-weight-decay must be 0, since this generator has no shared class embedding."
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        generator_weight_penalty(nn.Linear(2, 2), replace(config, embedding_weight_decay=1.0))


def test_a_run_with_everything_on_stops_and_resumes_with_the_same_bytes(tiny_args: list[str], tmp_path: Path):
    options = [
        *("--generator-orthogonal-penalty", "1e-4", "--discriminator-orthogonal-penalty", "1e-4"),
        *("--r1-penalty", "1", "--r1-interval", "3", "--discriminator-l2-penalty", "1e-4"),
        *("--embedding-weight-decay", "1e-3", "--gradient-clip", "1", "--discriminator-dropout", "0.2"),
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    args = [*tiny_args, *options, "--precision", "bf16"]
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(whole), "--steps", "3"]) == 0
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(parts), "--steps", "2"]) == 0
    assert biggan_deep.RECIPE.main(["--resume", str(parts), "--precision", "bf16", "--steps", "3"]) == 0
    files = [sorted((run / "checkpoints" / "step_000003").glob("*.safetensors")) for run in (whole, parts)]
    assert len(files[0]) == 5
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


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
    assert page.count("<polyline") == 4
    assert len([entry for entry in others if "event" not in entry]) == 2
