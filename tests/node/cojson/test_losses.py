"""What damage on the disk takes with it when a commit fails."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from bee.bee import Bee
from node.cojson.host import open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.outputs import Rehash
from node.covalue.bee_store import BeeStore
from node.covalue.header import CoValueHeader
from node.covalue.ids import RawCoId
from node.covalue.store import ValueAppend
from node.errors import CorruptStore
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.data_log import DataLog
from tests.support.engine_shell import EngineShell

ANN, BOB = Author("ann"), Author("bob")
GROUP = group_header(ANN.account_id)
CHILD = group_header(ANN.account_id, "child")
MAP, CHILD_MAP = map_header("m", GROUP.id), map_header("c", CHILD.id)
FOUNDING = [role(ANN.account_id, "admin", made_at=900)]
FREE = map_header("free")
HIRED = [*FOUNDING, role(BOB.account_id, "writer", made_at=950)]
TREE = [
    ANN.account(),
    BOB.account(),
    ANN.content(GROUP, FOUNDING),
    ANN.content(CHILD, [*FOUNDING, role(f"parent_{GROUP.id}", "extend", made_at=910)]),
    ANN.content(MAP, edits(1)),
    ANN.content(CHILD_MAP, edits(1)),
]
HIRING = ANN.content(GROUP, HIRED, after=1, with_header=False)


class DamagedStore(BeeStore):
    """A store that cannot write some values any more, and waits before it says so."""

    def __init__(self, log: DataLog) -> None:
        super().__init__(Bee(log), log)
        self.damaged: set[RawCoId] = set()
        self.may_write = trio.Event()
        self.may_write.set()

    async def store(self, appends: Sequence[ValueAppend]) -> None:
        await self.may_write.wait()
        for append in appends:
            if append.co_id in self.damaged:
                raise CorruptStore(append.co_id, "a block is lost")
        await super().store(appends)


@pytest.mark.parametrize("header", [MAP, CHILD_MAP], ids=["its group", "a parent of its group"])
@pytest.mark.parametrize("is_later", [False, True])
async def test_what_a_lost_commit_permitted_is_not_stored(
    header: CoValueHeader, is_later: bool
) -> None:
    """Found in review: who was made a writer got in, and on the disk he never was one."""
    store = DamagedStore(DataLog())
    written = BOB.content(header, edits(1), with_header=False)
    async with open_sync_host(store, HostOptions(enforces_writes=True)) as host:
        await host.receive_content("test", TREE)
        with host.client("a") as a:
            # The group has to be read before anybody can be judged by it.
            await a.receive([ANN.content(header, edits(2), after=1, with_header=False)])
            await trio.testing.wait_all_tasks_blocked()
            store.damaged.add(GROUP.id)
            store.may_write = trio.Event()
            await a.receive([HIRING])
            if is_later:
                await trio.testing.wait_all_tasks_blocked()
            await a.receive([written])
            await trio.testing.wait_all_tasks_blocked()
            store.may_write.set()
            await trio.testing.wait_all_tasks_blocked()
        value = await store.load_value(header.id)
        assert value is not None
        assert value.sessions.keys() == {ANN.session_id()}
        assert host.statistics().not_stored == 2


async def test_what_a_lost_commit_forbade_is_judged_again() -> None:
    """Nobody takes the role away from him that he has on the disk."""
    store = DamagedStore(DataLog())
    fired = [*HIRED, role(BOB.account_id, "revoked", made_at=990)]
    async with open_sync_host(store, HostOptions(enforces_writes=True)) as host:
        await host.receive_content("test", [*TREE, HIRING])
        written = BOB.content(MAP, edits(1), with_header=False)
        await host.receive_content("test", [written])
        with host.client("a") as a:
            store.damaged.add(GROUP.id)
            store.may_write = trio.Event()
            await a.receive([ANN.content(GROUP, fired, after=2, with_header=False)])
            await a.receive([BOB.content(MAP, edits(2), after=1, with_header=False)])
            await trio.testing.wait_all_tasks_blocked()
            assert host.statistics().refused == 1
            store.may_write.set()
            await trio.testing.wait_all_tasks_blocked()
        value = await store.load_value(MAP.id)
        assert value is not None
        assert value.sessions[BOB.session_id()].count == 2


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_value_that_met_damage_is_read_again_when_nothing_of_it_is_out(is_lost: bool) -> None:
    """Found with model clients: a commit was lost while another session was hashed anew, and all
    of the value was refused from then on. Or that failed, while a commit was out."""
    shell = EngineShell()
    shell.client("a")
    shell.say("a", ANN.content(FREE, edits(2), as_agent=True))
    shell.commit()
    again = EngineShell(shell.disk)
    again.client("a")
    again.say("a", BOB.content(FREE, edits(1), as_agent=True, with_header=False))
    more = ANN.content(FREE, edits(3), after=2, as_agent=True, with_header=False)
    again.holds_reads = True
    again.say("a", more)
    assert [type(question) for question in again.reads] == [Rehash]
    if is_lost:
        (store,) = again.stores
        again.stores = []
        again.carry_out(again.engine.not_stored([store.ticket]))
        again.answer_reads()
    else:
        again.reads = []
        again.carry_out(again.engine.load_failed(FREE.id))
        again.commit()
    again.holds_reads = False
    again.say("a", more)
    again.commit()
    assert again.disk.rows[FREE.id][ANN.session_id(as_agent=True)].count == 3


async def test_what_was_permitted_before_is_stored() -> None:
    """Only the group's own commit is lost, and what rests on it."""
    store = DamagedStore(DataLog())
    edit = ANN.content(FREE, edits(1), as_agent=True)
    async with open_sync_host(store, HostOptions(enforces_writes=True)) as host:
        await host.receive_content("test", TREE)
        store.damaged.add(GROUP.id)
        receipt = await host.receive_content("test", [HIRING, edit])
        assert receipt.accepted == {FREE.id}
        assert receipt.refused.keys() == {GROUP.id}
