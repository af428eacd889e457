"""The rules of one group, each as an example; ANN founds it at time 100."""

from __future__ import annotations

import json

import pytest

from node.covalue.content import Transaction
from node.covalue.group_changes import Role
from node.covalue.group_view import GroupView
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId
from node.covalue.roles import RoleBook
from tests.support.authors import Author, group_header

ANN, BOB, CAT, DAN = Author("ann"), Author("bob"), Author("cat"), Author("dan")
HEADER = group_header(ANN.account_id)
FOUNDED = 100
ADMINISTERING = (Role.ADMIN, Role.MANAGER)


def setting(made_at: int, key: str, value: object) -> Transaction:
    return Transaction(made_at, json.dumps([{"op": "set", "key": key, "value": value}]))


class Group:
    """A group alone in a book. `sets` tells whether the change counts."""

    def __init__(self, header: CoValueHeader = HEADER) -> None:
        self.header = header
        self.book = RoleBook()
        self.book.add_view(GroupView(header.id, header))
        self.counts: dict[CoSessionId, int] = {}

    def write(self, session_id: CoSessionId, transaction: Transaction) -> bool:
        index = self.counts.get(session_id, 0)
        self.counts[session_id] = index + 1
        self.book.extend(self.header.id, session_id, index, [transaction])
        return self.book.may_write(self.header.id, self.header, session_id, index, transaction)

    def sets(
        self, author: Author, made_at: int, key: str, value: object, *, session: str = "a"
    ) -> bool:
        return self.write(author.session_id(session), setting(made_at, key, value))

    def role(self, member: Author | str, made_at: int = 10_000) -> Role | None:
        name = member if isinstance(member, str) else member.account_id
        return self.book.role_of(self.header.id, name, made_at)


def founded() -> Group:
    group = Group()
    assert group.sets(ANN, FOUNDED, ANN.account_id, "admin")
    return group


def test_the_founder_is_admin_from_then_on() -> None:
    group = Group()
    assert not group.sets(BOB, FOUNDED - 10, BOB.account_id, "admin")
    assert not group.sets(ANN, FOUNDED - 5, ANN.account_id, "manager")
    assert not group.sets(ANN, FOUNDED - 5, BOB.account_id, "admin")
    assert group.sets(ANN, FOUNDED, ANN.account_id, "admin")
    assert group.role(ANN, FOUNDED - 1) is None
    assert group.role(ANN, FOUNDED) is Role.ADMIN
    assert group.role(BOB) is None
    assert group.role("everyone") is None


def test_the_founder_who_left_is_not_admin_again() -> None:
    group = founded()
    assert group.sets(ANN, 200, ANN.account_id, "revoked")
    assert not group.sets(ANN, 300, ANN.account_id, "admin")
    assert group.role(ANN, 199) is Role.ADMIN
    assert group.role(ANN, 200) is None


@pytest.mark.parametrize("given", Role)
@pytest.mark.parametrize("current", [None, *Role])
def test_what_an_admin_may_give(current: Role | None, given: Role) -> None:
    group = founded()
    if current is not None:
        assert group.sets(ANN, 150, BOB.account_id, current)
    may = current is not Role.ADMIN or given is Role.ADMIN
    assert group.sets(ANN, 200, BOB.account_id, given) == may
    expected = given if may else current
    assert group.role(BOB) is (None if expected is Role.REVOKED else expected)


def test_an_admin_may_demote_itself() -> None:
    group = founded()
    assert group.sets(ANN, 200, ANN.account_id, "reader")
    assert not group.sets(ANN, 201, BOB.account_id, "reader")


@pytest.mark.parametrize("given", Role)
@pytest.mark.parametrize("current", [None, *Role])
def test_what_a_manager_may_give(current: Role | None, given: Role) -> None:
    group = founded()
    group.sets(ANN, 150, CAT.account_id, "manager")
    if current is not None:
        group.sets(ANN, 150, BOB.account_id, current)
    may = current is not Role.ADMIN and given not in ("admin", "adminInvite", "managerInvite")
    assert group.sets(CAT, 200, BOB.account_id, given) == may


@pytest.mark.parametrize("given", Role)
@pytest.mark.parametrize("acting", [role for role in Role if role not in ADMINISTERING])
def test_what_others_may_give(acting: Role, given: Role) -> None:
    group = founded()
    group.sets(ANN, 150, CAT.account_id, acting)
    assert group.sets(CAT, 200, BOB.account_id, given) == (acting.invites_to == given)
    # An invite may do so even to an admin, as in the original.
    assert group.sets(CAT, 200, ANN.account_id, given) == (acting.invites_to == given)


@pytest.mark.parametrize("acting", [None, *Role])
def test_everybody_may_leave(acting: Role | None) -> None:
    group = founded()
    if acting is not None:
        group.sets(ANN, 150, CAT.account_id, acting)
    assert group.sets(CAT, 200, CAT.account_id, "revoked")
    assert group.role(CAT) is None


@pytest.mark.parametrize("key", ["readKey", "groupSealer", "profile", "root"])
@pytest.mark.parametrize("acting", [None, *Role])
def test_administration(acting: Role | None, key: str) -> None:
    group = founded()
    if acting is not None:
        group.sets(ANN, 150, CAT.account_id, acting)
    assert group.sets(CAT, 200, key, "anything") == (acting in ("admin", "manager"))


@pytest.mark.parametrize("acting", [None, *Role])
def test_revelations(acting: Role | None) -> None:
    group = founded()
    if acting is not None:
        group.sets(ANN, 150, CAT.account_id, acting)
    may = acting is not None and (acting in ADMINISTERING or acting.invites_to is not None)
    for key in (f"key_z1_for_{BOB.account_id}", "key_z1_for_key_z2", "key_z1_sealedFor_sealer_z1"):
        assert group.sets(CAT, 200, key, "sealed_U") == may


def test_who_may_only_write_reveals_its_own_key() -> None:
    group = founded()
    group.sets(ANN, 150, BOB.account_id, "writeOnly")
    assert not group.sets(BOB, 200, f"key_zown_for_{ANN.account_id}", "sealed_U")
    assert group.sets(BOB, 210, f"writeKeyFor_{BOB.account_id}", "key_zown")
    assert group.sets(BOB, 220, f"key_zown_for_{ANN.account_id}", "sealed_U")
    assert not group.sets(BOB, 220, f"key_zother_for_{ANN.account_id}", "sealed_U")
    assert not group.sets(BOB, 205, f"key_zown_for_{ANN.account_id}", "sealed_U")
    # A second key does not count, and is revealed all the same: so in the original.
    assert not group.sets(BOB, 230, f"writeKeyFor_{BOB.account_id}", "key_zother")
    assert group.sets(BOB, 240, f"key_zother_for_{ANN.account_id}", "sealed_U")
    assert not group.sets(BOB, 240, f"key_zown_for_{ANN.account_id}", "sealed_U")
    assert group.sets(ANN, 250, f"writeKeyFor_{BOB.account_id}", "key_znew")


def test_an_invite_brings_a_write_key_once() -> None:
    group = founded()
    group.sets(ANN, 150, CAT.account_id, "writeOnlyInvite")
    group.sets(ANN, 150, DAN.account_id, "writerInvite")
    assert not group.sets(DAN, 200, f"writeKeyFor_{BOB.account_id}", "key_z1")
    assert group.sets(CAT, 210, f"writeKeyFor_{BOB.account_id}", "key_z1")
    assert not group.sets(CAT, 220, f"writeKeyFor_{BOB.account_id}", "key_z2")
    assert group.sets(CAT, 205, f"writeKeyFor_{BOB.account_id}", "key_z0")


def test_an_empty_key_is_nobodys_own() -> None:
    group = founded()
    assert group.sets(BOB, 200, f"writeKeyFor_{BOB.account_id}", None)
    assert not group.sets(BOB, 210, "_for_everyone", "keySecret_z")


def test_everyone_is_the_role_of_who_has_none() -> None:
    group = founded()
    group.sets(ANN, 200, "everyone", "writer")
    group.sets(ANN, 200, BOB.account_id, "reader")
    group.sets(ANN, 300, BOB.account_id, "revoked")
    group.sets(ANN, 400, "everyone", "revoked")
    assert group.role(CAT, 199) is None
    assert group.role(CAT, 200) is Role.WRITER
    assert group.role(BOB, 299) is Role.READER
    assert group.role(BOB, 300) is Role.WRITER
    assert group.role("everyone", 399) is Role.WRITER
    assert group.role(BOB, 400) is None
    assert group.role(CAT, 400) is None


def test_everyone_may_not_change_the_group() -> None:
    group = founded()
    group.sets(ANN, 200, "everyone", "writer")
    assert not group.sets(BOB, 300, CAT.account_id, "reader")
    assert not group.sets(BOB, 300, "readKey", "key_z1")


def test_members_are_judged_by_the_time_they_claim() -> None:
    group = founded()
    group.sets(ANN, 200, BOB.account_id, "admin")
    group.sets(ANN, 300, ANN.account_id, "revoked")
    assert group.sets(BOB, 250, CAT.account_id, "writer")
    assert not group.sets(BOB, 150, DAN.account_id, "writer")
    assert not group.sets(ANN, 350, DAN.account_id, "writer")
    # What was judged before changes when an older transaction arrives.
    assert group.sets(ANN, 240, CAT.account_id, "admin", session="late")
    assert group.role(CAT, 239) is None
    assert group.role(CAT, 240) is Role.ADMIN
    assert group.role(CAT, 260) is Role.ADMIN
    index = 0
    transaction = setting(250, CAT.account_id, "writer")
    assert not group.book.may_write(HEADER.id, HEADER, BOB.session_id(), index, transaction), (
        "an admin cannot demote an admin, also when it did not know"
    )


def test_within_a_session_the_index_decides_between_equal_times() -> None:
    group = founded()
    for at, role in ((300, "writer"), (200, "admin"), (300, "reader"), (200, "manager")):
        group.sets(ANN, at, BOB.account_id, role)
    # At 200 it became admin, for good: admins are not demoted.
    assert group.role(BOB, 250) is Role.ADMIN
    assert group.role(BOB) is Role.ADMIN
    group = founded()
    for role in ("reader", "manager", "writer"):
        group.sets(ANN, 200, BOB.account_id, role)
    assert group.role(BOB) is Role.WRITER


def test_between_sessions_their_ids_decide_between_equal_times() -> None:
    names = sorted("abcdef", key=ANN.session_id)
    for order in (names, names[::-1]):
        group = founded()
        for name in order:
            role = "manager" if name == names[-1] else "reader"
            group.sets(ANN, 200, BOB.account_id, role, session=name)
        assert group.role(BOB, 200) is Role.MANAGER


def test_agents_are_members_like_accounts() -> None:
    group = founded()
    group.sets(ANN, 200, BOB.agent_id, "admin")
    session_id = BOB.session_id(as_agent=True)
    assert group.write(session_id, setting(250, CAT.account_id, "writer"))
    assert group.role(BOB) is None
    assert group.role(BOB.agent_id) is Role.ADMIN


def test_private_transactions_are_an_accounts_own() -> None:
    private = Transaction(300, "encrypted_UAA", "key_z1")
    group = founded()
    assert not group.write(ANN.session_id(), private)
    account = Group(ANN.account_header)
    own = ANN.session_id(as_agent=True)
    assert not account.write(own, private._replace(made_at=90))
    assert account.write(own, setting(100, ANN.agent_id, "admin"))
    assert account.write(own, private)
    assert not account.write(ANN.session_id(), private)
    assert not account.write(BOB.session_id(as_agent=True), private)


def test_an_account_is_admin_of_itself_and_changes_itself_as_its_agent() -> None:
    account = Group(ANN.account_header)
    assert account.role(ANN, 0) is Role.ADMIN
    assert account.role(ANN.agent_id, 100) is None
    assert not account.sets(ANN, 100, "root", "co_z1")
    assert account.write(ANN.session_id(as_agent=True), setting(100, ANN.agent_id, "admin"))
    assert account.write(ANN.session_id(as_agent=True), setting(110, "root", "co_z1"))
    assert account.role(ANN.agent_id, 100) is Role.ADMIN
    assert account.role(BOB) is None


@pytest.mark.parametrize(
    "changes", ["[null]", '[{"op":"set","key":5}]', "{}", "", "[]", "[" * 100_000]
)
def test_what_the_original_stumbles_over_is_invalid(changes: str) -> None:
    group = founded()
    assert not group.write(BOB.session_id(), Transaction(200, changes))
    assert not group.write(ANN.session_id(), Transaction(200, changes))
    assert group.role(ANN) is Role.ADMIN
