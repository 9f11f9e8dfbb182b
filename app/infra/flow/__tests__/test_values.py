"""The value codec: what goes in comes out equal and of the same type, or is refused with where, what and what to do."""

from __future__ import annotations

import builtins
import importlib
import json
import math
import threading
import tracemalloc
from collections import Counter, OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, make_dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from struct import pack
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

from .. import (
    DefinitionError,
    InvalidOptionError,
    StoredValueError,
    UnregisteredTypeError,
    UnregisteredValue,
    UnstorableValueError,
    ValueCodec,
    ValueTooLargeError,
)
from ..codec import _RARE_NAMES, _RARE_TAGS, MAX_DEPTH, MAX_SIZE, as_json, as_text, clean, join, split
from ..rare_values import READERS, TAGS


def vienna() -> ZoneInfo | None:
    """A zone with two ambiguous hours a year; None on a machine without time zone data (plain Windows)."""
    try:
        return ZoneInfo("Europe/Vienna")
    except ZoneInfoNotFoundError:
        return None


VIENNA = vienna()


@dataclass
class Row:
    """A dataclass as people write them."""

    id: int
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    key: str
    row: Row | None = None


@dataclass(slots=True)
class Slotted:
    x: int
    y: Any = None


@dataclass
class Computed:
    """Its constructor computes and counts: none of that may happen again on reading."""

    given: int
    doubled: int = field(init=False)

    def __post_init__(self) -> None:
        self.doubled = self.given * 2
        if self.given < 0:
            raise ValueError("negative")


@dataclass
class Late:
    """Has a field that may not be set yet."""

    a: int
    b: int = field(init=False)


class Color(Enum):
    RED = "red"
    GREEN = ("g", 1)


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Access(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Any


Pair = namedtuple("Pair", ["left", "right"])  # pyright: ignore[reportUntypedNamedTuple] - the old way must work as well
OWN_TYPES = (Row, Frozen, Slotted, Computed, Late, Color, Level, Access, Point, Pair)


@pytest.fixture
def codec() -> ValueCodec:
    """A codec that was told about the types of this file."""
    return ValueCodec(OWN_TYPES)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same type at every level: what `==` leaves open between 1, 1.0 and True, and says wrongly of NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return bool(math.isnan(right)) if math.isnan(left) else (left, math.copysign(1, left)) == (right, math.copysign(1, right))
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, Decimal):
        return bool(left.as_tuple() == right.as_tuple())
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return len(left) == len(right) and all(same(*keys) and same(left[keys[0]], right[keys[1]]) for keys in zip(left, right))
    if isinstance(left, (set, frozenset)):
        return len(left) == len(right) and all(any(same(item, other) for other in right) for item in left)
    if isinstance(left, (datetime, time)):
        return (left.isoformat(), left.fold, left.tzname(), type(left.tzinfo)) == (
            right.isoformat(),
            right.fold,
            right.tzname(),
            type(right.tzinfo),
        )
    if hasattr(left, "__dataclass_fields__"):
        names = [name for name in left.__dataclass_fields__ if hasattr(left, name)]
        return all(hasattr(right, name) and same(getattr(left, name), getattr(right, name)) for name in names)
    return bool(left == right)


VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "int": -7,
    "int beyond 64 bits": 2**64 + 1,
    "int of 4000 digits": 10**4000,
    "int of 6000 digits": 10**6000 + 1,
    "negative int of 6000 digits": -(10**6000),
    "float": 0.1,
    "float that is whole": 3.0,
    "smallest float": 5e-324,
    "minus zero": -0.0,
    "nan": float("nan"),
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "complex": complex(1.5, -0.0),
    "complex of nan": complex(float("nan"), float("-inf")),
    "empty text": "",
    "text": 'Zürich 日本 💾 \u2028 </script> \\ "',
    "NUL": "a\x00b",
    "lone surrogate": "a\ud800b",
    "a pair of lone surrogates": "\ud83d\ude00",
    "surrogates beside the character they would make": ["\ud83d\ude00", "😀", "\ude00\ud83d\ude00\ud83d"],
    "surrogates in keys": {"\ud83d\ude00": {"\udfff": 1}, "a": (1,)},
    "tuple": (1, (2, [3]), ()),
    "list": [1, [2, (3,)], []],
    "dict": {"a": 1, "b": {"c": [None]}},
    "dict in its order": {"z": 1, "a": 2, "m": 3},
    "empty dict": {},
    "set": {1, "a", (2, 3), None},
    "empty set": set(),
    "frozenset": frozenset({frozenset({1}), frozenset()}),
    "bytes": b"\x00\xff ok",
    "empty bytes": b"",
    "bytearray": bytearray(b"\x01"),
    "naive datetime": datetime(2024, 2, 29, 23, 59, 59, 999999),
    "first datetime": datetime.min,
    "last datetime": datetime.max,
    "datetime in UTC": datetime(2024, 1, 1, tzinfo=timezone.utc),
    "datetime with an offset of seconds": datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-5, seconds=-1, microseconds=-3))),
    "datetime with a named offset": datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
    "naive fold": datetime(2024, 10, 27, 2, 30, fold=1),
    "date": date(1, 1, 1),
    "time": time(23, 59, 59, 1),
    "time with fold": time(2, 30, fold=1),
    "time in UTC": time(1, tzinfo=timezone.utc),
    "timedelta": timedelta(days=-1, seconds=5, microseconds=7),
    "longest timedelta": timedelta.max,
    "decimal": Decimal("1.10"),
    "decimal zero": Decimal("-0E-5"),
    "decimal nan": Decimal("sNaN12"),
    "decimal infinity": Decimal("-Infinity"),
    "uuid": UUID(int=5),
    "path": Path("/tmp/a b/ü"),
    "empty path": Path(),
    "pure posix path": PurePosixPath("a/b"),
    "pure windows path": PureWindowsPath(r"C:\a"),
    "int keys": {1: "a", -2: "b"},
    "tuple keys": {(1, "a"): 2, (): 3},
    "None, bool and float keys": {None: 1, True: 2, 2.5: 3, float("inf"): 4},
    "key of 6000 digits": {10**6000: 1},
    "set of 6000 digits": {10**6000},
    "date keys": {date(2024, 1, 1): 1},
    "mixed keys in their order": {"b": 1, 2: 2, "a": 3},
    "dict with a key of ours": {"$": "tuple", "v": [1, 2]},
    "dict with only that key": {"$": 1},
    "that key far inside": [{"a": {"$": {"$": "set"}}}],
    "dataclass": Row(1, ["a"]),
    "frozen dataclass": Frozen("k", Row(2)),
    "frozen dataclass as a key": {Frozen("k"): 1},
    "dataclass with slots": Slotted(1, Slotted(2, (3,))),
    "dataclass whose constructor computes": Computed(4),
    "dataclass with a field not yet set": Late(1),
    "enum": Color.RED,
    "enum of a tuple": Color.GREEN,
    "enum as a key": {Color.RED: 1, Level.LOW: 2},
    "int enum": Level.HIGH,
    "flag": Access.READ,
    "combined flags": Access.READ | Access.WRITE,
    "typed named tuple": Point(1, Point(2, None)),
    "named tuple": Pair((1,), {2}),
    "everything at once": {"rows": [Row(1), (Level.LOW, {b"x": {Decimal(1)}})], 3: Path("a")},
}
if VIENNA is not None:
    VALUES.update(
        {
            "datetime in a zone": datetime(2024, 7, 1, 12, tzinfo=VIENNA),
            "earlier of two ambiguous hours": datetime(2024, 10, 27, 2, 30, tzinfo=VIENNA, fold=0),
            "later of two ambiguous hours": datetime(2024, 10, 27, 2, 30, tzinfo=VIENNA, fold=1),
            "datetime in an hour that does not exist": datetime(2024, 3, 31, 2, 30, tzinfo=VIENNA),
            "time in a zone": time(1, tzinfo=VIENNA),
        }
    )
every_value = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)


@every_value
def test_a_value_comes_back_equal_and_of_the_same_type(codec: ValueCodec, value: Any) -> None:
    assert same(codec.decode(codec.encode(value)), value)


@every_value
def test_the_text_of_a_value_is_json_that_any_file_can_hold(codec: ValueCodec, value: Any) -> None:
    text = codec.encode(value)
    text.encode("utf-8")
    assert "\n" not in text
    assert as_text(as_json(text)) == text
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


@every_value
def test_what_comes_back_is_written_the_same_again(codec: ValueCodec, value: Any) -> None:
    text = codec.encode(value)
    assert codec.encode(codec.decode(text)) == text


@every_value
def test_a_value_is_the_same_inside_others_as_alone(codec: ValueCodec, value: Any) -> None:
    whole = {"list": [value], "tuple": (value,), "dict": {"key": value, 1: value}}
    assert same(codec.decode(codec.encode(whole)), whole)


@pytest.mark.parametrize(
    "unequal", [("a", b"a"), (1, True), (1, 1.0), ([1], (1,)), ({"a": 1}, {"a": 1.0}), ({1}, frozenset({1}))]
)
def test_the_comparison_of_these_tests_tells_types_apart(unequal: tuple[Any, Any]) -> None:
    assert not same(*unequal)


def test_plain_data_reads_as_plain_json() -> None:
    value = {"rows": [1, 2.5, "a", None, True], "ü": {}}
    assert ValueCodec().encode(value) == '{"rows":[1,2.5,"a",null,true],"ü":{}}'


def test_a_value_in_plain_data_is_tagged_where_it_stands_and_nowhere_else(codec: ValueCodec) -> None:
    assert codec.encode({"a": (1,), "b": [2]}) == '{"a":{"$":"tuple","v":[1]},"b":[2]}'


def test_each_reading_makes_a_value_of_its_own(codec: ValueCodec) -> None:
    text = codec.encode({"rows": [1]})
    codec.decode(text)["rows"].append(2)
    assert codec.decode(text) == {"rows": [1]}


def test_writing_changes_nothing_in_the_value(codec: ValueCodec) -> None:
    value = {"$": [(1, {2})], 3: "\ud83d\ude00"}
    codec.encode(value)
    assert value == {"$": [(1, {2})], 3: "\ud83d\ude00"}


def test_one_object_in_two_places_is_no_circle(codec: ValueCodec) -> None:
    shared = (1, 2)
    assert codec.decode(codec.encode([shared, {"a": shared}])) == [(1, 2), {"a": (1, 2)}]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (set("abcdefgh"), set("hgfedcba")),
        ({1, 2, 1024, -5}, {1024, -5, 2, 1}),
        (frozenset({(1, "a"), (0, "b")}), frozenset({(0, "b"), (1, "a")})),
        ({"a", "ä", "\ud800"}, {"\ud800", "ä", "a"}),
        ({"a": {1, 2}}, {"a": {2, 1}}),
    ],
    ids=str,
)
def test_equal_sets_have_equal_texts_in_whatever_order_they_were_filled(codec: ValueCodec, left: Any, right: Any) -> None:
    assert codec.encode(left) == codec.encode(right)


def test_sets_that_collide_are_written_in_the_same_order_too(codec: ValueCodec) -> None:
    # 8 and 16 share a slot of a small set, so its own order tells which came first.
    first, second = set[int](), set[int]()
    for item in (8, 16):
        first.add(item)
    for item in (16, 8):
        second.add(item)
    assert list(first) != list(second)
    assert codec.encode(first) == codec.encode(second)


# --- refused ---


class Text(str):
    __slots__ = ()


class Table(dict[str, int]):
    pass


class Number(float):
    pass


class OwnTuple(tuple[int, ...]):
    __slots__ = ()


class OwnFields:
    _fields = ("x",)


class OwnZone(tzinfo):
    """A zone that nobody else could make again."""

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(0)

    def dst(self, dt: datetime | None) -> None: ...

    def tzname(self, dt: datetime | None) -> str:
        return "own"


# The smallest zone file there can be (RFC 9636): one type of local time, UTC. A zone made of it has no key to find it by again.
ZONE_FILE = b"TZif" + bytes(16) + pack(">6l", 0, 0, 0, 0, 1, 4) + pack(">lbb", 0, 0, 0) + b"UTC\0"


class Opaque:
    pass


class BrokenRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@dataclass
class Unknown:
    x: int


class UnknownEnum(Enum):
    A = 1


class UnknownTuple(NamedTuple):
    x: int


async def coroutine_function() -> None: ...


def generator_function() -> Iterator[int]:
    yield 1


async def async_generator_function() -> Any:
    yield 1


REFUSED: dict[str, tuple[Any, str, str]] = {
    "a lock": (threading.Lock(), "_thread.lock", "return plain data"),
    "a function": (len, "builtin_function_or_method", "return plain data"),
    "a class": (int, "type", "return plain data"),
    "an object": (Opaque(), f"{__name__}.Opaque", "return plain data"),
    "an object whose repr raises": (BrokenRepr(), f"{__name__}.BrokenRepr", "return plain data"),
    "an exception": (ValueError("x"), "ValueError", "return plain data"),
    "a range": (range(3), "range", "return plain data"),
    "a generator": (generator_function(), "generator", "return a list"),
    "an async generator": (async_generator_function(), "async_generator", "return a list"),
    "a subclass of str": (Text("a"), f"{__name__}.Text", "str(...)"),
    "a subclass of float": (Number(1), f"{__name__}.Number", "float(...)"),
    "a subclass of dict": (Table(a=1), f"{__name__}.Table", "dict(...)"),
    "an OrderedDict": (OrderedDict(a=1), "collections.OrderedDict", "dict(...)"),
    "a Counter": (Counter("a"), "collections.Counter", "dict(...)"),
    "a dataclass": (Unknown(1), f"{__name__}.Unknown", "store.register(Unknown)"),
    "an enum": (UnknownEnum.A, f"{__name__}.UnknownEnum", "store.register(UnknownEnum)"),
    "a named tuple": (UnknownTuple(1), f"{__name__}.UnknownTuple", "store.register(UnknownTuple)"),
    "a datetime in a zone of one's own": (datetime(2024, 1, 1, tzinfo=OwnZone()), "datetime.datetime", "use datetime.timezone"),
    "a time in a zone read from a file": (
        time(1, tzinfo=ZoneInfo.from_file(BytesIO(ZONE_FILE))),
        "datetime.time",
        "use datetime.timezone",
    ),
}


@pytest.mark.parametrize(("value", "type_name", "advice"), REFUSED.values(), ids=REFUSED)
def test_a_value_that_cannot_be_stored_is_refused_with_its_place_its_type_and_what_to_do(
    codec: ValueCodec, value: Any, type_name: str, advice: str
) -> None:
    with pytest.raises(UnstorableValueError) as caught:
        codec.encode({"rows": [0, 1, 2, value]}, "output", "load")
    error = caught.value
    assert (error.place, error.type_name, error.task_id) == ('output["rows"][3]', type_name, "load")
    assert advice in error.problem
    assert str(error).startswith(f"Task 'load': output[\"rows\"][3] is of type {type_name}, which cannot be stored: ")


def test_a_coroutine_is_refused_with_the_await_that_was_forgotten(codec: ValueCodec) -> None:
    forgotten = coroutine_function()
    with pytest.raises(UnstorableValueError, match="nobody awaited"):
        codec.encode(forgotten)
    forgotten.close()


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda bad: bad, "output"),
        (lambda bad: [bad], "output[0]"),
        (lambda bad: (1, (bad,)), "output[1][0]"),
        (lambda bad: {"a": {2: bad}}, 'output["a"][2]'),
        (lambda bad: {"it's": bad}, 'output["it\'s"]'),
        (lambda bad: {bad: 1}, "output.key(bad)"),
        (lambda bad: {(1, bad): 1}, "output.key((1, bad))[1]"),
        (lambda bad: {bad}, "output{bad}"),
        (lambda bad: Row(1, bad), "output.tags"),
        (lambda bad: Frozen("k", Row(bad)), "output.row.id"),
        (lambda bad: Point(1, [bad]), "output.y[0]"),
        (lambda bad: {"$": bad}, 'output["$"]'),
        (lambda bad: {"\ud83d\ude00": [bad]}, "output['\\ud83d\\ude00'][0]"),
    ],
)
def test_the_place_of_a_refusal_reads_like_the_python_that_leads_there(
    codec: ValueCodec, make: Callable[[Any], Any], place: str
) -> None:
    class Bad:
        def __repr__(self) -> str:
            return "bad"

    with pytest.raises(UnstorableValueError) as caught:
        codec.encode(make(Bad()), "output")
    assert caught.value.place == place


def test_a_place_stays_short_and_makable_whatever_the_keys_are(codec: ValueCodec) -> None:
    with pytest.raises(UnstorableValueError) as caught:
        codec.encode({"x" * 10_000: [{10**5000: {BrokenRepr()}}]}, "output")
    assert caught.value.place.endswith("x...][0][<int>]{<BrokenRepr>}")
    assert len(caught.value.place) < 250


def test_a_class_that_is_not_registered_has_a_stand_in_where_one_only_looks(codec: ValueCodec) -> None:
    text = codec.encode({"rows": [Row(1, ["a"]), Point(1, 2), Color.RED]}, "output")
    elsewhere = ValueCodec()
    with pytest.raises(UnregisteredTypeError):
        elsewhere.decode(text)
    looked_at = elsewhere.decode(text, strict=False)
    assert [type(item) for item in looked_at["rows"]] == [UnregisteredValue] * 3
    assert looked_at["rows"][0] == UnregisteredValue("Row", {"id": 1, "tags": ["a"]})
    assert hash(looked_at["rows"][0]) == hash(UnregisteredValue("Row", {}))
    assert elsewhere.encode(looked_at, "output") == text, "writing it down again loses nothing"


def test_a_class_that_has_gained_a_field_reads_its_old_values_with_the_default() -> None:
    def codec_of(*extra: Any) -> tuple[Any, ValueCodec]:
        kind = make_dataclass("Grown", [("a", int), *extra])
        kind.__qualname__ = "Grown"
        return kind, ValueCodec((kind,))

    old, old_codec = codec_of()
    text = old_codec.encode(old(1))
    new, new_codec = codec_of(("b", int, field(default=7)), ("c", list, field(default_factory=list)))
    assert new_codec.decode(text) == new(1, 7, [])
    _, strict_codec = codec_of(("b", int))
    with pytest.raises(StoredValueError, match="give that field a default"):
        strict_codec.decode(text)
    assert old_codec.decode(new_codec.encode(new(2))) == old(2), "a field that the class has lost is left out"


def test_an_enum_whose_value_cannot_be_stored_is_refused_at_its_value() -> None:
    class Odd(Enum):
        A = object()

    with pytest.raises(UnstorableValueError) as caught:
        ValueCodec((Odd,)).encode([Odd.A], "output")
    assert caught.value.place == "output[0].value"


def circular_list() -> Any:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


def circular_dict() -> Any:
    value: dict[str, Any] = {}
    value["again"] = (value,)
    return value


def circular_row() -> Any:
    row = Row(1)
    row.tags = [row]  # type: ignore[list-item]
    return row


@pytest.mark.parametrize("make", [circular_list, circular_dict, circular_row])
def test_a_value_that_contains_itself_is_refused_at_the_place_where_it_closes(codec: ValueCodec, make: Callable[[], Any]) -> None:
    with pytest.raises(UnstorableValueError, match="it contains itself") as caught:
        codec.encode(make(), "output")
    assert caught.value.place in ('output[1]["again"]', 'output["again"][0]', "output.tags[0]")


# --- how large ---


@pytest.mark.parametrize(
    "value",
    ["x" * 98, ["x" * 96], b"\x00" * 40, "é" * 98, "\ud800xx", {"key": ("a", 1)}],
    ids=["text", "inside a list", "bytes", "beyond ASCII", "escapes", "a tag"],
)
def test_a_value_may_be_as_long_as_the_limit_and_not_a_character_longer(value: Any) -> None:
    size = len(ValueCodec().encode(value))
    assert len(ValueCodec(max_size=size).encode(value)) == size
    with pytest.raises(ValueTooLargeError) as caught:
        ValueCodec(max_size=size - 1).encode(value, "output", "load")
    error = caught.value
    assert (error.place, error.type_name, error.limit, error.task_id) == ("output", type(value).__name__, size - 1, "load")
    assert f"the limit is {size - 1:,}" in str(error)


@pytest.mark.parametrize("value", ["x" * 2**25, b"x" * 2**24, bytearray(2**24)], ids=lambda value: type(value).__name__)
def test_a_text_or_bytes_beyond_the_limit_are_refused_without_a_copy_of_them(value: Any) -> None:
    codec = ValueCodec()
    tracemalloc.start()
    try:
        with pytest.raises(ValueTooLargeError):
            codec.encode(value, "output")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_limit_is_16_mebi_characters_unless_the_codec_is_told_otherwise() -> None:
    assert ValueCodec().max_size == MAX_SIZE == 16 * 1024 * 1024
    text = "x" * MAX_SIZE
    assert ValueCodec(max_size=MAX_SIZE + 2).encode(text) == f'"{text}"'


@pytest.mark.parametrize("max_size", [0, -1, 1.5, True, None, "16M"])
def test_a_limit_that_makes_no_sense_is_refused(max_size: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"^max_size=.* must be a whole number of characters from 1 on\.$"):
        ValueCodec(max_size=max_size)


def nest(wrap: Callable[[Any], Any], times: int) -> Any:
    value: Any = ()
    for _ in range(times):
        value = wrap(value)
    return value


WRAPS: dict[str, Callable[[Any], Any]] = {
    "lists": lambda value: [value],
    "tuples": lambda value: (value,),
    "dicts": lambda value: {"a": value},
    "dicts of pairs": lambda value: {1: value},
    "frozensets": lambda value: frozenset({value}),
    "dataclasses": lambda value: Slotted(1, value),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_hundred_levels_can_be_stored_and_read_and_one_more_is_refused(codec: ValueCodec, wrap: Callable[[Any], Any]) -> None:
    deepest = nest(wrap, MAX_DEPTH - 1)
    assert codec.decode(codec.encode(deepest)) == deepest
    with pytest.raises(UnstorableValueError, match=f"more than {MAX_DEPTH} levels deep"):
        codec.encode(nest(wrap, MAX_DEPTH), "output")


@pytest.mark.parametrize("wrap", [WRAPS["lists"], WRAPS["dicts"]])
def test_plain_json_may_be_just_as_deep(codec: ValueCodec, wrap: Callable[[Any], Any]) -> None:
    deepest = wrap(1)
    for _ in range(MAX_DEPTH - 1):
        deepest = wrap(deepest)
    assert codec.decode(codec.encode(deepest)) == deepest
    with pytest.raises(UnstorableValueError, match=f"more than {MAX_DEPTH} levels deep"):
        codec.encode(wrap(deepest))


def test_plain_lists_nested_without_end_are_refused_and_not_a_crash(codec: ValueCodec) -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UnstorableValueError, match="levels deep"):
        codec.encode(value)
    while value:  # taken apart by hand: the interpreter's own way recurses on some versions
        value = value.pop()


# --- registering ---


def test_a_registered_type_is_built_without_running_its_constructor(codec: ValueCodec) -> None:
    text = codec.encode(Computed(4)).replace('"given":4', '"given":-4')
    back = codec.decode(text)
    assert (back.given, back.doubled) == (-4, 8)


def test_reading_a_type_that_is_not_registered_here_says_which_and_how_to() -> None:
    text = ValueCodec((Row,)).encode([Row(1)])
    with pytest.raises(UnregisteredTypeError, match=r"'Row'.*store\.register") as caught:
        ValueCodec().decode(text)
    assert caught.value.type_name == "Row"


def test_one_codec_knows_nothing_of_what_another_was_told() -> None:
    ValueCodec().register(Row)
    with pytest.raises(UnstorableValueError):
        ValueCodec().encode(Row(1))


class Fields(dict[str, int]):
    pass


@dataclass
class WithContentOfItsOwn(Fields):
    x: int = 0


@dataclass
class Failed(Exception):
    x: int = 0


@pytest.mark.parametrize(
    "kind", [int, str, dict, tuple, Opaque, Text, OwnTuple, OwnFields, 5, "Row", Row(1), None, list[int]], ids=str
)
def test_only_dataclasses_enums_and_named_tuples_can_be_registered(kind: Any) -> None:
    with pytest.raises(DefinitionError, match="only dataclasses, enums and named tuples"):
        ValueCodec().register(kind)


@pytest.mark.parametrize("kind", [WithContentOfItsOwn, Failed])
def test_a_dataclass_with_content_that_is_in_no_field_is_refused_before_anything_is_lost(kind: type) -> None:
    with pytest.raises(DefinitionError, match="derives from a built-in type"):
        ValueCodec().register(kind)


def redefined(x: int) -> type:
    """The class that a notebook's cell makes, each time it runs."""

    @dataclass
    class Cell:
        value: int = x

    return Cell


def test_a_class_that_is_defined_anew_takes_the_place_of_the_old_one() -> None:
    old, new = redefined(1), redefined(2)
    codec = ValueCodec((old, new))
    assert type(codec.decode(codec.encode(new()))) is new
    assert type(codec.decode(codec.encode(old()))) is new


def test_two_types_of_one_name_from_two_modules_are_refused_naming_both() -> None:
    other = redefined(1)
    other.__module__ = "elsewhere"
    codec = ValueCodec((redefined(1),))
    with pytest.raises(DefinitionError, match=rf"{__name__} and from elsewhere"):
        codec.register(other)


def test_registering_a_type_twice_changes_nothing(codec: ValueCodec) -> None:
    codec.register(Row, Row)
    assert codec.decode(codec.encode(Row(1))) == Row(1)


# --- what a store says is only ever read ---


@pytest.mark.parametrize(
    "text",
    [
        '{"$":"object","type":"subprocess.Popen","v":{"args":"true"}}',
        '{"$":"object","type":"os.system","v":["true"]}',
        '{"$":"object","type":"builtins.eval","v":"1"}',
        '{"$":"object","type":"Opaque","v":{}}',
        '{"$":"object","type":"__main__.Row","v":{}}',
    ],
)
def test_no_text_makes_the_codec_import_or_call_anything(codec: ValueCodec, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    called: list[object] = []
    refused = None
    with monkeypatch.context() as patch:  # and nothing else happens in it: pytest itself could not do without these
        for module, name in ((builtins, "eval"), (builtins, "exec"), (importlib, "import_module"), (builtins, "__import__")):
            patch.setattr(module, name, lambda *arguments, **options: called.append(arguments))
        try:
            codec.decode(text)
        except UnregisteredTypeError as error:
            refused = error
    assert refused is not None
    assert called == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1,]",
        "nonsense",
        '{"$":"new"}',
        '{"$":null}',
        '{"$":["tuple"]}',
        '{"$":{"a":1}}',
        '{"$":"tuple"}',
        '{"$":"tuple","v":5}',
        '{"$":"set","v":[[1]]}',
        '{"$":"dict","v":[1]}',
        '{"$":"dict","v":[[1,2,3]]}',
        '{"$":"dict","v":[[[1],2]]}',
        '{"$":"int","v":"0xzz"}',
        '{"$":"float","v":"abc"}',
        '{"$":"complex","v":["1"]}',
        '{"$":"str","v":[1]}',
        '{"$":"bytes","v":"0"}',
        '{"$":"bytes","v":5}',
        '{"$":"datetime","v":"yesterday"}',
        '{"$":"datetime","v":5}',
        '{"$":"datetime","v":"2024-01-01T00:00:00","zone":"../../etc/passwd"}',
        '{"$":"datetime","v":"2024-01-01T00:00:00","zone":"Europe"}',
        '{"$":"datetime","v":"2024-01-01T00:00:00","zone":"Nowhere/Atlantis"}',
        '{"$":"datetime","v":"2024-01-01T00:00:00","zone":5}',
        '{"$":"datetime","v":"2024-01-01T00:00:00","offset":[9,0,0]}',
        '{"$":"datetime","v":"2024-01-01T00:00:00","offset":[1]}',
        '{"$":"datetime","v":"2024-01-01T00:00:00","fold":7}',
        '{"$":"timedelta","v":[1e99,0,0]}',
        '{"$":"Decimal","v":"abc"}',
        '{"$":"UUID","v":"abc"}',
        '{"$":"Path","v":5}',
        '{"$":"object"}',
        '{"$":"object","type":"Row"}',
        '{"$":"object","type":"Row","v":[1]}',
        '{"$":"object","type":"Slotted","v":{"z":1}}',
        '{"$":"object","type":["Row"],"v":{}}',
        '{"$":"object","type":"Color","v":"blue"}',
        '{"$":"object","type":"Point","v":5}',
        "[" * 100_000 + "]" * 100_000,
        "9" * 5000,
    ],
    ids=lambda text: text[:70] or "nothing",
)
def test_text_that_was_not_written_here_is_refused_as_damaged_and_never_as_something_else(codec: ValueCodec, text: str) -> None:
    with pytest.raises(StoredValueError):
        codec.decode(text)


def test_an_unknown_tag_hints_at_a_newer_version(codec: ValueCodec) -> None:
    with pytest.raises(StoredValueError, match=r"unknown tag 'fraction'; a newer version may have written it"):
        codec.decode('{"$":"fraction","v":[1,2]}')


# --- text around texts ---

TEXTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "plain": {"a": 1, "b": [None, "ü"]},
    "with a key of ours": {"$": {"$": 1}, "a": (1,)},
    "with odd keys": {"": 1, 'a"b\\c\n': 2, "\x00": 3, "ü": 4, "\ud800": 5},
    "with keys that JSON would join": {"\ud83d\ude00": 1, "😀": 2, "a": "\ud83d\ude00"},
    "with tagged values": {"set": {1}, "row": Row(1), "nan": float("inf")},
}


@pytest.mark.parametrize("values", TEXTS.values(), ids=TEXTS)
def test_join_makes_the_text_of_the_dict_and_split_takes_it_apart_again(codec: ValueCodec, values: dict[str, Any]) -> None:
    texts = {key: codec.encode(value) for key, value in values.items()}
    whole = join(texts)
    assert same(codec.decode(whole), values)
    assert split(whole) == texts
    assert list(split(whole)) == list(texts)


@pytest.mark.parametrize("values", TEXTS.values(), ids=TEXTS)
def test_split_takes_apart_what_the_codec_wrote_as_a_whole(codec: ValueCodec, values: dict[str, Any]) -> None:
    assert split(codec.encode(values)) == {key: codec.encode(value) for key, value in values.items()}


@pytest.mark.parametrize(
    ("tree", "text"),
    [(None, "null"), ([1, {"ü": "💾"}], '[1,{"ü":"💾"}]'), ("a\ud800", r'"a\ud800"'), (["ü", "\udfff"], r'["\u00fc","\udfff"]')],
)
def test_plain_data_is_written_readably_and_escaped_only_where_no_file_could_hold_it(tree: Any, text: str) -> None:
    assert as_text(tree) == text
    assert as_json(text) == tree


def test_no_text_is_no_value() -> None:
    assert as_json(None) is None


@pytest.mark.parametrize(("text", "cleaned"), [("abc", "abc"), ("ü💾", "ü💾"), ("a\ud800b", "a\\ud800b"), ("\udcff", "\\udcff")])
def test_text_is_cleaned_of_what_no_store_can_hold_and_of_nothing_else(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


# --- rare types ---


def test_the_rare_types_and_tags_are_known_by_name_before_their_room_is_loaded() -> None:
    assert {kind.__name__ for kind in TAGS} | {"PosixPath", "WindowsPath"} == _RARE_NAMES
    assert _RARE_TAGS == set(TAGS.values()) == READERS.keys()


def test_a_class_of_the_users_that_has_the_name_of_a_rare_type_is_a_class_like_any_other() -> None:
    for name in sorted(_RARE_NAMES):
        kind = make_dataclass(name, ["x"])
        with pytest.raises(UnstorableValueError, match="register the class first"):
            ValueCodec().encode(kind(1))
        codec = ValueCodec((kind,))
        assert codec.decode(codec.encode([kind(1), Decimal(2), UUID(int=3), Path("p")])) == [
            kind(1),
            Decimal(2),
            UUID(int=3),
            Path("p"),
        ]


def test_a_time_zone_that_only_has_the_name_of_the_standard_one_is_refused() -> None:
    kind = type("ZoneInfo", (tzinfo,), {"key": "Europe/Vienna", "utcoffset": lambda *_: timedelta(0)})
    with pytest.raises(UnstorableValueError, match="its tzinfo is a ZoneInfo"):
        ValueCodec().encode(datetime(2024, 1, 1, tzinfo=kind()))
