"""The Store protocol: what the engine and people ask of a store, and what an implementer must keep.

To write one, derive from `BaseStore`, implement its abstract methods, and run the suite in `testing.store_contract` against
it. Must not know flows, the machine or executors.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, TypeVar, runtime_checkable

from .codec import ValueCodec
from .errors import UnknownTaskError, closest
from .models import Attempt, TaskInstance, WorkflowRun
from .records import AttemptRecord, Changes, RunRecord, TaskRecord
from .views import attempts, task_instance, task_record, to_moment, workflow_run

S = TypeVar("S", bound="Store")
B = TypeVar("B", bound="BaseStore")


@runtime_checkable
class Store(Protocol):
    """Where runs live. `SQLiteStore`, `JsonStore` and `MemoryStore` are the engine's own.

    The first group of methods is what the engine uses; it deals in records (text and numbers) and makes up the whole
    of a store. The second group is for people; it deals in models (Python values) and follows from the first.

    Every method may be called from any thread. The engine calls `commit` for one run from one thread at a time, in the
    order in which the changes must become visible. Every method but `close` opens the store if it was never opened, and
    raises `StoreClosedError` once it was closed. A trouble of the medium (`OSError`, `sqlite3.Error` ...) leaves a store
    only as a `StoreError`.

    Ownership has its place here: `commit` is the only way to write, so a fence against a second owner is one check in one
    method; the calls that take and give up a run will stand beside `open` and `close`.
    """

    @property
    def codec(self) -> ValueCodec:
        """How values of this store's runs are written and read."""
        ...

    def open(self) -> None:
        """Make the store usable, creating it where nothing is; no effect if it is open.

        Raises:
            StoreFormatError: something that is no store of this kind stands there; it is left untouched.
            StoreVersionError: it was written by a newer version; it is left untouched.
        """
        ...

    def close(self) -> None:
        """Give up all resources; no effect if it is closed. What was committed stays."""
        ...

    def commit(self, changes: Changes) -> None:
        """Write all of `changes` or nothing.

        When it returns, a reader in any process sees the changes, and a kill of this process does not lose them; with
        `changes.flush`, neither does a power cut.

        Raises:
            RunExistsError: a run of `changes.new_runs` exists already; nothing was written.
            RunNotFoundError: the changes name a run that neither exists nor is among `changes.new_runs`; nothing was written.
            StoreError: anything else. Whether it was written is then unknown; the engine stops the run.
        """
        ...

    def read_run(self, run_id: str) -> RunRecord:
        """The record of a run, the caller's own copy.

        Raises:
            RunNotFoundError: there is no such run.
        """
        ...

    def read_tasks(self, run_id: str) -> list[TaskRecord]:
        """The records of a run's tasks in order of position, the caller's own copies.

        Raises:
            RunNotFoundError: there is no such run.
        """
        ...

    def read_attempts(self, run_id: str) -> list[AttemptRecord]:
        """The archived attempts of a run, by position and number.

        Raises:
            RunNotFoundError: there is no such run.
        """
        ...

    def read_runs(self, parent_run_id: str | None = None) -> list[RunRecord]:
        """All runs, or those of one parent; newest first, and of runs made in the same microsecond the last committed first."""
        ...

    # --- for people ---

    def __enter__(self: S) -> S:
        """Open the store for a `with` block."""
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Close it; an error in the block goes on its way."""
        ...

    def register(self, *types: type) -> None:
        """Let values of these dataclasses, enums or named tuples be stored; see `ValueCodec.register`."""
        ...

    def save(self, run: WorkflowRun) -> None:
        """Write a whole run, replacing what the store has of it; the engine itself never does.

        Tasks that only the store has stay as they are: what a run has done is not forgotten.
        """
        ...

    def load(self, run_id: str) -> WorkflowRun:
        """A run with all its tasks.

        Raises:
            RunNotFoundError: there is no such run (a KeyError).
        """
        ...

    def exists(self, run_id: str) -> bool:
        """Whether there is a run of that id."""
        ...

    def update_task(self, run_id: str, task_instance: TaskInstance) -> None:
        """Replace one task of a run.

        Raises:
            RunNotFoundError: there is no such run (a KeyError).
            UnknownTaskError: the run has no such task (a KeyError).
        """
        ...

    def list_runs(self) -> list[str]:
        """The ids of all runs, newest first; those of subflows too."""
        ...

    def list_children(self, parent_run_id: str) -> list[str]:
        """The ids of the subflow runs of a run, newest first."""
        ...

    def get_all_runs(self, include_tasks: bool = True) -> list[WorkflowRun]:
        """All runs, newest first, with or without their tasks."""
        ...

    def list_attempts(self, run_id: str, task_id: str | None = None) -> list[Attempt]:
        """The history of a run's attempts, or of one task's, in order.

        Raises:
            RunNotFoundError: there is no such run (a KeyError).
            UnknownTaskError: the run has no such task (a KeyError).
        """
        ...


class BaseStore(ABC):
    """Everything that follows from the abstract methods, whose meaning `Store` states.

    Args:
        codec: how values are written and read; by default one without registered types.
    """

    def __init__(self, codec: ValueCodec | None = None) -> None:
        self._codec = codec if codec is not None else ValueCodec()

    @property
    def codec(self) -> ValueCodec:
        """How values of this store's runs are written and read."""
        return self._codec

    @abstractmethod
    def open(self) -> None:
        """See `Store.open`."""

    @abstractmethod
    def close(self) -> None:
        """See `Store.close`."""

    @abstractmethod
    def commit(self, changes: Changes) -> None:
        """See `Store.commit`."""

    @abstractmethod
    def read_run(self, run_id: str) -> RunRecord:
        """See `Store.read_run`."""

    @abstractmethod
    def read_tasks(self, run_id: str) -> list[TaskRecord]:
        """See `Store.read_tasks`."""

    @abstractmethod
    def read_attempts(self, run_id: str) -> list[AttemptRecord]:
        """See `Store.read_attempts`."""

    @abstractmethod
    def read_runs(self, parent_run_id: str | None = None) -> list[RunRecord]:
        """See `Store.read_runs`."""

    @abstractmethod
    def exists(self, run_id: str) -> bool:
        """See `Store.exists`."""

    def __enter__(self: B) -> B:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def register(self, *types: type) -> None:
        """Let values of these dataclasses, enums or named tuples be stored; see `ValueCodec.register`."""
        self._codec.register(*types)

    def load(self, run_id: str) -> WorkflowRun:
        """See `Store.load`."""
        return self._model(self.read_run(run_id), self.read_tasks(run_id))

    def _model(self, run: RunRecord, tasks: Sequence[TaskRecord]) -> WorkflowRun:
        return workflow_run(run, {task.task_id: task_instance(task, self._codec) for task in tasks}, self._codec)

    def save(self, run: WorkflowRun) -> None:
        """See `Store.save`."""
        known = self.read_run(run.id) if self.exists(run.id) else None
        record = RunRecord(
            id=run.id,
            flow_name=run.flow_name,
            params=self._codec.encode(run.params, "params"),
            graph=known.graph if known else "",
            created=known.created if known else time.time_ns() // 1000,
            state=run.state,
            started=to_moment(run.start_date),
            ended=to_moment(run.end_date),
            parent_run_id=run.parent_run_id,
            parent_task_id=run.parent_task_id,
        )
        before = {task.task_id: task for task in self.read_tasks(run.id)} if known else {}
        following = max((task.position for task in before.values()), default=-1) + 1
        changes = Changes(flush=True)
        (changes.runs if known else changes.new_runs).append(record)
        for task in run.tasks.values():
            old = before.get(task.task_id)
            changes.tasks.append(self._record(task, run.id, old, following))
            following += old is None
        self.commit(changes)

    def _record(self, task: TaskInstance, run_id: str, old: TaskRecord | None, position: int) -> TaskRecord:
        record = task_record(task, run_id, old.position if old else position, self._codec)
        if old:  # a model does not carry the count of attempts that the history is numbered by
            record.attempts = max(old.attempts, record.attempts)
        return record

    def update_task(self, run_id: str, task_instance: TaskInstance) -> None:
        """See `Store.update_task`."""
        old = self._task(self.read_tasks(run_id), run_id, task_instance.task_id)
        self.commit(Changes(tasks=[self._record(task_instance, run_id, old, old.position)]))

    @staticmethod
    def _task(tasks: Sequence[TaskRecord], run_id: str, task_id: str) -> TaskRecord:
        for task in tasks:
            if task.task_id == task_id:
                return task
        raise UnknownTaskError(f"Run {run_id!r}", task_id, closest(task_id, (task.task_id for task in tasks)))

    def list_runs(self) -> list[str]:
        """See `Store.list_runs`."""
        return [run.id for run in self.read_runs()]

    def list_children(self, parent_run_id: str) -> list[str]:
        """See `Store.list_children`."""
        return [run.id for run in self.read_runs(parent_run_id)]

    def get_all_runs(self, include_tasks: bool = True) -> list[WorkflowRun]:
        """See `Store.get_all_runs`."""
        return [self._model(run, self.read_tasks(run.id) if include_tasks else ()) for run in self.read_runs()]

    def list_attempts(self, run_id: str, task_id: str | None = None) -> list[Attempt]:
        """See `Store.list_attempts`."""
        tasks = self.read_tasks(run_id)
        archived = self.read_attempts(run_id)
        if task_id is not None:
            only = self._task(tasks, run_id, task_id)
            tasks = [only]
            archived = [attempt for attempt in archived if attempt.position == only.position]
        return attempts(tasks, archived, self._codec)
