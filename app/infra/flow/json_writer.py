"""Writes runs into the folder of a JSON store, so that a kill or a power cut at any point leaves whole commits and whole runs.

Called by one thread at a time and, but for `sync`, under the folder's lock. Must not know who owns a run, or when it is time to
flush or fold.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from .errors import RunNotFoundError, StoreDamagedError
from .file_system import FileSystem
from .json_folded import folded
from .json_format import GRAPH, VERSION, Content, Entry, file_stem
from .json_journal import Journal, line, mark_of, new_journal
from .json_reader import FOLDED, JOURNAL, KEPT, TEMPORARY, Known, Reader
from .json_ties import Tie, ancestors, commits_of, tie, ties_of
from .late_dataclass import dataclass

OPEN_JOURNALS = 64
"""How many journals are kept open at most."""


@dataclass(slots=True)
class _OpenJournal:
    path: Path
    descriptor: int
    file: int
    """Which file it is, whatever becomes of its name."""
    length: int = 0
    checksum: int = 0
    after: int = 0
    """How many journals of the run were folded before it."""
    synced: int = 0
    """How much of it is on the disk, as far as is known here."""
    told: int = 0
    """The same as its last line says."""
    ties: set[Tie] = field(default_factory=set[Tie])
    """The commits over several runs that ended in other journals: without their ends, nothing behind them counts."""
    graph: str | None = None
    """The run's graph, where it was written from here: each change of a run need not write it again."""
    known: Known | None = None
    """What it and the readable file say."""


class Writer:
    """Journals that are open to be written.

    Args:
        reader: what is there already.
        files: how files are written.
    """

    def __init__(self, reader: Reader, files: FileSystem) -> None:
        self._reader = reader
        self._files = files
        self._journals: OrderedDict[str, _OpenJournal] = OrderedDict()
        """The least recently used first."""
        self._looked_at: set[str] = set()
        """Those of which it is known, while the folder's lock is held, that they are as we left them."""
        self.unsynced: dict[str, None] = {}
        """Runs with commits that may not have reached the disk, in the order in which they were first touched."""
        self._names_unsynced = False
        self._tied: set[str] = set()
        """Runs that have taken part in commits over several runs."""
        self.suspect = False
        """A flush has failed. What it left behind is unknown, whatever a second one says: only a new file can tell."""
        self._pending_ties: dict[tuple[str, str], int] = {}
        """Of each last run and session, the latest commit over several runs that ended here, and is not flushed yet."""
        self._durable_ties: dict[tuple[str, str], int] = {}
        """The same of those whose ends are on the disk, whoever made them."""
        self._relied_on: set[Tie] = set()
        """Commits of other processes that make entries of our journals count, and that these may not have flushed."""
        self.new_session()

    def __repr__(self) -> str:
        return f"<Writer of {self._reader.store}, {len(self._journals)} journals open>"

    def new_session(self) -> None:
        """Name the commits over several runs anew: nobody else's go by this name, nor those before one that failed."""
        self._session = os.urandom(8).hex()
        self._number = 0

    def begin(self) -> None:
        """To be called whenever the folder's lock was taken: before that, anybody may have written."""
        self._looked_at.clear()

    def close(self) -> None:
        """Give up all descriptors; what is unsynced stays so."""
        while self._journals:
            self._close_oldest()
        self._reader.forget_all()

    def after_fork(self) -> None:
        """In a forked child: what the parent wrote is the parent's to flush."""
        self.close()
        self.unsynced.clear()
        self._pending_ties.clear()
        self._relied_on.clear()
        self._names_unsynced = self.suspect = False

    # --- commits ---

    def write(self, entries: Mapping[str, Entry]) -> None:
        """Add an entry to the journal of each run, all of them or none; those with an "order" are new runs.

        The last one makes the others count. So they, and what they rely on, have to be on the disk before it is written: after a
        power cut, it must not be there without them.

        Args:
            entries: by run, the outermost run's last.

        Raises:
            RunNotFoundError: a run that is not new is not there.
            StoreError, OSError: it could not be written, and was taken back.
        """
        *others, last = entries
        name: Tie = (last, self._session, self._number + 1)
        if others:
            self._number += 1
            tie(list(entries.values()), name)
        lengths: dict[str, int | None] = {}
        try:
            for run_id in (last, *others):
                if "order" in entries[run_id]:
                    self._create(run_id)
                    lengths[run_id] = None
            for run_id in others:
                ties = self._append(run_id, entries[run_id], lengths)
                self._sync_journal(run_id)
                # Those that end in journals of this commit are on the disk before it is, or go with it.
                self._secure(name for name in ties if name[0] not in entries)
            if others:
                self.sync_names()
                self._flushed(others)
            self._append(last, entries[last], lengths)
        except BaseException:
            self._take_back([(run_id, lengths[run_id]) for run_id in (last, *reversed(others)) if run_id in lengths])
            raise
        if others:
            self._tied.update(entries)
            self._pending_ties[last, self._session] = self._number
            self._reader.ties.ended(name)

    def _create(self, run_id: str) -> None:
        path = self._reader.path(run_id, JOURNAL)
        descriptor = self._files.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        known = Known(Content(), None)
        self._keep(run_id, _OpenJournal(path, descriptor, self._files.status(descriptor)[0], known=known))
        self._reader.keep(run_id, known)
        self._names_unsynced = True

    def _append(self, run_id: str, entry: Entry, lengths: dict[str, int | None]) -> set[Tie]:
        """Write an entry; what those before it rely on is returned."""
        journal = self._journal(run_id, is_new=run_id in lengths)
        lengths.setdefault(run_id, journal.length)
        if journal.length == 0:
            entry = {**new_journal(run_id, journal.after), **entry}
        if journal.synced > journal.told:
            entry["synced"] = journal.told = journal.synced
        row = entry.get("run")
        if row is not None:
            if row[GRAPH] == journal.graph:
                row[GRAPH] = None
            else:
                journal.graph = row[GRAPH]
        data, checksum = line(entry, journal.checksum)
        self.unsynced[run_id] = None
        self._files.write(journal.descriptor, data, journal.length)
        journal.length += len(data)
        journal.checksum = checksum
        if "with" in entry:
            journal.ties.update(ties_of([entry]))
        if journal.known is not None:
            journal.known.written(entry, data)
        return journal.ties

    def _take_back(self, lengths: Sequence[tuple[str, int | None]]) -> None:
        """Cut off what a failed commit wrote: nothing half done stays behind.

        Args:
            lengths: how long the journals were before, None where there was none; the one that makes the others count comes
                first, so that these count for nothing however far this comes.
        """
        self.new_session()
        for run_id, _ in lengths:
            self._let_go(run_id)
        for run_id, length in lengths:
            path = self._reader.path(run_id, JOURNAL)
            try:
                if length is None:
                    self._files.unlink(path)
                else:
                    self._cut(path, length)
            except OSError:
                return  # the commit's own error says enough; what is left is cut off when the journal is next opened

    def _cut(self, path: Path, length: int) -> None:
        descriptor = self._files.open(path)
        try:
            self._cut_open(descriptor, length)
        finally:
            self._files.close(descriptor)

    def _cut_open(self, descriptor: int, length: int) -> None:
        """Cut off a journal, on the disk as well: after a power cut, new lines must not stand among what is left of old ones."""
        self._files.truncate(descriptor, length)
        self._sync(descriptor)

    # --- open journals ---

    def is_current(self, run_id: str) -> bool:
        """Whether a journal is open, and nobody else has written or folded it since it was."""
        journal = self._journals.get(run_id)
        if journal is None:
            return False
        if run_id in self._looked_at:
            return True
        found = self._files.identity(journal.path)
        if found is not None and found[0] == journal.file and found[2] == journal.length:
            self._journals.move_to_end(run_id)
            self._looked_at.add(run_id)
            return True
        # It was folded away or moved, so nobody reads what is written there; or somebody wrote to it, and may have been killed.
        self._let_go(run_id)
        return False

    def reopen(self, run_id: str) -> None:
        """Make a journal current, if there is one."""
        if self._files.identity(self._reader.path(run_id, JOURNAL)) is not None:
            self._open(run_id, is_new=False)

    def _journal(self, run_id: str, is_new: bool) -> _OpenJournal:
        return self._journals[run_id] if self.is_current(run_id) else self._open(run_id, is_new)

    def _open(self, run_id: str, is_new: bool) -> _OpenJournal:
        """Open the journal of a run at its end, cut back to the last entry that counts if a kill left more."""
        kept, known = self._reader.take(run_id)
        if known.entries and known.version < VERSION:
            self._fold(run_id)
            kept, known = self._reader.take(run_id)
        if kept.content.run is None and not known.entries and not is_new:
            raise RunNotFoundError(run_id, self._reader.store)
        path = self._reader.path(run_id, JOURNAL)
        if known.length == 0:
            self._remove_journal(path)  # nothing in it counts; cut off where it is, it could lose its beginning, which says so
        descriptor = self._files.open(path, os.O_RDWR | os.O_CREAT)
        try:
            file, _, length = self._files.status(descriptor)
            if length > known.length:
                self._cut_open(descriptor, known.length)
            if kept.journal[0] != known.length:
                kept.journal = mark_of((self._files.read(path) or b"")[: known.length])
        except BaseException:
            self._files.close(descriptor)
            raise
        self._names_unsynced = True  # whoever made it may have been killed before that was on the disk
        ties = set(ties_of(known.entries))
        self._relied_on.update(name for name in ties if self._pending_ties.get(name[:2], 0) < name[2])
        opened = _OpenJournal(
            path, descriptor, file, known.length, known.checksum, after=kept.content.folds, ties=ties, known=kept
        )
        self._reader.keep(run_id, kept)
        return self._keep(run_id, opened)

    def _state(self, run_id: str) -> tuple[int | None, Journal]:
        """How many journals of a run were folded, None where there is no readable file; and the one that goes on from there."""
        stem = file_stem(run_id)
        folds = self._reader.folds(stem)
        return folds, self._reader.journal(stem, folds)

    def _keep(self, run_id: str, journal: _OpenJournal) -> _OpenJournal:
        self._journals[run_id] = journal
        if len(self._journals) > OPEN_JOURNALS:
            self._close_oldest()
        return journal

    def _close_oldest(self) -> None:
        self._let_go(next(iter(self._journals)))

    def _let_go(self, run_id: str) -> None:
        journal = self._journals.pop(run_id, None)
        if journal is not None:
            self._reader.forget(run_id)
            self._files.close(journal.descriptor)

    def forget(self, run_id: str, parents: Mapping[str, str | None]) -> None:
        """Keep no longer in memory what a run and the runs of its subflows consist of: nobody here writes them now."""
        for name, journal in self._journals.items():
            if name == run_id or run_id in ancestors(name, parents):
                journal.known = None
                self._reader.forget(name)

    # --- the disk ---

    def sync(self, besides: Collection[str] = ()) -> None:
        """Bring all commits so far to the disk, but for those of some runs that are about to be folded. Needs no lock."""
        unsynced = [run_id for run_id in self.unsynced if run_id not in besides]
        for run_id in unsynced:
            self._sync_journal(run_id)
        self._secure(self._relied_on)
        self.sync_names()
        self._flushed(unsynced)
        self._relied_on.clear()
        self._durable_ties.update(self._pending_ties)
        self._pending_ties.clear()

    def untied(self, run_ids: Iterable[str]) -> list[str]:
        """Those whose folds make nothing else count: what they are folded from need not reach the disk first."""
        return [run_id for run_id in run_ids if run_id not in self._tied]

    def _sync_journal(self, run_id: str) -> None:
        path, journal = self._reader.path(run_id, JOURNAL), self._journals.get(run_id)
        if journal is not None:
            found = self._files.identity(path)
            if found is not None and found[0] == journal.file:
                self._sync(journal.descriptor)
                journal.synced = journal.length
                return
        try:
            descriptor = self._files.open(path)
        except FileNotFoundError:  # it was folded by another process, which is as good
            return
        try:
            self._sync(descriptor)
        finally:
            self._files.close(descriptor)

    def _flushed(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            self.unsynced.pop(run_id, None)

    def _sync(self, descriptor: int) -> None:
        try:
            self._files.sync(descriptor)
        except OSError:
            self.suspect = True
            raise

    def sync_names(self) -> None:
        """Bring to the disk which files there are."""
        if self._names_unsynced:
            try:
                self._files.sync_folder(self._reader.folder)
            except OSError:
                self.suspect = True
                raise
            self._names_unsynced = False

    def recover(self, run_ids: Iterable[str]) -> None:
        """After a failed flush: write what may not be on the disk to new files.

        Args:
            run_ids: the runs in `unsynced`, the outermost first, since it is they that make commits count.
        """
        for run_id in run_ids:
            self.fold([run_id])
            self.unsynced.pop(run_id, None)
        self.suspect = False

    # --- folding ---

    def fold(self, run_ids: Iterable[str]) -> dict[str, StoreDamagedError]:
        """Replace the readable files of runs by ones that hold all, each atomically; only then let go of their journals.

        Returns:
            What is wrong with those that are damaged. They are left as they are, and keep nobody from folding the others.
        """
        damaged: dict[str, StoreDamagedError] = {}
        done: list[str] = []
        for run_id in run_ids:
            try:
                content, ties, journal_version = self._to_fold(run_id)
            except StoreDamagedError as error:
                damaged[run_id] = error
                self._let_go(run_id)  # whoever writes next has to read first, and is told
                continue
            if content.run is not None:  # else it was removed by another process
                self._secure(ties)
                if content.version < VERSION:
                    self._keep_copy(self._reader.path(run_id, FOLDED), content.version)
                if journal_version < VERSION:
                    self._keep_copy(self._reader.path(run_id, JOURNAL), journal_version)
                self._replace(self._reader.path(run_id, FOLDED), folded(content))
            done.append(run_id)
        if done:
            self._names_unsynced = True
            self.sync_names()
        for run_id in done:
            self._let_go(run_id)
            self._remove_journal(self._reader.path(run_id, JOURNAL))
            self.unsynced.pop(run_id, None)
            self._tied.discard(run_id)
        return damaged

    def _remove_journal(self, path: Path) -> None:
        try:
            self._files.unlink(path)
        except PermissionError:
            if os.name != "nt":  # there, a file that another process has open cannot be removed; nobody reads it any more
                raise

    def _to_fold(self, run_id: str) -> tuple[Content, Collection[Tie], int]:
        """All that there is of a run, the commits that its journal relies on, and the journal's version."""
        stem, journal = file_stem(run_id), self._journals.get(run_id)
        content = self._reader.known(stem)
        if content is not None and journal is not None:
            return content, journal.ties, VERSION
        content, found = self._reader.read(stem)
        return content, list(ties_of(found.entries)), found.version if found.entries else VERSION

    def _fold(self, run_id: str) -> None:
        for error in self.fold([run_id]).values():
            raise error

    def _replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(path.name + TEMPORARY)
        self._files.unlink(temporary)
        try:
            self._files.create(temporary, data, sync=True)
            self._files.replace(temporary, path)
        except BaseException:
            self._files.unlink(temporary)
            raise

    def _keep_copy(self, path: Path, version: int) -> None:
        """Keep a file of an earlier version as it is before it is rewritten, on the disk; an earlier copy is the better one."""
        copy = path.with_name(path.name + KEPT[version - 1])
        if self._files.identity(copy) is None:
            data = self._files.read(path)
            assert data is not None
            self._replace(copy, data)
            self._names_unsynced = True
            self.sync_names()

    def _secure(self, names: Iterable[Tie]) -> None:
        """Bring to the disk the ends of commits over several runs, and what these rely on, which nobody may have flushed."""
        waiting = list(names)
        secured: dict[tuple[str, str], int] = {}
        while waiting:
            last, session, number = waiting.pop()
            if max(self._durable_ties.get((last, session), 0), secured.get((last, session), 0)) < number:
                _, journal = self._state(last)
                self._sync_journal(last)
                secured[last, session] = number
                secured.update(((last, ended), count) for ended, count in commits_of(journal.entries).items())
                waiting.extend(ties_of(journal.entries))
        if secured:  # the names of their journals, too
            self._names_unsynced = True
            self.sync_names()
            self._durable_ties.update(secured)

    # --- removal ---

    def remove(self, levels: Sequence[Sequence[str]], beside: Iterable[str]) -> None:
        """Remove runs with all their files. A kill at any point leaves each of them whole or gone, and none without its parent.

        Args:
            levels: the runs; those of subflows before those that they are of.
            beside: runs, of these or others, whose journals may say that entries count because of ones that go, and not as those
                of a subflow, which goes first. They are to count without them.
        """
        self.fold(run_id for run_id in beside if self._files.identity(self._reader.path(run_id, JOURNAL)) is not None)
        for run_id in (run_id for level in levels for run_id in level):
            self._make_one_file(run_id)
        self._names_unsynced = True  # a fold leaves it open when its journal is gone
        for level in levels:
            self.sync_names()
            for run_id in level:
                self._let_go(run_id)
                for suffix in (*(name + kept for name in (FOLDED, JOURNAL) for kept in KEPT), FOLDED, JOURNAL):
                    self._names_unsynced |= self._files.unlink(self._reader.path(run_id, suffix))
                self.unsynced.pop(run_id, None)

    def _make_one_file(self, run_id: str) -> None:
        """Leave only one file whose removal is the run's."""
        folds, journal = self._state(run_id)
        if folds is None:
            return
        if any(entry.keys() - {"format", "version", "id", "after", "owner", "synced"} for entry in journal.entries):
            self._fold(run_id)
        else:
            self._let_go(run_id)
            self._files.unlink(self._reader.path(run_id, JOURNAL))

    def clear(self, run_id: str) -> bool:
        """Make room for a new run, where a kill has left a journal of which nothing counts; whether there is room."""
        folds, journal = self._state(run_id)
        if folds is not None or journal.entries:
            return False
        self._let_go(run_id)
        self._files.unlink(self._reader.path(run_id, JOURNAL))
        return True
