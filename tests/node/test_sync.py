"""Copies on several nodes that are killed with SIGKILL: what a client was told stays true."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from node.client import AdminClient
from node.cojson.messages import Known, decode_frame, encode_message
from node.covalue.content import Content
from node.covalue.known_state import KnownState
from node.verbs import ExitCode, Load, ShowSync, Verb, VerbError, WaitSync
from tests.node.mesh.authors import Author, Value
from tests.node.node_process import NodeProcess
from tests.support.websocket_client import WebSocketClient, open_websocket


async def wait_acknowledged(client: WebSocketClient, value: Value) -> None:
    """Read until the node says that all of the value is synced."""
    full = KnownState(True, {value.session_id: value.count})
    while (text := await client.receive()) is not None:
        for item in decode_frame(text).messages:
            if isinstance(item, Known) and item.co_id == value.id and item.known.covers(full):
                return
    raise AssertionError("the node closed the connection")


async def upload_acknowledged(ready: dict[str, Any], value: Value, content: Content) -> None:
    """Send it as a client, and wait until the node has it."""
    async with open_websocket(_port(ready)) as client:
        await client.send(encode_message(content))
        await wait_acknowledged(client, value)


async def ask(data: Path, verb: Verb) -> tuple[int, Mapping[str, Any]]:
    """What the node on this directory does with a verb: its exit code and its last result."""

    def perform() -> tuple[int, Mapping[str, Any]]:
        client = AdminClient.find(data)
        assert client is not None
        last: Mapping[str, Any] = {}
        try:
            for last in client.perform(verb):  # noqa: B007  # the last one counts
                pass
        except VerbError as error:
            return error.code, last
        return ExitCode.OK, last

    return await trio.to_thread.run_sync(perform)


async def test_copies_survive_and_acknowledgements_wait_for_them(tmp_path: Path) -> None:
    value = Author(1).value("precious")
    keeper = NodeProcess(tmp_path / "keeper", "--replicate", "all")
    with trio.fail_after(60):
        async with keeper.running() as kept:
            mesh = ("--join", kept["ticket"], "--min-copies", "2")
            first = NodeProcess(tmp_path / "first", *mesh)
            async with first.running() as ready:
                await _kill_in_turns(tmp_path, value, keeper, first, ready)


async def _kill_in_turns(
    path: Path, value: Value, keeper: NodeProcess, first: NodeProcess, ready: dict[str, Any]
) -> None:
    async with open_websocket(_port(ready)) as client:
        await client.send(encode_message(value.edit("[]", with_header=True)))
        await wait_acknowledged(client, value)
        code, last = await ask(path / "first", WaitSync((value.id,)))
        assert (code, last["is_done"], last["copies"]) == (0, True, 2)
        assert await keeper.stop(signal.SIGKILL) == -signal.SIGKILL
        # With nobody to hold a copy nothing is acknowledged, and nothing is lost.
        await client.send(encode_message(value.edit("[]")))
        with trio.move_on_after(0.5) as lonely:
            await wait_acknowledged(client, value)
        assert lonely.cancelled_caught
        code, _ = await ask(path / "first", WaitSync((value.id,), timeout_seconds=0.1))
        assert code == ExitCode.TIMEOUT
        _, status = await ask(path / "first", ShowSync())
        assert (status["is_done"], status["waiting"]) == (False, 1)
        assert await first.stop(signal.SIGKILL) == -signal.SIGKILL
    ready = await first.start()
    again = NodeProcess(path / "keeper", "--replicate", "all", "--join", ready["mesh"])
    async with again.running(), open_websocket(_port(ready)) as client:
        await client.send(encode_message(value.edit("[]")))
        await wait_acknowledged(client, value)
        code, last = await ask(path / "keeper", WaitSync())
        assert (code, last["is_done"]) == (0, True)
        _, held = await ask(path / "keeper", Load(value.id))
        assert held["sessions"] == {value.session_id: 3}
        assert held["source"] == "store"


def _port(ready: dict[str, Any]) -> int:
    return int(ready["ws"].rpartition(":")[2])
