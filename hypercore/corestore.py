"""[trio] Many logs in one store, by name or by key.

Source: corestore 7.12.5 index.js (names, namespaces, key pairs, which cores are replicated).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from hypercore.core import Core
from hypercore.crypto import Entropy, KeyPair, system_entropy
from hypercore.crypto import discovery_key as derive_discovery_key
from hypercore.errors import StorageError, UsageError
from hypercore.manifest import Manifest, Verifier
from hypercore.replication.channel import Multiplexer
from hypercore.replication.messages import PROTOCOL
from hypercore.storage import Durability, Storage
from hypercore.storage.catalog import Catalog, sub_namespace
from hypercore.storage.core_storage import CoreStorage
from hypercore.storage.layout import ROOT_NAMESPACE, Alias, AuthRecord
from hypercore.storage.memory import MemoryStorage
from hypercore.storage.rocks import RocksStorage
from hypercore.stored_log import StoredLog

Allow = Callable[[Core], bool]


def deny_every_core(core: Core) -> bool:
    """Offer nothing."""
    return False


def allow_every_core(core: Core) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class CorestoreStatistics:
    """What a store holds and has open."""

    open_cores: int
    connections: int
    failures: Mapping[bytes, StorageError]
    """Why a core could not be served to a peer, by discovery key."""


class _OpenStore:
    """What all namespaces of one open store share."""

    def __init__(self, storage: Storage, catalog: Catalog) -> None:
        self.storage = storage
        self.catalog = catalog
        self.cores: dict[bytes, Core] = {}
        self.connections: set[_Connection] = set()
        self.failures: dict[bytes, StorageError] = {}
        self.is_closed = False

    def forget(self, core: Core) -> None:
        if self.cores.get(core.discovery_key) is core:
            del self.cores[core.discovery_key]


class Corestore:
    """An open store, seen from one namespace."""

    def __init__(self, store: _OpenStore, namespace: bytes = ROOT_NAMESPACE) -> None:
        self._store = store
        self._namespace = namespace

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

    def namespace(self, name: str) -> Corestore:
        """The same store; names in there are other cores than the same names here."""
        return Corestore(self._store, sub_namespace(self._namespace, name))

    def names(self) -> list[str]:
        """Names of the cores made in this namespace, in order."""
        return [name for name, _ in self._store.catalog.names(self._namespace)]

    def discovery_keys(self) -> list[bytes]:
        """Of all cores in the store, in every namespace."""
        return list(self._store.catalog.discovery_keys())

    async def recover(self) -> None:
        """Go on after StorageFailed, when there is room again, or the disk works: nothing is lost.

        What was not acknowledged may be there or not; what had been written and never synced is
        read back and written anew. All cores stay open, and are offered to peers again.

        Raises: StorageFailed when the disk still cannot be written (reads go on as before),
        CorruptStorage. Cancel: never waits; blocks for as long as opening does.
        """
        self._check_open()
        store = self._store
        store.storage.recover()
        store.catalog.reload()
        store.failures.clear()
        for core in self.open_cores():
            core.reload()
            self._offer(core)

    async def reclaim(self) -> None:
        """Give the room of cleared blocks back: no file of the store holds their bytes any more.

        Rewrites the whole store, at some 200 MB a second; reads and appends go on meanwhile.

        Raises: StorageFailed. Cancel: it is finished first.
        """
        await self._store.storage.reclaim()

    def open_cores(self) -> list[Core]:
        return list(self._store.cores.values())

    def statistics(self) -> CorestoreStatistics:
        store = self._store
        return CorestoreStatistics(len(store.cores), len(store.connections), dict(store.failures))

    async def get(
        self,
        *,
        name: str | None = None,
        key: bytes | None = None,
        key_pair: KeyPair | None = None,
        manifest: Manifest | None = None,
        encryption_key: bytes | None = None,
        user_data: Mapping[str, bytes] | None = None,
    ) -> Core:
        """Open a core; make it if it is new. The same core is the same object.

        By `name`, the core is ours to write, its key pair derived from the primary key. By `key`
        it may be anybody's, and the manifest may be left to peers. With a `key_pair` alone the
        core is the one of that sole signer; with a `manifest`, the one it stands for.
        `user_data` is written when the core is made. Close the core when done with it; the store
        closes the rest.

        Raises: UsageError, CorruptStorage, StorageFailed. Cancel: never waits.
        """
        self._check_open()
        if name is not None:
            if key is not None or key_pair is not None or manifest is not None:
                raise UsageError("a name and a key, key pair or manifest exclude one another")
            return self._get_named(name, encryption_key, user_data or {})
        if manifest is None and key is None and key_pair is not None:
            manifest = Manifest.single_signer(key_pair.public_key)
        if key is None:
            if manifest is None:
                raise UsageError("which core? give its name, key, key pair or manifest")
            key = manifest.key
        elif manifest is not None:
            _check_manifest(key, manifest)
        auth = _make_auth(key, manifest, key_pair)
        return self._get_or_create(auth, None, encryption_key, user_data or {})

    def _get_named(
        self, name: str, encryption_key: bytes | None, user_data: Mapping[str, bytes]
    ) -> Core:
        catalog = self._store.catalog
        known = catalog.find_name(self._namespace, name)
        if known is not None:
            core = self._open(known, encryption_key, None)
            if core is not None:
                return self._offer(core)
        key_pair = catalog.key_pair(self._namespace, name)
        manifest = Manifest.single_signer(key_pair.public_key)
        auth = _make_auth(manifest.key, manifest, key_pair)
        return self._get_or_create(auth, Alias(self._namespace, name), encryption_key, user_data)

    def _get_or_create(
        self,
        auth: AuthRecord,
        alias: Alias | None,
        encryption_key: bytes | None,
        user_data: Mapping[str, bytes],
    ) -> Core:
        core = self._open(auth.discovery_key, encryption_key, auth.key_pair)
        if core is None:
            if self.is_read_only:
                raise UsageError("no such core, and the store is read-only")
            self._store.catalog.create(auth, alias, user_data)
            core = self._open(auth.discovery_key, encryption_key, auth.key_pair)
        assert core is not None
        return self._offer(core)

    def _open(
        self, discovery_key: bytes, encryption_key: bytes | None, key_pair: KeyPair | None
    ) -> Core | None:
        store = self._store
        core = store.cores.get(discovery_key)
        if core is not None:
            if encryption_key is not None:
                core.use_encryption(encryption_key)
            return core.opened()
        record = store.catalog.find(discovery_key)
        if record is None:
            return None
        log = StoredLog(CoreStorage(store.storage, discovery_key, record), key_pair)
        core = Core(log, store.forget)
        if encryption_key is not None:
            core.use_encryption(encryption_key)
        store.cores[discovery_key] = core
        return core.opened()

    def _offer(self, core: Core) -> Core:
        for connection in self._store.connections:
            connection.offer(core)
        return core

    async def find(self, discovery_key: bytes) -> Core | None:
        """A core that is open or stored; None for any other. To be closed as after `get`."""
        self._check_open()
        return self._open(discovery_key, None, None)

    async def replicate(
        self, mux: Multiplexer, is_allowed: Allow = allow_every_core, *, is_discreet: bool = False
    ) -> None:
        """Replicate over one connection until it ends.

        Every core that is open now or later is offered, and any stored core is opened when
        the remote asks for it, as far as `is_allowed` says yes. Who `is_discreet` offers
        nothing: a remote that does not know a core's discovery key does not learn it.
        A core that cannot be read or written any more is left out; `statistics` tells.

        Cancel: closes the channels of all cores; the connection stays.
        """
        self._check_open()
        async with trio.open_nursery() as nursery:
            offers = deny_every_core if is_discreet else is_allowed
            connection = _Connection(mux, is_allowed, offers, nursery, self._store.failures)
            self._store.connections.add(connection)
            try:
                for core in self.open_cores():
                    connection.offer(core)
                async for remote_open in mux.remote_opens(PROTOCOL):
                    if not connection.serve_asked(self._find_asked(remote_open.id)):
                        remote_open.reject()
            finally:
                self._store.connections.discard(connection)
                nursery.cancel_scope.cancel()

    def _find_asked(self, discovery_key: bytes | None) -> Core | None:
        if discovery_key is None:
            return None
        try:
            return self._open(discovery_key, None, None)
        except StorageError as error:
            self._store.failures[discovery_key] = error
            return None

    def _check_open(self) -> None:
        if self._store.is_closed:
            raise trio.ClosedResourceError("the store is closed")


class _Connection:
    """One connection on which cores are replicated."""

    def __init__(
        self,
        mux: Multiplexer,
        is_allowed: Allow,
        is_offered: Allow,
        nursery: trio.Nursery,
        failures: dict[bytes, StorageError],
    ) -> None:
        self._mux = mux
        self._is_allowed = is_allowed
        self._is_offered = is_offered
        self._nursery = nursery
        self._failures = failures
        self._served: set[Core] = set()

    def offer(self, core: Core) -> None:
        """Open the core's channel, unless it is open."""
        if core not in self._served and self._is_allowed(core) and self._is_offered(core):
            self._served.add(core)
            self._nursery.start_soon(self._serve, core)

    def serve_asked(self, core: Core | None) -> bool:
        """Serve a core that the remote opened; False when it is not to have it."""
        if core is None:
            return False
        if not self._is_allowed(core):
            core.release()
            return False
        if core in self._served:
            core.release()  # our own open, on its way or about to leave, answers theirs
            return True
        self._served.add(core)
        self._nursery.start_soon(self._serve_and_release, core)
        return True

    async def _serve_and_release(self, core: Core) -> None:
        try:
            await self._serve(core)
        finally:
            core.release()

    async def _serve(self, core: Core) -> None:
        try:
            await core.serve(self._mux)
        except StorageError as error:
            # A bad disk ends one core, not the connection of all of them.
            self._failures[core.discovery_key] = error
        finally:
            self._served.discard(core)


def _make_auth(key: bytes, manifest: Manifest | None, key_pair: KeyPair | None) -> AuthRecord:
    return AuthRecord(
        key,
        derive_discovery_key(key),
        manifest,
        key_pair.public_key if key_pair else None,
        key_pair.secret_key if key_pair else None,
    )


def _check_manifest(key: bytes, manifest: Manifest) -> None:
    try:
        Verifier(key, manifest)
    except ValueError as error:
        raise UsageError(str(error)) from error


@asynccontextmanager
async def open_corestore(
    path: Path | None,
    *,
    primary_key: bytes | None = None,
    durability: Durability = Durability.COMMIT,
    read_only: bool = False,
    entropy: Entropy = system_entropy,
) -> AsyncIterator[Corestore]:
    """Open the store in directory `path`, or one in memory; make it if it is new.

    Raises: StoreLocked, UsageError for another `primary_key`, CorruptStorage (a copied directory
    too). Cancel: before the store is open, or inside the block; closing is not interrupted.
    """
    storage: Storage
    if path is None:
        storage = MemoryStorage()
    else:
        storage = await trio.to_thread.run_sync(_open_storage, path, durability, read_only)
    try:
        store = _OpenStore(storage, Catalog(storage, primary_key, entropy))
        try:
            yield Corestore(store)
        finally:
            store.is_closed = True
            for core in list(store.cores.values()):
                core.shut()
            del store
    finally:
        # Waits for the disk; short, and the directory must not stay locked.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(storage.close)


def _open_storage(path: Path, durability: Durability, read_only: bool) -> RocksStorage:
    return RocksStorage(path, durability, read_only=read_only)
