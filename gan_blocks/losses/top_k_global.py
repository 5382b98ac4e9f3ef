"""Top-k over a batch that is spread over processes and micro-batches.

Tested in ``tests/losses/test_top_k_global.py``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from gan_blocks._checks import bad_dtype, bad_kind, bad_shape, bad_value
from gan_blocks.losses.top_k import check_k, is_one_each, top_k_mask

__all__ = ["TopKSelection", "distributed_top_k"]


class TopKSelection(NamedTuple):
    """What one part of a batch has of the k samples chosen over the whole batch."""

    mask: Tensor
    """True for this part's chosen samples, bool, ``(batch,)``."""
    share: float
    """This part's chosen samples over those of the whole batch, from 0 to 1. ``share`` times the mean over this
    part's chosen samples, summed over all parts, is the mean over all chosen samples."""
    num_selected: int
    """How many of the whole batch are chosen, which is k, or fewer where NaN left fewer. The divisor for sums."""
    num_nan: int
    """Scores of the whole batch that were NaN, none of which is chosen; worth a word to the user."""


def distributed_top_k(
    scores: Sequence[Tensor], k: int, *, process_group: "dist.ProcessGroup | None" = None
) -> tuple[TopKSelection, ...]:
    r"""Choose the k highest scores over all processes and all micro-batches.

    The method is about the whole batch: the top k of each part are other samples, and an epoch-wise k of a part is
    another schedule. So score every part first (without graph, if the parts do not fit into memory together), choose
    here, then let each part learn from its chosen samples:

    .. math:: \frac{1}{k} \sum_{j \in \text{top } k} \ell_j
        = \sum_{\text{parts } p} \text{share}_p \cdot \underset{j \in p \cap \text{top } k}{\text{mean}} \ell_j

    A part with none of them has a share of 0, and nothing to average: leave out its loss, but not a collective
    operation that the other processes wait for. ``DistributedDataParallel`` averages gradients over processes, so
    multiply the loss by their number there.

    The whole batch is in the order of the ranks, and within a rank of ``scores``; among equal scores, the lowest
    index of that order comes first. So how a batch is split does not change what is chosen. Every process of the
    group must call this, with the same k and dtype; the parts may differ in number and size. It waits for the device.

    Args:
        scores: Outputs of the discriminator on this process's generated images, one tensor for each micro-batch, of
            any floating dtype; larger means more real.
        k: How many to choose, from 1 to the size of the whole batch.
        process_group: The processes that share the batch; None takes all of them, or only this process where
            ``torch.distributed`` is not initialized.

    Returns:
        A selection for each of this process's micro-batches.

    Shape:
        - scores: ``(batch,)`` or ``(batch, 1)`` each; it may be empty
        - returns: ``(batch,)`` each, the masks

    Raises:
        ValueError: If there are no scores, ``k`` is not from 1 to the size of the whole batch, or all scores are NaN.
        TypeError: If the scores are not of one floating dtype, or ``k`` is not an integer.

    References:
        Sinha et al. 2020, "Top-k Training of GANs", section 3.1, whose batch is that of an update.

    Example:
        >>> first, second = distributed_top_k([torch.tensor([2.0, 1.0]), torch.tensor([0.0, 3.0, -1.0])], 3)
        >>> first.mask.tolist(), second.mask.tolist()
        ([True, True], [False, True, False])
        >>> round(first.share, 3), round(second.share, 3)
        (0.667, 0.333)
    """
    owner = "distributed_top_k"
    _check_scores(owner, scores)
    own = torch.cat([part.detach().reshape(-1) for part in scores])
    whole, start = _gather(own, process_group)
    mask = top_k_mask(whole, check_k(owner, k, whole.numel(), "the whole batch"))
    num_selected, num_nan = int(mask.sum()), int(whole.isnan().sum())
    if num_selected == 0:
        raise ValueError(f"{owner}: `scores` must hold at least one number, but got {num_nan} NaN.")
    masks = mask[start : start + own.numel()].split([part.numel() for part in scores])
    return tuple(TopKSelection(part, int(part.sum()) / num_selected, num_selected, num_nan) for part in masks)


def _check_scores(owner: str, scores: Sequence[Tensor]) -> None:
    if len(scores) == 0:
        raise bad_value(owner, "scores", "at least one tensor", scores)
    for part in scores:
        if not isinstance(part, Tensor):
            raise bad_kind(owner, "scores", "tensors", part)
        if not is_one_each(part):
            raise bad_shape(owner, "scores", "(batch,) or (batch, 1) each", part)
        if not part.is_floating_point() or part.dtype != scores[0].dtype:
            raise bad_dtype(owner, "scores", "floating point, the same in each", part)


def _gather(own: Tensor, group: "dist.ProcessGroup | None") -> tuple[Tensor, int]:
    """The scores of all processes by rank, and where this process's begin; the same bits in every process."""
    if not (dist.is_available() and dist.is_initialized()):
        return own, 0
    sizes = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, torch.tensor([own.numel()], device=own.device), group=group)
    counts = [int(size) for size in sizes]
    # Collectives take tensors of one size: pad to the largest, cut when they have arrived.
    padded = own.new_zeros(max(counts))
    padded[: own.numel()] = own
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded, group=group)
    whole = torch.cat([scores[:count] for scores, count in zip(gathered, counts, strict=True)])
    return whole, sum(counts[: dist.get_rank(group)])
