"""[trio] One open store: what all its namespaces and users share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakSet

import trio

from hypercore.core import Core
from hypercore.crypto import KeyPair
from hypercore.encryption import EncryptionChoice
from hypercore.errors import NoSuchCore, StorageError
from hypercore.given_rows import checked_user_data
from hypercore.groups import GroupUpdate, GroupWatch, check_group
from hypercore.manifest import Manifest
from hypercore.open_log import OpenLog
from hypercore.replication.channel import Multiplexer
from hypercore.replication.messages import PROTOCOL
from hypercore.storage import Storage
from hypercore.storage.catalog import Catalog
from hypercore.storage.core_storage import CoreStorage
from hypercore.storage.layout import Alias, AuthRecord
from hypercore.store_connection import Allow, StoreConnection
from hypercore.stored_log import StoredLog
from hypercore.watching import CoreWatch, FrozenWatch


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How a core is to be opened, see `Corestore.get`."""

    encryption: EncryptionChoice | None = None
    user_data: Mapping[str, bytes] = field(default_factory=dict)
    group: bytes | None = None
    create_if_missing: bool = True

    def __post_init__(self) -> None:
        """Raises: UsageError, TypeError for what could be written and not be read again."""
        checked_user_data(self.user_data)
        if self.group is not None:
            check_group(self.group)


class OpenStore:
    """The open logs and their storage, the connections, and the watches."""

    def __init__(self, storage: Storage, catalog: Catalog) -> None:
        self.storage = storage
        self.catalog = catalog
        self.logs: dict[bytes, OpenLog] = {}
        self.connections: set[StoreConnection] = set()
        self.failures: dict[bytes, StorageError] = {}
        self.watches: WeakSet[CoreWatch] = WeakSet()
        self.group_watches: WeakSet[GroupWatch] = WeakSet()
        self.frozen_watches: WeakSet[FrozenWatch] = WeakSet()
        self.is_closed = False
        self._own: dict[OpenLog, Core] = {}
        self._frozen: dict[bytes, Core] = {}
        """Cores that were frozen while they were open here, by discovery key, in that order."""

    def open_log(self, discovery_key: bytes, key_pair: KeyPair | None) -> OpenLog | None:
        """An open log, opened now if it is stored; its first handle keeps it open."""
        log = self.logs.get(discovery_key)
        if log is None:
            record = self.catalog.find(discovery_key)
            if record is None:
                return None
            stored = StoredLog(CoreStorage(self.storage, discovery_key, record), key_pair)
            stored.on_group_update = self.group_updated
            log = self.logs[discovery_key] = OpenLog(stored, self._forget, self.note_frozen)
            if log.log.fork_proof is not None:
                self.note_frozen(log)
            for watch in self.watches:
                watch.opened(self.own_handle(log))
        elif key_pair is not None:
            log.log.adopt_key_pair(key_pair)
        return log

    def own_handle(self, log: OpenLog) -> Core:
        """The store's own handle, which does not keep the log open."""
        core = self._own.get(log)
        if core is None or core.is_closed:
            core = self._own[log] = Core(log, is_weak=True)
        return core

    def own_handles(self) -> list[Core]:
        """The store's own handles of all open logs."""
        return [self.own_handle(log) for log in self.logs.values()]

    # --- opening cores --------------------------------------------------------------------------

    def open(
        self,
        discovery_key: bytes,
        encryption: EncryptionChoice | None = None,
        key_pair: KeyPair | None = None,
    ) -> Core | None:
        """A handle of a core that is open or stored; None for any other.

        Raises: UsageError when the encryption is another one, WrongEncryptionKey, CorruptStorage.
        """
        log = self.open_log(discovery_key, key_pair)
        if log is None:
            return None
        core = Core(log)
        if encryption is not None:
            try:
                core.use_encryption(encryption)
            except BaseException:  # damage, too: nobody else would close it
                core.release()
                raise
        return core

    def get(self, discovery_key: bytes, options: OpenOptions) -> Core | None:
        """As `open`; the core joins its group and is offered to peers."""
        core = self.open(discovery_key, options.encryption)
        return None if core is None else self._take_in(core, options.group)

    def get_or_create(self, auth: AuthRecord, alias: Alias | None, options: OpenOptions) -> Core:
        """As `get`, but a core that is new is made; it learns its manifest first.

        Raises: as `open`, and NoSuchCore.
        """
        core = self.open(auth.discovery_key, options.encryption, auth.key_pair)
        if core is None:
            if not options.create_if_missing:
                what = f"named {alias.name!r}" if alias else f"with key {auth.key.hex()}"
                raise NoSuchCore(f"no core {what} is stored here")
            if self.storage.is_read_only:
                why = self.storage.why_read_only
                raise NoSuchCore(f"no such core, and none can be made: {why}")
            self.catalog.create(auth, alias, options.user_data)
            core = self.open(auth.discovery_key, options.encryption, auth.key_pair)
        assert core is not None
        return self._take_in(core, options.group, auth.manifest)

    def _take_in(self, core: Core, topic: bytes | None, manifest: Manifest | None = None) -> Core:
        log = self.logs[core.discovery_key]
        try:
            if manifest is not None and not self.storage.is_read_only:
                core.learn_manifest(manifest)
            if topic is not None:
                log.join_group(self.catalog, topic)
        except BaseException:
            core.release()
            raise
        self.offer(log)
        return core

    async def purge(self, discovery_key: bytes) -> bool:
        """As `Corestore.purge`."""
        sequence = self.catalog.purge(discovery_key)
        if sequence is None:
            return False
        self.failures.pop(discovery_key, None)
        log = self.logs.get(discovery_key)
        if log is not None:
            log.close()
        await self.storage.wait_durable(sequence)
        return True

    # --- replicating them -----------------------------------------------------------------------

    async def replicate(self, mux: Multiplexer, is_allowed: Allow, is_offered: Allow) -> None:
        """As `Corestore.replicate`."""
        async with trio.open_nursery() as nursery:
            connection = StoreConnection(mux, is_allowed, is_offered, nursery, self.failures)
            self.connections.add(connection)
            try:
                for core in self.own_handles():
                    connection.offer(core)
                async for remote_open in mux.remote_opens(PROTOCOL):
                    connection.serve_asked(remote_open, self._find_asked(remote_open.id))
            finally:
                self.connections.discard(connection)
                nursery.cancel_scope.cancel()

    def offer(self, log: OpenLog) -> None:
        """Ask every connection anew whether to offer the core."""
        for connection in self.connections:
            connection.offer(self.own_handle(log))

    def _find_asked(self, discovery_key: bytes | None) -> Core | None:
        if discovery_key is None or self.storage.is_suspended:
            return None
        try:
            return self.open(discovery_key)
        except StorageError as error:
            self.failures[discovery_key] = error
            return None

    # --- its life -------------------------------------------------------------------------------

    def _forget(self, log: OpenLog) -> None:
        self._own.pop(log, None)
        if self.logs.get(log.discovery_key) is log:
            del self.logs[log.discovery_key]

    async def suspend(self) -> None:
        """As `Corestore.suspend`."""
        for log in list(self.logs.values()):
            await log.end_channels()
        await self.storage.suspend()

    async def resume(self) -> None:
        """As `Corestore.resume`."""
        await self.storage.resume()
        try:
            self.catalog.reload()
        except StorageError:
            with trio.CancelScope(shield=True):  # another store: nothing of ours belongs in there
                await self.storage.suspend()
            raise
        self._reload_logs()

    def recover(self) -> None:
        """As `Corestore.recover`."""
        self.storage.recover()
        self.failures.clear()
        self.catalog.reload()
        self._reload_logs()

    def _reload_logs(self) -> None:
        for log in list(self.logs.values()):
            try:
                self._reload(log)
            except StorageError as error:
                self.failures[log.discovery_key] = error
        for log in self.logs.values():
            self.offer(log)

    def _reload(self, log: OpenLog) -> None:
        record = self.catalog.find(log.discovery_key)
        if record is None or not log.is_stored_at(record):
            log.close()  # somebody else removed it meanwhile
        else:
            log.reload()

    def shut(self) -> None:
        self.is_closed = True
        for log in list(self.logs.values()):
            log.close()
        for watch in self.watches:
            watch.end()
        for group_watch in self.group_watches:
            group_watch.end()
        for frozen_watch in self.frozen_watches:
            frozen_watch.end()

    def group_updated(self, log: StoredLog) -> None:
        group = log.rows.group
        if self.group_watches and group is not None:
            update = GroupUpdate(log.key, log.head.length, log.head.fork)
            for watch in self.group_watches:
                if watch.topic == group.topic:
                    watch.updated(update)

    def note_frozen(self, log: OpenLog) -> None:
        """Called by the log: its writer is known to have signed two histories."""
        if log.discovery_key not in self._frozen:
            core = self._frozen[log.discovery_key] = self.own_handle(log)
            for watch in self.frozen_watches:
                watch.frozen(core)

    def frozen_cores(self) -> FrozenWatch:
        """As `Corestore.frozen_cores`."""
        watch = FrozenWatch(self._frozen.values())
        if self.is_closed:
            watch.end()
        self.frozen_watches.add(watch)
        return watch
