"""The processes that train together: who they are, how they meet, what they add up, and who of them is missing.

``torchrun`` starts them and tells each its rank in the environment. A run without it is one process, and everything
here then does nothing. Each process draws the whole batch and takes its part; sums of gradients and batch statistics
arrive as the same bits everywhere. So the weights of all processes stay equal without ever being sent.

Tested in ``tests/engine/base/parallel/test_processes.py`` and ``tests/engine/training/test_distributed_training.py``.
"""

import contextlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from tqdm import tqdm

from gan_blocks.engine.base.devices import torch_device
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.interrupts import outlast_launcher
from gan_blocks.engine.base.parallel.deadline import NoAnswerError, within
from gan_blocks.engine.base.parallel.launch import Launch, read_launch
from gan_blocks.engine.base.parallel.rendezvous import meet
from gan_blocks.engine.base.parallel.roll_call import RollCall
from gan_blocks.engine.base.terminal.console import printable
from gan_blocks.engine.base.terminal.torch_log import ERRORS, torch_log

__all__ = [
    "World",
    "current_world",
    "decided_by_main",
    "gather_objects",
    "gather_rows",
    "joined_processes",
    "largest",
    "main_rank_only",
    "naming_the_missing",
    "require_same",
    "say",
    "sum_gradients",
    "telling_others",
]

Result = TypeVar("Result")

# Elements added up in one collective operation: large enough to hide its latency, small against the gradients.
BUCKET = 2**23
# How long survivors of a failure wait for word from each other before they call the rest missing.
GRACE_SECONDS = 3.0
# More seconds than that, some years, do not fit into every clock.
LONGEST_TIMEOUT = 1e8


@dataclass(frozen=True)
class World:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes and speaks."""
        return self.rank == 0


def current_world() -> World:
    """All processes that have been joined; just this one where there are none."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(dist.get_rank(), dist.get_world_size())


@contextlib.contextmanager
def joined_processes(device: str, *, timeout: float = 600.0) -> Iterator[str]:
    """Meet the processes that torchrun started, for the ``with`` block; gives the device of this one.

    Args:
        device: The ``--device`` that was asked for.
        timeout: Seconds to wait for another process, here and in each collective operation.

    Raises:
        UserError: If a process does not come in time, the port is taken, or there are fewer GPUs than processes here.
    """
    launch = read_launch()
    if launch is None:
        yield device
        return
    device = _own_device(device, launch.local_rank)
    patience = timedelta(seconds=min(timeout, LONGEST_TIMEOUT))
    store, aside = meet(launch, patience)
    roll_call = RollCall(aside, launch, grace=GRACE_SECONDS)
    try:
        with torch_log(ERRORS), naming_the_missing(roll_call, launch.rank):
            # One that fails before it gets here says so, and does not come.
            join = partial(_join, launch, device, store, patience)
            within(patience.total_seconds() + 1, join, unless=roll_call.has_verdict)
            if torch_device(device).type == "cuda":
                torch.cuda.set_device(device)
            yield device
    except BaseException as error:
        outlast_launcher()
        if why := _why(error):
            roll_call.announce(f"rank {launch.rank} {why}")
        raise
    finally:
        _disconnect()
        roll_call.close()


@contextlib.contextmanager
def telling_others() -> Iterator[None]:
    """Tell the other processes of an error that this one finds before they meet, so that they do not wait for it.

    Raises:
        UserError: That error.
    """
    try:
        yield
    except UserError as error:
        with contextlib.suppress(UserError):  # they may not come, or not to the same place
            if (launch := read_launch()) is not None:
                outlast_launcher()
                _store, aside = meet(launch, timedelta(seconds=GRACE_SECONDS))  # kept, since it may serve the others
                roll_call = RollCall(aside, launch, grace=GRACE_SECONDS)
                roll_call.announce(f"rank {launch.rank} {_why(error)}")
                roll_call.close()
        raise


def decided_by_main(decide: Callable[[], Result]) -> Result:
    """What the main process decides, in all of them.

    Raises:
        UserError: If deciding fails.
    """
    decision: list[Result | str | None] = [None, None]
    if current_world().is_main:
        try:
            decision[0] = decide()
        except UserError as error:
            decision[1] = str(error)
    if current_world().size > 1:
        dist.broadcast_object_list(decision, src=0)
    result, problem = decision
    if problem is not None:
        raise main_rank_only(UserError(str(problem)))
    return cast("Result", result)


def largest(value: int) -> int:
    """The largest value of any process, in all of them."""
    if current_world().size == 1:
        return value
    values = torch.tensor(value)
    dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return int(values)


def gather_objects(own: Result) -> list[Result]:
    """What each process has, in the order of their ranks; anything that pickles."""
    size = current_world().size
    if size == 1:
        return [own]
    everyone: list[Any] = [None] * size
    dist.all_gather_object(everyone, own)
    return everyone


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; each may have a number of its own."""
    world = current_world()
    if world.size == 1:
        return rows
    most = largest(len(rows))
    padded = rows.new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows
    everyone = [torch.empty_like(padded) for _ in range(world.size)]
    dist.all_gather(everyone, padded)
    counts = [torch.empty(1, dtype=torch.int64) for _ in range(world.size)]
    dist.all_gather(counts, torch.tensor([len(rows)]))
    return torch.cat([part[: int(count)] for part, count in zip(everyone, counts, strict=True)])


def main_rank_only(error: UserError) -> BaseException:
    """What to raise for an error that every process finds at the same point: the main one says it for all."""
    return error if current_world().is_main else SystemExit(2)


def require_same(what: str, own: str) -> None:
    """Check that all processes have the same of something that they read from files.

    Raises:
        UserError: If one differs; the first is named.
    """
    first, *others = gather_objects(own)
    for rank, other in enumerate(others, start=1):
        if other != first:
            remedy = "All processes must see the same files."
            raise main_rank_only(UserError(f"{what} is {first} in rank 0 but {other} in rank {rank}. {remedy}"))


def say(line: str) -> None:
    """Tell the user a line, beside a progress bar, if this is the process that speaks."""
    if current_world().is_main:
        tqdm.write(printable(line), file=sys.stderr)


def sum_gradients(network: nn.Module, *values: Tensor) -> None:
    """Replace every gradient, and each of ``values``, by its sum over all processes.

    A parameter that has a gradient in some processes only counts as zero in the others; one that has none in any keeps
    none, so that an optimizer passes it by as in a single process.
    """
    if current_world().size == 1:
        return
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    lacking = [parameter for parameter in parameters if parameter.grad is None]
    for parameter in lacking:
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    present = torch.ones(len(parameters), device=parameters[0].device, dtype=parameters[0].dtype)
    for at, parameter in enumerate(parameters):
        if any(parameter is other for other in lacking):
            present[at] = 0
    _sum_in_buckets([present, *values, *gradients])
    if lacking:  # else it need not be read, which would wait for the device
        for parameter, count in zip(parameters, present.tolist(), strict=True):
            if count == 0:
                parameter.grad = None


@contextlib.contextmanager
def naming_the_missing(roll_call: RollCall, rank: int) -> Iterator[None]:
    """Turn the failure of a collective operation into one line that says which processes no longer answer.

    Args:
        roll_call: What finds that out.
        rank: That of this process.

    Raises:
        UserError: If the connection to another process is lost, or it does not answer within the timeout.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        outlast_launcher()
        traceback.clear_frames(error.__traceback__)  # which hold the connections that are to be closed
        _disconnect()  # so that the others notice now
        verdict = roll_call.verdict()
        how = "" if verdict.startswith("rank ") else f" ({_how(error)})"  # of a rank that said itself why
        raise UserError(f"rank {rank} lost touch with the other processes: {verdict}{how}") from error


def _join(launch: Launch, device: str, store: Store, timeout: timedelta) -> None:
    on_gpu = torch_device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)  # of this thread
    # The few numbers that steer the loop are added up on the CPU, so that no GPU has to be waited for.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=store,
        rank=launch.rank,
        world_size=launch.size,
        timeout=timeout,
    )


def _disconnect() -> None:
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            within(GRACE_SECONDS, dist.destroy_process_group)


def _how(error: RuntimeError) -> str:
    """What befell the connection, without the places in torch's source where that was found."""
    if re.search("timed out|timeout", str(error), re.IGNORECASE):
        return "timed out"
    if re.search("connection|broken pipe|socket", str(error), re.IGNORECASE):
        return "connection lost"
    return re.sub(r"\[?/[^\s\]]*\]?:?\s*", "", str(error).strip().partition("\n")[0])


def _why(error: BaseException) -> str | None:
    """What to tell the others of the failure of this process; None where they come to the same point themselves."""
    if isinstance(error, KeyboardInterrupt):
        return "was stopped"
    if isinstance(error, UserError):
        return f"failed: {' '.join(str(error).split()).rstrip('.')}"
    if isinstance(error, Exception):
        return f"failed: {' '.join([type(error).__name__, *str(error).splitlines()[:1]])}"
    return None


def _own_device(name: str, local: int) -> str:
    """Give each process of a machine a GPU of its own."""
    device = torch_device(name)
    if device.type != "cuda":
        return name
    if local >= torch.cuda.device_count():
        raise UserError(
            f"process {local} of this machine has no GPU of its own: torch sees {torch.cuda.device_count()} GPUs."
        )
    return f"cuda:{local}"


def _is_lost_connection(error: RuntimeError) -> bool:
    text = str(error).lower()
    words = ("gloo", "nccl", "connection closed", "connection reset", "timed out", "timeout", "broken pipe", "socket")
    return isinstance(error, dist.DistError | NoAnswerError) or any(word in text for word in words)


def _sum_in_buckets(tensors: Sequence[Tensor]) -> None:
    """Add up over all processes in place, many tensors at a time."""
    bucket: list[Tensor] = []
    for number, tensor in enumerate(tensors):
        bucket.append(_in_order_of_memory(tensor))
        following = tensors[number + 1] if number + 1 < len(tensors) else None
        size = sum(each.numel() for each in bucket)
        if following is None or following.dtype != tensor.dtype or size + following.numel() > BUCKET:
            _sum_together(bucket)
            bucket = []


def _sum_together(parts: Sequence[Tensor]) -> None:
    joined = torch.cat([part.reshape(-1) for part in parts])
    dist.all_reduce(joined)
    for part, total in zip(parts, joined.split([part.numel() for part in parts]), strict=True):
        part.copy_(total.view(part.shape))


def _in_order_of_memory(tensor: Tensor) -> Tensor:
    """A view whose elements follow one another in memory, of the common formats; of others, the tensor itself."""
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.permute(0, 2, 3, 1)
    return tensor
