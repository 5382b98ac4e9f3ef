import copy
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import (
    BottleneckGeneratorBlock,
    ClassConditionalBatchNorm2d,
    ConditionalBatchNorm2d,
    ResidualGeneratorBlock,
    fold_generator_blocks,
    fold_spectral_norm,
    normalize_layers,
    upsample_bilinear,
    upsample_nearest,
)
from tests.drawn import draw, randomize

WIDTH = 3  # of the condition
conditional_norm = partial(ConditionalBatchNorm2d, condition_dim=WIDTH)


def trained_block(kind: type[nn.Module], channels: int, out: int, **options) -> nn.Module:
    """In evaluation mode, with statistics that are far from the identity."""
    block = randomize(kind(channels, out, **{"norm_layer": conditional_norm, **options}), scale=0.5)
    for seed in range(3):
        block(3 * draw(4, channels, 4, 4, seed=seed) + 2, draw(4, WIDTH, seed=seed))
    return block.eval()


def folded(block: nn.Module) -> nn.Module:
    return fold_generator_blocks(nn.ModuleList([copy.deepcopy(block)]).eval())[0]


@given(
    kind=st.sampled_from([BottleneckGeneratorBlock, ResidualGeneratorBlock]),
    channels=st.sampled_from([4, 8]),
    out=st.integers(1, 4),
    batch=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    up=st.booleans(),
    resample=st.sampled_from([upsample_nearest, upsample_bilinear]),
    memory=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_a_folded_block_gives_the_values_and_gradients_of_the_block(
    kind: type[nn.Module], channels: int, out: int, batch: int, height: int, width: int, up: bool, resample, memory
):
    block = trained_block(kind, channels, out, upsample=up, resample=resample)
    quick = folded(block.to(memory_format=memory))
    assert list(quick.modules()) != list(block.modules())
    x = draw(batch, channels, height, width).contiguous(memory_format=memory).requires_grad_()
    condition = draw(batch, WIDTH, seed=1).requires_grad_()
    before = x.detach().clone()
    with torch.no_grad():
        torch.testing.assert_close(quick(x, condition), block(x, condition), rtol=0, atol=1e-10)
        torch.testing.assert_close(quick(x, condition), block(x, condition), rtol=0, atol=1e-10)  # with its kernel
    assert torch.equal(x, before)  # which the shortcut reads

    def gradients(module: nn.Module) -> tuple[Tensor, ...]:
        return torch.autograd.grad(module(x, condition).square().sum(), (x, condition))

    for ours, plain in zip(gradients(quick), gradients(block), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


def test_a_large_mean_costs_no_digits():
    block = trained_block(BottleneckGeneratorBlock, 8, 4)
    with torch.no_grad():
        block.norm1.norm.running_mean.fill_(1e4)
    x, condition = draw(2, 8, 4, 4, mean=1e4), draw(2, WIDTH, seed=1)
    with torch.no_grad():
        exact = block(x, condition)
        got = folded(block.float())(x.float(), condition.float())
    assert (got - exact).abs().max() < 1e-2  # x itself is rounded by 5e-4


def test_the_model_is_changed_in_place_and_the_blocks_that_were_there_are_not():
    block = trained_block(ResidualGeneratorBlock, 4, 2, upsample=True)
    x, condition = draw(2, 4, 8, 8), draw(2, WIDTH, seed=1)
    expected = block(x, condition)
    model = nn.ModuleDict({"deep": nn.ModuleList([block])}).eval()
    assert fold_generator_blocks(model) is model
    assert model["deep"][0] is not block
    assert not any(parameter.requires_grad for parameter in model.parameters() if parameter is not block)
    assert torch.equal(block(x, condition), expected)
    assert all(parameter.requires_grad for parameter in block.parameters())
    block.train()
    block(x + 1, condition)  # moves its statistics
    torch.testing.assert_close(model["deep"][0](x, condition), expected, rtol=0, atol=1e-10)
    assert torch.isfinite(copy.deepcopy(model)["deep"][0](x, condition)).all()


def test_a_block_that_stands_in_several_places_stays_one():
    block = trained_block(BottleneckGeneratorBlock, 4, 4)
    model = fold_generator_blocks(nn.ModuleList([block, block, nn.ModuleList([block])]).eval())
    assert model[0] is not block
    assert model[0] is model[1] is model[2][0]


@pytest.mark.parametrize("inside", ["folding", "sampling"])
@pytest.mark.parametrize("kind", [BottleneckGeneratorBlock, ResidualGeneratorBlock])
def test_after_use_for_inference_gradients_still_pass(kind: type[nn.Module], inside: str):
    block = trained_block(kind, 8, 4, upsample=True)
    x, condition = draw(2, 8, 8, 8).requires_grad_(), draw(2, WIDTH, seed=1)
    with torch.inference_mode(mode=inside == "folding"):
        quick = folded(block)
    with torch.inference_mode():
        quick(x, condition)
    ours, plain = (torch.autograd.grad(module(x, condition).square().sum(), x)[0] for module in (quick, block))
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


def test_weights_that_are_loaded_later_act():
    first, second = (
        randomize(trained_block(ResidualGeneratorBlock, 8, 4, upsample=True), scale=scale) for scale in (0.5, 0.7)
    )
    x, condition = draw(2, 8, 8, 8), draw(2, WIDTH, seed=1)
    quick = folded(first)
    quick(x, condition)
    quick.load_state_dict(folded(second).state_dict())
    torch.testing.assert_close(quick(x, condition), second(x, condition), rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, on the first use
@pytest.mark.parametrize("grad", [False, True])
def test_transforms_of_torch_func_pass_and_leave_nothing_behind(grad: bool):
    block = trained_block(BottleneckGeneratorBlock, 8, 4, upsample=True)
    quick, xs, condition = folded(block), draw(3, 2, 8, 8, 8), draw(2, WIDTH, seed=1)

    def of(module: nn.Module) -> tuple[Tensor, ...]:
        def slope(x: Tensor) -> Tensor:
            return torch.func.grad(lambda x: module(x, condition).square().sum())(x)

        along = torch.func.jvp(lambda x: module(x, condition), (xs[0],), (xs[1],))
        many = torch.func.vmap(module, in_dims=(0, None))(xs, condition)
        return *along, many, slope(xs[0])

    with torch.set_grad_enabled(grad):
        for ours, plain in zip(of(quick), of(block), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(quick)(xs[0], condition), block(xs[0], condition))


def untouched(model: nn.Module) -> bool:
    before = list(model.modules())
    return list(fold_generator_blocks(model).modules()) == before


def test_blocks_that_it_does_not_know_stay_as_they_are():
    bottleneck = partial(trained_block, BottleneckGeneratorBlock, 4, 4)
    model = nn.ModuleList([bottleneck()]).train()
    assert untouched(model)  # norms by the batch
    assert untouched(nn.ModuleList([normalize_layers(bottleneck(), init=None)]).eval())  # spectral norm
    assert untouched(nn.ModuleList([bottleneck(act_layer=nn.SiLU)]).eval())
    by_batch = partial(conditional_norm, statistics="batch")
    block = BottleneckGeneratorBlock(4, 4, norm_layer=by_batch)
    assert untouched(nn.ModuleList([block]).eval())
    table = ResidualGeneratorBlock(4, 4, norm_layer=partial(ClassConditionalBatchNorm2d, num_classes=3))
    assert untouched(nn.ModuleList([table]).eval())
    watched = bottleneck()
    watched.conv1.register_forward_hook(lambda *_: None)
    assert untouched(nn.ModuleList([watched]).eval())

    class Other(BottleneckGeneratorBlock):
        pass

    assert untouched(nn.ModuleList([trained_block(Other, 4, 4)]).eval())


def test_blocks_stay_as_they_are_while_somebody_watches_all_modules():
    block = trained_block(BottleneckGeneratorBlock, 4, 4)
    watching = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert untouched(nn.ModuleList([block]).eval())
    finally:
        watching.remove()
    assert not untouched(nn.ModuleList([block]).eval())


def test_spectral_norm_is_folded_first():
    block = normalize_layers(trained_block(BottleneckGeneratorBlock, 8, 4, upsample=True), init=None)
    block.double().eval()
    x, condition = draw(2, 8, 8, 8), draw(2, WIDTH, seed=1)
    expected = block(x, condition)
    quick = folded(fold_spectral_norm(block))
    torch.testing.assert_close(quick(x, condition), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("x", "condition", "message"),
    [
        ((2, 5, 4, 4), (2, 3), r"^fold_generator_blocks: `x` must be of shape \(batch, 4, height, width\)"),
        ((2, 4, 4, 4), (2, 4), r"^fold_generator_blocks: `condition` must be of shape \(2, 3\)"),
    ],
)
def test_rejects_other_shapes(x: tuple[int, ...], condition: tuple[int, ...], message: str):
    block = folded(trained_block(BottleneckGeneratorBlock, 4, 4))
    with pytest.raises(ValueError, match=message):
        block(draw(*x), draw(*condition))


def test_bfloat16_maps_are_normalized_by_statistics_that_are_not_rounded():
    block = trained_block(BottleneckGeneratorBlock, 8, 8).float()
    x, condition = draw(2, 8, 4, 4).float(), draw(2, WIDTH, seed=1).float()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        plain, quick = block(x.bfloat16(), condition), folded(block)(x.bfloat16(), condition)
        assert folded(block)(x, condition).dtype == block(x, condition).dtype == torch.float32  # the shortcut's
    with torch.no_grad():
        exact = block(x, condition)
    assert quick.dtype == torch.bfloat16
    assert (quick - exact).norm() < 1.5 * (plain - exact).norm()
