"""Orthogonal initialization of whole models.

Tested in ``tests/layers/test_init.py``.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from gan_blocks._checks import check_initialized, check_module, check_positive, check_real_floating
from gan_blocks._precision import wide_dtype

__all__ = ["init_orthogonal_"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def init_orthogonal_(module: ModuleT, *, gain: float = 1.0, generator: torch.Generator | None = None) -> ModuleT:
    r"""Make every weight of a model a random orthogonal matrix and every bias zero, in place.

    This is the orthogonal initialization of BigGAN and its kin. A parameter with two or more dimensions is read as the
    matrix W of shape (out, rest), torch's first dimension against all others, and drawn uniformly so that

    .. math:: W W^T = \text{gain}^2 I \;\text{ if out} \le \text{rest, and }\; W^T W = \text{gain}^2 I
        \;\text{ otherwise.}

    Note that a transposed convolution stores (in, out, ...): there the rows are its inputs. A parameter called ``bias``
    (or ``bias_...``, ``..._bias``) becomes zero, whatever its dimensions. Of the others, these keep their values:

    - parameters with fewer than two dimensions, such as gains of normalization layers and the gamma of
      :class:`SelfAttention2d`; and the gains of ``nn.LayerNorm`` and ``nn.RMSNorm``, whatever their dimensions;
    - those of a module with a true attribute ``keeps_initial_values``: the map of :class:`LearnedConstant2d`, the
      tables of :class:`ClassConditionalBatchNorm2d`, convolutions that ``zero_init_residual`` made zero;
    - the row of zeros at an embedding's ``padding_idx``: the others are drawn;
    - buffers, and parameters on the meta device, which have no values.

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
        RuntimeError: If a tensor of the model is parametrized or not initialized; nothing has been changed then.

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
    check_initialized("init_orthogonal_", "module", module)
    for name, parameter in module.named_parameters():
        check_real_floating("init_orthogonal_", name, parameter)
    for name, parameter in module.named_parameters():
        path, _, key = name.rpartition(".")
        owner = module.get_submodule(path)
        if parameter.is_meta:
            continue
        if "bias" in key.split("_"):
            nn.init.zeros_(parameter)
        elif parameter.dim() >= 2 and not _keeps_values(owner):
            zero_row = owner.padding_idx if isinstance(owner, (nn.Embedding, nn.EmbeddingBag)) else None
            _fill_orthogonal(parameter, gain, generator, zero_row=zero_row)
    return module


def _keeps_values(module: nn.Module) -> bool:
    return isinstance(module, (nn.LayerNorm, nn.RMSNorm)) or getattr(module, "keeps_initial_values", False)


def _check_not_parametrized(module: nn.Module) -> None:
    for name, child in module.named_modules():
        hooks = [hook for hook in child._forward_pre_hooks.values() if isinstance(hook, (SpectralNorm, WeightNorm))]
        keys = [*(child.parametrizations if is_parametrized(child) else ()), *(hook.name for hook in hooks)]
        if keys:
            tensors = ", ".join(f"{name}.{key}".lstrip(".") for key in keys)
            raise RuntimeError(
                f"init_orthogonal_: `module` must not contain parametrized tensors, but got module with {tensors}. "
                "Initialize before spectral_norm or another parametrization is registered."
            )


@torch.no_grad()
def _fill_orthogonal(
    parameter: Tensor, gain: float, generator: torch.Generator | None, *, zero_row: int | None = None
) -> None:
    # The QR decomposition behind it does not exist in half precision, and torch's function needs contiguous memory.
    rows = parameter if zero_row is None else parameter[1:]
    draft = torch.empty_like(rows, dtype=wide_dtype(parameter), memory_format=torch.contiguous_format)
    nn.init.orthogonal_(draft, gain=gain, generator=generator)
    if zero_row is not None:
        draft = torch.cat([draft[:zero_row], draft.new_zeros(1, *draft.shape[1:]), draft[zero_row:]])
    parameter.copy_(draft)
