"""When commits reach the disk: which of them flush at once, and a timer that flushes the others when their time is up.

Knows threads and a monotonic clock; must not know what is flushed, or how.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from .options import seconds_of

IDLE = 2.0
"""Seconds after which a timer with nothing to wait for ends; the next commit that is not flushed starts another."""


def check_interval(sync_interval: float | timedelta | None) -> float | None:
    """The interval in seconds; None is none.

    Raises:
        InvalidOptionError: it is no number of seconds from 0 on.
    """
    if sync_interval is None:
        return None
    expected = "a number of seconds from 0 (each commit) to a day, or None (the end of a run)"
    return seconds_of("sync_interval", sync_interval, expected, most=86_400)


class Flusher:
    """Keeps the promise of `sync_interval` for one store.

    A commit is to be flushed at once when the last flush is at least that long ago, else at the latest when the interval is over.

    Args:
        interval: seconds; 0 has every commit flushed, None only those that ask for it.
        flush: brings all commits so far to the disk; called in the timer's thread, and must not raise.
        monotonic: seconds of a monotonic clock.
    """

    def __init__(
        self, interval: float | None, flush: Callable[[], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval = interval
        self._flush = flush
        self._monotonic = monotonic
        self._condition = threading.Condition()
        self._last = float("-inf")
        self._pending = False
        self._waiting = False
        """Whether there is a timer."""
        self._closed = False

    def __repr__(self) -> str:
        return f"<Flusher every {self.interval} s, {'something' if self._pending else 'nothing'} to flush>"

    @property
    def pending(self) -> bool:
        """Whether a commit may not have reached the disk."""
        return self._pending

    def is_due(self, asked: bool = False) -> bool:
        """Whether the commit that is about to be made is to be flushed at once; `asked`: it must be."""
        return asked or (self.interval is not None and self._monotonic() - self._last >= self.interval)

    def flushed(self) -> None:
        """All commits so far are on the disk; said by whoever makes the commits, between two of them."""
        self._pending = False
        self._last = self._monotonic()

    def committed(self) -> None:
        """A commit was made and not flushed."""
        if self._pending:
            return
        with self._condition:
            self._pending, self._closed = True, False
            if self.interval is None:
                return
            if self._waiting:
                self._condition.notify()
                return
            self._waiting = True
        try:
            threading.Thread(target=self._wait, name="night-batch flush", daemon=True).start()
        except RuntimeError:  # the machine gives no more threads: the next commit that is due, or the run's end, flushes
            self._waiting = False

    def poll(self) -> bool:
        """Flush if there is something to flush and half its time is up; whether that was so.

        Half, since this holds up nobody: so in a burst of commits none is due, and has to wait for the disk itself.
        """
        if not self._pending or self.interval is None or self._monotonic() - self._last < self.interval / 2:
            return False
        self._pending = False  # before, not after: a commit made meanwhile may not be covered
        started = self._monotonic()
        self._flush()
        self._last = started
        return True

    def _wait(self) -> None:
        assert self.interval is not None
        while True:
            with self._condition:
                if not self._pending and not self._closed:
                    self._condition.wait(IDLE)
                if self._closed or not self._pending:
                    self._waiting = False
                    return
                self._condition.wait(max(0.001, self._last + self.interval / 2 - self._monotonic()))
            self.poll()

    def close(self) -> None:
        """End the timer; what is pending is its owner's to flush first."""
        with self._condition:
            self._closed = True
            self._pending = False
            self._condition.notify()

    def after_fork(self) -> None:
        """In a forked child: there is no timer, and nothing of the parent's to flush."""
        self._condition = threading.Condition()
        self._pending = self._waiting = self._closed = False
