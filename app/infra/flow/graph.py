"""The dependency graph as a value: built once, checked, then only asked.

Pure sets and dicts of task ids; must not know what a task is, runs or stores. Nothing here recurses, so a chain of
100,000 tasks is as good as one of three.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .errors import CycleError, UnknownDependencyError, closest

_NOTHING: tuple[str, ...] = ()


class Graph:
    """An immutable directed acyclic graph over task ids.

    Args:
        upstream: for each task id, in the order of definition, the ids that it depends on directly.
        flow_name: only used in the sentences of errors.

    Raises:
        UnknownDependencyError: a dependency is no key of `upstream`.
        CycleError: the dependencies form a circle; the error holds its path.
    """

    __slots__ = ("_downstream", "_rank", "_upstream")

    def __init__(self, upstream: Mapping[str, Sequence[str]], flow_name: str = "") -> None:
        # A dependency named twice counts once: the in-degree counters rely on it.
        self._upstream = {task_id: tuple(dict.fromkeys(ids)) if len(ids) > 1 else tuple(ids) for task_id, ids in upstream.items()}
        downstream: dict[str, list[str]] = {}
        for task_id, ids in self._upstream.items():
            for dependency in ids:
                if dependency not in self._upstream:
                    suggestion = closest(dependency, (other for other in self._upstream if other != task_id))
                    raise UnknownDependencyError(flow_name, task_id, dependency, suggestion)
                downstream.setdefault(dependency, []).append(task_id)
        self._downstream = {task_id: tuple(ids) for task_id, ids in downstream.items()}
        order = self._sorted()
        if len(order) < len(self._upstream):
            raise CycleError(self._find_cycle(set(self._upstream).difference(order)), flow_name)
        self._rank = {task_id: rank for rank, task_id in enumerate(order)}

    def _sorted(self) -> list[str]:
        """Kahn's algorithm (CACM 5, 1962): as many tasks as can be put in order; the rest stand on or behind a cycle."""
        unmet = {task_id: len(ids) for task_id, ids in self._upstream.items()}
        order = [task_id for task_id, count in unmet.items() if count == 0]
        for task_id in order:  # grows while it is walked
            for follower in self._downstream.get(task_id, _NOTHING):
                unmet[follower] -= 1
                if unmet[follower] == 0:
                    order.append(follower)
        return order

    def _find_cycle(self, unsorted: set[str]) -> list[str]:
        """Walk upstream among the tasks that could not be sorted: each has a dependency there, so the walk must close."""
        position: dict[str, int] = {}
        walk: list[str] = []
        task_id = next(task_id for task_id in self._upstream if task_id in unsorted)
        while task_id not in position:
            position[task_id] = len(walk)
            walk.append(task_id)
            task_id = next(dependency for dependency in self._upstream[task_id] if dependency in unsorted)
        return [*walk[position[task_id] :], task_id]

    def __len__(self) -> int:
        return len(self._upstream)

    def __iter__(self) -> Iterator[str]:
        """The task ids in the order of their definition."""
        return iter(self._upstream)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._upstream

    def __repr__(self) -> str:
        return f"<Graph of {len(self)} tasks>"

    def upstream(self, task_id: str) -> tuple[str, ...]:
        """The direct dependencies of a task."""
        return self._upstream[task_id]

    def downstream(self, task_id: str) -> tuple[str, ...]:
        """The tasks that depend on a task directly."""
        return self._downstream.get(task_id, _NOTHING)

    def order(self) -> list[str]:
        """All task ids, each after everything upstream of it."""
        return list(self._rank)

    def leaves(self) -> list[str]:
        """The tasks that nothing depends on, in the order of their definition."""
        return [task_id for task_id in self._upstream if task_id not in self._downstream]

    def descendants(self, task_ids: Iterable[str]) -> set[str]:
        """Everything downstream of the given tasks, near and far, without those tasks themselves."""
        start = set(task_ids)
        return _reachable(start, self._downstream) - start

    def ancestors(self, task_id: str) -> set[str]:
        """Everything upstream of a task, near and far."""
        return _reachable({task_id}, self._upstream) - {task_id}

    def is_upstream(self, task_id: str, of: str) -> bool:
        """Whether `task_id` stands upstream of the task `of`, near or far.

        Searches from `of` upward, and never past tasks that are sorted before `task_id`: those cannot lead to it.
        """
        rank, upstream = self._rank, self._upstream
        if task_id in upstream[of]:
            return True
        floor = rank[task_id]
        seen = {of}
        waiting = deque((of,))
        while waiting:
            for dependency in upstream[waiting.popleft()]:
                if dependency == task_id:
                    return True
                if rank[dependency] > floor and dependency not in seen:
                    seen.add(dependency)
                    waiting.append(dependency)
        return False


def _reachable(start: set[str], edges: Mapping[str, Sequence[str]]) -> set[str]:
    seen = set(start)
    waiting = deque(start)
    while waiting:
        for task_id in edges.get(waiting.popleft(), _NOTHING):
            if task_id not in seen:
                seen.add(task_id)
                waiting.append(task_id)
    return seen
