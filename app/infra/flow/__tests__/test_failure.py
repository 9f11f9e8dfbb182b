"""Failures: what they skip, what they leave alone, and that nothing a task does can hang or kill a run."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, NoReturn

import pytest

from .. import (
    AsyncFlow,
    Changes,
    Context,
    ExecutionState,
    MemoryStore,
    RunFailedError,
    Store,
    StoreError,
    TaskSkipped,
    TaskSucceeded,
    ValueCodec,
    ValueTooLargeError,
)
from .conftest import Effects, events_of, fails, returns, run, states_of


async def test_everything_downstream_is_skipped_with_the_reason(flow: AsyncFlow) -> None:
    flow.add_task_definition("a", fails())
    flow.add_task_definition("b", returns(1), dependencies=["a"])
    flow.add_task_definition("c", returns(1), dependencies=["b"])
    told = events_of(flow)
    done = await run(flow)
    assert states_of(done) == {"a": "failed", "b": "skipped", "c": "skipped"}
    assert done.tasks["b"].reason == done.tasks["c"].reason == "upstream task 'a' failed"
    assert [event.task_id for event in told if isinstance(event, TaskSkipped)] == ["b", "c"]
    assert done.tasks["c"].error is None


async def test_independent_branches_run_on(flow: AsyncFlow, effects: Effects) -> None:
    flow.add_task_definition("bad", fails())
    flow.add_task_definition("a", effects.of("a"))
    flow.add_task_definition("b", effects.of("b"), dependencies=["a"])
    flow.add_task_definition("joint", effects.of("joint"), dependencies=["b", "bad"])
    done = await run(flow)
    assert (done.state, effects.log) == ("failed", ["a", "b"])
    assert states_of(done) == {"bad": "failed", "a": "success", "b": "success", "joint": "skipped"}


async def test_raise_for_failure_names_every_failed_task(flow: AsyncFlow) -> None:
    flow.add_task_definition("one", fails("first"))
    flow.add_task_definition("two", fails("second"))
    flow.add_task_definition("three", returns(1), dependencies=["one"])
    with pytest.raises(RunFailedError) as caught:
        (await run(flow)).raise_for_failure()
    assert caught.value.failures == {"one": "RuntimeError: first", "two": "RuntimeError: second"}
    for line in ("one: RuntimeError: first", "two: RuntimeError: second"):
        assert line in str(caught.value)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Odd(BaseException):
    pass


class Unpicklable(Exception):
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle it")


class Nameless(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__qualname__":
            raise RuntimeError("not even a name")
        return super().__getattribute__(name)


class Broken(Exception, metaclass=Nameless):
    pass


class Text(str):
    def strip(self, *args: object) -> NoReturn:
        raise RuntimeError("not even text")


class Sly(Exception):
    def __str__(self) -> str:
        return Text("looks like text")


def raising(error: BaseException | type[BaseException]) -> Any:
    def task(ctx: Context) -> NoReturn:
        raise error

    return task


def async_raising(error: BaseException | type[BaseException]) -> Any:
    async def task(ctx: Context) -> NoReturn:
        raise error

    return task


@pytest.mark.parametrize("make", [raising, async_raising], ids=["thread", "loop"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SystemExit(3),
        GeneratorExit,
        Odd(),
        StopIteration(1),
        StopAsyncIteration(),
        Unprintable(),
        Unpicklable(),
        Broken(),
        Sly(),
        asyncio.CancelledError(),
    ],
    ids=lambda error: error.__name__ if isinstance(error, type) else str(type(error)).split(".")[-1].strip("<>'"),
)
async def test_whatever_a_task_raises_is_its_own_failure(flow: AsyncFlow, make: Any, error: Any) -> None:
    flow.add_task_definition("bad", make(error))
    flow.add_task_definition("after", returns(1), dependencies=["bad"])
    flow.add_task_definition("beside", returns(1))
    done = await asyncio.wait_for(run(flow), 30)
    assert states_of(done) == {"bad": "failed", "after": "skipped", "beside": "success"}
    assert done.tasks["bad"].error
    assert done.tasks["bad"].reason


async def test_a_keyboard_interrupt_in_a_thread_is_a_failure(flow: AsyncFlow) -> None:
    flow.add_task_definition("bad", raising(KeyboardInterrupt()))
    assert states_of(await run(flow)) == {"bad": "failed"}


async def test_a_cancelled_future_that_a_task_awaits_fails_the_task(flow: AsyncFlow) -> None:
    @flow.task
    async def bad(ctx: Context) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    done = await run(flow)
    assert done.tasks["bad"].reason == "asyncio.exceptions.CancelledError"


async def test_a_message_with_lone_surrogates_can_be_stored(flow: AsyncFlow, store: Any) -> None:
    flow.store = store
    flow.add_task_definition("bad", fails("caf\udce9 \x00"))
    done = await run(flow)
    assert store.load(done.id).tasks["bad"].reason == "RuntimeError: caf\\udce9 \x00"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "output is of type object"),
        ({"rows": [1, 2, {3: object()}]}, 'output["rows"][2][3] is of type object'),
        ((number for number in range(3)), "it is a generator"),
        ([{1, 2}, [print]], "output[1][0]"),
    ],
)
async def test_an_output_that_cannot_be_stored_fails_the_task_and_says_where(flow: AsyncFlow, value: Any, says: str) -> None:
    flow.add_task_definition("only", lambda ctx: value)
    done = await run(flow)
    reason = done.tasks["only"].reason
    assert reason is not None
    assert "Task 'only'" in reason
    assert says in reason


async def test_a_traceback_shows_the_users_frames_and_none_of_the_engines(flow: AsyncFlow) -> None:
    flow.add_task_definition("first", returns(1))

    @flow.task(depends_on=["first"])
    async def pulls(ctx: Context) -> None:
        ctx.pull("frist")

    flow.add_task_definition("unstorable", lambda ctx: object())
    done = await run(flow)
    error = done.tasks["pulls"].error or ""
    assert 'ctx.pull("frist")' in error
    for text in (error, done.tasks["unstorable"].error or ""):
        assert "Error" in text
        for room in ("executors.py", "context.py", "codec.py", "live_run.py"):
            assert room not in text


async def test_a_task_may_return_a_state(flow: AsyncFlow) -> None:
    flow.add_task_definition("only", lambda ctx: ctx.run.state)
    output = (await run(flow)).tasks["only"].output_json
    assert output is ExecutionState.RUNNING


class Posing:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError("nobody asks for my class")


@pytest.mark.parametrize("make", [lambda: Posing(), lambda: {Posing(): Posing()}], ids=["alone", "inside"])
async def test_a_value_that_breaks_when_it_is_looked_at_fails_its_task_alone(flow: AsyncFlow, make: Any) -> None:
    async def returned(ctx: Context) -> Any:
        return make()

    flow.add_task_definition("in_thread", lambda ctx: make())
    flow.add_task_definition("on_loop", returned)
    done = await asyncio.wait_for(run(flow), 30)
    assert states_of(done) == {"in_thread": "failed", "on_loop": "failed"}
    for task in done.tasks.values():
        assert "UnstorableValueError" in (task.reason or "")


@pytest.mark.parametrize("make", [lambda size: "x" * size, lambda size: ["x"] * (size // 4), lambda size: b"x" * (size // 2)])
async def test_an_output_beyond_the_limit_fails_the_task_and_says_what_to_do(make: Any) -> None:
    flow = AsyncFlow("flow", MemoryStore(codec=ValueCodec(max_size=1000)))
    flow.add_task_definition("fits", lambda ctx: make(900))
    flow.add_task_definition("large", lambda ctx: make(1100))
    done = await run(flow)
    assert states_of(done) == {"fits": "success", "large": "failed"}
    reason = done.tasks["large"].reason or ""
    assert "ValueTooLargeError: Task 'large': output is of type" in reason
    assert "the limit is 1,000" in reason
    assert "return its path, or raise the limit" in reason


def test_a_param_beyond_the_limit_is_refused_by_its_name_before_a_run_exists() -> None:
    flow = AsyncFlow("flow", MemoryStore(codec=ValueCodec(max_size=1000)))
    flow.add_task_definition("only", returns(1))
    with pytest.raises(ValueTooLargeError, match=r'^params\["rows"\]'):
        flow.init_run({"fits": "x" * 900, "rows": "x" * 1100})
    assert flow.store.list_runs() == []
    flow.init_run({"fits": "x" * 900, "too": "x" * 900})


async def test_a_failure_of_excessive_length_is_stored_with_both_its_ends(store: Store) -> None:
    flow = AsyncFlow("flow", store).add_task_definition("loud", fails("begin " + "x" * 2**20 + " end"))
    error = store.load((await run(flow)).id).tasks["loud"].error or ""
    assert "Traceback" in error[:200]
    assert error.endswith(" end\n")
    assert "characters left out" in error
    assert len(error) < 300_000


async def test_a_coroutine_that_nobody_awaited_is_explained(flow: AsyncFlow) -> None:
    async def inner() -> None: ...

    made = inner()
    flow.add_task_definition("only", lambda ctx: made)
    done = await run(flow)
    made.close()
    assert done.tasks["only"].reason is not None
    assert "declare the task with `async def`" in done.tasks["only"].reason


async def test_a_push_that_cannot_be_stored_raises_in_the_task_where_it_can_be_caught(flow: AsyncFlow) -> None:
    @flow.task
    async def only(ctx: Context) -> str:
        try:
            ctx.push(object())
        except TypeError:
            return "caught"
        return "stored"

    assert (await run(flow)).tasks["only"].output_json == "caught"


class BreakingStore(MemoryStore):
    """Fails the commit of that number, counted from 1, and all that follow."""

    def __init__(self, fails_at: int) -> None:
        super().__init__()
        self.count, self.fails_at = 0, fails_at

    def commit(self, changes: Changes) -> None:
        self.count += 1
        if self.fails_at and self.count >= self.fails_at:
            raise StoreError(repr(self), "the disk is full")
        super().commit(changes)


@pytest.mark.parametrize("fails_at", [2, 3, 4, 5])
async def test_a_store_failure_stops_the_run_loudly_and_nothing_is_told_that_was_not_stored(
    effects: Effects, fails_at: int
) -> None:
    store = BreakingStore(fails_at)
    flow = AsyncFlow("breaks", store)
    for number in range(3):
        flow.add_task_definition(f"t{number}", effects.of(f"t{number}"), dependencies=[f"t{number - 1}"] if number else None)
    told = events_of(flow)
    run_id = flow.init_run()
    with pytest.raises(StoreError, match="the disk is full"):
        await flow.run_until_complete(run_id)
    succeeded = [event.task_id for event in told if isinstance(event, TaskSucceeded)]
    stored = store.load(run_id)
    assert [task_id for task_id, state in states_of(stored).items() if state == "success"] == succeeded
    assert len(effects.log) == fails_at - 2, "a task starts only when its start is stored"
    store.fails_at = 0
    done = await flow.run_until_complete(run_id)
    assert done.state == "success"
    for task_id in succeeded:
        assert effects.log.count(task_id) == 1


async def test_a_store_failure_cancels_what_is_under_way() -> None:
    store = BreakingStore(3)
    flow = AsyncFlow("breaks", store)
    ended: list[str] = []

    @flow.task
    async def long(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("long")

    flow.add_task_definition("short", returns(1))
    with pytest.raises(StoreError):
        await asyncio.wait_for(run(flow), 30)
    assert ended == ["long"]
