"""The command line: knows which commands there are and what they take; what they do stands in rooms of their own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import __version__
from . import demo


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, without the program's name; by default those of the process.

    Returns:
        The exit code: what the command makes of it, or 2 if none was named.

    Raises:
        SystemExit: with code 2 for arguments that make no sense, 0 after --help and --version, as argparse has it.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    return int(options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="night-batch", description="A durable workflow engine that is imported, not deployed.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    help_text = "run a small flow in a temporary folder, and watch it survive a failure and an interruption"
    command = commands.add_parser("demo", help=help_text, description=f"{help_text.capitalize()}.")
    command.set_defaults(run=lambda _: demo.main())
    return parser
