"""Runs in the background: a handle to await, cancel, stop and follow them with, which nobody need keep."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from .. import (
    AsyncFlow,
    Context,
    CycleError,
    Event,
    InvalidNameError,
    InvalidOptionError,
    NoRunningLoopError,
    RunActiveError,
    RunExistsError,
    RunFinished,
    RunHandle,
    RunInterrupted,
    RunOwnedError,
    RunStoppedError,
    RunTimeoutError,
    SQLiteStore,
    Store,
    StoreError,
    TaskStarted,
    TaskSucceeded,
    UnstorableValueError,
    handles,
)
from .. import (
    flow as flow_room,
)
from .attempts import until
from .conftest import fails, returns
from .held_clock import HeldClock


class Gate:
    """A flow of two tasks whose first waits until it may go on."""

    def __init__(self, store: Store | None = None, **options: Any) -> None:
        self.flow = AsyncFlow("gated", store, **options)
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.times = 0

        @self.flow.task("wait")
        async def wait(ctx: Context) -> int:
            self.times += 1
            self.begun.set()
            await self.may_end.wait()
            return 1

        self.flow.add_task_definition("then", returns(2), dependencies=["wait"])


async def collected(handle: RunHandle) -> list[Event]:
    return [event async for event in handle.events()]


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


STORY = ["RunStarted", "TaskStarted", "TaskSucceeded", "TaskStarted", "TaskSucceeded", "RunFinished"]


def followers() -> int:
    """Of how many runs somebody is known to follow the events."""
    return len(flow_room._FOLLOWERS._by_run)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Any:
    before = followers()
    yield
    assert followers() == before
    assert not [task for task in handles._under_way if not task.get_loop().is_closed() and not task.done()]


# --- starting and awaiting ---


async def test_a_run_is_driven_in_the_background_and_its_handle_gives_the_run(store: Store) -> None:
    gate = Gate(store)
    handle = gate.flow.start({"user": "alice"})
    assert not handle.done()
    await gate.begun.wait()
    gate.may_end.set()
    run = await handle
    assert (run.id, run.state, run.params, run.tasks["then"].output) == (handle.run_id, "success", {"user": "alice"}, 2)
    assert handle.done()
    assert store.load(handle.run_id).state == "success"


async def test_a_handle_is_awaited_any_number_of_times_by_any_number_of_tasks() -> None:
    gate = Gate()
    handle = gate.flow.start()

    async def wait() -> Any:
        return await handle

    several = [asyncio.ensure_future(wait()) for _ in range(5)]
    await gate.begun.wait()
    gate.may_end.set()
    runs = [*await asyncio.gather(*several), await handle, await handle]
    assert len({id(run) for run in runs}) == 1
    assert gate.times == 1


async def test_failed_tasks_do_not_raise(flow: AsyncFlow) -> None:
    flow.add_task_definition("a", fails())
    assert (await flow.start()).state == "failed"


async def test_who_awaits_it_and_is_cancelled_does_not_stop_the_run() -> None:
    gate = Gate()
    handle = gate.flow.start()

    async def wait() -> Any:
        return await handle

    first, second = asyncio.ensure_future(wait()), asyncio.ensure_future(wait())
    await gate.begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(wait(), 0.01)
    assert not handle.done()
    gate.may_end.set()
    assert (await second).state == "success"
    assert gate.times == 1


async def test_an_id_of_ones_own_takes_up_the_run_that_there_is(store: Store) -> None:
    gate = Gate(store)
    first, second = gate.flow.start({"n": 1}, run_id="nightly"), gate.flow.start({"n": 2}, run_id="nightly")
    await gate.begun.wait()
    gate.may_end.set()
    runs = await asyncio.gather(first, second)
    assert [run.params for run in runs] == [{"n": 1}] * 2
    assert gate.times == 1
    assert (await gate.flow.start(run_id="nightly")).state == "success"
    assert gate.times == 1


async def test_it_joins_a_call_that_drives_the_run_and_a_call_joins_it() -> None:
    gate = Gate()
    run_id = gate.flow.init_run()
    call = asyncio.ensure_future(gate.flow.run_until_complete(run_id))
    handle = gate.flow.start(run_id=run_id)
    await gate.begun.wait()
    another = asyncio.ensure_future(gate.flow.run_until_complete(run_id))
    gate.may_end.set()
    assert {(await work).id for work in (call, handle, another)} == {run_id}
    assert gate.times == 1


async def test_params_are_those_of_the_moment_of_the_call(flow: AsyncFlow) -> None:
    flow.add_task_definition("a", returns(1))
    params = {"rows": [1]}
    handle = flow.start(params)
    params["rows"].append(2)
    assert (await handle).params == {"rows": [1]}


async def test_its_options_are_those_of_run_until_complete() -> None:
    clock = HeldClock()
    gate = Gate(clock=clock)
    handle = gate.flow.start(timeout=10, max_concurrency=1)
    await gate.begun.wait()
    await clock.forward(11)
    with pytest.raises(RunTimeoutError):
        await handle
    gate.may_end.set()
    gate.flow.add_task_definition("new", returns(3))
    assert (await gate.flow.start(run_id=handle.run_id, adopt_graph=True)).tasks["new"].output == 3


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"params": {"bad": object()}}, UnstorableValueError),
        ({"params": 5}, InvalidOptionError),
        ({"run_id": ""}, InvalidNameError),
        ({"run_id": ["nightly"]}, InvalidNameError),
        ({"max_concurrency": -1}, InvalidOptionError),
        ({"timeout": 0}, InvalidOptionError),
    ],
    ids=str,
)
async def test_what_is_wrong_with_the_arguments_is_raised_at_once_and_nothing_is_made(
    flow: AsyncFlow, arguments: dict[str, Any], error: type[Exception]
) -> None:
    flow.add_task_definition("a", returns(1))
    with pytest.raises(error):
        flow.start(**arguments)
    await asyncio.sleep(0.01)
    assert flow.store.list_runs() == []


async def test_so_is_what_is_wrong_with_the_graph(flow: AsyncFlow) -> None:
    flow.add_task_definition("a", returns(1), dependencies=["b"]).add_task_definition("b", returns(1), dependencies=["a"])
    with pytest.raises(CycleError):
        flow.start()


async def test_a_run_of_another_flow_is_refused_where_the_handle_is_awaited(store: Store) -> None:
    AsyncFlow("other", store).add_task_definition("a", returns(1)).init_run(run_id="nightly")
    handle = Gate(store).flow.start(run_id="nightly")
    with pytest.raises(RunExistsError):
        await handle
    with pytest.raises(RunExistsError):
        await handle.made()
    assert await collected(handle) == []


def test_outside_an_event_loop_it_is_refused_with_what_to_write(flow: AsyncFlow) -> None:
    with pytest.raises(NoRunningLoopError, match="run = flow.run"):
        flow.start()
    assert flow.store.list_runs() == []


async def test_made_says_when_the_run_is_in_the_store(store: Store) -> None:
    gate = Gate(store)
    handle = gate.flow.start()
    run_id = await handle.made()
    assert run_id == handle.run_id
    assert store.exists(run_id)
    assert not handle.done()
    gate.may_end.set()
    await handle
    assert await handle.made() == run_id


class SlowCommits:
    """Commits in threads that wait until they may end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()


def slow_commits(store: Store, monkeypatch: pytest.MonkeyPatch) -> SlowCommits:
    slow, commit = SlowCommits(), store.commit

    def instead(changes: Any) -> None:
        slow.begun.set()
        assert slow.may_end.wait(10)
        commit(changes)

    monkeypatch.setattr(store, "commit", instead)
    return slow


async def test_a_store_that_waits_does_not_hold_up_the_loop(flow: AsyncFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    flow.add_task_definition("a", returns(1))
    commits = slow_commits(flow.store, monkeypatch)
    handle = flow.start()
    await until(commits.begun.is_set)
    assert not handle.done()
    commits.may_end.set()
    assert (await handle).state == "success"


async def test_its_repr_says_where_it_stands() -> None:
    gate = Gate()
    handle = gate.flow.start(run_id="nightly")
    assert repr(handle) == "<RunHandle of run 'nightly', under way>"
    await handle.stop()
    assert repr(handle) == "<RunHandle of run 'nightly', stopped>"
    gate.may_end.set()
    again = gate.flow.start(run_id="nightly")
    await again
    assert repr(again) == "<RunHandle of run 'nightly', done>"


# --- nobody keeps it ---


async def test_a_run_whose_handle_nobody_keeps_goes_on_to_its_end() -> None:
    gate = Gate()
    gate.flow.start(run_id="nightly")
    await gate.begun.wait()
    gc.collect()
    gate.may_end.set()
    gc.collect()
    await until(lambda: gate.flow.store.load("nightly").state == "success")
    await asyncio.sleep(0)


async def test_no_events_are_made_for_a_handle_that_was_dropped() -> None:
    gate = Gate()
    handle = gate.flow.start()
    known = ref(handle)
    key = gate.flow._key(handle.run_id)
    await gate.begun.wait()
    assert len(flow_room._FOLLOWERS.of(key)) == 1
    run_id = handle.run_id
    del handle
    gc.collect()
    assert known() is None
    assert flow_room._FOLLOWERS.of(key) == []
    gate.may_end.set()
    await gate.flow.run_until_complete(run_id)
    await until(lambda: not followers())


async def test_an_error_that_nobody_awaits_is_logged_as_asyncio_does(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    AsyncFlow("other", store).add_task_definition("a", returns(1)).init_run(run_id="nightly")
    handle = Gate(store).flow.start(run_id="nightly")
    await until(handle.done)
    await asyncio.sleep(0)
    with caplog.at_level(logging.ERROR, "asyncio"):
        del handle
        gc.collect()
    assert "Task exception was never retrieved" in caplog.text
    assert "RunExistsError" in caplog.text


async def test_one_that_was_awaited_is_not_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    AsyncFlow("other", store).add_task_definition("a", returns(1)).init_run(run_id="nightly")
    handle = Gate(store).flow.start(run_id="nightly")
    with pytest.raises(RunExistsError):
        await handle
    del handle
    gc.collect()
    assert "never retrieved" not in caplog.text


# --- cancelling and stopping ---


async def test_cancel_ends_the_run_for_good(store: Store) -> None:
    gate = Gate(store)
    handle = gate.flow.start()
    await gate.begun.wait()
    assert await handle.cancel() is True
    run = await handle
    assert (run.state, run.tasks["wait"].state, run.tasks["then"].state) == ("cancelled",) * 3
    assert await handle.cancel() is False
    assert (await gate.flow.start(run_id=handle.run_id)).state == "cancelled"


async def test_cancel_need_not_be_awaited_and_a_moment_after_the_start_is_not_too_soon(store: Store) -> None:
    gate = Gate(store)
    handle = gate.flow.start()
    handle.cancel()
    assert (await handle).state == "cancelled"
    assert kinds(await collected(handle))[-1] == "RunFinished"


async def test_a_run_that_is_stopped_at_once_was_never_made_and_there_is_nothing_to_cancel(store: Store) -> None:
    handle = Gate(store).flow.start()
    await handle.stop()
    assert await handle.cancel() is False
    with pytest.raises(RunStoppedError):
        await handle.made()
    assert store.list_runs() == []


async def test_a_run_that_is_stopped_while_it_is_made_can_be_cancelled_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    commits = slow_commits(gate.flow.store, monkeypatch)
    handle = gate.flow.start()
    await until(commits.begun.is_set)
    stopping = asyncio.ensure_future(handle.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done(), "a commit cannot be stopped half way"
    commits.may_end.set()
    await stopping
    assert await handle.made() == handle.run_id
    assert await handle.cancel() is True
    assert gate.flow.store.load(handle.run_id).state == "cancelled"


async def test_stop_puts_the_run_back_and_saves_it_so_that_it_can_be_continued(store: Store) -> None:
    gate = Gate(store)
    handle = gate.flow.start()
    await gate.begun.wait()
    await handle.stop()
    assert handle.done()
    assert store.load(handle.run_id).tasks["wait"].state == "scheduled"
    with pytest.raises(RunStoppedError, match="continues it") as caught:
        await handle
    assert caught.value.run_id == handle.run_id
    await handle.stop()
    gate.may_end.set()
    assert (await gate.flow.start(run_id=handle.run_id)).state == "success"
    assert gate.times == 2


async def test_stop_leaves_a_run_alone_that_has_ended() -> None:
    gate = Gate()
    gate.may_end.set()
    handle = gate.flow.start()
    run = await handle
    await handle.stop()
    assert await handle is run


async def test_stop_leaves_those_alone_who_wait_for_the_same_run() -> None:
    gate = Gate()
    run_id = gate.flow.init_run()
    handle, other = gate.flow.start(run_id=run_id), gate.flow.start(run_id=run_id)
    await gate.begun.wait()
    await handle.stop()
    assert not other.done()
    gate.may_end.set()
    assert (await other).state == "success"
    assert gate.times == 1


async def test_two_who_stop_it_at_once_both_wait_until_it_is_saved() -> None:
    gate = Gate()
    ending = asyncio.Event()
    saved: list[str] = []

    @gate.flow.task("slow")
    async def slow(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await ending.wait()
            saved.append("slow")

    handle = gate.flow.start()
    await gate.begun.wait()
    stops = [asyncio.ensure_future(handle.stop()) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert not any(stop.done() for stop in stops)
    ending.set()
    await asyncio.gather(*stops)
    assert saved == ["slow"]


async def test_what_kept_a_stopped_run_from_being_saved_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    handle = gate.flow.start()
    await gate.begun.wait()

    def broken(changes: Any) -> None:
        raise StoreError("memory", "the disk is gone")

    monkeypatch.setattr(gate.flow.store, "commit", broken)
    monkeypatch.setattr(gate.flow.store, "commit_at_once", broken)
    with pytest.raises(StoreError, match="the disk is gone"):
        await handle.stop()
    with pytest.raises(StoreError, match="the disk is gone"):
        await handle


def test_when_the_loop_ends_the_run_is_interrupted_and_a_later_program_continues_it(tmp_path: Path) -> None:
    times = 0

    def made(store: SQLiteStore, hold: bool) -> AsyncFlow:
        flow = AsyncFlow("nightly", store)
        flow.add_task_definition("first", returns(1))

        @flow.task("second", depends_on=["first"])
        async def second(ctx: Context) -> int:
            nonlocal times
            times += 1
            if hold:
                await asyncio.Event().wait()
            return int(ctx.pull_output("first")) + 1

        return flow

    async def serve() -> None:
        made(store, hold=True).start(run_id="monday")
        await until(lambda: times)

    with SQLiteStore(tmp_path / "runs.db") as store:
        asyncio.run(serve())
    with SQLiteStore(tmp_path / "runs.db") as store:
        run = store.load("monday")
        assert (run.state, run.tasks["second"].state) == ("scheduled", "scheduled")
        assert made(store, hold=False).run(run_id="monday").tasks["second"].output == 2
    assert times == 2


async def test_it_belongs_to_its_loop_and_elsewhere_says_how_to_join() -> None:
    gate = Gate()
    handle = gate.flow.start()
    await gate.begun.wait()

    async def wait() -> Any:
        return await handle

    def elsewhere() -> None:
        with pytest.raises(RunActiveError, match=r"await flow\.run_until_complete\("):
            asyncio.run(wait())

    await asyncio.to_thread(elsewhere)
    joined = asyncio.ensure_future(asyncio.to_thread(asyncio.run, gate.flow.run_until_complete(handle.run_id)))
    await asyncio.sleep(0.01)
    gate.may_end.set()
    assert (await joined).id == (await handle).id


async def test_a_task_cannot_await_the_run_that_it_is_part_of(flow: AsyncFlow) -> None:
    @flow.task("a")
    async def a(ctx: Context) -> None:
        await flow.start(run_id=ctx.run.id)

    run = await flow.start()
    assert run.state == "failed"
    assert "RunActiveError" in (run.tasks["a"].error or "")


async def test_a_run_that_another_owner_has_is_refused(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "runs.db") as store, SQLiteStore(tmp_path / "runs.db") as owner:
        gate = Gate(store)
        run_id = gate.flow.init_run()
        lease = owner.claim(run_id)
        handle = gate.flow.start(run_id=run_id)
        assert await collected(handle) == []
        with pytest.raises(RunOwnedError):
            await handle
        owner.release(lease)


# --- events ---


async def test_its_events_are_those_of_the_run_from_its_start_to_its_end(store: Store) -> None:
    gate = Gate(store)
    gate.may_end.set()
    handle = gate.flow.start()
    events = await collected(handle)
    assert kinds(events) == STORY
    assert {event.run_id for event in events} == {handle.run_id}
    assert (await handle).state == "success"


async def test_iterators_miss_nothing_whenever_they_are_made_and_each_gets_everything() -> None:
    gate = Gate()
    handle = gate.flow.start()
    early = asyncio.ensure_future(collected(handle))
    await gate.begun.wait()
    late = asyncio.ensure_future(collected(handle))
    await asyncio.sleep(0)
    gate.may_end.set()
    await handle
    after = await collected(handle)
    assert kinds(after) == STORY
    assert await early == await late == after


async def test_of_runs_at_once_each_handle_tells_its_own() -> None:
    gate = Gate()
    gate.may_end.set()
    several = [gate.flow.start() for _ in range(3)]
    told = await asyncio.gather(*map(collected, several))
    assert [{event.run_id for event in events} for events in told] == [{handle.run_id} for handle in several]
    assert all(kinds(events) == STORY for events in told)


async def test_the_events_of_subflows_are_among_them(store: Store) -> None:
    inner = AsyncFlow("inner").add_task_definition("leaf", returns(1))
    middle = AsyncFlow("middle").add_subflow_definition("sub", inner)
    flow = AsyncFlow("outer", store).add_subflow_definition("sub", middle)
    events = await collected(flow.start())
    assert [event.flow_name for event in events if isinstance(event, RunFinished)] == ["inner", "middle", "outer"]
    assert [event.task_id for event in events if isinstance(event, TaskSucceeded)] == ["leaf", "sub", "sub"]


async def test_they_are_told_to_a_handle_that_joined_whoever_drives_the_run() -> None:
    gate = Gate()
    other = AsyncFlow("gated", gate.flow.store)
    for task_id, after in (("wait", None), ("then", ["wait"])):
        other.add_task_definition(task_id, returns(0), dependencies=after)
    run_id = gate.flow.init_run()
    call = asyncio.ensure_future(gate.flow.run_until_complete(run_id))
    await gate.begun.wait()
    handle = other.start(run_id=run_id)
    told = asyncio.ensure_future(collected(handle))
    await asyncio.sleep(0.05)
    gate.may_end.set()
    assert kinds(await told) == STORY[2:]
    await call


async def test_they_are_told_across_threads() -> None:
    gate = Gate()
    gate.may_end.set()
    may_end = threading.Event()
    begun = threading.Event()

    @gate.flow.task("held")
    def held(ctx: Context) -> None:
        begun.set()
        assert may_end.wait(10)

    run_id = gate.flow.init_run()
    driving = asyncio.ensure_future(asyncio.to_thread(asyncio.run, gate.flow.run_until_complete(run_id)))
    await until(begun.is_set)
    handle = gate.flow.start(run_id=run_id)
    told = asyncio.ensure_future(collected(handle))
    await handle.made()
    await asyncio.sleep(0.05)
    may_end.set()
    assert kinds(await told)[-2:] == ["TaskSucceeded", "RunFinished"]
    await driving


async def test_of_a_run_that_is_stopped_the_last_event_says_so() -> None:
    gate = Gate()
    handle = gate.flow.start()
    told = asyncio.ensure_future(collected(handle))
    await gate.begun.wait()
    await handle.stop()
    assert isinstance((await told)[-1], RunInterrupted)


async def test_a_run_that_had_ended_tells_nothing_more() -> None:
    gate = Gate()
    gate.may_end.set()
    run = await gate.flow.start()
    assert await collected(gate.flow.start(run_id=run.id)) == []


async def test_an_iterator_that_is_left_is_fed_no_more() -> None:
    gate = Gate()
    handle = gate.flow.start()
    async for event in handle.events():
        assert kinds([event]) == ["RunStarted"]
        break
    gc.collect()
    assert len(handle._feed._readers) == 0
    waiting = asyncio.ensure_future(collected(handle))
    await gate.begun.wait()
    await asyncio.sleep(0)
    assert len(handle._feed._readers) == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    del waiting
    gc.collect()
    assert len(handle._feed._readers) == 0
    gate.may_end.set()
    await handle


async def test_an_iterator_outlives_the_handle() -> None:
    gate = Gate()
    gate.may_end.set()
    events = gate.flow.start().events()
    gc.collect()
    assert kinds([event async for event in events]) == STORY


async def test_two_tasks_that_share_an_iterator_share_the_events_and_both_end() -> None:
    gate = Gate()
    handle = gate.flow.start()
    events = handle.events()

    async def read() -> list[Event]:
        return [event async for event in events]

    readers = [asyncio.ensure_future(read()) for _ in range(2)]
    await gate.begun.wait()
    gate.may_end.set()
    first, second = await asyncio.gather(*readers)
    assert sorted(kinds(first + second)) == sorted(STORY)


async def test_of_a_long_run_the_latest_are_kept_for_who_comes_late_and_an_iterator_that_was_there_misses_none(
    flow: AsyncFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "KEPT", 10)
    for number in range(20):
        flow.add_task_definition(f"t{number}", returns(number))
    handle = flow.start()
    early = handle.events()
    await handle
    late = handle.events()
    assert (early.missed, late.missed) == (0, 32)
    assert repr(late) == "<RunEvents, 10 to read, ended>"
    everything = [event async for event in early]
    assert len(everything) == 42
    assert [event async for event in late] == everything[-10:]


async def test_a_flow_s_subscribers_are_told_of_it_too(flow: AsyncFlow) -> None:
    flow.add_task_definition("a", returns(1))
    heard: list[Event] = []
    flow.subscribe(heard.append, TaskStarted)
    handle = flow.start()
    events = await collected(handle)
    assert heard == [event for event in events if isinstance(event, TaskStarted)]


async def test_stop_while_coroutine_subscribers_are_waited_for_does_not_undo_the_end() -> None:
    gate = Gate(grace_period=60)
    gate.may_end.set()
    told = asyncio.Event()

    async def hang(event: Event) -> None:
        told.set()
        await asyncio.Event().wait()

    gate.flow.subscribe(hang, RunFinished)
    handle = gate.flow.start()
    await told.wait()
    await asyncio.sleep(0.01)
    assert not handle.done()
    began = time.monotonic()
    await handle.stop()
    assert (await handle).state == "success"
    assert time.monotonic() - began < 5
