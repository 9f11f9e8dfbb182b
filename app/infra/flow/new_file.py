"""Makes a file complete before it gets its name: whoever finds it, after whatever kill, finds all of it or nothing.

Knows the file system; must not know what the file is.
"""

from __future__ import annotations

import os
import re

_OPEN = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def empty_beside(path: str) -> str:
    """A new empty file for nobody else's eyes, under a name that nobody can have foreseen."""
    temporary = f"{path}.new-{os.urandom(8).hex()}"
    os.close(os.open(temporary, _OPEN | os.O_CREAT | os.O_EXCL, 0o600))
    return temporary


def put_in_place(temporary: str, path: str) -> None:
    """Give a finished file its name, on the disk, where nothing has that name yet.

    Raises:
        FileExistsError: something has.
    """
    descriptor = os.open(temporary, _OPEN)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.exists(path):
            raise FileExistsError(path) from None
        os.rename(temporary, path)
    if os.name != "nt":
        folder = os.open(os.path.dirname(path) or os.curdir, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sweep(path: str) -> None:
    """Remove what somebody has left who was killed while making the file, or right after giving it its name."""
    folder, name = os.path.split(path)
    ours = re.compile(re.escape(name) + r"\.new-[0-9a-f]{16}(-journal|-wal|-shm)?")
    for other in os.listdir(folder or os.curdir):
        if ours.fullmatch(other):
            remove(os.path.join(folder, other))


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
