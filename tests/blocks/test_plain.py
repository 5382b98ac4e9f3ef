import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import CrossReplicaBatchNorm2d, PlainDiscriminatorBlock, PlainGeneratorBlock
from tests.drawn import draw, numpy_state, randomize
from tests.reference import blocks as reference

widths = st.integers(1, 3)

BLOCKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "generator": (lambda: PlainGeneratorBlock(4, 3), (4, 4, 2, 2)),
    "discriminator": (lambda: PlainDiscriminatorBlock(3, 4), (4, 3, 4, 4)),
}
every_block = pytest.mark.parametrize("name", BLOCKS)


def build(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = BLOCKS[name]
    return randomize(make()), draw(*shape, seed=9)


@given(in_channels=widths, out_channels=widths, size=st.integers(1, 3))
def test_generator_blocks_equal_the_loops(in_channels: int, out_channels: int, size: int):
    block = randomize(PlainGeneratorBlock(in_channels, out_channels))
    x = draw(3, in_channels, size, 2, seed=9)
    wanted = reference.plain_generator_block(x.numpy(), numpy_state(block))
    np.testing.assert_allclose(block(x).detach(), wanted, rtol=1e-9, atol=1e-9)


@given(in_channels=widths, out_channels=widths, size=st.integers(1, 3))
def test_discriminator_blocks_equal_the_loops(in_channels: int, out_channels: int, size: int):
    block = randomize(PlainDiscriminatorBlock(in_channels, out_channels))
    x = draw(3, in_channels, 2 * size, 4, seed=9)
    wanted = reference.plain_discriminator_block(x.numpy(), numpy_state(block))
    for mode in (True, False):  # D has the statistics of the batch in eval mode, too
        np.testing.assert_allclose(block.train(mode)(x).detach(), wanted, rtol=1e-9, atol=1e-9)


def test_the_generator_evaluates_by_running_statistics_and_the_discriminator_has_none():
    generator, x = build("generator")
    together = generator(x)
    generator.eval()
    assert not torch.allclose(generator(x), together)
    torch.testing.assert_close(generator(x)[:2], generator(x[:2]))
    assert not list(build("discriminator")[0].buffers())


def test_layers_come_from_the_factories():
    made = []

    def recorded(layer: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        def make(*sizes: int, **options: int) -> nn.Module:
            made.append((layer.__name__, *sizes, options["stride"], options["padding"]))
            return layer(*sizes, **options)

        return make

    last = PlainGeneratorBlock(
        4, 3, conv_transpose_layer=recorded(nn.ConvTranspose2d), norm_layer=nn.Identity, act_layer=nn.Tanh
    )
    critic = PlainDiscriminatorBlock(3, 4, conv_layer=recorded(nn.Conv2d), norm_layer=nn.Identity, act_layer=nn.ReLU)
    assert made == [("ConvTranspose2d", 4, 3, 4, 2, 1), ("Conv2d", 3, 4, 4, 2, 1)]
    images = last(torch.randn(2, 4, 4, 4))
    assert images.abs().max() <= 1
    assert (critic(images) >= 0).all()
    torch.testing.assert_close(critic(images)[:1], critic(images[:1]))
    assert not any(
        isinstance(module, CrossReplicaBatchNorm2d) for block in (last, critic) for module in block.modules()
    )


@every_block
def test_gradients_have_gradients(name: str):
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
def test_compiles_without_a_graph_break_and_keeps_the_memory_format(name: str):
    block, x = build(name)
    y = block(x)
    torch.testing.assert_close(torch.compile(block, fullgraph=True, backend="eager")(x), y)
    y = block.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("block", [PlainGeneratorBlock, PlainDiscriminatorBlock])
def test_rejects_widths_of_zero(block: Callable[..., nn.Module]):
    for sizes, name in (((0, 4), "in_channels"), ((4, 0), "out_channels")):
        rule = rf"^{block.__name__}: `{name}` must be greater than 0, but got {name}=0\.$"
        with pytest.raises(ValueError, match=rule):
            block(*sizes)


@pytest.mark.parametrize(
    ("name", "shapes", "pattern"),
    [
        ("generator", [(4, 2, 2), (1, 3, 2, 2)], "PlainGeneratorBlock: `x` must be of shape (batch, 4, height, width)"),
        (
            "discriminator",
            [(3, 4, 4), (1, 4, 4, 4), (1, 3, 5, 4), (1, 3, 4, 5)],
            "PlainDiscriminatorBlock: `x` must be of shape (batch, 3, height, width) with even height and width",
        ),
    ],
)
def test_rejects_other_shapes(name: str, shapes: list[tuple[int, ...]], pattern: str):
    block, _ = build(name)
    for shape in shapes:
        with pytest.raises(ValueError, match="^" + re.escape(f"{pattern}, but got x of shape {shape}.") + "$"):
            block(draw(*shape))
