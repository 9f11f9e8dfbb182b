"""What is stored: rows of text and whole numbers, and the changes that one step of the engine makes to them.

The engine moves records and the stores keep them; neither side turns them into Python values. Times are whole
microseconds since 1970 UTC: exact, ordered, and without a time zone to get wrong. Values (params, inputs, outputs, logs)
are the text that the value codec made of them. Must not know the engine, a store or a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from .late_dataclass import dataclass
from .models import AttemptResult, ExecutionState, NoteKind, TaskType


@dataclass(slots=True)
class TaskRecord:
    """One task of one run, with its latest attempt. `(run_id, position)` and `(run_id, task_id)` are both unique."""

    run_id: str
    task_id: str
    position: int
    """0, 1, 2 ... in the order of definition; never changes, and is never used again within the run."""
    type: TaskType = TaskType.TASK
    state: ExecutionState = ExecutionState.SCHEDULED
    attempts: int = 0
    """How many attempts were ever started: the number of the latest one."""
    try_number: int = 0
    """The 0-based index of the latest attempt since the last reset."""
    interruptions: int = 0
    """How many attempts since the last reset were interrupted: those use up no retry."""
    crashes: int = 0
    """How many of these were found RUNNING after their process had died: those use up the interruption budget."""
    started: int | None = None
    ended: int | None = None
    due: int | None = None
    """When the next attempt may start, while the task waits for it."""
    input: str | None = None
    output: str | None = None
    """Of a subflow task: the child's result alone."""
    error: str | None = None
    reason: str | None = None
    logs: str | None = None
    child_run_id: str | None = None

    @property
    def failures(self) -> int:
        """How many attempts since the last reset failed, the latest included if it did."""
        return self.try_number + 1 - self.interruptions


columns_of = attrgetter(*TaskRecord.__slots__)
"""All that a task's record holds, in the order of its fields."""


def copy_of(task: TaskRecord) -> TaskRecord:
    """A record of the same content. In a tenth of the time of `copy.copy`."""
    return TaskRecord(*columns_of(task))


@dataclass(slots=True)
class RunRecord:
    """One run, without its tasks."""

    id: str
    flow_name: str
    params: str
    graph: str
    """The graph that the run was made with, as `FlowDefinition.graph_text` writes it; empty where nobody said."""
    created: int
    state: ExecutionState = ExecutionState.SCHEDULED
    started: int | None = None
    ended: int | None = None
    parent_run_id: str | None = None
    parent_task_id: str | None = None


@dataclass(slots=True)
class AttemptRecord:
    """An attempt that is over and was followed by another, or by a reset. The latest attempt stands in the TaskRecord."""

    run_id: str
    task_id: str
    position: int
    number: int
    try_number: int
    result: AttemptResult
    started: int | None
    ended: int | None
    error: str | None
    reason: str | None
    logs: str | None


@dataclass(frozen=True, slots=True)
class NoteRecord:
    """What happened to a run and no other record of it tells. Notes are added, in order, and never change.

    Few are written: one each time that somebody begins to drive a run, and one for each act of a person. None is written for a
    task, nor for the run of a subflow that is driven with the run around it.
    """

    run_id: str
    kind: NoteKind
    at: int
    by: str | None = None
    """Who did it: `process 123 on host`. None is whoever drove the run, or nobody knows."""
    task_id: str | None = None
    """The task that was meant; None is the whole run."""
    tasks: int = 0
    """How many tasks it concerned."""
    state: ExecutionState | None = None
    """The state that the run was in before."""
    ended: int | None = None
    """When the run had come to its end before; its record says so no more."""
    detail: str | None = None
    """Of a reset, which tasks it concerned, and what their records say no more; see `history`."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write a run and the runs of its subflows, until somebody else takes it."""

    run_id: str
    epoch: int
    """The fencing token: grows each time the run changes hands, so that a store can refuse who held it before."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What somebody asks of a run that another process, or thread, drives: to cancel it, or one of its tasks."""

    run_id: str
    """The run; it may be that of a subflow."""
    task_id: str | None = None
    """The task in it, by its dotted path; None is the whole run."""


@dataclass(slots=True, init=False)
class Changes:
    """Everything that one step writes, to be committed as one transaction.

    Records are whole and are the engine's own: a store that keeps them beyond `commit` copies them. The same record may
    stand in a list twice; it is written as it is at the time of the commit.
    """

    new_runs: list[RunRecord]
    """Runs that must not exist yet."""
    runs: list[RunRecord]
    """Runs that exist and are replaced."""
    tasks: list[TaskRecord]
    """Tasks that are added or replaced; their runs exist or are among `new_runs`."""
    attempts: list[AttemptRecord]
    """History that is added. One that is there already, by run, position and number, is replaced."""
    flush: bool
    """Whether the commit must have reached the disk when it returns, a power cut included."""
    lease: Lease | None
    """By what right it is written: if the run has changed hands since, the commit is refused. None asks no questions."""
    release: bool
    """Whether the lease is given up with this commit."""
    notes: Sequence[NoteRecord]
    """Notes that are added behind those that there are; each as often as it stands here."""

    # By hand: one is made in each turn of the loop, and what `dataclass` makes of default factories takes three times as long.
    def __init__(
        self,
        new_runs: list[RunRecord] | None = None,
        runs: list[RunRecord] | None = None,
        tasks: list[TaskRecord] | None = None,
        attempts: list[AttemptRecord] | None = None,
        flush: bool = False,
        lease: Lease | None = None,
        release: bool = False,
        notes: Sequence[NoteRecord] = (),
    ) -> None:
        self.new_runs = [] if new_runs is None else new_runs
        self.runs = [] if runs is None else runs
        self.tasks = [] if tasks is None else tasks
        self.attempts = [] if attempts is None else attempts
        self.flush = flush
        self.lease = lease
        self.release = release
        self.notes = notes

    def __bool__(self) -> bool:
        return bool(self.new_runs or self.runs or self.tasks or self.attempts or self.flush or self.notes)

    def note(self, note: NoteRecord) -> None:
        """Add a note. Nearly all changes have none, so no list is made for them."""
        self.notes = (*self.notes, note)
