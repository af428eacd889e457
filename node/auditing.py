"""[trio] `core verify`: what is stored against who signed it, and mending a store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

import trio

from hypercore.audit import AuditProgress
from hypercore.core import Core
from hypercore.corestore import Corestore
from hypercore.crypto import encode_id
from hypercore.errors import StorageError
from hypercore.store_repair import CoreRepair, repair_cores, salvage_store
from node.verbs import Result

_PROGRESS_SECONDS = 0.5
_SHOWN = 20
"""Runs of damage that are listed for each core."""


async def verify_store(store: Corestore) -> AsyncGenerator[Result, None]:
    """Audit every core of a store; yields progress, and after each core an object with `sound`.

    Raises: StorageError for damage to what says which cores there are.
    Cancel: nothing was changed.
    """
    names = await _names(store)
    for discovery_key in store.discovery_keys():
        name = names.get(discovery_key)
        try:
            core = await store.find(discovery_key)
        except StorageError as error:
            yield {
                "discovery_key": discovery_key.hex(),
                "name": name,
                "sound": False,
                "failure": str(error),
            }
            continue
        if core is None:
            continue
        try:
            async with aclosing(verify_core(core, name)) as results:
                async for result in results:
                    yield result
        finally:
            core.release()


async def _names(store: Corestore) -> dict[bytes, str | None]:
    """By discovery key, as far as damage lets them be read."""
    names: dict[bytes, str | None] = {}
    with suppress(StorageError):
        async for core in store.cores(is_here=True):
            names[core.discovery_key] = core.name
    return names


async def verify_core(core: Core, name: str | None) -> AsyncGenerator[Result, None]:
    """As `verify_store`, of one core."""
    named = {"key": encode_id(core.key), "name": name}
    told_at = trio.current_time()
    last: AuditProgress | None = None
    async with aclosing(core.audit()) as steps:
        async for last in steps:
            if trio.current_time() - told_at >= _PROGRESS_SECONDS:
                told_at = trio.current_time()
                yield {**named, "done": last.position, "total": last.length}
    assert last is not None
    yield {**named, **_describe(last)}


async def repair_store(path: Path) -> AsyncGenerator[Result, None]:
    """Mend the closed store in `path`; yields what was done to it, then an object for each core.

    Raises: StoreLocked, StorageError. Cancel: what is done is done.
    """
    salvage = await salvage_store(path)
    yield {
        "gaps": len(salvage.gaps),
        "reasons": sorted({gap.reason for gap in salvage.gaps}),
        "lost": [str(loss) for loss in salvage.lost],
        "sound": not any(loss.is_ours for loss in salvage.lost),
        "mended": list(salvage.mended),
        "damaged_files": None if salvage.damaged is None else str(salvage.damaged),
    }
    async with aclosing(repair_cores(path, is_strict=bool(salvage.gaps))) as repairs:
        async for repair in repairs:
            yield _describe_repair(repair)


def _describe(audit: AuditProgress) -> dict[str, object]:
    return {
        "length": audit.length,
        "blocks_verified": audit.blocks_verified,
        "blocks_unprovable": audit.blocks_unprovable,
        "tree_nodes_verified": audit.nodes_verified,
        "damaged_blocks": audit.damaged_blocks,
        "damaged_rows": audit.damaged_rows,
        "damage": [str(damage) for damage in audit.damage[:_SHOWN]],
        "sound": audit.is_sound,
    }


def _describe_repair(repair: CoreRepair) -> dict[str, object]:
    return {
        "discovery_key": repair.discovery_key.hex(),
        "key": None if repair.key is None else encode_id(repair.key),
        "name": repair.name,
        "ours": repair.is_writable,
        "begun_anew": repair.was_reset,
        "carried_on_at": repair.carried_on_at,
        "recovering": repair.is_recovering,
        "to_be_fetched": sum(stop - start for start, stop in repair.forgotten),
        "failure": repair.failure,
        **({"sound": False} if repair.audit is None else _describe(repair.audit)),
    }
