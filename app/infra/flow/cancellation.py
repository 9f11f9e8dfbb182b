"""Asks asyncio tasks to end, at once or when their time is over, without cutting off those that are ending already."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def cancel_once(task: asyncio.Task[Any]) -> None:
    """Cancel a task, unless it was asked to end before: a second request would cut off its cleaning up.

    A loop that shuts down asks every task by itself, ours among them. (Python 3.10 cannot tell that it did: there, the task is
    asked again.)
    """
    cancelling = getattr(task, "cancelling", None)
    if cancelling is None or not cancelling():
        task.cancel()


async def within(seconds: float, sleep: Callable[[float], Awaitable[None]], work: Coroutine[Any, Any, T], error: Exception) -> T:
    """Await some work for so many seconds at the most; after that it is cancelled, and waited for until it has ended.

    (Not `asyncio.wait_for`: its time cannot be an argument, and before Python 3.12 it may lose a cancellation.)

    Raises:
        BaseException: `error`, where the work was cut off; else what the work raises.
    """

    async def ring() -> None:
        await sleep(seconds)

    task = asyncio.get_running_loop().create_task(work, name="night-batch work with a time-out")
    alarm = asyncio.get_running_loop().create_task(ring(), name="night-batch time-out")
    waited: set[asyncio.Task[Any]] = {task, alarm}
    stopped: asyncio.CancelledError | None = None
    over = False
    try:
        while not task.done():
            try:
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError as cancelled:
                if stopped is None:
                    cancel_once(task)
                else:  # asked a second time: so is the work, which then stops waiting for others
                    task.cancel()
                stopped, waited = cancelled, {task}
            else:
                if not task.done():
                    over, waited = True, {task}
                    cancel_once(task)
    except GeneratorExit:  # the loop was closed under us, so nothing can be cancelled any more
        raise
    except BaseException:
        alarm.cancel()
        raise
    alarm.cancel()
    if stopped is not None:
        if not task.cancelled():
            task.result()  # what kept it from ending well is more than a cancellation
        raise stopped
    if over and task.cancelled():
        raise error
    return task.result()
