"""The lifecycle as data and as decisions: records in, a step out, no store and no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import pytest

from .. import (
    AttemptResult,
    ExecutionState,
    IllegalTransitionError,
    RetryPolicy,
    RunFinished,
    RunInterrupted,
    RunRecord,
    RunStarted,
    TaskCancelled,
    TaskFailed,
    TaskInterrupted,
    TaskRecord,
    TaskReset,
    TaskRetryScheduled,
    TaskSkipped,
    TaskStarted,
    TaskSucceeded,
    TaskType,
)
from ..graph import Graph
from ..machine import RunMachine
from ..models import TERMINAL_STATES, Failure
from ..retry_manager import NO_RETRY
from ..steps import RUN_EDGES, TASK_EDGES, Edge, Step

NONE, SCHEDULED, RUNNING, SUCCESS, FAILED, SKIPPED, CANCELLED = ExecutionState
ALL_PAIRS = list(product(ExecutionState, ExecutionState))
NOW = 1_700_000_000_000_000
SECOND = 1_000_000
BOOM = Failure("ValueError", "boom", "Traceback ...\nValueError: boom\n")
CHAIN = {"a": (), "b": ("a",), "c": ("b",)}
DIAMOND = {"load": (), "left": ("load",), "right": ("load",), "join": ("left", "right")}


class Given:
    """A run that stands as described, and a machine over it. `given.begin()` and its like answer with the step they make."""

    def __init__(
        self,
        upstream: Mapping[str, Sequence[str]],
        states: Mapping[str, ExecutionState] | None = None,
        policy: RetryPolicy = NO_RETRY,
        run_state: ExecutionState = SCHEDULED,
        kept: Callable[[Failure], Failure] = lambda failure: failure,
    ) -> None:
        self.run = RunRecord("run-1", "nightly", "{}", "", NOW, run_state)
        known = {**dict.fromkeys(upstream, SCHEDULED), **(states or {})}
        self.tasks = {
            task_id: TaskRecord("run-1", task_id, position, state=state)
            for position, (task_id, state) in enumerate(known.items())
        }
        self.policies = dict.fromkeys(known, policy)
        self.machine = RunMachine(Graph(upstream), self.run, self.tasks.values(), self.policies, kept)

    def begin(self, now: int = NOW) -> Step:
        step = Step()
        self.machine.begin(step, now)
        return step

    def start(self, *task_ids: str, now: int = NOW) -> Step:
        step = Step()
        for task_id in task_ids:
            self.machine.start(step, self.tasks[task_id], now)
        return step

    def succeeded(self, task_id: str, output: str | None = "1", logs: str | None = None, now: int = NOW) -> Step:
        step = Step()
        self.machine.succeeded(step, self.tasks[task_id], output, logs, now)
        return step

    def failed(self, task_id: str, failure: Failure = BOOM, logs: str | None = None, now: int = NOW) -> Step:
        step = Step()
        self.machine.failed(step, self.tasks[task_id], failure, logs, now)
        return step

    def cancelled(self, task_id: str, logs: str | None = None, now: int = NOW) -> Step:
        step = Step()
        self.machine.cancelled(step, self.tasks[task_id], now, logs)
        return step

    def cancel(self, now: int = NOW, logs: Mapping[str, str | None] | None = None) -> Step:
        step = Step()
        self.machine.cancel(step, now, logs=logs)
        return step

    def interrupt(self, now: int = NOW) -> Step:
        step = Step()
        self.machine.interrupt(step, now)
        return step

    def reset(self, *task_ids: str, keep_child: Sequence[str] = (), now: int = NOW) -> Step:
        step = Step()
        self.machine.reset(step, task_ids, now, keep_child)
        return step

    def done(self, *task_ids: str) -> None:
        """These tasks run and succeed, one after the other."""
        for task_id in task_ids:
            self.start(task_id)
            self.succeeded(task_id)

    def states(self) -> dict[str, ExecutionState]:
        return {task_id: record.state for task_id, record in self.tasks.items()}


def ready(step: Step) -> list[str]:
    return [record.task_id for record in step.ready]


def delayed(step: Step) -> dict[str, float]:
    return {record.task_id: seconds for record, seconds in step.delayed}


def changed(step: Step) -> list[str]:
    return [record.task_id for record in step.changes.tasks]


def told(step: Step) -> list[type]:
    return [type(event) for event in step.events]


# --- the tables ---


@pytest.mark.parametrize("edges", [TASK_EDGES, RUN_EDGES], ids=["task", "run"])
def test_every_legal_edge_stands_once_with_a_reason(edges: tuple[Edge, ...]) -> None:
    assert all(edge.reason.strip() for edge in edges)
    assert len({(edge.source, edge.target) for edge in edges}) == len(edges)


@pytest.mark.parametrize("edges", [TASK_EDGES, RUN_EDGES], ids=["task", "run"])
def test_a_terminal_state_is_left_by_manual_retry_alone(edges: tuple[Edge, ...]) -> None:
    leaving = [edge for edge in edges if edge.source in TERMINAL_STATES]
    assert leaving
    assert all(edge.target is SCHEDULED and edge.reason.startswith("manual retry") for edge in leaving)


@pytest.mark.parametrize("edges", [TASK_EDGES, RUN_EDGES], ids=["task", "run"])
def test_every_state_of_a_run_can_be_reached_and_none_is_no_state_of_a_run(edges: tuple[Edge, ...]) -> None:
    reached = {SCHEDULED}
    for _ in edges:
        reached |= {edge.target for edge in edges if edge.source in reached}
    assert reached == {state for edge in edges for state in (edge.source, edge.target)}
    assert NONE not in reached


@pytest.mark.parametrize(("source", "target"), ALL_PAIRS)
def test_a_task_moves_along_the_edges_of_the_table_and_no_others(source: ExecutionState, target: ExecutionState) -> None:
    given = Given(CHAIN, {"a": source})
    step, record = Step(), given.tasks["a"]
    if any((edge.source, edge.target) == (source, target) for edge in TASK_EDGES):
        given.machine._move(step, record, target)
        assert record.state is target
        assert changed(step) == ["a"]
    else:
        with pytest.raises(IllegalTransitionError) as caught:
            given.machine._move(step, record, target)
        assert str(caught.value) == f"Task 'a' cannot go from {source} to {target}."
        assert record.state is source
        assert not step


@pytest.mark.parametrize(("source", "target"), [(source, target) for source, target in ALL_PAIRS if source is not target])
def test_a_run_moves_along_the_edges_of_the_table_and_no_others(source: ExecutionState, target: ExecutionState) -> None:
    given = Given(CHAIN, run_state=source)
    step = Step()
    if any((edge.source, edge.target) == (source, target) for edge in RUN_EDGES):
        given.machine._move_run(step, target)
        assert given.run.state is target
        assert step.changes.runs == [given.run]
    else:
        with pytest.raises(IllegalTransitionError) as caught:
            given.machine._move_run(step, target)
        assert str(caught.value) == f"Run 'run-1' cannot go from {source} to {target}."
        assert given.run.state is source
        assert not step


@pytest.mark.parametrize("state", [state for state in ExecutionState if state is not SCHEDULED])
def test_only_a_waiting_task_can_be_started(state: ExecutionState) -> None:
    given = Given(CHAIN, {"a": state})
    before = repr(given.tasks["a"])
    with pytest.raises(IllegalTransitionError):
        given.start("a")
    assert repr(given.tasks["a"]) == before


@pytest.mark.parametrize("state", [state for state in ExecutionState if state is not RUNNING])
@pytest.mark.parametrize("ending", ["succeeded", "failed", "failed with a retry left", "interrupted"])
def test_only_a_running_task_can_end_and_a_refused_end_leaves_its_record_as_it_was(state: ExecutionState, ending: str) -> None:
    given = Given(CHAIN, {"a": state}, RetryPolicy(3 if ending.endswith("left") else 0))
    record, step = given.tasks["a"], Step()
    before = repr(record)
    with pytest.raises(IllegalTransitionError):
        if ending == "succeeded":
            given.machine.succeeded(step, record, "1", None, NOW)
        elif ending == "interrupted":
            given.machine.interrupted(step, record, NOW)
        else:
            given.machine.failed(step, record, BOOM, None, NOW)
    assert repr(record) == before
    assert not step
    assert not step.events


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES | {NONE}))
def test_a_run_that_has_ended_cannot_begin_again_by_itself(state: ExecutionState) -> None:
    with pytest.raises(IllegalTransitionError, match=f"cannot go from {state} to running"):
        Given(CHAIN, run_state=state).begin()


# --- beginning ---


def test_what_depends_on_nothing_is_ready_when_a_run_begins() -> None:
    given = Given({"a": (), "b": ("a",), "c": ()})
    step = given.begin()
    assert ready(step) == ["a", "c"]
    assert step.ready[0] is given.tasks["a"]
    assert step.changes.runs == [given.run]
    assert (given.run.state, given.run.started, given.run.ended) == (RUNNING, NOW, None)
    assert step.events == [RunStarted("nightly", "run-1", NOW)]


def test_being_ready_changes_nothing_yet_for_the_store() -> None:
    assert changed(Given(CHAIN).begin()) == []


def test_a_run_without_tasks_ends_as_it_begins() -> None:
    given = Given({})
    step = given.begin()
    assert (given.run.state, given.run.ended) == (SUCCESS, NOW)
    assert step.finished == [given.run]
    assert step.events == [RunStarted("nightly", "run-1", NOW), RunFinished("nightly", "run-1", NOW, SUCCESS)]


def test_a_continued_run_takes_up_where_it_stood_and_keeps_its_start() -> None:
    given = Given(DIAMOND, {"load": SUCCESS, "left": SUCCESS}, run_state=RUNNING)
    given.run.started = NOW - 5 * SECOND
    step = given.begin()
    assert ready(step) == ["right"]
    assert given.run.started == NOW - 5 * SECOND
    given.start("right")
    assert ready(given.succeeded("right")) == ["join"]


def test_tasks_found_running_were_interrupted_and_are_ready_again() -> None:
    given = Given(DIAMOND, {"load": SUCCESS, "left": RUNNING}, run_state=RUNNING)
    step = given.begin()
    assert ready(step) == ["left", "right"]
    assert told(step) == [TaskInterrupted, RunStarted]
    assert [(attempt.task_id, attempt.result) for attempt in step.changes.attempts] == [("left", AttemptResult.INTERRUPTED)]


def test_what_stands_behind_a_task_that_failed_is_skipped_when_the_run_is_continued() -> None:
    given = Given({**CHAIN, "other": ()}, {"a": FAILED}, run_state=RUNNING)
    step = given.begin()
    assert given.states() == {"a": FAILED, "b": SKIPPED, "c": SKIPPED, "other": SCHEDULED}
    assert {given.tasks[task_id].reason for task_id in ("b", "c")} == {"upstream task 'a' failed"}
    assert ready(step) == ["other"]


def test_the_order_of_definition_does_not_matter_for_what_is_skipped() -> None:
    given = Given({"c": ("b",), "b": ("a",), "a": ()}, {"a": FAILED}, run_state=RUNNING)
    assert told(given.begin()) == [RunStarted, TaskSkipped, TaskSkipped, RunFinished]
    assert given.tasks["c"].reason == "upstream task 'a' failed"


def test_a_task_skipped_from_two_sides_is_skipped_once() -> None:
    given = Given(DIAMOND, {"load": SUCCESS, "left": FAILED, "right": FAILED}, run_state=RUNNING)
    step = given.begin()
    assert changed(step) == ["join"]
    assert given.run.state is FAILED
    assert given.tasks["join"].reason == "upstream task 'left' failed"


def test_a_task_behind_one_that_was_cancelled_says_so() -> None:
    given = Given(CHAIN, {"a": CANCELLED}, run_state=RUNNING)
    given.begin()
    assert given.tasks["b"].reason == "upstream task 'a' was cancelled"


def test_history_that_the_graph_does_not_know_decides_nothing() -> None:
    given = Given({"a": ()}, {"gone": FAILED}, run_state=RUNNING)
    assert ready(given.begin()) == ["a"]
    given.start("a")
    given.succeeded("a")
    assert given.run.state is SUCCESS


def test_the_machine_shows_where_its_run_stands() -> None:
    given = Given(DIAMOND, {"load": SUCCESS})
    given.begin()
    assert repr(given.machine) == "<RunMachine 'nightly' 'run-1' running, 3 tasks open>"


# --- one attempt ---


def test_an_attempt_that_begins_is_written_with_its_time_and_number() -> None:
    given = Given(CHAIN)
    given.begin()
    step = given.start("a", now=NOW + 1)
    record = given.tasks["a"]
    assert (record.state, record.started, record.attempts, record.try_number) == (RUNNING, NOW + 1, 1, 0)
    assert changed(step) == ["a"]
    assert step.events == [TaskStarted("nightly", "run-1", NOW + 1, "a", 0)]
    assert bool(step)


def test_success_keeps_output_and_logs_and_makes_ready_what_waited_for_it_alone() -> None:
    given = Given(DIAMOND)
    given.begin()
    given.start("load")
    step = given.succeeded("load", '{"rows":3}', "[]", NOW + 2)
    record = given.tasks["load"]
    assert (record.state, record.ended, record.output, record.logs) == (SUCCESS, NOW + 2, '{"rows":3}', "[]")
    assert ready(step) == ["left", "right"]
    assert changed(step) == ["load"]
    assert step.events == [TaskSucceeded("nightly", "run-1", NOW + 2, "load", 0)]
    assert step.finished == []


def test_a_task_with_two_upstreams_waits_for_the_later_one() -> None:
    given = Given(DIAMOND)
    given.begin()
    given.done("load")
    given.start("left", "right")
    assert ready(given.succeeded("right")) == []
    assert ready(given.succeeded("left")) == ["join"]


def test_the_last_success_ends_the_run_with_the_event_after_the_tasks_own() -> None:
    given = Given({"a": ()})
    given.begin()
    given.start("a")
    step = given.succeeded("a", now=NOW + 3)
    assert (given.run.state, given.run.ended) == (SUCCESS, NOW + 3)
    assert step.changes.runs == [given.run]
    assert step.finished == [given.run]
    assert told(step) == [TaskSucceeded, RunFinished]


def test_a_failure_is_kept_and_everything_downstream_is_skipped_with_the_root_cause() -> None:
    given = Given({**CHAIN, "other": ()})
    given.begin()
    given.start("a")
    step = given.failed("a", logs="[]", now=NOW + 4)
    record = given.tasks["a"]
    assert (record.state, record.ended, record.logs) == (FAILED, NOW + 4, "[]")
    assert (record.error, record.reason) == (BOOM.traceback, "ValueError: boom")
    assert given.states() == {"a": FAILED, "b": SKIPPED, "c": SKIPPED, "other": SCHEDULED}
    assert given.tasks["c"].reason == "upstream task 'a' failed"
    assert given.tasks["c"].ended == NOW + 4
    assert changed(step) == ["a", "b", "c"]
    assert step.events == [
        TaskFailed("nightly", "run-1", NOW + 4, "a", 0, "ValueError: boom"),
        TaskSkipped("nightly", "run-1", NOW + 4, "b", 0, "upstream task 'a' failed"),
        TaskSkipped("nightly", "run-1", NOW + 4, "c", 0, "upstream task 'a' failed"),
    ]
    assert given.run.state is RUNNING


def test_branches_that_do_not_depend_on_a_failure_run_on_and_the_run_fails_at_its_end() -> None:
    given = Given({"bad": (), "good": (), "after": ("good",)})
    given.begin()
    given.start("bad", "good")
    given.failed("bad")
    assert ready(given.succeeded("good")) == ["after"]
    given.start("after")
    step = given.succeeded("after", now=NOW + 9)
    assert given.run.state is FAILED
    assert step.events[-1] == RunFinished("nightly", "run-1", NOW + 9, FAILED)


def test_a_success_does_not_wake_what_a_failure_has_skipped() -> None:
    given = Given(DIAMOND)
    given.begin()
    given.done("load")
    given.start("left", "right")
    given.failed("left")
    step = given.succeeded("right")
    assert ready(step) == []
    assert given.tasks["join"].state is SKIPPED
    assert step.finished == [given.run]


def test_a_failure_that_skips_the_rest_ends_the_run_in_the_same_step() -> None:
    given = Given(CHAIN)
    given.begin()
    given.start("a")
    step = given.failed("a")
    assert told(step) == [TaskFailed, TaskSkipped, TaskSkipped, RunFinished]
    assert given.run.state is FAILED


def test_a_task_behind_two_failures_is_skipped_once_and_names_the_first() -> None:
    given = Given(DIAMOND)
    given.begin()
    given.done("load")
    given.start("left", "right")
    assert told(given.failed("right")) == [TaskFailed, TaskSkipped]
    assert told(given.failed("left")) == [TaskFailed, RunFinished]
    assert given.tasks["join"].reason == "upstream task 'right' failed"


# --- retries ---


def test_a_retry_that_is_left_schedules_another_attempt_when_its_delay_is_over() -> None:
    given = Given(CHAIN, policy=RetryPolicy(1, 2.5))
    given.begin()
    given.start("a")
    step = given.failed("a", logs="[]", now=NOW + SECOND)
    record = given.tasks["a"]
    assert (record.state, record.due) == (SCHEDULED, NOW + SECOND + 2_500_000)
    assert delayed(step) == {"a": 2.5}
    assert ready(step) == []
    assert step.events == [TaskRetryScheduled("nightly", "run-1", NOW + SECOND, "a", 0, "ValueError: boom", 2.5)]
    assert given.tasks["b"].state is SCHEDULED
    (attempt,) = step.changes.attempts
    assert (attempt.run_id, attempt.task_id, attempt.position, attempt.number, attempt.try_number) == ("run-1", "a", 0, 1, 0)
    assert (attempt.result, attempt.started, attempt.ended) == (AttemptResult.FAILED, NOW, NOW + SECOND)
    assert (attempt.error, attempt.reason, attempt.logs) == (BOOM.traceback, "ValueError: boom", "[]")


def test_without_a_delay_the_next_attempt_is_ready_at_once() -> None:
    given = Given(CHAIN, policy=RetryPolicy(1))
    given.begin()
    given.start("a")
    step = given.failed("a")
    assert ready(step) == ["a"]
    assert delayed(step) == {}


def test_two_retries_are_three_attempts_and_the_last_of_them_fails_the_task() -> None:
    given = Given(CHAIN, policy=RetryPolicy(2))
    given.begin()
    seen: list[Any] = []
    for _ in range(3):
        given.start("a")
        step = given.failed("a")
        seen.append((given.tasks["a"].try_number, given.tasks["a"].attempts, told(step)[0]))
    assert seen == [(0, 1, TaskRetryScheduled), (1, 2, TaskRetryScheduled), (2, 3, TaskFailed)]
    assert given.tasks["a"].state is FAILED


def test_a_new_attempt_begins_clean_of_the_one_before() -> None:
    given = Given(CHAIN, policy=RetryPolicy(1, 5.0))
    given.begin()
    given.start("a")
    given.failed("a", logs="[]")
    given.start("a", now=NOW + 5 * SECOND)
    record = given.tasks["a"]
    assert (record.ended, record.due, record.error, record.reason, record.logs) == (None, None, None, None, None)
    assert record.started == NOW + 5 * SECOND


def test_a_continued_run_waits_for_the_rest_of_a_delay_and_no_longer() -> None:
    given = Given(CHAIN, policy=RetryPolicy(1, 60.0), run_state=RUNNING)
    given.tasks["a"].due = NOW + 20 * SECOND
    assert delayed(given.begin()) == {"a": 20.0}


@pytest.mark.parametrize("late", [0, 1, 3600 * SECOND])
def test_a_delay_that_is_over_when_the_run_is_continued_is_not_repeated(late: int) -> None:
    given = Given(CHAIN, policy=RetryPolicy(1, 60.0), run_state=RUNNING)
    given.tasks["a"].due = NOW - late
    step = given.begin()
    assert ready(step) == ["a"]
    assert delayed(step) == {}


def test_a_wall_clock_that_was_set_back_does_not_stretch_the_wait_beyond_the_delay() -> None:
    given = Given(CHAIN, policy=RetryPolicy(1, 60.0), run_state=RUNNING)
    given.tasks["a"].ended = NOW + 365 * 24 * 3600 * SECOND
    given.tasks["a"].due = given.tasks["a"].ended + 60 * SECOND
    assert delayed(given.begin()) == {"a": 60.0}


# --- interruptions ---


def test_an_interrupted_attempt_goes_to_the_history_and_its_task_back_to_waiting() -> None:
    given = Given(CHAIN)
    given.begin()
    given.start("a")
    step = Step()
    given.machine.interrupted(step, given.tasks["a"], NOW + 7)
    assert (given.tasks["a"].state, given.tasks["a"].interruptions) == (SCHEDULED, 1)
    (attempt,) = step.changes.attempts
    assert (attempt.result, attempt.number, attempt.ended) == (AttemptResult.INTERRUPTED, 1, NOW + 7)
    assert attempt.reason == "interrupted before it ended"
    assert step.events == [TaskInterrupted("nightly", "run-1", NOW + 7, "a", 0)]


def test_interruptions_use_up_no_retry() -> None:
    given = Given({"a": ()}, policy=RetryPolicy(1))
    given.begin()
    outcomes: list[type] = []
    for ending in ("interrupt", "fail", "interrupt", "interrupt", "fail"):
        given.start("a")
        step = Step()
        if ending == "interrupt":
            given.machine.interrupted(step, given.tasks["a"], NOW)
        else:
            given.machine.failed(step, given.tasks["a"], BOOM, None, NOW)
        outcomes.append(told(step)[0])
    assert outcomes == [TaskInterrupted, TaskRetryScheduled, TaskInterrupted, TaskInterrupted, TaskFailed]
    assert (given.tasks["a"].try_number, given.tasks["a"].attempts, given.tasks["a"].interruptions) == (4, 5, 3)


def test_an_interrupted_run_puts_back_what_is_in_flight_and_can_begin_again() -> None:
    given = Given({"a": (), "b": (), "c": ()})
    given.begin()
    given.start("a", "b")
    given.succeeded("b")
    step = given.interrupt(NOW + 8)
    assert given.states() == {"a": SCHEDULED, "b": SUCCESS, "c": SCHEDULED}
    assert given.run.state is SCHEDULED
    assert told(step) == [TaskInterrupted, RunInterrupted]
    assert step.events[-1] == RunInterrupted("nightly", "run-1", NOW + 8)
    assert ready(given.begin()) == ["a", "c"]
    given.done("a")
    assert given.run.state is RUNNING
    given.done("c")
    assert given.run.state is SUCCESS


def test_a_run_that_has_ended_is_not_interrupted_any_more() -> None:
    given = Given({"a": ()})
    given.begin()
    given.done("a")
    step = given.interrupt()
    assert given.run.state is SUCCESS
    assert not step
    assert not step.events


# --- how many interruptions a task may have ---

FRAGILE = RetryPolicy(max_interruptions=2)
ONCE = RetryPolicy(max_retries=9, on_interrupt="fail")


def die(given: Given, *task_ids: str) -> Step:
    """The process dies while these tasks run; the next one begins the run again."""
    given.start(*task_ids)
    return given.begin()


def test_a_task_in_which_the_process_dies_again_and_again_fails_at_the_last_death_of_its_budget() -> None:
    given = Given({"a": (), "b": ("a",), "other": ()}, policy=FRAGILE)
    given.begin()
    assert ready(die(given, "a")) == ["a", "other"]
    assert (given.tasks["a"].crashes, given.tasks["a"].interruptions) == (1, 1)
    step = die(given, "a")
    record = given.tasks["a"]
    assert given.states() == {"a": FAILED, "b": SKIPPED, "other": SCHEDULED}
    assert (record.crashes, record.interruptions, record.failures) == (2, 2, 0)
    assert record.reason == "TaskInterrupted: its process died or lost the run 2 times while it ran (max_interruptions=2)"
    assert record.error is not None
    assert "flow.retry(" in record.error
    assert given.tasks["b"].reason == "upstream task 'a' failed"
    assert ready(step) == ["other"]
    assert told(step) == [TaskFailed, RunStarted, TaskSkipped]
    (attempt,) = step.changes.attempts
    assert (attempt.number, attempt.result, attempt.reason) == (2, AttemptResult.INTERRUPTED, record.reason)
    given.start("other")
    assert told(given.succeeded("other")) == [TaskSucceeded, RunFinished]
    assert given.run.state is FAILED


def test_five_deaths_are_the_budget_unless_the_task_says_otherwise() -> None:
    given = Given({"a": ()})
    given.begin()
    deaths = 0
    while given.tasks["a"].state is SCHEDULED:
        die(given, "a")
        deaths += 1
    assert deaths == 5


def test_a_run_whose_last_task_fails_by_its_budget_ends_in_the_step_in_which_it_begins() -> None:
    given = Given({"done": (), "a": ("done",)}, {"done": SUCCESS}, RetryPolicy(max_interruptions=1))
    given.begin()
    step = die(given, "a")
    assert (given.run.state, step.finished) == (FAILED, [given.run])
    assert told(step) == [TaskFailed, RunStarted, RunFinished]
    assert given.tasks["a"].reason is not None
    assert "died or lost the run once while" in given.tasks["a"].reason


def test_everything_that_ran_when_the_process_died_counts_it() -> None:
    given = Given({"a": (), "b": (), "c": ()}, policy=FRAGILE)
    given.begin()
    die(given, "a", "b")
    assert [record.crashes for record in given.tasks.values()] == [1, 1, 0]


def test_being_stopped_in_an_orderly_way_costs_nothing_of_the_budget() -> None:
    given = Given({"a": ()}, policy=RetryPolicy(max_interruptions=1))
    for _ in range(3):
        given.begin()
        given.start("a")
        given.interrupt()
    given.begin()
    given.start("a")
    given.machine.interrupted(Step(), given.tasks["a"], NOW)
    assert (given.tasks["a"].state, given.tasks["a"].interruptions, given.tasks["a"].crashes) == (SCHEDULED, 4, 0)


def test_deaths_use_up_no_retry_and_failures_nothing_of_the_budget() -> None:
    given = Given({"a": ()}, policy=RetryPolicy(max_retries=1, max_interruptions=3))
    given.begin()
    die(given, "a")
    given.start("a")
    assert told(given.failed("a")) == [TaskRetryScheduled]
    die(given, "a")
    assert given.tasks["a"].crashes == 2
    given.start("a")
    assert told(given.failed("a")) == [TaskFailed, RunFinished]


def test_a_manual_retry_gives_the_whole_budget_back_and_leaves_the_history_as_it_was() -> None:
    given = Given({"a": ()}, policy=FRAGILE)
    given.begin()
    die(given, "a")
    die(given, "a")
    step = given.reset("a")
    assert {attempt.result for attempt in step.changes.attempts} == {AttemptResult.INTERRUPTED}
    assert given.tasks["a"] == TaskRecord("run-1", "a", 0, attempts=2)
    given.begin()
    die(given, "a")
    assert (given.tasks["a"].state, given.tasks["a"].crashes) == (SCHEDULED, 1)


def test_a_manual_retry_of_what_a_dead_process_left_behind_asks_for_no_budget() -> None:
    given = Given({"a": ()}, {"a": RUNNING}, RetryPolicy(max_interruptions=1), run_state=RUNNING)
    given.reset("a")
    assert (given.tasks["a"].state, given.tasks["a"].crashes) == (SCHEDULED, 0)


def test_a_subflow_whose_run_was_begun_is_put_back_however_often_and_one_that_makes_its_params_is_not() -> None:
    given = Given({"sub": (), "params": ()}, {"sub": RUNNING, "params": RUNNING}, ONCE, run_state=RUNNING)
    for record in given.tasks.values():
        record.type, record.crashes = TaskType.FLOW, 10
    given.tasks["sub"].child_run_id = "child"
    step = given.begin()
    assert given.states() == {"sub": SCHEDULED, "params": FAILED}
    assert ready(step) == ["sub"]
    assert given.tasks["sub"].crashes == 10


@pytest.mark.parametrize("ending", ["death", "stop", "stop of the run"])
def test_a_task_that_must_not_run_twice_fails_at_its_first_interruption_of_any_kind(ending: str) -> None:
    given = Given({**CHAIN, "other": ()}, policy=ONCE)
    given.begin()
    given.start("a", "other")
    given.succeeded("other")
    step = Step()
    if ending == "death":
        step = given.begin()
    elif ending == "stop":
        given.machine.interrupted(step, given.tasks["a"], NOW, "[]")
    else:
        step = given.interrupt()
        assert given.run.state is SCHEDULED, "a run does not end by being stopped"
        assert given.states() == {"a": FAILED, "b": SCHEDULED, "c": SCHEDULED, "other": SUCCESS}
        given.begin()
    record = given.tasks["a"]
    what = "process died or lost the run" if ending == "death" else "run was stopped"
    assert record.reason == f'TaskInterrupted: its {what} while it ran, and on_interrupt="fail" forbids to run it again by itself'
    assert given.states() == {"a": FAILED, "b": SKIPPED, "c": SKIPPED, "other": SUCCESS}
    assert given.run.state is FAILED
    assert [attempt.result for attempt in step.changes.attempts] == [AttemptResult.INTERRUPTED]
    assert TaskFailed in told(step)
    assert TaskInterrupted not in told(step), "an attempt has one end"


def test_a_task_that_must_not_run_twice_may_fail_and_be_tried_again() -> None:
    given = Given({"a": ()}, policy=ONCE)
    given.begin()
    given.start("a")
    assert told(given.failed("a")) == [TaskRetryScheduled]


def test_a_gone_task_that_ran_when_the_process_died_needs_no_policy() -> None:
    given = Given({"a": ()}, {"gone": RUNNING}, run_state=RUNNING)
    del given.policies["gone"]
    assert ready(given.begin()) == ["a"]
    assert given.tasks["gone"].state is SCHEDULED


# --- what is kept of a failure ---


def test_a_failure_is_stored_and_told_as_whoever_keeps_it_makes_it() -> None:
    given = Given({"a": ()}, kept=lambda failure: Failure("Kept", failure.message.upper(), "..."))
    given.begin()
    given.start("a")
    step = given.failed("a")
    assert (given.tasks["a"].error, given.tasks["a"].reason) == ("...", "Kept: BOOM")
    assert TaskFailed("nightly", "run-1", NOW, "a", 0, "Kept: BOOM") in step.events


# --- cancelling ---


def test_a_running_task_that_is_cancelled_goes_to_the_history_and_what_is_downstream_is_skipped() -> None:
    given = Given({**CHAIN, "beside": ()})
    given.begin()
    given.start("a", "beside")
    step = given.cancelled("a", logs="[]", now=NOW + 5)
    assert given.states() == {"a": CANCELLED, "b": SKIPPED, "c": SKIPPED, "beside": RUNNING}
    record = given.tasks["a"]
    assert (record.ended, record.reason, record.error, record.logs) == (NOW + 5, "it was cancelled", None, "[]")
    assert {given.tasks[task_id].reason for task_id in "bc"} == {"upstream task 'a' was cancelled"}
    (attempt,) = step.changes.attempts
    assert (attempt.task_id, attempt.number, attempt.result) == ("a", 1, AttemptResult.CANCELLED)
    assert (attempt.started, attempt.ended, attempt.reason, attempt.logs) == (NOW, NOW + 5, "it was cancelled", "[]")
    assert step.events[0] == TaskCancelled("nightly", "run-1", NOW + 5, "a", 0, "it was cancelled")
    assert told(step) == [TaskCancelled, TaskSkipped, TaskSkipped]
    assert (given.run.state, step.finished) == (RUNNING, [])


def test_a_run_in_which_a_task_was_cancelled_and_none_failed_has_failed_all_the_same() -> None:
    given = Given({"a": (), "b": ()})
    given.begin()
    given.start("a")
    given.cancelled("b")
    step = given.succeeded("a")
    assert given.run.state is FAILED
    assert step.finished == [given.run]
    assert step.events[-1] == RunFinished("nightly", "run-1", NOW, FAILED)


def test_a_waiting_task_that_is_cancelled_never_runs_and_has_no_attempt() -> None:
    given = Given(CHAIN)
    given.begin()
    given.start("a")
    step = given.cancelled("c")
    assert step.changes.attempts == []
    assert (given.tasks["c"].state, given.tasks["c"].started, given.tasks["c"].ended) == (CANCELLED, None, NOW)
    given.succeeded("a")
    given.start("b")
    assert ready(given.succeeded("b")) == []
    assert given.run.state is FAILED


def test_a_task_that_waits_for_a_retry_and_is_cancelled_keeps_its_one_attempt() -> None:
    given = Given({"a": ()}, policy=RetryPolicy(1, 9.0))
    given.begin()
    given.start("a")
    given.failed("a")
    step = given.cancelled("a")
    assert (step.changes.attempts, given.tasks["a"].due, given.tasks["a"].error) == ([], None, BOOM.traceback)
    assert given.run.state is FAILED


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_a_task_that_has_ended_is_not_cancelled_any_more(state: ExecutionState) -> None:
    given = Given(CHAIN, {"a": state}, run_state=RUNNING)
    with pytest.raises(IllegalTransitionError, match=f"from {state} to cancelled"):
        given.cancelled("a")
    assert given.tasks["a"].state is state


def test_a_task_of_a_run_that_has_not_begun_is_cancelled_alone_and_the_rest_follows_when_it_begins() -> None:
    given = Given(CHAIN)
    step = given.cancelled("a")
    assert given.states() == {"a": CANCELLED, "b": SCHEDULED, "c": SCHEDULED}
    assert (given.run.state, changed(step)) == (SCHEDULED, ["a"])
    step = given.begin()
    assert given.states() == {"a": CANCELLED, "b": SKIPPED, "c": SKIPPED}
    assert (given.run.state, step.finished) == (FAILED, [given.run])


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_is_cancelled_has_ended_with_all_that_had_not(begun: bool) -> None:
    given = Given({"done": (), **DIAMOND, "bad": ()}, run_state=SCHEDULED)
    if begun:
        given.begin()
        given.done("done")
        given.start("load", "bad")
        given.failed("bad")
    step = given.cancel(now=NOW + 7, logs={"load": "[]"})
    ended = {"done": SUCCESS, "bad": FAILED} if begun else {}
    assert given.states() == {**dict.fromkeys(given.tasks, CANCELLED), **ended}
    assert (given.run.state, given.run.ended, step.finished) == (CANCELLED, NOW + 7, [given.run])
    assert [attempt.task_id for attempt in step.changes.attempts] == (["load"] if begun else [])
    assert {given.tasks[task_id].reason for task_id in DIAMOND} == {"its run was cancelled"}
    assert given.tasks["load"].logs == ("[]" if begun else None)
    assert step.events[-1] == RunFinished("nightly", "run-1", NOW + 7, CANCELLED)
    assert told(step)[:-1] == [TaskCancelled] * (len(given.tasks) - len(ended))
    assert (given.machine._open, ready(step)) == (0, [])


@pytest.mark.parametrize("state", [SUCCESS, FAILED, CANCELLED])
def test_a_run_that_has_ended_is_not_cancelled_any_more(state: ExecutionState) -> None:
    given = Given({"a": ()}, run_state=state)
    with pytest.raises(IllegalTransitionError):
        given.cancel()
    assert given.states() == {"a": SCHEDULED}


def test_a_late_outcome_of_a_cancelled_attempt_is_no_success() -> None:
    given = Given(CHAIN)
    given.begin()
    given.start("a")
    given.cancelled("a")
    for late in (given.succeeded, given.failed):
        with pytest.raises(IllegalTransitionError):
            late("a")
    assert given.tasks["a"].state is CANCELLED


@pytest.mark.parametrize("whole", [True, False])
def test_a_manual_retry_brings_back_what_was_cancelled_with_one_attempt_in_the_history(whole: bool) -> None:
    given = Given(CHAIN)
    given.begin()
    given.start("a")
    if whole:
        given.cancel()
    else:
        given.cancelled("a")
    step = given.reset("a", "b", "c")
    assert step.changes.attempts == []  # it was archived when it was cancelled
    assert given.tasks["a"] == TaskRecord("run-1", "a", 0, attempts=1)
    assert (given.run.state, given.run.ended) == (SCHEDULED, None)
    assert ready(given.begin()) == ["a"]
    given.done("a", "b", "c")
    assert given.run.state is SUCCESS


def test_a_retry_that_nobody_asked_for_leaves_alone_what_was_cancelled() -> None:
    given = Given({"bad": (), "stopped": (), "behind": ("stopped",)}, {"bad": FAILED, "stopped": CANCELLED, "behind": SKIPPED})
    given.run.state = FAILED
    given.machine.reset_failed(Step(), NOW, cancelled=False)
    assert given.states() == {"bad": SCHEDULED, "stopped": CANCELLED, "behind": SCHEDULED}
    given.begin()
    given.done("bad")
    assert (given.tasks["behind"].state, given.run.state) == (SKIPPED, FAILED)


# --- manual retry ---


def test_a_reset_task_is_as_new_but_for_the_number_of_its_attempts() -> None:
    given = Given({"a": ()}, policy=RetryPolicy(1, 9.0))
    given.begin()
    for _ in range(2):
        given.start("a")
        given.failed("a", logs="[]")
    record = given.tasks["a"]
    record.input, record.child_run_id = "{}", "child"
    step = given.reset("a", now=NOW + 10)
    assert record == TaskRecord("run-1", "a", 0, attempts=2)
    assert (given.run.state, given.run.ended) == (SCHEDULED, None)
    assert step.events == [TaskReset("nightly", "run-1", NOW + 10, "a", 0)]
    (attempt,) = step.changes.attempts
    assert (attempt.number, attempt.try_number, attempt.result) == (2, 1, AttemptResult.FAILED)
    assert (attempt.error, attempt.logs) == (BOOM.traceback, "[]")
    given.begin()
    given.start("a")
    assert (record.try_number, record.attempts) == (0, 3)


@pytest.mark.parametrize(
    ("state", "archived"),
    [
        (SUCCESS, [AttemptResult.SUCCESS]),
        (FAILED, [AttemptResult.FAILED]),
        (RUNNING, [AttemptResult.INTERRUPTED]),
        (SKIPPED, []),
        (SCHEDULED, []),
    ],
)
def test_a_reset_puts_the_latest_attempt_if_there_was_one_into_the_history(
    state: ExecutionState, archived: list[AttemptResult]
) -> None:
    given = Given(CHAIN, {"a": state}, run_state=FAILED)
    step = given.reset("a")
    assert given.tasks["a"].state is SCHEDULED
    assert [attempt.result for attempt in step.changes.attempts] == archived
    assert set(changed(step)) == {"a"}


def test_a_reset_during_the_wait_for_a_retry_ends_the_wait_and_gives_all_retries_back() -> None:
    given = Given({"a": ()}, policy=RetryPolicy(1, 9.0))
    given.begin()
    given.start("a")
    given.failed("a")
    given.interrupt()
    step = given.reset("a")
    assert changed(step) == ["a"]
    assert step.changes.attempts == []
    assert ready(given.begin()) == ["a"]
    given.start("a")
    assert told(given.failed("a")) == [TaskRetryScheduled]


def test_a_reset_of_a_subflow_forgets_its_child_unless_told_to_keep_it() -> None:
    given = Given({"kept": (), "fresh": ()}, {"kept": FAILED, "fresh": FAILED}, run_state=FAILED)
    for record in given.tasks.values():
        record.child_run_id, record.input = f"{record.task_id}-child", "{}"
    given.reset("kept", "fresh", keep_child=["kept"])
    assert (given.tasks["kept"].child_run_id, given.tasks["kept"].input) == ("kept-child", "{}")
    assert (given.tasks["fresh"].child_run_id, given.tasks["fresh"].input) == (None, None)


def test_a_reset_of_nothing_still_opens_the_run_again() -> None:
    given = Given(CHAIN, {"a": SUCCESS, "b": SUCCESS, "c": SUCCESS}, run_state=SUCCESS)
    step = given.reset()
    assert given.run.state is SCHEDULED
    assert step.changes.runs == [given.run]


def test_a_reset_of_a_run_that_waits_already_leaves_the_run_alone() -> None:
    given = Given(CHAIN, {"a": FAILED}, run_state=SCHEDULED)
    assert given.reset("a").changes.runs == []


def test_what_did_not_succeed_is_set_back_together_and_subflows_that_ran_keep_their_children() -> None:
    given = Given(
        {"ok": (), "bad": (), "behind": ("bad",), "stopped": (), "waiting": ()},
        {"ok": SUCCESS, "bad": FAILED, "behind": SKIPPED, "stopped": CANCELLED},
        run_state=FAILED,
    )
    for record in given.tasks.values():
        record.child_run_id = f"{record.task_id}-child"
    step = Step()
    given.machine.reset_failed(step, NOW)
    assert given.states() == {**dict.fromkeys(given.tasks, SCHEDULED), "ok": SUCCESS}
    assert [event.task_id for event in step.events if isinstance(event, TaskReset)] == ["bad", "behind", "stopped"]
    assert [given.tasks[task_id].child_run_id for task_id in ("bad", "behind", "stopped")] == [
        "bad-child",
        None,
        "stopped-child",
    ]


@pytest.mark.parametrize("ending", ["succeeds", "fails"])
def test_what_stays_done_behind_a_task_that_is_retried_alone_neither_runs_again_nor_is_skipped(ending: str) -> None:
    given = Given(CHAIN, {"a": SUCCESS, "b": SUCCESS, "c": SUCCESS}, run_state=SUCCESS)
    given.reset("a")
    assert ready(given.begin()) == ["a"]
    given.start("a")
    step = given.succeeded("a") if ending == "succeeds" else given.failed("a")
    assert ready(step) == []
    assert changed(step) == ["a"]
    assert given.run.state is (SUCCESS if ending == "succeeds" else FAILED)


# --- a changed graph ---


def test_an_adopted_graph_adds_its_new_tasks_and_closes_those_that_are_gone() -> None:
    given = Given(
        {"a": (), "new": ("a",)}, {"a": SUCCESS, "new": SCHEDULED, "gone": SCHEDULED, "cut_off": RUNNING, "was": SUCCESS}
    )
    new = given.machine.tasks.pop("new")
    step = Step()
    given.machine.adopt(step, '{"a":[],"new":["a"]}', [new], NOW)
    assert given.states() == {"a": SUCCESS, "new": SCHEDULED, "gone": SKIPPED, "cut_off": SKIPPED, "was": SUCCESS}
    assert {given.tasks[task_id].reason for task_id in ("gone", "cut_off")} == {"the flow's graph no longer has it"}
    assert [(attempt.task_id, attempt.result) for attempt in step.changes.attempts] == [("cut_off", AttemptResult.INTERRUPTED)]
    assert given.run.graph == '{"a":[],"new":["a"]}'
    assert set(changed(step)) == {"new", "gone", "cut_off"}
    assert step.changes.runs == [given.run]
    assert told(step) == [TaskSkipped, TaskInterrupted, TaskSkipped]
    assert ready(given.begin()) == ["new"]


def test_a_run_ends_well_after_a_task_that_is_gone_was_closed() -> None:
    given = Given({"a": ()}, {"gone": SCHEDULED})
    given.machine.adopt(Step(), "{}", [], NOW)
    assert ready(given.begin()) == ["a"]
    assert given.run.state is RUNNING
    given.done("a")
    assert given.run.state is SUCCESS


# --- the shape of the bookkeeping ---


def test_a_run_of_a_long_chain_and_a_failure_at_its_head_need_no_recursion() -> None:
    size = 20_000
    given = Given({f"t{index}": (f"t{index - 1}",) if index else () for index in range(size)})
    given.begin()
    given.start("t0")
    step = given.failed("t0")
    assert len(step.changes.tasks) == size
    assert given.tasks[f"t{size - 1}"].reason == "upstream task 't0' failed"
    assert given.run.state is FAILED


def test_an_empty_step_is_false_and_a_step_with_changes_true() -> None:
    assert not Step()
    assert Given({"a": ()}).begin()
