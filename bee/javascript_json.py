"""JSON with the bytes of JavaScript's `JSON.stringify`: both find what the other put.

Python writes some floats otherwise: 1.0 is 1 there, 1e-07 is 1e-7, 1e+16 has all its digits and
-0.0 is 0. So what was such a float is read as an int. An `int` beyond 2**53, which JavaScript does
not have, keeps its digits.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

_may_differ = re.compile(r"[0-9](?:\.0(?![0-9])|e[-+])").search
_TEXT_OR_FLOAT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9]+\.?[0-9]*(?:e[-+][0-9]+)?')


def encode_json(value: object) -> bytes:
    """Half a surrogate pair is written as its escape.

    Raises: ValueError for what JSON has no word for: infinity, and what is no number.
    """
    text = _encode(value)
    if _may_differ(text):
        text = _TEXT_OR_FLOAT.sub(_in_javascript, text)
    return text.encode(errors="backslashreplace")


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
