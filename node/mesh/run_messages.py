"""The messages of `beemesh/1` about runs of a node and how long its own log is.

| #  | message  | fields                                                                        |
|----|----------|-------------------------------------------------------------------------------|
| 8  | head     | number of this run (8 bytes), your data core's fork and length here, doubt,   |
|    |          | tree hash and signature of that head                                          |
| 23 | alive    | number of a run (8 bytes), signature or nothing                               |

A head says that its receiver signed it, and shows so with the tree hash and signature: without
these nobody's word about the length of a log counts.

Every run of a node names itself by a random number. A member that has seen two of them go in turns
tells the elder the number of the younger (`alive`, unsigned). The elder signs it, which says that
it is another run, and lives, and the younger is sent this signature. Nobody else can make it, nor
can a run that was over before the younger began, so no member can stop a node by its word.

A node signs "beemesh/1 alive" || number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TypeAlias

from hypercore.crypto import KEY_BYTES, SIGNATURE_BYTES, KeyPair, sign, verify
from hypercore.log import Head as CoreHead
from hypercore.verifier import Verifier
from node.mesh.fields import FieldError, FieldReader, pack_fields

INSTANCE_BYTES = 8
"""Size of the random number that a node takes when it starts."""

MAX_HEAD_SIGNATURE = 1024
"""A data core has one signer."""

_ALIVE = b"beemesh/1 alive"


class Doubt(IntEnum):
    """What a member is told about its own key."""

    UNASKED = 0
    """The member has not said yet which run it is: this is the first word, and is answered."""
    NONE = 1
    OVERLAP = 2
    """Another run of it was connected just before, and may be alive."""
    SECOND = 3
    """Another run of it is alive, and older; `Alive` proves it."""


@dataclass(frozen=True, slots=True)
class Head:
    """How long the receiver's data core is here, as it signed itself; 0, 0 where nothing is.

    `instance` tells one run of the sender from all others.
    """

    instance: bytes
    fork: int
    length: int
    doubt: Doubt = Doubt.UNASKED
    tree_hash: bytes = b""
    signature: bytes = b""

    def is_signed(self, verifier: Verifier) -> bool:
        """Whether the writer of that core signed such a head."""
        shown = CoreHead(self.fork, self.length, 0, (), self.signature, self.tree_hash)
        return bool(self.tree_hash) and verifier.verify(shown, self.signature)

    def encode(self) -> bytes:
        numbers = (self.fork, self.length, int(self.doubt))
        return pack_fields(self.instance, *numbers, self.tree_hash, self.signature)

    @classmethod
    def decode(cls, reader: FieldReader) -> Head:
        instance = reader.fixed(INSTANCE_BYTES)
        fork, length, doubt = reader.uint(), reader.uint(), Doubt(reader.uint(max(Doubt)))
        if not reader.remaining:
            return cls(instance, fork, length, doubt)  # from an older node
        tree_hash, signature = reader.data(KEY_BYTES), reader.data(MAX_HEAD_SIGNATURE)
        return cls(instance, fork, length, doubt, tree_hash, signature)


@dataclass(frozen=True, slots=True)
class Alive:
    """Signed: another run than this one is alive. Unsigned: the question whether one is."""

    instance: bytes
    signature: bytes = b""

    def sign(self, key_pair: KeyPair) -> Alive:
        """What a run says of another one that it is asked about."""
        return replace(self, signature=sign(_ALIVE + self.instance, key_pair.secret_key))

    def is_by(self, public_key: bytes) -> bool:
        """Whether a run of this node signed it."""
        return verify(_ALIVE + self.instance, self.signature, public_key)

    def encode(self) -> bytes:
        return pack_fields(self.instance, self.signature)

    @classmethod
    def decode(cls, reader: FieldReader) -> Alive:
        instance, signature = reader.fixed(INSTANCE_BYTES), reader.data(SIGNATURE_BYTES)
        if len(signature) not in (0, SIGNATURE_BYTES):
            raise FieldError(f"a signature of {len(signature)} bytes", 1)
        return cls(instance, signature)


RunMessage: TypeAlias = Head | Alive
