"""Tells a network file system from a local disk, where the platform says which is which (Linux).

Must not know what lies there.
"""

from __future__ import annotations

import re

_TABLE = "/proc/self/mountinfo"
_NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "9p",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "fuse.sshfs",
        "fuse.s3fs",
    }
)


def network_file_system(path: str) -> str | None:
    """The kind of network file system that an absolute path lies on; None where it is a local disk, or nobody says."""
    try:
        with open(_TABLE, encoding="utf-8", errors="surrogateescape") as file:
            table = file.read()
    except OSError:
        return None
    kind = kind_of(table, path)
    return kind if kind in _NETWORK else None


def kind_of(table: str, path: str) -> str | None:
    """The kind of file system that a path lies on, by a table in the form of /proc/self/mountinfo (proc(5))."""
    best = 0
    found: str | None = None
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        place = re.sub(r"\\([0-7]{3})", lambda escaped: chr(int(escaped[1], 8)), fields[4]).rstrip("/") + "/"
        # The longest is the innermost; of two mounts at one place, the later one covers the other.
        if len(place) >= best and f"{path}/".startswith(place):
            best, found = len(place), after.split(" ")[0]
    return found
