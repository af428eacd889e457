"""[trio] What a handle of a log offers to whoever only reads it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial

import trio

from hypercore.block_reader import CutWatch, FollowingReader
from hypercore.byte_search import find_byte
from hypercore.byte_stream import ByteStream
from hypercore.core_facts import CoreFacts
from hypercore.downloading import Download, Order
from hypercore.errors import (
    BlockNotAvailable,
    CorruptStorage,
    DamagedBlock,
    OutOfRange,
    SnapshotNotAvailable,
)
from hypercore.events import CoreEvents
from hypercore.given_blocks import INDEX_ERRORS, check_index, check_numbers, given_indices
from hypercore.handle import COST_BYTES
from hypercore.inclusion_proof import InclusionProof, build_inclusion_proof, roots_at
from hypercore.log import earlier_head
from hypercore.merkle import MerkleNode
from hypercore.merkle import tree_hash as hash_of_roots
from hypercore.open_log import OpenLog
from hypercore.replication.peer_handle import ExtensionHandler, ExtensionNote, PeerHandle
from hypercore.seek import BytePosition
from hypercore.snapshot import Snapshot


class ReadableCore(CoreFacts):
    """The reading half of `Core`: blocks and bytes, proofs, rows, extensions."""

    def __init__(
        self, shared: OpenLog, *, is_weak: bool = False, is_read_only: bool = False
    ) -> None:
        """Raises: trio.ClosedResourceError."""
        super().__init__(shared, is_weak=is_weak, is_read_only=is_read_only)
        self._read_block = shared.log.rows.read_block

    # --- reading ----------------------------------------------------------------------

    async def get(self, index: int, *, wait: bool = True, force: bool = False) -> bytes:
        """One block: from the disk, or from peers, now or as soon as one has it.

        With `wait` false, or in a read-only store, only what is here counts. `force`: ask peers
        even where the core is set to take only what they push. Raises: BlockNotAvailable (in the
        first two cases), SnapshotNotAvailable when the log is cut below it meanwhile, OutOfRange
        for what cannot come: beyond the end of our own log, or below 0; DamagedBlock for our own
        log, or without `wait`: a damaged block of others is fetched again. Cancel: takes the
        request back.
        """
        try:
            block = self.get_local(index)
        except DamagedBlock as error:
            self._forget_damaged(error, wait)
            block = None
        handle = self._handle
        if block is None:
            return (await handle.fetch((index,), wait=wait, is_forced=force))[index]
        handle.budget -= 1 + len(block) // COST_BYTES
        if handle.budget <= 0:
            await handle.pause()
        return block

    def get_local(self, index: int) -> bytes | None:
        """One block if it is here. Raises: OutOfRange below 0, DamagedBlock, TypeError."""
        if self._handle.is_closed:
            self._handle.check_open()
        if index < 0:
            raise OutOfRange(index, self._log.head.length)
        shared = self._shared
        try:
            block = self._read_block(index)
        except CorruptStorage as error:
            raise shared.damaged(index, str(error)) from error
        except INDEX_ERRORS:
            check_index(index, self._log.head.length)
            raise
        if block is None:
            shared.check_absent(index)
            return None
        return block if shared.cipher is None else shared.decrypted(index, block)

    def get_local_many(self, indices: Iterable[int]) -> list[bytes | None]:
        """As `get_local` of each, in one step; neighbors in a row cost the least.

        Raises: as `get_local`.
        """
        self._handle.check_open()
        indices = given_indices(indices)
        if indices and min(indices) < 0:
            raise OutOfRange(min(indices), self._log.head.length)
        shared = self._shared
        try:
            blocks = self._log.rows.read_blocks(indices)
        except CorruptStorage:
            return [self.get_local(index) for index in indices]  # tells which one is damaged
        except INDEX_ERRORS:
            check_numbers("the index of a block", *indices)
            raise
        if None in blocks or shared.cipher is not None:
            for place, index in enumerate(indices):
                block = blocks[place]
                if block is None:
                    shared.check_absent(index)
                else:
                    blocks[place] = shared.decrypted(index, block)
        return blocks

    async def get_many(
        self, indices: Iterable[int], *, wait: bool = True, keeper: bytes | None = None
    ) -> list[bytes]:
        """Blocks in the order asked for; all missing ones are requested at once.

        `keeper` is the public key of a remote that has what anybody has, the writer for example:
        once it and all other connected peers have said that they lack a block, the wait for that
        block ends; others that say nothing are not waited for long. Raises: as `get`, and
        BlockNotAvailable in that case. Cancel: as `get`.
        """
        indices = given_indices(indices)
        forget = partial(self._forget_damaged, wait=wait)
        blocks, missing = await self._handle.read_local(indices, self.get_local, forget)
        if missing:
            cuts, length = CutWatch(), self._log.head.length
            self._shared.users.histories.add(cuts)
            blocks.update(await self._handle.fetch(missing, wait=wait, keeper=keeper))
            if max(missing) >= length and (cut := cuts.take()) is not None:
                # Blocks beyond the old end are those of the present history.
                lost = [index for index in indices if cut <= index < length]
                if lost:
                    raise SnapshotNotAvailable(min(lost), cut)
        return [blocks[index] for index in indices]

    async def get_stored(self, index: int, *, wait: bool = True) -> bytes:
        """One block as it is stored and sent: of an encrypted core, padding and ciphertext.

        Raises and Cancel: as `get`.
        """
        self._handle.check_open()
        if index < 0:
            raise OutOfRange(index, self._log.head.length)
        shared = self._shared
        try:
            block = self._read_block(index)
            if block is None:
                shared.check_absent(index)
        except CorruptStorage as error:
            self._forget_damaged(shared.damaged(index, str(error)), wait)
            block = None
        except INDEX_ERRORS:
            check_index(index, self._log.head.length)
            raise
        if block is None:
            return (await self._handle.fetch_stored((index,), wait=wait))[index]
        await self._handle.spend(1 + len(block) // COST_BYTES)
        return block

    def blocks(
        self, start: int = 0, stop: int | None = None, *, reverse: bool = False
    ) -> AsyncIterator[bytes]:
        """Blocks [start, stop) in order, or from the last to the first.

        `stop` None is the length now. Blocks that are not here are asked for
        `block_reader.READ_AHEAD_BLOCKS` ahead. Raises: OutOfRange below 0, and as `get`. Cancel:
        as `get`.
        """
        stop = self.length if stop is None else stop
        return self._handle.reader(
            start, stop, reverse=reverse, get=self.get, has=self.has, rows=self._log.rows.blocks
        )

    def follow(self, start: int = 0) -> AsyncIterator[bytes]:
        """Blocks from `start` on, now and as they are appended; it does not end on its own.

        Raises: OutOfRange below 0, SnapshotNotAvailable when the log is truncated below what was
        given out, and as `get`. Cancel: as `get`.
        """
        self._handle.check_start(start)
        cuts = CutWatch()
        self._shared.users.histories.add(cuts)
        wait_length = partial(self._handle.wait_length, of_this_fork=True)
        return FollowingReader(start, cuts=cuts, wait_length=wait_length, blocks=self.blocks)

    async def seek(self, offset: int, *, wait: bool = True) -> BytePosition:
        """The block that byte `offset` is in, and its place there.

        At `byte_length` it is the place of the next byte. Where tree nodes are not here, peers
        tell the way, and the block is fetched, too: it proves its place. With `wait` false, or in
        a read-only store, only what is here counts. Raises: BlockNotAvailable (in these two
        cases), OutOfRange for what cannot come. Cancel: takes the request back.
        """
        return await find_byte(self._handle, self._log, offset, wait=wait)

    def byte_stream(self, start: int = 0, stop: int | None = None) -> ByteStream:
        """Bytes [start, stop) of the log as it is now; `stop` None is `byte_length`.

        Keeps the log open until it is read to the end or closed. Raises: OutOfRange.
        """
        snapshot = self.snapshot()
        try:
            return ByteStream(snapshot, start, stop, closes_source=True)
        except (OutOfRange, TypeError):
            snapshot.release()
            raise

    def has(self, index: int) -> bool:
        """Whether the block is here."""
        return 0 <= index < self._log.head.length and self._log.bitfield.get(index)

    def has_range(self, start: int, stop: int) -> bool:
        """Whether all of [start, stop) is here."""
        check_numbers("the index of a block", start, stop)
        return start >= stop or (
            start >= 0 and stop <= self.length and self._log.bitfield.has_range(start, stop)
        )

    def count(self, start: int, stop: int) -> int:
        """How many blocks of [start, stop) are here."""
        return self._log.bitfield.count(max(start, 0), min(stop, self.length))

    def wait_scope(self, seconds: float = math.inf) -> trio.CancelScope:
        """A scope for waits that anybody may cancel, and that end after so long at the latest."""
        return trio.move_on_after(seconds)

    def prefetch(self, indices: Iterable[int]) -> None:
        """Ask for blocks that nobody waits for yet. A `range` may be of any length.

        Their priority is that of a reader's next blocks; of many ranges, only the last count.
        Raises: OutOfRange where no block can be.
        """
        self._handle.prefetch(indices)

    async def download(
        self, start: int = 0, stop: int | None = None, *, keeper: bytes | None = None
    ) -> None:
        """Fetch what is not here of [start, stop); `stop` None is the length now.

        Raises: OutOfRange where no block can be, StorageFailed, trio.ClosedResourceError;
        BlockNotAvailable with a `keeper`, as `get_many`, and in a read-only store. Cancel: nothing
        more is asked for; what arrived stays.
        """
        await self._handle.download(start, self.length if stop is None else stop, keeper)

    @asynccontextmanager
    async def downloading(
        self,
        start: int = 0,
        stop: int | None = None,
        *,
        blocks: Iterable[int] | None = None,
        order: Order = Order.LINEAR,
    ) -> AsyncIterator[Download]:
        """Fetch blocks [start, stop), or those of the list `blocks`, while in this block.

        `stop` None is the length now, `LIVE` whatever is appended, too. What is not here when the
        block ends is not asked for any more; what arrived stays. Downloads come after reads.

        Raises: OutOfRange where no block can be. Cancel: as leaving the block.
        """
        self._handle.check_open()
        wanted = range(start, self.length if stop is None else stop) if blocks is None else blocks
        download = self._handle.start_download(wanted, order)
        try:
            yield download
        finally:
            download.cancel()

    def push(self, indices: Sequence[int]) -> int:
        """Send blocks to the peers that take them unasked; returns how many peers do."""
        check_numbers("the index of a block", *indices)
        return self.replication.push_blocks(indices)

    def finding_peers(self) -> AbstractContextManager[None]:
        """While in this block, `update` waits for the first peer: the caller looks for peers."""
        return self.replication.finding_peers()

    def greeting(self, name: str, payload: bytes, pushes: int) -> AbstractContextManager[None]:
        """While in this block, each peer is sent this extension message, a new one when it comes.

        The message asks for blocks: each of these peers may send `pushes` of them unrequested.
        """
        return self.replication.greeting(name, payload, pushes)

    async def wait_length(self, length: int) -> None:
        """Return when the log has at least that many blocks.

        Raises: CoreFrozen, StorageFailed. Cancel: undoes nothing.
        """
        await self._handle.wait_length(length)

    async def wait_change(self, length: int, fork: int) -> None:
        """Return when the log has another length or fork than this.

        Raises: StorageFailed. Cancel: undoes nothing.
        """
        await self._handle.wait_change(length, fork)

    async def update(self) -> bool:
        """Wait for the newer head that some connected peer has; returns whether the log grew.

        False at once when nobody has one, and after a while when a peer that claims one does not
        prove it.
        Raises: trio.ClosedResourceError. Cancel: undoes nothing.
        """
        self._handle.check_open()
        length = self.length
        await self.replication.wait_update(self._handle.check_open)
        return self.length > length

    # --- views of it ------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The log as it is now, whatever happens to it later; to be closed."""
        self._handle.check_open()
        return Snapshot(self._shared, self._log.head, self._handle.owner)

    async def checkout(self, length: int, *, wait: bool = True) -> Snapshot:
        """The log as it was when it had `length` blocks; to be closed.

        Where the tree at that length is not known, a block is fetched from peers to learn it.
        Raises: OutOfRange beyond the present length, and as `get`. Cancel: as `get`.
        """
        check_numbers("the length of a log", length)
        if not 0 <= length <= self.length:
            raise OutOfRange(length, self.length + 1, "length")
        while (head := earlier_head(self.head, length, self._log.read_node)) is None:
            await self._handle.fetch((length - 1,), wait=wait)
        self._handle.check_open()
        return Snapshot(self._shared, head, self._handle.owner)

    def events(self) -> CoreEvents:
        """What happens to the log from now on: `async for event in core.events(): ...`.

        It ends when this handle is closed; see `events`.
        """
        self._handle.check_open()
        return CoreEvents(self._handle)

    # --- proofs -----------------------------------------------------------------------

    async def prove(self, index: int | None = None) -> InclusionProof:
        """A proof that anyone can check offline: of a block and the head, or of the head alone.

        The block is fetched if it is not here, and proven as it is stored. Of our own log only
        what is durable is proven. Raises: as `get`; InvalidRequest when tree nodes were pruned.
        Cancel: takes the request back.
        """
        if index is not None:
            await self.get_stored(index)
        while True:
            head = self._log.head
            await self.wait_durable()
            if self._log.head.fork == head.fork:
                break
        verifier = self._log.verifier
        if verifier is None:
            raise OutOfRange(index or 0, 0)
        block = None if index is None else self._log.rows.read_block(index)
        return build_inclusion_proof(verifier, head, self._log.read_node, index, block)

    def tree_hash(self, length: int | None = None) -> bytes:
        """The hash that stands for the first `length` blocks (None: all of them).

        Raises: OutOfRange, BlockNotAvailable when the tree at that length is not here.
        """
        check_numbers("the length of a log", length)
        head = self._log.head
        if length is None or length == head.length:
            return head.tree_hash
        roots = roots_at(length, head, self._log.read_node)
        if roots is None:
            raise BlockNotAvailable(length - 1)
        return hash_of_roots(roots)

    # --- rows beside the log ----------------------------------------------------------

    def get_local_value(self, key: bytes) -> bytes | None:
        """A local row: kept with the core, never replicated. Keys have at most 2,048 bytes."""
        return self._log.local_value(key)

    def local_items(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Local rows with start <= key < stop, in order."""
        return self._log.local_items(start, stop)

    def get_user_data(self, key: str) -> bytes | None:
        return self._log.user_data(key)

    # --- what peers see ---------------------------------------------------------------

    def set_extension(
        self, name: str, handler: ExtensionHandler | None, note: ExtensionNote | None = None
    ) -> None:
        """Handle messages of this name; what the handler returns goes back to that peer.

        `note` sees each message first, at once. If several handles set a handler, the last one is
        asked, until its handle is closed.
        """
        self._handle.check_open()
        self.replication.set_extension(name, handler, self._handle, note)

    @property
    def peers(self) -> Sequence[PeerHandle]:
        """The peers that are connected now."""
        return self.replication.peers

    def send_extension(self, name: str, payload: bytes) -> int:
        """Send a message to all connected peers; returns how many there are."""
        return self.replication.send_extension(name, payload)

    def read_node(self, index: int) -> MerkleNode | None:
        """A node of the Merkle tree, if it is here. Raises: TypeError."""
        try:
            return self._log.read_node(index)
        except INDEX_ERRORS:
            check_numbers("the index of a tree node", index)
            raise

    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]:
        """Blocks as they are stored: what peers are sent. Raises: TypeError."""
        try:
            return self._shared.read_blocks(indices)
        except INDEX_ERRORS:
            check_numbers("the index of a block", *indices)
            raise

    async def wait_durable(self, length: int | None = None) -> None:
        """Return when the first `length` blocks (None: all that was committed) are durable.

        Raises: StorageFailed. Cancel: takes back nothing.
        """
        check_numbers("the length of a log", length)
        await self._shared.wait_durable(length)

    def _forget_damaged(self, error: DamagedBlock, wait: bool) -> None:
        if not wait:
            raise error
        self._shared.forget_damaged(error)
