"""What is to be known of nearly every task's function: what to call it, and whether it is to be awaited.

Functions that take more than the context are looked at in `calling.py`. Must not know tasks or flows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_VARARGS, CO_VARKEYWORDS
from types import CodeType, FunctionType
from typing import Any

from .context import Context
from .errors import shown

Called = Callable[[Context], Any]
"""What takes the context alone."""

_NOT_PLAIN = CO_VARARGS | CO_VARKEYWORDS | CO_GENERATOR | CO_ASYNC_GENERATOR


def function_name(function: object) -> str:
    """What to call a function in a sentence."""
    return str(getattr(function, "__qualname__", None) or shown(function))


def plain_kind(function: object) -> bool | None:
    """Of a function of one parameter, whether it is a coroutine function; None where there is more to be looked at."""
    # Nearly every task is one of these; inspect.signature costs ten times as much as all the rest of a definition.
    if type(function) is not FunctionType:
        return None
    code = function.__code__
    if code.co_argcount != 1 or code.co_kwonlyargcount or code.co_flags & _NOT_PLAIN:
        return None
    return bool(code.co_flags & CO_COROUTINE)


def code_of(function: Any) -> CodeType | None:
    """The code that a call of `function` runs, looking through partials, methods and callable objects."""
    while isinstance(function, partial):
        function = function.func
    if isinstance(function, type):
        return None
    for candidate in (function, getattr(function, "__func__", None), getattr(type(function), "__call__", None)):  # noqa: B004
        code = getattr(candidate, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
