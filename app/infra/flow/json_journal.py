"""A run's journal as text: one line for each commit, and what a reader can tell of a line that is not as it was written.

A line is the length and the CRC32 of a JSON text, in hexadecimal, and the text. Each checksum goes on from that of the line
before, so that a line which is missing, repeated or out of place is found, and not only one that was changed. Pure text; must not
know folders, locks or when anything is written.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import field

from .errors import StoreDamagedError, StoreError, StoreFormatError
from .json_format import FORMAT, VERSION, Entry, check_version
from .json_text import dumps, loads
from .late_dataclass import dataclass

SECTOR = 512
"""Bytes that a disk writes whole or not at all; the smallest there are."""

_HEAD = re.compile(rb"([0-9a-f]{8}) ([0-9a-f]{8}) (?=\{)")  # length, checksum
_HEAD_LENGTH = 18
_SHAPE, _DIGITS = b"00000000 00000000 {", bytes.maketrans(b"123456789abcdef", b"0" * 15)
_HOLE = re.compile(rb"\0+")


def line(entry: Entry, checksum_before: int) -> tuple[bytes, int]:
    """An entry as it is written behind a line of that checksum (0 at the beginning); and its own checksum."""
    text = dumps(entry).encode()
    checksum = zlib.crc32(text, checksum_before)
    return b"%08x %08x %s\n" % (len(text), checksum, text), checksum


def new_journal(run_id: str, after: int) -> Entry:
    """What the first entry of a journal says beside its own matter: whose it is, and how many journals were folded before it."""
    return {"format": FORMAT, "version": VERSION, "id": run_id, "after": after}


@dataclass(slots=True)
class Journal:
    """The whole entries of a journal, up to its end or to the first that is not whole."""

    entries: list[Entry] = field(default_factory=list[Entry])
    ends: list[int] = field(default_factory=list[int])
    """Where in the file each of them ends."""
    checksums: list[int] = field(default_factory=list[int])
    version: int = VERSION
    mark: tuple[int, int] = (0, 0)
    """The length and the checksum of all that is in the file."""
    trouble: StoreError | None = None
    """Why there is more in the file than can be read; None where it is only what a kill or a power cut leaves of a line."""

    @property
    def length(self) -> int:
        """Up to the end of the last entry."""
        return self.ends[-1] if self.ends else 0

    @property
    def after(self) -> int:
        """How many journals of its run were folded before it; version 1 did not count."""
        return int(self.entries[0].get("after", 0)) if self.entries else 0

    @property
    def checksum(self) -> int:
        """That of the last entry, from which the next one's goes on."""
        return self.checksums[-1] if self.checksums else 0

    def keep(self, count: int) -> None:
        """Forget all entries but the first ones."""
        del self.entries[count:], self.ends[count:], self.checksums[count:]

    def shortened(self) -> Journal:
        """The same without what the entries say of the run: where they end, and what they rely on."""
        ties: list[Entry] = [{"with": entry["with"]} for entry in self.entries if "with" in entry]
        return Journal([{"after": self.after}, *ties], self.ends[-1:], self.checksums[-1:], self.version, self.mark)


def mark_of(data: bytes) -> tuple[int, int]:
    """What tells two contents of a file apart: their length and checksum."""
    return len(data), zlib.crc32(data)


def parse_journal(data: bytes, name: str, store: str) -> Journal:
    """Read a journal. Nothing is raised: one who only looks whether a line is there can do without those behind it.

    Args:
        data: all of the file.
        name: what the file is called in errors.
        store: what the store is called in errors.
    """
    journal = Journal(mark=mark_of(data))
    try:
        _read_entries(journal, data, name, store)
        if journal.length < len(data):
            _explain(journal, data, name, store)
    except StoreError as error:
        journal.trouble = error
    return journal


def _read_entries(journal: Journal, data: bytes, name: str, store: str) -> None:
    while journal.length < len(data):
        # The lines of version 1 each have a checksum of their own.
        found = _line_at(data, journal.length, journal.checksum if journal.version > 1 else 0)
        if found is None:
            return
        text, end, checksum = found
        try:
            entry = loads(text)
        except (ValueError, RecursionError) as error:
            raise StoreDamagedError(store, f"{name} holds a line that is no JSON, at byte {journal.length} ({error})") from error
        if not journal.entries:
            # In version 1, a journal that went on after a fold did not say what it was.
            journal.version = check_version(entry, name, store) if "version" in entry else 1
        journal.entries.append(entry)
        journal.ends.append(end)
        journal.checksums.append(checksum)


def _line_at(data: bytes, start: int, checksum_before: int) -> tuple[bytes, int, int] | None:
    """The text of the line that begins there, where it ends, and its checksum; None where there is no whole one."""
    head = _HEAD.match(data, start)
    if head is None:
        return None
    checksum = int(head[2], 16)
    end = head.end() + int(head[1], 16)
    text = data[head.end() : end]
    if data[end : end + 1] != b"\n" or zlib.crc32(text, checksum_before) != checksum:
        return None
    return text, end + 1, checksum


def _explain(journal: Journal, data: bytes, name: str, store: str) -> None:
    """Raise what is wrong with the line that is not whole, unless it was being written when the process or the power went."""
    start = journal.length
    behind = list(_lines_behind(data, start))
    if data[start : start + _HEAD_LENGTH].strip(b"0123456789abcdef \0") or not _is_torn(data, start):
        if start == 0 and not behind and _HEAD.match(data) is None and FORMAT.encode() not in data[:1000]:
            raise StoreFormatError(store, f"{name} was not written by this library; it is left untouched")
    # What was on the disk before cannot have been torn; version 1 did not say, but made sure that nothing follows.
    elif not any(journal.version == 1 or entry.get("synced", 0) > start for entry in behind):
        return
    raise StoreDamagedError(store, f"{name} is damaged at byte {start}; it is left untouched; restore a backup")


def _is_torn(data: bytes, start: int) -> bool:
    """Whether a line that is not whole was torn: written in part, by a process that was killed or a disk without power.

    Such a line is cut short by the end of the file, or sectors of the disk that were to hold it hold nothing. One that is there
    in all its length was changed later.
    """
    head = _HEAD.match(data, start)
    end = head.end() + int(head[1], 16) + 1 if head is not None else data.find(b"\n", start) + 1 or len(data) + 1
    if end > len(data):
        rest = data[start:]
        begins_well = head is not None or _SHAPE.startswith(rest[: len(_SHAPE)].translate(_DIGITS))
        if begins_well and b"\n" not in rest:
            return True
    for hole in _HOLE.finditer(data, start, min(end, len(data))):
        # What is lost begins and ends where a sector does, or the line itself, or the next one of which a part was saved.
        if (hole.start() == start or hole.start() % SECTOR == 0) and (
            hole.end() % SECTOR == 0 or hole.end() in (end, len(data)) or _HEAD.match(data, hole.end()) is not None
        ):
            return True
    return False


def _lines_behind(data: bytes, start: int) -> Iterator[Entry]:
    """The entries that can still be read behind a line that cannot."""
    newline = data.find(b"\n", start)
    while newline >= 0:
        head = _HEAD.match(data, newline + 1)
        if head is not None:
            end = head.end() + int(head[1], 16)
            try:
                if data[end : end + 1] == b"\n":
                    yield json.loads(data[head.end() : end])
            except (ValueError, RecursionError):
                pass
        newline = data.find(b"\n", newline + 1)
