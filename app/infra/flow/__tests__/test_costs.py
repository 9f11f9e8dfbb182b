"""What a run costs, in counts that are the same on every machine: so that nobody makes the engine dearer without noticing.

No time is measured here; that is for `python -m benchmarks`. A number that is asserted says where it comes from. Where a change
makes something cheaper, its number here is to follow.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, Changes, Context, CycleError, ExecutionState, JsonStore, MemoryStore, SQLiteStore, Store, json_reader
from ..executors import Call, Outcome
from ..graph import Graph
from ..inbox import Inbox
from ..runner import MOST_STARTS
from ..session import Session
from .conftest import STORE_KINDS, FakeClock, flaky, states_of
from .counting import (
    SHAPES,
    Commits,
    CountedId,
    CountingFiles,
    Rows,
    Shape,
    Statements,
    calls_of,
    chain,
    counted_on_the_loop,
    declare,
    fan,
    layers,
    one,
    run_of,
    stop_the_clock,
)
from .processes import PACKAGE, ROOT

HERE = {**os.environ, "PYTHONPATH": str(ROOT)}
"""The environment of processes that are to find this very engine."""

BESIDE = 2
"""Commits of any run: it is made, and its first tasks are started. Each further one settles what ended, and starts what may."""

ROOM = 1.05
"""Ten times the tasks may take ten times the calls and a twentieth more: the first layer of a few layers has no edges, and is a
larger part of them. A step that looks at all tasks for each task would make it a hundred times."""


def bursts(tasks: int) -> int:
    """In how many turns so many tasks that are ready at once are started."""
    return ceil(tasks / MOST_STARTS)


# --- commits ---


@pytest.fixture(params=STORE_KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each of the three stores in turn; none flushes before the end of a run.

    A flush that is due by the clock is made in a thread, and tasks that end meanwhile are settled by another commit than else.
    """
    makers: dict[str, Callable[[], Store]] = {
        "sqlite": lambda: SQLiteStore(tmp_path / "runs.db", sync_interval=None),
        "json": lambda: JsonStore(tmp_path / "runs", sync_interval=None),
        "memory": MemoryStore,
    }
    with makers[request.param]() as made:
        yield made


@pytest.mark.parametrize("tasks", [1, 2, 60])
def test_a_chain_takes_a_commit_for_each_task(store: Store, tasks: int) -> None:
    """The end of a task and the start of the next are one commit; and each task is written three times: made, started, ended."""
    commits = Commits(store)
    run_of(declare(chain, tasks, store))
    assert commits.count == BESIDE + tasks
    assert commits.tasks == 3 * tasks


@pytest.mark.parametrize("tasks", [2, MOST_STARTS, MOST_STARTS + 1, MOST_STARTS + 2, 3 * MOST_STARTS + 5])
def test_a_fan_out_takes_a_commit_for_each_hundred(store: Store, tasks: int) -> None:
    """Tasks that end in one turn and those that start in it are one commit; two more start and end the aggregate."""
    commits = Commits(store)
    run_of(declare(fan, tasks, store))
    # The first burst is started by the commit that starts the run.
    assert commits.count == BESIDE + bursts(tasks - 1) - 1 + 2
    assert commits.tasks == 3 * tasks


def test_layers_take_a_commit_each(store: Store) -> None:
    """A layer that is narrower than a burst ends in one turn, in which the next one starts."""
    commits = Commits(store)
    run_of(declare(layers, 300, store))
    assert commits.count == BESIDE + 300 // 50


def test_a_subflow_takes_no_commit_of_its_own(store: Store) -> None:
    """Its run is made and started by the commit that settles what it waited for, and ends in that of its last task."""
    flow = AsyncFlow("outer", store, clock=FakeClock())
    flow.add_task_definition("before", one)
    flow.add_subflow_definition("inside", declare(chain, 5, store), dependencies=["before"])
    flow.add_task_definition("after", one, dependencies=["inside"])
    commits = Commits(store)
    run_of(flow).raise_for_failure()
    assert commits.count == BESIDE + 1 + 5 + 1


@pytest.mark.parametrize(("delay", "waits"), [(None, 0), (1.0, 1)])
def test_a_retry_takes_the_commit_of_an_attempt(store: Store, delay: float | None, waits: int) -> None:
    """An attempt that fails and the next one's start are one commit; with a delay between them, two."""
    flow = declare(chain, 5, store)
    flow.add_task_definition("flaky", flaky(2), dependencies=["t4"], max_retries=2, retry_delay=delay)
    commits = Commits(store)
    run_of(flow).raise_for_failure()
    assert commits.count == BESIDE + 5 + 3 + 2 * waits


def test_a_run_that_has_ended_takes_no_commit(store: Store) -> None:
    """To ask for it again reads it, and neither owns nor writes it."""
    flow = declare(chain, 5, store)
    run_of(flow)
    commits = Commits(store)
    run_of(flow)
    assert commits.count == 0


# --- statements ---


def statements_of(shape: Shape, tasks: int, folder: Path) -> Statements:
    """The statements of a run, whose only flush is the last one, in a new store."""
    with SQLiteStore(folder / f"{shape.__name__}-{tasks}.db", sync_interval=None) as store:
        counted = Statements(store)
        run_of(declare(shape, tasks, store)).raise_for_failure()
    return counted


def test_a_commit_takes_three_statements_beside_its_rows(tmp_path: Path) -> None:
    """BEGIN, a look whether others wrote, COMMIT: whatever the size of the run, and however many commits went before."""
    beside: set[int] = set()
    for shape, tasks in ((chain, 20), (chain, 300), (fan, 20), (fan, 900), (layers, 600)):
        counted = statements_of(shape, tasks, tmp_path)
        assert counted.rows == 3 * tasks  # made, started, ended
        beside.add(counted.others - 3 * counted.written["COMMIT"])
    assert len(beside) == 1, "some statements come with the tasks, and not with the run or the commit"
    # Of the whole run: to find it, claim it, read it, write its own row three times, and the switch to the one commit that is
    # flushed: 35 to 37, counted while this was written.
    assert beside.pop() <= 40


def test_nothing_is_read_for_a_task(tmp_path: Path) -> None:
    """A run of many tasks and commits asks SQLite no more questions than one of few."""
    asked = {statements_of(shape, tasks, tmp_path).selects for shape in (chain, fan) for tasks in (20, 400)}
    assert len(asked) == 1
    assert asked.pop() <= 20  # all to find, claim and read the run itself: 17 to 19, counted while this was written


@pytest.mark.parametrize("tasks", [1, 100])
def test_a_drive_takes_one_note(tasks: int, tmp_path: Path) -> None:
    """However many tasks and subflows it has; it is written with the commit that begins the run, and not updated."""
    with SQLiteStore(tmp_path / "runs.db", sync_interval=None) as store:
        flow = declare(chain, tasks, store)
        flow.add_subflow_definition("inside", declare(chain, tasks, store))
        counted = Statements(store)
        run_of(flow).raise_for_failure()
        assert counted.written["INSERT run_notes"] == 1
        assert [kind for kind in counted.written if kind.endswith("run_notes") and kind != "INSERT run_notes"] == []


# --- rows read ---


def test_a_run_that_was_made_here_is_not_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who makes a run has its tasks at hand when it drives it: no row of theirs is read, however many there are."""
    read: set[int] = set()
    for tasks in (20, 500):
        rows = Rows(monkeypatch)
        with SQLiteStore(tmp_path / f"{tasks}.db") as store:
            run_of(declare(chain, tasks, store))
        assert not any(re.fullmatch(r"t\d+", text) for text in rows.texts)
        read.add(rows.count)
    assert len(read) == 1


class Gated:
    """A flow whose tasks all end but the "gate", which fails or hangs, and "after", which waits for that: left so in a store."""

    def __init__(self, make_store: Callable[[], Any], shape: Shape, tasks: int) -> None:
        self.tasks = tasks
        self._make_store = make_store
        self._shape = shape
        self._open = False

    def flow(self, store: Store, gate: Callable[[Context], Any] = one) -> AsyncFlow:
        flow = declare(self._shape, self.tasks, store)
        flow.add_task_definition("gate", gate, dependencies=[list(flow.definition.tasks)[-1]])
        return flow.add_task_definition("after", one, dependencies=["gate"])

    def leave_failed(self) -> None:
        async def gate(ctx: Context) -> None:
            raise ConnectionError("the service is down")

        with self._make_store() as store:
            assert run_of(self.flow(store, gate)).state == "failed"

    def leave_interrupted(self) -> None:
        """Without having run: this is quicker where there are many tasks."""
        with self._make_store() as store:
            self.flow(store).init_run(run_id="run")
            lease = store.claim("run")
            run, tasks = store.read_run("run"), store.read_tasks("run")[: self.tasks]
            run.started = 1
            for task in tasks:
                task.state, task.attempts, task.started, task.ended, task.output = ExecutionState.SUCCESS, 1, 1, 2, "1"
            store.commit(Changes(runs=[run], tasks=tasks, lease=lease, release=True))


@pytest.mark.parametrize("how", ["resume", "retry"])
def test_who_goes_on_with_a_run_reads_each_task_once(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes a run reads its rows, all of them in that very transaction; nobody asks for one again, to the run's end."""
    read: set[int] = set()
    for tasks in (20, 300):
        left = Gated(lambda: SQLiteStore(tmp_path / f"{tasks}.db"), chain, tasks)  # noqa: B023 - it is used in this turn
        (left.leave_failed if how == "retry" else left.leave_interrupted)()
        rows = Rows(monkeypatch)
        with SQLiteStore(tmp_path / f"{tasks}.db") as store:
            flow = left.flow(store)
            run = asyncio.run(flow.retry("run", "gate") if how == "retry" else flow.run_until_complete("run"))
            assert set(states_of(run).values()) == {"success"}
        seen = {task_id: rows.texts[task_id] for task_id in flow.definition.tasks}
        assert set(seen.values()) == {1}, Counter(seen).most_common(3)
        read.add(rows.count - tasks)
    assert len(read) == 1, "something else is read for each task"


class Parsed:
    """Counts how often files of JSON runs are parsed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count: Counter[str] = Counter()
        for name in ("parse_journal", "parse_folded"):
            monkeypatch.setattr(json_reader, name, self._counted(name, getattr(json_reader, name)))

    def _counted(self, name: str, parse: Callable[..., Any]) -> Callable[..., Any]:
        def counted(data: bytes, *options: Any) -> Any:
            self.count[name] += bool(data)
            return parse(data, *options)

        return counted


def test_a_json_run_that_is_driven_here_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its journal is read when it is claimed, and its files are looked at as often for many tasks as for few."""
    looks: set[int] = set()
    for tasks in (20, 300):
        parsed, files = Parsed(monkeypatch), CountingFiles()
        with JsonStore(tmp_path / str(tasks), files=files) as store:
            stop_the_clock(store)
            run_of(declare(chain, tasks, store))
        assert parsed.count["parse_journal"] <= 1
        assert parsed.count["parse_folded"] == 0
        looks.add(files.reads)
        monkeypatch.undo()
    assert len(looks) == 1


@pytest.mark.parametrize("how", ["resume", "retry"])
def test_who_goes_on_with_a_json_run_parses_it_once(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first look has read of a journal is enough for the claim, for the tasks, and for the writing.

    A run that has ended has been folded, and a folded file is parsed three times: by who looks which run is the outermost one,
    by the claim, and by who then reads the tasks.
    """
    left = Gated(lambda: JsonStore(tmp_path), layers, 150)
    (left.leave_failed if how == "retry" else left.leave_interrupted)()
    parsed = Parsed(monkeypatch)
    with JsonStore(tmp_path) as store:
        flow = left.flow(store)
        run = asyncio.run(flow.retry("run", "gate") if how == "retry" else flow.run_until_complete("run"))
        assert run.state == "success"
    assert parsed.count["parse_journal"] <= 1
    assert parsed.count["parse_folded"] <= (3 if how == "retry" else 0)  # 3 when this was written


# --- flushes ---


@pytest.mark.parametrize("shape", [chain, fan])
@pytest.mark.parametrize(("interval", "tasks", "flushes"), [(None, 1000, 1), (0.05, 1000, 2), (0, 50, None)])
def test_how_often_a_run_has_sqlite_flush(
    shape: Shape, interval: float | None, tasks: int, flushes: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand tasks within the interval are flushed at the beginning and the end; with None at the end; with 0 always."""
    synced: list[int] = []
    with SQLiteStore(tmp_path / "runs.db", sync_interval=interval) as store:
        monkeypatch.setattr(type(store._file), "_sync", staticmethod(synced.append))
        stop_the_clock(store)
        counted = Statements(store)
        run_of(declare(shape, tasks, store))
        assert counted.flushing_commits == (counted.written["COMMIT"] if flushes is None else flushes)
        assert synced == []  # the timer had no reason
        assert counted.written["PRAGMA wal_checkpoint(TRUNCATE)"] == 0  # each would be two more


@pytest.mark.parametrize("shape", [chain, fan])
@pytest.mark.parametrize(("interval", "flushes"), [(None, 3), (0.05, 4)])
def test_how_often_a_run_has_a_json_folder_flushed(shape: Shape, interval: float | None, flushes: int, tmp_path: Path) -> None:
    """The same there. Its end takes three: the folded file, its name, and the name of the journal that goes."""
    files = CountingFiles()
    with JsonStore(tmp_path / "runs", sync_interval=interval, files=files) as store:
        stop_the_clock(store)
        before = files.syncs
        run_of(declare(shape, 1000, store))
        assert files.syncs - before <= flushes


# --- memory ---


def memory_of(shape: str, tasks: int, folder: Path) -> dict[str, float]:
    """Bytes per task, as found by a process that does nothing else."""
    path = str(folder / f"{tasks}.db")
    arguments = [sys.executable, "-m", f"{PACKAGE}.__tests__.counting", shape, str(tasks), path]
    found = subprocess.run(arguments, cwd=ROOT, env=HERE, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    answer: dict[str, float] = json.loads(found.stdout)
    return answer


# What a process with Python 3.11 held when this was written, in bytes per task, and a quarter more for other versions of Python:
# 256, 601, 677, and 971 at the peak, for layers of 2,000 tasks, which take the most.
MOST_BYTES = {"declared": 320, "made": 750, "ended": 850, "peak": 1215}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_task_takes_in_memory(shape: str, tmp_path: Path) -> None:
    """The flow, its run made, the run at its end, and the most at any time: a few hundred bytes for each task of a small run."""
    for name, held in memory_of(shape, 2_000, tmp_path).items():
        assert held <= MOST_BYTES[name], name


def test_a_task_of_a_big_run_takes_no_more_memory(tmp_path: Path) -> None:
    """Ten times the tasks take at the most ten times the memory, at each moment."""
    small, big = (memory_of("layers", tasks, tmp_path) for tasks in (2_000, 20_000))
    for name, held in big.items():
        assert held <= small[name] * 1.05, name  # dicts and arrays grow by steps


# --- the event loop ---


def test_a_task_of_a_chain_takes_two_turns_of_the_loop() -> None:
    """One for the task itself, one for the engine to settle it and start the next; and no callback beside these two."""
    few, many = (counted_on_the_loop(declare(chain, tasks)) for tasks in (100, 1100))
    assert many.turns - few.turns <= 2 * 1000
    assert many.handles - few.handles <= 2 * 1000
    assert few.turns <= 2 * 100 + 20  # 13 when this was written: the drive's own task, and what goes through the worker


def test_a_fan_out_turns_the_loop_for_bursts_and_not_for_tasks() -> None:
    """Each task is one callback, its first and only step; a hundred of them share a turn, and so does what the engine does."""
    few, many = (counted_on_the_loop(declare(fan, tasks)) for tasks in (101, 2101))
    assert many.turns - few.turns <= 2 * (bursts(2100) - bursts(100))
    assert many.handles - few.handles <= 2000 + 2 * (bursts(2100) - bursts(100))


async def test_a_burst_from_threads_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many outcomes threads deliver before the loop gets to look: all of them are taken in one turn."""
    loop, woken = asyncio.get_running_loop(), 0
    wake = loop.call_soon_threadsafe

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal woken
        woken += 1
        return wake(*arguments, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    nothing: Any = None
    outcome = Outcome(Call("key", one, nothing, "name"))
    turns: list[int] = []
    inbox = Inbox(lambda: turns.append(len(list(inbox.take()))))

    def deliver() -> None:
        for _ in range(1000):
            inbox.deliver(outcome)

    for _ in range(2):  # once more, for the inbox must notice that the loop has looked
        thread = threading.Thread(target=deliver)
        thread.start()
        thread.join()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert woken == 2
    assert turns == [1000, 1000]


# --- growth ---


def assert_linear(calls: Callable[[int], int], few: int = 500, times: int = 10) -> None:
    """So many times the tasks take so many times the calls."""
    calls(few)  # what is loaded and compiled at its first use is no cost of the tasks
    assert calls(times * few) <= ROOM * times * calls(few)


@pytest.mark.parametrize("shape", SHAPES.values())
def test_declaring_and_checking_grow_with_the_edges(shape: Shape) -> None:
    """To declare a task looks at no other; the graph is made and checked in one pass over its edges."""
    assert_linear(lambda tasks: calls_of(lambda: declare(shape, tasks)), few=1000)

    def check(tasks: int) -> int:
        flow = declare(shape, tasks)
        return calls_of(flow.validate)

    assert_linear(check, few=1000)


@pytest.mark.parametrize("shape", SHAPES.values())
def test_the_search_for_a_circle_grows_with_the_edges(shape: Shape) -> None:
    """A circle through the whole graph is found, and its path told, without trying one path after the other."""

    def search(tasks: int) -> int:
        upstream = dict(shape(tasks))
        upstream["t0"] = (next(reversed(upstream)),)  # the last one

        def closed() -> None:
            with pytest.raises(CycleError):
                Graph(upstream)

        return calls_of(closed)

    # Layers of a thousand tasks, at least: in fewer, the first layer's tasks are not all downstream of one.
    assert_linear(search, few=1000)


def test_a_circle_past_layers_is_found_in_one_pass() -> None:
    """Three upstreams each make for more paths than there are atoms: each task is looked at once, each edge once."""
    upstream = dict(layers(2000))
    upstream["t0"] = ("t1999",)
    asked = CountedId.asked
    counted: dict[str, list[str]] = {CountedId(task_id): [*map(CountedId, ids)] for task_id, ids in upstream.items()}
    made = CountedId.asked - asked
    with pytest.raises(CycleError):
        Graph(counted)
    edges = sum(map(len, upstream.values()))
    assert CountedId.asked - asked - made <= 10 * (2000 + edges)


@pytest.mark.parametrize("shape", SHAPES.values())
def test_a_run_grows_with_its_edges(shape: Shape) -> None:
    """Settling and starting a task, committing it and telling it, take as many calls in a big run as in a small one."""
    assert_linear(lambda tasks: calls_of(lambda: counted_on_the_loop(declare(shape, tasks))), few=300)


# The JSON store reads a journal's long lines in pieces, which takes other calls: the smaller run has to have one, too.
@pytest.mark.parametrize(
    ("make_store", "few", "times"),
    [(lambda folder: SQLiteStore(folder / "runs.db"), 500, 10), (JsonStore, 2000, 5)],
    ids=["sqlite", "json"],
)
@pytest.mark.parametrize("shape", [chain, fan])
def test_going_on_with_a_run_grows_with_its_tasks(
    shape: Shape, make_store: Callable[[Path], Store], few: int, times: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """To take a run, read it and find out what is ready; and to set back a task with all that is downstream of it."""

    def begin(retry: tuple[str, bool] | None) -> Callable[[int], int]:
        def calls(tasks: int) -> int:
            folder = tmp_path_factory.mktemp("run")
            left = Gated(lambda: make_store(folder), shape, tasks)
            left.leave_interrupted()
            store: Any = make_store(folder)
            with store:
                flow = left.flow(store)
                flow.validate()
                session = Session(store, flow.definition, FakeClock(), "run")
                count = calls_of(lambda: session.begin(False, retry))
                session.end()
            return count

        return calls

    assert_linear(begin(None), few, times)
    assert_linear(begin(("t0", True)), few, times)


def test_pulling_grows_with_the_pulls() -> None:
    """An aggregate that pulls from each of its dependencies does not look through all of them for each."""

    def run(tasks: int) -> int:
        async def pulling(ctx: Context) -> int:
            upstream = range(tasks - 1) if ctx.task_id == "total" else ()
            return sum(int(ctx.pull(f"t{number}")) for number in upstream)

        def work() -> None:
            counted_on_the_loop(declare(fan, tasks, MemoryStore(), pulling))

        return calls_of(work)

    assert_linear(run, few=300)


def bytes_of(work: Callable[[], Any]) -> int:
    """What is allocated at the most while something is done; the least of ten times, since other threads allocate as well."""
    peaks: list[int] = []
    tracemalloc.start()
    try:
        for _ in range(10):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            work()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return min(peaks)


def test_whether_a_task_is_upstream_is_found_at_once() -> None:
    """For a direct dependency no other task is asked for, and nothing of the size of the fan-in is made, however wide that is."""
    for tasks in (100, 10_000):
        graph = Graph({CountedId(task_id): ids for task_id, ids in fan(tasks)})
        wanted, of = CountedId(f"t{tasks // 2}"), CountedId("total")
        asked = CountedId.asked
        assert graph.is_upstream(wanted, of=of)
        assert CountedId.asked - asked <= 4  # to find each of the two: its hash, and whether what is there is equal to it
        assert bytes_of(lambda: graph.is_upstream(wanted, of=of)) < 1000  # noqa: B023 - an array of all positions takes 40,000
        assert calls_of(lambda: graph.is_upstream(wanted, of=of)) <= 20  # noqa: B023 - it is used in this turn


# --- the benchmarks themselves ---


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="the benchmarks are not beside the engine here")
def test_the_benchmarks_say_a_ratio_and_a_verdict() -> None:
    """The quick ones run; what a line came to depends on the machine, and is not looked at here."""
    arguments = [sys.executable, "-m", "benchmarks", "--quick", "--only", "coroutines-fan"]
    found = subprocess.run(arguments, cwd=ROOT, env=HERE, capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1), found.stderr
    (line,) = re.findall(r"^coroutines-fan .*$", found.stdout, re.MULTILINE)
    number = r"[\d,]+\.\d+"
    told = rf"coroutines-fan +at most 2\.5 x sqlite-group +{number} +{number} us/task +{number} +{number} to {number} +(yes|NO)"
    verdict = re.fullmatch(told, line.rstrip())
    assert verdict, line
    assert verdict[1] == ("NO" if found.returncode else "yes")
