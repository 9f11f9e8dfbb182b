"""Who owns runs: one lock file per process and store, which dies with the process, and a heartbeat for those that do not die.

A run's owner is stored with the run as a token; beside the store lies a file of that name, locked for as long as its maker lives.
It holds who that is and, in the first bytes, when it last gave a sign of life: by the machine's monotonic clock, which all
processes share and nobody sets. So a dead owner is known at once, and a stopped one when its lease is over. Knows files and
threads; must not know what is owned.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable

from .file_lock import FileLock
from .file_system import StrPath
from .late_dataclass import dataclass
from .who import process_name

_TOKEN = "[0-9a-f]{16}"
_BEAT = 20  # bytes: a count of nanoseconds in decimal
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """What tells one start of this machine from another; empty where the platform does not say."""
    try:
        with open(_BOOT_ID, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who drives runs."""

    pid: int
    host: str
    boot: str
    lease: float
    """Seconds without a sign of life after which its runs may be taken from it."""

    def __str__(self) -> str:
        return process_name(self.pid, self.host)


def _read(path: str) -> tuple[int, Owner] | None:
    """The last sign of life and the owner that a file names, or None where it does not say (yet)."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        return int(data[:_BEAT]), Owner(**json.loads(data[_BEAT:]))
    except (OSError, ValueError, TypeError):
        return None


def _note_of(owner: Owner) -> bytes:
    return json.dumps({"pid": owner.pid, "host": owner.host, "boot": owner.boot, "lease": owner.lease}).encode()


def _beat_of(monotonic: Callable[[], int]) -> bytes:
    return b"%020d" % monotonic()


class _Heart:
    """Writes signs of life into a file that is locked, until it is stopped.

    Knows no `Owners`, or these would never be dropped.
    """

    def __init__(self, lock: FileLock, seconds: float, monotonic: Callable[[], int]) -> None:
        self._lock = lock
        self._seconds = seconds
        self._monotonic = monotonic
        self._stopped = threading.Event()
        # Between the beat and the end: the number of a closed file may be another file's next. Reentrant, since what is dropped
        # may be found out in the midst of a beat.
        self._guard = threading.RLock()

    def beat(self) -> None:
        while not self._stopped.wait(self._seconds):
            with self._guard:
                if self._stopped.is_set():
                    return
                try:
                    os.lseek(self._lock.descriptor, 0, os.SEEK_SET)
                    os.write(self._lock.descriptor, _beat_of(self._monotonic))
                except (OSError, AssertionError):  # the next beat may do better
                    pass

    def stop(self) -> None:
        """Stop, and remove the file."""
        with self._guard:
            self._stopped.set()
            if self._lock.held:
                self._lock.remove()


class Owners:
    """This process as an owner, and what it can know of the others.

    Args:
        prefix: the path that the files' names begin with.
        lease: seconds without a sign of life after which others may take over.
        monotonic: the machine's monotonic clock, in nanoseconds.
    """

    def __init__(self, prefix: StrPath, lease: float, monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        self._prefix = os.fspath(prefix)
        self._lease = lease
        self._monotonic = monotonic
        self._lock: FileLock | None = None
        self._token = ""
        self._end: weakref.finalize[..., Owners] | None = None

    def __repr__(self) -> str:
        return f"<Owners {self._prefix!r}, {self._token or 'not one of them'}>"

    @property
    def token(self) -> str:
        """The name of this owner. The first time it is asked for, its file is made and its heart begins to beat."""
        if self._lock is None:
            self._begin()
        return self._token

    def is_mine(self, token: str) -> bool:
        """Whether that is this owner, without becoming one."""
        return token != "" and token == self._token

    def _path(self, token: str) -> str:
        return self._prefix + token

    def _begin(self) -> None:
        self.sweep()
        while True:
            token = os.urandom(8).hex()
            lock = FileLock(self._path(token))
            if lock.try_acquire():  # a sweep may have come between the file and its lock: then it is made anew
                break
            lock.close()
        owner = Owner(os.getpid(), socket.gethostname(), boot_id(), self._lease)
        os.write(lock.descriptor, _beat_of(self._monotonic) + _note_of(owner))
        heart = _Heart(lock, self._lease / 3, self._monotonic)
        self._lock, self._token = lock, token
        # Whoever is dropped without being closed, or lives to the end of the program, must not leave its file and thread behind.
        self._end = weakref.finalize(self, heart.stop)
        # A thread: a loop that a task holds up for a minute must not look like a dead owner.
        threading.Thread(target=heart.beat, name=f"night-batch owner {token}", daemon=True).start()

    def is_alive(self, token: str) -> bool:
        """Whether that owner lives and has given a sign of life within its lease."""
        if not re.fullmatch(_TOKEN, token):  # no file of ours: what a store says must not lead to any other
            return False
        if token == self._token:
            return True
        path = self._path(token)
        lock = FileLock(path)
        try:
            if lock.try_acquire(create=False):
                lock.remove()
                return False
        except FileNotFoundError:
            return False
        finally:
            lock.close()
        found = _read(path)
        if found is None:  # it is just being written, by somebody who holds its lock
            return True
        beat, owner = found
        # The clocks of two machines, or of two starts of one, have nothing in common.
        return owner.boot != boot_id() or self._monotonic() - beat <= owner.lease * 1e9

    def owner(self, token: str) -> Owner | None:
        """Who that is, as far as the file still says."""
        found = _read(self._path(token)) if re.fullmatch(_TOKEN, token) else None
        return None if found is None else found[1]

    def sweep(self) -> None:
        """Remove the files of the dead."""
        folder, beginning = os.path.split(self._prefix)
        for name in os.listdir(folder or os.curdir):
            if name.startswith(beginning):
                try:
                    self.is_alive(name[len(beginning) :])
                except OSError:  # not a file that one of us made
                    pass

    def close(self) -> None:
        """Stop being an owner: what this one still owned is free."""
        end, self._end = self._end, None
        self._lock, self._token = None, ""
        if end is not None:
            end()

    def after_fork(self) -> None:
        """In a forked child: it is nobody yet, and must not keep its parent's file locked when that dies."""
        end, self._end = self._end, None
        lock, self._lock, self._token = self._lock, None, ""
        if end is not None:
            end.detach()
        if lock is not None:
            lock.after_fork()
