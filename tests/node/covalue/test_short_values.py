from __future__ import annotations

import pytest

from bee.bee import Bee
from node.covalue.bee_store import BeeStore
from node.covalue.content import PIECE_BYTES, Content
from node.covalue.ids import RawCoId
from node.covalue.keys import short_key
from node.covalue.records import encode_short
from node.covalue.short_values import MAX_SHORT_BYTES
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.data_log import DataLog
from tests.support.stores import Appender, check_text, deletion

ANN = Author("ann")
HEADER = map_header("m")
ID = HEADER.id


class _Bee:
    def __init__(self) -> None:
        self.log = DataLog()
        self.appender = Appender()

    def open(self, *, keeps_texts: bool = True) -> BeeStore:
        return BeeStore(Bee(self.log), self.log, keeps_texts=keeps_texts)

    async def put(self, *contents: Content, keeps_texts: bool = True) -> None:
        await self.appender.put(self.open(keeps_texts=keeps_texts), *contents)

    def has_text(self) -> bool:
        return short_key(ID) in self.log.rows


def _content(count: int, after: int = 0, size: int = 10) -> Content:
    return ANN.content(
        HEADER, edits(count, size=size), after=after, as_agent=True, with_header=after == 0
    )


async def test_a_new_short_value_is_there_as_text() -> None:
    bee = _Bee()
    await bee.put(_content(3))
    text = await check_text(bee.open(), ID)
    assert text is not None
    assert text.value.known_state == _content(3).known_state


async def test_a_header_alone_is_there_as_text() -> None:
    bee = _Bee()
    await bee.put(Content(ID, HEADER, {}))
    text = await check_text(bee.open(), ID)
    assert text is not None
    assert not text.texts


async def test_edits_in_the_same_commit_are_in_the_text() -> None:
    bee = _Bee()
    await bee.put(_content(1), _content(2, after=1))
    text = await check_text(bee.open(), ID)
    assert text is not None
    assert text.value.known_state == _content(2).known_state


@pytest.mark.parametrize("keeps_texts", [True, False])
async def test_an_edit_removes_the_row(keeps_texts: bool) -> None:
    bee = _Bee()
    await bee.put(_content(1))
    assert bee.has_text()
    await bee.put(_content(2, after=1), keeps_texts=keeps_texts)
    assert not bee.has_text()
    text = await check_text(bee.open(), ID)
    assert text is not None
    assert text.value.known_state == _content(2).known_state


async def test_each_first_edit_removes_the_row() -> None:
    bee = _Bee()
    store = bee.open()
    for count in (1, 3):  # as if the log had been cut in between, so that the value came again
        await bee.appender.put(store, Content(ID, HEADER, {}))
        assert bee.has_text()
        for edit in (count, count + 1):
            content = ANN.content(
                HEADER, edits(edit), after=edit - 1, as_agent=True, with_header=False
            )
            await bee.appender.put(store, content)
            assert not bee.has_text()


async def test_a_value_that_begins_with_a_checkpoint_has_no_text() -> None:
    bee = _Bee()
    await bee.put(_content(1, size=PIECE_BYTES + 1))
    assert not bee.has_text()


async def test_a_deletion_removes_the_text() -> None:
    bee = _Bee()
    await bee.put(_content(1))
    await bee.open().store([bee.appender.append(deletion(ID, ANN), is_deletion=True)])
    assert not bee.has_text()


async def test_a_value_that_is_deleted_in_its_first_commit_has_no_text() -> None:
    bee = _Bee()
    appends = [
        bee.appender.append(_content(1)),
        bee.appender.append(deletion(ID, ANN), is_deletion=True),
    ]
    await bee.open().store(appends)
    assert not bee.has_text()


async def test_long_values_and_groups_have_no_text() -> None:
    bee = _Bee()
    await bee.put(_content(2, size=MAX_SHORT_BYTES // 2))
    assert not bee.has_text()
    group = group_header(ANN.agent_id)
    await bee.put(ANN.content(group, edits(1), as_agent=True))
    assert short_key(group.id) not in bee.log.rows
    assert (await bee.open().load(group.id)).pieces


async def test_a_store_that_keeps_no_texts_writes_none() -> None:
    bee = _Bee()
    await bee.put(_content(1), keeps_texts=False)
    assert not bee.has_text()


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xc0",
        b"\x92\xa2{}\x90",
        b"\x92\xa1x\x91\x90",
        encode_short(map_header("another").canonical, []),
        encode_short(HEADER.canonical, [])[:-1],
    ],
)
async def test_a_damaged_text_is_passed_over(record: bytes) -> None:
    bee = _Bee()
    await bee.put(_content(1))
    bee.log.rows[short_key(ID)] = record
    assert await bee.open().load_text(ID) is None
    assert list((await bee.open().load(ID)).pieces) == [_content(1)]


async def test_what_is_not_stored_is_no_text() -> None:
    assert await _Bee().open().load_text(RawCoId(map_header("absent").id)) is None
