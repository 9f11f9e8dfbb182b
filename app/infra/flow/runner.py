"""The loop that drives one run and the subflow runs inside it: outcomes in; then commit, tell, act.

In each turn all outcomes that have arrived, over the whole tree of runs, become one step: one commit, then its events, then the
attempts that it starts. No asyncio task waits for another, so a tree may be as deep as it likes, and one limit governs it all.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, replace
from functools import partial
from math import inf
from typing import Any

from .clock import Clock
from .codec import join, split
from .context import Context
from .definitions import TaskDefinition, TaskFunction
from .errors import FlowError, RunFailedError, shortened
from .event_manager import EventManager
from .executors import Call, CoroutineExecutor, Executor, Outcome, ThreadExecutor, failure_of
from .late_dataclass import dataclass
from .live_run import LiveRun, encode_params, new_run, subflow_params_function
from .machine import RunMachine, Step
from .models import ExecutionState, Failure, TaskType, kinds_of
from .off_loop import Worker
from .records import Lease, TaskRecord
from .store import Store

MOST_STARTS = 100
"""Tasks started in one turn at the most: a turn with so many, committed and begun, holds up the event loop for some 6 ms."""

GRACE = 5.0
"""Seconds that cancelled coroutines get to clean up, before a cancelled run goes on without them."""


class Inbox:
    """Where outcomes arrive, from the loop's thread or any other. A burst of them makes one turn.

    Args:
        turn: called by the event loop once something has arrived.
    """

    def __init__(self, turn: Callable[[], None]) -> None:
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # A turn sees the context variables of whoever drives the run, not those of the task that happened to end.
        self._variables = contextvars.copy_context()
        self._outcomes: deque[Outcome] = deque()
        self._called = False
        """Whether a turn is on its way."""

    def deliver(self, outcome: Outcome) -> None:
        """Take an outcome, from any thread."""
        self._outcomes.append(outcome)
        if self._called:  # asked after the outcome is there: the turn that was called for finds it
            return
        try:
            if threading.get_ident() == self._thread:
                self.wake()
            else:
                self._called = True
                self._loop.call_soon_threadsafe(self._run, context=self._variables)
        except RuntimeError:
            # The loop is closed: a thread came back, or a coroutine was thrown away, after its run had been given up. Nobody
            # waits for its result, and the store says SCHEDULED, so it will be made again.
            self._outcomes.clear()

    def wake(self) -> None:
        """Have a turn made, from the loop's thread: not now, but as soon as the loop gets to it."""
        if not self._called:
            self._called = True
            self._loop.call_soon(self._run, context=self._variables)

    def _run(self) -> None:
        self._called = False
        self._turn()

    def take(self) -> Iterable[Outcome]:
        """The outcomes that have arrived, each once."""
        for _ in range(len(self._outcomes)):
            yield self._outcomes.popleft()


@dataclass(slots=True, eq=False)
class _Lane:
    """An executor, how much of it is in use, and the tasks that wait for it alone."""

    executor: Executor
    busy: int = 0
    parked: deque[TaskRecord] = field(default_factory=deque)
    capacity: float = field(init=False)

    def __post_init__(self) -> None:
        self.capacity = inf if self.executor.capacity is None else self.executor.capacity


class Runner:
    """Drives one tree of runs once.

    Args:
        store: where every step is committed.
        lease: the right to do so.
        worker: the thread for commits that may have to wait.
        events: who is told of it.
        clock: the time.
        make_id: makes the ids of subflow runs.
        max_concurrency: how many attempts may be under way in the tree; 0 is any number. A subflow's own task holds no slot.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        worker: Worker,
        events: EventManager,
        clock: Clock,
        make_id: Callable[[], str],
        max_concurrency: int = 0,
    ) -> None:
        self._store = store
        self._lease = lease
        self._worker = worker
        self._events = events
        self._clock = clock
        self._make_id = make_id
        self._limit = max_concurrency
        self._inbox = Inbox(self._turn)
        self._root: LiveRun
        self._waiting: asyncio.Future[None] | None = None
        """While quick turns are made: what `drive` waits for."""
        self._missed = False
        """Whether a turn was called for while `drive` was busy."""
        self._handed: tuple[Step, list[Call]] | None = None
        """A step that was decided in a quick turn, and is yet to be committed, with the attempts to begin after that."""
        self._loop_lane = _Lane(CoroutineExecutor(self._inbox.deliver))
        self._thread_lane = _Lane(ThreadExecutor(self._inbox.deliver))
        self._lanes = (self._loop_lane, self._thread_lane)
        self._runs: dict[str, LiveRun] = {}
        # A record says which run it belongs to: no more than that is kept of a task that waits, for there may be a million.
        self._ready: deque[TaskRecord] = deque()
        self._ready_subflows: deque[TaskRecord] = deque()
        self._delayed: list[tuple[float, int, TaskRecord]] = []
        self._delays = 0
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_due: float | None = None
        self._under_way: dict[Call, tuple[_Lane, float]] = {}
        self._too_full: set[LiveRun] = set()
        """Runs that hold so much output that some should be let go."""

    def __repr__(self) -> str:
        return f"<Runner of {len(self._runs)} runs, {len(self._under_way)} attempts under way, {len(self._ready)} ready>"

    async def drive(self, root: LiveRun, children: Iterable[LiveRun], step: Step) -> None:
        """Drive a run to its end, and give up its lease.

        Args:
            root: the run.
            children: the runs of its subflows that were begun earlier and have not ended.
            step: how it begins, or goes on.

        Raises:
            asyncio.CancelledError: the caller was cancelled; what was under way was put back, and the run can be continued.
            StoreError: the store failed; the run stands in it as of the last commit, and can be continued from there.
            OwnershipLostError: somebody else took the run over; nothing more was written.
        """
        self._root, self._runs = root, {live.run.id: live for live in (root, *children)}
        calls: list[Call] = []
        try:
            calls = self._advance(step)
            ended = self._has_ended(step)
            while True:
                if not self._try_commit(step):
                    await self._commit(step)
                self._begin(calls)
                if ended:
                    return
                calls = []
                step, calls, ended = await self._quick_turns()
        except asyncio.CancelledError:
            if self._handed is not None:
                step, calls = self._handed
                try:
                    await self._commit(step)
                except asyncio.CancelledError:  # asked a second time
                    pass
            if root.run.state is ExecutionState.RUNNING:
                await self._interrupt(calls)
            raise
        except GeneratorExit:  # the loop was closed under us, so nothing can be awaited or cancelled any more
            self._alarm = None
            raise
        except BaseException:
            await self._cancel_attempts()
            raise
        finally:
            self._close()

    async def _quick_turns(self) -> tuple[Step, list[Call], bool]:
        """Wait until there is a step that takes more than a quick turn, and give that."""
        self._waiting = asyncio.get_running_loop().create_future()
        if self._missed:
            self._missed = False
            self._inbox.wake()
        try:
            await self._waiting
        finally:
            self._waiting = None
        assert self._handed is not None
        (step, calls), self._handed = self._handed, None
        return step, calls, self._root.run.state is not ExecutionState.RUNNING

    def _turn(self) -> None:
        """Settle what has arrived and carry on, as a plain call of the event loop's: nearly all turns take no more than that.

        What has to be awaited, a commit that waits and the end, is handed to `drive`, and so is what goes wrong.
        """
        waiting = self._waiting
        if waiting is None or waiting.done():
            self._missed = True
            return
        try:
            step = Step(heard=self._events.has_subscribers)
            self._settle(step, self._inbox.take())
            calls = self._advance(step)
            if self._has_ended(step) or not self._try_commit(step):
                self._handed = step, calls
                waiting.set_result(None)
            else:
                self._begin(calls)
        except BaseException as error:
            waiting.set_exception(error)

    def _has_ended(self, step: Step) -> bool:
        """Whether the step ends the run: then it is flushed, and the run is given up with it."""
        step.changes.flush = step.changes.release = self._root.run.state is not ExecutionState.RUNNING
        return step.changes.flush

    def _begin(self, calls: Iterable[Call]) -> None:
        """Begin the attempts whose start was committed."""
        for call in calls:
            self._under_way[call][0].executor.start(call)
        if self._too_full:
            self._too_full = {live for live in self._too_full if live.outputs.let_go()}
        if self._delayed or self._alarm is not None:
            self._set_alarm()

    def _try_commit(self, step: Step) -> bool:
        """Commit a step on the loop, and tell it, if that takes no waiting."""
        if step:
            step.changes.lease = self._lease
            if not self._store.commit_at_once(step.changes):
                return False
        self._events.emit(step.events)
        return True

    async def _commit(self, step: Step) -> None:
        """Commit a step in the worker's thread, and tell it."""
        step.changes.lease = self._lease
        try:
            await self._worker.do(partial(self._store.commit, step.changes))
        except asyncio.CancelledError:  # it was committed all the same
            self._events.emit(step.events)
            raise
        self._events.emit(step.events)

    # --- deciding ---

    def _settle(self, step: Step, outcomes: Iterable[Outcome]) -> None:
        """What the outcomes of attempts mean for their tasks."""
        monotonic = self._clock.monotonic()
        begun, ended = None, 0
        for outcome in outcomes:
            known = self._under_way.pop(outcome.call, None)
            if known is None:  # late: its run went on without it
                continue
            lane, started = known
            lane.busy -= 1
            live, record = outcome.call.key
            if (record.started, started) != begun:  # those that began in one turn share one number
                assert record.started is not None
                begun = record.started, started
                # By the monotonic clock: the wall clock may have been set in between.
                ended = record.started + round((monotonic - started) * 1e6)
            if outcome.interrupted:
                live.machine.interrupted(step, record, ended, outcome.logs)
                if record.state is ExecutionState.SCHEDULED:  # else it must not run again
                    step.ready.append(record)
            elif outcome.failure is None:
                if outcome.params is not None and outcome.params:
                    live.apply_params(step, outcome.params)
                if record.type is TaskType.FLOW:  # what it made are the params of its child run
                    assert outcome.output is not None
                    self._make_subflow(step, live, record, split(outcome.output), ended)
                else:
                    live.machine.succeeded(step, record, outcome.output, outcome.logs, ended)
                    if live.outputs.add(record):
                        self._too_full.add(live)
            else:
                live.machine.failed(step, record, outcome.failure, outcome.logs, ended)

    def _advance(self, step: Step) -> list[Call]:
        """Carry on from what the step made ready or finished, until no more can start; return the calls to make."""
        calls: list[Call] = []
        now, monotonic = self._clock.now(), self._clock.monotonic()
        for _ in range(MOST_STARTS):
            if step.ready or step.finished or step.delayed or self._delayed:
                self._absorb(step, now, monotonic)
            record = self._next()
            if record is None:
                return calls
            live = self._runs[record.run_id]
            live.machine.start(step, record, now)
            task = live.tasks[record.task_id]
            if task.function is not None:
                calls.append(self._call(live, record, task, task.function, monotonic))
            elif record.child_run_id is not None:
                self._continue_subflow(step, live, record, now)
            elif callable(task.params):  # the user's code, so it runs where a task's would
                function = subflow_params_function(task.params, record.task_id)
                calls.append(self._call(live, record, task, function, monotonic))
            else:
                self._begin_subflow(step, live, record, task.params, now)
        self._absorb(step, now, monotonic)
        self._inbox.wake()  # there may be more: come back in the next turn
        return calls

    def _absorb(self, step: Step, now: int, monotonic: float) -> None:
        """Sort what the machines said into our queues; a subflow run that ended settles its parent's task."""
        while step.finished:
            self._finish_subflow(step, step.finished.pop(), now)
        for record, delay in step.delayed:
            self._delays += 1
            heapq.heappush(self._delayed, (monotonic + delay, self._delays, record))
        step.delayed.clear()
        while self._delayed and self._delayed[0][0] <= monotonic:
            self._enqueue(heapq.heappop(self._delayed)[2])
        for record in step.ready:
            self._enqueue(record)
        step.ready.clear()

    def _enqueue(self, record: TaskRecord) -> None:
        if record.type is TaskType.TASK or (record.child_run_id is None and callable(self._definition(record).params)):
            self._ready.append(record)
        else:  # it needs no slot
            self._ready_subflows.append(record)

    def _next(self) -> TaskRecord | None:
        """The next task to start: subflows at once, others as slots are free, in the order in which they became ready."""
        if self._ready_subflows:
            return self._ready_subflows.popleft()
        if self._limit and len(self._under_way) >= self._limit:
            return None
        for lane in self._lanes:
            if lane.parked and lane.busy < lane.capacity:
                return lane.parked.popleft()
        while self._ready:
            record = self._ready.popleft()
            lane = self._lane(self._definition(record))
            if lane.busy < lane.capacity:
                return record
            lane.parked.append(record)
        return None

    def _definition(self, record: TaskRecord) -> TaskDefinition:
        return self._runs[record.run_id].tasks[record.task_id]

    def _lane(self, task: TaskDefinition) -> _Lane:
        return self._loop_lane if task.is_async else self._thread_lane

    def _call(self, live: LiveRun, record: TaskRecord, task: TaskDefinition, function: TaskFunction, monotonic: float) -> Call:
        call = Call((live, record), function, Context(live, record), f"{live.run.flow_name}.{record.task_id}")
        lane = self._lane(task)
        lane.busy += 1
        self._under_way[call] = (lane, monotonic)
        return call

    # --- subflows ---

    def _begin_subflow(self, step: Step, live: LiveRun, record: TaskRecord, own: Mapping[str, Any] | None, now: int) -> None:
        try:
            texts = encode_params(own, self._store.codec, record.task_id)
        except FlowError as error:
            live.machine.failed(step, record, failure_of(error), None, now)
            return
        self._make_subflow(step, live, record, texts, now)

    def _make_subflow(self, step: Step, live: LiveRun, record: TaskRecord, own: Mapping[str, str], now: int) -> None:
        """Make the child's run, in the same commit as the rest of the step, and start it."""
        definition = live.tasks[record.task_id].child
        assert definition is not None
        params = live.subflow_params(record, own)
        child_run_id = self._make_id()
        try:
            made = new_run(step, definition, child_run_id, params, now, live.run.id, record.task_id)
            read_output = getattr(self._store, "read_output", None)
            child = LiveRun(definition, *made, self._store.codec, self._clock, (live, record), read_output)
        except FlowError as error:  # the nested flow was changed, and is not sound any more
            live.machine.failed(step, record, failure_of(error), None, now)
            return
        record.input, record.child_run_id = join(params), child_run_id
        step.changes.tasks.append(record)
        self._runs[child_run_id] = child
        child.machine.begin(step, now)

    def _continue_subflow(self, step: Step, live: LiveRun, record: TaskRecord, now: int) -> None:
        """Go on with the child's run that the task has, wherever that stands."""
        assert record.child_run_id is not None
        child = self._runs[record.child_run_id]
        child.parent = (live, record)
        if child.run.state is ExecutionState.SUCCESS:  # mended on its own
            self._finish_subflow(step, child.machine, now)
            return
        if ExecutionState.is_terminal(child.run.state):
            child.machine.reset_failed(step, now)
        child.machine.begin(step, now)

    def _finish_subflow(self, step: Step, machine: RunMachine, now: int) -> None:
        child = self._runs[machine.run.id]
        if child.parent is None:  # the root
            return
        live, record = child.parent
        if child.run.state is ExecutionState.SUCCESS:
            del self._runs[machine.run.id]
            live.machine.succeeded(step, record, child.result_text(), None, now)
            if live.outputs.add(record):
                self._too_full.add(live)
        else:  # kept, for a retry goes on with it
            causes = [f"{record.task_id}.{path}: {cause}" for path, cause in child.failures(self._runs).items()]
            text = f"The subflow's run {child.run.id!r} of flow {child.run.flow_name!r} {child.run.state}."
            text = "\n  ".join([text, *causes]) + "\n"
            failure = Failure("SubflowFailed", shortened(causes, "; ", 4), text, kinds_of(RunFailedError))
            live.machine.failed(step, record, failure, None, now)

    # --- waiting and stopping ---

    def _set_alarm(self) -> None:
        """Have the loop woken when the first delayed task is due."""
        due = self._delayed[0][0] if self._delayed else None
        if self._alarm is not None and (self._alarm.done() or due != self._alarm_due):
            self._alarm.cancel()
            self._alarm = None
        if due is not None and self._alarm is None:
            self._alarm_due = due
            self._alarm = asyncio.get_running_loop().create_task(self._wake_at(due), name="night-batch alarm")

    async def _wake_at(self, due: float) -> None:
        await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
        self._inbox.wake()

    async def _interrupt(self, withdrawn: Iterable[Call]) -> None:
        """Put the run into a state from which it can be continued: what still ends well counts, the rest goes back.

        Args:
            withdrawn: attempts whose start was committed, and that have not been begun.
        """
        step = Step()
        for call in withdrawn:
            del self._under_way[call]
            live, record = call.key
            live.machine.withdraw(step, record, self._clock.now())
        # A loop that shuts down cancels the attempts beside us, so they may have said so before we were asked.
        self._settle(
            step, [replace(outcome, interrupted=outcome.interrupted or outcome.cancelled) for outcome in self._inbox.take()]
        )
        await self._cancel_attempts()
        # Whoever fails now does so because it was told to stop.
        self._settle(
            step,
            [replace(outcome, interrupted=outcome.interrupted or outcome.failure is not None) for outcome in self._inbox.take()],
        )
        now = self._clock.now()
        while step.finished:
            self._finish_subflow(step, step.finished.pop(), now)
        for live in self._runs.values():
            live.machine.interrupt(step, now)
        step.changes.flush = step.changes.release = True
        if not self._try_commit(step):
            await self._commit(step)

    async def _cancel_attempts(self) -> None:
        for lane in self._lanes:
            lane.executor.cancel()
        for lane in self._lanes:
            try:
                await lane.executor.wait(GRACE)
            except asyncio.CancelledError:
                return  # asked a second time: go on without the stragglers

    def _close(self) -> None:
        self._under_way.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        for lane in self._lanes:
            lane.executor.close()
