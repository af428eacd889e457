"""Headers, and signed transactions, that stop cojson clients, whoever wrote them.

The readers of a value decide who may write to it, but before they do a client has to verify it,
and to look for what a group names. One transaction of a stranger can keep it from that:

| transaction                                      | a cojson client that is sent it               |
|--------------------------------------------------|-----------------------------------------------|
| made later than 2^53                             | reads another number: a bad signature, after  |
|                                                  | which it takes no more of the value           |
| of a group: changes neither a list nor text      | fails before it stores anything of the group  |
| of a group: a change that is null, or sets no    | fails whenever the group is used              |
| key that is text                                 |                                               |
| of a group: an invalid id of a member or parent  | waits for it for ever                         |

With a group go all values in it. The original's server passes on the third row only.

A header that no client takes is not only its maker's business: whoever names such a value as a
member of a group keeps all clients from that group, which wait for the member.

| header                                           | a cojson client that is sent it               |
|--------------------------------------------------|-----------------------------------------------|
| restrictDeletion that is not a boolean           | cannot read it                                |
| a number from 1e-6 up to 1e-5                    | writes it with an exponent: another id        |
| an invalid id of the source or the owning group  | waits for it for ever                         |
| a group without an initial admin                 | fails whenever the group is used              |

Source: cojson 0.20.19 coValueCore/utils.ts, ids.ts getGroupDependentKey, permissions.ts, and its
native core.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from node.covalue.canonical import JsonValue
from node.covalue.content import Transaction
from node.covalue.group_changes import has_many_brackets, parse_json
from node.covalue.header import CoValueHeader
from node.covalue.ids import is_co_id

_MAX_TIME = 2**53
"""Up to it JavaScript has each integer, and writes its digits."""

_late_time = re.compile('"madeAt":[0-9]{16}')
"""In canonical JSON: within text its quotes have a backslash before them."""

_PARENT_PREFIX = "parent_"
_MAX_ID_CHARACTERS = 30
_PLAIN_START = '[{"op":"set","key":"'
_PLAIN_QUOTES = 12
"""In changes that set one key to one text."""

_NO_SOURCE = ("", 0, False, None)
"""What JavaScript takes for nothing."""

_TINY = "0.00000"
"""JavaScript writes these numbers so, its native core with an exponent."""


def header_hazard(header: CoValueHeader) -> str | None:
    """Why a value that begins so must not be passed on; None when clients take it."""
    if header.owner_group is not None:
        if not _is_id(header.owner_group):
            return "the owning group is not an id"
        ruleset = header.fields["ruleset"]
        if isinstance(ruleset, dict) and type(ruleset.get("restrictDeletion", False)) is not bool:
            return "restrictDeletion is neither true nor false"
    if header.initial_admin == "":
        return "a group without an initial admin"
    meta = header.fields["meta"]
    if isinstance(meta, dict) and not _is_source(meta.get("source")):
        return "the source of this branch is not an id"
    if _TINY in header.canonical and _has_tiny_number(meta):
        return "a number that the native core writes in another way"
    return None


def _is_source(source: JsonValue) -> bool:
    return source in _NO_SOURCE or (isinstance(source, str) and _is_id(source))


def _has_tiny_number(meta: JsonValue) -> bool:
    pending = [meta]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, float) and 1e-6 <= abs(item) < 1e-5:
            return True
    return False


def hazard(transactions: Sequence[Transaction], *, is_group: bool) -> str | None:
    """Why these must not be passed on to cojson clients; None when they take no harm."""
    for transaction in transactions:
        if transaction.made_at > _MAX_TIME:
            return "made at a time that JavaScript does not have"
        if is_group and not transaction.is_private:
            found = _group_hazard(transaction.changes)
            if found is not None:
                return found
    return None


def may_be_hazard(text: str) -> bool:
    """Whether there may be one in the canonical transactions of a value that is not a group."""
    return _late_time.search(text) is not None


def _group_hazard(changes: str) -> str | None:
    if _is_plain(changes):
        return _key_hazard(changes[len(_PLAIN_START) : changes.index('"', len(_PLAIN_START))])
    if has_many_brackets(changes):
        return "changes of a group that nest too much to be read"
    parsed = parse_json(changes)
    if isinstance(parsed, dict | bool | float) or (parsed is None and changes.strip() == "null"):
        return "changes of a group that are not a list"
    for change in parsed if isinstance(parsed, list) else ():
        found = "a change of a group that is null" if change is None else None
        if isinstance(change, dict) and change.get("op") == "set":
            found = _key_hazard(change.get("key"))
        if found is not None:
            return found
    return None


def _is_plain(changes: str) -> bool:
    """Whether it sets one key to one text, as nearly all groups' changes: parsing takes longer."""
    return (
        changes.startswith(_PLAIN_START)
        and changes.endswith('"}]')
        and changes.count('"') == _PLAIN_QUOTES
        and '","value":"' in changes
        and "\\" not in changes
    )


def _key_hazard(key: object) -> str | None:
    if not isinstance(key, str):
        return "a change of a group without a key"
    named = key.removeprefix(_PARENT_PREFIX)
    is_named = named.startswith("co_") or (named != key and named != "")
    if is_named and not _is_id(named):
        return "a group's member or parent that cannot exist"
    return None


def _is_id(text: str) -> bool:
    """Long text is not looked up, which would cache it."""
    return len(text) <= _MAX_ID_CHARACTERS and is_co_id(text)
