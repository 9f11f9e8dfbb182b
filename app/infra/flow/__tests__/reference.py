"""What a flow with trigger rules, conditions, branches and maps must come to: slow, and obviously right.

One look at each task, upstreams first; no queue, no counter, no event, and nothing of the engine. It must not know how the engine
decides, so that the engine is not compared with itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

ALWAYS_FAILS = 99
"""Of `Does.failures`: more than anybody retries."""


@dataclass(frozen=True)
class Does:
    """What happens where a task, or one item of a mapped task, comes to its turn."""

    run_if: str = "yes"
    """What its condition says, where the task has one: "yes", "no", or it "raises"."""
    failures: int = 0
    """How many attempts fail at first."""
    skips: bool = False
    """Whether the first attempt that does not fail raises SkipTask."""

    def __repr__(self) -> str:
        said = (f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if getattr(self, one.name) != one.default)
        return f"Does({', '.join(said)})"


PLAINLY = Does()


@dataclass(frozen=True)
class Sketched:
    """One task of a sketch."""

    id: str
    after: tuple[str, ...] = ()
    """What it depends on, without the task it maps over."""
    rule: str = "all_success"
    max_retries: int = 0
    does: tuple[Does, ...] = (PLAINLY,)
    """What happens to it; of a mapped task, to its items in turn (the first again after the last)."""
    has_run_if: bool = False
    gives: str = "value"
    """What it returns: a "value" that tells what it was handed; a "list" or a "tuple" of `length` items; a "text", which is
    none; or a "choice", which makes it a branch."""
    length: int = 0
    chooses: tuple[str, ...] = ()
    """What a branch returns."""
    is_terse: bool = False
    """Whether a branch that chooses one task names it without a list, and says None for none."""
    map_over: str | None = None
    keys: str = "index"
    """What calls its items: their "index", a "good" key; or one that will not do: the "same" for all, "odd", a "number", or it
    "raises"."""
    max_map_size: int | None = None
    child: tuple[Sketched, ...] = ()
    """The tasks of the flow that it is; none if it is a function."""
    tells: tuple[str, ...] = ()
    """The params that its value tells."""
    # What makes no difference:
    is_async: bool = True
    turns: int = 0
    """How often it lets others go first."""
    retry_delay: float = 0.0
    repeats_map_over: bool = False
    """Whether the task that it maps over is declared as a dependency as well."""

    def __repr__(self) -> str:
        said = (f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if getattr(self, one.name) != one.default)
        return f"Sketched({', '.join(said)})"

    @property
    def upstreams(self) -> tuple[str, ...]:
        """Everything it depends on."""
        return self.after if self.map_over is None else (*self.after, self.map_over)

    @property
    def is_branch(self) -> bool:
        """Whether it decides who goes on."""
        return self.gives == "choice"

    def is_early(self) -> bool:
        """Whether it may begin while something upstream has not ended: then what it pulls depends on who was faster."""
        return self.rule in ("one_success", "one_failed", "one_done", "always")

    def what(self, index: int | None) -> Does:
        """What happens to it, or to its item at this index."""
        return self.does[(index or 0) % len(self.does)]


Sketch = tuple[Sketched, ...]


@dataclass(frozen=True)
class End:
    """How a task, or one item, ended."""

    state: str
    counts_as: str
    """What those that wait for it go by: "success", "failed" or "skipped"."""
    output: Any = None
    items: Mapping[str, End] | None = None
    """Of a mapped task that got its list: how its items ended, by their keys, in order."""
    inside: Ended | None = None
    """Of a subflow that began: what its run came to."""
    why: str = ""
    """Of a skipped task: "branch", "rule", "run_if", "said" (it raised SkipTask) or "items"; of a failed one: "attempts",
    "items", "inside" or "list"."""


@dataclass(frozen=True)
class Ended:
    """What a run came to."""

    state: str
    tasks: Mapping[str, End]
    result: Any
    """What its parent pulls."""


@dataclass(frozen=True)
class Handed:
    """What a function may look at."""

    params: Mapping[str, Any]
    pulled: Mapping[str, Any] = field(default_factory=dict[str, Any])
    item: Any = None
    index: int | None = None


# --- rules ----------------------------------------------------------------------------------------------------------------


def verdict(rule: str, upstreams: Sequence[str]) -> str:
    """What a trigger rule says when all upstreams have ended: "run", "skip", or "skip as failed"."""
    n = len(upstreams)
    s, f, k = (upstreams.count(ended) for ended in ("success", "failed", "skipped"))
    if n == 0:
        return "run"
    skip = "skip as failed" if f else "skip"
    if rule == "all_success":
        return "run" if s == n else skip
    if rule == "all_failed":
        return "run" if f == n else "skip"
    if rule == "all_done":
        return "run"
    if rule == "all_skipped":
        return "run" if k == n else "skip"
    if rule == "one_success":
        return "run" if s else skip
    if rule == "one_failed":
        return "run" if f else "skip"
    if rule == "one_done":
        return "run" if s or f else "skip"
    if rule == "none_failed":
        return skip if f else "run"
    if rule == "none_failed_min_one_success":
        return "run" if s and not f else skip
    if rule == "none_skipped":
        return "skip" if k else "run"
    if rule == "all_done_min_one_success":
        return "run" if s else skip
    assert rule == "always", rule
    return "run"


def downstream(sketch: Sketch, task_id: str) -> set[str]:
    """What stands behind a task, near or far."""
    found: set[str] = set()
    for task in sketch:
        if any(other == task_id or other in found for other in task.upstreams):
            found.add(task.id)
    return found


def upstream(sketch: Sketch, task_id: str) -> set[str]:
    """What stands before a task, near or far."""
    return {task.id for task in sketch if task_id in downstream(sketch, task.id)}


def passed_by(sketch: Sketch, ends: Mapping[str, End], task: Sketched) -> list[str]:
    """The branches that did not choose a task."""
    return [
        branch.id
        for branch in sketch
        if branch.is_branch
        and branch.id in task.upstreams
        and ends[branch.id].state == "success"
        and task.id not in branch.chooses
        and not any(task.id in downstream(sketch, chosen) for chosen in branch.chooses)
    ]


# --- tasks ----------------------------------------------------------------------------------------------------------------


def evaluate(sketch: Sketch, params: Mapping[str, Any]) -> Ended:
    """What a run of the sketch comes to, whatever disturbs it."""
    ends: dict[str, End] = {}
    for task in sketch:  # what it depends on stands before it
        ends[task.id] = end_of(task, sketch, ends, params)
    behind = {other for task in sketch for other in task.upstreams}
    last = {task_id: end.output for task_id, end in ends.items() if task_id not in behind}
    state = "failed" if any(end.state == "failed" for end in ends.values()) else "success"
    result = next(iter(last.values())) if len(last) == 1 else last
    return Ended(state, ends, result if state == "success" else None)


def end_of(task: Sketched, sketch: Sketch, ends: Mapping[str, End], params: Mapping[str, Any]) -> End:
    """How a task ends, once everything upstream of it has. A branch right before it comes first, whoever else was faster."""
    if passed_by(sketch, ends, task):
        return End("skipped", "skipped", why="branch")
    said = [verdict(task.rule, [ends[other].counts_as for other in task.after])]
    if task.map_over is not None:
        said.append(gate(sketch, ends[task.map_over], task.map_over))
    if "skip as failed" in said:
        return End("skipped", "failed", why="rule")
    if "skip" in said:
        return End("skipped", "skipped", why="rule")
    pulled = {other: ends[other].output for other in task.after}
    if task.map_over is None:
        return attempt(task, sketch, Handed(params, pulled))
    over = ends[task.map_over]
    if over.items is not None:
        return mapped_over_items(task, sketch, over.items, Handed(params, pulled))
    return mapped_over_list(task, sketch, over.output, Handed(params, pulled))


def gate(sketch: Sketch, end: End, map_over: str) -> str:
    """Whether there will be items of a mapped task: what it maps over has succeeded, or has items, if it is mapped itself."""
    is_mapped = any(task.id == map_over and task.map_over is not None for task in sketch)
    is_open = end.items is not None if is_mapped else end.state == "success"
    if is_open:
        return "run"
    return "skip as failed" if end.counts_as == "failed" else "skip"


def attempt(task: Sketched, sketch: Sketch, handed: Handed) -> End:
    """How a task, or an item, ends whose turn has come."""
    does = task.what(handed.index)
    if task.has_run_if and does.run_if == "raises":
        return End("failed", "failed", why="attempts")
    if task.has_run_if and does.run_if == "no":
        return End("skipped", "skipped", why="run_if")
    if task.child:
        inside = evaluate(task.child, child_params(task, handed))
        if inside.state == "failed":
            return End("failed", "failed", inside=inside, why="inside")
        return End("success", "success", inside.result, inside=inside)
    if does.failures > task.max_retries:
        return End("failed", "failed", why="attempts")
    if does.skips:
        return End("skipped", "skipped", why="said")
    if task.is_branch and not set(task.chooses) <= {other.id for other in sketch if task.id in other.upstreams}:
        return End("failed", "failed", why="attempts")
    return End("success", "success", value_of(task, handed))


def value_of(task: Sketched, handed: Handed) -> Any:
    """What the function of a task returns."""
    if task.is_branch and task.is_terse and len(task.chooses) < 2:
        return task.chooses[0] if task.chooses else None
    if task.is_branch:
        return list(task.chooses)
    if task.gives == "text":
        return f"{task.id}, which is no list"
    if task.gives in ("list", "tuple"):
        found = [f"{task.id} {number}" for number in range(task.length)]
        return found if task.gives == "list" else tuple(found)
    told = {name: handed.params.get(name) for name in task.tells}
    item = None if task.rule == "always" else handed.item
    return [task.id, handed.index, told, item, {} if task.is_early() else dict(handed.pulled)]


def child_params(task: Sketched, handed: Handed) -> dict[str, Any]:
    """The params of a subflow's run."""
    params = {**handed.params, **handed.pulled, "own": task.id}
    return params if task.map_over is None else {**params, "item": handed.item, "map_index": handed.index}


# --- maps -----------------------------------------------------------------------------------------------------------------


def key_of(task: Sketched, item: Any) -> Any:
    """What the function says that an item is to be called."""
    if task.keys == "raises":
        raise LookupError(f"no key for {item}")
    text = "-".join(re.findall("\\w+", str(item)))
    return {"good": f"k.{text}", "same": "same", "odd": f"{text}]", "number": len(text)}[task.keys]


def keys_of(task: Sketched, items: Sequence[Any]) -> list[str] | None:
    """What the items are called; nothing if one of the names will not do."""
    if task.keys == "index":
        return [str(index) for index in range(len(items))]
    if items and task.keys in ("odd", "number", "raises"):
        return None
    keys = [key_of(task, item) for item in items]
    return keys if len(keys) == len(set(keys)) and all(len(key) <= 300 for key in keys) else None


def mapped_over_list(task: Sketched, sketch: Sketch, items: Any, handed: Handed) -> End:
    """How a mapped task ends that is handed what should be a list."""
    no_list = End("failed", "failed", why="list")
    if not isinstance(items, (list, tuple)):
        return no_list
    if task.max_map_size is not None and len(items) > task.max_map_size:
        return no_list
    keys = keys_of(task, items)
    if keys is None:
        return no_list
    ends: dict[str, End] = {}
    for index, (key, item) in enumerate(zip(keys, items)):
        ends[key] = attempt(task, sketch, Handed(handed.params, handed.pulled, item, index))
    return whole(ends)


def mapped_over_items(task: Sketched, sketch: Sketch, over: Mapping[str, End], handed: Handed) -> End:
    """How a mapped task ends that goes item by item behind another; each item waits for its own alone."""
    if task.max_map_size is not None and len(over) > task.max_map_size:
        return End("failed", "failed", why="list")
    ends: dict[str, End] = {}
    for index, (key, before) in enumerate(over.items()):
        said = verdict(task.rule, [before.counts_as])
        if said == "run":
            ends[key] = attempt(task, sketch, Handed(handed.params, handed.pulled, before.output, index))
        else:
            ends[key] = End("skipped", "failed" if said == "skip as failed" else "skipped", why="rule")
    return whole(ends)


def whole(items: Mapping[str, End]) -> End:
    """What a mapped task comes to when its items have ended."""
    if any(item.counts_as == "failed" for item in items.values()):
        return End("failed", "failed", items=items, why="items")
    if items and all(item.state == "skipped" for item in items.values()):
        return End("skipped", "skipped", items=items, why="items")
    return End("success", "success", [item.output for item in items.values()], items=items)
