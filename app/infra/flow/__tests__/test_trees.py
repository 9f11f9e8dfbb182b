"""A run as a tree of lines: what a person sees of it, and that nothing in it steers a terminal or takes for ever."""

from __future__ import annotations

import io
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Context,
    ExecutionState,
    GraphNode,
    LogEntry,
    MemoryStore,
    SkipTask,
    Store,
    TaskInstance,
    TaskType,
    WorkflowRun,
)
from ..tools.terminal import Style, width_of
from ..tools.trees import item_of, run_summary, tree_lines
from .conftest import FakeClock, run

BEGAN = datetime(2026, 3, 1, 4, 15, 9, tzinfo=timezone.utc)


class Stream(io.StringIO):
    """Where lines are said to go: a stream of an encoding, and perhaps a terminal."""

    def __init__(self, encoding: str = "utf-8", is_terminal: bool = False) -> None:
        super().__init__()
        self._name = encoding
        self._is_terminal = is_terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._name

    def isatty(self) -> bool:
        return self._is_terminal


PLAIN = Style(Stream(), {})
COLOURED = Style(Stream(), {"FORCE_COLOR": "1"})


def task(task_id: str, state: str = "success", seconds: float | None = 1.0, **more: Any) -> TaskInstance:
    """A task that began with the run and took so long."""
    ended = None if seconds is None else BEGAN + timedelta(seconds=seconds)
    begun = None if seconds is None else BEGAN
    return TaskInstance(task_id, state=ExecutionState(state), start_date=begun, end_date=ended, **more)


def made_run(*tasks: TaskInstance, graph: dict[str, GraphNode] | None = None, **more: Any) -> WorkflowRun:
    """A run of these tasks, which failed after 12.4 s."""
    known: dict[str, Any] = {
        "state": ExecutionState.FAILED,
        "start_date": BEGAN,
        "end_date": BEGAN + timedelta(seconds=12.4),
        **more,
    }
    return WorkflowRun("monday", "nightly", tasks={one.task_id: one for one in tasks}, graph=graph or {}, **known)


def none(run_id: str) -> WorkflowRun:
    raise AssertionError(f"nobody needs run {run_id}")


async def shop(store: Store, clock: FakeClock) -> AsyncFlow:
    """A flow with retries, a map, a subflow, a mapped subflow, a failure, what it skips, and what skips itself; run once."""
    checks = AsyncFlow("checks")

    @checks.task
    def complete(ctx: Context) -> bool:
        clock.pass_time(0.5)
        ctx.log("looked at 3 rows")
        return True

    flow = AsyncFlow("nightly", store, clock=clock)

    @flow.task(max_retries=2)
    def extract(ctx: Context) -> list[int]:
        clock.pass_time(1.5)
        ctx.log("asking the bank")
        if ctx.attempt_number < 2:
            raise ConnectionError("the bank does not answer")
        return [1, 2, 3]

    @flow.task(map_over=extract)
    def parse(ctx: Context, item: int) -> int:
        clock.pass_time(0.25)
        if item == 3:
            raise ValueError(f"bad row {item}\nand more")
        return item

    @flow.task(depends_on=[parse])
    def load(ctx: Context) -> None: ...

    @flow.task
    def mail(ctx: Context) -> None:
        raise SkipTask("nobody to write to")

    flow.add_subflow_definition("checks", checks)
    flow.add_subflow_definition("each", checks, dependencies=["extract"], map_over="extract")
    flow.init_run({"day": "monday"}, run_id="monday")
    await flow.run_until_complete("monday", max_concurrency=1)
    return flow


TREE = """\
✗ nightly  monday  failed  7.25 s  began 2023-11-14 22:13:20 UTC
  6 tasks: 3 success, 1 failed, 2 skipped; 6 items: 5 success, 1 failed
  ├─ ✓ extract                   1.5 s  3 attempts
  ├─ ✗ parse           failed   0.75 s  3 items: 2 success, 1 failed
  │  ├─ ✓ parse[0]              0.25 s
  │  ├─ ✓ parse[1]              0.25 s
  │  └─ ✗ parse[2]     failed   0.25 s  ValueError: bad row 3
  ├─ ↷ load            skipped          upstream task 'parse' failed
  ├─ ↷ mail            skipped     0 s  nobody to write to
  ├─ ✓ checks                      2 s
  │  └─ ✓ complete               0.5 s
  └─ ✓ each                     2.25 s  3 items: 3 success
     ├─ ✓ each[0]               1.25 s
     │  └─ ✓ complete            0.5 s
     ├─ ✓ each[1]               1.75 s
     │  └─ ✓ complete            0.5 s
     └─ ✓ each[2]               2.25 s
        └─ ✓ complete            0.5 s
"""


async def test_a_run_is_told_as_a_tree_with_its_items_and_what_is_inside_it(store: Store, clock: FakeClock) -> None:
    """Every kind of task has its line: sign, id, state where it is no success, duration, attempts and reasons."""
    await shop(store, clock)
    assert tree_lines(store.load("monday"), store.load, PLAIN, attempts=store.list_attempts) == TREE.splitlines()


async def test_the_encoding_of_the_stream_decides_which_signs_there_are(clock: FakeClock) -> None:
    """Where it has no fine signs, plain ones stand for them, as wide as those."""
    store = MemoryStore()
    await shop(store, clock)
    lines = tree_lines(store.load("monday"), store.load, Style(Stream("ascii"), {}))
    assert all(line.isascii() for line in lines)
    assert lines[3:7] == [
        "  |- x parse           failed   0.75 s  3 items: 2 success, 1 failed",
        "  |  |- + parse[0]              0.25 s",
        "  |  |- + parse[1]              0.25 s",
        "  |  `- x parse[2]     failed   0.25 s  ValueError: bad row 3",
    ]


async def test_colours_change_nothing_but_colours(clock: FakeClock) -> None:
    """Without its codes, the coloured tree is the plain one, at any width."""
    store = MemoryStore()
    await shop(store, clock)
    loaded = store.load("monday")
    for columns in (20, 40, 55, 100):
        options: Any = {"columns": columns, "logs": True, "values": True, "tracebacks": 3, "attempts": store.list_attempts}
        coloured = tree_lines(loaded, store.load, COLOURED, **options)
        assert any("\x1b[31m" in line for line in coloured)
        stripped = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in coloured]
        assert stripped == tree_lines(loaded, store.load, PLAIN, **options)


async def test_logs_values_and_tracebacks_stand_under_their_tasks(clock: FakeClock) -> None:
    """Several attempts are told one by one, with what each wrote; tracebacks by their last lines."""
    store = MemoryStore()
    await shop(store, clock)
    lines = tree_lines(
        store.load("monday"), store.load, PLAIN, attempts=store.list_attempts, logs=True, values=True, tracebacks=3
    )
    at = lines.index("  ├─ ✓ extract                   1.5 s  3 attempts")
    assert lines[at + 1 : at + 8] == [
        "  │       returned [1, 2, 3]",
        "  │       ✗ attempt 1  failed  1.5 s  ConnectionError: the bank does not answer",
        "  │         22:13:21 info asking the bank",
        "  │       ✗ attempt 2  failed  1.5 s  ConnectionError: the bank does not answer",
        "  │         22:13:23 info asking the bank",
        "  │       ✓ attempt 3  success  1.5 s",
        "  │         22:13:25 info asking the bank",
    ]
    at = lines.index("  │  └─ ✗ parse[2]     failed   0.25 s  ValueError: bad row 3")
    assert lines[at + 1] == "  │          … 2 lines of the traceback above"
    assert lines[at + 2 : at + 5] == [
        '  │              raise ValueError(f"bad row {item}\\nand more")',
        "  │          ValueError: bad row 3",
        "  │          and more",
    ]
    at = lines.index("  │  └─ ✓ complete               0.5 s")
    assert lines[at - 1 : at + 3 : 3] == ["  │  │    returned true", "  │          22:13:22 info looked at 3 rows"]


def test_all_of_a_traceback_is_there_if_it_is_asked_for() -> None:
    """-1 leaves nothing out, however long a line is; it is told for each task."""
    error = "Traceback:\n" + "".join(f"  line {number} {'x' * 200}\n" for number in range(50)) + "ValueError: no"
    lines = tree_lines(made_run(task("a", "failed", error=error), task("b", "failed", error=error)), none, PLAIN, tracebacks=-1)
    assert [line.strip(" │") for line in lines].count(f"line 49 {'x' * 200}") == 2


def test_the_traceback_of_many_items_is_told_once() -> None:
    """Those that failed in the same place differ by their messages alone, which stand in their lines. Others are told, too."""

    def error(line: int, message: str) -> str:
        return f'Traceback:\n  File "x.py", line {line}\n    do()\nValueError: {message}\n'

    tasks = [task(f"t{number}", "failed", error=error(5, f"row {number}"), reason=f"row {number}") for number in range(4)]
    lines = tree_lines(made_run(*tasks, task("t5", "failed", error=error(9, "other"))), none, PLAIN, tracebacks=6)
    assert [line.strip(" │") for line in lines if "line 5" in line or "line 9" in line] == [
        'File "x.py", line 5',
        'File "x.py", line 9',
    ]
    assert [line for line in lines if line.endswith("row 3")] == ["  ├─ ✗ t3  failed  1 s  row 3"]


# --- what is too much ---


def mapped(states: dict[int, str], number: int = 1000) -> WorkflowRun:
    """A run of one map over many items."""
    graph = {
        "list": GraphNode("list"),
        "parse": GraphNode("parse", depends_on=("list",), map_over="list"),
    }
    items = [task(f"parse[{at}]", states.get(at, "success"), reason="why" if at in states else None) for at in range(number)]
    return made_run(task("list"), task("parse", "failed", reason="2 items failed"), *items, graph=graph)


def test_of_many_items_those_that_failed_are_shown_first_and_the_others_counted() -> None:
    """Three are enough of those that did as they should; how many of what there are is told all the same."""
    lines = tree_lines(mapped({700: "failed", 701: "skipped"}), none, PLAIN)
    assert lines[1] == "  2 tasks: 1 success, 1 failed; 1,000 items: 998 success, 1 failed, 1 skipped"
    assert [line.strip(" │") for line in lines[4:]] == [
        "├─ ✗ parse[700]  failed   1 s  why",
        "├─ ↷ parse[701]  skipped  1 s  why",
        "├─ ✓ parse[0]             1 s",
        "└─ … 997 more items: 997 success",
    ]


def test_so_many_items_are_shown_as_are_asked_for() -> None:
    """Failed ones up to that number; none at all; or every one, in its order."""
    failed = mapped(dict.fromkeys(range(500, 600), "failed"))
    shown = tree_lines(failed, none, PLAIN, items=10)[4:]
    assert [line.split()[2] for line in shown[:-1]] == [f"parse[{number}]" for number in range(500, 510)]
    assert shown[-1] == "     └─ … 990 more items: 900 success, 90 failed"
    assert tree_lines(failed, none, PLAIN, items=0)[4:] == ["     └─ … 1,000 more items: 900 success, 100 failed"]
    assert len(tree_lines(failed, none, PLAIN, items=None)) == 4 + 1000
    assert tree_lines(failed, none, PLAIN, items=10, hint="(more: -x)")[-1].endswith("90 failed  (more: -x)")
    assert not any("more" in line for line in tree_lines(mapped({}, 10), none, PLAIN, items=10))


def test_of_ten_thousand_tasks_what_went_wrong_is_shown() -> None:
    """And a few more, in the order of the flow; the others are counted."""
    tasks = [task(f"t{number}", "failed" if number % 3000 == 50 else "success") for number in range(10_000)]
    lines = tree_lines(made_run(*tasks), none, PLAIN)
    assert lines[1] == "  10,000 tasks: 9,996 success, 4 failed"
    assert [line.split()[2] for line in lines[2:-1]] == [*(f"t{n}" for n in range(16)), "t50", "t3050", "t6050", "t9050"]
    assert lines[-1] == "  └─ … 9,980 more tasks: 9,980 success"
    assert len(tree_lines(made_run(*tasks), none, PLAIN, items=None)) == 10_002


def deep(levels: int) -> dict[str, WorkflowRun]:
    """Runs in runs in runs; the innermost has a task that failed."""
    runs: dict[str, WorkflowRun] = {}
    for level in range(levels):
        below = {"child_run_id": f"r{level + 1}", "result": None}
        inner = task("in", "failed", type=TaskType.FLOW, output_json=below, reason="what is inside failed")
        one = inner if level < levels - 1 else task("leaf", "failed", reason="down here")
        runs[f"r{level}"] = WorkflowRun(f"r{level}", "flow", state=ExecutionState.FAILED, tasks={one.task_id: one})
    return runs


def test_subflows_nest_deeper_than_the_stack_of_python() -> None:
    """Five thousand levels are told, in lines that stay within their width; the reason is told where it is."""
    runs = deep(5000)
    lines = tree_lines(runs["r0"], runs.__getitem__, PLAIN, columns=80)
    assert len(lines) == 2 + 5000
    assert max(map(width_of, lines)) <= 80
    assert lines[-1].split() == ["5000…", "✗", "leaf", "failed", "1", "s", "down", "here"]
    assert sum("inside" in line for line in lines) == 0


def test_levels_below_the_depth_asked_for_are_named_by_their_runs() -> None:
    """0 is the run's own tasks alone."""
    runs = deep(3)
    assert tree_lines(runs["r0"], runs.__getitem__, PLAIN, depth=0)[2:] == [
        "  └─ ✗ in  failed  1 s  subflow, run r1, what is inside failed"
    ]
    assert len(tree_lines(runs["r0"], runs.__getitem__, PLAIN, depth=1)) == 4


def test_a_subflow_whose_run_is_gone_or_that_is_inside_itself_is_said_to_be() -> None:
    """A store that somebody has damaged is shown as far as it goes."""
    tasks = [
        task("gone", type=TaskType.FLOW, output_json={"child_run_id": "nowhere", "result": None}),
        task("loop", type=TaskType.FLOW, output_json={"child_run_id": "monday", "result": None}),
    ]
    lines = tree_lines(made_run(*tasks), MemoryStore().load, PLAIN, columns=200)
    assert "its run cannot be shown: There is no run 'nowhere'" in lines[2]
    assert lines[3].endswith("the run that it is itself inside of")


# --- what is under way ---


def test_what_runs_and_what_waits_says_for_how_long_and_for_what() -> None:
    """By the time that is given; a retry says when, a task that waits for others names them."""
    graph = {
        "a": GraphNode("a"),
        "b": GraphNode("b"),
        "c": GraphNode("c", depends_on=("a", "b")),
    }
    running = task("a", "running", None)
    running.start_date = BEGAN
    retried = task("b", "scheduled", None, next_attempt_at=BEGAN + timedelta(seconds=90), reason="ValueError: no")
    going = made_run(running, retried, task("c", "scheduled", None), graph=graph, state=ExecutionState.RUNNING, end_date=None)
    now = BEGAN + timedelta(seconds=30)
    assert tree_lines(going, none, PLAIN, now=now) == [
        "▶ nightly  monday  running  30.0 s  began 2026-03-01 04:15:09 UTC",
        "  3 tasks: 1 running, 2 scheduled",
        "  ├─ ▶ a  running    30.0 s",
        "  ├─ · b  scheduled          again in 1 min, ValueError: no",
        "  └─ · c  scheduled          waits for a, b",
    ]
    cut_off = tree_lines(going, none, PLAIN, now=now, driven=False)
    assert cut_off[0].startswith("⏸ nightly  monday  interrupted  began")
    assert cut_off[1:3] == ["  3 tasks: 1 interrupted, 2 scheduled", "  ├─ ⏸ a  interrupted"]
    assert tree_lines(going, none, PLAIN)[3].endswith("again at 04:16:39 UTC, ValueError: no")


def test_interruptions_are_told_apart_from_failures() -> None:
    """Of a process that died it is said; the attempts are all counted."""
    lines = tree_lines(
        made_run(
            task("a", try_number=1, interruptions=1, crashes=1),
            task("b", try_number=2, interruptions=2, crashes=1),
            task("c", "scheduled", None, interruptions=1, reason="interrupted before it ended"),
        ),
        none,
        PLAIN,
    )
    assert lines[2:] == [
        "  ├─ ✓ a             1 s  2 attempts, its process died",
        "  ├─ ✓ b             1 s  3 attempts, interrupted 2 times",
        "  └─ · c  scheduled       interrupted before it ended",
    ]


# --- what users typed ---

HOSTILE = ["\x1b[2J\x1b]0;owned\x07", "\u202etxt.exe", "a\rb\nc", "日本語" * 30, "x" * 500, "<script>", "%s {0}"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("columns", [20, 80, 200])
def test_what_users_typed_cannot_steer_a_terminal_nor_break_a_line(text: str, columns: int) -> None:
    """Ids, reasons, errors, logs and outputs, and the names of flows and runs."""
    one = task(text, "failed", reason=text, error=f"Traceback\n  {text}\n{text}", logs=[LogEntry(BEGAN, 20, text)])
    two = task(f"{text} too", output_json={text: text})
    hostile = WorkflowRun(text, text, tasks={one.task_id: one, two.task_id: two}, state=ExecutionState.FAILED)
    tree = tree_lines(hostile, none, PLAIN, columns=columns, logs=True, values=True, tracebacks=5)
    summary = run_summary(hostile, PLAIN, columns)
    lines = [*tree, *summary]
    assert all(line.isprintable() for line in lines)
    assert not any(code in line for line in lines for code in ("\x1b", "\u202e", "\r", "\n"))
    assert max(map(width_of, [*tree[2:], *summary[2:]])) <= max(columns, 50)


# --- the summary ---


async def test_the_summary_names_what_failed_and_why(store: Store, clock: FakeClock) -> None:
    """Of a mapped task its items, and the numbers of all."""
    await shop(store, clock)
    assert run_summary(store.load("monday"), PLAIN, 70) == [
        "✗ nightly  monday  failed  7.25 s  began 2023-11-14 22:13:20 UTC",
        "  6 tasks: 3 success, 1 failed, 2 skipped",
        "  6 items: 5 success, 1 failed",
        "  ✗ parse[2] — ValueError: bad row 3",
    ]


def test_the_summary_looks_into_subflows_where_it_can() -> None:
    """What failed is told by its dotted path, rather than the whole that it is in; else the whole is."""
    runs = deep(3)
    assert run_summary(runs["r0"], PLAIN, load=runs.__getitem__)[2:] == ["  ✗ in.in.leaf — down here"]
    assert run_summary(runs["r0"], PLAIN)[2:] == ["  ✗ in — what is inside failed"]
    assert run_summary(runs["r0"], PLAIN, load=MemoryStore().load)[2:] == ["  ✗ in — what is inside failed"]


def test_the_summary_stays_short() -> None:
    """Ten failures are told, of the others how many there are."""
    lines = run_summary(made_run(*(task(f"t{number}", "failed", reason="no") for number in range(25))), PLAIN)
    assert len(lines) == 2 + 10 + 1
    assert lines[-1] == "  … 15 more did not succeed"
    assert run_summary(made_run(state=ExecutionState.SUCCESS), PLAIN)[1] == "  no tasks"


# --- items ---


def test_an_item_is_told_from_a_task_that_is_only_called_like_one() -> None:
    """By the run's graph; where there is none, by its name and a task that it can belong to."""
    graph = {"a": GraphNode("a"), "m": GraphNode("m", map_over="a"), "m[x]": GraphNode("m[x]")}
    tasks = dict.fromkeys([*graph, "m[0]", "a[0]", "b[0]"])
    assert item_of("m[0]", graph, tasks) == "m"
    assert item_of("m[x]", graph, tasks) is None
    assert item_of("a[0]", graph, tasks) is None
    assert item_of("b[0]", graph, tasks) is None
    assert item_of("a[0]", {}, tasks) == "a"
    assert item_of("m[[1]]", {}, tasks) == "m"


async def test_an_empty_map_says_so(flow: AsyncFlow) -> None:
    """And a map of one item has it."""
    flow.add_task_definition("nothing", lambda _: [])
    flow.add_task_definition("one", lambda _: [1])
    flow.add_task_definition("over", lambda _, item: item, map_over="nothing")
    flow.add_task_definition("over_one", lambda _, item: item, map_over="one")
    done = await run(flow)
    lines = tree_lines(done, flow.store.load, PLAIN)
    assert sum("no items" in line for line in lines) == 1
    assert next(line for line in lines if "─ ✓ over " in line or "─ ↷ over " in line).count("no items") == 1
    assert any("1 item: 1 success" in line for line in lines)
