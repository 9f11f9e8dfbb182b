"""The command line: what it answers to, and what the demo shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .. import __version__
from ..tools.cli import main, make_parser
from ..tools.program import program, to_type
from .command_line import PACKAGE, CommandLine, command_line, environment

__all__ = ["command_line"]


def run_module(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m <this package>` in a process of its own, with `folder` as its working directory."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", PACKAGE, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def attempts_shown(output: str) -> dict[str, str]:
    """The column `attempts` of the demo's summary, by task."""
    rows = re.findall(r"^ *(\w+) +success +([a-z, ]+?) +[\d.]+$", output, re.MULTILINE)
    return dict(rows)


def check_demo(output: str) -> None:
    """What the demo has to have shown, in whatever order the steps side by side ended."""
    assert attempts_shown(output) == {
        "orders": "success",
        "refunds": "success",
        "rates": "failed, success",
        "totals": "success",
        "checks": "success",
        "none_is_missing": "success",
        "none_is_negative": "success",
        "report": "interrupted, success",
        "publish": "success",
    }
    before, after = output.split("and the same call again")
    assert re.findall(r"s +finished +(\S+)$", after, re.MULTILINE) == ["report", "publish"]
    assert "put back  report" in before
    assert "rates: ConnectionError: the bank does not answer; again in 0.2 s" in before
    first_end = before.index("finished")
    assert all(before.index(f"started   {task}") < first_end for task in ("orders", "refunds", "rates"))
    assert output.endswith("Result: sales of the day: 225.00 EUR, 281.25 USD\n")


def test_the_demo_shows_a_retry_and_an_interruption_that_costs_one_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Three steps start side by side, one is retried, one interrupted; after that, only what had not finished runs."""
    assert main(["demo"]) == 0
    check_demo(capsys.readouterr().out)


def test_the_demo_runs_as_a_program_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """`python -m` on the package shows the same, warns of nothing, and writes nothing into the working directory."""
    done = run_module("demo", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    check_demo(done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_the_library_s(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the name and the version, and nothing else."""
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"night-batch {__version__}\n"


def test_without_a_command_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    """No command is a usage error that shows what there is, on stderr."""
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "usage: night-batch" in shown.err
    assert "demo" in shown.err


@pytest.mark.parametrize("arguments", [["dmeo"], ["--fast"], ["demo", "--fast"], ["demo", "twice"]])
def test_what_it_does_not_know_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown commands and options exit with 2 and a sentence, before anything is done."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert arguments[-1] in shown.err


def test_the_exit_code_reaches_the_shell(tmp_path: Path) -> None:
    """What main returns is what the process ends with."""
    assert run_module(folder=tmp_path).returncode == 2


# --- the commands ---


COMMANDS = next(iter(action.choices for action in make_parser()._actions if action.dest == "command")) or {}
EVERY = {
    "run": ["a.py:flow"],
    "resume": ["monday"],
    "retry": ["monday", "load"],
    "cancel": ["monday"],
    "list": [],
    "show": ["monday"],
    "explain": ["monday", "load"],
    "stats": [],
    "graph": ["monday"],
    "report": ["monday"],
    "watch": ["monday"],
    "prune": ["--keep", "3"],
    "check": [],
    "backup": ["copy.db"],
    "demo": [],
    "completion": ["bash"],
}


def test_every_command_is_tried_here() -> None:
    assert EVERY.keys() == set(COMMANDS)


@pytest.mark.parametrize("command", EVERY)
def test_every_command_helps_with_examples_that_it_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help names each option; what stands there as an example can be parsed."""
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    examples = re.findall(rf"^  night-batch {command}(.*)$", shown, re.MULTILINE)
    assert examples or command == "demo"
    for example in examples:
        words = shlex.split(example, comments=False)
        words = words[: next((place for place, word in enumerate(words) if word in (">", ">>")), len(words))]
        make_parser().parse_args([command, *words])


@pytest.mark.parametrize("command", sorted(EVERY.keys() - {"demo"}))
def test_every_command_has_a_room_that_answers_to_it(command: str, command_line: CommandLine) -> None:
    """Called where there is nothing, each says so in a line or two, and leaves nothing behind."""
    ended = command_line(command, *EVERY[command])
    assert ended.code == (0 if command == "completion" else 2), ended.err
    assert len(ended.err.splitlines()) <= 2
    assert bool(ended.err) is (command != "completion")
    assert list(command_line.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dmeo"], "dmeo"),
        (["list", "--limit", "-3"], "'-3' is not a whole number from 0 on"),
        (["list", "--older-than", "3 moons"], "'3 moons' is not an age, such as 90s"),
        (["list", "--newer-than", "inf"], "is not an age"),
        (["watch", "--interval", "0"], "is not a number of seconds"),
        (["stats", "--runs", "0"], "is not a whole number from 1 on"),
        (["list", "--state", "asleep"], "invalid choice: 'asleep'"),
        (["run", "a:b", "--quiet", "--progress"], "not allowed with"),
        (["show", "--sto", "a.db"], "unrecognized arguments: --sto"),
        (["show", "\x1b[31m", "red"], "red"),
    ],
)
def test_an_error_of_usage_takes_two_lines_that_say_where_help_is(words: list[str], said: str, command_line: CommandLine) -> None:
    ended = command_line(*words)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert "--help" in ended.err
    assert len(ended.err.splitlines()) == 2
    assert "\x1b" not in ended.err


def test_an_option_that_a_command_does_not_have_leads_to_the_help_of_that_command(command_line: CommandLine) -> None:
    ended = command_line("show", "--sto", "a.db")
    assert ended.err.splitlines()[1].endswith(" show --help")


def test_a_command_that_looks_loads_nothing_that_only_running_needs(tmp_path: Path) -> None:
    """`list` is to answer at once, so it waits for no event loop, no flow and no other command."""
    script = f"""
import sys
from {PACKAGE} import SQLiteStore
with SQLiteStore("runs.db"): pass
from {PACKAGE}.tools.cli import main
assert main(["list", "--store", "runs.db"]) == 0
print(sorted(name for name in sys.modules if name in ("asyncio", "ssl", "importlib.util", "webbrowser")
             or name.startswith("{PACKAGE}.tools.") and name.endswith(("running", "targets", "drawing", "demo"))))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


# --- how it is called ---


def test_what_is_told_to_be_typed_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIGHT_BATCH_STORE", raising=False)
    assert to_type("show", "a b", store="my runs.db") == "night-batch show 'a b' --store 'my runs.db'"
    monkeypatch.setenv("NIGHT_BATCH_STORE", "runs.db")
    assert to_type("show", "a", store="runs.db") == "night-batch show a"
    assert to_type("show", "a", store="other.db") == "night-batch show a --store other.db"


def test_as_a_module_it_tells_to_call_it_as_a_module(tmp_path: Path) -> None:
    done = run_module("--help", folder=tmp_path)
    usage = " ".join(done.stdout.split())  # a line that is full goes on in the next
    assert usage.startswith(f"usage: {shlex.quote(sys.executable)} -m {PACKAGE} [-h]")
    assert "night-batch" not in done.stdout


def test_other_modules_that_are_run_do_not_change_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/pytest/__main__.py"])
    assert program() == "night-batch"
