"""[trio] Repairing a whole store that is closed: what is lost of others' cores is fetched again.

First the database is copied around what cannot be read (`storage.salvage`), then every core is
audited from its blocks to its signature, and mended (`repair`). Somebody else's core of which not
even the head can be trusted begins anew. Our own cores cannot: another history would be signed.
One of which the newest head alone was lost goes on as a new fork (`lost_heads`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import trio

from hypercore import flat_tree
from hypercore.audit import AuditProgress
from hypercore.core import Core
from hypercore.corestore import Corestore, open_corestore
from hypercore.errors import CorruptStorage, UsageError
from hypercore.log import Changeset
from hypercore.lost_heads import carry_on, subtree
from hypercore.merkle import tree_hash
from hypercore.repair import merged
from hypercore.storage import Durability, Storage
from hypercore.storage.catalog import Catalog
from hypercore.storage.core_storage import CoreStorage
from hypercore.storage.layout import AuthRecord, DataKeys, HeadRecord, auth_key
from hypercore.storage.records import decode_record
from hypercore.storage.salvage import Salvage, salvage

_MOST_ROUNDS = 64
"""Repairs of one core, each with an audit; no tree has more levels to be mended one by one."""


@dataclass(frozen=True, slots=True)
class CoreRepair:
    """What became of one core."""

    discovery_key: bytes
    name: str | None
    key: bytes | None
    is_writable: bool
    audit: AuditProgress | None
    """The last audit; None when the core cannot be opened."""
    forgotten: tuple[tuple[int, int], ...]
    """Runs [start, stop) of blocks that peers will be asked for."""
    was_reset: bool
    """Whether all of it was forgotten, head included."""
    carried_on_at: int | None
    """The length at which our own core goes on as a new fork, since its newest head was lost."""
    is_recovering: bool
    """Whether it takes no more until peers have been asked (`Core.recover`)."""
    failure: str
    """Why it cannot be opened, or empty."""

    @property
    def is_sound(self) -> bool:
        return self.audit is not None and self.audit.is_sound


async def salvage_store(path: Path) -> Salvage:
    """As `storage.salvage.salvage`, in a thread. Raises: as there. Cancel: it is finished first."""
    return await trio.to_thread.run_sync(salvage, path)


async def repair_cores(path: Path, *, is_strict: bool) -> AsyncGenerator[CoreRepair, None]:
    """Audit and mend every core of a closed store, one after the other.

    `is_strict` is for a store whose salvage left gaps, see `Audit`.
    Raises: StoreLocked, CorruptStorage, StorageFailed. Cancel: what is done is done.
    """
    async with open_corestore(path, durability=Durability.COMMIT) as store:
        for discovery_key in store.discovery_keys():
            yield await _repair_core(store, discovery_key, is_strict)


async def _repair_core(store: Corestore, discovery_key: bytes, is_strict: bool) -> CoreRepair:
    was_reset = False
    carried_on_at: int | None = None
    failure = ""
    core: Core | None = None
    try:
        core = await store.find(discovery_key)
    except CorruptStorage as error:
        failure = str(error)
        try:
            has_roots = restore_roots(store.storage, discovery_key)
            carried_on_at = carry_on(store.storage, discovery_key)
            is_mended = has_roots or carried_on_at is not None
            was_reset = not is_mended and _reset(store.storage, discovery_key)
            if is_mended or was_reset:
                core = await store.find(discovery_key)
                failure = ""
        except CorruptStorage as still:  # the other cores are mended all the same
            failure = str(still)
    if core is None:
        return CoreRepair(
            discovery_key,
            name=_name(store.storage, discovery_key),
            key=None,
            is_writable=False,
            audit=None,
            forgotten=(),
            was_reset=False,
            carried_on_at=carried_on_at,
            is_recovering=False,
            failure=failure,
        )
    try:
        strictly = is_strict and not core.is_writable
        audit, forgotten = await _mend(core, strictly)
        return CoreRepair(
            discovery_key,
            name=_name(store.storage, discovery_key),
            key=core.key,
            is_writable=core.is_writable,
            audit=audit,
            forgotten=forgotten,
            was_reset=was_reset,
            carried_on_at=carried_on_at,
            is_recovering=core.is_recovering,
            failure=failure,
        )
    finally:
        core.release()


async def audit_core(core: Core, *, is_strict: bool = False) -> AuditProgress:
    """One audit, from beginning to end. Raises: StorageError. Cancel: nothing was changed."""
    last: AuditProgress | None = None
    async for progress in core.audit(is_strict=is_strict):
        last = progress
    if last is None:
        raise UsageError("an audit without an end")
    return last


async def _mend(core: Core, is_strict: bool) -> tuple[AuditProgress, tuple[tuple[int, int], ...]]:
    forgotten: list[tuple[int, int]] = []
    audit = await audit_core(core, is_strict=is_strict)
    for _ in range(_MOST_ROUNDS):
        if audit.is_sound:
            break
        before = audit.damage
        forgotten = merged([*forgotten, *await core.repair(audit.damage)])
        audit = await audit_core(core, is_strict=is_strict)
        if audit.damage == before:
            break
    return audit, tuple(forgotten)


def restore_roots(storage: Storage, discovery_key: bytes) -> bool:
    """Make the roots of a core anew from what lies below them, if that is what its head says."""
    record = Catalog(storage).find(discovery_key)
    if record is None:
        return False
    rows = CoreStorage(storage, discovery_key, record)
    data = storage.get(rows.keys.head)
    if data is None:
        return False
    try:
        head = decode_record("head", HeadRecord.decode, data)
    except CorruptStorage:
        return False
    roots = [subtree(rows, index) for index in flat_tree.full_roots(head.length)]
    found = [root for root in roots if root is not None]
    if len(found) < len(roots) or tree_hash(found) != head.tree_hash:
        return False
    batch = storage.batch()
    rows.stage_changes(batch, Changeset(nodes=found))
    storage.commit(batch)
    return True


def _reset(storage: Storage, discovery_key: bytes) -> bool:
    """Make somebody else's core an empty one that knows its key; False for one of ours."""
    record = Catalog(storage).find(discovery_key)
    data = None if record is None else storage.get(auth_key(record.core_pointer))
    if record is None or data is None:
        return False
    if decode_record("keys", AuthRecord.decode, data).key_pair is not None:
        return False
    keys = DataKeys(record.data_pointer)
    batch = storage.batch()
    batch.delete(keys.head)
    batch.delete(keys.hints)
    for start, stop in (keys.blocks(), keys.nodes(), keys.pages()):
        batch.delete_range(start, stop)
    storage.commit(batch)
    return True


def _name(storage: Storage, discovery_key: bytes) -> str | None:
    record = Catalog(storage).find(discovery_key)
    return record.alias.name if record is not None and record.alias is not None else None
