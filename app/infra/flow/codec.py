"""Turns values into text and back, equal and of the same type. Never imports, calls or unpickles what a store says.

The text is JSON. What JSON has no word for becomes an object with the single key "$" beside its content, such as
`{"$": "tuple", "v": [1, 2]}`; a dict of the user's that has a key "$" is written as a list of pairs, so nothing a user
returns can pass for such an object. Only types named in this file, or registered by the program, are ever built.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from enum import Enum
from functools import cache
from math import isfinite
from types import BuiltinFunctionType, ModuleType
from typing import Any

from .errors import (
    DefinitionError,
    InvalidOptionError,
    StoredValueError,
    UnregisteredTypeError,
    UnstorableValueError,
    ValueTooLargeError,
    place_of,
    shown,
)
from .late_dataclass import dataclass
from .models import AttemptResult, ExecutionState, TaskType

MAX_SIZE = 16 * 2**20
"""Characters of the text of one value, unless the codec is told otherwise."""
MAX_DEPTH = 100
"""How deeply containers may nest. Python's own JSON reader recurses, and a tag adds levels of its own."""

TAG = "$"
"""The key that marks an object as one of the codec's own."""
_BIG = 1 << 10_000  # beyond some 4,300 digits Python refuses to write an int in decimal; hexadecimal has no limit
_SHORT = 1 << 60
_to_text: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
_to_ascii: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
_PAIR = "(?<=[\ud800-\udbff])(?=[\udc00-\udfff])"  # between two surrogates that JSON would read as one character
_PLAIN_SCALARS = frozenset({str, bool, type(None)})
_WIDTHS: dict[type, int] = {str: 1, bytes: 2, bytearray: 2}  # characters of text that each element takes at least


def _is_plain(value: Any, depth: int) -> bool:
    """Whether JSON itself says all there is to say about `value`. Exact types only: a subclass would come back as its base."""
    kind = type(value)
    if kind in _PLAIN_SCALARS:
        return True
    if kind is int:
        return bool(-_BIG < value < _BIG)
    if kind is float:
        return isfinite(value)
    if depth >= MAX_DEPTH:
        return False
    if kind is list:
        return all(_is_plain(item, depth + 1) for item in value)
    if kind is dict:
        return all(type(key) is str and key != TAG and _is_plain(item, depth + 1) for key, item in value.items())
    return False


@dataclass(frozen=True, slots=True)
class UnregisteredValue:
    """Stands in for a value whose class is not registered, where stored runs are only looked at."""

    type_name: str
    content: Any
    """The stored fields: a dict of a dataclass's, a list of a named tuple's, the value of an enum."""

    def __hash__(self) -> int:
        return hash(self.type_name)


class ValueCodec:
    """The types that a store can write and read. One codec belongs to one store; `register` adds the user's own types.

    Args:
        types: dataclasses, enums and named tuples to register from the start.
        max_size: how many characters the text of one value may have: of a task's output, or of one param.

    Raises:
        DefinitionError: a type cannot be registered.
        InvalidOptionError: `max_size` is not a whole number from 1 on.
    """

    def __init__(self, types: tuple[type, ...] = (), max_size: int = MAX_SIZE) -> None:
        if type(max_size) is not int or max_size < 1:
            raise InvalidOptionError("max_size", max_size, "a whole number of characters from 1 on")
        self.max_size = max_size
        self._names: dict[type, str] = {}
        self._types: dict[str, type] = {}
        self._make_readers()
        self.register(ExecutionState, TaskType, AttemptResult, *types)

    def _make_readers(self) -> None:
        # Made once: json.loads with a hook makes a decoder for each text.
        self._read: Callable[[str], Any] = json.JSONDecoder(object_hook=self._untag).decode
        self._read_leniently: Callable[[str], Any] = json.JSONDecoder(object_hook=self._untag_leniently).decode

    # For copies and pickles, which cannot take decoders along.
    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_read", "_read_leniently")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_readers()

    def register(self, *types: type) -> None:
        """Let values of these dataclasses, enums or named tuples be stored.

        They are stored under their qualified class name; a class that moves must keep it, or old values do not read.

        Raises:
            DefinitionError: a type is none of the three, derives from a built-in type that holds content of its own, or has
                the name of another that is registered.
        """
        for kind in types:
            if not (isinstance(kind, type) and (dataclasses.is_dataclass(kind) or _is_enum(kind) or _is_namedtuple(kind))):
                raise DefinitionError(
                    f"{kind!r} cannot be registered: only dataclasses, enums and named tuples are stored field by field. "
                    "Turn other values into one of these, or into plain data, before a task returns them."
                )
            if (
                dataclasses.is_dataclass(kind)
                and isinstance(kind.__new__, BuiltinFunctionType)
                and kind.__new__ is not object.__new__
            ):
                raise DefinitionError(
                    f"{kind!r} cannot be registered: it derives from a built-in type, whose own content would not be stored. "
                    "Give it a field for that content instead."
                )
            name = kind.__qualname__
            known = self._types.get(name)
            # A notebook defines the same class anew each time its cell runs: the newest of one module is meant.
            if known is not None and known is not kind and known.__module__ != kind.__module__:
                raise DefinitionError(
                    f"Two types named {name!r} cannot be told apart in a store "
                    f"(from {known.__module__} and from {kind.__module__}). Rename one of them."
                )
            self._types[name] = kind
            self._names[kind] = name

    # --- writing ---

    def encode(self, value: Any, place: str = "value", task_id: str | None = None) -> str:
        """The text of a value.

        Args:
            value: what to write.
            place: what the value is called in an error, e.g. `output`.
            task_id: the task it comes from, named in an error.

        Raises:
            UnstorableValueError: a type in it cannot be stored; the error says which and where.
            ValueTooLargeError: the text is longer than `max_size`.
        """
        kind = type(value)
        if kind is int and -_SHORT < value < _SHORT and self.max_size >= 20:
            return int.__repr__(value)  # as below, in a tenth of the time
        # Known beforehand, and the most usual way to be too large: no copy of it is made to find that out.
        width = _WIDTHS.get(kind)
        if width is not None and len(value) * width > self.max_size:
            raise self._too_large(place, value, len(value) * width, task_id)
        text = self.encode_unlimited(value, place, task_id)
        if len(text) > self.max_size:
            raise self._too_large(place, value, len(text), task_id)
        return text

    def _too_large(self, place: str, value: Any, size: int, task_id: str | None) -> ValueTooLargeError:
        return ValueTooLargeError(place, _name_of(type(value)), size, self.max_size, task_id)

    def encode_unlimited(self, value: Any, place: str = "value", task_id: str | None = None) -> str:
        """As `encode`, but of whatever length: for what the engine itself has bounded."""
        tree = value if _is_plain(value, 0) else _Writer(self._names, task_id).tree(value, place, 0)
        text = _to_text(tree)
        if not _needs_escapes(text):
            return text
        if re.search(_PAIR, text):
            tree = _Writer(self._names, task_id, split_pairs=True).tree(value, place, 0)
        return _to_ascii(tree)

    # --- reading ---

    def decode(self, text: str, strict: bool = True) -> Any:
        """The value that `text` was made of: each call makes a new one.

        Args:
            text: what `encode` wrote.
            strict: whether a type that is not registered here is an error; if not, an `UnregisteredValue` stands in for it.

        Raises:
            UnregisteredTypeError: a type in it was registered when it was written, but is not here.
            StoredValueError: the text is not one that `encode` writes.
        """
        try:
            return (self._read if strict else self._read_leniently)(text)
        except (UnregisteredTypeError, StoredValueError):
            raise
        except Exception as error:  # of whatever kind: text that is not ours may break any reader in any way
            raise StoredValueError(f"{type(error).__name__}: {error}") from error

    def _untag(self, tree: dict[str, Any]) -> Any:
        if TAG not in tree:
            return tree
        tag = tree[TAG]
        if tag == "object":
            return self._build(tree["type"], tree["v"])
        reader = _READERS.get(tag)
        if reader is None and tag in _RARE_TAGS:
            return _rare().READERS[tag](tree["v"])
        if reader is None:
            raise StoredValueError(f"it has the unknown tag {tag!r}; a newer version may have written it")
        return reader(tree)

    def _untag_leniently(self, tree: dict[str, Any]) -> Any:
        if tree.get(TAG) == "object" and tree["type"] not in self._types:
            return UnregisteredValue(tree["type"], tree["v"])
        return self._untag(tree)

    def _build(self, name: str, content: Any) -> Any:
        kind = self._types.get(name)
        if kind is None:
            raise UnregisteredTypeError(name)
        if _is_enum(kind):
            return kind(content)
        if _is_namedtuple(kind):
            return tuple.__new__(kind, content)
        # Not through __init__: that may compute, refuse or count, and the stored fields are the truth.
        value: Any = object.__new__(kind)
        for field in dataclasses.fields(kind):
            if field.name in content:
                object.__setattr__(value, field.name, content[field.name])
            elif field.default is not dataclasses.MISSING:  # the class has gained a field since
                object.__setattr__(value, field.name, field.default)
            elif field.default_factory is not dataclasses.MISSING:
                object.__setattr__(value, field.name, field.default_factory())
            elif field.init:
                raise StoredValueError(f"it has no {field.name!r}, which a {name} needs now; give that field a default")
        return value


def _is_enum(kind: type) -> bool:
    return issubclass(kind, Enum)


def _is_namedtuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def as_json(text: str | None) -> Any:
    """Stored text as plain JSON data, tags left as they are: for pages and files that show values but build none."""
    return None if text is None else json.loads(text)


def as_text(tree: Any) -> str:
    """Plain JSON data as stored text: the reverse of `as_json`."""
    text = _to_text(tree)
    return _to_ascii(tree) if _needs_escapes(text) else text


def _needs_escapes(text: str) -> bool:
    """Whether a lone surrogate is in it, which only an escape can hold."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return True
    return False


def clean(text: str) -> str:
    """Text that any store can hold: lone surrogates, which no encoding has bytes for, are written out as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def join(texts: Mapping[str, str]) -> str:
    """The text of the dict whose values' texts are given, without reading any of them."""
    if TAG in texts or any(not key.isascii() and re.search(_PAIR, key) for key in texts):
        pairs = ",".join(f"[{_to_ascii(_in_pieces(key))},{text}]" for key, text in texts.items())
        return f'{{"$":"dict","v":[{pairs}]}}'
    return "{" + ",".join(f"{_to_ascii(key)}:{text}" for key, text in texts.items()) + "}"


def join_list(texts: Iterable[str]) -> str:
    """The text of the list whose items' texts are given, without reading any of them."""
    return f"[{','.join(texts)}]"


def split(text: str) -> dict[str, str]:
    """The reverse of `join`: the text of each value of a dict with string keys, without building any of them."""
    tree = json.loads(text)
    if TAG in tree:
        return {key if type(key) is str else "".join(key["v"]): as_text(item) for key, item in tree["v"]}
    return {key: as_text(item) for key, item in tree.items()}


def _in_pieces(text: str) -> Any:
    """Text whose escapes JSON would read as another, in pieces that it reads as they are."""
    return {TAG: "str", "v": re.split(_PAIR, text)} if re.search(_PAIR, text) else text


class _Writer:
    """Makes the tagged tree of one value, keeping track of the way down to it for errors and circles."""

    def __init__(self, names: Mapping[type, str], task_id: str | None, split_pairs: bool = False) -> None:
        self._names = names
        self._task_id = task_id
        self._split_pairs = split_pairs
        self._open: set[int] = set()

    def tree(self, value: Any, place: str, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return _in_pieces(value) if self._split_pairs else value
        if kind in _PLAIN_SCALARS:
            return value
        if kind is int:
            return value if -_BIG < value < _BIG else {TAG: "int", "v": hex(value)}
        if kind is float:
            return value if isfinite(value) else {TAG: "float", "v": repr(value)}
        writer = _LEAF_WRITERS.get(kind)
        if writer is not None:
            return writer(value, lambda problem: self._refuse(place, kind, problem))
        if kind.__name__ in _RARE_NAMES and kind in _rare().TAGS:
            return {TAG: _rare().TAGS[kind], "v": str(value)}
        if depth >= MAX_DEPTH:
            raise self._refuse(place, kind, f"it is nested more than {MAX_DEPTH} levels deep")
        if id(value) in self._open:
            raise self._refuse(place, kind, "it contains itself")
        self._open.add(id(value))
        try:
            return self._container(kind, value, place, depth + 1)
        finally:
            self._open.discard(id(value))

    def _container(self, kind: type, value: Any, place: str, depth: int) -> Any:
        if kind is list:
            return self._items(value, place, depth)
        if kind is tuple:
            return {TAG: "tuple", "v": self._items(value, place, depth)}
        if kind is dict:
            return self._dict(value, place, depth)
        if kind is set or kind is frozenset:
            items = [self.tree(item, f"{place}{{{shown(item)}}}", depth) for item in value]
            # In an order of its own, so that equal sets have equal texts.
            return {TAG: kind.__name__, "v": sorted(items, key=_to_ascii)}
        if kind is UnregisteredValue:
            return {TAG: "object", "type": value.type_name, "v": self.tree(value.content, place, depth)}
        name = self._names.get(kind)
        if name is None:
            raise self._refuse(place, kind, _advice(kind))
        return {TAG: "object", "type": name, "v": self._fields(kind, value, place, depth)}

    def _fields(self, kind: type, value: Any, place: str, depth: int) -> Any:
        if _is_enum(kind):
            return self.tree(value.value, f"{place}.value", depth)
        if _is_namedtuple(kind):
            return [self.tree(item, f"{place}.{field}", depth) for field, item in zip(kind._fields, value)]  # type: ignore[attr-defined]
        return {
            field.name: self.tree(getattr(value, field.name), f"{place}.{field.name}", depth)
            for field in dataclasses.fields(kind)
            if hasattr(value, field.name)
        }

    def _items(self, items: Any, place: str, depth: int) -> list[Any]:
        return [self.tree(item, f"{place}[{index}]", depth) for index, item in enumerate(items)]

    def _dict(self, value: dict[Any, Any], place: str, depth: int) -> Any:
        if all(type(key) is str and key != TAG and not (self._split_pairs and re.search(_PAIR, key)) for key in value):
            return {key: self.tree(item, place_of(key, place), depth) for key, item in value.items()}
        pairs = [
            [self.tree(key, f"{place}.key({shown(key)})", depth), self.tree(item, place_of(key, place), depth)]
            for key, item in value.items()
        ]
        return {TAG: "dict", "v": pairs}

    def _refuse(self, place: str, kind: type, problem: str) -> UnstorableValueError:
        return UnstorableValueError(place, _name_of(kind), problem, self._task_id)


def _name_of(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _advice(kind: type) -> str:
    if dataclasses.is_dataclass(kind) or _is_enum(kind) or _is_namedtuple(kind):
        return f"register the class first, with store.register({kind.__name__})"
    if kind.__name__ == "coroutine":
        return "it is a coroutine that nobody awaited; declare the task with `async def`, or await it inside"
    if kind.__name__ in ("generator", "async_generator"):
        return "it is a generator, whose items exist only once; return a list of them"
    for base in kind.__mro__[1:]:
        if base in (str, int, float, bool, list, dict, tuple, set, frozenset, bytes):
            return f"subclasses lose their type in a store; convert it, for example with {base.__name__}(...)"
    return "return plain data instead, or a dataclass registered with store.register(...)"


# --- the types that need a tag, each with how it is written and read ---

_Refuse = Callable[[str], UnstorableValueError]


def _write_zone(zone: tzinfo | None, refuse: _Refuse) -> dict[str, Any]:
    if zone is None or type(zone) is timezone:  # isoformat says it all
        return {}
    # By its name first: a zone of the user's own is asked nothing, and nothing is loaded for it.
    if type(zone).__name__ == "ZoneInfo" and type(zone) is _rare().ZONE:
        key = getattr(zone, "key", None)
        if key:
            return {"zone": key}
    raise refuse(f"its tzinfo is a {type(zone).__name__}; use datetime.timezone or zoneinfo.ZoneInfo")


def _write_moment(tag: str) -> Callable[[Any, _Refuse], dict[str, Any]]:
    def write(value: Any, refuse: _Refuse) -> dict[str, Any]:
        tree = {TAG: tag, "v": value.replace(tzinfo=None).isoformat(), **_write_zone(value.tzinfo, refuse)}
        if type(value.tzinfo) is timezone:
            offset = value.tzinfo.utcoffset(None)
            tree["offset"] = [offset.days, offset.seconds, offset.microseconds]
            name = value.tzinfo.tzname(None)
            if name != timezone(offset).tzname(None):
                tree["name"] = name
        if value.fold:
            tree["fold"] = 1
        return tree

    return write


def _read_moment(parse: Callable[[str], Any]) -> Callable[[dict[str, Any]], Any]:
    def read(tree: dict[str, Any]) -> Any:
        zone: tzinfo | None = None
        if "zone" in tree:
            zone = _rare().ZONE(tree["zone"])
        elif "offset" in tree:
            days, seconds, microseconds = tree["offset"]
            offset = timedelta(days, seconds, microseconds)
            zone = timezone(offset, tree["name"]) if "name" in tree else timezone(offset)
        return parse(tree["v"]).replace(tzinfo=zone, fold=tree.get("fold", 0))

    return read


def _as_text(tag: str, write: Callable[[Any], str]) -> Callable[[Any, _Refuse], dict[str, Any]]:
    return lambda value, _: {TAG: tag, "v": write(value)}


_LEAF_WRITERS: dict[type, Callable[[Any, _Refuse], dict[str, Any]]] = {
    bytes: _as_text("bytes", bytes.hex),
    bytearray: _as_text("bytearray", bytearray.hex),
    datetime: _write_moment("datetime"),
    time: _write_moment("time"),
    date: _as_text("date", date.isoformat),
    timedelta: lambda value, _: {TAG: "timedelta", "v": [value.days, value.seconds, value.microseconds]},
    complex: lambda value, _: {TAG: "complex", "v": [repr(value.real), repr(value.imag)]},
}

_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "str": lambda tree: "".join(tree["v"]),
    "int": lambda tree: int(tree["v"], 16),
    "float": lambda tree: float(tree["v"]),
    "complex": lambda tree: complex(float(tree["v"][0]), float(tree["v"][1])),
    "tuple": lambda tree: tuple(tree["v"]),
    "set": lambda tree: set(tree["v"]),
    "frozenset": lambda tree: frozenset(tree["v"]),
    "dict": lambda tree: {key: item for key, item in tree["v"]},  # noqa: C416 - dict() would take any pairs-like text
    "bytes": lambda tree: bytes.fromhex(tree["v"]),
    "bytearray": lambda tree: bytearray.fromhex(tree["v"]),
    "datetime": _read_moment(datetime.fromisoformat),
    "time": _read_moment(time.fromisoformat),
    "date": lambda tree: date.fromisoformat(tree["v"]),
    "timedelta": lambda tree: timedelta(*tree["v"]),
}

# By these names the room of rare values is known to be needed, before it is loaded.
_RARE_NAMES = frozenset({"Decimal", "UUID", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"})
_RARE_TAGS = frozenset({"Decimal", "UUID", "Path", "PurePosixPath", "PureWindowsPath"})


@cache
def _rare() -> ModuleType:
    from . import rare_values  # late: it loads modules of the standard library that take half as long as the whole engine

    return rare_values
