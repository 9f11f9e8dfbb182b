"""What is ready to start, by priority; of one priority, what came first goes first. Pure."""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Ready(Generic[T]):
    """A queue by priority. With one priority, as in most flows, it is a deque and costs no more."""

    __slots__ = ("_levels", "_order")

    def __init__(self) -> None:
        self._levels: dict[int, deque[T]] = {}
        self._order: list[int] = []
        """The priorities there ever were, negated: the highest first."""

    def __repr__(self) -> str:
        return f"<Ready: {len(self)}>"

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def put(self, item: T, priority: int = 0) -> None:
        """Take an item in, behind those of its priority."""
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = deque()
            insort(self._order, -priority)
        level.append(item)

    def put_back(self, item: T, priority: int = 0) -> None:
        """Put in front again what was just taken."""
        self._levels[priority].appendleft(item)

    def best(self) -> int | None:
        """The highest priority that something has; None where there is nothing."""
        for negated in self._order:
            if self._levels[-negated]:
                return -negated
        return None

    def head(self) -> T:
        """The first item of the highest priority.

        Raises:
            IndexError: there is none.
        """
        best = self.best()
        if best is None:
            raise IndexError("nothing is ready")
        return self._levels[best][0]

    def take(self) -> T:
        """The first item of the highest priority, which is then no longer in it.

        Raises:
            IndexError: there is none.
        """
        best = self.best()
        if best is None:
            raise IndexError("nothing is ready")
        return self._levels[best].popleft()
