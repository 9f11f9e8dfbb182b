"""Pictures of graphs, and of texts, that nobody thought of, made by Hypothesis; skipped where that is not installed."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from itertools import pairwise
from random import Random

import pytest

pytest.importorskip("hypothesis", reason="property tests need Hypothesis: pip install -r requirements-dev.txt")

from hypothesis import given  # noqa: E402 - only once it is known to be there
from hypothesis import strategies as st  # noqa: E402

from .. import GraphNode  # noqa: E402
from ..tools.pictures.compacting import pooled  # noqa: E402
from ..tools.pictures.folding import fold  # noqa: E402
from ..tools.pictures.layout import layout_of  # noqa: E402
from ..tools.pictures.lettering import fitted, text_width  # noqa: E402
from ..tools.pictures.mermaid import mermaid_text  # noqa: E402
from ..tools.pictures.model import picture_of  # noqa: E402
from ..tools.pictures.svg import svg_of  # noqa: E402
from .test_picture_texts import drawn, hostile, parsed  # noqa: E402
from .test_pictures import check, quotient, random_dag  # noqa: E402


@given(text=st.text(min_size=1, max_size=30))
def test_any_text_makes_an_svg_that_can_be_parsed(text: str) -> None:
    written = svg_of(hostile(text))
    written.encode()
    parsed(written)


@given(text=st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=40))
def test_mermaid_text_can_be_read_back(text: str) -> None:
    written = mermaid_text(text)
    assert not set('"`<>&;\\') & set(re.sub(r"#\d+;", "", written))
    assert re.sub(r"#(\d+);", lambda found: chr(int(found.group(1))), written) == text


@given(seed=st.integers(0, 1000), size=st.integers(0, 40))
def test_each_task_has_one_line_and_comes_after_what_it_depends_on(seed: int, size: int) -> None:
    upstreams = random_dag(seed, size)
    text = drawn(upstreams, columns=1000)
    order = [found.group(1) for found in re.finditer(r" (t\d+)$", text, re.MULTILINE)]
    assert sorted(order) == sorted(upstreams)
    place = {task_id: index for index, task_id in enumerate(order)}
    assert all(place[other] < place[task_id] for task_id, others in upstreams.items() for other in others)


@given(seed=st.integers(0, 10_000), size=st.integers(2, 120), most=st.integers(1, 60), apart=st.integers(0, 30))
def test_folding_keeps_every_task_once_makes_no_circle_and_leaves_no_more_than_it_may(
    seed: int, size: int, most: int, apart: int
) -> None:
    names = {name: position for position, name in enumerate(random_dag(seed, size))}
    ups = [[names[other] for other in others] for others in random_dag(seed, size).values()]
    groups = fold(ups, most, range(0, size, max(1, size // (apart + 1))))
    assert sorted(position for group in groups for position in group) == list(range(size))
    assert len(groups) <= max(most, 1)
    list(TopologicalSorter(quotient(ups, groups)).static_order())  # raises where there is a circle


@given(seed=st.integers(0, 10_000), size=st.integers(0, 60), direction=st.sampled_from([None, "LR", "TB"]))
def test_boxes_do_not_overlap_and_arrows_lead_onward_from_border_to_border(seed: int, size: int, direction: str | None) -> None:
    upstreams = random_dag(seed, size)
    random = Random(seed)
    graph = {
        f"{'long name ' * random.randint(0, 5)}{task_id}": GraphNode(
            task_id, depends_on=(), trigger_rule=random.choice(["all_success", "all_done"])
        )
        for task_id in upstreams
    }
    names = dict(zip(upstreams, graph))
    graph = {
        names[task_id]: GraphNode(names[task_id], depends_on=tuple(names[other] for other in upstreams[task_id]))
        for task_id in upstreams
    }
    check(layout_of(picture_of(graph), direction))


@given(text=st.text(max_size=80), width=st.floats(0, 300))
def test_a_text_that_is_cut_fits_and_keeps_both_its_ends(text: str, width: float) -> None:
    cut = fitted(text, 13, width)
    assert cut == text or text_width(cut, 13) <= max(width, text_width("…", 13)) + 1e-6
    if cut != text:
        head, _, tail = cut.partition("…")
        assert text.startswith(head)
        assert text.endswith(tail)


@given(
    wanted=st.lists(st.floats(-1000, 1000), min_size=1, max_size=20),
    weights=st.lists(st.floats(0.01, 20), min_size=20, max_size=20),
)
def test_drawn_together_none_comes_too_near_another_and_what_has_room_stands_where_it_wants(
    wanted: list[float], weights: list[float]
) -> None:
    rooms = [0.0, *[10.0] * (len(wanted) - 1)]
    found = pooled(wanted, weights[: len(wanted)], rooms)
    assert all(right - left >= 10 - 1e-6 for left, right in pairwise(found))
    if all(right - left >= 10 for left, right in pairwise(wanted)):
        assert found == pytest.approx(wanted)
    mean = sum(place * weight for place, weight in zip(found, weights)) / sum(weights[: len(found)])
    assert mean == pytest.approx(
        sum(place * weight for place, weight in zip(wanted, weights)) / sum(weights[: len(found)]), abs=1e-6
    )
