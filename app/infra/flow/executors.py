"""Executors: run one attempt somewhere and answer with its Outcome. They never raise what a task raises.

Must not know flows, stores or what follows from an outcome.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import traceback
from collections.abc import Callable, Mapping
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

from .cancellation import cancel_once
from .codec import clean
from .context import Context, _current
from .errors import MAX_DELAY, RetryAfter, skip_reason
from .late_dataclass import dataclass
from .models import Failure, kinds_of
from .task_options import MAX_THREADS

if TYPE_CHECKING:
    from queue import SimpleQueue

    _Queue = SimpleQueue[tuple[contextvars.Context, "Call"] | None]

_ENGINE = os.path.dirname(__file__)


@dataclass(slots=True, eq=False)
class Call:
    """An attempt that is to be made: a task's function, and the context to call it with."""

    key: Any
    """Whose attempt it is: the caller's own; handed back with the outcome."""
    function: Callable[[Context], Any]
    context: Context
    name: str
    """For the names of asyncio tasks and for debuggers."""


@dataclass(slots=True)
class Outcome:
    """How an attempt ended, as a value, by what is set: it succeeded (`output`), failed (`failure`), was skipped or cut off."""

    call: Call
    output: str | None = None
    params: Mapping[str, str | None] | None = None
    logs: str | None = None
    failure: Failure | None = None
    skipped: str | None = None
    """Why the task asked to be skipped, if it did."""
    cancelled: bool = False
    """It failed with CancelledError: whether the run is being stopped, the caller knows."""
    interrupted: bool = False


Deliver = Callable[[Outcome], None]


class Executor(Protocol):
    """What the engine asks of a place where attempts run. Called from the event loop's thread."""

    @property
    def capacity(self) -> int | None:
        """How many attempts it runs at once; None is any number. The engine starts no more than these."""
        ...

    def start(self, call: Call) -> None:
        """Begin an attempt and return at once; its outcome is delivered later, once, from any thread."""
        ...

    def stop(self, call: Call) -> bool:
        """Ask one attempt to end, as far as that is possible. One that is not known, or has ended, is let be: False.

        Returns True where its outcome will be delivered soon: the caller waits for it, if not for ever. False where it can only
        be given up: its outcome is of no interest any more, and what it took of the capacity is free again.
        """
        ...

    def cancel(self) -> None:
        """Ask all attempts under way to end early, as far as that is possible."""
        ...

    async def wait(self, seconds: float) -> None:
        """Wait, for so many seconds at most, until the attempts that could be cancelled have ended."""
        ...

    def close(self) -> None:
        """Give up all resources. Outcomes of attempts still under way are of no interest any more."""
        ...


def failure_of(error: BaseException) -> Failure:
    """An exception as a value, whatever its own methods do."""
    kind = type(error)
    try:
        type_name = kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    except BaseException:  # its class has a class of its own
        type_name = "(an exception without a name)"
    try:
        message = str.__str__(str(error))  # the bare text, where a class of its own comes out of its __str__
    except BaseException as problem:  # an exception whose __str__ raises, with whatever it likes
        message = f"(its message could not be made: {type(problem).__name__})"
    try:
        told = traceback.TracebackException(kind, error, error.__traceback__)
        # Frames of the engine's own rooms tell a reader nothing about the task.
        told.stack = traceback.StackSummary.from_list(
            [frame for frame in told.stack if os.path.dirname(frame.filename) != _ENGINE]
        )
        text = "".join(told.format())
    except BaseException as problem:
        text = f"{type_name}: {message}\n(its traceback could not be made: {type(problem).__name__})\n"
    kinds = tuple([clean(name) for name in kinds_of(kind)])
    return Failure(clean(type_name), clean(message), clean(text), kinds, _retry_after(error))


def _retry_after(error: BaseException) -> float | None:
    """The seconds after which a failed attempt asks for another, whatever a class derived from RetryAfter made of them."""
    if not issubclass(type(error), RetryAfter):  # not isinstance, which asks the exception
        return None
    try:
        seconds = error.seconds  # type: ignore[attr-defined]
        return float(seconds) if type(seconds) in (int, float) and 0 <= seconds <= MAX_DELAY else None
    except BaseException:  # it was never set, or is made by a property that raises
        return None


def _returned(call: Call, value: Any) -> Outcome:
    """The outcome of an attempt whose function returned. Writing the value down belongs to it: what cannot be stored fails it."""
    context = call.context
    try:
        return Outcome(call, context._output_text(value), context._changed_params(), context._logs_text())
    except BaseException as error:
        if type(value) is CoroutineType:  # not isinstance, which asks the value
            value.close()  # the failure says that nobody awaited it; Python need not say so again
        return _raised(call, error)


def _raised(call: Call, error: BaseException) -> Outcome:
    skipped = skip_reason(error)
    return Outcome(
        call,
        logs=call.context._logs_text(),
        failure=failure_of(error) if skipped is None else None,
        skipped=skipped,
        cancelled=isinstance(error, asyncio.CancelledError),
    )


class CoroutineExecutor:
    """Runs coroutine functions on the event loop, each as an asyncio task of its own.

    Args:
        deliver: takes the outcomes.
    """

    capacity = None

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._tasks: dict[Call, asyncio.Task[None]] = {}
        self._unbegun: dict[asyncio.Task[None], Call] = {}
        """Tasks that have not made their first step: who cancels one of these ends it before anything of it has run."""

    def __repr__(self) -> str:
        return f"<CoroutineExecutor, {len(self._tasks)} under way>"

    def start(self, call: Call) -> None:
        """See `Executor.start`."""
        # Not forgotten by a callback of the task, which would cost a turn of the loop's machinery for each one.
        task = asyncio.get_running_loop().create_task(self._run(call), name=call.name)
        if not task.done():  # as it may be with asyncio.eager_task_factory
            self._tasks[call] = task
            self._unbegun[task] = call
            task.add_done_callback(self._never_began)

    async def _run(self, call: Call) -> None:
        _current.set(call.context)
        task = self._tasks.get(call)
        if task is not None and self._unbegun.pop(task, None) is not None:  # else it began eagerly, before it was known
            task.remove_done_callback(self._never_began)
        try:
            outcome = _returned(call, await call.function(call.context))
        except KeyboardInterrupt:
            # On the loop's thread this is Ctrl-C: it must stop the program, not become one task's failure.
            self._deliver(Outcome(call, interrupted=True))
            raise
        except BaseException as error:
            outcome = _raised(call, error)
        finally:
            self._tasks.pop(call, None)
        self._deliver(outcome)

    def _never_began(self, task: asyncio.Task[None]) -> None:
        call = self._unbegun.pop(task, None)
        # One that began eagerly is still in the other dict if it has not ended by itself.
        if call is not None and self._tasks.pop(call, None) is not None:
            self._deliver(Outcome(call, interrupted=True))

    def stop(self, call: Call) -> bool:
        """See `Executor.stop`."""
        task = self._tasks.get(call)
        if task is None:
            return False
        call.context._cancelled = True
        cancel_once(task)
        return True

    def cancel(self) -> None:
        """See `Executor.cancel`."""
        for call in list(self._tasks):
            self.stop(call)

    async def wait(self, seconds: float) -> None:
        """See `Executor.wait`."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=seconds)

    def close(self) -> None:
        """See `Executor.close`. There is nothing to give up: its attempts were cancelled, or have ended."""


class InlineExecutor:
    """Calls plain functions on the event loop itself: for quick ones, which a thread would cost more than they take.

    Args:
        deliver: takes the outcomes.
    """

    capacity = None

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._calls: dict[Call, asyncio.Handle] = {}
        self._running: Call | None = None

    def __repr__(self) -> str:
        return f"<InlineExecutor, {len(self._calls)} under way>"

    def start(self, call: Call) -> None:
        """See `Executor.start`. Each is called by the loop, by itself, in a copy of the caller's context variables."""
        self._calls[call] = asyncio.get_running_loop().call_soon(self._run, call)

    def _run(self, call: Call) -> None:
        self._running = call
        _current.set(call.context)
        try:
            outcome = _returned(call, call.function(call.context))
        except KeyboardInterrupt:  # Ctrl-C, as with coroutines
            self._deliver(Outcome(call, interrupted=True))
            raise
        except BaseException as error:
            outcome = _raised(call, error)
        finally:
            self._running = None
            self._calls.pop(call, None)
        self._deliver(outcome)

    def stop(self, call: Call) -> bool:
        """See `Executor.stop`. One that has not begun never will; the one that runs has brought this about itself."""
        handle = self._calls.get(call)
        if handle is None:
            return False
        call.context._cancelled = True
        if call is not self._running:
            handle.cancel()
            del self._calls[call]
            self._deliver(Outcome(call, interrupted=True))
        return True

    def cancel(self) -> None:
        """See `Executor.cancel`."""
        for call in list(self._calls):
            self.stop(call)

    async def wait(self, seconds: float) -> None:
        """See `Executor.wait`. None is under way while the loop waits."""

    def close(self) -> None:
        """See `Executor.close`."""
        for handle in self._calls.values():
            handle.cancel()
        self._calls.clear()


def _new_queue() -> _Queue:
    from queue import SimpleQueue  # late: not everybody has tasks for threads

    return SimpleQueue()


class ThreadExecutor:
    """Runs functions in threads of its own, started as needed, so that they never hold up the event loop.

    The loop's default pool is not used: it is small, and other code of the program may have filled it. The threads are daemons: a
    function that hangs holds up neither the run nor the interpreter's exit.

    Args:
        deliver: takes the outcomes, in the thread that made them.
        max_threads: how many run at once.
        attempt: makes an attempt, in a thread; it must not raise. Without it, the call's function is called.
    """

    def __init__(
        self, deliver: Deliver, max_threads: int = MAX_THREADS, attempt: Callable[[Call], Outcome] | None = None
    ) -> None:
        self.capacity = max_threads
        self._deliver = deliver
        self._attempt = attempt or self._run
        self._queue: _Queue | None = None
        self._lock = threading.Lock()
        self._threads = 0
        """Those that take work. One whose attempt was given up does not count, until it comes back."""
        self._calls: set[Call] = set()
        """The attempts whose outcomes somebody waits for."""
        self._closed = False

    def __repr__(self) -> str:
        return f"<ThreadExecutor, {len(self._calls)} under way in {self._threads} threads>"

    def start(self, call: Call) -> None:
        """See `Executor.start`. The function sees the caller's context variables, as it would under asyncio.to_thread."""
        with self._lock:
            queue = self._queue = self._queue or _new_queue()
            self._calls.add(call)
            grow = len(self._calls) > self._threads and self._threads < self.capacity
            if grow:
                self._threads += 1
        if grow:
            try:
                threading.Thread(target=self._work, args=(queue,), name=f"night-batch-{self._threads}", daemon=True).start()
            except RuntimeError as error:  # the machine gives no more threads: go on with those that there are
                with self._lock:
                    self._threads -= 1
                    stuck = not self._threads
                    if stuck:
                        self._calls.discard(call)
                if stuck:
                    self._deliver(_raised(call, error))
                    return
        queue.put((contextvars.copy_context(), call))

    def _work(self, queue: _Queue) -> None:
        while (job := queue.get()) is not None:
            variables, call = job
            if call not in self._calls:  # given up before it began: this thread was written off for it
                outcome = None
            elif call.context._cancelled:  # told to end before it began
                outcome = Outcome(call, interrupted=True)
            else:
                outcome = variables.run(self._attempt, call)
            with self._lock:
                if call in self._calls:
                    self._calls.discard(call)
                elif outcome is None and self._threads < self.capacity and not self._closed:
                    self._threads += 1
                else:
                    return  # it comes back late: another may have started in its place
            if outcome is not None:
                self._deliver(outcome)
            del job, variables, call, outcome  # lest an idle thread keep the last result alive

    @staticmethod
    def _run(call: Call) -> Outcome:
        _current.set(call.context)
        try:
            return _returned(call, call.function(call.context))
        except BaseException as error:
            return _raised(call, error)

    def stop(self, call: Call) -> bool:
        """See `Executor.stop`. A thread cannot be made to end, so it is written off, and ends when it comes back."""
        with self._lock:
            if call not in self._calls:
                return False
            self._calls.discard(call)
            self._threads -= 1
        call.context._cancelled = True
        return False

    def cancel(self) -> None:
        """See `Executor.cancel`. A thread cannot be made to end; the function may look at `ctx.cancelled`."""
        with self._lock:
            for call in self._calls:
                call.context._cancelled = True

    async def wait(self, seconds: float) -> None:
        """See `Executor.wait`. None could be cancelled, so there is nothing to wait for."""

    def close(self) -> None:
        """See `Executor.close`. Idle threads end; a busy one ends after what it is doing."""
        with self._lock:
            self._closed = True
            threads = self._threads
        if self._queue is not None:
            for _ in range(threads):
                self._queue.put(None)
