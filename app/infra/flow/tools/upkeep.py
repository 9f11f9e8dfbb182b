"""The commands that keep a store in order: prune, check, backup. Must not know flows."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection, Sequence

from .. import ExecutionState, RunRecord, Store
from .failures import DONE, STORE, Refusal, note, say
from .opening import open_store, path_of
from .program import path_meant
from .terminal import Style, is_terminal, safe
from .units import counted

MOST_SHOWN = 20


def prune_command(options: argparse.Namespace) -> int:
    """`prune`: remove runs that have ended, once it is clear that this is meant."""
    if options.older_than is None and options.keep is None and not options.state and options.flow_name is None:
        raise Refusal(
            "Say which runs may go: --older-than 30d, --keep 10, --state success, --flow-name NAME. See `prune --help`."
        )
    keep = options.keep or 0
    with open_store(options) as store:
        if not options.yes:
            found = prunable(store.read_runs(), options.older_than or 0.0, keep, options.state, options.flow_name, time.time())
            if options.dry_run or not found:
                say(_listed(found, store))
                return DONE
            _ask(found, store)
        removed = store.prune(options.older_than, keep, options.state, options.flow_name)
        say([safe(f"Removed {counted(len(removed), 'run')} from {store!r}, those of subflows included.")])
    return DONE


def prunable(
    runs: Sequence[RunRecord],
    older_than: float,
    keep: int,
    states: Collection[str] | None,
    flow_name: str | None,
    now: float,
) -> list[RunRecord]:
    """The runs that `Store.prune` would remove, oldest first, those of subflows left out; but for what is driven just now. Pure.

    Args:
        runs: all runs, newest first.
        older_than: seconds since their end.
        keep: how many of each flow stay.
        states: in which they ended; any if None or empty.
        flow_name: of which flow they are; any if None.
        now: the time, in seconds since 1970 UTC.
    """
    known = {run.id for run in runs}
    inside: dict[str, list[RunRecord]] = {}
    roots: list[RunRecord] = []
    for run in runs:
        if run.parent_run_id is not None and run.parent_run_id in known and run.parent_run_id != run.id:
            inside.setdefault(run.parent_run_id, []).append(run)
        else:
            roots.append(run)
    kept: dict[str, int] = {}
    found: list[RunRecord] = []
    for root in roots:
        fits = root.state in states if states else ExecutionState.is_terminal(root.state)
        if not fits or flow_name not in (None, root.flow_name):
            continue
        kept[root.flow_name] = kept.get(root.flow_name, 0) + 1
        if kept[root.flow_name] <= keep:
            continue
        tree = [root]
        for run in tree:  # grows while it is walked
            tree.extend(inside.get(run.id, ()))
        ended = max(run.ended or 0 for run in tree)
        if all(ExecutionState.is_terminal(run.state) for run in tree) and ended <= (now - older_than) * 1e6:
            found.append(root)
    return found[::-1]


def _listed(found: Sequence[RunRecord], store: Store) -> list[str]:
    if not found:
        return [safe(f"No run in {store!r} is to go.")]
    style = Style(sys.stdout)
    lines = [f"  {style.sign(run.state)} {safe(run.id)}  {style.paint(safe(run.flow_name), 'dim')}" for run in found[:MOST_SHOWN]]
    if len(found) > MOST_SHOWN:
        lines.append(f"  ... and {counted(len(found) - MOST_SHOWN, 'more run')}")
    return [safe(f"{counted(len(found), 'run')} in {store!r} would go, with the runs of their subflows:"), *lines]


def _ask(found: Sequence[RunRecord], store: Store) -> None:
    """Ask whether they may go.

    Raises:
        Refusal: they may not, or there is nobody to ask.
    """
    if not is_terminal(sys.stdin):
        raise Refusal(
            f"{counted(len(found), 'run')} would be removed. Call it with --yes to do so, or with --dry-run to see which."
        )
    for line in _listed(found, store):
        print(line, file=sys.stderr)
    print("Remove them? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refusal("Nothing was removed.", DONE)


def check_command(options: argparse.Namespace) -> int:
    """`check`: look for damage."""
    with open_store(options) as store:
        problems = store.check()
        if problems:
            say(safe(problem) for problem in problems)
            found = counted(len(problems), "problem")
            note(f"{found} found. Runs that are not named can be read; restore the others from a backup.")
            return STORE
        say([safe(f"{store!r} is sound: {counted(len(store.list_runs()), 'run')}, those of subflows included.")])
    return DONE


def backup_command(options: argparse.Namespace) -> int:
    """`backup DEST`: copy a store, whoever writes to it meanwhile."""
    with open_store(options) as store:
        destination = path_meant(options.destination)
        if destination.exists():  # before anything is begun
            raise Refusal(f"There is something at {destination} already. Name another place for the backup.")
        if path_of(store) is not None and not destination.absolute().parent.is_dir():
            raise Refusal(f"There is no folder {destination.absolute().parent} to put the backup in. Make it first.")
        store.backup(destination)
        say([safe(f"{store!r} was copied to {destination}.")])
    return DONE
