"""Waiting no longer than is wanted for what cannot be interrupted.

Tested in ``tests/engine/base/parallel/test_roll_call.py``.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["NoAnswerError", "within"]

Result = TypeVar("Result")

POLL_SECONDS = 0.1


class NoAnswerError(RuntimeError):
    """Something did not come to its end in time."""


def within(seconds: float, work: Callable[[], Result], *, unless: Callable[[], bool] = lambda: False) -> Result:
    """Do the work in a thread of its own; one that hangs is left behind, and does not keep the process from ending.

    Calls to a store or a process group are C++ that looks at no signal, and some of them at no clock: they would wait
    for a frozen process for ever.

    Args:
        seconds: How long to wait.
        work: What to do.
        unless: Asked again and again whether to give up before that.

    Raises:
        NoAnswerError: If it takes longer.
        BaseException: What ``work`` raises.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds
    while thread.is_alive() and (left := deadline - time.monotonic()) > 0 and not unless():
        thread.join(min(left, POLL_SECONDS))
    if errors:
        raise errors.pop()
    if not results:
        raise NoAnswerError(f"timed out after {seconds:g} s")
    return results.pop()
