"""Who owns which run of a JSON store: read from the run's files and written there, so that all processes go by the same.

Called under the folder's lock, but for what only looks. Must not know when anything reaches the disk.
"""

from __future__ import annotations

import time

from .errors import OwnershipLostError, RunNotFoundError, RunOwnedError
from .json_format import Ownership
from .json_reader import Reader
from .json_writer import Writer
from .owners import Owners
from .records import Lease, RunRecord


class Leases:
    """The leases that one store has, and what it can know of those of others.

    Args:
        owners: who there is.
        reader: reads the runs.
        writer: writes them.
    """

    def __init__(self, owners: Owners, reader: Reader, writer: Writer) -> None:
        self._owners = owners
        self._reader = reader
        self._writer = writer
        self._held: dict[str, Lease] = {}

    def __repr__(self) -> str:
        return f"<Leases of {self._reader.store}: {len(self._held)}>"

    def claim(self, run_id: str, force: bool) -> tuple[Lease, RunRecord]:
        """Take a run; see `Store.claim`."""
        run, content = self._reader.content(run_id)
        if not force:
            self.check_free(run_id, content.owner)
        lease = Lease(run_id, content.owner.epoch + 1)
        self._writer.write({run_id: {"owner": [self._owners.token, lease.epoch, _now()]}})
        self._held[run_id] = lease
        return lease, run

    def check_free(self, run_id: str, owner: Ownership) -> None:
        """Refuse a run that has a living owner. One that this store has given up, and could not write that, is free to it."""
        if owner.token is not None:
            mine = owner.token == self._owners.token
            if run_id in self._held if mine else self._owners.is_alive(owner.token):
                raise RunOwnedError(run_id, self._name_of(owner), owner.since)

    def living(self, run_id: str, owner: Ownership) -> str | None:
        """Who has a run and lives, in a few words, or None where nobody does."""
        if owner.token is None:
            return None
        if self._owners.is_mine(owner.token):
            return "this very process" if run_id in self._held else None
        return self._name_of(owner) or "somebody unknown" if self._owners.is_alive(owner.token) else None

    def forget(self, lease: Lease) -> bool:
        """Have a lease no more; whether this store had it."""
        had = self._held.get(lease.run_id) == lease
        if had:
            del self._held[lease.run_id]
        return had

    def give_up(self, lease: Lease) -> RunRecord | None:
        """Write that nobody has a run any more, unless it was lost; the run, if so."""
        try:
            run, content = self._reader.content(lease.run_id)
        except RunNotFoundError:
            return None
        if content.owner.epoch != lease.epoch:
            return None
        self._writer.write({lease.run_id: {"owner": self.nobody(lease)}})
        return run

    def nobody(self, lease: Lease) -> list[object]:
        """What is written as the owner of a run whose lease is given up."""
        return [None, lease.epoch, _now()]

    def check(self, lease: Lease | None) -> None:
        """Refuse who has lost a lease. The epoch that is stored can be another one only if somebody else wrote to the journal."""
        if lease is None:
            return
        name: str | None = None
        if self._held.get(lease.run_id) == lease:
            if self._writer.is_current(lease.run_id):
                return
            stored = self._reader.content(lease.run_id)[1].owner
            if stored.epoch == lease.epoch:
                self._writer.reopen(lease.run_id)
                return
            name = self._name_of(stored)
            self.forget(lease)
        raise OwnershipLostError(lease.run_id, name)

    def _name_of(self, owner: Ownership) -> str | None:
        known = self._owners.owner(owner.token) if owner.token is not None else None
        return str(known) if known is not None else None

    def close(self) -> None:
        """Own nothing any more: the runs are free, though it is not written that they are."""
        self._held.clear()
        self._owners.close()

    def after_fork(self) -> None:
        """In a forked child: what the parent owns is the parent's."""
        self._held.clear()
        self._owners.after_fork()


def _now() -> int:
    return time.time_ns() // 1000
