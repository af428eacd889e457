"""Authors of coValues: agents that sign, without any JavaScript."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from hypercore.crypto import KeyPair, sign
from node.cojson.base58 import base58_encode
from node.cojson.crypto import RunningHash, signed_bytes
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.session_log import feed


@dataclass(slots=True)
class Value:
    """A value with one session of one agent, all of it kept here."""

    header: CoValueHeader
    session_id: CoSessionId
    key_pair: KeyPair
    transactions: list[Transaction] = field(default_factory=list)
    running: RunningHash = field(default_factory=RunningHash)

    @property
    def id(self) -> RawCoId:
        return self.header.id

    @property
    def count(self) -> int:
        return len(self.transactions)

    def edit(self, *changes: str, with_header: bool = False) -> Content:
        """Append transactions; the content message that brings them."""
        after = len(self.transactions)
        new = [Transaction(1_700_000_000_000 + after, text) for text in changes]
        self.transactions += new
        feed(self.running, new)
        signature = sign(signed_bytes(self.running), self.key_pair.secret_key)
        part = SessionContent(after, new, signature)
        return Content(self.id, self.header if with_header else None, {self.session_id: part})

    def piece(self, start: int, stop: int) -> Content:
        """Transactions [start, stop) once more, as a message that ends there."""
        running = RunningHash()
        feed(running, self.transactions[:stop])
        signature = sign(signed_bytes(running), self.key_pair.secret_key)
        part = SessionContent(start, self.transactions[start:stop], signature)
        return Content(self.id, None, {self.session_id: part})


class Author:
    """An agent: it signs its own sessions, so nothing needs an account."""

    def __init__(self, number: int) -> None:
        seed = hashlib.blake2b(b"author %d" % number, digest_size=32).digest()
        self.key_pair = KeyPair.from_seed(seed)
        sealer = base58_encode(hashlib.blake2b(seed, digest_size=32).digest())
        signer = base58_encode(self.key_pair.public_key)
        self.agent_id = f"sealer_z{sealer}/signer_z{signer}"
        self._sessions = 0

    def session(self) -> CoSessionId:
        self._sessions += 1
        random = hashlib.blake2b(b"%d" % self._sessions, digest_size=8).digest()
        return CoSessionId(f"{self.agent_id}_session_z{base58_encode(random)}")

    def value(self, name: str) -> Value:
        """A new map that everybody may write."""
        header = parse_header(
            {
                "type": "comap",
                "ruleset": {"type": "unsafeAllowAll"},
                "meta": None,
                "uniqueness": name,
                "createdAt": None,
            }
        )
        return Value(header, self.session(), self.key_pair)

    def joined(self, value: Value) -> Value:
        """The same value as this author writes it, in a session of its own."""
        return Value(value.header, self.session(), self.key_pair)

    def created(self, name: str, *changes: str) -> Content:
        """A new value with these changes, as one message."""
        return self.value(name).edit(*(changes or ("[]",)), with_header=True)
