"""What stands in for tasks in a test: values, errors, failures that end some time, and what never ends.

Knows definitions, of which it makes changed copies; must not know how a flow is run.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..calling import _asking, checked
from ..context import Context
from ..definitions import FlowDefinition, TaskDefinition
from ..errors import InvalidOptionError, UnknownTaskError, closest
from ..functions import Called, function_name

TaskName = str | Callable[..., Any]
"""A task by its id, `"sub.task"` for one in a subflow, or by the function that was decorated."""
Fakes = Mapping[Any, Any]
"""By `TaskName`: a function that is called in the task's place, or the value that it is to return."""


class Fake:
    """A function in a task's place; made by `returns`, `raises`, `fails` and `hangs`. `calls` says how often it was called.

    Args:
        label: how it shows itself.
        act: takes the context, and the number of calls before this one.
    """

    def __init__(self, label: str, act: Callable[[Context, int], Any]) -> None:
        self._label = label
        self._act = act
        self.calls = 0

    def __repr__(self) -> str:
        return self._label

    def __call__(self, ctx: Context) -> Any:
        """What the task does."""
        before, self.calls = self.calls, self.calls + 1
        return self._act(ctx, before)


class Hang:
    """A coroutine function that never returns; made by `hangs`."""

    def __init__(self) -> None:
        self.calls = 0

    def __repr__(self) -> str:
        return "hangs()"

    async def __call__(self, ctx: Context) -> Any:
        """Wait for what never comes, until somebody cancels it."""
        self.calls += 1
        ctx.log("this fake hangs")
        await asyncio.get_running_loop().create_future()


def returns(value: Any) -> Fake:
    """A fake that returns `value`; what a task that is mapped over returns is its list.

    In `fakes=` a value that cannot be called stands for this by itself: `{"extract": [1, 2]}`.
    """
    return Fake(f"returns({value!r})", lambda _ctx, _before: value)


def raises(error: BaseException | type[BaseException]) -> Fake:
    """A fake that raises `error` each time it is called: a failure, or `SkipTask("no orders")`."""

    def act(_ctx: Context, _before: int) -> Any:
        raise _fresh(error)

    return Fake(f"raises({error!r})", act)


def fails(times: int, then: Any = None, error: BaseException | type[BaseException] | None = None) -> Fake:
    """A fake that fails so many times and then succeeds: to see that a task is tried again.

    The calls of all items of a mapped task are counted together.

    Args:
        times: how many calls fail.
        then: what the next ones return; or a function to be called then, with the task's context.
        error: what is raised till then; a ConnectionError if left out.

    Raises:
        ValueError: `times` is no whole number from 0 on.
    """
    if type(times) is not int or times < 0:
        raise ValueError(f"times= is a whole number from 0 on, not {times!r}")

    def act(ctx: Context, before: int) -> Any:
        if before < times:
            raise ConnectionError(f"failure {before + 1} of {times}") if error is None else _fresh(error)
        return then(ctx) if callable(then) else then

    return Fake(f"fails({times}, then={then!r})", act)


def hangs() -> Hang:
    """A fake that never returns: for the time-outs of a task, which with a `VirtualClock` take no time."""
    return Hang()


def _fresh(error: BaseException | type[BaseException]) -> BaseException:
    """The error to be raised now: an instance gathers a traceback each time it is raised."""
    return error() if isinstance(error, type) else error.with_traceback(None)


# --- definitions with fakes in them ---


def task_id_of(definition: FlowDefinition, task: TaskName) -> str:
    """A task's id or path, where the decorated function may be given instead.

    Raises:
        UnknownDependencyError: the function is no task of the flow.
        AmbiguousDependencyError: it is several.
    """
    return task if isinstance(task, str) else definition.task_of("(a test)", task)


def with_fakes(definition: FlowDefinition, fakes: Fakes) -> FlowDefinition:
    """A copy of a flow's definition, its nested flows included, with functions in the place of some tasks.

    All else stays as it was declared: dependencies, retries, time-outs, conditions, maps.

    Raises:
        UnknownTaskError: there is no such task; the error suggests a near name.
        TaskFunctionError: the function in its place has parameters that nobody fills.
    """
    by_place: dict[tuple[str, ...], Any] = {}
    for task, fake in fakes.items():
        by_place[tuple(task_id_of(definition, task).split("."))] = fake
    return _copied(definition, by_place)


def _copied(definition: FlowDefinition, fakes: Mapping[tuple[str, ...], Any]) -> FlowDefinition:
    # By levels and not by recursion: flows may nest deep. Each level is copied before those inside it are put into it.
    whole = copied(definition)
    waiting: list[tuple[FlowDefinition, Mapping[tuple[str, ...], Any]]] = [(whole, fakes)]
    while waiting:
        flow, here = waiting.pop()
        inside: dict[str, dict[tuple[str, ...], Any]] = {}
        for place, fake in here.items():
            task = known_task(flow, place[0])
            if len(place) == 1:
                flow.tasks[task.task_id] = faked(flow, task, fake)
            else:
                inside.setdefault(place[0], {})[place[1:]] = fake
        for task_id, deeper in inside.items():
            task = flow.tasks[task_id]
            if task.child is None:
                path = ".".join(next(iter(deeper)))
                what = "is a task" if task_id not in {place[0] for place in here if len(place) == 1} else "has a fake itself"
                raise InvalidOptionError("fakes", f"{task_id}.{path}", f"inside a subflow, but {task_id!r} {what}")
            child = copied(task.child)
            flow.tasks[task_id] = replace(task, child=child)
            waiting.append((child, deeper))
    return whole


def copied(definition: FlowDefinition) -> FlowDefinition:
    """A flow's definition that may be changed without anybody noticing."""
    made = FlowDefinition(definition.name, executor=definition.executor)
    made.copy_from(definition)
    return made


def known_task(flow: FlowDefinition, task_id: str) -> TaskDefinition:
    """A task of a flow by its id.

    Raises:
        UnknownTaskError: there is none; the error suggests a near name.
    """
    found = flow.tasks.get(task_id)
    if found is None:
        raise UnknownTaskError(f"Flow {flow.name!r}", task_id, closest(task_id, flow.tasks))
    return found


def faked(flow: FlowDefinition, task: TaskDefinition, fake: Any) -> TaskDefinition:
    """A task with another function in the place of its own; of a subflow, in the place of the whole."""
    if not callable(fake):
        fake = returns(fake)
    mapped = task.rules.map_over is not None
    called, is_async = checked(task.task_id, fake, task.depends_on, mapped)
    called, is_async = _as_kind_of(task, fake, called, is_async)
    if task.rules.run_if is not None:
        called = _asking(task.task_id, called, is_async, task.rules.run_if, task.depends_on, mapped)
    # It keeps the function that was decorated: by that, others may pull its output.
    options = task.options
    if options.executor is not None or flow.executor is not None:  # a fake is known to this process alone
        options = replace(options, executor=None if is_async else "thread")
    return replace(task, called=called, is_async=is_async, child=None, params=None, options=options)


def _as_kind_of(task: TaskDefinition, fake: Any, called: Called, is_async: bool) -> tuple[Called, bool]:
    """A plain function in the place of a coroutine function becomes one, too: conditions and time-outs stay what they were."""
    if is_async or inspect.iscoroutinefunction(fake):
        return called, True
    if not task.is_async:
        return called, False

    async def call(ctx: Context) -> Any:
        return called(ctx)

    call.__qualname__ = function_name(fake)
    return call, True
