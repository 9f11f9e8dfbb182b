"""AsyncFlow: where a flow is declared, and from where its runs are made, driven, continued and retried.

The one shell: it checks what it is given, and hands it on to the rooms that know how.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .clock import Clock, SystemClock
from .definitions import Dependencies, FlowDefinition, SubflowParams, TaskFunction, check_name, function_name
from .drives import Drives
from .errors import InvalidOptionError, RunActiveError, TaskFunctionError
from .event_manager import EventManager
from .forks import watch
from .models import TaskType, WorkflowRun
from .off_loop import Worker
from .redaction import Redact
from .retry_manager import MAX_INTERRUPTIONS, OnInterrupt, retry_policy, with_retries
from .store import Store, outermost

if TYPE_CHECKING:
    from .runs import Runs

_DRIVES = Drives()
watch(_DRIVES)

F = TypeVar("F", bound=Callable[..., Any])
RetryDelay = float | timedelta | None


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


class AsyncFlow:
    """A flow: a name, and tasks that depend on one another.

    Args:
        flow_name: stored with each run, which only a flow of the same name can continue.
        store: where the runs live; a `MemoryStore` of its own if none is given.
        clock: the time; tests bring one that does not take any.
        make_id: makes run ids that were not given; random ones by default.
        redact: takes a text and gives it back without its secrets. All that is kept or told of a failure goes through it
            (message, traceback, reason), and so do the lines of `ctx.log` and the texts in `get_execution_details`; of nested
            flows, too. It is called from any thread. Where it raises or gives no string, the text becomes "(redaction failed)".
            Params and outputs are stored as they are: the tasks need them.

    Raises:
        InvalidNameError: the name is not usable.
        InvalidOptionError: what was given as a store is none, or as `redact` no function.
    """

    def __init__(
        self,
        flow_name: str,
        store: Store | None = None,
        *,
        clock: Clock | None = None,
        make_id: Callable[[], str] | None = None,
        redact: Redact | None = None,
    ) -> None:
        if redact is not None and (not callable(redact) or inspect.iscoroutinefunction(redact)):
            raise InvalidOptionError("redact", redact, "a plain function that takes a string and returns one")
        self._definition = FlowDefinition(flow_name, redact=redact)
        self._store: Store = _in_memory() if store is None else _checked(store)
        self._clock: Clock = SystemClock() if clock is None else clock
        self._make_id: Callable[[], str] = _random_id if make_id is None else make_id
        self._worker = Worker(f"night-batch store of {flow_name}")
        self.events = EventManager()
        """Who is told what happens in this flow's runs: `flow.events.subscribe(handler, TaskFailed)`."""

    def __repr__(self) -> str:
        return f"<AsyncFlow {self.flow_name!r}, {len(self._definition.tasks)} tasks, {self._store!r}>"

    @property
    def flow_name(self) -> str:
        """The flow's name."""
        return self._definition.name

    @property
    def definition(self) -> FlowDefinition:
        """The tasks as they were declared."""
        return self._definition

    @property
    def store(self) -> Store:
        """Where the runs live. May be assigned, between runs."""
        return self._store

    @store.setter
    def store(self, store: Store) -> None:
        self._store = _checked(store)

    # --- declaring ---

    @overload
    def task(self, task_id: F) -> F: ...

    @overload
    def task(
        self,
        task_id: str | None = None,
        *,
        depends_on: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        task_type: TaskType | str | None = None,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> Callable[[F], F]: ...

    def task(
        self,
        task_id: str | F | None = None,
        *,
        depends_on: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        task_type: TaskType | str | None = None,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> F | Callable[[F], F]:
        """Decorate a function or coroutine function as a task; it is returned unchanged.

        Written bare (`@flow.task`) or without an id, the function's name is the id. The arguments are those of
        `add_task_definition`, where `depends_on` is called `dependencies`.
        """

        def decorate(function: F) -> F:
            self.add_task_definition(
                task_id if isinstance(task_id, str) else getattr(function, "__name__", repr(function)),
                function,
                task_type=task_type,
                dependencies=depends_on,
                max_retries=max_retries,
                retry_delay=retry_delay,
                max_interruptions=max_interruptions,
                on_interrupt=on_interrupt,
                name=name,
                description=description,
                replace=replace,
            )
            return function

        return decorate if task_id is None or isinstance(task_id, str) else decorate(task_id)

    def subflow(
        self,
        subflow_id: str,
        *,
        depends_on: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        params: SubflowParams = None,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> Callable[[F], F]:
        """Decorate a function that makes the nested flow: it is called once, at once, with None, and returns an `AsyncFlow`.

        The other arguments are those of `add_subflow_definition`, where `depends_on` is called `dependencies`.

        Raises:
            TaskFunctionError: the function returns something else.
        """

        def decorate(factory: F) -> F:
            child = factory(None)
            if not isinstance(child, AsyncFlow):
                problem = f"it returned {type(child).__name__}, and must return the nested AsyncFlow"
                raise TaskFunctionError(subflow_id, function_name(factory), problem)
            self._definition.add_subflow(
                subflow_id,
                child._definition,
                depends_on=depends_on,
                retry=retry_policy(max_retries, retry_delay, subflow_id, max_interruptions, on_interrupt),
                params=params,
                name=name,
                description=description,
                replace_task=replace,
                factory=factory,
            )
            return factory

        return decorate

    def add_task_definition(
        self,
        task_id: str,
        task_function: TaskFunction,
        *,
        task_type: TaskType | str | None = None,
        dependencies: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> AsyncFlow:
        """Declare a task.

        Args:
            task_id: a non-empty string without `.`, `/` and control characters.
            task_function: takes the context as its one argument. A coroutine function runs on the event loop, any other one
                in a thread.
            task_type: "task" or left out.
            dependencies: ids of tasks, or the decorated functions themselves; they may be declared later.
            max_retries: how many attempts may follow a failed one.
            retry_delay: seconds (or a timedelta) before each of them.
            max_interruptions: after how many attempts in which the process died (or lost the run) the task fails, instead of
                running again when the run is continued. All that ran when it died count it: which one killed it nobody knows.
            on_interrupt: "retry", or "fail" for a task that must not run twice unless a person says so: an attempt that is cut
                off, by the death of the process or by a cancellation, then fails the task at once, whatever its `max_retries`.
            name: what people call it.
            description: what it does; the function's docstring if left out.
            replace: take the place of a task of the same id, as when a notebook cell runs again.

        Returns:
            The flow itself, so that calls chain.

        Raises:
            DefinitionError: one of its kinds says what is wrong; the flow stays as it was.
        """
        self._definition.add_task(
            task_id,
            task_function,
            depends_on=dependencies,
            retry=retry_policy(max_retries, retry_delay, task_id, max_interruptions, on_interrupt),
            task_type=task_type,
            name=name,
            description=description,
            replace_task=replace,
        )
        return self

    def add_subflow_definition(
        self,
        subflow_id: str,
        child_flow: AsyncFlow,
        *,
        dependencies: Dependencies = None,
        max_retries: int = 0,
        retry_delay: RetryDelay = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        on_interrupt: OnInterrupt = "retry",
        params: SubflowParams = None,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
    ) -> AsyncFlow:
        """Declare a task that is a whole flow, with a run of its own in this flow's store.

        Args:
            subflow_id: the id of the task.
            child_flow: the nested flow.
            dependencies: ids of tasks, or the decorated functions themselves.
            max_retries: how often what failed inside is tried again as a whole.
            retry_delay: seconds (or a timedelta) before each of these.
            max_interruptions: as for a task, of the function that makes the params. While the child runs, the tasks in it have
                theirs.
            on_interrupt: likewise.
            params: the child's own params, beside the parent's and the outputs of the dependencies by id; a mapping, or a
                function that makes one from the parent's context.
            name: what people call it.
            description: what it does.
            replace: take the place of a task of the same id.

        Returns:
            The flow itself, so that calls chain.

        Raises:
            NestedFlowError: the nested flow contains this one.
            DefinitionError: another of its kinds says what is wrong; the flow stays as it was.
        """
        if not isinstance(child_flow, AsyncFlow):
            raise InvalidOptionError("child_flow", child_flow, "an AsyncFlow", subflow_id)
        self._definition.add_subflow(
            subflow_id,
            child_flow._definition,
            depends_on=dependencies,
            retry=retry_policy(max_retries, retry_delay, subflow_id, max_interruptions, on_interrupt),
            params=params,
            name=name,
            description=description,
            replace_task=replace,
        )
        return self

    def has_task(self, task_id: str) -> bool:
        """Whether the flow has a task, or subflow, of that id."""
        return isinstance(task_id, str) and task_id in self._definition.tasks

    def update_task_retry_policy(self, task_id: str, max_retries: int, retry_delay: RetryDelay = None) -> None:
        """Give a task another number of retries and delay; they hold from the next failure on.

        Raises:
            UnknownTaskError: the flow has no such task.
            InvalidOptionError: the policy makes no sense.
        """
        known = self._definition.get(task_id).retry
        self._definition.set_retry(task_id, with_retries(known, max_retries, retry_delay, task_id))

    def validate(self) -> None:
        """Check the graph of this flow and of all flows nested in it, as `init_run` does.

        Raises:
            UnknownDependencyError, CycleError: what is wrong with it.
        """
        self._definition.validate()

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
        self._definition.validate()
        return self._runs().make(params, parent_run_id, parent_task_id, run_id)

    def _runs(self) -> Runs:
        from .runs import Runs  # late: a program that declares flows, or looks at their runs, may have none to make or drive

        return Runs(self._definition, self._store, self._clock, self._make_id, self._worker, self.events)

    async def run_until_complete(self, run_id: str, max_concurrency: int = 0, *, adopt_graph: bool = False) -> WorkflowRun:
        """Drive a run to its end: start it, or continue it from where it stands. A run that has ended is returned as it is.

        Failed tasks do not raise; call `raise_for_failure()` on what is returned. Calling it for a run that is being driven
        waits for that. Cancelling the call puts the tasks under way back, saves, and re-raises; the run can then be continued.

        Args:
            run_id: the run.
            max_concurrency: how many tasks may run at once, subflows' included; 0 is any number.
            adopt_graph: continue although the graph is not the one that the run was made with: new tasks run, tasks that are gone
                and had not ended are skipped, what has ended stays.

        Raises:
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
        return await _DRIVES.run(self._key(run_id), self.flow_name, drive)

    def _driving(
        self, run_id: str, max_concurrency: int, adopt_graph: bool, retry: tuple[str, bool] | None = None
    ) -> Callable[[], Coroutine[Any, Any, WorkflowRun]]:
        """What drives a run, its arguments checked."""
        if type(max_concurrency) is not int or max_concurrency < 0:
            raise InvalidOptionError("max_concurrency", max_concurrency, "a whole number from 0 (unlimited) on")
        check_name("run id", run_id)
        self._definition.validate()
        return partial(self._runs().drive, run_id, max_concurrency, adopt_graph, retry)

    def run(
        self,
        params: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        max_concurrency: int = 0,
        adopt_graph: bool = False,
    ) -> WorkflowRun:
        """Make a run and drive it to its end, in one call that blocks: for scripts.

        Ctrl-C and SIGTERM stop it so that the same call with the same `run_id` continues it; a second one stops at once.

        Args:
            params: as for `init_run`.
            run_id: as for `init_run`; with an id of your own, the call picks up an unfinished run.
            max_concurrency: as for `run_until_complete`.
            adopt_graph: as for `run_until_complete`.

        Raises:
            RunningLoopError: an event loop is running already; await `run_until_complete` there.
            KeyboardInterrupt: after Ctrl-C, once the run is saved.
            SystemExit: with code 143 after SIGTERM, once the run is saved.
        """

        async def work() -> WorkflowRun:
            made = self.init_run(params, run_id=run_id)
            return await self.run_until_complete(made, max_concurrency, adopt_graph=adopt_graph)

        from .scripts import run_to_end  # late: services and notebooks have a loop of their own

        return run_to_end(work, self.flow_name)

    # --- retrying ---

    def manual_retry(self, run_id: str, task_id: str, reset_downstream: bool = False, *, adopt_graph: bool = False) -> None:
        """Set a task back so that the next `run_until_complete` runs it again. Its attempts stay in the history.

        Without `reset_downstream`, all else stays as it is: what was skipped because of the task stays skipped, too.

        Args:
            run_id: the run.
            task_id: the task; `"sub.inner.task"` reaches into subflows, whose new results are carried up.
            reset_downstream: set back everything downstream of it as well.
            adopt_graph: as for `run_until_complete`.

        Raises:
            UnknownTaskError: there is no such task.
            RunActiveError, RunOwnedError: the run is being driven, here or elsewhere.
            RunNotFoundError, RunMismatchError, GraphChangedError: as for `run_until_complete`.
        """
        check_name("run id", run_id)
        self._refuse_if_driven(run_id, "retry a task of")
        self._definition.validate()
        self._runs().set_back(run_id, task_id, reset_downstream, adopt_graph)

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
    ) -> WorkflowRun:
        """Set a task back, by default with everything downstream, and drive the run on.

        The arguments and errors are those of `manual_retry` and `run_until_complete`.
        """
        drive = self._driving(run_id, max_concurrency, adopt_graph, (task_id, reset_downstream))
        return await _DRIVES.run(self._key(run_id), self.flow_name, drive, alone="retry a task of")

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

    def get_execution_details(self, run_id: str) -> dict[str, Any]:
        """A run as plain JSON data: each task's definition beside its state and attempts, subflows nested under `"subflow"`.

        Values that JSON has no word for show in the form in which they are stored.

        Raises:
            RunNotFoundError: the store has no such run.
        """
        from .details import execution_details  # late: only who looks at runs needs it

        return execution_details(self._definition, self._store, run_id)
