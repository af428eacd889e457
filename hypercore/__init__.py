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
| `downloading`, `fetching`                            | waiting for blocks that peers have     |
| `core`, `corestore`                                  | what applications hold                 |

Odd decisions:

* Writing runs inline and only syncing takes a thread: the database's binding keeps the
  interpreter's lock while it writes.
* Damage that JavaScript does not notice (a head that nobody signed, missing roots, another
  core's keys) keeps a core from opening: a writer who goes on from there forks its history.
* Only durable lengths of our own logs are announced.
"""

from hypercore.core import Core
from hypercore.core_info import CoreInfo, CoreStatistics
from hypercore.corestore import Corestore, CorestoreStatistics, open_corestore
from hypercore.crypto import KeyPair, decode_id, discovery_key, encode_id
from hypercore.downloading import LIVE, Download, Order
from hypercore.errors import (
    BlockNotAvailable,
    CorruptStorage,
    HypercoreError,
    NotWritable,
    OutOfRange,
    RemoteProtocolError,
    StorageError,
    StorageFailed,
    StoreLocked,
    UsageError,
)
from hypercore.manifest import Manifest, Prologue, Signer
from hypercore.replication.settings import PushMode, ReplicationSettings
from hypercore.storage import Durability

__all__ = [
    "LIVE",
    "BlockNotAvailable",
    "Core",
    "CoreInfo",
    "CoreStatistics",
    "Corestore",
    "CorestoreStatistics",
    "CorruptStorage",
    "Download",
    "Durability",
    "HypercoreError",
    "KeyPair",
    "Manifest",
    "NotWritable",
    "Order",
    "OutOfRange",
    "Prologue",
    "PushMode",
    "RemoteProtocolError",
    "ReplicationSettings",
    "Signer",
    "StorageError",
    "StorageFailed",
    "StoreLocked",
    "UsageError",
    "decode_id",
    "discovery_key",
    "encode_id",
    "open_corestore",
]
