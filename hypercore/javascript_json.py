"""JSON with the bytes of JavaScript's `JSON.stringify`: each side finds what the other put.

Python writes some floats differently: in JavaScript 1.0 is 1, 1e-07 is 1e-7, 1e+16 has all its
digits and -0.0 is 0. So a float such as 1.0 is read back as an int. An `int` beyond 2**53, which
JavaScript does not have, keeps its digits.

Keys that are array indices come first there, by number: {"b": 0, "10": 0, "9": 0} is
{"9":0,"10":0,"b":0}.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

# One search for both, which costs no more than one for floats alone.
_may_differ = re.compile(r'[0-9](?:\.0(?![0-9])|e[-+]|":)').search
_may_have_indices = re.compile(r'"[0-9]+":').search
_may_have_floats = re.compile(r"[0-9](?:\.0(?![0-9])|e[-+])").search
_TEXT_OR_FLOAT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9]+\.?[0-9]*(?:e[-+][0-9]+)?')

_is_index = re.compile(r"0|[1-9][0-9]{0,9}").fullmatch
_NO_INDEX = 2**32 - 1
"""The first number that is not an array index."""


def encode_json(value: object) -> bytes:
    """A lone surrogate is written as its escape.

    Raises: ValueError for what JSON has no word for: infinity and NaN.
    """
    text = _encode(value)
    if _may_differ(text):
        if _may_have_indices(text):
            text = _encode(_with_indices_first(value))
        if _may_have_floats(text):
            text = _TEXT_OR_FLOAT.sub(_in_javascript, text)
    return text.encode(errors="backslashreplace")


def _with_indices_first(value: object) -> object:
    """A copy with the keys in JavaScript's order; not recursive, since JSON may be deep."""
    whole = [value]
    copies: list[Any] = [whole]
    while copies:
        copy = copies.pop()
        for place, item in copy.items() if isinstance(copy, dict) else enumerate(copy):
            if isinstance(item, dict):
                copy[place] = dict(sorted(item.items(), key=_place))
            elif isinstance(item, list | tuple):
                copy[place] = list(item)
            else:
                continue
            copies.append(copy[place])
    return whole[0]


def _place(item: tuple[object, object]) -> int:
    key = item[0]
    text = int.__repr__(key) if type(key) is int else key
    if isinstance(text, str) and _is_index(text):
        return min(int(text), _NO_INDEX)
    return _NO_INDEX


def _in_javascript(found: re.Match[str]) -> str:
    token = found[0]
    if token.startswith('"'):
        return token
    mantissa, _, exponent = token.removesuffix(".0").partition("e")
    if not exponent:
        return "0" if mantissa == "-0" else mantissa
    if -7 < int(exponent) < 21:
        return format(Decimal(token), "f")
    return f"{mantissa}e{int(exponent):+d}"
