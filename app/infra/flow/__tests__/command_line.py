"""Calls the command line as people do: in this process, or in one of its own. Knows no command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from ..tools import targets
from ..tools.cli import main

PACKAGE = __name__.rsplit(".", 2)[0]

PIPELINE = f"""
import os
import time

from {PACKAGE} import AsyncFlow, SQLiteStore

flow = AsyncFlow("pipeline", SQLiteStore("own.db"))


@flow.task
def extract(ctx):
    print("said by a task")
    os.system("echo said by a program")
    return ctx.params.get("rows", [1, 2])


@flow.task(map_over=extract)
def parse(ctx, row):
    if row == 2 and not os.path.exists("mended"):
        raise ValueError("a bad row")
    return row


@flow.task(depends_on=[parse])
def load(ctx):
    with open("loads.log", "a") as log:
        log.write("x")
    return sum(ctx.pull("parse"))
"""

SLEEPER = f"""
import asyncio
import os

from {PACKAGE} import AsyncFlow, SQLiteStore

inner = AsyncFlow("inner")


@inner.task
def first(ctx):
    with open("firsts.log", "a") as log:
        log.write("x")


@inner.task(depends_on=[first])
async def wait(ctx):
    if not os.path.exists("awake"):
        with open("asleep", "w"):
            pass
        await asyncio.sleep(60)


flow = AsyncFlow("sleeper", SQLiteStore("own.db"))
flow.add_subflow_definition("sub", inner)


@flow.task(depends_on=["sub"])
def last(ctx):
    return "done"
"""


class Called(NamedTuple):
    """How a call ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """The command line, called in this process with a folder of its own as the working directory."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *words: str) -> Called:
        self._capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        shown = self._capsys.readouterr()
        return Called(code, shown.out, shown.err)

    def write(self, name: str, text: str) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path


@pytest.fixture
def command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[CommandLine]:
    """The command line in an empty folder, where nothing is remembered yet. What it imports is forgotten afterwards."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("NIGHT_BATCH_STORE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NIGHT_BATCH_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(targets, "_loaded", {})
    modules = set(sys.modules)
    yield CommandLine(folder, capsys)
    for name in set(sys.modules) - modules:
        if not name.startswith(PACKAGE):
            module_file = getattr(sys.modules[name], "__file__", None) or ""
            if module_file.startswith(str(tmp_path)):
                del sys.modules[name]


def environment(folder: Path) -> dict[str, str]:
    """That of a process which is to find the package, and to remember nothing beyond the folder."""
    known = {name: value for name, value in os.environ.items() if name not in ("NIGHT_BATCH_STORE", "FORCE_COLOR")}
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**known, "PYTHONPATH": paths, "NIGHT_BATCH_STATE": str(folder.parent / "state")}


def started(
    *words: str, folder: Path, more: Mapping[str, str] | None = None, options: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """The command line as a process of its own, under way."""
    return subprocess.Popen(
        [sys.executable, *options, "-m", PACKAGE, *words],
        cwd=folder,
        env={**environment(folder), **(more or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def called(*words: str, folder: Path, more: Mapping[str, str] | None = None) -> Called:
    """The command line as a process of its own, to its end."""
    process = started(*words, folder=folder, more=more)
    out, err = process.communicate(timeout=60)
    return Called(process.returncode, out, err)
