"""How long the engine holds up the event loop while it runs 10,000 tasks: how late a ticker comes that is due every 10 ms.

The ticker runs beside `run_until_complete` on the same loop. Its due times are fixed beforehand, so that one long hold-up makes
all the ticks late that fall into it. What is told is the 99.9th percentile of all ticks, over the rounds and the three shapes:
of so many ticks as there are, that is nearly the worst one. A quick look has too few, so that it tells the latest tick of the
calmest of its rounds: what the engine itself holds up, it holds up in all of them. Beside it the yardstick `sqlite-group`, which
starts and commits at once all that is ready.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Set
from contextlib import closing
from functools import partial
from pathlib import Path

from app.infra.flow import Store

from . import yardsticks
from .measure import Group, Line, Options, fresh_folder
from .ours import check, coroutine, declare, json_store, sqlite_store
from .shapes import GROWING, Graph

PERIOD = 0.01
LIMIT = 20.0
"""Milliseconds."""

LIMITS = {"loop-lag-sqlite": LIMIT, "loop-lag-json": None}
"""The budget is that of the default store. While the JSON store folds a run, the garbage collector's pauses are longer."""

STORES: dict[str, Callable[[Path], Store]] = {"loop-lag-sqlite": sqlite_store, "loop-lag-json": json_store}


async def _lateness(work: Callable[[], Awaitable[object]]) -> list[float]:
    """How late each tick came, in milliseconds, while something is awaited."""
    late: list[float] = []

    async def tick() -> None:
        due = time.perf_counter() + PERIOD
        while True:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            late.append((time.perf_counter() - due) * 1000)
            due += PERIOD

    gc.collect()
    ticker = asyncio.create_task(tick())
    await asyncio.sleep(PERIOD)
    await work()
    # Those that fell due and could not come yet: the hold-up may have been the last thing that happened.
    await asyncio.sleep(PERIOD)
    ticker.cancel()
    return late


def beside_ours(make_store: Callable[[Path], Store], graph: Graph) -> list[float]:
    """The ticks beside a run of the engine."""

    async def watched() -> list[float]:
        late = await _lateness(partial(flow.run_until_complete, run_id))
        check(store.load(run_id), len(graph))
        return late

    with fresh_folder() as folder, make_store(folder) as store:
        flow = declare(graph.items(), store, coroutine)
        run_id = flow.init_run()
        return asyncio.run(watched())


def beside_the_yardstick(graph: Graph) -> list[float]:
    """The ticks beside a run of `sqlite-group`."""
    with fresh_folder() as folder, closing(yardsticks.database(folder)) as connection:
        yardsticks.save_together(connection, yardsticks.scheduled(graph))
        save = partial(yardsticks.save_together, connection)
        return asyncio.run(_lateness(partial(yardsticks.drive, graph, yardsticks.coroutine, save)))


def beside_nothing() -> list[float]:
    """The ticks of a loop that has nothing to do, for a second: what the machine itself makes late."""
    return asyncio.run(_lateness(partial(asyncio.sleep, 1.0)))


def percentile(late: list[float], share: float = 0.999) -> float:
    """The lateness that this share of the ticks did not go beyond."""
    return sorted(late)[math.ceil(share * len(late)) - 1]


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:
    """Measure the chosen lines."""
    tasks, rounds = (2_000, 3) if options.quick else (10_000, options.rounds)
    graphs = {shape: dict(make(tasks)) for shape, make in GROWING.items()}
    measures: dict[str, Callable[[Graph], list[float]]] = {"theirs": beside_the_yardstick}
    measures |= {name: partial(beside_ours, store) for name, store in STORES.items() if name in chosen}
    found = {name: [{shape: list[float]() for shape in graphs} for _ in range(rounds)] for name in measures}
    for number in range(rounds):
        for shape, graph in graphs.items():
            for name in measures if number % 2 else reversed(measures):
                found[name][number][shape] = measures[name](graph)
    if options.quick:
        found = {name: [min(by_round, key=lambda by_shape: percentile(_all([by_shape])))] for name, by_round in found.items()}
    theirs = percentile(_all(found.pop("theirs")))
    idle = max(beside_nothing())
    for name, by_round in found.items():
        ticks = _all(by_round)
        worst = ", ".join(f"{shape} {max(max(by_shape[shape]) for by_shape in by_round):.1f}" for shape in graphs)
        note = f"{tasks:,} tasks, {len(ticks):,} ticks; the latest of each shape: {worst} ms; of an idle loop: {idle:.1f} ms"
        budget = f"p99.9 at most {LIMIT:.0f} ms" if LIMITS[name] else "(context)"
        yield Line(name, budget, "ms", percentile(ticks), "sqlite-group", theirs, limit=LIMITS[name], note=note)


def _all(by_round: list[dict[str, list[float]]]) -> list[float]:
    return [tick for by_shape in by_round for late in by_shape.values() for tick in late]


GROUP = Group("loop_lag", list(STORES), run)
