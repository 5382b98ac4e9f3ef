import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import (
    bottom_k_mask,
    distributed_top_k,
    hinge_generator_loss,
    select_top_k,
    select_top_k_pairs,
    top_k_mask,
)
from tests.reference import top_k as reference

# Few values, so that ties are common; both infinities and NaN among them.
scores = st.lists(st.sampled_from([-2.0, 0.0, -0.0, 1.5, math.inf, -math.inf, math.nan]), min_size=1, max_size=9)


@given(values=scores, data=st.data())
def test_the_mask_marks_what_picking_the_best_one_by_one_picks(values: list[float], data: st.DataObject):
    k = data.draw(st.integers(1, len(values)))
    mask = top_k_mask(torch.tensor(values, dtype=torch.float64), k)
    assert mask.nonzero().flatten().tolist() == reference.top_k_indices(values, k)


@given(values=scores, data=st.data())
def test_the_bottom_mask_marks_what_picking_the_worst_one_by_one_picks(values: list[float], data: st.DataObject):
    k = data.draw(st.integers(1, len(values)))
    mask = bottom_k_mask(torch.tensor(values), k)
    assert mask.nonzero().flatten().tolist() == reference.top_k_indices([-value for value in values], k)


def test_equal_scores_are_taken_from_the_lowest_index_on():
    assert top_k_mask(torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0]), 3).tolist() == [True, True, True, False, False]
    assert bottom_k_mask(torch.tensor([1.0, 0.0, 1.0, 1.0]), 2).tolist() == [True, True, False, False]


def test_nan_is_never_marked_even_where_fewer_than_k_scores_are_left():
    nan = math.nan
    assert top_k_mask(torch.tensor([nan, 1.0, nan, -math.inf]), 3).tolist() == [False, True, False, True]
    assert not top_k_mask(torch.full((4,), nan), 2).any()


@pytest.mark.parametrize("number", [3, np.int64(3), torch.tensor(3)])
def test_columns_are_taken_and_integers_of_any_kind(number: int, rng: torch.Generator):
    logits = torch.randn(16, generator=rng)
    mask = top_k_mask(logits, 3)
    assert torch.equal(top_k_mask(logits[:, None], number), mask[:, None])
    assert torch.equal(bottom_k_mask(logits[:, None], number)[:, 0], bottom_k_mask(logits, 3))
    assert torch.equal(select_top_k(logits[:, None], number), logits[mask])
    assert torch.equal(distributed_top_k([logits[:5, None], logits[5:]], number)[0].mask, mask[:5])


def test_with_k_equal_to_the_batch_the_loss_and_gradient_are_the_plain_ones_to_the_last_bit(rng: torch.Generator):
    plain = torch.randn(33, generator=rng, requires_grad=True)
    chosen = plain.detach().clone().requires_grad_()
    losses = [hinge_generator_loss(fake_logits=plain), hinge_generator_loss(fake_logits=select_top_k(chosen, 33))]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    assert torch.equal(plain.grad, chosen.grad)


@given(values=scores.filter(lambda values: any(map(math.isfinite, values))), data=st.data())
def test_the_gradient_is_zero_exactly_on_the_dropped_samples(values: list[float], data: st.DataObject):
    k = data.draw(st.integers(1, len(values)))
    logits = torch.tensor(values, requires_grad=True)
    kept = select_top_k(logits, k)
    hinge_generator_loss(fake_logits=kept).backward()
    indices = reference.top_k_indices(values, k)
    assert kept.tolist() == [values[index] for index in indices]
    expected = torch.zeros(len(values))
    expected[indices] = -1 / len(indices)
    assert torch.equal(logits.grad, expected)


def test_the_gradient_agrees_with_finite_differences(rng: torch.Generator):
    logits = torch.randn(7, dtype=torch.float64, generator=rng, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: select_top_k(x, 3).square(), (logits,))


def test_the_critic_keeps_the_highest_of_both_of_its_batches():
    real, fake = torch.tensor([0.0, 3.0, 1.0]), torch.tensor([-1.0, math.nan, -3.0, -2.0])
    kept_real, kept_fake = select_top_k_pairs(real_logits=real, fake_logits=fake, k=2)
    assert kept_real.tolist() == [3.0, 1.0]
    assert kept_fake.tolist() == [-1.0, -2.0]


def test_masks_compile_without_graph_breaks(rng: torch.Generator):
    logits = torch.randn(12, generator=rng)
    compiled = torch.compile(top_k_mask, fullgraph=True, backend="eager")
    assert torch.equal(compiled(logits, 5), top_k_mask(logits, 5))


@pytest.mark.parametrize("function", [top_k_mask, select_top_k, bottom_k_mask])
@pytest.mark.parametrize("k", [0, -1, 4])
def test_rejects_a_k_outside_the_batch(function, k: int):
    with pytest.raises(
        ValueError, match=rf"^{function.__name__}: `k` must be from 1 to the batch of 3, but got k={k}\.$"
    ):
        function(torch.zeros(3), k)


def test_rejects_a_k_that_is_not_an_integer():
    message = r"^top_k_mask: `k` must be an integer, but got k of type float\. A schedule's k is kept real and floored"
    with pytest.raises(TypeError, match=message):
        top_k_mask(torch.zeros(3), 1.5)


def test_rejects_scores_that_are_not_floating_point():
    message = (
        r"^top_k_mask: `fake_logits` must be of dtype floating point, but got fake_logits of dtype torch\.int64\.$"
    )
    with pytest.raises(TypeError, match=message):
        top_k_mask(torch.zeros(3, dtype=torch.int64), 1)


@pytest.mark.parametrize("shape", [(0,), (2, 2), (), (2, 1, 1)])
def test_selecting_rejects_logits_that_are_not_one_value_per_sample(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"^select_top_k: `fake_logits` must be of shape .* with at least one sample"):
        select_top_k(torch.zeros(shape), 1)


def test_selecting_rejects_a_batch_of_nothing_but_nan():
    with pytest.raises(
        ValueError, match=r"^select_top_k: `fake_logits` must hold at least one number, but got 3 NaN\.$"
    ):
        select_top_k(torch.full((3,), math.nan), 2)


def test_the_critics_errors_name_the_batch_that_is_too_small():
    with pytest.raises(ValueError, match=r"^select_top_k_pairs: `k` must be from 1 to the batch of 2, but got k=3\.$"):
        select_top_k_pairs(real_logits=torch.zeros(2), fake_logits=torch.zeros(4), k=3)
    with pytest.raises(ValueError, match=r"^select_top_k_pairs: `real_logits` must be of shape"):
        select_top_k_pairs(real_logits=torch.zeros(0), fake_logits=torch.zeros(4), k=3)


def test_rejects_lists_and_truth_values():
    with pytest.raises(TypeError, match=r"^select_top_k: `fake_logits` must be a tensor, but got"):
        select_top_k([1.0, 2.0], 1)
    with pytest.raises(TypeError, match=r"^bottom_k_mask: `fake_logits` must be a tensor, but got"):
        bottom_k_mask([1.0, 2.0], 1)
    with pytest.raises(TypeError, match=r"^bottom_k_mask: `fake_logits` must be of dtype floating point, but got"):
        bottom_k_mask(torch.ones(2, dtype=torch.bool), 1)
    with pytest.raises(TypeError, match=r"^select_top_k: `k` must be an integer, but got"):
        select_top_k(torch.ones(2), torch.tensor(True))
