"""The workloads on Night Batch itself: a SQLiteStore as it comes, tasks that are coroutines.

Runs in the plain Python; knows no peer.
"""

from __future__ import annotations

import asyncio

from app.infra.flow import AsyncFlow, Context, SQLiteStore
from benchmarks.peers.measuring import Workload, body, main, timed


async def task(_ctx: Context) -> int:
    """Does what every engine's tasks do here."""
    return body()


def engine(work: Workload) -> float:
    """Defines the flow and makes its run, then times driving it."""
    work.folder.mkdir(parents=True, exist_ok=True)
    with SQLiteStore(work.folder / "runs.db") as store:
        flow = AsyncFlow("workload", store)
        for name, upstreams in work.shape.items():
            flow.add_task_definition(name, task, dependencies=list(upstreams))
        flow.init_run(run_id=work.run_id)
        return timed(lambda: asyncio.run(drive(flow, work.run_id)))


async def drive(flow: AsyncFlow, run_id: str) -> None:
    """Drives the run to its end."""
    (await flow.run_until_complete(run_id)).raise_for_failure()


if __name__ == "__main__":
    main(engine)
