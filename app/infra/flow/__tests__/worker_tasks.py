"""Tasks for worker processes, which import them by name."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import AsyncFlow, Context, SkipTask, current_context


@dataclass
class Row:
    """A value of the user's own type."""

    number: int


def one(ctx: Context) -> int:
    return 1


def pid(ctx: Context) -> int:
    return os.getpid()


async def later(ctx: Context) -> str:
    await asyncio.sleep(0)
    return current_context().task_id


def sees(ctx: Context) -> dict[str, Any]:
    """All that a context offers."""
    ctx.params["seen"] = ctx.params["day"]
    del ctx.params["gone"]
    ctx.log("the key is hunter2")
    ctx.log("careful", logging.WARNING)
    ctx.heartbeat()
    return {
        "run": (ctx.run.id, ctx.run.flow_name, ctx.run.params["day"]),
        "tasks": sorted(ctx.run.tasks),
        "own": (ctx.task_instance.task_id, ctx.attempt_number, ctx.idempotency_key),
        "near": ctx.pull("near"),
        "current": current_context() is ctx,
        "cancelled": ctx.cancelled,
    }


def pulls_one_by_name(ctx: Context) -> Any:
    return ctx.pull("one")


def pulls_far(ctx: Context) -> Any:
    return ctx.pull("far")


def pulls_function(ctx: Context) -> int:
    return ctx.pull(one)


def own_id(ctx: Context) -> str:
    return ctx.task_id


def pulls_own_id(ctx: Context) -> str:
    return ctx.pull(own_id)


def pulls_pid(ctx: Context) -> int:
    return ctx.pull(pid)


def pulls_nested(ctx: Context) -> Any:
    return ctx.pull(nested)


def pulls_what_has_no_name(ctx: Context) -> Any:
    return ctx.pull(nameless)


def nested(_: None) -> AsyncFlow:
    return AsyncFlow("nested").add_task_definition("leaf", one)


nameless = partial(one)


def pulls_itself(ctx: Context) -> Any:
    return ctx.pull("only")


def pushes(ctx: Context) -> int:
    ctx.push(Row(7))
    return 1


def fails(ctx: Context) -> None:
    ctx.log("last words")
    raise ValueError("bad row")


async def fails_later(ctx: Context) -> None:
    await asyncio.sleep(0)
    raise ValueError("bad row")


def leaves(ctx: Context) -> None:
    sys.exit(3)


def interrupts(ctx: Context) -> None:
    raise KeyboardInterrupt


async def cancels(ctx: Context) -> None:
    raise asyncio.CancelledError


def gives_a_lock(ctx: Context) -> Any:
    return threading.Lock()


def logs_much(ctx: Context) -> None:
    for number in range(10_100):
        ctx.log(f"line {number}")


def beats(ctx: Context) -> None:
    for _ in range(100):
        ctx.heartbeat()


def beats_for_a_while(ctx: Context) -> None:
    for _ in range(30):
        time.sleep(0.1)
        ctx.heartbeat()


def crashes(ctx: Context) -> None:
    ctx.log("about to crash")
    ctypes.string_at(0)


def exits(ctx: Context) -> None:
    os._exit(7)


def is_killed(ctx: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed_but_its_child_holds_all_open(ctx: Context) -> None:
    for descriptor in range(3, 64):  # the pipes among them: as if native code had forked, which asks nobody
        with contextlib.suppress(OSError):
            os.dup(descriptor)
    if os.fork() == 0:
        os.setsid()
        time.sleep(5)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def logs_after_its_end(ctx: Context) -> int:
    def go_on() -> None:
        while True:
            ctx.log("still here " * 1000)
            ctx.heartbeat()

    threading.Thread(target=go_on, daemon=True).start()
    return os.getpid()


def note(ctx: Context, *words: object) -> None:
    """Write a line to the file that the param `notes` names."""
    with Path(ctx.params["notes"]).open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def sleeps(ctx: Context) -> None:
    note(ctx, os.getpid())
    time.sleep(600)


def sleeps_with_a_child(ctx: Context) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note(ctx, os.getpid(), child.pid)
    time.sleep(600)


def sleeps_and_ignores_sigterm(ctx: Context) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(ctx, os.getpid())
    time.sleep(600)


def cleans_up_at_sigterm(ctx: Context) -> None:
    def leave(number: int, frame: object) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, leave)
    note(ctx, os.getpid())
    with contextlib.ExitStack() as stack:
        stack.callback(note, ctx, "cleaned up")
        time.sleep(600)


def holds_the_lock(ctx: Context) -> None:
    note(ctx, os.getpid())
    ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the interpreter's lock


def forks_a_child_that_logs(ctx: Context) -> int:
    ctx.log("parent")
    child = os.fork()
    if child == 0:
        ctx.log("child")
        ctx.heartbeat()
        os._exit(11)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def square(number: int) -> int:
    return number * number


def uses_processes_itself(ctx: Context) -> list[int]:
    import multiprocessing

    with multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn").Pool(2) as pool:
        return pool.map(square, [1, 2, 3])


def sleeps_a_little(ctx: Context) -> str:
    time.sleep(0.3)
    return "slept"


def left(ctx: Context) -> int:
    return 2


def right(ctx: Context) -> int:
    return 3


def adds(ctx: Context, left: int, *, right: int = 0) -> int:
    """Takes what it depends on by its parameters."""
    return left + right


async def adds_later(ctx: Context, left: int, *, right: int = 0) -> int:
    await asyncio.sleep(0)
    return left + right


class NothingToDo(SkipTask):
    """A class of the user's own."""


def skips(ctx: Context) -> None:
    ctx.params["seen"] = True
    ctx.log("looked")
    try:
        raise FileNotFoundError("hunter2")
    except FileNotFoundError as error:
        raise NothingToDo("no new files for hunter2") from error


async def skips_later(ctx: Context) -> None:
    skips(ctx)


def is_large(ctx: Context, left: int) -> bool:
    return bool(left > ctx.params["limit"])


async def is_large_later(ctx: Context, left: int) -> bool:
    await asyncio.sleep(0)
    return bool(left > ctx.params["limit"])
