"""Hundreds of simulated stories: deaths, cancellations, take-overs, failing stores, time-outs, pools; in no time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from app.infra.flow.__tests__ import simulation, simulation_limits
from app.infra.flow.__tests__.shapes import SHAPES

STORIES = 300


def attack(seed: int, scratch: Path) -> Counter[str]:  # noqa: ARG001 - it touches no file
    """Some stories of random flows, and one of each shape."""
    figures = simulation.main(seed * STORIES, STORIES)
    figures += simulation_limits.main(seed * STORIES, STORIES)
    for shape in SHAPES:
        figures += simulation.simulate(seed, shape)
        figures += simulation_limits.simulate_limits(seed, shape)
    return figures
