from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import KeyPair, z_base_32_encode
from node.config import load_config
from node.errors import ConfigError
from node.joining import Joining, StaticPeer, choose_membership, parse_joins
from node.mesh.fields import pack_fields
from node.mesh.membership import Membership
from node.mesh.ticket import TICKET_PREFIX, Role

ALICE = KeyPair.from_seed(b"a" * 32)
BOB = KeyPair.from_seed(b"b" * 32)
MESH = Membership.found("alice", ALICE.public_key)
TICKET = MESH.invite(ALICE, ["10.0.0.1:49737"]).encode()
LATER = TICKET_PREFIX + z_base_32_encode(pack_fields(9, "what we do not know"))


def choose(stored: Membership | None, joins: list[str], mesh_name: str | None = None) -> Membership:
    return choose_membership(stored, parse_joins(joins), mesh_name, "bob", BOB.public_key)


def test_nothing_said_founds_a_mesh_and_stays_in_it() -> None:
    founded = choose(None, [])
    assert founded.name == "bob"
    assert founded.secret
    assert founded.founders == {BOB.public_key}
    assert choose(founded, []) == founded
    assert choose(founded, ["10.0.0.1:1"]) == founded


def test_a_ticket_brings_mesh_grant_and_addresses() -> None:
    joining = parse_joins([TICKET, "[::1]:5"])
    assert joining.peers == (
        StaticPeer("10.0.0.1", 49737, ALICE.public_key),
        StaticPeer("::1", 5),
    )
    joined = choose(None, [TICKET])
    assert joined.key == MESH.key
    assert joined.grant is not None
    assert joined.founders == {ALICE.public_key}
    assert choose(joined, [TICKET]) == joined


def test_a_name_alone_is_an_open_mesh() -> None:
    opened = choose(None, ["10.0.0.1:1"], "demo")
    assert opened.is_open
    assert opened.key == choose(None, [], "demo").key
    assert choose(opened, [], "demo") == opened


@pytest.mark.parametrize(
    ("stored", "joins", "mesh_name", "match"),
    [
        (None, ["10.0.0.1:1"], None, "give a ticket"),
        (None, [TICKET], "other", "the ticket is of 'alice'"),
        (MESH, [], "demo", "belongs to the mesh 'alice' already"),
    ],
)
def test_contradictions(
    stored: Membership | None, joins: list[str], mesh_name: str | None, match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        choose(stored, joins, mesh_name)


@pytest.mark.parametrize(
    ("joins", "match"),
    [
        ([TICKET, Membership.found("x", BOB.public_key).invite(BOB).encode()], "different meshes"),
        (["nowhere"], "a ticket, HOST:PORT"),
        ([TICKET[:-20]], "this ticket is damaged: copy the whole of it"),
        ([TICKET[:-21]], "this ticket is damaged: copy the whole of it"),
        ([LATER], "a ticket of version 9; this node knows 1 and 2: update this node"),
    ],
)
def test_what_cannot_be_joined(joins: list[str], match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        parse_joins(joins)
    file = tmp_path / "config.toml"
    file.write_text(f"join = {json.dumps(joins)}")
    with pytest.raises(ConfigError, match=f"{file}: join: .*{match}"):
        load_config({"data": tmp_path}, {})
    with pytest.raises(ConfigError, match=f"the command line: join: .*{match}"):
        load_config({"data": tmp_path / "other", "join": joins}, {})


def test_whether_a_mesh_is_encrypted_is_decided_when_it_is_founded() -> None:
    def choose_encrypted(stored: Membership | None, joins: list[str]) -> Membership:
        return choose_membership(
            stored, parse_joins(joins), None, "bob", BOB.public_key, is_encrypted=True
        )

    founded = choose_encrypted(None, [])
    assert founded.is_encrypted
    assert founded.data_key is not None
    assert choose_encrypted(founded, []) == founded
    assert choose(founded, []) == founded
    for stored, joins in ((MESH, []), (None, [TICKET])):
        with pytest.raises(ConfigError, match="never changes"):
            choose_encrypted(stored, joins)


def test_a_ticket_with_uses_is_believed_until_its_maker_is_met() -> None:
    ticket = MESH.invite(ALICE, uses=1)
    joined = choose(None, [ticket.encode()])
    assert joined.grant == ticket.grant
    assert choose(joined, [ticket.encode()]) == joined
    forged = replace(ticket, secret=b"x" * 32).encode()
    with pytest.raises(ConfigError, match="no admin of its mesh has signed"):
        choose(None, [forged])


def test_a_further_ticket_brings_what_was_lacking() -> None:
    founder = Membership.found("hive", ALICE.public_key, is_encrypted=True)

    def ticket(role: Role) -> str:
        return founder.invite(ALICE, role=role).encode()

    blind = choose(None, [ticket(Role.BLIND)])
    assert blind.data_key is None
    reader = choose(blind, [ticket(Role.READER)])
    assert reader.data_key == founder.data_key
    assert reader.role_of(BOB.public_key, reader.grant, 0) is Role.READER
    assert choose(reader, [ticket(Role.BLIND)]) == reader  # nothing is lost
    own = founder.invite(ALICE, role=Role.ADMIN, member=BOB.public_key).encode()
    admin = choose(reader, [own])
    assert admin.role_of(BOB.public_key, None, 0) is Role.ADMIN


@given(st.lists(st.text(max_size=40) | st.text(max_size=60).map("beemesh1".__add__), max_size=3))
def test_any_text_is_read_or_refused(joins: list[str]) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_joins(joins), Joining)
