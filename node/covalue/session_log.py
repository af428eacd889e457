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
class Extension:
    """Transactions hashed onto the end of a log, and the signature that should cover both."""

    base: RunningHash | None
    """The running hash of that log; None when it is empty."""
    transactions: Sequence[Transaction]
    signature: bytes
    lines: bytes
    """The canonical lines of the transactions."""
    running: RunningHash
    """The hash after them."""
    verdict: tuple[bytes, bool] | None = None
    """A key against which the signature was checked already, and whether it fits."""

    def fits(self, log: SessionLog, transactions: Sequence[Transaction], signature: bytes) -> bool:
        """Whether just these transactions were hashed onto just this log."""
        return (
            self.transactions is transactions
            and self.signature == signature
            and (self.base is log.running if log.count else self.base is None)
        )

    def is_signed_by(self, public_key: bytes) -> bool:
        if self.verdict is None or self.verdict[0] != public_key:
            self.verdict = public_key, verify_session(self.running, self.signature, public_key)
        return self.verdict[1]


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
    """The author's, if a signature was checked since the log was read from the store."""

    def extension(self, transactions: Sequence[Transaction], signature: bytes) -> Extension:
        """Hash `transactions` onto the log; requires that the running hash is known.

        Raises: UnicodeEncodeError for half a surrogate pair.
        """
        base = None if self.count == 0 else self._known_hash()
        running = RunningHash() if base is None else base.copy()
        lines = canonical_lines(transactions)
        running.update(bare_lines(lines))
        return Extension(base, transactions, signature, lines, running)

    def appended(self, extension: Extension, public_key: bytes) -> SessionLog:
        """The log with an extension of its own appended, if its author signed it.

        Raises: InvalidSessionSignature.
        """
        if not extension.is_signed_by(public_key):
            raise InvalidSessionSignature
        size = self.bytes_since_checkpoint
        for _made_at, changes, _key_used, _meta in extension.transactions:
            size += len(changes)
        is_checkpoint = size > PIECE_BYTES
        return SessionLog(
            self.count + len(extension.transactions),
            extension.signature,
            0 if is_checkpoint else size,
            extension.running,
            is_checkpoint,
            public_key,
        )

    def extended(
        self, transactions: Sequence[Transaction], signature: bytes, public_key: bytes
    ) -> SessionLog:
        """Both of these in one. Raises: InvalidSessionSignature; UnicodeEncodeError."""
        return self.appended(self.extension(transactions, signature), public_key)

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
