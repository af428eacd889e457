"""What was stored before it was refused keeps no client from a value."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing

from bee.bee import Bee
from node.cojson.client_link import ClientLink
from node.cojson.host import SyncHost, open_sync_host
from node.cojson.messages import Known, Load, Message, decode_line
from node.covalue.bee_store import BeeStore
from node.covalue.canonical import JsonValue
from node.covalue.content import Content, Transaction
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.ids import CoSessionId, RawCoId, agent_public_key
from node.covalue.known_state import NOTHING, KnownState
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.data_log import DataLog
from tests.support.stores import Appender

ANN, EVE = Author("ann"), Author("eve")
GROUP = group_header(ANN.agent_id)
MAP = map_header("m", GROUP.id)
FOUNDING = [role(ANN.agent_id, "admin", made_at=1), role("everyone", "writer")]
POISON = [Transaction(2000, "[null]")]
OURS = ANN.session_id(as_agent=True)
HERS = EVE.session_id(as_agent=True)
TINY = 0.000001
"""Clients find another id for what has it in its header."""
ODD_GROUP = parse_header({**group_header(EVE.agent_id, "odd").fields, "meta": {"a": TINY}})
ODD_ACCOUNT = parse_header({**EVE.account_header.fields, "meta": {"type": "account", "a": TINY}})
IN_ODD_GROUP = map_header("in", ODD_GROUP.id)


def of_group(author: Author, transactions: Sequence[Transaction], after: int = 0) -> Content:
    return author.content(GROUP, transactions, after=after, as_agent=True, with_header=False)


@asynccontextmanager
async def open_poisoned(*hers: Content) -> AsyncIterator[SyncHost]:
    """A node that has a map in a group, to which Eve has written."""
    log = DataLog()
    store = BeeStore(Bee(log), log)
    appender = Appender({ODD_ACCOUNT.id: agent_public_key(EVE.agent_id)})
    await appender.put(store, ANN.content(GROUP, FOUNDING, as_agent=True))
    await appender.put(store, ANN.content(MAP, edits(2), as_agent=True))
    for content in hers:
        await appender.put(store, content)
    async with open_sync_host(store) as host:
        yield host


async def told(link: ClientLink) -> list[Message]:
    """Everything that is said to this client until nothing moves any more."""
    found: list[Message] = []
    while True:
        await trio.testing.wait_all_tasks_blocked()
        lines = await link.next_lines(25_000)
        if not lines:
            return found
        found += [message for line in lines if (message := decode_line(line)) is not None]


def reached(messages: Sequence[Message], co_id: RawCoId = GROUP.id) -> dict[str, int]:
    """How far sessions of the group, or another value, go in what was sent."""
    counts: dict[str, int] = {}
    for message in messages:
        if isinstance(message, Content) and message.co_id == co_id:
            counts.update({key: part.stop for key, part in message.new.items()})
    return counts


@pytest.mark.parametrize("is_loaded_first", [False, True])
async def test_a_group_is_sent_without_what_clients_stop_at(is_loaded_first: bool) -> None:
    with trio.fail_after(10):
        async with open_poisoned(of_group(EVE, POISON)) as host:
            if is_loaded_first:
                with host.client("first") as first:
                    await first.receive([Load(GROUP.id, NOTHING)])
                    assert reached(await told(first)) == {OURS: 2}
            with host.client("bob") as bob, host.client("ann") as ann:
                await bob.receive([Load(MAP.id, NOTHING)])
                messages = await told(bob)
                assert reached(messages) == {OURS: 2}
                assert any(isinstance(item, Content) and item.co_id == MAP.id for item in messages)
                # What comes later is sent as ever, and what continues hers does no harm.
                more = [*FOUNDING, role("everyone", "reader", made_at=3000)]
                await ann.receive([of_group(ANN, more, after=2)])
                assert reached(await told(bob)) == {OURS: 3}
                await ann.receive([of_group(EVE, [*POISON, *edits(1)], after=1)])
                assert reached(await told(bob)) == {HERS: 2}  # a gap, of which he says so
                await bob.receive([Known(GROUP.id, KnownState(True, {OURS: 3}), True)])
                assert reached(await told(bob)) == {}


async def test_who_has_all_the_rest_is_answered() -> None:
    with trio.fail_after(10):
        async with open_poisoned(of_group(EVE, POISON)) as host:
            with host.client("bob") as bob:
                await bob.receive([Load(GROUP.id, KnownState(True, {OURS: 2}))])
                held = KnownState(True, {OURS: 2, HERS: 1})
                assert await told(bob) == [Known(GROUP.id, held)]


async def test_what_comes_before_is_sent_up_to_a_signature() -> None:
    large = edits(2, size=60_000)
    with trio.fail_after(10):
        async with open_poisoned(
            of_group(EVE, large), of_group(EVE, [*large, *POISON], after=2)
        ) as host:
            messages: list[Message] = []
            for name in ("bob", "cid"):
                with host.client(name) as client:
                    await client.receive([Load(GROUP.id, NOTHING)])
                    messages = await told(client)
                    assert reached(messages) == {OURS: 2, HERS: 2}
            for message in messages:
                if isinstance(message, Content) and message.expect_until is not None:
                    assert message.expect_until == {OURS: 2}  # there will be no more of hers


async def test_what_only_calls_itself_an_account_is_no_group() -> None:
    """It has no members: a key that begins like an id is a key like any other."""
    meta: JsonValue = {"type": "account"}
    header = parse_header({**map_header("odd", GROUP.id).fields, "meta": meta})
    written = ANN.content(header, [role("co_zNobody", "writer")], as_agent=True)
    with trio.fail_after(10):
        async with open_poisoned(written) as host:
            with host.client("bob") as bob:
                await bob.receive([Load(header.id, KnownState(True))])
                assert reached(await told(bob), header.id) == {OURS: 1}


LATE = [Transaction(2**53 + 1, "[]")]


@pytest.mark.parametrize("is_begun_so", [False, True])
async def test_a_value_is_sent_without_times_that_clients_misread(is_begun_so: bool) -> None:
    """They took the signature for wrong, and nothing further of the value."""
    header = map_header("late", GROUP.id) if is_begun_so else MAP
    hers = EVE.content(header, LATE, as_agent=True, with_header=is_begun_so)
    sessions = {} if is_begun_so else {OURS: 2}
    count = sessions.get(OURS, 0)
    with trio.fail_after(10):
        async with open_poisoned(hers) as host:
            for name in ("first", "second"):
                with host.client(name) as client:
                    await client.receive([Load(header.id, NOTHING)])
                    messages = await told(client)
                    assert reached(messages, header.id) == sessions
                    assert any(isinstance(item, Content) and item.header for item in messages)
            with host.client("bob") as bob, host.client("ann") as ann:
                await bob.receive([Load(header.id, NOTHING)])
                await told(bob)
                more = ANN.content(
                    header, edits(count + 1), after=count, as_agent=True, with_header=False
                )
                await ann.receive([more])
                assert reached(await told(bob), header.id) == {OURS: count + 1}


def begun(header: CoValueHeader) -> Content:
    return EVE.content(header, edits(1), as_agent=True)


def signed_by_odd_account(content: Content) -> Content:
    ((session_id, part),) = content.new.items()
    odd_id = CoSessionId(session_id.replace(EVE.agent_id, ODD_ACCOUNT.id))
    return replace(content, new={odd_id: part})


NAMING = {
    "a member": of_group(EVE, [role(ODD_GROUP.id, "reader")]),
    "a parent": of_group(EVE, [role(f"parent_{ODD_GROUP.id}", "extend")]),
    "what it owns": of_group(EVE, [role(IN_ODD_GROUP.id, "reader")]),
    "who signs": signed_by_odd_account(of_group(EVE, edits(1))),
}


@pytest.mark.parametrize("naming", NAMING.values(), ids=NAMING.keys())
async def test_a_group_is_sent_without_what_names_a_value_that_clients_do_not_take(
    naming: Content,
) -> None:
    stored = [begun(ODD_GROUP), begun(ODD_ACCOUNT), begun(IN_ODD_GROUP), naming]
    with trio.fail_after(10):
        async with open_poisoned(*stored) as host:
            for name in ("first", "second"):
                with host.client(name) as client:
                    await client.receive([Load(MAP.id, NOTHING)])
                    messages = await told(client)
                    assert reached(messages) == {OURS: 2}
                    assert reached(messages, MAP.id) == {OURS: 2}


async def test_a_group_that_also_names_a_value_that_is_lost_is_sent_without_what_is_withheld() -> (
    None
):
    lost = of_group(ANN, [*FOUNDING, role(map_header("lost").id, "reader")], after=2)
    with trio.fail_after(10):
        async with open_poisoned(begun(ODD_GROUP), NAMING["a member"], lost) as host:
            with host.client("bob") as bob:
                await bob.receive([Load(GROUP.id, NOTHING)])
                assert reached(await told(bob)) == {OURS: 3}


async def test_a_value_is_sent_without_sessions_of_an_account_that_clients_do_not_take() -> None:
    edit = EVE.content(MAP, edits(1), as_agent=True, with_header=False)
    with trio.fail_after(10):
        async with open_poisoned(begun(ODD_ACCOUNT), signed_by_odd_account(edit)) as host:
            with host.client("bob") as bob, host.client("ann") as ann:
                await bob.receive([Load(MAP.id, NOTHING)])
                assert reached(await told(bob), MAP.id) == {OURS: 2}
                more = ANN.content(MAP, edits(3), after=2, as_agent=True, with_header=False)
                await ann.receive([more])
                assert reached(await told(bob), MAP.id) == {OURS: 3}


async def test_what_names_such_a_value_is_not_taken_in_any_more() -> None:
    with trio.fail_after(10):
        async with open_poisoned(begun(ODD_GROUP)) as host:
            with host.client("eve") as eve, host.client("bob") as bob:
                await bob.receive([Load(GROUP.id, NOTHING)])
                await told(bob)
                await eve.receive([NAMING["a member"]])
                assert reached(await told(bob)) == {}
                assert (await host.known_state(GROUP.id)).sessions == {OURS: 2}
