"""Plans: what continuing a run would do, held against what it then does; and what each kind of task is said to come to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Changes,
    Context,
    FlowError,
    GraphChangedError,
    MemoryStore,
    Plan,
    RunMismatchError,
    RunNotFoundError,
    Store,
    TriggerRule,
)
from ..models import TERMINAL_STATES, ExecutionState
from ..records import Ask, TaskRecord
from .attempts import until
from .conftest import Effects, FakeClock, around_commits, fails, flaky, make_store, returns
from .conftest import run as run_flow
from .shapes import PARAMS, Drawing, Drawn, Nobody, build, paths, random_drawing

SEEDS = {"memory": 150, "sqlite": 15, "json": 15}


class Crash(BaseException):
    """The process is gone: nothing after it happens."""


class Began:
    """A witness who notes the path of each task that begins."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def began(self, ctx: Context, flow_name: str, task: Drawn) -> None:
        self.paths.append(".".join([*flow_name.split(" ")[1:], task.id]))

    def ends(self, ctx: Context, flow_name: str, task: Drawn) -> None:
        """Look away."""


def without_failures(drawing: Drawing) -> Drawing:
    return tuple(replace(task, failures=0, child=without_failures(task.child)) for task in drawing)


def can_fail(drawing: Drawing) -> bool:
    return any(task.failures or can_fail(task.child) for task in drawing)


def changed(drawing: Drawing, rng: random.Random) -> Drawing:
    """The same flow some days later: tasks gone, new ones, other dependencies, functions that have become subflows."""
    kept = [task for task in drawing if rng.random() < 0.8]
    there: list[Drawn] = []
    for task in kept:
        after = tuple(other.id for other in there if (other.id in task.after) != (rng.random() < 0.1))
        child = changed(task.child, rng) if task.child else ()
        if rng.random() < 0.1:
            child = () if child else (Drawn("only"),)
        there.append(replace(task, after=after, child=child, failures=0 if child else task.failures))
    for number in range(rng.randint(0 if there else 1, 2)):
        there.append(Drawn(f"new{number}", tuple(other.id for other in there if rng.random() < 0.3)))
    return tuple(there)


async def drive(store: Store, flow: AsyncFlow, crash_at: int, limit: int = 0, done: bool = False) -> None:
    """Run the flow until the process is gone, at the commit of that number, which is done or not."""
    commits = 0

    def crashing(commit: Callable[[], None], changes: Changes) -> None:
        nonlocal commits
        commits += 1
        if commits == crash_at:
            if done:
                commit()
            raise Crash
        commit()

    undo = around_commits(store, crashing)
    try:
        flow.init_run(PARAMS, run_id="run")
        await flow.run_until_complete("run", limit)
    except Crash:
        pass
    finally:
        undo()


def disturb(flow: AsyncFlow, drawing: Drawing, rng: random.Random) -> None:
    """What people do to runs that nobody drives, where it can be done."""
    for _ in range(rng.choice([0, 0, 1, 2])):
        path = rng.choice(paths(drawing))
        try:
            if rng.random() < 0.7:
                flow.manual_retry("run", path, rng.random() < 0.5)
            else:
                flow.cancel_task("run", path)
        except FlowError:  # it is in a subflow that has not begun
            continue


def states(store: Store) -> dict[str, str]:
    return {path: task.state.value for path, task in store.load("run").get_all_tasks_recursive(store).items()}


async def hold_against_what_happens(store: Store, flow: AsyncFlow, began: Began, plan: Plan, nothing_fails: bool) -> None:
    before = states(store)
    listed = [*plan.reuse, *plan.run, *plan.add, *plan.end, *plan.keep, *plan.drop]
    assert len(listed) == len(set(listed))
    assert set(plan.why) <= set(listed)
    if plan.graph_changed and not plan.has_ended:
        with pytest.raises(GraphChangedError):
            await flow.run_until_complete("run")
    run = await flow.run_until_complete("run", adopt_graph=plan.graph_changed)
    after = states(store)
    ran, might = set(began.paths), {*plan.run, *plan.add}
    assert ran <= might
    functions = {path for path in might if path not in after or is_function(flow, path)}
    if nothing_fails and not plan.keep:
        assert ran == functions - {path for path in functions if "tried again" in plan.why.get(path, "")}
    for path in functions - ran:  # something upstream of it, or of a subflow around it, failed
        around = [path.rsplit(".", depth)[0] for depth in range(1, path.count(".") + 1)]
        assert "skipped" in [after.get(one, "skipped") for one in (path, *around)] or after[path] == before[path]
    for path in plan.reuse:
        assert before[path] == after[path] == "success"
    for path in plan.keep:
        assert before[path] == after[path] != "success" or "no longer has it" in plan.why[path]
    for path in plan.end:
        assert after[path] in ("skipped", "failed", "cancelled")
    for path in plan.drop:
        assert (before[path] in ("scheduled", "running"), after[path]) == (True, "skipped")
    for path in plan.add:
        assert path not in before
    if plan.has_ended:
        assert before == after
        assert run.state == plan.state


def is_function(flow: AsyncFlow, path: str) -> bool:
    definition: Any = flow._definition
    *outer, last = path.split(".")
    for name in outer:
        definition = definition.tasks[name].child
    return definition.tasks[last].child is None


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind, number in SEEDS.items() for seed in range(number)])
async def test_a_plan_says_what_then_happens(kind: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    drawing, clock = random_drawing(rng), FakeClock()
    if seed % 3 == 0:
        drawing = without_failures(drawing)
    store = make_store(kind, tmp_path)
    await drive(
        store,
        build(drawing, Nobody(), store=store, clock=clock),
        rng.randint(2, 12),
        rng.choice([0, 0, 1, 2]),
        rng.random() < 0.5,
    )
    disturb(build(drawing, Nobody(), store=store, clock=clock), drawing, rng)
    later = changed(drawing, rng) if seed % 2 else drawing
    began = Began()
    flow = build(later, began, store=store, clock=clock)
    before = states(store)
    plan = flow.plan("run")
    assert states(store) == before
    await hold_against_what_happens(store, flow, began, plan, not can_fail(drawing) and not can_fail(later))
    store.close()


# --- conditions and maps -------------------------------------------------------------------------------------------------

RULES = [rule.value for rule in TriggerRule]


def conditional_flow(rng: random.Random, effects: Effects, **options: Any) -> tuple[AsyncFlow, dict[str, list[str]]]:
    """Tasks with rules, branches and maps, some of which fail; and the upstreams of each."""
    flow = AsyncFlow("flow", **options)
    upstreams: dict[str, list[str]] = {}
    lists: list[str] = []
    branches: dict[str, str] = {}
    number = rng.randint(2, 7)
    for at in range(number):
        task_id = f"t{at}"
        after = [other for other in upstreams if rng.random() < 0.4]
        kind = rng.choice(["plain", "fails", "branch", "list", "list", "map", "map", "map"])
        said: dict[str, Any] = {"trigger_rule": rng.choice(["all_success", *RULES])}
        if kind == "map" and lists:
            over = said["map_over"] = rng.choice(lists)
            after = [other for other in after if other != over]
        if kind == "branch":
            said["branch"] = True
            branches[task_id] = rng.choice(["all", "first", "none"])
        size = rng.randint(0, 3)
        bad = rng.randint(0, 4)

        async def work(ctx: Context, kind: str = kind, size: int = size, bad: int = bad) -> Any:
            effects.log.append(ctx.task_id)
            if kind == "fails" or (kind == "map" and ctx.map_index == bad):
                raise ValueError("no")
            if kind == "branch":
                behind = [other for other, ids in upstreams.items() if ctx.task_id in ids]
                return {"all": behind, "first": behind[:1], "none": []}[branches[ctx.task_id]]
            return list(range(size)) if kind == "list" else 1

        flow.add_task_definition(task_id, work, dependencies=after, **said)
        upstreams[task_id] = [*after, *([said["map_over"]] if "map_over" in said else [])]
        if kind in ("list", "map"):
            lists.append(task_id)
    return flow, upstreams


async def check_a_plan_with_conditions(store: Store, seed: int) -> Plan:
    clock, effects = FakeClock(), Effects()
    flow, upstreams = conditional_flow(random.Random(seed), effects, store=store, clock=clock)
    rng = random.Random(f"people {seed}")
    await drive(store, flow, rng.randint(2, 10), rng.choice([0, 0, 1]), rng.random() < 0.5)
    for _ in range(rng.choice([0, 0, 1, 2])):
        path = rng.choice(list(store.load("run").tasks))
        if rng.random() < 0.7:
            flow.manual_retry("run", path, rng.random() < 0.5)
        else:
            flow.cancel_task("run", path)
    effects.log.clear()
    before = states(store)
    plan = flow.plan("run")
    await flow.run_until_complete("run")
    after = states(store)
    known = {*plan.reuse, *plan.end, *plan.keep}
    for path in effects.log:  # of a map that has no items yet, none are listed
        whole = path.partition("[")[0]
        assert path in plan.run or (whole in plan.run and not any(one.startswith(f"{whole}[") for one in (*plan.run, *known)))
    assert all(before[path] == after[path] == "success" for path in plan.reuse)
    assert all(before[path] == after[path] != "success" for path in plan.keep)
    assert all(after[path] in ("skipped", "failed", "cancelled") and before[path] not in TERMINAL_STATES for path in plan.end)
    assert not {*effects.log} & known
    for path in plan.run:
        if path in upstreams and {*plan.reuse, *plan.keep}.issuperset(upstreams[path]):  # else how one ends may yet decide
            assert path in effects.log or after[path] != "skipped" or f"{path}[0]" in after
    return plan


@pytest.mark.parametrize("seed", range(150))
async def test_a_plan_with_conditions_and_maps_says_what_may_happen(seed: int) -> None:
    await check_a_plan_with_conditions(MemoryStore(), seed)


# --- each kind of task by itself -----------------------------------------------------------------------------------------


def kinds(plan: Plan) -> dict[str, tuple[str, ...]]:
    """What a plan lists, without what is empty."""
    return {kind: paths for kind in ("reuse", "run", "add", "end", "keep", "drop") if (paths := getattr(plan, kind))}


async def test_a_run_that_nobody_began_would_run_it_all_subflows_included(store: Store, clock: FakeClock) -> None:
    inner = AsyncFlow("inner").add_task_definition("a", returns(1)).add_task_definition("b", returns(2))
    flow = AsyncFlow("outer", store, clock=clock).add_task_definition("first", returns(0))
    flow.add_subflow_definition("sub", inner, dependencies=["first"])
    flow.init_run(run_id="run")
    plan = flow.plan("run")
    assert kinds(plan) == {"run": ("first", "sub", "sub.a", "sub.b")}
    assert (plan.run_id, plan.flow_name, plan.state, plan.owner, plan.changed) == ("run", "outer", "scheduled", None, ())
    assert str(plan) == "Run 'run' of flow 'outer' is scheduled.\nrun (4)\n  first\n  sub\n  sub.a\n  sub.b"
    assert repr(plan) == ("<Plan of run 'run', scheduled: 0 to reuse, 4 to run, 0 to add, 0 to end, 0 to keep, 0 to drop>")


async def test_a_run_that_has_ended_is_returned_as_it_is_whatever_became_of_its_flow(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", fails()).add_task_definition("b", returns(1))
    flow.add_task_definition("c", returns(1), dependencies=["a"])
    await flow.run_until_complete(flow.init_run(run_id="run"))
    flow.add_task_definition("d", returns(1))
    plan = flow.plan("run")
    assert plan.has_ended
    assert plan.changed == ("d",)
    assert kinds(plan) == {"reuse": ("b",), "keep": ("a", "c")}
    assert plan.why == {"a": "failed: RuntimeError: boom", "c": "skipped: upstream task 'a' failed"}
    assert "returns it as it is" in str(plan)
    assert "adopt_graph" not in str(plan)
    assert (await flow.run_until_complete("run")).state == "failed"


async def test_a_plan_says_who_drives_the_run(store: Store) -> None:
    flow, gate = AsyncFlow("flow", store), asyncio.Event()

    @flow.task
    async def waits(ctx: Context) -> None:
        await gate.wait()

    flow.add_task_definition("after", returns(1), dependencies=[waits])
    flow.init_run(run_id="run")
    driving = asyncio.create_task(flow.run_until_complete("run"))
    await until(lambda: store.load("run").tasks["waits"].state == "running")
    plan = flow.plan("run")
    assert plan.owner == "this very process"
    assert kinds(plan) == {"run": ("waits", "after")}
    assert "It is driven by this very process. If that ended now:" in str(plan)
    gate.set()
    await driving
    assert flow.plan("run").owner is None


async def test_a_task_that_was_interrupted_once_too_often_would_end_and_what_waits_for_it(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("deadly", returns(1), max_interruptions=1)
    flow.add_task_definition("once", returns(1), on_interrupt="fail")
    flow.add_task_definition("sturdy", returns(1))
    flow.add_task_definition("after", returns(1), dependencies=["deadly", "sturdy"])
    await drive(store, flow, 3)
    assert states(store) == {"deadly": "running", "once": "running", "sturdy": "running", "after": "scheduled"}
    plan = flow.plan("run")
    assert kinds(plan) == {"run": ("sturdy",), "end": ("deadly", "once", "after")}
    assert plan.why["deadly"] == "fails: its process died or lost the run once while it ran (max_interruptions=1)"
    assert 'on_interrupt="fail" forbids' in plan.why["once"]
    assert plan.why["after"] == "skipped: upstream deadly failed"
    run = await flow.run_until_complete("run")
    assert [run.tasks[task_id].state for task_id in ("deadly", "once", "after")] == ["failed", "failed", "skipped"]


@pytest.mark.parametrize("ask", [Ask("run"), Ask("run", "sub"), Ask("run", "sub.a"), Ask("run", "gone.a")])
async def test_what_was_asked_of_an_owner_who_died_is_done_first(
    store: Store, clock: FakeClock, effects: Effects, ask: Ask
) -> None:
    inner = AsyncFlow("inner").add_task_definition("a", effects.of("sub.a"))
    inner.add_task_definition("b", effects.of("sub.b"), dependencies=["a"])
    flow = AsyncFlow("outer", store, clock=clock).add_subflow_definition("sub", inner)
    flow.add_task_definition("after", effects.of("after"), dependencies=["sub"])
    flow.add_task_definition("beside", effects.of("beside"), dependencies=["sub"], trigger_rule="all_success")
    await drive(store, flow, 3)
    assert states(store)["sub.a"] == "running"
    effects.log.clear()
    store.ask("run", ask)
    plan = flow.plan("run")
    await flow.run_until_complete("run")
    functions = [path for path in plan.run if path != "sub"]
    if ask.task_id == "gone.a":
        assert sorted(effects.log) == sorted(functions) == ["after", "beside", "sub.a", "sub.b"]
    else:
        assert effects.log == []
        assert ("sub.a" if ask.task_id == "sub.a" else "sub") in plan.end


async def test_a_subflow_whose_run_was_mended_on_its_own_takes_up_its_result(store: Store, clock: FakeClock) -> None:
    inner = AsyncFlow("inner", store, clock=clock).add_task_definition("a", flaky(1))
    flow = AsyncFlow("outer", store, clock=clock).add_subflow_definition("sub", inner)
    run = await run_flow(flow)
    child_run_id = run.tasks["sub"].child_run_id
    assert child_run_id is not None
    await inner.retry(child_run_id, "a")
    flow.manual_retry(run.id, "sub")
    plan = flow.plan(run.id)
    assert kinds(plan) == {"run": ("sub",)}
    assert plan.why == {"sub": "takes up the result of its own run, which has succeeded"}
    assert (await flow.run_until_complete(run.id)).state == "success"


async def test_a_task_that_waits_for_its_next_attempt_says_when_that_is_due(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", flaky(1), max_retries=1, retry_delay=60)
    await drive(store, flow, 4)
    assert flow.plan("run").why == {"a": "its next attempt is due at 2023-11-14 22:14:20 UTC"}


async def test_what_a_plan_tells_is_without_secrets_and_escape_sequences(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock)
    flow.add_task_definition("a", fails("hunter2 \x1b[31m"))
    await flow.run_until_complete(flow.init_run(run_id="run"))
    later = AsyncFlow("flow", store, clock=clock, redact=lambda text: text.replace("hunter2", "***"))
    later.add_task_definition("a", returns(1))
    assert "  a: failed: RuntimeError: *** \\x1b[31m" in str(later.plan("run")).splitlines()


async def test_a_plan_lists_a_few_tasks_of_a_kind_and_says_how_many_more(store: Store) -> None:
    flow = AsyncFlow("flow", store)
    for number in range(1000):
        flow.add_task_definition(f"t{number}", returns(1))
    flow.init_run(run_id="run")
    plan = flow.plan("run")
    assert len(plan.run) == 1000
    assert str(plan).endswith("  t19\n  and 980 more")


def test_there_is_no_plan_of_what_is_no_run_of_the_flow(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("a", returns(1))
    with pytest.raises(RunNotFoundError):
        flow.plan("unknown")
    other = AsyncFlow("other", store).add_task_definition("a", returns(1))
    other.init_run(run_id="run")
    with pytest.raises(RunMismatchError):
        flow.plan("run")


async def test_the_run_of_a_subflow_has_a_plan_too(store: Store, clock: FakeClock) -> None:
    inner = AsyncFlow("inner", store, clock=clock).add_task_definition("a", flaky(1))
    inner.add_task_definition("b", returns(1), dependencies=["a"])
    flow = AsyncFlow("outer", store, clock=clock).add_subflow_definition("sub", inner)
    child_run_id = (await run_flow(flow)).tasks["sub"].child_run_id
    assert child_run_id is not None
    inner.manual_retry(child_run_id, "a", reset_downstream=True)
    assert kinds(inner.plan(child_run_id)) == {"run": ("a", "b")}


# --- subflows that are tried again, and what was changed by hand -----------------------------------------------------------


async def test_what_failed_in_a_subflow_that_is_tried_again_would_run_again(store: Store, clock: FakeClock) -> None:
    inner = AsyncFlow("inner").add_task_definition("bad", fails()).add_task_definition("good", returns(1))
    inner.add_task_definition("after", returns(1), dependencies=["bad"])
    flow = AsyncFlow("outer", store, clock=clock).add_subflow_definition("sub", inner, max_retries=1, retry_delay=9)
    await drive(store, flow, 4)  # it waits for its second and last attempt
    assert states(store) == {"sub": "scheduled", "sub.bad": "failed", "sub.good": "success", "sub.after": "skipped"}
    plan = flow.plan("run")
    assert kinds(plan) == {"reuse": ("sub.good",), "run": ("sub", "sub.bad", "sub.after")}
    assert plan.why == {"sub": "its next attempt is due at 2023-11-14 22:13:29 UTC"}


async def test_what_was_cancelled_in_a_subflow_comes_back_by_a_person_alone(store: Store, clock: FakeClock) -> None:
    inner = AsyncFlow("inner").add_task_definition("a", flaky(99)).add_task_definition("b", returns(1), dependencies=["a"])
    inner.add_task_definition("c", returns(1), dependencies=["b"])
    flow = AsyncFlow("outer", store, clock=clock).add_subflow_definition("sub", inner, max_retries=1, retry_delay=9)
    await drive(store, flow, 3)
    flow.cancel_task("run", "sub.b")
    await drive(store, flow, 3)
    assert states(store) == {"sub": "scheduled", "sub.a": "failed", "sub.b": "cancelled", "sub.c": "skipped"}
    plan = flow.plan("run")
    assert kinds(plan) == {"run": ("sub", "sub.a"), "end": ("sub.c",), "keep": ("sub.b",)}
    flow.manual_retry("run", "sub")
    assert kinds(flow.plan("run")) == {"run": ("sub", "sub.a", "sub.b", "sub.c")}


async def test_a_subflow_that_is_another_flow_now_begins_anew(store: Store, clock: FakeClock) -> None:
    def of(name: str) -> AsyncFlow:
        inner = AsyncFlow(name).add_task_definition("a", returns(1)).add_task_definition("b", returns(1), dependencies=["a"])
        return AsyncFlow("outer", store, clock=clock).add_subflow_definition("sub", inner)

    await drive(store, of("inner"), 4)
    assert kinds(of("inner").plan("run")) == {"reuse": ("sub.a",), "run": ("sub", "sub.b")}
    plan = of("another").plan("run")
    assert plan.changed == ("sub",)
    assert kinds(plan) == {"run": ("sub", "sub.a", "sub.b")}


async def test_a_task_that_the_flow_has_again_would_run(store: Store, clock: FakeClock) -> None:
    def of(*task_ids: str) -> AsyncFlow:
        flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", flaky(99), max_retries=1, retry_delay=9)
        for task_id in task_ids:
            flow.add_task_definition(task_id, returns(1), dependencies=["a"])
        return flow

    await drive(store, of("b", "c"), 3)
    assert kinds(of("b").plan("run")) == {"run": ("a", "b"), "drop": ("c",)}
    around = around_commits(store, _crash_at(3))
    with pytest.raises(Crash):
        await of("b").run_until_complete("run", adopt_graph=True)
    around()
    plan = of("b").plan("run")
    assert plan.why["c"] == "skipped: the flow's graph no longer has it; the flow no longer has it"
    assert kinds(of("b", "c").plan("run")) == {"run": ("a", "b", "c")}


def _crash_at(number: int) -> Callable[[Callable[[], None], Changes], None]:
    commits = 0

    def around(commit: Callable[[], None], changes: Changes) -> None:
        nonlocal commits
        commits += 1
        if commits == number:
            raise Crash
        commit()

    return around


# --- by the stored records: what takes more than one drive to come to ------------------------------------------------------


def put(store: Store, flow: AsyncFlow, **found: str | tuple[str, str]) -> None:
    """A run of the flow whose tasks stand so, and have these outputs (or, of mapped tasks, lists of items)."""
    flow.init_run(run_id="run")
    tasks = {task.task_id: task for task in store.read_tasks("run")}
    for name, said in found.items():
        state, text = said if isinstance(said, tuple) else (said, None)
        record = tasks.get(name) or next(task for task_id, task in tasks.items() if task_id == name)
        record.state = ExecutionState(state)
        if state not in ("scheduled", "skipped"):
            record.started, record.attempts = 1, 1
        if text is not None and flow.definition.tasks[name].rules.map_over is not None:
            record.input = text
        else:
            record.output = text
    store.commit(Changes(tasks=list(tasks.values())))


def put_items(store: Store, whole: str, states: str) -> None:
    """Items of a mapped task: s for success, f for failed, c for cancelled, k for those that said themselves to be skipped."""
    position = len(store.read_tasks("run"))
    meant = {"s": "success", "f": "failed", "k": "skipped", "c": "cancelled", "w": "scheduled"}
    items = [
        TaskRecord(
            "run", f"{whole}[{at}]", position + at, state=ExecutionState(meant[letter]), started=None if letter == "w" else 1
        )
        for at, letter in enumerate(states)
    ]
    store.commit(Changes(tasks=items))


def test_the_items_of_a_map_that_goes_on_are_listed_one_by_one(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("rows", returns([1] * 5))
    flow.add_task_definition("parse", returns(1), map_over="rows")
    flow.add_task_definition("stream", returns(1), map_over="parse").add_task_definition(
        "then", returns(1), dependencies=["stream"]
    )
    put(store, flow, rows=("success", "[1,1,1,1]"), parse=("running", "4"), stream=("running", "4"))
    put_items(store, "parse", "sfkw")
    put_items(store, "stream", "swww")
    plan = flow.plan("run")
    assert kinds(plan) == {
        "reuse": ("rows", "parse[0]", "stream[0]"),
        "run": ("parse", "parse[3]", "stream", "stream[3]", "then"),
        "end": ("stream[1]", "stream[2]"),
        "keep": ("parse[1]", "parse[2]"),
    }
    assert plan.why["stream[1]"] == "skipped: upstream parse[1] failed"


def test_a_map_over_one_that_failed_but_has_its_items_would_run(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("rows", returns([1]))
    flow.add_task_definition("parse", returns(1), map_over="rows").add_task_definition("stream", returns(1), map_over="parse")
    put(store, flow, rows=("success", "[1,1]"), parse=("failed", "2"))
    put_items(store, "parse", "sf")
    assert kinds(flow.plan("run")) == {"reuse": ("rows",), "run": ("stream",), "keep": ("parse",)}
    assert str(flow.explain("run", "stream")).startswith("'stream' has not begun, though it is ready: nothing upstream keeps it.")


def test_of_a_map_in_a_subflow_that_is_tried_again_the_items_that_succeeded_stay(store: Store) -> None:
    inner = AsyncFlow("inner", store).add_task_definition("rows", returns([1]))
    inner.add_task_definition("parse", returns(1), map_over="rows")
    flow = AsyncFlow("outer", store).add_subflow_definition("sub", inner, max_retries=1)
    put(store, inner, rows=("success", "[1,1,1,1]"), parse=("failed", "4"))
    put_items(store, "parse", "sfkc")
    run = store.read_run("run")
    run.state = ExecutionState.FAILED
    store.commit(Changes(runs=[run]))
    flow.init_run(run_id="outer")
    (sub,) = store.read_tasks("outer")
    sub.child_run_id, sub.started, sub.attempts = "run", 1, 1
    store.commit(Changes(tasks=[sub]))
    assert kinds(flow.plan("outer")) == {
        "reuse": ("sub.rows", "sub.parse[0]"),
        "run": ("sub", "sub.parse", "sub.parse[1]"),
        "keep": ("sub.parse[2]", "sub.parse[3]"),
    }


def test_what_a_branch_did_not_choose_ends_and_counts_as_skipped(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("b", returns("yes"), branch=True).add_task_definition("x", fails())
    flow.add_task_definition("yes", returns(1), dependencies=["b"]).add_task_definition("no", returns(1), dependencies=["b", "x"])
    flow.add_task_definition("if failed", returns(1), dependencies=["no"], trigger_rule="all_failed")
    flow.add_task_definition("if skipped", returns(1), dependencies=["no"], trigger_rule="all_skipped")
    put(store, flow, b=("success", '["yes"]'), x="failed")
    plan = flow.plan("run")
    assert kinds(plan) == {"reuse": ("b",), "run": ("yes", "if skipped"), "end": ("no", "if failed"), "keep": ("x",)}
    assert plan.why["no"] == "skipped: branch 'b' did not choose it"
    assert plan.why["if skipped"] == "if its trigger rule all_skipped lets it"


@pytest.mark.parametrize(("rule", "counts"), [("all_failed", False), ("all_skipped", True)])
def test_what_was_skipped_by_a_branch_counts_as_skipped_though_an_upstream_failed(store: Store, rule: str, counts: bool) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("b", returns(None), branch=True).add_task_definition("x", fails())
    flow.add_task_definition("no", returns(1), dependencies=["b", "x"])
    flow.add_task_definition("then", returns(1), dependencies=["no"], trigger_rule=rule)
    put(store, flow, b=("success", "null"), x="failed", no="skipped")
    assert ("then" in flow.plan("run").run, "then" in flow.plan("run").end) == (counts, not counts)


def test_while_a_branch_may_decide_it_is_open_as_what_a_task_will_count(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("b", returns(None), branch=True).add_task_definition("x", fails())
    flow.add_task_definition("doomed", returns(1), dependencies=["b", "x"])
    flow.add_task_definition("if skipped", returns(1), dependencies=["doomed"], trigger_rule="all_skipped")
    put(store, flow, x="failed")
    assert kinds(flow.plan("run")) == {"run": ("b", "if skipped"), "end": ("doomed",), "keep": ("x",)}
    assert str(flow.explain("run", "doomed")).startswith("'doomed' waits for 'b', which has not ended.")


def test_a_task_that_began_before_the_branch_beside_it_decided_goes_on(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("b", returns(None), branch=True)
    flow.add_task_definition("early", flaky(1), dependencies=["b"], trigger_rule="always", max_retries=1)
    put(store, flow, b=("success", "null"), early="running")
    assert kinds(flow.plan("run")) == {"reuse": ("b",), "run": ("early",)}


def test_a_map_over_another_list_than_before_lists_its_items_anew(store: Store) -> None:
    def over(task_id: str) -> AsyncFlow:
        flow = AsyncFlow("flow", store).add_task_definition("rows", returns([1])).add_task_definition("others", returns([1]))
        return flow.add_task_definition("parse", returns(1), map_over=task_id)

    put(store, over("rows"), rows=("success", "[1]"), others=("success", "[1]"), parse=("running", "1"))
    put_items(store, "parse", "w")
    assert over("rows").plan("run").run == ("parse", "parse[0]")
    assert over("others").plan("run").run == ("parse",)
