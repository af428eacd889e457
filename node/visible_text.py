"""Text that a terminal shows and does not obey: members choose names, and clients types."""

from __future__ import annotations

import re

_C1 = re.compile("[\x7f-\x9f]")


def visible(text: str) -> str:
    """The text, with what a terminal would obey, such as an escape, written as Python does."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def visible_json(text: str) -> str:
    """JSON of the same value with C1 escaped, too: JSON itself escapes only what is below."""
    return _C1.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
