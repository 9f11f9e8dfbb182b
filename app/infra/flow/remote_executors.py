"""Executors that make attempts in other processes: worker processes of our own, or whatever stands behind a `submit`.

What they send and get back is `travel`'s. Must not know flows, stores or what follows from an outcome.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

from .errors import AttemptWithdrawnError, CannotTravelError, WorkerDiedError
from .executors import Call, Deliver, Outcome, ThreadExecutor, _raised
from .late_dataclass import dataclass
from .task_options import SubmitsWork
from .travel import Line, Reply, check_travels, check_types, pack, run_there
from .worker_processes import POOL, WorkerGoneError, WorkerPool, WorkerProcess

_logger = logging.getLogger("night_batch.executors")


def outcome_of(call: Call, reply: Reply) -> Outcome:
    """What a reply means here. Lines of log that came with it are redacted, kept and told to the logger as any others."""
    for line in reply.lines or ():
        call.context._take_line(*line)
    call.context._log_lines_left_out += reply.left_out
    return Outcome(call, reply.output, reply.params, call.context._logs_text(), reply.failure, reply.skipped, reply.cancelled)


def _interrupted(call: Call) -> Outcome:
    return Outcome(call, logs=call.context._logs_text(), interrupted=True)


@dataclass(slots=True, eq=False)
class _Attempt:
    """An attempt that is under way, the worker that has it, and whether it was asked to end."""

    worker: WorkerProcess | None = None
    stopped: bool = False

    def goes_on(self) -> bool:
        """Whether nobody has asked it to end so far."""
        return not self.stopped


class ProcessExecutor:
    """Runs functions in worker processes, which can be killed: for what keeps the interpreter busy, leaks, crashes or hangs.

    The workers are shared by all runs of the process and used again. A function is sent by its name, so it must stand at the top
    level of a module; values travel as the codec's text.

    Args:
        deliver: takes the outcomes, in threads.
        max_processes: how many run at once.
        pool: where the workers come from.
    """

    def __init__(self, deliver: Deliver, max_processes: int, pool: WorkerPool = POOL) -> None:
        self.capacity = max_processes
        self._deliver = deliver
        self._pool = pool
        # A thread for each attempt, which waits for its worker.
        self._threads = ThreadExecutor(self._delivered, max_processes, self._attempt)
        self._lock = threading.Lock()
        self._attempts: dict[Call, _Attempt] = {}
        self._waiter: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<ProcessExecutor, {len(self._attempts)} under way>"

    def start(self, call: Call) -> None:
        """See `Executor.start`."""
        with self._lock:
            self._attempts[call] = _Attempt()
        self._threads.start(call)

    def _attempt(self, call: Call) -> Outcome:
        attempt = self._attempts[call]
        try:
            context = call.context
            job = pack(context.task_id, call.function, context._scope.snapshot(context.task_id))
            reply = self._reply(call, attempt, job)
            if reply is None:
                return _interrupted(call)
            outcome = outcome_of(call, reply)
            outcome.interrupted = attempt.stopped and outcome.failure is not None  # it failed because it was told to end
            return outcome
        except BaseException as error:
            return _interrupted(call) if attempt.stopped else _raised(call, error)

    def _reply(self, call: Call, attempt: _Attempt, job: bytes) -> Reply | None:
        """What a worker says of it; None if it was asked to end, and did."""
        context = call.context

        def line(said: Line) -> None:
            context._take_line(*said)

        # A worker that ended while it was idle, or before it got as far as taking its first task, was not ended by this one: it
        # goes to another, once.
        for again in (False, True):
            if not attempt.goes_on():
                return None
            worker = self._pool.take(fresh=again)
            with self._lock:
                attempt.worker = worker
                if not attempt.goes_on():
                    worker.kill()
            reply, gone = None, None
            try:
                reply = worker.run(job, line, context.heartbeat)
            except WorkerGoneError as error:
                gone = error
            finally:
                with self._lock:  # from here on nobody ends it on this attempt's behalf
                    attempt.worker = None
                if reply is None or not attempt.goes_on():
                    self._pool.end(worker)
                else:
                    self._pool.give_back(worker)
            if gone is None or not attempt.goes_on():
                return reply
            if gone.begun or again or gone.problem:
                raise WorkerDiedError(context.task_id, gone.pid, gone.exit_code, gone.begun, gone.problem)
        raise AssertionError

    def _delivered(self, outcome: Outcome) -> None:
        self._deliver(outcome)
        with self._lock:
            self._attempts.pop(outcome.call, None)
            if not self._attempts and self._waiter is not None:
                self._waiter()

    def stop(self, call: Call) -> bool:
        """See `Executor.stop`. Its worker is told to end by SIGTERM, with all that it started, and killed a second later."""
        return self._stop(call, WorkerProcess.terminate)

    def _stop(self, call: Call, end: Callable[[WorkerProcess], None]) -> bool:
        with self._lock:
            attempt = self._attempts.get(call)
            if attempt is None:
                return False
            call.context._cancelled = attempt.stopped = True
            if attempt.worker is not None:
                end(attempt.worker)
            return True

    def cancel(self) -> None:
        """See `Executor.cancel`."""
        for call in list(self._attempts):
            self.stop(call)

    async def wait(self, seconds: float) -> None:
        """See `Executor.wait`."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not ended.done():
                ended.set_result(None)

        def waiter() -> None:
            try:
                loop.call_soon_threadsafe(tell)
            except RuntimeError:  # the loop is closed
                pass

        with self._lock:
            if not self._attempts:
                return
            self._waiter = waiter
        await asyncio.wait([ended], timeout=seconds)

    def close(self) -> None:
        """See `Executor.close`. Idle workers stay, for others; those that are busy are killed."""
        for call in list(self._attempts):
            self._stop(call, WorkerProcess.kill)
        self._threads.close()


class SubmitExecutor:
    """Hands attempts to somebody else's executor: a pool of processes or threads, a cluster's client. It is not shut down here.

    Args:
        deliver: takes the outcomes, in whatever thread the futures call back.
        executor: whose `submit` is used; nothing else of it is.
        capacity: how many attempts it is given at once.
    """

    def __init__(self, deliver: Deliver, executor: SubmitsWork, capacity: int = 1000) -> None:
        self.capacity = capacity
        self._deliver = deliver
        self._executor = executor
        self._lock = threading.Lock()
        self._futures: dict[Call, Any] = {}
        """The attempts whose outcomes somebody waits for; None as long as there is no future."""
        # Not on the event loop: what is sent may have to be read from a store, and a submit may start processes.
        self._sender = ThreadExecutor(self._sent, 1, self._send)

    def __repr__(self) -> str:
        return f"<SubmitExecutor of {type(self._executor).__name__}, {len(self._futures)} under way>"

    def start(self, call: Call) -> None:
        """See `Executor.start`."""
        with self._lock:
            self._futures[call] = None
        self._sender.start(call)

    def _send(self, call: Call) -> Outcome:
        try:
            if call in self._futures:
                task_id = call.context.task_id
                snapshot = call.context._scope.snapshot(task_id)
                future = self._executor.submit(run_there, call.function, snapshot)
                with self._lock:
                    wanted = call in self._futures
                    if wanted:
                        self._futures[call] = future
                if wanted:
                    future.add_done_callback(partial(self._done, call, snapshot))
                else:
                    future.cancel()
            return Outcome(call)  # of the sending: see _sent
        except BaseException as error:
            return _raised(call, error)

    def _sent(self, outcome: Outcome) -> None:
        if outcome.failure is not None or outcome.skipped is not None:  # whatever a submit raises
            self._settle(outcome)

    def _done(self, call: Call, snapshot: Any, future: Any) -> None:
        """Called by the future, in a thread of its own."""
        try:
            outcome = outcome_of(call, future.result())
        except BaseException as error:  # run_there raises nothing: it was cancelled there, or lost
            if isinstance(error, CancelledError):
                error = AttemptWithdrawnError(call.context.task_id, type(self._executor).__name__)
            outcome = _raised(call, _reason(call, snapshot, error))
            outcome.cancelled = False  # not by us
        self._settle(outcome)

    def _settle(self, outcome: Outcome) -> None:
        with self._lock:
            wanted = self._futures.pop(outcome.call, self) is not self
        if wanted:
            self._deliver(outcome)

    def stop(self, call: Call) -> bool:
        """See `Executor.stop`. It can only be given up: what has begun somewhere goes on there."""
        with self._lock:
            future = self._futures.pop(call, self)
        if future is self:
            return False
        call.context._cancelled = True
        self._sender.stop(call)  # a submit may hang: the others are not kept waiting by it
        if future is not None:
            try:
                future.cancel()
            except BaseException:  # somebody else's: nobody waits for what becomes of it
                _logger.warning("%r could not be told that %s was given up", self, call.name, exc_info=True)
        return False

    def cancel(self) -> None:
        """See `Executor.cancel`."""
        for call in list(self._futures):
            self.stop(call)

    async def wait(self, seconds: float) -> None:
        """See `Executor.wait`. All were given up."""

    def close(self) -> None:
        """See `Executor.close`."""
        self.cancel()
        self._sender.close()


def _reason(call: Call, snapshot: Any, error: BaseException) -> BaseException:
    """Why an attempt was lost, where something that cannot be pickled is more of a reason than what pickle says."""
    if isinstance(error, (AttributeError, TypeError)) or type(error).__name__ == "PicklingError":
        try:
            check_travels(call.context.task_id, call.function)
            check_types(call.context.task_id, snapshot)
        except CannotTravelError as better:
            return better
    return error
