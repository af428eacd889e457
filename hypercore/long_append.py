"""[trio] An append of very many blocks that come in pieces, between which others run.

Hashing 100,000 blocks and encoding their rows takes most of a second. It is one commit all the
same: after a crash all of them are there or none, and until then nobody sees any. The rows wait
in a batch of the database's own (as objects they took 40 MB more), or on the disk, where those of
100,000 blocks take 110 MB less.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypercore import log
from hypercore.draft import DraftOutcome
from hypercore.encryption import BlockEncryption, encrypt_all
from hypercore.errors import StoreSuspended, UsageError
from hypercore.given_blocks import given_blocks
from hypercore.given_rows import LocalRows, checked_rows
from hypercore.log import Changeset, Head
from hypercore.open_log import OpenLog
from hypercore.stored_log import StoredLog

_MUCH_BYTES = 16 << 20
"""From so many bytes on, the rows wait on the disk. Each such append costs the database a file or
two of those that it merges when there are four; so do 8 MiB of rows written the usual way."""

_PIECE_BYTES = 1 << 20
_ROWS_BYTES = 110
"""About how many bytes are written for a block besides its own."""


class LongAppend:
    """Blocks for the end of one log, whose writer's lock is held meanwhile. Nothing here waits."""

    def __init__(
        self, stored: StoredLog, cipher: BlockEncryption | None, expected_bytes: int = 0
    ) -> None:
        """Raises: NotWritable, StorageFailed."""
        stored.check_writable()
        self._log = stored
        self._cipher = cipher
        self._base = self._head = stored.head
        # A store may still know rows that a cut took; in a first history all rows are new.
        is_much = expected_bytes >= _MUCH_BYTES and not stored.head.fork
        keys = stored.rows.keys
        rising = (keys.blocks()[0], keys.nodes()[0]) if is_much else ()
        self._batch = stored.rows.storage.lasting_batch(rising)
        self._unsettled_bytes = 0

    @property
    def count(self) -> int:
        """Blocks so far."""
        return self._head.length - self._base.length

    def add(self, blocks: Sequence[bytes]) -> None:
        """Put these after the others. Raises: BlockTooLarge, StoreSuspended, StorageFailed."""
        self._check_batch()
        blocks = given_blocks(blocks)
        start = self._head
        if self._cipher is not None:
            blocks = encrypt_all(self._cipher, blocks, start.length, start.fork)
        changes = log.append(start, blocks, _unsigned)
        self._log.rows.stage_changes(self._batch, changes)
        self._head = head = changes.head or start
        self._unsettled_bytes += head.byte_length - start.byte_length + _ROWS_BYTES * len(blocks)
        if self._unsettled_bytes >= _PIECE_BYTES:
            self._unsettled_bytes = 0
            self._batch.settle()

    def commit(self, local: LocalRows | None) -> None:
        """Sign the head, and make all of it true together with `local` rows.

        Raises: UsageError when somebody changed the log without its lock, NotWritable,
        StoreSuspended, StorageFailed; nothing was appended then.
        """
        self._check_batch()
        stored = self._log
        stored.check_writable()
        if stored.head is not self._base:
            raise UsageError(
                f"core {stored.discovery_key.hex()} was changed by somebody who did not hold its "
                f"writer's lock: it had {self._base.length} blocks, now {stored.head.length}"
            )
        local = checked_rows(local)
        head = replace(self._head, signature=stored.sign(self._head))
        written = Changeset(head=head, staged=range(self._base.length, head.length))
        storage = stored.rows.storage
        batch = self._batch
        try:
            stored.stage_head(batch, head, (written,))
            stored.stage_local(batch, local)
            stored.settle(head, storage.commit_lasting(batch))
        except BaseException as error:
            stored.poison(error)
            raise

    def close(self) -> None:
        """Give up what was not committed."""
        self._batch.close()

    def _check_batch(self) -> None:
        """Raises: trio.ClosedResourceError, StoreSuspended."""
        storage = self._log.rows.storage
        if self._batch.is_lost or storage.is_suspended:
            storage.batch()  # says so if it is closed, or still suspended
            raise StoreSuspended


async def append_pieces(
    shared: OpenLog,
    pieces: Iterable[Sequence[bytes]],
    local: LocalRows | None,
    expected_bytes: int,
) -> int:
    """As `Core.append_pieces`, with the writer's lock held."""
    stored = shared.log
    start = stored.head.length
    if not stored.is_writable:  # its own key is not enough to sign it
        return shared.append([block for piece in pieces for block in piece], local)
    append = LongAppend(stored, shared.cipher, expected_bytes)
    try:
        for piece in pieces:
            append.add(piece)
            await shared.pause()
            shared.check_open()  # by now the core may be gone, or open anew as another object
        append.commit(local)
    finally:
        append.close()
    shared.draft_settled(DraftOutcome(is_head_changed=True, appended=append.count, cleared=()))
    return start


def _unsigned(head: Head) -> bytes:
    return b""  # signed once, when all blocks are there
