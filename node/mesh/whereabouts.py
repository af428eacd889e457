"""Where members can be dialed: what they say of themselves, and are told about others. Pure.

One message, type 0 of the channel `beemesh/addresses/1`, in both directions: an array of
[member id (32 bytes), [address...]], each address HOST:PORT or a WebSocket's URL.

A member says itself where it listens. A node that hears that passes it on to those of its members
that have not said that they are connected with that member, too; it does not pass on what it was
told about others. So nodes that came with the same ticket find one another, by way of the node
that gave it. An address is believed no more than any other: only a node that proves that member's
key is talked to there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from hypercore.crypto import KEY_BYTES
from node.mesh.fields import Field, FieldReader, pack_fields
from node.notation import format_address, parse_address

PROTOCOL = "beemesh/addresses/1"
MAX_MESSAGE_BYTES = 256 << 10
MAX_ENTRIES = 256
"""Members in one message."""

MAX_ADDRESSES = 8
"""Addresses of one member."""

MAX_ADDRESS_LENGTH = 256

Whereabouts = Mapping[bytes, tuple[str, ...]]
"""Addresses by the id of the member that listens there."""


def encode(whereabouts: Whereabouts) -> bytes:
    entries: list[Field] = [
        [id, list(addresses[:MAX_ADDRESSES])] for id, addresses in whereabouts.items()
    ]
    return pack_fields(entries)


def decode(data: bytes) -> Whereabouts:
    """Raises: DecodeError."""
    entries = FieldReader.unpack(data, MAX_MESSAGE_BYTES).array(MAX_ENTRIES)
    decoded: dict[bytes, tuple[str, ...]] = {}
    while entries.remaining:
        entry = entries.array()
        id, addresses = entry.fixed(KEY_BYTES), entry.array(MAX_ADDRESSES)
        texts = (addresses.text(MAX_ADDRESS_LENGTH) for _ in range(addresses.remaining))
        decoded[id] = tuple(dict.fromkeys(texts))
    return decoded


def as_seen(addresses: Sequence[str], host: str | None) -> tuple[str, ...]:
    """Where a member says it listens, in addresses that make sense to others.

    `host` is where its packets come from, None if that says nothing: a machine behind a router does
    not know its public address. Loopback addresses are of use on one machine only.
    """
    seen: list[str] = []
    is_here = host is not None and _is_loopback(host)
    for text in addresses:
        try:
            said, port = parse_address(text)
        except ValueError:
            seen.append(text)  # a URL
            continue
        if is_here or not _is_loopback(said):
            seen.append(text)
        if host is not None and not is_here and host != said:
            seen.append(format_address(host, port))
    return tuple(dict.fromkeys(seen))[:MAX_ADDRESSES]


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def split(whereabouts: Whereabouts) -> Iterable[Whereabouts]:
    """In as many messages as it takes."""
    entries = list(whereabouts.items())
    for start in range(0, len(entries), MAX_ENTRIES):
        yield dict(entries[start : start + MAX_ENTRIES])
