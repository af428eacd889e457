"""[trio] What a node knows of its mesh, on the disk: `mesh.toml` and `members.json`."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import structlog
import trio

from hypercore.crypto import KeyPair
from node.access.gate import Gate
from node.busy_store import busy_text
from node.config import Config
from node.errors import reason_of
from node.governing import Presence
from node.identity import load_member_identity, read_passphrase
from node.listening import dialable
from node.mesh.member_book import MemberBook, load_book, save_book
from node.mesh.membership import Membership
from node.mesh.membership_file import MembershipText, load_membership, save_membership
from node.mesh.mesh import Mesh
from node.mesh.ticket import Record
from node.mesh.trust import Trust
from node.notation import parse_address
from node.verbs import ExitCode, VerbError
from swarm.io.tasks import open_background_nursery

RETRY_SECONDS = 10.0

REST = 9
"""For how many times as long as a write took nothing more is written that others have as well: for
a mesh of 16,000 members each write is some megabytes."""

BOOK_SECONDS = 5.0
"""How long changes of `members.json` may wait to be written."""

MAX_DIALED = 16
"""Members whose addresses are tried after a restart: through them the others are found."""

_log = structlog.get_logger(__name__)


class MeshKeeper:
    """The `Seat` of a running node. Open it with `open_keeper`."""

    def __init__(
        self,
        mesh: Mesh,
        identity: KeyPair,
        config: Config,
        gate: Gate,
        addresses: Callable[[], Sequence[str]],
        present: Callable[[], Mapping[str, Presence]],
        end_refused: Callable[[str], None],
    ) -> None:
        """`end_refused` makes clients whose content was refused come again."""
        self.identity = identity
        self.name = config.name
        self.addresses = addresses
        self.present = present
        self._mesh = mesh
        self._config = config
        self._saved = mesh.membership
        self._text = MembershipText()
        self._saved_book = mesh.trust.book.encode()
        self._lock = trio.Lock()
        self._gate = gate
        self._end_refused = end_refused
        self._apply_role()

    @property
    def membership(self) -> Membership:
        return self._mesh.membership

    @property
    def book(self) -> MemberBook:
        return self._mesh.trust.book

    @property
    def trouble(self) -> str:
        return self._mesh.trust.trouble

    async def take(self, records: Sequence[Record]) -> None:
        """As the protocol says."""
        self._mesh.trust.take(records)
        try:
            await self.save(with_book=False)
        except OSError as error:
            raise VerbError(
                ExitCode.FAILED,
                f"it counts, and members are told, but mesh.toml cannot be written: "
                f"{reason_of(error)}; that is tried again every {RETRY_SECONDS:g} s",
            ) from error

    async def save(self, *, with_book: bool = True) -> None:
        """Write what has changed. Raises: OSError. Cancel: written whole or not at all."""
        async with self._lock:
            book = self.book.encode() if with_book else self._saved_book
            if self.membership != self._saved or book != self._saved_book:
                await trio.to_thread.run_sync(self._write, self.membership, book)

    def save_now(self) -> None:
        """As `save`; blocks on the disk. Raises: OSError."""
        self._write(self.membership, self.book.encode())

    def known_addresses(self) -> list[tuple[bytes, str, int]]:
        """(id, host, port) of members that were dialed before, and may be again."""
        known: list[tuple[bytes, str, int]] = []
        for hex_id, address in self.book.addresses(MAX_DIALED):
            with suppress(ValueError):
                id = bytes.fromhex(hex_id)
                if not self._mesh.trust.is_barred(id):
                    known.append((id, *parse_address(address)))
        return known

    def _note_addresses(self) -> None:
        for id, presence in self.present().items():
            if presence.is_dialed and presence.address:
                self.book.note_address(id, presence.address)

    def _write(self, membership: Membership, book: bytes) -> None:
        if membership != self._saved:
            save_membership(self._config.mesh_path, membership, self._text)
            self._saved = membership
        if book != self._saved_book:
            save_book(self._config.members_path, book)
            self._saved_book = book

    def _apply_role(self) -> None:
        apply_role(self._mesh.trust, self._gate, self._end_refused)

    async def run(self) -> None:
        """Heed and save what changes, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_role)
            nursery.start_soon(self._save_changes)

    async def _follow_role(self) -> None:
        while True:
            self._apply_role()
            await self._mesh.trust.wait_judged()

    async def _save_changes(self) -> None:
        """Save what admins signed soon, and the book now and then."""
        book_due = math.inf
        while True:
            with trio.move_on_at(book_due) as waiting:
                await self._mesh.trust.wait_changed()
            self._note_addresses()
            is_due = waiting.cancelled_caught
            book_due = math.inf if is_due else min(book_due, trio.current_time() + BOOK_SECONDS)
            started = trio.current_time()
            try:
                await self.save(with_book=is_due)
            except OSError as error:
                _log.error("mesh.toml cannot be written", reason=str(error))
                book_due = trio.current_time() + RETRY_SECONDS
            await trio.sleep(REST * (trio.current_time() - started))


def apply_role(trust: Trust, gate: Gate, end_refused: Callable[[str], None]) -> None:
    """Let clients write only what others take.

    Clients do not send again by themselves what was refused, nor are they asked for it: so they are
    made to come again once it would be taken.
    """
    was_read_only, gate.is_read_only = gate.is_read_only, not trust.may_write
    if was_read_only and not gate.is_read_only:
        end_refused("this node might only read in its mesh, and now it may write")


@asynccontextmanager
async def open_keeper(keeper: MeshKeeper) -> AsyncIterator[MeshKeeper]:
    """Save what changes until the block ends, and then once more."""
    try:
        async with open_background_nursery() as nursery:
            nursery.start_soon(keeper.run)
            yield keeper
    finally:
        try:
            keeper.save_now()
        except OSError as error:
            _log.error("mesh.toml cannot be written", reason=str(error))


class DirectorySeat:
    """The `Seat` of a data directory that no node has open. Blocks on the disk.

    Raises: ConfigError; VerbError when there is no mesh in it.
    """

    trouble = ""

    def __init__(self, config: Config) -> None:
        membership = load_membership(config.mesh_path)
        if membership is None:
            raise VerbError(
                ExitCode.NOT_FOUND,
                f"{config.data} belongs to no mesh: start with `beemesh up --data {config.data}`",
            )
        self.membership = membership
        self.name = config.name
        self.identity = load_member_identity(config.key_path, read_passphrase())
        self.book = load_book(config.members_path)
        self._config = config

    def addresses(self) -> Sequence[str]:
        """Where the node is if it starts as it is configured: with port 0 nobody can tell."""
        host, port = self._config.mesh.host, self._config.mesh.port
        return [*(dialable(host, port) if port else ()), *self._config.mesh_url]

    def present(self) -> Mapping[str, Presence]:
        return {}

    async def take(self, records: Sequence[Record]) -> None:
        """As the protocol says."""
        # A node that has read its files already would not heed this, and write over it.
        if busy := await trio.to_thread.run_sync(busy_text, self._config):
            raise VerbError(ExitCode.NO_NODE, busy)
        membership, path = self.membership.taking(records, time.time()), self._config.mesh_path
        try:
            await trio.to_thread.run_sync(save_membership, path, membership)
        except OSError as error:
            text = f"{path} cannot be written: {reason_of(error)}; nothing has changed"
            raise VerbError(ExitCode.FAILED, text) from error
        self.membership = membership
