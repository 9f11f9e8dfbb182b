"""Sketches of flows with rules, conditions, branches and maps: drawn at random, and made into flows that a witness watches.

What a sketch comes to is the business of `reference`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from .. import AsyncFlow, Context, SkipTask, Store, TriggerRule, WorkflowRun
from .reference import (
    ALWAYS_FAILS,
    PLAINLY,
    Does,
    Ended,
    Sketch,
    Sketched,
    key_of,
    upstream,
    value_of,
)
from .reference import Handed as HandedTo

MANY = 1_000_000
"""Of deaths of the process, that a task may see: what kills it here is not the task."""
PARAMS = {"base": 1}
"""Of every run."""
# --- at random ------------------------------------------------------------------------------------------------------------


def random_sketch(rng: Random, depth: int = 0) -> Sketch:
    """Tasks under all rules, some of which are branches, mapped or flows themselves, and some of which fail or are skipped."""
    tasks: list[Sketched] = []
    for number in range(rng.randint(1, 8 - 4 * depth)):
        tasks.append(_random_task(rng, f"t{number}", tasks, depth))
    return _choosing(rng, tuple(tasks))


def _random_task(rng: Random, task_id: str, before: list[Sketched], depth: int) -> Sketched:
    map_over = _random_source(rng, before) if before and rng.random() < 0.4 else None
    after = tuple(
        rng.sample(
            [other.id for other in before if other.id != map_over],
            min(rng.choice([0, 0, 1] if map_over else [0, 1, 1, 2, 3]), len(before) - bool(map_over)),
        )
    )
    task = Sketched(
        task_id,
        tuple(sorted(after)),
        rule="all_success" if rng.random() < (0.6 if map_over else 0.4) else rng.choice([rule.value for rule in TriggerRule]),
        map_over=map_over,
        has_run_if=rng.random() < 0.2,
        is_async=rng.random() < 0.8,
        turns=rng.choice([0, 0, 1, 3, 8]),
        repeats_map_over=rng.random() < 0.3,
    )
    if map_over is not None:
        task = replace(task, does=tuple(_random_deed(rng) for _ in range(rng.randint(1, 4))))
        if not any(other.id == map_over and other.map_over for other in before):
            task = replace(task, keys=rng.choice(["index"] * 10 + ["good"] * 6 + ["same", "odd", "number", "raises"]))
        if rng.random() < 0.1:
            task = replace(task, max_map_size=2)
    else:
        task = replace(task, does=(_random_deed(rng),))
    if depth < 1 and rng.random() < 0.15:
        inherited = ("base", "own") if task.is_early() else ("base", "own", *task.after)
        if task.map_over is not None:
            inherited += ("map_index",) if task.rule == "always" else ("item", "map_index")
        child = tuple(
            replace(inner, tells=inherited) if inner.gives == "value" and not inner.child else inner
            for inner in random_sketch(rng, depth + 1)
        )
        return replace(task, child=child)
    task = replace(task, max_retries=rng.choice([0, 0, 1, 2]), retry_delay=rng.choice([0, 0.5, 3]))
    kind = rng.random()
    if map_over is None and kind < 0.2:
        return replace(task, gives="choice", is_terse=rng.random() < 0.5)
    if kind < 0.55:
        gives = rng.choice(["list", "list", "list", "tuple", "text"] if rng.random() < 0.5 else ["list"])
        if rng.random() < 0.6:  # more to map over
            task = replace(task, does=(PLAINLY,), rule=rng.choice(["all_success", "all_done"]))
        return replace(task, gives=gives, length=rng.choice([0, 1, 2, 3, 4]))
    return task


def _random_source(rng: Random, before: list[Sketched]) -> str:
    """What to map over: mostly something that gives a list, or is mapped itself."""
    likely = [other.id for other in before if other.map_over is not None or other.gives in ("list", "tuple", "choice")]
    return rng.choice(likely if likely and rng.random() < 0.9 else [other.id for other in before])


def _random_deed(rng: Random) -> Does:
    return Does(
        run_if=rng.choice(["yes", "yes", "no", "raises"] if rng.random() < 0.5 else ["yes", "no"]),
        failures=rng.choice([0] * 12 + [1, 2, ALWAYS_FAILS, ALWAYS_FAILS]),
        skips=rng.random() < 0.1,
    )


def _choosing(rng: Random, sketch: Sketch) -> Sketch:
    """Have the branches choose among those right behind them; one in ten names somebody else, too."""
    found: list[Sketched] = []
    for task in sketch:
        if task.is_branch:
            behind = [other.id for other in sketch if task.id in other.upstreams]
            chosen = [other for other in behind if rng.random() < 0.5]
            if rng.random() < 0.1:
                chosen.append("t99")
            task = replace(task, chooses=tuple(chosen))
        found.append(task)
    return tuple(found)


# --- as flows -------------------------------------------------------------------------------------------------------------


@dataclass
class Witness:
    """Sees what tasks do, outside the store; all complaints are to be empty at the end."""

    mended: bool = False
    """Whether what always fails does not any more."""
    safe: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """The run and the id of each task that must not run again."""
    pulled: list[tuple[str, str, str, Any]] = field(default_factory=list[tuple[str, str, str, Any]])
    """What was pulled: in which run, by which task, whose output, and what that was."""
    complaints: list[str] = field(default_factory=list[str])

    def began(self, ctx: Context) -> None:
        """An attempt begins."""
        where = (ctx.workflow_run.id, ctx.task_id)
        if where in self.safe:
            self.complain(ctx, "had succeeded, and began again")

    def complain(self, ctx: Context, what: str) -> None:
        """Something is wrong."""
        self.complaints.append(f"{ctx.workflow_run.flow_name}: {ctx.task_id} {what}")

    def remember_successes(self, store: Store, run_id: str) -> None:
        """From now on, what has succeeded must not run again."""
        self.safe = set(_successes(store, store.load(run_id)))


def _successes(store: Store, run: WorkflowRun) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for task in run.tasks.values():
        if task.state == "success":
            found.append((run.id, task.task_id))
        if task.child_run_id is not None:
            found.extend(_successes(store, store.load(task.child_run_id)))
    return found


def mend(sketch: Sketch) -> Sketch:
    """The same where nothing fails for good that a function does: neither attempts nor conditions."""

    def mended(does: Does) -> Does:
        run_if = "yes" if does.run_if == "raises" else does.run_if
        return replace(does, run_if=run_if, failures=0 if does.failures == ALWAYS_FAILS else does.failures)

    return tuple(
        replace(
            task,
            does=tuple(map(mended, task.does)),
            max_retries=max([task.max_retries, *(mended(does).failures for does in task.does)]),
            child=mend(task.child),
        )
        for task in sketch
    )


def _function(task: Sketched, sketch: Sketch, witness: Witness) -> Callable[..., Any]:
    far = sorted(upstream(sketch, task.id) - set(task.after))

    def begin(ctx: Context) -> HandedTo:
        witness.began(ctx)
        pulled = {other: ctx.pull_output(other) for other in task.after}
        for other in far:
            witness.pulled.append((ctx.workflow_run.id, ctx.task_id, other, ctx.pull_output(other)))
        witness.pulled.extend((ctx.workflow_run.id, ctx.task_id, other, value) for other, value in pulled.items())
        if (ctx.map_index is None) is (task.map_over is not None):
            witness.complain(ctx, f"has the map index {ctx.map_index!r}")
        return HandedTo(ctx.params, pulled, ctx.item, ctx.map_index)

    def end(ctx: Context, handed: HandedTo) -> Any:
        does = task.what(handed.index)
        failures = 0 if witness.mended and does.failures == ALWAYS_FAILS else does.failures
        if ctx.attempt_number - ctx.task_instance.interruptions < (
            min(failures, task.max_retries) if witness.mended else failures
        ):
            raise ValueError(f"failure of {ctx.task_id}")
        if does.skips:
            raise SkipTask(f"{ctx.task_id} said so")
        return value_of(task, handed)

    def work(ctx: Context) -> Any:
        return end(ctx, begin(ctx))

    async def work_on_the_loop(ctx: Context) -> Any:
        handed = begin(ctx)
        for _ in range(task.turns):
            await asyncio.sleep(0)
        return end(ctx, handed)

    def work_on_an_item(ctx: Context, item: Any) -> Any:
        if item != ctx.item:
            witness.complain(ctx, f"was handed {item!r} in place of its item")
        return work(ctx)

    async def work_on_an_item_on_the_loop(ctx: Context, item: Any) -> Any:
        if item != ctx.item:
            witness.complain(ctx, f"was handed {item!r} in place of its item")
        return await work_on_the_loop(ctx)

    if task.map_over is not None and task.turns:
        return work_on_an_item_on_the_loop if task.is_async else work_on_an_item
    return work_on_the_loop if task.is_async else work


def _condition(task: Sketched, witness: Witness) -> Callable[[Context], Any]:
    def says(ctx: Context) -> Any:
        witness.began(ctx)
        answer = task.what(ctx.map_index).run_if
        if answer == "raises" and not witness.mended:
            raise ValueError(f"failure of {ctx.task_id}")
        return "" if answer == "no" else "yes"

    async def says_on_the_loop(ctx: Context) -> Any:
        await asyncio.sleep(0)
        return says(ctx)

    return says_on_the_loop if task.is_async and not task.child and task.turns else says


def build(sketch: Sketch, witness: Witness, name: str = "flow", **options: Any) -> AsyncFlow:
    """A flow of the sketch.

    Args:
        sketch: its tasks.
        witness: sees what they do.
        name: its name; those of the flows nested in it begin with it.
        options: for `AsyncFlow`: a store, a clock ...
    """
    flow = AsyncFlow(name, **options)
    for task in sketch:
        said: dict[str, Any] = {
            "dependencies": task.upstreams if task.repeats_map_over else task.after,
            "max_retries": task.max_retries,
            "retry_delay": task.retry_delay,
            "max_interruptions": MANY,
            "trigger_rule": task.rule,
            "run_if": _condition(task, witness) if task.has_run_if else None,
        }
        if task.map_over is not None:
            said["map_over"] = task.map_over
            if task.max_map_size is not None:
                said["max_map_size"] = task.max_map_size
            if task.keys != "index":
                said["map_key"] = _key(task)
        if task.child:
            child = build(task.child, witness, f"{name} {task.id}")
            flow.add_subflow_definition(task.id, child, params={"own": task.id}, **said)
        else:
            flow.add_task_definition(task.id, _function(task, sketch, witness), branch=task.is_branch, **said)
    return flow


def _key(task: Sketched) -> Callable[[Any], Any]:
    return lambda item: key_of(task, item)


# --- what was found -------------------------------------------------------------------------------------------------------


def outcome(store: Store, run_id: str) -> dict[str, Any]:
    """What a run has come to: its state and of each task, items too, the state and the output; subflows nested."""
    run = store.load(run_id)
    tasks: dict[str, Any] = {}
    for task in run.tasks.values():
        found: tuple[Any, ...] = (task.state.value, task.output if task.state == "success" else None)
        if task.child_run_id is not None:
            found = (*found, outcome(store, task.child_run_id))
        tasks[task.task_id] = found
    return {"state": run.state.value, "tasks": tasks}


def wanted(ended: Ended) -> dict[str, Any]:
    """The same, of what a run must come to."""
    tasks: dict[str, Any] = {}
    items: dict[str, Any] = {}
    for task_id, end in ended.tasks.items():
        tasks[task_id] = _wanted(end)
        for key, item in (end.items or {}).items():
            items[f"{task_id}[{key}]"] = _wanted(item)
    return {"state": ended.state, "tasks": {**tasks, **items}}


def _wanted(end: Any) -> tuple[Any, ...]:
    found = (end.state, end.output if end.state == "success" else None)
    return found if end.inside is None else (*found, wanted(end.inside))


def runs_of(store: Store, run_id: str, sketch: Sketch, ended: Ended) -> dict[str, tuple[WorkflowRun, Sketch, Ended]]:
    """By id, each run of a tree, with its sketch and what it was to come to."""
    run = store.load(run_id)
    found = {run_id: (run, sketch, ended)}
    for task in sketch:
        end = ended.tasks[task.id]
        for path, one in [(task.id, end), *((f"{task.id}[{key}]", item) for key, item in (end.items or {}).items())]:
            if one.inside is not None:
                child_run_id = run.tasks[path].child_run_id
                assert child_run_id is not None
                found.update(runs_of(store, child_run_id, task.child, one.inside))
    return found


def check_pulls(witness: Witness, runs: dict[str, tuple[WorkflowRun, Sketch, Ended]]) -> None:
    """What tasks pulled is what was there in the end, or None where it was not there yet or never came."""
    for run_id, task_id, other, value in witness.pulled:
        _, sketch, ended = runs[run_id]
        output = ended.tasks[other].output
        assert value is None or value == output, f"{task_id} pulled {value!r} of {other}, which gave {output!r}"
        task = next(task for task in sketch if task.id == task_id.partition("[")[0])
        if other in task.after and not task.is_early():
            assert value == output, f"{task_id} pulled {value!r} of {other}, which gave {output!r}"


def check_reasons(runs: dict[str, tuple[WorkflowRun, Sketch, Ended]]) -> None:
    """Whatever was skipped or failed says why."""
    for run, sketch, ended in runs.values():
        for task in sketch:
            end = ended.tasks[task.id]
            _check_reason(run, task, task.id, end, ended)
            for key, item in (end.items or {}).items():
                _check_reason(run, task, f"{task.id}[{key}]", item, ended)


def _check_reason(run: WorkflowRun, task: Sketched, path: str, end: Any, ended: Ended) -> None:
    reason = run.tasks[path].reason
    if end.state == "success":
        assert not reason, f"{path} succeeded because of {reason!r}"
        return
    assert reason, f"{path} does not say why it is {end.state}"
    if end.why == "said":
        assert reason == f"{path} said so"
    elif end.why == "run_if":
        assert reason.startswith("run_if (") and reason.endswith(") said no"), reason
    elif end.why == "branch" and len(task.upstreams) == 1:
        assert reason == f"branch {task.upstreams[0]!r} did not choose it"
    elif end.why == "rule":
        assert not reason.startswith(("branch ", "run_if ")), reason
    elif end.state == "failed" and end.why == "items":
        bad = sum(item.counts_as == "failed" for item in end.items.values())
        assert reason.startswith(f"{bad} of {len(end.items)} items failed: {task.id}["), reason
    elif end.why == "list":
        assert repr(task.map_over) in reason, reason
