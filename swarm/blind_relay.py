"""Meeting at a third node that passes packets on, without knowing whose they are; a machine.

Both ends connect to the relay, open a channel `blind-relay` named by their own key there, and send
*pair* with a token that they have agreed on. When both have, each is told the id of a stream at the
relay, and what one sends to it comes out at the other. The relay sees tokens and sealed packets.

| message  | type | layout                                                              |
|----------|------|---------------------------------------------------------------------|
| pair     | 0    | flags 1 (1: sent by, or to, the initiator), token 32, uint stream   |
|          |      | id, uint first seq                                                  |
| unpair   | 1    | flags 1, token 32                                                   |

Worked example: the initiator's pair with token 32 x `07` and stream 9 is `01`, 32 x `07`, `09 00`.

A relay that is full says so with an *unpair* of its own, and closes the channel when nothing else
is asked for there: the originals' relays are never full, and their clients give up when the channel
closes.

Source: blind-relay 1.6.1 index.js.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from hypercore.encoding import DecodeError, Reader, encode_uint

PROTOCOL = "blind-relay"
PAIR, UNPAIR = 0, 1
TOKEN_BYTES = 32

MAX_WAITING = 1024
"""Ends that wait for the other end. One more takes the place of one of the host that has most."""

MAX_WAITING_PER_SESSION = 8
MAX_WAITING_PER_HOST = 128
"""One that everybody else is to have room beside; it may have any number of sessions."""

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Pair:
    """Who wants to meet whom; in the answer, at which stream."""

    is_initiator: bool
    token: bytes
    stream_id: int
    first_seq: int = 0

    def encode(self) -> bytes:
        numbers = encode_uint(self.stream_id) + encode_uint(self.first_seq)
        return bytes((self.is_initiator,)) + self.token + numbers

    @classmethod
    def decode(cls, data: bytes) -> Pair:
        """Raises: DecodeError."""
        reader = Reader(data)
        is_initiator = bool(reader.uint8() & 1)
        token, stream_id, first_seq = reader.fixed(TOKEN_BYTES), reader.uint(), reader.uint()
        if max(stream_id, first_seq) >= 2**32:
            raise DecodeError("a stream's numbers have 32 bits", 33)
        return cls(is_initiator, token, stream_id, first_seq)


@dataclass(frozen=True, slots=True)
class Unpair:
    """The sender of this token no longer waits with it."""

    token: bytes

    def encode(self) -> bytes:
        return b"\0" + self.token

    @classmethod
    def decode(cls, data: bytes) -> Unpair:
        """Raises: DecodeError."""
        reader = Reader(data)
        reader.uint8()
        return cls(reader.fixed(TOKEN_BYTES))


@dataclass(frozen=True, slots=True)
class Matched(Generic[S]):
    """Both ends of a token are there: connect them, and tell both."""

    initiator: S
    initiator_pair: Pair
    other: S
    other_pair: Pair


@dataclass(frozen=True, slots=True)
class Refused:
    """Too many wait already."""


class Pairings(Generic[S]):
    """The tokens with which a relay's sessions wait, whatever the shell has for sessions.

    `host_of` says where a session comes from.
    """

    def __init__(self, host_of: Callable[[S], str]) -> None:
        self.refused = 0
        self._host_of = host_of
        self._waiting: dict[bytes, tuple[S, Pair]] = {}
        self._per_session: Counter[S] = Counter()
        self._per_host: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def pair(self, session: S, pair: Pair) -> Matched[S] | Refused | None:
        """One end wants to be paired; None while the other is not there."""
        first = self._waiting.get(pair.token)
        if first is None:
            is_too_many = (
                len(self._waiting) >= MAX_WAITING
                or self._per_session[session] >= MAX_WAITING_PER_SESSION
                or self._per_host[self._host_of(session)] >= MAX_WAITING_PER_HOST
            )
            if is_too_many:
                self.refused += 1
                return Refused()
            self._waiting[pair.token] = (session, pair)
            self._per_session[session] += 1
            self._per_host[self._host_of(session)] += 1
            return None
        other, other_pair = first
        if other_pair.is_initiator == pair.is_initiator:
            return None  # the same end once more, or two that both say they began
        self._forget(pair.token)
        if pair.is_initiator:
            return Matched(session, pair, other, other_pair)
        return Matched(other, other_pair, session, pair)

    def making_way(self, session: S, pair: Pair) -> tuple[S, bytes] | None:
        """Who no longer waits with which token, so that this session may wait.

        It is the youngest of the host that has most, unless this session's would have as many.
        """
        host = self._host_of(session)
        is_too_many = self._per_session[session] >= MAX_WAITING_PER_SESSION
        if is_too_many or len(self._waiting) < MAX_WAITING or pair.token in self._waiting:
            return None
        [(crowd, most)] = self._per_host.most_common(1)
        if most <= 1 + self._per_host[host]:
            return None
        return next(
            (other, token)
            for token, (other, _) in reversed(self._waiting.items())
            if self._host_of(other) == crowd
        )

    def waiting(self, session: S) -> set[bytes]:
        """The tokens that this session waits with."""
        if session not in self._per_session:
            return set()
        return {token for token, (owner, _) in self._waiting.items() if owner == session}

    def unpair(self, session: S, token: bytes) -> None:
        """An end no longer waits."""
        if token in self._waiting and self._waiting[token][0] == session:
            self._forget(token)

    def ended(self, session: S) -> None:
        """A session is over."""
        for token in self.waiting(session):
            self._forget(token)

    def _forget(self, token: bytes) -> None:
        session, _ = self._waiting.pop(token)
        self._per_session[session] -= 1
        if not self._per_session[session]:
            del self._per_session[session]
        host = self._host_of(session)
        self._per_host[host] -= 1
        if not self._per_host[host]:
            del self._per_host[host]
