"""Records as rows of a SQLite file and back, with the seals that show when a row was lost or changed.

Works on a connection within a transaction, and keeps graphs at hand. Must not know how the file is written, who owns a run, or
for how long what it says of one is true: those are `sqlite_file`'s and `sqlite_store`'s business.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import field
from typing import Any

from .errors import FlowError, RunExistsError, RunNotFoundError, StoreDamagedError
from .late_dataclass import dataclass
from .models import AttemptResult, ExecutionState, NoteKind, TaskType
from .records import AttemptRecord, NoteRecord, RunRecord, TaskRecord
from .sqlite_schema import POSITIONS, WEIGHT, plain_task_crc, row_crc, task_crc

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
_MOST_ROWS = 1000  # at hand at once: a commit of a million tasks needs no memory for a million rows
_SAVE_ATTEMPT = f"INSERT OR REPLACE INTO attempts VALUES ({','.join('?' * 11)})"
_ADD_NOTE = f"INSERT INTO run_notes VALUES ({','.join('?' * 10)})"
_RUN = "id, flow_name, state, params, graph_no, created, started, ended, parent_run_id, parent_task_id, owner, epoch, since"
_SEALED = "crc, commits, total, seal"
_ADD_RUN = f"INSERT INTO runs ({_RUN}, {_SEALED}) VALUES ({','.join('?' * 17)})"
_SAVE_RUN = f"UPDATE runs SET ({_RUN}, {_SEALED}) = ({','.join('?' * 17)}) WHERE no = ?"
_READ_RUN = f"{_RUN}, crc"
_READ_RUNS = f"SELECT {_READ_RUN} FROM runs"
_STATES = {state.value: state for state in ExecutionState}
_TYPES = {kind.value: kind for kind in TaskType}
_RESULTS = {result.value: result for result in AttemptResult}
_KINDS = {kind.value: kind for kind in NoteKind}

_BESIDE_TASKS = f"""
    SELECT (SELECT coalesce(sum(crc + {WEIGHT}), 0) FROM attempts WHERE task_key BETWEEN ? AND ?),
        coalesce(sum(crc + {WEIGHT}), 0), count(*) FROM run_notes WHERE key BETWEEN ? AND ?
"""

_UNSEALED = (None, None, None)
_LARGEST_GAP = 1 << 20  # between two positions of a run


@dataclass(slots=True)
class Known:
    """What a store knows of a run that it writes: all that a commit needs beside its changes."""

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
    notes: int = 0
    """How many notes it has."""
    crcs: array[int] = field(default_factory=lambda: array("L", [0]))
    """The checksum of each task's row, by position."""

    def take_run_crc(self, crc: int) -> None:
        """The run's own row is going to have this checksum."""
        self.total += crc - self.run_crc
        self.run_crc = crc

    def sealed(self, key: int | str, crc: int) -> tuple[int, int, int]:
        """The seal that a row is written with, as of now."""
        return self.commits, self.total, row_crc(key, crc, self.commits, self.total)


class Writing:
    """What one commit is going to write."""

    __slots__ = ("plain", "rows", "sealing", "size", "touched")

    def __init__(self) -> None:
        self.touched: dict[str, Known] = {}
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


class Rows:
    """Reads and writes the rows of one store's file.

    Args:
        store: how errors name it.
        generation: tells which file it is: another number when another file stands in its place.
    """

    def __init__(self, store: str, generation: Callable[[], int]) -> None:
        self._store = store
        self._generation_now = generation
        self._generation = 0
        """That of the file whose graphs these are."""
        self._graph_numbers: dict[str, int] = {}
        self._graphs: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"<Rows of {self._store}>"

    def trim(self) -> None:
        """Forget the graphs at hand if they have become many."""
        if len(self._graphs) > _MOST_GRAPHS:
            self._graphs, self._graph_numbers = {}, {}

    def _forget_graphs_of_another_file(self) -> None:
        generation = self._generation_now()
        if self._generation != generation:
            self._graphs, self._graph_numbers, self._generation = {}, {}, generation

    # --- writing ---

    def add_run(self, writer: sqlite3.Connection, run: RunRecord, rivals: int, sealed: bool) -> Known:
        """Write the row of a new run.

        Args:
            writer: within a transaction.
            run: the run.
            rivals: as of which count of `SQLiteFile.rivals`.
            sealed: whether it takes the run's seal, since no other row of it is written.

        Raises:
            RunExistsError: there is one of that id.
        """
        found = writer.execute("SELECT flow_name FROM runs WHERE id = ?", (run.id,)).fetchone()
        if found is not None:
            raise RunExistsError(run.id, found[0], run.flow_name)
        known = Known(0, rivals, commits=1)
        columns = self._run_columns(writer, run, known)
        known.run_crc = known.total = row_crc(*columns)
        seal = (1, known.total, row_crc(run.id, known.run_crc, 1, known.total)) if sealed else _UNSEALED
        number = writer.execute(_ADD_RUN, (*columns, known.run_crc, *seal)).lastrowid
        assert number is not None
        known.no = number
        return known

    def change_run(self, writer: sqlite3.Connection, run: RunRecord, known: Known) -> tuple[Any, ...]:
        """The new row of a run, counted in what is known of it; to be handed to `save_run` once all its rows are counted."""
        columns = self._run_columns(writer, run, known)
        known.take_run_crc(row_crc(*columns))
        return columns

    @staticmethod
    def save_run(writer: sqlite3.Connection, columns: tuple[Any, ...], known: Known, sealed: bool) -> None:
        """Write the row of a run that is there already, with the run's seal or without."""
        seal = known.sealed(columns[0], known.run_crc) if sealed else _UNSEALED
        writer.execute(_SAVE_RUN, (*columns, known.run_crc, *seal, known.no))

    def _run_columns(self, writer: sqlite3.Connection, run: RunRecord, known: Known) -> tuple[Any, ...]:
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
        self._forget_graphs_of_another_file()
        number = self._graph_numbers.get(graph)
        # It may have been removed meanwhile, with the last run that was made with it.
        if number is None or writer.execute("SELECT 1 FROM graphs WHERE no = ?", (number,)).fetchone() is None:
            digest = _digest(graph)
            writer.execute("INSERT OR IGNORE INTO graphs (digest, graph) VALUES (?, ?)", (digest, graph))
            number = int(writer.execute("SELECT no FROM graphs WHERE digest = ?", (digest,)).fetchone()[0])
            self._graph_numbers[graph] = number
        self._graphs[number] = graph  # in place of an equal text that was read
        return number

    @staticmethod
    def add_tasks(
        writer: sqlite3.Connection, known: Known, tasks: Iterable[TaskRecord], last: TaskRecord, writing: Writing
    ) -> None:
        """Make the rows of a run's tasks.

        The way of every commit of the engine, so it is written for speed: few calls, no objects.

        Args:
            writer: within a transaction.
            known: what is known of the run; the rows are counted in it.
            tasks: each task once.
            last: the one of them whose row is to take the seal.
            writing: takes the rows, and writes some when they are many.
        """
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

    @staticmethod
    def write_attempt(writer: sqlite3.Connection, known: Known, attempt: AttemptRecord) -> int:
        """Write the row of an attempt; about how many bytes that is."""
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

    @staticmethod
    def add_note(writer: sqlite3.Connection, known: Known, note: NoteRecord) -> int:
        """Write the row of a note; about how many bytes that is."""
        row = (
            known.no * POSITIONS + known.notes,
            note.kind.value,
            note.at,
            note.by,
            note.task_id,
            note.tasks,
            None if note.state is None else note.state.value,
            note.ended,
            note.detail,
        )
        crc = row_crc(*row)
        known.total += crc + WEIGHT
        known.notes += 1
        writer.execute(_ADD_NOTE, (*row, crc))
        return 100 + len(note.detail or "")

    @staticmethod
    def remove(writer: sqlite3.Connection, number: int) -> None:
        """Remove all rows of a run."""
        writer.execute("DELETE FROM tasks WHERE key BETWEEN ? AND ?", keys_of(number))
        writer.execute("DELETE FROM attempts WHERE task_key BETWEEN ? AND ?", keys_of(number))
        writer.execute("DELETE FROM run_notes WHERE key BETWEEN ? AND ?", keys_of(number))
        writer.execute("DELETE FROM runs WHERE no = ?", (number,))

    @staticmethod
    def remove_unused_graphs(writer: sqlite3.Connection) -> None:
        """Remove the graphs that no run was made with."""
        writer.execute("DELETE FROM graphs WHERE NOT EXISTS (SELECT 1 FROM runs WHERE graph_no = graphs.no)")

    # --- reading ---

    def find(self, connection: sqlite3.Connection, columns: str, run_id: str) -> tuple[Any, ...]:
        """Some columns of a run's row.

        Raises:
            RunNotFoundError: there is no such run.
            StoreDamagedError: the index of ids leads to another run's row.
        """
        try:
            number: tuple[Any, ...] | None = connection.execute("SELECT no FROM runs WHERE id = ?", (run_id,)).fetchone()
        except UnicodeEncodeError:  # a lone surrogate, which no run id in the file can hold
            number = None
        if number is None:
            raise RunNotFoundError(run_id, self._store)
        # That was the index of ids, which may lead astray where it is damaged. So ask the row.
        row: tuple[Any, ...] | None = connection.execute(f"SELECT id, {columns} FROM runs WHERE no = ?", number).fetchone()
        if row is None or row[0] != run_id:
            raise self.damaged(run_id, "another run's row stands where its own should be")
        return row[1:]

    def number(self, connection: sqlite3.Connection, run_id: str) -> int:
        """The number of a run, by which its rows are found."""
        return int(self.find(connection, "no", run_id)[0])

    def run(self, connection: sqlite3.Connection, run_id: str) -> RunRecord:
        """A run's record."""
        return self.run_of(connection, self.find(connection, _READ_RUN, run_id))

    def run_of(self, reader: sqlite3.Connection, row: tuple[Any, ...]) -> RunRecord:
        """The record of a run whose row `each_row` gave."""
        run_id, flow_name, state, params, graph_no, created, started, ended, parent_run_id, parent_task_id = row[:10]
        if row_crc(*row[:13]) != row[13]:
            raise self.damaged(str(run_id), "its row is not what was written")
        graph = self._graph(reader, run_id, graph_no)
        known_state = _STATES.get(state)
        if known_state is None:
            raise self.damaged(run_id, f"there is no state {state!r}")
        return RunRecord(run_id, flow_name, params, graph, created, known_state, started, ended, parent_run_id, parent_task_id)

    def _graph(self, reader: sqlite3.Connection, run_id: str, number: int) -> str:
        """The text of a graph. The digest that it is found by when it is written is its checksum when it is read."""
        self._forget_graphs_of_another_file()
        graph = self._graphs.get(number)
        if graph is None:
            row = reader.execute("SELECT graph, digest FROM graphs WHERE no = ?", (number,)).fetchone()
            if row is None or _digest(str(row[0])) != row[1]:
                raise self.damaged(run_id, "the graph that it was made with is missing, or not what was written")
            graph = self._graphs[number] = str(row[0])
        return graph

    def learn(self, connection: sqlite3.Connection, run_id: str, rivals: int, tasks: list[TaskRecord] | None = None) -> Known:
        """Read the checksums of a run's rows, and compare them with its seal.

        Args:
            connection: within a transaction.
            run_id: the run.
            rivals: as of which count of `SQLiteFile.rivals`.
            tasks: takes the tasks' records, if their rows are to be read whole.
        """
        number, owner, epoch, since, crc, *seal = self.find(connection, f"no, owner, epoch, since, {_SEALED}", run_id)
        first, last = keys_of(number)
        with self.of_the_right_kind(run_id):
            known = Known(number, rivals, run_crc=crc, total=crc, owner=owner, epoch=epoch, since=since)
            newest: tuple[Any, ...] = (run_id, crc, *seal)
            columns = f"key, {_SEALED}" if tasks is None else "*"
            rows = connection.execute(f"SELECT {columns} FROM tasks WHERE key BETWEEN ? AND ? ORDER BY key", (first, last))
            crcs, total, commits_so_far = known.crcs, known.total, newest[2] or 0
            for sealed in rows if tasks is None else self._read_rows(run_id, first, rows, tasks):
                key, crc, commits, _, _ = sealed
                position = key - first
                if position >= len(crcs):
                    if position > len(crcs) + _LARGEST_GAP:
                        raise self.damaged(run_id, f"there is no position {position}")
                    _put(crcs, position, crc)
                else:
                    crcs[position] = crc
                total += crc + WEIGHT
                if commits is not None and commits > commits_so_far:
                    newest, commits_so_far = sealed, commits
            beside, known.notes = self._beside_tasks(connection, number)
            known.total = total + beside
            known.commits = newest[2] or 0
            self._check_seal(run_id, known.total, newest)
        return known

    @staticmethod
    def _beside_tasks(connection: sqlite3.Connection, number: int) -> tuple[int, int]:
        """What the checksums of a run's attempts and notes come to, and how many notes there are."""
        row = connection.execute(_BESIDE_TASKS, keys_of(number) * 2).fetchone()
        return int(row[0]) + int(row[1]), int(row[2])

    def _check_seal(self, run_id: str, total: int, newest: tuple[Any, ...]) -> None:
        """Refuse a run whose rows are not all those that were written last.

        Args:
            run_id: the run.
            total: what the checksums of its rows come to.
            newest: of the row with the newest seal: its key, checksum, and the three columns of the seal.
        """
        key, crc, commits, sealed_total, seal = newest
        if commits is None or row_crc(key, crc, commits, sealed_total) != seal:
            raise self.damaged(run_id, "its seal is missing, or is not what was written")
        if total != sealed_total:
            raise self.damaged(run_id, "rows are missing, or are older than the run")

    def _read_rows(
        self, run_id: str, first: int, rows: Iterable[tuple[Any, ...]], tasks: list[TaskRecord]
    ) -> Iterator[tuple[Any, ...]]:
        """Check the rows of a run's tasks, add their records to `tasks`, and pass on what seals are made of."""
        for row in rows:
            if task_crc(row[:17]) != row[17]:
                raise self.damaged(run_id, f"the row of the task at position {row[0] - first} is not what was written")
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

    def tasks(self, reader: sqlite3.Connection, run_id: str) -> list[TaskRecord]:
        """The records of a run's tasks, by position."""
        tasks: list[TaskRecord] = []
        self.learn(reader, run_id, 0, tasks)
        return tasks

    def output(self, reader: sqlite3.Connection, run_id: str, position: int) -> str | None:
        """The stored text of one task's output."""
        first, _ = keys_of(self.number(reader, run_id))
        row = reader.execute("SELECT * FROM tasks WHERE key = ?", (first + position,)).fetchall()
        tasks: list[TaskRecord] = []
        for _ in self._read_rows(run_id, first, row, tasks):
            return tasks[0].output
        raise self.damaged(run_id, f"the row of the task at position {position} is missing")

    def attempts(self, reader: sqlite3.Connection, run_id: str) -> list[AttemptRecord]:
        """The records of all attempts at a run's tasks."""
        number = self.learn(reader, run_id, 0).no  # which finds rows that are missing
        first, last = keys_of(number)
        rows = reader.execute(
            "SELECT * FROM attempts WHERE task_key BETWEEN ? AND ? ORDER BY task_key, number", (first, last)
        ).fetchall()
        with self.of_the_right_kind(run_id):
            for row in rows:
                if row_crc(*row[:-1]) != row[-1]:
                    raise self.damaged(
                        run_id, f"the row of attempt {row[1]} at position {row[0] - first} is not what was written"
                    )
            return [
                AttemptRecord(run_id, task_id, key - first, number, tries, _RESULTS[result], *rest)
                for key, number, task_id, tries, result, *rest, _ in rows
            ]

    def notes(self, reader: sqlite3.Connection, run_id: str) -> list[NoteRecord]:
        """The records of a run's notes, in the order in which they were written."""
        number = self.learn(reader, run_id, 0).no  # which finds rows that are missing
        rows = reader.execute("SELECT * FROM run_notes WHERE key BETWEEN ? AND ? ORDER BY key", keys_of(number)).fetchall()
        with self.of_the_right_kind(run_id):
            for row in rows:
                if row_crc(*row[:-1]) != row[-1]:
                    raise self.damaged(run_id, f"the row of note {row[0] % POSITIONS} is not what was written")
            return [
                NoteRecord(
                    run_id, _KINDS[kind], at, by, task_id, tasks, state if state is None else _STATES[state], ended, detail
                )
                for _, kind, at, by, task_id, tasks, state, ended, detail, _ in rows
            ]

    def problems(self, reader: sqlite3.Connection) -> Iterator[str]:
        """What is wrong in the whole file, a sentence each."""
        for (said,) in reader.execute("PRAGMA integrity_check").fetchall():
            if said != "ok":
                yield f"SQLite says: {said}"
        self._graphs = {}  # what is known must not hide what is there
        unreadable: list[str] = []
        for row in each_row(reader, "", (), unreadable.append):
            try:
                run = self.run_of(reader, row)
                self.tasks(reader, run.id)
                self.attempts(reader, run.id)
                self.notes(reader, run.id)
            except (StoreDamagedError, RunNotFoundError) as error:
                yield str(error)
            except sqlite3.OperationalError as error:
                yield f"run {row[0]!r} cannot be read: {error}"
        yield from unreadable
        for table, key in (("tasks", "key"), ("attempts", "task_key"), ("run_notes", "key")):
            stray = f"SELECT DISTINCT {key} >> 32 FROM {table} WHERE {key} >> 32 NOT IN (SELECT no FROM runs)"
            for (number,) in reader.execute(stray).fetchall():
                yield f"there are {table} of run no. {number}, and there is no such run"

    @contextmanager
    def of_the_right_kind(self, run_id: str) -> Iterator[None]:
        """What is read from rows is not always what was written: a text in place of a number is damage, as any wrong one is."""
        try:
            yield
        except FlowError:
            raise
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise self.damaged(run_id, f"a row holds what none can hold ({type(error).__name__}: {error})") from error

    def damaged(self, run_id: str, problem: str) -> StoreDamagedError:
        """The error that says so of a run."""
        return StoreDamagedError(
            self._store, f"run {run_id!r} is damaged: {problem}; nothing of it is used; restore a backup, or remove the run"
        )


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


def count_of(connection: sqlite3.Connection, number: int) -> int | None:
    """How many commits of a run the file holds; more than any where the run was removed; None where it was never made."""
    of_tasks = "coalesce((SELECT max(commits) FROM tasks WHERE key BETWEEN ? AND ?), 0)"
    newest = f"SELECT max(coalesce(commits, 0), {of_tasks}) FROM runs WHERE no = ?"
    row = connection.execute(newest, (*keys_of(number), number)).fetchone()
    if row is not None:
        return int(row[0])
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'runs'").fetchone()
    return 1 << 62 if last is not None and last[0] >= number else None


def each_row(
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


def keys_of(number: int) -> tuple[int, int]:
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
