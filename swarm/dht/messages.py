"""Requests and responses of dht-rpc: one datagram each.

| request | bytes | when flag | response     | bytes | when flag |
|---------|-------|-----------|--------------|-------|-----------|
| `03`    | 1     |           | `13`         | 1     |           |
| flags   | uint  |           | flags        | uint  |           |
| tid     | u16   |           | tid          | u16   |           |
| to      | 6     |           | to           | 6     |           |
| id      | 32    | 1         | id           | 32    | 1         |
| token   | 32    | 2         | token        | 32    | 2         |
| command | uint  |           | closer nodes | array | 4         |
| target  | 32    | 8         | error        | uint  | 8         |
| value   | buffer| 16        | value        | buffer| 16        |

Flag 4 of a request says that `command` is one of dht-rpc's own. `to` is the address that the
datagram is sent to: in a response it tells the requester how the world sees it. Integers are
little endian; an address is four bytes of IPv4 and a u16 port.

Worked example: a ping with transaction 258, sent to 127.0.0.1:49737, is
`03 04 02 01 7f 00 00 01 49 c2 00`.

Source: dht-rpc 6.27.0 lib/io.js, lib/peer.js, lib/commands.js, lib/errors.js.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from hypercore.crypto import blake2b
from hypercore.encoding import DecodeError, Reader, encode_buffer, encode_uint
from swarm.announcement import Address

REQUEST_TYPE = 0x03
RESPONSE_TYPE = 0x13
ID_BYTES = 32
TOKEN_BYTES = 32
ADDRESS_BYTES = 6
MAX_CLOSER_NODES = 20
"""Taken from one response. The originals send no more; what a longer list adds is spam."""

MAX_DATAGRAM_BYTES = 2**14
"""More than 20 nodes, 20 records and any value that fits a packet come to. A query keeps up to 256
responses, so this bounds what it can be made to hold."""

_ID, _TOKEN, _INTERNAL, _TARGET, _VALUE = 1, 2, 4, 8, 16
_CLOSER_NODES, _ERROR = 4, 8
_MIN_BYTES = 10

NodeId = bytes
"""32 bytes, the hash of a node's public address: no node chooses where it stands."""


class Internal(enum.IntEnum):
    """Commands of dht-rpc itself."""

    PING = 0
    PING_NAT = 1
    FIND_NODE = 2
    DOWN_HINT = 3
    DELAYED_PING = 4


class Command(enum.IntEnum):
    """Commands of HyperDHT."""

    PEER_HANDSHAKE = 0
    PEER_HOLEPUNCH = 1
    FIND_PEER = 2
    LOOKUP = 3
    ANNOUNCE = 4
    UNANNOUNCE = 5
    MUTABLE_PUT = 6
    MUTABLE_GET = 7
    IMMUTABLE_PUT = 8
    IMMUTABLE_GET = 9
    PLUGIN = 10


BETWEEN_PEERS = (Command.PEER_HANDSHAKE, Command.PEER_HOLEPUNCH)
"""What a node passes on, so that somebody else has to answer first."""


class ErrorCode(enum.IntEnum):
    """What a response may complain about; 0 is nothing."""

    NONE = 0
    UNKNOWN_COMMAND = 1
    INVALID_TOKEN = 2
    SEQUENCE_REUSED = 16
    SEQUENCE_TOO_LOW = 17


@dataclass(frozen=True, slots=True)
class Request:
    """A question. `id` is there only from nodes that take part in the table."""

    transaction: int
    to: Address
    command: int
    is_internal: bool
    id: NodeId | None = None
    token: bytes | None = None
    target: bytes | None = None
    value: bytes | None = None

    def encode(self) -> bytes:
        flags = (
            (_ID if self.id is not None else 0)
            | (_TOKEN if self.token is not None else 0)
            | (_INTERNAL if self.is_internal else 0)
            | (_TARGET if self.target is not None else 0)
            | (_VALUE if self.value is not None else 0)
        )
        return b"".join(
            (
                bytes((REQUEST_TYPE, flags)),
                self.transaction.to_bytes(2, "little"),
                encode_address(self.to),
                self.id or b"",
                self.token or b"",
                encode_uint(self.command),
                self.target or b"",
                b"" if self.value is None else encode_buffer(self.value),
            )
        )


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. `to` is the requester as the responder sees it."""

    transaction: int
    to: Address
    id: NodeId | None = None
    token: bytes | None = None
    closer_nodes: tuple[Address, ...] = ()
    error: int = 0
    value: bytes | None = None

    def encode(self) -> bytes:
        flags = (
            (_ID if self.id is not None else 0)
            | (_TOKEN if self.token is not None else 0)
            | (_CLOSER_NODES if self.closer_nodes else 0)
            | (_ERROR if self.error else 0)
            | (_VALUE if self.value is not None else 0)
        )
        return b"".join(
            (
                bytes((RESPONSE_TYPE, flags)),
                self.transaction.to_bytes(2, "little"),
                encode_address(self.to),
                self.id or b"",
                self.token or b"",
                encode_addresses(self.closer_nodes) if self.closer_nodes else b"",
                encode_uint(self.error) if self.error else b"",
                b"" if self.value is None else encode_buffer(self.value),
            )
        )


def is_dht_datagram(data: bytes) -> bool:
    """Whether a datagram claims to be of this protocol, and not UDX or a probe."""
    return _MIN_BYTES <= len(data) <= MAX_DATAGRAM_BYTES and data[0] in (
        REQUEST_TYPE,
        RESPONSE_TYPE,
    )


def decode_datagram(data: bytes) -> Request | Response:
    """Raises: DecodeError for whatever is neither; bytes after the last field are ignored."""
    reader = Reader(data)
    kind = reader.uint8()
    if kind == REQUEST_TYPE:
        return _decode_request(reader)
    if kind == RESPONSE_TYPE:
        return _decode_response(reader)
    raise DecodeError(f"datagram type {kind:#04x}", 0)


def _decode_request(reader: Reader) -> Request:
    flags = reader.uint()
    transaction = reader.uint16()
    to = decode_address(reader)
    node_id = reader.fixed32() if flags & _ID else None
    token = reader.fixed32() if flags & _TOKEN else None
    command = reader.uint()
    target = reader.fixed32() if flags & _TARGET else None
    value = reader.buffer() if flags & _VALUE else None
    return Request(transaction, to, command, bool(flags & _INTERNAL), node_id, token, target, value)


def _decode_response(reader: Reader) -> Response:
    flags = reader.uint()
    transaction = reader.uint16()
    to = decode_address(reader)
    node_id = reader.fixed32() if flags & _ID else None
    token = reader.fixed32() if flags & _TOKEN else None
    closer = _read_closer_nodes(reader) if flags & _CLOSER_NODES else ()
    error = reader.uint() if flags & _ERROR else 0
    value = reader.buffer() if flags & _VALUE else None
    return Response(transaction, to, node_id, token, closer, error, value)


def _read_closer_nodes(reader: Reader) -> tuple[Address, ...]:
    """The first MAX_CLOSER_NODES of an array; the others are skipped without being looked at."""
    count = reader.uint()
    packed = Reader(reader.fixed(ADDRESS_BYTES * count))
    return tuple(decode_address(packed) for _ in range(min(count, MAX_CLOSER_NODES)))


@lru_cache(maxsize=2**14)
def _pack_host(host: str) -> bytes:
    parts = host.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{host!r} is not an IPv4 address")
    return bytes(map(int, parts))


def encode_address(address: Address) -> bytes:
    """Raises: ValueError when the host is not IPv4 in dotted decimals."""
    host, port = address
    return _pack_host(host) + port.to_bytes(2, "little")


def decode_address(reader: Reader) -> Address:
    packed = reader.fixed(ADDRESS_BYTES)
    return "{}.{}.{}.{}".format(*packed[:4]), packed[4] | packed[5] << 8


def encode_addresses(addresses: Sequence[Address]) -> bytes:
    return encode_uint(len(addresses)) + b"".join(map(encode_address, addresses))


@lru_cache(maxsize=2**16)
def node_id(address: Address) -> NodeId:
    """Where a node at this public address stands among the others.

    Cached: a response names 20 nodes, mostly known ones, and looking one up takes a sixth of
    the 2 us that hashing its address does.
    """
    return blake2b(encode_address(address))
