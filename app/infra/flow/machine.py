"""The lifecycle of a run, decided without doing anything: told what happened, it says what changes and what may start.

Pure: no asyncio, no store, no clock (the time is an argument). Its caller commits the changes of a step, then tells its
events, then acts on what became ready.
"""

from __future__ import annotations

from array import array
from binascii import crc32
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto

from . import events as told
from .errors import IllegalTransitionError
from .graph import Graph
from .late_dataclass import dataclass
from .models import TERMINAL_STATES, AttemptResult, ExecutionState, Failure
from .records import AttemptRecord, Changes, RunRecord, TaskRecord
from .retry_manager import RetryPolicy, failed_by_interruption, failure_by_interruption, next_delay

NONE, SCHEDULED, RUNNING, SUCCESS, FAILED, SKIPPED, CANCELLED = ExecutionState


@dataclass(frozen=True, slots=True)
class Edge:
    """One legal move of a state."""

    source: ExecutionState
    target: ExecutionState
    reason: str
    """When it happens, and why it is allowed."""


TASK_EDGES: tuple[Edge, ...] = (
    Edge(SCHEDULED, RUNNING, "everything upstream is committed and a slot is free"),
    Edge(SCHEDULED, SKIPPED, "something upstream did not succeed, so its output will never come"),
    Edge(SCHEDULED, CANCELLED, "it, or the whole run, was cancelled before it began"),
    Edge(RUNNING, SUCCESS, "the attempt returned"),
    Edge(RUNNING, FAILED, "the attempt failed and no retry is left, or it was interrupted once too often"),
    Edge(RUNNING, SCHEDULED, "the attempt failed and a retry is left, or it was interrupted"),
    Edge(RUNNING, CANCELLED, "it, or the whole run, was cancelled while it ran"),
    Edge(SUCCESS, SCHEDULED, "manual retry: the only way in which a finished task runs again"),
    Edge(FAILED, SCHEDULED, "manual retry"),
    Edge(SKIPPED, SCHEDULED, "manual retry, of the task or of what kept it from running; or the graph has it again"),
    Edge(CANCELLED, SCHEDULED, "manual retry"),
)
"""Every legal move of a task."""

RUN_EDGES: tuple[Edge, ...] = (
    Edge(SCHEDULED, RUNNING, "somebody drives the run"),
    Edge(SCHEDULED, CANCELLED, "the run was cancelled while nobody drove it"),
    Edge(RUNNING, SUCCESS, "every task ended, and none failed or was cancelled"),
    Edge(RUNNING, FAILED, "every task ended, and one at least failed or was cancelled"),
    Edge(RUNNING, SCHEDULED, "the run was interrupted, and waits to be continued"),
    Edge(RUNNING, CANCELLED, "the run was cancelled"),
    Edge(SUCCESS, SCHEDULED, "manual retry of one of its tasks"),
    Edge(FAILED, SCHEDULED, "manual retry of one of its tasks"),
    Edge(CANCELLED, SCHEDULED, "manual retry of one of its tasks"),
)
"""Every legal move of a run."""

BY_ITSELF = "it was cancelled"
"""Why a task is CANCELLED that somebody meant; `BY_RUN` is why one is that stands in a run or subflow that somebody meant."""
BY_RUN = "its run was cancelled"
_GONE = "the flow's graph no longer has it"

_TASK_MOVES = frozenset((edge.source, edge.target) for edge in TASK_EDGES)
_RUN_MOVES = frozenset((edge.source, edge.target) for edge in RUN_EDGES)


class Verdict(Enum):
    """What a waiting task's upstreams decide for it."""

    WAIT = auto()
    RUN = auto()
    SKIP = auto()


def decide(pending: int, unsuccessful: bool) -> Verdict:
    """The rule by which a task starts: all its upstreams must succeed.

    Asked anew each time one of them ends, so that it can decide before all have.

    Args:
        pending: how many upstreams have not ended.
        unsuccessful: whether one ended without success.
    """
    if unsuccessful:
        return Verdict.SKIP
    return Verdict.WAIT if pending else Verdict.RUN


class Step:
    """What one turn of the engine's loop decides, over all runs of a tree: committed, told and acted on in that order.

    Args:
        heard: whether anybody listens: if not, the events that come with every task are not made.
    """

    __slots__ = ("changes", "delayed", "events", "finished", "heard", "ready")

    def __init__(self, heard: bool = True) -> None:
        self.changes = Changes()
        self.events: list[told.Event] = []
        self.ready: list[TaskRecord] = []
        """Tasks that may start now."""
        self.delayed: list[tuple[TaskRecord, float]] = []
        """Tasks that may start after so many seconds."""
        self.finished: list[RunMachine] = []
        """Runs that reached their end in this step."""
        self.heard = heard

    def __bool__(self) -> bool:
        return bool(self.changes)


def _whole(failure: Failure) -> Failure:
    return failure


def _spread(record: TaskRecord) -> float:
    """A number from 0 to below 1 that differs among runs, tasks and attempts: what jitter goes by.

    No chance is in it, so that the same decision comes out however often it is made.
    """
    drawn = crc32(f"{record.run_id}\0{record.task_id}\0{record.attempts}".encode("utf-8", "surrogatepass"))
    # Two checksums that lie close together still do so when the same end is put to both texts; their multiples do not. Without
    # that, tasks that were tried again at the same moment once would be so each time. (Knuth's multiplicative hashing.)
    return (drawn * 2654435761 & 0xFFFFFFFF) / 0x100000000


def _move_task(step: Step, record: TaskRecord, target: ExecutionState) -> None:
    if (record.state, target) not in _TASK_MOVES:
        raise IllegalTransitionError(f"Task {record.task_id!r}", record.state.value, target.value)
    record.state = target
    step.changes.tasks.append(record)


def _archive_attempt(step: Step, record: TaskRecord, result: AttemptResult) -> None:
    step.changes.attempts.append(
        AttemptRecord(
            record.run_id,
            record.task_id,
            record.position,
            record.attempts,
            record.try_number,
            result,
            record.started,
            record.ended,
            record.error,
            record.reason,
            record.logs,
        )
    )


class RunMachine:
    """The bookkeeping of one run: in-degree counters over its graph, and the legal moves of its records.

    Args:
        graph: the run's graph.
        run: its record; changed in place.
        tasks: its task records, in order of position; changed in place. Those that the graph does not know are kept
            as history and decide nothing.
        policies: the retry policy of each task of the graph.
        kept: makes of a failure what is stored and told of it.
    """

    def __init__(
        self,
        graph: Graph,
        run: RunRecord,
        tasks: Iterable[TaskRecord],
        policies: Mapping[str, RetryPolicy],
        kept: Callable[[Failure], Failure] = _whole,
    ) -> None:
        self.graph = graph
        self.run = run
        self.tasks = {record.task_id: record for record in tasks}
        self._policies = policies
        self._kept = kept
        self._records: list[TaskRecord] = []
        """By position in the graph, once the run has begun."""
        self._pending = array("I")
        """Of each of these that waits: how many of its upstreams have not ended."""
        self._open = 0
        """How many tasks of the graph have not ended."""

    def __repr__(self) -> str:
        return f"<RunMachine {self.run.flow_name!r} {self.run.id!r} {self.run.state}, {self._open} tasks open>"

    def is_done_with(self, record: TaskRecord) -> bool:
        """Whether all tasks that depend on one directly have ended."""
        followers = self.graph.followers(self.graph.position(record.task_id))
        return all(self._records[position].state in TERMINAL_STATES for position in followers)

    # --- the run ---

    def begin(self, step: Step, now: int) -> None:
        """Start the run, or continue it from wherever it stands.

        Tasks found RUNNING were cut off when their process died; they go back to SCHEDULED first, but for those that it died
        in too often: these have failed.
        """
        for record in self.tasks.values():
            if record.state is RUNNING:
                self._cut_off(step, record, now, died=True)
        self._move_run(step, RUNNING)
        if self.run.started is None:
            self.run.started = now
        self.run.ended = None
        step.events.append(told.RunStarted(self.run.flow_name, self.run.id, now))
        self._records = records = [self.tasks[task_id] for task_id in self.graph]
        ended = [record.state in TERMINAL_STATES for record in records]
        self._open = ended.count(False)
        self._pending = pending = self._count(ended)
        blocked = any(record.state in TERMINAL_STATES and record.state is not SUCCESS for record in records)
        for position, record in enumerate(records):
            if record.state is SCHEDULED and (blocked or not pending[position]):
                self._consider(step, position, record, now)
        self._finish_if_done(step, now)

    def _count(self, ended: list[bool]) -> array[int]:
        """How many upstreams of each task have not ended."""
        pending = self.graph.in_degrees()
        if True in ended:
            for position, is_over in enumerate(ended):
                if not is_over and pending[position]:
                    pending[position] = sum(not ended[other] for other in self.graph.dependencies(position))
        return pending

    def _consider(self, step: Step, position: int, record: TaskRecord, now: int) -> None:
        """What a waiting task's upstreams, as they stand, decide for it. For the beginning: later, each end is told."""
        upstream = (self._records[other] for other in self.graph.dependencies(position))
        blocker = next((other for other in upstream if other.state in TERMINAL_STATES and other.state is not SUCCESS), None)
        verdict = decide(self._pending[position], blocker is not None)
        if blocker is not None and verdict is Verdict.SKIP:
            self._skip(step, record, blocker, now)
            self._tell_downstream(step, record, now)
        elif verdict is Verdict.RUN:
            if record.due is not None and record.due > now:
                # A wall clock that was set back must not stretch the wait beyond what was decided when the attempt ended.
                ended = now if record.ended is None else record.ended
                step.delayed.append((record, min(record.due - now, record.due - ended) / 1e6))
            else:
                step.ready.append(record)

    def _tell_downstream(self, step: Step, ended: TaskRecord, now: int) -> None:
        """What the end of a task decides for those that wait for it, and, where one is skipped, for those behind it."""
        pending = self._pending
        news = [ended]
        for record in news:  # grows while it is walked
            unsuccessful = record.state is not SUCCESS
            for position in self.graph.followers(self.graph.position(record.task_id)):
                follower = self._records[position]
                if follower.state is not SCHEDULED:
                    continue
                pending[position] -= 1
                verdict = decide(pending[position], unsuccessful)
                if verdict is Verdict.RUN:
                    step.ready.append(follower)
                elif verdict is Verdict.SKIP:
                    self._skip(step, follower, record, now)
                    news.append(follower)

    def _finish_if_done(self, step: Step, now: int) -> None:
        if self._open == 0 and self.run.state is RUNNING:
            states = (self.tasks[task_id].state for task_id in self.graph)
            failed = any(state is FAILED or state is CANCELLED for state in states)  # by identity: there may be a million
            self._move_run(step, FAILED if failed else SUCCESS)
            self.run.ended = now
            step.finished.append(self)
            step.events.append(told.RunFinished(self.run.flow_name, self.run.id, now, self.run.state))

    def cancel(self, step: Step, now: int, reason: str = BY_RUN, logs: Mapping[str, str | None] | None = None) -> None:
        """Cancel the whole run, begun or not: every task that has not ended, and the run, which has ended by that.

        Args:
            step: takes the changes.
            now: the time.
            reason: why, in one line, as each of these tasks keeps it.
            logs: what attempts that were under way have logged, by task id, where that is known.

        Raises:
            IllegalTransitionError: it has ended already.
        """
        cancel_run(step, self.run, self.tasks.values(), now, reason, logs)
        self._open = 0
        step.finished.append(self)

    def interrupt(self, step: Step, now: int) -> None:
        """Stop an unfinished run so that it can be continued: what is in flight goes back to SCHEDULED.

        A task that must not run again by itself fails. What follows from that is decided when the run is continued: a run
        that ended here, in the middle of its parents' being stopped, could not tell them.
        """
        for record in self.tasks.values():
            if record.state is RUNNING:
                self._cut_off(step, record, now)
        if self.run.state is RUNNING:
            self._move_run(step, SCHEDULED)
            step.events.append(told.RunInterrupted(self.run.flow_name, self.run.id, now))

    # --- one task ---

    def start(self, step: Step, record: TaskRecord, now: int) -> None:
        """An attempt begins."""
        self._move(step, record, RUNNING)
        if record.started is not None:
            record.try_number += 1
        record.attempts += 1
        record.started = now
        record.ended = record.due = record.error = record.reason = record.logs = None
        if step.heard:
            step.events.append(told.TaskStarted(self.run.flow_name, self.run.id, now, record.task_id, record.try_number))

    def succeeded(self, step: Step, record: TaskRecord, output: str | None, logs: str | None, now: int) -> None:
        """The running attempt succeeded; what waited for it alone becomes ready."""
        self._move(step, record, SUCCESS)
        record.ended, record.output, record.logs = now, output, logs
        if step.heard:
            step.events.append(told.TaskSucceeded(self.run.flow_name, self.run.id, now, record.task_id, record.try_number))
        self._ended(step, record, now)

    def failed(self, step: Step, record: TaskRecord, failure: Failure, logs: str | None, now: int) -> None:
        """The running attempt failed: another one is scheduled, or the task has failed and what is downstream is skipped."""
        delay = next_delay(self._policies[record.task_id], record.failures, failure, _spread(record))
        failure = self._kept(failure)
        self._end_attempt(step, record, FAILED if delay is None else SCHEDULED)
        record.ended, record.logs = now, logs
        record.error, record.reason = failure.traceback, failure.summary
        where = (self.run.flow_name, self.run.id, now, record.task_id, record.try_number)
        if delay is not None:
            self._archive(step, record, AttemptResult.FAILED)
            record.due = now + round(delay * 1e6)
            step.events.append(told.TaskRetryScheduled(*where, failure.summary, delay))
            if delay > 0:
                step.delayed.append((record, delay))
            else:
                step.ready.append(record)
            return
        step.events.append(told.TaskFailed(*where, failure.summary))
        self._ended(step, record, now)

    def interrupted(self, step: Step, record: TaskRecord, now: int, logs: str | None = None) -> None:
        """The running attempt was cut off in an orderly way. It uses up no retry; but the task may forbid another attempt."""
        self._cut_off(step, record, now, logs)
        if record.state is FAILED:
            self._ended(step, record, now)

    def cancelled(self, step: Step, record: TaskRecord, now: int, logs: str | None = None, reason: str = BY_ITSELF) -> None:
        """Somebody cancelled the task, running or waiting; what is downstream of it is skipped, and the run goes on.

        Of a run that has not begun here, what follows is decided when it begins.

        Raises:
            IllegalTransitionError: the task has ended already.
        """
        _cancel_task(step, self.run, record, now, reason, logs)
        if self._records:
            self._ended(step, record, now)

    def withdraw(self, step: Step, record: TaskRecord, now: int) -> None:
        """The running attempt is not made after all, since the run is being stopped: no harm can have come of it."""
        self._put_back(step, record, now)

    def _ended(self, step: Step, record: TaskRecord, now: int) -> None:
        self._open -= 1
        self._tell_downstream(step, record, now)
        self._finish_if_done(step, now)

    def _cut_off(self, step: Step, record: TaskRecord, now: int, logs: str | None = None, died: bool = False) -> None:
        """What an interruption makes of the task; those that wait for it are told by the caller, or when the run begins."""
        crashes, failure = record.crashes, None
        # Not so a subflow whose run was begun: its task only waits for that, and the tasks inside count for themselves.
        if record.child_run_id is None and record.task_id in self.graph:
            crashes += died
            failure = failure_by_interruption(self._policies[record.task_id], crashes, died)
        self._put_back(step, record, now, logs, failure)
        record.crashes = crashes

    def _put_back(
        self, step: Step, record: TaskRecord, now: int, logs: str | None = None, failure: Failure | None = None
    ) -> None:
        """End the running attempt as interrupted; the task waits again, or has failed by that."""
        self._end_attempt(step, record, SCHEDULED if failure is None else FAILED)
        record.ended, record.logs = now, logs
        where = (self.run.flow_name, self.run.id, now, record.task_id, record.try_number)
        if failure is None:
            record.reason = "interrupted before it ended"
            step.events.append(told.TaskInterrupted(*where))
        else:
            record.error, record.reason = failure.traceback, failure.summary
            step.events.append(told.TaskFailed(*where, failure.summary))
        self._archive(step, record, AttemptResult.INTERRUPTED)
        record.interruptions += 1

    def _skip(self, step: Step, record: TaskRecord, blocker: TaskRecord, now: int) -> None:
        if blocker.state is FAILED:
            why = f"upstream task {blocker.task_id!r} failed"
        elif blocker.state is CANCELLED:
            why = f"upstream task {blocker.task_id!r} was cancelled"
        else:
            # A task that was skipped passes on why: the one that failed is what a reader needs, however far up it stands.
            why = blocker.reason or f"upstream task {blocker.task_id!r} did not succeed ({blocker.state})"
        self._mark_skipped(step, record, why, now)

    def _mark_skipped(self, step: Step, record: TaskRecord, why: str, now: int) -> None:
        self._move(step, record, SKIPPED)
        record.ended, record.due, record.reason = now, None, why
        self._open -= 1
        step.events.append(told.TaskSkipped(self.run.flow_name, self.run.id, now, record.task_id, record.try_number, why))

    # --- manual retry and a changed graph: for a run that nobody drives ---

    def reset(self, step: Step, task_ids: Iterable[str], now: int, keep_child: Iterable[str] = ()) -> None:
        """Set tasks back to SCHEDULED, as if they had not run; their attempts stay in the history.

        Args:
            step: takes the changes.
            task_ids: which; those that wait already stay as they are.
            now: the time.
            keep_child: subflow tasks among them that are to go on with the child run they have, instead of a new one.
        """
        kept = set(keep_child)
        for task_id in task_ids:
            record = self.tasks[task_id]
            if record.state is RUNNING:  # left behind by a process that died
                self._put_back(step, record, now)
            elif record.state is not SCHEDULED:
                if record.state is SUCCESS:
                    self._archive(step, record, AttemptResult.SUCCESS)
                elif record.state is FAILED:
                    interrupted = failed_by_interruption(record.reason)
                    self._archive(step, record, AttemptResult.INTERRUPTED if interrupted else AttemptResult.FAILED)
                self._move(step, record, SCHEDULED)
            else:
                step.changes.tasks.append(record)
            record.try_number = record.interruptions = record.crashes = 0
            record.started = record.ended = record.due = None
            record.output = record.error = record.reason = record.logs = None
            if task_id not in kept:
                record.input = record.child_run_id = None
            step.events.append(told.TaskReset(self.run.flow_name, self.run.id, now, task_id, 0))
        if self.run.state is not SCHEDULED:
            self._move_run(step, SCHEDULED)
            self.run.ended = None

    def reset_failed(self, step: Step, now: int, cancelled: bool = True) -> None:
        """Set back what did not succeed: how a subflow that failed is tried again, each subflow in it with the run it has.

        Args:
            step: takes the changes.
            now: the time.
            cancelled: whether also what was cancelled: so it is by a manual retry, and not by one that nobody asked for.
        """
        from .notes import reset_note  # late: few runs are set back

        stay = (SUCCESS, SCHEDULED) if cancelled else (SUCCESS, SCHEDULED, CANCELLED)
        affected = [task_id for task_id in self.graph if self.tasks[task_id].state not in stay]
        step.changes.note(reset_note(self.run, map(self.tasks.__getitem__, affected), now))
        self.reset(
            step,
            affected,
            now,
            keep_child=[task_id for task_id in self.graph if self.tasks[task_id].state in (FAILED, CANCELLED)],
        )

    def adopt(self, step: Step, graph_text: str, new: Iterable[TaskRecord], now: int) -> None:
        """Take up a changed graph: add records for its new tasks, and close those that it no longer has.

        What has ended keeps its state and result; a task that is gone and had not ended is SKIPPED.
        """
        for record in new:
            self.tasks[record.task_id] = record
            step.changes.tasks.append(record)
        for task_id, record in self.tasks.items():
            if task_id in self.graph:
                if record.state is SKIPPED and record.reason == _GONE:
                    self._move(step, record, SCHEDULED)
                    record.ended = record.reason = None
            elif record.state not in TERMINAL_STATES:
                if record.state is RUNNING:
                    self._put_back(step, record, now)
                self._mark_skipped(step, record, _GONE, now)
        self.run.graph = graph_text
        step.changes.runs.append(self.run)

    # --- moving ---

    _move = staticmethod(_move_task)
    _archive = staticmethod(_archive_attempt)

    def _end_attempt(self, step: Step, record: TaskRecord, target: ExecutionState) -> None:
        # The table lets finished tasks go back to SCHEDULED, but for a reset: a late outcome must not wake one.
        if record.state is not RUNNING:
            raise IllegalTransitionError(f"Task {record.task_id!r}", record.state.value, target.value)
        self._move(step, record, target)

    def _move_run(self, step: Step, target: ExecutionState) -> None:
        if self.run.state is not target:
            _check_run(self.run, target)
            self.run.state = target
        step.changes.runs.append(self.run)


# --- cancelling: by the records alone, so that it takes neither the flow nor an unchanged graph ---


def _check_run(run: RunRecord, target: ExecutionState) -> None:
    if (run.state, target) not in _RUN_MOVES:
        raise IllegalTransitionError(f"Run {run.id!r}", run.state.value, target.value)


def cancel_run(
    step: Step,
    run: RunRecord,
    tasks: Iterable[TaskRecord],
    now: int,
    reason: str = BY_RUN,
    logs: Mapping[str, str | None] | None = None,
) -> None:
    """Cancel a run that has not ended; see `RunMachine.cancel`."""
    _check_run(run, CANCELLED)
    for record in tasks:
        if record.state not in TERMINAL_STATES:
            _cancel_task(step, run, record, now, reason, logs.get(record.task_id) if logs else None)
    run.state, run.ended = CANCELLED, now
    step.changes.runs.append(run)
    step.events.append(told.RunFinished(run.flow_name, run.id, now, CANCELLED))


def cancel_task(step: Step, run: RunRecord, record: TaskRecord, now: int, reason: str = BY_ITSELF) -> None:
    """Cancel a task that has not ended, of a run that nobody drives: what follows is decided when somebody does."""
    _cancel_task(step, run, record, now, reason, None)


def _cancel_task(step: Step, run: RunRecord, record: TaskRecord, now: int, reason: str, logs: str | None) -> None:
    ran = record.state is RUNNING
    _move_task(step, record, CANCELLED)
    record.due, record.reason = None, reason
    record.ended = now
    if ran:
        record.logs = logs
        _archive_attempt(step, record, AttemptResult.CANCELLED)
    step.events.append(told.TaskCancelled(run.flow_name, run.id, now, record.task_id, record.try_number, reason))
