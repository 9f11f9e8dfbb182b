"""What a task may see of its run in another process: a value that can be sent there, and serves its context as the run would.

Text and records; nothing in it does anything by itself. Must not know a store, the loop or how it is sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any

from .codec import ValueCodec
from .errors import AmbiguousDependencyError, CannotTravelError, NotSentError, NotUpstreamError, shown
from .late_dataclass import dataclass
from .map_items import whole_of
from .models import ExecutionState, TaskType, WorkflowRun
from .records import RunRecord, TaskRecord, columns_of, copy_of
from .views import TaskTable, workflow_run

_PLAIN = ValueCodec()

Name = tuple[str, str]
"""The module that a function stands in, and its name there."""


@dataclass(slots=True, eq=False)
class Snapshot:
    """A run as one of its tasks may see it elsewhere: itself, its params, the task and the tasks that it depends on directly."""

    run: RunRecord
    """Without its graph, and without its params, which stand beside it."""
    task_id: str
    params: Mapping[str, str]
    tasks: dict[str, TaskRecord]
    codec: ValueCodec
    mapped: tuple[str | None, int] | None = None
    """Of a mapped task: the text of its item, and its place in the list."""
    names: Mapping[str, str] | None = None
    """What the task calls those that were sent, where it was included from another flow; None where it goes by their ids."""
    functions: Sequence[tuple[Name, str]] = ()
    """The names of the functions that stand for tasks sent along, with the ids: there the functions are other objects."""

    @classmethod
    def of(
        cls,
        run: RunRecord,
        params: Mapping[str, str],
        tasks: Sequence[TaskRecord],
        codec: ValueCodec,
        mapped: tuple[str | None, int] | None = None,
        names: Mapping[str, str] | None = None,
        functions: Iterable[tuple[Callable[..., Any] | None, str]] = (),
    ) -> Snapshot:
        """What is sent of a run: copies, for the run goes on.

        Args:
            run: the run.
            params: its params as they stand.
            tasks: the task that is sent, then those that it depends on.
            codec: how the run's values are written and read.
            mapped: of a mapped task, the text of its item, and its place in the list.
            names: what the task calls those tasks, where it was included from another flow.
            functions: what it may name them by: what each was declared with, and its id.
        """
        sent = RunRecord(
            id=run.id,
            flow_name=run.flow_name,
            params="",
            graph="",
            created=run.created,
            state=run.state,
            started=run.started,
            ended=run.ended,
            parent_run_id=run.parent_run_id,
            parent_task_id=run.parent_task_id,
        )
        known = [(name, task_id) for function, task_id in functions if (name := _name_of(function)) is not None]
        copies = {task.task_id: copy_of(task) for task in tasks}
        return cls(sent, tasks[0].task_id, dict(params), copies, codec, mapped, names, known)

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle: plain tuples and strings, which it writes and reads in a third of the time that our classes take."""
        run = self.run
        about_run = (run.id, run.flow_name, run.created, run.state.value, run.started, run.ended)
        tasks = []
        for task in self.tasks.values():
            run_id, task_id, position, kind, state, *rest = columns_of(task)
            tasks.append((run_id, task_id, position, kind.value, state.value, *rest))
        codec = self.codec
        sent = codec.max_size if type(codec) is ValueCodec and codec._types == _PLAIN._types else codec
        return _received, (
            about_run,
            (run.parent_run_id, run.parent_task_id),
            self.task_id,
            self.params,
            tasks,
            sent,
            self.mapped,
            self.names,
            self.functions,
        )

    # --- what the task sees: the Scope of its context ---

    @property
    def logger(self) -> logging.Logger:
        """The logger of that name there. Nothing is sent to it: lines go back to the run's own process."""
        return logging.getLogger(f"night_batch.{self.run.flow_name}")

    @property
    def identity(self) -> dict[str, str]:
        """See `Scope.identity`."""
        return {"flow_name": self.run.flow_name, "run_id": self.run.id}

    def now(self) -> int:
        """The time of the machine that the task runs on."""
        return time.time_ns() // 1000

    def redact(self, text: str) -> str:
        """The text as it is: the flow's hooks see it in the run's own process."""
        return text

    @property
    def has_groups(self) -> bool:
        """See `Scope.has_groups`."""
        return self.names is not None

    def id_of(self, task_id: str, name: str) -> str:
        """See `Scope.id_of`.

        Raises:
            NotSentError: it is none of those that were sent along.
        """
        found = name if self.names is None else self.names.get(name)
        if found is None:
            raise self._not_sent(task_id, name, self.names or ())
        return found

    @staticmethod
    def _not_sent(task_id: str, name: str, sent: Container[str]) -> NotSentError:
        whole = whole_of(name)
        return NotSentError(task_id, name, whole if whole is not None and whole in sent else None)

    def pull(self, task_id: str, wanted: str) -> Any:
        """See `Context.pull_output`.

        Raises:
            NotSentError: the output was not sent along.
        """
        record = self.tasks.get(wanted)
        if record is None:
            raise self._not_sent(task_id, wanted, self.tasks)
        if wanted == self.task_id:
            raise NotUpstreamError(task_id, wanted)
        if record.state is not ExecutionState.SUCCESS or record.output is None:
            return None
        return self.codec.decode(record.output)

    def task_of(self, task_id: str, function: Callable[..., Any]) -> str:
        """See `Scope.task_of`.

        Raises:
            NotSentError: the function is none of a task that was sent along.
            AmbiguousDependencyError: several of those have it.
            CannotTravelError: it has no name that it could be known by.
        """
        name = _name_of(function)
        label = str(getattr(function, "__qualname__", None) or shown(function))
        if name is None:
            problem = "it is no function at the top level of a module; pull the output by the task's id"
            raise CannotTravelError(task_id, f"what it pulls, {label},", problem)
        found = [sent_id for known, sent_id in self.functions if known == name]
        if not found:
            raise NotSentError(task_id, label)
        if len(found) > 1:
            raise AmbiguousDependencyError(task_id, label, found)
        return found[0]

    def run_model(self, params: dict[str, Any]) -> WorkflowRun:
        """The run as it stood when it was sent, with the tasks that were."""
        return workflow_run(self.run, TaskTable(self.tasks, self.codec), self.codec, params)

    def item(self, task_id: str) -> tuple[str | None, int] | None:  # noqa: ARG002 - it holds one task
        """See `Scope.item`."""
        return self.mapped

    def beat(self) -> float:
        """See `Scope.beat`."""
        return time.monotonic()

    def snapshot(self, task_id: str) -> Snapshot:
        """Itself: it holds one task."""
        assert task_id == self.task_id
        return self


def _name_of(function: object) -> Name | None:
    """By what name a function is known in any process; None where it has none there, as a lambda, a method or a partial."""
    if type(function) is not FunctionType or "<" in function.__qualname__:
        return None
    module = function.__module__
    return "__main__" if module == "__mp_main__" else module, function.__qualname__  # as multiprocessing calls the main script


_codecs: dict[int, ValueCodec] = {}


def _received(
    about_run: tuple[str, str, int, str, int | None, int | None],
    parent: tuple[str | None, str | None],
    task_id: str,
    params: Mapping[str, str],
    tasks: Sequence[tuple[Any, ...]],
    codec: ValueCodec | int,
    mapped: tuple[str | None, int] | None,
    names: Mapping[str, str] | None,
    functions: Sequence[tuple[Name, str]],
) -> Snapshot:
    """What `Snapshot.__reduce__` took apart."""
    run_id, flow_name, created, state, started, ended = about_run
    run = RunRecord(run_id, flow_name, "", "", created, ExecutionState(state), started, ended, *parent)
    records: dict[str, TaskRecord] = {}
    for run_id, sent_id, position, kind, state, *rest in tasks:
        records[sent_id] = TaskRecord(run_id, sent_id, position, TaskType(kind), ExecutionState(state), *rest)
    if isinstance(codec, int):
        known = _codecs.get(codec)
        if known is None:
            known = _codecs[codec] = ValueCodec(max_size=codec)
        codec = known
    return Snapshot(run, task_id, params, records, codec, mapped, names, functions)
