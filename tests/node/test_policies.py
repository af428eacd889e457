"""`beemesh pin`, `follow`, `policy` and `explain`, on real nodes with their own processes."""

from __future__ import annotations

from pathlib import Path

import trio

from hypercore.corestore import open_corestore
from node.client import AdminClient
from node.cojson.host import open_sync_host
from node.config import load_config
from node.storing import open_storing
from node.verbs import ChangePolicy, ListValues, Result, ShowPolicy, Verb
from tests.node.mesh.authors import Author, Value
from tests.support.running_node import RunningNode, open_running_node, wait_members


async def fill(data: Path, values: list[Value]) -> None:
    """A node that is not running yet holds these."""
    config = load_config({"data": data}, {})
    async with (
        open_corestore(config.corestore_path) as cores,
        open_storing(config, cores) as storing,
        open_sync_host(storing.values) as host,
    ):
        contents = [value.edit("[]", with_header=True) for value in values]
        assert not (await host.receive_content("test", contents)).refused


async def perform(node: RunningNode, verb: Verb) -> list[Result]:
    """As the command does, without the cost of its process."""
    client = AdminClient.find(node.data)
    assert client is not None
    return await trio.to_thread.run_sync(lambda: list(client.perform(verb)))


async def held(node: RunningNode, count: int) -> set[object]:
    """Its coValues, once there are that many; it can only be asked again and again."""
    with trio.fail_after(20):
        while True:
            ids = {line["id"] for line in await perform(node, ListValues())}
            if len(ids) >= count:
                return ids


async def test_policies_on_the_command_line(tmp_path: Path) -> None:
    author = Author(1)
    values = [author.value(f"value {number}") for number in range(40)]
    pinned, prefix = values[0], values[1].id[:6]
    followed = {value.id for value in values if value.id.startswith(prefix)}
    await fill(tmp_path / "a", values)
    async with open_running_node(tmp_path / "a", "--name", "a") as holder:
        options = ("--name", "b", "--join", str(holder.ready["ticket"]))
        async with open_running_node(tmp_path / "b", *options) as keeper:
            await wait_members(holder, keeper)
            shown = await keeper.beemesh("pin", pinned.id)
            assert (shown.code, "pins" in shown.out, pinned.id in shown.out) == (0, True, True)
            done = await keeper.beemesh("follow", f"prefix:{prefix}", "--json")
            assert done.lines[0]["follow"] == [f"prefix:{prefix}"]
            assert await held(keeper, len(followed | {pinned.id})) == followed | {pinned.id}
            report = await keeper.beemesh("explain", pinned.id)
            texts = (
                "it is pinned",
                f"from node {holder.ready['id']}",
                "1 transaction in 1 session",
            )
            assert (report.code, [text in report.out for text in texts]) == (0, [True] * 3)
            report = await holder.beemesh("explain", pinned.id)
            assert "from a client, an import, or a node that was not noted" in report.out
            nowhere = await keeper.beemesh("explain", Author(2).value("nowhere").id, "--json")
            assert (nowhere.code, nowhere.lines[0]["found"]) == (4, False)
            wrong = await keeper.beemesh("unpin", values[2].id)
            assert (wrong.code, wrong.out) == (2, "")
            assert "no pin of" in wrong.error
            peer = await keeper.beemesh("policy", "peer", "wan", "down", "--day-bytes", "1GiB")
            assert "takes, gives nothing, at most 1.0 GiB a day" in peer.out
            assert "once it is met" not in peer.out
            peer = await keeper.beemesh("policy", "peer", "a", "both", "--month-bytes", "1GiB")
            assert (
                f"with {holder.ready['id'][:12]} (a)  both ways, at most 1.0 GiB a month\n"
                in peer.out
            )
            peer = await keeper.beemesh("policy", "peer", "aa", "down", "--json")
            assert peer.lines[0]["peers"]["aa"]["is_known"] is False
            assert "gives nothing, once it is met" in (await keeper.beemesh("policy")).out
            before = await perform(keeper, ChangePolicy(deny=(values[2].id,)))
        async with open_running_node(tmp_path / "b", *options) as keeper:
            assert await perform(keeper, ShowPolicy()) == before
            await wait_members(holder, keeper)
            bounds = ("--max-value-bytes", "1MiB", "--max-age", "none")
            assert (await keeper.beemesh("policy", "set", "all", *bounds)).code == 0
            everything = {value.id for value in values}
            assert await held(keeper, 39) == everything - {values[2].id}
