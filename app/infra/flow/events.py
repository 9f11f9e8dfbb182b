"""What the engine tells: frozen records of what happened, in the past tense. Each is told after it was committed.

Pure data; must not know who listens.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from .late_dataclass import dataclass
from .models import ExecutionState

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Event:
    """Base of every event."""

    flow_name: str
    run_id: str
    moment: int
    """When it happened, in microseconds since 1970 UTC; `at` gives it as a datetime."""

    @property
    def at(self) -> datetime:
        """When it happened, as an aware UTC datetime."""
        return _EPOCH + timedelta(microseconds=self.moment)


class RunStarted(Event):
    """A run began, or was continued."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """A run reached its end."""

    state: ExecutionState


class RunInterrupted(Event):
    """A run was stopped before its end, and can be continued."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TaskEvent(Event):
    """Base of the events of one task."""

    task_id: str
    """Of an item of a mapped task: `parse[3]`. The whole has events of its own."""
    attempt_number: int
    """The 0-based index of the attempt, as `ctx.attempt_number` shows it."""


class TaskStarted(TaskEvent):
    """An attempt began."""

    __slots__ = ()


class TaskSucceeded(TaskEvent):
    """An attempt succeeded, and the task with it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TaskFailed(TaskEvent):
    """The last attempt failed, or was cut off once too often, and the task with it."""

    reason: str
    """The cause, in one line."""


@dataclass(frozen=True, slots=True)
class TaskRetryScheduled(TaskEvent):
    """An attempt failed, and another one is to follow."""

    reason: str
    """The cause, in one line."""
    delay: float
    """Seconds until the next attempt."""


class TaskInterrupted(TaskEvent):
    """An attempt was cut off: by the death of its process (told when the run is continued) or by a cancellation."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TaskSkipped(TaskEvent):
    """A task will not run, by its trigger rule or a branch's choice; or it asked to be skipped when it did, or its condition."""

    reason: str
    """Why not, in one line."""


@dataclass(frozen=True, slots=True)
class TaskCancelled(TaskEvent):
    """A task was cancelled, while it ran or before, by itself or with its whole run."""

    reason: str
    """Which of the two, in one line."""


class TaskReset(TaskEvent):
    """A task was set back by a manual retry."""

    __slots__ = ()
