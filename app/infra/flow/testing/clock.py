"""Time that takes none: a clock for tests, and an event loop that goes by it.

Knows asyncio's event loops; must not know flows.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any
from weakref import WeakKeyDictionary

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
START = datetime(2030, 1, 1, tzinfo=timezone.utc)
"""What a clock says on the wall if nobody says otherwise: the same in each run of a test."""

PATIENCE = 10.0
"""Real seconds that a thread of somebody else's, or a file that was watched before, gets to wake a loop without a timer."""


class VirtualClock:
    """Time that passes only where everybody waits for it, and then at once.

    Delays of retries, time-outs and `asyncio.sleep` in tasks come in their order and take no time: a retry after an hour is
    tested in a millisecond. `run_flow(flow, clock=clock)` goes by it; flows that a test drives itself do so within `with
    clock.rules():`, if they were made with it: `AsyncFlow("etl", clock=clock)`.

    While something real is going on (a function in a thread of the loop's, as by `asyncio.to_thread`, another process, a socket
    or a pipe), time is real, since nobody can know how long that will take; what it takes is added to the clock. A thread that is
    started otherwise is not known of: timers do not wait for it.

    Where nothing is going on and no timer runs, what is awaited never comes: that ends with a TimeoutError. Threads and files of
    somebody else's get ten real seconds before, for they may bring it.

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
            RuntimeError: no loop is given, and none is running; or it goes by another clock already.
            TimeoutError: all that is awaited in the `with` waits for what never comes.
        """
        with self._rules(loop):
            yield self

    @contextmanager
    def _rules(self, loop: asyncio.AbstractEventLoop | None = None, why: Callable[[], str] | None = None) -> Iterator[None]:
        """`rules`; `why` says what hangs, if that comes to it."""
        ruled: Any = asyncio.get_running_loop() if loop is None else loop
        kind: type[Any] = type(ruled)
        if getattr(ruled, "_selector", None) is None or not issubclass(kind, asyncio.BaseEventLoop):
            raise TypeError(f"a VirtualClock rules event loops of asyncio's own, not {kind.__module__}.{kind.__name__}")
        rule = _RULES.get(ruled)
        if rule is None:
            rule = _RULES[ruled] = _Rule(ruled, self)
        elif rule.clock is not self:
            raise RuntimeError("This event loop goes by another VirtualClock already: give both the same, by clock=.")
        waits = _Waits(asyncio.current_task() if asyncio._get_running_loop() is ruled else None, why)
        rule.inside.append(waits)
        try:
            yield
        except asyncio.CancelledError:
            if waits.hangs is None:
                raise
            waits.forgive()
            raise TimeoutError(waits.hangs) from None
        finally:
            rule.inside.remove(waits)
            if not rule.inside:
                del _RULES[ruled]
                rule.end()

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


def ruling_clock() -> VirtualClock | None:
    """The clock that the running loop goes by: two runs side by side in one loop share their time."""
    rule = _RULES.get(asyncio.get_running_loop())
    return None if rule is None else rule.clock


class _Waits:
    """One who waits inside `rules`.

    Args:
        task: it; None where the loop did not run yet.
        why: says what hangs.
    """

    def __init__(self, task: asyncio.Task[Any] | None, why: Callable[[], str] | None) -> None:
        self._task = task
        self._why = why
        self.hangs: str | None = None
        """What hangs, once that is known."""

    def give_up(self) -> bool:
        """End the waiting, since it is in vain; whether that could be done."""
        if self._task is None or self._task.done():
            return False
        if self.hangs is None:
            what = "what is awaited never comes" if self._why is None else self._why()
            self.hangs = f"{what}: no timer runs, and nothing real is going on that could wake anybody"
        return self._task.cancel()

    def forgive(self) -> None:
        """The cancellation is told as something else."""
        uncancel = getattr(self._task, "uncancel", None)
        if uncancel is not None:  # new in Python 3.11
            uncancel()


class _Ahead:
    """The time of a loop that went by a clock: it begins anywhere, but must go on from where it is."""

    def __init__(self, real: Callable[[], float], ahead: float) -> None:
        self.real = real
        self._ahead = ahead

    def __call__(self) -> float:
        return self.real() + self._ahead


class _Rule:
    """A loop that goes by a clock.

    Args:
        loop: the loop.
        clock: the clock.
    """

    def __init__(self, loop: Any, clock: VirtualClock) -> None:
        self.clock = clock
        self.inside: list[_Waits] = []
        """Who waits in it, and would not for ever."""
        self._loop = loop
        self._selector = loop._selector
        self._submit = submit = loop.run_in_executor
        # However often one loop goes by a clock, its time is asked by way of one function.
        self._time: Callable[[], float] = loop.time.real if isinstance(loop.time, _Ahead) else loop.time
        base = loop.time() - clock._elapsed
        self.real = real = _Real(self._selector)

        def run_in_executor(executor: Any, function: Any, *arguments: Any) -> Any:
            future = submit(executor, function, *arguments)
            real.futures.add(future)
            future.add_done_callback(real.futures.discard)
            return future

        loop._selector = _Hurried(self._selector, clock, self)
        loop.time = lambda: base + clock._elapsed
        loop.run_in_executor = run_in_executor
        clock._loops.append(loop)
        clock._busy.append(real.is_going_on)

    def end(self) -> None:
        """Have the loop go by real time again."""
        self.clock._busy.remove(self.real.is_going_on)
        self.clock._loops.remove(self._loop)
        self._loop._selector = self._selector
        self._loop.run_in_executor = self._submit
        self._loop.time = _Ahead(self._time, self._loop.time() - self._time())

    def is_alone(self) -> bool:
        """Whether there is nobody who could wake the loop: no thread of anybody's, and no file that it watches."""
        return threading.active_count() == 1 and self.real.count() <= 1  # with one it wakes itself

    def give_up(self) -> bool:
        """End the waiting of the last who came; whether there was one."""
        return any(waits.give_up() for waits in reversed(self.inside))


_RULES: WeakKeyDictionary[asyncio.AbstractEventLoop, _Rule] = WeakKeyDictionary()


class _Real:
    """What an event loop waits for that is no timer: files that it watches, functions in threads of its own, child processes."""

    def __init__(self, selector: Any) -> None:
        self._selector = selector
        self._watched = self.count()
        self.futures: set[Any] = set()

    def count(self) -> int:
        """How many files are watched."""
        files = getattr(self._selector, "get_map", None)
        return len(files() or () if files is not None else getattr(self._selector, "_cache", ()))

    def is_going_on(self) -> bool:
        return bool(self.futures) or self.count() > self._watched or self._has_children()

    @staticmethod
    def _has_children() -> bool:
        """Whether asyncio waits for the end of a child process in a thread, as it does where it cannot watch it as a file."""
        return threading.active_count() > 1 and any("waitpid-" in thread.name for thread in threading.enumerate())


class _Hurried:
    """Stands before the selector of an event loop: where that would wait for a timer alone, the time is over at once."""

    def __init__(self, inner: Any, clock: VirtualClock, rule: _Rule) -> None:
        self._inner = inner
        self._clock = clock
        self._rule = rule

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def select(self, timeout: float | None = None) -> Any:
        """What asyncio calls to wait: for files and wake-ups from other threads, and no longer than until the next timer."""
        if timeout is not None and timeout <= 0:
            return self._inner.select(timeout)
        if self._clock._is_real():
            began = time.monotonic()
            found = self._inner.select(timeout)
            self._clock._elapsed += time.monotonic() - began
            return found
        if timeout is None:
            return self._wait_for_others()
        found = self._inner.select(0)
        if not found:
            self._clock._elapsed += timeout
        return found

    def _wait_for_others(self) -> Any:
        """No timer runs: only somebody else could wake the loop."""
        found = self._inner.select(0 if self._rule.is_alone() else PATIENCE)
        if found or self._rule.give_up():
            return found
        return self._inner.select(None)
