"""Tells objects that hold locks, threads or connections that their process was forked: in the child, none of these is theirs.

Must not know who they are.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """Something that cannot be used on both sides of a fork."""

    def after_fork(self) -> None:
        """Let go of everything that belongs to the parent, touching none of it; called in the child, before its own code runs."""
        ...


_watched: WeakSet[Forkable] = WeakSet()


def watch(forkable: Forkable) -> None:
    """Have `forkable.after_fork()` called in each child that is forked from now on, for as long as the object lives."""
    _watched.add(forkable)


def _tell() -> None:
    for forkable in list(_watched):
        forkable.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_tell)
