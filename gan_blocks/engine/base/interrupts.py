"""A clean stop on a signal: finish the step, save, leave.

Tested in ``tests/engine/training/test_loop.py``.
"""

import gc
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import ClassVar, Self

from tqdm import tqdm

__all__ = ["StopRequest", "outlast_launcher", "stopping_signals"]


def stopping_signals() -> list[signal.Signals]:
    """What asks a run to stop, as far as this system has it.

    A closed terminal and a dropped ssh session send SIGHUP; SIGUSR1 is how some schedulers warn before they kill.
    """
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def outlast_launcher() -> None:
    """Ignore SIGTERM in a process that has failed, and is about to say so and to end.

    torchrun sends it to all processes as soon as one of them has ended, which would end the others before their word.
    The end itself comes sooner, too: Python would first search all of torch for garbage, which takes seconds.
    """
    gc.freeze()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


class StopRequest:
    """While active, the first signal that asks to stop only sets ``signal``; a second one acts as it always does.

    These are SIGINT, SIGTERM, SIGHUP and SIGUSR1; of the last two, one that was ignored before, as by nohup, stays so.

    Args:
        last_word: Give the signals back after the first. torchrun passes on the Ctrl-C that the terminal has sent to
            its processes already, and ends what does not stop by itself.
    """

    heard: ClassVar[bool] = False
    """Whether this process was ever asked to stop."""

    def __init__(self, *, last_word: bool = True) -> None:
        self._last_word = last_word
        self.signal: int = 0
        """Number of the signal that asked to stop, or 0."""
        handlers = {number: signal.getsignal(number) for number in stopping_signals()}
        # Shells let background jobs ignore SIGINT, which somebody may send by name all the same.
        asked = (signal.SIGINT, signal.SIGTERM)
        self._previous = {n: before for n, before in handlers.items() if n in asked or before is not signal.SIG_IGN}

    def __enter__(self) -> Self:
        """Take over the signals."""
        for number in self._previous:
            signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        self._restore()

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        StopRequest.heard = True
        if not self._last_word:
            return
        self._restore()
        with suppress(OSError, ValueError):  # a terminal that is gone is no reason not to save
            tqdm.write("Stopping after this step, with a checkpoint; once more to stop at once.", file=sys.stderr)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
