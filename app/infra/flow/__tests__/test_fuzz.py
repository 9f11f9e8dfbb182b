"""Stores whose files were damaged at random: what is read of them was written once, or is refused by name."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from . import damage

SEEDS = 8


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kind", ["json", "sqlite"])
def test_damaged_files_are_refused_by_name_or_read_as_they_were_written(kind: str, seed: int, tmp_path: Path) -> None:
    assert damage.fuzz(kind, seed, tmp_path, inputs=15)["fuzz inputs"] == 15


def test_the_fuzzer_finds_a_store_that_takes_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can fail: here nothing is checked any more."""
    monkeypatch.setattr(zlib, "crc32", lambda text, before=0: 7)
    with pytest.raises(AssertionError, match=r"json, seed \d+: \w+ in [\w.]+: AssertionError: .* reads as it never was"):
        for seed in range(100):
            damage.fuzz("json", seed, tmp_path)
