"""The trigger rules: each one's truth table, spelled out; and that no verdict depends on who was first, or is taken back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

import pytest

from .. import AsyncFlow, InvalidOptionError, TriggerRule
from ..trigger_rules import RULES, Verdict, decide
from .conftest import returns

PENDING, ENDED = ".", "sfk"
"""An upstream that has not ended, and one that succeeded, failed, or was skipped."""
LETTERS = {".": Verdict.WAIT, "R": Verdict.RUN, "S": Verdict.SKIP, "F": Verdict.SKIP_FAILED}

# fmt: off
TRUTH = """
            all_     all_    one_     none_    none_    always
            success  done    success  failed   skipped
                all_    all_    one_     none_    all_
                failed  skipped failed   failed_  done_
                             one_done    min_one  min_one
    none    R   R   R   R    R   R   R   R   R   R   R   R
    .       .   .   .   .    .   .   .   .   .   .   .   R
    s       R   S   R   S    R   S   R   R   R   R   R   R
    f       F   R   R   S    F   R   R   F   F   R   F   R
    k       S   S   R   R    S   S   S   R   S   S   S   R
    ..      .   .   .   .    .   .   .   .   .   .   .   R
    .s      .   S   .   S    R   .   R   .   .   .   .   R
    .f      F   .   .   S    .   R   R   F   F   .   .   R
    .k      .   S   .   .    .   .   .   .   .   S   .   R
    ss      R   S   R   S    R   S   R   R   R   R   R   R
    sf      F   S   R   S    R   R   R   F   F   R   R   R
    sk      S   S   R   S    R   S   R   R   R   S   R   R
    ff      F   R   R   S    F   R   R   F   F   R   F   R
    fk      F   S   R   S    F   R   R   F   F   S   F   R
    kk      S   S   R   R    S   S   S   R   S   S   S   R
    ...     .   .   .   .    .   .   .   .   .   .   .   R
    ..s     .   S   .   S    R   .   R   .   .   .   .   R
    ..f     F   .   .   S    .   R   R   F   F   .   .   R
    ..k     .   S   .   .    .   .   .   .   .   S   .   R
    .ss     .   S   .   S    R   .   R   .   .   .   .   R
    .sf     F   S   .   S    R   R   R   F   F   .   .   R
    .sk     .   S   .   S    R   .   R   .   .   S   .   R
    .ff     F   .   .   S    .   R   R   F   F   .   .   R
    .fk     F   S   .   S    .   R   R   F   F   S   .   R
    .kk     .   S   .   .    .   .   .   .   .   S   .   R
    sss     R   S   R   S    R   S   R   R   R   R   R   R
    ssf     F   S   R   S    R   R   R   F   F   R   R   R
    ssk     S   S   R   S    R   S   R   R   R   S   R   R
    sff     F   S   R   S    R   R   R   F   F   R   R   R
    sfk     F   S   R   S    R   R   R   F   F   S   R   R
    skk     S   S   R   S    R   S   R   R   R   S   R   R
    fff     F   R   R   S    F   R   R   F   F   R   F   R
    ffk     F   S   R   S    F   R   R   F   F   S   F   R
    fkk     F   S   R   S    F   R   R   F   F   S   F   R
    kkk     S   S   R   R    S   S   S   R   S   S   S   R
"""
# fmt: on
"""One line for each way in which up to three upstreams stand, one column for each rule: wait, Run, Skip, skip as Failed."""

COLUMNS = (
    "all_success",
    "all_failed",
    "all_done",
    "all_skipped",
    "one_success",
    "one_failed",
    "one_done",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "all_done_min_one_success",
    "always",
)


def truth() -> dict[tuple[str, str], Verdict]:
    """The table, by rule and by how its upstreams stand."""
    found: dict[tuple[str, str], Verdict] = {}
    for line in TRUTH.strip().splitlines():
        standing, *cells = line.split()
        if len(cells) == len(COLUMNS):
            for rule, cell in zip(COLUMNS, cells):
                found[rule, standing.replace("none", "")] = LETTERS[cell]
    return found


def said(rule: str, standing: str) -> Verdict:
    """The engine's verdict."""
    return decide(TriggerRule(rule), [standing.count(letter) for letter in ENDED], standing.count(PENDING))


def standings(upstreams: int) -> Iterator[str]:
    """All ways in which so many upstreams may stand, pending ones first."""
    yield from sorted(
        {"".join(sorted(found, key=(PENDING + ENDED).index)) for found in product(PENDING + ENDED, repeat=upstreams)}
    )


def test_the_table_is_whole() -> None:
    """Every rule that there is, and every way in which up to three upstreams may stand."""
    assert set(COLUMNS) == {rule.value for rule in TriggerRule} == {rule.value for rule in RULES}
    assert set(truth()) == {(rule, standing) for rule in COLUMNS for upstreams in range(4) for standing in standings(upstreams)}
    assert len(truth()) == 12 * (1 + 4 + 10 + 20)


@pytest.mark.parametrize("rule", COLUMNS)
def test_a_rule_says_what_its_table_says(rule: str) -> None:
    wanted = {standing: verdict for (of, standing), verdict in truth().items() if of == rule}
    assert {standing: said(rule, standing) for standing in wanted} == wanted


@pytest.mark.parametrize("rule", COLUMNS)
def test_the_verdict_does_not_depend_on_the_order_in_which_upstreams_end(rule: str) -> None:
    """And once there is one, none that comes later says otherwise: what was begun or skipped is not taken back."""
    for ends in product(ENDED, repeat=4):
        wanted = said(rule, "".join(ends))
        assert wanted is not Verdict.WAIT
        for order in permutations(ends):
            verdicts = [said(rule, "".join(order[:ended]) + PENDING * (4 - ended)) for ended in range(5)]
            assert set(verdicts) <= {Verdict.WAIT, wanted}
            assert verdicts == sorted(verdicts, key=lambda verdict: verdict is not Verdict.WAIT)


@pytest.mark.parametrize("rule", COLUMNS)
def test_a_rule_is_early_if_it_may_begin_before_all_have_ended(rule: str) -> None:
    begins = any(verdict is Verdict.RUN for (of, standing), verdict in truth().items() if of == rule and PENDING in standing)
    assert RULES[TriggerRule(rule)].is_early is begins


@pytest.mark.parametrize("rule", COLUMNS)
def test_no_other_ends_make_a_difference_than_whether_there_are_any(rule: str) -> None:
    """Four thousand upstreams are decided like four."""
    for standing in standings(4):
        assert said(rule, standing) is said(rule, standing * 1000)


@pytest.mark.parametrize("rule", COLUMNS)
async def test_a_rule_may_be_given_as_its_string(rule: str) -> None:
    """A task without upstreams runs under each of them."""
    for given in (rule, TriggerRule(rule)):
        flow = AsyncFlow("flow")
        flow.add_task_definition("only", returns(rule), trigger_rule=given)
        run = await flow.run_until_complete(flow.init_run())
        assert run.tasks["only"].output == rule


@pytest.mark.parametrize("given", ["all_succes", "ALL_DONE", "dummy", "", None, 1, True])
def test_what_is_no_rule_is_refused_by_name(given: object) -> None:
    flow = AsyncFlow("flow")
    with pytest.raises(InvalidOptionError, match="none_failed_min_one_success") as caught:
        flow.add_task_definition("only", returns(1), trigger_rule=given)  # type: ignore[arg-type]
    assert (caught.value.option, caught.value.value) == ("trigger_rule", given)
    assert "'only'" in str(caught.value)
    assert not flow.has_task("only")
