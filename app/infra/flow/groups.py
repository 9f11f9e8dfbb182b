"""The names by which the tasks of an included flow know one another, and the ids that they have where they were taken in.

Pure: names in, ids out, and back; must not know flows, tasks or runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from .late_dataclass import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """What stands under one prefix: its tasks were written for the flow that they come from, and go on to use its ids.

    One is shared by all tasks that came in together.
    """

    ids: Mapping[str, str]
    """The id that each task has now, by the one that it had there."""
    names: Mapping[str, str]
    """The same the other way round."""
    outer: Group | None = None
    """The group that it came in with, where a flow was included that had included this one."""

    def _levels(self) -> Iterator[Group]:
        group: Group | None = self
        while group is not None:
            yield group
            group = group.outer

    def id_of(self, name: str) -> str:
        """The id that a task of the group means: first one of its own group, then one of those around it, else the very name.

        The item of a mapped task goes by the name of that one: `parse[3]` is `x_parse[3]`.
        """
        return next((found for group in self._levels() if (found := _said_in(group.ids, name)) is not None), name)

    def name_of(self, task_id: str) -> str:
        """What the tasks of the group call that one: the way back from `id_of`."""
        return next((found for group in self._levels() if (found := _said_in(group.names, task_id)) is not None), task_id)

    def meant_by(self, task_ids: Sequence[str]) -> Sequence[str]:
        """Of several tasks that a function serves, those that a task of the group means by it: the nearest ones."""
        for group in self._levels():
            near = [task_id for task_id in task_ids if task_id in group.names]
            if near:
                return near
        return task_ids

    def names_for(self, task_ids: Iterable[str]) -> dict[str, str]:
        """Every name by which a task of the group can call one of these, with the id that it means."""
        found: dict[str, str] = {}
        for task_id in task_ids:
            names = (_said_in(group.names, task_id) for group in self._levels())
            found.update((name, task_id) for name in (*names, task_id) if name is not None and self.id_of(name) == task_id)
        return found

    def renamed(self, ids: Mapping[str, str], outer: Group) -> Group:
        """The same group after the flow that had included it was included itself."""
        levels = list(self._levels())
        for group in reversed(levels):
            now = {name: ids[task_id] for name, task_id in group.ids.items()}
            outer = Group(now, _turned(now), outer)
        return outer


def group_of(ids: Mapping[str, str]) -> Group:
    """The group of tasks that come into a flow together, with what each is called there by what it was called before."""
    return Group(ids, _turned(ids))


def regrouping(ids: Mapping[str, str]) -> Callable[[Group | None], Group]:
    """What becomes of a task's group when its flow is included: asked for each task, it makes each group once."""
    outer = group_of(ids)
    made: dict[int, Group] = {}

    def now(before: Group | None) -> Group:
        if before is None:
            return outer
        group = made.get(id(before))
        if group is None:
            group = made[id(before)] = before.renamed(ids, outer)
        return group

    return now


def _said_in(table: Mapping[str, str], name: object) -> str | None:
    """What the table says of a task; of the item of a mapped one, what it says of that, with the item's key."""
    if not isinstance(name, str):  # a mistake, which whoever asked will see
        return None
    found = table.get(name)
    if found is None and name.endswith("]"):
        whole, _, key = name.partition("[")
        found = table.get(whole)
        return None if found is None else f"{found}[{key}"
    return found


def _turned(ids: Mapping[str, str]) -> dict[str, str]:
    return {task_id: name for name, task_id in ids.items()}
