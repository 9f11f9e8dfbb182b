"""The command line: what it answers to, and what the demo shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .. import __version__
from ..tools.cli import main

PACKAGE = __name__.rsplit(".", 2)[0]


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
