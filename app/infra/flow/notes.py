"""What is noted when tasks are set back, since their records say it no more; and how a note of that is read. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from .models import ExecutionState, NoteKind
from .records import NoteRecord, RunRecord, TaskRecord

MOST_TASKS = 100
"""Of so many tasks a note says where each of them stood; of the others, that they were set back, too."""
MOST_CHARACTERS = 500


class Before(NamedTuple):
    """Where a task stood before it was set back."""

    task_id: str
    state: ExecutionState
    attempts: int
    """How many attempts had been made."""
    ended: int | None
    reason: str | None
    """Why it was skipped or cancelled; what its attempts say is not said again."""


def reset_note(
    run: RunRecord, tasks: Iterable[TaskRecord], now: int, task_id: str | None = None, by: str | None = None
) -> NoteRecord:
    """The note of some tasks that are about to be set back.

    Args:
        run: their run, as it is before.
        tasks: their records, as they are before.
        now: the time.
        task_id: the one that somebody asked for.
        by: who does it.
    """
    rows: list[tuple[str, str, int, int | None, str | None]] = []
    count = 0
    for task in tasks:
        count += 1
        if len(rows) < MOST_TASKS and (task.attempts or task.state is not ExecutionState.SCHEDULED):
            told = task.state in (ExecutionState.SKIPPED, ExecutionState.CANCELLED)
            reason = task.reason[:MOST_CHARACTERS] if told and task.reason is not None else None
            rows.append((task.task_id, task.state.value, task.attempts, task.ended, reason))
    detail = json.dumps(rows, separators=(",", ":"))
    return NoteRecord(run.id, NoteKind.RESET, now, by, task_id, count, run.state, run.ended, detail)


def tasks_before(note: NoteRecord) -> list[Before]:
    """Where the tasks stood that a note of a reset names."""
    if note.kind is not NoteKind.RESET or note.detail is None:
        return []
    return [Before(task_id, ExecutionState(state), *rest) for task_id, state, *rest in json.loads(note.detail)]
