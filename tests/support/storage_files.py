"""Stores of one kind, opened by name: many in one directory, and cheap to open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from enum import Enum
from pathlib import Path

from bee.bee import Bee
from hypercore.corestore import Corestore, open_corestore
from hypercore.storage import Durability
from node.covalue.bee_store import BeeStore
from node.covalue.hybrid_store import open_hybrid_store
from node.covalue.sqlite_store import SqliteStore, open_sqlite_store
from node.covalue.store import CoValueStore


class StoreKind(Enum):
    BEE = "bee"
    SQLITE = "sqlite"
    HYBRID = "hybrid"


class StorageFiles:
    """Opens stores and closes them; a name that was open before may be opened again.

    Bees have a core each, and all cores are in one database. SQLite has a file for each store.
    """

    def __init__(self, kind: StoreKind, directory: Path, cores: Corestore) -> None:
        self._kind = kind
        self._directory = directory
        self._cores = cores
        self._open: dict[str, AsyncExitStack] = {}

    async def open(self, name: str) -> CoValueStore:
        async with AsyncExitStack() as stack:
            store = await self._open_parts(name, stack)
            self._open[name] = stack.pop_all()
        return store

    async def close(self, name: str) -> None:
        await self._open.pop(name).aclose()

    async def _open_parts(self, name: str, stack: AsyncExitStack) -> CoValueStore:
        match self._kind:
            case StoreKind.BEE:
                return await self._open_bee(name, stack)
            case StoreKind.SQLITE:
                return await stack.enter_async_context(self._sqlite(name))
            case StoreKind.HYBRID:
                sqlite = await stack.enter_async_context(self._sqlite(name))
                bee = await self._open_bee(name, stack)
                return await stack.enter_async_context(open_hybrid_store(sqlite, bee))

    async def _open_bee(self, name: str, stack: AsyncExitStack) -> BeeStore:
        core = await self._cores.get(name=name)
        stack.push_async_callback(core.close)
        return BeeStore(Bee(core), core)

    def _sqlite(self, name: str) -> AbstractAsyncContextManager[SqliteStore]:
        return open_sqlite_store(self._directory / f"{name}.sqlite", Durability.OS)


@asynccontextmanager
async def open_storage_files(kind: StoreKind, directory: Path) -> AsyncIterator[StorageFiles]:
    """Stores that do not wait for the disk, in a directory that is there."""
    async with open_corestore(directory / "cores", durability=Durability.OS) as cores:
        yield StorageFiles(kind, directory, cores)
