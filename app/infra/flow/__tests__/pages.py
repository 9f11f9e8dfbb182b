"""Pages of the docs as what they tell a reader to do: files to write, programs to run, commands to type, and what is then seen.

In a page, from top to bottom, in one folder:

- a `python` block whose first line is `# name.py` (with or without a remark behind it) is that file; another one is a program that
  is run;
- a `text` block right behind a program is what the program prints;
- in a `console` block, a line that begins with `$ ` is typed, and the lines below it are what is seen. `...` stands for anything,
  also for whole lines. Only commands that begin with one of `RUN` are run; the others are for the reader's own machine.

Blocks written as `{code-block} python` are somebody else's program, and are shown only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[4]
RUN = ("python3 ", "echo ", "cat ", "ls ", "export ", "sed ")


@dataclass
class Block:
    """One block of code of a page."""

    language: str
    text: str
    line: int
    follows: int
    """How many lines, beside empty ones, are between this block and the one before."""


@dataclass
class Command:
    """One typed line, and what is seen below it."""

    text: str
    seen: list[str] = field(default_factory=list)


def blocks_of(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.splitlines()
    between, number = 0, 0
    while number < len(lines):
        fence = re.match(r"(`{3,})(\S*)", lines[number])
        if fence is None:
            between += bool(lines[number].strip())
            number += 1
            continue
        end = number + 1
        while not lines[end].startswith(fence[1]):
            end += 1
        yield Block(fence[2], "".join(f"{line}\n" for line in lines[number + 1 : end]), number + 1, between)
        between, number = 0, end + 1


def commands_of(block: str) -> list[Command]:
    """The commands of a console block; a backslash at the end of a line joins the next one to it."""
    commands: list[Command] = []
    joined = False
    for line in block.splitlines():
        if line.startswith("$ "):
            commands.append(Command(line[2:].removesuffix("\\")))
        elif joined:
            commands[-1].text += line.lstrip().removesuffix("\\")
        elif commands:
            commands[-1].seen.append(line)
        joined = line.endswith("\\") and (joined or line.startswith("$ "))
    return commands


def file_name(block: str) -> str | None:
    """The name of the file that a Python block is, if its first line says so."""
    named = re.match(r"# ([\w./-]+\.\w+)\b", block)
    return named[1] if named else None


def looks_like(expected: list[str], seen: str) -> bool:
    """Whether `seen` is what was expected, `...` standing for anything; spaces at ends of lines do not count."""
    pattern = "\n".join(line.rstrip() for line in expected).strip()
    actual = "\n".join(line.rstrip() for line in seen.splitlines()).strip()
    return re.fullmatch(".*".join(map(re.escape, pattern.split("..."))), actual, re.S) is not None


class Reader:
    """Does what a page says, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exit_code = 0
        (folder / "home").mkdir()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("NIGHT_BATCH", "XDG_"))}
        self.environment |= {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "PYTHONIOENCODING": "utf-8",
            "NIGHT_BATCH_STATE": str(folder / "home"),
            "COLUMNS": "100",
        }
        for name in ("NO_COLOR", "FORCE_COLOR", "COV_CORE_SOURCE"):
            self.environment.pop(name, None)

    def type(self, command: str) -> str:
        """Type one command into a shell; what `export` says and the last exit code are kept, as a shell would.

        Returns:
            What is seen, on both streams.
        """
        exported = re.fullmatch(r"export (\w+)=(\S+)", command)
        if exported:
            self.environment[exported[1]] = exported[2]
            return ""
        text = re.sub(r"\bpython3(?= )", f"'{sys.executable}'", command).replace("$?", str(self.exit_code))
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        self.exit_code = done.returncode
        return done.stdout

    def read(self, page: str) -> Iterator[str]:
        """Do all that the page says.

        Yields:
            Each thing that was not as the page says, in a few lines.
        """
        printed: str | None = None
        for block in blocks_of(page):
            if block.language == "python":
                name = file_name(block.text)
                script = self.folder / (name or "a_program_of_the_page.py")
                script.parent.mkdir(parents=True, exist_ok=True)
                script.write_text(block.text, encoding="utf-8")
                compile(block.text, str(script), "exec")
                printed = None if name else self.type(f"python3 {script.name}")
                if printed is not None and self.exit_code:
                    yield f"line {block.line}: the program ended with {self.exit_code}:\n{printed}"
            elif block.language == "text" and printed is not None and not block.follows:
                if not looks_like(block.text.splitlines(), printed):
                    yield f"line {block.line}: expected\n{block.text}but saw\n{printed}"
                printed = None
            elif block.language == "console":
                for command in commands_of(block.text):
                    if command.text.startswith(RUN):
                        seen = self.type(command.text)
                        if not looks_like(command.seen, seen):
                            expected = "\n".join(command.seen)
                            yield f"line {block.line}: $ {command.text}\nexpected\n{expected}\nbut saw\n{seen}"
