"""The legal moves of tasks and runs, and a step: the changes of one turn of the engine's loop, with what is to be told and done.

Pure: no asyncio, no store, no clock (the time is an argument). Must not know graphs, nor what follows from a move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import events as told
from .errors import IllegalTransitionError
from .late_dataclass import dataclass
from .models import TERMINAL_STATES, AttemptResult, ExecutionState
from .records import AttemptRecord, Changes, RunRecord, TaskRecord

NONE, SCHEDULED, RUNNING, SUCCESS, FAILED, SKIPPED, CANCELLED = ExecutionState


@dataclass(frozen=True, slots=True)
class Edge:
    """One legal move of a state."""

    source: ExecutionState
    target: ExecutionState
    reason: str
    """When it happens, and why it is allowed."""


TASK_EDGES: tuple[Edge, ...] = (
    Edge(SCHEDULED, RUNNING, "everything upstream is committed and a slot is free"),
    Edge(SCHEDULED, SKIPPED, "by its trigger rule, given how its upstreams ended; or a branch did not choose it"),
    Edge(SCHEDULED, CANCELLED, "it, or the whole run, was cancelled before it began"),
    Edge(RUNNING, SUCCESS, "the attempt returned"),
    Edge(RUNNING, FAILED, "the attempt failed and no retry is left, or it was interrupted once too often"),
    Edge(RUNNING, SCHEDULED, "the attempt failed and a retry is left, or it was interrupted"),
    Edge(RUNNING, CANCELLED, "it, or the whole run, was cancelled while it ran"),
    Edge(RUNNING, SKIPPED, "it asked to be skipped, or its condition said no; of a mapped task, all items did"),
    Edge(SUCCESS, SCHEDULED, "manual retry: the only way in which a finished task runs again"),
    Edge(FAILED, SCHEDULED, "manual retry"),
    Edge(SKIPPED, SCHEDULED, "manual retry, of the task or of what kept it from running; or the graph has it again"),
    Edge(CANCELLED, SCHEDULED, "manual retry"),
)
"""Every legal move of a task."""

RUN_EDGES: tuple[Edge, ...] = (
    Edge(SCHEDULED, RUNNING, "somebody drives the run"),
    Edge(SCHEDULED, CANCELLED, "the run was cancelled while nobody drove it"),
    Edge(RUNNING, SUCCESS, "every task ended, and none failed or was cancelled"),
    Edge(RUNNING, FAILED, "every task ended, and one at least failed or was cancelled"),
    Edge(RUNNING, SCHEDULED, "the run was interrupted, and waits to be continued"),
    Edge(RUNNING, CANCELLED, "the run was cancelled"),
    Edge(SUCCESS, SCHEDULED, "manual retry of one of its tasks"),
    Edge(FAILED, SCHEDULED, "manual retry of one of its tasks"),
    Edge(CANCELLED, SCHEDULED, "manual retry of one of its tasks"),
)
"""Every legal move of a run."""

BY_ITSELF = "it was cancelled"
"""Why a task is CANCELLED that somebody meant; `BY_RUN` is why one is that stands in a run or subflow that somebody meant."""
BY_RUN = "its run was cancelled"
GONE = "the flow's graph no longer has it"
"""Why a task is SKIPPED that the flow lost when the run was continued."""
NOT_CHOSEN = "branch {!r} did not choose it"
"""Why one is that a branch did not choose."""
_TASK_MOVES = frozenset((edge.source, edge.target) for edge in TASK_EDGES)
_RUN_MOVES = frozenset((edge.source, edge.target) for edge in RUN_EDGES)


class Step:
    """What one turn of the engine's loop decides, over all runs of a tree: committed, told and acted on in that order.

    Args:
        heard: whether anybody listens: if not, the events that come with every task are not made.
    """

    __slots__ = ("changes", "delayed", "events", "finished", "heard", "joined", "ready")

    def __init__(self, heard: bool = True) -> None:
        self.changes = Changes()
        self.events: list[told.Event] = []
        self.ready: list[TaskRecord] = []
        """Tasks that may start now."""
        self.delayed: list[tuple[TaskRecord, float]] = []
        """Tasks that may start after so many seconds."""
        self.finished: list[RunRecord] = []
        """Runs that reached their end in this step."""
        self.joined: list[TaskRecord] = []
        """Mapped tasks whose outputs were put together in this step."""
        self.heard = heard

    def __bool__(self) -> bool:
        return bool(self.changes)


def move_task(step: Step, record: TaskRecord, target: ExecutionState) -> None:
    """Bring a task into another state.

    Raises:
        IllegalTransitionError: there is no such edge.
    """
    if (record.state, target) not in _TASK_MOVES:
        raise IllegalTransitionError(f"Task {record.task_id!r}", record.state.value, target.value)
    record.state = target
    step.changes.tasks.append(record)


def archive_attempt(step: Step, record: TaskRecord, result: AttemptResult) -> None:
    """Add a task's latest attempt to the history."""
    step.changes.attempts.append(
        AttemptRecord(
            record.run_id,
            record.task_id,
            record.position,
            record.attempts,
            record.try_number,
            result,
            record.started,
            record.ended,
            record.error,
            record.reason,
            record.logs,
        )
    )


# --- cancelling: by the records alone, so that it takes neither the flow nor an unchanged graph ---


def check_run(run: RunRecord, target: ExecutionState) -> None:
    """Refuse a move of a run that is no edge.

    Raises:
        IllegalTransitionError: there is no such edge.
    """
    if (run.state, target) not in _RUN_MOVES:
        raise IllegalTransitionError(f"Run {run.id!r}", run.state.value, target.value)


def cancel_run(
    step: Step,
    run: RunRecord,
    tasks: Iterable[TaskRecord],
    now: int,
    reason: str = BY_RUN,
    logs: Mapping[str, str | None] | None = None,
) -> None:
    """Cancel a run that has not ended; see `RunMachine.cancel`."""
    check_run(run, CANCELLED)
    for record in tasks:
        if record.state not in TERMINAL_STATES:
            cancel_one(step, run, record, now, reason, logs.get(record.task_id) if logs else None)
    run.state, run.ended = CANCELLED, now
    step.changes.runs.append(run)
    step.events.append(told.RunFinished(run.flow_name, run.id, now, CANCELLED))


def cancel_task(step: Step, run: RunRecord, record: TaskRecord, now: int, reason: str = BY_ITSELF) -> None:
    """Cancel a task that has not ended, of a run that nobody drives: what follows is decided when somebody does."""
    cancel_one(step, run, record, now, reason, None)


def cancel_one(step: Step, run: RunRecord, record: TaskRecord, now: int, reason: str, logs: str | None) -> None:
    """Cancel a task that has not ended, whoever drives the run."""
    ran = record.state is RUNNING
    move_task(step, record, CANCELLED)
    record.due, record.reason = None, reason
    record.ended = now
    if ran:
        record.logs = logs
        archive_attempt(step, record, AttemptResult.CANCELLED)
    step.events.append(told.TaskCancelled(run.flow_name, run.id, now, record.task_id, record.try_number, reason))
