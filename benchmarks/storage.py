"""What a run takes on the disk, and how long it takes to look at one among many.

Bytes: all files of a store with one run of 10,000 tasks, whose outputs are a small number, after it was closed; by the number
of tasks. Beside it the yardstick's database. Looking: a file of 10,000 runs of three tasks each, of which every tenth has
failed, made by copying the records of two runs that the engine made. Each question is asked through the public face, on an open
store, in milliseconds.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Set
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.infra.flow import AsyncFlow, Changes, Context, ExecutionState, SQLiteStore, Store

from . import yardsticks
from .measure import Group, Line, Options, fresh_folder
from .ours import check, coroutine, declare, sqlite_store
from .shapes import GROWING, Graph

BYTES_LIMIT = 700.0
LOOK_LIMIT = 50.0
"""Milliseconds."""

FAILED_EVERY = 10
LATEST = 20
"""How many of the latest failures are asked for."""

LOOKS = ("list", "show", "latest-failures")


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:
    """Measure the chosen lines."""
    tasks = 1_000 if options.quick else 10_000
    for shape, make in GROWING.items():
        name = f"bytes-{shape}"
        if name in chosen:
            graph = dict(make(tasks))
            ours, theirs = our_bytes(graph) / tasks, their_bytes(graph) / tasks
            yield Line(name, f"at most {BYTES_LIMIT:.0f} bytes", "B/task", ours, "a plain table", theirs, limit=BYTES_LIMIT)
    if not chosen.isdisjoint(LOOKS):
        yield from _looks(1_000 if options.quick else 10_000, 2 * options.rounds, chosen)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def our_bytes(graph: Graph) -> int:
    """How large a store with one run of the graph is."""
    with fresh_folder() as folder:
        with sqlite_store(folder) as store:
            flow = declare(graph.items(), store, coroutine)
            check(asyncio.run(flow.run_until_complete(flow.init_run())), len(graph))
        return _size(folder)


def their_bytes(graph: Graph) -> int:
    """How large the yardstick's database is."""
    with fresh_folder() as folder:
        with closing(yardsticks.database(folder)) as connection:
            yardsticks.save_together(connection, yardsticks.scheduled(graph))
            done: list[yardsticks.Change] = [
                (yardsticks.RUN_ID, task_id, "success", time.time(), time.time(), "1") for task_id in graph
            ]
            yardsticks.save_together(connection, done)
        return _size(folder)


def _looks(runs: int, rounds: int, chosen: Set[str]) -> Iterator[Line]:
    with fresh_folder() as folder, SQLiteStore(folder / "runs.db") as store:
        flow = nightly(store)
        fill(store, flow, runs)
        failures, how = latest_failures(store)
        looks: dict[str, tuple[Callable[[], Any], str]] = {
            "list": (store.list_runs, "store.list_runs()"),
            "show": (lambda: flow.get_execution_details(f"run-{runs // 2}"), "flow.get_execution_details(run_id)"),
            "latest-failures": (failures, how),
        }
        for name in LOOKS:
            if name in chosen:
                look, call = looks[name]
                took = statistics.median(_milliseconds(look) for _ in range(rounds))
                budget = f"at most {LOOK_LIMIT:.0f} ms, {runs:,} runs"
                yield Line(name, budget, "ms", took, limit=LOOK_LIMIT, note=call)


def _milliseconds(look: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    found = look()
    took = time.perf_counter() - begin
    if not found:
        raise AssertionError(f"{look} found nothing")
    return took * 1000


def nightly(store: Store) -> AsyncFlow:
    """A flow of three tasks, whose second fails if its params say so."""
    flow = AsyncFlow("nightly", store)

    @flow.task
    async def extract(ctx: Context) -> list[int]:  # noqa: ARG001
        return [1, 2, 3]

    @flow.task(depends_on=[extract])
    async def transform(ctx: Context) -> int:
        if ctx.params["fails"]:
            raise ConnectionError("the service is down")
        return 6

    @flow.task(depends_on=[transform])
    async def load(ctx: Context) -> str:  # noqa: ARG001
        return "done"

    return flow


def fill(store: Store, flow: AsyncFlow, runs: int) -> None:
    """Put runs into a store: copies of one that succeeded and, every so often, of one that failed."""
    templates = []
    for fails in (False, True):
        template = asyncio.run(flow.run_until_complete(flow.init_run({"fails": fails}))).id
        templates.append((store.read_run(template), store.read_tasks(template)))
    numbers = iter(range(runs))
    while batch := list(itertools.islice(numbers, 1_000)):
        changes = Changes()
        for number in batch:
            run, tasks = templates[number % FAILED_EVERY == FAILED_EVERY - 1]
            run_id = f"run-{number}"
            changes.new_runs.append(replace(run, id=run_id, created=run.created + number))
            changes.tasks += [replace(task, run_id=run_id) for task in tasks]
        store.commit(changes)


def latest_failures(store: Store) -> tuple[Callable[[], Any], str]:
    """How people find the latest runs that failed, and how that is written."""
    if {"state", "limit"} <= set(inspect.signature(store.list_runs).parameters):
        ask: Callable[..., Any] = store.list_runs
        return lambda: ask(state="failed", limit=LATEST), f'store.list_runs(state="failed", limit={LATEST})'

    def found() -> list[str]:
        failed = (run.id for run in store.get_all_runs(include_tasks=False) if run.state is ExecutionState.FAILED)
        return list(itertools.islice(failed, LATEST))

    return found, "store.get_all_runs(include_tasks=False), those that failed"


GROUP = Group("storage", [*(f"bytes-{shape}" for shape in GROWING), *LOOKS], run)
