"""The yardsticks: what the same work costs with nothing in the way.

`graphlib` says what is ready, asyncio runs it, SQLite keeps one row for each task. No retries, no failures, no history, no
checksums, no owner, no resume: what is left out here is what the engine adds. Must not know the engine.

A task's row is written twice in a run, by the same upsert: when it starts (before its body is called) and when it has succeeded
(with its output as JSON; before anything downstream of it starts). The rows are there before the run, as `scheduled`, as the
engine's are after `init_run`; that is not timed, and neither is opening the database. What is timed is `drive`, from its call
to its return.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from .shapes import Graph

Change = tuple[str, str, str, float | None, float | None, str | None]
"""A row: run, task, its new state, when it started, when it ended (Unix seconds), and its output as JSON."""

# What a table of tasks cannot do without: whose they are, where they stand, since when, and what came of it.
SCHEMA = """
    CREATE TABLE tasks (
        run_id  TEXT NOT NULL,
        task_id TEXT NOT NULL,
        state   TEXT NOT NULL,
        started REAL,
        ended   REAL,
        output  TEXT,
        PRIMARY KEY (run_id, task_id)
    )
"""
UPSERT = """
    INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run_id, task_id) DO UPDATE
        SET state = excluded.state, started = coalesce(excluded.started, started), ended = excluded.ended,
            output = excluded.output
"""

RUN_ID = "0123456789abcdef0123456789abcdef"
THREADS = 64
"""As many as the engine starts at the most."""


async def coroutine() -> int:
    """A coroutine task that has nothing to do."""
    return 1


def function() -> int:
    """A function task that has nothing to do."""
    return 1


async def drive(graph: Graph, body: Callable[[], Awaitable[Any]], save: Callable[[list[Change]], None] | None = None) -> None:
    """Run all tasks of a graph, each as soon as what it depends on is done.

    Args:
        graph: the tasks.
        body: what each of them does.
        save: writes down the state changes of one turn of the loop; nobody does if it is left out.
    """
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    finished: list[tuple[str, Any]] = []
    arrived = asyncio.Event()
    under_way: set[asyncio.Task[None]] = set()

    async def attempt(task_id: str) -> None:
        output = await body()
        finished.append((task_id, output))
        arrived.set()

    while True:
        for task_id, _ in finished:
            sorter.done(task_id)
        ready = sorter.get_ready()
        if save is not None:
            now = time.time()
            changes: list[Change] = [(RUN_ID, task_id, "success", None, now, json.dumps(output)) for task_id, output in finished]
            changes += [(RUN_ID, task_id, "running", now, None, None) for task_id in ready]
            save(changes)
        finished.clear()
        for task_id in ready:
            task = asyncio.create_task(attempt(task_id))
            under_way.add(task)  # asyncio itself keeps no hold on its tasks
            task.add_done_callback(under_way.discard)
        if not sorter.is_active():
            return
        await arrived.wait()
        arrived.clear()


@dataclass(frozen=True)
class Yardstick:
    """One way of doing it.

    Args:
        name: as in the budgets.
        threads: whether the tasks are functions in a thread pool; else they are coroutines.
        commit: "turn" for one transaction per turn of the loop, "change" for one per state change, None for no state at all.
        synchronous: SQLite's setting of that name.
    """

    name: str
    threads: bool = False
    commit: str | None = None
    synchronous: str = "NORMAL"

    def seconds(self, graph: Graph, folder: Path) -> float:
        """How long a run of the graph takes.

        Args:
            graph: the tasks.
            folder: an empty one, for the database.
        """
        if self.commit is None:
            return self._run(graph, None)
        with closing(database(folder, self.synchronous)) as connection:
            save_together(connection, scheduled(graph))
            save = save_together if self.commit == "turn" else save_one_by_one
            took = self._run(graph, lambda changes: save(connection, changes))
            done = connection.execute("SELECT count(*) FROM tasks WHERE state = 'success' AND output = '1'").fetchone()[0]
        if done != len(graph):
            raise AssertionError(f"{self.name} finished {done} of {len(graph)} tasks")
        return took

    def _run(self, graph: Graph, save: Callable[[list[Change]], None] | None) -> float:
        async def timed(body: Callable[[], Awaitable[Any]]) -> float:
            gc.collect()
            begin = time.perf_counter()
            await drive(graph, body, save)
            return time.perf_counter() - begin

        async def in_threads() -> float:
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(THREADS) as pool:
                return await timed(lambda: loop.run_in_executor(pool, function))

        return asyncio.run(in_threads() if self.threads else timed(coroutine))


def database(folder: Path, synchronous: str = "NORMAL") -> sqlite3.Connection:
    """A new database in the folder, its table made."""
    connection = sqlite3.connect(folder / "yardstick.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(SCHEMA)
    return connection


def scheduled(graph: Graph) -> list[Change]:
    """The rows of a run that has not started."""
    return [(RUN_ID, task_id, "scheduled", None, None, None) for task_id in graph]


def save_together(connection: sqlite3.Connection, changes: list[Change]) -> None:
    """Write state changes in one transaction."""
    connection.execute("BEGIN")
    connection.executemany(UPSERT, changes)
    connection.execute("COMMIT")


def save_one_by_one(connection: sqlite3.Connection, changes: list[Change]) -> None:
    """Write state changes, each in a transaction of its own."""
    for change in changes:
        connection.execute(UPSERT, change)


def define_seconds(graph: Graph, folder: Path) -> float:
    """How long it takes to check a graph and to write its rows, in one transaction."""
    with closing(database(folder)) as connection:
        gc.collect()
        begin = time.perf_counter()
        TopologicalSorter(graph).prepare()
        save_together(connection, scheduled(graph))
        return time.perf_counter() - begin


def resume_seconds(graph: Graph, finished: int, folder: Path) -> float:
    """How long it takes to read a run's rows and to tell the graph what is done, until the first task could be started.

    Args:
        graph: the tasks, in an order in which they may have run.
        finished: how many of them have succeeded.
        folder: an empty one, for the database.
    """
    with closing(database(folder)) as connection:
        succeeded: list[Change] = [(RUN_ID, task_id, "success", 1.0, 2.0, "1") for task_id in list(graph)[:finished]]
        save_together(connection, scheduled(graph))
        save_together(connection, succeeded)
    gc.collect()
    begin = time.perf_counter()
    with closing(sqlite3.connect(folder / "yardstick.db")) as connection:
        rows = connection.execute("SELECT task_id, state, output FROM tasks WHERE run_id = ?", (RUN_ID,)).fetchall()
    done = {task_id for task_id, state, _ in rows if state == "success"}
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    while True:
        ready = sorter.get_ready()
        over = [task_id for task_id in ready if task_id in done]
        if not over:
            break
        sorter.done(*over)
    if not ready or len(done) != finished:
        raise AssertionError("the yardstick found nothing to resume")
    return time.perf_counter() - begin


YARDSTICKS = {
    yardstick.name: yardstick
    for yardstick in (
        Yardstick("asyncio-inline"),
        Yardstick("asyncio-threads", threads=True),
        Yardstick("sqlite-group", commit="turn"),
        Yardstick("sqlite-normal", commit="change"),
        Yardstick("sqlite-threads", threads=True, commit="change"),
        Yardstick("sqlite-group-full", commit="turn", synchronous="FULL"),
        Yardstick("sqlite-full", commit="change", synchronous="FULL"),
    )
}
"""All of them, by name."""
