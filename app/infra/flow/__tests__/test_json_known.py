"""What JsonStore keeps in memory of a run that it writes: never believed, always compared with the files; and let go in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from .. import AsyncFlow, AttemptResult, Changes, Context, JsonStore, State, StoreDamagedError, json_reader, json_writer
from ..file_system import FileSystem
from ..json_format import Content, file_stem
from ..json_journal import Journal, parse_journal
from ..json_reader import Reader
from ..testing.store_contract import a_run, a_task, an_attempt, snapshot
from .json_folders import damaged, found_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def store(folder: Path) -> Iterator[JsonStore]:
    with JsonStore(folder, sync_interval=None) as store:
        yield store


def known(store: JsonStore, run_id: str = "run") -> Content | None:
    return store._reader.known(file_stem(run_id))


def read_anew(folder: Path, run_id: str = "run") -> Content:
    """What the files say to one who knows nothing."""
    return Reader(folder, FileSystem(), "store").read(file_stem(run_id))[0]


def refuse_to_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse_nothing(data: bytes, *names: str) -> Journal:
        assert not data
        return parse_journal(data, *names)

    monkeypatch.setattr(json_reader, "parse_journal", parse_nothing)
    monkeypatch.setattr(json_reader, "parse_folded", pytest.fail)


@pytest.mark.parametrize("seed", range(10))
def test_what_is_known_is_what_the_files_say(store: JsonStore, folder: Path, seed: int) -> None:
    random = Random(seed)
    run_ids = ["run", "child", "Other"]
    store.commit(Changes(new_runs=[a_run("run"), a_run("child", parent_run_id="run")]))
    store.commit(Changes(new_runs=[a_run("Other", graph="[1]")]))
    for number in range(30):
        several = random.sample(run_ids, random.choice([1, 1, 2, 3]))
        changes = Changes(flush=random.random() < 0.1)
        for run_id in several:
            changes.tasks += [
                a_task(random.randrange(5), run_id, state=random.choice(list(State)), reason=f"größe {number}") for _ in range(3)
            ]
            if random.random() < 0.3:
                state = random.choice([State.RUNNING, State.SUCCESS])
                changes.runs.append(a_run(run_id, state=state, graph=random.choice(["", "[1]"])))
            if random.random() < 0.3:
                changes.attempts.append(an_attempt(0, number, run_id, result=AttemptResult.FAILED))
        if not store.commit_at_once(changes):
            store.commit(changes)
        if random.random() < 0.1:
            store.release(store.claim(random.choice(run_ids)))
        for run_id in run_ids:
            found = known(store, run_id)
            assert found is None or found == read_anew(folder, run_id)
    assert snapshot(store) == found_in(folder)


async def test_a_run_is_not_read_again_by_who_writes_it(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = AsyncFlow("flow", store)

    @flow.task
    async def first(ctx: Context) -> int:
        return len(store.read_tasks(ctx.run.id))

    @flow.task(depends_on=[first])
    async def second(ctx: Context) -> int:
        return int(ctx.pull("first")) + len(store.list_runs())

    with monkeypatch.context() as patch:
        refuse_to_parse(patch)
        run_id = flow.init_run(run_id="run")
        run = await flow.run_until_complete(run_id)
    assert run.tasks["second"].output == 3
    assert read_anew(folder).folds == 1
    assert store.load("run") == run


async def test_a_run_that_is_gone_on_with_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JsonStore(folder) as store:
        AsyncFlow("flow", store).add_task_definition("only", lambda ctx: 1).init_run(run_id="run")
    read: list[str] = []

    def parse(data: bytes, name: str, store: str) -> Journal:
        read.extend([name] if data else [])
        return parse_journal(data, name, store)

    monkeypatch.setattr(json_reader, "parse_journal", parse)
    with JsonStore(folder) as store:
        run = await AsyncFlow("flow", store).add_task_definition("only", lambda ctx: 1).run_until_complete("run")
        assert run.state is State.SUCCESS
        assert read == ["run.journal"]


def test_what_was_read_last_is_compared_as_well(store: JsonStore, folder: Path) -> None:
    """And kept only while its run may be about to be written."""
    store.commit(Changes(new_runs=[a_run("ended", state=State.SUCCESS), a_run()], tasks=[a_task(0, reason="reason")]))
    store.commit(Changes(runs=[a_run("ended", state=State.SUCCESS)], flush=True))
    sound = (folder / "run.journal").read_bytes()
    with JsonStore(folder) as reader:
        for _ in range(2):
            assert reader.read_tasks("run") == [a_task(0, reason="reason")]
            assert reader._reader._last is not None
            (folder / "run.journal").write_bytes(damaged(sound, sound.index(b"reason") + 2))
            for use in (reader.read_tasks, reader.claim):
                with pytest.raises(StoreDamagedError):
                    use("run")
            (folder / "run.journal").write_bytes(sound)
        store.commit(Changes(tasks=[a_task(1)]))
        assert len(reader.read_tasks("run")) == 2
        reader.commit(Changes(tasks=[a_task(2)]))
        assert reader._reader._last is None
        assert known(reader) == read_anew(folder)
        assert len(store.read_tasks("run")) == 3
        reader.read_run("run")
        reader.read_run("ended")
        assert reader._reader._last is None
    with JsonStore(folder) as reader:
        reader.read_run("run")
    assert reader._reader._last is None


def test_what_is_read_is_the_readers_own(store: JsonStore) -> None:
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task(0)], attempts=[an_attempt(0, 1)]))
    assert known(store) is not None
    before = snapshot(store)
    store.read_run("run").state = State.FAILED
    store.read_runs()[0].state = State.FAILED
    store.read_tasks("run")[0].reason = "changed"
    store.read_attempts("run")[0].reason = "changed"
    assert snapshot(store) == before


def test_what_is_committed_is_as_it_was_then(store: JsonStore) -> None:
    """The engine's own records go on changing."""
    task, run = a_task(0), a_run()
    store.commit(Changes(new_runs=[run], tasks=[task]))
    before = snapshot(store)
    task.reason, run.state = "changed", State.FAILED
    assert known(store) is not None
    assert snapshot(store) == before


@pytest.mark.parametrize("name", ["run.journal", "run.json"])
def test_a_file_that_changes_under_our_hands_is_not_passed_over(store: JsonStore, folder: Path, name: str) -> None:
    """What is known does not hide damage: neither from who reads, nor from a fold, which would write it over."""
    store.commit(Changes(new_runs=[a_run(state=State.SUCCESS)], tasks=[a_task(0, reason="reason")], flush=True))
    store.commit(Changes(tasks=[a_task(0, reason="reason")]))
    store.commit(Changes(runs=[a_run(state=State.SUCCESS)], tasks=[a_task(1)]))
    path = folder / name
    sound = path.read_bytes()
    for _ in range(2):
        assert known(store) is not None
        path.write_bytes(damaged(sound, sound.index(b"reason") + 2))
        assert known(store) is None
        with pytest.raises(StoreDamagedError, match=name):
            store.read_tasks("run")
        path.write_bytes(sound)
    path.write_bytes(damaged(sound, sound.index(b"reason") + 2))
    with pytest.raises(StoreDamagedError, match=name):
        store.commit(Changes(runs=[a_run(state=State.SUCCESS)], flush=True))


def test_what_another_process_writes_is_seen(store: JsonStore, folder: Path) -> None:
    store.commit(Changes(new_runs=[a_run()], tasks=[a_task(0)]))
    with JsonStore(folder) as other:
        other.commit(Changes(tasks=[a_task(1)]))
        assert known(store) is None
        assert [task.position for task in store.read_tasks("run")] == [0, 1]
        store.commit(Changes(tasks=[a_task(2)]))
        assert known(store) == read_anew(folder)
        other.commit(Changes(runs=[a_run(state=State.SUCCESS)], flush=True))
    assert known(store) is None
    assert len(store.read_tasks("run")) == 3


def test_what_nobody_drives_is_let_go(store: JsonStore, folder: Path) -> None:
    """With a lease that is given up goes what was kept of its run and its subflows' runs. Others stay, and all can be read."""
    for changes in (Changes(new_runs=[a_run(), a_run("child", parent_run_id="run")]), Changes(new_runs=[a_run("other")])):
        store.commit(changes)
    for give_up in (store.release, lambda lease: store.commit(Changes(tasks=[a_task(0)], lease=lease, release=True))):
        lease = store.claim("run")
        store.commit(Changes(tasks=[a_task(0, "child")], lease=lease))
        give_up(lease)
        assert known(store) is None
        assert known(store, "other") is not None
        assert snapshot(store) == found_in(folder)
    assert len(store._reader._known) == 1


def test_no_more_is_known_than_journals_are_open(store: JsonStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_writer, "OPEN_JOURNALS", 2)
    for number in range(5):
        store.commit(Changes(new_runs=[a_run(f"run{number}")], tasks=[a_task(0, f"run{number}")]))
        assert set(store._reader._known) == set(store._writer._journals)
        assert len(store._reader._known) <= 2
    assert snapshot(store) == found_in(folder)
    store.close()
    assert not store._reader._known
