"""A thread of one's own for work that may block: done in the order in which it was asked for, and awaited from the event loop.

Knows threads and the loop; must not know what the work is.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from .forks import watch

T = TypeVar("T")

IDLE = 5.0
"""Seconds after which a thread that has nothing to do ends; the next work starts another."""


class Worker:
    """One thread, started when there is work. asyncio's own pool is not used: other code of the program may have filled it.

    Args:
        name: of the thread, for debuggers.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._condition = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._working = False
        watch(self)

    def __repr__(self) -> str:
        return f"<Worker {self._name!r}, {len(self._jobs)} waiting>"

    async def do(self, work: Callable[[], T]) -> T:
        """Do the work in the thread and wait for it.

        A caller that is cancelled meanwhile waits on until the work is done, since it cannot be stopped half way; the
        cancellation is raised then. The work's own error wins over it.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        def job() -> None:
            result: Any = None
            failure: BaseException | None = None
            try:
                result = work()
            except BaseException as error:
                failure = error
            try:
                loop.call_soon_threadsafe(settle, result, failure)
            except RuntimeError:  # the loop was closed, so nobody waits any more
                pass

        self._put(job)
        cancelled: asyncio.CancelledError | None = None
        while not answer.done():
            try:
                await asyncio.wait([answer])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            answer.result()
            raise cancelled
        return answer.result()

    def _put(self, job: Callable[[], None]) -> None:
        with self._condition:
            self._jobs.append(job)
            if self._working:
                self._condition.notify()
                return
            self._working = True
            try:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            except RuntimeError:  # the machine gives no more threads
                self._working = False
                self._jobs.pop()
            else:
                return
        job()  # better to hold up the loop than to fail

    def _work(self) -> None:
        while True:
            with self._condition:
                if not self._jobs and not self._condition.wait_for(lambda: self._jobs, IDLE):
                    self._working = False
                    return
                job = self._jobs.popleft()
            job()
            del job  # lest an idle thread keep the last work's records alive

    def after_fork(self) -> None:
        """In a forked child: the thread stayed with the parent, and so did its work."""
        self._condition = threading.Condition()
        self._jobs, self._working = deque(), False
