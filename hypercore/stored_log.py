"""One log and its storage: the state that appends and commits change, without any waiting.

The one commit point: a batch is staged, written, and only then the head is swapped. A crash
before the write leaves none of it, after it all of it. A failure in between poisons the log: it
never guesses what reached the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import NoReturn

from hypercore import flat_tree, log
from hypercore.bitfield import PAGE_BITS, Bitfield, pages_of
from hypercore.crypto import KeyPair
from hypercore.errors import (
    CoreFrozen,
    CorruptStorage,
    NotWritable,
    StorageError,
    StorageFailed,
    UsageError,
)
from hypercore.fork_proof import ForkProof, ProvenFork, verify_fork_proof
from hypercore.log import Changeset, Head
from hypercore.manifest import Manifest, Verifier
from hypercore.merkle import MerkleNode, parent_node
from hypercore.proposal import Proposal, check_truncation, propose_append, propose_truncation
from hypercore.pruning import check_roots
from hypercore.repair import rebuilt_node
from hypercore.storage import Storage, WriteBatch
from hypercore.storage.core_storage import FORK_PROOF_KEY, CoreStorage, make_verifier
from hypercore.storage.layout import MAX_LOCAL_KEY_BYTES, Hints

LocalRows = Mapping[bytes, bytes | None]
"""Changes of the local rows: a value to put, None to delete."""

_CACHED_NODES = 4096
"""Tree nodes kept decoded, about 1.2 MB a log."""

_MAX_PENDING = 1024
"""Appends whose durability is told apart; with more, the last ones count as one."""


class StoredLog:
    """Head, bitfield and rows of one log, always as on the disk."""

    def __init__(self, rows: CoreStorage, key_pair: KeyPair | None = None) -> None:
        """Load and check. `key_pair` is what to sign with when none is stored.

        Raises: CorruptStorage, StorageError.
        """
        self.rows = rows
        self.sequence = 0
        """The storage's sequence number of the last commit; 0 when all is older than this."""
        self.on_group_update: Callable[[StoredLog], None] | None = None
        """Told of each new head of a log that is in a group; must not wait."""
        self._spare_key_pair = key_pair
        self._storage: Storage = rows.storage
        self._failure: StorageError | None = None
        self.bitfield = Bitfield()
        self._load()

    def _load(self) -> None:
        stored = self.rows.load()
        self.key = stored.auth.key
        self.discovery_key = self.rows.discovery_key
        self.head: Head = stored.head
        self.bitfield.become(stored.bitfield)
        self.verifier: Verifier | None = stored.verifier
        self.key_pair = stored.auth.key_pair or self._spare_key_pair
        self._auth = stored.auth
        self._hints = stored.hints
        self._nodes: dict[int, MerkleNode] = {node.index: node for node in stored.rebuilt}
        self._durable_length = self.head.length
        self._pending: deque[tuple[int, int]] = deque()
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
        self._repair(stored.rebuilt)

    def reload(self) -> bool:
        """Read and check all of it anew; whether the head changed.

        After others had the files, or after the storage has recovered from a failure.
        Raises: CorruptStorage, StorageError, and the log is then not to be used.
        """
        head = self.head
        self._failure = None
        try:
            self._load()
        except StorageError as error:
            self._failure = error
            raise
        if self.head == head:
            self.head = head  # who holds on to it sees that nothing happened
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
    def contiguous_length(self) -> int:
        return self._hints.contiguous_length

    @property
    def remote_contiguous_length(self) -> int:
        """The longest prefix of the log that some peer has said to have, now or earlier."""
        return min(self._hints.remote_contiguous_length, self.head.length)

    def note_remote_contiguous(self, length: int) -> None:
        """Some peer has said to have blocks [0, length) of this fork; `length` may be beyond ours.

        Written when it has become all of our log, so at most once for each length that this has;
        any other waits for the next commit that moves our own contiguous length.
        Raises: StorageFailed.
        """
        before = self.remote_contiguous_length
        if length <= self._hints.remote_contiguous_length:
            return
        self._hints = replace(self._hints, remote_contiguous_length=length)
        if before < self.head.length <= length and not self._storage.is_read_only:
            batch = self._storage.batch()
            self.rows.stage_hints(batch, self._hints)
            self._storage.commit(batch)

    @property
    def durable_length(self) -> int:
        """How much of our own log survives what the store's durability promises.

        Of a log that others write it is the length: what is lost can be fetched again, and
        nobody signs another history in its place.
        """
        pending = self._pending
        if not pending:
            return self.head.length
        durable = self._storage.durable_sequence
        while pending and pending[0][0] <= durable:
            self._durable_length = pending.popleft()[1]
        return min(self._durable_length, self.head.length) if pending else self.head.length

    def sequence_of(self, length: int) -> int:
        """The commit that must be durable for `length` to be."""
        for sequence, committed in self._pending:
            if committed >= length:
                return sequence
        return self.sequence

    def _repair(self, rebuilt: Sequence[MerkleNode]) -> None:
        """Put right what can be told from the rest: roots, bits beyond the end, hints."""
        beyond = self._clear_bits_beyond()
        contiguous = min(self.bitfield.first_unset(0), self.head.length)
        is_right = contiguous == self._hints.contiguous_length and not rebuilt and not beyond
        self._hints = self._hints.moved(contiguous)
        if is_right or self._storage.is_read_only:
            return
        batch = self._storage.batch()
        self.rows.stage_nodes(batch, rebuilt)
        for page in beyond:
            self.rows.stage_page(batch, self.bitfield, page)
        self.rows.stage_hints(batch, self._hints)
        self._storage.commit(batch)

    def _clear_bits_beyond(self) -> list[int]:
        """Bits at or beyond the end, which would come true with the next blocks; their pages."""
        length = self.head.length
        pages = self.bitfield.pages()
        if not pages or self.bitfield.first_set(length, (pages[-1] + 1) * PAGE_BITS) is None:
            return []
        beyond = [page for page in pages if (page + 1) * PAGE_BITS > length]
        for page in beyond:
            first = max(length, page * PAGE_BITS)
            self.bitfield.set_range(first, (page + 1) * PAGE_BITS, False)
        return beyond

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

    def read_node(self, index: int) -> MerkleNode | None:
        """A stored tree node, or one over stored blocks; None for one that is damaged.

        A damaged one is made anew from what lies below it, as far as that is here.
        Raises: CorruptStorage for blocks that are not those that were signed.
        """
        node = self._nodes.get(index)
        if node is None:
            try:
                node = self.rows.read_node(index)
            except CorruptStorage:
                node = rebuilt_node(self, index)
            node = node or self._rebuild(index)
            if node is not None:
                if len(self._nodes) >= _CACHED_NODES:
                    for oldest in list(islice(self._nodes, _CACHED_NODES // 4)):
                        del self._nodes[oldest]
                self._nodes[index] = node
        return node

    def _rebuild(self, index: int) -> MerkleNode | None:
        # JavaScript, clearing a block, deletes its neighbor's leaf as well, or larger subtrees,
        # and can then no longer prove the neighbor.
        # Nearly always asked for where blocks are about to come: the first one tells.
        start = (index & (index + 1)) >> 1
        if not self.bitfield.get(start):
            return None
        stop = flat_tree.right_span(index) // 2 + 1
        if not self.bitfield.has_range(start, stop):
            return None
        try:
            node = self.rows.rebuild(index)
            parent = self.rows.read_node(flat_tree.parent(index))
            sibling = self.rows.read_node(flat_tree.sibling(index))
        except CorruptStorage:
            return None
        if node is not None and parent is not None and sibling is not None:
            left, right = sorted((node, sibling))
            if parent_node(left, right) != parent:
                where = f"blocks [{start}, {stop}) of core {self.discovery_key.hex()}"
                raise CorruptStorage(where, "not what was signed")
        return node

    def sign(self, head: Head) -> bytes:
        if self.verifier is None or self.key_pair is None:
            raise NotWritable("this core's secret key is not here")
        return self.verifier.sign(head, self.key_pair)

    def check_writable(self) -> None:
        """Raises: NotWritable, StorageFailed."""
        self.check_usable()
        if not self.is_writable:
            if (error := self.frozen_error) is not None:
                raise error
            reason = self._storage.why_read_only or "this core's secret key is not here"
            raise NotWritable(reason)
        if self._hints.recovering:
            self._refuse_recovering()

    def _refuse_recovering(self) -> NoReturn:
        raise StorageError(
            "the store lost its write-ahead log; what peers have of this core must be "
            "fetched before anything is appended"
        )

    def append(self, blocks: Sequence[bytes], local: LocalRows | None = None) -> int:
        """Sign and write `blocks` (as they are to be stored) and `local`, in one batch.

        Returns the index of the first block. Raises: NotWritable, CoreFrozen, StorageFailed.
        """
        self.check_writable()
        start = self.head.length
        self.commit((log.append(self.head, blocks, self.sign),), local)
        return start

    def truncate(self, length: int, fork: int | None = None) -> Changeset:
        """Cut the log back, as a new fork; returns what was committed.

        Raises: as `append`, and PrunedHistory.
        """
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
        """`blocks`, as they are to be stored, at the end. Raises: UsageError."""
        return propose_append(self.head, blocks, self.verifier)

    def propose_truncation(self, length: int, fork: int | None = None) -> Proposal:
        """Raises: UsageError, PrunedHistory, CorruptStorage."""
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

        Returns what was committed. Raises: InvalidSignature, NotWritable, StorageFailed.
        """
        if signature is not None and key_pair is not None:
            raise UsageError("a signature and a key pair exclude one another")
        self.check_usable()
        if self._storage.is_read_only:
            raise NotWritable(self._storage.why_read_only or "the store is read-only")
        if self._hints.recovering:
            self._refuse_recovering()
        if signature is None:
            changes = proposal.signed_by(key_pair or self.key_pair)
        else:
            changes = proposal.signed(signature)
        length = self.head.length
        is_noted = self.is_writable
        self.commit((changes,), local)
        if not is_noted:
            # Whoever signs elsewhere goes by what we show: nobody is to see what a power cut
            # could take back, or another log of this length would be signed after it.
            self._note_pending(self.head.length, self.sequence, length)
        return changes

    def clear(self, runs: Sequence[tuple[int, int]], local: LocalRows | None = None) -> None:
        """Remove the blocks of these runs [start, stop), and write `local`, in one batch.

        Their tree nodes stay: they prove the others. Raises: StorageFailed.
        """
        self.check_usable()
        rows = checked_rows(local)
        batch = self._storage.batch()
        try:
            self.stage_clearing(batch, runs)
            self.stage_local(batch, rows)
            self.sequence = self._storage.commit(batch)
        except BaseException as error:
            self.poison(error)
            raise

    def stage_clearing(self, batch: WriteBatch, runs: Sequence[tuple[int, int]]) -> None:
        """Put the removal of these runs into a batch that must be committed next."""
        touched: set[int] = set()
        for start, stop in runs:
            self.rows.stage_clearing(batch, start, stop)
            self.bitfield.set_range(start, stop, False)
            touched.update(pages_of(start, stop))
        for page in touched:
            self.rows.stage_page(batch, self.bitfield, page)
        first = min((start for start, _ in runs), default=self._hints.contiguous_length)
        if first < self._hints.contiguous_length:
            self._hints = self._hints.moved(first)
            self.rows.stage_hints(batch, self._hints)

    def restore(self, nodes: Sequence[MerkleNode], blocks: Sequence[int]) -> None:
        """Put tree nodes that were lost, and mark blocks that are here. Raises: StorageFailed."""
        self.check_usable()
        batch = self._storage.batch()
        try:
            self.rows.stage_nodes(batch, nodes)
            for index in blocks:
                self.bitfield.set_range(index, index + 1)
            for page in {page for index in blocks for page in pages_of(index, index + 1)}:
                self.rows.stage_page(batch, self.bitfield, page)
            self._stage_hints(batch, self._hints, self.head.length)
            self.sequence = self._storage.commit(batch)
        except BaseException as error:
            self.poison(error)
            raise
        self._nodes.clear()

    def forget_node(self, index: int) -> None:
        """Delete a tree node that cannot be read. Raises: StorageFailed."""
        self.check_usable()
        batch = self._storage.batch()
        batch.delete(self.rows.keys.node(index))
        self.sequence = self._storage.commit(batch)
        self._nodes.clear()

    def prune(self, tops: Iterable[int]) -> None:
        """Remove all tree nodes below these. Raises: StorageFailed."""
        self.check_usable()
        batch = self._storage.batch()
        try:
            for top in tops:
                self.rows.stage_pruning(batch, top)
            self.sequence = self._storage.commit(batch)
        except BaseException as error:
            self.poison(error)
            raise
        self._nodes.clear()

    def commit(self, changesets: Sequence[Changeset], local: LocalRows | None = None) -> None:
        """Write all of it in one batch, then make it the state.

        Not synced. Raises: StorageFailed, and then for every later commit.
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

        Bits and hints change at once, the head does not: who commits the batch is to `settle`
        the log then, and who fails to must `poison` it.
        """
        head = self.head
        touched: set[int] = set()
        hints = self._hints
        for changes in changesets:
            if changes.truncated_to is not None:
                hints = self._stage_truncation(batch, changes.truncated_to, head, hints)
                touched.update(pages_of(changes.truncated_to, head.length))
            if changes.manifest is not None and self._auth.manifest is None:
                self._learn_manifest(batch, changes.manifest)
            self.rows.stage_changes(batch, changes)
            touched.update(self._mark(changes.blocks))
            head = changes.head or head
        for page in touched:
            self.rows.stage_page(batch, self.bitfield, page)
        if head is not self.head:
            self.rows.stage_head(batch, head)
        self._stage_hints(batch, hints, head.length)
        return head

    def poison(self, error: BaseException) -> None:
        """Refuse every later write: nobody knows what reached the disk.

        What was staged in memory is taken back, as far as it is not there.
        """
        self._failure = StorageFailed(f"a write to this core failed: {error}")
        with suppress(StorageError):
            self.bitfield.become(self.rows.load_bitfield())
            self._hints = self._hints.moved(min(self.bitfield.first_unset(0), self.head.length))
            self._nodes.clear()

    def _mark(self, blocks: Sequence[tuple[int, bytes]]) -> range | set[int]:
        """Set the bits of these blocks, which come in any order; returns the pages."""
        if not blocks:
            return range(0)
        indices = [index for index, _ in blocks]
        start, stop = indices[0], indices[0] + len(indices)
        if indices == list(range(start, stop)):
            self.bitfield.set_range(start, stop)
            return pages_of(start, stop)
        for index in indices:
            self.bitfield.set_range(index, index + 1)
        return {page for index in indices for page in pages_of(index, index + 1)}

    def _stage_truncation(self, batch: WriteBatch, length: int, head: Head, hints: Hints) -> Hints:
        self.rows.stage_truncation(batch, length, head.length)
        self.bitfield.set_range(length, head.length, False)
        self._nodes.clear()
        if length >= max(hints.contiguous_length, hints.remote_contiguous_length):
            return hints
        return replace(
            hints,
            contiguous_length=min(hints.contiguous_length, length),
            remote_contiguous_length=min(hints.remote_contiguous_length, length),
        )

    def _stage_hints(self, batch: WriteBatch, hints: Hints, length: int) -> None:
        contiguous = hints.contiguous_length
        if contiguous < length and self.bitfield.get(contiguous):
            contiguous = min(self.bitfield.first_unset(contiguous), length)
            hints = hints.moved(contiguous)
        if hints is not self._hints:
            self.rows.stage_hints(batch, hints)
            self._hints = hints

    def set_manifest(self, manifest: Manifest) -> None:
        """Store it; it must be the one that the key stands for. Raises: StorageFailed."""
        self.commit((Changeset(manifest=manifest),))

    def _learn_manifest(self, batch: WriteBatch, manifest: Manifest) -> None:
        self.verifier = make_verifier(self.key, manifest, 0)
        self._auth = replace(self._auth, manifest=manifest)
        self.rows.stage_auth(batch, self._auth)

    def stage_local(self, batch: WriteBatch, rows: LocalRows) -> None:
        for key, value in rows.items():
            if value is None:
                batch.delete(self.rows.keys.local(key))
            else:
                batch.put(self.rows.keys.local(key), value)

    def settle(self, head: Head, sequence: int) -> None:
        """What was staged is committed, with this sequence: make its head the state."""
        self.sequence = sequence
        if self.is_writable and head is not self.head:
            self._note_pending(head.length, sequence, self.head.length)
        is_group_told = self.rows.group is not None and head is not self.head
        self.head = head
        if not self.is_writable and self.key_pair is not None:
            self.is_writable = self._may_write()
        if is_group_told and self.on_group_update is not None:
            self.on_group_update(self)

    def _note_pending(self, length: int, sequence: int, length_before: int) -> None:
        pending = self._pending
        if not pending:
            if sequence <= self._storage.durable_sequence:
                return
            self._durable_length = length_before
        elif len(pending) == _MAX_PENDING:
            pending.pop()
        pending.append((sequence, length))

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

    def stage_user_data(self, batch: WriteBatch, rows: Mapping[str, bytes | None]) -> None:
        for key, value in rows.items():
            if value is None:
                batch.delete(self.rows.keys.user_data(key))
            else:
                batch.put(self.rows.keys.user_data(key), value)


def checked_rows(local: LocalRows | None) -> LocalRows:
    """Raises: UsageError for a key that is too long."""
    if local is None:
        return {}
    for key in local:
        if len(key) > MAX_LOCAL_KEY_BYTES:
            raise UsageError(f"a local key of {len(key)} bytes, at most {MAX_LOCAL_KEY_BYTES}")
    return local
