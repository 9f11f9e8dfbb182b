"""Real processes for tests: programs that drive runs, to be told things, stopped, killed and started again; what they did.

A program answers in lines. What its tasks do is noted in a file outside the store, one line a `write`: it survives any kill.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .. import JsonStore, SQLiteStore

PACKAGE = __package__.rpartition(".")[0] if __package__ else ""
ROOT = Path(__file__).parents[PACKAGE.count(".") + 2]
SHARED_KINDS = ("sqlite", "json")
"""The stores that several processes can have."""
PATIENCE = 15.0
"""Seconds that a program may take for what it does at once on a machine with nothing else to do."""

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor these signals")

PRELUDE = """
import asyncio, json, os, signal, sys, threading, time, warnings
from pathlib import Path
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # of a fork among threads, which is what is tried here
from {package} import (
    StoreForkedError,
    AsyncFlow, FlowError, JsonStore, OwnershipLostError, RunNotFoundError, RunOwnedError, SQLiteStore
)

if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests under nohup has it ignored

KIND, FOLDER, OPTIONS = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])

def make_store(**options):
    options = {{**OPTIONS.get("store", {{}}), **options}}
    return SQLiteStore(FOLDER / "runs.db", **options) if KIND == "sqlite" else JsonStore(FOLDER / "runs", **options)

def note(*words):
    descriptor = os.open(FOLDER / "effects.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (" ".join(map(str, words)) + "\\n").encode())
    os.close(descriptor)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def hear():
    line = b""
    while not line.endswith(b"\\n"):
        read = os.read(0, 1)  # not sys.stdin, whose lock a thread that never ends would keep for ever
        if not read:
            os._exit(77)
        line += read
    return line.decode().strip()

def body(ctx):
    words = ctx.run.id, ctx.task_id, os.getpid()
    note("begin", *words, time.monotonic_ns())
    time.sleep(OPTIONS.get("pause", 0))
    if ctx.task_id in OPTIONS.get("hold", ()):
        say("in", ctx.task_id)
        hear()
    note("end", *words, time.monotonic_ns())
    number = int(ctx.task_id[1:])
    return ctx.pull(f"t{{number - 1}}") + 1 if number else 1

def chain(store):
    flow = AsyncFlow("chain", store)
    for number in range(OPTIONS.get("tasks", 3)):
        flow.add_task_definition(f"t{{number}}", body, dependencies=[f"t{{number - 1}}"] if number else None)
    return flow
"""

WORKER = """
flow = chain(make_store())
say("ready")
while True:
    command, *words = hear().split()
    try:
        if command == "drive":
            say("ended", flow.run(run_id=words[0]).state)
        elif command == "begin":
            say("made", flow.init_run(run_id=words[0]))
        elif command == "take_over":
            say("taken", flow.take_over(words[0]))
        elif command == "reset":
            say("reset", flow.manual_retry(*words))
        elif command == "check":
            say("found", flow.store.check())
        elif command == "end":
            flow.store.close()
            sys.exit(0)
    except RunOwnedError as error:
        say("owned", error)
"""


class Program:
    """A Python program in a process of its own.

    Args:
        code: what it does, after the PRELUDE.
        kind: of the store that it makes.
        folder: where that lies, and the log of effects.
        under: a command that runs it, such as strace.
        options: for the code, as OPTIONS: "store" (arguments of the store), "tasks", "hold", "pause" and others.
    """

    def __init__(self, code: str, kind: str, folder: Path, under: Sequence[str] = (), **options: object) -> None:
        self._process = subprocess.Popen(
            [*under, sys.executable, "-c", PRELUDE.format(package=PACKAGE) + code, kind, str(folder), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": ""},
        )
        self.pid = self._process.pid
        self._read = b""

    def tell(self, line: str) -> None:
        """Give it a line to hear."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def line(self, seconds: float = PATIENCE) -> str:
        """The next line that it says."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._read:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"it said nothing for {seconds} s"
            read = os.read(self._process.stdout.fileno(), 65536)
            assert read, f"it ended: {self.ended_with()}"
            self._read += read
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def expect(self, line: str) -> None:
        """Have it say exactly this next."""
        assert self.line() == line

    def ask(self, line: str) -> str:
        """What it answers to a line."""
        self.tell(line)
        return self.line()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def expect_nothing_more(self) -> None:
        """Wait until it, and all that it forked, have ended or closed their streams."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        assert ready
        assert (self._read, os.read(self._process.stdout.fileno(), 65536)) == (b"", b"")

    def code(self) -> int:
        """Wait for its end, whatever it forked; its exit code, or minus the signal that killed it."""
        return self._process.wait(PATIENCE)

    def ended_with(self, seconds: float = PATIENCE) -> tuple[int, str]:
        """Wait for its end; its exit code (minus the signal that killed it), and what it wrote to its error stream."""
        assert self._process.stderr is not None
        code = self._process.wait(seconds)
        return code, self._process.stderr.read().decode()

    def clean_up(self) -> None:
        """Leave nothing of it behind."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:  # what it was told last, it did not live to hear
                pass


class Programs:
    """Starts programs on one store, and ends them with the test."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self._all: list[Program] = []

    def start(self, code: str, under: Sequence[str] = (), **options: object) -> Program:
        """Another program."""
        program = Program(code, self.kind, self.folder, under, **options)
        self._all.append(program)
        return program

    def worker(self, **options: Any) -> Program:
        """A program that has made its store and waits to be told what to do: see WORKER."""
        program = self.start(WORKER, **options)
        program.expect("ready")
        return program

    def workers(self, count: int, **options: Any) -> list[Program]:
        """The same several times."""
        programs = [self.start(WORKER, **options) for _ in range(count)]
        for program in programs:
            program.expect("ready")
        return programs

    def store(self, **options: Any) -> SQLiteStore | JsonStore:
        """The programs' store, for the test itself; it must close it."""
        return (
            SQLiteStore(self.folder / "runs.db", **options)
            if self.kind == "sqlite"
            else JsonStore(self.folder / "runs", **options)
        )

    def owner_files(self) -> list[Path]:
        """The files of those who own, or owned, runs of the store."""
        return sorted(path for path in self.folder.rglob("*owner-*") if path.is_file())

    def clean_up(self) -> None:
        """Leave nothing of them behind."""
        for program in self._all:
            program.clean_up()


@pytest.fixture(params=SHARED_KINDS)
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Programs]:
    """Programs on each of the stores that processes can share."""
    made = Programs(request.param, tmp_path)
    yield made
    made.clean_up()


@dataclass
class Body:
    """Once that a task's function ran."""

    pid: int
    began: int
    ended: int | None = None


def bodies(folder: Path) -> dict[tuple[str, str], list[Body]]:
    """Each time that each run's tasks ran, in order."""
    found: dict[tuple[str, str], list[Body]] = defaultdict(list)
    log = folder / "effects.log"
    for line in log.read_text().splitlines() if log.exists() else ():
        word, run_id, task_id, pid, moment = line.split()
        times = found[run_id, task_id]
        if word == "begin":
            times.append(Body(int(pid), int(moment)))
        else:
            next(body for body in reversed(times) if body.pid == int(pid) and body.ended is None).ended = int(moment)
    for times in found.values():
        times.sort(key=lambda body: body.began)
    return found


def check_never_twice_at_once(folder: Path) -> None:
    """No task ran while it was running already. One whose process was killed has no end: what follows began after the kill."""
    for task, times in bodies(folder).items():
        for earlier, later in zip(times, times[1:]):
            assert earlier.ended is None or earlier.ended <= later.began, f"{task} ran twice at once"


def stop(program: Program) -> None:
    """Have a program stand still, as a laptop that is closed."""
    program.signal(signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{program.pid}/stat").exists() and _state(program.pid) != "T":
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
