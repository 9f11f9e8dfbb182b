"""The history of a run, read from the store afterwards: attempts with their workers, and each change of a state."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    AttemptRecord,
    AttemptResult,
    BaseStore,
    Changes,
    Context,
    MemoryStore,
    NoteKind,
    NoteRecord,
    State,
    Store,
    UnknownTaskError,
)
from ..notes import MOST_TASKS, reset_note, tasks_before
from ..owners import Owner
from ..testing.store_contract import NOON, a_note, a_run, a_task, an_attempt
from ..who import this_process
from .attempts import until
from .conftest import FakeClock, fails, flaky, make_store, returns, run
from .histories import check_history, told
from .processes import Programs, programs

__all__ = ["programs"]

START = datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc)


def takes(clock: FakeClock, seconds: float, function: Callable[[Context], Any] = lambda ctx: None) -> Callable[[Context], Any]:
    """A task for which so much time passes."""

    async def task(ctx: Context) -> Any:
        clock.pass_time(seconds)
        found = function(ctx)
        return await found if asyncio.iscoroutine(found) else found

    return task


def seconds_of(store: Store, run_id: str, task_id: str | None = None) -> list[float]:
    """When each change was, in seconds since the beginning."""
    return [(change.at - START) / timedelta(seconds=1) for change in store.history(run_id, task_id)]


def reasons_of(store: Store, run_id: str, task_id: str | None = None) -> list[str | None]:
    return [change.reason for change in store.history(run_id, task_id)]


def test_a_process_is_called_the_same_everywhere() -> None:
    """By who owns a run, by who drives one, and in errors."""
    owner = Owner(os.getpid(), socket.gethostname(), "", 1.0)
    assert str(owner) == this_process() == f"process {os.getpid()} on {socket.gethostname()}"


# --- attempts ---


async def test_an_attempt_says_who_worked_and_when(store: Store, clock: FakeClock) -> None:
    """Each attempt has its start, its end, its error and its worker, the archived ones too."""
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("only", takes(clock, 2, flaky(1)), max_retries=1, retry_delay=5)
    done = await run(flow)
    first, second = store.list_attempts(done.id, "only")
    assert [(each.start_date, each.end_date) for each in (first, second)] == [
        (START, START + timedelta(seconds=2)),
        (START + timedelta(seconds=7), START + timedelta(seconds=9)),
    ]
    assert "ValueError: failure 1" in (first.error or "")
    assert (first.worker, second.worker) == (this_process(), this_process())


def test_two_processes_are_told_apart(programs: Programs) -> None:
    """What a killed process had begun was its attempt; what came after it was another's."""
    first = programs.worker(hold=["t1"])
    assert first.ask("drive run") == "in t1"
    first.kill()
    second = programs.worker()
    second.ask("drive run")
    with programs.store() as store:
        attempts = [(each.task_id, each.result, each.worker) for each in store.list_attempts("run")]
        history = check_history(store, "run")
    one, two = (f"process {program.pid} on {socket.gethostname()}" for program in (first, second))
    assert attempts == [
        ("t0", "success", one),
        ("t1", "interrupted", one),
        ("t1", "success", two),
        ("t2", "success", two),
    ]
    assert [change.worker for change in history if change.to_state == "running"] == [one, one, one, two, two, two]


@pytest.mark.parametrize("kind", ["sqlite", "json"])
async def test_an_attempt_of_a_drive_before_is_not_ours(kind: str, tmp_path: Path, clock: FakeClock) -> None:
    """The worker is whoever drove the run when the attempt began, after a restart of the store as well."""
    store = make_store(kind, tmp_path)
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("a", takes(clock, 1)).add_task_definition("b", takes(clock, 1, flaky(1)), dependencies=["a"])
    run_id = flow.init_run()
    store.commit(Changes(notes=[NoteRecord(run_id, NoteKind.DRIVE, clock.now() - 1, "process 1 on elsewhere")]))
    assert (await flow.run_until_complete(run_id)).state == "failed"
    clock.pass_time(1)
    store.close()
    store = make_store(kind, tmp_path)
    store.commit(Changes(notes=[NoteRecord(run_id, NoteKind.DRIVE, clock.now(), "process 2 on elsewhere")]))
    clock.pass_time(1)
    flow.store = store
    assert (await flow.retry(run_id, "b")).state == "success"
    assert [attempt.worker for attempt in store.list_attempts(run_id)] == [this_process()] * 3
    notes = [note.by for note in store.read_notes(run_id)]
    assert notes == ["process 1 on elsewhere", this_process(), "process 2 on elsewhere", this_process(), this_process()]
    store.close()


async def test_a_subflow_is_driven_by_who_drives_the_run_around_it(store: Store, clock: FakeClock) -> None:
    """No note is written for it: the outermost run's says who."""
    inner = AsyncFlow("inner").add_task_definition("leaf", returns(1))
    middle = AsyncFlow("middle").add_subflow_definition("inner", inner)
    outer = AsyncFlow("outer", store, clock=clock).add_subflow_definition("middle", middle)
    done = await run(outer)
    (middle_id,) = store.list_children(done.id)
    (inner_id,) = store.list_children(middle_id)
    assert [len(store.read_notes(run_id)) for run_id in (done.id, middle_id, inner_id)] == [1, 0, 0]
    assert [attempt.worker for attempt in store.list_attempts(inner_id)] == [this_process()]
    for run_id in (done.id, middle_id, inner_id):
        assert {change.worker for change in check_history(store, run_id)[1:]} == {this_process()}


async def test_a_run_that_was_only_put_under_another_has_workers_of_its_own(store: Store, clock: FakeClock) -> None:
    """`parent_run_id` may be whatever people like; who drove that run did not drive this one."""
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", returns(1))
    parent = await run(flow)
    clock.pass_time(1)
    run_id = flow.init_run(parent_run_id=parent.id, parent_task_id="a")
    store.commit(Changes(tasks=[a_task(0, run_id, task_id="a", state=State.SUCCESS, attempts=1, started=clock.now())]))
    assert [attempt.worker for attempt in store.list_attempts(run_id)] == [None]


# --- changes of states ---


async def test_a_run_and_its_tasks(store: Store, clock: FakeClock) -> None:
    """Made, begun, ended: in order of time, and at one moment the run begins before its tasks and ends after them."""
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("a", takes(clock, 1)).add_task_definition("b", takes(clock, 2), dependencies=["a"])
    run_id = flow.init_run()
    assert told(store, run_id) == ["none>scheduled"]
    clock.pass_time(3)
    await flow.run_until_complete(run_id)
    assert told(store, run_id) == [
        "none>scheduled",
        "scheduled>running",
        "a scheduled>running 1",
        "a running>success 1",
        "b scheduled>running 1",
        "b running>success 1",
        "running>success",
    ]
    assert seconds_of(store, run_id) == [0, 3, 3, 4, 4, 6, 6]
    assert [change.worker for change in check_history(store, run_id)] == [None, *[this_process()] * 6]
    assert told(store, run_id, "b") == ["b scheduled>running 1", "b running>success 1"]


async def test_a_task_that_fails_and_what_waited_for_it(store: Store, clock: FakeClock) -> None:
    """A retry leads back to scheduled; the last failure does not; a skipped task says why."""
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("a", takes(clock, 1, fails()), max_retries=1, retry_delay=5)
    flow.add_task_definition("b", returns(1), dependencies=["a"])
    done = await run(flow)
    check_history(store, done.id)
    assert told(store, done.id, "a") == [
        "a scheduled>running 1",
        "a running>scheduled 1",
        "a scheduled>running 2",
        "a running>failed 2",
    ]
    assert reasons_of(store, done.id, "a") == [None, "RuntimeError: boom"] * 2
    assert seconds_of(store, done.id, "a") == [0, 1, 6, 7]
    assert told(store, done.id, "b") == ["b scheduled>skipped"]
    assert reasons_of(store, done.id, "b") == ["upstream task 'a' failed"]
    assert told(store, done.id)[-1] == "running>failed"


async def test_a_manual_retry(store: Store, clock: FakeClock) -> None:
    """It says what was asked for, when and by whom; what had been before stays: the run's end, and a task that was skipped."""
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("a", takes(clock, 1, flaky(1))).add_task_definition("b", takes(clock, 1), dependencies=["a"])
    flow.add_task_definition("beside", returns(1))
    done = await run(flow)
    clock.pass_time(9)
    await flow.retry(done.id, "a")
    history = check_history(store, done.id)
    assert [each for each in told(store, done.id) if not each.startswith("beside")] == [
        "none>scheduled",
        "scheduled>running",
        "a scheduled>running 1",
        "a running>failed 1",
        "b scheduled>skipped",
        "running>failed",
        "failed>scheduled",
        "a failed>scheduled 1",
        "b skipped>scheduled",
        "scheduled>running",
        "a scheduled>running 2",
        "a running>success 2",
        "b scheduled>running 1",
        "b running>success 1",
        "running>success",
    ]
    back = [change for change in history if change.reason == "manual retry of 'a'"]
    assert {(change.task_id, change.at, change.worker) for change in back} == {
        (task_id, START + timedelta(seconds=10), this_process()) for task_id in (None, "a", "b")
    }


async def test_retries_of_several_tasks_are_not_mixed_up(store: Store, clock: FakeClock) -> None:
    """Each task was set back by the call that set it back, though others came between."""
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("a", returns(1)).add_task_definition("b", returns(1))
    done = await run(flow)
    for task_id in ("a", "b", "a"):
        clock.pass_time(1)
        flow.manual_retry(done.id, task_id)
    clock.pass_time(1)
    await flow.run_until_complete(done.id)
    check_history(store, done.id)
    assert (seconds_of(store, done.id, "a"), seconds_of(store, done.id, "b")) == ([0, 0, 1, 4, 4], [0, 0, 2, 4, 4])
    assert reasons_of(store, done.id, "b")[2] == "manual retry of 'b'"


async def test_resets_and_attempts_of_one_and_the_same_moment_come_in_the_order_in_which_they_were_made(
    store: Store, clock: FakeClock
) -> None:
    """A reset of a task that had not begun names none, and must not be taken for one between its attempts."""
    seen: list[list[str]] = []
    flow = AsyncFlow("etl", store, clock=clock)
    flow.add_task_definition("load", lambda ctx: seen.append(told(store, ctx.run.id, "load")))
    run_id = flow.init_run(run_id="r")
    flow.manual_retry(run_id, "load")
    await flow.run_until_complete(run_id)
    flow.manual_retry(run_id, "load")
    await flow.run_until_complete(run_id)
    begun, ended, reset = "load scheduled>running", "load running>success", "load success>scheduled"
    assert seen == [[f"{begun} 1"], [f"{begun} 1", f"{ended} 1", f"{reset} 1", f"{begun} 2"]]
    check_history(store, run_id)


async def test_a_reset_while_nothing_runs_shows_at_once(store: Store, clock: FakeClock) -> None:
    """A task that was set back and has not begun again is scheduled, and so is its run."""
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", returns(1))
    done = await run(flow)
    clock.pass_time(1)
    flow.manual_retry(done.id, "a")
    check_history(store, done.id)
    assert told(store, done.id)[-2:] == ["success>scheduled", "a success>scheduled 1"]


async def test_a_task_inside_a_subflow_that_is_set_back(store: Store, clock: FakeClock) -> None:
    """Each run on the way has been set back, and begins again; the history of each says so."""
    inner = AsyncFlow("inner").add_task_definition("leaf", takes(clock, 1, flaky(1)))
    outer = AsyncFlow("outer", store, clock=clock).add_subflow_definition("sub", inner)
    done = await run(outer)
    clock.pass_time(5)
    await outer.retry(done.id, "sub.leaf")
    (child,) = store.list_children(done.id)
    for run_id in (done.id, child):
        history = [(change.to_state, change.at) for change in check_history(store, run_id) if change.task_id is None]
        expected = [("scheduled", 0), ("running", 0), ("failed", 1), ("scheduled", 6), ("running", 6), ("success", 7)]
        assert history == [(state, START + timedelta(seconds=at)) for state, at in expected]
    assert reasons_of(store, done.id, "sub")[2:3] == ["manual retry of 'sub'"]
    assert reasons_of(store, child, "leaf")[2:3] == ["manual retry of 'leaf'"]


async def test_a_subflow_that_is_tried_again_by_itself(store: Store, clock: FakeClock) -> None:
    """What failed in it was set back by nobody's hand."""
    inner = AsyncFlow("inner").add_task_definition("leaf", takes(clock, 1, flaky(1)))
    outer = AsyncFlow("outer", store, clock=clock).add_subflow_definition("sub", inner, max_retries=1, retry_delay=5)
    done = await run(outer)
    assert done.state == "success"
    (child,) = store.list_children(done.id)
    check_history(store, done.id)
    check_history(store, child)
    assert seconds_of(store, child, "leaf") == [0, 1, 6, 6, 7]
    assert reasons_of(store, child, "leaf")[2] == "the subflow is tried again"


async def test_a_run_that_is_stopped_and_continued(store: Store, clock: FakeClock) -> None:
    """It was interrupted when it was stopped, and not when it was continued."""
    began, hangs = asyncio.Event(), True

    async def waits(ctx: Context) -> None:
        clock.pass_time(1)
        began.set()
        if hangs:
            await asyncio.Event().wait()

    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", waits)
    run_id = flow.init_run()
    call = asyncio.ensure_future(flow.run_until_complete(run_id))
    await began.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    check_history(store, run_id)
    assert told(store, run_id)[-2:] == ["running>scheduled", "a running>scheduled 1"]
    clock.pass_time(9)
    hangs = False
    await flow.run_until_complete(run_id)
    history = check_history(store, run_id)
    assert [(change.from_state, (change.at - START).seconds) for change in history if change.task_id is None] == [
        ("none", 0),
        ("scheduled", 0),
        ("running", 1),
        ("scheduled", 10),
        ("running", 11),
    ]
    assert [change.reason for change in history if change.to_state == "scheduled"][1:] == [
        "it was stopped, and waits to be continued",
        "interrupted before it ended",
    ]


async def test_a_run_whose_process_died(store: Store, clock: FakeClock) -> None:
    """When it died nobody knows: it was noticed when the run was continued."""
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("a", takes(clock, 1)).add_task_definition("b", takes(clock, 1), dependencies=["a"])
    run_id = flow.init_run()
    began = NoteRecord(run_id, NoteKind.DRIVE, clock.now(), "process 1 on host", state=State.SCHEDULED)
    record, tasks = store.read_run(run_id), store.read_tasks(run_id)
    record.state, record.started = State.RUNNING, clock.now()
    tasks[0].state, tasks[0].attempts, tasks[0].started = State.RUNNING, 1, clock.now()
    store.commit(Changes(runs=[record], tasks=tasks, notes=[began]))
    check_history(store, run_id)
    clock.pass_time(60)
    assert (await flow.run_until_complete(run_id)).state == "success"
    history = check_history(store, run_id)
    cut = [(change.task_id, change.at, change.reason) for change in history if change.to_state == "scheduled"][1:]
    assert cut == [
        (None, START + timedelta(seconds=60), "it was cut off; noticed when it was continued"),
        ("a", START + timedelta(seconds=60), "interrupted before it ended"),
    ]
    assert [attempt.worker for attempt in store.list_attempts(run_id, "a")] == ["process 1 on host", this_process()]


async def test_what_is_cancelled_while_nobody_drives_it_says_who_did(store: Store, clock: FakeClock) -> None:
    """And when; a retry brings it back, and does not take that away."""
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("a", flaky(1)).add_task_definition("b", returns(1)).add_task_definition(
        "c", returns(1), dependencies=["b"]
    )
    run_id = flow.init_run()
    clock.pass_time(1)
    assert flow.cancel_task(run_id, "c")
    clock.pass_time(1)
    assert flow.cancel(run_id)
    assert [note.kind for note in store.read_notes(run_id)] == [NoteKind.CANCEL] * 2
    history = check_history(store, run_id)
    assert told(store, run_id) == [
        "none>scheduled",
        "c scheduled>cancelled",
        "a scheduled>cancelled",
        "b scheduled>cancelled",
        "scheduled>cancelled",
    ]
    assert [change.worker for change in history] == [None, *[this_process()] * 4]
    assert [change.reason for change in history] == [None, "it was cancelled", *["its run was cancelled"] * 2, None]
    clock.pass_time(1)
    flow.manual_retry(run_id, "b", reset_downstream=True)
    check_history(store, run_id)
    assert told(store, run_id, "c") == ["c scheduled>cancelled", "c cancelled>scheduled"]
    assert seconds_of(store, run_id, "c") == [1, 3]


async def test_what_is_cancelled_while_it_runs(store: Store, clock: FakeClock) -> None:
    """The attempt was cancelled, and the task with it; what is downstream is skipped."""
    began = asyncio.Event()

    async def waits(ctx: Context) -> None:
        began.set()
        await asyncio.Event().wait()

    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("a", waits).add_task_definition("b", returns(1), dependencies=["a"])
    run_id = flow.init_run()
    call = asyncio.ensure_future(flow.run_until_complete(run_id))
    await began.wait()
    assert await asyncio.to_thread(flow.cancel_task, run_id, "a")
    assert (await call).state == "failed"
    check_history(store, run_id)
    assert told(store, run_id, "a") == ["a scheduled>running 1", "a running>cancelled 1"]
    assert told(store, run_id, "b") == ["b scheduled>skipped"]


async def stopped_while_a_task_waits(store: Store, clock: FakeClock) -> tuple[AsyncFlow, str]:
    """A run whose task has failed once, stopped three seconds later, long before its next attempt was due."""
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", flaky(1), max_retries=1, retry_delay=1000)
    run_id = flow.init_run()

    async def sleep(seconds: float) -> None:
        await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(clock, "sleep", sleep)
        call = asyncio.ensure_future(flow.run_until_complete(run_id))
        await until(lambda: store.read_tasks(run_id)[0].due is not None)
        clock.pass_time(3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    return flow, run_id


async def test_a_run_that_is_stopped_while_nothing_runs(store: Store, clock: FakeClock) -> None:
    """No attempt was cut off that would tell when it was; it is known all the same."""
    flow, run_id = await stopped_while_a_task_waits(store, clock)
    clock.pass_time(5)
    await flow.run_until_complete(run_id)
    changes = [(change.to_state, (change.at - START).seconds) for change in check_history(store, run_id) if not change.task_id]
    assert changes == [("scheduled", 0), ("running", 0), ("scheduled", 3), ("running", 8), ("success", 1000)]


async def test_a_task_that_was_set_back_while_it_waited_for_its_next_attempt(store: Store, clock: FakeClock) -> None:
    """It was scheduled, and is: nothing changed by that."""
    flow, run_id = await stopped_while_a_task_waits(store, clock)
    flow.manual_retry(run_id, "a")
    await flow.run_until_complete(run_id)
    check_history(store, run_id)
    assert told(store, run_id, "a") == [
        "a scheduled>running 1",
        "a running>scheduled 1",
        "a scheduled>running 2",
        "a running>success 2",
    ]


def test_a_task_that_said_itself_that_it_need_not_run(store: Store) -> None:
    """Whether its attempt stands in the task's record or was archived, it is one attempt, and was skipped."""
    for run_id, archived in (("kept", False), ("archived", True)):
        task = a_task(0, run_id, state=State.SKIPPED, attempts=1, started=NOON + 1, ended=NOON + 2, reason="nothing to do")
        attempt = an_attempt(1, 0, run_id, result=AttemptResult.SKIPPED, started=NOON + 1, ended=NOON + 2, reason="nothing to do")
        store.commit(Changes(new_runs=[a_run(run_id)], tasks=[task], attempts=[attempt] if archived else []))
        assert [(each.number, each.result) for each in store.list_attempts(run_id)] == [(1, "skipped")]
        assert told(store, run_id, "task0") == ["task0 scheduled>running 1", "task0 running>skipped 1"]
        assert reasons_of(store, run_id, "task0") == [None, "nothing to do"]


def test_a_task_that_is_not_there_is_named_with_one_that_is(store: Store) -> None:
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task(0, task_id="extract")]))
    with pytest.raises(UnknownTaskError, match="Did you mean 'extract'"):
        store.history("run", "extrakt")


# --- what a reset notes ---


def test_a_reset_of_many_tasks_is_one_note_of_bounded_length(store: Store, clock: FakeClock) -> None:
    """It names the first hundred, and says how many there were; of the others, what their attempts tell is still told."""
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("first", flaky(1))
    for number in range(110):
        flow.add_task_definition(f"t{number}", returns(number), dependencies=["first"])
    run_id = flow.init_run()
    assert asyncio.run(flow.run_until_complete(run_id)).state == "failed"
    for _ in range(2):
        clock.pass_time(1)
        assert asyncio.run(flow.retry(run_id, "first")).state == "success"
    notes = [note for note in store.read_notes(run_id) if note.kind is NoteKind.RESET]
    assert [(note.task_id, note.tasks, len(tasks_before(note))) for note in notes] == [("first", 111, MOST_TASKS)] * 2
    assert max(len(note.detail or "") for note in notes) < 10_000
    check_history(store, run_id)
    named, other = told(store, run_id, "t7"), told(store, run_id, "t109")
    assert named[:2] == ["t7 scheduled>skipped", "t7 skipped>scheduled"]
    assert [each.replace("t7", "t109") for each in named[2:]] == other
    assert seconds_of(store, run_id, "t109") == [1, 1, 2, 2, 2]
    assert reasons_of(store, run_id, "t109")[2] == "manual retry of 'first'"


def test_a_long_reason_is_noted_in_part() -> None:
    """It is copied for many tasks, perhaps."""
    note = reset_note(a_run(), [a_task(state=State.SKIPPED, reason="x" * 5000)], 1)
    (before,) = tasks_before(note)
    assert (before.state, before.reason) == (State.SKIPPED, "x" * 500)


# --- what is not known ---


class Forgetful(MemoryStore):
    """A store that was written before there were notes."""

    read_notes = BaseStore.read_notes


async def test_a_store_without_notes_tells_what_its_records_tell(clock: FakeClock) -> None:
    """Attempts and their ends, and that a task was set back, at the latest when it began again; nobody's name."""
    store = Forgetful()
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("a", takes(clock, 1, flaky(1)), max_retries=0)
    done = await run(flow)
    clock.pass_time(5)
    flow.manual_retry(done.id, "a")
    clock.pass_time(5)
    await flow.run_until_complete(done.id)
    assert told(store, done.id) == [
        "none>scheduled",
        "scheduled>running",
        "a scheduled>running 1",
        "a running>failed 1",
        "a failed>scheduled 1",
        "a scheduled>running 2",
        "a running>success 2",
        "running>success",
    ]
    assert seconds_of(store, done.id, "a") == [0, 1, 11, 11, 12]
    assert reasons_of(store, done.id, "a")[2] == "it was set back at some time before"
    assert {change.worker for change in store.history(done.id)} == {None}


def test_what_people_wrote_into_a_store(store: Store) -> None:
    """States without attempts are told as they stand; one without a time is not."""
    store.commit(
        Changes(
            new_runs=[a_run(state=State.SUCCESS, started=NOON + 1, ended=NOON + 2)],
            tasks=[a_task(0, state=State.SUCCESS, ended=NOON + 2), a_task(1, state=State.FAILED)],
        )
    )
    assert told(store, "run") == ["none>scheduled", "scheduled>running", "task0 scheduled>success", "running>success"]


def test_a_clock_that_was_set_back_does_not_turn_anything_round(store: Store) -> None:
    """What came later is told later, at the earliest moment that it can have been."""
    attempts: list[AttemptRecord] = [an_attempt(1, started=NOON + 100, ended=NOON + 200)]
    task = a_task(0, state=State.SUCCESS, attempts=2, try_number=1, started=NOON + 50, ended=NOON + 60)
    store.commit(Changes(new_runs=[a_run()], tasks=[task], attempts=attempts, notes=[a_note(at=NOON + 70, by="somebody")]))
    assert told(store, "run", "task0") == [
        "task0 scheduled>running 1",
        "task0 running>scheduled 1",
        "task0 scheduled>running 2",
        "task0 running>success 2",
    ]
    assert [round(seconds * 1e6) for seconds in seconds_of(store, "run", "task0")] == [100, 200, 200, 200]
