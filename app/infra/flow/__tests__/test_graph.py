"""The graph as a value: small dicts in, answers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import pytest

from .. import CycleError, UnknownDependencyError
from ..graph import Graph

DIAMOND: Mapping[str, Sequence[str]] = {"load": (), "left": ("load",), "right": ("load",), "join": ("left", "right")}
CHAIN_LENGTH = 100_000


def chain(length: int) -> dict[str, tuple[str, ...]]:
    """Tasks `t0`, `t1` ..., each depending on the one before."""
    return {f"t{index}": (f"t{index - 1}",) if index else () for index in range(length)}


def random_dag(seed: int, size: int = 40) -> dict[str, list[str]]:
    """A graph whose tasks are defined in an order that is none of its own."""
    random = Random(seed)
    names = [f"t{index}" for index in range(size)]
    edges = {name: random.sample(names[:index], min(index, random.randint(0, 3))) for index, name in enumerate(names)}
    return {name: edges[name] for name in random.sample(names, size)}


def test_a_graph_tells_its_tasks_in_the_order_of_their_definition() -> None:
    graph = Graph({"b": ("a",), "a": ()})
    assert list(graph) == ["b", "a"]
    assert len(graph) == 2
    assert "a" in graph
    assert "c" not in graph
    assert repr(graph) == "<Graph of 2 tasks>"


def test_direct_neighbours_are_told_in_both_directions() -> None:
    graph = Graph(DIAMOND)
    assert graph.upstream("join") == ("left", "right")
    assert graph.upstream("load") == ()
    assert graph.downstream("load") == ("left", "right")
    assert graph.downstream("join") == ()


@pytest.mark.parametrize(
    ("task_id", "ancestors", "descendants"),
    [
        ("load", set(), {"left", "right", "join"}),
        ("left", {"load"}, {"join"}),
        ("join", {"load", "left", "right"}, set()),
    ],
)
def test_ancestors_and_descendants_reach_far_and_leave_out_the_task_itself(
    task_id: str, ancestors: set[str], descendants: set[str]
) -> None:
    graph = Graph(DIAMOND)
    assert graph.ancestors(task_id) == ancestors
    assert graph.descendants([task_id]) == descendants


def test_descendants_of_several_tasks_leave_out_all_of_them_even_where_one_is_downstream_of_another() -> None:
    graph = Graph({"a": (), "b": ("a",), "c": ("b",), "d": ()})
    assert graph.descendants(["a", "b"]) == {"c"}
    assert graph.descendants([]) == set()


@pytest.mark.parametrize(
    ("upstream", "leaves"),
    [
        ({}, []),
        ({"a": ()}, ["a"]),
        (DIAMOND, ["join"]),
        ({"z": (), "b": ("a",), "a": (), "c": ("a",)}, ["z", "b", "c"]),
    ],
)
def test_leaves_are_the_tasks_nothing_depends_on_in_the_order_of_definition(
    upstream: Mapping[str, Sequence[str]], leaves: list[str]
) -> None:
    assert Graph(upstream).leaves() == leaves


@pytest.mark.parametrize("seed", range(10))
def test_the_order_has_every_task_once_and_each_after_everything_upstream_of_it(seed: int) -> None:
    upstream = random_dag(seed)
    order = Graph(upstream).order()
    assert sorted(order) == sorted(upstream)
    place = {task_id: index for index, task_id in enumerate(order)}
    assert all(place[dependency] < place[task_id] for task_id, ids in upstream.items() for dependency in ids)


@pytest.mark.parametrize("seed", range(10))
def test_is_upstream_agrees_with_ancestors_for_every_pair_of_a_random_graph(seed: int) -> None:
    upstream = random_dag(seed)
    graph = Graph(upstream)
    for of in upstream:
        ancestors = graph.ancestors(of)
        assert {task_id for task_id in upstream if graph.is_upstream(task_id, of=of)} == ancestors
        assert {task_id for task_id in upstream if of in graph.descendants([task_id])} == ancestors


def test_a_task_is_not_upstream_of_itself() -> None:
    graph = Graph(DIAMOND)
    assert not any(graph.is_upstream(task_id, of=task_id) for task_id in graph)


def test_a_dependency_named_twice_counts_once() -> None:
    graph = Graph({"a": (), "b": ("a", "a")})
    assert graph.upstream("b") == ("a",)
    assert graph.downstream("a") == ("b",)


def test_a_graph_keeps_nothing_of_the_dict_it_was_made_of() -> None:
    upstream = {"a": [], "b": ["a"]}
    graph = Graph(upstream)
    upstream["b"].append("c")
    upstream["d"] = []
    assert graph.upstream("b") == ("a",)
    assert list(graph) == ["a", "b"]


# --- refused ---


def test_an_unknown_dependency_is_refused_with_who_needs_it_and_a_near_name() -> None:
    with pytest.raises(UnknownDependencyError) as caught:
        Graph({"extract": (), "load": ("extrct",)}, "nightly")
    error = caught.value
    assert (error.flow_name, error.task_id, error.dependency, error.suggestion) == ("nightly", "load", "extrct", "extract")
    assert str(error).endswith("depends on 'extrct', which is no task of that flow. Did you mean 'extract'?")


@pytest.mark.parametrize("dependency", ["quite_different", "loads"])
def test_neither_a_far_name_nor_the_task_itself_is_suggested(dependency: str) -> None:
    with pytest.raises(UnknownDependencyError) as caught:
        Graph({"extract": (), "load": (dependency,)})
    assert caught.value.suggestion is None
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("upstream", "path"),
    [
        ({"a": ("b",), "b": ("c",), "c": ("a",)}, "a -> b -> c -> a"),
        ({"a": ("a",)}, "a -> a"),
        ({"a": (), "b": ("a", "c"), "c": ("b",)}, "b -> c -> b"),
        ({"behind": ("a",), "a": ("b",), "b": ("a",)}, "a -> b -> a"),
    ],
    ids=["three in a circle", "one that needs itself", "a way in", "a way out"],
)
def test_a_cycle_is_refused_with_its_path_and_nothing_beside_it(upstream: Mapping[str, Sequence[str]], path: str) -> None:
    with pytest.raises(CycleError) as caught:
        Graph(upstream, "nightly")
    assert " -> ".join(caught.value.cycle) == path
    assert f"'nightly' depend on each other in a circle: {path} (" in str(caught.value)


@pytest.mark.parametrize("seed", range(10))
def test_the_cycle_told_is_one_that_the_graph_has(seed: int) -> None:
    upstream = random_dag(seed)
    order = Graph(upstream).order()
    last = next(task_id for task_id in reversed(order) if upstream[task_id])
    first = sorted(Graph(upstream).ancestors(last))[0]
    upstream[first].append(last)
    with pytest.raises(CycleError) as caught:
        Graph(upstream)
    cycle = caught.value.cycle
    assert cycle[0] == cycle[-1]
    assert len(set(cycle)) == len(cycle) - 1
    assert all(needed in upstream[task_id] for task_id, needed in zip(cycle, cycle[1:]))


def test_a_long_cycle_is_whole_in_the_error_and_shortened_in_its_sentence() -> None:
    upstream = chain(1000)
    upstream["t0"] = ("t999",)
    with pytest.raises(CycleError) as caught:
        Graph(upstream)
    assert len(caught.value.cycle) == 1001
    assert "t0 -> t999 -> t998" in str(caught.value)
    assert " -> ... (989 more) ... -> " in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_chain_of_100_000_is_answered_without_recursion() -> None:
    graph = Graph(chain(CHAIN_LENGTH))
    last = f"t{CHAIN_LENGTH - 1}"
    assert graph.order()[-1] == last
    assert graph.leaves() == [last]
    assert len(graph.ancestors(last)) == CHAIN_LENGTH - 1
    assert len(graph.descendants(["t0"])) == CHAIN_LENGTH - 1
    assert graph.is_upstream("t0", of=last)
    assert not graph.is_upstream(last, of="t0")


def test_a_graph_of_more_paths_than_anybody_could_walk_is_answered_at_once() -> None:
    # Sixty layers of two tasks, each needing both of the layer above: 2 ** 60 ways from the top to the bottom.
    layers = [(f"left{index}", f"right{index}") for index in range(60)]
    upstream = {task_id: above for above, layer in zip([(), *layers], layers) for task_id in layer}
    graph = Graph({"elsewhere": (), **upstream})
    assert graph.is_upstream("left0", of="right59")
    assert not graph.is_upstream("elsewhere", of="right59")
    assert len(graph.ancestors("left59")) == 118


def test_a_cycle_through_100_000_tasks_is_found_without_recursion() -> None:
    upstream = chain(CHAIN_LENGTH)
    upstream["t0"] = (f"t{CHAIN_LENGTH - 1}",)
    with pytest.raises(CycleError) as caught:
        Graph(upstream)
    assert len(caught.value.cycle) == CHAIN_LENGTH + 1
