"""The readable file that is put together from pieces is the one that `json` would write, and holds what was folded."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from .. import AttemptResult, ExecutionState, NoteKind, TaskType
from ..json_folded import folded
from ..json_format import Content, Ownership, Row, attempt_row, note_row, parse_folded, parse_head, task_row
from ..records import AttemptRecord, NoteRecord, RunRecord, TaskRecord

MOMENTS = [0, 1, -1, 1_795_419_342_000_000, 1_795_419_342_000_007, 1_795_419_342_123_456]
TEXTS = ["t", "größe", 'a "b" \\ /', "\x7f\x00", "\ud800", "\U0001f40d", "</script>", ""]
VALUES = [
    *["null", "true", "0", "-1", "123456789012345678", "1234567890123456789012", "1.5", "-0.0", "1e+300"],
    *['""', '"a b"', '"a\\"b"', '"größe"', '"\\ud800"', '"\x7f"', "[]", "{}", '[1,[2,"x"]]', '{"b":{"d":1,"c":"ü"},"a":[]}'],
]


LISTS = ("tasks", "attempts", "notes")


def a_plain_task(position: int) -> TaskRecord:
    """As most tasks are."""
    return TaskRecord(
        "run", f"task{position}", position, TaskType.TASK, ExecutionState.SUCCESS, 1, started=5, ended=7_000_000, output="1"
    )


def an_odd_task(random: Random, position: int) -> TaskRecord:
    """One that differs from the others in some way, or in many."""
    task = a_plain_task(position)
    oddities: dict[str, list[Any]] = {
        "task_id": TEXTS,
        "type": list(TaskType),
        "state": list(ExecutionState),
        "attempts": [0, 3, True],
        "try_number": [2, 10**30],
        "interruptions": [1],
        "crashes": [1],
        "started": [None, *MOMENTS],
        "ended": [None, *MOMENTS],
        "due": MOMENTS,
        "input": VALUES,
        "output": [None, *VALUES],
        "error": TEXTS,
        "reason": TEXTS,
        "logs": ["[]", '[[5,20,"größe"],[7000000,30,"x"]]'],
        "child_run_id": TEXTS,
    }
    for name in random.sample(sorted(oddities), random.choice([1, 1, 2, 16])):
        setattr(task, name, random.choice(oddities[name]))
    return task


def a_content(tasks: list[TaskRecord], attempts: list[AttemptRecord], notes: Sequence[NoteRecord] = ()) -> Content:
    content = Content(RunRecord("run", "größe", '{"a":[1]}', "", 5), order=7, owner=Ownership("me", 3, 9), folds=2)
    content.tasks = {task.position: task_row(task) for task in tasks}
    content.attempts = {(attempt.position, attempt.number): attempt_row(attempt) for attempt in attempts}
    content.notes = [note_row(note) for note in notes]
    content.commits = {"session": 3}
    content.beside = {"b", "a"}
    return content


def checksums_of(tree: dict[str, Any]) -> list[str]:
    """By the book: of each part's data in the one order that there is."""

    def summed(data: Any) -> bytes:
        return json.dumps(data, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    head = summed({name: data for name, data in tree.items() if name not in ("checksums", *LISTS)})
    rows = [summed(data) for part in LISTS for data in (len(tree[part]), *tree[part])]
    return [f"{zlib.crc32(head):08x}", f"{zlib.crc32(head + b''.join(rows)):08x}"]


def is_read_as(content: Content, data: bytes) -> None:
    read = parse_folded(data, "run.json", "store")
    assert read.folds == content.folds + 1
    read.folds = content.folds
    assert read == content


@pytest.mark.parametrize("seed", range(20))
def test_what_is_folded_is_what_json_would_write_and_is_read_again(seed: int) -> None:
    random = Random(seed)
    tasks = [an_odd_task(random, position) if random.random() < 0.5 else a_plain_task(position) for position in range(150)]
    attempts = [
        AttemptRecord("run", random.choice(TEXTS), at, 1, 0, AttemptResult.FAILED, random.choice(MOMENTS), None, "e", None, None)
        for at in range(random.choice([0, 1, 64, 70]))
    ]
    notes = [
        random.choice(
            [
                NoteRecord("run", kind, at),
                NoteRecord("run", kind, at, "me", random.choice(TEXTS), at, ExecutionState.FAILED, 9, "[1]"),
            ]
        )
        for kind in NoteKind
        for at in range(random.choice([0, 1, 70]))
    ]
    content = a_content(tasks, attempts, notes)
    data = folded(content)
    is_read_as(content, data)
    tree = json.loads(data)
    assert tree["checksums"] == checksums_of(tree)
    assert parse_head(b"".join(data.splitlines(keepends=True)[:2]), "run.json", "store").run == content.run
    parts = [[json.dumps(row, ensure_ascii=False) for row in tree[name]] for name in LISTS]
    shown = data.decode().split('\n "tasks": ')[1]
    if not any(0xD800 <= ord(sign) < 0xE000 for part in parts for line in part for sign in line):  # those have to be escaped
        first, second, third = ("[\n  " + ",\n  ".join(part) + "\n ]" if part else "[]" for part in parts)
        assert shown == f'{first},\n "attempts": {second},\n "notes": {third}\n}}\n'


def test_a_plain_task_and_an_odd_one_say_the_same_of_what_they_share() -> None:
    plain, odd = a_plain_task(0), a_plain_task(1)
    odd.reason = "x"
    rows = json.loads(folded(a_content([plain, odd], [])))["tasks"]
    assert {**rows[0], "task_id": "task1", "position": 1, "reason": "x"} == rows[1]
    assert [name for name in rows[1] if name != "reason"] == list(rows[0])


def test_a_run_without_tasks() -> None:
    content = a_content([], [])
    is_read_as(content, folded(content))


def test_rows_stay_rows() -> None:
    """What was read is kept as what is written is kept: one can be compared with the other."""
    task, attempt = a_plain_task(0), AttemptRecord("run", "t", 0, 1, 0, AttemptResult.FAILED, 1, 2, None, None, None)
    read, written = Content(), Content()
    note = NoteRecord("run", NoteKind.RESET, 3, task_id="t", state=ExecutionState.FAILED)
    rows: dict[str, list[Row]] = {"tasks": [task_row(task)], "attempts": [attempt_row(attempt)], "notes": [note_row(note)]}
    read.apply(json.loads(json.dumps(rows)), version=2)
    written.apply_written(dict(rows))
    assert read == written
    assert read.task_records() == [task]
    assert read.attempt_records() == [attempt]
    assert read.note_records() == [note]
