"""MemoryStore: runs in a dict, gone with the process. For tests, notebooks and flows that nobody needs to resume."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import copy
from dataclasses import field

from .codec import ValueCodec
from .errors import RunExistsError, RunNotFoundError, StoreClosedError
from .forks import watch
from .late_dataclass import dataclass
from .records import AttemptRecord, Changes, Lease, NoteRecord, RunRecord, TaskRecord
from .store import BaseStore


@dataclass(slots=True)
class _StoredRun:
    """A run as it is kept: with its tasks by position, and what came before their latest attempts."""

    record: RunRecord
    order: int
    tasks: dict[int, TaskRecord] = field(default_factory=dict[int, TaskRecord])
    attempts: dict[tuple[int, int], AttemptRecord] = field(default_factory=dict[tuple[int, int], AttemptRecord])
    notes: list[NoteRecord] = field(default_factory=list[NoteRecord])


class MemoryStore(BaseStore):
    """Keeps runs in memory; what a flow uses when it is given no store.

    Args:
        codec: how values are written and read. They are written, though nothing leaves the process: so a task gets from this
            store what it would get from one on disk.
    """

    def __init__(self, *, codec: ValueCodec | None = None) -> None:
        super().__init__(codec)
        self._lock = threading.Lock()
        self._runs: dict[str, _StoredRun] = {}
        self._made = 0
        self._closed = False
        watch(self)

    def __repr__(self) -> str:
        return f"MemoryStore(<{len(self._runs)} runs>)"

    def open(self) -> None:
        """See `Store.open`."""
        self._closed = False

    def close(self) -> None:
        """See `Store.close`. The runs stay for as long as the object does."""
        self._closed = True

    def after_fork(self) -> None:
        """In a forked child: it has a copy of the runs, and owns none of them."""
        self._lock, self._claiming = threading.Lock(), threading.Lock()
        self._leases.clear()
        self._asks, self._listening = {}, {}

    def commit(self, changes: Changes) -> None:
        """See `Store.commit`."""
        with self._lock:
            self._check_open()
            self.check_lease(changes)
            for run in changes.new_runs:
                known = self._runs.get(run.id)
                if known is not None:
                    raise RunExistsError(run.id, known.record.flow_name, run.flow_name)
            added = {run.id for run in changes.new_runs}
            named = {run.id for run in changes.runs}
            named.update(task.run_id for task in changes.tasks)
            named.update(attempt.run_id for attempt in changes.attempts)
            named.update(note.run_id for note in changes.notes)
            for run_id in named - added - self._runs.keys():
                raise RunNotFoundError(run_id, repr(self))
            for run in changes.new_runs:
                self._runs[run.id] = _StoredRun(copy(run), self._made)
                self._made += 1
            for run in changes.runs:
                self._runs[run.id].record = copy(run)
            for task in changes.tasks:
                self._runs[task.run_id].tasks[task.position] = copy(task)
            for attempt in changes.attempts:
                self._runs[attempt.run_id].attempts[attempt.position, attempt.number] = copy(attempt)
            for note in changes.notes:
                self._runs[note.run_id].notes.append(note)
        self.drop_lease(changes)

    def commit_at_once(self, changes: Changes) -> bool:
        """See `Store.commit_at_once`. Memory never makes anybody wait."""
        self.commit(changes)
        return True

    def _remove(self, run_ids: Sequence[str], lease: Lease) -> None:
        with self._lock:
            self.check_lease(Changes(lease=lease))
            for run_id in run_ids:
                self._runs.pop(run_id, None)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError(repr(self))

    def _run(self, run_id: str) -> _StoredRun:
        self._check_open()
        stored = self._runs.get(run_id)
        if stored is None:
            raise RunNotFoundError(run_id, repr(self))
        return stored

    def read_run(self, run_id: str) -> RunRecord:
        """See `Store.read_run`."""
        with self._lock:
            return copy(self._run(run_id).record)

    def read_tasks(self, run_id: str) -> list[TaskRecord]:
        """See `Store.read_tasks`."""
        with self._lock:
            tasks = self._run(run_id).tasks
            return [copy(tasks[position]) for position in sorted(tasks)]

    def read_attempts(self, run_id: str) -> list[AttemptRecord]:
        """See `Store.read_attempts`."""
        with self._lock:
            attempts = self._run(run_id).attempts
            return [copy(attempts[key]) for key in sorted(attempts)]

    def read_notes(self, run_id: str) -> list[NoteRecord]:
        """See `Store.read_notes`."""
        with self._lock:
            return list(self._run(run_id).notes)

    def read_runs(self, parent_run_id: str | None = None) -> list[RunRecord]:
        """See `Store.read_runs`."""
        with self._lock:
            self._check_open()
            found = [
                stored for stored in self._runs.values() if parent_run_id is None or stored.record.parent_run_id == parent_run_id
            ]
            found.sort(key=lambda stored: (stored.record.created, stored.order), reverse=True)
            return [copy(stored.record) for stored in found]

    def exists(self, run_id: str) -> bool:
        """See `Store.exists`."""
        with self._lock:
            self._check_open()
            return run_id in self._runs
