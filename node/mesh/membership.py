"""Which mesh this node belongs to, and who else does. `membership_file` keeps it on the disk.

A mesh is a name and a secret. From both comes the mesh key, and from that the topic under
which members find one another and the proofs with which they recognize one another:

    mesh key = H("beemesh/1 mesh" || u64 length of the name || name || secret)
    topic    = H(key = mesh key; "topic")
    proof    = H(key = mesh key; "hello" || role byte (0 initiator, 1 responder) || handshake hash)

An encrypted mesh has a second secret, that a blind member does not get. From it comes the key
under which all data cores are encrypted, each with a block key of its own (`block_cipher`):

    data key = H(key = mesh key; "data" || data secret)

Whoever knows the first secret is *some* member; a grant says what a member may do (`ledger`). In an
open mesh, and wherever nobody is known to have founded it, knowing the secret is enough to write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from hypercore.crypto import Entropy, KeyPair, blake2b, system_entropy
from node.errors import NodeError
from node.mesh.ledger import Ledger, Verdict
from node.mesh.mesh_key import derive_mesh_key, derive_topic
from node.mesh.ticket import (
    MAX_ADDRESSES,
    MAX_KEPT,
    MAX_PARDONED,
    Grant,
    Record,
    Revocation,
    Role,
    Ticket,
)

SECRET_BYTES = 32
SERIAL_BYTES = 6
"""Size of the serial of a ticket with a number of uses: no two are the same."""


class NotAllowed(NodeError):
    """What this node may not do in its mesh: the text says who may, or what to do instead."""


@dataclass(frozen=True)
class Membership:
    """The mesh as this node knows it. `key` is derived from the name and the secret."""

    name: str
    secret: bytes = field(repr=False)
    grant: Grant | None = None
    """What this node joined with."""
    founders: frozenset[bytes] = frozenset()
    grants: frozenset[Grant] = frozenset()
    """Grants to named members."""
    revocations: frozenset[Revocation] = frozenset()
    is_encrypted: bool = False
    data_secret: bytes = field(default=b"", repr=False)

    @classmethod
    def found(
        cls,
        name: str,
        founder_id: bytes,
        entropy: Entropy = system_entropy,
        *,
        is_encrypted: bool = False,
    ) -> Membership:
        """A new mesh with random secrets; its founder is its first admin."""
        membership = cls(name, entropy(SECRET_BYTES), founders=frozenset((founder_id,)))
        if not is_encrypted:
            return membership
        return replace(membership, is_encrypted=True, data_secret=entropy(SECRET_BYTES))

    @classmethod
    def open_mesh(cls, name: str) -> Membership:
        """The mesh of everybody who knows its name, for demonstrations and trusted networks."""
        return cls(name, b"")

    @classmethod
    def join(cls, ticket: Ticket) -> Membership:
        """The mesh of a ticket. Where it names no founders, the issuer of its grant is one."""
        founders = ticket.founders
        if not founders and ticket.grant is not None:
            founders = (ticket.grant.issuer,)
        joined = cls(
            ticket.mesh_name,
            ticket.secret,
            ticket.grant,
            frozenset(founders),
            is_encrypted=ticket.is_encrypted,
            data_secret=ticket.data_secret,
        )
        named = [] if ticket.grant is None or ticket.grant.member is None else [ticket.grant]
        return joined.taking((*ticket.chain, *named))

    @property
    def is_open(self) -> bool:
        return not self.secret

    @cached_property
    def key(self) -> bytes:
        return derive_mesh_key(self.name, self.secret)

    @property
    def topic(self) -> bytes:
        return derive_topic(self.key)

    @property
    def lacks_key(self) -> bool:
        """Whether data is encrypted and cannot be read here, nor written so that others can."""
        return self.is_encrypted and not self.data_secret

    @property
    def data_key(self) -> bytes | None:
        """The key that encrypts data cores; None when there is none, or we cannot know it."""
        if not self.data_secret:
            return None
        return blake2b(b"data", self.data_secret, key=self.key)

    @cached_property
    def _ledger(self) -> Ledger:
        return Ledger(self.founders, self.grants, self.revocations)

    def ledger(self, unix_seconds: float) -> Ledger:
        """What the mesh's admins have signed, as it counts at that time."""
        ledger = self._ledger.at(unix_seconds)
        self.__dict__["_ledger"] = ledger  # the one for now is asked for again and again
        return ledger

    def judge(self, member_id: bytes, shown: Grant | None, unix_seconds: float) -> Verdict:
        """What somebody who proved the secret may do, showing this grant."""
        if not self.founders:
            return Verdict(Role.WRITER)
        if shown is not None and not shown.is_signed(self.key):
            shown = None
        return self.ledger(unix_seconds).judge(member_id, shown)

    def role_of(self, member_id: bytes, shown: Grant | None, unix_seconds: float) -> Role | None:
        """As `judge`; None: nothing, shut out."""
        return self.judge(member_id, shown, unix_seconds).role

    def taking(self, records: Iterable[Record], unix_seconds: float = 0) -> Membership:
        """The same with more records, as far as an admin signed them; itself if none is new.

        Raises: ForgedRecord.
        """
        before = self.ledger(unix_seconds)
        ledger = before.taking(records, self.key)
        if ledger is before:
            return self  # nothing new
        taken = replace(self, grants=ledger.grants, revocations=ledger.revocations)
        taken.__dict__["_ledger"] = ledger  # weighed already
        return taken

    def invite(
        self,
        identity: KeyPair,
        addresses: Sequence[str] = (),
        *,
        role: Role | None = None,
        member: bytes | None = None,
        expiry: int | None = None,
        uses: int = 0,
        unix_seconds: float = 0,
        entropy: Entropy = system_entropy,
    ) -> Ticket:
        """A ticket to this node, for as many nodes as it has `uses` (0: any number).

        Each ticket that has `uses` is a new one, with uses of its own.

        An admin's says what the options say (`role` None: writer); other nodes pass on their own.
        A grant to a named `member` counts once it was taken in, by `taking`; it undoes what was
        said against that member.

        Raises: NotAllowed.
        """
        ticket = Ticket(
            self.name,
            self.secret,
            identity.public_key,
            tuple(addresses[:MAX_ADDRESSES]),
            is_encrypted=self.is_encrypted,
            data_secret=self.data_secret,
        )
        if not self.founders:
            if role not in (None, Role.WRITER) or uses or (member, expiry) != (None, None):
                raise NotAllowed("this mesh has no admins: everybody in it may read and write")
            return ticket
        ledger = self.ledger(unix_seconds)
        if not ledger.is_admin(identity.public_key):
            if uses or (role, member, expiry) != (None, None, None):
                raise NotAllowed(
                    "only an admin says whom a ticket lets in, and as what: without options this "
                    "node passes on the ticket it came with"
                )
            return self._pass_on(ticket, ledger)
        if uses and member is not None:
            raise NotAllowed("a ticket for one node is of no use to others: leave --uses out")
        grant = self.sign_grant(
            identity,
            role or Role.WRITER,
            member=member,
            expiry=expiry,
            uses=uses,
            serial=int.from_bytes(entropy(SERIAL_BYTES), "big") if uses else 0,
            unix_seconds=unix_seconds,
        )
        data_secret = b"" if grant.role is Role.BLIND else self.data_secret
        return self._with_grant(replace(ticket, data_secret=data_secret), grant, ledger)

    def _pass_on(self, ticket: Ticket, ledger: Ledger) -> Ticket:
        grant = self.grant
        if grant is None or grant.member is not None or not ledger.counts(grant):
            raise NotAllowed("this node cannot invite: what an admin granted it is for it alone")
        return self._with_grant(ticket, grant, ledger)

    def _with_grant(self, ticket: Ticket, grant: Grant, ledger: Ledger) -> Ticket:
        """Adds what shows that the grant's issuer is an admin, unless it is the only founder."""
        if self.founders == {grant.issuer}:
            return replace(ticket, grant=grant)
        chain, founders = ledger.chain_to(grant.issuer), tuple(sorted(self.founders))
        return replace(ticket, grant=grant, chain=chain, founders=founders)

    def sign_grant(
        self,
        identity: KeyPair,
        role: Role,
        *,
        member: bytes | None,
        expiry: int | None,
        uses: int = 0,
        serial: int = 0,
        unix_seconds: float,
    ) -> Grant:
        """An admin's grant; it lasts no longer than those that made this node an admin.

        Raises: NotAllowed.
        """
        ledger = self.ledger(unix_seconds)
        if role is Role.BLIND and not self.is_encrypted:
            raise NotAllowed(
                "this mesh is not encrypted, so nobody in it is blind: `beemesh up "
                "--mesh-encrypted` founds one that is"
            )
        if role is Role.ADMIN and member is None:
            raise NotAllowed("an admin is made by name: say for whom, with --for ID")
        if member in self.founders:
            raise NotAllowed("that is a founder of this mesh, and admin for good")
        ends = [grant.expiry for grant in ledger.chain_to(identity.public_key)]
        expiry = min((end for end in (expiry, *ends) if end is not None), default=None)
        against = [] if member is None else ledger.revocations_of(member)
        if len(against) > MAX_PARDONED:
            raise NotAllowed(f"it was revoked {len(against)} times: it needs a new key")
        pardoned = tuple(item.digest for item in against)
        while True:
            grant = Grant.issue(
                self.key,
                identity,
                role,
                member=member,
                expiry=expiry,
                serial=serial,
                pardoned=pardoned,
                uses=uses,
            )
            if not ledger.revocations_of(grant.digest) and (not uses or ledger.admits(grant)):
                return grant
            serial += 1

    def check_admin(self, identity: KeyPair, unix_seconds: float) -> None:
        """Raises: NotAllowed."""
        if not self.founders:
            raise NotAllowed("this mesh has no admins: nobody can be shut out of it")
        if not self.ledger(unix_seconds).is_admin(identity.public_key):
            raise NotAllowed("only an admin of the mesh can revoke")

    def revoke(
        self,
        identity: KeyPair,
        subject: bytes,
        reason: str = "",
        *,
        keeps: bool = True,
        unix_seconds: float,
    ) -> Revocation:
        """Shut a member out, or those who bear a grant; it counts once taken in, by `taking`.

        With `keeps`, what a revoked admin has signed so far stays in force.

        Raises: NotAllowed.
        """
        self.check_admin(identity, unix_seconds)
        ledger = self.ledger(unix_seconds)
        if subject == identity.public_key:
            raise NotAllowed("a node cannot shut itself out: stop it and delete its mesh.toml")
        rank = ledger.admins.get(subject)
        if rank is not None and rank <= ledger.admins[identity.public_key]:
            raise NotAllowed("an admin can be revoked only by one that is nearer to the founder")
        kept: tuple[bytes, ...] = ()
        if rank is not None and keeps:
            kept = tuple(sorted(record.digest for record in ledger.signed_by(subject)))[:MAX_KEPT]
        earlier = [item.unix_seconds for item in ledger.revocations_of(subject)]
        # Two of the same second would be one record, which a grant may have pardoned meanwhile.
        moment = max([int(unix_seconds), *(time + 1 for time in earlier)])
        return Revocation.issue(self.key, identity, subject, moment, reason, kept)
