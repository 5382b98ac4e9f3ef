"""SN-GAN, SA-GAN and BigGAN: counts of the published networks, places of attention, and whole runs of tiny ones."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from gan_blocks import SelfAttention2d, SpectralNorm
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import describe, sample
from gan_blocks.engine.recipe.config_json import config_to_json
from gan_blocks.engine.recipe.recipe import Recipe
from recipes import biggan, biggan_deep, sagan, sngan

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


@pytest.mark.parametrize(
    ("recipe", "preset", "param"),
    [
        (sagan.RECIPE, "jft-256-baseline", 317_093_062),
        (biggan.RECIPE, "jft-256-ch64", 99_349_318),
        (biggan.RECIPE, "jft-256-ch96", 207_892_710),
        (biggan.RECIPE, "jft-256-ch128", 355_681_926),
    ],
)
def test_the_counts_of_table_3_are_those_of_g_and_d_without_the_shared_embedding(
    recipe: Recipe, preset: str, param: int, capsys: pytest.CaptureFixture[str]
):
    config = recipe.presets[preset]()
    assert (config.batch_size, config.generator_attention, config.discriminator_attention) == (2048, (64,), (64,))
    assert describe.main([recipe.name, "--preset", preset]) == 0
    without = " without G's shared embedding" if recipe is biggan.RECIPE else ""
    assert capsys.readouterr().out.splitlines()[-1] == f"Param (G + D{without}): {param:,}"


def test_appendix_c2_is_row_8_on_cifar10():
    row_8, config = biggan.PRESETS["table1-row8"](), biggan.PRESETS["cifar10-c2"]()
    networks = {"generator_widths", "discriminator_widths", "discriminator_final_size", "resolution", "latent_dim"}
    networks |= {"generator_attention", "discriminator_attention", "data", "num_classes", "planned_steps"}
    differing = {
        field.name for field in dataclasses.fields(config) if getattr(config, field.name) != getattr(row_8, field.name)
    }
    assert differing == networks
    assert (config.channels, config.batch_size) == (96, 2048)


def test_top_k_sa_gan_on_imagenet_is_row_1_with_gamma_098():
    config = sagan.PRESETS["top-k-imagenet-128"]()
    assert config == dataclasses.replace(sagan.PRESETS["table1-row1"](), top_k_gamma=0.98)
    assert config.top_k_floor == 0.5


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
        (
            {"resolution": 64},
            "--resolution must be 16, which is 4 doubled once for each of --generator-widths but the first, "
            "but got 64.",
        ),
        (
            {"discriminator_final_size": 3},
            "--discriminator-final-size must be one of [8, 4, 2], where its blocks lead, but got 3.",
        ),
        ({"generator_attention": (8, 32)}, "--generator-attention must be some of [8, 16], but got 8 32."),
        ({"generator_attention": (8, 8)}, "--generator-attention must be some of [8, 16], but got 8 8."),
        ({"discriminator_attention": (16,)}, "--discriminator-attention must be some of [8, 4], but got 16."),
        ({"batch_size": 0}, "--batch-size must be greater than 0, but got 0."),
        ({"generator_lr": -1.0}, "--generator-lr must be at least 0, but got -1.0."),
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
    expected = f"a multiple of 3 chunks, such as {nearest}, or go with --no-skip-z, but got {latent_dim}."
    assert str(error.value) == f"--latent-dim must be {expected}"
    assert biggan.Config(**{**TINY, "latent_dim": latent_dim}, skip_z=False).latent_dim == latent_dim


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
def test_attention_may_stand_at_several_places_or_none(recipe: Recipe):
    everywhere = {**TINY, "generator_attention": (16, 8), "discriminator_attention": (8, 4)}
    generator, discriminator = build(recipe, recipe.config(**everywhere))
    assert generator.attention_after == {0: "8", 1: "16"}
    assert discriminator.attention_after == {0: "8", 1: "4"}
    nowhere = {**TINY, "generator_attention": (), "discriminator_attention": ()}
    for network in build(recipe, recipe.config(**nowhere)):
        assert not layers_of(network, SelfAttention2d)


@pytest.mark.parametrize("recipe", [*RECIPES, biggan_deep.RECIPE], ids=lambda recipe: recipe.name)
def test_batch_norm_adds_the_eps_of_the_config_which_older_configs_do_not_say(recipe: Recipe):
    small = recipe.presets["mnist5k-32"]()
    saved = config_to_json(small)
    assert [saved.pop(name) for name in ("bn_eps", "last_bn_eps")] == [1e-4, 1e-4]
    assert recipe.config_from_json(saved) == small

    with torch.device("meta"):
        generator = recipe.build_generator(dataclasses.replace(small, bn_eps=1e-5, last_bn_eps=2e-5))
    last = generator.norm
    assert last.eps == 2e-5
    inner = [norm for norm in layers_of(generator, type(last)) if norm is not last]
    assert inner
    assert {norm.eps for norm in inner} == {1e-5}
    for field in ("bn_eps", "last_bn_eps"):
        with pytest.raises(UserError, match=rf"^--{field.replace('_', '-')} must be greater than 0, but got 0\.$"):
            dataclasses.replace(small, **{field: 0})


def test_sn_gan_may_have_thin_blocks_in_d_and_spectral_norm_in_g():
    config = sngan.Config(**TINY, discriminator_hidden="input", generator_spectral_norm=True)
    generator, discriminator = build(sngan.RECIPE, config)
    inner = [
        tuple(block.conv1.weight.shape[:2]) + tuple(block.conv2.weight.shape[:2]) for block in discriminator.blocks
    ]
    assert inner == [(1, 1, 8, 1), (8, 8, 8, 8), (8, 8, 8, 8)]
    assert discriminator(torch.zeros(2, 1, 16, 16), torch.tensor([0, 1])).shape == (2,)
    assert layers_of(generator, SpectralNorm)
