"""Canonical JSON: the one text of a value that is hashed and signed.

No white space; keys in JavaScript's string order (UTF-16 code units); strings escape only
`"`, `\\` and U+0000 to U+001F; numbers as JavaScript prints them.

Worked example: {"b": 1.0, "a": [true, None, "é"]} is {"a":[true,null,"é"],"b":1}.

Source: cojson 0.20.19 jsonStringify.ts.
"""

from __future__ import annotations

from json.encoder import encode_basestring as quote
from math import isfinite

from hypercore.encoding import DecodeError

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

MAX_DEPTH = 127
"""The native core's. Headers nest three deep; a hostile one is kept off the interpreter's stack."""

_MAX_EXACT_INTEGER = 2**53

__all__ = ["MAX_DEPTH", "JsonValue", "canonical_json", "javascript_number", "quote", "utf16"]


def canonical_json(value: JsonValue, depth: int = MAX_DEPTH) -> str:
    """Raises: DecodeError when the value nests deeper than `depth`."""
    match value:
        case str():
            return quote(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return javascript_number(value)
    if depth == 0:
        raise DecodeError(f"JSON nested deeper than {MAX_DEPTH}", 0)
    if isinstance(value, list):
        return "[" + ",".join(canonical_json(item, depth - 1) for item in value) + "]"
    keys = sorted(value, key=utf16)
    return (
        "{" + ",".join(quote(key) + ":" + canonical_json(value[key], depth - 1) for key in keys)
    ) + "}"


def utf16(text: str) -> bytes:
    """The key by which JavaScript sorts text."""
    return text.encode("utf-16-be", "surrogatepass")


def javascript_number(number: int | float) -> str:
    """As JavaScript prints it: integers below 1e21 in full, else the shortest that reads back."""
    if isinstance(number, int):
        if abs(number) <= _MAX_EXACT_INTEGER:
            return str(number)
        try:
            number = float(number)
        except OverflowError:
            return "null"
    if not isfinite(number):
        return "null"
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # `point` counts the digits before the decimal point, negative when zeros follow it first.
    point = len(digits) - len(fraction) + int(exponent or "0")
    return sign + _place_point(digits.rstrip("0"), point)


def _place_point(digits: str, point: int) -> str:
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    fraction = f".{digits[1:]}" if count > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
