"""Night Batch: a workflow engine that is imported, not deployed.

Decorate functions as tasks, say what depends on what, await the run. Every state change is on disk before anything acts
on it; a killed process continues where it stood. Standard library only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Whoever reads the code sees the names here; at run time each is fetched from its room when it is first asked for, so that a
# program loads what it uses and no more.
if TYPE_CHECKING:
    from .clock import Clock, SystemClock
    from .codec import UnregisteredValue, ValueCodec
    from .context import Context, current_context
    from .errors import (
        AmbiguousDependencyError,
        AttemptWithdrawnError,
        BranchError,
        CannotTravelError,
        CycleError,
        DefinitionError,
        DuplicateTaskError,
        FlowError,
        GraphChangedError,
        IllegalTransitionError,
        InvalidNameError,
        InvalidOptionError,
        MapError,
        NestedFlowError,
        NoCurrentTaskError,
        NonRetryableError,
        NoRunningLoopError,
        NotSentError,
        NotUpstreamError,
        OwnershipLostError,
        ParallelError,
        RetryAfter,
        RunActiveError,
        RunError,
        RunExistsError,
        RunFailedError,
        RunMismatchError,
        RunningLoopError,
        RunNotFoundError,
        RunOwnedError,
        RunStoppedError,
        RunTimeoutError,
        SkipTask,
        StoreBusyError,
        StoreClosedError,
        StoreDamagedError,
        StoredValueError,
        StoreError,
        StoreForkedError,
        StoreFormatError,
        StoreFullError,
        StoreVersionError,
        TaskFunctionError,
        TaskTimeoutError,
        UnknownDependencyError,
        UnknownExecutorError,
        UnknownPoolError,
        UnknownTaskError,
        UnregisteredTypeError,
        UnstorableValueError,
        ValueTooLargeError,
        WorkerDiedError,
    )
    from .event_manager import EventManager
    from .events import (
        Event,
        RunFinished,
        RunInterrupted,
        RunStarted,
        TaskCancelled,
        TaskEvent,
        TaskFailed,
        TaskInterrupted,
        TaskReset,
        TaskRetryScheduled,
        TaskSkipped,
        TaskStarted,
        TaskSucceeded,
    )
    from .explaining import Explanation, explain_stored
    from .flow import AsyncFlow
    from .handles import RunHandle
    from .including import Included
    from .json_store import JsonStore
    from .memory_store import MemoryStore
    from .models import (
        Attempt,
        AttemptResult,
        ExecutionState,
        GraphNode,
        LogEntry,
        NoteKind,
        State,
        StateChange,
        TaskInstance,
        TaskType,
        WorkflowRun,
    )
    from .planning import Plan
    from .progress import RunProgress, TaskProgress
    from .records import Ask, AttemptRecord, Changes, Lease, NoteRecord, RunRecord, TaskRecord
    from .resuming import ResumedRuns
    from .retry_manager import RetryPolicy
    from .sqlite_store import SQLiteStore
    from .store import BaseStore, Store
    from .task_handles import MappedTask
    from .trigger_rules import TriggerRule
    from .version import __version__
    from .workflow_builders import FlowBuilder

__all__ = [
    "AmbiguousDependencyError",
    "Ask",
    "AsyncFlow",
    "Attempt",
    "AttemptRecord",
    "AttemptResult",
    "AttemptWithdrawnError",
    "BaseStore",
    "BranchError",
    "CannotTravelError",
    "Changes",
    "Clock",
    "Context",
    "CycleError",
    "DefinitionError",
    "DuplicateTaskError",
    "Event",
    "EventManager",
    "ExecutionState",
    "Explanation",
    "FlowBuilder",
    "FlowError",
    "GraphChangedError",
    "GraphNode",
    "IllegalTransitionError",
    "Included",
    "InvalidNameError",
    "InvalidOptionError",
    "JsonStore",
    "Lease",
    "LogEntry",
    "MapError",
    "MappedTask",
    "MemoryStore",
    "NestedFlowError",
    "NoCurrentTaskError",
    "NoRunningLoopError",
    "NonRetryableError",
    "NotSentError",
    "NotUpstreamError",
    "NoteKind",
    "NoteRecord",
    "OwnershipLostError",
    "ParallelError",
    "Plan",
    "ResumedRuns",
    "RetryAfter",
    "RetryPolicy",
    "RunActiveError",
    "RunError",
    "RunExistsError",
    "RunFailedError",
    "RunFinished",
    "RunHandle",
    "RunInterrupted",
    "RunMismatchError",
    "RunNotFoundError",
    "RunOwnedError",
    "RunProgress",
    "RunRecord",
    "RunStarted",
    "RunStoppedError",
    "RunTimeoutError",
    "RunningLoopError",
    "SQLiteStore",
    "SkipTask",
    "State",
    "StateChange",
    "Store",
    "StoreBusyError",
    "StoreClosedError",
    "StoreDamagedError",
    "StoreError",
    "StoreForkedError",
    "StoreFormatError",
    "StoreFullError",
    "StoreVersionError",
    "StoredValueError",
    "SystemClock",
    "TaskCancelled",
    "TaskEvent",
    "TaskFailed",
    "TaskFunctionError",
    "TaskInstance",
    "TaskInterrupted",
    "TaskProgress",
    "TaskRecord",
    "TaskReset",
    "TaskRetryScheduled",
    "TaskSkipped",
    "TaskStarted",
    "TaskSucceeded",
    "TaskTimeoutError",
    "TaskType",
    "TriggerRule",
    "UnknownDependencyError",
    "UnknownExecutorError",
    "UnknownPoolError",
    "UnknownTaskError",
    "UnregisteredTypeError",
    "UnregisteredValue",
    "UnstorableValueError",
    "ValueCodec",
    "ValueTooLargeError",
    "WorkerDiedError",
    "WorkflowRun",
    "__version__",
    "current_context",
    "explain_stored",
]

_ROOMS = {
    "clock": "Clock SystemClock",
    "codec": "UnregisteredValue ValueCodec",
    "context": "Context current_context",
    "errors": (
        "AmbiguousDependencyError AttemptWithdrawnError BranchError CannotTravelError CycleError DefinitionError "
        "DuplicateTaskError FlowError GraphChangedError IllegalTransitionError InvalidNameError InvalidOptionError "
        "MapError NestedFlowError NoCurrentTaskError NoRunningLoopError NonRetryableError NotSentError NotUpstreamError "
        "OwnershipLostError ParallelError RetryAfter RunActiveError RunError RunExistsError RunFailedError "
        "RunMismatchError RunNotFoundError RunOwnedError RunStoppedError RunTimeoutError RunningLoopError SkipTask "
        "StoreBusyError StoreClosedError StoreDamagedError StoreError StoreForkedError StoreFormatError StoreFullError "
        "StoreVersionError StoredValueError TaskFunctionError TaskTimeoutError UnknownDependencyError "
        "UnknownExecutorError UnknownPoolError UnknownTaskError UnregisteredTypeError UnstorableValueError "
        "ValueTooLargeError WorkerDiedError"
    ),
    "event_manager": "EventManager",
    "events": (
        "Event RunFinished RunInterrupted RunStarted TaskCancelled TaskEvent TaskFailed TaskInterrupted TaskReset "
        "TaskRetryScheduled TaskSkipped TaskStarted TaskSucceeded"
    ),
    "explaining": "Explanation explain_stored",
    "flow": "AsyncFlow",
    "handles": "RunHandle",
    "including": "Included",
    "json_store": "JsonStore",
    "memory_store": "MemoryStore",
    "models": (
        "Attempt AttemptResult ExecutionState GraphNode LogEntry NoteKind State StateChange TaskInstance TaskType WorkflowRun"
    ),
    "planning": "Plan",
    "progress": "RunProgress TaskProgress",
    "records": "Ask AttemptRecord Changes Lease NoteRecord RunRecord TaskRecord",
    "resuming": "ResumedRuns",
    "retry_manager": "RetryPolicy",
    "sqlite_store": "SQLiteStore",
    "store": "BaseStore Store",
    "task_handles": "MappedTask",
    "trigger_rules": "TriggerRule",
    "version": "__version__",
    "workflow_builders": "FlowBuilder",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{room}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
