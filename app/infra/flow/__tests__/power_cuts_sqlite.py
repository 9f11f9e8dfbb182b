"""The files of an SQLite store, watched: all that is done to them goes into a trace that `power_cuts.cut` understands.

apsw lets a VFS be written in Python (https://www.sqlite.org/vfs.html), and brings an SQLite of its own; here it stands in for the
sqlite3 module. What the VFS is told is done to the real files, and noted down. Syncing is only noted down: the disk is ours.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import apsw

from .. import sqlite_file, witness
from ..file_lock import FileLock
from ..sqlite_file import SQLiteFile
from .power_cuts import Trace

VFS = "night-batch recorder"


class Recorder:
    """The trace of what is done to the files in a folder, as long as it is the one that listens."""

    listening: Recorder | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trace: Trace = []
        self.start = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        self.numbers = {(folder / name).stat().st_ino: -number for number, name in enumerate(sorted(self.start), 1)}
        self.synced = set(self.numbers.values())
        self.made = 0

    def opened(self, path: Path) -> int:
        """A file is there, which may be new; its inode."""
        inode = path.stat().st_ino
        if inode not in self.numbers:
            self.made += 1
            self.numbers[inode] = self.made
            self.trace.append(("create", path.name, self.made))
        return inode

    def written(self, inode: int, data: bytes, offset: int) -> None:
        self.trace.append(("write", self.numbers[inode], offset, data))

    def cut_off(self, path: Path, inode: int, length: int) -> None:
        if length:
            self.trace.append(("truncate", self.numbers[inode], length))
        else:  # which happens at once or not at all: what is written then goes to other places of the disk, as if to another file
            self.removed(path, inode)
            self.opened(path)

    def synced_now(self, inode: int) -> None:
        number = self.numbers[inode]
        self.trace.append(("fsync", number))
        if number not in self.synced:  # with a file's first sync comes one of its folder: SQLite does so, and so do file systems
            self.synced.add(number)
            self.trace.append(("fsync folder",))

    def removed(self, path: Path, inode: int) -> None:
        del self.numbers[inode]  # another file may get it
        self.trace.append(("unlink", path.name))


def _listening() -> Recorder:
    assert Recorder.listening is not None
    return Recorder.listening


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self.path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        self.inode = _listening().opened(Path(self.path))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's names
        super().xWrite(data, offset)
        _listening().written(self.inode, bytes(data), offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        _listening().cut_off(self.path, self.inode, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        _listening().synced_now(self.inode)


class _VFS(apsw.VFS):
    def __init__(self) -> None:
        super().__init__(VFS, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _File(name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        path = Path(filename)
        inode = path.stat().st_ino
        super().xDelete(filename, False)
        _listening().removed(path, inode)


_vfs = _VFS()


class _Rows:
    """What a statement came to."""

    def __init__(self, rows: list[tuple[Any, ...]], lastrowid: int) -> None:
        self._rows = iter(rows)
        self.lastrowid = lastrowid

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise sqlite3.OperationalError(str(error)) from error


class Connection:
    """As much of sqlite3's as a store uses."""

    def __init__(self, path: object, *, timeout: float = 5.0, uri: bool = False, **others: Any) -> None:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | (apsw.SQLITE_OPEN_URI if uri else 0)
        with _translated():
            self._connection = apsw.Connection(str(path), flags, VFS)
            self._connection.set_busy_timeout(round(timeout * 1000))

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, arguments: Sequence[Any] = ()) -> _Rows:
        with _translated():
            rows = list(self._connection.execute(sql, tuple(arguments)))
            return _Rows(rows, self._connection.last_insert_rowid())

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with _translated():
            self._connection.executemany(sql, [tuple(row) for row in rows])

    def create_function(self, name: str, count: int, function: Callable[..., Any], deterministic: bool = False) -> None:
        self._connection.create_scalar_function(name, function, count, deterministic=deterministic)

    def close(self) -> None:
        with _translated():
            self._connection.close()


class _Lock(FileLock):
    def try_acquire(self, create: bool = True) -> bool:
        done = super().try_acquire(create)
        if done:
            _listening().opened(Path(self.path))
        return done

    def remove(self) -> None:
        inode = os.fstat(self.descriptor).st_ino
        super().remove()
        _listening().removed(Path(self.path), inode)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    os.pwrite(descriptor, data, offset)
    _listening().written(os.fstat(descriptor).st_ino, data, offset)


def _sync(descriptor: int) -> None:
    _listening().synced_now(os.fstat(descriptor).st_ino)


@contextmanager
def watched(recorder: Recorder, boot: str) -> Iterator[None]:
    """Within, stores of the recorder's folder are watched by it, and the machine's start has that id."""
    Recorder.listening = recorder
    instead = SimpleNamespace(
        connect=Connection, Connection=Connection, Error=sqlite3.Error, OperationalError=sqlite3.OperationalError
    )
    with (
        patch.object(sqlite_file, "sqlite3", instead),
        patch.object(sqlite_file, "FileLock", _Lock),
        patch.object(witness, "_write_at", _write_at),
        patch.object(witness, "boot_id", lambda: boot),
        patch.object(SQLiteFile, "_sync", staticmethod(_sync)),
    ):
        yield
