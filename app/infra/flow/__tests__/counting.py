"""What a run costs, as counts and never as time: commits, statements, rows read, flushes, turns of the loop, calls, bytes.

Counts are the same on every machine. Must not know what they ought to be: that is for `test_costs`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from .. import AsyncFlow, Changes, Context, FlowError, MemoryStore, SQLiteStore, Store, WorkflowRun
from ..file_system import FileSystem, StrPath
from .conftest import FakeClock
from .stepped_loop import SteppedLoop, TurnWorker

CONNECT = sqlite3.connect


async def one(ctx: Context) -> int:
    """A task that does nothing."""
    return 1


Shape = Callable[[int], Iterator[tuple[str, tuple[str, ...]]]]


def chain(tasks: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each task depends on the one before."""
    return ((f"t{number}", (f"t{number - 1}",) if number else ()) for number in range(tasks))


def fan(tasks: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """All tasks but the last, "total", depend on nothing; that one depends on all of them."""
    sources = tuple(f"t{number}" for number in range(tasks - 1))
    yield from ((task_id, ()) for task_id in sources)
    yield "total", sources


def layers(tasks: int, width: int = 50) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Layers of fifty tasks; each task depends on three of the layer above."""
    for number in range(tasks):
        first = (number // width - 1) * width
        yield f"t{number}", tuple(f"t{first + (number + step) % width}" for step in range(3)) if first >= 0 else ()


def declare(shape: Shape, tasks: int, store: Store | None = None, body: Callable[[Context], Any] = one) -> AsyncFlow:
    """A flow of that shape, whose clock stands still."""
    flow = AsyncFlow("counted", store, clock=FakeClock())
    for task_id, upstream in shape(tasks):
        flow.add_task_definition(task_id, body, dependencies=upstream)
    return flow


def run_of(flow: AsyncFlow, run_id: str = "run") -> WorkflowRun:
    """Make a run of a flow and drive it to its end."""
    return asyncio.run(flow.run_until_complete(flow.init_run(run_id=run_id)))


# --- commits ---


class Commits:
    """Counts what a store commits from now on, and the records of tasks in it."""

    def __init__(self, store: Store) -> None:
        self.count = 0
        self.tasks = 0
        commit, commit_at_once = store.commit, store.commit_at_once

        def counted(changes: Changes) -> None:
            commit(changes)
            self._note(changes)

        def counted_at_once(changes: Changes) -> bool:
            before = self.count
            done = commit_at_once(changes)
            if done and self.count == before:  # a store may make it by its own `commit`
                self._note(changes)
            return done

        patched: Any = store
        patched.commit, patched.commit_at_once = counted, counted_at_once

    def _note(self, changes: Changes) -> None:
        self.count += 1
        self.tasks += len(changes.tasks)


# --- SQLite ---


class Statements:
    """Counts the statements of a SQLite store's two connections from now on, each by its first words.

    A row that `executemany` writes is a statement of its own.
    """

    def __init__(self, store: SQLiteStore) -> None:
        store.open()
        file = store._file
        assert file._writer is not None
        assert file._reader is not None
        self.written: Counter[str] = Counter()
        self.read: Counter[str] = Counter()
        self.flushing_commits = 0
        """Those at synchronous=FULL: each has SQLite flush the -wal file."""
        self._full = file._full
        file._writer.set_trace_callback(self._write)
        file._reader.set_trace_callback(self._read)

    def _write(self, statement: str) -> None:
        kind = kind_of(statement)
        self.written[kind] += 1
        if kind == "PRAGMA synchronous":
            self._full = statement.endswith("FULL")
        elif kind == "COMMIT" and self._full:
            self.flushing_commits += 1

    def _read(self, statement: str) -> None:
        self.read[kind_of(statement)] += 1

    @property
    def rows(self) -> int:
        """The rows of tasks that were written."""
        return self.written["INSERT tasks"]

    @property
    def others(self) -> int:
        """All other statements, of both connections."""
        return self.written.total() + self.read.total() - self.rows

    @property
    def selects(self) -> int:
        """How often anything was read, by either connection."""
        return sum(count for kind, count in (self.written + self.read).items() if kind.startswith("SELECT"))


def kind_of(statement: str) -> str:
    """What a statement does and to what: "INSERT tasks", "SELECT runs", "PRAGMA synchronous", "COMMIT"."""
    words = statement.split()
    verb = words[0]
    if verb == "PRAGMA":
        return f"PRAGMA {words[1]}"
    for before in ("INTO", "FROM", "UPDATE"):
        if before in words:
            return f"{verb} {words[words.index(before) + 1]}"
    return verb


class Rows:
    """Counts the rows that SQLite gives out, over all connections made from now on; but for those of one column (a PRAGMA's)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.texts: Counter[str] = Counter()
        """How often each short text stood in a row: a task's id stands in its whole row, and nowhere else."""
        note = self._note

        class Counted(sqlite3.Connection):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                self.row_factory = note

        def counted(*arguments: Any, **options: Any) -> sqlite3.Connection:
            return CONNECT(*arguments, factory=Counted, **options)

        monkeypatch.setattr(sqlite3, "connect", counted)

    def _note(self, cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
        self.count += len(row) > 1
        self.texts.update(cell for cell in row if type(cell) is str and len(cell) < 10)
        return row


# --- the disk ---


class CountingFiles(FileSystem):
    """The operating system's files, and how often they are read and flushed."""

    def __init__(self) -> None:
        self.reads = self.syncs = 0

    def read(self, path: StrPath, lines: int | None = None) -> bytes | None:
        self.reads += 1
        return super().read(path, lines)

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        super().sync(descriptor)


def stop_the_clock(store: Any) -> None:
    """Have no time pass for a store that decides when to flush."""
    flusher = store._file._flusher if isinstance(store, SQLiteStore) else store._flusher
    flusher._monotonic = lambda: 1000.0


# --- the event loop ---


class CountingLoop(SteppedLoop):
    """An event loop that counts how often it turns, and the callbacks that it is given. It waits for nothing, not for threads."""

    def __init__(self) -> None:
        super().__init__(lambda ready: None, lambda turn: None)
        self.handles = 0

    def call_soon(self, callback: Any, *arguments: Any, context: Any = None) -> Any:  # type: ignore[override]
        self.handles += 1
        return super().call_soon(callback, *arguments, context=context)


def counted_on_the_loop(flow: AsyncFlow) -> CountingLoop:
    """Run a flow that starts no threads; the loop that it was run on."""
    flow._worker = TurnWorker("store")
    loop = CountingLoop()
    try:
        run = loop.run_until_complete(flow.run_until_complete(flow.init_run()))
    finally:
        loop.close()
    run.raise_for_failure()
    return loop


# --- calls ---


def calls_of(work: Callable[[], Any]) -> int:
    """How many functions are called while something is done, those written in C and each step of a generator included."""
    calls = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1

    before = sys.getprofile()
    gc.collect()
    gc.disable()  # what a collection calls is no cost of the work
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls


class CountedId(str):
    """A task id that counts how often it is hashed or compared, all of its kind together."""

    asked = 0

    def __hash__(self) -> int:
        CountedId.asked += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        CountedId.asked += 1
        return super().__eq__(other)


# --- memory: in a process of its own, since what other tests did is in this one's ---


@contextmanager
def traced() -> Iterator[None]:
    """Follow Python's allocations."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def bytes_now() -> int:
    """What Python holds of what was allocated since `traced`."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def memory_of(shape: Shape, tasks: int, store: Store) -> dict[str, float]:
    """Bytes per task that Python holds once a flow is declared, its run made, and the run at its end; and the peak."""
    run_of(declare(shape, 10, store), "first")  # whatever is loaded or kept once
    with traced():
        begin = bytes_now()
        flow = declare(shape, tasks, store)
        declared = bytes_now()
        run_id = flow.init_run()
        made = bytes_now()
        run = asyncio.run(flow.run_until_complete(run_id))
        ended = bytes_now()
        peak = tracemalloc.get_traced_memory()[1]
    if run.state != "success":
        raise FlowError(f"{run} did not succeed")
    found = {"declared": declared, "made": made, "ended": ended, "peak": peak}
    return {name: (held - begin) / tasks for name, held in found.items()}


SHAPES: dict[str, Shape] = {"chain": chain, "fan": fan, "layers": layers}


def main(shape: str, tasks: str, path: str) -> None:
    """Print what a shape takes in memory, as JSON; with the path of a database, or "memory"."""
    store = MemoryStore() if path == "memory" else SQLiteStore(path)
    with store:
        print(json.dumps(memory_of(SHAPES[shape], int(tasks), store)))


if __name__ == "__main__":
    main(*sys.argv[1:])
