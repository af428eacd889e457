"""One session of one coValue: a log of transactions under one running hash.

A signature covers everything from index 0 to the point where it was made, so checking an append
needs the hash at the current end. The hash cannot be stored: after a restart it is made again
from the stored transactions, when the first append comes.

Source: cojson 0.20.19 coValueCore/verifiedState.ts and its native core.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from node.cojson.crypto import RunningHash, verify_session
from node.covalue.content import PIECE_BYTES, Transaction, bare_lines, canonical_lines


class InvalidSessionSignature(Exception):
    """The session's author did not sign these transactions at this place."""


@dataclass(slots=True)
class SessionLog:
    """How far a session is verified. Replaced, never changed, by an append."""

    count: int = 0
    signature: bytes = b""
    bytes_since_checkpoint: int = 0
    running: RunningHash | None = None
    """The hash over [0, count); None when it has to be made again from what is stored."""
    is_checkpoint: bool = False
    """Whether `signature` is to be kept for good: a piece of content ends here."""
    public_key: bytes | None = None
    """Of its author, if a signature was checked since it was read from the store."""

    def extended(
        self,
        transactions: Sequence[Transaction],
        signature: bytes,
        public_key: bytes,
        lines: bytes = b"",
    ) -> SessionLog:
        """The log with `transactions` appended; requires that the running hash is known.

        `lines` are their canonical lines, if somebody has made them already.

        Raises: InvalidSessionSignature; UnicodeEncodeError for half a surrogate pair.
        """
        running = RunningHash() if self.count == 0 else self._known_hash().copy()
        running.update(bare_lines(lines or canonical_lines(transactions)))
        if not verify_session(running, signature, public_key):
            raise InvalidSessionSignature
        size = self.bytes_since_checkpoint
        for _made_at, changes, _key_used, _meta in transactions:
            size += len(changes)
        is_checkpoint = size > PIECE_BYTES
        return SessionLog(
            self.count + len(transactions),
            signature,
            0 if is_checkpoint else size,
            running,
            is_checkpoint,
            public_key,
        )

    @property
    def is_hashed(self) -> bool:
        return self.running is not None or self.count == 0

    def _known_hash(self) -> RunningHash:
        if self.running is None:
            raise RuntimeError("the running hash of this session has not been made again")
        return self.running


def feed(running: RunningHash, transactions: Iterable[Transaction]) -> None:
    """Hash further transactions, without separators, in their canonical form."""
    running.update(bare_lines(canonical_lines(transactions)))
