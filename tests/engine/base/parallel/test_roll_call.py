import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch.distributed as dist

from gan_blocks.engine.base.interrupts import outlast_launcher
from gan_blocks.engine.base.parallel.deadline import NoAnswerError, within
from gan_blocks.engine.base.parallel.launch import Launch
from gan_blocks.engine.base.parallel.roll_call import RollCall, name_ranks

SIZE = 3
GRACE = 0.4


def launch_of(rank: int, *, by_torchrun: bool = False) -> Launch:
    return Launch(rank, SIZE, rank, "head", 29500, by_torchrun)


@contextmanager
def roll_calls(store: Any, *ranks: int) -> Iterator[list[RollCall]]:
    """Those of the ranks that are there."""
    calls = [RollCall(store, launch_of(rank), grace=GRACE) for rank in ranks]
    yield calls
    for call in reversed(calls):
        call.close()


def at_once(*tasks: Callable[[], Any]) -> list[Any]:
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda n=n, task=task: found.update({n: task()})) for n, task in enumerate(tasks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(tasks))]


def test_who_does_not_answer_is_missing():
    with roll_calls(dist.HashStore(), 0, 1) as calls:
        assert at_once(calls[0].verdict, calls[1].verdict) == ["no word from rank 2"] * 2


def test_a_process_that_computes_is_not_missing_and_gets_the_verdict_of_the_others_later():
    with roll_calls(dist.HashStore(), 0, 2) as (first, computing):
        assert first.verdict() == "no word from rank 1"
        time.sleep(GRACE / 4)
        before = time.monotonic()
        assert computing.verdict() == "no word from rank 1"
        assert time.monotonic() - before < GRACE


def test_a_process_that_runs_but_never_comes_is_named_as_what_it_is():
    with roll_calls(dist.HashStore(), 0, 1, 2) as calls:
        verdict = "no word from rank 1, though it runs: a longer --timeout waits for what takes long"
        assert at_once(calls[0].verdict, calls[2].verdict) == [verdict] * 2
        assert calls[1].verdict() == "they have given up waiting for rank 1"


def test_nobody_is_named_where_all_have_lost_touch():
    with roll_calls(dist.HashStore(), 0, 1, 2) as calls:
        assert at_once(*(call.verdict for call in calls)) == ["all other processes gave up, too"] * SIZE


def test_a_failure_that_a_process_speaks_of_is_the_verdict():
    with roll_calls(dist.HashStore(), 0, 1, 2) as calls:
        calls[1].announce("rank 1 failed: the disk is full")
        calls[2].announce("rank 2 failed: rank 1 is gone")  # which is no news
        assert at_once(calls[0].verdict, calls[2].verdict) == ["rank 1 failed: the disk is full"] * 2


class FrozenStore:
    """Of a process that no longer runs: a call waits for ever."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: time.sleep(60)


class GoneStore:
    """Of a process that has died."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object) -> None:
            raise RuntimeError("Connection reset by peer")

        return fail


@pytest.mark.parametrize("store", [FrozenStore(), GoneStore()])
@pytest.mark.parametrize(("by_torchrun", "who"), [(False, "rank 0"), (True, "torchrun at head:29500")])
def test_a_store_that_does_not_answer_is_word_about_who_serves_it(store: Any, by_torchrun: bool, who: str):
    call = RollCall(store, launch_of(1, by_torchrun=by_torchrun), grace=GRACE)
    before = time.monotonic()
    assert call.verdict() == f"no word from {who}"
    call.announce("rank 1 failed: it has lost touch")
    call.close()
    assert time.monotonic() - before < 5 * GRACE


def test_the_process_that_serves_the_store_leaves_last():
    store = dist.HashStore()
    first, other = (RollCall(store, launch_of(rank), grace=20.0) for rank in (0, 1))
    store.set("heard/2", "")
    threading.Timer(0.3, other.close).start()
    before = time.monotonic()
    first.close()
    assert 0.2 < time.monotonic() - before < 8


def test_ranks_are_listed_up_to_a_few():
    assert name_ranks([3]) == "rank 3"
    assert name_ranks([1, 2]) == "rank 1, 2"
    assert name_ranks(range(1, 512)) == "rank 1, 2, 3, 4, 5, 6, 7, 8 and 503 others"


def test_work_within_a_time_gives_its_value_or_its_error():
    assert within(5.0, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 / 0)
    with pytest.raises(NoAnswerError, match=r"^timed out after 0.05 s$"):
        within(0.05, lambda: time.sleep(5))


def test_a_process_that_has_failed_is_not_ended_before_its_word():
    before = signal.getsignal(signal.SIGTERM)
    try:
        outlast_launcher()
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
