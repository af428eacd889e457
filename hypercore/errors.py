"""What can go wrong with a log, told by whose fault it is.

HypercoreError
  UsageError             you called it wrong
  RemoteProtocolError    the peer broke the rules: drop it
  StorageError           the disk: stop trusting this core
  CoreFrozen             the writer's fault: two histories under one key
  BlockNotAvailable      not here, and nobody has it (yet)
  UndecodableBlock       not in the encoding it was read with
"""

from __future__ import annotations


class HypercoreError(Exception):
    """Base of everything this package raises on purpose."""


class UsageError(HypercoreError):
    """The caller's fault; nothing was changed."""


class NotWritable(UsageError, RuntimeError):
    """A write without the secret key that it needs, or where nothing may be written."""


class InvalidManifest(UsageError, ValueError):
    """What is no manifest, or not the one that a core's key stands for."""


class OutOfRange(UsageError, IndexError):
    """A number outside [0, length): of a block, or of a byte."""

    def __init__(self, index: int, length: int, what: str = "block") -> None:
        super().__init__(f"{what} {index} is outside [0, {length})")
        self.index = index
        self.length = length


class BlockTooLarge(UsageError, ValueError):
    """A block that no peer would take: over `MAX_BLOCK_BYTES`."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a block of {size} bytes, at most {limit}: append it in pieces")
        self.size = size
        self.limit = limit


class WrongEncryptionKey(UsageError):
    """A block that was not encrypted with the key that the core was opened with."""

    def __init__(self, index: int) -> None:
        super().__init__(f"block {index} was not encrypted with this key")
        self.index = index


class PrunedHistory(UsageError):
    """A cut to a length that nothing here proves any more: its tree nodes were pruned."""

    def __init__(self, length: int, index: int) -> None:
        super().__init__(
            f"cannot truncate to {length} blocks: tree node {index}, a root of that length, was "
            "pruned with the cleared blocks below it"
        )
        self.length = length
        self.index = index


class NoSuchCore(UsageError, LookupError):
    """A core that is not stored here, and was not to be made."""


class StoreSuspended(UsageError, RuntimeError):
    """The store gave its files back for a while; nothing was read or written."""

    def __init__(self) -> None:
        super().__init__("the store is suspended: resume it first")


class StoreLocked(UsageError, RuntimeError):
    """Somebody else has this directory open; `holder` says who, as far as known."""

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(f"{path} is in use by {holder}: stop it first, or name another place")
        self.path = path
        self.holder = holder


class RemoteProtocolError(HypercoreError):
    """A peer broke the rules. Its connection or channel ends; nothing of it was kept."""


class MalformedMessage(RemoteProtocolError):
    """Bytes from a peer that are no message."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"malformed {what} (byte {offset})")
        self.offset = offset


class InvalidProof(RemoteProtocolError):
    """Blocks or nodes that do not hash to what is known, or a proof of the wrong shape."""

    def __init__(
        self, reason: str, index: int = -1, expected: bytes = b"", actual: bytes = b""
    ) -> None:
        detail = f" at tree node {index}" if index >= 0 else ""
        if expected or actual:
            detail += f": expected {expected.hex()[:16] or '-'}, got {actual.hex()[:16] or '-'}"
        super().__init__(reason + detail)
        self.index = index
        self.expected = expected
        self.actual = actual


class InvalidSignature(RemoteProtocolError):
    """A head that its signers did not sign."""


class InvalidCapability(RemoteProtocolError):
    """A peer that opened a core without knowing its key."""


class CoreFrozen(HypercoreError):
    """The core's writer signed histories that contradict each other: nobody goes on from there.

    What is held can still be read; the core's `fork_proof` is the evidence.
    """

    def __init__(self, key: bytes, reason: str) -> None:
        super().__init__(f"core {key.hex()[:16]} is frozen: its writer signed {reason}")
        self.key = key


class StorageError(HypercoreError):
    """The disk's fault: this core is not to be trusted until it is opened again."""


class CoreRecovering(StorageError):
    """Our own core, whose newest blocks may have been lost with a part of the store.

    It takes no more until peers have said that they know no newer ones: see `Core.recover`.
    """

    def __init__(self, discovery_key: bytes) -> None:
        super().__init__(
            f"core {discovery_key.hex()[:16]}: its newest blocks may have been lost, and it takes "
            "no more until its peers have told how long it was"
        )
        self.discovery_key = discovery_key


class CorruptStorage(StorageError):
    """Damage that is not a torn tail: `where` names the record."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class CopiedStore(CorruptStorage):
    """A directory that is not where it was made: it may be read, and not written to."""


class DamagedBlock(CorruptStorage):
    """A block whose bytes the disk has lost. All others can still be read.

    If the core is somebody else's, the block can be fetched again: `Core.repair`.
    """

    def __init__(self, index: int, core: str, reason: str) -> None:
        super().__init__(f"block {index} of {core}", reason)
        self.index = index


class StorageFailed(StorageError):
    """A write or a sync failed; what reached the disk is unknown until reopened."""


class BlockNotAvailable(HypercoreError):
    """The block is not stored here (and, if asked for, no connected peer has it)."""

    def __init__(self, index: int) -> None:
        super().__init__(f"block {index} is not available")
        self.index = index


class SnapshotNotAvailable(BlockNotAvailable):
    """The log was truncated below a block that was asked for before, and it was not stored here.

    Another history goes on in its place; `length` is how much of the old one is left.
    """

    def __init__(self, index: int, length: int) -> None:
        super().__init__(index)
        self.args = (f"block {index} is gone: the log was truncated to {length} blocks",)
        self.length = length


class UndecodableBlock(HypercoreError, ValueError):
    """A block that is not in the encoding it was read with; its writer's fault, or ours."""
