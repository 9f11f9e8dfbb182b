"""Real processes that work flat out on one store, while some of them are killed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from app.infra.flow.__tests__.test_processes import flat_out

PROCESSES, RUNS, KILLS = 4, 8, 6


def attack(seed: int, scratch: Path) -> Counter[str]:
    """One store, and some processes that live and die on it."""
    flat_out(("sqlite", "json")[seed % 2], scratch, PROCESSES, RUNS, KILLS, seed=seed)
    return Counter({"lives of real processes": PROCESSES + KILLS})
