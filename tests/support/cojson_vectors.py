"""What the JavaScript originals made: tests/vectors/cojson."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from node.cojson.messages import decode_line
from node.covalue.content import Content

VECTORS = Path(__file__).parent.parent / "vectors" / "cojson"

VALUES = (
    "account", "accountB", "accountC", "group", "publicGroup", "childGroup", "map", "emptyMap",
    "list", "costream", "plaintext", "smallBinary", "bigBinary",
)  # fmt: skip
"""The coValues whose content messages were recorded."""


@cache
def vectors() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((VECTORS / "vectors.json").read_text())
    return parsed


def pieces(name: str) -> list[Content]:
    """The recorded content messages of one value."""
    found = []
    for raw in vectors()["content"][name]:
        message = decode_line(json.dumps(raw, ensure_ascii=False))
        assert isinstance(message, Content)
        found.append(message)
    return found


def account_keys() -> dict[str, bytes]:
    """The signing keys of the recorded accounts."""
    keys = {}
    for name in ("account", "accountB", "accountC"):
        content = pieces(name)[0]
        assert content.header is not None
        key = content.header.account_public_key
        assert key is not None
        keys[str(content.co_id)] = key
    return keys
