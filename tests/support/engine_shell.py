"""A shell around the sync engine without trio: a store in a dict, clients as lists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import assert_never

from node.cojson.crypto import RunningHash
from node.cojson.gatekeeper import UNKNOWN_ORIGIN, Gatekeeper, Origin
from node.cojson.messages import Known, Load, Message
from node.cojson.outputs import (
    After,
    Changed,
    CheckFork,
    EndPeer,
    Find,
    GoOn,
    JudgeGroup,
    LoadValue,
    Output,
    Pull,
    ReadGroup,
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
from node.covalue.group_view import GroupView
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.session_log import feed
from node.covalue.store import StoredSession, StoredValue, ValueAppend


class Disk:
    """What is durable: it outlives the engine."""

    def __init__(self) -> None:
        self.headers: dict[RawCoId, CoValueHeader] = {}
        self.logs: dict[RawCoId, dict[CoSessionId, list[Transaction]]] = defaultdict(dict)
        self.rows: dict[RawCoId, dict[CoSessionId, StoredSession]] = defaultdict(dict)
        self.deleted: set[RawCoId] = set()

    def store(self, append: ValueAppend) -> None:
        """Refuses what does not continue what is here: the engine must not ask for it."""
        if append.header is not None:
            assert append.co_id not in self.headers
            self.headers[append.co_id] = append.header
        assert append.co_id in self.headers
        if append.is_deletion:
            self.deleted.add(append.co_id)
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
        rows = {key: row for key, row in self.rows[co_id].items() if self._is_served(co_id, key)}
        found = {*header_dependencies(header), *session_dependencies(rows)}
        if header.is_group:
            for log in self.logs[co_id].values():
                found.update(member_dependencies(log))
        found.discard(co_id)
        return StoredValue(header, rows, frozenset(found), co_id in self.deleted)

    def _is_served(self, co_id: RawCoId, session_id: CoSessionId) -> bool:
        return co_id not in self.deleted or is_delete_session(session_id)

    def group(self, co_id: RawCoId) -> GroupView | None:
        header = self.headers.get(co_id)
        if header is None or not header.is_group:
            return None
        group = GroupView(co_id, header)
        for session_id, log in self.logs[co_id].items():
            group.add(session_id, 0, log)
        return group

    def piece(self, co_id: RawCoId, known: KnownState) -> Content | None:
        """All beyond `known`, as one piece; pieces are cut elsewhere."""
        header = self.headers.get(co_id)
        if header is None:
            return None
        new = {}
        for session_id, log in sorted(self.logs[co_id].items()):
            count = known.sessions.get(session_id, 0)
            if count < len(log) and self._is_served(co_id, session_id):
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
        enforces_writes: bool = False,
        access: Gatekeeper | None = None,
    ) -> None:
        self.disk = disk or Disk()
        self.access = access
        self.engine = SyncEngine(
            memory_bytes=memory_bytes,
            client_bytes=client_bytes,
            enforces_writes=enforces_writes,
            access=access,
        )
        self.engine.has_mesh = has_mesh
        self.sent: dict[str, list[Message]] = {}
        self.wanted: dict[str, dict[int, dict[RawCoId, None]]] = {}
        self.stores: list[Store] = []
        self.finds: list[RawCoId] = []
        self.settled: list[Settled] = []
        self.changes: list[Changed] = []
        self.ended: dict[str, str] = {}
        self.refusals: dict[str, list[str]] = defaultdict(list)
        self.reads: list[LoadValue | Rehash | ReadGroup | JudgeGroup] = []
        self.suspicions: list[CheckFork] = []
        self.loads = 0
        self.rehashes = 0
        self.slices = 0
        """How often offers were gone on with."""
        self._is_to_go_on = False
        self.holds_reads = False
        self.cuts_sessions = False
        """Whether what is sent is cut into pieces of a session each; `take` ends with the first."""
        self._is_cut = False
        self._is_answering = False

    def client(self, name: str, origin: Origin = UNKNOWN_ORIGIN) -> str:
        self.engine.add_peer(name, origin)
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
            if self.access is not None:
                self.access.stored(store.origin, store.append, 0.0)
        if stores:
            self.carry_out(self.engine.stored([store.ticket for store in stores]))

    def answer_reads(self) -> None:
        """Answer what was asked of the store, also what that leads to."""
        self._is_answering = True
        while self.reads:
            self.answer_read()
        self._is_answering = False

    def answer_read(self) -> None:
        """Answer what was asked first; with `holds_reads`, what that leads to has to wait."""
        question = self.reads.pop(0)
        match question:
            case LoadValue(co_id):
                self.loads += 1
                self.carry_out(self.engine.loaded(co_id, self.disk.load_value(co_id)))
            case Rehash(co_id, session_id, count):
                self.rehashes += 1
                running = RunningHash()
                feed(running, self.disk.logs[co_id][session_id][:count])
                self.carry_out(self.engine.rehashed(co_id, session_id, count, running))
            case ReadGroup(co_id):
                self.carry_out(self.engine.group_read(co_id, self.disk.group(co_id)))
            case JudgeGroup(co_id):
                for unread in self.engine.judging(co_id):
                    if unread is not None:
                        group = self.disk.group(unread.co_id)
                        self.carry_out(self.engine.group_read(unread.co_id, group))
                self.carry_out(self.engine.group_judged(co_id))
            case _:
                assert_never(question)

    def carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send() | Serve() | Refused() | EndPeer():
                    self._address_client(output)
                case GoOn():
                    self.slices += 1
                    self._is_to_go_on = True
                case Store():
                    self.stores.append(output)
                case LoadValue() | Rehash() | ReadGroup() | JudgeGroup():
                    self.reads.append(output)
                case CheckFork():
                    self.suspicions.append(output)
                case Find(co_id):
                    self.finds.append(co_id)
                case Settled():
                    self.settled.append(output)
                case Changed():
                    self.changes.append(output)
                case _:
                    assert_never(output)
        while self._is_to_go_on:
            self._is_to_go_on = False
            self.carry_out(self.engine.go_on())
        if not self.holds_reads and not self._is_answering:
            self.answer_reads()

    def _address_client(self, output: Send | Serve | Refused | EndPeer) -> None:
        match output:
            case Send(peer_id, message):
                self.sent[peer_id].append(message)
            case Serve(peer_id, co_id, priority):
                self.wanted[peer_id][priority][co_id] = None
            case Refused(peer_id, _, reason):
                self.refusals[peer_id].append(reason)
            case EndPeer(peer_id, reason):
                self.ended[peer_id] = reason
            case _:
                assert_never(output)

    def take(self, name: str) -> list[Message]:
        """Everything for this client: control messages, then values by priority."""
        messages, self.sent[name] = self.sent[name], []
        for wanted in self.wanted[name].values():
            for co_id in list(wanted):
                messages += self._pull(name, co_id)
                if self._is_cut:
                    self._is_cut = False
                    return messages  # the rest of it goes before all others
                del wanted[co_id]
        return messages

    def _pull(self, name: str, co_id: RawCoId) -> list[Message]:
        pulled = self.engine.next_for(name, co_id)
        match pulled:
            case After(co_ids):
                return self._pull_all(name, (*co_ids, co_id))
            case Known():
                return [pulled]
            case Pull(known, held):
                piece = self._first_piece(self.disk.piece(co_id, known))
                if piece is not None:
                    if held is None and (after := self.engine.goes_before(name, co_id, [piece])):
                        self._is_cut = False
                        return self._pull_all(name, (*after.co_ids, co_id))
                    if piece.expect_until is not None:
                        self.engine.cut_streams.begin(co_id, piece.expect_until)
                    self.engine.sent(name, co_id, piece.known_state, piece.expect_until)
                    return [piece]
        return []

    def _pull_all(self, name: str, co_ids: Sequence[RawCoId]) -> list[Message]:
        return [message for co_id in co_ids for message in self._pull(name, co_id)]

    def _first_piece(self, content: Content | None) -> Content | None:
        """What is sent of this now; the rest stays wanted."""
        if content is None or not self.cuts_sessions or len(content.new) < 2:
            return content
        self._is_cut = True
        first = dict([next(iter(content.new.items()))])
        until = content.known_state.sessions
        return Content(content.co_id, content.header, first, content.priority, until)

    def listen(self, name: str, *, is_quiet: bool = True) -> list[Message]:
        """A while passes in which this client might have said more; what it is told then."""
        self.carry_out(self.engine.listened(name, is_quiet=is_quiet))
        return self.take(name)

    def load(self, name: str, co_id: RawCoId, known: KnownState = NOTHING) -> list[Message]:
        self.say(name, Load(co_id, known))
        return self.take(name)
