"""Fetching from members that are slow, gone, or wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import trio
import trio.testing

from node.covalue.content import Content
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.errors import CorruptStore
from node.mesh.announcements import MAX_FETCH_VALUES, Announcements
from node.mesh.fetch import MAX_DEPTH, MAX_REFUSED_READINGS, SLOW_SECONDS, Fetcher
from node.mesh.follow_rules import OwnerRule
from node.mesh.member import Member
from node.mesh.member_data import Cause, MemberDataError, Reading, Survey
from node.mesh.outline import Outline
from node.mesh.owners import OwnerTable
from node.mesh.read_slots import MAX_READS
from node.mesh.replicas import ReplicaPolicy
from node.mesh.screening import Screening
from node.mesh.session import MeshSession
from node.mesh.ticket import Role
from node.mesh.under_way import SLOW_MEMORY_SECONDS, UNDER_WAY_SECONDS
from node.mesh.unreadable import MAX_VALUES
from tests.node.mesh.authors import Author, Value
from tests.node.mesh.nodes import NoChannel
from tests.node.mesh.samples import MESH_KEY
from tests.node.mesh.samples import co_id as any_id
from tests.support.authors import Author as Stranger
from tests.support.authors import edits, group_header, map_header, role

Read = Callable[[RawCoId, KnownState], Awaitable[Reading]]
ALICE, BOB = b"alice", b"bob"


class FakeData:
    """A data core whose reads are a function of the test."""

    length = 100
    fork = 0
    bytes_fetched = 0

    def __init__(self, read: Read) -> None:
        self.blocks_fetched = 0
        self.reads: list[RawCoId] = []
        self._read = read

    async def read(self, co_id: RawCoId, known: KnownState, version: int) -> Reading:
        self.reads.append(co_id)
        return await self._read(co_id, known)

    def expect_pushes(self, member_id: bytes) -> bool:
        return False

    async def scan(self, start: int, stop: int) -> Survey:
        raise MemberDataError("not in this test")

    async def outline(self, co_id: RawCoId, version: int, *, is_dated: bool) -> Outline | None:
        raise MemberDataError("not in this test")

    async def survey(self, start: int, stop: int, after: bytes) -> Survey:
        raise MemberDataError("not in this test")


@dataclass(frozen=True)
class Receipt:
    refused: Mapping[RawCoId, str]
    partly: Mapping[RawCoId, str] = field(default_factory=dict)
    waiting: frozenset[RawCoId] = frozenset()
    doubtful: Mapping[RawCoId, frozenset[CoSessionId]] = field(default_factory=dict)


class NoForks:
    async def are_forked(self, co_id: RawCoId, sessions: Collection[CoSessionId]) -> bool:
        return False


class Door:
    """Takes what its author signed; `refused` is what it is told to refuse."""

    takes_content = True

    def __init__(self) -> None:
        self.states: dict[RawCoId, KnownState] = {}
        self.forks = NoForks()
        self.forged: set[int] = set()
        """Priorities of what does not verify."""
        self.unwelcome: set[int] = set()
        """And of what it does not want."""
        self.has_group = True
        self.batches: list[list[RawCoId]] = []

    async def receive_content(self, source: str, contents: Sequence[Content]) -> Receipt:
        doubtful = {c.co_id: frozenset(c.new) for c in contents if c.priority in self.forged}
        refused = dict.fromkeys(doubtful, "forged")
        refused |= {c.co_id: "unwelcome" for c in contents if c.priority in self.unwelcome}
        self.batches.append([content.co_id for content in contents])
        if not self.has_group:
            return Receipt({}, waiting=frozenset(content.co_id for content in contents))
        for content in contents:
            if content.co_id not in refused:
                state = self.states.get(content.co_id, NOTHING)
                self.states[content.co_id] = state.merged(content.known_state)
        return Receipt(refused, doubtful=doubtful)

    async def known_state(self, co_id: RawCoId) -> KnownState:
        return self.states.get(co_id, NOTHING)


def member(name: bytes, read: Read) -> tuple[Member, FakeData]:
    session = MeshSession(
        MESH_KEY, is_initiator=True, handshake_hash=b"", judge=lambda _grant: Role.WRITER, now=0
    )
    made = Member(name, NoChannel(), session, NoChannel())  # type: ignore[arg-type]  # never used
    data = FakeData(read)
    made.data = data
    made.change_role(Role.WRITER)
    return made, data


def serving(*contents: Content) -> Read:
    async def read(co_id: RawCoId, known: KnownState) -> Reading:
        found = [content for content in contents if content.co_id == co_id]
        return Reading(found, blocks=3, bytes=300, round_trips=2)

    return read


async def failing(co_id: RawCoId, known: KnownState) -> Reading:
    raise MemberDataError("gone")


async def silent(co_id: RawCoId, known: KnownState) -> Reading:
    await trio.sleep_forever()
    raise AssertionError


def claims(value: Value, *members: bytes) -> Announcements:
    found = Announcements()
    for name in members:
        found.announce(name, 10, [(value.id, {value.session_id: value.count})])
    return found


@pytest.mark.parametrize("spoiled", [failing, silent])
async def test_the_next_best_is_asked(
    spoiled: Read, autojump_clock: trio.testing.MockClock
) -> None:
    value = Author(1).value("wanted")
    created = value.edit("[]", with_header=True)
    alice, _ = member(ALICE, spoiled)
    bob, _ = member(BOB, serving(created))
    door = Door()
    fetcher = Fetcher(door, {ALICE: alice, BOB: bob}, ReplicaPolicy())
    found = claims(value, ALICE, BOB)
    started = trio.current_time()
    await fetcher.fetch_all(found)
    assert trio.current_time() - started <= 5
    assert door.states[value.id] == KnownState(True, {value.session_id: 1})
    report = fetcher.report(value.id)
    assert report is not None
    assert (report.member_id, report.blocks, report.round_trips) == (BOB, 3, 2)
    assert (alice.failures, bob.failures) == (1, 0)
    assert len(found) == 0


async def test_refused_content_counts_and_the_next_is_asked() -> None:
    value = Author(1).value("wanted")
    genuine = value.edit("[]", with_header=True)
    forged = Content(genuine.co_id, genuine.header, genuine.new, priority=66)
    alice, _ = member(ALICE, serving(forged))
    bob, _ = member(BOB, serving(genuine))
    door = Door()
    door.forged.add(66)
    await Fetcher(door, {ALICE: alice, BOB: bob}, ReplicaPolicy()).fetch_all(
        claims(value, ALICE, BOB)
    )
    assert door.states[value.id].header
    assert (alice.refused, bob.refused) == (1, 0)


@pytest.mark.parametrize(
    ("forged", "claimed", "undelivered"), [(True, 1, 1), (False, 1, 0), (False, 2, 1)]
)
async def test_what_is_shown_counts_though_it_is_not_wanted_here(
    forged: bool, claimed: int, undelivered: int
) -> None:
    """But not what nobody signed, nor more than was shown."""
    value = Author(1).value("shown")
    created = value.edit("[]", with_header=True)
    alice, _ = member(ALICE, serving(Content(created.co_id, created.header, created.new, 66)))
    door = Door()
    (door.forged if forged else door.unwelcome).add(66)
    found = Announcements()
    found.announce(ALICE, 10, [(value.id, {value.session_id: claimed})])
    await Fetcher(door, {ALICE: alice}, ReplicaPolicy()).fetch_all(found)
    assert not door.states
    assert alice.conduct.undelivered == undelivered


async def test_of_a_large_value_that_is_not_wanted_here_the_beginning_is_enough() -> None:
    """Seen with three nodes: no more of it is read, and the member seemed to lack the rest."""
    value = Author(1).value("large")
    begun = value.edit("[]", with_header=True)

    async def read(co_id: RawCoId, known: KnownState) -> Reading:
        content = Content(begun.co_id, begun.header, begun.new, 66)
        return Reading([content], is_complete=False)

    alice, data = member(ALICE, read)
    door = Door()
    door.unwelcome.add(66)
    found = Announcements()
    found.announce(ALICE, 10, [(value.id, {value.session_id: 1000})])
    await Fetcher(door, {ALICE: alice}, ReplicaPolicy()).fetch_all(found)
    assert len(data.reads) == 1
    assert alice.conduct.undelivered == 0


async def test_of_a_value_that_is_here_much_that_is_not_wanted_is_passed_over_but_not_all() -> None:
    value = Author(1).value("large")
    begun = value.edit("[]", with_header=True)

    async def read(co_id: RawCoId, known: KnownState) -> Reading:
        content = value.edit("[]")
        return Reading([Content(co_id, None, content.new, 66)], is_complete=False)

    alice, data = member(ALICE, read)
    door = Door()
    door.states[value.id] = begun.known_state
    door.unwelcome.add(66)
    found = Announcements()
    found.announce(ALICE, 10, [(value.id, {value.session_id: 1000})])
    await Fetcher(door, {ALICE: alice}, ReplicaPolicy()).fetch_all(found)
    assert len(data.reads) == MAX_REFUSED_READINGS
    assert alice.conduct.undelivered == 0


async def test_what_depends_on_what_is_not_shown_does_not_count() -> None:
    group = RawCoId("co_zJwvMtr61fmVGyemddtz4Cp9Vxv")
    header = map_header("of nobody", group)
    content = Stranger("anybody").content(header, edits(1), as_agent=True)
    alice, _ = member(ALICE, serving(content))
    door = Door()
    door.has_group = False
    found = Announcements()
    counts = {session_id: part.stop for session_id, part in content.new.items()}
    found.announce(ALICE, 10, [(header.id, counts)])
    await Fetcher(door, {ALICE: alice}, ReplicaPolicy()).fetch_all(found)
    assert alice.conduct.undelivered == 1


async def test_what_depends_on_more_than_is_asked_for_at_once_may_come_later() -> None:
    """Who likes to part two nodes could have groups with parents without end."""
    author = Stranger("anybody")
    groups = [group_header(author.agent_id, f"{level}") for level in range(MAX_DEPTH + 2)]
    contents = [
        author.content(group, [role(f"parent_{parent.id}", "extend")], as_agent=True)
        for group, parent in pairwise(groups)
    ]
    value = author.content(map_header("deep", groups[0].id), edits(1), as_agent=True)
    alice, data = member(ALICE, serving(value, *contents))
    door = Door()
    door.has_group = False
    found = Announcements()
    counts = {session_id: part.stop for session_id, part in value.new.items()}
    found.announce(ALICE, 10, [(value.co_id, counts)])
    await Fetcher(door, {ALICE: alice}, ReplicaPolicy()).fetch_all(found)
    assert len(data.reads) == 1 + MAX_DEPTH
    assert alice.conduct.undelivered == 0


async def test_a_member_that_sends_slowly_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    value = Author(1).value("wanted")
    created = value.edit("[]", with_header=True)
    ready_at = trio.current_time() + 60

    async def slow(co_id: RawCoId, known: KnownState) -> Reading:
        while trio.current_time() < ready_at:
            await trio.sleep(1)
            data.blocks_fetched += 1
        return Reading([created])

    alice, data = member(ALICE, slow)
    door = Door()
    await Fetcher(door, {ALICE: alice}, ReplicaPolicy()).fetch_all(claims(value, ALICE))
    assert door.states[value.id].header
    assert alice.failures == 0


async def test_what_is_held_already_is_not_read() -> None:
    value = Author(1).value("held")
    created = value.edit("[]", with_header=True)
    alice, data = member(ALICE, serving(created))
    door = Door()
    await door.receive_content("test", [created])
    found = claims(value, ALICE)
    await Fetcher(door, {ALICE: alice}, ReplicaPolicy()).fetch_all(found)
    assert data.reads == []
    assert len(found) == 0


async def test_denied_values_are_not_read() -> None:
    value = Author(1).value("denied")
    alice, data = member(ALICE, serving(value.edit("[]", with_header=True)))
    policy = ReplicaPolicy(denied=frozenset((value.id,)))
    await Fetcher(Door(), {ALICE: alice}, policy).fetch_all(claims(value, ALICE))
    assert data.reads == []


async def test_long_values_come_in_readings_that_are_added_up() -> None:
    value = Author(1).value("long")
    pieces = [value.edit("[]", with_header=True), *(value.edit("[]") for _ in range(4))]

    async def read(co_id: RawCoId, known: KnownState) -> Reading:
        at = known.sessions.get(value.session_id, 0)
        return Reading([pieces[at]], is_complete=at == 4, blocks=2, bytes=20, round_trips=1)

    alice, data = member(ALICE, read)
    door = Door()
    fetcher = Fetcher(door, {ALICE: alice}, ReplicaPolicy())
    await fetcher.fetch_all(claims(value, ALICE))
    assert door.states[value.id].sessions == {value.session_id: 5}
    report = fetcher.report(value.id)
    assert report is not None
    assert (report.blocks, report.bytes, report.round_trips) == (10, 100, 5)
    assert len(data.reads) == 5


async def test_a_reading_that_brings_nothing_new_is_not_repeated() -> None:
    value = Author(1).value("stuck")
    created = value.edit("[]", with_header=True)

    async def read(co_id: RawCoId, known: KnownState) -> Reading:
        return Reading([created], is_complete=False)

    alice, data = member(ALICE, read)
    await Fetcher(Door(), {ALICE: alice}, ReplicaPolicy()).fetch_all(claims(value, ALICE))
    assert len(data.reads) == 2


async def test_members_that_went_are_passed_over() -> None:
    value = Author(1).value("wanted")
    bob, _ = member(BOB, serving(value.edit("[]", with_header=True)))
    door = Door()
    found = claims(value, ALICE, BOB)
    await Fetcher(door, {BOB: bob}, ReplicaPolicy()).fetch_all(found)
    assert door.states[value.id].header


async def test_a_value_that_is_damaged_here_is_brought_over_whole() -> None:
    value = Author(1).value("damaged")
    created = value.edit("[]", with_header=True)

    class DamagedDoor(Door):
        async def known_state(self, co_id: RawCoId) -> KnownState:
            if not self.batches:
                raise CorruptStore(co_id, "a bit fell over")
            return await super().known_state(co_id)

    alice, data = member(ALICE, serving(created))
    door = DamagedDoor()
    await Fetcher(door, {ALICE: alice}, ReplicaPolicy()).fetch_all(claims(value, ALICE))
    assert data.reads == [value.id]


async def test_values_read_together_are_handed_in_together() -> None:
    author = Author(1)
    contents = [author.created(f"value {number}") for number in range(20)]
    alice, data = member(ALICE, serving(*contents))
    found = Announcements()
    found.announce(ALICE, 1, [(c.co_id, c.known_state.sessions) for c in contents])
    door = Door()
    await Fetcher(door, {ALICE: alice}, ReplicaPolicy()).fetch_all(found)
    assert len(door.batches) == 1
    assert len(data.reads) == 20


async def test_a_second_look_goes_to_the_end_and_is_taken_once() -> None:
    """Where two continuations part after the first MiB only the rest of the session shows it."""
    value = Author(1).value("parted")
    pieces = [value.edit(f"[{number}]", with_header=not number) for number in range(3)]
    is_gone = True

    async def read(co_id: RawCoId, known: KnownState) -> Reading:
        count = known.sessions.get(value.session_id, 0)
        if is_gone and count:
            raise MemberDataError("gone")
        return Reading([pieces[count]], is_complete=count == 2)

    alice, data = member(ALICE, read)
    door = Door()
    suspects = Fetcher(door, {ALICE: alice}, ReplicaPolicy()).suspects
    await suspects.look_into(alice, value.id, 10)
    assert door.states[value.id] == KnownState(True, {value.session_id: 1})
    is_gone = False
    await suspects.look_into(alice, value.id, 10)
    assert door.states[value.id] == KnownState(True, {value.session_id: 3})
    assert len(data.reads) == 2 + 3
    await suspects.look_into(alice, value.id, 10)
    assert len(data.reads) == 2 + 3


class DoubtingDoor(Door):
    """One of the sessions does not fit."""

    async def receive_content(self, source: str, contents: Sequence[Content]) -> Receipt:
        receipt = await super().receive_content(source, contents)
        refusals = {content.co_id: "bad signature" for content in contents}
        doubtful = {content.co_id: frozenset(content.new) for content in contents}
        return Receipt(receipt.refused, refusals, doubtful=doubtful)


async def test_what_is_refused_in_part_has_a_second_look() -> None:
    """Found by seed 316950: the other session fitted, and no evidence of the fork was found."""
    value = Author(1).value("parted")
    first, second = value.edit("[0]", with_header=True), value.edit("[1]")

    async def read(co_id: RawCoId, known: KnownState) -> Reading:
        return Reading([second] if known.sessions else [first, second])

    alice, data = member(ALICE, read)
    door = DoubtingDoor()
    door.states[value.id] = first.known_state
    await Fetcher(door, {ALICE: alice}, ReplicaPolicy()).fetch_all(claims(value, ALICE))
    assert door.batches == [[value.id], [value.id, value.id]]
    assert len(data.reads) == 2


class FullDoor(Door):
    """Refuses everything unseen while there is no room."""

    async def receive_content(self, source: str, contents: Sequence[Content]) -> Receipt:
        if not self.takes_content:
            return Receipt({content.co_id: "the disk is full" for content in contents})
        return await super().receive_content(source, contents)


async def test_a_second_look_is_taken_again_once_there_is_room() -> None:
    value = Author(1).value("parted")
    whole = value.edit("[0]", with_header=True)
    door = FullDoor()
    door.takes_content = False

    async def read(co_id: RawCoId, known: KnownState) -> Reading:
        return Reading([whole])

    alice, _ = member(ALICE, read)
    suspects = Fetcher(door, {ALICE: alice}, ReplicaPolicy()).suspects
    await suspects.look_into(alice, value.id, 10)
    door.takes_content = True
    await suspects.look_into(alice, value.id, 10)
    assert door.states[value.id] == whole.known_state


async def test_a_second_look_for_which_the_room_goes_is_taken_again() -> None:
    value = Author(1).value("parted")
    whole = value.edit("[0]", with_header=True)
    door = FullDoor()

    async def read(co_id: RawCoId, known: KnownState) -> Reading:
        door.takes_content = len(data.reads) > 1  # the disk fills up during the first one
        return Reading([whole])

    alice, data = member(ALICE, read)
    suspects = Fetcher(door, {ALICE: alice}, ReplicaPolicy()).suspects
    await suspects.look_into(alice, value.id, 10)
    assert not door.states
    door.takes_content = True
    await suspects.look_into(alice, value.id, 10)
    assert door.states[value.id] == whole.known_state


class Nothing:
    """Nobody wants anything, and nothing is stored."""

    def is_wanted(self, co_id: RawCoId) -> bool:
        return False

    async def load_value(self, co_id: RawCoId) -> None:
        return None


async def test_a_header_that_could_not_be_read_is_read_again() -> None:
    """Found by seed 50121: what a node follows was lost on it, and its member blamed."""
    value = Author(1).value("followed")
    alice, _ = member(ALICE, failing)
    policy = ReplicaPolicy(owners=frozenset((OwnerRule.parse("owner:co_zGroup"),)))
    fetcher = Fetcher(Door(), {ALICE: alice}, policy)
    fetcher.screening = Screening(policy, Nothing(), OwnerTable(Nothing()))
    await fetcher.fetch_all(claims(value, ALICE))
    with trio.fail_after(1):
        await alice.needs_catching_up.wait()
    assert alice.failures == 1
    assert alice.conduct.undelivered == 0


def of_a_later_version(*contents: Content) -> Read:
    """Of all else than these the rows say nothing to this node."""
    serve = serving(*contents)

    async def read(co_id: RawCoId, known: KnownState) -> Reading:
        if all(content.co_id != co_id for content in contents):
            raise MemberDataError(f"{co_id}: a header of today", Cause.VALUE)
        return await serve(co_id, known)

    return read


async def test_a_value_that_cannot_be_read_is_not_held_against_its_member() -> None:
    values = [Author(1).value(f"later {number}") for number in range(5)]
    alice, data = member(ALICE, of_a_later_version())
    fetcher = Fetcher(Door(), {ALICE: alice}, ReplicaPolicy())
    asked = alice.times_asked_anew
    for _ in range(3):
        for value in values:
            await fetcher.fetch_all(claims(value, ALICE))
    assert data.reads == [value.id for value in values], "each is read once"
    assert alice.close_reason is None
    assert (alice.failures, alice.conduct.undelivered) == (0, 0)
    assert alice.times_asked_anew == asked


async def test_a_value_that_cannot_be_read_is_had_from_another_member() -> None:
    value = Author(1).value("old here, new there")
    created = value.edit("[]", with_header=True)
    alice, _ = member(ALICE, of_a_later_version())
    bob, _ = member(BOB, serving(created))
    door = Door()
    fetcher = Fetcher(door, {ALICE: alice, BOB: bob}, ReplicaPolicy())
    await fetcher.fetch_all(claims(value, ALICE))
    assert not door.states
    await fetcher.fetch_all(claims(value, ALICE, BOB))
    assert door.states[value.id].header


async def test_what_depends_on_a_value_that_cannot_be_read_is_not_held_against_its_member() -> None:
    group = any_id(7)
    content = Stranger("anybody").content(map_header("m", group), edits(1), as_agent=True)
    alice, _ = member(ALICE, of_a_later_version(content))
    door = Door()
    door.has_group = False
    found = Announcements()
    counts = {session_id: part.stop for session_id, part in content.new.items()}
    found.announce(ALICE, 10, [(content.co_id, counts)])
    await Fetcher(door, {ALICE: alice}, ReplicaPolicy()).fetch_all(found)
    assert alice.conduct.undelivered == 0


async def test_who_has_no_end_of_values_that_cannot_be_read_goes() -> None:
    alice, data = member(ALICE, of_a_later_version())
    fetcher = Fetcher(Door(), {ALICE: alice}, ReplicaPolicy())

    async def offer(start: int, stop: int) -> None:
        found = Announcements()
        found.announce(ALICE, 10, [(any_id(number), {}) for number in range(start, stop)])
        await fetcher.fetch_all(found)

    await offer(0, MAX_VALUES)
    assert len(data.reads) == MAX_VALUES
    assert alice.conduct.fault() is None
    await offer(MAX_VALUES, MAX_VALUES + 3)
    assert alice.conduct.fault() is not None
    await offer(0, MAX_VALUES)
    assert len(data.reads) <= MAX_VALUES + 3


def dripping(
    pieces: Sequence[Content], seconds: float, others: Read = failing
) -> tuple[Member, list[int]]:
    """ALICE, who sends a block a second and a piece in so many; and the pieces that were read.

    `others` reads what is no piece.
    """
    ready_at: dict[int, float] = {}
    read: list[int] = []

    async def drip(co_id: RawCoId, known: KnownState) -> Reading:
        if co_id != pieces[0].co_id:
            return await others(co_id, known)
        at = sum(known.sessions.values())
        ready_at.setdefault(at, trio.current_time() + seconds)
        while trio.current_time() < ready_at[at]:
            await trio.sleep(1)
            data.blocks_fetched += 1
        read.append(at)
        return Reading([pieces[at]], is_complete=at == len(pieces) - 1)

    alice, data = member(ALICE, drip)
    return alice, read


async def test_a_large_value_that_comes_all_the_time_is_read_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whoever asked for it beside its announcement read it as well, once 30 s had passed."""
    value = Author(1).value("long")
    pieces = [value.edit("[]", with_header=True), *(value.edit("[]") for _ in range(4))]
    alice, read = dripping(pieces, 20)
    fetcher = Fetcher(Door(), {ALICE: alice}, ReplicaPolicy())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetcher.fetch_all, claims(value, ALICE))
        nursery.start_soon(fetcher.fetch_all, claims(value, ALICE))
    assert read == [0, 1, 2, 3, 4]


async def test_what_does_not_come_for_long_is_read_by_whoever_asks_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    value = Author(1).value("wanted")
    alice, read = dripping([value.edit("[]", with_header=True)], UNDER_WAY_SECONDS + 5)
    fetcher = Fetcher(Door(), {ALICE: alice}, ReplicaPolicy())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetcher.fetch_all, claims(value, ALICE))
        nursery.start_soon(fetcher.fetch_all, claims(value, ALICE))
    assert read == [0, 0]


async def test_who_sends_slowly_gives_way_to_others_that_have_the_value(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A block every two seconds kept it from being had from anybody, for as long as they came."""
    value = Author(1).value("wanted")
    created = value.edit("[]", with_header=True)
    alice, read = dripping([created], 3600)
    bob, _ = member(BOB, serving(created))
    door = Door()
    started = trio.current_time()
    await Fetcher(door, {ALICE: alice, BOB: bob}, ReplicaPolicy()).fetch_all(
        claims(value, ALICE, BOB)
    )
    assert door.states[value.id].header
    assert trio.current_time() - started <= SLOW_SECONDS
    assert read == []
    assert alice.failures == alice.conduct.undelivered == 0


async def test_who_sent_slowly_is_asked_for_what_only_it_has_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each value that it was the first to announce, or claimed most of, waited for it anew."""
    values = [Author(1).value(f"value {number}") for number in range(3 * MAX_FETCH_VALUES)]
    created = {value.id: value.edit("[]", with_header=True) for value in values}

    async def slow(co_id: RawCoId, known: KnownState) -> Reading:
        while True:
            await trio.sleep(1)
            data.blocks_fetched += 1

    alice, data = member(ALICE, slow)

    async def fast(co_id: RawCoId, known: KnownState) -> Reading:
        return Reading([created[co_id]])

    bob, _ = member(BOB, fast)
    door = Door()
    fetcher = Fetcher(door, {ALICE: alice, BOB: bob}, ReplicaPolicy())
    started = trio.current_time()
    found = Announcements()
    for name in (ALICE, BOB):
        found.announce(name, 10, [(value.id, {value.session_id: 1}) for value in values[1:]])
    await fetcher.fetch_all(found)
    await fetcher.fetch_all(claims(values[0], ALICE, BOB))
    assert trio.current_time() - started <= SLOW_SECONDS
    assert door.states.keys() == created.keys()
    await trio.sleep(SLOW_MEMORY_SECONDS)
    other = Author(2).value("other")
    created[other.id] = other.edit("[]", with_header=True)
    started = trio.current_time()
    await fetcher.fetch_all(claims(other, ALICE, BOB))
    assert trio.current_time() - started == pytest.approx(SLOW_SECONDS)  # it had its turn


async def test_who_sends_slowly_what_only_it_has_does_not_keep_others_from_being_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As many reads as there may be hung at one member."""
    values = [Author(1).value(f"slow {number}") for number in range(2 * MAX_READS)]
    wanted = Author(2).value("wanted")
    alice, _ = dripping([values[0].edit("[]", with_header=True)], 3600)
    bob, _ = member(BOB, serving(wanted.edit("[]", with_header=True)))
    door = Door()
    fetcher = Fetcher(door, {ALICE: alice, BOB: bob}, ReplicaPolicy())
    async with trio.open_nursery() as nursery:
        for value in values:
            nursery.start_soon(fetcher.fetch_all, claims(value, ALICE))
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            await fetcher.fetch_all(claims(wanted, BOB))
        nursery.cancel_scope.cancel()
    assert door.states[wanted.id].header


async def test_who_sends_slowly_is_waited_for_when_nobody_sends_faster(
    autojump_clock: trio.testing.MockClock,
) -> None:
    value = Author(1).value("wanted")
    alice, read = dripping([value.edit("[]", with_header=True)], 100)
    bob, _ = member(BOB, failing)
    door = Door()
    await Fetcher(door, {ALICE: alice, BOB: bob}, ReplicaPolicy()).fetch_all(
        claims(value, ALICE, BOB)
    )
    assert door.states[value.id].header
    assert read == [0]


async def test_those_that_send_slowly_are_waited_for_in_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    value = Author(1).value("wanted")
    created = value.edit("[]", with_header=True)
    alice, read = dripping([created], 60)
    bob, read_of_bob = dripping([created], 3600)
    bob.id = BOB
    door = Door()
    started = trio.current_time()
    await Fetcher(door, {ALICE: alice, BOB: bob}, ReplicaPolicy()).fetch_all(
        claims(value, ALICE, BOB)
    )
    assert (read, read_of_bob) == ([0], [])
    assert trio.current_time() - started <= 60 + 3 * SLOW_SECONDS


async def test_who_got_slow_goes_on_elsewhere_where_it_stopped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    value = Author(1).value("long")
    pieces = [value.edit("[]", with_header=True), value.edit("[]")]
    seen: list[int] = []

    async def slow(co_id: RawCoId, known: KnownState) -> Reading:
        while known.sessions:
            await trio.sleep(1)
            data.blocks_fetched += 1
        return Reading([pieces[0]], is_complete=False)

    async def fast(co_id: RawCoId, known: KnownState) -> Reading:
        seen.extend(known.sessions.values())
        return Reading([pieces[1]])

    alice, data = member(ALICE, slow)
    bob, _ = member(BOB, fast)
    door = Door()
    await Fetcher(door, {ALICE: alice, BOB: bob}, ReplicaPolicy()).fetch_all(
        claims(value, ALICE, BOB)
    )
    assert door.states[value.id].sessions == {value.session_id: 2}
    assert seen == [1]


class DoorThatWaits(Door):
    """Takes what comes with a group, or after it."""

    def __init__(self, group_id: RawCoId) -> None:
        super().__init__()
        self._group_id = group_id

    async def receive_content(self, source: str, contents: Sequence[Content]) -> Receipt:
        self.has_group = any(self._group_id in (c.co_id, *self.states) for c in contents)
        return await super().receive_content(source, contents)


async def test_who_sends_slowly_what_a_value_needs_gives_way_as_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    author = Stranger("author")
    group = author.content(group_header(author.account_id), [role(author.account_id, "admin")])
    value = author.content(map_header("m", group.co_id), edits(1))

    async def slow(co_id: RawCoId, known: KnownState) -> Reading:
        while co_id != value.co_id:
            await trio.sleep(1)
            data.blocks_fetched += 1
        return Reading([value])

    alice, data = member(ALICE, slow)
    bob, _ = member(BOB, serving(author.account(), group, value))
    door = DoorThatWaits(group.co_id)
    found = Announcements()
    for name in (ALICE, BOB):
        found.announce(name, 10, [(value.co_id, value.known_state.sessions)])
    started = trio.current_time()
    await Fetcher(door, {ALICE: alice, BOB: bob}, ReplicaPolicy()).fetch_all(found)
    assert door.states.keys() >= {group.co_id, value.co_id}
    assert trio.current_time() - started <= SLOW_SECONDS
    assert alice.conduct.undelivered == 0


async def test_what_failed_is_had_by_whoever_asks_for_it_though_more_comes_beside_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It seemed to come for as long as the other values of its fetch did, hours perhaps."""
    long, short = Author(1).value("long"), Author(1).value("short")
    pieces = [long.edit("[]", with_header=True), *(long.edit("[]") for _ in range(9))]
    created = short.edit("[]", with_header=True)
    failures = iter([MemberDataError("not now")])

    async def failing_once(co_id: RawCoId, known: KnownState) -> Reading:
        for error in failures:
            raise error
        return Reading([created])

    alice, read = dripping(pieces, 20, failing_once)
    door = Door()
    fetcher = Fetcher(door, {ALICE: alice}, ReplicaPolicy())
    both = claims(long, ALICE)
    both.announce(ALICE, 10, [(short.id, {short.session_id: 1})])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetcher.fetch_all, both)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(UNDER_WAY_SECONDS + 1):
            await fetcher.fetch_all(claims(short, ALICE))
        assert door.states[short.id].header
    assert read == [*range(len(pieces))]
