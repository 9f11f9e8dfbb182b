"""The command line: knows which commands there are and what they take; what they do stands in rooms of their own.

A room is loaded when its command is called, and not before: `list` must not wait for what only `run` needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from .. import __version__
from . import failures, units
from .program import program
from .terminal import safe

T = TypeVar("T")

RUN_STATES = ("scheduled", "running", "success", "failed", "cancelled")
PICTURES = ("ascii", "mermaid", "dot", "svg", "html")
COMPLETION = "__runs"
"""What the shell's completion calls: no command for people, so it stands in no help."""

_EPILOG = """\
A TARGET names a flow: module:flow, or path/to/file.py:flow. A RUN is the id of a run, the beginning of one that no other run
has (four characters at least), or `latest`.
The store is --store PATH (a file is a SQLite database, a folder a JSON store), or else what the environment variable
NIGHT_BATCH_STORE names, or else the store of the flow.

exit codes: 0 done, 1 the run failed or was cancelled, 2 usage (no such target, run or task), 3 trouble with the store or a run
that another process drives, 130 interrupted by Ctrl-C, 143 ended by SIGTERM.

examples:
  %(prog)s demo
  %(prog)s run pipeline.py:flow --run-id monday --param region=north
  %(prog)s show latest --store runs.db
  %(prog)s resume monday --store runs.db
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, without the program's name; by default those of the process.

    Returns:
        The exit code: what the command makes of it, or 2 if none was named.

    Raises:
        SystemExit: with code 2 for arguments that make no sense, 0 after --help and --version, as argparse has it; with 143
            after SIGTERM.
    """
    failures.have_streams()
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return failures.INTERRUPTED


def _main(words: list[str]) -> int:
    if words[:1] == [COMPLETION]:
        return failures.guarded(_completed, argparse.Namespace(words=words[1:], traceback=False))
    parser = make_parser(program())
    options = parser.parse_args(words)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    return failures.guarded(options.run, options)


def make_parser(prog: str = "night-batch") -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, a function that takes the options and returns the exit code.

    Args:
        prog: what the program is called in helps and errors.
    """
    parser = _Parser(
        prog=prog,
        description="A durable workflow engine that is imported, not deployed: run flows, look at runs, go on with them.",
        epilog=_EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show the whole traceback of an error")
    commands = _Commands(parser)
    _add_running(commands)
    _add_looking(commands)
    _add_upkeep(commands)
    return parser


class _Formatter(argparse.HelpFormatter):
    """Fills paragraphs, and leaves what has lines of its own as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    """One whose errors take two lines, and cannot steer a terminal."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {safe(message)}\nAll options: {self.prog} --help", file=sys.stderr)
        raise SystemExit(failures.USAGE)

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - of its overloads, this is what they come to
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Refuse what is not known here, where it is known of which command it was said."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, []


class _Commands:
    """Adds commands to a parser, all in the same way."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._program = parser.prog
        self._commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=_Parser)

    def add(
        self, name: str, run: Callable[[argparse.Namespace], int], help_text: str, more: str = "", examples: Sequence[str] = ()
    ) -> argparse.ArgumentParser:
        """A new command; `help_text` is the line in the list of commands, `more` what its own help adds."""
        lines = [f"  {self._program} {name} {example}" for example in examples]
        command = self._commands.add_parser(
            name,
            help=help_text,
            description=f"{help_text[:1].upper()}{help_text[1:]}.{' ' if more else ''}{more}",
            epilog="\n".join([f"example{'s' * (len(lines) > 1)}:", *lines]) if lines else None,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        # Not to undo what stands before the command: `night-batch --traceback show x`.
        hidden = argparse.SUPPRESS
        command.add_argument("--traceback", action="store_true", default=hidden, help="show the whole traceback of an error")
        command.set_defaults(run=run)
        return command


# --- what options take ---


def _meant(kind: str, read: Callable[[str], T]) -> Callable[[str], T]:
    """What reads an option's value, and says of one that it cannot read what it must be."""

    def reads(text: str) -> T:
        try:
            return read(text)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"{text!r} is not {kind}") from None

    return reads


def _whole(text: str, least: int) -> int:
    number = int(text)
    if number < least:
        raise ValueError(text)
    return number


def _interval(text: str) -> float:
    seconds = units.seconds_meant(text)
    if not 0.01 <= seconds <= 86400:
        raise ValueError(text)
    return seconds


_age = _meant("an age, such as 90s, 15m, 6h, 30d or 2w", units.seconds_meant)
_count = _meant("a whole number from 0 on", lambda text: _whole(text, 0))
_positive = _meant("a whole number from 1 on", lambda text: _whole(text, 1))
_seconds = _meant("a number of seconds from 0.01 to a day", _interval)


def _store(command: argparse.ArgumentParser) -> None:
    text = "the store: a file (SQLite) or a folder (JSON); else $NIGHT_BATCH_STORE, else the store of the flow"
    command.add_argument("--store", metavar="PATH", help=text)


def _run(command: argparse.ArgumentParser, by_default: str | None = None) -> None:
    text = "the run's id, its beginning, or `latest`"
    if by_default is None:
        command.add_argument("run_id", metavar="RUN", help=text)
    else:
        command.add_argument("run_id", metavar="RUN", nargs="?", default=by_default, help=f"{text}; by default `{by_default}`")


def _flow(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--flow", metavar="TARGET", help=text)


def _json(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--json", action="store_true", help=text)


def _progress(command: argparse.ArgumentParser) -> None:
    told = command.add_mutually_exclusive_group()
    text = "show what happens on stderr: a live view on a terminal, else one line per event; this is the default"
    told.add_argument("--progress", action="store_true", default=None, dest="progress", help=text)
    told.add_argument("--no-progress", action="store_false", default=None, dest="progress", help="show the summary alone")
    told.add_argument("--quiet", action="store_true", help="show nothing but failures and errors, on stderr")


def _driving(command: argparse.ArgumentParser) -> None:
    """What can be said of a run that this process is to drive."""
    text = "how many tasks may run at once; 0, the default, is any number"
    command.add_argument("--max-concurrency", metavar="N", type=_count, default=0, help=text)
    text = "go on with a run although the flow's graph has changed since"
    command.add_argument("--adopt-graph", action="store_true", help=text)
    _json(command, "at the end, print the run's details as JSON on stdout, and nothing else there")
    _progress(command)


# --- commands that run things ---


def _add_running(commands: _Commands) -> None:
    command = commands.add(
        "run",
        _run_flow,
        "run a flow, or go on with a run of it",
        "With the id of a run that is not finished, it goes on where it stood; of one that is, its result is shown. "
        'The target is imported: what it runs by itself should stand under `if __name__ == "__main__":`.',
        [
            "pipeline.py:flow",
            "shop.nightly:flow --run-id 2026-03-01 --param region=north --store runs.db",
            "pipeline.py:flow --params-file params.json --json",
        ],
    )
    command.add_argument("target", metavar="TARGET", help="the flow: module:flow, or path/to/file.py:flow")
    text = "one of the run's params; V is taken as JSON if it is JSON, else as text; may be given many times"
    command.add_argument("--param", metavar="K=V", action="append", default=[], help=text)
    command.add_argument("--params-file", metavar="FILE", help="a JSON object of params; - is stdin. --param goes before it")
    _store(command)
    command.add_argument("--run-id", metavar="ID", help="an id of your own; the same id again is the same run")
    _driving(command)

    command = commands.add(
        "resume",
        _resume,
        "go on with a run that was interrupted, or run again what failed or was cancelled in it",
        "What had succeeded is not run again. Without RUN, all unfinished runs of the flow go on.",
        ["monday", "latest --store runs.db --flow pipeline.py:flow", "--flow pipeline.py:flow"],
    )
    command.add_argument("run_id", metavar="RUN", nargs="?", help="the run's id, its beginning, or `latest`")
    _store(command)
    _flow(command, "the flow; by default that with which `run` started the run")
    _driving(command)

    command = commands.add(
        "retry",
        _retry,
        "run one task of a run again, and what is downstream of it",
        "The attempts there were stay in the history.",
        ["monday load", "monday 'parse[orders.csv]' --store runs.db", "latest checks.totals --no-downstream"],
    )
    _run(command)
    command.add_argument("task_id", metavar="TASK", help="the task; sub.task is inside a subflow, parse[3] an item of a map")
    command.add_argument("--no-downstream", action="store_false", dest="downstream", help="leave what is downstream as it is")
    _store(command)
    _flow(command, "the flow; by default that with which `run` started the run")
    _driving(command)

    command = commands.add(
        "cancel",
        _cancel,
        "cancel a run for good, or one task of it",
        "A run that another process drives is asked to end, which takes a second or so.",
        ["monday --store runs.db", "monday load"],
    )
    _run(command)
    command.add_argument("task_id", metavar="TASK", nargs="?", help="cancel this task alone, and let the run go on")
    _store(command)


# --- commands that look ---


def _add_looking(commands: _Commands) -> None:
    command = commands.add(
        "list",
        _list,
        "list runs, newest first",
        examples=["--store runs.db", "--flow shop --state failed --newer-than 7d", "--limit 100 --json"],
    )
    _store(command)
    command.add_argument("--flow", "--flow-name", metavar="NAME", dest="flow_name", help="runs of this flow alone")
    text = "runs in this state alone; may be given many times"
    command.add_argument("--state", action="append", choices=RUN_STATES, help=text)
    command.add_argument("--newer-than", metavar="AGE", type=_age, help="runs made since: 90s, 15m, 6h, 30d, 2w")
    command.add_argument("--older-than", metavar="AGE", type=_age, help="runs made before that")
    command.add_argument("--limit", metavar="N", type=_count, default=20, help="so many at most; 0 is all; by default 20")
    command.add_argument("--all", action="store_true", help="the runs of subflows, too")
    _json(command, "print a JSON list")

    command = commands.add(
        "show",
        _show,
        "show a run as a tree: subflows, items of maps, durations, attempts, errors",
        examples=["latest", "monday --logs --store runs.db", "monday --json"],
    )
    _run(command, "latest")
    _store(command)
    _flow(command, "the flow, where the store is its own")
    command.add_argument("--logs", action="store_true", help="with what the tasks logged")
    command.add_argument("--values", action="store_true", help="with params and outputs, shortened")
    text = "show so many items of each map, failed ones first; by default 10"
    command.add_argument("--items", metavar="N", type=_count, default=10, help=text)
    command.add_argument("--depth", metavar="N", type=_count, help="how deep to go into subflows; 0 is the run's own tasks alone")
    _json(command, "print the run as JSON")

    command = commands.add(
        "explain",
        _explain,
        "say why a task waits, was skipped, failed or was retried",
        examples=["monday load", "latest checks.totals --store runs.db"],
    )
    _run(command)
    command.add_argument("task_id", metavar="TASK", help="the task; sub.task is inside a subflow, parse[3] an item of a map")
    _store(command)
    _flow(command, "the flow: then what only it knows is told, too, such as its retry policies")

    command = commands.add(
        "stats",
        _stats,
        "tell how long tasks take and how often they succeed, over the latest runs",
        examples=["--store runs.db", "--flow-name shop --runs 20 --sort max"],
    )
    _store(command)
    command.add_argument("--flow-name", metavar="NAME", help="runs of this flow alone; else each flow for itself")
    command.add_argument("--runs", metavar="N", type=_positive, default=50, help="how many runs to look at; by default 50")
    text = "what comes first; by default the order of the flow"
    command.add_argument("--sort", choices=("mean", "max", "total", "failures"), help=text)
    _json(command, "print JSON")

    command = commands.add(
        "graph",
        _graph,
        "draw a flow, or a run with the states of its tasks",
        examples=["pipeline.py:flow", "monday --store runs.db --format svg -o monday.svg", "latest --format mermaid"],
    )
    command.add_argument("what", metavar="TARGET|RUN", help="a flow (module:flow, file.py:flow), or a run")
    text = "by default what FILE ends with, else ascii"
    command.add_argument("--format", choices=PICTURES, help=text)
    command.add_argument("-o", "--output", metavar="FILE", help="write it there; by default, or with -, to stdout")
    _store(command)

    command = commands.add(
        "report",
        _report,
        "write a run's report: one HTML file that needs nothing else",
        examples=["latest --open", "monday -o monday.html --store runs.db", "monday --no-values"],
    )
    _run(command, "latest")
    command.add_argument("-o", "--output", metavar="FILE", help="where to; by default the run's id with .html, here")
    command.add_argument("--open", action="store_true", help="open it in the browser")
    command.add_argument("--no-values", action="store_false", dest="values", help="leave params and outputs out")
    _store(command)
    _flow(command, "the flow: its `redact` hook is applied once more; and its store, if no other is named")

    command = commands.add(
        "watch",
        _watch,
        "follow a run that another process drives, to its end",
        "The exit code is that of the run.",
        ["latest", "monday --store runs.db --interval 2"],
    )
    _run(command, "latest")
    command.add_argument("--interval", metavar="S", type=_seconds, default=0.5, help="seconds between two looks; by default 0.5")
    _store(command)


# --- commands that keep a store in order ---


def _add_upkeep(commands: _Commands) -> None:
    command = commands.add(
        "prune",
        _prune,
        "remove runs that have ended",
        "Subflows' runs go with the runs that they are in. At least one of the filters must be given.",
        ["--older-than 30d --dry-run", "--older-than 30d --keep 10 --yes", "--flow-name shop --state success --keep 100"],
    )
    _store(command)
    command.add_argument("--older-than", metavar="AGE", type=_age, help="runs that ended before that: 90s, 15m, 6h, 30d, 2w")
    command.add_argument("--keep", metavar="N", type=_count, help="keep the latest N runs of each flow, whatever their age")
    text = "runs that ended in this state alone; may be given many times"
    command.add_argument("--state", action="append", choices=RUN_STATES[2:], help=text)
    command.add_argument("--flow-name", metavar="NAME", help="runs of this flow alone")
    sure = command.add_mutually_exclusive_group()
    sure.add_argument("--dry-run", action="store_true", help="say which runs would go, and remove none")
    sure.add_argument("--yes", action="store_true", help="do not ask")

    command = commands.add(
        "check",
        _check,
        "look for damage in a store",
        "The exit code is 3 if there is any.",
        ["--store runs.db"],
    )
    _store(command)

    command = commands.add(
        "backup",
        _backup,
        "copy a store while it may be in use",
        examples=["runs-copy.db --store runs.db"],
    )
    command.add_argument("destination", metavar="DEST", help="where to; nothing may be there yet")
    _store(command)

    commands.add("demo", _demo, "run a small flow in a temporary folder, and watch it survive a failure and an interruption")

    command = commands.add(
        "completion",
        _completion,
        "print what makes a shell complete commands, options and run ids",
        examples=["bash >> ~/.bashrc", 'zsh > "${fpath[1]}/_night-batch"'],
    )
    command.add_argument("shell", choices=("bash", "zsh"), help="which shell")


# --- where the commands are ---


def _run_flow(options: argparse.Namespace) -> int:
    from .running import run_command  # late: only one command is called

    return run_command(options)


def _resume(options: argparse.Namespace) -> int:
    from .running import resume_command  # late: only one command is called

    return resume_command(options)


def _retry(options: argparse.Namespace) -> int:
    from .running import retry_command  # late: only one command is called

    return retry_command(options)


def _cancel(options: argparse.Namespace) -> int:
    from .running import cancel_command  # late: only one command is called

    return cancel_command(options)


def _list(options: argparse.Namespace) -> int:
    from .listing_runs import list_command  # late: only one command is called

    return list_command(options)


def _show(options: argparse.Namespace) -> int:
    from .showing import show_command  # late: only one command is called

    return show_command(options)


def _explain(options: argparse.Namespace) -> int:
    from .showing import explain_command  # late: only one command is called

    return explain_command(options)


def _stats(options: argparse.Namespace) -> int:
    from .statistics import stats_command  # late: only one command is called

    return stats_command(options)


def _graph(options: argparse.Namespace) -> int:
    from .drawing import graph_command  # late: only one command is called

    return graph_command(options)


def _report(options: argparse.Namespace) -> int:
    from .reporting import report_command  # late: only one command is called

    return report_command(options)


def _watch(options: argparse.Namespace) -> int:
    from .watching import watch_command  # late: only one command is called

    return watch_command(options)


def _prune(options: argparse.Namespace) -> int:
    from .upkeep import prune_command  # late: only one command is called

    return prune_command(options)


def _check(options: argparse.Namespace) -> int:
    from .upkeep import check_command  # late: only one command is called

    return check_command(options)


def _backup(options: argparse.Namespace) -> int:
    from .upkeep import backup_command  # late: only one command is called

    return backup_command(options)


def _demo(options: argparse.Namespace) -> int:  # noqa: ARG001
    from .demo import main as demo  # late: only one command is called

    return demo()


def _completion(options: argparse.Namespace) -> int:
    from .completion import completion_command  # late: only one command is called

    return completion_command(options, make_parser())


def _completed(options: argparse.Namespace) -> int:
    from .completion import runs_command  # late: only the shell calls it

    return runs_command(options)
