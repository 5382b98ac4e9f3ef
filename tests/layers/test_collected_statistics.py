"""Statistics that batch norms collect over batches and store, for evaluation."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import CrossReplicaBatchNorm2d
from tests.drawn import draw
from tests.layers.collecting_norms import affinities, build, collect, expected, kinds
from tests.reference import layers as reference


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), mean=st.sampled_from([0, 1000]))
def test_collecting_pools_batches_of_any_sizes_as_if_they_were_one(sizes: list[int], mean: float):
    batches = [draw(size, 3, 2, 2, seed=seed, mean=mean + seed) for seed, size in enumerate(sizes)]
    norm = build()
    collect(norm, *batches)
    pooled_mean, pooled_variance = reference.moments(torch.cat(batches).numpy())
    np.testing.assert_allclose(norm.running_mean, pooled_mean, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(norm.running_var, pooled_variance, rtol=1e-10)


@kinds
@pytest.mark.parametrize("training", [True, False])
def test_collecting_normalizes_by_the_batch_at_hand_in_either_mode(statistics: str, training: bool):
    x = draw(2, 3, 2, 2, mean=4)
    norm = build(statistics=statistics).train(training)
    norm.start_collecting()
    np.testing.assert_allclose(norm(x).detach(), expected(norm, x, *reference.moments(x.numpy())), atol=1e-12)


@kinds
@affinities
def test_after_collecting_eval_on_the_union_equals_train_on_the_union(statistics: str, affine: bool):
    x = draw(5, 3, 2, 2, mean=4)
    norm = build(statistics=statistics, affine=affine)
    in_train_mode = copy.deepcopy(norm)(x)
    collect(norm, x[:2], x[2:])
    norm.eval()
    torch.testing.assert_close(norm(x), in_train_mode, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm(x[:1]), in_train_mode[:1], rtol=1e-12, atol=1e-12)


@kinds
def test_collecting_moves_no_buffer_until_it_is_stored(statistics: str):
    norm = build(statistics=statistics)
    before = copy.deepcopy(norm.state_dict())
    norm.start_collecting()
    norm(draw(2, 3, 2, 2))
    assert norm.state_dict().keys() == before.keys()
    norm.stop_collecting(store=False)
    assert norm.state_dict().keys() == before.keys()
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


@kinds
def test_storing_without_any_batch_changes_nothing(statistics: str):
    norm = build(statistics=statistics)
    before = copy.deepcopy(norm.state_dict())
    collect(norm)
    assert norm.state_dict().keys() == before.keys()
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


def test_training_goes_on_from_the_stored_statistics_by_the_momentum():
    norm = build(momentum=0.25)
    x, after = draw(2, 3, 2, 2), draw(2, 3, 2, 2, seed=1)
    collect(norm, x)
    norm(after)
    wanted = 0.75 * reference.moments(x.numpy())[0] + 0.25 * reference.moments(after.numpy())[0]
    np.testing.assert_allclose(norm.running_mean, wanted, atol=1e-12)


def test_training_leaves_the_stored_statistics_of_a_layer_without_running_ones():
    norm = build(statistics="batch")
    collect(norm, draw(2, 3, 2, 2))
    before = norm.running_mean.clone()
    norm(draw(2, 3, 2, 2, seed=1))
    assert torch.equal(norm.running_mean, before)


@kinds
def test_a_deep_copy_keeps_the_stored_statistics_to_itself(statistics: str):
    norm = build(statistics=statistics)
    collect(norm, draw(2, 3, 2, 2))
    before = norm.running_mean.clone()
    collect(copy.deepcopy(norm), draw(2, 3, 2, 2, seed=1))
    assert torch.equal(norm.running_mean, before)


def test_pooling_in_float32_survives_a_mean_of_a_thousand():
    batches = [draw(n, 3, 8, 8, seed=n, mean=1000).float() for n in (1, 4, 2)]
    norm = CrossReplicaBatchNorm2d(3, affine=False)
    collect(norm, *batches)
    mean, variance = reference.moments(torch.cat(batches).double().numpy())
    np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-6)
    np.testing.assert_allclose(norm.running_var, variance, rtol=1e-4)


def test_statistics_with_a_history_leave_none_behind():
    norm = CrossReplicaBatchNorm2d(3)
    norm.set_statistics(torch.ones(3, requires_grad=True), torch.ones(3))
    assert not norm.running_mean.requires_grad
