"""The executors that one drive uses, each with how much of it is in use and which tasks wait for it.

Knows executors and where a task wants to run; must not know runs, stores or what an outcome means.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from math import inf
from typing import Protocol

from .executors import CoroutineExecutor, Deliver, Executor, InlineExecutor, ThreadExecutor
from .pools import Pool
from .ready import Ready
from .records import TaskRecord
from .task_options import Capacities, SubmitsWork


class Gate(Protocol):
    """Something that a task has to find room in before it starts."""

    parked: Ready[TaskRecord]
    """Those that found none, in their order."""

    def has_room(self) -> bool:
        """Whether the first of them may pass."""
        ...


class Lane:
    """An executor, how much of it is in use, and the tasks that wait for it.

    Args:
        executor: runs attempts.
    """

    __slots__ = ("busy", "capacity", "executor", "parked")

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.busy = 0
        self.capacity = inf if executor.capacity is None else executor.capacity
        self.parked: Ready[TaskRecord] = Ready()

    def __repr__(self) -> str:
        return f"<Lane of {self.executor!r}, {len(self.parked)} waiting>"

    def has_room(self) -> bool:
        """See `Gate.has_room`."""
        return self.busy < self.capacity


class PoolGate:
    """A pool, and this drive's tasks that wait for it.

    Args:
        pool: shared with other drives.
        weight_of: how many of its slots a task takes.
        tell: called, from any thread, when there may be room again.
    """

    __slots__ = ("_tell", "_weight_of", "parked", "pool")

    def __init__(self, pool: Pool, weight_of: Callable[[TaskRecord], int], tell: Callable[[], None]) -> None:
        self.pool = pool
        self.parked: Ready[TaskRecord] = Ready()
        self._weight_of = weight_of
        self._tell = tell

    def __repr__(self) -> str:
        return f"<PoolGate of {self.pool!r}, {len(self.parked)} waiting>"

    def has_room(self) -> bool:
        """See `Gate.has_room`."""
        return self.pool.has_room(self._weight_of(self.parked.head()), self, self._tell)

    def take(self, weight: int) -> bool:
        """Take slots of the pool, if so many are free."""
        return self.pool.take(weight, self, self._tell)

    def leave(self) -> None:
        """Wait no longer."""
        self.pool.leave(self)


class Lanes:
    """The executors of one drive, each made when the first task asks for it.

    Args:
        deliver: takes the outcomes, from any thread.
        capacities: how much they may use.
    """

    def __init__(self, deliver: Deliver, capacities: Capacities) -> None:
        self._deliver = deliver
        self._capacities = capacities
        self.loop = Lane(CoroutineExecutor(deliver))
        """For coroutines."""
        self.threads = Lane(ThreadExecutor(deliver, capacities.max_threads))
        """For functions that say nothing else."""
        self._others: dict[str | int, Lane] = {}
        self._named: list[SubmitsWork] = []

    def __repr__(self) -> str:
        return f"<Lanes: {[*self]}>"

    def __iter__(self) -> Iterator[Lane]:
        yield self.loop
        yield self.threads
        yield from self._others.values()

    def find(self, choice: str | SubmitsWork) -> Lane:
        """The lane of an executor: one of our own by its name, or one that was brought along."""
        if choice == "thread":
            return self.threads
        # By identity: an executor may be unhashable, and is the same only as itself.
        key = choice if isinstance(choice, str) else id(choice)
        lane = self._others.get(key)
        if lane is None:
            lane = self._others[key] = Lane(self._make(choice))
        return lane

    def _make(self, choice: str | SubmitsWork) -> Executor:
        if choice == "inline":
            return InlineExecutor(self._deliver)
        if choice == "process":
            from .remote_executors import ProcessExecutor  # late: few flows need processes of their own

            return ProcessExecutor(self._deliver, self._capacities.max_processes or os.cpu_count() or 1)
        from .remote_executors import SubmitExecutor  # late: few flows bring an executor

        assert not isinstance(choice, str)
        self._named.append(choice)  # so that no other gets its id
        return SubmitExecutor(self._deliver, choice)

    def close(self) -> None:
        """Give up all resources."""
        for lane in self:
            lane.executor.close()
