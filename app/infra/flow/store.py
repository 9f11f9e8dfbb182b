"""The Store protocol: what the engine and people ask of a store, and what an implementer must keep.

To write one, derive from `BaseStore`, implement its abstract methods, and run the suite in `testing.store_contract` against
it. Must not know flows, the machine or executors.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from .codec import ValueCodec
from .errors import InvalidOptionError, OwnershipLostError, RunNotFoundError, RunOwnedError, StoreError, UnknownTaskError, closest
from .late_dataclass import dataclass
from .models import Attempt, ExecutionState, StateChange, TaskInstance, TaskType, WorkflowRun
from .options import seconds_of
from .records import Ask, AttemptRecord, Changes, Lease, NoteRecord, RunRecord, TaskRecord
from .views import Workers, attempts, task_instance, task_record, to_moment, workflow_run

if TYPE_CHECKING:
    from .asks import Later

AT_ONCE_RECORDS = 512
AT_ONCE_SIZE = 256 * 1024
"""Larger commits than these, in records and in characters, are not made on the event loop."""

Around = dict[str, tuple[RunRecord, set[str], list[NoteRecord]]]
"""Of runs with subflows: the run, which of its tasks those are, and its notes."""

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

    A run has one owner at a time, who holds its lease: `claim` takes it, `release` gives it up, and `commit`, the only way to
    write, refuses whoever has lost it.
    """

    @property
    def codec(self) -> ValueCodec:
        """How values of this store's runs are written and read."""
        ...

    @property
    def identity(self) -> str:
        """Where the runs are: two stores of the same identity share them."""
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
            OwnershipLostError: `changes.lease` has been taken by somebody else; nothing was written.
            StoreBusyError: somebody else held the store for too long; nothing was written.
            StoreError: anything else. Whether it was written is then unknown; the engine stops the run.
        """
        ...

    def commit_at_once(self, changes: Changes) -> bool:
        """Do what `commit` does if that takes no waiting (for a lock, for the disk, for a large batch): called on the event loop.

        Returns:
            Whether it was done; if not, nothing was written, and the engine calls `commit` in a thread.
        """
        ...

    def claim(self, run_id: str, *, force: bool = False) -> Lease:
        """Become the owner of a run, and of the runs of its subflows.

        Args:
            run_id: the run.
            force: take it from an owner who lives, too; what that one writes from then on is refused.

        Raises:
            RunNotFoundError: there is no such run.
            RunOwnedError: it has a living owner; this very store may be it.
        """
        ...

    def release(self, lease: Lease) -> None:
        """Give up a lease; no effect if it was lost."""
        ...

    def owner_of(self, run_id: str) -> str | None:
        """Who owns a run and lives, in a few words; None where nobody does. It takes nothing, and may be past when it returns.

        The lease of a subflow's run lies on the outermost run: ask for that one.

        Raises:
            RunNotFoundError: there is no such run.
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

    def read_notes(self, run_id: str) -> list[NoteRecord]:
        """The notes of a run, in the order in which they were added.

        Raises:
            RunNotFoundError: there is no such run.
        """
        ...

    def read_runs(self, parent_run_id: str | None = None) -> list[RunRecord]:
        """All runs, or those of one parent; newest first, and of runs made in the same microsecond the last committed first."""
        ...

    def ask(self, run_id: str, ask: Ask) -> None:
        """Ask something of whoever drives a run: where processes share the store, it is kept, a power cut included.

        Args:
            run_id: the outermost run of the tree.
            ask: what is asked of it, or of one inside it.

        Raises:
            RunNotFoundError: there is no such run.
        """
        ...

    def asked(self, run_id: str) -> list[Ask]:
        """What was asked of a run and is not forgotten, in order and each once. Takes no open store, and no time."""
        ...

    def forget_asks(self, run_id: str, asks: Iterable[Ask] | None = None) -> None:
        """Forget what was asked: these, and not what was added meanwhile; or all of it, since the run has ended."""
        ...

    def watch_asks(self, run_id: str, callback: Callable[[], object], later: Later | None = None) -> Callable[[], None]:
        """Have `callback` called, in any thread, when something is asked of a run.

        At once if it is asked in this process, by any store of the same identity; else within about a second. It may be called
        though nothing is new.

        Args:
            run_id: the outermost run.
            callback: must not take long; what it raises is logged.
            later: calls a function after so many seconds, as an event loop's `call_later` does. What it takes to learn what
                other processes ask may be begun that much later: most runs have ended by then.

        Returns:
            What ends it; with `later`, to be called where that calls its functions.
        """
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

    def list_runs(
        self, state: ExecutionState | str | None = None, flow_name: str | None = None, limit: int | None = None
    ) -> list[str]:
        """The ids of runs, newest first; those of subflows too.

        Args:
            state: only the runs in this state.
            flow_name: only those of this flow.
            limit: no more than so many.

        Raises:
            InvalidOptionError: there is no such state, or the limit is no whole number from 1 on.
        """
        ...

    def list_children(self, parent_run_id: str) -> list[str]:
        """The ids of the subflow runs of a run, newest first."""
        ...

    def get_all_runs(
        self,
        include_tasks: bool = True,
        state: ExecutionState | str | None = None,
        flow_name: str | None = None,
        limit: int | None = None,
    ) -> list[WorkflowRun]:
        """Runs, newest first, with or without their tasks; the other arguments and errors are those of `list_runs`."""
        ...

    def list_attempts(self, run_id: str, task_id: str | None = None) -> list[Attempt]:
        """The history of a run's attempts, or of one task's, in order.

        Raises:
            RunNotFoundError: there is no such run (a KeyError).
            UnknownTaskError: the run has no such task (a KeyError).
        """
        ...

    def history(self, run_id: str, task_id: str | None = None) -> list[StateChange]:
        """What became of a run and its tasks, or of one task, in order of time: each change of a state, with its time and worker.

        The run was made, begun, interrupted, continued, ended or set back; a task's attempt began and ended; a task was skipped,
        cancelled or set back. Subflows' runs have histories of their own.

        Nothing is written for it but a note whenever somebody drives the run, stops it or sets it back; all else follows from
        what is stored anyway. So some things are not known:

        - When a process died. The interruption is told at the moment at which the run was continued.
        - Of a reset of many tasks, where each stood that is not among the first hundred and had no attempt: skipped, say.
        - What people wrote by `save` or `update_task`, but for the state that came of it.
        - Of what older versions wrote: who the workers were, when a run was interrupted or set back and when it had ended before
          that. A change that must have been is told at the latest moment at which it can have been, if there is one.

        Args:
            run_id: the run; it may be that of a subflow.
            task_id: only this task's changes.

        Raises:
            RunNotFoundError: there is no such run (a KeyError).
            UnknownTaskError: the run has no such task (a KeyError).
        """
        ...

    def check(self) -> list[str]:
        """Look through all that is stored; what is wrong with it, a sentence each. An empty list: nothing was found."""
        ...

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Make a copy of the whole store at `path`, as it is at one moment, while runs go on.

        Raises:
            StoreError: something exists there already, or the copy could not be made; nothing is left of it then.
        """
        ...

    def prune(
        self,
        older_than: timedelta | float | None = None,
        keep: int = 0,
        states: Iterable[ExecutionState | str] | None = None,
        flow_name: str | None = None,
    ) -> list[str]:
        """Remove whole runs, with their subflows' runs and all attempts, and give the space back.

        A run that has not ended, or of whose subflow runs one has not, is never removed.

        Args:
            older_than: only those that ended longer ago than this (a timedelta, or seconds).
            keep: leave this many of each flow's newest runs of `states`, whatever their age.
            states: only those that ended so; any ending if left out.
            flow_name: only those of this flow.

        Returns:
            The ids of the runs that were removed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """Which runs somebody wants to see; None is any."""

    state: ExecutionState | None
    flow_name: str | None
    limit: int | None

    def includes(self, run: RunRecord) -> bool:
        """Whether a run is among them, the limit apart."""
        return (self.state is None or run.state is self.state) and (self.flow_name is None or run.flow_name == self.flow_name)


def check_choice(state: ExecutionState | str | None, flow_name: str | None, limit: int | None) -> Choice:
    """What was asked for, checked.

    Raises:
        InvalidOptionError: see `Store.list_runs`.
    """
    states = [known.value for known in ExecutionState]
    if state is not None and state not in states:
        raise InvalidOptionError("state", state, f"one of {', '.join(map(repr, states))}")
    if flow_name is not None and not isinstance(flow_name, str):
        raise InvalidOptionError("flow_name", flow_name, "the name of a flow, or None")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InvalidOptionError("limit", limit, "a whole number from 1 on, or None")
    return Choice(None if state is None else ExecutionState(state), flow_name, limit)


def is_large(changes: Changes) -> bool:
    """Whether a commit would take too long to be made on the event loop."""
    if len(changes.runs) + len(changes.tasks) + len(changes.attempts) > AT_ONCE_RECORDS:
        return True
    size = 0
    for run in changes.runs:
        size += len(run.params) + len(run.graph)
    for task in changes.tasks:
        # Spelled out: this is asked once per commit, on the event loop.
        if task.output is not None:
            size += len(task.output)
        if task.input is not None:
            size += len(task.input)
        if task.error is not None:
            size += len(task.error)
        if task.logs is not None:
            size += len(task.logs)
    for attempt in changes.attempts:
        size += len(attempt.error or "") + len(attempt.logs or "")
    return size > AT_ONCE_SIZE


def busy_timeout_of(seconds: float) -> float:
    """How long a store waits for others, checked.

    Raises:
        InvalidOptionError: it is no number of seconds from 0 on.
    """
    return seconds_of("busy_timeout", seconds, "a number of seconds from 0 on")


def lease_of(seconds: float) -> float:
    """How long an owner may give no sign of life, checked.

    Raises:
        InvalidOptionError: it is no number of seconds from 1 on.
    """
    return seconds_of("lease", seconds, "a number of seconds from 1 on", least=1.0)


def outermost(store: Store, run_id: str) -> str:
    """The run whose lease covers a run: the one that it is a subflow of, however deep, or itself.

    A run that somebody else put under a parent stands for itself; the parent's task knows nothing of it.

    Raises:
        RunNotFoundError: there is no such run.
    """
    seen: set[str] = set()
    while run_id not in seen:
        seen.add(run_id)
        run = store.read_run(run_id)
        if run.parent_run_id is None or not store.exists(run.parent_run_id):
            break
        tasks = store.read_tasks(run.parent_run_id)
        if not any(task.task_id == run.parent_task_id and task.child_run_id == run_id for task in tasks):
            break
        run_id = run.parent_run_id
    return run_id


class BaseStore(ABC):
    """Everything that follows from the abstract methods, whose meaning `Store` states.

    Args:
        codec: how values are written and read; by default one without registered types.
    """

    def __init__(self, codec: ValueCodec | None = None) -> None:
        self._codec = codec if codec is not None else ValueCodec()
        self._leases: dict[str, Lease] = {}
        self._epoch = 0
        self._claiming = threading.Lock()
        self._asks: dict[str, dict[Ask, None]] = {}
        self._listening: dict[str, list[Callable[[], object]]] = {}

    @property
    def codec(self) -> ValueCodec:
        """How values of this store's runs are written and read."""
        return self._codec

    @property
    def identity(self) -> str:
        """See `Store.identity`. By default a store shares its runs with no other."""
        return f"{type(self).__qualname__} {id(self)}"

    @abstractmethod
    def open(self) -> None:
        """See `Store.open`."""

    @abstractmethod
    def close(self) -> None:
        """See `Store.close`."""

    @abstractmethod
    def commit(self, changes: Changes) -> None:
        """See `Store.commit`."""

    def commit_at_once(self, changes: Changes) -> bool:  # noqa: ARG002
        """See `Store.commit_at_once`. By default no commit is trusted not to wait."""
        return False

    def claim(self, run_id: str, *, force: bool = False) -> Lease:
        """See `Store.claim`. By default leases are kept in memory: enough where one process at a time has the store."""
        self.read_run(run_id)
        with self._claiming:
            if run_id in self._leases and not force:
                raise RunOwnedError(run_id, "this process")
            self._epoch += 1
            lease = self._leases[run_id] = Lease(run_id, self._epoch)
            return lease

    def release(self, lease: Lease) -> None:
        """See `Store.release`."""
        with self._claiming:
            if self._leases.get(lease.run_id) == lease:
                del self._leases[lease.run_id]

    def owner_of(self, run_id: str) -> str | None:
        """See `Store.owner_of`. By default leases are kept in memory."""
        self.read_run(run_id)
        with self._claiming:
            return "this very process" if run_id in self._leases else None

    def check_lease(self, changes: Changes) -> None:
        """For a `commit` where leases are kept as by default: refuse changes whose lease is lost; to be called before writing."""
        if changes.lease is not None and self._leases.get(changes.lease.run_id) != changes.lease:
            raise OwnershipLostError(changes.lease.run_id)

    def drop_lease(self, changes: Changes) -> None:
        """For a `commit` where leases are kept as by default: give the lease up if they say so; to be called after writing."""
        if changes.release and changes.lease is not None:
            self.release(changes.lease)

    def ask(self, run_id: str, ask: Ask) -> None:
        """See `Store.ask`. By default asks are kept in memory, as leases are."""
        from .asks import tell_all  # late: few runs are cancelled

        self.read_run(run_id)
        with self._claiming:
            self._asks.setdefault(run_id, {})[ask] = None
            listening = list(self._listening.get(run_id, ()))
        tell_all(listening)

    def asked(self, run_id: str) -> list[Ask]:
        """See `Store.asked`."""
        with self._claiming:
            return list(self._asks.get(run_id, ()))

    def forget_asks(self, run_id: str, asks: Iterable[Ask] | None = None) -> None:
        """See `Store.forget_asks`."""
        with self._claiming:
            known = self._asks.pop(run_id, {})
            if asks is not None:
                heeded = set(asks)
                left = {ask: None for ask in known if ask not in heeded}
                if left:
                    self._asks[run_id] = left

    def watch_asks(
        self,
        run_id: str,
        callback: Callable[[], object],
        later: Later | None = None,  # noqa: ARG002
    ) -> Callable[[], None]:
        """See `Store.watch_asks`."""
        with self._claiming:
            self._listening.setdefault(run_id, []).append(callback)
            known = run_id in self._asks

        def unwatch() -> None:
            with self._claiming:
                listening = self._listening.get(run_id, [])
                if callback in listening:
                    listening.remove(callback)
                if not listening:
                    self._listening.pop(run_id, None)

        if known:
            from .asks import tell_all  # late: few runs are cancelled

            tell_all([callback])
        return unwatch

    @abstractmethod
    def read_run(self, run_id: str) -> RunRecord:
        """See `Store.read_run`."""

    @abstractmethod
    def read_tasks(self, run_id: str) -> list[TaskRecord]:
        """See `Store.read_tasks`."""

    @abstractmethod
    def read_attempts(self, run_id: str) -> list[AttemptRecord]:
        """See `Store.read_attempts`."""

    def read_notes(self, run_id: str) -> list[NoteRecord]:
        """See `Store.read_notes`. By default none are kept: then nobody knows who drove a run, or when it was set back."""
        self.read_run(run_id)
        return []

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
        if not self.exists(run.id):
            self._save(run, None)
        else:
            with self._claimed(run.id) as lease:
                self._save(run, lease)

    @contextmanager
    def _claimed(self, run_id: str, to_remove: bool = False) -> Iterator[Lease]:
        whole = outermost(self, run_id)
        lease = self._claim_to_remove(whole) if to_remove else self.claim(whole)
        try:
            yield lease
        finally:
            self.release(lease)

    def _claim_to_remove(self, run_id: str) -> Lease:
        """Claim a run of which nothing will be read but its own row."""
        return self.claim(run_id)

    def _save(self, run: WorkflowRun, lease: Lease | None) -> None:
        known = self.read_run(run.id) if lease is not None else None
        record = RunRecord(
            id=run.id,
            flow_name=run.flow_name,
            params=self._codec.encode_unlimited(run.params, "params"),
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
        changes = Changes(flush=True, lease=lease, release=lease is not None)
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
            record.crashes = old.crashes
        return record

    def update_task(self, run_id: str, task_instance: TaskInstance) -> None:
        """See `Store.update_task`."""
        with self._claimed(run_id) as lease:
            old = self._task(self.read_tasks(run_id), run_id, task_instance.task_id)
            self.commit(Changes(tasks=[self._record(task_instance, run_id, old, old.position)], lease=lease, release=True))

    @staticmethod
    def _task(tasks: Sequence[TaskRecord], run_id: str, task_id: str) -> TaskRecord:
        for task in tasks:
            if task.task_id == task_id:
                return task
        raise UnknownTaskError(f"Run {run_id!r}", task_id, closest(task_id, (task.task_id for task in tasks)))

    def list_runs(
        self, state: ExecutionState | str | None = None, flow_name: str | None = None, limit: int | None = None
    ) -> list[str]:
        """See `Store.list_runs`."""
        return [run.id for run in self._chosen_runs(check_choice(state, flow_name, limit))]

    def _chosen_runs(self, choice: Choice) -> list[RunRecord]:
        """The runs that are asked for, newest first. By default all are read; a store that can look for them does."""
        return list(islice(filter(choice.includes, self.read_runs()), choice.limit))

    def list_children(self, parent_run_id: str) -> list[str]:
        """See `Store.list_children`."""
        return [run.id for run in self.read_runs(parent_run_id)]

    def get_all_runs(
        self,
        include_tasks: bool = True,
        state: ExecutionState | str | None = None,
        flow_name: str | None = None,
        limit: int | None = None,
    ) -> list[WorkflowRun]:
        """See `Store.get_all_runs`."""
        runs = self._chosen_runs(check_choice(state, flow_name, limit))
        return [self._model(run, self.read_tasks(run.id) if include_tasks else ()) for run in runs]

    def list_attempts(self, run_id: str, task_id: str | None = None) -> list[Attempt]:
        """See `Store.list_attempts`."""
        return self._list_attempts(run_id, task_id, {})

    def attempts_reader(self) -> Callable[[str], list[Attempt]]:
        """A `list_attempts` for many runs of one tree: what is around them, which says who drove them, is read but once."""
        around: Around = {}
        return lambda run_id: self._list_attempts(run_id, None, around)

    def _list_attempts(self, run_id: str, task_id: str | None, around: Around) -> list[Attempt]:
        tasks, archived = self._tasks_and_attempts(run_id, task_id)
        notes = [note for of_run in self._notes_of_tree(self.read_run(run_id), around) for note in of_run]
        return attempts(tasks, archived, self._codec, Workers(notes))

    def _tasks_and_attempts(self, run_id: str, task_id: str | None) -> tuple[list[TaskRecord], list[AttemptRecord]]:
        """All tasks of a run, or one of them, and their attempts but for the latest ones."""
        tasks = self.read_tasks(run_id)
        archived = self.read_attempts(run_id)
        if task_id is not None:
            only = self._task(tasks, run_id, task_id)
            tasks = [only]
            archived = [attempt for attempt in archived if attempt.position == only.position]
        return tasks, archived

    def _notes_of_tree(self, run: RunRecord, around: Around) -> list[list[NoteRecord]]:
        """The notes of a run and of those that it is a subflow of, with which it was driven; its own first.

        Args:
            run: the run.
            around: what is known already of those that have subflows; it is added to.
        """
        found = [self.read_notes(run.id)]
        seen = {run.id}
        while (parent_id := run.parent_run_id) is not None and parent_id not in seen:
            if parent_id not in around:
                if not self.exists(parent_id):
                    break
                subflows = {task.task_id for task in self.read_tasks(parent_id) if task.type is TaskType.FLOW}
                around[parent_id] = self.read_run(parent_id), subflows, self.read_notes(parent_id)
            parent, subflows, notes = around[parent_id]
            if run.parent_task_id not in subflows:  # somebody only said that it belongs there
                break
            seen.add(parent_id)
            found.append(notes)
            run = parent
        return found

    def history(self, run_id: str, task_id: str | None = None) -> list[StateChange]:
        """See `Store.history`."""
        from .history import history_of  # late: few programs look back

        run = self.read_run(run_id)
        own, *around = self._notes_of_tree(run, {})
        tasks, archived = self._tasks_and_attempts(run_id, task_id)
        return history_of(run, tasks, archived, own, [note for notes in around for note in notes], of_run_too=task_id is None)

    def check(self) -> list[str]:
        """See `Store.check`. By default: whether every run can be read, with its tasks, attempts and notes."""
        found: list[str] = []
        for run in self.read_runs():
            try:
                self.read_tasks(run.id)
                self.read_attempts(run.id)
                self.read_notes(run.id)
            except StoreError as error:
                found.append(str(error))
        return found

    def backup(self, path: str | os.PathLike[str]) -> None:  # noqa: ARG002
        """See `Store.backup`. By default there is none."""
        raise StoreError(repr(self), "this kind of store makes no backups")

    def prune(
        self,
        older_than: timedelta | float | None = None,
        keep: int = 0,
        states: Iterable[ExecutionState | str] | None = None,
        flow_name: str | None = None,
    ) -> list[str]:
        """See `Store.prune`."""
        from .housekeeping import prune_policy, trees_to_prune  # late: once a night is often

        policy = prune_policy(older_than, keep, states, flow_name)
        removed: list[str] = []
        for tree in trees_to_prune(self.read_runs(), policy, time.time_ns() // 1000):
            try:
                with self._claimed(tree[0], to_remove=True) as lease:
                    if all(ExecutionState.is_terminal(self.read_run(run_id).state) for run_id in tree):
                        self._remove(tree, lease)
                        self.forget_asks(tree[0])
                        removed.extend(tree)
            except (RunOwnedError, RunNotFoundError):  # somebody goes on with it just now, or was faster
                continue
        if removed:
            self._shrink()
        return removed

    def _remove(self, run_ids: Sequence[str], lease: Lease) -> None:  # noqa: ARG002
        """Remove runs with all that is theirs, in one transaction; the lease is that of the first."""
        raise StoreError(repr(self), "this kind of store cannot remove runs")

    def _shrink(self) -> None:  # noqa: B027
        """Give back the space of what was removed."""
