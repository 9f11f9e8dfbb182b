"""What JsonStore promises beyond the contract of stores: its journals, its readable files, kills, and trouble of the medium."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Changes,
    Context,
    ExecutionState,
    JsonStore,
    RunNotFoundError,
    State,
    StoreDamagedError,
    StoreError,
    StoreFormatError,
    StoreVersionError,
    json_store,
)
from ..json_format import file_stem
from ..records import RunRecord
from ..testing.store_contract import a_run, a_task, an_attempt, snapshot

ENDED = a_run(state=State.SUCCESS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def store(folder: Path) -> Iterator[JsonStore]:
    with JsonStore(folder) as store:
        yield store


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def found_in(folder: Path) -> dict[str, Any]:
    """What a new process finds in the folder."""
    with JsonStore(folder) as store:
        return snapshot(store)


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


class Copies:
    """Copies of a folder, each as a kill at that instant would leave it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Path] = []

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a copy taken before each call of it."""

        def copy_first(*arguments: Any, **options: Any) -> Any:
            self.take()
            return function(*arguments, **options)

        return copy_first

    def take(self) -> None:
        self.made.append(self.folder.with_name(f"copy{len(self.made)}"))
        shutil.copytree(self.folder, self.made[-1])


# --- the journal ---


def test_a_commit_is_one_line_of_the_journal(store: JsonStore, folder: Path) -> None:
    """While a run goes on, each commit adds one line: length, CRC32, and JSON that says what was written."""
    store.commit(Changes(new_runs=[a_run("nightly-1")], tasks=[a_task(0, "nightly-1")]))
    store.commit(
        Changes(tasks=[a_task(0, "nightly-1", reason="two\nlines and \u2028")], attempts=[an_attempt(1, 0, "nightly-1")])
    )
    assert list(files_in(folder)) == ["nightly-1.journal"]
    lines = (folder / "nightly-1.journal").read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    entries: list[dict[str, Any]] = []
    for line in lines:
        length, checksum, text = line[:8], line[9:17], line[18:-1]
        assert (int(length, 16), int(checksum, 16)) == (len(text), zlib.crc32(text))
        entries.append(json.loads(text))
    assert (entries[0]["format"], entries[0]["version"], entries[0]["run"][0]) == ("night-batch run", 1, "nightly-1")
    assert set(entries[1]) == {"tasks", "attempts"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_are_private(store: JsonStore, folder: Path) -> None:
    """Journals and readable files hold people's data: only the owner may read them."""
    store.commit(Changes(new_runs=[a_run("open"), a_run("ended", state=State.SUCCESS)], flush=True))
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {"open.journal": 0o600, "ended.json": 0o600}


def test_a_torn_tail_is_dropped(store: JsonStore, folder: Path, tmp_path: Path) -> None:
    """Cut at any byte of its last line, a journal tells all the lines before, and the next commit goes on from there."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task(0)]))
    before, journal = snapshot(store), folder / "run.journal"
    start = journal.stat().st_size
    store.commit(Changes(tasks=[a_task(0, reason="later"), a_task(1)]))
    data = journal.read_bytes()
    torn = [data[:length] for length in range(start, len(data))]
    zeroed = [data[:length] + bytes(len(data) - length) for length in (start, start + 5, start + 30)]
    copy = tmp_path / "copy"
    copy.mkdir()
    for number, tail in enumerate((*zeroed, *torn)):
        (copy / "run.journal").write_bytes(tail)
        with JsonStore(copy) as found:
            assert snapshot(found) == before
            if number % 20 < len(zeroed):
                found.commit(Changes(tasks=[a_task(2)]))
                assert found.read_tasks("run") == [a_task(0), a_task(2)]
                assert [task.position for task in found_in(copy)["run"][1]] == [0, 2]


def test_a_torn_first_line_is_no_run(store: JsonStore, folder: Path, tmp_path: Path) -> None:
    """A kill within the very first write leaves no run, no warning, and an id that can be used."""
    store.commit(Changes(new_runs=[a_run()]))
    data = (folder / "run.journal").read_bytes()
    copy = tmp_path / "copy"
    copy.mkdir()
    for number, tail in enumerate((bytes(len(data)), *(data[:length] for length in range(len(data))))):
        (copy / "run.journal").write_bytes(tail)
        with JsonStore(copy) as found:
            assert found.list_runs() == []
            assert not found.exists("run")
            if number % 20 < 2:
                found.commit(Changes(new_runs=[a_run(flow_name="again")]))
                assert found.read_run("run").flow_name == "again"
                assert found_in(copy)["order"] == ["run"]


def test_damage_in_the_middle_is_an_error(store: JsonStore, folder: Path) -> None:
    """A byte flipped anywhere before the last line is an error that names the file, on reading and writing, and mends nothing."""
    for number in range(3):
        store.commit(Changes(new_runs=[a_run()] if not number else [], tasks=[a_task(number)]))
    store.close()
    journal = folder / "run.journal"
    data = journal.read_bytes()
    last_line = data.rindex(b"\n", 0, -1) + 1
    for at in range(last_line):
        journal.write_bytes(damaged(data, at))
        with JsonStore(folder) as found:
            with pytest.raises(StoreDamagedError, match=r"run\.journal is damaged at byte"):
                found.read_tasks("run")
            if at % 50 == 0:
                for write in (Changes(tasks=[a_task(9)]), Changes(new_runs=[a_run()])):
                    with pytest.raises(StoreDamagedError, match=r"run\.journal"):
                        found.commit(write)
        assert journal.read_bytes() == damaged(data, at)


def test_a_damaged_run_hides_no_other(store: JsonStore, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The list of runs leaves out what cannot be read, with a warning that names the file, and shows the rest."""
    for run_id in ("good", "broken", "ended"):
        store.commit(Changes(new_runs=[a_run(run_id, state=State.SUCCESS if run_id == "ended" else State.RUNNING)], flush=True))
        store.commit(Changes(tasks=[a_task(0, run_id)]))
    store.close()
    broken = folder / "broken.journal"
    broken.write_bytes(damaged(broken.read_bytes(), 40))
    assert store.__enter__().list_runs() == ["ended", "good"]
    assert "broken.journal" in caplog.text


# --- the readable file ---


def test_an_ended_run_is_one_readable_file(store: JsonStore, folder: Path) -> None:
    """When a run has ended, all of it stands in a JSON file: times in ISO 8601, values as themselves; the journal is gone."""
    run = a_run(
        params='{"rows":3}', graph='{"load":[]}', state=State.SUCCESS, started=1_700_000_000_000_000, ended=1_700_000_000_250_000
    )
    tasks = [
        a_task(0, task_id="load", output='{"größe":[1,2]}', state=State.SUCCESS, due=1_700_000_000_000_001),
        a_task(1, task_id="clean", output="null"),
    ]
    store.commit(Changes(new_runs=[replace(run, state=State.RUNNING)], tasks=tasks))
    store.commit(Changes(runs=[run], attempts=[an_attempt(1, task_id="load", error="Traceback\n  ...")], flush=True))
    assert list(files_in(folder)) == ["run.json"]
    text = (folder / "run.json").read_text(encoding="utf-8")
    tree = json.loads(text)
    assert (tree["format"], tree["version"]) == ("night-batch run", 1)
    assert tree["run"]["params"] == {"rows": 3}
    assert tree["run"]["graph"] == {"load": []}
    assert tree["run"]["started"] == "2023-11-14T22:13:20+00:00"
    assert tree["run"]["ended"] == "2023-11-14T22:13:20.250000+00:00"
    assert [task["task_id"] for task in tree["tasks"]] == ["load", "clean"]
    assert tree["tasks"][0]["output"] == {"größe": [1, 2]}
    assert tree["tasks"][0]["due"] == "2023-11-14T22:13:20.000001+00:00"
    assert "started" not in tree["tasks"][1]
    assert (tree["attempts"][0]["result"], tree["attempts"][0]["error"]) == ("failed", "Traceback\n  ...")
    assert "größe" in text


def test_a_run_that_ended_unflushed_is_folded_by_close(store: JsonStore, folder: Path) -> None:
    """What ended without a flush is folded at the latest when the store is closed; what goes on keeps its journal."""
    store.commit(Changes(new_runs=[ENDED, a_run("open")]))
    assert sorted(files_in(folder)) == ["open.journal", "run.journal"]
    store.close()
    assert sorted(files_in(folder)) == ["open.journal", "run.json"]


def test_a_run_that_goes_on_is_not_folded(store: JsonStore, folder: Path) -> None:
    """A run that ended and was reset before the next flush goes on in its journal."""
    store.commit(Changes(new_runs=[ENDED]))
    store.commit(Changes(runs=[a_run()]))
    store.commit(Changes(flush=True))
    assert list(files_in(folder)) == ["run.journal"]


def test_a_file_laid_out_anew_is_still_read(store: JsonStore, folder: Path) -> None:
    """People may pass a readable file through an editor or `jq`: it is listed and read as before."""
    store.commit(Changes(new_runs=[ENDED], tasks=[a_task()], attempts=[an_attempt(1)], flush=True))
    before, path = snapshot(store), folder / "run.json"
    for indent in (None, 4):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=indent))
        assert found_in(folder) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no handle of a folder to sync")
def test_only_a_flush_waits_for_the_disk(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush syncs each journal written since the last one, and the folder that names it; other commits sync nothing."""
    synced: list[str] = []

    def sync(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        synced.append(next(path.name for path in (folder, *folder.iterdir()) if path.stat().st_ino == inode))

    monkeypatch.setattr(os, "fsync", sync)
    store.commit(Changes(new_runs=[a_run("first"), a_run("second")]))
    store.commit(Changes(tasks=[a_task(0, "first")]))
    assert synced == []
    store.commit(Changes(tasks=[a_task(1, "first")], flush=True))
    assert synced == ["first.journal", "second.journal", "runs"]
    synced.clear()
    store.commit(Changes(tasks=[a_task(1, "second")], flush=True))
    assert synced == ["second.journal", "runs"]
    synced.clear()
    store.commit(Changes(runs=[a_run("first", state=State.FAILED)], flush=True))
    assert synced == ["first.json.tmp", "runs"]


# --- kills ---


def test_a_kill_at_any_stage_of_the_fold(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before, within or after the replacement of the readable file, the run reads back equal and can go on."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task(0), a_task(1)]))
    store.commit(Changes(runs=[a_run(state=State.FAILED)], attempts=[an_attempt(1)], flush=True))
    store.commit(Changes(runs=[a_run()], tasks=[a_task(1, reason="again")]))
    copies = Copies(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", copies.before(os.fsync))
        patch.setattr(Path, "replace", copies.before(Path.replace))
        patch.setattr(Path, "unlink", copies.before(Path.unlink))
        store.commit(Changes(runs=[ENDED], attempts=[an_attempt(2)], flush=True))
    copies.take()
    expected = snapshot(store)
    stages = [sorted(files_in(copy)) for copy in copies.made]
    assert ["run.journal", "run.json", "run.json.tmp"] in stages
    assert stages[-2:] == [["run.journal", "run.json"], ["run.json"]]
    torn = copies.made[0] / "run.json.tmp"
    torn.write_bytes(torn.read_bytes()[:100])
    for copy in copies.made:
        assert found_in(copy) == expected
        with JsonStore(copy) as found:
            found.commit(Changes(runs=[a_run()], tasks=[a_task(2)]))
            found.commit(Changes(runs=[ENDED], tasks=[a_task(0, reason="last")], flush=True))
        assert list(files_in(copy)) == ["run.json"]
        assert found_in(copy)["run"][1] == [a_task(0, reason="last"), a_task(1, reason="again"), a_task(2)]
        assert found_in(copy)["run"][2] == expected["run"][2]


def test_a_fold_while_somebody_reads(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader between whose looks at file and journal another process folds the run, sees the run whole."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
    read = json_store._bytes_of
    folds = [lambda: store.commit(Changes(runs=[ENDED], flush=True))]

    def read_then_fold(path: Path) -> bytes | None:
        data = read(path)
        if folds:
            folds.pop()()
        return data

    with JsonStore(folder) as reader:
        reader.list_runs()
        monkeypatch.setattr(json_store, "_bytes_of", read_then_fold)
        assert reader.load("run").state is State.SUCCESS
    assert not folds
    assert list(files_in(folder)) == ["run.json"]


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


def files_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read from now on."""
    read, names = json_store._bytes_of, list[str]()

    def name_and_read(path: Path) -> bytes | None:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(json_store, "_bytes_of", name_and_read)
    return names


def copies_of_a_kill(store: JsonStore, changes: Changes, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Path], Path]:
    """Commit the changes. What a kill before each journal's entry would leave, and what one after the last of them would."""
    copies = Copies(store.folder)
    with monkeypatch.context() as patch:
        patch.setattr(json_store, "_write_all", copies.before(json_store._write_all))
        store.commit(changes)
    copies.take()
    count = len({run.id for run in (*changes.new_runs, *changes.runs)} | {task.run_id for task in changes.tasks})
    return copies.made[:count], copies.made[count]


@pytest.mark.parametrize("ended", ["", "root", "child", "root child inner sibling other"])
@pytest.mark.parametrize("commit", COMMITS)
def test_a_kill_between_the_journals_of_one_commit(
    store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch, commit: str, ended: str
) -> None:
    """Killed before the last journal of a commit is written, all runs are as before; killed after it, as the commit says.

    Whichever run is written first after that, and whichever of them is folded in between, that stays so; and the commit
    can be made again.
    """
    changes = COMMITS[commit]
    a_tree(store, ended)
    before = snapshot(store)
    halves, whole = copies_of_a_kill(store, changes, monkeypatch)
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


def test_a_cut_short_commit_is_never_completed_by_a_later_one(
    store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many commits over several runs the outer run takes part in later, and folded or not, the half one stays out."""
    a_tree(store)
    before = snapshot(store)
    (_, half), _ = copies_of_a_kill(store, COMMITS["a child ends with its parent's task"], monkeypatch)
    for number in range(4):
        state = (State.RUNNING, State.SUCCESS)[number % 2]
        with JsonStore(half) as found:
            for _ in range(3):
                found.commit(Changes(runs=[in_tree("root", state=state), in_tree("sibling", state=state)], flush=True))
        now = found_in(half)
        assert now["root"][0].state is state
        assert now["child"] == before["child"]


def test_an_id_of_a_run_that_came_to_nothing_can_be_used(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new run whose commit was cut short does not exist: it is not listed or found, and its id is free for another run."""
    a_tree(store)
    (_, half), _ = copies_of_a_kill(store, COMMITS["a new child"], monkeypatch)
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
def test_a_reader_in_mid_commit(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    """Another process that reads while a commit is being written to its journals, sees none of it; after the last, all of it."""
    a_tree(store)
    write, seen = json_store._write_all, list[dict[str, Any]]()
    with JsonStore(folder) as reader:
        before = snapshot(reader)

        def read_and_write(descriptor: int, data: bytes) -> None:
            seen.append(snapshot(reader))
            write(descriptor, data)

        changes = replace(COMMITS[commit], flush=False)
        monkeypatch.setattr(json_store, "_write_all", read_and_write)
        store.commit(changes)
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


def test_many_children_are_listed_with_few_looks(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lists the children of another one's run reads that run's journal once for all of them, not once for each."""
    store.commit(Changes(new_runs=[a_run("root")]))
    for number in range(20):
        store.commit(Changes(new_runs=[in_tree(f"child{number}")], tasks=[a_task(number, "root")]))
    looked_at = files_read(monkeypatch)
    with JsonStore(folder) as other:
        assert len(other.list_children("root")) == 20
    assert looked_at.count("root.journal") == 2


@pytest.mark.parametrize("tail", ["whole", "torn"])
def test_another_process_is_killed_in_an_open_journal(
    store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tail: str
) -> None:
    """A process that has a journal open and goes on after another one was killed writing to it, first cuts off what that left."""
    a_tree(store)
    shutil.copytree(folder, tmp_path / "elsewhere")
    with JsonStore(tmp_path / "elsewhere") as other:
        (_, half), _ = copies_of_a_kill(other, COMMITS["a child ends with its parent's task"], monkeypatch)
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
def test_a_commit_that_could_not_be_taken_back(
    store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Where the disk is full and nothing can be cut off either, what was written counts for nothing, now and later."""
    a_tree(store)
    before = snapshot(store)

    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_disk(after))
        patch.setattr(os, "truncate", fail)
        with pytest.raises(StoreError, match="No space left"):
            store.commit(COMMITS["a child ends with its parent's task"])
    assert snapshot(store) == before == found_in(folder)
    store.commit(Changes(tasks=[a_task(1, "root"), a_task(1, "sibling")]))
    store.commit(Changes(tasks=[a_task(2, "root"), a_task(2, "sibling")]))
    assert snapshot(store)["child"] == before["child"] == found_in(folder)["child"]
    store.commit(Changes(tasks=[a_task(1, "child")]))
    assert found_in(folder)["child"][1] == [a_task(0, "child"), a_task(1, "child")]


def test_the_last_journal_is_taken_back_first(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where taking back a commit that was written but given up is cut short, by a kill or an error, all of it stays or none."""
    a_tree(store)
    before = snapshot(store)
    write, truncate, copies = json_store._write_all, os.truncate, Copies(folder)

    def write_and_stop(descriptor: int, data: bytes) -> None:
        write(descriptor, data)
        if b'"commit"' in data:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(json_store, "_write_all", write_and_stop)
        patch.setattr(os, "truncate", copies.before(os.truncate))
        with pytest.raises(KeyboardInterrupt):
            store.commit(COMMITS["all of them, to the disk"])
    assert len(copies.made) == len(TREE)
    assert {run[0].state for run_id, run in found_in(copies.made[0]).items() if run_id in TREE} == {State.SUCCESS}
    for copy in copies.made[1:]:
        assert found_in(copy) == before
    assert snapshot(store) == before
    cut = iter([OSError(errno.EIO, os.strerror(errno.EIO))])

    def fail_once(path: Path, length: int) -> None:
        for error in cut:
            raise error
        truncate(path, length)

    with monkeypatch.context() as patch:
        patch.setattr(json_store, "_write_all", write_and_stop)
        patch.setattr(os, "truncate", fail_once)
        with pytest.raises(KeyboardInterrupt):
            store.commit(COMMITS["all of them, to the disk"])
    assert snapshot(store) == found_in(copies.made[0])


def test_a_commit_reads_no_file(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits to runs in use look at no file, those to one run add nothing to their entry, and reading a run reads no other."""
    a_tree(store)
    with monkeypatch.context() as patch:
        patch.setattr(json_store, "_bytes_of", pytest.fail)
        store.commit(Changes(tasks=[a_task(1, "child")]))
        store.commit(Changes(tasks=[a_task(1, "root"), a_task(2, "child")]))
        store.commit(Changes(tasks=[a_task(3, "child")]))
    looked_at = files_read(monkeypatch)
    store.commit(Changes(tasks=[a_task(4, "root"), a_task(4, "child")]))
    assert len(store.read_tasks("child")) == 5
    assert looked_at == ["child.json", "child.journal"]
    entries = [json.loads(line[18:]) for line in (folder / "child.journal").read_bytes().splitlines()]
    assert [sorted(entry) for entry in entries[1:]] == [["tasks"], ["tasks", "with"], ["tasks"], ["tasks", "with"]]


@pytest.mark.parametrize("fails", [True, False])
def test_a_flow_killed_at_any_write(folder: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
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
    with monkeypatch.context() as patch, JsonStore(folder) as store:
        patch.setattr(os, "write", copies.before(os.write))
        undisturbed = result(store)
    assert undisturbed[:3] == ((State.FAILED, State.FAILED, ["failed"]) if fails else (State.SUCCESS, State.SUCCESS, ["success"]))
    assert len(copies.made) > 6
    for copy in copies.made:
        with JsonStore(copy) as store:
            assert result(store) == undisturbed


# --- trouble of the medium ---


def full_disk(after: int) -> Callable[[int, Any], int]:
    """An `os.write` that has room for so many writes, and for half of the next one."""
    write, count = os.write, 0

    def faulty(descriptor: int, data: Any) -> int:
        nonlocal count
        count += 1
        if count == after + 1:
            return write(descriptor, bytes(data)[: len(data) // 2])
        if count > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    return faulty


@pytest.mark.parametrize("open_journals", [64, 2])
def test_a_commit_that_fails_leaves_nothing(
    store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch, open_journals: int
) -> None:
    """When the disk is full in any of a commit's writes, every file is what it was, and afterwards the commit succeeds."""
    monkeypatch.setattr(json_store, "_OPEN_JOURNALS", open_journals)
    store.commit(Changes(new_runs=[a_run(f"run{number}") for number in range(5)], tasks=[a_task(0, "run3")]))
    before, files = snapshot(store), files_in(folder)
    changes = Changes(
        new_runs=[a_run(f"new{number}", parent_run_id="run0") for number in range(3)],
        runs=[a_run(f"run{number}", state=State.SUCCESS) for number in range(5)],
        tasks=[a_task(0, "run3", reason="changed"), a_task(0, "new1")],
        flush=True,
    )
    for after in range(8):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full_disk(after))
            with pytest.raises(StoreError, match="No space left"):
                store.commit(changes)
        assert files_in(folder) == files
        assert snapshot(store) == before
        with pytest.raises(RunNotFoundError):
            store.commit(Changes(tasks=[a_task(0, "new0")]))
    store.commit(changes)
    assert store.read_tasks("run3") == [a_task(0, "run3", reason="changed")]
    assert store.list_children("run0") == ["new2", "new1", "new0"]


def test_a_torn_line_that_could_not_be_cut_off(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If not even the cut after a failed write succeeds, the torn line is gone before the next one is written."""
    store.commit(Changes(new_runs=[a_run()]))

    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_disk(0))
        patch.setattr(os, "truncate", fail)
        with pytest.raises(StoreError, match="No space left"):
            store.commit(Changes(tasks=[a_task(0)]))
    assert store.read_tasks("run") == []
    store.commit(Changes(tasks=[a_task(1)]))
    assert store.read_tasks("run") == [a_task(1)]
    assert [task.position for task in found_in(folder)["run"][1]] == [1]


def test_a_fold_that_fails_leaves_no_half_file(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full in the fold, no temporary file stays, the journal tells all, and the next flush folds it."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task()]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_disk(1))
        with pytest.raises(StoreError, match="No space left"):
            store.commit(Changes(runs=[ENDED], flush=True))
    assert list(files_in(folder)) == ["run.journal"]
    assert store.read_run("run") == ENDED
    store.commit(Changes(flush=True))
    assert list(files_in(folder)) == ["run.json"]
    assert store.read_run("run") == ENDED


def test_a_close_that_fails_still_closes(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the last flush fails, `close` says so, yet the store is closed, and all is there when it is opened again."""
    store.commit(Changes(new_runs=[a_run()]))

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match="Input/output error"):
            store.close()
    assert not store._journals
    with pytest.raises(StoreError, match="closed"):
        store.list_runs()
    store.open()
    assert store.read_run("run") == a_run()


@pytest.mark.parametrize("call", ["open", "lseek", "fstat"])
def test_errors_of_the_system_are_translated(store: JsonStore, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """An OSError from any corner leaves the store as a `StoreError` that names the store and the trouble."""
    store.commit(Changes(new_runs=[a_run()]))

    def fail(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StoreError, match=r"JsonStore\(.*Permission denied"):
            store.commit(Changes(new_runs=[a_run("new")], tasks=[a_task()]))
    assert store.list_runs() == ["run"]
    assert store.read_tasks("run") == []


def test_more_open_runs_than_open_files(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many runs go on at once, only so many journals are open, and no commit to any of them is lost."""
    monkeypatch.setattr(json_store, "_OPEN_JOURNALS", 3)
    names = [f"run{number}" for number in range(10)]
    for number in range(4):
        for run_id in names:
            store.commit(Changes(new_runs=[] if number else [a_run(run_id)], tasks=[a_task(number, run_id)], flush=number == 2))
            assert len(store._journals) <= 3
    store.commit(Changes(tasks=[a_task(4, run_id) for run_id in names]))
    assert len(store._journals) <= 3
    for run_id in names:
        assert [task.position for task in store.read_tasks(run_id)] == [0, 1, 2, 3, 4]
    expected = snapshot(store)
    assert found_in(folder) == expected


def test_a_run_that_names_itself_as_its_parent(store: JsonStore) -> None:
    """Parents in a circle, which only `save` can write, do not hang the commit that orders runs by their depth."""
    store.commit(Changes(new_runs=[a_run("a", parent_run_id="b"), a_run("b", parent_run_id="a"), a_run("c", parent_run_id="c")]))
    assert store.list_children("c") == ["c"]


# --- what is not ours ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("package.json", '{"name": "package", "version": "1.0.0"}'),
        ("package.json", "[1, 2, 3]"),
        ("package.json", "no JSON at all"),
        ("package.json", ""),
        ("package.json", '{"run": ' + "[" * 100_000),
        ("package.json", "\xff\xfe"),
        ("package.journal", "Dear journal, today I wrote a store.\n"),
    ],
)
def test_a_foreign_file_is_refused_by_name(
    store: JsonStore, folder: Path, caplog: pytest.LogCaptureFixture, name: str, text: str
) -> None:
    """Another program's file is left out of the list with a warning, refused by name where its id is asked for, and kept."""
    store.commit(Changes(new_runs=[a_run()]))
    (folder / name).write_text(text, encoding="latin-1")
    files = files_in(folder)
    assert store.list_runs() == ["run"]
    assert name in caplog.text
    uses: list[Callable[[], object]] = [
        lambda: store.load("package"),
        lambda: store.exists("package"),
        lambda: store.commit(Changes(new_runs=[a_run("package")])),
        lambda: store.commit(Changes(tasks=[a_task(0, "package")])),
    ]
    for use in uses:
        with pytest.raises(StoreFormatError, match=name):
            use()
    assert files_in(folder) == files


def test_a_copied_file_is_refused_by_name(store: JsonStore, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run's file under another name passes neither for that run nor for one of that name, and is left alone."""
    store.commit(Changes(new_runs=[ENDED], flush=True))
    shutil.copy(folder / "run.json", folder / "backup.json")
    store.commit(Changes(runs=[a_run(state=State.FAILED)], flush=True))
    files = files_in(folder)
    assert [run.state for run in store.read_runs()] == ["failed"]
    assert "backup.json" in caplog.text
    for use in (lambda: store.load("backup"), lambda: store.commit(Changes(new_runs=[a_run("backup")]))):
        with pytest.raises(StoreFormatError, match=r"backup\.json holds run 'run'"):
            use()
    assert files_in(folder) == files


def test_a_folder_named_like_a_run_is_left_out(store: JsonStore, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A subfolder whose name ends in `.json` hides no run: it is left out of the list, with a warning."""
    store.commit(Changes(new_runs=[a_run()]))
    (folder / "old.json").mkdir()
    (folder / "notes.txt").write_text("not looked at")
    assert store.list_runs() == ["run"]
    assert "old.json" in caplog.text
    assert "notes.txt" not in caplog.text
    with pytest.raises(StoreError, match=r"old\.json"):
        store.load("old")


@pytest.mark.parametrize(("state", "name"), [(State.SUCCESS, "run.json"), (State.RUNNING, "run.journal")])
def test_a_newer_version_is_refused(
    store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, state: State, name: str
) -> None:
    """A file or journal of a newer version is refused with both versions named, left out of the list, and left alone."""
    monkeypatch.setattr(json_store, "VERSION", 999)
    monkeypatch.setattr(f"{file_stem.__module__}.VERSION", 999)
    store.commit(Changes(new_runs=[a_run(state=state)], flush=True))
    store.close()
    monkeypatch.undo()
    files = files_in(folder)
    assert list(files) == [name]
    with JsonStore(folder) as older:
        assert older.list_runs() == []
        assert name in caplog.text
        for use in (lambda: older.load("run"), lambda: older.commit(Changes(runs=[a_run()]))):
            with pytest.raises(StoreVersionError, match=rf"{name} has version 999.*up to 1"):
                use()
    assert files_in(folder) == files


def test_a_damaged_readable_file_is_named(store: JsonStore, folder: Path) -> None:
    """A file of ours that is cut off, or holds a word that no version knows, is damaged: the error names it, nothing is lost."""
    store.commit(Changes(new_runs=[ENDED], tasks=[a_task(0, reason="x")], flush=True))
    path = folder / "run.json"
    text = path.read_text()
    for broken in (
        text[:-5],
        text[: len(text) // 2],
        text.replace('"success"', '"paused"'),
        text.replace('"position"', '"place"'),
        text.replace('"version": 1', '"version": null'),
        text.replace('"state": "scheduled"', '"state": 5'),
    ):
        assert broken != text
        path.write_text(broken)
        with pytest.raises(StoreDamagedError, match=r"run\.json"):
            store.load("run")
        with pytest.raises(StoreDamagedError, match=r"run\.json"):
            store.commit(Changes(new_runs=[a_run()]))
        assert path.read_text() == broken


def test_a_file_is_refused_as_a_folder(tmp_path: Path) -> None:
    """A file where the folder should be is refused by name, with a hint at the store that takes one, and left alone."""
    path = tmp_path / "runs.db"
    path.write_text("a file")
    with pytest.raises(StoreFormatError, match=r"runs\.db.*file.*SQLiteStore"):
        JsonStore(path).open()
    with pytest.raises(StoreError, match=r"runs\.db"):
        JsonStore(path / "inside").open()
    assert path.read_text() == "a file"


# --- names of files ---


def test_every_id_has_a_file_name_of_its_own() -> None:
    """Distinct ids have names that differ on any file system, hold no separator, and are short and plain enough for all."""
    letters = ["a", "A", "b", "/", "\\", ".", " ", "~", "-", "%", "\0", "\n", "é", "e\u0301", "ß", "\u0131", "\ud800", "0"]
    ids = {"".join(word) for length in range(4) for word in product(letters, repeat=length)}
    ids |= {"con", "CON", "nul", "com1", "lpt9", "con.json", "x" * 100, "x" * 101, "x" * 10_000, "X" * 10_000}
    ids |= {file_stem(run_id) for run_id in sorted(ids)[::10]}
    stems = {run_id: file_stem(run_id) for run_id in ids}
    assert len({stem.casefold() for stem in stems.values()}) == len(ids)
    for stem in stems.values():
        assert set(stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-~")
        assert 0 < len(stem) <= 100
        assert stem not in {"con", "prn", "aux", "nul", "com1", "lpt9"}


def test_a_plain_id_is_its_own_file_name() -> None:
    """People find the file of `nightly-2024-01-31` by its name."""
    for run_id in ("nightly-2024-01-31", "a", "7", "under_score", "0190b6a1-7c3e-7d2a-9c1b-3f2e1d0c9b8a"):
        assert file_stem(run_id) == run_id


def test_a_runs_graph_is_written_once_and_read_with_every_later_change(store: JsonStore, folder: Path) -> None:
    """Tasks that change params change the run's row: a large graph in it would be written again for each of them."""
    record = a_run("run", graph='{"a":[]}' + " " * 10_000)
    store.commit(Changes(new_runs=[record]))
    before = (folder / "run.journal").stat().st_size
    for number in range(50):
        record.params = f'{{"n":{number}}}'
        store.commit(Changes(runs=[record]))
    assert (folder / "run.journal").stat().st_size - before < 10_000
    record.graph = '{"b":[]}'
    store.commit(Changes(runs=[record]))
    record.state = ExecutionState.RUNNING
    store.commit(Changes(runs=[record]))
    with JsonStore(folder) as other:
        assert other.read_run("run") == store.read_run("run") == record
