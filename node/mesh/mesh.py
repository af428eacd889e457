"""The mesh as this node sees it: its members, what they are asked, and what they announce.

    a client's load -> find -> one query to all members -> fetch from the best -> SyncHost
    a member's update -> announcements -> fetch what we lack from one of those who have it
    a commit of ours -> updates to the members that are interested

Members come and go with `serve_member` (`serve.py`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import structlog
import trio

from hypercore.core import Core
from hypercore.crypto import Entropy, KeyPair, discovery_key, system_entropy
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import KnownState
from node.mesh.allowances import Allowances
from node.mesh.announced import AnnouncedValues
from node.mesh.authorship import Authorship
from node.mesh.block_uses import BlockUses
from node.mesh.conduct_watch import watch_conduct
from node.mesh.copy_watch import watch_copies
from node.mesh.exchange import Exchange
from node.mesh.fetch import Fetcher
from node.mesh.fetch_report import FetchReport
from node.mesh.finding import Finder, count_copies
from node.mesh.follow import CatchUp, CoreData
from node.mesh.hearsay_messages import HearsayMessage
from node.mesh.in_step import InStep
from node.mesh.member import Member
from node.mesh.member_book import MemberBook
from node.mesh.member_cores import DataCores
from node.mesh.member_data import MemberDataError
from node.mesh.member_statistics import MemberStatistics
from node.mesh.membership import Membership
from node.mesh.mesh_host import MeshHost, OwnData
from node.mesh.messages import Evidence, Interest, Sessions, Welcome
from node.mesh.own_interest import OwnInterest
from node.mesh.owners import OwnerTable
from node.mesh.peer_rules import Direction
from node.mesh.penalties import Penalties
from node.mesh.provenance import Provenance
from node.mesh.pushing import ValuePusher
from node.mesh.recall import Recall
from node.mesh.replicas import ReplicaPolicy
from node.mesh.run_messages import INSTANCE_BYTES, RunMessage
from node.mesh.safekeeping import Safekeeping
from node.mesh.screening import Screening
from node.mesh.sync_state import SyncState
from node.mesh.telling import Telling
from node.mesh.trust import Trust
from node.mesh.trust_messages import TrustMessage
from node.mesh.witness import Witness, WitnessedCores
from swarm.io.tasks import open_background_nursery

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MeshStatistics:
    """Members now, and counters since the mesh was opened."""

    members: tuple[MemberStatistics, ...]
    announced: int
    """Values that members announced and that are not fetched yet."""
    found: int
    """Ids asked for by `find` that somebody claimed to hold."""
    absent: int
    queries_answered: int
    evidence_received: int
    evidence_refused: int
    forked_cores: int


class Mesh:
    """Open it with `open_mesh`. It is the `MeshReader` of the node's `SyncHost`."""

    def __init__(
        self,
        id: bytes,
        host: MeshHost,
        data: OwnData,
        membership: Membership,
        policy: ReplicaPolicy,
        name: str,
        nursery: trio.Nursery,
        *,
        identity: KeyPair | None,
        book: MemberBook | None,
        clock: Callable[[], float],
        cores: WitnessedCores | None,
        rebuild: Callable[[], Awaitable[int]] | None,
        instance: bytes,
    ) -> None:
        self.id = id
        """Public key of this node."""
        self.host = host
        self.data = data
        self._name = name
        self._cores = cores
        self.members: dict[bytes, Member] = {}
        """Members admitted, by id; changed by `add` and `remove` only."""
        self._members_changed = trio.lowlevel.ParkingLot()
        self._sync_changed = trio.lowlevel.ParkingLot()
        self._queries_answered = 0

        # Who belongs here, and how they behave.
        self.trust = Trust(
            *(id, membership, self.members),
            identity=identity,
            book=book,
            own_core=data.key,
            clock=clock,
        )
        self.penalties = Penalties()
        self.allowances = Allowances()

        # Logs: our own, and those of members.
        self.recall = Recall(*(id, identity, data, rebuild, instance), self.trust.known_members())
        self.witness = Witness(host, data, self.members, cores, self.trust.known_cores)
        self.safekeeping = Safekeeping(
            self.trust,
            self.members,
            data.key,
            name,
            identity=identity,
            wanted=lambda: self.policy.select(host.wanted_ids()),
            keeps_all=lambda: self.policy.everything,
            wait_settled=self.recall.wait_settled,
        )
        self.uses = BlockUses()
        self._connected_cores: Counter[bytes] = Counter()

        # What is kept here, and what is exchanged with whom.
        self.interest = OwnInterest(host, self.members, policy, lambda: self.trust.is_blind)
        self.owners = OwnerTable(host.store)
        self.screening = Screening(policy, host, self.owners)
        self.provenance = Provenance(data)
        self.exchange = Exchange(data, policy.peers)
        self.pusher: ValuePusher | None = None

        # Bringing values over.
        self._fetcher = Fetcher(host, self.members, policy, self.safekeeping.absent)
        self._fetcher.screening = self.screening
        self._fetcher.provenance = self.provenance
        self.catch_up = CatchUp(host, self._fetcher, data, policy, version("beemesh"))
        self._announced = AnnouncedValues(self._fetcher, self.recall, self._sync_changed)
        self.finder = Finder(
            *(host, self.members, self._fetcher, self.safekeeping),
            *(nursery, self._members_changed),
        )
        self._in_step = InStep(
            *(host, self.members, self.interest, self._announced),
            *(self._fetcher, self.catch_up, self.safekeeping, self.recall),
        )

        # Telling members of ours.
        self.telling = Telling(
            *(id, data.replication, host, self.members),
            *(self.trust, self.owners, self._members_changed, self.witness.note_moved),
        )
        self._fetcher.origins = self.telling.origins

    @property
    def membership(self) -> Membership:
        return self.trust.membership

    @property
    def policy(self) -> ReplicaPolicy:
        """What is kept here; replaced by `change_policy` only."""
        return self.interest.policy

    # What the host and the shell ask.

    async def find(
        self, ids: Sequence[RawCoId], known: Mapping[RawCoId, KnownState]
    ) -> Mapping[RawCoId, Sequence[Content]]:
        """As `Finder.find`."""
        return await self.finder.find(ids, known)

    def has_met(self, id: bytes) -> bool:
        """Whether the node with this id is a member, or was one once."""
        return id in self.members or self.trust.book.get(id.hex()) is not None

    async def wait_members_changed(self) -> None:
        """Return when somebody comes or goes. Cancel: undoes nothing."""
        await self._members_changed.park()

    async def keep_safe(self, member: Member, core: Core, cores: DataCores) -> None:
        """Serve a member as `Safekeeping.serve` says, until cancelled."""
        await self.safekeeping.serve(member, core, cores, self._fetcher, self.catch_up)

    def report(self, co_id: RawCoId) -> FetchReport | None:
        """What bringing over this value took, the last time, if that is not long ago."""
        return self._fetcher.report(co_id)

    def statistics(self) -> MeshStatistics:
        members = tuple(member.statistics() for member in self.members.values())
        return MeshStatistics(
            members=members,
            announced=len(self._announced),
            found=self.finder.found,
            absent=self.finder.absent,
            queries_answered=self._queries_answered,
            evidence_received=self.witness.received,
            evidence_refused=self.witness.refused,
            forked_cores=len(self.witness.forked_cores),
        )

    def change_policy(self, policy: ReplicaPolicy) -> None:
        """Keep other values from now on: members are told, and read as far as that is new.

        What is not kept any more stays as it is, and is not kept up to date.
        """
        self.interest.policy = policy
        self._fetcher.policy = self.catch_up.policy = self.screening.policy = policy
        self.exchange.rules = policy.peers
        for member in list(self.members.values()):
            self.interest.tell(member)
            member.ask_anew()
        self.exchange.changed()

    def pause(self, reason: str) -> None:
        """Fetch nothing until `resume`, and ask for nothing: there is no room for it."""
        self._fetcher.pause_reason = reason
        self.safekeeping.pause()

    def resume(self) -> None:
        """Go on, and find out what was missed."""
        self._fetcher.pause_reason = ""
        self.safekeeping.resume()
        self.change_policy(self.policy)
        for member in list(self.members.values()):
            self.interest.ask_for_listing(member)

    def sync_state(self) -> SyncState:
        """How far this node and its members are in step."""
        return self._in_step.state()

    # What `serve_member` asks.

    def introduction(self, member: Member) -> Sequence[TrustMessage]:
        return self.trust.introduction(member)

    def welcome(self, member: Member) -> Welcome:
        """What members may know of this node."""
        member.acknowledgements.told_length = self.data.durable_length
        grant = self.membership.grant
        role, keys = self.trust.verdict.role, self.data.key_pair
        where = (self.membership.key, self.id, member.session.handshake_hash)
        return Welcome(
            self.data.key,
            member.acknowledgements.told_length,
            self._name,
            "" if role is None else role.value,
            grant,
            self.policy.brief,
            None if keys is None else Authorship.prove(keys, *where),
        )

    def due(self, member: Member) -> Direction:
        """What the member's rule and budget let through now."""
        return self.exchange.due(member.id, member.statistics().name, member.traffic)

    def add(self, member: Member) -> None:
        """A member was admitted; it replaces an earlier connection to the same one.

        Only members in the table hear what comes. So each part that tells them something tells
        this one now what came while it was let in.

        Nodes that dial each other at the same time have two connections for a moment: what was
        asked, and not answered, on the one that is about to go is asked again.
        """
        earlier = self.members.get(member.id)
        self.members[member.id] = member
        self._members_changed.unpark_all()
        self.trust.admitted(member)
        self.witness.greet(member)
        self.telling.greet(member)
        self.interest.tell(member)
        self.finder.joined(member, earlier)

    def remove(self, member: Member) -> None:
        """A member went: what only it announced is forgotten."""
        self.finder.departed()
        self.note_sync_changed()
        self.recall.forget(member)
        if self.members.get(member.id) is member:
            del self.members[member.id]
            self.trust.departed(member)
            self._members_changed.unpark_all()
            self._announced.forget_member(member.id)

    @contextmanager
    def connected_core(self, key: bytes) -> Iterator[None]:
        """While the block lasts, `key` is that of the data core of a connected member."""
        self._connected_cores[key] += 1
        try:
            yield
        finally:
            self._connected_cores[key] -= 1
            self._connected_cores += Counter()  # drops what is at zero

    def is_connected_core(self, key: bytes) -> bool:
        """Whether `key` is that of the data core of a connected member."""
        return key in self._connected_cores

    def receive_claims(
        self, member: Member, version: int, claims: Iterable[tuple[RawCoId, Sessions]]
    ) -> None:
        """A member holds this much of values that we want: fetch what we lack."""
        if (
            self.members.get(member.id) is not member
            or member.is_frozen
            or not member.direction.takes
        ):
            return
        if not self._announced.announce(member.id, version, claims):
            member.compare_again()

    def receive_interest(self, member: Member, interest: Interest) -> None:
        """A member follows this now: it is told of what moved shortly before it said so."""
        member.listing.note(interest)
        if not member.direction.gives:
            return
        if self.members.get(member.id) is member:
            self.telling.tell_recent(member, interest)

    def receive_holdings(
        self, member: Member, holdings: Sequence[tuple[RawCoId, Sessions | None]]
    ) -> None:
        """So much of these is durable there: clients may wait for that.

        A blind member knows of no value what it holds of it, and whether anybody could have it.
        """
        if member.may_read:
            self.host.note_copies(member.id, holdings)
        self.note_sync_changed()

    def receive_listed(self, member: Member) -> None:
        self.note_sync_changed()

    def note_sync_changed(self) -> None:
        """Something that `sync_state` tells may have changed."""
        self._sync_changed.unpark_all()

    async def wait_sync_changed(self) -> None:
        """Return when `sync_state` may have changed. Cancel: undoes nothing."""
        await self._sync_changed.park()

    def receive_evidence(self, member: Member, evidence: Evidence) -> None:
        self.witness.receive(member, evidence)

    def receive_run(self, member: Member, message: RunMessage) -> None:
        for answer in self.recall.receive(member, message, trio.current_time()):
            member.carry_out(member.session.tell_run(answer))

    def punish(self, member: Member, fault: str) -> None:
        """A member was expelled for what it did: it stays away for a while."""
        penalty = self.penalties.give(
            member.id,
            fault,
            trio.current_time(),
            may_be_unlucky=member.conduct.may_be_unlucky,
        )
        log = _log.warning if penalty.until > penalty.since else _log.info
        log(
            "member sent away",
            id=member.id.hex(),
            name=member.statistics().name,
            reason=fault,
            seconds=round(penalty.until - penalty.since),
            times=penalty.times,
        )
        self._members_changed.unpark_all()

    def receive_trust(self, member: Member, message: TrustMessage) -> None:
        self.trust.receive(member, message)

    def receive_hearsay(self, member: Member, message: HearsayMessage) -> None:
        claim = self.telling.receive(member, message)
        if claim is not None:
            self.receive_claims(member, claim.version, claim.changes)

    def count_query(self) -> None:
        self._queries_answered += 1

    # Tasks.

    async def run(self) -> None:
        """Announce, follow and keep interest up to date, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.telling.run)
            nursery.start_soon(watch_conduct, self.members, self._cores)
            nursery.start_soon(self._announced.run)
            nursery.start_soon(self.interest.run)
            nursery.start_soon(self.provenance.run)
            nursery.start_soon(count_copies, self.host, self.recall, self.finder)
            nursery.start_soon(watch_copies, lambda: self._in_step.unkept, self.sync_state)
            nursery.start_soon(self.witness.run, self.recall.wait_settled)
            nursery.start_soon(self.recall.run)
            nursery.start_soon(self._tell_what_came_back)
            nursery.start_soon(self.trust.run)

    async def _tell_what_came_back(self) -> None:
        """Members that came before our log was whole have compared with less than it holds."""
        await self.recall.wait_settled()
        recovered = self.recall.recovered
        if recovered and self._cores is not None:
            core = await self._cores.find(discovery_key(self.data.key))
            if core is None:
                return
            try:
                # By the tree, which has been read already: nobody may have all of the log any more.
                data = CoreData(core)
                after: bytes | None = b""
                while after is not None:
                    page = await data.survey(recovered.start, recovered.stop, after)
                    self.host.announce(page.changed)
                    after = page.last_key
            except MemberDataError as error:  # then they find out when they compare again
                _log.warning("cannot tell what came back", error=str(error))
            finally:
                core.release()


@asynccontextmanager
async def open_mesh(
    host: MeshHost,
    data: OwnData,
    membership: Membership,
    *,
    id: bytes,
    name: str,
    policy: ReplicaPolicy | None = None,
    identity: KeyPair | None = None,
    book: MemberBook | None = None,
    clock: Callable[[], float] = time.time,
    cores: WitnessedCores | None = None,
    pusher: ValuePusher | None = None,
    rebuild: Callable[[], Awaitable[int]] | None = None,
    entropy: Entropy = system_entropy,
) -> AsyncIterator[Mesh]:
    """The mesh of a node, without members yet. Set it as the host's `mesh`.

    An admin needs its `identity` to sign grants; `clock` gives unix seconds; `cores` are those that
    may turn out to be forked. The `pusher` sends blocks along with answers. `rebuild` makes anew
    what is stored beside the data core, when members bring back more of the core than is here;
    without `rebuild` the core is cut back then.

    Raises: SecondNode, as the group of a background task, when another node runs with our key.
    Cancel: as the end of the block.
    """
    async with open_background_nursery() as nursery:
        mesh = Mesh(
            *(id, host, data, membership, policy or ReplicaPolicy(), name, nursery),
            identity=identity,
            book=book,
            clock=clock,
            cores=cores,
            rebuild=rebuild,
            instance=entropy(INSTANCE_BYTES),
        )
        mesh.pusher = pusher
        nursery.start_soon(mesh.run)
        yield mesh
