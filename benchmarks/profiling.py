"""Where a workload of ours spends its time, by function and by room of the engine.

The profiler sees the event loop's thread alone, and makes every call of a Python function dearer than it is: shares tell where
to look, not what is gained.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import cast

from app.infra import flow as engine
from app.infra.flow import AsyncFlow, Store

from .measure import fresh_folder
from .ours import TaskFunction, check, coroutine, declare, function, json_store, sqlite_store
from .shapes import SHAPES

Place = tuple[str, int, str]
Callers = dict[Place, tuple[int, int, float, float]]
Workload = tuple[str, Callable[[Path], Store], TaskFunction]

WORKLOADS: dict[str, Workload] = {
    prefix + shape: (shape, store, body)
    for prefix, store, body in (
        ("", sqlite_store, coroutine),
        ("threads-", sqlite_store, function),
        ("json-", json_store, coroutine),
    )
    for shape in SHAPES
}
"""What can be profiled, by name."""

TASKS = 5000
FUNCTIONS = 30
"""How many functions are told."""

ENGINE = Path(engine.__file__).parent


def room(file: str, function: str) -> str:
    """Whose time it is: a file of the engine, or what is outside of it."""
    path = Path(file)
    if ENGINE in path.parents:
        return path.relative_to(ENGINE).as_posix()
    if file == "~":
        return "(sqlite3)" if "sqlite3" in function else "(built in)"
    if path.parent.name == "asyncio":
        return "(asyncio)"
    return "(benchmarks)" if path.parent == Path(__file__).parent else "(standard library)"


def profile(name: str) -> str:
    """Run a workload under the profiler; the report."""
    shape, make_store, body = WORKLOADS[name]
    with fresh_folder() as folder, make_store(folder) as store:
        flow = declare(SHAPES[shape](TASKS), store, body)
        profiler = cProfile.Profile()
        asyncio.run(_run(flow, profiler))
        return _report(name, profiler)


async def _run(flow: AsyncFlow, profiler: cProfile.Profile) -> None:
    run_id = flow.init_run()
    gc.collect()
    profiler.enable()
    run = await flow.run_until_complete(run_id)
    profiler.disable()
    check(run, TASKS)


def _report(name: str, profiler: cProfile.Profile) -> str:
    # pstats names no type for what it holds: {(file, line, function): (calls, all calls, own seconds, seconds, callers)}
    found = cast("dict[Place, tuple[int, int, float, float, Callers]]", pstats.Stats(profiler).stats)  # type: ignore[attr-defined]
    own: defaultdict[str, float] = defaultdict(float)
    built_ins: defaultdict[str, float] = defaultdict(float)
    for (file, _, called), (_, _, seconds, _, callers) in found.items():
        own[room(file, called)] += seconds
        if file == "~":
            for (caller_file, _, caller), (_, _, share, _) in callers.items():
                built_ins[room(caller_file, caller)] += share
    total = sum(own.values())
    per_task = 1e6 / TASKS
    lines = [
        f"{name}: {TASKS:,} tasks, {total * per_task:.1f} us per task under the profiler, on the event loop's thread alone.",
        "The profiler makes Python calls dearer than they are: shares tell where to look, not what is gained.",
        "",
        f"{'us/task':>9} {'share':>6} {'+ built-ins':>11}  room: its own time, and what it spent in functions written in C",
        *(
            f"{seconds * per_task:>9.2f} {seconds / total:>6.1%} {built_ins[where] * per_task:>11.2f}  {where}"
            for where, seconds in sorted(own.items(), key=lambda item: -item[1])
        ),
        "",
        f"{'us/task':>9} {'calls/task':>10}  function: its own time",
    ]
    first = sorted(found.items(), key=lambda item: -item[1][2])[:FUNCTIONS]
    for (file, line, called), (_, calls, seconds, _, _) in first:
        where = f"{room(file, called)}:{line} " if line else ""
        lines.append(f"{seconds * per_task:>9.2f} {calls / TASKS:>10.2f}  {where}{called}")
    return "\n".join(lines)
