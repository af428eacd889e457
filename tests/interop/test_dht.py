"""HyperDHT's table and records against the JavaScript originals: on their network, and on ours."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from hypercore.crypto import KeyPair, system_entropy
from swarm.announcement import Address
from swarm.dht.messages import Command, ErrorCode, Internal
from swarm.dht.payloads import PeerRecord, immutable_target, peer_target
from swarm.dht.requests import Call
from swarm.errors import DhtError
from swarm.io.dht import Dht
from swarm.io.topics import Interest, open_topics
from tests.interop.dht_peer import (
    LOOPBACK,
    open_guest,
    open_javascript_guest,
    open_javascript_network,
    open_network,
)
from tests.support.peer_process import PeerProcess

pytestmark = pytest.mark.interop

SIZE = 40
TOPIC = b"\x11" * 32
JS_SEED = b"\x21" * 32
JS_KEY = KeyPair.from_seed(JS_SEED).public_key
OUR_PAIR = KeyPair.from_seed(b"\x31" * 32)
RELAYS: tuple[Address, ...] = (("192.0.2.1", 49737), ("192.0.2.2", 1))


async def records_of(dht: Dht, topic: bytes = TOPIC) -> set[PeerRecord]:
    return {record async for found in dht.lookup(topic) for record in found.records}


async def records_of_js(js: PeerProcess, topic: bytes = TOPIC) -> set[PeerRecord]:
    answer = await js("lookup", topic=topic.hex())
    return {as_record(entry) for found in answer["found"] for entry in found["records"]}


def as_record(entry: dict[str, Any]) -> PeerRecord:
    relays = tuple((host, port) for host, port in entry["relays"])
    return PeerRecord(bytes.fromhex(entry["key"]), relays)


async def check_topics(js: PeerProcess, dht: Dht) -> None:
    """Each announces, both find both, each takes its own back."""
    theirs = PeerRecord(JS_KEY, RELAYS)
    ours = PeerRecord(OUR_PAIR.public_key, RELAYS[:1])
    await js("announce", topic=TOPIC.hex(), seed=JS_SEED.hex(), relays=RELAYS)
    assert await records_of(dht) == {theirs}
    stored = await dht.announce(TOPIC, OUR_PAIR, RELAYS[:1])
    assert stored.nodes == len(stored.closest) == 20
    assert await records_of(dht) == await records_of_js(js) == {theirs, ours}
    await js("unannounce", topic=TOPIC.hex(), seed=JS_SEED.hex())
    assert await records_of(dht) == {ours}
    assert await dht.unannounce(TOPIC, OUR_PAIR) == 20
    assert await records_of_js(js) == await records_of(dht) == set()


async def check_values(js: PeerProcess, dht: Dht) -> None:
    """What one puts, the other gets."""
    value = b"immutable, from js"
    answer = await js("immutablePut", value=value.hex())
    assert await dht.immutable_get(bytes.fromhex(answer["hash"])) == value
    large = bytes(range(250)) * 4
    assert (await dht.immutable_put(large)).nodes == 20
    answer = await js("immutableGet", hash=immutable_target(large).hex())
    assert answer["value"] == large.hex()
    assert await dht.immutable_get(bytes(32)) is None

    await js("mutablePut", seed=JS_SEED.hex(), value=b"first".hex(), seq=1)
    await js("mutablePut", seed=JS_SEED.hex(), value=b"second".hex(), seq=300)
    content = await dht.mutable_get(JS_KEY)
    assert content is not None
    assert (content.seq, content.value) == (300, b"second")
    assert await dht.mutable_get(JS_KEY, min_seq=301) is None
    assert (await dht.mutable_put(OUR_PAIR, b"ours", seq=7)).nodes == 20
    assert await js("mutableGet", key=OUR_PAIR.public_key.hex()) == {
        "number": pytest.approx(0, abs=1000), "value": b"ours".hex(), "seq": 7,
    }  # fmt: skip
    with pytest.raises(DhtError) as reused:
        await dht.mutable_put(OUR_PAIR, b"another", seq=7)
    assert reused.value.code == ErrorCode.SEQUENCE_REUSED
    with pytest.raises(DhtError) as too_low:
        await dht.mutable_put(OUR_PAIR, b"another", seq=6)
    assert too_low.value.code == ErrorCode.SEQUENCE_TOO_LOW


async def check_peers(js: PeerProcess, dht: Dht) -> None:
    """A server that listens is found by its key; so are we, when we announce our own."""
    relays = {(host, port) for host, port in (await js("listen", seed=JS_SEED.hex()))["relays"]}
    found = [peer async for peer in dht.find_peer(JS_KEY)]
    assert {peer.record.public_key for peer in found} == {JS_KEY}
    assert len(relays & {peer.source for peer in found}) >= 2, "the third may be itself"
    await js("closeServers")
    assert [peer async for peer in dht.find_peer(JS_KEY)] == []

    target = peer_target(OUR_PAIR.public_key)
    stored = await dht.announce(target, OUR_PAIR)
    answer = await js("findPeer", key=OUR_PAIR.public_key.hex())
    sources = {(host, port) for host, port in (entry["source"] for entry in answer["found"])}
    # The original's walk stops reading a list where a node is not closer: it may miss some.
    assert sources <= set(stored.closest)
    assert len(sources) > 10
    assert {entry["key"] for entry in answer["found"]} == {OUR_PAIR.public_key.hex()}
    await dht.unannounce(target, OUR_PAIR)
    assert (await js("findPeer", key=OUR_PAIR.public_key.hex()))["found"] == []


async def check_two_of_ours(dht: Dht, other: Dht) -> None:
    bump = 1_700_000_000_000
    stored = await dht.announce(TOPIC, OUR_PAIR, RELAYS, bump_unix_ms=bump)
    found = [answer async for answer in other.lookup(TOPIC)]
    assert {answer.bump_unix_ms for answer in found} == {bump}
    assert await records_of(other) == {PeerRecord(OUR_PAIR.public_key, RELAYS)}
    again = other.lookup(TOPIC, remembered=stored.closest)
    asked = set(stored.closest) - {other.address}
    assert {answer.source async for answer in again} == asked, "a member does not ask itself"
    await dht.announce(TOPIC, OUR_PAIR, RELAYS[:1], clear=True)
    assert await records_of(other) == {PeerRecord(OUR_PAIR.public_key, RELAYS[:1])}
    await dht.unannounce(TOPIC, OUR_PAIR)


async def check_refusals(dht: Dht) -> None:
    node = dht.nodes[0]
    wrong = await dht.request(
        Call(node, Command.ANNOUNCE, target=TOPIC, value=b"x", token=bytes(32))
    )
    assert wrong.error == ErrorCode.INVALID_TOKEN
    assert wrong.token is not None
    unknown = await dht.request(Call(node, 99, target=TOPIC))
    assert unknown.error == ErrorCode.UNKNOWN_COMMAND
    assert len(unknown.closer_nodes) == 20
    delay = (50).to_bytes(4, "little")
    delayed = await dht.request(
        Call(node, Internal.DELAYED_PING, True, value=delay, timeout_seconds=2.0)
    )
    assert delayed.error == 0


async def test_on_a_network_of_the_originals() -> None:
    with trio.fail_after(180):
        async with open_javascript_network(SIZE) as (js, dht):
            assert dht.statistics().nodes > 20
            await check_topics(js, dht)
            await check_values(js, dht)
            await check_peers(js, dht)
            await check_refusals(dht)
            async with open_guest((await js("bootstrap"))["port"]) as other:
                await check_two_of_ours(dht, other)


class _Server:
    """A key of ours whose relays change."""

    relay_addresses: tuple[Address, ...] = RELAYS

    async def wait_announced(self) -> None:
        pass


async def test_a_topic_names_the_relays_that_there_are_now() -> None:
    """Found in review: nodes of the originals named those of the first announcement."""
    with trio.fail_after(60):
        async with open_javascript_network(6) as (js, dht):
            server = _Server()
            async with open_topics(dht, OUR_PAIR, server, system_entropy) as topics:
                topics.keep({TOPIC: Interest(is_client=False)})
                await topics.wait_announced()
                assert await records_of_js(js) == {PeerRecord(OUR_PAIR.public_key, RELAYS)}
                server.relay_addresses = RELAYS[:1]
                topics.refresh()
                while await records_of_js(js) != {PeerRecord(OUR_PAIR.public_key, RELAYS[:1])}:
                    pass  # it is being said
            assert await records_of_js(js) == set()


async def test_on_a_network_of_ours() -> None:
    with trio.fail_after(180):
        async with open_network(SIZE) as nodes:
            assert not any(node.statistics().is_ephemeral for node in nodes)
            async with (
                open_javascript_guest(nodes[0].address[1]) as js,
                open_guest(nodes[0].address[1]) as dht,
            ):
                assert (await js("state"))["nodes"] >= 20
                await check_topics(js, nodes[7])
                await check_values(js, dht)
                await check_peers(js, dht)
                await check_refusals(dht)
                await check_two_of_ours(dht, nodes[20])


async def test_a_guest_learns_what_it_is_on_a_network_of_ours() -> None:
    with trio.fail_after(180):
        async with (
            open_network(SIZE) as nodes,
            open_javascript_guest(nodes[0].address[1]) as js,
        ):
            state = await js("state")
            assert (state["firewalled"], state["host"]) == (False, LOOPBACK)
            pong = await js("ping", port=nodes[3].address[1])
            assert pong["id"] is not None
            assert pong["to"][0] == LOOPBACK
            assert (await js("delayedPing", port=nodes[3].address[1], delay=40))["elapsed"] >= 40


async def test_originals_become_members_of_a_network_of_ours() -> None:
    with trio.fail_after(180):
        async with (
            open_network(12) as nodes,
            open_javascript_guest(nodes[0].address[1]) as js,
        ):
            assert (await js("join", count=12))["persistent"] == 12
            async with open_guest(nodes[0].address[1]) as dht:
                # As soon as they have asked somebody something they are in tables: no waiting.
                assert dht.statistics().nodes > 12
                stored = await dht.announce(TOPIC, OUR_PAIR, RELAYS)
                assert stored.nodes == 20, "more than there are of ours"
                assert await records_of_js(js) == {PeerRecord(OUR_PAIR.public_key, RELAYS)}
