from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.cojson.crypto import short_hash
from node.covalue.canonical import JsonValue, canonical_json, javascript_number
from tests.support.cojson_vectors import vectors

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("case", vectors()["stableStringify"], ids=lambda case: case["out"][:30])
def test_values_read_as_the_original_writes_them(case: dict[str, JsonValue]) -> None:
    text = canonical_json(case["value"])
    assert text == case["out"]
    assert short_hash(text) == case["shortHash"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (1e21, "1e+21"),
        (123456789012345680000.0, "123456789012345680000"),
        (1.5e300, "1.5e+300"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (-1.25e-9, "-1.25e-9"),
        (0.1 + 0.2, "0.30000000000000004"),
        (2**53 + 1, "9007199254740992"),
        (2**60, "1152921504606847000"),
        (10**400, "null"),
        (float("nan"), "null"),
        (float("inf"), "null"),
        (5e-324, "5e-324"),
        (100.25, "100.25"),
    ],
)
def test_numbers_are_printed_as_javascript_prints_them(number: float, text: str) -> None:
    assert javascript_number(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back_as_the_same_number(number: float) -> None:
    assert float(javascript_number(number)) == number


@given(json_values)
def test_what_is_written_parses_to_the_same_value(value: JsonValue) -> None:
    assert json.loads(canonical_json(value)) == value


def test_deep_nesting_is_refused() -> None:
    value: JsonValue = None
    for _ in range(1000):
        value = [value]
    with pytest.raises(DecodeError):
        canonical_json(value)
