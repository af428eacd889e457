"""The header of a coValue: what its id is the hash of.

| field      | is                                                                              |
|------------|---------------------------------------------------------------------------------|
| type       | text: comap, colist, costream, coplaintext                                      |
| ruleset    | {type: "group", initialAdmin} or unsafeAllowAll or                              |
|            | {type: "ownedByGroup", group, restrictDeletion?}                                |
| meta       | any JSON, always present; cojson writes an object or null                       |
| createdAt  | text, null or absent (the three hash differently)                               |
| uniqueness | text, boolean, null, integer, or an object of text to text; always present      |

Anything else would not survive the originals, whose native core drops unknown fields and then
finds another id; so it is refused here. What is stored may be older than that core: where its
JavaScript forerunner, or an older version of this node, took more, that is read, and refused only
when a message brings it (`hazards.header_hazard`).

Source: cojson 0.20.19 coValueCore/verifiedState.ts and its native core.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from json import JSONEncoder
from typing import Any

import msgspec

from hypercore.encoding import DecodeError
from node.cojson.crypto import co_id_of, header_digest
from node.covalue.canonical import (
    MAX_DEPTH,
    JsonValue,
    canonical_json,
    javascript_number,
    utf16,
)
from node.covalue.ids import RawCoId, agent_public_key, co_id_digest

GROUP_PRIORITY = 0
"""Of groups, and of nothing else: it tells a group's piece that comes without the header."""
VALUE_PRIORITY = 3
STREAM_PRIORITY = 6

_REQUIRED = frozenset({"type", "ruleset", "meta", "uniqueness"})
_SHAPES = frozenset({_REQUIRED, _REQUIRED | {"createdAt"}})
"""Field names that a header may have; looking them up as a set costs a third of comparing them."""
_RULESETS: dict[str, frozenset[frozenset[str]]] = {
    "group": frozenset({frozenset({"type", "initialAdmin"})}),
    "ownedByGroup": frozenset(
        {frozenset({"type", "group"}), frozenset({"type", "group", "restrictDeletion"})}
    ),
    "unsafeAllowAll": frozenset({frozenset({"type"})}),
}
_HALF_PAIR = "a header's text holds half a surrogate pair"
_INTEGERS = range(-(2**63), 2**64)
"""Those of the native core; a uniqueness may have only half of the positive ones."""
_MAX_FLOAT = 1e21
_decoder = msgspec.json.Decoder(dict[str, Any])
_simple_encoder = msgspec.json.Encoder(order="sorted")
_plain_encoder = JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class CoValueHeader:
    """A header of the right shape. `fields` is the JSON; what the engine asks for is beside it."""

    fields: dict[str, JsonValue]
    canonical: str = field(compare=False)
    owner_group: str | None
    """The group that rules this value, for values owned by one; text that nobody checked."""
    initial_admin: str | None
    """The first member, for groups and accounts: an agent or account id."""
    source: str | None
    """The value that this one is a branch of; text that nobody checked."""
    is_account: bool
    priority: int

    @property
    def is_group(self) -> bool:
        """Whether this value holds members and keys; accounts do too."""
        return self.initial_admin is not None

    @property
    def id(self) -> RawCoId:
        return RawCoId(co_id_of(self.canonical))

    def has_id(self, co_id: RawCoId) -> bool:
        """Whether `co_id` is this header's: the hash, compared without writing it as text."""
        return co_id_digest(co_id) == header_digest(self.canonical)

    @property
    def account_public_key(self) -> bytes | None:
        """The key that signs the sessions of this account; None when nobody can sign for it."""
        if not self.is_account or self.initial_admin is None:
            return None
        try:
            return agent_public_key(self.initial_admin)
        except DecodeError:
            return None


def parse_header(fields: JsonValue) -> CoValueHeader:
    """Check the shape. Whether the id fits is for the caller to check.

    Raises: DecodeError.
    """
    if not isinstance(fields, dict) or frozenset(fields) not in _SHAPES:
        raise DecodeError(
            "a header needs type, ruleset, meta and uniqueness, and may have createdAt", 0
        )
    kind = fields["type"]
    if not isinstance(kind, str):
        raise DecodeError("a header's type must be text", 0)
    if not isinstance(fields.get("createdAt"), str | None):
        raise DecodeError("a header's createdAt must be text or null", 0)
    _check_uniqueness(fields["uniqueness"])
    owner_group, initial_admin = _parse_ruleset(fields["ruleset"])
    meta = fields["meta"]
    named = meta if isinstance(meta, dict) else {}
    meta_type, source = named.get("type"), named.get("source")
    is_account = kind == "comap" and meta_type == "account" and initial_admin is not None
    canonical = _canonical(fields)
    if initial_admin is not None:
        priority = GROUP_PRIORITY
    elif kind == "costream" and meta_type == "binary":
        priority = STREAM_PRIORITY
    else:
        priority = VALUE_PRIORITY
    return CoValueHeader(
        fields=fields,
        canonical=canonical,
        owner_group=owner_group,
        initial_admin=initial_admin,
        source=source if isinstance(source, str) else None,
        is_account=is_account,
        priority=priority,
    )


def parse_header_text(text: str) -> CoValueHeader:
    """Check JSON that was stored. Raises: DecodeError."""
    try:
        fields: JsonValue = _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(f"stored header is not a JSON object: {error}", 0) from None
    return parse_header(fields)


def _parse_ruleset(ruleset: JsonValue) -> tuple[str | None, str | None]:
    """(owning group, initial admin), at most one of them given."""
    if not isinstance(ruleset, dict):
        raise DecodeError("a header's ruleset must be an object", 0)
    kind = ruleset.get("type")
    shapes = _RULESETS.get(kind) if isinstance(kind, str) else None
    if shapes is None or frozenset(ruleset) not in shapes:
        raise DecodeError("a ruleset of no known shape", 0)
    if kind == "ownedByGroup":
        group = ruleset["group"]
        if not isinstance(group, str):
            raise DecodeError("a value's group must be text", 0)
        return group, None
    if kind == "group":
        admin = ruleset["initialAdmin"]
        if not isinstance(admin, str):
            raise DecodeError("a group's initial admin must be text", 0)
        return None, admin
    return None, None


def _check_uniqueness(value: JsonValue) -> None:
    match value:
        case None | bool() | str():
            return
        case int() if _is_exact(value) and value < 2**63:
            return
        case dict() if all(key and isinstance(item, str) for key, item in value.items()):
            return
    raise DecodeError(
        "a header's uniqueness must be text, boolean, null, integer or texts by name", 0
    )


def _is_exact(number: int) -> bool:
    """Whether JavaScript and the native core both write it so."""
    return number in _INTEGERS and javascript_number(number) == str(number)


def _is_simple(fields: dict[str, JsonValue]) -> bool:
    """Whether it is texts and maps of texts, as nearly all are: nothing in there is ambiguous."""
    for value in fields.values():
        if type(value) is dict:
            for key, item in value.items():
                if not key.isascii() or not (item is None or type(item) is str):
                    return False
        elif not (value is None or type(value) is str):
            return False
    return True


def _canonical(fields: dict[str, JsonValue]) -> str:
    """Canonical JSON, unless JavaScript and the native core would write it differently."""
    if _is_simple(fields):
        try:
            return _simple_encoder.encode(fields).decode()
        except UnicodeEncodeError:
            raise DecodeError(_HALF_PAIR, 0) from None
    is_plain = True
    pending: list[tuple[JsonValue, int]] = [(fields, 0)]
    while pending:
        item, depth = pending.pop()
        if depth == MAX_DEPTH and isinstance(item, dict | list):
            raise DecodeError(f"header nested deeper than {MAX_DEPTH}", 0)
        match item:
            case dict():
                # ASCII, which nearly all keys are, sorts the same either way.
                if not all(map(str.isascii, item)) and sorted(item) != sorted(item, key=utf16):
                    raise DecodeError("a header's keys have two orders", 0)
                pending.extend((value, depth + 1) for value in item.values())
            case list():
                pending.extend((value, depth + 1) for value in item)
            case float():
                if item.is_integer() or not abs(item) < _MAX_FLOAT:
                    raise DecodeError("a header's number has two canonical forms", 0)
                is_plain = False
            case int() if not _is_exact(item):
                raise DecodeError("a header's integer is not exact in JavaScript", 0)
    try:
        # Without floats the standard library writes the same text, at a fifth of the cost.
        text = _plain_encoder.encode(fields) if is_plain else canonical_json(fields)
        text.encode()
    except UnicodeEncodeError:
        raise DecodeError(_HALF_PAIR, 0) from None
    return text
