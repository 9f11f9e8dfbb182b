"""Random flows with rules, conditions, branches and maps, as Hypothesis draws them: it finds the smallest that goes wrong.

For more than the suite has time for: `python -m app.infra.flow.__tests__.test_rules_property --examples 5000 --seed 7`, which
names the seed of each that comes to something else than the reference says.
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

from hypothesis import HealthCheck, given, note, settings  # noqa: E402 - only once it is known to be there
from hypothesis import strategies as st  # noqa: E402

from .conftest import STORE_KINDS  # noqa: E402
from .rules_runs import WAYS  # noqa: E402

NO_CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
bounded = settings(max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=NO_CHECKS)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_comes_to_what_the_reference_says(way: str) -> None:
    @bounded
    @given(
        st.randoms(use_true_random=False),
        st.just("memory") if way == "calm" else st.sampled_from(["memory", "memory", "sqlite", "json"]),
    )
    def compare(rng: Random, kind: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            WAYS[way](rng, kind, Path(folder), note)

    compare()


def main(argv: list[str] | None = None) -> int:
    """Compare as many as asked for. Returns the number of those that came to something else."""
    parser = argparse.ArgumentParser(prog="test_rules_property", description="Random flows, held against the reference.")
    parser.add_argument("--examples", type=int, default=1000, help="how many flows to draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; each next one is one more (default: %(default)s)")
    parser.add_argument("--way", choices=WAYS, action="append", help="only this way (default: all in turn)")
    parser.add_argument("--kind", choices=STORE_KINDS, action="append", help="only this kind of store (default: all in turn)")
    options = parser.parse_args(argv)
    turns = [(way, kind) for kind in options.kind or STORE_KINDS for way in options.way or WAYS]
    wrong = 0
    for seed in range(options.seed, options.seed + options.examples):
        way, kind = turns[seed % len(turns)]
        told: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            try:
                WAYS[way](Random(seed), kind, Path(folder), told.append)
            except Exception:
                wrong += 1
                traceback.print_exc()
                print(*told, f"seed {seed}: {way}, {kind}\n", sep="\n", file=sys.stderr, flush=True)
    print(f"{options.examples} flows, {wrong} of which came to something else")
    return wrong


if __name__ == "__main__":
    raise SystemExit(1 if main() else 0)
