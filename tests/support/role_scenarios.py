"""Groups that cojson has judged; tests/interop/roles_oracle.mjs says what is in a scenario."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from node.covalue.content import Transaction
from node.covalue.group_view import GroupView
from node.covalue.header import parse_header
from node.covalue.roles import RoleBook
from tests.support.cojson_vectors import VECTORS

Scenario = dict[str, Any]


@cache
def recorded() -> list[Scenario]:
    parsed: list[Scenario] = json.loads((VECTORS / "roles.json").read_text())["scenarios"]
    return parsed


def transaction_of(raw: dict[str, Any]) -> Transaction:
    if raw["privacy"] == "private":
        return Transaction(raw["madeAt"], raw["encryptedChanges"], raw["keyUsed"], raw.get("meta"))
    return Transaction(raw["madeAt"], raw["changes"], None, raw.get("meta"))


def views_of(scenario: Scenario) -> Iterator[GroupView]:
    for value in scenario["values"]:
        header = parse_header(value["header"])
        if header.is_group:
            view = GroupView(value["id"], header)
            for session_id, transactions in value["sessions"].items():
                view.add(session_id, 0, [transaction_of(raw) for raw in transactions])
            yield view


def book_of(scenario: Scenario) -> RoleBook:
    book = RoleBook()
    for view in views_of(scenario):
        book.add_view(view)
    return book


def role_questions(scenario: Scenario) -> Iterator[tuple[Any, str, int, str]]:
    """(group, member, time, cojson's answer)."""
    for group_id, members in scenario["roles"].items():
        for member, roles in members.items():
            for time, role in zip(scenario["times"], roles.split(" "), strict=True):
                yield group_id, member, time, role


def role_differences(book: RoleBook, scenario: Scenario) -> list[str]:
    """Where `book` tells another role than cojson."""
    found = []
    for group_id, member, time, role in role_questions(scenario):
        ours = book.role_of(group_id, member, time) or "-"
        if ours != role:
            found.append(
                f"{scenario['name']}: {member} in {group_id} at {time}: {ours}, not {role}"
            )
    return found


def validity_differences(book: RoleBook, scenario: Scenario) -> list[str]:
    """Where `book` finds a transaction valid and cojson does not, or the other way round."""
    found = []
    for value in scenario["values"]:
        header = parse_header(value["header"])
        for session_id, transactions in value["sessions"].items():
            verdicts = value["valid"][session_id]
            for index, (raw, valid) in enumerate(zip(transactions, verdicts, strict=True)):
                transaction = transaction_of(raw)
                ours = book.may_write(value["id"], header, session_id, index, transaction)
                if ours != (valid == "1"):
                    found.append(f"{scenario['name']}: {value['id']} {session_id} {index}: {raw}")
    return found
