"""SQLiteStore: all runs in one SQLite file, in WAL mode. One commit of the engine is one transaction.

Who owns a run, what is known of it from one commit to the next, and until when. Must not know flows, the machine or executors;
how the file is written safely is `sqlite_file`'s business, and what stands in its rows `sqlite_rows`'s.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from .codec import ValueCodec
from .errors import (
    InvalidOptionError,
    OwnershipLostError,
    RunNotFoundError,
    RunOwnedError,
    StoreDamagedError,
)
from .file_system import translated
from .flusher import check_interval
from .forks import watch
from .late_dataclass import dataclass
from .models import TERMINAL_STATES
from .owners import Owners
from .records import Ask, AttemptRecord, Changes, Lease, NoteRecord, RunRecord, TaskRecord, copy_of
from .sqlite_file import SQLiteFile, WouldWait
from .sqlite_rows import Known, Rows, Writing, count_of, each_row
from .store import BaseStore, Choice, busy_timeout_of, is_large, lease_of
from .witness import Mark

if TYPE_CHECKING:
    from pathlib import Path

    from .asks import Asks, Later

T = TypeVar("T")

_logger = logging.getLogger("night_batch.sqlite_store")

_SEPARATORS = os.sep + (os.altsep or "")
_MOST_AHEAD = 1_000_000  # tasks of a run that was made and may never be driven from here: 180 MB
_RUN_ID = attrgetter("run_id")


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
        name = os.fspath(path)
        if name == ":memory:":
            raise InvalidOptionError("path", path, "the name of a file; for a store in memory, use MemoryStore")
        self._path = name.rstrip(_SEPARATORS)
        self._busy_timeout = busy_timeout_of(busy_timeout)
        self._file = SQLiteFile(self._path, repr(self), self._busy_timeout, check_interval(sync_interval), count_of)
        self._rows = Rows(repr(self), lambda: self._file.generation)
        self._owners = Owners(self._beside("-owner-"), lease_of(lease))
        self._asks_beside: Asks | None = None
        self._held: dict[str, tuple[int, int]] = {}
        """The runs that this store owns, each with its epoch, and as of which count of `SQLiteFile.rivals`."""
        self._known: dict[str, Known] = {}
        self._ahead: _Ahead | None = None
        self._generation = 0
        """That of the file by which the runs were learnt."""
        watch(self)

    def __repr__(self) -> str:
        return f"SQLiteStore({self._path!r})"

    @property
    def path(self) -> Path:
        """The file, as it was named."""
        from pathlib import Path  # late: it takes long to load, and the engine needs only the name

        return Path(self._path)

    def _beside(self, suffix: str) -> str:
        return os.path.realpath(self._path) + suffix

    @property
    def identity(self) -> str:
        """See `Store.identity`."""
        return f"sqlite {os.path.realpath(self._path)}"

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
            self._rows.trim()
        return held

    def _write(self, changes: Changes, writer: sqlite3.Connection) -> tuple[None, Mark | None, int]:
        self._forget_what_may_be_old()
        writing = Writing()
        runs = {run.id: run for run in changes.runs}
        lease = changes.lease
        alone = None if lease is None else self._alone_since(lease)
        if lease is not None:
            self._check_fence(writer, changes, lease, runs, alone)
        if changes.new_runs:
            with_tasks = {task.run_id for task in changes.tasks}
            for run in {run.id: run for run in changes.new_runs}.values():
                known = self._rows.add_run(writer, run, self._file.rivals, run.id not in with_tasks)
                self._known[run.id] = writing.touched[run.id] = known
        if changes.tasks:
            self._add_task_rows(writer, changes.tasks, writing, alone)
        for attempt in changes.attempts:
            known = self._beside_tasks(writer, attempt.run_id, runs, writing, alone)
            writing.size += self._rows.write_attempt(writer, known, attempt)
        for note in changes.notes:
            known = self._beside_tasks(writer, note.run_id, runs, writing, alone)
            writing.size += self._rows.add_note(writer, known, note)
        rows: list[tuple[Any, ...]] = []
        for run_id, run in runs.items():
            known = writing.touched.get(run_id) or self._open_run(writer, run_id, writing, alone)
            rows.append(self._rows.change_run(writer, run, known))
        writing.write_tasks(writer)
        # By now the total of each run is what it will be, so that the last of its rows can seal it.
        writing.write_seals(writer)
        for row in rows:
            run_id = row[0]
            known = writing.touched[run_id]
            self._rows.save_run(writer, row, known, sealed=run_id not in writing.sealing)
        if changes.new_runs:
            self._keep_for_reading(changes)
        for known in writing.touched.values():
            return None, (known.no, known.commits), writing.size
        return None, None, writing.size

    def _beside_tasks(
        self, writer: sqlite3.Connection, run_id: str, runs: dict[str, RunRecord], writing: Writing, alone: int | None
    ) -> Known:
        """What is known of a run of which rows are written that take no seal."""
        if run_id not in writing.touched and run_id not in runs:
            runs[run_id] = self._rows.run(writer, run_id)  # nothing else of it changes: this row takes the seal
        return writing.touched.get(run_id) or self._open_run(writer, run_id, writing, alone)

    def _open_run(self, writer: sqlite3.Connection, run_id: str, writing: Writing, alone: int | None) -> Known:
        """What is known of a run that this commit writes to for the first time."""
        known = writing.touched[run_id] = self._touch(writer, run_id, alone)
        known.commits += 1
        return known

    def _add_task_rows(
        self, writer: sqlite3.Connection, tasks: Sequence[TaskRecord], writing: Writing, alone: int | None
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
            self._rows.add_tasks(writer, known, of_run, last[run_id], writing)

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
                runs[lease.run_id] = self._rows.run(writer, lease.run_id)

    def _forget_what_may_be_old(self) -> None:
        if self._generation != self._file.generation:
            self._known.clear()
            self._generation = self._file.generation

    def _alone_since(self, lease: Lease) -> int | None:
        """As of which count of `SQLiteFile.rivals` a lease of this store has kept all others from its tree of runs."""
        epoch, rivals = self._held.get(lease.run_id, (0, 0))
        return rivals if epoch == lease.epoch else None

    def _touch(self, writer: sqlite3.Connection, run_id: str, alone: int | None) -> Known:
        """What is known of a run that is to be written; looked up anew if anybody else may have written to it.

        Args:
            writer: within the transaction that is to write.
            run_id: the run.
            alone: see `_alone_since`; None where others may have written at any time.
        """
        known = self._known.get(run_id)
        if known is None or known.rivals < (self._file.rivals if alone is None else alone):
            known = self._known[run_id] = self._rows.learn(writer, run_id, self._file.rivals)
        elif known.rivals != self._file.rivals:
            row = writer.execute("SELECT epoch FROM runs WHERE no = ?", (known.no,)).fetchone()
            if row is None:  # it was removed meanwhile
                raise RunNotFoundError(run_id, repr(self))
            known.rivals = self._file.rivals
            if row[0] != known.epoch:
                known = self._known[run_id] = self._rows.learn(writer, run_id, self._file.rivals)
        return known

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
                self._known[run_id] = self._rows.learn(writer, run_id, self._file.rivals, tasks)
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
        owner, since = self._rows.find(writer, "owner, since", run_id)
        with self._rows.of_the_right_kind(run_id):
            if owner == token:
                return RunOwnedError(run_id, "this very process", since) if run_id in self._held else None
            if owner is not None and self._owners.is_alive(owner):
                return RunOwnedError(run_id, self._name_of(owner), since)
        return None

    def owner_of(self, run_id: str) -> str | None:
        """See `Store.owner_of`."""
        (owner,) = self._file.read(lambda reader: self._rows.find(reader, "owner", run_id))
        with self._rows.of_the_right_kind(run_id):
            if owner is None:
                return None
            if self._owners.is_mine(owner):
                return "this very process" if run_id in self._held else None
            return self._name_of(owner) or "somebody unknown" if self._owners.is_alive(owner) else None

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

    def _change_hands(self, writer: sqlite3.Connection, run_id: str, known: Known) -> Mark:
        """Write down who owns a run, which is one more commit of it."""
        columns = self._rows.change_run(writer, self._rows.run(writer, run_id), known)
        known.commits += 1
        self._rows.save_run(writer, columns, known, sealed=True)
        return known.no, known.commits

    def _name_of(self, token: str | None) -> str | None:
        owner = self._owners.owner(token) if token is not None else None
        return None if owner is None else str(owner)

    # --- asking ---

    def _files_of_asks(self) -> Asks:
        made = self._asks_beside
        if made is None:
            from .asks import Asks  # late: who only looks at runs, or makes them, asks nothing

            made = self._asks_beside = Asks(self._beside("-asks-"))
        return made

    def ask(self, run_id: str, ask: Ask) -> None:
        """See `Store.ask`. It is kept in a file beside the database."""
        self.read_run(run_id)
        with translated(repr(self)):
            self._files_of_asks().put(run_id, ask)

    def asked(self, run_id: str) -> list[Ask]:
        """See `Store.asked`."""
        return self._files_of_asks().read(run_id)

    def forget_asks(self, run_id: str, asks: Iterable[Ask] | None = None) -> None:
        """See `Store.forget_asks`."""
        self._files_of_asks().forget(run_id, asks)

    def watch_asks(self, run_id: str, callback: Callable[[], object], later: Later | None = None) -> Callable[[], None]:
        """See `Store.watch_asks`."""
        return self._files_of_asks().watch(run_id, callback, later)

    # --- reading ---

    def read_run(self, run_id: str) -> RunRecord:
        """See `Store.read_run`."""
        return self._file.read(lambda reader: self._rows.run(reader, run_id))

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
        return self._file.read(lambda reader: self._rows.tasks(reader, run_id))

    def read_output(self, run_id: str, position: int) -> str | None:
        """The stored text of one task's output, for an engine that does not keep all outputs of a long run in memory."""
        return self._file.read(lambda reader: self._rows.output(reader, run_id, position))

    def read_attempts(self, run_id: str) -> list[AttemptRecord]:
        """See `Store.read_attempts`."""
        return self._file.read(lambda reader: self._rows.attempts(reader, run_id))

    def read_notes(self, run_id: str) -> list[NoteRecord]:
        """See `Store.read_notes`."""
        return self._file.read(lambda reader: self._rows.notes(reader, run_id))

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
                rows = list(each_row(reader, where, arguments, leave_out))
            except UnicodeEncodeError:  # a lone surrogate, which no name in the file can hold
                return []
            for row in rows:
                try:
                    found.append(self._rows.run_of(reader, row))
                except StoreDamagedError as error:
                    leave_out(str(error))
                if len(found) == limit:
                    break
            return found

        return self._file.read(work)

    def exists(self, run_id: str) -> bool:
        """See `Store.exists`."""
        try:
            self._file.read(lambda reader: self._rows.number(reader, run_id))
        except RunNotFoundError:
            return False
        return True

    # --- housekeeping ---

    def check(self) -> list[str]:
        """See `Store.check`. Reads the whole file; commits go on meanwhile."""
        return self._file.read(lambda reader: list(self._rows.problems(reader)))

    def backup(self, path: str | os.PathLike[str]) -> None:
        """See `Store.backup`. The copy is one file, whatever -wal the original has."""
        self._file.backup(os.fspath(path).rstrip(_SEPARATORS))

    def _remove(self, run_ids: Sequence[str], lease: Lease) -> None:
        def work(writer: sqlite3.Connection) -> tuple[None, Mark, int]:
            self._forget_what_may_be_old()
            known = self._touch(writer, lease.run_id, self._alone_since(lease))
            if known.epoch != lease.epoch:
                raise OwnershipLostError(lease.run_id, self._name_of(known.owner))
            for run_id in run_ids:
                number, state = self._rows.find(writer, "no, state", run_id)
                if state not in TERMINAL_STATES:  # it was set back a moment ago
                    raise RunOwnedError(run_id)
                self._rows.remove(writer, number)
                self._known.pop(run_id, None)
            self._rows.remove_unused_graphs(writer)
            return None, (0, 0), 0

        self._file.write(work)
        self._let_go(lease)

    def _shrink(self) -> None:
        self._file.shrink()
