"""The operations on files that a store is made of, each done the safe way; tests put in their place what fails or keeps a record.

Files are made for nobody else's eyes, never opened by way of a symbolic link, and not handed down to child processes. Must not
know what is in them.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import StoreError, StoreFullError

_full_sync: int | None = None
if sys.platform != "win32":
    import fcntl

    # macOS: fsync hands the data to the drive, which may keep it in a cache that a power cut empties; see its fsync(2).
    _full_sync = getattr(fcntl, "F_FULLFSYNC", None)

_NO_full_sync = frozenset({errno.EINVAL, errno.ENOTTY, getattr(errno, "ENOTSUP", errno.EINVAL)})
_FULL = frozenset(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
_SAFE = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_BINARY"))
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # or opening a pipe to read it would wait for somebody to write

StrPath = str | os.PathLike[str]

Identity = tuple[int, int, int]
"""Which file it is, when it was written last, and its length."""


@contextmanager
def translated(store: str) -> Iterator[None]:
    """Trouble of the medium leaves a store as one of the engine's errors, which names the store."""
    try:
        yield
    except OSError as error:
        kind = StoreFullError if error.errno in _FULL else StoreError
        raise kind(store, f"{type(error).__name__}: {error}") from error


class FileSystem:
    """The operating system's files. Every method raises OSError as the system does."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def open(self, path: StrPath, flags: int = os.O_RDWR) -> int:
        """Open a file; its descriptor. With O_CREAT, it is made where there is none."""
        return os.open(path, flags | _SAFE, 0o600)

    def close(self, descriptor: int) -> None:
        """Close a file; what was written to it need not be on the disk."""
        os.close(descriptor)

    def read(self, path: StrPath, lines: int | None = None) -> bytes | None:
        """What is in a file, or in its first lines; None where there is no file."""
        try:
            descriptor = self.open(path, os.O_RDONLY | _NO_WAIT)
        except FileNotFoundError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", str(path))
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read() if lines is None else b"".join(file.readline() for _ in range(lines))
        finally:
            os.close(descriptor)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of the data, from that offset on."""
        os.lseek(descriptor, offset, os.SEEK_SET)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def truncate(self, descriptor: int, length: int) -> None:
        """Cut a file off."""
        os.ftruncate(descriptor, length)

    def status(self, descriptor: int) -> Identity:
        """What `identity` says of an open file, as long as it has its name."""
        return _identity(os.fstat(descriptor))

    def sync(self, descriptor: int) -> None:
        """Return when what was written to a file is on the disk, safe from a power cut. Its name need not be."""
        if _full_sync is not None:
            try:
                fcntl.fcntl(descriptor, _full_sync)
                return
            except OSError as error:
                if error.errno not in _NO_full_sync:
                    raise
        os.fsync(descriptor)

    def sync_file(self, path: StrPath) -> None:
        """The same for a file that is not open."""
        descriptor = self.open(path)
        try:
            self.sync(descriptor)
        finally:
            self.close(descriptor)

    def sync_folder(self, folder: StrPath) -> None:
        """Return when the names in a folder are on the disk."""
        if os.name == "nt":  # Windows has no handle of a folder to sync; NTFS journals the names itself
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, source: StrPath, target: StrPath) -> None:
        """Give a file another name, taking it from a file that has it: at any moment there is one of the two."""
        os.replace(source, target)

    def unlink(self, path: StrPath) -> bool:
        """Remove a file; whether there was one."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True

    def identity(self, path: StrPath) -> Identity | None:
        """What changes when a file is replaced or written; None where there is no file."""
        try:
            return _identity(os.lstat(path))
        except FileNotFoundError:
            return None

    def create(self, path: StrPath, data: bytes, sync: bool) -> None:
        """Make a file that must not exist yet, of that content; with `sync`, the content is on the disk when this returns."""
        descriptor = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            self.write(descriptor, data, 0)
            if sync:
                self.sync(descriptor)
        finally:
            self.close(descriptor)


def _identity(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_mtime_ns, status.st_size


def regular_files(folder: StrPath) -> list[str]:
    """The names of the ordinary files in a folder, sorted: no folders, pipes or symbolic links."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
