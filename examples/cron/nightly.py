"""A nightly job for cron or systemd: quiet when all is well, with exit codes that say what is not.

    python -m examples.cron.nightly

It waits for a file of orders, adds them up and writes a report. Beside it stand `crontab` and the unit files. However it ends,
the next call goes on with what is unfinished: after a crash, a reboot or a stop, nothing that was done is done again.

Exit codes, those of the command line too: 0 done; 1 a task failed; 3 the runs cannot be read or written, or another process is at
it; 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import asyncio
import json
import os
import sys
from datetime import date
from pathlib import Path

from app.infra.flow import AsyncFlow, Context, RunFailedError, RunOwnedError, SQLiteStore, StoreError

# systemd makes the folder and says where it is (StateDirectory=); under cron it is where the crontab line changed to.
FOLDER = Path(os.environ.get("STATE_DIRECTORY", "."))
DATABASE = FOLDER / "nightly.db"

flow = AsyncFlow("nightly", SQLiteStore(DATABASE))


@flow.task(timeout=4 * 3600)
async def wait_for_orders(ctx: Context) -> str:
    orders = FOLDER / f"orders-{ctx.params['day']}.json"
    while not orders.exists():  # noqa: ASYNC110 - nobody says when it comes
        await asyncio.sleep(0.2)
    return str(orders)


@flow.task(depends_on=[wait_for_orders], max_retries=2, retry_delay=0.1)
def add_up(ctx: Context, wait_for_orders: str) -> dict[str, int]:
    orders: list[int] = json.loads(Path(wait_for_orders).read_text())
    return {"orders": len(orders), "total": sum(orders)}


@flow.task(depends_on=[add_up])
def write_report(ctx: Context, add_up: dict[str, int]) -> None:
    report = FOLDER / f"report-{ctx.params['day']}.txt"
    unfinished = report.with_suffix(".tmp")  # whole or not at all, and the same when it is done twice
    unfinished.write_text("{orders} orders, {total} in total\n".format(**add_up))
    unfinished.replace(report)


def drive(day: str) -> int:
    """Do one night's work, or go on with it; the exit code. A night has one run: a second call for it repeats nothing."""
    run = flow.run({"day": day}, run_id=f"nightly-{day}")
    try:
        run.raise_for_failure()
    except RunFailedError as error:
        print(error, file=sys.stderr)
        again = f"--store {DATABASE} --flow examples.cron.nightly:flow"
        print(f"When it is mended: python -m app.infra.flow resume {run.id} {again}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Continue what earlier nights left unfinished, then do tonight's; the exit code."""
    tonight = os.environ.get("DAY") or date.today().isoformat()
    try:
        left = [run_id for state in ("running", "scheduled") for run_id in flow.store.list_runs(state, flow.flow_name)]
        days = {run_id.removeprefix("nightly-") for run_id in left} | {tonight}
        return max([drive(day) for day in sorted(days)])
    except (StoreError, RunOwnedError) as error:
        print(error, file=sys.stderr)
        return 3
    except KeyboardInterrupt:  # the run is saved; SIGTERM raises SystemExit(143) by itself
        return 130


if __name__ == "__main__":
    sys.exit(main())
