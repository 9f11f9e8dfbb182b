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
TESTED_APART = {
    "cron": "test_examples_cron",
    "fastapi_app": "test_examples_fastapi",
    "notebook": "test_examples_notebook",
    "opentelemetry_spans": "test_examples_opentelemetry",
    "source_audit": "test_source_audit",
    "test_my_flow": "test_examples",
}
"""Those in other people's programs have tests of their own, and so has the audit."""


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
    """No example stands in the folder without an expected output, or tests of its own."""
    programs = {path.stem for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb") or (path / "__init__.py").is_file()}
    # `orders` is what a new user walks through, which is a test of its own.
    assert programs - {"__init__", "orders"} == {*NAMES, *TESTED_APART}
    assert all((Path(__file__).parent / f"{tests}.py").is_file() for tests in TESTED_APART.values())


def test_the_example_of_tests_passes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    tests = EXAMPLES / "test_my_flow.py"
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            os.devnull,
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
            "-W",
            "error",
            str(tests),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout
    assert f"{tests.read_text().count(chr(10) + 'def test_')} passed" in ran.stdout
    assert list(tmp_path.iterdir()) == []
