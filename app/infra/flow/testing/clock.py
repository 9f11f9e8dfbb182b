"""Time that takes none: a clock for tests, and an event loop that goes by it.

Knows asyncio's event loops; must not know flows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
START = datetime(2030, 1, 1, tzinfo=timezone.utc)
"""What a clock says on the wall if nobody says otherwise: the same in each run of a test."""


class VirtualClock:
    """Time that passes only where everybody waits for it, and then at once.

    Delays of retries, time-outs and `asyncio.sleep` in tasks come in their order and take no time: a retry after an hour is
    tested in a millisecond. `run_flow(flow, clock=clock)` goes by it; flows that a test drives itself do so within `with
    clock.rules():`, if they were made with it: `AsyncFlow("etl", clock=clock)`.

    While something real is going on (a function in a thread or in another process, a socket or a pipe), time is real, since
    nobody can know how long that will take; what it takes is added to the clock.

    Args:
        start: what it says on the wall at first; a datetime with a time zone.
    """

    def __init__(self, start: datetime = START) -> None:
        self._elapsed = 0.0
        self._wall = 0
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._busy: list[Callable[[], bool]] = []
        self.set(start)

    def __repr__(self) -> str:
        return f"<VirtualClock at {self.at.isoformat()}, {self._elapsed:g} s after its start>"

    @property
    def elapsed(self) -> float:
        """Seconds that have passed by this clock since it was made."""
        return self._elapsed

    @property
    def at(self) -> datetime:
        """What it says on the wall: an aware UTC datetime."""
        return _EPOCH + timedelta(microseconds=self.now())

    def set(self, moment: datetime) -> None:
        """Set the clock on the wall, as an administrator would: no time passes by that, and nobody who waits wakes up.

        Args:
            moment: a datetime with a time zone.

        Raises:
            ValueError: it has no time zone.
        """
        if moment.tzinfo is None:
            raise ValueError(f"{moment!r} has no time zone; write datetime(..., tzinfo=timezone.utc)")
        self._wall = (moment - _EPOCH) // timedelta(microseconds=1) - round(self._elapsed * 1e6)

    def forward(self, seconds: float) -> None:
        """Let so much time pass. Who waits for less than that wakes up as soon as the event loop gets to it.

        For a function that would sleep: `monkeypatch.setattr(time, "sleep", clock.forward)`.

        Raises:
            ValueError: time does not go back.
        """
        if not seconds >= 0:
            raise ValueError(f"time does not go back, by {seconds!r} seconds; to change what is on the wall, there is set()")
        self._elapsed += seconds

    # --- what the engine asks; see `Clock` ---

    def now(self) -> int:
        """The clock on the wall, in microseconds since 1970 UTC."""
        return self._wall + round(self._elapsed * 1e6)

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return when so many seconds have passed by this clock.

        Raises:
            RuntimeError: the event loop does not go by this clock, so that they would never pass.
        """
        if asyncio.get_running_loop() not in self._loops:
            raise RuntimeError(
                "This event loop does not go by the VirtualClock: use run_flow(flow, clock=clock), or clock.rules()."
            )
        until = self._elapsed + seconds
        await asyncio.sleep(seconds)
        self._elapsed = max(self._elapsed, until)  # whatever was lost by rounding

    # --- event loops that go by it ---

    @contextmanager
    def rules(self, loop: asyncio.AbstractEventLoop | None = None) -> Iterator[VirtualClock]:
        """Have an event loop go by this clock, until the end of the `with`: all that waits in it, the test's own code included.

        So a time-out around the whole (`asyncio.timeout(5)`) counts virtual seconds as well. What the loop was watching
        already, such as a server of a fixture, does not count as something real that goes on.

        Args:
            loop: the event loop; the running one if left out.

        Raises:
            TypeError: the loop is none of asyncio's own (uvloop, say), and cannot be slowed down or hurried.
            RuntimeError: no loop is given, and none is running.
        """
        ruled: Any = asyncio.get_running_loop() if loop is None else loop
        inner = getattr(ruled, "_selector", None)
        kind: type[Any] = type(ruled)
        if inner is None or not issubclass(kind, asyncio.BaseEventLoop):
            raise TypeError(f"a VirtualClock rules event loops of asyncio's own, not {kind.__module__}.{kind.__name__}")
        if ruled in self._loops:
            yield self
            return
        beyond: Callable[[], float] = ruled.time
        base = beyond() - self._elapsed
        real = _Real(inner)
        submit = ruled.run_in_executor

        def run_in_executor(executor: Any, function: Any, *arguments: Any) -> Any:
            future = submit(executor, function, *arguments)
            real.futures.add(future)
            future.add_done_callback(real.futures.discard)
            return future

        ruled._selector = _Hurried(inner, self, real)
        ruled.time = lambda: base + self._elapsed
        ruled.run_in_executor = run_in_executor
        self._loops.append(ruled)
        self._busy.append(real.is_going_on)
        try:
            yield self
        finally:
            self._busy.remove(real.is_going_on)
            self._loops.remove(ruled)
            ruled._selector = inner
            ruled.run_in_executor = submit
            # A loop's time begins anywhere, but must go on from where it is.
            ahead = ruled.time() - beyond()
            ruled.time = lambda: beyond() + ahead

    @contextmanager
    def _heeding(self, is_busy: Callable[[], bool]) -> Iterator[None]:
        """Let time be real while something is going on that the loop cannot know of."""
        self._busy.append(is_busy)
        try:
            yield
        finally:
            self._busy.remove(is_busy)

    def _is_real(self) -> bool:
        return any(is_busy() for is_busy in self._busy)


class _Real:
    """What an event loop waits for that is no timer: files that it watches, and functions in threads of its own."""

    def __init__(self, selector: Any) -> None:
        self._selector = selector
        self._watched = self._count()
        self.futures: set[Any] = set()

    def _count(self) -> int:
        files = getattr(self._selector, "get_map", None)
        return len(files() or () if files is not None else getattr(self._selector, "_cache", ()))

    def is_going_on(self) -> bool:
        return bool(self.futures) or self._count() > self._watched


class _Hurried:
    """Stands before the selector of an event loop: where that would wait for a timer alone, the time is over at once."""

    def __init__(self, inner: Any, clock: VirtualClock, real: _Real) -> None:
        self._inner = inner
        self._clock = clock
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def select(self, timeout: float | None = None) -> Any:
        """What asyncio calls to wait: for files and wake-ups from other threads, and no longer than until the next timer."""
        if timeout is None or timeout <= 0:
            return self._inner.select(timeout)
        if self._clock._is_real():
            began = time.monotonic()
            found = self._inner.select(timeout)
            self._clock._elapsed += time.monotonic() - began
            return found
        found = self._inner.select(0)
        if not found:
            self._clock._elapsed += timeout
        return found
