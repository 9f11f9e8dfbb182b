"""The value codec under values that nobody thought of, made by Hypothesis; skipped where that is not installed."""

from __future__ import annotations

from datetime import timedelta, timezone
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="property tests need Hypothesis: pip install -r requirements-dev.txt")

from hypothesis import example, given, settings  # noqa: E402 - only once it is known to be there
from hypothesis import strategies as st  # noqa: E402

from .. import StoredValueError, UnregisteredTypeError, ValueCodec  # noqa: E402
from ..codec import as_json, as_text, clean, join, split  # noqa: E402
from .test_values import OWN_TYPES, Color, Frozen, Level, Pair, Point, Row, Slotted, same  # noqa: E402

CODEC = ValueCodec(OWN_TYPES)

any_text = st.text(st.characters(exclude_categories=())) | st.text("\ud83d\ude00a$") | st.sampled_from(["$", "v", "\x00"])
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
zones = st.none() | offsets
paths = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=10)
hashable_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(4290, 4310).map(lambda digits: -(10**digits))
    | st.floats()
    | st.complex_numbers()
    | any_text
    | st.binary(max_size=20)
    | st.datetimes(timezones=zones)
    | st.times(timezones=zones)
    | st.dates()
    | st.timedeltas()
    | st.decimals().filter(lambda value: not value.is_snan())
    | st.uuids()
    | st.sampled_from([*Color, *Level])
    | paths.map(Path)
    | paths.map(PurePosixPath)
    | paths.map(PureWindowsPath)
)
hashables = st.recursive(
    hashable_scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(inner, max_size=3)
        | st.builds(Frozen, any_text, st.none())
        | st.builds(Point, inner, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=5,
)
values = st.recursive(
    hashables | st.binary(max_size=20).map(bytearray) | st.sets(hashables, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(any_text, inner, max_size=4)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.builds(Row, st.integers(), st.lists(any_text, max_size=2))
        | st.builds(Slotted, st.integers(), inner)
    ),
    max_leaves=15,
)
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text.filter(lambda key: key != "$"), inner, max_size=4),
    max_leaves=15,
)
thorough = settings(max_examples=150, deadline=None, database=None)


@thorough
@given(values)
@example({"\ud83d": {"\ude00": "\ud83d\ude00"}})
def test_every_value_comes_back_equal_and_of_the_same_type_from_text_that_any_file_can_hold(value: Any) -> None:
    text = CODEC.encode(value)
    text.encode("utf-8")
    assert same(CODEC.decode(text), value)
    assert CODEC.encode(CODEC.decode(text)) == text
    assert as_text(as_json(text)) == text


@thorough
@given(st.lists(hashables, max_size=6), st.randoms(use_true_random=False))
def test_sets_filled_in_any_order_have_equal_texts(items: list[Any], random: Any) -> None:
    distinct = list({CODEC.encode(item): item for item in items}.values())
    first = set(distinct)
    if len(first) < len(distinct):
        return  # 1 and 1.0 and True: one item of a set, whichever came first
    random.shuffle(distinct)
    assert CODEC.encode(set(distinct)) == CODEC.encode(first)


@thorough
@given(st.dictionaries(any_text, values, max_size=4))
def test_join_and_split_are_inverses(mapping: dict[str, Any]) -> None:
    texts = {key: CODEC.encode(value) for key, value in mapping.items()}
    assert split(join(texts)) == texts
    assert same(CODEC.decode(join(texts)), mapping)
    assert split(CODEC.encode(mapping)) == texts


@thorough
@given(plain_json | st.dictionaries(st.sampled_from(["$", "v", "type", "zone", "offset"]), plain_json))
def test_any_json_at_all_reads_as_a_value_or_is_refused_by_name(tree: Any) -> None:
    try:
        CODEC.decode(as_text(tree))
    except (StoredValueError, UnregisteredTypeError) as error:
        assert str(error)


@thorough
@given(
    st.sampled_from(["tuple", "set", "dict", "int", "str", "datetime", "time", "timedelta", "Decimal", "bytes", "object"]),
    plain_json,
)
def test_any_content_of_a_tag_reads_as_a_value_or_is_refused_by_name(tag: str, content: Any) -> None:
    try:
        CODEC.decode(as_text({"$": tag, "type": "Row", "v": content}))
    except (StoredValueError, UnregisteredTypeError) as error:
        assert str(error)


@thorough
@given(any_text)
def test_cleaned_text_can_be_stored_and_clean_text_is_left_alone(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert clean(cleaned) == cleaned
