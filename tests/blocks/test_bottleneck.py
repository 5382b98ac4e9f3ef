import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import BottleneckDiscriminatorBlock, BottleneckGeneratorBlock, ConditionalBatchNorm2d
from tests.drawn import draw, numpy_state, randomize
from tests.reference import blocks as reference
from tests.reference import conditioning

WIDTH = 3  # of the condition
conditional_norm = partial(ConditionalBatchNorm2d, condition_dim=WIDTH)
booleans = pytest.mark.parametrize("resample", [False, True])


def generator_block(in_channels: int = 8, out_channels: int = 5, **options) -> nn.Module:
    return randomize(
        BottleneckGeneratorBlock(in_channels, out_channels, norm_layer=conditional_norm, **options), scale=0.5
    )


def discriminator_block(in_channels: int = 5, out_channels: int = 8, **options) -> nn.Module:
    return randomize(BottleneckDiscriminatorBlock(in_channels, out_channels, **options), scale=0.5)


def expected_generator_output(block: nn.Module, x: Tensor, condition: Tensor, training: bool) -> np.ndarray:
    state = numpy_state(block)

    def norm(name: str, h: np.ndarray) -> np.ndarray:
        weights = state[f"{name}.gain.weight"], state[f"{name}.bias.weight"]
        moments = None if training else (state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"])
        return conditioning.conditional_batch_norm(h, condition.numpy(), *weights, 1e-4, moments)

    return reference.generator_bottleneck(x.numpy(), state, norm, block.out_channels, block.upsample)


@given(
    hidden=st.integers(1, 2),
    ratio=st.sampled_from([2, 4]),
    dropped=st.integers(0, 2),
    size=st.integers(2, 4),
    up=st.booleans(),
    training=st.booleans(),
)
def test_generator_block_equals_figure_16b(hidden: int, ratio: int, dropped: int, size: int, up: bool, training: bool):
    channels = hidden * ratio
    block = generator_block(channels, max(1, channels - dropped), upsample=up, bottleneck_ratio=ratio)
    x, condition = draw(2, channels, size, 3, seed=size), draw(2, WIDTH, seed=1)
    block(3 * x + 1, condition)  # gives the running statistics some values
    block.train(training)
    expected = expected_generator_output(block, x, condition, training)
    np.testing.assert_allclose(block(x, condition).detach(), expected, rtol=1e-9, atol=1e-9)


@given(
    hidden=st.integers(1, 2),
    ratio=st.sampled_from([2, 4]),
    missing=st.integers(0, 2),
    size=st.sampled_from([2, 4]),
    down=st.booleans(),
)
def test_discriminator_block_equals_figure_16c(hidden: int, ratio: int, missing: int, size: int, down: bool):
    channels = hidden * ratio
    block = discriminator_block(max(1, channels - missing), channels, downsample=down, bottleneck_ratio=ratio)
    x = draw(2, block.in_channels, size, 6, seed=size)
    expected = reference.discriminator_bottleneck(x.numpy(), numpy_state(block), down)
    np.testing.assert_allclose(block(x).detach(), expected, rtol=1e-9, atol=1e-9)


@booleans
def test_without_a_residual_the_generator_block_keeps_the_first_channels(resample: bool):
    block = generator_block(upsample=resample)
    nn.init.zeros_(block.conv4.weight)
    nn.init.zeros_(block.conv4.bias)
    x = draw(2, 8, 4, 4)
    kept = x[:, :5].repeat_interleave(2, 2).repeat_interleave(2, 3) if resample else x[:, :5]
    assert torch.equal(block(x, draw(2, WIDTH)), kept)


def test_without_a_residual_the_discriminator_block_passes_its_input_on_unperturbed():
    block = discriminator_block()
    nn.init.zeros_(block.conv4.weight)
    nn.init.zeros_(block.conv4.bias)
    x = draw(2, 5, 4, 4)
    before = x.clone()
    y = block(x)
    assert torch.equal(y[:, :5], before)
    assert torch.equal(y[:, 5:], block.shortcut(before))
    assert torch.equal(x, before), "an activation worked in place"


def expected_parameters(hidden: int, in_channels: int, out_channels: int) -> int:
    squeeze, expand = in_channels * hidden + hidden, hidden * out_channels + out_channels
    return squeeze + 2 * (9 * hidden * hidden + hidden) + expand


@given(hidden=st.integers(1, 9), kept=st.integers(1, 9), up=st.booleans())
def test_generator_block_has_the_parameters_of_four_convolutions_and_eight_projections(
    hidden: int, kept: int, up: bool
):
    channels, out_channels = 4 * hidden, min(kept, 4 * hidden)
    block = BottleneckGeneratorBlock(channels, out_channels, norm_layer=conditional_norm, upsample=up)
    projections = 2 * WIDTH * (channels + 3 * hidden)
    expected = expected_parameters(hidden, channels, out_channels) + projections
    assert sum(parameter.numel() for parameter in block.parameters()) == expected


@given(hidden=st.integers(1, 9), missing=st.integers(0, 9), down=st.booleans())
def test_discriminator_block_has_the_parameters_of_four_convolutions_and_its_shortcut(
    hidden: int, missing: int, down: bool
):
    out_channels = 4 * hidden
    in_channels = max(1, out_channels - missing)
    block = BottleneckDiscriminatorBlock(in_channels, out_channels, downsample=down)
    missing = out_channels - in_channels
    expected = expected_parameters(hidden, in_channels, out_channels) + (in_channels + 1) * missing
    assert sum(parameter.numel() for parameter in block.parameters()) == expected


def test_the_blocks_of_the_128_pixel_networks_add_up_to_the_published_counts():
    # Table 7 with ch = 128 and 1000 classes, 3 output channels: 50,244,484 and 34,590,210 parameters in all.
    ch = 128
    with torch.device("meta"):
        norm_layer = partial(ConditionalBatchNorm2d, condition_dim=256)
        widths = [16, 16, 8, 4, 2, 1]
        generator = nn.ModuleList()
        for wide, narrow in pairwise(widths):
            for out in (wide, narrow):
                generator.append(BottleneckGeneratorBlock(wide * ch, out * ch, norm_layer=norm_layer))
        widths = [1, 2, 4, 8, 16, 16]
        discriminator = nn.ModuleList()
        for narrow, wide in pairwise(widths):
            for into in (narrow, wide):
                discriminator.append(BottleneckDiscriminatorBlock(into * ch, wide * ch))
    attention = 2 * (2 * ch) * (2 * ch // 8) + 2 * (2 * ch) * ch + 1  # theta, phi, g, out of 2 ch channels, gamma
    stem = 256 * 16 * 16 * ch + 16 * 16 * ch
    rest_of_generator = 1000 * 128 + stem + attention + 2 * ch + 9 * ch * 3 + 3
    rest_of_discriminator = 9 * 3 * ch + ch + attention + 1000 * 16 * ch + 16 * ch + 1
    assert sum(p.numel() for p in generator.parameters()) + rest_of_generator == 50_244_484
    assert sum(p.numel() for p in discriminator.parameters()) + rest_of_discriminator == 34_590_210


def as_function(block: nn.Module):
    """The block as a function of its inputs and of all its parameters."""
    names = [name for name, _ in block.named_parameters()]

    def run(*values: Tensor) -> Tensor:
        count = len(values) - len(names)
        return torch.func.functional_call(block, dict(zip(names, values[count:], strict=True)), values[:count])

    return run


@booleans
def test_generator_gradients_agree_with_finite_differences(resample: bool):
    block = generator_block(4, 3, upsample=resample)
    inputs = (draw(2, 4, 2, 2).requires_grad_(), draw(2, WIDTH).requires_grad_(), *block.parameters())
    assert torch.autograd.gradcheck(as_function(block), inputs)


@booleans
def test_discriminator_gradients_agree_with_finite_differences_to_second_order(resample: bool):
    block = discriminator_block(3, 4, downsample=resample)
    inputs = (draw(2, 3, 2, 2).requires_grad_(), *block.parameters())
    assert torch.autograd.gradcheck(as_function(block), inputs)
    assert torch.autograd.gradgradcheck(as_function(block), inputs)


@booleans
def test_train_and_eval_mode_of_the_generator_block_differ_by_the_statistics_alone(resample: bool):
    block = generator_block(upsample=resample)
    x, condition = draw(4, 8, 4, 4), draw(4, WIDTH)
    for norm in (block.norm1, block.norm2, block.norm3, block.norm4):
        norm.norm.momentum = 1.0
    trained = block(x, condition)
    for norm in (block.norm1, block.norm2, block.norm3, block.norm4):
        # The buffer holds the unbiased variance of 4 * 4 * 4 values, or of four times as many after upsampling.
        count = 256 if resample and norm in (block.norm3, block.norm4) else 64
        norm.norm.running_var *= (count - 1) / count
    torch.testing.assert_close(block.eval()(x, condition), trained)
    half = block(x[:2], condition[:2])
    torch.testing.assert_close(half, block(x, condition)[:2])


@pytest.mark.parametrize("make", [generator_block, discriminator_block])
def test_layers_come_from_the_factories(make):
    made = []

    def conv(*sizes: int, padding: int = 0, bias: bool = True) -> nn.Module:
        made.append((*sizes, padding, bias))
        return nn.Conv2d(*sizes, padding=padding, bias=bias)

    block = make(conv_layer=conv, act_layer=partial(nn.LeakyReLU, 0.2))
    wide = (5, 2, 1, 0, True) if make is discriminator_block else (8, 2, 1, 0, True)
    narrow = (2, 8, 1, 0, True) if make is discriminator_block else (2, 5, 1, 0, True)
    shortcut = [(5, 3, 1, 0, True)] if make is discriminator_block else []
    assert made == [wide, (2, 2, 3, 1, True), (2, 2, 3, 1, True), narrow, *shortcut]
    assert sum(isinstance(module, nn.LeakyReLU) for module in block.modules()) == 4


def test_generator_block_works_with_an_activation_in_place():
    plain, in_place = generator_block(upsample=True), generator_block(upsample=True, act_layer=partial(nn.ReLU, True))
    x, condition = draw(2, 8, 4, 4), draw(2, WIDTH)
    assert torch.equal(in_place(x, condition), plain(x, condition))


@booleans
def test_state_survives_a_round_trip(resample: bool):
    source, target = generator_block(upsample=resample), generator_block(upsample=resample)
    nn.init.zeros_(target.conv3.weight)
    x, condition = draw(2, 8, 4, 4), draw(2, WIDTH)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(x, condition), source(x, condition))
    norm = ["norm.running_mean", "norm.running_var", "gain.weight", "bias.weight"]
    names = {f"norm{n}.{key}" for n in range(1, 5) for key in norm}
    assert set(source.state_dict()) == names | {f"conv{n}.{key}" for n in range(1, 5) for key in ("weight", "bias")}

    source, target = discriminator_block(downsample=resample), discriminator_block(downsample=resample)
    nn.init.zeros_(target.shortcut.weight)
    target.load_state_dict(source.state_dict())
    x = draw(2, 5, 4, 4)
    assert torch.equal(target(x), source(x))
    names = [*(f"conv{n}" for n in range(1, 5)), "shortcut"]
    assert set(source.state_dict()) == {f"{name}.{key}" for name in names for key in ("weight", "bias")}
    assert "shortcut.weight" not in discriminator_block(8, 8).state_dict()


@booleans
def test_keeps_the_memory_format(resample: bool):
    condition = draw(2, WIDTH)
    x = draw(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    block = generator_block(upsample=resample).to(memory_format=torch.channels_last)
    assert block(x, condition).is_contiguous(memory_format=torch.channels_last)
    block = discriminator_block(downsample=resample).to(memory_format=torch.channels_last)
    assert block(x[:, :5]).is_contiguous(memory_format=torch.channels_last)


@booleans
def test_compiles_without_a_graph_break(resample: bool):
    block, x, condition = generator_block(upsample=resample), draw(2, 8, 4, 4), draw(2, WIDTH)
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, condition), block(x, condition))
    block, x = discriminator_block(downsample=resample), draw(2, 5, 4, 4)
    torch.testing.assert_close(torch.compile(block, fullgraph=True, backend="eager")(x), block(x))


@booleans
def test_works_on_the_meta_device(resample: bool):
    block = generator_block(upsample=resample).to("meta")
    size = 8 if resample else 4
    x, condition = draw(2, 8, 4, 4).to("meta"), draw(2, WIDTH).to("meta")
    assert block(x, condition).shape == (2, 5, size, size)
    size = 2 if resample else 4
    assert discriminator_block(downsample=resample).to("meta")(x[:, :5]).shape == (2, 8, size, size)


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "bottleneck_ratio"])
def test_rejects_sizes_of_zero(name: str):
    sizes = {"in_channels": 4, "out_channels": 4, "bottleneck_ratio": 4, name: 0}
    pattern = rf"Block: `{name}` must be greater than 0, but got {name}=0\.$"
    with pytest.raises(ValueError, match="^BottleneckGenerator" + pattern):
        BottleneckGeneratorBlock(**sizes, norm_layer=conditional_norm)
    with pytest.raises(ValueError, match="^BottleneckDiscriminator" + pattern):
        BottleneckDiscriminatorBlock(**sizes)


def test_rejects_widths_without_a_whole_bottleneck():
    pattern = (
        r"^BottleneckGeneratorBlock: `in_channels` must be a multiple of bottleneck_ratio=4, but got in_channels=6\.$"
    )
    with pytest.raises(ValueError, match=pattern):
        BottleneckGeneratorBlock(6, 4, norm_layer=conditional_norm)
    pattern = r"^BottleneckDiscriminatorBlock: `out_channels` must be a multiple of bottleneck_ratio=4, but got"
    with pytest.raises(ValueError, match=pattern + r" out_channels=6\.$"):
        BottleneckDiscriminatorBlock(4, 6)


def test_rejects_channels_that_the_shortcut_cannot_make():
    pattern = (
        r"^BottleneckGeneratorBlock: `out_channels` must be at most in_channels=4, but got out_channels=5\. "
        r"The shortcut can only drop channels\.$"
    )
    with pytest.raises(ValueError, match=pattern):
        BottleneckGeneratorBlock(4, 5, norm_layer=conditional_norm)
    pattern = (
        r"^BottleneckDiscriminatorBlock: `out_channels` must be at least in_channels=5, but got out_channels=4\. "
        r"The shortcut can only add channels\.$"
    )
    with pytest.raises(ValueError, match=pattern):
        BottleneckDiscriminatorBlock(5, 4)


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (2, 8, 4)])
def test_rejects_another_feature_map(shape: tuple[int, ...]):
    rule = "Block: `x` must be of shape (batch, {}, height, width), but got x of shape {}."
    x = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match="^BottleneckGenerator" + re.escape(rule.format(8, shape)) + "$"):
        generator_block()(x, draw(2, WIDTH))
    with pytest.raises(ValueError, match="^BottleneckDiscriminator" + re.escape(rule.format(5, shape)) + "$"):
        discriminator_block()(x)
