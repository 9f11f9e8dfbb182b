"""The pieces of a report: critical path, axis, bars, which rows are shown, users' texts as markup."""

from __future__ import annotations

import pytest

from ..models import GraphNode
from ..tools.report.critical_path import Division, Span, Step, critical_path, divided
from ..tools.report.failures import place_of
from ..tools.report.gantt import MOST_PAUSES, PAUSE_WIDTH, Axis, Bar, bars_of, chosen, density, merged, nice_step
from ..tools.report.gathering import needs_of, whole_of
from ..tools.report.markup import Budget, attributes, esc, esc_lines

# --- the critical path ---


def test_the_chain_goes_back_over_the_dependency_that_ended_last() -> None:
    spans = {0: Span(0, 3), 1: Span(0, 5), 2: Span(6, 9, [0, 1]), 3: Span(6, 7, [0])}
    assert critical_path(spans, spans, 0.0, 9.0) == [Step(1, 0, 5), Step(2, 1, 3)]


def test_waits_and_lengths_reach_from_the_beginning_to_the_last_end() -> None:
    spans = {0: Span(1, 3), 1: Span(4, 5, [0]), 2: Span(7.5, 11, [1])}
    steps = critical_path(spans, spans, 0.0, 11.0)
    assert sum(step.waited + step.took for step in steps) == 11
    assert [step.waited for step in steps] == [1, 1, 2.5]


def test_what_is_made_of_others_is_told_by_its_inside() -> None:
    """A subflow (1) with two tasks in a row (2, 3), between two tasks."""
    spans = {
        0: Span(0, 1),
        1: Span(1, 6, [0], [2, 3]),
        2: Span(1, 4, (), (), 1),
        3: Span(4, 6, [2], (), 1),
        4: Span(6, 7, [1]),
    }
    assert [step.number for step in critical_path(spans, [0, 1, 4], 0.0, 7.0)] == [0, 2, 3, 4]


def test_items_that_stream_lead_to_their_counterparts() -> None:
    """Two mapped tasks (0 and 3) of two items each; the slow item of the second follows the quick one of the first."""
    spans = {
        0: Span(0, 5, (), [1, 2]),
        1: Span(0, 2, (), (), 0),
        2: Span(0, 5, (), (), 0),
        3: Span(2, 9, [0], [4, 5]),
        4: Span(2, 9, [1], (), 3),
        5: Span(5, 6, [2], (), 3),
    }
    assert [step.number for step in critical_path(spans, [0, 3], 0.0, 9.0)] == [1, 4]


def test_what_was_skipped_is_a_link_that_takes_no_place_in_the_chain() -> None:
    spans = {0: Span(0, 4), 1: Span(None, 4, [0]), 2: Span(4, 5, [1])}
    assert [step.number for step in critical_path(spans, spans, 0.0, 5.0)] == [0, 2]


def test_an_upstream_that_ended_after_the_start_did_not_hold_it_up() -> None:
    """By a rule such as one_success; or the upstream was run again later."""
    spans = {0: Span(0, 1), 1: Span(0, 50), 2: Span(1, 60, [0, 1])}
    assert [step.number for step in critical_path(spans, spans, 0.0, 60.0)] == [0, 2]


def test_what_still_runs_ends_now() -> None:
    spans = {0: Span(0, 1), 1: Span(1, None, [0])}
    assert critical_path(spans, spans, 0.0, 9.0) == [Step(0, 0, 1), Step(1, 0, 8)]


def test_a_run_in_which_nothing_began_has_no_critical_path() -> None:
    assert critical_path({0: Span(None, None), 1: Span(None, 3)}, [0, 1], 0.0, 3.0) == []
    assert critical_path({}, [], 0.0, 0.0) == []


def test_spans_that_contradict_one_another_end_the_chain_all_the_same() -> None:
    spans = {0: Span(0, 0, [1]), 1: Span(0, 0, [0], [0], 0)}
    assert len(critical_path(spans, spans, 0.0, 1.0)) <= 2


def test_a_chain_of_50000_tasks_is_no_depth() -> None:
    spans = {number: Span(number, number + 1, [number - 1] if number else []) for number in range(50_000)}
    assert len(critical_path(spans, spans, 0.0, 50_000.0)) == 50_000
    nested = {
        number: Span(0, 9, (), [number + 1] if number < 20_000 else (), number - 1 if number else None)
        for number in range(20_001)
    }
    assert [step.number for step in critical_path(nested, [0], 0.0, 9.0)] == [20_000]


def test_a_clock_that_was_set_back_makes_no_link_longer_than_the_run() -> None:
    spans = {0: Span(10, 5), 1: Span(5, 6, [0]), 2: Span(-3, 20, [1])}
    steps = critical_path(spans, spans, 0.0, 6.0)
    assert all(step.waited >= 0 and step.took >= 0 for step in steps)
    assert sum(step.waited + step.took for step in steps) <= 6


# --- what each link is of the time ---


def total(division: Division) -> float:
    return sum(part.worked + part.between + part.waited for part in division.parts) + division.rest + division.still


def test_a_delay_before_a_retry_is_a_part_of_its_link_and_no_share_is_told_twice() -> None:
    """The second link waits 50 seconds for its retry, in which nothing runs: half of the time, and no more."""
    attempts = {0: [("success", 0.0, 40.0)], 1: [("failed", 42.0, 44.0), ("success", 94.0, 98.0)]}
    division = divided([Step(0, 0, 40), Step(1, 2, 56)], attempts.__getitem__, [(44.0, 94.0)], 100.0)
    first, second = division.parts
    assert (first.worked, first.between, first.waited) == (40, 0, 0)
    assert (second.worked, second.between, second.waited) == (6, 50, 2)
    assert [part.share for part in division.parts] == pytest.approx([0.4, 0.56])
    assert (division.rest, division.still) == (2, 0)
    assert total(division) == pytest.approx(100)


def test_a_night_in_which_the_run_stood_still_is_nobodys_share() -> None:
    """Between two tries of a person, and after the death of the process in the middle of an attempt."""
    attempts = {0: [("success", 0.0, 10.0)], 1: [("interrupted", 1000.0, 1010.0), ("success", 5000.0, 5030.0)]}
    division = divided([Step(0, 0, 10), Step(1, 990, 4030)], attempts.__getitem__, [(10.0, 1000.0), (1010.0, 5000.0)], 5030.0)
    assert [part.share for part in division.parts] == [pytest.approx(0.2), pytest.approx(0.8)]
    assert division.still == 990 + 3990
    assert total(division) == pytest.approx(5030)


# --- the axis ---


def test_moments_lie_on_the_axis_in_proportion() -> None:
    axis = Axis(0, 10, [(0, 10)])
    assert [axis.place(moment) for moment in (-1, 0, 2.5, 10, 99)] == [0, 0, 0.25, 1, 1]
    assert axis.pauses == []


def test_a_long_pause_is_cut_out_and_a_short_one_is_not() -> None:
    axis = Axis(0, 1000, [(0, 10), (12, 20), (980, 1000)])
    (pause,) = axis.pauses
    assert (pause.start, pause.end) == (20, 980)
    assert axis.place(980) - axis.place(20) == pytest.approx(PAUSE_WIDTH)
    assert axis.place(20) == pytest.approx((1 - PAUSE_WIDTH) / 2)
    assert axis.place(1000) == 1


def test_what_nobody_would_notice_is_no_pause() -> None:
    assert Axis(0, 0.01, [(0.006, 0.008)]).pauses == []


def test_no_more_pauses_are_cut_out_than_the_eye_can_take() -> None:
    busy = [(number * 1000.0, number * 1000.0 + 1) for number in range(20)]
    axis = Axis(0, 19_001, busy)
    assert len(axis.pauses) <= MOST_PAUSES
    places = [axis.place(start) for start, _ in busy]
    assert places == sorted(places)


def test_a_run_that_took_no_time_has_an_axis() -> None:
    axis = Axis(0, 0, [(0, 0)])
    assert axis.place(0) == 0
    assert all(0 <= axis.place(tick) <= 1 for tick in axis.ticks())


def test_ticks_are_round_and_few_and_none_stands_in_a_pause() -> None:
    assert Axis(0, 60, [(0, 60)]).ticks() == [0, 10, 20, 30, 40, 50, 60]
    axis = Axis(0, 100_000, [(0, 50), (99_950, 100_000)])
    assert 4 <= len(axis.ticks()) <= 20
    assert not [tick for tick in axis.ticks() if any(pause.start < tick < pause.end for pause in axis.pauses)]


@pytest.mark.parametrize(
    ("least", "step"),
    [
        (0.0003, 0.0005),
        (0.03, 0.05),
        (0.1, 0.1),
        (0.7, 1),
        (7, 10),
        (40, 60),
        (700, 900),
        (5000, 7200),
        (90_000, 172_800),
        (2e6, 2_419_200),
        (90 * 86_400, 100 * 86_400),
        (1100 * 86_400, 2000 * 86_400),
    ],
)
def test_steps_are_those_of_clocks(least: float, step: float) -> None:
    assert nice_step(least) == pytest.approx(step)


# --- the bars ---


def test_a_task_waits_then_tries_then_waits_and_tries_again() -> None:
    attempts = [(1, "failed", 2.0, 3.0), (2, "success", 5.0, 6.0)]
    assert bars_of(1.0, attempts) == [
        Bar("wait", 1, 2),
        Bar("attempt", 2, 3, "failed", 1),
        Bar("delay", 3, 5, "failed"),
        Bar("attempt", 5, 6, "success", 2),
    ]


def test_the_time_after_a_success_is_no_delay() -> None:
    """It was set back by a person much later."""
    assert [bar.kind for bar in bars_of(None, [(1, "success", 0.0, 1.0), (2, "success", 9.0, 10.0)])] == ["attempt", "attempt"]


def test_the_next_attempt_is_awaited_up_to_its_moment() -> None:
    assert bars_of(0.0, [(1, "failed", 0.0, 1.0)], due=4.0)[-1] == Bar("delay", 1, 4, "failed")


def test_times_that_overlap_are_merged() -> None:
    assert merged([(3, 4), (0, 2), (1, 2.5), (4, 5)]) == [(0, 2.5), (3, 5)]
    assert merged([]) == []


def test_density_counts_what_ran_at_once() -> None:
    axis = Axis(0, 4, [(0, 4)])
    assert density([(0, 0.9), (0, 2.9), (2, 3.9)], axis, 4) == [2, 1, 2, 1]
    assert density([], axis, 3) == [0, 0, 0]


def test_rows_of_the_greatest_weight_are_shown_with_all_that_they_stand_below() -> None:
    weights = [(4, 1.0), (4, 9.0), (4, 2.0), (0, 0.1)]
    assert chosen(weights, [None, None, None, 0], 3) == {0, 1, 3}
    assert chosen(weights, [None, None, None, 0], 4) == {0, 1, 2, 3}
    assert chosen(weights, [None, None, None, 0], 1) == {1}


# --- who needs whom ---


def test_an_item_needs_what_its_whole_needs_and_of_a_stream_its_counterpart() -> None:
    graph = {
        "ids": GraphNode("ids"),
        "fetch": GraphNode("fetch", depends_on=("ids",), map_over="ids"),
        "parse": GraphNode("parse", depends_on=("fetch", "ids"), map_over="fetch"),
    }
    assert list(needs_of(graph, "fetch[3]")) == ["ids"]
    assert list(needs_of(graph, "parse[a.b]")) == ["fetch[a.b]", "ids"]
    assert list(needs_of(graph, "parse")) == ["fetch", "ids"]
    assert list(needs_of(graph, "unknown[3]")) == []
    assert [whole_of(text) for text in ("parse[3]", "parse", "[3]", "a[b]c")] == ["parse", None, None, None]


# --- users' texts ---


def test_what_a_user_typed_is_no_markup_and_turns_no_text_around() -> None:
    assert esc("<script>\"'&") == "&lt;script&gt;&quot;&#x27;&amp;"
    assert esc("a\u202eb\x1b[31m") == "a\\u202eb\\x1b[31m"
    assert "<" not in esc_lines("<b>\n</pre><script>", 100)
    assert attributes(class_="a", hidden=True, title='"><x', none=None) == ' class="a" hidden title="&quot;&gt;&lt;x"'


def test_of_a_long_traceback_the_end_is_kept() -> None:
    text = esc_lines("x" * 500 + "\nValueError: bad", 50)
    assert text.endswith("ValueError: bad")
    assert text.startswith("… 466 characters left out …")
    assert len(esc("y" * 500, 20)) == 20


def test_a_page_takes_only_so_much_text() -> None:
    budget = Budget(1000)
    assert len(budget.take("a" * 3000, 900) or "") < 1000
    assert budget.take("b" * 3000, 900) is not None
    assert budget.take("c", 900) is None
    assert budget.short == 1


def test_a_redaction_that_fails_leaves_nothing_of_the_text() -> None:
    def hook(text: str) -> str:
        raise RuntimeError(text)

    assert Budget(100, hook).take("secret", 100) == "(redaction failed)"


def test_the_place_of_an_error_is_that_of_its_last_frame() -> None:
    text = (
        'Traceback:\n  File "/srv/a.py", line 3, in main\n    x()\n  File "/srv/b.py", line 12, in load\n    y\nValueError: z\n'
    )
    assert place_of(text) == "/srv/b.py:12, in load"
    assert place_of(None) is None
    assert place_of("1 of 4 items failed.") is None
