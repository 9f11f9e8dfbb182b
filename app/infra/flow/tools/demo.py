"""A flow to watch: steps side by side, a retry, a subflow, and a run that is interrupted and goes on where it stood.

Everything happens in a temporary folder, in about a second.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .. import (
    AsyncFlow,
    AttemptResult,
    Context,
    Event,
    RunStarted,
    SQLiteStore,
    Store,
    TaskEvent,
    TaskInterrupted,
    TaskRetryScheduled,
    TaskStarted,
    TaskSucceeded,
    WorkflowRun,
)


def main() -> int:
    """Run the demo and print what happens. Returns the exit code: 0 if all went as it is meant to."""
    with tempfile.TemporaryDirectory(prefix="night-batch-") as folder, SQLiteStore(Path(folder) / "demo.db") as store:
        print("Night Batch: the books of a small shop, kept in one SQLite file.\n", flush=True)
        run = asyncio.run(interrupted_and_continued(shop(store)))
        print()
        for line in summary(run, store):
            print(line)
    return 0 if run.state == "success" else 1


# --- the flow ---


def shop(store: Store) -> AsyncFlow:
    """Three sources side by side, sums, checks of their own as a subflow, a report, and its publication."""
    flow = AsyncFlow("shop", store)

    @flow.task
    async def orders(_: Context) -> list[int]:
        await asyncio.sleep(0.15)
        return [120, 80, 45]

    @flow.task
    def refunds(_: Context) -> list[int]:
        time.sleep(0.1)
        return [-20]

    @flow.task(max_retries=2, retry_delay=0.2)
    async def rates(ctx: Context) -> dict[str, float]:
        if ctx.attempt_number == 0:
            raise ConnectionError("the bank does not answer")
        return {"EUR": 1.0, "USD": 1.25}

    @flow.task(depends_on=[orders, refunds, rates])
    def totals(ctx: Context) -> dict[str, float]:
        euros = sum(ctx.pull("orders")) + sum(ctx.pull("refunds"))
        return {currency: euros * rate for currency, rate in ctx.pull("rates").items()}

    flow.add_subflow_definition("checks", checks(), dependencies=[totals])

    @flow.task(depends_on=["checks"])
    async def report(ctx: Context) -> str:
        await asyncio.sleep(0.2)
        return ", ".join(f"{amount:.2f} {currency}" for currency, amount in ctx.pull("totals").items())

    @flow.task(depends_on=[report])
    def publish(ctx: Context) -> str:
        return f"sales of the day: {ctx.pull('report')}"

    return flow


def checks() -> AsyncFlow:
    """What must hold before anybody reads the numbers."""
    flow = AsyncFlow("checks")

    @flow.task
    def none_is_missing(ctx: Context) -> bool:
        return set(ctx.params["totals"]) == {"EUR", "USD"}

    @flow.task
    def none_is_negative(ctx: Context) -> bool:
        return all(amount >= 0 for amount in ctx.params["totals"].values())

    return flow


# --- what happens to it ---


async def interrupted_and_continued(flow: AsyncFlow) -> WorkflowRun:
    """Run the flow; cancel the run as soon as `report` is under way; run it again."""
    flow.events.subscribe(Narrator())
    run_id = flow.init_run({"day": "2024-02-29"}, run_id="books-of-2024-02-29")
    running = asyncio.create_task(flow.run_until_complete(run_id))

    def interrupt(event: Event) -> None:
        if isinstance(event, TaskStarted) and event.task_id == "report":
            stop()
            print("\n        Ctrl-C! The run is cancelled while `report` is under way ...\n", flush=True)
            running.cancel()

    stop = flow.events.subscribe(interrupt, TaskStarted)
    try:
        return await running
    except asyncio.CancelledError:
        print("\n        ... and the same call again, as after a crash or a reboot.\n", flush=True)
    return await flow.run_until_complete(run_id)


class Narrator:
    """Prints events in the words of people."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._runs = 0

    def __call__(self, event: Event) -> None:
        """Print one event, if it is one worth a line."""
        words = self._words(event)
        if words:
            print(f"{time.monotonic() - self._began:6.2f}s {words}", flush=True)

    def _words(self, event: Event) -> str | None:
        if isinstance(event, RunStarted):
            return f"run {event.run_id}" if event.flow_name == "shop" else None
        if not isinstance(event, TaskEvent):
            return None
        path = event.task_id if event.flow_name == "shop" else f"{event.flow_name}.{event.task_id}"
        if isinstance(event, TaskStarted):
            again = f", attempt {event.attempt_number + 1}" if event.attempt_number else ""
            return f"  started   {path}{again}"
        if isinstance(event, TaskSucceeded):
            return f"  finished  {path}"
        if isinstance(event, TaskRetryScheduled):
            return f"  failed    {path}: {event.reason}; again in {event.delay:g} s"
        if isinstance(event, TaskInterrupted):
            return f"  put back  {path}"
        return None


def summary(run: WorkflowRun, store: Store) -> Iterator[str]:
    """What became of each task, the subflow's tasks included, as the store tells it."""
    yield f"{'task':<22}{'state':<10}{'attempts':<24}{'seconds':>7}"
    tasks = run.get_all_tasks_recursive(store)
    successes = 0
    for path, task in tasks.items():
        run_id = run.id if path in run.tasks else run.tasks["checks"].child_run_id
        results = [attempt.result for attempt in store.list_attempts(run_id or run.id, task.task_id)]
        successes += results.count(AttemptResult.SUCCESS)
        seconds = (task.end_date - task.start_date).total_seconds() if task.start_date and task.end_date else 0.0
        indented = "  " * path.count(".") + task.task_id
        yield f"{indented:<22}{task.state:<10}{', '.join(results):<24}{seconds:>7.2f}"
    yield ""
    yield f"{len(tasks)} tasks, {successes} successful attempts: what was finished before the interruption was not run again."
    yield f"Result: {run.tasks['publish'].output}"
