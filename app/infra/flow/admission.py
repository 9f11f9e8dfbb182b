"""Which task starts next: the one of the highest priority that finds room on its executor and in its pool.

Knows how much room there is; must not know what an attempt is, or what follows from one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from .definitions import TaskDefinition
from .lanes import Lane, Lanes
from .live_run import LiveRun
from .models import ExecutionState, TaskType
from .pools import Pool, find
from .ready import Ready
from .records import TaskRecord
from .task_rules import PLAIN

_SCHEDULED = ExecutionState.SCHEDULED

Admitted = tuple[TaskRecord, TaskDefinition, "Lane | None"]
"""A task that may start, its definition, and where it runs: None for a subflow or a mapped task, which need no slot."""


class Gate(Protocol):
    """Something that a task has to find room in before it starts."""

    parked: Ready[TaskRecord]
    """Those that found none, in their order."""

    def has_room(self) -> bool:
        """Whether the first of them may pass."""
        ...


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


class Admission:
    """The tasks of a tree of runs that are ready to start.

    Args:
        runs: the runs of the tree, by id.
        lanes: the executors.
        wake: called, from any thread, when a pool may have room again.
    """

    def __init__(self, runs: Mapping[str, LiveRun], lanes: Lanes, wake: Callable[[], None]) -> None:
        self._runs = runs
        self._lanes = lanes
        self._wake = wake
        # A record says which run it belongs to: no more than that is kept of a task that waits, for there may be a million.
        self._ready: Ready[TaskRecord] = Ready()
        self._slotless: deque[TaskRecord] = deque()
        self._pools: dict[str, PoolGate] = {}
        self._crowded: list[Gate] = []
        """The gates before which somebody waits."""

    def __repr__(self) -> str:
        return f"<Admission: {len(self._ready)} ready, {sum(len(gate.parked) for gate in self._crowded)} before a gate>"

    def put(self, record: TaskRecord) -> None:
        """Take in a task that may start."""
        task = self._definition(record)
        if task.rules is not PLAIN and task.rules.map_over is not None and record.task_id == task.task_id:
            self._slotless.append(record)  # the whole: each of its items will need one
        elif record.type is TaskType.TASK or (record.child_run_id is None and task.called is not None):
            priority = task.options.priority
            if priority:
                self._ready.put(record, priority)
            else:
                self._ready.usual.append(record)
        else:  # it needs no slot
            self._slotless.append(record)

    def next(self, slots: bool) -> Admitted | None:
        """The next task to start, and from now on no more in here: it has its slots of a pool.

        Subflows and mapped tasks come first, then the others by priority, then in the order of becoming ready.

        Args:
            slots: whether there are slots for others than these.
        """
        while self._slotless:
            record = self._slotless.popleft()
            if record.state is _SCHEDULED:  # else it was cancelled while it waited
                return record, self._definition(record), None
        while slots:
            if self._crowded or not self._ready.is_plain:
                source = self._first()
                if source is None:
                    return None
                record = source.take()
            elif self._ready.usual:  # as in most flows nearly always
                source = self._ready
                record = source.usual.popleft()
            else:
                return None
            if record.state is _SCHEDULED:
                live = self._runs[record.run_id]
                task = live.tasks[record.task_id]
                lane = self._lane(live, task)
                if lane.busy < lane.capacity and task.options.pool is None:  # as most
                    return record, task, lane
                if self._may_pass(record, task, lane, source):
                    return record, task, lane
        return None

    def _first(self) -> Ready[TaskRecord] | None:
        """Where the one stands whose turn it is; None where nobody can start."""
        best = self._ready.best()
        source = None if best is None else self._ready
        if self._crowded:
            self._crowded = [gate for gate in self._crowded if gate.parked]
            for gate in self._crowded:
                first = gate.parked.best()
                while first is not None and gate.parked.head().state is not _SCHEDULED:
                    gate.parked.take()  # it was cancelled while it waited, and must not keep those behind it waiting
                    first = gate.parked.best()
                # Those that wait at a gate came earlier than those of the same priority that are only ready now.
                if first is not None and (best is None or first >= best) and gate.has_room():
                    best, source = first, gate.parked
        return source

    def _may_pass(self, record: TaskRecord, task: TaskDefinition, lane: Lane, source: Ready[TaskRecord]) -> bool:
        """Whether a task that comes from `source` finds room, and has taken it; if not, it was put where it has to wait."""
        options = task.options
        if lane.busy >= lane.capacity:
            self._park(record, lane, options.priority)
            return False
        if options.pool is None:
            return True
        gate = self._pool(options.pool)
        if source is self._ready and (waiting := gate.parked.best()) is not None and waiting >= options.priority:
            gate.parked.put(record, options.priority)  # others came earlier
            return False
        if gate.take(options.pool_weight):
            return True
        if source is gate.parked:  # somebody else was quicker
            source.put_back(record, options.priority)
        else:
            self._park(record, gate, options.priority)
        return False

    def _park(self, record: TaskRecord, gate: Gate, priority: int) -> None:
        gate.parked.put(record, priority)
        if gate not in self._crowded:
            self._crowded.append(gate)

    def _definition(self, record: TaskRecord) -> TaskDefinition:
        return self._runs[record.run_id].tasks[record.task_id]

    def _lane(self, live: LiveRun, task: TaskDefinition) -> Lane:
        """The executor that a task runs on; of a subflow, the function that makes its params."""
        if task.options.executor is None and live.definition.executor is None:  # as in most flows
            return self._lanes.loop if task.is_async else self._lanes.threads
        place = live.place(task)
        return self._lanes.loop if place is None else self._lanes.find(place)

    def pool(self, name: str) -> Pool:
        """The pool of that name."""
        return self._pool(name).pool

    def _pool(self, name: str) -> PoolGate:
        gate = self._pools.get(name)
        if gate is None:
            pool = find(name)
            assert pool is not None  # it was checked before the run began
            gate = self._pools[name] = PoolGate(pool, self._weight, self._wake)
        return gate

    def _weight(self, record: TaskRecord) -> int:
        return self._definition(record).options.pool_weight

    def close(self) -> None:
        """Wait for nothing any more."""
        for gate in self._pools.values():
            gate.leave()
