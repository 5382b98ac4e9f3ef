"""Orthogonal initialization of whole models.

Tested in ``tests/layers/test_init.py``.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gan_blocks._checks import check_module, check_positive, check_real_floating

__all__ = ["init_orthogonal_"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def init_orthogonal_(module: ModuleT, *, gain: float = 1.0, generator: torch.Generator | None = None) -> ModuleT:
    r"""Make every weight of a model a random orthogonal matrix and every bias zero, in place.

    This is the orthogonal initialization of BigGAN and its kin. A parameter with two or more dimensions is read as the
    matrix W of shape (out, rest), torch's first dimension against all others, and drawn uniformly so that

    .. math:: W W^T = \text{gain}^2 I \;\text{ if out} \le \text{rest, and }\; W^T W = \text{gain}^2 I
        \;\text{ otherwise.}

    A parameter called ``bias`` (or ``bias_...``, ``..._bias``) becomes zero, whatever its dimensions. All other
    parameters with fewer than two dimensions keep their values: gains of normalization layers, the gamma of
    :class:`SelfAttention2d`. So do buffers, and parameters on the meta device, which have no values.
    Note that a transposed convolution stores (in, out, ...): there the rows are its inputs.

    Call it before :func:`spectral_norm`, or any other parametrization, is registered: those take their first
    estimates from the weights.

    Args:
        module: The model; its submodules are initialized too.
        gain: All non-zero singular values of each weight, greater than 0.
        generator: Source of the random draws, on the device of the parameters; None is torch's global one.

    Returns:
        ``module`` itself.

    Raises:
        ValueError: If ``gain`` is not greater than 0.
        TypeError: If a parameter is complex or not floating; nothing has been changed then.
        RuntimeError: If a tensor of the model is parametrized; nothing has been changed then.

    References:
        Saxe et al. 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks";
        Brock et al. 2018, section 3.

    Example:
        >>> layer = init_orthogonal_(torch.nn.Linear(3, 2, dtype=torch.float64))
        >>> torch.allclose(layer.weight @ layer.weight.T, torch.eye(2, dtype=torch.float64))
        True
        >>> layer.bias.tolist()
        [0.0, 0.0]
    """
    check_module("init_orthogonal_", "module", module)
    check_positive("init_orthogonal_", gain=gain)
    _check_not_parametrized(module)
    for name, parameter in module.named_parameters():
        check_real_floating("init_orthogonal_", name, parameter)
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            continue
        if "bias" in name.rpartition(".")[2].split("_"):
            nn.init.zeros_(parameter)
        elif parameter.dim() >= 2:
            _fill_orthogonal(parameter, gain, generator)
    return module


def _check_not_parametrized(module: nn.Module) -> None:
    for name, child in module.named_modules():
        if is_parametrized(child):
            tensors = ", ".join(f"{name}.{key}".lstrip(".") for key in child.parametrizations)
            raise RuntimeError(
                f"init_orthogonal_: `module` must not contain parametrized tensors, but got module with {tensors}. "
                "Initialize before spectral_norm or another parametrization is registered."
            )


@torch.no_grad()
def _fill_orthogonal(parameter: Tensor, gain: float, generator: torch.Generator | None) -> None:
    # The QR decomposition behind it does not exist in half precision, and torch's function needs contiguous memory.
    dtype = torch.float32 if parameter.dtype in (torch.float16, torch.bfloat16) else parameter.dtype
    draft = torch.empty_like(parameter, dtype=dtype, memory_format=torch.contiguous_format)
    parameter.copy_(nn.init.orthogonal_(draft, gain=gain, generator=generator))
