"""What holds a Wasserstein critic besides its gradient penalty: the level of its outputs, the size of its weights.

Tested in ``tests/losses/test_wasserstein.py``.
"""

import torch
from torch import Tensor, nn

from gan_blocks._checks import check_module, check_positive
from gan_blocks.losses._logits import Logits, wide_scales_of

__all__ = ["clip_weights_", "drift_penalty"]


def drift_penalty(*, real_logits: Logits, coefficient: float = 0.001) -> Tensor:
    r"""Keep the outputs of a Wasserstein critic, whose loss does not know their level, from drifting away from zero.

    .. math:: P = \epsilon_{drift}\, \frac{1}{n}\sum_i D(x_i)^2

    Args:
        real_logits: Outputs of the critic on real images, and only on those; the penalties of several scales are added.
        coefficient: The strength :math:`\epsilon_{drift}`, greater than 0.

    Returns:
        The scalar penalty, at least 0, for the critic's loss, in float32 or the dtype of wider logits.

    Shape:
        - real_logits: ``(...)``, or several of any shape
        - returns: ``()``

    Raises:
        ValueError: If the batch is empty, or ``coefficient`` is not greater than 0.

    References:
        Karras et al. 2018, Appendix A.1.

    Example:
        >>> drift_penalty(real_logits=torch.tensor([10.0, 20.0]), coefficient=0.5).item()
        125.0
    """
    check_positive("drift_penalty", coefficient=coefficient)
    first, *others = (scale.square().mean() for scale in wide_scales_of("drift_penalty", "real_logits", real_logits))
    return coefficient * sum(others, first)


@torch.no_grad()
def clip_weights_(model: nn.Module, *, bound: float = 0.01) -> None:
    r"""Clip every parameter of a critic to an interval around zero, in place, after an update.

    .. math:: w \leftarrow \max(-c, \min(c, w))

    It bounds the critic's slope in the first Wasserstein GAN; :func:`gradient_penalty` is what replaced it. All
    parameters are clipped, biases too. Where a weight is parametrized, that is what the optimizer moves.

    Args:
        model: The critic.
        bound: The bound c, greater than 0.

    Raises:
        ValueError: If ``bound`` is not greater than 0.

    References:
        Arjovsky et al. 2017, "Wasserstein GAN", algorithm 1.

    Example:
        >>> critic = torch.nn.Linear(3, 1)
        >>> clip_weights_(critic, bound=0.01)
        >>> critic.weight.abs().max().item() <= 0.01
        True
    """
    check_module("clip_weights_", "model", model)
    check_positive("clip_weights_", bound=bound)
    for parameter in model.parameters():
        parameter.clamp_(-bound, bound)
