from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from bee.bee import Bee
from hypercore.encoding import DecodeError
from hypercore.errors import StorageFailed
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content, Transaction
from node.covalue.keys import checkpoint_key, header_key, run_key, session_key
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.pieces import ValueReader
from node.covalue.reading import read_covalue
from node.covalue.records import encode_checkpoint, encode_header, encode_run, encode_session
from node.covalue.session_fork import SessionFork
from node.errors import CorruptStore
from tests.support.authors import Author, edits, map_header
from tests.support.data_log import DataLog
from tests.support.stores import Appender, deletion, joined

ANN = Author("ann")
HEADER = map_header("m")
ID = HEADER.id


class Writer:
    """A bee store in memory, and who appends to it."""

    def __init__(self) -> None:
        self.log = DataLog()
        self.bee = Bee(self.log)
        self.store = BeeStore(self.bee, self.log)
        self.appender = Appender()

    async def put(self, *contents: Content) -> None:
        await self.appender.put(self.store, *contents)


def _content(
    transactions: Sequence[Transaction], after: int = 0, session: str = "a", author: Author = ANN
) -> Content:
    return author.content(
        HEADER,
        transactions,
        after=after,
        session=session,
        as_agent=True,
        with_header=after == 0 and session == "a",
    )


async def test_several_messages_are_one_append_and_few_blocks() -> None:
    writer = Writer()
    transactions = edits(1000)
    contents = [_content(transactions[: n + 1], after=n) for n in range(len(transactions))]
    appends = [writer.appender.append(content) for content in contents]
    await writer.store.store(appends)
    assert writer.log.appends == 1
    assert writer.log.length <= 5
    loaded = await writer.store.load(ID)
    assert joined(loaded.pieces) == {ANN.session_id(as_agent=True): transactions}
    assert loaded.pieces[-1].new[ANN.session_id(as_agent=True)].signature == ANN.sign(transactions)


async def test_of_an_erased_value_two_rows_are_left() -> None:
    writer = Writer()
    await writer.put(_content(edits(3)), _content(edits(2), session="b"))
    append = writer.appender.append(deletion(ID, ANN), is_deletion=True)
    await writer.store.store([append])
    assert (await writer.store.erase(ID)).transactions == 5
    left = [entry.key async for entry in writer.bee.range()]
    assert left == [header_key(ID), session_key(ID, ANN.delete_session_id(as_agent=True))]


async def test_everything_of_a_session_is_erased_wherever_it_lies() -> None:
    writer = Writer()
    transactions = edits(100)
    for count in range(len(transactions)):
        await writer.put(_content(transactions[: count + 1], after=count))
    append = writer.appender.append(deletion(ID, ANN), is_deletion=True)
    await writer.store.store([append])
    assert (await writer.store.erase(ID)).transactions == len(transactions)


async def test_a_remote_bee_reads_the_same_and_lies_are_told_apart() -> None:
    writer = Writer()
    content = _content(edits(3))
    await writer.put(content)
    tree = writer.bee.snapshot()
    assert await read_covalue(tree, ID) == [content]
    assert await read_covalue(tree, map_header("other").id) == []
    assert await read_covalue(tree, ID, content.known_state) == []


SESSION = ANN.session_id(as_agent=True)
RUN = encode_run(edits(2))
GOOD = [
    (header_key(ID), encode_header(HEADER)),
    (session_key(ID, SESSION), encode_session(2, bytes(64), 20)),
    (run_key(ID, SESSION, 0), RUN),
]


@pytest.mark.parametrize(
    "change",
    [
        {header_key(ID): None},
        {header_key(ID): encode_header(map_header("other"))},
        {header_key(ID): b"\xc1"},
        {session_key(ID, SESSION): None},
        {session_key(ID, SESSION): encode_session(3, bytes(64), 20)},
        {session_key(ID, SESSION): encode_session(1, bytes(64), 20)},
        {run_key(ID, SESSION, 0): None},
        {run_key(ID, SESSION, 0): None, run_key(ID, SESSION, 1): RUN},
        {run_key(ID, SESSION, 1): RUN},
        {ID.encode() + b":xyz": b""},
    ],
)
async def test_rows_that_do_not_fit_are_refused(change: dict[bytes, bytes | None]) -> None:
    log = DataLog()
    bee = Bee(log)
    rows = {**dict(GOOD), **change}
    async with bee.batch() as batch:
        for key, value in rows.items():
            if value is not None:
                await batch.put(key, value)
    with pytest.raises(DecodeError):
        await read_covalue(bee.snapshot(), ID)


async def test_damage_at_home_names_the_value() -> None:
    writer = Writer()
    await writer.put(_content(edits(2)))
    await writer.bee.put(header_key(ID), b"\xc1")
    with pytest.raises(CorruptStore, match=ID):
        await writer.store.load(ID)
    with pytest.raises(CorruptStore, match=ID):
        await writer.store.load_value(ID)


RECORDS = [
    encode_header(HEADER),
    encode_session(2, bytes(64), 20),
    encode_session(5, bytes(64), 20),
    encode_checkpoint(bytes(64)),
    RUN,
    encode_run(edits(5)),
]
KEYS = [
    header_key(ID),
    session_key(ID, SESSION),
    checkpoint_key(ID, SESSION, 0),
    checkpoint_key(ID, SESSION, 1),
    checkpoint_key(ID, SESSION, 3),
    run_key(ID, SESSION, 0),
    run_key(ID, SESSION, 1),
    run_key(ID, SESSION, 2),
]
rows = st.dictionaries(
    st.sampled_from(KEYS), st.sampled_from(RECORDS) | st.binary(max_size=80), max_size=len(KEYS)
)


@given(rows, st.integers(0, 6))
def test_any_rows_are_pieces_that_continue_what_is_known_or_refused(
    found: dict[bytes, bytes], have: int
) -> None:
    reader = ValueReader(ID, KnownState(have > 0, {SESSION: have} if have else {}))
    try:
        for key in sorted(found):
            reader.receive(key, found[key])
        contents, _ = reader.finish()
    except DecodeError:
        return
    for transactions in joined(contents).values():
        assert transactions
    for content in contents[:1]:
        for part in content.new.values():
            assert part.after == have


async def test_good_rows_are_pieces() -> None:
    bee = Bee(DataLog())
    async with bee.batch() as batch:
        for key, value in GOOD:
            await batch.put(key, value)
    assert await read_covalue(bee.snapshot(), ID, NOTHING)


class SlowRows(DataLog):
    """Rows are here at once, and then the disk fails."""

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        await super().write_local(rows)
        await trio.sleep(1)
        raise StorageFailed("no space left on the device")


async def test_evidence_that_is_on_its_way_to_the_disk_is_not_kept_yet(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found by seed 519097: who brought it, too, was told so, and then it was not there."""
    log = SlowRows()
    store = BeeStore(Bee(log), log)
    part = next(iter(_content(edits(2)).new.values()))
    fork = SessionFork(ID, ANN.session_id(), part, part._replace(transactions=edits(1)))
    failed = 0

    async def keep() -> None:
        nonlocal failed
        with pytest.raises(StorageFailed):
            await store.keep_fork(fork)
        failed += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep)
        nursery.start_soon(keep)
    assert failed == 2
