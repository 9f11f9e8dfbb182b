"""The commands that look: `list`, `show`, `explain` and `stats`, on stores as they are."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, Context, ExecutionState, JsonStore, SQLiteStore, Store, WorkflowRun
from ..tools.cli import main
from ..tools.durations import flow_statistics, samples_of, task_statistics
from ..tools.listing_runs import Listed, chosen_runs, moment_ago, rough, run_lines
from ..tools.statistics import flow_lines
from .conftest import FakeClock
from .test_durations import finished, record
from .test_trees import COLOURED, PLAIN, Stream, shop

Told = Callable[..., str]


@pytest.fixture(params=["sqlite", "json"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a store lies, of either kind."""
    return tmp_path / ("runs.db" if request.param == "sqlite" else "runs")


def opened(place: Path) -> Store:
    return SQLiteStore(place) if place.suffix else JsonStore(place)


@pytest.fixture
def told(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Told:
    """Calls a command for the store; gives what it said on stdout."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*words: str, code: int = 0, err: str = "") -> str:
        capsys.readouterr()
        assert main([*words, "--store", str(place)]) == code
        said = capsys.readouterr()
        assert re.fullmatch(err, said.err.strip(), re.DOTALL), said.err
        return said.out

    return call


async def some_runs(place: Path) -> None:
    """Runs of two flows: a, b and c succeeded, d failed, e is not begun, f was cancelled; f is the newest."""
    clock = FakeClock()
    inner = AsyncFlow("inner")
    inner.add_task_definition("leaf", lambda _: 1)
    with opened(place) as store:

        def flow(name: str) -> AsyncFlow:
            made = AsyncFlow(name, store, clock=clock)

            @made.task
            def load(ctx: Context) -> None:
                clock.pass_time(1.5)
                if ctx.params.get("fails"):
                    raise ValueError("no")

            made.add_subflow_definition("in", inner)
            return made

        for run_id, name in {"a": "shop", "b": "shop", "c": "other", "d": "shop", "e": "shop", "f": "other"}.items():
            clock.pass_time(3600)
            flow(name).init_run({"fails": run_id == "d", "api_key": "hunter2"}, run_id=f"run-{run_id}")
            if run_id in "abcd":
                await flow(name).run_until_complete(f"run-{run_id}")
            elif run_id == "f":
                flow(name).cancel("run-f")


def ids(text: str) -> list[str]:
    """The ids in a list of runs."""
    return [line.split()[1] for line in text.splitlines()[1:]]


# --- list ---


async def test_runs_are_listed_newest_first(place: Path, told: Told) -> None:
    """Those of subflows only if they are asked for; each with its flow, its state, when it was made and how long it took."""
    await some_runs(place)
    lines = told("list").splitlines()
    assert ids("\n".join(lines)) == ["run-f", "run-e", "run-d", "run-c", "run-b", "run-a"]
    assert re.fullmatch(r"✗ run-d  shop   failed     2023-11-15 02:13:\d\d UTC  [\d,]+ d ago  +1\.5 s", lines[3])
    assert len(ids(told("list", "--all"))) > 6
    assert ids(told("list", "--limit", "2")) == ["run-f", "run-e"]
    assert len(ids(told("list", "--limit", "0"))) == 6


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--flow", "other"], "fc"),
        (["--state", "success"], "cba"),
        (["--state", "failed", "--state", "scheduled"], "ed"),
        (["--flow", "shop", "--state", "success"], "ba"),
        (["--older-than", "1d"], "fedcba"),
    ],
)
async def test_runs_are_chosen_by_flow_state_and_age(place: Path, told: Told, options: list[str], found: str) -> None:
    """All filters together."""
    await some_runs(place)
    assert ids(told("list", *options)) == [f"run-{letter}" for letter in found]


async def test_that_there_is_no_such_run_is_no_failure(place: Path, told: Told) -> None:
    """It is said on stderr; a pipe gets nothing, or an empty list."""
    await some_runs(place)
    assert told("list", "--newer-than", "1d", err="There are no such runs in .*") == ""
    assert told("list", "--flow", "nope", err="There are no such runs in .*") == ""
    assert json.loads(told("list", "--flow", "nope", "--json")) == []


async def test_the_list_as_json_has_what_a_script_needs(place: Path, told: Told) -> None:
    """Moments with their time zone, seconds, and params without secrets."""
    await some_runs(place)
    found = json.loads(told("list", "--json"))
    assert [one["run_id"] for one in found] == ["run-f", "run-e", "run-d", "run-c", "run-b", "run-a"]
    failed = found[2]
    assert (failed["state"], failed["flow_name"], failed["interrupted"]) == ("failed", "shop", False)
    assert failed["params"] == {"fails": True, "api_key": "***"}
    assert failed["seconds"] == pytest.approx(1.5, abs=0.1)
    assert datetime.fromisoformat(failed["created_at"]).tzinfo is not None
    assert found[1]["start_date"] is None


async def test_by_age_runs_are_found_though_many_of_subflows_are_in_between(store: Store, clock: FakeClock) -> None:
    """A store tells runs with those of subflows among them, and only by flow and state; no more are read than must be."""
    flow = AsyncFlow("shop", store, clock=clock)
    inner = AsyncFlow("inner")
    inner.add_task_definition("leaf", lambda _: 1)
    for number in range(20):
        flow.add_subflow_definition(f"in{number}", inner)
    for number in range(6):
        clock.pass_time(1000)
        flow.init_run({}, run_id=f"r{number}")
        await flow.run_until_complete(f"r{number}")
    made = [one.created for one in chosen_runs(store)]
    assert [one.run.id for one in chosen_runs(store, limit=3)] == ["r5", "r4", "r3"]
    assert [one.run.id for one in chosen_runs(store, since=made[2], limit=5)] == ["r5", "r4", "r3"]
    assert [one.run.id for one in chosen_runs(store, until=made[2], limit=2)] == ["r2", "r1"]
    assert [one.run.id for one in chosen_runs(store, since=made[4], until=made[1], limit=None)] == ["r3", "r2", "r1"]
    assert len(chosen_runs(store, subflows_too=True, limit=None)) == 6 * 21


def test_a_run_that_nobody_drives_is_called_interrupted() -> None:
    """Its state says that it runs; who drives it is known by its lease."""
    run = WorkflowRun("x", "shop", state=ExecutionState.RUNNING)
    now = datetime(2026, 3, 1, tzinfo=timezone.utc)
    assert Listed(run, now, None).state == "interrupted"
    assert Listed(run, now, "process 1 on host").state == "running"
    assert Listed(WorkflowRun("x", "shop"), now, None).state == "scheduled"
    assert Listed(WorkflowRun("x", "shop", start_date=now), now, None).state == "interrupted"
    assert Listed(WorkflowRun("x", "shop", start_date=now), now, "process 1 on host").state == "scheduled"
    assert Listed(WorkflowRun("x", "shop", state=ExecutionState.FAILED, start_date=now), now, None).state == "failed"


def test_the_list_is_as_wide_as_the_terminal_and_leaves_ids_whole() -> None:
    """On a narrow one the age says enough, and names of flows are cut; ids are what people copy."""
    now = datetime(2026, 3, 1, tzinfo=timezone.utc)
    found = [Listed(WorkflowRun("i" * 32, "flow" * 10), now - timedelta(days=3), None)]
    wide, narrow = (run_lines(found, PLAIN, columns, now) for columns in (200, 80))
    assert wide[1] == f"· {'i' * 32}  {'flow' * 10}  scheduled  2026-02-26 00:00:00 UTC  3 d ago"
    assert narrow[1].startswith(f"· {'i' * 32}  flow")
    assert narrow[1].endswith("…  scheduled  3 d ago")
    assert max(map(len, narrow)) <= 80
    tiny = run_lines(found, PLAIN, 20, now)
    assert "i" * 32 in tiny[1]
    coloured = run_lines(found, COLOURED, 80, now)
    assert [re.sub("\x1b\\[[0-9;]*m", "", line) for line in coloured] == narrow


def test_what_names_hold_cannot_steer_a_terminal() -> None:
    """Runs that people wrote into a store by hand have what names they gave them."""
    now = datetime(2026, 3, 1, tzinfo=timezone.utc)
    lines = run_lines([Listed(WorkflowRun("\x1b[2J", "\u202e\n"), now, None)], PLAIN, 80, now)
    assert all(line.isprintable() for line in lines)
    assert r"\x1b[2J" in lines[1]


def test_ages_are_told_by_their_largest_unit() -> None:
    """And those before the beginning of time are that."""
    assert [rough(seconds) for seconds in (0, 59.9, 60, 3600, 86400, 2 * 86400, 1e9)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h",
        "24 h",
        "2 d",
        "11,574 d",
    ]
    now = datetime(2026, 3, 1, tzinfo=timezone.utc)
    assert moment_ago(now, 60) == now - timedelta(minutes=1)
    assert moment_ago(now, 1e11).year == 1


# --- show ---


async def test_a_run_is_shown_with_its_params_and_tracebacks(place: Path, told: Told) -> None:
    """By its id, its beginning, or as the latest; secrets among the params are masked."""
    with opened(place) as store:
        await shop(store, FakeClock())
    shown = told("show", "monday")
    assert told("show", "mond") == told("show", "latest") == told("show") == shown
    lines = shown.splitlines()
    assert lines[0].startswith("✗ nightly  monday  failed  7.25 s")
    assert lines[1] == '  params: day="monday"'
    assert any(line.endswith('raise ValueError(f"bad row {item}\\nand more")') for line in lines)
    assert not any("returned" in line or "asking" in line for line in lines)
    assert any("asking the bank" in line for line in told("show", "--logs").splitlines())
    assert any("returned [1, 2, 3]" in line for line in told("show", "--values").splitlines())
    assert any("2 more items" in line for line in told("show", "--items", "1").splitlines())
    assert not any("complete" in line for line in told("show", "--depth", "0").splitlines())


async def test_a_run_as_json_has_its_tasks_attempts_and_subflows(place: Path, told: Told) -> None:
    """Nested as they are, by the names that the details of a run have in code; to the depth that is asked for."""
    with opened(place) as store:
        flow = await shop(store, FakeClock())
        details = flow.get_execution_details("monday")
    shown = json.loads(told("show", "monday", "--json"))
    assert shown["state"] == "failed"
    assert list(shown["tasks"]) == list(details["tasks"])
    for task_id, task in shown["tasks"].items():
        known = details["tasks"][task_id]
        for key in ("state", "reason", "try_number", "output", "item_of", "map_over", "depends_on", "child_run_id", "end_date"):
            assert task[key] == known[key], (task_id, key)
        assert [attempt["result"] for attempt in task["attempts"]] == [attempt["result"] for attempt in known["attempts"]]
    assert shown["tasks"]["checks"]["subflow"]["tasks"]["complete"]["state"] == "success"
    assert shown["tasks"]["checks"]["subflow"]["parent_task_id"] == "checks"
    assert "subflow" not in json.loads(told("show", "--json", "--depth", "0"))["tasks"]["checks"]


async def test_a_subflow_s_run_says_what_it_is_part_of(place: Path, told: Told) -> None:
    """It is a run as any other, and has an id."""
    with opened(place) as store:
        await shop(store, FakeClock())
        child = store.load("monday").tasks["checks"].child_run_id
    assert child is not None
    assert told("show", child).splitlines()[1] == "  the inside of task checks of run monday"


async def test_a_run_that_was_cut_off_says_so(place: Path, told: Told) -> None:
    """Nobody drives it; what seems to run was interrupted."""
    with opened(place) as store:
        flow = AsyncFlow("cut", store)
        flow.add_task_definition("a", lambda _: 1)
        run = flow.init_run({}, run_id="cut-off")
        loaded = store.load(run)
        loaded.state = ExecutionState.RUNNING
        task = loaded.tasks["a"]
        task.state = ExecutionState.RUNNING
        task.start_date = loaded.start_date = datetime(2026, 3, 1, tzinfo=timezone.utc)
        loaded.tasks = {"a": task}
        store.save(loaded)
    lines = told("show", "cut-off").splitlines()
    assert lines[0].startswith("⏸ cut  cut-off  interrupted")
    assert lines[1] == "  nobody drives it: it was interrupted, or its process died"
    assert lines[3].split() == ["└─", "⏸", "a", "interrupted"]
    assert json.loads(told("show", "cut-off", "--json"))["interrupted"] is True
    assert json.loads(told("list", "--json"))[0]["interrupted"] is True


async def test_a_run_that_was_stopped_in_good_order_is_interrupted_too(place: Path, told: Told) -> None:
    """Its state is that it is scheduled again; that it has begun, and nobody drives it, tells the rest."""
    with opened(place) as store:
        flow = AsyncFlow("stopped", store)
        under_way = asyncio.Event()

        @flow.task
        async def slow(ctx: Context) -> None:
            ctx.log("begun")
            under_way.set()
            await asyncio.Event().wait()

        flow.init_run({}, run_id="stopped")
        running = asyncio.create_task(flow.run_until_complete("stopped"))
        await under_way.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert store.load("stopped").state == "scheduled"
    assert told("list").splitlines()[1].split()[:4] == ["⏸", "stopped", "stopped", "interrupted"]
    lines = told("show", "stopped").splitlines()
    assert re.fullmatch(r"⏸ stopped  stopped  interrupted  began .* UTC", lines[0])
    assert lines[2:] == ["  1 task: 1 scheduled", "  └─ · slow  scheduled  interrupted before it ended"]


async def test_a_run_that_is_driven_names_who_drives_it(place: Path, told: Told) -> None:
    """By its lease, which somebody else holds."""
    with opened(place) as store:
        flow = AsyncFlow("shop", store)
        flow.add_task_definition("a", lambda _: 1)
        flow.init_run({}, run_id="driven")
        lease = store.claim("driven")
        assert re.search(r"\n  driven by process \d+ on ", told("show", "driven"))
        assert json.loads(told("list", "--json"))[0]["driven_by"].startswith("process ")
        store.release(lease)
    assert "driven" not in told("show", "driven").splitlines()[1]


@pytest.mark.parametrize("words", [("show", "big", "--json"), ("show", "big")])
async def test_what_is_around_many_subflows_is_read_a_few_times(
    place: Path, told: Told, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Not once for each of them, to say who drove it: of a thousand mapped subflows that would take seconds."""
    inner, flow = AsyncFlow("inner"), AsyncFlow("outer")
    inner.add_task_definition("sometimes", first_fails, max_retries=1, retry_delay=0)
    flow.add_task_definition("items", lambda _: list(range(30)))
    flow.add_subflow_definition("each", inner, map_over="items")
    read: list[str] = []
    with opened(place) as store:
        flow.store = store
        await flow.run_until_complete(flow.init_run({}, run_id="big"))
        for kind in (SQLiteStore, JsonStore):
            real = kind.read_tasks

            def noted(self: Any, run_id: str, real: Any = real) -> Any:
                read.append(run_id)
                return real(self, run_id)

            monkeypatch.setattr(kind, "read_tasks", noted)
        assert told(*words)
        assert 1 <= read.count("big") <= 4
        read.clear()
        inside = flow.get_execution_details("big")["tasks"]["each[7]"]["subflow"]["tasks"]["sometimes"]
        assert len(inside["attempts"]) == 2
        assert read.count("big") <= 4


def first_fails(ctx: Context) -> None:
    """Works at the second attempt."""
    if ctx.attempt_number == 0:
        raise OSError("not yet")


async def test_where_nothing_was_tried_twice_the_tasks_tell_all(place: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts are not read then. Where something was, they are."""
    await some_runs(place)
    with opened(place) as store:
        await shop(store, FakeClock())
    asked: list[str] = []
    for kind in (SQLiteStore, JsonStore):
        real = kind.attempts_reader

        def noted(self: Any, real: Any = real) -> Any:
            read = real(self)

            def of(run_id: str) -> Any:
                asked.append(run_id)
                return read(run_id)

            return of

        monkeypatch.setattr(kind, "attempts_reader", noted)
    assert "✗ load" in told("show", "run-d", "--logs")
    assert asked == []
    assert "3 attempts" in told("show", "monday")
    assert asked == ["monday"]


async def test_what_is_not_there_is_said_in_two_lines(place: Path, told: Told) -> None:
    """Exit code 2, and what to do."""
    await some_runs(place)
    assert told("show", "rum-d", code=2, err="There is no run 'rum-d' in .*Did you mean 'run-d'.*\nSee which there are: .*") == ""
    assert told("show", "run-", code=2, err="6 runs begin with 'run-'.*") == ""
    assert told("explain", "run-d", "laod", code=2, err=".*has no task 'laod'.*Did you mean 'load'.*") == ""


# --- explain ---


async def test_a_task_is_explained_in_sentences(place: Path, told: Told) -> None:
    """By the store alone; inside subflows and maps too."""
    with opened(place) as store:
        await shop(store, FakeClock())
    lines = told("explain", "monday", "load").splitlines()
    assert lines[0] == "↷ load  skipped  monday"
    assert lines[1].startswith("  'load' was skipped")
    assert told("explain", "monday", "parse[2]").startswith("✗ parse[2]  failed  monday\n")
    assert "✓ checks.complete  success" in told("explain", "monday", "checks.complete")


async def test_with_its_flow_a_task_is_explained_better(place: Path, told: Told, tmp_path: Path) -> None:
    """What only the flow knows is told then; a flow of another name is not believed."""
    with opened(place) as store:
        await shop(store, FakeClock())
    file = tmp_path / "flows_to_explain.py"
    package = __name__.rsplit(".", 2)[0]
    file.write_text(
        f"from {package} import AsyncFlow\n"
        "nightly, other = AsyncFlow('nightly'), AsyncFlow('other')\n"
        "nightly.add_task_definition('extract', print)\n"
        "nightly.add_task_definition('young', print)\n"
    )
    assert "got it after the run was made" in told("explain", "monday", "young", "--flow", f"{file}:nightly")
    assert "'load' was skipped" in told(
        "explain", "monday", "load", "--flow", f"{file}:other", err="The run is one of another flow than .*"
    )


# --- stats ---


async def test_statistics_tell_how_long_tasks_take_and_how_often_they_succeed(place: Path, told: Told) -> None:
    """Of each flow for itself, the outer ones first."""
    await some_runs(place)
    lines = told("stats").splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == [
        "other  2 runs  1 success, 1 cancelled  50 %",
        "shop  4 runs  2 success, 1 failed, 1 unfinished  67 %",
        "inner  4 runs  4 success  100 %",
    ]
    alone = told("stats", "--flow-name", "shop").splitlines()
    assert alone[2].split() == ["task", "count", "success", "failed", "mean", "median", "95", "%", "longest", "total"]
    assert alone[3].split()[:5] == ["load", "4", "67", "%", "1"]
    assert alone[3].split()[-2:] == ["3", "s"]
    assert told("stats", "--flow-name", "nope", err="There are no runs of flow 'nope' in .*") == ""


async def test_statistics_as_json(place: Path, told: Told) -> None:
    """Seconds as numbers; over so many runs as are asked for."""
    await some_runs(place)
    shop, *others = json.loads(told("stats", "--flow-name", "shop", "--json"))
    assert others == []
    assert (shop["runs"], shop["success_rate"]) == (4, pytest.approx(2 / 3))
    load = shop["tasks"][0]
    assert (load["task"], load["mean"], load["failed"]) == ("load", 1.5, 1)
    assert json.loads(told("stats", "--flow-name", "shop", "--json", "--runs", "1"))[0]["unfinished"] == 1


def statistics(*tasks: Any) -> Any:
    return flow_statistics("shop", [finished(10)], task_statistics(samples_of(tasks)).values(), 1)


def test_statistics_come_in_the_order_that_is_asked_for() -> None:
    """By default in that of the flow."""
    flow = statistics(
        record("a", 0, 1),
        record("a", 0, 1),
        record("a", 0, 1),
        record("b", 0, 2),
        record("c", 0, 1, "failed"),
        record("c", 0, 1.5),
    )

    def order(sort: str | None) -> str:
        return "".join(line.split()[0] for line in flow_lines(flow, PLAIN, 200, sort)[3:])

    assert [order(sort) for sort in (None, "mean", "max", "total", "failures")] == ["abc", "bca", "bca", "abc", "cab"]


def test_a_table_of_statistics_fits_its_terminal() -> None:
    """Columns in which nothing is are left out, names are cut; no share is rounded to what it is not."""
    tasks = [
        record(f"task{'x' * 60}", 0, 0.0123),
        *(record("often", 0, 100) for _ in range(2000)),
        record("often", 0, 1, "failed"),
    ]
    for columns in (60, 80, 100, 200):
        lines = flow_lines(statistics(*tasks), PLAIN, columns)
        assert max(map(len, lines)) <= columns
        assert not any("skipped" in line or "retries" in line for line in lines)
        assert "99.95 %" in lines[-1]
    assert len(flow_lines(statistics(*(record(f"t{n}", 0, 1) for n in range(500))), PLAIN, 80, most=100)) == 3 + 100 + 1


# --- on a terminal ---


async def test_on_a_terminal_one_is_told_what_to_do_next(
    place: Path, told: Told, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words that can be typed; a pipe gets none of it."""
    await some_runs(place)
    assert "resume" not in told("show", "run-d")
    assert "retry run-d" not in told("explain", "run-d", "load")
    said: dict[str, str] = {}
    for words in (["show", "run-d"], ["show", "run-e"], ["explain", "run-d", "load"], ["list", "--limit", "2"]):
        stream = Stream(is_terminal=True)
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setenv("TERM", "xterm")
        assert main([*words, "--store", str(place)]) == 0
        said[" ".join(words)] = re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue())
        assert "\x1b[" in stream.getvalue()
    assert f"explain run-d load --store {place}\n" in said["show run-d"]
    assert f"resume run-d --store {place}\n" in said["show run-d"]
    assert f"go on:     night-batch resume run-e --store {place}\n" in said["show run-e"]
    assert f"retry run-d load --store {place}\n" in said["explain run-d load"]
    assert "newest 2" in capsys.readouterr().err


async def test_ids_cannot_steer_a_terminal_in_what_is_to_be_typed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark that turns the direction of writing is no control character, and so may stand in an id."""
    with opened(place) as store:
        flow = AsyncFlow("shop\u202e", store)

        @flow.task(task_id="load\u202e")
        def load(ctx: Context) -> None:
            raise ValueError("\u202e")

        await flow.run_until_complete(flow.init_run({"\u202e": "\u202e"}, run_id="run\u202e"))
    for words in (["show", "--logs", "--values"], ["list"], ["stats"], ["explain", "latest", "load\u202e"]):
        stream = Stream(is_terminal=True)
        monkeypatch.setattr("sys.stdout", stream)
        assert main([*words, "--store", str(place)]) == 0
        assert r"\u202e" in stream.getvalue()
        assert "\u202e" not in stream.getvalue()


async def test_a_stream_that_lacks_letters_gets_them_spelled_out(
    place: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A console of an old code page, say: no command fails by what somebody called a file."""
    with opened(place) as store:
        flow = AsyncFlow("naïve", store)
        flow.add_task_definition("laden-日本", lambda _: 1)
        await flow.run_until_complete(flow.init_run({"name": "x" * 300}, run_id="日本"))
    assert told("list")
    for words in (["show"], ["list"], ["stats"], ["explain", "日本", "laden-日本"]):
        raw = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
        monkeypatch.setenv("COLUMNS", "60")
        assert main([*words, "--store", str(place)]) == 0
        assert rb"\u65e5" in raw.getvalue()
        assert rb"\u2026" not in raw.getvalue()


async def test_what_no_terminal_reads_is_not_cut(place: Path, told: Told) -> None:
    """So that whoever searches it finds all of a reason, though it is longer than a terminal is wide."""
    with opened(place) as store:
        flow = AsyncFlow("wordy", store)

        @flow.task
        def load(ctx: Context) -> None:
            raise ValueError(f"{'long ' * 60}needle")

        await flow.run_until_complete(flow.init_run({}, run_id="wordy"))
    assert [line for line in told("show", "wordy").splitlines() if "✗ load" in line and line.endswith("needle")]
