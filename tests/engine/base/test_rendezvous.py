import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.rendezvous import sign_in

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
