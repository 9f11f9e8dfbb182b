"""What is ready to start, by priority; of one priority, what came first goes first. Pure."""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Ready(Generic[T]):
    """A queue by priority. With the usual priority alone, as in most flows, it is a deque, and costs no more."""

    __slots__ = ("_levels", "_order", "is_plain", "usual")

    def __init__(self) -> None:
        self.usual: deque[T] = deque()
        """Those of priority 0."""
        self.is_plain = True
        """Whether there was never another priority: then `usual` is all there is."""
        self._levels: dict[int, deque[T]] = {}
        """Those of all others, and of 0 as soon as there are any."""
        self._order: list[int] = []
        """The priorities of these, negated: the highest first."""

    def __repr__(self) -> str:
        return f"<Ready: {len(self)}>"

    def __len__(self) -> int:
        return len(self.usual) if self.is_plain else sum(map(len, self._levels.values()))

    def put(self, item: T, priority: int = 0) -> None:
        """Take an item in, behind those of its priority."""
        if not priority:
            self.usual.append(item)
            return
        if self.is_plain:
            self.is_plain = False
            self._levels[0] = self.usual
            self._order.append(0)
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = deque()
            insort(self._order, -priority)
        level.append(item)

    def put_back(self, item: T, priority: int = 0) -> None:
        """Put in front again what was just taken."""
        (self._levels[priority] if priority else self.usual).appendleft(item)

    def best(self) -> int | None:
        """The highest priority that something has; None where there is nothing."""
        if self.is_plain:
            return 0 if self.usual else None
        for negated in self._order:
            if self._levels[-negated]:
                return -negated
        return None

    def head(self) -> T:
        """The first item of the highest priority.

        Raises:
            IndexError: there is none.
        """
        return self._first()[0]

    def take(self) -> T:
        """The first item of the highest priority, which is then no longer in it.

        Raises:
            IndexError: there is none.
        """
        return self._first().popleft()

    def _first(self) -> deque[T]:
        best = self.best()
        return self._levels[best] if best else self.usual
