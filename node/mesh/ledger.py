"""Who may do what in a mesh: what its admins signed, weighed against one another.

Founders are admins of rank 0. A grant of the role admin *to a named member* makes an admin whose
rank is one more than that of its signer. Everything follows from the set of records alone, so
all who have the same set judge alike, in whatever order it came and whatever their clocks say;
clocks end grants that have an expiry, and nothing else.

* A revocation counts if an admin signed it. An admin is revoked by one of a smaller rank, a
  founder by nobody (a mesh whose founder's key has leaked is left for a new one). So two admins
  cannot shut each other out, and a stolen key never reaches those who made it an admin.
* A revocation beats every grant but those that *pardon* it: they name it, so they were made
  later, by an admin of no greater rank than the one that revoked.
* What a revoked admin signed is void, lest whoever has its key signs more, dated back. What was
  known and meant to stay is named by the revocation: `kept`.
* What an admin whose own grant has expired signed has expired with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property

from hypercore.crypto import blake2b
from node.mesh.ticket import Grant, Record, Revocation, Role

MAX_RECORDS = 16_384
"""Records kept of one mesh (about 4 MB): a grant a member, and what was revoked."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """An admin by this grant, or a former one: then only those of its records `kept` count."""

    rank: int
    grant: Grant | None = None
    kept: frozenset[bytes] | None = None

    def vouches_for(self, record: Record) -> bool:
        return self.kept is None or record.digest in self.kept


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a member may do: with `role` None nothing, and `revocation` says who wanted it so.

    `grant` is the one that counts; a founder has none.
    """

    role: Role | None
    grant: Grant | None = None
    revocation: Revocation | None = None

    @property
    def expiry(self) -> int | None:
        return None if self.grant is None else self.grant.expiry


class Ledger:
    """The records of a mesh, judged at one time. Immutable; `taking` gives the next one.

    Records are trusted to be signed: `taking` lets in no others.
    """

    def __init__(
        self,
        founders: Collection[bytes],
        grants: Iterable[Grant] = (),
        revocations: Iterable[Revocation] = (),
        unix_seconds: float = 0,
    ) -> None:
        self.founders = frozenset(founders)
        self.grants = frozenset(grants)
        self.revocations = frozenset(revocations)
        self.unix_seconds = unix_seconds
        self._by_member: dict[bytes | None, list[Grant]] = {}
        for grant in self.grants:
            self._by_member.setdefault(grant.member, []).append(grant)
        self._against: dict[bytes, list[Revocation]] = {}
        self._standings: dict[bytes, _Standing] = {}
        self._offices: set[bytes] = set()  # digests of the grants that admins are admins by
        self._weigh()

    @cached_property
    def records(self) -> frozenset[Record]:
        return self.grants | self.revocations

    @property
    def admins(self) -> Mapping[bytes, int]:
        """Ranks of those who are admins now."""
        standings = self._standings.items()
        return {key: standing.rank for key, standing in standings if standing.kept is None}

    def is_admin(self, member: bytes) -> bool:
        standing = self._standings.get(member)
        return standing is not None and standing.kept is None

    def is_over(self, member: bytes) -> bool:
        """Whether a member was made an admin, and its time, or that of its maker, is over."""
        return member in self._about_admins and member not in self._standings

    @cached_property
    def in_force(self) -> Mapping[bytes, Record]:
        """Records that an admin stands for, by digest: those that members tell one another."""
        counting = {record.digest: record for record in self.records if self._counts(record)}
        return dict(sorted(counting.items()))  # sorting what comes behind these is cheap

    @cached_property
    def summary(self) -> bytes:
        """A digest that is equal where the same records are in force."""
        return blake2b(b"".join(sorted(self.in_force)))

    def judge(self, member: bytes, shown: Grant | None = None) -> Verdict:
        """The most that a grant lets a member do: one that is here, or the one it has `shown`.

        `shown` is trusted to be signed.
        """
        if self.is_admin(member):
            return Verdict(Role.ADMIN, self._standings[member].grant)
        grant, against = self._best(member, shown)
        if grant is not None:
            return Verdict(grant.role, grant)
        if not against and shown is not None:
            against = self._against.get(shown.digest, [])
        return Verdict(None, None, next(iter(sorted(against, key=_by_age)), None))

    def counts(self, grant: Grant) -> bool:
        """Whether a grant lets in the member that it is for, as far as it alone decides."""
        return self._is_good(grant, self._against.get(grant.member or b"", []))

    def admits(self, grant: Grant) -> bool:
        """Whether an admin stands for a grant that is not over, taken back or used up."""
        if not self._is_meant(grant) or self._against.get(grant.digest):
            return False
        return not grant.uses or self._uses_of(grant) < grant.uses

    def _uses_of(self, ticket: Grant) -> int:
        serial = ticket.use_serial
        return sum(grant.serial == serial for grant in self.grants)

    def revocations_of(self, subject: bytes) -> list[Revocation]:
        """Revocations of a member or grant that count, the oldest first; pardoned ones, too."""
        return sorted(self._against.get(subject, ()), key=_by_age)

    def grants_to(self, member: bytes | None) -> list[Grant]:
        """Grants to a member, or with None to bearers, that let it in."""
        return [grant for grant in self._by_member.get(member, ()) if self.counts(grant)]

    def ended(self, member: bytes) -> int | None:
        """When the last of a member's expired grants ran out; None if none has expired."""
        ends = [grant.expiry for grant in self._by_member.get(member, ()) if grant.expiry]
        return max((end for end in ends if end <= self.unix_seconds), default=None)

    def signed_by(self, admin: bytes) -> list[Record]:
        return [record for record in self.in_force.values() if record.issuer == admin]

    def chain_to(self, admin: bytes) -> tuple[Grant, ...]:
        """The grants that lead from a founder to this admin; none for a founder.

        An admin's grants last no longer than the first of these to expire.
        """
        chain: list[Grant] = []
        while (standing := self._standings.get(admin)) and standing.grant is not None:
            chain.insert(0, standing.grant)
            admin = standing.grant.issuer
        return tuple(chain)

    def next_expiry(self, shown: Iterable[Grant] = ()) -> int | None:
        """When somebody's grant runs out next, of those here and those `shown`."""
        return self._first_to_come([self._first_end, *(grant.expiry for grant in shown)])

    @cached_property
    def _first_end(self) -> int | None:
        """The first expiry to come; the same until then."""
        return self._first_to_come(grant.expiry for grant in self.grants)

    def _first_to_come(self, ends: Iterable[int | None]) -> int | None:
        return min((end for end in ends if end and end > self.unix_seconds), default=None)

    def at(self, unix_seconds: float) -> Ledger:
        """The same records, judged at another time."""
        if unix_seconds == self.unix_seconds:
            return self
        expiry = self.next_expiry()
        if self.unix_seconds <= unix_seconds and (expiry is None or unix_seconds < expiry):
            same = copy(self)  # nothing that is here runs out meanwhile: no need to weigh it
            same.unix_seconds = unix_seconds
            return same
        return Ledger(self.founders, self.grants, self.revocations, unix_seconds)

    def taking(self, records: Iterable[Record], mesh_key: bytes) -> Ledger:
        """The ledger with those of the records that an admin signed; itself if none is new.

        When there are too many, records that count for nothing make room; then those here stay,
        and only a revocation, or a grant that makes an admin, takes the place of another grant.

        Raises: ForgedRecord for a record with the name of an admin and not its signature.
        """
        ledger = self
        waiting = {record for record in records if not self.holds(record)}
        while True:
            good = [record for record in waiting if ledger._counts(record)]
            for record in good:
                if not record.is_signed(mesh_key):
                    raise ForgedRecord(record)
            if not good:
                return ledger
            # One round for each link of a chain: a new admin's own records count in the next.
            ledger = ledger._with(good)
            waiting.difference_update(good)  # also those for which there was no room

    def holds(self, record: Record) -> bool:
        """Whether a record is here, be it in force or not."""
        return record in (self.grants if isinstance(record, Grant) else self.revocations)

    def _with(self, added: Collection[Record]) -> Ledger:
        has_room = len(self.grants) + len(self.revocations) + len(added) <= MAX_RECORDS
        if has_room and not any(map(self._is_about_admins, added)):
            return self._with_others(added)
        records = [*self.records, *added]
        if not has_room:
            useful = [record for record in records if self._is_useful(record)]
            records = sorted(useful, key=_by_weight)[:MAX_RECORDS]
        grants = [record for record in records if isinstance(record, Grant)]
        revocations = [record for record in records if isinstance(record, Revocation)]
        return Ledger(self.founders, grants, revocations, self.unix_seconds)

    def _is_about_admins(self, record: Record) -> bool:
        """Whether a record may change who is an admin: then all is weighed anew."""
        if isinstance(record, Grant):
            return record.role is Role.ADMIN
        return record.subject in self.founders or record.subject in self._about_admins

    @cached_property
    def _about_admins(self) -> frozenset[bytes]:
        """Members that somebody made admins, and digests of the grants that did, good or not."""
        offices = [grant for grant in self.grants if grant.role is Role.ADMIN]
        members = {grant.member for grant in offices if grant.member is not None}
        return frozenset(members | {grant.digest for grant in offices})

    def _with_others(self, added: Collection[Record]) -> Ledger:
        """The ledger with more records that count and are not about admins.

        Such a record says something of one member, or of those with one ticket. They come one by
        one, and there may be thousands: what is here is taken over, and not weighed again.
        """
        ledger = copy(self)
        grants = [record for record in added if isinstance(record, Grant)]
        revocations = [record for record in added if isinstance(record, Revocation)]
        ledger._by_member, ledger._against = self._by_member.copy(), self._against.copy()
        for grant in grants:
            ledger._by_member[grant.member] = [*ledger._by_member.get(grant.member, ()), grant]
        for revocation in revocations:
            subject = revocation.subject
            ledger._against[subject] = [*ledger._against.get(subject, ()), revocation]
        if grants:
            ledger.grants = self.grants.union(grants)
        if revocations:
            ledger.revocations = self.revocations.union(revocations)
        for name in ("records", "summary"):
            ledger.__dict__.pop(name, None)  # cached, and out of date
        ledger.in_force = {**self.in_force, **{record.digest: record for record in added}}
        ledger._first_end = self._first_to_come([self._first_end, *(g.expiry for g in grants)])
        return ledger

    def _is_useful(self, record: Record) -> bool:
        is_over = isinstance(record, Grant) and record.expiry and record.expiry <= self.unix_seconds
        return not is_over and self._counts(record)

    def _counts(self, record: Record) -> bool:
        standing = self._standings.get(record.issuer)
        return standing is not None and standing.vouches_for(record)

    def _weigh(self) -> None:
        """Rank by rank: who is an admin, and whose revocations count."""
        by_issuer: dict[bytes, list[Revocation]] = {}
        for revocation in self.revocations:
            by_issuer.setdefault(revocation.issuer, []).append(revocation)
        rank = 0
        level = {founder: _Standing(0) for founder in self.founders}
        while level:
            self._standings.update(level)
            self._offices.update(item.grant.digest for item in level.values() if item.grant)
            for issuer, standing in level.items():
                for revocation in by_issuer.get(issuer, ()):
                    if standing.vouches_for(revocation):
                        self._note(revocation)
            rank += 1
            level = dict(self._appointed(rank, level))

    def _note(self, revocation: Revocation) -> None:
        subject = revocation.subject
        if subject in self._offices or self.is_admin(subject):
            return  # the subject is an admin of the same rank, or a smaller one
        self._against.setdefault(subject, []).append(revocation)

    def _appointed(
        self, rank: int, issuers: Collection[bytes]
    ) -> Iterator[tuple[bytes, _Standing]]:
        """Members that these made admins, even if that was taken back."""
        for member, grants in self._by_member.items():
            if member is None or member in self._standings:
                continue
            offices = [
                grant
                for grant in grants
                if grant.role is Role.ADMIN
                and not grant.uses  # what counts for nobody makes nobody an admin
                and grant.issuer in issuers
                and self._is_meant(grant)
            ]
            if not offices:
                continue
            against = self._against.get(member, [])
            good = [grant for grant in offices if self._is_good(grant, against)]
            if good:
                yield member, _Standing(rank, min(good, key=_by_role))
                continue
            objections = [*against]
            for grant in offices:
                objections += self._against.get(grant.digest, ())
            kept = frozenset.intersection(*(frozenset(item.kept) for item in objections))
            yield member, _Standing(rank, None, kept)

    def _best(
        self, member: bytes, shown: Grant | None
    ) -> tuple[Grant | None, Collection[Revocation]]:
        grants = list(self._by_member.get(member, ()))
        if shown is not None and shown.member in (None, member):
            grants.append(shown)
        against = self._against.get(member, [])
        good = [grant for grant in grants if self._is_good(grant, against)]
        if len(good) < 2:  # nearly always: no need to say which is better
            return (good[0] if good else None), against
        return min(good, key=_by_role), against

    def _is_meant(self, grant: Grant) -> bool:
        """Whether an admin stands for a grant whose time is not over."""
        if grant.role is Role.ADMIN and grant.member is None:
            return False  # admins are known by name
        in_time = grant.expiry is None or self.unix_seconds < grant.expiry
        return in_time and self._counts(grant)

    def _is_good(self, grant: Grant, against: Collection[Revocation]) -> bool:
        """Whether a grant counts, in spite of what was said against its member."""
        if grant.uses or not self.admits(grant):
            return False  # a member that used one has a grant of its own
        rank = self._standings[grant.issuer].rank
        return all(
            revocation.digest in grant.pardoned and rank <= self._standings[revocation.issuer].rank
            for revocation in against
        )


class ForgedRecord(Exception):
    """A record that claims to be an admin's and is not: whoever passes it on lies."""

    def __init__(self, record: Record) -> None:
        super().__init__(f"a record that {record.issuer.hex()[:12]} has not signed")
        self.record = record


def _by_role(grant: Grant) -> tuple[int, float, bytes]:
    """The most powerful first, then what lasts longest."""
    expiry = float("inf") if grant.expiry is None else grant.expiry
    return list(Role).index(grant.role), -expiry, grant.digest


def _by_weight(record: Record) -> int:
    """What others depend on first: whoever was shut out stays out, and admins' records count."""
    if isinstance(record, Revocation):
        return 0
    return 1 if record.role is Role.ADMIN else 2


def _by_age(revocation: Revocation) -> tuple[int, bytes]:
    return revocation.unix_seconds, revocation.digest
