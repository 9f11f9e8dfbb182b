"""Says in sentences why a task of a stored run waits, was skipped, failed, was retried, or whatever else has become of it.

Reads a store; changes nothing, and takes no lease. Must not know how runs are driven.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field

from .clock import Clock, SystemClock
from .definitions import FlowDefinition, TaskDefinition, check_name
from .errors import (
    InvalidNameError,
    RunMismatchError,
    RunNotFoundError,
    UnknownTaskError,
    closest,
    moment_text,
    printable,
    shortened,
)
from .late_dataclass import dataclass
from .looking import Node, StoredRun, deciding, nodes_of
from .map_items import split_path, whole_of
from .models import TERMINAL_STATES, Attempt, AttemptResult, ExecutionState, TaskType
from .records import TaskRecord
from .redaction import Redact, redacted
from .retry_manager import NO_RETRY, RetryPolicy, failed_by_interruption, failure_by_interruption
from .steps import GONE
from .store import Store, outermost
from .trigger_rules import FAILED, SKIPPED, SUCCEEDED, TriggerRule, Verdict
from .views import Workers, to_moment
from .views import attempts as attempts_of

NONE, SCHEDULED, RUNNING, SUCCESS, FAILED_STATE, SKIPPED_STATE, CANCELLED = ExecutionState

MOST_NAMES = 5
"""Tasks that a sentence names; of more it says how many."""
MOST_ATTEMPTS = 10
"""Attempts that are told one by one; of more, the first and the last."""
MOST_CHAIN = 6
"""Tasks on the way to a cause that are named."""

_ASKS = {
    TriggerRule.ALL_SUCCESS: "all its upstreams succeed",
    TriggerRule.ALL_FAILED: "all its upstreams fail",
    TriggerRule.ALL_DONE: "all its upstreams have ended, however",
    TriggerRule.ALL_SKIPPED: "all its upstreams are skipped",
    TriggerRule.ONE_SUCCESS: "at least one upstream succeeds",
    TriggerRule.ONE_FAILED: "at least one upstream fails",
    TriggerRule.ONE_DONE: "at least one upstream succeeds or fails",
    TriggerRule.NONE_FAILED: "no upstream fails",
    TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: "no upstream fails and at least one succeeds",
    TriggerRule.NONE_SKIPPED: "no upstream is skipped",
    TriggerRule.ALL_DONE_MIN_ONE_SUCCESS: "all its upstreams have ended and at least one succeeded",
    TriggerRule.ALWAYS: "nothing",
}
STATES = {
    SCHEDULED: "is scheduled",
    RUNNING: "is running",
    SUCCESS: "succeeded",
    FAILED_STATE: "failed",
    CANCELLED: "was cancelled",
}
"""How a sentence says where a run stands."""
_COUNTS_AS = {SUCCEEDED: "succeeded", FAILED: "failed", SKIPPED: "was skipped"}


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """Why a task is as it is, in sentences; its text has one to a line."""

    run_id: str
    task_id: str
    """The task by its dotted path, as it was asked for."""
    state: ExecutionState
    """Where the task stands; NONE where the run does not have it yet."""
    sentences: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def __repr__(self) -> str:
        return f"<Explanation of task {self.task_id!r} of run {self.run_id!r}, {self.state}, {len(self.sentences)} sentences>"


def explain(definition: FlowDefinition, store: Store, clock: Clock, run_id: str, path: str) -> Explanation:
    """See `AsyncFlow.explain`."""
    return _Explainer(definition, store, clock, run_id, path).explanation()


def explain_stored(store: Store, run_id: str, task_id: str) -> Explanation:
    """Why a task waits, was skipped, failed or was retried, by the store alone: for those who do not have the flow.

    As `AsyncFlow.explain`, but what only the flow knows (its retry policies, tasks that are new in it) is not told, and texts go
    through no `redact` but that which they went through when they were stored.

    Args:
        store: where the run is.
        run_id: the run.
        task_id: the task by its dotted path.

    Raises:
        RunNotFoundError: there is no such run.
        UnknownTaskError: it has no such task; the error suggests a near name.
    """
    return _Explainer(None, store, SystemClock(), check_name("run id", run_id), task_id).explanation()


def read(store: Store, flow: FlowDefinition | None, run_id: str) -> StoredRun:
    """A stored run beside the graph that it was made with; where nobody said that, beside the flow's.

    Raises:
        RunNotFoundError: there is no such run.
    """
    run = store.read_run(run_id)
    text = run.graph or (flow.graph_text() if flow is not None else "")
    return StoredRun(run, store.read_tasks(run_id), store.read_attempts(run_id), nodes_of(text))


def definition_of(flow: FlowDefinition | None, task_id: str) -> TaskDefinition | None:
    """How a flow declares a task, or that which an item belongs to."""
    if flow is None:
        return None
    return flow.tasks.get(task_id) or flow.tasks.get(whole_of(task_id) or task_id)


def owner_of(store: Store, run_id: str) -> str | None:
    """Who drives a run; None where nobody does, or the store cannot say."""
    ask = getattr(store, "owner_of", None)  # a store of somebody's own may not know
    found: str | None = None if ask is None else ask(outermost(store, run_id))
    return found


def names(task_ids: Sequence[str], most: int = MOST_NAMES) -> str:
    """Tasks as a sentence names them: a few, and how many more."""
    shown = [repr(task_id) for task_id in task_ids[:most]]
    if len(task_ids) > most:
        return f"{', '.join(shown)} and {len(task_ids) - most:,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def span_text(microseconds: int) -> str:
    """A length of time for people: `20 ms`, `1.5 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = max(0, microseconds) / 1e6
    if seconds < 0.1:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"


def _times(number: int, what: str = "attempt") -> str:
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


class _Explainer:
    """Tells of one task.

    Args:
        flow: the flow of the run that was asked for; None where only the store is there.
        store: where that is.
        clock: the time.
        run_id: the run.
        path: the task.
    """

    def __init__(self, flow: FlowDefinition | None, store: Store, clock: Clock, run_id: str, path: str) -> None:
        self._store = store
        self._run_id = run_id
        self._path = path
        self._flow: FlowDefinition | None = flow
        self._hooks: tuple[Redact, ...] = () if flow is None or flow.redact is None else (flow.redact,)
        self._now = clock.now()
        self._told: list[str] = []
        self._root = self._run = read(store, flow, run_id)
        if flow is not None and self._run.run.flow_name != flow.name:
            raise RunMismatchError(run_id, self._run.run.flow_name, flow.name)
        self._root_flow = flow
        self._prefix = ""
        self._owner = owner_of(store, run_id)

    def __repr__(self) -> str:
        return f"<_Explainer of {self._path!r} in {self._run!r}>"

    def explanation(self) -> Explanation:
        """Go down the path, and tell of what is there."""
        if not isinstance(self._path, str):
            raise InvalidNameError("task id", self._path, f"it must be a string, not {type(self._path).__name__}")
        *outer, task_id = split_path(self._path)
        for number, name in enumerate(outer):
            record = self._record(name)
            definition = definition_of(self._flow, name)
            if record is None or (record.child_run_id is None and record.type is TaskType.FLOW):
                return self._not_begun(definition, name, record, [*outer[number + 1 :], task_id])
            if record.child_run_id is None:
                raise UnknownTaskError(f"Task {name!r} of run {self._run.run.id!r} is no subflow, so it", self._path)
            self._around(name, record)
            self._enter(record.child_run_id, definition, name)
        record = self._record(task_id)
        if record is None:
            self._absent(task_id)
            return self._done(NONE)
        self._tell(task_id, record)
        return self._done(record.state)

    def _done(self, state: ExecutionState) -> Explanation:
        return Explanation(self._run_id, self._path, state, tuple(printable(sentence) for sentence in self._told))

    def _say(self, sentence: str) -> None:
        self._told.append(sentence)

    def _text(self, text: str | None) -> str:
        """A user's text in one line, without its secrets."""
        line = " ".join((text or "no reason was recorded").split())
        return redacted(line, self._hooks)

    # --- the way there ---

    def _record(self, task_id: str) -> TaskRecord | None:
        """A task's record; None where the run does not have it, but its flow does, or may come to."""
        run = self._run
        record = run.tasks.get(task_id)
        if record is not None:
            return record
        if self._flow is not None and task_id in self._flow.tasks:
            return None
        whole = run.tasks.get(run.whole_of(task_id) or "")
        if whole is not None and whole.state not in TERMINAL_STATES and run.items(whole.task_id) is None:
            return None
        raise UnknownTaskError(f"Run {run.run.id!r}", task_id, closest(task_id, run.tasks))

    def _enter(self, run_id: str, definition: TaskDefinition | None, name: str) -> None:
        child = definition.child if definition is not None else None
        self._flow = child
        if child is not None and child.redact is not None:
            self._hooks = (child.redact, *self._hooks)
        self._prefix += f"{name}."
        self._run = read(self._store, child, run_id)

    def _around(self, name: str, record: TaskRecord) -> None:
        """What keeps a subflow from going on keeps all that is in it."""
        if record.state is not RUNNING:
            what = "waits to go on" if record.state is SCHEDULED and not self._is_delayed(record) else self._brief(name)
            self._say(f"The subflow {self._prefix + name!r} around it {what}.")

    def _not_begun(
        self, definition: TaskDefinition | None, name: str, record: TaskRecord | None, rest: Sequence[str]
    ) -> Explanation:
        inside = definition
        for step in rest:
            flow = inside.child if inside is not None else None
            inside = definition_of(flow, step)
            if inside is None:
                where = f"Flow {flow.name!r}" if flow is not None else f"Task {name!r} is no subflow, so it"
                raise UnknownTaskError(where, step, closest(step, flow.tasks) if flow is not None else None)
        self._say(f"{self._path!r} does not exist yet: the subflow {self._prefix + name!r} that it is part of has not begun.")
        if record is None:
            self._absent(name)
        else:
            self._tell(name, record)
        return self._done(NONE)

    def _absent(self, task_id: str) -> None:
        """The flow has a task that the run has not."""
        run = self._run
        whole = run.whole_of(task_id)
        if whole is not None and (self._flow is None or task_id not in self._flow.tasks):
            self._say(f"Whether there is a {task_id!r} is not known yet: {whole!r} has no list of items so far.")
            self._tell(whole, run.tasks[whole])
            return
        self._say(f"Run {run.run.id!r} has no task {task_id!r}: the flow {run.run.flow_name!r} got it after the run was made.")
        if self._root.run.state in TERMINAL_STATES:
            self._say(
                f"The run has ended ({self._root.run.state}); a new run has it, and so has this one after {self._retrying()}."
            )
        else:
            self._say(f"{self._call(adopt=True)} adds it.")

    def _call(self, adopt: bool = False) -> str:
        root = outermost(self._store, self._run_id)
        return f"run_until_complete({root!r}{', adopt_graph=True' if adopt else ''})"

    def _retrying(self) -> str:
        return f"flow.retry({self._run_id!r}, ..., adopt_graph=True)"

    # --- what is told of a task ---

    def _tell(self, task_id: str, record: TaskRecord) -> None:
        path = self._prefix + task_id
        {
            SCHEDULED: self._scheduled,
            RUNNING: self._running,
            SUCCESS: self._succeeded,
            FAILED_STATE: self._failed,
            SKIPPED_STATE: self._skipped,
            CANCELLED: self._cancelled,
        }[record.state](task_id, record)
        self._inside(task_id, record)
        self._attempts(task_id, record)
        if record.state is SKIPPED_STATE:
            self._say(f"flow.retry({self._run_id!r}, {path!r}) runs it, if what is upstream lets it.")
        elif record.state in (FAILED_STATE, CANCELLED):
            self._say(f"flow.retry({self._run_id!r}, {path!r}) runs it again, with everything downstream.")

    def _name(self, task_id: str) -> str:
        return repr(self._prefix + task_id)

    def _node(self, task_id: str) -> Node:
        return self._run.node_of(task_id) or Node()

    def _policy(self, task_id: str) -> RetryPolicy:
        definition = definition_of(self._flow, task_id)
        return NO_RETRY if definition is None else definition.retry

    def _since(self, moment: int | None) -> str:
        return "" if moment is None else f" since {moment_text(moment)} (for {span_text(self._now - moment)})"

    def _at(self, moment: int | None) -> str:
        return "" if moment is None else f" at {moment_text(moment)}"

    def _brief(self, task_id: str) -> str:
        """What has become of another task, in a few words that follow its name."""
        record = self._run.tasks.get(task_id)
        if record is None:
            return "is not in the run"
        if record.state is RUNNING:
            return f"is running{self._since(record.started)}"
        if record.state is SCHEDULED:
            return f"waits for its next attempt, due{self._at(record.due)}" if self._is_delayed(record) else "has not begun"
        if record.state is SUCCESS:
            return "succeeded"
        if record.state is CANCELLED:
            return "was cancelled"
        what = "failed" if record.state is FAILED_STATE else "was skipped"
        return f"{what} ({self._text(record.reason)})" if record.reason else what

    def _is_delayed(self, record: TaskRecord) -> bool:
        return record.due is not None and record.due > self._now

    # --- waiting ---

    def _scheduled(self, task_id: str, record: TaskRecord) -> None:
        me, run = self._name(task_id), self._run
        verdict = run.verdict(task_id)
        branch = run.unchosen_by(task_id) if record.started is None else None
        gone = task_id not in run.nodes and run.whole_of(task_id) is None
        if run.run.state in TERMINAL_STATES:
            self._say(f"{me} has not run, and will not: its run {STATES[run.run.state]}.")
            return
        if gone:
            self._say(f"{me} will not run: the run's graph does not have it.")
        elif branch is not None:
            self._say(f"{me} has not run and will be skipped: branch {branch!r} did not choose it.")
        elif verdict is Verdict.WAIT:
            self._waits(task_id)
        elif verdict is Verdict.RUN:
            self._ready(task_id, record)
        else:
            self._say(f"{me} has not run, and will be skipped when the run goes on: {self._why_skipped(task_id)}.")
        self._who_drives()

    def _waits(self, task_id: str) -> None:
        me, run, node = self._name(task_id), self._run, self._node(task_id)
        pending = run.pending(task_id)
        self._say(f"{me} waits for {names(pending)}, which {'has' if len(pending) == 1 else 'have'} not ended.")
        gate = node.map_over if run.whole_of(task_id) is None else None
        if gate is not None and gate in pending:
            self._say(f"It is mapped over the output of {gate!r}: its items are made when that has its list.")
        others = [other for other in pending if other != gate]
        if others:
            self._say(f"Its trigger rule {node.rule} asks that {_ASKS[node.rule]}.")
        branches = [other for other in others if other in run.nodes and run.nodes[other].branch]
        if branches:
            self._say(
                f"{names(branches)} {'is a branch and has' if len(branches) == 1 else 'are branches and have'} yet to choose."
            )
        front = run.frontier(task_id, MOST_NAMES + 1)
        shown = "; ".join(f"{self._name(other)} {self._brief(other)}" for other in front[:MOST_NAMES])
        if shown:
            self._say(f"What it comes down to: {shown}{'; and others' if len(front) > MOST_NAMES else ''}.")

    def _ready(self, task_id: str, record: TaskRecord) -> None:
        me = self._name(task_id)
        if self._is_delayed(record):
            assert record.due is not None
            self._say(
                f"{me} waits for its next attempt, which is due{self._at(record.due)} (in {span_text(record.due - self._now)})"
                f"{f', since the last one failed: {self._text(record.reason)}' if record.reason else ''}."
            )
            return
        upstream = self._run.asked(task_id) if self._run.whole_of(task_id) is not None else self._node(task_id).upstream
        why = "nothing upstream keeps it" if upstream else "it waits for no other task"
        if self._owner is None:
            self._say(f"{me} has not begun, though it is ready: {why}.")
            return
        definition = definition_of(self._flow, task_id)
        pool = definition.options.pool if definition is not None else None
        places = ["max_concurrency", *([f"the pool {pool!r}"] if pool is not None else []), "its executor"]
        self._say(f"{me} is ready ({why}) and waits for a free slot: of {', '.join(places[:-1])} or {places[-1]}.")

    def _who_drives(self) -> None:
        """Whether anybody goes on with the run, and if not, what to call."""
        root = self._root.run
        if self._owner is not None:
            self._say(f"The run is driven by {self._owner}.")
            return
        if root.state in TERMINAL_STATES:
            return
        changed = self._root_flow is not None and any(self._root_flow.changes_since(self._root.run.graph))
        call = self._call(changed)
        if root.state is RUNNING:
            why = "Nobody drives the run: whoever did is gone"
        elif root.started is None:
            why = "Nobody has begun the run"
        else:
            why = "Nobody drives the run: it was interrupted, or set back"
        self._say(f"{why}. Call {call} to go on{'; the graph of the flow has changed since' if changed else ''}.")

    # --- running, and ended ---

    def _running(self, task_id: str, record: TaskRecord) -> None:
        me, policy = self._name(task_id), self._policy(task_id)
        attempt = "" if record.attempts < 2 else f", in its attempt {record.attempts}"
        if self._owner is not None:
            self._say(f"{me} is running{self._since(record.started)}{attempt}.")
            return
        self._say(f"{me} began{self._at(record.started)}{attempt}, and was cut off: whoever drove the run is gone.")
        is_whole = self._run.is_whole(task_id)
        is_shell = record.child_run_id is not None or (is_whole and self._run.items(task_id) is not None)
        failure = None if is_shell else failure_by_interruption(policy, record.crashes + 1, died=True, is_whole=is_whole)
        if failure is not None:
            self._say(f"It will not run again, but fail when the run goes on: {failure.message}.")
        elif not is_shell:
            self._say("It runs again when the run goes on.")
        self._who_drives()

    def _succeeded(self, task_id: str, record: TaskRecord) -> None:
        made = self._since_reset(record)
        how = "at its first attempt" if made <= 1 else f"after {_times(made)}"
        if sum(each.try_number == 0 for each in (record, *self._run.archived.get(task_id, ()))) > 1:
            how += " since it was set back"
        took = "" if record.started is None or record.ended is None else f", in {span_text(record.ended - record.started)}"
        if self._run.is_whole(task_id):  # only its items have attempts
            how, took = "with all its items", ""
        self._say(f"{self._name(task_id)} succeeded{self._at(record.ended)} {how}{took}.")
        if self._node(task_id).branch:
            chosen = self._run.chosen(task_id) or frozenset()
            direct = [other for other in self._run.graph.downstream(task_id) if other in chosen]
            self._say(f"It is a branch, and chose {names(direct)}." if direct else "It is a branch, and chose none.")

    def _failed(self, task_id: str, record: TaskRecord) -> None:
        me, policy = self._name(task_id), self._policy(task_id)
        self._say(f"{me} failed{self._at(record.ended)}: {self._text(record.reason)}.")
        if failed_by_interruption(record.reason):
            self._say("That is no error of an attempt: it was cut off, and may not run again by itself.")
        elif record.started is not None and not self._run.is_whole(task_id):
            self._say(self._retries(record, policy))

    def _retries(self, record: TaskRecord, policy: RetryPolicy) -> str:
        """Whether retries were left, and why they were not made."""
        if record.failures > policy.max_retries:
            if not policy.max_retries:
                return "It had no retries (max_retries=0)."
            return f"Its retries are used up: {_times(record.failures)} failed (max_retries={policy.max_retries})."
        left = policy.max_retries + 1 - record.failures
        said = f"It was not tried again, though {left:,} of {policy.max_retries:,} retries {_was(left)} left"
        kind = (record.reason or "").partition(":")[0]
        if kind.rpartition(".")[2] == "NonRetryableError":
            return f"{said}: {kind} says that no attempt can help."
        # A derived class is meant as well, but only its own name was kept.
        if any(kind == name.removeprefix("builtins.").removeprefix("__main__.") for name in policy.give_up_on):
            return f"{said}: its retry policy gives up on {kind}."
        if policy.give_up_on or policy.retry_on is not None:
            return f"{said}: its retry policy (retry_on, give_up_on) does not try again after a {kind}."
        return f"{said}: what was raised said that no attempt can help, or its retries were changed since."

    def _skipped(self, task_id: str, record: TaskRecord) -> None:
        me, run = self._name(task_id), self._run
        when = self._at(record.ended)
        branch = run.branch_that_skipped(record)
        if record.reason == GONE:
            self._say(f"{me} was skipped{when}: {GONE}.")
        elif branch is not None:
            chosen = [other for other in run.graph.downstream(branch) if other in (run.chosen(branch) or ())]
            instead = f"; it chose {names(chosen)}" if chosen else "; it chose none"
            self._say(f"{me} was skipped{when}: branch {branch!r} did not choose it{instead}.")
        elif run.skipped_itself(record):
            self._say(f"{me} was skipped{when} by its own word: {self._text(record.reason)}.")
        elif run.verdict(task_id) in (Verdict.SKIP, Verdict.SKIP_FAILED):
            self._say(f"{me} was skipped{when}: {self._why_skipped(task_id)}.")
            self._chain(task_id)
        else:
            self._say(f"{me} was skipped{when}: {self._text(record.reason)}.")
            if self._run.node_of(task_id) is not None:
                self._say("What is upstream has changed since; it stays skipped until somebody retries it.")

    def _why_skipped(self, task_id: str) -> str:
        """The verdict of a task's rule, spelled out."""
        run, node = self._run, self._node(task_id)
        over = node.map_over if run.whole_of(task_id) is None else None
        asked = run.asked(task_id)
        outcomes = [run.outcome(other) for other in asked]
        decisive = deciding(node.rule, outcomes)
        by = [other for other, outcome in zip(asked, outcomes) if outcome == decisive]
        if over is not None and (decisive is None or run.outcome(over) in (FAILED, SKIPPED)) and run.items(over) is None:
            return f"it is mapped over {over!r}, which gave no list, since it {self._counts(over)}"
        said = "; ".join(f"{other!r} {self._counts(other)}" for other in by[:MOST_NAMES])
        more = f"; and so for {len(by) - MOST_NAMES:,} more" if len(by) > MOST_NAMES else ""
        return f"its trigger rule {node.rule} asks that {_ASKS[node.rule]}, and {said}{more}"

    def _counts(self, task_id: str) -> str:
        record, outcome = self._run.tasks.get(task_id), self._run.outcome(task_id)
        if record is None or outcome is None:
            return "has not ended"
        if record.state is CANCELLED:
            return "was cancelled, which counts as failed"
        if record.state is SKIPPED_STATE and outcome == FAILED:
            return "was skipped because of a failure, which counts as failed"
        return _COUNTS_AS[outcome]

    def _chain(self, task_id: str) -> None:
        """The way up to the task that is the cause, told from there."""
        way = list(self._run.causes(task_id))
        if len(way) < 2:
            return
        cause, *after = way[::-1]
        told = [f"{self._name(cause)} {self._brief(cause)}", *(f"so {self._name(other)} was skipped" for other in after)]
        self._say(f"The cause: {shortened(told, ', ', MOST_CHAIN)}.")

    def _cancelled(self, task_id: str, record: TaskRecord) -> None:
        ran = "while it ran" if record.started is not None else "before it began"
        self._say(f"{self._name(task_id)} was cancelled{self._at(record.ended)}, {ran}: {self._text(record.reason)}.")

    # --- what stands inside it ---

    def _inside(self, task_id: str, record: TaskRecord) -> None:
        if self._run.is_whole(task_id):
            items = self._run.items(task_id)
            if items is not None:
                self._say(self._count(f"Of its {_times(len(items), 'item')}", [self._run.tasks[item] for item in items]))
        elif record.child_run_id is not None:
            try:
                run, tasks = self._store.read_run(record.child_run_id), self._store.read_tasks(record.child_run_id)
            except RunNotFoundError:
                self._say(f"Its own run {record.child_run_id!r} is not in the store any more.")
                return
            self._say(f"Its own run {run.id!r} {STATES[run.state]}.")
            self._say(self._count(f"Of the {_times(len(tasks), 'task')} in it", tasks))

    def _count(self, begin: str, records: Iterable[TaskRecord]) -> str:
        by_state: dict[ExecutionState, list[TaskRecord]] = {}
        for record in records:
            by_state.setdefault(record.state, []).append(record)
        words = {
            SUCCESS: "succeeded",
            FAILED_STATE: "failed",
            CANCELLED: "cancelled",
            SKIPPED_STATE: "skipped",
            RUNNING: "running",
        }
        words[SCHEDULED] = "waiting"
        parts: list[str] = []
        for state, word in words.items():
            found = by_state.get(state, [])
            if found:
                causes = [f"{record.task_id}: {self._text(record.reason)}" for record in found[:3]]
                if len(found) > 3:
                    causes.append(f"and {len(found) - 3:,} more")
                parts.append(
                    f"{len(found):,} {word} ({'; '.join(causes)})" if state is FAILED_STATE else f"{len(found):,} {word}"
                )
        return f"{begin}, {', '.join(parts)}." if parts else f"{begin} there is nothing to tell."

    # --- its attempts ---

    def _since_reset(self, record: TaskRecord) -> int:
        return record.try_number + 1 if record.started is not None else 0

    def _attempts(self, task_id: str, record: TaskRecord) -> None:
        """Each attempt with how it ended, where there was more than the one that was told of."""
        made = attempts_of([record], self._run.archived.get(task_id, ()), self._store.codec, Workers(()))
        over = [attempt for attempt in made if attempt.result is not AttemptResult.RUNNING]
        if not over or (len(made) == 1 and record.state in TERMINAL_STATES):
            return
        told = list(self._each(over, record))
        if len(told) > MOST_ATTEMPTS:
            half = MOST_ATTEMPTS // 2
            told = [
                *told[:half],
                f"({len(told) - 2 * half:,} more are left out here: store.list_attempts(...) has them.)",
                *told[-half:],
            ]
        for sentence in told:
            self._say(sentence)

    def _each(self, made: Sequence[Attempt], record: TaskRecord) -> Iterator[str]:
        before: Attempt | None = None
        for attempt in made:
            sentence = f"Attempt {attempt.number}"
            began, ended = to_moment(attempt.start_date), to_moment(attempt.end_date)
            if began is not None:
                sentence += f", begun at {moment_text(began)}"
                if before is not None and attempt.try_number == 0:
                    sentence += " after the task was set back"
                elif before is not None and before.end_date is not None and attempt.start_date is not None:
                    waited = began - (to_moment(before.end_date) or began)
                    sentence += f" ({span_text(waited)} after the one before)" if waited > 0 else ""
                sentence += ","
            result = {AttemptResult.SUCCESS: "succeeded", AttemptResult.FAILED: "failed"}.get(attempt.result)
            sentence += f" {result or f'was {attempt.result}'}"
            if began is not None and ended is not None:
                sentence += f" after {span_text(ended - began)}"
            if attempt.reason and attempt.result is not AttemptResult.SUCCESS:
                sentence += f": {self._text(attempt.reason)}"
            yield f"{sentence}."
            before = attempt
        if record.attempts and record.started is None and record.state is SCHEDULED:
            yield "After that the task was set back, and begins anew."
