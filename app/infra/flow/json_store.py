"""JsonStore: a folder of readable files, one `<run_id>.json` per run, fed by an append-only journal beside it.

While a run goes on, each commit appends one line to `<run_id>.journal`. When the run has ended, the journal is folded into the
JSON file, and removed. Here: who may write, who owns which run, and when it all reaches the disk. Must not know flows, the
machine or executors; how to write so that a kill or a power cut does no harm is `json_writer`'s business.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import ChainMap, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from .codec import ValueCodec
from .errors import (
    InvalidOptionError,
    RunExistsError,
    RunNotFoundError,
    RunOwnedError,
    StoreBusyError,
    StoreClosedError,
    StoreError,
    StoreFormatError,
)
from .file_lock import FileLock
from .file_system import FileSystem, regular_files, translated
from .flusher import Flusher, check_interval
from .forks import watch
from .json_backup import backup
from .json_format import Entry, Row, attempt_row, note_row, run_row, task_row
from .json_leases import Leases
from .json_reader import FOLDED, JOURNAL, KEPT, LEFT_BEHIND, Reader
from .json_ties import ancestors, innermost_first
from .json_writer import Writer
from .models import TERMINAL_STATES
from .owners import Owners
from .records import Ask, AttemptRecord, Changes, Lease, NoteRecord, RunRecord, TaskRecord
from .store import BaseStore, busy_timeout_of, is_large, lease_of

if TYPE_CHECKING:
    from .asks import Asks, Later

_FIRST_WAIT, _LONGEST_WAIT = 0.0001, 0.005  # seconds between two looks at the folder's lock
_logger = logging.getLogger("night_batch.json_store")


class JsonStore(BaseStore):
    """Keeps each run in a file of its own that people and other programs can read. For any number of threads and processes.

    Args:
        folder: where the files lie; it is created where nothing is. It should lie on a local disk.
        sync_interval: seconds (or a timedelta) between two flushes to the disk: a commit is flushed at once when the last flush
            is at least that long ago, else at the latest when the interval is over; and always at the end of a run. 0 flushes
            each commit before anything acts on it, None only the end of a run. It is about power cuts: a killed process loses
            nothing either way.
        busy_timeout: seconds to wait for other processes that write to the folder, before a `StoreBusyError`.
        lease: seconds without a sign of life after which the runs of a process that has stopped may be taken over; those of one
            that has died may be at once.
        codec: how values are written and read; brings the types registered with it.
        files: how files are written and read; tests bring their own.

    Raises:
        InvalidOptionError: the folder is no name of one, or a number makes no sense.

    A commit that touches a run and its subflow runs writes several journals, the innermost run's first, and waits for the disk.
    The last one makes it count: what a kill before that leaves in the others is no part of their runs, and cut off when those are
    next written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] = "./runs",
        *,
        sync_interval: float | timedelta | None = 0.05,
        busy_timeout: float = 30.0,
        lease: float = 30.0,
        codec: ValueCodec | None = None,
        files: FileSystem | None = None,
    ) -> None:
        super().__init__(codec)
        if not isinstance(folder, (str, os.PathLike)):
            raise InvalidOptionError("folder", folder, "the name of a folder")
        self.folder = Path(folder)
        self._busy_timeout = busy_timeout_of(busy_timeout)
        # A program that changes its working directory must not take half of a run along.
        self._place = self.folder.absolute()
        self._files = files if files is not None else FileSystem()
        self._reader = Reader(self._place, self._files, repr(self))
        self._writer = Writer(self._reader, self._files)
        self._lock = threading.RLock()
        self._folder_lock = FileLock(self._place / ".lock")
        self._owners = Owners(self._place / ".owner-", lease_of(lease))
        self._ownership = Leases(self._owners, self._reader, self._writer)
        self._asks_beside: Asks | None = None
        self._flusher = Flusher(check_interval(sync_interval), self._flush_in_time)
        self._opened = self._closed = False
        self._ended: dict[str, None] = {}
        """Runs that have ended and are to be folded."""
        self._parents: dict[str, str | None] = {}
        """Of the runs that were written here."""
        self._last_order = 0
        self._finalizer: weakref.finalize[..., JsonStore] | None = None
        watch(self)

    def __repr__(self) -> str:
        return f"JsonStore({str(self.folder)!r})"

    @property
    def identity(self) -> str:
        """See `Store.identity`."""
        return f"json {os.path.realpath(self._place)}"

    # --- opening and closing ---

    def open(self) -> None:
        """See `Store.open`."""
        with self._lock, translated(repr(self)):
            if self._opened:
                return
            if self._place.exists() and not self._place.is_dir():
                raise StoreFormatError(repr(self), "the path is a file; name a folder, or use SQLiteStore for a file")
            self._make_folder()
            self._opened, self._closed = True, False
            self._writer.new_session()
            self._left_behind(remove=True)
            self._finalizer = weakref.finalize(self, _leave, self._writer, self._ownership, self._folder_lock)

    def _make_folder(self) -> None:
        missing = [path for path in (self._place, *self._place.parents) if not path.exists()]
        self._place.mkdir(parents=True, exist_ok=True)
        for path in reversed(missing):  # or a power cut could take the folder with all that is safe in it
            self._files.sync_folder(path.parent)

    def close(self) -> None:
        """See `Store.close`. Runs that are owned still are given up."""
        with self._lock, translated(repr(self)):
            opened = self._opened
            self._opened, self._closed = False, True
            try:
                if opened:
                    self._close()
            finally:
                self._detach()
                self._parents.clear()
                self._writer.close()
                self._flusher.close()
                self._ownership.close()
                self._folder_lock.close()

    def _detach(self) -> None:
        """Leave nothing to be done at the program's end."""
        finalizer, self._finalizer = self._finalizer, None
        if finalizer is not None:
            finalizer.detach()

    def _close(self) -> None:
        if not self._ended and not self._writer.suspect:
            self._flush()
        elif self._folder_lock.acquire(self._busy_timeout):
            self._writer.begin()
            self._recover()
            self._flush(self._ended)
        elif self._writer.suspect:
            raise StoreBusyError(repr(self), self._busy_timeout)
        else:  # nothing is lost by not folding
            self._flush()

    def after_fork(self) -> None:
        """In a forked child: it has written nothing and owns nothing, and opens the folder anew when it is next used."""
        self._lock = threading.RLock()
        self._opened = False
        self._detach()
        self._ended.clear()
        self._writer.after_fork()
        self._folder_lock.after_fork()
        self._ownership.after_fork()
        self._flusher.after_fork()

    @contextmanager
    def _using(self) -> Iterator[None]:
        with self._lock, translated(repr(self)):
            if self._closed:
                raise StoreClosedError(repr(self))
            if not self._opened:
                self.open()
            yield

    def _take_folder(self) -> bool:
        if not self._folder_lock.try_acquire():
            return False
        self._writer.begin()
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the folder's lock as well; while others do, this store's other threads can read."""
        deadline = time.monotonic() + self._busy_timeout
        wait = _FIRST_WAIT
        while True:
            with self._using():
                if self._take_folder():
                    try:
                        self._recover()
                        yield
                        return
                    finally:
                        self._folder_lock.release()
            if time.monotonic() >= deadline:
                raise StoreBusyError(repr(self), self._busy_timeout, "another process holds it")
            time.sleep(wait)
            wait = min(wait * 1.5, _LONGEST_WAIT)

    # --- writing ---

    def commit(self, changes: Changes) -> None:
        """See `Store.commit`."""
        with self._writing():
            self._commit(changes)
            if changes.flush:
                self._flush(self._ended, {run.id for run in changes.runs})
            elif self._flusher.is_due():
                self._flush()
            else:
                self._flusher.committed()
            if changes.release and changes.lease is not None:
                self._writer.forget(changes.lease.run_id, self._parents)

    def commit_at_once(self, changes: Changes) -> bool:
        """See `Store.commit_at_once`. Not for new runs either: whether there is one of that id takes a look into the folder."""
        if changes.new_runs or self._flusher.is_due(changes.flush) or is_large(changes):
            return False
        run_ids = {task.run_id for task in changes.tasks}
        if changes.runs or changes.attempts or changes.notes:
            run_ids.update(run.id for run in changes.runs)
            run_ids.update(attempt.run_id for attempt in changes.attempts)
            run_ids.update(note.run_id for note in changes.notes)
        if changes.lease is not None and changes.release:
            run_ids.add(changes.lease.run_id)
        if len(run_ids) > 1 or not self._lock.acquire(blocking=False):
            return False
        try:
            if not self._opened or self._writer.suspect or not self._take_folder():
                return False
            try:
                if changes.lease is not None:
                    run_ids.add(changes.lease.run_id)
                for run_id in run_ids:
                    # A journal that is not as we left it has to be read first.
                    if run_id not in self._parents or not self._writer.is_current(run_id):
                        return False
                self._commit(changes)
                self._flusher.committed()
                return True
            finally:
                self._folder_lock.release()
        except OSError:
            with translated(repr(self)):
                raise
        finally:
            self._lock.release()

    def _commit(self, changes: Changes) -> None:
        self._ownership.check(changes.lease)
        # What is found out on the way is kept only if the commit succeeds: until then a new run does not exist.
        found: dict[str, str | None] = {}
        entries = self._entries(changes, found)
        if len(entries) > 1:
            parents = ChainMap(found, self._parents)
            entries = {run_id: entries[run_id] for run_id in innermost_first(entries, parents)}
            *others, last = entries
            beside = [run_id for run_id in others if last not in ancestors(run_id, parents)]
            if beside:
                entries[last]["beside"] = beside
        if entries:
            self._writer.write(entries)
        self._parents.update(found)
        for run in chain(changes.new_runs, changes.runs):
            if run.state in TERMINAL_STATES:
                self._ended[run.id] = None
            else:
                self._ended.pop(run.id, None)
        if changes.release and changes.lease is not None:
            self._ownership.forget(changes.lease)

    def _entries(self, changes: Changes, parents: dict[str, str | None]) -> dict[str, Entry]:
        """One journal entry per run that the changes touch; whose parents it turns out to have is added to `parents`."""
        entries: dict[str, Entry] = {}
        for run in changes.new_runs:
            if run.id in entries:
                continue
            if not self._writer.clear(run.id):
                raise RunExistsError(run.id, self._reader.content(run.id)[0].flow_name, run.flow_name)
            self._last_order = max(self._last_order + 1, time.time_ns() // 1000)
            entries[run.id] = {"order": self._last_order}
            parents[run.id] = run.parent_run_id
        for run in chain(changes.new_runs, changes.runs):
            self._entry(entries, run.id, parents)["run"] = run_row(run)
        run_id, rows = None, list[Row]()
        for task in changes.tasks:
            if task.run_id != run_id:
                run_id = task.run_id
                rows = self._entry(entries, run_id, parents).setdefault("tasks", [])
            rows.append(task_row(task))
        for attempt in changes.attempts:
            self._entry(entries, attempt.run_id, parents).setdefault("attempts", []).append(attempt_row(attempt))
        for note in changes.notes:
            self._entry(entries, note.run_id, parents).setdefault("notes", []).append(note_row(note))
        if changes.release and changes.lease is not None:
            self._entry(entries, changes.lease.run_id, parents)["owner"] = self._ownership.nobody(changes.lease)
        return entries

    def _entry(self, entries: dict[str, Entry], run_id: str, parents: dict[str, str | None]) -> Entry:
        entry = entries.get(run_id)
        if entry is None:
            if run_id not in self._parents and run_id not in parents:
                parents[run_id] = self._reader.content(run_id)[0].parent_run_id
            entry = entries[run_id] = {}
        return entry

    # --- the disk ---

    def _flush(self, ended: Iterable[str] = (), committed: Collection[str] = ()) -> None:
        """Bring all commits so far to the disk; those of runs that have ended by folding them.

        Raises:
            StoreDamagedError: one of the runs just committed, when read from its beginning, turns out to be damaged.
        """
        to_fold = list(ended)
        self._writer.sync(self._writer.untied(to_fold))
        try:
            damaged = self._writer.fold(to_fold)
        except OSError:
            self._writer.sync()  # what could not be folded is safe where it is
            raise
        for run_id in to_fold:
            del self._ended[run_id]
            self._parents.pop(run_id, None)
        self._flusher.flushed()
        for run_id, error in damaged.items():
            if run_id in committed:
                raise error
            _logger.warning("not folded: %s", error)

    def _flush_in_time(self) -> None:
        """The same in the timer's thread. If it fails, the next commit mends that, or says so."""
        try:
            with self._lock, translated(repr(self)):
                if self._opened and not self._writer.suspect:
                    self._writer.sync()
        except StoreError as error:
            _logger.warning("a flush has failed: %s", error)

    def _recover(self) -> None:
        if self._writer.suspect:
            self._writer.recover(reversed(innermost_first(self._writer.unsynced, self._parents)))

    # --- ownership ---

    def claim(self, run_id: str, *, force: bool = False) -> Lease:
        """See `Store.claim`."""
        with self._writing():
            lease, run = self._ownership.claim(run_id, force)
            self._parents[run_id] = run.parent_run_id
            self._flusher.committed()
            return lease

    def owner_of(self, run_id: str) -> str | None:
        """See `Store.owner_of`."""
        with self._using():
            return self._ownership.living(run_id, self._reader.content(run_id)[1].owner)

    def release(self, lease: Lease) -> None:
        """See `Store.release`. If it cannot be written, others have to wait for this store's end; it may claim the run again."""
        if self._ownership.forget(lease):
            with self._writing():
                run = self._ownership.give_up(lease)
                if run is not None and run.state in TERMINAL_STATES:  # do not leave a journal behind for that
                    self._ended[run.id] = None
                self._writer.forget(lease.run_id, self._parents)
                self._flusher.committed()

    # --- asking ---

    def _files_of_asks(self) -> Asks:
        made = self._asks_beside
        if made is None:
            from .asks import Asks  # late: who only looks at runs, or makes them, asks nothing

            # Whoever names the folder by another way is to be told, too.
            made = self._asks_beside = Asks(Path(os.path.realpath(self._place)) / ".asks-", self._files)
        return made

    def ask(self, run_id: str, ask: Ask) -> None:
        """See `Store.ask`. It is kept in a file of its own in the folder."""
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
        with self._using():
            return self._reader.content(run_id)[0]

    def read_tasks(self, run_id: str) -> list[TaskRecord]:
        """See `Store.read_tasks`."""
        with self._using():
            return self._reader.content(run_id)[1].task_records()

    def read_attempts(self, run_id: str) -> list[AttemptRecord]:
        """See `Store.read_attempts`."""
        with self._using():
            return self._reader.content(run_id)[1].attempt_records()

    def read_notes(self, run_id: str) -> list[NoteRecord]:
        """See `Store.read_notes`."""
        with self._using():
            return self._reader.content(run_id)[1].note_records()

    def read_runs(self, parent_run_id: str | None = None) -> list[RunRecord]:
        """See `Store.read_runs`. A file that cannot be read is left out, with a warning in the log: it hides no other run."""
        with self._using():
            return self._reader.runs(parent_run_id)

    def exists(self, run_id: str) -> bool:
        """See `Store.exists`."""
        with self._using():
            try:
                self._reader.content(run_id)
            except RunNotFoundError:
                return False
            return True

    # --- housekeeping ---

    def check(self) -> list[str]:
        """See `Store.check`. Reads all files; others may write meanwhile."""
        with self._using():
            left = self._left_behind()
        with translated(repr(self)):
            return [
                *self._reader.problems(),
                *(f"{self!r}: {name} was left behind by a process that was killed" for name in left),
            ]

    def _left_behind(self, remove: bool = False) -> list[str]:
        """Temporary files that nobody is just writing, since nobody else is at work."""
        if not self._temporary_files():
            return []
        try:
            if not self._take_folder():
                return []
            try:
                names = self._temporary_files()
                for name in names if remove else ():
                    self._files.unlink(self._place / name)
                return names
            finally:
                self._folder_lock.release()
        except OSError:  # one who may only read cannot tell, and leaves them to others
            return []

    def _temporary_files(self) -> list[str]:
        return [name for name in regular_files(self._place) if name.endswith(LEFT_BEHIND)]

    def backup(self, path: str | os.PathLike[str]) -> None:
        """See `Store.backup`. The copy is a folder; nobody owns the runs in it."""
        with translated(repr(self)):
            try:
                backup(self._place, Path(path).absolute(), (FOLDED, JOURNAL, *KEPT), self._files, self._writing())
            except FileExistsError as error:
                raise StoreError(repr(self), f"{os.fspath(path)!r} exists already; name another path for the backup") from error

    def _remove(self, run_ids: Sequence[str], lease: Lease) -> None:
        with self._writing():
            self._ownership.check(lease)
            depths: dict[str, int] = {}
            beside: set[str] = set()
            for run_id in run_ids:  # the outermost first
                run, content = self._reader.content(run_id)
                if run_id != lease.run_id:
                    self._ownership.check_free(run_id, content.owner)
                if run.state not in TERMINAL_STATES:  # it was set back a moment ago
                    raise RunOwnedError(run_id)
                depths[run_id] = depths.get(run.parent_run_id or "", -1) + 1
                beside |= content.beside
            levels: defaultdict[int, list[str]] = defaultdict(list)
            for run_id, depth in depths.items():
                levels[depth].append(run_id)
            self._writer.remove([levels[depth] for depth in sorted(levels, reverse=True)], sorted(beside))
            self._ownership.forget(lease)
            for run_id in run_ids:
                self._parents.pop(run_id, None)
                self._ended.pop(run_id, None)

    def _shrink(self) -> None:
        with self._writing():
            self._writer.sync_names()


def _leave(writer: Writer, leases: Leases, lock: FileLock) -> None:
    """What is done for a store that nobody has closed, when nobody has it any more, or the program ends."""
    try:
        if not writer.suspect:
            writer.sync()
    except OSError:  # there is nobody left to tell; what a kill would leave, this leaves
        pass
    writer.close()
    leases.close()
    lock.close()
