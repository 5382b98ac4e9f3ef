"""A penalty on the largest singular values of weights (Brock et al. 2018, section 4.1).

Tested in ``tests/spectral/test_regularization.py``.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from gan_blocks._checks import bad_value, check_module
from gan_blocks.spectral._bounds import bound_of, check_bound
from gan_blocks.spectral.parametrized import chain_input
from gan_blocks.spectral.registering import kind_of, trackers_of

__all__ = ["sigma_regularization"]


def sigma_regularization(model: nn.Module, *, target: float | None = None, ratio: float | None = None) -> Tensor:
    r"""Penalize the distance of each weight's largest singular value from a number, or a multiple of the second one.

    .. math:: R = \sum_l \big(\sigma_0^{(l)} - \sigma_{reg}\big)^2 \quad\text{or}\quad
        R = \sum_l \big(\sigma_0^{(l)} - r \cdot sg(\sigma_1^{(l)})\big)^2

    Add it to a loss with a weight of your own. The sum runs over the weights l with :func:`spectral_norm` or
    :func:`clamp_sigma`, which follow the singular values; where both are registered the first one counts, so the
    value is that of the raw weight, unless another parametrization precedes it. The gradient flows through
    :math:`\sigma_0` with u and v held constant, and not through :math:`\sigma_1`: the penalty must not raise that.
    To follow a weight without changing it, use ``clamp_sigma(layer, maximum=math.inf)``.

    **What the paper leaves open.** It regularizes "toward" the value; the square, the sum over layers, the pull
    from below as well as from above, and the raw weight (under spectral norm too) are our reading. It gives no
    coefficient.

    Calling it counts as a read of each weight.

    Args:
        model: Any module.
        target: The number :math:`\sigma_{reg}`, greater than 0.
        ratio: The ratio r, greater than 0. It needs ``num_singular_values`` of at least 2 in :func:`spectral_norm`;
            weights that have but one singular value are left out.

    Returns:
        The scalar penalty, at least 0.

    Shape:
        - returns: ``()``

    Raises:
        ValueError: If not exactly one of ``target`` and ``ratio`` is given, it is not greater than 0, no weight of the
            model is followed, or ``ratio`` meets a weight of which only one singular value is.

    References:
        Brock et al. 2018, section 4.1.

    Example:
        >>> from gan_blocks import sigma_regularization, spectral_norm
        >>> layer = torch.nn.Linear(2, 2, bias=False)
        >>> _ = layer.load_state_dict({"weight": torch.diag(torch.tensor([2.0, 5.0]))})
        >>> layer = spectral_norm(layer, num_singular_values=2, warmup_iterations=50)
        >>> sigma_regularization(layer, ratio=1.5).item()
        4.0
    """
    owner = "sigma_regularization"
    check_module(owner, "model", model)
    check_bound(owner, target=target, ratio=ratio)
    penalties = []
    for name, chain in model.named_modules():
        if not isinstance(chain, ParametrizationList) or not (trackers := trackers_of(chain)):
            continue
        index, tracker = trackers[0]
        if ratio is not None and tracker.num_singular_values == 1:
            if 1 in (tracker.u.shape[1], tracker.v.shape[1]):
                continue
            tensor = name.replace("parametrizations.", "")
            remedy = f"Register {tensor} with num_singular_values=2."
            raise bad_value(owner, "ratio", "used where two singular values are followed", ratio, remedy)
        tracker.expect_read()
        sigmas, *_ = tracker.estimate(chain_input(chain, index), 1 if ratio is None else 2)
        penalties.append((sigmas[0] - bound_of(sigmas, target, ratio)).square())
    if not penalties:
        remedy = "Register spectral_norm or clamp_sigma."
        raise bad_value(owner, "model", "a module whose singular values are followed", kind_of(model), remedy)
    return torch.stack(penalties).sum()
