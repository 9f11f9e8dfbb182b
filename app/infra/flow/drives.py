"""The runs that are being driven in this process: each by one asyncio task, which any number of callers wait for.

Knows asyncio; must not know how a run is driven.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from .errors import RunActiveError
from .models import WorkflowRun


class Drive:
    """One run that is being driven.

    Args:
        run_id: the run.
        work: drives it to its end.
    """

    def __init__(self, run_id: str, work: Coroutine[Any, Any, WorkflowRun]) -> None:
        self.run_id = run_id
        self.task = asyncio.get_running_loop().create_task(work, name=f"night-batch run {run_id}")
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Drive of run {self.run_id!r}, {self._waiting} waiting, {'done' if self.task.done() else 'under way'}>"

    async def wait(self) -> WorkflowRun:
        """Wait for the run together with its other callers.

        Whoever is cancelled last takes the run along, and waits until it is saved.

        Raises:
            RunActiveError: it is being driven in another event loop.
        """
        if self.task.get_loop() is not asyncio.get_running_loop():
            raise RunActiveError(self.run_id, "continue from another event loop")
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
        while not self.task.done():
            self.task.cancel()
            try:
                await asyncio.wait([self.task])
            except asyncio.CancelledError:
                continue  # asked again: so is the run, which then stops waiting for its tasks
        if not self.task.cancelled():
            self.task.result()  # what kept it from saving is more than a cancellation


class Drives:
    """The drives of one flow, by run id; each is forgotten when it ends."""

    def __init__(self) -> None:
        self._drives: dict[str, Drive] = {}

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._drives

    def get(self, run_id: str) -> Drive | None:
        """The drive of that run, if there is one."""
        return self._drives.get(run_id)

    def start(self, run_id: str, work: Coroutine[Any, Any, WorkflowRun]) -> Drive:
        """Begin to drive a run."""
        drive = self._drives[run_id] = Drive(run_id, work)
        drive.task.add_done_callback(lambda _: self._drives.pop(run_id, None))
        return drive
