"""State of an optimizer as named tensors, so that it needs no pickle and survives a reordering of parameters.

Tested in ``tests/engine/runs/test_optimizers.py``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn, optim

from gan_blocks.engine.runs.weights import mismatch_error

__all__ = ["flatten_optimizer", "restore_optimizer"]

# Marks a parameter that was never updated, so that lost state can be told from state that never was.
NO_STATE = "no_state"


# What torch's optimizers keep for every weight of a parameter; other entries may have shapes of their own.
_OF_EVERY_WEIGHT = frozenset(
    (
        "acc_delta",
        "exp_avg",
        "exp_avg_sq",
        "exp_inf",
        "grad_avg",
        "max_exp_avg_sq",
        "momentum_buffer",
        "square_avg",
        "sum",
    )
)


def flatten_optimizer(optimizer: optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Name each state tensor after its parameter: ``conv.weight.exp_avg``, ``conv.weight.step``.

    A parameter that was never updated gives an empty ``NAME.no_state``. Learning rates and the like are not included:
    they come from the Config.

    Args:
        optimizer: Any whose state is a tensor for each name, such as Adam, Adafactor, RMSprop or SGD.
        model: Owns all of the optimizer's parameters.

    Raises:
        ValueError: If the optimizer has a parameter that the model has not.
    """
    flat: dict[str, Tensor] = {}
    for name, parameter in _named_parameters(optimizer, model).items():
        state = {key: value for key, value in optimizer.state.get(parameter, {}).items() if value is not None}
        flat |= {f"{name}.{key}": value for key, value in (state or {NO_STATE: torch.empty(0)}).items()}
    return flat


def restore_optimizer(
    optimizer: optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], source: str = "the optimizer's state"
) -> None:
    """Give an optimizer the state that :func:`flatten_optimizer` took from another, bit for bit.

    Args:
        optimizer: Built as the other was; it keeps its own learning rates and the like.
        model: Owns all of the optimizer's parameters.
        tensors: The saved state; each parameter may have other names, as Adafactor's have by their shapes.
        source: What the tensors are, for the error.

    Raises:
        UserError: If there is nothing of a parameter, or something of another, or a moment has another shape than its
            parameter; the first ten of each kind are named.
        ValueError: If the optimizer has a parameter that the model has not.
    """
    parameters = _named_parameters(optimizer, model)
    saved = _group_by_parameter(tensors)
    _check_fit(saved, parameters, source)
    states = [
        {key: _like_parameter(value, parameter) for key, value in saved[name].items() if key != NO_STATE}
        for name, parameter in parameters.items()
    ]
    # torch's own numbering: parameters in the order of the groups, which is the order of `parameters`.
    numbered = {index: state for index, state in enumerate(states) if state}
    optimizer.load_state_dict({"state": numbered, "param_groups": optimizer.state_dict()["param_groups"]})


def _named_parameters(optimizer: optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    strangers = sum(parameter not in names for parameter in parameters)
    if strangers:
        raise ValueError(f"`model` must own all parameters of the optimizer, but got {strangers} that are not its own.")
    return {names[parameter]: parameter for parameter in parameters}


def _group_by_parameter(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        parameter, _, key = name.rpartition(".")
        grouped.setdefault(parameter, {})[key] = value
    return grouped


def _check_fit(saved: dict[str, dict[str, Tensor]], parameters: dict[str, Tensor], source: str) -> None:
    keys = {key for state in saved.values() for key in state if key != NO_STATE} or {NO_STATE}
    missing = [f"{name}.{key}" for name in parameters if name not in saved for key in keys]
    unexpected = [f"{name}.{key}" for name in saved.keys() - parameters.keys() for key in saved[name]]
    shapes = [
        f"{name}.{key} {tuple(value.shape)} instead of {tuple(parameters[name].shape)}"
        for name in saved.keys() & parameters.keys()
        for key, value in saved[name].items()
        if key in _OF_EVERY_WEIGHT and value.shape != parameters[name].shape
    ]
    if missing or unexpected or shapes:
        raise mismatch_error(source, missing, unexpected, sorted(shapes))


def _like_parameter(value: Tensor, parameter: Tensor) -> Tensor:
    if value.shape != parameter.shape:
        return value.clone()
    # Fused kernels walk through parameter and state side by side in memory: the strides must agree, or
    # a channels_last parameter would be updated with another element's moments.
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
