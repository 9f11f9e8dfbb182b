"""Runs a coroutine to its end from a plain script, with the signal handling that asyncio.run lacks.

Knows signals and the loop; must not know flows.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .errors import RunningLoopError

T = TypeVar("T")


def run_to_end(work: Callable[[], Coroutine[Any, Any, T]], flow_name: str) -> T:
    """Run `work()` in an event loop of its own and return its result.

    The first SIGINT or SIGTERM cancels it; once it has put things in order, KeyboardInterrupt or SystemExit(143) is raised. A
    second signal finds the handlers that were there before, so it stops the program at once. Outside the main thread, and
    where the platform has no loop signal handlers (Windows), signals are left alone.

    Raises:
        RunningLoopError: an event loop is running in this thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RunningLoopError(flow_name)
    received: list[int] = []

    async def guarded() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work())
        installed: list[int] = []

        def restore() -> None:
            while installed:
                loop.remove_signal_handler(installed.pop())

        def stop(number: int) -> None:
            received.append(number)
            restore()
            task.cancel()

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                try:
                    loop.add_signal_handler(number, stop, number)
                except (NotImplementedError, RuntimeError):
                    break
                installed.append(number)
        try:
            return await task
        finally:
            restore()

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        if not received:
            raise
    if received[0] == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + received[0])
