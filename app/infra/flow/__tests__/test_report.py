"""The report of a run: what stands on the page, for runs of all kinds, how large it gets, and what it keeps to itself."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from .. import AsyncFlow, Attempt, Context, JsonStore, MemoryStore, RunNotFoundError, SQLiteStore, Store, TaskRecord, WorkflowRun
from ..tools import cli, report_html, write_report
from ..tools.report.gathering import gather
from ..tools.report.timing import Timing
from ..tools.reporting import file_name
from .conftest import FakeClock
from .report_runs import HOSTILE, hostile, many, sales

VOID = {"meta", "input", "br", "hr", "link", "img"}


class Page(HTMLParser):
    """A page's elements, its text, and whether they are closed in the order in which they were opened."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.problems: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def texts(self, pattern: str) -> list[str]:
        return re.findall(pattern, self.text)


@pytest.fixture
def page() -> Page:
    store = MemoryStore()
    return Page(report_html(store, sales(store).id))


def of(store: Store, run_id: str) -> Page:
    return Page(report_html(store, run_id))


# --- what a person opens it for ---


def test_the_top_says_what_failed_and_why(page: Page) -> None:
    top = page.text[: page.text.index("determined the end")]
    assert "nightly-sales" in top
    assert "sales-1" in top
    assert "invoice[east] failed : ValueError: no tax rate is known for" in top.replace("failed:", "failed :")
    assert "1 failed" in top
    assert "in invoice" in top
    assert "resume sales-1" in top


def test_what_took_the_time_is_told_in_its_order(page: Page) -> None:
    begin = page.text.index("determined the end")
    steps = page.text[begin : page.text.index("Graph", begin)]
    told = [
        "rates 2 attempts, 30.0 s between them 50.0 s",
        "checks.none_missing 5 s",
        "regions 0 s",
        "invoice[east] 2 attempts",
    ]
    places = [steps.find(text) for text in told]
    assert -1 not in places
    assert places == sorted(places)


def test_the_shares_of_what_took_the_time_are_at_most_the_whole() -> None:
    """As in the tutorial: nothing else runs while one waits for its retry."""
    clock = FakeClock()
    flow = AsyncFlow("shares", MemoryStore(), clock=clock)

    @flow.task(max_retries=1, retry_delay=100)
    def rate(ctx: Context) -> None:
        clock.pass_time(1)
        if ctx.attempt_number == 0:
            raise ConnectionError("busy")

    @flow.task(depends_on=[rate])
    def load(ctx: Context) -> None:
        clock.pass_time(8)

    flow.run(run_id="r")
    text = of(flow.store, "r").text
    shares = re.findall(r"(\d+)%", text[text.index("What took the time") :])
    assert shares == ["93", "7"]
    assert "10.0 s of work and 1 min 40 s between attempts" in text


def test_each_attempt_is_told_with_its_reason(page: Page) -> None:
    titles = [dict_.get("aria-label") for tag, dict_ in page.tags if tag == "svg" and dict_.get("class") == "g-lane"]
    assert "rates: success, 50.0 s, 2 attempts" in titles
    assert page.text.count("ConnectionError: the bank does not answer") >= 2
    assert "attempt 1: failed, 10.0 s" in page.text
    assert "30.0 s until the next attempt" in page.text


def test_every_link_leads_somewhere(page: Page) -> None:
    ids = [found["id"] for _, found in page.tags if found.get("id")]
    assert len(ids) == len(set(ids))
    targets = {str(found["href"])[1:] for tag, found in page.tags if tag == "a" and str(found.get("href")).startswith("#")}
    assert targets
    assert targets <= set(ids)


def test_it_is_well_formed_and_needs_nothing_from_elsewhere(page: Page) -> None:
    assert page.problems == []
    assert page.open == []
    loading = [(tag, found) for tag, found in page.tags if tag in ("link", "img", "iframe", "object") or found.get("src")]
    assert loading == []
    assert {tag for tag, found in page.tags for name in found if name.startswith("on")} == set()


def test_the_policy_lets_the_pages_own_script_run_and_no_other() -> None:
    store = MemoryStore()
    source = report_html(store, sales(store).id)
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', source)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'; " in policy
    assert "script-src 'unsafe" not in policy


# --- secrets and hostile texts ---


def test_params_that_look_like_secrets_are_masked(page: Page) -> None:
    assert "s3cr3t" not in page.text
    assert "hunter2" not in page.text
    assert '"size": 5' in page.text


def test_values_can_be_left_out() -> None:
    store = MemoryStore()
    run_id = sales(store).id
    assert "2026-03-01" in report_html(store, run_id)
    page = Page(report_html(store, run_id, values=False))
    assert "2026-03-01" not in page.text
    assert "north.pdf" not in page.text


def test_what_the_hook_takes_out_stands_nowhere() -> None:
    store = MemoryStore()
    run_id = sales(store).id
    source = report_html(store, run_id, redact=lambda text: text.replace("XK", "??").replace("rendering", "…"))
    assert "XK" not in source
    assert "rendering" not in source
    assert "no tax rate is known for &#x27;??&#x27;" in source


def test_hostile_texts_stay_texts() -> None:
    store = MemoryStore()
    run = hostile(store)
    page = of(store, run.id)
    assert page.problems == []
    assert [tag for tag, _ in page.tags if tag == "script"] == ["script"]
    assert not [tag for tag, _ in page.tags if tag in ("img", "iframe")]
    assert not [found for _, found in page.tags if any(name.startswith("on") or name == "autofocus" for name in found)]
    assert not [found for _, found in page.tags if "javascript:" in str(found.get("href", ""))]
    for text in HOSTILE[:-1]:
        assert " ".join(f"ValueError: {text}".split()) in page.text
    source = report_html(store, run.id)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", source)


def test_what_a_store_says_of_workers_notes_and_owners_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    flow = AsyncFlow("told", store)

    @flow.task
    def load(ctx: Context) -> None:
        raise ValueError("no")

    flow.run(run_id="r")
    (attempt,), notes = store.list_attempts("r"), store.read_notes("r")
    assert notes
    for text in HOSTILE[:-1]:
        told = replace(attempt, worker=text, reason=text, error=text)
        monkeypatch.setattr(store, "list_attempts", lambda _, told=told: [told])
        monkeypatch.setattr(store, "read_notes", lambda _, text=text: [replace(note, by=text, task_id=text) for note in notes])
        page = of(store, "r")
        assert page.problems == []
        assert [tag for tag, _ in page.tags if tag in ("script", "img", "iframe")] == ["script"]
        assert not [found for _, found in page.tags if any(name.startswith("on") for name in found)]
        assert page.text.count(" ".join(text.split())) >= 2


# --- runs of all kinds ---


@pytest.mark.parametrize("kind", ["sqlite", "json", "memory"])
def test_a_report_says_the_same_from_every_store(kind: str, tmp_path: Path) -> None:
    stores: dict[str, Callable[[], Store]] = {
        "sqlite": lambda: SQLiteStore(tmp_path / "runs.db"),
        "json": lambda: JsonStore(tmp_path / "runs"),
        "memory": MemoryStore,
    }
    with stores[kind]() as store:
        page = of(store, sales(store).id)
    assert "invoice[east] failed" in page.text
    assert "Attempts 8 , 2 retries" in page.text
    assert page.problems == []


def test_a_success_says_so_and_has_no_failures() -> None:
    flow = AsyncFlow("small", MemoryStore())
    flow.add_task_definition("only", lambda ctx: 42)
    page = of(flow.store, flow.run().id)
    assert "All tasks succeeded." in page.text
    assert "What failed" not in page.text


def test_a_run_that_was_made_and_not_begun_has_a_report() -> None:
    flow = AsyncFlow("made", MemoryStore())
    flow.add_task_definition("only", lambda ctx: 42)
    page = of(flow.store, flow.init_run(run_id="r"))
    assert "It was made, and not begun; nobody drives it: 0 of 1 task have ended." in page.text
    assert "Timeline" not in page.text


def test_a_run_without_tasks_has_a_report() -> None:
    flow = AsyncFlow("empty", MemoryStore())
    page = of(flow.store, flow.run(run_id="r").id)
    assert "The flow has no tasks." in page.text
    assert page.problems == []


async def test_a_run_that_is_going_on_says_who_drives_it() -> None:
    flow = AsyncFlow("going", MemoryStore())
    seen: list[Page] = []

    @flow.task
    async def first(ctx: Context) -> int:
        return 1

    @flow.task(depends_on=[first])
    async def second(ctx: Context) -> None:
        seen.append(of(flow.store, "r"))

    await flow.run_until_complete(flow.init_run(run_id="r"))
    (page,) = seen
    assert "Under way, driven by this very process: 1 of 2 tasks has ended." in page.text
    assert "took the time so far" in page.text


def test_a_night_between_two_tries_of_a_person_is_cut_out_of_the_timeline() -> None:
    clock = FakeClock()
    flow = AsyncFlow("night", MemoryStore(), clock=clock)
    is_up: list[bool] = []

    @flow.task
    def load(ctx: Context) -> None:
        clock.pass_time(300)
        if not is_up:
            raise ConnectionError("down")

    flow.run(run_id="r")
    clock.pass_time(50_000)
    is_up.append(True)
    flow.manual_retry("r", "load")
    flow.run(run_id="r")
    page = of(flow.store, "r")
    assert "nothing ran for 13 h 53 min, cut out" in page.text
    assert "All tasks succeeded." in page.text
    assert "set back load , 1 task" in page.text


def test_subflows_are_told_with_their_inside() -> None:
    inner, flow = AsyncFlow("inner"), AsyncFlow("outer", MemoryStore())
    inner.add_task_definition("deep", lambda ctx: 1 / 0)
    flow.add_task_definition("ids", lambda ctx: ["a", "b"])
    flow.add_subflow_definition("each", inner, dependencies=["ids"])
    run = flow.run(run_id="r")
    data = gather(flow.store, run.id)
    assert [(line.path, line.kind, line.depth) for line in data.lines] == [
        ("ids", "task", 0),
        ("each", "subflow", 0),
        ("each.deep", "task", 1),
    ]
    page = of(flow.store, "r")
    assert "each.deep failed" in page.text
    assert "ZeroDivisionError: division by zero" in page.text


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_subflow_whose_run_is_gone_says_so(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was pruned, long ago or between two looks at the store."""
    store = MemoryStore()
    inner = AsyncFlow("inner")

    @inner.task
    def load(ctx: Context) -> None: ...

    flow = AsyncFlow("outer", store)
    flow.add_subflow_definition("part", inner)
    child = flow.run(run_id="r").tasks["part"].child_run_id
    load_run = store.load

    def gone(run_id: str) -> WorkflowRun:
        if run_id == child:
            raise RunNotFoundError(run_id)
        return load_run(run_id)

    monkeypatch.setattr(store, "load", gone)
    if when == "before":
        monkeypatch.setattr(store, "exists", lambda run_id: run_id != child)
    assert f"Its run {child} (not in the store any more)" in of(store, "r").text


class Retold:
    """A store whose tasks began and ended at other moments than they did."""

    def __init__(self, store: Store, times: dict[str, tuple[float, float]], run: tuple[float, float]) -> None:
        self._store = store
        self._times = {name: (self._at(start), self._at(end)) for name, (start, end) in times.items()}
        self._run = (self._at(run[0]), self._at(run[1]))

    @staticmethod
    def _at(seconds: float) -> datetime:
        return datetime(2026, 3, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def load(self, run_id: str) -> WorkflowRun:
        run = self._store.load(run_id)
        run.start_date, run.end_date = self._run
        for name, (start, end) in self._times.items():
            run.tasks[name].start_date, run.tasks[name].end_date = start, end
        return run

    def list_attempts(self, run_id: str) -> list[Attempt]:
        return [
            replace(attempt, start_date=self._times[attempt.task_id][0], end_date=self._times[attempt.task_id][1])
            for attempt in self._store.list_attempts(run_id)
        ]


@pytest.mark.parametrize(
    ("times", "run", "length"),
    [
        ({"a": (100, 50), "b": (20, 10)}, (90, 5), 80),
        ({"a": (0, 3e-6), "b": (3e-6, 5e-6)}, (0, 5e-6), 5e-6),
        ({"a": (0, 4e8), "b": (4e8, 7e8)}, (0, 7e8), 7e8),
        ({"a": (0, 60), "b": (30, 90)}, (0, 90), 90),
    ],
    ids=["set back", "microseconds", "years", "overlapping"],
)
def test_clocks_that_say_strange_things_have_a_report(
    times: dict[str, tuple[float, float]], run: tuple[float, float], length: float
) -> None:
    flow = AsyncFlow("clocks", MemoryStore())

    @flow.task
    def a(ctx: Context) -> None: ...

    @flow.task(depends_on=[a])
    def b(ctx: Context) -> None: ...

    flow.run(run_id="r")
    store: Any = Retold(flow.store, times, run)
    timing = Timing(gather(store, "r"))
    assert timing.length == pytest.approx(length)
    assert timing.paused <= timing.length
    assert all(end >= start for line in (0, 1) for _, _, start, end in timing.spans(gather(store, "r").lines[line]))
    page = of(store, "r")
    assert page.problems == []
    assert "-" not in "".join(page.texts(r"Took (\S+)"))
    assert "nan" not in page.text


def test_flows_that_nest_deeply_are_no_depth() -> None:
    flow = AsyncFlow("level", MemoryStore())
    flow.add_task_definition("work", lambda ctx: 1)
    for _ in range(40):
        outer = AsyncFlow("level", flow.store)
        outer.add_subflow_definition("in", flow)
        flow = outer
    page = of(flow.store, flow.run(run_id="r").id)
    assert ".".join(["in"] * 40 + ["work"]) in page.text
    assert page.problems == []


def test_of_more_subflows_than_it_may_open_those_that_failed_come_first() -> None:
    flow = AsyncFlow("outer", MemoryStore())
    for number in range(6):
        inner = AsyncFlow(f"inner{number}")
        inner.add_task_definition("work", (lambda ctx: 1 / 0) if number == 4 else (lambda ctx: 1))
        flow.add_subflow_definition(f"sub{number}", inner)
    data = gather(flow.store, flow.run(run_id="r").id, most_runs=2)
    assert data.left_closed == 4
    assert [line.path for line in data.lines if line.depth] == ["sub0.work", "sub4.work"]


def test_what_is_around_many_subflows_with_earlier_attempts_is_read_but_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, flow = AsyncFlow("inner"), AsyncFlow("outer", MemoryStore())

    @inner.task(max_retries=1, retry_delay=0)
    def work(ctx: Context) -> None:
        if ctx.attempt_number == 0:
            raise ValueError("the first time")

    flow.add_task_definition("ids", lambda ctx: list(range(30)))
    flow.add_subflow_definition("each", inner, dependencies=["ids"], map_over="ids")
    run = flow.run(run_id="r")
    real, read = MemoryStore.read_tasks, list[str]()

    def noted(store: MemoryStore, run_id: str) -> list[TaskRecord]:
        read.append(run_id)
        return real(store, run_id)

    monkeypatch.setattr(MemoryStore, "read_tasks", noted)
    found = gather(flow.store, run.id)
    assert [
        [(attempt.number, str(attempt.result), attempt.reason, attempt.worker is not None) for attempt in line.attempts]
        for line in found.lines
        if line.path.endswith(".work")
    ] == [[(1, "failed", "ValueError: the first time", True), (2, "success", None, True)]] * 30
    assert read.count("r") <= 3


# --- bounds ---


def test_a_large_run_is_told_in_part_with_what_failed_and_says_so() -> None:
    store = MemoryStore()
    run = many(store, 5000)
    source = report_html(store, run.id)
    assert len(source) < 5_000_000
    assert source.count('<tr class="detail"') == 2000
    page = Page(source)
    assert page.problems == []
    assert "3,002 tasks of 5,002 are left out here (3,002 success)" in page.text
    assert "bad number 4907" in page.text
    assert len([found for tag, found in page.tags if tag == "svg" and found.get("class") == "g-lane"]) == 300


def test_alike_failures_are_told_together() -> None:
    flow = AsyncFlow("alike", MemoryStore())
    flow.add_task_definition("ids", lambda ctx: list(range(40)))

    @flow.task(map_over="ids")
    def parse(ctx: Context, n: int) -> None:
        raise ValueError("no" if n else "zero")

    page = of(flow.store, flow.run(run_id="r").id)
    assert len([1 for tag, _ in page.tags if tag == "article"]) == 2
    assert "ValueError: no (39 times)" in page.text
    assert "and 27 more" in page.text


# --- the file and the command ---


def test_the_file_is_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    store = MemoryStore()
    target = tmp_path / "report.html"
    target.write_text("old")
    assert write_report(store, sales(store).id, target, title="Sales & more") == target
    assert "<h1>Sales &amp; more</h1>" in target.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    if os.name == "posix":
        assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_put_there_leaves_nothing_behind(tmp_path: Path) -> None:
    store = MemoryStore()
    run_id = sales(store).id
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        write_report(store, run_id, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_run_that_is_not_there_is_named() -> None:
    with pytest.raises(RunNotFoundError, match="nothing"):
        report_html(MemoryStore(), "nothing")


def test_the_same_run_gives_the_same_page() -> None:
    store = MemoryStore()
    run_id = sales(store).id
    now = datetime(2026, 3, 1, tzinfo=timezone.utc)
    assert report_html(store, run_id, now=now) == report_html(store, run_id, now=now)


def test_the_command_writes_it_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with SQLiteStore(tmp_path / "runs.db") as store:
        sales(store)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "latest", "--store", "runs.db"]) == 0
    assert capsys.readouterr().out == "sales-1.html\n"
    assert "invoice[east]" in (tmp_path / "sales-1.html").read_text(encoding="utf-8")
    assert cli.main(["report", "sales-1", "-o", "x.html", "--store", "runs.db", "--no-values"]) == 0
    assert "2026-03-01<" not in (tmp_path / "x.html").read_text(encoding="utf-8")
    assert cli.main(["report", "sunday", "--store", "runs.db"]) == 2


@pytest.mark.parametrize(
    ("run_id", "name"),
    [
        ("monday", "monday.html"),
        ("../../etc/passwd", "etc-passwd.html"),
        ("a/b c", "a-b c.html"),
        ("...", "report.html"),
        ("x" * 300, f"{'x' * 120}.html"),
    ],
)
def test_a_run_id_becomes_the_name_of_a_file_here(run_id: str, name: str) -> None:
    assert file_name(run_id) == name


def test_a_hook_of_the_flow_is_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipeline.py").write_text(
        "from app.infra.flow import AsyncFlow\nflow = AsyncFlow('night', redact=lambda text: text.replace('XK', '??'))\n"
    )
    with SQLiteStore(tmp_path / "runs.db") as store:
        sales(store)
    arguments = ["report", "sales-1", "--store", str(tmp_path / "runs.db"), "-o", str(tmp_path / "r.html")]
    assert cli.main([*arguments, "--flow", f"{tmp_path / 'pipeline.py'}:flow"]) == 0
    assert "XK" not in (tmp_path / "r.html").read_text(encoding="utf-8")
