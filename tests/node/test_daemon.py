"""A node in this process: addresses, locks, members, and what it says about itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from hypercore.errors import StoreLocked
from node.client import AdminClient
from node.cojson.messages import Load as LoadValue
from node.cojson.messages import decode_line, encode_message
from node.config import Config, load_config
from node.covalue.content import Content, SessionContent
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.session_fork import SessionFork
from node.daemon import open_node
from node.errors import ConfigError
from node.listening import bound_port, dialable, open_endpoint, open_tcp
from node.mesh.member_book import MemberBook, save_book
from node.mesh.mesh import Mesh
from node.mesh.ticket import Ticket
from node.running import Node
from node.settings import Endpoint
from node.verbs import (
    BeeGet,
    BeePut,
    CoreAppend,
    CoreGet,
    ExitCode,
    ListForks,
    ListValues,
    Load,
    VerbError,
)
from node.web.status import PeerStatus
from tests.support.authors import Author, edits, map_header
from tests.support.websocket_client import open_websocket

UNKNOWN = "co_zBhh3pU9gLXZiNDL6PEZuEP5ri"


def config(data: Path, **flags: object) -> Config:
    quiet = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    return load_config({"data": data, "discovery": "off", **quiet, **flags}, {})


def mesh_of(node: Node) -> Mesh:
    assert node.mesh is not None
    return node.mesh


def key_of(node: Node) -> bytes:
    assert node.key is not None
    return node.key


def ticket_of(node: Node) -> str:
    ticket = node.ticket()
    assert ticket is not None
    return ticket


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


async def test_first_start_makes_keys_and_the_second_finds_them(tmp_path: Path) -> None:
    async with open_node(config(tmp_path, name="hive")) as node:
        first = (node.id, node.key, mesh_of(node).membership.key)
        assert node.missing_for_ready() == []
        status = node.status()
        assert (status.name, status.covalues, status.peers) == ("hive", 0, 0)
        assert status.key == key_of(node).hex()
        assert [core.name for core in status.cores] == ["beemesh/data"]
        files = sorted(os.listdir(tmp_path))
        assert files == ["admin.json", "corestore", "mesh.toml", "node.key"]
        for name in ("admin.json", "mesh.toml", "node.key"):
            assert (tmp_path / name).stat().st_mode & 0o077 == 0
    assert not (tmp_path / "admin.json").exists()
    async with open_node(config(tmp_path)) as node:
        assert (node.id, node.key, mesh_of(node).membership.key) == first


async def test_a_store_that_is_gone_is_missed(tmp_path: Path) -> None:
    """A volume that is not mounted, as a rule: begun anew the node would be another one."""
    async with open_node(config(tmp_path)) as node:
        key = node.id
    (tmp_path / "corestore").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="corestore is not there: is it on a"):
        async with open_node(config(tmp_path)):
            pass
    assert not (tmp_path / "corestore").exists()
    (tmp_path / "corestore").mkdir()
    async with open_node(config(tmp_path)) as node:
        assert node.id == key


async def test_a_key_that_is_gone_is_missed(tmp_path: Path) -> None:
    """A restore that forgot it: with a new one its mesh would take the node for a stranger."""
    async with open_node(config(tmp_path)) as node:
        key = node.id
    (tmp_path / "node.key").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"node\.key is gone.* put it back from a backup"):
        async with open_node(config(tmp_path)):
            pass
    assert not (tmp_path / "node.key").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "node.key")
    async with open_node(config(tmp_path)) as node:
        assert node.id == key


@pytest.mark.parametrize("at_first", [True, False])
async def test_a_passphrase_that_locks_nothing_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_first: bool
) -> None:
    settings = config(tmp_path)
    if not at_first:
        async with open_node(settings):
            pass
    monkeypatch.setenv("BEEMESH_KEY_PASSPHRASE", "secret")
    with capture_logs() as logs:
        async with open_node(settings):
            pass
    told = [entry for entry in logs if "is not encrypted" in entry["event"]]
    assert len(told) == (not at_first)


@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_no_other_node_begins_in_a_store_whose_keys_are_gone(
    tmp_path: Path, is_encrypted: bool
) -> None:
    """A restore that brought the store back alone: nothing tells whom the node had met."""
    async with open_node(config(tmp_path, mesh_encrypted=is_encrypted)):
        pass
    for name in ("node.key", "mesh.toml"):
        (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match=r"node\.key is gone.*, and mesh\.toml, if that is gone"):
        async with open_node(config(tmp_path)):
            pass
    assert os.listdir(tmp_path) == ["corestore"]


async def test_a_node_that_has_met_others_founds_no_mesh_without_its_key(tmp_path: Path) -> None:
    """Where the key and mesh.toml are both gone, too: what it signed is known to its members."""
    async with open_node(config(tmp_path)):
        pass
    book = MemberBook()
    book.note("ab" * 32, "bob", "writer", 5.0)
    save_book(tmp_path / "members.json", book.encode())
    for name in ("node.key", "mesh.toml"):
        (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match=r"node\.key is gone.*, and mesh\.toml, if that is gone"):
        async with open_node(config(tmp_path)):
            pass
    assert sorted(os.listdir(tmp_path)) == ["corestore", "members.json"]


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from node.private_file import write_private
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_private(Path(sys.argv[1]), b"a secret")
"""


async def test_of_nodes_that_begin_at_once_one_runs_and_the_keys_on_its_disk_are_its_own(
    tmp_path: Path,
) -> None:
    """Whoever lost wrote its keys last: after a restart the node was another, in another mesh."""
    running: list[Node] = []
    refused: list[StoreLocked] = []
    all_others = trio.Event()

    async def begin() -> None:
        try:
            async with open_node(config(tmp_path)) as node:
                running.append(node)
                await all_others.wait()
        except StoreLocked as error:
            refused.append(error)
            if len(refused) == 7:
                all_others.set()

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(begin)
    (first,) = running
    async with open_node(config(tmp_path)) as node:
        assert node.id == first.id
        assert mesh_of(node).membership.key == mesh_of(first).membership.key


async def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    names = ["mesh.toml", "node.key", "policy.toml"]
    for name in names:
        command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path / name)]
        killed = await trio.run_process(command, check=False)
        assert killed.returncode == -signal.SIGKILL
    left = sorted(os.listdir(tmp_path))
    assert [name.rpartition(".")[0] for name in left] == [f".{name}" for name in names]
    kept = [".mesh.toml.swp", ".node.key.before"]  # of an editor, and of its owner
    for name in kept:
        (tmp_path / name).touch()
    async with open_node(config(tmp_path)):
        pass
    assert sorted(os.listdir(tmp_path)) == [*kept, "corestore", "mesh.toml", "node.key"]


async def test_a_stop_in_the_middle_of_a_download_is_remembered(tmp_path: Path) -> None:
    """Its client claims all of it afterwards, and waited for the rest for ever."""
    ann, header = Author("ann"), map_header("large")
    parts = edits(10, size=60_000)
    pieces = [
        ann.content(header, parts[: n + 1], after=n, as_agent=True, with_header=n == 0)
        for n in range(len(parts))
    ]
    session_id = ann.session_id(as_agent=True)

    async def load(node: Node, known: KnownState, clients: AsyncExitStack) -> Content:
        """What a client gets first that knows so much, and stays."""
        port = int(node.addresses.ws.rpartition(":")[2])
        client = await clients.enter_async_context(open_websocket(port))
        await client.send(encode_message(LoadValue(header.id, known)))
        while header.id not in (text := await client.receive() or header.id):
            pass
        content = decode_line(text.partition("\n")[0])
        assert isinstance(content, Content)
        return content

    async with AsyncExitStack() as clients:
        async with open_node(config(tmp_path)) as node:
            await node.host.receive_content("test", pieces)
            assert (await load(node, NOTHING, clients)).new[session_id].after == 0
        async with open_node(config(tmp_path)) as node:
            all_of_it = KnownState(True, {session_id: len(parts)})
            assert (await load(node, all_of_it, clients)).new[session_id].after == len(parts) - 1


async def test_one_node_per_directory(tmp_path: Path) -> None:
    async with open_node(config(tmp_path)) as node:
        with pytest.raises(StoreLocked, match="in use"):
            async with open_node(config(tmp_path)):
                pass
        assert AdminClient.find(tmp_path) is not None
        port = int(node.addresses.ws.rpartition(":")[2])
        async with open_websocket(port) as client:
            await client.send("")


@pytest.mark.parametrize("option", ["ws", "mesh", "admin"])
async def test_an_explicit_address_that_is_taken_fails(tmp_path: Path, option: str) -> None:
    with taken_port() as port, pytest.raises(VerbError, match="another program") as caught:
        async with open_node(config(tmp_path, **{option: f"127.0.0.1:{port}"})):
            pass
    assert caught.value.code is ExitCode.FAILED
    assert f"--{option}" in caught.value.text
    async with open_node(config(tmp_path)):
        pass  # nothing stayed locked


async def test_a_default_that_is_taken_moves_and_the_journal_says_so() -> None:
    """Found in use: a service whose port was taken came up ready, where no client looked."""
    with taken_port() as port, capture_logs() as logs:
        default = Endpoint("127.0.0.1", port, may_move=True)
        listeners = await open_endpoint("--ws", default, open_tcp)
    assert bound_port(listeners) != port
    for listener in listeners:
        await listener.aclose()
    (told,) = logs
    assert (told["log_level"], told["option"]) == ("warning", "--ws")
    assert told["address"] == f"127.0.0.1:{port}"


async def test_an_address_that_is_not_ours_fails(tmp_path: Path) -> None:
    with pytest.raises(VerbError, match=r"cannot listen on --ws 192\.0\.2\.77:80: [A-Z]"):
        async with open_node(config(tmp_path, ws="192.0.2.77:80")):
            pass


@pytest.mark.parametrize("option", ["ws", "mesh", "admin"])
async def test_a_host_that_cannot_be_is_a_mistake_in_the_configuration(
    tmp_path: Path, option: str
) -> None:
    for host in ("a..b", "x" * 64, "\N{SNOWMAN}"):
        with pytest.raises(ConfigError, match=f"--{option} {host}:80: .* cannot be a host"):
            async with open_node(config(tmp_path, **{option: f"{host}:80"})):
                pass


async def test_defaults_move_when_they_are_taken(tmp_path: Path) -> None:
    settings = load_config({"data": tmp_path / "a", "discovery": "off"}, {})
    async with open_node(settings) as a, open_node(config(tmp_path / "c")):
        other = load_config({"data": tmp_path / "b", "discovery": "off"}, {})
        async with open_node(other) as b:
            pairs = zip(_ports(a), _ports(b), strict=True)
            assert all(one != two for one, two in pairs)


def _ports(node: Node) -> list[str]:
    addresses = node.addresses
    assert addresses.mesh is not None
    return [text.rpartition(":")[2] for text in (addresses.ws, addresses.mesh, addresses.admin)]


def test_dialable_addresses() -> None:
    assert dialable("127.0.0.1", 5) == ["127.0.0.1:5"]
    assert dialable("node.example", 5) == ["node.example:5"]
    for wildcard in ("0.0.0.0", "::"):
        for address in dialable(wildcard, 5):
            assert address.endswith(":5")
            assert "0.0.0.0" not in address
            assert not address.startswith("[::]")


async def test_a_damaged_key_is_said_before_anything_is_opened(tmp_path: Path) -> None:
    (tmp_path / "node.key").write_text("nonsense")
    (tmp_path / "node.key").chmod(0o600)
    with pytest.raises(ConfigError, match="not a PEM key"):
        async with open_node(config(tmp_path)):
            pass
    assert not (tmp_path / "corestore").exists()


async def test_a_token_file_that_is_not_there_is_said_before_anything_is_made(
    tmp_path: Path,
) -> None:
    flags = {"data": tmp_path / "data", "admin_token_file": tmp_path / "none"}
    with pytest.raises(ConfigError, match=f"--admin-token-file: {tmp_path}/none cannot be read: "):
        async with open_node(load_config(flags, {})):
            pass
    assert not (tmp_path / "data").exists()


async def test_members_see_each_other_and_strangers_do_not(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with open_node(config(tmp_path / "a", name="alice")) as a:
            ticket = ticket_of(a)
            assert Ticket.decode(ticket).addresses == (a.addresses.mesh,)
            async with open_node(config(tmp_path / "b", name="bob", join=[ticket])) as b:
                (bob,) = await _members(a)
                (alice,) = await _members(b)
                assert (alice.name, bob.name) == ("alice", "bob")
                assert (alice.id, alice.key) == (a.id.hex(), key_of(a).hex())
                stranger = config(
                    tmp_path / "c", mesh_name="elsewhere", join=[a.addresses.mesh], name="carol"
                )
                async with open_node(stranger) as c:
                    while a.status().peers < 2:
                        await trio.lowlevel.checkpoint()
                    assert mesh_of(c).statistics().members == ()
                    assert len(mesh_of(a).statistics().members) == 1
                    # Pruning keeps what members may have, before strangers.
                    assert a.compacting is not None
                    assert a.compacting.is_member(b.id)
                    assert not a.compacting.is_member(c.id)
            while a.peers():
                await trio.lowlevel.checkpoint()


async def test_a_member_finds_the_others_again_without_its_ticket(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with open_node(config(tmp_path / "a", name="alice")) as a:
            joined = config(tmp_path / "b", name="bob", join=[ticket_of(a)])
            async with open_node(joined) as b:
                await _members(b)
            async with open_node(config(tmp_path / "b", name="bob")) as b:
                (alice,) = await _members(b)
                assert (alice.name, alice.found_by) == ("alice", "static")


async def _members(node: Node) -> list[PeerStatus]:
    while not (members := [peer for peer in node.peers() if peer.is_member]):
        await trio.lowlevel.checkpoint()
    return members


async def test_verbs(tmp_path: Path) -> None:
    async with open_node(config(tmp_path)) as node:
        (appended,) = [r async for r in node.perform(CoreAppend("log", (b"\xff",)))]
        assert appended["length"] == 1
        (block,) = [r async for r in node.perform(CoreGet("log", 0))]
        assert block == {"index": 0, "value": "/w==", "encoding": "base64"}
        (put,) = [r async for r in node.perform(BeePut("kv", b"k", b"v"))]
        assert put["version"] == 2
        (entry,) = [r async for r in node.perform(BeeGet("kv", b"k"))]
        assert entry == {"seq": 1, "value": "v", "encoding": "utf-8"}
        assert [r async for r in node.perform(ListValues(details=True))] == []
        for verb, code in (
            (Load(UNKNOWN), ExitCode.NOT_FOUND),
            (Load("nonsense"), ExitCode.USAGE),
            (CoreGet("ff" * 32, 0, 0.05), ExitCode.TIMEOUT),
            (CoreGet("log", 1), ExitCode.NOT_FOUND),
            (BeePut("beemesh/data", b"k", b"v"), ExitCode.USAGE),
        ):
            with pytest.raises(VerbError) as caught:
                async for _ in node.perform(verb):
                    pass
            assert caught.value.code is code


async def test_forks_are_listed_with_their_evidence(tmp_path: Path) -> None:
    ann, header = Author("ann"), map_header("m")
    kept, refused = edits(3), edits(2, start=100)
    session_id = ann.session_id(as_agent=True)
    fork = SessionFork(
        header.id,
        session_id,
        SessionContent(4, kept, ann.sign(kept)),
        SessionContent(4, refused, ann.sign(refused)),
    )
    async with open_node(config(tmp_path)) as node:
        await node.host.store.keep_fork(fork)
        client = AdminClient.find(tmp_path)
        assert client is not None
        (listed,) = await trio.to_thread.run_sync(lambda: list(client.perform(ListForks())))
        assert (listed["id"], listed["session"], listed["index"]) == (header.id, session_id, 4)
        for part, side in (("kept", fork.kept), ("refused", fork.refused)):
            shown = listed[part]
            assert isinstance(shown, dict)
            line = json.dumps({"action": "content", "id": header.id, "new": {session_id: shown}})
            content = decode_line(line)
            assert isinstance(content, Content)
            assert content.new[session_id] == side
    async with open_node(config(tmp_path)) as node:
        await trio.testing.wait_all_tasks_blocked()
        assert node.status().sync.forks == 1
