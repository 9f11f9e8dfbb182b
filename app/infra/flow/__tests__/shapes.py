"""Flows as drawings: ten shapes of graphs and random ones, what each must come to, and flows made of them that a witness watches.

What a drawing must come to is worked out from the drawing alone, so that the engine is not compared with itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol

from .. import AsyncFlow, Context, NonRetryableError, RetryAfter, Store

MANY = 1_000_000
"""Of deaths of the process, that a task may see: what kills it here is not the task."""
PARAMS = {"base": 1}
"""Of every run."""


class TaskError(BaseException):
    """What a task raises that means no good: it is not even an Exception."""


ERRORS: tuple[type[BaseException], ...] = (ValueError, ValueError, SystemExit, StopIteration, asyncio.CancelledError, TaskError)


@dataclass(frozen=True)
class Drawn:
    """One task of a drawing."""

    id: str
    after: tuple[str, ...] = ()
    is_async: bool = True
    pause: float = 0.0
    """Seconds that a coroutine sleeps in the middle of its work."""
    stubborn: bool = False
    """Whether a coroutine that is cancelled does its work all the same."""
    failures: int = 0
    """How many attempts fail; interrupted ones do not count."""
    error: type[BaseException] = ValueError
    max_retries: int = 0
    retry_delay: float = 0.0
    changes_params: bool = False
    child: tuple[Drawn, ...] = ()
    """The tasks of the flow that it is; none if it is a function."""
    params: str = ""
    """The child's own params: a "mapping", or made by a "function"."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else it is declared with: a time-out, a pool ... With `retry=` here, `max_retries` and `retry_delay` are what that
    comes to: the number, and the least delay."""
    hangs: int = 0
    """How many attempts, before those that fail, do not end by themselves; there is a time-out then."""
    deaf: float = 0.0
    """Seconds for which a coroutine that is cancelled does not listen."""
    beats: bool = False
    """Whether it gives signs of life while it sleeps."""

    @property
    def fails(self) -> bool:
        """Whether it does so in the end."""
        for attempt in range(max(self.hangs, self.failures)):
            if attempt >= self.max_retries or (attempt >= self.hangs and issubclass(self.error, NonRetryableError)):
                return True
        return False


Drawing = tuple[Drawn, ...]


def _of(*tasks: Drawn) -> Drawing:
    return tasks


_INNER = _of(Drawn("a", changes_params=True), Drawn("b", ("a",), is_async=False))
SHAPES: dict[str, Drawing] = {
    "one task": _of(Drawn("a")),
    "a chain": _of(Drawn("a", changes_params=True), Drawn("b", ("a",), is_async=False), Drawn("c", ("b",)), Drawn("d", ("c",))),
    "fan out": _of(Drawn("a"), *(Drawn(f"b{number}", ("a",), is_async=number % 2 > 0) for number in range(4))),
    "fan in": _of(*(Drawn(f"a{number}", changes_params=number > 1) for number in range(4)), Drawn("b", ("a0", "a1", "a2", "a3"))),
    "a diamond": _of(Drawn("a"), Drawn("b", ("a",), pause=0.01), Drawn("c", ("a",), is_async=False), Drawn("d", ("b", "c"))),
    "layers": _of(
        *(Drawn(f"a{number}") for number in range(2)),
        *(Drawn(f"b{number}", ("a0", "a1")) for number in range(2)),
        *(Drawn(f"c{number}", ("b0", "b1"), is_async=False) for number in range(2)),
    ),
    "a branch that fails": _of(
        Drawn("a"), Drawn("b", ("a",), failures=99), Drawn("c", ("b",)), Drawn("d", ("a",)), Drawn("e", ("c", "d"))
    ),
    "retries": _of(
        Drawn("a", failures=2, max_retries=2, retry_delay=0.5),
        Drawn("b", ("a",), is_async=False, failures=1, max_retries=1),
        Drawn("c", failures=2, max_retries=1, retry_delay=3),
    ),
    "a subflow": _of(
        Drawn("a"), Drawn("sub", ("a",), child=_INNER, params="function"), Drawn("b", ("sub",), changes_params=True)
    ),
    "subflows in subflows": _of(
        Drawn(
            "outer", child=_of(Drawn("inner", child=_INNER, params="mapping"), Drawn("c", ("inner",), failures=1)), max_retries=1
        ),
        Drawn("beside", child=_of(Drawn("a", failures=1, max_retries=1))),
        Drawn("last", ("beside",)),
    ),
}
"""The ten that are crashed at every commit."""


def random_drawing(rng: Random, depth: int = 0) -> Drawing:
    """Tasks that depend on earlier ones, fail a few times, change params, or are flows themselves."""
    tasks: list[Drawn] = []
    for number in range(rng.randint(1, 5)):
        task = Drawn(
            f"t{number}",
            tuple(other.id for other in tasks if rng.random() < 0.4),
            max_retries=rng.choice([0, 0, 1, 2]),
            retry_delay=rng.choice([0, 0.5, 3]),
        )
        if depth < 2 and rng.random() < 0.3:
            task = replace(task, child=random_drawing(rng, depth + 1), params=rng.choice(["", "mapping", "function"]))
        else:
            task = replace(
                task,
                is_async=rng.random() < 0.7,
                failures=rng.choice([0, 0, 0, 0, 1, 1, 2, 99]),
                changes_params=rng.random() < 0.3,
            )
        tasks.append(task)
    return tuple(tasks)


def unruly(drawing: Drawing, rng: Random) -> Drawing:
    """The same with tasks that take their time, do not want to be cancelled, and raise whatever there is."""
    return tuple(
        replace(
            task,
            pause=rng.choice([0.0, 0.0, 0.01, 0.3]),
            stubborn=rng.random() < 0.15,
            error=rng.choice(ERRORS),
            child=unruly(task.child, rng),
        )
        for task in drawing
    )


# --- what it must come to -------------------------------------------------------------------------------------------------

Outcome = dict[str, Any]


def _mark(flow_name: str, task_id: str) -> str:
    """The param that a task sets which changes params."""
    return f"by {flow_name}: {task_id}"


def _own_params(task: Drawn) -> dict[str, Any]:
    return {"": {}, "mapping": {"own": task.id}, "function": {"made": task.id}}[task.params]


def _reason(task: Drawn) -> str:
    if task.is_async and task.error is StopIteration:  # Python does not let one out of a coroutine
        return "RuntimeError: coroutine raised StopIteration"
    module = "" if task.error.__module__ == "builtins" else f"{task.error.__module__}."
    return f"{module}{task.error.__qualname__}: failure of {task.id}"


def _result(drawing: Drawing, found: Outcome) -> Any:
    """What a subflow gives to those that come after it: the output of its last task, or of its last ones by id."""
    waited_for = {other for task in drawing for other in task.after}
    last = {task_id: task[2] for task_id, task in found["tasks"].items() if task_id not in waited_for}
    outputs = {task_id: output["result"] if isinstance(output, dict) else output for task_id, output in last.items()}
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def expected(drawing: Drawing, name: str = "flow", params: Mapping[str, Any] = PARAMS) -> Outcome:
    """What a run of the drawing comes to, whatever disturbs it; see `outcome`."""
    tasks: dict[str, tuple[str, str | None, Any]] = {}
    values: dict[str, Any] = {}
    changed: dict[str, Any] = {}
    for task in drawing:
        if any(tasks[other][0] != "success" for other in task.after):
            tasks[task.id] = ("skipped", None, None)
            continue
        if task.child:
            handed = {**params, **{other: values[other] for other in task.after}, **_own_params(task)}
            inside = expected(task.child, f"{name} {task.id}", handed)
            values[task.id] = inside["result"] = _result(task.child, inside) if inside["state"] == "success" else None
            tasks[task.id] = (inside["state"], None, inside)
            continue
        if task.fails:
            tasks[task.id] = ("failed", _reason(task), None)
            continue
        values[task.id] = [task.id, tuple(values[other] for other in task.after)]
        tasks[task.id] = ("success", None, values[task.id])
        if task.changes_params:
            changed[_mark(name, task.id)] = {task.id}
    state = "failed" if any(found[0] == "failed" for found in tasks.values()) else "success"
    return {"state": state, "params": {**params, **changed}, "tasks": tasks, "result": None}


def outcome(store: Store, run_id: str) -> Outcome:
    """What a run has come to, subflows nested: state, params, and of each task the state, the cause of a failure, and the output.

    Left out is what depends on which of two tasks side by side was first: the cause that a skipped task names, and which of its
    parent's changed params a subflow was given.
    """
    run = store.load(run_id)
    own = _mark(run.flow_name, "")
    tasks: dict[str, tuple[str, str | None, Any]] = {}
    for task in run.tasks.values():
        if task.child_run_id is not None:
            inside = outcome(store, task.child_run_id)
            inside["result"] = task.output if task.state == "success" else None
            tasks[task.task_id] = (task.state.value, None, inside)
        else:
            tasks[task.task_id] = (task.state.value, task.reason if task.state == "failed" else None, task.output)
    params = {key: value for key, value in run.params.items() if key.startswith(own) or not key.startswith("by ")}
    return {"state": run.state.value, "params": params, "tasks": tasks, "result": None}


# --- flows ---------------------------------------------------------------------------------------------------------------


class Witness(Protocol):
    """Is told by each task what it does."""

    def began(self, ctx: Context, flow_name: str, task: Drawn) -> None:
        """An attempt begins."""
        ...

    def ends(self, ctx: Context, flow_name: str, task: Drawn) -> None:
        """It has done its work, and is about to return or to raise."""
        ...


def _function(task: Drawn, flow_name: str, witness: Witness) -> Any:
    def begin(ctx: Context) -> tuple[Any, ...]:
        witness.began(ctx, flow_name, task)
        return tuple(ctx.pull(other) for other in task.after)

    def end(ctx: Context, pulled: tuple[Any, ...]) -> Any:
        if task.changes_params:
            ctx.params[_mark(flow_name, task.id)] = {task.id}
        witness.ends(ctx, flow_name, task)
        if ctx.attempt_number - ctx.task_instance.interruptions < task.failures:
            raise RetryAfter(task.retry_delay) if task.error is RetryAfter else task.error(f"failure of {task.id}")
        return [task.id, pulled]

    def work(ctx: Context) -> Any:
        return end(ctx, begin(ctx))

    async def work_on_the_loop(ctx: Context) -> Any:
        pulled = begin(ctx)
        try:
            if ctx.attempt_number - ctx.task_instance.interruptions < task.hangs:
                await asyncio.Event().wait()
            for _ in range(10 if task.beats else 1):
                if task.pause:
                    await asyncio.sleep(task.pause / 10 if task.beats else task.pause)
                if task.beats:
                    ctx.heartbeat()
        except asyncio.CancelledError:
            if task.deaf:
                await _without_listening(task.deaf)
            if not task.stubborn:
                raise
        return end(ctx, pulled)

    return work_on_the_loop if task.is_async else work


async def _without_listening(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    over = loop.time() + seconds - 1e-6  # or what is left may be too short for time to go on
    while loop.time() < over:
        try:
            await asyncio.sleep(over - loop.time())
        except asyncio.CancelledError:
            pass


def build(drawing: Sequence[Drawn], witness: Witness, name: str = "flow", **options: Any) -> AsyncFlow:
    """A flow of the drawing.

    Args:
        drawing: its tasks.
        witness: is told by them what they do.
        name: its name; those of the flows nested in it begin with it.
        options: for `AsyncFlow`: a store, a clock ...
    """
    flow = AsyncFlow(name, **options)
    for task in drawing:
        policy: dict[str, Any] = {
            "dependencies": task.after,
            "max_retries": task.max_retries,
            "retry_delay": task.retry_delay,
            "max_interruptions": MANY,
        }
        if "retry" in task.options:
            policy = {"dependencies": task.after}
        if task.child:
            own: Any = _own_params(task)
            params: Any = (lambda ctx, own=own: own) if task.params == "function" else own or None
            flow.add_subflow_definition(task.id, build(task.child, witness, f"{name} {task.id}"), params=params, **policy)
        else:
            flow.add_task_definition(task.id, _function(task, name, witness), **policy, **task.options)
    return flow


class Nobody:
    """A witness who does not look."""

    def began(self, ctx: Context, flow_name: str, task: Drawn) -> None:
        """Look away."""

    def ends(self, ctx: Context, flow_name: str, task: Drawn) -> None:
        """Look away."""


def paths(drawing: Sequence[Drawn], before: str = "") -> list[str]:
    """The dotted paths of all tasks, those inside subflows too."""
    found: list[str] = []
    for task in drawing:
        found.append(before + task.id)
        found.extend(paths(task.child, f"{before}{task.id}."))
    return found
