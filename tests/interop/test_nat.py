"""Through two NATs that show everybody one port, between us and the originals.

What takes longer is measured by `python -m tests.swarm.nat_campaign`.
"""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack

import pytest
import trio

from tests.support.nat_lab import INTERNET_HOSTS, is_possible
from tests.swarm.nat_campaign import (
    BOOTSTRAP,
    INTEROP,
    ROOT,
    open_guest,
    open_lab,
    open_peer,
    open_relay,
)

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not is_possible(), reason="it takes root and /dev/net/tun"),
]


async def check_doctor(prefix: str, verdict: str) -> None:
    """`beemesh doctor net` in the first home knows what kind of NAT that has."""
    command = ["ip", "netns", "exec", f"{prefix}0", sys.executable, "-m", "node"]
    options = ["doctor", "net", "--json", "--bootstrap", BOOTSTRAP]
    done = await trio.run_process([*command, *options], capture_stdout=True, cwd=ROOT)
    report = json.loads(done.stdout)
    assert (report["verdict"], report["udp_passes"]) == (verdict, True)
    assert report["addresses"] == ["192.168.1.2"]
    assert report["seen_as"][0].startswith("20.1.0.1")


async def test_holes_are_punched_in_both_directions() -> None:
    hosts = ",".join(INTERNET_HOSTS)
    with trio.fail_after(180):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            prefix = await enter(open_lab("cone", "cone"))
            members = ["node", "dht_peer.cjs", "members", hosts]
            await enter(open_peer(f"{prefix}net", members, INTEROP))
            nursery = await enter(trio.open_nursery())
            nursery.start_soon(check_doctor, prefix, "punchable")
            ours = await enter(open_guest("py", f"{prefix}0"))
            our_other = await enter(open_guest("py", f"{prefix}1"))
            theirs = await enter(open_guest("js", f"{prefix}1"))
            assert (await ours("state"))["firewalled"]
            assert (await theirs("state"))["firewalled"]
            keys = [
                (await server("serveEcho", seed=f"{index + 1:02x}" * 32))["key"]
                for index, server in enumerate((ours, our_other, theirs))
            ]
            for client, key, home in (
                (ours, keys[2], "20.2.0.1"),
                (theirs, keys[0], "20.1.0.1"),
                (ours, keys[1], "20.2.0.1"),
            ):
                answer = await client("callEcho", key=key, seed="44" * 32)
                assert answer["address"].startswith(home)
                assert answer.get("reach", "punched") == "punched"


@pytest.mark.parametrize("relay_kind", ["py", "js"])
async def test_two_random_nats_take_a_relay(relay_kind: str) -> None:
    with trio.fail_after(180):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            prefix = await enter(open_lab("random", "random"))
            members = ["node", "dht_peer.cjs", "members", ",".join(INTERNET_HOSTS)]
            network = await enter(open_peer(f"{prefix}net", members, INTEROP))
            nursery = await enter(trio.open_nursery())
            if relay_kind == "py":
                nursery.start_soon(check_doctor, prefix, "random")
            ours = await enter(open_guest("py", f"{prefix}0"))
            theirs = await enter(open_guest("js", f"{prefix}1"))
            alone = (await theirs("serveEcho", seed="10" * 32))["key"]
            with pytest.raises(AssertionError, match=r"NATs|gave up"):
                await ours("callEcho", key=alone, seed="44" * 32)

            relaying = network if relay_kind == "js" else await enter(open_relay(f"{prefix}net"))
            relay = (await relaying("serveRelay", seed="33" * 32))["key"]
            for client, server in ((ours, theirs), (theirs, ours)):
                key = (await server("serveEcho", seed="11" * 32, relay=relay))["key"]
                answer = await client("callEcho", key=key, seed="44" * 32)
                assert answer["address"].startswith("11."), "not at the other's home"
                assert answer.get("reach", "relayed") == "relayed"
            key = (await theirs("serveEcho", seed="12" * 32))["key"]
            answer = await ours("callEcho", key=key, seed="44" * 32, relay=relay)
            assert answer["reach"] == "relayed", "the client may name it, too"


@pytest.mark.parametrize("pair", ["py-js", "js-py"])
async def test_a_relayed_connection_becomes_a_punched_one(pair: str) -> None:
    """A random NAT takes thousands of probes; meanwhile the relay that the server named serves."""
    client_kind, server_kind = pair.split("-")
    with trio.fail_after(180):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            prefix = await enter(open_lab("random", "cone"))
            members = ["node", "dht_peer.cjs", "members", ",".join(INTERNET_HOSTS)]
            await enter(open_peer(f"{prefix}net", members, INTEROP))
            client = await enter(open_guest(client_kind, f"{prefix}0"))
            server = await enter(open_guest(server_kind, f"{prefix}1"))
            relaying = await enter(open_relay(f"{prefix}net"))
            relay = (await relaying("serveRelay", seed="33" * 32))["key"]
            key = (await server("serveEcho", seed="11" * 32, relay=relay))["key"]
            answer = await client("callEcho", key=key, seed="44" * 32, settle=40)
            assert answer["milliseconds"] < 5000, "nobody waits for the hole"
            assert answer["address"].startswith("20.2.0.1")
            ways = answer.get("reach", "relayed"), answer.get("reach_later", "punched")
            assert ways == ("relayed", "punched")
