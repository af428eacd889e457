"""Real clients of a node that acknowledges what two nodes hold: what they have sent stays sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.running_node import (
    JazzClient,
    RunningNode,
    open_jazz_client,
    open_running_node,
    wait_members,
)

pytestmark = pytest.mark.interop

COUNT = 20
SIZE = 500


@asynccontextmanager
async def open_two_copies(path: Path, store: str) -> AsyncIterator[RunningNode]:
    """A node with `--min-copies 2`, and another one that keeps all."""
    stored = ["--store", store]
    async with open_running_node(path / "keeper", *stored) as keeper:
        assert (await keeper.beemesh("policy", "set", "all")).code == 0
        options = [*stored, "--join", keeper.ready["ticket"], "--min-copies", "2"]
        async with open_running_node(path / "first", *options) as first:
            await wait_members(keeper, first)
            yield first


async def edit_after_all_is_heard(client: JazzClient, ids: list[str], value: str) -> list[str]:
    """The values of which the client has sent content, up to its edit of the first one."""
    await client.do("heard", ids=ids)
    await client.do("set", id=ids[0], value=value)
    sent: list[str] = (await client.do("said"))["content"]
    return sent


@pytest.mark.parametrize("store", ["bee", "hybrid"])
async def test_a_client_that_comes_again_sends_only_what_it_edits(
    tmp_path: Path, store: str
) -> None:
    """One that was started anew sent all that it had: told first that N nodes hold nothing."""
    file = tmp_path / "client.sqlite"
    with trio.fail_after(180):
        async with open_two_copies(tmp_path, store) as node:
            async with open_jazz_client(node.ws, file) as client:
                ids = (await client.do("create", count=COUNT, size=SIZE))["ids"]
                sent = (await client.do("said"))["content"]
                assert set(ids) <= set(sent)
                await client.do("reconnect")
                assert await edit_after_all_is_heard(client, ids, "y") == [*sent, ids[0]]
            async with open_jazz_client(node.ws, file) as client:
                assert (await client.do("load", ids=ids))["loaded"] == COUNT
                assert await edit_after_all_is_heard(client, ids, "z") == [ids[0]]
                assert set(ids) <= set((await client.do("said"))["load"])
