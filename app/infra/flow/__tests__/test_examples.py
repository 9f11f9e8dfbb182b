"""The examples run as their readers would run them, and print what stands beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
EXAMPLES = ROOT / "examples"
EXPECTED = EXAMPLES / "expected"

if not EXPECTED.is_dir():
    pytest.skip("this folder was copied into another tree, without the examples", allow_module_level=True)

NAMES = sorted(path.stem for path in EXPECTED.glob("*.txt"))


def run_example(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m examples.NAME` in a process of its own, with `folder` as its working directory."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", f"examples.{name}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_example_prints_what_stands_beside_it_each_time_it_runs(name: str, tmp_path: Path) -> None:
    """The output is the expected one, also of a second run that finds the first one's file; nobody is warned of anything."""
    expected = (EXPECTED / f"{name}.txt").read_text()
    for _ in range(2):
        done = run_example(name, tmp_path)
        assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0)
    assert (tmp_path / "workflows.db").is_file()


def test_every_example_is_tested() -> None:
    """No example stands in the folder without an expected output; the audit and the orders have tests of their own."""
    programs = {path.stem for path in EXAMPLES.glob("*.py")}
    assert programs - {"__init__", "source_audit", "orders"} == set(NAMES)
