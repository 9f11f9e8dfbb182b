"""Random flows, crashed at random commits and continued, end as they do undisturbed. A seed that fails is named by its test."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, Changes, Context, Store
from .conftest import STORE_KINDS, FakeClock, make_store

SEEDS = {"memory": 120, "sqlite": 25, "json": 25}


class Crash(BaseException):
    """The process is gone: nothing after it happens."""


def random_tasks(rng: random.Random, depth: int = 0) -> list[dict[str, Any]]:
    """A drawing of a flow: tasks that depend on earlier ones, fail a few times, change params, or are flows themselves."""
    tasks: list[dict[str, Any]] = []
    for number in range(rng.randint(1, 5)):
        task: dict[str, Any] = {
            "id": f"t{number}",
            "depends_on": [other["id"] for other in tasks if rng.random() < 0.4],
            "max_retries": rng.choice([0, 0, 1, 2]),
            "retry_delay": rng.choice([0, 0.5, 3]),
        }
        if depth < 2 and rng.random() < 0.3:
            task["child"] = random_tasks(rng, depth + 1)
            task["params"] = rng.choice([None, {"own": number}, "function"])
        else:
            task["is_async"] = rng.random() < 0.7
            task["failures"] = rng.choice([0, 0, 0, 0, 1, 1, 2, 99])
            task["changes_params"] = rng.random() < 0.3
        tasks.append(task)
    return tasks


def function_of(task: dict[str, Any]) -> Any:
    """A task that fails as often as it is drawn to; interrupted attempts do not count."""

    def work(ctx: Context) -> Any:
        pulled = tuple(ctx.pull(dependency) for dependency in task["depends_on"])
        if task["changes_params"]:
            ctx.params[f"by_{ctx.task_id}"] = {ctx.task_id}
        if ctx.attempt_number - ctx.task_instance.interruptions < task["failures"]:
            raise ValueError(f"failure of {ctx.task_id}")
        return [ctx.task_id, pulled]

    async def work_on_the_loop(ctx: Context) -> Any:
        return work(ctx)

    return work_on_the_loop if task["is_async"] else work


def build(tasks: list[dict[str, Any]], store: Store | None, clock: FakeClock, name: str = "flow") -> AsyncFlow:
    flow = AsyncFlow(name, store, clock=clock)
    for task in tasks:
        options = {key: task[key] for key in ("max_retries", "retry_delay")}
        if "child" in task:
            params = (lambda ctx: {"made": ctx.task_id}) if task["params"] == "function" else task["params"]
            child = build(task["child"], None, clock, f"{name} {task['id']}")
            flow.add_subflow_definition(task["id"], child, dependencies=task["depends_on"], params=params, **options)
        else:
            flow.add_task_definition(task["id"], function_of(task), dependencies=task["depends_on"], **options)
    return flow


def outcome(store: Store, run_id: str) -> dict[str, Any]:
    """What a run came to: states, outputs, params, causes, and how often each task succeeded; subflows nested.

    Left out is what depends on which of two tasks side by side was first: the cause that a skipped task names, and which of
    its parent's changed params a subflow was given.
    """
    run = store.load(run_id)
    successes = [attempt.task_id for attempt in store.list_attempts(run_id) if attempt.result == "success"]
    return {
        "state": run.state,
        "params": {key: value for key, value in run.params.items() if run.parent_run_id is None or not key.startswith("by_")},
        "tasks": {
            task.task_id: (
                task.state,
                task.reason if task.state == "failed" and not task.child_run_id else None,
                outcome(store, task.child_run_id) if task.child_run_id else task.output_json,
                successes.count(task.task_id),
            )
            for task in run.tasks.values()
        },
    }


async def drive(store: Store, tasks: list[dict[str, Any]], limit: int, crashes: dict[int, bool]) -> int:
    """Run the flow to its end, with a crash at each commit of the given numbers (True: after it was done); the commits made."""
    commit, commits = store.commit, 0

    def crashing(changes: Changes) -> None:
        nonlocal commits
        commits += 1
        if crashes.get(commits) is False:
            raise Crash
        commit(changes)
        if crashes.get(commits) is True:
            raise Crash

    store.commit = crashing  # type: ignore[method-assign]
    clock = FakeClock()
    while True:
        flow = build(tasks, store, clock)
        try:
            flow.init_run({"base": 1}, run_id="run")
            await flow.run_until_complete("run", limit)
        except Crash:
            continue
        return commits


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in STORE_KINDS for seed in range(SEEDS[kind])])
async def test_a_run_that_crashes_again_and_again_ends_like_one_that_does_not(kind: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    tasks, limit = random_tasks(rng), rng.choice([0, 0, 1, 2])
    calm, stormy = (make_store(kind, tmp_path / name) for name in ("calm", "stormy"))
    for name in ("calm", "stormy"):
        (tmp_path / name).mkdir()
    commits = await drive(calm, tasks, limit, {})
    points = rng.sample(range(1, commits + 4), rng.randint(1, 3))
    await drive(stormy, tasks, limit, {point: rng.random() < 0.5 for point in points})
    assert outcome(stormy, "run") == outcome(calm, "run")
    for store in (calm, stormy):
        store.close()
