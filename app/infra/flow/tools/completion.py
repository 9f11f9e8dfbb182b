"""What makes a shell complete the command line: a script made from the parser, so that the two cannot differ.

Ids of runs are asked of the program itself, by a command that no help shows. Must not know what the commands do.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .failures import DONE, say
from .terminal import safe

MOST_RUNS = 200
_FILES = ("--store", "--params-file", "-o", "--output", "DEST")
_TARGETS = ("TARGET", "--flow")


@dataclass(frozen=True)
class Command:
    """What can stand behind one command."""

    name: str
    help: str
    options: tuple[str, ...]
    values: tuple[tuple[tuple[str, ...], str], ...]
    """Of options that take a value, their names and what it is: words to choose from, or `@files`, `@targets`, `@any`."""
    positionals: tuple[str, ...]
    """The same of what stands by its place, or `@runs`."""


def completion_command(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """`completion SHELL`: print the script."""
    commands = list(commands_of(parser))
    say([bash_script(commands) if options.shell == "bash" else zsh_script(commands)])
    return DONE


def runs_command(options: argparse.Namespace) -> int:
    """`__runs [--store PATH] [PREFIX]`: the ids of runs that a word may become; none where anything is wrong."""
    words = list(options.words)
    asked = argparse.Namespace(store=None, run_id="latest")
    if words[:1] == ["--store"] and len(words) > 1:
        asked.store = words[1]
        words = words[2:]
    prefix = words[0] if words else ""
    try:
        from .opening import open_store  # late: the rest needs no store

        with open_store(asked) as store:
            found = [run_id for run_id in store.list_runs(limit=None if prefix else MOST_RUNS) if run_id.startswith(prefix)]
    except Exception:  # the shell would show it in the middle of the line
        found = []
    # A line each; what a shell or a terminal could take for something else stays out of it.
    say(run_id for run_id in (*found[:MOST_RUNS], *(["latest"] if "latest".startswith(prefix) else [])) if safe(run_id) == run_id)
    return DONE


def commands_of(parser: argparse.ArgumentParser) -> Iterator[Command]:
    """What a parser's commands take."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield _command(name, helps.get(name, ""), command)


def _command(name: str, help_text: str, parser: argparse.ArgumentParser) -> Command:
    options: list[str] = []
    values: list[tuple[tuple[str, ...], str]] = []
    positionals: list[str] = []
    for action in parser._actions:
        kind = _kind(action)
        if not action.option_strings:
            positionals.append(kind)
            continue
        options.extend(action.option_strings)
        if action.nargs != 0:
            values.append((tuple(action.option_strings), kind))
    return Command(name, help_text, tuple(options), tuple(values), tuple(positionals))


def _kind(action: argparse.Action) -> str:
    if action.choices is not None:
        return " ".join(str(choice) for choice in action.choices)
    names = {*action.option_strings, action.metavar}
    if "TARGET|RUN" in names:
        return "@runs@files"
    if "RUN" in names:
        return "@runs"
    if names & set(_FILES):
        return "@files"
    return "@targets" if names & set(_TARGETS) else "@any"


# --- bash ---


def bash_script(commands: list[Command]) -> str:
    """A script for bash 3.2 and up."""
    return "\n".join(
        [
            "# Completion of night-batch for bash. To have it always: night-batch completion bash >> ~/.bashrc",
            "_night_batch() {",
            '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="" command="" store="" place=0 kind="" options="" i word',
            '    [ "$COMP_CWORD" -gt 0 ] && prev="${COMP_WORDS[COMP_CWORD-1]}"',
            "    COMPREPLY=()",
            '    [ "$prev" = "=" ] && [ "$COMP_CWORD" -gt 1 ] && prev="${COMP_WORDS[COMP_CWORD-2]}"',
            '    [ "$cur" = "=" ] && cur=""',
            "    for (( i = 1; i < COMP_CWORD; i++ )); do",
            '        word="${COMP_WORDS[i]}"',
            '        case "$word" in',
            '            --store) (( i++ )); [ "${COMP_WORDS[i]}" = "=" ] && (( i++ )); store="${COMP_WORDS[i]}" ;;',
            f"            {_all_with_values(commands)})",
            '                (( i++ )); [ "${COMP_WORDS[i]}" = "=" ] && (( i++ )) ;;',
            "            -*) ;;",
            '            *) if [ -z "$command" ]; then command="$word"; else (( place++ )); fi ;;',
            "        esac",
            "    done",
            '    case "$command" in',
            '        "") options="--help --version --traceback"',
            f"            kind={_quoted(' '.join(command.name for command in commands))} ;;",
            *(line for command in commands for line in _bash_command(command)),
            "    esac",
            '    if [ "${cur:0:1}" = "-" ] && [ "${kind:0:7}" != "@option" ]; then',
            '        COMPREPLY=( $(compgen -W "$options" -- "$cur") )',
            "        return",
            "    fi",
            '    case "${kind#@option}" in',
            "        @files|@targets)",
            "            compopt -o filenames 2>/dev/null",
            "            local IFS=$'\\n'",
            '            COMPREPLY=( $(compgen -f -- "$cur") ) ;;',
            "        @runs*)",
            "            local IFS=$'\\n'",
            '            if [ "$kind" = "@runs@files" ]; then',
            "                compopt -o filenames 2>/dev/null",
            '                COMPREPLY=( $(compgen -f -- "$cur") )',
            "            fi",
            "            while IFS= read -r word; do",
            '                COMPREPLY+=( "$(printf %q "$word")" )',
            '            done < <("${COMP_WORDS[0]}" __runs ${store:+--store} ${store:+"$store"} "$cur" 2>/dev/null) ;;',
            "        @any) ;;",
            '        *) COMPREPLY=( $(compgen -W "${kind#@option}" -- "$cur") ) ;;',
            "    esac",
            "}",
            "complete -F _night_batch night-batch",
        ]
    )


def _all_with_values(commands: list[Command]) -> str:
    names = {name for command in commands for option, _ in command.values for name in option} - {"--store"}
    return "|".join(sorted(names))


def _bash_command(command: Command) -> Iterator[str]:
    yield f"        {command.name})"
    yield f"            options={_quoted(' '.join(command.options))}"
    yield '            case "$prev" in'
    for names, kind in command.values:
        yield f"                {'|'.join(names)}) kind={_quoted('@option' + kind)} ;;"
    yield '                *) case "$place" in'
    for number, kind in enumerate(command.positionals):
        yield f"                    {number}) kind={_quoted(kind)} ;;"
    yield "                    *) kind=@any ;;"
    yield "                esac ;;"
    yield "            esac ;;"


def _quoted(text: str) -> str:
    """A word for a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


# --- zsh ---


def zsh_script(commands: list[Command]) -> str:
    """A script for zsh, to lie in a folder of `fpath` under the name `_night-batch`, or to be sourced."""
    return "\n".join(
        [
            "#compdef night-batch",
            "# Completion of night-batch for zsh. To have it always, put it into a folder of $fpath under the name _night-batch.",
            "_night_batch_runs() {",
            "    local -a found",
            '    local store="${opt_args[--store]}"',
            '    found=( ${(f)"$(${(Q)program} __runs ${store:+--store} ${store:+${(Q)store}} 2>/dev/null)"} )',
            "    (( $#found )) && compadd -a found",
            "}",
            "_night_batch_runs_and_files() {",
            "    _night_batch_runs",
            "    _files",
            "}",
            "_night_batch() {",
            '    local program="${words[1]}" curcontext="$curcontext" state line',
            "    local -A opt_args",
            "    _arguments -C '(- *)--help[show the help]' '(- *)--version[show the version]' \\",
            "        '--traceback[show whole tracebacks]' '1: :->command' '*:: :->rest'",
            '    case "$state" in',
            "        command)",
            "            local -a commands",
            "            commands=(",
            *(f"                {_quoted(command.name + ':' + _plain(command.help))}" for command in commands),
            "            )",
            "            _describe command commands ;;",
            "        rest)",
            '            case "$line[1]" in',
            *(line for command in commands for line in _zsh_command(command)),
            "            esac ;;",
            "    esac",
            "}",
            'if [ "$funcstack[1]" = "_night-batch" ]; then _night_batch "$@"; else compdef _night_batch night-batch; fi',
        ]
    )


def _zsh_command(command: Command) -> Iterator[str]:
    with_value = {name: kind for names, kind in command.values for name in names}
    specs = []
    for option in command.options:
        kind = with_value.get(option)
        specs.append(_quoted(f"*{option}" + ("" if kind is None else f": :{_zsh_action(kind)}")))
    specs += [_quoted(f"{number}: :{_zsh_action(kind)}") for number, kind in enumerate(command.positionals, 1)]
    yield f"                {command.name}) _arguments {' '.join(specs)} ;;"


def _zsh_action(kind: str) -> str:
    named = {
        "@runs": "_night_batch_runs",
        "@runs@files": "_night_batch_runs_and_files",
        "@files": "_files",
        "@targets": "_files",
        "@any": " ",
    }
    return named.get(kind, f"({kind})")


def _plain(text: str) -> str:
    return re.sub(r"[:\\]", "", text)
