"""Pulling by the decorated function in place of an id: which task it stands for, here and in other processes."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .. import (
    AmbiguousDependencyError,
    AsyncFlow,
    CannotTravelError,
    Context,
    MappedTask,
    NotSentError,
    Store,
)
from ..codec import ValueCodec
from ..models import ExecutionState, TaskType
from ..records import RunRecord, TaskRecord
from ..snapshot import Snapshot
from . import worker_tasks
from .conftest import outputs_of, returns, run
from .processes import PACKAGE, ROOT, needs_posix


class Service:
    def load(self, ctx: Context) -> str:
        return "loaded"

    def __call__(self, ctx: Context) -> str:
        return "called"


def size(ctx: Context, number: int = 1) -> int:
    return number


def reason_of(text: str | None) -> str:
    assert text is not None
    return text


async def test_a_function_a_coroutine_a_partial_a_method_and_an_object_each_stand_for_their_task(
    flow: AsyncFlow, store: Store
) -> None:
    flow.store = store
    service = Service()

    async def later(ctx: Context) -> str:
        return "later"

    small = partial(size, number=3)
    handles: list[Callable[..., Any]] = [size, later, small, service.load, service]
    for number, handle in enumerate(handles):
        flow.add_task_definition(f"task {number}", handle)
    flow.add_task_definition("all", lambda ctx: [ctx.pull_output(handle) for handle in handles], dependencies=handles)
    assert outputs_of(await run(flow))["all"] == [1, "later", 3, "loaded", "called"]


async def test_a_factory_stands_for_its_subflow_and_gives_its_result(flow: AsyncFlow) -> None:
    @flow.subflow("inside")
    def make(_: None) -> AsyncFlow:
        return AsyncFlow("inside").add_task_definition("leaf", returns(7))

    @flow.task(depends_on=[make])
    def reads(ctx: Context) -> Any:
        return ctx.pull(make)

    assert outputs_of(await run(flow))["reads"] == 7


async def test_a_task_far_upstream_is_pulled_by_its_function_too(flow: AsyncFlow) -> None:
    @flow.task
    def first(ctx: Context) -> int:
        return 1

    flow.add_task_definition("between", returns(2), dependencies=[first])
    flow.add_task_definition("last", lambda ctx: ctx.pull(first), dependencies=["between"])
    assert outputs_of(await run(flow))["last"] == 1


async def test_the_params_function_of_a_subflow_pulls_by_functions(flow: AsyncFlow) -> None:
    @flow.task
    def first(ctx: Context) -> int:
        return 1

    child = AsyncFlow("child").add_task_definition("leaf", lambda ctx: ctx.params["got"])
    flow.add_subflow_definition("sub", child, dependencies=[first], params=lambda ctx: {"got": ctx.pull(first) + 1})
    flow.add_task_definition("after", lambda ctx: ctx.pull("sub"), dependencies=["sub"])
    assert outputs_of(await run(flow))["after"] == 2


async def test_a_function_that_serves_several_tasks_stands_for_the_one_that_is_depended_on(flow: AsyncFlow) -> None:
    """The direct dependency before one further up, and that before one that is not upstream."""

    def idle(ctx: Context) -> str:
        return ctx.task_id

    for task_id in ("a", "b", "c"):
        flow.add_task_definition(task_id, idle)

    def pulls(ctx: Context) -> str:
        return ctx.pull(idle)

    flow.add_task_definition("near", pulls, dependencies=["b"])
    flow.add_task_definition("far", pulls, dependencies=["near"])
    flow.add_task_definition("nearer", pulls, dependencies=["far", "c"])
    flow.add_task_definition("two", pulls, dependencies=["a", "c"])
    flow.add_task_definition("none", pulls)
    done = await run(flow)
    assert [done.tasks[task_id].output for task_id in ("near", "far", "nearer")] == ["b", "b", "c"]
    assert "AmbiguousDependencyError" in reason_of(done.tasks["two"].reason)
    assert "(a, c)" in reason_of(done.tasks["two"].reason)
    assert "(a, b, c)" in reason_of(done.tasks["none"].reason)


def a_part() -> AsyncFlow:
    """Three in a row, the last of which pulls the first by its function, and two that do so in other places."""
    part = (
        AsyncFlow("part")
        .add_task_definition("first", worker_tasks.own_id)
        .add_task_definition("between", returns(0), dependencies=["first"])
    )
    part.add_task_definition("far", worker_tasks.pulls_own_id, dependencies=["between"])
    part.add_task_definition("near", worker_tasks.pulls_own_id, dependencies=["first"])
    return part.add_task_definition("elsewhere", worker_tasks.pulls_own_id, dependencies=["first"], executor="process")


@needs_posix
async def test_in_an_included_flow_a_function_stands_for_the_task_of_its_own_group(flow: AsyncFlow) -> None:
    """Wherever it runs, and though the task of the other group that has the same function stands upstream as well."""
    flow.add_task_definition("first", worker_tasks.own_id)
    flow.include(a_part(), "x", depends_on=["first"])
    flow.include(a_part(), "y", depends_on=["x_first", "first"])
    flow.add_task_definition("outside", worker_tasks.pulls_own_id, dependencies=["x_between", "first"])
    outputs = outputs_of(await run(flow))
    assert {task_id: output for task_id, output in outputs.items() if task_id.endswith(("near", "far", "where", "side"))} == {
        "x_far": "x_first",
        "x_near": "x_first",
        "x_elsewhere": "x_first",
        "y_far": "y_first",
        "y_near": "y_first",
        "y_elsewhere": "y_first",
        "outside": "first",
    }


@needs_posix
@pytest.mark.parametrize(("executor", "error"), [("thread", "NotUpstreamError"), ("process", "NotSentError")])
async def test_an_included_task_does_not_take_another_of_the_same_function_for_its_own(
    flow: AsyncFlow, executor: str, error: str
) -> None:
    """Though it depends on that one, and not on its own."""
    part = AsyncFlow("part").add_task_definition("first", worker_tasks.own_id)
    part.add_task_definition("mistaken", worker_tasks.pulls_own_id, executor=executor)
    flow.add_task_definition("outer", worker_tasks.own_id)
    flow.include(part, "x", depends_on=["outer"])
    assert error in reason_of((await run(flow)).tasks["x_mistaken"].reason)


@needs_posix
async def test_the_items_of_a_mapped_task_pull_by_functions_here_and_elsewhere(flow: AsyncFlow) -> None:
    flow.add_task_definition("rows", returns([1, 2]))
    flow.add_task_definition("first", worker_tasks.own_id)
    for executor in ("thread", "process"):
        flow.add_task_definition(executor, worker_tasks.pulls_own_id, dependencies=["first"], map_over="rows", executor=executor)
    outputs = outputs_of(await run(flow))
    assert (outputs["thread"], outputs["process"]) == (["first", "first"], ["first", "first"])


async def test_a_function_that_is_no_task_of_the_flow_or_not_upstream_is_refused_by_name(flow: AsyncFlow) -> None:
    flow.add_task_definition("beside", size)
    flow.add_task_definition("stranger", lambda ctx: ctx.pull(worker_tasks.one))
    flow.add_task_definition("not upstream", lambda ctx: ctx.pull(size))
    flow.add_task_definition("itself", myself)
    tasks = (await run(flow)).tasks
    assert "UnknownDependencyError: Task 'stranger' of flow 'test_flow' depends on 'one'" in reason_of(tasks["stranger"].reason)
    assert "NotUpstreamError: Task 'not upstream' cannot pull 'beside'" in reason_of(tasks["not upstream"].reason)
    assert "NotUpstreamError: Task 'itself' cannot pull 'itself'" in reason_of(tasks["itself"].reason)


def myself(ctx: Context) -> Any:
    return ctx.pull(myself)


async def test_what_is_neither_an_id_nor_a_function_is_an_unknown_task(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", lambda ctx: ctx.pull(3))
    assert "UnknownTaskError" in reason_of((await run(flow)).tasks["only"].reason)


async def test_a_function_that_was_declared_anew_stands_for_its_task(flow: AsyncFlow) -> None:
    """As when a cell of a notebook runs again."""

    def cell() -> Callable[[Context], int]:
        @flow.task("first", replace=True)
        def first(ctx: Context) -> int:
            return 1

        return first

    before, after = cell(), cell()
    flow.add_task_definition("by the new one", lambda ctx: ctx.pull(after), dependencies=[after])
    flow.add_task_definition("by the old one", lambda ctx: ctx.pull(before), dependencies=["first"])
    tasks = (await run(flow)).tasks
    assert tasks["by the new one"].output == 1
    assert "UnknownDependencyError" in reason_of(tasks["by the old one"].reason)


def test_decorating_returns_the_function_itself_whatever_a_checker_takes_it_for() -> None:
    flow = AsyncFlow("f").add_task_definition("rows", returns([1]))

    def plain(ctx: Context) -> int:
        return 1

    def mapped(ctx: Context) -> int:
        return 1

    def factory(_: None) -> AsyncFlow:
        return AsyncFlow("child").add_task_definition("leaf", returns(1))

    kept: Any = (flow.task(plain), flow.task("mapped", map_over="rows")(mapped), flow.subflow("sub", map_over="rows")(factory))
    assert kept == (plain, mapped, factory)
    assert not any(isinstance(each, MappedTask) for each in kept)
    flow.task("after", depends_on=kept, map_over=kept[1])(lambda ctx: 1)
    assert flow.definition.get("after").depends_on == ("plain", "mapped", "sub")
    assert flow.definition.get("after").rules.map_over == "mapped"


def test_nothing_can_be_made_of_the_class_that_stands_for_mapped_tasks() -> None:
    with pytest.raises(TypeError, match="abstract"):
        MappedTask()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]


# --- in other processes ---


@needs_posix
async def test_tasks_in_worker_processes_pull_by_functions(flow: AsyncFlow) -> None:
    """Which are other objects there, known by their modules and names."""
    flow.add_task_definition("first", worker_tasks.one)
    flow.add_task_definition("again", worker_tasks.one)
    flow.add_subflow_definition("by hand", worker_tasks.nested(None))
    flow.subflow("decorated")(worker_tasks.nested)
    flow.add_task_definition("without a name", worker_tasks.nameless)
    elsewhere = partial(flow.add_task_definition, executor="process")
    elsewhere("near", worker_tasks.pulls_function, dependencies=["first", "by hand"])
    elsewhere("nested", worker_tasks.pulls_nested, dependencies=["by hand", "decorated"])
    elsewhere("two", worker_tasks.pulls_function, dependencies=["first", "again"])
    elsewhere("not sent", worker_tasks.pulls_pid, dependencies=["first"])
    elsewhere("nameless", worker_tasks.pulls_what_has_no_name, dependencies=["without a name"])
    tasks = (await run(flow)).tasks
    assert (tasks["near"].output, tasks["nested"].output) == (1, 1)
    assert "AmbiguousDependencyError: Task 'two' depends on the function one" in reason_of(tasks["two"].reason)
    assert "NotSentError: Task 'not sent' runs in another process and cannot pull 'pid'" in reason_of(tasks["not sent"].reason)
    assert "pull the output by the task's id" in reason_of(tasks["nameless"].reason)


@needs_posix
def test_functions_of_a_main_script_are_known_in_its_worker_processes(tmp_path: Path) -> None:
    """Which import it under another name."""
    script = tmp_path / "nightly.py"
    script.write_text(
        textwrap.dedent(f"""
            from {PACKAGE} import AsyncFlow

            flow = AsyncFlow("nightly")

            @flow.task
            def first(ctx):
                return 20

            @flow.task(depends_on=[first], executor="process")
            def second(ctx):
                return ctx.pull(first) + len(first.__module__)

            if __name__ == "__main__":
                print(flow.run().tasks["second"].output)
            """)
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    ran = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert (ran.stdout.strip(), ran.returncode) == (str(20 + len("__mp_main__")), 0), ran.stderr


def sent(*functions: tuple[Callable[..., Any] | None, str]) -> Snapshot:
    """What is sent of a task that depends on those, with what they were declared as; each gave its id."""
    run = RunRecord("r", "flow", "{}", "graph", 7)
    above = [
        TaskRecord("r", task_id, place, TaskType.TASK, ExecutionState.SUCCESS, output=f'"{task_id}"')
        for place, (_, task_id) in enumerate(functions, start=1)
    ]
    snapshot = Snapshot.of(run, {}, [TaskRecord("r", "here", 0), *above], ValueCodec(), functions=functions)
    return pickle.loads(pickle.dumps(snapshot))  # type: ignore[no-any-return]


def test_what_was_sent_is_found_by_the_name_of_its_function_and_nothing_else_is() -> None:
    snapshot = sent((worker_tasks.one, "a"), (worker_tasks.pid, "b"), (worker_tasks.pid, "c"), (lambda ctx: 1, "d"), (None, "e"))
    assert snapshot.task_of("here", worker_tasks.one) == "a"
    with pytest.raises(AmbiguousDependencyError, match=r"\(b, c\)"):
        snapshot.task_of("here", worker_tasks.pid)

    def one(ctx: Context) -> int:
        return 1

    one.__qualname__ = "one"  # of the same name, in another module
    with pytest.raises(NotSentError) as caught:
        snapshot.task_of("here", one)
    assert caught.value.wanted == "one"
    one.__module__ = worker_tasks.__name__
    assert snapshot.task_of("here", one) == "a"


@pytest.mark.parametrize(
    "function",
    [lambda ctx: 1, partial(size), Service().load, Service(), len],
    ids=["lambda", "partial", "method", "object", "builtin"],
)
def test_a_function_that_has_no_name_elsewhere_is_never_taken_for_another(function: Callable[..., Any]) -> None:
    with pytest.raises(CannotTravelError) as caught:
        sent((function, "a")).task_of("here", function)
    assert caught.value.task_id == "here"


def test_functions_of_one_module_are_sent_in_little() -> None:
    """The module's name once, and the ids of the tasks not again."""
    none = len(pickle.dumps(sent((None, "a"), (None, "b"))))
    both = len(pickle.dumps(sent((worker_tasks.one, "a"), (worker_tasks.pid, "b"))))
    assert both - none < len(worker_tasks.__name__) + 60
