"""Coroutine functions that subscribed to events: each gets its events in order, one at a time, and holds up nobody.

Knows the loop and threads; must not know what an event means, or who tells it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from typing import Any

from .events import Event

_logger = logging.getLogger("night_batch.events")

_handling: ContextVar[tuple[AsyncHandler, ...]] = ContextVar("night_batch_handling", default=())
"""The handlers of which the running code is a part: they cannot be waited for, they would wait for themselves."""


class AsyncHandler:
    """A coroutine function with the events that wait for it. Calling it with an event, in any thread, adds that one.

    While there are events, one asyncio task takes them in turn: in the loop in which this was made, as long as that runs, else in
    the loop in which the event is told. What is told where no loop runs waits for the next event, or for `caught_up`.

    Args:
        handler: the coroutine function.
    """

    def __init__(self, handler: Callable[[Any], Any]) -> None:
        self._handler = handler
        self._home = _running_loop()
        # Not that of whoever tells: a handler is no part of the run that it hears of.
        self._context = copy_context()
        self._lock = threading.Lock()
        self._queue: deque[Event] = deque()
        self._arrived = 0
        self._handled = 0
        self._ended = False
        self._at_work: asyncio.AbstractEventLoop | None = None
        """The loop in which the events are being taken."""
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[tuple[int, Future[None]]] = []

    def __repr__(self) -> str:
        return f"<AsyncHandler {self._handler!r}, {len(self._queue)} waiting>"

    def __call__(self, event: Event) -> None:
        """Have the event handled, after those that are waiting."""
        with self._lock:
            if self._ended:
                return
            self._queue.append(event)
            self._arrived += 1
        self._wake()

    def end(self) -> None:
        """Drop what waits, and take no more. What is being handled is handled to its end, which nobody waits for."""
        with self._lock:
            self._ended = True
            self._queue.clear()
            self._handled = self._arrived
            answered = self._take_answered()
        _answer(answered)

    def caught_up(self) -> Future[None] | None:
        """Done once everything that has arrived so far was handled; None if it was."""
        with self._lock:
            if self._handled >= self._arrived:
                return None
            answer: Future[None] = Future()
            self._waiting.append((self._arrived, answer))
        self._wake()
        return answer

    def _wake(self) -> None:
        here = _running_loop()
        home = self._home if self._home is not None and self._home.is_running() else here
        if home is None:
            return
        if home is here:
            self._begin(home)
            return
        try:
            home.call_soon_threadsafe(self._begin, home)
        except RuntimeError:  # it was closed just now; the next one to wake us finds another loop
            pass

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if not self._queue or (self._at_work is not None and not self._at_work.is_closed()):
                return
            self._at_work = loop
        self._task = self._context.copy().run(loop.create_task, self._work(loop))

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        _handling.set((*_handling.get(), self))
        try:
            while (event := self._next(loop)) is not None:
                try:
                    await self._handle(event, loop)
                finally:
                    with self._lock:
                        self._handled += 1
                        answered = self._take_answered()
                    _answer(answered)
        finally:
            with self._lock:
                if self._at_work is loop:
                    self._at_work = None

    def _next(self, loop: asyncio.AbstractEventLoop) -> Event | None:
        with self._lock:
            if self._queue:
                return self._queue.popleft()
            if self._at_work is loop:  # at once with the look into the queue: what arrives now begins anew
                self._at_work = None
            return None

    async def _handle(self, event: Event, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await self._handler(event)
        except KeyboardInterrupt:
            raise
        except asyncio.CancelledError:
            _logger.warning("a subscriber was cancelled while it handled %s; the run goes on", type(event).__name__)
            # The loop is being shut down, unless the handler raised that by itself, which Python 3.10 cannot tell. What waits is
            # taken up when somebody asks for it.
            cancelling = getattr(asyncio.current_task(), "cancelling", None)
            if cancelling is None or cancelling():
                raise
        except BaseException as error:
            if isinstance(error, GeneratorExit) and loop.is_closed():  # under us
                raise
            _logger.exception("a subscriber raised on %s; the run goes on", type(event).__name__)

    def _take_answered(self) -> list[Future[None]]:
        answered = [answer for count, answer in self._waiting if count <= self._handled]
        if answered:
            self._waiting = [(count, answer) for count, answer in self._waiting if count > self._handled]
        return answered


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _answer(waiting: Iterable[Future[None]]) -> None:
    for answer in waiting:
        if answer.set_running_or_notify_cancel():
            answer.set_result(None)


async def all_caught_up(handlers: Iterable[AsyncHandler], seconds: float) -> None:
    """Wait, for so many seconds at most, until each has handled what has arrived for it so far.

    Those are left out of which the caller is a part.
    """
    around = _handling.get()
    behind = {handler: answer for handler in handlers if handler not in around and (answer := handler.caught_up()) is not None}
    if not behind:
        return
    try:
        await asyncio.wait([asyncio.wrap_future(answer) for answer in behind.values()], timeout=seconds)
        for handler, answer in behind.items():
            if not answer.done():
                _logger.warning("a run is over, and after %g s this subscriber has not handled its events: %r", seconds, handler)
    finally:
        for answer in behind.values():
            answer.cancel()  # who does not wait any more need not be told
