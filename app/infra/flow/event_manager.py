"""Tells subscribers what happened. Whatever a subscriber does, the run goes on.

Knows events and who listens, to a flow or to a single run; must not know flows, stores or how events come about.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .errors import InvalidOptionError

if TYPE_CHECKING:
    from .async_handlers import AsyncHandler

_logger = logging.getLogger("night_batch.events")

if TYPE_CHECKING:
    from .events import Event

E = TypeVar("E", bound="Event")


class Audience(Protocol):
    """Whom a drive tells its events."""

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody listens to the events that come with every task: if not, these need not be made."""
        ...

    def emit(self, events: Sequence[Event]) -> None:
        """Hand the events to whoever listens."""
        ...


def _is_async(handler: object) -> bool:
    call = getattr(type(handler), "__call__", None)  # noqa: B004 - an object's own, which may be a coroutine function
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


def _hears_each(event_types: tuple[type, ...]) -> bool:
    """Whether one who subscribed to these is told of every task's start or success; not so who follows failures alone.

    Raises:
        InvalidOptionError: one of them is no class.
    """
    from .events import TaskStarted, TaskSucceeded  # late: whoever names such types has loaded them

    try:
        return True in [issubclass(common, event_types) for common in (TaskStarted, TaskSucceeded)]
    except TypeError:
        raise InvalidOptionError("event_types", event_types, "classes of events, such as TaskFailed") from None


class EventManager:
    """Hands each event to those who subscribed to its class, in the order in which they subscribed."""

    def __init__(self) -> None:
        self._handlers: dict[object, tuple[Callable[[Any], object], tuple[type, ...]]] = {}
        self._each: set[object] = set()
        """Those of them that would be told of every task's start or success."""
        self._async: dict[object, AsyncHandler] = {}
        """Those of them that are coroutine functions."""

    def __repr__(self) -> str:
        return f"<EventManager, {len(self._handlers)} subscribed>"

    @property
    def has_subscribers(self) -> bool:
        """See `Audience.has_subscribers`."""
        return bool(self._each)

    def subscribe(self, handler: Callable[[E], object], *event_types: type[E]) -> Callable[[], None]:
        """Have `handler` called with each event of the given classes, subclasses included; with every event if none is given.

        A plain function is called in the event loop's thread right after the event was committed, and should return soon: the
        loop, and the run with it, stands still until it does. A coroutine function holds up nobody: it gets its events in order,
        one at a time, while the run goes on, in the loop in which it subscribed (if that does not run, in the one that drives the
        run); what it has not handled waits in memory. Whoever awaits a run, by `run_until_complete`, `retry` or a handle, gets it
        after the run's events were handled, but waits no longer for that than the flow's `grace_period`.

        What either raises is logged. What was decided before it subscribed, and is being committed just then, it need not be
        told.

        Returns:
            A function that ends the subscription; what still waits for a coroutine function is dropped.

        Raises:
            InvalidOptionError: the handler cannot be called, or what is given beside it is no class.
        """
        if not callable(handler):
            raise InvalidOptionError("handler", handler, "a function, or a coroutine function, that takes an event")
        hears_each = not event_types or _hears_each(event_types)
        token = object()
        call: Callable[[Any], object] = handler
        if _is_async(handler):
            from .async_handlers import AsyncHandler  # late: most subscribers are plain functions

            call = self._async[token] = AsyncHandler(handler)
        self._handlers[token] = (call, event_types or (object,))
        if hears_each:
            self._each.add(token)

        def unsubscribe() -> None:
            self._each.discard(token)
            self._handlers.pop(token, None)
            ended = self._async.pop(token, None)
            if ended is not None:
                ended.end()

        return unsubscribe

    def emit(self, events: Sequence[Event]) -> None:
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

    @property
    def may_lag(self) -> bool:
        """Whether anybody listens who may not have handled what it was told: then `caught_up` has something to wait for."""
        return bool(self._async)

    async def caught_up(self, seconds: float) -> None:
        """Wait, for so many seconds at most, until coroutine functions have handled what they were told so far.

        One that this is called from is not waited for.
        """
        if self._async:
            from .async_handlers import all_caught_up  # late: most subscribers are plain functions

            await all_caught_up(list(self._async.values()), seconds)

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


class Followers:
    """Those who follow one run each, whoever drives it: told all that is told of it and of the runs inside it, in batches.

    They are known weakly, so that nobody need say that he has gone.
    """

    def __init__(self) -> None:
        self._by_run: dict[Hashable, tuple[weakref.ref[Callable[[Sequence[Event]], object]], ...]] = {}
        # What is stored is never changed, only replaced: whoever tells need not take the lock.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Followers of {len(self._by_run)} runs>"

    def add(self, key: Hashable, follower: Callable[[Sequence[Event]], object]) -> None:
        """Have `follower` called with what is told of a run, in any thread."""
        reference = weakref.ref(follower)
        with self._lock:
            self._by_run[key] = (*self._by_run.get(key, ()), reference)

    def sweep(self, key: Hashable, gone: Callable[[Sequence[Event]], object] | None) -> None:
        """Forget a follower of a run, and those who are no more."""
        with self._lock:
            rest = tuple(known for known in self._by_run.get(key, ()) if known() not in (None, gone))
            if rest:
                self._by_run[key] = rest
            else:
                self._by_run.pop(key, None)

    def of(self, key: Hashable) -> list[Callable[[Sequence[Event]], object]]:
        """Who follows a run."""
        if not self._by_run:
            return []
        return [follower for known in self._by_run.get(key, ()) if (follower := known()) is not None]

    def after_fork(self) -> None:
        """In a forked child: what is told here concerns nobody who was there before."""
        self._by_run, self._lock = {}, threading.Lock()


class RunAudience:
    """Whom a drive tells its events: the subscribers of the flow that drives, and the followers of the run.

    Args:
        flow: the flow's subscribers.
        followers: those of single runs.
        key: the run.
    """

    def __init__(self, flow: EventManager, followers: Followers, key: Hashable) -> None:
        self._flow = flow
        self._followers = followers
        self._key = key

    def __repr__(self) -> str:
        return f"<RunAudience of {self._key!r}, {self._flow!r}>"

    @property
    def has_subscribers(self) -> bool:
        """See `Audience.has_subscribers`."""
        # Asked in each turn of the loop: without a call, where nobody listens to anything.
        if self._flow._each:
            return True
        return bool(self._followers._by_run) and bool(self._followers.of(self._key))

    def emit(self, events: Sequence[Event]) -> None:
        """See `Audience.emit`."""
        if not events:  # as in nearly every turn where nobody listens
            return
        self._flow.emit(events)
        for follower in self._followers.of(self._key):
            follower(events)
