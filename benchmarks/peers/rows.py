"""The rows of the comparison: which engine, with which settings, on how many tasks.

What each setting rests on stands in README.md; must not know how they are run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import verdict


@dataclass(frozen=True)
class Row:
    """One engine with one set of settings."""

    name: str
    peer: str
    """Names the environment, the requirements and the workload script; `night_batch` needs no environment."""
    imports: str
    """What a user writes to import what he needs, timed in a process of its own: names, since packages load them when asked."""
    details: str
    variant: str = ""
    most_tasks: int = 1000
    distribution: str = ""
    """The package whose version is shown; the peer's name if empty."""
    by_hand: bool = False
    """Whether it is tuned beyond what its documentation names."""

    @property
    def settings(self) -> str:
        """Where its settings come from, in the words of the results."""
        return verdict.BY_HAND if self.by_hand else verdict.DOCUMENTED


def both(row: Row, pragmas: str) -> list[Row]:
    """The row as it is documented, and again with pragmas of SQLite that its documentation does not name."""
    name, details = f"{row.name}, {verdict.BY_HAND}", f"{row.details}; {pragmas} set by hand"
    return [row, replace(row, name=name, details=details, by_hand=True)]


DBOS = "from dbos import DBOS, DBOSConfig, SetWorkflowID"

OURS = Row(
    verdict.OURS,
    "night_batch",
    "from app.infra.flow import AsyncFlow, Context, SQLiteStore",
    "SQLiteStore as it comes, coroutines",
)

ROWS = [
    OURS,
    *both(Row("DBOS, in turn", "dbos", DBOS, "SQLite; sync steps, never two at once", "in turn"), "WAL and NORMAL"),
    *both(Row("DBOS, at once", "dbos", DBOS, "SQLite; async steps, asyncio.gather", "at once"), "WAL and NORMAL"),
    *both(
        Row(
            "LangGraph, graph",
            "langgraph",
            "from langgraph.graph import StateGraph; from langgraph.checkpoint.sqlite import SqliteSaver",
            "SqliteSaver (which sets WAL), durability='sync' (faster here than 'async'), a node per task",
            "graph",
        ),
        "NORMAL",
    ),
    *both(
        Row(
            "LangGraph, functional",
            "langgraph",
            "from langgraph.func import entrypoint, task; from langgraph.checkpoint.sqlite import SqliteSaver",
            "SqliteSaver (which sets WAL), durability='sync', an @task per task in one @entrypoint",
            "functional",
        ),
        "NORMAL",
    ),
    Row(
        "Luigi",
        "luigi",
        "import luigi",
        "local scheduler without lock, 1 worker in the process, a small file per task, no second check of files",
    ),
    *both(
        Row(
            "Hamilton, cache",
            "hamilton",
            "from hamilton import driver",
            "with_cache on disk, default stores and executor",
            "cache",
            distribution="apache-hamilton",
        ),
        "WAL and NORMAL",
    ),
    Row(
        "Hamilton, no state",
        "hamilton",
        "from hamilton import driver",
        "default executor, nothing stored",
        distribution="apache-hamilton",
    ),
    Row(
        "doit",
        "doit",
        "from doit.doit_cmd import DoitMain; from doit.cmd_base import ModuleTaskLoader",
        "JSON back end (its fastest), reporter zero, in one process",
        "json",
    ),
    Row(
        "Prefect",
        "prefect",
        "from prefect import flow, task",
        "temporary server with SQLite, async tasks, results in files, no logging, no analytics",
        most_tasks=100,
    ),
    Row(
        "Dagster",
        "dagster",
        "from dagster import DagsterInstance, FilesystemIOManager, job, op",
        "execute_in_process, SQLite instance, FilesystemIOManager, no logging, no telemetry",
        most_tasks=100,
    ),
]

PEERS = list(dict.fromkeys(row.peer for row in ROWS if row is not OURS))
