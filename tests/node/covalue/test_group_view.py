from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given

from node.covalue.content import Transaction
from node.covalue.group_view import GroupView
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.roles import RoleBook
from tests.support.authors import Author, group_header, map_header
from tests.support.deliveries import Choices, choices, delivered

ANN, BOB = Author("ann"), Author("bob")
HEADER = group_header(ANN.account_id)
FIRST, SECOND = ANN.session_id("a"), ANN.session_id("b")


def change(made_at: int, key: str, value: object = "reader") -> Transaction:
    return Transaction(made_at, json.dumps([{"op": "set", "key": key, "value": value}]))


def view_of(header: CoValueHeader = HEADER) -> GroupView:
    return GroupView(header.id, header)


CHANGES = [change(at, f"member {at}") for at in range(10)]


def test_transactions_are_taken_once_and_without_gaps() -> None:
    view = view_of()
    assert view.add(FIRST, 0, CHANGES[:4])
    assert view.count(FIRST) == 4
    assert view.count(SECOND) == 0
    assert not view.add(FIRST, 0, CHANGES[:4])
    assert not view.add(FIRST, 2, CHANGES[2:3])
    with pytest.raises(ValueError, match="transactions from 5 of a session known up to 4"):
        view.add(FIRST, 5, CHANGES[5:])
    assert view.add(FIRST, 3, CHANGES[3:6])
    assert [event.tx_index for event in view.events] == list(range(6))
    assert view.events[5].change.subject == "member 5"


def test_what_changes_no_role_is_counted_and_not_kept() -> None:
    view = view_of()
    useless = [
        change(1, f"key_z1_for_{BOB.account_id}", "sealed_U" + "A" * 10_000),
        change(2, "readKey", "key_z1"),
        change(3, BOB.account_id, "nonsense"),
        Transaction(4, "no JSON"),
        Transaction(5, "encrypted_U" + "A" * 10_000, "key_z1"),
    ]
    before = view.size_bytes
    assert not view.add(FIRST, 0, useless)
    assert view.count(FIRST) == 5
    assert view.events == []
    assert view.size_bytes - before < 1_000
    assert view.add(FIRST, 5, [change(6, BOB.account_id)])


def test_times_are_those_of_javascript() -> None:
    view = view_of()
    view.add(FIRST, 0, [change(2**53 + 1, "a"), change(2**64 - 1, "b"), change(2**53 - 1, "c")])
    assert [event.made_at for event in view.events] == [2**53, 2**64, 2**53 - 1]


def test_values_that_are_no_group_have_no_events() -> None:
    odd_group = parse_header({**HEADER.fields, "type": "colist"})
    for header in (map_header("m"), map_header("m", HEADER.id), odd_group):
        view = view_of(header)
        assert not view.add(FIRST, 0, CHANGES)
        assert view.count(FIRST) == 10
        assert not view.has_members
        assert not view.may_be_parent
    assert view_of().may_be_parent
    assert view_of(ANN.account_header).has_members
    assert not view_of(ANN.account_header).may_be_parent


def test_the_size_is_about_what_memory_it_takes() -> None:
    transactions = [
        change(at, Author(f"m{at % 50}").agent_id, ("reader", "writer")[at % 2])
        for at in range(5_000)
    ]
    transactions[0] = change(0, ANN.account_id, "admin")
    tracemalloc.start()
    view, book = view_of(), RoleBook()
    view.add(FIRST, 0, transactions)
    book.add_view(view)
    assert book.role_of(HEADER.id, ANN.account_id, 10) == "admin"
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.7 < view.size_bytes / used < 1.6


@given(choices)
def test_pieces_add_up_however_they_are_cut(chosen: Choices) -> None:
    whole, cut = view_of(), view_of()
    for session_id in (FIRST, SECOND):
        whole.add(session_id, 0, CHANGES)
    for session_id, after, transactions in delivered({FIRST: CHANGES, SECOND: CHANGES[:7]}, chosen):
        cut.add(session_id, after, transactions)
    cut.add(SECOND, 7, CHANGES[7:])
    assert sorted(cut.events) == sorted(whole.events)
    assert cut.size_bytes == whole.size_bytes
