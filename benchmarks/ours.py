"""The engine's side of each comparison: a flow of a given shape, run once.

Only through the public face. What is timed is `run_until_complete`, from its call to its return, with the state on disk and
flushed; declaring the flow, opening the store and `init_run` are lines of their own.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from app.infra.flow import AsyncFlow, JsonStore, SQLiteStore, Store, WorkflowRun

from .shapes import Graph

TaskFunction = Callable[[Any], Any]


async def coroutine(ctx: object) -> int:  # noqa: ARG001
    """A coroutine task that has nothing to do."""
    return 1


def function(ctx: object) -> int:  # noqa: ARG001
    """A function task that has nothing to do; it runs in a thread."""
    return 1


def sqlite_store(folder: Path) -> Store:
    """The default store, as it comes."""
    return SQLiteStore(folder / "ours.db")


def json_store(folder: Path) -> Store:
    """The JSON store, as it comes."""
    return JsonStore(folder / "ours")


def declare(tasks: Iterable[tuple[str, tuple[str, ...]]], store: Store, body: TaskFunction) -> AsyncFlow:
    """A flow of these tasks and what they depend on, all of which do the same."""
    flow = AsyncFlow("benchmark", store)
    for task_id, upstream in tasks:
        flow.add_task_definition(task_id, body, dependencies=upstream)
    return flow


def check(run: WorkflowRun, tasks: int) -> None:
    """Make sure that the work was done: that all tasks succeeded, with their outputs.

    Raises:
        AssertionError: it was not.
    """
    run.raise_for_failure()
    done = sum(task.output_json == 1 for task in run.tasks.values())
    if done != tasks:
        raise AssertionError(f"{done} of {tasks} tasks have their output")


def seconds(
    graph: Graph, folder: Path, make_store: Callable[[Path], Store] = sqlite_store, body: TaskFunction = coroutine
) -> float:
    """How long a run of the graph takes.

    Args:
        graph: the tasks.
        folder: an empty one, for the store.
        make_store: makes it.
        body: what each task does.
    """

    async def timed() -> float:
        gc.collect()
        begin = time.perf_counter()
        run = await flow.run_until_complete(run_id)
        took = time.perf_counter() - begin
        check(run, len(graph))
        return took

    with make_store(folder) as store:
        flow = declare(graph.items(), store, body)
        run_id = flow.init_run()
        return asyncio.run(timed())
