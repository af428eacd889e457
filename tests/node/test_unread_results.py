"""Results that nobody reads any more: whoever stops a verb stops it in the node, too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
import trio.testing

from node.verbs import BackUp, BeeCompact, CoreTruncate, ImportValues, Result, Verb, encode_verb
from tests.node.test_web_admin import TOKEN, FakeNode, open_admin

PostedVerb = ImportValues | BackUp | BeeCompact | CoreTruncate


class LongNode(FakeNode):
    """Is at work until it is told to go on; an import tells of that at once, others do not."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = trio.Event()
        self.may_end = trio.Event()
        self.has_ended = trio.Event()
        self.is_done = False

    async def perform(self, verb: Verb) -> AsyncGenerator[Result, None]:
        try:
            self.has_begun.set()
            if isinstance(verb, ImportValues):
                yield {"done": 1}
            await self.may_end.wait()
            self.is_done = True
            yield {"done": 2}
        finally:
            self.has_ended.set()


async def hang_up(host: str, path: str, verb: PostedVerb, node: LongNode) -> None:
    """Send a request and hang up, as soon as there is anything to be read if that comes first."""
    body = encode_verb(verb)
    head = f"POST /api/v1/{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
    name, _, port = host.rpartition(":")
    async with await trio.open_tcp_stream(name, int(port)) as stream:
        await stream.send_all(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await node.has_begun.wait()
        if isinstance(verb, ImportValues):
            text = b""
            while b'{"done":1}' not in text:
                text += await stream.receive_some()


async def test_an_import_ends_when_whoever_began_it_hangs_up(tmp_path: Path) -> None:
    node = LongNode()
    async with open_admin(tmp_path, node) as host:
        await hang_up(host, "values/import", ImportValues("/a.db"), node)
        await node.has_ended.wait()
        assert not node.is_done


@pytest.mark.parametrize(
    ("path", "verb"), [("node/backup", BackUp("/a")), ("bee/compact", BeeCompact())]
)
async def test_what_takes_long_ends_when_nobody_waits_for_its_one_result(
    tmp_path: Path, path: str, verb: PostedVerb
) -> None:
    """Whoever stopped `beemesh backup` found a node that went on with it to its end."""
    node = LongNode()
    async with open_admin(tmp_path, node) as host:
        await hang_up(host, path, verb, node)
        await node.has_ended.wait()
        assert not node.is_done


async def test_what_has_one_result_is_carried_out_all_the_same(tmp_path: Path) -> None:
    node = LongNode()
    async with open_admin(tmp_path, node) as host:
        await hang_up(host, "core/truncate", CoreTruncate("a", 1), node)
        await trio.testing.wait_all_tasks_blocked(0.05)
        node.may_end.set()
        await node.has_ended.wait()
        assert node.is_done
