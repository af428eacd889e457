"""A whole node that mirrors, checks and describes the core of a writer that signs anything."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest
import trio

from hypercore.core import Core
from hypercore.corestore import open_corestore
from hypercore.crypto import KeyPair, encode_id
from node.block_cache import TRIM_SECONDS
from node.running import Node
from node.verbs import (
    AddMirror,
    BeeInfo,
    CoreClear,
    CoreGet,
    CoreInfo,
    CoreList,
    CoreProof,
    CoreVerify,
    ExitCode,
    ListMirrors,
    RemoveMirror,
    Verb,
    VerbError,
)
from node.web.page import render_status
from tests.node.test_mirrors import mirroring, sharing, wait_complete
from tests.support.hostile_writers import HostileWriter
from tests.support.stalls import unharmed

WRITER = HostileWriter(KeyPair.from_seed(b"h" * 32))
KEY = encode_id(WRITER.key)
PATIENCE_SECONDS = 0.05


async def perform(node: Node, verb: Verb) -> None:
    with suppress(VerbError):
        async for _ in node.perform(verb):
            pass


async def use(node: Node) -> None:
    """Everything that a node does with a core of others."""
    verbs: tuple[Verb, ...] = (
        CoreInfo(KEY, PATIENCE_SECONDS),
        CoreGet(KEY, 1, PATIENCE_SECONDS),
        CoreProof(KEY, timeout_seconds=PATIENCE_SECONDS),
        BeeInfo(KEY, PATIENCE_SECONDS),
        CoreClear(KEY, 0, 2**30),
        CoreVerify(),
        CoreList(),
        ListMirrors(),
    )
    for verb in verbs:
        await perform(node, verb)
    status = node.status()
    assert [mirror.key for mirror in status.mirrors] == [KEY]
    assert render_status(status, node.peers())


async def sign_anything(core: Core) -> None:
    for changes in chain(WRITER.unreadable(), WRITER.absurdities()):
        await core.commit_pieces([changes])
        await trio.sleep(TRIM_SECONDS / 10)


async def test_a_node_that_mirrors_it_goes_on(tmp_path: Path) -> None:
    async with (
        open_corestore(None) as store,
        mirroring(tmp_path, cache_bytes=1) as node,
        sharing(store) as address,
    ):
        core, honest = await store.get(key=WRITER.key), await store.get(name="log")
        await perform(node, AddMirror(KEY, peers=(address,)))
        with unharmed():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sign_anything, core)
                for _ in range(10):
                    await use(node)
                    await trio.sleep(TRIM_SECONDS / 10)
            await honest.append([b"block"] * 100)
            await perform(node, RemoveMirror(KEY))
            await perform(node, AddMirror(encode_id(honest.key), peers=(address,)))
            await wait_complete(node, 100)
        with pytest.raises(VerbError, match=r"none of \d connected peers") as raised:
            async for _ in node.perform(CoreGet(KEY, 1, PATIENCE_SECONDS)):
                pass
        assert raised.value.code == ExitCode.TIMEOUT
