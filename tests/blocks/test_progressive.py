import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import (
    EqualizedConv2d,
    FromRGB,
    MinibatchDiscrimination,
    PixelNorm,
    ProgressiveDiscriminatorBlock,
    ProgressiveDiscriminatorHead,
    ProgressiveGeneratorBlock,
    ProgressiveGeneratorStem,
    ToRGB,
)
from tests.drawn import draw, numpy_state, randomize
from tests.reference import blocks as reference
from tests.reference import layers as layers_reference

widths = st.integers(1, 4)

# Each block with its input; every parameter has another value than the one that it starts with.
BLOCKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "stem": (lambda: ProgressiveGeneratorStem(5, 4), (4, 5)),
    "generator block": (lambda: ProgressiveGeneratorBlock(4, 3), (4, 4, 2, 2)),
    "to rgb": (lambda: ToRGB(4), (4, 4, 2, 2)),
    "from rgb": (lambda: FromRGB(3, 4), (4, 3, 2, 2)),
    "discriminator block": (lambda: ProgressiveDiscriminatorBlock(3, 4), (4, 3, 4, 4)),
    "discriminator head": (lambda: ProgressiveDiscriminatorHead(4, 3), (4, 4, 4, 4)),
}
every_block = pytest.mark.parametrize("name", BLOCKS)


def build(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = BLOCKS[name]
    return randomize(make()), draw(*shape, seed=9)


@given(latent_dim=widths, channels=widths)
def test_the_stem_equals_table_2(latent_dim: int, channels: int):
    block, z = randomize(ProgressiveGeneratorStem(latent_dim, channels)), draw(2, latent_dim, seed=9)
    wanted = reference.progressive_generator_stem(z.numpy(), numpy_state(block))
    np.testing.assert_allclose(block(z).detach(), wanted, rtol=1e-9, atol=1e-9)


@given(in_channels=widths, out_channels=widths, size=st.integers(1, 3))
def test_generator_blocks_equal_table_2(in_channels: int, out_channels: int, size: int):
    block = randomize(ProgressiveGeneratorBlock(in_channels, out_channels))
    x = draw(2, in_channels, size, 2, seed=9)
    wanted = reference.progressive_generator_block(x.numpy(), numpy_state(block))
    np.testing.assert_allclose(block(x).detach(), wanted, rtol=1e-9, atol=1e-9)


@given(in_channels=widths, out_channels=widths, size=st.integers(1, 2))
def test_discriminator_blocks_equal_table_2(in_channels: int, out_channels: int, size: int):
    block = randomize(ProgressiveDiscriminatorBlock(in_channels, out_channels))
    x = draw(2, in_channels, 2 * size, 4, seed=9)
    wanted = reference.progressive_discriminator_block(x.numpy(), numpy_state(block))
    np.testing.assert_allclose(block(x).detach(), wanted, rtol=1e-9, atol=1e-9)


@given(batch=st.integers(1, 8), in_channels=widths, hidden=widths)
def test_the_head_equals_table_2(batch: int, in_channels: int, hidden: int):
    block = randomize(ProgressiveDiscriminatorHead(in_channels, hidden))
    x = draw(batch, in_channels, 4, 4, seed=9)
    stddev = layers_reference.minibatch_stddev(x.numpy(), batch, 1e-8)
    wanted = reference.progressive_discriminator_head(x.numpy(), stddev, numpy_state(block))
    np.testing.assert_allclose(block(x).detach(), wanted, rtol=1e-9, atol=1e-9)


def test_images_are_linear_in_the_features_and_features_are_not_in_images():
    x, to_rgb = draw(2, 4, 2, 2), randomize(ToRGB(4))
    weight = to_rgb.conv.parametrizations.weight.original[:, :, 0, 0] / 2  # gain 1, fan-in 4
    wanted = torch.einsum("oi,nihw->nohw", weight, x) + to_rgb.conv.bias[:, None, None]
    torch.testing.assert_close(to_rgb(x), wanted)

    images, from_rgb = draw(2, 3, 2, 2), randomize(FromRGB(3, 5))
    weight = from_rgb.conv.parametrizations.weight.original[:, :, 0, 0] * math.sqrt(2 / 3)
    h = torch.einsum("oi,nihw->nohw", weight, images) + from_rgb.conv.bias[:, None, None]
    assert (h < 0).any()
    torch.testing.assert_close(from_rgb(images), torch.where(h > 0, h, 0.2 * h))


@pytest.mark.parametrize(
    ("block", "parameters"),
    [
        (lambda: ProgressiveGeneratorStem(512, 512), 512 * 512 * 16 + 512 + 512 * 512 * 9 + 512),
        (lambda: ProgressiveGeneratorBlock(512, 256), 256 * 512 * 9 + 256 + 256 * 256 * 9 + 256),
        (lambda: ToRGB(16), 51),
        (lambda: FromRGB(3, 16), 64),
        (lambda: ProgressiveDiscriminatorBlock(16, 32), 16 * 16 * 9 + 16 + 32 * 16 * 9 + 32),
        (lambda: ProgressiveDiscriminatorHead(512, 512), 512 * 513 * 9 + 512 + 512 * 512 * 16 + 512 + 513),
    ],
)
def test_parameters_are_those_of_table_2(block: Callable[[], nn.Module], parameters: int):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in block().parameters()) == parameters


def test_features_of_every_pixel_of_the_generator_have_unit_mean_square():
    for name in ("stem", "generator block"):
        block, x = build(name)
        mean_square = block(x).square().mean(dim=1)
        # a vector of mean square m, normalized with eps inside the root, keeps m / (m + eps)
        torch.testing.assert_close(mean_square, torch.ones_like(mean_square), rtol=1e-5, atol=0)


def test_layers_come_from_the_factories():
    made = []

    def conv(*sizes: int, padding: int = 0) -> nn.Module:
        made.append((*sizes, padding))
        return nn.Sequential(nn.Conv2d(*sizes, padding=padding), nn.GroupNorm(1, sizes[1]))

    def transposed(*sizes: int) -> nn.Module:
        made.append(sizes)
        return nn.ConvTranspose2d(*sizes)

    generator = {"conv_layer": conv, "act_layer": nn.ReLU, "norm_layer": nn.BatchNorm2d}
    blocks = [
        ProgressiveGeneratorStem(5, 4, conv_transpose_layer=transposed, **generator),
        ProgressiveGeneratorBlock(4, 3, **generator),
        ToRGB(3, 1, conv_layer=conv),
        FromRGB(1, 3, conv_layer=conv, act_layer=nn.ReLU),
        ProgressiveDiscriminatorBlock(3, 4, conv_layer=conv, act_layer=nn.ReLU),
        ProgressiveDiscriminatorHead(
            4,
            6,
            stddev_layer=None,
            conv_layer=conv,
            act_layer=nn.ReLU,
            linear_layer=lambda features, out: nn.Sequential(
                MinibatchDiscrimination(features, num_kernels=3), nn.Linear(features + 3, out)
            ),
        ),
    ]
    assert made == [
        (5, 4, 4),
        (4, 4, 3, 1),
        (4, 3, 3, 1),
        (3, 3, 3, 1),
        (3, 1, 1, 0),
        (1, 3, 1, 0),
        (3, 3, 3, 1),
        (3, 4, 3, 1),
        (4, 6, 3, 1),
        (6, 6, 4, 0),
    ]
    h = torch.randn(4, 5)
    for block in blocks:
        h = block(h)
        assert not any(isinstance(module, nn.LeakyReLU | PixelNorm | EqualizedConv2d) for module in block.modules())
    assert h.shape == (4,)


@every_block
def test_gradients_have_gradients(name: str):
    """A gradient penalty differentiates the discriminator's input gradient."""
    block, x = build(name)
    x.requires_grad_()
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(block, (x,), fast_mode=True)


@every_block
def test_state_survives_a_round_trip(name: str):
    source, x = build(name)
    target = BLOCKS[name][0]().double()
    assert not torch.equal(target(x), source(x))
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(x), source(x))


@every_block
def test_training_and_evaluation_are_the_same(name: str):
    block, x = build(name)
    assert torch.equal(block(x), block.eval()(x))
    assert not list(block.buffers())


@every_block
def test_compiles_without_a_graph_break_and_runs_on_meta(name: str):
    block, x = build(name)
    y = block(x)
    torch.testing.assert_close(torch.compile(block, fullgraph=True, backend="eager")(x), y)
    assert block.to("meta")(x.to("meta")).shape == y.shape


@pytest.mark.parametrize("name", ["generator block", "to rgb", "discriminator block"])
def test_keeps_the_memory_format(name: str):
    block, x = build(name)
    y = block.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "block",
    [
        ProgressiveGeneratorStem,
        ProgressiveGeneratorBlock,
        ToRGB,
        FromRGB,
        ProgressiveDiscriminatorBlock,
        ProgressiveDiscriminatorHead,
    ],
)
def test_rejects_sizes_of_zero(block: type[nn.Module]):
    with pytest.raises(ValueError, match=rf"^{block.__name__}: `\w+` must be greater than 0, but got \w+=0\.$"):
        block(0, 4)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("stem", "ProgressiveGeneratorStem: `z` must be of shape (batch, 5)"),
        ("generator block", "ProgressiveGeneratorBlock: `x` must be of shape (batch, 4, height, width)"),
        ("to rgb", "ToRGB: `x` must be of shape (batch, 4, height, width)"),
        ("from rgb", "FromRGB: `x` must be of shape (batch, 3, height, width)"),
        ("discriminator block", "ProgressiveDiscriminatorBlock: `x` must be of shape (batch, 3, height, width)"),
        ("discriminator head", "ProgressiveDiscriminatorHead: `x` must be of shape (batch, 4, 4, 4)"),
    ],
)
def test_rejects_other_shapes(name: str, pattern: str):
    block, x = build(name)
    for bad in (x[0], x[:, :1]):
        message = re.escape(f"{pattern}, but got ") + r"\w of shape \([0-9, ]+\)\.$"
        with pytest.raises(ValueError, match="^" + message):
            block(bad)


def test_the_head_rejects_maps_that_are_not_4x4():
    block, _ = build("discriminator head")
    with pytest.raises(ValueError, match=r"but got x of shape \(4, 4, 8, 8\)\.$"):
        block(draw(4, 4, 8, 8))
