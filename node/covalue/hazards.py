"""Signed transactions at which cojson clients stop, by whomever they are.

Who may write to a value is for its readers to say, but before they do a client has to verify it,
and to look for what a group names. One transaction of a stranger can keep it from that:

| transaction                                      | a cojson client that is sent it               |
|--------------------------------------------------|-----------------------------------------------|
| made later than 2^53                             | reads another number: a bad signature, after  |
|                                                  | which it takes no more of the value           |
| of a group: changes that are no list, nor text   | fails before it stores anything of the group  |
| of a group: a change that is null, or sets no    | fails whenever the group is used              |
| key that is text                                 |                                               |
| of a group: a member or parent whose id is none  | waits for it for ever                         |

With a group go all values in it. The original's server passes on the third row only.

Source: cojson 0.20.19 coValueCore/utils.ts, ids.ts getGroupDependentKey, permissions.ts.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.covalue.content import Transaction
from node.covalue.group_changes import MAX_BRACKETS, parse_json
from node.covalue.ids import is_co_id

_MAX_TIME = 2**53
"""Up to it JavaScript has each integer, and writes its digits."""

_PARENT_PREFIX = "parent_"
_MAX_ID_CHARACTERS = 30
_PLAIN_START = '[{"op":"set","key":"'
_PLAIN_QUOTES = 12
"""In changes that set one key to one text."""


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


def _group_hazard(changes: str) -> str | None:
    if _is_plain(changes):
        return _key_hazard(changes[len(_PLAIN_START) : changes.index('"', len(_PLAIN_START))])
    if changes.count("[") + changes.count("{") > MAX_BRACKETS:
        return "changes of a group that nest too much to be read"
    parsed = parse_json(changes)
    if isinstance(parsed, dict | bool | float) or (parsed is None and changes.strip() == "null"):
        return "changes of a group that are no list"
    for change in parsed if isinstance(parsed, list) else ():
        found = "a change of a group that is null" if change is None else None
        if isinstance(change, dict) and change.get("op") == "set":
            found = _key_hazard(change.get("key"))
        if found is not None:
            return found
    return None


def _is_plain(changes: str) -> bool:
    """Whether it sets one key to one text, as nearly all that groups hold: parsing takes longer."""
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
    if is_named and (len(named) > _MAX_ID_CHARACTERS or not is_co_id(named)):
        return "a member or parent of a group that cannot exist"
    return None
