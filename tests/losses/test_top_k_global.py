import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import distributed_top_k, hinge_generator_loss, top_k_mask
from tests.losses import top_k_ranks as ranks
from tests.reference import top_k as reference

parts_of_scores = st.lists(
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, -math.inf, math.nan]), max_size=4), min_size=1, max_size=4
).filter(lambda parts: any(not math.isnan(value) for part in parts for value in part))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three processes says of a batch in six parts."""
    rendezvous = tmp_path_factory.mktemp("gloo") / "rendezvous"
    commands = [[sys.executable, "-m", "tests.losses.top_k_ranks", str(rank), str(rendezvous)] for rank in range(3)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) for command in commands
    ]
    return [json.loads(process.communicate()[0]) for process in processes]


def test_three_ranks_of_two_micro_batches_have_the_gradient_of_one_whole_batch(reports: list[dict[str, Any]]):
    generator, discriminator = ranks.networks()
    z = ranks.latents()
    chosen = reference.top_k_indices(discriminator(generator(z)).tolist(), ranks.K)
    gradients = torch.zeros(sum(p.numel() for p in generator.parameters()), dtype=torch.float64)
    for index in chosen:  # the mean over the chosen of each one's own gradient
        loss = hinge_generator_loss(fake_logits=discriminator(generator(z[index : index + 1])))
        own = torch.autograd.grad(loss, list(generator.parameters()))
        gradients += torch.cat([gradient.flatten() for gradient in own]) / ranks.K
    kept = [count for report in reports for count in report["kept"]]
    assert sum(kept) == ranks.K
    assert len(set(kept)) > 2  # not the same number of each part: a choice per part would differ
    for report in reports:
        assert torch.tensor(report["gradient"], dtype=torch.float64).sub(gradients).abs().max() < 1e-12


def test_over_ranks_ties_go_to_the_lowest_global_index_and_nan_is_counted(reports: list[dict[str, Any]]):
    mask = [flag for report in reports for flag in report["tied"]]
    assert [index for index, flag in enumerate(mask) if flag] == reference.top_k_indices(ranks.TIED, ranks.K)
    assert {report["num_nan"] for report in reports} == {2}


def test_every_rank_rejects_a_k_above_the_whole_batch(reports: list[dict[str, Any]]):
    message = "distributed_top_k: `k` must be from 1 to the whole batch of 17, but got k=18."
    assert {report["error"] for report in reports} == {message}


@given(parts=parts_of_scores, data=st.data())
def test_the_parts_of_one_process_choose_what_the_whole_batch_chooses(parts: list[list[float]], data: st.DataObject):
    whole = [value for part in parts for value in part]
    k = data.draw(st.integers(1, len(whole)))
    selections = distributed_top_k([torch.tensor(part, dtype=torch.float64) for part in parts], k)
    mask = [flag for selection in selections for flag in selection.mask.tolist()]
    chosen = reference.top_k_indices(whole, k)
    assert [index for index, flag in enumerate(mask) if flag] == chosen
    for part, selection in zip(parts, selections, strict=True):
        assert selection.mask.shape == (len(part),)
        assert selection.share == pytest.approx(int(selection.mask.sum()) / len(chosen), abs=1e-15)
        assert selection.num_selected == len(chosen)
        assert selection.num_nan == sum(map(math.isnan, whole))


def test_a_single_part_equals_the_mask_of_the_batch(rng: torch.Generator):
    scores = torch.randn(50, generator=rng)
    (selection,) = distributed_top_k([scores], 20)
    assert torch.equal(selection.mask, top_k_mask(scores, 20))
    assert selection.share == 1


@pytest.mark.parametrize(
    ("scores", "k", "kind", "message"),
    [
        ([], 1, ValueError, "`scores` must be at least one tensor, but got scores=[]."),
        (
            [torch.zeros(2, 2)],
            1,
            ValueError,
            "`scores` must be of shape (batch,) or (batch, 1) each, but got scores of shape (2, 2).",
        ),
        ([[1.0]], 1, TypeError, "`scores` must be tensors, but got scores of type list."),
        (
            [torch.zeros(2), torch.zeros(2, dtype=torch.float64)],
            1,
            TypeError,
            "`scores` must be of dtype floating point, the same in each, but got scores of dtype torch.float64.",
        ),
        ([torch.zeros(2), torch.zeros(1)], 4, ValueError, "`k` must be from 1 to the whole batch of 3, but got k=4."),
        ([torch.zeros(2)], 0, ValueError, "`k` must be from 1 to the whole batch of 2, but got k=0."),
        (
            [torch.zeros(2)],
            1.0,
            TypeError,
            "`k` must be an integer, but got k of type float. A schedule's k is kept real and floored when it is used.",
        ),
        ([torch.full((2,), math.nan)], 1, ValueError, "`scores` must hold at least one number, but got 2 NaN."),
    ],
)
def test_rejects_what_cannot_be_chosen_from(scores: list[torch.Tensor], k: Any, kind: type[Exception], message: str):
    with pytest.raises(kind) as error:
        distributed_top_k(scores, k)
    assert str(error.value) == f"distributed_top_k: {message}"
