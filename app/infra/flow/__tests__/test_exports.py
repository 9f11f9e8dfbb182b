"""What people may import and call: the names and signatures that user code relies on."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    BaseStore,
    Context,
    Event,
    ExecutionState,
    FlowBuilder,
    FlowError,
    JsonStore,
    MemoryStore,
    SQLiteStore,
    State,
    Store,
    TaskInstance,
    TaskType,
    WorkflowRun,
    errors,
    events,
)

package: Any = sys.modules[AsyncFlow.__module__.rpartition(".")[0]]

# The signatures of the design, word by word. A parameter may be added where no call written for these can notice.
FLOW: dict[str, str] = {
    "__init__": "self, flow_name, store=None",
    "task": ("self, task_id, *, depends_on=None, max_retries=0, retry_delay=None, task_type=None, name=None, description=None"),
    "subflow": (
        "self, subflow_id, *, depends_on=None, max_retries=0, retry_delay=None, params=None, name=None, description=None"
    ),
    "add_task_definition": (
        "self, task_id, task_function, *, task_type=None, dependencies=None, max_retries=0, retry_delay=None, "
        "name=None, description=None"
    ),
    "add_subflow_definition": (
        "self, subflow_id, child_flow, *, dependencies=None, max_retries=0, retry_delay=None, params=None, "
        "name=None, description=None"
    ),
    "has_task": "self, task_id",
    "update_task_retry_policy": "self, task_id, max_retries, retry_delay=None",
    "init_run": "self, params=None, parent_run_id=None, parent_task_id=None, run_id=None",
    "run_until_complete": "self, run_id, max_concurrency=0",
    "retry": "self, run_id, task_id, reset_downstream=True, max_concurrency=0",
    "manual_retry": "self, run_id, task_id, reset_downstream=False",
    "get_execution_details": "self, run_id",
}
BUILDER: dict[str, str] = {
    "__init__": "self, flow_name, store=None",
    "add_task": "self, task_id, task_function, *, depends_on=None, max_retries=0, retry_delay=None, task_type=None",
    "add_subflow": "self, subflow_id, child_flow, *, depends_on=None, max_retries=0, retry_delay=None",
    "add_parallel": "self, task_ids",
    "with_retry": "self, task_id, max_retries, delay=None",
    "build": "self",
}
CONTEXT: dict[str, str] = {
    "pull_output": "self, task_id",
    "pull": "self, task_id",
    "push_output": "self, value",
    "push": "self, value",
    "log": "self, message",
}
STORE: dict[str, str] = {
    "open": "self",
    "close": "self",
    "save": "self, run",
    "load": "self, run_id",
    "exists": "self, run_id",
    "update_task": "self, run_id, task_instance",
    "list_runs": "self",
    "list_children": "self, parent_run_id",
    "get_all_runs": "self, include_tasks=True",
}
STORES = (SQLiteStore, JsonStore, MemoryStore)
SIGNATURES: list[tuple[type, str, str]] = [
    *((AsyncFlow, name, promised) for name, promised in FLOW.items()),
    *((FlowBuilder, name, promised) for name, promised in BUILDER.items()),
    *((Context, name, promised) for name, promised in CONTEXT.items()),
    *((kind, name, promised) for kind in (Store, BaseStore, *STORES) for name, promised in STORE.items()),
    (SQLiteStore, "__init__", "self, path='runs.db'"),
    (JsonStore, "__init__", "self, folder='./runs'"),
    (MemoryStore, "__init__", "self"),
    (WorkflowRun, "get_all_tasks_recursive", "self, store"),
    (ExecutionState, "is_terminal", "state"),
]


def broken_promises(function: Callable[..., Any], promised: str) -> list[str]:
    """Why a call that the promised parameters allow would not do the same with those of `function`."""
    expected = list(inspect.signature(eval(f"lambda {promised}: None")).parameters.values())
    actual = list(inspect.signature(function).parameters.values())
    problems: list[str] = []
    for index, promise in enumerate(expected):
        found = next((parameter for parameter in actual if parameter.name == promise.name), None)
        if found is None:
            problems.append(f"{promise.name} is missing")
            continue
        if found.kind is not promise.kind or (promise.kind is not promise.KEYWORD_ONLY and actual.index(found) != index):
            problems.append(f"{promise.name} is passed in another way")
        if promise.default is not promise.empty and (type(found.default), found.default) != (
            type(promise.default),
            promise.default,
        ):
            problems.append(f"{promise.name} has the default {found.default!r}")
    known = {promise.name for promise in expected}
    added = [parameter for parameter in actual if parameter.name not in known and parameter.default is parameter.empty]
    return problems + [f"{parameter.name} is added and has no default" for parameter in added]


@pytest.mark.parametrize(
    ("kind", "name", "promised"), SIGNATURES, ids=[f"{kind.__name__}.{name}" for kind, name, _ in SIGNATURES]
)
def test_a_call_that_the_design_promises_works_as_promised(kind: type, name: str, promised: str) -> None:
    assert broken_promises(getattr(kind, name), promised) == []


def reference(a: int, b: str = "x", *, c: None = None) -> None: ...


@pytest.mark.parametrize(
    ("promised", "problems"),
    [
        ("a, b='x', *, c=None", []),
        ("a, b='x'", []),
        ("a, b, *, c=None", []),
        ("a", []),
        ("b='x'", ["b is passed in another way", "a is added and has no default"]),
        (
            "b='x', a=1",
            ["b is passed in another way", "a is passed in another way", f"a has the default {inspect.Parameter.empty!r}"],
        ),
        ("a, b='y'", ["b has the default 'x'"]),
        ("a, b='x', c=None", ["c is passed in another way"]),
        ("a, b='x', *, c=None, d=None", ["d is missing"]),
        ("a, b='x', *, c=False", ["c has the default None"]),
    ],
)
def test_the_comparison_of_signatures_tells_differences(promised: str, problems: list[str]) -> None:
    assert broken_promises(reference, promised) == problems


@pytest.mark.parametrize("name", ["run_until_complete", "retry"])
def test_what_drives_a_run_is_awaited(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(AsyncFlow, name))


@pytest.mark.parametrize("name", [name for name in FLOW if name not in ("run_until_complete", "retry")])
def test_everything_else_of_a_flow_is_called_without_await(name: str) -> None:
    assert not inspect.iscoroutinefunction(getattr(AsyncFlow, name))


# --- attributes ---


def test_the_attributes_of_a_flow_are_readable_and_its_store_assignable() -> None:
    store, other = MemoryStore(), MemoryStore()
    flow = AsyncFlow("nightly", store)
    assert flow.flow_name == "nightly"
    assert flow.store is flow._store is store
    flow.store = other
    assert flow.store is flow._store is other


def test_without_a_store_the_runs_live_in_a_memory_store_of_the_flow_s_own() -> None:
    first, second = AsyncFlow("nightly"), AsyncFlow("nightly")
    assert isinstance(first.store, MemoryStore)
    assert first.store is not second.store


async def test_the_attributes_of_a_context_are_those_that_tasks_rely_on(flow: AsyncFlow) -> None:
    seen: list[object] = []

    @flow.task("look")
    async def look(ctx: Context) -> None:
        assert ctx.workflow_run is ctx.run
        assert ctx.params is ctx.workflow_run.params
        assert ctx.task_instance.task_id == ctx.task_id
        seen.extend([ctx.task_id, ctx.attempt_number, ctx.params, ctx.task_instance.state, type(ctx.workflow_run)])

    run = await flow.run_until_complete(flow.init_run({"rows": 3}))
    run.raise_for_failure()
    assert seen == ["look", 0, {"rows": 3}, "running", WorkflowRun]


@pytest.mark.parametrize(
    ("kind", "promised"),
    [
        (
            TaskInstance,
            ["task_id", "type", "state", "try_number", "input_json", "output_json", "error", "start_date", "end_date"],
        ),
        (
            WorkflowRun,
            ["id", "flow_name", "params", "state", "start_date", "end_date", "tasks", "parent_run_id", "parent_task_id"],
        ),
    ],
)
def test_the_models_begin_with_the_fields_that_people_rely_on_and_later_ones_are_optional(kind: Any, promised: list[str]) -> None:
    assert [field.name for field in fields(kind)][: len(promised)] == promised
    assert [field.name for field in fields(kind)[len(promised) :] if field.default is field.default_factory is MISSING] == []


@pytest.mark.parametrize("member", ExecutionState)
def test_a_state_equals_its_lower_case_string_in_every_way_one_meets_it(member: ExecutionState) -> None:
    text = member.name.lower()
    assert member == text
    assert hash(member) == hash(text)
    assert f"{member}" == str(member) == format(member, "") == text
    assert f"{member:>12}" == text.rjust(12)
    assert ExecutionState(text) is member
    assert ExecutionState.is_terminal(text) is ExecutionState.is_terminal(member)


def test_the_states_and_types_are_those_of_the_design() -> None:
    assert State is ExecutionState
    assert [state.name for state in ExecutionState] == [
        "NONE",
        "SCHEDULED",
        "RUNNING",
        "SUCCESS",
        "FAILED",
        "SKIPPED",
        "CANCELLED",
    ]
    assert [state for state in ExecutionState if ExecutionState.is_terminal(state)] == [
        "success",
        "failed",
        "skipped",
        "cancelled",
    ]
    assert not ExecutionState.is_terminal("nonsense")
    assert [(kind.name, kind.value) for kind in TaskType] == [("TASK", "task"), ("FLOW", "flow")]


@pytest.mark.parametrize("kind", STORES)
def test_a_store_is_one_by_the_protocol_and_a_context_manager(kind: type[BaseStore]) -> None:
    assert issubclass(kind, BaseStore)
    assert {"__enter__", "__exit__"} <= set(dir(kind))


def test_a_store_in_memory_passes_for_a_store_at_runtime_and_something_else_does_not() -> None:
    with MemoryStore() as store:
        assert isinstance(store, Store)
    assert not isinstance(object(), Store)


# --- the list ---

PROMISED = {
    "AsyncFlow", "FlowBuilder", "Context", "Store", "SQLiteStore", "JsonStore", "MemoryStore", "ExecutionState", "State",
    "TaskType", "TaskInstance", "WorkflowRun", "RetryPolicy",
}  # fmt: skip


def test_the_list_is_sorted_and_names_nothing_twice() -> None:
    assert package.__all__ == sorted(set(package.__all__))


def test_every_name_in_the_list_is_there_and_documented() -> None:
    for name in package.__all__:
        assert hasattr(package, name), f"{name} is in __all__ and nowhere else"
        if inspect.isclass(getattr(package, name)):
            assert getattr(package, name).__doc__, f"{name} has no docstring"


def imported_for_checkers() -> dict[str, str]:
    """The room of each name that the face imports where only a type checker looks."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    found: dict[str, str] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.level == 1
        assert node.module is not None
        found.update({alias.name: node.module for alias in node.names if alias.asname is None})
    return found


def test_the_package_has_at_run_time_what_a_type_checker_sees_and_from_the_same_rooms() -> None:
    assert imported_for_checkers() == package._ROOM_OF
    assert set(package._ROOM_OF) == set(package.__all__)


def test_a_name_is_fetched_from_its_room_once_and_is_the_same_everywhere() -> None:
    for name, room in package._ROOM_OF.items():
        assert getattr(package, name) is getattr(sys.modules[f"{package.__name__}.{room}"], name)
        assert name in vars(package)


def test_the_package_tells_its_names_before_any_was_asked_for_and_refuses_others() -> None:
    assert set(dir(package)) >= {*package.__all__, "__name__", "__path__"}
    with pytest.raises(AttributeError, match=r"^module '.*\.flow' has no attribute 'AsyncFow'$"):
        _ = package.AsyncFow
    with pytest.raises(ImportError, match="AsyncFow"):
        exec(f"from {package.__name__} import AsyncFow")


# What a script with a SQLite store does not use.
OTHER_ROOMS = ["json_store", "json_format", "rare_values", "runs", "runner", "machine", "workflow_builders", "tools", "testing"]
OTHER_MODULES = ["decimal", "difflib", "pathlib", "shutil", "tempfile", "uuid", "zoneinfo"]
NOT_LOADED = {*OTHER_MODULES, *(f"{package.__name__}.{room}" for room in OTHER_ROOMS)}


def test_a_program_loads_what_it_uses_and_no_more() -> None:
    loads = f"from {package.__name__} import AsyncFlow, SQLiteStore"
    script = f"import sys; before = set(sys.modules); {loads}; print(*(set(sys.modules) - before))"
    path = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, **path}, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert f"{package.__name__}.sqlite_store" in loaded
    assert loaded & NOT_LOADED == set()


@pytest.mark.parametrize(("module", "base"), [(errors, FlowError), (events, Event)], ids=["errors", "events"])
def test_every_error_and_every_event_can_be_imported_from_the_package(module: ModuleType, base: type) -> None:
    defined = {
        name
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and issubclass(kind, base) and kind.__module__ == module.__name__
    }
    assert defined
    assert defined <= set(package.__all__)


def test_the_names_that_the_design_promises_are_in_the_list() -> None:
    assert set(package.__all__) >= PROMISED


def test_a_star_import_gives_the_list() -> None:
    names: dict[str, Any] = {}
    exec(f"from {package.__name__} import *", names)
    assert set(names) - {"__builtins__"} == set(package.__all__)


def test_the_version_is_a_version() -> None:
    assert all(part.isdigit() for part in package.__version__.split(".")[:2])
