"""Against two networks with random weights, and what that code made of them in evaluation."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from gan_blocks import advance_power_iteration
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.recipe.registry import find_recipe
from recipes import biggan, biggan_deep
from recipes.layouts.biggan_pytorch import convert_biggan_pytorch, export_biggan_pytorch
from recipes.layouts.key_map import expected_state
from recipes.studies import appendix_h

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("GAN_BLOCKS_REFERENCE_DATA", ROOT.parent / "shared" / "data"))
FILES = {
    "biggan": "biggan_pytorch_64_ch8.safetensors",
    "biggan_deep": "biggan_deep_pytorch_64_ch16.safetensors",
}


@pytest.mark.parametrize("name", FILES)
def test_the_converted_networks_give_the_images_and_logits_of_that_code(name: str):
    path = DATA / FILES[name]
    if not path.exists():
        pytest.skip(f"there is no {path.name} in GAN_BLOCKS_REFERENCE_DATA")
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        options = file.metadata()
    g, d = ({k[2:]: v for k, v in tensors.items() if k.startswith(part)} for part in ("G.", "D."))
    converted = convert_biggan_pytorch(g, d, config=options)
    recipe = find_recipe(name)
    assert converted.recipe is recipe
    generator = recipe.build_generator(converted.config).eval()
    discriminator = recipe.build_discriminator(converted.config).eval()
    generator.load_state_dict(converted.generator)
    discriminator.load_state_dict(converted.discriminator)
    with torch.no_grad():
        images = generator(tensors["z"], tensors["y"])
        logits = discriminator(tensors["images"], tensors["y"])
    torch.testing.assert_close(images, tensors["images"], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits, tensors["logits"][:, 0], rtol=0, atol=1e-4)


SMALL_DEEP = biggan_deep.Config(
    resolution=32,
    image_channels=3,
    num_classes=3,
    channels=8,
    generator_widths=(4, 2, 2, 1),
    discriminator_widths=(1, 2, 2, 4),
    discriminator_final_size=8,
    attention_resolution=16,
    latent_dim=5,
    embedding_dim=6,
)
SMALL_PLAIN = biggan.Config(
    resolution=32,
    image_channels=3,
    num_classes=3,
    channels=8,
    generator_widths=(4, 2, 2, 1),
    discriminator_widths=(1, 2, 2, 4),
    discriminator_final_size=8,
    generator_attention=(16,),
    discriminator_attention=(16,),
    latent_dim=8,
    embedding_dim=6,
)
SMALL = {
    "biggan": SMALL_PLAIN,
    "biggan_without_skip_z": replace(SMALL_PLAIN, skip_z=False, latent_dim=5, generator_attention=(16, 32)),
    "biggan_deep": SMALL_DEEP,
}
SIZES = (
    "resolution",
    "num_classes",
    "channels",
    "generator_widths",
    "discriminator_widths",
    "latent_dim",
    "embedding_dim",
)
ATTENTION = ("generator_attention", "discriminator_attention")
ARCHITECTURE = {
    biggan.Config: (*SIZES, *ATTENTION, "skip_z"),
    biggan_deep.Config: (*SIZES, "attention_resolution", "wide_rgb_conv"),
}


def random_state(build: Callable[[Any], nn.Module], config: Any) -> dict[str, Tensor]:
    """A network of ours with every tensor at random, its singular vectors those of its weights."""
    rng = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(value.shape, generator=rng, dtype=torch.float64)
        for name, value in expected_state(build, config).items()
    }
    for name in [name for name in state if name.endswith(".original")]:
        u, _, v = torch.linalg.svd(state[name].flatten(1), full_matrices=False)
        place = name.removesuffix("original")
        state[f"{place}0.u"], state[f"{place}0.v"] = u[:, :1].T, v[:1]
    return state


def recipe_of(config: Any) -> Any:
    return find_recipe(type(config).__module__.removeprefix("recipes."))


def random_states(config: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    recipe = recipe_of(config)
    return random_state(recipe.build_generator, config), random_state(recipe.build_discriminator, config)


def is_singular_vector(name: str) -> bool:
    return name.endswith((".0.u", ".0.v"))


@pytest.mark.parametrize("name", SMALL)
def test_networks_come_back_from_that_layout_as_they_were(name: str):
    """To the bit; their singular vectors, of which it stores u alone, to the rounding of a step of power iteration."""
    config = SMALL[name]
    generator, discriminator = random_states(config)
    exported = export_biggan_pytorch(generator, discriminator, config=config)
    converted = convert_biggan_pytorch(*exported, config={"ch": 8})
    kept = {field: getattr(config, field) for field in ARCHITECTURE[type(config)]}
    assert {field: getattr(converted.config, field) for field in ARCHITECTURE[type(config)]} == kept
    for before, after in ((generator, converted.generator), (discriminator, converted.discriminator)):
        assert before.keys() == after.keys()
        for key, value in before.items():
            if is_singular_vector(key):
                torch.testing.assert_close(after[key], value, rtol=0, atol=1e-12)
            else:
                assert torch.equal(after[key], value), key


@pytest.mark.parametrize("name", SMALL)
def test_a_network_that_is_not_converged_comes_back_one_step_of_power_iteration_further(name: str):
    config = SMALL[name]
    recipe = recipe_of(config)
    network = recipe.build_generator(config).double()
    random = random_state(recipe.build_generator, config)
    vectors = {key: value.clone() for key, value in network.state_dict().items() if is_singular_vector(key)}
    network.load_state_dict(random | vectors)
    network.eval()
    exported, _ = export_biggan_pytorch(network.state_dict(), config=config)
    converted = convert_biggan_pytorch(exported, config={"ch": 8}).generator
    before = {key: value.clone() for key, value in network.state_dict().items()}
    advance_power_iteration(network, n_power_iterations=1)
    moved = 0.0
    for key, value in network.state_dict().items():
        torch.testing.assert_close(converted[key], value, rtol=0, atol=1e-12)
        moved = max(moved, (value - before[key]).abs().max().item())
    assert moved > 0.1


@pytest.mark.parametrize("name", SMALL)
def test_without_a_discriminator_the_config_describes_one_that_mirrors_the_generator(name: str):
    config = SMALL[name]
    recipe = recipe_of(config)
    exported, none = export_biggan_pytorch(random_state(recipe.build_generator, config), config=config)
    converted = convert_biggan_pytorch(exported, config={"ch": "8"})
    assert none is None
    assert converted.discriminator is None
    assert converted.config.discriminator_widths == config.generator_widths[::-1]
    expected_state(recipe.build_discriminator, converted.config)  # can be built


def exported_deep() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return export_biggan_pytorch(*random_states(SMALL_DEEP), config=SMALL_DEEP)


def test_names_every_missing_and_unexpected_key_and_every_wrong_shape():
    g, d = exported_deep()
    del g["blocks.1.0.conv2.bias"], g["blocks.0.0.bn1.stored_mean"]
    g["optimizer"] = torch.zeros(1)
    g["blocks.2.0.conv1.weight"] = torch.zeros(4, 15, 1, 1)
    message = (
        "the generator (layout biggan-pytorch) does not fit the network it is loaded into; missing keys: "
        "blocks.0.0.bn1.stored_mean, blocks.1.0.conv2.bias; unexpected keys: optimizer; wrong shapes: "
        "blocks.2.0.conv1.weight (4, 15, 1, 1) instead of (4, 16, 1, 1)."
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        convert_biggan_pytorch(g, d)
    g, d = exported_deep()
    del d["linear.u0"]
    with pytest.raises(
        UserError, match=r"^the discriminator \(layout biggan-pytorch\) .*; missing keys: linear\.u0\.$"
    ):
        convert_biggan_pytorch(g, d)


def test_another_network_is_told_by_what_it_lacks():
    with pytest.raises(
        UserError,
        match=r"missing keys: blocks\.0\.0\.bn1\.bias\.sv0, .* and 496 more; unexpected keys: blocks\.0\.conv4\.w, x\.",
    ):
        convert_biggan_pytorch({"x": torch.zeros(1), "blocks.0.conv4.w": torch.zeros(1)})


def test_rejects_options_of_another_network():
    g, d = exported_deep()
    message = r"^the generator \(layout biggan-pytorch\) does not fit its config: dim_z is 120 there, not 5\.$"
    with pytest.raises(UserError, match=message):
        convert_biggan_pytorch(g, d, config={"dim_z": 120, "lr": "anything"})


def test_rejects_to_export_a_wide_last_convolution():
    config = replace(SMALL_DEEP, wide_rgb_conv=True)
    generator = random_state(biggan_deep.RECIPE.build_generator, config)
    with pytest.raises(UserError, match=r"has no --wide-rgb-conv: its last convolution makes the image\.$"):
        export_biggan_pytorch(generator, config=config)


def test_rejects_to_export_what_the_layout_has_no_place_for():
    config = appendix_h.Config(**vars(SMALL_PLAIN))
    message = r"^the layout biggan-pytorch has no networks of a recipes\.studies\.appendix_h\.Config\.$"
    with pytest.raises(UserError, match=message):
        export_biggan_pytorch(random_state(biggan.RECIPE.build_generator, SMALL_PLAIN), config=config)
