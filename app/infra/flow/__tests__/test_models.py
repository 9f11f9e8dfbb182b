"""The models that people hold: states that equal their strings, runs that tell of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from .. import ExecutionState, RunFailedError, State, TaskInstance, TaskType, WorkflowRun
from ..executors import failure_of
from ..models import TERMINAL_STATES, Failure


@pytest.mark.parametrize("state", ExecutionState)
def test_a_state_is_its_lower_case_string_in_every_way(state: ExecutionState) -> None:
    text = state.name.lower()
    assert state == text
    assert hash(state) == hash(text)
    assert {text: 1}[state] == 1
    assert (str(state), f"{state:>10}", ExecutionState(text)) == (text, text.rjust(10), state)


@pytest.mark.parametrize("state", ExecutionState)
def test_is_terminal_takes_members_and_strings(state: ExecutionState) -> None:
    expected = state in {ExecutionState.SUCCESS, ExecutionState.FAILED, ExecutionState.SKIPPED, ExecutionState.CANCELLED}
    assert ExecutionState.is_terminal(state) is ExecutionState.is_terminal(state.value) is expected


def test_the_short_name_is_the_same_class() -> None:
    assert State is ExecutionState
    assert len(TERMINAL_STATES) == 4


@pytest.mark.parametrize(
    ("kind", "output", "result", "child"),
    [
        (TaskType.TASK, {"child_run_id": "c", "result": 1}, {"child_run_id": "c", "result": 1}, None),
        (TaskType.FLOW, {"child_run_id": "c", "result": 1}, 1, "c"),
        (TaskType.FLOW, None, None, None),
        (TaskType.FLOW, {"child_run_id": 3}, None, None),
    ],
)
def test_output_is_what_a_pull_gives(kind: TaskType, output: Any, result: Any, child: str | None) -> None:
    task = TaskInstance("t", type=kind, output_json=output)
    assert (task.output, task.child_run_id) == (result, child)


@pytest.mark.parametrize("state", [ExecutionState.SCHEDULED, ExecutionState.RUNNING, ExecutionState.SUCCESS])
def test_only_a_run_that_failed_raises(state: ExecutionState) -> None:
    run = WorkflowRun("r", "f", state=state)
    assert run.raise_for_failure() is run


def test_a_failure_without_a_recorded_reason_says_so() -> None:
    run = WorkflowRun("r", "f", state=ExecutionState.FAILED, tasks={"t": TaskInstance("t", state=ExecutionState.FAILED)})
    with pytest.raises(RunFailedError, match="t: no reason was recorded"):
        run.raise_for_failure()


def test_a_task_that_was_cancelled_is_named_unless_its_whole_run_was() -> None:
    tasks = {"a": TaskInstance("a", state=ExecutionState.CANCELLED, reason="it was cancelled")}
    with pytest.raises(RunFailedError) as caught:
        WorkflowRun("r", "f", state=ExecutionState.FAILED, tasks=tasks).raise_for_failure()
    assert caught.value.failures == {"a": "it was cancelled"}
    with pytest.raises(RunFailedError) as caught:
        WorkflowRun("r", "f", state=ExecutionState.CANCELLED, tasks=tasks).raise_for_failure()
    assert caught.value.failures == {}


def test_a_cancelled_run_raises_too() -> None:
    with pytest.raises(RunFailedError, match="cancelled"):
        WorkflowRun("r", "f", state=ExecutionState.CANCELLED).raise_for_failure()


@pytest.mark.parametrize(
    ("message", "summary"),
    [
        ("bad row", "ValueError: bad row"),
        ("", "ValueError"),
        ("one\ntwo", "ValueError: one"),
        ("x" * 900, f"ValueError: {'x' * 485}..."),
    ],
)
def test_a_failures_summary_is_one_line_of_bounded_length(message: str, summary: str) -> None:
    assert Failure("ValueError", message, "").summary == summary


def test_an_exception_that_cannot_be_told_is_still_a_failure() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise SystemExit

        @property
        def __cause__(self) -> Any:  # type: ignore[override]
            raise RuntimeError

    failure = failure_of(Hostile())
    assert "Hostile" in failure.type_name
    assert failure.message == "(its message could not be made: SystemExit)"
    assert failure.traceback
