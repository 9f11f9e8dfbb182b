"""What it costs to begin: the import alone, and a whole process that runs one task.

The import is timed within a fresh process, which has imported nothing but `time`, beside that of the standard library's modules
that an engine of this kind cannot do without. What is imported are the two names that a script begins with: the package's face
alone loads nothing before a name is asked for. The cold start is the wall time of a whole process, from its start to its end,
that imports, defines and runs one coroutine task on a new SQLite file; beside it one that awaits the same coroutine under
`asyncio.run` and inserts its result into a new SQLite file in WAL mode. Byte code was compiled before; the files are in the
page cache.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Set
from functools import partial
from pathlib import Path

from .measure import Group, Line, Options, compared, in_fresh_folder, interleaved, python

IMPORT_LIMIT = 1.35
COLD_LIMIT = 1.5

STANDARD = "import asyncio, sqlite3, json, dataclasses, logging"
OURS = "from app.infra.flow import AsyncFlow, SQLiteStore"
TIMED_IMPORT = "import time; begin = time.perf_counter(); {}; print(time.perf_counter() - begin)"

COLD_OURS = """
import sys
from app.infra.flow import AsyncFlow, SQLiteStore

flow = AsyncFlow("cold", SQLiteStore(sys.argv[1] + "/cold.db"))

@flow.task
async def one(ctx):
    return 1

flow.run().raise_for_failure()
"""

COLD_BARE = """
import asyncio
import json
import sqlite3
import sys

async def one():
    return 1

async def main():
    connection = sqlite3.connect(sys.argv[1] + "/cold.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE tasks (task_id TEXT PRIMARY KEY, state TEXT, output TEXT)")
    connection.execute("INSERT INTO tasks VALUES ('one', 'success', ?)", (json.dumps(await one()),))
    connection.close()

asyncio.run(main())
"""


def run(options: Options, chosen: Set[str]) -> Iterator[Line]:
    """Measure the chosen lines."""
    rounds = 5 if options.quick else 3 * options.rounds
    if "import" in chosen:
        found = interleaved({"theirs": lambda: import_ms(STANDARD), "ours": lambda: import_ms(OURS)}, rounds)
        budget = f"at most {IMPORT_LIMIT} x its standard library"
        note = f"{OURS}, beside: {STANDARD}"
        yield compared("import", budget, IMPORT_LIMIT, found["ours"], "stdlib", found["theirs"], "ms", note)
    if "cold-start" in chosen:
        theirs, ours = (in_fresh_folder(partial(cold_ms, code)) for code in (COLD_BARE, COLD_OURS))
        found = interleaved({"theirs": theirs, "ours": ours}, rounds)
        yield compared("cold-start", f"at most {COLD_LIMIT} x bare", COLD_LIMIT, found["ours"], "bare", found["theirs"], "ms")


def import_ms(statement: str) -> float:
    """How long an import takes in a fresh process, in milliseconds."""
    return float(_output("-c", TIMED_IMPORT.format(statement))) * 1000


def cold_ms(code: str, folder: Path) -> float:
    """How long a whole process takes, in milliseconds."""
    begin = time.perf_counter()
    _output("-c", code, str(folder))
    return (time.perf_counter() - begin) * 1000


def _output(*arguments: str) -> str:
    finished = python(*arguments)
    if finished.returncode:
        raise RuntimeError(f"python {arguments} ended with {finished.returncode}:\n{finished.stderr}")
    return finished.stdout


GROUP = Group("startup", ["import", "cold-start"], run)
