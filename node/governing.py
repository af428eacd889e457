"""The verbs about the mesh itself: invitations, members, revocations.

A running node and a data directory that no node has open are both a `Seat` from which they can be
carried out; what is signed on a directory reaches the others when its node starts.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from hypercore.crypto import KeyPair, decode_id
from node.mesh.ledger import Ledger
from node.mesh.member_book import MemberBook, Met
from node.mesh.membership import Membership, NotAllowed
from node.mesh.ticket import MAX_REASON, BadTicket, Grant, Record, Role, Ticket, is_ticket
from node.mesh.trust import LOOK_SECONDS
from node.verbs import (
    ExitCode,
    MeshInfo,
    MeshInvite,
    MeshMembers,
    MeshRevoke,
    MeshVerb,
    Result,
    VerbError,
)

MIN_PREFIX = 6
"""How many letters of an id name a member, if they fit one only."""


@dataclass(frozen=True, slots=True)
class Presence:
    """A member that is connected: where, and which way its packets take."""

    address: str
    reach: str
    is_dialed: bool
    """By us: so others can reach it at this address."""


class Seat(Protocol):
    """From where a mesh is governed."""

    @property
    def identity(self) -> KeyPair: ...
    @property
    def name(self) -> str: ...
    @property
    def membership(self) -> Membership: ...
    @property
    def book(self) -> MemberBook: ...
    @property
    def trouble(self) -> str:
        """Why this node is not let in, or cannot do what it may; empty where nothing is wrong."""
        ...

    def addresses(self) -> Sequence[str]:
        """Where other nodes can dial this one."""
        ...

    def present(self) -> Mapping[str, Presence]:
        """The members that are connected, by id in hexadecimal."""
        ...

    async def take(self, records: Sequence[Record]) -> None:
        """Have these count; they are on the disk when this returns.

        Raises: VerbError when that cannot be written.
        Cancel: they may count all the same.
        """
        ...


async def perform_on_mesh(seat: Seat, verb: MeshVerb) -> AsyncGenerator[Result, None]:
    """Carry out one verb. Raises: VerbError. Cancel: as `Seat.take`."""
    now = time.time()
    try:
        match verb:
            case MeshInvite():
                yield await _invite(seat, verb, now)
            case MeshRevoke():
                yield await _revoke(seat, verb, now)
            case MeshMembers():
                for row in list_members(seat, now):
                    yield row
            case MeshInfo():
                yield _describe(seat, verb, now)
            case _:
                assert_never(verb)
    except NotAllowed as error:
        raise VerbError(ExitCode.FAILED, str(error)) from error


async def _invite(seat: Seat, verb: MeshInvite, now: float) -> Result:
    member = None if not verb.member else _find(seat, verb.member, now)
    role = _read_role(verb.role) if verb.role else _role_to_keep(seat, member, now)
    expiry = None if verb.expires_seconds is None else int(now + verb.expires_seconds)
    ticket = seat.membership.invite(
        seat.identity,
        seat.addresses(),
        role=role,
        member=member,
        expiry=expiry,
        uses=verb.uses,
        unix_seconds=now,
    )
    grant, counts = ticket.grant, None
    if grant is not None and grant.member is not None:
        await seat.take([grant])
        counts = seat.membership.judge(grant.member, None, now)
    return {
        "ticket": ticket.encode(),
        "mesh": ticket.mesh_name,
        "role": Role.WRITER.value if grant is None else grant.role.value,
        "expiry": None if grant is None else grant.expiry,
        "member": None if grant is None or grant.member is None else grant.member.hex(),
        "counts_as": None if counts is None or counts.role is None else counts.role.value,
        "counts_until": None if counts is None else counts.expiry,
        "uses": None if grant is None or not grant.uses else grant.uses,
        "addresses": list(ticket.addresses),
        "is_encrypted": ticket.is_encrypted,
    }


def _role_to_keep(seat: Seat, member: bytes | None, now: float) -> Role | None:
    """What a node has or had that may not write: nobody becomes a writer without a word."""
    if member is None:
        return None
    met = seat.book.get(member.hex())
    granted = seat.membership.judge(member, None, now).role
    has_or_had = granted or ("" if met is None else met.role)
    return next((role for role in (Role.READER, Role.BLIND) if role == has_or_had), None)


async def _revoke(seat: Seat, verb: MeshRevoke, now: float) -> Result:
    if len(verb.reason) > MAX_REASON:
        raise VerbError(ExitCode.USAGE, f"--reason of more than {MAX_REASON} characters")
    membership = seat.membership
    membership.check_admin(seat.identity, now)
    if is_ticket(verb.subject):
        member, subjects = None, [_read_ticket(membership, verb.subject).digest]
    else:
        member = _find(seat, verb.subject, now)
        subjects = [member, *_lonely_ticket(seat, member, now)]
    dependants = [] if member is None or len(subjects) > 1 else _dependants(seat, member, now)
    records = [
        membership.revoke(
            seat.identity, subject, verb.reason, keeps=not verb.cascade, unix_seconds=now
        )
        for subject in subjects
    ]
    before = {row["id"] for row in list_members(seat, now) if row["role"]}
    await seat.take(records)
    after = {row["id"] for row in list_members(seat, now) if row["role"]}
    return {
        "member": None if member is None else member.hex(),
        "ticket": len(subjects) > 1 or member is None,
        "ticket_kept_for": [other.id for other in dependants],
        "reason": verb.reason,
        "shut_out": sorted(str(id) for id in before - after),
    }


def _lonely_ticket(seat: Seat, member: bytes, now: float) -> list[bytes]:
    """The ticket that a member came with, unless another member depends on it.

    With that ticket it could come back under a new key.
    """
    met = seat.book.get(member.hex())
    if met is None or not met.ticket or _dependants(seat, member, now):
        return []
    return [bytes.fromhex(met.ticket)]


def _dependants(seat: Seat, member: bytes, now: float) -> list[Met]:
    """Members that are let in by nothing but the ticket that this one came with, too."""
    met = seat.book.get(member.hex())
    ledger = seat.membership.ledger(now)
    if met is None or not met.ticket or ledger.revocations_of(bytes.fromhex(met.ticket)):
        return []
    others = [other for other in seat.book if other.ticket == met.ticket and other.id != met.id]
    return [other for other in others if _rests_on_ticket(ledger, bytes.fromhex(other.id))]


def _rests_on_ticket(ledger: Ledger, id: bytes) -> bool:
    """Whether no grant names this member; one that was shut out rests on nothing."""
    return not ledger.grants_to(id) and ledger.judge(id).revocation is None


def list_members(seat: Seat, now: float) -> list[dict[str, object]]:
    """A row for everybody known, connected ones first, those that were shut out last.

    What was revoked and is not `is_known` is a ticket, or a node that was never met here.
    """
    membership, book = seat.membership, {met.id: met for met in seat.book}
    ledger = membership.ledger(now)
    own = seat.identity.public_key
    ids = {own, *ledger.founders, *(bytes.fromhex(id) for id in book)}
    ids |= {grant.member for grant in ledger.grants if grant.member is not None}
    digests = {bytes.fromhex(met.ticket) for met in book.values() if met.ticket}
    if membership.grant is not None:
        digests.add(membership.grant.digest)
    revoked = {item.subject for item in ledger.revocations} - digests - ids
    present = seat.present()
    rows = [
        {
            **_row(seat, id, book.get(id.hex()), present.get(id.hex()), now),
            "is_known": id not in revoked,
        }
        for id in ids | revoked
    ]

    def place(row: Mapping[str, object]) -> tuple[bool, bool, bool, str, str]:
        is_away = not (row["is_self"] or row["connected"])
        return bool(row["banned"]), not row["is_self"], is_away, str(row["name"]), str(row["id"])

    return sorted(rows, key=place)


def _row(
    seat: Seat, id: bytes, met: Met | None, presence: Presence | None, now: float
) -> dict[str, object]:
    membership, is_self = seat.membership, id == seat.identity.public_key
    verdict = membership.judge(id, membership.grant if is_self else None, now)
    role = "" if verdict.role is None else verdict.role.value
    expiry = verdict.expiry
    if not role and verdict.revocation is None and met is not None:
        ended = membership.ledger(now).ended(id)
        if ended is None or met.seen > ended + LOOK_SECONDS:
            role = met.role  # by a ticket that only it can show
        else:
            expiry = ended
    banned = None
    if not role and (revocation := verdict.revocation) is not None:
        banned = {
            "reason": revocation.reason,
            "by": revocation.issuer.hex(),
            "unix_seconds": revocation.unix_seconds,
        }
    name = seat.name if is_self else "" if met is None else met.name
    return {
        "id": id.hex(),
        "name": name,
        "role": role,
        "is_founder": id in membership.founders,
        "is_self": is_self,
        "since": None if met is None else met.since,
        "seen": now if presence is not None else None if met is None else met.seen,
        "expiry": expiry,
        "connected": presence is not None,
        "address": "" if presence is None else presence.address,
        "reach": "" if presence is None else presence.reach,
        "banned": banned,
    }


def _describe(seat: Seat, verb: MeshInfo, now: float) -> Result:
    membership = seat.membership
    rows = list_members(seat, now)
    own = next(row for row in rows if row["is_self"])
    info: dict[str, object] = {
        "mesh": membership.name,
        "is_open": membership.is_open,
        "is_encrypted": membership.is_encrypted,
        "reads": not membership.is_encrypted or membership.data_key is not None,
        "id": own["id"],
        "role": own["role"],
        "expiry": own["expiry"],
        "trouble": seat.trouble,
        "admins": [
            {"id": row["id"], "name": row["name"], "is_founder": row["is_founder"]}
            for row in rows
            if row["role"] == Role.ADMIN.value
        ],
        "members": sum(bool(row["role"]) for row in rows),
        "connected": sum(bool(row["connected"]) for row in rows),
        "banned": sum(bool(row["banned"]) for row in rows),
    }
    if verb.secrets:
        key = membership.data_key
        info["data_key"] = None if key is None else key.hex()
    return info


def _read_role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        roles = ", ".join(role.value for role in reversed(Role))
        raise VerbError(ExitCode.USAGE, f"--role {text!r} is none of {roles}") from None


def _read_ticket(membership: Membership, text: str) -> Grant:
    try:
        ticket = Ticket.read(text)
    except BadTicket as error:
        raise VerbError(ExitCode.USAGE, str(error)) from error
    if (ticket.mesh_name, ticket.secret) != (membership.name, membership.secret):
        raise VerbError(
            ExitCode.USAGE, f"that ticket is of the mesh {ticket.mesh_name!r}, not of this one"
        )
    if ticket.grant is None:
        raise VerbError(ExitCode.USAGE, "that ticket grants nothing, so nothing can be revoked")
    return ticket.grant


def _find(seat: Seat, text: str, now: float) -> bytes:
    """The member meant by an id, the beginning of one, or a name.

    Raises: VerbError.
    """
    try:
        return decode_id(text)
    except ValueError:
        pass
    rows = list_members(seat, now)
    found = {str(row["id"]) for row in rows if row["name"] == text}
    if len(text) >= MIN_PREFIX:
        found |= {str(row["id"]) for row in rows if str(row["id"]).startswith(text.lower())}
    if len(found) != 1:
        what = "several members have" if found else "no member has"
        raise VerbError(
            ExitCode.NOT_FOUND,
            f"{what} the name {text!r} or an id that begins so: try `beemesh members --json`",
        )
    return bytes.fromhex(found.pop())
