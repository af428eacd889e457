"""Changes of one log that are not true yet: part of a commit that spans several logs.

A draft reads as the log will be. Nothing of it is in the log, on the disk or told to anybody
before all drafts of an atom are committed together (`atom`).

Source: hypercore 11.37.1, sessions with an atom (lib/session-state.js); hypercore-storage 3.3.1
lib/atom.js.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hypercore import flat_tree, log
from hypercore.encryption import BlockEncryption
from hypercore.errors import OutOfRange, UsageError
from hypercore.given_blocks import check_cut, check_numbers, given_blocks
from hypercore.given_rows import LocalRows, checked_rows, checked_user_data
from hypercore.log import Changeset, Head, stale_nodes
from hypercore.merkle import MerkleNode
from hypercore.proposal import check_truncation
from hypercore.pruning import check_roots
from hypercore.storage import WriteBatch
from hypercore.stored_log import StoredLog
from hypercore.verifier import Verifier


@dataclass(frozen=True, slots=True)
class DraftOutcome:
    """What a committed draft did that others are told of."""

    is_head_changed: bool
    appended: int
    """How many blocks."""
    cleared: tuple[tuple[int, int], ...]
    """Runs [start, stop)."""


class Draft:
    """One log as it will be. Plain calls throughout: nothing here waits or touches the disk.

    Made by `Atom`. What was appended stays in memory until the atom is committed.
    """

    def __init__(
        self,
        log: StoredLog,
        cipher: BlockEncryption | None,
        read_block: Callable[[int], bytes | None],
        check_open: Callable[[], None] = lambda: None,
        check_writable: Callable[[], None] = lambda: None,
    ) -> None:
        """`read_block` gives the log's own blocks, decrypted; `check_open` raises once closed.

        A closed log may be open anew, as another object with another head, or be gone.
        `check_writable` raises where the user may only read.
        """
        self._log = log
        self._check_open = check_open
        self._may_write = check_writable
        self._cipher = cipher
        self._read_block = read_block
        self._is_over = False
        self._begin()

    def _begin(self) -> None:
        self._base = self._head = self._log.head
        self._kept_length = self._head.length  # blocks below are those of the log
        self._changes: list[Changeset] = []
        self._blocks: dict[int, bytes] = {}
        self._nodes: dict[int, MerkleNode] = {}
        self._cleared: list[tuple[int, int]] = []
        self._local: dict[bytes, bytes | None] = {}
        self._user_data: dict[str, bytes | None] = {}

    # --- what it will be ------------------------------------------------------------------------

    @property
    def length(self) -> int:
        return self._head.length

    @property
    def byte_length(self) -> int:
        """Bytes of all blocks, without encryption's padding."""
        padding = 0 if self._cipher is None else self._cipher.padding
        return self._head.byte_length - padding * self._head.length

    @property
    def fork(self) -> int:
        return self._head.fork

    def has(self, index: int) -> bool:
        """Whether the block is here, or about to be."""
        if index in self._blocks:
            return not self._is_cleared(index)
        return (
            0 <= index < self._kept_length
            and self._log.bitfield.get(index)
            and not self._is_cleared(index)
        )

    def _is_cleared(self, index: int) -> bool:
        return any(start <= index < stop for start, stop in self._cleared)

    def get_local(self, index: int) -> bytes | None:
        """The block if it is here, or about to be.

        Raises: OutOfRange, CorruptStorage.
        """
        if not 0 <= index < self.length:
            raise OutOfRange(index, self.length)
        if not self.has(index):
            return None
        block = self._blocks.get(index)
        if block is None:
            return self._read_block(index)
        return block if self._cipher is None else self._cipher.decrypt(index, block)

    def get_local_value(self, key: bytes) -> bytes | None:
        return self._local[key] if key in self._local else self._log.local_value(key)

    def get_user_data(self, key: str) -> bytes | None:
        return self._user_data[key] if key in self._user_data else self._log.user_data(key)

    # --- changing it ----------------------------------------------------------------------------

    def append(self, blocks: bytes | Sequence[bytes]) -> int:
        """Put blocks at the end; returns the index of the first.

        Raises: NotWritable, CoreFrozen, BlockTooLarge.
        """
        self._check_writable()
        start = self._head.length
        appended = given_blocks(blocks)
        cipher = self._cipher
        if cipher is not None:
            fork = self._head.fork
            appended = [
                cipher.encrypt(index, fork, block) for index, block in enumerate(appended, start)
            ]
        if appended:
            self._add(log.append(self._head, appended, _unsigned))
        return start

    def truncate(self, length: int, fork: int | None = None) -> None:
        """Give up all blocks from `length` on. `fork` is by default the next one.

        Raises: as `Core.truncate`.
        """
        check_cut(length, fork)
        check_truncation(length, self._check_writable())
        if 0 <= length < self._kept_length:
            check_roots(length, self._log.bitfield, self._read_node)
        fork = self._head.fork + 1 if fork is None else fork
        changes = log.truncate(self._head, length, fork, self._read_node, _unsigned)
        self._kept_length = min(self._kept_length, length)
        self._blocks = {index: block for index, block in self._blocks.items() if index < length}
        stale = set(stale_nodes(length))
        self._nodes = {
            index: node
            for index, node in self._nodes.items()
            if index < 2 * length and index not in stale
        }
        self._cleared = [
            (start, min(stop, length)) for start, stop in self._cleared if start < length
        ]
        self._add(changes)

    def clear(self, start: int, stop: int) -> None:
        """Free the room of blocks [start, stop). Raises: OutOfRange, TypeError."""
        self._check_going_on()
        check_numbers("the index of a block", start, stop)
        if not 0 <= start <= stop <= self.length:
            raise OutOfRange(start if start < 0 else stop, self.length)
        if start < stop:
            self._cleared.append((start, stop))

    def write_local(self, rows: LocalRows) -> None:
        """Put local rows; None deletes. Raises: UsageError, TypeError for what is not bytes."""
        self._check_going_on()
        self._local.update(checked_rows(rows))

    def set_user_data(self, key: str, value: bytes | None) -> None:
        """Put user data; None deletes. Raises: TypeError for what is not bytes."""
        self._check_going_on()
        self._user_data.update(checked_user_data({key: value}))

    def _check_writable(self) -> Verifier:
        """Raises: as `StoredLog.check_writable`; UsageError when the atom is over."""
        self._check_going_on()
        self._may_write()
        self._log.check_writable()
        assert self._log.verifier is not None
        return self._log.verifier

    def _check_going_on(self) -> None:
        """Raises: UsageError: nobody would commit what comes now."""
        if self._is_over:
            raise UsageError("the atom is over: nothing more becomes a part of it")

    def _add(self, changes: Changeset) -> None:
        assert changes.head is not None
        self._head = changes.head
        self._changes.append(changes)
        self._blocks.update(changes.blocks)
        self._nodes.update((node.index, node) for node in changes.nodes)

    def _read_node(self, index: int) -> MerkleNode | None:
        node = self._nodes.get(index)
        if node is None and flat_tree.right_span(index) < 2 * self._kept_length:
            node = self._log.read_node(index)
        return node

    # --- making it true -------------------------------------------------------------------------

    @property
    def is_changed(self) -> bool:
        return bool(self._changes or self._cleared or self._local or self._user_data)

    def sign(self) -> None:
        """Sign the head that it leads to: the last moment at which anything can be refused.

        Raises: NotWritable, CoreFrozen, StorageFailed, UsageError when the log moved on meanwhile,
        trio.ClosedResourceError when it was closed.
        """
        self._check_open()
        self._log.check_usable()
        if self._log.head is not self._base and (self._changes or self._cleared):
            raise UsageError(
                f"core {self._log.discovery_key.hex()} changed while the atom was open: it had "
                f"{self._base.length} blocks (fork {self._base.fork}), now {self._log.head.length} "
                f"(fork {self._log.head.fork})"
            )
        if self._changes:
            self._check_writable()  # evidence may have come that freezes it
            self._head = replace(self._head, signature=self._log.sign(self._head))
            self._changes[-1].head = self._head

    def stage(self, batch: WriteBatch) -> None:
        """Put all of it into a batch that must be committed next (`StoredLog.stage`)."""
        self._log.stage(batch, self._changes)
        if self._cleared:
            self._log.stage_clearing(batch, self._cleared)
        self._log.stage_local(batch, self._local)
        self._log.stage_user_data(batch, self._user_data)

    def settle(self, sequence: int) -> DraftOutcome:
        """The batch is committed: the log is what the draft was, and the draft begins anew."""
        outcome = DraftOutcome(
            self._head is not self._base,
            len(self._blocks),
            tuple(self._cleared),
        )
        self._log.settle(self._head if self._changes else self._log.head, sequence)
        self._begin()
        return outcome

    def end(self) -> None:
        """The atom is over."""
        self._is_over = True

    def poison(self, error: BaseException) -> None:
        self._log.poison(error)


def _unsigned(head: Head) -> bytes:
    return b""  # signed once, when it is known what the atom leads to
