"""Two deaths in a row, each at any write to the store, in real processes. As a program: all pairs, on every shape and store."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from app.infra.flow.__tests__.shapes import SHAPES
from app.infra.flow.__tests__.test_crash_sweep import KINDS, Death, lives, sweep

PAIRS = 20
MOST_WRITES = 20
"""More than any of the shapes takes; a life that ends before its death is no harm."""


def attack(seed: int, scratch: Path) -> Counter[str]:
    """Some pairs, sometimes threes, at random."""
    rng = Random(seed)
    figures: Counter[str] = Counter()
    for _ in range(PAIRS):
        fates = [Death(rng.randint(1, MOST_WRITES), rng.random() < 0.5) for _ in range(rng.choice([2, 2, 3]))]
        tried = lives(rng.choice(KINDS), rng.choice(list(SHAPES)), scratch, fates)
        figures["crash points tried"] += len(tried.story) - 1
        figures["lives of real processes"] += len(tried.story)
    return figures


def main() -> None:
    """All pairs of deaths."""
    total: Counter[str] = Counter()
    for kind in KINDS:
        for shape in SHAPES:
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as scratch:
                figures = sweep(kind, shape, Path(scratch), pairs=True)
            total += figures
            print(
                f"{kind:7} {shape:22} {figures['crash points tried']:6} crash points {time.perf_counter() - began:7.1f} s",
                flush=True,
            )
    print(f"{total['crash points tried']} crash points tried, nothing lost, nothing run again")


if __name__ == "__main__":
    main()
