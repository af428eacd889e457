"""Members of a mesh that mean no good to the others: one async function for each kind.

Each is admitted first: it knows the secret. It goes on until the node ends its channel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache, cached_property, partial
from itertools import chain, cycle, repeat
from typing import Protocol

import trio

from hypercore.core import Core
from hypercore.corestore import open_corestore
from hypercore.crypto import KeyPair, discovery_key
from hypercore.manifest import Manifest
from hypercore.proof import Proof, build_proof
from hypercore.proof_request import InvalidRequest
from hypercore.replication.capability import replicate_capability
from hypercore.replication.messages import (
    PROTOCOL as REPLICATION_PROTOCOL,
)
from hypercore.replication.messages import (
    PROTOCOL_ALIASES,
    Data,
    Handshake,
    Range,
    Request,
    Sync,
)
from hypercore.replication.messages import MessageType as Wire
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.mesh.membership import Membership
from node.mesh.mesh_key import hello_proof
from node.mesh.messages import (
    MAX_QUERY_IDS,
    PROTOCOL,
    Answer,
    Evidence,
    EvidenceKind,
    Hello,
    Interest,
    Message,
    MessageType,
    Query,
    Sessions,
    Update,
    Welcome,
    decode_message,
    message_type,
)
from node.mesh.run_messages import Head
from node.mesh.session import MAX_OPEN_QUERIES
from swarm.io.channel import Channel
from swarm.io.mux import MuxHandle
from tests.node.mesh import samples
from tests.node.mesh.authors import Author
from tests.support.forked_logs import fork_proof
from tests.support.hostile_writers import HostileWriter
from tests.support.trees import MANIFEST

ACCEPTED = (PROTOCOL, REPLICATION_PROTOCOL)
KEYS = KeyPair.from_seed(b"the liar's data core, 32 bytes..")
DATA_KEY = Manifest.single_signer(KEYS.public_key).key
LENGTH = 1000
_BATCH = 16
_HEAD_SECONDS = 0.1
_POPULAR_SESSIONS = 1000
_ASKED_AHEAD = 4
_NO_MORE = b"\xc2"  # the last field of an answer
_ENDINGS = (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError)


class Hostile(Protocol):
    """A member's place among the others, and its way of misusing it."""

    def __call__(self, mux: MuxHandle, channel: Channel) -> Awaitable[None]: ...


async def be_member(
    mux: MuxHandle, membership: Membership, kind: str, admitted: Callable[[], None] | None = None
) -> None:
    """Be admitted, then do one's worst until the channel ends."""
    prepare(kind)
    channel = await mux.open_channel(PROTOCOL, None)
    proof = hello_proof(membership.key, mux.link.is_initiator, mux.link.handshake_hash)
    _send(channel, Hello(1, proof))
    welcome = Welcome(DATA_KEY, LENGTH, kind, "writer", membership.grant, ("all",))
    _send(channel, welcome)
    await _receive_types(channel, {Welcome, Interest})
    if admitted is not None:
        admitted()
    try:
        await KINDS[kind](mux, channel)
    except* _ENDINGS:
        pass


def _send(channel: Channel, message: Message) -> None:
    channel.send(message_type(message), message.encode())


async def _receive_types(channel: Channel, wanted: set[type[Message]]) -> None:
    """Read until one of each was received: what is announced before is of no interest."""
    while wanted:
        for number, payload in await channel.receive():
            message = decode_message(number, payload)
            wanted = {kind for kind in wanted if not isinstance(message, kind)}


async def _drain(channel: Channel, scope: trio.CancelScope) -> None:
    """Read what comes, so that the node is not kept waiting."""
    try:
        while True:
            await channel.receive()
    except _ENDINGS:
        scope.cancel()


async def _pour(
    _mux: MuxHandle, channel: Channel, *, next_batch: Callable[[], list[tuple[int, bytes]]]
) -> None:
    """Send as fast as the node takes it."""

    def take(_max_bytes: int) -> list[tuple[int, bytes]]:
        return next_batch()

    async with trio.open_nursery() as nursery:
        channel.set_source(take)
        await _drain(channel, nursery.cancel_scope)


def _always(*messages: Message) -> Callable[[], list[tuple[int, bytes]]]:
    batch = [(int(message_type(message)), message.encode()) for message in messages]
    return lambda: batch * (_BATCH // len(batch))


class _Prepared:
    """Many batches, made before: what takes us longer to say than others to hear is no flood."""

    def __init__(self, make: Callable[[], list[tuple[int, bytes]]], batches: int) -> None:
        self._make = make
        self._batches = batches
        self._ready: Iterator[list[tuple[int, bytes]]] | None = None

    def prepare(self) -> None:
        if self._ready is None:
            self._ready = cycle([self._make() for _ in range(self._batches)])

    def __call__(self) -> list[tuple[int, bytes]]:
        self.prepare()
        assert self._ready is not None
        return next(self._ready)


class _Counting:
    """New ids with every message."""

    def __init__(self, values: int, sessions: int = 1) -> None:
        self._next = 0
        self._values = values
        self._sessions = sessions

    @cached_property
    def _held(self) -> Sessions:
        return {samples.session_id(n): 1000 for n in range(self._sessions)}

    def updates(self) -> list[tuple[int, bytes]]:
        changes = tuple((samples.co_id(self._count()), self._held) for _ in range(self._values))
        return [(int(message_type(Update(1, ()))), Update(LENGTH, changes).encode())]

    def queries(self) -> list[tuple[int, bytes]]:
        ids = tuple(samples.co_id(self._count()) for _ in range(self._values))
        query = Query(self._count(), ids, tuple(self._held for _ in ids))
        return [(int(message_type(query)), query.encode())]

    def _count(self) -> int:
        self._next += 1
        return self._next


async def claim_everything(mux: MuxHandle, channel: Channel) -> None:
    """Say that we hold a lot of whatever is asked for, and announce more; have none of it."""
    count = _Counting(64)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve_log, mux, False)
        try:
            for number, payload in count.updates():
                channel.send(number, payload)
            while True:
                for number, payload in await channel.receive():
                    message = decode_message(number, payload)
                    if isinstance(message, Query):
                        held = {samples.session_id(1): 1000}
                        values = tuple((co_id, held) for co_id in message.ids)
                        _send(channel, Answer(message.request_id, LENGTH, values))
                for number, payload in count.updates():
                    channel.send(number, payload)
        except _ENDINGS:
            nursery.cancel_scope.cancel()


async def claim_and_be_silent(mux: MuxHandle, channel: Channel) -> None:
    """Claim as above, and never show our log; say more whenever something is heard."""
    count = _Counting(64)
    with suppress(*_ENDINGS):
        while True:
            for number, payload in count.updates():
                channel.send(number, payload)
            await channel.receive()


async def ask_without_end(mux: MuxHandle, channel: Channel) -> None:
    """Ask for what is not there, as much as may be asked for at once, and wait for the answers."""
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        first = asked % _ASKED_IDS
        ids = tuple(_ids()[first : first + MAX_QUERY_IDS])
        _send(channel, Query(asked, ids, (None,) * len(ids)))

    with suppress(*_ENDINGS):
        for _ in range(MAX_OPEN_QUERIES):
            ask()
        while True:
            for number, payload in await channel.receive():
                message = decode_message(number, payload)
                if isinstance(message, Answer) and not message.more:
                    ask()


@cache
def popular_contents() -> tuple[RawCoId, list[Content]]:
    """A value that is to be stored before one asks for it: it was written to in many sessions."""
    author = Author(0)
    value = author.value("popular")
    joined = [author.joined(value).edit("[]") for _ in range(_POPULAR_SESSIONS)]
    return value.id, [value.edit("[]", with_header=True), *joined]


async def ask_for_long_answers(mux: MuxHandle, channel: Channel) -> None:
    """Ask for a value with very many sessions all the time, and do not even read the answers."""
    co_id, _ = popular_contents()
    with suppress(*_ENDINGS):
        for number in range(_ASKED_AHEAD):
            _send(channel, Query(number, (co_id,), (None,)))
        number = _ASKED_AHEAD
        while True:
            for kind, payload in await channel.receive():
                if kind == MessageType.ANSWER and payload[-1:] == _NO_MORE:
                    _send(channel, Query(number, (co_id,), (None,)))
                    number += 1


async def announce_and_have_not(mux: MuxHandle, channel: Channel) -> None:
    """Offer ever new values, and show a log that has none of them."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve_log, mux, False)
        await _pour(mux, channel, next_batch=_Counting(64).updates)
        nursery.cancel_scope.cancel()


async def prove_wrongly(mux: MuxHandle, channel: Channel) -> None:
    """Announce values, and send other blocks than were signed."""
    for number, payload in _Counting(32).updates():
        channel.send(number, payload)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve_log, mux, True)
        await _drain(channel, nursery.cancel_scope)


async def show_an_old_head(mux: MuxHandle, channel: Channel) -> None:
    """Announce versions of our log that nobody is shown, anew whenever something is heard."""
    changes = tuple((samples.co_id(n), {samples.session_id(1): 5}) for n in range(64))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve_log, mux, False)
        with suppress(*_ENDINGS):
            while True:
                _send(channel, Update(2**40, changes))
                await channel.receive()
        nursery.cancel_scope.cancel()


async def sign_absurdly(mux: MuxHandle, channel: Channel) -> None:
    """Announce values, and show a new head all the time, of next to no block."""
    writer = HostileWriter(KEYS)
    count = _Counting(8)
    async with open_corestore(None) as store, trio.open_nursery() as nursery:
        core = await store.get(key=writer.key)
        nursery.start_soon(store.replicate, mux)
        nursery.start_soon(_drain, channel, nursery.cancel_scope)
        with suppress(*_ENDINGS):
            for changes in chain(writer.absurdities(), repeat(writer.claim(LENGTH, fork=2**40))):
                await core.commit_pieces([changes])
                for number, payload in count.updates():
                    channel.send(number, payload)
                await trio.sleep(_HEAD_SECONDS)
        nursery.cancel_scope.cancel()


async def _serve_log(mux: MuxHandle, is_wrong: bool) -> None:
    """A log of our own; its blocks are not what was signed, if `is_wrong`."""
    async with open_corestore(None) as store:
        core = await store.get(key_pair=KEYS)
        await core.append([b"\x0a\x08hyperbee\x12\x04junk%d" % n for n in range(LENGTH)])
        capability = replicate_capability(
            is_initiator=mux.link.is_initiator,
            key=core.key,
            handshake_hash=mux.link.handshake_hash,
        )
        try:
            log = await mux.open_channel(
                REPLICATION_PROTOCOL,
                discovery_key(core.key),
                Handshake(capability).encode(),
                aliases=PROTOCOL_ALIASES,
            )
            log.send(Wire.SYNC, Sync(0, LENGTH, 0, True, True, True, True, False).encode())
            log.send(Wire.RANGE, Range(0, LENGTH, False).encode())
            while True:
                for number, payload in await log.receive():
                    if number == Wire.REQUEST:
                        answer = await _answer(core, Request.decode(payload), is_wrong)
                        if answer is not None:
                            log.send(Wire.DATA, answer)
        except _ENDINGS:
            pass


async def _answer(core: Core, request: Request, is_wrong: bool) -> bytes | None:
    wanted = request.proof
    block = None if wanted.block is None else await core.get(wanted.block.index)
    try:
        proof: Proof = build_proof(wanted, core.head, core.read_node, block)
    except InvalidRequest:
        return None
    if is_wrong and proof.block is not None:
        proof = replace(proof, block=replace(proof.block, value=b"something else"))
    if request.manifest:
        proof = replace(proof, manifest=core.manifest)
    return Data(request.id, proof).encode()


def _evidence(*, is_true: bool) -> Evidence:
    """Of a core that nobody has to do with."""
    proof = bytearray(fork_proof().encode())
    if not is_true:
        proof[-1] ^= 1
    return Evidence(EvidenceKind.CORE, MANIFEST.key.hex(), bytes(proof), b"")


_WIDE, _NARROW = Interest(everything=True), Interest()
_ASKED_IDS = 16


@cache
def _ids() -> list[RawCoId]:
    return [samples.co_id(10**6 + number) for number in range(MAX_QUERY_IDS + _ASKED_IDS)]


def _come_and_go() -> list[tuple[int, bytes]]:
    ids = tuple(_ids()[:MAX_QUERY_IDS])
    return _always(Interest(added=ids), Interest(removed=ids))()


_QUERIES = _Prepared(_Counting(MAX_QUERY_IDS).queries, 128)
_UPDATES = _Prepared(_Counting(2000).updates, 64)
_HUGE = _Prepared(_Counting(1, 30_000).updates, 16)
_FLIPPING_IDS = _Prepared(_come_and_go, 1)


def prepare(kind: str) -> None:
    """Make beforehand what takes long to make."""
    hostile = KINDS[kind]
    if isinstance(hostile, partial) and isinstance(hostile.keywords["next_batch"], _Prepared):
        hostile.keywords["next_batch"].prepare()


KINDS: dict[str, Hostile] = {
    "claims that are never delivered": claim_everything,
    "claims, and then nothing": claim_and_be_silent,
    "values without end that it has not": announce_and_have_not,
    "wrong proofs": prove_wrongly,
    "old heads": show_an_old_head,
    "heads of anything": sign_absurdly,
    "updates": partial(_pour, next_batch=_UPDATES),
    "queries": partial(_pour, next_batch=_QUERIES),
    "questions about what is not there": ask_without_end,
    "questions whose answers are long": ask_for_long_answers,
    "interest": partial(_pour, next_batch=_always(_WIDE)),
    "interest that turns": partial(_pour, next_batch=_always(_WIDE, _NARROW)),
    "interest in ids that come and go": partial(_pour, next_batch=_FLIPPING_IDS),
    "messages that nobody knows": partial(_pour, next_batch=lambda: [(99, bytes(100))] * _BATCH),
    "huge known states": partial(_pour, next_batch=_HUGE),
    "false evidence": partial(_pour, next_batch=_always(_evidence(is_true=False))),
    "evidence without end": partial(_pour, next_batch=_always(_evidence(is_true=True))),
    "lengths of our own log": partial(_pour, next_batch=_always(Head(bytes(8), 0, 2**40))),
}

PATIENT = {
    "questions about what is not there": "asks no more than it may, and is answered slowly",
    "questions whose answers are long": "asks for what is here, and is answered slowly",
    "interest that turns": "gets few turns where much has moved, each of which costs it",
    "interest in ids that come and go": "says nothing that it may not, and is read slowly",
}
"""Those that nobody can tell from a node with very many clients: they stay, and get their share."""
