"""Peers that mean no good to a node which serves a core: one async function for each kind.

Each takes an address and the core's key, and goes on until it is cancelled; who is thrown out comes
back at once. They know the core's key and speak the protocol: what a stranger can do is less.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import trio

from hypercore.crypto import KeyPair, discovery_key
from hypercore.proof import BlockProof, Proof
from hypercore.proof_request import BlockRequest, ProofRequest
from hypercore.replication.capability import replicate_capability
from hypercore.replication.messages import (
    PROTOCOL,
    PROTOCOL_ALIASES,
    Cancel,
    Data,
    Extension,
    Handshake,
    HaveBits,
    MessageType,
    Range,
    Request,
    Sync,
    Want,
)
from swarm import open_connection, open_mux
from swarm.errors import SwarmError
from swarm.io.channel import Channel, ChannelRejected

Address = tuple[str, int]
Message = tuple[int, bytes]
Hostile = Callable[[Address, bytes], Awaitable[None]]

_ABSURD = 2**53 - 1
_BATCH = 256
_SYNC = (int(MessageType.SYNC), Sync(0, 0, 0, True, True, True, True, False).encode())
_PAUSE_SECONDS = 0.01
_ENDINGS = (
    ChannelRejected,
    SwarmError,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
)


@asynccontextmanager
async def speaking(address: Address, key: bytes) -> AsyncIterator[Channel]:
    """A channel of the core, with a right capability."""
    stream = await trio.open_tcp_stream(*address)
    async with (
        open_connection(stream, KeyPair.generate(), is_initiator=True) as connection,
        open_mux(connection) as mux,
    ):
        capability = replicate_capability(
            is_initiator=True, key=key, handshake_hash=connection.link.handshake_hash
        )
        channel = await mux.open_channel(
            PROTOCOL,
            discovery_key(key),
            Handshake(capability).encode(),
            aliases=PROTOCOL_ALIASES,
        )
        yield channel


async def _insist(once: Hostile, address: Address, key: bytes) -> None:
    """Again and again."""
    while True:
        try:
            await once(address, key)
        except _ENDINGS:
            pass
        except BaseExceptionGroup as group:
            _, rest = group.split((*_ENDINGS, trio.Cancelled))
            if rest is not None:
                raise
        await trio.sleep(_PAUSE_SECONDS)


async def _pour(
    address: Address, key: bytes, *, batch: list[Message], is_reading: bool = True
) -> None:
    """Send these messages as fast as they are taken."""
    async with speaking(address, key) as channel, trio.open_nursery() as nursery:
        channel.send(*_SYNC)

        def take(_: int) -> list[Message]:
            return batch

        channel.set_source(take)
        if is_reading:
            nursery.start_soon(_read, channel)
        await trio.sleep_forever()


async def _read(channel: Channel) -> None:
    while True:
        await channel.receive()


def _request(number: int, index: int) -> Message:
    proof = ProofRequest(0, BlockRequest(index, 0))
    return int(MessageType.REQUEST), Request(number, proof, False, 0).encode()


async def oversized(address: Address, key: bytes) -> None:
    """Frames of 16 MiB that are announced, and begun."""
    stream = await trio.open_tcp_stream(*address)
    async with stream:
        await stream.send_all(b"\xff\xff\xff" + bytes(2**16))
        while True:
            await stream.send_all(bytes(2**16))


async def large(address: Address, key: bytes) -> None:
    """Messages as large as the encryption allows, of no known type."""
    await _pour(address, key, batch=[(99, bytes(2**22))])


async def slow(address: Address, key: bytes) -> None:
    """Asks for all it may, and reads nothing."""
    async with speaking(address, key) as channel:
        channel.send(*_SYNC)
        for number in range(1000):
            channel.send(*_request(number + 1, number))
        await trio.sleep_forever()


async def silent(address: Address, key: bytes) -> None:
    """Connects, and says nothing."""
    async with speaking(address, key):
        await trio.sleep_forever()


async def one_byte_a_second(address: Address, key: bytes) -> None:
    """Begins a handshake that takes for ever."""
    stream = await trio.open_tcp_stream(*address)
    async with stream:
        while True:
            await stream.send_all(b"\x00")
            await trio.sleep(1)


def _cancels() -> list[Message]:
    messages = []
    for number in range(1, _BATCH):
        messages.append(_request(number, number % 100))
        messages.append((int(MessageType.CANCEL), Cancel(number).encode()))
    return messages


def _all(kind: MessageType, payloads: Iterable[bytes]) -> list[Message]:
    return [(int(kind), payload) for payload in payloads]


FLOODS: dict[str, list[Message]] = {
    "requests for what is not there": [
        _request(number, 10**9 + number) for number in range(1, _BATCH)
    ],
    "requests and cancels": _cancels(),
    "cancels": _all(MessageType.CANCEL, (Cancel(number).encode() for number in range(_BATCH))),
    "unwanted data": _all(
        MessageType.DATA,
        (
            Data(number, Proof(0, BlockProof(number, bytes(1000), []))).encode()
            for number in range(1, _BATCH)
        ),
    ),
    "extension messages": _all(
        MessageType.EXTENSION, [Extension("nobody", bytes(100)).encode()] * _BATCH
    ),
    "absurd wants": _all(
        MessageType.WANT,
        (Want(number * 2**40, _ABSURD // 2, False).encode() for number in range(_BATCH)),
    ),
    "absurd ranges": _all(
        MessageType.RANGE,
        (Range(number * 2, _ABSURD // 2 if number % 2 else 1).encode() for number in range(_BATCH)),
    ),
    "absurd bitfields": _all(
        MessageType.BITFIELD,
        (HaveBits(number * 2**30, b"\x55" * 4096).encode() for number in range(_BATCH)),
    ),
}
"""What a flooding peer sends, over and over."""

KINDS: dict[str, Hostile] = {
    "oversized frames": oversized,
    "large messages": large,
    "slow": slow,
    "silent": silent,
    "1 byte a second": one_byte_a_second,
    **{name: partial(_pour, batch=batch) for name, batch in FLOODS.items()},
}


async def attack(kind: str, address: Address, key: bytes, count: int) -> None:
    """So many peers of one kind, until cancelled."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(_insist, KINDS[kind], address, key)
