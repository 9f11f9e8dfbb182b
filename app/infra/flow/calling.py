"""What an attempt calls: a task's own function, or one that asks its condition first and hands on what its parameters name.

Functions are checked here as they are declared. Must not know flows, runs or executors.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import Parameter
from types import CoroutineType, FunctionType
from typing import Any, NamedTuple

from .context import Context
from .errors import InvalidOptionError, SkipTask, TaskFunctionError, closest, shortened, shown
from .functions import Called, code_of, function_name, plain_kind
from .late_dataclass import dataclass
from .options import named_params

_OPEN = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_TAKEN = (Parameter.POSITIONAL_ONLY, *_OPEN)
_AS_WRITTEN: dict[str, Any] = {"annotation_format": 3} if sys.version_info >= (3, 14) else {}
"""`annotationlib.Format.FORWARDREF`: the names in annotations may be such as a type checker alone knows."""
_FIRST = ""
"""In place of a parameter's name: the first one behind the context, which is filled by its position."""


# --- what is called ---


@dataclass(frozen=True, slots=True)
class Filled:
    """A function with more parameters than the context: the others get the outputs of dependencies, and the item.

    Goes to another process as the function does, by its name.
    """

    func: Callable[..., Any]
    """The user's."""
    pulled: tuple[str, ...]
    """Its parameters that are called like a dependency."""
    item: str | None
    """The parameter that gets the item of a mapped task."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Filled, (self.func, self.pulled, self.item)

    def __repr__(self) -> str:
        return f"<Filled {function_name(self.func)}>"

    def __call__(self, ctx: Context) -> Any:
        """Call it with what its parameters name."""
        given = {task_id: ctx.pull_output(task_id) for task_id in self.pulled}
        if self.item is None:
            return self.func(ctx, **given)
        if self.item == _FIRST:
            return self.func(ctx, ctx.item, **given)
        return self.func(ctx, **given, **{self.item: ctx.item})


@dataclass(frozen=True, slots=True)
class Asking:
    """A function with a condition, which is asked first, in the same place: the attempt is skipped where that says no."""

    func: Called
    run_if: Called
    name: str
    """Of the condition, for the reason."""
    is_async: bool
    """Whether the function is a coroutine function; then the condition may be one, too."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Asking, (self.func, self.run_if, self.name, self.is_async)

    def __repr__(self) -> str:
        return f"<Asking {self.name} before {function_name(self.func)}>"

    def __call__(self, ctx: Context) -> Any:
        """Ask, and call it if it may be; of a coroutine function, what is to be awaited."""
        if self.is_async:
            return self._later(ctx)
        answer = self.run_if(ctx)
        if hasattr(type(answer), "__await__"):  # it would count as a yes
            if type(answer) is CoroutineType:
                answer.close()  # the failure says that nobody awaited it; Python need not say so again
            raise TaskFunctionError(ctx.task_id, f"run_if={self.name}", _NOT_AWAITED)
        self._heed(answer)
        return self.func(ctx)

    async def _later(self, ctx: Context) -> Any:
        answer = self.run_if(ctx)
        self._heed(await answer if hasattr(type(answer), "__await__") else answer)
        return await self.func(ctx)

    def _heed(self, answer: object) -> None:
        if not answer:
            raise SkipTask(f"run_if ({self.name}) said no")


_NOT_AWAITED = "what it returned has to be awaited, which is done for coroutine tasks alone; let it return True or False"


@dataclass(frozen=True, slots=True)
class OwnParams:
    """What makes a subflow's own params in a place where a task's function would run."""

    func: Any
    """A function of the parent's context that makes them, or these params."""

    def __repr__(self) -> str:
        return f"<OwnParams by {function_name(self.func)}>" if callable(self.func) else "<OwnParams>"

    def __call__(self, ctx: Context) -> dict[str, Any]:
        """The params."""
        if self.func is None:
            return {}
        return dict(named_params(self.func(ctx) if callable(self.func) else self.func, ctx.task_id))


def takes(called: Called | None, task_id: str) -> bool:
    """Whether a parameter gets the output of that task."""
    if isinstance(called, Asking):
        return takes(called.func, task_id) or takes(called.run_if, task_id)
    return isinstance(called, Filled) and task_id in called.pulled


# --- what is made of the functions that were declared ---


def task_call(
    task_id: str, function: Any, upstream: Sequence[str] = (), mapped: bool = False, run_if: Any = None
) -> tuple[Called, bool]:
    """What an attempt of a task calls, and whether that is to be awaited. Without more to do, it is the function itself.

    Args:
        task_id: the task.
        function: the user's.
        upstream: the ids of the tasks that it depends on: their outputs go to the parameters of these names.
        mapped: whether the first of the other parameters gets the item.
        run_if: the condition, with parameters as the function.

    Raises:
        TaskFunctionError: the function or the condition is not callable, a generator, or has a parameter that nobody fills.
        InvalidOptionError: the condition is a coroutine function, and the function is none.
    """
    called, is_async = checked(task_id, function, upstream, mapped)
    if run_if is None:
        return called, is_async
    return _asking(task_id, called, is_async, run_if, upstream, mapped), is_async


def subflow_call(task_id: str, params: Any, upstream: Sequence[str], mapped: bool, run_if: Any) -> Called | None:
    """What is called before a subflow's run is made, if anything is: its condition, and a function that makes its params.

    Raises:
        TaskFunctionError: as `task_call`.
        InvalidOptionError: one of them is a coroutine function, or the params are neither a mapping nor a function.
    """
    if params is not None and not isinstance(params, Mapping):
        expected = "a mapping, or a plain function of the parent's context"
        if not callable(params):
            raise InvalidOptionError("params", params, expected, task_id)
        function, is_async = checked(task_id, params, upstream, mapped)
        if is_async:
            raise InvalidOptionError("params", params, expected, task_id)
        params = function
    elif run_if is None:
        return None
    called = OwnParams(params)
    return called if run_if is None else _asking(task_id, called, False, run_if, upstream, mapped)


def _asking(task_id: str, called: Called, is_async: bool, run_if: Any, upstream: Sequence[str], mapped: bool) -> Asking:
    condition, must_be_awaited = checked(task_id, run_if, upstream, mapped)
    if must_be_awaited and not is_async:
        expected = "a plain function: a coroutine function can be awaited before a coroutine task alone"
        raise InvalidOptionError("run_if", run_if, expected, task_id)
    return Asking(called, condition, inner_name(run_if), is_async)


def inner_name(function: Any) -> str:
    """What to call a function that something may have been bound to."""
    while isinstance(function, partial):
        function = function.func
    return function_name(function)


def checked(task_id: str, function: Any, upstream: Sequence[str] = (), mapped: bool = False) -> tuple[Called, bool]:
    """A function of a user's as one that takes the context alone, and whether it is a coroutine function.

    Raises:
        TaskFunctionError: it is not callable, a generator, or has a parameter that nobody fills.
    """
    is_async = plain_kind(function)
    if is_async is not None:
        return function, is_async
    called = _filled(task_id, function, upstream, mapped)
    code = code_of(function)
    flags = code.co_flags if code is not None else 0
    if flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        problem = "it is a generator function (it yields); return a list of the items instead"
        raise TaskFunctionError(task_id, function_name(function), problem)
    return called, bool(flags & inspect.CO_COROUTINE)


def _filled(task_id: str, function: Any, upstream: Sequence[str], mapped: bool) -> Called:
    if not callable(function):
        raise TaskFunctionError(task_id, shown(function), "it is not callable")
    called: Called = function
    parameters = _parameters(function)
    if parameters is None:
        if isinstance(function, partial) and _signature(function.func) is not None:  # it binds more than there is to bind
            raise TaskFunctionError(task_id, function_name(function), _wrong_arguments(function))
        return called  # some builtins and mocks do not tell theirs, and the call will show
    own = _behind_the_context(parameters)
    if own is None:
        raise TaskFunctionError(task_id, function_name(function), _wrong_arguments(function))
    known = own
    if any(one.kind is Parameter.VAR_KEYWORD for one in own) and hasattr(function, "__wrapped__"):
        # A decorator that hands on whatever it gets. What else the function inside wants, the decorator may bring itself.
        inside = _behind_the_context(_told(_signature(function))) or []
        known = own + [one for one in inside if all(one.name != other.name for other in own)]
    bound = _bound_in(function)
    free = [one for one in known if one.kind in _OPEN and one.name not in bound]
    pulled = tuple([one.name for one in free if one.name in upstream])
    item = _item_parameter(own, [one for one in free if one.name not in pulled]) if mapped else None
    filled = {*pulled, own[0].name if item == _FIRST else item}
    for one in own:
        if one.required and one.name not in filled:
            raise TaskFunctionError(task_id, function_name(function), _nobody_fills(one.name, function, upstream, pulled))
    return Filled(called, pulled, item) if pulled or item is not None else called


class _Taken(NamedTuple):
    """What is to be known of a parameter."""

    name: str
    kind: Any
    required: bool


def _parameters(function: Any) -> list[_Taken] | None:
    """The parameters that a call has to do with, whatever it hands them on to; None where they are not told."""
    if not isinstance(function, FunctionType) or function.__dict__:  # which may hold a signature of its own
        return _told(_signature(function, follow_wrapped=False) or _signature(function))
    # In a tenth of the time of inspect.signature.
    code = function.__code__
    count, first_default = code.co_argcount, code.co_argcount - len(function.__defaults__ or ())
    found = [
        _Taken(name, Parameter.POSITIONAL_ONLY if place < code.co_posonlyargcount else _OPEN[0], place < first_default)
        for place, name in enumerate(code.co_varnames[:count])
    ]
    if code.co_flags & inspect.CO_VARARGS:
        found.append(_Taken(code.co_varnames[count + code.co_kwonlyargcount], Parameter.VAR_POSITIONAL, False))
    given = function.__kwdefaults__ or {}
    keywords = code.co_varnames[count : count + code.co_kwonlyargcount]
    found += [_Taken(name, Parameter.KEYWORD_ONLY, name not in given) for name in keywords]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        found.append(_Taken("", Parameter.VAR_KEYWORD, False))
    return found


def _told(signature: inspect.Signature | None) -> list[_Taken] | None:
    if signature is None:
        return None
    return [_Taken(one.name, one.kind, one.default is one.empty and one.kind in _TAKEN) for one in signature.parameters.values()]


def _behind_the_context(parameters: list[_Taken] | None) -> list[_Taken] | None:
    """The parameters that are left when the context has taken its place; None where it finds none."""
    if not parameters or parameters[0].kind in (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD):
        return None
    return parameters if parameters[0].kind is Parameter.VAR_POSITIONAL else parameters[1:]


def _item_parameter(own: list[_Taken], free: list[_Taken]) -> str | None:
    """The parameter that gets the item: the first of those that have no default, or else one that is called `item`.

    Not just any: by a default a function that is made in a loop keeps what it was made with, `lambda ctx, region=region: ...`.
    """
    if own and own[0].kind is Parameter.POSITIONAL_ONLY:  # further back, no name would reach it
        free = [own[0], *free]
    chosen = next((one for one in free if one.required), None) or next((one for one in free if one.name == "item"), None)
    if chosen is None:
        return None
    return _FIRST if chosen is own[0] and chosen.kind is not Parameter.KEYWORD_ONLY else chosen.name


def _bound_in(function: Any) -> set[str]:
    """The keywords that partials have bound: whoever did so meant it, whatever a dependency is called."""
    bound: set[str] = set()
    while isinstance(function, partial):
        bound |= function.keywords.keys()
        function = function.func
    return bound


def _signature(function: Any, follow_wrapped: bool = True) -> inspect.Signature | None:
    """The signature, or None where it is not told."""
    try:
        return inspect.signature(function, follow_wrapped=follow_wrapped, **_AS_WRITTEN)
    except (TypeError, ValueError):
        return None


def _wrong_arguments(function: Any) -> str:
    signature = _signature(function) or "(...)"
    return f"it is called with one argument, the context, but has the signature {signature}; write `def task(ctx): ...`"


def _nobody_fills(name: str, function: Any, upstream: Sequence[str], pulled: Sequence[str]) -> str:
    near = closest(name, [task_id for task_id in upstream if task_id not in pulled])
    depends_on = shortened([repr(task_id) for task_id in upstream], ", ") or "nothing"
    return (
        f"its parameter {name!r} is called like none of the tasks that it depends on ({depends_on}), so nobody fills it."
        f"{f' Did you mean {near!r}?' if near else ''} It has the signature {_signature(function)}; "
        "write `def task(ctx): ...`, and behind the context the names of dependencies whose outputs it takes"
    )
