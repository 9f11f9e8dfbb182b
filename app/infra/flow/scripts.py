"""Runs a coroutine to its end from a plain script, with the signal handling that asyncio.run lacks.

Knows signals and the loop; must not know flows.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from .errors import RunningLoopError

T = TypeVar("T")

LAST_CHANCE = 1.0
"""Seconds that what is left over gets to end, when the script's work is done."""

_logger = logging.getLogger("night_batch.scripts")


def run_to_end(work: Callable[[], Coroutine[Any, Any, T]], flow_name: str) -> T:
    """Run `work()` in an event loop of its own and return its result.

    The first SIGINT or SIGTERM cancels it; once it has put things in order, or ended, KeyboardInterrupt or SystemExit(143) is
    raised. A second signal finds the handlers that were there before, so it stops the program at once. Outside the main thread,
    and where the platform has no loop signal handlers (Windows), signals are left alone.

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
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        task = loop.create_task(work(), name=f"night-batch script of {flow_name}")
        with _signals_cancel(loop, task, received):
            try:
                result = loop.run_until_complete(task)
            except asyncio.CancelledError:
                if not received:
                    raise
            else:
                if not received:  # else the work had ended before it could be cancelled, and the script is to stop all the same
                    return result
        if received[0] == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + received[0])
    finally:
        try:
            _cancel_the_rest(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


@contextmanager
def _signals_cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], received: list[int]) -> Iterator[None]:
    """Have the first SIGINT or SIGTERM cancel the task; then, or at the end, put the handlers back that were there before."""
    before: dict[int, Any] = {}

    def restore() -> None:
        while before:
            number, handler = before.popitem()
            loop.remove_signal_handler(number)
            if handler is not None:  # None: it was not set from Python, and cannot be
                signal.signal(number, handler)

    def stop(number: int) -> None:
        received.append(number)
        restore()
        task.cancel()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            try:
                loop.add_signal_handler(number, stop, number)
            except (NotImplementedError, RuntimeError):
                break
            before[number] = handler
    try:
        yield
    finally:
        restore()


def _cancel_the_rest(loop: asyncio.AbstractEventLoop) -> None:
    """Give what still runs a last, bounded chance to end; asyncio.run would wait for ever for what will not be cancelled."""
    rest = asyncio.all_tasks(loop)
    for task in rest:
        task.cancel()
    if rest:
        _, deaf = loop.run_until_complete(asyncio.wait(rest, timeout=LAST_CHANCE))
        for task in deaf:
            _logger.warning("left behind: %r does not end although it was cancelled", task.get_name())
