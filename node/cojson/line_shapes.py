"""What msgspec reads of a line; `transaction_shapes.py` says why this is not compiled."""

from __future__ import annotations

import msgspec

from node.covalue.transaction_shapes import TransactionJson


class SessionPart(msgspec.Struct, rename="camel", gc=False):
    """A session's part of content."""

    after: int
    new_transactions: list[TransactionJson]
    last_signature: str


NULL = msgspec.Raw(b"null")
"""A field that is not there."""


class Line(msgspec.Struct, rename="camel", gc=False):
    """Every field of every action: which are needed depends on the action.

    `new` is decoded at once: its objects take no more than three times its text.
    """

    action: str | None = None
    id: str | None = None
    header: msgspec.Raw = NULL
    sessions: msgspec.Raw = NULL
    is_correction: bool = False
    new: dict[str, SessionPart] | None = None
    expect_content_until: msgspec.Raw = NULL
    values: msgspec.Raw = NULL
