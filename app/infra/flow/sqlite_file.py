"""One SQLite file and this process's connections to it: transactions, their order across processes, and when they reach the disk.

Every write and every checkpoint of the file, in all our processes, happens under one advisory lock beside it. SQLite versions up
to 3.51.2 can lose commits where two connections write and checkpoint at the same instant (https://www.sqlite.org/wal.html#walresetbug).
Errors of sqlite3 and the operating system are translated here, once. Must not know what is stored.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .errors import (
    StoreBusyError,
    StoreClosedError,
    StoreDamagedError,
    StoreError,
    StoreForkedError,
    StoreFormatError,
    StoreFullError,
)
from .file_lock import FileLock
from .flusher import Flusher
from .forks import watch
from .mounts import network_file_system
from .sqlite_schema import MIGRATIONS, check_ours, migrate
from .witness import Mark, Witness

T = TypeVar("T")

CHECKPOINT_PAGES = 4000
"""About how many pages the -wal file grows by before it is folded into the database: 16 MB, four times SQLite's own default.

A checkpoint flushes the disk twice, some 7 ms however little there is to fold: 7 microseconds a commit at SQLite's default.
"""
PINNED_PAGES = 2 * CHECKPOINT_PAGES
"""How long it may get while readers keep it from starting over, before it waits for a moment without any."""

_SMALLEST = 512  # bytes: one page of the smallest size, https://www.sqlite.org/fileformat2.html
_PAGE = 4096
_FEW_ROWS = 512  # bytes: a commit that says it wrote more wrote more than a few rows, or a long one
_LOOK_EVERY = 64  # commits: that many of few rows, too, may have written more than is guessed
_EXTRA_PAGES = 1  # what a commit writes beside its rows: an inner page, now and then
_READERS_GET = 500  # milliseconds to end, when the -wal file must start over
_OPEN = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG} if sys.platform != "win32" else {errno.ENOSPC})

FOREIGN = (sqlite3.Error, OSError, UnicodeDecodeError, UnicodeEncodeError, OverflowError)
"""What sqlite3 and the operating system raise; nobody outside this room sees one of these."""

_logger = logging.getLogger("night_batch.sqlite_store")
_left_alone: list[object] = []
"""Connections of a parent process. They are never closed here, which would be as unsafe as using them
(https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_across_a_fork_)."""
_inherited: set[tuple[int, int]] = set()
"""The files that they are connections to.

SQLite believes that this process holds locks on them, which a fork does not hand down.
"""


class WouldWait(Exception):  # noqa: N818 - it is a signal between two rooms, and no error
    """A write that was to be done without waiting cannot be."""


class SQLiteFile:
    """The connections of one store to its file. Safe to use from any thread.

    Args:
        path: the file.
        name: what errors call the store.
        busy_timeout: seconds to wait for others.
        sync_interval: seconds, see `Flusher`.
        find: the count of commits that the file holds of the run of a number; None where there never was such a run.
    """

    def __init__(
        self,
        path: str,
        name: str,
        busy_timeout: float,
        sync_interval: float | None,
        find: Callable[[sqlite3.Connection, int], int | None],
    ) -> None:
        self.path = path
        self.generation = 0
        """Grows whenever nothing that was read before may be relied on: after a failed write, or in a new connection."""
        self.rivals = 0
        """Grows whenever somebody else may have written since this one did."""
        self._name = name
        self._busy_timeout = busy_timeout
        self._find = find
        self._flusher = Flusher(sync_interval, self._flush_wal)
        self._reset()
        watch(self)

    def _reset(self) -> None:
        # One connection writes and one reads, each behind its own lock: a long read holds up no commit, and the
        # rollback of one thread cannot take another's rows with it.
        self._writing = threading.RLock()
        self._reading = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._lock: FileLock | None = None
        self._wal: int | None = None
        self._inode: tuple[int, int] | None = None
        self._closed = False
        self._full = False  # whether the writer's PRAGMA synchronous is FULL
        self._version: tuple[int] | None = None  # PRAGMA data_version: the writer's own count of other connections' commits
        self._pages = 0
        """About how many pages the -wal file has grown by since the last checkpoint ..."""
        self._kept_pages = 0
        """... and how many that one had to leave in it."""
        self._starts_over = False
        """The next commit begins the -wal file anew, and SQLite syncs the head of that whatever the mode."""
        self._witness = Witness()
        self._failure: StoreError | None = None
        self._suspect = False
        """A write to the disk has failed: what the file shows may be in memory alone."""
        self._finalizer: weakref.finalize[..., SQLiteFile] | None = None

    def __repr__(self) -> str:
        return f"<SQLiteFile {self.path!r}, {'open' if self._writer else 'not open'}>"

    def after_fork(self) -> None:
        """In a forked child: leave the parent's connections alone, and never open others to that file."""
        if self._inode is not None and self._writer is not None:
            _left_alone.extend((self._writer, self._reader))
            _inherited.add(self._inode)
        if self._finalizer is not None:
            self._finalizer.detach()
        if self._lock is not None:
            self._lock.after_fork()
        if self._wal is not None:
            os.close(self._wal)
        self.generation += 1
        closed = self._closed
        self._reset()
        self._closed = closed
        self._flusher.after_fork()

    # --- opening and closing ---

    def open(self) -> None:
        """Connect, making the file where there is none; no effect if it is open."""
        with self._writing, self._reading:
            if self._writer is None:
                with self._translated():
                    self._connect()
                self._closed = False

    def _connect(self) -> None:
        real = os.path.realpath(self.path)  # one lock for all names of the file
        if os.path.isdir(real):
            raise StoreFormatError(self._name, "the path is a directory; name a file, or use JsonStore for a folder")
        # SQLite writes over a file that is shorter than any database. (Asked for its size and not read: closing a
        # descriptor of ours would free the locks that another connection of this process holds on it.)
        exists = os.path.exists(real)
        if exists and (size := os.stat(real).st_size) < _SMALLEST:
            what = "no database" if size else "empty"
            raise StoreFormatError(self._name, f"the file is {what}; it is left untouched; name another path, or remove it")
        if exists and not os.access(real, os.W_OK):
            what = "the file may not be written by this user; let it be, or look at a copy (of its -wal file, too, if it has one)"
            raise StoreError(self._name, what)
        if not os.path.isdir(folder := os.path.dirname(real)):
            raise StoreError(self._name, f"the folder {folder!r} does not exist; create it first")
        if exists and _place(real) in _inherited:
            raise StoreForkedError(self._name)
        where = network_file_system(real)
        if where is not None:
            _logger.warning("%s lies on a network file system (%s), where SQLite's locks do not hold", self._name, where)
        lock = FileLock(real + "-lock")
        if not lock.acquire(self._busy_timeout):
            lock.close()
            raise StoreBusyError(self._name, self._busy_timeout)
        try:
            if self._inode is not None:
                self._check_place()
            if os.path.exists(real) or not self._create(real):
                if os.stat(real).st_nlink > 1:
                    from .new_file import sweep  # late: most files are there already, and whole

                    sweep(real)
                self._inspect(real, lock)
            writer, reader = self._connections(real)
            try:
                # SQLite keeps its locks on the other files, so that closing this one takes none away.
                self._wal = os.open(_wal_of(real), _OPEN)
            except BaseException:
                reader.close()
                writer.close()
                raise
        except BaseException:
            if os.fstat(lock.descriptor).st_size:
                lock.close()
            else:
                lock.remove()
            raise
        lock.release()
        self._writer, self._reader, self._lock, self._full = writer, reader, lock, True
        self._inode = _place(real)
        self._pages, self._kept_pages = _size(_wal_of(real)) // _PAGE, 0
        self._starts_over = not self._pages
        self._witness = Witness()  # the file may be another one by now, put back from a backup
        self.generation += 1
        # SQLite folds the -wal file into the database when the last connection closes; do so at exit, too.
        self._finalizer = weakref.finalize(self, _close_all, [reader, writer], self._wal, lock, real)

    def _create(self, path: str) -> bool:
        """Make the file beside its place and put it there complete: whoever finds it, after whatever kill, finds a database.

        Returns:
            Whether it is ours: another program may have made one meanwhile, which is then looked at like any other.
        """
        if _size(_wal_of(path)):  # SQLite would take it for that of the new file
            wal = os.path.basename(_wal_of(path))
            raise StoreDamagedError(self._name, f"the file is gone, and its {wal} is not; put it back, or remove {wal} as well")
        from .new_file import empty_beside, put_in_place, remove, sweep  # late: most files are there already

        sweep(path)
        temporary = empty_beside(path)
        try:
            connection = sqlite3.connect(temporary, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode = MEMORY")
                connection.execute("PRAGMA synchronous = OFF")  # nobody knows of the file yet
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                migrate(connection, self._name)
                connection.execute("PRAGMA journal_mode = WAL")
            finally:
                connection.close()
            put_in_place(temporary, path)
        except FileExistsError:
            return False
        finally:
            remove(temporary)
        return True

    def _inspect(self, path: str, lock: FileLock) -> None:
        """Refuse a file that is not ours, is newer, or has lost something, and leave it untouched."""
        # The last connection to close folds the -wal file into the database and removes it. So one that can only read is used
        # where there is such a file; it would leave empty ones behind where there is none.
        has_wal = _size(_wal_of(path)) > 0
        connection = sqlite3.connect(
            f"{_uri_of(path)}?mode={'ro' if has_wal else 'rw'}", uri=True, timeout=self._busy_timeout, isolation_level=None
        )
        try:
            check_ours(connection, self._name)
            pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
            if pages * size > os.stat(path).st_size and not has_wal:
                raise StoreDamagedError(self._name, "the file is cut short; it is left untouched; restore a backup")
            loss = self._witness.loss(lock, lambda number: self._find(connection, number))
            if loss is not None:
                raise StoreDamagedError(self._name, loss)
        finally:
            connection.close()

    def _connections(self, path: str) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        deadline = time.monotonic() + self._busy_timeout
        writer = self._connection(path, 0)  # it waits by itself: see _begin
        try:
            self._patiently(lambda: self._prepare(writer, path), deadline)
            reader = self._connection(path, self._busy_timeout)
        except BaseException:
            writer.close()
            raise
        return writer, reader

    @staticmethod
    def _connection(path: str, timeout: float) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=64)
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # checkpoints are made where they hold nobody up
        return connection

    def _prepare(self, writer: sqlite3.Connection, path: str) -> None:
        version = check_ours(writer, self._name)
        if version and version < len(MIGRATIONS):
            self._keep_copy(writer, path, version)
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute(f"PRAGMA journal_size_limit = {PINNED_PAGES * _PAGE}")
        writer.execute("PRAGMA synchronous = FULL")
        migrate(writer, self._name)
        if self._suspect:
            # What a failed fsync left behind is written anew, into the database itself, and synced there.
            _, pages, done = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if pages != done:
                raise StoreBusyError(self._name, self._busy_timeout, "readers keep it from being repaired after a failed write")
            self._suspect = False

    def _keep_copy(self, writer: sqlite3.Connection, path: str, version: int) -> None:
        """A copy of the file as it is before its schema is changed."""
        copies = (f"{path}.v{version}{'' if number == 1 else f'-{number}'}.bak" for number in range(1, 1000))
        place = next(copy for copy in copies if not os.path.exists(copy))
        self._copy(writer, place)
        _logger.warning(
            "%s is brought to schema version %s; a copy of it is kept as %s", self._name, len(MIGRATIONS), os.path.basename(place)
        )

    def _patiently(self, work: Callable[[], T], deadline: float) -> T:
        """Do what may find the database locked by other programs, again and again until the deadline."""
        wait = 0.001
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(wait)
            wait = min(wait * 1.5, 0.02)

    def close(self) -> None:
        """Flush, disconnect and tidy up; no effect if it is closed."""
        with self._writing, self._reading:
            self._closed, self._inode = True, None
            if self._writer is not None:
                with self._translated():
                    try:
                        if self._flusher.pending and self._wal is not None:
                            self._sync(self._wal)
                    finally:
                        self._disconnect()

    def _disconnect(self) -> None:
        self._flusher.close()
        finalizer, self._finalizer = self._finalizer, None
        self._writer = self._reader = self._lock = None
        self._wal = None
        self.generation += 1
        if finalizer is not None:
            finalizer()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FOREIGN as error:
            raise self._translation(error) from error

    def _translation(self, error: Exception) -> StoreError:
        """What an error of sqlite3 or the operating system is in our words."""
        if isinstance(error, sqlite3.Error):
            return self._told(error)
        if isinstance(error, OSError):
            kind = StoreFullError if error.errno in _FULL else StoreError
            return kind(self._name, f"{type(error).__name__}: {error}")
        if isinstance(error, UnicodeDecodeError):  # what SQLite says of a damaged file may quote the damage
            return StoreDamagedError(self._name, f"SQLite's own words about it cannot be read: {error}")
        # sqlite3 raises these bare
        return StoreError(self._name, f"a text or number does not fit into a column: {error}")

    def _told(self, error: sqlite3.Error) -> StoreError:
        # By message: sqlite3 tells the error code only from Python 3.11 on.
        said = f"{type(error).__name__}: {error}"
        if "not a database" in said:
            return StoreFormatError(self._name, f"the file is no database; it is left untouched; name another path ({said})")
        if "malformed" in said or "decode to UTF-8" in said:
            return StoreDamagedError(self._name, said)
        if "is full" in said:
            return StoreFullError(self._name, said)
        if _is_busy(error):
            return StoreBusyError(self._name, self._busy_timeout, f"another program holds the database ({said})")
        return StoreError(self._name, said)

    # --- writing ---

    def write(
        self, work: Callable[[sqlite3.Connection], tuple[T, Mark | None, int]], *, flush: bool = False, wait: bool = True
    ) -> T:
        """Do some statements in one transaction.

        Args:
            work: does them; gives a result, the mark of the commit (None: it changed nothing that is marked), and about how many
                bytes it wrote.
            flush: have it on the disk before this returns. It may be so anyway, by the sync interval.
            wait: whether this may wait: for other threads and processes, for the disk, for a checkpoint.

        Raises:
            WouldWait: it may not, and would; nothing was written.
        """
        if not self._writing.acquire(blocking=wait):
            raise WouldWait
        try:
            if self._failure is not None:
                self._tell_failure(self._failure, wait)
            if self._writer is None and not wait:
                raise WouldWait
            writer = self._writer or self._open_writer()
            flush = self._flusher.is_due(flush)
            if not wait and (flush or self._starts_over or self._pages >= CHECKPOINT_PAGES):
                raise WouldWait
            lock = self._lock
            assert lock is not None
            # Not `with self._translated()`: here, once per commit, entering and leaving it would cost 1.5 microseconds.
            try:
                if not (lock.acquire(self._busy_timeout) if wait else lock.try_acquire()):
                    raise StoreBusyError(self._name, self._busy_timeout, "another process holds it") if wait else WouldWait
                try:
                    if flush:
                        self._check_place()
                    result, mark, size = self._transaction(writer, work, flush, wait)
                    self._witness.note(lock, mark, flush)
                    self._pages += _EXTRA_PAGES + size // _PAGE
                    if size > _FEW_ROWS or not self._pages % _LOOK_EVERY:  # rows that lie apart write a page each
                        self._pages = max(self._pages, self._wal_pages() - self._kept_pages)
                    self._starts_over = False
                    if flush:
                        self._flusher.flushed()
                    else:
                        self._flusher.committed()
                    if wait and self._pages >= CHECKPOINT_PAGES:
                        try:
                            self._checkpoint(writer)
                        except sqlite3.Error:
                            self._abandon()
                            raise
                finally:
                    lock.release()
            except FOREIGN as error:
                raise self._translation(error) from error
            return result
        finally:
            self._writing.release()

    def _tell_failure(self, failure: StoreError, wait: bool) -> None:
        """Raise what went wrong in the background, once."""
        if not wait:
            raise WouldWait
        self._failure = None
        self._abandon()
        raise failure

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            if self._closed:
                raise StoreClosedError(self._name)
            self.open()
        assert self._writer is not None
        return self._writer

    def _check_place(self) -> None:
        """Whoever removed or replaced the file took what is written to it from now on."""
        try:
            here = _place(self.path)
        except FileNotFoundError:
            here = None
        if here != self._inode:
            self._abandon()
            raise StoreError(self._name, "the file was removed or replaced while it was open; put it back, and continue the run")

    def _transaction(
        self,
        writer: sqlite3.Connection,
        work: Callable[[sqlite3.Connection], tuple[T, Mark | None, int]],
        flush: bool,
        wait: bool,
    ) -> tuple[T, Mark | None, int]:
        if self._full is not flush:
            # FULL syncs the WAL at this commit, and with it every commit before; NORMAL leaves it to a later one.
            writer.execute(f"PRAGMA synchronous = {'FULL' if flush else 'NORMAL'}")
            self._full = flush
        self._begin(writer, wait)
        try:
            # Asked of SQLite and not of the notes: whoever was killed right after a commit has left none of it.
            version = writer.execute("PRAGMA data_version").fetchone()
            if version != self._version:
                self._version = version
                self.rivals += 1
            done = work(writer)
        except BaseException:
            self.generation += 1
            self._roll_back(writer)
            raise
        try:
            writer.execute("COMMIT")
        except BaseException:
            # It may have been committed all the same. So forget this connection and what we think we know.
            self._roll_back(writer)
            self._abandon()
            raise
        return done

    def _begin(self, writer: sqlite3.Connection, wait: bool) -> None:
        # IMMEDIATE: a deferred transaction that upgrades may fail at once, busy timeout or not. Our own processes wait for each
        # other at the lock; this waits for other programs, and not in SQLite, whose writer here must never hold up an event loop.
        try:
            writer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            if not wait:
                raise WouldWait from None
            self._patiently(lambda: writer.execute("BEGIN IMMEDIATE"), time.monotonic() + self._busy_timeout)

    def _roll_back(self, writer: sqlite3.Connection) -> None:
        if writer.in_transaction:
            try:
                writer.execute("ROLLBACK")
            except sqlite3.Error:
                self._abandon()

    def _abandon(self) -> None:
        """After a failed write: never carry on as if. The next use connects anew, and reads what there is."""
        self._suspect = True
        with self._reading:
            if self._writer is not None:
                self._disconnect()

    # --- the disk ---

    @staticmethod
    def _sync(descriptor: int) -> None:
        os.fsync(descriptor)

    def _flush_wal(self) -> None:
        """Bring the commits so far to the disk, from the timer's thread, without holding up those that follow."""
        note, lock, wal = self._witness.latest, self._lock, self._wal
        if wal is None or lock is None:  # closed meanwhile, which flushes too
            return
        try:
            self._sync(wal)
        except OSError as error:
            if self._writer is not None:  # not closed meanwhile
                self._failure = StoreError(self._name, f"{type(error).__name__}: {error}")
            return
        # Where somebody is writing, the note is left out: the one before it asks for less. Not without looking, since the
        # descriptor of a lock that was closed meanwhile may be another file's by now.
        if self._writing.acquire(blocking=False):
            try:
                if self._lock is lock:
                    self._witness.put(lock, note, flushed=True)
            finally:
                self._writing.release()

    def _checkpoint(self, writer: sqlite3.Connection) -> None:
        # TRUNCATE, without waiting for readers: frames that are left in the file after their pages are in the database would, if
        # a bit of a later one flips after a kill, stand for newer pages.
        _, pages, done = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if pages > PINNED_PAGES:
            # There is always some reader, so the file never starts over: keep new ones out until the present ones have ended.
            writer.execute(f"PRAGMA busy_timeout = {_READERS_GET}")
            try:
                _, pages, done = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                writer.execute("PRAGMA busy_timeout = 0")
        self._pages = 0  # if readers are in the way, it is tried again only when it has grown by as much once more
        self._starts_over = pages == done
        self._kept_pages = self._wal_pages()

    def _wal_pages(self) -> int:
        return 0 if self._wal is None else os.fstat(self._wal).st_size // _PAGE

    # --- reading ---

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some selects within one read transaction: they all see the same commit."""
        if self._reader is None:
            with self._writing:
                self._open_writer()
        with self._reading:
            reader = self._reader
            if reader is None:
                raise StoreClosedError(self._name)
            with self._translated():
                reader.execute("BEGIN")
                try:
                    return work(reader)
                finally:
                    if reader.in_transaction:  # an error of the medium may have ended it
                        reader.execute("COMMIT")

    def is_alone(self) -> bool:
        """Whether nobody else has committed since this store did; False also where that cannot be told."""
        if not self._writing.acquire(blocking=False):  # somebody writes, and may have to wait: a reader need not
            return False
        try:
            writer = self._writer
            return writer is not None and bool(writer.execute("PRAGMA data_version").fetchone() == self._version)
        except sqlite3.Error:  # the reader will say what is wrong, or wait until it is over
            return False
        finally:
            self._writing.release()

    # --- housekeeping ---

    def backup(self, path: str) -> None:
        """Copy the database as it is at one moment; writers go on meanwhile."""
        with self._writing:
            self._open_writer()
        with self._translated():
            source = self._connection(os.path.realpath(self.path), self._busy_timeout)
            try:
                self._copy(source, path)
            except FileExistsError as error:
                raise StoreError(self._name, f"{path!r} exists already; name another path for the backup") from error
            finally:
                source.close()

    def _copy(self, source: sqlite3.Connection, path: str) -> None:
        from .new_file import empty_beside, put_in_place, remove  # late: few programs copy a file

        temporary = empty_beside(path)
        try:
            target = sqlite3.connect(temporary, isolation_level=None)
            try:
                source.backup(target)
            finally:
                target.close()
            put_in_place(temporary, path)
        finally:
            for name in (temporary, f"{temporary}-wal", f"{temporary}-shm"):
                remove(name)

    def shrink(self) -> None:
        """Give free pages back to the file system."""

        def work(writer: sqlite3.Connection) -> tuple[int, Mark | None, int]:
            # One by one: sqlite3 takes a single step of a statement without columns, and that is one page, whatever is asked.
            for _ in range(2000):
                writer.execute("PRAGMA incremental_vacuum(1)")
            return writer.execute("PRAGMA freelist_count").fetchone()[0], None, 2000 * _PAGE

        with self._writing, self._translated():
            writer = self._open_writer()
            if writer.execute("PRAGMA auto_vacuum").fetchone()[0] == 2:
                free = writer.execute("PRAGMA freelist_count").fetchone()[0]
                while free and (left := self.write(work)) < free:  # a piece at a time: others may commit in between
                    free = left
            assert self._lock is not None
            if not self._lock.acquire(self._busy_timeout):
                raise StoreBusyError(self._name, self._busy_timeout, "another process holds it")
            try:
                if writer.execute("PRAGMA auto_vacuum").fetchone()[0] != 2:  # made by the first version
                    writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
                    self._patiently(lambda: writer.execute("VACUUM"), time.monotonic() + self._busy_timeout)
                writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._lock.release()


def _is_busy(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "busy" in str(error)


def _uri_of(path: str) -> str:
    from pathlib import Path  # late: it takes long to load, and a new file needs none

    return Path(path).as_uri()


def _wal_of(path: str) -> str:
    return path + "-wal"


def _place(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _close_all(connections: list[sqlite3.Connection], wal: int, lock: FileLock, path: str) -> None:
    os.close(wal)
    # The last connection to close makes a checkpoint, so this too belongs under the lock; but the end of a program waits for
    # nobody long.
    try:
        held = lock.held or lock.acquire(1.0)
    except OSError:
        held = False
    for connection in connections:
        connection.close()
    if held and not os.path.exists(_wal_of(path)):  # all is in the database: there is nothing left to witness
        lock.remove()
    else:
        lock.close()
