"""Live progress as people have it: in a real terminal, in a pipe, while tasks print, fail, and are interrupted."""

from __future__ import annotations

import io
import re
import signal
import sys
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Context,
    ExecutionState,
    MemoryStore,
    RunFinished,
    RunInterrupted,
    RunProgress,
    RunStarted,
    SQLiteStore,
    Store,
    TaskCancelled,
    TaskFailed,
    TaskReset,
    TaskRetryScheduled,
    TaskSkipped,
    TaskStarted,
)
from ..tools import progress as progress_room
from ..tools.estimate import Estimate
from ..tools.progress import show_progress
from ..tools.progress_lines import ProgressLines
from ..tools.screen import HIDE, SHOW
from .attempts import until
from .conftest import FakeClock
from .terminals import PACKAGE, Terminal

MOMENT = 1_772_366_645_123_456
in_a_terminal = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals here")

PROGRAM = """
import asyncio, subprocess, sys, time
from PACKAGE import AsyncFlow, SQLiteStore

flow = AsyncFlow("nightly", SQLiteStore("runs.db"))

@flow.task
def rows(ctx):
    print("rows are read")
    return list(range(20))

@flow.task(map_over=rows)
async def parse(ctx, item):
    await asyncio.sleep(0.01 * item)
    if item == 7:
        raise ValueError("bad row \\x1b[2J")
    print(f"parsed {item}")

@flow.task(depends_on=[parse], trigger_rule="all_done")
async def load(ctx):
    await asyncio.sleep(0.3)
    print("half a line", end="", file=sys.stderr)

@flow.task(depends_on=[load])
async def hang(ctx):
    print("waiting", flush=True)
    await asyncio.sleep(float(sys.argv[1]))

print("before")
run = flow.run(run_id="monday", progress=True)
print("after:", run.state)
"""


def on_screen(written: bytes, columns: int = 80, rows: int = 60) -> list[str]:
    """What the terminal shows in the end; the test is skipped where nobody can tell."""
    pyte = pytest.importorskip("pyte", reason="what a terminal shows is told by pyte (requirements-extras.txt)")
    terminal = pyte.Screen(columns, rows)
    pyte.ByteStream(terminal).feed(written)
    return [line.rstrip() for line in terminal.display if line.strip()]


# --- in a real terminal ---


@in_a_terminal
def test_a_run_shows_itself_in_a_terminal_and_leaves_it_clean(tmp_path: Path) -> None:
    """What tasks print stands above the view in whole lines, failures too, and one line remains of the view."""
    with Terminal(tmp_path, PROGRAM, columns=120, arguments=("0",)) as terminal:
        code, written = terminal.read_to_end()
    assert code == 0
    assert written.count(HIDE.encode()) == written.count(SHOW.encode()) == 1
    assert written.index(SHOW.encode()) > written.rindex(b"\x1b[?7l")
    assert b"\x1b[2J" not in written
    assert "█".encode() in written
    lines = on_screen(written, 120)
    assert lines[0] == "before"
    assert lines.count("rows are read") == 1
    assert sorted(line for line in lines if line.startswith("parsed")) == sorted(f"parsed {n}" for n in range(20) if n != 7)
    failed = [line for line in lines if "parse[7]" in line]
    assert "ValueError: bad row \\x1b[2J" in failed[0]
    assert [line for line in lines if "nightly monday" in line][0].startswith("✗ nightly monday  failed after")
    assert "23 tasks: 1 failed, 22 done" in "".join(lines)
    assert "half a line" in "".join(lines)
    assert lines[-1].endswith("after: failed")


@in_a_terminal
def test_ctrl_c_saves_the_run_and_gives_the_terminal_back(tmp_path: Path) -> None:
    """As without the view: KeyboardInterrupt; the last line says that the run was interrupted."""
    with Terminal(tmp_path, PROGRAM, arguments=("60",)) as terminal:
        terminal.read_until(lambda written: b"hang" in written)
        terminal.type("\x03")
        code, written = terminal.read_to_end()
    assert code == -signal.SIGINT
    assert written.count(SHOW.encode()) == 1
    assert b"KeyboardInterrupt" in written[written.index(SHOW.encode()) :]
    assert "interrupted after" in "".join(on_screen(written))
    with SQLiteStore(tmp_path / "runs.db") as store:
        assert store.load("monday").state == "scheduled"


@in_a_terminal
@pytest.mark.parametrize(("more", "expected"), [((), 0), (("--json",), 1)])
def test_how_a_run_ended_is_told_once(tmp_path: Path, more: tuple[str, ...], expected: int) -> None:
    """By the summary of the command line; the view leaves its line where there is none."""
    flow = "from PACKAGE import AsyncFlow\nflow = AsyncFlow('nightly')\nflow.add_task_definition('one', lambda ctx: 1)\n"
    (tmp_path / "flows.py").write_text(flow.replace("PACKAGE", PACKAGE), encoding="utf-8")
    program = (
        "import sys\nfrom PACKAGE.tools.cli import main\nsys.exit(main(['run', 'flows.py', '--run-id', 'monday', *sys.argv[1:]]))"
    )
    with Terminal(tmp_path, program, arguments=more) as terminal:
        code, written = terminal.read_to_end()
    assert code == 0
    assert written.count(b"nightly monday  success after") == expected
    assert len(re.findall(rb"nightly\x1b\[0m  monday  .*success", written)) == 1 - expected


KILLED = """
import asyncio
from PACKAGE import AsyncFlow, SQLiteStore
from PACKAGE.tools.progress import show_progress

flow = AsyncFlow("nightly")

@flow.task
async def hang(ctx):
    await asyncio.sleep(60)

async def main():
    with show_progress(flow):
        await flow.run_until_complete(flow.init_run(run_id="monday"))

asyncio.run(main())
"""


@in_a_terminal
@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)])
def test_a_signal_that_nobody_handles_ends_the_program_with_a_clean_terminal(tmp_path: Path, number: signal.Signals) -> None:
    """The program dies of it as it would have; but the cursor is there again, and no picture."""
    with Terminal(tmp_path, KILLED) as terminal:
        terminal.read_until(lambda written: b"hang" in written)
        terminal.send(number)
        code, written = terminal.read_to_end()
    assert code == -number
    assert written.endswith(SHOW.encode())
    assert on_screen(written) == []


SHELL = """
import os, signal, sys, time
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    while os.tcgetpgrp(0) != os.getpid():
        time.sleep(0.01)
    os.execv(sys.executable, [sys.executable, "job.py"])
while True:
    try:
        os.setpgid(job, job)
    except OSError:
        pass
    os.tcsetpgrp(0, job)
    _, status = os.waitpid(job, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        break
    print("[stopped]", flush=True)
    input()
    os.tcsetpgrp(0, job)
    os.kill(-job, signal.SIGCONT)
print("[ended]", flush=True)
"""
"""What a shell does: gives its job the terminal, and takes it back when the job stops; any line means `fg`."""


def _says(text: bytes, times: int, start: int, written: bytes) -> bool:
    return written[start:].count(text) >= times


@in_a_terminal
def test_ctrl_z_leaves_the_terminal_to_the_shell_and_comes_back(tmp_path: Path) -> None:
    """The picture goes before the program stops; after `fg` it is drawn again. A second Ctrl-Z does the same."""
    (tmp_path / "job.py").write_text(KILLED.replace("PACKAGE", PACKAGE), encoding="utf-8")
    with Terminal(tmp_path, SHELL) as terminal:
        terminal.read_until(lambda written: b"hang" in written)
        for times in (1, 2):
            terminal.type("\x1a")
            stopped = terminal.read_until(partial(_says, b"[stopped]", times, 0))
            assert stopped.count(SHOW.encode()) == stopped.count(HIDE.encode()) == times
            assert on_screen(stopped)[-1].endswith("[stopped]")
            assert "hang" not in "".join(on_screen(stopped))
            terminal.type("\n")
            again = terminal.read_until(partial(_says, b"hang", 1, len(stopped)))
            assert again[len(stopped) :].count(HIDE.encode()) == 1
        terminal.type("\x03")
        terminal.read_until(lambda written: b"[ended]" in written)
    assert terminal.written.count(SHOW.encode()) == terminal.written.count(HIDE.encode()) == 3


@in_a_terminal
def test_the_view_follows_the_size_of_the_terminal(tmp_path: Path) -> None:
    """Made narrower while it is shown, it is narrower in the next picture."""
    with Terminal(tmp_path, KILLED, columns=100) as terminal:
        terminal.read_until(lambda written: b"hang" in written)
        terminal.resize(30, 10)
        before = len(terminal.written)
        pictures = terminal.read_until(lambda written: written[before:].count(b"hang") > 2)[before:].split(b"\x1b[?7l")
    for picture in pictures[2:-1]:
        for line in picture.split(b"\r\n"):
            plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", line).decode()
            assert len(plain.strip("\r")) < 30


@in_a_terminal
def test_an_error_of_the_program_is_shown_on_a_clean_terminal(tmp_path: Path) -> None:
    """The traceback comes after the view has gone."""
    source = KILLED.replace("await asyncio.sleep(60)", "await asyncio.sleep(0.3)").replace(
        'init_run(run_id="monday"))', 'init_run(run_id="monday")); raise LookupError("of the program")'
    )
    with Terminal(tmp_path, source) as terminal:
        code, written = terminal.read_to_end()
    assert code == 1
    assert b"LookupError: of the program" in written[written.index(SHOW.encode()) :]
    assert written.count(SHOW.encode()) == 1


# --- in a pipe ---


def lines_of(flow: AsyncFlow, run_id: str | None = None) -> list[str]:
    """A run of the flow, as it shows itself in a pipe; without the times of day."""
    stream = io.StringIO()
    with show_progress(flow, run_id, stream=stream):
        flow.run(run_id="monday")
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} ", line) for line in lines)
    return [re.sub(r" {2,}", "  ", line[13:]) for line in lines]


def test_in_a_pipe_each_event_is_one_clean_line() -> None:
    """Run, task, what became of it and why; no colours, no picture."""
    flow = AsyncFlow("nightly", MemoryStore())

    @flow.task(max_retries=1)
    def load(ctx: Context) -> None:
        raise ValueError(f"no such column\n\x1b[31m {ctx.attempt_number}")

    flow.add_task_definition("later", lambda _: 1, dependencies=["load"])
    assert lines_of(flow) == [
        "monday  nightly  run started",
        "monday  load  started",
        "monday  load  retry  ValueError: no such column",
        "monday  load  started  (attempt 2)",
        "monday  load  failed  ValueError: no such column (attempt 2)",
        "monday  later  skipped  upstream task 'load' failed",
        "monday  nightly  run failed",
    ]


@pytest.mark.parametrize("run_id", [None, "monday"])
def test_tasks_of_subflows_stand_under_the_run_around_them(run_id: str | None) -> None:
    """With their flow's name before their own."""
    inner, flow = AsyncFlow("checks"), AsyncFlow("nightly")
    inner.add_task_definition("sums", lambda _: 1)
    flow.add_subflow_definition("sub", inner)
    lines = lines_of(flow, run_id)
    assert "monday  checks.sums  success" in lines
    assert all(line.startswith("monday  ") for line in lines)


def test_lines_stop_when_nobody_reads_them(caplog: pytest.LogCaptureFixture) -> None:
    """A closed stream is no trouble of the run's, and nothing is logged."""
    stream = io.StringIO()
    stream.close()
    flow = AsyncFlow("nightly")
    flow.add_task_definition("one", lambda _: 1)
    flow.subscribe(ProgressLines(stream))
    assert flow.run().state == "success"
    assert caplog.records == []


def test_what_users_typed_cannot_steer_the_terminal_nor_break_a_line() -> None:
    """Ids, flows' names and reasons alike; and what the encoding does not have is spelled out."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    lines = ProgressLines(stream)
    evil = "é\x1b]0;x\x07\n\u202e"
    for event in (
        RunStarted(evil, evil, MOMENT),
        TaskFailed(evil, evil, MOMENT, evil, 1, evil),
        TaskSkipped("inner" + evil, evil, MOMENT, evil, 0, evil),
        RunFinished(evil, evil, MOMENT, ExecutionState.FAILED),
    ):
        assert lines.text(event).isprintable()
        assert lines.text(event).isascii()


def test_every_event_has_words_of_its_own() -> None:
    """With the time of day in UTC, to the millisecond."""
    lines = ProgressLines(io.StringIO())
    where = ("nightly", "monday", MOMENT)
    texts = [
        lines.text(event)
        for event in (
            RunStarted(*where),
            TaskStarted(*where, "load", 0),
            TaskRetryScheduled(*where, "load", 0, "ValueError: x", 2.5),
            TaskCancelled(*where, "load", 1, "cancelled by itself"),
            TaskReset(*where, "load", 1),
            RunInterrupted(*where),
        )
    ]
    assert [re.sub(r" {2,}", "  ", text) for text in texts] == [
        "12:04:05.123 monday  nightly  run started",
        "12:04:05.123 monday  load  started",
        "12:04:05.123 monday  load  retry  in 2.5 s: ValueError: x",
        "12:04:05.123 monday  load  cancelled  cancelled by itself (attempt 2)",
        "12:04:05.123 monday  load  reset",
        "12:04:05.123 monday  nightly  run interrupted",
    ]


# --- the view, without a terminal ---


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_the_view_asks_for_no_event_that_comes_with_every_task() -> None:
    """So the run does not make these, and costs what it costs unseen."""
    flow = AsyncFlow("nightly")
    flow.add_task_definition("one", lambda _: 1)
    with show_progress(flow, stream=Tty(), live=True):
        assert not flow.events.has_subscribers
    assert not flow.events._handlers


def test_each_run_of_a_flow_is_shown_in_turn_or_the_one_that_was_named() -> None:
    """Of two runs in one block the last one remains; of a named one only that."""
    flow = AsyncFlow("nightly")
    flow.add_task_definition("one", lambda _: 1)
    stream = Tty()
    with show_progress(flow, stream=stream, live=True):
        flow.run(run_id="monday")
        flow.run(run_id="tuesday")
    assert "nightly tuesday  success after" in stream.getvalue()
    stream = Tty()
    with show_progress(flow, "wednesday", stream=stream, live=True):
        flow.run(run_id="wednesday")
        flow.run(run_id="thursday")
    assert "nightly wednesday  success after" in stream.getvalue()
    assert "thursday" not in stream.getvalue()


def test_thousands_of_failures_are_not_all_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number that somebody might read, the counts say the rest."""
    monkeypatch.setattr(progress_room, "MOST_FAILURES", 10)
    flow, stream = AsyncFlow("nightly"), Tty()

    def fail(_: Context) -> None:
        raise ValueError("no")

    for number in range(50):
        flow.add_task_definition(f"t{number}", fail, executor="inline")
    with show_progress(flow, stream=stream, live=True):
        flow.run()
    assert stream.getvalue().count("ValueError: no") == 10
    assert "40 more failures not listed" in stream.getvalue()
    assert "50 failed" in stream.getvalue()


# --- how long it will still take ---


def seen(done: int, total: int, seconds: float, flow_name: str = "nightly", run_id: str = "monday") -> RunProgress:
    start = datetime(2026, 3, 1, tzinfo=timezone.utc)
    counts: dict[Any, int] = {ExecutionState.SUCCESS: done, ExecutionState.SCHEDULED: total - done}
    at = start + timedelta(seconds=seconds)
    return RunProgress(run_id, flow_name, ExecutionState.RUNNING, at, start, None, counts, 0, (), (), True)


def test_without_earlier_runs_the_pace_tells_once_there_is_one() -> None:
    """Not before a tenth of the tasks was seen to end; what had ended before does not count."""
    estimate = Estimate(MemoryStore(), seen(500, 1000, 0), None)
    assert estimate.remaining(seen(550, 1000, 10)) is None
    assert estimate.remaining(seen(600, 1000, 20)) == pytest.approx(80)


async def test_the_view_tells_the_remaining_time_by_earlier_runs(store: Store, clock: FakeClock) -> None:
    """Of whichever store: a run took ten seconds, and this one has lasted for two."""
    flow, stream, seconds = AsyncFlow("nightly", store, clock=clock), Tty(), [10.0]

    @flow.task
    async def slow(_: Context) -> None:
        clock.pass_time(seconds[0])
        if seconds[0] < 10:
            await until(lambda: " left" in stream.getvalue())

    await flow.run_until_complete(flow.init_run(run_id="sunday"))
    seconds[0] = 2.0
    with show_progress(flow, stream=stream, live=True):
        await flow.run_until_complete(flow.init_run(run_id="monday"))
    assert "2.0 s  about 8 s left" in stream.getvalue()


def test_earlier_runs_are_read_once_and_only_when_that_costs_next_to_nothing() -> None:
    """A run of 1,000 tasks must have lasted for five seconds; then the earlier one tells."""
    flow = AsyncFlow("nightly", MemoryStore())
    flow.add_task_definition("one", lambda _: 1)
    flow.run(run_id="sunday")
    reads: list[str] = []

    class Counting(MemoryStore):
        def get_all_runs(self, *arguments: Any, **named: Any) -> Any:
            reads.append("all")
            return flow.store.get_all_runs(*arguments, **named)

        def read_tasks(self, run_id: str) -> Any:
            return flow.store.read_tasks(run_id)

    store = Counting()
    estimate = Estimate(store, seen(0, 1000, 0))
    assert estimate.remaining(seen(10, 1000, 4.9)) is None
    assert reads == []
    assert estimate.remaining(seen(10, 1000, 5.1)) is not None
    assert estimate.remaining(seen(20, 1000, 6)) is not None
    assert reads == ["all"]
