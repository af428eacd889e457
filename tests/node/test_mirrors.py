"""Cores of others that nodes keep and serve."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from bee.bee import Bee
from hypercore.corestore import Corestore, open_corestore
from hypercore.crypto import KeyPair, encode_id
from hypercore.replication.messages import PROTOCOL
from node.cli.app import main
from node.client import AdminClient
from node.config import load_config
from node.daemon import open_node
from node.errors import ConfigError
from node.mirror_file import MirrorSpec, load_mirrors, save_mirrors, told_by_key
from node.running import Node
from node.verbs import (
    AddMirror,
    BeeCompact,
    CoreInfo,
    ExitCode,
    ListMirrors,
    MirrorVerb,
    RemoveMirror,
    VerbError,
)
from node.web.status import MirrorStatus
from swarm.io.connection import open_connection
from swarm.io.mux import open_mux
from tests.node.mesh.nodes import wait_until
from tests.support.running_node import open_running_node

KEY = KeyPair.from_seed(bytes(32)).public_key


@asynccontextmanager
async def mirroring(data: Path, **flags: object) -> AsyncIterator[Node]:
    quiet = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    config = load_config({"data": data, "discovery": "off", **quiet, **flags}, {})
    async with open_node(config) as node:
        yield node


async def perform(node: Node, verb: MirrorVerb) -> list[dict[str, object]]:
    return [dict(result) async for result in node.perform(verb)]


def statuses(node: Node) -> tuple[MirrorStatus, ...]:
    assert node.mirrors is not None
    return node.mirrors.statistics()


async def wait_complete(node: Node, length: int) -> MirrorStatus:
    """Return when all that is wanted of so long a core is here."""
    await wait_until(lambda: statuses(node)[0].length >= length and statuses(node)[0].is_complete)
    return statuses(node)[0]


async def _serve(store: Corestore, stream: trio.SocketStream, *, is_initiator: bool) -> None:
    try:
        async with (
            open_connection(stream, KeyPair.generate(), is_initiator=is_initiator) as connection,
            open_mux(connection, accept=[PROTOCOL]) as mux,
        ):
            await store.replicate(mux)
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel):
        pass  # the node went


@asynccontextmanager
async def sharing(store: Corestore) -> AsyncIterator[str]:
    """A hypercore peer that is no node, on TCP; where it listens."""
    async with trio.open_nursery() as nursery:
        serve = partial(_serve, store, is_initiator=False)
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        )
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def read_from(node: Node, key: bytes, count: int) -> list[bytes]:
    """All blocks of a core, as a peer that knows its key gets them from this node alone."""
    host, _, port = (node.addresses.mesh or "").rpartition(":")
    async with open_corestore(None) as store, trio.open_nursery() as nursery:
        core = await store.get(key=key)
        stream = await trio.open_tcp_stream(host, int(port))
        nursery.start_soon(partial(_serve, store, stream, is_initiator=True))
        with trio.fail_after(20):
            await core.wait_length(count)
            blocks = await core.get_many(range(count))
        nursery.cancel_scope.cancel()
        return blocks


async def test_a_mirror_serves_what_its_owner_had(tmp_path: Path) -> None:
    blocks = [b"block %d" % number for number in range(300)]
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append(blocks[:200])
        key = core.key
        async with mirroring(tmp_path / "a") as node:
            async with sharing(store) as address:
                [added] = await perform(node, AddMirror(encode_id(key), "a log", peers=(address,)))
                assert (added["name"], added["is_complete"]) == ("a log", False)
                await wait_complete(node, 200)
                await core.append(blocks[200:])
                status = await wait_complete(node, 300)
                assert (status.kind, status.wanted, status.held) == ("core", 300, 300)
                assert node.status().mirrors == (status,)
            # The owner is away.
            assert await read_from(node, key, 300) == blocks
        async with mirroring(tmp_path / "a") as node:
            assert (await wait_complete(node, 300)).name == "a log"
            assert await read_from(node, key, 300) == blocks
            [removed] = await perform(node, RemoveMirror("a log"))
            assert removed["key"] == encode_id(key)
            assert await perform(node, ListMirrors()) == []
        async with mirroring(tmp_path / "a") as node:
            assert await perform(node, ListMirrors()) == []


async def test_a_mirror_of_what_its_owner_has_given_up_says_why_it_is_not_whole(
    tmp_path: Path,
) -> None:
    """As a compacted bee; it went on saying that so many percent were here."""
    async with open_corestore(None) as store, mirroring(tmp_path) as node:
        core = await store.get(name="log")
        await core.append([b"%d" % number for number in range(100)])
        await core.clear(40, 50)
        async with sharing(store) as address:
            await perform(node, AddMirror(encode_id(core.key), peers=(address,)))
            await wait_until(lambda: statuses(node)[0].held == 90)
            await wait_until(lambda: bool(statuses(node)[0].trouble))
            said = "no peer has block 40: its owner may have given it up"
            assert statuses(node)[0].trouble == said


async def test_mirrors_by_range_and_of_bees(tmp_path: Path) -> None:
    async with open_corestore(None) as store, mirroring(tmp_path) as node:
        core, bees = await store.get(name="log"), await store.get(name="bee")
        await core.append([b"%d" % number for number in range(100)])
        await Bee(bees).put(b"k", b"v")
        async with sharing(store) as address:
            ranged = AddMirror(encode_id(core.key), range="10:30", peers=(address,))
            await perform(node, ranged)
            status = await wait_complete(node, 100)
            assert (status.start, status.stop, status.wanted) == (10, 30, 20)
            await perform(node, RemoveMirror(encode_id(core.key)))
            await perform(node, AddMirror(bees.key.hex(), kind="bee", peers=(address,)))
            assert (await wait_complete(node, 2)).kind == "bee"
            await perform(node, RemoveMirror(bees.key.hex()))
            await perform(node, AddMirror(encode_id(core.key), kind="bee", peers=(address,)))
            await wait_until(lambda: bool(statuses(node)[0].trouble))
            assert statuses(node)[0].trouble == "it is no bee: its first block is no header"


async def test_a_node_of_another_mesh_is_mirrored_by_its_key(tmp_path: Path) -> None:
    """Who knows a core's key may have it; they are no members of one another's mesh."""
    async with mirroring(tmp_path / "a") as owner, mirroring(tmp_path / "b") as keeper:
        assert owner.key is not None
        address = owner.addresses.mesh
        assert address is not None
        await perform(keeper, AddMirror(owner.key.hex(), "other", peers=(address,)))
        await wait_until(lambda: statuses(keeper)[0].peers > 0)
        assert keeper.mesh is not None
        assert not keeper.mesh.members
        cores = {core.key for core in owner.store.open_cores()}
        assert keeper.key not in cores, "it was told of nothing but what it was asked for"


async def test_a_mirror_that_nobody_serves_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.mirrors.SERVE_SECONDS", 0.1)
    async with mirroring(tmp_path / "a") as owner, mirroring(tmp_path / "b") as keeper:
        assert owner.mesh is not None
        assert owner.keeper is not None
        assert owner.key is not None
        address = owner.addresses.mesh
        assert address is not None
        records = [owner.mesh.membership.revoke(owner.keeper.identity, KEY, "", unix_seconds=1)]
        await owner.keeper.take(records)
        await perform(keeper, AddMirror(owner.key.hex(), peers=(address, "127.0.0.1:1")))
        await wait_until(lambda: statuses(keeper)[0].trouble.count(";") == 1)
        served, reached = statuses(keeper)[0].trouble.split("; ")
        assert served.startswith(f"{address} does not serve it: ")
        assert reached.startswith("127.0.0.1:1 is not reached: ")


@pytest.mark.parametrize(
    ("verb", "code", "text"),
    [
        (AddMirror("nonsense"), ExitCode.USAGE, "a key is 52"),
        (AddMirror(KEY.hex(), range="5"), ExitCode.USAGE, "no range of blocks"),
        (AddMirror(KEY.hex(), range="5:5"), ExitCode.USAGE, "no block is in 5:5"),
        (AddMirror(KEY.hex(), peers=("x",)), ExitCode.USAGE, "no HOST:PORT"),
        (RemoveMirror(KEY.hex()), ExitCode.NOT_FOUND, "beemesh mirrors"),
    ],
)
async def test_what_cannot_be_mirrored(
    tmp_path: Path, verb: MirrorVerb, code: ExitCode, text: str
) -> None:
    async with mirroring(tmp_path) as node:
        with pytest.raises(VerbError, match=text) as caught:
            await perform(node, verb)
        assert caught.value.code is code
        assert node.key is not None
        with pytest.raises(VerbError, match="this node writes that core"):
            await perform(node, AddMirror(node.key.hex()))


def test_the_file_of_mirrors(tmp_path: Path) -> None:
    path = tmp_path / "mirrors.json"
    assert load_mirrors(path) == []
    mirrors = [MirrorSpec(KEY.hex(), "a", "bee", 3, 9, ("h:1",)), MirrorSpec("00" * 32)]
    save_mirrors(path, mirrors)
    assert load_mirrors(path) == mirrors
    for text in ("{", '[{"key": "x"}]', f'[{{"key": "{KEY.hex()}", "start": -1}}]'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="mend it"):
            load_mirrors(path)


def test_the_file_of_mirrors_keeps_what_a_newer_version_wrote(tmp_path: Path) -> None:
    path = tmp_path / "mirrors.json"
    path.write_text(
        f'[{{"key": "{KEY.hex()}", "color": {{"of": 12345678901234567890}}}},'
        f' {{"key": "{bytes(32).hex()}", "color": 2}}]'
    )
    first, _ = load_mirrors(path)
    save_mirrors(path, [MirrorSpec("11" * 32), msgspec.structs.replace(first, name="a")])
    new, kept = json.loads(path.read_bytes())
    assert (kept["name"], kept["color"]) == ("a", {"of": 12345678901234567890})
    assert "color" not in new
    save_mirrors(path, [])
    save_mirrors(path, [first])
    assert "color" not in path.read_text(), "it was given up"


async def test_a_peer_that_is_dialed_for_more_than_a_mirror_stays_one(tmp_path: Path) -> None:
    connections: list[trio.SocketStream] = []

    async def note(stream: trio.SocketStream) -> None:
        connections.append(stream)
        await _serve(store, stream, is_initiator=False)

    async with open_corestore(None) as store, trio.open_nursery() as nursery:
        core = await store.get(name="log")
        await core.append([b"block"])
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, note, 0, host="127.0.0.1")
        )
        where = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with mirroring(tmp_path, join=(where,), mesh_name="bees") as node:
            await perform(node, AddMirror(encode_id(core.key), peers=(where,)))
            await wait_complete(node, 1)
            await perform(node, RemoveMirror(encode_id(core.key)))
            count = len(connections)
            await connections[-1].aclose()
            await wait_until(lambda: len(connections) > count)
        nursery.cancel_scope.cancel()


async def test_mirrors_on_the_command_line(tmp_path: Path) -> None:
    async with open_corestore(None) as store, sharing(store) as address:
        core = await store.get(name="log")
        await core.append([b"1", b"2", b"3"])
        async with open_running_node(tmp_path) as node:
            key = encode_id(core.key)
            added = await node.beemesh("mirror", key, "--name", "log", "--peer", address, "--json")
            assert (added.code, added.lines[0]["key"]) == (0, key)
            client = AdminClient.find(tmp_path)
            assert client is not None
            with trio.fail_after(20):
                while not (await trio.to_thread.run_sync(next, client.perform(ListMirrors())))[
                    "is_complete"
                ]:
                    pass
            shown = await node.beemesh("mirrors", "--json")
            assert shown.lines[0]["held"] == 3
            gone = await node.beemesh("unmirror", "log")
            assert (gone.code, key in gone.out, "3 of 3, 100 %" in gone.out) == (0, True, True)
            assert gone.out.startswith("This core is not kept any more")


async def test_a_mirror_is_called_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_corestore(None) as store, sharing(store) as address:
        core = await store.get(name="log")
        await core.append([b"1", b"2", b"3"])
        async with mirroring(tmp_path) as node:
            await perform(node, AddMirror(core.key.hex(), name="theirs", peers=(address,)))
            await wait_complete(node, 3)
            told = [result async for result in node.perform(CoreInfo("theirs"))]
            assert told[0]["key_hex"] == core.key.hex()
    capsys.readouterr()  # the node's log
    get = ["core", "get", "theirs", "2", "--data", str(tmp_path)]
    assert await trio.to_thread.run_sync(main, get) == ExitCode.OK
    assert capsys.readouterr().out == "3"


def test_a_core_of_ours_is_not_taken_for_a_mirror_of_its_name() -> None:
    mirrors = [MirrorSpec(KEY.hex(), name="log")]
    assert told_by_key(CoreInfo("log"), mirrors, ["log"]) == CoreInfo("log")
    assert told_by_key(CoreInfo("log"), mirrors, []) == CoreInfo(KEY.hex())
    assert told_by_key(BeeCompact(), [MirrorSpec(KEY.hex())], []) == BeeCompact()
