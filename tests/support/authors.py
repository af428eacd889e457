"""Authors of coValues without JavaScript: agents that sign what tests send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from node.cojson.base58 import base58_encode
from node.cojson.crypto import RunningHash, signed_bytes
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.session_log import feed


def seed_of(name: str) -> bytes:
    return RunningHash(name.encode()).digest()


@dataclass(frozen=True, slots=True)
class Author:
    """An agent and its account, made from a name."""

    name: str

    @property
    def agent_id(self) -> str:
        public_key, _ = crypto_sign_seed_keypair(seed_of(self.name))
        return (
            f"sealer_z{base58_encode(seed_of('x' + self.name))}/signer_z{base58_encode(public_key)}"
        )

    @property
    def account_header(self) -> CoValueHeader:
        return parse_header(
            {
                "type": "comap",
                "ruleset": {"type": "group", "initialAdmin": self.agent_id},
                "meta": {"type": "account"},
                "createdAt": None,
                "uniqueness": None,
            }
        )

    @property
    def account_id(self) -> RawCoId:
        return self.account_header.id

    def session_id(self, name: str = "a", *, as_agent: bool = False) -> CoSessionId:
        owner = self.agent_id if as_agent else self.account_id
        return CoSessionId(f"{owner}_session_z{base58_encode(seed_of(name)[:8])}")

    def delete_session_id(self, name: str = "d", *, as_agent: bool = False) -> CoSessionId:
        owner = self.agent_id if as_agent else self.account_id
        return CoSessionId(f"{owner}_session_d{base58_encode(seed_of(name)[:7])}$")

    def sign(self, transactions: Sequence[Transaction]) -> bytes:
        """The signature over a whole session up to the last of these."""
        running = RunningHash()
        feed(running, transactions)
        return self.sign_hash(running)

    def sign_hash(self, running: RunningHash) -> bytes:
        """The signature over a session that has this hash."""
        _, secret_key = crypto_sign_seed_keypair(seed_of(self.name))
        return crypto_sign(signed_bytes(running), secret_key)[:64]

    def account(self) -> Content:
        """The account's own value, with the transaction that begins every account."""
        transactions = [role(self.agent_id, "admin", made_at=1)]
        return self.content(self.account_header, transactions, as_agent=True)

    def content(
        self,
        header: CoValueHeader,
        transactions: Sequence[Transaction],
        *,
        after: int = 0,
        session: str = "a",
        as_agent: bool = False,
        with_header: bool = True,
    ) -> Content:
        """Transactions [after, ...) of all of `transactions`, signed to the end."""
        new = {}
        if transactions:
            new[self.session_id(session, as_agent=as_agent)] = SessionContent(
                after, list(transactions[after:]), self.sign(transactions)
            )
        shown = header if with_header else None
        return Content(header.id, shown, new, header.priority)

    def deletion(
        self,
        header: CoValueHeader,
        *,
        made_at: int = 5000,
        session: str = "d",
        marked: str | None = None,
        count: int = 1,
    ) -> Content:
        """A delete session; `marked` is the id in its marker, that of the value if not given."""
        meta = f'{{"deleted":"{marked or header.id}"}}'
        transactions = [Transaction(made_at, "[]", None, meta)] * count
        part = SessionContent(0, transactions, self.sign(transactions))
        return Content(header.id, None, {self.delete_session_id(session): part}, header.priority)


def map_header(uniqueness: str, group: str | None = None) -> CoValueHeader:
    """A map, owned by a group or open to all."""
    ruleset: dict[str, str] = (
        {"type": "unsafeAllowAll"} if group is None else {"type": "ownedByGroup", "group": group}
    )
    return parse_header(
        {"type": "comap", "ruleset": {**ruleset}, "meta": None, "uniqueness": uniqueness}
    )


def group_header(admin: str, uniqueness: str = "g") -> CoValueHeader:
    return parse_header(
        {
            "type": "comap",
            "ruleset": {"type": "group", "initialAdmin": admin},
            "meta": None,
            "uniqueness": uniqueness,
        }
    )


def role(member: str, value: str, *, made_at: int = 1000) -> Transaction:
    """A group's transaction that gives somebody a role, or `parent_...` a group."""
    return Transaction(made_at, f'[{{"op":"set","key":"{member}","value":"{value}"}}]')


def edits(count: int, *, size: int = 10, start: int = 0) -> list[Transaction]:
    """Trusting transactions with about `size` bytes of changes each."""
    return [Transaction(1000 + start + i, f'["{i}{"x" * size}"]') for i in range(count)]


def private_edits(count: int, *, size: int = 150) -> list[Transaction]:
    return [
        Transaction(1000 + i, "encrypted_U" + "A" * size, "key_z4kkC6hFY8kqyM2GCT")
        for i in range(count)
    ]
