"""Random flows with rules, conditions, branches and maps come to what the reference says, also if they are killed on the way.

Graphs are drawn by Hypothesis, which finds the smallest that fails. For more than the suite has time for:
`python -m app.infra.flow.__tests__.test_rules_property --examples 5000 --seed 7`, which names the seed of each that fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("hypothesis", reason="flows are drawn by Hypothesis: pip install -r requirements-dev.txt")

from hypothesis import (  # noqa: E402 - only once it is known to be there
    HealthCheck,
    Phase,
    currently_in_test_context,
    given,
    note,
    settings,
)
from hypothesis import strategies as st  # noqa: E402

from .reference import Sketch  # noqa: E402
from .rules_runs import Shelf, Story, random_storms  # noqa: E402
from .sketches import random_sketch  # noqa: E402

NO_CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
EXAMPLES = {"memory": 120, "sqlite": 25, "json": 25}
TOLD: list[str] = []
randoms = st.randoms(use_true_random=False)


def bounded(examples: int) -> settings:
    """So many examples, the same ones each time."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=NO_CHECKS,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )


def drawn(rng: Random) -> tuple[Sketch, int]:
    """A sketch, and how many of its attempts may be under way at once."""
    sketch = random_sketch(rng)
    tell("\n".join(map(repr, sketch)))
    return sketch, rng.choice([0, 0, 1, 2])


def tell(text: str) -> None:
    """What is good to know of an example that fails."""
    if currently_in_test_context():
        note(text)
    else:
        TOLD.append(text)


def calm(rng: Random, kind: str, folder: Path) -> None:
    """A run that nobody disturbs."""
    sketch, limit = drawn(rng)
    story = Story(sketch, Shelf(kind, folder), limit)
    story.through([])
    story.check()


def stormy(rng: Random, kind: str, folder: Path) -> None:
    """A run whose process is killed, or whose call is cancelled, again and again."""
    sketch, limit = drawn(rng)
    storms = random_storms(rng)
    tell(", then ".join(map(str, storms)) or "calm")
    story = Story(sketch, Shelf(kind, folder), limit)
    story.through(storms)
    story.check()


def mended(rng: Random, kind: str, folder: Path) -> None:
    """A run whose failures are mended, and set back by hand with all that is downstream; and that is disturbed as well."""
    sketch, limit = drawn(rng)
    story = Story(sketch, Shelf(kind, folder), limit)
    story.through(random_storms(rng, 1))
    story.check()
    if story.mend(rng):
        story.through(random_storms(rng, 2))
        story.check()


def again(rng: Random, kind: str, folder: Path) -> None:
    """A run of which some tasks are set back by hand, however they ended; and that comes to the same again."""
    sketch, limit = drawn(rng)
    story = Story(sketch, Shelf(kind, folder), limit)
    story.through([])
    story.check()
    tell(f"set back: {story.again(rng)}")
    story.through(random_storms(rng, 2))
    story.check()


WAYS = {"calm": calm, "stormy": stormy, "mended": mended, "again": again}


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("way", WAYS)
def test_a_run_comes_to_what_the_reference_says(way: str, kind: str) -> None:
    @bounded(EXAMPLES[kind])
    @given(randoms)
    def compare(rng: Random) -> None:
        with tempfile.TemporaryDirectory() as folder:
            WAYS[way](rng, kind, Path(folder))

    compare()


def main(argv: list[str] | None = None) -> int:
    """Compare as many as asked for. Returns the number of those that came to something else."""
    parser = argparse.ArgumentParser(prog="test_rules_property", description="Random flows, held against the reference.")
    parser.add_argument("--examples", type=int, default=1000, help="how many flows to draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; each next one is one more (default: %(default)s)")
    parser.add_argument("--way", choices=WAYS, action="append", help="only this way (default: all in turn)")
    parser.add_argument("--kind", choices=EXAMPLES, action="append", help="only this kind of store (default: all in turn)")
    options = parser.parse_args(argv)
    turns = [(way, kind) for kind in options.kind or EXAMPLES for way in options.way or WAYS]
    wrong = 0
    for seed in range(options.seed, options.seed + options.examples):
        way, kind = turns[seed % len(turns)]
        TOLD.clear()
        with tempfile.TemporaryDirectory() as folder:
            try:
                WAYS[way](Random(seed), kind, Path(folder))
            except Exception:
                wrong += 1
                traceback.print_exc()
                print(*TOLD, f"seed {seed}: {way}, {kind}\n", sep="\n", file=sys.stderr, flush=True)
    print(f"{options.examples} flows, {wrong} of which came to something else")
    return wrong


if __name__ == "__main__":
    raise SystemExit(1 if main() else 0)
