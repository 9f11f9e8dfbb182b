"""The dependency graph as a value: built once, checked, then only asked.

Pure: task ids in, task ids or their positions out; must not know what a task is, runs or stores. Nothing here recurses, so a
chain of 100,000 tasks is as good as one of three. Edges are kept as positions in flat arrays (compressed sparse rows), 4 bytes
each way: sets and tuples per task would take hundreds of bytes, and their strings would be looked for all over the memory.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from .errors import CycleError, UnknownDependencyError, closest


class _Edges:
    """For each position, the positions at the other end of its edges, in ascending order where the graph made it so."""

    __slots__ = ("starts", "targets")

    def __init__(self, starts: array[int], targets: array[int]) -> None:
        self.starts = starts
        self.targets = targets

    def of(self, position: int) -> array[int]:
        return self.targets[self.starts[position] : self.starts[position + 1]]

    def degree(self, position: int) -> int:
        return self.starts[position + 1] - self.starts[position]

    def turned(self) -> _Edges:
        """The same edges in the other direction; those of a position come in ascending order."""
        number = len(self.starts) - 1
        counts = [0] * number
        for target in self.targets:
            counts[target] += 1
        starts = array("I", accumulate(counts, initial=0))
        free = starts.tolist()
        turned = array("I", bytes(self.targets.itemsize * len(self.targets)))
        begin = 0
        for source, end in enumerate(self.starts[1:]):
            for target in self.targets[begin:end]:
                turned[free[target]] = source
                free[target] += 1
            begin = end
        return _Edges(starts, turned)


class Graph:
    """An immutable directed acyclic graph over task ids.

    Args:
        upstream: for each task id, in the order of definition, the ids that it depends on directly.
        flow_name: only used in the sentences of errors.

    Raises:
        UnknownDependencyError: a dependency is no key of `upstream`.
        CycleError: the dependencies form a circle; the error holds its path.
    """

    __slots__ = ("_down", "_ids", "_positions", "_ranks", "_up")

    def __init__(self, upstream: Mapping[str, Sequence[str]], flow_name: str = "") -> None:
        self._ids = tuple(upstream)
        self._positions = positions = dict(zip(self._ids, range(len(self._ids))))
        starts, targets = array("I", [0]), array("I")
        in_order = True
        for position, ids in enumerate(upstream.values()):
            # A dependency named twice counts once: the in-degree counters rely on it.
            for dependency in ids if len(ids) < 2 else dict.fromkeys(ids):
                target = positions.get(dependency)
                if target is None:
                    task_id = self._ids[position]
                    suggestion = closest(dependency, (other for other in self._ids if other != task_id))
                    raise UnknownDependencyError(flow_name, task_id, dependency, suggestion)
                if target >= position:
                    in_order = False
                targets.append(target)
            starts.append(len(targets))
        self._up = _Edges(starts, targets)
        self._down = self._up.turned()
        self._ranks: array[int] | None = None
        """Where each task stands in an order in which it comes after everything upstream; None: in that of definition."""
        if not in_order:
            order = self._sorted()
            if len(order) < len(self._ids):
                raise CycleError(self._find_cycle(set(range(len(self._ids))).difference(order)), flow_name)
            self._ranks = array("I", bytes(4 * len(order)))
            for rank, position in enumerate(order):
                self._ranks[position] = rank

    def _sorted(self) -> list[int]:
        """Kahn's algorithm (CACM 5, 1962): as many tasks as can be put in order; the rest stand on or behind a cycle."""
        unmet = self.in_degrees()
        order = [position for position, count in enumerate(unmet) if count == 0]
        for position in order:  # grows while it is walked
            for follower in self._down.of(position):
                unmet[follower] -= 1
                if unmet[follower] == 0:
                    order.append(follower)
        return order

    def _find_cycle(self, unsorted: set[int]) -> list[str]:
        """Walk upstream among the tasks that could not be sorted: each has a dependency there, so the walk must close."""
        seen: dict[int, int] = {}
        walk: list[int] = []
        position = min(unsorted)
        while position not in seen:
            seen[position] = len(walk)
            walk.append(position)
            position = next(dependency for dependency in self._up.of(position) if dependency in unsorted)
        return [self._ids[other] for other in (*walk[seen[position] :], position)]

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        """The task ids in the order of their definition."""
        return iter(self._ids)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._positions

    def __repr__(self) -> str:
        return f"<Graph of {len(self)} tasks>"

    # --- by position, for who keeps things in lists ---

    def position(self, task_id: str) -> int:
        """Where a task stands in the order of definition, from 0 on."""
        return self._positions[task_id]

    def followers(self, position: int) -> array[int]:
        """The positions of the tasks that depend on one directly."""
        return self._down.of(position)

    def dependencies(self, position: int) -> array[int]:
        """The positions of the direct dependencies of a task."""
        return self._up.of(position)

    def in_degrees(self) -> array[int]:
        """How many direct dependencies each task has, by position; the caller's own."""
        starts = self._up.starts
        return array("I", map(int.__sub__, starts[1:], starts))

    def id_at(self, position: int) -> str:
        """The id of the task at a position."""
        return self._ids[position]

    # --- by id ---

    def upstream(self, task_id: str) -> tuple[str, ...]:
        """The direct dependencies of a task."""
        return tuple(self._ids[position] for position in self._up.of(self._positions[task_id]))

    def downstream(self, task_id: str) -> tuple[str, ...]:
        """The tasks that depend on a task directly."""
        return tuple(self._ids[position] for position in self._down.of(self._positions[task_id]))

    def order(self) -> list[str]:
        """All task ids, each after everything upstream of it."""
        if self._ranks is None:
            return list(self._ids)
        order = [""] * len(self._ids)
        for task_id, rank in zip(self._ids, self._ranks):
            order[rank] = task_id
        return order

    def leaves(self) -> list[str]:
        """The tasks that nothing depends on, in the order of their definition."""
        return [task_id for position, task_id in enumerate(self._ids) if not self._down.degree(position)]

    def descendants(self, task_ids: Iterable[str]) -> set[str]:
        """Everything downstream of the given tasks, near and far, without those tasks themselves."""
        return self._reachable({self._positions[task_id] for task_id in task_ids}, self._down)

    def ancestors(self, task_id: str) -> set[str]:
        """Everything upstream of a task, near and far."""
        return self._reachable({self._positions[task_id]}, self._up)

    def _reachable(self, start: set[int], edges: _Edges) -> set[str]:
        seen = set(start)
        waiting = deque(start)
        while waiting:
            for position in edges.of(waiting.popleft()):
                if position not in seen:
                    seen.add(position)
                    waiting.append(position)
        return {self._ids[position] for position in seen - start}

    def is_upstream(self, task_id: str, of: str) -> bool:
        """Whether `task_id` stands upstream of the task `of`, near or far.

        A direct dependency is found by bisection. Else it searches from `of` upward, and never past tasks that are sorted before
        `task_id`: those cannot lead to it.
        """
        wanted, start = self._positions[task_id], self._positions[of]
        starts, targets = self._down.starts, self._down.targets
        end = starts[wanted + 1]
        found = bisect_left(targets, start, starts[wanted], end)
        if found < end and targets[found] == start:
            return True
        rank = self._ranks if self._ranks is not None else range(len(self._ids))
        floor = rank[wanted]
        seen = {start}
        waiting = deque((start,))
        while waiting:
            for position in self._up.of(waiting.popleft()):
                if position == wanted:
                    return True
                if rank[position] > floor and position not in seen:
                    seen.add(position)
                    waiting.append(position)
        return False
