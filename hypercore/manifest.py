"""Who may sign a log: the manifest, and its hash, which is the core's key.

| version | fields after `uint version`                                                        |
|---------|------------------------------------------------------------------------------------|
| 0       | uint hash 0, uint type: 0 prologue (32 bytes), 1 one signer, 2 (uint flags, uint    |
|         | quorum, array of signers)                                                          |
| 1 to 3  | uint flags, uint hash 0, uint quorum, array of signers, [prologue], [array of      |
|         | 32-byte linked keys], [buffer user data]                                           |

Flags: 1 allow patch, 2 prologue, 4 linked, 8 user data. Signer: uint 0, namespace, public
key (32 bytes each). Prologue: 32 bytes of tree hash, uint length.

Worked example: one signer, version 1, is `01 00 00 01 01 00` + namespace + public key.

Source: hypercore 11.37.1 lib/messages.js, lib/verifier.js, lib/caps.js.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hypercore import crypto
from hypercore.encoding import (
    DecodeError,
    Reader,
    encode_array,
    encode_buffer,
    encode_uint,
)
from hypercore.errors import InvalidManifest
from hypercore.given_blocks import check_numbers

_NAMESPACES = crypto.namespace("hypercore", 6)
TREE = _NAMESPACES[0]
MANIFEST = _NAMESPACES[3]
DEFAULT_NAMESPACE = _NAMESPACES[4]

MAX_VERSION = 3

_ALLOW_PATCH = 1
_PROLOGUE = 2
_LINKED = 4
_USER_DATA = 8


@dataclass(frozen=True, slots=True)
class Signer:
    """One who may sign. From version 1 on the namespace changes the core's key, nothing else."""

    namespace: bytes
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Prologue:
    """The first `length` blocks, fixed for good by their tree hash; nobody needs to sign them."""

    hash: bytes
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a core's key stands for: how many of which signers make a head valid.

    `linked` names other cores that readers should open too; nothing in this package acts on it.
    """

    version: int = 1
    allow_patch: bool = False
    quorum: int = 1
    signers: tuple[Signer, ...] = ()
    prologue: Prologue | None = None
    linked: tuple[bytes, ...] | None = None
    user_data: bytes | None = None

    @classmethod
    def single_signer(
        cls, public_key: bytes, version: int = 1, namespace: bytes = DEFAULT_NAMESPACE
    ) -> Manifest:
        return cls(version=version, signers=(Signer(namespace, public_key),))

    @classmethod
    def multi_signer(
        cls,
        signers: Iterable[Signer | bytes],
        *,
        quorum: int | None = None,
        version: int | None = None,
        allow_patch: bool = False,
        prologue: Prologue | None = None,
        linked: Iterable[bytes] = (),
        user_data: bytes | None = None,
    ) -> Manifest:
        """Signers of whom `quorum` must sign, by default more than half.

        A signer may be given by its public key alone. The version is 1, or 2 where linked cores
        or user data need it.

        Raises: InvalidManifest for what is no manifest or has a quorum that cannot be reached.
        """
        check_numbers("a quorum", quorum)
        everyone = tuple(
            signer if isinstance(signer, Signer) else Signer(DEFAULT_NAMESPACE, signer)
            for signer in signers
        )
        keys = tuple(linked) or None
        if quorum is None:
            quorum = len(everyone) // 2 + 1 if everyone else 0
        if version is None:
            version = 1 if keys is None and user_data is None else 2
        manifest = cls(
            version=version,
            allow_patch=allow_patch,
            quorum=quorum,
            signers=everyone,
            prologue=prologue,
            linked=keys,
            user_data=user_data,
        )
        manifest.check()
        return manifest

    @classmethod
    def static(cls, tree_hash: bytes, length: int) -> Manifest:
        """That of a core that never changes: `length` blocks with this tree hash, unsigned.

        Raises: InvalidManifest.
        """
        check_numbers("the length of a log", length)
        return cls.multi_signer((), prologue=Prologue(tree_hash, length))

    @classmethod
    def parse(cls, data: bytes, key: bytes | None = None) -> Manifest:
        """Read a manifest that somebody handed over, and check that `key` stands for it.

        Raises: InvalidManifest for bytes that are no manifest, or that of another core.
        """
        reader = Reader(data)
        try:
            manifest = cls.decode(reader)
        except DecodeError as error:
            raise InvalidManifest(f"not a manifest: {error}") from error
        if reader.remaining:
            raise InvalidManifest(f"{reader.remaining} bytes too many after a manifest")
        manifest.check()
        if key is not None:
            manifest.check_key(key)
        return manifest

    def check(self) -> None:
        """Raises: InvalidManifest for what JavaScript does not take for a manifest, either."""
        hashes = [field for one in self.signers for field in (one.namespace, one.public_key)]
        hashes += self.linked or ()
        if self.prologue is not None:
            hashes.append(self.prologue.hash)
        for value in hashes:
            if len(value) != crypto.KEY_BYTES:
                raise InvalidManifest(f"a manifest's key or hash of {len(value)} bytes, not 32")
        if not 0 <= self.version <= MAX_VERSION:
            raise InvalidManifest(f"manifest of version {self.version}, not 0 to {MAX_VERSION}")
        if not 0 <= self.quorum <= len(self.signers):
            raise InvalidManifest(f"a quorum of {self.quorum} among {len(self.signers)} signers")
        if self.prologue is not None and self.prologue.length < 0:
            raise InvalidManifest(f"a prologue of {self.prologue.length} blocks")
        if self.version == 0 and self.prologue is not None and self.signers:
            raise InvalidManifest("a manifest of version 0 has a prologue or signers, not both")
        if self.version < 2 and (self.linked is not None or self.user_data is not None):
            raise InvalidManifest(
                f"linked cores and user data need a manifest of version 2, not {self.version}"
            )

    def is_compat(self, key: bytes) -> bool:
        """Whether `key` is the sole signer's own, as Hypercore 10 had it."""
        return len(self.signers) == 1 and self.signers[0].public_key == key

    def check_key(self, key: bytes) -> None:
        """Raises: InvalidManifest when this is not the manifest that `key` stands for."""
        if not self.is_compat(key) and self.key != key:
            raise InvalidManifest(f"the manifest hashes to {self.key.hex()}, not to {key.hex()}")

    @property
    def key(self) -> bytes:
        """The core's key: the hash of this manifest."""
        return crypto.blake2b(MANIFEST, self.encode())

    def encode(self) -> bytes:
        if self.version == 0:
            return b"\x00" + self._encode_version_0()
        flags = _ALLOW_PATCH if self.allow_patch else 0
        tail = b""
        if self.prologue is not None:
            flags |= _PROLOGUE
            tail += self.prologue.hash + encode_uint(self.prologue.length)
        if self.linked is not None:
            flags |= _LINKED
            tail += encode_array(self.linked)
        if self.user_data is not None:
            flags |= _USER_DATA
            tail += encode_buffer(self.user_data)
        head = encode_uint(self.version) + encode_uint(flags) + b"\x00" + encode_uint(self.quorum)
        return head + encode_array(map(_encode_signer, self.signers)) + tail

    def _encode_version_0(self) -> bytes:
        if self.prologue is not None and not self.signers:
            return b"\x00\x00" + self.prologue.hash
        if self.quorum == 1 and len(self.signers) == 1 and not self.allow_patch:
            return b"\x00\x01" + _encode_signer(self.signers[0])
        flags = b"\x01" if self.allow_patch else b"\x00"
        signers = encode_array(map(_encode_signer, self.signers))
        return b"\x00\x02" + flags + encode_uint(self.quorum) + signers

    @classmethod
    def decode(cls, reader: Reader) -> Manifest:
        """Consume one manifest, which has no length before it.

        Raises: DecodeError.
        """
        version = reader.uint()
        if version > MAX_VERSION:
            raise DecodeError(f"manifest of version {version}", reader.offset)
        if version == 0:
            return cls._decode_version_0(reader)
        flags = reader.uint()
        _expect_zero(reader, "hash")
        quorum = reader.uint()
        signers = tuple(reader.array(_decode_signer))
        return cls(
            version=version,
            allow_patch=bool(flags & _ALLOW_PATCH),
            quorum=quorum,
            signers=signers,
            prologue=Prologue(reader.fixed32(), reader.uint()) if flags & _PROLOGUE else None,
            linked=tuple(reader.array(Reader.fixed32)) if flags & _LINKED else None,
            user_data=reader.buffer() if flags & _USER_DATA else None,
        )

    @classmethod
    def _decode_version_0(cls, reader: Reader) -> Manifest:
        _expect_zero(reader, "hash")
        match kind := reader.uint():
            case 0:
                return cls(version=0, quorum=0, prologue=Prologue(reader.fixed32(), 0))
            case 1:
                return cls(version=0, signers=(_decode_signer(reader),))
            case 2:
                return cls(
                    version=0,
                    allow_patch=bool(reader.uint() & 1),
                    quorum=reader.uint(),
                    signers=tuple(reader.array(_decode_signer)),
                )
            case _:
                raise DecodeError(f"manifest of type {kind}", reader.offset)


def _encode_signer(signer: Signer) -> bytes:
    return b"\x00" + signer.namespace + signer.public_key


def _decode_signer(reader: Reader) -> Signer:
    _expect_zero(reader, "signature")
    return Signer(reader.fixed32(), reader.fixed32())


def _expect_zero(reader: Reader, kind: str) -> None:
    number = reader.uint()
    if number != 0:
        raise DecodeError(f"unknown kind of {kind}: {number}", reader.offset)
