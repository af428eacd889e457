"""Transactions, and the pieces of a coValue in which they travel.

A transaction's signed form, its keys in alphabetical order:

    trusting  {"changes":S,"madeAt":N[,"meta":S],"privacy":"trusting"}
    private   {"encryptedChanges":S,"keyUsed":S,"madeAt":N[,"meta":S],"privacy":"private"}

It is also valid on the wire, so that one text serves hashing and sending.

Source: cojson 0.20.19 coValueCore/verifiedState.ts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState, SessionCounts
from node.covalue.transaction_shapes import PrivateText, TrustingText

PIECE_BYTES = 102_400
"""Above this a session gets a signature checkpoint and a value a further piece (as in cojson)."""


class Transaction(NamedTuple):
    """One signed change. Private exactly when `key_used` is given.

    `changes` is `encrypted_U...` then, else JSON text; `meta` likewise. `made_at` is in
    milliseconds since 1970, as its author claims.
    """

    made_at: int
    changes: str
    key_used: str | None = None
    meta: str | None = None

    @property
    def is_private(self) -> bool:
        return self.key_used is not None


Fields = tuple[int, str, str | None, str | None]
"""The fields of a `Transaction`, which is such a tuple."""


_encoder = msgspec.json.Encoder()


def canonical_lines(transactions: Iterable[Fields]) -> bytes:
    """The text of each transaction that is hashed, signed and sent; each ends with a line feed.

    No text has one within. Making them all in one go takes half of the time.

    Raises: UnicodeEncodeError for half a surrogate pair.
    """
    return _encoder.encode_lines(
        [
            TrustingText(changes, made_at, UNSET if meta is None else meta)
            if key_used is None
            else PrivateText(changes, key_used, made_at, UNSET if meta is None else meta)
            for made_at, changes, key_used, meta in transactions
        ]
    )


def split_lines(lines: str) -> list[str]:
    """What `canonical_lines` made, one by one."""
    return lines.split("\n")[:-1]


def join_lines(lines: str) -> str:
    """The texts with commas between them."""
    return lines[:-1].replace("\n", ",")


def bare_lines(lines: bytes) -> bytes:
    """The texts with nothing between them, as they are hashed."""
    return lines.replace(b"\n", b"")


def canonical_transaction(transaction: Transaction) -> str:
    """The text of one transaction."""
    return join_lines(canonical_lines([transaction]).decode())


class SessionContent(NamedTuple):
    """Transactions [after, after + len(transactions)) of a session.

    `signature` (64 bytes) covers the session from index 0 to the last of them.
    """

    after: int
    transactions: Sequence[Transaction]
    signature: bytes

    @property
    def stop(self) -> int:
        return self.after + len(self.transactions)


@dataclass(frozen=True, slots=True)
class Content:
    """One piece of a coValue. `expect_until` announces further pieces: the counts at the end."""

    co_id: RawCoId
    header: CoValueHeader | None
    new: Mapping[CoSessionId, SessionContent]
    priority: int = 3
    expect_until: SessionCounts | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        """About how many bytes this holds in memory and takes on the wire."""
        size = 512 if self.header is not None else 128
        for _after, transactions, _signature in self.new.values():
            size += 256
            for _made_at, changes, _key_used, meta in transactions:
                size += 128 + len(changes)
                if meta is not None:
                    size += len(meta)
        return size

    @property
    def known_state(self) -> KnownState:
        """What a holder of everything up to the end of this piece has."""
        return KnownState(
            self.header is not None,
            {session_id: part.stop for session_id, part in self.new.items()},
        )
