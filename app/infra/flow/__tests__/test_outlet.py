"""Lines for a reader that is slow, or has stopped: nobody waits for it, and it gets them in order."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from .. import AsyncFlow
from ..tools.outlet import Outlet
from ..tools.progress import show_progress
from ..tools.progress_lines import ProgressLines
from .terminals import PACKAGE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there it is not known whether a pipe takes anything")


class Pipe:
    """A pipe that is full at once, and read when somebody says so."""

    def __init__(self) -> None:
        self.out, end = os.pipe()
        self.stream: TextIO = os.fdopen(end, "w", encoding="ascii")

    def fill(self) -> int:
        """Leave no room in it; how many bytes that took."""
        end = self.stream.fileno()
        os.set_blocking(end, False)
        written = 0
        try:
            while True:
                written += os.write(end, b"." * 4096)
        except BlockingIOError:
            os.set_blocking(end, True)
            return written

    def read(self, size: int) -> str:
        """What is in it, as much as is said, but nothing that would have to be waited for for long."""
        data = b""
        while len(data) < size:
            data += os.read(self.out, size - len(data))
        return data.decode("ascii")


@pytest.fixture(name="pipe")
def _pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.out)
    try:
        made.stream.close()
    except OSError:
        pass


def test_a_run_does_not_wait_for_a_reader_who_has_stopped(pipe: Pipe) -> None:
    """It ends; then the reader goes on, and has all lines in their order."""
    flow = AsyncFlow("nightly")
    for number in range(1000):
        flow.add_task_definition(f"task-{number}", lambda _: 1)
    lines = ProgressLines(pipe.stream)
    expected: list[str] = []
    flow.subscribe(lines)
    flow.subscribe(lambda event: expected.append(lines.text(event) + "\n"))
    filled = pipe.fill()
    assert flow.run(run_id="monday").state == "success"
    assert len(expected) == 2002
    told = "".join(expected)
    assert pipe.read(filled + len(told))[filled:] == told
    lines.finish()


def test_a_line_is_there_at_once_where_there_is_room(pipe: Pipe) -> None:
    """And after what others had begun to write; in the encoding of the stream."""
    outlet = Outlet(pipe.stream)
    pipe.stream.write("half ")
    outlet.write("one é")
    assert pipe.read(14) == "half one \\xe9\n"[:14]


def test_more_than_may_wait_is_counted(pipe: Pipe) -> None:
    """What waits is bounded; the reader is told what is missing, and where."""
    outlet = Outlet(pipe.stream, most_waiting=20)
    filled = pipe.fill()
    for number in range(10):
        outlet.write(f"line {number}")
    told = "line 0\nline 1\n... 8 lines are left out here: they were not read in time\n"
    assert pipe.read(filled + len(told))[filled:] == told
    outlet.finish()
    outlet.write("again")
    assert pipe.read(6) == "again\n"


def test_a_reader_who_takes_nothing_is_given_up(pipe: Pipe) -> None:
    """As long as was said; nothing is written from then on."""
    outlet = Outlet(pipe.stream)
    filled = pipe.fill()
    outlet.write("never read")
    outlet.finish(patience=0.05)
    assert outlet.is_closed
    assert pipe.read(filled) == "." * filled


def test_a_reader_who_goes_away_is_no_trouble() -> None:
    """While lines wait for it, and before."""
    pipe = Pipe()
    outlet = Outlet(pipe.stream)
    pipe.fill()
    outlet.write("one")
    os.close(pipe.out)
    outlet.finish()
    outlet.write("two")
    assert outlet.is_closed
    pipe.stream.close()
    Outlet(None).write("nowhere")


@pytest.mark.parametrize("make", [io.StringIO, lambda: io.TextIOWrapper(io.BytesIO(), encoding="utf-8")])
def test_what_is_no_file_is_just_written_to(make: Callable[[], TextIO]) -> None:
    """Such as a stream in memory."""
    stream = make()
    Outlet(stream).write("one")
    stream.seek(0)
    assert stream.read() == "one\n"


def test_the_view_waits_for_the_lines(pipe: Pipe) -> None:
    """In a script: what is written after them stands behind them."""
    flow = AsyncFlow("nightly")
    flow.add_task_definition("one", lambda _: 1)
    with show_progress(flow, stream=pipe.stream):
        flow.run(run_id="monday")
    pipe.stream.write("after\n")
    pipe.stream.flush()
    text = pipe.read(1)
    while not text.endswith("after\n"):
        text += pipe.read(1)
    assert [line.split()[-1] for line in text.splitlines()] == ["started", "started", "success", "success", "after"]


PROGRAM = """
import asyncio, sys
from PACKAGE import AsyncFlow, SQLiteStore

flow = AsyncFlow("nightly", SQLiteStore("runs.db"))

@flow.task
def rows(ctx):
    return list(range(2000))

@flow.task(map_over=rows)
async def each(ctx, item):
    return item

@flow.task(depends_on=[each])
async def hang(ctx):
    print("waiting", flush=True)
    await asyncio.sleep(60)

flow.run(run_id="monday", progress=True)
"""


def test_an_interrupted_run_tells_its_lines_to_a_slow_reader(tmp_path: Path) -> None:
    """SIGINT: the run is saved though nobody reads; who then reads has all, to the last line."""
    (tmp_path / "flows.py").write_text(PROGRAM.replace("PACKAGE", PACKAGE))
    words = [sys.executable, "flows.py"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        told = process.stderr.read().splitlines()
        assert process.wait(20) == -signal.SIGINT
    lines = [line for line in told if re.match(r"\d\d:\d\d:", line)]
    assert sum("success" in line for line in lines) == 2002
    assert lines[-1].endswith("run interrupted")
    assert told[-1] == "KeyboardInterrupt"
