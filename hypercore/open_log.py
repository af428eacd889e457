"""[trio] One open log: what all its users share.

The log and its writer's lock, its peers, those who wait for it, and its end, which comes with the
end of its last user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio

from hypercore import flat_tree
from hypercore.bitfield import Bitfield
from hypercore.core_info import CoreInfo, CoreStatistics
from hypercore.crypto import KeyPair
from hypercore.draft import DraftOutcome
from hypercore.encryption import (
    BlockEncryption,
    EncryptionChoice,
    EncryptionKey,
    changed_encryption,
    encrypt_all,
)
from hypercore.errors import (
    CorruptStorage,
    DamagedBlock,
    NotWritable,
    OutOfRange,
    StorageError,
    UsageError,
)
from hypercore.fork_proof import ForkProof
from hypercore.given_blocks import given_blocks
from hypercore.given_rows import LocalRows
from hypercore.log import Changeset, Head, shared_length
from hypercore.log_users import LogUsers, User
from hypercore.manifest import Manifest
from hypercore.open_channels import OpenChannels
from hypercore.proposal import Proposal
from hypercore.pruning import needed_nodes, prunable
from hypercore.replication.channel import Multiplexer
from hypercore.replication.effort import Effort
from hypercore.replication.session import CoreReplication
from hypercore.storage.catalog import Catalog
from hypercore.storage.layout import CoreRecord
from hypercore.stored_log import StoredLog
from hypercore.verifier import Verifier
from hypercore.waiting import WriterLock

_PRUNED_AT_ONCE = 128
_PRUNE_STEPS = 256
"""Subtrees looked at before others run."""


class OpenLog:
    """A stored log that is in use. Only the async methods wait."""

    def __init__(
        self,
        log: StoredLog,
        on_close: Callable[[OpenLog], None],
        on_frozen: Callable[[OpenLog], None] = lambda _: None,
    ) -> None:
        self.log = log
        self.writer = WriterLock()
        self.cipher: BlockEncryption | None = None
        self.is_closed = False
        self.length_changed = trio.lowlevel.ParkingLot()
        self.read_node = log.read_node
        self.encoded_nodes = log.encoded_nodes
        self._on_close = on_close
        self._on_frozen = on_frozen
        self.exclusive_sessions = trio.Semaphore(1, max_value=1)
        self.users = LogUsers()
        log.on_cut = self._truncating
        self._announced = (log.head.fork, log.durable_length)
        self._appended = 0
        self._verified = 0
        self.is_marking = False
        self._channels = OpenChannels()
        self.replication = CoreReplication(self)

    def _truncating(self, length: int) -> None:
        self.users.truncating(length)
        self.replication.truncating(length)

    # --- what peers are told of: `replication.replicated_log.ReplicatedLog` --------------------

    @property
    def key(self) -> bytes:
        return self.log.key

    @property
    def discovery_key(self) -> bytes:
        return self.log.discovery_key

    @property
    def manifest(self) -> Manifest | None:
        return self.log.manifest

    @property
    def verifier(self) -> Verifier | None:
        return self.log.verifier

    @property
    def is_writable(self) -> bool:
        return self.log.is_writable

    @property
    def head(self) -> Head:
        return self.log.head

    @property
    def durable_length(self) -> int:
        return self.log.durable_length

    @property
    def contiguous_length(self) -> int:
        return self.log.contiguous_length

    @property
    def bitfield(self) -> Bitfield:
        return self.log.bitfield

    @property
    def fork_proof(self) -> ForkProof | None:
        return self.log.fork_proof

    @property
    def takes_more(self) -> bool:
        return self.log.fork_proof is None and not self.log.rows.storage.is_read_only

    @property
    def remote_contiguous_length(self) -> int:
        return self.log.remote_contiguous_length

    def note_remote_contiguous(self, length: int) -> None:
        """A peer has claimed the first `length` blocks."""
        self.log.note_remote_contiguous(length)

    def mark_frozen(self, proof: ForkProof) -> None:
        """Take verified evidence: nothing is added any more, and nobody waits in vain."""
        self.log.freeze(proof)
        if (frozen := self.log.frozen_error) is not None:
            self.users.fail(frozen)
        self._wake()
        self._on_frozen(self)

    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]:
        """Blocks as they are stored: what peers are sent; None for a damaged one, too."""
        try:
            return self.log.rows.read_blocks(indices)
        except CorruptStorage:
            return [self._read_undamaged(index) for index in indices]

    def _read_undamaged(self, index: int) -> bytes | None:
        try:
            return self.log.rows.read_block(index)
        except CorruptStorage:
            return None  # the peer asks somebody else

    def commit(self, changesets: Sequence[Changeset]) -> None:
        """Make verified changes from peers true, in one batch, and wake those who wait for them.

        Does not wait for the disk. Raises: StorageFailed, CoreFrozen.
        """
        self.check_open()
        log = self.log
        head = log.head
        try:
            log.commit(changesets)
        except UsageError:
            raise  # nothing was changed: those who wait must not hear of it
        except Exception as error:
            self.users.fail(error)
            self._wake()
            raise
        self._verified += sum(len(changes.blocks) for changes in changesets)
        self.users.arrived(changesets)
        if log.head is not head:
            self._wake()

    # --- changes of our own ---------------------------------------------------------------------

    def append(self, blocks: bytes | Sequence[bytes], local: LocalRows | None) -> int:
        """Put blocks at the end, and write `local` rows; returns the index of the first.

        Raises: NotWritable, CoreFrozen, BlockTooLarge, StorageFailed.
        """
        log = self.log
        appended = given_blocks(blocks)
        start = log.head.length
        if not appended and not local:
            return start
        if not log.is_writable:
            return self.append_signed(appended, local, None, None)
        if self.cipher is not None:
            appended = encrypt_all(self.cipher, appended, start, log.head.fork)
        log.append(appended, local)
        self._appended += len(appended)
        self._head_changed()
        return start

    def append_signed(
        self,
        blocks: bytes | Sequence[bytes],
        local: LocalRows | None,
        key_pair: KeyPair | None,
        signature: bytes | None,
    ) -> int:
        """As `append`, with another key pair or a signature that was made elsewhere.

        Raises: NotWritable, CoreFrozen, InvalidSignature, BlockTooLarge, StorageFailed.
        """
        proposal = self.propose(blocks)
        start = self.log.head.length
        changes = self.log.commit_proposal(proposal, signature, key_pair, local)
        # Unlike those of a core that is ours alone, the readers of this one may wait for peers.
        self.users.arrived((changes,))
        self._appended += len(changes.blocks)
        self._head_changed()
        return start

    def propose(self, blocks: bytes | Sequence[bytes]) -> Proposal:
        """As `Core.propose`."""
        head = self.log.head
        proposed = given_blocks(blocks)
        if self.cipher is not None:
            proposed = encrypt_all(self.cipher, proposed, head.length, head.fork)
        return self.log.propose(proposed)

    async def commit_pieces(self, pieces: Iterable[Changeset]) -> None:
        """As `Core.commit_pieces`."""
        for changes in pieces:
            self.commit([changes])
            await self.pause()
        self._head_changed()
        await self.wait_durable()

    def learn_manifest(self, manifest: Manifest) -> None:
        """As `Core.learn_manifest`."""
        if self.log.manifest is None:
            self.log.set_manifest(manifest)
            self._head_changed()

    def truncate(
        self,
        length: int,
        fork: int | None,
        key_pair: KeyPair | None = None,
        signature: bytes | None = None,
    ) -> None:
        """Cut the log back, as a new fork.

        Raises: as `Core.truncate`.
        """
        log = self.log
        if key_pair is None and signature is None and log.is_writable:
            log.truncate(length, fork)
        else:
            proposal = log.propose_truncation(length, fork)
            log.commit_proposal(proposal, signature, key_pair)
        self._head_changed()

    def draft_settled(self, outcome: DraftOutcome) -> None:
        """An atom has committed a draft: tell peers and whoever waits."""
        self._appended += outcome.appended
        for start, stop in outcome.cleared:
            self.replication.blocks_dropped(start, stop)
        if outcome.is_head_changed:
            self._head_changed()

    def clear(self, runs: Sequence[tuple[int, int]], local: LocalRows | None = None) -> int:
        """Free runs of blocks, and write `local` rows; returns how many blocks were here.

        Peers are told. Raises: OutOfRange, StorageFailed.
        """
        length = self.log.head.length
        for start, stop in runs:
            if not 0 <= start <= stop <= length:
                raise OutOfRange(start if start < 0 else stop, length)
        filled = [(start, stop) for start, stop in runs if start < stop]
        if not filled and not local:
            return 0
        freed = sum(self.log.bitfield.count(start, stop) for start, stop in filled)
        self.log.clear(filled, local)
        for start, stop in filled:
            self.replication.blocks_dropped(start, stop)
        return freed

    async def prune(self, lengths: Iterable[int]) -> int:
        """As `Core.prune`."""
        if not self.is_writable:
            raise NotWritable("only the writer knows that nobody needs tree nodes any more")
        log = self.log
        length = max(0, log.durable_length)
        known = {*lengths, *(peer.length for peer in self.replication.peers)}
        count = 0
        tops: list[int] = []
        for step, top in enumerate(prunable(log.bitfield, length, needed_nodes(known, length)), 1):
            if log.rows.read_node(flat_tree.children(top)[0]) is not None:
                tops.append(top)
            is_pause = step % _PRUNE_STEPS == 0
            if len(tops) == _PRUNED_AT_ONCE or (tops and is_pause):
                log.prune(tops)
                count += len(tops)
                tops = []
            if is_pause:
                await self.pause()
                self.check_open()
        if tops:
            log.prune(tops)
            count += len(tops)
        if count:
            await self.wait_durable()
        return count

    def _head_changed(self) -> None:
        if self.replication.has_reachable_peers:
            self.replication.log_changed()
        self.users.arrived(())  # for downloads that wait for what is appended
        self._wake()

    def _wake(self) -> None:
        if self.length_changed:
            self.length_changed.unpark_all()
        if self.replication.activity:
            self.replication.activity.unpark_all()

    async def wait_durable(self, length: int | None = None) -> None:
        """As `Core.wait_durable`."""
        log = self.log
        if length is not None and length <= log.durable_length:
            return
        sequence = log.sequence if length is None else log.sequence_of(length)
        await log.rows.storage.wait_durable(sequence)
        durable = (log.head.fork, log.durable_length)
        if durable != self._announced and self.replication.has_reachable_peers:
            self._announced = durable
            self.replication.log_changed()

    async def pause(self) -> None:
        """Let others run, and the disk catch up. Cancel: undoes nothing."""
        await trio.lowlevel.checkpoint()
        await self.log.rows.storage.wait_writable()

    # --- what is stored ---------------------------------------------------------------------------

    def use_encryption(self, choice: EncryptionChoice) -> None:
        """As `Core.use_encryption`."""
        log = self.log
        cipher = changed_encryption(self.cipher, choice, log)
        if cipher is self.cipher:
            return
        first = log.bitfield.first_set(0, log.head.length)
        block = None if first is None else log.rows.read_block(first)
        if isinstance(choice, EncryptionKey) and first is not None and block is not None:
            cipher.decrypt(first, block)
        self.cipher = cipher

    def decrypted(self, index: int, block: bytes) -> bytes:
        """A stored block as it was appended. Raises: DamagedBlock."""
        if self.cipher is None:
            return block
        try:
            return self.cipher.decrypt(index, block)
        except ValueError as error:
            raise self.damaged(index, f"not encrypted: {error}") from error

    def check_absent(self, index: int) -> None:
        """The block was not found. Raises: DamagedBlock when it should have been."""
        if index < self.log.head.length and self.log.bitfield.get(index):
            raise self.damaged(index, "missing")

    def damaged(self, index: int, reason: str) -> DamagedBlock:
        """What to tell a reader of this block."""
        return DamagedBlock(index, f"core {self.discovery_key.hex()}", reason)

    def forget_damaged(self, error: DamagedBlock) -> None:
        """Treat a damaged block as one that is not here, so that peers are asked for it.

        Raises: `error` when none of them can help: it is ours, or nothing may be written.
        """
        log = self.log
        if log.is_writable or log.fork_proof is not None or log.rows.storage.is_read_only:
            raise error
        self.clear(((error.index, error.index + 1),))

    def byte_length(self, head: Head) -> int:
        """Bytes of all blocks of a head, without encryption's padding."""
        padding = 0 if self.cipher is None else self.cipher.padding
        return head.byte_length - padding * head.length

    # --- what is known of it --------------------------------------------------------------------

    def info(self) -> CoreInfo:
        log = self.log
        return CoreInfo(
            key=log.key,
            discovery_key=log.discovery_key,
            is_writable=log.is_writable,
            is_encrypted=self.cipher is not None,
            length=log.head.length,
            byte_length=self.byte_length(log.head),
            contiguous_length=log.contiguous_length,
            durable_length=max(0, log.durable_length),
            fork=log.head.fork,
            blocks_held=log.bitfield.count(0, log.head.length),
            peers=len(self.replication.peers),
            is_recovering=log.is_recovering,
            is_frozen=log.fork_proof is not None,
            sessions=self.users.sessions,
        )

    def statistics(self) -> CoreStatistics:
        return CoreStatistics(self._appended, self._verified, self.replication.statistics())

    # --- life -----------------------------------------------------------------------------------

    def add_user(self, user: User) -> None:
        self.check_open()
        self.users.add(user)

    def remove_user(self, user: User) -> None:
        """The last user that is not weak closes the log."""
        self.users.remove(user)
        if not self.users.sessions:
            self.close()
        self._wake()

    def close(self) -> None:
        """Close it for all users: whoever waits for something gets ClosedResourceError."""
        if self.is_closed:
            return
        self.is_closed = True
        self.users.end()
        self._wake()
        self._channels.end()
        self._on_close(self)

    def check_open(self) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError("the core is closed")

    def join_group(self, catalog: Catalog, topic: bytes) -> None:
        """See `Corestore.get`. Raises: UsageError."""
        rows = self.log.rows
        if rows.group is None or rows.group.topic != topic:
            rows.group = catalog.join_group(rows.record.core_pointer, topic)

    def is_stored_at(self, record: CoreRecord) -> bool:
        """Whether this is the core that the store's record describes."""
        return self.log.rows.record == record

    def reload(self) -> None:
        """Read everything anew, after others had the files, or the storage has recovered.

        Raises: StorageError; the log must not be used then.
        """
        log, before = self.log, self.log.head
        try:
            log.reload()
            kept = shared_length(before, log.head, log.read_node)
        except StorageError as error:
            self.users.fail(error)
            self.users.replaced(0)  # no block is known to be what it was
            self._wake()
            raise
        if kept < before.length:
            self.users.replaced(kept)
        self.users.recovered()
        self._announced = (self.log.head.fork, self.log.durable_length)
        self._head_changed()

    async def end_channels(self) -> None:
        """End all channels with peers, and wait until they have. Cancel: they end all the same."""
        self._channels.end()
        await self._channels.wait_ended()

    async def serve(self, mux: Multiplexer, effort: Effort | None) -> None:
        """As `Core.serve`."""
        if self.is_closed:
            return
        # Take in what happened while there was nobody to tell.
        self.replication.log_changed()
        await self._channels.serve(self.replication, mux, effort)
