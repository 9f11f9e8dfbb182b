"""Records as the models that people hold, and back: the one place where stored text becomes Python values."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from .codec import ValueCodec, clean
from .models import (
    Attempt,
    AttemptResult,
    ExecutionState,
    GraphNode,
    LazyNodes,
    LogEntry,
    NoteKind,
    TaskInstance,
    TaskType,
    WorkflowRun,
)
from .records import AttemptRecord, NoteRecord, RunRecord, TaskRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def to_datetime(moment: int | None) -> datetime | None:
    """Microseconds since 1970 as an aware UTC datetime."""
    return None if moment is None else _EPOCH + timedelta(microseconds=moment)


def moment_of(moment: int) -> datetime:
    """The same where it is known."""
    return _EPOCH + timedelta(microseconds=moment)


def to_moment(when: datetime | None) -> int | None:
    """An aware datetime (a naive one is taken as UTC) as microseconds since 1970."""
    if when is None:
        return None
    return ((when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)) - _EPOCH) // _MICROSECOND


def encode_logs(entries: list[tuple[int, int, str]], codec: ValueCodec) -> str | None:
    """The text of an attempt's log lines, each `[moment, level, message]`."""
    return codec.encode_unlimited([list(entry) for entry in entries], "logs") if entries else None


def decode_logs(text: str | None, codec: ValueCodec) -> list[LogEntry]:
    """The log lines that `encode_logs` wrote."""
    if text is None:
        return []
    return [LogEntry(_EPOCH + timedelta(microseconds=at), level, message) for at, level, message in codec.decode(text)]


def _decode(text: str | None, codec: ValueCodec) -> Any:
    # Not strictly: a type that this program does not know must not keep people from looking at a run. (Tasks pull strictly.)
    return None if text is None else codec.decode(text, strict=False)


def task_instance(record: TaskRecord, codec: ValueCodec) -> TaskInstance:
    """The task instance that a record describes."""
    output = _decode(record.output, codec)
    if record.type is TaskType.FLOW and record.child_run_id is not None:
        output = {"child_run_id": record.child_run_id, "result": output}
    return TaskInstance(
        task_id=record.task_id,
        type=record.type,
        state=record.state,
        try_number=record.try_number,
        input_json=_decode(record.input, codec),
        output_json=output,
        error=record.error,
        start_date=to_datetime(record.started),
        end_date=to_datetime(record.ended),
        reason=record.reason,
        next_attempt_at=to_datetime(record.due),
        interruptions=record.interruptions,
        logs=decode_logs(record.logs, codec),
        crashes=record.crashes,
    )


def _clean(text: str | None) -> str | None:
    return None if text is None else clean(text)


def task_record(task: TaskInstance, run_id: str, position: int, codec: ValueCodec) -> TaskRecord:
    """The record that describes a task instance.

    Raises:
        UnstorableValueError: its input or output holds something that cannot be stored.
    """
    output = task.output
    logs = [(to_moment(entry.at) or 0, entry.level, entry.message) for entry in task.logs]
    # The limit holds for each output and each param; what a subflow gets and gives may be made of several.
    encode_output = codec.encode if task.type == TaskType.TASK else codec.encode_unlimited
    return TaskRecord(
        run_id=run_id,
        task_id=task.task_id,
        position=position,
        type=TaskType(task.type),
        state=ExecutionState(task.state),
        attempts=task.try_number + 1 if task.start_date is not None else 0,
        try_number=task.try_number,
        interruptions=task.interruptions,
        crashes=task.crashes,
        started=to_moment(task.start_date),
        ended=to_moment(task.end_date),
        due=to_moment(task.next_attempt_at),
        input=None if task.input_json is None else codec.encode_unlimited(task.input_json, "input_json", task.task_id),
        output=None if output is None else encode_output(output, "output_json", task.task_id),
        error=_clean(task.error),
        reason=_clean(task.reason),
        logs=encode_logs(logs, codec),
        child_run_id=task.child_run_id,
    )


def workflow_run(
    record: RunRecord, tasks: Mapping[str, TaskInstance], codec: ValueCodec, params: dict[str, Any] | None = None
) -> WorkflowRun:
    """The run that a record describes, with the given tasks (and params, where the caller has them in hand)."""
    return WorkflowRun(
        id=record.id,
        flow_name=record.flow_name,
        params=_decode(record.params, codec) if params is None else params,
        state=record.state,
        start_date=to_datetime(record.started),
        end_date=to_datetime(record.ended),
        tasks=tasks,
        parent_run_id=record.parent_run_id,
        parent_task_id=record.parent_task_id,
        graph=LazyNodes(partial(_nodes, record.graph)),
    )


def _nodes(graph_text: str) -> Mapping[str, GraphNode]:
    from .looking import stored_nodes  # late: only who looks at runs needs it

    return stored_nodes(graph_text)


class TaskTable(Mapping[str, TaskInstance]):
    """The tasks of a run as a read-only mapping that makes each instance when it is asked for.

    Args:
        records: by task id.
        codec: how their values are read.
        whole: makes of a record one that has its output, where that is not in memory.
        keep: whether an instance that was made is given again the next time, as of a run that has ended; else each is the
            caller's own copy, as of a run that goes on.
    """

    def __init__(
        self,
        records: Mapping[str, TaskRecord],
        codec: ValueCodec,
        whole: Callable[[TaskRecord], TaskRecord] | None = None,
        keep: bool = False,
    ) -> None:
        self._records = records
        self._codec = codec
        self._whole = whole
        self._kept: dict[str, TaskInstance] | None = {} if keep else None

    def __getitem__(self, task_id: str) -> TaskInstance:
        made = self._kept.get(task_id) if self._kept is not None else None
        if made is None:
            record = self._records[task_id]
            made = task_instance(record if self._whole is None else self._whole(record), self._codec)
            if self._kept is not None:
                made = self._kept.setdefault(task_id, made)  # of two threads that ask at once, both get the same
        return made

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"<TaskTable of {len(self)} tasks>"

    def __reduce__(self) -> tuple[type[dict[str, TaskInstance]], tuple[dict[str, TaskInstance]]]:
        # A copy, or what another process is sent, is plain data: records and codec stay here.
        return dict, (dict(self),)


class Workers:
    """Who drove a run at which time, as notes tell it: one drives at a time, until the next one begins.

    Args:
        notes: those of the run, and of the runs that it is a subflow of.
    """

    def __init__(self, notes: Iterable[NoteRecord]) -> None:
        drives = sorted((note.at, note.by) for note in notes if note.kind is NoteKind.DRIVE and note.by is not None)
        self._times = [at for at, _ in drives]
        self._names = [name for _, name in drives]

    def __repr__(self) -> str:
        return f"<Workers: {len(self._names)}>"

    def at(self, moment: int | None) -> str | None:
        """Who drove it then."""
        found = 0 if moment is None else bisect_right(self._times, moment)
        return self._names[found - 1] if found else None


_RESULTS = {
    ExecutionState.RUNNING: AttemptResult.RUNNING,
    ExecutionState.SUCCESS: AttemptResult.SUCCESS,
    ExecutionState.FAILED: AttemptResult.FAILED,
    ExecutionState.SKIPPED: AttemptResult.SKIPPED,
}


def attempt_records(tasks: Iterable[TaskRecord], archived: Iterable[AttemptRecord]) -> list[AttemptRecord]:
    """All attempts of the given tasks in order: those that were archived, and the latest, which the task itself holds."""
    found = {(old.position, old.number): old for old in archived}
    for task in tasks:
        result = _RESULTS.get(task.state)
        key = (task.position, task.attempts)
        if result is None or not task.attempts or key in found:
            continue
        if result is AttemptResult.SKIPPED and task.started is None:  # set back, and skipped before another attempt
            continue
        found[key] = AttemptRecord(
            task.run_id,
            task.task_id,
            task.position,
            task.attempts,
            task.try_number,
            result,
            task.started,
            task.ended,
            task.error,
            task.reason,
            task.logs,
        )
    return [found[key] for key in sorted(found)]


def attempts(
    tasks: Iterable[TaskRecord], archived: Iterable[AttemptRecord], codec: ValueCodec, workers: Workers
) -> list[Attempt]:
    """All attempts of the given tasks in order, as models."""
    return [
        Attempt(
            task_id=record.task_id,
            number=record.number,
            try_number=record.try_number,
            result=record.result,
            start_date=to_datetime(record.started),
            end_date=to_datetime(record.ended),
            error=record.error,
            reason=record.reason,
            logs=tuple(decode_logs(record.logs, codec)),
            worker=workers.at(record.started),
        )
        for record in attempt_records(tasks, archived)
    ]
