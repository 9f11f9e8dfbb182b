"""Dataclasses that are cheap to define: `dataclass` is the standard one to whoever uses or checks it, but compiles nothing yet.

The standard decorator writes and compiles source for each method of each class, which took a third of the package's import. Here
a class gets its slots and methods that are plain functions over its fields; what remains (`__init__`, the list of fields and the
like) is made by the standard decorator itself when somebody looks at it, or makes so many instances that a compiled `__init__`
pays. Must not know any class of the engine.
"""

# ruff: noqa: N807 - methods are made here, outside of any class

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from inspect import get_annotations
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

Method = Callable[..., Any]

ENOUGH = 50
"""So many instances are filled field by field, in some microseconds each; to compile takes as long as a hundred of these."""


def late_dataclass(
    *,
    slots: bool,
    frozen: bool = False,
    init: bool = True,
    eq: bool = True,
    repr: bool = True,  # noqa: A002
) -> Callable[[type], Any]:
    """As `dataclasses.dataclass`, with the options that are used here; `slots=True` must be said, and is meant."""
    assert slots

    def make(plain: type) -> Any:
        late = _Late(plain, init, frozen)
        # As the standard decorator does it: slots cannot be added, so the class is made anew.
        content = {name: value for name, value in vars(plain).items() if name not in late.own}
        for name in ("__dict__", "__weakref__"):
            content.pop(name, None)
        content["__doc__"] = plain.__doc__ or plain.__name__
        content["__qualname__"] = plain.__qualname__
        content["__slots__"] = tuple(name for name in late.own if name not in late.inherited)
        methods = late.parts()
        if repr:
            methods["__repr__"] = _shown(late.names("repr"))
        if eq:
            methods.update(_compared(late.names("compare"), frozen))
        if frozen:
            methods.update(_frozen(late))
        # What the class says itself counts. Python puts a None for __hash__ beside an __eq__ of its own.
        content.update({name: method for name, method in methods.items() if content.get(name) is None})
        late.kind = type(plain)(plain.__name__, plain.__bases__, content)
        return late.kind

    return make


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    dataclass = late_dataclass


class _Late:
    """What is known of a class from the start, and how the rest is made."""

    kind: Any

    def __init__(self, plain: type, init: bool, frozen: bool) -> None:
        self._init = init
        self._frozen = frozen
        self.own: dict[str, tuple[Any, Any]] = {
            name: (annotation, vars(plain).get(name, dataclasses.MISSING)) for name, annotation in get_annotations(plain).items()
        }
        """The fields that the class declares: for each its annotation, and its default or what `field` returned."""
        self.inherited: dict[str, tuple[Any, Any]] = {}
        for base in plain.__mro__[:0:-1]:
            known = vars(base).get("_late")
            if known is not None:
                self.inherited.update(known.own)
        self.fields = {**self.inherited, **self.own}

    def names(self, use: str) -> list[str]:
        """The fields that are shown (`repr`), or compared (`compare`)."""
        return [name for name, (_, said) in self.fields.items() if not isinstance(said, dataclasses.Field) or getattr(said, use)]

    def parts(self) -> dict[str, Any]:
        """What stands in the class until it is asked for."""
        names = ("__match_args__", "__dataclass_fields__", "__dataclass_params__")
        parts: dict[str, Any] = {"_late": self, **{name: _Part(self, name) for name in names}}
        if self._init:
            parts["__init__"] = _Init(self)
        return parts

    def fill(self, instance: Any, /, *values: object, **named: object) -> None:
        """Do what `__init__` does; a call that does not fit is left to the real one, which says why."""
        names = [name for name, (_, said) in self.fields.items() if not isinstance(said, dataclasses.Field) or said.init]
        given = dict(zip(names, values))
        fits = len(values) <= len(names) and named.keys().isdisjoint(given) and named.keys() <= set(names)
        given.update(named)
        for name, (_, said) in self.fields.items():
            value = given.get(name, said)
            if value is said and isinstance(said, dataclasses.Field):
                value = said.default if said.default_factory is dataclasses.MISSING else said.default_factory()
            if value is not dataclasses.MISSING:
                object.__setattr__(instance, name, value)
            elif name in names:
                fits = False
        if not fits:
            self.made("__init__")(instance, *values, **named)
        elif hasattr(instance, "__post_init__"):
            instance.__post_init__()

    def made(self, name: str) -> Any:
        """What stands in the class in the end."""
        if isinstance(vars(self.kind)[name], (_Part, _Init)):
            self.finish()
        return vars(self.kind)[name]

    def finish(self) -> None:
        """Let the standard decorator make it all, of a class that has the same fields, and take it from there."""
        content: dict[str, Any] = {name: said for name, (_, said) in self.fields.items() if said is not dataclasses.MISSING}
        content["__annotations__"] = {name: annotation for name, (annotation, _) in self.fields.items()}
        content["__module__"] = self.kind.__module__
        content["__doc__"] = self.kind.__doc__  # without one, a signature would be made for it
        if hasattr(self.kind, "__post_init__"):
            content["__post_init__"] = self.kind.__post_init__
        twin: Any = type(self.kind.__name__, (), content)
        twin = dataclasses.dataclass(init=self._init, frozen=self._frozen, repr=False, eq=False)(twin)
        if self._init:
            twin.__init__.__qualname__ = f"{self.kind.__qualname__}.__init__"
        for name in self.parts():
            if isinstance(vars(self.kind)[name], (_Part, _Init)):
                setattr(self.kind, name, vars(twin)[name])


class _Part:
    """Stands for one thing that the standard decorator puts into a class; made, with the others, when it is looked at."""

    __slots__ = ("_late", "_name")

    def __init__(self, late: _Late, name: str) -> None:
        self._late = late
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        return self._late.made(self._name)


class _Init:
    """Stands for `__init__` while there are few instances and nobody looks at it."""

    __slots__ = ("_late", "_uses")

    def __init__(self, late: _Late) -> None:
        self._late = late
        self._uses = 0

    def __get__(self, instance: object, owner: type) -> Any:
        self._uses += 1
        # From Python 3.13 on, `inspect.signature` asks with the class in the place of an instance.
        if instance is not None and not isinstance(instance, type) and self._uses <= ENOUGH:
            return partial(self._late.fill, instance)
        return self._late.made("__init__").__get__(instance, owner)


def _shown(names: list[str]) -> Method:
    @recursive_repr()
    def __repr__(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join([f'{name}={getattr(self, name)!r}' for name in names])})"

    return __repr__


def _compared(names: list[str], frozen: bool) -> dict[str, Method | None]:
    content = attrgetter(*names)

    def __eq__(self: Any, other: Any) -> Any:
        return content(self) == content(other) if type(other) is type(self) else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(content(self))

    return {"__eq__": __eq__, "__hash__": __hash__ if frozen else None}


def _frozen(late: _Late) -> dict[str, Method]:
    names = list(late.fields)

    # A class that is derived without the decorator may have further attributes, and these may change.
    def __setattr__(self: Any, name: str, value: object) -> None:
        if type(self) is late.kind or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(late.kind, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:
        if type(self) is late.kind or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(late.kind, self).__delattr__(name)

    # For copies and pickles, which would assign.
    def __getstate__(self: Any) -> list[Any]:
        return [getattr(self, name) for name in names]

    def __setstate__(self: Any, state: list[Any]) -> None:
        for name, value in zip(names, state):
            object.__setattr__(self, name, value)

    return {"__setattr__": __setattr__, "__delattr__": __delattr__, "__getstate__": __getstate__, "__setstate__": __setstate__}
