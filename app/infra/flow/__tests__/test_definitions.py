"""What can be declared, and what is refused: each by its own error, before a run exists, leaving everything as it was."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache, partial, wraps
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from .. import (
    AmbiguousDependencyError,
    AsyncFlow,
    Context,
    CycleError,
    DefinitionError,
    DuplicateTaskError,
    GraphChangedError,
    InvalidNameError,
    InvalidOptionError,
    NestedFlowError,
    RetryPolicy,
    TaskFunctionError,
    TaskType,
    UnknownDependencyError,
    UnknownTaskError,
)
from ..calling import checked
from ..definitions import MAX_NAME_LENGTH, FlowDefinition, check_name, check_task_id
from ..functions import function_name


def work(ctx: Context) -> str:
    return "done"


async def async_work(ctx: Context) -> str:
    return "done"


def label(value: object) -> str | None:
    """A parameter in the name of a test: without addresses, which would differ from run to run."""
    return None if isinstance(value, bool) else getattr(value, "__qualname__", type(value).__name__)


@pytest.fixture
def nightly() -> FlowDefinition:
    """A flow of two tasks."""
    nightly = FlowDefinition("nightly")
    nightly.add_task("extract", work)
    nightly.add_task("load", async_work, depends_on="extract")
    return nightly


def nested(*names: str) -> list[FlowDefinition]:
    """Flows of these names, each nested in the one before under the id `to_<name>`."""
    flows = [FlowDefinition(name) for name in names]
    for outer, inner in zip(flows, flows[1:]):
        outer.add_subflow(f"to_{inner.name}", inner)
    return flows


# --- names ---


@pytest.mark.parametrize("name", ["a", "load_1", "Überweisung", "with space", "日本", "x" * MAX_NAME_LENGTH, "💾", "a-b:c"])
def test_a_name_may_be_any_readable_text(name: str) -> None:
    assert check_task_id(name) == name
    assert check_name("flow name", name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "must not be empty"),
        ("  \t", "must not be empty"),
        ("a\nb", "must not hold control characters"),
        ("a\x00", "must not hold control characters"),
        ("\x1b[31mred", "must not hold control characters"),
        ("a\x7f", "must not hold control characters"),
        ("a\x9b", "must not hold control characters"),
        ("a\u2028b", "must not hold control characters"),
        ("a\ud800", "must not hold control characters or lone surrogates"),
        ("x" * (MAX_NAME_LENGTH + 1), f"is longer than {MAX_NAME_LENGTH} characters"),
        (None, "must be a string, not NoneType"),
        (5, "must be a string, not int"),
        (b"load", "must be a string, not bytes"),
        (["load"], "must be a string, not list"),
        (pytest.param(10**5000, "must be a string, not int", id="huge")),
    ],
)
@pytest.mark.parametrize("check", [check_task_id, partial(check_name, "flow name")], ids=["task id", "flow name"])
def test_a_name_that_is_none_is_refused_with_the_reason(check: Callable[[object], str], name: object, problem: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        check(name)
    assert problem in caught.value.problem
    sentence = str(caught.value)
    assert problem in sentence
    assert sentence.isprintable()
    assert len(sentence) < 250


@pytest.mark.parametrize("task_id", ["a.b", "a/b", ".", "/"])
def test_a_task_id_holds_no_dot_and_no_slash_though_a_flow_name_may(task_id: str) -> None:
    with pytest.raises(InvalidNameError, match=r"must not hold '\.' or '/'"):
        check_task_id(task_id)
    assert check_name("flow name", task_id) == task_id


def test_a_flow_is_refused_an_impossible_name() -> None:
    with pytest.raises(InvalidNameError, match="cannot be a flow name"):
        FlowDefinition("")
    with pytest.raises(InvalidNameError, match="cannot be a flow name"):
        AsyncFlow("a\nb")


# --- functions ---


class Worker:
    """Callables of several kinds."""

    def method(self, ctx: Context) -> str:
        return "done"

    async def async_method(self, ctx: Context) -> str:
        return "done"

    @classmethod
    def of_class(cls, ctx: Context) -> str:
        return "done"

    @staticmethod
    async def static(ctx: Context) -> str:
        return "done"

    def nothing(self) -> None: ...

    def generates(self, ctx: Context) -> Iterator[int]:
        yield 1


class PlainCallable:
    def __call__(self, ctx: Context) -> str:
        return "done"


class AsyncCallable:
    async def __call__(self, ctx: Context) -> str:
        return "done"


class Unhashable(PlainCallable):
    __hash__ = None  # type: ignore[assignment]


class BrokenRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Made:
    """A class serves as a function, too: the call makes one."""

    def __init__(self, ctx: Context) -> None: ...


def with_options(ctx: Context, rows: int = 10, *, strict: bool = True) -> None: ...


def with_anything(*args: object, **options: object) -> None: ...


def with_two(rows: int, ctx: Context) -> None: ...


async def async_with_two(rows: int, ctx: Context) -> None: ...


def without_any() -> None: ...


def with_required_keyword(ctx: Context, *, rows: int) -> None: ...


def only_keyword(*, ctx: Context) -> None: ...


unchecked_partial: Any = partial  # a type checker would refuse what is to be refused here


def generator(ctx: Context) -> Iterator[int]:
    yield 1


async def async_generator(ctx: Context) -> AsyncIterator[int]:
    yield 1


@wraps(without_any)
def decorated(*args: object) -> None:
    """Takes a context, whatever the signature it borrowed says."""


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (work, False),
        (async_work, True),
        (lambda ctx: 1, False),
        (with_options, False),
        (with_anything, False),
        (decorated, False),
        (Worker().method, False),
        (Worker().async_method, True),
        (Worker.of_class, False),
        (Worker.static, True),
        (PlainCallable(), False),
        (AsyncCallable(), True),
        (Unhashable(), False),
        (Made, False),
        (partial(with_two, 5), False),
        (partial(async_with_two, 5), True),
        (partial(partial(with_options), strict=False), False),
        (partial(Worker().async_method), True),
        (partial(AsyncCallable()), True),
        (lru_cache(work), False),
        (Mock(), False),
        (AsyncMock(), True),
        (print, False),
        (dict, False),
        (min, False),
    ],
    ids=label,
)
def test_whatever_takes_a_context_serves_as_a_task_and_is_known_as_async_or_not(function: object, is_async: bool) -> None:
    assert checked("load", function) == (function, is_async)


@pytest.mark.parametrize(
    "function",
    [
        without_any,
        with_two,
        with_required_keyword,
        only_keyword,
        Worker.method,
        Worker().nothing,
        unchecked_partial(work, None),
        unchecked_partial(work, None, None),
        unchecked_partial(with_two, 5, None),
        unchecked_partial(work, ctx=None),
        Worker,
        lru_cache(without_any),
    ],
    ids=label,
)
def test_a_function_that_cannot_take_the_context_alone_is_refused_with_its_name_and_what_to_write(function: Any) -> None:
    with pytest.raises(TaskFunctionError, match=r"write `def task\(ctx\): \.\.\.`") as caught:
        checked("load", function)
    assert caught.value.task_id == "load"
    assert caught.value.function_name == function_name(function)
    assert "has the signature (" in caught.value.problem


@pytest.mark.parametrize(
    "function",
    [generator, async_generator, Worker().generates, partial(generator), partial(async_generator)],
    ids=label,
)
def test_a_generator_is_refused_because_nobody_would_run_its_body(function: object) -> None:
    with pytest.raises(TaskFunctionError, match="it yields"):
        checked("load", function)


@pytest.mark.parametrize("function", [None, "work", 5, [work], BrokenRepr()], ids=lambda value: type(value).__name__)
def test_what_cannot_be_called_is_refused(function: object) -> None:
    with pytest.raises(TaskFunctionError, match="it is not callable"):
        checked("load", function)


def test_a_coroutine_in_place_of_its_function_is_refused() -> None:
    called_too_early = async_work(None)  # type: ignore[arg-type]
    with pytest.raises(TaskFunctionError, match="it is not callable"):
        checked("load", called_too_early)
    called_too_early.close()


def test_declaring_a_task_calls_nothing() -> None:
    function = Mock(return_value=1)
    FlowDefinition("nightly").add_task("load", function)
    function.assert_not_called()


# --- declaring ---


def test_a_declared_task_is_kept_as_it_was_declared(nightly: FlowDefinition) -> None:
    nightly.add_task("report", work, depends_on=["load"], retry=RetryPolicy(2, 1.0), name="Report", description="Writes it.")
    definition = nightly.get("report")
    assert (definition.function, definition.is_async, definition.type) == (work, False, TaskType.TASK)
    assert (definition.depends_on, definition.retry) == (("load",), RetryPolicy(2, 1.0))
    assert (definition.name, definition.description) == ("Report", "Writes it.")
    assert list(nightly.tasks) == ["extract", "load", "report"]
    assert nightly.get("load").is_async


@pytest.mark.parametrize(
    ("depends_on", "ids"),
    [
        (None, ()),
        ((), ()),
        ("extract", ("extract",)),
        (["extract", "load"], ("extract", "load")),
        (work, ("extract",)),
        ([work, async_work], ("extract", "load")),
        (["load", work], ("load", "extract")),
        ({"extract": 1}, ("extract",)),
        ("declared_later", ("declared_later",)),
    ],
    ids=label,
)
def test_dependencies_are_ids_or_the_functions_themselves_one_or_many(
    nightly: FlowDefinition, depends_on: Any, ids: tuple[str, ...]
) -> None:
    nightly.add_task("report", lambda ctx: 1, depends_on=depends_on)
    assert nightly.get("report").depends_on == ids


def test_a_generator_of_dependencies_is_read_once() -> None:
    flow = FlowDefinition("nightly")
    flow.add_task("report", work, depends_on=(task_id for task_id in ("a", "b")))
    assert flow.get("report").depends_on == ("a", "b")


def test_a_bound_method_can_be_named_as_a_dependency() -> None:
    worker, flow = Worker(), FlowDefinition("nightly")
    flow.add_task("a", worker.method)
    flow.add_task("b", work, depends_on=worker.method)
    assert flow.get("b").depends_on == ("a",)


def test_the_factory_of_a_subflow_can_be_named_as_a_dependency(nightly: FlowDefinition) -> None:
    def factory(_: None) -> None: ...

    nightly.add_subflow("sub", FlowDefinition("inner"), factory=factory)
    nightly.add_task("report", lambda ctx: 1, depends_on=factory)
    assert nightly.get("report").depends_on == ("sub",)


def test_a_subflow_is_a_task_of_type_flow(nightly: FlowDefinition) -> None:
    inner = FlowDefinition("inner")
    nightly.add_subflow("sub", inner, depends_on=work, params={"rows": 3}, name="Sub", description="Inner part.")
    definition = nightly.get("sub")
    assert (definition.type, definition.child, definition.function) == (TaskType.FLOW, inner, None)
    assert (definition.depends_on, definition.params) == (("extract",), {"rows": 3})
    assert (definition.name, definition.description) == ("Sub", "Inner part.")


@pytest.mark.parametrize("task_type", [None, "task", TaskType.TASK])
def test_the_type_of_a_task_may_be_said_or_left_out(task_type: Any) -> None:
    flow = FlowDefinition("nightly")
    flow.add_task("a", work, task_type=task_type)
    assert flow.get("a").type is TaskType.TASK


def test_a_replaced_task_keeps_its_place_and_its_old_function_names_it_no_more(nightly: FlowDefinition) -> None:
    def newer(ctx: Context) -> None: ...

    nightly.add_task("extract", newer, replace_task=True)
    assert list(nightly.tasks) == ["extract", "load"]
    assert nightly.get("extract").function is newer
    nightly.add_task("report", lambda ctx: 1, depends_on=newer)
    assert nightly.get("report").depends_on == ("extract",)
    with pytest.raises(UnknownDependencyError):
        nightly.add_task("more", lambda ctx: 1, depends_on=work)


def test_a_task_replaced_by_itself_is_still_one_task_for_its_function(nightly: FlowDefinition) -> None:
    nightly.add_task("extract", work, replace_task=True)
    nightly.add_task("report", lambda ctx: 1, depends_on=work)
    assert nightly.get("report").depends_on == ("extract",)


def test_replacing_a_task_may_change_the_graph(nightly: FlowDefinition) -> None:
    assert nightly.graph().upstream("load") == ("extract",)
    nightly.add_task("load", work, replace_task=True)
    assert nightly.graph().upstream("load") == ()


def test_a_task_may_be_replaced_by_a_subflow(nightly: FlowDefinition) -> None:
    nightly.add_subflow("load", FlowDefinition("inner"), replace_task=True)
    assert nightly.get("load").type is TaskType.FLOW


def test_a_retry_policy_can_be_changed_afterwards(nightly: FlowDefinition) -> None:
    nightly.set_retry("load", RetryPolicy(4, 2.0))
    assert nightly.get("load").retry == RetryPolicy(4, 2.0)
    assert nightly.get("load").depends_on == ("extract",)


def test_a_copy_is_independent_of_what_it_was_made_from(nightly: FlowDefinition) -> None:
    copy = FlowDefinition("copy")
    assert list(copy.graph()) == []
    copy.copy_from(nightly)
    assert list(copy.graph()) == ["extract", "load"]
    copy.add_task("report", lambda ctx: 1, depends_on=async_work)
    copy.set_retry("load", RetryPolicy(1))
    nightly.add_task("other", work)
    assert list(copy.tasks) == ["extract", "load", "report"]
    assert list(nightly.tasks) == ["extract", "load", "other"]
    assert nightly.get("load").retry == RetryPolicy(0)
    copy.add_task("more", lambda ctx: 1, depends_on=work)
    assert copy.get("more").depends_on == ("extract",)


# --- refused ---


def later(flow: FlowDefinition) -> None:
    """Everything that a later look at a flow could show to have changed."""
    flow.add_task("last", lambda ctx: 1, depends_on=[work, async_work])


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (lambda flow: flow.add_task("load", lambda ctx: 1), DuplicateTaskError),
        (lambda flow: flow.add_subflow("load", FlowDefinition("inner")), DuplicateTaskError),
        (lambda flow: flow.add_task("a.b", lambda ctx: 1), InvalidNameError),
        (lambda flow: flow.add_subflow("a.b", FlowDefinition("inner")), InvalidNameError),
        (lambda flow: flow.add_task("new", without_any), TaskFunctionError),
        (lambda flow: flow.add_task("load", without_any, replace_task=True), TaskFunctionError),
        (lambda flow: flow.add_task("new", work, depends_on=lambda ctx: 1), UnknownDependencyError),
        (lambda flow: flow.add_task("load", work, depends_on=PlainCallable(), replace_task=True), UnknownDependencyError),
        (lambda flow: flow.add_task("new", work, depends_on=Unhashable()), UnknownDependencyError),
        (lambda flow: flow.add_task("new", work, depends_on=[5]), UnknownDependencyError),
        (lambda flow: flow.add_task("new", work, depends_on=5), InvalidOptionError),
        (lambda flow: flow.add_subflow("new", FlowDefinition("inner"), depends_on=5), InvalidOptionError),
        (lambda flow: flow.add_task("new", work, task_type="flow"), InvalidOptionError),
        (lambda flow: flow.add_task("new", work, task_type="nonsense"), InvalidOptionError),
        (lambda flow: flow.add_subflow("new", FlowDefinition("inner"), params=5), InvalidOptionError),
        (lambda flow: flow.add_subflow("new", flow), NestedFlowError),
        (lambda flow: flow.add_subflow("load", flow, replace_task=True), NestedFlowError),
        (lambda flow: flow.set_retry("nobody", RetryPolicy(1)), UnknownTaskError),
    ],
)
def test_a_refused_call_leaves_the_flow_as_it_was(
    nightly: FlowDefinition, refused: Callable[[FlowDefinition], None], error: type[Exception]
) -> None:
    before, graph = dict(nightly.tasks), nightly.graph()
    with pytest.raises(error):
        refused(nightly)
    assert nightly.tasks == before
    assert nightly.graph() is graph
    later(nightly)
    assert nightly.get("last").depends_on == ("extract", "load")


def test_a_second_task_of_an_id_is_refused_with_the_way_to_mean_it(nightly: FlowDefinition) -> None:
    with pytest.raises(DuplicateTaskError, match=r"already has a task 'load'.*replace=True"):
        nightly.add_task("load", work)


def test_a_function_that_serves_no_task_is_refused_by_its_name(nightly: FlowDefinition) -> None:
    with pytest.raises(UnknownDependencyError) as caught:
        nightly.add_task("report", work, depends_on=with_options)
    assert caught.value.dependency == "with_options"


def test_a_function_that_serves_two_tasks_is_refused_as_a_dependency_naming_both(nightly: FlowDefinition) -> None:
    nightly.add_task("again", work)
    with pytest.raises(AmbiguousDependencyError, match=r"serves several tasks \(extract, again\)") as caught:
        nightly.add_task("report", lambda ctx: 1, depends_on=[work])
    assert caught.value.task_ids == ("extract", "again")
    assert "report" not in nightly.tasks


def test_an_unhashable_callable_is_a_task_that_can_be_named_by_its_id_alone() -> None:
    flow, function = FlowDefinition("nightly"), Unhashable()
    flow.add_task("a", function)
    flow.add_task("b", work, depends_on="a")
    with pytest.raises(UnknownDependencyError):
        flow.add_task("c", lambda ctx: 1, depends_on=function)


def test_an_unknown_task_is_refused_with_a_near_name(nightly: FlowDefinition) -> None:
    with pytest.raises(UnknownTaskError, match=r"^Flow 'nightly' has no task 'extrct'\. Did you mean 'extract'\?$"):
        nightly.get("extrct")
    with pytest.raises(KeyError):
        nightly.get("something else")


# --- as a whole ---


def test_a_dependency_may_be_declared_later_but_not_never() -> None:
    flow = FlowDefinition("nightly")
    flow.add_task("load", work, depends_on="extract")
    with pytest.raises(UnknownDependencyError, match="depends on 'extract'"):
        flow.validate()
    flow.add_task("extract", work)
    flow.validate()


@pytest.mark.parametrize(
    ("add", "error"),
    [
        (lambda flow: flow.add_task("bad", work, depends_on="bad"), CycleError),
        (lambda flow: flow.add_task("bad", work, depends_on="nobody"), UnknownDependencyError),
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_graph_of_every_nested_flow_is_checked(
    depth: int, add: Callable[[FlowDefinition], None], error: type[DefinitionError]
) -> None:
    flows = nested("one", "two", "three", "four")
    add(flows[depth])
    with pytest.raises(error, match=f"'{flows[depth].name}'"):
        flows[0].validate()


def test_a_flow_may_be_nested_twice_side_by_side() -> None:
    outer, inner = FlowDefinition("outer"), FlowDefinition("inner")
    outer.add_subflow("first", inner)
    outer.add_subflow("second", inner, depends_on="first")
    outer.validate()
    assert outer.path_to(inner) in (("first",), ("second",))


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_flow_nested_in_itself_is_refused_with_the_path_whatever_the_depth(depth: int) -> None:
    flows = nested(*(f"f{index}" for index in range(depth)))
    with pytest.raises(NestedFlowError) as caught:
        flows[-1].add_subflow("back", flows[0])
    assert caught.value.flow_name == flows[-1].name
    assert caught.value.path == ("back", *(f"to_f{index}" for index in range(1, depth)))
    assert ".".join(caught.value.path) in str(caught.value)
    assert "back" not in flows[-1].tasks


def test_the_way_to_a_flow_that_is_nowhere_inside_is_none_even_where_flows_are_shared() -> None:
    outer, inner, elsewhere = FlowDefinition("outer"), FlowDefinition("inner"), FlowDefinition("elsewhere")
    for task_id in ("first", "second"):
        outer.add_subflow(task_id, inner)
    assert outer.path_to(elsewhere) is None
    assert outer.path_to(outer) == ()


def test_flows_shared_by_many_are_looked_into_once_each() -> None:
    flows = [FlowDefinition(f"f{index}") for index in range(60)]
    for outer, inner in zip(flows, flows[1:]):  # 2 ** 59 ways down
        outer.add_subflow("left", inner)
        outer.add_subflow("right", inner)
    flows[0].validate()
    assert flows[0].path_to(FlowDefinition("elsewhere")) is None


def test_flows_nested_a_thousand_deep_are_checked_without_recursion() -> None:
    flows = nested(*(f"f{index}" for index in range(1200)))
    flows[0].validate()
    with pytest.raises(NestedFlowError) as caught:
        flows[-1].add_subflow("back", flows[0])
    assert len(caught.value.path) == 1200
    assert len(str(caught.value)) < 400


# --- compared with what a run was made with ---


def test_the_graph_as_text_names_dependencies_and_nested_flows(nightly: FlowDefinition) -> None:
    nightly.add_subflow("sub", FlowDefinition("inner"), depends_on="load")
    assert json.loads(nightly.graph_text()) == {"extract": [], "load": ["extract"], "sub": ["load", {"flow": "inner"}]}


def test_functions_policies_and_names_are_no_part_of_the_graph(nightly: FlowDefinition) -> None:
    before = nightly.graph_text()
    nightly.add_task("load", lambda ctx: 2, depends_on="extract", retry=RetryPolicy(3), name="Load", replace_task=True)
    assert nightly.graph_text() == before


def flow_of(**depends_on: list[str]) -> FlowDefinition:
    flow = FlowDefinition("nightly")
    for task_id, ids in depends_on.items():
        flow.add_task(task_id, work, depends_on=ids)
    return flow


@pytest.mark.parametrize(
    "stored",
    ["", flow_of(a=[], b=[], c=["a", "b"]).graph_text(), flow_of(b=[], c=["b", "a"], a=[]).graph_text()],
    ids=["nobody said", "the same", "another order"],
)
def test_the_same_graph_in_whatever_order_is_no_difference(stored: str) -> None:
    flow_of(a=[], b=[], c=["a", "b"]).check_graph("run-1", stored)


@pytest.mark.parametrize(
    ("then", "added", "removed", "changed"),
    [
        (flow_of(a=[]), ("b", "c"), (), ()),
        (flow_of(a=[], b=["a"], c=["b"], d=[]), (), ("d",), ()),
        (flow_of(a=[], b=[], c=["b"]), (), (), ("b",)),
        (flow_of(a=[], b=["a"], c=["a", "b"], old=["a"]), (), ("old",), ("c",)),
        (flow_of(a=[], b=["x"], x=[]), ("c",), ("x",), ("b",)),
    ],
)
def test_another_graph_is_refused_with_the_difference(
    then: FlowDefinition, added: tuple[str, ...], removed: tuple[str, ...], changed: tuple[str, ...]
) -> None:
    now = flow_of(a=[], b=["a"], c=["b"])
    with pytest.raises(GraphChangedError) as caught:
        now.check_graph("run-1", then.graph_text())
    error = caught.value
    assert (error.run_id, error.flow_name) == ("run-1", "nightly")
    assert (error.added, error.removed, error.changed) == (added, removed, changed)
    for kind, ids in (("added", added), ("removed", removed), ("changed", changed)):
        assert (f"{kind}: {', '.join(ids)}" in str(error)) is bool(ids)


@pytest.mark.parametrize("before", ["a task", "another flow"])
def test_a_task_that_became_a_subflow_or_another_one_has_changed(before: str) -> None:
    then, now = FlowDefinition("nightly"), FlowDefinition("nightly")
    if before == "a task":
        then.add_task("part", work)
    else:
        then.add_subflow("part", FlowDefinition("older"))
    now.add_subflow("part", FlowDefinition("newer"))
    with pytest.raises(GraphChangedError) as caught:
        now.check_graph("run-1", then.graph_text())
    assert caught.value.changed == ("part",)


# --- through the door that people use ---


def test_the_decorator_gives_the_function_back_unchanged_and_takes_its_name_as_id() -> None:
    flow = AsyncFlow("nightly")
    assert flow.task(work) is work

    @flow.task()
    def bare(ctx: Context) -> None: ...

    @flow.task("named", depends_on=[work, bare])
    async def other(ctx: Context) -> int:
        return 1

    assert list(flow.definition.tasks) == ["work", "bare", "named"]
    assert flow.definition.get("named").depends_on == ("work", "bare")
    assert inspect.iscoroutinefunction(other)
    with pytest.raises(DuplicateTaskError):
        flow.task("work")(work)
    flow.task("work", replace=True)(work)
