"""What people test their own parts with: flows and tasks run in memory, and the contract of stores. Standard library only.

`run_flow` runs a whole flow with fakes in the place of tasks, `run_task` one task alone; both in time that takes none. Fakes are
values, functions, or what `returns`, `raises`, `fails` and `hangs` make; `assert_failed` and its like show the run when they
fail. Any test runner will do.
"""

from .assertions import (
    assert_attempts,
    assert_cancelled,
    assert_failed,
    assert_not_run,
    assert_output,
    assert_ran,
    assert_skipped,
    assert_succeeded,
    run_tree,
)
from .clock import VirtualClock
from .fakes import Fake, fails, hangs, raises, returns
from .flows import FlowResult, run_flow, run_flow_async, run_task, run_task_async
from .store_contract import StoreContract

__all__ = [
    "Fake",
    "FlowResult",
    "StoreContract",
    "VirtualClock",
    "assert_attempts",
    "assert_cancelled",
    "assert_failed",
    "assert_not_run",
    "assert_output",
    "assert_ran",
    "assert_skipped",
    "assert_succeeded",
    "fails",
    "hangs",
    "raises",
    "returns",
    "run_flow",
    "run_flow_async",
    "run_task",
    "run_task_async",
    "run_tree",
]
