"""The workloads on LangGraph with its SQLite checkpointer.

Runs inside LangGraph's own environment; knows nothing of the other engines.
"""
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,misc"
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph

from benchmarks.peers.measuring import Workload, body, main, timed
from benchmarks.peers.shapes import Shape, levels


class State(TypedDict):
    """What the nodes share: a sum, since many of them write at once, and a small state is quick to save."""

    total: Annotated[int, operator.add]


def node(_state: State) -> State:
    """One task of a graph."""
    return {"total": body()}


@task
def function(_name: str) -> int:
    """One task of the functional interface."""
    return body()


def graph(shape: Shape, saver: SqliteSaver) -> Any:
    """Makes a graph of a node per task."""
    builder = StateGraph(State)
    for name, upstreams in shape.items():
        builder.add_node(name, node)
        builder.add_edge(list(upstreams) if len(upstreams) > 1 else (*upstreams, START)[0], name)
    return builder.compile(checkpointer=saver)


def functional(shape: Shape, saver: SqliteSaver) -> Any:
    """Makes one entrypoint that runs the tasks of a level at once, level by level."""
    groups = levels(shape)

    @entrypoint(checkpointer=saver)
    def workflow(_start: State) -> int:
        total = 0
        for group in groups:
            # Calling a @task starts it and gives a future.
            futures: list[Any] = [function(name) for name in group]
            total += sum(future.result() for future in futures)
        return total

    return workflow


VARIANTS: dict[str, Callable[[Shape, SqliteSaver], Any]] = {"graph": graph, "functional": functional}


def engine(work: Workload) -> float:
    """Compiles, then times one invocation."""
    work.folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(work.folder / "checkpoints.sqlite", check_same_thread=False)) as connection:
        if work.by_hand:
            # WAL the saver turns on by itself.
            connection.execute("PRAGMA synchronous=NORMAL")
        saver = SqliteSaver(connection)
        saver.setup()
        app = VARIANTS[work.variant](work.shape, saver)
        config = {"configurable": {"thread_id": work.run_id}, "recursion_limit": len(work.shape) + 10}
        start = None if work.resumed else {"total": 0}
        return timed(lambda: app.invoke(start, config, durability="sync"))


if __name__ == "__main__":
    main(engine)
