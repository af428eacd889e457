from __future__ import annotations

import sys

from bee.bee import Bee
from node.covalue.bee_store import BeeStore
from node.covalue.content import PIECE_BYTES, Content, SessionContent, Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import RawCoId
from node.covalue.known_state import KnownState
from node.covalue.local.continuation import continue_value
from node.covalue.local.held_states import HeldState, HeldStates
from node.covalue.local.loading import load_with_dependencies
from tests.support.authors import Author, edits, group_header, map_header
from tests.support.data_log import DataLog

ANN, BOB = Author("ann"), Author("bob")
SIGNATURE = bytes(64)


class Loader:
    """A process with a store: what it holds, and what was told of it."""

    def __init__(self, round_bytes: int = 256 * 1024) -> None:
        log = DataLog()
        self.store = BeeStore(Bee(log), log)
        self.held = HeldStates()
        self._round_bytes = round_bytes

    async def put(self, *contents: Content) -> None:
        for content in contents:
            plan = continue_value(await self.store.load_value(content.co_id), content)
            assert plan.append is not None
            await self.store.store([plan.append])

    async def load(self, co_id: RawCoId) -> list[Content]:
        pieces = load_with_dependencies(
            self.store, self.held, co_id, self.held.merge, self._round_bytes
        )
        return [piece async for piece in pieces]

    async def load_ids(self, co_id: RawCoId) -> list[RawCoId]:
        return [piece.co_id for piece in await self.load(co_id)]


def _group(uniqueness: str, members: list[str]) -> Content:
    """A group with these members and parents, signed by an agent that nobody has to load."""
    transactions = [
        Transaction(1, f'[{{"op":"set","key":"{key}","value":"admin"}}]') for key in members
    ]
    header = group_header(ANN.agent_id, uniqueness)
    return ANN.content(header, transactions, as_agent=True)


def _map(group: RawCoId | None, transactions: list[Transaction], author: Author = ANN) -> Content:
    return author.content(map_header("m", group), transactions, as_agent=True)


async def test_a_value_that_is_not_stored_is_no_pieces() -> None:
    loader = Loader()
    assert await loader.load(map_header("m").id) == []
    assert loader.held.mounted == 0


async def test_dependencies_come_first_and_theirs_before_them() -> None:
    loader = Loader()
    account = BOB.account()
    parent = _group("parent", [account.co_id])
    group = _group("group", [f"parent_{parent.co_id}"])
    value = _map(group.co_id, edits(2))
    await loader.put(account, parent, group, value)
    expected = [account.co_id, parent.co_id, group.co_id, value.co_id]
    assert await loader.load_ids(value.co_id) == expected
    assert all(map(loader.held.is_mounted, expected))
    assert loader.held.get(value.co_id) == HeldState(value.known_state)


async def test_the_accounts_of_sessions_are_needed_too() -> None:
    loader = Loader()
    account = BOB.account()
    value = BOB.content(map_header("m"), edits(2))  # signed as the account
    await loader.put(account, value)
    assert await loader.load_ids(value.co_id) == [account.co_id, value.co_id]


async def test_what_is_mounted_is_left_out_and_what_is_missing_is_passed_over() -> None:
    loader = Loader()
    missing = map_header("missing").id
    group = _group("group", [missing])
    value = _map(group.co_id, edits(1))
    await loader.put(group, value)
    assert await loader.load_ids(value.co_id) == [group.co_id, value.co_id]
    assert not loader.held.is_mounted(missing)
    assert await loader.load_ids(value.co_id) == [value.co_id]
    loader.held.forget(group.co_id)
    assert await loader.load_ids(value.co_id) == [group.co_id, value.co_id]


async def test_cycles_end() -> None:
    loader = Loader()
    first_id, second_id = group_header(ANN.agent_id, "1").id, group_header(ANN.agent_id, "2").id
    await loader.put(
        _group("1", [f"parent_{second_id}", first_id]), _group("2", [f"parent_{first_id}"])
    )
    assert await loader.load_ids(first_id) == [second_id, first_id]


async def test_a_chain_of_parents_may_be_deeper_than_a_stack() -> None:
    loader = Loader()
    chain: list[Content] = []
    for number in range(sys.getrecursionlimit() + 100):
        chain.append(_group(str(number), [f"parent_{chain[-1].co_id}"] if chain else []))
    plans = [continue_value(None, group) for group in chain]
    await loader.store.store([plan.append for plan in plans if plan.append is not None])
    assert await loader.load_ids(chain[-1].co_id) == [group.co_id for group in chain]


def _large(header: CoValueHeader, piece_count: int) -> list[Content]:
    """Messages that fill one piece each, the last one half."""
    session_id = ANN.session_id(as_agent=True)
    contents = []
    transactions: list[Transaction] = []
    for number in range(piece_count):
        size = PIECE_BYTES if number < piece_count - 1 else PIECE_BYTES // 2
        transactions.append(Transaction(number, "x" * size))
        signature = len(transactions).to_bytes(64, "big")
        part = SessionContent(number, transactions[number:], signature)
        contents.append(Content(header.id, header if number == 0 else None, {session_id: part}))
    return contents


async def test_large_values_are_read_a_few_pieces_at_a_time() -> None:
    session_id = ANN.session_id(as_agent=True)
    for round_bytes in (1, PIECE_BYTES * 3, PIECE_BYTES * 100):
        loader = Loader(round_bytes)
        header = map_header("large")
        await loader.put(*_large(header, 9))
        pieces = await loader.load(header.id)
        assert [piece.header is not None for piece in pieces] == [True] + [False] * (
            len(pieces) - 1
        )
        assert pieces[0].expect_until == {session_id: 9}
        assert all(piece.expect_until is None for piece in pieces[1:])
        parts = [piece.new[session_id] for piece in pieces]
        assert [part.stop for part in parts[:-1]] == [part.after for part in parts[1:]]
        assert (parts[0].after, parts[-1].stop) == (0, 9)
        assert [part.signature for part in parts] == [
            part.stop.to_bytes(64, "big") for part in parts
        ]
        assert loader.held.get(header.id) == HeldState(KnownState(True, {session_id: 9}))


async def test_members_named_in_a_later_piece_come_before_it() -> None:
    loader = Loader()
    account = BOB.account()
    header = group_header(ANN.agent_id)
    messages = _large(header, 3)
    session_id = ANN.session_id(as_agent=True)
    naming = Transaction(9, f'[{{"op":"set","key":"{account.co_id}","value":"reader"}}]')
    part = SessionContent(3, [naming], SIGNATURE)
    await loader.put(account, *messages, Content(header.id, None, {session_id: part}))
    ids = await loader.load_ids(header.id)
    assert ids[-2:] == [account.co_id, header.id]
    assert set(ids[:-2]) == {header.id}
