"""Passing handshakes and hole punches on between a client and the server that it looks for.

| leg            | from, to        | as a    | mode                          |
|----------------|-----------------|---------|-------------------------------|
| 1              | client, relay   | request | from client                   |
| 2              | relay, server   | request | from relay                    |
| 2b, 2c         | relay, relay 2, | request | from relay, from second relay |
|                | server          |         |                               |
| 3              | server, relay   | request | from server                   |
| 4              | relay, client   | answer  | reply                         |

All legs carry the transaction of the first, so that the last is an answer to it. What is for a key
that announced itself here is passed on to it; a client that asks the server itself gets the answer
at once.

An answer is passed back only to a client whose question was passed on a moment ago, and once: else
anybody could send anything to anybody through us. The originals pass all of them back.

Source: hyperdht 6.34.0 lib/router.js.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from swarm.announcement import Address
from swarm.dht.allowance import Allowance
from swarm.dht.expiring import ExpiringMap
from swarm.dht.hosts import is_usable, may_refer
from swarm.dht.messages import Command, NodeId, Request, Response
from swarm.dht.payloads import PeerRecord
from swarm.dht.peer_messages import Mode, PeerHandshake, PeerHolepunch
from swarm.dht.records import RecordStore
from swarm.dht.requests import Transmit, Via

FORWARD_SECONDS = 15.0
"""For the server's answer: it may have to find out what its NAT does first."""

MAX_FORWARDS = 4096
MAX_FORWARDS_PER_HOST = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and how it came."""

    request: Request
    source: Address
    via: Via
    size_bytes: int
    now: float


@dataclass(frozen=True, slots=True)
class PeerAsked:
    """A client wants to be connected to a key that is served here.

    `came_from` is the relay, or without one the client itself.
    """

    asked: Asked
    message: PeerHandshake | PeerHolepunch
    client: Address
    is_direct: bool

    @property
    def target(self) -> bytes:
        assert self.asked.request.target is not None
        return self.asked.request.target

    @property
    def came_from(self) -> Address:
        return self.asked.source

    @property
    def seen_as(self) -> Address:
        """Our address, as the relay or the client writes to it."""
        return self.asked.request.to


class Router:
    """What a node does with handshakes and hole punches; a machine."""

    def __init__(self, records: RecordStore, allowance: Allowance) -> None:
        self.passed_on = 0
        self._records = records
        self._allowance = allowance
        self._served: dict[bytes, PeerRecord] = {}
        # Whose answers are awaited: (transaction, target, client).
        self._forwards: ExpiringMap[tuple[int, bytes, Address], bool] = ExpiringMap(
            seconds=FORWARD_SECONDS,
            max_items=MAX_FORWARDS,
            max_per_host=MAX_FORWARDS_PER_HOST,
            max_bytes=MAX_FORWARDS,
        )

    def serve(self, target: bytes, record: PeerRecord) -> None:
        """Keep what is for this target from now on, as `PeerAsked`.

        Raises: ValueError when it is served already.
        """
        if target in self._served:
            raise ValueError("this key is served already")
        self._served[target] = record

    def stop_serving(self, target: bytes) -> None:
        self._served.pop(target, None)

    def served(self, target: bytes) -> PeerRecord | None:
        """Our own record for a target that is served here."""
        return self._served.get(target)

    def receive(self, asked: Asked, own_id: NodeId | None) -> list[Transmit | PeerAsked] | None:
        """Pass a message on, or keep it; None: tell the client who may know more.

        Raises: DecodeError.
        """
        request = asked.request
        if request.target is None or request.value is None:
            return []
        if request.command == Command.PEER_HANDSHAKE:
            handshake = PeerHandshake.decode(request.value)
            return self._receive_handshake(asked, request.target, handshake, own_id)
        punch = PeerHolepunch.decode(request.value)
        return self._receive_punch(asked, request.target, punch, own_id)

    def answer(
        self, question: PeerAsked, sealed: bytes, via: Via, own_id: NodeId | None, now: float
    ) -> list[Transmit]:
        """The server's answer to a client's message, back the way it came.

        It leaves through `via`; the relay tells the client which address that socket has.
        """
        asked, message = question.asked, question.message
        request = asked.request
        if question.is_direct:
            value = _with_content(message, Mode.REPLY, sealed, None)
            response = Response(
                request.transaction, asked.source, _id_through(via, own_id), value=value
            )
            return self._send(response.encode(), asked.source, asked, via, now)
        to = asked.source
        if isinstance(message, PeerHandshake) and message.mode is Mode.FROM_SECOND_RELAY:
            if message.relay_address is None or not may_refer(to, message.relay_address):
                return []
            to = message.relay_address
        value = _with_content(message, Mode.FROM_SERVER, sealed, question.client)
        back = _forwarded(request, to, value, _id_through(via, own_id))
        return self._send(back, to, asked, via, now)

    def _receive_handshake(
        self, asked: Asked, target: bytes, message: PeerHandshake, own_id: NodeId | None
    ) -> list[Transmit | PeerAsked] | None:
        mode, client = message.mode, message.peer_address
        if target in self._served:
            if mode is Mode.FROM_CLIENT:
                return [PeerAsked(asked, message, asked.source, True)]
            is_forwarded = mode in (Mode.FROM_RELAY, Mode.FROM_SECOND_RELAY)
            if not is_forwarded or client is None or not _may_name(asked, client):
                return []
            return [PeerAsked(asked, message, client, False)]
        route = self._records.route(target, asked.now)
        match mode:
            case Mode.FROM_CLIENT:
                if route is None:
                    return None
                forwarded = replace(message, mode=Mode.FROM_RELAY, peer_address=asked.source)
                forwarded = replace(forwarded, relay_address=None)
                return self._pass_on(asked, forwarded, route.address, asked.source, own_id)
            case Mode.FROM_RELAY:
                if route is None or client is None or not _may_name(asked, client):
                    return []
                forwarded = replace(
                    message, mode=Mode.FROM_SECOND_RELAY, relay_address=asked.source
                )
                return self._pass_on(asked, forwarded, route.address, client, own_id)
            case Mode.FROM_SERVER:
                return self._pass_back(asked, target, message, own_id)
            case Mode.FROM_SECOND_RELAY | Mode.REPLY:
                return []

    def _receive_punch(
        self, asked: Asked, target: bytes, message: PeerHolepunch, own_id: NodeId | None
    ) -> list[Transmit | PeerAsked]:
        mode, peer = message.mode, message.peer_address
        match mode:
            case Mode.FROM_CLIENT:
                # To any address that a client names, but only for a key that announced itself here.
                route = self._records.route(target, asked.now)
                to = peer or (None if route is None else route.address)
                if route is None or to is None or not _may_name(asked, to):
                    return []
                forwarded = replace(message, mode=Mode.FROM_RELAY, peer_address=asked.source)
                return self._pass_on(asked, forwarded, to, asked.source, own_id)
            case Mode.FROM_RELAY:
                if target not in self._served or peer is None or not _may_name(asked, peer):
                    return []
                return [PeerAsked(asked, message, peer, False)]
            case Mode.FROM_SERVER:
                return self._pass_back(asked, target, message, own_id)
            case Mode.FROM_SECOND_RELAY | Mode.REPLY:
                return []

    def _pass_on(
        self,
        asked: Asked,
        message: PeerHandshake | PeerHolepunch,
        to: Address,
        client: Address,
        own_id: NodeId | None,
    ) -> list[Transmit | PeerAsked]:
        request = asked.request
        assert request.target is not None
        awaited = (request.transaction, request.target, client)
        if not self._forwards.set(awaited, True, asked.source[0], 1, asked.now):
            return []
        data = _forwarded(request, to, message.encode(), _id_through(asked.via, own_id))
        return list(self._send(data, to, asked, asked.via, asked.now))

    def _pass_back(
        self,
        asked: Asked,
        target: bytes,
        message: PeerHandshake | PeerHolepunch,
        own_id: NodeId | None,
    ) -> list[Transmit | PeerAsked]:
        client = message.peer_address
        if client is None:
            return []
        awaited = (asked.request.transaction, target, client)
        if not self._forwards.get(awaited, asked.now):
            return []
        self._forwards.pop(awaited)
        value = replace(message, mode=Mode.REPLY, peer_address=asked.source).encode()
        response = Response(
            asked.request.transaction, client, _id_through(asked.via, own_id), value=value
        )
        return list(self._send(response.encode(), client, asked, asked.via, asked.now))

    def _send(self, data: bytes, to: Address, asked: Asked, via: Via, now: float) -> list[Transmit]:
        """Send, if an allowance covers what is longer than the message that made us send it."""
        if not self._allowance.admit(to[0], asked.size_bytes, len(data), now):
            return []
        self.passed_on += 1
        return [Transmit(data, to, via)]


def _may_name(asked: Asked, peer: Address) -> bool:
    """Whether the sender of a message can know of this address at all."""
    return is_usable(peer) and may_refer(asked.source, peer)


def _id_through(via: Via, own_id: NodeId | None) -> NodeId | None:
    return own_id if via is Via.SERVER else None


def _with_content(
    message: PeerHandshake | PeerHolepunch, mode: Mode, sealed: bytes, peer: Address | None
) -> bytes:
    if isinstance(message, PeerHandshake):
        return PeerHandshake(mode, sealed, peer).encode()
    return PeerHolepunch(mode, 0, sealed, peer).encode()


def _forwarded(request: Request, to: Address, value: bytes, own_id: NodeId | None) -> bytes:
    return Request(
        request.transaction, to, request.command, False, own_id, None, request.target, value
    ).encode()
