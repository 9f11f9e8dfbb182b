"""What becomes of a flow's runs: made, driven to their ends, set back.

Knows the rooms that do so, and which one comes when; must not know how a flow is declared, or who waits for a run.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from .clock import Clock
from .definitions import FlowDefinition, check_name
from .errors import RunExistsError, RunNotFoundError
from .event_manager import Audience
from .events import Event
from .live_run import LiveRun, encode_params, new_run
from .models import WorkflowRun
from .off_loop import Worker
from .run_tree import RunTree
from .runner import Runner
from .session import Session, claimed, heed_asks
from .steps import Step
from .store import Store
from .task_options import USUAL, Capacities


class Runs:
    """The runs of one flow in one store.

    Args:
        definition: the flow; its graph is sound.
        store: where the runs are.
        clock: the time.
        make_id: makes the ids of runs.
        worker: where calls of the store that may block are made.
        events: who is told.
        capacities: how much of the machine a drive may use.
    """

    runner: ClassVar[type[Runner]] = Runner
    """What drives one of them. The testing helpers have another."""

    def __init__(
        self,
        definition: FlowDefinition,
        store: Store,
        clock: Clock,
        make_id: Callable[[], str],
        worker: Worker,
        events: Audience,
        capacities: Capacities = USUAL,
    ) -> None:
        self._definition = definition
        self._store = store
        self._clock = clock
        self._make_id = make_id
        self._worker = worker
        self._events = events
        self._capacities = capacities

    def __repr__(self) -> str:
        return f"<Runs of {self._definition.name!r} in {self._store!r}>"

    def make(
        self, params: Mapping[str, Any] | None, parent_run_id: str | None, parent_task_id: str | None, run_id: str | None
    ) -> str:
        """See `AsyncFlow.init_run`."""
        texts = encode_params(params, self._store.codec)
        new_id = self._make_id() if run_id is None else check_name("run id", run_id)
        self._make(new_id, texts, parent_run_id, parent_task_id, known=run_id is not None)
        return new_id

    def make_soon(
        self, params: Mapping[str, Any] | None, run_id: str | None
    ) -> tuple[str, Callable[[], Coroutine[Any, Any, None]]]:
        """The id of a run, and what makes it, in the worker's thread: of params as they are now, and can be stored."""
        texts = encode_params(params, self._store.codec)
        new_id = self._make_id() if run_id is None else check_name("run id", run_id)
        make = partial(self._make, new_id, texts, None, None, known=run_id is not None)
        return new_id, partial(self._worker.do, make)

    def _make(
        self, new_id: str, texts: Mapping[str, str], parent_run_id: str | None, parent_task_id: str | None, known: bool
    ) -> None:
        """Make a run; of an id that somebody else knows, there may be one."""
        if known and self._has(new_id):
            return
        step = Step()
        new_run(step, self._definition, new_id, texts, self._clock.now(), parent_run_id, parent_task_id)
        try:
            self._store.commit(step.changes)
        except RunExistsError:
            if not known or not self._has(new_id):
                raise

    def _has(self, run_id: str) -> bool:
        try:
            run = self._store.read_run(run_id)
        except RunNotFoundError:
            return False
        if run.flow_name != self._definition.name:
            raise RunExistsError(run_id, run.flow_name, self._definition.name)
        return True

    async def drive(
        self,
        run_id: str,
        max_concurrency: int,
        adopt_graph: bool,
        retry: tuple[str, bool] | None,
        show: Callable[[Mapping[str, LiveRun]], object] | None = None,
    ) -> WorkflowRun:
        """Take a run, drive it, and give it up, whatever happens; see `AsyncFlow.run_until_complete`, and `Session.begin`.

        `show` is handed the runs that are in memory meanwhile, for those who look at them.
        """
        session = Session(self._store, self._definition, self._clock, run_id)
        worker = self._worker
        try:
            try:
                finished = await worker.do(partial(session.begin, adopt_graph, retry))
            finally:
                self._events.emit(session.told)  # the reset, which was committed even if the run cannot be driven on
            if finished is not None:
                return finished
            assert session.lease is not None
            runner = self.runner(
                self._store, session.lease, worker, self._events, self._clock, self._make_id, self._capacities, max_concurrency
            )
            session.heeded = runner.heeded
            if show is not None:
                show(runner.runs)
            await runner.drive(session.root, session.children, session.step)
            try:
                session.told = []
                return await worker.do(session.result)
            finally:
                self._events.emit(session.told)
        except GeneratorExit:  # the loop was closed under us, so nothing can be awaited any more
            session.end()
            raise
        except BaseException:
            await worker.do(session.end)
            raise

    def set_back(self, run_id: str, task_ids: Sequence[str], downstream: bool, adopt_graph: bool) -> None:
        """See `AsyncFlow.manual_retry`. What all of them change is one commit: where one cannot be set back, none is."""
        told: list[Event] = []
        try:
            with claimed(self._store, run_id) as lease:
                told += heed_asks(self._store, self._clock, lease)
                tree = RunTree(self._store, self._definition, self._clock, lease, adopt_graph)
                told += tree.reset(tree.root(run_id), task_ids, downstream, release=True)
        finally:
            self._events.emit(told)

    def cancel(self, run_id: str, task_path: str | None) -> bool:
        """Cancel a run, or a task of it; see `cancelling.cancel`. Whether anything was cancelled, or asked of its owner."""
        from .cancelling import cancel  # late: few runs are cancelled

        done, told = cancel(self._store, self._clock, self._definition.name, run_id, task_path)
        self._events.emit(told)
        return done

    async def cancel_soon(self, run_id: str) -> bool:
        """Cancel a run; the store is asked in the worker's thread."""
        from .cancelling import cancel  # late: few runs are cancelled

        done, told = await self._worker.do(partial(cancel, self._store, self._clock, self._definition.name, run_id, None))
        self._events.emit(told)
        return done
