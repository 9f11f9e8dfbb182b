"""The queue of what is ready: by priority, then in the order of coming."""

from __future__ import annotations

import pytest

from ..ready import Ready


def drained(ready: Ready[str]) -> list[str]:
    return [ready.take() for _ in range(len(ready))]


def test_what_came_first_goes_first() -> None:
    ready: Ready[str] = Ready()
    for item in "abc":
        ready.put(item)
    assert drained(ready) == ["a", "b", "c"]


def test_a_higher_priority_goes_before_all_that_came_earlier() -> None:
    ready: Ready[str] = Ready()
    for item, priority in (("low", -1), ("usual", 0), ("high", 5), ("usual too", 0), ("high too", 5)):
        ready.put(item, priority)
    assert ready.best() == 5
    assert ready.head() == "high"
    assert drained(ready) == ["high", "high too", "usual", "usual too", "low"]


def test_what_is_put_back_is_the_first_of_its_priority_again() -> None:
    ready: Ready[str] = Ready()
    for item in "ab":
        ready.put(item, 3)
    ready.put_back(ready.take(), 3)
    assert drained(ready) == ["a", "b"]


def test_an_empty_queue_has_nothing_to_give() -> None:
    ready: Ready[str] = Ready()
    ready.put("a")
    ready.take()
    assert ready.best() is None
    assert not ready
    for ask in (ready.take, ready.head):
        with pytest.raises(IndexError):
            ask()
