"""Outputs that are let go of once nobody waits for them, and read again if somebody asks."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, Context, MemoryStore, SQLiteStore, StoreDamagedError, outputs
from ..outputs import Outputs
from ..records import TaskRecord

TEXT = "x" * 1000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten outputs of a thousand characters are much."""
    monkeypatch.setattr(outputs, "MOST", 10_000)
    monkeypatch.setattr(outputs, "WORTH", 100)


def a_task(position: int, output: str | None = TEXT) -> TaskRecord:
    return TaskRecord("run", f"t{position}", position, output=output)


@pytest.mark.usefixtures("small")
def test_the_oldest_that_nobody_waits_for_are_let_go_and_read_again() -> None:
    """Only as many as it takes, and none that somebody waits for."""
    waited_for, reads = {"t1"}, list[tuple[str, int]]()

    def read(run_id: str, position: int) -> str:
        reads.append((run_id, position))
        return TEXT

    held = Outputs(read, lambda record: record.task_id not in waited_for)
    tasks = [a_task(position) for position in range(13)]
    assert [held.add(task) for task in tasks] == [False] * 10 + [True] * 3
    assert not held.let_go()
    assert [task.position for task in tasks if task.output is None] == [0, 2, 3]
    assert held.any_gone
    assert [held.text(task) for task in tasks] == [TEXT] * 13
    assert reads == [("run", 0), ("run", 2), ("run", 3)]
    assert held.whole(tasks[4]) is tasks[4]
    assert held.whole(tasks[0]) == a_task(0)
    assert tasks[0].output is None
    assert repr(held) == "<Outputs: 10,000 characters held, 3 let go>"


@pytest.mark.usefixtures("small")
def test_what_all_wait_for_stays_and_is_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "LOOKS", 5)
    looks = list[int]()

    def is_done_with(record: TaskRecord) -> bool:
        looks.append(record.position)
        return False

    held = Outputs(lambda *_: None, is_done_with)
    tasks = [a_task(position) for position in range(12)]
    for task in tasks:
        held.add(task)
    assert held.let_go()
    assert held.let_go()
    assert held.let_go()
    assert looks == [*range(12), 0, 1, 2]
    assert not held.any_gone


@pytest.mark.usefixtures("small")
def test_small_outputs_and_those_of_a_store_that_cannot_read_one_stay() -> None:
    assert not any(Outputs(lambda *_: None, lambda _: True).add(a_task(position, "short")) for position in range(1000))
    assert not any(Outputs(None, lambda _: True).add(a_task(position)) for position in range(100))


@pytest.mark.usefixtures("small")
def test_a_task_that_was_set_back_has_nothing_to_let_go() -> None:
    held = Outputs(lambda *_: "yesterday's", lambda _: True)
    task = a_task(0)
    held.add(task)
    task.output = None
    for position in range(1, 12):
        held.add(a_task(position))
    held.let_go()
    assert held.text(task) is None


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["sqlite", "memory"])
def test_a_run_whose_outputs_do_not_fit(kind: str, tmp_path: Path) -> None:
    """Far descendants, functions in threads, and whoever holds the result get every output all the same, equal and whole."""
    store = SQLiteStore(tmp_path / "runs.db") if kind == "sqlite" else MemoryStore()
    flow = AsyncFlow("large", store)
    length = 40

    def step(ctx: Context) -> dict[str, Any]:
        number = int(ctx.task_id)
        seen = [ctx.pull(str(other))["number"] for other in range(0, number, 7)]
        return {"number": number, "seen": seen, "text": f"{number}" * 500, "first": ctx.run.tasks["0"].output_json is not None}

    async def step_on_loop(ctx: Context) -> dict[str, Any]:
        return step(ctx)

    for number in range(length):
        function = step if number % 2 else step_on_loop
        flow.add_task_definition(str(number), function, dependencies=[str(number - 1)] if number else None)
    run = flow.run(run_id="large")
    for number in range(length):
        value = run.tasks[str(number)].output_json
        assert value["seen"] == list(range(0, number, 7))
        assert value["text"] == f"{number}" * 500
        assert run.tasks[str(number)].output_json is value
    assert store.load("large").tasks == run.tasks
    store.close()


@pytest.mark.usefixtures("small")
def test_a_subflows_result_is_whole(tmp_path: Path) -> None:
    """The outputs of its last tasks were let go before it ended: nobody waits for them inside."""
    with SQLiteStore(tmp_path / "runs.db") as store:
        inner = AsyncFlow("inner")
        for number in range(30):
            inner.add_task_definition(f"t{number}", lambda ctx: f"{ctx.task_id} " * 300)
        outer = AsyncFlow("outer", store)
        outer.add_subflow_definition("inside", inner)
        outer.add_task_definition("after", lambda ctx: sorted(ctx.pull("inside").items()), dependencies="inside")
        result = outer.run().tasks["after"].output
        assert result == sorted((f"t{number}", f"t{number} " * 300) for number in range(30))


@pytest.mark.usefixtures("small")
def test_memory_does_not_grow_with_the_outputs(tmp_path: Path) -> None:
    """200 outputs of 100,000 characters pass through: never is more than a tenth of them in memory."""
    with SQLiteStore(tmp_path / "runs.db") as store:
        flow = AsyncFlow("stream", store)

        async def make(ctx: Context) -> str:
            return ctx.task_id * (100_000 // len(ctx.task_id))

        for number in range(200):
            flow.add_task_definition(f"t{number}", make, dependencies=[f"t{number - 1}"] if number else None)
        run_id = flow.init_run()
        tracemalloc.start()
        try:
            run = asyncio.run(flow.run_until_complete(run_id))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2_000_000
        assert len(run.tasks["t0"].output_json) == 100_000


@pytest.mark.usefixtures("small")
def test_an_output_that_was_damaged_since_is_refused(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "runs.db") as store:
        flow = AsyncFlow("large", store)
        for number in range(20):
            flow.add_task_definition(f"t{number}", lambda ctx: TEXT, dependencies=[f"t{number - 1}"] if number else None)
        run = flow.run(run_id="run")
        with store._file._writing:
            writer = store._file._open_writer()
            writer.execute("UPDATE tasks SET output = replace(output, 'x', 'y')")
        with pytest.raises(StoreDamagedError, match="not what was written"):
            [task.output_json for task in run.tasks.values()]
        assert store.check() != []
