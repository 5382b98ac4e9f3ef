"""Top-k training: the generator learns from the samples of a batch that the discriminator scores highest.

Tested in ``tests/losses/test_top_k.py``.
"""

import operator

import torch
from torch import Tensor

from gan_blocks._checks import bad_dtype, bad_kind, bad_shape, bad_value

__all__ = ["bottom_k_mask", "select_top_k", "select_top_k_pairs", "top_k_mask"]


def top_k_mask(fake_logits: Tensor, k: int) -> Tensor:
    r"""Mark the k samples of a batch that the discriminator scores highest.

    Exactly k are marked, whatever the ties: among equal scores, the lowest index comes first. NaN is no score: such
    samples are never marked, and where fewer than k others are left, all of those are; how many there are is
    ``fake_logits.isnan().sum()``. No gradient flows through the choice, and nothing waits for the device.

    Args:
        fake_logits: Outputs of the discriminator on generated images, of any floating dtype; larger means more real.
        k: How many to mark, from 1 to batch.

    Returns:
        True for the samples to learn from, of dtype bool.

    Shape:
        - fake_logits: ``(batch,)`` or ``(batch, 1)``
        - returns: same as ``fake_logits``

    Raises:
        ValueError: If there is not one output for each sample, the batch is empty, or ``k`` is not from 1 to batch.
        TypeError: If ``fake_logits`` is not floating point, or ``k`` is not an integer.

    References:
        Sinha et al. 2020, "Top-k Training of GANs", section 3.1.

    Example:
        >>> top_k_mask(torch.tensor([0.5, -1.0, 2.0, 0.5]), 2).tolist()
        [True, False, True, False]
    """
    k = _check("top_k_mask", "fake_logits", fake_logits, k)
    scores = fake_logits.detach().reshape(-1)
    # NaN would count as the largest. As the smallest it can tie with -inf, but no comparison below holds for it.
    threshold = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).topk(k, sorted=True).values[-1]
    above, level = scores > threshold, scores == threshold
    return (above | (level & (level.cumsum(dim=0) <= k - above.sum()))).reshape(fake_logits.shape)


def select_top_k(fake_logits: Tensor, k: int) -> Tensor:
    r"""Keep the k highest outputs of the discriminator, for any loss of the generator.

    .. math:: L_G = \ell\big(\max\nolimits_k\{D(G(z_j))\}\big)

    where :math:`\ell` is the loss that the generator has anyway, such as :func:`hinge_generator_loss`, which averages
    over the samples that it is given. The gradient is zero for every dropped sample. The outputs keep their order, so
    that with k equal to the batch the loss is the plain one to the last bit. Which are kept is what
    :func:`top_k_mask` says; a batch over several processes or micro-batches needs :func:`distributed_top_k`.

    Args:
        fake_logits: Outputs of the discriminator on generated images, of any floating dtype; larger means more real.
        k: How many to keep, from 1 to batch; :class:`TopKSchedule` anneals it.

    Returns:
        The kept outputs; fewer than k where more than batch - k of them are NaN.

    Shape:
        - fake_logits: ``(batch,)`` or ``(batch, 1)``
        - returns: ``(k,)``

    Raises:
        ValueError: If there is not one output for each sample, the batch is empty, ``k`` is not from 1 to batch, or all
            outputs are NaN.
        TypeError: If ``fake_logits`` is not floating point, or ``k`` is not an integer.

    References:
        Sinha et al. 2020, "Top-k Training of GANs", sections 3.1 and 3.3.

    Example:
        >>> from gan_blocks import hinge_generator_loss
        >>> fake_logits = torch.tensor([0.5, -1.0, 2.0, 0.25], requires_grad=True)
        >>> hinge_generator_loss(fake_logits=select_top_k(fake_logits, 2)).backward()
        >>> fake_logits.grad.tolist()
        [-0.5, 0.0, -0.5, 0.0]
    """
    return _select("select_top_k", "fake_logits", fake_logits, k)


def bottom_k_mask(fake_logits: Tensor, k: int) -> Tensor:
    """Mark the k samples of a batch that the discriminator scores lowest; for study only.

    It breaks training: updates from the worst samples push samples away from the mode that they are nearest to, even
    those that were close (section 4.3 and Figures 2 to 4, which this is for). Ties and NaN as in :func:`top_k_mask`.

    Args:
        fake_logits: Outputs of the discriminator on generated images, of any floating dtype; larger means more real.
        k: How many to mark, from 1 to batch.

    Returns:
        True for the samples with the lowest scores, of dtype bool.

    Shape:
        - fake_logits: ``(batch,)`` or ``(batch, 1)``
        - returns: same as ``fake_logits``

    Raises:
        ValueError: If there is not one output for each sample, the batch is empty, or ``k`` is not from 1 to batch.
        TypeError: If ``fake_logits`` is not floating point, or ``k`` is not an integer.

    References:
        Sinha et al. 2020, "Top-k Training of GANs", section 4.3.

    Example:
        >>> bottom_k_mask(torch.tensor([0.5, -1.0, 2.0, 0.5]), 2).tolist()
        [True, True, False, False]
    """
    k = _check("bottom_k_mask", "fake_logits", fake_logits, k)
    return top_k_mask(-fake_logits, k)


def select_top_k_pairs(*, real_logits: Tensor, fake_logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Keep the k highest outputs on real and on generated images for the discriminator's loss; for study only.

    It breaks training (section 6.1): in Table 5 the FID of SA-GAN rises from 17.93 to 27.44. The discriminator then
    looks only at the modes that the generator has learned already, so that the generator never hears of the others.
    The method leaves the discriminator's update alone.

    Differences from the paper: it does not say which batch of the discriminator is reduced. Its equation 1 and its
    explanation speak of the real one, so both are here; for only the generated one, give :func:`select_top_k`'s
    result to the loss beside the whole ``real_logits``.

    Args:
        real_logits: Outputs of the discriminator on real images, of any floating dtype; larger means more real.
        fake_logits: Its outputs on generated images.
        k: How many of each to keep, from 1 to the smaller batch.

    Returns:
        The kept outputs on real and on generated images; ties and NaN as in :func:`select_top_k`.

    Shape:
        - real_logits: ``(batch,)`` or ``(batch, 1)``
        - fake_logits: ``(batch',)`` or ``(batch', 1)``
        - returns: ``(k,)`` and ``(k,)``

    Raises:
        ValueError: If a batch has not one output for each sample or is empty, ``k`` is outside it, or all its outputs
            are NaN.
        TypeError: If a batch is not floating point, or ``k`` is not an integer.

    References:
        Sinha et al. 2020, "Top-k Training of GANs", section 6.1 and Table 5.

    Example:
        >>> real_logits, fake_logits = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([-1.0, 0.5])
        >>> [kept.tolist() for kept in select_top_k_pairs(real_logits=real_logits, fake_logits=fake_logits, k=1)]
        [[3.0], [0.5]]
    """
    owner = "select_top_k_pairs"
    return _select(owner, "real_logits", real_logits, k), _select(owner, "fake_logits", fake_logits, k)


def _select(owner: str, name: str, logits: Tensor, k: int) -> Tensor:
    kept = logits[top_k_mask(logits, _check(owner, name, logits, k))]
    if kept.numel() == 0:
        raise ValueError(f"{owner}: `{name}` must hold at least one number, but got {logits.numel()} NaN.")
    return kept


def _check(owner: str, name: str, logits: Tensor, k: int) -> int:
    """Check both and return k as Python's integer."""
    if not isinstance(logits, Tensor):
        raise bad_kind(owner, name, "a tensor", logits)
    if not is_one_each(logits) or len(logits) == 0:
        raise bad_shape(owner, name, "(batch,) or (batch, 1) with at least one sample", logits)
    if not logits.is_floating_point():
        raise bad_dtype(owner, name, "floating point", logits)
    return check_k(owner, k, len(logits), "the batch")


def is_one_each(logits: Tensor) -> bool:
    """Whether there is one number for each sample, ``(batch,)`` or ``(batch, 1)``."""
    return logits.dim() in (1, 2) and logits.shape[1:].numel() == 1


def check_k(owner: str, k: int, size: int, batch: str) -> int:
    """Return k, an integer of any kind from 1 to ``size``, as Python's; ``batch`` says what has this size."""
    try:
        number = operator.index(k)
    except TypeError:
        number = None
    truth = isinstance(k, bool) or (isinstance(k, Tensor) and k.dtype == torch.bool)
    if number is None or truth:
        raise bad_kind(owner, "k", "an integer", k, remedy="A schedule's k is kept real and floored when it is used.")
    if not 1 <= number <= size:
        raise bad_value(owner, "k", f"from 1 to {batch} of {size}", number)
    return number
