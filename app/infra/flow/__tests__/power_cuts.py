"""What a power cut may leave of files, worked out from a record of what was done to them: the model of a disk, for any store.

A trace is a list of tuples. A file is told by a number, since it may lose its name, or change it, while it is open:

    ("create", name, file)          ("write", file, offset, data)       ("rename", name, new name)
    ("unlink", name)                ("truncate", file, length)          ("fsync folder",)
    ("fsync", file)                 ("ack", ...)                        what a store has promised: no business of the disk's

Nothing is certain but what was synced. Of later writes any may be lost, in whole or in single sectors, whatever their order. The
length of a file is kept apart from what is in it, so that it may be too long for that (NULs) or too short. Of what was done to
names since the folder was synced, any part may have happened. See "All File Systems Are Not Created Equal" (Pillai and others,
OSDI 2014).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

SECTOR = 512

Op = tuple[Any, ...]
Trace = list[Op]


def cut(
    trace: Sequence[Op], moment: int, rng: Random, start: Mapping[str, bytes] | None = None
) -> tuple[dict[str, bytes], Counter[str]]:
    """What may be found after the power went, when the first `moment` operations of the trace had been done.

    Args:
        trace: what was done.
        moment: how much of it.
        rng: decides what survives.
        start: what was on the disk before, by name; in the trace these files are -1, -2 ..., in the order of their names.

    Returns:
        The files by name; and what was lost, counted.
    """
    disk = _Disk(start or {})
    for op in trace[:moment]:
        disk.do(op)
    return disk.after_a_cut(rng)


def lay_out(files: Mapping[str, bytes], folder: Path) -> None:
    """Make a folder that holds these files and no others."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


class _File:
    def __init__(self, content: bytes = b"") -> None:
        self.synced = content
        self.pending: list[Op] = []

    def sync(self) -> None:
        for op in self.pending:
            self.synced = _applied(self.synced, op)
        self.pending.clear()

    def after_a_cut(self, rng: Random, lost: Counter[str]) -> bytes:
        if not self.pending:
            return self.synced
        kept = rng.choice((_nothing, _everything, _a_first_part, _some, _sectors, _sectors, _sectors_in_order))(self, rng)
        everything = _everything(self, rng)
        lost["contents"] += kept != everything
        lost["torn contents"] += kept not in (everything, self.synced)
        return kept


def _nothing(file: _File, rng: Random) -> bytes:
    return file.synced


def _everything(file: _File, rng: Random) -> bytes:
    content = file.synced
    for op in file.pending:
        content = _applied(content, op)
    return content


def _a_first_part(file: _File, rng: Random) -> bytes:
    """All up to some operation, which is cut short if it is a write."""
    content = file.synced
    *whole, last = file.pending[: rng.randrange(len(file.pending)) + 1]
    for op in whole:
        content = _applied(content, op)
    if last[0] == "write":
        last = (*last[:3], last[3][: rng.randrange(len(last[3]) + 1)])
    return _applied(content, last)


def _some(file: _File, rng: Random) -> bytes:
    """Any of the operations."""
    content = file.synced
    for op in file.pending:
        if rng.random() < 0.5:
            content = _applied(content, op)
    return content


def _sectors(file: _File, rng: Random) -> bytes:
    """Any sectors of any of the operations."""
    chance = rng.choice((0.1, 0.5, 0.9))
    return _by_sector(file, rng, lambda count: [rng.random() < chance for _ in range(count)])


def _sectors_in_order(file: _File, rng: Random) -> bytes:
    """Each sector as it was at some moment, as a disk has it that is only late."""

    def up_to_a_moment(count: int) -> list[bool]:
        moment = rng.randrange(count + 1)
        return [number < moment for number in range(count)]

    return _by_sector(file, rng, up_to_a_moment)


def _by_sector(file: _File, rng: Random, choose: Any) -> bytes:
    lengths, content = [len(file.synced)], file.synced
    for op in file.pending:
        content = _applied(content, op)
        lengths.append(len(content))
    end = max(lengths)
    sectors: list[bytes] = []
    for start in range(0, end, SECTOR):
        before = file.synced[start : start + SECTOR].ljust(SECTOR, b"\0")
        for op, kept in zip(file.pending, choose(len(file.pending))):
            if kept:
                before = _in_sector(before, op, start)
        sectors.append(before)
    data = b"".join(sectors)
    if rng.random() < 0.3:  # not even the length of what was lost is there
        data = data.rstrip(b"\0")
    return data[: rng.choice(lengths)]


def _in_sector(content: bytes, op: Op, start: int) -> bytes:
    if op[0] == "truncate":
        return content[: max(0, op[2] - start)].ljust(SECTOR, b"\0")
    offset, data = _written(op)
    first, last = max(offset, start), min(offset + len(data), start + SECTOR)
    if first >= last:
        return content
    return content[: first - start] + data[first - offset : last - offset] + content[last - start :]


def _applied(content: bytes, op: Op) -> bytes:
    if op[0] == "truncate":
        return content[: op[2]].ljust(op[2], b"\0")
    offset, data = _written(op)
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]


def _written(op: Op) -> tuple[int, bytes]:
    _, _, offset, data = op
    return offset, data


class _Disk:
    def __init__(self, start: Mapping[str, bytes]) -> None:
        self.files = {-number: _File(start[name]) for number, name in enumerate(sorted(start), 1)}
        self.synced = {name: -number for number, name in enumerate(sorted(start), 1)}
        """The names that are on the disk."""
        self.names = dict(self.synced)
        """The names as the running system has them."""
        self.pending: list[tuple[str, int | None]] = []
        """What each name has become since."""

    def do(self, op: Op) -> None:
        kind = op[0]
        if kind == "create":
            self.files[op[2]] = _File()
            self._become(op[1], op[2])
        elif kind == "rename":
            self._become(op[2], self.names[op[1]])
            self._become(op[1], None)
        elif kind == "unlink":
            self._become(op[1], None)
        elif kind == "fsync folder":
            self.synced = dict(self.names)
            self.pending.clear()
        elif kind == "fsync":
            self.files[op[1]].sync()
        elif kind != "ack":
            self.files[op[1]].pending.append(op)

    def _become(self, name: str, file: int | None) -> None:
        if file is None:
            del self.names[name]
        else:
            self.names[name] = file
        self.pending.append((name, file))

    def after_a_cut(self, rng: Random) -> tuple[dict[str, bytes], Counter[str]]:
        lost: Counter[str] = Counter()
        names = dict(self.synced)
        chance = rng.choice((0.0, 0.5, 0.9, 1.0))
        for name, file in self.pending:
            if rng.random() >= chance:
                lost["names"] += 1
            elif file is None:
                names.pop(name, None)
            else:
                names[name] = file
        kept = {file: self.files[file].after_a_cut(rng, lost) for file in sorted(set(names.values()))}
        return {name: kept[file] for name, file in names.items()}, lost
