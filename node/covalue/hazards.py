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

import re
from collections.abc import Sequence
from operator import itemgetter

from node.covalue.content import Transaction
from node.covalue.group_changes import MAX_BRACKETS, parse_json
from node.covalue.ids import is_co_id

_MAX_TIME = 2**53
"""Up to it JavaScript has each integer, and writes its digits."""

_PARENT_PREFIX = "parent_"
_MAX_ID_CHARACTERS = 30
# Nearly all that groups hold: parsing each would take ten times as long.
_PLAIN_SET = re.compile(r'\[\{"op":"set","key":"([^"\\]*)","value":"[^"\\]*"\}\]')
_made_at = itemgetter(0)


def hazard(transactions: Sequence[Transaction], *, is_group: bool) -> str | None:
    """Why these must not be passed on to cojson clients; None when they take no harm."""
    if max(map(_made_at, transactions), default=0) > _MAX_TIME:
        return "made at a time that JavaScript does not have"
    if is_group:
        for transaction in transactions:
            if not transaction.is_private:
                found = _group_hazard(transaction.changes)
                if found is not None:
                    return found
    return None


def _group_hazard(changes: str) -> str | None:
    plain = _PLAIN_SET.fullmatch(changes)
    if plain is not None:
        return _key_hazard(plain[1])
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


def _key_hazard(key: object) -> str | None:
    if not isinstance(key, str):
        return "a change of a group without a key"
    named = key.removeprefix(_PARENT_PREFIX)
    is_named = named.startswith("co_") or (named != key and named != "")
    if is_named and (len(named) > _MAX_ID_CHARACTERS or not is_co_id(named)):
        return "a member or parent of a group that cannot exist"
    return None
