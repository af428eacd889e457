"""One log and its storage: the state that appends and commits change, without any waiting.

The one commit point: a batch is staged, written, and only then the head is swapped. A crash
before the write leaves none of it, after it all of it. A failure in between poisons the log: it
never guesses what reached the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from hypercore import log
from hypercore.bitfield import Bitfield, pages_of
from hypercore.crypto import KeyPair
from hypercore.errors import CorruptStorage, NotWritable, StorageError, StorageFailed, UsageError
from hypercore.log import Changeset, Head
from hypercore.manifest import Manifest, Verifier
from hypercore.merkle import MerkleNode, leaf_node
from hypercore.repair import rebuilt_node
from hypercore.storage import Storage, WriteBatch
from hypercore.storage.core_storage import CoreStorage, make_verifier
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
        stored = rows.load()
        self.rows = rows
        self.key = stored.auth.key
        self.discovery_key = rows.discovery_key
        self.head: Head = stored.head
        self.bitfield: Bitfield = stored.bitfield
        self.verifier: Verifier | None = stored.verifier
        self.key_pair = stored.auth.key_pair or key_pair
        self.sequence = 0
        """The storage's sequence number of the last commit; 0 when all is older than this."""
        self._auth = stored.auth
        self._hints = stored.hints
        self._storage: Storage = rows.storage
        self._failure: StorageError | None = None
        self._nodes: dict[int, MerkleNode] = {}
        self._durable_length = self.head.length
        self._pending: deque[tuple[int, int]] = deque()
        self._repair_hints()
        self.is_writable = self._may_write()

    @property
    def manifest(self) -> Manifest | None:
        return self._auth.manifest

    @property
    def contiguous_length(self) -> int:
        return self._hints.contiguous_length

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

    def _repair_hints(self) -> None:
        contiguous = min(self.bitfield.first_unset(0), self.head.length)
        if contiguous == self._hints.contiguous_length:
            return
        self._hints = self._hints.moved(contiguous)
        if not self._storage.is_read_only:
            batch = self._storage.batch()
            self.rows.stage_hints(batch, self._hints)
            self._storage.commit(batch)

    def _may_write(self) -> bool:
        if self.key_pair is None or self.verifier is None or self._storage.is_read_only:
            return False
        manifest = self.verifier.manifest
        return manifest.quorum == 1 and any(
            signer.public_key == self.key_pair.public_key for signer in manifest.signers
        )

    def reload(self) -> None:
        """The storage has recovered from a failure: take what is on the disk for what is.

        Raises: CorruptStorage, StorageError.
        """
        stored = self.rows.load()
        self.head = stored.head
        self.bitfield = stored.bitfield
        self.verifier = stored.verifier
        self._auth = stored.auth
        self._hints = stored.hints
        self._nodes.clear()
        self._pending.clear()
        self._durable_length = stored.head.length
        self._failure = None
        self._repair_hints()
        self.is_writable = self._may_write()

    def _fail(self, error: BaseException) -> None:
        """Nothing is written any more. What was staged in memory is not on the disk."""
        self._failure = StorageFailed(f"a write to this core failed: {error}")
        with suppress(StorageError):
            self.bitfield = self.rows.load_bitfield()
            self._hints = self._hints.moved(min(self.bitfield.first_unset(0), self.head.length))
            self._nodes.clear()

    def check_usable(self) -> None:
        """Raises: StorageFailed after a failed write."""
        if self._failure is not None:
            raise StorageFailed(str(self._failure)) from self._failure

    def read_node(self, index: int) -> MerkleNode | None:
        """A stored tree node, or the leaf of a stored block; None for one that is damaged.

        A damaged one is made anew from what lies below it, as far as that is here.
        """
        node = self._nodes.get(index)
        if node is None:
            try:
                node = self.rows.read_node(index) or self._leaf(index)
            except CorruptStorage:
                node = rebuilt_node(self, index)
            if node is not None:
                if len(self._nodes) >= _CACHED_NODES:
                    for oldest in list(islice(self._nodes, _CACHED_NODES // 4)):
                        del self._nodes[oldest]
                self._nodes[index] = node
        return node

    def _leaf(self, index: int) -> MerkleNode | None:
        # JavaScript, clearing a block, deletes its neighbor's leaf as well and can then no longer
        # prove the neighbor.
        if index & 1 or not self.bitfield.get(index >> 1):
            return None
        block = self.rows.read_block(index >> 1)
        return None if block is None else leaf_node(index >> 1, block)

    def _sign(self, head: Head) -> bytes:
        if self.verifier is None or self.key_pair is None:
            raise NotWritable("this core's secret key is not here")
        return self.verifier.sign(head, self.key_pair)

    def _check_writable(self) -> None:
        self.check_usable()
        if not self.is_writable:
            raise NotWritable("this core's secret key is not here, or the store is read-only")
        if self._hints.recovering:
            raise StorageError(
                "the store lost its write-ahead log; what peers have of this core must be "
                "fetched before anything is appended"
            )

    def append(self, blocks: Sequence[bytes], local: LocalRows | None = None) -> int:
        """Sign and write `blocks` (as they are to be stored) and `local`, in one batch.

        Returns the index of the first block. Raises: NotWritable, StorageFailed.
        """
        self._check_writable()
        start = self.head.length
        self.commit((log.append(self.head, blocks, self._sign),), local)
        return start

    def truncate(self, length: int, fork: int | None = None) -> Changeset:
        """Cut the log back, as a new fork; returns what was committed. Raises: as `append`."""
        self._check_writable()
        changes = log.truncate(
            self.head,
            length,
            self.head.fork + 1 if fork is None else fork,
            self.read_node,
            self._sign,
        )
        self.commit((changes,))
        return changes

    def clear(self, runs: Sequence[tuple[int, int]], local: LocalRows | None = None) -> None:
        """Remove the blocks of these runs [start, stop), and write `local`, in one batch.

        Their tree nodes stay: they prove the others. Raises: StorageFailed.
        """
        self.check_usable()
        rows = _checked(local)
        try:
            batch = self._storage.batch()
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
            for key, value in rows.items():
                self._stage_local(batch, key, value)
            self.sequence = self._storage.commit(batch)
        except BaseException as error:
            self._fail(error)
            raise

    def restore(self, nodes: Sequence[MerkleNode], blocks: Sequence[int]) -> None:
        """Put tree nodes that were lost, and mark blocks that are here. Raises: StorageFailed."""
        self.check_usable()
        try:
            batch = self._storage.batch()
            self.rows.stage_changes(batch, Changeset(nodes=list(nodes)))
            for index in blocks:
                self.bitfield.set_range(index, index + 1)
            for page in {page for index in blocks for page in pages_of(index, index + 1)}:
                self.rows.stage_page(batch, self.bitfield, page)
            self._stage_hints(batch, self._hints, self.head.length)
            self.sequence = self._storage.commit(batch)
        except BaseException as error:
            self._fail(error)
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
        try:
            batch = self._storage.batch()
            for top in tops:
                self.rows.stage_pruning(batch, top)
            self.sequence = self._storage.commit(batch)
        except BaseException as error:
            self._fail(error)
            raise
        self._nodes.clear()

    def commit(self, changesets: Sequence[Changeset], local: LocalRows | None = None) -> None:
        """Write all of it in one batch, then make it the state.

        Not synced. Raises: StorageFailed, and then for every later commit.
        """
        self.check_usable()
        rows = _checked(local)
        head = self.head
        try:
            batch = self._storage.batch()
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
            for key, value in rows.items():
                self._stage_local(batch, key, value)
            self._swap(head, self._storage.commit(batch))
        except BaseException as error:
            self._fail(error)
            raise

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
        if length >= hints.contiguous_length:
            return hints
        return replace(
            hints,
            contiguous_length=length,
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

    def _learn_manifest(self, batch: WriteBatch, manifest: Manifest) -> None:
        self.verifier = make_verifier(self.key, manifest, 0)
        self._auth = replace(self._auth, manifest=manifest)
        self.rows.stage_auth(batch, self._auth)

    def _stage_local(self, batch: WriteBatch, key: bytes, value: bytes | None) -> None:
        if value is None:
            batch.delete(self.rows.keys.local(key))
        else:
            batch.put(self.rows.keys.local(key), value)

    def _swap(self, head: Head, sequence: int) -> None:
        self.sequence = sequence
        if self.is_writable and head is not self.head:
            self._note_pending(head.length, sequence)
        self.head = head
        if not self.is_writable and self.key_pair is not None:
            self.is_writable = self._may_write()

    def _note_pending(self, length: int, sequence: int) -> None:
        pending = self._pending
        if not pending:
            if sequence <= self._storage.durable_sequence:
                return
            self._durable_length = self.head.length
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
        batch.put(self.rows.keys.user_data(key), value)
        self.sequence = self._storage.commit(batch)


def _checked(local: LocalRows | None) -> LocalRows:
    if local is None:
        return {}
    for key in local:
        if len(key) > MAX_LOCAL_KEY_BYTES:
            raise UsageError(f"a local key of {len(key)} bytes, at most {MAX_LOCAL_KEY_BYTES}")
    return local
