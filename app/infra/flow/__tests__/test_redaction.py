"""Secrets in users' texts: what the flow's `redact` sees, where its answer shows, and what happens when it breaks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from .. import AsyncFlow, Context, FlowBuilder, InvalidOptionError, RunFailedError, Store, TaskFailed, TaskRetryScheduled
from ..models import Failure
from ..redaction import FAILED, MAX_MESSAGE, MAX_TRACEBACK, kept_failure, redacted, redacted_tree
from .conftest import events_of, outputs_of, returns, run

SECRET = "hunter2"


def hide(text: str) -> str:
    return text.replace(SECRET, "***")


def broken(text: str) -> str:
    raise ValueError(f"cannot redact {text}")


def leaving(text: str) -> NoReturn:
    raise SystemExit(text)


def answers(answer: object) -> Callable[[str], Any]:
    return lambda text: answer


# --- texts ---


def test_hooks_work_one_after_the_other() -> None:
    assert redacted("a", [lambda text: text + "b", lambda text: text + "c"]) == "abc"
    assert redacted("a", []) == "a"


@pytest.mark.parametrize(
    "hook", [broken, leaving, answers(None), answers(b"bytes"), answers(7)], ids=["raises", "exits", "none", "bytes", "number"]
)
def test_a_hook_that_raises_or_gives_no_text_leaves_nothing_of_it(hook: Callable[[str], str]) -> None:
    assert redacted(SECRET, [hook]) == FAILED == "(redaction failed)"
    assert redacted(SECRET, [hook, hide]) == FAILED


def test_ctrl_c_inside_a_hook_still_stops_the_program() -> None:
    def interrupted(text: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        redacted("text", [interrupted])


class Markup(str):
    __slots__ = ()

    def __str__(self) -> str:
        return SECRET


def test_what_a_hook_gives_is_kept_as_bare_text_that_a_store_can_hold() -> None:
    given = redacted("text", [lambda text: Markup("caf\udce9")])
    assert (type(given), given) == (str, "caf\\udce9")


# --- failures ---


def test_a_long_failure_keeps_both_ends_of_its_texts() -> None:
    message, traceback = "m" + "x" * MAX_MESSAGE + "M", "t" + "y" * MAX_TRACEBACK + "T"
    kept = kept_failure(Failure("ValueError", message, traceback), [])
    for text, most, ends in ((kept.message, MAX_MESSAGE, "mM"), (kept.traceback, MAX_TRACEBACK, "tT")):
        assert (text[0], text[-1]) == tuple(ends)
        assert "... (2 characters left out) ..." in text
        assert len(text) < most + 100


def test_a_failure_of_usual_length_is_kept_whole() -> None:
    failure = Failure("ValueError", "m" * MAX_MESSAGE, "t" * MAX_TRACEBACK)
    assert kept_failure(failure, []) == failure


def test_a_secret_that_the_cut_would_run_through_is_taken_out_first() -> None:
    half = MAX_MESSAGE // 2
    message = "x" * (half - 3) + SECRET + "x" * half
    kept = kept_failure(Failure("ValueError", message, ""), [hide])
    assert SECRET[:3] not in kept.message


# --- stored values as data ---


@pytest.mark.parametrize(
    ("tree", "shown"),
    [
        (SECRET, "***"),
        (None, None),
        (7, 7),
        ({"password": SECRET, SECRET: [SECRET, {"deep": [[SECRET]]}]}, {"password": "***", "***": ["***", {"deep": [["***"]]}]}),
        ({"$": "tuple", "v": [SECRET, 1]}, {"$": "tuple", "v": ["***", 1]}),
        ({"$": "dict", "v": [[SECRET, {"$": "set", "v": [SECRET]}]]}, {"$": "dict", "v": [["***", {"$": "set", "v": ["***"]}]]}),
    ],
)
def test_every_text_in_a_value_is_redacted_and_its_shape_stays(tree: Any, shown: Any) -> None:
    assert redacted_tree(tree, [hide]) == shown


def test_keys_that_become_one_by_redaction_lose_none_of_their_values() -> None:
    assert redacted_tree({"a": 1, "b": 2, "c": 3}, [lambda text: "***"]) == {"***": 1, "***'": 2, "***''": 3}


def test_a_tag_stays_one_though_the_hook_answers_with_the_same_text_to_everything() -> None:
    assert redacted_tree({"$": "Path", "v": "/home"}, [lambda text: "***"]) == {"$": "Path", "v": "***"}


def test_a_deep_value_is_redacted_without_recursion() -> None:
    tree: Any = SECRET
    for _ in range(10_000):
        tree = [tree]
    shown = redacted_tree(tree, [hide])
    while isinstance(shown, list):
        shown = shown.pop()
    assert shown == "***"


# --- in a run ---


def leaky(ctx: Context) -> None:
    ctx.log(f"logging in with {ctx.params['password']}")
    raise ValueError(f"{ctx.params['password']} was refused")


def everything_kept(flow: AsyncFlow, store: Store, run_id: str) -> str:
    """All that a person gets to see of failures and logs."""
    stored = store.load(run_id)
    shown: list[object] = [list(store.list_attempts(run_id)), flow.get_execution_details(run_id)]
    for task in stored.get_all_tasks_recursive(store).values():
        shown += [task.error, task.reason, task.logs]
    return repr(shown)


async def test_a_secret_shows_in_nothing_that_is_kept_or_told_of_a_failure(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    flow = AsyncFlow("flow", store, redact=hide)
    flow.add_task_definition("leaky", leaky, max_retries=1)
    told = events_of(flow)
    with caplog.at_level(logging.INFO, logger="night_batch"):
        done = await run(flow, {"password": SECRET})
    assert done.tasks["leaky"].reason == "ValueError: *** was refused"
    assert "ValueError: *** was refused" in (done.tasks["leaky"].error or "")
    assert [entry.message for entry in done.tasks["leaky"].logs] == ["logging in with ***"]
    assert [record.getMessage() for record in caplog.records] == ["logging in with ***"] * 2
    assert [event.reason for event in told if isinstance(event, (TaskFailed, TaskRetryScheduled))] == [
        "ValueError: *** was refused",
        "ValueError: *** was refused",
    ]
    with pytest.raises(RunFailedError) as caught:
        done.raise_for_failure()
    for text in (everything_kept(flow, store, done.id), str(caught.value), repr(told), caplog.text):
        assert SECRET not in text
        assert "***" in text


async def test_what_tasks_work_with_is_not_redacted(store: Store) -> None:
    flow = AsyncFlow("flow", store, redact=hide)
    flow.add_task_definition("a", lambda ctx: ctx.params["password"])
    flow.add_task_definition("b", lambda ctx: ctx.pull("a"), dependencies=["a"])
    done = await run(flow, {"password": SECRET})
    assert outputs_of(done) == {"a": SECRET, "b": SECRET}
    details = flow.get_execution_details(done.id)
    assert details["params"] == {"password": "***"}
    assert [task["output"] for task in details["tasks"].values()] == ["***", "***"]


async def test_a_hook_that_is_younger_than_a_run_holds_for_what_is_shown_of_it(store: Store) -> None:
    before = AsyncFlow("flow", store).add_task_definition("leaky", leaky)
    done = await run(before, {"password": SECRET})
    after = AsyncFlow("flow", store, redact=hide).add_task_definition("leaky", leaky)
    (told,) = after.get_execution_details(done.id)["tasks"].values()
    (attempt,) = told["attempts"]
    for text in (told["error"], told["reason"], attempt["error"], attempt["reason"], attempt["logs"][0]["message"]):
        assert SECRET not in text
        assert "***" in text


@pytest.mark.parametrize("hook", [broken, leaving, answers(None)], ids=["raises", "exits", "gives none"])
async def test_a_hook_that_breaks_harms_no_run_and_lets_nothing_through(store: Store, hook: Callable[[str], str]) -> None:
    flow = AsyncFlow("flow", store, redact=hook)
    flow.add_task_definition("leaky", leaky)
    flow.add_task_definition("talks", lambda ctx: ctx.log(SECRET))
    done = await run(flow, {"password": SECRET})
    assert (done.tasks["leaky"].state, done.tasks["talks"].state) == ("failed", "success")
    assert done.tasks["leaky"].error == FAILED
    assert [entry.message for entry in done.tasks["talks"].logs] == [FAILED]
    text = everything_kept(flow, store, done.id)
    assert SECRET not in text
    assert FAILED in text


# --- subflows ---


def nested(store: Store, own: Callable[[str], str] | None) -> AsyncFlow:
    inner = AsyncFlow("inner", redact=own).add_task_definition("leaky", leaky)
    middle = AsyncFlow("middle").add_subflow_definition("inner", inner)
    return AsyncFlow("flow", store, redact=hide).add_subflow_definition("middle", middle)


@pytest.mark.parametrize("own", [None, lambda text: text.replace("refused", "R")], ids=["no hook", "a hook"])
async def test_the_outer_flows_hook_holds_for_nested_flows_beside_their_own(store: Store, own: Any) -> None:
    flow = nested(store, own)
    done = await run(flow, {"password": SECRET})
    task = done.get_all_tasks_recursive(store)["middle.inner.leaky"]
    assert task.reason == f"ValueError: *** was {'R' if own else 'refused'}"
    assert (task.reason or "none") in (done.tasks["middle"].reason or "")
    assert SECRET not in everything_kept(flow, store, done.id)
    assert json.dumps(flow.get_execution_details(done.id))


async def test_it_holds_for_a_subflow_that_is_taken_up_again_in_another_process(store: Store) -> None:
    done = await run(nested(store, None), {"password": SECRET})
    again = nested(store, None)
    await again.retry(done.id, "middle.inner.leaky")
    assert len(store.list_attempts(done.tasks["middle"].child_run_id or "")) == 2
    assert SECRET not in everything_kept(again, store, done.id)


async def test_a_nested_flows_hook_is_not_the_outer_flows(store: Store) -> None:
    inner = AsyncFlow("inner", redact=hide).add_task_definition("quiet", returns(1))
    flow = AsyncFlow("flow", store).add_subflow_definition("sub", inner).add_task_definition("leaky", leaky)
    done = await run(flow, {"password": SECRET})
    assert done.tasks["leaky"].reason == f"ValueError: {SECRET} was refused"


async def test_params_that_make_no_subflow_leak_nothing_into_its_failure(store: Store) -> None:
    child = AsyncFlow("child").add_task_definition("leaf", returns(1))
    flow = AsyncFlow("flow", store, redact=hide)
    flow.add_subflow_definition("sub", child, params={SECRET: object()})
    done = await run(flow)
    assert "params" in (done.tasks["sub"].reason or "")
    assert SECRET not in everything_kept(flow, store, done.id)


# --- declaring it ---


async def anyhow(text: str) -> str:
    return text


@pytest.mark.parametrize("hook", ["***", 7, anyhow])
def test_what_is_no_plain_function_is_refused_as_a_hook(hook: Any) -> None:
    with pytest.raises(InvalidOptionError, match="^redact="):
        AsyncFlow("flow", redact=hook)


async def test_the_builder_takes_a_hook_too(store: Store) -> None:
    flow = FlowBuilder("flow", store, redact=hide).add_task("leaky", leaky).build()
    done = await run(flow, {"password": SECRET})
    assert done.tasks["leaky"].reason == "ValueError: *** was refused"
