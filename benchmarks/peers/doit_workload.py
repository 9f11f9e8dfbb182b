"""The workloads on doit with the back end that is asked for, driven from Python.

Runs inside doit's own environment; knows nothing of the other engines.
"""
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,misc"
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain
from doit.tools import run_once

from benchmarks.peers.measuring import Workload, body, main, timed


def action() -> dict[str, int]:
    """One task; doit keeps the values of a dict."""
    return {"value": body()}


def engine(work: Workload) -> float:
    """Times doit's run command, which also makes the task objects."""
    work.folder.mkdir(parents=True, exist_ok=True)

    def task_all() -> Iterator[dict[str, Any]]:
        for name, upstreams in work.shape.items():
            yield {
                "basename": name,
                "actions": [action],
                "task_dep": list(upstreams),
                "uptodate": [run_once],
            }

    namespace = {
        "task_all": task_all,
        "DOIT_CONFIG": {
            "backend": work.variant,
            "dep_file": str(work.folder / "doit.db"),
            "reporter": "zero",
            "verbosity": 0,
        },
    }
    command = DoitMain(ModuleTaskLoader(namespace))
    return timed(lambda: command.run(["run"]))


if __name__ == "__main__":
    main(engine)
