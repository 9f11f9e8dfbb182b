"""Tells subscribers what happened. Whatever a subscriber does, the run goes on.

Knows events and who listens; must not know flows, stores or how events come about.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .errors import InvalidOptionError
from .events import Event

_logger = logging.getLogger("night_batch.events")

E = TypeVar("E", bound=Event)


class EventManager:
    """Hands each event to those who subscribed to its class, in the order in which they subscribed."""

    def __init__(self) -> None:
        self._handlers: dict[object, tuple[Callable[[Any], object], tuple[type[Event], ...]]] = {}

    def __repr__(self) -> str:
        return f"<EventManager, {len(self._handlers)} subscribed>"

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody listens."""
        return bool(self._handlers)

    def subscribe(self, handler: Callable[[E], object], *event_types: type[E]) -> Callable[[], None]:
        """Have `handler` called with each event of the given classes, subclasses included; with every event if none is given.

        It is called in the event loop's thread right after the event was committed, and should return soon: the loop, and the run
        with it, stands still until it does. What it raises is logged. What was decided before it subscribed, and is being
        committed just then, it need not be told.

        Returns:
            A function that ends the subscription.

        Raises:
            InvalidOptionError: the handler cannot be called, or is a coroutine function (use `stream` to await things).
        """
        call = getattr(type(handler), "__call__", None)  # noqa: B004 - an object's own, which may be a coroutine function
        if not callable(handler) or inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call):
            raise InvalidOptionError("handler", handler, "a plain function; to await things, iterate over stream() in a task")
        token = object()
        self._handlers[token] = (handler, event_types or (Event,))

        def unsubscribe() -> None:
            self._handlers.pop(token, None)

        return unsubscribe

    def emit(self, events: Iterable[Event]) -> None:
        """Hand the events to their subscribers."""
        if not self._handlers:
            return
        for event in events:
            for handler, event_types in list(self._handlers.values()):
                if isinstance(event, event_types):
                    try:
                        handler(event)
                    except KeyboardInterrupt:
                        raise
                    except BaseException:
                        _logger.exception("a subscriber raised on %s; the run goes on", type(event).__name__)

    def stream(self, *event_types: type[Event]) -> EventStream:
        """The events of the given classes (all, if none is given) from now on, for `async for`."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        return EventStream(queue, self.subscribe(queue.put_nowait, *event_types))


class EventStream:
    """Events to iterate over, as `EventManager.stream` makes it. Its subscription ends when it is closed or no longer used."""

    def __init__(self, queue: asyncio.Queue[Event], unsubscribe: Callable[[], None]) -> None:
        self._queue = queue
        self.close = weakref.finalize(self, unsubscribe)
        """End the subscription. What has arrived can still be read."""

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        return await self._queue.get()
