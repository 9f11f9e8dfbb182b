"""Random flows with rules, conditions, branches and maps whose processes really die: forks that end in the middle, by `os._exit`.

What was stored as done is never done again, and the run comes to what the reference says.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random

import pytest

from .. import Context
from .conftest import make_store
from .rules_runs import RUN, Shelf, Story
from .sketches import Witness, random_sketch
from .test_crash_sweep import KILLED, count_writes, fork

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of this test are forks")

SEEDS = range(6)


class Writing(Witness):
    """A witness whose complaints outlive its process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def complain(self, ctx: Context, what: str) -> None:
        super().complain(ctx, what)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{self.complaints[-1]}\n")


class Mortal(Story):
    """A run each of whose lives is a process, which dies at one of its writes."""

    def __init__(self, seed: int, kind: str, folder: Path) -> None:
        super().__init__(random_sketch(Random(seed)), Shelf(kind, folder), limit=seed % 3)
        self.kind, self.folder = kind, folder

    def live_until(self, write: int, after: bool) -> bool:
        """Whether it came to its end before that."""

        def live() -> int:
            def at_each(number: int, done: bool) -> None:
                if (number, done) == (write, after):
                    os._exit(KILLED)

            with make_store(self.kind, self.folder) as store:
                witness = Writing(self.folder / "complaints")
                if store.exists(RUN):
                    witness.remember_successes(store, RUN)
                count_writes(store, at_each)
                asyncio.run(self.drive(store, witness))
            return 0

        return fork(live, self.folder / "errors") == 0


@pytest.mark.parametrize("kind", ["sqlite", "json"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_whose_processes_die_comes_to_what_the_reference_says(seed: int, kind: str, tmp_path: Path) -> None:
    rng = Random(seed)
    story = Mortal(seed, kind, tmp_path)
    for _ in range(4):
        if story.live_until(rng.randint(1, 9), rng.random() < 0.5):
            break
    story.through([])
    story.check()
    assert not (tmp_path / "complaints").exists()
