"""JavaScript clients at a node that does not take everything from everybody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from tests.support.running_node import (
    RunningNode,
    open_jazz_client,
    open_running_node,
    wait_members,
)

pytestmark = pytest.mark.interop


async def wait_denied(node: RunningNode, count: int) -> None:
    """Return when the node has read its file; it can only be asked again and again."""
    while True:
        answer = await node.beemesh("status", "--json")
        if json.loads(answer.out)["access"]["denied"] == count:
            return


async def author_of(node: RunningNode, co_id: str) -> str:
    (session,) = (await node.beemesh("load", co_id, "--json")).lines[0]["sessions"]
    return str(session).partition("_session")[0]


async def test_a_denied_client_is_refused_keeps_its_connection_and_is_taken_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "deny").touch()
    (tmp_path / "tokens").write_text("app:you+jazz@example.com\n")
    with trio.fail_after(180):
        async with (
            open_running_node(
                tmp_path / "data",
                *("--deny-accounts-file", str(tmp_path / "deny")),
                *("--ws-tokens-file", str(tmp_path / "tokens")),
                *("--quota-account-bytes", "1MiB", "--rate-bytes", "100MiB"),
            ) as node,
            open_jazz_client(f"{node.ws}/?key=you+jazz@example.com") as alice,
            open_jazz_client(f"{node.ws}/?token=you%2Bjazz@example.com") as bob,
        ):
            mine = (await alice.do("create", values={"n": 1}))["id"]
            other = (await bob.do("create", values={"n": 2}))["id"]
            (tmp_path / "deny").write_text(f"{await author_of(node, mine)}  # alice\n")
            await wait_denied(node, 1)
            for n in (3, 4):
                edit = {"id": mine, "key": "n", "value": n}
                assert await alice.do("set", **edit, timeout=1000) == {"synced": False}
            # She is served all the same, on the connection that she has.
            assert (await alice.do("load", id=other))["values"] == {"n": 2}
            assert (await bob.do("load", id=mine))["values"] == {"n": 1}
            await bob.do("set", id=mine, key="by bob", value=True)
            await alice.do("wait", id=mine, key="by bob", value=True)
            status = json.loads((await node.beemesh("status", "--json")).out)
            assert status["clients"]["accepted"] == 2
            assert status["access"]["refused"]["denied"] == 2
            assert status["access"]["tokens"][0]["name"] == "app"
            (tmp_path / "deny").write_text("")
            await wait_denied(node, 0)
            # What was refused comes again with the next edit, which is a gap without it.
            await alice.do("set", id=mine, key="n", value=5)
            await bob.do("wait", id=mine, key="n", value=5)


async def test_an_invite_lets_in_at_another_node_that_enforces_permissions(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it lets people write is taken from them, and nothing on the way is called wrong."""
    enforcing = "--enforce-permissions"
    with trio.fail_after(180):
        async with (
            open_running_node(tmp_path / "a", enforcing) as a,
            open_running_node(tmp_path / "b", enforcing, "--join", a.ready["ticket"]) as b,
            open_jazz_client(a.ws) as alice,
            open_jazz_client(a.ws) as bob,
            open_jazz_client(b.ws) as carol,
        ):
            await wait_members(a, b)
            for role in ("writer", "admin"):
                invite = await alice.do("invite", role=role, values={"by": "alice"})
                shared = {"id": invite["id"], "key": "by"}
                for name, guest in (("bob", bob), ("carol", carol)):
                    await guest.do("accept", **invite)
                    await guest.do("wait", **shared, value="alice")
                    await guest.do("set", **shared, value=name)
                    await alice.do("wait", **shared, value=name)
                    await alice.do("set", **shared, value="alice")
            assert "content refused" not in capfd.readouterr().err
