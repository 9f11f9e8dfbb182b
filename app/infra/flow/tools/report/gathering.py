"""Reads from a store what a report tells: a run's tasks as a tree, with items below their mapped task and subflows opened.

Must not know pages. It asks the store's public methods alone, and is bounded: of more subflow runs than it may open, those that
failed come first, and it says how many it left closed. Never recursive.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from ... import (
    Attempt,
    AttemptResult,
    BaseStore,
    ExecutionState,
    GraphNode,
    NoteKind,
    RunNotFoundError,
    Store,
    TaskInstance,
    TaskType,
    WorkflowRun,
)

MOST_RUNS = 2000
"""So many subflow runs are opened."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FIRST = {"failed": 0, "cancelled": 1, "running": 2}


@dataclass(slots=True, eq=False)
class Line:
    """One task, item or subflow of the tree."""

    number: int
    """Its place when the tree is read from top to bottom; links lead to it."""
    path: str
    """Its dotted path from the outermost run: `checks.sums`, `parse[3].load`."""
    task: TaskInstance
    kind: str
    """`task`, `map` (a mapped task as a whole), `item` or `subflow`."""
    run_id: str
    parent: Line | None = None
    children: list[Line] = field(default_factory=list)
    needs: list[Line] = field(default_factory=list)
    """What had to end before it could start, of the same run."""
    attempts: list[Attempt] = field(default_factory=list)
    """All its attempts, the first first."""
    node: GraphNode | None = None
    child: WorkflowRun | None = None
    """Of a subflow whose run was opened: that run."""
    gone: bool = False
    """Of a subflow: whether its run is not in the store any more."""
    depth: int = 0

    @property
    def own(self) -> str:
        """What it is called below the line that it stands below: of an item its key, in brackets."""
        if self.parent is None:
            return self.path
        return self.path[len(self.parent.path) + (self.kind != "item") :]

    @property
    def state(self) -> str:
        """Its state, as text."""
        return str(self.task.state)

    @property
    def series(self) -> list[Attempt]:
        """Its attempts since it was last set back by a person."""
        first = 0
        for index, attempt in enumerate(self.attempts):
            if attempt.try_number == 0:
                first = index
        return self.attempts[first:]

    @property
    def start(self) -> datetime | None:
        """When the first attempt of the series began."""
        return next((attempt.start_date for attempt in self.series if attempt.start_date is not None), self.task.start_date)

    @property
    def end(self) -> datetime | None:
        """When it ended; None while it has not."""
        return self.task.end_date if ExecutionState.is_terminal(self.task.state) else None

    @property
    def ready(self) -> datetime | None:
        """When all that it needs had ended; of what needs nothing, when the task around it began. None if that is not known."""
        ends = [end for need in self.needs if (end := need.end) is not None]
        if ends:
            return max(ends)
        return None if self.parent is None else self.parent.ready if self.kind == "item" else self.parent.start

    def __repr__(self) -> str:
        return f"<Line {self.path!r}, {self.kind}, {self.state}>"


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that somebody did to the run: began to drive it, stopped it, set back or cancelled something."""

    at: datetime
    kind: str
    by: str | None
    task_id: str | None
    tasks: int


@dataclass(slots=True)
class ReportData:
    """What a report is made from."""

    run: WorkflowRun
    created: datetime | None
    owner: str | None
    """The process that drives it now, as far as the store knows."""
    now: datetime
    roots: list[Line]
    lines: list[Line]
    """All of them, from top to bottom."""
    happenings: list[Happening]
    left_closed: int
    """How many subflow runs were not opened, since there are so many."""
    parent_known: bool = False

    @property
    def start(self) -> datetime:
        """When the first thing of it happened."""
        starts = [attempt.start_date for line in self.roots for attempt in line.attempts if attempt.start_date is not None]
        if self.run.start_date is not None:
            starts.append(self.run.start_date)
        return min(starts, default=self.created or self.now)

    @property
    def end(self) -> datetime:
        """When it ended. Of a run that has not: now if somebody drives it, else the last that is known of it."""
        known = [moment for line in self.lines for attempt in line.attempts for moment in (attempt.start_date, attempt.end_date)]
        last = max([moment for moment in known if moment is not None], default=self.start)
        if self.run.end_date is not None and ExecutionState.is_terminal(self.run.state):
            return max(self.run.end_date, last)  # a clock that was set back may have told of an earlier end
        return last if self.owner is None else max(self.now, last)

    @property
    def leaves(self) -> list[Line]:
        """The lines where work is done: those with nothing below them."""
        return [line for line in self.lines if not line.children]

    def counts(self) -> dict[str, int]:
        """How many leaves are in which state, in the order in which people ask for them."""
        found: dict[str, int] = dict.fromkeys(("failed", "cancelled", "running", "scheduled", "skipped", "success"), 0)
        for line in self.leaves:
            found[line.state] = found.get(line.state, 0) + 1
        return {state: number for state, number in found.items() if number}


def gather(store: Store, run_id: str, *, now: datetime | None = None, most_runs: int = MOST_RUNS) -> ReportData:
    """Read a run, and the runs of its subflows.

    Args:
        store: where it is.
        run_id: the run.
        now: the moment that it is told at; the system's clock by default.
        most_runs: so many subflow runs are opened, those that failed first.

    Raises:
        RunNotFoundError: there is no such run.
    """
    run = store.load(run_id)
    attempts_of = store.attempts_reader() if isinstance(store, BaseStore) else store.list_attempts
    roots = lines_of(run, None, _by_task(attempts_of(run_id)))
    waiting: list[tuple[int, int, int, Line]] = []
    order = 0
    for line in _each(roots):
        if line.task.child_run_id is not None:
            order += 1
            heapq.heappush(waiting, (_FIRST.get(line.state, 3), line.depth, order, line))
    opened = 0
    seen = {run_id}
    while waiting and opened < most_runs:
        line = heapq.heappop(waiting)[3]
        child_id = line.task.child_run_id
        if child_id is None or child_id in seen:
            continue
        seen.add(child_id)
        earlier: dict[str, list[Attempt]] | None = None
        try:
            child = store.load(child_id)
            if store.read_attempts(child_id):
                earlier = _by_task(attempts_of(child_id))
        except RunNotFoundError:  # it was pruned, perhaps a moment ago
            line.gone = True
            continue
        opened += 1
        line.child = child
        line.children = lines_of(line.child, line, earlier)
        for inner in _each(line.children):
            if inner.task.child_run_id is not None:
                order += 1
                heapq.heappush(waiting, (_FIRST.get(inner.state, 3), inner.depth, order, inner))
    lines = list(_each(roots))
    for number, line in enumerate(lines):
        line.number = number
    return ReportData(
        run=run,
        created=_EPOCH + timedelta(microseconds=store.read_run(run_id).created),
        owner=_owner(store, run),
        now=now or datetime.now(timezone.utc),
        roots=roots,
        lines=lines,
        happenings=list(_happenings(store, run_id)),
        left_closed=len(waiting),
        parent_known=run.parent_run_id is not None and store.exists(run.parent_run_id),
    )


def _by_task(attempts: Iterable[Attempt]) -> dict[str, list[Attempt]]:
    found: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        found.setdefault(attempt.task_id, []).append(attempt)
    return found


def lines_of(run: WorkflowRun, around: Line | None, attempts: Mapping[str, list[Attempt]] | None) -> list[Line]:
    """The tasks of one run as lines, its items below their mapped task.

    Args:
        run: the run.
        around: of a subflow's run, the line of the subflow.
        attempts: all attempts by task; None if only the latest ones are known, which the tasks hold themselves.
    """
    prefix = "" if around is None else f"{around.path}."
    depth = 0 if around is None else around.depth + 1
    found: dict[str, Line] = {}
    top: list[Line] = []
    for task_id, task in run.tasks.items():
        node = run.graph.get(task_id)
        whole = None if node is not None else found.get(whole_of(task_id) or "")
        of_item = whole is not None
        known = attempts.get(task_id) if attempts is not None else None
        line = Line(
            number=0,
            path=prefix + task_id,
            task=task,
            kind="item"
            if of_item
            else "map"
            if node is not None and node.map_over is not None
            else "subflow"
            if task.type is TaskType.FLOW
            else "task",
            run_id=run.id,
            parent=whole if whole is not None else around,
            attempts=latest(task) if known is None else known,
            node=node,
            depth=depth + of_item,
        )
        found[task_id] = line
        (top if whole is None else whole.children).append(line)
    for task_id, line in found.items():
        line.needs = [found[need] for need in needs_of(run.graph, task_id) if need in found]
    return top


def latest(task: TaskInstance) -> list[Attempt]:
    """What a task itself tells of its latest attempt, where the others are not known."""
    if task.start_date is None:
        return []
    state = task.state.value if ExecutionState.is_terminal(task.state) else "running"
    result = AttemptResult.INTERRUPTED if task.state is ExecutionState.SCHEDULED else AttemptResult(state)
    number = task.try_number + 1
    dates = (task.start_date, task.end_date)
    return [Attempt(task.task_id, number, task.try_number, result, *dates, task.error, task.reason, tuple(task.logs))]


def whole_of(task_id: str) -> str | None:
    """The mapped task that an id would be an item of: `parse` for `parse[3]`."""
    whole, bracket, _ = task_id.partition("[")
    return whole if bracket and whole and task_id.endswith("]") else None


def needs_of(graph: Mapping[str, GraphNode], task_id: str) -> Iterator[str]:
    """What a task of a run, or an item, depends on directly. An item of a stream depends on its counterpart alone there."""
    node = graph.get(task_id)
    if node is not None:
        yield from node.depends_on
        return
    whole = whole_of(task_id)
    node = graph.get(whole or "")
    if node is None or whole is None:
        return
    for need in node.depends_on:
        over = graph.get(need)
        streams = need == node.map_over and over is not None and over.map_over is not None
        yield need + task_id[len(whole) :] if streams else need


def _each(roots: Iterable[Line]) -> Iterator[Line]:
    """All lines from top to bottom."""
    levels = [iter(roots)]
    while levels:
        for line in levels[-1]:
            yield line
            if line.children:
                levels.append(iter(line.children))
                break
        else:
            levels.pop()


def _owner(store: Store, run: WorkflowRun) -> str | None:
    if ExecutionState.is_terminal(run.state):
        return None
    seen: set[str] = set()
    while run.parent_run_id is not None and run.parent_run_id not in seen:
        seen.add(run.id)
        try:
            run = store.load(run.parent_run_id)
        except RunNotFoundError:
            break
    ask: Any = getattr(store, "owner_of", None)  # stores of people's own may have none
    return None if ask is None else ask(run.id)


def _happenings(store: Store, run_id: str) -> Iterator[Happening]:
    for note in store.read_notes(run_id):
        kind = {NoteKind.DRIVE: "driven", NoteKind.INTERRUPT: "stopped", NoteKind.RESET: "set back", NoteKind.CANCEL: "cancelled"}
        at = _EPOCH + timedelta(microseconds=note.at)
        yield Happening(at, kind.get(note.kind, str(note.kind)), note.by, note.task_id, note.tasks)
