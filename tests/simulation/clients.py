"""Cojson clients that write, load and delete, and remember what was acknowledged.

A client has one session of its own. It keeps what it wrote until a node has it, moves on to
another node when its own is gone, and says there what it knows, as Jazz clients do.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import trio

from node.cojson.gatekeeper import Origin
from node.cojson.messages import Known, Load, Message, encode_lines, read_frame
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState, SessionCounts
from node.covalue.session_log import feed
from tests.simulation.determinism import Note
from tests.simulation.nodes import SimulatedNode
from tests.simulation.truth import Truth
from tests.support.authors import Author, edits

RECONNECT_SECONDS = 0.5
_PART_LETTERS = 1500
ORIGIN = Origin("127.0.0.1")


class SimulatedClient:
    """One device of one person."""

    def __init__(self, number: int, truth: Truth, nodes: list[SimulatedNode], note: Note) -> None:
        self.number = number
        self.author = Author(f"client {number}")
        self.wanted: dict[RawCoId, None] = {}
        self.held: dict[RawCoId, dict[CoSessionId, int]] = {}
        """How far every value has come here."""
        self.has_header: set[RawCoId] = set()
        self.problems: list[str] = []
        self.node: SimulatedNode | None = None
        self._truth = truth
        self._nodes = nodes
        self._note = note
        self._home = number % len(nodes)
        self._mine: set[CoSessionId] = set()
        self._own: dict[RawCoId, dict[CoSessionId, int]] = {}
        """How far the node of now has what we wrote."""
        self._socket: _Socket | None = None
        self._blob: RawCoId | None = None

    # What a script asks for.

    def load(self, co_id: RawCoId) -> None:
        """Subscribe to a value, for good."""
        if co_id not in self.wanted:
            self.wanted[co_id] = None
            self._send([Load(co_id, self._known(co_id))])

    def write(
        self,
        header: CoValueHeader,
        transactions: Iterable[Transaction],
        *,
        as_agent: bool = False,
    ) -> None:
        """Add to our session of a value, and send it."""
        co_id = header.id
        self._truth.headers[co_id] = header
        session_id = self.author.session_id(f"s{self.number}", as_agent=as_agent)
        session = self._truth.session(co_id, session_id)
        for transaction in transactions:
            feed(session.running, [transaction])
            session.transactions.append(transaction)
            session.signatures.append(self.author.sign_hash(session.running))
        self._wrote(co_id, session_id, len(session.transactions))

    def delete(self, co_id: RawCoId) -> None:
        """Write a deletion, as who made the value does."""
        header = self._truth.headers[co_id]
        content = self.author.deletion(header)
        for session_id, part in content.new.items():
            session = self._truth.session(co_id, session_id)
            if not session.transactions:
                session.transactions += part.transactions
                session.signatures += [part.signature] * len(part.transactions)
            self._truth.deleted.add(co_id)
            self._wrote(co_id, session_id, len(session.transactions))

    def replace_blob(self, header: CoValueHeader, text: str) -> None:
        """Write something large, and delete what was written like this before."""
        if self._blob is not None:
            self.delete(self._blob)
        self._blob = header.id
        parts = (
            text[start : start + _PART_LETTERS] for start in range(0, len(text), _PART_LETTERS)
        )
        self.write(header, [Transaction(2000 + i, f'["{part}"]') for i, part in enumerate(parts)])

    def fork(self, header: CoValueHeader, node: SimulatedNode) -> None:
        """Go on with our session of a value, and have a copy of this device do so elsewhere.

        The copy writes more, so that known states tell of it; nobody writes there any more.
        """
        session_id = self.author.session_id(f"s{self.number}")
        before = list(self._truth.session(header.id, session_id).transactions)
        self._truth.forked[header.id, session_id] = len(before)
        self.write(header, edits(1))
        other = before + edits(2, start=900)
        part = SessionContent(0, other, self.author.sign(other))
        copy = _Socket(f"copy of client {self.number}")
        node.serve_client(copy.far_end, ORIGIN)
        content = Content(header.id, header, {session_id: part}, header.priority)
        copy.send_nowait(encode_lines([content]))
        self._note(f"client {self.number} forks {session_id[-6:]} at node {node.number}")

    def _wrote(self, co_id: RawCoId, session_id: CoSessionId, count: int) -> None:
        self.wanted[co_id] = None
        self._mine.add(session_id)
        self.has_header.add(co_id)
        known = self._own.setdefault(co_id, {})
        self.held.setdefault(co_id, {})[session_id] = count
        self._send([self._content(co_id, session_id, known.get(session_id, 0))])
        known[session_id] = count

    def _content(self, co_id: RawCoId, session_id: CoSessionId, after: int) -> Content:
        session = self._truth.session(co_id, session_id)
        header = self._truth.headers[co_id]
        part = SessionContent(after, session.transactions[after:], session.signatures[-1])
        return Content(co_id, header if after == 0 else None, {session_id: part}, header.priority)

    def _known(self, co_id: RawCoId) -> KnownState:
        return KnownState(co_id in self.has_header, self.held.get(co_id, {}))

    def written(self) -> Iterable[tuple[RawCoId, CoSessionId, int]]:
        """Our sessions: how many transactions we wrote in each."""
        for (co_id, session_id), session in self._truth.sessions.items():
            if session_id in self._mine and co_id in self.held:
                yield co_id, session_id, len(session.transactions)

    # The connection.

    def move(self, home: int) -> None:
        """Go to another node."""
        self._note(f"client {self.number} moves to node {home}")
        self._home = home
        self.hang_up()

    def hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()

    async def run(self) -> None:
        """Stay connected with a node that is up, until cancelled."""
        while True:
            while not self._nodes[self._home].takes_clients:
                self._home = (self._home + 1) % len(self._nodes)
            node = self._nodes[self._home]
            if not node.is_up:
                await trio.sleep(RECONNECT_SECONDS)
                continue
            self._socket = socket = _Socket(f"client {self.number}")
            self._own = {}
            self.node = node
            node.serve_client(socket.far_end, ORIGIN)
            self._note(f"client {self.number} connects to node {node.number}")
            self._send([Load(co_id, self._known(co_id)) for co_id in self.wanted])
            while (text := await socket.receive()) is not None:
                for message in read_frame(text):
                    if isinstance(message, Known | Content):
                        self._take(message)
            self.node = self._socket = None
            await trio.sleep(RECONNECT_SECONDS)

    def _send(self, messages: list[Message]) -> None:
        if self._socket is not None and messages:
            self._socket.send_nowait(encode_lines(messages))

    def _take(self, message: Known | Content) -> None:
        if isinstance(message, Content):
            self._take_content(message)
            return
        self._confirm(message.co_id, message.known.sessions)
        self._bring(message.co_id, message.known.sessions, is_correction=message.is_correction)

    def _confirm(self, co_id: RawCoId, counts: SessionCounts) -> None:
        """Our node holds so much.

        Source: cojson 0.20.19 sync.ts combines what it knows of a peer with what a known state
        says, and with what content goes up to.
        """
        assert self.node is not None
        for session_id, count in counts.items():
            session = self._truth.sessions.get((co_id, session_id))
            sound = self._truth.sound(co_id, session_id, count)
            if session is None or sound > len(session.transactions):
                self.problems.append(f"client {self.number}: {count} of {session_id} never were")
                continue
            if self._truth.acknowledge(self.node.number, co_id, session_id, count):
                self._note(f"client {self.number}: {co_id[:9]} {session_id[-6:]} {count} is safe")

    def _bring(self, co_id: RawCoId, counts: SessionCounts, *, is_correction: bool = False) -> None:
        """Send what the node lacks of ours, once, and again when it asks for it."""
        own = self._own.setdefault(co_id, {})
        for session_id in self.held.get(co_id, {}):
            if session_id in self._mine and (session_id not in own or is_correction):
                own[session_id] = len(self._truth.session(co_id, session_id).transactions)
                if counts.get(session_id, 0) < own[session_id]:
                    self._send([self._content(co_id, session_id, counts.get(session_id, 0))])

    def _take_content(self, content: Content) -> None:
        """What others wrote must be what they wrote."""
        if content.header is not None:
            self.has_header.add(content.co_id)
        held = self.held.setdefault(content.co_id, {})
        for session_id, part in content.new.items():
            session = self._truth.sessions.get((content.co_id, session_id))
            wanted = [] if session is None else session.transactions[part.after : part.stop]
            is_forked = (content.co_id, session_id) in self._truth.forked
            if list(part.transactions) != wanted and not is_forked:
                self.problems.append(f"client {self.number}: {session_id} is not what was written")
            if part.after > held.get(session_id, 0):
                continue  # a gap: the rest comes, or is asked for on the next connection
            held[session_id] = max(part.stop, held.get(session_id, 0))
        self._confirm(content.co_id, content.known_state.sessions)
        self._send([Known(content.co_id, self._known(content.co_id))])
        self._bring(content.co_id, content.known_state.sessions)


class _Socket:
    """Frames of text between a client and a node, in order, at once."""

    def __init__(self, remote: str) -> None:
        self._to_node, from_client = trio.open_memory_channel[str](10_000)
        to_client, self._from_node = trio.open_memory_channel[str](10_000)
        self.far_end = _FarEnd(remote, from_client, to_client)

    def send_nowait(self, text: str) -> None:
        try:
            self._to_node.send_nowait(text)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.close()

    async def receive(self) -> str | None:
        try:
            return await self._from_node.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return None

    def close(self) -> None:
        self._to_node.close()
        self._from_node.close()


class _FarEnd:
    def __init__(
        self,
        remote: str,
        inlet: trio.MemoryReceiveChannel[str],
        outlet: trio.MemorySendChannel[str],
    ) -> None:
        self.remote = remote
        self.bytes_received = 0
        self._inlet = inlet
        self._outlet = outlet

    async def receive(self) -> str | None:
        try:
            text = await self._inlet.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return None
        self.bytes_received += len(text)
        return text

    async def wait_gone(self) -> None:
        await trio.sleep_forever()

    async def send(self, text: str) -> None:
        await self._outlet.send(text)

    def send_soon(self, text: str) -> None:
        with suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._outlet.send_nowait(text)

    def close(self) -> None:
        self._inlet.close()
        self._outlet.close()
