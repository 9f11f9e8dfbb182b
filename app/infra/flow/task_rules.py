"""What a task may say of whether it runs, and for which items: its trigger rule, condition, branch and map, checked.

Pure: checked here, heeded by the machine and by what calls the task's function. Must not know graphs or runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import InvalidOptionError
from .late_dataclass import dataclass

if TYPE_CHECKING:
    from .groups import Group
    from .trigger_rules import TriggerRule

MapKey = Callable[[Any], str]
"""The key of an item, by which its task is called."""

MAX_MAP_SIZE = 1_000_000
"""Items that one task maps over at the most, unless it says otherwise."""


@dataclass(frozen=True, slots=True)
class TaskRules:
    """Whether a task runs, and for which items."""

    trigger_rule: TriggerRule | None = None
    """None is `all_success`, by which nearly all tasks start."""
    run_if: Callable[..., Any] | None = None
    branch: bool = False
    """Whether its output names those of its downstream tasks that go on."""
    map_over: str | None = None
    """The task over whose items it is mapped."""
    map_key: MapKey | None = None
    """None calls the items by their index."""
    max_map_size: int = MAX_MAP_SIZE
    group: Group | None = None
    """By whose names a branch chooses, where it was included from another flow."""


PLAIN = TaskRules()
"""Shared by all tasks that say nothing."""


def trigger_rule(value: TriggerRule | str, task_id: str) -> TriggerRule | None:
    """A trigger rule, or the string of one, checked; None for the usual one.

    Raises:
        InvalidOptionError: there is no such rule.
    """
    if value == "all_success":
        return None
    from .trigger_rules import TriggerRule  # late: most tasks have no rule of their own

    try:
        return TriggerRule(value)
    except ValueError:
        rules = ", ".join(repr(rule.value) for rule in TriggerRule)
        raise InvalidOptionError("trigger_rule", value, f"one of {rules}", task_id) from None


def task_rules(
    task_id: str,
    rule: TriggerRule | str = "all_success",
    run_if: Callable[..., Any] | None = None,
    branch: bool = False,
    map_over: Any = None,
    map_key: MapKey | None = None,
    max_map_size: int = MAX_MAP_SIZE,
) -> TaskRules:
    """Check what a user gave; `map_over` may still be a function, which the flow knows the id of.

    Raises:
        InvalidOptionError: names the option that makes no sense, and what it must be.
    """
    if (rule, run_if, branch, map_over, map_key, max_map_size) == ("all_success", None, False, None, None, MAX_MAP_SIZE):
        return PLAIN
    own = trigger_rule(rule, task_id)
    if run_if is not None and not callable(run_if):
        raise InvalidOptionError("run_if", run_if, "a function of the task's context", task_id)
    if type(branch) is not bool:
        raise InvalidOptionError("branch", branch, "True or False", task_id)
    if type(max_map_size) is not int or max_map_size < 1:
        raise InvalidOptionError("max_map_size", max_map_size, "a whole number from 1 on", task_id)
    if map_key is not None and not callable(map_key):
        raise InvalidOptionError("map_key", map_key, "a function of an item that returns its key, a string", task_id)
    if map_over is None:
        for option, value, usual in (("map_key", map_key, None), ("max_map_size", max_map_size, MAX_MAP_SIZE)):
            if value != usual:
                raise InvalidOptionError(option, value, "given together with map_over=", task_id)
    elif branch:
        raise InvalidOptionError("branch", branch, "left out beside map_over=: a branch decides once, not per item", task_id)
    elif "[" in task_id or "]" in task_id:
        expected = "given to a task whose id holds no bracket: its items are called by the id and their key in brackets"
        raise InvalidOptionError("map_over", map_over, expected, task_id)
    return TaskRules(own, run_if, branch, map_over, map_key, max_map_size)
