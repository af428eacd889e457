from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import blake2b, z_base_32_encode
from node.errors import ConfigError
from node.mesh.ledger import ForgedRecord
from node.mesh.membership import Membership, NotAllowed
from node.mesh.membership_file import (
    MembershipText,
    format_membership,
    load_membership,
    parse_membership,
    save_membership,
)
from node.mesh.mesh_key import hello_proof, is_hello_proof
from node.mesh.ticket import Grant, Revocation, Role, Ticket, is_mesh_name
from tests.node.mesh import samples
from tests.node.mesh.samples import ADMIN, MEMBER, STRANGER

memberships = st.builds(
    Membership,
    st.text(min_size=1, max_size=64).filter(is_mesh_name),
    st.binary(max_size=64),
    st.none() | samples.grants,
    st.frozensets(samples.key_bytes, max_size=3),
    st.frozensets(samples.grants, max_size=3),
    st.frozensets(samples.revocations, max_size=3),
    st.booleans(),
    st.binary(max_size=64),
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
    guest = Membership("bees", founder.secret, grant, founder.founders)
    with pytest.raises(NotAllowed, match="for it alone"):
        guest.invite(MEMBER)


def test_who_is_no_admin_passes_on_what_it_has_and_nothing_else() -> None:
    founder = founded()
    guest = Membership.join(founder.invite(ADMIN, role=Role.READER, expiry=100))
    passed_on = guest.invite(MEMBER, unix_seconds=99)
    assert passed_on.grant == guest.grant
    assert Membership.join(passed_on).role_of(STRANGER.public_key, passed_on.grant, 99) is (
        Role.READER
    )
    with pytest.raises(NotAllowed, match="only an admin"):
        guest.invite(MEMBER, role=Role.WRITER)
    with pytest.raises(NotAllowed):
        guest.invite(MEMBER, unix_seconds=100)
    with pytest.raises(NotAllowed, match="only an admin"):
        guest.revoke(MEMBER, STRANGER.public_key, unix_seconds=1)


def test_an_admin_made_later_invites_with_what_proves_it() -> None:
    founder = founded()
    ticket = founder.invite(ADMIN, role=Role.ADMIN, member=MEMBER.public_key, expiry=100)
    second = Membership.join(ticket)
    assert second.role_of(MEMBER.public_key, ticket.grant, 0) is Role.ADMIN
    invitation = Ticket.decode(second.invite(MEMBER, expiry=200).encode())
    assert invitation.grant is not None
    assert invitation.grant.expiry == 100  # not after what made it an admin
    assert (invitation.founders, invitation.chain) == ((ADMIN.public_key,), (ticket.grant,))
    guest = Membership.join(invitation)
    assert guest.founders == founder.founders
    assert guest.role_of(STRANGER.public_key, guest.grant, 99) is Role.WRITER
    assert guest.role_of(STRANGER.public_key, guest.grant, 100) is None
    # The founder knows nothing of the second admin until it is shown the chain.
    assert founder.role_of(STRANGER.public_key, guest.grant, 0) is None
    told = founder.taking(invitation.chain)
    assert told.role_of(STRANGER.public_key, guest.grant, 0) is Role.WRITER


def test_what_an_admin_must_not_ask_for() -> None:
    founder = founded()
    with pytest.raises(NotAllowed, match="--for"):
        founder.invite(ADMIN, role=Role.ADMIN)
    with pytest.raises(NotAllowed, match="not encrypted"):
        founder.invite(ADMIN, role=Role.BLIND)
    with pytest.raises(NotAllowed, match="founder"):
        founder.invite(ADMIN, role=Role.READER, member=ADMIN.public_key)
    with pytest.raises(NotAllowed, match="itself"):
        founder.revoke(ADMIN, ADMIN.public_key, unix_seconds=1)
    with pytest.raises(NotAllowed, match="no admins"):
        Membership.open_mesh("demo").invite(ADMIN, role=Role.READER)
    with pytest.raises(NotAllowed, match="nobody can be shut out"):
        Membership.open_mesh("demo").revoke(MEMBER, STRANGER.public_key, unix_seconds=1)


def test_grants_that_do_not_count_shut_out() -> None:
    founder = founded()
    key, member = founder.key, MEMBER.public_key
    assert founder.role_of(member, Grant.issue(key, ADMIN, Role.READER), 0) is Role.READER
    for grant in (
        None,
        Grant.issue(key, STRANGER, Role.WRITER),
        Grant.issue(key, ADMIN, Role.WRITER, expiry=10),
        Grant.issue(key, ADMIN, Role.WRITER, member=STRANGER.public_key),
        Grant.issue(bytes(32), ADMIN, Role.WRITER),
        Grant.issue(key, ADMIN, Role.ADMIN),
    ):
        assert founder.role_of(member, grant, 10) is None


def test_a_revoked_ticket_is_followed_by_another() -> None:
    founder = founded()
    ticket = founder.invite(ADMIN)
    assert ticket == founder.invite(ADMIN)
    assert ticket.grant is not None
    after = founder.taking([founder.revoke(ADMIN, ticket.grant.digest, unix_seconds=1)])
    another = after.invite(ADMIN)
    assert after.role_of(MEMBER.public_key, ticket.grant, 0) is None
    assert after.role_of(MEMBER.public_key, another.grant, 0) is Role.WRITER
    assert Ticket.decode(another.encode()) == another


def test_a_revoked_member_comes_back_by_a_grant_that_says_so() -> None:
    founder, member = founded(), MEMBER.public_key
    bearer = founder.invite(ADMIN).grant
    revoked = founder.taking([founder.revoke(ADMIN, member, "left", unix_seconds=5)])
    assert revoked.role_of(member, bearer, 0) is None
    back = revoked.invite(ADMIN, member=member, role=Role.READER).grant
    assert back is not None
    pardoned = revoked.taking([back])
    assert pardoned.role_of(member, bearer, 0) is Role.READER  # the ticket is not pardoned
    again = pardoned.revoke(ADMIN, member, "left", unix_seconds=5)
    assert pardoned.taking([again]).role_of(member, back, 0) is None


def test_what_no_admin_signed_is_not_taken() -> None:
    founder, member = founded(), MEMBER.public_key
    assert founder.taking([Revocation.issue(founder.key, STRANGER, member, 1)]) is founder
    with pytest.raises(ForgedRecord):
        founder.taking([Revocation.issue(bytes(32), ADMIN, member, 1)])
    revocation = Revocation.issue(founder.key, ADMIN, member, 1)
    taken = founder.taking([revocation])
    assert taken.taking([revocation]) is taken


def test_only_a_ticket_for_readers_has_the_data_secret() -> None:
    founder = Membership.found("bees", ADMIN.public_key, is_encrypted=True)
    reader = Membership.join(Ticket.decode(founder.invite(ADMIN, role=Role.READER).encode()))
    blind = Membership.join(Ticket.decode(founder.invite(ADMIN, role=Role.BLIND).encode()))
    assert founder.data_key is not None
    assert reader.data_key == founder.data_key
    assert (blind.is_encrypted, blind.data_secret, blind.data_key) == (True, b"", None)
    assert blind.key == founder.key
    assert blind.invite(MEMBER).data_secret == b""


def test_an_open_mesh_lets_everybody_write() -> None:
    mesh = Membership.open_mesh("demo")
    assert mesh.is_open
    assert not founded().is_open
    assert mesh.role_of(STRANGER.public_key, None, 0) is Role.WRITER


@given(memberships)
def test_the_file_round_trips(membership: Membership) -> None:
    assert parse_membership(format_membership(membership)) == membership


@given(st.lists(memberships, max_size=5))
def test_the_text_follows_what_changes(changing: list[Membership]) -> None:
    text = MembershipText()
    for membership in changing:
        assert text.of(membership) == format_membership(membership)


def test_only_what_is_new_is_put_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a mesh of 16,000 members has 4 MB, and is written anew for each that comes."""
    worded = 0

    def count(data: bytes) -> str:
        nonlocal worded
        worded += 1
        return z_base_32_encode(data)

    def grant(number: int) -> Grant:
        member = number.to_bytes(32, "big")
        return Grant.issue(mesh.key, ADMIN, Role.READER, member=member)

    monkeypatch.setattr("node.mesh.membership_file.z_base_32_encode", count)
    text, mesh = MembershipText(), founded()
    mesh = mesh.taking([grant(number) for number in range(300)])
    text.of(mesh)
    before = worded
    for number in range(300, 310):
        mesh = mesh.taking([grant(number)])
        assert parse_membership(text.of(mesh)) == mesh
    assert worded - before <= 2 * 10  # the mesh's secret with each


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
        'name = "a"\nsecret = ""\nencrypted = 1',
        'name = "a"\nsecret = ""\ngranted = ["yy"]',
    ],
)
def test_damaged_files(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_membership(text)


def test_a_file_of_version_0_3_is_read() -> None:
    founder = founded()
    old = Membership.join(founder.invite(ADMIN))
    text = format_membership(old)
    assert [line.partition(" ")[0] for line in text.splitlines()[1:]] == [
        "name",
        "secret",
        "grant",
        "admins",
        "revoked",
    ]
    assert parse_membership(text) == old


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "mesh.toml"
    assert load_membership(path) is None
    save_membership(path, founded())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_membership(path) == founded()
    for text, match in (
        ("\udcff", "cannot be read: it is no UTF-8 text"),
        ("name = 1", ": name: 1 to 128 printable characters wanted"),
        ('name = "x"', " lacks 'secret': restore it"),
        (f"{format_membership(founded())}quorum = 2", ": unknown key 'quorum': a newer version"),
    ):
        path.write_text(text, errors="surrogateescape")
        with pytest.raises(ConfigError, match=f"^{path} ?{match}"):
            load_membership(path)
