"""Tells objects that hold locks, threads or connections that their process is forked: in the child, none of these is theirs.

Must not know who they are.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """Something that cannot be used on both sides of a fork."""

    def after_fork(self) -> None:
        """Let go of everything that belongs to the parent, touching none of it; called in the child, before its own code runs."""
        ...


class Restful(Forkable, Protocol):
    """Something that must be at rest at the fork, since a copy of it in the midst of something is of no use to the child."""

    def before_fork(self) -> None:
        """Called in the parent: wait, not for ever, until nobody is at work, and let nobody begin."""
        ...

    def after_fork_in_parent(self) -> None:
        """Called in the parent afterwards: let others go on."""
        ...


_watched: WeakSet[Forkable] = WeakSet()
_restful: WeakSet[Restful] = WeakSet()
_resting: list[Restful] = []
_forking = threading.RLock()  # of two threads that fork at once, each would wait for what the other has put to rest


def watch(forkable: Forkable) -> None:
    """Have `forkable.after_fork()` called in each child that is forked from now on, for as long as the object lives."""
    _watched.add(forkable)


def watch_at_rest(restful: Restful) -> None:
    """The same, and have it put to rest before each fork."""
    _restful.add(restful)
    watch(restful)


def _before() -> None:
    _forking.acquire()
    for restful in list(_restful):
        _resting.append(restful)
        restful.before_fork()


def _in_parent() -> None:
    while _resting:
        _resting.pop().after_fork_in_parent()
    _forking.release()


def _tell() -> None:
    global _forking
    _forking = threading.RLock()
    _resting.clear()
    for forkable in list(_watched):
        forkable.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_tell)
