"""A run as the text of its readable file: JSON, with one line per task, attempt and note, and the run in the first two lines.

Most rows are alike, so those are put together from pieces; all others, and whatever looks odd, by way of `json`, with the same
text as the outcome. Pure text; must not know folders, locks or when anything is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from time import sleep
from typing import Any

from .codec import as_json
from .json_format import MOMENTS, VALUES, Content, Row, checksums, head_of, run_columns, summed_text
from .records import AttemptRecord, NoteRecord, RunRecord, TaskRecord
from .views import to_datetime

_shown_text: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
_quoted: Callable[[str], str] = encode_basestring_ascii
_RUN, _TASK, _ATTEMPT, _NOTE = (
    [column.name for column in fields(kind)] for kind in (RunRecord, TaskRecord, AttemptRecord, NoteRecord)
)
_ROWS = 64  # in a piece
_ALIKE = re.compile(r'0|-?[1-9][0-9]{0,17}|true|false|null|"[ !#-\[\]-~]*"')
"""Values whose text is the same however it is laid out."""


def folded(content: Content) -> bytes:
    """The readable file of a run."""
    assert content.run is not None
    head, run = head_of(content), _readable(_RUN, run_columns(content.run))
    tasks: list[bytes] = []
    attempts: list[bytes] = []
    notes: list[bytes] = []
    noted = dict(enumerate(content.notes))
    head["checksums"] = checksums(
        {**head, "run": run},
        (len(content.tasks), _summed(content.tasks, _task_texts, tasks)),
        (len(content.attempts), _summed(content.attempts, _attempt_texts, attempts)),
        (len(noted), _summed(noted, _note_texts, notes)),
    )
    begin = _encoded(f'{json.dumps(head)[:-1]},\n "run": {_shown_text(run)},\n "tasks": ')
    return b"".join([begin, *tasks, b',\n "attempts": ', *attempts, b',\n "notes": ', *notes, b"\n}\n"])


def _summed(rows: Mapping[Any, Row], texts_of: Callable[[Row], tuple[str, str]], written: list[bytes]) -> Iterator[str]:
    """What is summed up of each row in turn; on the way, the list of the rows is written in pieces, which keep nobody waiting."""
    keys = sorted(rows)
    between = "[\n  "
    for start in range(0, len(keys), _ROWS):
        lines: list[str] = []
        for key in keys[start : start + _ROWS]:
            shown, summed = texts_of(rows[key])
            lines.append(shown)
            yield summed
        written.append(_encoded(between + ",\n  ".join(lines)))
        between = ",\n  "
        sleep(0)  # whoever waits for the interpreter, such as an event loop in another thread, gets it now and not in 5 ms
    written.append(b"\n ]" if keys else b"[]")


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate in some value: only an escape can hold it
        return re.sub("[\ud800-\udfff]", lambda lone: f"\\u{ord(lone[0]):04x}", text).encode()


def _readable(names: Sequence[str], row: Row) -> dict[str, Any]:
    """A record as a JSON object: times in ISO 8601, values as themselves, and nothing that says nothing."""
    shown: dict[str, Any] = {}
    for name, value in zip(names, row):
        if value is None or name == "run_id":
            continue
        if name in MOMENTS:
            value = _iso(value)
        elif name in VALUES:
            value = as_json(value) if value else None
            if name == "logs":
                value = [[_iso(moment), *rest] for moment, *rest in value or ()]
        shown[name] = value
    return shown


def _attempt_texts(row: Row) -> tuple[str, str]:
    """An attempt as it is shown, and as it is summed up."""
    shown = _readable(_ATTEMPT, row)
    return _shown_text(shown), summed_text(shown)


def _note_texts(row: Row) -> tuple[str, str]:
    """A note as it is shown, and as it is summed up."""
    shown = _readable(_NOTE, row)
    return _shown_text(shown), summed_text(shown)


def _task_texts(row: Row) -> tuple[str, str]:
    """A task as it is shown, and as it is summed up."""
    _, task_id, position, kind, state, attempts, try_number, interruptions, crashes, *rest = row
    started, ended, due, given, output, error, reason, logs, child = rest
    if not (
        due is given is error is reason is logs is child is None
        and type(position) is type(attempts) is type(try_number) is type(interruptions) is type(crashes) is int
        and type(started) is type(ended) is int
        and type(task_id) is str
    ):
        shown = _readable(_TASK, row)
        return _shown_text(shown), summed_text(shown)
    summed_id = _quoted(task_id)
    shown_id = _shown_text(task_id) if "\\" in summed_id else summed_id
    kind, state, begun, over = _quoted(kind), _quoted(state), _iso(started), _iso(ended)
    if output is None:
        shown_output = summed_output = ""
    elif _ALIKE.fullmatch(output):
        shown_output, summed_output = f', "output": {output}', f'"output":{output},'
    else:
        tree = as_json(output)
        shown_output, summed_output = f', "output": {_shown_text(tree)}', f'"output":{summed_text(tree)},'
    return (
        f'{{"task_id": {shown_id}, "position": {position}, "type": {kind}, "state": {state}, "attempts": {attempts}, '
        f'"try_number": {try_number}, "interruptions": {interruptions}, "crashes": {crashes}, '
        f'"started": "{begun}", "ended": "{over}"{shown_output}}}',
        f'{{"attempts":{attempts},"crashes":{crashes},"ended":"{over}","interruptions":{interruptions},{summed_output}'
        f'"position":{position},"started":"{begun}","state":{state},"task_id":{summed_id},"try_number":{try_number},"type":{kind}}}',
    )


def _iso(moment: int) -> str:
    seconds, microseconds = divmod(moment, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06d}+00:00" if microseconds else f"{_second(seconds)}+00:00"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    when = to_datetime(seconds * 1_000_000)
    assert when is not None
    return when.replace(tzinfo=None).isoformat()
