"""What `get_execution_details` says of rules, conditions, branches and maps, their items included."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from .. import AsyncFlow, Context, SkipTask, Store
from .conftest import returns, run


def details_of(flow: AsyncFlow, run_id: str) -> dict[str, Any]:
    """The tasks of a run, by id, as whoever shows them gets them."""
    tasks: dict[str, Any] = json.loads(json.dumps(flow.get_execution_details(run_id)))["tasks"]
    return tasks


def enough(ctx: Context, least: int = 0) -> bool:
    return bool(ctx.item is None or ctx.item >= least)


def key_of(item: int) -> str:
    return f"no {item}"


def parse(ctx: Context, item: int) -> int:
    ctx.log(f"item {item}")
    if item == 2:
        raise SkipTask("two")
    if item == 3:
        raise ValueError("three")
    return item * 10


def mapped_flow(store: Store, **hooks: Any) -> AsyncFlow:
    flow = AsyncFlow("flow", store, **hooks)
    flow.add_task_definition("files", returns([1, 2, 3]))
    flow.add_task_definition(
        "parse", parse, map_over="files", map_key=key_of, max_map_size=9, run_if=partial(enough, least=1), name="Parse"
    )
    return flow.add_task_definition("end", returns(1), dependencies=["parse"], trigger_rule="all_done")


async def test_each_task_says_by_what_it_runs_or_not(store: Store) -> None:
    flow = AsyncFlow("flow", store)
    flow.add_task_definition("decide", returns("left"), branch=True)
    flow.add_task_definition("left", returns(1), dependencies=["decide"], run_if=enough)
    flow.add_task_definition("right", returns(1), dependencies=["decide"])
    flow.add_task_definition("meet", returns(1), dependencies=["left", "right"], trigger_rule="one_success")
    tasks = details_of(flow, (await run(flow)).id)
    names = ("trigger_rule", "run_if", "branch", "map_over", "map_key", "max_map_size", "items", "item_of", "map_index")
    assert {task_id: tuple(task[name] for name in names) for task_id, task in tasks.items()} == {
        "decide": ("all_success", None, True, *[None] * 6),
        "left": ("all_success", "enough", False, *[None] * 6),
        "right": ("all_success", None, False, *[None] * 6),
        "meet": ("one_success", None, False, *[None] * 6),
    }
    assert (tasks["decide"]["output"], tasks["right"]["reason"]) == ("left", "branch 'decide' did not choose it")


async def test_a_map_shows_the_whole_and_each_item_behind_the_declared_tasks(store: Store) -> None:
    flow = mapped_flow(store)
    tasks = details_of(flow, (await run(flow)).id)
    items = ["parse[no 1]", "parse[no 2]", "parse[no 3]"]
    assert list(tasks) == ["files", "parse", "end", *items]
    whole = tasks["parse"]
    assert (whole["items"], whole["item_of"], whole["map_index"]) == (items, None, None)
    assert (whole["state"], whole["reason"]) == ("failed", "1 of 3 items failed: parse[no 3]: ValueError: three")
    assert [(tasks[item]["item_of"], tasks[item]["map_index"], tasks[item]["items"]) for item in items] == [
        ("parse", 0, None),
        ("parse", 1, None),
        ("parse", 2, None),
    ]
    for task in (whole, *(tasks[item] for item in items)):
        said = (task["map_over"], task["map_key"], task["max_map_size"], task["run_if"], task["name"], task["depends_on"])
        assert said == ("files", "key_of", 9, "enough", "Parse", ["files"])
    assert [(tasks[item]["state"], tasks[item]["output"], tasks[item]["reason"]) for item in items] == [
        ("success", 10, None),
        ("skipped", None, "two"),
        ("failed", None, "ValueError: three"),
    ]
    attempts = [tasks[item]["attempts"] for item in items]
    assert [[(one["result"], one["logs"][0]["message"]) for one in each] for each in attempts] == [
        [("success", "item 1")],
        [("skipped", "item 2")],
        [("failed", "item 3")],
    ]


def test_before_there_is_a_list_there_are_no_items(store: Store) -> None:
    flow = mapped_flow(store)
    tasks = details_of(flow, flow.init_run())
    assert (list(tasks), tasks["parse"]["items"], tasks["parse"]["map_over"]) == (["files", "parse", "end"], None, "files")


async def test_an_empty_list_has_no_items(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("files", returns([]))
    flow.add_task_definition("parse", parse, map_over="files")
    assert details_of(flow, (await run(flow)).id)["parse"]["items"] == []


async def test_each_item_of_a_mapped_subflow_has_its_own_run_nested(store: Store) -> None:
    child = AsyncFlow("child").add_task_definition("double", lambda ctx: ctx.params["item"] * 2)
    flow = AsyncFlow("flow", store).add_task_definition("files", returns([1, 2]))
    flow.add_subflow_definition("each", child, map_over="files")
    done = await run(flow)
    tasks = details_of(flow, done.id)
    for item, doubled in (("each[0]", 2), ("each[1]", 4)):
        inside = tasks[item]["subflow"]
        assert (inside["run_id"], inside["tasks"]["double"]["output"]) == (done.tasks[item].child_run_id, doubled)
        assert (inside["parent_run_id"], inside["parent_task_id"]) == (done.id, item)
    assert (tasks["each"]["output"], tasks["each"]["subflow"]["run_id"]) == ([2, 4], None)
    assert tasks["each"]["subflow"]["tasks"]["double"]["state"] == "none"


async def test_items_whose_map_the_flow_no_longer_has_are_shown_as_they_were(store: Store) -> None:
    done = await run(mapped_flow(store))
    later = AsyncFlow("flow", store).add_task_definition("files", returns([1]))
    task = details_of(later, done.id)["parse[no 1]"]
    assert (task["state"], task["output"], task["item_of"], task["map_over"]) == ("success", 10, None, None)


async def test_what_items_say_goes_through_the_hook_too(store: Store) -> None:
    class Condition:
        def __call__(self, ctx: Context) -> bool:
            return True

        def __repr__(self) -> str:
            return "<three tokens>"

    flow = mapped_flow(store, redact=lambda text: text.replace("three", "***"))
    flow.add_task_definition("asks", returns("three"), run_if=Condition())
    tasks = details_of(flow, (await run(flow)).id)
    assert tasks["parse"]["reason"] == "1 of 3 items failed: parse[no 3]: ValueError: ***"
    assert tasks["parse[no 3]"]["reason"] == "ValueError: ***"
    assert (tasks["asks"]["run_if"], tasks["asks"]["output"]) == ("<*** tokens>", "***")
    assert "three" not in json.dumps(tasks)
