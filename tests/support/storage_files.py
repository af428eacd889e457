"""Stores of one kind, opened by name: many in one directory, and cheap to open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Protocol

from bee.bee import Bee
from hypercore.core import Core
from hypercore.corestore import Corestore, open_corestore
from hypercore.storage import Durability
from node.covalue.bee_store import BeeStore
from node.covalue.store import CoValueStore


class StoreKind(Enum):
    BEE = "bee"


class StorageFiles(Protocol):
    """Opens stores and closes them; a name that was open before may be opened again."""

    async def open(self, name: str) -> CoValueStore: ...

    async def close(self, name: str) -> None: ...


class _BeeFiles:
    """Each store has a core of its own; all cores are in one database."""

    def __init__(self, cores: Corestore) -> None:
        self._cores = cores
        self._open: dict[str, Core] = {}

    async def open(self, name: str) -> CoValueStore:
        core = self._open[name] = await self._cores.get(name=name)
        return BeeStore(Bee(core), core)

    async def close(self, name: str) -> None:
        await self._open.pop(name).close()


@asynccontextmanager
async def open_storage_files(kind: StoreKind, directory: Path) -> AsyncIterator[StorageFiles]:
    """Stores that do not wait for the disk, in a directory."""
    match kind:
        case StoreKind.BEE:
            async with open_corestore(directory, durability=Durability.OS) as cores:
                yield _BeeFiles(cores)
