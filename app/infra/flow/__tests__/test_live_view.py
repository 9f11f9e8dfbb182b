"""The lines of the live view: what they say, that they fit wherever they stand, and that nobody steers the terminal by them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

import pytest

from .. import ExecutionState, RunProgress, TaskProgress, TaskType
from ..tools.live_view import MOST_ROWS, frame, last_line, rounded_span, ticking_span
from ..tools.terminal import Style, width_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
PLAIN: Mapping[str, str] = {"NO_COLOR": "1"}


def style(encoding: str = "utf-8", **environment: str) -> Style:
    return Style(io.TextIOWrapper(io.BytesIO(), encoding=encoding), environment or PLAIN)


def task(
    path: str,
    seconds: float = 3,
    inside: str | None = None,
    counts: Mapping[str, int] | None = None,
    attempt: int = 0,
    kind: TaskType = TaskType.TASK,
) -> TaskProgress:
    made = None if counts is None else {ExecutionState(state): number for state, number in counts.items()}
    return TaskProgress(path, inside, kind, ExecutionState.RUNNING, NOW - timedelta(seconds=seconds), None, attempt, None, made)


def progress(
    *running: TaskProgress,
    name: str = "nightly",
    run_id: str = "monday",
    state: str = "running",
    retrying: int = 0,
    **counts: int,
) -> RunProgress:
    return RunProgress(
        run_id,
        name,
        ExecutionState(state),
        NOW,
        NOW - timedelta(seconds=72),
        None,
        {ExecutionState(key): number for key, number in counts.items()},
        retrying,
        running,
        (),
        True,
    )


def test_the_view_shows_the_bar_the_counts_and_what_runs() -> None:
    """In the order: how far, how many, which; subflows and maps before what is in them, of a map its longest item."""
    found = progress(
        task("load", 12.3, attempt=1),
        task("parse", 30, counts={"success": 51, "failed": 1, "running": 2, "scheduled": 46}),
        task("parse[7]", 9, inside="parse"),
        task("parse[9]", 8, inside="parse"),
        task("checks", 3, counts={"success": 2, "running": 1, "scheduled": 2}, kind=TaskType.FLOW),
        task("checks.totals", 2, inside="checks"),
        success=400,
        failed=2,
        skipped=10,
        running=8,
        scheduled=580,
        retrying=3,
    )
    assert frame(found, 80, 24, style(), NOW, 100) == [
        "nightly monday  ████░░░░░░░  412/1,000  41 %  1 min 12 s  about 1 min 40 s left",
        "  2 failed, 8 running, 3 to be tried again, 577 waiting, 10 skipped, 400 done",
        "  ▶ load            12 s  attempt 2",
        "  ▶ parse           30 s  52/100  1 failed  2 running",
        "    ▶ parse[7]     9.0 s",
        "  ▶ checks         3.0 s  2/5",
        "    ▶ totals       2.0 s",
    ]


def test_without_its_signs_a_terminal_gets_plain_ones() -> None:
    """Where the encoding has no blocks and arrows; a name that it does not have is spelled out."""
    lines = frame(progress(task("größe"), name="żółw", success=1, running=1), 80, 24, style("ascii"), NOW)
    assert lines[0].startswith("\\u017c\\xf3\\u0142w monday  ###############---------------  1/2  50 %")
    assert lines[2].split() == [">", "gr\\xf6\\xdfe", "3.0", "s"]
    assert "\n".join(lines).isascii()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
@pytest.mark.parametrize("columns", [1, 2, 5, 10, 20, 30, 40, 60, 79, 80, 200])
def test_no_line_is_as_wide_as_the_terminal(columns: int, encoding: str) -> None:
    """One column stays free, since terminals differ in what they do in the last one; wide characters count twice."""
    tasks = [task("a" * 300, 1e7), task("表" * 100), task("sub", counts={"success": 10**7, "running": 10**6})]
    tasks += [task("sub." + "b" * 300, inside="sub"), task(f"{'c' * 50}[{'k' * 300}]", inside="c" * 50)]
    found = progress(
        *tasks, name="表" * 60, run_id="r" * 300, success=10**6, failed=10**6, running=10**6, retrying=2, scheduled=9
    )
    for rows in (1, 2, 3, 5, 24):
        lines = frame(found, columns, rows, style(encoding), NOW, 12345)
        assert 1 <= len(lines) <= max(1, rows - 1)
        assert all(width_of(line) <= max(1, columns - 1) for line in lines)
        for line in lines:
            line.encode(encoding)
    assert width_of(last_line(found, columns, style(encoding), 5)) <= max(2, columns)


def test_what_there_is_no_room_for_is_counted() -> None:
    """The outermost ones come first; items of maps need not be counted, their whole does it."""
    many = [task(f"t{number}", 100 - number) for number in range(30)]
    lines = frame(progress(*many, running=30), 80, 10, style(), NOW)
    assert len(lines) == 9
    assert [line.split()[1] for line in lines[2:8]] == ["t0", "t1", "t2", "t3", "t4", "t5"]
    assert lines[8] == "  … 24 more"
    assert len(frame(progress(*many, running=30), 80, 100, style(), NOW)) == MOST_ROWS


def test_what_is_inside_gives_way_to_what_is_outside() -> None:
    """Ten tasks in a subflow that came first leave room for a task beside it."""
    inner = [task(f"sub.t{number}", 50, inside="sub") for number in range(10)]
    found = progress(task("sub", 50, counts={"running": 10}), *inner, task("beside", 1), running=2)
    shown = "\n".join(frame(found, 80, 8, style(), NOW))
    assert "beside" in shown
    assert "sub  " in shown


def test_all_rows_are_used_before_anything_is_left_out() -> None:
    """Exactly as many as fit leave no line that says how many are missing."""
    lines = frame(progress(*[task(f"t{number}") for number in range(7)], running=7), 80, 10, style(), NOW)
    assert len(lines) == 9
    assert "more" not in lines[-1]


def test_a_mapped_subflow_s_insides_are_folded_with_its_items() -> None:
    """Only one item of it is shown, and nothing of what is in the others."""
    counts = {"running": 3}
    items = [task(f"each[{key}]", inside="each", counts={"running": 1}) for key in range(3)]
    inner = [task(f"each[{key}].step", inside=f"each[{key}]") for key in range(3)]
    lines = frame(progress(task("each", counts=counts), *items, *inner, running=3), 80, 24, style(), NOW)
    assert [line.split()[1] for line in lines[2:]] == ["each", "each[0]", "step"]


def test_nobody_steers_the_terminal_by_a_name() -> None:
    """Escapes, newlines, marks of direction: all are spelled out."""
    evil = "x\x1b[2J\r\n\u202e\x9b31m"
    found = progress(task(evil), name=evil, run_id=evil, running=1)
    for text in [*frame(found, 200, 24, style(), NOW), last_line(found, 200, style(), 1)]:
        assert text.isprintable()


def test_colours_surround_what_is_there_without_them() -> None:
    """The same text, and every colour is ended."""
    found = progress(task("load", attempt=2), success=1, failed=1, running=1)
    coloured, plain = style(FORCE_COLOR="1"), style()
    for fine, bare in zip(frame(found, 80, 24, coloured, NOW), frame(found, 80, 24, plain, NOW)):
        parts = fine.split("\x1b[")
        assert "".join([parts[0], *(part.partition("m")[2] for part in parts[1:])]) == bare
        assert fine.count("\x1b[0m") * 2 == fine.count("\x1b[")
    assert "\x1b[31m1 failed" in frame(found, 80, 24, coloured, NOW)[1]


def test_a_run_that_was_continued_counts_from_then() -> None:
    """`since` says when that was."""
    assert "20 s" in frame(progress(running=1), 80, 24, style(), NOW, since=NOW - timedelta(seconds=20))[0]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("success", "✓ nightly monday  success after 1 min 12 s  3 tasks: 1 skipped, 2 done"),
        ("failed", "✗ nightly monday  failed after 1 min 12 s  3 tasks: 1 skipped, 2 done"),
        ("scheduled", "⏸ nightly monday  interrupted after 1 min 12 s  3 tasks: 1 skipped, 2 done"),
    ],
)
def test_one_line_remains_of_a_run_that_is_over(state: str, expected: str) -> None:
    """How it ended, after how long, and how many of what."""
    assert last_line(progress(state=state, success=2, skipped=1), 100, style(), 72) == expected


@pytest.mark.parametrize("remaining", [None, 0.0, 0.4])
def test_nothing_is_said_of_the_remaining_time_where_nothing_is_known(remaining: float | None) -> None:
    """Nor of a run that takes longer than it should."""
    assert "left" not in frame(progress(running=1), 80, 24, style(), NOW, remaining)[0]


def test_spans_that_grow_keep_their_form() -> None:
    """Tenths up to ten seconds, then whole ones: the eye is not drawn to digits that mean nothing."""
    texts = [ticking_span(seconds) for seconds in (None, 0, 0.04, 9.94, 9.96, 59.7, 75.5, 7262)]
    assert texts == ["-", "0.0 s", "0.0 s", "9.9 s", "10 s", "1 min", "1 min 16 s", "2 h 1 min"]


def test_what_is_only_guessed_is_told_roughly() -> None:
    """In whole seconds, then tens, then minutes; never as nothing."""
    texts = [rounded_span(seconds) for seconds in (0, 0.4, 47.3, 119, 123, 599, 614, 100_000)]
    assert texts == ["1 s", "1 s", "47 s", "1 min 59 s", "2 min", "10 min", "10 min", "27 h 47 min"]
