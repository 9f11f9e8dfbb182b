"""Kills of JsonStore in the middle of a commit or a fold: what they leave counts as a whole or not at all, to whoever looks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, Changes, Context, JsonStore, RunNotFoundError, State, StoreDamagedError, json_writer
from ..errors import StoreFullError
from ..file_system import FileSystem, StrPath
from ..json_journal import Journal
from ..json_ties import Tie, Ties
from ..records import RunRecord
from ..testing.store_contract import a_run, a_task, an_attempt, snapshot
from .json_folders import Copies, HookedFiles, fail, files_in, found_in, full_disk

ENDED = a_run(state=State.SUCCESS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def files() -> HookedFiles:
    return HookedFiles()


@pytest.fixture
def store(folder: Path, files: HookedFiles) -> Iterator[JsonStore]:
    with JsonStore(folder, files=files) as store:
        yield store


# --- the fold ---


def test_a_kill_at_any_stage_of_the_fold(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """Killed before, within or after the replacement of the readable file, the run reads back equal and can go on."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task(0), a_task(1)]))
    store.commit(Changes(runs=[a_run(state=State.FAILED)], attempts=[an_attempt(1)], flush=True))
    store.commit(Changes(runs=[a_run()], tasks=[a_task(1, reason="again")]))
    copies = Copies(folder)
    take = copies.take
    with files.before(sync=take, sync_folder=take, replace=take, unlink=take):
        store.commit(Changes(runs=[ENDED], attempts=[an_attempt(2)], flush=True))
    copies.take()
    expected = snapshot(store)
    stages = [sorted(files_in(copy)) for copy in copies.made]
    assert ["run.journal", "run.json", "run.json.tmp"] in stages
    assert stages[-2:] == [["run.journal", "run.json"], ["run.json"]]
    torn = next(copy for copy in copies.made if (copy / "run.json.tmp").exists()) / "run.json.tmp"
    torn.write_bytes(torn.read_bytes()[:100])
    for copy in copies.made:
        assert found_in(copy) == expected
        with JsonStore(copy) as found:
            assert "run.json.tmp" not in files_in(copy)
            found.commit(Changes(runs=[a_run()], tasks=[a_task(2)]))
            found.commit(Changes(runs=[ENDED], tasks=[a_task(0, reason="last")], flush=True))
        assert list(files_in(copy)) == ["run.json"]
        assert found_in(copy)["run"][1] == [a_task(0, reason="last"), a_task(1, reason="again"), a_task(2)]
        assert found_in(copy)["run"][2] == expected["run"][2]


def test_a_fold_while_somebody_reads(store: JsonStore, folder: Path) -> None:
    """A reader between whose looks at file and journal another process folds the run, sees the run whole."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
    folds = [lambda: store.commit(Changes(runs=[ENDED], flush=True))]

    def fold_first(path: Path, lines: int | None) -> None:
        if path.suffix == ".journal" and folds:
            folds.pop()()

    files = HookedFiles()
    with JsonStore(folder, files=files) as reader:
        reader.list_runs()
        with files.before(read=fold_first):
            assert reader.load("run").state is State.SUCCESS
    assert not folds
    assert list(files_in(folder)) == ["run.json"]


class HalfSeen(HookedFiles):
    """Shows so many times a journal that is just being written anew: the beginning of the old state, the end of the new one."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def read(self, path: StrPath, lines: int | None = None) -> bytes | None:
        data = super().read(path, lines)
        if data is None or Path(path).suffix != ".journal" or not self.times:
            return data
        self.times -= 1
        os.utime(path, ns=(0, self.times))
        return data[:-10] + b"#########\n"


def test_a_journal_that_is_written_anew_while_somebody_reads(store: JsonStore, folder: Path) -> None:
    """A reader that sees a journal half old and half new looks again instead of calling it damaged; but not for ever."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task(0)]))
    store.commit(Changes(tasks=[a_task(1)]))
    with JsonStore(folder, files=HalfSeen(3)) as reader:
        assert len(reader.read_tasks("run")) == 2
    with JsonStore(folder, files=HalfSeen(1_000)) as reader, pytest.raises(StoreDamagedError):
        reader.read_tasks("run")


# --- kills in a commit over several runs ---

TREE = {"root": None, "child": "root", "inner": "child", "sibling": "root", "other": None}


def in_tree(run_id: str, **columns: Any) -> RunRecord:
    """The record of a run of `TREE`, or of a new child of its root."""
    return a_run(run_id, parent_run_id=TREE.get(run_id, "root"), **columns)


COMMITS = {
    "a child ends with its parent's task": Changes(
        runs=[in_tree("child", state=State.FAILED)],
        tasks=[a_task(0, "child", reason="half"), a_task(0, "root", reason="half")],
        attempts=[an_attempt(1, run_id="child")],
    ),
    "a new child": Changes(
        new_runs=[in_tree("new")], tasks=[a_task(0, "new", reason="half"), a_task(0, "root", child_run_id="new")]
    ),
    "a new tree": Changes(new_runs=[a_run("above"), a_run("new", parent_run_id="above")]),
    "siblings without their parent": Changes(tasks=[a_task(0, "child", reason="half"), a_task(0, "sibling", reason="half")]),
    "runs of two trees": Changes(runs=[in_tree(run_id, state=State.CANCELLED) for run_id in ("other", "inner", "root")]),
    "all of them, to the disk": Changes(runs=[in_tree(run_id, state=State.SUCCESS) for run_id in TREE], flush=True),
}


def a_tree(store: JsonStore, ended: str = "") -> None:
    """Make the runs of `TREE`, of which the ended ones are folded."""
    runs = [in_tree(run_id) for run_id in TREE]
    store.commit(Changes(new_runs=runs, tasks=[a_task(0, run.id) for run in runs]))
    store.commit(Changes(runs=[in_tree(run_id, state=State.FAILED) for run_id in ended.split()], flush=True))


def files_read(files: HookedFiles) -> tuple[list[str], Any]:
    """A list of the names of the files that are read in a block."""
    names: list[str] = []
    return names, files.before(read=lambda path, lines: names.append(path.name) if path.exists() else None)


def copies_of_a_kill(store: JsonStore, changes: Changes) -> tuple[list[Path], Path]:
    """Commit the changes. What a kill before each journal's entry would leave, and what one after the last of them would."""
    assert isinstance(store._files, HookedFiles)
    copies = Copies(store.folder)
    with store._files.before(write=copies.take):
        store.commit(changes)
    copies.take()
    count = len({run.id for run in (*changes.new_runs, *changes.runs)} | {task.run_id for task in changes.tasks})
    return copies.made[:count], copies.made[count]


@pytest.mark.parametrize("ended", ["", "root", "child", "root child inner sibling other"])
@pytest.mark.parametrize("commit", COMMITS)
def test_a_kill_between_the_journals_of_one_commit(store: JsonStore, folder: Path, commit: str, ended: str) -> None:
    """Killed before the last journal of a commit is written, all runs are as before; killed after it, as the commit says.

    Whichever run is written first after that, and whichever of them is folded in between, that stays so; and the commit
    can be made again.
    """
    changes = COMMITS[commit]
    a_tree(store, ended)
    before = snapshot(store)
    halves, whole = copies_of_a_kill(store, changes)
    after = snapshot(store)
    assert after != before
    assert len(halves) > 1
    assert found_in(whole) == after
    (last,) = (name for name, data in files_in(whole).items() if ".journal" in name and files_in(halves[-1]).get(name) != data)
    torn = shutil.copytree(halves[-1], whole.with_name("torn"))
    (torn / last).write_bytes((whole / last).read_bytes()[:-1])
    halves.append(torn)
    for half in halves:
        assert found_in(half) == before
    for number, half in enumerate(halves):
        order = sorted(TREE, reverse=bool(number % 2))
        with JsonStore(half) as found:
            for run_id in order:
                found.commit(Changes(tasks=[a_task(1, run_id)]))
                assert snapshot(found)[run_id] == (before[run_id][0], [*before[run_id][1], a_task(1, run_id)], before[run_id][2])
            found.commit(Changes(tasks=[a_task(2, run_id) for run_id in order], flush=True))
        assert found_in(half)["order"] == before["order"]
        assert not any(b"half" in data for name, data in files_in(half).items() if name != "new.journal")
        with JsonStore(half) as found:
            found.commit(changes)
        more = {run_id: [a_task(1, run_id), a_task(2, run_id)] for run_id in TREE}
        assert found_in(half) == {
            name: row if name == "order" else (row[0], row[1] + more.get(name, []), row[2]) for name, row in after.items()
        }


def test_a_cut_short_commit_is_never_completed_by_a_later_one(store: JsonStore) -> None:
    """However many commits over several runs the outer run takes part in later, and folded or not, the half one stays out."""
    a_tree(store)
    before = snapshot(store)
    (_, half), _ = copies_of_a_kill(store, COMMITS["a child ends with its parent's task"])
    for number in range(4):
        state = (State.RUNNING, State.SUCCESS)[number % 2]
        with JsonStore(half) as found:
            for _ in range(3):
                found.commit(Changes(runs=[in_tree("root", state=state), in_tree("sibling", state=state)], flush=True))
        now = found_in(half)
        assert now["root"][0].state is state
        assert now["child"] == before["child"]


def test_an_id_of_a_run_that_came_to_nothing_can_be_used(store: JsonStore) -> None:
    """A new run whose commit was cut short does not exist: it is not listed or found, and its id is free for another run."""
    a_tree(store)
    (_, half), _ = copies_of_a_kill(store, COMMITS["a new child"])
    assert (half / "new.journal").exists()
    with JsonStore(half) as found:
        assert not found.exists("new")
        assert found.list_children("root") == ["sibling", "child"]
        for use in (lambda: found.load("new"), lambda: found.commit(Changes(tasks=[a_task(1, "new")]))):
            with pytest.raises(RunNotFoundError):
                use()
        found.commit(Changes(new_runs=[a_run("new", flow_name="again")]))
    assert found_in(half)["new"] == (a_run("new", flow_name="again"), [], [])


@pytest.mark.parametrize("commit", COMMITS)
def test_a_reader_in_mid_commit(store: JsonStore, folder: Path, files: HookedFiles, commit: str) -> None:
    """Another process that reads while a commit is being written to its journals, sees none of it; after the last, all of it."""
    a_tree(store)
    seen: list[dict[str, Any]] = []
    with JsonStore(folder) as reader:
        before = snapshot(reader)
        with files.before(write=lambda *arguments: seen.append(snapshot(reader))):
            store.commit(replace(COMMITS[commit], flush=False))
        assert len(seen) > 1
        assert seen == [before] * len(seen)
        assert snapshot(reader) == snapshot(store) != before


def test_no_number_of_a_commit_is_given_twice(store: JsonStore, folder: Path) -> None:
    """Whatever a process reads of others' commits in between, each commit over several runs has a name and number of its own."""
    a_tree(store)
    with JsonStore(folder) as other:
        for number in range(3):
            store.commit(Changes(tasks=[a_task(number, "root"), a_task(number, "child")]))
            store.commit(Changes(tasks=[a_task(number, "inner"), a_task(number, "other")]))
            other.commit(Changes(tasks=[a_task(number, "root"), a_task(number, "sibling")]))
            assert store.read_tasks("sibling")[number] == a_task(number, "sibling")
    lines = [line for data in files_in(folder).values() for line in data.splitlines()]
    ends = [tuple(entry["commit"]) for entry in (json.loads(line[18:]) for line in lines) if "commit" in entry]
    assert len(set(ends)) == len(ends) == 10


def test_many_children_are_listed_with_few_looks(store: JsonStore, folder: Path) -> None:
    """A process that lists the children of another one's run reads that run's journal once for all of them, not once for each."""
    store.commit(Changes(new_runs=[a_run("root")]))
    for number in range(20):
        store.commit(Changes(new_runs=[in_tree(f"child{number}")], tasks=[a_task(number, "root")]))
    files = HookedFiles()
    looked_at, watching = files_read(files)
    with JsonStore(folder, files=files) as other, watching:
        assert len(other.list_children("root")) == 20
    assert looked_at.count("root.journal") == 2


@pytest.mark.parametrize("tail", ["whole", "torn"])
def test_another_process_is_killed_in_an_open_journal(store: JsonStore, folder: Path, tmp_path: Path, tail: str) -> None:
    """A process that has a journal open and goes on after another one was killed writing to it, first cuts off what that left."""
    a_tree(store)
    shutil.copytree(folder, tmp_path / "elsewhere")
    with JsonStore(tmp_path / "elsewhere", files=HookedFiles()) as other:
        (_, half), _ = copies_of_a_kill(other, COMMITS["a child ends with its parent's task"])
    left = (half / "child.journal").read_bytes()
    (folder / "child.journal").write_bytes(left if tail == "whole" else left[:-9])
    store.commit(Changes(tasks=[a_task(1, "root"), a_task(1, "child")]))
    assert store.read_tasks("child") == [a_task(0, "child"), a_task(1, "child")]
    assert found_in(folder)["child"] == (in_tree("child"), [a_task(0, "child"), a_task(1, "child")], [])


def test_two_processes_take_turns_at_open_journals(store: JsonStore, folder: Path) -> None:
    """What two processes write in turns to the same runs, one by one and over several of them, is all there."""
    a_tree(store)
    with JsonStore(folder) as other:
        for number in range(1, 9):
            writer = (store, other)[number // 2 % 2]
            writer.commit(Changes(tasks=[a_task(number, run_id) for run_id in ("child", "root")[number % 3 % 2 :]]))
            assert snapshot(store) == snapshot(other) == found_in(folder)
    assert [task.position for task in store.read_tasks("root")] == list(range(9))
    assert [task.position for task in store.read_tasks("child")] == [0, 2, 3, 5, 6, 8]


@pytest.mark.parametrize("after", [0, 1])
def test_a_commit_that_could_not_be_taken_back(store: JsonStore, folder: Path, files: HookedFiles, after: int) -> None:
    """Where the disk is full and nothing can be cut off either, what was written counts for nothing, now and later."""
    a_tree(store)
    before = snapshot(store)
    with files.before(write=full_disk(after), truncate=fail), pytest.raises(StoreFullError, match="No space left"):
        store.commit(COMMITS["a child ends with its parent's task"])
    assert snapshot(store) == before == found_in(folder)
    store.commit(Changes(tasks=[a_task(1, "root"), a_task(1, "sibling")]))
    store.commit(Changes(tasks=[a_task(2, "root"), a_task(2, "sibling")]))
    assert snapshot(store)["child"] == before["child"] == found_in(folder)["child"]
    store.commit(Changes(tasks=[a_task(1, "child")]))
    assert found_in(folder)["child"][1] == [a_task(0, "child"), a_task(1, "child")]


def test_the_last_journal_is_taken_back_first(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """Where taking back a commit that was written but given up is cut short, by a kill or an error, all of it stays or none."""
    a_tree(store)
    before = snapshot(store)
    copies = Copies(folder)
    write = FileSystem().write

    def write_and_stop(descriptor: int, data: bytes, offset: int) -> None:
        if b'"commit"' in data:
            write(descriptor, data, offset)
            raise KeyboardInterrupt

    with files.before(write=write_and_stop, truncate=copies.take), pytest.raises(KeyboardInterrupt):
        store.commit(COMMITS["all of them, to the disk"])
    assert len(copies.made) == len(TREE)
    assert {run[0].state for run_id, run in found_in(copies.made[0]).items() if run_id in TREE} == {State.SUCCESS}
    for copy in copies.made[1:]:
        assert found_in(copy) == before
    assert snapshot(store) == before
    with files.before(write=write_and_stop, truncate=fail), pytest.raises(KeyboardInterrupt):
        store.commit(COMMITS["all of them, to the disk"])
    assert snapshot(store) == found_in(copies.made[0])


def test_a_commit_reads_no_file(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """Commits to runs in use look at no file, those to one run add nothing to their entry, and reading a run reads no other."""
    a_tree(store)
    with files.before(read=lambda *arguments: pytest.fail("it was read")):
        store.commit(Changes(tasks=[a_task(1, "child")]))
        store.commit(Changes(tasks=[a_task(1, "root"), a_task(2, "child")]))
        store.commit(Changes(tasks=[a_task(3, "child")]))
    looked_at, watching = files_read(files)
    with watching:
        store.commit(Changes(tasks=[a_task(4, "root"), a_task(4, "child")]))
        assert len(store.read_tasks("child")) == 5
    assert looked_at == ["child.journal"]
    entries = [json.loads(line[18:]) for line in (folder / "child.journal").read_bytes().splitlines()]
    keys = [sorted(entry.keys() - {"synced"}) for entry in entries[1:]]
    assert keys == [["tasks"], ["tasks", "with"], ["tasks"], ["tasks", "with"]]


@pytest.mark.parametrize("fails", [True, False])
def test_a_flow_killed_at_any_write(folder: Path, files: HookedFiles, fails: bool) -> None:
    """A flow with a subflow, killed at any write of its store, ends as an undisturbed one: no orphan, and no end twice."""

    def flow_in(store: JsonStore) -> AsyncFlow:
        child = AsyncFlow("child")

        @child.task
        async def work(ctx: Context) -> int:
            if fails:
                raise ValueError("as ever")
            return 7

        flow = AsyncFlow("parent", store)
        flow.add_subflow_definition("sub", child)
        flow.add_task_definition("last", lambda ctx: ctx.pull_output("sub"), dependencies=["sub"])
        return flow

    def result(store: JsonStore) -> tuple[object, ...]:
        run = flow_in(store).run(run_id="run")
        (child_id,) = store.list_children("run")
        assert len(store.list_runs()) == 2
        ends = [attempt.result for attempt in store.list_attempts(child_id) if attempt.result != "interrupted"]
        child = store.load(child_id)
        tasks = [(task.task_id, task.state, task.reason) for task in (*run.tasks.values(), *child.tasks.values())]
        return run.state, child.state, ends, tasks, run.tasks["last"].output_json

    copies = Copies(folder)
    folder.mkdir()
    with JsonStore(folder, files=files) as store, files.before(write=copies.take):
        undisturbed = result(store)
    assert undisturbed[:3] == ((State.FAILED, State.FAILED, ["failed"]) if fails else (State.SUCCESS, State.SUCCESS, ["success"]))
    assert len(copies.made) > 6
    for copy in copies.made:
        with JsonStore(copy) as store:
            assert result(store) == undisturbed


# --- commits that fail ---


@pytest.mark.parametrize("open_journals", [64, 2])
def test_a_commit_that_fails_leaves_nothing(
    store: JsonStore, folder: Path, files: HookedFiles, monkeypatch: pytest.MonkeyPatch, open_journals: int
) -> None:
    """When the disk is full in any of a commit's writes, every file is what it was, and afterwards the commit succeeds."""
    monkeypatch.setattr(json_writer, "OPEN_JOURNALS", open_journals)
    store.commit(Changes(new_runs=[a_run(f"run{number}") for number in range(5)], tasks=[a_task(0, "run3")]))
    before, as_before = snapshot(store), files_in(folder)
    changes = Changes(
        new_runs=[a_run(f"new{number}", parent_run_id="run0") for number in range(3)],
        runs=[a_run(f"run{number}", state=State.SUCCESS) for number in range(5)],
        tasks=[a_task(0, "run3", reason="changed"), a_task(0, "new1")],
        flush=True,
    )
    for after in range(8):
        with files.before(write=full_disk(after)), pytest.raises(StoreFullError, match="No space left"):
            store.commit(changes)
        assert files_in(folder) == as_before
        assert snapshot(store) == before
        with pytest.raises(RunNotFoundError):
            store.commit(Changes(tasks=[a_task(0, "new0")]))
    store.commit(changes)
    assert store.read_tasks("run3") == [a_task(0, "run3", reason="changed")]
    assert store.list_children("run0") == ["new2", "new1", "new0"]


def test_a_torn_line_that_could_not_be_cut_off(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """If not even the cut after a failed write succeeds, the torn line is gone before the next one is written."""
    store.commit(Changes(new_runs=[a_run()]))
    with files.before(write=full_disk(0), truncate=fail), pytest.raises(StoreFullError, match="No space left"):
        store.commit(Changes(tasks=[a_task(0)]))
    assert store.read_tasks("run") == []
    store.commit(Changes(tasks=[a_task(1)]))
    assert store.read_tasks("run") == [a_task(1)]
    assert [task.position for task in found_in(folder)["run"][1]] == [1]


# --- which commits count ---


def ties_among(journals: dict[str, str], folded: dict[str, dict[str, int]] | None = None) -> tuple[Ties, dict[str, Journal]]:
    """Journals in short: `"r.3 !2"` has an entry of a commit that ends in run r as number 3, and then the end of number 2."""

    def entry(word: str) -> dict[str, Any]:
        last, _, number = word.partition(".")
        if word.startswith("!"):
            return {"commit": ["s", int(word[1:])]}
        return {"with": [last, "s", int(number)]} if number else {}

    known = {run_id: Journal(entries=[entry(word) for word in words.split()]) for run_id, words in journals.items()}
    return Ties(lambda run_id: known.get(run_id, Journal()), lambda run_id: (folded or {}).get(run_id, {})), known


@pytest.mark.parametrize(
    ("journals", "folded", "counting"),
    [
        ({"a": "- -"}, {}, {"a": 2}),
        ({"a": "- b.1 -", "b": "!1"}, {}, {"a": 3}),
        ({"a": "- b.1 -", "b": "-"}, {}, {"a": 1}),
        ({"a": "- b.1 -"}, {}, {"a": 1}),
        ({"a": "- b.1 -", "b": "-"}, {"b": {"s": 1}}, {"a": 3}),
        ({"a": "b.1 b.2 b.3", "b": "!1 !2"}, {}, {"a": 2}),
        ({"a": "b.1", "b": "c.2 !1", "c": "!2"}, {}, {"a": 1, "b": 2}),
        ({"a": "b.1", "b": "c.2 !1", "c": "-"}, {}, {"a": 0, "b": 0}),
        ({"a": "b.1", "b": "c.2 !1"}, {"c": {"s": 2}}, {"a": 1}),
        ({"a": "b.1 !2", "b": "!1 a.2"}, {}, {"a": 2, "b": 2}),
        ({"a": "b.1", "b": "!1 a.2"}, {}, {"a": 1, "b": 1}),
        ({"a": "b.1 !2", "b": "a.2 !1"}, {}, {"a": 0, "b": 0}),
        ({"a": "b.4", "b": "!5"}, {}, {"a": 1}),
        ({f"r{n}": f"r{n + 1}.{n} !{n - 1}" for n in range(1, 3000)} | {"r3000": "!2999"}, {}, {"r1": 2}),
    ],
)
def test_what_counts(journals: dict[str, str], folded: dict[str, dict[str, int]], counting: dict[str, int]) -> None:
    """Entries count up to the first whose commit has no end in another run's entries that count, however far that leads."""
    for order in (list(counting), list(reversed(counting))):
        ties, known = ties_among(journals, folded)
        for run_id in order:
            assert ties.counting(known[run_id].entries) == counting[run_id]


def test_a_commit_of_the_same_number_in_another_run_is_another() -> None:
    """After a power cut a session's commit may be lost in one last run, and a later one kept in another."""
    ties, known = ties_among({"a": "b.1", "b": "-", "c": "!2", "d": "c.2"})
    assert ties.counting(known["d"].entries) == 1
    assert ties.counting(known["a"].entries) == 0


def test_what_another_process_has_not_written_yet_counts_when_it_has() -> None:
    """That a commit was not complete is not remembered."""
    ties, known = ties_among({"a": "b.1", "b": "-"})
    name: Tie = ("b", "s", 1)
    assert not ties.is_complete(name)
    known["b"].entries.append({"commit": ["s", 1]})
    assert ties.is_complete(name)
