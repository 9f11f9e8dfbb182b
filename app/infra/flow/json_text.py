"""JSON of many rows, written and read in pieces: until Python's `json` is done, no other thread runs, nor the event loop in it.

Gives what `json.dumps` and `json.loads` give. Must not know what the rows are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

ROWS = 20
"""Longer lists than this are written in pieces of it."""
LENGTH = 128 * 1024
"""Longer texts than this, in bytes, are read in pieces."""

_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode
compact = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode
"""The shortest text of some data, in ASCII."""


def dumps(entry: Mapping[str, Any]) -> str:
    """The shortest text of a JSON object, in ASCII."""
    for value in entry.values():
        if type(value) is list and len(value) > ROWS:
            break
    else:
        return compact(entry)
    return "{" + ",".join(f"{compact(key)}:{_list(value)}" for key, value in entry.items()) + "}"


def _list(value: Any) -> str:
    if type(value) is not list or len(value) <= ROWS:
        return compact(value)
    return "[" + ",".join(compact(value[start : start + ROWS])[1:-1] for start in range(0, len(value), ROWS)) + "]"


def loads(data: bytes) -> Any:
    """The data that a JSON text stands for.

    Raises:
        ValueError, RecursionError: it is no JSON.
    """
    if len(data) > LENGTH:
        text = data.decode(json.detect_encoding(data), "surrogatepass")
        try:
            return _object(text)
        except (ValueError, IndexError):  # perhaps it is no object; if it is no JSON, this tells where and why
            return json.loads(text)
    return json.loads(data)


def _object(text: str) -> dict[str, Any]:
    """An object, each item of a list in it read by itself."""
    tree: dict[str, Any] = {}
    place = _expect("{", text, 0)
    while True:
        key, place = _decode(text, place)
        if type(key) is not str:
            raise ValueError("a key is no string")
        place = _expect(":", text, place)
        tree[key], place = _array(text, place) if text[place] == "[" else _decode(text, place)
        place = _after(text, place)
        if text[place] == "}":
            if _after(text, place + 1) < len(text):
                raise ValueError("something follows the object")
            return tree
        place = _expect(",", text, place)


def _array(text: str, place: int) -> tuple[list[Any], int]:
    rows: list[Any] = []
    place = _expect("[", text, place)
    if text[place] == "]":
        return rows, place + 1
    while True:
        row, place = _decode(text, place)
        rows.append(row)
        place = _after(text, place)
        if text[place] == "]":
            return rows, place + 1
        place = _expect(",", text, place)


def _after(text: str, place: int) -> int:
    """The place of what follows the white space."""
    found = _SPACE.match(text, place)
    assert found is not None
    return found.end()


def _expect(sign: str, text: str, place: int) -> int:
    """The place of what follows a sign, and white space around it."""
    place = _after(text, place)
    if text[place] != sign:
        raise ValueError(f"no {sign} at {place}")
    return _after(text, place + 1)
