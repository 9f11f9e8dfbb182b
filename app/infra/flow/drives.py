"""The runs that are being driven in this process: each by one asyncio task, which any number of callers wait for.

Knows asyncio; must not know how a run is driven.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .cancellation import cancel_once
from .errors import RunActiveError
from .models import WorkflowRun

_driven_here: ContextVar[frozenset[str]] = ContextVar("night_batch_driven_here", default=frozenset())
"""The runs of which the running code is a task, or a task's task: one of these cannot be waited for, it would wait for itself."""


class Drive:
    """One run that is being driven.

    Args:
        run_id: the run.
        work: drives it to its end.
    """

    def __init__(self, run_id: str, work: Coroutine[Any, Any, WorkflowRun]) -> None:
        self.run_id = run_id
        self.task = asyncio.get_running_loop().create_task(self._work(work), name=f"night-batch run {run_id}")
        self.stopping = False
        """Its last caller was cancelled: it is being saved, and can be started anew after that."""
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Drive of run {self.run_id!r}, {self._waiting} waiting, {'done' if self.task.done() else 'under way'}>"

    async def _work(self, work: Coroutine[Any, Any, WorkflowRun]) -> WorkflowRun:
        _driven_here.set(_driven_here.get() | {self.run_id})
        return await work

    async def wait(self) -> WorkflowRun:
        """Wait for the run together with its other callers.

        Whoever is cancelled last takes the run along, and waits until it is saved.
        """
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if self._waiting == 1:
                await self._stop()
            raise
        finally:
            self._waiting -= 1

    async def _stop(self) -> None:
        self.stopping = True
        cancel_once(self.task)
        while not self.task.done():
            try:
                await asyncio.wait([self.task])
            except asyncio.CancelledError:
                self.task.cancel()  # asked again: so is the run, which then stops waiting for its tasks
        if not self.task.cancelled():
            self.task.result()  # what kept it from saving is more than a cancellation


class Drives:
    """The drives of one flow, by run id; each is forgotten when it ends."""

    def __init__(self) -> None:
        self._drives: dict[str, Drive] = {}
        self._starting: set[str] = set()
        self._lock = threading.Lock()

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._drives or run_id in self._starting

    async def current(self, run_id: str) -> Drive | None:
        """The drive of that run, if there is one to wait for; one that is being saved is let end first.

        Raises:
            RunActiveError: the run is being driven in another event loop, or the caller is one of its tasks.
        """
        if run_id in _driven_here.get():
            raise RunActiveError(run_id, "await", "A task cannot wait for the run that it is part of.")
        while (drive := self._drives.get(run_id)) is not None:
            loop = drive.task.get_loop()
            if not loop.is_closed():
                if loop is not asyncio.get_running_loop():
                    raise _in_another_loop(run_id)
                if not (drive.stopping or drive.task.done()):
                    return drive
                await asyncio.wait([drive.task])
            self._forget(drive)
        return None

    @contextmanager
    def starting(self, run_id: str) -> Iterator[None]:
        """Hold the run's place while it is read, so that no other thread starts to drive it meanwhile.

        Raises:
            RunActiveError: another thread was faster.
        """
        with self._lock:
            if run_id in self:
                raise _in_another_loop(run_id)
            self._starting.add(run_id)
        try:
            yield
        finally:
            self._starting.discard(run_id)

    def start(self, run_id: str, work: Coroutine[Any, Any, WorkflowRun]) -> Drive:
        """Begin to drive a run."""
        drive = self._drives[run_id] = Drive(run_id, work)
        drive.task.add_done_callback(lambda _: self._forget(drive))
        return drive

    def _forget(self, drive: Drive) -> None:
        if self._drives.get(drive.run_id) is drive:
            del self._drives[drive.run_id]


def _in_another_loop(run_id: str) -> RunActiveError:
    return RunActiveError(run_id, "continue", "It is driven by another thread: await it in the event loop there.")
