"""The executors that one drive uses, each with how much of it is in use and which tasks wait for it.

Knows executors and where a task wants to run; must not know runs, stores or what an outcome means.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import inf

from .executors import CoroutineExecutor, Deliver, Executor, InlineExecutor, ThreadExecutor
from .ready import Ready
from .records import TaskRecord
from .task_options import Capacities, SubmitsWork


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
        """Whether the first of those that wait may start."""
        return self.busy < self.capacity


class Lanes:
    """The executors of one drive; those that few flows use are made when the first task asks for them.

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
        self._brought: list[SubmitsWork] = []

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
        self._brought.append(choice)  # so that no other gets its id
        return SubmitExecutor(self._deliver, choice)

    def close(self) -> None:
        """Give up all resources."""
        for lane in self:
            lane.executor.close()
