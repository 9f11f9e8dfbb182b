"""The loop that drives one run and the subflow runs inside it: outcomes in; then commit, tell, act.

In each turn all outcomes that have arrived, over the whole tree of runs, become one step: one commit, then its events, then the
attempts that it starts. No asyncio task waits for another, so a tree may be as deep as it likes, and one limit governs it all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from .admission import Admission
from .agenda import Agenda
from .attempts import Attempts, Due
from .clock import Clock
from .codec import join, split
from .context import Context
from .errors import FlowError, RunFailedError, shortened
from .event_manager import Audience
from .executors import Call, Outcome, failure_of
from .inbox import Inbox
from .lanes import Lanes
from .live_run import LiveRun, encode_params, new_run
from .models import ExecutionState, Failure, NoteKind, TaskType, kinds_of
from .off_loop import Worker
from .records import Ask, Lease, NoteRecord, RunRecord, TaskRecord
from .steps import Step
from .store import Store
from .task_options import DEFAULT, Capacities

MOST_STARTS = 100
"""Tasks started in one turn at the most: a turn with so many, committed and begun, holds up the event loop for some 6 ms."""


class Runner:
    """Drives one tree of runs once.

    Args:
        store: where every step is committed.
        lease: the right to do so.
        worker: the thread for commits that may have to wait.
        events: who is told of it.
        clock: the time.
        make_id: makes the ids of subflow runs.
        capacities: how much of the machine may be used.
        max_concurrency: how many attempts may be under way in the tree; 0 is any number. A subflow's own task holds no slot.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        worker: Worker,
        events: Audience,
        clock: Clock,
        make_id: Callable[[], str],
        capacities: Capacities,
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
        self._lanes = Lanes(self._inbox.deliver, capacities)
        self._grace = capacities.grace_period
        self._runs: dict[str, LiveRun] = {}
        self._admission = Admission(self._runs, self._lanes, self._inbox.wake_from_anywhere)
        self._agenda: Agenda[Due] = Agenda()
        """Tasks that wait for their next attempt, and attempts whose time is limited."""
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_due = 0.0
        self._attempts = Attempts(self._agenda, capacities.grace_period)
        self._too_full: set[LiveRun] = set()
        """Runs that hold so much output that some should be let go."""
        self._asked = False
        """Whether somebody may have asked something of a run of the tree."""
        self._cancelling = False
        """Whether somebody asked that the whole tree be cancelled."""
        self._failure: BaseException | None = None
        """What went wrong in a quick turn, for `drive` to raise."""
        self._latest = 0
        """When the latest attempt ended. None begins before that, even if the clock is set back: it may ask what had ended."""
        self._heard: list[Ask] = []
        """What was asked, and is being done: attempts may take a while to end, and the step may not be committed."""
        self.heeded: list[Ask] = []
        """What was asked, and has been done, as far as the store says so at the end."""

    def __repr__(self) -> str:
        return f"<Runner of {len(self._runs)} runs, {self._attempts!r}, {self._admission!r}>"

    @property
    def runs(self) -> Mapping[str, LiveRun]:
        """The runs of the tree that are in memory, by id."""
        return self._runs

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
        self._root = root
        self._runs.update((live.run.id, live) for live in (root, *children))
        self._latest = max((live.latest_end() for live in self._runs.values() if live.rules), default=0)
        calls: list[Call] = []
        unwatch = self._listen()
        try:
            calls = self._advance(step)
            ended = self._has_ended(step)
            while True:
                if not self._try_commit(step):
                    await self._commit(step)
                self._begin(calls)
                if ended:
                    self.heeded += self._heard
                    return
                calls = []
                step, calls, ended = await self._quick_turns()
                if self._cancelling:
                    await self._stop(step, calls)
                    return
        except asyncio.CancelledError:
            try:
                await self._stop_after(calls)
            except asyncio.CancelledError:
                raise
            except BaseException:
                await self._cancel_attempts()
                raise
            raise
        except GeneratorExit:  # the loop was closed under us, so nothing can be awaited or cancelled any more
            self._alarm = None
            raise
        except BaseException:
            await self._cancel_attempts()
            raise
        finally:
            unwatch()
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
        if self._failure is not None:
            raise self._failure
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
            if self._asked:
                self._heed(step)
            calls = [] if self._cancelling else self._advance(step)
            if self._cancelling or self._has_ended(step) or not self._try_commit(step):
                self._handed = step, calls
                waiting.set_result(None)
            else:
                self._begin(calls)
        except BaseException as error:
            self._failure = error
            waiting.set_result(None)

    def _has_ended(self, step: Step) -> bool:
        """Whether the step ends the run: then it is flushed, and the run is given up with it."""
        step.changes.flush = step.changes.release = self._root.run.state is not ExecutionState.RUNNING
        return step.changes.flush

    def _begin(self, calls: Iterable[Call]) -> None:
        """Begin the attempts whose start was committed."""
        monotonic = self._clock.monotonic
        for call in calls:
            self._attempts.start(call, monotonic)
        if self._too_full:
            self._too_full = {live for live in self._too_full if live.outputs.let_go()}
        if self._alarm is not None or self._agenda.entries:
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
        for arrived in outcomes:
            over = self._attempts.end(arrived)
            if over is None:  # late: its run went on without it
                continue
            outcome, started, cancelled = over
            live, record = outcome.call.key
            if (record.started, started) != begun:  # those that began in one turn share one number
                assert record.started is not None
                begun = record.started, started
                # By the monotonic clock: the wall clock may have been set in between.
                ended = record.started + round((monotonic - started) * 1e6)
                if ended > self._latest:
                    self._latest = ended
            if cancelled is not None:
                live.machine.cancelled(step, record, ended, outcome.logs, cancelled)
            elif outcome.interrupted:
                live.machine.interrupted(step, record, ended, outcome.logs)
                if record.state is ExecutionState.SCHEDULED:  # else it must not run again
                    step.ready.append(record)
            elif outcome.output is not None:
                if live.rules:  # as few flows have
                    if self._taken_apart(step, outcome, ended):
                        continue
                    wrong = live.wrong_choice(record, outcome.output)
                    if wrong is not None:
                        live.machine.failed(step, record, failure_of(wrong), outcome.logs, ended)
                        continue
                if outcome.params is not None and outcome.params:
                    live.apply_params(step, outcome.params)
                if record.type is TaskType.FLOW:  # what it made are the params of its child run
                    self._make_subflow(step, live, record, split(outcome.output), ended)
                else:
                    live.machine.succeeded(step, record, outcome.output, outcome.logs, ended)
                    if live.outputs.add(record):
                        self._too_full.add(live)
            elif outcome.failure is not None:
                live.machine.failed(step, record, outcome.failure, outcome.logs, ended)
            else:
                assert outcome.skipped is not None
                live.machine.skipped(step, record, live.kept_reason(outcome.skipped), outcome.logs, ended)

    def _taken_apart(self, step: Step, outcome: Outcome, ended: int) -> bool:
        """Whether the attempt took apart the list that its task is mapped over; then its items are there now."""
        from .listing import Listing  # late: few tasks are mapped

        live, record = outcome.call.key
        function = outcome.call.function
        if not isinstance(function, Listing):
            return False
        live.expand(step, record, function, ended)
        return True

    def _advance(self, step: Step) -> list[Call]:
        """Carry on from what the step made ready or finished, until no more can start; return the calls to make."""
        calls: list[Call] = []
        now, monotonic = self._clock.now(), self._clock.monotonic()
        if now < self._latest:
            now = self._latest
        for _ in range(MOST_STARTS):
            if step.ready or step.finished or step.delayed or self._agenda.entries:
                self._absorb(step, now, monotonic)
            admitted = self._admission.next(not self._limit or len(self._attempts) < self._limit)
            if admitted is None:
                return calls
            record, task, lane = admitted
            live = self._runs[record.run_id]
            live.machine.start(step, record, now)
            if lane is not None:
                called = task.called
                assert called is not None
                call = Call((live, record), called, Context(live, record), f"{live.run.flow_name}.{record.task_id}")
                pool = None if task.options.pool is None else self._admission.pool(task.options.pool)
                self._attempts.add(call, lane, monotonic, task.options, pool)
                calls.append(call)
            elif live.is_whole(record):
                call = Call((live, record), live.listing(record), Context(live, record), f"{live.run.flow_name}.{record.task_id}")
                self._attempts.add(call, self._lanes.threads, monotonic, DEFAULT, None)
                calls.append(call)
            elif record.child_run_id is not None:
                self._continue_subflow(step, live, record, now)
            else:
                assert not callable(task.params)
                self._begin_subflow(step, live, record, task.params, now)
        self._absorb(step, now, monotonic)
        self._inbox.wake()  # there may be more: come back in the next turn
        return calls

    def _absorb(self, step: Step, now: int, monotonic: float) -> None:
        """Sort what the machines said into our queues; a subflow run that ended settles its parent's task."""
        if self._agenda.entries:  # first: an attempt that is given up may end its run, or wait for the next one
            for due in self._agenda.take_due(monotonic):
                if isinstance(due, TaskRecord):
                    self._admission.put(due)
                elif (outcome := self._attempts.time_is_over(due, monotonic)) is not None:
                    self._settle(step, (outcome,))
        if step.joined:
            self._absorb_joined(step)
        while step.finished:
            self._finish_subflow(step, step.finished.pop(), now)
            if step.joined:
                self._absorb_joined(step)
        for record, delay in step.delayed:
            self._agenda.put(monotonic + delay, record)
        step.delayed.clear()
        for record in step.ready:
            self._admission.put(record)
        step.ready.clear()

    def _absorb_joined(self, step: Step) -> None:
        while step.joined:  # before their runs end, and are not at hand any more
            record = step.joined.pop()
            if (live := self._runs[record.run_id]).outputs.add(record):
                self._too_full.add(live)

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
            self._finish_subflow(step, child.run, now)
            return
        if ExecutionState.is_terminal(child.run.state):
            child.machine.reset_failed(step, now, cancelled=self._is_retried_by_hand(live, record))
        child.machine.begin(step, now)

    @staticmethod
    def _is_retried_by_hand(live: LiveRun, record: TaskRecord) -> bool:
        """Whether a subflow goes on since a person said so: then it begins to count anew, and so do all those around it.

        What somebody cancelled stays so, but for that. A subflow around it that is tried again by itself sets it back, too.
        """
        if record.try_number:
            return False
        around = live.parent
        while around is not None:
            live, record = around
            if record.try_number != record.interruptions:
                return False
            around = live.parent
        return True

    def _finish_subflow(self, step: Step, run: RunRecord, now: int) -> None:
        child = self._runs[run.id]
        if child.parent is None:  # the root
            return
        live, record = child.parent
        if record.state is not ExecutionState.RUNNING:  # it was cancelled, and the child with it
            return
        if child.run.state is ExecutionState.SUCCESS:
            del self._runs[run.id]
            live.machine.succeeded(step, record, child.result_text(), None, now)
            if live.outputs.add(record):
                self._too_full.add(live)
        else:  # kept, for a retry goes on with it
            causes = [f"{record.task_id}.{path}: {cause}" for path, cause in child.failures(self._runs).items()]
            text = f"The subflow's run {child.run.id!r} of flow {child.run.flow_name!r} {child.run.state}."
            text = "\n  ".join([text, *causes]) + "\n"
            failure = Failure("SubflowFailed", shortened(causes, "; ", 4), text, kinds_of(RunFailedError))
            live.machine.failed(step, record, failure, None, now)

    # --- what others ask ---

    def _listen(self) -> Callable[[], None]:
        """Have us told of what is asked of this tree; what is returned ends that."""
        watch = getattr(self._store, "watch_asks", None)  # a store of somebody's own may not know of asks
        if watch is None:
            return lambda: None
        unwatch: Callable[[], None] = watch(self._lease.run_id, self._told_of_asks, asyncio.get_running_loop().call_later)
        return unwatch

    def _told_of_asks(self) -> None:
        self._asked = True
        self._inbox.wake_from_anywhere()

    def _heed(self, step: Step) -> None:
        """Do what was asked of a run of the tree, and not done yet."""
        from .heeding import Heeding  # late: few runs are asked for anything

        self._asked = False
        heeding = Heeding(self._runs, self._attempts, step, self._clock.now(), self._clock.monotonic())
        for ask in self._store.asked(self._lease.run_id):
            if ask in self._heard:
                continue
            if ask.task_id is None and ask.run_id in (self._root.run.id, self._lease.run_id):
                self._cancelling = True
                return
            if heeding.heed(ask):
                self._heard.append(ask)
        self._settle(step, heeding.given_up)

    # --- waiting and stopping ---

    def _set_alarm(self) -> None:
        """Have the loop woken when the first entry of the agenda is due."""
        due = self._agenda.next_due()
        if self._alarm is not None:
            # One that rings too early is set anew then: nearly all attempts end long before their time is over.
            if due is not None and self._alarm_due <= due and not self._alarm.done():
                return
            self._alarm.cancel()
            self._alarm = None
        if due is not None:
            self._alarm_due = due
            self._alarm = asyncio.get_running_loop().create_task(self._wake_at(due), name="night-batch alarm")

    async def _wake_at(self, due: float) -> None:
        await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
        self._inbox.wake()

    async def _stop_after(self, calls: list[Call]) -> None:
        """End the drive since its caller was cancelled; with what a quick turn has decided or met in that same turn of the loop.

        Args:
            calls: attempts whose start was committed, and that have not been begun.
        """
        if self._failure is not None:  # what is in memory then may not be in the store
            raise self._failure
        if self._handed is not None:
            step, calls = self._handed
            try:
                await self._commit(step)
            except asyncio.CancelledError:  # asked a second time
                pass
        if self._root.run.state is ExecutionState.RUNNING:
            await self._stop(Step(), calls)
        else:
            self.heeded += self._heard

    async def _stop(self, step: Step, withdrawn: Iterable[Call]) -> None:
        """End the drive early: what still ends well counts. The rest goes back, to be continued some time, or is cancelled.

        Args:
            step: what was decided, and is not committed yet.
            withdrawn: attempts whose start was committed, and that have not been begun.

        Raises:
            asyncio.CancelledError: the caller was cancelled while the run was.
        """
        for call in withdrawn:
            self._attempts.end(Outcome(call))
            live, record = call.key
            live.machine.withdraw(step, record, self._clock.now())
        # A loop that shuts down cancels the attempts beside us, so they may have said so before we were asked.
        self._settle(
            step, [replace(outcome, interrupted=outcome.interrupted or outcome.cancelled) for outcome in self._inbox.take()]
        )
        hurried = await self._cancel_attempts()
        logs: dict[LiveRun, dict[str, str | None]] = {}
        for outcome in self._inbox.take():
            # Whoever fails now does so because it was told to stop.
            stopped = outcome.interrupted or outcome.failure is not None
            if self._cancelling and stopped and self._attempts.end(outcome) is not None:
                live, record = outcome.call.key
                logs.setdefault(live, {})[record.task_id] = outcome.logs
            else:
                self._settle(step, (replace(outcome, interrupted=stopped),))
        if self._asked and not self._cancelling:  # while we waited
            self._heed(step)
        self._settle(step, self._attempts.told_to_end())
        now = self._clock.now()
        while step.finished:
            self._finish_subflow(step, step.finished.pop(), now)
        if not self._cancelling and self._root.run.state is ExecutionState.RUNNING:
            step.changes.note(NoteRecord(self._root.run.id, NoteKind.INTERRUPT, now))
        for live in self._runs.values():
            if not self._cancelling:
                live.machine.interrupt(step, now)
            elif not ExecutionState.is_terminal(live.run.state):
                live.machine.cancel(step, now, logs=logs.get(live))
        step.changes.flush = step.changes.release = True
        if not self._try_commit(step):
            await self._commit(step)
        self.heeded += self._heard
        if self._cancelling and hurried:
            raise asyncio.CancelledError

    async def _cancel_attempts(self) -> bool:
        """Ask all attempts to end, and wait for those that can; whether somebody asked not to wait."""
        for lane in self._lanes:
            lane.executor.cancel()
        for lane in self._lanes:
            try:
                await lane.executor.wait(self._grace)
            except asyncio.CancelledError:
                return True  # asked a second time: go on without the stragglers
        return False

    def _close(self) -> None:
        self._attempts.forget()
        self._admission.close()
        if self._alarm is not None:
            self._alarm.cancel()
        self._lanes.close()
