"""Tokens, lists, quotas and rates of a whole node, over real sockets."""

from __future__ import annotations

import json
import logging
import signal
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

import msgspec
import pytest
import trio

from node.client import AdminClient
from node.cojson.messages import Known, Load, Message, decode_frame, encode_lines
from node.config import Config, load_config
from node.covalue.content import Content
from node.covalue.known_state import NOTHING, KnownState
from node.daemon import open_node
from node.web.metrics import build_registry, render_metrics
from node.web.page import render_status
from node.web.status import AccountStatus, NodeStatus
from node.web.summary import status_rows
from tests.node.node_process import NodeProcess
from tests.node.test_web_jazz import http
from tests.support.authors import Author, edits, map_header
from tests.support.websocket_client import WebSocketClient, open_websocket

ANN, BOB = Author("ann"), Author("bob")
FREE = map_header("free")
SECRET, OTHER = "s3cret-of-the-phone", "s3cret-of-ci"


def config(data: Path, **flags: object) -> Config:
    quiet = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    return load_config({"data": data, "discovery": "off", **quiet, **flags}, {})


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def upgrade(port: int, path: str, *headers: str) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        return bytes(await stream.receive_some(4096))


async def say(client: WebSocketClient, *messages: Message) -> None:
    await client.send(encode_lines(messages))


async def hear(client: WebSocketClient, count: int = 1) -> list[Message]:
    """The next messages that are no pings, so many at least."""
    heard: list[Message] = []
    with trio.fail_after(20):
        while len(heard) < count:
            text = await client.receive()
            assert text is not None, "the server hung up"
            heard += decode_frame(text).messages
    return heard


def free(author: Author, count: int, after: int = 0) -> Content:
    return author.content(FREE, edits(count), after=after, as_agent=True, with_header=after == 0)


async def test_a_token_opens_the_door_and_shows_up_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = config(tmp_path, ws_tokens=[f"phone:{SECRET}", f"ci:{OTHER}"])
    async with open_node(settings) as node:
        port = port_of(node.addresses.ws)
        for path in ("/", "/?token=wrong", f"/?Token={SECRET}", f"/?token={SECRET}x"):
            answer = await upgrade(port, path)
            assert answer.startswith(b"HTTP/1.1 401 ")
            body = answer.partition(b"\r\n\r\n")[2]
            assert body.endswith(b"\n")
            assert body.count(b"\n") == 1
        healthy = await http(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert healthy.startswith(b"HTTP/1.1 200 ")
        for path in (f"/?token={SECRET}", f"/?key={OTHER}", f"/x?a=1&key={SECRET}"):
            async with open_websocket(port, path) as client:
                await say(client, free(ANN, 1))
                assert len(await hear(client)) == 1
        status = node.status()
        assert status.clients.unauthorized == 4
        counts = {token.name: token.connections for token in status.access.tokens}
        assert counts == {"phone": 2, "ci": 1}
        shown = [
            render_status(status, []),
            json.dumps(asdict(status)),
            render_metrics(build_registry(node.status)).decode(),
            repr(settings),
        ]
        assert "token needed" in shown[0]
        assert 'beemesh_token_frames_total{token="phone"} 2.0' in shown[2]
        assert "beemesh_clients_unauthorized_total 4.0" in shown[2]
    printed = capsys.readouterr()
    # The client of this test tells what it asks for.
    logged = [item.getMessage() for item in caplog.records if item.name != "websockets.client"]
    for text in (*shown, *logged, printed.out, printed.err):
        assert SECRET not in text
        assert OTHER not in text


async def test_a_token_that_is_taken_back_ends_its_connections(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"phone:{SECRET}\nci:{OTHER}\n")
    async with open_node(config(tmp_path / "data", ws_tokens_file=tokens)) as node:
        port = port_of(node.addresses.ws)
        async with (
            open_websocket(port, f"/?key={SECRET}") as phone,
            open_websocket(port, f"/?key={OTHER}") as ci,
        ):
            tokens.write_text(f"ci:{OTHER}\n")
            with trio.fail_after(20):
                assert await phone.wait_closed() == 1008
            assert (await upgrade(port, f"/?key={SECRET}")).startswith(b"HTTP/1.1 401 ")
            await say(ci, free(ANN, 1))
            assert len(await hear(ci)) == 1


async def test_an_empty_file_of_tokens_lets_nobody_in_and_the_status_says_so(
    tmp_path: Path,
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("# all are gone\n")
    async with open_node(config(tmp_path / "data", ws_tokens_file=tokens)) as node:
        refused = await upgrade(port_of(node.addresses.ws), "/")
        assert refused.startswith(b"HTTP/1.1 401 ")
        assert "NO CLIENT GETS IN" in dict(status_rows(node.status()))["access"]
    tokens.write_text(f"ci:{OTHER}\n")
    async with open_node(config(tmp_path / "data", ws_tokens_file=tokens)) as node:
        assert dict(status_rows(node.status()))["access"] == "token needed"


async def test_a_denied_account_is_refused_and_its_client_stays(tmp_path: Path) -> None:
    async with open_node(config(tmp_path, deny_accounts=[BOB.account_id])) as node:
        async with open_websocket(port_of(node.addresses.ws)) as client:
            await say(client, free(BOB, 2), free(ANN, 2), Load(map_header("x").id, NOTHING))
            assert await hear(client, 2) == [
                Known(map_header("x").id, NOTHING),
                Known(FREE.id, KnownState(True, {ANN.session_id(as_agent=True): 2})),
            ]
        access = node.status().access
        assert (access.allowed, access.denied, access.refused["denied"]) == (None, 1, 1)
        metrics = render_metrics(build_registry(node.status)).decode()
        assert 'beemesh_content_refused_total{reason="denied"} 1.0' in metrics
        assert 'beemesh_content_refused_total{reason="account_bytes"} 0.0' in metrics


async def test_quotas_are_seen_and_outlive_a_restart(tmp_path: Path) -> None:
    settings = config(tmp_path, quota_account_bytes="1kB", quota_account_values=5)
    known = KnownState(True, {ANN.session_id(as_agent=True): 5})
    for start in (True, False):
        async with (
            open_node(settings) as node,
            open_websocket(port_of(node.addresses.ws)) as client,
        ):
            if start:
                await say(client, free(ANN, 5))
                assert await hear(client) == [Known(FREE.id, known)]
            await say(client, free(ANN, 9, after=5), Load(FREE.id, known))
            assert await hear(client) == [Known(FREE.id, known)]
            status = node.status()
            (account,) = status.access.accounts
            assert (account.id, account.bytes, account.values) == (ANN.account_id, 715, 1)
            assert status.access.refused["account_bytes"] == 1
            assert status.access.accounts_full == 1
            page = render_status(status, [])
            assert f'<td data-label="account">{ANN.account_id}</td>' in page
            assert "72 %" in page


@pytest.mark.slow
async def test_quotas_outlive_kill_9(tmp_path: Path) -> None:
    process = NodeProcess(tmp_path, "--quota-account-bytes", "1MiB")
    ready = await process.start()
    async with open_websocket(port_of(ready["ws"])) as client:
        await say(client, free(ANN, 5))
        assert len(await hear(client)) == 1
    with trio.fail_after(30):
        while ANN.account_id not in (tmp_path / "usage.json").read_text():  # noqa: ASYNC110 - a file is polled
            await trio.sleep(0.1)
    assert await process.stop(signal.SIGKILL) == -signal.SIGKILL
    async with process.running():
        admin = AdminClient.find(tmp_path)
        assert admin is not None
        status = await trio.to_thread.run_sync(admin.status)
        accounts = msgspec.convert(status, NodeStatus).access.accounts
        assert accounts == (AccountStatus(ANN.account_id, 715, 1),)


async def test_rates_hold_for_the_address_behind_a_proxy(tmp_path: Path) -> None:
    settings = config(
        tmp_path,
        rate_messages=60,
        ws_trusted_proxies="127.0.0.0/8",
        ws_max_connections_per_address=1,
    )
    async with open_node(settings) as node:
        port = port_of(node.addresses.ws)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            busy = WebSocketClient(stream, f"ws://127.0.0.1:{port}/")
            request = busy.protocol.connect()
            request.headers["X-Forwarded-For"] = "203.0.113.5"
            busy.protocol.send_request(request)
            await busy.flush()
            # Ten minutes' worth and more in one frame is only left waiting...
            ids = [map_header(str(number)).id for number in range(1000)]
            assert (await busy.response()).status_code == 101
            await say(busy, *[Load(co_id, NOTHING) for co_id in ids])
            heard = await hear(busy, 1000)
            assert sorted(map(repr, heard)) == sorted(repr(Known(key, NOTHING)) for key in ids)
            await say(busy, Load(FREE.id, NOTHING))
            # ... its address may have one connection, and others are not slowed.
            answer = await upgrade(port, "/", "X-Forwarded-For: 203.0.113.5")
            assert answer.startswith(b"HTTP/1.1 503 ")
            async with open_websocket(port) as other:
                await say(other, Load(FREE.id, NOTHING))
                assert await hear(other) == [Known(FREE.id, NOTHING)]
            assert node.status().access.slowed == 1
            assert node.host.statistics().messages_received == 1001
        assert node.status().access.sent_away == 0


async def test_all_addresses_of_a_network_have_the_connections_of_one(tmp_path: Path) -> None:
    """Any machine with IPv6 has 2^64 of them, and could have had all that a node takes."""
    settings = config(tmp_path, ws_trusted_proxies="127.0.0.1", ws_max_connections_per_address=2)
    async with open_node(settings) as node, AsyncExitStack() as stack:
        port = port_of(node.addresses.ws)

        async def come(address: str) -> int:
            stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            client = WebSocketClient(stream, f"ws://127.0.0.1:{port}/")
            request = client.protocol.connect()
            request.headers["X-Forwarded-For"] = address
            client.protocol.send_request(request)
            await client.flush()
            return (await client.response()).status_code

        codes = [await come(f"2001:db8:0:7::{number}") for number in range(3)]
        assert codes == [101, 101, 503]
        assert await come("2001:db8:0:8::1") == 101


async def test_many_connections_far_beyond_the_rate_are_sent_away(tmp_path: Path) -> None:
    settings = config(tmp_path, rate_messages=60, rate_loopback=True)
    async with open_node(settings) as node:
        port = port_of(node.addresses.ws)
        async with open_websocket(port) as first:
            ids = [map_header(str(number)).id for number in range(1000)]
            await say(first, *[Load(co_id, NOTHING) for co_id in ids])
            await hear(first)
            while not node.status().access.slowed:
                await trio.testing.wait_all_tasks_blocked()
            async with open_websocket(port) as second:
                with trio.fail_after(20):
                    assert await second.wait_closed() == 1000
        assert node.status().access.sent_away == 1


async def test_who_goes_while_it_is_left_unread_gives_its_place_back(tmp_path: Path) -> None:
    settings = config(tmp_path, rate_messages=60, rate_loopback=True)
    async with open_node(settings) as node:
        async with open_websocket(port_of(node.addresses.ws)) as client:
            await say(client, *[Load(map_header(str(n)).id, NOTHING) for n in range(1000)])
            await hear(client, 1000)
            await say(client, Load(FREE.id, NOTHING))
        with trio.fail_after(20):
            while node.status().clients.connected:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.05)
        assert node.status().access.slowed == 1
