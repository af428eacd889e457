"""[trio] The channel of one core on a connection: each end proves that it knows the core's key."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from hypercore.encoding import DecodeError
from hypercore.errors import InvalidCapability, MalformedMessage, RemoteProtocolError
from hypercore.replication.capability import is_capable, replicate_capability
from hypercore.replication.channel import MessageChannel, Multiplexer
from hypercore.replication.messages import PROTOCOL, PROTOCOL_ALIASES, Handshake


async def open_log_channel(
    mux: Multiplexer,
    key: bytes,
    discovery_key: bytes,
    early: Sequence[tuple[int, bytes]] = (),
) -> MessageChannel | None:
    """Open the core's channel with our capability; None when the remote does not have the core.

    The `early` messages go right behind our open.

    Cancel: the channel is not opened.
    """
    link = mux.link
    capability = replicate_capability(
        is_initiator=link.is_initiator, key=key, handshake_hash=link.handshake_hash
    )
    try:
        return await mux.open_channel(
            PROTOCOL,
            discovery_key,
            Handshake(capability).encode(),
            aliases=PROTOCOL_ALIASES,
            early=early,
        )
    except (trio.BrokenResourceError, trio.EndOfChannel, trio.ClosedResourceError):
        return None


def capability_fault(channel: MessageChannel, key: bytes) -> RemoteProtocolError | None:
    """What is wrong with the remote's handshake; None when it knows the core's key."""
    link = channel.link
    try:
        handshake = Handshake.decode(channel.remote_handshake)
    except DecodeError as reason:
        return MalformedMessage(f"replication handshake: {reason.reason}", reason.offset)
    if is_capable(
        handshake.capability,
        is_initiator=not link.is_initiator,
        key=key,
        handshake_hash=link.handshake_hash,
    ):
        return None
    return InvalidCapability("the remote does not know the key of the core it opened")
