"""Stores of every backend, each with a home that outlives it, and who appends to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from bee.bee import Bee
from hypercore.storage import Durability
from node.cojson.crypto import encode_signature
from node.cojson.messages import decode_line, join_content, join_session
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.hybrid_store import HybridStore, open_hybrid_store
from node.covalue.ids import CoSessionId, RawCoId, agent_public_key, session_owner
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.session_log import SessionLog
from node.covalue.sqlite_store import open_sqlite_store
from node.covalue.store import CoValueStore, SessionAppend, StoredText, ValueAppend
from tests.support.authors import Author
from tests.support.data_log import DataLog


class StoreHome(Protocol):
    """What is left of a store when it is closed."""

    def open(self) -> AbstractAsyncContextManager[CoValueStore]: ...


class BeeHome:
    """A log in memory."""

    def __init__(self, directory: Path) -> None:
        self.log = DataLog()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[CoValueStore]:
        yield BeeStore(Bee(self.log), self.log)


class SqliteHome:
    """A file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "covalues.sqlite"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[CoValueStore]:
        async with open_sqlite_store(self.path, Durability.OS) as store:
            yield store


class HybridHome:
    """Both of them."""

    def __init__(self, directory: Path) -> None:
        self.bee = BeeHome(directory)
        self.sqlite = SqliteHome(directory)

    @asynccontextmanager
    async def open(
        self, *, catches_up: bool = True, durability: Durability = Durability.OS
    ) -> AsyncIterator[HybridStore]:
        bee = BeeStore(Bee(self.bee.log), self.bee.log)
        async with (
            open_sqlite_store(self.sqlite.path, durability) as sqlite,
            open_hybrid_store(sqlite, bee, catches_up=catches_up) as store,
        ):
            yield store


HOMES: dict[str, Callable[[Path], StoreHome]] = {
    "bee": BeeHome,
    "sqlite": SqliteHome,
    "hybrid": HybridHome,
}


class Appender:
    """Makes appends as the engine does: verified logs, one append a message."""

    def __init__(self, keys: Mapping[str, bytes] | None = None) -> None:
        self._keys = keys or {}
        self._logs: dict[tuple[RawCoId, CoSessionId], SessionLog] = {}

    def append(self, content: Content, *, is_deletion: bool = False) -> ValueAppend:
        sessions = {}
        for session_id, part in content.new.items():
            owner = session_owner(session_id)
            key = self._keys.get(owner) or agent_public_key(owner)
            log = self._logs.get((content.co_id, session_id), SessionLog())
            log = log.extended(part.transactions, part.signature, key)
            self._logs[content.co_id, session_id] = log
            sessions[session_id] = SessionAppend(
                part.after,
                part.transactions,
                part.signature,
                log.bytes_since_checkpoint,
                log.is_checkpoint,
            )
        return ValueAppend(content.co_id, content.header, sessions, is_deletion)

    async def put(self, store: CoValueStore, *contents: Content) -> None:
        """Store them in one batch."""
        await store.store([self.append(content) for content in contents])


def deletion(co_id: RawCoId, author: Author) -> Content:
    """The delete session of an author."""
    marker = Transaction(2000, "[]", None, f'{{"deleted":"{co_id}"}}')
    session_id = author.delete_session_id(as_agent=True)
    return Content(co_id, None, {session_id: SessionContent(0, [marker], author.sign([marker]))})


def joined(contents: Sequence[Content]) -> dict[CoSessionId, list[Transaction]]:
    """What the pieces bring: each session must be in order and without a gap."""
    found: dict[CoSessionId, list[Transaction]] = {}
    first: dict[CoSessionId, int] = {}
    for content in contents:
        for session_id, part in content.new.items():
            start = first.setdefault(session_id, part.after)
            assert part.after == start + len(found.setdefault(session_id, []))
            found[session_id] += part.transactions
    return found


async def check_text(store: CoValueStore, co_id: RawCoId) -> StoredText | None:
    """A value that is there as text: the same as the pieces, and as what the engine is told."""
    text = await store.load_text(co_id)
    if text is not None:
        value = text.value
        assert value == await store.load_value(co_id)
        assert list(text.texts) == sorted(value.sessions)
        sessions = [
            join_session(session_id, 0, text.texts[session_id], encode_signature(item.signature))
            for session_id, item in sorted(value.sessions.items())
        ]
        line = join_content(co_id, value.header, value.header.priority, sessions)
        assert [decode_line(line)] == list((await store.load(co_id)).pieces)
    return text


async def load_all(
    store: CoValueStore, co_id: RawCoId, known: KnownState, max_bytes: int | None
) -> list[Content]:
    """As a client is served: a few pieces at a time, each from where the last one ended."""
    contents: list[Content] = []
    if known == NOTHING:
        await check_text(store, co_id)
    while True:
        loaded = await store.load(co_id, known, max_bytes)
        contents += loaded.pieces
        for piece in loaded.pieces:
            known = known.merged(piece.known_state)
        if loaded.is_complete:
            return contents
        assert loaded.pieces
