"""The strict reader: what it accepts comes back as it was, and every mistake is one sentence with path, value and expectation."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formulation.records import reading
from formulation.records.reading import (
    WHOLE,
    Amount,
    PositiveInt,
    Within,
    parse_json,
    read_json,
    read_record,
    read_value,
    versioned,
)


class Colour(Enum):
    """A closed choice."""

    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Wheel:
    """A record in a record, which checks itself."""

    size: PositiveInt
    name: str = "wheel"

    def __post_init__(self) -> None:
        if self.size == 13:
            raise ValueError("a wheel of 13 brings bad luck; expected another")


@dataclass(frozen=True)
class Cart:
    """Every kind of field."""

    wheels: tuple[Wheel, ...]
    load: float
    colour: Colour
    fast: bool = False
    spare: Wheel | None = None
    ends: tuple[int, int] = (0, 1)
    share: Annotated[float, Within(0, 1)] = 0.5
    prices: dict[str, Amount] | None = None
    speed: Literal["low", "high"] = "low"
    whole: Annotated[Wheel, WHOLE] | None = None
    notes: Any = None


GOOD: dict[str, Any] = {"wheels": [{"size": 1}, {"size": 2, "name": "left"}], "load": 3, "colour": "blue"}

BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown": ({"laod": 1}, ("cart", "'laod'", "'load'")),
    "unknown inside": ({"wheels": [{"size": 1, "sise": 2}]}, ("cart.wheels[0]", "'sise'", "'size'")),
    "missing inside": ({"wheels": [{"size": 1}, {}]}, ("cart.wheels[1]", "size", "whole number of at least 1")),
    "bool for number": ({"load": True}, ("cart.load", "True", "a number")),
    "number for bool": ({"fast": 1}, ("cart.fast", "1", "true or false")),
    "text for number": ({"load": "3"}, ("cart.load", "'3'", "a number")),
    "fraction for whole": ({"wheels": [{"size": 1.5}]}, ("cart.wheels[0].size", "1.5", "a whole number")),
    "infinity": ({"load": math.inf}, ("cart.load", "inf", "a number")),
    "larger than any float": ({"load": 10**400}, ("cart.load", "a number")),
    "too small": ({"wheels": [{"size": 0}]}, ("cart.wheels[0].size", "0", "at least 1")),
    "beyond a range": ({"share": 1.5}, ("cart.share", "1.5", "at least 0 and at most 1")),
    "object for list": ({"wheels": {}}, ("cart.wheels", "{}", "a list of objects with size and name")),
    "too few": ({"ends": [1]}, ("cart.ends", "[1]", "a list of 2 whole numbers")),
    "null for what is not an option": ({"load": None}, ("cart.load", "None", "a number")),
    "not of an enum": ({"colour": "green"}, ("cart.colour", "'green'", '"red" or "blue"')),
    "not of a choice": ({"speed": "fast"}, ("cart.speed", "'fast'", '"low" or "high"')),
    "one of several prices": ({"prices": {"a": 1, "b c": -1}}, ("cart.prices['b c']", "-1", "at least 0")),
    "no object": ({"spare": 7}, ("cart.spare", "7", "an object with size and name")),
    "not whole": ({"whole": {"size": 1}}, ("cart.whole", "name", "a text")),
    "refused by the record": ({"spare": {"size": 13}}, ("cart.spare", "13", "bad luck")),
    "long": ({"load": "x" * 5000}, ("cart.load", "xxx...", "a number")),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_mistake_is_named(kind: str) -> None:
    change, words = BAD[kind]
    with pytest.raises(ValueError, match=r".") as caught:
        read_record(Cart, GOOD | change, "cart")
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 500
    for word in words:
        assert word in said


def test_what_is_left_out_has_its_default() -> None:
    cart = read_record(Cart, GOOD, "cart")
    assert cart == Cart((Wheel(1), Wheel(2, "left")), 3, Colour.BLUE)
    with pytest.raises(ValueError, match="cart lacks colour"):
        read_record(Cart, {"wheels": [], "load": 1}, "cart")
    assert read_record(Cart, {"wheels": [], "load": 1, "axle": 2}, "cart", given={"colour": Colour.RED}, beside=("axle",)).load == 1
    with pytest.raises(ValueError, match="unknown key 'fast'"):
        read_record(Cart, {**GOOD, "fast": True}, "cart", keys=("wheels", "load", "colour"))


sizes = st.integers(1, 10**6).filter(lambda size: size != 13)
wheels = st.builds(Wheel, sizes, st.text(max_size=5))
finite = st.floats(allow_nan=False, allow_infinity=False)
carts = st.builds(
    Cart,
    st.lists(wheels, max_size=3).map(tuple),
    finite | st.integers(-(10**300), 10**300),
    st.sampled_from(Colour),
    st.booleans(),
    st.none() | wheels,
    st.tuples(st.integers(), st.integers()),
    st.floats(0, 1),
    st.none() | st.dictionaries(st.text(max_size=5), st.floats(0, 1e100), max_size=3),
    st.sampled_from(("low", "high")),
    st.none() | wheels,
    st.none() | st.text() | st.lists(finite),
)


@given(carts)
def test_records_survive_json(cart: Cart) -> None:
    record = {**asdict(cart), "colour": cart.colour.value}
    assert read_record(Cart, parse_json(json.dumps(record)), "cart") == cart


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*Cart.__dataclass_fields__, "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values, st.sampled_from(list(Cart.__dataclass_fields__)))
def test_any_value_is_read_or_refused_in_one_sentence(value: Any, key: str) -> None:
    said = ""
    try:
        read_record(Cart, {**GOOD, key: value}, "cart")
    except ValueError as error:
        said = str(error)
    assert not said or said.startswith("cart")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ('{"a": 1', "cut short"),
        ('{"a": NaN}', "NaN"),
        ("-Infinity", "-Infinity"),
        ('{"a": {"b": 1, "b": 2}}', "'b' twice"),
        ("[" * 101 + "]" * 101, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 300 + "1" + "}" * 300, "nested too deeply"),
        ("9" * 5000, "not valid JSON"),
    ],
)
def test_a_text_that_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


def test_a_hundred_levels_are_read() -> None:
    assert parse_json("[" * 100 + "]" * 100)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cart.json"
    with pytest.raises(ValueError, match=r"cannot read the cart file .*cart\.json: no such file"):
        read_json("cart file", path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"the cart file .*cart\.json is not text in UTF-8"):
        read_json("cart file", path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"the cart file .*cart\.json is not valid JSON"):
        read_json("cart file", path)
    monkeypatch.setattr(reading, "_MOST_BYTES", 10)
    path.write_text("[1, 2, 3, 4, 5]")
    with pytest.raises(ValueError, match=r"the cart file .*cart\.json has more than 10 bytes"):
        read_json("cart file", path)


def test_formats_and_versions() -> None:
    assert versioned({"format": "merino cart", "version": 2, "load": 3}, "merino cart", "cart") == {"load": 3}
    for record, words in (
        ([], ("cart", "[]", "merino cart")),
        ({}, ("cart", "{}", "merino cart")),
        ({"format": "merino boat", "version": 2}, ("cart", "merino boat", "merino cart")),
        ({"format": "merino cart"}, ("cart", "None", "version 2")),
        ({"format": "merino cart", "version": True}, ("cart", "True", "version 2")),
        ({"format": "merino cart", "version": 2.0}, ("cart", "2.0", "version 2")),
        ({"format": "merino cart", "version": 3}, ("cart", "version 3", "version 2")),
        ({"format": "merino cart", "version": 1}, ("cart", "version 1", "version 2", "python -m formulation.convert")),
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            versioned(record, "merino cart", "cart")
        for word in words:
            assert word in str(caught.value)
        assert ("convert" in str(caught.value)) == ("version 1" in str(caught.value))


def test_numbers_stay_as_they_are_written() -> None:
    assert [type(read_value(float, value, "x")) for value in (1, 1.0)] == [int, float]
