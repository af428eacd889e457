from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.covalue.content import Transaction
from node.covalue.dependencies import (
    header_dependencies,
    member_dependencies,
    session_dependencies,
)
from node.covalue.header import parse_header
from tests.support.authors import Author, group_header, map_header
from tests.support.cojson_vectors import pieces, vectors

ANN, BOB = Author("ann"), Author("bob")
GROUP = group_header(ANN.account_id)


def _set(key: str, value: str = "writer") -> Transaction:
    return Transaction(1, json.dumps([{"op": "set", "key": key, "value": value}]))


def test_a_value_depends_on_its_group_and_its_source() -> None:
    assert header_dependencies(map_header("m")) == []
    assert header_dependencies(map_header("m", GROUP.id)) == [GROUP.id]
    branch = parse_header(
        {**map_header("m", GROUP.id).fields, "meta": {"source": map_header("s").id, "branch": "b"}}
    )
    assert header_dependencies(branch) == [GROUP.id, map_header("s").id]
    assert header_dependencies(map_header("m", "co_zGroup")) == []


def test_a_session_depends_on_its_account() -> None:
    sessions = [
        ANN.session_id(),
        ANN.session_id("b"),
        BOB.session_id(),
        BOB.session_id(as_agent=True),
    ]
    assert session_dependencies(sessions) == [ANN.account_id, BOB.account_id]


def test_a_group_depends_on_members_and_parents() -> None:
    parent = group_header(BOB.account_id, "p").id
    transactions = [
        _set("everyone"),
        _set(BOB.account_id),
        _set(f"parent_{parent}", "extend"),
        _set(f"key_z1_for_{ANN.account_id}"),
        _set("profile", map_header("profile").id),
        Transaction(1, "encrypted_U" + ANN.account_id, "key_z1"),
        Transaction(1, f'{{"no list": "{ANN.account_id}"}}'),
        Transaction(1, f"no JSON {ANN.account_id}"),
        Transaction(1, json.dumps([{"op": "del", "key": ANN.account_id}, 5, {"op": "set"}])),
        _set("co_zshort"),
    ]
    assert member_dependencies(transactions) == [BOB.account_id, parent]


@given(st.text())
def test_any_changes_have_dependencies_or_none(text: str) -> None:
    assert member_dependencies([Transaction(1, text + "co_z")]) == []


def test_deep_changes_do_not_exhaust_the_stack() -> None:
    assert member_dependencies([Transaction(1, "[" * 100_000 + "co_z")]) == []


@pytest.mark.parametrize("name", sorted(vectors()["content"]["dependencies"]))
def test_recorded_dependencies(name: str) -> None:
    recorded = vectors()["content"]["dependencies"][name]
    found: set[str] = set()
    for piece in pieces(name):
        if piece.header is not None:
            found.update(header_dependencies(piece.header))
        found.update(session_dependencies(piece.new))
        if piece.priority == 0:
            for part in piece.new.values():
                found.update(member_dependencies(part.transactions))
    found.discard(pieces(name)[0].co_id)
    # The node that made the vectors does not count its own account for sessions it wrote itself.
    own = vectors()["content"]["accountSecrets"]["A"]["id"]
    assert found | {own} == {*recorded, own}
