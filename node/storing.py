"""[trio] Opens the store that the configuration names.

| --store | coValues are in             | other nodes | JavaScript can open            |
|---------|-----------------------------|-------------|--------------------------------|
| bee     | the data core's bee         | yes         | the bee                        |
| sqlite  | a SQLite file               | no          | the file, as a server's store  |
| hybrid  | both; clients read SQLite   | yes         | both                           |

To change from one to another: hybrid takes over what either held. A store may be left behind only
if it holds nothing that the other lacks; else a start is refused, and says which command moves it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import trio

from bee.bee import Bee
from hypercore.core import Core
from hypercore.corestore import Corestore, open_corestore
from hypercore.errors import WrongEncryptionKey
from hypercore.storage import Durability
from node.compacting import Compacting, CompactionOptions
from node.config import Config
from node.covalue.bee_store import BeeStore
from node.covalue.hybrid_store import open_hybrid_store
from node.covalue.reconciling import NoteCopied
from node.covalue.sqlite_reader import open_foreign
from node.covalue.sqlite_store import SqliteStore, open_sqlite_store
from node.covalue.store import CoValueStore
from node.covalue.totals import Totals
from node.errors import ConfigError
from node.logs import DATA_CORE
from node.mesh.member_book import load_book
from node.mesh.provenance import has_times


@dataclass(frozen=True, slots=True)
class Storing:
    """The store, and the core that other nodes read: there is none without a bee."""

    values: CoValueStore
    data: Core | None
    compacting: Compacting | None = None
    """Compacts the data core's bee; somebody has to run it."""
    bee: Bee[bytes, bytes] | None = None
    """The bee of the data core."""
    rebuild: Callable[[], Awaitable[int]] | None = None
    """Makes what is beside the data core anew, after more of it came back from other nodes."""
    catch_up: Callable[[NoteCopied], Awaitable[None]] | None = None
    """To be called when it is known that the data core may be appended to, before anything is
    stored: the core gets what only SQLite has, and the argument is told of it."""
    count_not_shared: Callable[[], int] = lambda: 0
    """How often damage kept what our clients have from the data core."""


@asynccontextmanager
async def open_storing(
    config: Config, cores: Corestore, data_key: bytes | None = None, *, may_leave: bool = False
) -> AsyncIterator[Storing]:
    """Have the configured store open until the block ends.

    Blocks of the data core are encrypted with the `data_key` of an encrypted mesh. With
    `may_leave` coValues in another store of this node may be left behind, to be moved.

    Raises: ConfigError when something would be left behind; what the store raises.
    """
    durability = Durability.parse(config.durability)
    match config.store:
        case "bee":
            async with open_data_core(cores, data_key) as data:
                bee = Bee(data)
                compacting = Compacting(bee, data, cores.reclaim, _compaction_options(config))
                values = BeeStore(bee, data, compacting.reclaim)
                if not may_leave:
                    await _refuse_to_leave_file(config, values)
                yield Storing(values, data, compacting, bee, values.rebuild)
        case "sqlite":
            async with open_sqlite_store(config.sqlite_path, durability) as sqlite:
                if not may_leave:
                    await _refuse_to_leave_bee(config, cores, data_key, sqlite)
                yield Storing(sqlite, None)
        case "hybrid":
            async with (
                open_sqlite_store(config.sqlite_path, durability) as sqlite,
                open_data_core(cores, data_key) as data,
            ):
                bee = Bee(data)
                compacting = Compacting(bee, data, cores.reclaim, _compaction_options(config))
                values = BeeStore(bee, data, compacting.reclaim, keeps_texts=False)
                async with open_hybrid_store(sqlite, values, catches_up=False) as hybrid:
                    halves = hybrid.rebuild, hybrid.catch_up
                    yield Storing(hybrid, data, compacting, bee, *halves, lambda: hybrid.not_shared)


def _compaction_options(config: Config) -> CompactionOptions:
    return CompactionOptions(config.compact_dead_share, config.compact_min_bytes)


@asynccontextmanager
async def open_data_core(cores: Corestore, data_key: bytes | None = None) -> AsyncIterator[Core]:
    """The core that holds the coValues of this node.

    Raises: ConfigError when it was written without this key, or with another.
    """
    try:
        core = await cores.get(name=DATA_CORE, encryption_key=data_key)
    except WrongEncryptionKey as error:
        raise ConfigError(
            "the coValues here were not written under the key of this mesh, whose data is "
            "encrypted: use another --data directory"
        ) from error
    try:
        yield core
    finally:
        await core.close()


def make_store_directory(config: Config) -> None:
    """Make the data directory and the place of the store in it, for the owner alone. Blocks."""
    for path in (config.data, config.corestore_path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)


async def has_served(config: Config) -> bool:
    """Whether a node has run on the data core here, and not just a command.

    Raises: what the store raises.
    """
    if not (config.corestore_path / "db").is_dir():
        return False
    async with open_corestore(config.corestore_path, read_only=True) as cores:
        if DATA_CORE not in cores.names():
            return False
        try:
            async with open_data_core(cores) as data:
                return has_times(data)
        except ConfigError:
            return True  # encrypted, as a node's mesh wanted it


def may_append_alone(config: Config) -> bool:
    """Whether the data core may be appended to while no node runs; blocks on the disk.

    A member may know more of it than a power cut or an old copy has left here. Only a running node
    asks (`node.mesh.recall`): to append without asking is to fork it.

    Raises: ConfigError.
    """
    return config.store == "sqlite" or not any(load_book(config.members_path))


async def _refuse_to_leave_file(config: Config, bee: BeeStore) -> None:
    held = await trio.to_thread.run_sync(_totals_of, config.sqlite_path)
    if held is not None and held.is_ahead_of(bee.totals()):
        way = "start with --store hybrid"
        if await trio.to_thread.run_sync(may_append_alone, config):
            way += (
                f", or bring them over with "
                f"`beemesh import {config.sqlite_path} --store bee --data {config.data}`"
            )
        raise ConfigError(
            f"{config.sqlite_path} holds {held.values} coValues, not all of which are in the bee: "
            f"{way}"
        )


def _totals_of(path: Path) -> Totals | None:
    """None when there is no file. Raises: ConfigError."""
    try:
        reader = open_foreign(path)
    except FileNotFoundError:
        return None
    with closing(reader):
        return reader.totals()


async def _refuse_to_leave_bee(
    config: Config, cores: Corestore, data_key: bytes | None, sqlite: SqliteStore
) -> None:
    if DATA_CORE not in cores.names():
        return
    async with open_data_core(cores, data_key) as data:
        held = BeeStore(Bee(data), data).totals()
    if held.is_ahead_of(await sqlite.totals()):
        raise ConfigError(
            f"the bee in {config.data} holds {held.values} coValues, not all of which are in "
            f"{config.sqlite_path}: start with --store hybrid, or bring them over with "
            f"`beemesh export {config.sqlite_path} --store bee --data {config.data}`"
        )
