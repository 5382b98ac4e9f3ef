"""What torchrun, or whoever starts the processes of a run, tells each of them in its environment.

Tested in ``tests/engine/base/parallel/test_launch.py``.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from gan_blocks.engine.base.errors import UserError

__all__ = ["Launch", "read_launch"]

MOST_PROCESSES = 1_000_000


@dataclass(frozen=True)
class Launch:
    """One of several processes, and where they meet."""

    rank: int
    size: int
    local_rank: int
    """Which of the processes of this machine it is."""
    host: str
    port: int
    by_torchrun: bool
    """Whether torchrun serves the store that they meet by; rank 0 does otherwise."""

    @property
    def place(self) -> str:
        """The meeting place, as it is written."""
        return f"{self.host}:{self.port}"

    @property
    def serves(self) -> bool:
        """Whether this process serves the store."""
        return self.rank == 0 and not self.by_torchrun

    @property
    def server(self) -> str:
        """Who serves the store, for messages."""
        return f"torchrun at {self.place}" if self.by_torchrun else "rank 0"


def read_launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Which of several processes this is; None where it is one by itself. An empty variable counts as one not set.

    Raises:
        UserError: If a variable is missing or has no meaning; it is named.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    if "WORLD_SIZE" not in given:
        return None
    size = _whole_number(given, "WORLD_SIZE", 1, MOST_PROCESSES)
    rank = _whole_number(given, "RANK", 0, size - 1, ", one less than WORLD_SIZE,")
    local_rank = _whole_number(given, "LOCAL_RANK", 0)
    port = _whole_number(given, "MASTER_PORT", 1, 2**16 - 1)
    if size == 1:
        return None
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in given]:
        listed = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        are = "are" if len(missing) > 1 else "is"
        remedy = "start the processes with torchrun, which sets them all"
        raise UserError(f"WORLD_SIZE is {size}, but {listed} {are} not set: {remedy}.")
    by_torchrun = given.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Launch(rank, size, local_rank, given["MASTER_ADDR"], port, by_torchrun)


def _whole_number(given: Mapping[str, str], name: str, low: int, high: int | None = None, why: str = "") -> int:
    """The value of a variable, ``low`` where it is not set."""
    text = given.get(name, str(low))
    # Digits by name: int() takes 1_000 and those of other scripts, and refuses long numbers in words of its own.
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < low or (high is not None and int(text) > high):
        rule = f"a whole number {f'of at least {low}' if high is None else f'from {low} to {high}'}"
        raise UserError(f"{name} must be {rule}{why or ','} but got {ascii(text)[1:-1]}.")
    return int(text)
