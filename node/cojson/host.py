"""The one sync engine of a node, and its way to the store, the clients and the mesh.

Its tasks, all owned by `open_sync_host`: the *committer* makes everything that waits durable
in one atomic append and tells the engine; the *reader* answers its questions to the store; the
*searches* ask the mesh; the *fork watch* looks into what may be a second continuation of a
session; the *eraser* removes what was deleted; the *checker* has signatures checked ahead; the
*pinger* keeps connections alive; three more let values leave memory, ask clients again for what was
refused, and mind a full disk. Whoever brings messages runs the engine itself, which never waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import assert_never

import structlog
import trio

from node.cojson.asking import ROUND_SECONDS
from node.cojson.change_feed import ChangeFeed, ChangeFeeds
from node.cojson.client_link import CONTENT_COST, TURN, ClientLink, ContentSource
from node.cojson.client_table import ClientTable
from node.cojson.committer import Committer
from node.cojson.copies import CopyGate, CopyLedger
from node.cojson.eraser import Eraser
from node.cojson.foresight import Extensions
from node.cojson.fork_watch import ForkWatch
from node.cojson.gatekeeper import UNKNOWN_ORIGIN, Gatekeeper, Origin, Pace
from node.cojson.group_reading import DeletionJudge
from node.cojson.host_options import HostOptions
from node.cojson.messages import Message
from node.cojson.outputs import (
    Changed,
    CheckFork,
    EndPeer,
    Find,
    GoOn,
    JudgeGroup,
    LoadValue,
    Output,
    ReadGroup,
    Refused,
    Rehash,
    Send,
    Serve,
    Settled,
    Store,
)
from node.cojson.pinging import Pinger
from node.cojson.receipts import Receipts
from node.cojson.recent import RecentContent
from node.cojson.reports import HostStatistics, LoadReport, MeshReader, Receipt
from node.cojson.room import Room, run_with_room
from node.cojson.searches import Searches
from node.cojson.signature_checks import LookAhead, SignatureChecker
from node.cojson.slow_lane import SlowLane
from node.cojson.store_reader import StoreReader
from node.cojson.sync import SyncEngine
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState, SessionCounts
from node.covalue.store import CoValueStore
from swarm.io.tasks import open_background_nursery

MAX_UNSETTLED_BYTES = 256 * 1024
"""Content of one client on its way to the disk; beyond it the client is not read from.

Others wait for as much of it as is before them: with 1 MiB one edit in a hundred waits for 22 ms
of the node's own work while a file is uploaded, with this for 9 ms.
"""

MAX_QUEUED_BYTES = 32 * 1024 * 1024
"""Content of all clients that waits for an append; beyond it no client is read from."""

MAX_TOGETHER = 256
"""Messages of a client taken at once where another process checks their signatures."""

CONTENT_EIGHTHS = 3
"""Eighths of the budget withheld from verified state; content may have all that state leaves."""

_log = structlog.get_logger(__name__)


class SyncHost:
    """Open it with `open_sync_host`."""

    def __init__(
        self,
        store: CoValueStore,
        options: HostOptions,
        *,
        access: Gatekeeper | None = None,
        room: Room | None = None,
    ) -> None:
        self.store = store
        self._access = access
        self._checker = SignatureChecker() if options.checks_aside else None
        self._engine = SyncEngine(
            memory_bytes=options.memory_bytes - options.memory_bytes * CONTENT_EIGHTHS // 8,
            enforces_writes=options.enforces_writes,
            access=access,
        )
        self.cut_streams = self._engine.cut_streams
        """What was promised to clients that left before they had it."""
        self._memory_seconds = options.memory_seconds
        self._eraser = (
            Eraser(store, lambda: DeletionJudge(store).is_valid, access=access)
            if options.erases
            else None
        )
        self._memory_bytes = options.memory_bytes
        self._recent = RecentContent(options.memory_bytes)
        self._clients = ClientTable(self._engine, options.min_copies)
        self._source = ContentSource(self._engine, self._recent, store, self._clients.screen)
        self._slow_lane = SlowLane()
        self.pinger = Pinger()
        """Keeps the connections of clients alive."""
        self._feeds = ChangeFeeds()
        self._committer = Committer(store, room, self._note_stored, self._note_lost)
        self.forks = ForkWatch(
            store, self._ask_for_whole_session, wait_stored=self._committer.wait_stored
        )
        """Evidence of sessions that their authors continued in two ways."""
        self._committed = trio.lowlevel.ParkingLot()
        self._reader = StoreReader(self._engine, store, self._recent, self._carry_out_answer)
        self._searches = Searches(self.known_state, self.receive_content, self._end_search)
        self._receipts = Receipts()
        self._room = room
        self._is_full = room is not None and not room.is_open
        self._messages_received = self._bad_lines = self._refused_for_room = 0
        self._interest_seen = 0
        self._interest = trio.lowlevel.ParkingLot()

    @property
    def copies(self) -> CopyGate:
        """Who else holds what clients wait for, and what clients are not told before that."""
        return self._clients.copies

    @property
    def mesh(self) -> MeshReader | None:
        """The other nodes, once there are any; ids that nobody asked for are not looked up."""
        return self._searches.mesh

    @mesh.setter
    def mesh(self, mesh: MeshReader | None) -> None:
        self._searches.mesh = mesh
        self._engine.has_mesh = mesh is not None

    # Members of the mesh.

    async def receive_content(self, source: str, contents: Sequence[Content]) -> Receipt:
        """Verify and store what a member sent; returns when it is durable.

        Cancel: what was accepted is stored all the same.
        """
        if self._room is not None and self._is_full:
            reasons = {content.co_id: self._room.reason for content in contents}
            return Receipt(frozenset(), reasons, frozenset())
        ahead = await self.look_ahead(None, contents)
        with self._receipts.open(len(contents)) as open_receipt:
            for index, content in enumerate(contents):
                if index % (TURN // CONTENT_COST) == 0:
                    await trio.lowlevel.checkpoint()
                await ahead.wait(index + 1)
                foreseen = ahead.extensions(index, index + 1)
                self._carry_out(
                    self._engine.receive_content(content, open_receipt.number, *foreseen)
                )
            receipt = await open_receipt.wait_settled()
        if receipt.refused or receipt.partly:
            reasons = {**receipt.refused, **receipt.partly}
            _log.warning("content refused", source=source, reasons=reasons)
        return receipt

    def changes(self) -> ChangeFeed:
        """A feed of what every commit from now on makes durable."""
        return self._feeds.open()

    def announce(self, moved: Mapping[RawCoId, SessionCounts]) -> None:
        """These got so far without a commit: tell all feeds."""
        for co_id, sessions in moved.items():
            self._feeds.add(co_id, sessions)

    def subscribed_ids(self) -> frozenset[RawCoId]:
        """Ids that some client is subscribed to."""
        return self._engine.subscribed_ids

    def wanted_ids(self) -> frozenset[RawCoId]:
        """Those, and ids that content of clients waits for: tell us when one arrives."""
        return self._engine.wanted_ids

    def is_subscribed(self, co_id: RawCoId) -> bool:
        """Whether some client is subscribed to it."""
        return self._engine.is_subscribed(co_id)

    @property
    def takes_content(self) -> bool:
        """False while there is no room for anything new."""
        return not self._is_full

    def is_wanted(self, co_id: RawCoId) -> bool:
        """Whether it is one of `wanted_ids`."""
        return self._engine.is_wanted(co_id)

    async def wait_interest_changed(self) -> None:
        """Return when `wanted_ids` has changed since this last returned; for one task.

        Cancel: the change is told to the next call.
        """
        while self._interest_seen == self._engine.interest_version:
            await self._interest.park()
        self._interest_seen = self._engine.interest_version

    def note_copies(
        self, member_id: bytes, holdings: Sequence[tuple[RawCoId, SessionCounts | None]]
    ) -> None:
        """A member says that so much of these is durable there; None: nothing is."""
        self._clients.note_copies(member_id, holdings)

    async def wait_copies_wanted(self) -> Sequence[RawCoId]:
        """Values that somebody waits for others to hold, once there are any; for one task.

        Cancel: nothing is changed.
        """
        return await self._clients.wait_copies_wanted()

    def watching_copies(self, co_ids: Sequence[RawCoId]) -> AbstractContextManager[CopyLedger]:
        """Have members asked, while the block lasts, how much of these they hold."""
        return self._clients.watching_copies(co_ids)

    # People.

    async def load(self, co_id: RawCoId) -> LoadReport | None:
        """Load one value, from the mesh if it is not stored here; None when it is nowhere.

        A value of the mesh is here as a whole, as far as members have it, when this returns.

        Raises: CorruptStore.
        Cancel: the value may be stored all the same.
        """
        source = "store"
        await self._searches.wait_over(co_id)
        value = await self.store.load_value(co_id)
        if value is None and self.mesh is not None:
            source = "mesh"
            with self.client("load") as link:
                self.copies.exempt(link.peer_id)
                if await link.wait_found(co_id):
                    await self._searches.wait_over(co_id)
                    value = await self.store.load_value(co_id)
        if value is None:
            return None
        return LoadReport(co_id, value.header, value.known_state.sessions, source)

    async def known_state(self, co_id: RawCoId) -> KnownState:
        """What is stored durably; `NOTHING` when the value is not.

        Raises: CorruptStore.
        Cancel: nothing is changed.
        """
        durable = self._engine.durable_state(co_id)
        if durable is not None:
            return durable
        value = await self.store.load_value(co_id)
        return NOTHING if value is None else value.known_state

    def statistics(self) -> HostStatistics:
        committer = self._committer
        return HostStatistics(
            clients=len(self._clients),
            subscribed_ids=len(self._engine.subscribed_ids),
            values_stored=self.store.count(),
            values_in_memory=self._engine.values_in_memory,
            state_bytes=self._engine.state_bytes,
            content_bytes=self._recent.used_bytes,
            messages_received=self._messages_received,
            bad_lines=self._bad_lines,
            refused=self._engine.refused,
            refused_for_room=self._refused_for_room,
            not_stored=committer.messages_lost,
            forks_found=self.forks.forks_found,
            erased_values=0 if self._eraser is None else self._eraser.erased_values,
            commits=committer.commits,
            messages_stored=committer.messages_stored,
            transactions_stored=committer.transactions_stored,
            withheld=self._source.withholding.values,
        )

    # Clients.

    @contextmanager
    def client(self, remote: str, origin: Origin = UNKNOWN_ORIGIN) -> Iterator[ClientLink]:
        """A client's place in the node while the block lasts."""
        peer_id, outbox = self._clients.add(remote, origin)
        try:
            yield ClientLink(peer_id, outbox, self._source, self, self._slow_lane)
        finally:
            self._clients.remove(peer_id)
            self._tell_interest()

    def pace(self, origin: Origin, size: int, messages: int) -> Pace:
        """A client sent a frame of so many characters and lines: how its connection goes on."""
        if self._access is None:
            return Pace()
        return self._access.received(origin, size, messages, trio.current_time())

    def count_bad_lines(self, count: int) -> None:
        """Lines of some client that were not messages."""
        self._bad_lines += count

    @property
    def messages_together(self) -> int:
        """How many of a frame's messages are best taken at once."""
        return TURN if self._checker is None else MAX_TOGETHER

    async def look_ahead(self, peer_id: str | None, messages: Sequence[Message]) -> LookAhead:
        """Have the signatures of what a client or a member sent checked, as far as that pays.

        Cancel: nothing is changed.
        """
        if self._is_full:
            return LookAhead()
        return await LookAhead.of(self._checker, self._engine.foresight, peer_id, messages)

    def receive(
        self,
        peer_id: str,
        messages: Sequence[Message],
        foreseen: Sequence[Extensions] = (),
    ) -> None:
        """Take messages from a client; no content while there is no room for any."""
        self._messages_received += len(messages)
        if self._is_full:
            taken = [message for message in messages if not isinstance(message, Content)]
            if len(taken) < len(messages):
                self._clients.owe_room(peer_id)
                self._refused_for_room += len(messages) - len(taken)
            messages, foreseen = taken, ()
        self._carry_out(self._engine.receive_many(peer_id, messages, foreseen))

    async def wait_settled(self, peer_id: str) -> None:
        """Return when this client has little on its way to the disk; at once if so.

        Cancel: nothing is changed.
        """
        while not self._is_full and (
            self._engine.unsettled_bytes(peer_id) > MAX_UNSETTLED_BYTES
            or self._committer.queued_bytes > MAX_QUEUED_BYTES
        ):
            await self._committed.park()

    def end_refused(self, reason: str) -> None:
        """What was refused may be taken now: clients that sent it are to connect again."""
        self._clients.end_refused(reason)

    def has_claims(self, peer_id: str) -> bool:
        """Whether this client may have more of some value than is here."""
        return self._engine.has_claims(peer_id)

    def listened(self, peer_id: str, *, is_quiet: bool) -> None:
        """A while has passed; a quiet client is asked for what it claimed, if there is room."""
        self._carry_out(self._engine.listened(peer_id, is_quiet=is_quiet and not self._is_full))

    # What the engine wants done.

    def _carry_out(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            match output:
                case Send() | Serve() | EndPeer() | Refused():
                    self._clients.tell(output)
                case Store():
                    self._committer.add(output)
                case LoadValue() | Rehash() | ReadGroup() | JudgeGroup() | GoOn():
                    self._reader.ask(output)
                case CheckFork():
                    self.forks.suspect(output)
                case Changed(co_id, sessions):
                    self._feeds.add(co_id, sessions)
                case Settled():
                    self._receipts.note(output)
                case Find(co_id):
                    self._searches.want(co_id)
                case _:
                    assert_never(output)
        self._tell_interest()

    def _tell_interest(self) -> None:
        if self._interest_seen != self._engine.interest_version and self._interest:
            self._interest.unpark_all()

    # Tasks.

    async def run(self) -> None:
        """Carry out what is wanted, until cancelled.

        Cancel: a commit under way is stored whole or not at all.
        """
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self._committer.run)
            tasks.start_soon(self._reader.run)
            tasks.start_soon(self.pinger.run)
            tasks.start_soon(run_with_room, self._room, self.forks.run)
            if self._checker is not None:
                tasks.start_soon(self._checker.run)
            if self._room is not None:
                tasks.start_soon(self._mind_room, self._room)
            tasks.start_soon(self._forget_forever)
            tasks.start_soon(self._ask_again_forever)
            if self._eraser is not None:
                tasks.start_soon(run_with_room, self._room, self._eraser.run)
            await self._searches.run()

    async def _note_stored(self, stores: Sequence[Store]) -> None:
        """What was committed is durable: count it, keep it at hand, tell the engine."""
        now = trio.current_time()
        for append, _ticket, origin, _rests_on in stores:
            if self._access is not None:
                self._access.stored(origin, append, now)
            if append.is_deletion:
                self._recent.forget(append.co_id)
                if self._eraser is not None:
                    self._eraser.wake()
            else:
                self._recent.add(append, self._engine.priority(append.co_id))
        for start in range(0, len(stores), TURN):
            await trio.lowlevel.checkpoint()
            tickets = [store.ticket for store in stores[start : start + TURN]]
            self._carry_out(self._engine.stored(tickets))
        self._share_memory()
        self._committed.unpark_all()

    def _note_lost(self, stores: Sequence[Store]) -> None:
        if self._access is not None:
            for store in stores:
                self._access.not_stored(store.append)
        self._carry_out(self._engine.not_stored([store.ticket for store in stores]))

    async def _mind_room(self, room: Room) -> None:
        """Take nothing in while there is no room; then end the clients that sent something."""
        while True:
            self._is_full = not room.is_open
            self._committed.unpark_all()
            if not self._is_full:
                self._clients.end_owed()
            await room.wait_changed()

    def _share_memory(self) -> None:
        """Content may have what verified state leaves of the budget."""
        least = self._memory_bytes * CONTENT_EIGHTHS // 8
        self._recent.allow(max(least, self._memory_bytes - self._engine.state_bytes))

    def _carry_out_answer(self, outputs: Sequence[Output]) -> None:
        self._carry_out(outputs)
        self._share_memory()
        if self._committed:
            self._committed.unpark_all()

    def _ask_for_whole_session(self, check: CheckFork) -> None:
        if check.peer_id is not None:
            self._carry_out(
                self._engine.fork_unproven(check.peer_id, check.co_id, check.session_id)
            )

    async def _forget_forever(self) -> None:
        """Let values that nobody uses leave memory, a few at a time."""
        while True:
            await trio.sleep(self._memory_seconds / 2)
            self._engine.begin_round()
            self._recent.begin_round()
            while self._engine.forget_unused(TURN) or self._recent.forget_unused(TURN):
                await trio.lowlevel.checkpoint()

    async def _ask_again_forever(self) -> None:
        """Ask clients for what could not be taken when they sent it."""
        while True:
            await trio.sleep(ROUND_SECONDS)
            self._carry_out([] if self._is_full else self._engine.ask_again())

    def _end_search(self, ids: Sequence[RawCoId]) -> None:
        self._carry_out(self._engine.searched(ids))


@asynccontextmanager
async def open_sync_host(
    store: CoValueStore,
    options: HostOptions | None = None,
    *,
    access: Gatekeeper | None = None,
    room: Room | None = None,
) -> AsyncIterator[SyncHost]:
    """Run the engine of a node over `store` until the block ends; `access` says what is taken.

    With a `room` that somebody opens again, a failing disk is waited for; else its error is raised.
    """
    host = SyncHost(store, options or HostOptions(), access=access, room=room)
    async with open_background_nursery() as nursery:
        nursery.start_soon(host.run)
        yield host
