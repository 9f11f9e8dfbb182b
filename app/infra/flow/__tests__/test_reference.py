"""Small flows whose ends anybody can work out: the reference says them, and so does the engine.

That keeps the two from being wrong together where they are compared at random.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from .. import MemoryStore
from .conftest import FakeClock
from .reference import ALWAYS_FAILS, Does, Ended, Sketch, Sketched, evaluate
from .sketches import PARAMS, Witness, build

FAILS = (Does(failures=ALWAYS_FAILS),)
SKIPS = (Does(skips=True),)
REFUSED = (Does(run_if="no"),)
FINE = Does()


def task(task_id: str, *after: str, **more: object) -> Sketched:
    return replace(Sketched(task_id, after), **more)  # type: ignore[arg-type]


def lists(length: int, **more: object) -> Sketched:
    return task("files", gives="list", length=length, **more)


SCENES: dict[str, tuple[Sketch, str]] = {
    "what comes after a failure is skipped, and counts as failed": (
        (
            task("a", does=FAILS),
            task("b", "a"),
            task("c", "b"),
            task("d", "c", rule="none_failed"),
            task("e", "c", rule="one_failed"),
        ),
        "a failed, b skipped, c skipped, d skipped, e success: failed",
    ),
    "what comes after a skip is skipped, and counts as skipped": (
        (task("a", does=SKIPS), task("b", "a"), task("c", "b", rule="none_failed"), task("d", "b", rule="one_failed")),
        "a skipped, b skipped, c success, d skipped: success",
    ),
    "a condition that says no is a skip": (
        (task("a", has_run_if=True, does=REFUSED), task("b", "a"), task("c", "a", rule="all_skipped")),
        "a skipped, b skipped, c success: success",
    ),
    "a condition that raises is a failure": (
        (task("a", has_run_if=True, does=(Does(run_if="raises"),), max_retries=2), task("b", "a", rule="all_failed")),
        "a failed, b success: failed",
    ),
    "cleaning up does not hide the failure": (
        (task("a"), task("b", "a", does=FAILS), task("c", "b"), task("d", "a", "b", "c", rule="all_done")),
        "a success, b failed, c skipped, d success: failed",
    ),
    "a skip that a rule made of a success counts as skipped": (
        (task("a"), task("b", "a", rule="all_failed"), task("c", "b", rule="none_failed")),
        "a success, b skipped, c success: success",
    ),
    "one success is enough, and nothing but failures is not": (
        (task("a", does=FAILS), task("b"), task("c", "a", "b", rule="one_success"), task("d", "a", rule="one_success")),
        "a failed, b success, c success, d skipped: failed",
    ),
    "a branch skips what it did not choose, but not what comes after that as well": (
        (
            task("a", gives="choice", chooses=("b",)),
            task("b", "a"),
            task("c", "a", rule="all_done"),
            task("d", "a", "b", "c", rule="none_failed_min_one_success"),
            task("e", "c"),
        ),
        "a success, b success, c skipped, d success, e skipped: success",
    ),
    "a branch comes before whatever else would have said otherwise": (
        (
            task("a", does=FAILS),
            lists(1, does=FAILS),
            task("b", gives="choice", chooses=("f",), turns=9),
            task("c", "a", "b"),
            task("d", "b", map_over="files"),
            task("e", "b", rule="always"),
            task("f", "b"),
            task("g", "c", "d", "e", rule="none_failed"),
        ),
        "a failed, files failed, b success, c skipped, d skipped, e skipped, f success, g success: failed",
    ),
    "a branch that fails chooses nothing, and rules decide": (
        (task("a", gives="choice", chooses=("b",), does=FAILS), task("b", "a"), task("c", "a", rule="all_done")),
        "a failed, b skipped, c success: failed",
    ),
    "a branch that names a stranger fails": (
        (task("a", gives="choice", chooses=("c",)), task("b", "a"), task("c", "b")),
        "a failed, b skipped, c skipped: failed",
    ),
    "each item ends by itself, and one that failed fails the whole": (
        (lists(3), task("parse", map_over="files", does=(FINE, *FAILS, *SKIPS)), task("after", "parse", rule="all_failed")),
        "files success, parse failed, parse[0] success, parse[1] failed, parse[2] skipped, after success: failed",
    ),
    "one item that was not skipped is enough": (
        (lists(2), task("parse", map_over="files", does=(FINE, *SKIPS)), task("after", "parse")),
        "files success, parse success, parse[0] success, parse[1] skipped, after success: success",
    ),
    "items that were all skipped make a skipped whole": (
        (
            lists(2),
            task("parse", map_over="files", does=SKIPS),
            task("after", "parse"),
            task("last", "parse", rule="none_failed"),
        ),
        "files success, parse skipped, parse[0] skipped, parse[1] skipped, after skipped, last success: success",
    ),
    "a map over nothing succeeds with an empty list, and so does one that goes behind it": (
        (lists(0), task("parse", map_over="files"), task("store", map_over="parse"), task("after", "store")),
        "files success, parse success, store success, after success: success",
    ),
    "what is no list fails the map, and closes the gate of the one behind it": (
        (
            task("files", gives="text"),
            task("parse", map_over="files", max_retries=2),
            task("store", map_over="parse", rule="all_done"),
            task("after", "store", rule="all_failed"),
        ),
        "files success, parse failed, store skipped, after success: failed",
    ),
    "a gate that was skipped skips the map": (
        (lists(2, does=SKIPS), task("parse", map_over="files", rule="all_done"), task("after", "parse", rule="all_skipped")),
        "files skipped, parse skipped, after success: success",
    ),
    "behind a map each item waits for its own alone": (
        (
            lists(3),
            task("fetch", map_over="files", does=(FINE, *FAILS, *SKIPS)),
            task("parse", map_over="fetch"),
            task("mourn", map_over="fetch", rule="all_failed"),
            task("every", map_over="fetch", rule="all_done"),
        ),
        "files success, fetch failed, fetch[0] success, fetch[1] failed, fetch[2] skipped, "
        "parse failed, parse[0] success, parse[1] skipped, parse[2] skipped, "
        "mourn success, mourn[0] skipped, mourn[1] success, mourn[2] skipped, "
        "every success, every[0] success, every[1] success, every[2] success: failed",
    ),
    "a map over a map that is skipped by another upstream is so although the first has not ended": (
        (
            lists(1),
            task("a"),
            task("fetch", map_over="files", turns=9),
            task("parse", "a", map_over="fetch", rule="one_failed"),
            task("last", "parse", "fetch", rule="one_failed"),
        ),
        "files success, a success, fetch success, fetch[0] success, parse skipped, last skipped: success",
    ),
    "items keep their keys": (
        (lists(2), task("fetch", map_over="files", keys="good"), task("parse", map_over="fetch")),
        "files success, fetch success, fetch[k.files-0] success, fetch[k.files-1] success, "
        "parse success, parse[k.files-0] success, parse[k.files-1] success: success",
    ),
    "the same key twice fails the map": (
        (lists(2), task("parse", map_over="files", keys="same")),
        "files success, parse failed: failed",
    ),
    "what is too long fails the map": (
        (lists(3), task("parse", map_over="files", max_map_size=2), task("store", map_over="files", max_map_size=3)),
        "files success, parse failed, store success, store[0] success, store[1] success, store[2] success: failed",
    ),
    "the rule of a map goes by its other dependencies": (
        (
            task("a", does=FAILS),
            lists(1),
            task("parse", "a", map_over="files"),
            task("store", "a", map_over="files", rule="all_failed"),
        ),
        "a failed, files success, parse skipped, store success, store[0] success: failed",
    ),
    "a mapped subflow is a run for each item": (
        (lists(2), task("each", map_over="files", child=(task("a"), task("b", "a"))), task("after", "each")),
        "files success, each success, each[0] success, each[0].a success, each[0].b success, "
        "each[1] success, each[1].a success, each[1].b success, after success: success",
    ),
    "a subflow that fails inside counts as failed": (
        (task("sub", child=(task("a", does=FAILS), task("b", rule="always"))), task("after", "sub")),
        "sub failed, sub.a failed, sub.b success, after skipped: failed",
    ),
}


def states_in(ended: Ended, before: str = "") -> dict[str, str]:
    """The state of each task and item by its path, as the reference says."""
    found: dict[str, str] = {}
    for task_id, end in ended.tasks.items():
        for path, one in [(task_id, end), *((f"{task_id}[{key}]", item) for key, item in (end.items or {}).items())]:
            found[before + path] = one.state
            if one.inside is not None:
                found.update(states_in(one.inside, f"{before}{path}."))
    return found


def read(text: str) -> dict[str, str]:
    """The states that a scene spells out."""
    return {path: state for path, _, state in (part.rpartition(" ") for part in text.rpartition(": ")[0].split(", "))}


@pytest.mark.parametrize("scene", SCENES)
def test_the_reference_says_what_anybody_would(scene: str) -> None:
    sketch, text = SCENES[scene]
    ended = evaluate(sketch, PARAMS)
    assert states_in(ended) == read(text)
    assert ended.state == text.rpartition(": ")[2]


@pytest.mark.parametrize("scene", SCENES)
async def test_the_engine_does(scene: str) -> None:
    sketch, text = SCENES[scene]
    witness, store = Witness(), MemoryStore()
    flow = build(sketch, witness, store=store, clock=FakeClock())
    run = await flow.run_until_complete(flow.init_run(PARAMS))
    states = {path: task.state.value for path, task in run.get_all_tasks_recursive(store).items()}
    assert states == read(text)
    assert run.state == text.rpartition(": ")[2]
    assert witness.complaints == []


def test_outputs_are_those_of_the_functions() -> None:
    """What was handed, and what became of it: a list of a map's outputs, with None for what was skipped."""
    sketch = (lists(2), task("a", does=SKIPS), task("parse", "a", map_over="files", does=(FINE, *SKIPS), rule="all_done"))
    ended = evaluate(sketch, PARAMS)
    assert ended.tasks["files"].output == ["files 0", "files 1"]
    assert ended.tasks["parse"].output == [["parse", 0, {}, "files 0", {"a": None}], None]
    assert ended.result == ended.tasks["parse"].output
