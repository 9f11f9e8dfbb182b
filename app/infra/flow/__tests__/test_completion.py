"""What shells complete: tried in real ones."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .. import AsyncFlow, SQLiteStore
from ..tools.cli import make_parser
from ..tools.completion import commands_of
from .command_line import PACKAGE, CommandLine, command_line, environment

__all__ = ["command_line"]

BASH = shutil.which("bash")
ZSH = shutil.which("zsh")


@pytest.fixture
def folder(command_line: CommandLine) -> Path:
    """A folder with a store, a few files, and the program by its name; the shells' scripts beside it."""
    with SQLiteStore("runs.db") as store:
        flow = AsyncFlow("nightly", store)
        for run_id in ("monday", "monsoon", "two words", "\u202eturned", "*", "$(touch hacked)"):
            flow.init_run(run_id=run_id)
    command_line.write("pipeline.py", "")
    program = command_line.write("bin/night-batch", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {PACKAGE} "$@"\n')
    program.chmod(0o755)
    for shell, name in (("bash", "night-batch.bash"), ("zsh", "_night-batch")):
        ended = command_line("completion", shell)
        assert (ended.code, ended.err) == (0, "")
        command_line.write(name, ended.out)
    return command_line.folder


def shell(program: str, script: str, folder: Path) -> str:
    """What a shell prints that runs a script."""
    known = environment(folder)
    done = subprocess.run(
        [program, *(["-f"] if program == ZSH else ["--norc"]), "-c", script],
        cwd=folder,
        env={**known, "PATH": f"{folder}/bin:{known['PATH']}", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


def completed_by_bash(folder: Path, *lines: tuple[str, ...]) -> list[list[str]]:
    """What bash offers for the last word of each line."""
    assert BASH is not None
    tries = "\n".join(
        f"COMP_WORDS=({' '.join(shlex.quote(word) for word in words)}); COMP_CWORD={len(words) - 1}; COMPREPLY=(); "
        "_night_batch; printf '%s\\n' \"${COMPREPLY[@]}\" ------"
        for words in (("night-batch", *line) for line in lines)
    )
    script = f"compopt() {{ :; }}\nsource ./night-batch.bash\n{tries}"
    return [[word for word in part.splitlines() if word] for part in shell(BASH, script, folder).split("------\n")[:-1]]


@pytest.mark.skipif(BASH is None, reason="there is no bash here")
def test_bash_completes_commands_options_choices_files_and_runs(folder: Path) -> None:
    found = completed_by_bash(
        folder,
        ("re",),
        ("--tr",),
        ("run", "--param"),
        ("run", "pipe"),
        ("list", "--state", "s"),
        ("list", "--state", "=", "s"),
        ("list", "--state", "="),
        ("prune", "--keep", "3", "--fl"),
        ("graph", "--format", ""),
        ("completion", ""),
        ("check", "--store", "run"),
        ("list", "--limit", ""),
    )
    assert found == [
        ["resume", "retry", "report"],
        ["--traceback"],
        ["--param", "--params-file"],
        ["pipeline.py"],
        ["scheduled", "success"],
        ["scheduled", "success"],
        ["scheduled", "running", "success", "failed", "cancelled"],
        ["--flow-name"],
        ["ascii", "mermaid", "dot", "svg", "html"],
        ["bash", "zsh"],
        ["runs.db"],
        [],
    ]


@pytest.mark.skipif(BASH is None, reason="there is no bash here")
def test_bash_completes_the_ids_of_runs_quoted_and_without_those_that_would_steer_a_terminal(folder: Path) -> None:
    found = completed_by_bash(
        folder,
        ("show", "--store", "runs.db", "mon"),
        ("show", "mon"),
        ("retry", "--store", "runs.db", "tw"),
        ("resume", "--store", "runs.db", "la"),
        ("graph", "--store", "runs.db", "pi"),
        ("cancel", "--store", "runs.db", ""),
        ("explain", "--store", "runs.db", "monday", ""),
    )
    assert found == [
        ["monsoon", "monday"],
        [],
        ["two\\ words"],
        ["latest"],
        ["pipeline.py"],
        ["\\$\\(touch\\ hacked\\)", "\\*", "two\\ words", "monsoon", "monday", "latest"],
        [],
    ]
    assert not (folder / "hacked").exists()


@pytest.mark.skipif(BASH is None, reason="there is no bash here")
def test_bash_finds_nothing_wrong_with_the_script(folder: Path) -> None:
    assert BASH is not None
    assert shell(BASH, "set -u; bash -n ./night-batch.bash; source ./night-batch.bash; complete -p night-batch", folder) == (
        "complete -F _night_batch night-batch\n"
    )


@pytest.mark.skipif(ZSH is None, reason="there is no zsh here")
def test_zsh_completes_commands_options_choices_and_runs(folder: Path) -> None:
    """In a pseudo-terminal of zsh's own, as somebody who presses the tabulator key."""
    assert ZSH is not None
    lines = ["night-batch resu", "night-batch list --state fai", "night-batch show --store runs.db mond", "night-batch run --max"]
    script = f"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PS1=""; fpath=({folder} $fpath); autoload -U compinit; compinit -u -D'
zpty -w z 'tell() {{ print -r -- "LINE:$BUFFER:"; BUFFER= }}; zle -N tell; bindkey "^X" tell; print REA""DY'
zpty -r -m z seen '*READY*' || exit 1
for line in {" ".join(map(shlex.quote, lines))}; do
  zpty -w -n z "$line"$'\\t\\x18'
  zpty -r -m z seen '*LINE:*:*' || exit 1
  print -r -- "$seen"
done
zpty -d z
"""
    assert re.findall("LINE:(.*):", shell(ZSH, script, folder)) == [
        "night-batch resume ",
        "night-batch list --state failed ",
        "night-batch show --store runs.db monday ",
        "night-batch run --max-concurrency ",
    ]


def test_every_option_of_every_command_can_be_completed() -> None:
    commands = list(commands_of(make_parser()))
    assert {"run", "list", "show", "completion"} <= {command.name for command in commands}
    for command in commands:
        assert "--help" in command.options
        assert command.help
        named = {name for names, _ in command.values for name in names}
        assert named <= set(command.options)


def test_runs_are_offered_without_a_word_about_what_is_wrong(command_line: CommandLine) -> None:
    assert command_line("__runs", "--store", "absent.db", "mon") == (0, "", "")
    command_line.write("broken.db", "no store")
    assert command_line("__runs", "--store", "broken.db") == (0, "latest\n", "")
