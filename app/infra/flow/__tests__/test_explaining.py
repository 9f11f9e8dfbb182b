"""Explanations: what is said of tasks that wait, run, ended, were skipped or retried, in every store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .. import (
    AsyncFlow,
    Context,
    Explanation,
    InvalidNameError,
    NonRetryableError,
    RetryPolicy,
    RunMismatchError,
    RunNotFoundError,
    SkipTask,
    Store,
    TriggerRule,
    UnknownTaskError,
)
from .attempts import until
from .conftest import FakeClock, fails, flaky, returns
from .held_clock import HeldClock
from .test_planning import drive

NOW = "2023-11-14 22:13:20 UTC"
"""When the clocks of these tests begin."""


def told(flow: AsyncFlow, task_id: str, run_id: str = "run") -> list[str]:
    return list(flow.explain(run_id, task_id).sentences)


async def ended(flow: AsyncFlow, **options: Any) -> AsyncFlow:
    """The flow, with a run of it that was driven to its end."""
    await flow.run_until_complete(flow.init_run(run_id="run"), **options)
    return flow


# --- waiting -------------------------------------------------------------------------------------------------------------


async def test_a_task_that_waits_names_what_it_waits_for_and_what_that_comes_down_to(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("first", returns(1))
    flow.add_task_definition("second", returns(1), dependencies=["first"])
    flow.add_task_definition("third", returns(1), dependencies=["second"])
    flow.init_run(run_id="run")
    explanation = flow.explain("run", "third")
    assert explanation == Explanation(
        "run",
        "third",
        "scheduled",  # type: ignore[arg-type]
        (
            "'third' waits for 'second', which has not ended.",
            "Its trigger rule all_success asks that all its upstreams succeed.",
            "What it comes down to: 'first' has not begun.",
            "Nobody has begun the run. Call run_until_complete('run') to go on.",
        ),
    )
    assert str(explanation) == "\n".join(explanation.sentences)
    assert repr(explanation) == "<Explanation of task 'third' of run 'run', scheduled, 4 sentences>"


def test_of_many_upstreams_a_few_are_named(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock)
    for number in range(102):
        flow.add_task_definition(f"t{number}", returns(1))
    flow.add_task_definition("all", returns(1), dependencies=[f"t{number}" for number in range(102)])
    flow.init_run(run_id="run")
    waits, _, down_to, _ = told(flow, "all")
    assert waits == "'all' waits for 't0', 't1', 't2', 't3', 't4' and 97 more, which have not ended."
    assert down_to.endswith("'t4' has not begun; and others.")


async def test_while_the_run_is_driven_it_says_by_whom_and_what_is_under_way(store: Store) -> None:
    clock, gate = HeldClock(), asyncio.Event()
    flow = AsyncFlow("flow", store, clock=clock)

    @flow.task
    async def slow(ctx: Context) -> None:
        await gate.wait()

    flow.add_task_definition("after", returns(1), dependencies=[slow])
    flow.add_task_definition("beside", returns(1), pool=None)
    flow.init_run(run_id="run")
    driving = asyncio.create_task(flow.run_until_complete("run", max_concurrency=1))
    await until(lambda: store.load("run").tasks["slow"].state == "running")
    await clock.forward(200)
    assert told(flow, "slow") == [f"'slow' is running since {NOW} (for 3 min 20 s)."]
    assert told(flow, "after") == [
        "'after' waits for 'slow', which has not ended.",
        "Its trigger rule all_success asks that all its upstreams succeed.",
        f"What it comes down to: 'slow' is running since {NOW} (for 3 min 20 s).",
        "The run is driven by this very process.",
    ]
    assert told(flow, "beside") == [
        "'beside' is ready (it waits for no other task) and waits for a free slot: of max_concurrency or its executor.",
        "The run is driven by this very process.",
    ]
    gate.set()
    await driving


async def test_a_task_that_waits_for_its_next_attempt_says_when_it_is_due_and_why(store: Store) -> None:
    clock = HeldClock()
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", flaky(2), max_retries=2, retry_delay=30)
    flow.init_run(run_id="run")
    driving = asyncio.create_task(flow.run_until_complete("run"))
    await until(lambda: store.load("run").tasks["a"].next_attempt_at)
    await clock.forward(10)
    assert told(flow, "a") == [
        "'a' waits for its next attempt, which is due at 2023-11-14 22:13:50 UTC (in 20 s), since the last one failed: "
        "ValueError: failure 1.",
        "The run is driven by this very process.",
        f"Attempt 1, begun at {NOW}, failed after 0 ms: ValueError: failure 1.",
    ]
    await clock.forward(60)
    await driving
    assert told(flow, "a") == [
        "'a' succeeded at 2023-11-14 22:14:20 UTC after 3 attempts, in 0 ms.",
        f"Attempt 1, begun at {NOW}, failed after 0 ms: ValueError: failure 1.",
        "Attempt 2, begun at 2023-11-14 22:13:50 UTC (30 s after the one before), failed after 0 ms: ValueError: failure 2.",
        "Attempt 3, begun at 2023-11-14 22:14:20 UTC (30 s after the one before), succeeded after 0 ms.",
    ]


async def test_what_a_dead_process_had_under_way_was_cut_off_and_it_says_what_to_call(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", returns(1))
    flow.add_task_definition("b", returns(1), on_interrupt="fail").add_task_definition("c", returns(1), dependencies=["a"])
    await drive(store, flow, 3)
    go_on = "Nobody drives the run: whoever did is gone. Call run_until_complete('run') to go on."
    assert told(flow, "a") == [
        f"'a' began at {NOW}, and was cut off: whoever drove the run is gone.",
        "It runs again when the run goes on.",
        go_on,
    ]
    assert told(flow, "b")[1] == (
        "It will not run again, but fail when the run goes on: its process died or lost the run while it ran, and "
        'on_interrupt="fail" forbids to run it again by itself.'
    )
    assert told(flow, "c")[-1] == go_on
    flow.add_task_definition("d", returns(1))
    assert told(flow, "a")[-1] == (
        "Nobody drives the run: whoever did is gone. Call run_until_complete('run', adopt_graph=True) to go on; the graph of the "
        "flow has changed since."
    )
    assert told(flow, "d") == [
        "Run 'run' has no task 'd': the flow 'flow' got it after the run was made.",
        "run_until_complete('run', adopt_graph=True) adds it.",
    ]
    assert flow.explain("run", "d").state == "none"


async def test_a_run_that_was_stopped_is_called_interrupted(store: Store) -> None:
    clock = HeldClock()
    flow = AsyncFlow("flow", store, clock=clock)

    @flow.task
    async def slow(ctx: Context) -> None:
        await asyncio.Event().wait()

    flow.init_run(run_id="run")
    driving = asyncio.create_task(flow.run_until_complete("run"))
    await until(lambda: store.load("run").tasks["slow"].state == "running")
    driving.cancel()
    await asyncio.wait([driving])
    assert told(flow, "slow") == [
        "'slow' has not begun, though it is ready: it waits for no other task.",
        "Nobody drives the run: it was interrupted, or set back. Call run_until_complete('run') to go on.",
        f"Attempt 1, begun at {NOW}, was interrupted after 0 ms: interrupted before it ended.",
    ]


# --- skipped -------------------------------------------------------------------------------------------------------------


async def test_a_task_that_was_skipped_leads_up_to_the_one_that_is_the_cause(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("x", fails("bad row"))
    flow.add_task_definition("y", returns(1), dependencies=["x"]).add_task_definition("z", returns(1), dependencies=["y"])
    await ended(flow)
    assert told(flow, "z") == [
        f"'z' was skipped at {NOW}: its trigger rule all_success asks that all its upstreams succeed, and 'y' was skipped "
        "because of a failure, which counts as failed.",
        "The cause: 'x' failed (RuntimeError: bad row), so 'y' was skipped, so 'z' was skipped.",
        "flow.retry('run', 'z') runs it, if what is upstream lets it.",
    ]


async def test_the_way_to_a_cause_far_up_is_shortened(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("t0", fails())
    for number in range(1, 2000):
        flow.add_task_definition(f"t{number}", returns(1), dependencies=[f"t{number - 1}"])
    await ended(flow)
    assert told(flow, "t1999")[1] == (
        "The cause: 't0' failed (RuntimeError: boom), so 't1' was skipped, so 't2' was skipped, ... (1994 more) ..., "
        "so 't1997' was skipped, so 't1998' was skipped, so 't1999' was skipped."
    )


@pytest.mark.parametrize(
    ("rule", "upstreams", "why"),
    [
        ("all_failed", "sf", "that all its upstreams fail, and 'u0' succeeded"),
        ("all_skipped", "kf", "that all its upstreams are skipped, and 'u1' failed"),
        ("one_success", "fk", "that at least one upstream succeeds, and 'u0' failed"),
        ("one_failed", "sk", "that at least one upstream fails, and 'u1' was skipped"),
        ("one_done", "kk", "that at least one upstream succeeds or fails, and 'u0' was skipped; 'u1' was skipped"),
        ("none_failed", "sf", "that no upstream fails, and 'u1' failed"),
        (
            "none_failed_min_one_success",
            "kk",
            "that no upstream fails and at least one succeeds, and 'u0' was skipped; 'u1' was skipped",
        ),
        ("none_skipped", "sk", "that no upstream is skipped, and 'u1' was skipped"),
        (
            "all_done_min_one_success",
            "ff",
            "that all its upstreams have ended and at least one succeeded, and 'u0' failed; 'u1' failed",
        ),
    ],
)
async def test_the_verdict_of_a_trigger_rule_is_spelled_out(clock: FakeClock, rule: str, upstreams: str, why: str) -> None:
    flow = AsyncFlow("flow", clock=clock).add_task_definition("branch", returns(None), branch=True)
    for number, letter in enumerate(upstreams):
        after = {"s": [], "f": [], "k": ["branch"]}[letter]
        flow.add_task_definition(f"u{number}", fails() if letter == "f" else returns(1), dependencies=after)
    flow.add_task_definition("task", returns(1), trigger_rule=rule, dependencies=[f"u{at}" for at in range(len(upstreams))])
    await ended(flow)
    assert told(flow, "task")[0] == f"'task' was skipped at {NOW}: its trigger rule {rule} asks {why}."


def test_every_trigger_rule_has_words() -> None:
    flow = AsyncFlow("flow").add_task_definition("a", returns(1))
    for rule in TriggerRule:
        flow.add_task_definition(rule.value, returns(1), trigger_rule=rule, dependencies=["a"])
    flow.init_run(run_id="run")
    for rule in TriggerRule:
        if rule is TriggerRule.ALWAYS:
            assert told(flow, rule.value)[0] == "'always' has not begun, though it is ready: nothing upstream keeps it."
        else:
            assert told(flow, rule.value)[1].startswith(f"Its trigger rule {rule} asks that ")


async def test_a_task_that_a_branch_did_not_choose_says_what_it_chose(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("decide", returns(["yes"]), branch=True)
    flow.add_task_definition("yes", returns(1), dependencies=["decide"])
    flow.add_task_definition("no", returns(1), dependencies=["decide"])
    flow.add_task_definition("after no", returns(1), dependencies=["no"])
    flow.init_run(run_id="run")
    assert told(flow, "no")[2] == "'decide' is a branch and has yet to choose."
    await flow.run_until_complete("run")
    assert told(flow, "no")[0] == f"'no' was skipped at {NOW}: branch 'decide' did not choose it; it chose 'yes'."
    assert told(flow, "decide")[1] == "It is a branch, and chose 'yes'."
    assert told(flow, "after no")[1] == (
        "The cause: 'no' was skipped (branch 'decide' did not choose it), so 'after no' was skipped."
    )


async def test_a_task_that_said_itself_that_it_need_not_run_says_why(store: Store, clock: FakeClock) -> None:
    async def nothing_new(ctx: Context) -> None:
        if ctx.attempt_number == 0:
            raise ValueError("at first")
        raise SkipTask("nothing new")

    def on_sundays(ctx: Context) -> bool:
        return False

    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("fetch", nothing_new, max_retries=1)
    flow.add_task_definition("load", returns(1), dependencies=["fetch"])
    flow.add_task_definition("clean", returns(1), run_if=on_sundays)
    await ended(flow)
    assert told(flow, "fetch") == [
        f"'fetch' was skipped at {NOW} by its own word: nothing new.",
        f"Attempt 1, begun at {NOW}, failed after 0 ms: ValueError: at first.",
        f"Attempt 2, begun at {NOW}, was skipped after 0 ms: nothing new.",
        "flow.retry('run', 'fetch') runs it, if what is upstream lets it.",
    ]
    assert told(flow, "load")[:2] == [
        f"'load' was skipped at {NOW}: its trigger rule all_success asks that all its upstreams succeed, "
        "and 'fetch' was skipped.",
        "The cause: 'fetch' was skipped (nothing new), so 'load' was skipped.",
    ]
    first = told(flow, "clean")[0]
    assert first.startswith(f"'clean' was skipped at {NOW} by its own word: run_if (")
    assert first.endswith("on_sundays) said no.")


async def test_a_task_that_the_flow_lost_says_so(store: Store, clock: FakeClock) -> None:
    old = AsyncFlow("flow", store, clock=clock).add_task_definition("a", fails()).add_task_definition("b", returns(1))
    old.add_task_definition("c", returns(1), dependencies=["b"])
    await drive(store, old, 3)
    new = AsyncFlow("flow", store, clock=clock).add_task_definition("a", fails())
    await new.run_until_complete("run", adopt_graph=True)
    assert told(new, "c")[0] == f"'c' was skipped at {NOW}: the flow's graph no longer has it."


async def test_what_stays_skipped_though_its_upstream_was_mended_says_so(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", flaky(1))
    flow.add_task_definition("b", returns(1), dependencies=["a"])
    await ended(flow)
    await flow.retry("run", "a", reset_downstream=False)
    assert told(flow, "b")[:2] == [
        f"'b' was skipped at {NOW}: upstream task 'a' failed.",
        "What is upstream has changed since; it stays skipped until somebody retries it.",
    ]
    flow.manual_retry("run", "b")
    assert told(flow, "b")[0] == "'b' has not begun, though it is ready: nothing upstream keeps it."


async def test_a_task_that_will_be_skipped_says_so_before_it_is(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", fails())
    flow.add_task_definition("b", returns(1), dependencies=["a"])
    await ended(flow)
    flow.manual_retry("run", "b")
    assert told(flow, "b")[0] == (
        "'b' has not run, and will be skipped when the run goes on: its trigger rule all_success asks that all its upstreams "
        "succeed, and 'a' failed."
    )


# --- failed, cancelled ---------------------------------------------------------------------------------------------------


async def raises_non_retryable(ctx: Context) -> None:
    raise NonRetryableError("no such account")


@pytest.mark.parametrize(
    ("function", "policy", "said"),
    [
        (fails(), RetryPolicy(), "It had no retries (max_retries=0)."),
        (fails(), RetryPolicy(2), "Its retries are used up: 3 attempts failed (max_retries=2)."),
        (
            raises_non_retryable,
            RetryPolicy(1),
            "It was not tried again, though 1 of 1 retries was left: {error} says that no attempt can help.",
        ),
        (
            fails(),
            RetryPolicy(3, give_up_on=RuntimeError),
            "It was not tried again, though 3 of 3 retries were left: its retry policy gives up on RuntimeError.",
        ),
        (
            fails(),
            RetryPolicy(3, retry_on=OSError),
            "It was not tried again, though 3 of 3 retries were left: its retry policy (retry_on, give_up_on) does not try "
            "again after a RuntimeError.",
        ),
    ],
)
async def test_a_task_that_failed_says_what_became_of_its_retries(
    store: Store, clock: FakeClock, function: Any, policy: RetryPolicy, said: str
) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", function, retry=policy)
    await ended(flow)
    first, second, *_, last = told(flow, "a")
    assert first.startswith(f"'a' failed at {NOW}: ")
    assert second == said.format(error=f"{NonRetryableError.__module__}.NonRetryableError")
    assert last == "flow.retry('run', 'a') runs it again, with everything downstream."


async def test_a_task_that_was_interrupted_too_often_says_so(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", returns(1), max_interruptions=1)
    await drive(store, flow, 3)
    await flow.run_until_complete("run")
    assert told(flow, "a")[:2] == [
        f"'a' failed at {NOW}: TaskInterrupted: its process died or lost the run once while it ran (max_interruptions=1).",
        "That is no error of an attempt: it was cut off, and may not run again by itself.",
    ]


async def test_a_task_that_was_cancelled_says_whether_by_itself_or_with_its_run(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", returns(1)).add_task_definition("b", returns(1))
    flow.init_run(run_id="run")
    flow.cancel_task("run", "a")
    flow.cancel("run")
    assert told(flow, "a")[0] == f"'a' was cancelled at {NOW}, before it began: it was cancelled."
    assert told(flow, "b")[0] == f"'b' was cancelled at {NOW}, before it began: its run was cancelled."


async def test_of_many_attempts_the_first_and_the_last_are_told(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", fails(), max_retries=99)
    await ended(flow)
    sentences = told(flow, "a")
    assert sum(sentence.startswith("Attempt ") for sentence in sentences) == 10
    assert "(90 more are left out here: store.list_attempts(...) has them.)" in sentences
    assert sentences[-2].startswith("Attempt 100, ")


async def test_attempts_from_before_a_manual_retry_are_told_apart(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", flaky(1))
    await ended(flow)
    flow.manual_retry("run", "a")
    assert told(flow, "a")[-1] == "After that the task was set back, and begins anew."
    await flow.run_until_complete("run")
    assert told(flow, "a") == [
        f"'a' succeeded at {NOW} at its first attempt since it was set back, in 0 ms.",
        f"Attempt 1, begun at {NOW}, failed after 0 ms: ValueError: failure 1.",
        f"Attempt 2, begun at {NOW} after the task was set back, succeeded after 0 ms.",
    ]


# --- subflows and maps ---------------------------------------------------------------------------------------------------


async def test_a_subflow_says_what_became_of_its_own_run_and_its_tasks_are_explained_too(store: Store, clock: FakeClock) -> None:
    inner = AsyncFlow("inner").add_task_definition("a", fails("bad row")).add_task_definition("b", returns(1))
    inner.add_task_definition("c", returns(1), dependencies=["a"])
    flow = AsyncFlow("outer", store, clock=clock, make_id=iter(["child"]).__next__).add_task_definition("first", returns(1))
    flow.add_subflow_definition("sub", inner, dependencies=["first"])
    flow.init_run(run_id="run")
    assert told(flow, "sub.c")[:2] == [
        "'sub.c' does not exist yet: the subflow 'sub' that it is part of has not begun.",
        "'sub' waits for 'first', which has not ended.",
    ]
    assert flow.explain("run", "sub.c").state == "none"
    await flow.run_until_complete("run")
    assert told(flow, "sub") == [
        f"'sub' failed at {NOW}: SubflowFailed: sub.a: RuntimeError: bad row.",
        "It had no retries (max_retries=0).",
        "Its own run 'child' failed.",
        "Of the 3 tasks in it, 1 succeeded, 1 failed (a: RuntimeError: bad row), 1 skipped.",
        "flow.retry('run', 'sub') runs it again, with everything downstream.",
    ]
    assert told(flow, "sub.c") == [
        "The subflow 'sub' around it failed (SubflowFailed: sub.a: RuntimeError: bad row).",
        f"'sub.c' was skipped at {NOW}: its trigger rule all_success asks that all its upstreams succeed, and 'a' failed.",
        "The cause: 'sub.a' failed (RuntimeError: bad row), so 'sub.c' was skipped.",
        "flow.retry('run', 'sub.c') runs it, if what is upstream lets it.",
    ]
    inside = AsyncFlow("inner", store, clock=clock).add_task_definition("a", returns(1))
    assert told(inside, "a", "child")[0] == f"'a' failed at {NOW}: RuntimeError: bad row."


async def parse(ctx: Context) -> int:
    if ctx.item == 1:
        raise ValueError("bad row")
    return int(ctx.item)


async def test_a_map_counts_its_items_and_each_is_explained(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("rows", returns([0, 1, 2]))
    flow.add_task_definition("parse", parse, map_over="rows")
    flow.add_task_definition("stream", parse, map_over="parse")
    flow.add_task_definition("after", returns(1), dependencies=["stream"])
    flow.init_run(run_id="run")
    assert told(flow, "parse")[:3] == [
        "'parse' waits for 'rows', which has not ended.",
        "It is mapped over the output of 'rows': its items are made when that has its list.",
        "What it comes down to: 'rows' has not begun.",
    ]
    assert told(flow, "parse[1]")[:2] == [
        "Whether there is a 'parse[1]' is not known yet: 'parse' has no list of items so far.",
        "'parse' waits for 'rows', which has not ended.",
    ]
    await flow.run_until_complete("run")
    assert told(flow, "parse")[:2] == [
        f"'parse' failed at {NOW}: 1 of 3 items failed: parse[1]: ValueError: bad row.",
        "Of its 3 items, 2 succeeded, 1 failed (parse[1]: ValueError: bad row).",
    ]
    assert told(flow, "parse[1]")[0] == f"'parse[1]' failed at {NOW}: ValueError: bad row."
    assert told(flow, "parse[0]") == [f"'parse[0]' succeeded at {NOW} at its first attempt, in 0 ms."]
    assert told(flow, "stream[1]")[:2] == [
        f"'stream[1]' was skipped at {NOW}: its trigger rule all_success asks that all its upstreams succeed, and 'parse[1]' "
        "failed.",
        "The cause: 'parse[1]' failed (ValueError: bad row), so 'stream[1]' was skipped.",
    ]
    assert "The cause: 'stream' failed" in told(flow, "after")[1]
    with pytest.raises(UnknownTaskError, match=r"no task 'parse\[7\]'. Did you mean 'parse\[2\]'|'parse\[0\]'"):
        flow.explain("run", "parse[7]")


async def test_a_map_over_nothing_that_could_be_mapped_over_says_which_task_gave_no_list(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("rows", fails())
    flow.add_task_definition("parse", parse, map_over="rows")
    await ended(flow)
    assert told(flow, "parse")[:2] == [
        f"'parse' was skipped at {NOW}: it is mapped over 'rows', which gave no list, since it failed.",
        "The cause: 'rows' failed (RuntimeError: boom), so 'parse' was skipped.",
    ]


async def test_a_task_in_the_run_of_an_item_is_reached_by_its_path(store: Store, clock: FakeClock) -> None:
    inner = AsyncFlow("inner").add_task_definition("a", fails())
    flow = AsyncFlow("outer", store, clock=clock).add_task_definition("rows", returns(["x.y", "z"]))
    flow.add_subflow_definition("sub", inner, map_over="rows", map_key=str)
    await ended(flow)
    assert told(flow, "sub[x.y].a")[1] == f"'sub[x.y].a' failed at {NOW}: RuntimeError: boom."
    assert told(flow, "sub[z]")[-2] == "Of the 1 task in it, 1 failed (a: RuntimeError: boom)."


# --- what is shown, and what is refused ----------------------------------------------------------------------------------


async def test_what_users_wrote_is_shown_without_secrets_line_breaks_and_escape_sequences(store: Store, clock: FakeClock) -> None:
    inner = AsyncFlow("inner").add_task_definition("a", fails("hunter2 \x1b[31m\nsecond line"))
    flow = AsyncFlow("flow", store, clock=clock).add_subflow_definition("sub", inner)
    await ended(flow)
    later = AsyncFlow("flow", store, clock=clock, redact=lambda text: text.replace("hunter2", "***"))
    later.add_subflow_definition("sub", inner)
    shown = str(later.explain("run", "sub.a"))
    assert "RuntimeError: *** \\x1b[31m" in shown
    assert "hunter2" not in shown + str(later.explain("run", "sub"))
    assert "\x1b" not in shown


async def test_nothing_is_written_and_nothing_taken_by_looking(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("a", fails())
    flow.init_run(run_id="run")
    lease = store.claim("run")

    def refused(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it was written")

    changed: Any = store
    changed.commit = changed.claim = changed.release = refused
    try:
        assert "driven by this very process" in str(flow.explain("run", "a"))
        assert flow.plan("run").owner == "this very process"
    finally:
        del changed.commit, changed.claim, changed.release
    store.release(lease)


def test_unknown_runs_and_tasks_are_refused_by_name(store: Store) -> None:
    inner = AsyncFlow("inner").add_task_definition("load", returns(1))
    flow = AsyncFlow("flow", store).add_task_definition("load", returns(1)).add_subflow_definition("sub", inner)
    flow.init_run(run_id="run")
    with pytest.raises(RunNotFoundError):
        flow.explain("unknown", "load")
    with pytest.raises(UnknownTaskError, match="Did you mean 'load'"):
        flow.explain("run", "laod")
    with pytest.raises(UnknownTaskError, match="Did you mean 'load'"):
        flow.explain("run", "sub.laod")
    with pytest.raises(UnknownTaskError, match="is no subflow"):
        flow.explain("run", "load.x")
    with pytest.raises(InvalidNameError):
        flow.explain("run", 7)  # type: ignore[arg-type]
    with pytest.raises(RunMismatchError):
        AsyncFlow("other", store).explain("run", "load")


async def test_a_map_that_waits_for_no_list_but_the_others_says_so(store: Store, clock: FakeClock) -> None:
    flow = AsyncFlow("flow", store, clock=clock).add_task_definition("rows", returns([1])).add_task_definition("ready", fails())
    flow.add_task_definition("parse", parse, map_over="rows", dependencies=["ready"])
    await ended(flow)
    assert told(flow, "parse")[0] == (
        f"'parse' was skipped at {NOW}: its trigger rule all_success asks that all its upstreams succeed, and 'ready' failed."
    )
