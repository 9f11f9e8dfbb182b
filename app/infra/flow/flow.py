"""AsyncFlow: where a flow is declared, and from where its runs are made, driven, continued and retried.

The one shell: it checks what it is given, and hands it on to the rooms that know how.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .cancellation import within
from .clock import Clock, SystemClock
from .declaring import Declared
from .definitions import check_name, flow_definition
from .drawn import Drawn
from .drives import Drives
from .errors import InvalidOptionError, RunActiveError, RunTimeoutError
from .event_manager import EventManager, Followers, RunAudience
from .forks import watch
from .models import WorkflowRun
from .off_loop import Worker
from .redaction import Redact
from .store import Store, outermost
from .task_options import GRACE_PERIOD, MAX_THREADS, ExecutorChoice, SubmitsWork, capacities, span

if TYPE_CHECKING:
    from .events import Event
    from .explaining import Explanation
    from .handles import RunHandle
    from .planning import Plan
    from .progress import RunProgress
    from .resuming import ResumedRuns
    from .runs import Runs

E = TypeVar("E", bound="Event")

_DRIVES = Drives()
_FOLLOWERS = Followers()
watch(_DRIVES)
watch(_FOLLOWERS)


def _random_id() -> str:
    return os.urandom(16).hex()


def _in_memory() -> Store:
    from .memory_store import MemoryStore  # late: most flows are given a store

    return MemoryStore()


def _checked(store: Store) -> Store:
    # By what the engine calls first, not by isinstance: that would refuse a store in a wrapper, which hands on what it is asked.
    if isinstance(store, type) or not all(hasattr(store, name) for name in ("commit", "read_run", "codec")):
        raise InvalidOptionError("store", store, 'a store, such as SQLiteStore("workflows.db")')
    return store


class AsyncFlow(Drawn, Declared):
    """A flow: a name, and tasks that depend on one another.

    Args:
        flow_name: stored with each run, which only a flow of the same name can continue.
        store: where the runs live; a `MemoryStore` of its own if none is given.
        clock: the time; tests bring one that does not take any.
        make_id: makes run ids that were not given; random ones by default.
        redact: takes a text and gives it back without its secrets. All that is kept or told of a failure goes through it
            (message, traceback, reason), and so do reasons of `SkipTask`, the lines of `ctx.log` and the texts in
            `get_execution_details`; of nested flows, too. It is called from any thread. Where it raises or gives no string, the
            text becomes "(redaction failed)". Params and outputs are stored as they are: the tasks need them.
        executor: where functions run that do not say so themselves; "thread" if left out. See `add_task_definition`.
        executors: each a `concurrent.futures.Executor` (of Dask, loky, parsl ...), by the name under which tasks ask for it, here
            and in nested flows. Whoever brings one shuts it down.
        pools: how many attempts may use a thing at once, by name: `{"db": 2}`. The pools of a process are shared by name among
            all its flows and runs; who declares one again gives it another size.
        max_threads: how many functions run in threads at once, in one drive of a run. Threads are started as needed.
        max_processes: how many run in worker processes at once; as many as there are processors if left out.
        grace_period: seconds that attempts which were told to end (by a cancellation or a time-out) get to do so, before the run
            goes on without them.

    Raises:
        InvalidNameError: the name is not usable.
        InvalidOptionError: an option makes no sense; it says which, and what it must be.
    """

    def __init__(
        self,
        flow_name: str,
        store: Store | None = None,
        *,
        clock: Clock | None = None,
        make_id: Callable[[], str] | None = None,
        redact: Redact | None = None,
        executor: ExecutorChoice = None,
        executors: Mapping[str, SubmitsWork] | None = None,
        pools: Mapping[str, int] | None = None,
        max_threads: int = MAX_THREADS,
        max_processes: int | None = None,
        grace_period: float | timedelta = GRACE_PERIOD,
    ) -> None:
        if redact is not None and (not callable(redact) or inspect.iscoroutinefunction(redact)):
            raise InvalidOptionError("redact", redact, "a plain function that takes a string and returns one")
        self._capacities = capacities(max_threads, max_processes, grace_period)
        super().__init__(flow_definition(flow_name, redact, executor, executors))
        if pools is not None:
            from .pools import declare  # late: few flows have any

            declare(pools)
        self._store: Store = _in_memory() if store is None else _checked(store)
        self._clock: Clock = SystemClock() if clock is None else clock
        self._make_id: Callable[[], str] = _random_id if make_id is None else make_id
        self._worker = Worker(f"night-batch store of {flow_name}")
        self.events = EventManager()
        """Who is told what happens in this flow's runs; see `subscribe`."""

    def __repr__(self) -> str:
        return f"<AsyncFlow {self.flow_name!r}, {len(self._definition.tasks)} tasks, {self._store!r}>"

    @property
    def redact(self) -> Redact | None:
        """The hook that takes secrets out of texts; None where there is none."""
        return self._definition.redact

    @property
    def store(self) -> Store:
        """Where the runs live. May be assigned, between runs."""
        return self._store

    @store.setter
    def store(self, store: Store) -> None:
        self._store = _checked(store)

    # --- running ---

    def init_run(
        self,
        params: Mapping[str, Any] | None = None,
        parent_run_id: str | None = None,
        parent_task_id: str | None = None,
        run_id: str | None = None,
    ) -> str:
        """Make a run, without starting it: its rows are written in one transaction.

        Args:
            params: what the run is about, by name; the tasks share them as `ctx.params`.
            parent_run_id: the run that it is to be shown under; recorded, not looked for.
            parent_task_id: the task there.
            run_id: an id of your own. It is an idempotency key: if this flow has a run of that id already, that one is meant, and
                nothing changes.

        Returns:
            The run's id.

        Raises:
            DefinitionError: the graph is not sound, or the id not usable.
            UnstorableValueError: a param cannot be stored; names its key.
            RunExistsError: another flow has a run of that id.
        """
        self.validate()
        return self._runs(None).make(params, parent_run_id, parent_task_id, run_id)

    def _runs(self, run_id: str | None) -> Runs:
        """What becomes of the flow's runs, this one above all: who follows it is told, too."""
        from .runs import Runs  # late: a program that declares flows, or looks at their runs, may have none to make or drive

        told = self.events if run_id is None else RunAudience(self.events, _FOLLOWERS, self._key(run_id))
        return Runs(self._definition, self._store, self._clock, self._make_id, self._worker, told, self._capacities)

    async def run_until_complete(
        self,
        run_id: str,
        max_concurrency: int = 0,
        *,
        adopt_graph: bool = False,
        timeout: float | timedelta | None = None,
    ) -> WorkflowRun:
        """Drive a run to its end: start it, or continue it from where it stands. A run that has ended is returned as it is.

        Failed tasks do not raise; call `raise_for_failure()` on what is returned. Calling it for a run that is being driven
        waits for that. Cancelling the call puts the tasks under way back, saves, and re-raises; the run can then be continued.

        Args:
            run_id: the run.
            max_concurrency: how many tasks may run at once, subflows' included; 0 is any number.
            adopt_graph: continue although the graph is not the one that the run was made with: new tasks run, tasks that are gone
                and had not ended are skipped, what has ended stays.
            timeout: seconds (or a timedelta) after which the call gives up waiting, as if it had been cancelled.

        Raises:
            RunTimeoutError: the run did not end within `timeout`; it can be continued.
            RunNotFoundError: the store has no such run.
            RunMismatchError: it is a run of another flow.
            RunOwnedError: another process drives it; who, since when, and what to do.
            OwnershipLostError: another process took it over while it was driven here.
            RunActiveError: this call is made by one of its own tasks.
            GraphChangedError: the graph is not the one that the run was made with; shows the difference.
            StoreBusyError: somebody else held the store for too long.
            StoreError: the store failed; the run stands as of the last commit, and can be continued.
        """
        drive = self._driving(run_id, max_concurrency, adopt_graph)
        work = _DRIVES.run(self._key(run_id), self.flow_name, drive)
        return await self._heard(self._within(timeout, run_id, work))

    async def _heard(self, work: Coroutine[Any, Any, WorkflowRun]) -> WorkflowRun:
        """Await a run, and that those who were told of it have handled that."""
        try:
            run = await work
        except GeneratorExit:  # the loop was closed under us, so nothing can be awaited any more
            raise
        except BaseException:
            if self.events.may_lag:
                await self.events.caught_up(self._capacities.grace_period)
            raise
        if self.events.may_lag:
            await self.events.caught_up(self._capacities.grace_period)
        return run

    async def _within(
        self, timeout: float | timedelta | None, run_id: str, work: Coroutine[Any, Any, WorkflowRun]
    ) -> WorkflowRun:
        try:
            seconds = span("timeout", timeout)
        except BaseException:
            work.close()  # it was not begun, and need not be complained of
            raise
        if seconds is None:
            return await work
        return await within(seconds, self._clock.sleep, work, RunTimeoutError(run_id, seconds))

    def _driving(
        self, run_id: str, max_concurrency: int, adopt_graph: bool, retry: tuple[str, bool] | None = None
    ) -> Callable[[], Coroutine[Any, Any, WorkflowRun]]:
        """What drives a run, its arguments checked."""
        self._check_concurrency(max_concurrency)
        check_name("run id", run_id)
        self.validate()
        show = partial(_DRIVES.show, self._key(run_id))
        return partial(self._runs(run_id).drive, run_id, max_concurrency, adopt_graph, retry, show)

    @staticmethod
    def _check_concurrency(max_concurrency: int) -> None:
        if type(max_concurrency) is not int or max_concurrency < 0:
            raise InvalidOptionError("max_concurrency", max_concurrency, "a whole number from 0 (unlimited) on")

    def run(
        self,
        params: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        max_concurrency: int = 0,
        adopt_graph: bool = False,
        timeout: float | timedelta | None = None,
        progress: bool = False,
    ) -> WorkflowRun:
        """Make a run and drive it to its end, in one call that blocks: for scripts.

        Ctrl-C and SIGTERM stop it so that the same call with the same `run_id` continues it; a second one stops at once.

        Args:
            params: as for `init_run`.
            run_id: as for `init_run`; with an id of your own, the call picks up an unfinished run.
            max_concurrency: as for `run_until_complete`.
            adopt_graph: as for `run_until_complete`.
            timeout: as for `run_until_complete`.
            progress: show on stderr how far it is: as a view that stays in place on a terminal, else a line for each event.

        Raises:
            RunningLoopError: an event loop is running already; await `run_until_complete` there.
            KeyboardInterrupt: after Ctrl-C, once the run is saved.
            SystemExit: with code 143 after SIGTERM, once the run is saved.
        """

        async def work() -> WorkflowRun:
            made = self.init_run(params, run_id=run_id)
            return await self.run_until_complete(made, max_concurrency, adopt_graph=adopt_graph, timeout=timeout)

        from .scripts import run_to_end  # late: services and notebooks have a loop of their own

        if progress:
            from .around import around  # late: services show their runs elsewhere

            with around("progress", "show_progress")(self):
                return run_to_end(work, self.flow_name)
        return run_to_end(work, self.flow_name)

    def start(
        self,
        params: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        max_concurrency: int = 0,
        adopt_graph: bool = False,
        timeout: float | timedelta | None = None,
    ) -> RunHandle:
        """Make a run, or take one up, and drive it in the background: for services, whose event loop goes on meanwhile.

        The call returns at once, before the run is in the store; see `RunHandle.made`. What is wrong with the arguments or the
        graph is raised here, what goes wrong later where the handle is awaited. When the event loop ends under it (as at the end
        of `asyncio.run`), the run is interrupted, and can be continued.

        Args:
            params: as for `init_run`.
            run_id: as for `init_run`; with an id of your own, the call picks up an unfinished run, or joins those who drive it.
            max_concurrency: as for `run_until_complete`.
            adopt_graph: as for `run_until_complete`.
            timeout: as for `run_until_complete`.

        Returns:
            A handle to await, cancel, stop or follow the run with; it need not be kept.

        Raises:
            NoRunningLoopError: no event loop is running; in a script, call `run`.
            DefinitionError: the graph is not sound, or the id not usable.
            UnstorableValueError: a param cannot be stored; names its key.
        """
        from .handles import RunHandle, running_loop  # late: scripts await their runs

        loop = running_loop(self.flow_name)
        span("timeout", timeout)
        self.validate()
        made_id, make = self._runs(None).make_soon(params, run_id)
        drive = self._driving(made_id, max_concurrency, adopt_graph)
        key = self._key(made_id)

        async def work() -> WorkflowRun:
            return await self._within(timeout, made_id, _DRIVES.run(key, self.flow_name, drive))

        async def caught_up() -> None:
            await self.events.caught_up(self._capacities.grace_period)

        cancel = partial(self._runs(made_id).cancel_soon, made_id)
        return RunHandle(loop, made_id, make, work, caught_up, cancel, _FOLLOWERS, key)

    async def resume_all(self, max_concurrency: int = 0, *, adopt_graph: bool = False, max_runs: int = 10) -> ResumedRuns:
        """Continue every unfinished run of this flow that nobody drives: what a service calls when it starts.

        Unfinished are runs that were interrupted, or whose process died, and those that were made and never begun. Subflows' runs
        go on with the runs that they are in. Runs with a living owner, in this process or another, are left alone, so several
        processes may call this at once: each run is driven by one of them. A run that cannot be driven (its graph has changed, it
        is damaged) keeps none of the others from going on.

        Args:
            max_concurrency: how many tasks of one run may run at once, as for `run_until_complete`.
            adopt_graph: as for `run_until_complete`, for all of them.
            max_runs: how many runs are driven at once. The oldest come first.

        Returns:
            What became of each run.

        Raises:
            StoreError: the store could not be asked for its runs.
            asyncio.CancelledError: the call was cancelled; the runs under way were put back and saved.
        """
        from .resuming import resume_all  # late: few programs have more than one run to continue

        async def drive(run_id: str) -> WorkflowRun:
            work = self._driving(run_id, max_concurrency, adopt_graph)
            return await self._heard(_DRIVES.run(self._key(run_id), self.flow_name, work, alone="resume"))

        self._check_concurrency(max_concurrency)
        self.validate()
        return await resume_all(self._store, self.flow_name, self._worker, drive, max_runs)

    # --- cancelling ---

    def cancel(self, run_id: str) -> bool:
        """Cancel a run for good: its tasks that have not ended become CANCELLED, and so does the run.

        Whoever drives it, in this process or another, is asked to: its attempts are told to end, and its call returns the
        cancelled run. That takes a second or so, and the grace period at the most. A run that nobody drives is cancelled at
        once. It may be called from any thread; it writes to the store, and so may take as long as that.

        Args:
            run_id: the run; that of a subflow stands for the subflow's task.

        Returns:
            Whether there was anything to cancel: not so where the run has ended.

        Raises:
            RunNotFoundError, RunMismatchError: there is no such run of this flow.
        """
        return self._runs(check_name("run id", run_id)).cancel(run_id, None)

    def cancel_task(self, run_id: str, task_id: str) -> bool:
        """Cancel one task, such as one that hangs, and let the run go on: for what is downstream it has failed.

        Args:
            run_id: the run.
            task_id: the task; `"sub.inner.task"` reaches into subflows, `"parse[3]"` is an item of a map. A subflow is cancelled
                with all that is in it, a mapped task with all its items that have not ended.

        Returns:
            Whether there was anything to cancel: not so where the task has ended.

        Raises:
            RunNotFoundError, RunMismatchError: there is no such run of this flow.
            UnknownTaskError: it has no such task.
        """
        return self._runs(check_name("run id", run_id)).cancel(run_id, task_id)

    # --- retrying ---

    def manual_retry(
        self,
        run_id: str,
        task_id: str | list[str] | tuple[str, ...],
        reset_downstream: bool = False,
        *,
        adopt_graph: bool = False,
    ) -> None:
        """Set a task, or several, back so that the next `run_until_complete` runs it again. Its attempts stay in the history.

        Without `reset_downstream`, all else stays as it is: what was skipped because of the task stays skipped, too.

        Args:
            run_id: the run.
            task_id: the task; `"sub.inner.task"` reaches into subflows, whose new results are carried up. `"parse[3]"` is an item
                of a map, which keeps its other items. A mapped task that did not succeed is set back with the items that
                did not; one that did, with all of them. A list or tuple of ids is as many calls, one after the other, in one
                commit: if one of them cannot be set back, nothing is.
            reset_downstream: set back everything downstream of it as well.
            adopt_graph: as for `run_until_complete`.

        Raises:
            InvalidNameError: what is given is no id, nor a list or tuple of such.
            UnknownTaskError: there is no such task.
            RunActiveError, RunOwnedError: the run is being driven, here or elsewhere.
            RunNotFoundError, RunMismatchError, GraphChangedError: as for `run_until_complete`.
        """
        check_name("run id", run_id)
        self._refuse_if_driven(run_id, "retry a task of")
        self.validate()
        task_ids = task_id if isinstance(task_id, (list, tuple)) else (task_id,)
        self._runs(run_id).set_back(run_id, task_ids, reset_downstream, adopt_graph)

    def _refuse_if_driven(self, run_id: str, action: str) -> None:
        if self._key(run_id) in _DRIVES:
            raise RunActiveError(run_id, action)

    def _key(self, run_id: str) -> tuple[str, str]:
        # What wraps a store may not know its identity, and is then one of its own.
        return getattr(self._store, "identity", f"store {id(self._store)}"), run_id

    async def retry(
        self,
        run_id: str,
        task_id: str,
        reset_downstream: bool = True,
        max_concurrency: int = 0,
        *,
        adopt_graph: bool = False,
        timeout: float | timedelta | None = None,
    ) -> WorkflowRun:
        """Set a task back, by default with everything downstream, and drive the run on.

        The arguments and errors are those of `manual_retry` and `run_until_complete`.
        """
        drive = self._driving(run_id, max_concurrency, adopt_graph, (task_id, reset_downstream))
        work = _DRIVES.run(self._key(run_id), self.flow_name, drive, alone="retry a task of")
        return await self._heard(self._within(timeout, run_id, work))

    def take_over(self, run_id: str) -> None:
        """Take a run from an owner who lives but does not answer; what that one writes from then on is refused.

        The tasks that it has under way may go on all the same, and run a second time when the run is continued: be sure that it
        hangs. A dead owner's run need not be taken: it is free.

        Raises:
            RunNotFoundError: the store has no such run.
            RunActiveError: it, or the run that it is a subflow of, is driven by this very process.
        """
        whole = outermost(self._store, check_name("run id", run_id))
        self._refuse_if_driven(whole, "take over")
        self._store.release(self._store.claim(whole, force=True))

    # --- looking ---

    def subscribe(self, handler: Callable[[E], object], *event_types: type[E]) -> Callable[[], None]:
        """Have a function, or a coroutine function, called with each event of this flow's runs, after it was committed.

        The events are those of the runs that are driven by this very object, and of their subflows' runs; to follow a single run,
        see `RunHandle.events`. Plain functions hold up the loop until they return; coroutine functions get their events in order,
        one at a time, while the run goes on. `EventManager.subscribe` says the rest.

        Args:
            handler: takes an event; what it raises is logged.
            event_types: only events of these classes, subclasses included; all if none is given.

        Returns:
            A function that ends the subscription.

        Raises:
            InvalidOptionError: the handler cannot be called, or what is given beside it is no class.
        """
        return self.events.subscribe(handler, *event_types)

    def get_execution_details(self, run_id: str) -> dict[str, Any]:
        """A run as plain JSON data: each task's definition beside its state and attempts, subflows nested under `"subflow"`.

        Of a mapped task there is one entry for the whole, whose `"items"` are the ids of its items in the order of the list (None
        before there is one), and behind the declared tasks one for each item, with `"item_of"` and `"map_index"`, its own state
        and attempts, and, if a subflow is mapped, its own `"subflow"`. Values that JSON has no word for show in the form in
        which they are stored. Texts go through the flow's `redact`, ids do not.

        Raises:
            RunNotFoundError: the store has no such run.
        """
        from .details import execution_details  # late: only who looks at runs needs it

        return execution_details(self._definition, self._store, run_id)

    def progress_of(self, run_id: str) -> RunProgress:
        """How far a run is: its tasks by state, which are under way and since when, which have failed.

        Of a run that is driven in this process it is read in memory, which takes about a millisecond for 10,000 tasks and may be
        a moment ahead of the store; of any other, in the store. It may be called from any thread, as often as one likes: a run
        does nothing for it while nobody looks.

        Raises:
            RunNotFoundError, RunMismatchError: there is no such run of this flow.
        """
        from .progress import progress_of  # late: only who looks at runs needs it

        tree = _DRIVES.tree(self._key(check_name("run id", run_id)))
        return progress_of(self._definition, self._store, run_id, tree, self._clock.now())

    def explain(self, run_id: str, task_id: str) -> Explanation:
        """Why a task waits, was skipped, failed or was retried, in sentences: `print(flow.explain(run_id, "load"))`.

        It reads what is stored, and may be called while the run is driven, here or by another process. Texts of failures go
        through the flow's `redact`.

        Args:
            run_id: the run.
            task_id: the task, whatever its state; `"sub.inner.task"` reaches into subflows, `"parse[3]"` is an item of a map.

        Raises:
            RunNotFoundError, RunMismatchError: there is no such run of this flow.
            UnknownTaskError: it has no such task; the error suggests a near name.
        """
        from .explaining import explain  # late: only who looks at runs needs it

        return explain(self._definition, self._store, self._clock, check_name("run id", run_id), task_id)

    def plan(self, run_id: str) -> Plan:
        """What `run_until_complete(run_id)` would do, without doing it: which results stand, which tasks would run.

        Where the flow's graph is not the one that the run was made with, that call refuses, and the plan is what it would do
        with `adopt_graph=True`. It reads what is stored, and may be called while the run is driven.

        Raises:
            RunNotFoundError, RunMismatchError: there is no such run of this flow.
            DefinitionError: the flow's graph is not sound.
        """
        from .planning import plan  # late: only who looks at runs needs it

        self.validate()
        return plan(self._definition, self._store, check_name("run id", run_id))
