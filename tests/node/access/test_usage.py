"""What accounts have stored, and what happens when that is too much; through the sync engine."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from bee.bee import Bee
from hypercore.encoding import DecodeError
from node.access.gate import Gate
from node.access.quotas import Quotas
from node.access.reasons import Reason
from node.access.usage import TRANSACTION_BYTES, AccountUse, Charge, Usage
from node.cojson.host import open_sync_host
from node.cojson.messages import Known
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content, Transaction
from node.covalue.known_state import KnownState
from node.covalue.store import SessionSize, ValueAppend
from node.errors import CorruptStore
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.data_log import DataLog
from tests.support.engine_shell import EngineShell

ANN, BOB = Author("ann"), Author("bob")
FREE, OTHER = map_header("free"), map_header("other")
AGENT_SESSION = ANN.session_id(as_agent=True)


def cost(transactions: list[Transaction]) -> int:
    return sum(TRANSACTION_BYTES + len(item.changes) for item in transactions)


def free(count: int, after: int = 0, author: Author = ANN, size: int = 10) -> Content:
    return author.content(
        FREE, edits(count, size=size), after=after, as_agent=True, with_header=after == 0
    )


def open_shell(gate: Gate, *, enforces_writes: bool = False) -> EngineShell:
    shell = EngineShell(access=gate, enforces_writes=enforces_writes)
    shell.client("a")
    return shell


def test_accounts_and_their_agents_are_counted_as_one() -> None:
    gate = Gate(quotas=Quotas(account_bytes=10**6))
    shell = open_shell(gate)
    shell.say("a", ANN.account(), free(2), ANN.content(OTHER, edits(3)))
    shell.commit()
    account = ANN.account().new
    size = sum(cost(list(part.transactions)) for part in account.values())
    assert gate.usage.of(ANN.account_id) == AccountUse(
        ANN.account_id, size + cost(edits(2)) + cost(edits(3)), 3
    )
    assert gate.statistics().accounts == 1


def test_a_value_counts_for_the_one_who_signed_its_first_transaction() -> None:
    gate = Gate(quotas=Quotas(account_values=100))
    shell = open_shell(gate)
    shell.say("a", ANN.account(), BOB.account())
    # A header says that ann is a group's admin, and bob has signed it: ann cannot be charged.
    shell.say("a", BOB.content(group_header(ANN.account_id), edits(1)))
    # A map that ann began before bob wrote to it.
    both = Content(
        FREE.id,
        FREE,
        {
            **BOB.content(FREE, edits(1, start=10), as_agent=True).new,
            **ANN.content(FREE, edits(1), as_agent=True).new,
        },
    )
    shell.say("a", both, BOB.content(OTHER, edits(1)))
    shell.say("a", BOB.content(map_header("empty"), []))
    shell.commit()
    assert gate.usage.of(ANN.account_id).values == 2
    assert gate.usage.of(BOB.account_id).values == 3


def test_a_value_too_many_does_not_begin_with_what_clients_cannot_take() -> None:
    gate = Gate(quotas=Quotas(account_values=1))
    shell = open_shell(gate)
    shell.say("a", ANN.account())
    hers, late = (
        ANN.content(FREE, edits(1)),
        BOB.content(FREE, [Transaction(2**53 + 1, "[]")], as_agent=True),
    )
    until = {AGENT_SESSION: 1}
    shell.say("a", Content(FREE.id, FREE, {**hers.new, **late.new}, expect_until=until))
    shell.commit()
    assert shell.refusals["a"]
    assert FREE.id not in shell.disk.headers


def test_content_beyond_the_bytes_is_refused_and_other_messages_work() -> None:
    limit = cost(edits(5))
    gate = Gate(quotas=Quotas(account_bytes=limit))
    shell = open_shell(gate)
    shell.say("a", free(3), free(5, after=3))
    # Not durable yet, and counted: a burst gets no further than the quota.
    shell.say("a", free(6, after=5))
    shell.commit()
    assert shell.take("a") == [Known(FREE.id, KnownState(True, {AGENT_SESSION: 5}))]
    (reason,) = shell.refusals["a"]
    assert reason == f"{ANN.account_id} has used up its bytes: {limit} of {limit}, and " + (
        f"{cost(edits(1))} more came"
    )
    # Further edits are refused without asking for what was refused, in new values, too.
    shell.say("a", free(8, after=6), ANN.content(OTHER, edits(1)))
    assert shell.take("a") == []
    shell.say("a", free(2, author=BOB))
    shell.commit()
    assert shell.take("a") == [
        Known(FREE.id, KnownState(True, {AGENT_SESSION: 5, BOB.session_id(as_agent=True): 2}))
    ]
    assert gate.statistics().refused == {Reason.ACCOUNT_BYTES: 3}
    assert gate.statistics().full_accounts == 1
    assert gate.usage.of(ANN.account_id).bytes == limit


def test_one_message_is_taken_in_parts() -> None:
    gate = Gate(quotas=Quotas(account_bytes=cost(edits(2))))
    shell = open_shell(gate)
    both = Content(
        FREE.id,
        FREE,
        {**free(3).new, **free(2, author=BOB).new},
    )
    shell.say("a", both)
    shell.commit()
    assert shell.disk.rows[FREE.id].keys() == {BOB.session_id(as_agent=True)}
    assert gate.usage.of(ANN.account_id) == AccountUse(ANN.account_id, 0, 0)
    assert gate.usage.of(BOB.account_id).values == 1


def test_new_values_beyond_their_number_are_refused_and_edits_are_not() -> None:
    gate = Gate(quotas=Quotas(account_values=2))
    shell = open_shell(gate)
    shell.say("a", ANN.account(), free(1), ANN.content(OTHER, edits(1)))
    shell.commit()
    shell.take("a")
    assert gate.usage.of(ANN.account_id).values == 2
    third = map_header("third")
    shell.say("a", free(2, after=1), ANN.content(OTHER, edits(1)))
    shell.say("a", ANN.content(OTHER, edits(2), after=1, with_header=False))
    shell.say("a", ANN.content(third, edits(1)))
    shell.say("a", ANN.content(third, edits(2), after=1, with_header=False))
    shell.commit()
    assert shell.take("a") == [Known(FREE.id, KnownState(True, {AGENT_SESSION: 2}))]
    assert OTHER.id not in shell.disk.headers
    assert third.id not in shell.disk.headers
    # Somebody else's value is open to them, and their own account always is.
    shell.say("a", BOB.content(third, edits(1), as_agent=True))
    shell.say("a", ANN.content(third, edits(1), with_header=False))
    shell.commit()
    assert len(shell.disk.rows[third.id]) == 2


def test_what_the_mesh_brings_counts_and_is_taken() -> None:
    gate = Gate(quotas=Quotas(account_bytes=1, account_values=1))
    shell = open_shell(gate)
    shell.bring(free(3), 1)
    shell.bring(ANN.content(OTHER, edits(1), as_agent=True), 2)
    shell.commit()
    assert [item.refusal for item in shell.settled] == [None, None]
    assert gate.usage.of(ANN.account_id).values == 2
    shell.say("a", free(4, after=3))
    assert len(shell.refusals["a"]) == 1


def test_only_what_is_durable_is_saved() -> None:
    gate = Gate(quotas=Quotas(account_bytes=10**6))
    shell = open_shell(gate)
    shell.say("a", free(2))
    assert gate.usage.of(ANN.account_id).bytes == cost(edits(2))
    assert len(Usage.decode(gate.usage.encode())) == 0
    shell.commit()
    assert gate.usage.unsaved_bytes > 0
    again = Usage.decode(gate.usage.encode())
    assert gate.usage.unsaved_bytes == 0
    assert again.of(ANN.account_id) == AccountUse(ANN.account_id, cost(edits(2)), 1)


class DamagedStore(BeeStore):
    """Cannot store one value."""

    async def store(self, appends: Sequence[ValueAppend]) -> None:
        if any(append.co_id == FREE.id for append in appends):
            raise CorruptStore(FREE.id, "a block is lost")
        await super().store(appends)


async def test_what_damage_keeps_from_the_disk_costs_nothing() -> None:
    quotas = Quotas(account_bytes=5 * cost(edits(1)), account_values=2)
    gate, log = Gate(quotas=quotas), DataLog()
    async with open_sync_host(DamagedStore(Bee(log), log), access=gate) as host:
        with host.client("a") as a:
            for _ in range(10):
                await a.receive([free(2)])
                await trio.testing.wait_all_tasks_blocked()
            assert gate.usage.of(ANN.account_id) == AccountUse(ANN.account_id, 0, 0)
            await a.receive([ANN.content(OTHER, edits(1), as_agent=True)])
            await trio.testing.wait_all_tasks_blocked()
        assert gate.usage.of(ANN.account_id) == AccountUse(ANN.account_id, cost(edits(1)), 1)


def test_forged_content_costs_its_victim_nothing() -> None:
    gate = Gate(quotas=Quotas(account_bytes=cost(edits(3))))
    shell = open_shell(gate)
    forged = ANN.content(FREE, edits(100), as_agent=True)
    part = forged.new[AGENT_SESSION]
    shell.say("a", Content(FREE.id, FREE, {AGENT_SESSION: part._replace(signature=bytes(64))}))
    assert gate.usage.of(ANN.account_id) == AccountUse(ANN.account_id, 0, 0)
    shell.say("a", free(3))
    shell.commit()
    assert gate.usage.of(ANN.account_id).bytes == cost(edits(3))


@given(st.lists(st.tuples(st.sampled_from([ANN, BOB]), st.integers(1, 3)), max_size=12))
def test_no_account_ever_stores_more_than_its_quota(moves: list[tuple[Author, int]]) -> None:
    limit = cost(edits(7))
    gate = Gate(quotas=Quotas(account_bytes=limit))
    shell = open_shell(gate)
    sent = {ANN: 0, BOB: 0}
    for author, count in moves:
        before, sent[author] = sent[author], sent[author] + count
        shell.say("a", free(sent[author], after=before, author=author))
        if count == 3:
            shell.commit()
    shell.commit()
    for author in sent:
        log = shell.disk.logs[FREE.id].get(author.session_id(as_agent=True), [])
        assert cost(log) <= limit
        assert gate.usage.of(author.account_id).bytes == cost(log)


def test_the_largest_come_first() -> None:
    usage = Usage()
    usage.add(Charge({ANN.account_id: 5, BOB.account_id: 7}, ANN.account_id))
    assert usage.largest(5) == [
        AccountUse(BOB.account_id, 7, 0),
        AccountUse(ANN.account_id, 5, 1),
    ]
    assert len(usage.largest(1)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version":2,"accounts":{}}',
        '{"version":1,"accounts":{"x":[1,2]}}',
        f'{{"version":1,"accounts":{{"{ANN.account_id}":[1]}}}}',
        f'{{"version":1,"accounts":{{"{ANN.account_id}":[1,-2]}}}}',
        f'{{"version":1,"accounts":{{"{ANN.account_id}":["1",2]}}}}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_none_is_told(text: str) -> None:
    with pytest.raises(DecodeError):
        Usage.decode(text)


def test_what_is_erased_is_given_back() -> None:
    gate = Gate(quotas=Quotas(account_bytes=cost(edits(5))))
    shell = open_shell(gate)
    shell.say("a", free(5))
    shell.commit()
    assert gate.usage.of(ANN.account_id).bytes == cost(edits(5))
    gate.erased({AGENT_SESSION: SessionSize().plus(edits(3)), BOB.session_id(): SessionSize(1, 1)})
    assert gate.usage.of(ANN.account_id) == AccountUse(ANN.account_id, cost(edits(2)), 1)
    assert gate.usage.unsaved_bytes
    # More than was counted is not owed to anybody.
    gate.erased({AGENT_SESSION: SessionSize().plus(edits(90))})
    assert gate.usage.of(ANN.account_id).bytes == 0
    # And without quotas nothing is counted.
    free_gate = Gate()
    free_gate.erased({AGENT_SESSION: SessionSize().plus(edits(3))})
    assert free_gate.statistics().accounts == 0


@pytest.mark.parametrize("is_new", [False, True])
def test_nobody_gets_in_by_a_right_that_is_refused_for_its_size(is_new: bool) -> None:
    """It was judged by all that came together, of which a part was refused after that."""
    gate = Gate(quotas=Quotas(account_bytes=2000))
    shell = open_shell(gate, enforces_writes=True)
    shell.say("a", ANN.account(), BOB.account())
    group = group_header(ANN.account_id)
    founding = [role(ANN.account_id, "admin", made_at=900)]
    if not is_new:
        shell.say("a", ANN.content(group, founding))
    while shell.stores:
        shell.commit()
    used = gate.usage.of(BOB.account_id)
    grants = [*founding, role(BOB.account_id, "admin", made_at=910), *edits(1, size=2000)]
    ann = ANN.content(group, grants, after=0 if is_new else 1)
    bob = BOB.content(group, [role("everyone", "writer", made_at=950)])
    shell.say("a", Content(group.id, group, {**bob.new, **ann.new}, ann.priority))
    while shell.stores:
        shell.commit()
    assert set(shell.disk.logs[group.id]) == (set() if is_new else {ANN.session_id()})
    assert gate.usage.of(BOB.account_id) == used
    assert "what gives its author the right to write is refused" in shell.refusals["a"][-1]
    shell.bring(ann)  # another node has taken it
    while shell.stores:
        shell.commit()
    assert set(shell.disk.logs[group.id]) == {ANN.session_id(), BOB.session_id()}
