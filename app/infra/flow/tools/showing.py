"""The commands `show` and `explain`: what became of one run, and why one task of it is as it is.

Read a store; change nothing. How a run looks as a tree is the business of `trees`.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import Attempt, BaseStore, ExecutionState, Explanation, Store, TaskInstance, WorkflowRun, explain_stored
from .failures import note, say
from .json_text import json_text
from .listing_runs import PIPED_COLUMNS, created_at, owner_of, run_data, state_of
from .opening import find_run, open_store, outermost_run, path_of
from .program import to_type
from .terminal import Style, columns_of, cut, safe
from .trees import NOT_THERE, item_of, tree_lines
from .units import masked, value_text

TRACEBACK_LINES = 6
"""Last lines of each traceback; `--traceback` shows all."""
PARAM_CHARACTERS = 200
DEEPEST = 50
"""Subflows in subflows that one JSON text holds; deeper ones are there by the ids of their runs."""


def show_command(options: argparse.Namespace) -> int:
    """See `night-batch show --help`."""
    with open_store(options) as store:
        run = store.load(find_run(store, options.run_id))
        owner = owner_of(store, run)
        if options.json:
            say([json_text(run_details(store, run, owner, options.depth))])
            return 0
        style = Style(sys.stdout)
        columns = columns_of(sys.stdout, PIPED_COLUMNS)
        driven = state_of(run, owner) != "interrupted"
        attempts_of = _attempts_of(store)
        tree = tree_lines(
            run,
            store.load,
            style,
            columns=columns,
            attempts=lambda run_id: attempts_of(run_id) if store.read_attempts(run_id) else [],  # else the tasks tell all
            items=options.items,
            depth=options.depth,
            logs=options.logs,
            values=options.values,
            tracebacks=-1 if options.traceback else TRACEBACK_LINES,
            now=datetime.now(timezone.utc),
            driven=driven,
            hint=f"(--items {10 * max(10, options.items)} shows more)" if style.is_terminal else "",
        )
        say([tree[0], *_about(run, owner, style, columns, options.values), *tree[1:]])
        if style.is_terminal:
            say(style.paint(safe(line), "dim") for line in ["", *_what_next(store, run, owner)])
    return 0


def _attempts_of(store: Store) -> Callable[[str], list[Attempt]]:
    """Reads all attempts of one run after the other; most stores need not look around each of a thousand subflows, then."""
    return store.attempts_reader() if isinstance(store, BaseStore) else store.list_attempts


def _about(run: WorkflowRun, owner: str | None, style: Style, columns: int, whole: bool) -> Iterator[str]:
    """What else is to be said of a run: what it is part of, who drives it, its params."""
    if run.parent_run_id is not None:
        part = f"the inside of task {run.parent_task_id} of run {run.parent_run_id}"
        yield f"  {style.paint(safe(part), 'dim')}"
    if owner is not None:
        yield f"  {style.paint(safe(f'driven by {owner}'), 'dim')}"
    elif state_of(run, owner) == "interrupted":
        yield f"  {style.state('interrupted', 'nobody drives it: it was interrupted, or its process died')}"
    most = 2000 if whole else PARAM_CHARACTERS
    if run.params:
        given = ", ".join(f"{name}={value_text(masked(name, value), most)}" for name, value in list(run.params.items())[:100])
        text = safe(f"params: {given}")
        yield f"  {style.paint(text if whole else cut(text, columns - 2, style.fitting('…', '...')), 'dim')}"


def _what_next(store: Store, run: WorkflowRun, owner: str | None) -> Iterator[str]:
    """The commands that one may want now."""
    path = _from_here(store)
    outermost = run.id if run.parent_run_id is None else outermost_run(store, run.id)
    first = next((task for task in run.tasks.values() if task.state is ExecutionState.FAILED), None)
    if first is not None:
        yield f"why:       {to_type('explain', run.id, first.task_id, store=path)}"
    if owner is not None:
        yield f"follow it: {to_type('watch', outermost, store=path)}"
    elif run.state is not ExecutionState.SUCCESS:
        word = "again:    " if ExecutionState.is_terminal(run.state) else "go on:    "
        yield f"{word} {to_type('resume', outermost, store=path)}"
    yield f"report:    {to_type('report', run.id, store=path)}"


# --- as data ---


def run_details(store: Store, run: WorkflowRun, owner: str | None = None, depth: int | None = None) -> dict[str, Any]:
    """A run with its tasks, their attempts and the subflows inside as data for JSON, named as in `get_execution_details`.

    Args:
        store: where the run and those of its subflows are.
        run: the run.
        owner: who drives it.
        depth: so many levels of subflows; at most 50.
    """
    deepest = DEEPEST if depth is None else min(depth, DEEPEST)
    root: dict[str, Any] = {}
    waiting = [(run, root, 0)]
    attempts_of = _attempts_of(store)
    while waiting:
        inside, told, level = waiting.pop()
        told.update(run_data(inside, created_at(store, inside.id), owner))
        told["tasks"] = tasks = {}
        attempts: dict[str, list[dict[str, Any]]] = {}
        for attempt in attempts_of(inside.id):
            attempts.setdefault(attempt.task_id, []).append(_attempt_data(attempt))
        graph = dict(inside.graph)
        for task_id, task in inside.tasks.items():
            whole = item_of(task_id, graph, inside.tasks)
            node = graph.get(whole or task_id)
            one = _task_data(task)
            one["depends_on"] = list(node.depends_on) if node is not None else []
            one["trigger_rule"] = node.trigger_rule if node is not None else None
            one["map_over"] = node.map_over if node is not None else None
            one["item_of"] = whole
            one["attempts"] = attempts.get(task_id, [])
            tasks[task_id] = one
            if task.child_run_id is not None and level < deepest:
                try:
                    child = store.load(task.child_run_id)
                except NOT_THERE as error:
                    one["subflow"] = {"run_id": task.child_run_id, "problem": str(error)}
                    continue
                one["subflow"] = {}
                waiting.append((child, one["subflow"], level + 1))
    return root


def _task_data(task: TaskInstance) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "type": task.type.value,
        "state": task.state.value,
        "try_number": task.try_number,
        "interruptions": task.interruptions,
        "crashes": task.crashes,
        "start_date": task.start_date,
        "end_date": task.end_date,
        "next_attempt_at": task.next_attempt_at,
        "input": masked("", task.input_json),
        "output": masked(task.task_id, task.output),
        "error": task.error,
        "reason": task.reason,
        "child_run_id": task.child_run_id,
    }


def _attempt_data(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "try_number": attempt.try_number,
        "result": attempt.result.value,
        "start_date": attempt.start_date,
        "end_date": attempt.end_date,
        "error": attempt.error,
        "reason": attempt.reason,
        "worker": attempt.worker,
        "logs": [{"at": entry.at, "level": entry.level, "message": entry.message} for entry in attempt.logs],
    }


# --- why ---


def explain_command(options: argparse.Namespace) -> int:
    """See `night-batch explain --help`."""
    with open_store(options) as store:
        run_id = find_run(store, options.run_id)
        explanation = _explained(store, run_id, options.task_id, options.flow)
        style = Style(sys.stdout)
        state = explanation.state.value
        title = f"{style.sign(state)} {style.paint(safe(options.task_id), 'bold')}  {style.state(state)}  {safe(run_id)}"
        columns = columns_of(sys.stdout, PIPED_COLUMNS)
        say([title, *(line for sentence in explanation.sentences for line in _filled(safe(sentence), columns))])
        if style.is_terminal:
            run = store.load(run_id)
            hints = list(_after_why(store, run, explanation))
            say(style.paint(safe(line), "dim") for line in ["", *hints] if hints)
    return 0


def _after_why(store: Store, run: WorkflowRun, explanation: Explanation) -> Iterator[str]:
    """The commands that one may want now."""
    path = _from_here(store)
    if explanation.state in (ExecutionState.FAILED, ExecutionState.CANCELLED, ExecutionState.SKIPPED):
        yield f"again:     {to_type('retry', run.id, explanation.task_id, store=path)}"
    elif not ExecutionState.is_terminal(run.state):
        outermost = run.id if run.parent_run_id is None else outermost_run(store, run.id)
        if owner_of(store, run) is None:
            yield f"go on:     {to_type('resume', outermost, store=path)}"
        else:
            yield f"follow it: {to_type('watch', outermost, store=path)}"


def _from_here(store: Store) -> Path | None:
    """Where a store is, in as few words as will do in the working directory."""
    path = path_of(store)
    try:
        return None if path is None else path.absolute().relative_to(Path.cwd())
    except (ValueError, OSError):  # somewhere else
        return path


def _filled(sentence: str, columns: int) -> list[str]:
    """A sentence in lines of its own, the first of them set out."""
    room = max(40, columns)
    return textwrap.wrap(sentence, room, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _explained(store: Store, run_id: str, task_id: str, target: str | None) -> Explanation:
    if target is None:
        return explain_stored(store, run_id, task_id)
    from .targets import load_target  # late: most explain by the store alone

    flow = load_target(target)
    if store.read_run(run_id).flow_name != flow.flow_name:
        note(f"The run is one of another flow than {target}: it is explained by the store alone.")
        return explain_stored(store, run_id, task_id)
    flow.store = store
    return flow.explain(run_id, task_id)
