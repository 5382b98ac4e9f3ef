"""Starting a new run from the weights of another, for ``--init-from``.

Tested in ``tests/engine/training/test_initial_weights.py``.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.weights import load_weights
from gan_blocks.engine.training.agreement import newest_checkpoint

__all__ = ["start_from"]


def start_from(state: TrainingState, path: Path, config: TrainingConfig) -> list[str]:
    """Copy the networks of another run into a fresh state; its optimizers stay fresh.

    With another class count, the layers that have a row for each class, and they alone, keep their fresh weights.

    Args:
        state: A fresh state of the same recipe.
        path: Folder of the other run; its newest sound checkpoint is taken.
        config: The new run's Config.

    Returns:
        What was taken and what was not, a sentence each, to show to the user.

    Raises:
        UserError: If there is no run, or its networks do not fit; the first keys and shapes that do not are named.
    """
    run = RunFolder.open(path)
    checkpoint = newest_checkpoint(run) or run.newest_checkpoint()  # which says that there is none
    run.check_unchanged(checkpoint)
    classes = (int(run.config().get("num_classes", 0)), config.num_classes)
    notes = [*checkpoint.notes, f"Starting from {checkpoint.path}, with fresh optimizers."]
    networks = {"generator": state.generator, "discriminator": state.discriminator, "ema": state.ema.module}
    for part, network in networks.items():
        if part not in checkpoint.tensors:
            notes.append(f"There is no {part} there: it starts from fresh weights.")
            continue
        renewed = _load(network, checkpoint.tensors[part], f"{part} of {path}", classes)
        if renewed and part != "ema":  # the average is the generator's copy
            counts = f"{classes[0]} classes there, {classes[1]} here"
            notes.append(f"{counts}: {', '.join(renewed)} of the {part} starts from fresh weights, all else is kept.")
    return notes


def _load(network: nn.Module, tensors: Mapping[str, Tensor], source: str, classes: tuple[int, int]) -> list[str]:
    """Load all but the tables of classes whose shape differs by the class count alone; returns their layers."""
    there, here = classes
    tables = {name: value for name, value in network.state_dict().items() if _is_class_table(network, name)}
    renewed = {
        _layer_and_tensor(name)[0]
        for name, value in tables.items()
        if name in tensors and _differs_by_its_classes_alone(tensors[name], value, there=there, here=here)
    }
    kept = {name: value for name, value in tables.items() if _layer_and_tensor(name)[0] in renewed}
    load_weights(network, {**tensors, **{name: kept[name] for name in kept if name in tensors}}, source)
    return sorted(renewed)


def _differs_by_its_classes_alone(saved: Tensor, fresh: Tensor, *, there: int, here: int) -> bool:
    """Whether one dimension is the count of classes, there and here, and all others agree."""
    if saved.dim() != fresh.dim():
        return False
    different = [pair for pair in zip(saved.shape, fresh.shape, strict=True) if pair[0] != pair[1]]
    return different == [(there, here)]


def _is_class_table(network: nn.Module, name: str) -> bool:
    """Whether a tensor has one row for each class: by the layer's ``class_tables``, or of one of torch's embeddings."""
    place, tensor = _layer_and_tensor(name)
    layer = network.get_submodule(place)
    return tensor in getattr(layer, "class_tables", ("weight",) if isinstance(layer, nn.Embedding) else ())


def _layer_and_tensor(name: str) -> tuple[str, str]:
    """The layer that an entry of a state dict belongs to, and which of its tensors that is or is made for."""
    layer, chain, rest = f".{name}".partition(".parametrizations.")
    if chain:
        return layer.removeprefix("."), rest.partition(".")[0]
    layer, _, tensor = name.rpartition(".")
    return layer, tensor
