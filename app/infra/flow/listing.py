"""Takes apart the list that a task is mapped over: an attempt of the mapped task itself, made in a thread, for lists may be long.

Knows a context and the codec of its run; must not know runs, or what becomes of the items.
"""

from __future__ import annotations

from typing import Any

from .codec import ValueCodec
from .context import Context
from .errors import MapError, shown
from .map_items import Keys, ids_of, new_items, problem_of_key
from .models import TaskType
from .records import TaskRecord
from .task_rules import MapKey, TaskRules


class Listing:
    """Called with a mapped task's context, it finds out what the items are. It is called once.

    Args:
        run_id: the run.
        rules: of the mapped task.
        kind: what its items are.
        codec: how the items are written.
        streams: the keys of the task that it maps over, where that is mapped itself: then there is no list to look at yet.
    """

    def __init__(self, run_id: str, rules: TaskRules, kind: TaskType, codec: ValueCodec, streams: Keys | None) -> None:
        self._run_id = run_id
        self._rules = rules
        self._kind = kind
        self._codec = codec
        self.keys: Keys = 0 if streams is None else streams
        """What the items are called."""
        self.texts: list[str] | None = None
        """The items, as stored text; None where each is the output of another item."""
        self.made: dict[str, TaskRecord] = {}
        """A fresh record for each."""
        self._streams = streams is not None

    def __repr__(self) -> str:
        return f"<Listing of {self._rules.map_over!r}, {len(self.made)} items>"

    def __call__(self, ctx: Context) -> None:
        """Find out what the items are.

        Raises:
            MapError: there is no list, it is too long, or the items have no usable keys.
        """
        if not self._streams:
            items = self._items(ctx)
            place = f"an item of {self._rules.map_over!r}"
            self.texts = [self._codec.encode(item, place, ctx.task_id) for item in items]
            self.keys = len(items) if self._rules.map_key is None else self._keys(ctx.task_id, self._rules.map_key, items)
        else:
            self._check_size(ctx.task_id, self.keys if isinstance(self.keys, int) else len(self.keys))
        self.made = new_items(self._run_id, ids_of(ctx.task_id, self.keys), self._kind)

    def _items(self, ctx: Context) -> list[Any] | tuple[Any, ...]:
        source = self._rules.map_over or ""
        found = ctx._scope.pull(ctx.task_id, source)  # by its id, whatever the task's own code calls it
        if not isinstance(found, (list, tuple)) or hasattr(found, "_fields"):  # a named tuple is a record
            problem = f"the output of task {source!r} is {_kind_of(found)}, and no list"
            raise MapError(ctx.task_id, source, problem, f"Have {source!r} return a list or a tuple")
        self._check_size(ctx.task_id, len(found))
        return found

    def _check_size(self, task_id: str, number: int) -> None:
        most = self._rules.max_map_size
        if number > most:
            problem = f"it has {number:,} items, more than max_map_size={most:,}"
            raise MapError(task_id, self._rules.map_over or "", problem, "Raise max_map_size, or map over fewer, larger items")

    def _keys(self, task_id: str, map_key: MapKey, items: list[Any] | tuple[Any, ...]) -> list[str]:
        seen: dict[str, int] = {}
        source = self._rules.map_over or ""
        for index, item in enumerate(items):
            try:
                key = map_key(item)
            except BaseException as error:  # SystemExit, too: it is called in a thread, where that ends nothing
                problem = f"map_key raised {type(error).__name__} on item {index}: {_message_of(error)}"
                raise MapError(task_id, source, problem, "Have it return a string for every item") from error
            unusable = problem_of_key(key)
            if unusable is not None:
                problem = f"the key of item {index}, {shown(key)}, is not usable: {unusable}"
                raise MapError(task_id, source, problem, "Have map_key return another one")
            if key in seen:
                problem = f"items {seen[key]} and {index} have the same key {shown(key)}"
                raise MapError(task_id, source, problem, "Have map_key tell them apart")
            seen[str.__str__(key)] = index  # the bare text, where a class of its own, as of an enum, shows itself otherwise
        return list(seen)


def _message_of(error: BaseException) -> str:
    try:
        return str.__str__(str(error))
    except BaseException as problem:  # an exception whose __str__ raises
        return f"(its message could not be made: {type(problem).__name__})"


def _kind_of(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
