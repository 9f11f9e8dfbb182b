"""The workloads on Hamilton: a function per task, with its cache on disk, or with no state at all.

Runs inside Hamilton's own environment; knows nothing of the other engines.
"""
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,misc"
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import logging
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from hamilton import driver
from hamilton.caching.stores.sqlite import SQLiteMetadataStore

from benchmarks.peers.measuring import Workload, main, timed
from benchmarks.peers.shapes import ends


def module_of(work: Workload) -> ModuleType:
    """Writes a module as a user would: a function per task, whose parameters are the tasks that it comes after."""
    work.folder.mkdir(parents=True, exist_ok=True)
    name = f"tasks_of_{work.run_id}"
    file = work.folder / f"{name}.py"
    functions = (
        f"def {task}({', '.join(f'{upstream}: int' for upstream in upstreams)}) -> int:\n    return body()\n"
        for task, upstreams in work.shape.items()
    )
    file.write_text("from benchmarks.peers.measuring import body\n\n" + "\n".join(functions))
    spec = spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def set_by_hand(folder: Path) -> SQLiteMetadataStore:
    """Hamilton leaves SQLite's defaults, which flush each commit; these are as safe against a killed process."""
    store = SQLiteMetadataStore(str(folder))
    store.connection.execute("PRAGMA journal_mode=WAL")
    store.connection.execute("PRAGMA synchronous=NORMAL")
    return store


def engine(work: Workload) -> float:
    """Builds the driver, then times one execution."""
    logging.disable(logging.CRITICAL)
    builder = driver.Builder().with_modules(module_of(work))
    if work.variant == "cache":
        # None is its default: a store of this very kind.
        builder = builder.with_cache(str(work.folder), metadata_store=set_by_hand(work.folder) if work.by_hand else None)
    dataflow = builder.build()
    return timed(lambda: dataflow.execute(ends(work.shape)))


if __name__ == "__main__":
    main(engine)
