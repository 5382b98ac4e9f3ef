from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from gan_blocks import (
    ClassConditionalBatchNorm2d,
    LearnedConstant2d,
    ResidualGeneratorBlock,
    SharedEmbedding,
    init_orthogonal_,
)
from tests.reference import layers as reference


class Model(nn.Module):
    """One of each kind of parameter that the rule distinguishes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.bias = nn.Linear(2, 5, bias=False)  # a projection to biases is a weight, as in ConditionalBatchNorm2d
        self.attention = nn.MultiheadAttention(4, 2)
        self.gamma = nn.Parameter(torch.tensor(0.3))
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.3)


@given(shape=st.lists(st.integers(1, 5), min_size=2, max_size=4), gain=st.floats(0.1, 3), seed=st.integers(0, 9))
def test_weights_of_any_shape_become_orthogonal_over_out_and_rest(shape: list[int], gain: float, seed: int):
    module = nn.ParameterDict({"weight": nn.Parameter(torch.zeros(shape, dtype=torch.float64))})
    init_orthogonal_(module, gain=gain, generator=torch.Generator().manual_seed(seed))
    assert reference.is_orthogonal(module["weight"].detach().numpy(), gain)


def test_every_matrix_in_a_model_is_made_orthogonal_and_every_bias_zero(rng: torch.Generator):
    model = init_orthogonal_(Model().double(), generator=rng)
    for name in ["conv.weight", "bias.weight", "attention.in_proj_weight", "attention.out_proj.weight"]:
        assert reference.is_orthogonal(model.get_parameter(name).detach().numpy(), 1.0), name
    for name in ["conv.bias", "norm.bias", "attention.in_proj_bias", "attention.out_proj.bias"]:
        assert not model.get_parameter(name).any(), name


def test_gains_scalars_and_buffers_keep_their_values(rng: torch.Generator):
    model = Model()
    running_mean = model.norm.running_mean.fill_(7.0).clone()
    init_orthogonal_(model, generator=rng)
    assert model.norm.weight.tolist() == pytest.approx([0.3] * 4)
    assert model.gamma.item() == pytest.approx(0.3)
    assert torch.equal(model.norm.running_mean, running_mean)


def test_a_bias_with_two_dimensions_is_a_bias():
    module = nn.ParameterDict({"bias": nn.Parameter(torch.ones(2, 2))})
    assert not init_orthogonal_(module)["bias"].any()


@pytest.mark.parametrize(
    "module",
    [
        nn.LayerNorm([8, 4, 4]),
        nn.RMSNorm([8, 4, 4]),
        LearnedConstant2d(16, 4),
        ClassConditionalBatchNorm2d(8, num_classes=10),
        ResidualGeneratorBlock(8, 8, zero_init_residual=True).conv2,
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_must_not_be_drawn_again_keeps_its_values(module: nn.Module):
    before = {name: value.clone() for name, value in module.named_parameters() if value.dim() > 1}
    init_orthogonal_(nn.Sequential(module))
    assert before
    assert all(torch.equal(module.get_parameter(name), value) for name, value in before.items())


def test_a_table_of_classes_that_starts_at_random_is_drawn():
    table = init_orthogonal_(SharedEmbedding(4, 6, dtype=torch.float64)).weight
    assert reference.is_orthogonal(table.detach().numpy(), 1.0)


@pytest.mark.parametrize("padding", [0, 2, 4])
@pytest.mark.parametrize("layer", [nn.Embedding, nn.EmbeddingBag])
def test_a_row_of_padding_stays_zero_and_the_others_are_orthogonal(layer: type[nn.Module], padding: int):
    table = init_orthogonal_(layer(5, 3, padding_idx=padding, dtype=torch.float64)).weight.detach()
    assert not table[padding].any()
    assert reference.is_orthogonal(np.delete(table.numpy(), padding, axis=0), 1.0)


def test_returns_the_module_itself():
    module = nn.Linear(2, 2)
    assert init_orthogonal_(module) is module


def test_the_draw_depends_on_the_generator_alone():
    weights = []
    for seed in [3, 3, 4]:
        before = torch.random.get_rng_state()
        weights.append(init_orthogonal_(nn.Linear(3, 3), generator=torch.Generator().manual_seed(seed)).weight)
        torch.nn.Linear(3, 3)  # moves the global generator on
        torch.random.set_rng_state(before)
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_leaves_the_global_generator_alone_when_given_one(rng: torch.Generator):
    module = nn.Linear(3, 3)
    before = torch.random.get_rng_state()
    init_orthogonal_(module, generator=rng)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_parameters_keep_requiring_gradients_and_their_identity(rng: torch.Generator):
    module = nn.Linear(3, 3)
    weight = module.weight
    init_orthogonal_(module, generator=rng)
    assert module.weight is weight
    assert weight.requires_grad
    assert weight.is_leaf


def test_skips_parameters_on_the_meta_device(rng: torch.Generator):
    model = nn.Sequential(nn.Linear(3, 3, device="meta"), nn.Linear(3, 3, dtype=torch.float64))
    init_orthogonal_(model, generator=rng)
    assert model[0].weight.is_meta
    assert reference.is_orthogonal(model[1].weight.detach().numpy(), 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_orthogonal_up_to_rounding(dtype: torch.dtype, rng: torch.Generator):
    weight = init_orthogonal_(nn.Linear(8, 4, dtype=dtype), generator=rng).weight.float()
    torch.testing.assert_close(weight @ weight.T, torch.eye(4), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (
            lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(2, 2))),
            r"^init_orthogonal_: `module` must not contain parametrized tensors, but got module with 1\.0\.weight\. "
            r"Initialize before spectral_norm or another parametrization is registered\.$",
        ),
        (
            lambda: torch.nn.utils.spectral_norm(nn.Linear(2, 2)),
            r"must not contain parametrized tensors, but got module with 1\.weight\.",
        ),
        (
            lambda: torch.nn.utils.weight_norm(nn.Linear(2, 2)),
            r"must not contain parametrized tensors, but got module with 1\.weight\.",
        ),
        (
            lambda: nn.LazyLinear(2),
            r"^init_orthogonal_: `module` must not have uninitialized parameters, but got module with 1\.weight, "
            r"1\.bias\. Run a batch through it first\.$",
        ),
    ],
    ids=["parametrized", "hook of spectral norm", "hook of weight norm", "lazy"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning", "ignore:Lazy modules:UserWarning")
def test_rejects_what_it_cannot_draw_and_changes_nothing(last: Callable[[], nn.Module], message: str):
    model = nn.Sequential(nn.Linear(2, 2), last())
    before = model[0].weight.clone()
    with pytest.raises(RuntimeError, match=message):
        init_orthogonal_(model)
    assert torch.equal(model[0].weight, before)


def test_names_the_tensor_when_the_model_itself_is_parametrized():
    with pytest.raises(RuntimeError, match=r"got module with weight\."):
        init_orthogonal_(parametrizations.spectral_norm(nn.Linear(2, 2)))


def test_rejects_a_gain_of_zero():
    with pytest.raises(ValueError, match=r"^init_orthogonal_: `gain` must be greater than 0, but got gain=0\.$"):
        init_orthogonal_(nn.Linear(2, 2), gain=0)


def test_the_memory_format_of_a_weight_changes_nothing():
    plain, nhwc = nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    for layer in (plain, nhwc):
        init_orthogonal_(layer, generator=torch.Generator().manual_seed(1))
    assert torch.equal(plain.weight, nhwc.weight)
    assert nhwc.weight.is_contiguous(memory_format=torch.channels_last)


def test_rejects_complex_parameters_and_changes_nothing():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.cfloat))
    before = model[0].weight.clone()
    with pytest.raises(TypeError, match=r"^init_orthogonal_: `1\.weight` must be of a real floating dtype, but got"):
        init_orthogonal_(model)
    assert torch.equal(model[0].weight, before)
