"""Judging one content message against what is verified already.

A session's part is *stale* (all of it is here), *fresh* (it continues what is here) or a *gap*
(something before it is missing). Fresh parts are verified; a part that does not verify leaves
nothing behind, so that the genuine one is accepted whenever it comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hypercore.encoding import DecodeError
from node.cojson.hazardous_values import HazardousValues
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.ids import (
    CoSessionId,
    RawCoId,
    agent_public_key,
    is_account_id,
    session_owner,
)
from node.covalue.session_log import Extension, InvalidSessionSignature, SessionLog
from node.covalue.store import SessionAppend

AccountKeys = Mapping[RawCoId, bytes | None]
"""The signing keys of accounts; None for a value that is not one."""

_NEW_LOG = SessionLog()


class FreshPart(NamedTuple):
    """Transactions that continue `log`, and the signature that covers both."""

    log: SessionLog
    transactions: Sequence[Transaction]
    signature: bytes


class Sorted(NamedTuple):
    """A message's parts, sorted by what is here."""

    fresh: Mapping[CoSessionId, FreshPart]
    has_gap: bool
    differing: Sequence[CoSessionId]
    """Stale parts that end where we end, with another signature: they may be a fork."""
    unhashed: Sequence[CoSessionId]
    """Sessions whose running hash must be made again before they can be verified."""


@dataclass(slots=True)
class Verified:
    """The parts that verify, and why the others are refused; `Rights` takes further ones out."""

    logs: dict[CoSessionId, SessionLog] = field(default_factory=dict)
    appends: dict[CoSessionId, SessionAppend] = field(default_factory=dict)
    extensions: dict[CoSessionId, Extension] = field(default_factory=dict)
    """How each part was hashed and found to be signed, should it be judged again."""
    refusals: list[str] = field(default_factory=list)
    unproven: list[CoSessionId] = field(default_factory=list)
    """Sessions whose signature does not fit what is here: another continuation, or a forgery."""
    is_deletion: bool = False
    """One of the parts deletes the value."""
    rests_on: frozenset[RawCoId] = frozenset()
    """Groups by which it was judged and of which commits are out."""
    supposed: frozenset[CoSessionId] = frozenset()
    """Parts that have their right by others of the message only."""
    consulted: frozenset[RawCoId] = frozenset()
    """The groups by which these were judged."""
    keeps_header: bool = False
    """The value begins, even if no part is taken: one is left out for reasons of our own."""

    @property
    def is_refused(self) -> bool:
        """Whether nothing is left to take."""
        return bool(self.refusals) and not self.logs and not self.keeps_header

    def refuse(self, session_id: CoSessionId, reason: str) -> None:
        """Its signature is right, and yet it must not be taken."""
        self.refusals.append(f"{session_id}: {reason}")
        self.drop(session_id)

    def refuse_hazards(self, hazardous: HazardousValues, co_id: RawCoId, *, is_group: bool) -> bool:
        """Refuse what would keep cojson clients from the value, though its author may write it.

        Returns whether there was any.
        """
        found: dict[CoSessionId, str] = {}
        for session_id, append in self.appends.items():
            transactions = append.transactions
            reason = hazardous.hazard(co_id, session_id, transactions, is_group=is_group)
            if reason is not None:
                found[session_id] = reason
        for session_id, reason in found.items():
            self.refuse(session_id, reason)
        return bool(found)

    def drop(self, session_id: CoSessionId) -> None:
        """Leave a part out without calling it wrong."""
        del self.logs[session_id], self.appends[session_id]


def sort_parts(
    new: Mapping[CoSessionId, SessionContent], logs: Mapping[CoSessionId, SessionLog]
) -> Sorted:
    fresh: dict[CoSessionId, FreshPart] = {}
    has_gap = False
    differing: list[CoSessionId] = []
    unhashed: list[CoSessionId] = []
    for session_id, (after, transactions, signature) in new.items():
        log = logs.get(session_id, _NEW_LOG)
        known = log.count - after
        if known < 0:
            has_gap = True
        elif known < len(transactions):
            beyond = transactions[known:] if known else transactions
            fresh[session_id] = FreshPart(log, beyond, signature)
            if not log.is_hashed:
                unhashed.append(session_id)
        elif known == len(transactions) and transactions and signature != log.signature:
            differing.append(session_id)
    return Sorted(fresh, has_gap, differing, unhashed)


def verify_parts(
    parts: Mapping[CoSessionId, FreshPart],
    account_keys: AccountKeys,
    foreseen: Mapping[CoSessionId, Extension] | None = None,
) -> Verified:
    """Check each part's signature; requires that their logs are hashed.

    Where what was `foreseen` fits, it is neither hashed nor checked again.
    """
    verified = Verified()
    for session_id, (log, transactions, signature) in parts.items():
        extension = None if foreseen is None else foreseen.get(session_id)
        try:
            key = log.public_key or signer_key(session_id, account_keys)
            if extension is None or not extension.fits(log, transactions, signature):
                extension = log.extension(transactions, signature)
            extended = log.appended(extension, key)
        except InvalidSessionSignature:
            verified.refusals.append(f"bad signature on {session_id} after {log.count}")
            verified.unproven.append(session_id)
        except (DecodeError, UnicodeEncodeError) as error:
            verified.refusals.append(f"{session_id} after {log.count}: {error}")
        else:
            verified.logs[session_id] = extended
            verified.extensions[session_id] = extension
            verified.appends[session_id] = SessionAppend(
                log.count,
                transactions,
                signature,
                extended.bytes_since_checkpoint,
                extended.is_checkpoint,
                extension.lines.decode(),
            )
    return verified


def others_follow(content: Content) -> bool:
    """Whether sessions that have no part in this content of a value have one in what follows.

    A large part comes with the header alone. The header is taken then, even if the part is not:
    else whoever writes much to a value could keep it from us.
    """
    until = content.expect_until
    return until is not None and not until.keys() <= content.new.keys()


def signer_key(session_id: CoSessionId, account_keys: AccountKeys) -> bytes:
    """The key that must have signed a session. Raises: DecodeError when its owner has none."""
    owner = session_owner(session_id)
    if not is_account_id(owner):
        return agent_public_key(owner)
    key = account_keys.get(RawCoId(owner))
    if key is None:
        raise DecodeError(f"{owner} is not an account", 0)
    return key
