import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel.launch import Launch
from gan_blocks.engine.base.parallel.rendezvous import AbsentError, meet, sign_in

SIZE = 3


def all_sign_in(store: dist.Store, ranks: range = range(SIZE), seconds: float = 20.0) -> dict[int, Any]:
    """What each rank, a thread of its own and late by its number, gets: its store or its error."""
    found: dict[int, Any] = {}

    def come(rank: int) -> None:
        time.sleep(0.03 * (SIZE - rank))
        try:
            found[rank] = sign_in(store, rank, SIZE, timedelta(seconds=seconds))
        except UserError as error:
            found[rank] = str(error)

    run_all([lambda rank=rank: come(rank) for rank in ranks])
    return found


def run_all(tasks: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_all_get_one_store():
    found = all_sign_in(dist.HashStore())
    found[0].set("word", "heard")
    assert [found[rank].get("word") for rank in range(SIZE)] == [b"heard"] * SIZE


def test_those_who_are_started_again_read_nothing_of_their_predecessors():
    store = dist.HashStore()
    first = all_sign_in(store)
    first[1].set("address", "of the dead")
    second = all_sign_in(store)
    assert not second[0].check(["address"])
    second[0].set("word", "new")
    assert second[2].get("word") == b"new"


def test_who_does_not_come_is_named():
    found = all_sign_in(dist.HashStore(), range(2), seconds=0.3)
    assert found[0] == "rank 2 did not come within 0.3 s."
    assert found[1] == "other processes have not come within 0.3 s."


def test_a_second_start_is_not_taken_for_complete_by_what_the_first_left():
    store = dist.HashStore()
    all_sign_in(store)
    found = all_sign_in(store, range(1, SIZE), seconds=0.3)
    assert found == {1: "rank 0 does not answer within 0.3 s.", 2: "rank 0 does not answer within 0.3 s."}


def test_rank_0_is_not_deceived_either():
    store = dist.HashStore()
    all_sign_in(store)
    assert all_sign_in(store, range(1), seconds=0.3) == {0: "rank 1, 2 did not come within 0.3 s."}


def test_each_process_that_has_come_knows_who_has_not():
    absent: dict[int, Any] = {}
    store = dist.HashStore()

    def come(rank: int) -> None:
        with pytest.raises(AbsentError) as error:
            sign_in(store, rank, SIZE, timedelta(seconds=0.3 if rank == 0 else 5.0))
        absent[rank] = error.value.ranks

    run_all([lambda rank=rank: come(rank) for rank in (0, 1)])
    assert absent == {0: [2], 1: [2]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def listening(answer: bytes | None) -> Iterator[int]:
    """The port of something that listens, and is silent or answers and hangs up."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = taken.accept()
                    with connection:
                        connection.recv(1)
                        connection.sendall(answer or b"")
                except OSError:
                    return

        if answer is not None:
            threading.Thread(target=serve, daemon=True).start()
        yield taken.getsockname()[1]


def refusal(rank: int, host: str, port: int, size: int = 2, seconds: float = 0.5) -> str:
    before = time.monotonic()
    with pytest.raises(UserError) as error:
        meet(Launch(rank, size, rank, host, port, by_torchrun=False), timedelta(seconds=seconds))
    assert time.monotonic() - before < seconds + 8
    return str(error.value)


@pytest.mark.parametrize(
    ("answer", "what"),
    [(None, "something listens there, but is silent"), (b"HTTP/1.1 400", "what listens there is something else")],
)
def test_a_port_that_something_else_holds_is_an_error_of_one_line(
    answer: bytes | None, what: str, capfd: pytest.CaptureFixture[str]
):
    with listening(answer) as port:
        silence = f"not all of 2 processes met at 127.0.0.1:{port}: no word from rank 0 within 0.5 s ({what})."
        assert refusal(1, "127.0.0.1", port) == silence
        assert refusal(0, "127.0.0.1", port) == f"the port of 127.0.0.1:{port} is in use; choose another MASTER_PORT."
    assert capfd.readouterr().err == ""


def test_a_rank_0_that_does_not_come_is_named(capfd: pytest.CaptureFixture[str]):
    port = free_port()
    reason = "no word from rank 0 within 0.5 s (Connection refused)."
    assert refusal(1, "127.0.0.1", port) == f"not all of 2 processes met at 127.0.0.1:{port}: {reason}"
    assert capfd.readouterr().err == ""


def test_other_ranks_that_do_not_come_are_named():
    port = free_port()
    reason = "no word from rank 1, 2 within 0.5 s."
    assert refusal(0, "127.0.0.1", port, size=3) == f"not all of 3 processes met at 127.0.0.1:{port}: {reason}"


@pytest.mark.parametrize(
    ("host", "reason"), [("no.such.host.invalid", "MASTER_ADDR is not found"), ("x" * 70, "MASTER_ADDR is not found")]
)
def test_an_address_that_leads_nowhere_is_an_error_of_one_line(
    host: str, reason: str, capfd: pytest.CaptureFixture[str]
):
    port = free_port()
    where = f"not all of 2 processes met at {host}:{port}"
    assert refusal(0, host, port) == f"{where}: no word from rank 1 within 0.5 s."
    said = refusal(1, host, port)
    assert said.startswith(f"{where}: no word from rank 0 within 0.5 s ({reason}")
    assert "\n" not in said
    assert capfd.readouterr().err == ""


def test_a_machine_that_is_not_that_of_rank_0_is_an_error_of_one_line(capfd: pytest.CaptureFixture[str]):
    assert "no word from rank 0 within 0.5 s" in refusal(1, "192.0.2.1", free_port())
    assert capfd.readouterr().err == ""


FREEZES = """
import os, signal, sys, time
from datetime import timedelta
from gan_blocks.engine.base.parallel import rendezvous
from gan_blocks.engine.base.parallel.launch import Launch

def freeze(*arguments):
    print("met", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

rendezvous.sign_in = freeze
rendezvous.meet(Launch(0, 2, 0, "127.0.0.1", int(sys.argv[1]), False), timedelta(seconds=30))
"""


@pytest.mark.slow
def test_a_rank_0_that_freezes_while_it_serves_the_store_is_named():
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", FREEZES, str(port)], stdout=subprocess.PIPE) as frozen:
        assert frozen.stdout is not None
        frozen.stdout.readline()
        time.sleep(0.2)
        try:
            assert "no word from rank 0" in refusal(1, "127.0.0.1", port)
        finally:
            frozen.kill()
