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
| `core`, `corestore`                                  | what applications hold                 |
| `audit`, `repair`, `store_repair`                    | what is damaged, and what can be done  |

Odd decisions:

* Writing runs inline and only syncing takes a thread: the database's binding keeps the
  interpreter's lock while it writes.
* Damage that JavaScript does not notice (a head that nobody signed, missing roots, another
  core's keys) keeps a core from opening: a writer who goes on from there forks its history.
* Only durable lengths of our own logs are announced.
"""

from hypercore.audit import AuditProgress, Damage, DamageKind
from hypercore.core import Core
from hypercore.core_info import CoreInfo, CoreStatistics
from hypercore.corestore import Corestore, CorestoreStatistics, open_corestore
from hypercore.crypto import KeyPair, decode_id, discovery_key, encode_id
from hypercore.errors import (
    BlockNotAvailable,
    CorruptStorage,
    DamagedBlock,
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
from hypercore.storage import Durability

__all__ = [
    "AuditProgress",
    "BlockNotAvailable",
    "Core",
    "CoreInfo",
    "CoreStatistics",
    "Corestore",
    "CorestoreStatistics",
    "CorruptStorage",
    "Damage",
    "DamageKind",
    "DamagedBlock",
    "Durability",
    "HypercoreError",
    "KeyPair",
    "Manifest",
    "NotWritable",
    "OutOfRange",
    "Prologue",
    "RemoteProtocolError",
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
