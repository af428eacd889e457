"""Which values one must have before another can be understood.

| of                | depends on                                                            |
|-------------------|-----------------------------------------------------------------------|
| every value       | the group that owns it, the value it is a branch of                   |
| every session     | the account that signs it: its header holds the key                   |
| groups, accounts  | members (`co_z...` keys) and parents (`parent_co_z...` keys)          |

A dependency is stored before its dependants and sent before them.

Source: cojson 0.20.19 coValueCore.ts getDependedOnCoValues, storage/syncUtils.ts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.group_changes import parse_json
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, is_account_id, is_co_id, session_owner

_PARENT_PREFIX = "parent_"
_MAX_ID_CHARACTERS = 30
_CACHED_SESSIONS = 4096
"""A writer changes many values in the same session."""


def value_dependencies(
    co_id: RawCoId,
    header: CoValueHeader,
    session_ids: Iterable[CoSessionId],
    transactions: Iterable[Transaction],
) -> frozenset[RawCoId]:
    """Those of a stored value; `transactions` are looked at for groups only."""
    found = {*header_dependencies(header), *session_dependencies(session_ids)}
    if header.is_group:
        found.update(member_dependencies(transactions))
    return frozenset(found - {co_id})


def header_dependencies(header: CoValueHeader) -> list[RawCoId]:
    """The owning group and the branch's source; text that is not an id is left out."""
    return [
        RawCoId(text)
        for text in (header.owner_group, header.source)
        if text is not None and _is_id(text)
    ]


def session_dependencies(session_ids: Iterable[CoSessionId]) -> list[RawCoId]:
    """The accounts that sign these sessions; agents need nothing."""
    accounts = dict.fromkeys(map(_account, session_ids))
    return [account for account in accounts if account is not None]


def part_dependencies(
    parts: Mapping[CoSessionId, SessionContent], *, is_group: bool
) -> list[RawCoId]:
    """Those of parts of a value's sessions, each once; the value itself may be among them."""
    found = dict.fromkeys(session_dependencies(parts))
    if is_group:
        for part in parts.values():
            found.update(dict.fromkeys(member_dependencies(part.transactions)))
    return list(found)


def content_dependencies(contents: Iterable[Content]) -> dict[RawCoId, None]:
    """What these need to be verified, in order of discovery."""
    found: dict[RawCoId, None] = {}
    for content in contents:
        header = content.header
        if header is not None:
            found.update(dict.fromkeys(header_dependencies(header)))
        is_group = header is not None and header.is_group
        found.update(dict.fromkeys(part_dependencies(content.new, is_group=is_group)))
    return found


@lru_cache(maxsize=_CACHED_SESSIONS)
def _account(session_id: CoSessionId) -> RawCoId | None:
    owner = session_owner(session_id)
    return RawCoId(owner) if is_account_id(owner) and _is_id(owner) else None


def member_dependencies(transactions: Iterable[Transaction]) -> list[RawCoId]:
    """Members and parents that these transactions of a group name."""
    found: dict[RawCoId, None] = {}
    for transaction in transactions:
        # Most transactions of a group reveal keys: they are told apart without parsing.
        changes = transaction.changes
        if transaction.is_private or ("co_z" not in changes and "\\u" not in changes):
            continue
        for key in _set_keys(changes):
            member = key.removeprefix(_PARENT_PREFIX)
            if member.startswith("co_") and _is_id(member):
                found[RawCoId(member)] = None
    return list(found)


def _set_keys(changes: str) -> list[str]:
    parsed = parse_json(changes)  # every reader ignores changes that are not JSON
    if not isinstance(parsed, list):
        return []
    return [
        change["key"]
        for change in parsed
        if isinstance(change, dict)
        and change.get("op") == "set"
        and isinstance(change.get("key"), str)
    ]


def _is_id(text: str) -> bool:
    return len(text) <= _MAX_ID_CHARACTERS and is_co_id(text)
