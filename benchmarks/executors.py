"""What a task costs on each executor, beside the same functions submitted to it by hand: `python -m benchmarks.executors`.

Ours is a run on `SQLiteStore`, all of it: each start and each output committed, flushed at the end. By hand is no more than
`executor.submit` and awaiting what it gives, with nothing kept: for "inline", a coroutine for each task that calls the function;
for "thread", a `ThreadPoolExecutor` of as many threads as ours; for "process", a `ProcessPoolExecutor` of as many processes.
The functions do nothing. "fan" are many that depend on nothing, and one that depends on all of them; "chain" is one after the
other. Executors and workers are started and warm before; those of packages that are not installed are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Set
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from app.infra.flow import AsyncFlow

from .measure import ROOT, Group, Line, Options, compared, in_fresh_folder, interleaved
from .ours import check, function, sqlite_store
from .shapes import Graph, chain, fan
from .yardsticks import THREADS

GOAL = 1.3
PROCESSES = os.cpu_count() or 1
SHAPES = {"fan": fan, "chain": chain}


@dataclass(frozen=True)
class Kind:
    """An executor that is measured.

    Args:
        tasks: how many a run has.
        make: makes the executor that is used by hand; None has the functions called.
        brought: whether ours runs on the same one, instead of one of its own.
        package: what has to be installed.
    """

    tasks: int
    make: Callable[[], AbstractContextManager[Executor]] | None
    brought: bool = True
    package: str | None = None


def process_pool() -> Executor:
    """The standard library's, in processes that share nothing with this one."""
    return ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn"))


@contextmanager
def dask() -> Iterator[Executor]:
    """A Dask cluster on this machine: a scheduler here, and a process for each worker."""
    distributed: Any = importlib.import_module("distributed")
    with (
        distributed.LocalCluster(
            n_workers=PROCESSES, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor(pure=False)  # no two attempts are the same


def loky() -> Executor:
    """Loky's pool of processes."""
    make: Any = importlib.import_module("loky").ProcessPoolExecutor
    return make(PROCESSES)  # type: ignore[no-any-return]


def executorlib() -> Executor:
    """Executorlib's, with workers that stay."""
    make: Any = importlib.import_module("executorlib").SingleNodeExecutor
    return make(max_workers=PROCESSES, block_allocation=True)  # type: ignore[no-any-return]


KINDS = {
    "inline": Kind(1000, None, brought=False),
    "thread": Kind(1000, partial(ThreadPoolExecutor, THREADS), brought=False),
    "process": Kind(500, process_pool, brought=False),
    "process-pool": Kind(500, process_pool),
    "dask": Kind(200, dask, package="distributed"),
    "loky": Kind(500, loky, package="loky"),
    "executorlib": Kind(500, executorlib, package="executorlib"),
}


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:
    """Measure the chosen lines."""
    for name, kind in KINDS.items():
        shapes = [shape for shape in SHAPES if f"{name}-{shape}" in chosen]
        if not shapes:
            continue
        budget = f"at most {GOAL} x by hand"
        if kind.package is not None and find_spec(kind.package) is None:
            note = f"{kind.package} is not installed: see requirements-clusters.txt"
            yield from (Line(f"{name}-{shape}", budget, "us/task", None, limit=GOAL, note=note) for shape in shapes)
            continue
        with ExitStack() as stack:
            executor = stack.enter_context(kind.make()) if kind.make is not None else None
            if executor is not None:
                asyncio.run(by_hand_on(executor, dict(fan(4 * THREADS))))
            tasks = kind.tasks // 5 if options.quick else kind.tasks
            for shape in shapes:
                graph = dict(SHAPES[shape](tasks))
                ours = in_fresh_folder(partial(seconds, graph, executor if kind.brought else name), 1e6 / tasks)
                measures: dict[str, Callable[[], float]] = {"by hand": partial(by_hand, executor, graph), "ours": ours}
                found = interleaved(measures, options.rounds)
                added = median(mine - theirs for mine, theirs in zip(found["ours"], found["by hand"], strict=True))
                note = f"the engine adds {added:.0f} us"
                yield compared(f"{name}-{shape}", budget, GOAL, found["ours"], "by hand", found["by hand"], note=note)


def seconds(graph: Graph, executor: Any, folder: Path) -> float:
    """How long a run of the graph takes, its functions on the executor.

    Args:
        graph: the tasks.
        executor: a name, or one that is brought along.
        folder: an empty one, for the store.
    """

    async def timed() -> float:
        gc.collect()
        begin = time.perf_counter()
        ended = await flow.run_until_complete(run_id)
        took = time.perf_counter() - begin
        check(ended, len(graph))
        return took

    with sqlite_store(folder) as store:
        flow = AsyncFlow("benchmark", store, executor=executor)
        for task_id, upstream in graph.items():
            flow.add_task_definition(task_id, function, dependencies=upstream)
        run_id = flow.init_run()
        return asyncio.run(timed())


def by_hand(executor: Executor | None, graph: Graph) -> float:
    """Microseconds per task of the same functions without the engine."""

    async def timed() -> float:
        gc.collect()
        begin = time.perf_counter()
        done = await (called(graph) if executor is None else by_hand_on(executor, graph))
        took = time.perf_counter() - begin
        if done != len(graph):
            raise AssertionError(f"{done} of {len(graph)} functions were called")
        return took

    return asyncio.run(timed()) * 1e6 / len(graph)


def _waves(graph: Graph) -> list[int]:
    """How many can be under way at once, wave by wave: of a fan all but the last, of a chain one."""
    first = sum(not upstream for upstream in graph.values())
    return [first, *([1] * (len(graph) - first))]


async def by_hand_on(executor: Executor, graph: Graph) -> int:
    """Submit the functions, wave by wave; the sum of what they return."""
    total = 0
    for many in _waves(graph):
        # Each with an argument of its own, as tasks have: what is submitted twice, some executors compute once.
        futures = [asyncio.wrap_future(executor.submit(function, number)) for number in range(total, total + many)]
        total += sum(await asyncio.gather(*futures))
    return total


async def called(graph: Graph) -> int:
    """Call them, each in a coroutine of its own."""

    async def call() -> int:
        return function(None)

    total = 0
    for many in _waves(graph):
        total += sum(await asyncio.gather(*(call() for _ in range(many))))
    return total


GROUP = Group("executors", [f"{name}-{shape}" for name in KINDS for shape in SHAPES], run)


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns 0: the goal is told of, and not enforced, for others' executors are others'."""
    from .__main__ import HEADER, machine, told

    parser = argparse.ArgumentParser(prog="python -m benchmarks.executors", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the tasks")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement (default 5)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these executors, or lines, only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there as well")
    given = parser.parse_args(arguments)
    options = Options(given.quick, max(1, given.rounds))
    chosen = {line for line in GROUP.lines if given.only is None or {line, line.rpartition("-")[0]} & {*given.only}}
    # Workers that are not started by multiprocessing find the functions by this.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    print(", ".join(f"{key} {value}" for key, value in machine().items()), flush=True)
    print(HEADER)
    lines: list[Line] = []
    for line in GROUP.run(options, chosen):
        lines.append(line)
        print(told(line, options.quick), flush=True)
    if given.json:
        report = {"machine": machine(), "options": asdict(options), "lines": [asdict(line) for line in lines]}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
