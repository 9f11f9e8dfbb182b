"""JsonStore's files, damaged in every way a disk or a person has: told from what a kill leaves, named, and left as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from .. import AttemptResult, Changes, JsonStore, RunNotFoundError, State, StoreDamagedError, StoreError, StoreFormatError
from ..json_journal import SECTOR
from ..testing.store_contract import NOON, a_note, a_run, a_task, an_attempt, snapshot
from .histories import check_history, told
from .json_folders import HookedFiles, damaged, files_in, found_in

ENDED = a_run(state=State.SUCCESS)
SAMPLES, SAMPLES_2 = (Path(__file__).parent / "samples" / version / "json" for version in ("version_1", "version_2"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def store(folder: Path) -> Iterator[JsonStore]:
    with JsonStore(folder, files=HookedFiles(), sync_interval=None) as store:
        yield store


def lines_of(journal: Path) -> list[bytes]:
    return journal.read_bytes().splitlines(keepends=True)


def three_commits(store: JsonStore) -> Path:
    """A run with a journal of three lines, all on the disk as far as anybody knows."""
    for number in range(3):
        changes = Changes(tasks=[a_task(number, reason="x" * 600)])
        if not number:
            changes.new_runs.append(a_run())
        store.commit(changes)
    return store.folder / "run.journal"


def is_refused(folder: Path, name: str) -> None:
    """The file is damaged, says every use of its run; and nothing about it is changed."""
    before = files_in(folder)
    with JsonStore(folder, files=HookedFiles()) as store:
        uses: list[Callable[[], object]] = [
            lambda: store.read_tasks("run"),
            lambda: store.commit(Changes(tasks=[a_task(9)])),
            lambda: store.commit(Changes(new_runs=[a_run()])),
            lambda: store.claim("run"),
        ]
        for use in uses:
            with pytest.raises(StoreDamagedError, match=name):
                use()
        assert [problem for problem in store.check() if name in problem]
    assert files_in(folder) == before


# --- journals ---


def test_a_torn_tail_is_dropped(store: JsonStore, folder: Path, tmp_path: Path) -> None:
    """Cut at any byte of its last line, a journal tells all the lines before, and the next commit goes on from there."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task(0)]))
    before, journal = snapshot(store), folder / "run.journal"
    start = journal.stat().st_size
    store.commit(Changes(tasks=[a_task(0, reason="later" * 100), a_task(1)]))
    data = journal.read_bytes()
    torn = [data[:length] for length in range(start, len(data))]
    zeroed = [data[:length] + bytes(len(data) - length) for length in (start, SECTOR)]
    assert start < SECTOR < len(data)
    copy = tmp_path / "copy"
    copy.mkdir()
    for number, tail in enumerate((*zeroed, *torn)):
        (copy / "run.journal").write_bytes(tail)
        with JsonStore(copy, files=HookedFiles()) as found:
            assert snapshot(found) == before
            assert found.check() == []
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
        with JsonStore(copy, files=HookedFiles()) as found:
            assert found.list_runs() == []
            assert not found.exists("run")
            with pytest.raises(RunNotFoundError):
                found.claim("run")
            if number % 20 < 2:
                found.commit(Changes(new_runs=[a_run(flow_name="again")]))
                assert found.read_run("run").flow_name == "again"
                assert found_in(copy)["order"] == ["run"]


def test_any_changed_byte_is_found(store: JsonStore, folder: Path) -> None:
    """A byte changed anywhere in a journal, its last line too, is an error that names the file, whatever is done with it."""
    store.commit(Changes(new_runs=[a_run()]))
    for number in range(2):
        store.commit(Changes(tasks=[a_task(number)]))
    store.close()
    journal = folder / "run.journal"
    data = journal.read_bytes()
    for at in range(len(data)):
        journal.write_bytes(damaged(data, at))
        if at % 50:
            with JsonStore(folder, files=HookedFiles()) as found, pytest.raises(StoreDamagedError, match=r"run\.journal"):
                found.read_tasks("run")
        else:
            is_refused(folder, "run.journal")


def test_a_changed_byte_in_a_journal_that_goes_on_is_found(store: JsonStore, folder: Path) -> None:
    """So is one in the journal of a run that was folded before, whose first line says that it goes on."""
    store.commit(Changes(new_runs=[ENDED], flush=True))
    for number in range(2):
        store.commit(Changes(tasks=[a_task(number)]))
    store.close()
    journal = folder / "run.journal"
    data = journal.read_bytes()
    for at in range(len(data)):
        journal.write_bytes(damaged(data, at))
        with JsonStore(folder, files=HookedFiles()) as found, pytest.raises(StoreDamagedError, match=r"run\.journal"):
            found.read_tasks("run")


def test_a_changed_byte_in_the_only_line_is_found(store: JsonStore, folder: Path) -> None:
    """A journal of a single line is known for ours wherever it was changed."""
    store.commit(Changes(new_runs=[a_run()]))
    store.close()
    data = (folder / "run.journal").read_bytes()
    for at in range(len(data)):
        (folder / "run.journal").write_bytes(damaged(data, at))
        with JsonStore(folder) as found, pytest.raises(StoreDamagedError, match=r"run\.journal"):
            found.read_tasks("run")


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("the second is missing", lambda lines: [lines[0], lines[2]]),
        ("the second is there twice", lambda lines: [lines[0], lines[1], lines[1], lines[2]]),
        ("the last is there twice", lambda lines: [*lines, lines[2]]),
        ("two are swapped", lambda lines: [lines[0], lines[2], lines[1]]),
        ("the first is missing", lambda lines: lines[1:]),
        ("an empty line", lambda lines: [lines[0], b"\n", *lines[1:]]),
        ("a word at the end", lambda lines: [*lines, b"hello\n"]),
    ],
)
def test_lines_out_of_place_are_found(
    store: JsonStore, folder: Path, what: str, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    """Whole lines that are missing, repeated or swapped are damage, though each is as it was written."""
    journal = three_commits(store)
    store.close()
    journal.write_bytes(b"".join(change(lines_of(journal))))
    is_refused(folder, "run.journal")


def test_a_line_of_another_journal_is_found(store: JsonStore, folder: Path) -> None:
    """The end of one run's journal behind the beginning of another's does not pass for its own."""
    journal = three_commits(store)
    store.commit(Changes(new_runs=[a_run("other")], tasks=[a_task(0, "other", reason="x" * 600)]))
    store.commit(Changes(tasks=[a_task(1, "other")]))
    store.close()
    journal.write_bytes(b"".join([*lines_of(journal)[:2], lines_of(folder / "other.journal")[1]]))
    is_refused(folder, "run.journal")


def test_sectors_that_never_reached_the_disk_are_no_damage(store: JsonStore, folder: Path) -> None:
    """Whatever sectors of lines that nobody has flushed are lost, the store opens with the lines before."""
    journal = three_commits(store)
    store.close()
    data, lines = journal.read_bytes(), lines_of(journal)
    ends = [sum(map(len, lines[: number + 1])) for number in range(3)]
    rng = Random(7)
    for _ in range(200):
        kept = bytearray(data)
        lost = sorted(start for start in range(0, len(data), SECTOR) if rng.random() < 0.3)
        for start in lost:
            kept[start : start + SECTOR] = bytes(len(kept[start : start + SECTOR]))
        journal.write_bytes(kept)
        whole = sum(not lost or end <= lost[0] for end in ends)
        with JsonStore(folder, files=HookedFiles()) as found:
            if whole:
                assert len(found.read_tasks("run")) == whole
            else:
                assert not found.exists("run")


def test_a_lost_sector_in_what_was_flushed_is_damage(folder: Path) -> None:
    """A sector of NULs was not torn if a line behind it says that all before was on the disk."""
    with JsonStore(folder, sync_interval=0, files=HookedFiles()) as store:
        journal = three_commits(store)
    data, lines = journal.read_bytes(), lines_of(journal)
    for start in range(0, len(lines[0]) + len(lines[1]) - SECTOR, SECTOR):
        journal.write_bytes(data[:start] + bytes(SECTOR) + data[start + SECTOR :])
        is_refused(folder, "run.journal")


@pytest.mark.parametrize("length", [1, 100, 511])
def test_nuls_that_are_no_sector_are_damage(store: JsonStore, folder: Path, length: int) -> None:
    """A few NULs in the middle of the last line are not what a power cut leaves."""
    journal = three_commits(store)
    store.commit(Changes(tasks=[a_task(3, reason="x" * 1500)]))
    store.close()
    data = journal.read_bytes()
    place = (len(data) // SECTOR - 1) * SECTOR - 600
    assert place > len(data) - len(lines_of(journal)[3]) + 20
    journal.write_bytes(data[:place] + bytes(length) + data[place + length :])
    with JsonStore(folder) as found, pytest.raises(StoreDamagedError, match=r"run\.journal"):
        found.read_tasks("run")


def test_a_damaged_run_hides_no_other(store: JsonStore, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The list of runs leaves out what cannot be read, with a warning that names the file, and shows the rest."""
    for run_id in ("good", "broken", "ended"):
        store.commit(Changes(new_runs=[a_run(run_id, state=State.SUCCESS if run_id == "ended" else State.RUNNING)], flush=True))
        store.commit(Changes(tasks=[a_task(0, run_id)]))
    store.close()
    broken = folder / "broken.journal"
    broken.write_bytes(damaged(broken.read_bytes(), 40))
    store.open()
    assert store.list_runs() == ["ended", "good"]
    assert "broken.journal" in caplog.text
    store.commit(Changes(runs=[a_run("good", state=State.SUCCESS)], flush=True))
    assert [problem.count("broken.journal") for problem in store.check()] == [1]


def test_a_damaged_run_keeps_nobody_from_folding(store: JsonStore, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run whose journal was damaged under our hands is told to whoever ends it; the flushes of others go on."""
    store.commit(Changes(new_runs=[a_run("broken"), a_run("good")]))
    store.commit(Changes(tasks=[a_task(0, "broken")]))
    journal = folder / "broken.journal"
    journal.write_bytes(damaged(journal.read_bytes(), 40))
    store.commit(Changes(runs=[a_run("broken", state=State.SUCCESS)]))
    store.commit(Changes(runs=[a_run("good", state=State.SUCCESS)], flush=True))
    assert sorted(files_in(folder)) == ["broken.journal", "good.json"]
    assert "not folded" in caplog.text
    store.commit(Changes(runs=[a_run("good")]))
    with pytest.raises(StoreDamagedError, match=r"broken\.journal"):
        store.commit(Changes(runs=[a_run("broken", state=State.FAILED)], flush=True))


def test_a_parent_that_is_damaged_hides_children_only_where_it_must(store: JsonStore, folder: Path) -> None:
    """Of a damaged journal, the lines before the damage still tell which commits of subflow runs have come to their end."""
    store.commit(Changes(new_runs=[a_run("root")]))
    for name in ("first", "second"):
        store.commit(Changes(new_runs=[a_run(name, parent_run_id="root")], tasks=[a_task(0, "root", child_run_id=name)]))
    journal = folder / "root.journal"
    store.close()
    journal.write_bytes(damaged(journal.read_bytes(), len(b"".join(lines_of(journal)[:2])) + 30))
    with JsonStore(folder) as found:
        assert found.list_runs() == ["first"]
        with pytest.raises(StoreDamagedError, match=r"root\.journal"):
            found.load("second")


# --- readable files ---


def test_any_changed_value_of_a_readable_file_is_found(store: JsonStore, folder: Path) -> None:
    """A byte changed anywhere in a readable file is found when it is read, unless it means the same; and nothing is mended."""
    store.commit(
        Changes(new_runs=[ENDED], tasks=[a_task(0, reason="grün", output="[1.5,2]")], attempts=[an_attempt(1)], flush=True)
    )
    before, path = snapshot(store), folder / "run.json"
    store.close()
    data = path.read_bytes()
    harmless = 0
    for at in range(len(data)):
        for bit in (1, 32):
            path.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
            with JsonStore(folder) as found:
                try:
                    assert snapshot(found)["run"] == before["run"]
                    assert json.loads(path.read_bytes()) == json.loads(data)
                    harmless += 1
                except KeyError:  # not even listed
                    with pytest.raises(StoreError, match=r"run\.json"):
                        found.load("run")
                except StoreError as error:
                    assert "run.json" in str(error)
    assert harmless < 30


def test_a_list_of_runs_relies_on_nothing_unchecked(store: JsonStore, folder: Path) -> None:
    """The first two lines, which a list is made from, have a checksum of their own; the rest is not looked at for it."""
    store.commit(Changes(new_runs=[ENDED], tasks=[a_task(0, reason="old")], flush=True))
    store.close()
    path = folder / "run.json"
    text = path.read_text()
    path.write_text(text.replace('"flow_name": "nightly"', '"flow_name": "daily"'))
    with JsonStore(folder) as found:
        assert found.list_runs() == []
    path.write_text(text.replace('"reason": "old"', '"reason": "new"'))
    with JsonStore(folder) as found:
        assert found.list_runs() == ["run"]
        with pytest.raises(StoreDamagedError, match="a value in it was changed"):
            found.read_tasks("run")
        with pytest.raises(StoreDamagedError):
            found.read_run("run")


@pytest.mark.parametrize("name", ["checksums", "folds", "order", "run", "tasks"])
def test_nothing_of_a_readable_file_may_be_missing(store: JsonStore, folder: Path, name: str) -> None:
    """A file of ours without its checksums, or without anything else that belongs into it, is damaged."""
    store.commit(Changes(new_runs=[ENDED], tasks=[a_task()], flush=True))
    store.close()
    tree = json.loads((folder / "run.json").read_text())
    del tree[name]
    (folder / "run.json").write_text(json.dumps(tree))
    is_refused(folder, "run.json")


def test_a_damaged_readable_file_is_named(store: JsonStore, folder: Path) -> None:
    """A file of ours that is cut off, all NULs, or holds a word that no version knows, is damaged: the error names it."""
    store.commit(Changes(new_runs=[ENDED], tasks=[a_task(0, reason="x")], flush=True))
    store.close()
    path = folder / "run.json"
    text = path.read_text()
    for broken in (
        text[:-5],
        text[: len(text) // 2],
        "\0" * len(text),
        text.replace('"success"', '"paused"'),
        text.replace('"position"', '"place"'),
        text.replace('"version": 3', '"version": null'),
        text.replace('"state": "scheduled"', '"state": 5'),
    ):
        assert broken != text
        path.write_text(broken)
        is_refused(folder, "run.json")


def test_a_journal_whose_readable_file_is_missing_or_older(store: JsonStore, folder: Path) -> None:
    """A journal goes on from one state of the readable file and no other: half of a run does not pass for the whole of it."""
    store.commit(Changes(new_runs=[ENDED], tasks=[a_task(0)], flush=True))
    older = (folder / "run.json").read_bytes()
    store.commit(Changes(runs=[a_run(state=State.RUNNING)], tasks=[a_task(1)]))
    store.commit(Changes(runs=[ENDED], flush=True))
    store.commit(Changes(runs=[a_run(state=State.RUNNING)], tasks=[a_task(2)]))
    store.close()
    (folder / "run.json").write_bytes(older)
    is_refused(folder, "run.journal")
    (folder / "run.json").unlink()
    is_refused(folder, "run.journal")


def test_a_journal_that_was_folded_and_came_back(store: JsonStore, folder: Path) -> None:
    """Where a kill or a power cut brings back a journal that was folded, in whole or in part, the readable file stands."""
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task(0, reason="old")]))
    store.commit(Changes(tasks=[a_task(0, reason="new")]))
    lines = lines_of(folder / "run.journal")
    store.commit(Changes(runs=[ENDED], flush=True))
    store.close()
    expected = found_in(folder)
    for left in (lines, lines[:1], [lines[0], lines[1][:50]], [lines[0], bytes(len(lines[1]))]):
        (folder / "run.journal").write_bytes(b"".join(left))
        assert found_in(folder) == expected
        with JsonStore(folder, files=HookedFiles()) as found:
            found.commit(Changes(tasks=[a_task(1)]))
            assert [task.reason for task in found.read_tasks("run")] == ["new", None]
            found.commit(Changes(runs=[ENDED], tasks=[a_task(1)], flush=True))
        (folder / "run.journal").write_bytes(b"".join(left))
        assert [task.reason for task in found_in(folder)["run"][1]] == ["new", None]
        (folder / "run.journal").unlink()
        shutil.rmtree(folder)
        with JsonStore(folder, files=HookedFiles()) as again:
            again.commit(Changes(new_runs=[ENDED], tasks=[a_task(0, reason="new")], flush=True))
        expected = found_in(folder)


# --- version 1 ---


@pytest.fixture
def version_1(folder: Path) -> Path:
    """A folder as version 1 left it: a finished run and a failed one with a subflow run each, and one that was killed."""
    shutil.copytree(SAMPLES, folder)
    return folder


def outline(store: JsonStore, run_id: str) -> dict[str, Any]:
    run = store.load(run_id)
    return {task.task_id: (task.state.value, task.try_number, task.output_json) for task in run.tasks.values()}


def test_every_value_of_version_1_is_read(version_1: Path) -> None:
    """Runs of version 1 are listed and read, folded ones and journals, with all that they hold."""
    with JsonStore(version_1) as store:
        assert store.check() == []
        assert len(store.list_runs()) == 6
        outer = ([1, 2, 3], {1, 2})
        for run_id, state in (("finished", "success"), ("failed", "failed"), ("unfinished", "running")):
            run = store.load(run_id)
            (child_id,) = store.list_children(run_id)
            assert (run.flow_name, run.state.value, run.params["seen"]) == ("sample", state, ("é", 1))
            assert outline(store, child_id) == {"leaf": ("success", 0, outer)}
            tasks = outline(store, run_id)
            assert tasks["extract"] == ("success", 0, [1, 2, 3])
            assert tasks["sub"] == ("success", 0, {"child_run_id": child_id, "result": outer})
            assert tasks["shaky"][:2] == ("success", 1)
            first, second = store.list_attempts(run_id, "shaky")
            assert (first.result, first.reason) == (AttemptResult.FAILED, "ValueError: first")
            assert (second.result, second.number) == (AttemptResult.SUCCESS, 2)
            assert [entry.message for entry in run.tasks["extract"].logs] == ["extracting"]
            assert [task.crashes for task in store.read_tasks(run_id)] == [0] * 5
        assert outline(store, "failed")["last"][0] == "failed"
        assert "RuntimeError: boom" in (store.load("failed").tasks["last"].error or "")
        assert outline(store, "failed")["end"][0] == "skipped"
        assert [task.started is not None for task in store.read_tasks("unfinished")] == [True, True, True, True, False]
    assert files_in(version_1) == {path.name: path.read_bytes() for path in SAMPLES.iterdir()}


def test_version_1_goes_on(version_1: Path) -> None:
    """A run of version 1 that goes on is written in the present one; copies of its files stay, and nothing is lost."""
    with JsonStore(version_1) as store:
        before = snapshot(store)
        for run_id in ("unfinished", "failed"):
            lease = store.claim(run_id)
            store.commit(Changes(tasks=[a_task(9, run_id)], lease=lease))
            assert store.read_tasks(run_id) == [*before[run_id][1], a_task(9, run_id)]
        names = files_in(version_1)
        assert names["unfinished.journal.v1.bak"] == (SAMPLES / "unfinished.journal").read_bytes()
        assert json.loads(names["unfinished.json"])["version"] == 3
        assert names["failed.json"] == (SAMPLES / "failed.json").read_bytes()
        run = store.read_run("failed")
        lease = store.claim("failed", force=True)
        store.commit(Changes(runs=[run], lease=lease, flush=True, release=True))
    names = files_in(version_1)
    assert names["failed.json.v1.bak"] == (SAMPLES / "failed.json").read_bytes()
    assert json.loads(names["failed.json"])["version"] == 3
    after = found_in(version_1)
    for run_id, (run, tasks, attempts) in ((run_id, row) for run_id, row in before.items() if run_id != "order"):
        added = [a_task(9, run_id)] if run_id in ("unfinished", "failed") else []
        assert after[run_id] == (run, [*tasks, *added], attempts)
    assert after["order"] == before["order"]


def test_a_kill_while_version_1_is_brought_up(version_1: Path, tmp_path: Path) -> None:
    """Killed at any point of it, a run of version 1 reads as before, and is brought up by the next one."""
    files = HookedFiles()
    copies: list[Path] = []

    def take(*arguments: Any) -> None:
        copies.append(tmp_path / f"copy{len(copies)}")
        shutil.copytree(version_1, copies[-1], ignore=shutil.ignore_patterns(".*"))

    with JsonStore(version_1, files=files, sync_interval=None) as store:
        before = snapshot(store)
        with files.before(open=take, write=take, sync=take, sync_folder=take, replace=take, unlink=take):
            store.commit(Changes(tasks=[a_task(9, "unfinished")]))
    assert len(copies) > 8
    for copy in copies:
        assert found_in(copy) == before
        with JsonStore(copy, files=HookedFiles()) as found:
            found.commit(Changes(tasks=[a_task(9, "unfinished")]))
        assert found_in(copy)["unfinished"][1] == [*before["unfinished"][1], a_task(9, "unfinished")]
        assert (copy / "unfinished.journal.v1.bak").read_bytes() == (SAMPLES / "unfinished.journal").read_bytes()


def test_an_older_copy_of_version_1_is_the_better_one(version_1: Path) -> None:
    """A copy that is there already is not written over."""
    (version_1 / "unfinished.journal.v1.bak").write_text("an earlier one")
    with JsonStore(version_1) as store:
        store.commit(Changes(tasks=[a_task(9, "unfinished")]))
    assert (version_1 / "unfinished.journal.v1.bak").read_text() == "an earlier one"


def test_damage_of_version_1_is_found_as_version_1_did(version_1: Path) -> None:
    """A changed byte in a journal of version 1 is found, in its last line too; a torn tail is dropped."""
    journal = version_1 / "unfinished.journal"
    data = journal.read_bytes()
    for at in range(0, len(data), 7):
        journal.write_bytes(damaged(data, at))
        with JsonStore(version_1) as store, pytest.raises(StoreError, match=r"unfinished\.journal"):
            store.load("unfinished")
    lines = data.splitlines(keepends=True)
    journal.write_bytes(data[:-10])
    with JsonStore(version_1) as store:
        assert len(store.read_tasks("unfinished")) == 5
    hole = len(lines[0]) // SECTOR * SECTOR + SECTOR
    journal.write_bytes(data[:hole] + bytes(SECTOR) + data[hole + SECTOR :])
    with JsonStore(version_1) as store, pytest.raises(StoreDamagedError):
        store.load("unfinished")


# --- version 2 ---


@pytest.fixture
def version_2(folder: Path) -> Path:
    """A folder as version 2 left it: it kept no notes. `retried` was set back, `continued` cut off, both by other processes."""
    shutil.copytree(SAMPLES_2, folder)
    return folder


def test_every_value_of_version_2_is_read(version_2: Path) -> None:
    """Its runs are listed and read, folded ones and journals, with what they tell of their past; not a byte changes by that."""
    with JsonStore(version_2) as store:
        assert store.check() == []
        assert len(store.list_runs()) == 10
        for run_id in store.list_runs():
            assert store.read_notes(run_id) == []
            check_history(store, run_id)
            assert {attempt.worker for attempt in store.list_attempts(run_id)} == {None}
        assert told(store, "retried", "last") == [
            "last scheduled>running 1",
            "last running>failed 1",
            "last failed>scheduled 1",
            "last scheduled>running 2",
            "last running>success 2",
        ]
        assert told(store, "continued", "last")[1:3] == ["last running>scheduled 1", "last scheduled>running 2"]
    assert files_in(version_2) == {path.name: path.read_bytes() for path in SAMPLES_2.iterdir()}


def test_version_2_goes_on(version_2: Path, tmp_path: Path) -> None:
    """A run of version 2 that goes on is written in the present one; copies of its files stay, and nothing is lost."""
    before = found_in(version_2)
    with JsonStore(version_2) as store:
        for run_id in ("unfinished", "failed"):
            lease = store.claim(run_id)
            store.commit(Changes(notes=[a_note(run_id=run_id)], lease=lease, release=run_id == "unfinished"))
        run = store.read_run("failed")
        store.commit(Changes(runs=[run], lease=lease, flush=True, release=True))
        store.backup(tmp_path / "copy")
    names = files_in(version_2)
    assert names["unfinished.journal.v2.bak"] == (SAMPLES_2 / "unfinished.journal").read_bytes()
    assert names["failed.json.v2.bak"] == (SAMPLES_2 / "failed.json").read_bytes()
    assert "unfinished.json.v2.bak" not in names
    assert {json.loads(names[name])["version"] for name in ("unfinished.json", "failed.json")} == {3}
    assert json.loads(names["finished.json"])["version"] == 2
    expected = {**before, "notes": {run_id: [a_note(run_id=run_id)] for run_id in ("failed", "unfinished")}}
    assert found_in(version_2) == found_in(tmp_path / "copy") == expected
    with JsonStore(version_2) as store:
        assert store.check() == []
        assert "failed" in store.prune()
    assert not [name for name in files_in(version_2) if name.startswith("failed")]


def test_a_file_that_says_another_version_than_its_own_is_damaged(store: JsonStore, folder: Path) -> None:
    """The version is summed up with the rest: a 3 that became a 2 does not take the notes away."""
    store.commit(Changes(new_runs=[ENDED], notes=[a_note()], flush=True))
    store.close()
    path = folder / "run.json"
    text = path.read_text()
    for version in (1, 2):
        path.write_text(text.replace('"version": 3', f'"version": {version}'))
        is_refused(folder, "run.json")


def test_a_note_that_was_changed_added_or_taken_out_is_found(store: JsonStore, folder: Path) -> None:
    """In the readable file, as in the journal."""
    store.commit(Changes(new_runs=[ENDED], notes=[a_note(by="somebody"), a_note(at=NOON + 1)], flush=True))
    store.close()
    path = folder / "run.json"
    tree = json.loads(path.read_text())
    notes: list[dict[str, Any]] = tree["notes"]
    edits: list[list[dict[str, Any]]] = [[], notes[:1], [*notes, notes[0]], notes[::-1], [{**notes[0], "by": "no"}, notes[1]]]
    for changed in (*edits, [{}]):
        path.write_text(json.dumps({**tree, "notes": changed}))
        is_refused(folder, "run.json")


def test_a_foreign_journal_of_nuls_and_more(folder: Path) -> None:
    """What begins like no journal is not taken for a torn one, wherever it has NULs."""
    folder.mkdir()
    (folder / "run.journal").write_bytes(b"SQLite format 3\0" + bytes(SECTOR * 2))
    with JsonStore(folder) as store:
        with pytest.raises(StoreFormatError, match=r"run\.journal"):
            store.commit(Changes(new_runs=[a_run()]))
    assert (folder / "run.journal").read_bytes().startswith(b"SQLite")
