"""Nodes that find one another through a DHT of their own, and what they remember of it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import trio

from hypercore.crypto import system_entropy
from node.cli.app import main
from node.config import Config, load_config
from node.daemon import open_node
from node.examination import Verdict, examine_network
from node.running import Node
from node.table import MAX_PEERS, Remembered
from node.verbs import BeeGet, BeeInfo, BeePut
from swarm.announcement import Address, create_instance_name
from swarm.io.dht import open_bootstrap
from swarm.io.mdns import open_mdns

LOOPBACK = "127.0.0.1"
NOBODY = f"{LOOPBACK}:9"


def config(data: Path, bootstrap: Address | str, **flags: object) -> Config:
    where = bootstrap if isinstance(bootstrap, str) else f"{bootstrap[0]}:{bootstrap[1]}"
    quiet = dict.fromkeys(("ws", "mesh", "admin"), f"{LOOPBACK}:0")
    common = {"discovery": "dht", "bootstrap": [where], "mesh_name": "hive"}
    return load_config({"data": data, **common, **quiet, **flags}, {})


async def wait_peers(node: Node, count: int) -> None:
    while len(node.peers()) != count:
        await trio.lowlevel.checkpoint()


async def test_members_of_a_mesh_find_each_other_and_share_a_bee(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with (
            open_bootstrap(LOOPBACK, 0) as boot,
            open_node(config(tmp_path / "a", boot.address, name="a")) as first,
            open_node(config(tmp_path / "b", boot.address, name="b")) as second,
        ):
            await wait_peers(first, 1)
            await wait_peers(second, 1)
            reports = [*first.peers(), *second.peers()]
            assert {report.reach for report in reports} == {"lan"}
            assert {report.found_by for report in reports} == {"dht", "incoming"}
            [_] = [r async for r in first.perform(BeePut("list", b"k", b"v"))]
            [info] = [r async for r in first.perform(BeeInfo("list"))]
            [entry] = [r async for r in second.perform(BeeGet(str(info["key"]), b"k"))]
            assert entry["value"] == "v"
        # Both have written down whom they met; without a bootstrap node they meet again.
        [met] = Remembered.load(tmp_path / "b" / "dht.json").peers
        assert met in (first.id, second.id)


def test_whom_a_node_meets_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "dht.json"
    path.write_text("what an older version left, for everybody to read")
    met = Remembered((("192.0.2.1", 1),), {bytes(32): (("192.0.2.2", 2),)})
    met.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Remembered.load(path) == met
    assert list(tmp_path.iterdir()) == [path]


async def seconds_to_start_and_stop(config: Config) -> tuple[float, float]:
    started = trio.current_time()
    async with open_node(config) as node:
        assert node.status().discovery == config.discovery
        assert node.missing_for_ready() == []
        ready = trio.current_time()
    return ready - started, trio.current_time() - ready


async def test_without_the_network_a_node_starts_and_stops_as_fast(tmp_path: Path) -> None:
    await seconds_to_start_and_stop(config(tmp_path / "a", NOBODY, discovery="off"))
    alone = await seconds_to_start_and_stop(config(tmp_path / "a", NOBODY, discovery="off"))
    searching = await seconds_to_start_and_stop(config(tmp_path / "a", NOBODY))
    for one, other in zip(searching, alone, strict=True):
        assert one < 3 * other + 1


def test_what_is_remembered_is_bounded_and_never_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "dht.json"
    assert Remembered.load(path) == Remembered()
    relays: tuple[Address, ...] = (("192.0.2.1", 1), ("192.0.2.2", 65535))
    kept = Remembered(relays, {bytes(32): relays, b"\x01" * 32: ()})
    kept.save(path)
    assert Remembered.load(path) == kept
    many = {index.to_bytes(32, "big"): relays for index in range(MAX_PEERS + 5)}
    Remembered(relays * 100, many).save(path)
    loaded = Remembered.load(path)
    assert len(loaded.nodes) == 64
    assert set(loaded.peers) == set(list(many)[5:]), "the latest"
    for nonsense in ("", "[]", "{}", '{"nodes": ["x"], "peers": {}}', '{"nodes": [], "peers": 3}'):
        path.write_text(nonsense)
        assert Remembered.load(path) == Remembered()
    path.write_text(json.dumps({"nodes": [], "peers": {"zz": []}}))
    assert Remembered.load(path) == Remembered()


async def test_the_doctor_tells_a_table_that_answers_from_one_that_does_not() -> None:
    async with open_bootstrap(LOOPBACK, 0) as boot:
        report = await examine_network([f"{LOOPBACK}:{boot.address[1]}"])
    assert report.verdict is Verdict.UNKNOWN, "one node is not enough to know a NAT by"
    assert (report.udp_passes, report.table_nodes) == (True, 1)
    assert report.clock_plausible
    assert "too few nodes" in report.meaning


async def test_the_doctor_counts_the_neighbors() -> None:
    names = [create_instance_name(system_entropy) for _ in range(2)]
    async with open_mdns(names[0], "0.0.0.0", 2) as one, open_mdns(names[1], "0.0.0.0", 3) as two:
        for neighbor in (one, two):
            neighbor.announce([bytes(32)])
            await neighbor.wait_announced()
        report = await examine_network([f"{LOOPBACK}:1"])
    assert (report.multicast_heard, report.neighbors >= 2) == (True, True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["dht", "bootstrap", "nowhere"], "HOST:PORT"),
        (["dht", "bootstrap", "example.org:1"], "not a name"),
        (["dht", "bootstrap", "0.0.0.0:1"], "nobody can reach"),
        (["doctor", "net", "--bootstrap", "x"], "HOST:PORT"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert text in capsys.readouterr().err


def test_help_says_that_the_dht_is_public(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "nodes on the internet are told this node's address and key" in text
    assert "Default: lan." in text
