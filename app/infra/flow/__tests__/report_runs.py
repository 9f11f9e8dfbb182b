"""Runs to report on: one that fails, one with hostile texts everywhere, and one with many items."""

from __future__ import annotations

from random import Random

from .. import AsyncFlow, Context, SkipTask, Store, WorkflowRun
from .conftest import FakeClock

HOSTILE = (
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    '"><svg onload=window.hacked=1>',
    "' autofocus onfocus='window.hacked=1",
    "</title></style></script></pre><script>window.hacked=1</script>",
    "javascript:window.hacked=1",
    "<!--<script>window.hacked=1",
    "]]><script>window.hacked=1</script>",
    "&lt;script&gt;window.hacked=1&lt;/script&gt;",
    "${window.hacked=1}{{constructor.constructor('window.hacked=1')()}}",
    "\u202e\u2066\x1b]8;;javascript:window.hacked=1\x07\x00",
)
"""Texts that mean something to a page, an attribute, a script, a style, a comment or a terminal."""


def sales(store: Store) -> WorkflowRun:
    """It fails after a retry that succeeded, a subflow, and a map of which one item fails twice."""
    clock = FakeClock()
    flow = AsyncFlow("nightly-sales", store, clock=clock)
    checks = AsyncFlow("checks")

    @flow.task(max_retries=2, retry_delay=30)
    def rates(ctx: Context) -> dict[str, float]:
        ctx.log("asking the bank")
        clock.pass_time(10)
        if ctx.attempt_number == 0:
            raise ConnectionError("the bank does not answer")
        return {"EUR": 1.0}

    @checks.task
    def none_missing(ctx: Context) -> bool:
        clock.pass_time(5)
        return True

    flow.add_subflow_definition("checks", checks, dependencies=[rates])

    @flow.task(depends_on=["checks"])
    def regions(ctx: Context) -> list[str]:
        return ["north", "east"]

    @flow.task(map_over=regions, map_key=str, max_retries=1, retry_delay=60)
    def invoice(ctx: Context, region: str) -> str:
        ctx.log(f"rendering {region}")
        clock.pass_time(20)
        if region == "east":
            raise ValueError("no tax rate is known for 'XK'")
        return f"{region}.pdf"

    @flow.task(depends_on=[invoice])
    def mail(ctx: Context) -> None: ...

    @flow.task(depends_on=[rates])
    def archive(ctx: Context) -> None:
        raise SkipTask("it was archived already")

    params = {"day": "2026-03-01", "api_token": "s3cr3t-t0ken", "mailbox": {"password": "hunter2", "size": 5}}
    return flow.run(params, run_id="sales-1", max_concurrency=1)


def hostile(store: Store, texts: tuple[str, ...] = HOSTILE) -> WorkflowRun:
    """Each of the texts as param and its name, item's key, output, log, reason and error."""
    flow = AsyncFlow("<script>window.hacked=1</script>", store)
    # A key of an item holds no brackets and no control characters; anything else goes.
    keys = ["".join(character for character in text if character.isprintable() and character not in "[]") for text in texts]

    @flow.task
    def texts_of(ctx: Context) -> list[str]:
        return list(texts)

    @flow.task(map_over=texts_of, map_key=lambda text: keys[texts.index(text)])
    def echo(ctx: Context, text: str) -> str:
        ctx.log(text)
        return text

    @flow.task(map_over=texts_of)
    def fail(ctx: Context, text: str) -> None:
        raise ValueError(text)

    @flow.task(map_over=texts_of)
    def skip(ctx: Context, text: str) -> None:
        raise SkipTask(text)

    return flow.run({text.replace("\x00", ""): text for text in texts}, run_id='"><img src=x onerror=window.hacked=1>')


def many(store: Store, number: int) -> WorkflowRun:
    """A map of so many items, of which each hundredth fails."""
    flow = AsyncFlow("many", store)

    @flow.task
    async def numbers(ctx: Context) -> list[int]:
        return list(range(number))

    @flow.task(map_over=numbers)
    async def square(ctx: Context, n: int) -> dict[str, str]:
        if n % 100 == 7:
            raise ValueError(f"bad number {n}")
        return {"text": "x" * 3000}

    return flow.run(run_id="many-1")


def tangled(store: Store) -> WorkflowRun:
    """Two hundred tasks without an order that people could see, of which one fails."""
    flow = AsyncFlow("tangled", store)
    random = Random(1)
    for index in range(200):
        ups = sorted({random.randrange(max(0, index - 60), index) for _ in range(3)}) if index else []

        async def task(ctx: Context) -> None:
            if ctx.task_id == "t70":
                raise ValueError("tangled up")

        flow.add_task_definition(f"t{index}", task, dependencies=[f"t{up}" for up in ups])
    return flow.run(run_id="tangled-1")
