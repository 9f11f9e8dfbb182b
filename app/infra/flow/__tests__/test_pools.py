"""Pools: slots that all runs of a process share, with nobody forgotten who waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from .. import InvalidOptionError
from .. import pools as room
from ..pools import Pool, declare, find, names


@pytest.fixture(autouse=True)
def no_pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins with none."""
    monkeypatch.setattr(room, "_pools", {})
    yield


def nobody() -> None:
    """Tells nothing."""


def test_slots_are_taken_up_to_the_size_of_the_pool_and_given_back() -> None:
    pool = Pool("db", 3)
    assert [pool.take(weight, "me", nobody) for weight in (2, 1, 1)] == [True, True, False]
    pool.give(2)
    assert pool.take(2, "me", nobody)


def test_whoever_found_no_room_is_told_once_when_some_is_given_back() -> None:
    pool, told = Pool("db", 1), list[str]()
    assert pool.take(1, "me", nobody)
    for who in ("a", "b", "a"):
        assert not pool.take(1, who, lambda who=who: told.append(who))  # type: ignore[misc]
    assert not pool.has_room(1, "c", lambda: told.append("c"))
    pool.give(1)
    assert sorted(told) == ["a", "b", "c"]
    pool.give(0)
    assert len(told) == 3


def test_whoever_leaves_is_not_told_but_the_others_are_for_it_may_have_been_its_turn() -> None:
    pool, told = Pool("db", 1), list[str]()
    pool.take(1, "me", nobody)
    pool.has_room(1, "a", lambda: told.append("a"))
    pool.has_room(1, "b", lambda: told.append("b"))
    pool.leave("a")
    assert told == ["b"]
    pool.leave("a")
    assert told == ["b"]


def test_what_is_heavier_than_a_pool_that_was_made_smaller_gets_it_alone() -> None:
    declare({"db": 5})
    pool = find("db")
    assert pool is not None
    pool.take(1, "me", nobody)
    declare({"db": 2})
    assert find("db") is pool
    assert not pool.take(4, "heavy", nobody)
    pool.give(1)
    assert pool.take(4, "heavy", nobody)
    assert not pool.take(1, "me", nobody)


def test_a_pool_that_is_made_larger_has_room_for_those_who_wait() -> None:
    declare({"db": 1})
    pool, told = find("db"), list[int]()
    assert pool is not None
    pool.take(1, "me", nobody)
    pool.has_room(1, "a", lambda: told.append(1))
    declare({"db": 2})
    assert told == [1]
    assert pool.take(1, "a", nobody)


@pytest.mark.parametrize(
    "pools", [{"db": 0}, {"db": -1}, {"db": True}, {"db": 1.5}, {"": 1}, {1: 1}, ["db"], "db", {"good": 1, "db": None}]
)
def test_pools_that_make_no_sense_are_refused_and_none_is_made(pools: object) -> None:
    with pytest.raises(InvalidOptionError, match="pools="):
        declare(pools)  # type: ignore[arg-type]
    assert names() == []


def test_threads_that_take_and_give_at_once_never_exceed_the_size() -> None:
    pool, used, most = Pool("db", 3), [0], [0]
    lock, gate = threading.Lock(), threading.Barrier(8)

    def work() -> None:
        gate.wait()
        done = 0
        while done < 200:
            if pool.take(1, object(), nobody):
                with lock:
                    used[0] += 1
                    most[0] = max(most[0], used[0])
                with lock:
                    used[0] -= 1
                pool.give(1)
                done += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert most[0] <= 3
    assert pool.take(3, "me", nobody)


def test_a_forked_child_has_the_pools_and_nothing_in_use() -> None:
    pool = Pool("db", 1)
    pool.take(1, "me", nobody)
    pool.after_fork()
    assert pool.take(1, "me", nobody)
