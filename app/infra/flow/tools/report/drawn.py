"""The graph of a run on its report, each box leading to the row of its task; and that of the subflows where something failed.

Must not know stores, nor how a graph is laid out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import copy

from ... import GraphNode, TaskInstance, WorkflowRun
from ..pictures.model import picture_of
from ..pictures.svg import svg_of
from ..units import counted
from .gathering import Line, ReportData
from .markup import Budget, esc, sign

MOST_BOXES = 300
_MOST_INSIDES = 12


def graph_of(data: ReportData, links: Mapping[int, str], budget: Budget) -> str:
    """The picture; empty where the run's graph is not known."""
    graph = data.run.graph
    if not graph:
        return ""
    by_path = {line.path: line for line in data.lines}

    def link(path: str) -> str | None:
        line = by_path.get(path)
        return None if line is None else links.get(line.number)

    def inside(path: str) -> tuple[Mapping[str, GraphNode], Mapping[str, TaskInstance] | None] | None:
        line = by_path.get(path)
        return None if line is None or line.child is None else (line.child.graph, _clean(line.child.tasks, budget))

    state = str(data.run.state)
    picture = picture_of(
        graph,
        tasks=_clean(data.run.tasks, budget),
        title=f"The graph of {data.run.flow_name}",
        state=state,
        most=MOST_BOXES,
        inside=inside,
    )
    folded = len(graph) > MOST_BOXES
    told = f'<p class="soft">{counted(len(graph), "task")}: those that are alike share a box.</p>' if folded else ""
    drawn = svg_of(picture, standalone=False, id_prefix="g", link=link)
    return f"{told}{_framed(drawn, 'Graph')}{_insides(data, link, budget)}"


def _insides(data: ReportData, link: Callable[[str], str | None], budget: Budget) -> str:
    """The graphs inside the items of a mapped subflow that failed; other subflows are opened in the picture itself."""
    found: list[str] = []
    for line in data.lines:
        if line.kind == "item" and line.child is not None and line.child.graph and line.state in ("failed", "running"):
            if len(found) == _MOST_INSIDES:
                break
            found.append(_inside(line, line.child, len(found), link, budget))
    return "".join(found)


def _inside(line: Line, child: WorkflowRun, number: int, link: Callable[[str], str | None], budget: Budget) -> str:
    picture = picture_of(
        child.graph, tasks=_clean(child.tasks, budget), title=f"The graph inside {line.path}", state=line.state, most=MOST_BOXES
    )
    drawn = svg_of(picture, standalone=False, id_prefix=f"i{number}", link=lambda path: link(f"{line.path}.{path}"))
    name = esc(line.path, 200)
    return f"<details><summary>{sign(line.state)} inside {name}</summary>{_framed(drawn, f'Graph inside {name}')}</details>"


def _clean(tasks: Mapping[str, TaskInstance], budget: Budget) -> Mapping[str, TaskInstance]:
    """The tasks without secrets in their reasons, which a picture tells too."""
    if budget.redact is None:
        return tasks
    found = {task_id: copy(task) for task_id, task in tasks.items()}
    for task in found.values():
        task.error = None
        task.reason = None if task.reason is None else budget.clean(task.reason)
    return found


def _framed(drawn: str, label: str) -> str:
    """A picture in a frame of its own that scrolls; it may shrink to what fits, but not so far that nobody can read it."""
    found = re.search(r' width="([\d.]+)"', drawn)
    width = f' style="--w:{found.group(1)}px"' if found else ""
    return f'<div class="picture" tabindex="0" role="group" aria-label="{label}"{width}>{drawn}</div>'
