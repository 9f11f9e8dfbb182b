"""Which store a command is about, and which run in it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from .. import AsyncFlow, JsonStore, MemoryStore, SQLiteStore, Store
from ..tools.failures import Refusal
from ..tools.opening import find_run, open_store, outermost_run, store_at
from ..tools.targets import Remembered, remember
from .command_line import CommandLine, command_line

__all__ = ["command_line"]


def options(store: str | None = None, **more: str | None) -> argparse.Namespace:
    return argparse.Namespace(store=store, **more)


def made(path: Path, kind: type[SQLiteStore] | type[JsonStore] = SQLiteStore) -> Path:
    with kind(path) as store:
        AsyncFlow("nightly", store).init_run(run_id="monday")
    return path


def ids(store: Store, *run_ids: str) -> Store:
    flow = AsyncFlow("nightly", store)
    for run_id in run_ids:
        flow.init_run(run_id=run_id)
    return store


# --- the store ---


def test_a_file_is_a_database_and_a_folder_a_json_store(command_line: CommandLine) -> None:
    made(Path("runs.db"))
    made(Path("runs"), JsonStore)
    for path, kind in (("runs.db", SQLiteStore), ("runs", JsonStore)):
        with open_store(options(path)) as store:
            assert type(store) is kind
            assert store.list_runs() == ["monday"]


@pytest.mark.parametrize(("path", "kind"), [("new.db", SQLiteStore), ("new", SQLiteStore), ("new/", JsonStore)])
def test_where_nothing_is_a_slash_says_that_a_folder_is_meant(path: str, kind: type[Store], command_line: CommandLine) -> None:
    assert isinstance(store_at(path), kind)


def test_the_option_goes_before_the_environment_and_that_before_the_flow(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("option.db", "environment.db", "own.db"):
        made(Path(name))
    flow = AsyncFlow("nightly", SQLiteStore("own.db"))
    assert repr(open_store(options(), flow)) == "SQLiteStore('own.db')"
    monkeypatch.setenv("NIGHT_BATCH_STORE", "environment.db")
    assert repr(open_store(options(), flow)) == "SQLiteStore('environment.db')"
    assert repr(open_store(options("option.db"), flow)) == "SQLiteStore('option.db')"
    monkeypatch.setenv("NIGHT_BATCH_STORE", "")
    assert repr(open_store(options(), flow)) == "SQLiteStore('own.db')"


def test_the_store_of_a_target_is_found(command_line: CommandLine) -> None:
    made(Path("own.db"))
    package = __name__.rsplit(".", 2)[0]
    command_line.write(
        "jobs.py", f"from {package} import AsyncFlow, SQLiteStore\nflow = AsyncFlow('nightly', SQLiteStore('own.db'))\n"
    )
    assert repr(open_store(options(flow="jobs.py:flow"))) == "SQLiteStore('own.db')"


def test_looking_at_a_store_never_makes_one(command_line: CommandLine) -> None:
    for named, flow in (("absent.db", None), ("absent/", None), (None, AsyncFlow("nightly", SQLiteStore("absent.db")))):
        with pytest.raises(Refusal, match="There is no store at absent"):
            open_store(options(named), flow)
    assert list(command_line.folder.iterdir()) == []


def test_a_flow_in_memory_has_no_runs_to_look_at(command_line: CommandLine) -> None:
    with pytest.raises(Refusal, match="keeps its runs in memory.*--store PATH"):
        open_store(options(), AsyncFlow("nightly"))


def test_without_a_store_that_of_the_run_is_taken_which_was_started_here(command_line: CommandLine) -> None:
    made(Path("runs.db"))
    here = str(command_line.folder)
    remember(Remembered("sqlite", f"{here}/runs.db", "monday", "nightly", "a:b", here))
    for text in ("monday", "latest", "mond"):
        with open_store(options(run_id=text)) as store:
            assert store.exists("monday")
    with pytest.raises(
        Refusal, match="No store is named. The latest run that was started here is in .*runs.db. Give one with --store"
    ):
        open_store(options())
    with pytest.raises(Refusal, match="No store is named. Give one with --store PATH, or set NIGHT_BATCH_STORE=PATH."):
        open_store(options(run_id="tuesday"))


# --- the run ---


def test_a_run_is_found_by_its_id_its_beginning_or_as_the_latest() -> None:
    store = ids(MemoryStore(), "2026-03-01", "2026-03-02", "abc", "abcdef")
    assert [find_run(store, text) for text in ("2026-03-01", "2026-03-02", "abc", "abcd", "latest")] == [
        "2026-03-01",
        "2026-03-02",
        "abc",
        "abcdef",
        "abcdef",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-03-0", "2 runs begin with '2026-03-0': 2026-03-02, 2026-03-01. Write more"),
        ("202", "There is no run '202'"),
        ("mondya", "Did you mean 'monday'?"),
        ("x" * 9, "See which there are: night-batch list"),
    ],
)
def test_a_run_that_is_not_clear_is_refused_with_what_to_do(text: str, said: str) -> None:
    store = ids(MemoryStore(), "2026-03-01", "2026-03-02", "monday")
    with pytest.raises(Refusal) as refused:
        find_run(store, text)
    assert said in str(refused.value)


def test_an_empty_store_has_no_latest_run() -> None:
    with pytest.raises(Refusal, match="There are no runs in MemoryStore"):
        find_run(MemoryStore(), "latest")


def test_the_latest_run_is_none_of_a_subflow_and_a_subflow_s_leads_to_the_whole() -> None:
    inner = AsyncFlow("inner")
    inner.add_task_definition("task", lambda ctx: 1)
    store = MemoryStore()
    flow = AsyncFlow("outer", store)
    for number in range(30):
        flow.add_subflow_definition(f"sub{number}", inner)
    flow.run(run_id="whole")
    child = store.load("whole").tasks["sub7"].child_run_id
    assert child is not None
    assert find_run(store, "latest") == "whole"
    assert outermost_run(store, child) == "whole"
    assert outermost_run(store, "whole") == "whole"


def test_a_run_that_was_only_said_to_belong_to_another_stands_for_itself() -> None:
    store = ids(MemoryStore(), "other")
    AsyncFlow("nightly", store).init_run(run_id="mine", parent_run_id="other", parent_task_id="sub")
    AsyncFlow("nightly", store).init_run(run_id="orphan", parent_run_id="gone", parent_task_id="sub")
    assert (outermost_run(store, "mine"), outermost_run(store, "orphan")) == ("mine", "orphan")
