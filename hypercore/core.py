"""[trio] A handle of one log: what applications read, append to and replicate."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from hypercore.audit import AuditProgress, Damage, audit_log
from hypercore.byte_stream import DEFAULT_BLOCK_BYTES, AppendStream
from hypercore.crypto import KeyPair
from hypercore.draft import Draft, DraftOutcome
from hypercore.encoded import EncodedCore
from hypercore.encryption import BlockEncryption, EncryptionChoice
from hypercore.errors import (
    NotWritable,
    OutOfRange,
    UsageError,
)
from hypercore.fork_proof import ForkProof, verify_fork_proof
from hypercore.given_blocks import check_numbers, given_indices
from hypercore.given_rows import LocalRows, checked_user_data
from hypercore.handle import APPEND_COST
from hypercore.log import Changeset
from hypercore.log_copy import prologue_changes
from hypercore.long_append import append_pieces
from hypercore.manifest import Manifest
from hypercore.marking import Marks, drop_marks, mark, sweep
from hypercore.multisig import sign_part
from hypercore.proposal import Proposal
from hypercore.readable_core import ReadableCore
from hypercore.recovering import SETTLE_SECONDS, UnprovenClaim, recover_log, unproven_claims
from hypercore.repair import repair_log
from hypercore.replication.announcements import runs_of
from hypercore.replication.channel import Multiplexer
from hypercore.replication.effort import Effort
from hypercore.value_encoding import T, ValueEncoding
from hypercore.verifier import PartialSignature, Verifier
from hypercore.waiting import WriterLock


class Core(ReadableCore):
    """An append-only log of blocks, signed by its writer, as one user has it open.

    Other handles of the same log see the same blocks; each is closed by itself, and the log
    with the last of them. Methods that are not async never wait. Async ones yield to the
    scheduler only when they must wait, and about once a millisecond in a loop of calls that
    need not.
    """

    async def __aenter__(self) -> Core:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    # --- views ------------------------------------------------------------------------

    def session(self, *, read_only: bool = False) -> Core:
        """Another handle of the log, closed by itself; one of a read-only handle is read-only, too.

        Raises: trio.ClosedResourceError.
        """
        self._handle.check_open()
        core = Core(self._shared, is_read_only=read_only or self._handle.is_read_only)
        core._handle.belong_to(self._handle.owner)
        return core

    @asynccontextmanager
    async def exclusive_session(self) -> AsyncIterator[Core]:
        """A session during which no other of its kind is open; waits for its turn.

        Ordinary handles may still append: `exclusive` keeps those out. Cancel: never opened.
        """
        async with self._shared.exclusive_sessions, self.session() as session:
            yield session

    def encoded(
        self,
        encoding: ValueEncoding[T],
        *,
        encode_many: Callable[[Sequence[T]], Sequence[bytes]] | None = None,
    ) -> EncodedCore[T]:
        """The blocks as values, for as long as this handle is open.

        `encode_many` turns values that are appended together into blocks, perhaps fewer of them.
        """
        return EncodedCore(self, encoding, encode_many)

    # --- writing ----------------------------------------------------------------------

    def append_stream(self, block_bytes: int = DEFAULT_BLOCK_BYTES) -> AppendStream:
        """Appends what is sent to it, cut into blocks of at most that size."""
        return AppendStream(self.append, block_bytes)

    def exclusive(self) -> WriterLock:
        """The writer's lock: nobody else appends while it is held. Its holder may take it again."""
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

        Blocks are signed with `key_pair` in place of the core's own, or come with the `signature`
        that was made for their proposal (`propose`). A prologue needs neither.

        Returns when all of it is as durable as the store promises. Raises: NotWritable, CoreFrozen,
        InvalidSignature, BlockTooLarge, StorageFailed, TypeError for blocks that are not bytes.
        Cancel: all of it was written, or nothing.
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

        Raises: NotWritable, CoreFrozen, InvalidSignature, BlockTooLarge, StorageFailed.
        """
        self._handle.check_writable()
        if key_pair is None and signature is None:
            return self._shared.append(blocks, local)
        return self._shared.append_signed(blocks, local, key_pair, signature)

    async def append_pieces(
        self,
        pieces: Iterable[Sequence[bytes]],
        *,
        local: LocalRows | None = None,
        expected_bytes: int = 0,
    ) -> int:
        """Put the blocks of all pieces at the end, in one commit, and let others run in between.

        For very many blocks: give a few hundred at a time. If `expected_bytes` says that 16 MiB or
        more will come, they wait for the commit on the disk and not in memory. Returns the index
        of the first block, without waiting for the disk. Raises: NotWritable, BlockTooLarge,
        StorageFailed, UsageError when somebody appends meanwhile without the writer's lock,
        trio.ClosedResourceError when the core is closed meanwhile. Cancel: nothing was appended.
        """
        async with self._shared.writer:
            self._handle.check_writable()
            return await append_pieces(self._shared, pieces, local, expected_bytes)

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

        Raises: NotWritable, CoreFrozen, InvalidSignature, OutOfRange, PrunedHistory, StorageFailed;
        UsageError for a cut into the prologue or a fork that is not newer.
        Cancel: it was done, or not.
        """
        async with self._shared.writer:
            self._handle.check_writable()
            self._shared.truncate(length, fork, key_pair, signature)
        await self.wait_durable()

    def propose(self, blocks: bytes | Sequence[bytes] = ()) -> Proposal:
        """What the log would be with these blocks, for others to sign; nothing is written.

        Without blocks, the log as it is now. Raises: UsageError while the manifest is unknown, or
        when the blocks are not those of the prologue; BlockTooLarge.
        """
        self._handle.check_open()
        return self._shared.propose(blocks)

    def propose_truncation(self, length: int, fork: int | None = None) -> Proposal:
        """What `truncate` would make of the log. Raises: UsageError, OutOfRange, PrunedHistory."""
        self._handle.check_open()
        return self._log.propose_truncation(length, fork)

    def sign_for(
        self, manifest: Manifest, *, length: int | None = None, key_pair: KeyPair | None = None
    ) -> PartialSignature:
        """Sign what this core holds, as one of the signers that another core's `manifest` names.

        The part is for a log of `length` blocks, with a patch up to our length when we are
        ahead. Raises: NotWritable when the key pair (by default the core's) is no signer's,
        UsageError for blocks that a power cut could take back: others could be signed in their
        place.
        """
        self._handle.check_open()
        if self.durable_length < self.length:
            raise UsageError(
                f"only {self.durable_length} of {self.length} blocks are durable: wait for the rest"
            )
        key_pair = key_pair or self.key_pair
        if key_pair is None:
            raise NotWritable("this core's secret key is not here")
        verifier = Verifier(manifest.key, manifest)
        return sign_part(verifier, self.head, self.read_node, key_pair, length)

    async def copy_prologue(self, source: Core) -> None:
        """Fill the first blocks, which our manifest fixes, from a core that begins with them.

        Copies what `source` holds of them; nobody signs. Returns when that is durable.
        Raises: UsageError when `source` begins with other blocks, StorageFailed. Cancel: part of
        the blocks was copied, or all.
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
        """Give a core that was opened by its key the manifest; otherwise a peer sends it.

        Raises: InvalidManifest for another core's, StorageFailed. Cancel: it was written, or not.
        """
        self._handle.check_open()
        data = manifest if isinstance(manifest, bytes) else manifest.encode()
        self.learn_manifest(Manifest.parse(data, self.key))
        await self.wait_durable()

    def learn_manifest(self, manifest: Manifest) -> None:
        """As `set_manifest`, for one known to be the core's, without waiting for the disk."""
        self._handle.check_open()
        self._shared.learn_manifest(manifest)

    async def clear(self, start: int, stop: int) -> int:
        """Free the room of blocks [start, stop); the log stays as it is, and peers are told.

        They can be fetched again from whoever has them. Returns how many of them were here, when
        that is durable. Raises: OutOfRange, StorageFailed. Cancel: it was done, or not.
        """
        check_numbers("the index of a block", start, stop)
        return await self._clear([(start, stop)], None)

    async def clear_many(self, indices: Iterable[int], *, local: LocalRows | None = None) -> int:
        """As `clear`, for blocks in any order, in one step with `local` rows.

        Peers are told of each run of blocks: give a few hundred at a time.
        Raises: OutOfRange, StorageFailed. Cancel: all of it was done, or nothing.
        """
        indices = given_indices(indices)
        if not isinstance(indices, range):
            check_numbers("the index of a block", *indices)
        ordered = sorted(set(indices))
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

        Some at a time, and other tasks run in between. However it is interrupted, the marks stay
        for the next call.

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

        Those are all nodes below the top of a subtree whose blocks were all cleared. Peers that
        are connected can still follow from the length they have, as can those at one of these
        `lengths`. Others whose log ends inside such a subtree have to fetch it anew, and the log
        can no longer be truncated to a length inside it. Only our own log is pruned.

        Raises: NotWritable, StorageFailed. Cancel: what was deleted was not needed.
        """
        self._handle.check_writable()
        lengths = given_indices(lengths)
        check_numbers("the length of a log", *lengths)
        return await self._shared.prune(lengths)

    def draft(self) -> Draft:
        """Changes of this core for an `Atom`, which commits them; requires `exclusive`."""
        self._handle.check_open()
        shared = self._shared
        return Draft(
            self._log,
            shared.cipher,
            self.get_local,
            shared.check_open,
            self._handle.check_writable,
        )

    def draft_settled(self, outcome: DraftOutcome) -> None:
        """The draft was committed: tell peers and whoever waits."""
        self._shared.draft_settled(outcome)

    # --- damage -----------------------------------------------------------------------

    def audit(self, *, is_strict: bool = False) -> AsyncGenerator[AuditProgress, None]:
        """Check every block and tree node against the signed head; see `Audit`.

        Yields how far it is, about every 3 ms, and in the end what is damaged. Reads and appends
        go on meanwhile. Raises: StorageError. Cancel: nothing was changed.
        """
        self._handle.check_open()
        return audit_log(self._log, self._handle.check_open, is_strict=is_strict)

    async def repair(self, damage: Iterable[Damage]) -> list[tuple[int, int]]:
        """Mend what an audit found, so that reading asks peers for what is lost.

        Returns runs [start, stop) of blocks that were forgotten; those of our own core never are.
        A damaged file stays in the store, and writing stops when the store comes to rewrite that
        file: `storage.salvage` rids a store of it. Raises: StorageFailed. Cancel: it was done.
        """
        self._handle.check_open()
        runs = repair_log(self._log, damage)
        for start, stop in runs:
            self.replication.blocks_dropped(start, stop)
        await self.wait_durable()
        return runs

    async def recover(
        self,
        witnesses: Collection[bytes] | None = None,
        *,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """Wait until a core that `is_recovering` may be appended to again.

        That is when for `settle_seconds` at least one peer was connected, and none of them knew a
        newer head; newer ones are fetched and verified meanwhile. `witnesses` are the public keys
        of the remotes whose word counts, None: all. A remote that claims a length and cannot prove
        it keeps us waiting for as long as it is connected: `unproven_claims` names it.

        Returns at once for other cores. Raises: CoreFrozen, StorageFailed. Cancel: nothing was
        changed, but for what was fetched.
        """
        self._handle.check_open()
        await recover_log(self._shared, witnesses, settle_seconds)

    def unproven_claims(
        self, witnesses: Collection[bytes] | None = None
    ) -> tuple[UnprovenClaim, ...]:
        """Peers that keep `recover` waiting at this moment, with what each claims and has shown."""
        self._handle.check_open()
        return unproven_claims(self.head, self.replication.peers, witnesses)

    async def end_recovering(self) -> None:
        """Take the caller's word that nobody knows a newer head than ours; see `recover`.

        Raises: StorageFailed. Cancel: it was done.
        """
        self._handle.check_open()
        if self.is_recovering:
            self._log.end_recovering()
        await self.wait_durable()

    # --- evidence ---------------------------------------------------------------------

    async def freeze(self, proof: ForkProof) -> None:
        """Take evidence that did not come from a peer; connected peers are told.

        Raises: InvalidProof, UsageError when it is about a history that has been left since,
        StorageFailed. Cancel: it was taken.
        """
        self._handle.check_open()
        verify_fork_proof(proof, self.key)
        if proof.fork != self.fork:
            raise UsageError(f"evidence about fork {proof.fork}, the core is at {self.fork}")
        self.replication.freeze(proof)
        await self.wait_durable()

    # --- rows beside the log ----------------------------------------------------------

    async def write_local(self, rows: LocalRows) -> None:
        """Put local rows (None deletes) in one batch, and wait until they are durable.

        Raises: StorageFailed. Cancel: all of it was written, or nothing.
        """
        await self._handle.spend(APPEND_COST)
        self._handle.check_open()
        if rows:
            self._log.commit((), rows)
            await self.wait_durable()

    async def set_user_data(self, key: str, value: bytes) -> None:
        """Raises: StorageFailed, TypeError. Cancel: it was written, or not."""
        self._handle.check_open()
        checked_user_data({key: value})
        if self._log.user_data(key) != value:
            self._log.set_user_data(key, value)
        await self.wait_durable()  # also for the same value, written by somebody who still waits

    # --- replication ------------------------------------------------------------------

    def commit(self, changesets: Sequence[Changeset]) -> None:
        """Make verified changes from peers true, in one batch, and wake those who wait for them.

        Does not wait for the disk. Raises: StorageFailed.
        """
        self._handle.check_open()
        self._shared.commit(changesets)

    # --- life -------------------------------------------------------------------------

    def use_encryption(self, choice: EncryptionChoice) -> None:
        """Encrypt what is appended and decrypt what is read from now on, for all users.

        Raises: UsageError when the core is in use with another encryption, WrongEncryptionKey
        when the blocks that are here were not written with this key.
        """
        self._handle.check_open()
        self._shared.use_encryption(choice)

    def set_encryption(self, encryption: BlockEncryption | None) -> None:
        """Encrypt and decrypt in another way from now on, for all users; None: not at all."""
        self._handle.check_open()
        self._shared.cipher = encryption

    async def serve(self, mux: Multiplexer, effort: Effort | None = None) -> None:
        """Replicate this core over one connection until the channel or the core is closed.

        `effort` is what all cores of the connection have cost, if it is used for others, too.
        Raises: StorageError when the core cannot be read or written any more. Cancel: closes the
        channel.
        """
        if not self.is_closed:
            await self._shared.serve(mux, effort)

    async def close(self) -> None:
        """Give the handle back; the last one closes the log. Cancel: never waits.

        Whoever waits for something at this handle gets ClosedResourceError.
        """
        self.release()

    def release(self) -> None:
        """As `close`."""
        self._handle.close()
