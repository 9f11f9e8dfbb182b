"""flow.run in a script: signals, threads, and what is left as it was found."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from typing import Any

import pytest

from .. import AsyncFlow, Context, scripts
from ..scripts import run_to_end
from .conftest import returns, states_of
from .processes import Programs, bodies, programs

__all__ = ["programs"]

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
    monkeypatch.setattr(scripts, "LAST_CHANCE", 0.05)
    flow = AsyncFlow("script", grace_period=0.05)
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


@needs_signals
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_that_comes_as_the_work_ends_stops_the_script_all_the_same(number: int, raised: type[BaseException]) -> None:
    """A script that goes on to its next flow would have to be told twice."""

    async def work() -> str:
        os.kill(os.getpid(), number)
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "it was the last thing to do"
        raise AssertionError

    with pytest.raises(raised):
        run_to_end(work, "script")


# --- real processes ---


@needs_signals
def test_sigterm_gives_the_run_back_and_the_next_process_goes_on(programs: Programs) -> None:
    program = programs.worker(hold=["t1"])
    assert program.ask("drive nightly") == "in t1"
    stopped = time.monotonic()
    program.signal(signal.SIGTERM)
    assert program.code() == 143
    assert time.monotonic() - stopped < 3, "it waits for no thread"
    with programs.store() as store:
        assert states_of(store.load("nightly")) == {"t0": "success", "t1": "scheduled", "t2": "scheduled"}
    assert programs.owner_files() == []
    assert programs.worker().ask("drive nightly") == "ended success"
    assert {task_id: len(times) for (_, task_id), times in bodies(programs.folder).items()} == {"t0": 1, "t1": 2, "t2": 1}
    with programs.store() as store:
        task = store.load("nightly").tasks["t1"]
        assert (task.crashes, task.interruptions) == (0, 1), "it was put back, and cost the budget nothing"


@needs_signals
def test_ctrl_c_while_a_thread_works_ends_the_script_soon(programs: Programs) -> None:
    program = programs.worker(hold=["t0"])
    assert program.ask("drive nightly") == "in t0"
    stopped = time.monotonic()
    program.signal(signal.SIGINT)
    code, errors = program.ended_with()
    assert time.monotonic() - stopped < 3
    assert code == -signal.SIGINT, "as a shell expects of a program that Ctrl-C has ended"
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert programs.worker().ask("drive nightly") == "ended success"


DEAF = """
flow = AsyncFlow("deaf", make_store())

@flow.task
async def deaf(ctx):
    say("in deaf")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            say("will not be cancelled")

flow.add_task_definition("t0", body)
flow.run(run_id="nightly")
"""


@needs_signals
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_second_signal_stops_the_process_at_once(number: signal.Signals, programs: Programs) -> None:
    program = programs.start(DEAF)
    program.expect("in deaf")
    program.signal(number)
    program.expect("will not be cancelled")
    stopped = time.monotonic()
    program.signal(number)
    assert program.code() == -number
    assert time.monotonic() - stopped < 2
    with programs.store() as store:
        assert store.check() == []
        store.release(store.claim("nightly"))  # a dead owner's run is free


@needs_signals
def test_a_script_that_lost_its_run_does_not_end_as_if_all_were_well(programs: Programs) -> None:
    owner, other = programs.workers(2, hold=["t1"])
    assert owner.ask("drive nightly") == "in t1"
    assert other.ask("take_over nightly") == "taken None"
    owner.tell("go")
    code, errors = owner.ended_with()
    assert code == 1
    assert "OwnershipLostError" in errors
