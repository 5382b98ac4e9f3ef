"""Against pytorch-pretrained-biggan itself, with random weights and random tables of statistics."""

import os
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from gan_blocks import NormalPrior, truncated_prior
from gan_blocks.engine.base.errors import UserError
from recipes import biggan_deep
from recipes.layouts.huggingface_biggan_deep import (
    convert_huggingface_biggan_deep,
    export_huggingface_biggan_deep,
    huggingface_config,
)
from recipes.layouts.key_map import expected_state

peer = pytest.importorskip("pytorch_pretrained_biggan")

# Channel multiplier 8 and 7 classes instead of 128 and 1000; layers, resolutions and tables are the released ones.
SMALL = {"channels": 8, "num_classes": 7, "latent_dim": 12, "embedding_dim": 12}
FULL_SIZE = os.environ.get("GAN_BLOCKS_FULL_SIZE") == "1"
# Where that package's arithmetic finds the row: not at 0.14, 0.28, 0.56, 0.58 and 0.94; it refuses 0.
GRID = sorted({round(0.02 * row, 2) for row in range(1, 51)} - {0.14, 0.28, 0.56, 0.58, 0.94})


def small(preset: str) -> biggan_deep.Config:
    return replace(biggan_deep.PRESETS[preset](), **SMALL)


@pytest.fixture(params=["imagenet-128", "imagenet-256", "imagenet-512"])
def config(request: pytest.FixtureRequest) -> biggan_deep.Config:
    """One of the released networks, small unless GAN_BLOCKS_FULL_SIZE=1 asks for the whole."""
    return biggan_deep.PRESETS[request.param]() if FULL_SIZE else small(request.param)


def random_peer(config: biggan_deep.Config) -> torch.nn.Module:
    """Their model, no gain, bias, gamma or statistic at a special value, its singular vectors short of converged."""
    model = peer.BigGAN(peer.BigGANConfig.from_dict(huggingface_config(config)))
    rng = torch.Generator().manual_seed(0)
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith(("_u", "_v")):
            continue
        noise = torch.randn(tensor.shape, generator=rng)
        if name.endswith("running_vars"):
            tensor.copy_(noise.abs() + 0.5)
        else:
            tensor.copy_(0.5 + 0.2 * noise if tensor.dim() < 2 else noise)
    for name in ("weight", "bias"):
        state[f"generator.bn.{name}"].mul_(0.2)  # else most pixels would be at the ends of tanh
    for name in [name for name in state if name.endswith("weight_orig")]:
        matrix, u, v = state[name].flatten(1), *(state[name.replace("orig", part)] for part in "uv")
        v.copy_(normalize(matrix.T @ u, dim=0))
        u.copy_(normalize(matrix @ v, dim=0))
    return model.eval()


def theirs(model: torch.nn.Module, z: Tensor, labels: Tensor, truncation: float) -> Tensor:
    with torch.no_grad():
        return model(z, torch.nn.functional.one_hot(labels, model.config.num_classes).float(), truncation)


def test_the_converted_generator_draws_what_the_package_draws(config: biggan_deep.Config, rng: torch.Generator):
    model = random_peer(config)
    z, labels = (
        truncated_prior(NormalPrior(config.latent_dim), 0.5, method="scaled").sample(2, generator=rng),
        torch.tensor([3, 5]),
    )
    generator = biggan_deep.RECIPE.build_generator(config).eval()
    for truncation in (0.02, 0.4, 1.0):
        converted = convert_huggingface_biggan_deep(
            model.state_dict(), config=huggingface_config(config), truncation=truncation
        )
        generator.load_state_dict(converted.generator)
        with torch.no_grad():
            images = generator(z, labels)
        wanted = theirs(model, z, labels, truncation)
        assert 0.1 < wanted.std() < 0.8  # neither flat nor saturated
        torch.testing.assert_close(images, wanted, rtol=0, atol=1e-4)
    assert converted.config == config


def test_statistics_are_the_package_s_wherever_it_reads_the_right_table(rng: torch.Generator):
    config = small("imagenet-128")
    model, generator = random_peer(config), biggan_deep.RECIPE.build_generator(config).eval()
    x, condition = torch.randn(2, 128, 2, 2, generator=rng), torch.randn(2, 24, generator=rng)
    converted = convert_huggingface_biggan_deep(model.state_dict(), truncation=1.0)
    generator.load_state_dict(converted.generator)
    assert converted.statistics is not None
    for truncation in GRID:
        converted.statistics.apply(generator, truncation=truncation)
        wanted = model.generator.layers[0].bn_0(x, truncation, condition)
        torch.testing.assert_close(generator.blocks[0].norm1(x, condition), wanted, rtol=0, atol=1e-5)
        wanted = model.generator.bn(x[:, :8], truncation)
        torch.testing.assert_close(generator.norm(x[:, :8]), wanted, rtol=0, atol=1e-5)


def random_state(config: biggan_deep.Config) -> dict[str, Tensor]:
    state = expected_state(biggan_deep.RECIPE.build_generator, config)
    rng = torch.Generator().manual_seed(0)
    return {name: torch.rand(value.shape, generator=rng) + 0.5 for name, value in state.items()}


def test_a_generator_and_its_tables_come_back_from_that_layout_as_they_were():
    config = small("imagenet-128")
    generator = random_state(config)
    exported = export_huggingface_biggan_deep(generator, config=config)
    converted = convert_huggingface_biggan_deep(exported, config=huggingface_config(config), truncation=0.37)
    assert converted.config == config
    assert converted.generator.keys() == generator.keys()
    assert all(torch.equal(converted.generator[name], value) for name, value in generator.items())


def test_what_the_package_wrote_comes_back_to_it_as_it_was():
    config = small("imagenet-128")
    state = random_peer(config).state_dict()
    converted = convert_huggingface_biggan_deep(state, truncation=1.0)
    back = export_huggingface_biggan_deep(converted.generator, config=converted.config, statistics=converted.statistics)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


def exported() -> dict[str, Tensor]:
    config = small("imagenet-128")
    return export_huggingface_biggan_deep(random_state(config), config=config)


def test_names_every_missing_and_unexpected_key_and_every_wrong_shape():
    state = exported()
    del state["generator.layers.9.conv_1.bias"], state["generator.bn.running_vars"]
    state["extra"] = torch.zeros(1)
    state["generator.layers.3.bn_2.scale.weight_v"] = torch.zeros(9)
    message = (
        "the generator (layout huggingface-biggan-deep) does not fit the network it is loaded into; missing keys: "
        "generator.bn.running_vars, generator.layers.9.conv_1.bias; unexpected keys: extra; wrong shapes: "
        "generator.layers.3.bn_2.scale.weight_v (9,) instead of (24,)."
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        convert_huggingface_biggan_deep(state, truncation=1.0)


def test_another_network_is_told_by_what_it_lacks():
    with pytest.raises(UserError, match=r"missing keys: embeddings\.weight, .*; unexpected keys: linear\.weight\.$"):
        convert_huggingface_biggan_deep({"linear.weight": torch.zeros(1)}, truncation=1.0)


def test_rejects_the_config_of_another_network():
    message = r"does not fit its config: num_classes is 1000 there, but the tensors say 7\.$"
    with pytest.raises(UserError, match=message):
        convert_huggingface_biggan_deep(exported(), config={"num_classes": 1000, "z_dim": 12}, truncation=1.0)


def test_rejects_a_truncation_without_statistics():
    message = r"^TruncatedBatchNormStatistics: `truncation` must be from 0 to 1, but got truncation=2\.0\.$"
    with pytest.raises(ValueError, match=message):
        convert_huggingface_biggan_deep(exported(), truncation=2.0)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"embedding_dim": 16}, r"--embedding-dim to be --latent-dim \(12\), but got 16\.$"),
        ({"wide_rgb_conv": False}, r"--wide-rgb-conv to be True, but got False\.$"),
    ],
)
def test_rejects_to_export_what_the_package_cannot_build(change: dict[str, object], rule: str):
    config = replace(small("imagenet-128"), **change)
    with pytest.raises(UserError, match=rf"^the layout huggingface-biggan-deep needs {rule}"):
        export_huggingface_biggan_deep(random_state(config), config=config)


def test_the_one_eps_of_its_config_is_that_of_all_norms():
    config = replace(small("imagenet-128"), bn_eps=1e-5, last_bn_eps=3e-5)
    rng = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(value.shape, generator=rng) + 0.1
        for name, value in expected_state(biggan_deep.RECIPE.build_generator, config).items()
    }
    exported, described = export_huggingface_biggan_deep(state, config=config), huggingface_config(config)
    assert described["eps"] == 1e-5
    torch.testing.assert_close(exported["generator.bn.running_vars"][7], state["norm.running_var"] + 2e-5)
    converted = convert_huggingface_biggan_deep(exported, config=described, truncation=1.0)
    assert (converted.config.bn_eps, converted.config.last_bn_eps) == (1e-5, 1e-5)
