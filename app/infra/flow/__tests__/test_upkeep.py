"""The commands that keep a store in order: prune, check, backup."""

from __future__ import annotations

import io
import random
import sqlite3
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from .. import AsyncFlow, ExecutionState, JsonStore, MemoryStore, SQLiteStore, Store, WorkflowRun
from ..tools.upkeep import prunable
from .command_line import CommandLine, command_line

__all__ = ["command_line"]

NOW = datetime.now(timezone.utc)


def saved(
    store: Store, run_id: str, hours: float, state: str = "success", flow_name: str = "nightly", parent: str | None = None
) -> None:
    """A run that ended so many hours ago, or has not ended."""
    ended = NOW - timedelta(hours=hours) if ExecutionState.is_terminal(state) else None
    store.save(
        WorkflowRun(
            run_id,
            flow_name,
            state=ExecutionState(state),
            start_date=NOW - timedelta(hours=hours, seconds=5),
            end_date=ended,
            parent_run_id=parent,
            parent_task_id=None if parent is None else "sub",
        )
    )


@pytest.fixture
def runs(command_line: CommandLine) -> Path:
    """A store with runs of different ages."""
    with SQLiteStore("runs.db") as store:
        for number in range(5, 0, -1):
            saved(store, f"night-{number}", hours=24 * number, state="failed" if number == 4 else "success")
        saved(store, "open", hours=240, state="scheduled")
        saved(store, "inside", hours=100, parent="night-5")
    return Path("runs.db")


def left() -> list[str]:
    with SQLiteStore("runs.db") as store:
        return sorted(store.list_runs())


# --- prune ---


def test_a_dry_run_shows_what_would_go_and_removes_nothing(command_line: CommandLine, runs: Path) -> None:
    ended = command_line("prune", "--store", "runs.db", "--older-than", "60h", "--dry-run")
    assert ended.code == 0
    assert [line.split()[1] for line in ended.out.splitlines()[1:]] == ["night-5", "night-4", "night-3"]
    assert ended.out.startswith("3 runs in SQLiteStore('runs.db') would go")
    assert len(left()) == 7


def test_what_is_meant_is_removed_with_the_runs_of_its_subflows(command_line: CommandLine, runs: Path) -> None:
    ended = command_line("prune", "--store", "runs.db", "--older-than", "60h", "--yes")
    assert (ended.code, ended.out) == (0, "Removed 4 runs from SQLiteStore('runs.db'), those of subflows included.\n")
    assert left() == ["night-1", "night-2", "open"]


def test_states_and_the_number_to_keep_choose_too(command_line: CommandLine, runs: Path) -> None:
    command_line("prune", "--store", "runs.db", "--state", "success", "--keep", "2", "--yes")
    assert left() == ["night-1", "night-2", "night-4", "open"]
    command_line("prune", "--store", "runs.db", "--flow-name", "other", "--yes")
    assert len(left()) == 4
    command_line("prune", "--store", "runs.db", "--keep", "0", "--yes")
    assert left() == ["open"]


def test_without_a_filter_nothing_is_removed(command_line: CommandLine, runs: Path) -> None:
    ended = command_line("prune", "--store", "runs.db", "--yes")
    assert (ended.code, len(left())) == (2, 7)
    assert "--older-than 30d" in ended.err


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "number"), [("y\n", 3), ("yes\n", 3), ("n\n", 7), ("\n", 7), ("", 7)])
def test_on_a_terminal_it_asks_first(
    answer: str, number: int, command_line: CommandLine, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    ended = command_line("prune", "--store", "runs.db", "--older-than", "60h")
    assert ended.code == 0
    assert "Remove them? [y/N]" in ended.err
    assert "night-4" in ended.err
    assert len(left()) == number


def test_where_nobody_can_be_asked_it_wants_to_be_told(
    command_line: CommandLine, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    ended = command_line("prune", "--store", "runs.db", "--older-than", "60h")
    assert (ended.code, len(left())) == (2, 7)
    assert "3 runs would be removed" in ended.err
    assert "--yes" in ended.err


@pytest.mark.parametrize("seed", range(40))
def test_what_a_dry_run_shows_is_what_the_store_removes(seed: int) -> None:
    chance = random.Random(seed)
    store = MemoryStore()
    ids: list[str] = []
    for number in range(12):
        state = chance.choice(["success", "failed", "cancelled", "scheduled", "running"])
        parent = chance.choice([None, None, *ids, "gone"])
        saved(store, f"r{number}", chance.uniform(0, 50), state, chance.choice(["one", "two"]), parent)
        ids.append(f"r{number}")
    older_than, keep = chance.choice([0.0, 3600.0 * 20]), chance.choice([0, 1, 3])
    states, flow_name = chance.choice([None, ["failed"], ["success", "cancelled"]]), chance.choice([None, "one"])
    shown = prunable(store.read_runs(), older_than, keep, states, flow_name, datetime.now(timezone.utc).timestamp())
    removed = set(store.prune(older_than, keep, states, flow_name))
    assert {run.id for run in shown} <= removed
    roots = {run_id for run_id in removed if run_id in {run.id for run in shown}}
    assert roots == {run.id for run in shown}
    inside = removed - roots
    assert bool(inside or shown) == bool(removed)
    assert not prunable(store.read_runs(), older_than, keep, states, flow_name, datetime.now(timezone.utc).timestamp())


# --- check ---


@pytest.mark.parametrize("path", ["runs.db", "runs/"])
def test_a_sound_store_ends_with_0(path: str, command_line: CommandLine) -> None:
    kind = JsonStore if path.endswith("/") else SQLiteStore
    with kind(path) as store:
        AsyncFlow("nightly", store).init_run(run_id="monday")
    ended = command_line("check", "--store", path)
    assert (ended.code, ended.err) == (0, "")
    assert "is sound: 1 run" in ended.out


def test_damage_ends_with_3_and_is_named(command_line: CommandLine) -> None:
    with SQLiteStore("runs.db") as store:
        AsyncFlow("nightly", store).init_run(run_id="monday")
    with sqlite3.connect("runs.db") as file:
        file.execute("UPDATE runs SET params = '{\"a\": 1}'")
    file.close()
    ended = command_line("check", "--store", "runs.db")
    assert ended.code == 3
    assert "monday" in ended.out
    assert "restore the others from a backup" in ended.err


def test_what_is_no_store_ends_with_3_and_is_left_as_it_is(command_line: CommandLine) -> None:
    command_line.write("runs.db", "a letter to my aunt")
    for words in (("check",), ("cancel", "monday"), ("backup", "copy.db")):
        ended = command_line(*words, "--store", "runs.db")
        assert ended.code == 3
        assert len(ended.err.splitlines()) == 1
    assert Path("runs.db").read_text() == "a letter to my aunt"


# --- backup ---


@pytest.mark.parametrize(("path", "copy"), [("runs.db", "copy.db"), ("runs/", "copy")])
def test_a_backup_holds_what_the_store_holds(path: str, copy: str, command_line: CommandLine) -> None:
    kind = JsonStore if path.endswith("/") else SQLiteStore
    with kind(path) as store:
        AsyncFlow("nightly", store).init_run(run_id="monday")
    ended = command_line("backup", copy, "--store", path)
    assert ended.code == 0
    assert f"was copied to {copy}" in ended.out
    with kind(copy) as store:
        assert store.list_runs() == ["monday"]


@pytest.mark.parametrize(
    ("copy", "said"), [("runs.db", "There is something at runs.db"), ("absent/copy.db", "There is no folder")]
)
def test_a_backup_overwrites_nothing(copy: str, said: str, command_line: CommandLine, runs: Path) -> None:
    ended = command_line("backup", copy, "--store", "runs.db")
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert len(left()) == 7
