"""How commands end that could not do what they were asked: codes for programs, a line or two for people."""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .. import (
    DefinitionError,
    GraphChangedError,
    JsonStore,
    OwnershipLostError,
    RunActiveError,
    RunFailedError,
    RunNotFoundError,
    RunOwnedError,
    StoreBusyError,
    StoredValueError,
    StoreFormatError,
    UnknownTaskError,
    UnregisteredTypeError,
    UnstorableValueError,
)
from ..tools.failures import Refusal, guarded
from .command_line import PACKAGE, PIPELINE, CommandLine, command_line, environment, started

__all__ = ["command_line"]


def ends(error: BaseException, traceback: bool = False) -> int:
    def command(_: argparse.Namespace) -> int:
        raise error

    return guarded(command, argparse.Namespace(traceback=traceback))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refusal("no"), 2),
        (Refusal("well", 0), 0),
        (RunNotFoundError("a"), 2),
        (UnknownTaskError("Run 'a'", "b"), 2),
        (DefinitionError("c"), 2),
        (UnstorableValueError("params", "set", "no"), 2),
        (GraphChangedError("a", "f", added=["t"]), 2),
        (FileNotFoundError(2, "No such file", "out.html"), 2),
        (StoreBusyError("store", 3.0), 3),
        (StoreFormatError("store", "it is a picture"), 3),
        (RunOwnedError("a", "process 1 on host"), 3),
        (OwnershipLostError("a"), 3),
        (RunActiveError("a", "retry a task of"), 3),
        (StoredValueError("it ends early"), 3),
        (UnregisteredTypeError("Order"), 3),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("division by zero"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_kind_of_trouble_has_its_exit_code(error: BaseException, code: int) -> None:
    assert ends(error) == code


@pytest.mark.parametrize(
    "error",
    [
        Refusal("one\ntwo"),
        RunFailedError("a", "f", "failed", {str(number): "why" for number in range(50)}),
        ZeroDivisionError("x" * 10_000),
        FileNotFoundError(2, "No such file", "out.html"),
        RunOwnedError("a", "process 1 on host"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_said_takes_two_lines_at_most(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    ends(error)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert 1 <= len(shown.err.splitlines()) <= 2
    assert len(shown.err) < 800


def test_who_drives_a_run_is_named_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    ends(RunOwnedError("monday", "process 7 on host"))
    assert capsys.readouterr().err == (
        "Run 'monday' is being driven by process 7 on host. Wait for it to end, or end that process: a dead one's run is free.\n"
    )


def test_a_changed_graph_is_told_with_the_option_that_takes_it_up(capsys: pytest.CaptureFixture[str]) -> None:
    ends(GraphChangedError("monday", "f", added=["t"]))
    said = capsys.readouterr().err
    assert "--adopt-graph" in said
    assert "adopt_graph" not in said


@pytest.mark.parametrize(
    "error", [Refusal("\x1b[31mred"), ValueError("\x1b[31mred"), RunOwnedError("\x1b[31mred"), OSError("\x1b[31mred")]
)
def test_what_is_said_cannot_steer_a_terminal(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    ends(error, traceback=True)
    said = capsys.readouterr().err
    assert "red" in said
    assert "\x1b" not in said


def test_the_traceback_is_shown_when_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    ends(ValueError("why"))
    assert "Traceback" not in capsys.readouterr().err
    ends(ValueError("why"), traceback=True)
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_the_option_may_stand_before_the_command_and_behind_it(command_line: CommandLine) -> None:
    command_line.write("broken.py", "import absent_library\n")
    for words in (("--traceback", "run", "broken.py:flow"), ("run", "broken.py:flow", "--traceback")):
        ended = command_line(*words)
        assert ended.code == 2
        assert "Traceback (most recent call last)" in ended.err
        assert "No module named 'absent_library'" in ended.err
    assert "Traceback" not in command_line("run", "broken.py:flow").err


def test_who_stops_reading_the_result_of_a_run_does_not_change_how_it_ended(command_line: CommandLine) -> None:
    """Two processes: `night-batch run ... | true`."""
    command_line.write("pipeline.py", PIPELINE)
    with started("run", "pipeline.py:flow", "--json", "--quiet", folder=command_line.folder) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(60) == 1
    assert "BrokenPipe" not in said
    assert "Traceback" not in said


def test_who_stops_reading_what_a_command_shows_ends_it_quietly(command_line: CommandLine) -> None:
    with started("completion", "bash", folder=command_line.folder) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no shell that closes a stream")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_run_ends_as_it_ends_whichever_streams_are_closed(command_line: CommandLine, closed: str) -> None:
    """And no file that is opened takes the number of one of them: what other programs write there must not go into it."""
    program = f"import os\nfrom {PACKAGE} import AsyncFlow\nflow = AsyncFlow('nightly')\nflow.add_task_definition('one', "
    program += "lambda ctx: [os.path.samestat(os.fstat(number), os.stat(os.devnull)) for number in (0, 1, 2)])\n"
    command_line.write("flows.py", program)
    words = f'exec "$0" -m {PACKAGE} run flows.py:flow --run-id one --store runs {closed}'
    shell = ["sh", "-c", words, sys.executable]
    (command_line.folder / "runs").mkdir()
    ended = subprocess.run(
        shell, cwd=command_line.folder, env=environment(command_line.folder), capture_output=True, text=True, timeout=60
    )
    assert "should not have happened" not in ended.stdout + ended.stderr
    assert ended.returncode == 0
    if closed == ">&-":
        assert ended.stderr.endswith("run success\n")
    with JsonStore(command_line.folder / "runs") as store:
        found = store.load("one").tasks["one"].output
    streams = [part[:1].replace(">", "1").replace("<", "0") for part in closed.split()]
    assert all(found[int(number)] for number in streams)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_disk_that_is_full_is_told_as_what_it_is(command_line: CommandLine) -> None:
    """Output that could not be written, after the run has ended."""
    command_line.write("pipeline.py", PIPELINE)
    for words in (
        ["run", "pipeline.py:flow", "--store", "runs.db", "--quiet", "--json"],
        ["list", "--store", "runs.db", "--json"],
    ):
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run(
                [sys.executable, "-m", PACKAGE, *words],
                cwd=command_line.folder,
                env=environment(command_line.folder),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
            )
        assert (
            ended.stderr.splitlines()[-1]
            == "The output could not be written: No space left on device. What was to be done is done."
        )
        assert ended.returncode == 2


def test_a_home_that_nobody_has_is_told_in_a_line(command_line: CommandLine) -> None:
    """In a store's path, a target's, and that of a backup."""
    for words in (["list", "--store", "~nobody-at-all/x.db"], ["run", "~nobody-at-all/x.py:flow"]):
        ended = command_line(*words)
        assert ended.code == 2
        assert re.fullmatch(r"There is no home folder for ~nobody-at-all/x.* Write the whole path.\n", ended.err)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM there")
def test_sigterm_ends_a_command_that_drives_nothing_with_its_code(command_line: CommandLine) -> None:
    """While a target is imported, say; what had been begun is put in order."""
    command_line.write(
        "slow.py", "import time\ntry:\n    print('here', flush=True)\n    time.sleep(60)\nfinally:\n    print('left')\n"
    )
    with started("graph", "slow.py:flow", folder=command_line.folder) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "here\n"
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read() == "left\n"
        assert process.wait(60) == 143


def test_a_place_where_no_report_can_be_is_named_as_it_was_typed(command_line: CommandLine) -> None:
    """And not by the name of the file that it is written to at first."""
    command_line.write("pipeline.py", PIPELINE)
    assert command_line("run", "pipeline.py:flow", "--store", "runs.db", "--quiet", "--run-id", "monday").code == 1
    for place, problem in (("absent/x.html", "cannot be written: its folder does not exist"), (".", "is a folder")):
        ended = command_line("report", "monday", "--store", "runs.db", "-o", place)
        assert (ended.code, ended.err) == (2, f"{place} {problem}. Name another file with -o FILE.\n")


def test_ctrl_c_before_a_command_is_found_is_no_traceback(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", lambda *_: interrupted(""))
    assert command_line("list").code == 130
