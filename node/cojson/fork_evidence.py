"""Judging evidence of a forked session that somebody else brings.

Both halves are the author's if both signatures cover the transactions before the fork, which are
not in the evidence: whoever judges it has to hold them. So there are three verdicts: a node that
does not hold them cannot tell, nor can one that holds others, of yet another continuation.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from enum import Enum, auto

from hypercore.encoding import DecodeError
from node.cojson.crypto import RunningHash, verify_session
from node.cojson.fork_check import stored_transactions
from node.cojson.judgment import signer_key
from node.covalue.content import SessionContent
from node.covalue.ids import RawCoId, is_account_id, session_owner
from node.covalue.session_fork import SessionFork
from node.covalue.session_log import feed
from node.covalue.store import CoValueStore


class EvidenceVerdict(Enum):
    """What evidence is worth."""

    PROVEN = auto()
    """The author signed both."""
    FALSE = auto()
    """It shows nothing, or one of the two is not the author's."""
    UNKNOWN = auto()
    """What came before the fork is not here."""


async def judge_fork(store: CoValueStore, fork: SessionFork) -> EvidenceVerdict:
    """Check both signatures; costs reading the session up to the fork.

    Raises: CorruptStore.
    Cancel: nothing is changed.
    """
    kept, refused = fork.kept, fork.refused
    if (
        kept.after != refused.after
        or not kept.transactions
        or not refused.transactions
        or kept.transactions[0] == refused.transactions[0]
    ):
        return EvidenceVerdict.FALSE
    key = await _find_key(store, fork)
    running = RunningHash() if key is None else await _hash_before(store, fork)
    if key is None or running is None:
        return EvidenceVerdict.UNKNOWN
    signed = sum(_is_signed(running, half, key) for half in (kept, refused))
    verdicts = (EvidenceVerdict.UNKNOWN, EvidenceVerdict.FALSE, EvidenceVerdict.PROVEN)
    return verdicts[signed]


async def as_kept_here(store: CoValueStore, fork: SessionFork) -> SessionFork:
    """The same evidence, with the half that is stored here as `kept`.

    Raises: CorruptStore.
    """
    value = await store.load_value(fork.co_id)
    if value is not None:
        async with aclosing(
            stored_transactions(store, fork.co_id, fork.session_id, value, fork.index)
        ) as runs:
            async for transactions in runs:
                if transactions[0] == fork.refused.transactions[0]:
                    return replace(fork, kept=fork.refused, refused=fork.kept)
                break
    return fork


def _is_signed(before: RunningHash, half: SessionContent, key: bytes) -> bool:
    running = before.copy()
    feed(running, half.transactions)
    return verify_session(running, half.signature, key)


async def _find_key(store: CoValueStore, fork: SessionFork) -> bytes | None:
    """The author's key; None when its account is not here."""
    owner = session_owner(fork.session_id)
    keys: dict[RawCoId, bytes | None] = {}
    if is_account_id(owner):
        account = await store.load_value(RawCoId(owner))
        keys[RawCoId(owner)] = None if account is None else account.header.account_public_key
    try:
        return signer_key(fork.session_id, keys)
    except DecodeError:
        return None


async def _hash_before(store: CoValueStore, fork: SessionFork) -> RunningHash | None:
    """The hash of the transactions before the fork; None when they are not all here."""
    value = await store.load_value(fork.co_id)
    stored = None if value is None else value.sessions.get(fork.session_id)
    if value is None or fork.index > (0 if stored is None else stored.count):
        return None
    running = RunningHash()
    left = fork.index
    if not left:
        return running
    async with aclosing(stored_transactions(store, fork.co_id, fork.session_id, value)) as runs:
        async for transactions in runs:
            feed(running, transactions[:left])
            left -= min(left, len(transactions))
            if not left:
                return running
    return None  # erased meanwhile
