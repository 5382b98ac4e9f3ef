"""How processes find each other before their first collective operation.

Tested in ``tests/engine/base/parallel/test_rendezvous.py``.
"""

import json
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel.deadline import NoAnswerError, within
from gan_blocks.engine.base.parallel.launch import Launch
from gan_blocks.engine.base.parallel.roll_call import name_ranks
from gan_blocks.engine.base.terminal.torch_log import NOTHING, torch_log

__all__ = ["AbsentError", "meet", "sign_in"]

POLL_SECONDS = 0.02
# Beyond the time that a store says it takes, before it counts as frozen.
MARGIN_SECONDS = 1.0
# The same of a connection: torch tries again at random intervals, of which the last one may end that much later.
CONNECT_MARGIN_SECONDS = 4.0
# How long rank 0 waits for the others to hear who has not come, before it takes the store away.
LAST_WORD_SECONDS = 2.0


class AbsentError(UserError):
    """Some processes have not come.

    Args:
        message: What to say.
        ranks: Who has not come.
    """

    def __init__(self, message: str, ranks: Sequence[int]) -> None:
        super().__init__(message)
        self.ranks = ranks


def meet(launch: Launch, timeout: timedelta) -> tuple[Store, Store]:
    """A store of their own for the processes of a launch, all of which have come, by two connections.

    The second is for a thread that must get its answers while the main thread waits for one.

    Raises:
        UserError: If a process does not come in time, the port is taken, or the address leads nowhere.
    """
    seconds = timeout.total_seconds()
    deadline = time.monotonic() + seconds
    where = f"not all of {launch.size} processes met at {launch.place}"
    store = _reach_store(launch, timeout, where)
    left = max(deadline - time.monotonic(), MARGIN_SECONDS)
    sign = partial(sign_in, store, launch.rank, launch.size, timedelta(seconds=left))
    try:
        with torch_log(NOTHING):
            page = within(left + MARGIN_SECONDS, sign)
            clone: Callable[[], Store] = getattr(page, "clone", lambda: page)  # which old versions of torch do not have
            return page, within(LAST_WORD_SECONDS, clone)
    except AbsentError as error:
        raise UserError(f"{where}: no word from {name_ranks(error.ranks)} within {seconds:g} s.") from error
    except RuntimeError as error:
        raise UserError(f"{where}: no word from {launch.server} any more.") from error


def _reach_store(launch: Launch, timeout: timedelta, where: str) -> Store:
    """The store of the meeting place, served by this process if it is the one for that."""
    silent = f"{where}: no word from {launch.server} within {timeout.total_seconds():g} s"
    if not launch.serves and (reason := _wait_for_listener(launch, timeout)):
        raise UserError(f"{silent} ({reason}).")

    def connect() -> Store:
        with torch_log(NOTHING):  # here, as it may be left behind
            store: Store = dist.TCPStore(  # type: ignore[attr-defined]
                "localhost" if launch.serves else launch.host,  # served at every address of this machine
                launch.port,
                is_master=launch.serves,
                timeout=timeout,
                wait_for_workers=False,
                multi_tenant=launch.serves,
            )
        return store

    try:
        return within(timeout.total_seconds() + CONNECT_MARGIN_SECONDS, connect)
    except NoAnswerError as error:
        raise UserError(f"{silent} (something listens there, but is silent).") from error
    except (RuntimeError, ValueError) as error:
        if "EADDRINUSE" in str(error):
            raise UserError(f"the port of {launch.place} is in use; choose another MASTER_PORT.") from error
        if launch.serves:
            reason = str(error).strip().splitlines()[0].rpartition("message: ")[2]
            raise UserError(f"the port of {launch.place} cannot be opened: {reason}.") from error
        raise UserError(f"{silent} (what listens there is something else).") from error


def _wait_for_listener(launch: Launch, timeout: timedelta) -> str | None:
    """Wait until somebody listens at the meeting place; if nobody does in time, why not."""
    deadline = time.monotonic() + timeout.total_seconds()
    reason = "nobody listens there"

    def listens() -> bool:
        with socket.create_connection((launch.host, launch.port), timeout=max(deadline - time.monotonic(), 0.1)):
            return True

    while time.monotonic() < deadline:
        try:
            if within(max(deadline - time.monotonic(), 0.1), listens):  # a name server may be slow
                return None
        except socket.gaierror as error:
            reason = f"MASTER_ADDR is not found: {error.strerror}"
        except UnicodeError:
            reason = "MASTER_ADDR is not found: it is no name of a machine"
        except OSError as error:
            reason = error.strerror or reason
        except NoAnswerError:
            pass
        time.sleep(0.1)
    return reason


def sign_in(store: Store, rank: int, size: int, timeout: timedelta) -> Store:
    """A part of ``store`` that belongs to these processes alone, once all of them have signed in.

    torchrun hands the store of its agent to the processes that it starts again after a failure, with all that their
    predecessors wrote; gloo would take their addresses from it and wait for the dead. Rank 0 therefore answers whoever
    greets it, and those who have its answer sign its new page.

    Raises:
        AbsentError: If a process does not come in time.
    """
    name = uuid.uuid4().hex
    if rank == 0:
        page = PrefixStore(name, store)
        _answer(store, page, name, size, timeout)
        page.set("all here", "")
        return page
    store.set(f"greeting/{rank}", name)
    patience = f"within {timeout.total_seconds():g} s."
    deadline = time.monotonic() + timeout.total_seconds()
    if not _await(store, [f"answer/{name}"], deadline):
        raise AbsentError(f"rank 0 does not answer {patience}", [0])
    page = PrefixStore(store.get(f"answer/{name}").decode(), store)
    page.set(f"signed/{rank}", "")
    if not _await(page, ["all here"], deadline, unless="absent"):
        absent = json.loads(page.get("absent")) if page.check(["absent"]) else _unsigned(page, range(1, size))
        page.set(f"heard/{rank}", "")
        raise AbsentError(f"other processes have not come {patience}", absent or [0])
    return page


def _answer(store: Store, page: Store, name: str, size: int, timeout: timedelta) -> None:
    deadline = time.monotonic() + timeout.total_seconds()
    missing = list(range(1, size))
    while missing:
        for rank in missing:
            if store.check([f"greeting/{rank}"]):  # of the dead, too, who do not mind
                store.set(f"answer/{store.get(f'greeting/{rank}').decode()}", name)
        missing = _unsigned(page, missing)
        if missing and time.monotonic() > deadline:
            page.set("absent", json.dumps(missing))
            heard = [f"heard/{rank}" for rank in range(1, size) if rank not in missing]
            if heard:  # this process may be the one that serves the store
                _await(page, heard, time.monotonic() + LAST_WORD_SECONDS)
            ranks = name_ranks(missing)
            raise AbsentError(f"{ranks} did not come within {timeout.total_seconds():g} s.", missing)
        time.sleep(POLL_SECONDS)


def _unsigned(page: Store, ranks: Sequence[int]) -> list[int]:
    return [rank for rank in ranks if not page.check([f"signed/{rank}"])]


def _await(store: Store, keys: list[str], deadline: float, unless: str | None = None) -> bool:
    """Whether the keys come until then, and another one does not."""
    while not store.check(keys):
        if time.monotonic() > deadline or (unless is not None and store.check([unless])):
            return False
        time.sleep(POLL_SECONDS)
    return True
