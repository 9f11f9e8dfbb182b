"""Writes the reference of commands in docs/command-line.md from the command line's own parser.

`python -m docs.draw_commands` writes it into the page; with `--check` it only says whether the page is up to date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from app.infra.flow.tools.cli import make_parser

PAGE = Path(__file__).with_name("command-line.md")
START, END = "<!-- commands -->\n", "<!-- end -->"
HIDDEN = ("-h", "--traceback")
"""What every command takes, so the page says it once."""


def cell(text: str) -> str:
    """Text as it may stand in a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def names_of(option: argparse.Action) -> str:
    """What is typed for an option, or for an argument."""
    if not option.option_strings:
        return f"`{option.metavar or '|'.join(map(str, option.choices or [option.dest]))}`"
    value = ""
    if option.nargs != 0:
        value = f" {option.metavar}" if option.metavar else " " + "|".join(map(str, option.choices or [option.dest.upper()]))
    return ", ".join(f"`{name}{value}`" for name in option.option_strings)


def usage_of(name: str, options: list[argparse.Action]) -> str:
    """The command in one line: what must be given, what may be, and that there are options."""
    words = ["night-batch", name]
    for option in options:
        if not option.option_strings:
            shown = names_of(option).strip("`")
            words.append(f"[{shown}]" if option.nargs == "?" else shown)
    if any(option.option_strings for option in options):
        words.append("[options]")
    return " ".join(words)


def section(name: str, command: argparse.ArgumentParser) -> str:
    """What the page says of one command."""
    options = [option for option in command._actions if not set(option.option_strings) & set(HIDDEN)]
    lines = [f"### {name}", "", (command.description or "").strip(), "", "```text", usage_of(name, options), "```", ""]
    if options:
        rows = [f"| {cell(names_of(option))} | {cell(option.help or '')} |" for option in options]
        lines += ["| | |", "|---|---|", *rows, ""]
    title, _, examples = (command.epilog or "").partition("\n")
    if examples and title.startswith("example"):
        lines += ["```console", *(f"$ {line.strip()}" for line in examples.splitlines()), "```", ""]
    return "\n".join(lines)


def drawn(page: str) -> str:
    """The page with the commands as the parser has them now."""
    (commands,) = [action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    sections = [section(name, command) for name, command in commands.choices.items()]
    before, _, rest = page.partition(START)
    return f"{before}{START}\n{chr(10).join(sections)}\n{rest[rest.index(END) :]}"


def main() -> int:
    """Write the page, or with `--check` say whether it needs to be written."""
    before = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        return int(before != drawn(before))
    PAGE.write_text(drawn(before), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
