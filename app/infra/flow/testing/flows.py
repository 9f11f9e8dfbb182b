"""Runs a flow, or one task of it, for a test: in memory, with fakes, in time that takes none.

The flow itself stays as it is: its store is not touched, its subscribers are told nothing. Standard library only; any test
runner will do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from ..context import Context
from ..definitions import FlowDefinition, TaskDefinition
from ..errors import InvalidOptionError, NotUpstreamError, UnknownTaskError, closest
from ..events import Event, TaskStarted
from ..flow import AsyncFlow
from ..memory_store import MemoryStore
from ..models import ExecutionState, TaskInstance, WorkflowRun
from ..retry_manager import NO_RETRY
from ..scripts import run_to_end
from ..task_rules import PLAIN
from .clock import VirtualClock, ruling_clock
from .fakes import Fakes, TaskName, copied, faked, known_task, returns, task_id_of, with_fakes
from .in_place import FlowInMemory

T = TypeVar("T")
_NONE: Any = object()


class FlowResult:
    """What came of a flow in a test: `.run` as the engine gives it, and what a test asks besides.

    Args:
        flow: what was run: a copy in memory.
        original: the flow that it is a copy of.
        run: how it ended.
        events: what was told.
        clock: the time.
        real_executors: as for `run_flow`.
    """

    def __init__(
        self,
        flow: FlowInMemory,
        original: AsyncFlow,
        run: WorkflowRun,
        events: list[Event],
        clock: VirtualClock,
        real_executors: bool,
    ) -> None:
        self._flow = flow
        self._original = original
        self._real_executors = real_executors
        self.run = run
        """The run, as `flow.run()` would give it."""
        self.events = events
        """All that subscribers would have been told, of runs of subflows too, in order."""
        self.clock = clock
        """The time: `clock.elapsed` is how many virtual seconds have passed."""

    def __repr__(self) -> str:
        return f"<FlowResult: {self.run!r}>"

    @property
    def state(self) -> ExecutionState:
        """How the run ended: equals its string, `result.state == "success"`."""
        return self.run.state

    @property
    def store(self) -> MemoryStore:
        """The store in memory where the run is: for `store.list_attempts(result.run.id)`, `store.history(...)`."""
        store = self._flow.store
        assert isinstance(store, MemoryStore)
        return store

    @property
    def tasks(self) -> dict[str, TaskInstance]:
        """Every task by its path: `"load"`, `"parse[3]"`, `"sub.load"`, `"each[0].load"`."""
        return self.run.get_all_tasks_recursive(self.store)

    @property
    def started(self) -> list[str]:
        """The tasks of the run itself, items included, in the order in which their first attempts began."""
        begun = (event for event in self.events if isinstance(event, TaskStarted) and event.run_id == self.run.id)
        return list(dict.fromkeys(event.task_id for event in begun))

    def output(self, task: TaskName) -> Any:
        """What `ctx.pull_output` gives of a task; `"sub.task"` is one in a subflow.

        Raises:
            UnknownTaskError: there is no such task.
        """
        path, tasks = task_id_of(self._original.definition, task), self.tasks
        if path not in tasks:
            raise UnknownTaskError(f"Run {self.run.id!r}", path, closest(path, tasks))
        return tasks[path].output

    def explain(self, task: TaskName) -> str:
        """Why a task waits, was skipped, failed or was retried, as text; see `AsyncFlow.explain`."""
        return str(self._flow.explain(self.run.id, task_id_of(self._original.definition, task)))

    def retry(self, task: TaskName, *, fakes: Fakes | None = None, reset_downstream: bool = True) -> FlowResult:
        """Run a task again, as `flow.retry` does, with other fakes than before: to see what a rerun does after a fix.

        Args:
            task: the task; `"sub.task"` and `"parse[3]"` as for `AsyncFlow.manual_retry`.
            fakes: in place of all fakes of the run; none if left out.
            reset_downstream: set back everything downstream of it as well.

        Returns:
            The same run as it stands then; its events are those of the rerun alone.
        """
        return _sync(lambda: self.retry_async(task, fakes=fakes, reset_downstream=reset_downstream), "retry_async")

    async def retry_async(self, task: TaskName, *, fakes: Fakes | None = None, reset_downstream: bool = True) -> FlowResult:
        """The same where an event loop is running already."""
        definition = with_fakes(self._original.definition, fakes or {})
        flow = FlowInMemory(self._original, definition, self.clock, self._real_executors, self.store)
        path = task_id_of(definition, task)
        return await _driven(
            flow,
            self._original,
            self.clock,
            self._real_executors,
            self.run.id,
            lambda: flow.retry(self.run.id, path, reset_downstream),
        )


def run_flow(
    flow: AsyncFlow,
    params: Mapping[str, Any] | None = None,
    *,
    fakes: Fakes | None = None,
    run_id: str | None = None,
    clock: VirtualClock | None = None,
    max_concurrency: int = 0,
    timeout: float | timedelta | None = None,
    real_executors: bool = False,
) -> FlowResult:
    """Run a flow to its end for a test: in memory, with fakes in the place of tasks, in time that takes none.

        result = run_flow(flow, {"day": "monday"}, fakes={"extract": [1, 2], "send": raises(ConnectionError("down"))})
        assert_failed(result, "send", match="down")
        assert result.clock.elapsed == 60  # it was retried after a minute

    Delays of retries, time-outs and `asyncio.sleep` in tasks take no time; see `VirtualClock`. Functions run one after another
    in the thread of the test, so that its fixtures, patches and breakpoints work in them; coroutines run side by side, as ever.

    Args:
        flow: the flow. It is copied; its own store, clock and subscribers are left alone.
        params: the run's params.
        fakes: what is called in the place of tasks, by id (`"sub.task"` in a subflow, `"sub"` for the whole of one) or decorated
            function: a function or coroutine function with the parameters that the task's own might have (`ctx`, and by name the
            outputs and the item); any other value is what it is to return. There are `returns`, `raises`, `fails` and `hangs`;
            a `unittest.mock.Mock` will do. Retries, time-outs, conditions and maps of the task stay.
        run_id: an id for the run; `"test"` if left out.
        clock: the time; a new `VirtualClock` if left out, or that by which the loop goes already: runs side by side share it.
        max_concurrency: how many tasks may run at once, as for `AsyncFlow.run_until_complete`.
        timeout: seconds (or a timedelta) of the clock, as for `AsyncFlow.run_until_complete`.
        real_executors: have functions run where they say, in threads, processes or elsewhere, as in earnest: needed where
            functions wait for one another, or are to be cut off by a time-out. Then what they take is real time.

    Returns:
        The result, however the run ended: failed tasks do not raise.

    Raises:
        RuntimeError: an event loop is running; await `run_flow_async` there.
        UnknownTaskError: a fake is given for what is no task.
        DefinitionError: the flow's graph is not sound.
        UnstorableValueError: a param cannot be stored.
        RunTimeoutError: the run did not end within `timeout`.
        TimeoutError: it would never end: a task awaits what never comes, and has no time-out. The message says which.
    """
    return _sync(
        lambda: run_flow_async(
            flow,
            params,
            fakes=fakes,
            run_id=run_id,
            clock=clock,
            max_concurrency=max_concurrency,
            timeout=timeout,
            real_executors=real_executors,
        ),
        "run_flow_async",
    )


async def run_flow_async(
    flow: AsyncFlow,
    params: Mapping[str, Any] | None = None,
    *,
    fakes: Fakes | None = None,
    run_id: str | None = None,
    clock: VirtualClock | None = None,
    max_concurrency: int = 0,
    timeout: float | timedelta | None = None,
    real_executors: bool = False,
) -> FlowResult:
    """`run_flow` where an event loop is running: in an `async def` test, or in a notebook.

    Until it returns, the whole loop goes by the clock: a time-out of the test's own around it counts virtual seconds, too.

    The arguments, the result and the errors are those of `run_flow`.

    Raises:
        TypeError: the running event loop is none of asyncio's own, such as uvloop's.
    """
    time = clock or ruling_clock() or VirtualClock()
    made = FlowInMemory(flow, with_fakes(flow.definition, fakes or {}), time, real_executors)
    the_id = made.init_run(params, run_id="test" if run_id is None else run_id)
    return await _driven(
        made, flow, time, real_executors, the_id, lambda: made.run_until_complete(the_id, max_concurrency, timeout=timeout)
    )


async def _driven(
    flow: FlowInMemory,
    original: AsyncFlow,
    clock: VirtualClock,
    real_executors: bool,
    run_id: str,
    drive: Callable[[], Coroutine[Any, Any, WorkflowRun]],
) -> FlowResult:
    events: list[Event] = []
    unsubscribe = flow.subscribe(events.append)
    try:
        with flow.in_virtual_time(run_id):
            run = await drive()
    finally:
        unsubscribe()
    return FlowResult(flow, original, run, events, clock, real_executors)


def _sync(work: Callable[[], Coroutine[Any, Any, T]], instead: str) -> T:
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            f"an event loop is running already; write `await {instead}(...)` in a test that is a coroutine function"
        )
    return run_to_end(work, "a test")


# --- one task ---


def run_task(
    flow: AsyncFlow,
    task: TaskName,
    params: Mapping[str, Any] | None = None,
    *,
    upstream: Mapping[Any, Any] | None = None,
    item: Any = _NONE,
    attempt_number: int = 0,
    clock: VirtualClock | None = None,
) -> Any:
    """Run one task of a flow alone, once, and get its output.

        assert run_task(flow, "transform", upstream={"extract": [1, 2]}) == [10, 20]

        with pytest.raises(ValueError, match="no rows"):
            run_task(flow, "transform", upstream={"extract": []})

    It is the task as the flow would run it: with its context and condition, its parameters filled, its output written down and
    read again. It is not tried a second time.

    Args:
        flow: the flow; stays as it is.
        task: the task, by its id or decorated function; `"sub.task"` is one in a subflow.
        params: what it sees as `ctx.params`.
        upstream: the outputs of the tasks upstream of it, by id or decorated function, as far as it pulls them. None stands for
            one that did not succeed.
        item: in a mapped task, the item; it is needed there.
        attempt_number: what it sees as `ctx.attempt_number`.
        clock: the time, as for `run_flow`.

    Returns:
        What `ctx.pull_output` would give of it; of a subflow, its result.

    Raises:
        Exception: what the task raised, itself. `SkipTask` too, which its `run_if` raises as well.
        RunFailedError: it failed otherwise: its time was over, or its output cannot be stored.
        LookupError: it pulls the output of a task that `upstream` does not have.
        UnknownTaskError: there is no such task.
        InvalidOptionError: what `upstream` has is not upstream of it; an item is given or left out where it must not be.
        TimeoutError: it awaits what never comes, and has no time-out.
        RuntimeError: an event loop is running; await `run_task_async` there.
    """
    return _sync(
        lambda: run_task_async(
            flow,
            task,
            params,
            upstream=upstream,
            item=item,
            attempt_number=attempt_number,
            clock=clock,
        ),
        "run_task_async",
    )


async def run_task_async(
    flow: AsyncFlow,
    task: TaskName,
    params: Mapping[str, Any] | None = None,
    *,
    upstream: Mapping[Any, Any] | None = None,
    item: Any = _NONE,
    attempt_number: int = 0,
    clock: VirtualClock | None = None,
) -> Any:
    """`run_task` where an event loop is running: in an `async def` test.

    The arguments, the result and the errors are those of `run_task`.
    """
    whole, task_id = _found(flow.definition, task)
    given = {task_id_of(whole, name): value for name, value in (upstream or {}).items()}
    seen = _Seen(attempt_number)
    alone = _alone(whole, task_id, given, item, seen)
    time = clock or ruling_clock() or VirtualClock()
    made = FlowInMemory(flow, alone, time)
    run_id = made.init_run(params, run_id="test")
    result = await _driven(made, flow, time, False, run_id, lambda: made.run_until_complete(run_id))
    found = result.run.tasks[task_id]
    if item is not _NONE:  # it has but the one
        found = next((one for name, one in result.run.tasks.items() if name.startswith(f"{task_id}[")), found)
    if found.state is ExecutionState.SUCCESS:
        return found.output
    if seen.error is not None:
        raise seen.error
    result.run.raise_for_failure()
    raise AssertionError(f"task {task_id!r} did not run: {found.reason}")


def _found(definition: FlowDefinition, task: TaskName) -> tuple[FlowDefinition, str]:
    """The flow that a task is declared in, and its id there."""
    *places, task_id = task_id_of(definition, task).split(".")
    for place in places:
        inside = known_task(definition, place).child
        if inside is None:
            raise InvalidOptionError("task", task, f"inside a subflow, but {place!r} is a task")
        definition = inside
    known_task(definition, task_id)
    return definition, task_id


class _Seen:
    """What a task does that is run alone: notes down what it raises, and refuses outputs that were not given.

    Args:
        attempt_number: what the task is to see.
    """

    def __init__(self, attempt_number: int) -> None:
        self._attempt_number = attempt_number
        self.error: BaseException | None = None

    def around(self, task: TaskDefinition, gone: Mapping[str, bool]) -> TaskDefinition:
        """The task, looked at."""
        called = task.called
        if called is None:
            return task

        def call(ctx: Context) -> Any:
            self._prepare(ctx, gone)
            try:
                return called(ctx)
            except Exception as error:
                self.error = error
                raise

        async def call_async(ctx: Context) -> Any:
            self._prepare(ctx, gone)
            try:
                return await called(ctx)
            except Exception as error:
                self.error = error
                raise

        return replace(task, called=call_async if task.is_async else call)

    def _prepare(self, ctx: Context, gone: Mapping[str, bool]) -> None:
        ctx.attempt_number = self._attempt_number
        scope: Any = _Given(ctx._scope, gone)
        ctx._scope = scope


class _Given:
    """What a task's context asks of its run, where only some outputs are there.

    Args:
        scope: what it asks otherwise.
        gone: the tasks whose outputs are not there, and whether they are upstream of it.
    """

    def __init__(self, scope: Any, gone: Mapping[str, bool]) -> None:
        self._scope = scope
        self._gone = gone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scope, name)

    def pull(self, task_id: str, wanted: str) -> Any:
        whole = wanted if wanted in self._gone else wanted.partition("[")[0]
        is_upstream = self._gone.get(whole)
        if is_upstream:
            raise LookupError(f"task {task_id!r} pulls the output of {wanted!r}: give it, upstream={{{whole!r}: ...}}")
        if is_upstream is False:  # as the flow would say; here, there is no such task
            raise NotUpstreamError(task_id, wanted)
        return self._scope.pull(task_id, wanted)


def _alone(definition: FlowDefinition, task_id: str, given: Mapping[str, Any], item: Any, seen: _Seen) -> FlowDefinition:
    """A flow of that task and what is upstream of it, which does nothing but give its outputs."""
    task = definition.tasks[task_id]
    map_over = task.rules.map_over
    if (map_over is None) is not (item is _NONE):
        expected = (
            f"left out: {task_id!r} is not mapped" if map_over is None else "given: the task is mapped, and is run for one item"
        )
        raise InvalidOptionError("item", None if item is _NONE else item, expected, task_id)
    above = definition.graph().ancestors(task_id)
    for name in given:
        known_task(definition, name)
        if name not in above or name == map_over:
            expected = f"of tasks upstream of {task_id!r}" if name != map_over else f"without {name!r}: item= stands for that"
            raise InvalidOptionError("upstream", {name: given[name]}, expected, task_id)
    made = copied(definition)
    made.tasks.clear()
    made.rules.clear()
    for name, known in definition.tasks.items():
        if name in above:
            value = [item] if name == map_over else given.get(name)
            made.tasks[name] = faked(made, replace(known, rules=PLAIN, retry=NO_RETRY), returns(value))
    rules = task.rules
    if rules is not PLAIN:  # it runs whatever it is that came before it, and what it chooses is its output
        rules = replace(rules, trigger_rule=None, branch=False)
        made.rules[task_id] = rules
    gone = {name: name in above for name in definition.tasks if name not in given and name not in (task_id, map_over)}
    made.tasks[task_id] = seen.around(replace(task, retry=NO_RETRY, rules=rules), gone)
    return made
