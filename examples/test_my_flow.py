"""How to test one's own tasks and flows with pytest: `python -m pytest examples/test_my_flow.py`.

The flow under test is the one at the top; in earnest it would be imported. Nothing here waits, asks the network or leaves a file.
"""

import asyncio

import pytest

from app.infra.flow import AsyncFlow, Context, SkipTask, SQLiteStore
from app.infra.flow.testing import (
    VirtualClock,
    assert_attempts,
    assert_failed,
    assert_output,
    assert_ran,
    assert_skipped,
    assert_succeeded,
    fails,
    hangs,
    raises,
    run_flow,
    run_flow_async,
    run_task,
)

flow = AsyncFlow("prices", SQLiteStore("prices.db"))  # no test below touches this file


@flow.task(max_retries=3, retry_delay=600, timeout=60)
async def fetch(ctx: Context) -> list[dict[str, float]]:
    raise ConnectionError("this would ask the shop")


@flow.task(depends_on=[fetch])
def clean(ctx: Context, fetch: list[dict[str, float]]) -> list[float]:
    if not fetch:
        raise SkipTask("no prices today")
    return [row["price"] for row in fetch if row["price"] >= 0]


@flow.task(depends_on=[clean])
def average(ctx: Context, clean: list[float]) -> float:
    digits: int = ctx.params.get("digits", 2)
    return round(sum(clean) / len(clean), digits)


@flow.task(depends_on=[average], trigger_rule="all_done")
def tell(ctx: Context) -> str:
    return f"average: {ctx.pull_output(average)}"


ROWS = [{"price": 1.0}, {"price": 2.5}, {"price": -1.0}]


# --- one task: its output is what comes back, its error is what is raised ---


def test_rows_without_a_sensible_price_are_dropped() -> None:
    assert run_task(flow, clean, upstream={fetch: ROWS}) == [1.0, 2.5]


def test_the_average_is_rounded_as_the_params_say() -> None:
    assert run_task(flow, average, {"digits": 1}, upstream={clean: [1.0, 2.5]}) == 1.8


def test_without_rows_there_is_nothing_to_clean() -> None:
    with pytest.raises(SkipTask, match="no prices"):
        run_task(flow, clean, upstream={fetch: []})


# --- the whole flow, with fakes in the place of what asks others ---


def test_prices_go_all_the_way_through() -> None:
    result = run_flow(flow, fakes={fetch: ROWS})
    assert_succeeded(result)
    assert_output(result, tell, "average: 1.75")


def test_a_shop_that_is_down_for_a_while_is_asked_again_every_ten_minutes() -> None:
    result = run_flow(flow, fakes={fetch: fails(times=2, then=ROWS)})
    assert_succeeded(result)
    assert_attempts(result, fetch, 3)
    assert result.clock.elapsed == 2 * 600  # seconds, none of which anybody waited


def test_a_shop_that_stays_down_fails_the_run_and_it_is_told_all_the_same() -> None:
    result = run_flow(flow, fakes={fetch: raises(ConnectionError("down"))})
    assert_failed(result, fetch, match="down")
    assert_skipped(result, average)
    assert_ran(result, [fetch, tell], only=True)


def test_a_shop_that_does_not_answer_meets_the_time_out() -> None:
    result = run_flow(flow, fakes={fetch: hangs()}, clock=VirtualClock())
    assert_failed(result, fetch, match="did not end within 60 seconds")


def test_after_a_fix_a_rerun_does_not_ask_the_shop_again() -> None:
    broken = run_flow(flow, fakes={fetch: ROWS, average: raises(ZeroDivisionError())})
    assert_failed(broken, average)
    assert_succeeded(broken.retry(average))  # `fetch` would raise, had it been called


# --- a coroutine test awaits; with pytest-asyncio it is an `async def` itself ---


def test_the_same_within_an_event_loop() -> None:
    async def test() -> None:
        assert_succeeded(await run_flow_async(flow, fakes={fetch: ROWS}))

    asyncio.run(test())
