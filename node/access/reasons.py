"""Why something was refused: a closed set, so that it can label metrics."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """The value is the label; `text` is for people."""

    DENIED = "denied"
    NOT_ALLOWED = "not_allowed"
    HEADER_ALONE = "header_alone"
    ACCOUNT_BYTES = "account_bytes"
    ACCOUNT_VALUES = "account_values"
    READ_ONLY = "read_only"

    @property
    def text(self) -> str:
        return _TEXTS[self]


_TEXTS = {
    Reason.DENIED: "is on the deny list",
    Reason.NOT_ALLOWED: "is not on the allow list",
    Reason.HEADER_ALONE: "a header without a session of somebody on the allow list",
    Reason.ACCOUNT_BYTES: "has used up its bytes",
    Reason.ACCOUNT_VALUES: "has made all the values it may",
    Reason.READ_ONLY: "this node may only read in its mesh: no other would take it",
}
