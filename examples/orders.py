"""The day's orders of five shops, one of which writes numbers in its own way: a run that fails, is mended, and goes on.

Run by the README's five minutes: `python3 -m app.infra.flow run examples/orders.py:flow`.
"""

import time

from app.infra.flow import AsyncFlow, Context

SHOPS = {
    "amsterdam": ["12.50", "80.00", "7.25"],
    "berlin": ["19,90", "45,00"],
    "chicago": ["230.10"],
    "dublin": ["64.00", "3.40", "12.00"],
    "eindhoven": ["150.75", "9.95"],
}

flow = AsyncFlow("orders")


@flow.task
def shops(ctx: Context) -> list[str]:
    """Which shops there are."""
    time.sleep(0.3)
    return sorted(SHOPS)


@flow.task(map_over=shops, map_key=str)
def takings(ctx: Context, shop: str) -> float:
    """What one shop took in, its numbers read from text."""
    ctx.log(f"{len(SHOPS[shop])} orders")
    time.sleep(0.2 + 0.1 * len(SHOPS[shop]))
    return sum(float(text) for text in SHOPS[shop])


@flow.task(max_retries=2, retry_delay=0.3)
def rate(ctx: Context) -> float:
    """Dollars for a euro; the bank answers at the second try."""
    time.sleep(0.3)
    if ctx.attempt_number == 0:
        raise ConnectionError("the bank does not answer")
    return 1.25


@flow.task(depends_on=[takings, rate])
def total(ctx: Context, takings: list[float], rate: float) -> dict[str, float]:
    """The sum, in both currencies."""
    time.sleep(0.4)
    return {"eur": round(sum(takings), 2), "usd": round(sum(takings) * rate, 2)}


@flow.task(depends_on=[total])
def publish(ctx: Context, total: dict[str, float]) -> str:
    """The line for the boss."""
    return f"{total['eur']:.2f} EUR, {total['usd']:.2f} USD"
