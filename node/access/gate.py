"""The sync engine's gatekeeper: lists first, quotas after the signatures, paces beside.

What is refused for a quota stays refused: an account that was found full is full until its quota
is raised or its use is counted anew, for small messages, too. Otherwise each further edit would be
a gap that the client is asked to fill, which it does by sending everything again.

Quotas bind what clients send. What other nodes of the mesh send counts for its account and is
taken all the same: the node that the client was connected to has judged it, and nodes that
judge again by what they happen to hold would drift apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from node.access.people import Person, person_of
from node.access.policy import OPEN, AccessPolicy
from node.access.quotas import NO_QUOTAS, Paces, Quotas
from node.access.reasons import Reason
from node.access.usage import AccountUse, Charge, Usage
from node.cojson.gatekeeper import ACCEPTED, Origin, Pace, Ruling
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, session_owner
from node.covalue.store import SessionAppend, SessionSize, ValueAppend

MAX_FULL = 100_000
"""Accounts remembered as full; when there are more, all are found out again."""

_MAX_ACCOUNT_HEADER_CHARACTERS = 1024
"""Length of the header of an account that is not welcome itself; most have about 300."""


@dataclass(slots=True)
class TokenCounts:
    """What clients with one token did since the start."""

    connections: int = 0
    frames: int = 0
    bytes: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """Counted from the start. `refused` are sessions, or values with all their sessions."""

    refused: Mapping[Reason, int]
    slowed: int
    """How often a client was left unread for its rate."""
    sent_away: int
    tokens: Mapping[str, TokenCounts]
    accounts: int
    """Accounts with anything stored, if that is counted."""
    full_accounts: int


class Gate:
    """See `gatekeeper.py` for when it is asked. `policy` may be replaced at any time."""

    def __init__(
        self,
        policy: AccessPolicy = OPEN,
        quotas: Quotas = NO_QUOTAS,
        usage: Usage | None = None,
    ) -> None:
        self.policy = policy
        self.is_read_only = False
        """All content of clients is refused: the node is no writer of its mesh."""
        self.usage = Usage() if usage is None else usage
        self.quotas = quotas
        self._paces = Paces(quotas)
        self._full: dict[Reason, set[Person]] = {
            Reason.ACCOUNT_BYTES: set(),
            Reason.ACCOUNT_VALUES: set(),
        }
        self._refused: Counter[Reason] = Counter()
        self._tokens: dict[str, TokenCounts] = {}
        self._slowed = self._sent_away = 0

    # What the engine asks.

    def screen(
        self,
        origin: Origin | None,
        co_id: RawCoId,
        header: CoValueHeader | None,
        sessions: Collection[CoSessionId],
        *,
        is_new: bool,
        is_awaited: bool,
    ) -> Ruling:
        """As the protocol says."""
        if self.is_read_only and origin is not None:
            self._count(origin, [Reason.READ_ONLY])
            return Ruling(Reason.READ_ONLY.text)
        if self.policy.is_open and not any(self._full.values()):
            return ACCEPTED
        refused: dict[CoSessionId, str] = {}
        reasons: list[Reason] = []
        for session_id in sessions:
            reason = self._objection(origin, session_id, co_id, header, is_new)
            if reason is not None:
                refused[session_id] = f"{session_owner(session_id)} {reason.text}"
                reasons.append(reason)
        ruling = Ruling(None, refused)
        if len(refused) == len(sessions) and (refused or (is_new and header is not None)):
            objection: Reason | None = Reason.HEADER_ALONE
            if is_new and header is not None:
                objection = self._header_objection(co_id, header, bool(refused), is_awaited)
            if objection is not None:
                reasons = reasons or [objection]
                text = next(iter(refused.values()), objection.text)
                ruling = Ruling(_more(text, len(refused)))
        self._count(origin, reasons)
        return ruling

    def is_unwelcome(
        self,
        origin: Origin | None,
        co_id: RawCoId,
        header: CoValueHeader | None,
        session_id: CoSessionId,
        *,
        is_new: bool,
    ) -> bool:
        """As the protocol says."""
        if self.is_read_only and origin is not None:
            return True
        return self._objection(origin, session_id, co_id, header, is_new) is not None

    def judge(
        self,
        origin: Origin | None,
        header: CoValueHeader,
        appends: Mapping[CoSessionId, SessionAppend],
        *,
        is_new: bool,
    ) -> Ruling:
        """As the protocol says."""
        if not self.quotas.bounds_accounts:
            return ACCEPTED
        refused: dict[CoSessionId, str] = {}
        if origin is not None:
            refused = self._over_bytes(origin, appends)
        taken = {key: part.transactions for key, part in appends.items() if key not in refused}
        if appends and not taken:
            return Ruling(_more(next(iter(refused.values())), len(refused)))
        charge = Charge.of(header if is_new else None, taken)
        if origin is not None and charge.creator is not None and not header.is_account:
            limit = self.quotas.account_values
            if limit is not None and self.usage.of(charge.creator).values >= limit:
                self._note_full(Reason.ACCOUNT_VALUES, charge.creator)
                self._count(origin, [Reason.ACCOUNT_VALUES])
                return Ruling(f"{charge.creator} {Reason.ACCOUNT_VALUES.text}: {limit}")
        self.usage.reserve(charge)
        return Ruling(None, refused)

    def stored(self, origin: Origin | None, append: ValueAppend, now: float) -> None:
        """As the protocol says."""
        if self.quotas.bounds_accounts:
            self.usage.store(_charge_of(append))
        if origin is not None and append.header is not None:
            self._paces.count_value(origin.address, now)

    def not_stored(self, append: ValueAppend) -> None:
        """As the protocol says."""
        if self.quotas.bounds_accounts:
            self.usage.give_up(_charge_of(append))

    def erased(self, sessions: Mapping[CoSessionId, SessionSize]) -> None:
        """As the protocol says."""
        if self.quotas.bounds_accounts:
            self.usage.release(sessions)

    def received(self, origin: Origin, size: int, messages: int, now: float) -> Pace:
        """As the protocol says."""
        if origin.token and size:
            counts = self._token(origin.token)
            counts.frames += 1
            counts.bytes += size
        pace = self._paces.receive(origin.address, size, messages, now)
        if pace.end_reason is not None:
            self._sent_away += 1
        elif pace.wait_seconds:
            self._slowed += 1
        return pace

    # What the node asks.

    def count_connection(self, origin: Origin) -> None:
        """A client was let in."""
        if origin.token:
            self._token(origin.token).connections += 1

    def statistics(self) -> GateStatistics:
        return GateStatistics(
            refused=dict(self._refused),
            slowed=self._slowed,
            sent_away=self._sent_away,
            tokens=self._tokens,
            accounts=len(self.usage),
            full_accounts=len(set().union(*self._full.values())),
        )

    def largest_accounts(self, count: int) -> list[AccountUse]:
        """Costs a look at every account."""
        return self.usage.largest(count)

    def _objection(
        self,
        origin: Origin | None,
        session_id: CoSessionId,
        co_id: RawCoId,
        header: CoValueHeader | None,
        is_new: bool,
    ) -> Reason | None:
        owner = session_owner(session_id)
        person = person_of(owner)
        if not self.policy.is_open:
            # An account's own value is written by its agent, in the account's stead.
            is_own = header is not None and header.is_account and header.initial_admin == owner
            reason = self.policy.objection(person, co_id if is_own else None)
            if reason is not None:
                return reason
        if origin is None or person is None:
            return None
        if person in self._full[Reason.ACCOUNT_BYTES]:
            return Reason.ACCOUNT_BYTES
        is_account = header is not None and header.is_account
        if is_new and not is_account and person in self._full[Reason.ACCOUNT_VALUES]:
            return Reason.ACCOUNT_VALUES
        return None

    def _header_objection(
        self, co_id: RawCoId, header: CoValueHeader, is_signed: bool, is_awaited: bool
    ) -> Reason | None:
        """Why a header that comes alone, or with refused sessions only, is not taken."""
        admin = None if header.initial_admin is None else person_of(header.initial_admin)
        if header.is_account:
            if is_awaited and len(header.canonical) <= _MAX_ACCOUNT_HEADER_CHARACTERS:
                return None
            if not is_signed:
                return self.policy.objection(co_id, admin)
        if is_signed or self.policy.allow is not None:
            return Reason.HEADER_ALONE
        return self.policy.objection(admin)

    def _over_bytes(
        self, origin: Origin, appends: Mapping[CoSessionId, SessionAppend]
    ) -> dict[CoSessionId, str]:
        """The sessions that do not fit what their accounts have left."""
        limit = self.quotas.account_bytes
        refused: dict[CoSessionId, str] = {}
        if limit is None:
            return refused
        coming: dict[Person, int] = {}
        for session_id, part in appends.items():
            charge = Charge.of(None, {session_id: part.transactions})
            for person, size in charge.bytes.items():
                used = self.usage.of(person).bytes + coming.get(person, 0)
                if used + size <= limit:
                    coming[person] = coming.get(person, 0) + size
                    continue
                self._note_full(Reason.ACCOUNT_BYTES, person)
                refused[session_id] = (
                    f"{person} {Reason.ACCOUNT_BYTES.text}: {used} of {limit}, and {size} more came"
                )
        self._count(origin, [Reason.ACCOUNT_BYTES] * len(refused))
        return refused

    def _note_full(self, reason: Reason, person: Person) -> None:
        full = self._full[reason]
        if len(full) >= MAX_FULL:
            full.clear()
        full.add(person)

    def _token(self, name: str) -> TokenCounts:
        counts = self._tokens.get(name)
        if counts is None:
            counts = self._tokens[name] = TokenCounts()
        return counts

    def _count(self, origin: Origin | None, reasons: Collection[Reason]) -> None:
        self._refused.update(reasons)
        if reasons and origin is not None and origin.token:
            self._token(origin.token).refused += 1


def _charge_of(append: ValueAppend) -> Charge:
    sessions = {key: part.transactions for key, part in append.sessions.items()}
    return Charge.of(append.header, sessions)


def _more(text: str, count: int) -> str:
    return text if count < 2 else f"{text}, and {count - 1} more"
