"""Stories that Hypothesis makes up of all that can be done to runs, compared with a contract of plain dicts; on each store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from app.infra.flow.__tests__.test_state_machine import MACHINES, bounds

STORIES = 12


def attack(seed: int, scratch: Path) -> Counter[str]:  # noqa: ARG001 - the machine has a folder of its own
    """Some stories on one of the stores."""
    machine = MACHINES[seed % len(MACHINES)]
    run_state_machine_as_test(seeded(seed)(type(machine.__name__, (machine,), {})), settings=bounds(STORIES, 50))
    return Counter({"stories of the state machine": STORIES})
