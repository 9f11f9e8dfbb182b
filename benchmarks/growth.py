"""Whether a task of a big run costs what one of a small run costs, in time and in memory.

Each run has a process of its own (`python -m benchmarks.growth SHAPE TASKS` prints what it found). Time: microseconds per task
of `run_until_complete`, beside those of a run of 10,000 in the same round; a million takes a minute or more, so it is run once
for each shape, beside the median of all the rounds' small runs. Memory: the peak of the process (declaring the flow, `init_run`
and the run included) beyond what it had after its imports and the opening of the store. All tasks return the same small number,
whose text counts as ours: the figure is a little too high rather than too low.

Layers are a thousand at every size. So they are ten wide in the small run, where ten tasks share a commit, and a thousand wide
in the greatest: a ratio below 1 says that, and not that the engine gets quicker.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass
from pathlib import Path

from .measure import Group, Line, Options, fresh_folder, in_fresh_process
from .ours import check, coroutine, declare, sqlite_store
from .shapes import GROWING

BASE, QUICK_BASE = 10_000, 2_000
TIME_LIMIT = 1.3
MEMORY_LIMIT = 1.5
"""KB (1,000 bytes) per task."""


@dataclass(frozen=True)
class Found:
    """What a process found about its run."""

    tasks: int
    per_task: float
    """Microseconds of the run."""
    define: float
    """Microseconds per task of declaring the flow and making the run."""
    memory: float
    """KB per task."""


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:
    """Measure the chosen lines."""
    for shape in GROWING:
        wanted = chosen & set(_names(shape))
        if wanted:
            yield from (line for line in _shape(shape, options, wanted) if line.name in wanted)


def _names(shape: str) -> tuple[str, str, str]:
    return f"growth-{shape}-x10", f"growth-{shape}-x100", f"memory-{shape}"


def _shape(shape: str, options: Options, wanted: Set[str]) -> Iterator[Line]:
    tenfold, hundredfold, memory = _names(shape)
    base, rounds, most = (QUICK_BASE, 1, 10) if options.quick else (BASE, options.rounds, options.growth_max // BASE)
    small: list[Found] = []
    middle: list[Found] = []
    great: Found | None = None
    for number in range(rounds):
        sizes = [base, 10 * base] if most >= 10 and (tenfold in wanted or most < 100) else [base]
        for size in sizes if number % 2 else reversed(sizes):
            (small if size == base else middle).append(in_process(shape, size))
        if number == rounds // 2 and most >= 100:
            great = in_process(shape, 100 * base)
    yield _time_line(tenfold, small, middle)
    yield _time_line(hundredfold, small, [great] if great else [])
    last = great or [*small, *middle][-1]
    note = f"{last.tasks:,} tasks, once; they took {last.define:.1f} us each to declare and init_run"
    yield Line(memory, f"at most {MEMORY_LIMIT} KB, outputs apart", "KB/task", last.memory, limit=MEMORY_LIMIT, note=note)


def _time_line(name: str, small: list[Found], big: list[Found]) -> Line:
    beside = f"{small[0].tasks:,} tasks"
    budget = f"at most {TIME_LIMIT} x {beside}"
    if not big:
        return Line(name, budget, "us/task", None, limit=TIME_LIMIT, note="so many tasks were not asked for")
    usual = statistics.median(found.per_task for found in small)
    beside_each = [found.per_task for found in small] if len(big) == len(small) else [usual]
    ratio = statistics.median(mine.per_task / theirs for mine, theirs in zip(big, beside_each, strict=True))
    note = f"{big[0].tasks:,} tasks" + (", once" if len(big) == 1 else "")
    ours = statistics.median(found.per_task for found in big)
    return Line(name, budget, "us/task", ours, beside, usual, ratio, TIME_LIMIT, note)


def in_process(shape: str, tasks: int) -> Found:
    """Run a shape in a process of its own."""
    return Found(**in_fresh_process("growth", shape, tasks))


def resident(which: str) -> int:
    """Bytes of memory of this process: "VmRSS" now, "VmHWM" at its peak.

    Where there is no /proc, the peak is what `getrusage` says, which on Linux may be that of the parent: it is handed down.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
        return int(fields[which].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(shape: str, tasks: int) -> Found:
    """Declare a flow, run it, and look at the clock and the memory of this process."""

    async def timed() -> float:
        gc.collect()
        begin = time.perf_counter()
        run = await flow.run_until_complete(run_id)
        took = time.perf_counter() - begin
        peak.append(resident("VmHWM"))
        check(run, tasks)
        return took

    peak: list[int] = []
    with fresh_folder() as folder, sqlite_store(folder) as store:
        before = resident("VmRSS")
        begin = time.perf_counter()
        flow = declare(GROWING[shape](tasks), store, coroutine)
        run_id = flow.init_run()
        defined = time.perf_counter() - begin
        took = asyncio.run(timed())
    return Found(tasks, took * 1e6 / tasks, defined * 1e6 / tasks, (peak[0] - before) / 1000 / tasks)


GROUP = Group("growth", [name for shape in GROWING for name in _names(shape)], run)

if __name__ == "__main__":
    print(json.dumps(asdict(measure(sys.argv[1], int(sys.argv[2])))))
