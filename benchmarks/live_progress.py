"""What the live view costs a run of 10,000 tasks that do nothing: its time with the view on a terminal, by that without.

The terminal is a pseudo-terminal that another process reads, so that only what the view itself takes is counted.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TextIO

from app.infra.flow.tools.progress import show_progress

from .measure import Group, Line, Options, compared, in_fresh_folder, interleaved
from .ours import check, coroutine, declare, sqlite_store
from .shapes import Graph, chain, fan

TASKS = 10_000
LIMIT = 1.03
SHAPES = {"progress-chain": chain, "progress-fan": fan}


def seconds(graph: Graph, shown: bool, clock: Callable[[], float], folder: Path) -> float:
    """How long a run of the graph takes.

    Args:
        graph: what is run.
        shown: whether it is shown on a terminal meanwhile; all that this takes from beginning to end counts.
        clock: tells seconds.
        folder: where its store is.
    """
    with sqlite_store(folder) as store, _terminal() as terminal:
        flow = declare(graph.items(), store, coroutine)
        run_id = flow.init_run()

        async def timed() -> float:
            gc.collect()
            begin = clock()
            with show_progress(flow, run_id, stream=terminal, live=True) if shown else nullcontext():
                run = await flow.run_until_complete(run_id)
            took = clock() - begin
            check(run, len(graph))
            return took

        return asyncio.run(timed())


@contextmanager
def _terminal() -> Iterator[TextIO]:
    """A terminal that somebody reads."""
    import pty  # late: windows has none

    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", _READ], stdin=ours), os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        os.close(ours)
        yield terminal


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:
    """Measure the chosen lines."""
    budget = f"at most {LIMIT} x without"
    for name, make in SHAPES.items():
        if name not in chosen:
            continue
        if sys.platform == "win32":
            yield Line(name, budget, "us/task", None, limit=LIMIT, note="there are no pseudo-terminals here")
            continue
        graph = dict(make(TASKS))
        measures = {
            shown: in_fresh_folder(partial(seconds, graph, bool(shown), time.perf_counter), 1e6 / TASKS)
            for shown in ("", "shown")
        }
        found = interleaved(measures, options.rounds)
        yield compared(name, budget, LIMIT, found["shown"], "not shown", found[""])


GROUP = Group("progress", list(SHAPES), run)

_READ = "import os\ntry:\n    while os.read(0, 65536): pass\nexcept OSError: pass"


def processor_time() -> None:
    """Print the same ratios by the processor's time, which other programs do not disturb."""
    for name, make in SHAPES.items():
        graph = dict(make(TASKS))
        measures = {shown: in_fresh_folder(partial(seconds, graph, bool(shown), time.process_time)) for shown in ("", "shown")}
        found = interleaved(measures, 7)
        line = compared(name, "", LIMIT, found["shown"], "not shown", found[""], "s")
        print(
            f"{name}: {line.yardstick:.3f} s without, {line.ours:.3f} s with, ratio {line.ratio:.4f}, half of them {line.spread}"
        )


if __name__ == "__main__":
    processor_time()
