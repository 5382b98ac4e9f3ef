"""A clean stop on SIGINT and SIGTERM: finish the step, save, leave.

Tested in ``tests/engine/training/test_command.py``.
"""

import signal
import sys
from types import FrameType, TracebackType
from typing import Self

from tqdm import tqdm

__all__ = ["StopRequest"]


class StopRequest:
    """While active, the first SIGINT or SIGTERM only sets ``signal``; a second one acts as it always does.

    Args:
        last_word: Give the signals back after the first. torchrun passes on the Ctrl-C that the terminal has sent to
            its processes already, and ends what does not stop by itself.
    """

    def __init__(self, *, last_word: bool = True) -> None:
        self._last_word = last_word
        self.signal: int = 0
        """Number of the signal that asked to stop, or 0."""
        self._previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def __enter__(self) -> Self:
        """Take over both signals."""
        for number in self._previous:
            signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give both signals back."""
        self._restore()

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        if not self._last_word:
            return
        self._restore()
        tqdm.write("Stopping after this step, with a checkpoint; once more to stop at once.", file=sys.stderr)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
