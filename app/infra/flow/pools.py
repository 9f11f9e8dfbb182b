"""Pools: how many attempts may use a thing at once (the two connections of a database), over all runs of the process.

Knows threads, since runs may be driven in several; must not know what an attempt is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from .errors import InvalidOptionError
from .forks import watch


class Pool:
    """So many slots, shared by all who name it. Whoever found no room is told when some is given back.

    Args:
        name: what it is called.
        size: how many slots there are.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._used = 0
        self._lock = threading.Lock()
        self._waiting: dict[object, Callable[[], None]] = {}
        watch(self)

    def __repr__(self) -> str:
        return f"<Pool {self.name!r}, {self._used} of {self.size} slots in use>"

    def has_room(self, weight: int, who: object, tell: Callable[[], None]) -> bool:
        """Whether so many slots are free. What is heavier than the whole pool (which was made smaller) may have it for itself.

        Args:
            weight: how many.
            who: whoever asks; one who finds no room is told once, however often it asked.
            tell: called then, from any thread, as soon as it may be worth asking again.
        """
        with self._lock:
            if self._is_free(weight):
                return True
            self._waiting[who] = tell
            return False

    def take(self, weight: int, who: object, tell: Callable[[], None]) -> bool:
        """Take slots if so many are free; else as `has_room`."""
        with self._lock:
            if self._is_free(weight):
                self._used += weight
                return True
            self._waiting[who] = tell
            return False

    def _is_free(self, weight: int) -> bool:
        return not self._used or self._used + weight <= self.size

    def give(self, weight: int) -> None:
        """Give slots back."""
        with self._lock:
            self._used -= weight
            waiting, self._waiting = self._waiting, {}
        for tell in waiting.values():
            tell()

    def leave(self, who: object) -> None:
        """Wait no longer. Others who wait are told, for it may have been the one whose turn it was."""
        with self._lock:
            if self._waiting.pop(who, None) is None:
                return
            waiting = list(self._waiting.values())
        for tell in waiting:
            tell()

    def after_fork(self) -> None:
        """In a forked child: nothing runs yet."""
        self._lock, self._used, self._waiting = threading.Lock(), 0, {}


_pools: dict[str, Pool] = {}
"""Of this process: flows that are built anew for every request share their pools by name."""


def declare(pools: Mapping[str, int]) -> None:
    """Make pools, or give those that exist another size.

    Raises:
        InvalidOptionError: this is no mapping from names to whole numbers from 1 on; nothing was changed.
    """
    expected = 'a mapping from names to numbers of slots, from 1 on, such as {"db": 2}'
    if not isinstance(pools, Mapping):
        raise InvalidOptionError("pools", pools, expected)
    for name, size in pools.items():
        if not isinstance(name, str) or not name or type(size) is not int or size < 1:
            raise InvalidOptionError("pools", pools, expected)
    for name, size in pools.items():
        known = _pools.setdefault(name, Pool(name, size))
        known.size = size
        known.give(0)  # those who wait may have room now


def find(name: str) -> Pool | None:
    """The pool of that name, if a flow of this process has declared it."""
    return _pools.get(name)


def names() -> list[str]:
    """Of all pools there are."""
    return list(_pools)
