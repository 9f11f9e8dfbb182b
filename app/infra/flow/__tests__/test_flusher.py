"""The promise of `sync_interval`, kept by a Flusher: with a clock that is set by hand, and timers that only count."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from .. import InvalidOptionError, flusher
from ..flusher import Flusher, check_interval


class Timers:
    """Threads that were asked for, and do nothing; or, where `left` is 0, that the machine did not give."""

    def __init__(self, left: int = 1000) -> None:
        self.started = 0
        self.left = left

    def __call__(self, target: Callable[[], None], name: str, daemon: bool) -> Timers:
        assert daemon
        assert name == "night-batch flush"
        return self

    def start(self) -> None:
        if not self.left:
            raise RuntimeError("can't start new thread")
        self.left -= 1
        self.started += 1


class Disk:
    """A flusher with all that it looks at: the time, the timers, and the flushes that it asked for, each with its time."""

    def __init__(self, interval: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.flushes: list[float] = []
        self.timers = Timers()
        monkeypatch.setattr(flusher, "threading", SimpleNamespace(Thread=self.timers, Condition=threading.Condition))
        self.flusher = Flusher(interval, self.flush, lambda: self.now)

    def flush(self) -> None:
        self.flushes.append(self.now)

    def commit(self, asked: bool = False) -> bool:
        """What a store does at each commit; whether it was flushed at once."""
        due = self.flusher.is_due(asked)
        if due:
            self.flusher.flushed()
        else:
            self.flusher.committed()
        return due

    def pending(self) -> bool:
        return self.flusher.pending

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def a_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[float | None], Disk]:
    return lambda interval: Disk(interval, monkeypatch)


def test_at_0_every_commit_is_flushed_at_once(a_disk: Callable[[float | None], Disk]) -> None:
    """With no time in between, too; nothing is ever pending, and no timer is needed."""
    disk = a_disk(0)
    assert [disk.commit() for _ in range(5)] == [True] * 5
    assert not disk.pending()
    assert disk.timers.started == 0


def test_with_none_only_those_are_flushed_that_ask(a_disk: Callable[[float | None], Disk]) -> None:
    """However much time goes by, and no timer is started."""
    disk = a_disk(None)
    assert not disk.commit()
    disk.pass_time(1e9)
    assert not disk.commit()
    assert disk.pending()
    assert not disk.flusher.poll()
    assert disk.commit(asked=True)
    assert not disk.pending()
    assert (disk.timers.started, disk.flushes) == (0, [])


def test_the_first_commit_is_flushed_at_once(a_disk: Callable[[float | None], Disk]) -> None:
    """There was no flush before, however young the process is."""
    disk = a_disk(86_400.0)
    disk.now = 0.0
    assert disk.commit()
    assert not disk.commit()


def test_a_trickle_is_flushed_one_by_one(a_disk: Callable[[float | None], Disk]) -> None:
    """Commits that are the interval apart, to the tick, wait for nothing and leave nothing pending."""
    disk = a_disk(0.5)
    for _ in range(5):
        assert disk.commit()
        assert not disk.pending()
        disk.pass_time(0.5)
    assert disk.timers.started == 0


def test_a_burst_shares_its_flushes(a_disk: Callable[[float | None], Disk]) -> None:
    """A thousand commits in a second: the first is flushed at once, the timer flushes the rest, some twenty times."""
    disk = a_disk(0.1)
    at_once = 0
    for _ in range(1000):
        at_once += disk.commit()
        disk.pass_time(0.001)
        disk.flusher.poll()  # as the timer's thread does all the time
    assert at_once == 1
    assert disk.timers.started == 1
    assert 15 <= len(disk.flushes) <= 20


def test_a_commit_is_never_pending_for_longer_than_the_interval(a_disk: Callable[[float | None], Disk]) -> None:
    """Wherever it falls between two flushes, the timer has flushed it half an interval after the last flush."""
    for after in (0.0, 0.01, 0.049, 0.051, 0.099):
        disk = a_disk(0.1)
        disk.commit()
        disk.pass_time(after)
        committed = disk.now
        assert not disk.commit()
        while not disk.flushes:
            disk.flusher.poll()
            disk.pass_time(0.001)
        assert disk.flushes[0] - committed <= 0.1
        assert not disk.pending()


def test_the_timer_is_lost_and_the_next_commit_still_flushes(a_disk: Callable[[float | None], Disk]) -> None:
    """Where the machine gives no thread, the first commit past the interval flushes; and a timer is asked for again."""
    disk = a_disk(0.1)
    disk.timers.left = 0
    disk.commit()
    assert not disk.commit()
    assert disk.timers.started == 0
    disk.pass_time(0.1)
    assert disk.commit()
    disk.timers.left = 1
    assert not disk.commit()
    assert disk.timers.started == 1


def test_nothing_to_flush_is_not_flushed(a_disk: Callable[[float | None], Disk]) -> None:
    """A look at the clock after a flush at once, or with no commit at all, does nothing."""
    disk = a_disk(0.1)
    disk.pass_time(10)
    assert not disk.flusher.poll()
    disk.commit()
    disk.pass_time(10)
    assert not disk.flusher.poll()
    assert disk.flushes == []


def test_a_commit_made_during_a_flush_stays_pending(a_disk: Callable[[float | None], Disk]) -> None:
    """It may have come too late for the disk, so it is flushed another time."""
    disk = a_disk(0.1)
    disk.commit()
    disk.commit()
    disk.pass_time(0.06)
    flush = disk.flusher._flush

    def slow() -> None:
        flush()
        if len(disk.flushes) == 1:
            disk.flusher.committed()

    disk.flusher._flush = slow
    assert disk.flusher.poll()
    assert disk.pending()
    disk.pass_time(0.06)
    assert disk.flusher.poll()
    assert not disk.pending()
    assert len(disk.flushes) == 2


def test_a_flush_that_takes_long_counts_from_its_beginning(a_disk: Callable[[float | None], Disk]) -> None:
    """What it covers is older than its end, so the next commit is due an interval after its beginning."""
    disk = a_disk(0.1)
    disk.commit()
    disk.commit()
    disk.pass_time(0.06)

    def slow() -> None:
        disk.flushes.append(disk.now)
        disk.pass_time(0.1)

    disk.flusher._flush = slow
    assert disk.flusher.poll()
    assert disk.commit()


def test_after_a_fork_there_is_no_timer_and_nothing_pending(a_disk: Callable[[float | None], Disk]) -> None:
    """The child's first commit that is not flushed starts a timer of its own."""
    disk = a_disk(0.1)
    disk.commit()
    disk.commit()
    assert (disk.pending(), disk.timers.started) == (True, 1)
    disk.flusher.after_fork()
    assert not disk.pending()
    disk.commit()
    assert disk.timers.started == 2


# --- the thread itself ---


class Told:
    """Counts flushes, and lets a test wait for one."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.count = 0

    def __call__(self) -> None:
        with self.condition:
            self.count += 1
            self.condition.notify_all()

    def wait_for(self, count: int) -> bool:
        with self.condition:
            return self.condition.wait_for(lambda: self.count >= count, 10)


@pytest.fixture
def threads() -> Iterator[Callable[[], list[threading.Thread]]]:
    """The timers that live; there must be none at the end."""

    def alive() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "night-batch flush"]

    for thread in alive():  # of other tests, idle
        thread.join(10)
    yield alive
    for thread in alive():
        thread.join(10)
    assert alive() == []


def test_the_timer_flushes_by_itself(threads: Callable[[], list[Any]]) -> None:
    """If no further commit comes, its thread flushes; one thread does for many commits, and ends when the flusher is closed."""
    told = Told()
    made = Flusher(0.002, told)
    for count in range(1, 4):
        made.committed()
        made.committed()
        assert told.wait_for(count)
        assert len(threads()) == 1
    made.close()
    for thread in threads():
        thread.join(10)
    assert threads() == []
    assert told.count == 3


def test_an_idle_timer_ends_and_another_comes(threads: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with nothing to flush has no thread for it."""
    monkeypatch.setattr(flusher, "IDLE", 0.005)
    told = Told()
    made = Flusher(0.001, told)
    for count in (1, 2):
        made.committed()
        assert told.wait_for(count)
        for thread in threads():
            thread.join(10)
        assert threads() == []


def test_closing_ends_a_timer_that_waits(threads: Callable[[], list[Any]]) -> None:
    """Closing does not wait out the interval, flushes nothing by itself, and the flusher can be used again."""
    told = Told()
    made = Flusher(3600.0, told, lambda: 0.0)
    made.flushed()
    made.committed()
    (thread,) = threads()
    made.close()
    thread.join(10)
    assert not thread.is_alive()
    assert (told.count, made.pending) == (0, False)
    made.committed()
    assert made.pending
    assert len(threads()) == 1
    made.close()


# --- what may be asked for ---


@pytest.mark.parametrize(
    ("given", "seconds"), [(0, 0.0), (0.05, 0.05), (timedelta(milliseconds=5), 0.005), (86_400, 86_400.0), (None, None)]
)
def test_intervals_that_make_sense(given: Any, seconds: float | None) -> None:
    """Seconds, a timedelta, or None."""
    assert check_interval(given) == seconds


@pytest.mark.parametrize("given", [-1, -1e-9, 86_401, float("nan"), float("inf"), True, "0.05", timedelta(-1), [1]])
def test_intervals_that_make_none(given: Any) -> None:
    """Everything else is refused by name, a bool and a text of digits too."""
    with pytest.raises(InvalidOptionError, match="sync_interval"):
        check_interval(given)
