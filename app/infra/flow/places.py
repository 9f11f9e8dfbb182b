"""Refuses, before a run exists, tasks that could not run where they are to run. Knows definitions; must not know runs."""

from __future__ import annotations

from .definitions import FlowDefinition, TaskDefinition
from .errors import InvalidOptionError, UnknownExecutorError, UnknownPoolError, closest
from .pools import find
from .pools import names as pool_names
from .task_options import OWN, SubmitsWork


def check_places(definition: FlowDefinition) -> None:
    """Look at every task of a flow, and of those nested in it, that says where or how it is to run.

    Raises:
        UnknownExecutorError, UnknownPoolError: it names what there is not.
        InvalidOptionError: a coroutine function is to run in a thread; it wants more of a pool than there is; or it is to be
            watched by heartbeats that would not arrive.
        CannotTravelError: its function cannot be found by another process.
    """
    seen: set[tuple[int, frozenset[str]]] = set()
    waiting: list[tuple[FlowDefinition, dict[str, SubmitsWork]]] = [(definition, {})]
    while waiting:
        flow, outer = waiting.pop()
        known = {**outer, **flow.executors}
        key = id(flow), frozenset(known)  # a flow that is nested in two others may find an executor in one of them alone
        if key in seen:
            continue
        seen.add(key)
        for task in flow.tasks.values():
            if task.child is not None:
                waiting.append((task.child, known))
            else:
                _check(flow, task, known)


def _check(flow: FlowDefinition, task: TaskDefinition, known: dict[str, SubmitsWork]) -> None:
    options = task.options
    choice = flow.choice_of(task)
    if isinstance(choice, str) and choice not in OWN and choice not in known:
        raise UnknownExecutorError(flow.name, task.task_id, choice, closest(choice, [*OWN, *known]))
    if task.is_async and choice == "thread":
        expected = "left out for a coroutine function, which runs on the event loop; or write `def` instead of `async def`"
        raise InvalidOptionError("executor", choice, expected, task.task_id)
    if choice is not None and not (isinstance(choice, str) and choice in ("thread", "inline")):
        from .travel import check_travels  # late: few tasks travel

        check_travels(task.task_id, task.function)
        if task.rules.run_if is not None:
            check_travels(task.task_id, task.rules.run_if)
        if choice != "process" and options.heartbeat_timeout is not None:
            expected = 'left out: signs of life do not come back from that executor; with "process" and in threads they do'
            raise InvalidOptionError("heartbeat_timeout", options.heartbeat_timeout, expected, task.task_id)
    if options.pool is not None:
        pool = find(options.pool)
        if pool is None:
            raise UnknownPoolError(flow.name, task.task_id, options.pool, closest(options.pool, pool_names()))
        if options.pool_weight > pool.size:
            expected = f"at most {pool.size}, the size of the pool {pool.name!r}"
            raise InvalidOptionError("pool_weight", options.pool_weight, expected, task.task_id)
