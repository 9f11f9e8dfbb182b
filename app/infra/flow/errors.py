"""Every error the engine raises, by name; each carries its facts and writes its own sentence.

Knows nothing of the rest of the engine: facts come in as plain strings and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone

MAX_DELAY = 10 * 365 * 24 * 3600.0
"""Seconds; a delay beyond ten years is a mistake, and would overflow dates further down."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate a person most likely meant by `name`, or None."""
    from difflib import get_close_matches  # late: nobody needs it before somebody has mistaken a name

    known = list(candidates)
    matches = get_close_matches(name, known, n=1, cutoff=0.6)
    if not matches:  # letter by letter, LOAD and load have nothing in common
        matches = [candidate for candidate in known if candidate.casefold() == name.casefold()]
    return matches[0] if matches else None


def shown(value: object, most: int = 200) -> str:
    """A user's value in a sentence: its repr in bounded length, or its type where the repr itself raises."""
    try:
        text = repr(value)
    except Exception:  # an int of too many digits, or a class whose __repr__ is broken
        return f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def place_of(key: object, inside: str) -> str:
    """Where in a dict a value stands, for a sentence: `output["rows"]`."""
    text = f'"{key}"' if type(key) is str and key.isprintable() and '"' not in key and len(key) < 200 else shown(key)
    return f"{inside}[{text}]"


def moment_text(moment: int) -> str:
    """A moment, in microseconds since 1970 UTC, as sentences name it."""
    return f"{_EPOCH + timedelta(microseconds=moment):%Y-%m-%d %H:%M:%S} UTC"


def _did_you_mean(suggestion: str | None) -> str:
    return f" Did you mean {suggestion!r}?" if suggestion else ""


def shortened(items: Sequence[str], separator: str, most: int = 12) -> str:
    """Join `items`, leaving out the middle of a list of more than `most`: nobody reads 100,000 ids."""
    if len(items) <= most:
        return separator.join(items)
    head, tail = items[: most // 2], items[-(most // 2) :]
    left_out = f"... ({len(items) - len(head) - len(tail)} more) ..."
    return separator.join([*head, left_out, *tail])


def abridged(text: str, most: int) -> str:
    """`text`, with its middle left out where it is longer than `most` characters: both ends of a traceback matter."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... ({len(text) - 2 * half:,} characters left out) ...\n{text[-half:]}"


# C0 but tab and newline, DEL, C1; the marks that turn the direction of text; lone surrogates, which no terminal can be sent.
_UNPRINTABLE = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"


def printable(text: str) -> str:
    """`text` as a terminal or a log may get it: what would steer or disguise is written as an escape, as `repr` does."""
    if text.isprintable():
        return text
    return re.sub(_UNPRINTABLE, lambda found: found.group().encode("unicode_escape").decode(), text)


class FlowError(Exception):
    """Base of every error of the engine; catch it to catch them all.

    The facts are the constructor's arguments and attributes of the same names, so an error survives pickling.
    """

    def _sentence(self) -> str:
        return Exception.__str__(self)

    def __str__(self) -> str:
        # Written late, and here rather than in each class: KeyError's own __str__ would quote the sentence.
        return printable(self._sentence())


# --- defining a flow -------------------------------------------------------------------------------------------------


class DefinitionError(FlowError, ValueError):
    """A flow, a task or a subflow is defined in a way that cannot run."""


class InvalidNameError(DefinitionError):
    """A flow name, task id or run id is not usable as one."""

    def __init__(self, kind: str, name: object, problem: str) -> None:
        super().__init__(kind, name, problem)
        self.kind, self.name, self.problem = kind, name, problem

    def _sentence(self) -> str:
        return f"{shown(self.name)} cannot be a {self.kind}: {self.problem}."


class DuplicateTaskError(DefinitionError):
    """A task id was defined twice."""

    def __init__(self, flow_name: str, task_id: str) -> None:
        super().__init__(flow_name, task_id)
        self.flow_name, self.task_id = flow_name, task_id

    def _sentence(self) -> str:
        return (
            f"Flow {self.flow_name!r} already has a task {self.task_id!r}. "
            "Choose another id, or pass replace=True if the new definition is meant to take its place."
        )


class UnknownDependencyError(DefinitionError):
    """A task depends on something that is no task of the flow."""

    def __init__(self, flow_name: str, task_id: str, dependency: str, suggestion: str | None = None) -> None:
        super().__init__(flow_name, task_id, dependency, suggestion)
        self.flow_name, self.task_id, self.dependency, self.suggestion = flow_name, task_id, dependency, suggestion

    def _sentence(self) -> str:
        return (
            f"Task {self.task_id!r} of flow {self.flow_name!r} depends on {self.dependency!r}, "
            f"which is no task of that flow.{_did_you_mean(self.suggestion)}"
        )


class AmbiguousDependencyError(DefinitionError):
    """A dependency is given as a function that serves several tasks."""

    def __init__(self, task_id: str, function_name: str, task_ids: Sequence[str]) -> None:
        super().__init__(task_id, function_name, tuple(task_ids))
        self.task_id, self.function_name, self.task_ids = task_id, function_name, tuple(task_ids)

    def _sentence(self) -> str:
        return (
            f"Task {self.task_id!r} depends on the function {self.function_name}, which serves several tasks "
            f"({shortened(self.task_ids, ', ')}). Name the one you mean by its id."
        )


class CycleError(DefinitionError):
    """The tasks depend on each other in a circle. `cycle` holds the ids along it, the first one repeated at the end."""

    def __init__(self, cycle: Sequence[str], flow_name: str = "") -> None:
        super().__init__(tuple(cycle), flow_name)
        self.cycle, self.flow_name = tuple(cycle), flow_name

    def _sentence(self) -> str:
        where = f" of flow {self.flow_name!r}" if self.flow_name else ""
        return (
            f"The tasks{where} depend on each other in a circle: {shortened(self.cycle, ' -> ')} "
            "(each needs the next). Remove one of these dependencies."
        )


class UnknownExecutorError(DefinitionError):
    """A task is to run on an executor that its flow does not have."""

    def __init__(self, flow_name: str, task_id: str, executor: str, suggestion: str | None = None) -> None:
        super().__init__(flow_name, task_id, executor, suggestion)
        self.flow_name, self.task_id, self.executor, self.suggestion = flow_name, task_id, executor, suggestion

    def _sentence(self) -> str:
        return (
            f"Task {self.task_id!r} of flow {self.flow_name!r} is to run on the executor {self.executor!r}, which is neither "
            '"thread", "inline" or "process" nor one of '
            f"AsyncFlow(..., executors={{name: executor}}).{_did_you_mean(self.suggestion)}"
        )


class UnknownPoolError(DefinitionError):
    """A task is to take slots of a pool that no flow has declared."""

    def __init__(self, flow_name: str, task_id: str, pool: str, suggestion: str | None = None) -> None:
        super().__init__(flow_name, task_id, pool, suggestion)
        self.flow_name, self.task_id, self.pool, self.suggestion = flow_name, task_id, pool, suggestion

    def _sentence(self) -> str:
        return (
            f"Task {self.task_id!r} of flow {self.flow_name!r} takes slots of the pool {self.pool!r}, which no flow of this "
            f"process has; declare it: AsyncFlow(..., pools={{{self.pool!r}: 2}}).{_did_you_mean(self.suggestion)}"
        )


class NestedFlowError(DefinitionError):
    """A flow contains itself as a subflow. `path` holds the subflow ids that lead from the flow back to it."""

    def __init__(self, flow_name: str, path: Sequence[str]) -> None:
        super().__init__(flow_name, tuple(path))
        self.flow_name, self.path = flow_name, tuple(path)

    def _sentence(self) -> str:
        return (
            f"Flow {self.flow_name!r} would contain itself, by way of the subflow {shortened(self.path, '.')!r}; "
            "it could never end. Build a separate flow for the inner part."
        )


class TaskFunctionError(DefinitionError):
    """What was given as a task's function (or a subflow's factory) cannot serve as one."""

    def __init__(self, task_id: str, function_name: str, problem: str) -> None:
        super().__init__(task_id, function_name, problem)
        self.task_id, self.function_name, self.problem = task_id, function_name, problem

    def _sentence(self) -> str:
        return f"Task {self.task_id!r} cannot use {self.function_name}: {self.problem}."


class InvalidOptionError(DefinitionError):
    """An option of a task, flow, run or store has a value that makes no sense."""

    def __init__(self, option: str, value: object, expected: str, task_id: str | None = None) -> None:
        super().__init__(option, value, expected, task_id)
        self.option, self.value, self.expected, self.task_id = option, value, expected, task_id

    def _sentence(self) -> str:
        where = f"Task {self.task_id!r}: " if self.task_id is not None else ""
        return f"{where}{self.option}={shown(self.value)} is not usable; it must be {self.expected}."


class CannotTravelError(DefinitionError):
    """Something that a task needs cannot be sent to another process. `what` names it: the function, or a registered type."""

    def __init__(self, task_id: str, what: str, problem: str) -> None:
        super().__init__(task_id, what, problem)
        self.task_id, self.what, self.problem = task_id, what, problem

    def _sentence(self) -> str:
        return (
            f"Task {self.task_id!r} cannot run in another process, since {self.what} cannot be sent there: {self.problem}. "
            "What is sent is its name, by which the other process imports it: put it at the top level of a module that can be "
            "imported there."
        )


class ParallelError(DefinitionError):
    """Tasks that `FlowBuilder.add_parallel` declares parallel depend on one another."""

    def __init__(self, flow_name: str, upstream: str, downstream: str) -> None:
        super().__init__(flow_name, upstream, downstream)
        self.flow_name, self.upstream, self.downstream = flow_name, upstream, downstream

    def _sentence(self) -> str:
        return (
            f"Flow {self.flow_name!r} declares {self.upstream!r} and {self.downstream!r} parallel, "
            f"but {self.downstream!r} is downstream of {self.upstream!r}. Remove that dependency or the declaration."
        )


class UnknownTaskError(FlowError, KeyError):
    """A task is named that does not exist where it was looked for."""

    def __init__(self, where: str, task_id: str, suggestion: str | None = None) -> None:
        super().__init__(where, task_id, suggestion)
        self.where, self.task_id, self.suggestion = where, task_id, suggestion

    def _sentence(self) -> str:
        return f"{self.where} has no task {self.task_id!r}.{_did_you_mean(self.suggestion)}"


# --- an attempt ------------------------------------------------------------------------------------------------------


class TaskTimeoutError(FlowError, TimeoutError):
    """An attempt took longer than the task's `timeout=`, or (`silent`) was silent for longer than its `heartbeat_timeout=`."""

    def __init__(self, task_id: str, seconds: float, attempt_number: int, silent: bool = False) -> None:
        super().__init__(task_id, seconds, attempt_number, silent)
        self.task_id, self.seconds, self.attempt_number, self.silent = task_id, seconds, attempt_number, silent

    def _sentence(self) -> str:
        which = f"Attempt {self.attempt_number} of task {self.task_id!r}"
        if self.silent:
            return f"{which} gave no sign of life for {self.seconds:g} seconds (heartbeat_timeout=, ctx.heartbeat())."
        return f"{which} did not end within {self.seconds:g} seconds (timeout=)."


# --- values ----------------------------------------------------------------------------------------------------------


class UnstorableValueError(FlowError, TypeError):
    """A value cannot be stored. `place` says where inside it the trouble is, e.g. `output["rows"][3]`."""

    def __init__(self, place: str, type_name: str, problem: str, task_id: str | None = None) -> None:
        super().__init__(place, type_name, problem, task_id)
        self.place, self.type_name, self.problem, self.task_id = place, type_name, problem, task_id

    def _sentence(self) -> str:
        where = f"Task {self.task_id!r}: " if self.task_id is not None else ""
        return f"{where}{self.place} is of type {self.type_name}, which cannot be stored: {self.problem}."


class ValueTooLargeError(UnstorableValueError):
    """A value is larger than the store's limit. `size` and `limit` are in characters of stored text."""

    def __init__(self, place: str, type_name: str, size: int, limit: int, task_id: str | None = None) -> None:
        super().__init__(place, type_name, f"it takes {size:,} characters and the limit is {limit:,}", task_id)
        self.args = (place, type_name, size, limit, task_id)
        self.size, self.limit = size, limit

    def _sentence(self) -> str:
        return (
            f"{super()._sentence()} Write it to a file of yours and return its path, or raise the limit: "
            "ValueCodec(max_size=...), given to the store as codec=."
        )


class UnregisteredTypeError(FlowError, TypeError):
    """A stored value is of a type of the user's that this store has not been told about."""

    def __init__(self, type_name: str) -> None:
        super().__init__(type_name)
        self.type_name = type_name

    def _sentence(self) -> str:
        return (
            f"A stored value is of the type {self.type_name!r}, which is not registered here. "
            "Register the class with the store before reading: store.register(TheClass)."
        )


class StoredValueError(FlowError, ValueError):
    """A stored value does not read back: it was not written by this codec, or was damaged since."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def _sentence(self) -> str:
        return f"A stored value does not read back: {self.problem}."


# --- running ---------------------------------------------------------------------------------------------------------


class RunError(FlowError):
    """A run cannot be made, continued or retried as asked."""


class RunNotFoundError(RunError, KeyError):
    """The store has no run of that id."""

    def __init__(self, run_id: str, store: str = "the store") -> None:
        super().__init__(run_id, store)
        self.run_id, self.store = run_id, store

    def _sentence(self) -> str:
        return f"There is no run {self.run_id!r} in {self.store}. store.list_runs() lists the runs there are."


class RunExistsError(RunError):
    """A run of that id stands in the store already, and belongs to something else."""

    def __init__(self, run_id: str, flow_name: str, wanted_by: str) -> None:
        super().__init__(run_id, flow_name, wanted_by)
        self.run_id, self.flow_name, self.wanted_by = run_id, flow_name, wanted_by

    def _sentence(self) -> str:
        return (
            f"Run {self.run_id!r} exists already and belongs to flow {self.flow_name!r}, not to {self.wanted_by!r}. "
            "Choose another run_id, or use the flow that made it."
        )


class RunMismatchError(RunError):
    """A flow was asked to continue a run of another flow."""

    def __init__(self, run_id: str, flow_name: str, asked_of: str) -> None:
        super().__init__(run_id, flow_name, asked_of)
        self.run_id, self.flow_name, self.asked_of = run_id, flow_name, asked_of

    def _sentence(self) -> str:
        return (
            f"Run {self.run_id!r} is a run of flow {self.flow_name!r}; flow {self.asked_of!r} cannot continue it. "
            f"Call the same method of flow {self.flow_name!r}."
        )


class RunActiveError(RunError):
    """The run is being driven right now, so it cannot be changed from outside."""

    def __init__(self, run_id: str, action: str, advice: str = "Wait for it to end, or cancel it first.") -> None:
        super().__init__(run_id, action, advice)
        self.run_id, self.action, self.advice = run_id, action, advice

    def _sentence(self) -> str:
        return f"Cannot {self.action} run {self.run_id!r} while it is being run. {self.advice}"


class RunOwnedError(RunError):
    """The run is being driven by somebody else: another process, or another store object of this one.

    `owner` says who, `since` (microseconds since 1970 UTC) since when; both are None where that is not known.
    """

    def __init__(self, run_id: str, owner: str | None = None, since: int | None = None) -> None:
        super().__init__(run_id, owner, since)
        self.run_id, self.owner, self.since = run_id, owner, since

    def _sentence(self) -> str:
        since = f" since {moment_text(self.since)}" if self.since is not None else ""
        return (
            f"Run {self.run_id!r} is owned by {self.owner or 'somebody unknown'}{since}, so it cannot be written from here. "
            "Wait for that owner to end, or end it: a dead owner's run is free at once. "
            f"If it hangs, flow.take_over({self.run_id!r}) takes the run from it."
        )


class OwnershipLostError(RunError):
    """Somebody else took the run over meanwhile, so this owner's writes are refused. Nothing of the refused write is stored."""

    def __init__(self, run_id: str, owner: str | None = None) -> None:
        super().__init__(run_id, owner)
        self.run_id, self.owner = run_id, owner

    def _sentence(self) -> str:
        return (
            f"Run {self.run_id!r} was taken over by {self.owner or 'somebody else'} while it was driven here, so nothing more of "
            "it is written from here. Leave it to the new owner, and read its result from the store."
        )


class GraphChangedError(RunError):
    """The flow's graph is no longer the one that the run was made with.

    `added`, `removed` and `changed` are the task ids; `changed` have other dependencies or another type than before.
    """

    def __init__(
        self,
        run_id: str,
        flow_name: str,
        added: Sequence[str] = (),
        removed: Sequence[str] = (),
        changed: Sequence[str] = (),
    ) -> None:
        super().__init__(run_id, flow_name, tuple(added), tuple(removed), tuple(changed))
        self.run_id, self.flow_name = run_id, flow_name
        self.added, self.removed, self.changed = tuple(added), tuple(removed), tuple(changed)

    def _sentence(self) -> str:
        kinds = (("added", self.added), ("removed", self.removed), ("changed", self.changed))
        difference = "; ".join(f"{kind}: {shortened(ids, ', ')}" for kind, ids in kinds if ids)
        return (
            f"The graph of flow {self.flow_name!r} is not the one that run {self.run_id!r} was made with "
            f"({difference}). Restore the graph, start a new run, or pass adopt_graph=True to continue with the new one."
        )


class IllegalTransitionError(RunError):
    """Something tried to move a task or run along an edge that the state table does not have."""

    def __init__(self, subject: str, source: str, target: str) -> None:
        super().__init__(subject, source, target)
        self.subject, self.source, self.target = subject, source, target

    def _sentence(self) -> str:
        return f"{self.subject} cannot go from {self.source} to {self.target}."


class RunFailedError(RunError):
    """Raised by `run.raise_for_failure()`. `failures` maps each task that failed or was cancelled to its cause, in one line."""

    def __init__(self, run_id: str, flow_name: str, state: str, failures: Mapping[str, str]) -> None:
        super().__init__(run_id, flow_name, state, dict(failures))
        self.run_id, self.flow_name, self.state, self.failures = run_id, flow_name, state, dict(failures)

    def _sentence(self) -> str:
        causes = [f"{task_id}: {cause}" for task_id, cause in self.failures.items()]
        listed = "".join(f"\n  {line}" for line in shortened(causes, "\n").split("\n")) if causes else ""
        return f"Run {self.run_id!r} of flow {self.flow_name!r} {self.state}.{listed}"


class RunTimeoutError(RunError, TimeoutError):
    """A run did not end within the `timeout=` of the call that waited for it. It was stopped, and can be continued."""

    def __init__(self, run_id: str, seconds: float) -> None:
        super().__init__(run_id, seconds)
        self.run_id, self.seconds = run_id, seconds

    def _sentence(self) -> str:
        return (
            f"Run {self.run_id!r} did not end within {self.seconds:g} seconds (timeout=). "
            "It is saved as it stands; the next run_until_complete goes on with it."
        )


class RunningLoopError(RunError, RuntimeError):
    """The synchronous `flow.run()` was called where an event loop is running already."""

    def __init__(self, flow_name: str) -> None:
        super().__init__(flow_name)
        self.flow_name = flow_name

    def _sentence(self) -> str:
        return (
            f"flow.run() of {self.flow_name!r} cannot be used inside a running event loop. There, write: "
            "run = await flow.run_until_complete(flow.init_run(params))"
        )


class NoRunningLoopError(RunError, RuntimeError):
    """`flow.start()` was called where no event loop is running, so nothing could drive the run."""

    def __init__(self, flow_name: str) -> None:
        super().__init__(flow_name)
        self.flow_name = flow_name

    def _sentence(self) -> str:
        return (
            f"flow.start() of {self.flow_name!r} needs a running event loop, which drives the run in the background. "
            "In a script, write: run = flow.run(params)"
        )


class RunStoppedError(RunError):
    """A run that was started in the background was stopped before its end; it can be continued."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def _sentence(self) -> str:
        return (
            f"Run {self.run_id!r} was stopped before its end, by its handle or with its event loop. It is saved as it stood; "
            f"flow.start(run_id={self.run_id!r}) continues it."
        )


class NotUpstreamError(RunError):
    """A task pulled the output of a task that is not upstream of it, so may not have run yet."""

    def __init__(self, task_id: str, wanted: str) -> None:
        super().__init__(task_id, wanted)
        self.task_id, self.wanted = task_id, wanted

    def _sentence(self) -> str:
        return (
            f"Task {self.task_id!r} cannot pull {self.wanted!r}, which is not upstream of it. "
            f"Add {self.wanted!r} to its depends_on."
        )


class NotSentError(RunError):
    """A task that runs in another process pulled the output of a task that was not sent along."""

    def __init__(self, task_id: str, wanted: str, whole: str | None = None) -> None:
        super().__init__(task_id, wanted, whole)
        self.task_id, self.wanted = task_id, wanted
        self.whole = whole
        """Where one item of a mapped task was wanted: that task, whose list of outputs was sent."""

    def _sentence(self) -> str:
        if self.whole is not None:
            return (
                f"Task {self.task_id!r} runs in another process and cannot pull {self.wanted!r}: outputs of single items are not "
                f"sent along. Pull {self.whole!r}, the list of all of them."
            )
        return (
            f"Task {self.task_id!r} runs in another process and cannot pull {self.wanted!r}: it may be upstream, but only the "
            f"outputs of declared dependencies are sent along. Add {self.wanted!r} to its depends_on."
        )


class NoCurrentTaskError(FlowError, LookupError):
    """`current_context()` was called where no task is running."""

    def _sentence(self) -> str:
        return (
            "No task is running here, so there is no current context. Call current_context() from a task's function or from what "
            "that calls; a thread of your own knows it if it carries on the context variables, as asyncio.to_thread does."
        )


class WorkerDiedError(RunError):
    """A worker process ended while it had a task, or before it could take one.

    `exit_code` is minus the signal's number where a signal killed it, None where nobody knows; `begun` says whether the task's
    function had been called; `problem` says what went wrong where that is something else than its end.
    """

    def __init__(self, task_id: str, pid: int | None, exit_code: int | None, begun: bool, problem: str | None = None) -> None:
        super().__init__(task_id, pid, exit_code, begun, problem)
        self.task_id, self.pid, self.exit_code, self.begun, self.problem = task_id, pid, exit_code, begun, problem

    def _sentence(self) -> str:
        end = self.problem or _end_of_process(self.exit_code)
        if self.begun:
            return f"Task {self.task_id!r}: its worker process (pid {self.pid}) {end}."
        return (
            f"Task {self.task_id!r}: no worker process could take it; the last one (pid {self.pid}) {end} before it was ready. "
            "What it wrote to stderr says why. Most often the program's main script does its work when it is imported: put that "
            'under `if __name__ == "__main__":`.'
        )


class AttemptWithdrawnError(RunError):
    """An executor that was brought along cancelled an attempt that it had been given. `executor` is the name of its class."""

    def __init__(self, task_id: str, executor: str) -> None:
        super().__init__(task_id, executor)
        self.task_id, self.executor = task_id, executor

    def _sentence(self) -> str:
        return (
            f"Task {self.task_id!r}: the {self.executor} cancelled it before it was done: it was shut down, lost its cluster, or "
            "somebody cancelled what it had. Retry the task with an executor that is running."
        )


def _end_of_process(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended, and its exit code is not known"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    from signal import Signals  # late: for this sentence alone

    try:
        name = Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    why = {"SIGKILL": " (by hand, or because the machine ran out of memory)", "SIGSEGV": " (a crash in native code)"}
    return f"was killed by {name}{why.get(name, '')}"


# --- raised by tasks -------------------------------------------------------------------------------------------------


class RetryAfter(FlowError):  # noqa: N818 - what a task says with it is no error, but when
    """Raised by a task that knows when it is worth another attempt: the retry policy's delay does not count for that one.

    It is a failed attempt and uses up one of `max_retries`; with none left, the task fails. Neither `jitter` nor `max_delay`
    changes the wait, and `retry_on` need not name it. A server that is overloaded says so:

        if response.status == 503:
            raise RetryAfter(int(response.headers["Retry-After"]), "the server is overloaded")

    Args:
        seconds: from the end of this attempt to the start of the next; a number, or a timedelta. Kept as a float.
        message: why.

    Raises:
        InvalidOptionError: `seconds` is no span of time from 0 seconds to ten years.
    """

    def __init__(self, seconds: float | timedelta, message: str = "") -> None:
        number = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        # NaN compares with nothing, so it is refused too.
        if not isinstance(number, (int, float)) or isinstance(number, bool) or not 0 <= number <= MAX_DELAY:
            expected = "a number of seconds or a timedelta, from 0 seconds to ten years"
            raise InvalidOptionError("seconds", seconds, expected)
        super().__init__(float(number), message)
        self.seconds, self.message = float(number), message

    def _sentence(self) -> str:
        when = f"to be tried again after {self.seconds:g} s"
        return f"{self.message} ({when})" if self.message else when


class NonRetryableError(FlowError):
    """Raised by a task that no further attempt can help: it fails at once, however many retries are left.

    Only the class that is raised counts: `raise NonRetryableError("no such account") from error` is final, whatever `error` is,
    and another exception raised from this one is not. A manual retry runs the task again all the same.

    Args:
        message: why.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def _sentence(self) -> str:
        return f"{self.message}" if self.message else "another attempt cannot help"


class MapError(NonRetryableError):
    """A task cannot be mapped over what it is to be mapped over. Another attempt cannot help: the list is what it is."""

    def __init__(self, task_id: str, map_over: str, problem: str, advice: str) -> None:
        FlowError.__init__(self, task_id, map_over, problem, advice)
        self.task_id, self.map_over, self.problem, self.advice = task_id, map_over, problem, advice

    def _sentence(self) -> str:
        return f"Task {self.task_id!r} cannot be mapped over {self.map_over!r}: {self.problem}. {self.advice}."


class BranchError(NonRetryableError):
    """A branch returned something else than ids of tasks that depend on it directly."""

    def __init__(self, task_id: str, chosen: object, downstream: Sequence[str]) -> None:
        FlowError.__init__(self, task_id, chosen, tuple(downstream))
        self.task_id, self.chosen, self.downstream = task_id, chosen, tuple(downstream)

    def _sentence(self) -> str:
        ids = shortened([repr(task_id) for task_id in self.downstream], ", ") or "no task"
        return (
            f"Branch {self.task_id!r} chose {shown(self.chosen)}; it must return ids of tasks that depend on it directly "
            f"({ids}): one, a list of them, or None."
        )


class SkipTask(FlowError):  # noqa: N818 - what a task says with it is no error
    """Raised by a task that has nothing to do: it is skipped, and so is what asks for its success; the run does not fail by that.

    No attempt follows, however many retries are left; a manual retry runs the task again.

        if not new_files:
            raise SkipTask("no new files")

    Args:
        reason: why, in one line: `TaskInstance.reason`. Of a longer one, 500 characters are kept.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def _sentence(self) -> str:
        return f"{self.reason}" if self.reason else "the task had nothing to do"


def skip_reason(error: BaseException) -> str | None:
    """Why a task asks to be skipped, whatever a class derived from SkipTask made of it; None where it raised something else."""
    if not issubclass(type(error), SkipTask):  # not isinstance, which asks the exception
        return None
    try:
        return str.__str__(str(error))  # the bare text, where a class of its own comes out of its __str__
    except BaseException as problem:  # a __str__ that raises, with whatever it likes
        return f"(its reason could not be made: {type(problem).__name__})"


# --- stores ----------------------------------------------------------------------------------------------------------


class StoreError(FlowError):
    """The store could not do its work; nothing after the last commit may be relied on."""

    def __init__(self, store: str, problem: str) -> None:
        super().__init__(store, problem)
        self.store, self.problem = store, problem

    def _sentence(self) -> str:
        return f"{self.store}: {self.problem}."


class StoreBusyError(StoreError):
    """Somebody else held the store for too long. `waited` is how long it was waited for, in seconds. Nothing was written."""

    def __init__(self, store: str, waited: float, problem: str = "another program holds it") -> None:
        super().__init__(store, problem)
        self.args = (store, waited, problem)
        self.waited = waited

    def _sentence(self) -> str:
        return f"{self.store}: {self.problem}; waited {self.waited:g} s. End that program, or wait for it, and call again."


class StoreFullError(StoreError):
    """There is no space for what was to be written. What was committed before stands; make space and continue the run."""


class StoreForkedError(StoreError):
    """The store's file was open when this process was forked, and cannot be used on both sides of a fork."""

    def __init__(
        self,
        store: str,
        problem: str = (
            "the file was open when this process was forked, and SQLite cannot be used on both sides of a fork; start the process"
            " by spawn or forkserver, or open the store only after the fork"
        ),
    ) -> None:
        super().__init__(store, problem)


class StoreClosedError(StoreError):
    """The store was closed."""

    def __init__(self, store: str, problem: str = "it is closed; call open() to use it again") -> None:
        super().__init__(store, problem)


class StoreFormatError(StoreError):
    """What stands at the store's path is not a store of this engine. It is left untouched."""


class StoreVersionError(StoreError):
    """The store was written by a newer version of the engine. It is left untouched."""


class StoreDamagedError(StoreError):
    """The store's content is damaged."""
