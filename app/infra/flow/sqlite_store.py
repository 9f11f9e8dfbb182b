"""SQLiteStore: all runs in one SQLite file, in WAL mode. One commit of the engine is one transaction.

Records as rows and back, the seals that show when a row was lost or changed, and who owns a run. Must not know flows, the machine
or executors; how the file is written safely is `sqlite_file`'s business.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from datetime import timedelta
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from .codec import ValueCodec
from .errors import (
    FlowError,
    InvalidOptionError,
    OwnershipLostError,
    RunExistsError,
    RunNotFoundError,
    RunOwnedError,
    StoreDamagedError,
)
from .flusher import check_interval
from .forks import watch
from .late_dataclass import dataclass
from .models import TERMINAL_STATES, AttemptResult, ExecutionState, TaskType
from .owners import Owners
from .records import AttemptRecord, Changes, Lease, RunRecord, TaskRecord, copy_of
from .sqlite_file import SQLiteFile, WouldWait
from .sqlite_schema import POSITIONS, WEIGHT, plain_task_crc, row_crc, task_crc
from .store import BaseStore, Choice, busy_timeout_of, is_large, lease_of
from .witness import Mark

T = TypeVar("T")

_logger = logging.getLogger("night_batch.sqlite_store")

_SAVE_TASK = f"INSERT OR REPLACE INTO tasks VALUES ({','.join('?' * 21)})"
_PLAIN = "key, task_id, type, state, attempts, try_number, interruptions, started, ended, output, crc"
_PLAIN_COLUMNS = 11
_SAVE_PLAIN_TASK = f"INSERT OR REPLACE INTO tasks ({_PLAIN}) VALUES ({','.join('?' * _PLAIN_COLUMNS)})"
"""Leaves the other columns at their defaults. sqlite3 takes 0.1 microseconds for each column, so this takes half the time of the
whole row, and of nearly all rows there is nothing more to write."""
_SAVE_SEALED_PLAIN_TASK = (
    f"INSERT OR REPLACE INTO tasks ({_PLAIN}, commits, total, seal) VALUES ({','.join('?' * (_PLAIN_COLUMNS + 3))})"
)
_MOST_GRAPHS = 64  # texts of graphs kept at hand between runs
_MOST_AHEAD = 1_000_000  # tasks of a run that was made and may never be driven from here: 180 MB
_MOST_ROWS = 1000  # at hand at once: a commit of a million tasks needs no memory for a million rows
_SAVE_ATTEMPT = f"INSERT OR REPLACE INTO attempts VALUES ({','.join('?' * 11)})"
_RUN = "id, flow_name, state, params, graph_no, created, started, ended, parent_run_id, parent_task_id, owner, epoch, since"
_SEALED = "crc, commits, total, seal"
_ADD_RUN = f"INSERT INTO runs ({_RUN}, {_SEALED}) VALUES ({','.join('?' * 17)})"
_SAVE_RUN = f"UPDATE runs SET ({_RUN}, {_SEALED}) = ({','.join('?' * 17)}) WHERE no = ?"
_READ_RUN = f"{_RUN}, crc"
_READ_RUNS = f"SELECT {_READ_RUN} FROM runs"
_STATES = {state.value: state for state in ExecutionState}
_TYPES = {kind.value: kind for kind in TaskType}
_RESULTS = {result.value: result for result in AttemptResult}


_RUN_ID = attrgetter("run_id")
_UNSEALED = (None, None, None)
_LARGEST_GAP = 1 << 20  # between two positions of a run


@dataclass(slots=True)
class _Known:
    """What this store knows of a run that it writes: all that a commit needs beside its changes."""

    no: int
    rivals: int
    """As of which count of `SQLiteFile.rivals`."""
    commits: int = 0
    total: int = 0
    """The sum of the checksums of all its rows."""
    run_crc: int = 0
    owner: str | None = None
    epoch: int = 0
    since: int | None = None
    crcs: array[int] = field(default_factory=lambda: array("L", [0]))
    """The checksum of each task's row, by position."""

    def take_run_crc(self, crc: int) -> None:
        """The run's own row is going to have this checksum."""
        self.total += crc - self.run_crc
        self.run_crc = crc

    def sealed(self, key: int | str, crc: int) -> tuple[int, int, int]:
        """The seal that a row is written with, as of now."""
        return self.commits, self.total, row_crc(key, crc, self.commits, self.total)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """The tasks of a run as they were read when it was taken, or written when it was made.

    They need not be read once more if nothing was written since: by this store, which counts the commits of each run, or by
    anybody else, which SQLite tells.
    """

    run_id: str
    commits: int
    rivals: int
    generation: int
    tasks: list[TaskRecord]

    def tells(self, run_id: str, commits: int, file: SQLiteFile) -> bool:
        """Whether these are the tasks of that run, as of so many commits; `file` has just looked whether others wrote."""
        now = (run_id, commits, file.rivals, file.generation)
        return (self.run_id, self.commits, self.rivals, self.generation) == now


class _Writing:
    """What one commit is going to write."""

    __slots__ = ("plain", "rows", "sealing", "size", "touched")

    def __init__(self) -> None:
        self.touched: dict[str, _Known] = {}
        """The runs that it changes."""
        self.plain: list[tuple[Any, ...]] = []
        """Rows of tasks that hold nothing out of the ordinary; see `_SAVE_PLAIN_TASK`."""
        self.rows: list[tuple[Any, ...]] = []
        """Rows of other tasks, all columns."""
        self.sealing: dict[str, tuple[Any, ...]] = {}
        """Of each run the last row, which is to take its seal."""
        self.size = 0
        """About how many bytes that is."""

    def write_tasks(self, writer: sqlite3.Connection) -> None:
        """Write the rows of tasks that there are so far, but for those that wait for their seals."""
        if self.plain:
            writer.executemany(_SAVE_PLAIN_TASK, self.plain)
            self.plain = []
        if self.rows:
            writer.executemany(_SAVE_TASK, self.rows)
            self.rows = []

    def write_seals(self, writer: sqlite3.Connection) -> None:
        """Write the last row of each run's tasks, and seal the run in it: its total must be what it will be."""
        for run_id, row in self.sealing.items():
            seal = self.touched[run_id].sealed(row[0], row[-1])
            writer.execute(_SAVE_SEALED_PLAIN_TASK if len(row) == _PLAIN_COLUMNS else _SAVE_TASK, (*row, *seal))


class SQLiteStore(BaseStore):
    """Keeps all runs in one SQLite file. Safe to use from any thread, and by several processes at once.

    Args:
        path: the database file; it is created where nothing is, for nobody else's eyes. Not `:memory:`: use `MemoryStore` for
            that. The file must lie on a local disk, since SQLite's WAL mode does not work across a network.
        sync_interval: seconds (or a timedelta) between two flushes to the disk: a commit is flushed at once when the last flush
            is at least that long ago, else at the latest when the interval is over; and always at the end of a run. 0 flushes
            each commit before anything acts on it, None only the end of a run. It is about power cuts: a killed process loses
            nothing either way.
        busy_timeout: seconds to wait for others who hold the file, before a `StoreBusyError`.
        lease: seconds without a sign of life after which the runs of a process that has stopped may be taken over; those of one
            that has died may be at once.
        codec: how values are written and read; brings the types registered with it.

    Raises:
        InvalidOptionError: the path is no name of a file, or a number makes no sense.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = "runs.db",
        *,
        sync_interval: float | timedelta | None = 0.05,
        busy_timeout: float = 30.0,
        lease: float = 30.0,
        codec: ValueCodec | None = None,
    ) -> None:
        super().__init__(codec)
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidOptionError("path", path, "the name of a file")
        if os.fspath(path) == ":memory:":
            raise InvalidOptionError("path", path, "the name of a file; for a store in memory, use MemoryStore")
        self.path = Path(path)
        self._busy_timeout = busy_timeout_of(busy_timeout)
        self._file = SQLiteFile(self.path, repr(self), self._busy_timeout, check_interval(sync_interval), _count_of)
        self._owners = Owners(self._beside("-owner-"), lease_of(lease))
        self._held: dict[str, tuple[int, int]] = {}
        """The runs that this store owns, each with its epoch, and as of which count of `SQLiteFile.rivals`."""
        self._known: dict[str, _Known] = {}
        self._ahead: _Ahead | None = None
        self._graph_numbers: dict[str, int] = {}
        self._graphs: dict[int, str] = {}
        self._generation = 0
        """That of the file by which the runs and graph numbers were learnt."""
        self._graphs_generation = 0
        watch(self)

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self.path)!r})"

    def _beside(self, suffix: str) -> Path:
        real = Path(os.path.realpath(self.path))
        return real.with_name(real.name + suffix)

    @property
    def identity(self) -> str:
        """See `Store.identity`."""
        return f"sqlite {os.path.realpath(self.path)}"

    def open(self) -> None:
        """See `Store.open`."""
        self._file.open()

    def close(self) -> None:
        """See `Store.close`. Runs that are owned still are given up."""
        self._file.close()
        self._held.clear()
        self._owners.close()

    def after_fork(self) -> None:
        """In a forked child: it owns nothing."""
        self._held, self._ahead = {}, None
        self._owners.after_fork()

    # --- writing ---

    def commit(self, changes: Changes) -> None:
        """See `Store.commit`."""
        self._commit(changes, wait=True)

    def commit_at_once(self, changes: Changes) -> bool:
        """See `Store.commit_at_once`."""
        if is_large(changes):
            return False
        try:
            self._commit(changes, wait=False)
        except WouldWait:
            return False
        return True

    def _commit(self, changes: Changes, wait: bool) -> None:
        try:
            self._file.write(partial(self._write, changes), flush=changes.flush, wait=wait)
        except OwnershipLostError:
            self._let_go(changes.lease)
            raise
        if changes.release:
            self._let_go(changes.lease)

    def _keep_for_reading(self, changes: Changes) -> None:
        """Whoever makes a run mostly drives it next."""
        self._ahead = None
        if len(changes.new_runs) == 1 and len(changes.tasks) <= _MOST_AHEAD:
            run_id = changes.new_runs[0].id
            if all(task.run_id == run_id for task in changes.tasks):
                commits = self._known[run_id].commits
                by_position = {task.position: task for task in changes.tasks}  # as they would be read: in order, each once
                copies = [copy_of(by_position[position]) for position in sorted(by_position)]
                self._ahead = _Ahead(run_id, commits, self._file.rivals, self._file.generation, copies)

    def _let_go(self, lease: Lease | None) -> bool:
        """Forget a lease; whether it was held.

        The run may have been taken anew meanwhile, by this very store: that lease stays.
        """
        held = lease is not None and self._held.get(lease.run_id, (0, 0))[0] == lease.epoch
        if held and lease is not None:
            del self._held[lease.run_id]
            self._ahead = None
            if not self._held:  # a service makes runs for ever: what is known of those that ended is of no more use
                self._known.clear()
            if len(self._graphs) > _MOST_GRAPHS:
                self._graphs, self._graph_numbers = {}, {}
        return held

    def _write(self, changes: Changes, writer: sqlite3.Connection) -> tuple[None, Mark | None, int]:
        self._forget_what_may_be_old()
        writing = _Writing()
        runs = {run.id: run for run in changes.runs}
        lease = changes.lease
        alone = None if lease is None else self._alone_since(lease)
        if lease is not None:
            self._check_fence(writer, changes, lease, runs, alone)
        if changes.new_runs:
            with_tasks = {task.run_id for task in changes.tasks}
            for run in {run.id: run for run in changes.new_runs}.values():
                writing.touched[run.id] = self._add_run(writer, run, run.id not in with_tasks)
        if changes.tasks:
            self._add_task_rows(writer, changes.tasks, writing, alone)
        for attempt in changes.attempts:
            run_id = attempt.run_id
            if run_id not in writing.touched and run_id not in runs:
                runs[run_id] = self._read_for_writing(writer, run_id)  # nothing else of it changes: this row takes the seal
            known = writing.touched.get(run_id) or self._open_run(writer, run_id, writing, alone)
            writing.size += self._write_attempt(writer, known, attempt)
        rows: list[tuple[Any, ...]] = []
        for run_id, run in runs.items():
            known = writing.touched.get(run_id) or self._open_run(writer, run_id, writing, alone)
            row = self._run_columns(writer, run, known)
            known.take_run_crc(row_crc(*row))
            rows.append(row)
        writing.write_tasks(writer)
        # By now the total of each run is what it will be, so that the last of its rows can seal it.
        writing.write_seals(writer)
        for row in rows:
            run_id = row[0]
            known = writing.touched[run_id]
            seal = _UNSEALED if run_id in writing.sealing else known.sealed(run_id, known.run_crc)
            writer.execute(_SAVE_RUN, (*row, known.run_crc, *seal, known.no))
        if changes.new_runs:
            self._keep_for_reading(changes)
        for known in writing.touched.values():
            return None, (known.no, known.commits), writing.size
        return None, None, writing.size

    def _open_run(self, writer: sqlite3.Connection, run_id: str, writing: _Writing, alone: int | None) -> _Known:
        """What is known of a run that this commit writes to for the first time."""
        known = writing.touched[run_id] = self._touch(writer, run_id, alone)
        known.commits += 1
        return known

    def _add_task_rows(
        self, writer: sqlite3.Connection, tasks: Sequence[TaskRecord], writing: _Writing, alone: int | None
    ) -> None:
        # A task that stands there twice is written once, as it stands there last: plain rows are written before all others.
        last = {task.run_id: task for task in tasks}
        unique: Collection[TaskRecord] = tasks
        if len(last) > 1:
            unique = {(task.run_id, task.position): task for task in tasks}.values()
        elif len(tasks) > 1:
            unique = {task.position: task for task in tasks}.values()
        for run_id, of_run in groupby(unique, _RUN_ID) if len(last) > 1 else ((tasks[0].run_id, unique),):
            known = writing.touched.get(run_id) or self._open_run(writer, run_id, writing, alone)
            self._add_rows_of_run(writer, known, of_run, last[run_id], writing)

    @staticmethod
    def _add_rows_of_run(
        writer: sqlite3.Connection, known: _Known, tasks: Iterable[TaskRecord], last: TaskRecord, writing: _Writing
    ) -> None:
        """Make the rows of tasks. The way of every commit of the engine, so it is written for speed: few calls, no objects."""
        base, crcs, plain, size = known.no * POSITIONS, known.crcs, writing.plain, 0
        for task in tasks:
            position, output = task.position, task.output
            size += 100 if output is None else 100 + len(output)
            if (
                task.due is None
                and task.input is None
                and task.error is None
                and task.reason is None
                and task.logs is None
                and task.child_run_id is None
                and not task.crashes
            ):
                row: tuple[Any, ...] = (
                    base + position,
                    task.task_id,
                    task.type._value_,
                    task.state._value_,
                    task.attempts,
                    task.try_number,
                    task.interruptions,
                    task.started,
                    task.ended,
                    output,
                )
                crc = plain_task_crc(row)
                if task is not last:
                    plain.append((*row, crc))
                    if len(plain) >= _MOST_ROWS:
                        writing.write_tasks(writer)
                        plain = writing.plain
            else:
                row = _task_columns(base + position, task)
                crc = task_crc(row)
                writing.size += sum(len(text) for text in (task.input, task.error, task.logs) if text is not None)
                if task is not last:
                    writing.rows.append((*row, crc, *_UNSEALED))
            if task is last:
                writing.sealing[task.run_id] = (*row, crc)
            if position < len(crcs) and (old := crcs[position]):
                known.total += crc - old
                crcs[position] = crc
            else:
                known.total += crc + WEIGHT
                _put(crcs, position, crc)
        writing.size += size

    def _read_for_writing(self, writer: sqlite3.Connection, run_id: str) -> RunRecord:
        return self._run(writer, self._find(writer, _READ_RUN, run_id))

    def _check_fence(
        self, writer: sqlite3.Connection, changes: Changes, lease: Lease, runs: dict[str, RunRecord], alone: int | None
    ) -> None:
        """Refuse changes whose lease is lost; where they give it up, that is one more change of the run."""
        known = self._touch(writer, lease.run_id, alone)
        if known.epoch != lease.epoch or known.owner is None:  # taken by somebody else, or given up
            raise OwnershipLostError(lease.run_id, self._name_of(known.owner))
        if changes.release:
            known.owner = known.since = None
            if lease.run_id not in runs:
                runs[lease.run_id] = self._read_for_writing(writer, lease.run_id)

    def _forget_what_may_be_old(self) -> None:
        if self._generation != self._file.generation:
            self._known.clear()
            self._graph_numbers.clear()
            self._generation = self._file.generation

    def _alone_since(self, lease: Lease) -> int | None:
        """As of which count of `SQLiteFile.rivals` a lease of this store has kept all others from its tree of runs."""
        epoch, rivals = self._held.get(lease.run_id, (0, 0))
        return rivals if epoch == lease.epoch else None

    def _touch(self, writer: sqlite3.Connection, run_id: str, alone: int | None) -> _Known:
        """What is known of a run that is to be written; looked up anew if anybody else may have written to it.

        Args:
            writer: within the transaction that is to write.
            run_id: the run.
            alone: see `_alone_since`; None where others may have written at any time.
        """
        known = self._known.get(run_id)
        if known is None or known.rivals < (self._file.rivals if alone is None else alone):
            known = self._known[run_id] = self._learn(writer, run_id)
        elif known.rivals != self._file.rivals:
            row = writer.execute("SELECT epoch FROM runs WHERE no = ?", (known.no,)).fetchone()
            if row is None:  # it was removed meanwhile
                raise RunNotFoundError(run_id, repr(self))
            known.rivals = self._file.rivals
            if row[0] != known.epoch:
                known = self._known[run_id] = self._learn(writer, run_id)
        return known

    def _learn(self, connection: sqlite3.Connection, run_id: str, tasks: list[TaskRecord] | None = None) -> _Known:
        """Read the checksums of a run's rows, and compare them with its seal.

        Args:
            connection: within a transaction.
            run_id: the run.
            tasks: takes the tasks' records, if their rows are to be read whole.
        """
        number, owner, epoch, since, crc, *seal = self._find(connection, f"no, owner, epoch, since, {_SEALED}", run_id)
        first, last = _range(number)
        with self._of_the_right_kind(run_id):
            known = _Known(number, self._file.rivals, run_crc=crc, total=crc, owner=owner, epoch=epoch, since=since)
            newest: tuple[Any, ...] = (run_id, crc, *seal)
            columns = f"key, {_SEALED}" if tasks is None else "*"
            rows = connection.execute(f"SELECT {columns} FROM tasks WHERE key BETWEEN ? AND ? ORDER BY key", (first, last))
            crcs, total, commits_so_far = known.crcs, known.total, newest[2] or 0
            for sealed in rows if tasks is None else self._read_rows(run_id, first, rows, tasks):
                key, crc, commits, _, _ = sealed
                position = key - first
                if position >= len(crcs):
                    if position > len(crcs) + _LARGEST_GAP:
                        raise self._damaged(run_id, f"there is no position {position}")
                    _put(crcs, position, crc)
                else:
                    crcs[position] = crc
                total += crc + WEIGHT
                if commits is not None and commits > commits_so_far:
                    newest, commits_so_far = sealed, commits
            known.total = total
            known.total += self._attempts_total(connection, number)
            known.commits = newest[2] or 0
            self._check_seal(run_id, known.total, newest)
        return known

    @contextmanager
    def _of_the_right_kind(self, run_id: str) -> Iterator[None]:
        """What is read from rows is not always what was written: a text in place of a number is damage, as any wrong one is."""
        try:
            yield
        except FlowError:
            raise
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise self._damaged(run_id, f"a row holds what none can hold ({type(error).__name__}: {error})") from error

    @staticmethod
    def _attempts_total(connection: sqlite3.Connection, number: int) -> int:
        select = f"SELECT coalesce(sum(crc + {WEIGHT}), 0) FROM attempts WHERE task_key BETWEEN ? AND ?"
        return int(connection.execute(select, _range(number)).fetchone()[0])

    def _check_seal(self, run_id: str, total: int, newest: tuple[Any, ...]) -> None:
        """Refuse a run whose rows are not all those that were written last.

        Args:
            run_id: the run.
            total: what the checksums of its rows come to.
            newest: of the row with the newest seal: its key, checksum, and the three columns of the seal.
        """
        key, crc, commits, sealed_total, seal = newest
        if commits is None or row_crc(key, crc, commits, sealed_total) != seal:
            raise self._damaged(run_id, "its seal is missing, or is not what was written")
        if total != sealed_total:
            raise self._damaged(run_id, "rows are missing, or are older than the run")

    def _damaged(self, run_id: str, problem: str) -> StoreDamagedError:
        return StoreDamagedError(
            repr(self), f"run {run_id!r} is damaged: {problem}; nothing of it is used; restore a backup, or remove the run"
        )

    def _add_run(self, writer: sqlite3.Connection, run: RunRecord, sealed: bool) -> _Known:
        found = writer.execute("SELECT flow_name FROM runs WHERE id = ?", (run.id,)).fetchone()
        if found is not None:
            raise RunExistsError(run.id, found[0], run.flow_name)
        known = self._known[run.id] = _Known(0, self._file.rivals, commits=1)
        columns = self._run_columns(writer, run, known)
        known.run_crc = known.total = row_crc(*columns)
        seal = (1, known.total, row_crc(run.id, known.run_crc, 1, known.total)) if sealed else _UNSEALED
        number = writer.execute(_ADD_RUN, (*columns, known.run_crc, *seal)).lastrowid
        assert number is not None
        known.no = number
        return known

    def _run_columns(self, writer: sqlite3.Connection, run: RunRecord, known: _Known) -> tuple[Any, ...]:
        return (
            run.id,
            run.flow_name,
            run.state.value,
            run.params,
            self._graph_number(writer, run.graph),
            run.created,
            run.started,
            run.ended,
            run.parent_run_id,
            run.parent_task_id,
            known.owner,
            known.epoch,
            known.since,
        )

    def _graph_number(self, writer: sqlite3.Connection, graph: str) -> int:
        number = self._graph_numbers.get(graph)
        # It may have been removed meanwhile, with the last run that was made with it.
        if number is None or writer.execute("SELECT 1 FROM graphs WHERE no = ?", (number,)).fetchone() is None:
            digest = _digest(graph)
            writer.execute("INSERT OR IGNORE INTO graphs (digest, graph) VALUES (?, ?)", (digest, graph))
            number = int(writer.execute("SELECT no FROM graphs WHERE digest = ?", (digest,)).fetchone()[0])
            self._graph_numbers[graph] = number
        self._graphs[number] = graph  # in place of an equal text that was read
        return number

    def _number(self, connection: sqlite3.Connection, run_id: str) -> int:
        return int(self._find(connection, "no", run_id)[0])

    def _find(self, connection: sqlite3.Connection, columns: str, run_id: str) -> tuple[Any, ...]:
        try:
            number: tuple[Any, ...] | None = connection.execute("SELECT no FROM runs WHERE id = ?", (run_id,)).fetchone()
        except UnicodeEncodeError:  # a lone surrogate, which no run id in the file can hold
            number = None
        if number is None:
            raise RunNotFoundError(run_id, repr(self))
        # That was the index of ids, which may lead astray where it is damaged. So ask the row.
        row: tuple[Any, ...] | None = connection.execute(f"SELECT id, {columns} FROM runs WHERE no = ?", number).fetchone()
        if row is None or row[0] != run_id:
            raise self._damaged(run_id, "another run's row stands where its own should be")
        return row[1:]

    @staticmethod
    def _write_attempt(writer: sqlite3.Connection, known: _Known, attempt: AttemptRecord) -> int:
        row = (
            known.no * POSITIONS + attempt.position,
            attempt.number,
            attempt.task_id,
            attempt.try_number,
            attempt.result.value,
            attempt.started,
            attempt.ended,
            attempt.error,
            attempt.reason,
            attempt.logs,
        )
        crc = row_crc(*row)
        old = writer.execute("SELECT crc FROM attempts WHERE task_key = ? AND number = ?", row[:2]).fetchone()
        known.total += crc - old[0] if old is not None else crc + WEIGHT
        writer.execute(_SAVE_ATTEMPT, (*row, crc))
        return 200 + len(attempt.error or "") + len(attempt.logs or "")

    # --- owning ---

    def claim(self, run_id: str, *, force: bool = False) -> Lease:
        """See `Store.claim`."""
        return self._claim(run_id, force, read=not force)

    def _claim_to_remove(self, run_id: str) -> Lease:
        return self._claim(run_id, force=False, read=False)

    def _claim(self, run_id: str, force: bool, read: bool) -> Lease:
        """Take a run.

        Args:
            run_id: the run.
            force: whoever has it.
            read: whether its tasks are likely to be read next.
        """

        def work(writer: sqlite3.Connection) -> tuple[tuple[Lease, int] | RunOwnedError, Mark | None, int]:
            self._forget_what_may_be_old()
            token = self._owners.token
            # First of all, and not raised in here, where it would make this store forget what it knows of all its runs: who asks
            # for a run that is somebody else's may do so again and again.
            refusal = None if force else self._refusal(writer, run_id, token)
            if refusal is not None:
                return refusal, None, 0
            ahead = self._ahead
            tasks: list[TaskRecord] | None = None
            if read and run_id not in self._known:  # whoever takes a run reads it next
                tasks = []
                self._known[run_id] = self._learn(writer, run_id, tasks)
            known = self._touch(writer, run_id, None)
            if ahead is not None and ahead.tells(run_id, known.commits, self._file):
                tasks = ahead.tasks
            known.owner, known.epoch, known.since = token, known.epoch + 1, time.time_ns() // 1000
            mark = self._change_hands(writer, run_id, known)
            self._ahead = None
            if tasks is not None:
                self._ahead = _Ahead(run_id, known.commits, self._file.rivals, self._file.generation, tasks)
            return (Lease(run_id, known.epoch), self._file.rivals), mark, 0

        taken = self._file.write(work)
        if isinstance(taken, RunOwnedError):
            raise taken
        lease, rivals = taken
        self._held[run_id] = lease.epoch, rivals
        return lease

    def _refusal(self, writer: sqlite3.Connection, run_id: str, token: str) -> RunOwnedError | None:
        """Why a run cannot be taken: somebody has it, and lives."""
        owner, since = self._find(writer, "owner, since", run_id)
        with self._of_the_right_kind(run_id):
            if owner == token:
                return RunOwnedError(run_id, "this very process", since) if run_id in self._held else None
            if owner is not None and self._owners.is_alive(owner):
                return RunOwnedError(run_id, self._name_of(owner), since)
        return None

    def release(self, lease: Lease) -> None:
        """See `Store.release`."""
        alone = self._alone_since(lease)

        def work(writer: sqlite3.Connection) -> tuple[None, Mark | None, int]:
            self._forget_what_may_be_old()
            known = self._touch(writer, lease.run_id, alone)
            if known.epoch != lease.epoch or known.owner is None:
                return None, None, 0
            known.owner = known.since = None
            return None, self._change_hands(writer, lease.run_id, known), 0

        if self._let_go(lease):
            try:
                self._file.write(work)
            except RunNotFoundError:
                pass

    def _change_hands(self, writer: sqlite3.Connection, run_id: str, known: _Known) -> Mark:
        """Write down who owns a run, which is one more commit of it."""
        columns = self._run_columns(writer, self._read_for_writing(writer, run_id), known)
        known.take_run_crc(row_crc(*columns))
        known.commits += 1
        writer.execute(_SAVE_RUN, (*columns, known.run_crc, *known.sealed(run_id, known.run_crc), known.no))
        return known.no, known.commits

    def _name_of(self, token: str | None) -> str | None:
        owner = self._owners.owner(token) if token is not None else None
        return None if owner is None else str(owner)

    # --- reading ---

    def read_run(self, run_id: str) -> RunRecord:
        """See `Store.read_run`."""
        return self._file.read(lambda reader: self._run(reader, self._find(reader, _READ_RUN, run_id)))

    def _run(self, reader: sqlite3.Connection, row: tuple[Any, ...]) -> RunRecord:
        run_id, flow_name, state, params, graph_no, created, started, ended, parent_run_id, parent_task_id = row[:10]
        if row_crc(*row[:13]) != row[13]:
            raise self._damaged(str(run_id), "its row is not what was written")
        graph = self._graph(reader, run_id, graph_no)
        known_state = _STATES.get(state)
        if known_state is None:
            raise self._damaged(run_id, f"there is no state {state!r}")
        return RunRecord(run_id, flow_name, params, graph, created, known_state, started, ended, parent_run_id, parent_task_id)

    def _graph(self, reader: sqlite3.Connection, run_id: str, number: int) -> str:
        """The text of a graph. The digest that it is found by when it is written is its checksum when it is read."""
        if self._graphs_generation != self._file.generation:
            self._graphs, self._graphs_generation = {}, self._file.generation
        graph = self._graphs.get(number)
        if graph is None:
            row = reader.execute("SELECT graph, digest FROM graphs WHERE no = ?", (number,)).fetchone()
            if row is None or _digest(str(row[0])) != row[1]:
                raise self._damaged(run_id, "the graph that it was made with is missing, or not what was written")
            graph = self._graphs[number] = str(row[0])
        return graph

    def read_tasks(self, run_id: str) -> list[TaskRecord]:
        """See `Store.read_tasks`."""
        ahead, self._ahead = self._ahead, None
        known = self._known.get(run_id)
        if (
            ahead is not None
            and ahead.run_id == run_id
            and known is not None
            and self._file.is_alone()
            and ahead.tells(run_id, known.commits, self._file)
        ):
            return ahead.tasks
        return self._file.read(lambda reader: self._tasks(reader, run_id))

    def _tasks(self, reader: sqlite3.Connection, run_id: str) -> list[TaskRecord]:
        tasks: list[TaskRecord] = []
        self._learn(reader, run_id, tasks)
        return tasks

    def read_output(self, run_id: str, position: int) -> str | None:
        """The stored text of one task's output, for an engine that does not keep all outputs of a long run in memory."""

        def work(reader: sqlite3.Connection) -> str | None:
            first, _ = _range(self._number(reader, run_id))
            row = reader.execute("SELECT * FROM tasks WHERE key = ?", (first + position,)).fetchall()
            tasks: list[TaskRecord] = []
            for _ in self._read_rows(run_id, first, row, tasks):
                return tasks[0].output
            raise self._damaged(run_id, f"the row of the task at position {position} is missing")

        return self._file.read(work)

    def _read_rows(
        self, run_id: str, first: int, rows: Iterable[tuple[Any, ...]], tasks: list[TaskRecord]
    ) -> Iterator[tuple[Any, ...]]:
        """Check the rows of a run's tasks, add their records to `tasks`, and pass on what seals are made of."""
        for row in rows:
            if task_crc(row[:17]) != row[17]:
                raise self._damaged(run_id, f"the row of the task at position {row[0] - first} is not what was written")
            (
                key,
                task_id,
                kind,
                state,
                attempts,
                try_number,
                interruptions,
                started,
                ended,
                due,
                given,
                output,
                error,
                reason,
                logs,
                child_run_id,
                crashes,
                crc,
                commits,
                total,
                seal,
            ) = row
            tasks.append(
                TaskRecord(
                    run_id,
                    task_id,
                    key - first,
                    _TYPES[kind],
                    _STATES[state],
                    attempts,
                    try_number,
                    interruptions,
                    crashes,
                    started,
                    ended,
                    due,
                    given,
                    output,
                    error,
                    reason,
                    logs,
                    child_run_id,
                )
            )
            yield key, crc, commits, total, seal

    def read_attempts(self, run_id: str) -> list[AttemptRecord]:
        """See `Store.read_attempts`."""
        return self._file.read(lambda reader: self._attempts(reader, run_id))

    def _attempts(self, reader: sqlite3.Connection, run_id: str) -> list[AttemptRecord]:
        number = self._learn(reader, run_id).no  # which finds rows that are missing
        first, last = _range(number)
        rows = reader.execute(
            "SELECT * FROM attempts WHERE task_key BETWEEN ? AND ? ORDER BY task_key, number", (first, last)
        ).fetchall()
        with self._of_the_right_kind(run_id):
            for row in rows:
                if row_crc(*row[:-1]) != row[-1]:
                    raise self._damaged(
                        run_id, f"the row of attempt {row[1]} at position {row[0] - first} is not what was written"
                    )
            return [
                AttemptRecord(run_id, task_id, key - first, number, tries, _RESULTS[result], *rest)
                for key, number, task_id, tries, result, *rest, _ in rows
            ]

    def read_runs(self, parent_run_id: str | None = None) -> list[RunRecord]:
        """See `Store.read_runs`. A run whose row is damaged is left out, with a warning in the log: it hides no other."""
        if parent_run_id is None:
            return self._read_runs("", ())
        return self._read_runs("WHERE parent_run_id = ?", (parent_run_id,))

    def _chosen_runs(self, choice: Choice) -> list[RunRecord]:
        conditions = {"state = ?": choice.state and choice.state.value, "flow_name = ?": choice.flow_name}
        where = " AND ".join(condition for condition, value in conditions.items() if value is not None)
        arguments = tuple(value for value in conditions.values() if value is not None)
        return self._read_runs(f"WHERE {where}" if where else "", arguments, choice.limit)

    def _read_runs(self, where: str, arguments: tuple[str, ...], limit: int | None = None) -> list[RunRecord]:
        def leave_out(problem: str) -> None:
            _logger.warning("left out of the list of runs: %s", problem)

        def work(reader: sqlite3.Connection) -> list[RunRecord]:
            found: list[RunRecord] = []
            try:
                rows = list(_each_row(reader, where, arguments, leave_out))
            except UnicodeEncodeError:  # a lone surrogate, which no name in the file can hold
                return []
            for row in rows:
                try:
                    found.append(self._run(reader, row))
                except StoreDamagedError as error:
                    leave_out(str(error))
                if len(found) == limit:
                    break
            return found

        return self._file.read(work)

    def exists(self, run_id: str) -> bool:
        """See `Store.exists`."""
        try:
            self._file.read(lambda reader: self._number(reader, run_id))
        except RunNotFoundError:
            return False
        return True

    # --- housekeeping ---

    def check(self) -> list[str]:
        """See `Store.check`. Reads the whole file; commits go on meanwhile."""
        return self._file.read(lambda reader: list(self._problems(reader)))

    def _problems(self, reader: sqlite3.Connection) -> Iterator[str]:
        for (said,) in reader.execute("PRAGMA integrity_check").fetchall():
            if said != "ok":
                yield f"SQLite says: {said}"
        self._graphs.clear()  # what is known must not hide what is there
        unreadable: list[str] = []
        for row in _each_row(reader, "", (), unreadable.append):
            try:
                run = self._run(reader, row)
                self._tasks(reader, run.id)
                self._attempts(reader, run.id)
            except (StoreDamagedError, RunNotFoundError) as error:
                yield str(error)
            except sqlite3.OperationalError as error:
                yield f"run {row[0]!r} cannot be read: {error}"
        yield from unreadable
        for table, key in (("tasks", "key"), ("attempts", "task_key")):
            stray = f"SELECT DISTINCT {key} >> 32 FROM {table} WHERE {key} >> 32 NOT IN (SELECT no FROM runs)"
            for (number,) in reader.execute(stray).fetchall():
                yield f"there are {table} of run no. {number}, and there is no such run"

    def backup(self, path: str | os.PathLike[str]) -> None:
        """See `Store.backup`. The copy is one file, whatever -wal the original has."""
        self._file.backup(Path(path))

    def _remove(self, run_ids: Sequence[str], lease: Lease) -> None:
        def work(writer: sqlite3.Connection) -> tuple[None, Mark, int]:
            self._forget_what_may_be_old()
            known = self._touch(writer, lease.run_id, self._alone_since(lease))
            if known.epoch != lease.epoch:
                raise OwnershipLostError(lease.run_id, self._name_of(known.owner))
            for run_id in run_ids:
                number, state = self._find(writer, "no, state", run_id)
                if state not in TERMINAL_STATES:  # it was set back a moment ago
                    raise RunOwnedError(run_id)
                writer.execute("DELETE FROM tasks WHERE key BETWEEN ? AND ?", _range(number))
                writer.execute("DELETE FROM attempts WHERE task_key BETWEEN ? AND ?", _range(number))
                writer.execute("DELETE FROM runs WHERE no = ?", (number,))
                self._known.pop(run_id, None)
            writer.execute("DELETE FROM graphs WHERE NOT EXISTS (SELECT 1 FROM runs WHERE graph_no = graphs.no)")
            return None, (0, 0), 0

        self._file.write(work)
        self._let_go(lease)

    def _shrink(self) -> None:
        self._file.shrink()


def _task_columns(key: int, task: TaskRecord) -> tuple[Any, ...]:
    """All columns of a task's row, as far as its checksum."""
    return (
        key,
        task.task_id,
        task.type._value_,
        task.state._value_,
        task.attempts,
        task.try_number,
        task.interruptions,
        task.started,
        task.ended,
        task.due,
        task.input,
        task.output,
        task.error,
        task.reason,
        task.logs,
        task.child_run_id,
        task.crashes,
    )


def _count_of(connection: sqlite3.Connection, number: int) -> int | None:
    """How many commits of a run the file holds; more than any where the run was removed; None where it was never made."""
    of_tasks = "coalesce((SELECT max(commits) FROM tasks WHERE key BETWEEN ? AND ?), 0)"
    newest = f"SELECT max(coalesce(commits, 0), {of_tasks}) FROM runs WHERE no = ?"
    row = connection.execute(newest, (*_range(number), number)).fetchone()
    if row is not None:
        return int(row[0])
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'runs'").fetchone()
    return 1 << 62 if last is not None and last[0] >= number else None


def _each_row(
    reader: sqlite3.Connection, where: str, arguments: tuple[str, ...], unreadable: Callable[[str], None]
) -> Iterator[tuple[Any, ...]]:
    """The rows of runs, newest first; those that hold text that is none are left out, and told of."""
    newest_first = "ORDER BY created DESC, no DESC"
    try:
        yield from reader.execute(f"{_READ_RUNS} {where} {newest_first}", arguments).fetchall()
        return
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
    for (number,) in reader.execute(f"SELECT no FROM runs {where} {newest_first}", arguments).fetchall():
        try:
            yield reader.execute(f"{_READ_RUNS} WHERE no = ?", (number,)).fetchone()
        except sqlite3.OperationalError as error:
            unreadable(f"run no. {number} cannot be read: {error}")


def _range(number: int) -> tuple[int, int]:
    """The first and the last key of a run's tasks."""
    return number * POSITIONS, number * POSITIONS + POSITIONS - 1


def _put(crcs: array[int], position: int, crc: int) -> None:
    missing = position + 1 - len(crcs)
    if missing > 0:
        # In large steps: a run's tasks come one after the other.
        crcs.extend([0] * (missing if missing > 1 else max(1, len(crcs) // 8)))
    crcs[position] = crc


def _digest(graph: str) -> bytes:
    from hashlib import sha256  # late: it takes long to load, and nothing else needs it

    return sha256(graph.encode()).digest()
