"""Layers whose weights start orthogonal and are normalized, as the papers have nearly all of theirs.

Tested in ``tests/blocks/test_layer_factories.py``.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from gan_blocks._checks import bad_kind, bad_value, check_initialized, check_module
from gan_blocks.layers.init import init_orthogonal_
from gan_blocks.spectral.normalization import spectral_norm

__all__ = ["normalize_layers", "normalized_layer"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)
OfLayer = Callable[[nn.Module], nn.Module]
LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding)


def normalized_layer(
    layer: Callable[..., nn.Module],
    *,
    normalize: OfLayer = spectral_norm,
    init: OfLayer | None = init_orthogonal_,
) -> Callable[..., nn.Module]:
    """Make a factory of layers that are initialized and then normalized, for ``conv_layer=`` and its like.

    The order matters: what normalizes a weight takes its first estimates from the values that are trained.

    Args:
        layer: Makes a layer, such as ``nn.Conv2d``; it gets whatever the factory is called with.
        normalize: Applied to each new layer. Spectral norm by default; ``partial(spectral_norm, eps=1e-6)`` has other
            settings.
        init: Applied before, in place. Orthogonal weights and biases of zero by default; None keeps those of ``layer``.

    Returns:
        The factory, called like ``layer``; it can be pickled if ``layer`` can.

    Raises:
        TypeError: If ``layer`` is a layer, not what makes one.

    References:
        Brock et al. 2018, section 3 and Appendix C; Miyato et al. 2018.

    Example:
        >>> from gan_blocks import ResidualDiscriminatorBlock
        >>> conv = normalized_layer(torch.nn.Conv2d)
        >>> weight = conv(3, 8, 3, padding=1).weight.flatten(1)  # every singular value is 1
        >>> torch.allclose(weight @ weight.T, torch.eye(8), atol=1e-3)
        True
        >>> block = ResidualDiscriminatorBlock(3, 8, conv_layer=conv)
    """
    if isinstance(layer, nn.Module) or not callable(layer):
        there = isinstance(layer, nn.Module)
        remedy = "Layers that are there already are normalized by normalize_layers." if there else ""
        raise bad_kind("normalized_layer", "layer", "a class or function that makes layers", layer, remedy)
    return partial(_make, layer, normalize, init)


def normalize_layers(
    model: ModuleT,
    *,
    normalize: OfLayer = spectral_norm,
    init: OfLayer | None = init_orthogonal_,
) -> ModuleT:
    """Initialize and normalize the convolutions, linear layers and embeddings of a model that is there, in place.

    Layers with a parametrized tensor, or a weight that a hook computes, stay as they are. So do those with a true
    attribute ``keeps_initial_values``: the tables of :class:`ClassConditionalBatchNorm2d`, which start at zero, and
    convolutions that ``zero_init_residual`` made zero.

    Args:
        model: The model, fresh: ``init`` draws its weights anew.
        normalize: Applied to each layer.
        init: Applied before, in place; None keeps the weights.

    Returns:
        ``model`` itself.

    Raises:
        ValueError: If the model has no such layer.
        RuntimeError: If a parameter of the model is not initialized; nothing has been changed then.

    Example:
        >>> model = normalize_layers(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)))
        >>> [round(torch.linalg.matrix_norm(model[i].weight, 2).item(), 3) for i in (0, 2)]
        [1.0, 1.0]
    """
    check_module("normalize_layers", "model", model)
    check_initialized("normalize_layers", "model", model)
    layers = [module for module in model.modules() if isinstance(module, LAYERS) and _is_to_normalize(module)]
    if not layers:
        rule = "a module with convolutions, linear layers or embeddings that are not parametrized"
        raise bad_value("normalize_layers", "model", rule, type(model).__name__)
    for layer in layers:
        _prepare(layer, normalize, init)
    return model


def _is_to_normalize(layer: nn.Module) -> bool:
    if is_parametrized(layer) or getattr(layer, "keeps_initial_values", False):
        return False
    return isinstance(layer._parameters.get("weight"), nn.Parameter)  # the hooks of torch.nn.utils replace it


def _make(
    layer: Callable[..., nn.Module], normalize: OfLayer, init: OfLayer | None, *args: object, **options: object
) -> nn.Module:
    return _prepare(layer(*args, **options), normalize, init)


def _prepare(layer: nn.Module, normalize: OfLayer, init: OfLayer | None) -> nn.Module:
    if init is not None:
        init(layer)
    return normalize(layer)
