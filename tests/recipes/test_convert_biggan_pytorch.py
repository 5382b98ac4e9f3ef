"""Against two networks with random weights, and what that code made of them in evaluation."""

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from recipes._engine.recipe import load_recipe
from recipes._layouts.biggan_pytorch import convert_biggan_pytorch, export_biggan_pytorch

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("GAN_BLOCKS_REFERENCE_DATA", ROOT.parent / "shared" / "data"))
FILES = {"biggan_deep": "biggan_deep_pytorch_64_ch16.safetensors"}


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
    assert converted.recipe == name
    recipe = load_recipe(name)
    generator = recipe.build_generator(converted.config).eval()
    discriminator = recipe.build_discriminator(converted.config).eval()
    generator.load_state_dict(converted.generator)
    discriminator.load_state_dict(converted.discriminator)
    with torch.no_grad():
        images = generator(tensors["z"], tensors["y"])
        logits = discriminator(tensors["images"], tensors["y"])
    torch.testing.assert_close(images, tensors["images"], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits, tensors["logits"][:, 0], rtol=0, atol=1e-4)
