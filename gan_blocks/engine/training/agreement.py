"""What processes that train together must have in common: how they were started, and every number of their state.

Tested in ``tests/engine/base/test_processes.py``.
"""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.processes import current_world, main_rank_only
from gan_blocks.engine.data.record import DataRecord, unlike
from gan_blocks.engine.recipe.config import config_to_json
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.training.command import TrainingCommand

__all__ = [
    "check_same_data",
    "check_same_start",
    "check_same_state",
    "code_version",
    "first_difference",
    "start_settings",
]


def start_settings(recipe: Recipe[Any], command: TrainingCommand) -> dict[str, Any]:
    """What must be the same in all processes, by the name that the user knows."""
    fields = {**config_to_json(command.config), **vars(command.options)}
    del fields["device"], fields["threads"]  # each process has its own device, and threads change last bits only
    named = {f"--{name.replace('_', '-')}": value for name, value in fields.items()}
    run = None if command.run is None else str(command.run.path)
    versions = {"torch": torch.__version__, "code (gan_blocks and the recipe)": code_version(recipe)}
    return {"preset": command.preset, **named, "run": run, **versions}


def check_same_start(recipe: Recipe[Any], command: TrainingCommand) -> None:
    """Compare Config, options and versions of all processes.

    Raises:
        UserError: If one differs; the first is named.
    """
    if current_world().size == 1:
        return
    everyone: list[Mapping[str, Any]] = [{}] * current_world().size
    dist.all_gather_object(everyone, start_settings(recipe, command))
    if difference := first_difference(everyone):
        raise main_rank_only(UserError(f"the processes were started differently: {difference}."))


def check_same_data(record: DataRecord) -> None:
    """Compare the images that all processes have read.

    Raises:
        UserError: If those of one are others than those of rank 0.
    """
    if current_world().size == 1:
        return
    everyone: list[Any] = [None] * current_world().size
    dist.all_gather_object(everyone, record)
    if difference := unlike(everyone):
        raise main_rank_only(UserError(f"the processes read different data under one name: {difference}."))


def first_difference(everyone: list[Mapping[str, Any]]) -> str | None:
    """The first setting in which a rank differs from rank 0, or None."""
    for name in everyone[0]:
        for rank, settings in enumerate(everyone):
            if settings.get(name) != everyone[0][name]:
                return f"{name} is {everyone[0][name]} in rank 0 but {settings.get(name)} in rank {rank}"
    return None


def code_version(recipe: Recipe[Any]) -> str:
    """A hash of the source of gan_blocks and of the recipe's own package, or of its file where it has none."""
    digest = hashlib.blake2b(digest_size=6)
    identity = recipe.identity
    package = identity.reference.partition(".")[0]
    for name in dict.fromkeys(["gan_blocks", *([] if identity.file else [package])]):
        root = Path(sys.modules[name].__path__[0])  # a package without an __init__.py has no __file__
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest() if identity.file is None else f"{digest.hexdigest()}-{identity.sha256}"


def check_same_state(tensors: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
    """Compare a sum of the bits of every tensor with that of the other processes.

    Args:
        tensors: The state, by file name and name.
        step: The step after which this is.

    Raises:
        UserError: If a tensor differs; the first one is named.
    """
    if current_world().size == 1:
        return
    named = {f"{part}/{name}": tensor for part, group in tensors.items() for name, tensor in group.items()}
    own = torch.stack([_sum_of_bits(tensor) for tensor in named.values()]).cpu()
    everyone = [torch.empty_like(own) for _ in range(current_world().size)]
    dist.all_gather(everyone, own)
    for rank, sums in enumerate(everyone):
        if differing := (sums != everyone[0]).nonzero().flatten().tolist():
            more = f" and {len(differing) - 1} others" if len(differing) > 1 else ""
            which = f"{list(named)[differing[0]]}{more} of rank {rank} differ from those of rank 0"
            remedy = "The processes must run on machines and libraries of one kind."
            raise main_rank_only(UserError(f"after step {step}, {which}. {remedy}"))


def _sum_of_bits(tensor: Tensor) -> Tensor:
    values = tensor.detach()
    if values.dtype == torch.bool:
        values = values.to(torch.uint8)
    bits = values.reshape(-1).view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.itemsize])
    return bits.sum(dtype=torch.int64)
