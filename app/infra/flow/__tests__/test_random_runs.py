"""Random flows, crashed at random commits and continued, come to what they were drawn for. Its test names a seed that fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from .. import Changes, Store
from .conftest import STORE_KINDS, FakeClock, around_commits, make_store
from .histories import check_history
from .shapes import PARAMS, Drawing, Nobody, build, expected, outcome, random_drawing

SEEDS = {"memory": 120, "sqlite": 25, "json": 25}


class Crash(BaseException):
    """The process is gone: nothing after it happens."""


async def drive(store: Store, drawing: Drawing, limit: int, crashes: dict[int, bool]) -> int:
    """Run the flow to its end, with a crash at each commit of the given numbers (True: after it was done); the commits made."""
    commits = 0

    def crashing(commit: Callable[[], None], changes: Changes) -> None:
        nonlocal commits
        commits += 1
        if crashes.get(commits) is False:
            raise Crash
        commit()
        if crashes.get(commits) is True:
            raise Crash

    around_commits(store, crashing)
    clock = FakeClock()
    while True:
        flow = build(drawing, Nobody(), store=store, clock=clock)
        try:
            flow.init_run(PARAMS, run_id="run")
            await flow.run_until_complete("run", limit)
        except Crash:
            continue
        return commits


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in STORE_KINDS for seed in range(SEEDS[kind])])
async def test_a_run_that_crashes_again_and_again_ends_like_one_that_does_not(kind: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    drawing, limit = random_drawing(rng), rng.choice([0, 0, 1, 2])
    calm, stormy = (make_store(kind, tmp_path / name) for name in ("calm", "stormy"))
    for name in ("calm", "stormy"):
        (tmp_path / name).mkdir()
    commits = await drive(calm, drawing, limit, {})
    points = rng.sample(range(1, commits + 4), rng.randint(1, 3))
    await drive(stormy, drawing, limit, {point: rng.random() < 0.5 for point in points})
    assert outcome(calm, "run") == expected(drawing)
    assert outcome(stormy, "run") == expected(drawing)
    for store in (calm, stormy):
        successes = [attempt.task_id for attempt in store.list_attempts("run") if attempt.result == "success"]
        assert len(successes) == len(set(successes))
        for run_id in store.list_runs():
            check_history(store, run_id)
        store.close()
