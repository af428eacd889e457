"""Verbs on the directory of a node that does not run."""

from __future__ import annotations

from collections.abc import Iterable

from hypercore.corestore import corestore_on
from hypercore.errors import StorageFailed
from node.logs import DATA_CORE, perform_on_store
from node.storing import open_data_core
from node.verbs import BeeCompact, CoreVerify, VerbError
from tests.simulation.clocks import on_host
from tests.simulation.determinism import Note
from tests.simulation.disk import LAST_KEY, DiskStorage
from tests.simulation.nodes import SimulatedNode
from tests.support.recovering_stores import mark_all_recovering


async def verify_directory(node: SimulatedNode) -> list[str]:
    """What `beemesh core verify` finds wrong."""
    storage = DiskStorage(node.disk, node.plan.durability)
    with corestore_on(storage, primary_key=node.primary_key) as store:
        verified = perform_on_store(store, CoreVerify(""), can_fetch=False)
        results = [result async for result in verified if "sound" in result]
    return [f"{node.name} has a damaged core: {item}" for item in results if not item["sound"]]


async def compact_directory(node: SimulatedNode, note: Note) -> None:
    """As `beemesh compact` does."""
    storage = DiskStorage(node.disk, node.plan.durability)
    with (
        on_host(node.host),
        corestore_on(storage, primary_key=node.primary_key) as store,
    ):
        if DATA_CORE not in store.names():
            return
        async with open_data_core(store, node.membership.data_key):
            try:
                async for done in perform_on_store(store, BeeCompact(), can_fetch=False):
                    note(f"{node.name} is compacted where it lies: {done['blocks']} blocks")
            except (StorageFailed, VerbError) as error:
                note(f"{node.name} cannot be compacted: {error}")


def salvage_directory(node: SimulatedNode, note: Note) -> None:
    """As `core verify --repair` leaves logs whose newest heads may be lost; here none is."""
    note(f"{node.name} is salvaged")
    storage = DiskStorage(node.disk, node.plan.durability)
    with corestore_on(storage, primary_key=node.primary_key) as store:
        mark_all_recovering(store)


def plaintext_of(node: SimulatedNode, texts: Iterable[bytes]) -> list[bytes]:
    """Which of these lie on its disk for all to read."""
    rows = [value for _, value in node.disk.copy().items(b"", LAST_KEY)]
    return [text for text in texts if any(text in row for row in rows)]


async def is_in_own_log(node: SimulatedNode, text: bytes) -> bool:
    """Whether its own data core holds that, for who has the key."""
    data = node.data
    if data is None:
        return False
    held = [index for index in range(data.length) if data.bitfield.get(index)]
    return text in b"".join([await data.get(index) for index in held])
