"""What each account has stored on this node: bytes of its sessions, and values it created.

A transaction counts its changes and meta in characters and 128 for what surrounds it; that is
near to what it takes on the disk. A value counts for the author of the oldest transaction that
came with its header, who has signed it; what a header says of admins is signed by nobody. An
account counts for itself.

Nobody can be charged for what they did not sign. But signatures of cojson do not name the value
that they are for, only the transactions: whoever holds a session of somebody can store it again
under further values, at that account's cost. The originals take it as we do.

What was let in and is not durable yet is *reserved*: it counts against quotas, but is not saved.

File format, `usage.json`: {"version": 1, "accounts": {"co_z...": [bytes, values], ...}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from typing import NamedTuple

from hypercore.encoding import DecodeError
from node.access.people import Person, person_of
from node.covalue.content import Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, session_owner
from node.covalue.store import SessionSize

TRANSACTION_BYTES = 128
"""Counted for every transaction beside its text."""

_VERSION = 1


class AccountUse(NamedTuple):
    """What one account has stored."""

    account: str
    bytes: int
    values: int


@dataclass(slots=True)
class _Total:
    bytes: int = 0
    values: int = 0


@dataclass(slots=True)
class Charge:
    """What one message costs whom."""

    bytes: dict[Person, int] = field(default_factory=dict)
    creator: Person | None = None

    @classmethod
    def of(
        cls,
        header: CoValueHeader | None,
        sessions: Mapping[CoSessionId, Iterable[Transaction]],
    ) -> Charge:
        """`header` is given when the value is new."""
        charge = cls()
        oldest: tuple[int, str, Person | None] | None = None
        for session_id, transactions in sessions.items():
            person = person_of(session_owner(session_id))
            size = 0
            for transaction in transactions:
                size += transaction_bytes(transaction)
                age = (transaction.made_at, session_id, person)
                if header is not None and (oldest is None or age[:2] < oldest[:2]):
                    oldest = age
            if person is not None:
                charge.bytes[person] = charge.bytes.get(person, 0) + size
        if header is not None:
            if header.is_account and header.initial_admin is not None:
                charge.creator = person_of(header.initial_admin)
            elif oldest is not None:
                charge.creator = oldest[2]
        return charge


def transaction_bytes(transaction: Transaction) -> int:
    return TRANSACTION_BYTES + len(transaction.changes) + len(transaction.meta or "")


class Usage:
    """Totals by account."""

    def __init__(self) -> None:
        self._stored: dict[Person, _Total] = {}
        self._reserved: dict[Person, _Total] = {}
        self.unsaved_bytes = 0
        """Grows with every charge, until `encode`."""

    def __len__(self) -> int:
        return len(self._stored)

    def of(self, person: Person) -> AccountUse:
        """What is stored and reserved."""
        stored = self._stored.get(person, _Total())
        reserved = self._reserved.get(person, _Total())
        return AccountUse(person, stored.bytes + reserved.bytes, stored.values + reserved.values)

    def largest(self, count: int) -> list[AccountUse]:
        """The accounts that have stored most bytes, the largest first."""
        found = nlargest(count, self._stored.items(), key=lambda item: (item[1].bytes, item[0]))
        return [AccountUse(person, total.bytes, total.values) for person, total in found]

    def reserve(self, charge: Charge) -> None:
        """Something is let in; `store` or `give_up` will follow."""
        _add(self._reserved, charge, 1)

    def store(self, charge: Charge) -> None:
        """What was let in is durable: what was reserved for it is stored."""
        self.give_up(charge)
        self.add(charge)

    def give_up(self, charge: Charge) -> None:
        """What was let in does not become durable: nothing is reserved for it any more."""
        _add(self._reserved, charge, -1)
        for person in (*charge.bytes, charge.creator):
            if person is not None and self._reserved.get(person) == _Total():
                del self._reserved[person]

    def add(self, charge: Charge) -> None:
        """Count what is stored and was not reserved."""
        _add(self._stored, charge, 1)
        self.unsaved_bytes += 1 + sum(charge.bytes.values())

    def release(self, sessions: Mapping[CoSessionId, SessionSize]) -> None:
        """So much of these sessions was erased; a value still counts, as its tombstone stays."""
        for session_id, size in sessions.items():
            total = self._stored.get(person_of(session_owner(session_id)) or RawCoId(""))
            if total is not None:
                freed = TRANSACTION_BYTES * size.transactions + size.characters
                # What a crash kept from being counted must not be given back.
                total.bytes = max(total.bytes - freed, 0)
                self.unsaved_bytes += 1

    def encode(self) -> str:
        """The file's text; from here on nothing is unsaved."""
        self.unsaved_bytes = 0
        accounts = {person: [use.bytes, use.values] for person, use in self._stored.items()}
        return json.dumps({"version": _VERSION, "accounts": accounts}, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> Usage:
        """Raises: DecodeError."""
        usage = cls()
        try:
            match json.loads(text):
                case {"version": int(version), "accounts": dict(accounts)} if version == _VERSION:
                    for account, counts in accounts.items():
                        usage._stored[_account(account)] = _total(counts)
                    return usage
        except (ValueError, RecursionError):
            pass
        raise DecodeError("no usage of accounts", 0)


def _add(totals: dict[Person, _Total], charge: Charge, sign: int) -> None:
    for person, size in charge.bytes.items():
        totals.setdefault(person, _Total()).bytes += sign * size
    if charge.creator is not None:
        totals.setdefault(charge.creator, _Total()).values += sign


def _account(text: object) -> Person:
    person = person_of(text) if isinstance(text, str) else None
    if person is None:
        raise ValueError
    return person


def _total(counts: object) -> _Total:
    match counts:
        case [int(size), int(values)] if size >= 0 and values >= 0:
            return _Total(size, values)
    raise ValueError
