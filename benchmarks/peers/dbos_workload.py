"""The workloads on DBOS Transact: one workflow, a step per task, a SQLite system database.

Runs inside DBOS's own environment; knows nothing of the other engines.
"""
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,misc"
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
import sqlite3

from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy import Engine, event

from benchmarks.peers.measuring import Workload, body, main, timed
from benchmarks.peers.shapes import levels

groups: list[list[str]] = []
launched = False


def quick_but_durable(connection: sqlite3.Connection, _record: object) -> None:
    """Sets by hand what DBOS leaves at SQLite's defaults, which flush each commit: as safe against a killed process."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


@DBOS.step()
def step(_name: str) -> int:
    """One task."""
    return body()


@DBOS.step()
async def async_step(_name: str) -> int:
    """One task that is a coroutine."""
    return body()


@DBOS.workflow()
def workflow() -> int:
    """Runs the tasks one after the other, whatever the shape."""
    return sum(step(name) for group in groups for name in group)


@DBOS.workflow()
async def async_workflow() -> int:
    """Runs the tasks of a level at once, level by level."""
    return sum([sum(await asyncio.gather(*map(async_step, group))) for group in groups])


async def run_async() -> int:
    """Runs the asynchronous workflow in the background, which is faster than awaiting it."""
    handle = await DBOS.start_workflow_async(async_workflow)
    return int(await handle.get_result())


def engine(work: Workload) -> float:
    """Times a workflow from its call to its result; DBOS is launched before that, once in a process."""
    global groups, launched
    groups = levels(work.shape)
    if not launched:
        launched = True
        if work.by_hand:
            event.listen(Engine, "connect", quick_but_durable)
        DBOS(config=configuration(work))
        # This also takes up what a killed process left behind.
        DBOS.launch()
    if work.resumed:
        return timed(lambda: DBOS.retrieve_workflow(work.run_id).get_result())
    with SetWorkflowID(work.run_id):
        return timed(workflow if work.variant == "in turn" else lambda: asyncio.run(run_async()))


def configuration(work: Workload) -> DBOSConfig:
    """Keeps its database in the run's folder, its log quiet, and the version that recovery asks for the same."""
    work.folder.mkdir(parents=True, exist_ok=True)
    return {
        "name": "workload",
        "system_database_url": f"sqlite:///{work.folder}/dbos.sqlite",
        "log_level": "ERROR",
        "enable_otlp": False,
        "application_version": "1",
    }


if __name__ == "__main__":
    main(engine)
