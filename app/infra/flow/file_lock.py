"""An exclusive lock between processes, on a file of its own: the kernel frees it when its holder dies, however that happens.

`flock` where there is one: it belongs to the open file, so that closing another descriptor of the file does not free it, as it
would a POSIX record lock (fcntl(2), flock(2)). Knows files; must not know stores.
"""

from __future__ import annotations

import os
import sys
import time

from .file_system import StrPath

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 40  # Windows keeps others from reading the bytes that are locked, so lock some that do not exist

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    _TAKE, _FREE = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, _TAKE)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, _FREE)


_FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_FIRST_WAIT, _LONGEST_WAIT = 0.0001, 0.005  # seconds between two looks


class FileLock:
    """One descriptor of a lock file. Not for several threads at once: its owner brings a lock between these.

    Args:
        path: the lock file, made (for nobody else's eyes) where there is none. A symbolic link there is refused.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = os.fspath(path)
        self.held = False
        self._descriptor: int | None = None

    def __repr__(self) -> str:
        return f"<FileLock {self.path!r}, {'held' if self.held else 'free'}>"

    @property
    def descriptor(self) -> int:
        """The open file, while the lock is held: its holder may keep notes in it."""
        assert self._descriptor is not None
        return self._descriptor

    def try_acquire(self, create: bool = True) -> bool:
        """Take the lock if it is free.

        Args:
            create: make the file where there is none; else that is a FileNotFoundError.
        """
        while True:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, _FLAGS | (os.O_CREAT if create else 0), 0o600)
            if not _lock(self._descriptor):
                return False
            # Whoever held it before may have removed the file. The lock to hold is then that of the new one.
            if os.fstat(self._descriptor).st_nlink:
                self.held = True
                return True
            self.close()

    def acquire(self, seconds: float) -> bool:
        """Wait for the lock, for so many seconds at most; whether it is held then."""
        deadline = time.monotonic() + seconds
        wait = _FIRST_WAIT
        while not self.try_acquire():
            if time.monotonic() >= deadline:
                return False
            time.sleep(wait)
            wait = min(wait * 1.5, _LONGEST_WAIT)
        return True

    def release(self) -> None:
        """Let others have it; the file stays open for the next time."""
        if self.held:
            self.held = False
            assert self._descriptor is not None
            _unlock(self._descriptor)

    def remove(self) -> None:
        """Remove the file of the lock that is held, then let go: others find it gone, and make a new one."""
        assert self.held
        if sys.platform == "win32":  # an open file cannot be removed there, and one that others have open not at all
            self.close()
        try:
            os.unlink(self.path)
        except (FileNotFoundError, PermissionError):
            pass
        self.close()

    def close(self) -> None:
        """Give it up with its descriptor."""
        descriptor, self._descriptor, self.held = self._descriptor, None, False
        if descriptor is not None:
            os.close(descriptor)

    def after_fork(self) -> None:
        """In a forked child: close the copied descriptor. The parent's lock stays the parent's, and does not outlive it here."""
        self.close()
