"""JavaScript's cores, mirrored by our node and read from it by JavaScript, and the other way."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from bee.bee import Bee
from hypercore.corestore import open_corestore
from hypercore.crypto import decode_id, discovery_key
from node.notation import parse_address
from node.verbs import AddMirror
from tests.interop.dht_peer import LOOPBACK, open_javascript_network
from tests.interop.replication_peer import listening, open_javascript_peer
from tests.node.test_mirrors import mirroring, perform, read_from, statuses, wait_complete

pytestmark = pytest.mark.interop

SIZE = 16  # nodes of the DHT


async def test_what_javascript_wrote_is_read_from_the_mirror_by_javascript(tmp_path: Path) -> None:
    async with mirroring(tmp_path) as node:
        host, port = parse_address(node.addresses.mesh or "")
        assert host == "127.0.0.1"
        async with open_javascript_peer() as owner:
            opened = await owner("open", id="a", name="log")
            await owner("fill", id="a", count=500, size=100)
            peers = (f"127.0.0.1:{(await owner('listen'))['port']}",)
            await perform(node, AddMirror(opened["key"], "js", peers=peers))
            await wait_complete(node, 500)
            await owner("fill", id="a", count=100, size=3000)
            await wait_complete(node, 600)
            digest = await owner("digest", id="a")
        # Its owner's process has ended.
        async with open_javascript_peer() as reader:
            await reader("open", id="b", key=opened["key"])
            await reader("connect", port=port)
            await reader("waitLength", id="b", length=600)
            await reader("download", id="b", start=0, stop=600)
            assert await reader("digest", id="b") == digest
            assert (await reader("events"))["events"] == []
        key = bytes.fromhex(opened["key"])
        assert len(await read_from(node, key, 600)) == 600, "ours reads it as well"


async def test_a_mirror_finds_javascript_that_dials_it(tmp_path: Path) -> None:
    """No address is given: the owner comes by, and is asked for what is mirrored."""
    async with mirroring(tmp_path) as node, open_javascript_peer() as owner:
        opened = await owner("open", id="a", name="log")
        await owner("fill", id="a", count=50, size=100)
        await perform(node, AddMirror(opened["key"]))
        await owner("connect", port=parse_address(node.addresses.mesh or "")[1])
        assert (await wait_complete(node, 50)).held == 50


async def test_what_we_wrote_is_read_from_the_mirror_by_javascript(tmp_path: Path) -> None:
    async with mirroring(tmp_path) as node:
        async with open_corestore(None) as store:
            core = await store.get(name="bee")
            bee = Bee(core)
            for number in range(100):
                await bee.put(b"key %d" % number, b"value")
            key, length = core.key, core.length
            async with listening(store.replicate) as port:
                await perform(node, AddMirror(key.hex(), kind="bee", peers=(f"127.0.0.1:{port}",)))
                assert (await wait_complete(node, length)).kind == "bee"
        async with open_javascript_peer() as reader:
            await reader("open", id="b", key=key.hex())
            await reader("connect", port=parse_address(node.addresses.mesh or "")[1])
            await reader("waitLength", id="b", length=length)
            blocks = await reader("getMany", id="b", indices=list(range(length)))
        mirrored = await read_from(node, decode_id(key.hex()), length)
        assert [bytes.fromhex(block) for block in blocks["blocks"]] == mirrored


async def test_javascript_is_found_by_the_discovery_key(tmp_path: Path) -> None:
    """Through a DHT of our own; nobody names an address."""
    with trio.fail_after(180):
        async with open_javascript_network(SIZE) as (js, _):
            port = (await js("bootstrap"))["port"]
            seed, blocks = "55" * 32, ["a", "b", "c"]
            made = await js("swarm", topic="51" * 32, seed=seed, name="js", blocks=blocks)
            topic = discovery_key(bytes.fromhex(made["core"])).hex()
            await js("swarm", topic=topic, seed=seed, name="js", blocks=[])
            table = {"discovery": "dht", "bootstrap": [f"{LOOPBACK}:{port}"]}
            async with mirroring(tmp_path, **table) as node:
                await perform(node, AddMirror(made["core"]))
                while not statuses(node)[0].is_complete:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                assert statuses(node)[0].held == len(blocks)
