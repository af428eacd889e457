"""`beemesh invite`, `members`, `revoke` and `mesh`, on a directory and between real nodes."""

from __future__ import annotations

import fcntl
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from hypercore.crypto import KeyPair
from node.cli.qr import draw_qr
from node.client import AdminClient
from node.identity import load_or_create_identity
from node.mesh.member_book import MemberBook, Met, save_book
from node.mesh.membership import Membership
from node.mesh.membership_file import load_membership, save_membership
from node.mesh.ticket import Role, Ticket
from node.verbs import ExitCode, MeshMembers
from tests.node.mesh.samples import ADMIN, STRANGER
from tests.node.test_cli import Beemesh
from tests.node.test_cli import beemesh as beemesh_fixture
from tests.support.running_node import RunningNode, open_running_node, wait_members

beemesh = beemesh_fixture

GONE, STAYS = STRANGER.public_key.hex(), KeyPair.from_seed(b"s" * 32).public_key.hex()


def founded(data: Path, **options: Any) -> Membership:
    """A data directory as its first start leaves it; its node is the founder."""
    data.mkdir()
    identity = load_or_create_identity(data / "node.key")
    membership = Membership.found("hive", identity.public_key, **options)
    save_membership(data / "mesh.toml", membership)
    return membership


def test_a_code_is_drawn_in_half_blocks() -> None:
    text = draw_qr("BEEMESH1ABC", colors=False)
    lines = text.splitlines()
    assert {len(line) for line in lines} == {21 + 4}
    assert len(lines) == (21 + 4 + 1) // 2
    assert set(text) <= set("█▀▄ \n")
    assert lines[0] == "█" * 25  # light all around
    assert lines[1].startswith("██ ▄▄▄▄▄ █")  # a finder pattern: dark, light, dark
    assert draw_qr("BEEMESH1ABC", colors=True).count("\x1b[0m") == len(lines)


def test_no_code_is_drawn_where_its_blocks_cannot_be_written(
    beemesh: Beemesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was a page of escapes, such as \\u2588."""
    founded(tmp_path / "data")
    with io.TextIOWrapper(io.BytesIO(), encoding="latin-1") as narrow, monkeypatch.context() as out:
        out.setattr(sys, "stdout", narrow)
        assert beemesh("invite", "--qr")[0] == ExitCode.OK
        narrow.flush()
        narrow.seek(0)
        (ticket,) = narrow.read().splitlines()
    assert Ticket.decode(ticket).mesh_name == "hive"


def test_without_a_node(beemesh: Beemesh, tmp_path: Path) -> None:
    data = tmp_path / "data"
    code, _, error = beemesh("invite")
    assert (code, "holds no data" in error) == (ExitCode.NOT_FOUND, True)
    founder = founded(data)
    (invitation,) = beemesh.json("invite", "--role", "reader", "--expires", "7d")
    ticket = Ticket.decode(invitation["ticket"])
    assert (ticket.mesh_name, ticket.secret) == ("hive", founder.secret)
    assert ticket.grant is not None
    assert (ticket.grant.role, ticket.grant.expiry) == (Role.READER, invitation["expiry"])
    code, out, error = beemesh("invite", "--role", "reader", "--qr")
    assert "no node is running" in error
    assert f"as it is configured, {invitation['addresses'][0]}" in error
    *drawn, line = out.splitlines()
    assert Ticket.decode(line).grant is not None
    assert all(set(text) <= set("█▀▄ ") for text in drawn)
    assert len(drawn) > 20
    (info,) = beemesh.json("mesh")
    assert (info["mesh"], info["role"], info["members"], info["banned"]) == ("hive", "admin", 1, 0)
    guest = STRANGER.public_key.hex()
    (made,) = beemesh.json("invite", "--for", guest, "--role", "admin")
    assert made["member"] == guest
    (revoked,) = beemesh.json("revoke", guest[:8], "--reason", "a reason")
    assert (revoked["member"], revoked["shut_out"]) == (guest, [guest])
    *_, row = beemesh.json("members")
    assert (row["id"], row["role"], row["banned"]["reason"]) == (guest, "", "a reason")
    assert "a reason" in beemesh("members")[1]
    (ended,) = beemesh.json("revoke", invitation["ticket"].upper())
    assert (ended["member"], ended["ticket"]) == (None, True)
    stored = load_membership(data / "mesh.toml")
    assert stored is not None
    assert stored.role_of(STRANGER.public_key, ticket.grant, 0) is None
    (back,) = beemesh.json("invite", "--for", guest)
    assert back["role"] == "writer"
    rows = beemesh.json("members")
    assert [(row["role"], row["is_known"]) for row in rows] == [
        ("admin", True),
        ("writer", True),
        ("", False),
    ]


def test_nothing_is_signed_beside_a_node_that_is_starting(beemesh: Beemesh, tmp_path: Path) -> None:
    """It had read its files already: who was shut out stayed in, and the file was written over."""
    founded(data := tmp_path / "data")
    before = (data / "mesh.toml").read_text()
    (data / "corestore" / "db").mkdir(parents=True)
    with (data / "corestore" / "db" / "LOCK").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # as the database has it while it is open
        for command in (("revoke", GONE), ("invite", "--for", GONE)):
            code, _, error = beemesh(*command)
            assert (code, "takes no questions" in error) == (ExitCode.NO_NODE, True)
        for name in ("members", "invite"):
            assert beemesh(name)[0] == ExitCode.OK, "this changes nothing"
    assert (data / "mesh.toml").read_text() == before
    assert beemesh("revoke", GONE)[0] == ExitCode.OK


def came_with(data: Path, ticket: str, *ids: str) -> None:
    """As if these nodes had been met, with this ticket and nothing that names them."""
    grant = Ticket.decode(ticket).grant
    assert grant is not None
    book = MemberBook()
    for id in ids:
        book.note(id, "guest", "writer", 1.0, ticket=grant.digest.hex())
    save_book(data / "members.json", book.encode())


def test_a_ticket_on_which_others_depend_is_named_when_one_that_has_it_is_shut_out(
    beemesh: Beemesh, tmp_path: Path
) -> None:
    """It knows the ticket, and may come back with it under a new key."""
    founded(tmp_path / "data")
    (invitation,) = beemesh.json("invite")
    came_with(tmp_path / "data", invitation["ticket"], GONE, STAYS)
    code, out, error = beemesh("revoke", GONE)
    assert code == ExitCode.OK
    assert "the ticket" not in out
    assert f"the ticket it came with still lets nodes in, since {STAYS}" in error
    beemesh("invite", "--for", STAYS)
    (revoked,) = beemesh.json("revoke", GONE)
    assert (revoked["ticket"], revoked["ticket_kept_for"]) == (True, [])


def test_a_ticket_goes_with_the_last_that_depends_on_it(beemesh: Beemesh, tmp_path: Path) -> None:
    """One that was shut out before counted as another that depends on it."""
    founded(tmp_path / "data")
    (invitation,) = beemesh.json("invite")
    came_with(tmp_path / "data", invitation["ticket"], GONE, STAYS)
    assert [beemesh.json("revoke", id)[0]["ticket"] for id in (GONE, STAYS)] == [False, True]


def test_a_directory_with_cores_and_no_mesh_is_not_said_to_be_empty(beemesh: Beemesh) -> None:
    beemesh("core", "append", "log", "one")
    for command in ("invite", "members", "mesh"):
        code, _, error = beemesh(command)
        assert (code, "belongs to no mesh" in error) == (ExitCode.NOT_FOUND, True)


def test_nothing_is_signed_with_a_new_key_for_one_that_is_gone(
    beemesh: Beemesh, tmp_path: Path
) -> None:
    founded(tmp_path / "data")
    (tmp_path / "data" / "node.key").unlink()
    code, _, error = beemesh("invite")
    assert (code, "node.key is gone" in error) == (ExitCode.USAGE, True)
    assert not (tmp_path / "data" / "node.key").exists()


def test_a_grant_that_says_less_is_told_to_change_nothing(beemesh: Beemesh, tmp_path: Path) -> None:
    founded(tmp_path / "data")
    guest = STRANGER.public_key.hex()
    assert "that node stays" not in beemesh("invite", "--for", guest)[2]
    code, out, error = beemesh("invite", "--for", guest, "--role", "reader")
    assert (code, Ticket.decode(out.strip()).mesh_name) == (ExitCode.OK, "hive")
    assert (
        f"that node stays writer, which it was granted before: `beemesh revoke {guest[:12]}`"
        in error
    )
    (told,) = beemesh.json("invite", "--for", guest, "--expires", "1h")
    assert (told["expiry"] is None, told["counts_as"], told["counts_until"]) == (
        False,
        "writer",
        None,
    )
    beemesh("revoke", guest[:12])
    (told,) = beemesh.json("invite", "--for", guest, "--role", "reader")
    assert told["counts_as"] == "reader"


def test_who_was_let_in_to_read_only_is_invited_as_that_again(
    beemesh: Beemesh, tmp_path: Path
) -> None:
    founded(tmp_path / "data", is_encrypted=True)
    guest = STRANGER.public_key.hex()
    beemesh("invite", "--for", guest, "--role", "blind")
    assert beemesh.json("invite", "--for", guest, "--expires", "1h")[0]["role"] == "blind"
    beemesh("revoke", guest[:12])
    keeper = Met(guest, "keeper", role="reader", since=0, seen=1)  # with a ticket, before that
    save_book(tmp_path / "data" / "members.json", MemberBook([keeper]).encode())
    (told,) = beemesh.json("invite", "--for", "keeper")
    assert (told["role"], told["counts_as"]) == ("reader", "reader")
    assert beemesh.json("invite", "--for", guest, "--role", "writer")[0]["counts_as"] == "writer"
    assert beemesh.json("invite", "--for", guest)[0]["role"] == "writer"


def test_without_a_node_what_has_expired_makes_room(
    beemesh: Beemesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.mesh.ledger.MAX_RECORDS", 1)
    data = tmp_path / "data"
    founder = founded(data)
    identity = load_or_create_identity(data / "node.key")
    old = founder.invite(identity, member=STRANGER.public_key, expiry=1000).grant
    assert old is not None
    save_membership(data / "mesh.toml", founder.taking([old]))
    (made,) = beemesh.json("invite", "--for", ADMIN.public_key.hex())
    assert (made["counts_as"], made["role"]) == ("writer", "writer")


def test_without_a_node_a_ticket_names_what_the_settings_say(
    beemesh: Beemesh, tmp_path: Path
) -> None:
    """Port 0, that is any, was named as if it could be dialed, and no URL ever was."""
    founded(tmp_path / "data")
    settings = tmp_path / "data" / "config.toml"
    settings.write_text('mesh = "127.0.0.1:4000"\nmesh_url = ["wss://example.org/mesh"]')
    (invitation,) = beemesh.json("invite")
    assert invitation["addresses"] == ["127.0.0.1:4000", "wss://example.org/mesh"]
    settings.write_text('mesh = "127.0.0.1:0"')
    code, out, error = beemesh("invite", "--no-qr")
    assert (code, Ticket.decode(out).addresses) == (ExitCode.OK, ())
    assert "the ticket says no address" in error


@pytest.mark.parametrize(
    ("code", "text", "arguments"),
    [
        (ExitCode.USAGE, "none of blind, reader, writer, admin", ["invite", "--role", "king"]),
        (ExitCode.USAGE, "no duration", ["invite", "--expires", "soon"]),
        (ExitCode.USAGE, "'-1d' is no duration", ["invite", "--expires", "-1d"]),
        (ExitCode.USAGE, "over at once", ["invite", "--expires", "0"]),
        (ExitCode.USAGE, "'7' has no unit; write 7d", ["invite", "--expires", "7"]),
        (ExitCode.USAGE, "--uses: -1", ["invite", "--uses", "-1"]),
        (ExitCode.USAGE, "--uses: 0", ["invite", "--uses", "0"]),
        (ExitCode.USAGE, "--for says nothing", ["invite", "--for", ""]),
        (ExitCode.USAGE, "--role says nothing", ["invite", "--role", ""]),
        (ExitCode.FAILED, "leave --uses out", ["invite", "--uses", "2", "--for", "ff" * 32]),
        (ExitCode.FAILED, "made by name", ["invite", "--role", "admin"]),
        (ExitCode.FAILED, "not encrypted", ["invite", "--role", "blind"]),
        (ExitCode.NOT_FOUND, "no member has the name", ["invite", "--for", "nobody"]),
        (ExitCode.NOT_FOUND, "no member has the name", ["revoke", "nobody"]),
        (ExitCode.USAGE, "beyond all dates", ["invite", "--expires", "9999999d"]),
        (ExitCode.USAGE, "ticket is damaged: copy the whole of it", ["revoke", "beemesh1abc"]),
        (ExitCode.USAGE, "of the mesh 'other'", ["revoke", "OTHER"]),
        (ExitCode.FAILED, "shut itself out", ["revoke", "SELF"]),
        (
            ExitCode.USAGE,
            "more than 256",
            ["revoke", STRANGER.public_key.hex(), "--reason", "LONG"],
        ),
    ],
)
def test_what_does_not_work_is_one_line(
    beemesh: Beemesh, tmp_path: Path, code: ExitCode, text: str, arguments: list[str]
) -> None:
    membership = founded(tmp_path / "data")
    other = Membership.found("other", ADMIN.public_key).invite(ADMIN).encode()
    words = {"OTHER": other, "SELF": next(iter(membership.founders)).hex(), "LONG": "x" * 300}
    got, out, error = beemesh(*(words.get(argument, argument) for argument in arguments))
    assert (got, out) == (code, "")
    assert text in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("seen", "role"), [(1000.5, ""), (5000.0, "admin")])
def test_whose_grant_ran_out_is_shown_as_nothing(
    beemesh: Beemesh, tmp_path: Path, seen: float, role: str
) -> None:
    """Unless it was here after that, and so by a ticket of which nothing is known here."""
    data = tmp_path / "data"
    founder = founded(data)
    identity = load_or_create_identity(data / "node.key")
    guest = STRANGER.public_key
    brief = founder.invite(identity, role=Role.ADMIN, member=guest, expiry=1000).grant
    assert brief is not None
    save_membership(data / "mesh.toml", founder.taking([brief]))
    book = MemberBook()
    book.note(guest.hex(), "guest", "admin", seen)
    save_book(data / "members.json", book.encode())
    [row] = [row for row in beemesh.json("members") if row["name"] == "guest"]
    assert (row["role"], row["expiry"]) == (role, None if role else 1000)
    (info,) = beemesh.json("mesh")
    assert len(info["admins"]) == 1 + bool(role)


def test_tickets_that_let_nobody_in(beemesh: Beemesh, tmp_path: Path) -> None:
    founder = Membership.found("hive", ADMIN.public_key)
    other = Membership.found("other", ADMIN.public_key)
    for ticket, text in (
        (founder.invite(ADMIN, expiry=1000), "expired on 1970-01-01 00:16 UTC: ask for a new one"),
        (founder.invite(ADMIN, role=Role.READER, member=STRANGER.public_key), "is for the node"),
        (
            Ticket("hive", founder.secret, ADMIN.public_key, (), other.invite(ADMIN).grant),
            "no admin of its mesh has signed",
        ),
    ):
        code, out, error = beemesh("up", "--join", ticket.encode())
        assert (code, out) == (ExitCode.USAGE, "")
        assert text in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("is_piped", [False, True])
def test_a_ticket_may_come_from_where_the_list_of_processes_does_not_show_it(
    is_piped: bool, beemesh: Beemesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = Membership.found("hive", ADMIN.public_key).invite(ADMIN, expiry=1000).encode()
    file = tmp_path / "ticket"
    file.write_text(f"\n192.0.2.1:49737\n  {ticket}\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(file.read_text()))
    code, out, error = beemesh("up", "--join-file", "-" if is_piped else str(file))
    assert (code, out) == (ExitCode.USAGE, "")
    assert "this ticket expired" in error
    assert ticket not in error


def test_both_ways_to_give_tickets_add_up(beemesh: Beemesh, tmp_path: Path) -> None:
    one, other = (Membership.found(name, ADMIN.public_key).invite(ADMIN) for name in "ab")
    (tmp_path / "ticket").write_text(one.encode())
    given = ("--join", other.encode(), "--join-file", str(tmp_path / "ticket"))
    code, _, error = beemesh("up", *given)
    assert (code, "these tickets are of different meshes" in error) == (ExitCode.USAGE, True)


def test_a_file_without_a_ticket_is_refused(beemesh: Beemesh, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n")
    for name, text in (("empty", "is empty"), ("missing", "cannot be read: No such file")):
        code, out, error = beemesh("up", "--join-file", str(tmp_path / name))
        assert (code, out, error.count("\n")) == (ExitCode.USAGE, "", 1)
        assert f"--join-file: {tmp_path / name} {text}" in error


async def members_of(node: RunningNode) -> dict[str, Mapping[str, Any]]:
    """By name, or id where the name is not known."""
    client = AdminClient.find(node.data)
    assert client is not None
    rows = await trio.to_thread.run_sync(lambda: list(client.perform(MeshMembers())))
    return {str(row["name"] or row["id"]): row for row in rows}


@pytest.mark.slow
async def test_a_node_joins_and_is_shut_out(tmp_path: Path) -> None:
    async with open_running_node(tmp_path / "a", "--name", "alice") as alice:
        (invitation,) = (await alice.beemesh("invite", "--expires", "1h", "--json")).lines
        ticket = invitation["ticket"]
        async with open_running_node(tmp_path / "b", "--name", "bob", "--join", ticket) as bob:
            with trio.fail_after(20):
                await wait_members(bob, alice)
            found = await members_of(alice)
            assert [found[name]["role"] for name in ("alice", "bob")] == ["admin", "writer"]
            assert found["bob"]["expiry"] == invitation["expiry"]
            refused = await bob.beemesh("revoke", "alice")
            assert (refused.code, "only an admin" in refused.error) == (ExitCode.FAILED, True)
            done = await alice.beemesh("revoke", "bob", "--reason", "lost laptop")
            assert (done.code, "is shut out" in done.out) == (0, True)
            with trio.fail_after(20):
                while (await members_of(alice))["bob"]["connected"]:
                    await trio.lowlevel.checkpoint()
            status = await bob.beemesh("status")
            assert "an admin shut it out: lost laptop" in status.out
    # It is on the disk of both.
    for name in ("a", "b"):
        stored = load_membership(tmp_path / name / "mesh.toml")
        assert stored is not None
        assert "lost laptop" in {revocation.reason for revocation in stored.revocations}
