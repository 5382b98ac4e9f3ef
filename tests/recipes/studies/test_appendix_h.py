"""BigGAN with the variants of Appendix H: what each does to the networks, to a training step and to a run."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gan_blocks import CrossReplicaBatchNorm2d, SpectralNorm, upsample_bilinear, upsample_nearest
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import sample
from gan_blocks.engine.recipe.config_json import config_to_json
from recipes import biggan, biggan_deep, sagan, sngan
from recipes.studies.appendix_h import PRESETS, RECIPE, Config
from tests.recipes.one_step import assert_penalizes, off_diagonal, raw_weights, take_step
from tests.recipes.test_residual_recipes import TINY, TINY_ARGS, layers_of

HERE = "recipes.studies.appendix_h"


@pytest.fixture
def config(tiny_data: Path) -> Config:
    return Config(**TINY, data=f"npz:{tiny_data}", embedding_dim=5, batch_size=6, discriminator_steps=1)


def build(config: Config) -> tuple[nn.Module, nn.Module]:
    return RECIPE.build_generator(config), RECIPE.build_discriminator(config)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_is_biggans_with_everything_else_at_its_default(preset: str):
    theirs, ours = vars(biggan.PRESETS[preset]()), vars(PRESETS[preset]())
    assert {name: ours[name] for name in theirs} == theirs
    assert {name: ours[name] for name in ours.keys() - theirs} == {
        name: vars(Config())[name] for name in ours.keys() - theirs
    }


def test_by_default_a_step_is_biggans_to_the_last_bit(config: Config):
    theirs = biggan.Config(**{name: value for name, value in vars(config).items() if hasattr(biggan.Config, name)})
    steps = [take_step(RECIPE, config), take_step(biggan.RECIPE, theirs)]
    for network in ("generator", "discriminator"):
        ours, expected = (getattr(step.state, network).state_dict() for step in steps)
        assert list(ours) == list(expected)
        assert all(torch.equal(value, expected[name]) for name, value in ours.items())


MOVED: list[tuple[Any, dict[str, Any]]] = [
    (biggan.RECIPE, {"gradient_clip": 1.0, "generator_norm": "none", "generator_kernel_size": 5}),
    (sagan.RECIPE, {"discriminator_dropout": 0.2, "blocks_per_stage": 2}),
    (sngan.RECIPE, {"upsampling": "bilinear"}),
    (biggan_deep.RECIPE, {"generator_sigma_clamp": 2.0, "hinge_margin": 0.5}),
]


@pytest.mark.parametrize(("recipe", "changes"), MOVED, ids=lambda value: getattr(value, "name", ""))
def test_a_saved_config_from_before_loads_at_the_defaults_of_what_moved_here_and_else_names_this_module(
    recipe: Any, changes: dict[str, Any]
):
    today = config_to_json(recipe.presets["mnist5k-32"]())
    for name, value in changes.items():
        assert name not in today
        assert recipe.config_from_json({**today, name: getattr(Config(), name)}) == recipe.presets["mnist5k-32"]()
        option = f"--{name.replace('_', '-')} {value}"
        moved = f"an option that moved to python -m {HERE}"
        message = f"the saved Config has {option}, {moved}; the version that made the run still reads it."
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            recipe.config_from_json({**today, name: value})


def test_the_defaults_that_are_dropped_are_those_of_the_options_here():
    for kind in (biggan.Config, biggan_deep.Config, sagan.Config, sngan.Config):
        for base in kind.__mro__:
            for name, default in vars(base).get("moved_fields", {}).get(HERE, {}).items():
                assert default == getattr(Config(), name), name


def distance_from_identity(weights: list[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for weight in weights:
        product = weight.flatten(1) @ weight.flatten(1).T
        total = total + (product - torch.eye(len(product))).square().sum()
    return total


WEIGHT_TERMS: list[tuple[str, dict[str, Any], Callable[[nn.Module], Tensor]]] = [
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
    network: str, change: dict[str, Any], term, accumulate: int, config: Config
):
    assert_penalizes(RECIPE, config, replace(config, **change), network, term, accumulate)


def test_clipping_shortens_the_whole_gradient_of_each_network_and_keeps_its_direction(config: Config):
    plain, clipped = take_step(RECIPE, config), take_step(RECIPE, replace(config, gradient_clip=1e-3))
    before, after = (torch.cat([g.flatten() for g in s.gradients("discriminator").values()]) for s in (plain, clipped))
    assert before.norm() > 1e-2
    torch.testing.assert_close(after, before * 1e-3 / before.norm(), atol=1e-8, rtol=1e-3)
    of_generator = torch.cat([gradient.flatten() for gradient in clipped.gradients("generator").values()])
    assert of_generator.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_clipping_by_parameter_limits_each_by_its_own(config: Config):
    plain = take_step(RECIPE, config).gradients("discriminator")
    limit = torch.stack([gradient.norm() for gradient in plain.values()]).median().item()
    clipped = take_step(RECIPE, replace(config, gradient_clip=limit, gradient_clip_scope="parameter"))
    for name, gradient in clipped.gradients("discriminator").items():
        expected = plain[name] * min(1.0, limit / plain[name].norm().item())
        torch.testing.assert_close(gradient, expected, atol=1e-8, rtol=1e-4)


def test_dropout_drops_features_in_training_alone(config: Config):
    step = take_step(RECIPE, replace(config, discriminator_dropout=0.5))
    discriminator, part = step.before.discriminator, step.part
    plain = RECIPE.build_discriminator(config).double()
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


def test_what_is_dropped_is_a_function_of_seed_step_and_purpose(config: Config):
    config = replace(config, discriminator_dropout=0.5)
    state = torch.get_rng_state()
    first = take_step(RECIPE, config, step=2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)  # whatever was drawn before
    again = take_step(RECIPE, config, step=2)
    for network in ("generator", "discriminator"):
        for name, gradient in first.gradients(network).items():
            assert torch.equal(gradient, again.gradients(network)[name])
    other = take_step(RECIPE, replace(config, seed=1), step=2)
    assert not torch.equal(other.logged["loss_d"], first.logged["loss_d"])


def test_filters_have_the_size_and_the_dilation_that_are_asked_for():
    config = Config(
        **TINY, generator_kernel_size=5, generator_dilation=2, discriminator_kernel_size=7, discriminator_dilation=3
    )
    for network, size, dilation in zip(build(config), (5, 7), (2, 3), strict=True):
        convolutions = [layer for block in network.blocks for layer in (block.conv1, block.conv2)]
        assert {layer.kernel_size for layer in convolutions} == {(size, size)}
        assert {layer.dilation for layer in convolutions} == {(dilation, dilation)}


def test_upsampling_is_the_one_that_is_asked_for():
    for name, function in (("nearest", upsample_nearest), ("bilinear", upsample_bilinear)):
        generator = RECIPE.build_generator(Config(**TINY, upsampling=name))
        assert [block.resample for block in generator.blocks] == [function, function]


def test_doubled_depth_adds_a_block_after_each_one_that_resamples():
    generator, discriminator = build(Config(**TINY, blocks_per_stage=2))
    assert [[block.upsample for block in stage.blocks] for stage in generator.blocks] == [[True, False]] * 2
    *stages, last = discriminator.blocks
    assert [[block.downsample for block in stage.blocks] for stage in stages] == [[True, False]] * 2
    assert [[block.preactivation for block in stage.blocks] for stage in stages] == [[False, True], [True, True]]
    assert not last.downsample


def test_a_block_of_doubled_depth_shares_the_chunk_of_its_stage(rng: torch.Generator):
    generator = RECIPE.build_generator(Config(**TINY, blocks_per_stage=2)).eval()
    told: list[torch.Tensor] = []
    for stage in generator.blocks:
        for block in stage.blocks:
            block.register_forward_pre_hook(lambda _module, args: told.append(args[1]))
    z = torch.randn(1, 6, generator=rng)
    generator(z, torch.tensor([0]))
    for condition, begin in zip(told, (2, 2, 4, 4), strict=True):
        assert torch.equal(condition[:, :2], z[:, begin : begin + 2])


def test_batch_norm_in_d_stands_before_each_activation_of_its_blocks_and_has_no_buffers():
    discriminator = RECIPE.build_discriminator(Config(**TINY, discriminator_norm="batch"))
    norms = layers_of(discriminator, CrossReplicaBatchNorm2d)
    assert len(norms) == 5  # two a block, of which the first block begins without
    assert not [name for norm in norms for name, _ in norm.named_buffers()]
    images, labels = torch.rand(4, 1, 16, 16), torch.zeros(4, dtype=torch.int64)
    alone, together = discriminator(images[:2], labels[:2]), discriminator(images, labels)[:2]
    assert not torch.allclose(alone, together)


def test_conditioning_by_a_perceptron_has_a_hidden_layer_of_the_asked_width():
    generator = RECIPE.build_generator(Config(**TINY, embedding_hidden=7))
    projection = generator.blocks[0].norm1.gain
    assert [(layer.in_features, layer.out_features) for layer in layers_of(projection, torch.nn.Linear)] == [
        (2 + 64, 7),
        (7, 8),
    ]
    assert [layer.bias is None for layer in layers_of(projection, torch.nn.Linear)] == [False, True]


@pytest.mark.parametrize(("norm", "spectral"), [("weight", False), ("none", True)])
def test_without_batch_norm_in_g_samples_do_not_see_each_other_in_training(norm: str, spectral: bool):
    generator = RECIPE.build_generator(Config(**TINY, generator_norm=norm))
    assert not layers_of(generator, CrossReplicaBatchNorm2d)
    assert bool(layers_of(generator, SpectralNorm)) == spectral
    z, labels = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(generator(z, labels)[:2], generator(z[:2], labels[:2]))


def test_weight_norm_gives_each_filter_a_length_of_its_own():
    generator = RECIPE.build_generator(Config(**TINY, generator_norm="weight"))
    conv = generator.blocks[0].conv1
    length = conv.parametrizations.weight.original0
    with torch.no_grad():
        length.fill_(3.0)
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=1), torch.full((8,), 3.0))


def test_d_sees_g_s_embedding_of_the_step_where_it_is_shared(tiny_data: Path, tmp_path: Path):
    run = tmp_path / "run"
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, "--share-embedding", "True", "--checkpoint-every", "1"]
    assert RECIPE.main([*args, "--run-dir", str(run), "--steps", "2"]) == 0
    folder = run / "checkpoints"
    embeddings = [load_file(folder / f"step_{step:06d}" / "generator.safetensors") for step in (1, 2)]
    seen = load_file(folder / "step_000002" / "discriminator.safetensors")["head.embedding.table"]
    assert torch.equal(seen, embeddings[0]["embedding.weight"])  # D and G of step 2 were updated with what step 1 left
    assert not torch.equal(seen, embeddings[1]["embedding.weight"])


VARIANTS = {
    "architecture": [
        *("--generator-kernel-size", "5", "--discriminator-kernel-size", "5", "--upsampling", "bilinear"),
        *("--generator-dilation", "2", "--discriminator-dilation", "2", "--blocks-per-stage", "2"),
        *("--generator-attention", "8", "16", "--discriminator-attention", "--discriminator-norm", "batch"),
        *("--embedding-hidden", "7"),
    ],
    "shared": ["--share-embedding", "True"],
    "none": ["--generator-norm", "none"],
    "weight": ["--generator-norm", "weight", "--generator-orthogonal-penalty", "1e-4"],
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_variants_of_the_networks_are_trained_and_sampled(variant: str, tiny_data: Path, tmp_path: Path):
    run = tmp_path / "run"
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, *VARIANTS[variant], "--spectra-every", "1"]
    assert RECIPE.main([*args, "--run-dir", str(run), "--steps", "2"]) == 0
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss_g" in line] == [1, 2]
    assert sample.main(["--run", str(run), "--out", str(tmp_path / "sheet.png")]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator_kernel_size": 4}, "--generator-kernel-size must be 1, 3, 5 or 7, but got 4."),
        (
            {"discriminator_kernel_size": 1, "discriminator_dilation": 2},
            "--discriminator-dilation must be 1 with --discriminator-kernel-size 1, which has nothing to spread, "
            "but got 2.",
        ),
        ({"blocks_per_stage": 0}, "--blocks-per-stage must be greater than 0, but got 0."),
        ({"upsampling": "cubic"}, "--upsampling must be nearest or bilinear, but got cubic."),
        ({"generator_norm": "layer"}, "--generator-norm must be one of batch, weight, none, but got layer."),
        (
            {"generator_norm": "weight", "generator_sigma_clamp": 2.0},
            "--generator-sigma-clamp must be 0 with --generator-norm weight, which takes spectral norm out of G, "
            "but got 2.0.",
        ),
        ({"embedding_hidden": -1}, "--embedding-hidden must be at least 0, but got -1."),
        (
            {"discriminator_norm": "batch", "r1_penalty": 1.0},
            "--r1-penalty must be 0 with --discriminator-norm batch, since the slope at one image is then not its own, "
            "but got 1.0.",
        ),
    ],
)
def test_rejects_variants_that_cannot_work(change: dict[str, object], message: str):
    with pytest.raises(UserError) as error:
        Config(**{**TINY, **change})
    assert str(error.value) == message


def test_a_run_with_everything_on_stops_and_resumes_with_the_same_bytes(tiny_data: Path, tmp_path: Path):
    options = [
        *("--generator-orthogonal-penalty", "1e-4", "--discriminator-orthogonal-penalty", "1e-4"),
        *("--r1-penalty", "1", "--r1-interval", "3", "--discriminator-l2-penalty", "1e-4"),
        *("--embedding-weight-decay", "1e-3", "--gradient-clip", "1", "--discriminator-dropout", "0.2"),
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, *options, "--precision", "bf16"]
    assert RECIPE.main([*args, "--run-dir", str(whole), "--steps", "3"]) == 0
    assert RECIPE.main([*args, "--run-dir", str(parts), "--steps", "2"]) == 0
    assert RECIPE.main(["--resume", str(parts), "--precision", "bf16", "--steps", "3"]) == 0
    files = [sorted((run / "checkpoints" / "step_000003").glob("*.safetensors")) for run in (whole, parts)]
    assert len(files[0]) == 5
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
