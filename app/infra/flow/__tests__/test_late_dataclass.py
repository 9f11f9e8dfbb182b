"""A dataclass that is made late is one like the standard's, in everything that can be seen from outside."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from .. import late_dataclass as late_dataclasses
from ..late_dataclass import ENOUGH, dataclass, late_dataclass

Maker = Callable[..., Callable[[type], Any]]
MAKERS: dict[str, Maker] = {"standard": dataclasses.dataclass, "late": late_dataclass}


def classes(make: Maker) -> dict[str, Any]:
    """The same classes, once by the standard decorator and once by ours."""

    @make(slots=True)
    class Open:
        """May change."""

        name: str
        count: int = 3
        items: list[int] = dataclasses.field(default_factory=list)
        hidden: str = dataclasses.field(default="", repr=False, compare=False)

        @property
        def total(self) -> int:
            return self.count + len(self.items)

    @make(frozen=True, slots=True)
    class Closed:
        """May not."""

        name: str
        value: Any = None

    @make(frozen=True, slots=True)
    class Further(Closed):
        """Adds a field to what it derives from."""

        reason: str = "none"

    @make(frozen=True, slots=True)
    class Same(Closed):
        """Adds nothing."""

    @make(slots=True, eq=False)
    class Itself:
        """Equals nothing but itself."""

        x: int
        double: int = dataclasses.field(init=False)

        def __post_init__(self) -> None:
            self.double = self.x * 2

    @make(slots=True, repr=False)
    class Own:
        """Says itself how it is shown, compared and made."""

        x: int

        def __init__(self, text: str) -> None:
            self.x = int(text)

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    return {kind.__name__: kind for kind in (Open, Closed, Further, Same, Itself, Own)}


def seen(function: Callable[[], Any]) -> Any:
    """What a call gives, or the error that it ends in."""
    try:
        return function()
    except Exception as error:
        return type(error), str(error)


def said(function: Callable[[], Any]) -> str:
    """The same as text, without the places in memory by which two of the same class are told apart."""
    return str(seen(function)).replace("standard", "").replace("late", "")


CASES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "made by place": lambda of: of["Open"]("a", 1, [2], "h"),
    "made by name": lambda of: of["Open"](name="a", items=[1]),
    "made with its defaults": lambda of: (of["Open"]("a"), of["Closed"]("a"), of["Further"]("a"), of["Same"]("a")),
    "no default is shared": lambda of: of["Open"]("a").items is of["Open"]("a").items,
    "too few arguments": lambda of: of["Open"](),
    "too many arguments": lambda of: of["Closed"](1, 2, 3),
    "an argument that is not there": lambda of: of["Further"](name=1, nobody=2),
    "shown within itself": lambda of: (lambda one: one.items.append(one) or repr(one))(of["Open"]("a")),
    "equal": lambda of: (of["Open"]("a") == of["Open"]("a"), of["Open"]("a") == of["Open"]("b"), of["Open"]("a") == 5),
    "equal but for what does not count": lambda of: of["Open"]("a", hidden="x") == of["Open"]("a", hidden="y"),
    "equal to one of another class": lambda of: (of["Closed"]("a") == of["Same"]("a"), of["Same"]("a") != of["Same"]("a")),
    "equal to itself alone": lambda of: of["Itself"](1) == of["Itself"](1),
    "hash": lambda of: {of["Closed"]("a"): 1, of["Same"]("a"): 2}[of["Closed"]("a")],
    "hash of equals": lambda of: len({of["Further"]("a", 1), of["Further"]("a", 1), of["Further"]("a", 2)}),
    "hash of what may change": lambda of: hash(of["Open"]("a")),
    "hash of what holds a list": lambda of: hash(of["Closed"]([])),
    "assigned": lambda of: setattr(of["Open"]("a"), "count", 5),
    "assigned where it may not be": lambda of: setattr(of["Further"]("a"), "name", 5),
    "deleted where it may not be": lambda of: delattr(of["Further"]("a"), "reason"),
    "no further attribute": lambda of: hasattr(of["Open"]("a"), "__dict__"),
    "computed after": lambda of: of["Itself"](4).double,
    "its own methods": lambda of: (of["Own"]("5"), of["Own"]("5").x, of["Own"]("5") == 9, hash(of["Own"]("5"))),
    "fields": lambda of: [
        (name, [(f.name, f.type, f.default, f.init, f.repr) for f in dataclasses.fields(kind)]) for name, kind in of.items()
    ],
    "replaced": lambda of: (dataclasses.replace(of["Further"]("a"), value=2), dataclasses.replace(of["Open"]("a"), count=0)),
    "as a dict and a tuple": lambda of: (dataclasses.asdict(of["Open"]("a", 1, [2])), dataclasses.astuple(of["Further"]("a"))),
    "copies": lambda of: [
        copied == one and type(copied) is type(one)
        for one in (of["Open"]("a", 1, [2]), of["Further"]("a", 1), of["Same"]("b"))
        for copied in (copy.copy(one), copy.deepcopy(one))
    ],
    "signatures": lambda of: [str(inspect.signature(kind)) for kind in of.values()],
    "signatures of __init__": lambda of: [str(inspect.signature(kind.__init__)) for kind in of.values()],
    "match": lambda of: [kind.__match_args__ for kind in of.values()],
    "names": lambda of: [(kind.__doc__, kind.__qualname__, kind.__module__, kind.__init__.__name__) for kind in of.values()],
    "property": lambda of: of["Open"]("a", 1, [2]).total,
}


@pytest.mark.parametrize("enough", [0, ENOUGH], ids=["compiled", "filled"])
@pytest.mark.parametrize("case", CASES)
def test_whoever_uses_it_sees_no_difference(case: str, enough: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_dataclasses, "ENOUGH", enough)
    ours, theirs = (said(lambda make=make: CASES[case](classes(make))) for make in (late_dataclass, dataclasses.dataclass))  # type: ignore[misc]
    assert ours == theirs


REFUSED = {
    "too few arguments",
    "too many arguments",
    "an argument that is not there",
    "hash of what may change",
    "hash of what holds a list",
    "assigned where it may not be",
    "deleted where it may not be",
}


@pytest.mark.parametrize("case", CASES)
def test_each_case_does_what_it_is_called(case: str) -> None:
    of = classes(late_dataclass)
    if case in REFUSED:
        with pytest.raises((TypeError, AttributeError)):
            CASES[case](of)
    else:
        CASES[case](of)


# In these two the standard decorator, up to Python 3.11 at least, fails with a TypeError of its own for a class with slots.


def test_a_frozen_one_refuses_an_attribute_that_is_no_field() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="^cannot assign to field 'nothing'$"):
        classes(late_dataclass)["Closed"]("a").nothing = 5


def test_a_class_derived_from_a_frozen_one_may_have_attributes_of_its_own_and_change_these() -> None:
    class Derived(classes(late_dataclass)["Closed"]):  # type: ignore[misc]
        pass

    one: Any = Derived("a")
    one.own = 5
    assert one.own == 5
    del one.own
    assert not hasattr(one, "own")
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "b"
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.name


def test_it_compiles_nothing_before_there_are_many_instances_and_once_then() -> None:
    kind = classes(late_dataclass)["Further"]
    for _ in range(ENOUGH):
        assert kind("a", reason="b") == kind("a", None, "b")
        if inspect.isfunction(vars(kind)["__init__"]):
            break
    made = vars(kind)["__init__"]
    assert inspect.isfunction(made)
    kind("b")
    assert vars(kind)["__init__"] is made


@pytest.mark.parametrize("use", [dataclasses.fields, inspect.signature, lambda kind: kind.__init__, lambda kind: kind()], ids=str)
def test_it_is_made_when_somebody_looks_at_it_or_calls_it_wrongly(use: Callable[[Any], Any]) -> None:
    kind = classes(late_dataclass)["Further"]
    kind("a")
    assert not inspect.isfunction(vars(kind)["__init__"])
    seen(lambda: use(kind))
    assert inspect.isfunction(vars(kind)["__init__"])
    assert kind("a") == kind(name="a", value=None, reason="none")


def test_a_class_that_is_derived_from_one_never_used_calls_its_init() -> None:
    class Derived(classes(late_dataclass)["Closed"]):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            super().__init__(name, 5)

    assert (Derived("a").name, Derived("a").value) == ("a", 5)


def test_a_field_has_one_slot_in_the_class_that_declares_it() -> None:
    of = classes(late_dataclass)
    assert [of[name].__slots__ for name in ("Closed", "Further", "Same")] == [("name", "value"), ("reason",), ()]


def test_a_frozen_one_may_be_the_base_of_a_frozen_one_of_the_standards() -> None:
    @dataclasses.dataclass(frozen=True)
    class Standard(classes(late_dataclass)["Further"]):  # type: ignore[misc]
        own: int = 0

    assert [field.name for field in dataclasses.fields(Standard)] == ["name", "value", "reason", "own"]
    assert Standard("a", own=5) == Standard("a", own=5)


def test_it_makes_no_init_where_none_is_wanted() -> None:
    @late_dataclass(slots=True, init=False)
    class Bare:
        """Made from outside."""

        x: int

    one: Any = Bare()
    one.x = 1
    assert Bare.__init__ is object.__init__
    assert repr(one).endswith("Bare(x=1)")


def test_a_class_without_a_docstring_is_made_without_a_signature() -> None:
    @late_dataclass(slots=True)
    class Bare:
        x: int

    assert Bare.__doc__ == "Bare"


@dataclass(slots=True)
class Thing:
    """Pickles find it by name."""

    x: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """So they do this one."""

    x: int
    y: int = 2


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_it_survives_pickling(protocol: int) -> None:
    both = [Thing(1), Fixed(3)]
    assert pickle.loads(pickle.dumps(both, protocol)) == both
