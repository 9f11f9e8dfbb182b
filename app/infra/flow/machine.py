"""The lifecycle of a run, decided without doing anything: told what happened, it says what changes and what may start.

Pure: no asyncio, no store, no clock (the time is an argument). Its caller commits the changes of a step, then tells its
events, then acts on what became ready.
"""

from __future__ import annotations

from array import array
from binascii import crc32
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from . import events as told
from .errors import IllegalTransitionError
from .graph import Graph
from .models import TERMINAL_STATES, AttemptResult, ExecutionState, Failure
from .records import RunRecord, TaskRecord
from .retry_manager import RetryPolicy, failed_by_interruption, failure_by_interruption, next_delay
from .steps import BY_ITSELF, BY_RUN, GONE, NOT_CHOSEN, Step, archive_attempt, cancel_one, cancel_run, check_run, move_task
from .task_rules import PLAIN, TaskRules
from .trigger_rules import FAILED as AS_FAILED
from .trigger_rules import RUN, SKIP_FAILED, SUCCEEDED, WAIT, TriggerRule, Verdict
from .trigger_rules import SKIPPED as AS_SKIPPED
from .waiting import Waiting, chosen_by

if TYPE_CHECKING:
    from .map_items import Keys
    from .maps import Mapped, Maps

NONE, SCHEDULED, RUNNING, SUCCESS, FAILED, SKIPPED, CANCELLED = ExecutionState

_USUAL = TriggerRule.ALL_SUCCESS


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


class RunMachine:
    """The bookkeeping of one run: in-degree counters over its graph, and the legal moves of its records.

    Args:
        graph: the run's graph.
        run: its record; changed in place.
        tasks: its task records, in order of position; changed in place. Those that the graph does not know are kept
            as history and decide nothing.
        policies: the retry policy of each task of the graph.
        kept: makes of a failure what is stored and told of it.
        rules: by what tasks start, of those that do not simply wait for the success of all that they depend on.
    """

    def __init__(
        self,
        graph: Graph,
        run: RunRecord,
        tasks: Iterable[TaskRecord],
        policies: Mapping[str, RetryPolicy],
        kept: Callable[[Failure], Failure] = _whole,
        rules: Mapping[str, TaskRules] = MappingProxyType({}),
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
        self._rules = rules
        self._waiting: dict[int, Waiting] = {}
        """By position: those that start by another rule than most, or have met an upstream that was skipped."""
        self._soft: set[int] = set()
        """The positions of tasks that were skipped, but not because of a failure."""
        self._branches = frozenset(graph.position(task_id) for task_id, said in rules.items() if said.branch)
        # Of most runs there are none, and nothing is asked of them.
        self.maps = self._find_maps()

    def __repr__(self) -> str:
        return f"<RunMachine {self.run.flow_name!r} {self.run.id!r} {self.run.state}, {self._open} tasks open>"

    def _find_maps(self) -> Maps | None:
        if any(said.map_over is not None for said in self._rules.values()):
            from .maps import Maps  # late: few runs have mapped tasks

            return Maps(self, self._rules, self.graph.order())
        return None

    def is_done_with(self, record: TaskRecord) -> bool:
        """Whether all tasks that depend on one directly have ended."""
        mapped = self._mapped_of(record)
        if mapped is not None:
            assert self.maps is not None
            return self.maps.is_done_with(mapped, record)
        if self._branches and self.graph.position(record.task_id) in self._branches:
            return False  # what it chose counts again when the subflow that it stands in is tried again
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
        # Of a subflow that goes on: what was set back may be skipped for another reason now.
        self._soft.clear()
        self._waiting.clear()
        if blocked:
            self._classify()
        if self.maps is not None:
            self.maps.begin(step, now)
        for position in self._by_rules():
            if records[position].state is SCHEDULED:
                self._waiting[position] = self._waiting_at(position)
        if blocked:  # all that ended before is counted before anybody is told of what ends now
            for position, record in enumerate(records):
                if record.state is SCHEDULED and any(other.state is not SUCCESS for other in self._ended_upstream(position)):
                    self._waiting[position] = self._waiting_at(position)
        for position in sorted(self._branches):
            if records[position].state is SUCCESS:
                self._tell_downstream(step, self._leave_out(step, position, now), now)
        waiting = self._waiting
        for position, record in enumerate(records):
            if record.state is SCHEDULED and (not pending[position] or (waiting and position in waiting)):
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

    # --- what waits ---

    def _by_rules(self) -> Iterator[int]:
        """The positions of the tasks that do not simply wait for the success of all that they depend on."""
        for task_id, said in self._rules.items():
            position = self.graph.position(task_id)
            if said.map_over is not None or said.trigger_rule is not None:
                yield position
            if said.branch:
                yield from self.graph.followers(position)

    def _outcome(self, position: int, record: TaskRecord) -> int:
        """What a task that has ended counts as, for those that wait for it."""
        if record.state is SUCCESS:
            return SUCCEEDED
        return AS_SKIPPED if record.state is SKIPPED and position in self._soft else AS_FAILED

    def _classify(self) -> None:
        """Find out which of the tasks that were skipped were so because of a failure.

        It is not stored, since it follows from what is: those that had begun said so themselves, a branch's choice is its
        output, and a trigger rule says the same again.
        """
        left_out = {
            position
            for branch in self._branches
            if self._records[branch].state is SUCCESS
            for position in self._left_out_by(branch)
        }
        for task_id in self.graph.order():
            record = self.tasks[task_id]
            if record.state is SKIPPED:
                position = self.graph.position(task_id)
                if record.started is not None or position in left_out or not self._failed_upstream(position):
                    self._soft.add(position)

    def _failed_upstream(self, position: int) -> bool:
        """Whether a task that was skipped by its rule was so because of a failure."""
        waiting = self._waiting_at(position)
        if waiting.gate is WAIT and self.has_items(self._records[waiting.gate_position]):
            waiting.gate = RUN  # as it was then: a mapped task has its items long before it ends
        # One that waits: something upstream was set back alone. What skipped this one then is taken for a failure.
        return waiting.verdict() in (SKIP_FAILED, WAIT)

    def _left_out_by(self, branch: int) -> list[int]:
        """The direct downstreams of a branch that it did not choose, and that stand behind none that it did."""
        record = self._records[branch]
        chosen = [task_id for task_id in chosen_by(record.output, self._rules[record.task_id].group) if task_id in self.graph]
        goes_on = {*chosen, *self.graph.descendants(chosen)}
        return [position for position in self.graph.followers(branch) if self.graph.id_at(position) not in goes_on]

    def _leave_out(self, step: Step, branch: int, now: int) -> list[TaskRecord]:
        """Skip what a branch that succeeded did not choose, and has not begun; those tasks."""
        left_out: list[TaskRecord] = []
        for position in self._left_out_by(branch):
            record = self._records[position]
            if record.state is SCHEDULED and record.started is None:
                self._soft.add(position)
                self._close(step, record, NOT_CHOSEN.format(self.graph.id_at(branch)), now)
                left_out.append(record)
        return left_out

    def _waiting_at(self, position: int) -> Waiting:
        """What a task waits for, as its upstreams stand."""
        said = self._rules.get(self.graph.id_at(position), PLAIN)
        gate = -1 if said.map_over is None else self.graph.position(said.map_over)
        waiting = Waiting(said.trigger_rule or _USUAL, gate)
        dependencies = self.graph.dependencies(position)
        waiting.pending = len(dependencies) - (gate >= 0)
        waiting.branches = self._branches.intersection(dependencies)
        for other in dependencies:
            record = self._records[other]
            if record.state in TERMINAL_STATES:
                mapped = self.maps.whole(record.task_id) if other == gate and self.maps is not None else None
                listed = mapped is not None and mapped.items is not None
                waiting.told(other, SUCCEEDED if listed else self._outcome(other, record))
        return waiting

    def _consider(self, step: Step, position: int, record: TaskRecord, now: int) -> None:
        """What a waiting task's upstreams, as they stand, decide for it. For the beginning: later, each end is told."""
        waiting = self._waiting.get(position)
        if waiting is None:  # all that have ended succeeded
            if not self._pending[position]:
                self.may_start(step, record, now)
            return
        if waiting.decided:
            return
        news: list[TaskRecord] = []
        self._judge(step, position, record, waiting, news, now)
        self._tell_downstream(step, news, now)

    def _judge(self, step: Step, position: int, record: TaskRecord, waiting: Waiting, news: list[TaskRecord], now: int) -> None:
        """Do what is decided for a task, if anything is by now; one that is skipped is added to the news."""
        verdict = waiting.verdict()
        if verdict is RUN:
            waiting.decided = True
            self.may_start(step, record, now)
        elif verdict is not WAIT:
            self._skip(step, position, record, verdict, None, now)
            news.append(record)

    def may_start(self, step: Step, record: TaskRecord, now: int) -> None:
        """Nothing keeps a task from starting any more, but for the moment at which its next attempt is due."""
        if record.due is not None and record.due > now:
            # A wall clock that was set back must not stretch the wait beyond what was decided when the attempt ended.
            ended = now if record.ended is None else record.ended
            step.delayed.append((record, min(record.due - now, record.due - ended) / 1e6))
        else:
            step.ready.append(record)

    def _tell_downstream(self, step: Step, news: list[TaskRecord], now: int) -> None:
        """What the ends of tasks decide for those that wait for them, and, where one is skipped, for those behind it."""
        pending, waiting, records = self._pending, self._waiting, self._records
        for record in news:  # grows while it is walked
            source = self.graph.position(record.task_id)
            outcome = SUCCEEDED if record.state is SUCCESS else self._outcome(source, record)
            for position in self.graph.followers(source):
                follower = records[position]
                if follower.state is not SCHEDULED:
                    continue
                pending[position] -= 1
                if not waiting and outcome == SUCCEEDED:  # as nearly always
                    if not pending[position]:
                        step.ready.append(follower)
                else:
                    self._tell(step, position, follower, source, outcome, news, now)

    def _tell(
        self, step: Step, position: int, follower: TaskRecord, source: int, outcome: int, news: list[TaskRecord], now: int
    ) -> None:
        """What the end of one task decides for one that waits for it."""
        known = self._waiting.get(position)
        if known is not None:
            if not known.decided:
                known.told(source, outcome)
                self._judge(step, position, follower, known, news, now)
        elif outcome == SUCCEEDED:
            if not self._pending[position]:
                step.ready.append(follower)
        elif outcome == AS_FAILED:
            self._skip(step, position, follower, SKIP_FAILED, self._records[source], now)
            news.append(follower)
        else:  # whether a failure skips it, those that have not ended will show
            known = self._waiting[position] = Waiting(_USUAL)
            known.pending = self._pending[position] + 1
            known.told(source, outcome)
            self._judge(step, position, follower, known, news, now)

    def _skip(
        self, step: Step, position: int, record: TaskRecord, verdict: Verdict, blocker: TaskRecord | None, now: int
    ) -> None:
        """Skip a task by the verdict of its trigger rule, because of that upstream, or of the first that may be meant."""
        waiting = self._waiting.pop(position, None)
        if verdict is not SKIP_FAILED:
            self._soft.add(position)
        if blocker is None:
            wanted = AS_FAILED if verdict is SKIP_FAILED else AS_SKIPPED
            blocker = next((other for other in self._ended_upstream(position) if self._as(other) == wanted), None)
        why = "" if blocker is None else self._why_blocked(blocker)
        if waiting is not None and waiting.rule is not _USUAL and waiting.gate is RUN:
            succeeded, failed, skipped = waiting.counts
            counts = f"{succeeded} upstream tasks succeeded, {failed} failed, {skipped} were skipped"
            why = f"trigger rule '{waiting.rule}' was not met: {counts}"
        self._close(step, record, why or "upstream tasks did not succeed", now)

    def _ended_upstream(self, position: int) -> Iterator[TaskRecord]:
        for other in self.graph.dependencies(position):
            if self._records[other].state in TERMINAL_STATES:
                yield self._records[other]

    def _as(self, record: TaskRecord) -> int:
        return self._outcome(self.graph.position(record.task_id), record)

    def _why_blocked(self, blocker: TaskRecord) -> str:
        upstream = f"upstream task {blocker.task_id!r}"
        if blocker.state is FAILED:
            return f"{upstream} failed"
        if blocker.state is CANCELLED:
            return f"{upstream} was cancelled"
        # A task that was skipped passes on why: the one that is the cause is what a reader needs, however far up it stands.
        if blocker.reason is None:
            return f"{upstream} did not succeed ({blocker.state})"
        if self._as(blocker) == AS_FAILED or blocker.reason.startswith("upstream task "):
            return blocker.reason
        return f"{upstream} was skipped: {blocker.reason}"

    def _close(self, step: Step, record: TaskRecord, why: str, now: int) -> None:
        """Skip a task of the graph that waits."""
        self.mark_skipped(step, record, why, now)
        self._open -= 1
        if self.maps is not None:
            self.maps.drop_items(step, record, now)

    def mark_skipped(self, step: Step, record: TaskRecord, why: str, now: int) -> None:
        """Skip a record, whatever follows from that."""
        self._move(step, record, SKIPPED)
        record.ended, record.due, record.reason = now, None, why
        step.events.append(told.TaskSkipped(self.run.flow_name, self.run.id, now, record.task_id, record.try_number, why))

    # --- mapped tasks ---

    def _mapped_of(self, record: TaskRecord) -> Mapped | None:
        """The mapped task that a record is an item of."""
        return None if self.maps is None else self.maps.of_item(record.task_id)

    def is_there(self, task_id: str) -> bool:
        """Whether a record counts: its task stands in the graph, or is an item of one that does."""
        return task_id in self.graph or (self.maps is not None and self.maps.of_item(task_id) is not None)

    def expand(self, step: Step, record: TaskRecord, keys: Keys, made: dict[str, TaskRecord], now: int) -> None:
        """A mapped task, which runs, has its list; see `Maps.expand`."""
        assert self.maps is not None
        self.maps.expand(step, record, keys, made, now)

    def listed(self, step: Step, whole: str, now: int) -> None:
        """A mapped task has its items: those that map over it may have theirs."""
        source = self.graph.position(whole)
        for position in self.graph.followers(source):
            waiting = self._waiting.get(position)
            if waiting is not None and waiting.gate_position == source and waiting.gate is WAIT:
                waiting.gate = RUN
                self._consider(step, position, self._records[position], now)

    def settle(self, step: Step, record: TaskRecord, state: ExecutionState, text: str, details: str, now: int) -> None:
        """End a mapped task that runs: with its output, or with the reason why it has none."""
        self._end_attempt(step, record, state)
        record.ended = now
        where = (self.run.flow_name, self.run.id, now, record.task_id, record.try_number)
        if state is SUCCESS:
            record.output = text
            step.joined.append(record)
            step.events.append(told.TaskSucceeded(*where))
        elif state is FAILED:
            failure = self._kept(Failure("ItemsFailed", text, details))
            record.reason, record.error = failure.message, failure.traceback
            step.events.append(told.TaskFailed(*where, failure.message))
        else:
            record.reason = text
            self._archive(step, record, AttemptResult.SKIPPED)
            self._soft.add(self.graph.position(record.task_id))
            step.events.append(told.TaskSkipped(*where, text))
        self._ended(step, record, now)

    def _finish_if_done(self, step: Step, now: int) -> None:
        if self._open == 0 and self.run.state is RUNNING:
            states = (self.tasks[task_id].state for task_id in self.graph)
            failed = any(state is FAILED or state is CANCELLED for state in states)  # by identity: there may be a million
            self._move_run(step, FAILED if failed else SUCCESS)
            self.run.ended = now
            step.finished.append(self.run)
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
        step.finished.append(self.run)

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

    def skipped(self, step: Step, record: TaskRecord, reason: str, logs: str | None, now: int) -> None:
        """The running attempt asked to be skipped, or was not made since its condition said no: the task is, for good."""
        self._end_attempt(step, record, SKIPPED)
        record.ended, record.reason, record.logs = now, reason, logs
        self._archive(step, record, AttemptResult.SKIPPED)
        if self._mapped_of(record) is None:
            self._soft.add(self.graph.position(record.task_id))
        step.events.append(told.TaskSkipped(self.run.flow_name, self.run.id, now, record.task_id, record.try_number, reason))
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
        mapped = None if self.maps is None else self.maps.whole(record.task_id)
        if mapped is not None and self.maps is not None:
            items = self.maps.open_items(mapped)
            for item in items:
                cancel_one(step, self.run, item, now, reason, None)
            self.maps.cancelled(step, mapped, items, now)
        cancel_one(step, self.run, record, now, reason, logs)
        if self._records:
            self._ended(step, record, now)

    def withdraw(self, step: Step, record: TaskRecord, now: int) -> None:
        """The running attempt is not made after all, since the run is being stopped: no harm can have come of it."""
        self._put_back(step, record, now)

    def _ended(self, step: Step, record: TaskRecord, now: int) -> None:
        news = [record]
        if self._rules:  # as few flows have
            if self.maps is not None:
                mapped = self.maps.of_item(record.task_id)
                if mapped is not None:
                    self.maps.ended(step, mapped, record, now)
                    return
                if record.state is not SUCCESS:
                    self.maps.drop_items(step, record, now)
            if record.state is SUCCESS and self.graph.position(record.task_id) in self._branches:
                news += self._leave_out(step, self.graph.position(record.task_id), now)
        self._open -= 1
        self._tell_downstream(step, news, now)
        self._finish_if_done(step, now)

    def _cut_off(self, step: Step, record: TaskRecord, now: int, logs: str | None = None, died: bool = False) -> None:
        """What an interruption makes of the task; those that wait for it are told by the caller, or when the run begins."""
        crashes, failure = record.crashes, None
        # Not so a subflow whose run was begun, or a mapped task that has its items: these count for themselves.
        if record.child_run_id is None and self.is_there(record.task_id) and not self.has_items(record):
            crashes += died
            is_whole = self.maps is not None and self.maps.whole(record.task_id) is not None
            failure = failure_by_interruption(self._policies[record.task_id], crashes, died, is_whole)
        self._put_back(step, record, now, logs, failure)
        record.crashes = crashes

    def wake(self, step: Step, record: TaskRecord) -> None:
        """Have an item that was skipped since no list had it wait again: one has it now."""
        self._move(step, record, SCHEDULED)
        record.ended = record.reason = None

    def has_items(self, record: TaskRecord) -> bool:
        """Whether a record is that of a mapped task whose items are there."""
        mapped = None if self.maps is None else self.maps.whole(record.task_id)
        return mapped is not None and mapped.items is not None

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
                mapped = None if self.maps is None else self.maps.whole(task_id)
                if mapped is not None:
                    mapped.forget()
            step.events.append(told.TaskReset(self.run.flow_name, self.run.id, now, task_id, 0))
        if self.run.state is not SCHEDULED:
            self._move_run(step, SCHEDULED)
            self.run.ended = None

    def reset_failed(self, step: Step, now: int, cancelled: bool = True) -> None:
        """Set back what did not succeed: how a subflow that failed is tried again, each subflow in it with the run it has.

        So is what succeeded behind that by a rule of its own: what it saw of them is no longer so.

        Args:
            step: takes the changes.
            now: the time.
            cancelled: whether also what was cancelled: so it is by a manual retry, and not by one that nobody asked for.
        """
        from .notes import reset_note  # late: few runs are set back

        stay = (SUCCESS, SCHEDULED) if cancelled else (SUCCESS, SCHEDULED, CANCELLED)
        back = [task_id for task_id in self.graph if self.tasks[task_id].state not in stay]
        goes_on = {task_id for task_id in back if self.tasks[task_id].state in (FAILED, CANCELLED)}
        if self._rules:
            anew = {task_id for task_id in self.graph.descendants(back) if self.tasks[task_id].state is SUCCESS}
            back += [task_id for task_id in self.graph if task_id in anew]
            anew |= self.graph.descendants(anew)  # what comes of them may be something else this time
            goes_on -= anew
            for mapped in self.maps or ():
                if mapped.record.state is SKIPPED or mapped.record.task_id in anew:
                    back += mapped.known
                elif mapped.record.state not in stay:
                    mend = mapped.to_mend(cancelled)
                    back += mend
                    goes_on.update(item_id for item_id in mend if self.tasks[item_id].state is not SKIPPED)
        step.changes.note(reset_note(self.run, map(self.tasks.__getitem__, back), now))
        self.reset(step, back, now, goes_on)

    def adopt(self, step: Step, graph_text: str, new: Iterable[TaskRecord], now: int) -> None:
        """Take up a changed graph: add records for its new tasks, and close those that it no longer has.

        What has ended keeps its state and result; a task that is gone and had not ended is SKIPPED.
        """
        for record in new:
            self.tasks[record.task_id] = record
            step.changes.tasks.append(record)
        for task_id, record in self.tasks.items():
            if self.is_there(task_id):
                if record.state is SKIPPED and record.reason == GONE:
                    self._move(step, record, SCHEDULED)
                    record.ended = record.reason = None
            elif record.state not in TERMINAL_STATES:
                if record.state is RUNNING:
                    self._put_back(step, record, now)
                self.mark_skipped(step, record, GONE, now)
        self.maps = self._find_maps()
        self.run.graph = graph_text
        step.changes.runs.append(self.run)

    # --- moving ---

    _move = staticmethod(move_task)
    _archive = staticmethod(archive_attempt)

    def _end_attempt(self, step: Step, record: TaskRecord, target: ExecutionState) -> None:
        # The table lets finished tasks go back to SCHEDULED, but for a reset: a late outcome must not wake one.
        if record.state is not RUNNING:
            raise IllegalTransitionError(f"Task {record.task_id!r}", record.state.value, target.value)
        self._move(step, record, target)

    def _move_run(self, step: Step, target: ExecutionState) -> None:
        if self.run.state is not target:
            check_run(self.run, target)
            self.run.state = target
        step.changes.runs.append(self.run)
