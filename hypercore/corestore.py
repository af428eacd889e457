"""[trio] Many logs in one store, by name or by key.

Source: corestore 7.12.5 index.js (names, namespaces, key pairs, which cores are replicated).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import trio

from hypercore.atom import Atom, open_atom
from hypercore.core import Core
from hypercore.crypto import Entropy, KeyPair, system_entropy
from hypercore.crypto import discovery_key as derive_discovery_key
from hypercore.encryption import BlockEncryption, choose_encryption
from hypercore.errors import CopiedStore, StorageError, UsageError
from hypercore.groups import GroupUpdate, GroupWatch, check_group
from hypercore.inventory import CoreSummaries, CoreSummary
from hypercore.log_copy import copy_changes
from hypercore.manifest import Manifest
from hypercore.metrics import hypercore_metrics
from hypercore.open_store import OpenOptions, OpenStore
from hypercore.replication.channel import Multiplexer
from hypercore.storage import Durability, Storage
from hypercore.storage.catalog import Catalog, sub_namespace
from hypercore.storage.layout import ROOT_NAMESPACE, Alias, AuthRecord
from hypercore.storage.memory import MemoryStorage
from hypercore.storage.rocks import RocksStorage
from hypercore.storage.version10 import Version10Core
from hypercore.store_connection import Allow, allow_every_core, deny_every_core
from hypercore.store_session import StoreSession
from hypercore.verifier import Verifier
from hypercore.watching import CoreWatch


@dataclass(frozen=True, slots=True)
class CorestoreStatistics:
    """What a store holds and has open."""

    open_cores: int
    connections: int
    failures: Mapping[bytes, StorageError]
    """Why a core could not be served to a peer, by discovery key."""

    metrics: Mapping[str, float]
    """The open cores under the names of `hypercore-stats`."""


class Corestore:
    """An open store, seen from one namespace, by one user."""

    def __init__(
        self,
        store: OpenStore,
        namespace: bytes = ROOT_NAMESPACE,
        session: StoreSession | None = None,
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._session = session
        """Closes what is opened through this view; None where only the store does."""

    @property
    def primary_key(self) -> bytes:
        """The secret from which the key pairs of all named cores derive."""
        return self._store.catalog.primary_key

    @property
    def storage(self) -> Storage:
        """All rows of the store, for checking and copying; not for changing."""
        return self._store.storage

    @property
    def is_read_only(self) -> bool:
        return self._store.storage.is_read_only

    @property
    def why_read_only(self) -> str:
        """For people; empty when the store can be written to."""
        return self._store.storage.why_read_only

    @property
    def has_failed(self) -> bool:
        """Whether a write or a sync failed: nothing can be written until `recover`."""
        return self._store.storage.has_failed

    @property
    def is_suspended(self) -> bool:
        return self._store.storage.is_suspended

    def namespace(self, name: str) -> Corestore:
        """The same store, where the same names stand for other cores."""
        return Corestore(self._store, sub_namespace(self._namespace, name), self._session)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Corestore]:
        """The same store, for one of its users.

            async with store.session() as mine:
                core = await mine.get(name="log")

        When the block ends, what was opened through it is closed, with sessions and snapshots of
        that, and it opens nothing more. Other users keep what they opened. Namespaces of a session
        belong to it.

        Cancel: as the end of the block.
        """
        self._check_open()
        session = StoreSession()
        try:
            yield Corestore(self._store, self._namespace, session)
        finally:
            session.close()

    def names(self) -> list[str]:
        """Names of the cores made in this namespace, in order."""
        return [name for name, _ in self._store.catalog.names(self._namespace)]

    def discovery_keys(self) -> list[bytes]:
        """Those of all cores in the store, in every namespace."""
        return list(self._store.catalog.discovery_keys())

    def cores(self, *, is_here: bool = False) -> AsyncIterator[CoreSummary]:
        """Name, sizes and last change of every stored core, none of them opened for it.

        With `is_here` only those named in this namespace. In no particular order. Other tasks run
        in between; cores that are made meanwhile may be left out. May be dropped at any time.

        Raises: CorruptStorage. Cancel: skips none.
        """
        namespace = self._namespace if is_here else None
        return CoreSummaries(
            self._store.catalog, namespace, self._check_open, trio.lowlevel.checkpoint
        )

    def watch(self) -> AsyncIterator[Core]:
        """Cores of the store, in whatever namespace, as they get opened from now on.

        Watching keeps no core open. May be dropped at any time; ends when the store is closed.
        """
        self._check_open()
        watch = CoreWatch()
        self._store.watches.add(watch)
        return watch

    def group_updates(self, topic: bytes) -> list[bytes]:
        """Keys of the cores of a group that ever changed, the last change first.

        Raises: UsageError for what is not a group's topic.
        """
        self._check_open()
        check_group(topic)
        return self._store.catalog.group_updates(topic)

    def watch_group(self, topic: bytes) -> AsyncIterator[GroupUpdate]:
        """Changes of open cores of a group from now on, whoever makes them.

        Raises: UsageError for what is not a group's topic.
        """
        self._check_open()
        watch = GroupWatch(topic)
        self._store.group_watches.add(watch)
        return watch

    async def suspend(self) -> None:
        """Sync, then give all files and the lock back, for another process or a pause.

        Until `resume`, whatever needs the disk raises StoreSuspended, and peers are served
        nothing; cores stay open. Raises: StorageFailed. Cancel: it is finished first, but for
        channels that are about to be closed.
        """
        self._check_open()
        await self._store.suspend()

    async def resume(self) -> None:
        """Take the files back and go on with what is in them.

        Another process may have written meanwhile: every open core is read and checked anew, one
        that was removed is closed, one that is damaged refuses all writes (`statistics`). What the
        other cut off is gone from snapshots, as is what had been cut off before.

        Raises: StoreLocked, CopiedStore, CorruptStorage; the store stays suspended then.
        Cancel: it is finished first.
        """
        self._check_open()
        await self._store.resume()

    async def recover(self) -> None:
        """Go on after StorageFailed, when there is room again, or the disk works: nothing is lost.

        What was not acknowledged may be there or not; what had been written and never synced is
        read back and written anew. All cores stay open, and are offered to peers again; one that
        is damaged refuses all writes (`statistics`).

        Raises: StorageFailed when the disk still cannot be written (reads go on as before),
        CorruptStorage, StoreSuspended (`resume` recovers, too).
        Cancel: never waits; blocks for as long as opening does.
        """
        self._check_open()
        self._store.recover()

    async def reclaim(self) -> None:
        """Give the room of cleared blocks back: no file of the store holds their bytes any more.

        Rewrites the whole store, at some 200 MB a second; reads and appends go on meanwhile.

        Raises: UsageError for a store that is read-only, StorageFailed.
        Cancel: it is finished first.
        """
        await self._store.storage.reclaim()

    async def purge(
        self,
        *,
        name: str | None = None,
        key: bytes | None = None,
        discovery_key: bytes | None = None,
    ) -> bool:
        """Remove a core and all that the store keeps because of it; False if there is none.

        The core is closed for all who use it, its channels to peers end. After `reclaim`, no
        file of the store holds its blocks or keys. Only what peers have of it stays. Opening a
        name of ours again makes the same core anew, from its first block: peers that have the old
        one will not believe it.

        Raises: UsageError, StorageFailed. Cancel: it is gone, or all of it is there.
        """
        self._check_open()
        if name is not None:
            known = self._store.catalog.find_name(self._namespace, name)
            discovery_key = known or self._keys_of(name).discovery_key
        elif key is not None:
            discovery_key = derive_discovery_key(key)
        elif discovery_key is None:
            raise UsageError("which core? give its name, key or discovery key")
        return await self._store.purge(discovery_key)

    def _keys_of(self, name: str) -> AuthRecord:
        """The keys that derive from a name of this namespace."""
        key_pair = self._store.catalog.key_pair(self._namespace, name)
        manifest = Manifest.single_signer(key_pair.public_key)
        return AuthRecord.of(manifest.key, manifest, key_pair)

    def open_cores(self) -> list[Core]:
        """The store's own handle of each open core, closed with that of the last user."""
        return self._store.own_handles()

    def frozen_cores(self) -> AsyncIterator[Core]:
        """Every core found to be frozen: those opened so far, then each as it happens.

        Ends when the store is closed. A core may be closed by then; its `fork_proof` can still be
        read. Cancel: loses nothing.
        """
        return self._store.frozen_cores()

    def statistics(self) -> CorestoreStatistics:
        store = self._store
        return CorestoreStatistics(
            len(store.logs),
            len(store.connections),
            dict(store.failures),
            hypercore_metrics(self.open_cores()),
        )

    async def get(
        self,
        *,
        name: str | None = None,
        key: bytes | None = None,
        key_pair: KeyPair | None = None,
        manifest: Manifest | None = None,
        encryption_key: bytes | None = None,
        block_key: bytes | None = None,
        encryption: BlockEncryption | None = None,
        user_data: Mapping[str, bytes] | None = None,
        group: bytes | None = None,
        create_if_missing: bool = True,
        overwrite: bool = False,
    ) -> Core:
        """Open a core; make it if it is new. Returns a handle of its own.

        By `name`, the core is ours to write, its key pair derived from the primary key. By `key`
        it may be anybody's, and the manifest may be left to peers. With a `key_pair` alone the
        core is the one of that sole signer; with a `manifest`, the one it stands for. A `key`
        that is the public key of `key_pair` makes a compat core, as Hypercore 10 did.

        Blocks are encrypted with an `encryption_key` (32 bytes, may serve many cores), a
        `block_key` (of this core alone) or in a way of the caller's; see `encryption`. With none
        of these, blocks are read as they are stored.

        `user_data` is written when the core is made. Close the core when done with it; the store
        closes the rest. To `overwrite` is to `purge` what is stored first. Once opened with a
        `group` (32 bytes), the core's changes are noted in `group_updates` ever after.

        Raises: UsageError (NoSuchCore without `create_if_missing`), InvalidManifest,
        WrongEncryptionKey, CorruptStorage, StorageFailed, TypeError.
        Cancel: never waits, unless there is something to overwrite.
        """
        self._check_open()
        choice = choose_encryption(encryption_key, block_key, encryption)
        options = OpenOptions(choice, user_data or {}, group, create_if_missing)
        if name is not None:
            if key is not None or key_pair is not None or manifest is not None:
                raise UsageError("a name and a key, key pair or manifest exclude one another")
            return await self._get_named(name, options, overwrite=overwrite)
        if manifest is None and key_pair is not None and key in (None, key_pair.public_key):
            manifest = Manifest.single_signer(key_pair.public_key)
        if key is None:
            if manifest is None:
                raise UsageError("which core? give its name, key, key pair or manifest")
            key = manifest.key
        if manifest is not None:
            manifest.check()
            Verifier(key, manifest)
        auth = AuthRecord.of(key, manifest, key_pair)
        return await self._get_or_create(auth, None, options, overwrite=overwrite)

    async def _get_named(self, name: str, options: OpenOptions, *, overwrite: bool) -> Core:
        known = self._store.catalog.find_name(self._namespace, name)
        if known is not None and overwrite:
            await self.purge(discovery_key=known)
        elif known is not None:
            core = self._store.get(known, options)
            if core is not None:
                return self._own(core)
        alias = Alias(self._namespace, name)
        return await self._get_or_create(self._keys_of(name), alias, options, overwrite=overwrite)

    async def _get_or_create(
        self, auth: AuthRecord, alias: Alias | None, options: OpenOptions, *, overwrite: bool
    ) -> Core:
        if overwrite:
            await self.purge(discovery_key=auth.discovery_key)
            self._check_open()
        return self._own(self._store.get_or_create(auth, alias, options))

    def _own(self, core: Core) -> Core:
        if self._session is not None:
            core.belong_to(self._session)
        return core

    def atom(self, *cores: Core) -> AbstractAsyncContextManager[Atom]:
        """Change several cores in one commit, or none of them.

            async with store.atom(towns, log) as atom:
                index = atom[towns].append(b"Delft")
                atom[log].append(b"%d" % index)

        `atom[core]` is the core as it will be. All of it becomes true, and is told to readers
        and peers, when the block ends; an exception in there takes everything back. Nobody else
        writes to these cores meanwhile. Leave the block quickly: they wait.

        Raises: UsageError for a core of another store; StorageFailed.
        Cancel: all of it was written, or nothing.
        """
        return open_atom(self._store.storage, cores)

    async def find(self, discovery_key: bytes) -> Core | None:
        """A core that is open or stored; None for any other. To be closed as after `get`.

        Raises: CorruptStorage. Cancel: never waits.
        """
        self._check_open()
        core = self._store.open(discovery_key)
        return None if core is None else self._own(core)

    async def import_version10(self, directory: Path) -> Core:
        """Take over a core that Hypercore 10 wrote, by the directory of its `oplog`.

        Key, key pair, name and user data stay the same, and the files as they are: from here on
        only one of the two may be written to, or the log has two histories. To be closed as
        after `get`. Every block is hashed.

        Raises: UsageError when the store has another state of the core, CorruptStorage, OSError,
        StorageFailed. Cancel: a part of the blocks is here; called again, it goes on.
        """
        self._check_open()
        source = await trio.to_thread.run_sync(Version10Core, directory)
        try:
            core = self._adopt(source)
            if core.length and core.head != source.head:
                raise UsageError(
                    f"the store has {core.length} blocks of this core at fork {core.fork}, "
                    f"the directory {source.head.length} at fork {source.head.fork}"
                )
            await core.commit_pieces(copy_changes(source, core, source.head))
        finally:
            source.close()
        return core

    def _adopt(self, source: Version10Core) -> Core:
        user_data = source.user_data
        name = user_data.pop("corestore/name", None)
        namespace = user_data.pop("corestore/namespace", None)
        alias = None
        if name is not None and namespace is not None:
            alias = Alias(namespace, name.decode(errors="replace"))
        auth = AuthRecord.of(source.key, source.manifest, source.key_pair)
        return self._own(self._store.get_or_create(auth, alias, OpenOptions(user_data=user_data)))

    async def replicate(
        self,
        mux: Multiplexer,
        is_allowed: Allow = allow_every_core,
        *,
        is_offered: Allow = allow_every_core,
        is_discreet: bool = False,
    ) -> None:
        """Replicate over one connection until it ends.

        Every core that is open now or later is offered if `is_offered` says yes, and any stored
        core is opened when the remote asks for it; both only if `is_allowed` says yes, too.
        If it `is_discreet`, nothing is offered: a remote that does not know a core's discovery key
        does not learn it. What was not offered may be later, see `offer`.
        A core that cannot be read or written any more is left out; `statistics` says why.

        Cancel: closes the channels of all cores; the connection stays.
        """
        self._check_open()
        offers = deny_every_core if is_discreet else is_offered
        await self._store.replicate(mux, is_allowed, offers)

    def offer(self, key: bytes) -> None:
        """Ask anew, for every connection, whether to offer a core, if it is open here."""
        log = self._store.logs.get(derive_discovery_key(key))
        if log is not None:
            self._store.offer(log)

    def _check_open(self) -> None:
        if self._store.is_closed or (self._session is not None and self._session.is_closed):
            raise trio.ClosedResourceError("the store is closed")


@contextmanager
def corestore_on(
    storage: Storage, *, primary_key: bytes | None = None, entropy: Entropy = system_entropy
) -> Iterator[Corestore]:
    """The store in a storage, which is closed afterward by whoever opened it.

    Raises: UsageError for another `primary_key`, CorruptStorage.
    """
    store = OpenStore(storage, Catalog(storage, primary_key, entropy))
    try:
        yield Corestore(store)
    finally:
        store.shut()


@asynccontextmanager
async def open_corestore(
    path: str | PathLike[str] | None,
    *,
    primary_key: bytes | None = None,
    durability: Durability = Durability.COMMIT,
    read_only: bool | None = None,
    entropy: Entropy = system_entropy,
) -> AsyncIterator[Corestore]:
    """Open the store in directory `path`, or one in memory; make it if it is new.

    A directory that was copied is opened for reading only, and `Corestore.why_read_only` says so:
    two writers of one log would sign two histories. With `read_only` false it is refused instead.

    Raises: StoreLocked, UsageError for another `primary_key`, CorruptStorage, CopiedStore when
    refused. Cancel: before the store is open, or inside the block; closing is not interrupted.
    """
    storage: Storage
    if path is None:
        storage = MemoryStorage()
    else:
        storage = await trio.to_thread.run_sync(_open_storage, Path(path), durability, read_only)
    try:
        with corestore_on(storage, primary_key=primary_key, entropy=entropy) as store:
            yield store
            del store
    finally:
        # Waits for the disk; short, and the directory must not stay locked.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(storage.close)


def _open_storage(path: Path, durability: Durability, read_only: bool | None) -> RocksStorage:
    if read_only:
        return RocksStorage(path, durability, read_only=True)
    try:
        return RocksStorage(path, durability)
    except CopiedStore as error:
        if read_only is not None:
            raise
        why = f"the store is read-only: {error}"
    return RocksStorage(path, durability, read_only=True, why_read_only=why)
