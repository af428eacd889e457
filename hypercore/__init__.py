"""Signed append-only logs, compatible with Hypercore 11 on the wire, in the blocks and on disk.

    async with open_corestore(path) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two"])
        block = await core.get(0)

How it hangs together, from values to tasks:

| modules                                              | are                                    |
|------------------------------------------------------|----------------------------------------|
| `encoding`, `crypto`, `flat_tree`, `merkle`          | the ground: bytes, hashes, arithmetic  |
| `manifest`, `proof`, `bitfield`, `block_cipher`, `log` | one log as a value; no I/O           |
| `pruning`                                            | tree nodes that cleared blocks leave   |
| `storage`                                            | records, RocksDB and its twin in memory |
| `stored_log`                                         | a log and its storage: the one commit  |
| `replication`                                        | messages, scheduler, sessions          |
| `open_log`, `handle`                                 | what users of a log share; what one has |
| `pinned_history`, `snapshot`                         | a log as it was                        |
| `block_reader`, `byte_search`, `byte_stream`         | reading in sequence, and by byte       |
| `value_encoding`, `encoded`, `events`                | blocks as values; what happens to a log |
| `core`, `corestore`                                  | what applications hold                 |

Odd decisions:

* Writing runs inline and only syncing takes a thread: the database's binding keeps the
  interpreter's lock while it writes.
* Damage that JavaScript does not notice (a head that nobody signed, missing roots, another
  core's keys) keeps a core from opening: a writer who goes on from there forks its history.
* Only durable lengths of our own logs are announced.
* A snapshot costs nothing until the log is cut below its length; then the storage takes one.
* Where a byte is, peers can lie about by a block; so a search fetches the block it led to.
"""

from hypercore.byte_stream import AppendStream, ByteStream
from hypercore.core import Core
from hypercore.core_info import CoreInfo, CoreStatistics
from hypercore.corestore import Corestore, CorestoreStatistics, open_corestore
from hypercore.crypto import KeyPair, decode_id, discovery_key, encode_id
from hypercore.encoded import EncodedCore, EncodedLog
from hypercore.errors import (
    BlockNotAvailable,
    BlockTooLarge,
    CorruptStorage,
    HypercoreError,
    NotWritable,
    OutOfRange,
    RemoteProtocolError,
    SnapshotNotAvailable,
    StorageError,
    StorageFailed,
    StoreLocked,
    UndecodableBlock,
    UsageError,
)
from hypercore.events import (
    Appended,
    CoreEvent,
    CoreEvents,
    Downloaded,
    PeerAdded,
    PeerRemoved,
    RemoteContiguous,
    Truncated,
    Uploaded,
)
from hypercore.manifest import Manifest, Prologue, Signer
from hypercore.seek import BytePosition
from hypercore.snapshot import Snapshot
from hypercore.storage import Durability
from hypercore.value_encoding import (
    BYTES,
    JSON,
    MSGPACK,
    UTF8,
    Json,
    Packable,
    ValueEncoding,
)

__all__ = [
    "BYTES",
    "JSON",
    "MSGPACK",
    "UTF8",
    "AppendStream",
    "Appended",
    "BlockNotAvailable",
    "BlockTooLarge",
    "BytePosition",
    "ByteStream",
    "Core",
    "CoreEvent",
    "CoreEvents",
    "CoreInfo",
    "CoreStatistics",
    "Corestore",
    "CorestoreStatistics",
    "CorruptStorage",
    "Downloaded",
    "Durability",
    "EncodedCore",
    "EncodedLog",
    "HypercoreError",
    "Json",
    "KeyPair",
    "Manifest",
    "NotWritable",
    "OutOfRange",
    "Packable",
    "PeerAdded",
    "PeerRemoved",
    "Prologue",
    "RemoteContiguous",
    "RemoteProtocolError",
    "Signer",
    "Snapshot",
    "SnapshotNotAvailable",
    "StorageError",
    "StorageFailed",
    "StoreLocked",
    "Truncated",
    "UndecodableBlock",
    "Uploaded",
    "UsageError",
    "ValueEncoding",
    "decode_id",
    "discovery_key",
    "encode_id",
    "open_corestore",
]
