"""Groups that take long to judge hold up those who need them, and nobody else.

An admin of a group of 80,000 changes could send one that is older than all of these, and something
that was to be judged by it, again and again: each had all of them judged anew, and after 160 KB of
that others waited ten seconds for an edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
import trio.testing

from hypercore.storage import Durability
from node.cojson.group_reading import DeletionJudge, read_group
from node.cojson.host import open_sync_host
from node.cojson.host_options import HostOptions
from node.cojson.messages import Load
from node.cojson.outputs import JudgeGroup, ReadGroup
from node.covalue import roles
from node.covalue.content import Content, Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.role_judgment import SLICE_WORK
from node.covalue.sqlite_store import open_sqlite_store
from node.covalue.store import CoValueStore, LoadedPieces, StoredValue
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.engine_shell import EngineShell

ANN, BOB, CAT = Author("ann"), Author("bob"), Author("cat")
GROUP = group_header(ANN.account_id, "large")
OWN = [map_header(name, GROUP.id) for name in ("one", "two")]
OTHER = map_header("other")
MADE = [
    role(ANN.account_id, "admin", made_at=1),
    role(BOB.account_id, "writer", made_at=2),
    *[role(BOB.account_id, "writer", made_at=500) for _ in range(3 * SLICE_WORK)],
]
ACCOUNTS = [ANN.account(), BOB.account()]


def late(name: str, value: str, made_at: int) -> Content:
    """A change that is older than nearly all of the group."""
    changes = [role(BOB.account_id, value, made_at=made_at)]
    return ANN.content(GROUP, changes, session=name, with_header=False)


@pytest.fixture
def shell() -> EngineShell:
    """With the large group judged, and two values in it."""
    shell = EngineShell(enforces_writes=True)
    for name in ("a", "b", "c"):
        shell.client(name)
    shell.say("a", *ACCOUNTS, ANN.content(GROUP, MADE))
    shell.say("a", *(ANN.content(header, edits(1)) for header in (*OWN, OTHER)))
    while shell.stores:
        shell.commit()
    assert OWN[1].id in shell.disk.headers
    assert shell.refusals == {}
    shell.holds_reads = True
    return shell


def write(header: CoValueHeader) -> Content:
    return BOB.content(header, edits(1), with_header=False)


def stored(shell: EngineShell) -> list[RawCoId]:
    return [store.append.co_id for store in shell.stores]


def test_what_has_a_large_group_judged_anew_waits_and_others_do_not(shell: EngineShell) -> None:
    shell.say("a", late("x", "reader", 400))
    shell.say("b", write(OWN[0]))
    shell.say("c", ANN.content(OTHER, edits(2), after=1, with_header=False))
    assert shell.reads == [JudgeGroup(GROUP.id)]
    assert stored(shell) == [GROUP.id, OTHER.id]
    steps = sum(1 for _ in shell.engine.judging(GROUP.id))
    assert steps >= 3
    shell.answer_reads()
    assert stored(shell) == [GROUP.id, OTHER.id, OWN[0].id]  # he is a writer again at 500


def test_what_comes_of_a_parent_meanwhile_counts(shell: EngineShell) -> None:
    shell.holds_reads = False
    parent = group_header(ANN.account_id, "parent")
    members = [role(ANN.account_id, "admin", made_at=1), role(CAT.account_id, "writer", made_at=2)]
    link = role(f"parent_{parent.id}", "extend", made_at=3)
    shell.say("a", CAT.account(), ANN.content(parent, members))
    shell.say("a", ANN.content(GROUP, [link], session="link", with_header=False))
    while shell.stores:
        shell.commit()
    shell.holds_reads = True
    shell.say("c", CAT.content(OWN[0], edits(1), with_header=False))
    judging = shell.engine.judging(GROUP.id)
    next(judging)
    members.append(role(BOB.account_id, "reader", made_at=400))  # his role was asked for
    members.append(role(CAT.account_id, "revoked", made_at=600))
    shell.say("a", ANN.content(parent, members, after=2, with_header=False))
    assert stored(shell) == [parent.id]
    assert sum(1 for _ in judging) >= 1
    shell.carry_out(shell.engine.group_judged(GROUP.id))
    assert shell.reads.count(JudgeGroup(GROUP.id)) == 2  # what was found does not hold any more
    shell.answer_reads()
    assert "no right to write" in shell.refusals["c"][0]


PARENT = group_header(ANN.account_id, "parent")
LINK = role(f"parent_{PARENT.id}", "extend", made_at=3)
AUTHORS = [*map(Author, "stuvwxyz")]
READERS = [role(author.account_id, "reader", made_at=4) for author in AUTHORS]


def shell_with_parent(members: Sequence[Transaction], *, enforces_writes: bool) -> EngineShell:
    """With a parent of the large group that has these members; the group is judged anew."""
    shell = EngineShell(enforces_writes=enforces_writes)
    for name in ("a", "c"):
        shell.client(name)
    founding = [role(ANN.account_id, "admin", made_at=1), *members]
    shell.say("c", *(author.account() for author in AUTHORS))
    shell.say("a", *ACCOUNTS, CAT.account(), ANN.content(PARENT, founding))
    shell.say("a", ANN.content(GROUP, [*MADE[:2], LINK, *READERS, *MADE[2:]]))
    shell.say("a", *(ANN.content(header, edits(1)) for header in OWN))
    shell.commit()
    shell.say("a", ANN.deletion(OWN[1]), late("x", "reader", 400))
    shell.commit()
    shell.holds_reads = True
    shell.say("a", ANN.deletion(OWN[0]))
    return shell


def leave(author: Author, made_at: int = 450) -> Content:
    """It leaves the parent, at a time at which the large group goes on."""
    leaving = role(author.account_id, "revoked", made_at=made_at)
    return author.content(PARENT, [leaving], session=f"{made_at}", with_header=False)


@pytest.mark.parametrize("enforces_writes", [True, False])
@pytest.mark.parametrize("members", [READERS, []])
def test_what_alters_no_role_in_a_parent_has_nothing_judged_again(
    members: Sequence[Transaction], enforces_writes: bool
) -> None:
    """Strangers leave, and members whose role nobody in the large group had to ask for."""
    shell = shell_with_parent(members, enforces_writes=enforces_writes)
    judging = shell.engine.judging(GROUP.id)
    next(judging)
    if members:
        own = [role(CAT.account_id, "writer", made_at=450)]
        shell.say("a", ANN.content(PARENT, own, session="other", with_header=False))
    else:
        shell.say("c", *(leave(author) for author in AUTHORS))
        shell.say("c", *(leave(author, 2) for author in AUTHORS))
    for _ in judging:
        pass
    assert shell.reads == [JudgeGroup(GROUP.id)]
    shell.reads.clear()
    shell.carry_out(shell.engine.group_judged(GROUP.id))
    assert shell.reads == []
    assert [store.append.co_id for store in shell.stores if store.append.is_deletion] == [OWN[0].id]


@pytest.mark.parametrize("enforces_writes", [True, False])
def test_members_that_leave_a_parent_keep_nobody_waiting_for_ever(enforces_writes: bool) -> None:
    """Anybody may leave a group: each had what waited for its children judged anew."""
    shell, authors = shell_with_parent(READERS, enforces_writes=enforces_writes), [*AUTHORS]
    own, parent = [JudgeGroup(GROUP.id)], PARENT
    while shell.reads:
        judging = shell.engine.judging(GROUP.id)
        next(judging)
        shell.say("c", leave(authors.pop()))
        for _ in judging:
            pass
        assert shell.reads == own
        shell.reads.clear()
        shell.carry_out(shell.engine.group_judged(GROUP.id))
    deleted = [store.append.co_id for store in shell.stores if store.append.is_deletion]
    assert deleted == [OWN[0].id]
    assert stored(shell)[-1] == parent.id  # who had to wait for that has his turn after it


def test_those_that_wait_have_their_turn_before_whoever_has_it_judged_again(
    shell: EngineShell,
) -> None:
    shell.say("a", *(late(f"late {number}", "reader", 400 - number) for number in range(3)))
    for header in OWN:
        shell.say("b", write(header))
    while shell.reads:
        assert shell.reads == [JudgeGroup(GROUP.id)]
        shell.answer_read()
    order = stored(shell)
    assert sorted(order) == sorted([*[GROUP.id] * 3, *(header.id for header in OWN)])
    assert order[-1] == GROUP.id


async def test_large_groups_that_do_not_fit_beside_one_another_are_judged_each_in_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Each was dropped for the next that had to be read, and waited in the line once more."""
    monkeypatch.setattr(roles, "DEFAULT_VIEW_BYTES", 2**19)
    groups = [group_header(ANN.account_id, f"large {number}") for number in range(6)]
    values = [map_header("m", group.id) for group in groups]
    async with open_sqlite_store(tmp_path / "file", Durability.OS) as store:
        async with open_sync_host(store) as host:
            await host.receive_content("test", ACCOUNTS)
            await host.receive_content("test", [ANN.content(group, MADE) for group in groups])
            await host.receive_content("test", [ANN.content(value, edits(1)) for value in values])
        counting = CountingStore(store)
        counting.counted.update(group.id for group in groups)
        options = HostOptions(enforces_writes=True)
        async with open_sync_host(cast(CoValueStore, counting), options) as host:
            receipt = await host.receive_content("test", [write(value) for value in values])
            assert receipt.refused == {}
            assert counting.reads <= 2 * len(groups)


async def test_a_host_judges_a_large_group_and_goes_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        open_sqlite_store(tmp_path / "file", Durability.OS) as store,
        open_sync_host(store, HostOptions(enforces_writes=True)) as host,
    ):
        await host.receive_content("test", [*ACCOUNTS, ANN.content(GROUP, MADE)])
        await host.receive_content("test", [ANN.content(header, edits(1)) for header in OWN])
        receipt = await host.receive_content("test", [late("x", "reader", 400), write(OWN[0])])
        assert receipt.refused == {}
        value = await store.load_value(OWN[0].id)
        assert value is not None
        assert BOB.session_id() in value.sessions


class CountingStore:
    """Of a store, what tells of deletions; and how often the large group was read whole."""

    def __init__(self, store: CoValueStore) -> None:
        self._store = store
        self.counted = {GROUP.id}
        self.reads = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def load_value(self, co_id: RawCoId) -> StoredValue | None:
        return await self._store.load_value(co_id)

    async def load(
        self, co_id: RawCoId, known: KnownState = NOTHING, max_bytes: int | None = None
    ) -> LoadedPieces:
        self.reads += co_id in self.counted and not known.sessions
        assert self.reads < 100  # else it goes on for ever
        return await self._store.load(co_id, known, max_bytes)


async def test_a_large_group_is_read_once_for_all_that_was_deleted_in_it(tmp_path: Path) -> None:
    async with (
        open_sqlite_store(tmp_path / "file", Durability.OS) as store,
        open_sync_host(store, HostOptions(erases=False)) as host,
    ):
        await host.receive_content("test", [*ACCOUNTS, ANN.content(GROUP, MADE)])
        await host.receive_content("test", [ANN.content(header, edits(1)) for header in OWN])
        for header in OWN:
            await host.receive_content("test", [ANN.deletion(header)])
        counting = CountingStore(store)
        judge = DeletionJudge(cast(CoValueStore, counting))
        assert [await judge.is_valid(header.id) for header in OWN] == [True, True]
        assert counting.reads == 1
        own: Sequence[Transaction] = [role(ANN.account_id, "revoked", made_at=3)]
        await host.receive_content(
            "test", [ANN.content(GROUP, own, session="x", with_header=False)]
        )
        assert not await judge.is_valid(OWN[0].id)
        assert counting.reads == 2


def test_of_a_group_that_grew_while_it_was_read_the_rest_is_read(shell: EngineShell) -> None:
    """Whoever wrote to it all the time had it read again and again."""
    again = EngineShell(shell.disk)
    again.client("a")
    again.say("a", *(Load(co_id, KnownState(True)) for co_id in (GROUP.id, OWN[0].id)))
    again.holds_reads = True
    again.say("a", ANN.deletion(OWN[0]))
    assert again.reads == [ReadGroup(GROUP.id)]
    read = again.disk.group(GROUP.id)
    again.say("a", late("x", "reader", 400))
    again.reads.clear()
    again.carry_out(again.engine.group_read(GROUP.id, read))
    assert again.reads == []  # until what it grew by is durable
    again.commit()
    (question,) = again.reads
    assert isinstance(question, ReadGroup)
    assert question.begun is read


async def test_what_was_begun_is_read_to_its_end(tmp_path: Path) -> None:
    async with (
        open_sqlite_store(tmp_path / "file", Durability.OS) as store,
        open_sync_host(store, HostOptions(erases=False)) as host,
    ):
        await host.receive_content("test", [*ACCOUNTS, ANN.content(GROUP, MADE)])
        begun = await read_group(store, GROUP.id)
        await host.receive_content("test", [late("x", "reader", 400)])
        counting = CountingStore(store)
        whole = await read_group(cast(CoValueStore, counting), GROUP.id, begun)
    assert whole is not None
    assert len(whole.events) == len(MADE) + 1
    assert counting.reads == 0
