"""Which encryption a core's blocks have: the usual one by a key, or one that the caller brings.

    core = await store.get(name="diary", encryption_key=secret)     # the writer
    core = await store.get(key=key, block_key=secret)               # a reader of this core alone
    core = await store.get(key=key)                                 # a blind peer: ciphertext

The encryption key may serve many cores; what a reader of one of them needs is the block key
derived from it (`derive_block_key`), which tells nothing of the others.

Nothing authenticates a block but the Merkle tree, and that is over the ciphertext. A wrong key
shows in the fork number in a block's padding, which is small under the right key and random under
any other. It is checked once, in the first block that is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hypercore.block_cipher import PADDING, BlockCipher
from hypercore.errors import UsageError, WrongEncryptionKey
from hypercore.given_rows import check_kind
from hypercore.log import Head

_MAX_FORK = 1 << 32
"""A fork up to this, or up to the log's own if that is higher, is taken to be right; a wrong key
passes once in four billion times."""


class BlockEncryption(Protocol):
    """What a core needs of an encryption; `BlockCipher` is one.

    It is plain calls, unlike JavaScript's, whose providers may wait: a block is written in
    the same step as its hash, and nothing may come between.
    """

    @property
    def padding(self) -> int:
        """By how many bytes a stored block is longer than the block."""
        ...

    def encrypt(self, index: int, fork: int, block: bytes) -> bytes:
        """The stored form; the same for the same arguments."""
        ...

    def decrypt(self, index: int, block: bytes) -> bytes:
        """The block in a stored form. Raises: ValueError for what cannot be one."""
        ...


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """The secret of the usual encryption; with `is_block_key` that of one core only."""

    key: bytes
    is_block_key: bool = False

    def __repr__(self) -> str:
        return f"EncryptionKey(is_block_key={self.is_block_key})"


class EncryptedLog(Protocol):
    """What an encryption must know of the log."""

    @property
    def key(self) -> bytes: ...

    @property
    def is_compat(self) -> bool:
        """Whether the key is the signer's own, as far as that is known by now."""
        ...

    @property
    def head(self) -> Head: ...


EncryptionChoice = EncryptionKey | BlockEncryption


def choose_encryption(
    encryption_key: bytes | None, block_key: bytes | None, encryption: BlockEncryption | None
) -> EncryptionChoice | None:
    """The one that was given. Raises: UsageError for more than one, or a wrong size; TypeError."""
    given: list[EncryptionChoice] = [] if encryption is None else [encryption]
    for key, is_block_key in ((encryption_key, False), (block_key, True)):
        if key is not None:
            check_kind("an encryption key", (key,), bytes)
            if len(key) != 32:
                raise UsageError(f"an encryption key of {len(key)} bytes, 32 needed")
            given.append(EncryptionKey(key, is_block_key))
    if len(given) > 1:
        raise UsageError("encryption key, block key and encryption exclude one another")
    return given[0] if given else None


class KeyedEncryption:
    """The usual encryption of one core, by a key.

    A compat core derives its block key differently, and whether a core that was opened by its key
    is compat shows when its first head arrives: so the key is derived when it is first needed.
    """

    padding = PADDING

    def __init__(self, choice: EncryptionKey, log: EncryptedLog) -> None:
        self.choice = choice
        self._log = log
        self._cipher: BlockCipher | None = None
        self._proven: BlockCipher | None = None
        """`_cipher`, once it has decrypted something."""

    def encrypt(self, index: int, fork: int, block: bytes) -> bytes:
        cipher = self._cipher or self._derive()
        return cipher.encrypt(index, fork, block)

    def decrypt(self, index: int, block: bytes) -> bytes:
        """As `BlockCipher.decrypt`.

        Raises: WrongEncryptionKey if that shows in the first block, and for one that is too short
        to be encrypted at all: nobody's disk makes it so.
        """
        if len(block) < PADDING:
            raise WrongEncryptionKey(index)
        cipher = self._proven
        if cipher is not None:
            return cipher.decrypt(index, block)
        cipher = self._cipher or self._derive()
        decrypted = cipher.decrypt(index, block)
        if cipher.fork_of(index, block) > max(_MAX_FORK, self._log.head.fork):
            raise WrongEncryptionKey(index)
        self._proven = cipher
        return decrypted

    def _derive(self) -> BlockCipher:
        choice = self.choice
        cipher = BlockCipher(
            choice.key,
            self._log.key,
            is_block_key=choice.is_block_key,
            compat=self._log.is_compat,
        )
        self._cipher = cipher
        return cipher


def changed_encryption(
    present: BlockEncryption | None, choice: EncryptionChoice, log: EncryptedLog
) -> BlockEncryption:
    """The encryption of a core that somebody opens with `choice` beside those who use it.

    Raises: UsageError when they use another one.
    """
    if not isinstance(choice, EncryptionKey):
        wanted: BlockEncryption = choice
        is_same = present is choice
    else:
        wanted = KeyedEncryption(choice, log)
        is_same = isinstance(present, KeyedEncryption) and present.choice == choice
    if present is None:
        return wanted
    if not is_same:
        raise UsageError("the core is open with another encryption key")
    return present


def encrypt_all(
    encryption: BlockEncryption, blocks: Sequence[bytes], start: int, fork: int
) -> list[bytes]:
    """The stored forms of blocks appended at `start`."""
    encrypt = encryption.encrypt
    return [encrypt(index, fork, block) for index, block in enumerate(blocks, start)]
