"""resume_all: every unfinished run that nobody drives goes on, and none keeps the others from doing so."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Context,
    CycleError,
    ExecutionState,
    GraphChangedError,
    InvalidOptionError,
    ResumedRuns,
    SQLiteStore,
    Store,
    StoreClosedError,
    UnknownTaskError,
    resuming,
)
from .attempts import until
from .conftest import FakeClock, fails, returns
from .processes import Program, Programs, bodies, check_never_twice_at_once, needs_posix, programs

__all__ = ["programs"]


class Nightly:
    """A flow of two tasks; the second one can be held, and it notes which runs it ran in."""

    def __init__(self, store: Store | None = None, clock: FakeClock | None = None) -> None:
        self.flow = AsyncFlow("nightly", store, clock=clock)
        self.ran: list[str] = []
        self.at_once = 0
        self.most = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.flow.add_task_definition("first", returns(1))

        @self.flow.task("second", depends_on=["first"])
        async def second(ctx: Context) -> int:
            self.ran.append(ctx.run.id)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            try:
                await self.may_end.wait()
            finally:
                self.at_once -= 1
            return 2

    async def interrupted(self, *run_ids: str) -> None:
        """Runs that were begun, and stopped in their second task."""
        self.may_end.clear()
        begun = [self.flow.start(run_id=run_id) for run_id in run_ids]
        await until(lambda: len(self.ran) == len(run_ids))
        await asyncio.gather(*(handle.stop() for handle in begun))
        self.may_end.set()
        self.ran.clear()


def states(found: ResumedRuns) -> dict[str, ExecutionState]:
    return {run_id: run.state for run_id, run in found.runs.items()}


async def test_every_unfinished_run_goes_on_whether_it_was_begun_or_not(store: Store) -> None:
    nightly = Nightly(store)
    ended = await nightly.flow.run_until_complete(nightly.flow.init_run(run_id="ended"))
    await nightly.interrupted("begun")
    nightly.flow.init_run(run_id="made")
    found = await nightly.flow.resume_all()
    assert states(found) == {"begun": "success", "made": "success"}
    assert (found.errors, found.left_alone) == ({}, ())
    assert sorted(nightly.ran) == ["begun", "made"]
    assert ended.id not in found
    assert states(await nightly.flow.resume_all()) == {}


async def test_runs_of_other_flows_are_none_of_its_business(store: Store) -> None:
    nightly = Nightly(store)
    AsyncFlow("other", store).add_task_definition("a", returns(1)).init_run(run_id="others")
    nightly.flow.init_run(run_id="ours")
    assert list(await nightly.flow.resume_all()) == ["ours"]
    assert store.load("others").state == "scheduled"


async def test_a_run_whose_tasks_fail_has_ended_all_the_same(store: Store) -> None:
    flow = AsyncFlow("nightly", store).add_task_definition("a", fails())
    run_id = flow.init_run()
    assert states(await flow.resume_all()) == {run_id: "failed"}


async def test_the_oldest_come_first_and_so_they_stand_in_the_result(store: Store) -> None:
    clock = FakeClock()
    nightly = Nightly(store, clock)
    for run_id in ("c", "a", "b"):
        nightly.flow.init_run(run_id=run_id)
        clock.pass_time(60)
    await nightly.interrupted("a")
    found = await nightly.flow.resume_all(max_runs=1)
    assert nightly.ran == ["c", "a", "b"]
    assert list(found) == ["c", "a", "b"]


async def test_runs_that_were_made_in_the_same_microsecond_go_on_in_the_order_of_their_making() -> None:
    nightly = Nightly(clock=FakeClock())
    names = [f"run{number}" for number in range(20)]
    for run_id in names:
        nightly.flow.init_run(run_id=run_id)
    await nightly.flow.resume_all(max_runs=1)
    assert nightly.ran == names


async def test_so_many_are_driven_at_once_and_no_more() -> None:
    nightly = Nightly()
    for number in range(12):
        nightly.flow.init_run(run_id=f"run{number}")
    nightly.may_end.clear()
    working = asyncio.ensure_future(nightly.flow.resume_all(max_runs=3))
    await until(lambda: nightly.at_once == 3)
    await asyncio.sleep(0.02)
    assert nightly.at_once == 3
    nightly.may_end.set()
    assert len((await working).runs) == 12
    assert nightly.most == 3


async def test_max_concurrency_is_about_the_tasks_of_each_run() -> None:
    flow = AsyncFlow("nightly")
    at_once: dict[str, int] = {}

    async def task(ctx: Context) -> None:
        at_once[ctx.run.id] = at_once.get(ctx.run.id, 0) + 1
        assert at_once[ctx.run.id] == 1
        await asyncio.sleep(0)
        at_once[ctx.run.id] -= 1

    for number in range(5):
        flow.add_task_definition(f"t{number}", task)
    runs = [flow.init_run() for _ in range(3)]
    assert states(await flow.resume_all(1)) == dict.fromkeys(runs, ExecutionState.SUCCESS)


@pytest.mark.parametrize("options", [{"max_concurrency": -1}, {"max_runs": 0}, {"max_runs": None}, {"max_runs": True}], ids=str)
async def test_options_that_make_no_sense_are_refused_even_if_there_is_nothing_to_do(options: Any) -> None:
    with pytest.raises(InvalidOptionError, match="^" + next(iter(options))):
        await Nightly().flow.resume_all(**options)


async def test_a_graph_that_is_not_sound_is_refused_once_for_all() -> None:
    flow = AsyncFlow("nightly").add_task_definition("a", returns(1), dependencies=["b"])
    flow.add_task_definition("b", returns(1), dependencies=["a"])
    with pytest.raises(CycleError):
        await flow.resume_all()


# --- poison ---


async def test_a_run_whose_graph_has_changed_keeps_none_of_the_others_from_going_on(store: Store) -> None:
    AsyncFlow("nightly", store).add_task_definition("gone", returns(1)).init_run(run_id="old")
    nightly = Nightly(store)
    nightly.flow.init_run(run_id="new")
    found = await nightly.flow.resume_all()
    assert list(found) == ["old", "new"]
    assert states(found) == {"new": "success"}
    assert isinstance(found["old"], GraphChangedError)
    assert found.errors == {"old": found["old"]}
    assert repr(found) == "<ResumedRuns: 1 ended, 1 could not go on, 0 left alone>"
    adopted = await nightly.flow.resume_all(adopt_graph=True)
    assert adopted.runs["old"].tasks["second"].output == 2


async def test_nor_does_one_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with SQLiteStore(path) as store:
        nightly = Nightly(store)
        for run_id in ("first", "damaged", "last"):
            nightly.flow.init_run(run_id=run_id)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE tasks SET state = 'success' WHERE key >> 32 = (SELECT no FROM runs WHERE id = 'damaged')")
    connection.close()
    with SQLiteStore(path) as store:
        nightly = Nightly(store)
        found = await nightly.flow.resume_all()
    assert states(found) == {"first": "success", "last": "success"}
    assert [type(error).__name__ for error in found.errors.values()] == ["StoreDamagedError"]
    assert list(found) == ["first", "damaged", "last"]


async def test_a_store_that_cannot_tell_its_runs_is_raised() -> None:
    nightly = Nightly()
    nightly.flow.store.close()
    with pytest.raises(StoreClosedError):
        await nightly.flow.resume_all()


# --- subflows ---


async def test_subflow_runs_go_on_with_the_run_that_they_are_in_and_not_by_themselves(store: Store) -> None:
    nightly = Nightly(store)
    outer = AsyncFlow("outer", store).add_subflow_definition("sub", nightly.flow)
    nightly.may_end.clear()
    handle = outer.start(run_id="outer")
    await until(lambda: nightly.ran)
    await handle.stop()
    nightly.may_end.set()
    (child,) = store.list_children("outer")
    assert len(await nightly.flow.resume_all()) == 0, "the flow of the inner run leaves it to the outer one"
    assert store.load(child).state != "success"
    assert states(await outer.resume_all()) == {"outer": "success"}
    assert store.load(child).state == "success"


async def test_a_run_that_only_says_that_it_stands_under_another_goes_on_by_itself(store: Store) -> None:
    nightly = Nightly(store)
    await nightly.flow.run_until_complete(nightly.flow.init_run(run_id="parent"))
    nightly.flow.init_run(parent_run_id="parent", parent_task_id="second", run_id="beside")
    assert states(await nightly.flow.resume_all()) == {"beside": "success"}


# --- owners ---


async def test_a_run_that_is_driven_in_this_process_is_left_alone_and_not_waited_for() -> None:
    nightly = Nightly()
    nightly.may_end.clear()
    handle = nightly.flow.start(run_id="driven")
    await until(lambda: nightly.ran)
    found = await nightly.flow.resume_all()
    assert (len(found), found.left_alone) == (0, ("driven",))
    assert not handle.done()
    nightly.may_end.set()
    await handle


async def test_two_calls_at_once_drive_each_run_once(store: Store) -> None:
    first, second = Nightly(store), Nightly(store)
    names = [f"run{number}" for number in range(10)]
    for run_id in names:
        first.flow.init_run(run_id=run_id)
    found = await asyncio.gather(first.flow.resume_all(max_runs=2), second.flow.resume_all(max_runs=2))
    assert sorted(first.ran + second.ran) == sorted(names)
    assert set(found[0].runs) | set(found[1].runs) == set(names)
    assert found[0].errors == found[1].errors == {}


async def test_a_run_with_an_owner_elsewhere_is_left_alone(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "runs.db") as store, SQLiteStore(tmp_path / "runs.db") as owner:
        nightly = Nightly(store)
        for run_id in ("free", "owned"):
            nightly.flow.init_run(run_id=run_id)
        lease = owner.claim("owned")
        found = await nightly.flow.resume_all()
        assert (states(found), found.left_alone) == ({"free": "success"}, ("owned",))
        owner.release(lease)
        assert states(await nightly.flow.resume_all()) == {"owned": "success"}


async def test_a_run_that_somebody_else_ended_or_removed_meanwhile_is_not_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    nightly = Nightly()
    ended = await nightly.flow.run_until_complete(nightly.flow.init_run())
    monkeypatch.setattr(resuming, "_unfinished", lambda store, flow_name: [ended.id, "removed"])
    found = await nightly.flow.resume_all()
    assert (dict(found), found.left_alone) == ({}, ())


# --- stopping ---


async def test_who_is_cancelled_takes_all_runs_along_and_they_are_saved_before_it_ends(store: Store) -> None:
    nightly = Nightly(store)
    names = [f"run{number}" for number in range(4)]
    for run_id in names:
        nightly.flow.init_run(run_id=run_id)
    nightly.may_end.clear()
    working = asyncio.ensure_future(nightly.flow.resume_all(max_runs=3))
    await until(lambda: nightly.at_once == 3)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert nightly.at_once == 0
    assert [store.load(run_id).state for run_id in names] == ["scheduled"] * 4
    assert store.load("run0").tasks["first"].state == "success"
    nightly.may_end.set()
    assert len((await nightly.flow.resume_all()).runs) == 4


async def test_its_runs_are_told_to_subscribers_before_it_returns() -> None:
    nightly = Nightly()
    heard: list[str] = []

    async def note(event: Any) -> None:
        await asyncio.sleep(0)
        heard.append(type(event).__name__)

    nightly.flow.subscribe(note)
    nightly.flow.init_run()
    await nightly.flow.resume_all()
    assert heard[-1] == "RunFinished"


def test_the_result_is_a_mapping() -> None:
    problem = UnknownTaskError("Flow 'a'", "b")
    found = ResumedRuns({"x": problem}, ["y"])
    assert (dict(found), len(found), found.left_alone, found.runs) == ({"x": problem}, 1, ("y",), {})
    assert "y" not in found
    with pytest.raises(KeyError):
        found["y"]


# --- processes ---

RESUMER = """
flow = chain(make_store())
say("ready")
while True:
    command, *words = hear().split()
    if command == "make":
        for number in range(int(words[0])):
            flow.init_run(run_id=f"run{number}")
        say("made")
    elif command == "drive":
        async def work():
            await asyncio.gather(*(flow.start(run_id=f"run{number}") for number in range(int(words[0]))))
        asyncio.run(work())
        say("ended")
    elif command == "resume":
        found = asyncio.run(flow.resume_all(max_runs=4))
        assert not found.errors, found.errors
        say("resumed", *found.runs)
"""


def resumers(programs: Programs, count: int, **options: Any) -> list[Program]:
    made = [programs.start(RESUMER, **options) for _ in range(count)]
    for program in made:
        program.expect("ready")
    return made


@needs_posix
def test_the_runs_of_a_killed_process_go_on_in_two_others_at_once_each_in_one_of_them(programs: Programs) -> None:
    (dead,) = resumers(programs, 1, hold=["t1"])
    runs = 8
    assert dead.ask(f"make {runs}") == "made"
    dead.tell(f"drive {runs // 2}")
    for _ in range(runs // 2):
        dead.expect("in t1")
    dead.kill()
    others = resumers(programs, 2, pause=0.005)
    for other in others:
        other.tell("resume")
    said = [other.line().split() for other in others]
    assert [line[0] for line in said] == ["resumed", "resumed"]
    resumed = [run_id for line in said for run_id in line[1:]]
    assert set(resumed) == {f"run{number}" for number in range(runs)}
    check_never_twice_at_once(programs.folder)
    for (run_id, task_id), times in bodies(programs.folder).items():
        killed = task_id == "t1" and run_id in [f"run{number}" for number in range(runs // 2)]
        assert len(times) == 1 + killed, f"{task_id} of {run_id}"
    with programs.store() as store:
        assert all(store.load(f"run{number}").state == "success" for number in range(runs))
        assert store.check() == []


@needs_posix
def test_what_a_living_process_drives_is_left_alone_until_it_is_killed(programs: Programs) -> None:
    owner, other = resumers(programs, 2, hold=["t1"])
    assert owner.ask("make 1") == "made"
    owner.tell("drive 1")
    owner.expect("in t1")
    assert other.ask("resume") == "resumed"
    owner.kill()
    other.tell("resume")
    other.expect("in t1")
    assert other.ask("go") == "resumed run0"
