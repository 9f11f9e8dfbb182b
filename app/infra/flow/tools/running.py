"""The commands that run things: run, resume, retry, cancel. Must not know how progress and runs are shown."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .. import AsyncFlow, ExecutionState, GraphNode, MemoryStore, ResumedRuns, RunFailedError, RunRecord, Store, WorkflowRun
from .failures import DONE, ENDED, FAILED, Refusal, code_of, note, say, told
from .opening import find_run, named_store, open_store, outermost_run, path_of, store_at
from .program import to_type
from .targets import Remembered, absolute, load_target, recall, remember
from .terminal import Style, columns_of, is_terminal, padded, safe
from .units import counted

T = TypeVar("T")


# --- the commands ---


def run_command(options: argparse.Namespace) -> int:
    """`run TARGET`: make a run of a flow and drive it to its end, or go on with the run of that id."""
    params = given_params(options.param, options.params_file)
    with _stdout_free(options.json):
        flow = load_target(options.target)
    _keep_in(flow, options)
    with flow.store as store:
        before = store.read_run(options.run_id) if options.run_id is not None and store.exists(options.run_id) else None
        run_id = flow.init_run(params, run_id=options.run_id)
        if before is not None:
            _tell_of_before(store, before, params, options.quiet)
        elif isinstance(store, MemoryStore) and not options.quiet:
            note("Nothing of this run is kept: the flow's store is in memory. Keep it with --store PATH.")
        _remember(flow, run_id, options.target)
        return _driven(flow, run_id, options)


def resume_command(options: argparse.Namespace) -> int:
    """`resume [RUN]`: go on with a run, or run again what failed or was cancelled in it; or go on with all unfinished ones."""
    if options.run_id is None:
        return _resume_all(options)
    with _stdout_free(options.json):
        flow, run_id = _flow_and_run(options, whole=True)
    with flow.store as store:
        state = store.read_run(run_id).state
        if state == ExecutionState.SUCCESS:
            note(f"Run {run_id!r} has ended with success: there is nothing to do.")
            if options.json:
                _print_details(flow, run_id)
            return DONE
        if ExecutionState.is_terminal(state):
            again = set_back(flow, run_id, options.adopt_graph)
            note(f"Run {run_id!r} {_has(state)}: {_some(again)} and what depends on it runs again.")
        return _driven(flow, run_id, options)


def retry_command(options: argparse.Namespace) -> int:
    """`retry RUN TASK`: set one task back, by default with all that is downstream of it, and drive the run on."""
    with _stdout_free(options.json):
        flow, run_id = _flow_and_run(options, whole=False)
    with flow.store:
        flow.manual_retry(run_id, options.task_id, options.downstream, adopt_graph=options.adopt_graph)
        return _driven(flow, run_id, options)


def cancel_command(options: argparse.Namespace) -> int:
    """`cancel RUN [TASK]`: cancel a run or a task for good, or ask it of the process that drives the run. Needs no flow."""
    with open_store(options) as store:
        run_id = find_run(store, options.run_id)
        flow = AsyncFlow(store.read_run(run_id).flow_name, store)
        what = f"Run {run_id!r}" if options.task_id is None else f"Task {options.task_id!r} of run {run_id!r}"
        done = flow.cancel(run_id) if options.task_id is None else flow.cancel_task(run_id, options.task_id)
        owner = store.owner_of(outermost_run(store, run_id)) if done else None
        if not done:
            say([safe(f"{what} has ended already; there is nothing to cancel.")])
        elif owner is not None:
            say([safe(f"{what} is being driven by {owner}, which was asked to cancel it; that takes a second or so.")])
        else:
            say([safe(f"{what} is cancelled.")])
    return DONE


def _resume_all(options: argparse.Namespace) -> int:
    """Go on with all unfinished runs of a flow that nobody drives."""
    if options.flow is None:
        raise Refusal("Name a run, or a flow: with --flow TARGET, all unfinished runs of that flow go on.")
    with _stdout_free(options.json):
        flow = load_target(options.flow)
        found = open_store(options, flow)
    flow.store = found
    with flow.store as store, _stdout_free(options.json), _progress(options, flow, None):
        ended = _to_end(lambda: flow.resume_all(options.max_concurrency, adopt_graph=options.adopt_graph))
    codes = [FAILED for run in ended.runs.values() if run.state != ExecutionState.SUCCESS]
    codes += [code_of(error) for error in ended.errors.values()]
    if options.json:
        with flow.store:
            details = {run_id: flow.get_execution_details(run_id) for run_id in ended.runs}
        problems = {run_id: str(error) for run_id, error in ended.errors.items()}
        say([json.dumps({"runs": details, "errors": problems, "left_alone": list(ended.left_alone)}, indent=2)])
    else:
        _tell_of_all(ended, flow, options.quiet, store)
    return max(codes, default=DONE)


def _tell_of_all(ended: ResumedRuns, flow: AsyncFlow, quiet: bool, store: Store) -> None:
    if not ended and not ended.left_alone:
        note(f"There are no unfinished runs of flow {flow.flow_name!r} in {store!r}.")
    style = Style(sys.stdout)
    if not quiet:
        say(f"{style.sign(run.state)} {safe(run.id)}  {style.state(run.state)}" for run in ended.runs.values())
    for run_id, error in ended.errors.items():
        note(f"Run {run_id!r} could not go on: {' '.join(told(error))}")
    for run_id in ended.left_alone:
        note(f"Run {run_id!r} is being driven by somebody else, and was left alone.")


# --- which flow, which store, which run ---


def _keep_in(flow: AsyncFlow, options: argparse.Namespace) -> None:
    """Have a flow keep its runs where the command line or the environment says, if they do."""
    named = named_store(options)
    if named is not None:
        store = store_at(named, flow)
        if store.identity != flow.store.identity:
            flow.store = store


def _flow_and_run(options: argparse.Namespace, whole: bool) -> tuple[AsyncFlow, str]:
    """The flow of the run that is meant, with the store in which it is, and the run: `whole`, where a subflow's is named."""
    flow = None if options.flow is None else load_target(options.flow)
    with open_store(options, flow) as store:
        run_id = find_run(store, options.run_id)
        if whole:
            outer = outermost_run(store, run_id)
            if outer != run_id:
                note(f"Run {run_id!r} is the inside of a task of run {outer!r}, which goes on as a whole.")
            run_id = outer
        run = store.read_run(run_id)
        if flow is None:
            flow = _remembered_flow(store, run)
        if flow.flow_name != run.flow_name:
            raise Refusal(
                f"Run {run_id!r} is a run of flow {run.flow_name!r}, and that is flow {flow.flow_name!r}. "
                "Name its own with --flow TARGET."
            )
        path = path_of(store)
        if store.identity != flow.store.identity:
            flow.store = store if path is None else store_at(str(path), flow)  # which reads and writes values of the flow's types
    return flow, run_id


def _remembered_flow(store: Store, run: RunRecord) -> AsyncFlow:
    entry = recall(store.identity, run.id, run.flow_name)
    if entry is None:
        raise Refusal(f"With which flow run {run.id!r} was started is not remembered here. Name it: --flow path/to/file.py:flow.")
    note(f"The flow of run {run.id!r} is {entry.target}.")
    return entry.load()


def _remember(flow: AsyncFlow, run_id: str, target: str) -> None:
    path = path_of(flow.store)
    if path is not None:
        entry = Remembered(flow.store.identity, str(path.absolute()), run_id, flow.flow_name, absolute(target), str(Path.cwd()))
        remember(entry)


def _tell_of_before(store: Store, before: RunRecord, params: Mapping[str, Any] | None, quiet: bool) -> None:
    """Say what there was of a run before this command."""
    if quiet:
        pass  # cron mails what is said, and calls again what is done
    elif ExecutionState.is_terminal(before.state):
        note(f"Run {before.id!r} {_has(before.state)} already; this is its result. Another --run-id makes a new run.")
    elif before.started is not None and store.owner_of(before.id) is None:
        note(f"Run {before.id!r} is not finished; it goes on where it stood.")
    if params and store.load(before.id).params != params:
        note("The params given now are not used: a run keeps those that it was made with.")


def _has(state: str) -> str:
    return {"success": "has ended with success", "failed": "has failed", "cancelled": "was cancelled"}.get(state, f"is {state}")


# --- params ---


def given_params(words: Iterable[str], file: str | None) -> dict[str, Any] | None:
    """The params that a command line gives; None if it gives none.

    Args:
        words: `key=value` each, the value being JSON where it is JSON, else text.
        file: the path of a JSON object; `-` is stdin. What the words say goes before it.

    Raises:
        Refusal: one is not usable.
    """
    params: dict[str, Any] | None = None
    if file is not None:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
            params = json.loads(text)
        except OSError as error:
            raise Refusal(f"The params file cannot be read: {error}") from error
        except (ValueError, RecursionError) as error:
            raise Refusal(f"The params file {file} is not JSON: {error}") from error
        if not isinstance(params, dict):
            raise Refusal(f'The params file {file} must hold a JSON object, such as {{"region": "north"}}.')
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise Refusal(f"--param {word}: write --param name=value.")
        params = {} if params is None else params
        params[key] = _value(value)
    return params


def _value(text: str) -> Any:
    def refuse(word: str) -> NoReturn:
        raise ValueError(word)

    try:
        return json.loads(text, parse_constant=refuse)  # NaN is no JSON, and more likely a word
    except (ValueError, RecursionError):
        return text


# --- driving ---


def _driven(flow: AsyncFlow, run_id: str, options: argparse.Namespace) -> int:
    """Drive a run to its end, show what became of it, and answer with the exit code."""
    try:
        with _stdout_free(options.json), _progress(options, flow, run_id):
            run = flow.run(run_id=run_id, max_concurrency=options.max_concurrency, adopt_graph=options.adopt_graph)
    except (KeyboardInterrupt, SystemExit):
        path = path_of(flow.store)
        if path is not None:
            note(f"Interrupted. Run {run_id!r} is saved as it stands; go on with: {to_type('resume', run_id, store=path)}")
        raise
    if options.json:
        _print_details(flow, run_id)
    elif options.quiet:
        _tell_failures(run)
    else:
        _tell_summary(flow, run)
    return DONE if run.state == ExecutionState.SUCCESS else FAILED


def _progress(options: argparse.Namespace, flow: AsyncFlow, run_id: str | None) -> AbstractContextManager[object]:
    if options.quiet or options.progress is False:
        return nullcontext()
    from .progress import show_progress  # late: who wants to see nothing need not load it

    # On a terminal the summary follows right below, and begins with the same.
    summary = run_id is not None and not options.json and is_terminal(sys.stdout)
    shown: AbstractContextManager[object] = show_progress(flow, run_id, last=not summary)
    return shown


def _print_details(flow: AsyncFlow, run_id: str) -> None:
    say([json.dumps(flow.get_execution_details(run_id), indent=2)])


def _tell_failures(run: WorkflowRun) -> None:
    try:
        run.raise_for_failure()
    except RunFailedError as error:
        for line in str(error).splitlines():
            note(line)


def _tell_summary(flow: AsyncFlow, run: WorkflowRun) -> None:
    from .trees import run_summary  # late: who wants to see nothing need not load it

    style = Style(sys.stdout)
    lines = list(run_summary(run, style, columns_of(sys.stdout)))
    path = path_of(flow.store)
    if path is not None:
        steps = {
            "see it": to_type("show", run.id, store=path),
            "as a page": to_type("report", run.id, "-o", f"{_file_name(run.id)}.html", store=path),
        }
        if run.state != ExecutionState.SUCCESS:
            when = "once it is mended" if run.state == ExecutionState.FAILED else "to go on"
            steps[when] = to_type("resume", run.id, store=path)
        widest = max(map(len, steps)) + 1
        lines += ["", *(f"  {style.paint(padded(f'{when}:', widest), 'dim')}  {safe(step)}" for when, step in steps.items())]
    say(lines)


def _file_name(run_id: str) -> str:
    """A run's id as the name of a file: ids may hold what names of files must not."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in run_id).lstrip(".")[:100] or "run"


# --- setting back ---


def set_back(flow: AsyncFlow, run_id: str, adopt_graph: bool = False) -> list[str]:
    """Set back all that failed or was cancelled in a run, with all that depends on it; its ids, those of the run's own level.

    Raises:
        Refusal: nothing did.
    """
    again: list[str] = []
    while True:
        run = flow.store.load(run_id)
        found = first_to_repeat(run, flow.graph if adopt_graph or not run.graph else run.graph)
        found = [task_id for task_id in found if task_id not in again]
        if not found:
            break
        flow.manual_retry(run_id, found, reset_downstream=True, adopt_graph=adopt_graph)
        again.extend(found)
    if not again:
        raise Refusal(
            f"In run {run_id!r} no task failed or was cancelled. Run one of them again with: {to_type('retry', run_id)} TASK"
        )
    return again


def first_to_repeat(run: WorkflowRun, graph: Mapping[str, GraphNode]) -> list[str]:
    """The tasks that failed or were cancelled and depend on no other such: the others are set back with them. Pure."""
    wrong = {task_id for task_id in graph if task_id in run.tasks and run.tasks[task_id].state in ("failed", "cancelled")}
    below: set[str] = set()
    downstream: dict[str, list[str]] = {}
    for task_id, node in graph.items():
        for upstream in node.depends_on:
            downstream.setdefault(upstream, []).append(task_id)
    waiting = list(wrong)
    while waiting:
        for task_id in downstream.get(waiting.pop(), ()):
            if task_id not in below:
                below.add(task_id)
                waiting.append(task_id)
    return [task_id for task_id in graph if task_id in wrong and task_id not in below]


def _some(ids: list[str], most: int = 5) -> str:
    listed = ", ".join(repr(task_id) for task_id in ids[:most])
    return listed if len(ids) <= most else f"{listed} and {counted(len(ids) - most, 'more task')}"


# --- the process ---


@contextmanager
def _stdout_free(wanted: bool) -> Iterator[None]:
    """Have all that is printed meanwhile go to stderr, by other processes of ours, too: stdout is for the result alone."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    out, kept = -1, -1
    try:
        out = sys.stdout.fileno()
        kept = os.dup(out)
        os.dup2(sys.stderr.fileno(), out)
    except (OSError, ValueError, AttributeError):  # no real stream, as in tests
        pass
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept >= 0:
            os.dup2(kept, out)
            os.close(kept)


def _to_end(work: Callable[[], Awaitable[T]]) -> T:
    """Await something in a loop of its own; the first SIGINT or SIGTERM cancels it, so that all is saved, and is raised."""
    received: list[int] = []

    async def main() -> T | None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            received.append(number)
            for handled in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(handled)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, stop, number)
            except (NotImplementedError, RuntimeError, ValueError):  # windows, or not the main thread
                break
        try:
            return await work()
        except asyncio.CancelledError:
            if not received:
                raise
            return None

    result = asyncio.run(main())
    if received:
        note("Interrupted. The runs are saved as they stand; the same command goes on with them.")
        if received[0] == signal.SIGTERM:
            raise SystemExit(ENDED)
        raise KeyboardInterrupt
    assert result is not None
    return result
