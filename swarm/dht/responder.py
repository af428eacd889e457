"""What others ask of us, answered; a machine.

A node that wants something stored shows a token that we gave to its host a moment ago, and for
records a signature over it; what is wrong is met with silence, as by the originals, except for a
wrong token, which is answered with a fresh one. Nodes that keep no records answer only what dht-rpc
itself asks, and refuse the rest, naming closer nodes.

Source: dht-rpc 6.27.0 index.js _onrequest, lib/io.js; hyperdht 6.34.0 index.js onrequest,
lib/persistent.js.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hypercore.crypto import Entropy
from hypercore.encoding import DecodeError, Reader
from swarm.announcement import Address
from swarm.dht.allowance import Allowance
from swarm.dht.hosts import may_refer
from swarm.dht.messages import (
    BETWEEN_PEERS,
    Command,
    ErrorCode,
    Internal,
    NodeId,
    Response,
)
from swarm.dht.payloads import (
    MAX_VALUE_BYTES,
    Announcement,
    MutablePut,
    immutable_target,
    is_announcement_signed,
    peer_target,
)
from swarm.dht.records import RecordStore
from swarm.dht.requests import Transmit, Via
from swarm.dht.router import Asked, PeerAsked, Router
from swarm.dht.routing_table import RoutingTable
from swarm.dht.tokens import TokenIssuer

MAX_PING_DELAY_SECONDS = 10.0
MAX_DELAYED_PINGS = 1024
MAX_DELAYED_PINGS_PER_HOST = 16


@dataclass(frozen=True, slots=True)
class _Answer:
    value: bytes | None = None
    error: ErrorCode = ErrorCode.NONE
    has_token: bool = False
    has_closer_nodes: bool = False
    to_port: int | None = None
    """Where to send it, if not to where the request came from."""
    delay_seconds: float = 0.0


_PONG = _Answer()
_CLOSER_NODES = _Answer(has_closer_nodes=True)
_STORED = _Answer()
_UNKNOWN = _Answer(error=ErrorCode.UNKNOWN_COMMAND, has_closer_nodes=True)


def _found(value: bytes | None) -> _Answer:
    return _Answer(value, has_token=True, has_closer_nodes=True)


class Responder:
    """Answers requests. `own_id` is None while we keep no records."""

    def __init__(self, table: RoutingTable, entropy: Entropy, now: float, unix_ms: int) -> None:
        self.table = table
        self.own_id: NodeId | None = None
        self.records = RecordStore(entropy)
        self.answered = 0
        self.ignored = 0
        self._tokens = TokenIssuer(entropy, now)
        self._allowance = Allowance(now)
        self.router = Router(self.records, self._allowance)
        self._unix_ms_at_0 = unix_ms - now * 1000
        self._pings: list[tuple[float, int, Transmit, str]] = []  # heap
        self._pings_by_host: Counter[str] = Counter()
        self._last_ping = 0

    @property
    def refused_by_allowance(self) -> int:
        return self._allowance.refused

    @property
    def deadline(self) -> float | None:
        """When a delayed ping is to be answered."""
        return self._pings[0][0] if self._pings else None

    def advance(self, now: float) -> list[Transmit]:
        """Answer the delayed pings that are due."""
        outputs: list[Transmit] = []
        while self._pings and self._pings[0][0] <= now:
            _, _, transmit, host = heapq.heappop(self._pings)
            self._pings_by_host[host] -= 1
            if not self._pings_by_host[host]:
                del self._pings_by_host[host]
            outputs.append(transmit)
        return outputs

    def receive(self, asked: Asked) -> Sequence[Transmit | PeerAsked]:
        """Answer a request, pass it on, or neither."""
        request = asked.request
        if not request.is_internal and request.command in BETWEEN_PEERS:
            return self._route(asked)
        token = request.token
        if token is not None and not self._tokens.is_valid(token, asked.source[0], asked.now):
            answer: _Answer | None = _Answer(
                error=ErrorCode.INVALID_TOKEN, has_token=True, has_closer_nodes=True
            )
        else:
            try:
                answer = self._internal(asked) if request.is_internal else self._external(asked)
            except DecodeError:
                answer = None
        if answer is None:
            self.ignored += 1
            return []
        return self._delay(asked, answer) if answer.delay_seconds else self._send(asked, answer)

    def _route(self, asked: Asked) -> Sequence[Transmit | PeerAsked]:
        try:
            routed = self.router.receive(asked, self.own_id)
        except DecodeError:
            routed = []
        if routed is None:
            return self._send(asked, _CLOSER_NODES)
        self.ignored += not routed
        return routed

    def _send(self, asked: Asked, answer: _Answer) -> list[Transmit]:
        host, port = asked.source
        to = (host, port if answer.to_port is None else answer.to_port)
        data = self._encode(asked, answer, to)
        if not self._allowance.admit(asked.source[0], asked.size_bytes, len(data), asked.now):
            return []
        self.answered += 1
        return [Transmit(data, to, asked.via)]

    def _encode(self, asked: Asked, answer: _Answer, to: Address) -> bytes:
        target = asked.request.target
        closer: tuple[Address, ...] = ()
        if target is not None and answer.has_closer_nodes:
            nodes = self.table.closest(target)
            # Nobody out there can use, or need know, the addresses of a private network.
            closer = tuple(node.address for node in nodes if may_refer(asked.source, node.address))
        response = Response(
            transaction=asked.request.transaction,
            to=to,
            id=self.own_id if asked.via is Via.SERVER else None,
            token=self._tokens.issue(asked.source[0], asked.now) if answer.has_token else None,
            closer_nodes=closer,
            error=answer.error,
            value=answer.value,
        )
        return response.encode()

    def _internal(self, asked: Asked) -> _Answer | None:
        request = asked.request
        match request.command:
            case Internal.PING:
                return _PONG
            case Internal.PING_NAT:
                port = Reader(request.value or b"").uint16()
                return _Answer(to_port=port) if port else None
            case Internal.DELAYED_PING:
                seconds = Reader(request.value or b"").uint32() / 1000
                return _Answer(delay_seconds=seconds) if seconds <= MAX_PING_DELAY_SECONDS else None
            case Internal.FIND_NODE:
                return None if request.target is None else _CLOSER_NODES
            case Internal.DOWN_HINT:
                return _PONG if len(request.value or b"") >= 6 else None
            case _:
                return _UNKNOWN

    def _delay(self, asked: Asked, answer: _Answer) -> list[Transmit]:
        host = asked.source[0]
        is_too_many = (
            len(self._pings) >= MAX_DELAYED_PINGS
            or self._pings_by_host[host] >= MAX_DELAYED_PINGS_PER_HOST
        )
        if is_too_many:
            return []
        for transmit in self._send(asked, answer):
            self._last_ping += 1
            self._pings_by_host[host] += 1
            item = (asked.now + answer.delay_seconds, self._last_ping, transmit, host)
            heapq.heappush(self._pings, item)
        return []

    def _external(self, asked: Asked) -> _Answer | None:
        match asked.request.command:
            case _ if self.own_id is None:
                return _UNKNOWN
            case Command.FIND_PEER:
                return self._find_peer(asked)
            case Command.LOOKUP:
                return self._lookup(asked)
            case Command.ANNOUNCE:
                return self._announce(asked, self.own_id)
            case Command.UNANNOUNCE:
                return self._unannounce(asked, self.own_id)
            case Command.MUTABLE_PUT:
                return self._put_mutable(asked)
            case Command.MUTABLE_GET:
                return self._get_mutable(asked)
            case Command.IMMUTABLE_PUT:
                return self._put_immutable(asked)
            case Command.IMMUTABLE_GET:
                return self._get_immutable(asked)
            case Command.PLUGIN:
                return None  # as by an original that has no such plugin
            case _:
                return _UNKNOWN

    def _find_peer(self, asked: Asked) -> _Answer | None:
        target = asked.request.target
        if target is None:
            return None
        own = self.router.served(target)
        if own is not None:
            return _found(own.encode())
        route = self.records.route(target, asked.now)
        return _found(None if route is None else route.record.encode())

    def _lookup(self, asked: Asked) -> _Answer | None:
        target = asked.request.target
        if target is None:
            return None
        answer = self.records.lookup(target, asked.now)
        return _found(None if answer is None else answer.encode())

    def _announce(self, asked: Asked, own_id: NodeId) -> _Answer | None:
        request = asked.request
        target, token, value = request.target, request.token, request.value
        if target is None or token is None or value is None:
            return None
        announcement = Announcement.decode(value)
        if announcement.record is None:
            secret = announcement.refresh
            is_kept = secret is not None and self.records.refresh(secret, asked.source, asked.now)
            return _STORED if is_kept else None
        if not is_announcement_signed(Command.ANNOUNCE, target, own_id, token, announcement):
            return None
        is_kept = self.records.announce(
            target, announcement, asked.source, asked.now, self._unix_ms(asked.now)
        )
        return _STORED if is_kept else None

    def _unannounce(self, asked: Asked, own_id: NodeId) -> _Answer | None:
        request = asked.request
        target, token, value = request.target, request.token, request.value
        if target is None or token is None or value is None:
            return None
        announcement = Announcement.decode(value)
        record = announcement.record
        if record is None or not is_announcement_signed(
            Command.UNANNOUNCE, target, own_id, token, announcement
        ):
            return None
        self.records.unannounce(target, record.public_key)
        return _STORED

    def _put_mutable(self, asked: Asked) -> _Answer | None:
        request = asked.request
        if request.target is None or request.token is None or request.value is None:
            return None
        put = MutablePut.decode(request.value)
        is_fit = 0 < len(put.content.value) <= MAX_VALUE_BYTES
        if not is_fit or peer_target(put.public_key) != request.target:
            return None
        if not put.content.is_signed_by(put.public_key):
            return None
        error = self.records.put_mutable(request.target, put.content, asked.source, asked.now)
        if error is None:
            return None
        return _found(None) if error is ErrorCode.NONE else _Answer(None, error, False, True)

    def _get_mutable(self, asked: Asked) -> _Answer | None:
        request = asked.request
        if request.target is None or request.value is None:
            return None
        min_seq = Reader(request.value).uint()
        content = self.records.mutable(request.target, min_seq, asked.now)
        return _found(None if content is None else content.encode())

    def _put_immutable(self, asked: Asked) -> _Answer | None:
        request = asked.request
        target, value = request.target, request.value
        if target is None or request.token is None or not value or len(value) > MAX_VALUE_BYTES:
            return None
        if immutable_target(value) != target:
            return None
        is_kept = self.records.put_immutable(target, value, asked.source, asked.now)
        return _found(None) if is_kept else None

    def _get_immutable(self, asked: Asked) -> _Answer | None:
        target = asked.request.target
        if target is None:
            return None
        return _found(self.records.immutable(target, asked.now))

    def _unix_ms(self, now: float) -> int:
        return int(self._unix_ms_at_0 + now * 1000)
