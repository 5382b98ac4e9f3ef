"""Orthogonal regularization: rows of a weight that should be at right angles to one another.

A weight is read as a matrix W of shape (out, rest), so that its filters are the rows. Of W W^T and W^T W only the
smaller is ever formed: the first layer of a generator has tens of thousands of rows, and few columns.

Tested in ``tests/losses/test_orthogonal.py``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.nn.utils.weight_norm import WeightNorm

from gan_blocks._checks import bad_kind, bad_shape, bad_value, check_module, check_real_floating
from gan_blocks._precision import full_precision, wide_dtype

__all__ = [
    "off_diagonal_penalty",
    "orthogonal_penalty",
    "orthogonal_regularization",
]


def orthogonal_penalty(weight: Tensor) -> Tensor:
    r"""Squared distance of a weight's filters from an orthonormal set: equation 2, without its coefficient.

    .. math:: R(W) = \|W W^\top - I\|_F^2, \qquad \nabla R = 4\, (W W^\top - I)\, W

    It fixes the length of the filters at 1 besides their angles. :func:`off_diagonal_penalty` leaves the length alone,
    and is what the paper found to work best.

    The paper writes :math:`W^\top W`, with filters as columns; in torch's layout they are rows. With more rows than
    columns, the filters cannot be orthonormal, and R is at least their difference. The backward pass is the closed
    form above; it can itself be differentiated.

    Args:
        weight: W, dimension 0 against all others; computed in float32 or wider, also under autocast.

    Returns:
        The scalar penalty, at least 0 but for rounding, in float32 or the dtype of a wider ``weight``.

    Shape:
        - weight: ``(out, ...)``, at least two dimensions
        - returns: ``()``

    Raises:
        ValueError: If ``weight`` has fewer than two dimensions.

    References:
        Brock et al. 2018, section 3.1, equation 2; Brock et al. 2017, "Neural Photo Editing with Introspective
        Adversarial Networks".

    Example:
        >>> orthogonal_penalty(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).item()
        3.0
    """
    _check_matrix("orthogonal_penalty", weight)
    return _penalty(weight, unit_length=True)


def off_diagonal_penalty(weight: Tensor) -> Tensor:
    r"""Squared inner products of each two filters of a weight: equation 3, without its coefficient.

    .. math:: R(W) = \|W W^\top \odot (\mathbf{1} - I)\|_F^2 = \sum_{i \ne j} (w_i \cdot w_j)^2, \qquad
        \nabla R = 4\, \big(W W^\top \odot (\mathbf{1} - I)\big)\, W

    It is zero for filters at right angles, of any length. **Whose coefficient?** This is the paper's R, in which each
    pair counts twice; its coefficient :math:`\beta` is 1e-4. A widespread implementation adds
    :math:`2 \beta\, (W W^\top \odot (\mathbf{1} - I))\, W` to the gradient, which is that of
    :math:`\beta R / 2`: its 1e-4 is 5e-5 here.

    The paper writes :math:`W^\top W`, with filters as columns; in torch's layout they are rows. With more rows than
    columns the value is :math:`\|W^\top W\|_F^2 - \sum_i \|w_i\|^4`, so that the large matrix is never formed. The
    backward pass is the closed form above; it can itself be differentiated.

    Args:
        weight: W, dimension 0 against all others; computed in float32 or wider, also under autocast.

    Returns:
        The scalar penalty, at least 0 but for rounding, in float32 or the dtype of a wider ``weight``.

    Shape:
        - weight: ``(out, ...)``, at least two dimensions
        - returns: ``()``

    Raises:
        ValueError: If ``weight`` has fewer than two dimensions.

    References:
        Brock et al. 2018, section 3.1, equation 3.

    Example:
        >>> off_diagonal_penalty(torch.tensor([[1.0, 0.0], [3.0, 1.0]])).item()
        18.0
    """
    _check_matrix("off_diagonal_penalty", weight)
    return _penalty(weight, unit_length=False)


def orthogonal_regularization(
    model: nn.Module,
    *,
    penalty: Callable[[Tensor], Tensor] = off_diagonal_penalty,
    exclude: Iterable[nn.Module | Tensor] = (),
) -> Tensor:
    r"""Sum a penalty on the filters of a weight over all weights of a model.

    .. math:: R = \sum_l R(W_l)

    Add it to the loss with a coefficient of your own; the paper selects 1e-4, in G. Published code leaves out the
    shared class embedding. See :func:`off_diagonal_penalty` for what the coefficient means.

    A weight is a parameter with two or more dimensions that is not called ``bias`` (or ``bias_...``, ``..._bias``);
    one that several layers share counts once. The filters of a transposed convolution, which torch stores as
    (in, out, ...), are its output channels. A parametrized weight, such as a spectrally normalized one, counts as what
    the optimizer moves (``parametrizations.weight.original``); one that is made of several tensors, as by weight
    normalization, counts as the layer uses it.

    **What the paper leaves open.** That the raw weights are meant, not the spectrally normalized ones, is our reading:
    the released code does so.

    Args:
        model: Any module.
        penalty: What each weight contributes: :func:`off_diagonal_penalty` (equation 3), :func:`orthogonal_penalty`
            (equation 2), or a function like them.
        exclude: Modules to leave out, with all inside them, such as ``[generator.embedding]``, and parameters; of a
            parametrized weight, what the optimizer moves.

    Returns:
        The scalar sum, before any coefficient.

    Shape:
        - returns: ``()``

    Raises:
        ValueError: If a module or a tensor to exclude is not part of ``model``, or no weight is left.
        TypeError: If ``exclude`` is a single one.

    References:
        Brock et al. 2018, section 3.1 and Appendix I.

    Example:
        >>> layer = torch.nn.Linear(2, 2)
        >>> _ = layer.load_state_dict({"weight": torch.tensor([[1.0, 0.0], [3.0, 1.0]]), "bias": torch.ones(2)})
        >>> model = torch.nn.Sequential(torch.nn.Embedding(5, 3), layer)
        >>> orthogonal_regularization(model, exclude=[model[0]]).item()
        18.0
    """
    owner = "orthogonal_regularization"
    check_module(owner, "model", model)
    inside = list(model.modules())
    counted = _excluded(owner, model, inside, exclude)
    terms: list[Tensor] = []
    for module in inside:
        for source, groups in _weights_of(module):
            if id(source) not in counted:
                counted.add(id(source))
                # Filters of different groups see different channels, and are orthogonal whatever their values.
                terms.extend(map(penalty, groups))
    if not terms:
        raise bad_value(owner, "model", "a module with weights that are not excluded", type(model).__name__)
    return torch.stack(terms).sum()


def _excluded(
    owner: str, model: nn.Module, inside: Sequence[nn.Module], exclude: Iterable[nn.Module | Tensor]
) -> set[int]:
    """What is left out, by identity, since tensors compare by value."""
    if isinstance(exclude, (nn.Module, Tensor)):
        raise bad_kind(owner, "exclude", "a list of modules and parameters", exclude)
    parameters, found = {id(parameter) for parameter in model.parameters()}, set()
    for part in exclude:
        if isinstance(part, Tensor):
            if id(part) not in parameters:
                remedy = "Of a parametrized weight, name layer.parametrizations.weight.original."
                raise bad_value(owner, "exclude", "parameters of the model", tuple(part.shape), remedy)
            found.add(id(part))
        elif not any(part is other for other in inside):
            raise bad_value(owner, "exclude", "modules inside the model", type(part).__name__)
        else:
            found.update(id(source) for child in part.modules() for source, _ in _weights_of(child))
    return found


def _weights_of(module: nn.Module) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Yield each weight of one layer: a tensor that the optimizer moves, and the weight by group, filters first."""
    if isinstance(module, ParametrizationList):
        return  # its layer speaks for it
    weights = {name: (parameter, parameter) for name, parameter in module.named_parameters(recurse=False)}
    if is_parametrized(module):
        for name, chain in module.get_submodule("parametrizations").named_children():
            if sources := list(chain.parameters(recurse=False)):  # a buffer's chain has none
                weights[name] = (sources[0], getattr(module, name) if len(sources) > 1 else sources[0])
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):  # torch's older one
            del weights[f"{hook.name}_g"]
            weights[hook.name] = (weights.pop(f"{hook.name}_v")[0], hook.compute_weight(module))
    transposed = isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    num_groups = getattr(module, "groups", 1)
    for name, (source, weight) in weights.items():
        if weight.dim() >= 2 and "bias" not in name.split("_"):
            groups = weight.chunk(num_groups)
            yield source, tuple(group.transpose(0, 1) for group in groups) if transposed else groups


class _ClosedForm(torch.autograd.Function):
    """A penalty whose backward pass takes the product that the forward pass has made.

    What is to be saved has to be an output, where functional transforms are to see it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, unit_length: bool) -> tuple[Tensor, Tensor]:
        residual, matrix = _residual(weight, unit_length=unit_length), _matrix(weight)
        value = residual.square().sum()
        if _is_tall(matrix):
            # The larger product has the same non-zero eigenvalues; its diagonal is what differs.
            lengths = _squared_lengths(matrix)
            value = value + (len(matrix) - matrix.shape[1] if unit_length else -lengths.square().sum())
        return value, residual

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: tuple[Tensor, Tensor]) -> None:
        (weight, ctx.unit_length), (_, residual) = inputs, output
        ctx.mark_non_differentiable(residual)
        ctx.save_for_backward(weight, residual)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _of_residual: Tensor) -> tuple[Tensor, None]:
        weight, residual = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted, and what was saved has no history
            residual = _residual(weight, unit_length=ctx.unit_length)
        return grad.to(weight.dtype) * _gradient(weight, residual, unit_length=ctx.unit_length), None


def _penalty(weight: Tensor, *, unit_length: bool) -> Tensor:
    value: Tensor
    value, _ = _ClosedForm.apply(weight, unit_length)  # type: ignore[no-untyped-call]
    return value


def _residual(weight: Tensor, *, unit_length: bool) -> Tensor:
    """W W^T or W^T W, the smaller, less what equation 2 or 3 takes off its diagonal, if that is the smaller's too."""
    with full_precision(weight):
        matrix = _matrix(weight)
        gram = matrix.mT @ matrix if _is_tall(matrix) else matrix @ matrix.mT
        if unit_length:
            return gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        # Not in the gradient: what is subtracted there after the product leaves its rounding behind.
        return gram if _is_tall(matrix) else gram - gram.diagonal().diag()


def _gradient(weight: Tensor, residual: Tensor, *, unit_length: bool) -> Tensor:
    with full_precision(weight):
        matrix = _matrix(weight)
        product = matrix @ residual if _is_tall(matrix) else residual @ matrix
        if _is_tall(matrix) and not unit_length:
            product = product - _squared_lengths(matrix).unsqueeze(1) * matrix
        return (4 * product).reshape(weight.shape).to(weight.dtype)


def _matrix(weight: Tensor) -> Tensor:
    return weight.to(wide_dtype(weight)).flatten(1)


def _squared_lengths(matrix: Tensor) -> Tensor:
    return matrix.square().sum(1)


def _is_tall(matrix: Tensor) -> bool:
    return len(matrix) > matrix.shape[1]


def _check_matrix(owner: str, weight: Tensor) -> None:
    if weight.dim() < 2:
        raise bad_shape(owner, "weight", "(out, in, ...)", weight)
    check_real_floating(owner, "weight", weight)
