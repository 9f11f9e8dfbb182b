"""Whether the engine is at least fifteen times faster than every durable peer, on every workload.

The peers take a quarter of an hour and environments of their own, so they are not measured here: `python -m benchmarks.peers`
does that, and leaves what it found in `benchmarks/peers/results.json`. Our figure is the one of that very file, measured beside
them.

In it stands `{"engines": [{"name": ..., "durable": true, "settings": "documented", "us_per_task": {"chain": ..., "fan": ...,
"layers": ...}}, ...]}`; the engine named "Night Batch" is ours, and a shape that an engine was not measured on is null or left
out. What is owed is judged on the rows whose settings are "documented"; those tuned "by hand" beyond that stand in the note.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from .measure import Group, Line, Options
from .peers.verdict import BUDGET, TIMES, verdict

RESULTS = Path(__file__).parent / "peers" / "results.json"
COMMAND = "python -m benchmarks.peers"
SHAPES = ("chain", "fan", "layers")


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:  # noqa: ARG001
    """Look the chosen lines up."""
    engines = measured(RESULTS)
    for shape in SHAPES:
        if f"peers-{shape}" in chosen:
            yield line(shape, engines)


def measured(file: Path) -> list[dict[str, Any]]:
    """The entries of the engines; none if there is no such file."""
    if not file.exists():
        return []
    content: dict[str, list[dict[str, Any]]] = json.loads(file.read_text(encoding="utf-8"))
    return content["engines"]


def line(shape: str, engines: list[dict[str, Any]]) -> Line:
    """The line of a shape: ours beside the fastest of the others."""
    name = f"peers-{shape}"
    found = verdict(engines, shape)
    if found is None:
        return Line(name, BUDGET, "us/task", None, limit=1 / TIMES, note=f"not measured here: {COMMAND}")
    ratio = found.ours / found.theirs
    return Line(name, BUDGET, "us/task", found.ours, found.fastest, found.theirs, ratio, 1 / TIMES, str(found))


GROUP = Group("peers", [f"peers-{shape}" for shape in SHAPES], run)
