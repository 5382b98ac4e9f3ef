"""What is found in the wild of that layout: each reads as the network that it is, against the papers' equations."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gan_blocks.engine import UserError
from gan_blocks.engine.commands import sample
from gan_blocks.engine.inspection import WithoutInitialization
from recipes import biggan, biggan_deep, convert, sagan, sngan
from recipes.layouts import biggan_pytorch_residual
from recipes.layouts.biggan_pytorch import (
    LAST_EPS,
    biggan_pytorch_obstacles,
    biggan_pytorch_options,
    convert_biggan_pytorch,
    export_biggan_pytorch,
)
from recipes.layouts.biggan_pytorch_options import check_options, read_epsilons
from tests.recipes.layouts.test_biggan_pytorch import SMALL_DEEP, random_states
from tests.reference import biggan_pytorch as reference

State = dict[str, Tensor]
SIZES = {
    "resolution": 32,
    "image_channels": 3,
    "num_classes": 3,
    "channels": 8,
    "generator_widths": (1, 1, 1, 1),
    "discriminator_widths": (1, 1, 1, 1),
    "discriminator_final_size": 8,
    "generator_attention": (16, 32),
    "discriminator_attention": (16, 8, 8, 8),
}
BIGGAN = biggan.Config(**SIZES, latent_dim=8, embedding_dim=6)
SAGAN = sagan.Config(**SIZES, latent_dim=5)
SNGAN = sngan.Config(**SIZES, latent_dim=5, adam_beta2=0.9)
CONFIGS = {
    "biggan": BIGGAN,
    "biggan that sees z at once": replace(BIGGAN, skip_z=False),
    "biggan with attention in D alone": replace(BIGGAN, generator_attention=(), discriminator_attention=(8,)),
    "sagan": SAGAN,
    "sngan": SNGAN,
    "sngan with thin blocks": replace(SNGAN, discriminator_hidden="input", generator_spectral_norm=True),
}


@cache
def in_their_layout(config: Any) -> tuple[State, State]:
    """Random networks with small variances, on which an eps shows."""
    generator, discriminator = random_states(config)
    for name in [name for name in generator if name.endswith("running_var")]:
        generator[name] = 1e-3 * generator[name].abs() + 1e-4
    g, d = export_biggan_pytorch(generator, discriminator, config=config)
    assert d is not None
    return g, d


def inputs(config: Any) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    z = torch.randn(2, config.latent_dim, generator=rng, dtype=torch.float64)
    x = torch.rand(2, 3, config.resolution, config.resolution, generator=rng, dtype=torch.float64) * 2 - 1
    return z, torch.tensor([2, 0]), x


def outputs(converted: Any, config: Any) -> tuple[Tensor, Tensor]:
    z, labels, x = inputs(config)
    recipe, found = converted.recipe, converted.config
    with WithoutInitialization():
        generator = recipe.build_generator(found).double().eval()
        discriminator = recipe.build_discriminator(found).double().eval()
    generator.load_state_dict(converted.generator)
    discriminator.load_state_dict(converted.discriminator)
    with torch.no_grad():
        return generator(z, labels), discriminator(x, labels)


@pytest.mark.parametrize(("name", "eps"), [*((name, None) for name in CONFIGS), ("sagan", 1e-4)])
def test_images_and_logits_are_those_of_the_papers_with_the_eps_of_that_code(name: str, eps: float | None):
    config = CONFIGS[name]
    g, d = in_their_layout(config)
    converted = convert_biggan_pytorch(g, d, config={} if eps is None else {"BN_eps": str(eps)})
    assert type(converted.config) is type(config)
    z, labels, x = inputs(config)
    chunks = 4 if getattr(config, "skip_z", False) else 1
    images = reference.images(g, z, labels, blocks_eps=eps or 1e-5, last_eps=1e-5, chunks=chunks)
    assert images.std() > 0.1
    found = outputs(converted, config)
    torch.testing.assert_close(found[0], images, rtol=0, atol=1e-7)
    torch.testing.assert_close(found[1], reference.logits(d, x, labels, halvings=2), rtol=1e-7, atol=1e-7)


@cache
def as_it_is(config: Any) -> Any:
    return convert_biggan_pytorch(*in_their_layout(config))


def without_record(state: State) -> State:
    return {name: value for name, value in state.items() if not name.endswith(".sv0")}


def with_more_vectors(state: State) -> State:
    more = {name.replace(".u0", ".u1"): torch.randn(value.shape) for name, value in state.items() if ".u0" in name}
    return {**state, **more, **{name.replace(".u1", ".sv1"): torch.ones(1) for name in more}}


def renamed_norms(state: State, kind: str) -> State:
    return {re.sub(r"\.stored_(mean|var)$", rf".bn.{kind}_\1", name): value for name, value in state.items()}


def with_synchronized_norms(state: State) -> State:
    renamed = renamed_norms(state, "running")
    counters = [name for name in renamed if name.endswith(".bn.running_mean")]
    return {**renamed, **{name.replace("running_mean", "num_batches_tracked"): torch.tensor(9) for name in counters}}


def with_counting_norms(state: State, batches: int) -> State:
    renamed = renamed_norms(state, "stored")
    for name in [name for name in renamed if name.endswith(".bn.stored_mean")]:
        counter = name.replace("stored_mean", "accumulation_counter")
        renamed[counter] = torch.tensor([float(batches)], dtype=torch.float64)
        for kind in ("mean", "var"):
            summed = name.replace("mean", kind)
            renamed[summed] = renamed[summed] * max(batches, 1)
    return renamed


VARIANTS: dict[str, Callable[[State], State]] = {
    "without sv0": without_record,
    "num_G_SVs 2": with_more_vectors,
    "cross_replica": with_synchronized_norms,
    "mybn": lambda state: with_counting_norms(state, 0),
    "mybn with standing statistics": lambda state: with_counting_norms(state, 16),
}


@pytest.mark.parametrize(
    ("variant", "config"),
    [*((variant, SAGAN) for variant in VARIANTS), ("mybn with standing statistics", BIGGAN)],
    ids=[*VARIANTS, "mybn of biggan"],
)
def test_layouts_of_its_options_hold_the_same_network(variant: str, config: Any):
    g, d = in_their_layout(config)
    plain = as_it_is(config)
    change = VARIANTS[variant]
    changed = convert_biggan_pytorch(change(g), change(d))
    assert changed.config == plain.config
    for before, after in ((plain.generator, changed.generator), (plain.discriminator, changed.discriminator)):
        assert before.keys() == after.keys()
        for name, value in before.items():
            torch.testing.assert_close(after[name], value, rtol=1e-12, atol=0)


DEEP = replace(
    SMALL_DEEP,
    generator_widths=(4, 4, 4, 4),
    discriminator_widths=(4, 4, 4, 4),
    generator_attention=(8, 32),
    discriminator_attention=(8, 8),
)


@pytest.mark.parametrize("config", [DEEP, replace(DEEP, attention_resolution=0)], ids=["everywhere", "nowhere alike"])
def test_attention_of_biggan_deep_comes_back_at_every_height(config: biggan_deep.Config):
    config = config if config.attention_resolution else replace(config, discriminator_attention=(16,))
    generator, discriminator = random_states(config)
    converted = convert_biggan_pytorch(*export_biggan_pytorch(generator, discriminator, config=config))
    of_g = {config.attention_resolution, *config.generator_attention} - {0}
    found = converted.config
    assert {found.attention_resolution, *found.generator_attention} - {0} == of_g
    assert sorted((found.attention_resolution, *found.discriminator_attention)) == sorted(
        (config.attention_resolution, *config.discriminator_attention)
    )
    assert converted.generator.keys() == generator.keys()
    assert all(torch.equal(converted.generator[k], v) for k, v in generator.items() if not k.endswith((".u", ".v")))
    assert converted.discriminator.keys() == discriminator.keys()


def test_variances_make_up_for_the_eps_of_its_last_norm():
    config = replace(SAGAN, bn_eps=1e-4, last_bn_eps=3e-4)
    generator, discriminator = random_states(config)
    for name in [name for name in generator if name.endswith("running_var")]:
        generator[name] = 1e-3 * generator[name].abs() + 1e-4
    g, d = export_biggan_pytorch(generator, discriminator, config=config, last_bn_eps=LAST_EPS)
    z, labels, _ = inputs(config)
    with WithoutInitialization():
        network = sagan.RECIPE.build_generator(config).double().eval()
    network.load_state_dict(generator)
    with torch.no_grad():
        expected = network(z, labels)
    images = reference.images(g, z, labels, blocks_eps=1e-4, last_eps=1e-5)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-7)
    returned = convert_biggan_pytorch(g, d, config=biggan_pytorch_options(config))
    assert (returned.config.bn_eps, returned.config.last_bn_eps) == (1e-4, 1e-5)
    torch.testing.assert_close(outputs(returned, config)[0], expected, rtol=0, atol=1e-7)


def test_a_thin_discriminator_is_known_from_the_options_where_there_is_none():
    g, _ = in_their_layout(SAGAN)
    assert isinstance(convert_biggan_pytorch(g).config, sagan.Config)
    for given in ({"D_thin": True}, {"D_wide": False}):
        config = convert_biggan_pytorch(g, config=given).config
        assert (config.discriminator_hidden, config.generator_spectral_norm) == ("input", True)


OF_ITS_TABLES = replace(
    biggan.Config(**{**SIZES, "generator_widths": (4,) * 4, "discriminator_widths": (4,) * 4}, latent_dim=8),
    embedding_dim=6,
    generator_attention=(16,),
)


@pytest.mark.parametrize(
    ("config", "reasons"),
    [
        (OF_ITS_TABLES, []),
        (replace(OF_ITS_TABLES, image_channels=1), ["its images are RGB"]),
        (replace(OF_ITS_TABLES, generator_widths=(8, 8, 4, 4)), ["its G of 32 pixels has other widths"]),
        (replace(OF_ITS_TABLES, discriminator_widths=(4, 4, 8, 8)), ["its D of 32 pixels has other widths"]),
        (
            replace(OF_ITS_TABLES, discriminator_attention=(16,)),
            ["its D has attention after all blocks of a height"],
        ),
        (biggan.PRESETS["imagenet-512"](), ["it has no such D"]),
        (biggan_deep.PRESETS["imagenet-512"](), ["it has no such G", "it has no such D"]),
    ],
    ids=["none", "gray", "G", "D", "attention", "512", "deep 512"],
)
def test_networks_that_its_options_cannot_describe_are_told(config: Any, reasons: list[str]):
    assert biggan_pytorch_obstacles(config) == reasons


@pytest.mark.parametrize("name", ["imagenet-128", "imagenet-256"])
def test_options_of_the_papers_networks_are_those_of_its_scripts(name: str):
    config = biggan.PRESETS[name]()
    options = biggan_pytorch_options(config)
    assert not biggan_pytorch_obstacles(config)
    attention = {"imagenet-128": ("64", "64"), "imagenet-256": ("128", "64")}[name]
    assert (options["G_ch"], options["D_ch"], options["G_attn"], options["D_attn"]) == (96, 96, *attention)
    assert (options["model"], options["hier"], options["G_shared"]) == ("BigGAN", True, True)


def check(**given: object) -> None:
    check_options(biggan_pytorch_residual, OF_ITS_TABLES, given, discriminator=True)


@pytest.mark.parametrize(
    "given",
    [
        {"G_ch": 8, "D_ch": "8", "n_classes": 3, "num_classes": "3", "resolution": 32, "model": "BigGAN"},
        {"dim_z": 9, "hier": "True", "shared_dim": 6, "G_shared": True, "num_G_SVs": 2, "cross_replica": True},
        {"G_attn": "64_16_0", "D_attn": 16, "G_nl": "inplace_relu", "D_wide": True, "G_param": "SN"},
        {"ch": 8, "bn_eps": 1e-5},
        {"SN_eps": 1e-6, "G_activation": None, "model": "model", "anything": [1]},
    ],
)
def test_options_of_the_same_network_fit(given: dict[str, object]):
    check(**given)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"G_ch": 16}, "G_ch is 16 there, not 8."),
        ({"D_ch": "1" * 5000}, f"D_ch is {'1' * 60} there, not 8."),
        ({"num_classes": 4}, "num_classes is 4 there, not 3."),
        ({"dim_z": 12}, "dim_z is 12 there, not 8."),
        ({"shared_dim": 0, "dim_z": 8}, "shared_dim is 0 there, not 6."),
        ({"hier": False}, "hier is False there, not True."),
        ({"G_attn": "16_8"}, "G_attn is 16_8 there, not 16."),
        ({"D_attn": "0"}, "D_attn is 0 there, not 16."),
        ({"D_thin": True}, "D_thin is True there, not False."),
        ({"G_param": "SVD"}, "G_param is SVD there, not SN."),
        ({"norm_style": "in"}, "norm_style is in there, not bn."),
        ({"G_nl": "swish"}, "G_nl is swish there, not relu."),
        ({"model": "BigGANdeep"}, "model is BigGANdeep there, not BigGAN."),
    ],
)
def test_options_of_another_network_are_named(given: dict[str, object], rule: str):
    with pytest.raises(UserError) as error:
        check(**given)
    assert str(error.value) == f"the generator (layout biggan-pytorch) does not fit its config: {rule}"


@pytest.mark.parametrize("eps", ["no", 0, -1e-5, "nan", True, "inf"])
def test_rejects_an_eps_that_is_none(eps: object):
    with pytest.raises(UserError, match=r"BN_eps .*: it must be a number greater than 0\.$"):
        read_epsilons({"BN_eps": eps}, None, None, recorded=True)


def test_a_file_of_other_things_is_no_config():
    with pytest.raises(UserError) as error:
        check_options(biggan_pytorch_residual, BIGGAN, {"param_groups": 1, "state": 2}, discriminator=True)
    assert str(error.value) == (
        "--config holds none of BigGAN-PyTorch's options, such as G_ch or BN_eps, but param_groups, state."
    )


def test_says_where_the_eps_comes_from():
    g, _ = in_their_layout(SAGAN)
    (asked,) = convert_biggan_pytorch(g, bn_eps=2e-5, last_bn_eps=1e-4, config={"BN_eps": 1e-3}).notes
    assert asked == "BatchNorm's eps is 2e-05, as --bn-eps says; in G's last norm 0.0001, as --last-bn-eps says."
    (read,) = convert_biggan_pytorch(g, config={"bn_eps": "1e-4"}).notes
    assert read.startswith("BatchNorm's eps is 0.0001, as BN_eps in the config says; in G's last norm 1e-05, as always")
    (guessed,) = convert_biggan_pytorch(g).notes
    assert guessed.startswith("BatchNorm's eps is 1e-05, as that code's launch scripts have it")
    (released,) = convert_biggan_pytorch(without_record(g)).notes
    assert (
        released == f"{guessed} Without sv0 it may be a released generator that it converted: those have --bn-eps 1e-4."
    )
    synchronized = convert_biggan_pytorch(with_synchronized_norms(g)).notes
    assert synchronized[0] == guessed
    assert "its sampling adds them" in synchronized[1]


def test_a_unit_that_our_networks_cannot_have_is_counted_otherwise():
    g, d = in_their_layout(BIGGAN)  # 8 channels are 4 times 2 in its tables
    for given in ({"G_ch": 2, "D_ch": 2}, {"ch": 2}):
        assert convert_biggan_pytorch(g, d, config=given).config.channels == 8


def test_networks_in_each_others_place_or_of_two_kinds_are_named():
    (g, d), (deep_g, deep_d) = in_their_layout(BIGGAN), in_their_layout(DEEP)
    generator, discriminator = (f"the {name} (layout biggan-pytorch)" for name in ("generator", "discriminator"))
    for of_g, of_d, message in (
        (d, None, f"{generator} has the names of a discriminator: that is for --discriminator."),
        (g, g, f"{discriminator} has the names of a generator: that is for --generator."),
        (g, deep_d, f"{generator} is not of BigGAN-deep, but {discriminator} is of BigGAN-deep."),
        (deep_g, d, f"{generator} is of BigGAN-deep, but {discriminator} is not of BigGAN-deep."),
    ):
        with pytest.raises(UserError) as error:
            convert_biggan_pytorch(of_g, of_d)
        assert str(error.value) == message


def test_a_generator_without_spectral_norm_and_with_shared_embedding_says_what_it_lacks():
    g, _ = in_their_layout(BIGGAN)
    bare = {name: value for name, value in g.items() if not name.endswith((".u0", ".sv0"))}
    with pytest.raises(
        UserError, match=r" has no u0: without spectral norm in G, only networks with class tables are "
    ):
        convert_biggan_pytorch(bare)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sngan", "sagan"])
def test_networks_with_class_tables_go_to_a_run_that_is_sampled_and_back(name: str, tmp_path: Path):
    g, d = ({key: value.float() for key, value in state.items()} for state in in_their_layout(CONFIGS[name]))
    files = []
    for network, state in (("generator", g), ("discriminator", d)):
        torch.save(state, tmp_path / f"{network}.pth")
        files += [f"--{network}", str(tmp_path / f"{network}.pth")]
    run, out = str(tmp_path / "run"), tmp_path / "out"
    assert convert.main(["--from", "biggan-pytorch", *files, "--run-dir", run]) == 0
    assert sample.main(["--run", run, "--num", "3", "--out", str(tmp_path / "samples.npz")]) == 0
    assert convert.main(["--to", "biggan-pytorch", "--run", run, "--out", str(out)]) == 0
    returned = load_file(out / "generator.safetensors")
    assert returned.keys() == g.keys()
    # The eps of both last norms are the same, so that nothing has to be made up for.
    assert all(torch.equal(returned[key], value) for key, value in g.items() if not key.endswith((".u0", ".sv0")))


def test_attention_after_no_block_is_no_network():
    g, _ = in_their_layout(SAGAN)
    with pytest.raises(UserError, match=r" does not fit the network it is loaded into; "):
        convert_biggan_pytorch({**g, f"blocks.{'9' * 18}.1.theta.weight": torch.zeros(1)})
