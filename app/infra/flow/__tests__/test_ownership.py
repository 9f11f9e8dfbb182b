"""One owner per run: who else wants it is told whose it is, a dead owner's run is free, and a stale owner writes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Changes,
    Context,
    JsonStore,
    OwnershipLostError,
    RunActiveError,
    RunOwnedError,
    SQLiteStore,
    Store,
    StoreClosedError,
    StoreError,
)
from ..testing.store_contract import snapshot
from .conftest import Effects, outputs_of, returns, states_of
from .processes import SHARED_KINDS, Program, Programs, bodies, check_never_twice_at_once, needs_posix, programs, stop

__all__ = ["programs"]

posix = needs_posix


# --- processes ---


@posix
def test_of_two_processes_one_drives_the_run_and_the_other_is_told_who_does(programs: Programs) -> None:
    owner, other = programs.workers(2, hold=["t1"])
    before = time.time()
    assert owner.ask("drive nightly") == "in t1"
    asked = time.monotonic()
    said = other.ask("drive nightly")
    assert time.monotonic() - asked < 1
    assert said.startswith(f"owned Run 'nightly' is owned by process {owner.pid} on ")
    assert "flow.take_over('nightly')" in said
    since = said.partition(" since ")[2][:19]
    assert time.strftime("%Y-%m-%d", time.gmtime(before)) in since or before % 86_400 < 60
    assert owner.ask("go") == "ended success"
    assert other.ask("drive nightly") == "ended success", "what has ended is anybody's to look at"
    assert all(len(times) == 1 for times in bodies(programs.folder).values())


@posix
def test_who_drives_a_run_is_seen_from_another_process_until_it_is_dead(programs: Programs) -> None:
    (owner,) = programs.workers(1, hold=["t1"])
    assert owner.ask("drive nightly") == "in t1"
    with programs.store() as store:
        assert str(store.owner_of("nightly")).startswith(f"process {owner.pid} on ")
        owner.kill()
        assert store.owner_of("nightly") is None


@posix
def test_a_killed_owners_run_is_free_at_once(programs: Programs) -> None:
    owner, other = programs.workers(2, hold=["t1"])
    assert owner.ask("drive nightly") == "in t1"
    killed = time.monotonic()
    owner.kill()
    assert other.ask("drive nightly") == "in t1"
    assert time.monotonic() - killed < 1
    assert other.ask("go") == "ended success"
    with programs.store() as store:
        assert [(attempt.task_id, attempt.result.value) for attempt in store.list_attempts("nightly")] == [
            ("t0", "success"),
            ("t1", "interrupted"),
            ("t1", "success"),
            ("t2", "success"),
        ]
        assert store.check() == []
    assert len(programs.owner_files()) == 1, "the dead one's file is swept away"


@posix
def test_of_many_processes_that_race_for_a_run_exactly_one_wins_every_time(programs: Programs) -> None:
    racers = programs.workers(8, hold=["t1"])
    for number in range(4):
        for racer in racers:
            racer.tell(f"drive run{number}")
        said = [racer.line() for racer in racers]
        assert sorted(line.split()[0] for line in said) == ["in", *["owned"] * 7]
        winner = racers[[line.split()[0] for line in said].index("in")]
        assert all(f"process {winner.pid} " in line for line in said if line.startswith("owned"))
        assert winner.ask("go") == "ended success"
    assert all(len(times) == 1 for times in bodies(programs.folder).values())
    assert len(bodies(programs.folder)) == 4 * 3


@posix
def test_many_who_find_the_same_owner_dead_burn_one_attempt_of_it(programs: Programs) -> None:
    dead, *racers = programs.workers(6, hold=["t1"])
    assert dead.ask("drive nightly") == "in t1"
    dead.kill()
    for racer in racers:
        racer.tell("drive nightly")
    said = [racer.line() for racer in racers]
    assert sorted(line.split()[0] for line in said) == ["in", *["owned"] * 4]
    winner = racers[[line.split()[0] for line in said].index("in")]
    assert winner.ask("go") == "ended success"
    with programs.store() as store:
        task = store.load("nightly").tasks["t1"]
        assert (task.crashes, task.interruptions) == (1, 1)
        assert [attempt.result.value for attempt in store.list_attempts("nightly", "t1")] == ["interrupted", "success"]


# --- a process that stands still ---


def beaten(programs: Programs, owner: Program, other: Program) -> None:
    """The other one has ended the run while the owner stood still: now it wakes up, and must do no harm."""
    assert other.ask("go") == "ended success"
    with programs.store() as store:
        before = snapshot(store)
        assert before["nightly"][0].state == "success"
        owner.signal(signal.SIGCONT)
        owner.tell("go")
        code, errors = owner.ended_with()
        assert code == 1
        assert "OwnershipLostError: Run 'nightly' was taken over" in errors
        assert snapshot(store) == before
        assert store.check() == []
    task = bodies(programs.folder)["nightly", "t1"]
    assert len(task) == 2, "it ran again: that cannot be helped, and is what take_over warns of"


@posix
def test_a_process_that_stood_still_for_longer_than_its_lease_writes_nothing_any_more(programs: Programs) -> None:
    owner, other = programs.workers(2, hold=["t1"], store={"lease": 1.0})
    assert owner.ask("drive nightly") == "in t1"
    stop(owner)
    stopped = time.monotonic()
    assert other.ask("drive nightly").startswith(f"owned Run 'nightly' is owned by process {owner.pid}"), "the lease is not over"
    while (said := other.ask("drive nightly")).startswith("owned"):
        assert time.monotonic() - stopped < 5
        time.sleep(0.05)
    assert said == "in t1"
    assert 0.5 < time.monotonic() - stopped < 4
    beaten(programs, owner, other)


@posix
def test_a_run_can_be_taken_from_a_process_that_hangs(programs: Programs) -> None:
    owner, other = programs.workers(2, hold=["t1"])
    assert owner.ask("drive nightly") == "in t1"
    stop(owner)
    assert other.ask("drive nightly").startswith("owned")
    assert other.ask("take_over nightly") == "taken None"
    assert other.ask("drive nightly") == "in t1"
    beaten(programs, owner, other)


@posix
@pytest.mark.parametrize("programs", ["sqlite"], indirect=True)
def test_a_process_that_stood_still_and_whose_run_nobody_wanted_goes_on(programs: Programs) -> None:
    owner, other = programs.workers(2, hold=["t1"], store={"lease": 1.0})
    assert owner.ask("drive nightly") == "in t1"
    stop(owner)
    time.sleep(1.1)
    owner.signal(signal.SIGCONT)
    time.sleep(0.5)
    assert other.ask("drive nightly").startswith("owned"), "it lives again"
    assert owner.ask("go") == "ended success"


BUSY = """
store = make_store(lease=1.0)
flow = AsyncFlow("chain", store)

if OPTIONS["how"] == "loop":
    async def busy(ctx):
        say("in busy")
        time.sleep(1.5)
else:
    def busy(ctx):
        say("in busy")
        time.sleep(1.5)

flow.add_task_definition("t0", busy)
for number in (1, 2):
    flow.add_task_definition(f"t{number}", body, dependencies=[f"t{number - 1}"])
flow.add_task_definition("t1", lambda ctx: 1, dependencies=["t0"], replace=True)
say("ended", flow.run(run_id="nightly").state)
"""


@posix
@pytest.mark.parametrize("programs", ["sqlite"], indirect=True)
@pytest.mark.parametrize("how", ["loop", "thread"])
def test_whoever_is_busy_for_longer_than_the_lease_does_not_look_dead(how: str, programs: Programs) -> None:
    other = programs.worker()
    owner = programs.start(BUSY, how=how)
    owner.expect("in busy")
    began = time.monotonic()
    asked = 0
    while time.monotonic() - began < 1.3:
        assert other.ask("drive nightly").startswith("owned")
        asked += 1
        time.sleep(0.05)
    assert asked > 5
    owner.expect("ended success")


# --- what a dead owner left behind ---


@posix
@pytest.mark.parametrize("change", ["removed", "another boot", "a living process's id", "emptied"])
def test_a_dead_owners_run_is_free_whatever_became_of_its_file(change: str, programs: Programs) -> None:
    owner = programs.worker(hold=["t1"], store={"lease": 3600.0})
    assert owner.ask("drive nightly") == "in t1"
    owner.kill()
    (path,) = programs.owner_files()
    if change == "removed":
        path.unlink()
    elif change == "emptied":
        path.write_bytes(b"")
    else:
        data = path.read_bytes()
        if change == "another boot":
            boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
            assert boot in data
            path.write_bytes(data.replace(boot, b"another-start-of-this-machine"))
        else:
            assert f'"pid": {owner.pid},'.encode() in data
            path.write_bytes(data.replace(f'"pid": {owner.pid},'.encode(), f'"pid": {os.getpid()},'.encode()))
    with programs.store() as store:
        flow = AsyncFlow("chain", store)
        for number in range(3):
            flow.add_task_definition(f"t{number}", returns(number), dependencies=[f"t{number - 1}"] if number else None)
        assert flow.run(run_id="nightly").state == "success"
        assert store.list_attempts("nightly", "t1")[0].result == "interrupted"


@pytest.fixture(params=SHARED_KINDS)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., SQLiteStore | JsonStore]]:
    """Makes stores of the same runs, as several programs would."""
    made: list[SQLiteStore | JsonStore] = []

    def make(**options: Any) -> SQLiteStore | JsonStore:
        path = tmp_path / "runs"
        made.append(SQLiteStore(f"{path}.db", **options) if request.param == "sqlite" else JsonStore(path, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


Make = Callable[..., "SQLiteStore | JsonStore"]


def a_run_in(store: Store) -> str:
    return AsyncFlow("flow", store).add_task_definition("only", returns(1)).init_run(run_id="nightly")


def test_whoever_only_asks_who_owns_a_run_becomes_no_owner_and_leaves_no_file(stores: Make, tmp_path: Path) -> None:
    owner, beside = stores(), stores()
    a_run_in(owner)
    lease = owner.claim("nightly")
    before = sorted(path.name for path in tmp_path.rglob("*owner-*"))
    assert owner.owner_of("nightly") == "this very process"
    assert str(beside.owner_of("nightly")).startswith(f"process {os.getpid()} on ")
    assert sorted(path.name for path in tmp_path.rglob("*owner-*")) == before != []
    owner.release(lease)
    assert beside.owner_of("nightly") is None


@pytest.mark.parametrize("token", ["../../precious", "../precious", "/etc/passwd", "", "0" * 15, "no such owner"])
def test_an_owners_name_that_was_forged_leads_to_no_file(
    token: str, stores: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forger, store = stores(), stores()
    a_run_in(forger)
    (tmp_path / "precious").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(type(forger._owners), "token", token)
        forger.claim("nightly")
    opened: list[str] = []
    really_open = os.open

    def watched(path: Any, *arguments: Any, **options: Any) -> int:
        opened.append(os.fspath(path))
        return really_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", watched)
    lease = store.claim("nightly")
    store.release(lease)
    monkeypatch.undo()
    assert (tmp_path / "precious").read_text() == "mine"
    assert not [path for path in opened if "precious" in path or "passwd" in path]


def test_an_owner_that_comes_back_under_the_same_name_has_its_runs_no_more(stores: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """However that may happen: what it held before it died is not held now, and what it wrote then is refused."""
    before, after = stores(), stores()
    a_run_in(before)
    lease = before.claim("nightly")
    token = before._owners.token
    before._owners.close()  # as the kernel does at a kill
    assert monkeypatch is not None
    really_random = os.urandom
    monkeypatch.setattr(os, "urandom", lambda count: bytes.fromhex(token) if count == 8 else really_random(count))
    again = after.claim("nightly")
    assert after._owners.token == token
    assert again.epoch > lease.epoch
    monkeypatch.undo()
    with pytest.raises(OwnershipLostError):
        before.commit(Changes(tasks=before.read_tasks("nightly"), lease=lease))


@pytest.mark.parametrize("hours", [1, -1])
def test_a_wall_clock_that_is_set_changes_nobodys_lease(hours: int, stores: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, other = stores(), stores()
    a_run_in(owner)
    lease = owner.claim("nightly")
    time_ns, seconds = time.time_ns, time.time
    monkeypatch.setattr(time, "time_ns", lambda: time_ns() + hours * 3_600_000_000_000)
    monkeypatch.setattr(time, "time", lambda: seconds() + hours * 3600)
    with pytest.raises(RunOwnedError):
        other.claim("nightly")
    owner.commit(Changes(tasks=owner.read_tasks("nightly"), lease=lease))
    owner._owners.close()  # it dies
    assert other.claim("nightly").epoch > lease.epoch


def test_a_lease_is_measured_by_the_monotonic_clock(stores: Make) -> None:
    """It is over when that says so, and the stale owner's next write, and every later one, changes nothing."""
    owner, other = stores(lease=100.0), stores(lease=100.0)
    a_run_in(owner)
    lease = owner.claim("nightly")
    real = other._owners._monotonic

    def later(seconds: int) -> None:
        other._owners._monotonic = lambda: real() + seconds * 10**9

    for seconds in (60, 99):
        later(seconds)
        with pytest.raises(RunOwnedError):
            other.claim("nightly")
    later(101)
    taken = other.claim("nightly")
    before = snapshot(other)
    for _ in range(2):
        with pytest.raises(OwnershipLostError):
            owner.commit(Changes(tasks=owner.read_tasks("nightly"), lease=lease))
    owner.release(lease)
    assert snapshot(other) == before
    other.commit(Changes(tasks=other.read_tasks("nightly"), lease=taken))


# --- calls in one process join ---


class Held:
    """A task that says when it has begun, and goes on when it is told to; from any thread."""

    def __init__(self, effects: Effects) -> None:
        self.effects = effects
        self.began, self.go_on = threading.Event(), threading.Event()

    async def __call__(self, ctx: Context) -> str:
        self.effects.log.append(f"{ctx.run.id} {ctx.task_id}")
        self.began.set()
        while not self.go_on.is_set():  # noqa: ASYNC110 - it is set in another thread
            await asyncio.sleep(0.002)
        return "done"

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.began.wait, 15)


@pytest.fixture
def held(effects: Effects) -> Held:
    return Held(effects)


async def test_two_flows_with_a_store_each_drive_a_run_together(stores: Make, held: Held) -> None:
    flows = [AsyncFlow("flow", stores()).add_task_definition("only", held) for _ in range(2)]
    run_id = flows[0].init_run()
    first = asyncio.create_task(flows[0].run_until_complete(run_id))
    await held.has_begun()
    second = asyncio.create_task(flows[1].run_until_complete(run_id))
    await asyncio.sleep(0.02)
    assert not second.done()
    held.go_on.set()
    assert [outputs_of(done) for done in await asyncio.gather(first, second)] == [{"only": "done"}] * 2
    assert len(held.effects.log) == 1


def in_threads(work: list[Callable[[], Any]]) -> list[Any]:
    """Do each piece of work in a thread of its own; what each returned or raised."""
    answers: list[Any] = [None] * len(work)

    def go(number: int) -> None:
        try:
            answers[number] = work[number]()
        except BaseException as error:
            answers[number] = error

    threads = [threading.Thread(target=go, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
        assert not thread.is_alive(), "it hangs"
    return answers


def test_two_threads_with_loops_of_their_own_drive_a_run_together(stores: Make, held: Held) -> None:
    flows = [AsyncFlow("flow", stores()).add_task_definition("only", held) for _ in range(4)]
    run_id = flows[0].init_run()

    def release() -> None:
        assert held.began.wait(15)
        time.sleep(0.05)
        held.go_on.set()

    answers = in_threads([*(lambda flow=flow: asyncio.run(flow.run_until_complete(run_id)) for flow in flows), release])
    assert [outputs_of(done) for done in answers[:4]] == [{"only": "done"}] * 4
    assert len(held.effects.log) == 1


async def cancelled_after(flow: AsyncFlow, run_id: str, when: threading.Event) -> str:
    task = asyncio.create_task(flow.run_until_complete(run_id))
    await asyncio.to_thread(when.wait, 15)
    await asyncio.sleep(0.02)
    task.cancel()
    try:
        return str((await task).state)
    except asyncio.CancelledError:
        return "cancelled"


@pytest.mark.parametrize("which", [0, 1], ids=["the one that began", "the one that joined"])
@pytest.mark.parametrize("where", ["one loop", "two threads"])
def test_who_is_cancelled_takes_nothing_from_the_others(which: int, where: str, stores: Make, held: Held) -> None:
    flows = [AsyncFlow("flow", stores()).add_task_definition("only", held) for _ in range(2)]
    run_id = flows[0].init_run()
    cancel, ended = threading.Event(), threading.Event()

    async def call(number: int) -> str:
        if number:
            await asyncio.to_thread(held.began.wait, 15)
        if number == which:
            return await cancelled_after(flows[number], run_id, cancel)
        return str((await flows[number].run_until_complete(run_id)).state)

    def control() -> None:
        assert held.began.wait(15)
        time.sleep(0.1)
        cancel.set()
        assert ended.wait(15)
        held.go_on.set()

    async def both() -> list[str]:
        tasks = [asyncio.create_task(call(number)) for number in range(2)]
        await asyncio.wait([tasks[which]])
        ended.set()
        return [await task for task in tasks]

    def alone(number: int) -> str:
        said = asyncio.run(call(number))
        if number == which:
            ended.set()
        return said

    if where == "one loop":
        said = in_threads([lambda: asyncio.run(both()), control])[0]
    else:
        said = in_threads([lambda: alone(0), lambda: alone(1), control])[:2]
    assert said == ["cancelled" if number == which else "success" for number in range(2)]
    # Where the loop that drove it is gone, the other thread drives it on.
    assert len(held.effects.log) == (2 if (which, where) == (0, "two threads") else 1)
    store = stores()
    assert states_of(store.load(run_id)) == {"only": "success"}


async def test_when_all_are_cancelled_the_run_is_saved_and_given_up(stores: Make, held: Held) -> None:
    store = stores()
    flow = AsyncFlow("flow", store).add_task_definition("only", held)
    run_id = flow.init_run()
    calls = [asyncio.create_task(flow.run_until_complete(run_id)) for _ in range(3)]
    await held.has_begun()
    for call in calls:
        call.cancel()
    assert [type(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == [asyncio.CancelledError] * 3
    assert states_of(store.load(run_id)) == {"only": "scheduled"}
    other = stores()
    other.release(other.claim(run_id))  # nobody owns it
    held.go_on.set()
    assert (await flow.run_until_complete(run_id)).state == "success"


# --- a tree has one owner ---


def a_tree(store: Store, held: Held) -> tuple[AsyncFlow, AsyncFlow]:
    child = AsyncFlow("child", store).add_task_definition("first", returns(1))
    child.add_task_definition("leaf", held, dependencies=["first"])
    return AsyncFlow("root", store).add_subflow_definition("sub", child), child


async def test_a_child_run_of_a_tree_that_is_driven_is_nobody_elses(stores: Make, held: Held) -> None:
    store, elsewhere = stores(), stores()
    flow, child = a_tree(store, held)
    _, foreign = a_tree(elsewhere, held)
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await held.has_begun()
    (child_id,) = store.list_children(run_id)
    before = snapshot(store)
    for other in (child, foreign):
        with pytest.raises(RunOwnedError):
            await other.run_until_complete(child_id)
        with pytest.raises(RunOwnedError):
            other.manual_retry(child_id, "first")
        with pytest.raises(RunOwnedError):
            await other.retry(child_id, "first")
    for who in (store, elsewhere):
        assert who.prune() == []
    assert snapshot(store) == before
    held.go_on.set()
    assert (await driving).state == "success"
    assert len(held.effects.log) == 1


async def test_whoever_drives_a_child_run_on_its_own_owns_its_whole_tree(stores: Make, held: Held) -> None:
    store, elsewhere = stores(), stores()
    flow, child = a_tree(store, held)
    foreign, _ = a_tree(elsewhere, held)
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await held.has_begun()
    driving.cancel()
    await asyncio.wait([driving])
    (child_id,) = store.list_children(run_id)
    held.began.clear()
    alone = asyncio.create_task(child.run_until_complete(child_id))
    await held.has_begun()
    for other in (flow, foreign):
        with pytest.raises(RunOwnedError) as told:
            other.manual_retry(run_id, "sub")
        assert told.value.run_id == run_id
    with pytest.raises(RunOwnedError):
        await flow.run_until_complete(run_id)
    held.go_on.set()
    assert (await alone).state == "success"
    assert (await flow.run_until_complete(run_id)).tasks["sub"].output == "done"
    assert len(held.effects.log) == 2


async def test_a_run_cannot_be_taken_over_from_the_process_that_drives_it(stores: Make, held: Held) -> None:
    store = stores()
    flow, child = a_tree(store, held)
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await held.has_begun()
    (child_id,) = store.list_children(run_id)
    for who, its_run in ((flow, run_id), (child, child_id)):
        with pytest.raises(RunActiveError):
            who.take_over(its_run)
    held.go_on.set()
    assert (await driving).state == "success"


TREE = """
store = make_store()
child = AsyncFlow("child", store)
child.add_task_definition("t0", body)
flow = AsyncFlow("root", store).add_subflow_definition("sub", child)
say("ready")
while True:
    command, run_id = hear().split()
    try:
        if command == "drive":
            say("ended", flow.run(run_id=run_id).state)
        elif command == "child":
            say("ended", child.run(run_id=run_id).state)
        elif command == "reset":
            child.manual_retry(run_id, "t0")
    except RunOwnedError as error:
        say("owned", error)
"""


@posix
def test_a_child_run_of_a_tree_that_another_process_drives_is_not_ours(programs: Programs) -> None:
    owner, other = (programs.start(TREE, hold=["t0"]) for _ in range(2))
    for program in (owner, other):
        program.expect("ready")
    assert owner.ask("drive nightly") == "in t0"
    with programs.store() as store:
        (child_id,) = store.list_children("nightly")
        for command in (f"child {child_id}", f"reset {child_id}", "drive nightly"):
            assert other.ask(command).startswith(f"owned Run 'nightly' is owned by process {owner.pid}")
        owner.kill()
        assert other.ask(f"child {child_id}") == "in t0"
        assert other.ask("go") == "ended success"
        assert other.ask("drive nightly") == "ended success"
        assert [task.state.value for task in store.load("nightly").get_all_tasks_recursive(store).values()] == ["success"] * 2
        assert store.check() == []
    check_never_twice_at_once(programs.folder)


# --- a store that is closed under a run ---


async def test_a_store_that_is_closed_in_mid_run_stops_it_and_lets_it_be_continued(stores: Make, held: Held) -> None:
    store = stores()
    flow = AsyncFlow("flow", store).add_task_definition("only", held)
    flow.add_task_definition("last", returns(1), dependencies=["only"])
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await held.has_begun()
    store.close()
    held.go_on.set()
    with pytest.raises(StoreClosedError):
        await driving
    store.open()
    assert states_of(store.load(run_id)) == {"only": "running", "last": "scheduled"}
    assert (await flow.run_until_complete(run_id)).state == "success"
    assert store.check() == []


async def test_giving_a_run_up_in_a_store_that_fails_hides_no_other_trouble(
    stores: Make, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    store = stores()
    flow = AsyncFlow("flow", store).add_task_definition("only", held)
    run_id = flow.init_run()
    changed: Any = store
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await held.has_begun()

    def fails(*arguments: Any, **options: Any) -> Any:
        raise StoreError("a store", "the first trouble")

    def fails_too(*arguments: Any) -> None:
        raise StoreError("a store", "the second trouble")

    changed.commit, changed.commit_at_once, changed.release = fails, fails, fails_too
    held.go_on.set()
    with pytest.raises(StoreError, match="the first trouble"):
        await driving
    assert "could not be given up" in caplog.text
    assert "the second trouble" in caplog.text
    for name in ("commit", "commit_at_once", "release"):
        delattr(changed, name)


if sys.platform == "win32":  # the programs of these tests are told things by signals
    pytestmark = pytest.mark.skip(reason="needs signals")


async def test_nobody_writes_a_child_run_of_a_tree_that_is_driven(stores: Make, held: Held) -> None:
    store = stores()
    flow, _ = a_tree(store, held)
    run_id = flow.init_run()
    driving = asyncio.create_task(flow.run_until_complete(run_id))
    await held.has_begun()
    (child_id,) = store.list_children(run_id)
    child = store.load(child_id)
    with pytest.raises(RunOwnedError):
        store.save(child)
    with pytest.raises(RunOwnedError):
        store.update_task(child_id, next(iter(child.tasks.values())))
    held.go_on.set()
    assert (await driving).state == "success"
