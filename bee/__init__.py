"""A sorted key-value store on an append-only log, as Hyperbee 2 keeps it.

```python
bee = Bee(core)
await bee.put(b"key", b"value")
async for entry in bee.range(gte=b"a", lt=b"b"): ...
async with bee.batch() as batch: ...
```

Map, from the bottom: `protobuf`, `messages` and `extension_messages` are the bytes; `btree` is one
node; `cache` and `hints` hold nodes and what peers said we need; `descent` walks down, and waits
for blocks; `changes` is the tree while it changes, `batch` its append; `ranges` and `diff` read in
order; `rewriting` moves nodes out of blocks that are to go, for `erasure`, which takes keys off the
disk with the help of `block_index`, and for `compaction`; `extension` talks with peers, for whose
reads `visited_blocks` walks; `watching` tells what changes, `indexes` find rows by what is in them,
`blobs` and `large_values` keep what is too big for a tree; `snapshot` and `bee` are what callers
see. `log` says what a log must be able to do, and `frozen_log` makes one of a core's snapshot.

Odd on purpose: reads are plain functions that start again when a block was missing
(`descent`); references in the tree stay encoded (`btree`); batches write the original's
accidents, because they show in the bytes (`changes`).
"""

from __future__ import annotations

from bee.batch import Batch, Entry, Expected
from bee.bee import Bee
from bee.blobs import BlobId, BlobReader, Blobs, BlobWriter
from bee.cache import CacheStatistics
from bee.compaction import Compaction, DeadEstimate
from bee.erasure import Erasure
from bee.errors import (
    BatchEnded,
    BeeError,
    CorruptTree,
    HistoryReplaced,
    IndexNotBuilt,
    LogChanged,
    NotABee,
    UnknownFormat,
)
from bee.frozen_log import FrozenLog
from bee.indexes import BuildProgress, Found, Index, IndexedBatch, IndexedBee, IndexReader
from bee.keyspace import BINARY, JSON, UTF8, Codec
from bee.large_values import LargeValueBee
from bee.log import Log
from bee.messages import Header, Metadata
from bee.ranges import Results
from bee.readable_bee import Change, Difference
from bee.snapshot import Snapshot
from bee.tree import ReadStatistics, is_bee
from bee.watching import KeyWatch, LiveHistory, Update, Version, Watch

__all__ = [
    "BINARY",
    "JSON",
    "UTF8",
    "Batch",
    "BatchEnded",
    "Bee",
    "BeeError",
    "BlobId",
    "BlobReader",
    "BlobWriter",
    "Blobs",
    "BuildProgress",
    "CacheStatistics",
    "Change",
    "Codec",
    "Compaction",
    "CorruptTree",
    "DeadEstimate",
    "Difference",
    "Entry",
    "Erasure",
    "Expected",
    "Found",
    "FrozenLog",
    "Header",
    "HistoryReplaced",
    "Index",
    "IndexNotBuilt",
    "IndexReader",
    "IndexedBatch",
    "IndexedBee",
    "KeyWatch",
    "LargeValueBee",
    "LiveHistory",
    "Log",
    "LogChanged",
    "Metadata",
    "NotABee",
    "ReadStatistics",
    "Results",
    "Snapshot",
    "UnknownFormat",
    "Update",
    "Version",
    "Watch",
    "is_bee",
]
