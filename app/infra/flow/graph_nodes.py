"""A declared graph for those who look at it: of each task what it depends on and what kind it is.

Must not know stores, the machine, or how a graph is drawn. `looking.stored_nodes` reads the same of a stored run.
"""

from __future__ import annotations

from .definitions import FlowDefinition, TaskDefinition
from .models import GraphNode, LazyNodes


def declared_nodes(definition: FlowDefinition) -> dict[str, GraphNode]:
    """The graph of a flow as it is declared now, with the flows that it nests."""
    return {task_id: _declared(task) for task_id, task in definition.tasks.items()}


def _declared(task: TaskDefinition) -> GraphNode:
    rules, child = task.rules, task.child
    rule = "all_success" if rules.trigger_rule is None else rules.trigger_rule.value
    return GraphNode(
        task.task_id,
        task.type,
        tuple(dict.fromkeys(task.depends_on)),
        rules.map_over,
        rule,
        rules.branch,
        None if child is None else child.name,
        task.name,
        description_of(task),
        None if child is None else LazyNodes(lambda: declared_nodes(child)),
    )


def description_of(task: TaskDefinition) -> str | None:
    """The description given, else the first line of the function's docstring."""
    if task.description is not None:
        return task.description
    text = getattr(task.function, "__doc__", None)
    return text.strip().split("\n", 1)[0] if isinstance(text, str) and text.strip() else None
