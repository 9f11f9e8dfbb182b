"""What every workload script does the same: read its arguments, count task bodies, time runs, print one line of JSON.

Standard library only, since it is imported inside each engine's own environment; knows no engine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, Protocol

from .shapes import SHAPES, Shape, chain

WARM_UP = 20
KILLED_AT = 51
KILLED_OF = 100


class Workload(NamedTuple):
    """One run that an engine is asked for."""

    run_id: str
    shape: Shape
    folder: Path
    variant: str
    by_hand: bool = False
    """Whether SQLite is set by hand, beyond what the engine's documentation names."""
    resumed: bool = False


class Engine(Protocol):
    """What a workload script provides."""

    def __call__(self, work: Workload) -> float:
        """Runs the workload to its end, and returns the seconds that the run took; defining it is not timed."""
        ...


class Bodies:
    """The work that a task does: nothing, but counted, so that a run that skipped its tasks is noticed."""

    def __init__(self) -> None:
        self.count = 0
        self.kill_at = 0

    def __call__(self) -> int:
        """Returns how many task bodies have run; kills the process in the middle of the one asked for."""
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.count


body = Bodies()


def main(engine: Engine) -> None:
    """Runs a workload script: ``--mode time`` times the three shapes, ``kill`` and ``resume`` test what is on the disk."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["time", "one", "kill", "resume"], default="time")
    parser.add_argument("--variant", default="")
    parser.add_argument("--by-hand", action="store_true")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    # Built as chains and walked by recursion in some engines.
    sys.setrecursionlimit(100_000)
    settings = (options.variant, options.by_hand)
    if options.mode == "time":
        answer = time_shapes(engine, options.folder, settings, options.tasks)
    elif options.mode == "one":
        answer = {"seconds": engine(Workload("one", chain(1), options.folder, *settings))}
    else:
        answer = killed_run(engine, options.folder, settings, kill=options.mode == "kill")
    print("\n" + json.dumps(answer), flush=True)


def time_shapes(engine: Engine, folder: Path, settings: tuple[str, bool], tasks: int) -> dict[str, float]:
    """Returns the microseconds per task of each shape after a warm-up, and the most memory that the process had."""
    engine(Workload("warm_up", chain(WARM_UP), folder / "warm_up", *settings))
    answer: dict[str, float] = {}
    for name, make in SHAPES.items():
        shape = make(tasks)
        body.count = 0
        seconds = engine(Workload(name, shape, folder / name, *settings))
        if body.count != len(shape):
            raise RuntimeError(f"{name}: {body.count} task bodies ran, not {len(shape)}")
        answer[name] = seconds / len(shape) * 1e6
    answer["rss_mb"] = peak_memory()
    return answer


def killed_run(engine: Engine, folder: Path, settings: tuple[str, bool], *, kill: bool) -> dict[str, float]:
    """Runs a chain and kills the process in its 51st task; without ``kill``, runs it again and counts the tasks that ran."""
    body.kill_at = KILLED_AT if kill else 0
    body.count = 0
    engine(Workload("killed", chain(KILLED_OF), folder / "killed", *settings, resumed=not kill))
    return {"bodies": body.count}


def peak_memory() -> float:
    """Returns the most memory that this process held, in MB, as Linux tells it; -1 where it does not."""
    status = Path("/proc/self/status")
    if not status.exists():
        return -1.0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def timed(run: Callable[[], object]) -> float:
    """Returns the seconds that a call takes."""
    start = perf_counter()
    run()
    return perf_counter() - start
