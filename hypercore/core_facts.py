"""A handle of a log, and the facts about it."""

from __future__ import annotations

from hypercore.bitfield import Bitfield
from hypercore.core_info import CoreInfo, CoreStatistics
from hypercore.crypto import KeyPair
from hypercore.fork_proof import ForkProof
from hypercore.handle import Handle, HandleOwner
from hypercore.log import Head
from hypercore.manifest import Manifest
from hypercore.open_log import OpenLog
from hypercore.replication.forks import StuckFork
from hypercore.replication.session import CoreReplication
from hypercore.storage import Storage
from hypercore.verifier import Verifier


class CoreFacts:
    """What a core is at this moment. Nothing here waits, or reads a block."""

    def __init__(
        self, shared: OpenLog, *, is_weak: bool = False, is_read_only: bool = False
    ) -> None:
        """Raises: trio.ClosedResourceError."""
        self._handle = Handle(shared, is_weak=is_weak, is_read_only=is_read_only)
        self._shared = shared
        self._log = shared.log

    def belong_to(self, owner: HandleOwner) -> None:
        """Close when the owner ends, with the sessions and snapshots made of this core."""
        self._handle.belong_to(owner)

    @property
    def key(self) -> bytes:
        """What a reader needs to open the core; the hash of its manifest."""
        return self._log.key

    @property
    def discovery_key(self) -> bytes:
        return self._log.discovery_key

    @property
    def manifest(self) -> Manifest | None:
        """None until a peer sends it, for a core that was opened by its key."""
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
        """The longest prefix of the log that some peer has claimed to have, now or earlier."""
        return self._log.remote_contiguous_length

    @property
    def durable_length(self) -> int:
        """What may be told to others; see `StoredLog.durable_length`."""
        return max(0, self._log.durable_length)

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
    def is_recovering(self) -> bool:
        """Whether its newest blocks may have been lost with a part of the store: see `recover`."""
        return self._log.is_recovering

    @property
    def fork_proof(self) -> ForkProof | None:
        """The evidence that froze the core, for anyone to check; it stays with the core."""
        return self._log.fork_proof

    @property
    def stuck_fork(self) -> StuckFork | None:
        """The later history to which it cannot follow before blocks are given up by `clear`."""
        return self._shared.replication.stuck_fork

    @property
    def replication(self) -> CoreReplication:
        return self._shared.replication

    def info(self) -> CoreInfo:
        return self._shared.info()

    def statistics(self) -> CoreStatistics:
        """What all users of the log did with it."""
        return self._shared.statistics()
