"""A flow as people write it, with what a type checker must make of it; read by mypy and pyright, and run (see test_typing.py).

Each `assert_type` holds under both. A line that both must refuse says so, and both complain if they see nothing wrong there.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import AsyncFlow, Context, MappedTask, TriggerRule

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: Any, kind: Any) -> Any:
        """Nothing to do: the checkers did it."""
        return value


flow = AsyncFlow("typed")
child = AsyncFlow("child")


# --- what is declared keeps its type ---


@child.task
def leaf(ctx: Context) -> int:
    return 7


@flow.task
def bare(ctx: Context) -> int:
    return 1


@flow.task()
async def awaited(ctx: Context) -> dict[str, int]:
    return {"a": 2}


@flow.task("with_an_id", depends_on=[bare, awaited, "bare"], max_retries=1, trigger_rule=TriggerRule.ALL_DONE)
def named(ctx: Context) -> tuple[int, str]:
    return ctx.pull_output(bare), "named"


@flow.task(run_if=lambda ctx: True)
def nothing(ctx: Context) -> None: ...


@flow.task
def anything(ctx: Context) -> Any:
    return 3


async def is_first(ctx: Context) -> bool:
    return ctx.attempt_number == 0


@flow.task(run_if=is_first, depends_on=bare)
async def optional(ctx: Context) -> str | None:
    return None


@flow.subflow("nested")
def nested(_: None) -> AsyncFlow:
    return child


class Service:
    def load(self, ctx: Context) -> list[str]:
        return ["row"]

    def __call__(self, ctx: Context) -> bytes:
        return b""


def page(ctx: Context, number: int = 0) -> float:
    return number / 2


async def page_later(ctx: Context, number: int = 0) -> complex:
    return number / 2


service = Service()
method = flow.task("method")(service.load)
an_object = flow.task("an_object")(service)
half_page = flow.task("half_page")(partial(page, number=1))
later_page = flow.task("later_page")(partial(page_later, number=1))
options: dict[str, Any] = {"max_retries": 1}
handed_on = flow.task("handed_on", **options)(page)

assert_type(an_object, Service)
assert_type(half_page, "partial[float]")
kept: tuple[Callable[[Context], int], Callable[[None], AsyncFlow]] = (bare, nested)


def calls(ctx: Context) -> None:
    assert_type(bare(ctx=ctx), int)
    assert_type(method(ctx=ctx), "list[str]")
    assert_type(nested(None), AsyncFlow)
    assert_type(handed_on(ctx, number=3), float)


# --- what is mapped is called as before, and pulled as a list ---


def key_of(item: int) -> str:
    return str(item)


def summary(ctx: Context, task: MappedTask[[Context, int], str]) -> int:
    return len(assert_type(ctx.pull(task), "list[str]"))


def a_flow_that_maps() -> AsyncFlow:
    mapping = AsyncFlow("mapping")

    @mapping.task
    def rows(ctx: Context) -> list[int]:
        return [1, 2]

    @mapping.task(map_over=rows, map_key=key_of, max_map_size=10, depends_on=["rows"], priority=1)
    def parse(ctx: Context, item: int) -> str:
        return str(item)

    @mapping.task("stream", map_over=parse, timeout=1)
    async def stream(ctx: Context, item: str) -> bytes:
        return item.encode()

    @mapping.task("any_item", map_over="rows", map_key=str, trigger_rule="all_done")
    def any_item(ctx: Context, item: Any) -> Any:
        return item

    @mapping.subflow("each", map_over=rows, params={"a": 1})
    def each(_: None) -> AsyncFlow:
        return child

    @mapping.task(depends_on=[rows, parse, stream, any_item, each])
    def joined(ctx: Context) -> list[Any]:
        pulled = (
            assert_type(ctx.pull_output(rows), "list[int]"),
            assert_type(ctx.pull_output(parse), "list[str]"),
            assert_type(ctx.pull_output(stream), "list[bytes]"),
            assert_type(ctx.pull_output(each), "list[Any]"),
            assert_type(ctx.pull_output("parse"), Any),
            assert_type(ctx.pull(parse), "list[str]"),
            assert_type(parse(ctx, 3), str),
            assert_type(parse.__name__, str),
            summary(ctx, parse),
        )
        return [*pulled]

    async def calls_them(ctx: Context) -> None:
        mapped: MappedTask[[Context, int], str] = parse
        assert_type(mapped(ctx, 3), str)
        assert_type(await stream(ctx, "3"), bytes)

    def wrong(ctx: Context) -> None:
        ctx.pull_output(parse).upper()  # type: ignore[attr-defined]
        parse(ctx)  # type: ignore[call-arg]
        parse(ctx, "3")  # type: ignore[arg-type]
        summary(ctx, bare)  # type: ignore[arg-type]
        summary(ctx, stream)  # type: ignore[arg-type]
        mapping.task(map_key=str)  # type: ignore[call-overload]
        mapping.task(map_over=rows, map_key=len)  # type: ignore[arg-type]
        mapping.task(map_over=rows, branch=True)  # type: ignore[call-overload]

    del calls_them, wrong  # they are for the checkers alone
    return mapping


# --- what is pulled ---


@flow.task(
    depends_on=[bare, awaited, named, nothing, anything, optional, nested, method, an_object, half_page, later_page, handed_on]
)
def pulls(ctx: Context) -> list[Any]:
    assert_type(ctx.pull(bare), int)
    assert_type(ctx.pull(nothing), None)
    pulled = (
        assert_type(ctx.pull_output("bare"), Any),
        assert_type(ctx.pull_output(bare), int),
        assert_type(ctx.pull_output(awaited), "dict[str, int]"),
        assert_type(ctx.pull_output(named), "tuple[int, str]"),
        assert_type(ctx.pull_output(anything), Any),
        assert_type(ctx.pull_output(optional), "str | None"),
        assert_type(ctx.pull_output(nested), Any),
        assert_type(ctx.pull_output(method), "list[str]"),
        assert_type(ctx.pull_output(an_object), bytes),
        assert_type(ctx.pull_output(half_page), float),
        assert_type(ctx.pull_output(later_page), complex),
        assert_type(ctx.pull_output(handed_on), float),
        assert_type(any_of(ctx, bare, "bare"), "int | Any"),
    )
    return [*pulled]


def any_of(ctx: Context, first: Callable[[Context], int], second: str) -> int | Any:
    return ctx.pull(first) or ctx.pull(second)


PULLED = [1, 1, {"a": 2}, (1, "named"), 3, None, 7, ["row"], b"", 0.5, 0.5, 0.0, 1]
"""What `pulls` returns when the flow is run."""
JOINED = [[1, 2], ["1", "2"], [b"1", b"2"], [7, 7], ["1", "2"], ["1", "2"], "3", "parse", 2]
"""What `joined` returns."""


# --- what both checkers must refuse ---


def wrong(ctx: Context) -> None:
    ctx.pull_output(bare).upper()  # type: ignore[attr-defined]
    ctx.pull_output(awaited)[0]  # type: ignore[index]
    number: int = ctx.pull(named)  # type: ignore[assignment]
    ctx.pull_output(number)  # type: ignore[call-overload]
    ctx.pull_output(None)  # type: ignore[call-overload]
    ctx.pull_output([bare])  # type: ignore[call-overload]
    bare()  # type: ignore[call-arg]
    flow.task(depends_on=[3])  # type: ignore[list-item]
    flow.task(run_if=True)  # type: ignore[call-overload]
