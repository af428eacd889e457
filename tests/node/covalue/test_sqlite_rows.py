"""Row ids are given out without a look at the file: what may lie there all the same."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from hypercore.storage import Durability
from node.covalue.sqlite_store import open_sqlite_store
from tests.support.authors import Author, edits, map_header
from tests.support.stores import Appender, joined

ANN, BOB = Author("ann"), Author("bob")
HEADER, OTHER = map_header("m"), map_header("n")
FIRST = ANN.content(HEADER, edits(20), as_agent=True)


async def test_sessions_of_a_value_that_is_gone_are_not_those_of_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    new = BOB.content(OTHER, edits(1), as_agent=True)
    async with open_sqlite_store(path, Durability.OS) as store:
        await Appender().put(store, FIRST)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM coValues")
    async with open_sqlite_store(path, Durability.OS) as store:
        await Appender().put(store, new)
        assert list((await store.load(OTHER.id)).pieces) == [new]


async def test_a_value_that_comes_with_its_header_again_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "file"
    appender = Appender()
    first = appender.append(FIRST)
    more = appender.append(
        ANN.content(HEADER, edits(40), after=20, as_agent=True, with_header=False)
    )
    async with open_sqlite_store(path, Durability.OS) as store:
        await store.store([first])
    async with open_sqlite_store(path, Durability.OS) as store:
        await store.store([more._replace(header=first.header)])
        assert store.count() == 1
        pieces = (await store.load(HEADER.id)).pieces
        assert joined(pieces)[ANN.session_id(as_agent=True)] == edits(40)
