"""What the residual blocks of both kinds take alike: norms of any kind, groups, residuals that start at zero."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_blocks import (
    BottleneckDiscriminatorBlock,
    BottleneckGeneratorBlock,
    ConditionalBatchNorm2d,
    EqualizedConv2d,
    ResidualDiscriminatorBlock,
    ResidualGeneratorBlock,
    SpectralNorm,
    downsample_average,
    downsample_filtered,
    normalize_layers,
    normalized_layer,
    spectral_norm,
    upsample_bilinear,
    upsample_nearest,
)
from tests.drawn import draw, randomize

GENERATOR_BLOCKS = [ResidualGeneratorBlock, BottleneckGeneratorBlock]
DISCRIMINATOR_BLOCKS = [ResidualDiscriminatorBlock, BottleneckDiscriminatorBlock]
generators = pytest.mark.parametrize("make", GENERATOR_BLOCKS)
every = pytest.mark.parametrize("make", GENERATOR_BLOCKS + DISCRIMINATOR_BLOCKS)


class Shift(nn.Module):
    """Somebody's norm that takes a condition, and says so."""

    takes_condition = True

    def __init__(self, num_features: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x + condition[:, :, None, None]


@generators
def test_without_a_norm_a_generator_block_needs_no_condition_and_ignores_one(make: Callable[..., nn.Module]):
    block, x = randomize(make(8, 8, upsample=True)), draw(2, 8, 4, 4)
    assert block(x).shape == (2, 8, 8, 8)
    assert torch.equal(block(x, draw(2, 3)), block(x))


@generators
def test_torchs_own_norms_are_called_with_the_features_alone(make: Callable[..., nn.Module]):
    block = randomize(make(8, 8, norm_layer=nn.BatchNorm2d))
    norms = [part for part in block.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == (2 if make is ResidualGeneratorBlock else 4)
    block(draw(2, 8, 4, 4))
    assert all(norm.num_batches_tracked == 1 for norm in norms)


@generators
def test_any_norm_that_says_so_takes_the_condition(make: Callable[..., nn.Module]):
    block, x = randomize(make(8, 8, norm_layer=Shift, **narrow(make))), draw(2, 8, 4, 4)
    assert not torch.allclose(block(x, draw(2, 8)), block(x, torch.zeros(2, 8)))


def narrow(make: Callable[..., nn.Module]) -> dict[str, int]:
    """All widths of a bottleneck alike, so that one condition fits all of its norms."""
    return {"bottleneck_ratio": 1} if make is BottleneckGeneratorBlock else {}


@generators
def test_a_norm_that_takes_a_condition_is_not_left_without(make: Callable[..., nn.Module]):
    block = make(8, 8, norm_layer=partial(ConditionalBatchNorm2d, condition_dim=3))
    message = (
        rf"^{make.__name__}: `condition` must be what ConditionalBatchNorm2d takes, but got condition of type None"
    )
    with pytest.raises(TypeError, match=message):
        block(torch.zeros(2, 8, 4, 4))


@every
@pytest.mark.parametrize("conv_layer", [nn.Conv2d, EqualizedConv2d])
def test_groups_are_those_of_the_filters_that_see_neighbors(
    make: Callable[..., nn.Module], conv_layer: Callable[..., nn.Module]
):
    block = make(8, 8, groups=2, conv_layer=conv_layer)
    grouped = [part.groups for part in block.modules() if isinstance(part, nn.Conv2d)]
    assert grouped == ([2, 2] if "Residual" in make.__name__ else [1, 2, 2, 1])
    divided = "in_channels = 8"
    if "Bottleneck" in make.__name__:
        divided = f"{'in' if make in GENERATOR_BLOCKS else 'out'}_channels / bottleneck_ratio = 2"
    with pytest.raises(
        ValueError, match=rf"^{make.__name__}: `groups` must be a divisor of {divided}, but got groups=3\.$"
    ):
        make(8, 8, groups=3)
    with pytest.raises(ValueError, match=rf"^{make.__name__}: `groups` must be greater than 0"):
        make(8, 8, groups=0)


@every
def test_the_first_activation_may_not_overwrite_what_the_shortcut_reads(make: Callable[..., nn.Module]):
    pattern = (
        rf"^{make.__name__}: `act_layer` must be out of place, but got act_layer=ReLU\(inplace=True\)\. "
        r"The shortcut reads what it would change\.$"
    )
    with pytest.raises(ValueError, match=pattern):
        make(8, 8, act_layer=partial(nn.ReLU, inplace=True))


@every
@pytest.mark.parametrize("conv_layer", [nn.Conv2d, EqualizedConv2d])
def test_with_a_residual_of_zero_the_block_is_its_shortcut_and_learns(
    make: Callable[..., nn.Module], conv_layer: Callable[..., nn.Module]
):
    block = make(8, 8, zero_init_residual=True, conv_layer=partial(conv_layer, bias=False)).double()
    x = draw(2, 8, 4, 4)
    assert torch.equal(block(x), x)
    optimizer = torch.optim.Adam(block.parameters(), lr=1e-4)
    block(x).sin().sum().backward()
    optimizer.step()
    assert 0 < (block(x) - x).abs().max() < 0.1


@pytest.mark.parametrize(
    ("make", "scale", "plain", "filtered"),
    [
        (BottleneckGeneratorBlock, {"upsample": True}, upsample_nearest, upsample_bilinear),
        (BottleneckDiscriminatorBlock, {"downsample": True}, downsample_average, downsample_filtered),
    ],
)
def test_a_bottleneck_resamples_as_it_is_told(make, scale: dict[str, bool], plain, filtered):
    blocks = [
        randomize(make(8, 8, **scale, **options)) for options in ({}, {"resample": plain}, {"resample": filtered})
    ]
    x = draw(2, 8, 4, 4)
    first, same, other = (block(x) for block in blocks)
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)
    shortcut = make(8, 8, zero_init_residual=True, resample=filtered, **scale).double()
    nn.init.zeros_(shortcut.conv4.bias)
    torch.testing.assert_close(shortcut(x.double()), filtered(x.double()))


@pytest.mark.parametrize(
    "normalize", [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.weight_norm], ids=["new", "hook"]
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_a_residual_of_weight_norm_starts_at_zero(normalize):
    block = ResidualGeneratorBlock(
        4, 4, zero_init_residual=True, conv_layer=lambda *sizes, **options: normalize(nn.Conv2d(*sizes, **options))
    )
    x = torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(block(x), x + block.conv2.bias[:, None, None])


NOT_ZERO = "must be a factory of layers whose weight can be zero, with zero_init_residual, but got conv_layer of type"


@every
@pytest.mark.parametrize(
    "normalize",
    [spectral_norm, torch.nn.utils.parametrizations.spectral_norm, torch.nn.utils.spectral_norm],
    ids=["ours", "torch's", "torch's hook"],
)
def test_rejects_a_residual_whose_first_update_would_be_scaled_up(make: Callable[..., nn.Module], normalize: Any):
    pattern = (
        rf"^{make.__name__}: `conv_layer` {NOT_ZERO} \w+\. A spectral norm scales the first update up to norm 1: "
        r"pass nn\.Conv2d and call normalize_layers, which leaves this layer out\.$"
    )
    with pytest.raises(TypeError, match=pattern):
        make(8, 8, zero_init_residual=True, conv_layer=lambda *args, **options: normalize(nn.Conv2d(*args, **options)))


def test_rejects_a_residual_without_a_weight_of_its_own():
    with pytest.raises(TypeError, match=rf"^ResidualGeneratorBlock: `conv_layer` {NOT_ZERO} Sequential\.$"):
        ResidualGeneratorBlock(
            4,
            4,
            zero_init_residual=True,
            conv_layer=lambda *args, **options: nn.Sequential(nn.Conv2d(*args, **options)),
        )


@every
def test_a_residual_of_zero_stays_one_when_the_block_is_normalized(make: Callable[..., nn.Module]):
    block = normalize_layers(make(8, 8, zero_init_residual=True, conv_layer=partial(nn.Conv2d, bias=False)))
    x = draw(2, 8, 4, 4, dtype=torch.float32)
    assert torch.equal(block(x), x)
    assert sum(isinstance(module, SpectralNorm) for module in block.modules()) == (
        1 if "Residual" in make.__name__ else 3
    )


def test_a_residual_is_zero_again_after_reset_parameters_and_in_a_copy():
    block = copy.deepcopy(ResidualDiscriminatorBlock(4, 4, zero_init_residual=True))
    for module in block.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert (block.conv2.weight == 0).all()
    assert (block.conv1.weight != 0).any()


@generators
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_projections_of_a_block_as_one_product_equal_each_alone(make: Any, normalized: bool, training: bool):
    linear = normalized_layer(nn.Linear) if normalized else nn.Linear
    torch.manual_seed(0)
    block = make(8, 8, norm_layer=partial(ConditionalBatchNorm2d, condition_dim=5, linear_layer=linear)).double()
    alone = copy.deepcopy(block)
    norms = [module for module in alone.modules() if isinstance(module, ConditionalBatchNorm2d)]
    calls = []
    for norm in norms:  # which has to be called therefore
        norm.register_forward_hook(lambda norm, *_: calls.append(norm))
    results = []
    for each in (block, alone):
        each.train(training)
        x, condition = draw(3, 8, 4, 4).requires_grad_(), draw(3, 5, seed=1).requires_grad_()
        y = each(x, condition)
        y.square().sum().backward()
        results.append([y, x.grad, condition.grad, *(parameter.grad for parameter in each.parameters())])
        results[-1] += [*each.buffers()]
    assert calls == norms
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_condition_of_another_batch_is_refused_as_by_a_norm_alone():
    block = BottleneckGeneratorBlock(8, 8, norm_layer=partial(ConditionalBatchNorm2d, condition_dim=5))
    with pytest.raises(ValueError, match=r"^ConditionalBatchNorm2d: `condition` must be of shape \(3, 5\)"):
        block(draw(3, 8, 4, 4).float(), draw(2, 5).float())
