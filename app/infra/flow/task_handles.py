"""What a decorated function is to a type checker: the handle by which its task is named, and its output pulled.

For type checkers alone: at run time a decorated function is the function itself, and no other room loads this one. Must not know
what a flow is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])
Over_co = TypeVar("Over_co", covariant=True)


class MappedTask(ABC, Generic[P, R_co]):
    """A function that was decorated with `map_over=`, as a type checker sees it: called as before, but pulled as a list.

    To name the type in an annotation: `def summary(ctx: Context, task: MappedTask[[Context, str], Row]) -> int`. There are no
    objects of this class, since the decorator returns the function unchanged; so `isinstance` has no use for it. It is a class of
    its own, not a protocol, because nothing that could be looked at tells a function that is mapped from one that is not.
    """

    __name__: str
    __qualname__: str

    @abstractmethod
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function itself, for one item, as a test of it does."""


class TaskDecorator(Protocol[Over_co]):
    """What `flow.task(...)` returns, by the type of its `map_over=`, Any without it: then the function keeps its exact type.

    Two kinds of `Callable` would say the same, but for options that are handed on as `**options`: whether `map_over` is among
    them cannot be known, and both mypy and pyright make of this class, and of none of the other ways, that it is not.
    """

    @overload
    def __call__(self: TaskDecorator[None], function: F, /) -> F: ...

    @overload
    def __call__(self: TaskDecorator[str | Callable[..., Any]], function: Callable[P, R], /) -> MappedTask[P, R]: ...


class NestedFlow(Protocol):
    """What the decorated factory of a subflow returns, known by two properties of a flow; what is pulled of it is its result."""

    @property
    def flow_name(self) -> str:
        """The flow's name."""
        ...

    @property
    def definition(self) -> object:
        """What it is made of."""
        ...
