"""Which commits over several runs came to their end: a kill or a power cut may have left them in some of their journals only.

Of such a commit, the entries of all runs but the last name that last run, and count only if its entry is there and counts. Pure;
how a run's files are got at is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from .json_format import Entry
from .json_journal import Journal

Tie = tuple[str, str, int]
"""Names a commit over several runs: the last of them, the session of the store that made it, and its number in that session."""


def innermost_first(run_ids: Iterable[str], parents: Mapping[str, str | None]) -> list[str]:
    """The order in which a commit is written: the outermost run, whose entry makes the others count, is the last."""
    return sorted(run_ids, key=lambda run_id: len(ancestors(run_id, parents)), reverse=True)


def ancestors(run_id: str, parents: Mapping[str, str | None]) -> list[str]:
    """The runs of which a run is a subflow's, as far as `parents` tells."""
    found: list[str] = []
    parent = parents.get(run_id)
    while parent is not None and len(found) < len(parents):  # what people save may name itself as its parent
        found.append(parent)
        parent = parents.get(parent)
    return found


def tie(entries: Sequence[Entry], name: Tie) -> None:
    """Make one commit of entries, whose last one is of the last run.

    A session's numbers grow, and no two sessions share a name: so whatever is written to that run later cannot be taken for the
    end of a commit that was cut short.
    """
    *others, last = entries
    for entry in others:
        entry["with"] = name
    last["commit"] = name[1:]


def ties_of(entries: Iterable[Entry]) -> Iterator[Tie]:
    """The commits that end in other runs' journals."""
    for entry in entries:
        if "with" in entry:
            last, session, number = entry["with"]
            yield last, session, number


def commits_of(entries: Iterable[Entry]) -> dict[str, int]:
    """The last commit that ends in one of these entries, for each session."""
    return dict(entry["commit"] for entry in entries if "commit" in entry)


class Ties:
    """What is known of such commits.

    Args:
        journal: the journal of a run, as it is at the moment.
        folded: the commits that a run's readable file says have ended in it; asked after the journal, which may just be folded.
    """

    def __init__(self, journal: Callable[[str], Journal], folded: Callable[[str], Mapping[str, int]]) -> None:
        self._journal = journal
        self._folded = folded
        self._complete: dict[tuple[str, str], int] = {}
        """The last commit known to be complete of each last run and session. Those before it, in the same journal, are so too."""

    def __repr__(self) -> str:
        return f"<Ties, {len(self._complete)} known>"

    def ended(self, name: Tie) -> None:
        """A commit has come to its end."""
        last, session, number = name
        self._complete[last, session] = max(number, self._complete.get((last, session), 0))

    def counting(self, entries: Sequence[Entry]) -> int:
        """How many entries of a journal count: those before the first that belongs to a commit which did not come to its end.

        Not only the last one may: after a power cut, one journal may have lost its latest lines while another has kept them.

        Raises:
            StoreError: a journal that tells cannot be read.
        """
        for count, entry in enumerate(entries):
            if not all(self.is_complete(name) for name in ties_of([entry])):
                return count
        return len(entries)

    def is_complete(self, name: Tie) -> bool:
        """Whether a commit came to its end.

        A commit that another process is just writing has not, so its runs read as they were before it.
        """
        journals: dict[str, Journal] = {}
        cut_short: set[Tie] = set()
        waiting = [name]
        while waiting:
            verdict = self._judge(waiting[-1], journals, cut_short)
            if isinstance(verdict, tuple):
                if verdict in waiting:  # commits that wait for each other, which no store writes
                    cut_short.add(verdict)
                waiting.append(verdict)
                continue
            if not verdict:
                cut_short.add(waiting[-1])
            waiting.pop()
        return name not in cut_short

    def _judge(self, name: Tie, journals: dict[str, Journal], cut_short: set[Tie]) -> bool | Tie:
        """Whether a commit came to its end, or another one on which that depends."""
        if name in cut_short:
            return False
        if self._is_known(name):
            return True
        last = name[0]
        journal = journals.get(last)
        if journal is None:
            journal = journals[last] = self._journal(last)
        in_doubt = self._learn(last, journal, cut_short)
        if not self._is_known(name):
            for session, number in self._folded(last).items():
                self.ended((last, session, number))
        if self._is_known(name):
            return True
        if in_doubt is None and journal.trouble is not None:
            raise journal.trouble
        return in_doubt or False

    def _learn(self, last: str, journal: Journal, cut_short: set[Tie]) -> Tie | None:
        """Note the commits that end in a run's journal, up to an entry that does not count, or that may not: its tie."""
        for entry in journal.entries:
            for name in ties_of([entry]):
                if not self._is_known(name):
                    return None if name in cut_short else name
            for session, number in commits_of([entry]).items():
                self.ended((last, session, number))
        return None

    def _is_known(self, name: Tie) -> bool:
        last, session, number = name
        return self._complete.get((last, session), 0) >= number
