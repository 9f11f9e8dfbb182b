"""Reads runs from the folder of a JSON store: which files make up a run, which of their entries count, what is wrong with them.

Writes nothing and needs no lock: other threads and processes may write, fold and remove meanwhile. Must not know who owns a run.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from .errors import RunNotFoundError, StoreDamagedError, StoreError, StoreFormatError
from .file_system import FileSystem, regular_files, translated
from .json_format import VERSION, Content, Entry, file_stem, parse_folded, parse_head
from .json_journal import Journal, mark_of, parse_journal
from .json_ties import Ties
from .late_dataclass import dataclass
from .records import RunRecord

FOLDED, JOURNAL = ".json", ".journal"
KEPT = tuple(f".v{version}.bak" for version in range(1, VERSION))
"""Behind the name of a file of each earlier version, that of its copy."""
TEMPORARY = ".tmp"
"""Behind the name of a file, that of one which is to replace it."""
LEFT_BEHIND = (FOLDED + TEMPORARY, *(suffix + TEMPORARY for suffix in KEPT))

_PATIENCE = 20  # looks at a journal that seems damaged while somebody writes it
_logger = logging.getLogger("night_batch.json_store")


@dataclass(slots=True)
class Known:
    """What was read of a run, or written to it, so that it need not be read again where its files still say just that.

    That they do is not believed but seen: they are read, and compared by their lengths and checksums.
    """

    content: Content
    folded: tuple[int, int] | None
    """The length and the checksum of the readable file; None where there is none."""
    journal: tuple[int, int] = (0, 0)
    """The same of the journal."""

    def written(self, entry: Entry, data: bytes) -> None:
        """An entry was added to the journal; its text."""
        length, checksum = self.journal
        self.content.apply_written(entry)
        self.journal = length + len(data), zlib.crc32(data, checksum)


class Reader:
    """The runs in a folder.

    Args:
        folder: the folder; it may change at any moment.
        files: how files are read.
        store: what the store is called in errors.
    """

    def __init__(self, folder: Path, files: FileSystem, store: str) -> None:
        self.folder = folder
        self.store = store
        self._files = files
        self.ties = Ties(self._parsed_of, self._folded_commits)
        self._known: dict[str, Known] = {}
        """By the name of the run's files, those that are written from here."""
        self._last: tuple[str, Known, Journal] | None = None
        """The one with a journal that was read last: it may be just about to be written."""

    def __repr__(self) -> str:
        return f"<Reader of {self.store}>"

    def path(self, run_id: str, suffix: str) -> Path:
        """Where a file of a run is, or would be."""
        return self.folder / (file_stem(run_id) + suffix)

    # --- one run ---

    def content(self, run_id: str) -> tuple[RunRecord, Content]:
        """A run, and all that is stored of it.

        Raises:
            RunNotFoundError: there is no such run.
            StoreError: its files cannot be read.
        """
        content = self._content(file_stem(run_id)) if isinstance(run_id, str) else Content()
        run = content.run_record()
        if run is None or run.id != run_id:
            raise RunNotFoundError(run_id, self.store)
        return run, content

    def _content(self, stem: str) -> Content:
        content = self.known(stem)
        if content is None:
            if self._last is None or self._last[0] != stem or not self._says(stem, self._last[1]):
                self._last = None
                known, journal = self._read_whole(stem)
                if journal.entries and journal.length == known.journal[0]:
                    self._last = stem, known, journal.shortened()
                return known.content
            content = self._last[1].content
        return content

    def known(self, stem: str) -> Content | None:
        """What is known of the run whose files have that name, if it is what they say; not to be changed."""
        known = self._known.get(stem)
        return known.content if known is not None and self._says(stem, known) else None

    def _says(self, stem: str, known: Known) -> bool:
        """Whether the files of that name say what is known."""
        data = self._files.read(self.folder / (stem + FOLDED))
        if known.folded != (mark_of(data) if data is not None else None):
            return False
        return known.journal == mark_of(self._files.read(self.folder / (stem + JOURNAL)) or b"")

    def take(self, run_id: str) -> tuple[Known, Journal]:
        """What the files of a run say, for who is about to write it; read only if they have changed since it was read last."""
        stem = file_stem(run_id)
        last, self._last = self._last, None
        if last is not None and last[0] == stem and self._says(stem, last[1]):
            return last[1], last[2]
        return self._read_whole(stem)

    def keep(self, run_id: str, known: Known) -> None:
        """Know a run from now on; who writes it keeps that up to date."""
        self._known[file_stem(run_id)] = known

    def forget(self, run_id: str) -> None:
        """Know a run no more."""
        stem = file_stem(run_id)
        self._known.pop(stem, None)
        if self._last is not None and self._last[0] == stem:
            self._last = None

    def forget_all(self) -> None:
        """Know none any more."""
        self._known.clear()
        self._last = None

    def read(self, stem: str) -> tuple[Content, Journal]:
        """What the files of that name hold, with the journal of what came after the last fold. An empty content is no run."""
        known, journal = self._read_whole(stem)
        return known.content, journal

    def _read_whole(self, stem: str) -> tuple[Known, Journal]:
        path, journal = self.folder / (stem + FOLDED), self.folder / (stem + JOURNAL)
        patience = _PATIENCE
        while True:
            before = self._files.identity(path), self._files.identity(journal)
            try:
                found = self._read(stem)
            except StoreDamagedError:
                # Perhaps only half seen, while another process wrote it.
                patience -= 1
                if not patience or before == (self._files.identity(path), self._files.identity(journal)):
                    raise
            else:
                if self._files.identity(path) == before[0]:  # or it was folded after one look and before the other
                    return found

    def _read(self, stem: str) -> tuple[Known, Journal]:
        data = self._files.read(self.folder / (stem + FOLDED))
        content = parse_folded(data, stem + FOLDED, self.store) if data is not None else Content()
        journal = self.journal(stem, content.folds if data is not None else None)
        try:
            for entry in journal.entries:
                content.apply(entry, journal.version)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreDamagedError(self.store, f"{stem}.journal is damaged ({type(error).__name__}: {error})") from error
        if content.run is not None:
            self._check_place(content.run.id, stem)
        if journal.entries and "id" in journal.entries[0]:
            self._check_place(journal.entries[0]["id"], stem)
        return Known(content, mark_of(data) if data is not None else None, journal.mark), journal

    def _check_place(self, run_id: str, stem: str) -> None:
        """Refuse a file that somebody copied or renamed: it would pass for another run, or stand in the way of its own."""
        if file_stem(run_id) != stem:
            raise StoreFormatError(
                self.store, f"{stem}.json holds run {run_id!r}, whose file is {file_stem(run_id)}.json; move it away"
            )

    def journal(self, stem: str, folds: int | None) -> Journal:
        """The journal of that name, as far as its entries count.

        Args:
            stem: the name.
            folds: how many journals were folded into the readable file; None where there is none.
        """
        journal = self._parsed(stem)
        if journal.entries and journal.after < (folds or 0):
            return Journal()  # it was folded, and its removal was cut short; so this may even be an older state of it
        if journal.trouble is not None:
            raise journal.trouble
        journal.keep(self.ties.counting(journal.entries))
        if journal.after > (folds or 0) or (journal.entries and folds is None and "order" not in journal.entries[0]):
            raise StoreDamagedError(
                self.store, f"{stem}.journal goes on from a {stem}.json that is not there any more; restore a backup"
            )
        return journal

    def folds(self, stem: str) -> int | None:
        """How many journals were folded into the readable file of that name; None where there is none."""
        name = stem + FOLDED
        data = self._files.read(self.folder / name, lines=2)
        if data is None:
            return None
        try:
            return parse_head(data, name, self.store).folds
        except StoreError:  # see `_head`
            return parse_folded(self._files.read(self.folder / name) or b"", name, self.store).folds

    def _parsed(self, stem: str) -> Journal:
        return parse_journal(self._files.read(self.folder / (stem + JOURNAL)) or b"", stem + JOURNAL, self.store)

    def _parsed_of(self, run_id: str) -> Journal:
        return self._parsed(file_stem(run_id))

    def _folded_commits(self, run_id: str) -> Mapping[str, int]:
        path = self.path(run_id, FOLDED)
        data = self._files.read(path)
        return parse_folded(data, path.name, self.store).commits if data is not None else {}

    # --- all runs ---

    def runs(self, parent_run_id: str | None = None) -> list[RunRecord]:
        """All runs, or those of one parent, newest first. What cannot be read is left out, with a warning: it hides no other."""
        found: dict[str, tuple[int, int, RunRecord]] = {}
        names = {path.name for path in self.folder.iterdir()}
        for stem, suffix in run_files(names):
            try:
                with translated(self.store):
                    only_folded = suffix == FOLDED and stem + JOURNAL not in names
                    content = self._head(stem) if only_folded else self.known(stem) or self.read(stem)[0]
            except StoreError as error:
                _logger.warning("left out of the list of runs: %s", error)
                continue
            run = content.run_record()
            if run is not None and (parent_run_id is None or run.parent_run_id == parent_run_id):
                found[run.id] = (run.created, content.order, run)
        return [row[2] for row in sorted(found.values(), key=lambda row: row[:2], reverse=True)]

    def _head(self, stem: str) -> Content:
        """What the first lines of a folded file tell of its run."""
        data = self._files.read(self.folder / (stem + FOLDED), lines=2)
        if data is None:  # removed a moment ago
            return Content()
        try:
            content = parse_head(data, stem + FOLDED, self.store)
        except StoreError:  # perhaps only an editor has laid the lines out anew: the whole file tells
            return self.read(stem)[0]
        if content.run is not None:
            self._check_place(content.run.id, stem)
        return content

    # --- what is wrong ---

    def problems(self) -> Iterator[str]:
        """What is wrong with the files that are there, and with how runs refer to each other; a sentence each."""
        names = regular_files(self.folder)
        there: set[str] = set()
        wanted: list[tuple[str, str]] = []
        for stem, _ in run_files(names):
            there.add(stem)
            try:
                with translated(self.store):
                    content = self.read(stem)[0]
            except StoreError as error:
                yield str(error)
            else:
                if content.run is not None:
                    wanted.extend(_children(content.run.id, content))
                else:
                    there.discard(stem)
        for run_id, problem in wanted:
            if file_stem(run_id) not in there:
                yield f"{self.store}: {problem}, which is not there"
        for name in names:
            if not name.endswith((FOLDED, JOURNAL, *KEPT, *LEFT_BEHIND)) and not name.startswith((".lock", ".owner-", ".asks-")):
                yield f"{self.store}: {name} is no file of this store"


def _children(run_id: str, content: Content) -> Iterator[tuple[str, str]]:
    """The runs that a run's tasks have made, and a sentence's beginning about each."""
    for task in content.task_records():
        if task.child_run_id is not None:
            yield task.child_run_id, f"task {task.task_id!r} of run {run_id!r} has made run {task.child_run_id!r}"


def run_files(names: Collection[str]) -> Iterator[tuple[str, str]]:
    """The stem and the suffix of each run among the files of those names; of a run with two, the readable one's."""
    stems: set[str] = set()
    for suffix in (FOLDED, JOURNAL):
        for name in sorted(names):
            stem = name.removesuffix(suffix)
            if stem != name and stem not in stems:
                stems.add(stem)
                yield stem, suffix
