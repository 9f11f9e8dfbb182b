"""Values and ids that nobody thought of, through whole runs on every store: right, or refused by name; needs Hypothesis."""

from __future__ import annotations

import asyncio
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="values and ids are made up by Hypothesis: pip install -r requirements-dev.txt")

from hypothesis import HealthCheck, example, given, settings  # noqa: E402 - only once it is known to be there
from hypothesis import strategies as st  # noqa: E402

from .. import (  # noqa: E402
    AsyncFlow,
    InvalidNameError,
    JsonStore,
    MemoryStore,
    RunNotFoundError,
    SQLiteStore,
    Store,
    UnstorableValueError,
)
from ..testing.store_contract import ODD_IDS  # noqa: E402
from .conftest import returns  # noqa: E402
from .test_values import OWN_TYPES, same  # noqa: E402
from .test_values_property import any_text, values  # noqa: E402


class Unheard:
    """Of a type that nobody registered."""


def _cycle() -> Any:
    found: list[Any] = []
    found.append({"again": found})
    return found


def _deep() -> Any:
    found: Any = 0
    for _ in range(100_000):
        found = [found]
    return found


def _generator() -> Iterator[int]:
    yield 1


JUNK = (
    Unheard,
    lambda: Unheard,
    lambda: len,
    lambda: asyncio,
    lambda: range(3),
    lambda: memoryview(b"x"),
    lambda: Ellipsis,
    lambda: NotImplemented,
    lambda: types.SimpleNamespace(),
    lambda: ValueError("x"),
    lambda: Counter("x"),
    _generator,
    _cycle,
    _deep,
)
NO_CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture)
bounded = settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=NO_CHECKS)
junk = st.recursive(
    st.sampled_from(JUNK),
    lambda inner: st.builds(
        lambda make, key, others: lambda: [*others, {key: (make(),)}], inner, any_text, st.lists(st.integers(), max_size=3)
    ),
    max_leaves=3,
)


def _stores(folder: Path) -> list[Store]:
    stores: list[Store] = [SQLiteStore(folder / "runs.db"), JsonStore(folder / "runs"), MemoryStore()]
    for store in stores:
        store.register(*OWN_TYPES)
    return stores


def _ended(flow: AsyncFlow, run_id: str) -> Any:
    return asyncio.run(flow.run_until_complete(run_id))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    made = _stores(tmp_path_factory.mktemp("stores"))
    yield made
    for store in made:
        store.close()


@bounded
@given(value=values)
def test_any_value_goes_through_a_run_and_comes_back_the_same(stores: list[Store], value: Any) -> None:
    for store in stores:
        flow = AsyncFlow("flow", store)
        flow.add_task_definition("out", returns(value))
        flow.add_task_definition("back", lambda ctx: (ctx.pull("out"), ctx.params["value"]), dependencies=["out"])
        run_id = flow.init_run({"value": value})
        run = _ended(flow, run_id).raise_for_failure()
        assert same(run.tasks["back"].output_json, (value, value))
        assert same(store.load(run_id).params["value"], value)


@bounded
@given(make=junk)
def test_what_cannot_be_stored_is_refused_by_name_and_leaves_nothing_behind(stores: list[Store], make: Any) -> None:
    for store in stores:
        flow = AsyncFlow("flow", store)
        before = store.list_runs()
        with pytest.raises(UnstorableValueError):
            flow.init_run({"value": make()})
        assert store.list_runs() == before
        flow.add_task_definition("out", lambda ctx: make())
        task = _ended(flow, flow.init_run()).tasks["out"]
        assert (task.state, task.output_json) == ("failed", None)
        assert "UnstorableValueError" in (task.reason or "")


@bounded
@given(
    task_ids=st.lists(any_text | st.sampled_from(ODD_IDS), max_size=4, unique=True), run_id=any_text | st.sampled_from(ODD_IDS)
)
@example(task_ids=["A", "a"], run_id="../../evil")
def test_any_id_is_refused_by_name_or_kept_apart_from_all_others(stores: list[Store], task_ids: list[str], run_id: str) -> None:
    for store in stores:
        flow = AsyncFlow("flow", store)
        taken: list[str] = []
        for task_id in task_ids:
            try:
                flow.add_task_definition(task_id, returns(task_id))
            except InvalidNameError as error:
                assert str(error)
            else:
                taken.append(task_id)
        known = set(store.list_runs())
        try:
            made = flow.init_run(run_id=run_id)
        except InvalidNameError:
            assert set(store.list_runs()) == known
            continue
        if run_id in known:
            continue
        assert made == run_id
        assert set(store.list_runs()) == {*known, run_id}
        run = _ended(flow, run_id)
        assert store.load(run_id) == run
        assert {task_id: task.output_json for task_id, task in run.tasks.items()} == {task_id: task_id for task_id in taken}
        assert store.check() == []


def test_no_id_has_led_out_of_the_folder(stores: list[Store]) -> None:
    """After all of the above."""
    folder = Path(str(stores[0].path)).parent  # type: ignore[attr-defined]
    beside = {path.name for path in folder.iterdir()}
    assert {name for name in beside if not name.startswith(("runs.db", "runs"))} == set()
    assert all(path.is_file() for path in (folder / "runs").iterdir())


@bounded
@given(run_id=any_text, seed=st.integers(0, 10))
def test_a_store_is_asked_for_any_id_and_says_that_there_is_none(stores: list[Store], run_id: str, seed: int) -> None:
    absent = f"{run_id}{Random(seed).random()}"
    for store in stores:
        for ask in (store.load, store.read_tasks, store.read_attempts, store.claim):
            with pytest.raises(RunNotFoundError):
                ask(absent)
        assert not store.exists(absent)
