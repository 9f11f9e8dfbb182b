"""What is due when: attempts that are to begin, and those whose time is over. Pure: the time is an argument."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

FEW = 64
"""So many entries that were struck off may stay in the heap, however small it is."""


class Entry(Generic[T]):
    """One thing that is due at some moment; by this it can be struck off."""

    __slots__ = ("due", "item", "number")

    def __init__(self, due: float, number: int, item: T) -> None:
        self.due = due
        self.number = number
        self.item: T | None = item

    def __lt__(self, other: Entry[T]) -> bool:
        return (self.due, self.number) < (other.due, other.number)

    def __repr__(self) -> str:
        return f"<Entry {self.item!r}, due at {self.due}>"


class Agenda(Generic[T]):
    """Items by the moment at which they are due, in seconds of a monotonic clock; of one moment, in the order of coming."""

    def __init__(self) -> None:
        self.entries: list[Entry[T]] = []
        """A heap. While it is empty nothing is noted down, which is quicker to see than to ask."""
        self._made = 0
        self._struck = 0

    def __repr__(self) -> str:
        return f"<Agenda of {len(self)}>"

    def __len__(self) -> int:
        return len(self.entries) - self._struck

    def put(self, due: float, item: T) -> Entry[T]:
        """Note an item down."""
        self._made += 1
        entry = Entry(due, self._made, item)
        heapq.heappush(self.entries, entry)
        return entry

    def strike(self, entry: Entry[T]) -> None:
        """Take an item off, in constant time: nearly all attempts end long before their time is over."""
        if entry.item is None:
            return
        entry.item = None
        self._struck += 1
        if self._struck > FEW and self._struck * 2 > len(self.entries):
            self.entries = [kept for kept in self.entries if kept.item is not None]
            heapq.heapify(self.entries)
            self._struck = 0

    def next_due(self) -> float | None:
        """When the first item is due; None where there is none."""
        self._drop_struck()
        return self.entries[0].due if self.entries else None

    def take_due(self, now: float) -> Iterator[T]:
        """Give out what is due by now, each once, in order."""
        while True:
            self._drop_struck()
            if not self.entries or self.entries[0].due > now:
                return
            entry = heapq.heappop(self.entries)
            item, entry.item = entry.item, None
            assert item is not None
            yield item

    def _drop_struck(self) -> None:
        while self.entries and self.entries[0].item is None:
            heapq.heappop(self.entries)
            self._struck -= 1
