"""One turn at driving a run: take it, load it, begin; at the end read off the result, or give it up.

All of it calls the store and may block, so it is meant for a thread. Must not know the loop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from .clock import Clock
from .definitions import FlowDefinition
from .errors import RunOwnedError, StoreError
from .events import Event
from .live_run import LiveRun
from .models import ExecutionState, NoteKind, WorkflowRun
from .records import Ask, Lease, NoteRecord
from .run_tree import RunTree
from .steps import Step
from .store import Store, outermost
from .views import TaskTable, workflow_run
from .who import this_process

_logger = logging.getLogger("night_batch.session")


@contextmanager
def claimed(store: Store, run_id: str) -> Iterator[Lease]:
    """Own a run, and the whole tree that it stands in, for the length of a block.

    Raises:
        RunNotFoundError, RunOwnedError: it cannot be owned.
    """
    lease = store.claim(outermost(store, run_id))
    try:
        yield lease
    finally:
        store.release(lease)


def heed_asks(store: Store, clock: Clock, lease: Lease) -> list[Event]:
    """Do what was asked of a run whose owner did not live to do it; what is to be told of that."""
    asked = getattr(store, "asked", None)  # a store of somebody's own may not know of asks
    if asked is None or not asked(lease.run_id):
        return []
    from .cancelling import heed  # late: few runs are cancelled

    return heed(store, clock, lease)


def forget_asks(store: Store, run_id: str, asks: Iterable[Ask] | None = None) -> None:
    """Forget what was asked of a run: these asks, which were heeded, or all of them, since it has ended."""
    forget = getattr(store, "forget_asks", None)
    if forget is not None:
        forget(run_id, asks)


class Session:
    """A run while it is driven from here.

    Args:
        store: where it is.
        definition: its flow.
        clock: the time.
        run_id: the run.
    """

    def __init__(self, store: Store, definition: FlowDefinition, clock: Clock, run_id: str) -> None:
        self._store = store
        self._definition = definition
        self._clock = clock
        self._run_id = run_id
        self.lease: Lease | None = None
        self._ended = threading.Event()
        self.root: LiveRun
        self.children: list[LiveRun] = []
        self.told: list[Event] = []
        """What was committed already, and is to be told."""
        self.heeded: list[Ask] = []
        """What was asked of the run while it was driven, and has been done."""
        self.step = Step()
        """How the run begins, or goes on; to be committed first."""

    def __repr__(self) -> str:
        return f"<Session of run {self._run_id!r}, {self.lease}>"

    def begin(self, adopt_graph: bool, retry: tuple[str, bool] | None = None) -> WorkflowRun | None:
        """Take the run and get everything ready; a run that has ended is given back instead, and not taken.

        Nothing is kept if `end` was called before or meanwhile: the event loop was closed, and nobody waits for this any more.

        Args:
            adopt_graph: take up the flow's graph where it is not the one that the run was made with.
            retry: a task to set back first, by its dotted path, and whether with all that is downstream of it.

        Raises:
            RunNotFoundError, RunMismatchError, RunOwnedError, GraphChangedError, StoreError: it cannot be driven from here.
            InvalidNameError, UnknownTaskError: there is no such task to set back.
        """
        if self._ended.is_set():
            return None
        if retry is None and self._has_ended():
            return self._store.load(self._run_id)
        self.lease = self._store.claim(outermost(self._store, self._run_id))
        if self._ended.is_set():
            self.end()
            return None
        self.told = heed_asks(self._store, self._clock, self.lease)
        if retry is None and self._has_ended():  # just before we took it, or by what was asked
            self.end()
            return self._store.load(self._run_id)
        tree = RunTree(self._store, self._definition, self._clock, self.lease, adopt_graph)
        self.root = tree.root(self._run_id)
        if retry is not None:
            task_id, downstream = retry
            self.told += tree.reset(self.root, (task_id,), downstream, release=False)
        self.children = tree.unfinished(self.root)
        run, now = self.root.run, self._clock.now()
        self.step.changes.note(NoteRecord(run.id, NoteKind.DRIVE, now, this_process(), state=run.state))
        self.root.machine.begin(self.step, now)
        return None

    def _has_ended(self) -> bool:
        run = self._store.read_run(self._run_id)
        return run.flow_name == self._definition.name and ExecutionState.is_terminal(run.state)

    def result(self) -> WorkflowRun:
        """The run as it was driven, and given up."""
        outermost_id = None if self.lease is None else self.lease.run_id
        self.end()
        if outermost_id == self._run_id:
            forget_asks(self._store, self._run_id)
        elif outermost_id is not None:
            self.told = self._heed_the_rest(outermost_id)
        codec = self._store.codec
        # Each task instance is made when it is looked at: of most runs, few are.
        outputs = self.root.outputs
        table = TaskTable(self.root.machine.tasks, codec, outputs.whole if outputs.any_gone else None, keep=True)
        return workflow_run(self.root.run, table, codec)

    def _heed_the_rest(self, run_id: str) -> list[Event]:
        """Do what was asked of the tree around a subflow's run that was driven alone: nobody else may come for that."""
        asked = getattr(self._store, "asked", None)
        if asked is None or not asked(run_id):
            return []
        try:
            with claimed(self._store, run_id) as lease:
                return heed_asks(self._store, self._clock, lease)
        except RunOwnedError:  # whoever has it does so
            return []

    def end(self) -> None:
        """Give the run up; a store that has done so with its last commit knows that there is nothing left to do."""
        self._ended.set()
        lease, self.lease = self.lease, None
        if lease is not None:
            if self.heeded:
                forget_asks(self._store, lease.run_id, self.heeded)
            try:
                self._store.release(lease)
            except StoreError as error:  # it is the second trouble, and the first one is on its way
                _logger.warning("run %r could not be given up: %s", self._run_id, error)
