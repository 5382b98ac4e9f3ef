"""Reading the parametrizations of a layer.

Tested in ``tests/spectral/test_parametrized.py``.
"""

from itertools import islice

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

__all__ = ["chain_input", "chains_in", "chains_of", "modules_in", "sources_of"]


def chains_of(module: nn.Module) -> dict[str, ParametrizationList]:
    """Return the parametrizations of each parametrized tensor of one layer."""
    if not is_parametrized(module):
        return {}
    chains = module.get_submodule("parametrizations").named_children()
    return {name: chain for name, chain in chains if isinstance(chain, ParametrizationList)}


def modules_in(model: nn.Module) -> list[nn.Module]:
    """Return what ``model.modules()`` gives, in a fifth of the time, for what happens at every update."""
    found, todo = dict[int, nn.Module](), [model]
    while todo:
        module = todo.pop()
        if id(module) not in found:
            found[id(module)] = module
            todo += [child for child in reversed(module._modules.values()) if child is not None]
    return list(found.values())


def chains_in(model: nn.Module) -> list[ParametrizationList]:
    """Return the parametrizations of all tensors of a model, in the order of its modules."""
    return [module for module in modules_in(model) if isinstance(module, ParametrizationList)]


def chain_input(chain: ParametrizationList, index: int) -> Tensor:
    """Return the tensor that the parametrization at ``index`` is given: the output of those before it.

    What is in shards is gathered, which each process has to ask for.
    """
    weight, *others = (
        source.full_tensor() if hasattr(source, "full_tensor") else source for source in _originals(chain)
    )
    for position, module in enumerate(islice(chain, index)):
        weight = module(weight, *others) if position == 0 else module(weight)
    return weight


def sources_of(chain: ParametrizationList, index: int) -> list[Tensor]:
    """Return the tensors that an optimizer moves and the parametrization at ``index`` is made from."""
    sources = _originals(chain)
    for module in islice(chain, index):
        sources += module.parameters()
    return sources


def _originals(chain: ParametrizationList) -> list[Tensor]:
    if chain.is_tensor:
        return [chain.original]
    return [getattr(chain, f"original{index}") for index in range(chain.ntensors)]
