"""A run as rows of a journal and as a readable file, whose checksums show whether it was changed; and what files are called.

Pure text and records; must not know folders, locks or when anything is written.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime
from hashlib import sha256
from operator import attrgetter
from typing import Any

from .codec import as_json, as_text
from .errors import StoreDamagedError, StoreFormatError, StoreVersionError
from .json_text import loads
from .models import AttemptResult, ExecutionState, TaskType
from .records import AttemptRecord, RunRecord, TaskRecord
from .views import to_datetime, to_moment

FORMAT = "night-batch run"
VERSION = 2
"""1: journal lines whose checksums stand alone, readable files without, no owners. Still read; the next fold rewrites it."""

Entry = dict[str, Any]
"""What one line of a journal says."""

_VERBATIM = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])")
_MOMENTS = frozenset({"created", "started", "ended", "due"})
GRAPH = [column.name for column in fields(RunRecord)].index("graph")
"""Where in a run's row its graph stands."""
_CRASHES = [column.name for column in fields(TaskRecord)].index("crashes")
_VALUES = frozenset({"params", "graph", "input", "output", "logs"})


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
    tasks: dict[int, TaskRecord] = field(default_factory=dict[int, TaskRecord])
    attempts: dict[tuple[int, int], AttemptRecord] = field(default_factory=dict[tuple[int, int], AttemptRecord])
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
        self.order = entry.get("order", self.order)
        if "commit" in entry:
            session, number = entry["commit"]
            self.commits[session] = number
        self.beside.update(entry.get("beside", ()))
        if "owner" in entry:
            self.owner = Ownership(*entry["owner"])
        if "run" in entry:
            self.run = _row_to_run(entry["run"], self.run.graph if self.run is not None else "")
        for row in entry.get("tasks", ()):
            task = _row_to_task(row if version > 1 else [*row[:_CRASHES], 0, *row[_CRASHES:]])
            self.tasks[task.position] = task
        for row in entry.get("attempts", ()):
            attempt = _row_to_attempt(row)
            self.attempts[attempt.position, attempt.number] = attempt


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


_run_row = attrgetter(*(column.name for column in fields(RunRecord)))
task_row = attrgetter(*(column.name for column in fields(TaskRecord)))
attempt_row = attrgetter(*(column.name for column in fields(AttemptRecord)))
_COLUMNS: dict[type, tuple[list[str], Callable[[Any], tuple[Any, ...]]]] = {
    kind: ([column.name for column in fields(kind)], values)
    for kind, values in ((RunRecord, _run_row), (TaskRecord, task_row), (AttemptRecord, attempt_row))
}


def run_row(run: RunRecord) -> list[Any]:
    """A run as the journal holds it."""
    return list(_run_row(run))


def _row_to_run(row: list[Any], graph_before: str) -> RunRecord:
    run_id, flow_name, params, graph, created, state, *rest = row
    return RunRecord(run_id, flow_name, params, graph_before if graph is None else graph, created, ExecutionState(state), *rest)


def _row_to_task(row: list[Any]) -> TaskRecord:
    run_id, task_id, position, kind, state, *rest = row
    return TaskRecord(run_id, task_id, position, TaskType(kind), ExecutionState(state), *rest)


def _row_to_attempt(row: list[Any]) -> AttemptRecord:
    run_id, task_id, position, number, try_number, result, *rest = row
    return AttemptRecord(run_id, task_id, position, number, try_number, AttemptResult(result), *rest)


# --- the readable file ---


def _readable(record: RunRecord | TaskRecord | AttemptRecord, left_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A record as a JSON object: times in ISO 8601, values as themselves, and nothing that says nothing."""
    shown: dict[str, Any] = {}
    names, values = _COLUMNS[type(record)]
    for name, value in zip(names, values(record)):
        if value is None or name in left_out:
            continue
        if name in _MOMENTS:
            value = _iso(value)
        elif name in _VALUES:
            value = as_json(value) if value else None
            if name == "logs":
                value = [[_iso(moment), *rest] for moment, *rest in value or ()]
        shown[name] = value
    return shown


def _unreadable(shown: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The reverse of `_readable`: the columns of a record."""
    columns: dict[str, Any] = dict(more)
    for name, value in shown.items():
        if name in _MOMENTS and value is not None:
            value = _moment(value)
        elif name in _VALUES:
            if name == "logs":
                value = [[_moment(moment), *rest] for moment, *rest in value or ()]
            value = "" if value is None and name == "graph" else as_text(value)
        columns[name] = value
    return columns


def _iso(moment: int) -> str:
    when = to_datetime(moment)
    assert when is not None
    return when.isoformat()


def _moment(text: str) -> int | None:
    return to_moment(datetime.fromisoformat(text))


def _checksum(tree: Any, before: int = 0) -> int:
    """The same for all ways of laying out the same data, so that people may pass a file through an editor."""
    return zlib.crc32(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode() + b"\n", before)


def _checksums(head: dict[str, Any], tasks: list[Any], attempts: list[Any]) -> list[str]:
    """Of the file's head, which a list of runs is made from, and of all of the file."""
    of_head = checksum = _checksum(head)
    for rows in (tasks, attempts):
        checksum = _checksum(len(rows), checksum)
        for row in rows:
            checksum = _checksum(row, checksum)
    return [f"{of_head:08x}", f"{checksum:08x}"]


def folded(content: Content) -> str:
    """The readable file's text: JSON, with one line per task and attempt, and the run in the first two lines."""
    assert content.run is not None
    head: dict[str, Any] = {"format": FORMAT, "version": VERSION, "order": content.order, "folds": content.folds + 1}
    if content.commits:
        head["commits"] = content.commits
    if content.beside:
        head["beside"] = sorted(content.beside)
    if content.owner.epoch:
        head["owner"] = [content.owner.token, content.owner.epoch, content.owner.since]
    run = _readable(content.run)
    left_out = frozenset({"run_id"})
    tasks = [_readable(content.tasks[key], left_out) for key in sorted(content.tasks)]
    attempts = [_readable(content.attempts[key], left_out) for key in sorted(content.attempts)]
    first_line = {**head, "checksums": _checksums({**head, "run": run}, tasks, attempts)}
    text = (
        f'{json.dumps(first_line)[:-1]},\n "run": {json.dumps(run, ensure_ascii=False)},\n'
        f' "tasks": {_list(tasks)},\n "attempts": {_list(attempts)}\n}}\n'
    )
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate in some value: only an escape can hold it
        text = re.sub("[\ud800-\udfff]", lambda lone: f"\\u{ord(lone[0]):04x}", text)
    return text


def _list(rows: Iterable[Any]) -> str:
    text = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"[\n  {text}\n ]" if text else "[]"


def parse_head(lines: bytes, name: str, store: str) -> Content:
    """What the first two lines of a folded file say: the format and the run, without its tasks."""
    return _content(_tree(lines.rstrip().rstrip(b",") + b"}", name, store), name, store, only_head=True)


def parse_folded(text: bytes, name: str, store: str) -> Content:
    """The reverse of `folded`.

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
            content.tasks[columns["position"]] = TaskRecord(**columns)
        absent: dict[str, Any] = {column.name: None for column in fields(AttemptRecord)}
        for shown in tree.get("attempts", ()):
            columns = {**absent, **_unreadable(shown, run_id=run["id"])}
            columns["result"] = AttemptResult(columns["result"])
            content.attempts[columns["position"], columns["number"]] = AttemptRecord(**columns)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreDamagedError(store, f"{name} is damaged ({type(error).__name__}: {error}); it is left untouched") from error
    return content


def _check_checksums(tree: dict[str, Any], name: str, store: str, only_head: bool) -> None:
    head = {key: value for key, value in tree.items() if key not in ("checksums", "tasks", "attempts")}
    expected = tree["checksums"]
    found = _checksums(head, tree.get("tasks", []), tree.get("attempts", []))
    if found[0] != expected[0] or (not only_head and found != expected):
        raise StoreDamagedError(
            store, f"{name} is damaged: a value in it was changed; it is left untouched; restore it from a backup"
        )
