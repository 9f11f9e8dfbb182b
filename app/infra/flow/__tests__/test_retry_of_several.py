"""Several tasks set back by one call: as many calls one after the other, of which all or none is done."""

from __future__ import annotations

from typing import Any

import pytest

from .. import AsyncFlow, Context, Store, UnknownTaskError
from .conftest import returns, run


@pytest.fixture
def flow(store: Store) -> AsyncFlow:
    return AsyncFlow("whole", store)


class Site:
    """A site that is down until it is mended."""

    def __init__(self) -> None:
        self.mended = False
        self.calls: list[str] = []

    def ask(self, ctx: Context) -> str:
        self.calls.append(ctx.task_id)
        if not self.mended:
            raise ConnectionError("down")
        return ctx.task_id


def nested(flow: AsyncFlow) -> Site:
    site, child = Site(), AsyncFlow("child")
    for task_id in ("a", "b", "c"):
        child.add_task_definition(task_id, site.ask)
    flow.add_task_definition("first", returns(1))
    flow.add_subflow_definition("sub", child, dependencies=["first"])
    flow.add_task_definition("last", returns(2), dependencies=["sub"])
    return site


@pytest.mark.parametrize("kind", [list, tuple])
async def test_two_tasks_of_one_subflow_are_set_back_in_the_run_that_it_has(flow: AsyncFlow, store: Store, kind: Any) -> None:
    site = nested(flow)
    failed = await run(flow)
    child_id = failed.tasks["sub"].child_run_id
    site.mended, site.calls = True, []
    flow.manual_retry(failed.id, kind(["sub.a", "sub.b"]), reset_downstream=True)
    inside = store.load(child_id or "")
    assert (inside.state, {task_id: str(task.state) for task_id, task in inside.tasks.items()}) == (
        "scheduled",
        {"a": "scheduled", "b": "scheduled", "c": "failed"},
    )
    done = await flow.run_until_complete(failed.id)
    assert (done.state, sorted(site.calls)) == ("failed", ["a", "b"])
    assert (await flow.retry(failed.id, "sub.c")).state == "success"
    assert store.load(failed.id).tasks["sub"].child_run_id == child_id
    assert [len(store.list_attempts(child_id or "", task_id)) for task_id in "abc"] == [2, 2, 2]


@pytest.mark.parametrize("wrong", ["nothing", "first.inside", "sub.nothing", "sub.a.b"])
async def test_where_one_cannot_be_set_back_none_is(flow: AsyncFlow, store: Store, wrong: str) -> None:
    nested(flow)
    failed = await run(flow)
    before = store.load(failed.id), store.load(failed.tasks["sub"].child_run_id or "")
    told: list[Any] = []
    flow.subscribe(told.append)
    with pytest.raises(UnknownTaskError):
        flow.manual_retry(failed.id, ["first", "sub.a", wrong], reset_downstream=True)
    assert (store.load(failed.id), store.load(failed.tasks["sub"].child_run_id or "")) == before
    assert told == []
    assert (await flow.retry(failed.id, "sub.a")).state == "failed"  # it was given up: nobody owns it


async def test_a_task_inside_a_subflow_that_begins_anew_by_the_one_before_is_refused_with_all(
    flow: AsyncFlow, store: Store
) -> None:
    site = nested(flow)
    site.mended = True
    done = await run(flow)
    with pytest.raises(UnknownTaskError, match="has not begun"):
        flow.manual_retry(done.id, ["sub", "sub.a"])
    assert store.load(done.id) == done


async def test_a_subflow_that_is_left_behind_after_a_task_in_it_was_set_back_does_not_stay_open(
    flow: AsyncFlow, store: Store
) -> None:
    site = nested(flow)
    failed = await run(flow)
    child_id = failed.tasks["sub"].child_run_id or ""
    flow.manual_retry(failed.id, ["sub.a", "first"], reset_downstream=True)  # the second has the subflow begin anew
    left = store.load(child_id)
    assert (left.state, left.tasks["a"].state) == ("cancelled", "cancelled")
    site.mended = True
    done = await flow.run_until_complete(failed.id)
    assert done.state == "success"
    assert done.tasks["sub"].child_run_id != child_id
    assert store.check() == []


async def test_the_list_is_one_commit(flow: AsyncFlow, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    nested(flow)
    failed = await run(flow)
    commits: list[int] = []
    commit = type(store).commit

    def noted(self: Store, changes: Any) -> None:
        commits.append(len(changes.notes))
        commit(self, changes)

    monkeypatch.setattr(type(store), "commit", noted)
    flow.manual_retry(failed.id, ["first", "sub.a", "sub.b"])
    assert commits == [5]  # one note for each run on the way of each
    assert [change.task_id for change in store.history(failed.id)].count("sub") > 0
