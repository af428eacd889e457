"""What can go wrong with a log, told by whose fault it is.

HypercoreError
  UsageError             you called it wrong
  RemoteProtocolError    the peer broke the rules: drop it
  StorageError           the disk: stop trusting this core
  BlockNotAvailable      not here, and nobody has it (yet)
"""

from __future__ import annotations


class HypercoreError(Exception):
    """Base of everything this package raises on purpose."""


class UsageError(HypercoreError):
    """The caller's fault; nothing was changed."""


class NotWritable(UsageError, RuntimeError):
    """An append to a core whose secret key is not here."""


class OutOfRange(UsageError, IndexError):
    """A block number outside [0, length)."""

    def __init__(self, index: int, length: int) -> None:
        super().__init__(f"block {index} is outside [0, {length})")
        self.index = index
        self.length = length


class StoreLocked(UsageError, RuntimeError):
    """Somebody else has this directory open; `holder` says who, as far as known."""

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(f"{path} is in use by {holder}: stop it first, or open another directory")
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


class StorageError(HypercoreError):
    """The disk's fault: this core is not to be trusted until it is opened again."""


class CorruptStorage(StorageError):
    """Damage that is not a torn tail: `where` names the record."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class DamagedBlock(CorruptStorage):
    """A block of which the disk has lost the bytes. All others are still to be had.

    Of somebody else's core it can be fetched again: `Core.repair`.
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
