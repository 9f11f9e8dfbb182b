"""Dataclasses that are cheap to define: `dataclass` is the standard one to whoever uses or checks it, but compiles nothing yet.

The standard decorator writes and compiles source for each method of each class, which took a third of the package's import. Here
comparing, hashing and showing are plain functions over the fields, and `__init__` is made, by the standard decorator itself, when
a class is first used. Must not know any class of the engine.
"""

# ruff: noqa: N807 - methods are made here, outside of any class

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any


def late_dataclass(
    *,
    slots: bool,
    frozen: bool = False,
    init: bool = True,
    eq: bool = True,
    repr: bool = True,  # noqa: A002
) -> Callable[[Any], Any]:
    """As `dataclasses.dataclass`, with the options that are used here; `slots=True` must be said, and is meant.

    One difference: a class made by this is no base for a frozen one of the standard decorator's, which takes it for unfrozen.
    """

    def make(plain: Any) -> Any:
        plain.__doc__ = plain.__doc__ or plain.__name__  # or else the standard decorator makes a signature for it
        kind: Any = dataclasses.dataclass(slots=slots, init=False, repr=False, eq=False)(plain)
        made: dict[str, Any] = {}
        if init:
            made["__init__"] = _Init(kind, frozen)
        if repr:
            made.update(_shown(kind))
        if eq:
            made.update(_compared(kind, frozen))
        if frozen:
            made.update(_frozen(kind))
        for name, method in made.items():
            # What the class says itself counts. Python puts a None for __hash__ beside an __eq__ of its own.
            if vars(kind).get(name) is None:
                setattr(kind, name, method)
        return kind

    return make


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    dataclass = late_dataclass


class _Init:
    """Stands for a class's `__init__` until somebody looks at it, which the making of the first instance does."""

    def __init__(self, kind: Any, frozen: bool) -> None:
        self._kind = kind
        self._frozen = frozen

    def __get__(self, instance: object, owner: type) -> Any:
        kind = self._kind
        fields = dataclasses.fields(kind)
        content: dict[str, Any] = {field.name: field for field in fields}
        content["__annotations__"] = {field.name: field.type for field in fields}
        content["__module__"] = kind.__module__
        content["__doc__"] = kind.__doc__
        if hasattr(kind, "__post_init__"):
            content["__post_init__"] = kind.__post_init__
        twin: Any = dataclasses.dataclass(frozen=self._frozen, repr=False, eq=False)(type(kind.__name__, (), content))
        made = twin.__init__
        made.__qualname__ = f"{kind.__qualname__}.__init__"
        kind.__init__ = made
        return made.__get__(instance, owner)


def _shown(kind: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(kind) if field.repr]

    @recursive_repr()
    def __repr__(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join([f'{name}={getattr(self, name)!r}' for name in names])})"

    return {"__repr__": __repr__}


def _compared(kind: Any, frozen: bool) -> dict[str, Any]:
    content = attrgetter(*(field.name for field in dataclasses.fields(kind) if field.compare))

    def __eq__(self: Any, other: Any) -> Any:
        return content(self) == content(other) if type(other) is type(self) else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(content(self))

    return {"__eq__": __eq__, "__hash__": __hash__ if frozen else None}


def _frozen(kind: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(kind)]

    # A class that is derived without the decorator may have further attributes, and these may change.
    def __setattr__(self: Any, name: str, value: object) -> None:
        if type(self) is kind or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(kind, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:
        if type(self) is kind or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(kind, self).__delattr__(name)

    # For copies and pickles, which would assign.
    def __getstate__(self: Any) -> list[Any]:
        return [getattr(self, name) for name in names]

    def __setstate__(self: Any, state: list[Any]) -> None:
        for name, value in zip(names, state):
            object.__setattr__(self, name, value)

    return {"__setattr__": __setattr__, "__delattr__": __delattr__, "__getstate__": __getstate__, "__setstate__": __setstate__}
