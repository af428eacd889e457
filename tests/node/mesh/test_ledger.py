"""Who may do what, for every order in which records come."""

from __future__ import annotations

import random

import pytest

from hypercore.crypto import KeyPair
from node.mesh.fields import Field, pack_fields
from node.mesh.ledger import ForgedRecord, Ledger
from node.mesh.membership import Membership
from node.mesh.ticket import Grant, Record, Revocation, Role
from tests.node.mesh.samples import MESH_KEY

FOUNDER, ANN, BOB, CARL, DAN = (KeyPair.from_seed(bytes((number,)) * 32) for number in range(1, 6))


def grant(issuer: KeyPair, member: KeyPair, role: Role, expiry: int | None = None) -> Grant:
    return Grant.issue(MESH_KEY, issuer, role, member=member.public_key, expiry=expiry)


def pardon(issuer: KeyPair, member: KeyPair, role: Role, *revocations: Revocation) -> Grant:
    digests = tuple(revocation.digest for revocation in revocations)
    return Grant.issue(MESH_KEY, issuer, role, member=member.public_key, pardoned=digests)


def revocation(issuer: KeyPair, subject: bytes | KeyPair, *kept: Record) -> Revocation:
    key = subject if isinstance(subject, bytes) else subject.public_key
    digests = tuple(record.digest for record in kept)
    return Revocation.issue(MESH_KEY, issuer, key, 1, "", digests)


def ledger(*records: Record, at: float = 0) -> Ledger:
    return Ledger({FOUNDER.public_key}, unix_seconds=at).taking(records, MESH_KEY)


def role(of: Ledger, member: KeyPair) -> Role | None:
    return of.judge(member.public_key).role


ANN_ADMIN = grant(FOUNDER, ANN, Role.ADMIN)
BOB_ADMIN = grant(ANN, BOB, Role.ADMIN)
CARL_WRITER = grant(BOB, CARL, Role.WRITER)


def test_a_chain_of_admins() -> None:
    whole = ledger(CARL_WRITER, BOB_ADMIN, ANN_ADMIN)
    ranks = {FOUNDER.public_key: 0, ANN.public_key: 1, BOB.public_key: 2}
    assert dict(whole.admins) == ranks
    assert whole.chain_to(BOB.public_key) == (ANN_ADMIN, BOB_ADMIN)
    assert (role(whole, CARL), role(whole, DAN)) == (Role.WRITER, None)
    assert not ledger(CARL_WRITER, BOB_ADMIN).records  # nobody knows these signers


def test_the_order_in_which_records_come_changes_nothing() -> None:
    against_bob = revocation(FOUNDER, BOB, CARL_WRITER)
    records: list[Record] = [
        ANN_ADMIN,
        BOB_ADMIN,
        CARL_WRITER,
        against_bob,
        revocation(ANN, CARL),
        pardon(FOUNDER, BOB, Role.READER, against_bob),
        grant(BOB, DAN, Role.WRITER),
    ]
    seen = set()
    for seed in range(150):
        one_by_one = Ledger({FOUNDER.public_key})
        for _ in range(3):  # each time one more link of the chain is known
            for record in random.Random(seed).sample(records, len(records)):
                one_by_one = one_by_one.taking([record], MESH_KEY)
        roles = tuple(role(one_by_one, member) for member in (ANN, BOB, CARL, DAN))
        seen.add((roles, one_by_one.summary))
    assert len(seen) == 1
    assert seen.pop()[0] == (Role.ADMIN, Role.READER, None, None)


def test_a_revoked_admin_takes_what_it_signed_along_but_for_what_is_kept() -> None:
    dan_writer = grant(BOB, DAN, Role.WRITER)
    against_dan = revocation(BOB, DAN)
    known = ledger(ANN_ADMIN, BOB_ADMIN, CARL_WRITER, dan_writer)
    assert role(known.taking([revocation(ANN, BOB)], MESH_KEY), CARL) is None
    kept = known.taking([revocation(ANN, BOB, CARL_WRITER)], MESH_KEY)
    assert [role(kept, member) for member in (BOB, CARL, DAN)] == [None, Role.WRITER, None]
    # What it signs from now on, or says it has signed before, does not count.
    later = kept.taking([grant(BOB, DAN, Role.ADMIN), against_dan], MESH_KEY)
    assert later is kept


def test_whom_a_revoked_admin_had_shut_out_stays_out_if_that_is_kept() -> None:
    against_carl = revocation(ANN, CARL)
    carl_writer = grant(FOUNDER, CARL, Role.WRITER)
    known = ledger(ANN_ADMIN, carl_writer, against_carl)
    assert role(known.taking([revocation(FOUNDER, ANN, against_carl)], MESH_KEY), CARL) is None
    dropped = known.taking([revocation(FOUNDER, ANN)], MESH_KEY)
    assert role(dropped, CARL) is Role.WRITER


def test_nobody_revokes_who_is_as_near_to_the_founder() -> None:
    carl_admin = grant(FOUNDER, CARL, Role.ADMIN)
    for record in (
        revocation(ANN, FOUNDER),
        revocation(ANN, CARL),
        revocation(ANN, carl_admin.digest),
        revocation(BOB, ANN),
    ):
        after = ledger(ANN_ADMIN, BOB_ADMIN, carl_admin, record)
        assert len(after.admins) == 4
    for subject in (BOB, BOB_ADMIN.digest):
        after = ledger(ANN_ADMIN, BOB_ADMIN, carl_admin, revocation(CARL, subject))
        assert role(after, BOB) is None


def test_only_a_grant_that_names_the_revocation_undoes_it() -> None:
    first, second = revocation(FOUNDER, CARL), revocation(ANN, CARL)
    writer = grant(FOUNDER, CARL, Role.WRITER)
    known = ledger(ANN_ADMIN, writer, first, second)
    for record, expected in (
        (pardon(FOUNDER, CARL, Role.READER, first), None),
        (pardon(ANN, CARL, Role.READER, first, second), None),  # the founder's is not Ann's to undo
        (pardon(FOUNDER, CARL, Role.READER, first, second), Role.READER),
    ):
        assert role(known.taking([record], MESH_KEY), CARL) is expected
    assert known.judge(CARL.public_key).revocation in (first, second)


def test_grants_end_and_with_an_admins_what_it_signed() -> None:
    ann = grant(FOUNDER, ANN, Role.ADMIN, expiry=100)
    carl = grant(ANN, CARL, Role.WRITER, expiry=50)
    dan = grant(ANN, DAN, Role.WRITER)
    known = ledger(ann, carl, dan, at=10)
    assert known.next_expiry() == 50
    for time, expected in (
        (49, [Role.ADMIN, Role.WRITER, Role.WRITER]),
        (50, [Role.ADMIN, None, Role.WRITER]),
        (100, [None, None, None]),
        (10, [Role.ADMIN, Role.WRITER, Role.WRITER]),  # a clock that was set back
    ):
        known = known.at(time)
        assert [role(known, member) for member in (ANN, CARL, DAN)] == expected


def test_a_bearer_is_no_admin_and_a_shown_grant_counts_like_a_known_one() -> None:
    known = ledger(ANN_ADMIN)
    for shown, expected in (
        (Grant.issue(MESH_KEY, ANN, Role.READER), Role.READER),
        (Grant.issue(MESH_KEY, ANN, Role.ADMIN), None),
        (Grant.issue(MESH_KEY, CARL, Role.READER), None),
        (grant(ANN, CARL, Role.WRITER), None),
        (grant(ANN, DAN, Role.WRITER), Role.WRITER),
    ):
        assert known.judge(DAN.public_key, shown).role is expected


def test_the_best_of_several_grants_counts() -> None:
    known = ledger(grant(FOUNDER, DAN, Role.READER), grant(FOUNDER, DAN, Role.WRITER))
    assert role(known, DAN) is Role.WRITER


def test_a_forged_record_is_told_apart() -> None:
    forged = Revocation(DAN.public_key, 1, FOUNDER.public_key, bytes(64))
    with pytest.raises(ForgedRecord):
        ledger(forged)


def test_two_that_tell_each_other_what_is_in_force_agree() -> None:
    """Random records, random halves of them: once exchanged, both judge alike."""
    people = (FOUNDER, ANN, BOB, CARL, DAN)
    for seed in range(60):
        chance = random.Random(seed)
        records: list[Record] = [ANN_ADMIN, BOB_ADMIN]
        for _ in range(10):
            issuer, member = chance.choice(people), chance.choice(people)
            if chance.random() < 0.6:
                made = [record for record in records if isinstance(record, Revocation)]
                pardoned = chance.sample(made, min(len(made), chance.randrange(3)))
                records.append(pardon(issuer, member, chance.choice(list(Role)), *pardoned))
            else:
                kept = chance.sample(records, chance.randrange(3))
                records.append(revocation(issuer, member, *kept))
        halves = [ledger(*(item for item in records if chance.random() < 0.6)) for _ in range(2)]
        for _ in range(8):
            if halves[0].summary == halves[1].summary:
                break
            sent = [half.in_force.values() for half in halves]
            halves = [
                half.taking(other, MESH_KEY)
                for half, other in zip(halves, reversed(sent), strict=True)
            ]
        assert halves[0].summary == halves[1].summary, seed
        for person in people:
            assert role(halves[0], person) == role(halves[1], person), seed


def test_an_office_that_is_to_be_used_up_is_none() -> None:
    """Found in review: an admin that signed such a grant ended every node that heard of it."""
    odd = Grant.issue(MESH_KEY, FOUNDER, Role.ADMIN, member=ANN.public_key, uses=1)
    assert not ledger(odd).is_admin(ANN.public_key)
    assert role(ledger(odd), ANN) is None
    assert role(ledger(odd, ANN_ADMIN), ANN) is Role.ADMIN


_PEOPLE = (FOUNDER, ANN, BOB, CARL)


def any_record(choice: random.Random, earlier: list[Record]) -> Record:
    """Whatever one of them may sign, wise or not."""
    issuer, subject = choice.choice(_PEOPLE), choice.choice(_PEOPLE)
    named = tuple(record.digest for record in choice.sample(earlier, min(len(earlier), 2)))
    if choice.random() < 0.4:
        target = choice.choice([subject.public_key, *named])
        return Revocation.issue(MESH_KEY, issuer, target, choice.randrange(9), "", named)
    return Grant.issue(
        MESH_KEY,
        issuer,
        choice.choice([Role.ADMIN, *Role]),
        member=choice.choice([None, subject.public_key, subject.public_key]),
        expiry=choice.choice([None, None, 0, 5, 50]),
        serial=choice.choice([0, 7]),
        pardoned=named if choice.random() < 0.5 else (),
        uses=choice.choice([0, 0, 1]),
    )


@pytest.mark.parametrize("seed", range(40))
def test_no_records_are_too_odd_to_be_judged(seed: int) -> None:
    choice = random.Random(seed)
    records: list[Record] = []
    for _ in range(25):
        records.append(any_record(choice, records))
    whole = ledger(*records, at=3)
    for at in (3, 10, 100):
        later = whole.at(at)
        for member in _PEOPLE:
            for shown in (None, *(item for item in records if isinstance(item, Grant))):
                assert later.judge(member.public_key, shown).role in {None, *Role}
        assert later.is_admin(FOUNDER.public_key)
        assert len(later.chain_to(BOB.public_key)) <= len(_PEOPLE)


@pytest.mark.parametrize("seed", range(40))
def test_what_comes_one_by_one_is_judged_like_what_is_read_from_a_file(seed: int) -> None:
    choice = random.Random(seed)
    records: list[Record] = []
    grown = ledger(at=3)
    for _ in range(40):
        record = any_record(choice, records)
        records.append(record)
        # What was asked for is not to be said of the next one.
        assert (len(grown.summary), grown.next_expiry() in {None, 5, 50}) == (32, True)
        grown = grown.taking([record], MESH_KEY)
    read = Ledger(grown.founders, grown.grants, grown.revocations, 3)
    for at in (3, 10, 100):
        one, other = grown.at(at), read.at(at)
        assert one.records == other.records
        assert dict(one.in_force) == dict(other.in_force)
        assert one.summary == other.summary
        assert dict(one.admins) == dict(other.admins)
        assert one.next_expiry() == other.next_expiry()
        for person in (*_PEOPLE, DAN):
            key = person.public_key
            assert one.ended(key) == other.ended(key)
            assert one.revocations_of(key) == other.revocations_of(key)
            assert set(one.grants_to(key)) == set(other.grants_to(key))
            assert set(one.signed_by(key)) == set(other.signed_by(key))
            for shown in (None, *other.grants):
                assert one.judge(key, shown) == other.judge(key, shown)


def test_a_record_of_one_member_costs_little_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mesh of 16,000 took 0.2 seconds for each that came, and 0.1 for each that was met."""
    mesh = Membership("bees", b"secret", founders=frozenset({FOUNDER.public_key}))
    members = [index.to_bytes(32, "big") for index in range(1, 203)]
    first, second, *many = (
        Grant.issue(mesh.key, FOUNDER, Role.WRITER, member=member) for member in members
    )
    packed = 0

    def counting(*fields: Field) -> bytes:
        nonlocal packed
        packed += 1
        return pack_fields(*fields)

    whole = mesh.taking([*many, first], 1)
    assert whole.ledger(1).summary
    monkeypatch.setattr("node.mesh.ticket.pack_fields", counting)
    more = whole.taking([second], 1)
    assert more.ledger(1).summary != whole.ledger(1).summary
    shut_out = more.taking([more.revoke(FOUNDER, members[1], unix_seconds=1)], 1)
    assert shut_out.ledger(1).summary != more.ledger(1).summary
    assert packed <= 20
    roles = [shut_out.role_of(member, None, 1) for member in members[:2]]
    assert roles == [Role.WRITER, None]


@pytest.mark.parametrize("expiry", [None, 5])
def test_what_comes_when_the_ledger_is_full_is_left_out_or_takes_the_place_of_less(
    monkeypatch: pytest.MonkeyPatch, expiry: int | None
) -> None:
    monkeypatch.setattr("node.mesh.ledger.MAX_RECORDS", 2)
    full = ledger(ANN_ADMIN, grant(FOUNDER, BOB, Role.WRITER), at=10)
    more = full.taking([grant(FOUNDER, CARL, Role.WRITER, expiry)], MESH_KEY)
    assert more.records == full.records
    shut_out = more.taking([revocation(FOUNDER, DAN)], MESH_KEY)
    assert shut_out.judge(DAN.public_key, grant(FOUNDER, DAN, Role.READER)).revocation is not None
    assert (role(shut_out, ANN), role(shut_out, BOB)) == (Role.ADMIN, None)
