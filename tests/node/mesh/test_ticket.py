from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import z_base_32_encode
from hypercore.encoding import DecodeError
from node.mesh.fields import pack_fields
from node.mesh.ticket import (
    MAX_ADDRESSES,
    MAX_TICKET_BYTES,
    TICKET_PREFIX,
    BadTicket,
    Grant,
    Revocation,
    Role,
    Ticket,
    is_mesh_name,
)
from tests.node.mesh import samples
from tests.node.mesh.samples import ADMIN, MEMBER, MESH_KEY, STRANGER

mesh_names = st.text(min_size=1, max_size=64).filter(is_mesh_name)
tickets = st.builds(
    Ticket,
    mesh_names,
    st.binary(max_size=64),
    samples.key_bytes,
    st.lists(st.text(max_size=40), max_size=4).map(tuple),
    st.none() | samples.grants,
    samples.digests,
    st.lists(samples.grants, max_size=2).map(tuple),
    st.just(True),
    st.binary(max_size=64),
) | st.builds(Ticket, mesh_names, st.binary(max_size=64), samples.key_bytes)


@given(tickets)
def test_ticket_round_trip(ticket: Ticket) -> None:
    text = ticket.encode()
    assert text.startswith("beemesh1")
    assert Ticket.decode(f"  {text}\n") == ticket
    assert Ticket.decode(text.upper()) == ticket


def test_a_digest_is_that_of_what_a_grant_says_however_often_it_was_asked_for() -> None:
    grant = Grant.issue(MESH_KEY, ADMIN, Role.READER, member=MEMBER.public_key)
    fresh = Grant.decode_bytes(grant.encode())
    assert grant.digest == grant.digest == fresh.digest
    assert grant == fresh
    assert hash(grant) == hash(Grant.decode_bytes(grant.encode())), "asked for its digest or not"
    assert replace(grant, serial=1).digest != grant.digest


@given(st.text(max_size=60) | st.text(max_size=60).map("beemesh1".__add__))
def test_any_text_gives_a_ticket_or_the_one_error(text: str) -> None:
    try:
        Ticket.decode(text)
    except DecodeError:
        return


@given(st.binary(max_size=200))
def test_any_bytes_in_a_ticket_give_a_ticket_or_the_one_error(data: bytes) -> None:
    try:
        Ticket.decode(TICKET_PREFIX + z_base_32_encode(data))
    except DecodeError:
        return


@given(tickets, st.data())
def test_a_cut_ticket_is_refused(ticket: Ticket, data: st.DataObject) -> None:
    text = ticket.encode()
    size = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(DecodeError):
        Ticket.decode(text[:size])


@pytest.mark.parametrize(
    "fields",
    [
        (3, "mesh", b"", bytes(32), [], None),
        (2, "mesh", b"", bytes(32), [], None, [], [], 1, b""),
        (1, "mesh", b"", bytes(32), [], None, [b""]),
        (1, "mesh", b"", bytes(32), [], None, [], [["bearer"]]),
        (1, "", b"", bytes(32), [], None),
        (1, "me\nsh", b"", bytes(32), [], None),
        (1, "mesh", bytes(65), bytes(32), [], None),
        (1, "mesh", b"", bytes(31), [], None),
        (1, "mesh", b"", bytes(32), ["a"] * (MAX_ADDRESSES + 1), None),
        (1, "mesh", b"", bytes(32), [], ["somebody", "writer", None, bytes(32), bytes(64)]),
        (1, "mesh", b"", bytes(32), [], ["bearer", "emperor", None, bytes(32), bytes(64)]),
    ],
)
def test_wrong_tickets(fields: tuple[object, ...]) -> None:
    text = TICKET_PREFIX + z_base_32_encode(pack_fields(*fields))  # type: ignore[arg-type]  # as found
    with pytest.raises(DecodeError):
        Ticket.decode(text)


def test_who_pastes_something_else_is_told_what_to_do() -> None:
    ticket = Ticket("mesh", b"secret", bytes(32))
    text = ticket.encode()
    assert Ticket.read(f"  {text.upper()}\n") == ticket
    for damaged in ("", text[len(TICKET_PREFIX) :], text[:-1], text + "y" * 2 * MAX_TICKET_BYTES):
        with pytest.raises(BadTicket, match="damaged: copy the whole of it, from beemesh1"):
            Ticket.read(damaged)
    newer = TICKET_PREFIX + z_base_32_encode(pack_fields(3, "of tomorrow"))
    with pytest.raises(BadTicket, match="version 3; this node knows 1 and 2: update this node"):
        Ticket.read(newer)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("", False), ("a", True), ("ä" * 128, True), ("a" * 129, False), ("\n", False)],
)
def test_a_mesh_has_a_name_that_can_be_read(name: str, is_one: bool) -> None:
    assert is_mesh_name(name) is is_one


def test_a_secret_is_not_printed() -> None:
    assert "hush" not in repr(Ticket("mesh", b"hush", bytes(32)))


def test_a_plain_ticket_is_as_it_was_in_the_first_version() -> None:
    grant = Grant.issue(MESH_KEY, ADMIN, Role.WRITER)
    ticket = Ticket("mesh", b"secret", bytes(32), ("10.0.0.1:1",), grant)
    fields = ["bearer", "writer", None, ADMIN.public_key, grant.signature]
    packed = pack_fields(1, "mesh", b"secret", bytes(32), ["10.0.0.1:1"], fields)
    assert ticket.encode() == TICKET_PREFIX + z_base_32_encode(packed)


def test_a_node_of_the_first_version_refuses_the_ticket_of_an_encrypted_mesh() -> None:
    """It would ignore what it does not know, and write in the clear."""
    ticket = Ticket("mesh", b"secret", bytes(32), is_encrypted=True, data_secret=b"data")
    assert ticket.encode().startswith(TICKET_PREFIX + z_base_32_encode(b"\x9a\x02")[:3])
    assert Ticket.decode(ticket.encode()) == ticket


@given(samples.grants)
def test_grant_round_trip(grant: Grant) -> None:
    assert Grant.decode_bytes(grant.encode()) == grant


@given(samples.revocations)
def test_revocation_round_trip(revocation: Revocation) -> None:
    assert Revocation.decode_bytes(revocation.encode()) == revocation


@given(st.binary(max_size=200))
def test_any_bytes_give_a_record_or_the_one_error(data: bytes) -> None:
    for decode in (Grant.decode_bytes, Revocation.decode_bytes):
        try:
            decode(data)
        except DecodeError:
            continue


def test_a_grant_is_bound_to_mesh_issuer_and_claim() -> None:
    grant = Grant.issue(MESH_KEY, ADMIN, Role.WRITER, member=MEMBER.public_key, expiry=100)
    assert grant.is_signed(MESH_KEY)
    assert not grant.is_signed(bytes(32))
    assert not replace(grant, role=Role.ADMIN).is_signed(MESH_KEY)
    assert not replace(grant, expiry=None).is_signed(MESH_KEY)
    assert not replace(grant, member=None).is_signed(MESH_KEY)
    assert not replace(grant, serial=1).is_signed(MESH_KEY)
    assert not replace(grant, uses=1).is_signed(MESH_KEY)
    assert not replace(grant, pardoned=(bytes(32),)).is_signed(MESH_KEY)
    assert not replace(grant, issuer=STRANGER.public_key).is_signed(MESH_KEY)
    assert not replace(grant, signature=b"").is_signed(MESH_KEY)


def test_a_revocation_is_no_grant_and_bound_to_its_mesh() -> None:
    revocation = Revocation.issue(MESH_KEY, ADMIN, MEMBER.public_key, 5)
    assert Revocation.decode_bytes(revocation.encode()) == revocation
    assert revocation.is_signed(MESH_KEY)
    assert not revocation.is_signed(bytes(32))
    assert not replace(revocation, subject=STRANGER.public_key).is_signed(MESH_KEY)
    assert not replace(revocation, reason="x").is_signed(MESH_KEY)
    assert not replace(revocation, kept=(bytes(32),)).is_signed(MESH_KEY)
    with pytest.raises(DecodeError):
        Grant.decode_bytes(revocation.encode())
