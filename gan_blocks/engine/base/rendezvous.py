"""How processes find each other before their first collective operation.

Tested in ``tests/engine/base/test_rendezvous.py``.
"""

import os
import time
import uuid
from collections.abc import Iterable
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from gan_blocks.engine.base.errors import UserError

__all__ = ["meet", "sign_in"]

POLL_SECONDS = 0.02


def meet(size: int, timeout: timedelta) -> Store:
    """A store of their own for the processes that the environment speaks of, all of which have come.

    Raises:
        UserError: If a process does not come in time, or the port is taken.
    """
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store: Store
        store, rank, _ = next(rendezvous("env://", timeout=timeout))
    except (RuntimeError, ValueError, TimeoutError) as error:
        if "EADDRINUSE" in str(error):
            raise UserError(f"the port of {where} is in use; choose another MASTER_PORT.") from error
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"not all of {size} processes met at {where}: {reason}") from error
    return sign_in(store, rank, size, timeout)


def sign_in(store: Store, rank: int, size: int, timeout: timedelta) -> Store:
    """A part of ``store`` that belongs to these processes alone, once all of them have signed in.

    torchrun hands the store of its agent to the processes that it starts again after a failure, with all that their
    predecessors wrote; gloo would take their addresses from it and wait for the dead. Rank 0 therefore answers whoever
    greets it, and those who have its answer sign its new page.

    Raises:
        UserError: If a process does not come in time.
    """
    name = uuid.uuid4().hex
    if rank == 0:
        page = PrefixStore(name, store)
        _answer(store, page, name, range(1, size), timeout)
        page.set("all here", "")
        return page
    store.set(f"greeting/{rank}", name)
    page = PrefixStore(_await(store, f"answer/{name}", timeout, "rank 0 does not answer").decode(), store)
    page.set(f"signed/{rank}", "")
    _await(page, "all here", timeout, "other processes have not come")
    return page


def _answer(store: Store, page: Store, name: str, others: Iterable[int], timeout: timedelta) -> None:
    deadline = time.monotonic() + timeout.total_seconds()
    missing = list(others)
    while missing:
        for rank in missing:
            if store.check([f"greeting/{rank}"]):  # of the dead, too, who do not mind
                store.set(f"answer/{store.get(f'greeting/{rank}').decode()}", name)
        missing = [rank for rank in missing if not page.check([f"signed/{rank}"])]
        if missing and time.monotonic() > deadline:
            ranks = ", ".join(map(str, missing))
            raise UserError(f"rank {ranks} did not come within {timeout.total_seconds():g} s.")
        time.sleep(POLL_SECONDS)


def _await(store: Store, key: str, timeout: timedelta, problem: str) -> bytes:
    deadline = time.monotonic() + timeout.total_seconds()
    while not store.check([key]):
        if time.monotonic() > deadline:
            raise UserError(f"{problem} within {timeout.total_seconds():g} s.")
        time.sleep(POLL_SECONDS)
    value: bytes = store.get(key)
    return value
