"""The gradients by which an optimizer has taken its last step; an update leaves none behind."""

from functools import partial
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from gan_blocks.engine.recipe.state import TrainingState

_KEPT = WeakKeyDictionary[nn.Module, dict[str, Tensor]]()


def keep_gradients(state: TrainingState) -> None:
    """From now on keep those of both networks."""
    for network, optimizer in (
        (state.generator, state.optimizer_g),
        (state.discriminator, state.optimizer_d),
    ):
        optimizer.register_step_pre_hook(partial(_keep, network))


def kept_gradients(network: nn.Module) -> dict[str, Tensor]:
    """Those of a network that has been updated, by the names of its parameters."""
    return _KEPT[network]


def _keep(network: nn.Module, *_: object) -> None:
    named = network.named_parameters()
    _KEPT[network] = {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}
