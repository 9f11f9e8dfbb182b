"""A run as rows of a journal and as a readable file, whose checksums show whether it was changed; and what files are called.

Pure text and records; must not know folders, locks or when anything is written.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import field, fields
from datetime import datetime
from hashlib import sha256
from operator import attrgetter
from typing import Any

from .codec import as_text
from .errors import StoreDamagedError, StoreFormatError, StoreVersionError
from .json_text import loads
from .late_dataclass import dataclass
from .models import AttemptResult, ExecutionState, NoteKind, TaskType
from .records import AttemptRecord, NoteRecord, RunRecord, TaskRecord
from .views import to_moment

FORMAT = "night-batch run"
VERSION = 3
"""1: journal lines whose checksums stand alone, readable files without, no owners. 2: no notes. Both are still read; the next
fold rewrites them."""

Entry = dict[str, Any]
"""What one line of a journal says."""
Row = tuple[Any, ...]
"""A record's columns, which nobody can change any more."""

_VERBATIM = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])")
MOMENTS = frozenset({"created", "started", "ended", "due", "at"})
GRAPH = [column.name for column in fields(RunRecord)].index("graph")
"""Where in a run's row its graph stands."""
_CRASHES = [column.name for column in fields(TaskRecord)].index("crashes")
_POSITION = [column.name for column in fields(TaskRecord)].index("position")
"""In a task's row, and in an attempt's, where the attempt's number follows it."""
VALUES = frozenset({"params", "graph", "input", "output", "logs"})

summed_text: Callable[[Any], str] = json.JSONEncoder(check_circular=False, sort_keys=True, separators=(",", ":")).encode
"""What is summed up of some data: the same for all ways of laying it out, so that people may pass a file through an editor."""


def file_stem(run_id: str) -> str:
    """The file name, without suffix, for a run id. Two ids never share one, on any file system.

    Plain lower-case ids are used as they are. Every other id (path separators, capitals that a file system may fold,
    over-long or reserved names) is made harmless and told apart by a hash behind a `~`, which no plain id holds.
    """
    if _VERBATIM.fullmatch(run_id) and not _RESERVED.fullmatch(run_id):
        return run_id
    readable = re.sub(r"[^a-z0-9_-]+", "-", run_id.lower())[:40].strip("-") or "run"
    return f"{readable}~{sha256(run_id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who may write a run. What is stored of a run without an owner is the epoch of its last one."""

    token: str | None = None
    epoch: int = 0
    since: int | None = None
    """Microseconds since 1970."""


@dataclass(slots=True)
class Content:
    """All that is stored of one run."""

    run: RunRecord | None = None
    order: int = 0
    tasks: dict[int, Row] = field(default_factory=dict[int, Row])
    """By position."""
    attempts: dict[tuple[int, int], Row] = field(default_factory=dict[tuple[int, int], Row])
    """By position and number."""
    notes: list[Row] = field(default_factory=list[Row])
    """In the order in which they were added."""
    commits: dict[str, int] = field(default_factory=dict[str, int])
    """The last commit over several runs that ended in this one, for each session of a store that made any."""
    beside: set[str] = field(default_factory=set[str])
    """Runs that are not of its subflows, and whose journals may say that a commit of theirs ended here."""
    owner: Ownership = Ownership()
    folds: int = 0
    """How many journals have been folded into the readable file."""
    version: int = VERSION
    """That of the readable file."""

    def apply(self, entry: Entry, version: int) -> None:
        """Replay one journal entry.

        Entries hold whole records; only a run's graph, which may be large, is left out (None) where it is as it was.
        """
        self._apply(entry)
        for row in entry.get("tasks", ()):
            task = _row_to_task(row if version > 1 else [*row[:_CRASHES], 0, *row[_CRASHES:]])
            self.tasks[task.position] = task_row(task)
        for row in entry.get("attempts", ()):
            attempt = _row_to_attempt(row)
            self.attempts[attempt.position, attempt.number] = attempt_row(attempt)
        self.notes.extend(note_row(_row_to_note(row)) for row in entry.get("notes", ()))

    def apply_written(self, entry: Entry) -> None:
        """The same for an entry that was just written, whose rows were never text."""
        if entry.keys() != {"tasks"}:
            self._apply(entry)
        for row in entry.get("tasks", ()):
            self.tasks[row[_POSITION]] = row
        for row in entry.get("attempts", ()):
            self.attempts[row[_POSITION], row[_POSITION + 1]] = row
        self.notes.extend(entry.get("notes", ()))

    def _apply(self, entry: Entry) -> None:
        self.order = entry.get("order", self.order)
        if "commit" in entry:
            session, number = entry["commit"]
            self.commits[session] = number
        self.beside.update(entry.get("beside", ()))
        if "owner" in entry:
            self.owner = Ownership(*entry["owner"])
        if "run" in entry:
            self.run = _row_to_run(entry["run"], self.run.graph if self.run is not None else "")

    def run_record(self) -> RunRecord | None:
        """The run, a copy of it."""
        return None if self.run is None else RunRecord(*run_columns(self.run))

    def task_records(self) -> list[TaskRecord]:
        """The tasks, in order of position."""
        return [TaskRecord(*self.tasks[position]) for position in sorted(self.tasks)]

    def attempt_records(self) -> list[AttemptRecord]:
        """The attempts, by position and number."""
        return [AttemptRecord(*self.attempts[key]) for key in sorted(self.attempts)]

    def note_records(self) -> list[NoteRecord]:
        """The notes, in the order in which they were added."""
        return [NoteRecord(*row) for row in self.notes]


def check_version(head: Entry, name: str, store: str) -> int:
    """The version of the format that a file says it has.

    Raises:
        StoreFormatError, StoreVersionError, StoreDamagedError: it is not such a file, from a newer version, or makes no sense.
    """
    if head.get("format") != FORMAT:
        raise StoreFormatError(store, f"{name} was not written by this library; it is left untouched")
    version = head.get("version")
    if type(version) is not int:
        raise StoreDamagedError(store, f"{name} has the version {version!r}, which is no number; it is left untouched")
    if version > VERSION:
        raise StoreVersionError(store, f"{name} has version {version}, this library knows up to {VERSION}; use the newer one")
    return version


run_columns = attrgetter(*(column.name for column in fields(RunRecord)))
task_row = attrgetter(*(column.name for column in fields(TaskRecord)))
attempt_row = attrgetter(*(column.name for column in fields(AttemptRecord)))
note_row = attrgetter(*(column.name for column in fields(NoteRecord)))


_TYPES = {str(kind): kind for kind in TaskType}
_STATES = {
    str(state): state for state in ExecutionState
}  # looked up, and not asked for: there is a row for each change of a task


def run_row(run: RunRecord) -> list[Any]:
    """A run as the journal holds it."""
    return list(run_columns(run))


def _row_to_run(row: list[Any], graph_before: str) -> RunRecord:
    run_id, flow_name, params, graph, created, state, *rest = row
    return RunRecord(run_id, flow_name, params, graph_before if graph is None else graph, created, ExecutionState(state), *rest)


def _row_to_task(row: list[Any]) -> TaskRecord:
    run_id, task_id, position, kind, state, *rest = row
    return TaskRecord(run_id, task_id, position, _TYPES[kind], _STATES[state], *rest)


def _row_to_attempt(row: list[Any]) -> AttemptRecord:
    run_id, task_id, position, number, try_number, result, *rest = row
    return AttemptRecord(run_id, task_id, position, number, try_number, AttemptResult(result), *rest)


def _row_to_note(row: list[Any]) -> NoteRecord:
    run_id, kind, at, by, task_id, tasks, state, *rest = row
    return NoteRecord(run_id, NoteKind(kind), at, by, task_id, tasks, None if state is None else ExecutionState(state), *rest)


# --- the readable file; `json_folded` writes it ---


def head_of(content: Content) -> dict[str, Any]:
    """What the readable file that is about to be made says before all else."""
    head: dict[str, Any] = {"format": FORMAT, "version": VERSION, "order": content.order, "folds": content.folds + 1}
    if content.commits:
        head["commits"] = content.commits
    if content.beside:
        head["beside"] = sorted(content.beside)
    if content.owner.epoch:
        head["owner"] = [content.owner.token, content.owner.epoch, content.owner.since]
    return head


def _unreadable(shown: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The columns of a record that a readable file shows."""
    columns: dict[str, Any] = dict(more)
    for name, value in shown.items():
        if name in MOMENTS and value is not None:
            value = _moment(value)
        elif name in VALUES:
            if name == "logs":
                value = [[_moment(moment), *rest] for moment, *rest in value or ()]
            value = "" if value is None and name == "graph" else as_text(value)
        columns[name] = value
    return columns


def _moment(text: str) -> int | None:
    return to_moment(datetime.fromisoformat(text))


def checksums(head: Any, *lists: tuple[int, Iterator[str]]) -> list[str]:
    """Of the file's head, which a list of runs is made from, and of all of the file.

    Args:
        head: the head.
        lists: the tasks, the attempts and the notes: how many there are, and the text of each that is summed up.
    """
    of_head = checksum = zlib.crc32(summed_text(head).encode() + b"\n")
    for count, texts in lists:
        checksum = zlib.crc32(b"%d\n" % count, checksum)
        for text in texts:
            checksum = zlib.crc32(b"%s\n" % text.encode(), checksum)
    return [f"{of_head:08x}", f"{checksum:08x}"]


def parse_head(lines: bytes, name: str, store: str) -> Content:
    """What the first two lines of a folded file say: the format and the run, without its tasks."""
    return _content(_tree(lines.rstrip().rstrip(b",") + b"}", name, store), name, store, only_head=True)


def parse_folded(text: bytes, name: str, store: str) -> Content:
    """What a folded file says.

    Raises:
        StoreFormatError, StoreVersionError, StoreDamagedError: it is not such a file, from a newer version, or broken.
    """
    return _content(_tree(text, name, store), name, store)


def _tree(text: bytes, name: str, store: str) -> dict[str, Any]:
    try:
        tree = loads(text)
    except (ValueError, RecursionError) as error:
        if FORMAT.encode() in text[:100] or (text and not text.strip(b"\0")):
            raise StoreDamagedError(
                store, f"{name} is damaged ({error}); it is left untouched; restore it from a backup"
            ) from error
        tree = None
    if not isinstance(tree, dict):
        raise StoreFormatError(store, f"{name} was not written by this library; it is left untouched")
    return tree


def _content(tree: dict[str, Any], name: str, store: str, only_head: bool = False) -> Content:
    version = check_version(tree, name, store)
    try:
        if version > 1 or "checksums" in tree:
            _check_checksums(tree, name, store, only_head)
        run: dict[str, Any] = {"graph": "", **_unreadable(tree["run"])}
        run["state"] = ExecutionState(run["state"])
        content = Content(RunRecord(**run), tree["order"], folds=tree.get("folds", 0), version=version)
        content.commits.update((session, int(number)) for session, number in dict(tree.get("commits", {})).items())
        content.beside.update(tree.get("beside", ()))
        content.owner = Ownership(*tree.get("owner", ()))
        for shown in tree.get("tasks", ()):
            columns = _unreadable(shown, run_id=run["id"])
            columns.update(type=TaskType(columns["type"]), state=ExecutionState(columns["state"]))
            content.tasks[columns["position"]] = task_row(TaskRecord(**columns))
        absent: dict[str, Any] = {column.name: None for column in fields(AttemptRecord)}
        for shown in tree.get("attempts", ()):
            columns = {**absent, **_unreadable(shown, run_id=run["id"])}
            columns["result"] = AttemptResult(columns["result"])
            content.attempts[columns["position"], columns["number"]] = attempt_row(AttemptRecord(**columns))
        for shown in tree.get("notes", ()):
            columns = _unreadable(shown, run_id=run["id"])
            state = columns.get("state")
            columns.update(kind=NoteKind(columns["kind"]), state=None if state is None else ExecutionState(state))
            content.notes.append(note_row(NoteRecord(**columns)))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreDamagedError(store, f"{name} is damaged ({type(error).__name__}: {error}); it is left untouched") from error
    return content


def _check_checksums(tree: dict[str, Any], name: str, store: str, only_head: bool) -> None:
    names = ("tasks", "attempts", "notes") if tree["version"] > 2 else ("tasks", "attempts")
    head = {key: value for key, value in tree.items() if key not in ("checksums", *names)}
    expected = tree["checksums"]
    lists = [tree.get(name, []) for name in names]
    found = checksums(head, *((len(rows), map(summed_text, rows)) for rows in lists))
    if found[0] != expected[0] or (not only_head and found != expected):
        raise StoreDamagedError(
            store, f"{name} is damaged: a value in it was changed; it is left untouched; restore it from a backup"
        )
