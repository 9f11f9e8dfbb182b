"""Any Python data as JSON text that every program can read. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .units import value_text

DEEPEST = 200
"""Deeper values are told in words: readers of JSON have their limits, and so has Python's writer."""


def json_text(value: Any) -> str:
    """JSON in ASCII, indented: what JSON has no words for is told as text."""
    return json.dumps(plain(value), indent=2, allow_nan=False)


def plain(value: Any) -> Any:
    """A copy in which there is nothing but what JSON has: numbers that it lacks, and other objects, are told as texts."""
    root: list[Any] = [None]
    # A list, not recursion: values may be as deep as they like.
    waiting: list[tuple[Any, Any, Any, int]] = [(root, 0, value, 0)]
    while waiting:
        where, place, item, depth = waiting.pop()
        if item is None or isinstance(item, (bool, int, str)):
            where[place] = str.__str__(item) if isinstance(item, str) else item
        elif isinstance(item, float):
            where[place] = item if math.isfinite(item) else str(item)
        elif isinstance(item, datetime):
            where[place] = item.isoformat()
        elif depth >= DEEPEST:
            where[place] = value_text(f"{type(item).__name__} that is nested too deep to be shown")
        elif isinstance(item, Mapping):
            inside: dict[str, Any] = {str(key): None for key in item}
            where[place] = inside
            waiting.extend((inside, str(key), item[key], depth + 1) for key in item)
        elif isinstance(item, (list, tuple)):
            listed: list[Any] = [None] * len(item)
            where[place] = listed
            waiting.extend((listed, index, one, depth + 1) for index, one in enumerate(item))
        else:
            where[place] = value_text(item)
    return root[0]
