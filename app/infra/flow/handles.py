"""A run that is driven in the background: to await, to cancel, to stop, to follow. Loaded with the first of them.

Knows the loop and events; must not know how a run is made, driven or cancelled.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Hashable, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakSet, ref

from .cancellation import cancel_once
from .errors import NoRunningLoopError, RunActiveError, RunStoppedError
from .event_manager import Followers
from .events import Event
from .models import WorkflowRun

KEPT = 10_000
"""So many of a run's latest events are kept for those who begin to iterate late; some 2 MB."""

_under_way: set[asyncio.Task[Any]] = set()
"""What nobody else need hold: a loop knows its tasks weakly, and a handle may be dropped at once."""


def running_loop(flow_name: str) -> asyncio.AbstractEventLoop:
    """The loop that is to drive a run.

    Raises:
        NoRunningLoopError: there is none.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise NoRunningLoopError(flow_name) from None


def _hold(task: asyncio.Task[Any]) -> None:
    for other in [other for other in _under_way if other.get_loop().is_closed()]:
        _under_way.discard(other)  # it will never go on
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)


class RunHandle:
    """A run that `flow.start` drives in the background.

    `run = await handle` gives the run when it has ended, any number of times and to any number of tasks; failed tasks do not
    raise, as for `run_until_complete`, whose errors are raised here. Cancelling who awaits it does not touch the run: `cancel`
    (for good) and `stop` (to be continued) are for that. A handle need not be kept, or awaited: the run goes on without. What
    goes wrong in a run that nobody awaits is logged, as asyncio does for its tasks.

    It belongs to the event loop in which it was started. Elsewhere, `flow.run_until_complete(handle.run_id)` joins the run.

    Args:
        loop: where it is driven.
        run_id: the run.
        make: puts it into the store.
        drive: drives it to its end.
        caught_up: waits until those who were told of it have handled that.
        cancel: cancels it; whether there was anything to cancel.
        followers: those who follow single runs.
        key: the run, as they know it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        run_id: str,
        make: Callable[[], Coroutine[Any, Any, None]],
        drive: Callable[[], Coroutine[Any, Any, WorkflowRun]],
        caught_up: Callable[[], Coroutine[Any, Any, None]],
        cancel: Callable[[], Coroutine[Any, Any, bool]],
        followers: Followers,
        key: Hashable,
    ) -> None:
        self._run_id = run_id
        self._cancel_run = cancel
        self._stopping = False
        self._made: asyncio.Future[None] = loop.create_future()
        self._feed = feed = _Feed(loop)
        followers.add(key, feed)  # before anything can be told
        work = _background(self._made, make, drive, caught_up)
        self._task = loop.create_task(work, name=f"night-batch handle of run {run_id}")
        _hold(self._task)
        # The task must not hold the feed: who has dropped its handle wants no events, and none are made for it then.
        known = ref(feed)

        def ended(_: object) -> None:
            feed = known()
            followers.sweep(key, feed)
            if feed is not None:
                feed.end()

        self._task.add_done_callback(ended)

    def __repr__(self) -> str:
        state = "under way" if not self._task.done() else "stopped" if self._task.cancelled() else "done"
        return f"<RunHandle of run {self._run_id!r}, {state}>"

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run_id

    def done(self) -> bool:
        """Whether it is driven no more: it has ended, was stopped, or something went wrong. Then awaiting it takes no time."""
        return self._task.done()

    def __await__(self) -> Generator[Any, None, WorkflowRun]:
        return self._result().__await__()

    async def _result(self) -> WorkflowRun:
        task = self._task
        if not task.done():
            if asyncio.get_running_loop() is not task.get_loop():
                why = f"It was started in another event loop; here, await flow.run_until_complete({self._run_id!r})."
                raise RunActiveError(self._run_id, "await the handle of", why)
            await asyncio.wait([task])
        if task.cancelled():
            raise RunStoppedError(self._run_id)
        return task.result()

    async def made(self) -> str:
        """Wait until the run is in the store, so that a crash does not lose it; its id, to be handed to others.

        Raises:
            RunExistsError: another flow has a run of that id.
            StoreError: the store failed.
            RunStoppedError: it was stopped before.
        """
        if not self._made.done():
            either: list[asyncio.Future[Any]] = [self._made, self._task]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self._made.done():
            await self._result()
        return self._run_id

    def cancel(self) -> asyncio.Task[bool]:
        """Cancel the run for good, as `flow.cancel` does, without holding up the loop.

        It is asked for whether what is returned is awaited or not. The run ends soon after, when the grace period is over at the
        latest, and `await handle` then gives the cancelled run.

        Returns:
            An asyncio task. Awaited, it says whether there was anything to cancel: not so where the run has ended.
        """
        task = asyncio.get_running_loop().create_task(self._cancel(), name=f"night-batch cancelling of run {self._run_id}")
        _hold(task)
        return task

    async def _cancel(self) -> bool:
        with suppress(RunStoppedError):  # if it never came into the store, there is nothing to cancel
            await self.made()
            return await self._cancel_run()
        return False

    async def stop(self) -> None:
        """Interrupt the run so that it can be continued, and wait until it is saved. No effect if it has ended.

        What is under way is put back, as if who awaits `run_until_complete` were cancelled. Who awaits the handle gets a
        `RunStoppedError`. Others in this process who wait for the same run keep it going.

        Raises:
            StoreError: it could not be saved; it stands as of the last commit.
        """
        task = self._task
        if task.done():
            return
        if not self._stopping:
            self._stopping = True
            cancel_once(task)
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                task.cancel()  # asked again: so is the run, which then stops waiting for its tasks
                raise
        if not task.cancelled():
            task.result()

    def events(self) -> RunEvents:
        """The events of the run, and of the subflow runs inside it, from its start on, for `async for`; it ends with the run.

        Each call makes an iterator of its own, which misses nothing, whenever it is made: the latest 10,000 events are kept for
        that. Of a longer run, one that is made late begins with the oldest that are kept; its `missed` says how many came before.
        What is told in another process, where that drives the run, is not told here.
        """
        return RunEvents(self._feed)


async def _background(
    made: asyncio.Future[None],
    make: Callable[[], Coroutine[Any, Any, None]],
    drive: Callable[[], Coroutine[Any, Any, WorkflowRun]],
    caught_up: Callable[[], Coroutine[Any, Any, None]],
) -> WorkflowRun:
    try:
        await make()
    except asyncio.CancelledError:  # it was made all the same
        made.set_result(None)
        raise
    made.set_result(None)
    try:
        run = await drive()
    except GeneratorExit:  # the loop was closed under us, so nothing can be awaited any more
        raise
    except BaseException:
        await caught_up()
        raise
    with suppress(asyncio.CancelledError):  # whoever stops it now comes too late: it has ended
        await caught_up()
    return run


class _Feed:
    """What is told of one run, on its way to those who iterate over it. They need not say when they have gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._readers: WeakSet[RunEvents] = WeakSet()
        self.kept: deque[Event] = deque(maxlen=KEPT)
        self.told = 0
        self.ended = False

    def __call__(self, events: Sequence[Event]) -> None:
        if threading.get_ident() == self._thread:
            self._take(events)
            return
        with suppress(RuntimeError):  # the loop was closed, so nobody reads any more
            self._loop.call_soon_threadsafe(self._take, events)

    def _take(self, events: Sequence[Event]) -> None:
        self.kept.extend(events)
        self.told += len(events)
        for reader in list(self._readers):
            reader._take(events)

    def add(self, reader: RunEvents) -> None:
        self._readers.add(reader)

    def end(self) -> None:
        self.ended = True
        for reader in list(self._readers):
            reader._take(())


class RunEvents:
    """The events of one run to iterate over, as `RunHandle.events` makes it. It may be left at any time.

    Args:
        feed: where they come from.
    """

    def __init__(self, feed: _Feed) -> None:
        self._feed = feed
        self._queue = deque(feed.kept)
        self._news = asyncio.Event()
        self.missed = feed.told - len(self._queue)
        """How many events had been told, and were kept no more, when this was made."""
        feed.add(self)

    def __repr__(self) -> str:
        return f"<RunEvents, {len(self._queue)} to read{', ended' if self._feed.ended else ''}>"

    def _take(self, events: Sequence[Event]) -> None:
        self._queue.extend(events)
        self._news.set()

    def __aiter__(self) -> RunEvents:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._feed.ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._queue.popleft()
