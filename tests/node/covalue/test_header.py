from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.covalue.canonical import JsonValue
from node.covalue.hazards import header_hazard
from node.covalue.header import parse_header
from node.covalue.ids import RawCoId
from tests.node.covalue.test_canonical import json_values
from tests.support.authors import Author, group_header, map_header
from tests.support.cojson_vectors import vectors


@pytest.mark.parametrize("case", vectors()["headers"], ids=lambda case: case["name"])
def test_headers_have_the_ids_that_the_original_gives_them(case: dict[str, Any]) -> None:
    header = parse_header(case["header"])
    assert header.canonical == case["canonical"]
    assert header.id == case["coID"]
    assert header.has_id(RawCoId(case["coID"]))
    assert header.priority == case["priority"]


@pytest.mark.parametrize("case", vectors()["headersRejectedByCore"], ids=lambda case: case["name"])
def test_headers_that_the_original_refuses_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        parse_header(case["header"])


def test_what_the_engine_asks_of_a_header() -> None:
    ann = Author("ann")
    account = ann.account_header
    assert account.is_account
    assert account.is_group
    assert account.account_public_key is not None
    group = group_header(ann.account_id)
    assert group.is_group
    assert not group.is_account
    assert group.account_public_key is None
    owned = map_header("m", group.id)
    assert owned.owner_group == group.id
    assert not owned.is_group


def test_a_header_has_no_other_id() -> None:
    assert not map_header("a").has_id(map_header("b").id)
    assert not map_header("a").has_id(RawCoId("co_znot"))


@pytest.mark.parametrize(
    "change",
    [
        {"createdAt": 5},
        {"meta": {"a": 1.0}},
        {"meta": {"a": 2**60}},
        {"meta": {"a": "\ud800"}},
        {"uniqueness": 2**60},
        {"uniqueness": {"a": 1}},
        {"ruleset": {"type": ["group"]}},
        {"ruleset": {"type": "ownedByGroup", "group": 1}},
        {"ruleset": {"type": "ownedByGroup", "group": "co_z", "restrictDeletion": {}, "x": 1}},
        {"ruleset": {"type": "group", "initialAdmin": None}},
        {"uniqueness": 2**63},
        {"meta": {"a": -(2**64)}},
        {"type": None},
    ],
)
def test_a_wrong_field_is_refused(change: dict[str, JsonValue]) -> None:
    with pytest.raises(DecodeError):
        parse_header({**map_header("m").fields, **change})


@pytest.mark.parametrize(
    ("change", "co_id"),
    [
        ({"meta": [1, "a"]}, "co_zcyMZaXHcK5hxW1CwZvzov5g794"),
        ({"meta": "x"}, "co_zZgzfiqoL9v7tz6qicmfPbEdExh"),
        ({"meta": 5}, "co_zJ8H3q5XYosSpyjXZdRxK8No5vx"),
        ({"meta": True}, "co_zgJ5pjXvZiAw3xAn1THNQUfQsdM"),
        ({"meta": 1.5}, "co_zSV7HNuCXYxQaaqo9RigGWGFNq2"),
        ({"meta": {"a": 12345678901234567000}}, "co_zcZedGkH5SFZvMiT4YvJXLE5ZuY"),
        ({"uniqueness": -1152921504606847000}, "co_zmCm2Rzezp39okWoPMA2Hw1qYPR"),
        ({"uniqueness": 2**53 + 2}, "co_zB55zKSe4qnBy8ZRoZrTEgzDtp3"),
    ],
)
def test_what_nobody_writes_and_clients_take_is_taken(
    change: dict[str, JsonValue], co_id: str
) -> None:
    """Ids by cojson 0.20.19, whose native core takes these."""
    created = "2024-01-01T00:00:00.000Z"
    header = parse_header({**map_header("u").fields, "createdAt": created, **change})
    assert header.id == co_id
    assert header_hazard(header) is None


@pytest.mark.parametrize("admin", ["hello", Author("ann").account_id, "sealer_z1/signer_z1"])
def test_an_account_for_which_nobody_signs(admin: str) -> None:
    """Clients take it, and it has members; whoever claims to be it is refused."""
    ruleset: JsonValue = {"type": "group", "initialAdmin": admin}
    header = parse_header({**Author("ann").account_header.fields, "ruleset": ruleset})
    assert header.is_account
    assert header.account_public_key is None
    assert header_hazard(header) is None


def test_only_deep_nesting_is_refused() -> None:
    """As deep as the native core reads."""
    meta: JsonValue = {}
    for _ in range(125):
        meta = {"a": meta}
    parse_header({**map_header("m").fields, "meta": meta})
    with pytest.raises(DecodeError):
        parse_header({**map_header("m").fields, "meta": [meta]})


def test_deep_nesting_is_refused() -> None:
    meta: JsonValue = {}
    for _ in range(500):
        meta = {"a": meta}
    with pytest.raises(DecodeError):
        parse_header({**map_header("m").fields, "meta": meta})


@given(json_values, json_values, json_values)
def test_any_json_is_a_header_or_refused(
    meta: JsonValue, uniqueness: JsonValue, ruleset: JsonValue
) -> None:
    plain = {"type": "unsafeAllowAll"}
    for fields in (
        meta,
        {"type": "comap", "meta": meta, "uniqueness": uniqueness, "ruleset": ruleset},
        {"type": "comap", "meta": meta, "uniqueness": "u", "ruleset": plain},
    ):
        try:
            header = parse_header(fields)  # type: ignore[arg-type]  # any JSON is the point
        except DecodeError:
            continue
        assert header.has_id(header.id)


@given(st.dictionaries(st.text(), st.floats() | st.integers()))
def test_numbers_in_meta_are_exact_or_refused(meta: dict[str, JsonValue]) -> None:
    try:
        parse_header({**map_header("m").fields, "meta": meta})
    except DecodeError:
        return
    assert all(not isinstance(item, float) or not item.is_integer() for item in meta.values())
