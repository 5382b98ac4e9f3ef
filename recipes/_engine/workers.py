"""Independent pieces of work side by side, each worker a process that does not outlive the command.

Several processes of one thread keep several cores busier than one process of several threads does with small networks.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

__all__ = ["each_in_its_turn"]

Task = TypeVar("Task")
Value = TypeVar("Value")


def each_in_its_turn(
    work: Callable[[Task], Value], tasks: Sequence[Task], *, processes: int
) -> Iterator[tuple[Task, Value]]:
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
    with ProcessPoolExecutor(min(processes, len(tasks) or 1), context, initializer=_leave_with_parent) as pool:
        futures = {pool.submit(work, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _leave_with_parent() -> None:
    """End this process when the command's dies, however it does: a run has one writer, and it will be started again."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)  # at once, as a kill would: checkpoints bear that

    threading.Thread(target=watch, daemon=True).start()
