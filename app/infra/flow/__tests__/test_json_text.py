"""JSON in pieces is JSON: what it writes and reads is what Python's own `json` does, and no piece is large."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from .. import json_text
from ..json_text import LENGTH, ROWS, dumps, loads

ROW: dict[str, Any] = {"größe": [1, 2.5, None, True, "x\ny", "\ud800", {"deep": [[]]}]}
LONG = "x" * LENGTH


@pytest.mark.parametrize("count", [0, 1, ROWS, ROWS + 1, 5 * ROWS + 7])
def test_rows_are_written_as_json_writes_them(count: int) -> None:
    entry: dict[str, Any] = {"version": 2, "tasks": [ROW] * count, 'odd "key"': "x", "attempts": [[]], "none": []}
    assert dumps(entry) == json.dumps(entry, separators=(",", ":"))


@pytest.mark.parametrize("indent", [None, 0, 3])
@pytest.mark.parametrize(
    "tree",
    [
        {"tasks": [ROW] * 5_000, "empty": [], "run": ROW, "last": 7},
        {"long": LONG, "twice": 1},
        {"list": [[1, [2]], [], {}, LONG]},
        [ROW, LONG],
        LONG,
    ],
)
def test_texts_are_read_as_json_reads_them(tree: Any, indent: int | None) -> None:
    text = json.dumps(tree, indent=indent)
    assert len(text) > LENGTH
    assert loads(text.encode()) == loads(f" \t\r\n{text} \n".encode()) == tree


def test_of_a_key_that_stands_there_twice_the_last_one_counts() -> None:
    text = f'{{"a": 1, "b": "{LONG}", "a": [2]}}'
    assert loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "broken",
    [
        '{"a": "LONG"',
        '{"a": "LONG",}',
        '{"a" "LONG"}',
        '{"a": ["LONG"}',
        '{"a": ["LONG",]}',
        '{"a": ["LONG" 2]}',
        '{"a": [',
        "{",
        '{"a": "LONG"} x',
        '{1: "LONG"}',
        '{"a": "LONG", 2: 3}',
        "LONG",
        '{"a": LONG}',
        '{"a": ["LONG", nope]}',
        '["LONG"',
    ],
)
def test_what_is_no_json_is_refused_as_json_does(broken: str) -> None:
    text = broken.replace("LONG", LONG) + " " * LENGTH
    with pytest.raises(ValueError) as ours:
        loads(text.encode())
    with pytest.raises(ValueError) as theirs:
        json.loads(text)
    assert str(ours.value) == str(theirs.value)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        loads(b'{"a": "' + b"\xff" * LENGTH + b'"}')


def test_no_piece_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many rows, none are given to `json` all at once."""
    entry = {"tasks": [ROW] * 10_000, "attempts": [ROW] * 10_000}
    pieces: list[int] = []
    compact, decode = json_text.compact, json_text._decode

    def written(tree: Any) -> str:
        pieces.append(len(compact(tree)))
        return compact(tree)

    def read(text: str, place: int) -> tuple[Any, int]:
        tree, end = decode(text, place)
        pieces.append(end - place)
        return tree, end

    monkeypatch.setattr(json_text, "compact", written)
    monkeypatch.setattr(json_text, "_decode", read)
    monkeypatch.setattr(json, "loads", pytest.fail)
    assert loads(dumps(entry).encode()) == entry
    assert len(re.findall("deep", dumps(entry))) == 20_000
    assert len(pieces) > 20_000
    assert max(pieces) < 200 * ROWS
