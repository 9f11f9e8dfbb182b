"""Asks asyncio tasks to end, without cutting off those that are ending already."""

from __future__ import annotations

import asyncio
from typing import Any


def cancel_once(task: asyncio.Task[Any]) -> None:
    """Cancel a task, unless it was asked to end before: a second request would cut off its cleaning up.

    A loop that shuts down asks every task by itself, ours among them. (Python 3.10 cannot tell that it did: there, the task is
    asked again.)
    """
    cancelling = getattr(task, "cancelling", None)
    if cancelling is None or not cancelling():
        task.cancel()
