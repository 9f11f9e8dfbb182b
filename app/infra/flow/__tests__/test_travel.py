"""What is sent with an attempt to another process, what the task may see of its run there, and what comes back."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from .. import CannotTravelError, Context, ExecutionState, NotSentError, ValueCodec
from ..context import MAX_LOG_LINES
from ..executors import Outcome
from ..live_run import LiveRun
from ..remote_executors import outcome_of
from ..travel import MAX_TEXT, Reply, check_travels, pack, run_there, unpack
from . import worker_tasks
from .attempts import call_of, live_run
from .processes import PACKAGE, ROOT


def there_and_back(function: Any, live: LiveRun | None = None) -> Outcome:
    """Make an attempt from its bytes alone, and take the bytes of the reply: as in another process."""
    live = live or live_run(function)
    reply = run_there(*unpack(pack("only", function, live.snapshot("only"))))
    return outcome_of(call_of(function, live), pickle.loads(pickle.dumps(reply)))


def test_a_task_finds_there_what_it_would_find_here() -> None:
    """Run, params, own instance, dependencies, current context; and what it changes, logs and returns comes back."""
    live = live_run(
        worker_tasks.sees,
        {"near": (1, 2), "far": 3},
        depends_on=["near"],
        params={"day": "monday", "gone": 1},
        redact=lambda text: text.replace("hunter2", "***"),
    )
    outcome = there_and_back(worker_tasks.sees, live)
    assert outcome.failure is None
    assert live.codec.decode(outcome.output or "") == {
        "run": ("run-1", "nightly", "monday"),
        "tasks": ["near", "only"],
        "own": ("only", 0, "run-1/only"),
        "near": (1, 2),
        "current": True,
        "cancelled": False,
    }
    assert outcome.params == {"seen": '"monday"', "gone": None}
    assert [line[1:] for line in live.codec.decode(outcome.logs or "")] == [[20, "the key is ***"], [30, "careful"]]


def test_lines_are_told_to_the_logger_here(caplog: pytest.LogCaptureFixture) -> None:
    """With the facts of the attempt on the record, and redacted."""
    live = live_run(worker_tasks.fails, redact=lambda text: text.replace("last", "***"))
    with caplog.at_level(logging.INFO, logger="night_batch.nightly"):
        outcome = there_and_back(worker_tasks.fails, live)
    record: Any = caplog.records[0]
    assert (record.getMessage(), record.task_id, record.run_id, record.attempt) == ("*** words", "only", "run-1", 0)
    assert outcome.failure is not None
    assert len(caplog.records) == 1


def test_only_the_outputs_of_declared_dependencies_are_sent() -> None:
    """A pull of another says so, and what to do; a pull of the task itself is no pull of something upstream."""
    for function, name in ((worker_tasks.pulls_far, "NotSentError"), (worker_tasks.pulls_itself, "NotUpstreamError")):
        outcome = there_and_back(function, live_run(function, {"near": 1, "far": 2}, depends_on=["near"]))
        assert outcome.failure is not None
        assert outcome.failure.type_name.endswith(name)
    with pytest.raises(NotSentError, match="Add 'far' to its depends_on"):
        live_run(worker_tasks.one).snapshot("only").pull("only", "far")


def test_of_a_map_the_whole_list_is_sent_and_who_pulls_one_item_is_told_so() -> None:
    snapshot = live_run(worker_tasks.one, {"parse": [1, 2]}, depends_on=["parse"]).snapshot("only")
    assert snapshot.pull("only", "parse") == [1, 2]
    with pytest.raises(NotSentError, match="Pull 'parse', the list of all of them"):
        snapshot.pull("only", "parse[1]")
    snapshot.names = {"read": "parse"}
    with pytest.raises(NotSentError, match="Pull 'read', the list of all of them"):
        snapshot.id_of("only", "read[1]")


def test_a_dependency_that_did_not_succeed_is_none_there_too() -> None:
    live = live_run(worker_tasks.one, {"near": 1}, depends_on=["near"])
    live.machine.tasks["near"].state = ExecutionState.SKIPPED
    assert live.snapshot("only").pull("only", "near") is None


def test_a_snapshot_is_a_copy() -> None:
    """What becomes of the run afterwards is not in it, and its graph, which may be long, is not sent."""
    live = live_run(worker_tasks.one, {"near": 1}, depends_on=["near"], params={"day": 1})
    snapshot = live.snapshot("only")
    live.machine.tasks["near"].output = "2"
    live.params = {}
    assert (snapshot.pull("only", "near"), snapshot.params, snapshot.run.graph) == (1, {"day": "1"}, "")
    assert snapshot.snapshot("only") is snapshot


def test_an_output_that_was_let_go_is_read_again_for_it() -> None:
    live = live_run(worker_tasks.one, {"near": 1}, depends_on=["near"])
    record = live.machine.tasks["near"]
    live.outputs._read = lambda run_id, position: '"from the store"'
    live.outputs._gone.add(record.position)
    record.output = None
    assert live.snapshot("only").pull("only", "near") == "from the store"


def test_registered_types_travel_with_the_codec() -> None:
    """Values of the user's own types go both ways as text."""
    outcome = there_and_back(worker_tasks.pushes, live_run(worker_tasks.pushes, codec=ValueCodec((worker_tasks.Row,))))
    assert outcome.output == '{"$":"object","type":"Row","v":{"number":7}}'
    outcome = there_and_back(worker_tasks.pushes)
    assert outcome.failure is not None
    assert "store.register(Row)" in outcome.failure.message


def test_the_codecs_limit_holds_there() -> None:
    outcome = there_and_back(worker_tasks.later, live_run(worker_tasks.later, codec=ValueCodec(max_size=3)))
    assert outcome.failure is not None
    assert outcome.failure.type_name.endswith("ValueTooLargeError")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (worker_tasks.fails, "ValueError: bad row"),
        (worker_tasks.fails_later, "ValueError: bad row"),
        (worker_tasks.leaves, "SystemExit: 3"),
        (worker_tasks.interrupts, "KeyboardInterrupt"),
        (worker_tasks.gives_a_lock, "UnstorableValueError: Task 'only': output is of type _thread.lock"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_whatever_a_task_raises_is_a_failure_and_its_traceback_is_the_tasks_own(function: Any, says: str) -> None:
    """Nothing comes out of `run_there`; no frame of the engine's or of asyncio's stands in the text."""
    outcome = there_and_back(function)
    assert outcome.failure is not None
    assert says in outcome.failure.summary
    assert "runners.py" not in outcome.failure.traceback
    assert "travel.py" not in outcome.failure.traceback
    assert not outcome.cancelled


def test_a_coroutine_that_raises_cancelled_error_says_so() -> None:
    outcome = there_and_back(worker_tasks.cancels)
    assert outcome.failure is not None
    assert outcome.cancelled


def test_a_coroutine_function_is_run_in_a_loop_of_its_own() -> None:
    assert there_and_back(worker_tasks.later).output == '"only"'


def test_what_is_logged_is_bounded_there() -> None:
    """A task that logs for ever fills neither the other process nor the reply; how much was left out is known."""
    outcome = there_and_back(worker_tasks.logs_much)
    lines = live_run(worker_tasks.one).codec.decode(outcome.logs or "")
    assert len(lines) == MAX_LOG_LINES + 1
    assert "100 more lines were left out" in lines[-1][2]

    def logs_long_lines(ctx: Context) -> None:
        for _ in range(3):
            ctx.log("x" * MAX_TEXT)

    large = run_there(logs_long_lines, live_run(worker_tasks.one).snapshot("only"))
    assert (len(large.lines or ()), large.left_out) == (1, 2)


def test_a_line_is_redacted_whole_and_cut_afterwards() -> None:
    """A secret that runs through the place of the cut would be unknown to the hook, so lines are not cut there."""

    def logs(ctx: Context) -> None:
        ctx.log("x" * 32_760 + "hunter2" + "x" * 100_000)

    live = live_run(logs, redact=lambda text: text.replace("hunter2", "***"))
    outcome = outcome_of(call_of(logs, live), run_there(logs, live.snapshot("only")))
    assert outcome.logs is not None
    assert "***" in outcome.logs
    assert "hunt" not in outcome.logs


def test_heartbeats_are_sent_now_and_then_where_somebody_hears_them() -> None:
    """A hundred in a row are few; with nobody to hear them, none."""
    snapshot = live_run(worker_tasks.beats).snapshot("only")
    heard: list[int] = []
    run_there(worker_tasks.beats, snapshot, beat=lambda: heard.append(1))
    assert 1 <= len(heard) < 50
    assert run_there(worker_tasks.beats, snapshot) == Reply("null")


# --- what cannot be sent ---


class Sevens:
    """Tasks may be objects."""

    def __init__(self, inside: object = None) -> None:
        self.inside = inside

    def __call__(self, ctx: Context) -> int:
        return 7


@pytest.mark.parametrize("function", [worker_tasks.one, partial(divmod, 7), Sevens()], ids=["function", "partial", "object"])
def test_what_can_be_imported_by_name_travels(function: Any) -> None:
    check_travels("load", function)


def nested() -> Any:
    def inside(ctx: Context) -> None: ...

    return inside


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda ctx: 1, r"the function .*test_travel\.<lambda> cannot be sent there: it is a lambda"),
        (nested(), r"the function .*inside cannot be sent there: it is defined inside a function"),
        (partial(nested(), 1), r"the function .*nested.*inside cannot be sent"),
        (Sevens(open(__file__)), "cannot be sent there: TypeError"),  # noqa: SIM115, PTH123
    ],
    ids=["lambda", "nested", "partial", "object"],
)
@pytest.mark.filterwarnings("ignore:unclosed file")
def test_what_cannot_is_refused_by_name(function: Any, says: str) -> None:
    """It is a DefinitionError, which says what it is and what to do."""
    with pytest.raises(CannotTravelError, match=says) as caught:
        check_travels("load", function)
    assert "top level of a module" in str(caught.value)


MAIN = """
import sys
sys.path.insert(0, {root!r})
from {package} import CannotTravelError
from {package}.travel import check_travels
def task(ctx): ...
class Task:
    def __call__(self, ctx): ...
for function in (task, Task()):
    try:
        check_travels("load", function)
        print("travels")
    except CannotTravelError as error:
        print(error)
"""


def test_a_main_script_that_is_no_file_is_refused(tmp_path: Any) -> None:
    """Functions of a script travel, for workers import it; those of an interactive session, or of `python -c`, do not."""
    code = MAIN.format(root=str(ROOT), package=PACKAGE)
    (tmp_path / "script.py").write_text(code)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(code)

    def said(*arguments: str, text: str = "") -> list[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
        ).stdout.splitlines()

    assert said("script.py") == said("-m", "script") == ["travels"] * 2
    for lines in (said("-c", code), said("-", text=code), said("-m", "package"), said("package")):
        assert len(lines) == 2
        assert all("interactive session or a script that is no file" in line for line in lines)


def test_a_registered_type_that_cannot_be_imported_is_named_when_it_is_sent() -> None:
    @dataclass
    class Local:
        number: int

    live = live_run(worker_tasks.one, codec=ValueCodec((Local,)))
    with pytest.raises(CannotTravelError, match=r"the registered type .*Local cannot be sent there: it is defined inside"):
        pack("only", worker_tasks.one, live.snapshot("only"))


def test_what_cannot_be_imported_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent it could be, but the other process has another version of the module: the error says which name is missing."""
    job = pack("only", worker_tasks.one, live_run(worker_tasks.one, codec=ValueCodec((worker_tasks.Row,))).snapshot("only"))
    with monkeypatch.context() as patch:
        patch.delattr(worker_tasks, "one")
        with pytest.raises(CannotTravelError, match=r"the function .*one cannot be sent there: there, AttributeError"):
            unpack(job)
    monkeypatch.delattr(worker_tasks, "Row")
    with pytest.raises(CannotTravelError, match="one of the registered types cannot be sent there: there, AttributeError"):
        unpack(job)


def test_a_worker_loads_little() -> None:
    """Neither asyncio nor a store is loaded for a plain function."""
    script = f"import sys, {PACKAGE}.worker_main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"asyncio", "sqlite3", "pickletools", f"{PACKAGE}.flow", f"{PACKAGE}.store", f"{PACKAGE}.executors"})
