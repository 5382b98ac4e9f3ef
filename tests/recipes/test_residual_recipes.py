"""SN-GAN, SA-GAN and BigGAN: counts of the published networks, places of attention, and whole runs of tiny ones."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gan_blocks import CrossReplicaBatchNorm2d, SelfAttention2d, SpectralNorm, upsample_bilinear, upsample_nearest
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import sample
from gan_blocks.engine.recipe.recipe import Recipe
from recipes import biggan, sagan, sngan

RECIPES = [biggan.RECIPE, sagan.RECIPE, sngan.RECIPE]
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
TINY = {
    "resolution": 16,
    "num_classes": 3,
    "channels": 8,
    "generator_widths": (1, 1, 1),
    "discriminator_widths": (1, 1, 1),
    "generator_attention": (8,),
    "discriminator_attention": (8,),
    "latent_dim": 6,
}
TINY_ARGS = [
    *("--resolution", "16", "--num-classes", "3", "--channels", "8", "--latent-dim", "6"),
    *("--generator-widths", "1", "1", "1", "--discriminator-widths", "1", "1", "1"),
    *("--discriminator-final-size", "4", "--generator-attention", "8", "--discriminator-attention", "8"),
    *("--batch-size", "8", "--standing-batches", "3", "--ema-start", "2", "--planned-steps", "3"),
]


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def build(recipe: Recipe, config: object) -> tuple[torch.nn.Module, torch.nn.Module]:
    return recipe.build_generator(config), recipe.build_discriminator(config)


@pytest.mark.parametrize(
    ("recipe", "preset", "generator", "discriminator"),
    [
        (biggan.RECIPE, "imagenet-128", 70_433_988, 87_982_370),
        (biggan.RECIPE, "imagenet-256", 82_097_604, 99_225_890),
        (biggan.RECIPE, "imagenet-512", 82_468_068, 99_401_282),
        (biggan.RECIPE, "table1-row9", 31_978_628, 39_448_258),
        (sagan.RECIPE, "table1-row1", 42_017_412, 39_448_258),
    ],
)
def test_parameter_counts_are_the_integers_of_the_published_networks(
    recipe: Recipe, preset: str, generator: int, discriminator: int
):
    with torch.device("meta"):
        networks = build(recipe, recipe.presets[preset]())
    assert [count(network) for network in networks] == [generator, discriminator]


def test_sn_gan_has_the_parameters_of_its_tables():
    def conv(inputs: int, outputs: int, size: int = 3) -> int:
        return size * size * inputs * outputs + outputs

    block_up = conv(256, 256) * 2 + conv(256, 256, 1) + 2 * 2 * 10 * 256  # gain and bias of two norms for ten classes
    generator = 129 * 4 * 4 * 256 + 3 * block_up + 2 * 256 + conv(256, 3)
    first = conv(3, 128) + conv(128, 128) + conv(3, 128, 1)
    second = 2 * conv(128, 128) + conv(128, 128, 1)
    discriminator = first + second + 2 * 2 * conv(128, 128) + 129 + 10 * 128
    with torch.device("meta"):
        networks = build(sngan.RECIPE, sngan.PRESETS["cifar10-32"]())
    assert [count(network) for network in networks] == [generator, discriminator]


@pytest.mark.parametrize(
    ("preset", "of_g", "of_d"),
    [
        ("imagenet-128", {"64": (192, 64)}, {"64": (96, 64)}),
        ("imagenet-256", {"128": (192, 128)}, {"64": (192, 64)}),
        ("imagenet-512", {"64": (384, 64)}, {"64": (192, 64)}),
        ("cifar10-32", {"16": (256, 16)}, {"16": (256, 16)}),
    ],
)
def test_attention_has_the_width_and_the_place_of_the_tables(preset: str, of_g: dict, of_d: dict):
    config = biggan.PRESETS[preset]()
    seen: dict[str, dict[str, tuple[int, int]]] = {"G": {}, "D": {}}
    with torch.device("meta"):
        generator, discriminator = build(biggan.RECIPE, config)
        for name, network in (("G", generator), ("D", discriminator)):
            for key, attention in network.attention.items():

                def note(_module, args, name=name, key=key):
                    seen[name][key] = tuple(args[0].shape[1:3])

                attention.register_forward_pre_hook(note)
        labels = torch.zeros(1, dtype=torch.int64)
        images = generator(torch.zeros(1, config.latent_dim), labels)
        assert discriminator(images, labels).shape == (1,)
    assert images.shape == (1, 3, config.resolution, config.resolution)
    assert seen == {"G": of_g, "D": of_d}


def test_spectral_norm_is_in_both_networks_of_biggan_and_sa_gan_but_only_in_d_of_sn_gan():
    for recipe in RECIPES:
        for network, name in zip(build(recipe, recipe.config(**TINY)), "GD", strict=True):
            normalized = any(isinstance(module, SpectralNorm) for module in network.modules())
            assert normalized == (recipe is not sngan.RECIPE or name == "D")


@every_recipe
def test_every_preset_that_trains_here_makes_images_and_logits(recipe: Recipe):
    for name, preset in recipe.presets.items():
        config = preset()
        if config.resolution > 32:
            continue
        with torch.device("meta"):
            generator, discriminator = build(recipe, config)
            labels = torch.zeros(2, dtype=torch.int64)
            images = generator(torch.zeros(2, config.latent_dim), labels)
            assert images.shape == (2, config.image_channels, config.resolution, config.resolution), name
            assert discriminator(images, labels).shape == (2,)


@every_recipe
def test_the_class_changes_the_image_once_trained_and_the_logit_at_once(recipe: Recipe, rng: torch.Generator):
    generator, discriminator = (network.eval() for network in build(recipe, recipe.config(**TINY)))
    z = torch.randn(1, 6, generator=rng)
    for parameter in generator.parameters():  # class tables start alike
        with torch.no_grad():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    first, second = (generator(z, torch.tensor([label])) for label in (0, 1))
    assert not torch.equal(first, second)
    assert discriminator(first, torch.tensor([0])) != discriminator(first, torch.tensor([1]))


def test_every_chunk_of_z_reaches_biggans_image_and_the_first_one_alone_the_stem(rng: torch.Generator):
    generator = biggan.RECIPE.build_generator(biggan.Config(**TINY)).eval()
    labels = torch.tensor([0])
    z = torch.randn(1, 6, generator=rng)
    before, stem = generator(z, labels), generator.stem.in_features
    assert stem == 2
    for component in range(6):
        changed = z.clone()
        changed[0, component] += 1
        assert not torch.equal(generator(changed, labels), before)
    plain = biggan.RECIPE.build_generator(biggan.Config(**TINY, skip_z=False))
    assert plain.stem.in_features == 6
    assert plain.blocks[0].norm1.condition_dim == 64


@every_recipe
def test_a_run_is_trained_continued_and_sampled(recipe: Recipe, tiny_data: Path, tmp_path: Path):
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert recipe.main([*args, "--run-dir", str(whole)]) == 0
    assert recipe.main([*args, "--run-dir", str(parts), "--steps", "2"]) == 0
    assert recipe.main(["--resume", str(parts), "--steps", "3"]) == 0

    def weights(run: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (run / "checkpoints" / "step_000003").glob("*.safetensors")}

    assert weights(whole) == weights(parts)
    assert len(weights(whole)) == 5
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if {"loss_d", "loss_g"} <= set(line)] == [1, 2, 3]
    assert sample.main(["--run", str(whole), "--out", str(tmp_path / "sheet.png")]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) >= 3 * 16  # three classes


@every_recipe
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 12}, "--channels must be a multiple of 8, but got 12."),
        ({"resolution": 64}, "--resolution must be 16, which is 4 doubled by 2 generator stages, but got 64."),
        (
            {"discriminator_final_size": 3},
            "--discriminator-final-size must be one of [8, 4, 2], where its blocks lead, but got 3.",
        ),
        ({"generator_attention": (8, 32)}, "--generator-attention must be some of [8, 16], but got 8 32."),
        ({"generator_attention": (8, 8)}, "--generator-attention must be some of [8, 16], but got 8 8."),
        ({"discriminator_attention": (16,)}, "--discriminator-attention must be some of [8, 4], but got 16."),
        ({"batch_size": 0}, "--batch-size must be greater than 0, but got 0."),
        ({"generator_lr": 0.0}, "--generator-lr must be greater than 0, but got 0.0."),
    ],
)
def test_rejects_a_config_that_cannot_work(recipe: Recipe, change: dict[str, object], message: str):
    with pytest.raises(UserError) as error:
        recipe.config(**{**TINY, **change})
    assert str(error.value) == message


@pytest.mark.parametrize(("latent_dim", "nearest"), [(7, 6), (8, 9), (1, 3)])
def test_rejects_a_z_that_cannot_be_cut_and_names_the_nearest_that_can(latent_dim: int, nearest: int):
    with pytest.raises(UserError) as error:
        biggan.Config(**{**TINY, "latent_dim": latent_dim})
    expected = f"a multiple of 3 chunks, such as {nearest}, or go with --skip-z False, but got {latent_dim}."
    assert str(error.value) == f"--latent-dim must be {expected}"
    assert biggan.Config(**{**TINY, "latent_dim": latent_dim}, skip_z=False).latent_dim == latent_dim


def test_sa_gan_rejects_weight_decay_of_an_embedding_that_it_does_not_have():
    with pytest.raises(UserError, match=r"^--embedding-weight-decay must be 0, since this generator has no shared"):
        sagan.Config(**TINY, embedding_weight_decay=1e-8)


def test_the_rows_of_table_1_differ_by_what_the_table_says():
    def changes(before: object, after: object) -> dict[str, tuple[object, object]]:
        old, new = dataclasses.asdict(before), dataclasses.asdict(after)
        return {name: (old[name], new[name]) for name in old if old[name] != new[name]}

    rows = {**sagan.PRESETS, **biggan.PRESETS}
    row = {number: rows[f"table1-row{number}"]() for number in range(1, 10)}
    assert changes(row[2], row[3]) == {"batch_size": (512, 1024)}
    assert changes(row[3], row[4]) == {"batch_size": (1024, 2048)}
    assert changes(row[4], row[5]) == {"channels": (64, 96)}
    assert changes(row[6], row[7]) == {"skip_z": (False, True), "latent_dim": (128, 120)}
    assert changes(row[7], row[8]) == {"generator_orthogonal_penalty": (0.0, 1e-4)}
    assert changes(row[8], row[9]) == {"channels": (96, 64)}
    rates = ("generator_lr", "discriminator_lr", "discriminator_steps", "batch_size")
    assert [getattr(row[1], name) for name in rates] == [1e-4, 4e-4, 1, 256]
    assert [getattr(row[2], name) for name in rates] == [5e-5, 2e-4, 2, 512]
    assert all(getattr(row[8], name) == getattr(row[4], name) for name in rates)


def layers_of(network: torch.nn.Module, kind: type[torch.nn.Module]) -> list[torch.nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


@every_recipe
def test_filters_have_the_size_and_the_dilation_that_are_asked_for(recipe: Recipe):
    config = recipe.config(
        **TINY, generator_kernel_size=5, generator_dilation=2, discriminator_kernel_size=7, discriminator_dilation=3
    )
    for network, size, dilation in zip(build(recipe, config), (5, 7), (2, 3), strict=True):
        convolutions = [layer for block in network.blocks for layer in (block.conv1, block.conv2)]
        assert {layer.kernel_size for layer in convolutions} == {(size, size)}
        assert {layer.dilation for layer in convolutions} == {(dilation, dilation)}


@every_recipe
def test_upsampling_is_the_one_that_is_asked_for(recipe: Recipe):
    for name, function in (("nearest", upsample_nearest), ("bilinear", upsample_bilinear)):
        generator = recipe.build_generator(recipe.config(**TINY, upsampling=name))
        assert [block.resample for block in generator.blocks] == [function, function]


@every_recipe
def test_attention_may_stand_at_several_places_or_none(recipe: Recipe):
    everywhere = {**TINY, "generator_attention": (16, 8), "discriminator_attention": (8, 4)}
    generator, discriminator = build(recipe, recipe.config(**everywhere))
    assert generator.attention_after == {0: "8", 1: "16"}
    assert discriminator.attention_after == {0: "8", 1: "4"}
    nowhere = {**TINY, "generator_attention": (), "discriminator_attention": ()}
    for network in build(recipe, recipe.config(**nowhere)):
        assert not layers_of(network, SelfAttention2d)


@every_recipe
def test_doubled_depth_adds_a_block_after_each_one_that_resamples(recipe: Recipe):
    generator, discriminator = build(recipe, recipe.config(**TINY, blocks_per_stage=2))
    assert [block.upsample for block in generator.blocks] == [True, False, True, False]
    assert [block.downsample for block in discriminator.blocks] == [True, False, True, False, False, False]
    assert [block.preactivation for block in discriminator.blocks] == [False, True, True, True, True, True]
    assert generator.attention_after == {1: "8"}
    assert discriminator.attention_after == {1: "8"}


def test_a_block_of_doubled_depth_shares_the_chunk_of_its_stage(rng: torch.Generator):
    generator = biggan.RECIPE.build_generator(biggan.Config(**TINY, blocks_per_stage=2)).eval()
    told: list[torch.Tensor] = []
    for block in generator.blocks:
        block.register_forward_pre_hook(lambda _module, args: told.append(args[1]))
    z = torch.randn(1, 6, generator=rng)
    generator(z, torch.tensor([0]))
    for condition, begin in zip(told, (2, 2, 4, 4), strict=True):
        assert torch.equal(condition[:, :2], z[:, begin : begin + 2])


@every_recipe
def test_batch_norm_in_d_stands_before_each_activation_of_its_blocks_and_has_no_buffers(recipe: Recipe):
    discriminator = recipe.build_discriminator(recipe.config(**TINY, discriminator_norm="batch"))
    norms = layers_of(discriminator, CrossReplicaBatchNorm2d)
    assert len(norms) == 5  # two a block, of which the first block begins without
    assert not [name for norm in norms for name, _ in norm.named_buffers()]
    images, labels = torch.rand(4, 1, 16, 16), torch.zeros(4, dtype=torch.int64)
    alone, together = discriminator(images[:2], labels[:2]), discriminator(images, labels)[:2]
    assert not torch.allclose(alone, together)


def test_conditioning_by_a_perceptron_has_a_hidden_layer_of_the_asked_width():
    generator = biggan.RECIPE.build_generator(biggan.Config(**TINY, embedding_hidden=7))
    projection = generator.blocks[0].norm1.gain
    assert [(layer.in_features, layer.out_features) for layer in layers_of(projection, torch.nn.Linear)] == [
        (2 + 64, 7),
        (7, 8),
    ]
    assert [layer.bias is None for layer in layers_of(projection, torch.nn.Linear)] == [False, True]


@pytest.mark.parametrize(("norm", "spectral"), [("weight", False), ("none", True)])
def test_without_batch_norm_in_g_samples_do_not_see_each_other_in_training(norm: str, spectral: bool):
    generator = biggan.RECIPE.build_generator(biggan.Config(**TINY, generator_norm=norm))
    assert not layers_of(generator, CrossReplicaBatchNorm2d)
    assert bool(layers_of(generator, SpectralNorm)) == spectral
    z, labels = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(generator(z, labels)[:2], generator(z[:2], labels[:2]))


def test_weight_norm_gives_each_filter_a_length_of_its_own():
    generator = biggan.RECIPE.build_generator(biggan.Config(**TINY, generator_norm="weight"))
    conv = generator.blocks[0].conv1
    length = conv.parametrizations.weight.original0
    with torch.no_grad():
        length.fill_(3.0)
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=1), torch.full((8,), 3.0))


def test_d_sees_g_s_embedding_of_the_step_where_it_is_shared(tiny_data: Path, tmp_path: Path):
    run = tmp_path / "run"
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, "--share-embedding", "True", "--checkpoint-every", "1"]
    assert biggan.RECIPE.main([*args, "--run-dir", str(run), "--steps", "2"]) == 0
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


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_variants_of_the_networks_are_trained_and_sampled(variant: str, tiny_data: Path, tmp_path: Path):
    run = tmp_path / "run"
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, *VARIANTS[variant], "--spectra-every", "1"]
    assert biggan.RECIPE.main([*args, "--run-dir", str(run), "--steps", "2"]) == 0
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
        biggan.Config(**{**TINY, **change})
    assert str(error.value) == message
