"""A shell around the sync engine without trio: a store in a dict, clients as lists."""

from __future__ import annotations

from collections import defaultdict
from typing import assert_never

from node.cojson.crypto import RunningHash
from node.cojson.messages import Known, Load, Message
from node.cojson.outputs import (
    Changed,
    EndPeer,
    Find,
    LoadValue,
    Output,
    Pull,
    Refused,
    Rehash,
    Send,
    Serve,
    Settled,
    Store,
)
from node.cojson.sync import SyncEngine
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.dependencies import (
    header_dependencies,
    member_dependencies,
    session_dependencies,
)
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.session_log import feed
from node.covalue.store import StoredSession, StoredValue, ValueAppend


class Disk:
    """What is durable: it outlives the engine."""

    def __init__(self) -> None:
        self.headers: dict[RawCoId, CoValueHeader] = {}
        self.logs: dict[RawCoId, dict[CoSessionId, list[Transaction]]] = defaultdict(dict)
        self.rows: dict[RawCoId, dict[CoSessionId, StoredSession]] = defaultdict(dict)

    def store(self, append: ValueAppend) -> None:
        """Refuses what does not continue what is here: the engine must not ask for it."""
        if append.header is not None:
            assert append.co_id not in self.headers
            self.headers[append.co_id] = append.header
        assert append.co_id in self.headers
        for session_id, part in append.sessions.items():
            log = self.logs[append.co_id].setdefault(session_id, [])
            assert part.after == len(log)
            log += part.transactions
            self.rows[append.co_id][session_id] = StoredSession(
                len(log), part.signature, part.bytes_since_checkpoint
            )

    def load_value(self, co_id: RawCoId) -> StoredValue | None:
        header = self.headers.get(co_id)
        if header is None:
            return None
        rows = self.rows[co_id]
        found = {*header_dependencies(header), *session_dependencies(rows)}
        if header.is_group:
            for log in self.logs[co_id].values():
                found.update(member_dependencies(log))
        found.discard(co_id)
        return StoredValue(header, dict(rows), frozenset(found))

    def piece(self, co_id: RawCoId, known: KnownState) -> Content | None:
        """All beyond `known`, as one piece; pieces are cut elsewhere."""
        header = self.headers.get(co_id)
        if header is None:
            return None
        new = {}
        for session_id, log in sorted(self.logs[co_id].items()):
            count = known.sessions.get(session_id, 0)
            if count < len(log):
                signature = self.rows[co_id][session_id].signature
                new[session_id] = SessionContent(count, log[count:], signature)
        if not new and known.header:
            return None
        return Content(co_id, None if known.header else header, new, header.priority)


class EngineShell:
    """Carries out what the engine wants; commits wait for `commit()`."""

    def __init__(
        self,
        disk: Disk | None = None,
        *,
        memory_bytes: int = 2**26,
        client_bytes: int = 2**30,
        has_mesh: bool = False,
    ) -> None:
        self.disk = disk or Disk()
        self.engine = SyncEngine(memory_bytes=memory_bytes, client_bytes=client_bytes)
        self.engine.has_mesh = has_mesh
        self.sent: dict[str, list[Message]] = {}
        self.wanted: dict[str, dict[int, dict[RawCoId, None]]] = {}
        self.stores: list[Store] = []
        self.finds: list[RawCoId] = []
        self.settled: list[Settled] = []
        self.changes: list[Changed] = []
        self.ended: dict[str, str] = {}
        self.refusals: dict[str, list[str]] = defaultdict(list)
        self.reads: list[LoadValue | Rehash] = []
        self.loads = 0
        self.rehashes = 0
        self.holds_reads = False

    def client(self, name: str) -> str:
        self.engine.add_peer(name)
        self.sent[name] = []
        self.wanted[name] = {0: {}, 3: {}, 6: {}}
        return name

    def leave(self, name: str) -> None:
        self.engine.remove_peer(name)

    def say(self, name: str, *messages: Message) -> None:
        for message in messages:
            self.carry_out(self.engine.receive(name, message))

    def bring(self, content: Content, receipt: int = 1) -> None:
        self.carry_out(self.engine.receive_content(content, receipt))

    def commit(self, count: int | None = None) -> None:
        """Make what waits durable, or the first `count` of it, in one append."""
        stores, self.stores = self.stores[:count], self.stores[len(self.stores[:count]) :]
        for store in stores:
            self.disk.store(store.append)
        if stores:
            self.carry_out(self.engine.stored([store.ticket for store in stores]))

    def answer_reads(self) -> None:
        """Answer what was asked of the store, also what that leads to."""
        while self.reads:
            question = self.reads.pop(0)
            match question:
                case LoadValue(co_id):
                    self.loads += 1
                    self.carry_out(self.engine.loaded(co_id, self.disk.load_value(co_id)))
                case Rehash(co_id, session_id, count):
                    self.rehashes += 1
                    running = RunningHash()
                    feed(running, self.disk.logs[co_id][session_id][:count])
                    self.carry_out(self.engine.rehashed(co_id, session_id, running))
                case _:
                    assert_never(question)

    def carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(peer_id, message):
                    self.sent[peer_id].append(message)
                case Serve(peer_id, co_id, priority):
                    self.wanted[peer_id][priority][co_id] = None
                case Store():
                    self.stores.append(output)
                case LoadValue() | Rehash():
                    self.reads.append(output)
                case Find(co_id):
                    self.finds.append(co_id)
                case Settled():
                    self.settled.append(output)
                case Changed():
                    self.changes.append(output)
                case Refused(peer_id, _, reason):
                    self.refusals[peer_id].append(reason)
                case EndPeer(peer_id, reason):
                    self.ended[peer_id] = reason
                case _:
                    assert_never(output)
        if not self.holds_reads:
            self.answer_reads()

    def take(self, name: str) -> list[Message]:
        """Everything for this client: control messages, then values by priority."""
        messages, self.sent[name] = self.sent[name], []
        for wanted in self.wanted[name].values():
            for co_id in list(wanted):
                del wanted[co_id]
                pulled = self.engine.next_for(name, co_id)
                match pulled:
                    case Known():
                        messages.append(pulled)
                    case Pull(known, _):
                        piece = self.disk.piece(co_id, known)
                        if piece is not None:
                            self.engine.sent(name, piece)
                            messages.append(piece)
        return messages

    def load(self, name: str, co_id: RawCoId, known: KnownState = NOTHING) -> list[Message]:
        self.say(name, Load(co_id, known))
        return self.take(name)
