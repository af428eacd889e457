"""What msgspec reads of stored records; `transaction_shapes.py` says why this is not compiled."""

from __future__ import annotations

from typing import Annotated

import msgspec

from node.cojson.crypto import SIGNATURE_BYTES

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class TransactionRow(msgspec.Struct, array_like=True, gc=False):
    """The fields of a `Transaction`, in its order."""

    made_at: _Count
    changes: str
    key_used: str | None
    meta: str | None


class SessionRow(msgspec.Struct, array_like=True, gc=False):
    """How far a session goes, and its tail."""

    count: _Count
    signature: _Signature
    bytes_since_checkpoint: _Count
    tail: list[TransactionRow] = []


class PartRow(msgspec.Struct, array_like=True, gc=False):
    """One half of a fork."""

    after: _Count
    transactions: list[TransactionRow]
    signature: _Signature


class ForkRow(msgspec.Struct, array_like=True, gc=False):
    """A session that goes on in two ways."""

    co_id: str
    session_id: str
    kept: PartRow
    refused: PartRow
