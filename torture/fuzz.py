"""Files that were damaged at random: whatever is read of them was written, or is refused by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from app.infra.flow.__tests__ import damage

INPUTS = 60


def attack(seed: int, scratch: Path) -> Counter[str]:
    """Some of each store with files."""
    return damage.fuzz("json", seed, scratch, INPUTS) + damage.fuzz("sqlite", seed, scratch, INPUTS)
