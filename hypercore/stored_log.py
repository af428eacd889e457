"""One log and its storage: the state that appends and commits change, without any waiting.

The one commit point: a batch is staged, written, and only then the head is swapped. A crash
before the write leaves none of it, after it all of it. A failure in between poisons the log: it
never guesses what reached the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from hypercore import log
from hypercore.bitfield import Bitfield
from hypercore.crypto import KeyPair
from hypercore.durable_length import DurableLength
from hypercore.errors import (
    CoreFrozen,
    CoreRecovering,
    CorruptStorage,
    NotWritable,
    StorageError,
    StorageFailed,
    UsageError,
)
from hypercore.fork_proof import ForkProof, ProvenFork, verify_fork_proof
from hypercore.given_blocks import check_cut
from hypercore.given_rows import LocalRows, UserData, checked_rows
from hypercore.held_blocks import HeldBlocks
from hypercore.log import Changeset, Head
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode
from hypercore.proposal import Proposal, check_truncation, propose_append, propose_truncation
from hypercore.pruning import check_roots
from hypercore.storage import RowBatch, Storage, WriteBatch
from hypercore.storage.core_storage import FORK_PROOF_KEY, CoreStorage, make_verifier
from hypercore.stored_tree import StoredTree
from hypercore.verifier import Verifier


class StoredLog:
    """Head, blocks held and rows of one log, always as on the disk."""

    def __init__(self, rows: CoreStorage, key_pair: KeyPair | None = None) -> None:
        """Load and check. `key_pair` is what to sign with when none is stored.

        Raises: CorruptStorage, StorageError.
        """
        self.rows = rows
        self.sequence = 0
        """The storage's sequence number of the last commit made here; 0 before the first."""
        self.on_group_update: Callable[[StoredLog], None] | None = None
        """Told of each new head of a log that is in a group; must not wait."""
        self.on_cut: Callable[[int], None] = _nobody_told
        """Told where the log is about to be cut, when nothing can refuse that any more."""
        self._spare_key_pair = key_pair
        self._storage: Storage = rows.storage
        self._failure: StorageError | None = None
        self._held = HeldBlocks(rows)
        self.bitfield: Bitfield = self._held.bitfield
        self._durable = DurableLength(rows.storage)
        self._tree = StoredTree(self)
        self.read_node = self._tree.read_node
        """As `StoredTree.read_node`; not a method, which would be a call more for each node."""
        self.encoded_nodes = self._tree.encoded_nodes
        self._load()

    def _load(self) -> None:
        stored = self.rows.load()
        self.key = stored.auth.key
        self.discovery_key = self.rows.discovery_key
        self.head: Head = stored.head
        self._held.load(stored.bitfield, stored.hints)
        self.verifier: Verifier | None = stored.verifier
        self.key_pair = stored.auth.key_pair or self._spare_key_pair
        self._auth = stored.auth
        self._tree.begin_with(stored.rebuilt)
        self._durable.forget()
        evidence = self.rows.load_fork_proof(self.key)
        self.fork_proof: ForkProof | None = evidence[0] if evidence else None
        """Once it is there, nothing is added to this log any more."""

        self._proven_fork: ProvenFork | None = evidence[1] if evidence else None
        self.is_writable = self._may_write()
        if self.is_writable and self.rows.has_nodes_beyond(self.head.length):
            # Whoever has seen the rest would be told another history of the same fork.
            raise CorruptStorage(
                f"core {self.discovery_key.hex()[:16]}",
                f"its head, of length {self.head.length}, is older than its tree",
            )
        self._held.put_right(self.head.length, stored.rebuilt, are_hints_lost=stored.are_hints_lost)

    def reload(self) -> bool:
        """Read and check all of it anew; returns whether the head changed.

        For when others had the files, or the storage has recovered from a failure.
        Raises: CorruptStorage, StorageError; the log must not be used then.
        """
        head = self.head
        self._failure = None
        try:
            self._load()
        except StorageError as error:
            self._failure = error
            raise
        if self.head == head:
            self.head = head  # those that hold on to it see that nothing happened
        return self.head is not head

    @property
    def manifest(self) -> Manifest | None:
        return self._auth.manifest

    @property
    def is_compat(self) -> bool:
        """Whether the key is the signer's own, as far as that is known by now."""
        if self.verifier is not None:
            return self.verifier.is_compat
        return self.head.length > 0  # a manifest would have come with the head

    @property
    def is_recovering(self) -> bool:
        """Whether the newest head may have been lost, so that nothing is appended."""
        return self._held.hints.recovering > 0

    def end_recovering(self) -> None:
        """Peers have said that our head is the newest. Raises: StorageFailed."""
        with self._writing() as batch:
            self._held.stage_recovered(batch)

    @property
    def contiguous_length(self) -> int:
        return self._held.hints.contiguous_length

    @property
    def remote_contiguous_length(self) -> int:
        """The longest prefix of the log that some peer has claimed to have, now or earlier."""
        return min(self._held.hints.remote_contiguous_length, self.head.length)

    def note_remote_contiguous(self, length: int) -> None:
        """Some peer has claimed blocks [0, length) of this fork; `length` may be beyond ours.

        Raises: StorageFailed.
        """
        self._held.note_remote_contiguous(length, self.head.length)

    @property
    def durable_length(self) -> int:
        """How much of our own log survives what the store's durability promises.

        -1 while not even its fork does: a cut to no blocks at all has to be durable, too.
        Of a log that others write it is the length: what is lost can be fetched again, and
        nobody signs another history in its place.
        """
        return self._durable.of(self.head.length)

    def sequence_of(self, length: int) -> int:
        """The commit that must be durable for `length` to be."""
        sequence = self._durable.sequence_of(length)
        return self.sequence if sequence is None else sequence

    def _may_write(self) -> bool:
        if self.key_pair is None or self.verifier is None or self._storage.is_read_only:
            return False
        if self.fork_proof is not None:
            return False
        manifest = self.verifier.manifest
        prologue = self.verifier.prologue
        # A log without its prologue is not ours to go on with: it may come from peers, too.
        return (
            manifest.quorum == 1
            and (prologue is None or self.head.length >= prologue.length)
            and any(signer.public_key == self.key_pair.public_key for signer in manifest.signers)
        )

    def adopt_key_pair(self, key_pair: KeyPair) -> None:
        """Sign with this from now on, when no other is here; it is not stored."""
        if self.key_pair is None:
            self.key_pair = self._spare_key_pair = key_pair
            self.is_writable = self._may_write()

    def check_usable(self) -> None:
        """Raises: StorageFailed after a failed write."""
        if self._failure is not None:
            raise StorageFailed(str(self._failure)) from self._failure

    @property
    def frozen_error(self) -> CoreFrozen | None:
        """What to tell those who want more of a frozen log; None for any other."""
        fork = self._proven_fork
        return None if fork is None else CoreFrozen(self.key, str(fork))

    def freeze(self, proof: ForkProof) -> None:
        """Keep evidence about the present fork, and add nothing any more; the first one stays.

        Raises: InvalidProof when it is about another core, StorageFailed.
        """
        if self.fork_proof is not None:
            return
        proven = verify_fork_proof(proof, self.key)
        if not self._storage.is_read_only:
            self.set_user_data(FORK_PROOF_KEY, proof.encode())
        self.fork_proof, self._proven_fork = proof, proven
        self.is_writable = False

    def sign(self, head: Head) -> bytes:
        if self.verifier is None or self.key_pair is None:
            raise NotWritable("this core's secret key is not here")
        return self.verifier.sign(head, self.key_pair)

    def check_writable(self) -> None:
        """Raises: NotWritable, CoreFrozen, StorageError."""
        self.check_usable()
        if not self.is_writable:
            if (error := self.frozen_error) is not None:
                raise error
            reason = self._storage.why_read_only or "this core's secret key is not here"
            raise NotWritable(reason)
        if self.is_recovering:
            raise CoreRecovering(self.discovery_key)

    def append(self, blocks: Sequence[bytes], local: LocalRows | None = None) -> int:
        """Sign and write `blocks` (as they are to be stored) and `local`, in one batch.

        Returns the index of the first block. Raises: as `check_writable`, StorageFailed.
        """
        self.check_writable()
        start = self.head.length
        self.commit((log.append(self.head, blocks, self.sign),), local)
        return start

    def truncate(self, length: int, fork: int | None = None) -> Changeset:
        """Cut the log back, as a new fork; returns what was committed.

        Raises: as `append`, and OutOfRange, PrunedHistory; UsageError for a cut into the prologue
        or a fork that is not newer.
        """
        check_cut(length, fork)
        self.check_writable()
        assert self.verifier is not None
        check_truncation(length, self.verifier)
        if 0 <= length < self.head.length:
            check_roots(length, self.bitfield, self.read_node)
        changes = log.truncate(
            self.head,
            length,
            self.head.fork + 1 if fork is None else fork,
            self.read_node,
            self.sign,
        )
        self.commit((changes,))
        return changes

    def propose(self, blocks: Sequence[bytes]) -> Proposal:
        """`blocks`, as they are to be stored, at the end. Raises: as `propose_append`."""
        return propose_append(self.head, blocks, self.verifier)

    def propose_truncation(self, length: int, fork: int | None = None) -> Proposal:
        """The log cut back, as a new fork. Raises: as `propose_truncation`, and PrunedHistory."""
        check_cut(length, fork)
        if 0 <= length < self.head.length:
            check_roots(length, self.bitfield, self.read_node)
        fork = self.head.fork + 1 if fork is None else fork
        return propose_truncation(self.head, length, fork, self.read_node, self.verifier)

    def commit_proposal(
        self,
        proposal: Proposal,
        signature: bytes | None,
        key_pair: KeyPair | None,
        local: LocalRows | None = None,
    ) -> Changeset:
        """Write what was proposed of this very head, made valid by a signature or a key pair.

        Returns what was committed. Raises: InvalidSignature, NotWritable, CoreFrozen, StorageError;
        UsageError for both a signature and a key pair.
        """
        if signature is not None and key_pair is not None:
            raise UsageError("a signature and a key pair exclude one another")
        self.check_usable()
        if self._storage.is_read_only:
            raise NotWritable(self._storage.why_read_only or "the store is read-only")
        if self.is_recovering:
            raise CoreRecovering(self.discovery_key)
        if signature is None:
            changes = proposal.signed_by(key_pair or self.key_pair)
        else:
            changes = proposal.signed(signature)
        before = self.head
        is_noted = self.is_writable
        self.commit((changes,), local)
        if not is_noted:
            # Signers elsewhere go by what we show: they must not see what a power cut could take
            # back, or another log of this length would be signed after it.
            self._note_unsynced(before)
        return changes

    def _note_unsynced(self, before: Head) -> None:
        """The last commit made our head of the one `before`, and the disk may not have it yet."""
        if self.head.fork == before.fork:
            self._durable.note(self.head.length, self.sequence, before.length)
        else:
            self._durable.note_cut(self.head.length, self.sequence)

    def clear(self, runs: Sequence[tuple[int, int]], local: LocalRows | None = None) -> None:
        """Remove the blocks of these runs [start, stop), and write `local`, in one batch.

        Their tree nodes stay: they prove other blocks. Raises: StorageFailed.
        """
        rows = checked_rows(local)
        with self._writing() as batch:
            self.stage_clearing(batch, runs)
            self.stage_local(batch, rows)

    def stage_clearing(self, batch: WriteBatch, runs: Sequence[tuple[int, int]]) -> None:
        """Put the removal of these runs into a batch that must be committed next."""
        for start, stop in runs:
            self.rows.stage_clearing(batch, start, stop)
        self._held.stage_clearing(batch, runs)

    def restore(self, nodes: Sequence[MerkleNode], blocks: Sequence[int]) -> None:
        """Put tree nodes that were lost, and mark blocks that are here. Raises: StorageFailed."""
        with self._writing() as batch:
            self.rows.stage_nodes(batch, nodes)
            self._held.stage_restored(batch, blocks, self.head.length)
        self._tree.forget()

    def rewrite_marks(self, page: int) -> None:
        """Write anew which blocks of that page are here. Raises: StorageFailed."""
        with self._writing() as batch:
            self.rows.stage_page(batch, self.bitfield, page)

    def forget_node(self, index: int) -> None:
        """Delete a tree node that cannot be read. Raises: StorageFailed."""
        self.check_usable()
        batch = self._storage.batch()
        batch.delete(self.rows.keys.node(index))
        self.sequence = self._storage.commit(batch)
        self._tree.forget()

    def prune(self, tops: Iterable[int]) -> None:
        """Remove all tree nodes below these. Raises: StorageFailed."""
        with self._writing() as batch:
            for top in tops:
                self.rows.stage_pruning(batch, top)
        self._tree.forget()

    @contextmanager
    def _writing(self) -> Iterator[WriteBatch]:
        """Commit what the block stages, which leaves the head as it is; or poison the log."""
        self.check_usable()
        batch = self._storage.batch()
        try:
            yield batch
            self.sequence = self._storage.commit(batch)
        except BaseException as error:
            self.poison(error)
            raise

    def commit(self, changesets: Sequence[Changeset], local: LocalRows | None = None) -> None:
        """Write all of it in one batch, then make it the state.

        Not synced. Raises: StorageFailed, and then for every later commit; CoreFrozen.
        """
        self.check_usable()
        if self.fork_proof is not None and any(changes.head for changes in changesets):
            raise CoreFrozen(self.key, str(self._proven_fork))
        rows = checked_rows(local)
        batch = self._storage.batch()
        try:
            head = self.stage(batch, changesets)
            self.stage_local(batch, rows)
            self.settle(head, self._storage.commit(batch))
        except BaseException as error:
            self.poison(error)
            raise

    def stage(self, batch: WriteBatch, changesets: Sequence[Changeset]) -> Head:
        """Put all of it into a batch that must be committed next; returns the head it leads to.

        Bits and hints change at once, the head does not: a caller that has committed the batch
        must `settle` the log then, and one that failed to must `poison` it.
        """
        head = self.head
        for changes in changesets:
            if changes.truncated_to is not None:
                if changes.truncated_to < self.head.length:  # else only what a draft appended
                    self.on_cut(changes.truncated_to)
                self.rows.stage_truncation(batch, changes.truncated_to, head.length)
                self._tree.forget()
            if changes.manifest is not None and self._auth.manifest is None:
                self._learn_manifest(batch, changes.manifest)
            self.rows.stage_changes(batch, changes)
            head = changes.head or head
        self.stage_head(batch, head, changesets)
        return head

    def stage_head(self, batch: RowBatch, head: Head, changesets: Sequence[Changeset]) -> None:
        """The end of `stage`, for a caller that has put all else into the batch."""
        if head is not self.head:
            self.rows.stage_head(batch, head)
        self._held.stage(batch, changesets, self.head.length)

    def poison(self, error: BaseException) -> None:
        """Refuse every later write: nobody knows what reached the disk.

        What was staged in memory is taken back, as far as it is not on the disk.
        """
        self._failure = StorageFailed(f"a write to this core failed: {error}")
        self._held.reread(self.head.length)
        self._tree.forget()

    def set_manifest(self, manifest: Manifest) -> None:
        """Store the manifest, which the key must stand for. Raises: StorageFailed."""
        self.commit((Changeset(manifest=manifest),))

    def _learn_manifest(self, batch: WriteBatch, manifest: Manifest) -> None:
        self.verifier = make_verifier(self.key, manifest, 0)
        self._auth = replace(self._auth, manifest=manifest)
        self.rows.stage_auth(batch, self._auth)

    def stage_local(self, batch: RowBatch, rows: LocalRows) -> None:
        for key, value in rows.items():
            if value is None:
                batch.delete(self.rows.keys.local(key))
            else:
                batch.put(self.rows.keys.local(key), value)

    def settle(self, head: Head, sequence: int) -> None:
        """What was staged is committed, with this sequence: make its head the state."""
        self.sequence = sequence
        before, self.head = self.head, head
        is_changed = head is not before
        if is_changed and self.is_writable:
            self._note_unsynced(before)
        if not self.is_writable and self.key_pair is not None:
            self.is_writable = self._may_write()
        if is_changed and self.rows.group is not None and self.on_group_update is not None:
            self.on_group_update(self)

    def local_value(self, key: bytes) -> bytes | None:
        return self._storage.get(self.rows.keys.local(key))

    def local_items(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Local rows with start <= key < stop, in order."""
        keys = self.rows.keys
        for key, value in self._storage.items(keys.local(start), keys.local(stop)):
            yield keys.local_key(key), value

    def user_data(self, key: str) -> bytes | None:
        return self._storage.get(self.rows.keys.user_data(key))

    def set_user_data(self, key: str, value: bytes) -> None:
        """Raises: StorageFailed."""
        self.check_usable()
        batch = self._storage.batch()
        self.stage_user_data(batch, {key: value})
        self.sequence = self._storage.commit(batch)

    def stage_user_data(self, batch: WriteBatch, rows: UserData) -> None:
        for key, value in rows.items():
            if value is None:
                batch.delete(self.rows.keys.user_data(key))
            else:
                batch.put(self.rows.keys.user_data(key), value)


def _nobody_told(length: int) -> None:
    pass
