"""Every error of the engine: facts as attributes, one line that names them, and a way through a pickle."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Mapping
from copy import copy
from typing import Any

import pytest

from .. import errors
from ..errors import (
    AmbiguousDependencyError,
    AttemptWithdrawnError,
    BranchError,
    CannotTravelError,
    CycleError,
    DefinitionError,
    DuplicateTaskError,
    FlowError,
    GraphChangedError,
    IllegalTransitionError,
    InvalidNameError,
    InvalidOptionError,
    MapError,
    NestedFlowError,
    NoCurrentTaskError,
    NonRetryableError,
    NoRunningLoopError,
    NotSentError,
    NotUpstreamError,
    OwnershipLostError,
    ParallelError,
    RetryAfter,
    RunActiveError,
    RunError,
    RunExistsError,
    RunFailedError,
    RunMismatchError,
    RunningLoopError,
    RunNotFoundError,
    RunOwnedError,
    RunStoppedError,
    RunTimeoutError,
    SkipTask,
    StoreBusyError,
    StoreClosedError,
    StoreDamagedError,
    StoredValueError,
    StoreError,
    StoreForkedError,
    StoreFormatError,
    StoreFullError,
    StoreVersionError,
    TaskFunctionError,
    TaskTimeoutError,
    UnknownDependencyError,
    UnknownExecutorError,
    UnknownPoolError,
    UnknownTaskError,
    UnregisteredTypeError,
    UnstorableValueError,
    ValueTooLargeError,
    WorkerDiedError,
    abridged,
    closest,
    printable,
    shown,
)

# Each error as it is made, with its facts, and what its sentence must say beside them.
EXAMPLES: list[tuple[FlowError, Mapping[str, Any], str]] = [
    (FlowError("it went wrong"), {}, "it went wrong"),
    (DefinitionError("it makes no sense"), {}, "it makes no sense"),
    (RunError("it cannot run"), {}, "it cannot run"),
    (
        InvalidNameError("task id", "a.b", "it must not"),
        {"kind": "task id", "name": "a.b", "problem": "it must not"},
        "cannot be a",
    ),
    (DuplicateTaskError("nightly", "load"), {"flow_name": "nightly", "task_id": "load"}, "replace=True"),
    (
        UnknownDependencyError("nightly", "load", "extrct", "extract"),
        {"flow_name": "nightly", "task_id": "load", "dependency": "extrct", "suggestion": "extract"},
        "Did you mean 'extract'?",
    ),
    (
        AmbiguousDependencyError("report", "work", ["extract", "load"]),
        {"task_id": "report", "function_name": "work", "task_ids": ("extract", "load")},
        "by its id",
    ),
    (CycleError(["a", "b", "a"], "nightly"), {"cycle": ("a", "b", "a"), "flow_name": "nightly"}, "a -> b -> a"),
    (CycleError(["a", "a"]), {"cycle": ("a", "a")}, "a -> a"),
    (NestedFlowError("outer", ["in", "back"]), {"flow_name": "outer", "path": ("in", "back")}, "'in.back'"),
    (
        TaskFunctionError("load", "work", "it yields"),
        {"task_id": "load", "function_name": "work", "problem": "it yields"},
        "cannot use work",
    ),
    (
        InvalidOptionError("max_retries", -1, "a whole number", "load"),
        {"option": "max_retries", "value": -1, "expected": "a whole number", "task_id": "load"},
        "max_retries=-1",
    ),
    (InvalidOptionError("folder", None, "a path"), {"option": "folder", "expected": "a path"}, "folder=None"),
    (
        CannotTravelError("load", "the function tasks.<lambda>", "it is a lambda, which has no name"),
        {"task_id": "load", "what": "the function tasks.<lambda>", "problem": "it is a lambda, which has no name"},
        "at the top level of a module",
    ),
    (
        ParallelError("nightly", "extract", "load"),
        {"flow_name": "nightly", "upstream": "extract", "downstream": "load"},
        "'load' is downstream of 'extract'",
    ),
    (
        UnknownTaskError("Run 'run-1'", "laod", "load"),
        {"where": "Run 'run-1'", "task_id": "laod", "suggestion": "load"},
        "Did you mean 'load'?",
    ),
    (
        UnstorableValueError("output['rows'][3]", "threading.Lock", "return plain data", "load"),
        {"place": "output['rows'][3]", "type_name": "threading.Lock", "problem": "return plain data", "task_id": "load"},
        "cannot be stored",
    ),
    (
        UnstorableValueError("params['x']", "generator", "return a list"),
        {"place": "params['x']", "type_name": "generator", "problem": "return a list"},
        "cannot be stored",
    ),
    (
        ValueTooLargeError("output", "str", 20_000_000, 16_777_216, "load"),
        {"place": "output", "type_name": "str", "task_id": "load"},
        "20,000,000 characters and the limit is 16,777,216.",
    ),
    (UnregisteredTypeError("Row"), {"type_name": "Row"}, "store.register(TheClass)"),
    (StoredValueError("it is cut off"), {"problem": "it is cut off"}, "does not read back"),
    (RunNotFoundError("run-1", "runs.db"), {"run_id": "run-1", "store": "runs.db"}, "list_runs()"),
    (
        RunExistsError("run-1", "nightly", "weekly"),
        {"run_id": "run-1", "flow_name": "nightly", "wanted_by": "weekly"},
        "another run_id",
    ),
    (
        RunMismatchError("run-1", "nightly", "weekly"),
        {"run_id": "run-1", "flow_name": "nightly", "asked_of": "weekly"},
        "continue it",
    ),
    (RunActiveError("run-1", "retry a task of"), {"run_id": "run-1", "action": "retry a task of"}, "Wait for it to end"),
    (
        RunOwnedError("run-1", "process 7 on mill", 1_700_000_000_000_000),
        {"run_id": "run-1", "owner": "process 7 on mill"},
        "process 7 on mill since 2023-11-14 22:13:20 UTC",
    ),
    (RunOwnedError("run-1"), {"run_id": "run-1"}, "flow.take_over('run-1')"),
    (OwnershipLostError("run-1", "process 7"), {"run_id": "run-1", "owner": "process 7"}, "was taken over by process 7"),
    (StoreBusyError("runs.db", 30.0), {"store": "runs.db"}, "waited 30 s"),
    (StoreForkedError("runs.db"), {"store": "runs.db"}, "only after the fork"),
    (StoreFullError("runs.db", "the disk is full"), {"store": "runs.db", "problem": "the disk is full"}, "the disk is full"),
    (
        GraphChangedError("run-1", "nightly", ["new"], ["old"], ["load"]),
        {"run_id": "run-1", "flow_name": "nightly", "added": ("new",), "removed": ("old",), "changed": ("load",)},
        "(added: new; removed: old; changed: load)",
    ),
    (GraphChangedError("run-1", "nightly", removed=["old"]), {"added": (), "removed": ("old",), "changed": ()}, "(removed: old)"),
    (
        IllegalTransitionError("Task 'load'", "success", "running"),
        {"subject": "Task 'load'", "source": "success", "target": "running"},
        "cannot go from success to running",
    ),
    (
        RunFailedError("run-1", "nightly", "failed", {"load": "ValueError: bad row"}),
        {"run_id": "run-1", "flow_name": "nightly", "state": "failed", "failures": {"load": "ValueError: bad row"}},
        "\n  load: ValueError: bad row",
    ),
    (RunFailedError("run-1", "nightly", "cancelled", {}), {"state": "cancelled", "failures": {}}, "cancelled."),
    (RunningLoopError("nightly"), {"flow_name": "nightly"}, "await flow.run_until_complete"),
    (NoRunningLoopError("nightly"), {"flow_name": "nightly"}, "flow.run(params)"),
    (RunStoppedError("run-1"), {"run_id": "run-1"}, "flow.start(run_id='run-1')"),
    (NotUpstreamError("load", "report"), {"task_id": "load", "wanted": "report"}, "depends_on"),
    (RetryAfter(30, "overloaded"), {"message": "overloaded"}, "to be tried again after 30 s"),
    (RetryAfter(2.5), {"message": ""}, "to be tried again after 2.5 s"),
    (NonRetryableError("no such account"), {"message": "no such account"}, "no such account"),
    (NonRetryableError(), {"message": ""}, "another attempt cannot help"),
    (SkipTask("no new files"), {"reason": "no new files"}, "no new files"),
    (SkipTask(), {"reason": ""}, "the task had nothing to do"),
    (
        MapError("parse", "files", "the output of task 'files' is None, and no list", "Have 'files' return a list or a tuple"),
        {"task_id": "parse", "map_over": "files", "advice": "Have 'files' return a list or a tuple"},
        "Task 'parse' cannot be mapped over 'files': the output of task 'files' is None, and no list. "
        "Have 'files' return a list or a tuple.",
    ),
    (
        BranchError("decide", "aprove", ["approve", "reject"]),
        {"task_id": "decide", "chosen": "aprove", "downstream": ("approve", "reject")},
        "Branch 'decide' chose 'aprove'; it must return ids of tasks that depend on it directly ('approve', 'reject'): "
        "one, a list of them, or None.",
    ),
    (
        RunTimeoutError("run-1", 60.0),
        {"run_id": "run-1"},
        "within 60 seconds (timeout=). It is saved as it stands; the next run_until_complete goes on with it",
    ),
    (
        TaskTimeoutError("load", 2.5, 1),
        {"task_id": "load", "seconds": 2.5, "attempt_number": 1},
        "Attempt 1 of task 'load' did not end within 2.5 seconds",
    ),
    (TaskTimeoutError("load", 2.5, 1, True), {"seconds": 2.5}, "no sign of life for 2.5 seconds (heartbeat_timeout="),
    (
        UnknownExecutorError("nightly", "load", "clutser", "cluster"),
        {"flow_name": "nightly", "task_id": "load", "executor": "clutser", "suggestion": "cluster"},
        "Did you mean 'cluster'?",
    ),
    (
        UnknownPoolError("nightly", "load", "db"),
        {"flow_name": "nightly", "task_id": "load", "pool": "db", "suggestion": None},
        "AsyncFlow(..., pools={'db': 2})",
    ),
    (NotSentError("load", "extract"), {"task_id": "load", "wanted": "extract"}, "Add 'extract' to its depends_on"),
    (NotSentError("load", "parse[3]", "parse"), {"whole": "parse"}, "Pull 'parse', the list of all of them"),
    (NoCurrentTaskError(), {}, "from a task's function"),
    (
        AttemptWithdrawnError("load", "ClientExecutor"),
        {"task_id": "load", "executor": "ClientExecutor"},
        "the ClientExecutor cancelled it before it was done",
    ),
    (
        WorkerDiedError("load", 4711, -9, True),
        {"task_id": "load", "pid": 4711},
        "was killed by SIGKILL (by hand, or because the machine ran out of memory)",
    ),
    (WorkerDiedError("load", 4711, -11, True), {"task_id": "load", "pid": 4711}, "killed by SIGSEGV (a crash in native code)."),
    (WorkerDiedError("load", 4711, -99, True), {"task_id": "load", "pid": 4711}, "was killed by signal 99."),
    (WorkerDiedError("load", 4711, 3, True), {"task_id": "load", "pid": 4711}, "ended with exit code 3."),
    (WorkerDiedError("load", 4711, None, True), {"task_id": "load", "pid": 4711}, "its exit code is not known"),
    (WorkerDiedError("load", 4711, 1, False), {"task_id": "load", "pid": 4711}, 'under `if __name__ == "__main__":`'),
    (
        WorkerDiedError("load", 4711, -9, False, "took more than 300 s to start and was killed"),
        {"task_id": "load", "pid": 4711},
        "took more than 300 s to start and was killed before",
    ),
    (StoreError("runs.db", "the disk is full"), {"store": "runs.db", "problem": "the disk is full"}, "runs.db"),
    (StoreClosedError("runs.db"), {"store": "runs.db"}, "call open()"),
    (StoreClosedError("runs.db", "it is gone"), {"store": "runs.db", "problem": "it is gone"}, "runs.db"),
    (StoreFormatError("runs.db", "it is a picture"), {"store": "runs.db", "problem": "it is a picture"}, "runs.db"),
    (StoreVersionError("runs.db", "it is of version 9"), {"store": "runs.db", "problem": "it is of version 9"}, "runs.db"),
    (StoreDamagedError("runs.db", "page 3"), {"store": "runs.db", "problem": "page 3"}, "runs.db"),
]
examples = pytest.mark.parametrize(("error", "facts", "says"), EXAMPLES, ids=lambda value: type(value).__name__)
ALL_CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, BaseException) and kind.__module__ == errors.__name__
]


def texts_in(fact: object) -> list[str]:
    """The texts that a fact consists of."""
    if isinstance(fact, dict):
        return [*fact, *fact.values()]
    return [str(item) for item in fact] if isinstance(fact, tuple) else [] if fact is None else [str(fact)]


def test_every_class_of_the_engine_has_an_example_here() -> None:
    missing = {kind.__name__ for kind in ALL_CLASSES} - {type(error).__name__ for error, _, _ in EXAMPLES}
    # A room that adds an error adds its example.
    assert not missing, f"no example of {', '.join(sorted(missing))} in EXAMPLES"


@pytest.mark.parametrize("kind", ALL_CLASSES)
def test_every_error_is_a_flow_error_and_says_in_its_docstring_when_it_is_raised(kind: type[BaseException]) -> None:
    assert issubclass(kind, FlowError)
    assert kind.__doc__


@examples
def test_an_error_carries_its_facts_as_attributes(error: FlowError, facts: Mapping[str, Any], says: str) -> None:
    assert {name: getattr(error, name) for name in facts} == facts


@examples
def test_the_sentence_names_every_fact_and_what_to_do(error: FlowError, facts: Mapping[str, Any], says: str) -> None:
    sentence = str(error)
    assert says in sentence
    for fact in facts.values():
        for text in texts_in(fact):
            assert text in sentence


@examples
def test_the_sentence_is_one_line_that_ends_like_one_and_is_not_quoted(
    error: FlowError, facts: Mapping[str, Any], says: str
) -> None:
    first, *more = str(error).split("\n")
    assert first.isprintable()
    assert first == first.strip()
    assert not first.startswith(('"', "("))
    assert all(line.startswith("  ") for line in more), "only a list of causes goes below the sentence"


@examples
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_a_pickle_with_its_facts_and_sentence(
    error: FlowError, facts: Mapping[str, Any], says: str, protocol: int
) -> None:
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert {name: getattr(back, name) for name in facts} == facts


@examples
def test_a_copy_of_an_error_says_the_same(error: FlowError, facts: Mapping[str, Any], says: str) -> None:
    assert str(copy(error)) == str(error)


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (UnknownTaskError, KeyError),
        (RunNotFoundError, KeyError),
        (RunNotFoundError, RunError),
        (DefinitionError, ValueError),
        (CycleError, DefinitionError),
        (UnstorableValueError, TypeError),
        (ValueTooLargeError, UnstorableValueError),
        (UnregisteredTypeError, TypeError),
        (StoredValueError, ValueError),
        (RunningLoopError, RuntimeError),
        (NoRunningLoopError, RuntimeError),
        (StoreClosedError, StoreError),
        (StoreDamagedError, StoreError),
    ],
)
def test_an_error_is_also_what_python_itself_would_raise(kind: type[Exception], base: type[Exception]) -> None:
    assert issubclass(kind, base)


def test_lists_handed_to_an_error_are_copied() -> None:
    path, causes = ["a", "b", "a"], {"load": "boom"}
    cycle, failed = CycleError(path), RunFailedError("run-1", "nightly", "failed", causes)
    path.append("c")
    causes.clear()
    assert cycle.cycle == ("a", "b", "a")
    assert failed.failures == {"load": "boom"}


# --- long lists ---


MANY = [f"t{index}" for index in range(100_000)]


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (CycleError([*MANY, "t0"]), "t0 -> t1 -> t2 -> t3 -> t4 -> t5 -> ... (99989 more) ... -> t99995"),
        (AmbiguousDependencyError("a", "work", MANY), "t5, ... (99988 more) ..., t99994"),
        (NestedFlowError("outer", MANY), "t5.... (99988 more) ....t99994"),
        (GraphChangedError("run-1", "nightly", MANY, MANY, MANY), "removed: t0, t1, t2, t3, t4, t5, ... (99988 more) ..."),
        (RunFailedError("run-1", "nightly", "failed", dict.fromkeys(MANY, "boom")), "\n  ... (99988 more) ...\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_long_list_is_shortened_in_the_middle_and_counted(error: FlowError, kept: str) -> None:
    assert kept in str(error)
    assert len(str(error)) < 600


def test_a_list_that_a_person_can_read_is_not_shortened() -> None:
    assert "more" not in str(CycleError(["a", *MANY[:10], "a"]))
    assert "(1 more)" in str(CycleError(["a", *MANY[:11], "a"]))


# --- near names and shown values ---


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        ("extrct", ["load", "extract", "report"], "extract"),
        ("load_orders", ["load_order", "load_customers"], "load_order"),
        ("EXTRACT", ["load", "extract"], "extract"),
        ("zzz", ["load", "extract"], None),
        ("load", [], None),
        ("", ["load"], None),
    ],
)
def test_the_closest_name_is_the_one_a_person_most_likely_meant(name: str, candidates: list[str], expected: str | None) -> None:
    assert closest(name, iter(candidates)) == expected


class BrokenRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\x1b[0m", r"'a\x1b[0m'"),
        (10**5000, "<int>"),
        (BrokenRepr(), "<BrokenRepr>"),
        ("x" * 198, repr("x" * 198)),
        ("x" * 199, "'" + "x" * 196 + "..."),
    ],
    ids=["control characters", "too many digits", "a broken repr", "just short enough", "long"],
)
def test_a_value_is_shown_in_bounded_length_whatever_its_repr_does(value: object, text: str) -> None:
    assert shown(value) == text
    assert str(InvalidOptionError("option", value, "sensible")) == f"option={text} is not usable; it must be sensible."


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("0123456789", "0123456789"),
        ("0123456789A", "01234\n... (1 characters left out) ...\n6789A"),
        ("x" * 5 + "y" * 10_000 + "z" * 5, "xxxxx\n... (10,000 characters left out) ...\nzzzzz"),
    ],
)
def test_a_text_that_is_too_long_loses_its_middle_and_says_how_much(text: str, kept: str) -> None:
    assert abridged(text, 10) == kept


# --- what a terminal or a log may be shown ---

STEERING = [*map(chr, (*range(9), *range(11, 32), *range(127, 160))), *"\u061c\u200e\u200f\u202a\u202e\u2066\u2069", "\udce9"]


@pytest.mark.parametrize("character", STEERING, ids=ascii)
def test_a_character_that_steers_or_disguises_is_shown_as_an_escape(character: str) -> None:
    assert printable(f"a{character}b") == f"a{ascii(character)[1:-1]}b"


@pytest.mark.parametrize("text", ["", "two lines\n\tand a tab", "Zürich 日本 💾 \\x1b", "a\u200db\ufeff"])
def test_other_text_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    "error",
    [
        RunFailedError("run-1", "nightly", "failed", {"load": "ValueError: \x1b[2J\r\u202eevil"}),
        RunFailedError("run-1", "nightly", "failed", {"\u202edaol": "ValueError"}),
        GraphChangedError("run-1", "nightly", ["\u202enew\x9b31m"]),
        StoreError("runs.db", "it says \x1b]0;owned\x07"),
        StoredValueError("ValueError: \x1b[31m"),
        FlowError("\x1b[31m"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_error_carries_an_escape_sequence_to_a_terminal(error: FlowError) -> None:
    assert not any(character in str(error) for character in STEERING)


def test_what_an_error_holds_as_facts_stays_as_it_is() -> None:
    error = RunFailedError("run-1", "nightly", "failed", {"load": "ValueError: \x1b[2J"})
    assert error.failures == {"load": "ValueError: \x1b[2J"}
    assert r"load: ValueError: \x1b[2J" in str(error)
