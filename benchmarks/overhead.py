"""What the engine adds to a task that does nothing: microseconds per task of a run of 1,000, beside bare asyncio and SQLite.

Each shape is run by the yardstick and by the engine in turn, in new files, with a garbage collection before and none forbidden
within. A round takes a fraction of a second, so there are three times as many as were asked for. What is timed: see
`yardsticks` and `ours`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Set
from functools import partial

from .measure import Group, Line, Options, compared, in_fresh_folder, interleaved
from .ours import function, json_store, seconds
from .shapes import SHAPES, Graph
from .yardsticks import YARDSTICKS

TASKS = 1000

COROUTINES = {"chain": 2.0, "fan": 2.5, "layers": 2.5}
THREADS = {"chain": 1.0, "fan": 1.0, "layers": 1.0}
JSON = {"chain": 2.0, "fan": 2.0, "layers": 2.0}

CONTEXT = ("asyncio-inline", "asyncio-threads", "sqlite-normal", "sqlite-group-full", "sqlite-full")
"""Yardsticks that nothing is held against: they show where the others stand."""
CONTEXT_LINES = [f"{name}-{shape}" for shape in SHAPES for name in CONTEXT]


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:
    """Measure the chosen lines."""
    rounds = 5 if options.quick else 3 * options.rounds
    scale = 1e6 / TASKS
    for shape, make in SHAPES.items():
        graph = dict(make(TASKS))
        plain = in_fresh_folder(partial(seconds, graph), scale)
        threads = in_fresh_folder(partial(seconds, graph, body=function), scale)
        as_json = in_fresh_folder(partial(seconds, graph, make_store=json_store), scale)
        pairs = (
            (f"coroutines-{shape}", "sqlite-group", _yardstick("sqlite-group", graph), plain, COROUTINES[shape]),
            (f"threads-{shape}", "sqlite-threads", _yardstick("sqlite-threads", graph), threads, THREADS[shape]),
            (f"json-{shape}", "our SQLite", plain, as_json, JSON[shape]),
        )
        for name, beside, theirs, mine, limit in pairs:
            if name in chosen:
                found = interleaved({"theirs": theirs, "ours": mine}, rounds)
                yield compared(name, f"at most {limit} x {beside}", limit, found["ours"], beside, found["theirs"])
    yield from _context(chosen, *((300, 2) if options.quick else (TASKS, options.rounds)))


def _yardstick(name: str, graph: Graph) -> Callable[[], float]:
    return in_fresh_folder(partial(YARDSTICKS[name].seconds, graph), 1e6 / len(graph))


def _context(chosen: Set[str], tasks: int, rounds: int) -> Iterator[Line]:
    for shape, make in SHAPES.items():
        graph = dict(make(tasks))
        measures = {name: _yardstick(name, graph) for name in CONTEXT if f"{name}-{shape}" in chosen}
        for name, times in interleaved(measures, rounds).items():
            yield Line(f"{name}-{shape}", "(context)", "us/task", None, name, statistics.median(times))


GROUP = Group(
    "overhead",
    [
        *(f"{kind}-{shape}" for kind in ("coroutines", "threads", "json") for shape in SHAPES),
        *CONTEXT_LINES,
    ],
    run,
)
