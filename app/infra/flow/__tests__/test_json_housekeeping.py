"""Looking after a JsonStore's folder: backups, checks, removal of old runs, and what kills leave behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from .. import Changes, JsonStore, State, StoreError
from ..errors import OwnershipLostError, RunOwnedError
from ..testing.store_contract import NOON, a_run, a_task, snapshot
from .json_folders import Copies, HookedFiles, Recorder, RecordingFiles, UnsyncedFiles, fail, files_in, found_in, full_disk, kill
from .power_cuts import cut, lay_out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def files() -> HookedFiles:
    return HookedFiles()


@pytest.fixture
def store(folder: Path, files: HookedFiles) -> Iterator[JsonStore]:
    with JsonStore(folder, files=files, sync_interval=None) as store:
        yield store


def a_tree(store: JsonStore, root: str, state: State = State.SUCCESS, fold: bool = True) -> list[str]:
    """Make a run with two subflow runs, one inside the other, ended; their ids, the outermost first."""
    tree = [root, f"{root}-child", f"{root}-inner"]
    runs = [
        a_run(run_id, parent_run_id=parent, state=state, ended=NOON) for run_id, parent in zip(tree, (None, *tree), strict=False)
    ]
    tasks = [a_task(0, run_id, child_run_id=child) for run_id, child in zip(tree, (*tree[1:], None), strict=True)]
    store.commit(Changes(new_runs=runs, tasks=tasks, flush=fold))
    return tree


# --- backups ---


def test_a_backup_is_a_store_of_its_own(store: JsonStore, folder: Path, tmp_path: Path) -> None:
    """The copy holds all runs, folded or not, as they are at that moment; no locks, no owners; and the original goes on."""
    a_tree(store, "ended")
    store.commit(Changes(new_runs=[a_run("open"), a_run("child", parent_run_id="open")]))
    lease = store.claim("open")
    store.commit(Changes(tasks=[a_task(0, "open"), a_task(0, "child")], lease=lease))
    before = snapshot(store)
    (folder / "ended.json.tmp").write_text("left behind")
    (folder / "folder.json").mkdir()
    store.backup(tmp_path / "copy")
    store.commit(Changes(tasks=[a_task(1, "open")], lease=lease))
    names = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert names == ["child.journal", "ended-child.json", "ended-inner.json", "ended.json", "open.journal"]
    with JsonStore(tmp_path / "copy") as copy:
        assert snapshot(copy) == before
        assert copy.check() == []
        copy.commit(Changes(tasks=[a_task(7, "open")], lease=copy.claim("open")))
    assert [task.position for task in store.read_tasks("open")] == [0, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "runs"]


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_a_backup_writes_over_nothing(store: JsonStore, tmp_path: Path, what: str) -> None:
    """A path where anything exists is refused, and left alone."""
    path = tmp_path / "copy"
    if what == "file":
        path.write_text("precious")
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="copy' exists already"):
        store.backup(path)
    assert sorted(name.name for name in tmp_path.iterdir()) == ["copy", "runs"]


def test_a_backup_that_fails_leaves_nothing(store: JsonStore, files: HookedFiles, tmp_path: Path) -> None:
    """Where the disk fails in any of its steps, or the place is none, nothing is left of the copy."""
    a_tree(store, "ended")
    for hooks in ({"write": full_disk(1)}, {"sync": fail}, {"sync_folder": fail}):
        with files.before(**hooks), pytest.raises(StoreError):
            store.backup(tmp_path / "copy")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    with pytest.raises(StoreError, match="No such file"):
        store.backup(tmp_path / "no" / "such" / "folder")
    store.backup(tmp_path / "copy")
    assert found_in(tmp_path / "copy") == snapshot(store)


def test_a_backup_is_on_the_disk_before_it_has_its_name(store: JsonStore, files: HookedFiles, tmp_path: Path) -> None:
    """After a power cut there is a whole backup or none."""
    a_tree(store, "ended")
    done: list[str] = []
    with files.before(
        sync=lambda descriptor: done.append(files.names[descriptor]),
        sync_folder=lambda folder: done.append(f"names with{'' if (tmp_path / 'copy').exists() else 'out'} copy"),
    ):
        store.backup(tmp_path / "copy")
    assert done == ["ended-child.json", "ended-inner.json", "ended.json", "names without copy", "names with copy"]


# --- checks ---


def test_a_sound_folder_has_no_problems(store: JsonStore) -> None:
    """Runs that are folded, under way, owned, or were cut short are all in order."""
    assert store.check() == []
    a_tree(store, "ended")
    a_tree(store, "open", State.RUNNING, fold=False)
    store.claim("open")
    (store.folder / "empty.journal").touch()
    assert store.check() == []


def test_each_problem_is_a_sentence(store: JsonStore, folder: Path) -> None:
    """Damaged and foreign files, what a kill left behind, and tasks whose subflow's run is not there: all are found."""
    a_tree(store, "sound")
    a_tree(store, "broken")
    a_tree(store, "torn", fold=False)
    store.commit(Changes(new_runs=[a_run("childless")], tasks=[a_task(0, "childless", child_run_id="nobody")]))
    text = (folder / "broken-child.json").read_text()
    (folder / "broken-child.json").write_text(text.replace("nightly", "daily"))
    (folder / "package.json").write_text("{}")
    (folder / "empty.json").touch()
    (folder / "notes.txt").write_text("hello")
    (folder / "sound.json.tmp").write_text("half")
    journal = folder / "torn-inner.journal"
    journal.write_bytes(journal.read_bytes().replace(b"nightly", b"daily"))
    expected = [
        "broken-child.json is damaged",
        "empty.json was not written by this library",
        "notes.txt is no file of this store",
        "package.json was not written by this library",
        "sound.json.tmp was left behind",
        "task 'task0' of run 'childless' has made run 'nobody', which is not there",
        "torn-inner.journal is damaged",
    ]
    found = store.check()
    assert len(found) == len(expected)
    for words in expected:
        assert [problem for problem in found if words in problem and repr(store) in problem], words


# --- leftovers ---


def test_what_a_kill_left_behind_goes_when_the_store_is_opened(store: JsonStore, folder: Path) -> None:
    """Temporary files of ours are removed, unless somebody is just writing them; other people's are not."""
    a_tree(store, "ended")
    for name in ("ended.json.tmp", "other.json.v1.bak.tmp", "notes.tmp"):
        (folder / name).write_text("half")
    with store._writing(), JsonStore(folder) as other:
        assert other.list_runs()
        assert len(files_in(folder)) == 6
    with JsonStore(folder) as other:
        assert other.list_runs()
        assert sorted(files_in(folder)) == ["ended-child.json", "ended-inner.json", "ended.json", "notes.tmp"]


def test_a_fold_clears_its_own_leftover(store: JsonStore, folder: Path) -> None:
    """A temporary file from an earlier fold of the run is in nobody's way."""
    store.commit(Changes(new_runs=[a_run()]))
    (folder / "run.json.tmp").write_text("half")
    store.commit(Changes(runs=[a_run(state=State.SUCCESS)], flush=True))
    assert list(files_in(folder)) == ["run.json"]


# --- removal ---


def test_a_pruned_run_is_gone_with_all_its_files(store: JsonStore, folder: Path) -> None:
    """Whole trees go: folded, not folded, or gone on since; what is under way stays; the ids can be used again."""
    removed = [*a_tree(store, "folded"), *a_tree(store, "unfolded", fold=False)]
    kept = a_tree(store, "open", State.RUNNING)
    removed += a_tree(store, "again")
    store.commit(Changes(tasks=[a_task(1, "again"), a_task(1, "again-child")]))
    (folder / "folded.json.v1.bak").write_text("{}")
    assert sorted(store.prune()) == sorted(removed)
    assert sorted(store.list_runs()) == sorted(kept)
    assert {name.partition(".")[0] for name in files_in(folder)} == set(kept)
    assert store.check() == []
    with pytest.raises(KeyError):
        store.load("folded")
    store.commit(Changes(new_runs=[a_run("folded")]))
    assert store.read_tasks("folded") == []
    assert found_in(folder)["folded"] == (a_run("folded"), [], [])


def test_what_somebody_owns_or_goes_on_with_is_not_removed(store: JsonStore, folder: Path) -> None:
    """A run that another process owns, or a subflow run of which it owns, or has set back, stays."""
    with JsonStore(folder, files=HookedFiles()) as other:
        tree = a_tree(store, "first")
        other.claim("first")
        assert store.prune() == []
        a_tree(store, "second")
        other.claim("second-child")
        assert store.prune() == []
        lease = store.claim("second")
        with pytest.raises(RunOwnedError):
            store._remove(["second", "second-child", "second-inner"], lease)
        store.release(lease)
        third = a_tree(store, "third")
        lease = store.claim("third")
        other.commit(Changes(runs=[a_run("third-inner", parent_run_id="third-child", state=State.RUNNING)]))
        with pytest.raises(RunOwnedError):
            store._remove(third, lease)
        other.claim("third", force=True)
        with pytest.raises(OwnershipLostError):
            store._remove(third, lease)
    assert len(store.list_runs()) == 9
    kept = store.prune(keep=1)
    assert set(tree) <= set(store.list_runs()) | set(kept)


def test_a_kill_while_runs_are_removed(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """Killed at any point of it, each run is whole or gone, no run is without its parent, and pruning again removes the rest."""
    trees = [a_tree(store, "folded"), a_tree(store, "unfolded", fold=False)]
    third = a_tree(store, "again")
    store.commit(Changes(tasks=[a_task(1, run_id) for run_id in third]))
    before = snapshot(store)
    copies = Copies(folder)
    with files.before(open=copies.take, write=copies.take, unlink=copies.take, sync_folder=copies.take, replace=copies.take):
        assert len(store.prune()) == 9
    assert files_in(folder) == {}
    for copy in copies.made:
        found = found_in(copy)
        for tree in (*trees, third):
            there = [run_id for run_id in tree if run_id in found]
            assert there == tree[: len(there)]
            assert [found[run_id][:2] for run_id in there] == [before[run_id][:2] for run_id in there]
        with JsonStore(copy, files=HookedFiles()) as store_of_copy:
            assert sorted(store_of_copy.prune()) == sorted(found["order"])
        assert files_in(copy) == {}


def test_a_power_cut_while_runs_are_removed(folder: Path) -> None:
    """After a power cut at any point of it each run is whole or gone, none is without its parent, and nothing is damaged."""
    folder.mkdir()
    recorder = Recorder(folder)
    with JsonStore(folder, sync_interval=None, files=RecordingFiles(recorder)) as store:
        tree = a_tree(store, "again")
        store.commit(Changes(tasks=[a_task(1, run_id) for run_id in tree], flush=True))
        before, began = snapshot(store), len(recorder.trace)
        assert len(store.prune()) == 3
        ended = len(recorder.trace)
    rng = Random(5)
    gone = 0
    for moment in range(began, ended + 1):
        for _ in range(10):
            lay_out(cut(recorder.trace, moment, rng)[0], folder.with_name("cut"))
            with JsonStore(folder.with_name("cut"), files=UnsyncedFiles()) as store:
                found = snapshot(store)
                assert not [problem for problem in store.check() if "which is not there" not in problem]
            assert sorted(found["order"]) == sorted(tree[: len(found["order"])])
            assert all(found[run_id] == before[run_id] for run_id in found["order"])
            gone += not found["order"]
            assert moment < ended or not found["order"], "it came back"
    assert gone


def test_a_run_that_counts_because_of_one_that_goes(store: JsonStore, folder: Path) -> None:
    """Where one commit made runs that are no kin, and the run that made it count is removed, the others stay."""
    store.commit(Changes(new_runs=[a_run(run_id) for run_id in ("first", "second", "third")]))
    store.commit(Changes(tasks=[a_task(0, run_id) for run_id in ("first", "second", "third")]))
    before = snapshot(store)
    store.commit(Changes(runs=[a_run("third", state=State.SUCCESS, ended=NOON)], flush=True))
    assert store.prune() == ["third"]
    after = found_in(folder)
    assert after["order"] == ["second", "first"]
    assert (after["first"], after["second"]) == (before["first"], before["second"])


def test_a_kill_while_runs_go_that_count_because_of_each_other(store: JsonStore, folder: Path, files: HookedFiles) -> None:
    """Subflow runs that were written by one commit without their parent's are whole or gone as well, whichever goes first."""
    tree = ["root", "first", "second", "third"]
    store.commit(Changes(new_runs=[a_run(run_id, parent_run_id="root" if run_id != "root" else None) for run_id in tree]))
    for number in range(3):
        store.commit(Changes(tasks=[a_task(number, run_id) for run_id in tree[1:]]))
    ended = [
        a_run(run_id, parent_run_id="root" if run_id != "root" else None, state=State.SUCCESS, ended=NOON) for run_id in tree
    ]
    store.commit(Changes(runs=ended))
    before = snapshot(store)
    copies = Copies(folder)
    with files.before(unlink=copies.take, sync_folder=copies.take, replace=copies.take):
        assert len(store.prune()) == 4
    assert len(copies.made) > 8
    for copy in copies.made:
        found = found_in(copy)
        for run_id in found["order"]:
            assert found[run_id] == before[run_id]


def test_what_a_run_counts_by_is_on_the_disk_before_it_is_folded(folder: Path) -> None:
    """A process folds a run of a commit that another one never flushed: a power cut leaves both of the commit's runs, or none."""
    folder.mkdir()
    recorder = Recorder(folder)
    first = JsonStore(folder, sync_interval=None, files=RecordingFiles(recorder))
    first.commit(Changes(new_runs=[a_run("one"), a_run("two", state=State.SUCCESS, ended=NOON)], flush=True))
    first.commit(Changes(tasks=[a_task(0, "one"), a_task(0, "two")]))
    kill(first)
    with JsonStore(folder, sync_interval=None, files=RecordingFiles(recorder)) as second:
        began = len(recorder.trace)
        lease = second.claim("two")
        second._remove(["two"], lease)
    ended = len(recorder.trace)
    rng = Random(3)
    copy = folder.with_name("copy")
    for moment in range(began, ended):
        for _ in range(20):
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            for name, data in cut(recorder.trace, moment, rng)[0].items():
                (copy / name).write_bytes(data)
            found = found_in(copy)
            if "two" in found:
                assert len(found["one"][1]) == len(found["two"][1])


@pytest.mark.parametrize("name", ["a.json", "B.JSON", "c"])
def test_a_folder_inside_is_nobodys_business(store: JsonStore, folder: Path, name: str) -> None:
    """Folders that people make inside are neither read nor removed."""
    (folder / name).mkdir()
    (folder / name / "inside").write_text("precious")
    a_tree(store, "ended")
    assert len(store.prune()) == 3
    assert store.check() == []
    store.backup(folder.with_name("copy"))
    assert (folder / name / "inside").read_text() == "precious"
    assert list(folder.with_name("copy").iterdir()) == []
