"""The workloads on Prefect: a flow of coroutines with its own temporary server, each result in a file.

Runs inside Prefect's own environment; knows nothing of the other engines.
"""
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,misc"
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
import os
from time import perf_counter

from benchmarks.peers.measuring import Workload, body, main
from benchmarks.peers.shapes import levels

os.environ.update(
    PREFECT_LOGGING_LEVEL="CRITICAL",
    PREFECT_LOGGING_TO_API_ENABLED="false",
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="60",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_LOGGING_LEVEL="CRITICAL",
    PREFECT_RESULTS_PERSIST_BY_DEFAULT="true",
)

from prefect import flow, task
from prefect.cache_policies import INPUTS


@task(cache_policy=INPUTS)
async def step(_run_id: str, _name: str) -> int:
    """One task; its result is kept under its arguments, so another run of the flow finds it."""
    return body()


@flow
async def workflow(run_id: str, groups: list[list[str]]) -> float:
    """Runs the tasks of a level at once, level by level, and says how long that took."""
    start = perf_counter()
    for group in groups:
        await asyncio.gather(*(step(run_id, name) for name in group))
    return perf_counter() - start


def engine(work: Workload) -> float:
    """Times the tasks inside the flow, when the server is up."""
    return float(asyncio.run(workflow(work.run_id, levels(work.shape))))


if __name__ == "__main__":
    main(engine)
