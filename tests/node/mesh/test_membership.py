from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import blake2b
from node.errors import ConfigError
from node.mesh.membership import (
    Membership,
    format_membership,
    load_membership,
    parse_membership,
    save_membership,
)
from node.mesh.mesh_key import hello_proof, is_hello_proof
from node.mesh.ticket import Grant, Revocation, Role, is_mesh_name
from tests.node.mesh import samples
from tests.node.mesh.samples import ADMIN, MEMBER, STRANGER

memberships = st.builds(
    Membership,
    st.text(min_size=1, max_size=64).filter(is_mesh_name),
    st.binary(max_size=64),
    st.none() | samples.grants,
    st.frozensets(samples.key_bytes, max_size=3),
    st.lists(
        st.builds(
            Revocation,
            samples.key_bytes,
            samples.counts,
            samples.key_bytes,
            st.binary(min_size=64, max_size=64),
        ),
        max_size=2,
    ).map(tuple),
)


def founded() -> Membership:
    return Membership.found("bees", ADMIN.public_key, lambda size: b"s" * size)


def test_the_key_depends_on_name_and_secret_and_where_one_ends() -> None:
    keys = {
        Membership(name, secret).key
        for name, secret in [("ab", b"c"), ("a", b"bc"), ("abc", b""), ("ab", b"d")]
    }
    assert len(keys) == 4


def test_derivations_are_those_of_the_table() -> None:
    membership = Membership("bees", b"secret")
    key = blake2b(b"beemesh/1 mesh\x04\0\0\0\0\0\0\0beessecret")
    assert membership.key == key
    assert membership.topic == blake2b(b"topic", key=key)
    assert hello_proof(key, True, b"hash") == blake2b(b"hello\x00hash", key=key)
    assert hello_proof(key, False, b"hash") == blake2b(b"hello\x01hash", key=key)


def test_a_proof_serves_one_side_of_one_connection_of_one_mesh() -> None:
    key = founded().key
    proof = hello_proof(key, True, b"hash")
    assert is_hello_proof(proof, key, True, b"hash")
    assert not is_hello_proof(proof, key, False, b"hash")
    assert not is_hello_proof(proof, key, True, b"other")
    assert not is_hello_proof(proof, bytes(32), True, b"hash")


def test_from_founder_to_the_guest_of_a_guest() -> None:
    founder = founded()
    ticket = founder.invite(ADMIN, ["127.0.0.1:1"])
    guest = Membership.join(ticket)
    assert (guest.key, guest.topic) == (founder.key, founder.topic)
    assert guest.grant is not None
    passed_on = guest.invite(MEMBER)
    assert passed_on.node_id == MEMBER.public_key
    second = Membership.join(passed_on)
    for judge in (founder, guest, second):
        assert judge.role_of(ADMIN.public_key, None, 0) is Role.ADMIN
        assert judge.role_of(STRANGER.public_key, second.grant, 0) is Role.WRITER


def test_a_grant_for_one_member_is_not_passed_on() -> None:
    founder = founded()
    grant = Grant.issue(founder.key, ADMIN, Role.READER, member=MEMBER.public_key)
    guest = Membership("bees", founder.secret, grant, founder.admins)
    assert guest.invite(MEMBER).grant is None


def test_grants_that_do_not_count_shut_out() -> None:
    founder = founded()
    key, member = founder.key, MEMBER.public_key
    assert founder.role_of(member, Grant.issue(key, ADMIN, Role.READER), 0) is Role.READER
    for grant in (
        Grant.issue(key, STRANGER, Role.WRITER),
        Grant.issue(key, ADMIN, Role.WRITER, expiry=10),
        Grant.issue(key, ADMIN, Role.WRITER, member=STRANGER.public_key),
        Grant.issue(bytes(32), ADMIN, Role.WRITER),
    ):
        assert founder.role_of(member, grant, 10) is None


def test_revocations_by_admins_shut_out_members_and_grants() -> None:
    founder = founded()
    grant = Grant.issue(founder.key, ADMIN, Role.WRITER)
    member = MEMBER.public_key
    forged = Revocation.issue(founder.key, STRANGER, member, 1)
    assert founder.with_revocation(forged) is founder
    without_grant = founder.with_revocation(Revocation.issue(founder.key, ADMIN, grant.digest, 1))
    assert without_grant.role_of(member, grant, 0) is None
    assert without_grant.role_of(member, None, 0) is Role.WRITER
    revocation = Revocation.issue(founder.key, ADMIN, member, 1)
    without_member = founder.with_revocation(revocation)
    assert without_member.role_of(member, None, 0) is None
    assert without_member.with_revocation(revocation) is without_member


def test_an_open_mesh_lets_everybody_write() -> None:
    mesh = Membership.open_mesh("demo")
    assert mesh.is_open
    assert not founded().is_open
    assert mesh.role_of(STRANGER.public_key, None, 0) is Role.WRITER


@given(memberships)
def test_the_file_round_trips(membership: Membership) -> None:
    assert parse_membership(format_membership(membership)) == membership


@given(st.text(max_size=100))
def test_any_text_gives_a_membership_or_the_one_error(text: str) -> None:
    try:
        parse_membership(text)
    except ConfigError:
        return


@pytest.mark.parametrize(
    "text",
    [
        'secret = ""',
        'name = "a"',
        'name = 1\nsecret = ""',
        'name = "a"\nsecret = 1',
        'name = "a"\nsecret = "0"',
        'name = "a"\nsecret = ""\nadmins = "x"',
        'name = "a"\nsecret = ""\nadmins = ["x"]',
        'name = "a"\nsecret = ""\ngrant = "yy"',
    ],
)
def test_damaged_files(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_membership(text)


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "mesh.toml"
    assert load_membership(path) is None
    save_membership(path, founded())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_membership(path) == founded()
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError):
        load_membership(path)
