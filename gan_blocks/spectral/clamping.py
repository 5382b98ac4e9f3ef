"""The largest singular value of a weight clamped to a bound (Brock et al. 2018, equation 4).

Tested in ``tests/spectral/test_clamping.py``.
"""

import warnings
from typing import TypeVar

import torch
from torch import Tensor, nn

from gan_blocks._checks import bad_value
from gan_blocks._precision import full_precision
from gan_blocks.spectral._bounds import bound_of, check_bound
from gan_blocks.spectral.power_iteration import matrix_axes, to_weight
from gan_blocks.spectral.registering import default_dim, kind_of, register_tracker, tensor_to_track
from gan_blocks.spectral.tracking import SingularVectorTracker, matrix_shape

__all__ = ["SigmaClamp", "clamp_sigma"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)

# With the two that a ratio needs and one step an update, the clamped ratio of a small SN-GAN in training rose to 1.2.
FOLLOWED = 8


class SigmaClamp(SingularVectorTracker):
    r"""Lower the largest singular value of a weight to a bound; registered by :func:`clamp_sigma`.

    .. math:: \hat W = W - \max(0, \sigma_0 - \sigma_{clamp})\, u_0 v_0^\top, \qquad \sigma_i = u_i^\top W v_i

    The gradient flows through :math:`\sigma_0`, with u and v held constant, and not through
    :math:`\sigma_{clamp}`: where the clamp acts, no gradient is left along :math:`u_0 v_0^\top`. Computed in float32
    or wider, also under autocast, and returned in the dtype of the weight. Calling this module never changes u and v;
    reading the layer's tensor does so once per update, as :func:`spectral_norm` says.

    Args:
        weight: The weight to follow, with at least two dimensions; read as a matrix of shape (out, rest).
        maximum: The bound as a number, greater than 0.
        ratio: The bound as a multiple of the second singular value, greater than 0.
        num_singular_values: How many to follow, at least 1, or 2 with ``ratio``; None takes 8, or all where a weight
            has fewer.
        n_power_iterations: Steps of power iteration per update of the weight, at least 1.
        warmup_iterations: Steps from the random start, at least 0.
        dim: The dimension of ``weight`` that is "out".
        generator: Source of the random start; None takes torch's global one.

    Attributes:
        u: Left singular vectors, rows orthonormal, in float32 or wider.
        v: Right singular vectors.

    Shape:
        - u: ``(num_singular_values, out)``
        - v: ``(num_singular_values, rest)``
        - input and output: that of ``weight``

    Raises:
        ValueError: If not exactly one of ``maximum`` and ``ratio`` is given, or an argument is outside its range.

    References:
        Brock et al. 2018, equation 4 (which writes v u^T for the transposed weight).

    Example:
        >>> weight = torch.diag(torch.tensor([4.0, 2.0, 1.0]))
        >>> SigmaClamp(weight, maximum=3, warmup_iterations=50)(weight).diag().tolist()
        [3.0, 2.0, 1.0]
    """

    def __init__(
        self,
        weight: Tensor,
        *,
        maximum: float | None = None,
        ratio: float | None = None,
        num_singular_values: int | None = None,
        n_power_iterations: int = 1,
        warmup_iterations: int = 15,
        dim: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        check_bound("SigmaClamp", maximum=maximum, ratio=ratio)
        if num_singular_values is None:
            num_singular_values = min(FOLLOWED, *matrix_shape("SigmaClamp", weight, dim))
        if ratio is not None and num_singular_values < 2:
            raise bad_value("SigmaClamp", "num_singular_values", "at least 2 with `ratio`", num_singular_values)
        super().__init__(
            weight,
            num_singular_values=num_singular_values,
            n_power_iterations=n_power_iterations,
            warmup_iterations=warmup_iterations,
            dim=dim,
            generator=generator,
        )
        self.maximum = maximum
        self.ratio = ratio

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with its largest singular value lowered to the bound."""
        with full_precision(weight):
            sigmas, u, v = self.estimate(weight, 1 if self.ratio is None else 2)
            bound = bound_of(sigmas, self.maximum, self.ratio)
            # Not relu: an infinite ratio of a zero weight would be NaN.
            excess = torch.where(sigmas[0] > bound, sigmas[0] - bound, 0.0)
            correction = to_weight(excess * torch.outer(u[0], v[0]), weight, matrix_axes(weight, self.dim))
            return (weight - correction).to(weight.dtype)

    def extra_repr(self) -> str:
        """Show the settings."""
        bound = f"maximum={self.maximum}" if self.ratio is None else f"ratio={self.ratio}"
        return f"{bound}, {super().extra_repr()}"


def clamp_sigma(
    module: ModuleT,
    name: str = "weight",
    *,
    maximum: float | None = None,
    ratio: float | None = None,
    num_singular_values: int | None = None,
    n_power_iterations: int = 1,
    warmup_iterations: int = 15,
    dim: int | None = None,
    generator: torch.Generator | None = None,
) -> ModuleT:
    r"""Clamp the largest singular value of a layer's weight, to a number or to a multiple of the second one.

    .. math:: \hat W = W - \max(0, \sigma_0 - \sigma_{clamp})\, u_0 v_0^\top, \qquad
        \sigma_{clamp} = \sigma_{reg} \;\text{ or }\; r \cdot sg(\sigma_1)

    The other singular values stay as they are, also when the bound is below the second one. The singular vectors
    are followed by power iteration and advance as those of :func:`spectral_norm` do, once per update of the weight:
    :func:`advance_power_iteration` and :func:`frozen_power_iteration` act on both. The clamp is as sharp as they are
    exact, and takes them as constants for the gradient. Orthogonal weights start with all singular values alike, and
    training raises now one direction, now another: so more are followed than the clamp needs, and the next to lead
    is known before it leads.

    **With spectral norm.** What is registered first acts first. Clamp, then normalize: the raw weight is clamped, as
    in the paper. Normalize, then clamp: the normalized weight is clamped, so ``maximum`` is relative to a largest
    singular value of 1, and with ``ratio`` the result has one below 1 where the clamp acts.

    A weight with a single singular value has no second one: with ``ratio`` its layer is left alone, with a warning.

    Args:
        module: Any layer; it must be initialized before.
        name: The parameter to clamp. Other parametrizations registered on it earlier act first.
        maximum: The bound :math:`\sigma_{reg}`, greater than 0. Infinity never clamps: it only follows the value, for
            :func:`sigma_regularization`.
        ratio: The bound's ratio r to the second singular value, greater than 0.
        num_singular_values: How many to follow, at least 1, or 2 with ``ratio``; None takes 8, or all where a weight
            has fewer.
        n_power_iterations: Steps of power iteration per update of the weight, at least 1.
        warmup_iterations: Steps from the random start, at least 0; on the meta device they are taken at the first read.
        dim: The dimension that is "out"; None takes 1 for transposed convolutions, else 0.
        generator: Source of the random start; None takes torch's global one.

    Returns:
        ``module`` itself. Its state dict has ``parametrizations.weight.original`` for ``weight``, and
        ``parametrizations.weight.0.u`` and ``.v`` with a row for each value that is followed.

    Raises:
        ValueError: If not exactly one of ``maximum`` and ``ratio`` is given, the module has no such parameter, it has
            fewer than two dimensions or is clamped already, or another argument is outside its range.

    References:
        Brock et al. 2018, section 4.1 and equation 4. They found that no bound, with or without spectral norm, keeps
        training from collapsing.

    Example:
        >>> layer = torch.nn.Linear(2, 2, bias=False)
        >>> _ = layer.load_state_dict({"weight": torch.diag(torch.tensor([2.0, 5.0]))})
        >>> clamp_sigma(layer, ratio=1.5, warmup_iterations=50).weight.diag().tolist()
        [2.0, 3.0]
    """
    weight = tensor_to_track("clamp_sigma", module, name, SigmaClamp)
    check_bound("clamp_sigma", maximum=maximum, ratio=ratio)
    dim = default_dim(module) if dim is None else dim
    if ratio is not None and 1 in matrix_shape("clamp_sigma", weight, dim):
        message = f"clamp_sigma: `{name}` of {kind_of(module)} has one singular value; it is left alone with `ratio`."
        warnings.warn(message, stacklevel=2)
        return module
    tracker = SigmaClamp(
        weight,
        maximum=maximum,
        ratio=ratio,
        num_singular_values=num_singular_values,
        n_power_iterations=n_power_iterations,
        warmup_iterations=warmup_iterations,
        dim=dim,
        generator=generator,
    )
    register_tracker(module, name, tracker)
    return module
