"""What a stranger signs keeps no real cojson client from a value, whatever it is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import trio

from node.cojson.crypto import co_id_of
from node.cojson.messages import decode_line, encode_message
from node.covalue.content import Content, Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import RawCoId
from tests.support.authors import Author
from tests.support.running_node import open_jazz_client, open_running_node
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
