"""Roles through parents, what the book keeps, and that no order of arrival matters."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.covalue import role_judgment
from node.covalue.content import Transaction
from node.covalue.group_changes import Role
from node.covalue.group_view import GroupView
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.membership import Membership
from node.covalue.role_judgment import MAX_WORK, SLICE_WORK
from node.covalue.roles import GroupsMissing, JudgingTakesLong, RoleBook, ruling_group
from tests.support.authors import Author, group_header, map_header
from tests.support.deliveries import Choices, choices, delivered
from tests.support.role_scenarios import (
    Scenario,
    book_of,
    recorded,
    role_differences,
    role_questions,
    transaction_of,
    validity_differences,
    views_of,
)

ANN, BOB, CAT = Author("ann"), Author("bob"), Author("cat")


def setting(made_at: int, key: str, value: object) -> Transaction:
    return Transaction(made_at, json.dumps([{"op": "set", "key": key, "value": value}]))


def founded(name: str, founder: Author = ANN, made_at: int = 100) -> GroupView:
    header = group_header(founder.account_id, name)
    view = GroupView(header.id, header)
    add(view, founder, setting(made_at, founder.account_id, "admin"))
    return view


def add(view: GroupView, author: Author, *transactions: Transaction) -> None:
    session_id = author.session_id()
    view.add(session_id, view.count(session_id), transactions)


def linked(view: GroupView, parent: GroupView, value: object = "extend", at: int = 200) -> None:
    add(view, ANN, setting(at, f"parent_{parent.co_id}", value))


def book_with(*views: GroupView) -> RoleBook:
    book = RoleBook()
    for view in views:
        book.add_view(view)
    return book


# ---- what cojson says


@pytest.mark.parametrize("scenario", recorded(), ids=lambda scenario: scenario["name"])
def test_recorded_scenarios(scenario: Scenario) -> None:
    book = book_of(scenario)
    assert role_differences(book, scenario) == []
    assert validity_differences(book, scenario) == []


def test_the_recorded_scenarios_show_something() -> None:
    roles = {role for scenario in recorded() for _, _, _, role in role_questions(scenario)}
    assert roles == {*Role, "-"} - {"revoked"}
    verdicts = "".join(
        text for scenario in recorded() for value in scenario["values"]
        for text in value["valid"].values()
    )  # fmt: skip
    assert min(verdicts.count("0"), verdicts.count("1")) > 1_000
    assert len(recorded()) >= 40


# ---- parents


@pytest.mark.parametrize("link", ["extend", "reader", "writer", "manager", "admin", "revoked", ""])
@pytest.mark.parametrize("in_parent", Role)
def test_what_a_link_gives(in_parent: Role, link: str) -> None:
    parent, child = founded("parent"), founded("child")
    add(parent, ANN, setting(150, BOB.account_id, in_parent))
    linked(child, parent, link)
    inherits = in_parent.is_inheritable and link not in ("revoked", "")
    expected = (in_parent if link == "extend" else Role(link)) if inherits else None
    book = book_with(parent, child)
    assert book.role_of(child.co_id, BOB.account_id, 199) is None
    assert book.role_of(child.co_id, BOB.account_id, 200) is expected


ORDER = [None, Role.READER, Role.WRITE_ONLY, Role.WRITER, Role.MANAGER, Role.ADMIN]


@pytest.mark.parametrize("inherited", ["reader", "writer", "manager", "admin"])
@pytest.mark.parametrize("direct", ["reader", "writeOnly", "writer", "manager", "admin"])
def test_the_better_role_counts(direct: str, inherited: str) -> None:
    parent, child = founded("parent"), founded("child")
    add(parent, ANN, setting(150, BOB.account_id, inherited))
    add(child, ANN, setting(150, BOB.account_id, direct))
    linked(child, parent)
    role = book_with(parent, child).role_of(child.co_id, BOB.account_id, 300)
    assert role is max(Role(direct), Role(inherited), key=ORDER.index)


def test_revoked_here_and_admin_above_is_admin() -> None:
    parent, child = founded("parent"), founded("child")
    add(parent, ANN, setting(150, BOB.account_id, "admin"))
    add(child, ANN, setting(150, BOB.account_id, "revoked"))
    linked(child, parent)
    add(child, BOB, setting(250, CAT.account_id, "writer"))
    book = book_with(parent, child)
    assert book.role_of(child.co_id, BOB.account_id, 250) is Role.ADMIN
    assert book.role_of(child.co_id, CAT.account_id, 250) is Role.WRITER


ACTING = ["reader", "writer", "manager", "admin"]


@pytest.mark.parametrize("second", ACTING)
@pytest.mark.parametrize("first", ACTING)
@pytest.mark.parametrize("direct", [None, "reader", "writeOnly", "writer", "manager", "revoked"])
def test_who_has_roles_of_several_parents_acts_as_the_highest(
    direct: str | None, first: str, second: str
) -> None:
    """But for writeOnly, above which only managers and admins are, as in the original."""
    one, other, child = founded("one"), founded("other"), founded("child")
    add(one, ANN, setting(150, BOB.account_id, first))
    add(other, ANN, setting(150, BOB.account_id, second))
    if direct is not None:
        add(child, ANN, setting(150, BOB.account_id, direct))
    linked(child, one, at=160)
    linked(child, other, at=170)
    for role in ("admin", "writer"):
        add(child, BOB, setting(300, f"a new {role}", role))
    book = book_with(one, other, child)
    allowed = [book.role_of(child.co_id, f"a new {role}", 400) for role in ("admin", "writer")]
    roles = {direct, first, second}
    assert allowed == [
        Role.ADMIN if "admin" in roles else None,
        Role.WRITER if roles & {"admin", "manager"} else None,
    ]


def test_a_parent_is_asked_about_the_same_time() -> None:
    top, parent, child = founded("top"), founded("parent"), founded("child")
    linked(parent, top, at=200)
    linked(child, parent, at=300)
    add(top, ANN, setting(400, BOB.account_id, "writer"), setting(500, BOB.account_id, "revoked"))
    linked(parent, top, "revoked", at=600)
    book = book_with(top, parent, child)
    told = [book.role_of(child.co_id, BOB.account_id, at) for at in (399, 400, 499, 500)]
    assert told == [None, Role.WRITER, Role.WRITER, None]


def test_inherited_admins_change_the_group_while_the_link_lives() -> None:
    parent, child = founded("parent"), founded("child")
    add(parent, ANN, setting(150, BOB.account_id, "admin"))
    linked(child, parent, at=200)
    linked(child, parent, "revoked", at=300)
    linked(child, parent, "reader", at=400)
    for at in (199, 201, 299, 301, 401):
        add(child, BOB, setting(at, f"member {at}", "reader"))
    book = book_with(parent, child)
    told = [book.role_of(child.co_id, f"member {at}", 500) for at in (199, 201, 299, 301, 401)]
    assert told == [None, Role.READER, Role.READER, None, None]


def test_a_change_above_judges_anew_what_is_below() -> None:
    parent, child = founded("parent"), founded("child")
    linked(child, parent, at=200)
    add(child, BOB, setting(400, CAT.account_id, "writer"))
    book = book_with(parent, child)
    assert book.role_of(child.co_id, CAT.account_id, 500) is None
    book.extend(parent.co_id, ANN.session_id(), 1, [setting(300, BOB.account_id, "admin")])
    assert book.role_of(child.co_id, CAT.account_id, 500) is Role.WRITER
    book.extend(parent.co_id, ANN.session_id(), 2, [setting(300, ANN.account_id, "revoked")])
    assert book.role_of(child.co_id, CAT.account_id, 500) is Role.WRITER
    book.extend(parent.co_id, BOB.session_id(), 0, [setting(350, BOB.account_id, "revoked")])
    assert book.role_of(child.co_id, CAT.account_id, 500) is None


@pytest.mark.parametrize("comes_late", ["role", "link"])
def test_a_change_two_groups_above_judges_anew_what_is_below(comes_late: str) -> None:
    """The group between is judged by nothing as late as that, and stays as it is."""
    top, parent, child = founded("top"), founded("parent"), founded("child")
    linked(child, parent, at=200)
    add(child, BOB, setting(400, CAT.account_id, "writer"))
    if comes_late == "role":
        linked(parent, top, at=200)
        group, late = top, setting(300, BOB.account_id, "admin")
    else:
        add(top, ANN, setting(200, BOB.account_id, "admin"))
        group, late = parent, setting(300, f"parent_{top.co_id}", "extend")
    book = book_with(top, parent, child)
    assert book.role_of(child.co_id, CAT.account_id, 500) is None
    book.extend(group.co_id, ANN.session_id(), group.count(ANN.session_id()), [late])
    assert book.role_of(child.co_id, CAT.account_id, 500) is Role.WRITER


def test_a_change_above_is_passed_on_once_however_many_ways_lead_down() -> None:
    """Two groups on each of thirty floors, each linked to both above: a billion ways."""
    top = founded("top")
    views, above = [top], [top]
    for floor in range(30):
        here = [founded(f"{floor} {name}") for name in "ab"]
        for group in here:
            for parent in above:
                linked(group, parent, at=200)
        views += here
        above = here
    book = book_with(*views)
    lowest = above[0].co_id
    assert book.role_of(lowest, BOB.account_id, 500) is None
    for number in range(3):
        for author, value in ((BOB, "reader"), (CAT, "writer")):
            made_at = 300 + number
            count = top.count(ANN.session_id())
            change = setting(made_at, author.account_id, value if number % 2 == 0 else "revoked")
            book.extend(top.co_id, ANN.session_id(), count, [change])
            book.role_of(lowest, author.account_id, 500)
    assert book.role_of(lowest, BOB.account_id, 500) is Role.READER


def test_many_changes_above_take_no_memory_for_each_group_below() -> None:
    parent, children = founded("parent"), [founded(f"child {number}") for number in range(20)]
    for child in children:
        linked(child, parent)
    book = book_with(parent, *children)
    for child in children:
        assert book.missing(child.co_id) == []
    changes = [setting(1000, BOB.account_id, ("reader", "revoked")[n % 2]) for n in range(5001)]
    book.extend(parent.co_id, ANN.session_id(), parent.count(ANN.session_id()), changes)
    assert book.role_of(parent.co_id, BOB.account_id, 1000) is Role.READER
    tracemalloc.start()
    try:
        for child in children:
            assert book.role_of(child.co_id, BOB.account_id, 1000) is Role.READER
        book.role_of(parent.co_id, BOB.account_id, 1000)  # what the last answer used is free
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < len(children) * 10_000


def test_who_founds_a_group_and_left_it_before_is_no_admin() -> None:
    view = founded("group")
    book = book_with(view)
    assert book.role_of(view.co_id, ANN.account_id, 500) is Role.ADMIN
    book.extend(view.co_id, ANN.session_id("x"), 0, [setting(1, ANN.account_id, "revoked")])
    assert book.role_of(view.co_id, ANN.account_id, 500) is None


def test_of_two_links_that_invite_the_one_alive_longer_counts() -> None:
    first, second, child = founded("first"), founded("second"), founded("child")
    for parent in (first, second):
        add(parent, ANN, setting(150, CAT.account_id, "reader"))
    linked(child, first, "readerInvite", at=200)
    linked(child, second, "writerInvite", at=210)
    add(child, CAT, setting(211, "guest 1", "reader"), setting(212, "guest 2", "writer"))
    linked(child, first, "revoked", at=220)
    linked(child, first, "readerInvite", at=230)
    add(child, CAT, setting(240, "guest 3", "reader"), setting(240, "guest 4", "writer"))
    book = book_with(first, second, child)
    told = [book.role_of(child.co_id, f"guest {number}", 300) for number in (1, 2, 3, 4)]
    assert told == [Role.READER, None, None, Role.WRITER]
    # The same when they are judged again at their place, with later changes known.
    for index, (at, role) in enumerate(
        [(211, "reader"), (212, "writer"), (240, "reader"), (240, "writer")]
    ):
        valid = book.may_write(
            child.co_id, child.header, CAT.session_id(), index, setting(at, "guest", role)
        )
        assert valid == (told[index] is not None)


def test_an_accounts_members_hand_on_nothing() -> None:
    account = GroupView(BOB.account_id, BOB.account_header)
    child = founded("child")
    linked(child, account)
    book = book_with(account, child)
    assert book.role_of(child.co_id, BOB.account_id, 300) is None
    assert book.role_of(BOB.account_id, BOB.account_id, 0) is Role.ADMIN


def test_what_is_no_group_has_no_roles() -> None:
    odd = parse_header({**founded("x").header.fields, "type": "colist"})
    view = GroupView(odd.id, odd)
    add(view, ANN, setting(100, ANN.account_id, "admin"))
    child = founded("child")
    linked(child, view)
    book = book_with(view, child)
    assert book.role_of(view.co_id, ANN.account_id, 200) is None
    assert book.role_of(child.co_id, ANN.account_id, 200) is Role.ADMIN
    assert book.missing(child.co_id) == []


# ---- what must be in memory


def test_missing_groups_are_named_until_none_is() -> None:
    top, parent, child = founded("top"), founded("parent"), founded("child")
    linked(parent, top)
    linked(child, parent)
    add(top, ANN, setting(150, BOB.account_id, "admin"))
    book = RoleBook()
    views = {view.co_id: view for view in (top, parent, child)}
    asked = []
    while missing := book.missing(child.co_id):
        with pytest.raises(GroupsMissing) as caught:
            book.role_of(child.co_id, BOB.account_id, 300)
        assert caught.value.group_ids == missing
        asked += missing
        for co_id in missing:
            book.add_view(views[co_id])
    assert asked == [child.co_id, parent.co_id, top.co_id]
    assert book.role_of(child.co_id, BOB.account_id, 300) is Role.ADMIN
    book.discard(top.co_id)
    assert book.missing(child.co_id) == [top.co_id]
    book.add_view(top)
    assert book.role_of(child.co_id, BOB.account_id, 300) is Role.ADMIN


def test_a_parent_that_was_not_here_has_a_say_when_it_comes() -> None:
    parent, child = founded("parent"), founded("child")
    add(parent, ANN, setting(150, BOB.account_id, "admin"))
    linked(child, parent)
    book = book_with(child)
    assert book.missing(child.co_id) == [parent.co_id]
    book.add_absent(parent.co_id)
    assert book.missing(child.co_id) == []
    assert book.role_of(child.co_id, BOB.account_id, 300) is None
    assert book.reach(child.co_id) == {child.co_id, parent.co_id}
    book.add_view(parent)
    assert book.role_of(child.co_id, BOB.account_id, 300) is Role.ADMIN


def test_links_that_strangers_make_lead_nowhere() -> None:
    child = founded("child")
    add(child, BOB, setting(200, f"parent_{founded('theirs', BOB).co_id}", "extend"))
    assert book_with(child).missing(child.co_id) == []


def test_a_link_found_invalid_later_is_not_asked_for() -> None:
    child, parent = founded("child"), founded("parent", BOB)
    add(child, ANN, setting(150, BOB.account_id, "admin"))
    add(child, BOB, setting(300, f"parent_{parent.co_id}", "extend"))
    book = book_with(child)
    assert book.missing(child.co_id) == [parent.co_id]
    book.extend(child.co_id, BOB.session_id(), 1, [setting(200, BOB.account_id, "revoked")])
    assert book.missing(child.co_id) == []


def test_more_than_fits_is_dropped_oldest_first() -> None:
    views = [founded(f"group {number}") for number in range(6)]
    book = RoleBook(max_bytes=views[0].size_bytes * 7 // 2)
    for view in views[:3]:
        book.add_view(view)
    assert book.size_bytes == sum(view.size_bytes for view in views[:3])
    for used in (views[0], views[2]):
        assert book.role_of(used.co_id, ANN.account_id, 100) is Role.ADMIN
    book.add_view(views[3])
    assert [view.co_id in book for view in views] == [True, False, True, True, False, False]
    assert book.size_bytes <= views[0].size_bytes * 7 // 2
    book.extend(views[1].co_id, ANN.session_id(), 7, [])
    book.discard(views[1].co_id)
    for view in views:
        book.discard(view.co_id)
    assert book.size_bytes == 0


def test_groups_that_do_not_fit_together_have_no_members() -> None:
    parent, child = founded("parent"), founded("child")
    linked(child, parent)
    book = RoleBook(max_bytes=child.size_bytes * 3 // 2)
    book.add_view(child)
    assert book.missing(child.co_id) == [parent.co_id]
    book.add_view(parent)
    assert book.missing(child.co_id) == []
    assert book.role_of(child.co_id, ANN.account_id, 300) is None
    assert book.role_of(parent.co_id, ANN.account_id, 300) is Role.ADMIN


def test_groups_that_just_fit_together_have_members() -> None:
    parent, child = founded("parent"), founded("child")
    linked(child, parent)
    book = RoleBook(max_bytes=child.size_bytes + parent.size_bytes)
    book.add_view(child)
    book.add_view(parent)
    assert book.role_of(child.co_id, ANN.account_id, 300) is Role.ADMIN


def test_what_stops_fitting_is_forgotten_and_what_fits_again_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that has judged a part by then knows nothing of that, either."""
    parent, child, stranger = founded("parent"), founded("child"), founded("stranger", CAT)
    linked(child, parent)
    add(parent, ANN, setting(150, BOB.account_id, "writer"))
    book = book_with(parent, child)
    assert book.role_of(child.co_id, BOB.account_id, 300) is Role.WRITER
    # Two groups, which are one more event than they may have.
    monkeypatch.setattr(role_judgment, "MAX_WORK", 2 * (len(parent.events) + len(child.events)))
    book.extend(child.co_id, ANN.session_id(), 2, [setting(250, CAT.account_id, "reader")])
    assert book.role_of(child.co_id, BOB.account_id, 300) is None
    assert book.missing(child.co_id) == []
    assert book.role_of(parent.co_id, BOB.account_id, 300) is Role.WRITER
    monkeypatch.undo()
    book.add_view(stranger)
    book.extend(child.co_id, ANN.session_id(), 3, [setting(260, CAT.account_id, "writer")])
    assert book.role_of(child.co_id, BOB.account_id, 300) is Role.WRITER
    assert book.role_of(child.co_id, CAT.account_id, 300) is Role.WRITER


# ---- far and around


def chain(length: int) -> list[GroupView]:
    views = [founded(f"link {number}") for number in range(length)]
    for child, parent in zip(views[1:], views, strict=False):
        linked(child, parent)
    add(views[0], ANN, setting(150, BOB.account_id, "writer"))
    return views


def test_long_chains_of_parents() -> None:
    length = 350
    book, views = RoleBook(), chain(length)
    assert length * (2 * length) <= MAX_WORK
    for view in views:
        book.add_view(view)
    assert book.role_of(views[-1].co_id, BOB.account_id, 300) is Role.WRITER


def test_parents_are_asked_once_for_all_times_between_two_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A message of 10,000 transactions asked 300 parents for each of them: for five seconds."""
    views = chain(20)
    book = book_with(*views)
    group = views[-1].co_id
    assert book.role_of(group, ANN.account_id, 1000) is Role.ADMIN
    asked = 0
    role_at = Membership.role_at

    def count(self: Membership, *arguments: Any) -> Role | None:
        nonlocal asked
        asked += 1
        return role_at(self, *arguments)

    monkeypatch.setattr(Membership, "role_at", count)
    for made_at in range(1000, 2000):
        assert book.role_of(group, CAT.account_id, made_at) is None
    assert asked <= 20
    add(views[0], ANN, setting(1500, CAT.account_id, "writer"))
    book.add_view(views[0])
    roles = [book.role_of(group, CAT.account_id, made_at) for made_at in range(1000, 2000)]
    assert roles == [None] * 500 + [Role.WRITER] * 500


def test_longer_chains_have_no_members() -> None:
    book, views = RoleBook(), chain(400)
    for view in views:
        book.add_view(view)
    assert book.missing(views[-1].co_id) == []
    assert book.role_of(views[-1].co_id, BOB.account_id, 300) is None
    assert book.role_of(views[-1].co_id, ANN.account_id, 300) is None
    assert book.role_of(views[300].co_id, BOB.account_id, 300) is Role.WRITER
    assert not book.may_write(
        views[-1].co_id, views[-1].header, ANN.session_id(), 9, setting(300, "root", "x")
    )


def test_a_group_is_not_its_own_parent() -> None:
    view = founded("group")
    linked(view, view)
    book = book_with(view)
    assert book.role_of(view.co_id, ANN.account_id, 300) is Role.ADMIN
    assert not book.may_write(
        view.co_id, view.header, ANN.session_id(), 1, setting(200, f"parent_{view.co_id}", "extend")
    )


@pytest.mark.parametrize("size", [2, 3, 5])
def test_circles_end(size: int) -> None:
    views = [founded(f"in a circle {number}") for number in range(size)]
    for child, parent in zip(views, [*views[1:], views[0]], strict=True):
        linked(child, parent)
    add(views[0], ANN, setting(150, BOB.account_id, "writer"))
    below = founded("below")
    linked(below, views[-1])
    for order in ([*views, below], [below, *reversed(views)]):
        book = book_with(*order)
        for view in order * 2:
            assert book.role_of(view.co_id, BOB.account_id, 300) is Role.WRITER
            assert book.role_of(view.co_id, CAT.account_id, 300) is None


def test_a_circle_is_judged_alike_when_another_group_has_to_be_judged_anew_meanwhile() -> None:
    """What was judged before that is not what a group of the circle sees of the next one."""
    above, beside, late, below = map(founded, ("above", "beside", "late", "below"))
    add(above, ANN, setting(150, BOB.account_id, "manager"))
    linked(above, beside)
    linked(beside, above)
    add(beside, BOB, setting(250, CAT.account_id, "writer"))
    add(late, ANN, setting(300, BOB.account_id, "admin"))
    linked(below, above)
    linked(below, late)
    groups = (above, beside, late, below)
    book = book_with(*groups)
    questions = [(group.co_id, who.account_id, 400) for group in groups for who in (BOB, CAT)]
    assert book.role_of(late.co_id, BOB.account_id, 400) is Role.ADMIN
    demoted = setting(250, BOB.account_id, "reader")
    book.extend(late.co_id, ANN.session_id("b"), 0, [demoted])
    assert book.role_of(*questions[-1]) is None
    whole = book_with(*groups)
    assert [book.role_of(*each) for each in questions] == [
        whole.role_of(*each) for each in questions
    ]


# ---- deleting and writing


def owned(group_id: str) -> CoValueHeader:
    return map_header("owned", group_id)


def test_who_may_delete() -> None:
    group = founded("group")
    add(group, ANN, setting(200, BOB.account_id, "admin"), setting(200, CAT.account_id, "manager"))
    book = book_with(group, GroupView(BOB.account_id, BOB.account_header))
    header = owned(group.co_id)
    assert book.may_delete(header, ANN.account_id, 100)
    assert not book.may_delete(header, ANN.account_id, 99)
    assert not book.may_delete(header, BOB.account_id, 199)
    assert book.may_delete(header, BOB.account_id, 200)
    assert not book.may_delete(header, CAT.account_id, 200)
    assert book.may_delete(owned(BOB.account_id), BOB.account_id, 0)
    assert not book.may_delete(owned(BOB.account_id), ANN.account_id, 300)
    for undeletable in (group.header, BOB.account_header, map_header("open"), owned("co_zshort")):
        assert not book.may_delete(undeletable, ANN.account_id, 300)
    with pytest.raises(GroupsMissing):
        book.may_delete(owned(founded("unknown").co_id), ANN.account_id, 300)


@pytest.mark.parametrize("role", [None, *Role])
def test_who_may_write_into_a_value(role: Role | None) -> None:
    group = founded("group")
    if role is not None:
        add(group, ANN, setting(200, BOB.account_id, role))
    book, header = book_with(group), owned(group.co_id)

    def may(transaction: Transaction) -> bool:
        return book.may_write(header.id, header, BOB.session_id(), 0, transaction)

    can_write = role in ("admin", "manager", "writer", "writeOnly")
    assert may(setting(200, "a", 1)) == can_write
    assert may(Transaction(200, "encrypted_UAA", "key_z1", "encrypted_UBB")) == can_write
    assert not may(setting(199, "a", 1))
    pointer = '{"branch":"b","ownerId":"co_z1"}'
    assert may(Transaction(200, "[]", None, pointer)) == (can_write or role is Role.READER)
    assert not may(Transaction(199, "[]", None, pointer))
    no_pointers = ("{}", '{"branch":"b"}', '{"branch":"","ownerId":1}', "null", "[", "[" * 10_000)
    for meta in no_pointers:
        assert may(Transaction(200, "[]", None, meta)) == can_write
    assert may(Transaction(200, "[]", "key_z1", pointer)) == can_write


def test_transactions_of_a_group_that_come_together_rest_on_one_another() -> None:
    header = founded("whole").header
    by_ann = [
        setting(100, ANN.account_id, "admin"),
        setting(110, BOB.account_id, "manager"),
        setting(400, CAT.account_id, "admin"),
    ]
    by_bob = [setting(105, CAT.account_id, "reader"), setting(120, CAT.account_id, "reader")]
    book = book_with(GroupView(header.id, header))

    def verdicts() -> list[bool]:
        return [
            book.may_write(header.id, header, session_id, index, transaction)
            for session_id, part in ((ANN.session_id(), by_ann), (BOB.session_id(), by_bob))
            for index, transaction in enumerate(part)
        ]

    assert verdicts() == [True, False, False, False, False]
    book.extend(header.id, BOB.session_id(), 0, by_bob)
    book.extend(header.id, ANN.session_id(), 0, by_ann)
    assert verdicts() == [True, True, True, False, True]
    book.discard(header.id)
    assert book.missing(header.id) == [header.id]


def test_an_account_writes_as_its_agent() -> None:
    account = GroupView(ANN.account_id, ANN.account_header)
    account.add(ANN.session_id(as_agent=True), 0, [setting(100, ANN.agent_id, "admin")])
    book, header = book_with(account), owned(ANN.account_id)
    for as_agent in (False, True):
        session_id = ANN.session_id(as_agent=as_agent)
        assert book.may_write(header.id, header, session_id, 0, setting(100, "a", 1))
        assert not book.may_write(header.id, header, session_id, 0, setting(99, "a", 1))
    assert not book.may_write(header.id, header, BOB.session_id(), 0, setting(100, "a", 1))


def test_values_that_nobody_rules() -> None:
    book = RoleBook()
    header = map_header("open")
    assert ruling_group(header) is None
    assert book.may_write(header.id, header, BOB.session_id(), 0, setting(1, "a", 1))
    header = owned("co_zshort")
    assert ruling_group(header) is None
    assert not book.may_write(header.id, header, BOB.session_id(), 0, setting(1, "a", 1))


# ---- no order of arrival matters

Session = tuple[RawCoId, CoSessionId]


def sessions_of(scenario: Scenario) -> dict[Session, list[Transaction]]:
    return {
        (value["id"], CoSessionId(session_id)): [transaction_of(raw) for raw in transactions]
        for value in scenario["values"]
        if parse_header(value["header"]).is_group
        for session_id, transactions in value["sessions"].items()
    }


def empty_book(scenario: Scenario, view_order: Iterable[int]) -> RoleBook:
    views = [GroupView(view.co_id, view.header) for view in views_of(scenario)]
    book = RoleBook()
    for number in view_order:
        book.add_view(views.pop(number % len(views)))
    for view in views:
        book.add_view(view)
    return book


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([scenario for scenario in recorded() if "random" in scenario["name"]]),
    choices,
    st.lists(st.integers(0, 9), max_size=3),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_any_order_of_arrival_gives_the_same_answers(
    scenario: Scenario, chosen: Choices, view_order: list[int], asked: list[int]
) -> None:
    """Also when questions come in between: what was judged early must not linger."""
    book = empty_book(scenario, view_order)
    questions = list(role_questions(scenario))
    for number, (session, after, transactions) in enumerate(
        delivered(sessions_of(scenario), chosen)
    ):
        book.extend(*session, after, transactions)
        if number < len(asked):
            group_id, member, time, _ = questions[asked[number] % len(questions)]
            book.role_of(group_id, member, time)
    assert role_differences(book, scenario) == []
    assert validity_differences(book, scenario) == []


GROUPS = [group_header(author.account_id, f"web {author.name}") for author in (ANN, BOB, CAT)]
AUTHORS = [ANN, BOB, CAT]
times = st.integers(100, 106)
keys = st.sampled_from(
    [*(author.account_id for author in AUTHORS), "everyone"]
    + [f"parent_{header.id}" for header in GROUPS] * 2
)
values = st.sampled_from(
    ["admin", "manager", "writer", "reader", "extend", "revoked", "adminInvite"]
)
Web = tuple[list[tuple[int, int, int]], list[tuple[int, int, int, str, str]]]
numbers = st.integers(0, 2)
webs = st.tuples(
    st.lists(st.tuples(numbers, numbers, times), min_size=2, max_size=6),
    st.lists(st.tuples(numbers, numbers, times, keys, values), min_size=5, max_size=30),
)
"""Links that founders make, (group, parent, time), and changes that anybody tries to make."""


def web_sessions(web: Web) -> dict[Session, list[Transaction]]:
    """Three groups that link to one another, often in circles, each written by three authors."""
    links, changes = web
    sessions: dict[Session, list[Transaction]] = {
        (header.id, author.session_id()): [] for header in GROUPS for author in AUTHORS
    }
    for header, author in zip(GROUPS, AUTHORS, strict=True):
        first = setting(99, author.account_id, "admin")
        sessions[header.id, author.session_id()].append(first)
    for group, parent, time in links:
        session = (GROUPS[group].id, AUTHORS[group].session_id())
        sessions[session].append(setting(time, f"parent_{GROUPS[parent].id}", "extend"))
    for group, writer, time, key, value in changes:
        session = (GROUPS[group].id, AUTHORS[writer].session_id())
        sessions[session].append(setting(time, key, value))
    return sessions


def book_of_web(sessions: Mapping[Session, Sequence[Transaction]]) -> RoleBook:
    book = RoleBook()
    for header in GROUPS:
        book.add_view(GroupView(header.id, header))
    for session, log in sessions.items():
        book.extend(*session, 0, log)
    return book


def web_answers(book: RoleBook) -> list[Any]:
    return [role for header in GROUPS for role in roles_in(book, header.id)]


def roles_in(book: RoleBook, group_id: RawCoId) -> list[Any]:
    return [
        book.role_of(group_id, member, time)
        for member in (*(author.account_id for author in AUTHORS), "everyone")
        for time in (99, 101, 103, 106)
    ]


@settings(max_examples=80, deadline=None)
@given(webs, choices, st.lists(st.integers(0, 2), max_size=20))
def test_webs_of_groups_have_one_meaning(web: Web, chosen: Choices, asked: list[int]) -> None:
    sessions = web_sessions(web)
    whole, pieces = RoleBook(), RoleBook()
    for header in GROUPS:
        view = GroupView(header.id, header)
        for (co_id, session_id), transactions in sessions.items():
            if co_id == header.id:
                view.add(session_id, 0, transactions)
        whole.add_view(view)
    for header in reversed(GROUPS):
        pieces.add_view(GroupView(header.id, header))
    for number, (session, after, part) in enumerate(delivered(sessions, chosen)):
        pieces.extend(*session, after, part)
        if number < len(asked):
            pieces.role_of(GROUPS[asked[number]].id, BOB.account_id, 105)
    expected = web_answers(whole)
    assert web_answers(pieces) == expected
    assert web_answers(whole) == expected


members = st.sampled_from([*(author.account_id for author in AUTHORS), "everyone"])
given_roles = st.sampled_from(["admin", "manager", "reader", "revoked"])
link_values = st.sampled_from(["extend", "reader", "revoked"])
steps = st.one_of(
    st.tuples(numbers, numbers, times, members, given_roles),
    st.tuples(numbers, st.none(), times, members, given_roles),
    st.tuples(st.integers(1, 2), st.none(), times, st.none(), link_values),
)
"""(group, writer, time, key, value): its founder, and the group above, where they are None."""


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(steps, numbers), min_size=10, max_size=40))
def test_a_change_above_counts_wherever_it_matters(
    changes: list[tuple[tuple[int, int | None, int, str | None, str], int]],
) -> None:
    """One change after the other, and groups in no circle: what was judged of them is kept."""
    sessions = web_sessions(([(1, 0, 100), (2, 1, 100)], []))
    book = book_of_web(sessions)
    for (group, writer, time, key, value), asked in changes:
        session_id = AUTHORS[group if writer is None else writer].session_id()
        log = sessions[GROUPS[group].id, session_id]
        log.append(setting(time, key or f"parent_{GROUPS[group - 1].id}", value))
        book.extend(GROUPS[group].id, session_id, len(log) - 1, log[-1:])
        roles = roles_in(book, GROUPS[asked].id)
        assert roles == roles_in(book_of_web(sessions), GROUPS[asked].id)


def ask_patiently(book: RoleBook, group_id: RawCoId) -> None:
    """Have the roles in a group known, in whatever time that takes."""
    for _ in range(5):
        try:
            assert book.missing(group_id) == []
        except JudgingTakesLong:
            for _ in book.judge_aside(group_id):
                pass
        else:
            return
    raise AssertionError("judging aside leads nowhere")


def read_anew(view: GroupView, sessions: Mapping[Session, Sequence[Transaction]]) -> GroupView:
    """The same, with its sessions in another order."""
    again = GroupView(view.co_id, view.header)
    for (co_id, session_id), transactions in reversed([*sessions.items()]):
        if co_id == view.co_id:
            again.add(session_id, 0, transactions[: view.count(session_id)])
    return again


@settings(max_examples=150, deadline=None)
@given(webs, choices, st.lists(st.integers(0, 11), max_size=60))
def test_groups_judged_a_slice_at_a_time_have_the_same_meaning(
    web: Web, chosen: Choices, moves: list[int]
) -> None:
    """Whatever is added, asked, judged at once or dropped from memory between two slices."""
    sessions = web_sessions(web)
    whole, pieces = RoleBook(), RoleBook(max_slices=1)
    views = {header.id: GroupView(header.id, header) for header in GROUPS}
    for header in GROUPS:
        pieces.add_view(GroupView(header.id, header))
    asides: dict[RawCoId, Iterator[object]] = {}

    def move(number: int) -> None:
        kind, group_id = number // 3, GROUPS[number % 3].id
        if kind <= 1:
            aside = asides.setdefault(group_id, pieces.judge_aside(group_id))
            if next(aside, "over") == "over":
                del asides[group_id]
        elif kind == 2:
            with suppress(JudgingTakesLong):
                pieces.role_of(group_id, BOB.account_id, 105)
        else:
            pieces.add_view(read_anew(views[group_id], sessions))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(role_judgment, "SLICE_WORK", 2)
        left = iter(moves)
        for session, after, part in delivered(sessions, chosen):
            pieces.extend(*session, after, part)
            views[session[0]].add(session[1], after, part)
            for number in islice(left, 3):
                move(number)
        for number in left:
            move(number)
        for header in GROUPS:
            whole.add_view(views[header.id])
        expected = web_answers(whole)
        answers = []
        for header in GROUPS:
            ask_patiently(pieces, header.id)
            answers += roles_in(pieces, header.id)
    assert answers == expected


def test_a_group_is_not_kept_as_judged_by_a_parent_that_was_judged_anew_meanwhile() -> None:
    parent, large, group, child = map(founded, ("parent", "large", "group", "child"))
    add(parent, ANN, setting(150, BOB.account_id, "manager"))
    add(parent, ANN, setting(600, "everyone", "reader"))
    linked(large, parent)
    add(large, ANN, *[setting(500, BOB.account_id, "writer")] * (2 * SLICE_WORK))
    linked(group, parent)
    add(group, BOB, setting(350, CAT.account_id, "writer"))
    linked(child, large)
    linked(child, group, at=300)
    book = RoleBook(max_slices=1)
    for view in (parent, large, group, child):
        book.add_view(view)
    aside = book.judge_aside(child.co_id)
    assert next(aside) == ()  # the parent is judged, and the large group in part
    book.extend(parent.co_id, ANN.session_id("b"), 0, [setting(250, BOB.account_id, "reader")])
    assert book.role_of(parent.co_id, BOB.account_id, 300) is Role.READER
    assert [*aside]
    assert book.role_of(group.co_id, CAT.account_id, 400) is None


def test_a_large_group_that_was_dropped_while_it_waited_is_read_and_judged_in_its_turn() -> None:
    parent, large = founded("parent"), founded("large")
    linked(large, parent)
    add(large, ANN, *[setting(500, BOB.account_id, "writer")] * (2 * SLICE_WORK))
    book = RoleBook(max_bytes=large.size_bytes + 2 * parent.size_bytes, max_slices=1)
    for view in (parent, large):
        book.add_view(view)
    with pytest.raises(JudgingTakesLong):
        book.missing(large.co_id)
    others = [founded(f"other {number}") for number in range(20)]
    for other in others:
        book.add_view(other)
        book.missing(other.co_id)
    assert parent.co_id not in book
    assert large.co_id not in book
    named: list[RawCoId] = []
    for missing in book.judge_aside(large.co_id):
        for co_id in missing:
            named.append(co_id)
            book.add_view({view.co_id: view for view in (parent, large)}[co_id])
        for other in others:  # who judges these meanwhile drops nothing of it
            book.add_view(other)
            book.missing(other.co_id)
    assert named == [large.co_id, parent.co_id]
    assert book.role_of(large.co_id, BOB.account_id, 600) is Role.WRITER


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.text(max_size=20)), max_size=5), st.text())
def test_any_changes_are_judged(changes: list[tuple[int, str]], member: str) -> None:
    view = founded("hostile")
    transactions = [Transaction(made_at, text, None, text) for made_at, text in changes]
    add(view, BOB, *transactions)
    book = book_with(view)
    assert book.role_of(view.co_id, ANN.account_id, 2**64) is Role.ADMIN
    assert book.role_of(view.co_id, member, 2**64) is None
    for header in (view.header, owned(view.co_id)):
        for index, transaction in enumerate(transactions):
            session_id = BOB.session_id()
            assert not book.may_write(view.co_id, header, session_id, index, transaction)
