"""The contract of stores, run against each of the engine's own and against the example of the docs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, JsonStore, MemoryStore, SQLiteStore, Store
from ..testing import StoreContract

DOC = Path(__file__).resolve().parents[4] / "docs" / "writing-a-store.md"


class TestSQLiteStore(StoreContract):
    """Every promise, kept by the store in one SQLite file."""

    def make_store(self, folder: Path) -> Store:
        return SQLiteStore(folder / "runs.db")


class TestJsonStore(StoreContract):
    """Every promise, kept by the store in a folder of JSON files."""

    def make_store(self, folder: Path) -> Store:
        return JsonStore(folder / "runs")


class TestMemoryStore(StoreContract):
    """Every promise, kept by the store in memory, for as long as the object lives."""

    persistent = False

    def make_store(self, folder: Path) -> Store:
        return MemoryStore()


# --- the example of the docs ---


def _code_of_the_doc() -> dict[str, Any]:
    """What the Python blocks of the doc define, in one module, as a reader would put them together."""
    blocks = re.findall(r"^```python\n(.*?)^```$", DOC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    module: dict[str, Any] = {"__name__": "writing_a_store"}
    exec(compile("\n".join(blocks), str(DOC), "exec"), module)
    return module


if DOC.exists():  # the folder may have been copied without the docs
    TestStoreOfTheDocs = _code_of_the_doc()["TestOneFileStore"]


@pytest.mark.skipif(not DOC.parent.exists(), reason="the folder was copied without the docs")
def test_the_store_of_the_docs_runs_a_flow(tmp_path: Path) -> None:
    """The doc's example is found, takes the whole contract above, and carries a flow from one object to the next."""
    assert issubclass(TestStoreOfTheDocs, StoreContract)
    make = _code_of_the_doc()["OneFileStore"]
    flow = AsyncFlow("nightly", store=make(tmp_path / "runs.json"))
    flow.add_task_definition("load", lambda ctx: [1, 2, 3])
    flow.add_task_definition("count", lambda ctx: len(ctx.pull_output("load")), dependencies=["load"])
    run_id = flow.init_run()
    asyncio.run(flow.run_until_complete(run_id))
    loaded = make(tmp_path / "runs.json").load(run_id)
    assert (loaded.state, loaded.tasks["count"].output_json) == ("success", 3)
