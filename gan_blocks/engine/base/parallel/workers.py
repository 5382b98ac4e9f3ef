"""Independent pieces of work side by side, each worker a process that does not outlive the command.

Several processes of one thread keep several cores busier than one process of several threads does with small networks.

Tested in ``tests/recipes/studies/test_latents.py``.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Protocol, TypeVar

import torch

from gan_blocks.engine.base.interrupts import StopRequest, stopping_signals

__all__ = ["Map", "run_tasks", "worker_pool"]

AFTER_TERMINAL = 1.0  # seconds: the terminal sends ^C to all processes of a command

Task = TypeVar("Task")
Value = TypeVar("Value")


def run_tasks(work: Callable[[Task], Value], tasks: Sequence[Task], *, processes: int) -> Iterator[tuple[Task, Value]]:
    """Do every task and give it back with its value, as each is finished.

    Args:
        work: What to do with a task; for several processes a function of a module, as are its argument and value.
        tasks: Begun in this order.
        processes: How many work at a time; 1: this process itself.

    Raises:
        Exception: What ``work`` raises. Tasks that have not begun are left alone, those that have are finished.
    """
    if processes == 1:
        for task in tasks:
            yield task, work(task)
        return
    # spawn: a forked process would inherit torch's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    number = min(processes, len(tasks) or 1)
    with ProcessPoolExecutor(number, context, initializer=_begin_task, initargs=(stop,)) as pool:
        futures = {pool.submit(work, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except KeyboardInterrupt:
            stop.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class Map(Protocol):
    """Apply a function to each task, in order."""

    def __call__(self, work: Callable[[Task], Value], tasks: Iterable[Task], /) -> Iterable[Value]:
        """As the builtin ``map``."""


@contextmanager
def worker_pool(workers: int, *, threads: int) -> Iterator[Map]:
    """Open workers for rounds of tasks that follow each other; gives what maps a function over the tasks of a round.

    With several workers, each a process, a function gets copies of its tasks: it must be one of a module, or a
    ``partial`` of one, and tasks and values must pickle. Signals that would end the command are left to the command;
    but a worker that gets one while it starts ends, and the round with ``BrokenProcessPool``.

    Args:
        workers: How many tasks at a time; 1: in this process itself.
        threads: CPU threads of each worker process.
    """
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin_side_by_side, initargs=(threads,)) as pool:

        def apply(work: Callable[[Task], Value], tasks: Iterable[Task]) -> Iterator[Value]:
            # As bytes: by itself torch would hand tensors over as shared memory, an open file for each.
            for value in pool.map(_work_on_bytes, [pickle.dumps((work, task), 5) for task in tasks]):
                yield pickle.loads(value)

        yield apply


def _work_on_bytes(data: bytes) -> bytes:
    work, task = pickle.loads(data)
    return pickle.dumps(work(task), 5)


def _begin_side_by_side(threads: int) -> None:
    for number in stopping_signals():
        signal.signal(number, signal.SIG_IGN)
    _leave_with_parent()
    torch.set_num_threads(threads)


def _begin_task(stop: Event) -> None:
    """Leave with the command, and stop with it: a signal that somebody sends to it alone does not reach its workers."""
    _leave_with_parent()

    def watch() -> None:
        stop.wait()
        time.sleep(AFTER_TERMINAL)
        if not StopRequest.heard:
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def _leave_with_parent() -> None:
    """End this process when the command's dies, however it does: a run has one writer, and it will be started again."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)  # at once, as a kill would: checkpoints bear that

    threading.Thread(target=watch, daemon=True).start()
