"""Random flows with rules, conditions, branches and maps come to what the reference says, also if they are killed on the way.

Its tests name a seed that goes wrong; `test_rules_property` finds the smallest flow that does, and tries more.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from .conftest import STORE_KINDS
from .reference import ALWAYS_FAILS, Does, Sketched
from .rules_runs import WAYS, Shelf, Storm, Story
from .test_reference import SCENES

SEEDS = {"memory": 50, "sqlite": 12, "json": 12}


@pytest.mark.parametrize("kind", STORE_KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_run_comes_to_what_the_reference_says(way: str, kind: str, tmp_path: Path) -> None:
    for seed in range(SEEDS[kind]):
        folder = tmp_path / str(seed)
        folder.mkdir()
        told = [f"{way}, {kind}, seed {seed}"]
        try:
            WAYS[way](Random(seed), kind, folder, told.append)
        except Exception as error:
            raise AssertionError("\n".join(told)) from error


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("how", ["crash", "cancel"])
def test_stopped_at_any_commit_a_scene_ends_the_same(scene: str, how: str, tmp_path: Path) -> None:
    sketch, _ = SCENES[scene]
    commit, ended = 0, False
    while not ended:
        commit += 1
        story = Story(sketch, Shelf("memory", tmp_path))
        ended = story.live(Storm(how, commit, after=True))
        story.through([])
        story.check()
    assert commit > 2


WHAT_SKIPS = {
    "a branch": (Sketched("b", gives="choice"), Sketched("t", ("b",))),
    "a task that says so": (Sketched("b", does=(Does(skips=True),)), Sketched("t", ("b",))),
    "a gate": (Sketched("b", does=(Does(skips=True),)), Sketched("t", map_over="b")),
}


@pytest.mark.parametrize("what", WHAT_SKIPS)
def test_a_failure_of_an_earlier_drive_counts_where_something_else_is_skipped_again(what: str, tmp_path: Path) -> None:
    """What comes after both was skipped by the failure, and is so again when the other is set back."""
    sketch = (
        Sketched("x", does=(Does(failures=ALWAYS_FAILS),)),
        *WHAT_SKIPS[what],
        Sketched("both", ("t", "x")),
        Sketched("last", ("both",), rule="none_failed"),
    )
    story = Story(sketch, Shelf("memory", tmp_path))
    story.through([])
    story.check()
    story.set_back_all(["t"])
    story.through([])
    story.check()
