"""How long it takes to go on with a run of 100,000 tasks that ended at nine tenths, until its first task starts.

The shape: a thousand layers of a hundred tasks, three upstreams each, whose nine hundredth begins with a "gate" that all that
follows depends on. Twice: once the process is killed (SIGKILL) in the gate and `run_until_complete` goes on; once the gate
fails, all that follows is skipped, and `retry` runs it again. Each time that call is made in a fresh process, on a copy of the
folder as it was left, with the store unopened and the flow declared; what is timed goes from the call to the first line of the
first task. Beside it: reading the rows of a plain table, and telling `graphlib` what is done.

That no finished task is read more than once is counted, in a run of its own that goes on to its end: by the ids of finished
tasks in the rows that SQLite gives out, whoever asks. (`python -m benchmarks.resume STEP KIND TASKS FOLDER` is what the
processes do.)
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import sqlite3
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from app.infra.flow import AsyncFlow, Context

from .measure import Group, Line, Options, fresh_folder, in_fresh_process, python
from .ours import coroutine, sqlite_store
from .shapes import gated
from .yardsticks import resume_seconds

LIMIT = 1000.0
"""Milliseconds."""

KINDS = ("killed", "failed")
RUN_ID = "resumed"


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:
    """Measure the chosen lines."""
    tasks, rounds = (5_000, 1) if options.quick else (100_000, options.rounds)
    finished = list(gated_ids(tasks)).index("gate")
    for kind in KINDS:
        if f"resume-{kind}" not in chosen and f"resume-reads-{kind}" not in chosen:
            continue
        with fresh_folder() as folder:
            left = folder / "left"
            left.mkdir()
            prepare(kind, tasks, left)
            if f"resume-{kind}" in chosen:
                yield _time_line(kind, tasks, finished, rounds, left)
            if f"resume-reads-{kind}" in chosen:
                answer = in_fresh_process("resume", "count", kind, tasks, _copy(left, folder / "counted"))
                yield _reads_line(kind, finished, **answer)


def gated_ids(tasks: int) -> Iterator[str]:
    """The ids of the shape's tasks, in order."""
    return (task_id for task_id, _ in gated(tasks))


def _time_line(kind: str, tasks: int, finished: int, rounds: int, left: Path) -> Line:
    ours: list[float] = []
    theirs: list[float] = []
    graph = dict(gated(tasks))
    for number in range(rounds):
        with fresh_folder() as folder:
            for side in ("theirs", "ours") if number % 2 else ("ours", "theirs"):
                if side == "theirs":
                    theirs.append(resume_seconds(graph, finished, folder) * 1000)
                else:
                    copy = _copy(left, folder / "copy")
                    ours.append(in_fresh_process("resume", "time", kind, tasks, copy)["ms"])
    call = "run_until_complete" if kind == "killed" else "retry"
    return Line(
        f"resume-{kind}",
        f"first task within {LIMIT:,.0f} ms",
        "ms",
        statistics.median(ours),
        "graphlib and rows",
        statistics.median(theirs),
        limit=LIMIT,
        note=f"{call} of {tasks:,} tasks, {finished:,} of them finished",
    )


def _reads_line(kind: str, finished: int, tasks: int, reads: int, most: int) -> Line:
    name, budget = f"resume-reads-{kind}", "no finished task read twice"
    if not reads:
        return Line(name, budget, "reads", None, limit=1, note="no row that SQLite gave out holds a task's id as it is")
    note = f"{tasks:,} of {finished:,} finished tasks were read, {reads:,} times in all"
    return Line(name, budget, "reads", most, limit=1, note=note)


def _copy(left: Path, to: Path) -> Path:
    return Path(shutil.copytree(left, to))


def prepare(kind: str, tasks: int, folder: Path) -> None:
    """Run the flow until its gate, in a process of its own; leave what is on the disk then.

    Raises:
        RuntimeError: it ended in another way than it was to.
    """
    finished = python("-m", "benchmarks.resume", "prepare", kind, str(tasks), str(folder))
    if finished.returncode != (-signal.SIGKILL if kind == "killed" else 0):
        raise RuntimeError(f"the run that was to be {kind} ended with {finished.returncode}:\n{finished.stderr}")


# --- what the processes do ---


def declare(tasks: int, folder: Path, gate: Callable[[Context], Any], body: Callable[[Context], Any]) -> AsyncFlow:
    """The flow, its store not opened."""
    flow = AsyncFlow("resume", sqlite_store(folder))
    for task_id, upstream in gated(tasks):
        flow.add_task_definition(task_id, gate if task_id == "gate" else body, dependencies=upstream)
    return flow


def leave(kind: str, tasks: int, folder: Path) -> None:
    """Run until the gate, and fail or be killed there."""

    async def gate(ctx: Context) -> int:  # noqa: ARG001
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ConnectionError("the service is down")

    flow = declare(tasks, folder, gate, coroutine)
    run = asyncio.run(flow.run_until_complete(flow.init_run(run_id=RUN_ID)))
    if run.state != "failed" or run.tasks["gate"].state != "failed":
        raise AssertionError(f"{run!r} did not fail in the gate")
    flow.store.close()


def go_on(flow: AsyncFlow, kind: str) -> Any:
    """The call that continues the run."""
    return flow.run_until_complete(RUN_ID) if kind == "killed" else flow.retry(RUN_ID, "gate")


def ms_to_first(kind: str, tasks: int, folder: Path) -> float:
    """Milliseconds from the call that continues the run to the first line of the first task."""
    first: list[float] = []
    started = asyncio.Event()

    async def body(ctx: Context) -> int:  # noqa: ARG001
        if not first:
            first.append(time.perf_counter())
            started.set()
        return 1

    async def timed() -> float:
        gc.collect()
        begin = time.perf_counter()
        call = asyncio.ensure_future(go_on(flow, kind))
        waiting = asyncio.ensure_future(started.wait())
        await asyncio.wait({call, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not first:
            raise AssertionError(f"nothing was run: {call}")
        call.cancel()  # what comes after is of no interest here
        with suppress(asyncio.CancelledError):
            await call
        return (first[0] - begin) * 1000

    flow = declare(tasks, folder, body, body)
    return asyncio.run(timed())


def count_reads(kind: str, tasks: int, folder: Path) -> dict[str, int]:
    """How often the rows that SQLite gives out hold the id of a task that was finished before.

    Returns:
        Of how many `tasks` there were `reads`, and how often the one was read that was read `most`.
    """
    finished = set(list(gated_ids(tasks))[: list(gated_ids(tasks)).index("gate")])
    reads: Counter[str] = Counter()

    class CountingCursor(sqlite3.Cursor):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.row_factory = self._count

        @staticmethod
        def _count(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG004
            reads.update(cell for cell in row if type(cell) is str and cell in finished)
            return row

    class CountingConnection(sqlite3.Connection):
        def cursor(self, factory: Any = CountingCursor) -> Any:
            return super().cursor(factory)

        def execute(self, *arguments: Any) -> Any:
            return self.cursor().execute(*arguments)

    connect = partial(sqlite3.connect, factory=CountingConnection)
    sqlite3.connect = connect  # type: ignore[assignment]  # the engine's own call finds this one
    flow = declare(tasks, folder, coroutine, coroutine)
    asyncio.run(go_on(flow, kind)).raise_for_failure()
    return {"tasks": len(reads), "reads": sum(reads.values()), "most": max(reads.values(), default=0)}


def main(step: str, kind: str, tasks: int, folder: Path) -> None:
    """One step of the measurement, in the process that was started for it."""
    if step == "prepare":
        leave(kind, tasks, folder)
    elif step == "time":
        print(json.dumps({"ms": ms_to_first(kind, tasks, folder)}))
    else:
        print(json.dumps(count_reads(kind, tasks, folder)))


GROUP = Group("resume", [f"resume-{kind}" for kind in KINDS] + [f"resume-reads-{kind}" for kind in KINDS], run)

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
