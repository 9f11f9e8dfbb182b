"""The runs that are being driven in this process: each by one asyncio task, which any number of callers wait for, in any thread.

Knows asyncio; must not know how a run is driven.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

from .cancellation import cancel_once
from .errors import InvalidNameError, RunActiveError, RunMismatchError, UnknownTaskError
from .models import WorkflowRun

Key = tuple[str, str]
"""Which store, and which run."""

LOOK = 1.0
"""Seconds between two looks at whether the event loop of another thread still lives, while its run is waited for."""

_driven_here: ContextVar[frozenset[Key]] = ContextVar("night_batch_driven_here", default=frozenset())
"""The runs of which the running code is a task, or a task's task: one of these cannot be waited for, it would wait for itself."""


class DriveStopped(Exception):  # noqa: N818 - it is a signal between two rooms, and no error
    """The callers who drove the run in another thread were cancelled; whoever still wants its end has to drive it."""


class Drive:
    """One run that is being driven.

    Args:
        key: the run.
        flow_name: its flow.
        work: drives it to its end.
        alone: whether more was asked for than that, which may be refused; see `Drives.run`.
    """

    def __init__(
        self, key: Key, flow_name: str, work: Callable[[], Coroutine[Any, Any, WorkflowRun]], alone: bool = False
    ) -> None:
        self.key = key
        self.flow_name = flow_name
        self.alone = alone
        self.loop = asyncio.get_running_loop()
        self.task = self.loop.create_task(self._work(work), name=f"night-batch run {key[1]}")
        self.stopping = False
        """Its last caller was cancelled: it is being saved, and can be started anew after that."""
        self.tree: Mapping[str, Any] = {}
        """The runs that it has in memory, by id, for those who look at them."""
        self._lock = threading.Lock()
        self._callers: set[object] = set()
        self._elsewhere: list[Future[WorkflowRun]] = []
        self.task.add_done_callback(self._tell_others)

    def __repr__(self) -> str:
        return f"<Drive of run {self.key[1]!r}, {len(self._callers)} waiting, {'done' if self.task.done() else 'under way'}>"

    async def _work(self, work: Callable[[], Coroutine[Any, Any, WorkflowRun]]) -> WorkflowRun:
        _driven_here.set(_driven_here.get() | {self.key})
        return await work()

    async def wait(self) -> WorkflowRun:
        """Wait for the run together with its other callers.

        Whoever is cancelled last takes the run along, and waits until it is saved.

        Raises:
            DriveStopped: it was stopped by a caller in another thread.
        """
        here = asyncio.get_running_loop() is self.loop
        me = object()
        with self._lock:
            self._callers.add(me)
        try:
            return await (self._result() if here else self._result_from_elsewhere())
        except asyncio.CancelledError:
            if self._leave(me):
                await (self._stop() if here else self._stop_from_elsewhere())
            raise
        finally:
            self._leave(me)

    def _leave(self, caller: object) -> bool:
        """Whether that was the last caller: of two who leave at once, in two threads, exactly one is."""
        with self._lock:
            self._callers.discard(caller)
            return not self._callers

    async def _result(self) -> WorkflowRun:
        while not self.task.done():
            await asyncio.wait([self.task])
        if self.stopping and self.task.cancelled():  # not by us: we came when it had been decided already
            raise DriveStopped
        return self.task.result()

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

    def abandon(self) -> None:
        """Have what it holds given up: its event loop was closed, so it will never go on by itself."""
        self.task.get_coro().close()

    # --- for callers in other threads ---

    def _tell_others(self, task: asyncio.Task[WorkflowRun]) -> None:
        with self._lock:
            others, self._elsewhere = self._elsewhere, []
        for other in others:
            if not other.set_running_or_notify_cancel():
                continue
            if task.cancelled():
                other.set_exception(DriveStopped())
            elif (error := task.exception()) is not None:
                other.set_exception(error)
            else:
                other.set_result(task.result())

    async def _result_from_elsewhere(self) -> WorkflowRun:
        told: Future[WorkflowRun] = Future()
        with self._lock:
            if self.task.done():
                raise DriveStopped  # whatever came of it, the store says it too
            self._elsewhere.append(told)
        answer = asyncio.wrap_future(told)
        try:
            while not answer.done():
                # A loop that was closed under its tasks tells nobody.
                await asyncio.wait([answer], timeout=LOOK)
                if self.loop.is_closed() and not answer.done():
                    raise DriveStopped
            return answer.result()
        finally:
            told.cancel()  # whoever does not wait any more need not be told, and its loop may soon be closed

    async def _stop_from_elsewhere(self) -> None:
        def stop() -> None:
            self.stopping = True
            cancel_once(self.task)

        try:
            self.loop.call_soon_threadsafe(stop)
            while True:
                try:
                    await self._result_from_elsewhere()
                except asyncio.CancelledError:
                    self.loop.call_soon_threadsafe(self.task.cancel)
                else:
                    return
        except (DriveStopped, RuntimeError):  # it is saved, or its loop is closed
            return


class Drives:
    """The drives of this process, by store and run; each is forgotten when it ends."""

    def __init__(self) -> None:
        self._drives: dict[Key, Drive] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: object) -> bool:
        return key in self._drives

    async def run(
        self, key: Key, flow_name: str, work: Callable[[], Coroutine[Any, Any, WorkflowRun]], alone: str | None = None
    ) -> WorkflowRun:
        """Wait for the run's end: with those who drive it already, or else by driving it.

        Args:
            key: the run.
            flow_name: its flow.
            work: drives it.
            alone: what cannot be done together with others, in the words of the error; None where they are welcome.

        Raises:
            RunActiveError: the caller is one of the run's own tasks; or there are others, and it wants to be alone.
            RunMismatchError: it is being driven as a run of another flow.
        """
        if alone is None and key in _driven_here.get():
            raise RunActiveError(key[1], "await", "A task cannot wait for the run that it is part of.")
        while True:
            with self._lock:
                drive = self._drives.get(key)
                if drive is not None and drive.loop.is_closed():
                    drive.abandon()
                    drive = None
                mine = drive is None
                if drive is None:
                    drive = self._start(key, flow_name, work, alone is not None)
                elif alone is not None and not drive.task.done():
                    raise RunActiveError(key[1], alone)
            if drive.flow_name != flow_name:
                raise RunMismatchError(key[1], drive.flow_name, flow_name)
            here = drive.loop is asyncio.get_running_loop()
            if here and (drive.stopping or drive.task.done()):
                await asyncio.wait([drive.task])
                self._forget(drive)
                continue
            try:
                return await drive.wait()
            except DriveStopped:
                self._forget(drive)
            except (InvalidNameError, UnknownTaskError):
                if mine or not drive.alone:
                    raise
                self._forget(drive)  # that is the answer to what somebody else asked for; we asked for the run

    def show(self, key: Key, tree: Mapping[str, Any]) -> None:
        """Have a drive's runs be looked at."""
        drive = self._drives.get(key)
        if drive is not None:
            drive.tree = tree

    def tree(self, key: Key) -> Mapping[str, Any]:
        """The runs that are in memory of one that is driven, by id; nothing where it is not driven here."""
        drive = self._drives.get(key)
        return {} if drive is None else drive.tree

    def _start(self, key: Key, flow_name: str, work: Callable[[], Coroutine[Any, Any, WorkflowRun]], alone: bool) -> Drive:
        drive = self._drives[key] = Drive(key, flow_name, work, alone)
        drive.task.add_done_callback(lambda _: self._forget(drive))
        return drive

    def _forget(self, drive: Drive) -> None:
        if self._drives.get(drive.key) is drive:
            del self._drives[drive.key]

    def after_fork(self) -> None:
        """In a forked child: nothing is driven here."""
        self._drives, self._lock = {}, threading.Lock()
