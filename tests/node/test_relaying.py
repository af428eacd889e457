"""Nodes that relay for others, and nodes that are reached through a web server."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from hypercore.crypto import KeyPair, decode_id, encode_id
from node.config import Config, load_config
from node.daemon import open_node
from node.errors import ConfigError
from node.relaying import relay_key_pair
from node.running import Node
from node.web.metrics import build_registry, render_metrics
from node.web.summary import status_rows
from swarm import open_hyperdht, open_mux
from swarm.blind_relay import PAIR, PROTOCOL, Pair
from swarm.io.dht import open_bootstrap

LOOPBACK = "127.0.0.1"
TOKEN = b"\x07" * 32


def config(data: Path, **flags: object) -> Config:
    quiet = dict.fromkeys(("ws", "mesh", "admin"), f"{LOOPBACK}:0")
    return load_config({"data": data, "discovery": "off", **quiet, **flags}, {})


async def wait_peers(node: Node, count: int) -> None:
    while len(node.peers()) != count:
        await trio.lowlevel.checkpoint()


async def test_a_node_relays_for_others_and_tells_the_key(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with (
            open_bootstrap(LOOPBACK, 0) as boot,
            open_hyperdht(
                bootstrap=[boot.address], host=LOOPBACK, port=0, is_open=True
            ) as hyperdht,
        ):
            where = f"{LOOPBACK}:{boot.address[1]}"
            wanted = config(tmp_path, discovery="dht", bootstrap=[where], serve_relay="1MiB")
            async with open_node(wanted) as node:
                relay = node.status().relay
                assert relay is not None
                assert (relay.links, relay.bytes_left) == (0, 2**20)
                key = decode_id(relay.key)
                assert key != node.id
                one, two = KeyPair.generate(), KeyPair.generate()
                await hyperdht.dht.wait_bootstrapped()
                while not [peer async for peer in hyperdht.dht.find_peer(key)]:
                    await trio.lowlevel.checkpoint()
                async with (
                    hyperdht.connect(key, one) as first,
                    hyperdht.connect(key, two) as second,
                    open_mux(first) as left,
                    open_mux(second) as right,
                ):
                    ours = await left.open_channel(PROTOCOL, one.public_key)
                    theirs = await right.open_channel(PROTOCOL, two.public_key)
                    ours.send(PAIR, Pair(True, TOKEN, 5).encode())
                    theirs.send(PAIR, Pair(False, TOKEN, 6).encode())
                    await ours.receive()
                    status = node.status()
                    assert status.relay is not None
                    assert status.relay.links == 1
                rows = dict(status_rows(status))
                assert rows["relays for others"] == "1 links, 1.0 MiB left today"
                assert rows["relay key"] == relay.key
                text = render_metrics(build_registry(node.status)).decode()
                assert "beemesh_relay_left_bytes 1.048576e+06" in text


def test_the_relay_keeps_its_key() -> None:
    identity = KeyPair.from_seed(b"\x01" * 32)
    assert relay_key_pair(identity) == relay_key_pair(KeyPair.from_seed(b"\x01" * 32))
    assert relay_key_pair(KeyPair.from_seed(b"\x02" * 32)) != relay_key_pair(identity)


async def test_nodes_meet_over_a_websocket_that_the_ticket_names(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with open_node(config(tmp_path / "a", name="a")) as first:
            port = first.mesh_addresses[0].rpartition(":")[2]
            url = f"ws://{LOOPBACK}:{port}/mesh"
            ticket = first.ticket()
            assert ticket is not None
        behind = config(tmp_path / "a", name="a", mesh=f"{LOOPBACK}:{port}", mesh_url=[url])
        async with open_node(behind) as first:
            assert first.mesh_addresses[-1] == url
            joining = config(tmp_path / "b", name="b", join=[url, ticket])
            async with open_node(joining) as second:
                await wait_peers(first, 1)
                await wait_peers(second, 1)
                (peer,) = second.peers()
                assert peer.reach in ("tcp", "websocket")
                assert second.status().ways == {peer.reach: 1}
                text = render_metrics(build_registry(second.status)).decode()
                assert f'beemesh_connections{{reach="{peer.reach}"}} 1.0' in text
                assert 'beemesh_connections{reach="punched"} 0.0' in text
                assert dict(status_rows(second.status()))["peers"] == f"1 (1 {peer.reach})"


async def test_a_url_alone_leads_to_a_node(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with open_node(config(tmp_path / "a", mesh_name="hive")) as first:
            port = first.mesh_addresses[0].rpartition(":")[2]
            url = f"ws://{LOOPBACK}:{port}/"
            async with open_node(config(tmp_path / "b", mesh_name="hive", join=[url])) as second:
                await wait_peers(second, 1)
                (peer,) = second.peers()
                assert (peer.reach, peer.address) == ("websocket", url)
                await wait_peers(first, 1)
                assert first.peers()[0].reach == "websocket"


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"relay": ["short"]}, "a key is 52"),
        ({"relay": [encode_id(bytes(32))]}, "--relay goes through the DHT"),
        ({"serve_relay": "1GiB"}, "--serve-relay goes through the DHT"),
        ({"serve_relay": "lots", "discovery": "dht"}, "no size"),
        ({"mesh_url": ["http://example.org"]}, "not a ws://"),
        ({"join": ["http://example.org"]}, "a ticket, HOST:PORT or a URL"),
    ],
)
async def test_what_cannot_be(flags: dict[str, object], match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        async with open_node(config(tmp_path, **flags)):
            pass
