"""How far a run is: what `AsyncFlow.progress_of` gives, put together from records, those in memory where it is driven here.

It only looks, when asked, and from any thread: nothing is noted for it while a run goes on. Must not know how runs are driven.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from heapq import nsmallest
from typing import Any, Protocol

from .definitions import FlowDefinition
from .errors import RunMismatchError, RunNotFoundError
from .late_dataclass import dataclass
from .looking import nodes_of
from .map_items import by_whole, whole_of
from .models import TERMINAL_STATES, ExecutionState, TaskType
from .records import RunRecord, TaskRecord
from .redaction import Redact, redacted
from .store import Store
from .views import moment_of, to_datetime

MOST = 50
"""So many tasks that run, and so many that failed, are told one by one. The others are in the counts."""
MOST_INSIDE = 200
"""So many runs of subflows are looked into at a time."""

_RUNNING, _FAILED, _SCHEDULED = ExecutionState.RUNNING, ExecutionState.FAILED, ExecutionState.SCHEDULED


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """One task that is under way, or that failed."""

    path: str
    """Its id; of a task inside a subflow `sub.task`, of an item `parse[3]`."""
    inside: str | None
    """The path of the subflow, or mapped task, that it is in."""
    type: TaskType
    state: ExecutionState
    start_date: datetime | None
    """When its latest attempt began."""
    end_date: datetime | None
    attempt_number: int
    """The 0-based index of its latest attempt."""
    reason: str | None
    """Why it failed, in one line."""
    counts: Mapping[ExecutionState, int] | None = None
    """Of a mapped task its items by state, of a subflow its tasks, once there are any."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is."""

    run_id: str
    flow_name: str
    state: ExecutionState
    at: datetime
    """When it was looked at."""
    start_date: datetime | None
    end_date: datetime | None
    counts: Mapping[ExecutionState, int]
    """The tasks of the run by state: a mapped task that has its items is counted by these, a subflow as one task."""
    retrying: int
    """How many of the scheduled ones have failed or were cut off, and wait for their next attempt."""
    running: tuple[TaskProgress, ...]
    """What is under way, also inside subflows, the longest first: at most 50, a subflow or mapped task before what is in it."""
    failures: tuple[TaskProgress, ...]
    """What has failed for good, in order of time: the first 50."""
    live: bool
    """Whether the run is driven by this process, and was looked at in memory; else it is what the store says."""

    @property
    def total(self) -> int:
        """How many tasks there are; grows when a mapped task has its list."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """How many of them have ended, in whatever way."""
        return sum(number for state, number in self.counts.items() if state in TERMINAL_STATES)

    @property
    def fraction(self) -> float:
        """How much of the run is done, from 0 to 1: by the number of tasks, with what is done inside subflows that run."""
        total = self.total
        if not total:
            return 0.0
        partly = sum(_share(task.counts) for task in self.running if task.inside is None and task.type is TaskType.FLOW)
        return min(1.0, (self.done + partly) / total)


def _share(counts: Mapping[ExecutionState, int] | None) -> float:
    if not counts:
        return 0.0
    return sum(number for state, number in counts.items() if state in TERMINAL_STATES) / max(1, sum(counts.values()))


class _Machine(Protocol):
    tasks: dict[str, TaskRecord]
    maps: Any


class LiveTree(Protocol):
    """What is looked at of a run in memory."""

    run: RunRecord
    machine: _Machine


@dataclass(frozen=True, slots=True)
class _Level:
    """One run of the tree."""

    run: RunRecord
    records: list[TaskRecord]
    items: Mapping[str, list[TaskRecord]]
    """Of each mapped task that has items, these."""


def _in_memory(live: LiveTree) -> _Level:
    # A list of a dict's values is made at one go, whatever the thread does that drives the run.
    items: dict[str, list[TaskRecord]] = {}
    for mapped in live.machine.maps or ():
        found = list(mapped.known.values()) if mapped.items is None else mapped.items
        if found:
            items[mapped.record.task_id] = found
    return _Level(live.run, list(live.machine.tasks.values()), items)


def _stored(store: Store, run: RunRecord) -> _Level:
    records = store.read_tasks(run.id)
    wholes = [task_id for task_id, node in nodes_of(run.graph).items() if node.map_over is not None]
    found = by_whole({record.task_id: record for record in records}, wholes) if wholes else {}
    return _Level(run, records, {whole: list(items.values()) for whole, items in found.items() if items})


def progress_of(flow: FlowDefinition, store: Store, run_id: str, tree: Mapping[str, LiveTree], now: int) -> RunProgress:
    """See `AsyncFlow.progress_of`.

    Args:
        flow: whose run it must be.
        store: where it is.
        run_id: the run.
        tree: the runs in memory, if it is driven here.
        now: the time.

    Raises:
        RunNotFoundError, RunMismatchError: there is no such run of the flow.
    """
    live = tree.get(run_id)
    root = live.run if live is not None else store.read_run(run_id)
    if root.flow_name != flow.name:
        raise RunMismatchError(run_id, root.flow_name, flow.name)

    def level_of(child_run_id: str, state: ExecutionState) -> _Level | None:
        """The inside of a subflow; None where it is not at hand."""
        child = tree.get(child_run_id)
        if child is not None:
            return _in_memory(child)
        if live is not None and state is not _FAILED:
            return None
        try:  # also what failed before the run was driven here: it need not be in memory
            return _stored(store, store.read_run(child_run_id))
        except RunNotFoundError:  # pruned, or not written yet
            return None

    hooks = () if flow.redact is None else (flow.redact,)
    look = _Look(now, level_of)
    counts = look.through(_in_memory(live) if live is not None else _stored(store, root))
    return RunProgress(
        run_id,
        flow.name,
        root.state,
        moment_of(now),
        to_datetime(root.started),
        to_datetime(root.ended),
        counts,
        look.retrying,
        tuple(told.shown(hooks) for told in nsmallest(MOST, look.running, key=lambda told: told.since)),
        tuple(told.shown(hooks) for told in nsmallest(MOST, look.failures, key=lambda told: told.until)),
        live is not None,
    )


@dataclass(slots=True)
class _Told:
    """A task that is to be told of one by one, as it was when it was looked at."""

    path: str
    inside: str | None
    record: TaskRecord
    state: ExecutionState
    since: int
    until: int
    counts: Mapping[ExecutionState, int] | None = None

    def shown(self, hooks: Iterable[Redact]) -> TaskProgress:
        record = self.record
        reason = record.reason
        return TaskProgress(
            self.path,
            self.inside,
            record.type,
            self.state,
            to_datetime(record.started),
            to_datetime(record.ended),
            record.try_number,
            None if reason is None else redacted(reason, hooks),
            self.counts,
        )


class _Look:
    """One look at a tree of runs, level by level.

    Args:
        now: the time.
        level_of: the inside of a subflow, by its run's id and the state of its task.
    """

    def __init__(self, now: int, level_of: Callable[[str, ExecutionState], _Level | None]) -> None:
        self._now = now
        self._level_of = level_of
        self.retrying = 0
        self.running: list[_Told] = []
        self.failures: list[_Told] = []
        self._subflows: deque[_Told] = deque()
        """Those that are yet to be looked into."""

    def through(self, root: _Level) -> Mapping[ExecutionState, int]:
        """Look through a run and its subflows; what comes back are the counts of the run itself."""
        counts, self.retrying = self._at(root, "", None)
        for _ in range(MOST_INSIDE):
            if not self._subflows:
                break
            told = self._subflows.popleft()
            assert told.record.child_run_id is not None
            level = self._level_of(told.record.child_run_id, told.state)
            if level is not None:
                told.counts, _ = self._at(level, f"{told.path}.", told.path)
        return counts

    def _at(self, level: _Level, prefix: str, inside: str | None) -> tuple[Mapping[ExecutionState, int], int]:
        records = level.records
        if level.items:
            wholes = [record for record in records if record.task_id in level.items]
            records = [record for record in records if record.task_id not in level.items]
            for record in wholes:
                told = self._told(prefix, inside, record, record.state)
                told.counts = _counted([item.state for item in level.items[record.task_id]])
                self._sort(told)
        # Each state is read once: the run may go on meanwhile.
        states = [record.state for record in records]
        counts = _counted(states)
        running: list[TaskRecord] = []
        failed: list[TaskRecord] = []
        retrying = 0
        for record, state in zip(records, states):
            if state is _RUNNING:
                running.append(record)
            elif state is _FAILED:
                failed.append(record)
            elif state is _SCHEDULED and record.due is not None:
                retrying += 1
        for found, state, moment in ((running, _RUNNING, self._since), (failed, _FAILED, self._until)):
            for record in nsmallest(MOST, found, key=moment):
                whole = whole_of(record.task_id) if level.items else None
                self._sort(
                    self._told(prefix, inside if whole is None or whole not in level.items else prefix + whole, record, state)
                )
        return counts, retrying

    def _told(self, prefix: str, inside: str | None, record: TaskRecord, state: ExecutionState) -> _Told:
        return _Told(prefix + record.task_id, inside, record, state, self._since(record), self._until(record))

    def _since(self, record: TaskRecord) -> int:
        return self._now if record.started is None else record.started

    def _until(self, record: TaskRecord) -> int:
        return self._now if record.ended is None else record.ended

    def _sort(self, told: _Told) -> None:
        if told.state is _RUNNING:
            self.running.append(told)
        elif told.state is _FAILED:
            self.failures.append(told)
        else:
            return
        if told.record.child_run_id is not None:
            self._subflows.append(told)


def _counted(states: list[ExecutionState]) -> dict[ExecutionState, int]:
    return dict(Counter(states))
