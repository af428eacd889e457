"""The ids of cojson, checked once where they come in.

| id             | shape                                                                     |
|----------------|---------------------------------------------------------------------------|
| coValue        | `co_z` + base58 of 19 bytes                                               |
| agent          | `sealer_z` + base58 of 32 bytes + `/signer_z` + base58 of 32 bytes        |
| session        | account or agent id + `_session_z` + base58 of 8 random bytes             |
| delete session | account or agent id + `_session_d` + base58 of 7 random bytes + `$`       |

All are ASCII and none contains `:`, which is why `:` separates the parts of a stored key.

Source: cojson 0.20.19 ids.ts, crypto/crypto.ts.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NewType, cast

from hypercore.encoding import DecodeError
from node.cojson.base58 import base58_decode
from node.cojson.crypto import (
    PUBLIC_KEY_BYTES,
    SHORT_HASH_BYTES,
    SIGNER_PREFIX,
)

RawCoId = NewType("RawCoId", str)
CoSessionId = NewType("CoSessionId", str)

_B58 = "[1-9A-HJ-NP-Za-km-z]"
# 19 bytes are 19 (all zero) to 26 letters; ids in the wild have 25 or 26.
_CO_ID = re.compile(f"co_z{_B58}{{19,26}}")
_AGENT_ID = re.compile(f"sealer_z{_B58}{{32,44}}/signer_z{_B58}{{32,44}}")
# Random parts are 8 and 7 bytes; the room above is for other implementations of the format.
_SESSION_ID = re.compile(
    f"(?:co_z{_B58}{{19,26}}|sealer_z{_B58}{{32,44}}/signer_z{_B58}{{32,44}})"
    f"(?:_session_z{_B58}{{1,44}}|_session_d{_B58}{{1,44}}\\$)"
)
_SESSION_IDS = re.compile(f"(?:{_SESSION_ID.pattern}\n)*+")
"""One on each line; what one line matched is not looked at again."""
_FEW_IDS = 64
_SESSION_MARK = "_session"
_CACHED_IDS = 16_384
"""Texts whose check is remembered: 0.3 KB each, and each spares 3 us of matching and decoding."""


@lru_cache(maxsize=_CACHED_IDS)
def co_id_digest(text: str) -> bytes | None:
    """The 19 bytes of a coValue id; None for any other text."""
    if _CO_ID.fullmatch(text) is None:
        return None
    digest = base58_decode(text[4:])
    return digest if len(digest) == SHORT_HASH_BYTES else None


def is_co_id(text: str) -> bool:
    """Whether this is a coValue id: the right prefix and 19 bytes, nothing less."""
    return co_id_digest(text) is not None


def parse_co_id(text: str) -> RawCoId:
    """Raises: DecodeError."""
    # The length is checked first so that no long text is hashed, cached or matched.
    if len(text) > 30 or not is_co_id(text):
        raise DecodeError("not a coValue id", 0)
    return RawCoId(text)


def named_co_id(text: str) -> RawCoId:
    """Parse an id that somebody typed. Raises: ValueError, whose text is for people."""
    try:
        return parse_co_id(text)
    except DecodeError:
        raise ValueError(
            f"{text!r} is no coValue id: co_z and 25 or 26 letters and digits"
        ) from None


@lru_cache(maxsize=_CACHED_IDS)
def _is_session_id(text: str) -> bool:
    return _SESSION_ID.fullmatch(text) is not None


def parse_session_id(text: str) -> CoSessionId:
    """Raises: DecodeError."""
    if len(text) > 170 or not _is_session_id(text):
        raise DecodeError("not a session id", 0)
    return CoSessionId(text)


def parse_session_ids(texts: Collection[str]) -> Collection[CoSessionId]:
    """Parse many, which are not remembered one by one: 0.2 us each. Raises: DecodeError."""
    if len(texts) <= _FEW_IDS:
        return [parse_session_id(text) for text in texts]
    lines = "\n".join(texts) + "\n"
    if lines.count("\n") != len(texts) or _SESSION_IDS.fullmatch(lines) is None:
        raise DecodeError("not a session id", 0)
    return cast(Collection[CoSessionId], texts)


def session_owner(session_id: CoSessionId) -> str:
    """The account or agent id that signs this session."""
    return session_id.partition(_SESSION_MARK)[0]


def is_account_id(owner: str) -> bool:
    """Whether a session's owner is an account; else it is an agent."""
    return owner.startswith("co_z")


def is_delete_session(session_id: CoSessionId) -> bool:
    """JavaScript looks at the last character, its native core at `_session_d`: both must fit."""
    return session_id.endswith("$") and "_session_d" in session_id


def is_agent_id(text: str) -> bool:
    return len(text) <= 120 and _AGENT_ID.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def agent_public_key(agent_id: str) -> bytes:
    """The Ed25519 key of an agent's signer half. Raises: DecodeError."""
    if not is_agent_id(agent_id):
        raise DecodeError("not an agent id", 0)
    key = base58_decode(agent_id.partition("/")[2][len(SIGNER_PREFIX) :])
    if len(key) != PUBLIC_KEY_BYTES:
        raise DecodeError(f"signer of {len(key)} bytes", 0)
    return key
