"""A sorted key-value store on an append-only log, as Hyperbee 2 keeps it.

```python
bee = Bee(core)
await bee.put(b"key", b"value")
async for entry in bee.range(gte=b"a", lt=b"b"): ...
async with bee.batch() as batch: ...
```

| modules, from the bottom                            | are                                   |
|-----------------------------------------------------|---------------------------------------|
| `log`, `frozen_log`                                 | what a log can do; one of a snapshot  |
| `protobuf`, `messages`, `extension_messages`        | the bytes                             |
| `btree`, `node_reader`, `cache`, `hints`            | one node; those read, kept, asked for |
| `tree`, `descent`, `neighbors`                      | walking down, and waiting for blocks  |
| `changes`, `pending_blocks`, `lone_put`             | the tree while it changes             |
| `writer`, `batch`                                   | the append that it becomes            |
| `ranges`, `diff`, `history`                         | reading in order                      |
| `keyspace`                                          | codecs, and prefixes of sub-databases |
| `readable_bee`, `snapshot`, `bee`                   | what callers see                      |
| `extension`, `question`, `visited_blocks`           | talking with peers; their reads       |
| `watching`, `indexes`                               | what changes; rows by what is in them |
| `blobs`, `large_values`                             | what is too big for a tree            |
| `rewriting`, `erasure`, `block_index`, `compaction` | giving blocks up, moving the rest     |
| `held`                                              | what of the past is still read        |
| `errors`                                            | what can go wrong                     |

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
