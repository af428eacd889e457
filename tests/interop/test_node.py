"""Nodes and JavaScript Jazz clients, as people run them."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest
import trio

from tests.interop.bee_peer import open_bee_peer
from tests.support.running_node import open_jazz_client, open_running_node, wait_members

pytestmark = pytest.mark.interop

UNKNOWN = "co_zBhh3pU9gLXZiNDL6PEZuEP5ri"
WAY_DOWN = 3
"""Levels of the tree of a thousand blocks."""


@pytest.mark.parametrize("store", ["bee", "sqlite", "hybrid"])
async def test_one_node_serves_what_was_uploaded_and_passes_edits_on(
    tmp_path: Path, store: str
) -> None:
    with trio.fail_after(180):
        async with (
            open_running_node(tmp_path, "--store", store) as node,
            open_jazz_client(node.ws) as alice,
            open_jazz_client(node.ws) as bob,
        ):
            co_id = (await alice.do("create", values={"title": "hello", "n": 1}))["id"]
            loaded = await bob.do("load", id=co_id)
            assert loaded["values"] == {"title": "hello", "n": 1}
            await alice.do("set", id=co_id, key="title", value="edited")
            await bob.do("wait", id=co_id, key="title", value="edited")
            await bob.do("set", id=co_id, key="n", value=2)
            await alice.do("wait", id=co_id, key="n", value=2)
            for nowhere in (UNKNOWN, co_id[:-3]):  # the second is no id at all
                unknown = await bob.do("load", id=nowhere)
                assert unknown["unavailable"]
                assert unknown["ms"] < 3000


@pytest.mark.parametrize("way", ["ticket", "address", "lan", "ticket, hybrid"])
async def test_two_nodes_pass_values_and_live_edits_both_ways(tmp_path: Path, way: str) -> None:
    way, _, store = way.partition(", ")
    stored = ["--store", store or "bee"]
    name = f"test-{tmp_path.name}"
    first = {"ticket": [], "address": ["--mesh-name", name]}.get(way)
    if first is None:
        first = ["--mesh-name", name, "--discovery", "lan", "--mesh", "0.0.0.0:0"]
    with trio.fail_after(180):
        async with open_running_node(tmp_path / "a", *first, *stored) as a:
            second = {
                "ticket": ["--join", a.ready["ticket"]],
                "address": ["--mesh-name", name, "--join", a.ready["mesh"]],
            }.get(way, first)
            async with (
                open_running_node(tmp_path / "b", *second, *stored) as b,
                open_jazz_client(a.ws) as alice,
                open_jazz_client(b.ws) as bob,
            ):
                co_id = (await alice.do("create", values={"from": "alice"}))["id"]
                await wait_members(a, b)
                assert (await bob.do("load", id=co_id))["values"] == {"from": "alice"}
                await alice.do("set", id=co_id, key="down", value=1)
                await bob.do("wait", id=co_id, key="down", value=1)
                await bob.do("set", id=co_id, key="up", value=2)
                await alice.do("wait", id=co_id, key="up", value=2)
                unknown = await bob.do("load", id=UNKNOWN)
                assert unknown["unavailable"]
                assert unknown["ms"] < 3000


async def test_a_second_node_fetches_only_what_was_asked_for(tmp_path: Path) -> None:
    with trio.fail_after(180):
        async with (
            open_running_node(tmp_path / "a", "--durability", "os") as a,
            open_running_node(tmp_path / "b", "--join", a.ready["ticket"]) as b,
            open_jazz_client(a.ws) as alice,
        ):
            ids = (await alice.do("createMany", count=500))["ids"]
            await wait_members(a, b)
            (report,) = (await b.beemesh("load", ids[250], "--json")).lines
            assert report["source"] == "mesh"
            assert report["member"] == a.ready["id"]
            assert report["header"]["type"] == "comap"
            assert sum(report["sessions"].values()) == 1
            assert report["round_trips"] >= 1
            (again,) = (await b.beemesh("load", ids[250], "--json")).lines
            assert (again["source"], again["blocks_fetched"]) == ("store", 0)

            (status_a,) = (await a.beemesh("status", "--json")).lines
            (status_b,) = (await b.beemesh("status", "--json")).lines
            assert status_a["covalues"] >= 500
            fetched = status_b["blocks"]["fetched"]
            assert 0 < report["blocks_fetched"] <= fetched < status_a["blocks"]["held"] / 4
            assert status_b["blocks"]["verified"] == fetched
            # The way down the tree may be asked for just before it is pushed: it comes twice then.
            held = status_b["blocks"]["held_of_others"]
            assert held <= fetched <= held + WAY_DOWN
            assert status_b["blocks"]["fetched_bytes"] > 0
            own, other = status_b["cores"]
            assert (own["name"], own["is_own"]) == ("beemesh/data", True)
            assert (other["key"], other["is_own"]) == (a.ready["key"], False)
            assert other["held"] == held
            assert own["held"] + other["held"] == status_b["blocks"]["held"]
            listed = (await b.beemesh("ls", "--json")).lines
            assert {"id": ids[250]} in listed
            assert len(listed) == status_b["covalues"] < 10
            (long,) = (await b.beemesh("ls", ids[250], "--long", "--json")).lines
            assert long == {"id": ids[250], "type": "comap", "sessions": 1, "transactions": 1}


@pytest.mark.parametrize(
    ("number", "store"),
    [
        *itertools.product((signal.SIGTERM, signal.SIGKILL), ("bee", "sqlite", "hybrid")),
        (signal.SIGINT, "bee"),  # the stores are closed as after SIGTERM
    ],
)
async def test_what_was_acknowledged_is_there_after_a_restart(
    tmp_path: Path, number: signal.Signals, store: str
) -> None:
    with trio.fail_after(180):
        async with open_running_node(tmp_path, "--store", store) as node:
            async with open_jazz_client(node.ws) as alice:
                co_id = (await alice.do("create", values={"kept": True}))["id"]
                code = await node.stop(number)
                assert code == (0 if number is not signal.SIGKILL else -number)
                assert (tmp_path / "admin.json").exists() == (number is signal.SIGKILL)
            stopped = await node.beemesh("status")
            assert (stopped.code, "beemesh up" in stopped.error) == (3, True)
        async with (
            open_running_node(tmp_path, "--store", store) as again,
            open_jazz_client(again.ws) as bob,
        ):
            assert again.ready["id"] == node.ready["id"]
            assert again.ready["key"] == node.ready["key"]
            assert (await bob.do("load", id=co_id))["values"] == {"kept": True}


async def test_a_node_that_was_away_catches_up_when_asked(tmp_path: Path) -> None:
    with trio.fail_after(180):
        async with open_running_node(tmp_path / "a") as a, open_jazz_client(a.ws) as alice:
            co_id = (await alice.do("create", values={"n": 1}))["id"]
            async with open_running_node(tmp_path / "b", "--join", a.ready["ticket"]) as b:
                await wait_members(a, b)
                assert (await b.beemesh("load", co_id, "--json")).code == 0
            await alice.do("set", id=co_id, key="n", value=2)
            async with (
                open_running_node(tmp_path / "b", "--join", a.ready["mesh"]) as b,
                open_jazz_client(b.ws) as bob,
            ):
                await wait_members(b)
                await bob.do("load", id=co_id)
                await bob.do("wait", id=co_id, key="n", value=2)


async def test_exit_codes(tmp_path: Path) -> None:
    with trio.fail_after(180):
        async with open_running_node(tmp_path / "a") as node:
            cases = [
                (0, "", ["status"]),
                (0, "", ["peers"]),
                (0, "", ["ls"]),
                (0, "", ["core", "ls"]),
                (4, "beemesh peers", ["load", UNKNOWN]),
                (2, "co_z", ["load", "nonsense"]),
                (2, "--help", ["load"]),
                (2, "--help", ["nonsense"]),
                (4, "core ls", ["core", "get", "nothing", "0"]),
                (5, "connect one", ["core", "get", "ff" * 32, "0", "--timeout", "100ms"]),
                (2, "Jazz client", ["bee", "put", "beemesh/data", "k", "v"]),
                (0, "", ["bee", "put", "notes", "k", "v"]),
                (4, "bee ls", ["bee", "get", "notes", "j"]),
                (1, "in use", ["up"]),
            ]
            for code, text, arguments in cases:
                done = await node.beemesh(*arguments)
                assert done.code == code, (arguments, done)
                assert text in done.error
                assert done.error.count("\n") == (1 if code else 0)
            assert (await node.beemesh("bee", "get", "notes", "k")).out == "v"


async def test_a_javascript_hyperbee_reads_the_data_core_of_a_running_node(tmp_path: Path) -> None:
    with trio.fail_after(180):
        async with (
            open_running_node(tmp_path) as node,
            open_jazz_client(node.ws) as alice,
            open_bee_peer() as reader,
        ):
            ids = (await alice.do("createMany", count=100))["ids"]
            (listed,) = (await node.beemesh("core", "info", "beemesh/data", "--json")).lines
            assert listed["key_hex"] == node.ready["key"]
            await reader("open", id="data", key=node.ready["key"])
            await reader("connect", port=int(node.ready["mesh"].rpartition(":")[2]))
            await reader("waitLength", id="data", length=listed["length"])
            key = f"{ids[50]}:header".encode().hex()
            entry = (await reader("get", id="data", key=key))["entry"]
            assert entry[1] == key
            held = await reader("held", id="data")
            assert 0 < held["held"] < held["length"] / 3


async def test_a_node_reads_a_javascript_hyperbee(tmp_path: Path) -> None:
    with trio.fail_after(180):
        async with open_bee_peer() as writer:
            opened = await writer("open", id="towns", name="towns")
            await writer("fill", id="towns", count=2000, size=20)
            port = (await writer("listen"))["port"]
            joins = ["--mesh-name", tmp_path.name, "--join", f"127.0.0.1:{port}"]
            async with open_running_node(tmp_path, *joins) as node:
                key = opened["key"]
                value = await node.beemesh("bee", "get", key, "key-0001000", "--json")
                assert value.code == 0, value
                page = await node.beemesh("bee", "ls", key, "--prefix", "key-00010", "--json")
                assert [entry["key"] for entry in page.lines] == [
                    f"key-{number:07}" for number in range(1000, 1100)
                ]
                (info,) = (await node.beemesh("core", "info", key, "--json")).lines
                assert (info["length"], info["is_writable"]) == (2001, False)
                assert 100 <= info["blocks_held"] < 400
                (status,) = (await node.beemesh("status", "--json")).lines
                assert status["blocks"]["verified"] == status["blocks"]["fetched"] >= 100
