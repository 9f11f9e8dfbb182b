"""Whether the engine is at least fifteen times faster than every durable peer, on every workload.

The peers take an hour and environments of their own, so they are not measured here: `python -m benchmarks.peers` does that, and
leaves what it found in `benchmarks/peers/results.json`. Our figure is the one of that very file, measured beside them.

In it stands `{"engines": [{"name": ..., "durable": true, "us_per_task": {"chain": ..., "fan": ..., "layers": ...}}, ...]}`;
the engine named "Night Batch" is ours, and a shape that an engine was not measured on is null or left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from .measure import Group, Line, Options

RESULTS = Path(__file__).parent / "peers" / "results.json"
COMMAND = "python -m benchmarks.peers"
OURS = "Night Batch"
TIMES = 15
SHAPES = ("chain", "fan", "layers")


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:  # noqa: ARG001
    """Look the chosen lines up."""
    engines = durable_engines(RESULTS)
    for shape in SHAPES:
        if f"peers-{shape}" in chosen:
            yield line(shape, engines)


def durable_engines(file: Path) -> dict[str, dict[str, float]]:
    """The microseconds per task of each engine whose state is on disk, by engine and shape; none if there is no such file."""
    if not file.exists():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {
        engine["name"]: {shape: took for shape, took in engine["us_per_task"].items() if took is not None}
        for engine in content["engines"]
        if engine["durable"]
    }


def line(shape: str, engines: dict[str, dict[str, float]]) -> Line:
    """The line of a shape: ours beside the fastest of the others."""
    name, budget = f"peers-{shape}", f"{TIMES} x faster than durable peers"
    ours = engines.get(OURS, {}).get(shape)
    others = {engine: found[shape] for engine, found in engines.items() if engine != OURS and shape in found}
    if ours is None or not others:
        return Line(name, budget, "us/task", None, limit=1 / TIMES, note=f"not measured here: {COMMAND}")
    fastest = min(others, key=others.__getitem__)
    ratio = ours / others[fastest]
    note = f"{1 / ratio:.1f} times faster than the fastest of {len(others)}, {fastest}"
    return Line(name, budget, "us/task", ours, fastest, others[fastest], ratio, 1 / TIMES, note)


GROUP = Group("peers", [f"peers-{shape}" for shape in SHAPES], run)
