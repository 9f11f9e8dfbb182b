"""Three tasks side by side and one that adds them up: coroutines and plain functions alike overlap in time.

None of the three gets past the meeting point before all of them are there, so one after the other they would never end.
"""

import asyncio
import threading
import time

from app.infra.flow import AsyncFlow, Context, SQLiteStore

flow = AsyncFlow("parallel", SQLiteStore("workflows.db"))
meeting = threading.Barrier(3, timeout=30)


@flow.task
async def orders(ctx: Context) -> int:
    await asyncio.to_thread(meeting.wait)
    await asyncio.sleep(0.1)
    return 300


@flow.task
def refunds(ctx: Context) -> int:
    meeting.wait()
    time.sleep(0.1)  # blocks its own thread, and nobody else
    return -20


@flow.task
def shipping(ctx: Context) -> int:
    meeting.wait()
    time.sleep(0.1)
    return -50


@flow.task(depends_on=[orders, refunds, shipping])
def balance(ctx: Context) -> int:
    return sum(ctx.pull_output(task_id) for task_id in ("orders", "refunds", "shipping"))


async def main() -> None:
    run = await flow.run_until_complete(flow.init_run())
    run.raise_for_failure()

    parts = [run.tasks[task_id] for task_id in ("orders", "refunds", "shipping")]
    last_start = max(part.start_date for part in parts if part.start_date)
    first_end = min(part.end_date for part in parts if part.end_date)
    print("all three had started before the first one ended:", last_start < first_end)
    print("balance:", run.tasks["balance"].output_json)


if __name__ == "__main__":
    asyncio.run(main())
