from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.covalue.content import Transaction
from node.covalue.group_changes import (
    MAX_BRACKETS,
    MAX_KEY_CHARACTERS,
    ChangeKind,
    GroupChange,
    Role,
    parse_change,
    parse_json,
)
from tests.support.authors import Author, group_header

ANN = Author("ann").account_id
PARENT = group_header(ANN).id
KEY = "key_z4kkC6hFY8kqyM2GCT"


def parsed(key: object, value: object = "anything") -> GroupChange | None:
    return parse_change(Transaction(1, json.dumps([{"op": "set", "key": key, "value": value}])))


@pytest.mark.parametrize("role", Role)
def test_roles_of_members(role: Role) -> None:
    for member in (ANN, Author("ann").agent_id, "nobody", ""):
        assert parsed(member, role) == (ChangeKind.ROLE, member, role)
    expected = role in ("reader", "writer", "writeOnly", "revoked")
    assert (parsed("everyone", role) is not None) == expected


@pytest.mark.parametrize(
    "value", ["superuser", "extend", "Admin", "", None, True, 7, ["admin"], {"role": "admin"}]
)
def test_what_is_no_role(value: object) -> None:
    assert parsed(ANN, value) is None


@pytest.mark.parametrize(
    ("value", "link"),
    [
        ("extend", "extend"),
        ("reader", "reader"),
        ("revoked", "revoked"),
        ("writerInvite", "writerInvite"),
        ("nonsense", ""),
        (None, ""),
        (7, ""),
        (["extend"], ""),
    ],
)
def test_links(value: object, link: str) -> None:
    assert parsed(f"parent_{PARENT}", value) == (ChangeKind.PARENT, PARENT, link)


def test_a_link_without_a_value_is_none() -> None:
    changes = json.dumps([{"op": "set", "key": f"parent_{PARENT}"}])
    assert parse_change(Transaction(1, changes)) == (ChangeKind.PARENT, PARENT, "revoked")


@pytest.mark.parametrize("parent", ["", "x", ANN[:-3], f"{PARENT}1111111111", "co_z0OIl"])
def test_links_to_what_is_no_id(parent: str) -> None:
    assert parsed(f"parent_{parent}", "extend") is None


@pytest.mark.parametrize("key", ["readKey", "groupSealer", "profile", "root"])
def test_administration(key: str) -> None:
    for value in ("text", None, {"deep": [1]}):
        assert parsed(key, value) == (ChangeKind.ADMINISTRATION, "", "")


@pytest.mark.parametrize(
    ("key", "revealed"),
    [
        (f"{KEY}_for_key_zother", KEY),
        (f"{KEY}_for_{ANN}", KEY),
        (f"{KEY}_for_sealer_z1/signer_z1", KEY),
        (f"{KEY}_for_everyone", KEY),
        (f"{KEY}_sealedFor_sealer_z1", KEY),
        (f"parent_{PARENT}_for_everyone", f"parent_{PARENT}"),
        ("_for_everyone", ""),
    ],
)
def test_revelations(key: str, revealed: str) -> None:
    assert parsed(key) == (ChangeKind.REVELATION, revealed, "")


def test_write_keys() -> None:
    assert parsed(f"writeKeyFor_{ANN}", KEY) == (ChangeKind.WRITE_KEY, ANN, KEY)
    for value in (None, 7, [KEY], "k" * (MAX_KEY_CHARACTERS + 1)):
        assert parsed(f"writeKeyFor_{ANN}", value) == (ChangeKind.WRITE_KEY, ANN, "")


def test_private_changes_stay_closed() -> None:
    assert parse_change(Transaction(1, "encrypted_UAA", KEY)) == (ChangeKind.PRIVATE, "", "")


SET = {"op": "set", "key": ANN, "value": "admin"}


@pytest.mark.parametrize(
    "changes",
    [
        "",
        "[",
        "{}",
        "[]",
        "null",
        "[null]",
        "[7]",
        '"a"',
        '{"0":{"op":"set","key":"root"},"length":1}',
        json.dumps([SET, SET]),
        json.dumps([{**SET, "op": "del"}]),
        json.dumps([{**SET, "op": ["set"]}]),
        json.dumps([{**SET, "key": 5}]),
        json.dumps([{**SET, "key": None}]),
        json.dumps([{"op": "set", "value": "admin"}]),
        json.dumps([{**SET, "key": f"child_{PARENT}"}]),
        json.dumps([{**SET, "key": "k" * (MAX_KEY_CHARACTERS + 1)}]),
        json.dumps([SET])[:-1] + ",]",
        "\ufeff" + json.dumps([SET]),
        '[{"op":"set","key":"root","value":NaN}]',
        '[{"op":"set","key":"root","value":-Infinity}]',
        '[{"op":"set","key":"root","value":' + "[" * MAX_BRACKETS + "]" * MAX_BRACKETS + "}]",
        "[" * 200_000,
    ],
)
def test_what_nobody_may_change(changes: str) -> None:
    assert parse_change(Transaction(1, changes)) is None


def test_json_as_javascript_reads_it() -> None:
    digits = "9" * 10_000
    assert parse_json(f"[{digits}]") == [float("inf")]
    changes = f'[{{"op":"set","key":"{ANN}","value":"reader","op":"set","n":{digits}}}]'
    assert parse_change(Transaction(1, changes)) == (ChangeKind.ROLE, ANN, "reader")
    assert parse_json('["\\ud800", "__proto__"]') == ["\ud800", "__proto__"]
    assert parsed("__proto__", "writer") == (ChangeKind.ROLE, "__proto__", "writer")


def test_what_roles_allow() -> None:
    assert {role for role in Role if role.can_write} == {"admin", "manager", "writer", "writeOnly"}
    assert {role for role in Role if role.can_delete} == {"admin"}
    assert {role for role in Role if role.is_inheritable} == {
        "admin", "manager", "writer", "reader",
    }  # fmt: skip
    for role in Role:
        invited = role.removesuffix("Invite")
        assert role.invites_to == (invited if invited != role else None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
hints = st.sampled_from(
    ["readKey", "everyone", f"parent_{PARENT}", "parent_", "key_for_key", "writeKeyFor_"]
)


@given(
    st.text()
    | json_values.map(json.dumps)
    | st.builds(
        lambda key, value: json.dumps([{"op": "set", "key": key, "value": value}]),
        hints | json_values,
        json_values,
    )
)
def test_any_changes_are_something_or_nothing(changes: str) -> None:
    change = parse_change(Transaction(1, changes))
    assert change is None or change.kind in ChangeKind
