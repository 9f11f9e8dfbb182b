"""What JsonStore promises beyond the contract of stores: its journals, its readable files, their names, and what is not ours."""

from __future__ import annotations

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
    ExecutionState,
    JsonStore,
    State,
    StoreError,
    StoreFormatError,
    StoreVersionError,
    json_format,
    json_journal,
    json_writer,
)
from ..json_format import file_stem
from ..testing.store_contract import a_run, a_task, an_attempt, snapshot
from .json_folders import HookedFiles, files_in, found_in

ENDED = a_run(state=State.SUCCESS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def store(folder: Path) -> Iterator[JsonStore]:
    with JsonStore(folder, files=HookedFiles()) as store:
        yield store


# --- the journal ---


def test_a_commit_is_one_line_of_the_journal(store: JsonStore, folder: Path) -> None:
    """While a run goes on, each commit adds one line: length, CRC32 going on from the last line's, JSON of what was written."""
    store.commit(Changes(new_runs=[a_run("nightly-1")], tasks=[a_task(0, "nightly-1")]))
    store.commit(
        Changes(tasks=[a_task(0, "nightly-1", reason="two\nlines and \u2028")], attempts=[an_attempt(1, 0, "nightly-1")])
    )
    assert list(files_in(folder)) == ["nightly-1.journal"]
    lines = (folder / "nightly-1.journal").read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    entries: list[dict[str, Any]] = []
    before = 0
    for line in lines:
        length, checksum, text = line[:8], line[9:17], line[18:-1]
        assert (int(length, 16), int(checksum, 16)) == (len(text), zlib.crc32(text, before))
        before = int(checksum, 16)
        entries.append(json.loads(text))
    assert (entries[0]["format"], entries[0]["version"], entries[0]["run"][0]) == ("night-batch run", 3, "nightly-1")
    assert set(entries[1]) - {"synced"} == {"tasks", "attempts"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_are_private(store: JsonStore, folder: Path, tmp_path: Path) -> None:
    """Journals, readable files, locks and backups hold people's data or show who works: only the owner may read them."""
    store.commit(Changes(new_runs=[a_run("open"), a_run("ended", state=State.SUCCESS)], flush=True))
    store.claim("open")
    store.backup(tmp_path / "backup")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (*folder.iterdir(), *(tmp_path / "backup").iterdir())}
    assert {"open.journal", "ended.json", ".lock"} < modes.keys()
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name == "nt", reason="making a link needs a privilege on Windows")
@pytest.mark.parametrize("name", ["run.journal", "run.json", "run.json.tmp", ".lock"])
def test_a_symbolic_link_is_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    """A link that somebody has planted under one of our names leads us to no other file: it is an error, or replaced."""
    target = tmp_path / "target"
    target.write_text("precious")
    folder.mkdir()
    (folder / name).symlink_to(target)
    with JsonStore(folder) as store:
        try:
            store.commit(Changes(new_runs=[ENDED], flush=True))
        except StoreError as error:
            assert name in str(error)
        else:
            assert name == "run.json.tmp"
            assert store.list_runs() == ["run"]
    assert target.read_text() == "precious"


@pytest.mark.skipif(os.name == "nt", reason="making a link needs a privilege on Windows")
@pytest.mark.parametrize(("name", "state"), [("run.journal", State.RUNNING), ("run.json", State.SUCCESS)])
def test_not_even_a_link_to_a_file_of_ours(store: JsonStore, folder: Path, tmp_path: Path, name: str, state: State) -> None:
    """Where a link stands in a run's place, the file that it leads to is neither read nor written, though it is the run's."""
    store.commit(Changes(new_runs=[a_run(state=state)], flush=True))
    store.close()
    target = (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(target)
    before = target.read_bytes()
    store.open()
    for use in (lambda: store.read_run("run"), lambda: store.commit(Changes(tasks=[a_task()])), lambda: store.claim("run")):
        with pytest.raises(StoreError, match=name):
            use()
    assert store.list_runs() == []
    assert target.read_bytes() == before


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
    assert (tree["format"], tree["version"]) == ("night-batch run", 3)
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


def test_numbers_survive_tools_that_know_only_floats(store: JsonStore, folder: Path) -> None:
    """Our own numbers in a readable file are small enough for JavaScript and `jq`, which keep 53 bits."""
    store.commit(Changes(new_runs=[ENDED], tasks=[a_task()], flush=True))
    tree = json.loads((folder / "run.json").read_text(), parse_int=float)
    assert int(tree["order"]) == json.loads((folder / "run.json").read_text())["order"]


def test_more_open_runs_than_open_files(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many runs go on at once, only so many journals are open, and no commit to any of them is lost."""
    monkeypatch.setattr(json_writer, "OPEN_JOURNALS", 3)
    names = [f"run{number}" for number in range(10)]
    for number in range(4):
        for run_id in names:
            store.commit(Changes(new_runs=[] if number else [a_run(run_id)], tasks=[a_task(number, run_id)], flush=number == 2))
            assert len(store._writer._journals) <= 3
    store.commit(Changes(tasks=[a_task(4, run_id) for run_id in names]))
    assert len(store._writer._journals) <= 3
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
    monkeypatch.setattr(json_journal, "VERSION", 999)
    monkeypatch.setattr(json_format, "VERSION", 999)
    store.commit(Changes(new_runs=[a_run(state=state)], flush=True))
    store.close()
    monkeypatch.undo()
    files = files_in(folder)
    assert list(files) == [name]
    with JsonStore(folder) as older:
        assert older.list_runs() == []
        assert name in caplog.text
        for use in (lambda: older.load("run"), lambda: older.commit(Changes(runs=[a_run()]))):
            with pytest.raises(StoreVersionError, match=rf"{name} has version 999.*up to 3"):
                use()
    assert files_in(folder) == files


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
