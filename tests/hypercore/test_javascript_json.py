"""Numbers and the order of keys are those that JavaScript gives them; nothing else is touched."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore import JSON, Json

NUMBERS = {
    1.0: "1",
    -1.0: "-1",
    0.0: "0",
    0.5: "0.5",
    10.05: "10.05",
    1e-5: "0.00001",
    1.5e-6: "0.0000015",
    1e-6: "0.000001",
    1e-7: "1e-7",
    -1.5e-7: "-1.5e-7",
    5e-324: "5e-324",
    1e16: "10000000000000000",
    1.2345678901234567e20: "123456789012345670000",
    2.0**60: "1152921504606847000",
    1e21: "1e+21",
    -1.5e300: "-1.5e+300",
}


@pytest.mark.parametrize("number", NUMBERS)
def test_floats(number: float) -> None:
    assert JSON.encode(number) == NUMBERS[number].encode()


def test_minus_zero() -> None:
    assert JSON.encode([-0.0, 0.0, [-0.0]]) == b"[0,0,[0]]"


def test_text_that_looks_like_a_number_stays() -> None:
    value: Json = {"1.0": '-0.0,"1e-07", 1.0\\', "1e+16": [1.0, '"', 2.0]}
    assert JSON.encode(value) == rb'{"1.0":"-0.0,\"1e-07\", 1.0\\","1e+16":[1,"\"",2]}'
    assert JSON.encode(2**60) == b"1152921504606846976"


ORDERS = {
    '{"b":0,"10":1,"9":2,"a":3,"0":4}': '{"0":4,"9":2,"10":1,"b":0,"a":3}',
    '[[{"x":{"2":[{"b":0,"1":1}],"1":0}}]]': '[[{"x":{"1":0,"2":[{"1":1,"b":0}]}}]]',
    # What is no index, or beyond the last one, stays where it was.
    '{"4294967295":0,"4294967294":1,"01":2,"-1":3,"1.5":4,"":5,"1":6,"99999999999":7}': (
        '{"1":6,"4294967294":1,"4294967295":0,"01":2,"-1":3,"1.5":4,"":5,"99999999999":7}'
    ),
    '{"line2":1.5,"line1":"\\"1\\":"}': '{"line2":1.5,"line1":"\\"1\\":"}',
    '{"\u0661":0,"1":1.0}': '{"1":1,"\u0661":0}',
}


@pytest.mark.parametrize("text", ORDERS)
def test_keys_that_are_indices_come_first(text: str) -> None:
    assert JSON.encode(json.loads(text)) == ORDERS[text].encode()


def test_keys_that_are_indices_may_lie_as_deep_as_anything() -> None:
    value: Json = {"b": 0, "1": 0}
    for _ in range(300):
        value = {"a": value, "2": 0}
    assert JSON.encode(value) == b'{"2":0,"a":' * 300 + b'{"1":0,"b":0}' + b"}" * 300


def test_numbers_as_keys() -> None:
    value: Json = {"b": 0, 10: 1, 9: (2, {"1": 1.0})}  # type: ignore[dict-item]  # json takes it
    assert JSON.encode(value) == b'{"9":[2,{"1":1}],"10":1,"b":0}'


def test_half_a_surrogate_pair() -> None:
    assert JSON.encode("\ud800") == rb'"\ud800"'


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Text that is full of what numbers and the ends of texts are made of.
    | st.text()
    | st.text('0123456789.e+-"\\'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('01.e-"\\'), inner),
)


@given(values)
def test_the_meaning_stays(value: Json) -> None:
    encoded = JSON.encode(value)
    # A float is read as an int that has the same bytes: JavaScript does not tell them apart.
    read, written = (json.loads(text, parse_int=float) for text in (encoded, json.dumps(value)))
    assert read == written
    assert JSON.encode(JSON.decode(encoded)) == encoded
