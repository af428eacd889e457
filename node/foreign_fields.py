"""Fields of a JSON list of objects that this version does not know: a newer one wrote them.

They are written again as they are, so that who goes back to this version, and forward again, has
lost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

ForeignFields = Mapping[str, msgspec.Raw]


def foreign_fields(data: bytes, kind: type[msgspec.Struct]) -> list[ForeignFields]:
    """Of each object, in order, what is no field of `kind`. Raises: ValueError."""
    known = kind.__struct_encode_fields__
    objects = msgspec.json.decode(data, type=list[dict[str, msgspec.Raw]])
    return [{name: raw for name, raw in fields.items() if name not in known} for fields in objects]


def encode_objects(objects: Iterable[tuple[msgspec.Struct, ForeignFields]]) -> bytes:
    """The JSON of a list of objects, each with fields that are foreign to it."""
    whole = [
        {**msgspec.to_builtins(known), **foreign} if foreign else known
        for known, foreign in objects
    ]
    return msgspec.json.format(msgspec.json.encode(whole), indent=1)
