"""What it costs to declare a flow of 1,000 tasks and to make a run of it (`init_run`), in microseconds per task.

The store is open before. Beside it: `graphlib` checks the same graph, and one transaction writes as many rows. The yardstick is
told, the budget is an absolute one; but a quick look at a machine that is slower than usual, or has other things to do, grants it
as much more as the yardstick takes there.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator, Set
from functools import partial
from pathlib import Path

from .measure import Group, Line, Options, in_fresh_folder, interleaved
from .ours import coroutine, declare, sqlite_store
from .shapes import SHAPES, Graph
from .yardsticks import define_seconds

LIMIT = 15.0
"""Microseconds per task."""
USUAL = 3.5
"""Those of the yardstick on the machine that the budget was made on."""


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:
    """Measure the chosen lines."""
    tasks, rounds = 1000, 5 if options.quick else 3 * options.rounds
    for shape, make in SHAPES.items():
        name = f"define-{shape}"
        if name not in chosen:
            continue
        graph = dict(make(tasks))
        theirs = in_fresh_folder(partial(define_seconds, graph), 1e6 / tasks)
        ours = in_fresh_folder(partial(seconds, graph), 1e6 / tasks)
        found = {side: statistics.median(times) for side, times in interleaved({"theirs": theirs, "ours": ours}, rounds).items()}
        limit = LIMIT * max(1.0, found["theirs"] / USUAL) if options.quick else LIMIT
        yield Line(name, f"at most {limit:.0f} us", "us/task", found["ours"], "graphlib and rows", found["theirs"], limit=limit)


def seconds(graph: Graph, folder: Path) -> float:
    """How long it takes to declare a flow and to make a run of it."""
    with sqlite_store(folder) as store:
        gc.collect()
        begin = time.perf_counter()
        declare(graph.items(), store, coroutine).init_run()
        return time.perf_counter() - begin


GROUP = Group("define", [f"define-{shape}" for shape in SHAPES], run)
