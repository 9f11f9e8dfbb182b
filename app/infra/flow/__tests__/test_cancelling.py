"""Runs and tasks that are cancelled while nobody drives them, or asked to be while somebody does: on each of the three stores."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from .. import (
    Ask,
    AsyncFlow,
    AttemptResult,
    Changes,
    InvalidNameError,
    Lease,
    RunFailedError,
    RunFinished,
    RunMismatchError,
    RunNotFoundError,
    RunOwnedError,
    State,
    Store,
    TaskCancelled,
    TaskSkipped,
    UnknownTaskError,
    WorkflowRun,
)
from ..cancelling import meant_by
from ..run_tree import RunTree
from ..runs import Runs
from ..session import claimed
from .conftest import FakeClock, events_of, returns, run, states_of
from .processes import Programs, programs

__all__ = ["programs"]


def runs_of(flow: AsyncFlow, store: Store) -> Runs:
    return Runs(flow.definition, store, flow._clock, flow._make_id, flow._worker, flow.events)


def cancel(flow: AsyncFlow, run_id: str, path: Any = None) -> bool:
    return runs_of(flow, flow.store).cancel(run_id, path)


@pytest.fixture
def chain(store: Store, clock: FakeClock) -> AsyncFlow:
    """Three tasks in a row, and one beside them."""
    flow = AsyncFlow("chain", store, clock=clock)
    flow.add_task_definition("a", returns(1)).add_task_definition("b", returns(2), dependencies=["a"])
    flow.add_task_definition("c", returns(3), dependencies=["b"])
    return flow.add_task_definition("beside", returns(4))


async def stopped_inside(store: Store) -> tuple[AsyncFlow, str]:
    """A run of three levels, stopped while its innermost task ran: `sub.inner.waits`; that task succeeds the next time."""
    began = asyncio.Event()

    async def waits(ctx: Any) -> str:
        if not began.is_set():
            began.set()
            await asyncio.Event().wait()
        return "done"

    inner = AsyncFlow("inner").add_task_definition("first", returns(0))
    inner.add_task_definition("waits", waits, dependencies=["first"])
    child = AsyncFlow("child").add_subflow_definition("inner", inner).add_task_definition("quick", returns(1))
    flow = AsyncFlow("flow", store).add_subflow_definition("sub", child)
    flow.add_task_definition("after", returns(2), dependencies=["sub"]).add_task_definition("beside", returns(3))
    run_id = flow.init_run()
    running = asyncio.create_task(flow.run_until_complete(run_id))
    await began.wait()
    running.cancel()
    await asyncio.wait([running])
    return flow, run_id


def below(store: Store, run_id: str) -> list[WorkflowRun]:
    """The runs of a tree, the outermost first."""
    found = [run_id]
    for each in found:
        found.extend(store.list_children(each))
    return [store.load(each) for each in found]


def freed_on_the_second_claim(store: Store, lease: Lease, monkeypatch: pytest.MonkeyPatch, between: Callable[[], None]) -> None:
    """The run's owner goes just after somebody was refused."""
    claim = store.claim

    def refused_once(run_id: str, *, force: bool = False) -> Lease:
        try:
            return claim(run_id, force=force)
        except RunOwnedError:
            between()
            store.release(lease)
            raise

    monkeypatch.setattr(store, "claim", refused_once)


# --- nobody drives it ---


async def test_a_run_that_nobody_drives_is_cancelled_at_once(chain: AsyncFlow, store: Store) -> None:
    told = events_of(chain)
    run_id = chain.init_run()
    assert cancel(chain, run_id)
    loaded = store.load(run_id)
    assert (loaded.state, set(states_of(loaded).values())) == ("cancelled", {"cancelled"})
    assert loaded.end_date is not None
    assert [type(event) for event in told] == [TaskCancelled] * 4 + [RunFinished]
    assert not cancel(chain, run_id)
    assert not cancel(chain, run_id, "a")
    assert len(told) == 5
    given_back = await chain.run_until_complete(run_id)
    assert given_back.state == "cancelled"
    with pytest.raises(RunFailedError, match="cancelled"):
        given_back.raise_for_failure()
    assert store.check() == []


async def test_a_run_that_has_ended_is_not_cancelled(chain: AsyncFlow, store: Store) -> None:
    ended = await run(chain)
    assert not cancel(chain, ended.id)
    assert not cancel(chain, ended.id, "a")
    assert store.load(ended.id).state == "success"


async def test_a_task_is_cancelled_alone_and_what_is_downstream_is_skipped_when_the_run_is_driven(
    chain: AsyncFlow, store: Store
) -> None:
    run_id = chain.init_run()
    assert cancel(chain, run_id, "b")
    assert not cancel(chain, run_id, "b")
    assert states_of(store.load(run_id)) == {"a": "scheduled", "b": "cancelled", "c": "scheduled", "beside": "scheduled"}
    told = events_of(chain)
    driven = await chain.run_until_complete(run_id)
    assert states_of(driven) == {"a": "success", "b": "cancelled", "c": "skipped", "beside": "success"}
    assert driven.tasks["c"].reason == "upstream task 'b' was cancelled"
    assert driven.state == "failed"
    assert any(isinstance(event, TaskSkipped) for event in told)
    with pytest.raises(RunFailedError) as caught:
        driven.raise_for_failure()
    assert caught.value.failures == {"b": "it was cancelled"}
    again = await chain.retry(run_id, "b")
    assert (again.state, set(states_of(again).values())) == ("success", {"success"})


async def test_a_cancelled_run_goes_on_by_a_manual_retry(chain: AsyncFlow, store: Store) -> None:
    run_id = chain.init_run()
    cancel(chain, run_id)
    again = await chain.retry(run_id, "a")
    assert states_of(again) == {"a": "success", "b": "success", "c": "success", "beside": "cancelled"}
    assert again.state == "failed"
    assert (await chain.retry(run_id, "beside")).state == "success"
    assert store.asked(run_id) == []


async def test_what_a_dead_process_left_running_is_cancelled_with_its_attempt_kept(chain: AsyncFlow, store: Store) -> None:
    run_id = chain.init_run()
    record = store.read_tasks(run_id)[0]
    record.state, record.started, record.attempts = State.RUNNING, 1, 1
    store.commit(Changes(tasks=[record]))
    assert cancel(chain, run_id, "a")
    (attempt,) = store.list_attempts(run_id)
    assert (attempt.task_id, attempt.number, attempt.result) == ("a", 1, AttemptResult.CANCELLED)
    await chain.retry(run_id, "a")
    results = [attempt.result.value for attempt in store.list_attempts(run_id, "a")]
    assert results == ["cancelled", "success"]


async def test_all_runs_of_a_tree_are_cancelled_with_the_outermost(store: Store) -> None:
    flow, run_id = await stopped_inside(store)
    told = events_of(flow)
    assert cancel(flow, run_id)
    tree = below(store, run_id)
    assert [loaded.state for loaded in tree] == ["cancelled"] * 3
    assert {path: task.state.value for path, task in tree[0].get_all_tasks_recursive(store).items()} == {
        "sub": "cancelled",
        "sub.inner": "cancelled",
        "sub.inner.first": "success",
        "sub.inner.waits": "cancelled",
        "sub.quick": "success",
        "after": "cancelled",
        "beside": "success",
    }
    assert sum(isinstance(event, RunFinished) for event in told) == 3
    again = await flow.retry(run_id, "sub")
    assert again.state == "success"
    assert [loaded.id for loaded in below(store, run_id)] == [loaded.id for loaded in tree]
    assert [attempt.number for attempt in store.list_attempts(tree[2].id, "first")] == [1]  # what was done stayed done
    assert store.check() == []


@pytest.mark.parametrize("by", ["path", "run of the subflow", "path from the subflow", "its own flow"])
async def test_a_subflow_is_cancelled_with_the_task_that_it_is_the_inside_of(by: str, store: Store) -> None:
    flow, run_id = await stopped_inside(store)
    child, inner = (loaded.id for loaded in below(store, run_id)[1:])
    if by == "path":
        assert cancel(flow, run_id, "sub.inner")
    elif by == "path from the subflow":
        assert cancel(flow, child, "inner")
    elif by == "its own flow":
        assert cancel(AsyncFlow("inner", store).add_task_definition("other", returns(0)), inner)
    else:
        assert cancel(flow, inner)
    assert not cancel(flow, inner)
    assert store.load(inner).state == "cancelled"
    assert states_of(store.load(child)) == {"inner": "cancelled", "quick": "success"}
    assert store.load(run_id).state == "scheduled"
    driven = await flow.run_until_complete(run_id)
    assert (driven.state, states_of(driven)) == ("failed", {"sub": "failed", "after": "skipped", "beside": "success"})
    assert store.load(child).state == "failed"
    assert driven.tasks["sub"].reason == "SubflowFailed: sub.inner: it was cancelled"
    again = await flow.retry(run_id, "sub")
    assert again.state == "success"
    assert store.load(inner).state == "success"


async def test_a_task_inside_a_subflow_is_cancelled_by_its_path(store: Store) -> None:
    flow, run_id = await stopped_inside(store)
    assert cancel(flow, run_id, "sub.inner.waits")
    assert not cancel(flow, run_id, "sub.inner.first")
    assert [loaded.state for loaded in below(store, run_id)] == ["scheduled"] * 3
    driven = await flow.run_until_complete(run_id)
    assert driven.tasks["sub"].reason == "SubflowFailed: sub.inner.waits: it was cancelled"
    again = await flow.retry(run_id, "sub.inner.waits")
    assert again.state == "success"


async def test_a_run_whose_flow_has_another_graph_by_now_is_cancelled_all_the_same(chain: AsyncFlow, store: Store) -> None:
    run_id = chain.init_run()
    changed = AsyncFlow("chain", store).add_task_definition("other", returns(1))
    assert cancel(changed, run_id, "b")
    assert cancel(changed, run_id)
    assert store.load(run_id).state == "cancelled"


async def test_what_cannot_be_cancelled_is_refused_by_name(chain: AsyncFlow, store: Store) -> None:
    run_id = chain.init_run()
    flow, tree = await stopped_inside(store)
    before = [store.load(run_id), *below(store, tree)]
    for owned in (False, True):
        leases = [store.claim(run_id), store.claim(tree)] if owned else []
        with pytest.raises(RunNotFoundError):
            cancel(chain, "unknown")
        with pytest.raises(RunMismatchError):
            cancel(chain, tree)
        with pytest.raises(UnknownTaskError, match="Did you mean 'beside'"):
            cancel(chain, run_id, "besides")
        with pytest.raises(UnknownTaskError, match="is no subflow"):
            cancel(chain, run_id, "a.b")
        with pytest.raises(InvalidNameError):
            cancel(chain, run_id, 7)
        with pytest.raises(UnknownTaskError):
            cancel(flow, tree, "sub.inner.unknown")
        for lease in leases:
            store.release(lease)
    fresh = flow.init_run()
    with pytest.raises(UnknownTaskError, match="has not begun"):
        cancel(flow, fresh, "sub.inner")
    assert [store.load(run_id), *below(store, tree)] == before
    assert (store.asked(run_id), store.asked(tree)) == ([], [])


async def test_what_is_asked_for_is_found_among_the_runs_at_hand(store: Store) -> None:
    flow, run_id = await stopped_inside(store)
    with claimed(store, run_id) as lease:
        tree = RunTree(store, flow.definition, flow._clock, lease)
        root = tree.root(run_id)
        runs = {live.run.id: live for live in (root, *tree.unfinished(root))}
    child, inner = (run.id for run in below(store, run_id)[1:])

    def meant(run: str, path: str | None = None) -> tuple[str, str | None] | None:
        found = meant_by(Ask(run, path), runs)
        return None if found is None else (found[0].run.id, None if found[1] is None else found[1].task_id)

    assert meant(run_id) == (run_id, None)
    assert meant(child) == meant(run_id, "sub") == (run_id, "sub")
    assert meant(inner) == meant(run_id, "sub.inner") == meant(child, "inner") == (child, "inner")
    assert meant(run_id, "sub.inner.waits") == meant(inner, "waits") == (inner, "waits")
    for nowhere in (Ask("gone"), Ask("gone", "a"), Ask(run_id, "gone"), Ask(run_id, "beside.x"), Ask(run_id, "gone.x")):
        assert meant_by(nowhere, runs) is None


# --- somebody drives it, or did ---


@pytest.mark.parametrize("path", [None, "b"])
def test_whoever_drives_it_is_asked_and_told_at_once(path: str | None, chain: AsyncFlow, store: Store) -> None:
    run_id = chain.init_run()
    lease = store.claim(run_id)
    told: list[list[Ask]] = []
    end = store.watch_asks(run_id, lambda: told.append(store.asked(run_id)))
    assert cancel(chain, run_id, path)
    end()
    assert told[0] == [Ask(run_id, path)]  # the thread that looks may tell once more
    assert set(states_of(store.load(run_id)).values()) == {"scheduled"}
    store.release(lease)


async def test_what_is_asked_of_a_subflow_goes_to_who_drives_the_outermost_run(store: Store) -> None:
    flow, run_id = await stopped_inside(store)
    inner = below(store, run_id)[2].id
    lease = store.claim(run_id)
    assert cancel(flow, inner, "waits")
    assert store.asked(run_id) == [Ask(inner, "waits")]
    store.release(lease)
    driven = await flow.run_until_complete(run_id)
    assert driven.tasks["sub"].reason == "SubflowFailed: sub.inner.waits: it was cancelled"
    assert store.asked(run_id) == []


def test_when_the_owner_goes_just_then_it_is_done_here(chain: AsyncFlow, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = chain.init_run()
    freed_on_the_second_claim(store, store.claim(run_id), monkeypatch, lambda: None)
    assert cancel(chain, run_id)
    assert (store.load(run_id).state, store.asked(run_id)) == ("cancelled", [])


@pytest.mark.parametrize(("state", "expected"), [("success", False), ("cancelled", True)])
def test_when_the_run_ends_just_then_the_answer_is_what_became_of_it(
    state: str, expected: bool, chain: AsyncFlow, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = chain.init_run()
    lease = store.claim(run_id)

    def end() -> None:
        record = store.read_run(run_id)
        record.state = type(record.state)(state)
        store.commit(Changes(runs=[record], lease=lease))

    freed_on_the_second_claim(store, lease, monkeypatch, end)
    assert cancel(chain, run_id) is expected
    assert (store.load(run_id).state, store.asked(run_id)) == (state, [])


@pytest.mark.parametrize("again", ["drive", "retry", "manual_retry"])
async def test_what_a_dead_owner_left_undone_is_done_when_the_run_is_next_taken(
    again: str, chain: AsyncFlow, store: Store
) -> None:
    """The owner is killed between the ask and the act: then the ask is in the store, and the run is free."""
    run_id = chain.init_run()
    lease = store.claim(run_id)
    assert cancel(chain, run_id)
    store.release(lease)
    told = events_of(chain)
    if again == "drive":
        driven = await chain.run_until_complete(run_id)
        assert (driven.state, set(states_of(driven).values())) == ("cancelled", {"cancelled"})
    elif again == "retry":
        driven = await chain.retry(run_id, "a")
        assert states_of(driven) == {"a": "success", "b": "success", "c": "success", "beside": "cancelled"}
    else:
        chain.manual_retry(run_id, "a")
        assert states_of(store.load(run_id)) == {"a": "scheduled", "b": "cancelled", "c": "cancelled", "beside": "cancelled"}
    assert store.asked(run_id) == []
    assert sum(isinstance(event, TaskCancelled) for event in told) == 4
    assert sum(isinstance(event, RunFinished) for event in told) == (2 if again == "retry" else 1)


async def test_what_was_asked_of_a_task_is_done_once_and_not_again_after_its_retry(chain: AsyncFlow, store: Store) -> None:
    run_id = chain.init_run()
    lease = store.claim(run_id)
    assert cancel(chain, run_id, "b")
    assert cancel(chain, run_id, "a")
    store.release(lease)
    chain.manual_retry(run_id, "b")
    assert states_of(store.load(run_id)) == {"a": "cancelled", "b": "scheduled", "c": "scheduled", "beside": "scheduled"}
    chain.manual_retry(run_id, "a")
    assert (await chain.run_until_complete(run_id)).state == "success"


async def test_what_was_asked_of_a_run_that_has_ended_does_not_stop_its_retry(chain: AsyncFlow, store: Store) -> None:
    ended = await run(chain)
    store.ask(ended.id, Ask(ended.id))  # its owner was killed between its end and forgetting this
    assert (await chain.retry(ended.id, "a")).state == "success"
    assert store.asked(ended.id) == []


async def test_what_was_asked_too_late_is_forgotten_with_the_runs_end(store: Store) -> None:
    flow = AsyncFlow("flow", store)

    @flow.task
    async def only(ctx: Any) -> None:
        store.ask(ctx.run.id, Ask("a run that is no more"))

    ended = await run(flow)
    assert (ended.state, store.asked(ended.id)) == ("success", [])


async def test_an_ask_whose_aim_is_no_more_is_passed_over(chain: AsyncFlow, store: Store) -> None:
    run_id = chain.init_run()
    for ask in (Ask("gone"), Ask(run_id, "gone"), Ask(run_id, "a.gone"), Ask("gone", "a")):
        store.ask(run_id, ask)
    assert (await chain.run_until_complete(run_id)).state == "success"
    assert store.asked(run_id) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("path", [None, "t2"])
async def test_an_owner_that_is_killed_before_it_acts_leaves_the_ask_to_the_next(path: str | None, programs: Programs) -> None:
    """With real processes: one drives and hears nothing yet of asks, this one asks, that one is killed, this one drives on."""
    driver = programs.worker(hold=["t1"])
    driver.tell("drive run")
    driver.expect("in t1")
    with programs.store() as store:
        flow = AsyncFlow("chain", store)
        for number in range(3):
            flow.add_task_definition(f"t{number}", returns(number), dependencies=[f"t{number - 1}"] if number else None)
        assert cancel(flow, "run", path)
        assert store.load("run").state == "running"
        driver.kill()
        driven = await flow.run_until_complete("run")
        rest = {"t1": "cancelled", "t2": "cancelled"} if path is None else {"t1": "success", "t2": "cancelled"}
        assert states_of(driven) == {"t0": "success", **rest}
        assert driven.state == ("cancelled" if path is None else "failed")
        assert [attempt.result for attempt in store.list_attempts("run", "t1")][0] == (
            "cancelled" if path is None else "interrupted"
        )
        assert (store.asked("run"), store.check()) == ([], [])
