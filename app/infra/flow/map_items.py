"""The items of mapped tasks: what their tasks are called, how their keys are kept, and a run's records of them.

Pure: must not know graphs, states or what follows from their ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from .models import TaskType
from .records import TaskRecord

Keys = int | Sequence[str]
"""How the items of one task are called: by so many indexes, or by their keys."""

MAX_KEY_LENGTH = 300
# Not compiled here: few programs have any, and `re` keeps what it has compiled.
_UNUSABLE = r"[\[\]\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
_DOTS = r"\.(?![^\[\]]*\])"


def whole_of(task_id: str) -> str | None:
    """The id of the mapped task that an item's id would be one of; None where it is not called like an item."""
    if not task_id.endswith("]"):
        return None
    whole, bracket, _ = task_id.partition("[")
    return whole if bracket and whole else None


def split_path(path: str) -> list[str]:
    """The ids that a dotted path is made of: `sub[a.b].inner` has two, for a dot in brackets belongs to a key."""
    return path.split(".") if "[" not in path else re.split(_DOTS, path)


def problem_of_key(key: object) -> str | None:
    """Why something cannot be the key of an item; None where it can."""
    if not isinstance(key, str):
        return f"it must be a string, not {type(key).__name__}"
    if not key.strip():
        return "it must not be empty"
    if len(key) > MAX_KEY_LENGTH:
        return f"it is longer than {MAX_KEY_LENGTH} characters"
    if re.search(_UNUSABLE, key):
        return "it must not hold brackets, control characters or lone surrogates"
    return None


def ids_of(whole: str, keys: Keys) -> list[str]:
    """What the tasks of the items are called."""
    return [f"{whole}[{key}]" for key in (range(keys) if isinstance(keys, int) else keys)]


def text_of(keys: Keys) -> str:
    """The keys as they are kept, as the input of the mapped task."""
    return str(keys) if isinstance(keys, int) else json.dumps(list(keys))


def keys_of(text: str | None) -> Keys | None:
    """The keys that `text_of` wrote; None where there are none: it was never begun, or was not mapped then."""
    kept: Any = None if text is None else json.loads(text)
    if type(kept) is int:
        return kept
    if isinstance(kept, list) and all(isinstance(key, str) for key in kept):
        return cast("list[str]", kept)
    return None


def new_items(run_id: str, ids: Iterable[str], kind: TaskType) -> dict[str, TaskRecord]:
    """Records for items, yet without their places in the run."""
    return {item_id: TaskRecord(run_id, item_id, -1, kind) for item_id in ids}


def by_whole(tasks: Mapping[str, TaskRecord], wholes: Iterable[str]) -> dict[str, dict[str, TaskRecord]]:
    """The items among a run's records, by the mapped tasks that they are of."""
    found: dict[str, dict[str, TaskRecord]] = {whole: {} for whole in wholes}
    for task_id, record in tasks.items():
        whole = whole_of(task_id)
        if whole is not None and whole in found:
            found[whole][task_id] = record
    return found
