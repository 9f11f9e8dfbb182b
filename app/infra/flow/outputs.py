"""Which outputs of a run are in memory: of many, those that nobody waits for are let go, and read again if somebody asks.

Knows records, and a function that reads; must not know stores, the loop or what values the texts stand for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .records import TaskRecord, copy_of

MOST = 64 * 2**20
"""Characters of outputs that a run holds in memory without looking for some to let go."""
WORTH = 1024
"""Shorter ones are not worth it: the rest of a task takes as much."""
LOOKS = 200
"""Outputs looked at in one turn of the loop, so that it is never held up by this."""

ReadOutput = Callable[[str, int], str | None]
"""Reads the output of one task from a store, given its run and its position."""


class Outputs:
    """The outputs of one run's tasks.

    Args:
        read: reads one again; None where the store cannot: then all stay in memory.
        is_done_with: whether all tasks have ended that depend on a task directly. Others further down may still ask.
    """

    def __init__(self, read: ReadOutput | None, is_done_with: Callable[[TaskRecord], bool]) -> None:
        self._read = read
        self._is_done_with = is_done_with
        self._held: deque[tuple[TaskRecord, int]] = deque()
        self._size = 0
        self._gone: set[int] = set()
        """The positions of tasks whose outputs are in the store alone."""

    def __repr__(self) -> str:
        return f"<Outputs: {self._size:,} characters held, {len(self._gone)} let go>"

    @property
    def any_gone(self) -> bool:
        """Whether there are some that would have to be read again."""
        return bool(self._gone)

    def add(self, record: TaskRecord) -> bool:
        """Take note of a task that has an output; whether there is now so much that some should be let go."""
        size = 0 if record.output is None else len(record.output)
        if size < WORTH or self._read is None:
            return False
        self._held.append((record, size))
        self._size += size
        return self._size > MOST

    def let_go(self) -> bool:
        """Let go of the oldest that nobody waits for; to be called when all are committed. Whether there is still too much."""
        for _ in range(min(LOOKS, len(self._held))):
            if self._size <= MOST:
                return False
            record, size = self._held.popleft()
            if not self._is_done_with(record):
                self._held.append((record, size))
                continue
            self._size -= size
            if record.output is not None:  # else it was set back meanwhile
                self._gone.add(record.position)
                record.output = None
        return self._size > MOST

    def text(self, record: TaskRecord) -> str | None:
        """The text of a task's output, wherever it is. From any thread: the output may be let go at this moment."""
        text = record.output
        if text is None and record.position in self._gone:
            assert self._read is not None
            return self._read(record.run_id, record.position)
        return text

    def whole(self, record: TaskRecord) -> TaskRecord:
        """The record with its output: a copy, if that had to be read."""
        if record.position not in self._gone:
            return record
        copied = copy_of(record)
        copied.output = self.text(record)
        return copied
