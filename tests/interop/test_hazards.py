"""What a stranger signs keeps no real cojson client from a value, whatever it is."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from hypercore.storage import Durability
from node.cojson.crypto import co_id_of
from node.cojson.messages import decode_line, encode_message
from node.covalue.content import Content, Transaction
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.ids import CoSessionId, RawCoId, agent_public_key
from node.covalue.sqlite_store import open_sqlite_store
from tests.support.authors import Author, edits, role
from tests.support.running_node import open_jazz_client, open_running_node
from tests.support.stores import Appender
from tests.support.websocket_client import WebSocketClient, open_websocket

pytestmark = pytest.mark.interop

EVE = Author("eve")
CHANGES = [
    *("{}", "5", "null", "true", "[null]", '[{"op":"set"}]', '[{"op":"set","key":5}]'),
    '[{"op":"set","key":"co_zzz","value":"x"}]',
    '[{"op":"set","key":"\\u0063o_zzz","value":"x"}]',
    '[{"op":"set","key":"parent_zzz","value":"extend"}]',
]
_ASTRAY = '{"group":"co_zA","type":"ownedByGroup"}'
_LIMITED = f'{{"group":"{EVE.account_id}","restrictDeletion":1,"type":"ownedByGroup"}}'
_FREE = '{"type":"unsafeAllowAll"}'
ODD = [
    f'{{"meta":{meta},"ruleset":{ruleset},"type":"comap","uniqueness":"odd"}}'
    for meta, ruleset in (
        ('{"source":"zz"}', _FREE),
        ('{"source":5}', _FREE),
        ('{"a":0.000001}', _FREE),
        ("null", _ASTRAY),
        ("null", _LIMITED),
    )
]
"""Values that cojson does not take: a group that names one waits for it for ever."""
MARKERS = ['"' + "x" * 5000 + '"', "[" * 1500 + "]" * 1500]


async def header_of(eve: WebSocketClient, co_id: RawCoId) -> CoValueHeader:
    await eve.send(json.dumps({"action": "load", "id": co_id, "header": False, "sessions": {}}))
    while True:
        text = await eve.receive()
        assert text is not None
        for line in text.split("\n"):
            if '"header":{' in line and f'"id":"{co_id}"' in line:
                message = decode_line(line)
                assert isinstance(message, Content)
                assert message.header is not None
                return message.header


async def test_a_stranger_keeps_no_client_from_a_value(tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    with trio.fail_after(120):
        async with (
            open_running_node(tmp_path / "data") as node,
            open_jazz_client(node.ws) as ann,
            open_websocket(int(node.ws.rpartition(":")[2])) as eve,
        ):
            co_id = RawCoId((await ann.do("create", values={"n": 1}))["id"])
            untouched = RawCoId((await ann.do("create", values={"n": 2}))["id"])
            header = await header_of(eve, co_id)
            assert header.owner_group is not None
            group = await header_of(eve, RawCoId(header.owner_group))
            await eve.send(encode_message(EVE.account()))
            for number, changes in enumerate(CHANGES):
                bad = [Transaction(now, changes)]
                await eve.send(encode_message(EVE.content(group, bad, session=f"g{number}")))
            for number, odd in enumerate(ODD):
                odd_id = co_id_of(odd)
                await eve.send(
                    f'{{"action":"content","id":"{odd_id}","header":{odd},"priority":3,"new":{{}}}}'
                )
                naming = [Transaction(now, f'[{{"op":"set","key":"{odd_id}","value":"reader"}}]')]
                await eve.send(encode_message(EVE.content(group, naming, session=f"o{number}")))
            late = [Transaction(2**53 + 1, "[]")]
            await eve.send(encode_message(EVE.content(header, late)))
            for number, filling in enumerate(MARKERS):
                content = EVE.deletion(header, session=f"d{number}")
                ((session_id, part),) = content.new.items()
                meta = f'{{"deleted":"{co_id}","x":{filling}}}'
                hidden = [Transaction(now, "[]", None, meta)]
                part = part._replace(transactions=hidden, signature=EVE.sign(hidden))
                new = {session_id: part}
                await eve.send(encode_message(Content(co_id, None, new, header.priority)))
            await header_of(eve, untouched)  # all before it was looked at
            async with open_jazz_client(node.ws) as bob:
                assert (await bob.do("load", id=co_id))["values"] == {"n": 1}
                assert await bob.do("set", id=co_id, key="by bob", value=2) == {"synced": True}
                await ann.do("wait", id=co_id, key="by bob", value=2)
                await ann.do("set", id=co_id, key="n", value=3)
                await bob.do("wait", id=co_id, key="n", value=3)


async def store_poison(path: Path, co_id: RawCoId) -> None:
    """Have Eve write what is refused today to a map and its group, in the file of a server."""
    odd = parse_header({**EVE.account_header.fields, "meta": {"type": "account", "a": 1e-6}})
    appender = Appender({odd.id: agent_public_key(EVE.agent_id)})
    async with open_sqlite_store(path, Durability.OS) as store:

        async def write(header: CoValueHeader, item: Transaction, name: str, owner: str) -> None:
            content = EVE.content(header, [item], session=name, as_agent=True)
            ((session_id, part),) = content.new.items()
            session_id = CoSessionId(session_id.replace(EVE.agent_id, owner))
            shown = header if header is odd else None
            await appender.put(store, replace(content, header=shown, new={session_id: part}))

        value = await store.load_value(co_id)
        assert value is not None
        group = await store.load_value(RawCoId(value.header.owner_group or ""))
        assert group is not None
        await write(odd, role(EVE.agent_id, "admin"), "a", EVE.agent_id)
        await write(group.header, role(odd.id, "reader"), "a", EVE.agent_id)
        await write(group.header, Transaction(5, "[null]"), "b", EVE.agent_id)
        await write(value.header, Transaction(2**53 + 1, "[]"), "a", EVE.agent_id)
        await write(value.header, edits(1)[0], "b", odd.id)


async def test_what_a_file_holds_keeps_no_client_from_a_value(tmp_path: Path) -> None:
    data = tmp_path / "data"
    options = ("--store", "sqlite")
    with trio.fail_after(120):
        async with open_running_node(data, *options) as node, open_jazz_client(node.ws) as ann:
            co_id = RawCoId((await ann.do("create", values={"n": 1}))["id"])
        await store_poison(data / "covalues.sqlite", co_id)
        async with (
            open_running_node(data, *options) as node,
            open_jazz_client(node.ws) as bob,
            open_jazz_client(node.ws) as cid,
        ):
            assert (await bob.do("load", id=co_id))["values"] == {"n": 1}
            assert (await cid.do("load", id=co_id))["values"] == {"n": 1}
            assert await bob.do("set", id=co_id, key="n", value=2) == {"synced": True}
            await cid.do("wait", id=co_id, key="n", value=2)
