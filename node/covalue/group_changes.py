"""Roles, and what one transaction of a group asks for.

A group is a map of trusting transactions with exactly one change, `{op: "set", key, value}`:

| key                                                | sets                                        |
|----------------------------------------------------|---------------------------------------------|
| account id, agent id, `everyone`                   | that member's role                          |
| `parent_{group id}`                                | a link: extend, revoked or a role to give   |
| `writeKeyFor_{member}`                             | the key of one who may write and not read   |
| `{key}_for_{member, key or everyone}`, `{key}_sealedFor_{sealer}` | a key that somebody gets     |
| `readKey`, `groupSealer`, `profile`, `root`        | the group's own business                    |

Worked example: `[{"op":"set","key":"everyone","value":"reader"}]`.

The keys are told apart in the original's order: `parent_X_for_everyone` reveals a key. What no
author could do is refused here: more than one change, other operations, `child_...`, roles and
links that do not exist, text that is not JSON. So is what the original stumbles over: a change that
is null or whose key is not text ends the loading of a group there, whoever wrote it.

Source: cojson 0.20.19 permissions.ts, coValues/group.ts.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from json import JSONDecoder
from typing import NamedTuple, NoReturn

from node.covalue.content import Transaction
from node.covalue.ids import is_co_id

EVERYONE = "everyone"

EXTEND = "extend"
"""The link that hands on the role a member has in the parent."""

MAX_KEY_CHARACTERS = 256
"""A longer key sets nothing. The longest that the original writes has 190."""

MAX_BRACKETS = 128
"""JSON with more of `[` and `{` outside of its texts is not parsed: no change of a group nests, and
parsing what does would depend on how much of the interpreter's stack is left."""

_MAX_QUOTES = 64
"""A change of a group has six texts at most, and what has many is not searched for their ends."""

_NOTHING = ""


class Role(StrEnum):
    """What a member of a group may do; the values are the wire's."""

    ADMIN = "admin"
    MANAGER = "manager"
    WRITER = "writer"
    READER = "reader"
    WRITE_ONLY = "writeOnly"
    ADMIN_INVITE = "adminInvite"
    MANAGER_INVITE = "managerInvite"
    WRITER_INVITE = "writerInvite"
    READER_INVITE = "readerInvite"
    WRITE_ONLY_INVITE = "writeOnlyInvite"
    REVOKED = "revoked"

    @property
    def can_write(self) -> bool:
        """May edit the values that the group owns."""
        return self in _WRITERS

    @property
    def can_delete(self) -> bool:
        """May delete the values that the group owns."""
        return self is Role.ADMIN

    @property
    def is_inheritable(self) -> bool:
        """Whether a member with it in a parent has a role in the group that links to it."""
        return self in _INHERITABLE

    @property
    def invites_to(self) -> Role | None:
        """The one role that the holder of an invite may give."""
        return _INVITES.get(self)


_WRITERS = frozenset({Role.ADMIN, Role.MANAGER, Role.WRITER, Role.WRITE_ONLY})
_INHERITABLE = frozenset({Role.ADMIN, Role.MANAGER, Role.WRITER, Role.READER})
_INVITES = {
    Role.ADMIN_INVITE: Role.ADMIN,
    Role.MANAGER_INVITE: Role.MANAGER,
    Role.WRITER_INVITE: Role.WRITER,
    Role.READER_INVITE: Role.READER,
    Role.WRITE_ONLY_INVITE: Role.WRITE_ONLY,
}
_ROLES: dict[object, Role] = {role.value: role for role in Role}
_EVERYONE_ROLES = frozenset({Role.READER, Role.WRITER, Role.WRITE_ONLY, Role.REVOKED})


class ChangeKind(Enum):
    ROLE = "role"
    PARENT = "parent"
    WRITE_KEY = "write key"
    REVELATION = "revelation"
    ADMINISTRATION = "administration"
    PRIVATE = "private"


class GroupChange(NamedTuple):
    """One change that some author could make.

    | kind           | subject           | value                                                 |
    |----------------|-------------------|-------------------------------------------------------|
    | ROLE           | the member        | the Role                                              |
    | PARENT         | the parent's id   | "extend", a Role, or "" for a link that gives nothing |
    | WRITE_KEY      | the member        | the key's id, "" when it is not text                  |
    | REVELATION     | the revealed key  |                                                       |
    | ADMINISTRATION, PRIVATE            |                                                       |
    """

    kind: ChangeKind
    subject: str = ""
    value: str = ""


_PRIVATE = GroupChange(ChangeKind.PRIVATE)
_ADMINISTRATION = GroupChange(ChangeKind.ADMINISTRATION)
_ADMINISTRATION_KEYS = frozenset({"readKey", "groupSealer", "profile", "root"})
_PARENT_PREFIX = "parent_"
_CHILD_PREFIX = "child_"
_WRITE_KEY_PREFIX = "writeKeyFor_"
_MAX_ID_CHARACTERS = 30
_ABSENT = object()


def parse_change(transaction: Transaction) -> GroupChange | None:
    """What this transaction asks for; None when nobody may do that. Takes any text."""
    if transaction.is_private:
        return _PRIVATE
    found = _only_set(transaction.changes)
    if found is None:
        return None
    key, value = found
    if key in _ADMINISTRATION_KEYS:
        return _ADMINISTRATION
    if _is_revelation(key):
        subject, mark, _ = key.partition("_for_")
        return GroupChange(
            ChangeKind.REVELATION, subject if mark else key.partition("_sealedFor_")[0]
        )
    if key.startswith(_PARENT_PREFIX):
        parent = key[len(_PARENT_PREFIX) :]
        # The original waits for ever for a parent whose id is not one.
        if len(parent) > _MAX_ID_CHARACTERS or not is_co_id(parent):
            return None
        return GroupChange(ChangeKind.PARENT, parent, _link(value))
    if key.startswith(_CHILD_PREFIX):
        return None
    if key.startswith(_WRITE_KEY_PREFIX):
        member = key[len(_WRITE_KEY_PREFIX) :]
        # What is longer than a key can never be found in one.
        fits = isinstance(value, str) and len(value) <= MAX_KEY_CHARACTERS
        return GroupChange(ChangeKind.WRITE_KEY, member, str(value) if fits else _NOTHING)
    return _role_change(key, value)


def _role_change(member: str, value: object) -> GroupChange | None:
    role = _ROLES.get(value) if isinstance(value, str) else None
    if role is None or (member == EVERYONE and role not in _EVERYONE_ROLES):
        return None
    return GroupChange(ChangeKind.ROLE, member, role)


def _link(value: object) -> str:
    """The original takes any value for a link, and looks at it only where it is used."""
    if value is _ABSENT:
        return Role.REVOKED
    if not isinstance(value, str):
        return _NOTHING
    return EXTEND if value == EXTEND else _ROLES.get(value, _NOTHING)


def _is_revelation(key: str) -> bool:
    if "_for_everyone" in key:
        return True
    return key.startswith("key_") and (
        "_for_key" in key or "_for_sealer" in key or "_for_co" in key or "_sealedFor_sealer" in key
    )


def _only_set(changes: str) -> tuple[str, object] | None:
    """Key and value of the one change there is."""
    parsed = parse_json(changes)
    if not isinstance(parsed, list) or len(parsed) != 1:
        return None
    change = parsed[0]
    if not isinstance(change, dict) or change.get("op") != "set":
        return None
    key = change.get("key")
    if not isinstance(key, str) or len(key) > MAX_KEY_CHARACTERS:
        return None
    return key, change.get("value", _ABSENT)


def has_many_brackets(text: str) -> bool:
    """Whether it may nest too much to be parsed."""
    if text.count("[") + text.count("{") <= MAX_BRACKETS:
        return False
    parts = text.replace("\\\\", "").replace('\\"', "").split('"', _MAX_QUOTES)
    outside = "".join(parts[::2])
    return len(parts) > _MAX_QUOTES or outside.count("[") + outside.count("{") > MAX_BRACKETS


def parse_json(text: str) -> object:
    """What JavaScript would read; None when it would not, or when the text nests too much."""
    if has_many_brackets(text):
        return None
    try:
        parsed: object = _decoder.decode(text)
    except ValueError:
        return None
    return parsed


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is Python's JSON only")


# Long integers become infinite in JavaScript, in Python they would be an error.
_decoder = JSONDecoder(parse_int=float, parse_constant=_refuse)
