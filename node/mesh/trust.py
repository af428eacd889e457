"""Who is let into the mesh, now: judging members, and telling them what admins signed.

Records that one member sends go on to all others, and end the connections of those that they shut
out. A member that was away is told when it comes back: both say what they hold, and send what the
other lacks. A grant that runs out ends its member's connection, too.

An admin that meets a member that came in with a ticket that others may use signs a grant for that
member alone. So a ticket can be revoked without the members that came in with it, and a member
without its ticket.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import Enum, auto
from math import inf

import structlog
import trio

from hypercore.crypto import KeyPair
from node.mesh.ledger import ForgedRecord, Ledger, Verdict
from node.mesh.member import Member
from node.mesh.member_book import MemberBook
from node.mesh.membership import Membership, NotAllowed
from node.mesh.messages import Welcome
from node.mesh.ticket import Grant, Record, Role
from node.mesh.trust_messages import (
    Farewell,
    Held,
    Introduction,
    Kept,
    Records,
    TrustMessage,
    shortened,
    split_records,
)
from node.mesh.untimely import Untimely
from swarm.io.tasks import Wakeup

LOOK_SECONDS = 60.0
"""Members are judged anew at least this often: the clock may have been set."""

OUT_LOOK_SECONDS = 2.0
"""The same for a node that may do nothing, by its clock: until the next look it refuses its
clients, though members whose clocks are right may take it for one of them."""

_log = structlog.get_logger(__name__)


class StrangerTerms(Enum):
    """Which cores a node that is no member may replicate, if it knows their keys."""

    ALL = auto()
    NO_DATA = auto()
    """All but members' data cores."""
    NOTHING = auto()
    """The node was shut out."""


class Trust:
    """The mesh's own judge; `members` are those admitted, by id."""

    def __init__(
        self,
        id: bytes,
        membership: Membership,
        members: Mapping[bytes, Member],
        *,
        identity: KeyPair | None = None,
        book: MemberBook | None = None,
        own_core: bytes = b"",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.membership = membership
        """Replaced by `take` only."""
        self.book = book or MemberBook()
        self.farewell: Farewell | None = None
        """What the last member that did not let us in said."""
        self._id = id
        self._own_core = own_core
        self._identity = identity
        self._members = members
        self._clock = clock
        self._verdict = self._own_verdict()
        self.untimely = Untimely()
        self._told = membership.ledger(clock())
        """The records that members were told of, as far as they lacked them."""
        self._shown: dict[bytes, Grant] = {}
        self._enforce = Wakeup()
        self._changed = Wakeup()
        self._judged = trio.lowlevel.ParkingLot()

    @property
    def verdict(self) -> Verdict:
        """What this node may do, as far as it knows."""
        return self._verdict

    @property
    def may_write(self) -> bool:
        """Whether others take what this node has."""
        role = self._verdict.role
        return role is not None and role.may_write and not self.membership.lacks_key

    @property
    def is_blind(self) -> bool:
        """Whether this node reads nothing: it has no key, or is not meant to use it any more."""
        return self._verdict.role is Role.BLIND or self.membership.lacks_key

    @property
    def trouble(self) -> str:
        """Why this node is not let in, or cannot do what it may; empty where nothing is wrong."""
        if self._verdict.role is None:
            return self.explain(self._id, self.membership.grant).reason
        if self._verdict.role is not Role.BLIND and self.membership.lacks_key:
            return "it lacks the key of the encrypted data: join again with a new ticket"
        if self.farewell is not None and not self._members:
            return self.farewell.reason
        return ""

    def judge(self, member_id: bytes, grant: Grant | None) -> Role | None:
        """What a node that shows this grant may do; None: it is not let in."""
        return self._judge(member_id, grant).role

    def is_barred(self, member_id: bytes) -> bool:
        """Whether a node was shut out: then it is not even served as a stranger."""
        return self._judge(member_id, None).revocation is not None

    def stranger_terms(self, id: bytes) -> StrangerTerms:
        """What a node served as a stranger may have; `wait_judged` tells of changes."""
        if self.is_barred(id):
            return StrangerTerms.NOTHING
        return StrangerTerms.NO_DATA if self.membership.revocations else StrangerTerms.ALL

    def known_members(self) -> frozenset[bytes]:
        """Members that this node has ever met, without itself and those that were shut out."""
        ids = {bytes.fromhex(met.id) for met in self.book} - {self._id}
        return frozenset(id for id in ids if not self.is_barred(id))

    def known_cores(self) -> frozenset[bytes]:
        """The data cores of this node and of members that it has ever met, each one's last."""
        return frozenset((self._own_core, *self.book.cores()))

    def serves_strangers(self, data_key: bytes) -> bool:
        """Whether a node that is no member may replicate that core, if it knows its key.

        A node that was shut out knows the keys of all members' data cores, and may come as a
        stranger: so once any was, those cores are for members only.
        """
        if not self.membership.revocations:
            return True
        return data_key != self._own_core and not self.book.has_core(data_key.hex())

    def explain(self, member_id: bytes, grant: Grant | None) -> Farewell:
        """What to tell a node that is not let in."""
        revocation = self._judge(member_id, grant).revocation
        if revocation is not None:
            why = f": {revocation.reason}" if revocation.reason else ""
            return Farewell(f"an admin shut it out{why}", revocation)
        if grant is not None and grant.expiry is not None and grant.expiry <= self._clock():
            return Farewell("its grant has expired: join with a new ticket")
        if grant is not None and grant.uses:
            return Farewell(
                "its ticket is used up, or counts only where it was made: go there first"
            )
        return Farewell("no admin of this mesh has let it in: join with a ticket")

    def introduction(self, member: Member) -> list[Records]:
        """What shows a member-to-be what we may do, ahead of our welcome."""
        ledger = member.gossip.introduced_with = self.membership.ledger(self._clock())
        if not self.membership.founders:
            return []  # all may write, and nobody could sign anything
        grant = self.membership.grant
        own = ledger.grants_to(self._id)
        issuers = {item.issuer for item in (*own, *([] if grant is None else [grant]))}
        chains = {link for issuer in issuers for link in ledger.chain_to(issuer)}
        first, *others = split_records(ledger.summary, {*own, *chains})
        return [replace(first, shown=grant), *others]

    def admitted(self, member: Member) -> None:
        """The node is a member from now on."""
        welcome = member.welcome
        assert welcome is not None
        if welcome.grant is not None:
            self._shown[member.id] = welcome.grant
        self.note(member)
        if member.gossip.introduced_with is not None:  # it was not told of what came since
            self._tell(member, *self._messages(self._news(member.gossip.introduced_with)))
            member.gossip.introduced_with = None  # some megabytes, another for each member
        summary = self.membership.ledger(self._clock()).summary
        if member.gossip.summary not in (None, summary):
            self._tell(member, self._held())
        self._register(member.id, welcome.grant)
        # Since its welcome came, another may have used up the ticket, or an admin shut it out.
        self._apply(member, self.judge(member.id, welcome.grant))
        self._enforce.set()

    def departed(self, member: Member) -> None:
        self.note(member)
        self._shown.pop(member.id, None)

    def note(self, member: Member) -> None:
        """Write down that a member is here."""
        about = member.statistics()
        grant = self._shown.get(member.id)
        ticket = "" if grant is None or grant.member is not None else grant.digest.hex()
        self.book.note(
            member.id.hex(),
            about.name,
            about.role,
            self._clock(),
            ticket=ticket,
            key=about.key.hex() if member.is_author else "",
        )
        self._changed.set()

    def is_author(self, member: Member, welcome: Welcome, *, is_held: bool) -> bool:
        """Whether a member writes the core that it calls its own, of which something `is_held`.

        Who does not show it is believed as long as nobody else has said so, if it said so before
        there was anything to lose.
        """
        if welcome.author is not None:
            return self.is_proven_author(member, welcome)
        id, key = member.id.hex(), welcome.data_key.hex()
        met = self.book.get(id)
        is_known = met is not None and met.key == key
        return (is_known or not is_held) and not self.book.has_other(id, key)

    def is_proven_author(self, member: Member, welcome: Welcome) -> bool:
        """Whether a member shows on this connection that it writes the core."""
        where = (self.membership.key, member.id, member.session.handshake_hash)
        return welcome.author is not None and welcome.author.is_of(welcome.data_key, *where)

    def keep_introduction(self, introduction: Introduction) -> None:
        """Remember which core a member has, for others."""
        met = self.book.get(introduction.member.hex())
        if met is None or met.introduction != introduction.encode().hex():
            self.book.introduce(introduction, self._clock())
            self._changed.set()

    def receive(self, member: Member, message: TrustMessage) -> None:
        """What a member, or one that has proved the secret, says about members."""
        match message:
            case Records():
                member.gossip.summary = message.summary
                try:
                    self.take(message.records, source=member)
                except ForgedRecord as error:
                    member.carry_out(member.session.close(f"it passes on {error}"))
                else:
                    self._consider(member, message.shown)
            case Held(digests):
                if member.gossip.is_told:
                    return  # since then it is told of all that comes
                member.gossip.is_told = True
                ledger = self.membership.ledger(self._clock())
                lacking = [
                    record
                    for digest, record in ledger.in_force.items()
                    if shortened(digest) not in digests
                ]
                member.outbox.queue_records(split_records(ledger.summary, lacking))
            case Farewell():
                self._hear_farewell(member, message)
            case Kept():
                pass  # the member holds them for `Safekeeping`

    def take(self, records: Iterable[Record], source: Member | None = None) -> None:
        """Make these count from now on, here and everywhere, as far as an admin signed them.

        Raises: ForgedRecord.
        """
        before, now, said = self.membership, self._clock(), frozenset(records)
        taken = before.taking(said | self.untimely.records, now)
        self.untimely.keep(said, taken.ledger(now), taken.key)
        self.membership = taken
        if taken is before:
            return
        for revocation in taken.revocations - before.revocations:
            subject, reason = revocation.subject.hex()[:12], revocation.reason
            _log.info("revoked", subject=subject, reason=reason)
        # Members are told before they are judged: whoever is shut out hears it as well.
        self._tell_news(source, said)
        self._judge_all()

    def _tell_news(
        self, source: Member | None = None, said: frozenset[Record] = frozenset()
    ) -> None:
        """Tell members what has come into force; the source is not told what it said itself.

        What an admin signed counts again when it is an admin again, by a record or by the clock.
        Members that came in between, perhaps the source, were not told of that.
        """
        earlier, self._told = self._told, self.membership.ledger(self._clock())
        news = self._news(earlier)
        to_source = self._messages([record for record in news if record not in said])
        to_others = self._messages(news)
        for member in list(self._members.values()):
            self._tell(member, *(to_source if member is source else to_others))

    def _news(self, earlier: Ledger) -> list[Record]:
        """What is in force that was not in the earlier ledger."""
        in_force = self.membership.ledger(self._clock()).in_force
        return [in_force[digest] for digest in sorted(in_force.keys() - earlier.in_force.keys())]

    def _messages(self, records: Sequence[Record]) -> list[Records]:
        summary = self.membership.ledger(self._clock()).summary
        return list(split_records(summary, records)) if records else []

    async def wait_changed(self) -> None:
        """Return when there is something to be saved; for one task. Cancel: nothing is lost."""
        await self._changed.wait()

    async def wait_judged(self) -> None:
        """Return when what a node may do may have changed. Cancel: undoes nothing."""
        await self._judged.park()

    async def run(self) -> None:
        """End the connections of those whose grants run out, until cancelled."""
        looked_at = trio.current_time()
        while True:
            now = self._clock()
            expiry = self.membership.ledger(now).next_expiry(self._shown.values())
            left = inf if expiry is None else expiry - now
            look = OUT_LOOK_SECONDS if self._verdict.role is None else LOOK_SECONDS
            # A member that comes and goes all the time does not put off the next look.
            with trio.move_on_at(min(trio.current_time() + left, looked_at + look)):
                await self._enforce.wait()
                continue
            looked_at = trio.current_time()
            for member in self._members.values():
                self.note(member)
                self.farewell = None  # this one lets us in, and has done so for a while
            self.take(())  # what did not count may count now
            self._tell_news()
            self._judge_all()

    def _judge_all(self) -> None:
        was_blind, self._verdict = self.is_blind, self._own_verdict()
        for member in list(self._members.values()):
            if self.is_blind is not was_blind:
                reason = "this node may read something else than before: it begins anew"
                member.carry_out(member.session.close(reason))
            self._apply(member, self.judge(member.id, self._shown.get(member.id)))
        self._enforce.set()
        self._changed.set()
        self._judged.unpark_all()

    def _apply(self, member: Member, role: Role | None) -> None:
        """Let a member do what its role says from now on; None shuts it out."""
        if role is None:
            farewell = self.explain(member.id, self._shown.get(member.id))
            member.carry_out(member.session.dismiss(farewell))
        else:
            member.change_role(role)

    def _judge(self, member_id: bytes, grant: Grant | None) -> Verdict:
        verdict = self.membership.judge(member_id, grant, self._clock())
        is_in_or_out = verdict.role is not None or verdict.revocation is not None
        if is_in_or_out or grant is None or not self._counts_here(grant):
            return verdict
        return Verdict(grant.role, grant)

    def _counts_here(self, grant: Grant) -> bool:
        """Whether a grant is of a ticket of ours with a number of uses, and has some left."""
        return (
            grant.uses > 0
            and grant.issuer == self._id
            and grant.is_signed(self.membership.key)
            and self.membership.ledger(self._clock()).admits(grant)
        )

    def _own_verdict(self) -> Verdict:
        return self._judge(self._id, self.membership.grant)

    def _held(self) -> Held:
        in_force = self.membership.ledger(self._clock()).in_force
        return Held(frozenset(map(shortened, in_force)))

    def _tell(self, member: Member, *messages: TrustMessage) -> None:
        for message in messages:
            member.carry_out(member.session.tell(message))

    def _register(self, member_id: bytes, shown: Grant | None) -> None:
        """Sign a grant for a member that came in with somebody's ticket."""
        identity, now = self._identity, self._clock()
        ledger = self.membership.ledger(now)
        if identity is None or shown is None or shown.member is not None:
            return
        if self._judge(member_id, shown).grant != shown:
            return  # the member is let in for another reason
        if not ledger.is_admin(identity.public_key) or ledger.grants_to(member_id):
            return
        with suppress(NotAllowed):  # a ticket that we would not have signed
            grant = self.membership.sign_grant(
                identity,
                shown.role,
                member=member_id,
                expiry=shown.expiry,
                serial=shown.use_serial if shown.uses else 0,
                unix_seconds=now,
            )
            self.take([grant])

    def _consider(self, member: Member, shown: Grant | None) -> None:
        """Welcome a member-to-be, or not: it is told nothing of us before it shows its grant."""
        if member.welcome is not None:
            return
        if self.judge(member.id, shown) is None:
            member.carry_out(member.session.dismiss(self.explain(member.id, shown)))
        else:
            member.send_welcome()

    def _hear_farewell(self, member: Member, farewell: Farewell) -> None:
        revocation = farewell.revocation
        log = _log.debug if farewell == self.farewell else _log.error  # we dial again and again
        log("not let in", by=member.id.hex()[:12], reason=farewell.reason)
        if revocation is not None:
            try:
                self.take([revocation])
            except ForgedRecord as error:
                member.carry_out(member.session.close(f"it passes on {error}"))
        self.farewell = farewell
        self._changed.set()
