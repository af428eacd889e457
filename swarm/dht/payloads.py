"""What HyperDHT's commands carry, and what is signed in it.

| payload        | layout                                                                     |
|----------------|----------------------------------------------------------------------------|
| peer record    | public key 32, array of relay addresses                                    |
| lookup answer  | array of peer records, [uint bump]                                         |
| announce       | uint flags, by flag: 1 peer record, 2 refresh 32, 4 signature 64, 8 uint   |
|                | bump                                                                       |
| mutable put    | public key 32, uint seq, buffer value, signature 64                        |
| mutable value  | uint seq, buffer value, signature 64                                       |
| immutable      | the value, found under its hash                                            |

An announcement is signed over `NS || H(target || storing node's id || token || peer record ||
refresh)`: it holds for one storing node and as long as its token does. A mutable value is signed
over `NS || H(uint seq || buffer value)`, and anybody may store it again. NS tells the two, and an
unannouncement, apart.

Worked example: the announcement of nobody with refresh 32 x `07` is `02` then 32 x `07`.

Source: hyperdht 6.34.0 lib/messages.js, lib/persistent.js, lib/constants.js.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypercore.crypto import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    KeyPair,
    blake2b,
    namespace,
    sign,
    verify,
)
from hypercore.encoding import Reader, encode_array, encode_buffer, encode_uint
from swarm.announcement import Address
from swarm.dht.messages import Command, NodeId, decode_address, encode_addresses

MAX_RECORD_RELAYS = 3
"""Relay addresses that storing nodes keep of a record."""

MAX_VALUE_BYTES = 1000
"""Of a value that is put: with all that surrounds it, it fits an Ethernet or a tunnel's packet."""

_PEER, _REFRESH, _SIGNATURE, _BUMP = 1, 2, 4, 8
_NAMESPACES = namespace("hyperswarm/dht", max(Command) + 1)


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Who announces, and which nodes pass a handshake on to it."""

    public_key: bytes
    relay_addresses: tuple[Address, ...] = ()

    def encode(self) -> bytes:
        return self.public_key + encode_addresses(self.relay_addresses)

    @classmethod
    def read(cls, reader: Reader) -> PeerRecord:
        return cls(reader.fixed(KEY_BYTES), tuple(reader.array(decode_address)))

    @classmethod
    def decode(cls, data: bytes) -> PeerRecord:
        """Raises: DecodeError."""
        return cls.read(Reader(data))


@dataclass(frozen=True, slots=True)
class LookupAnswer:
    """Records of one topic; `bump_unix_ms` is when somebody last asked to look again."""

    records: tuple[PeerRecord, ...]
    bump_unix_ms: int = 0

    def encode(self) -> bytes:
        records = encode_array(record.encode() for record in self.records)
        return records + encode_uint(self.bump_unix_ms)

    @classmethod
    def decode(cls, data: bytes) -> LookupAnswer:
        """Raises: DecodeError."""
        reader = Reader(data)
        records = tuple(reader.array(PeerRecord.read))
        return cls(records, reader.uint() if reader.remaining else 0)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What ANNOUNCE and UNANNOUNCE carry.

    With `refresh` the announcer commits itself to the hash of a secret; sending the secret later,
    alone, renews the record without a signature.
    """

    record: PeerRecord | None = None
    refresh: bytes | None = None
    signature: bytes | None = None
    bump_unix_ms: int = 0

    def encode(self) -> bytes:
        flags = (
            (_PEER if self.record is not None else 0)
            | (_REFRESH if self.refresh is not None else 0)
            | (_SIGNATURE if self.signature is not None else 0)
            | (_BUMP if self.bump_unix_ms else 0)
        )
        return b"".join(
            (
                encode_uint(flags),
                self.record.encode() if self.record is not None else b"",
                self.refresh or b"",
                self.signature or b"",
                encode_uint(self.bump_unix_ms) if self.bump_unix_ms else b"",
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Announcement:
        """Raises: DecodeError."""
        reader = Reader(data)
        flags = reader.uint()
        return cls(
            PeerRecord.read(reader) if flags & _PEER else None,
            reader.fixed32() if flags & _REFRESH else None,
            reader.fixed(SIGNATURE_BYTES) if flags & _SIGNATURE else None,
            reader.uint() if flags & _BUMP else 0,
        )


@dataclass(frozen=True, slots=True)
class MutableValue:
    """A signed value; of two, the one with the larger `seq` counts."""

    seq: int
    value: bytes
    signature: bytes

    @classmethod
    def create(cls, key_pair: KeyPair, value: bytes, seq: int) -> MutableValue:
        return cls(seq, value, sign(_mutable_signable(seq, value), key_pair.secret_key))

    def is_signed_by(self, public_key: bytes) -> bool:
        return verify(_mutable_signable(self.seq, self.value), self.signature, public_key)

    def encode(self) -> bytes:
        return encode_uint(self.seq) + encode_buffer(self.value) + self.signature

    @classmethod
    def read(cls, reader: Reader) -> MutableValue:
        return cls(reader.uint(), reader.buffer(), reader.fixed(SIGNATURE_BYTES))

    @classmethod
    def decode(cls, data: bytes) -> MutableValue:
        """Raises: DecodeError."""
        return cls.read(Reader(data))


@dataclass(frozen=True, slots=True)
class MutablePut:
    """A mutable value, and whose it is."""

    public_key: bytes
    content: MutableValue

    def encode(self) -> bytes:
        return self.public_key + self.content.encode()

    @classmethod
    def decode(cls, data: bytes) -> MutablePut:
        """Raises: DecodeError."""
        reader = Reader(data)
        return cls(reader.fixed(KEY_BYTES), MutableValue.read(reader))


def peer_target(public_key: bytes) -> bytes:
    """Where a key's own record, and its mutable value, are kept."""
    return blake2b(public_key)


def immutable_target(value: bytes) -> bytes:
    """Where an immutable value is kept."""
    return blake2b(value)


def sign_announcement(
    command: Command,
    target: bytes,
    storing_id: NodeId,
    token: bytes,
    announcement: Announcement,
    key_pair: KeyPair,
) -> bytes:
    """The signature that makes a node with this id, which gave this token, accept it.

    `command` is ANNOUNCE or UNANNOUNCE; the announcement must have a record.
    """
    signable = _announce_signable(command, target, storing_id, token, announcement)
    return sign(signable, key_pair.secret_key)


def is_announcement_signed(
    command: Command, target: bytes, storing_id: NodeId, token: bytes, announcement: Announcement
) -> bool:
    """Whether the key in the record signed this, for this node and this token."""
    if announcement.record is None or announcement.signature is None:
        return False
    signable = _announce_signable(command, target, storing_id, token, announcement)
    return verify(signable, announcement.signature, announcement.record.public_key)


def _announce_signable(
    command: Command, target: bytes, storing_id: NodeId, token: bytes, announcement: Announcement
) -> bytes:
    record = announcement.record
    if record is None:
        raise ValueError("an announcement without a record has nothing to sign")
    refresh = announcement.refresh or b""
    return _NAMESPACES[command] + blake2b(target, storing_id, token, record.encode(), refresh)


def _mutable_signable(seq: int, value: bytes) -> bytes:
    return _NAMESPACES[Command.MUTABLE_PUT] + blake2b(encode_uint(seq) + encode_buffer(value))
