"""What stands in a picture of a flow or a run: boxes and arrows, folded where there are too many to look at.

Pure: takes graphs and task instances, gives plain values. Must not know where a box stands, nor how a picture is written.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ... import GraphNode, TaskInstance, TaskType
from ..units import between, counted, span_text
from .folding import fold

MOST_BOXES = 300
MOST_LEVELS = 20
"""So deep are nested flows opened."""
MOST_LETTERS = 500
"""Of a label; ids are no longer than this anyway."""
STATES = ("failed", "cancelled", "running", "scheduled", "skipped", "success")
"""In the order in which they are told: what is most worth knowing first."""

Inside = Callable[[str], "tuple[Mapping[str, GraphNode], Mapping[str, TaskInstance] | None] | None"]


@dataclass(frozen=True)
class Box:
    """A task, a nested flow, a mapped task with its items, or several tasks in one."""

    key: str
    """The dotted path of the task: `validation.no_blanks`; of several in one, that of the first and a `+`."""
    label: str
    kind: str = "task"
    """`task`, `map` (a task for each item of a list), `flow`, or `fold` (several tasks in one box)."""
    state: str | None = None
    """A state's string; None where there is no run, or the run does not know the task."""
    detail: str = ""
    """What is told beneath the label."""
    description: str = ""
    """What is told of it where there is room."""
    tasks: tuple[str, ...] = ()
    """The paths of the tasks that it stands for."""
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many of its items, or of its tasks, are in which state."""
    branch: bool = False
    inside: Picture | None = None
    """Of a nested flow that is opened: what is in it."""


@dataclass(frozen=True)
class Arrow:
    """From a task to one that depends on it; both by the keys of their boxes."""

    source: str
    target: str
    mapped: bool = False
    """The target has an instance for each item of what the source returns."""


@dataclass(frozen=True)
class Picture:
    """Boxes and the arrows between them. Those of an opened nested flow stand in a picture of their own, inside its box."""

    boxes: tuple[Box, ...] = ()
    arrows: tuple[Arrow, ...] = ()
    title: str = ""
    state: str | None = None
    """Of a run."""
    has_states: bool = False
    number: int = 0
    """How many tasks it stands for, items and what is inside nested flows apart."""

    def everything(self) -> list[Box]:
        """All boxes, those inside of others too."""
        found = list(self.boxes)
        for box in found:  # grows while it is walked
            if box.inside is not None:
                found += box.inside.boxes
        return found


def picture_of(
    graph: Mapping[str, GraphNode],
    *,
    tasks: Mapping[str, TaskInstance] | None = None,
    title: str = "",
    state: str | None = None,
    most: int = MOST_BOXES,
    inside: Inside | None = None,
) -> Picture:
    """The picture of a graph, coloured by the states of a run where its tasks are given.

    Args:
        graph: of a flow (`flow.graph`) or of a run (`run.graph`), by task id. Dependencies that it does not have are left out.
        tasks: of a run, by id, the items of mapped tasks too: they are counted in the box of the whole.
        title: what it is a picture of.
        state: of the run.
        most: boxes that it may have, those inside nested flows included. Beyond that, tasks that are alike share one.
        inside: gives the graph and the tasks inside a nested flow by its dotted path, or None where it is to stay closed. It is
            asked as long as there is room. See `declared_inside` and `stored_inside`.
    """
    most = max(1, most)
    levels = [_level("", graph, tasks, most)]
    placed: list[tuple[int, int]] = []  # for each further level: in which one it is, and in which box there
    used = len(levels[0][0])
    depths = [0]
    waiting = deque((0, index) for index in _openable(levels[0][0]))
    while waiting and inside is not None:
        level, index = waiting.popleft()
        box = levels[level][0][index]
        if used >= most or depths[level] >= MOST_LEVELS:
            break
        found = inside(box.key)
        if found is None or not found[0] or used + len(found[0]) > most:
            continue
        inner = _level(f"{box.key}.", found[0], found[1], most)
        used += len(inner[0])
        levels.append(inner)
        placed.append((level, index))
        depths.append(depths[level] + 1)
        waiting.extend((len(levels) - 1, inner_index) for inner_index in _openable(inner[0]))
    for number in range(len(levels) - 1, 0, -1):  # the innermost first
        level, index = placed[number - 1]
        boxes, arrows = levels[number]
        outer = levels[level][0][index]
        has_states = any(box.state for box in boxes)
        content = Picture(tuple(boxes), tuple(arrows), outer.label, outer.state, has_states, len(boxes))
        levels[level][0][index] = replace(outer, inside=content)
    boxes, arrows = levels[0]
    return Picture(tuple(boxes), tuple(arrows), title, state, tasks is not None, len(graph))


def declared_inside(graph: Mapping[str, GraphNode]) -> Inside:
    """For `picture_of`: opens the nested flows of a declared graph; a mapped one stays closed."""

    def inside(path: str) -> tuple[Mapping[str, GraphNode], None] | None:
        here: Mapping[str, GraphNode] = graph
        for part in path.split("."):
            node = here.get(part)
            if node is None or node.inside is None or node.map_over is not None:
                return None
            here = node.inside
        return here, None

    return inside


def _openable(boxes: list[Box]) -> list[int]:
    """The nested flows among the boxes, those first where something went wrong."""
    rank = {state: place for place, state in enumerate(STATES)}
    found = [index for index, box in enumerate(boxes) if box.kind == "flow"]
    return sorted(found, key=lambda index: rank.get(boxes[index].state or "", len(rank)))


def _level(
    prefix: str, graph: Mapping[str, GraphNode], tasks: Mapping[str, TaskInstance] | None, most: int
) -> tuple[list[Box], list[Arrow]]:
    items = _items(graph, tasks or {})
    ids = list(graph)
    positions = {task_id: position for position, task_id in enumerate(ids)}
    ups = [
        [positions[other] for other in dict.fromkeys((*node.depends_on, *_over(node))) if other in positions and other != task_id]
        for task_id, node in graph.items()
    ]
    _break_circles(ups)
    if len(ids) <= most:
        groups = [[position] for position in range(len(ids))]
    else:
        apart = [
            position
            for position, task_id in enumerate(ids)
            if tasks is not None and task_id in tasks and tasks[task_id].state.value in ("failed", "cancelled", "running")
        ]
        groups = fold(ups, most, apart)
    box_at = [0] * len(ids)
    boxes: list[Box] = []
    for number, group in enumerate(groups):
        for position in group:
            box_at[position] = number
        if len(group) == 1:
            task_id = ids[group[0]]
            boxes.append(_box(prefix, graph[task_id], None if tasks is None else tasks.get(task_id), items.get(task_id)))
        else:
            boxes.append(_several(prefix, [ids[position] for position in group], tasks))
    arrows: dict[tuple[int, int], Arrow] = {}
    for position, dependencies in enumerate(ups):
        target = box_at[position]
        over = graph[ids[position]].map_over
        for other in dependencies:
            source = box_at[other]
            if source != target:
                mapped = over == ids[other]
                if (source, target) not in arrows or mapped:
                    arrows[source, target] = Arrow(boxes[source].key, boxes[target].key, mapped)
    return boxes, list(arrows.values())


def _break_circles(ups: list[list[int]]) -> None:
    """Leave out of each circle, as a flow that is not sound yet may have them, what leads back in the order of definition."""
    downs: list[list[int]] = [[] for _ in ups]
    unmet = [len(others) for others in ups]
    for position, others in enumerate(ups):
        for other in others:
            downs[other].append(position)
    order = [position for position, count in enumerate(unmet) if count == 0]
    for position in order:  # grows while it is walked
        for follower in downs[position]:
            unmet[follower] -= 1
            if unmet[follower] == 0:
                order.append(follower)
    if len(order) < len(ups):
        sound = frozenset(order)
        for position, others in enumerate(ups):
            if position not in sound:
                ups[position] = [other for other in others if other in sound or other < position]


def _over(node: GraphNode) -> tuple[str, ...]:
    return () if node.map_over is None else (node.map_over,)


def _items(graph: Mapping[str, GraphNode], tasks: Mapping[str, TaskInstance]) -> dict[str, Counter[str]]:
    """How many items of each mapped task are in which state."""
    found: dict[str, Counter[str]] = {}
    for task_id, task in tasks.items():
        if task_id not in graph:
            whole, bracket, _ = task_id.partition("[")
            if bracket and whole in graph and graph[whole].map_over is not None:
                found.setdefault(whole, Counter())[task.state.value] += 1
    return found


def _box(prefix: str, node: GraphNode, task: TaskInstance | None, items: Counter[str] | None) -> Box:
    kind = "map" if node.map_over is not None else "flow" if node.type is TaskType.FLOW else "task"
    told: list[str] = []
    if kind == "map":
        told.append(counts_text(items, "item") if items else f"for each of {node.map_over}")
    elif kind == "flow" and node.flow_name and node.flow_name != node.task_id:
        told.append(f"flow {node.flow_name}")
    if node.branch:
        told.append("branch")
    if node.trigger_rule != "all_success":
        told.append(node.trigger_rule)
    if task is not None:
        took = between(task.start_date, task.end_date)
        if took is not None:
            told.append(span_text(took))
        if task.try_number:
            told.append(counted(task.try_number + 1, "attempt"))
    state = None if task is None else task.state.value
    path = prefix + node.task_id
    label = (node.name or node.task_id)[:MOST_LETTERS]
    texts = [path if label == node.task_id else f"{path}: {label}", state or "", *told]
    texts += [text for text in (task.reason if task is not None else None, node.description) if text]
    description = "\n".join(text for text in texts if text)
    return Box(path, label, kind, state, " · ".join(told), description[:1000], (path,), dict(items or {}), node.branch)


def _several(prefix: str, ids: list[str], tasks: Mapping[str, TaskInstance] | None) -> Box:
    paths = [prefix + task_id for task_id in ids]
    counts = Counter(tasks[task_id].state.value for task_id in ids if task_id in tasks) if tasks is not None else Counter[str]()
    state = next((state for state in STATES if counts.get(state)), None)
    told = counts_text(counts, "task") if counts else counted(len(ids), "task")
    shown = ", ".join(ids[:10]) + (f" and {len(ids) - 10:,} more" if len(ids) > 10 else "")
    return Box(f"{paths[0]}+", _in_common(ids), "fold", state, told, f"{told}\n{shown}"[:1000], tuple(paths), dict(counts))


def counts_text(counts: Mapping[str, int], what: str) -> str:
    """`3 items: 1 failed, 2 success`; only how many there are where all succeeded."""
    total = sum(counts.values())
    if set(counts) <= {"success"}:
        return counted(total, what)
    order = [*(state for state in STATES if counts.get(state)), *(state for state in counts if state not in STATES)]
    return f"{counted(total, what)}: " + ", ".join(f"{counts[state]:,} {state}" for state in order if counts[state])


def _in_common(ids: Iterable[str]) -> str:
    """`load_*` for `load_1` and `load_2`; the first and the last one where they have nothing in common."""
    all_of_them = list(ids)
    low, high = min(all_of_them), max(all_of_them)
    length = next((place for place, pair in enumerate(zip(low, high)) if pair[0] != pair[1]), min(len(low), len(high)))
    return f"{low[:length]}*" if length >= 2 else f"{all_of_them[0]} … {all_of_them[-1]}"
