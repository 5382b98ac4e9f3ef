"""Who of the processes is still there, asked when a collective operation fails, and answered the same for all.

Tested in ``tests/engine/base/parallel/test_roll_call.py`` and ``tests/engine/training/test_lost_processes.py``.
"""

import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from torch.distributed.distributed_c10d import Store

from gan_blocks.engine.base.parallel.deadline import within
from gan_blocks.engine.base.parallel.launch import Launch
from gan_blocks.engine.base.terminal.torch_log import NOTHING, torch_log

__all__ = ["RollCall", "name_ranks"]

MOST_NAMED = 8


class RollCall:
    """Finds out, through the store that the processes met by, why they cannot go on.

    A thread answers for this process whatever it is computing, and hears the verdict: the first process that has one
    says it to all. Otherwise each would name those who have ended because of the first failure.

    Args:
        store: A store of these processes alone.
        launch: Which of them this is.
        grace: Seconds to wait for an answer before a process counts as missing.
    """

    def __init__(self, store: Store, launch: Launch, *, grace: float) -> None:
        self._store, self._launch, self._grace = store, launch, grace
        self._verdict: str | None = None
        self._named: list[int] = []
        self._reachable = True
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def has_verdict(self) -> bool:
        """Whether it is known already that the processes cannot go on."""
        return self._verdict is not None

    def verdict(self) -> str:
        """Why the processes cannot go on, as "no word from rank 1"; the same in all of them.

        This takes no longer than the grace and a second. A store that does not answer is word, too: whoever serves it
        is missing.
        """
        try:
            with torch_log(NOTHING):
                within(self._grace / 2, lambda: self._store.set("roll", ""))
                within(self._grace + 1, self._call_the_roll)
        except RuntimeError:
            self._reachable = False
        if self._launch.rank in self._named:
            return f"they have given up waiting for rank {self._launch.rank}"
        return self._verdict or f"no word from {self._launch.server}"

    def announce(self, verdict: str) -> None:
        """Tell all processes why they cannot go on, unless another one has before."""
        if self._reachable and self._verdict is None:
            with suppress(RuntimeError), torch_log(NOTHING):
                within(self._grace / 2, lambda: self._settle(verdict, []))

    def close(self) -> None:
        """Leave. The process that serves the store waits until the others have heard, or have left, but not long."""
        with suppress(RuntimeError), torch_log(NOTHING):
            if self._reachable:
                within(self._grace / 2 + 1, self._leave)
        self._closed.set()
        self._thread.join(self._grace / 2 if self._reachable else 0)

    def _listen(self) -> None:
        rank, answered = self._launch.rank, False
        with suppress(RuntimeError):  # the store is gone: it is for the main thread to find out
            while not self._closed.wait(self._grace / 20):
                if not answered and self._store.check(["roll"]):
                    self._store.set(f"here/{rank}", "")
                    answered = True
                if self._verdict is None and self._store.check(["verdict"]):
                    self._hear(self._store.get("verdict"))

    def _call_the_roll(self) -> None:
        deadline = time.monotonic() + self._grace
        self._store.set(f"lost/{self._launch.rank}", "")
        while self._verdict is None:
            if self._store.check(self._keys("lost")):
                self._settle("all other processes gave up, too", [])
            elif time.monotonic() > deadline:
                self._settle(*self._judge())
            time.sleep(self._grace / 50)

    def _judge(self) -> tuple[str, list[int]]:
        if absent := self._without("here"):
            return f"no word from {name_ranks(absent)}", absent
        busy = self._without("lost")
        return f"no word from {name_ranks(busy)}, though it runs: a longer --timeout waits for what takes long", busy

    def _settle(self, verdict: str, named: Sequence[int]) -> None:
        said = json.dumps([list(named), verdict])
        self._hear(self._store.compare_set("verdict", "", said))

    def _hear(self, said: bytes) -> None:
        self._named, self._verdict = json.loads(said)
        self._store.set(f"heard/{self._launch.rank}", "")

    def _leave(self) -> None:
        self._store.set(f"heard/{self._launch.rank}", "")
        deadline = time.monotonic() + self._grace / 2
        others = [key for rank, key in enumerate(self._keys("heard")) if rank not in self._named]
        while self._launch.serves and not self._store.check(others) and time.monotonic() < deadline:
            time.sleep(self._grace / 50)

    def _keys(self, word: str) -> list[str]:
        return [f"{word}/{rank}" for rank in range(self._launch.size)]

    def _without(self, word: str) -> list[int]:
        return [rank for rank, key in enumerate(self._keys(word)) if not self._store.check([key])]


def name_ranks(ranks: Sequence[int]) -> str:
    """The ranks in words, the first few of many."""
    listed = ", ".join(map(str, ranks[:MOST_NAMED]))
    more = len(ranks) - MOST_NAMED
    return f"rank {listed} and {more} others" if more > 0 else f"rank {listed}"
