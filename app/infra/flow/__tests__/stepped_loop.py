"""An event loop that a seed decides: time is an invention, what is ready runs in any order, and threads are turns of the loop.

Must not know the engine's promises: who looks for broken ones is `simulation`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any

from .. import lanes
from ..executors import Call, Deliver, ThreadExecutor
from ..off_loop import Worker
from .conftest import FakeClock

MOST_TURNS = 20_000


class Hang(AssertionError):
    """It would never end."""


class SteppedLoop(asyncio.BaseEventLoop):
    """An event loop that waits for nothing: where nothing is ready, it is the time of the next timer.

    Args:
        shuffle: puts what is ready into another order, in place; as often as the loop turns.
        each_turn: is called with the number of the turn.
    """

    def __init__(self, shuffle: Callable[[Any], None], each_turn: Callable[[int], None]) -> None:
        super().__init__()
        self._selector = self
        self._shuffle = shuffle
        self._each_turn = each_turn
        self._now = 0.0
        self.turns = 0

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> tuple[()]:
        """What asyncio calls to wait for files; there are none."""
        self.turns += 1
        if timeout is None:
            raise Hang("it hangs: nothing is ready, and nothing ever will be")
        if self.turns > MOST_TURNS:
            raise Hang(f"it hangs: {MOST_TURNS} turns of the loop have not ended it")
        self._now += timeout
        self._each_turn(self.turns)
        ready: Any = self._ready  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        if len(ready) > 1:
            self._shuffle(ready)
        return ()

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""


class LoopClock(FakeClock):
    """A clock that goes with the loop; the one on the wall may be set."""

    def __init__(self, loop: SteppedLoop) -> None:
        super().__init__()
        self._loop = loop
        self.jumped = False

    def now(self) -> int:
        return self.wall + round(self._loop.time() * 1e6)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jump(self, seconds: float) -> None:
        """Set the clock on the wall."""
        self.wall += round(seconds * 1e6)
        self.jumped = True


class TurnWorker(Worker):
    """Does on the loop, in a later turn, what the engine gives to a thread."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._waiting: deque[Callable[[], None]] = deque()

    def _put(self, job: Callable[[], None]) -> None:
        self._waiting.append(job)
        asyncio.get_running_loop().call_soon(lambda: self._waiting.popleft()())


class TurnThreads:
    """Runs functions in later turns of the loop, as if in threads: they begin late, take their time, and cannot be stopped."""

    def __init__(self, rng: Random, deliver: Deliver, max_threads: int = 64) -> None:
        self.capacity = rng.choice([64, 64, 1, 2])
        self._rng = rng
        self._deliver = deliver

    def start(self, call: Call) -> None:
        loop, rng, variables = asyncio.get_running_loop(), self._rng, contextvars.copy_context()

        def work() -> None:
            outcome = variables.run(ThreadExecutor._run, call)
            loop.call_later(rng.choice([0.0, 0.0, 0.01, 0.3]), self._deliver, outcome)

        loop.call_later(rng.choice([0.0, 0.0, 0.01, 0.3]), work)

    def stop(self, call: Call) -> bool:
        """A thread can only be given up."""
        return False

    def cancel(self) -> None:
        """Nor can all of them."""

    async def wait(self, seconds: float) -> None:
        """So there is nothing to wait for."""

    def close(self) -> None:
        """Late outcomes find nobody."""


@contextmanager
def turns_for_threads(rng: Random) -> Iterator[None]:
    """Have the engine use turns of the loop where it would use threads."""
    module: Any = lanes
    threads = module.ThreadExecutor
    module.ThreadExecutor = partial(TurnThreads, rng)
    try:
        yield
    finally:
        module.ThreadExecutor = threads
