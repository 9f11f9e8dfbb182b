"""The two file formats of the JSON store: the journal that grows, and the readable file it is folded into.

Pure text and records; must not know folders, locks or when anything is written.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime
from hashlib import sha256
from operator import attrgetter
from typing import Any

from .codec import as_json, as_text
from .errors import StoreDamagedError, StoreFormatError, StoreVersionError
from .models import AttemptResult, ExecutionState, TaskType
from .records import AttemptRecord, RunRecord, TaskRecord
from .views import to_datetime, to_moment

FORMAT = "night-batch run"
VERSION = 1

_VERBATIM = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])")
_HEAD = re.compile(rb"([0-9a-f]{8}) ([0-9a-f]{8}) (?=\{)")  # of a journal entry: length, checksum
_MOMENTS = frozenset({"created", "started", "ended", "due"})
_GRAPH = [column.name for column in fields(RunRecord)].index("graph")
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


@dataclass(slots=True)
class Content:
    """All that is stored of one run."""

    run: RunRecord | None = None
    order: int = 0
    tasks: dict[int, TaskRecord] = field(default_factory=dict[int, TaskRecord])
    attempts: dict[tuple[int, int], AttemptRecord] = field(default_factory=dict[tuple[int, int], AttemptRecord])
    commits: dict[str, int] = field(default_factory=dict[str, int])
    """The last commit over several runs that ended in this one, for each session of a store that made any."""

    def apply(self, entry: dict[str, Any]) -> None:
        """Replay one journal entry.

        Entries hold whole records, so replaying one twice changes nothing; only a run's graph, which may be large, is left out
        (None) where it is as it was.
        """
        self.order = entry.get("order", self.order)
        self.commits.update(commits_of([entry]))
        if "run" in entry:
            self.run = _row_to_run(entry["run"], self.run.graph if self.run is not None else "")
        for row in entry.get("tasks", ()):
            task = _row_to_task(row)
            self.tasks[task.position] = task
        for row in entry.get("attempts", ()):
            attempt = _row_to_attempt(row)
            self.attempts[attempt.position, attempt.number] = attempt


# --- the journal ---


def tie(entries: list[dict[str, Any]], last: str, session: str, number: int) -> None:
    """Make one commit of the entries of several runs: the last of them, in run `last`, says that all are written.

    Each of the others names it, and counts for nothing until it is there. A session's numbers grow and no two sessions share
    a name, so whatever is written to that run later cannot be taken for the end of a commit that was cut short.
    """
    for entry in entries[:-1]:
        entry["with"] = (last, session, number)
    entries[-1]["commit"] = (session, number)


def commits_of(entries: Iterable[dict[str, Any]]) -> dict[str, int]:
    """The last commit that ends in one of the entries, for each session."""
    return dict(entry["commit"] for entry in entries if "commit" in entry)


def line(entry: dict[str, Any]) -> bytes:
    """A journal entry as it is written: length, CRC32, JSON text."""
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %08x %s\n" % (len(text), zlib.crc32(text), text)


def _entry_at(data: bytes, start: int) -> tuple[bytes, int] | None:
    """The text of the entry that begins at `start` and where it ends, or None where no whole one does."""
    head = _HEAD.match(data, start)
    if head is None:
        return None
    length, checksum = int(head[1], 16), int(head[2], 16)
    end = head.end() + length
    text = data[head.end() : end]
    if data[end : end + 1] != b"\n" or zlib.crc32(text) != checksum:
        return None
    return text, end + 1


def parse_journal(data: bytes, name: str, store: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The whole entries of a journal and where each of them ends. A torn tail is dropped; damage before it is an error."""
    entries: list[dict[str, Any]] = []
    ends: list[int] = []
    start = 0
    while start < len(data):
        found = _entry_at(data, start)
        if found is None:
            break
        entries.append(json.loads(found[0]))
        start = found[1]
        ends.append(start)
    for following in _HEAD.finditer(data, start):
        if _entry_at(data, following.start()) is not None:
            raise StoreDamagedError(store, f"{name} is damaged at byte {start}, and whole entries follow; it is left untouched")
    if not entries and data[:18].strip(b"0123456789abcdef \0"):  # not even the beginning of an entry, as far as it was written
        raise StoreFormatError(store, f"{name} was not written by this library; it is left untouched")
    if entries:
        _check_version(entries[0], name, store, of_journal=True)
    return entries, ends


def _check_version(head: dict[str, Any], name: str, store: str, of_journal: bool = False) -> None:
    if of_journal and "version" not in head:  # a journal that goes on after a fold
        return
    if head.get("format") != FORMAT:
        raise StoreFormatError(store, f"{name} was not written by this library; it is left untouched")
    version = head.get("version")
    if not isinstance(version, int):
        raise StoreDamagedError(store, f"{name} has the version {version!r}, which is no number; it is left untouched")
    if version > VERSION:
        raise StoreVersionError(store, f"{name} has version {version}, this library knows up to {VERSION}; use the newer one")


_run_row = attrgetter(*(column.name for column in fields(RunRecord)))
task_row = attrgetter(*(column.name for column in fields(TaskRecord)))
attempt_row = attrgetter(*(column.name for column in fields(AttemptRecord)))


def run_row(run: RunRecord, known_graph: str | None = None) -> list[Any]:
    """A run as the journal holds it; `known_graph` is the graph that the journal says the run has so far."""
    row = list(_run_row(run))
    if known_graph == run.graph:
        row[_GRAPH] = None
    return row


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


def _readable(record: RunRecord | TaskRecord | AttemptRecord, left_out: frozenset[str]) -> str:
    """A record as a JSON object: times in ISO 8601, values as themselves, and nothing that says nothing."""
    shown: dict[str, Any] = {}
    for column in fields(record):
        value = getattr(record, column.name)
        if value is None or column.name in left_out:
            continue
        if column.name in _MOMENTS:
            value = _iso(value)
        elif column.name in _VALUES:
            value = as_json(value) if value else None
            if column.name == "logs":
                value = [[_iso(moment), *rest] for moment, *rest in value or ()]
        shown[column.name] = value
    return json.dumps(shown, ensure_ascii=False)


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


def folded(content: Content) -> str:
    """The readable file's text: JSON, with one line per task and attempt, and the run in the first two lines."""
    assert content.run is not None
    head: dict[str, Any] = {"format": FORMAT, "version": VERSION, "order": content.order}
    if content.commits:
        head["commits"] = content.commits
    left_out = frozenset({"run_id"})
    tasks = _list(_readable(content.tasks[key], left_out) for key in sorted(content.tasks))
    attempts = _list(_readable(content.attempts[key], left_out) for key in sorted(content.attempts))
    text = (
        f'{json.dumps(head)[:-1]},\n "run": {_readable(content.run, frozenset())},\n'
        f' "tasks": {tasks},\n "attempts": {attempts}\n}}\n'
    )
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate in some value: only an escape can hold it
        text = re.sub("[\ud800-\udfff]", lambda lone: f"\\u{ord(lone[0]):04x}", text)
    return text


def _list(rows: Iterable[str]) -> str:
    text = ",\n  ".join(rows)
    return f"[\n  {text}\n ]" if text else "[]"


def parse_head(lines: bytes, name: str, store: str) -> Content:
    """What the first two lines of a folded file say: the format and the run, without its tasks."""
    text = lines.rstrip().rstrip(b",") + b"}"
    return parse_folded(text, name, store)


def parse_folded(text: bytes, name: str, store: str) -> Content:
    """The reverse of `folded`.

    Raises:
        StoreFormatError, StoreVersionError, StoreDamagedError: it is not such a file, from a newer version, or broken.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        if FORMAT.encode() in text[:100]:
            raise StoreDamagedError(store, f"{name} is damaged ({error}); it is left untouched") from error
        tree = None
    if not isinstance(tree, dict):
        raise StoreFormatError(store, f"{name} was not written by this library; it is left untouched")
    _check_version(tree, name, store)
    try:
        run: dict[str, Any] = {"graph": "", **_unreadable(tree["run"])}
        run["state"] = ExecutionState(run["state"])
        content = Content(RunRecord(**run), tree["order"])
        content.commits.update((session, int(number)) for session, number in dict(tree.get("commits", {})).items())
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
        raise StoreDamagedError(store, f"{name} is damaged ({type(error).__name__}: {error})") from error
    return content
