"""flow.run in a script: signals, threads, and what is left as it was found."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import Any

import pytest

from .. import AsyncFlow, Context, runner, scripts
from ..scripts import run_to_end
from .conftest import returns, states_of

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def stopping_itself(number: int) -> AsyncFlow:
    """A flow whose task sends its own process a signal, the first time."""
    sent = False
    flow = AsyncFlow("script")

    @flow.task
    async def only(ctx: Context) -> str:
        nonlocal sent
        if not sent:
            sent = True
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        return "done"

    return flow


@needs_signals
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_saves_the_run_and_the_same_call_goes_on(number: int, raised: type[BaseException]) -> None:
    flow = stopping_itself(number)
    before = signal.getsignal(number)
    with pytest.raises(raised) as caught:
        flow.run(run_id="nightly")
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 143
    assert signal.getsignal(number) == before, "the handlers are as they were"
    assert states_of(flow.store.load("nightly")) == {"only": "scheduled"}
    assert flow.run(run_id="nightly").tasks["only"].output_json == "done"


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    flow = AsyncFlow("script").add_task_definition("only", returns(1))
    states: list[str] = []
    thread = threading.Thread(target=lambda: states.append(flow.run().state.value))
    thread.start()
    thread.join(30)
    assert states == ["success"]


def test_where_the_loop_takes_no_signal_handlers_it_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", refuse)
    assert AsyncFlow("script").add_task_definition("only", returns(1)).run().state == "success"


def test_a_cancellation_that_no_signal_asked_for_is_passed_on() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_to_end(work, "script")


def test_an_error_comes_out_as_it_is() -> None:
    flow = AsyncFlow("script").add_task_definition("a", returns(1), dependencies=["missing"])
    with pytest.raises(ValueError, match="'missing'"):
        flow.run()


@needs_signals
def test_the_programs_own_handlers_are_there_again_afterwards() -> None:
    def mine(number: int, frame: Any) -> None: ...

    before = {number: signal.signal(number, mine) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        AsyncFlow("script").add_task_definition("only", returns(1)).run()
        assert [signal.getsignal(number) for number in before] == [mine, mine]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@needs_signals
def test_a_task_that_will_not_be_cancelled_does_not_keep_a_script_alive(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner, "GRACE", 0.05)
    monkeypatch.setattr(scripts, "LAST_CHANCE", 0.05)
    flow = AsyncFlow("script")
    released = False

    @flow.task
    async def deaf(ctx: Context) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while not released:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass

    with pytest.raises(SystemExit):
        flow.run(run_id="nightly")
    released = True
    assert states_of(flow.store.load("nightly")) == {"deaf": "scheduled"}
    assert "'script.deaf' does not end although it was cancelled" in caplog.text
