"""A run told as plain JSON data: each task's definition beside its state, items of maps behind them, subflows nested inside.

Reads definitions and a store; changes nothing.
"""

from __future__ import annotations

from typing import Any

from .calling import inner_name
from .codec import as_json
from .definitions import FlowDefinition, TaskDefinition
from .graph_nodes import description_of
from .map_items import ids_of, keys_of, whole_of
from .models import Attempt, ExecutionState, TaskType
from .records import RunRecord, TaskRecord
from .redaction import Redact, redacted, redacted_tree
from .retry_manager import NO_RETRY, RetryPolicy
from .store import BaseStore, Store
from .task_options import DEFAULT, SubmitsWork
from .task_rules import PLAIN
from .trigger_rules import TriggerRule
from .views import to_datetime

Hooks = tuple[Redact, ...]


def _iso(moment: int | None) -> str | None:
    when = to_datetime(moment)
    return when.isoformat() if when else None


def execution_details(definition: FlowDefinition, store: Store, run_id: str) -> dict[str, Any]:
    """Definition and state of a run; see `AsyncFlow.get_execution_details`."""
    details: dict[str, Any] = {}
    # Each entry: a flow, its run if it has one, the dict that tells of it, and the hooks of the flows that it is nested in.
    # A list, not recursion: flows nest deep.
    waiting: list[tuple[FlowDefinition, str | None, dict[str, Any], Hooks]] = [(definition, run_id, details, ())]
    attempts_of = store.attempts_reader() if isinstance(store, BaseStore) else store.list_attempts
    while waiting:
        flow, flow_run_id, told, outer = waiting.pop()
        hooks = (flow.redact, *outer) if flow.redact is not None else outer
        run = store.read_run(flow_run_id) if flow_run_id is not None else None
        told.update(_run_details(flow, run, hooks))
        records = {record.task_id: record for record in store.read_tasks(run.id)} if run else {}
        attempts: dict[str, list[dict[str, Any]]] = {}
        for attempt in attempts_of(run.id) if run else ():
            attempts.setdefault(attempt.task_id, []).append(_attempt_details(attempt, hooks))
        items = _items(flow, records)
        places = {item_id: place for listed in items.values() for place, item_id in enumerate(listed)}
        for task_id in dict.fromkeys((*flow.tasks, *records)):
            record, whole = records.get(task_id), _whole_of(flow, task_id)
            task = flow.tasks.get(task_id if whole is None else whole)
            one = told["tasks"][task_id] = _task_details(task_id, task, record, hooks)
            one["items"], one["item_of"], one["map_index"] = items.get(task_id), whole, places.get(task_id)
            one["attempts"] = attempts.get(task_id, [])
            if task is not None and task.child is not None:
                one["subflow"] = {}
                waiting.append((task.child, record.child_run_id if record else None, one["subflow"], hooks))
    return details


def _whole_of(flow: FlowDefinition, task_id: str) -> str | None:
    """The mapped task that an item belongs to, as the flow is declared now."""
    whole = whole_of(task_id) if task_id not in flow.tasks else None
    return whole if whole in flow.rules and flow.rules[whole].map_over is not None else None


def _items(flow: FlowDefinition, records: dict[str, TaskRecord]) -> dict[str, list[str]]:
    """The ids of the items of each mapped task that has its list, in the order of that."""
    found: dict[str, list[str]] = {}
    for task_id, rules in flow.rules.items():
        record = records.get(task_id) if rules.map_over is not None else None
        keys = keys_of(record.input) if record is not None else None
        if keys is not None:
            found[task_id] = ids_of(task_id, keys)
    return found


def _value(text: str | None, hooks: Hooks) -> Any:
    return redacted_tree(as_json(text), hooks)


def _text(text: str | None, hooks: Hooks) -> str | None:
    # Redacted when it was stored, too; but the hook may be younger than the run.
    return None if text is None else redacted(text, hooks)


def _run_details(flow: FlowDefinition, run: RunRecord | None, hooks: Hooks) -> dict[str, Any]:
    return {
        "run_id": run.id if run else None,
        "flow_name": flow.name,
        "state": run.state.value if run else ExecutionState.NONE.value,
        "params": _value(run.params, hooks) if run else None,
        "created_at": _iso(run.created) if run else None,
        "start_date": _iso(run.started) if run else None,
        "end_date": _iso(run.ended) if run else None,
        "parent_run_id": run.parent_run_id if run else None,
        "parent_task_id": run.parent_task_id if run else None,
        "tasks": {},
    }


def _task_details(task_id: str, task: TaskDefinition | None, record: TaskRecord | None, hooks: Hooks) -> dict[str, Any]:
    """A task that the flow no longer has, or that the run does not have, shows what there is of it."""
    kind = task.type if task else record.type if record else TaskType.TASK
    options, rules = (task.options, task.rules) if task else (DEFAULT, PLAIN)
    return {
        "task_id": task_id,
        "type": kind.value,
        "name": task.name or task_id if task else task_id,
        "description": description_of(task) if task else None,
        "depends_on": list(task.depends_on) if task else [],
        "trigger_rule": (rules.trigger_rule or TriggerRule.ALL_SUCCESS).value,
        "run_if": None if rules.run_if is None else _text(inner_name(rules.run_if), hooks),
        "branch": rules.branch,
        "map_over": rules.map_over,
        "map_key": None if rules.map_key is None else _text(inner_name(rules.map_key), hooks),
        "max_map_size": None if rules.map_over is None else rules.max_map_size,
        "max_retries": task.retry.max_retries if task else 0,
        "retry_delay": task.retry.delay if task else 0.0,
        "retry": _retry_details(task.retry) if task else None,
        "max_interruptions": task.retry.max_interruptions if task else NO_RETRY.max_interruptions,
        "on_interrupt": task.retry.on_interrupt if task else NO_RETRY.on_interrupt,
        "timeout": options.timeout,
        "heartbeat_timeout": options.heartbeat_timeout,
        "executor": options.executor if options.executor is None else _executor_name(options.executor),
        "pool": options.pool,
        "pool_weight": options.pool_weight,
        "priority": options.priority,
        "state": record.state.value if record else ExecutionState.NONE.value,
        "try_number": record.try_number if record else 0,
        "interruptions": record.interruptions if record else 0,
        "crashes": record.crashes if record else 0,
        "start_date": _iso(record.started) if record else None,
        "end_date": _iso(record.ended) if record else None,
        "next_attempt_at": _iso(record.due) if record else None,
        "input": _value(record.input, hooks) if record else None,
        "output": _value(record.output, hooks) if record else None,
        "error": _text(record.error, hooks) if record else None,
        "reason": _text(record.reason, hooks) if record else None,
        "child_run_id": record.child_run_id if record else None,
    }


def _retry_details(policy: RetryPolicy) -> dict[str, Any]:
    return {
        "max_retries": policy.max_retries,
        "delay": policy.delay,
        "backoff": policy.backoff,
        "max_delay": policy.max_delay,
        "jitter": policy.jitter,
        "retry_on": None if policy.retry_on is None else list(policy.retry_on),
        "give_up_on": list(policy.give_up_on),
    }


def _executor_name(choice: str | SubmitsWork) -> str:
    return choice if isinstance(choice, str) else type(choice).__name__


def _attempt_details(attempt: Attempt, hooks: Hooks) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "try_number": attempt.try_number,
        "result": attempt.result.value,
        "start_date": attempt.start_date.isoformat() if attempt.start_date else None,
        "end_date": attempt.end_date.isoformat() if attempt.end_date else None,
        "error": _text(attempt.error, hooks),
        "reason": _text(attempt.reason, hooks),
        "logs": [
            {"at": entry.at.isoformat(), "level": entry.level, "message": redacted(entry.message, hooks)}
            for entry in attempt.logs
        ],
    }
