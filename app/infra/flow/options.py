"""Checks what users give as options: what several rooms check alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from math import inf
from typing import Any

from .errors import InvalidOptionError


def seconds_of(
    option: str,
    value: float | timedelta,
    expected: str,
    *,
    least: float = 0.0,
    most: float = inf,
    task_id: str | None = None,
) -> float:
    """A span of time in seconds.

    Args:
        option: its name.
        value: seconds, or a timedelta.
        expected: what an error says it must be.
        least: seconds; no less than this.
        most: seconds; no more than this.
        task_id: named in an error.

    Raises:
        InvalidOptionError: it is no finite number of seconds, or not between `least` and `most`.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or seconds == inf or not least <= seconds <= most:  # NaN is refused here too: it compares with nothing
        raise InvalidOptionError(option, value, expected, task_id)
    return float(seconds)


def named_params(params: Any, task_id: str | None) -> Mapping[str, Any]:
    """Params as they were given.

    Raises:
        InvalidOptionError: they are no mapping from strings.
    """
    if not isinstance(params, Mapping) or not all(type(key) is str for key in params):
        raise InvalidOptionError("params", params, "a mapping from names (strings) to values", task_id)
    return params
