"""What was checked and how it went: a failure is noted, and the rest is checked."""

import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Finding", "Findings"]


class Finding(NamedTuple):
    """One check."""

    what: str
    failed: str
    """Why; empty if it has passed."""
    said: str
    """A figure, such as an error, where there is one."""


class Findings:
    """The checks so far."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def check(self, what: str, done: Callable[[], Any]) -> Any:
        """Do it; what it returns is kept as a figure, if it is a string, and returned. An error is noted: None."""
        try:
            result = done()
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines()
            self._note(Finding(what, f"{type(error).__name__}: {lines[-1] if lines else 'no message'}", ""))
            return None
        self._note(Finding(what, "", result if isinstance(result, str) else ""))
        return result

    def _note(self, finding: Finding) -> None:
        self.all.append(finding)
        print(f"{'FAILED' if finding.failed else 'passed'}: {finding.what} {finding.said}".rstrip(), flush=True)
        sys.stdout.flush()

    @property
    def failures(self) -> list[Finding]:
        """Those that did not pass."""
        return [finding for finding in self.all if finding.failed]

    def notes(self) -> list[str]:
        """Lines for a page: how many have passed, and every failure."""
        count = len(self.all) - len(self.failures)
        listed = [f"* {finding.what}: {finding.failed}" for finding in self.failures]
        figures = [f"* {finding.what}: {finding.said}" for finding in self.all if finding.said]
        return [
            f"{count} of {len(self.all)} checks have passed.",
            *(["Failed:", "\n".join(listed)] if listed else []),
            *(["Figures:", "\n".join(figures)] if figures else []),
        ]
