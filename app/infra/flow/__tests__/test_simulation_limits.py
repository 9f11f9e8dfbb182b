"""Hundreds of simulated stories with time-outs, pools, priorities and people who cancel: no promise of the engine is broken."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..agenda import Agenda
from ..attempts import Attempts
from ..heeding import Heeding
from ..machine import RunMachine
from ..pools import Pool
from ..runner import Runner
from .shapes import SHAPES
from .simulation import Broken
from .simulation_limits import simulate_limits

KEPT = [
    16,  # a function that had been told to end before it began was begun all the same
    465,  # a store that failed while the caller was cancelled left attempts running
    2596,  # what was asked while the drive was being stopped was not done, and a retry came in between
]
"""Seeds that once showed something, in the engine or in the simulation."""

BLOCKS = 6
SEEDS_PER_BLOCK = 50


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """What a story leaves behind is torn down within its own test."""
    yield
    gc.collect()


@pytest.mark.parametrize("seed", KEPT)
def test_a_story_that_once_showed_something_ends_well(seed: int) -> None:
    assert simulate_limits(seed)["seeds"] == 1


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_flows_keep_every_promise_whoever_meddles(block: int) -> None:
    figures: Counter[str] = Counter()
    for seed in range(block * SEEDS_PER_BLOCK, (block + 1) * SEEDS_PER_BLOCK):
        figures += simulate_limits(seed)
    for what in ("deaths", "tasks cancelled", "runs cancelled", "callers who lost patience", "mended"):
        assert figures[what] > 5, what  # something does befall them


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_keeps_every_promise_whoever_meddles(shape: str) -> None:
    for seed in range(10):
        assert simulate_limits(seed, shape)["seeds"] == 1


@pytest.mark.parametrize("block", range(2))
def test_random_flows_come_to_what_was_drawn_when_nobody_meddles(block: int) -> None:
    for seed in range(block * SEEDS_PER_BLOCK, (block + 1) * SEEDS_PER_BLOCK):
        assert simulate_limits(seed, calm=True)["deaths"] == 0


# --- the simulation itself ------------------------------------------------------------------------------------------------


def keep_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever late."""
    monkeypatch.setattr(Attempts, "time_is_over", lambda *anything: None)


def let_anybody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool has always room."""
    monkeypatch.setattr(Pool, "_is_free", lambda *anything: True)


def keep_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held when a drive ends is not given back."""
    monkeypatch.setattr(Attempts, "forget", lambda attempts: None)


def tell_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a pool is not told when there is room."""

    def give(pool: Pool, weight: int) -> None:
        pool._used -= weight

    monkeypatch.setattr(Pool, "give", give)


def heed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of a drive is forgotten."""
    monkeypatch.setattr(Heeding, "heed", lambda heeding, ask: True)


def bring_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry that nobody asked for brings back what was cancelled."""
    monkeypatch.setattr(Runner, "_is_retried_by_hand", staticmethod(lambda live, record: True))


def begin_what_was_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is continued takes a cancelled task for one that waits."""
    begin = RunMachine.begin

    def forgetful(machine: RunMachine, step: Any, now: int) -> None:
        for record in machine.tasks.values():
            if record.state == "cancelled":
                machine._move(step, record, type(record.state).SCHEDULED)
        begin(machine, step, now)

    monkeypatch.setattr(RunMachine, "begin", forgetful)


def lose_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several things that are due at once, the last is lost."""
    take_due = Agenda.take_due

    def lossy(agenda: Agenda[Any], now: float) -> Iterator[Any]:
        due = list(take_due(agenda, now))
        return iter(due[:-1] if len(due) > 1 else due)

    monkeypatch.setattr(Agenda, "take_due", lossy)


BROKEN = [
    keep_no_time,
    let_anybody_in,
    keep_slots,
    tell_nobody,
    heed_nothing,
    bring_back,
    begin_what_was_cancelled,
    lose_what_is_due,
]


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda function: function.__name__)
def test_an_engine_that_breaks_a_promise_is_found_out(
    break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    with pytest.raises(Broken, match=r"(?s)^seed \d+: .*\nsee it again: python -m .*simulation_limits \d+$"):
        for seed in range(600):
            simulate_limits(seed)


def test_the_same_seed_tells_the_same_story() -> None:
    assert [simulate_limits(seed) for seed in range(20)] == [simulate_limits(seed) for seed in range(20)]
