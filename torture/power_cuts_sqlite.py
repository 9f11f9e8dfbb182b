"""Power cuts below an SQLite store: any write that was not synced may be lost, torn or out of order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from app.infra.flow.__tests__.test_power_cuts_sqlite import bench

CUTS = 50


def attack(seed: int, scratch: Path) -> Counter[str]:
    """Some cuts of one store's life."""
    return Counter({"simulated power cuts": bench(seed, scratch, CUTS)["cuts"]})
