import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import (
    ConditionalBatchNorm2d,
    CrossReplicaBatchNorm2d,
    EqualizedConv2d,
    ResidualDiscriminatorBlock,
    ResidualGeneratorBlock,
    upsample_bilinear,
)
from tests.drawn import draw, numpy_state, randomize
from tests.reference import blocks as reference
from tests.reference import conditioning, layers

WIDTH = 3  # of the condition
conditional_norm = partial(ConditionalBatchNorm2d, condition_dim=WIDTH)
booleans = pytest.mark.parametrize("resample", [False, True])


def generator_block(in_channels: int = 4, out_channels: int = 3, **options) -> nn.Module:
    return randomize(
        ResidualGeneratorBlock(in_channels, out_channels, norm_layer=conditional_norm, **options), scale=0.5
    )


def discriminator_block(in_channels: int = 3, out_channels: int = 4, **options) -> nn.Module:
    return randomize(ResidualDiscriminatorBlock(in_channels, out_channels, **options), scale=0.5)


@given(
    in_channels=st.integers(1, 3),
    out_channels=st.integers(1, 3),
    size=st.integers(2, 3),
    up=st.booleans(),
    kernel_size=st.sampled_from([1, 3, 5]),
    dilation=st.integers(1, 2),
    training=st.booleans(),
)
def test_generator_block_equals_figure_15b(
    in_channels: int, out_channels: int, size: int, up: bool, kernel_size: int, dilation: int, training: bool
):
    block = generator_block(in_channels, out_channels, upsample=up, kernel_size=kernel_size, dilation=dilation)
    x, condition = draw(2, in_channels, size, 3, seed=size), draw(2, WIDTH, seed=1)
    block(3 * x + 1, condition)  # gives the running statistics some values
    block.train(training)
    state = numpy_state(block)

    def norm(name: str, h: np.ndarray) -> np.ndarray:
        weights = state[f"{name}.gain.weight"], state[f"{name}.bias.weight"]
        moments = None if training else (state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"])
        return conditioning.conditional_batch_norm(h, condition.numpy(), *weights, 1e-4, moments)

    expected = reference.generator_res_block(x.numpy(), state, norm, up, dilation)
    np.testing.assert_allclose(block(x, condition).detach(), expected, rtol=1e-9, atol=1e-9)


@given(
    in_channels=st.integers(1, 3),
    out_channels=st.integers(1, 3),
    hidden_channels=st.sampled_from([None, 1, 2]),
    size=st.sampled_from([2, 4]),
    down=st.booleans(),
    first=st.booleans(),
    kernel_size=st.sampled_from([1, 3, 5]),
    dilation=st.integers(1, 2),
)
def test_discriminator_block_equals_figure_15c(
    in_channels: int,
    out_channels: int,
    hidden_channels: int | None,
    size: int,
    down: bool,
    first: bool,
    kernel_size: int,
    dilation: int,
):
    block = discriminator_block(
        in_channels,
        out_channels,
        hidden_channels=hidden_channels,
        downsample=down,
        preactivation=not first,
        kernel_size=kernel_size,
        dilation=dilation,
    )
    x = draw(2, in_channels, size, 6, seed=size)
    expected = reference.discriminator_res_block(x.numpy(), numpy_state(block), down, first, dilation)
    np.testing.assert_allclose(block(x).detach(), expected, rtol=1e-9, atol=1e-9)
    assert len(block.conv1.weight) == (out_channels if hidden_channels is None else hidden_channels)


@pytest.mark.parametrize("first", [False, True])
def test_discriminator_block_normalizes_before_each_activation_where_asked_for(first: bool):
    block = discriminator_block(norm_layer=CrossReplicaBatchNorm2d, downsample=True, preactivation=not first)
    x, state = draw(3, 3, 4, 4), numpy_state(block)

    def norm(name: str, h: np.ndarray) -> np.ndarray:
        mean, variance = layers.moments(h)
        return layers.batch_norm(h, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"], 1e-4)

    expected = reference.discriminator_res_block(x.numpy(), state, True, first, norm=norm)
    np.testing.assert_allclose(block(x).detach(), expected, rtol=1e-9, atol=1e-9)
    assert isinstance(block.norm1, nn.Identity if first else CrossReplicaBatchNorm2d)


def test_without_a_residual_a_block_of_one_width_and_size_is_the_identity():
    generator, discriminator = generator_block(4, 4), discriminator_block(4, 4)
    for block in (generator, discriminator):
        nn.init.zeros_(block.conv2.weight)
        nn.init.zeros_(block.conv2.bias)
    x = draw(2, 4, 4, 4)
    assert torch.equal(generator(x, draw(2, WIDTH)), x)
    assert torch.equal(discriminator(x), x)


def test_the_residual_does_not_change_what_the_shortcut_reads():
    for block, arguments in ((generator_block(4, 4), (draw(2, WIDTH),)), (discriminator_block(4, 4), ())):
        x = draw(2, 4, 4, 4)
        before = x.clone()
        block(x, *arguments)
        assert torch.equal(x, before)


@pytest.mark.parametrize("upsample", [upsample_bilinear, partial(F.interpolate, scale_factor=2, mode="bicubic")])
def test_any_interpolation_may_double_the_resolution_though_the_shortcut_convolves_first(upsample):
    block = generator_block(upsample=True, resample=upsample)
    x, condition = draw(2, 4, 4, 4), draw(2, WIDTH)
    h = block.conv1(upsample(block.act1(block.norm1(x, condition))))
    h = block.conv2(block.act2(block.norm2(h, condition)))
    torch.testing.assert_close(block(x, condition), h + block.shortcut(upsample(x)))


def test_any_pooling_may_halve_the_resolution_though_the_shortcut_pools_first():
    pool = partial(F.interpolate, scale_factor=0.5, mode="area")
    block = discriminator_block(downsample=True, resample=pool)
    x = draw(2, 3, 4, 4)
    h = block.conv2(F.relu(block.conv1(F.relu(x))))
    torch.testing.assert_close(block(x), pool(h) + pool(block.shortcut(x)))


@given(i=st.integers(1, 9), o=st.integers(1, 9), resample=st.booleans(), kernel=st.sampled_from([3, 5, 7]))
def test_blocks_have_the_parameters_of_two_convolutions_and_of_a_shortcut_where_anything_changes(
    i: int, o: int, resample: bool, kernel: int
):
    convolutions = kernel**2 * (i * o + o * o) + 2 * o + (i * o + o if resample or i != o else 0)
    block = ResidualDiscriminatorBlock(i, o, downsample=resample, kernel_size=kernel)
    assert sum(parameter.numel() for parameter in block.parameters()) == convolutions
    block = ResidualGeneratorBlock(i, o, norm_layer=conditional_norm, upsample=resample, kernel_size=kernel)
    assert sum(parameter.numel() for parameter in block.parameters()) == convolutions + 2 * WIDTH * (i + o)


def test_the_blocks_of_the_128_pixel_networks_add_up_to_the_published_counts():
    # Table 4 with ch = 96 and 1000 classes: 70,433,988 and 87,982,370 parameters in all.
    ch = 96
    with torch.device("meta"):
        norm_layer = partial(ConditionalBatchNorm2d, condition_dim=148)
        generator, discriminator = nn.ModuleList(), nn.ModuleList()
        for wide, narrow in pairwise([16, 16, 8, 4, 2, 1]):
            generator.append(ResidualGeneratorBlock(wide * ch, narrow * ch, norm_layer=norm_layer, upsample=True))
        discriminator.append(ResidualDiscriminatorBlock(3, ch, downsample=True, preactivation=False))
        for narrow, wide in pairwise([1, 2, 4, 8, 16]):
            discriminator.append(ResidualDiscriminatorBlock(narrow * ch, wide * ch, downsample=True))
        discriminator.append(ResidualDiscriminatorBlock(16 * ch, 16 * ch))

    def attention(channels: int) -> int:
        return 2 * channels * (channels // 8) + 2 * channels * (channels // 2) + 1  # theta, phi, g, out, gamma

    stem = 20 * 16 * 16 * ch + 16 * 16 * ch
    rest_of_generator = 1000 * 128 + stem + attention(2 * ch) + 2 * ch + 9 * ch * 3 + 3
    rest_of_discriminator = attention(ch) + 1000 * 16 * ch + 16 * ch + 1
    assert sum(p.numel() for p in generator.parameters()) + rest_of_generator == 70_433_988
    assert sum(p.numel() for p in discriminator.parameters()) + rest_of_discriminator == 87_982_370


def as_function(block: nn.Module):
    """The block as a function of its inputs and of all its parameters."""
    names = [name for name, _ in block.named_parameters()]

    def run(*values: Tensor) -> Tensor:
        count = len(values) - len(names)
        return torch.func.functional_call(block, dict(zip(names, values[count:], strict=True)), values[:count])

    return run


@booleans
def test_generator_gradients_agree_with_finite_differences(resample: bool):
    block = generator_block(2, 3, upsample=resample)
    inputs = (draw(2, 2, 2, 2).requires_grad_(), draw(2, WIDTH).requires_grad_(), *block.parameters())
    assert torch.autograd.gradcheck(as_function(block), inputs)


@booleans
def test_discriminator_gradients_agree_with_finite_differences_to_second_order(resample: bool):
    block = discriminator_block(2, 3, downsample=resample, preactivation=not resample)
    inputs = (draw(2, 2, 2, 2).requires_grad_(), *block.parameters())
    assert torch.autograd.gradcheck(as_function(block), inputs)
    assert torch.autograd.gradgradcheck(as_function(block), inputs)


def test_in_eval_mode_samples_do_not_see_each_other():
    block = generator_block(upsample=True)
    x, condition = draw(4, 4, 4, 4), draw(4, WIDTH)
    block(x, condition)
    block.eval()
    torch.testing.assert_close(block(x[:2], condition[:2]), block(x, condition)[:2])


@pytest.mark.parametrize("make", [generator_block, discriminator_block])
def test_a_factory_need_not_know_of_dilation(make):
    def conv(*sizes: int, padding: int = 0) -> nn.Module:
        return nn.Conv2d(*sizes, padding=padding)

    assert sum(isinstance(module, nn.Conv2d) for module in make(2, 5, conv_layer=conv).modules()) == 3


@pytest.mark.parametrize("make", [generator_block, discriminator_block])
def test_layers_come_from_the_factories(make):
    made = []

    def conv(*sizes: int, padding: int = 0, dilation: int = 1) -> nn.Module:
        made.append((*sizes, padding, dilation))
        return EqualizedConv2d(*sizes, padding=padding, dilation=dilation)

    block = make(2, 5, kernel_size=5, dilation=3, conv_layer=conv, act_layer=partial(nn.LeakyReLU, 0.2))
    assert made == [(2, 5, 5, 6, 3), (5, 5, 5, 6, 3), (2, 5, 1, 0, 1)]
    assert sum(isinstance(module, nn.LeakyReLU) for module in block.modules()) == 2


def test_an_activation_in_place_works_where_nothing_else_reads_its_input():
    in_place = partial(nn.ReLU, True)
    x, condition = draw(2, 4, 4, 4), draw(2, WIDTH)
    expected = generator_block(upsample=True)(x, condition)
    assert torch.equal(generator_block(upsample=True, act_layer=in_place)(x, condition), expected)
    x = draw(2, 3, 4, 4)
    for options in ({"norm_layer": CrossReplicaBatchNorm2d}, {"preactivation": False}):
        expected = discriminator_block(**options)(x)
        assert torch.equal(discriminator_block(**options, act_layer=in_place)(x), expected)


@booleans
def test_state_survives_a_round_trip(resample: bool):
    source, target = generator_block(upsample=resample), generator_block(upsample=resample)
    nn.init.zeros_(target.conv2.weight)
    x, condition = draw(2, 4, 4, 4), draw(2, WIDTH)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(x, condition), source(x, condition))
    norm = ["norm.running_mean", "norm.running_var", "gain.weight", "bias.weight"]
    convolutions = {f"{name}.{key}" for name in ("conv1", "conv2", "shortcut") for key in ("weight", "bias")}
    assert set(source.state_dict()) == convolutions | {f"norm{n}.{key}" for n in (1, 2) for key in norm}

    source, target = discriminator_block(downsample=resample), discriminator_block(downsample=resample)
    nn.init.zeros_(target.conv2.weight)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(x[:, :3]), source(x[:, :3]))
    assert set(source.state_dict()) == convolutions


@booleans
def test_keeps_the_memory_format(resample: bool):
    condition = draw(2, WIDTH)
    x = draw(2, 4, 4, 4).contiguous(memory_format=torch.channels_last)
    block = generator_block(upsample=resample).to(memory_format=torch.channels_last)
    assert block(x, condition).is_contiguous(memory_format=torch.channels_last)
    block = discriminator_block(4, 3, downsample=resample).to(memory_format=torch.channels_last)
    assert block(x).is_contiguous(memory_format=torch.channels_last)


@booleans
def test_compiles_without_a_graph_break(resample: bool):
    block, x, condition = generator_block(upsample=resample), draw(2, 4, 4, 4), draw(2, WIDTH)
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, condition), block(x, condition))
    block = discriminator_block(4, 4, downsample=resample)
    torch.testing.assert_close(torch.compile(block, fullgraph=True, backend="eager")(x), block(x))


@booleans
def test_works_on_the_meta_device(resample: bool):
    x, condition = draw(2, 4, 4, 4).to("meta"), draw(2, WIDTH).to("meta")
    size = 8 if resample else 4
    assert generator_block(upsample=resample).to("meta")(x, condition).shape == (2, 3, size, size)
    size = 2 if resample else 4
    assert discriminator_block(4, 3, downsample=resample).to("meta")(x).shape == (2, 3, size, size)


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "kernel_size", "dilation"])
def test_rejects_sizes_of_zero(name: str):
    sizes = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "dilation": 1, name: 0}
    pattern = rf"Block: `{name}` must be greater than 0, but got {name}=0\.$"
    with pytest.raises(ValueError, match="^ResidualGenerator" + pattern):
        ResidualGeneratorBlock(**sizes, norm_layer=conditional_norm)
    with pytest.raises(ValueError, match="^ResidualDiscriminator" + pattern):
        ResidualDiscriminatorBlock(**sizes)


def test_rejects_a_hidden_width_of_zero_or_one_that_groups_do_not_divide():
    with pytest.raises(ValueError, match=r"^ResidualDiscriminatorBlock: `hidden_channels` must be greater than 0"):
        ResidualDiscriminatorBlock(4, 4, hidden_channels=0)
    with pytest.raises(ValueError, match=r"^ResidualDiscriminatorBlock: `groups` must be a divisor of hidden_channels"):
        ResidualDiscriminatorBlock(4, 4, hidden_channels=3, groups=2)


def test_rejects_filters_of_even_size():
    pattern = r"Block: `kernel_size` must be odd, but got kernel_size=4\. An even filter has no pixel at its center\.$"
    with pytest.raises(ValueError, match="^ResidualGenerator" + pattern):
        ResidualGeneratorBlock(4, 4, kernel_size=4, norm_layer=conditional_norm)
    with pytest.raises(ValueError, match="^ResidualDiscriminator" + pattern):
        ResidualDiscriminatorBlock(4, 4, kernel_size=4)


@pytest.mark.parametrize("shape", [(2, 5, 4, 4), (2, 4, 4)])
def test_rejects_another_feature_map(shape: tuple[int, ...]):
    rule = "Block: `x` must be of shape (batch, 4, height, width), but got x of shape {}."
    x = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match="^ResidualGenerator" + re.escape(rule.format(shape)) + "$"):
        generator_block()(x, draw(2, WIDTH))
    with pytest.raises(ValueError, match="^ResidualDiscriminator" + re.escape(rule.format(shape)) + "$"):
        discriminator_block(4, 4)(x)
