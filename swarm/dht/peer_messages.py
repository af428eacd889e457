"""What two peers tell each other before there is a connection, through nodes that know both.

| message    | layout                                                                          |
|------------|---------------------------------------------------------------------------------|
| handshake  | uint flags, uint mode, buffer noise, by flag: 1 peer address, 2 relay address   |
| hole punch | uint flags, uint mode, uint id, buffer sealed, by flag: 1 peer address          |
| offer      | uint version 1, uint flags, uint error, uint NAT, by flag:                      |
|            | 1 punch: uint id, array of (relay address, our address as it sees us)           |
|            | 2 addresses: array of address                                                   |
|            | 4 addresses of IPv6: array of 18 bytes, ignored                                 |
|            | 8 stream: uint version 1, uint features, uint id, uint first seq                |
|            | 16 secret stream: uint version 1                                                |
|            | 32 relay through: uint version 1, uint 0, public key 32, token 32               |
|            | 64 relays for the next time: array of address                                   |
|            | 2**24 no relay, which the originals do not know                                 |
| round      | uint flags (1 connected, 2 punching), uint error, uint NAT, uint round, by flag:|
|            | 4 addresses, 8 remote address, 16 token 32, 32 remote token 32                  |

The first two are values of requests and their answers; *mode* says which leg of the way they are
on. An offer is what a Noise message of a handshake carries, a round what is sealed in a hole punch.

Worked example: a handshake from a client with noise `0102` is `00 00 02 01 02`.

Source: hyperdht 6.34.0 lib/messages.js, lib/constants.js, lib/router.js.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from hypercore.crypto import KEY_BYTES
from hypercore.encoding import DecodeError, Reader, encode_buffer, encode_uint
from swarm.announcement import Address
from swarm.dht.messages import ADDRESS_BYTES, decode_address, encode_address, encode_addresses

MAX_SEALED_BYTES = 1200
"""Of a Noise message or a sealed round. What peers really send has 150 to 400."""

MAX_ADDRESSES = 16
"""Taken from one list: what a longer one adds is spam."""

TOKEN_BYTES = 32

_PEER_ADDRESS, _RELAY_ADDRESS = 1, 2
_PUNCH, _ADDRESSES, _ADDRESSES6, _STREAM, _SECRET_STREAM, _THROUGH, _RELAYS = (
    1, 2, 4, 8, 16, 32, 64,
)  # fmt: skip
_NO_RELAY = 1 << 24
"""Far from what the originals use: at one of the next flags they would look for a field of
theirs."""

_CONNECTED, _PUNCHING, _ROUND_ADDRESSES, _REMOTE_ADDRESS, _TOKEN, _REMOTE_TOKEN = (
    1, 2, 4, 8, 16, 32,
)  # fmt: skip
_ADDRESS6_BYTES = 18
_VERSION = 1


class Mode(enum.IntEnum):
    """Which leg of the way a message is on."""

    FROM_CLIENT = 0
    FROM_SERVER = 1
    FROM_RELAY = 2
    FROM_SECOND_RELAY = 3
    REPLY = 4


class NatKind(enum.IntEnum):
    """What is between a socket and the world; the wire calls it *firewall*."""

    UNKNOWN = 0
    OPEN = 1
    """Nothing: strangers are let in."""
    CONSISTENT = 2
    """Everybody sees the same port."""
    RANDOM = 3
    """Everybody sees a different port."""

    @property
    def is_consistent(self) -> bool:
        return self in (NatKind.OPEN, NatKind.CONSISTENT)


class PeerError(enum.IntEnum):
    """Why a peer refuses; 0 is nothing."""

    NONE = 0
    ABORTED = 1
    VERSION_MISMATCH = 2
    TRY_LATER = 3


@dataclass(frozen=True, slots=True)
class PeerHandshake:
    """Value of PEER_HANDSHAKE. `peer_address` is the client's, or on the way back the server's."""

    mode: Mode
    noise: bytes
    peer_address: Address | None = None
    relay_address: Address | None = None

    def encode(self) -> bytes:
        flags = (_PEER_ADDRESS if self.peer_address is not None else 0) | (
            _RELAY_ADDRESS if self.relay_address is not None else 0
        )
        return b"".join(
            (
                encode_uint(flags),
                encode_uint(self.mode),
                encode_buffer(self.noise),
                b"" if self.peer_address is None else encode_address(self.peer_address),
                b"" if self.relay_address is None else encode_address(self.relay_address),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> PeerHandshake:
        """Raises: DecodeError."""
        reader = Reader(data)
        flags = reader.uint()
        return cls(
            _read_mode(reader),
            _read_sealed(reader),
            decode_address(reader) if flags & _PEER_ADDRESS else None,
            decode_address(reader) if flags & _RELAY_ADDRESS else None,
        )


@dataclass(frozen=True, slots=True)
class PeerHolepunch:
    """Value of PEER_HOLEPUNCH; `id` is the one that the server gave in its offer."""

    mode: Mode
    id: int
    sealed: bytes
    peer_address: Address | None = None

    def encode(self) -> bytes:
        return b"".join(
            (
                encode_uint(_PEER_ADDRESS if self.peer_address is not None else 0),
                encode_uint(self.mode),
                encode_uint(self.id),
                encode_buffer(self.sealed),
                b"" if self.peer_address is None else encode_address(self.peer_address),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> PeerHolepunch:
        """Raises: DecodeError."""
        reader = Reader(data)
        flags = reader.uint()
        return cls(
            _read_mode(reader),
            reader.uint(),
            _read_sealed(reader),
            decode_address(reader) if flags & _PEER_ADDRESS else None,
        )


@dataclass(frozen=True, slots=True)
class RelayPair:
    """A node that passes messages on to a server, and the server's address as it sees it."""

    relay: Address
    peer: Address


@dataclass(frozen=True, slots=True)
class PunchOffer:
    """The server is ready to punch: under this id, through these relays."""

    id: int
    relays: tuple[RelayPair, ...]


@dataclass(frozen=True, slots=True)
class StreamOffer:
    """The UDX stream that its sender has opened for the connection."""

    id: int
    first_seq: int = 0
    is_socket_reusable: bool = False


@dataclass(frozen=True, slots=True)
class RelayThrough:
    """A blind relay at which its sender can be met, and the token to pair with."""

    public_key: bytes
    token: bytes


@dataclass(frozen=True, slots=True)
class PeerOffer:
    """What a peer says about itself in a handshake. Of another `version`, nothing else is known."""

    nat: NatKind = NatKind.UNKNOWN
    error: int = PeerError.NONE
    punch: PunchOffer | None = None
    addresses: tuple[Address, ...] = ()
    stream: StreamOffer | None = None
    has_secret_stream: bool = True
    relay_through: RelayThrough | None = None
    relay_addresses: tuple[Address, ...] = ()
    shuns_relays: bool = False
    """Its sender goes to no blind relay: it comes to us as to one, for somebody else."""
    version: int = _VERSION

    def encode(self) -> bytes:
        flags = (
            (_PUNCH if self.punch is not None else 0)
            | (_ADDRESSES if self.addresses else 0)
            | (_STREAM if self.stream is not None else 0)
            | (_SECRET_STREAM if self.has_secret_stream else 0)
            | (_THROUGH if self.relay_through is not None else 0)
            | (_RELAYS if self.relay_addresses else 0)
            | (_NO_RELAY if self.shuns_relays else 0)
        )
        parts = [encode_uint(number) for number in (self.version, flags, self.error, self.nat)]
        if self.punch is not None:
            parts += [encode_uint(self.punch.id), encode_uint(len(self.punch.relays))]
            parts += [
                encode_address(pair.relay) + encode_address(pair.peer) for pair in self.punch.relays
            ]
        if self.addresses:
            parts.append(encode_addresses(self.addresses))
        if self.stream is not None:
            features = int(self.stream.is_socket_reusable)
            numbers = (_VERSION, features, self.stream.id, self.stream.first_seq)
            parts += map(encode_uint, numbers)
        if self.has_secret_stream:
            parts.append(encode_uint(_VERSION))
        if self.relay_through is not None:
            parts += [encode_uint(_VERSION), encode_uint(0)]
            parts += [self.relay_through.public_key, self.relay_through.token]
        if self.relay_addresses:
            parts.append(encode_addresses(self.relay_addresses))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> PeerOffer:
        """Raises: DecodeError."""
        reader = Reader(data)
        version = reader.uint()
        if version != _VERSION:
            return cls(has_secret_stream=False, version=version)
        flags, error, nat = reader.uint(), reader.uint(), _read_nat(reader)
        punch = _read_punch(reader) if flags & _PUNCH else None
        addresses = _read_addresses(reader) if flags & _ADDRESSES else ()
        if flags & _ADDRESSES6:
            reader.fixed(_ADDRESS6_BYTES * reader.uint())
        stream = _read_stream(reader) if flags & _STREAM else None
        if flags & _SECRET_STREAM:
            reader.uint()
        through = _read_through(reader) if flags & _THROUGH else None
        relays = _read_addresses(reader) if flags & _RELAYS else ()
        has_secret_stream, shuns_relays = bool(flags & _SECRET_STREAM), bool(flags & _NO_RELAY)
        return cls(
            nat, error, punch, addresses, stream, has_secret_stream, through, relays, shuns_relays
        )


@dataclass(frozen=True, slots=True)
class PunchRound:
    """What the two ends tell each other while they punch.

    `addresses` are those that its sender appears at, `remote_address` one of the receiver's that
    it has just written to. A `token` comes back as `remote_token` from whoever receives at the
    host that it was made for.
    """

    nat: NatKind = NatKind.UNKNOWN
    round: int = 0
    error: int = PeerError.NONE
    is_connected: bool = False
    is_punching: bool = False
    addresses: tuple[Address, ...] | None = None
    remote_address: Address | None = None
    token: bytes | None = None
    remote_token: bytes | None = None

    def encode(self) -> bytes:
        flags = (
            (_CONNECTED if self.is_connected else 0)
            | (_PUNCHING if self.is_punching else 0)
            | (_ROUND_ADDRESSES if self.addresses is not None else 0)
            | (_REMOTE_ADDRESS if self.remote_address is not None else 0)
            | (_TOKEN if self.token is not None else 0)
            | (_REMOTE_TOKEN if self.remote_token is not None else 0)
        )
        return b"".join(
            (
                *map(encode_uint, (flags, self.error, self.nat, self.round)),
                b"" if self.addresses is None else encode_addresses(self.addresses),
                b"" if self.remote_address is None else encode_address(self.remote_address),
                self.token or b"",
                self.remote_token or b"",
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> PunchRound:
        """Raises: DecodeError."""
        reader = Reader(data)
        flags, error, nat, number = reader.uint(), reader.uint(), _read_nat(reader), reader.uint()
        return cls(
            nat=nat,
            round=number,
            error=error,
            is_connected=bool(flags & _CONNECTED),
            is_punching=bool(flags & _PUNCHING),
            addresses=_read_addresses(reader) if flags & _ROUND_ADDRESSES else None,
            remote_address=decode_address(reader) if flags & _REMOTE_ADDRESS else None,
            token=reader.fixed(TOKEN_BYTES) if flags & _TOKEN else None,
            remote_token=reader.fixed(TOKEN_BYTES) if flags & _REMOTE_TOKEN else None,
        )


def _read_mode(reader: Reader) -> Mode:
    mode = reader.uint()
    if mode > Mode.REPLY:
        raise DecodeError(f"mode {mode}", 1)
    return Mode(mode)


def _read_nat(reader: Reader) -> NatKind:
    """A number beyond the known kinds counts as the worst of them, as in the original."""
    return NatKind(min(reader.uint(), NatKind.RANDOM))


def _read_sealed(reader: Reader) -> bytes:
    sealed = reader.buffer()
    if not 0 < len(sealed) <= MAX_SEALED_BYTES:
        raise DecodeError(f"{len(sealed)} sealed bytes, at most {MAX_SEALED_BYTES}", 2)
    return sealed


def _read_addresses(reader: Reader) -> tuple[Address, ...]:
    """The first MAX_ADDRESSES; the others are skipped without being looked at."""
    count = reader.uint()
    packed = Reader(reader.fixed(ADDRESS_BYTES * count))
    return tuple(decode_address(packed) for _ in range(min(count, MAX_ADDRESSES)))


def _read_punch(reader: Reader) -> PunchOffer:
    punch_id, count = reader.uint(), reader.uint()
    packed = Reader(reader.fixed(2 * ADDRESS_BYTES * count))
    pairs: Sequence[RelayPair] = [
        RelayPair(decode_address(packed), decode_address(packed))
        for _ in range(min(count, MAX_ADDRESSES))
    ]
    return PunchOffer(punch_id, tuple(pairs))


def _read_stream(reader: Reader) -> StreamOffer:
    reader.uint()  # the version; a later one may add fields, which the original reads like this
    features, stream_id, first_seq = reader.uint(), reader.uint(), reader.uint()
    if max(stream_id, first_seq) >= 2**32:
        raise DecodeError("a stream's numbers have 32 bits", 0)
    return StreamOffer(stream_id, first_seq, bool(features & 1))


def _read_through(reader: Reader) -> RelayThrough:
    reader.uint()
    reader.uint()
    return RelayThrough(reader.fixed(KEY_BYTES), reader.fixed(TOKEN_BYTES))
