"""SQLiteStore: all runs in one SQLite file, in WAL mode. One commit of the engine is one transaction.

Must not know flows, the machine or executors. Errors of sqlite3 and the operating system are translated here, once.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from .codec import ValueCodec
from .errors import (
    InvalidOptionError,
    RunExistsError,
    RunNotFoundError,
    StoreClosedError,
    StoreDamagedError,
    StoreError,
    StoreFormatError,
    StoreVersionError,
)
from .models import AttemptResult, ExecutionState, TaskType
from .records import AttemptRecord, Changes, RunRecord, TaskRecord
from .store import BaseStore

T = TypeVar("T")

APPLICATION_ID = 0x4E426174  # "NBat", in the file's header: tells our files from other programs'

MIGRATIONS: tuple[str, ...] = (
    """
    -- Graphs are shared by the runs that were made with them: a nightly flow stores its graph once.
    CREATE TABLE graphs (
        no     INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        graph  TEXT NOT NULL
    );
    CREATE TABLE runs (
        no             INTEGER PRIMARY KEY,
        id             TEXT NOT NULL UNIQUE,
        flow_name      TEXT NOT NULL,
        state          TEXT NOT NULL,
        params         TEXT NOT NULL,
        graph_no       INTEGER NOT NULL REFERENCES graphs (no),
        created        INTEGER NOT NULL,
        started        INTEGER,
        ended          INTEGER,
        parent_run_id  TEXT,
        parent_task_id TEXT
    );
    CREATE INDEX runs_by_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
    CREATE INDEX runs_by_creation ON runs (created);
    -- key = run no * 2^32 + position: the tasks of a run lie side by side, and a row is found by one integer.
    CREATE TABLE tasks (
        key           INTEGER PRIMARY KEY,
        task_id       TEXT NOT NULL,
        type          TEXT NOT NULL,
        state         TEXT NOT NULL,
        attempts      INTEGER NOT NULL,
        try_number    INTEGER NOT NULL,
        interruptions INTEGER NOT NULL,
        started       INTEGER,
        ended         INTEGER,
        due           INTEGER,
        input         TEXT,
        output        TEXT,
        error         TEXT,
        reason        TEXT,
        logs          TEXT,
        child_run_id  TEXT
    );
    CREATE TABLE attempts (
        task_key   INTEGER NOT NULL,
        number     INTEGER NOT NULL,
        task_id    TEXT NOT NULL,
        try_number INTEGER NOT NULL,
        result     TEXT NOT NULL,
        started    INTEGER,
        ended      INTEGER,
        error      TEXT,
        reason     TEXT,
        logs       TEXT,
        PRIMARY KEY (task_key, number)
    );
    """,
)
"""What leads from each version of the schema (`PRAGMA user_version`) to the next, from an empty file on."""

_POSITIONS = 1 << 32
_SMALLEST = 512  # bytes: one page of the smallest size, https://www.sqlite.org/fileformat2.html
_SAVE_TASK = f"INSERT OR REPLACE INTO tasks VALUES ({','.join('?' * 16)})"
_SAVE_ATTEMPT = f"INSERT OR REPLACE INTO attempts VALUES ({','.join('?' * 10)})"
_ADD_RUN = (
    "INSERT INTO runs (id, flow_name, state, params, graph_no, created, started, ended, parent_run_id, parent_task_id)"
    " VALUES (?,?,?,?,?,?,?,?,?,?)"
)
_SAVE_RUN = (
    "UPDATE runs SET flow_name=?, state=?, params=?, graph_no=?, created=?, started=?, ended=?, parent_run_id=?,"
    " parent_task_id=? WHERE no=?"
)
_READ_RUNS = (
    "SELECT id, flow_name, params, graph, created, state, started, ended, parent_run_id, parent_task_id"
    " FROM runs JOIN graphs ON graphs.no = graph_no"
)
_STATES = {state.value: state for state in ExecutionState}
_TYPES = {kind.value: kind for kind in TaskType}
_RESULTS = {result.value: result for result in AttemptResult}


class SQLiteStore(BaseStore):
    """Keeps all runs in one SQLite file. Safe to use from any thread.

    Args:
        path: the database file; it is created where nothing is. Not `:memory:`: use `MemoryStore` for that. The file must
            lie on a local disk, since SQLite's WAL mode does not work across a network.
        busy_timeout: seconds to wait for another process that holds the file.
        codec: how values are written and read; brings the types registered with it.

    Raises:
        InvalidOptionError: the path is no name of a file.
    """

    def __init__(
        self, path: str | os.PathLike[str] = "runs.db", *, busy_timeout: float = 30.0, codec: ValueCodec | None = None
    ) -> None:
        super().__init__(codec)
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidOptionError("path", path, "the name of a file")
        if os.fspath(path) == ":memory:":
            raise InvalidOptionError("path", path, "the name of a file; for a store in memory, use MemoryStore")
        self.path = Path(path)
        self._busy_timeout = busy_timeout
        # One connection writes and one reads, each behind its own lock: a long read holds up no commit, and the
        # rollback of one thread cannot take another's rows with it.
        self._writing = threading.RLock()
        self._reading = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._closed = False
        self._flushing = False
        self._run_numbers: dict[str, int] = {}
        self._graph_numbers: dict[str, int] = {}
        self._finalizer: weakref.finalize[[list[sqlite3.Connection]], SQLiteStore] | None = None

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self.path)!r})"

    # --- opening and closing ---

    def open(self) -> None:
        """See `Store.open`."""
        with self._writing, self._reading:
            if self._writer is None:
                self._closed = False
                self._connect()

    def _connect(self) -> None:
        with self._translated():
            if self.path.is_dir():
                raise StoreFormatError(repr(self), "the path is a directory; name a file, or use JsonStore for a folder")
            # SQLite writes over a file that is shorter than any database. (Asked for its size and not read: closing a
            # descriptor of ours would free the locks that another connection of this process holds on it.)
            if self.path.exists() and 0 < self.path.stat().st_size < _SMALLEST:
                raise StoreFormatError(repr(self), "the file is no database; name another path")
            if not self.path.parent.is_dir():
                raise StoreError(repr(self), f"the folder {str(self.path.parent)!r} does not exist; create it first")
            writer = self._connection()
            try:
                _check_ours(writer, repr(self))
                self._use_wal(writer)
                _migrate(writer, repr(self))
                writer.execute("PRAGMA synchronous = NORMAL")
                reader = self._connection()
            except BaseException:
                writer.close()
                raise
        self._writer, self._reader, self._flushing = writer, reader, False
        # SQLite folds the -wal file into the database when the last connection closes; do so at exit, too.
        self._finalizer = weakref.finalize(self, _close_all, [reader, writer])

    def _use_wal(self, writer: sqlite3.Connection) -> None:
        # Two processes that open a new file at once: here SQLite does not wait, whatever the busy timeout. So we do.
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                writer.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(0.005)
            else:
                return

    def _connection(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False, cached_statements=64
        )

    def close(self) -> None:
        """See `Store.close`."""
        with self._writing, self._reading:
            self._closed = True
            if self._finalizer is not None:
                with self._translated():
                    self._finalizer()
            self._writer = self._reader = self._finalizer = None
            self._run_numbers.clear()
            self._graph_numbers.clear()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._told(error) from error
        except OSError as error:
            raise StoreError(repr(self), f"{type(error).__name__}: {error}") from error
        except (UnicodeEncodeError, OverflowError) as error:  # sqlite3 raises these bare
            raise StoreError(repr(self), f"a text or number does not fit into a column: {error}") from error

    def _told(self, error: sqlite3.Error) -> StoreError:
        # By message: sqlite3 tells the error code only from Python 3.11 on.
        said = f"{type(error).__name__}: {error}"
        if "not a database" in said:
            return StoreFormatError(repr(self), f"the file is no database; it is left untouched; name another path ({said})")
        if "malformed" in said:
            return StoreDamagedError(repr(self), said)
        if "locked" in said:
            held = f"another program has held the database for {self._busy_timeout:g} s; end it, and call again"
            return StoreError(repr(self), f"{held} ({said})")
        return StoreError(repr(self), said)

    # --- writing ---

    def commit(self, changes: Changes) -> None:
        """See `Store.commit`."""
        with self._writing:
            writer = self._open_writer()
            with self._translated():
                if self._flushing is not changes.flush:
                    # FULL syncs the WAL at this commit, and with it every commit before; NORMAL leaves it to a later one.
                    writer.execute(f"PRAGMA synchronous = {'FULL' if changes.flush else 'NORMAL'}")
                    self._flushing = changes.flush
                writer.execute("BEGIN IMMEDIATE")  # a deferred transaction that upgrades may fail at once, busy timeout or not
                try:
                    self._write(writer, changes)
                    writer.execute("COMMIT")
                except BaseException:
                    self._run_numbers.clear()
                    self._graph_numbers.clear()
                    if writer.in_transaction:
                        writer.execute("ROLLBACK")
                    raise

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            if self._closed:
                raise StoreClosedError(repr(self))
            self.open()
        assert self._writer is not None
        return self._writer

    def _write(self, writer: sqlite3.Connection, changes: Changes) -> None:
        for run in {run.id: run for run in changes.new_runs}.values():
            self._add_run(writer, run)
        for run in changes.runs:
            number = self._run_number(writer, run.id)
            writer.execute(_SAVE_RUN, (*self._run_columns(writer, run), number))
        if changes.tasks:
            writer.executemany(_SAVE_TASK, self._task_rows(writer, changes.tasks))
        for attempt in changes.attempts:
            key = self._run_number(writer, attempt.run_id) * _POSITIONS + attempt.position
            writer.execute(
                _SAVE_ATTEMPT,
                (
                    key,
                    attempt.number,
                    attempt.task_id,
                    attempt.try_number,
                    attempt.result.value,
                    attempt.started,
                    attempt.ended,
                    attempt.error,
                    attempt.reason,
                    attempt.logs,
                ),
            )

    def _add_run(self, writer: sqlite3.Connection, run: RunRecord) -> None:
        known = writer.execute("SELECT flow_name FROM runs WHERE id = ?", (run.id,)).fetchone()
        if known is not None:
            raise RunExistsError(run.id, known[0], run.flow_name)
        number = writer.execute(_ADD_RUN, (run.id, *self._run_columns(writer, run))).lastrowid
        assert number is not None
        self._run_numbers[run.id] = number

    def _run_columns(self, writer: sqlite3.Connection, run: RunRecord) -> tuple[Any, ...]:
        return (
            run.flow_name,
            run.state.value,
            run.params,
            self._graph_number(writer, run.graph),
            run.created,
            run.started,
            run.ended,
            run.parent_run_id,
            run.parent_task_id,
        )

    def _graph_number(self, writer: sqlite3.Connection, graph: str) -> int:
        number = self._graph_numbers.get(graph)
        if number is None:
            digest = hashlib.sha256(graph.encode()).digest()
            writer.execute("INSERT OR IGNORE INTO graphs (digest, graph) VALUES (?, ?)", (digest, graph))
            number = int(writer.execute("SELECT no FROM graphs WHERE digest = ?", (digest,)).fetchone()[0])
            self._graph_numbers[graph] = number
        return number

    def _run_number(self, connection: sqlite3.Connection, run_id: str) -> int:
        number = self._run_numbers.get(run_id)
        if number is None:
            number = self._run_numbers[run_id] = int(self._find_run(connection, "SELECT no FROM runs WHERE id = ?", run_id)[0])
        return number

    def _find_run(self, connection: sqlite3.Connection, select: str, run_id: str) -> tuple[Any, ...]:
        try:
            row: tuple[Any, ...] | None = connection.execute(select, (run_id,)).fetchone()
        except UnicodeEncodeError:  # a lone surrogate, which no run id in the file can hold
            row = None
        if row is None:
            raise RunNotFoundError(run_id, repr(self))
        return row

    def _task_rows(self, writer: sqlite3.Connection, tasks: list[TaskRecord]) -> Iterator[tuple[Any, ...]]:
        run_id, base = "", 0
        for task in tasks:
            if task.run_id != run_id:
                run_id = task.run_id
                base = self._run_number(writer, run_id) * _POSITIONS
            yield (
                base + task.position,
                task.task_id,
                task.type.value,
                task.state.value,
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
            )

    # --- reading ---

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some selects within one read transaction: they all see the same commit."""
        if self._reader is None:
            with self._writing:
                self._open_writer()
        with self._reading:
            reader = self._reader
            if reader is None:
                raise StoreClosedError(repr(self))
            with self._translated():
                reader.execute("BEGIN")
                try:
                    return work(reader)
                finally:
                    if reader.in_transaction:  # an error of the medium may have ended it
                        reader.execute("COMMIT")

    def _run_range(self, reader: sqlite3.Connection, run_id: str) -> tuple[int, int]:
        first = int(self._find_run(reader, "SELECT no FROM runs WHERE id = ?", run_id)[0]) * _POSITIONS
        return first, first + _POSITIONS - 1

    def read_run(self, run_id: str) -> RunRecord:
        """See `Store.read_run`."""
        return self._read(lambda reader: self._run_record(self._find_run(reader, f"{_READ_RUNS} WHERE id = ?", run_id)))

    def _run_record(self, row: tuple[Any, ...]) -> RunRecord:
        run_id, flow_name, params, graph, created, state, *rest = row
        return RunRecord(run_id, flow_name, params, graph, created, self._known(_STATES, state), *rest)

    def _known(self, members: dict[str, T], text: str) -> T:
        try:
            return members[text]
        except KeyError:
            raise StoreDamagedError(repr(self), f"a row holds {text!r}, which is none of {', '.join(members)}") from None

    def read_tasks(self, run_id: str) -> list[TaskRecord]:
        """See `Store.read_tasks`."""

        def work(reader: sqlite3.Connection) -> list[TaskRecord]:
            first, last = self._run_range(reader, run_id)
            rows = reader.execute("SELECT * FROM tasks WHERE key BETWEEN ? AND ? ORDER BY key", (first, last)).fetchall()
            return [
                TaskRecord(run_id, row[1], row[0] - first, self._known(_TYPES, row[2]), self._known(_STATES, row[3]), *row[4:])
                for row in rows
            ]

        return self._read(work)

    def read_attempts(self, run_id: str) -> list[AttemptRecord]:
        """See `Store.read_attempts`."""

        def work(reader: sqlite3.Connection) -> list[AttemptRecord]:
            first, last = self._run_range(reader, run_id)
            rows = reader.execute(
                "SELECT * FROM attempts WHERE task_key BETWEEN ? AND ? ORDER BY task_key, number", (first, last)
            ).fetchall()
            return [
                AttemptRecord(run_id, task_id, key - first, number, tries, self._known(_RESULTS, result), *rest)
                for key, number, task_id, tries, result, *rest in rows
            ]

        return self._read(work)

    def read_runs(self, parent_run_id: str | None = None) -> list[RunRecord]:
        """See `Store.read_runs`."""

        def work(reader: sqlite3.Connection) -> list[RunRecord]:
            newest_first = "ORDER BY created DESC, runs.no DESC"
            if parent_run_id is None:
                rows = reader.execute(f"{_READ_RUNS} {newest_first}").fetchall()
            else:
                rows = reader.execute(f"{_READ_RUNS} WHERE parent_run_id = ? {newest_first}", (parent_run_id,)).fetchall()
            return [self._run_record(row) for row in rows]

        return self._read(work)

    def exists(self, run_id: str) -> bool:
        """See `Store.exists`."""
        try:
            self._read(lambda reader: self._find_run(reader, "SELECT no FROM runs WHERE id = ?", run_id))
        except RunNotFoundError:
            return False
        return True


def _check_ours(connection: sqlite3.Connection, store: str) -> None:
    """Refuse a database that another program made, before anything is written to it."""
    # In one select, that is of one moment: another process may be making the file right now.
    application, version, tables = connection.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
        " FROM pragma_application_id(), pragma_user_version()"
    ).fetchone()
    if application == APPLICATION_ID:
        if version > len(MIGRATIONS):
            raise StoreVersionError(
                store,
                f"it has schema version {version}, this library knows up to {len(MIGRATIONS)}; use the version that wrote it",
            )
    elif application or version or tables:
        raise StoreFormatError(store, "the file is a database of another program; name another path")


def _migrate(writer: sqlite3.Connection, store: str) -> None:
    """Bring the schema up to date: each version in a transaction of its own, so a kill leaves one version or the next."""
    while True:
        writer.execute("BEGIN IMMEDIATE")
        try:
            _check_ours(writer, store)  # another process may have come first
            version = writer.execute("PRAGMA user_version").fetchone()[0]
            if version == len(MIGRATIONS):
                writer.execute("ROLLBACK")
                return
            for statement in MIGRATIONS[version].split(";"):
                if statement.strip():
                    writer.execute(statement)
            writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            writer.execute(f"PRAGMA user_version = {version + 1}")
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise


def _close_all(connections: list[sqlite3.Connection]) -> None:
    for connection in connections:
        connection.close()
