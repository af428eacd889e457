"""[trio] One open store: what all its namespaces and users share."""

from __future__ import annotations

from weakref import WeakSet

import trio

from hypercore.core import Core
from hypercore.crypto import KeyPair
from hypercore.errors import StorageError
from hypercore.groups import GroupUpdate, GroupWatch
from hypercore.open_log import OpenLog
from hypercore.storage import Storage
from hypercore.storage.catalog import Catalog
from hypercore.storage.core_storage import CoreStorage
from hypercore.store_connection import StoreConnection
from hypercore.stored_log import StoredLog
from hypercore.watching import CoreWatch


class OpenStore:
    """What all namespaces of one open store share."""

    def __init__(self, storage: Storage, catalog: Catalog) -> None:
        self.storage = storage
        self.catalog = catalog
        self.logs: dict[bytes, OpenLog] = {}
        self.connections: set[StoreConnection] = set()
        self.failures: dict[bytes, StorageError] = {}
        self.watches: WeakSet[CoreWatch] = WeakSet()
        self.group_watches: WeakSet[GroupWatch] = WeakSet()
        self.is_closed = False
        self._own: dict[OpenLog, Core] = {}
        self.frozen: dict[bytes, Core] = {}
        """Cores that were frozen while they were open here, by discovery key, in that order."""

        self.froze = trio.lowlevel.ParkingLot()

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
        """The store's own, which does not keep the log open."""
        core = self._own.get(log)
        if core is None or core.is_closed:
            core = self._own[log] = Core(log, is_weak=True)
        return core

    def _forget(self, log: OpenLog) -> None:
        self._own.pop(log, None)
        if self.logs.get(log.discovery_key) is log:
            del self.logs[log.discovery_key]

    async def suspend(self) -> None:
        for log in list(self.logs.values()):
            await log.end_channels()
        await self.storage.suspend()

    async def resume(self) -> None:
        await self.storage.resume()
        self._reload_all()

    def recover(self) -> None:
        self.storage.recover()
        self.failures.clear()
        self._reload_all()

    def _reload_all(self) -> None:
        self.catalog.reload()
        for log in list(self.logs.values()):
            try:
                self._reload(log)
            except StorageError as error:
                self.failures[log.discovery_key] = error
        for connection in self.connections:
            for log in self.logs.values():
                connection.offer(self.own_handle(log))

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

    def group_updated(self, log: StoredLog) -> None:
        group = log.rows.group
        if self.group_watches and group is not None:
            update = GroupUpdate(log.key, log.head.length, log.head.fork)
            for watch in self.group_watches:
                if watch.topic == group.topic:
                    watch.updated(update)

    def note_frozen(self, log: OpenLog) -> None:
        """Called by the log: its writer is known to have signed two histories."""
        self.frozen.setdefault(log.discovery_key, self.own_handle(log))
        self.froze.unpark_all()
