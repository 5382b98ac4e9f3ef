"""What processes that train together must have in common: how they were started, and every number of their state.

Tested in ``tests/engine/base/parallel/test_processes.py``.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel.processes import current_world, gather_objects, main_rank_only
from gan_blocks.engine.data.record import DataRecord, unlike
from gan_blocks.engine.recipe.config_json import config_to_json
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.runs.checkpoints import Checkpoint
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.training.command import TrainingCommand

__all__ = [
    "check_same_data",
    "check_same_start",
    "check_same_state",
    "code_version",
    "first_difference",
    "newest_checkpoint",
    "start_settings",
    "sums_of_bits",
]

FOLDERS = ("--run-dir", "--resume", "--init-from", "--config")


def start_settings(recipe: Recipe[Any], command: TrainingCommand) -> dict[str, Any]:
    """What must be the same in all processes, by the name that the user knows."""
    fields = {**config_to_json(command.config), **vars(command.options)}
    del fields["device"], fields["threads"]  # each process has its own device, and threads change last bits only
    named = {f"--{name.replace('_', '-')}": value for name, value in fields.items()}
    run = None if command.run is None else str(command.run.path)
    versions = {"torch": torch.__version__, "code (gan_blocks and the recipe)": code_version(recipe)}
    return {"preset": command.preset, **named, "run": run, **versions}


def check_same_start(recipe: Recipe[Any], command: TrainingCommand) -> None:
    """Compare Config, options, versions and the run to continue of all processes.

    Raises:
        UserError: If one differs; the first is named.
    """
    if current_world().size == 1:
        return
    everyone = gather_objects((start_settings(recipe, command), _found_run(command)))
    asked = [{name: settings[name] for name in FOLDERS} for settings, _ in everyone]
    difference = first_difference(asked)  # before what is in them, which decides the defaults of other options
    if difference is None:
        _check_same_run(command, [found for _, found in everyone])
        difference = first_difference([settings for settings, _ in everyone])
    if difference:
        raise main_rank_only(UserError(f"the processes were started differently: {difference}."))


def check_same_data(record: DataRecord) -> None:
    """Compare the images that all processes have read.

    Raises:
        UserError: If those of one are others than those of rank 0.
    """
    if current_world().size == 1:
        return
    if difference := unlike(gather_objects(record)):
        raise main_rank_only(UserError(f"the processes read different data under one name: {difference}."))


def newest_checkpoint(run: RunFolder) -> Checkpoint | None:
    """The newest sound checkpoint of a run, the same in all processes; None where there is none at all.

    Raises:
        UserError: If a process finds another one than the others, or all are damaged.
    """
    found, problem = None, ""
    try:
        if run.saved_steps():
            found = run.newest_checkpoint()
    except UserError as error:
        problem = str(error)
    everyone = gather_objects((None if found is None else found.step, problem))
    newest = max((step for step, _ in everyone if step is not None), default=None)
    for rank, (step, problem_there) in enumerate(everyone):
        if newest is None and problem_there:
            raise main_rank_only(UserError(problem_there))
        if step != newest:
            what = f"no checkpoint of step {newest} in {run.checkpoints}"
            raise main_rank_only(_not_shared(rank, what, problem_there))
    return found


def _found_run(command: TrainingCommand) -> tuple[bool, int | None]:
    """Whether there is a run to continue, and its newest step."""
    steps = [] if command.run is None else command.run.saved_steps()
    return command.run is not None, max(steps, default=None)


def _check_same_run(command: TrainingCommand, everyone: Sequence[tuple[bool, int | None]]) -> None:
    folder = command.options.resume or command.options.run_dir
    runs = [there for there, _ in everyone]
    newest = max((step for _, step in everyone if step is not None), default=None)
    for rank, (there, step) in enumerate(everyone):
        if there != any(runs):
            raise main_rank_only(_not_shared(rank, f"no run in {folder}"))
        if step != newest:
            raise main_rank_only(_not_shared(rank, f"no checkpoint of step {newest} in {folder}"))


def _not_shared(rank: int, what: str, reason: str = "") -> UserError:
    return UserError(f"rank {rank} finds {what}: {reason or 'the run folder must be shared by all processes.'}")


def first_difference(everyone: Sequence[Mapping[str, Any]]) -> str | None:
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
    own = sums_of_bits(list(named.values()))
    everyone = [torch.empty_like(own) for _ in range(current_world().size)]
    dist.all_gather(everyone, own)
    for rank, sums in enumerate(everyone):
        if differing := (sums != everyone[0]).nonzero().flatten().tolist():
            more = f" and {len(differing) - 1} others" if len(differing) > 1 else ""
            which = f"{list(named)[differing[0]]}{more} of rank {rank} differ from those of rank 0"
            remedy = "The processes must run on machines and libraries of one kind."
            raise main_rank_only(UserError(f"after step {step}, {which}. {remedy}"))


def sums_of_bits(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of the bits of each tensor, int64 on the CPU, ``(tensors,)``; one transfer from each device.

    Not all of a state is on the device of the training: Adam counts its steps on the CPU unless it is fused.
    """
    sums = torch.empty(len(tensors), dtype=torch.int64)
    for device in dict.fromkeys(tensor.device for tensor in tensors):
        places = [place for place, tensor in enumerate(tensors) if tensor.device == device]
        sums[places] = torch.stack([_sum_of_bits(tensors[place]) for place in places]).cpu()
    return sums


def _sum_of_bits(tensor: Tensor) -> Tensor:
    values = tensor.detach()
    if values.dtype == torch.bool:
        values = values.to(torch.uint8)
    bits = values.reshape(-1).view({1: torch.uint8, 2: torch.int16, 4: torch.int32}.get(values.itemsize, torch.int64))
    return bits.sum(dtype=torch.int64)
