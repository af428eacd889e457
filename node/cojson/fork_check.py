"""Whether an author signed two continuations of one session.

The engine has seen a part that does not fit what is stored. The stored transactions before it
are hashed, the part after them: if its signature covers that, its author signed it, and where
the two differ the session forks. A part that begins beyond the place where they parted cannot be
told from a forgery; the whole session can.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from enum import Enum, auto

from node.cojson.crypto import RunningHash, verify_session
from node.cojson.outputs import CheckFork
from node.covalue.content import SessionContent, Transaction
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState, merge_counts
from node.covalue.session_fork import MAX_EVIDENCE_BYTES, SessionFork
from node.covalue.session_log import feed
from node.covalue.store import CoValueStore, StoredValue

_READ_BYTES = 1024 * 1024


class Verdict(Enum):
    """What a part is, if it is not a fork."""

    FORGED = auto()
    """Its author did not sign it, or it says what is stored."""
    UNPROVEN = auto()
    """Not signed as it stands; what came before it may differ already."""


async def check_fork(store: CoValueStore, check: CheckFork) -> SessionFork | Verdict:
    """Look into the store; costs reading the session up to where the two part.

    Raises: CorruptStore.
    Cancel: nothing is changed.
    """
    part = check.part
    value = await store.load_value(check.co_id)
    stored = None if value is None else value.sessions.get(check.session_id)
    if value is None or stored is None or part.after > stored.count:
        return Verdict.FORGED
    running = RunningHash()
    beside = _Comparison(part)
    position = 0
    runs_of = stored_transactions(store, check.co_id, check.session_id, value)
    async with aclosing(runs_of) as runs:
        async for transactions in runs:
            before = transactions[: max(part.after - position, 0)]
            feed(running, before)
            position += len(transactions)
            if len(before) < len(transactions) and beside.add(transactions[len(before) :]):
                break
    feed(running, part.transactions)
    if not verify_session(running, part.signature, check.public_key):
        return Verdict.UNPROVEN if part.after else Verdict.FORGED
    if beside.index is None:
        return Verdict.FORGED  # one continues the other
    theirs = part.transactions[beside.index - part.after :]
    return SessionFork(
        check.co_id,
        check.session_id,
        SessionContent(beside.index, _first(beside.ours), stored.signature),
        SessionContent(beside.index, _first(theirs), part.signature),
    )


class _Comparison:
    """The stored transactions from `part.after` on, beside those of the part."""

    def __init__(self, part: SessionContent) -> None:
        self.index: int | None = None
        """That of the first transaction that is not the same, once there is one."""
        self.ours: list[Transaction] = []
        """The stored ones from there on."""
        self._part = part
        self._position = part.after

    def add(self, transactions: Sequence[Transaction]) -> bool:
        """Compare further ones; whether that is enough."""
        if self.index is None:
            theirs = self._part.transactions[self._position - self._part.after :]
            same = _common_length(transactions, theirs)
            self._position += same
            if same == len(theirs):
                return True  # ours goes on where theirs ends
            if same == len(transactions):
                return False
            self.index = self._position
            transactions = transactions[same:]
        self.ours += transactions
        return _size(self.ours) > MAX_EVIDENCE_BYTES


def _common_length(ours: Sequence[Transaction], theirs: Sequence[Transaction]) -> int:
    pairs = zip(ours, theirs, strict=False)
    different = (place for place, (one, other) in enumerate(pairs) if one != other)
    return next(different, min(len(ours), len(theirs)))


async def stored_transactions(
    store: CoValueStore,
    co_id: RawCoId,
    session_id: CoSessionId,
    value: StoredValue,
    start: int = 0,
) -> AsyncGenerator[Sequence[Transaction], None]:
    """The stored transactions of a session, from `start` on. Raises: CorruptStore."""
    counts = {key: item.count for key, item in value.sessions.items()}
    stop, counts[session_id] = counts.get(session_id, 0), start
    while counts[session_id] < stop:
        loaded = await store.load(co_id, KnownState(True, counts), _READ_BYTES)
        if not loaded.pieces:
            return  # erased meanwhile
        for piece in loaded.pieces:
            merge_counts(counts, piece.known_state.sessions)  # other sessions grow meanwhile
            part = piece.new.get(session_id)
            if part is not None:
                yield part.transactions


def _size(transactions: Sequence[Transaction]) -> int:
    return sum(len(item.changes) + len(item.meta or "") for item in transactions)


def _first(transactions: Sequence[Transaction]) -> list[Transaction]:
    """As many as evidence may hold, at least one."""
    taken: list[Transaction] = []
    size = 0
    for transaction in transactions:
        size += _size((transaction,))
        if taken and size > MAX_EVIDENCE_BYTES:
            break
        taken.append(transaction)
    return taken
