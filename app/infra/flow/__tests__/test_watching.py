"""`watch`: a run of another process is followed to its end, on a terminal and in a pipe."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from .. import AsyncFlow, Context, JsonStore, MemoryStore, SQLiteStore, Store
from ..tools import watching
from ..tools.cli import main
from .conftest import make_store
from .terminals import Terminal

in_a_terminal = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals here")

DRIVER = """
import asyncio
from PACKAGE import AsyncFlow, SQLiteStore

inner = AsyncFlow("checks")
flow = AsyncFlow("nightly", SQLiteStore("runs.db"))

@inner.task
async def sums(ctx):
    await asyncio.sleep(0.2)

@flow.task
async def rows(ctx):
    await asyncio.sleep(1)
    return [1, 2, 3]

@flow.task(map_over=rows)
async def parse(ctx, item):
    await asyncio.sleep(0.1 * item)
    if item == 2:
        raise ValueError("bad row")

flow.add_subflow_definition("sub", inner, dependencies=["rows"])
flow.run(run_id="monday")
"""


def nightly(store: Store, fails: bool = False) -> AsyncFlow:
    """A flow of a task, a map and a subflow."""
    inner, flow = AsyncFlow("checks"), AsyncFlow("nightly", store)
    inner.add_task_definition("sums", lambda _: 1)

    @flow.task
    def rows(_: Context) -> list[int]:
        return [1, 2]

    @flow.task(map_over=rows)
    def parse(_: Context, item: int) -> None:
        if fails and item == 2:
            raise ValueError("bad row \x1b[2J")

    flow.add_subflow_definition("sub", inner)
    return flow


def pathed(store: Store) -> str:
    assert isinstance(store, (SQLiteStore, JsonStore))
    return str(store.path if isinstance(store, SQLiteStore) else store.folder)


def watched(path: str, run_id: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], str]:
    """The exit code, the lines without their times of day, and what was said beside them."""
    code = main(["watch", run_id, "--store", path, "--interval", "0.01"])
    out, err = capsys.readouterr()
    return code, [re.sub(r" {2,}", "  ", re.sub(r"^\d\d:\d\d:\d\d\.\d{3} ", "", line)) for line in out.splitlines()], err


@pytest.mark.parametrize("kind", ["sqlite", "json"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_has_ended_is_told_at_once(kind: str, fails: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that became of it, its subflows' tasks included, line by line; the exit code is the run's."""
    with make_store(kind, tmp_path) as store:
        flow = nightly(store, fails)
        flow.run(run_id="monday")
        path = pathed(store)
    code, lines, err = watched(path, "latest", capsys)
    assert (code, err) == (int(fails), "")
    assert lines[0] == "monday  nightly  run made"
    assert "monday  rows  success" in lines
    assert "monday  checks.sums  success" in lines
    assert "monday  parse[0]  success" in lines
    assert lines[-1] == f"monday  nightly  run {'failed' if fails else 'success'}"
    assert ("monday  parse[1]  failed  ValueError: bad row \\x1b[2J" in lines) is fails
    assert all(line.startswith("monday  ") for line in lines)


def test_what_happens_meanwhile_is_told_once_and_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While another thread drives the run by another store object: each change is one line."""
    store = SQLiteStore(tmp_path / "runs.db")
    flow = AsyncFlow("nightly", store)
    gate = threading.Event()

    @flow.task(max_retries=1)
    def first(ctx: Context) -> None:
        gate.wait(30)
        if ctx.attempt_number == 0:
            raise ValueError("not yet")

    flow.add_task_definition("second", lambda _: 1, dependencies=["first"])
    flow.init_run(run_id="monday")
    thread = threading.Thread(target=lambda: asyncio.run(flow.run_until_complete("monday")))
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            thread.start()
        if len(looks) > 20:
            gate.set()
        threading.Event().wait(0.01)

    code = follow(tmp_path / "runs.db", sleep)
    thread.join()
    store.close()
    out, err = capsys.readouterr()
    assert code == 0
    assert [re.sub(r" {2,}", "  ", line[13:]) for line in out.splitlines()] == [
        "monday  nightly  run made",
        "monday  nightly  run started",
        "monday  first  started",
        "monday  first  retry  ValueError: not yet",
        "monday  first  started  (attempt 2)",
        "monday  first  success  (attempt 2)",
        "monday  second  started",
        "monday  second  success",
        "monday  nightly  run success",
    ]
    assert err.count("Nobody drives this run now") <= 1
    assert min(looks) >= 0.5


def follow(path: Path, sleep: Callable[[float], None]) -> int:
    """The command with a sleep of one's own."""
    import argparse  # late: one test needs it

    options = argparse.Namespace(store=str(path), run_id="monday", interval=0.5)
    return watching.watch_command(options, sleep)


def test_a_run_that_nobody_drives_is_waited_for_and_said_to_be_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, with what to type; somebody may go on with it, and then it is followed as ever."""
    with SQLiteStore(tmp_path / "runs.db") as store:
        flow = AsyncFlow("nightly", store)
        flow.add_task_definition("one", lambda _: 1)
        flow.init_run(run_id="monday")
        looks: list[float] = []

        def sleep(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 3:
                flow.run(run_id="monday")

        assert follow(tmp_path / "runs.db", sleep) == 0
    out, err = capsys.readouterr()
    assert len(looks) == 3
    assert err.count("Nobody drives this run now. To go on with it: ") == 1
    assert f"resume monday --store {tmp_path / 'runs.db'}" in err
    assert out.splitlines()[-1].endswith("run success")


def test_a_run_that_is_not_there_is_a_mistake_of_whoever_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit code of one."""
    with MemoryStore(), SQLiteStore(tmp_path / "runs.db") as store:
        nightly(store).run(run_id="monday")
    code, lines, err = watched(str(tmp_path / "runs.db"), "tuesday", capsys)
    assert (code, lines) == (2, [])
    assert "There is no run 'tuesday'" in err


@in_a_terminal
def test_another_process_s_run_is_shown_on_a_terminal_to_its_end(tmp_path: Path) -> None:
    """The same view as in the process that drives it; failures above it, one line in the end, exit code 1."""
    package = __name__.rsplit(".", 2)[0]
    watcher = f"import sys\nfrom {package}.tools.cli import main\nsys.exit(main(sys.argv[1:]))"
    with Terminal(
        tmp_path, watcher, columns=110, arguments=("watch", "monday", "--store", "runs.db", "--interval", "0.05")
    ) as seen:
        driver = tmp_path / "driver.py"
        driver.write_text(DRIVER.replace("PACKAGE", package), encoding="utf-8")
        seen.process.send_signal(signal.SIGSTOP)
        driving = subprocess.Popen([sys.executable, str(driver)], cwd=tmp_path, env=environment())
        while not (tmp_path / "runs.db").exists():
            threading.Event().wait(0.02)
        threading.Event().wait(0.3)
        seen.process.send_signal(signal.SIGCONT)
        code, written = seen.read_to_end()
        driving.wait(30)
    assert code == 1
    text = written.decode()
    assert re.search("▶.{1,10} rows ", text)
    assert re.search(r"monday\S*  parse\[1\] +.*failed.*ValueError: bad row", text)
    assert "nightly monday  failed after" in text
    assert text.index("failed after") < text.index("\x1b[?25h")


@in_a_terminal
def test_ctrl_c_ends_the_watching_and_not_the_run(tmp_path: Path) -> None:
    """With exit code 130 and the cursor shown; what nobody drives is said on the screen, too."""
    package = __name__.rsplit(".", 2)[0]
    with SQLiteStore(tmp_path / "runs.db") as store:
        flow = AsyncFlow("nightly", store)
        flow.add_task_definition("one", lambda _: 1)
        flow.init_run(run_id="monday")
    watcher = f"import sys\nfrom {package}.tools.cli import main\nsys.exit(main(sys.argv[1:]))"
    with Terminal(tmp_path, watcher, columns=150, arguments=("watch", "monday", "--store", "runs.db")) as seen:
        seen.read_until(lambda written: b"Nobody drives this run now" in written)
        seen.type("\x03")
        code, written = seen.read_to_end()
    assert code == 130
    assert written.count(b"\x1b[?25h") == 1


def environment() -> dict[str, str]:
    """Of a process that finds the package."""
    import os  # late: one helper needs it

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_what_was_set_back_is_not_told_as_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By somebody's retry, of a run that had ended; a retry of the engine's own is called that."""
    with make_store("sqlite", tmp_path) as store:
        flow = AsyncFlow("nightly", store)
        flow.add_task_definition("sometimes", sometimes, max_retries=1, retry_delay=0)
        flow.run(run_id="monday")
        flow.manual_retry("monday", "sometimes")
        flow.run(run_id="monday")
        path = pathed(store)
    _, lines, _ = watched(path, "monday", capsys)
    told = [re.sub(r" +", " ", line) for line in lines]
    assert "monday sometimes retry OSError: not yet" in told
    assert any(line.startswith("monday sometimes set back manual retry of 'sometimes'") for line in told)
    assert "monday nightly run set back manual retry of 'sometimes'" in told
    assert not [line for line in told if "interrupted" in line]


def sometimes(ctx: Context) -> None:
    """Works at the second attempt."""
    if ctx.attempt_number == 0:
        raise OSError("not yet")
