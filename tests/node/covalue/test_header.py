from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from node.covalue.canonical import JsonValue
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
        {"meta": []},
        {"meta": {"a": 1.0}},
        {"meta": {"a": 2**60}},
        {"meta": {"a": "\ud800"}},
        {"uniqueness": 2**60},
        {"uniqueness": {"a": 1}},
        {"ruleset": {"type": ["group"]}},
        {"ruleset": {"type": "ownedByGroup", "group": 1}},
        {"ruleset": {"type": "ownedByGroup", "group": "co_z", "restrictDeletion": None}},
        {"ruleset": {"type": "ownedByGroup", "group": "co_z", "restrictDeletion": 1}},
        {"ruleset": {"type": "group", "initialAdmin": None}},
        {"ruleset": {"type": "group", "initialAdmin": "co_z"}, "meta": {"type": "account"}},
        {"type": None},
    ],
)
def test_a_wrong_field_is_refused(change: dict[str, JsonValue]) -> None:
    with pytest.raises(DecodeError):
        parse_header({**map_header("m").fields, **change})


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
