"""How much memory the activations of a network take while autograd waits for the backward pass.

Tested in ``tests/engine/inspection/test_activation_memory.py``.
"""

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from gan_blocks.engine.inspection.dry_run import DryRun

__all__ = ["activation_bytes"]


def activation_bytes(module: nn.Module, one: tuple[Tensor, ...]) -> int:
    """Bytes that one more sample makes autograd keep: what grows with the batch, not what normalized weights take.

    A tensor counts once however many operations keep it, with all the storage that it is a view of.

    Args:
        module: The network, on the meta device.
        one: Its positional arguments for a batch of one; the first axis of each is the batch.

    Example:
        >>> with torch.device("meta"):  # each layer keeps its input, ReLU its output, which is an input
        ...     network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
        ...     activation_bytes(network, (torch.empty(1, 3),)) // 4
        8
    """
    two = tuple(torch.cat([value, value]) for value in one)
    return _kept_bytes(module, two) - _kept_bytes(module, one)


def _kept_bytes(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    own = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no later one takes over its number

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with DryRun(), torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        module(*inputs)
    return sum(storage.nbytes() for storage in kept.values())
