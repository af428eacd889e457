"""What replication needs of a log, as a structural type; `hypercore.open_log.OpenLog` has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hypercore.bitfield import Bitfield
from hypercore.fork_proof import ForkProof
from hypercore.log import Changeset, Head
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode
from hypercore.verifier import Verifier


class ReplicatedLog(Protocol):
    """A log that peers read from, or that is read from peers."""

    @property
    def key(self) -> bytes: ...
    @property
    def discovery_key(self) -> bytes: ...
    @property
    def manifest(self) -> Manifest | None: ...
    @property
    def verifier(self) -> Verifier | None: ...

    @property
    def is_writable(self) -> bool:
        """Whether appends happen here: then there is nothing to wait for from peers."""
        ...

    @property
    def head(self) -> Head: ...

    @property
    def durable_length(self) -> int:
        """What the disk has of `head`; where syncing is turned off, `head.length`.

        -1 while it has not even the head's fork.
        """
        ...

    @property
    def contiguous_length(self) -> int: ...
    @property
    def bitfield(self) -> Bitfield: ...
    def read_node(self, index: int) -> MerkleNode | None: ...
    def encoded_nodes(self, indices: Sequence[int]) -> list[bytes | None]: ...
    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]: ...

    @property
    def fork_proof(self) -> ForkProof | None:
        """The evidence that the writer signed two histories; then nothing more is asked for."""
        ...

    @property
    def takes_more(self) -> bool:
        """Whether anything can be added: not to a frozen log, nor in a read-only store.

        If not, nothing is asked for.
        """
        ...

    def mark_frozen(self, proof: ForkProof) -> None:
        """Keep verified evidence about this core and fork."""
        ...

    def commit(self, changesets: Sequence[Changeset]) -> None:
        """Write all of it in one batch (not synced), then make it the state of the log."""
        ...

    def note_remote_contiguous(self, length: int) -> None:
        """Some peer has blocks [0, length) of this fork; kept with the log, as a hint."""
        ...
