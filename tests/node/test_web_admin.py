from __future__ import annotations

import errno
import json
import os
import re
import socket
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from hypercore.errors import BlockNotAvailable, StorageFailed
from node.client import AdminAccess, AdminClient
from node.errors import CorruptStore
from node.verbs import (
    CoreAppend,
    CoreGet,
    CoreInfo,
    ExitCode,
    ListValues,
    Load,
    Result,
    Verb,
    VerbError,
    decode_bytes,
    decode_verb,
    encode_bytes,
    encode_verb,
)
from node.web.admin import build_app, serve_admin
from node.web.page import render_status
from node.web.status import (
    AccessStatus,
    AccountStatus,
    BlockCounts,
    ClientCounts,
    CoreStatus,
    NodeStatus,
    PeerStatus,
    SyncCounts,
    TokenStatus,
)
from node.web.wording import format_age, format_size

TOKEN = "t0ken"

STATUS = NodeStatus(
    name="<b>hive</b>",
    id="aa" * 32,
    key="bb" * 32,
    version="1.2.3",
    data="/data",
    ws="ws://127.0.0.1:4200",
    mesh="10.0.0.1:49737",
    admin="http://127.0.0.1:4280",
    mesh_name="bees",
    mesh_is_open=False,
    mesh_is_encrypted=False,
    mesh_role="writer",
    mesh_role_expiry=None,
    mesh_trouble="",
    store="bee",
    durability="commit",
    replicate="lazy",
    discovery=("lan",),
    uptime_seconds=93784.5,
    covalues=20_000,
    peers=1,
    blocks=BlockCounts(7, 1, 6, 5, 4, 3, 2),
    clients=ClientCounts(1, 2, 3, 8, 4, 5, 6, 7),
    sync=SyncCounts(
        in_memory=12,
        subscribed=9,
        transactions=30_000,
        commits=400,
        refused=3,
        bad_lines=2,
        forks=1,
        erased=0,
    ),
    cores=(CoreStatus("beemesh/data", "", True, "bb" * 32, 10, 1000, 10, 10),),
    access=AccessStatus(
        needs_token=True,
        allowed=5,
        denied=2,
        lists_error="",
        refused={"denied": 3, "account_bytes": 0},
        slowed=11,
        sent_away=1,
        account_bytes=2**30,
        account_values=1000,
        accounts_counted=4,
        accounts_full=1,
        accounts=(AccountStatus("co_zann", 2**29, 10),),
        tokens=(TokenStatus("ci", 1, 2, 2048, 9),),
    ),
    hypercore={"hypercore_total_cores": 3, "hypercore_total_wire_data_received": 17},
)
PEER = PeerStatus(
    "cc" * 32, "other", "10.0.0.2:1", "lan", "lan", True, False, "dd" * 32, 9, 3, 2048, 1, 60.0
)


class FakeNode:
    """Answers as a node would; `failure` comes after the results."""

    def __init__(self) -> None:
        self.verbs: list[Verb] = []
        self.results: Sequence[Result] = ({"id": "one"}, {"id": "two"})
        self.failure: Exception | None = None
        self.missing: list[str] = []

    def status(self) -> NodeStatus:
        return STATUS

    def peers(self) -> list[PeerStatus]:
        return [PEER]

    def missing_for_ready(self) -> list[str]:
        return self.missing

    async def perform(self, verb: Verb) -> AsyncGenerator[Result, None]:
        self.verbs.append(verb)
        for result in self.results:
            yield result
        if self.failure is not None:
            raise self.failure


@asynccontextmanager
async def open_admin(data: Path, node: FakeNode) -> AsyncIterator[str]:
    """A server that `AdminClient.find(data)` finds; its HOST:PORT."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    AdminAccess(f"http://{host}", TOKEN, os.getpid()).write(data)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_admin, node, TOKEN, listeners, ["hive.example"])
        with trio.fail_after(20):
            yield host
        nursery.cancel_scope.cancel()


async def ask(
    host: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> tuple[int, dict[str, str], str]:
    """One HTTP request, as plain bytes: status, headers, body."""
    lines = {"Host": host, "Connection": "close", **(headers or {})}
    if body:
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    method = "POST" if body else "GET"
    answer = bytearray()
    async with await trio.open_tcp_stream(*_split(host)) as stream:
        await stream.send_all(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        async for chunk in stream:
            answer += chunk
    top, _, text = bytes(answer).decode().partition("\r\n\r\n")
    first, *rest = top.split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in rest)
    return int(first.split()[1]), fields, text


def _split(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    return name, int(port)


BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def test_probes_need_no_token_and_the_rest_does(tmp_path: Path) -> None:
    node = FakeNode()
    async with open_admin(tmp_path, node) as host:
        for path in ("/livez", "/readyz", "/health"):
            assert (await ask(host, path))[::2] == (200, "ok")
        node.missing = ["not listening yet", "disk full"]
        assert (await ask(host, "/readyz"))[::2] == (503, "not listening yet\ndisk full")
        for path in ("/", "/metrics", "/api/v1/status", "/api/v1/load/co_z1", "/nothing"):
            assert (await ask(host, path))[0] == 401
            cookie = f"beemesh-{host.rpartition(':')[2]}=wrong"
            wrong = {"Authorization": "Bearer wrong", "Cookie": cookie}
            assert (await ask(host, path, wrong))[0] == 401
        assert (await ask(host, "/nothing", BEARER))[0] == 404
        assert (await ask(host, "/api/v1/core/get", BEARER))[0] == 405


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", ""])
async def test_a_host_name_that_is_not_ours_is_refused(tmp_path: Path, name: str) -> None:
    async with open_admin(tmp_path, FakeNode()) as host:
        assert (await ask(host, "/", {**BEARER, "Host": name}))[0] == 421
        assert (await ask(host, "/", {**BEARER, "Host": "LocalHost:1"}))[0] == 200
        assert (await ask(host, "/", {**BEARER, "Host": "Hive.example"}))[0] == 200
        assert (await ask(host, "/readyz", {"Host": name}))[0] == 200, "probes say what they like"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/v1/status", "localhost/livez?"),
        ("/api/v1/status", "localhost/livez#:1"),
        ("/li%09vez", "localhost"),
        ("/%09?token=" + TOKEN, "localhost"),
    ],
)
async def test_no_request_is_taken_for_another_that_needs_no_token(
    tmp_path: Path, path: str, name: str
) -> None:
    """With starlette 1.0 and older, `Host: a/livez?` made a probe of any verb."""
    async with open_admin(tmp_path, FakeNode()) as host:
        assert (await ask(host, path, {"Host": name}))[0] in (401, 421)


async def test_the_page_takes_the_token_once_and_then_a_cookie(tmp_path: Path) -> None:
    async with open_admin(tmp_path, FakeNode()) as host:
        status, headers, _ = await ask(host, f"/?token={TOKEN}")
        assert (status, headers["location"]) == (303, "/")
        assert {"httponly", "samesite=strict"} <= set(headers["set-cookie"].split("; "))
        cookie = {"Cookie": headers["set-cookie"].partition(";")[0]}
        status, headers, page = await ask(host, "/", cookie)
        assert status == 200
        assert "script" not in page
        policy = headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "frame-ancestors 'none'", "form-action 'self'"} <= {*policy}
        assert "&lt;b&gt;hive&lt;/b&gt;" in page
        assert (await ask(host, "/api/v1/status", cookie))[0] == 401


async def test_a_browser_without_the_token_is_told_how_to_get_in(tmp_path: Path) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    async with open_admin(tmp_path, FakeNode()) as host:
        status, headers, page = await ask(host, "/", browser)
        assert (status, headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "admin.json" in page
        assert "<input type=password name=token" in page
        assert "hive" not in page
        assert "not the token" not in page
        stale = {"Cookie": f"beemesh-{host.rpartition(':')[2]}=of-an-earlier-start"}
        for target, more in (("/?token=wrong", {}), ("/", stale)):
            status, _, page = await ask(host, target, browser | more)
            assert (status, "not the token of this node" in page) == (401, True)
        _, headers, error = await ask(host, "/api/v1/status", browser)
        assert (headers["content-type"], "token needed" in error) == ("application/json", True)
        assert (await ask(host, "/"))[1]["content-type"] == "application/json"


async def test_the_pages_of_two_nodes_on_one_machine_stay_open(tmp_path: Path) -> None:
    """Browsers keep one cookie of a name for all ports of a host."""
    async with open_admin(tmp_path, FakeNode()) as one, open_admin(tmp_path, FakeNode()) as two:
        names = set()
        for host in (one, two):
            _, headers, _ = await ask(host, f"/?token={TOKEN}")
            names.add(headers["set-cookie"].partition("=")[0])
        assert len(names) == 2


async def test_metrics(tmp_path: Path) -> None:
    async with open_admin(tmp_path, FakeNode()) as host:
        status, _, text = await ask(host, "/metrics", BEARER)
        assert status == 200
        values = dict(re.findall(r"^(beemesh_\w+(?:{[^}]*})?) (\S+)$", text, re.MULTILINE))
        assert values["beemesh_covalues"] == "20000.0"
        assert values["beemesh_blocks_fetched_total"] == "6.0"
        assert values['beemesh_core_length{core="beemesh/data"}'] == "10.0"
        assert values["beemesh_taking_in"] == "1.0"
        assert values["beemesh_cache_evicted_blocks_total"] == "0.0"
        assert "process_resident_memory_bytes" in text
        # Under the names of hypercore-stats, for dashboards of JavaScript nodes.
        values = dict(re.findall(r"^(hypercore_\w+) (\S+)$", text, re.MULTILINE))
        assert values == {
            "hypercore_total_cores": "3.0",
            "hypercore_total_wire_data_received": "17.0",
        }


async def test_the_client_reads_status_and_peers(tmp_path: Path) -> None:
    async with open_admin(tmp_path, FakeNode()):
        client = AdminClient.find(tmp_path)
        assert client is not None
        status = await trio.to_thread.run_sync(client.status)
        assert msgspec.convert(status, NodeStatus) == STATUS
        peers = await trio.to_thread.run_sync(client.peers)
        assert msgspec.convert(peers, list[PeerStatus]) == [PEER]
    assert stat.S_IMODE((tmp_path / "admin.json").stat().st_mode) == 0o600


async def test_verbs_go_through_and_results_come_back(tmp_path: Path) -> None:
    node = FakeNode()
    verbs: list[Verb] = [
        Load("co_z/with?odd&chars", 2.5),
        ListValues("co_zA", details=True),
        CoreInfo("name"),
        CoreGet("ff" * 32, 7, 0.5),
    ]
    async with open_admin(tmp_path, node):
        client = AdminClient.find(tmp_path)
        assert client is not None
        for verb in verbs:
            answers = client.perform(verb)
            assert await trio.to_thread.run_sync(list, answers) == list(node.results)
        node.results = ()
        assert await trio.to_thread.run_sync(list, client.perform(ListValues())) == []
    assert node.verbs == [*verbs, ListValues()]


@pytest.mark.parametrize("results", [(), ({"id": "one"},)])
@pytest.mark.parametrize("code", [ExitCode.NOT_FOUND, ExitCode.TIMEOUT, ExitCode.CORRUPT])
async def test_failures_come_back_whole(
    tmp_path: Path, results: Sequence[Result], code: ExitCode
) -> None:
    node = FakeNode()
    node.results, node.failure = results, VerbError(code, "what: why, next")
    async with open_admin(tmp_path, node):
        client = AdminClient.find(tmp_path)
        assert client is not None
        answers = client.perform(ListValues())
        with pytest.raises(VerbError, match="what: why, next") as caught:
            await trio.to_thread.run_sync(list, answers)
        assert caught.value.code is code


@pytest.mark.parametrize("results", [(), ({"id": "one"},)])
@pytest.mark.parametrize(
    ("failure", "code", "text"),
    [
        (OSError(errno.ENOSPC, "No space left"), ExitCode.FAILED, "No space left: check the disk"),
        (StorageFailed("no write"), ExitCode.FAILED, "no write: check the disk, then try again"),
        (CorruptStore("co_z1", "bad"), ExitCode.CORRUPT, "co_z1 is damaged: bad"),
        (ExceptionGroup("g", [BlockNotAvailable(3)]), ExitCode.FAILED, "block 3 is not available"),
        (RuntimeError("bug"), ExitCode.FAILED, "internal error: RuntimeError: bug; report"),
    ],
)
async def test_failures_that_no_verb_foresaw_come_back_whole(
    tmp_path: Path, results: Sequence[Result], failure: Exception, code: ExitCode, text: str
) -> None:
    """Found in use: on a full disk `beemesh pin` said that the node's answer is no JSON."""
    node = FakeNode()
    node.results, node.failure = results, failure
    async with open_admin(tmp_path, node):
        client = AdminClient.find(tmp_path)
        assert client is not None
        with capture_logs() as logs, pytest.raises(VerbError, match=text) as caught:
            await trio.to_thread.run_sync(list, client.perform(ListValues()))
        assert caught.value.code is code
    events = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert events == ["request failed"] * isinstance(failure, RuntimeError)


async def test_more_than_a_node_reads_is_refused_and_not_taken_for_a_node_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in use: 70 MB for `core append`, and one was told to start the node."""
    monkeypatch.setattr("node.verbs.MAX_REQUEST_BYTES", 1000)
    body = encode_verb(CoreAppend("log", (bytes(1000),)))
    node = FakeNode()
    async with open_admin(tmp_path, node) as host:
        assert (await ask(host, "/api/v1/core/append", BEARER, body))[0] == 400
        client = AdminClient.find(tmp_path)
        assert client is not None
        with pytest.raises(VerbError, match="more than 1000 bytes in one request") as caught:
            list(client.perform(CoreAppend("log", (bytes(1000),))))
    assert caught.value.code is ExitCode.USAGE
    assert node.verbs == []


async def test_who_hangs_up_in_the_middle_of_a_request_is_no_fault_of_the_node() -> None:
    headers = [(b"host", b"localhost"), (b"authorization", b"Bearer " + TOKEN.encode())]
    path = "/api/v1/core/append"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": headers,
    }

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        """Nobody reads it."""

    with capture_logs() as logs:
        await build_app(FakeNode(), TOKEN)(scope, receive, send)
    assert logs == []


async def test_bad_requests_are_explained(tmp_path: Path) -> None:
    async with open_admin(tmp_path, FakeNode()) as host:
        for path, body in (
            ("core/get", b"{"),
            ("core/get", b'{"core":"x"}'),
            ("core/get", b'{"core":"x","index":0,"more":1}'),
            ("core/get", b"\xff"),
            ("core/nothing", b"{}"),
        ):
            status, _, text = await ask(host, f"/api/v1/{path}", BEARER, body)
            assert status == 400
            assert json.loads(text)["code"] == ExitCode.USAGE
        good = encode_verb(CoreGet("x", 0))
        assert (await ask(host, "/api/v1/core/get", BEARER, good))[0] == 200
        assert (await ask(host, "/api/v1/load/co_z?timeout_seconds=soon", BEARER))[0] == 400


def test_no_node_is_found_where_none_runs(tmp_path: Path) -> None:
    assert AdminClient.find(tmp_path) is None
    AdminAccess("http://127.0.0.1:9", TOKEN, 2**22 + 1).write(tmp_path)  # beyond any pid
    assert AdminClient.find(tmp_path) is None
    AdminAccess("http://127.0.0.1:9", TOKEN, os.getpid()).write(tmp_path)
    assert AdminClient.find(tmp_path) is None, "another process has the id of one that died"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        AdminAccess(url, TOKEN, os.getpid()).write(tmp_path)
        client = AdminClient.find(tmp_path)
        assert client is not None
    with pytest.raises(VerbError, match="beemesh up") as caught:
        client.status()
    assert caught.value.code is ExitCode.NO_NODE
    assert TOKEN not in repr(AdminAccess("u", TOKEN, 1))
    with pytest.raises(VerbError, match=r"admin\.json is no directory") as caught:
        AdminClient.find(tmp_path / "admin.json")
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[" * 100_000,
        '{"url": "http://127.0.0.1:9", "token": "t", "pid": 1e400}',
        '{"url": "http://127.0.0.1:9", "token": "t", "pid": 10000000000000000000000}',
        '{"url": "http://[", "token": "t", "pid": OURS}',
        '{"url": "http://127.0.0.1:99999", "token": "t", "pid": OURS}',
        '{"url": "http://a..b:9", "token": "t", "pid": OURS}',
    ],
)
def test_a_file_that_no_node_wrote_is_explained(tmp_path: Path, text: str) -> None:
    (tmp_path / "admin.json").write_text(text.replace("OURS", str(os.getpid())))
    with pytest.raises(VerbError, match="restart the node"):
        AdminClient.find(tmp_path)


def test_who_may_not_read_the_token_is_told_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in use: as another user, one was told to restart the node."""

    def refuse(_: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", "admin.json")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # a superuser's tests may read everything
    with pytest.raises(VerbError, match="Permission denied; only the user that the node runs as"):
        AdminClient.find(tmp_path)


def test_a_node_that_does_not_answer_is_not_asked_for_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in use: `beemesh status` of a stopped process said: try `beemesh status`."""
    monkeypatch.setattr("node.client._DEFAULT_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        AdminAccess(url, TOKEN, os.getpid()).write(tmp_path)
        client = AdminClient.find(tmp_path)
        assert client is not None
        said = f"no answer within 0 s from process {os.getpid()}: its log may say why"
        with pytest.raises(VerbError, match=said) as caught:
            client.status()
    assert caught.value.code is ExitCode.TIMEOUT


@pytest.mark.parametrize("data", [b"", b"text \xe2\x9c\x93\n", b"\x00\x01", b"\xff", b"\x1b[31m"])
def test_bytes_survive_json(data: bytes) -> None:
    result = json.loads(json.dumps(encode_bytes("value", data)))
    assert decode_bytes("value", result) == data
    assert "\x1b" not in result["value"]


def test_the_page_says_when_there_is_nothing() -> None:
    page = render_status(replace(STATUS, cores=(), mesh_is_open=True), [])
    assert "No node is connected." in page
    assert "open to everyone" in page


def test_numbers_for_people() -> None:
    assert [format_size(n) for n in (0, 1023, 1536, 5 * 2**30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
    ]
    assert [format_age(n) for n in (0, 59.9, 61, 93784)] == ["0 s", "59 s", "1 min 1 s", "1 d 2 h"]


@pytest.mark.parametrize("seconds", ["1e300", "-1", "0"])
def test_a_ticket_ends_at_a_time_that_there_is(seconds: str) -> None:
    with pytest.raises(VerbError, match="expires_seconds") as refused:
        decode_verb("mesh/invite", f'{{"expires_seconds": {seconds}}}'.encode())
    assert refused.value.code is ExitCode.USAGE


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize("rest", [b"", b"\x88\x80abcd", b"\x01" * 300, b"\xff" * 70_000])
async def test_what_breaks_the_http_server_ends_its_own_connection(
    tmp_path: Path, rest: bytes
) -> None:
    """Frames after the request for a WebSocket, without a token, ended the node. Found so."""
    async with open_admin(tmp_path, FakeNode()) as host:
        for _ in range(3):
            with suppress(trio.BrokenResourceError):
                async with await trio.open_tcp_stream(*_split(host)) as stream:
                    await stream.send_all(UPGRADE + rest)
                    with trio.move_on_after(0.1):
                        async for _ in stream:
                            pass
            assert (await ask(host, "/livez"))[::2] == (200, "ok")
