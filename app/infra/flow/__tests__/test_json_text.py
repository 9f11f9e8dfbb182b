"""Whatever a run holds as JSON that every program reads."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from ..models import ExecutionState
from ..tools.json_text import DEEPEST, json_text, plain


def test_what_json_has_stays_as_it_is() -> None:
    """Texts of any kind, numbers, lists and dicts in their order."""
    value: dict[str, Any] = {"b": [1, 2.5, None, True], "a": {"ü\x1b\u202e": "\n"}, "empty": [[], {}]}
    assert json.loads(json_text(value)) == value
    assert list(json.loads(json_text(value))) == ["b", "a", "empty"]
    assert json_text(value).isascii()


def test_what_json_does_not_have_is_told_as_text() -> None:
    """Numbers that are none, moments, states, keys that are no texts, and objects."""

    class Broken:
        def __repr__(self) -> str:
            raise ValueError("no")

    value = [float("nan"), float("-inf"), datetime(2026, 3, 1, tzinfo=timezone.utc), ExecutionState.FAILED, (1, 2), {3: 4}]
    assert json.loads(json_text([*value, {1}, Broken()])) == [
        "nan",
        "-inf",
        "2026-03-01T00:00:00+00:00",
        "failed",
        [1, 2],
        {"3": 4},
        "{1}",
        "<Broken>",
    ]


def test_what_is_nested_too_deep_is_told_in_words() -> None:
    """So that neither the writer nor a reader fails by it."""
    nested: Any = "x"
    for _ in range(100_000):
        nested = [nested]
    found = json.loads(json_text(nested))
    for _ in range(DEEPEST):
        found = found[0]
    assert "too deep" in found
    assert plain([[1]]) == [[1]]
