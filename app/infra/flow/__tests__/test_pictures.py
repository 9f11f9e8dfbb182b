"""Pictures: which boxes stand in one, what shares a box where there are too many, and where each stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

import pytest

from .. import ExecutionState, GraphNode, TaskInstance, TaskType
from ..tools.pictures.layout import BESIDE, Layout, Place, layout_of
from ..tools.pictures.lettering import fitted
from ..tools.pictures.model import MOST_LEVELS, Arrow, Box, Picture, declared_inside, picture_of
from ..tools.pictures.ordering import crossings, order_layers

Upstreams = Mapping[str, Sequence[str]]
DIAMOND: Upstreams = {"extract": (), "left": ("extract",), "right": ("extract",), "join": ("left", "right")}


def graph_of(upstreams: Upstreams) -> dict[str, GraphNode]:
    return {task_id: GraphNode(task_id, depends_on=tuple(others)) for task_id, others in upstreams.items()}


def in_states(states: Mapping[str, str]) -> dict[str, TaskInstance]:
    return {task_id: TaskInstance(task_id, state=ExecutionState(state)) for task_id, state in states.items()}


def chain(length: int) -> dict[str, tuple[str, ...]]:
    return {f"t{index}": (f"t{index - 1}",) if index else () for index in range(length)}


def fan(width: int) -> dict[str, Sequence[str]]:
    work = [f"work_{index}" for index in range(width)]
    return {"source": (), **dict.fromkeys(work, ("source",)), "gather": work}


def random_dag(seed: int, size: int, reach: int = 15) -> dict[str, list[str]]:
    random = Random(seed)
    names = [f"t{index}" for index in range(size)]
    return {
        name: random.sample(names[max(0, index - reach) : index], min(index, random.choice([0, 1, 1, 2, 3])))
        for index, name in enumerate(names)
    }


def box(picture: Picture, key: str) -> Box:
    return next(found for found in picture.everything() if found.key == key)


# --- boxes and arrows ---


def test_each_task_has_a_box_and_each_dependency_an_arrow() -> None:
    picture = picture_of(graph_of(DIAMOND), title="diamond")
    assert [found.key for found in picture.boxes] == ["extract", "left", "right", "join"]
    assert {(arrow.source, arrow.target) for arrow in picture.arrows} == {
        ("extract", "left"),
        ("extract", "right"),
        ("left", "join"),
        ("right", "join"),
    }
    assert not picture.has_states
    assert {found.state for found in picture.boxes} == {None}


def test_the_boxes_of_a_run_have_its_states_and_those_that_it_does_not_know_have_none() -> None:
    picture = picture_of(graph_of(DIAMOND), tasks=in_states({"extract": "success", "left": "failed"}), state="failed")
    assert {found.key: found.state for found in picture.boxes} == {
        "extract": "success",
        "left": "failed",
        "right": None,
        "join": None,
    }
    assert picture.has_states


def test_the_items_of_a_mapped_task_are_counted_in_its_box_those_that_went_wrong_first() -> None:
    graph = {"extract": GraphNode("extract"), "parse": GraphNode("parse", depends_on=("extract",), map_over="extract")}
    tasks = in_states(
        {"extract": "success", "parse": "failed", "parse[0]": "success", "parse[a.b]": "failed", "parse[[]": "success"}
    )
    picture = picture_of(graph, tasks=tasks)
    assert [found.key for found in picture.boxes] == ["extract", "parse"]
    assert box(picture, "parse").kind == "map"
    assert box(picture, "parse").counts == {"success": 2, "failed": 1}
    assert box(picture, "parse").detail == "3 items: 1 failed, 2 success"
    assert picture.arrows == (Arrow("extract", "parse", mapped=True),)


def test_a_task_with_brackets_in_its_id_is_no_item() -> None:
    graph = {"parse": GraphNode("parse"), "parse[0]": GraphNode("parse[0]", depends_on=("parse",))}
    picture = picture_of(graph, tasks=in_states({"parse": "success", "parse[0]": "failed", "parse[1]": "failed"}))
    assert [(found.key, found.state, found.counts) for found in picture.boxes] == [
        ("parse", "success", {}),
        ("parse[0]", "failed", {}),
    ]


def test_a_branch_a_rule_and_further_attempts_are_told_beneath_the_label() -> None:
    graph = {"decide": GraphNode("decide", branch=True), "clean": GraphNode("clean", trigger_rule="all_done", name="Clean up")}
    tasks = in_states({"decide": "success", "clean": "success"})
    tasks["clean"].try_number = 2
    picture = picture_of(graph, tasks=tasks)
    assert box(picture, "decide").detail == "branch"
    assert box(picture, "clean").detail == "all_done · 3 attempts"
    assert box(picture, "clean").label == "Clean up"


def test_a_flow_that_is_not_sound_yet_is_drawn_without_what_is_wrong_with_it() -> None:
    graph = graph_of({"a": ("c", "nowhere"), "b": ("a",), "c": ("b",), "d": ("c", "d")})
    picture = picture_of(graph)
    assert {(arrow.source, arrow.target) for arrow in picture.arrows} == {("a", "b"), ("b", "c"), ("c", "d")}
    layout_of(picture)


def nested(depth: int) -> dict[str, GraphNode]:
    graph = {"inner": GraphNode("inner")}
    for _ in range(depth):
        graph = {
            "before": GraphNode("before"),
            "sub": GraphNode("sub", TaskType.FLOW, ("before",), inside=graph, flow_name="deeper"),
        }
    return graph


def test_a_nested_flow_is_opened_and_its_tasks_have_dotted_paths() -> None:
    graph = nested(2)
    picture = picture_of(graph, inside=declared_inside(graph))
    assert [found.key for found in picture.everything()] == ["before", "sub", "sub.before", "sub.sub", "sub.sub.inner"]
    inside = box(picture, "sub").inside
    assert inside is not None
    assert inside.arrows == (Arrow("sub.before", "sub.sub"),)
    assert box(picture, "sub").detail == "flow deeper"


def test_a_nested_flow_stays_closed_where_nobody_can_open_it_or_there_is_no_room() -> None:
    graph = nested(1)
    assert box(picture_of(graph), "sub").inside is None
    assert box(picture_of(graph, inside=declared_inside(graph), most=3), "sub").inside is not None
    assert box(picture_of(graph, inside=declared_inside(graph), most=2), "sub").inside is None


def test_a_mapped_nested_flow_stays_closed() -> None:
    each = GraphNode("each", TaskType.FLOW, map_over="list", inside={"inner": GraphNode("inner")})
    graph = {"list": GraphNode("list"), "each": each}
    assert box(picture_of(graph, inside=declared_inside(graph)), "each").inside is None


def test_flows_nested_deeper_than_a_reader_can_follow_stay_closed_there() -> None:
    graph = nested(3 * MOST_LEVELS)
    picture = picture_of(graph, inside=declared_inside(graph))
    assert max(found.key.count(".") for found in picture.everything()) == MOST_LEVELS
    layout_of(picture)


# --- folding ---


def quotient(ups: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]) -> dict[int, set[int]]:
    group_of = {position: number for number, group in enumerate(groups) for position in group}
    found: dict[int, set[int]] = {number: set() for number in range(len(groups))}
    for position, others in enumerate(ups):
        found[group_of[position]] |= {group_of[other] for other in others} - {group_of[position]}
    return found


def test_tasks_with_the_same_neighbours_share_a_box_and_one_that_failed_has_its_own() -> None:
    upstreams = fan(500)
    tasks = in_states({task_id: "failed" if task_id == "work_77" else "success" for task_id in upstreams})
    picture = picture_of(graph_of(upstreams), tasks=tasks, most=10)
    assert [(found.key, found.label, found.kind, found.detail) for found in picture.boxes] == [
        ("source", "source", "task", ""),
        ("work_0+", "work_*", "fold", "499 tasks"),
        ("work_77", "work_77", "task", ""),
        ("gather", "gather", "task", ""),
    ]
    assert len(box(picture, "work_0+").tasks) == 499
    assert {(arrow.source, arrow.target) for arrow in picture.arrows} == {
        ("source", "work_0+"),
        ("source", "work_77"),
        ("work_0+", "gather"),
        ("work_77", "gather"),
    }


def test_only_as_much_is_folded_as_must_be() -> None:
    rows = {
        f"row_{row}_{place}": (f"row_{row}_{place - 1}",) if place else () for row in range(3) for place in range(10 * row + 5)
    }
    picture = picture_of(graph_of(rows), most=30)
    assert sorted(found.kind for found in picture.boxes) == ["fold", *["task"] * 20]


def test_several_in_one_box_have_the_state_most_worth_knowing() -> None:
    tasks = in_states({f"t{index}": "skipped" if index == 40 else "success" for index in range(100)})
    picture = picture_of(graph_of(chain(100)), tasks=tasks, most=10)
    assert [(found.state, found.detail) for found in picture.boxes] == [("skipped", "100 tasks: 1 skipped, 99 success")]


@pytest.mark.parametrize("upstreams", [chain(20_000), fan(20_000), random_dag(3, 5000, 50)], ids=["chain", "fan", "random"])
def test_thousands_of_tasks_become_a_picture_that_can_be_looked_at(upstreams: Upstreams) -> None:
    picture = picture_of(graph_of(upstreams))
    assert 1 <= len(picture.boxes) <= 300
    layout = layout_of(picture)
    assert layout.width < 20_000
    assert layout.height < 20_000


# --- layout ---


def overlapping(places: Iterable[Place]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    known = list(places)
    for index, one in enumerate(known):
        for other in known[index + 1 :]:
            apart = (
                one.x + one.width <= other.x
                or other.x + other.width <= one.x
                or one.y + one.height <= other.y
                or other.y + other.height <= one.y
            )
            if not apart:
                found.append((one.box.key, other.box.key))
    return found


def check(layout: Layout) -> None:
    assert overlapping(layout.places) == []
    flat = layout.direction == "LR"
    by_key = {place.box.key: place for place in layout.places}
    for place in layout.places:
        assert place.x >= 0
        assert place.y >= 0
        assert place.x + place.width <= layout.width
        assert place.y + place.height <= layout.height
    for route in layout.routes:
        source, target = by_key[route.source], by_key[route.target]
        (x1, y1), (x2, y2) = route.points[0], route.points[-1]
        if flat:
            assert (x1, x2) == (source.x + source.width, target.x)
            assert source.y < y1 < source.y + source.height
            assert target.y < y2 < target.y + target.height
            assert [x for x, _ in route.points] == sorted(x for x, _ in route.points)
        else:
            assert (y1, y2) == (source.y + source.height, target.y)
            assert source.x < x1 < source.x + source.width
            assert [y for _, y in route.points] == sorted(y for _, y in route.points)


@pytest.mark.parametrize(
    "upstreams",
    [
        {},
        {"alone": ()},
        DIAMOND,
        chain(100),
        fan(298),
        {f"loose_{index}": () for index in range(40)},
        {
            f"l{layer}_{index}": [f"l{layer - 1}_{other}" for other in range(8)] if layer else ()
            for layer in range(6)
            for index in range(8)
        },
    ],
    ids=["empty", "alone", "diamond", "chain", "fan", "loose", "layers"],
)
def test_usual_shapes_are_laid_out_without_overlaps(upstreams: Upstreams) -> None:
    check(layout_of(picture_of(graph_of(upstreams))))


@pytest.mark.parametrize("reach", [60, 300])
@pytest.mark.parametrize("direction", [None, "LR", "TB"])
def test_hundreds_of_tasks_without_an_order_are_not_lost_in_a_large_picture(reach: int, direction: str | None) -> None:
    """What keeps all long arrows straight is four times as large, and all but a twentieth of it is empty."""
    layout = layout_of(picture_of(graph_of(random_dag(1, 300, reach))), direction)
    check(layout)
    filled = sum(place.width * place.height for place in layout.places)
    assert filled > 0.09 * layout.width * layout.height


def test_what_is_inside_a_nested_flow_stands_within_its_box() -> None:
    graph = nested(3)
    layout = layout_of(picture_of(graph, inside=declared_inside(graph)))
    seen = 0
    while True:
        check(layout)
        opened = [place for place in layout.places if place.inside is not None]
        if not opened:
            break
        (place,) = opened
        assert place.inside is not None
        assert place.inside.width <= place.width
        assert place.inside.height < place.height
        layout = place.inside
        seen += 1
    assert seen == 3


def test_an_arrow_past_several_layers_is_straight_there() -> None:
    upstreams = {**chain(8), "last": ("t0", "t7")}
    layout = layout_of(picture_of(graph_of(upstreams)), "LR")
    (long,) = [route for route in layout.routes if (route.source, route.target) == ("t0", "last")]
    inner = long.points[1:-1]
    assert len(inner) == 14
    assert len({y for _, y in inner}) == 1


def test_a_wide_fan_takes_several_columns_and_a_long_chain_runs_down_the_page() -> None:
    wide = layout_of(picture_of(graph_of(fan(298))))
    assert wide.direction == "LR"
    assert wide.height < 2 * wide.width < 4 * wide.height
    assert layout_of(picture_of(graph_of(chain(100)))).direction == "TB"


def test_where_each_of_several_leads_to_each_of_several_their_arrows_meet() -> None:
    upstreams = {"a": (), "b": (), "c": (), "x": ("a", "b", "c"), "y": ("a", "b", "c"), "z": ("a", "b", "c")}
    layout = layout_of(picture_of(graph_of(upstreams)))
    assert len(layout.routes) == 9
    assert len({route.points[1] for route in layout.routes}) == 1


def test_the_arrows_of_a_wide_fan_run_along_one_rail_between_its_layers() -> None:
    layout = layout_of(picture_of(graph_of({"source": (), **{f"w{index}": ("source",) for index in range(12)}})), "LR")
    rails = {route.turns for route in layout.routes}
    assert len(rails) == 1
    ((rail,),) = rails
    assert rail is not None
    assert max(place.x for place in layout.places) > rail > layout.routes[0].points[0][0]
    few = layout_of(picture_of(graph_of({"source": (), **{f"w{index}": ("source",) for index in range(4)}})), "LR")
    assert {route.turns for route in few.routes} == {(None,)}


def test_fans_whose_rails_would_run_over_one_another_get_rails_side_by_side() -> None:
    upstreams: dict[str, Sequence[str]] = {"a": (), "b": ()}
    upstreams |= {f"t{index}": ("a",) if index % 3 else ("b",) if index % 2 else ("a", "b") for index in range(40)}
    layout = layout_of(picture_of(graph_of(upstreams)), "LR")
    rails: dict[str, set[float]] = {"a": set(), "b": set()}
    for route in layout.routes:
        rails[route.source] |= {turn for turn in route.turns if turn is not None}
    assert rails["a"]
    assert not rails["a"] & rails["b"]


def test_a_tree_is_drawn_without_crossings_and_parents_in_the_middle_of_their_children() -> None:
    tree = {f"n{index}": (f"n{(index - 1) // 3}",) if index else () for index in range(40)}
    layout = layout_of(picture_of(graph_of(tree)), "LR")
    middle = {place.box.key: place.y + place.height / 2 for place in layout.places}
    for parent in range(13):
        children = [middle[f"n{3 * parent + offset}"] for offset in (1, 2, 3)]
        assert children == sorted(children)
        assert middle[f"n{parent}"] == pytest.approx(children[1])


def test_orders_with_crossings_are_mended() -> None:
    layers, downs = [[0, 1, 2], [3, 4, 5]], [[5], [4], [3], [], [], []]
    ups: list[list[int]] = [[], [], [], [2], [1], [0]]
    assert crossings(layers, downs) == 3
    order_layers(layers, ups, downs)
    assert crossings(layers, downs) == 0


def test_the_same_picture_is_always_laid_out_alike() -> None:
    graph = graph_of(random_dag(5, 80))
    assert layout_of(picture_of(graph)) == layout_of(picture_of(dict(graph)))


def test_boxes_without_arrows_stand_in_rows_beneath_the_others() -> None:
    layout = layout_of(picture_of(graph_of({"a": (), "b": ("a",), **{f"loose_{index}": () for index in range(20)}})))
    bottom = max(place.y + place.height for place in layout.places if place.box.key in "ab")
    loose = [place for place in layout.places if place.box.key.startswith("loose")]
    assert min(place.y for place in loose) >= bottom + BESIDE
    assert 1 < len({place.y for place in loose}) < 20


# --- lettering ---


def test_a_long_id_keeps_its_beginning_and_its_end() -> None:
    assert fitted("download_the_quarterly_figures_2026", 13, 150) == "download_the…s_2026"
