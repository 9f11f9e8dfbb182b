"""The time of runs that nobody thought of, divided among the links of their critical paths; skipped without Hypothesis."""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis", reason="property tests need Hypothesis: pip install -r requirements-dev.txt")

from hypothesis import given  # noqa: E402 - only once it is known to be there
from hypothesis import strategies as st  # noqa: E402

from ..tools.report.critical_path import Span, critical_path, divided  # noqa: E402
from .test_report_parts import total  # noqa: E402


@given(
    spans=st.lists(st.tuples(st.floats(-5, 100), st.floats(-5, 100), st.sets(st.integers(0, 12), max_size=3)), max_size=12),
    attempts=st.lists(
        st.lists(
            st.tuples(st.sampled_from(["failed", "interrupted", "success"]), st.floats(-5, 110), st.floats(-5, 110)), max_size=4
        ),
        min_size=12,
        max_size=12,
    ),
    cuts=st.lists(st.floats(0, 100), max_size=8, unique=True),
    length=st.floats(0, 100),
)
def test_parts_waits_and_the_rest_are_the_length_of_the_run_whatever_the_clocks_said(
    spans: list[tuple[float, float, set[int]]],
    attempts: list[list[tuple[str, float, float]]],
    cuts: list[float],
    length: float,
) -> None:
    graph = {
        number: Span(start, end, [need for need in sorted(needs) if need < number])
        for number, (start, end, needs) in enumerate(spans)
    }
    steps = critical_path(graph, graph, 0.0, length)
    edges = [min(cut, length) for cut in sorted(cuts)]
    division = divided(steps, attempts.__getitem__, list(zip(edges[::2], edges[1::2])), length)
    assert total(division) == pytest.approx(length, abs=1e-6)
    assert all(min(part.worked, part.between, part.waited, part.share) >= 0 for part in division.parts)
    assert sum(part.share for part in division.parts) <= 1 + 1e-6
