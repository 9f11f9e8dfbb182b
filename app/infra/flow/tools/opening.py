"""Finds the store that a command is about, and the run in it. Must not know what is done with them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from .failures import Refusal
from .program import STORE_VARIABLE, path_meant, to_type

if TYPE_CHECKING:
    from .. import AsyncFlow, Store, ValueCodec

LATEST = "latest"
SHORTEST = 4
"""How many characters of a run's id will do where they are enough to tell it from all others."""


def open_store(options: argparse.Namespace, flow: AsyncFlow | None = None) -> Store:
    """The opened store that a command is to read: `--store`, else `NIGHT_BATCH_STORE`, else that of the flow.

    Without any of these, it is the store of the run that `run` started here before. It is never made.

    Args:
        options: of the command; asked for `store`, and where they are there for `flow` (a target) and `run_id`.
        flow: the command's flow, if it has one at hand. Values of its types can be read, then.

    Raises:
        Refusal: no store is named, or there is none.
        StoreError: it cannot be opened.
    """
    named = named_store(options)
    if flow is None and getattr(options, "flow", None) is not None:
        from .targets import load_target  # late: few commands that look at runs load their flow

        flow = load_target(options.flow)
    if named is not None:
        store = store_at(named, flow)
    elif flow is not None:
        from .. import MemoryStore  # late: a store on the disk needs no other

        store = flow.store
        if isinstance(store, MemoryStore):
            raise Refusal(
                f"The flow {flow.flow_name!r} keeps its runs in memory, so there are none here. Name a store: --store PATH."
            )
    else:
        store = store_at(_remembered(getattr(options, "run_id", None) or getattr(options, "what", None)))
    path = path_of(store)
    if path is not None and not path.exists():
        raise Refusal(f"There is no store at {path}. Name another one with --store PATH.")
    store.open()
    return store


def named_store(options: argparse.Namespace) -> str | None:
    """The path that the command line names, or else the environment; None if neither does."""
    return options.store or os.environ.get(STORE_VARIABLE) or None


def store_at(path: str, flow: AsyncFlow | None = None) -> Store:
    """The store at a path, not opened yet: a folder is a JSON store, and all else a SQLite database.

    Args:
        path: what is there decides. Where nothing is, a slash at the end means a folder.
        flow: whose values are to be read and written: their types are registered with its store.
    """
    place = path_meant(path)
    is_folder = place.is_dir() or (not place.exists() and path.endswith(("/", os.sep)))
    codec: ValueCodec | None = None if flow is None else flow.store.codec
    if is_folder:
        from .. import JsonStore  # late: a database needs it not

        return JsonStore(place, codec=codec)
    from .. import SQLiteStore  # late: a folder needs it not

    return SQLiteStore(place, codec=codec)


def path_of(store: Store) -> Path | None:
    """Where a store lies; None of one that is no file and no folder, or none of ours."""
    from .. import SQLiteStore  # late: what only looks for targets needs no store

    if isinstance(store, SQLiteStore):
        return store.path
    from .. import JsonStore  # late: a database needs it not

    return store.folder if isinstance(store, JsonStore) else None


def _remembered(text: str | None) -> str:
    from .targets import recall_run  # late: who names the store need not wait for it

    entry = recall_run(text or LATEST, Path.cwd())
    if entry is not None and entry.path:
        if text is not None:
            return entry.path
        hint = f" The latest run that was started here is in {entry.path}."
    else:
        hint = ""
    raise Refusal(f"No store is named.{hint} Give one with --store PATH, or set {STORE_VARIABLE}=PATH.")


# --- runs ---


def find_run(store: Store, text: str) -> str:
    """The id of the run that is meant: by its id, its beginning, or as `latest`, the newest that is no subflow's.

    Raises:
        Refusal: there is none, or several begin so.
    """
    if store.exists(text):
        return text
    if text == LATEST:
        found = latest_run(store)
        if found is None:
            raise Refusal(f"There are no runs in {store!r}.")
        return found
    ids = store.list_runs()
    fitting = [run_id for run_id in ids if run_id.startswith(text)] if len(text) >= SHORTEST else []
    if len(fitting) > 1:  # a run is made before those of its subflows, whose ids may begin with its own
        fitting = [run_id for run_id in fitting if store.read_run(run_id).parent_run_id is None] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise Refusal(f"{len(fitting)} runs begin with {text!r}: {_some(fitting)}. Write more of the one that you mean.")
    near = get_close_matches(text, ids[:5000], 1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise Refusal(f"There is no run {text!r} in {store!r}.{meant}\nSee which there are: {to_type('list', store=path_of(store))}")


def latest_run(store: Store) -> str | None:
    """The newest run that is no subflow's."""
    limit = 20
    while True:
        runs = store.get_all_runs(include_tasks=False, limit=limit)
        for run in runs:
            if run.parent_run_id is None:
                return run.id
        if len(runs) < limit:
            return None
        limit *= 10


def outermost_run(store: Store, run_id: str) -> str:
    """The run that is driven when a run is: itself, or that which it is the inside of."""
    from .. import RunNotFoundError  # late: most commands are about the run that is named

    seen = {run_id}
    while True:
        run = store.read_run(run_id)
        if run.parent_run_id is None or run.parent_task_id is None or run.parent_run_id in seen:
            return run_id
        try:
            tasks = store.load(run.parent_run_id).tasks
        except RunNotFoundError:
            return run_id
        task = tasks.get(run.parent_task_id)
        if task is None or task.child_run_id != run_id:  # somebody only said that it belongs there
            return run_id
        run_id = run.parent_run_id
        seen.add(run_id)


def _some(ids: Iterable[str], most: int = 5) -> str:
    known = list(ids)
    return ", ".join(known[:most]) + (" ..." if len(known) > most else "")
