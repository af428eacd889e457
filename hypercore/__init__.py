"""Signed append-only logs, compatible with Hypercore 11 on the wire, in the blocks and on disk.

    async with open_corestore(path) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two"])
        block = await core.get(0)

How it hangs together, from values to tasks:

| modules                                            | are                                       |
|----------------------------------------------------|-------------------------------------------|
| `encoding`, `crypto`, `flat_tree`, `merkle`        | the ground: bytes, hashes, arithmetic     |
| `manifest`, `verifier`                             | who may sign a log, and whether they did  |
| `proof_request`, `proof`, `seek`                   | what peers ask, and what convinces them   |
| `bitfield`, `block_sets`, `block_cipher`, `log`    | one log as a value; no I/O                |
| `proposal`, `multisig`                             | changes that others sign                  |
| `log_copy`                                         | one core's blocks for another             |
| `encryption`                                       | which cipher a core's blocks have         |
| `pruning`                                          | tree nodes that cleared blocks leave      |
| `inclusion_proof`, `fork_proof`                    | what is checked offline, with a key alone |
| `fork_search`                                      | where two histories part                  |
| `storage`                                          | records, RocksDB and its twin in memory   |
| `held_blocks`, `stored_tree`, `durable_length`     | what of a log is here, and safe           |
| `stored_log`, `long_append`                        | a log and its storage: the one commit     |
| `replication`                                      | messages, scheduler, sessions             |
| `open_log`, `log_users`, `open_channels`, `handle` | what users of a log share; what one has   |
| `pinned_history`, `snapshot`                       | a log as it was                           |
| `block_reader`, `byte_search`, `byte_stream`       | reading in sequence, and by byte          |
| `javascript_json`, `value_encoding`, `encoded`     | blocks as values                          |
| `events`                                           | what happens to a log                     |
| `downloading`, `waiting`, `sole_waiter`            | waiting for blocks that peers have        |
| `core_facts`, `core_info`, `readable_core`, `core` | what applications hold                    |
| `open_store`, `store_connection`, `corestore`      | many logs, and replicating them           |
| `store_session`, `inventory`, `watching`, `groups` | what is open, what is stored, what is new |
| `store_copy`                                       | copying a store while it is used          |
| `given_blocks`, `given_rows`                       | what callers give, checked first          |
| `draft`, `atom`                                    | changes of several cores in one commit    |
| `marked_blocks`, `marking`                         | which blocks a sweep keeps                |
| `audit`, `repair`, `store_repair`                  | what is damaged, and what can be done     |
| `lost_heads`, `recovering`                         | going on where the newest blocks are lost |
| `metrics`, `errors`                                | what is counted; what can go wrong        |

Odd decisions:

* Writing runs inline and only syncing takes a thread: the database's binding keeps the
  interpreter's lock while it writes.
* Damage that JavaScript does not notice (a head that nobody signed, missing roots, another
  core's keys) keeps a core from opening: a writer who goes on from there forks the history.
* Only durable lengths of our own logs are announced.
* A snapshot costs nothing until the log is cut below its length; then the storage takes one.
* Peers can lie, by one block, about where a byte is; so a search fetches the block it led to.
* A core whose writer signed two histories is frozen for good, and the evidence is kept with it.
  Evidence compares hashes and not sizes, which anybody can change in a proof without changing
  what was signed.
* Of a signature that a peer sent, only what signers make is kept.
"""

from hypercore.atom import Atom
from hypercore.audit import AuditProgress, Damage, DamageKind
from hypercore.block_cipher import BlockCipher, derive_block_key
from hypercore.byte_stream import AppendStream, ByteStream
from hypercore.core import Core
from hypercore.core_info import CoreInfo, CoreStatistics
from hypercore.corestore import Corestore, CorestoreStatistics, open_corestore
from hypercore.crypto import KeyPair, decode_id, discovery_key, encode_id
from hypercore.downloading import LIVE, Download, Order
from hypercore.encoded import EncodedCore, EncodedLog
from hypercore.encryption import BlockEncryption
from hypercore.errors import (
    BlockNotAvailable,
    BlockTooLarge,
    CopiedStore,
    CoreFrozen,
    CoreRecovering,
    CorruptStorage,
    DamagedBlock,
    HypercoreError,
    InvalidManifest,
    InvalidProof,
    InvalidSignature,
    NoSuchCore,
    NotWritable,
    OutOfRange,
    PrunedHistory,
    RemoteProtocolError,
    SnapshotNotAvailable,
    StorageError,
    StorageFailed,
    StoreLocked,
    StoreSuspended,
    UndecodableBlock,
    UsageError,
    WrongEncryptionKey,
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
from hypercore.fork_proof import ForkProof, ProvenFork, verify_fork_proof
from hypercore.groups import GroupUpdate
from hypercore.inclusion_proof import InclusionProof, ProvenBlock, verify_inclusion_proof
from hypercore.inventory import CoreSummary
from hypercore.manifest import Manifest, Prologue, Signer
from hypercore.multisig import SignatureCollector, signable_length
from hypercore.proposal import Proposal
from hypercore.recovering import UnprovenClaim
from hypercore.replication.forks import StuckFork
from hypercore.replication.settings import PushMode, ReplicationSettings
from hypercore.seek import BytePosition
from hypercore.snapshot import Snapshot
from hypercore.storage import Durability
from hypercore.store_copy import copy_store
from hypercore.value_encoding import (
    BYTES,
    JSON,
    MSGPACK,
    UTF8,
    Json,
    Packable,
    ValueEncoding,
)
from hypercore.verifier import PartialSignature, Verifier

__all__ = [
    "BYTES",
    "JSON",
    "LIVE",
    "MSGPACK",
    "UTF8",
    "AppendStream",
    "Appended",
    "Atom",
    "AuditProgress",
    "BlockCipher",
    "BlockEncryption",
    "BlockNotAvailable",
    "BlockTooLarge",
    "BytePosition",
    "ByteStream",
    "CopiedStore",
    "Core",
    "CoreEvent",
    "CoreEvents",
    "CoreFrozen",
    "CoreInfo",
    "CoreRecovering",
    "CoreStatistics",
    "CoreSummary",
    "Corestore",
    "CorestoreStatistics",
    "CorruptStorage",
    "Damage",
    "DamageKind",
    "DamagedBlock",
    "Download",
    "Downloaded",
    "Durability",
    "EncodedCore",
    "EncodedLog",
    "ForkProof",
    "GroupUpdate",
    "HypercoreError",
    "InclusionProof",
    "InvalidManifest",
    "InvalidProof",
    "InvalidSignature",
    "Json",
    "KeyPair",
    "Manifest",
    "NoSuchCore",
    "NotWritable",
    "Order",
    "OutOfRange",
    "Packable",
    "PartialSignature",
    "PeerAdded",
    "PeerRemoved",
    "Prologue",
    "Proposal",
    "ProvenBlock",
    "ProvenFork",
    "PrunedHistory",
    "PushMode",
    "RemoteContiguous",
    "RemoteProtocolError",
    "ReplicationSettings",
    "SignatureCollector",
    "Signer",
    "Snapshot",
    "SnapshotNotAvailable",
    "StorageError",
    "StorageFailed",
    "StoreLocked",
    "StoreSuspended",
    "StuckFork",
    "Truncated",
    "UndecodableBlock",
    "UnprovenClaim",
    "Uploaded",
    "UsageError",
    "ValueEncoding",
    "Verifier",
    "WrongEncryptionKey",
    "copy_store",
    "decode_id",
    "derive_block_key",
    "discovery_key",
    "encode_id",
    "open_corestore",
    "signable_length",
    "verify_fork_proof",
    "verify_inclusion_proof",
]
