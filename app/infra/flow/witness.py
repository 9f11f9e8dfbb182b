"""What the lock file beside a database says of it: which commit was the last, and which was the last to reach the disk.

A bit that flips in the middle of an SQLite -wal file makes SQLite drop all commits behind it, and find nothing wrong. So the lock
file, which stays behind only after a kill, keeps two notes. Knows an open lock file; must not know SQLite.
"""

from __future__ import annotations

import os
from binascii import crc32
from collections.abc import Callable

from .file_lock import FileLock
from .owners import boot_id

Mark = tuple[int, int]
"""Which commit was the last: a run's number and the count of its commits. (0, 0) is none in particular."""

_SIZE = 36 + 1 + 20 + 1 + 20 + 1 + 8 + 1  # boot id, run number, count of commits, checksum


class Witness:
    """Writes the notes, and holds a database against them."""

    def __init__(self) -> None:
        self._boot = boot_id()
        self._number = 0
        # A note's beginning is the same from commit to commit, and so is the checksum so far.
        self._head = b"%-36s %020d " % (self._boot.encode(), 0)
        self._head_crc = crc32(self._head)
        self.latest = b""
        """The note of the last commit."""

    def __repr__(self) -> str:
        return f"<Witness of {self.latest!r}>"

    def note(self, lock: FileLock, mark: Mark | None, flushed: bool) -> None:
        """Write down which commit the database must hold from now on; None is the same as before."""
        if mark is not None:
            number, commits = mark
            if number != self._number:
                self._number = number
                self._head = b"%-36s %020d " % (self._boot.encode(), number)
                self._head_crc = crc32(self._head)
            count = b"%020d" % commits
            self.latest = b"%b%b %08x\n" % (self._head, count, crc32(count, self._head_crc))
        self.put(lock, self.latest, flushed=False)
        if flushed:
            self.put(lock, self.latest, flushed=True)

    @staticmethod
    def put(lock: FileLock, note: bytes, flushed: bool) -> None:
        """Write a note into its place. One that cannot be written leaves the one before, which asks for less."""
        try:
            _write_at(lock.descriptor, note, _SIZE if flushed else 0)
        except OSError:
            pass

    def loss(self, lock: FileLock, find: Callable[[int], int | None]) -> str | None:
        """What a database has lost since its notes were written, as a sentence; None if nothing.

        The first note holds for as long as the machine has not started anew; the second also after that.

        Args:
            lock: the lock file.
            find: the count of commits that the database holds of the run of a number; None where there never was such a run.
        """
        notes = _read_at(lock.descriptor, 2 * _SIZE, 0)
        for place in (0, 1):
            note = notes[place * _SIZE : place * _SIZE + _SIZE]
            if len(note) < _SIZE or b"%08x\n" % crc32(note[:-10]) != note[-9:]:
                continue
            boot, number, count = note[:36].decode().strip(), int(note[37:57]), int(note[58:78])
            if number == 0 or (place == 0 and (not boot or boot != self._boot)):
                continue
            found = find(number)
            if found is None or found < count:
                return (
                    f"commits are missing that were made before (run no. {number}: {found or 0} of {count} or more): the database"
                    " or its -wal file was damaged, or replaced by an older copy; it is left untouched. If you accept that,"
                    f" remove {os.path.basename(lock.path)}"
                )
        return None


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    if hasattr(os, "pwrite"):
        os.pwrite(descriptor, data, offset)
    else:  # Windows
        os.lseek(descriptor, offset, os.SEEK_SET)
        os.write(descriptor, data)


def _read_at(descriptor: int, length: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, length, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, length)
