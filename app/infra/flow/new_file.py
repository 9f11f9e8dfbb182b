"""Makes a file complete before it gets its name: whoever finds it, after whatever kill, finds all of it or nothing.

Knows the file system; must not know what the file is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_OPEN = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def empty_beside(path: Path) -> Path:
    """A new empty file for nobody else's eyes, under a name that nobody can have foreseen."""
    temporary = path.with_name(f"{path.name}.new-{os.urandom(8).hex()}")
    os.close(os.open(temporary, _OPEN | os.O_CREAT | os.O_EXCL, 0o600))
    return temporary


def put_in_place(temporary: Path, path: Path) -> None:
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
        if path.exists():
            raise FileExistsError(path) from None
        temporary.rename(path)
    if os.name != "nt":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sweep(path: Path) -> None:
    """Remove what somebody has left who was killed while making the file, or right after giving it its name."""
    ours = re.compile(re.escape(path.name) + r"\.new-[0-9a-f]{16}(-journal|-wal|-shm)?")
    for other in path.parent.iterdir():
        if ours.fullmatch(other.name):
            other.unlink(missing_ok=True)
