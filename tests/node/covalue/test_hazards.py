"""What cojson clients stop at. Each of these was seen to keep one from a value, or not to."""

from __future__ import annotations

import json

import pytest

from node.covalue.canonical import JsonValue
from node.covalue.content import Transaction
from node.covalue.dependencies import member_dependencies
from node.covalue.hazards import hazard, header_hazard
from node.covalue.header import parse_header
from tests.support.authors import Author, edits, map_header, private_edits, role

ANN = Author("ann")
ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in ANN.account_id)
DEEP = "[" * 3000 + "]" * 3000


OWNED: dict[str, JsonValue] = {"type": "ownedByGroup", "group": ANN.account_id}
ODD_FLAGS: list[JsonValue] = [1, 0, None, "true", []]
ODD_GROUPS: list[JsonValue] = ["", "co_z", "co_z1" * 99]
ODD_SOURCES: list[JsonValue] = [5, True, "zz", {}, [], ANN.agent_id]


def of_header(change: dict[str, JsonValue]) -> str | None:
    return header_hazard(parse_header({**map_header("m").fields, **change}))


@pytest.mark.parametrize(
    "change",
    [
        *({"ruleset": {**OWNED, "restrictDeletion": odd}} for odd in ODD_FLAGS),
        *({"ruleset": {**OWNED, "group": odd}} for odd in ODD_GROUPS),
        {"ruleset": {"type": "group", "initialAdmin": ""}},
        *({"meta": {"source": odd}} for odd in ODD_SOURCES),
        *({"meta": {"a": [{"b": odd}]}} for odd in (0.000001, -0.0000015, 0.00000999)),
    ],
)
def test_headers_that_clients_cannot_take(change: dict[str, JsonValue]) -> None:
    """Each is a value that clients never have: nor a group, then, that names it as a member."""
    assert of_header(change) is not None


@pytest.mark.parametrize(
    "change",
    [
        *({"ruleset": {**OWNED, "restrictDeletion": right}} for right in (True, False)),
        *({"meta": {"source": nothing}} for nothing in (0, False, None, "")),
        {"meta": {"source": ANN.account_id, "branch": 5}},
        {"meta": {"a": 0.00001, "b": 9e-7, "c": "0.000001"}},
        {"meta": {"0.000001": 5.5}},
        {"meta": "0.000001"},
    ],
)
def test_headers_that_clients_take(change: dict[str, JsonValue]) -> None:
    assert of_header(change) is None


def of_group(changes: str) -> str | None:
    return hazard([Transaction(1000, changes)], is_group=True)


@pytest.mark.parametrize(
    "changes",
    [
        *("{}", "5", "1e999", "null", " null\n", "true", DEEP),
        *("[null]", '[{"op":"set"}]', '[{"op":"set","key":5}]', '[{"op":"set","key":["co_zx"]}]'),
        '[{"op":"set","key":"co_zzz","value":"x"}]',
        '[{"op":"set","key":"co_","value":1}]',
        '[{"op":"set","key":"\\u0063o_zzz","value":"x"}]',
        '[{"op":"set","key":"parent_zzz","value":"x"}]',
        '[{"op":"set","key":"parent_co_zzz","value":"extend"}]',
        '[{"op":"set","key":"co_zzz","value":' + DEEP + "}]",
        '[{"op":"set","key":"co_zzz","value":' + "1" * 5000 + "}]",
        '[{"op":"set","key":"a","value":"b"},{"op":"set","key":"co_zzz"}]',
        f'[{{"op":"set","key":"{ANN.account_id}x","value":"reader"}}]',
        '[{"op":"set","key":"co_zzz","value":"\\"' + "[{" * 500 + '"}]',
    ],
)
def test_what_keeps_clients_from_a_group(changes: str) -> None:
    """Found beside real clients: a stranger's transaction cost all of the group's values."""
    assert of_group(changes) is not None
    assert hazard([Transaction(1000, changes)], is_group=False) is None
    assert hazard([Transaction(1000, changes, "key_z")], is_group=True) is None
    some = [*edits(2), Transaction(1000, changes)]
    assert hazard(some, is_group=True) is not None


@pytest.mark.parametrize(
    "changes",
    [
        *("[]", '"x"', '"null"', "[5]", "[[]]", "no JSON", "[NaN]", '[{"op":"del"}]', "[{}]"),
        *('[{"op":"set","key":""}]', '[{"op":"set","key":"parent_"}]'),
        '[{"op":"set","key":"child_co_zzz","value":"x"}]',
        '[{"op":"set","key":"everyone","value":"admin"}]',
        '[{"op":"set","key":"key_z1_for_key_z2","value":"encrypted_UAA=="}]',
        '[{"op":"set","key":"\\u0063","value":"\\""}]',
        f'[{{"op":"set","key":"{ESCAPED}","value":"reader"}}]',
        '[{"op":"set","key":"name","value":"\\"' + "[{" * 500 + '"}]',
        role(ANN.account_id, "reader").changes,
        role(f"parent_{ANN.account_id}", "extend").changes,
    ],
)
def test_what_does_no_harm(changes: str) -> None:
    assert of_group(changes) is None


def test_times_that_javascript_has() -> None:
    for is_group in (True, False):
        assert hazard([], is_group=is_group) is None
        assert hazard(private_edits(3), is_group=is_group) is None
        assert hazard([Transaction(2**53, "[]")], is_group=is_group) is None
        late = [*edits(1), Transaction(2**53 + 1, "[]"), *edits(1)]
        assert hazard(late, is_group=is_group) is not None


def test_a_member_in_other_letters_is_a_member() -> None:
    """Else the group is passed on before the member is here, and clients wait for him."""
    changes = f'[{{"op":"set","key":"{ESCAPED}","value":"reader"}}]'
    assert json.loads(changes)[0]["key"] == ANN.account_id
    assert member_dependencies([Transaction(1000, changes)]) == [ANN.account_id]
