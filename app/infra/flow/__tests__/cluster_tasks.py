"""A flow for other processes to run, and what its tasks note of themselves in a file.

Workers import it. Must not know pytest, nor on what it is run.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from .. import AsyncFlow, Context, Store
from ..task_options import ExecutorChoice, SubmitsWork

PATIENCE = 30.0
"""Seconds after which a task that is held gives up, so that no process is left behind."""
WIDTH = 8


def note(ctx: Context, word: str) -> None:
    """Write down, in one write, what a task does: it outlives any kill."""
    descriptor = os.open(Path(ctx.params["folder"]) / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with closing(os.fdopen(descriptor, "ab", buffering=0)) as file:
        file.write(f"{word} {ctx.task_id} {os.getpid()} {time.monotonic_ns()}\n".encode())


def effects(folder: Path) -> list[tuple[str, str, int]]:
    """What was written down: the word, the task and the process."""
    file = folder / "effects"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(word, task_id, int(pid)) for word, task_id, pid, _ in map(str.split, lines)]


def begun(folder: Path) -> Counter[str]:
    """How often each task's function was called."""
    return Counter(task_id for word, task_id, _ in effects(folder) if word == "begin")


def most_at_once(folder: Path) -> int:
    """How many functions ran at the same time at the most."""
    moments: dict[int, int] = defaultdict(int)
    for line in (folder / "effects").read_text().splitlines():
        word, _, _, written = line.split()
        moments[int(written)] += 1 if word == "begin" else -1
    now = most = 0
    for _, change in sorted(moments.items()):
        now += change
        most = max(most, now)
    return most


def square(ctx: Context) -> int:
    """The square of the number that the task's id ends in, plus a param."""
    note(ctx, "begin")
    number = int(ctx.task_id[1:])
    ctx.log(f"squaring {number}")
    note(ctx, "end")
    return number * number + int(ctx.params["plus"])


def total(ctx: Context) -> dict[str, int]:
    """The aggregate of all of them, pushed; and a param that later tasks see."""
    note(ctx, "begin")
    result = sum(ctx.pull(f"n{number}") for number in range(WIDTH))
    ctx.params["seen"] = (result, {1, 2})  # a tuple and a set come back as what they are
    ctx.push({"total": result})
    note(ctx, "end")
    return {"total": -1}  # what is pushed counts


def unsteady(ctx: Context) -> str:
    """Fails once."""
    note(ctx, "begin")
    ctx.log(f"attempt {ctx.attempt_number}")
    if not ctx.attempt_number:
        raise ConnectionError("the service is down")
    return f"{ctx.params['base']} at attempt {ctx.attempt_number} of {ctx.run.flow_name}"


async def doubled(ctx: Context) -> int:
    """A coroutine function, which runs to its end wherever it is sent."""
    note(ctx, "begin")
    return 2 * int(ctx.params["base"])


def report(ctx: Context) -> tuple[Any, ...]:
    """Puts all of it together."""
    note(ctx, "begin")
    return ctx.pull("total"), ctx.pull("inside"), ctx.params["seen"]


def everything(
    store: Store, executor: ExecutorChoice = None, executors: Mapping[str, SubmitsWork] | None = None, far: ExecutorChoice = None
) -> AsyncFlow:
    """A fan-out, its aggregate, a subflow whose tasks retry, and a report.

    Args:
        store: where the runs live.
        executor: where the functions run.
        executors: what that may name.
        far: where the coroutine function runs.
    """
    inside = AsyncFlow("inside", executor=executor)
    inside.add_task_definition("unsteady", unsteady, max_retries=1)
    inside.add_task_definition("doubled", doubled, executor=far)
    flow = AsyncFlow("everything", store, executor=executor, executors=executors)
    for number in range(WIDTH):
        flow.add_task_definition(f"n{number}", square)
    flow.add_task_definition("total", total, dependencies=[f"n{number}" for number in range(WIDTH)])
    flow.add_subflow_definition("inside", inside, dependencies=["total"], params=lambda ctx: {"base": ctx.pull("total")["total"]})
    return flow.add_task_definition("report", report, dependencies=["total", "inside"])


def held(ctx: Context) -> str:
    """Is under way until the file "released" is there."""
    note(ctx, "begin")
    end = time.monotonic() + PATIENCE
    while not (Path(ctx.params["folder"]) / "released").exists():
        if time.monotonic() > end:
            raise TimeoutError("nobody released it")
        time.sleep(0.005)
    note(ctx, "end")
    return "released"


def half_held(store: Store, executor: ExecutorChoice = None, executors: Mapping[str, SubmitsWork] | None = None) -> AsyncFlow:
    """Two tasks of which one is held, and what follows each, and both."""
    flow = AsyncFlow("half held", store, executor=executor, executors=executors)
    flow.add_task_definition("n1", square)
    flow.add_task_definition("n2", square, dependencies=["n1"])
    flow.add_task_definition("held", held, dependencies=["n2"])
    flow.add_task_definition("n3", square, dependencies=["held"])
    return flow.add_task_definition("both", both, dependencies=["n2", "n3"])


def both(ctx: Context) -> int:
    """The sum of two tasks."""
    note(ctx, "begin")
    return int(ctx.pull("n2") + ctx.pull("n3"))


def dies_once(ctx: Context) -> str:
    """Kills its own process in the midst of the first attempt that gets so far."""
    note(ctx, "begin")
    died = Path(ctx.params["folder"]) / "died"
    if not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"attempt {ctx.attempt_number}"


def busy(ctx: Context) -> int:
    """Takes a while."""
    note(ctx, "begin")
    time.sleep(0.02)
    note(ctx, "end")
    return os.getpid()


def pulls_too_far(ctx: Context) -> int:
    """Pulls what is upstream, but not declared."""
    return int(ctx.pull("n1"))
