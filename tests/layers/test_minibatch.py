import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import MinibatchDiscrimination, MinibatchStdDev, minibatch_stddev
from tests.drawn import draw
from tests.reference import layers as reference

sizes = st.integers(1, 3)


def per_sample(x: Tensor, **options) -> Tensor:
    """The number of each sample, having seen that its map is constant."""
    y = minibatch_stddev(x, **options)
    assert y.shape == (x.shape[0], 1, *x.shape[2:])
    values = y[:, 0, 0, 0]
    assert torch.equal(y, values[:, None, None, None].expand_as(y))
    return values


@given(
    batch=st.integers(1, 16),
    channels=sizes,
    size=sizes,
    group=st.none() | st.integers(1, 6),
    eps=st.sampled_from([1e-8, 0.1]),
)
def test_equals_the_loops_over_strided_groups(batch: int, channels: int, size: int, group: int | None, eps: float):
    x = draw(batch, channels, size, size, seed=batch)
    wanted = reference.minibatch_stddev(x.numpy(), batch if group is None else group, eps)
    np.testing.assert_allclose(per_sample(x, group_size=group, eps=eps).numpy(), wanted, rtol=1e-9)


def test_groups_are_strided_not_contiguous():
    """Eight samples make two groups, even and odd numbers; neighbors share none."""
    x = torch.zeros(8, 1, 1, 1, dtype=torch.float64)
    x[1], x[3] = 1.0, -1.0  # in the odd group alone; contiguous groups would share them out otherwise
    values = per_sample(x, group_size=4)
    torch.testing.assert_close(values[::2], torch.full((4,), 1e-4, dtype=torch.float64))
    torch.testing.assert_close(values[1::2], torch.full((4,), math.sqrt(0.5 + 1e-8), dtype=torch.float64))


@pytest.mark.parametrize(("batch", "members"), [(16, 4), (14, 2), (6, 3), (3, 3), (5, 1), (8, 4), (2, 2), (1, 1)])
def test_group_sizes_are_the_largest_divisors_up_to_four(batch: int, members: int):
    """The paper's own batches are 16, 14, 6 and 3."""
    x = torch.zeros(batch, 1, 1, 1, dtype=torch.float64)
    x[0] = 1.0
    values = per_sample(x, group_size=4)
    assert (values > 0.01).sum() == (members if members > 1 else 0)


def test_the_whole_batch_is_compared_by_default():
    x = torch.zeros(7, 1, 1, 1, dtype=torch.float64)
    x[0] = 1.0
    torch.testing.assert_close(per_sample(x), torch.full((7,), math.sqrt(6) / 7, dtype=torch.float64))
    assert torch.equal(MinibatchStdDev()(x)[:, 1:], minibatch_stddev(x))


@pytest.mark.parametrize("batch", [16, 14, 6, 3])
def test_at_the_papers_batches_it_is_the_papers_definition(batch: int):
    x = draw(batch, 5, 4, 4, seed=batch, mean=2.0)
    wanted = reference.minibatch_stddev_of_batch(x.numpy())
    y = MinibatchStdDev()(x)
    np.testing.assert_allclose(y[:, 5:].numpy(), np.full((batch, 1, 4, 4), wanted), rtol=1e-12)
    assert torch.equal(y[:, :5], x)


def test_the_variance_is_that_of_a_population_and_epsilon_inside_the_root():
    x = torch.tensor([0.0, 2.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    assert per_sample(x)[0].item() == pytest.approx(1.0)  # a sample's variance would give 1.41
    same = torch.ones(4, 1, 1, 1, dtype=torch.float64)
    assert per_sample(same)[0].item() == pytest.approx(1e-4)  # outside, it would be 1e-8


@pytest.mark.parametrize("shape", [(8, 6), (8, 3, 2), (8, 1, 3, 1, 2)])
def test_any_number_of_axes_may_follow_the_channels(shape: tuple[int, ...]):
    x = draw(*shape)
    wanted = minibatch_stddev(x.reshape(8, 6, 1, 1), group_size=4).flatten()
    maps = minibatch_stddev(x, group_size=4)
    assert maps.shape == (8, 1, *shape[2:])
    torch.testing.assert_close(maps, wanted.reshape(8, *[1] * (len(shape) - 1)).expand_as(maps))
    assert torch.equal(MinibatchStdDev(group_size=4)(x), torch.cat([x, maps], dim=1))


@given(seed=st.integers(0, 9))
def test_ignores_the_order_inside_a_group_and_constants(seed: int):
    x = draw(8, 2, 2, 2, seed=seed)
    values = per_sample(x, group_size=4)
    order = torch.tensor([4, 3, 0, 7, 6, 1, 2, 5])  # even with even, odd with odd
    torch.testing.assert_close(per_sample(x[order], group_size=4), values)
    torch.testing.assert_close(per_sample(3 - 2 * x, group_size=4), 2 * values, rtol=1e-6, atol=0)


def test_gradients_agree_with_finite_differences():
    x = draw(4, 2, 1, 2).requires_grad_()
    assert torch.autograd.gradcheck(minibatch_stddev, (x,))
    assert torch.autograd.gradgradcheck(minibatch_stddev, (x,))


def test_identical_samples_have_finite_gradients():
    x = torch.ones(4, 2, 2, 2, requires_grad=True)
    minibatch_stddev(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_a_large_mean_apart(dtype: torch.dtype):
    x = (draw(4, 8, 4, 4) * 100).to(dtype)
    y = minibatch_stddev(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), minibatch_stddev(x.double()), rtol=1e-2, atol=0)


def test_the_module_appends_the_map():
    x, module = draw(8, 3, 2, 2), MinibatchStdDev(group_size=2, eps=1e-3)
    for layer in (module, module.eval()):
        y = layer(x)
        assert torch.equal(y[:, :3], x)
        assert torch.equal(y[:, 3:], minibatch_stddev(x, group_size=2, eps=1e-3))
    assert not module.state_dict()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), module(x))
    assert module(x.to("meta")).shape == (8, 4, 2, 2)


@pytest.mark.parametrize("batch", [1, 5, 7])
def test_a_batch_that_leaves_each_sample_alone_is_refused_in_training(batch: int):
    layer, x = MinibatchStdDev(group_size=4), draw(batch, 2, 2, 2)
    rule = (
        rf"^MinibatchStdDev: a batch of {batch} has no divisor from 2 to group_size=4: each sample is alone\. "
        r"Take another batch size, or group_size=None\.$"
    )
    with pytest.raises(ValueError, match=rule):
        layer(x)
    assert layer.eval()(x).shape == (batch, 3, 2, 2)
    for allowed in (MinibatchStdDev(), MinibatchStdDev(group_size=1)):
        assert allowed(x).shape == (batch, 3, 2, 2)


def test_a_last_short_batch_is_said_once():
    layer = MinibatchStdDev(group_size=4)
    layer(draw(8, 2, 2, 2))
    with pytest.warns(UserWarning, match=r"^MinibatchStdDev: a batch of 5 .* Drop a last batch that is short\.$"):
        layer(draw(5, 2, 2, 2))
    layer(draw(8, 2, 2, 2))
    layer(draw(7, 2, 2, 2))  # a second warning would be an error


@given(batch=st.integers(1, 5), features=sizes, kernels=sizes, dim=sizes)
def test_discrimination_equals_the_sums_over_pairs(batch: int, features: int, kernels: int, dim: int):
    layer = MinibatchDiscrimination(features, num_kernels=kernels, kernel_dim=dim).double()
    f = draw(batch, features)
    tensor = layer.projection.weight.detach().numpy().T.reshape(features, kernels, dim)
    y = layer(f).detach()
    assert torch.equal(y[:, :features], f)
    np.testing.assert_allclose(y[:, features:], reference.minibatch_discrimination(f.numpy(), tensor), rtol=1e-9)


def test_discrimination_sees_a_collapse():
    layer = MinibatchDiscrimination(4, num_kernels=3).double()
    nn.init.normal_(layer.projection.weight)
    collapsed = layer(draw(1, 4).expand(6, 4))[:, 4:]
    torch.testing.assert_close(collapsed, torch.full_like(collapsed, 6.0))
    assert (layer(100 * draw(6, 4))[:, 4:] < 1.001).all()  # only itself is near


def test_discrimination_has_second_derivatives():
    layer, f = MinibatchDiscrimination(3, num_kernels=2, kernel_dim=2).double(), draw(3, 3).requires_grad_()
    assert torch.autograd.gradcheck(layer, (f,))
    assert torch.autograd.gradgradcheck(layer, (f,))


def test_discrimination_takes_its_projection_from_the_factory():
    made = []

    def linear(*sizes: int, bias: bool = True) -> nn.Module:
        made.append((*sizes, bias))
        return nn.Linear(*sizes, bias=bias)

    layer = MinibatchDiscrimination(7, num_kernels=3, kernel_dim=2, linear_layer=linear)
    assert made == [(7, 6, False)]
    assert set(layer.state_dict()) == {"projection.weight"}
    compiled, f = torch.compile(layer, fullgraph=True, backend="eager"), draw(2, 7).float()
    torch.testing.assert_close(compiled(f), layer(f))


def test_rejects_wrong_arguments():
    x = draw(2, 3, 2, 2)
    for option in ("group_size", "eps"):
        rule = rf"`{option}` must be greater than 0, but got {option}=0\.$"
        with pytest.raises(ValueError, match="^minibatch_stddev: " + rule):
            minibatch_stddev(x, **{option: 0})
        with pytest.raises(ValueError, match="^MinibatchStdDev: " + rule):
            MinibatchStdDev(**{option: 0})
    for bad, rule in (
        (draw(2), "(batch, channels, ...) with at least one element, but got x of shape (2,)."),
        (draw(0, 3, 2, 2), "(batch, channels, ...) with at least one element, but got x of shape (0, 3, 2, 2)."),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(f"minibatch_stddev: `x` must be of shape {rule}") + "$"):
            minibatch_stddev(bad)
    with pytest.raises(TypeError, match=r"^minibatch_stddev: `x` must be of a real floating dtype, but got x of dtype"):
        minibatch_stddev(torch.ones(2, 3, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^MinibatchDiscrimination: `num_kernels` must be greater than 0"):
        MinibatchDiscrimination(3, num_kernels=0)
    rule = r"^MinibatchDiscrimination: `f` must be of shape \(batch, 3\), but got f of shape \(2, 4\)\.$"
    with pytest.raises(ValueError, match=rule):
        MinibatchDiscrimination(3)(draw(2, 4))
