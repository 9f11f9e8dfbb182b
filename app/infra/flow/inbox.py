"""Where the outcomes of attempts arrive, from any thread; a burst of them makes one turn of the loop.

Knows the loop; must not know what an outcome means.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable

from .executors import Outcome


class Inbox:
    """Where outcomes arrive, from the loop's thread or any other. A burst of them makes one turn.

    Args:
        turn: called by the event loop once something has arrived.
    """

    def __init__(self, turn: Callable[[], None]) -> None:
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # A turn sees the context variables of whoever drives the run, not those of the task that happened to end.
        self._variables = contextvars.copy_context()
        self._outcomes: deque[Outcome] = deque()
        self._called = False
        """Whether a turn is on its way."""

    def deliver(self, outcome: Outcome) -> None:
        """Take an outcome, from any thread."""
        self._outcomes.append(outcome)
        if not self._called:  # asked after the outcome is there: the turn that was called for finds it
            self.wake_from_anywhere()

    def wake_from_anywhere(self) -> None:
        """Have a turn made, from any thread."""
        if self._called:
            return
        try:
            if threading.get_ident() == self._thread:
                self.wake()
            else:
                self._called = True
                self._loop.call_soon_threadsafe(self._run, context=self._variables)
        except RuntimeError:
            # The loop is closed: a thread came back, or a coroutine was thrown away, after its run had been given up. Nobody
            # waits for its result, and the store says SCHEDULED, so it will be made again.
            self._outcomes.clear()

    def wake(self) -> None:
        """Have a turn made, from the loop's thread: not now, but as soon as the loop gets to it."""
        if not self._called:
            self._called = True
            self._loop.call_soon(self._run, context=self._variables)

    def _run(self) -> None:
        self._called = False
        self._turn()

    def take(self) -> Iterable[Outcome]:
        """The outcomes that have arrived, each once."""
        for _ in range(len(self._outcomes)):
            yield self._outcomes.popleft()
