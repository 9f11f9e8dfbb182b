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
    Changes,
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


def test_a_kill_between_the_journals_of_one_commit(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in mid-commit over a tree of runs, an inner run may be ahead of the outer one, never the reverse."""
    parents = {"root": None, "child": "root", "inner": "child"}
    runs = [a_run(run_id, parent_run_id=parent) for run_id, parent in parents.items()]
    copies = Copies(folder)
    monkeypatch.setattr(os, "write", copies.before(os.write))
    store.commit(Changes(new_runs=runs))
    store.commit(Changes(runs=[replace(run, state=State.SUCCESS) for run in reversed(runs)]))
    monkeypatch.undo()
    copies.take()
    seen: list[list[str | None]] = []
    for copy in copies.made:
        with JsonStore(copy) as found:
            seen.append([found.read_run(run_id).state.value if found.exists(run_id) else None for run_id in parents])
    new, done = "scheduled", "success"
    assert seen == [
        [None, None, None],
        [None, None, new],
        [None, new, new],
        [new, new, new],
        [new, new, done],
        [new, done, done],
        [done, done, done],
    ]


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
