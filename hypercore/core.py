"""[trio] One open log: what applications read, append to and replicate."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from hypercore import flat_tree
from hypercore.audit import Audit, AuditProgress, Damage
from hypercore.bitfield import Bitfield
from hypercore.block_cipher import BlockCipher
from hypercore.core_info import CoreInfo, CoreStatistics
from hypercore.crypto import KeyPair
from hypercore.errors import (
    BlockNotAvailable,
    CorruptStorage,
    DamagedBlock,
    NotWritable,
    OutOfRange,
    UsageError,
)
from hypercore.fetching import BlockFetcher, BlockReader
from hypercore.log import Changeset, Head
from hypercore.manifest import Manifest, Verifier
from hypercore.merkle import MerkleNode
from hypercore.pruning import needed_nodes, prunable
from hypercore.repair import repair_log
from hypercore.replication.announcements import runs_of
from hypercore.replication.channel import Multiplexer
from hypercore.replication.session import CoreReplication, ExtensionHandler
from hypercore.stored_log import LocalRows, StoredLog
from hypercore.waiting import WriterLock

# Calls that find what they want do not yield to the scheduler; a loop of them must not starve
# others for more than about a millisecond: a get costs about 4 us, an append about 70.
_YIELD_COST = 256
_APPEND_COST = 16
_COST_BYTES = 16_384

_PRUNED_AT_ONCE = 128


class Core:
    """An append-only log of blocks, signed by its writer.

    Methods that are not async never wait. Async ones yield to the scheduler only when they must
    wait, and about once a millisecond in a loop of calls that need not.
    """

    def __init__(self, log: StoredLog, on_last_close: Callable[[Core], None]) -> None:
        self._log = log
        self._cipher: BlockCipher | None = None
        self._on_last_close = on_last_close
        self._users = 0
        self._is_closed = False
        self._writer = WriterLock()
        self._length_changed = trio.lowlevel.ParkingLot()
        self._budget = _YIELD_COST
        self._announced_length = log.durable_length
        self._appended = 0
        self._verified = 0
        self._serving: set[trio.CancelScope] = set()
        self.replication = CoreReplication(self)
        self._fetcher = BlockFetcher(log, self.replication)

    # --- what it is ---------------------------------------------------------------------

    @property
    def key(self) -> bytes:
        """What a reader needs to open the core; the hash of its manifest."""
        return self._log.key

    @property
    def discovery_key(self) -> bytes:
        return self._log.discovery_key

    @property
    def manifest(self) -> Manifest | None:
        """None until a peer sent it, for a core that was opened by its key."""
        return self._log.manifest

    @property
    def verifier(self) -> Verifier | None:
        return self._log.verifier

    @property
    def key_pair(self) -> KeyPair | None:
        return self._log.key_pair

    @property
    def is_writable(self) -> bool:
        return self._log.is_writable

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def head(self) -> Head:
        return self._log.head

    @property
    def length(self) -> int:
        return self._log.head.length

    @property
    def byte_length(self) -> int:
        """Bytes of all blocks below `length`, held here or not, without encryption's padding."""
        head = self._log.head
        padding = 0 if self._cipher is None else self._cipher.padding
        return head.byte_length - padding * head.length

    @property
    def fork(self) -> int:
        """How often history was truncated."""
        return self._log.head.fork

    @property
    def contiguous_length(self) -> int:
        """Blocks held without a gap from 0."""
        return self._log.contiguous_length

    @property
    def durable_length(self) -> int:
        """What may be told to others; see `StoredLog.durable_length`."""
        return self._log.durable_length

    @property
    def bitfield(self) -> Bitfield:
        """The blocks held here; for reading only."""
        return self._log.bitfield

    def info(self) -> CoreInfo:
        log = self._log
        return CoreInfo(
            key=log.key,
            discovery_key=log.discovery_key,
            is_writable=log.is_writable,
            is_encrypted=self._cipher is not None,
            length=log.head.length,
            byte_length=self.byte_length,
            contiguous_length=log.contiguous_length,
            durable_length=log.durable_length,
            fork=log.head.fork,
            blocks_held=log.bitfield.count(0, log.head.length),
            peers=len(self.replication.peers),
        )

    def statistics(self) -> CoreStatistics:
        return CoreStatistics(self._appended, self._verified, self.replication.statistics())

    # --- writing ------------------------------------------------------------------------

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """The one writer's lock: nobody else appends while it is held. It may be taken twice."""
        return self._writer

    async def append(
        self, blocks: bytes | Sequence[bytes], *, local: LocalRows | None = None
    ) -> int:
        """Put blocks at the end; returns the index of the first. `local` rows go with them.

        Returns when all of it is as durable as the store promises. Raises: NotWritable,
        StorageFailed. Cancel: all of it was written, or nothing.
        """
        await self._yield_sometimes(_APPEND_COST)
        if self._writer.is_free:
            start = self.append_nowait(blocks, local=local)
        else:
            async with self._writer:
                start = self.append_nowait(blocks, local=local)
        # Local rows alone move no length.
        if local or self._log.durable_length < self._log.head.length:
            await self.wait_durable()
        return start

    def append_nowait(
        self, blocks: bytes | Sequence[bytes], *, local: LocalRows | None = None
    ) -> int:
        """As `append`, without waiting for the disk; requires `exclusive` if others append too.

        Raises: NotWritable, StorageFailed.
        """
        self._check_open()
        log = self._log
        appended: Sequence[bytes] = (blocks,) if isinstance(blocks, bytes) else blocks
        start = log.head.length
        if not appended and not local:
            return start
        cipher = self._cipher
        if cipher is not None:
            fork = log.head.fork
            appended = [
                cipher.encrypt(index, fork, block) for index, block in enumerate(appended, start)
            ]
        log.append(appended, local)
        self._appended += len(appended)
        self._head_changed()
        return start

    async def truncate(self, length: int, fork: int | None = None) -> None:
        """Give up all blocks from `length` on, and sign that as a new history.

        Peers that hold the old one follow. `fork` must be above the present one; by default it
        is the next. Raises: NotWritable, OutOfRange. Cancel: it was done, or not.
        """
        async with self._writer:
            self._check_open()
            self._log.truncate(length, fork)
            self._head_changed()
        await self.wait_durable()

    async def clear(self, start: int, stop: int) -> None:
        """Give up the room of blocks [start, stop); the log stays as it is, peers are told.

        They can be fetched again from whoever has them. Returns when that is durable.
        Raises: OutOfRange, StorageFailed. Cancel: it was done, or not.
        """
        if not 0 <= start <= stop <= self.length:
            raise OutOfRange(stop, self.length)
        await self._clear([(start, stop)] if start < stop else [], None)

    async def clear_many(self, indices: Iterable[int], *, local: LocalRows | None = None) -> None:
        """As `clear`, for blocks in any order, in one step with `local` rows.

        Peers are told of each run of blocks: give a few hundred at a time.
        Raises: OutOfRange, StorageFailed. Cancel: all of it was done, or nothing.
        """
        ordered = sorted(indices)
        for index in ordered[:1] + ordered[-1:]:
            if not 0 <= index < self.length:
                raise OutOfRange(index, self.length)
        await self._clear(runs_of(ordered), local)

    async def _clear(self, runs: Sequence[tuple[int, int]], local: LocalRows | None) -> None:
        self._check_open()
        if runs or local:
            self._log.clear(runs, local)
            for start, stop in runs:
                self.replication.blocks_dropped(start, stop)
            await self.wait_durable()

    async def prune(self, lengths: Iterable[int] = ()) -> int:
        """Delete tree nodes that prove nothing that is here; returns how many subtrees shrank.

        That is all below the top of every subtree of which all blocks were cleared. Peers that
        are connected can still follow from the length they have, as can those at one of these
        `lengths`. Others whose log ends inside such a subtree have to fetch it anew, and
        the log can no longer be truncated to such a length. Only our own log is pruned.

        Raises: NotWritable, StorageFailed. Cancel: what was deleted was not needed.
        """
        self._check_open()
        if not self.is_writable:
            raise NotWritable("only the writer knows that nobody needs tree nodes any more")
        length = self._log.durable_length
        known = {*lengths, *(peer.length for peer in self.replication.peers)}
        needed = needed_nodes(known, length)
        log = self._log
        count = 0
        tops: list[int] = []
        for top in prunable(log.bitfield, length, needed):
            if log.rows.read_node(flat_tree.children(top)[0]) is not None:
                tops.append(top)
            self._budget -= 1
            if len(tops) == _PRUNED_AT_ONCE or (self._budget <= 0 and tops):
                log.prune(tops)
                count += len(tops)
                tops = []
            if self._budget <= 0:
                await self._yield()
        if tops:
            log.prune(tops)
        if count or tops:
            await self.wait_durable()
        return count + len(tops)

    def _head_changed(self) -> None:
        if self.replication.has_reachable_peers:
            self.replication.log_changed()
        if self._length_changed:
            self._length_changed.unpark_all()

    async def wait_durable(self, length: int | None = None) -> None:
        """Return when the first `length` blocks (None: all that was committed) are durable.

        Raises: StorageFailed. Cancel: takes back nothing.
        """
        log = self._log
        if length is not None and length <= log.durable_length:
            return
        sequence = log.sequence if length is None else log.sequence_of(length)
        await log.rows.storage.wait_durable(sequence)
        if log.durable_length != self._announced_length and self.replication.has_reachable_peers:
            self._announced_length = log.durable_length
            self.replication.log_changed()

    # --- reading ------------------------------------------------------------------------

    async def get(self, index: int, *, wait: bool = True) -> bytes:
        """One block: from the disk, or from peers, now or as soon as one has it.

        With `wait` false only what is here counts. Raises: BlockNotAvailable (only then),
        OutOfRange for what cannot come: beyond the end of our own log, or below 0; DamagedBlock
        for our own log, or when not to wait: of others' it is fetched again.
        Cancel: takes the request back.
        """
        try:
            block = self.get_local(index)
        except DamagedBlock as error:
            self._forget_damaged(error, wait)
            block = None
        if block is None:
            return (await self._fetch((index,), wait))[index]
        self._budget -= 1 + len(block) // _COST_BYTES
        if self._budget <= 0:
            await self._yield()
        return block

    def get_local(self, index: int) -> bytes | None:
        """One block if it is here. Raises: OutOfRange below 0, DamagedBlock."""
        if self._is_closed:
            self._check_open()
        if index < 0:
            raise OutOfRange(index, self._log.head.length)
        try:
            block = self._log.rows.read_block(index)
        except CorruptStorage as error:
            raise DamagedBlock(index, self._name, str(error)) from error
        if block is None:
            self._check_absent(index)
            return None
        return block if self._cipher is None else self._decrypted(index, block)

    @property
    def _name(self) -> str:
        return f"core {self.discovery_key.hex()}"

    def _check_absent(self, index: int) -> None:
        if index < self._log.head.length and self._log.bitfield.get(index):
            raise DamagedBlock(index, self._name, "missing")

    def _decrypted(self, index: int, block: bytes) -> bytes:
        if self._cipher is None:
            return block
        try:
            return self._cipher.decrypt(index, block)
        except ValueError as error:
            raise DamagedBlock(index, self._name, f"not encrypted: {error}") from error

    async def get_many(self, indices: Sequence[int], *, wait: bool = True) -> list[bytes]:
        """Blocks in the order asked for; all missing ones are requested at once.

        Raises and Cancel: as `get`.
        """
        blocks: dict[int, bytes] = {}
        missing = []
        for index in indices:
            try:
                block = self.get_local(index)
            except DamagedBlock as error:
                self._forget_damaged(error, wait)
                block = None
            if block is None:
                missing.append(index)
            else:
                blocks[index] = block
                await self._yield_sometimes(1 + len(block) // _COST_BYTES)
        if missing:
            blocks.update(await self._fetch(missing, wait))
        return [blocks[index] for index in indices]

    async def _fetch(self, indices: Sequence[int], wait: bool) -> dict[int, bytes]:
        """Wait until blocks that are not here are."""
        if not wait:
            raise BlockNotAvailable(indices[0])
        length = self._log.head.length
        if self._log.is_writable and max(indices) >= length:
            raise OutOfRange(max(indices), length)
        found = await self._fetcher.fetch(indices)
        if self._cipher is None:
            return found
        return {index: self._decrypted(index, block) for index, block in found.items()}

    def blocks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Blocks [start, stop) in order; `stop` None is the length now.

        Blocks that are not here are asked for `fetching.READ_AHEAD_BLOCKS` ahead.
        Raises and Cancel: as `get`.
        """
        return BlockReader(
            start,
            self.length if stop is None else stop,
            read_run=self._local_run,
            get=self.get,
            pause=self._yield,
            ahead=self._fetcher.read_ahead,
        )

    def _local_run(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        try:
            for index, block in self._log.rows.blocks(start, stop):
                self._check_open()
                yield index, self._decrypted(index, block)
        except CorruptStorage:
            return  # reading them one by one tells which it is

    def has(self, index: int) -> bool:
        """Whether the block is here."""
        return 0 <= index < self._log.head.length and self._log.bitfield.get(index)

    def has_range(self, start: int, stop: int) -> bool:
        """Whether all of [start, stop) is here."""
        return start >= stop or (
            start >= 0 and stop <= self.length and self._log.bitfield.has_range(start, stop)
        )

    def prefetch(self, indices: Iterable[int]) -> None:
        """Ask for blocks that nobody waits for yet. A `range` may be of any length."""
        self.replication.want_blocks(indices)

    async def download(self, start: int = 0, stop: int | None = None) -> None:
        """Fetch what is not here of [start, stop); `stop` None is the length now.

        Raises: StorageFailed, trio.ClosedResourceError.
        Cancel: nothing more is asked for; what arrived stays.
        """
        await self._fetcher.download(start, self.length if stop is None else stop)

    async def wait_length(self, length: int) -> None:
        """Return when the log has at least that many blocks. Cancel: undoes nothing."""
        while self._log.head.length < length:
            self._check_open()
            self._log.check_usable()
            await self._length_changed.park()

    async def update(self) -> bool:
        """Wait for the newer head that some connected peer has; whether the log grew by it.

        False at once when nobody has one. Cancel: undoes nothing.
        """
        length = self.length
        await self.replication.wait_update()
        return self.length > length

    # --- damage -------------------------------------------------------------------------

    async def audit(self, *, is_strict: bool = False) -> AsyncGenerator[AuditProgress, None]:
        """Check every block and tree node against the signed head; see `Audit`.

        How far it is, about every 3 ms, and in the end what is damaged. Reads and appends go on
        meanwhile. Raises: StorageError. Cancel: nothing was changed.
        """
        self._check_open()
        audit = Audit(self._log, is_strict=is_strict)
        while audit.advance():
            yield audit.progress()
            await trio.lowlevel.checkpoint()
            self._check_open()
        yield audit.progress(is_over=True)

    async def repair(self, damage: Iterable[Damage]) -> list[tuple[int, int]]:
        """Mend what an audit found, so that reading asks peers for what is lost.

        Returns runs [start, stop) of blocks that were forgotten; of our own core none ever is.
        A damaged file stays in the store, which stops writing when it comes to rewrite it:
        `storage.salvage` rids a store of it. Raises: StorageFailed. Cancel: it was done.
        """
        self._check_open()
        runs = repair_log(self._log, damage)
        for start, stop in runs:
            self.replication.blocks_dropped(start, stop)
        await self.wait_durable()
        return runs

    def _forget_damaged(self, error: DamagedBlock, wait: bool) -> None:
        """Take the block for one that is not here, so that peers are asked. Raises: `error`."""
        if not wait or self.is_writable or self._log.rows.storage.is_read_only:
            raise error
        self._log.clear(((error.index, error.index + 1),))
        self.replication.blocks_dropped(error.index, error.index + 1)

    # --- rows beside the log ------------------------------------------------------------

    def get_local_value(self, key: bytes) -> bytes | None:
        """A local row: kept with the core, never replicated. Keys have at most 2,048 bytes."""
        return self._log.local_value(key)

    def local_items(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Local rows with start <= key < stop, in order."""
        return self._log.local_items(start, stop)

    async def write_local(self, rows: LocalRows) -> None:
        """Put local rows (None deletes) in one batch, and wait until they are durable.

        Raises: StorageFailed. Cancel: all of it was written, or nothing.
        """
        await self._yield_sometimes(_APPEND_COST)
        self._check_open()
        if rows:
            self._log.commit((), rows)
            await self.wait_durable()

    def get_user_data(self, key: str) -> bytes | None:
        return self._log.user_data(key)

    async def set_user_data(self, key: str, value: bytes) -> None:
        """Raises: StorageFailed. Cancel: it was written, or not."""
        self._check_open()
        if self._log.user_data(key) != value:
            self._log.set_user_data(key, value)
        await self.wait_durable()  # also for the same value, written by somebody who still waits

    # --- replication --------------------------------------------------------------------

    def set_extension(self, name: str, handler: ExtensionHandler | None) -> None:
        """Handle messages of this name; what the handler returns goes back to that peer."""
        self.replication.set_extension(name, handler)

    def send_extension(self, name: str, payload: bytes) -> int:
        """Send to all connected peers; returns how many there are."""
        return self.replication.send_extension(name, payload)

    def read_node(self, index: int) -> MerkleNode | None:
        return self._log.read_node(index)

    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]:
        """Blocks as they are stored: what peers are sent."""
        try:
            return self._log.rows.read_blocks(indices)
        except CorruptStorage:
            return [self._read_undamaged(index) for index in indices]

    def _read_undamaged(self, index: int) -> bytes | None:
        try:
            return self._log.rows.read_block(index)
        except CorruptStorage:
            return None  # the peer asks somebody else

    def commit(self, changesets: Sequence[Changeset]) -> None:
        """Make verified changes from peers true, in one batch, and wake who waits for them.

        Does not wait for the disk. Raises: StorageFailed.
        """
        self._check_open()
        log = self._log
        head = log.head
        try:
            log.commit(changesets)
        except Exception as error:
            self._fetcher.fail(error)
            self._length_changed.unpark_all()
            raise
        self._verified += sum(len(changes.blocks) for changes in changesets)
        self._fetcher.arrived(changesets)
        if log.head is not head:
            self._length_changed.unpark_all()

    def reload(self) -> None:
        """The storage has recovered from a failure: go on with what is on the disk.

        Raises: CorruptStorage, StorageError.
        """
        self._log.reload()
        self._fetcher.recovered()
        self._announced_length = self._log.durable_length
        self._head_changed()

    # --- life ---------------------------------------------------------------------------

    def use_encryption(self, encryption_key: bytes) -> None:
        """Encrypt what is appended and decrypt what is read from now on.

        Raises: UsageError when the core is in use with another key.
        """
        verifier = self._log.verifier
        is_compat = verifier is not None and verifier.is_compat
        cipher = BlockCipher(encryption_key, self.key, compat=is_compat)
        if self._cipher is not None and self._cipher.block_key != cipher.block_key:
            raise UsageError("the core is open with another encryption key")
        self._cipher = cipher

    async def serve(self, mux: Multiplexer) -> None:
        """Replicate this core over one connection until the channel or the core is closed.

        Raises: StorageError when the core cannot be read or written any more. Cancel: closes the
        channel.
        """
        if self._is_closed:
            return
        # What happened while there was nobody to tell.
        self.replication.log_changed()
        with trio.CancelScope() as scope:
            self._serving.add(scope)
            try:
                await self.replication.serve(mux)
            finally:
                self._serving.discard(scope)

    def opened(self) -> Core:
        """Count one more user, who is to call `close` or `release`."""
        self._users += 1
        return self

    async def close(self) -> None:
        """Give the core back; the last user's call closes it. Cancel: never waits."""
        self.release()

    def release(self) -> None:
        """As `close`."""
        self._users -= 1
        if self._users <= 0:
            self.shut()

    def shut(self) -> None:
        """Close it for all users: whoever waits for something gets ClosedResourceError."""
        if self._is_closed:
            return
        self._is_closed = True
        self._fetcher.fail(trio.ClosedResourceError("the core was closed"))
        self._length_changed.unpark_all()
        for scope in self._serving:
            scope.cancel()
        self._on_last_close(self)

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("the core is closed")

    async def _yield_sometimes(self, cost: int) -> None:
        self._budget -= cost
        if self._budget <= 0:
            await self._yield()

    async def _yield(self) -> None:
        self._budget = _YIELD_COST
        await trio.lowlevel.checkpoint()
        await self._log.rows.storage.wait_writable()
