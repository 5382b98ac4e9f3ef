"""Against pytorch-pretrained-biggan itself, with random weights and random tables of statistics."""

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from gan_blocks import NormalPrior, truncated_prior
from recipes import biggan_deep
from recipes._engine.errors import UserError
from recipes._layouts.huggingface_biggan_deep import (
    convert_huggingface_biggan_deep,
    export_huggingface_biggan_deep,
    huggingface_config,
)

peer = pytest.importorskip("pytorch_pretrained_biggan")

# Channel multiplier 8 and 7 classes instead of 128 and 1000; layers, resolutions and tables are the released ones.
SMALL = {"channels": 8, "num_classes": 7, "latent_dim": 12, "embedding_dim": 12}
# Where that package's arithmetic finds the row: not at 0.14, 0.28, 0.56, 0.58 and 0.94; it refuses 0.
GRID = sorted({round(0.02 * row, 2) for row in range(1, 51)} - {0.14, 0.28, 0.56, 0.58, 0.94})


def small(preset: str) -> biggan_deep.Config:
    return replace(biggan_deep.PRESETS[preset](), **SMALL)


@pytest.fixture(params=["imagenet-128", "imagenet-256", "imagenet-512"])
def config(request: pytest.FixtureRequest) -> biggan_deep.Config:
    return small(request.param)


def random_peer(config: biggan_deep.Config) -> torch.nn.Module:
    """Their model, with no gain, bias, gamma or statistic at a special value, and singular vectors short of converged."""
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
    for name in [name for name in state if name.endswith("weight_orig")]:
        matrix, u, v = state[name].flatten(1), *(state[name.replace("orig", part)] for part in "uv")
        v.copy_(normalize(matrix.T @ u, dim=0))
        u.copy_(normalize(matrix @ v, dim=0))
    return model.eval()


def theirs(model: torch.nn.Module, z: Tensor, labels: Tensor, truncation: float) -> Tensor:
    with torch.no_grad():
        return model(z, torch.nn.functional.one_hot(labels, 7).float(), truncation)


def test_the_converted_generator_draws_what_the_package_draws(config: biggan_deep.Config, rng: torch.Generator):
    model = random_peer(config)
    z, labels = truncated_prior(NormalPrior(12), 0.5, definition="scaled").sample(2, generator=rng), torch.tensor([3, 5])
    generator = biggan_deep.build_generator(config).eval()
    for truncation in (0.02, 0.4, 1.0):
        converted = convert_huggingface_biggan_deep(model.state_dict(), config=huggingface_config(config), truncation=truncation)
        generator.load_state_dict(converted.generator)
        with torch.no_grad():
            images = generator(z, labels)
        wanted = theirs(model, z, labels, truncation)
        assert wanted.abs().max() > 0.1
        torch.testing.assert_close(images, wanted, rtol=0, atol=1e-4)
    assert converted.config == config
