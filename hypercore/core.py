"""[trio] A handle of one log: what applications read, append to and replicate."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager

from hypercore.audit import AuditProgress, Damage, audit_log
from hypercore.bitfield import Bitfield
from hypercore.block_reader import CutWatch, FollowingReader
from hypercore.byte_search import find_byte
from hypercore.byte_stream import DEFAULT_BLOCK_BYTES, AppendStream, ByteStream
from hypercore.core_info import CoreInfo, CoreStatistics
from hypercore.crypto import KeyPair
from hypercore.downloading import Download, Order
from hypercore.draft import Draft, DraftOutcome
from hypercore.encoded import EncodedCore
from hypercore.encryption import BlockEncryption, EncryptionChoice
from hypercore.errors import (
    BlockNotAvailable,
    CorruptStorage,
    DamagedBlock,
    NotWritable,
    OutOfRange,
    UsageError,
)
from hypercore.events import CoreEvents
from hypercore.fork_proof import ForkProof, verify_fork_proof
from hypercore.handle import APPEND_COST, COST_BYTES, Handle
from hypercore.inclusion_proof import InclusionProof, build_inclusion_proof, roots_at
from hypercore.log import Changeset, Head, earlier_head
from hypercore.log_copy import prologue_changes
from hypercore.manifest import Manifest, PartialSignature, Verifier
from hypercore.marking import Marks, drop_marks, mark, sweep
from hypercore.merkle import MerkleNode
from hypercore.merkle import tree_hash as hash_of_roots
from hypercore.multisig import sign_part
from hypercore.open_log import OpenLog
from hypercore.proposal import Proposal
from hypercore.repair import repair_log
from hypercore.replication.announcements import runs_of
from hypercore.replication.channel import Multiplexer
from hypercore.replication.session import CoreReplication, ExtensionHandler
from hypercore.seek import BytePosition
from hypercore.snapshot import Snapshot
from hypercore.storage import Storage
from hypercore.stored_log import LocalRows
from hypercore.value_encoding import T, ValueEncoding


class Core:
    """An append-only log of blocks, signed by its writer, as one user has it open.

    Other handles of the same log see the same blocks; each is closed by itself, and the log
    with the last of them. Methods that are not async never wait. Async ones yield to the
    scheduler only when they must wait, and about once a millisecond in a loop of calls that
    need not.
    """

    def __init__(
        self, shared: OpenLog, *, is_weak: bool = False, is_read_only: bool = False
    ) -> None:
        """Raises: trio.ClosedResourceError."""
        self._handle = Handle(shared, is_weak=is_weak, is_read_only=is_read_only)
        self._shared = shared
        self._log = shared.log
        self._read_block = shared.log.rows.read_block

    async def __aenter__(self) -> Core:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

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
        return self._log.is_writable and not self._handle.is_read_only

    @property
    def is_closed(self) -> bool:
        return self._handle.is_closed

    @property
    def head(self) -> Head:
        return self._log.head

    @property
    def length(self) -> int:
        return self._log.head.length

    @property
    def byte_length(self) -> int:
        """Bytes of all blocks below `length`, held here or not, without encryption's padding."""
        return self._shared.byte_length(self._log.head)

    @property
    def fork(self) -> int:
        """How often history was truncated."""
        return self._log.head.fork

    @property
    def contiguous_length(self) -> int:
        """Blocks held without a gap from 0."""
        return self._log.contiguous_length

    @property
    def remote_contiguous_length(self) -> int:
        """The longest prefix of the log that some peer has said to have, now or earlier."""
        return self._log.remote_contiguous_length

    @property
    def durable_length(self) -> int:
        """What may be told to others; see `StoredLog.durable_length`."""
        return self._log.durable_length

    @property
    def storage(self) -> Storage:
        """Where the core is kept, together with others."""
        return self._log.rows.storage

    @property
    def bitfield(self) -> Bitfield:
        """The blocks held here; for reading only."""
        return self._log.bitfield

    @property
    def is_frozen(self) -> bool:
        """Whether the core's writer is known to have signed two histories: nothing is added."""
        return self._log.fork_proof is not None

    @property
    def fork_proof(self) -> ForkProof | None:
        """The evidence that froze the core, for anyone to check; it stays with the core."""
        return self._log.fork_proof

    @property
    def replication(self) -> CoreReplication:
        return self._shared.replication

    def info(self) -> CoreInfo:
        return self._shared.info()

    def statistics(self) -> CoreStatistics:
        """Of the log, whoever of its users caused it."""
        return self._shared.statistics()

    # --- views --------------------------------------------------------------------------

    def session(self, *, read_only: bool = False) -> Core:
        """Another handle of the log, with an end of its own; of a read-only one, read-only, too.

        Raises: trio.ClosedResourceError.
        """
        self._handle.check_open()
        return Core(self._shared, is_read_only=read_only or self._handle.is_read_only)

    @asynccontextmanager
    async def exclusive_session(self) -> AsyncIterator[Core]:
        """A session while which no other one of this kind is open; waits until it is its turn.

        Ordinary handles may still append: `exclusive` keeps those out. Cancel: never opened.
        """
        async with self._shared.exclusive_sessions, self.session() as session:
            yield session

    def snapshot(self) -> Snapshot:
        """The log as it is now, and stays there whatever happens to it; to be closed."""
        self._handle.check_open()
        return Snapshot(self._shared, self._log.head)

    async def checkout(self, length: int, *, wait: bool = True) -> Snapshot:
        """The log as it was when it had `length` blocks; to be closed.

        Where the tree of that length is not known it takes a block of it from peers.
        Raises: OutOfRange beyond the present length; else, and Cancel: as `get`.
        """
        if not 0 <= length <= self.length:
            raise OutOfRange(length, self.length + 1, "length")
        while (head := earlier_head(self.head, length, self._log.read_node)) is None:
            await self._handle.fetch((length - 1,), wait=wait)
        self._handle.check_open()
        return Snapshot(self._shared, head)

    def encoded(
        self,
        encoding: ValueEncoding[T],
        *,
        encode_many: Callable[[Sequence[T]], Sequence[bytes]] | None = None,
    ) -> EncodedCore[T]:
        """The blocks as values, for as long as this handle is open.

        `encode_many` makes blocks of values that are appended together, perhaps fewer.
        """
        return EncodedCore(self, encoding, encode_many)

    def events(self) -> CoreEvents:
        """What happens to the log from now on, as long as this handle is open; see `events`."""
        self._handle.check_open()
        return CoreEvents(self._handle)

    # --- writing ------------------------------------------------------------------------

    def append_stream(self, block_bytes: int = DEFAULT_BLOCK_BYTES) -> AppendStream:
        """Appends what is sent to it, cut into blocks of at most that size."""
        return AppendStream(self.append, block_bytes)

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """The one writer's lock: nobody else appends while it is held. It may be taken twice."""
        return self._shared.writer

    async def append(
        self,
        blocks: bytes | Sequence[bytes],
        *,
        local: LocalRows | None = None,
        key_pair: KeyPair | None = None,
        signature: bytes | None = None,
    ) -> int:
        """Put blocks at the end; returns the index of the first. `local` rows go with them.

        They are signed with `key_pair` in place of the core's own, or come with the `signature`
        that was made of their proposal (`propose`). A prologue needs neither.

        Returns when all of it is as durable as the store promises. Raises: NotWritable,
        InvalidSignature, BlockTooLarge, StorageFailed. Cancel: all of it was written, or nothing.
        """
        await self._handle.spend(APPEND_COST)
        shared = self._shared
        if shared.writer.is_free:
            start = self.append_nowait(blocks, local=local, key_pair=key_pair, signature=signature)
        else:
            async with shared.writer:
                start = self.append_nowait(
                    blocks, local=local, key_pair=key_pair, signature=signature
                )
        # Local rows alone move no length.
        if local or self._log.durable_length < self._log.head.length:
            await shared.wait_durable()
        return start

    def append_nowait(
        self,
        blocks: bytes | Sequence[bytes],
        *,
        local: LocalRows | None = None,
        key_pair: KeyPair | None = None,
        signature: bytes | None = None,
    ) -> int:
        """As `append`, without waiting for the disk; requires `exclusive` if others append too.

        Raises: NotWritable, InvalidSignature, BlockTooLarge, StorageFailed.
        """
        self._handle.check_writable()
        if key_pair is None and signature is None:
            return self._shared.append(blocks, local)
        return self._shared.append_signed(blocks, local, key_pair, signature)

    async def truncate(
        self,
        length: int,
        fork: int | None = None,
        *,
        key_pair: KeyPair | None = None,
        signature: bytes | None = None,
    ) -> None:
        """Give up all blocks from `length` on, and sign that as a new history.

        Peers that hold the old one follow. `fork` must be above the present one; by default it
        is the next. `key_pair` and `signature` as for `append`; the signature is that of
        `propose_truncation`. A prologue stays.

        Raises: NotWritable, InvalidSignature, OutOfRange, PrunedHistory, StorageFailed.
        Cancel: it was done, or not.
        """
        async with self._shared.writer:
            self._handle.check_writable()
            self._shared.truncate(length, fork, key_pair, signature)
        await self.wait_durable()

    def propose(self, blocks: bytes | Sequence[bytes] = ()) -> Proposal:
        """What the log would be with these blocks, for others to sign; nothing is written.

        Without blocks it is the log as it is. Raises: UsageError while the manifest is unknown.
        """
        self._handle.check_open()
        return self._shared.propose(blocks)

    def propose_truncation(self, length: int, fork: int | None = None) -> Proposal:
        """What `truncate` would make of the log. Raises: UsageError, OutOfRange."""
        self._handle.check_open()
        return self._log.propose_truncation(length, fork)

    def sign_for(
        self, manifest: Manifest, *, length: int | None = None, key_pair: KeyPair | None = None
    ) -> PartialSignature:
        """Sign what this core holds as one of the signers of another core, with that manifest.

        The part is for a log of `length` blocks, with a patch up to our length when we are
        ahead. Raises: NotWritable when the key pair (by default the core's) is no signer's,
        UsageError for blocks that a power cut could take back: something else could be signed
        in their place.
        """
        self._handle.check_open()
        if self.durable_length < self.length:
            raise UsageError(f"{self.length} blocks, {self.durable_length} of them durable: wait")
        key_pair = key_pair or self.key_pair
        if key_pair is None:
            raise NotWritable("this core's secret key is not here")
        verifier = Verifier(manifest.key, manifest)
        return sign_part(verifier, self.head, self.read_node, key_pair, length)

    async def copy_prologue(self, source: Core) -> None:
        """Fill the first blocks, which our manifest fixes, from a core that begins with them.

        Copies what `source` holds of them; nobody signs. Returns when that is durable.
        Raises: UsageError when they are not the same, StorageFailed. Cancel: part of the blocks
        was copied, or all.
        """
        self._handle.check_open()
        await self.commit_pieces(prologue_changes(source, self))

    async def commit_pieces(self, pieces: Iterable[Changeset]) -> None:
        """Make verified changes true one after the other; returns when they are durable.

        Raises: StorageFailed. Cancel: the first pieces were committed, or all.
        """
        self._handle.check_open()
        await self._shared.commit_pieces(pieces)

    async def set_manifest(self, manifest: Manifest | bytes) -> None:
        """Tell a core that was opened by its key what the key stands for; else a peer does.

        Raises: InvalidManifest for another core's, StorageFailed. Cancel: it was written, or not.
        """
        self._handle.check_open()
        data = manifest if isinstance(manifest, bytes) else manifest.encode()
        self.learn_manifest(Manifest.parse(data, self.key))
        await self.wait_durable()

    def learn_manifest(self, manifest: Manifest) -> None:
        """As `set_manifest`, for the core's very manifest, without waiting for the disk."""
        self._shared.learn_manifest(manifest)

    async def clear(self, start: int, stop: int) -> int:
        """Give up the room of blocks [start, stop); the log stays as it is, peers are told.

        They can be fetched again from whoever has them. Returns when that is durable, how many
        of them were here.
        Raises: OutOfRange, StorageFailed. Cancel: it was done, or not.
        """
        return await self._clear([(start, stop)], None)

    async def clear_many(self, indices: Iterable[int], *, local: LocalRows | None = None) -> int:
        """As `clear`, for blocks in any order, in one step with `local` rows.

        Peers are told of each run of blocks: give a few hundred at a time.
        Raises: OutOfRange, StorageFailed. Cancel: all of it was done, or nothing.
        """
        ordered = sorted(indices)
        if ordered and ordered[0] < 0:
            raise OutOfRange(ordered[0], self.length)
        return await self._clear(runs_of(ordered), local)

    async def _clear(self, runs: Sequence[tuple[int, int]], local: LocalRows | None) -> int:
        self._handle.check_open()
        freed = self._shared.clear(runs, local)
        await self.wait_durable()
        return freed

    def marking(self) -> AbstractAsyncContextManager[Marks]:
        """Mark the blocks that the next `sweep` keeps.

            async with core.marking() as marks:
                marks.add_range(10, 20)
                header = await marks.get(0)  # reads it, too
            await core.sweep()

        Marks of an earlier marking are dropped at once; the new ones are kept, durably, when
        the block ends without an exception. Blocks that are appended after it began are kept.

        Raises: UsageError when somebody is marking or the log was truncated meanwhile,
        OutOfRange, StorageFailed. Cancel: there are no marks then.
        """
        return mark(self, self._shared)

    async def sweep(self) -> int:
        """Give up every block that the last marking did not mark; returns how many.

        Some at a time, and others run between. When it is interrupted, in whatever way, the
        marks are there for the next call.

        Raises: UsageError when there are no marks, or the log was truncated since; StorageFailed.
        Cancel: what is gone is gone.
        """
        self._handle.check_open()
        return await sweep(self._shared)

    def clear_marks(self) -> None:
        """Forget what was marked. Raises: StorageFailed."""
        self._handle.check_open()
        drop_marks(self._log)

    async def prune(self, lengths: Iterable[int] = ()) -> int:
        """Delete tree nodes that prove nothing that is here; returns how many subtrees shrank.

        That is all below the top of every subtree of which all blocks were cleared. Peers that
        are connected can still follow from the length they have, as can those at one of these
        `lengths`. Others whose log ends inside such a subtree have to fetch it anew, and
        the log can no longer be truncated to such a length. Only our own log is pruned.

        Raises: NotWritable, StorageFailed. Cancel: what was deleted was not needed.
        """
        self._handle.check_writable()
        return await self._shared.prune(lengths)

    def draft(self) -> Draft:
        """Changes of this core for an `Atom`, which commits them; requires `exclusive`."""
        self._handle.check_open()
        return Draft(self._log, self._shared.cipher, self.get_local)

    def draft_committing(self, draft: Draft) -> None:
        """A draft of this core is about to be committed."""
        self._shared.draft_committing(draft)

    def draft_settled(self, outcome: DraftOutcome) -> None:
        """It was committed: tell peers and whoever waits."""
        self._shared.draft_settled(outcome)

    async def wait_durable(self, length: int | None = None) -> None:
        """Return when the first `length` blocks (None: all that was committed) are durable.

        Raises: StorageFailed. Cancel: takes back nothing.
        """
        await self._shared.wait_durable(length)

    # --- reading ------------------------------------------------------------------------

    async def get(self, index: int, *, wait: bool = True, force: bool = False) -> bytes:
        """One block: from the disk, or from peers, now or as soon as one has it.

        With `wait` false only what is here counts. `force`: ask peers even where the core is set
        to take only what they push. Raises: BlockNotAvailable (without `wait`),
        SnapshotNotAvailable when the log is cut below it meanwhile, OutOfRange for what cannot
        come: beyond the end of our own log, or below 0; DamagedBlock for our own log, or without
        `wait`: of others' it is fetched again. Cancel: takes the request back.
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
        """One block if it is here. Raises: OutOfRange below 0, DamagedBlock."""
        if self._handle.is_closed:
            self._handle.check_open()
        if index < 0:
            raise OutOfRange(index, self._log.head.length)
        shared = self._shared
        try:
            block = self._read_block(index)
        except CorruptStorage as error:
            raise shared.damaged(index, str(error)) from error
        if block is None:
            shared.check_absent(index)
            return None
        return block if shared.cipher is None else shared.decrypted(index, block)

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
                await self._handle.spend(1 + len(block) // COST_BYTES)
        if missing:
            blocks.update(await self._handle.fetch(missing, wait=wait))
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
        if block is None:
            return (await self._handle.fetch_stored((index,), wait=wait))[index]
        await self._handle.spend(1 + len(block) // COST_BYTES)
        return block

    def blocks(
        self, start: int = 0, stop: int | None = None, *, reverse: bool = False
    ) -> AsyncIterator[bytes]:
        """Blocks [start, stop) in order, or from the last to the first.

        `stop` None is the length now. Blocks that are not here are asked for
        `block_reader.READ_AHEAD_BLOCKS` ahead. Raises and Cancel: as `get`.
        """
        stop = self.length if stop is None else stop
        return self._handle.reader(
            start, stop, reverse=reverse, get=self.get, has=self.has, rows=self._log.rows.blocks
        )

    def follow(self, start: int = 0) -> AsyncIterator[bytes]:
        """Blocks from `start` on, now and as they are appended; it does not end by itself.

        Raises: SnapshotNotAvailable when the log is truncated below what was given out; else,
        and Cancel: as `get`.
        """
        cuts = CutWatch()
        self._shared.histories.add(cuts)
        return FollowingReader(start, cuts=cuts, wait_length=self.wait_length, blocks=self.blocks)

    async def seek(self, offset: int, *, wait: bool = True) -> BytePosition:
        """The block that byte `offset` is in, and its place there.

        At `byte_length` it is the place of the next byte. Where tree nodes are not here peers
        tell the way, and the block is fetched, too: it proves its place. With `wait` false only
        what is here counts. Raises: BlockNotAvailable (only then), OutOfRange for what cannot
        come. Cancel: takes the request back.
        """
        return await find_byte(self._handle, self._log, offset, wait=wait)

    def byte_stream(self, start: int = 0, stop: int | None = None) -> ByteStream:
        """Bytes [start, stop) of the log as it is now; `stop` None is `byte_length`.

        Keeps the log open until it is read to the end or closed. Raises: OutOfRange.
        """
        snapshot = self.snapshot()
        try:
            return ByteStream(snapshot, start, stop, closes_source=True)
        except OutOfRange:
            snapshot.release()
            raise

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
        self._handle.check_open()
        self.replication.want_blocks(indices)

    async def download(self, start: int = 0, stop: int | None = None) -> None:
        """Fetch what is not here of [start, stop); `stop` None is the length now.

        Raises: StorageFailed, trio.ClosedResourceError.
        Cancel: nothing more is asked for; what arrived stays.
        """
        await self._handle.download(start, self.length if stop is None else stop)

    @asynccontextmanager
    async def downloading(
        self,
        start: int = 0,
        stop: int | None = None,
        *,
        blocks: Sequence[int] | None = None,
        order: Order = Order.LINEAR,
    ) -> AsyncIterator[Download]:
        """Fetch blocks [start, stop), or those of the list `blocks`, while in this block.

        `stop` None is the length now, `LIVE` whatever is appended, too. What is not here when the
        block ends is not asked for any more; what arrived stays. Downloads come behind reads.

        Cancel: as leaving the block.
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
        return self.replication.push_blocks(indices)

    def finding_peers(self) -> AbstractContextManager[None]:
        """While in this block, `update` waits for the first peer: somebody looks for some."""
        return self.replication.finding_peers()

    async def wait_length(self, length: int) -> None:
        """Return when the log has at least that many blocks.

        Raises: CoreFrozen, StorageFailed. Cancel: undoes nothing.
        """
        await self._handle.wait_length(length)

    async def wait_change(self, length: int, fork: int) -> None:
        """Return when the log has another length or fork than this. Cancel: undoes nothing."""
        await self._handle.wait_change(length, fork)

    async def update(self) -> bool:
        """Wait for the newer head that some connected peer has; whether the log grew by it.

        False at once when nobody has one. Cancel: undoes nothing.
        """
        self._handle.check_open()
        length = self.length
        await self.replication.wait_update()
        return self.length > length

    # --- damage -------------------------------------------------------------------------

    def audit(self, *, is_strict: bool = False) -> AsyncGenerator[AuditProgress, None]:
        """Check every block and tree node against the signed head; see `Audit`.

        How far it is, about every 3 ms, and in the end what is damaged. Reads and appends go on
        meanwhile. Raises: StorageError. Cancel: nothing was changed.
        """
        self._handle.check_open()
        return audit_log(self._log, self._handle.check_open, is_strict=is_strict)

    async def repair(self, damage: Iterable[Damage]) -> list[tuple[int, int]]:
        """Mend what an audit found, so that reading asks peers for what is lost.

        Returns runs [start, stop) of blocks that were forgotten; of our own core none ever is.
        A damaged file stays in the store, which stops writing when it comes to rewrite it:
        `storage.salvage` rids a store of it. Raises: StorageFailed. Cancel: it was done.
        """
        self._handle.check_open()
        runs = repair_log(self._log, damage)
        for start, stop in runs:
            self.replication.blocks_dropped(start, stop)
        await self.wait_durable()
        return runs

    def _forget_damaged(self, error: DamagedBlock, wait: bool) -> None:
        if not wait:
            raise error
        self._shared.forget_damaged(error)

    # --- evidence -------------------------------------------------------------------------

    async def prove(self, index: int | None = None) -> InclusionProof:
        """A proof that anyone checks offline: of a block and the head, or of the head alone.

        The block is fetched if it is not here, and proven as it is stored. Of our own log only
        what is durable is shown. Raises: as `get`; InvalidRequest when tree nodes were pruned.
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
        head = self._log.head
        if length is None or length == head.length:
            return head.tree_hash
        roots = roots_at(length, head, self._log.read_node)
        if roots is None:
            raise BlockNotAvailable(length - 1)
        return hash_of_roots(roots)

    async def freeze(self, proof: ForkProof) -> None:
        """Take evidence that came another way than from a peer; connected peers are told.

        Raises: InvalidProof, UsageError when it is about a history that was left since,
        StorageFailed. Cancel: it was taken.
        """
        self._handle.check_open()
        verify_fork_proof(proof, self.key)
        if proof.fork != self.fork:
            raise UsageError(f"evidence about fork {proof.fork}, the core is at {self.fork}")
        self.replication.freeze(proof)
        await self.wait_durable()

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
        await self._handle.spend(APPEND_COST)
        self._handle.check_open()
        if rows:
            self._log.commit((), rows)
            await self.wait_durable()

    def get_user_data(self, key: str) -> bytes | None:
        return self._log.user_data(key)

    async def set_user_data(self, key: str, value: bytes) -> None:
        """Raises: StorageFailed. Cancel: it was written, or not."""
        self._handle.check_open()
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
        return self._shared.read_blocks(indices)

    def commit(self, changesets: Sequence[Changeset]) -> None:
        """Make verified changes from peers true, in one batch, and wake who waits for them.

        Does not wait for the disk. Raises: StorageFailed.
        """
        self._handle.check_open()
        self._shared.commit(changesets)

    # --- life ---------------------------------------------------------------------------

    def use_encryption(self, choice: EncryptionChoice) -> None:
        """Encrypt what is appended and decrypt what is read from now on, for all users.

        Raises: UsageError when the core is in use with another encryption, WrongEncryptionKey
        when the blocks that are here were not written with this key.
        """
        self._shared.use_encryption(choice)

    def set_encryption(self, encryption: BlockEncryption | None) -> None:
        """Encrypt and decrypt in another way from now on, for all users; None: not at all."""
        self._shared.cipher = encryption

    async def serve(self, mux: Multiplexer) -> None:
        """Replicate this core over one connection until the channel or the core is closed.

        Raises: StorageError when the core cannot be read or written any more. Cancel: closes the
        channel.
        """
        if not self.is_closed:
            await self._shared.serve(mux)

    async def close(self) -> None:
        """Give the handle back; the last one closes the log. Cancel: never waits.

        Whoever waits for something at this handle gets ClosedResourceError.
        """
        self.release()

    def release(self) -> None:
        """As `close`."""
        self._handle.close()
