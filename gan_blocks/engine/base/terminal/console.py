"""What a command says while it works: to a terminal, to a file, or to nobody, which is no reason to stop.

Tested in ``tests/engine/base/terminal/test_console.py``.
"""

import io
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from tqdm import tqdm

__all__ = ["OutputError", "Progress", "last_word", "lasting_streams", "printable", "silence_output"]

SECONDS_A_LINE = 30.0
LONGEST_LINE = 2000
LINE_WAITS = 1.0
"""Seconds that a line on standard error waits for a reader who has stopped reading."""
ROOM = 1024
"""Letters that go into a pipe that has any room at all."""


class OutputError(Exception):
    """Standard output cannot be written; says why."""


class Progress(tqdm):  # type: ignore[type-arg]
    """tqdm's bar on a terminal; elsewhere, as in the log file of a job, a line every half a minute."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.in_lines = not _is_terminal(options.get("file") or sys.stderr)
        self._said_at = time.monotonic() - (SECONDS_A_LINE if options.get("leave", True) else 0.0)
        if self.in_lines:
            options |= {"mininterval": 1.0, "maxinterval": SECONDS_A_LINE}
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show how far it is; in lines only when it is time for one."""
        if not self.in_lines:
            super().display(msg, pos)
        elif time.monotonic() - self._said_at >= SECONDS_A_LINE:
            self._say()

    def clear(self, nolock: bool = False) -> None:
        """Make room for other words; a line that was written stays."""
        if not self.in_lines:
            super().clear(nolock=nolock)

    def close(self) -> None:
        """End it; in lines with a last one where a bar would stay."""
        if self.in_lines and not self.disable:
            self.disable = True
            type(self)._decr_instances(self)  # type: ignore[attr-defined]
            if self.leave:
                self._say()
        else:
            super().close()

    def _say(self) -> None:
        self._said_at = time.monotonic()
        self.fp.write(f"{self}\n")
        self.fp.flush()


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Let a command outlive its terminal: what cannot be said on standard error is not said.

    That is so where it cannot be written, and where nobody reads on, as in ``less`` or after Ctrl-S, for as long as
    that lasts. Standard output is what a command is for: where it cannot be written an :class:`OutputError` says so,
    but for a closed pipe.
    """
    before = sys.stdout, sys.stderr
    sys.stderr = _Stream(before[1], lenient=True)
    sys.stdout = _Stream(before[0], lenient=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def last_word(line: str) -> None:
    """Say on standard error how a command ends, and wait for a reader as any program does."""
    if isinstance(sys.stderr, _Stream):
        sys.stderr.waits = None
    print(line, file=sys.stderr)


class _Stream(io.TextIOBase):
    """Writes to another stream, if that can be written to."""

    waits: float | None = LINE_WAITS

    def __init__(self, stream: TextIO | None, *, lenient: bool) -> None:
        self._stream, self._lenient, self._stalled = stream, lenient, False

    def write(self, text: str) -> int:
        # Names of files may hold what the console has no letters for, or bytes that are none.
        shown = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        if not self._lenient:
            self._try(lambda stream: stream.write(shown))
            return len(text)
        for start in range(0, len(shown), ROOM):
            part, lost = shown[start : start + ROOM], self._stalled
            self._stalled = not self._has_room(part)
            if not self._stalled:
                part = f"\n{part}" if lost and not part.startswith(("\n", "\r")) else part
                self._try(lambda stream, part=part: (stream.write(part), stream.flush()))
        return len(text)

    def _has_room(self, text: str) -> bool:
        """Whether a write would return; a line waits for that for a moment, a bar, which is drawn again, not at all."""
        if self.waits is None:
            return True
        try:
            poll = select.poll()
            poll.register(self.fileno(), select.POLLOUT)
        except (OSError, ValueError, AttributeError):  # no file, or a system without poll
            return True
        return bool(poll.poll(0 if self._stalled or "\r" in text else 1000 * self.waits))

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        return self._stream is not None and _is_terminal(self._stream)

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return getattr(self._stream, "errors", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, use: Any) -> None:
        if self._stream is None:
            return
        try:
            use(self._stream)
        except BrokenPipeError:
            if not self._lenient:
                raise
        except (OSError, ValueError) as error:  # ValueError: it is closed
            if not self._lenient:
                raise OutputError(getattr(error, "strerror", None) or str(error)) from None


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (OSError, ValueError, AttributeError):
        return False


def printable(text: str) -> str:
    """The text with control characters as Python writes them: names in a message may steer a terminal.

    Of a very long one, such as of a damaged file, the middle is left out.
    """
    if len(text) > LONGEST_LINE:
        text = f"{text[: LONGEST_LINE // 2]} ... {text[-LONGEST_LINE // 4 :]}"
    return "".join(c if c.isprintable() or c == "\xa0" else c.encode("unicode_escape").decode() for c in text)


def silence_output() -> None:
    """Let what is still to be flushed when Python exits go nowhere."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), cast("TextIO", sys.__stdout__).fileno())
