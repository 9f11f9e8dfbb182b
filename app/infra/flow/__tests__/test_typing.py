"""What mypy and pyright make of a flow, and that they would say so if it were otherwise."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from . import typing_handles
from .conftest import run

PACKAGE = __name__.rpartition(".__tests__")[0]
ROOT = Path(__file__).parents[len(PACKAGE.split(".")) + 1]
SOURCE = Path(typing_handles.__file__).read_text(encoding="utf-8")

ASSERTION = re.compile(r"(?<!def )assert_type\((.*), (\"[^\"]*\"|\w+)\)")
REFUSED = re.compile(r"  # type: ignore\[.*\]")


FIRST = "flow = AsyncFlow("
"""How the line begins before which the wrong version has a type that nothing in the flow has."""


def as_stated() -> str:
    """The flow, to be checked from outside of the package."""
    return SOURCE.replace("from .. import", f"from {PACKAGE} import").replace(FIRST, f"class Other: ...\n\n\n{FIRST}", 1)


def with_every_statement_wrong() -> tuple[str, list[int]]:
    """The same, but each assertion states another type, and what is to be refused is not marked as such; and those lines."""
    lines = as_stated().splitlines()
    wrong = [REFUSED.sub("", ASSERTION.sub(r"assert_type(\1, Other)", line)) for line in lines]
    return "\n".join(wrong), [number for number, line in enumerate(lines, start=1) if line != wrong[number - 1]]


def complaints_of_mypy(folder: Path, cache: Path, *files: str) -> set[tuple[str, int]]:
    """The files and lines that it finds something wrong with."""
    command = [
        "mypy",
        "--strict",
        "--python-version=3.10",
        "--no-error-summary",
        "--config-file=",
        f"--cache-dir={cache}",
        *files,
    ]
    found = checked(command, folder)
    lines = [re.match(r"(\w+\.py):(\d+): error: ", line) for line in found.stdout.splitlines()]
    assert found.returncode == (1 if any(lines) else 0), found.stdout + found.stderr
    return {(match[1], int(match[2])) for match in lines if match}


def complaints_of_pyright(folder: Path, _: Path, *files: str) -> set[tuple[str, int]]:
    """The same of the other."""
    options: dict[str, object] = {
        "include": files,
        "typeCheckingMode": "strict",
        "pythonVersion": "3.10",
        "extraPaths": [str(ROOT)],
    }
    for rule in ("ArgumentType", "LambdaType", "MemberType", "VariableType"):  # as pyproject.toml has it
        options[f"reportUnknown{rule}"] = False
    (folder / "pyrightconfig.json").write_text(json.dumps({**options, "reportPrivateUsage": False}))
    found = checked(["pyright", "--outputjson", f"--pythonpath={sys.executable}"], folder)
    errors = [each for each in json.loads(found.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    return {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in errors}


def checked(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "complaints",
    [
        pytest.param(complain, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"needs {name} (requirements-dev.txt)"))
        for name, complain in (("mypy", complaints_of_mypy), ("pyright", complaints_of_pyright))
    ],
)
def test_a_checker_knows_what_comes_out_of_a_handle_and_refuses_what_is_wrong(
    complaints: Callable[..., set[tuple[str, int]]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Both in one go, since starting takes longest: the flow as it is, of which nothing is said, and one with all of it wrong."""
    source, wrong = with_every_statement_wrong()
    assert len(wrong) == len(re.findall(r"(?<!def )assert_type\(", SOURCE)) + len(REFUSED.findall(SOURCE)) > 40
    (tmp_path / "stated.py").write_text(as_stated(), encoding="utf-8")
    (tmp_path / "wrong.py").write_text(source, encoding="utf-8")
    kept = getattr(request.config, "cache", None)  # without it, mypy reads the whole package anew
    assert complaints(tmp_path, tmp_path if kept is None else kept.mkdir("mypy"), "stated.py", "wrong.py") == {
        ("wrong.py", line) for line in wrong
    }


async def test_what_the_checkers_say_comes_out_is_what_comes_out() -> None:
    done = await run(typing_handles.flow)
    done.raise_for_failure()
    assert done.tasks["pulls"].output_json == typing_handles.PULLED
    done = await run(typing_handles.a_flow_that_maps())
    done.raise_for_failure()
    assert done.tasks["joined"].output_json == typing_handles.JOINED
