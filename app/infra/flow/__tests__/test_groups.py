"""The names of included tasks: the nearest task of a name is meant, and the way back says the nearest name."""

from __future__ import annotations

import pytest

from ..groups import Group, group_of, regrouping


def nested() -> tuple[Group, Group]:
    """A flow with `load` and `use` that was included as `a` by one with a `load` and an `end`, which was included as `x`."""
    inner = group_of({"load": "a_load", "use": "a_use"})
    now = regrouping({"load": "x_load", "a_load": "x_a_load", "a_use": "x_a_use", "end": "x_end"})
    return now(inner), now(None)


@pytest.mark.parametrize(
    ("name", "from_inside", "from_between"),
    [
        ("load", "x_a_load", "x_load"),
        ("use", "x_a_use", "use"),
        ("end", "x_end", "x_end"),
        ("a_load", "x_a_load", "x_a_load"),
        ("x_load", "x_load", "x_load"),
        ("elsewhere", "elsewhere", "elsewhere"),
        ("load[3]", "x_a_load[3]", "x_load[3]"),
        ("end[a.b]", "x_end[a.b]", "x_end[a.b]"),
        ("elsewhere[3]", "elsewhere[3]", "elsewhere[3]"),
        ("load]", "load]", "load]"),
        ("[3]", "[3]", "[3]"),
    ],
)
def test_a_name_means_the_task_that_is_nearest(name: str, from_inside: str, from_between: str) -> None:
    inside, between = nested()
    assert inside.id_of(name) == from_inside
    assert between.id_of(name) == from_between


@pytest.mark.parametrize(
    ("task_id", "from_inside", "from_between"),
    [
        ("x_a_load", "load", "a_load"),
        ("x_load", "load", "load"),
        ("x_end", "end", "end"),
        ("x_a_use[k]", "use[k]", "a_use[k]"),
        ("elsewhere", "elsewhere", "elsewhere"),
    ],
)
def test_the_way_back_is_the_nearest_name(task_id: str, from_inside: str, from_between: str) -> None:
    inside, between = nested()
    assert inside.name_of(task_id) == from_inside
    assert between.name_of(task_id) == from_between


def test_every_name_that_means_one_of_some_tasks_is_told_and_no_name_that_means_another() -> None:
    inside, between = nested()
    assert inside.names_for(["x_a_load", "x_load", "other", "x_end[1]"]) == {
        "load": "x_a_load",
        "a_load": "x_a_load",
        "x_a_load": "x_a_load",
        "x_load": "x_load",  # `load` is the nearer one
        "other": "other",
        "end[1]": "x_end[1]",
        "x_end[1]": "x_end[1]",
    }
    assert between.names_for(["x_load", "use"]) == {"load": "x_load", "x_load": "x_load", "use": "use"}
    # What is called `use` around it cannot be asked for from inside, where that is another task.
    assert inside.names_for(["use"]) == {}


def test_of_the_tasks_that_one_function_serves_the_nearest_are_meant() -> None:
    inside, between = nested()
    assert inside.meant_by(["load", "x_load", "x_a_load"]) == ["x_a_load"]
    assert inside.meant_by(["load", "x_load"]) == ["x_load"]
    assert between.meant_by(["load", "x_load", "x_a_load"]) == ["x_load", "x_a_load"]
    assert between.meant_by(["load", "other"]) == ["load", "other"]


def test_tasks_that_came_in_together_share_their_group() -> None:
    inner = group_of({"load": "a_load"})
    now = regrouping({"a_load": "x_a_load"})
    assert now(inner) is now(inner)
    assert now(None) is now(inner).outer


@pytest.mark.parametrize("name", [None, 5, ["load"]])
def test_what_is_no_name_is_given_back_for_others_to_refuse(name: object) -> None:
    assert nested()[0].id_of(name) is name  # type: ignore[arg-type]
