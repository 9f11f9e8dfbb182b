"""Pictures of a flow, and of a run with or without its flow: for `flow.to_svg()` and the like, notebooks and the command line.

Reads a store where a run has nested ones. Must not know how a picture is laid out or written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ... import AsyncFlow, GraphNode, RunNotFoundError, TaskInstance, WorkflowRun
from .dot import dot_of
from .mermaid import MOST_ARROWS, MOST_TEXT, mermaid_of
from .model import MOST_BOXES, Inside, Picture, declared_inside, picture_of
from .svg import svg_of

MOST_IN_NOTEBOOK = 80
NOTEBOOK_HEIGHT = 520
"""In pixels; beyond that a reader scrolls."""

Load = Callable[[str], WorkflowRun]


def picture_of_flow(flow: AsyncFlow, run: str | WorkflowRun | None = None, *, most: int = MOST_BOXES) -> Picture:
    """The picture of a flow as it is declared, or of one of its runs.

    Args:
        flow: the flow.
        run: a run, or the id of one in the flow's store. It has the graph that it was made with; names and descriptions of tasks
            are taken from the flow.
        most: boxes that it may have.

    Raises:
        RunNotFoundError: there is no such run.
    """
    declared = flow.graph
    if run is None:
        return picture_of(declared, title=flow.flow_name, most=most, inside=declared_inside(declared))
    loaded = flow.store.load(run) if isinstance(run, str) else run
    return picture_of_run(loaded, flow.store.load, declared, most=most)


def picture_of_run(
    run: WorkflowRun,
    load: Load | None = None,
    declared: Mapping[str, GraphNode] | None = None,
    *,
    most: int = MOST_BOXES,
) -> Picture:
    """The picture of a run, with the states of its tasks.

    Args:
        run: with its tasks.
        load: gives the runs of nested flows by their ids; without it these stay closed.
        declared: the graph of its flow, where that is at hand: names and descriptions are taken from it.
        most: boxes that it may have.
    """
    graph = _named(run.graph or _from_tasks(run, declared), declared)
    inside = None if load is None else stored_inside(run, load, declared)
    return picture_of(graph, tasks=run.tasks, title=_title(run), state=run.state.value, most=most, inside=inside)


def stored_inside(run: WorkflowRun, load: Load, declared: Mapping[str, GraphNode] | None = None) -> Inside:
    """For `picture_of`: opens the nested flows of a run, each with the run that it had; those that have none yet as declared."""
    runs: dict[str, WorkflowRun] = {"": run}
    plain = declared_inside(declared or {})

    def inside(path: str) -> tuple[Mapping[str, GraphNode], Mapping[str, TaskInstance] | None] | None:
        outer, _, task_id = path.rpartition(".")
        known = plain(path)
        task = runs[outer].tasks.get(task_id) if outer in runs else None
        child = None if task is None else task.child_run_id
        if child is None:
            return None if known is None else (known[0], {})
        try:
            runs[path] = found = load(child)
        except RunNotFoundError:
            return known
        shown = None if known is None else known[0]
        return _named(found.graph or _from_tasks(found, shown), shown), found.tasks

    return inside


def _from_tasks(run: WorkflowRun, declared: Mapping[str, GraphNode] | None) -> Mapping[str, GraphNode]:
    """For a run whose graph nobody wrote down: that of its flow, or else its tasks without arrows."""
    return declared or {task_id: GraphNode(task_id, task.type) for task_id, task in run.tasks.items()}


def _named(graph: Mapping[str, GraphNode], declared: Mapping[str, GraphNode] | None) -> Mapping[str, GraphNode]:
    if not declared:
        return graph
    return {
        task_id: replace(node, name=declared[task_id].name, description=declared[task_id].description)
        if task_id in declared
        else node
        for task_id, node in graph.items()
    }


def _title(run: WorkflowRun) -> str:
    return f"{run.flow_name}, run {run.id}"


# --- what flows and runs call ---


def mermaid(flow: AsyncFlow, run: str | WorkflowRun | None, direction: str) -> str:
    """For `flow.to_mermaid`."""
    return bounded_mermaid(lambda most: picture_of_flow(flow, run, most=most), direction)


def bounded_mermaid(picture: Callable[[int], Picture], direction: str = "LR") -> str:
    """Mermaid text that Mermaid takes: of a picture with fewer boxes if there is too much of it."""
    most = MOST_BOXES
    while True:
        found = picture(most)
        text = mermaid_of(found, direction=direction)
        arrows = len(found.arrows) + sum(len(box.inside.arrows) for box in found.everything() if box.inside is not None)
        if (arrows <= MOST_ARROWS and len(text) <= MOST_TEXT) or most < 10:
            return text
        most = most * 2 // 3


def dot(flow: AsyncFlow, run: str | WorkflowRun | None, direction: str) -> str:
    """For `flow.to_dot`."""
    return dot_of(picture_of_flow(flow, run), direction=direction)


def svg(flow: AsyncFlow, run: str | WorkflowRun | None, direction: str | None) -> str:
    """For `flow.to_svg`."""
    return svg_of(picture_of_flow(flow, run), direction=direction)


def html_of_flow(flow: AsyncFlow) -> str:
    """For a notebook that shows a flow."""
    return _framed(picture_of_flow(flow, most=MOST_IN_NOTEBOOK))


def html_of_run(run: WorkflowRun) -> str:
    """For a notebook that shows a run."""
    return _framed(picture_of_run(run, most=MOST_IN_NOTEBOOK))


def _framed(picture: Picture) -> str:
    style = f"max-width:100%;max-height:{NOTEBOOK_HEIGHT}px;overflow:auto"
    return f'<div class="nb-frame" style="{style}">{svg_of(picture)}</div>'
