"""JsonStore: a folder of readable files, one `<run_id>.json` per run, fed by an append-only journal beside it.

While a run goes on, each commit appends one line to `<run_id>.journal`: the length and CRC32 of a JSON text, then the text. When
the run has ended, the journal is folded into the JSON file, and removed. Must not know flows, the machine or executors.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import ChainMap, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .codec import ValueCodec
from .errors import RunExistsError, RunNotFoundError, StoreClosedError, StoreDamagedError, StoreError, StoreFormatError
from .json_format import (
    FORMAT,
    VERSION,
    Content,
    attempt_row,
    commits_of,
    file_stem,
    folded,
    line,
    parse_folded,
    parse_head,
    parse_journal,
    run_row,
    task_row,
    tie,
)
from .models import TERMINAL_STATES
from .records import AttemptRecord, Changes, RunRecord, TaskRecord
from .store import BaseStore

_logger = logging.getLogger("night_batch.json_store")
_OPEN_JOURNALS = 64


class JsonStore(BaseStore):
    """Keeps each run in a file of its own that people and other programs can read. Safe to use from any thread.

    Args:
        folder: where the files lie; it is created where nothing is. It should lie on a local disk.
        codec: how values are written and read; brings the types registered with it.

    A commit that touches a run and its subflow runs writes several journals, the innermost run's first. The last one makes it
    count: what a kill before that leaves in the others is no part of their runs, and cut off when those are next written.
    """

    def __init__(self, folder: str | os.PathLike[str] = "./runs", *, codec: ValueCodec | None = None) -> None:
        super().__init__(codec)
        self.folder = Path(folder)
        self._lock = threading.RLock()
        self._opened = self._closed = False
        self._journals: OrderedDict[str, int] = OrderedDict()
        """File descriptors of the journals in use, the least recently used first."""
        self._unsynced: dict[str, None] = {}
        """Runs with commits that may not have reached the disk, in the order in which they were first touched."""
        self._ended: dict[str, None] = {}
        """Runs that have ended and are to be folded."""
        self._parents: dict[str, str | None] = {}
        self._graphs: dict[str, str] = {}
        """The graphs of runs as they were last written: each change of a run need not write them again."""
        self._last_order = 0
        self._session = ""
        """Names the commits over several runs, with their number; nobody else's go by this name, nor those after a failed one."""
        self._complete: dict[str, int] = {}
        """The last of them known to be complete, for each session: all before it are so too."""

    def __repr__(self) -> str:
        return f"JsonStore({str(self.folder)!r})"

    # --- opening and closing ---

    def open(self) -> None:
        """See `Store.open`."""
        with self._lock, self._translated():
            if self.folder.exists() and not self.folder.is_dir():
                raise StoreFormatError(repr(self), "the path is a file; name a folder, or use SQLiteStore for a file")
            self.folder.mkdir(parents=True, exist_ok=True)
            self._opened, self._closed = True, False
            self._session = os.urandom(8).hex()

    def close(self) -> None:
        """See `Store.close`."""
        with self._lock, self._translated():
            opened = self._opened
            self._opened, self._closed = False, True
            try:
                if opened:
                    self._flush()
            finally:
                self._parents.clear()
                self._graphs.clear()
                while self._journals:
                    os.close(self._journals.popitem()[1])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(repr(self), f"{type(error).__name__}: {error}") from error

    @contextmanager
    def _using(self) -> Iterator[None]:
        with self._lock, self._translated():
            if self._closed:
                raise StoreClosedError(repr(self))
            if not self._opened:
                self.open()
            yield

    def _path(self, run_id: str, suffix: str) -> Path:
        return self.folder / (file_stem(run_id) + suffix)

    # --- writing ---

    def commit(self, changes: Changes) -> None:
        """See `Store.commit`."""
        with self._using():
            # What is found out on the way is kept only if the commit succeeds: until then a new run does not exist.
            parents = ChainMap[str, str | None]({}, self._parents)
            entries = self._entries(changes, parents)
            order = list(entries)
            number = self._complete.get(self._session, 0) + 1
            if len(order) > 1:
                order.sort(key=lambda run_id: _depth(run_id, parents), reverse=True)
                tie([entries[run_id] for run_id in order], order[-1], self._session, number)
            lengths: dict[str, int | None] = {}
            try:
                for run_id in order:
                    is_new = "order" in entries[run_id]
                    journal = self._create(run_id) if is_new else self._journal(run_id)
                    lengths[run_id] = None if is_new else os.lseek(journal, 0, os.SEEK_CUR)
                    _write_all(journal, line(entries[run_id]))
            except BaseException:
                self._take_back(lengths)
                raise
            self._complete[self._session] = number
            self._graphs.update((run.id, run.graph) for run in (*changes.new_runs, *changes.runs))
            self._parents.update(parents.maps[0])
            self._unsynced.update(dict.fromkeys(entries))
            for run in (*changes.new_runs, *changes.runs):
                if run.state in TERMINAL_STATES:
                    self._ended[run.id] = None
                else:
                    self._ended.pop(run.id, None)
            if changes.flush:
                self._flush()

    def _take_back(self, lengths: Mapping[str, int | None]) -> None:
        """Cut off what a failed commit wrote: nothing half done stays behind.

        The last journal goes first: from then on the others hold nothing that counts, however far this comes.
        """
        self._session = os.urandom(8).hex()
        for run_id in lengths:
            self._let_go(run_id)
        for run_id, length in reversed(list(lengths.items())):
            journal = self._path(run_id, ".journal")  # by name, since a commit over many runs may have closed it
            try:
                if length is None:
                    journal.unlink()
                else:
                    os.truncate(journal, length)
            except OSError:
                break  # the commit's own error says enough; what is left is cut off when the journal is next opened

    def _entries(self, changes: Changes, parents: ChainMap[str, str | None]) -> dict[str, dict[str, Any]]:
        """One journal entry per run that the changes touch."""
        entries: dict[str, dict[str, Any]] = {}
        for run in changes.new_runs:
            if self._exists(run.id):
                raise RunExistsError(run.id, self._content(run.id)[0].flow_name, run.flow_name)
            self._last_order = max(self._last_order + 1, time.time_ns())
            entries[run.id] = {"format": FORMAT, "version": VERSION, "order": self._last_order}
            parents[run.id] = run.parent_run_id
        for run in (*changes.new_runs, *changes.runs):
            self._entry(entries, run.id, parents)["run"] = run_row(run, self._graphs.get(run.id))
        for task in changes.tasks:
            self._entry(entries, task.run_id, parents).setdefault("tasks", []).append(task_row(task))
        for attempt in changes.attempts:
            self._entry(entries, attempt.run_id, parents).setdefault("attempts", []).append(attempt_row(attempt))
        return entries

    def _entry(self, entries: dict[str, dict[str, Any]], run_id: str, parents: ChainMap[str, str | None]) -> dict[str, Any]:
        entry = entries.get(run_id)
        if entry is None:
            if run_id not in parents:
                parents[run_id] = self._content(run_id)[0].parent_run_id
            entry = entries[run_id] = {}
        return entry

    def _create(self, run_id: str) -> int:
        path = self._path(run_id, ".journal")
        return self._keep(run_id, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600))

    def _journal(self, run_id: str) -> int:
        """The open journal of a run, at its end, cut back to the last entry that counts if a kill left more."""
        journal = self._journals.get(run_id)
        if journal is not None:
            status = os.fstat(journal)
            if status.st_nlink and status.st_size == os.lseek(journal, 0, os.SEEK_CUR):
                self._journals.move_to_end(run_id)
                return journal
            # Another process folded it away, so nobody reads what is written there, or wrote to it, and may have been killed.
            self._let_go(run_id)
        path = self._path(run_id, ".journal")
        journal = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            length = self._entries_of(path)[1]
            os.ftruncate(journal, length)
            os.lseek(journal, length, os.SEEK_SET)
        except BaseException:
            os.close(journal)
            raise
        return self._keep(run_id, journal)

    def _keep(self, run_id: str, journal: int) -> int:
        self._journals[run_id] = journal
        if len(self._journals) > _OPEN_JOURNALS:
            os.close(self._journals.popitem(last=False)[1])
        return journal

    def _let_go(self, run_id: str) -> None:
        journal = self._journals.pop(run_id, None)
        if journal is not None:
            os.close(journal)

    def _flush(self) -> None:
        """Bring everything to the disk; runs that have ended are folded, which does it too."""
        # A journal that is gone was folded by another process.
        open_runs = [run_id for run_id in self._unsynced if run_id not in self._ended and self._path(run_id, ".journal").exists()]
        for run_id in open_runs:
            os.fsync(self._journal(run_id))
        if open_runs:
            self._sync_folder()
        for run_id in list(self._ended):
            self._fold(run_id)
            self._ended.pop(run_id)
            self._graphs.pop(run_id, None)
        self._unsynced.clear()

    def _fold(self, run_id: str) -> None:
        """Replace the readable file by one that holds all, atomically; only then let go of the journal."""
        content = self._read(file_stem(run_id))
        path = self._path(run_id, ".json")
        temporary = path.with_suffix(".json.tmp")
        try:
            self._write_synced(temporary, folded(content).encode())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._sync_folder()
        self._let_go(run_id)
        self._path(run_id, ".journal").unlink(missing_ok=True)

    def _write_synced(self, path: Path, data: bytes) -> None:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0), 0o600
        )
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _sync_folder(self) -> None:
        if os.name == "nt":  # Windows has no handle of a folder to sync; NTFS journals the names itself
            return
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # --- reading ---

    def _read(self, stem: str) -> Content:
        """What the folded file says, and then the journal. Read again if another process folded in between."""
        path, journal = self.folder / f"{stem}.json", self.folder / f"{stem}.journal"
        while True:
            before = _identity(path)
            data = _bytes_of(path)
            content = parse_folded(data, path.name, repr(self)) if data is not None else Content()
            entries = self._entries_of(journal)[0]
            if _identity(path) == before:
                break
        try:
            for entry in entries:
                content.apply(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreDamagedError(repr(self), f"{journal.name} is damaged ({type(error).__name__}: {error})") from error
        self._check_place(content, stem)
        return content

    def _check_place(self, content: Content, stem: str) -> None:
        """Refuse a file that somebody copied or renamed: it would pass for another run, or stand in the way of its own."""
        if content.run is not None and file_stem(content.run.id) != stem:
            raise StoreFormatError(
                repr(self),
                f"{stem}.json holds run {content.run.id!r}, whose file is {file_stem(content.run.id)}.json; move it away",
            )

    def _entries_of(self, journal: Path) -> tuple[list[dict[str, Any]], int]:
        """The entries that count and the length up to the last of them.

        Only the last one can belong to a commit that was cut short: whoever went on has first cut off such a one.
        """
        entries, ends = self._whole_entries(journal)
        if entries and "with" in entries[-1] and not self._is_complete(*entries[-1]["with"]):
            del entries[-1], ends[-1]
        return entries, ends[-1] if ends else 0

    def _whole_entries(self, journal: Path) -> tuple[list[dict[str, Any]], list[int]]:
        return parse_journal(_bytes_of(journal) or b"", journal.name, repr(self))

    def _is_complete(self, last: str, session: str, number: int) -> bool:
        """Whether a commit over several runs has been written to the last of them.

        The journal is looked at before the file that it may be folded into meanwhile. A commit that another process is
        just writing is not complete yet, and its runs read as they were before it.
        """
        if self._complete.get(session, 0) < number:
            commits = commits_of(self._whole_entries(self._path(last, ".journal"))[0])
            path = self._path(last, ".json")
            if session not in commits and (data := _bytes_of(path)) is not None:
                commits = parse_folded(data, path.name, repr(self)).commits
            self._complete[session] = max(self._complete.get(session, 0), commits.get(session, 0))
        return self._complete.get(session, 0) >= number

    def _content(self, run_id: str) -> tuple[RunRecord, Content]:
        if not isinstance(run_id, str):
            raise RunNotFoundError(run_id, repr(self))
        content = self._read(file_stem(run_id))
        if content.run is None or content.run.id != run_id:
            raise RunNotFoundError(run_id, repr(self))
        return content.run, content

    def _exists(self, run_id: str) -> bool:
        if self._path(run_id, ".json").exists():
            return True
        # A journal without an entry that counts is what a kill in the very first commit leaves: no run.
        journal = self._path(run_id, ".journal")
        if not journal.exists():
            return False
        if self._entries_of(journal)[0]:
            return True
        journal.unlink()
        return False

    def exists(self, run_id: str) -> bool:
        """See `Store.exists`."""
        with self._using():
            try:
                self._content(run_id)
            except RunNotFoundError:
                return False
            return True

    def read_run(self, run_id: str) -> RunRecord:
        """See `Store.read_run`."""
        with self._using():
            return self._content(run_id)[0]

    def read_tasks(self, run_id: str) -> list[TaskRecord]:
        """See `Store.read_tasks`."""
        with self._using():
            tasks = self._content(run_id)[1].tasks
            return [tasks[position] for position in sorted(tasks)]

    def read_attempts(self, run_id: str) -> list[AttemptRecord]:
        """See `Store.read_attempts`."""
        with self._using():
            attempts = self._content(run_id)[1].attempts
            return [attempts[key] for key in sorted(attempts)]

    def read_runs(self, parent_run_id: str | None = None) -> list[RunRecord]:
        """See `Store.read_runs`. A file that cannot be read is left out, with a warning in the log: it hides no other run."""
        with self._using():
            found: dict[str, tuple[int, int, RunRecord]] = {}
            for path in sorted(self.folder.iterdir()):
                if path.suffix not in (".json", ".journal"):
                    continue
                try:
                    run, order = self._header(path)
                except (StoreError, OSError) as error:
                    _logger.warning("left out of the list of runs: %s", error)
                    continue
                if run is not None and (parent_run_id is None or run.parent_run_id == parent_run_id):
                    found[run.id] = (run.created, order, run)
            return [row[2] for row in sorted(found.values(), key=lambda row: row[:2], reverse=True)]

    def _header(self, path: Path) -> tuple[RunRecord | None, int]:
        """The run that a file is about: of a folded file the first lines tell, unless a journal has gone on since."""
        if path.suffix == ".json" and not path.with_suffix(".journal").exists():
            try:
                with path.open("rb") as file:
                    content = parse_head(b"".join(file.readline() for _ in range(2)), path.name, repr(self))
                self._check_place(content, path.stem)
                return content.run, content.order
            except StoreError:
                pass  # perhaps only an editor has laid the lines out anew: the whole file tells
        content = self._read(path.stem)
        return content.run, content.order


def _depth(run_id: str, parents: Mapping[str, str | None]) -> int:
    depth = 0
    parent = parents.get(run_id)
    while parent is not None and depth < len(parents):  # what people save may name itself as its parent
        depth += 1
        parent = parents.get(parent)
    return depth


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
