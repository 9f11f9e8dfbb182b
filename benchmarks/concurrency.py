"""How much later than they could tasks are done that only wait: a hundred sleeps of 50 ms at once, and 32 that block a thread.

What is timed is `run_until_complete` of a run whose tasks depend on nothing, each in a new store; beside it the same sleeps
under a bare `asyncio.gather`, or in bare threads. The budget is absolute: the ideal is the 50 ms that a single sleep takes.
A quick look tells the quickest of its rounds: it is meant for machines that have other things to do, and a budget that the engine
itself breaks is broken in all of them.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
from collections.abc import Iterator, Set
from functools import partial

from .measure import Group, Line, Options, in_fresh_folder, interleaved
from .ours import seconds

SLEEP = 0.05
COROUTINES, COROUTINES_LATE = 100, 10
THREADS, THREADS_LATE = 32, 25
"""How many at once, and how many milliseconds late they may be."""


async def sleeping(ctx: object) -> int:  # noqa: ARG001
    """A task that waits on the loop."""
    await asyncio.sleep(SLEEP)
    return 1


def blocking(ctx: object) -> int:  # noqa: ARG001
    """A task that blocks its thread."""
    time.sleep(SLEEP)
    return 1


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:
    """Measure the chosen lines."""
    rounds, typical = (5, min) if options.quick else (2 * options.rounds, statistics.median)
    for name, body, many, late, beside, bare in (
        ("sleeps-coroutines", sleeping, COROUTINES, COROUTINES_LATE, "asyncio.gather", bare_coroutines),
        ("sleeps-threads", blocking, THREADS, THREADS_LATE, "bare threads", bare_threads),
    ):
        if name not in chosen:
            continue
        graph: dict[str, tuple[str, ...]] = {f"t{number}": () for number in range(many)}
        ours = in_fresh_folder(partial(seconds, graph, body=body), 1000)
        found = interleaved({"theirs": bare, "ours": ours}, rounds)
        budget = f"{many} x 50 ms within {late} ms of 50"
        limit = SLEEP * 1000 + late
        yield Line(name, budget, "ms", typical(found["ours"]), beside, typical(found["theirs"]), limit=limit)


def bare_coroutines() -> float:
    """The same sleeps with nothing around them, in milliseconds."""

    async def timed() -> float:
        gc.collect()
        begin = time.perf_counter()
        await asyncio.gather(*(sleeping(None) for _ in range(COROUTINES)))
        return (time.perf_counter() - begin) * 1000

    return asyncio.run(timed())


def bare_threads() -> float:
    """The same sleeps, a new thread for each, in milliseconds."""
    threads = [threading.Thread(target=blocking, args=(None,)) for _ in range(THREADS)]
    gc.collect()
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - begin) * 1000


GROUP = Group("concurrency", ["sleeps-coroutines", "sleeps-threads"], run)
