from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from bee.bee import Bee
from hypercore.encoding import DecodeError
from node.cojson.crypto import encode_signature
from node.cojson.messages import decode_line, join_content, join_session
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content
from node.covalue.keys import checkpoint_key, header_key, run_key, session_key
from node.covalue.reading import read_covalue
from node.covalue.records import (
    encode_checkpoint,
    encode_header,
    encode_run,
    encode_session,
)
from node.covalue.store import StoredText
from node.covalue.text_reading import MAX_TEXT_BYTES, read_text
from node.errors import CorruptStore
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.data_log import DataLog
from tests.support.stores import Appender, check_text, deletion

ANN, BOB = Author("ann"), Author("bob")
HEADER = map_header("m")
ID = HEADER.id
SESSION = ANN.session_id(as_agent=True)


class _Bee:
    def __init__(self) -> None:
        log = DataLog()
        self.bee = Bee(log)
        self.store = BeeStore(self.bee, log, keeps_texts=False)
        self.appender = Appender()

    async def put(self, *contents: Content) -> None:
        await self.appender.put(self.store, *contents)


def _content(count: int, after: int = 0, size: int = 10, author: Author = ANN) -> Content:
    return author.content(
        HEADER,
        edits(count, size=size),
        after=after,
        as_agent=True,
        with_header=after == 0 and author is ANN,
    )


def _sent(text: StoredText) -> Content:
    sessions = [
        join_session(
            session_id, 0, joined, encode_signature(text.value.sessions[session_id].signature)
        )
        for session_id, joined in text.texts.items()
        if joined
    ]
    line = join_content(ID, text.value.header, text.value.header.priority, sessions)
    content = decode_line(line)
    assert isinstance(content, Content)
    return content


async def test_edits_of_several_sessions_are_the_text_that_the_pieces_are() -> None:
    bee = _Bee()
    for count in range(60):
        await bee.put(_content(count + 1, after=count), _content(count + 1, count, author=BOB))
        text = await check_text(bee.store, ID)
        assert text is not None
        assert set(text.value.known_state.sessions.values()) == {count + 1}


async def test_a_header_alone_has_no_sessions() -> None:
    bee = _Bee()
    await bee.put(Content(ID, HEADER, {}))
    text = await check_text(bee.store, ID)
    assert text is not None
    assert not text.texts


async def test_long_values_are_read_in_pieces() -> None:
    bee = _Bee()
    await bee.put(_content(4, size=MAX_TEXT_BYTES // 4 - 100))
    assert await check_text(bee.store, ID) is not None
    await bee.put(_content(5, after=4, size=MAX_TEXT_BYTES // 4 - 100))
    assert await bee.store.load_text(ID) is None


async def test_groups_tombstones_and_what_is_absent_have_no_text() -> None:
    bee = _Bee()
    group = group_header(ANN.agent_id)
    await bee.put(ANN.content(group, edits(1), as_agent=True), _content(1))
    assert await bee.store.load_text(group.id) is None
    assert await bee.store.load_text(map_header("absent").id) is None
    await bee.store.store([bee.appender.append(deletion(ID, ANN), is_deletion=True)])
    assert await bee.store.load_text(ID) is None


async def test_damage_names_the_value() -> None:
    bee = _Bee()
    await bee.put(_content(2))
    await bee.bee.put(session_key(ID, SESSION), b"\xc1")
    with pytest.raises(CorruptStore, match=ID):
        await bee.store.load_text(ID)


RECORDS = [
    encode_header(HEADER),
    encode_header(map_header("another")),
    encode_session(2, bytes(64), 20),
    encode_session(4, bytes(64), 20, encode_run(edits(2))),
    encode_session(2, bytes(64), 20, encode_run(edits(2))),
    encode_session(2, bytes(64), MAX_TEXT_BYTES + 1),
    encode_checkpoint(bytes(64)),
    encode_run(edits(1)),
    encode_run(edits(2)),
]
KEYS = [
    header_key(ID),
    session_key(ID, SESSION),
    session_key(ID, BOB.session_id(as_agent=True)),
    checkpoint_key(ID, SESSION, 1),
    run_key(ID, SESSION, 0),
    run_key(ID, SESSION, 1),
    run_key(ID, SESSION, 2),
]


@given(
    st.dictionaries(
        st.sampled_from(KEYS), st.sampled_from(RECORDS) | st.binary(max_size=8), max_size=6
    )
)
@settings(max_examples=200)
def test_any_rows_are_what_their_pieces_are_or_nothing(rows: dict[bytes, bytes]) -> None:
    rows = {header_key(ID): encode_header(HEADER), **rows}

    async def run() -> None:
        bee = Bee(DataLog())
        async with bee.batch() as batch:
            await batch.put_many(rows.items())
        try:
            text = await read_text(bee.snapshot(), ID)
        except DecodeError:
            return
        if text is not None:
            pieces = await read_covalue(bee.snapshot(), ID)
            assert [_sent(text)] == pieces

    trio.run(run)
