"""The agenda: what is due is given out once, in order, and what was struck off never; nor does that pile up."""

from __future__ import annotations

from ..agenda import FEW, Agenda


def test_what_is_due_is_given_out_in_the_order_of_its_moments_and_then_of_its_coming() -> None:
    agenda: Agenda[str] = Agenda()
    for due, item in ((3.0, "c"), (1.0, "a"), (3.0, "d"), (2.0, "b"), (9.0, "later")):
        agenda.put(due, item)
    assert list(agenda.take_due(0.5)) == []
    assert list(agenda.take_due(3.0)) == ["a", "b", "c", "d"]
    assert list(agenda.take_due(3.0)) == []
    assert (len(agenda), agenda.next_due()) == (1, 9.0)


def test_what_was_struck_off_is_never_given_out() -> None:
    agenda: Agenda[str] = Agenda()
    first, second = agenda.put(1.0, "first"), agenda.put(2.0, "second")
    agenda.strike(first)
    agenda.strike(first)
    assert (len(agenda), agenda.next_due()) == (1, 2.0)
    assert list(agenda.take_due(5.0)) == ["second"]
    agenda.strike(second)  # it was given out already
    assert (len(agenda), agenda.next_due()) == (0, None)


def test_what_is_noted_down_while_it_gives_out_and_is_due_is_given_out_too() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.put(1.0, "a")
    given = []
    for item in agenda.take_due(1.0):
        given.append(item)
        if item == "a":
            agenda.put(0.5, "b")
    assert given == ["a", "b"]


def test_a_million_attempts_that_end_in_time_leave_no_pile_of_deadlines() -> None:
    agenda: Agenda[int] = Agenda()
    last = agenda.put(1e9, -1)
    most = 0
    for number in range(20_000):
        entry = agenda.put(1e6 + number, number)
        agenda.strike(entry)
        most = max(most, len(agenda.entries))
    assert most <= 2 * FEW + 4
    assert agenda.next_due() == last.due
