"""Who is behind a session: accounts and their agents are one person.

An account's id is the hash of a header in which nothing but its agent's id varies, so that every
agent has exactly one account id of that form, whether or not the account exists. That id stands
for the person: whoever lists or counts either of the two means both.
"""

from __future__ import annotations

from functools import lru_cache

from node.covalue.header import parse_header
from node.covalue.ids import RawCoId, is_agent_id, is_co_id

Person = RawCoId
"""The account's id."""


@lru_cache(maxsize=16_384)
def person_of(owner: str) -> Person | None:
    """Whom an account or agent id stands for; None for text that is neither.

    About 30 microseconds for an agent that was not asked for lately.

    Source: cojson 0.20.19 coValues/account.ts accountHeaderForInitialAgentSecret.
    """
    if len(owner) <= 30 and is_co_id(owner):
        return RawCoId(owner)
    if not is_agent_id(owner):
        return None
    header = parse_header(
        {
            "type": "comap",
            "ruleset": {"type": "group", "initialAdmin": owner},
            "meta": {"type": "account"},
            "createdAt": None,
            "uniqueness": None,
        }
    )
    # Base58 of another length than a key's is nobody's.
    return None if header.account_public_key is None else header.id
