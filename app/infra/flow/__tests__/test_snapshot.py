"""What is sent of a run is the same when it arrives, and small."""

from __future__ import annotations

import enum
import pickle
from functools import partial
from typing import Any

import pytest

from .. import CannotTravelError
from ..codec import ValueCodec
from ..models import ExecutionState, TaskType
from ..records import RunRecord, TaskRecord, columns_of
from ..snapshot import Snapshot
from ..travel import _is_found_by_name, check_travels
from . import cluster_tasks


class Colour(enum.Enum):
    RED = "red"


class Cautious(ValueCodec):
    """A codec of somebody's own."""


def snapshot(codec: ValueCodec | None = None) -> Snapshot:
    run = RunRecord("r", "flow", "{}", "graph", 7, ExecutionState.RUNNING, 8, None, "parent", "task")
    numbers: dict[str, Any] = {"position": 3, "attempts": 4, "try_number": 2, "interruptions": 1, "crashes": 1, "started": 9}
    task = TaskRecord("r", "here", state=ExecutionState.RUNNING, **numbers)
    above = TaskRecord("r", "above", 1, TaskType.FLOW, ExecutionState.SUCCESS, output="[1]", logs="[]", child_run_id="c", ended=5)
    return Snapshot.of(run, {"a": "1"}, [task, above], codec or ValueCodec(max_size=1000))


def test_all_that_is_sent_arrives() -> None:
    """Every field of the run, of the task and of those it depends on, under every protocol of pickle."""
    sent = snapshot()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        got = pickle.loads(pickle.dumps(sent, protocol))
        assert (got.run, got.task_id, got.params) == (sent.run, "here", {"a": "1"})
        assert [*got.tasks] == ["here", "above"]
        for task_id, task in sent.tasks.items():
            assert columns_of(got.tasks[task_id]) == columns_of(task)
            assert type(got.tasks[task_id].state) is ExecutionState and type(got.tasks[task_id].type) is TaskType
        assert got.codec.max_size == 1000
        assert got.pull("here", "above") == [1]


def test_types_of_the_users_and_codecs_of_their_own_are_sent_along() -> None:
    with_type = ValueCodec((Colour,))
    got = pickle.loads(pickle.dumps(snapshot(with_type)))
    assert got.codec.decode(with_type.encode(Colour.RED, "value")) is Colour.RED
    assert type(pickle.loads(pickle.dumps(snapshot(Cautious()))).codec) is Cautious
    # Nor does one attempt's type become known to the next.
    assert Colour.__qualname__ not in pickle.loads(pickle.dumps(snapshot())).codec._types


def test_a_task_without_much_is_sent_in_little() -> None:
    """Pickling is most of what sending costs: 800 bytes of class and field names took three times as long as 300 of values."""
    assert len(pickle.dumps(snapshot(), pickle.HIGHEST_PROTOCOL)) < 350


def test_what_stands_at_the_top_of_a_module_is_let_pass_without_being_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else is: what is no longer there under its name, is nested, or wears another's name."""

    def nested(ctx: object) -> None: ...

    function = cluster_tasks.square
    assert _is_found_by_name(function) and _is_found_by_name(Colour) is False  # a class with a metaclass may say how it is sent
    assert _is_found_by_name(Snapshot)
    assert not any(map(_is_found_by_name, (nested, lambda ctx: 1, partial(function), pickle.dumps)))
    monkeypatch.setattr(cluster_tasks, "square", nested)
    assert not _is_found_by_name(function)
    with pytest.raises(CannotTravelError, match="square"):
        check_travels("only", function)
    monkeypatch.undo()
    modules: list[object] = ["no such module", None, 7, []]
    for module in modules:
        monkeypatch.setattr(nested, "__module__", module)
        assert not _is_found_by_name(nested)
