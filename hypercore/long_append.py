"""[trio] An append of very many blocks that come in pieces, between which others run.

Hashing 100,000 blocks and encoding their rows takes most of a second. It is one commit all the
same: after a crash all of them are there or none, and until then nobody sees any. The rows wait
in memory; what remains to be done in one step is to hand them to the database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypercore import log
from hypercore.draft import DraftOutcome
from hypercore.encryption import BlockEncryption, encrypt_all
from hypercore.errors import UsageError
from hypercore.log import Changeset, Head
from hypercore.open_log import OpenLog, check_sizes
from hypercore.stored_log import LocalRows, StoredLog, checked_rows


class _Rows:
    """Rows to be written. Unlike a native batch they hold nothing of the database meanwhile."""

    def __init__(self) -> None:
        # Not a pair for each row: those the garbage collector would have to go through.
        self.keys: list[bytes] = []
        self.values: list[bytes] = []

    def put(self, key: bytes, value: bytes, /) -> None:
        self.keys.append(key)
        self.values.append(value)


class LongAppend:
    """Blocks for the end of one log, whose writer's lock is held meanwhile. Nothing waits."""

    def __init__(self, stored: StoredLog, cipher: BlockEncryption | None) -> None:
        """Raises: NotWritable, StorageFailed."""
        stored.check_writable()
        self._log = stored
        self._cipher = cipher
        self._base = self._head = stored.head
        self._rows: deque[_Rows] = deque()

    @property
    def count(self) -> int:
        """Blocks so far."""
        return self._head.length - self._base.length

    def add(self, blocks: Sequence[bytes]) -> None:
        """Put these after the others. Raises: BlockTooLarge."""
        check_sizes(blocks)
        start = self._head
        if self._cipher is not None:
            blocks = encrypt_all(self._cipher, blocks, start.length, start.fork)
        changes = log.append(start, blocks, _unsigned)
        rows = _Rows()
        self._log.rows.stage_changes(rows, changes)
        self._rows.append(rows)
        self._head = changes.head or start

    def commit(self, local: LocalRows | None) -> None:
        """Sign the head, and make all of it true together with `local` rows.

        Raises: UsageError when somebody changed the log without its lock, NotWritable,
        StorageFailed; nothing was appended then.
        """
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
        batch = storage.batch()
        try:
            while self._rows:  # each piece goes as the database has it
                rows = self._rows.popleft()
                deque(map(batch.put, rows.keys, rows.values), maxlen=0)
            stored.stage(batch, (written,))
            stored.stage_local(batch, local)
            stored.settle(head, storage.commit(batch))
        except BaseException as error:
            stored.poison(error)
            raise


async def append_pieces(
    shared: OpenLog, pieces: Iterable[Sequence[bytes]], local: LocalRows | None
) -> int:
    """As `Core.append_pieces`, with the writer's lock held."""
    stored = shared.log
    start = stored.head.length
    if not stored.is_writable:  # it takes the signature of more than its own key
        return shared.append([block for piece in pieces for block in piece], local)
    append = LongAppend(stored, shared.cipher)
    for piece in pieces:
        append.add(piece)
        await shared.pause()
    append.commit(local)
    shared.draft_settled(DraftOutcome(is_head_changed=True, appended=append.count, cleared=()))
    return start


def _unsigned(head: Head) -> bytes:
    return b""  # signed once, when all blocks are there
