from __future__ import annotations

from collections.abc import Mapping

import msgpack
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from bee import Bee
from hypercore.corestore import open_corestore
from hypercore.replication.messages import PROTOCOL
from node.covalue.bee_store import BeeStore
from node.covalue.ids import RawCoId
from node.covalue.keys import header_key, session_key, value_range
from node.covalue.known_state import NOTHING, KnownState
from node.mesh.fetch import Fetcher
from node.mesh.fields import pack_fields
from node.mesh.follow import PAGE_BLOCKS, CatchUp, CoreData, Merged, merged_key
from node.mesh.member import Member
from node.mesh.member_data import MemberDataError, Survey
from node.mesh.messages import Welcome
from node.mesh.outline import Outline
from node.mesh.replicas import ReplicaPolicy
from node.mesh.session import MeshSession
from node.mesh.ticket import Role
from tests.node.mesh.authors import Author
from tests.node.mesh.nodes import MeshNode, NoChannel, open_mesh_node
from tests.node.mesh.samples import MESH_KEY, co_id, session_id
from tests.support.authors import Author as Writer
from tests.support.authors import edits, map_header
from tests.support.stores import Appender
from tests.support.stream_pair import INITIATOR, open_mux_pair


@given(st.binary(max_size=60))
def test_any_row_is_read_or_means_nothing_merged(data: bytes) -> None:
    merged = Merged.decode(data)
    assert merged.length >= 0


def test_rows_round_trip() -> None:
    assert Merged.decode(Merged(3, 70_000).encode()) == Merged(3, 70_000)
    assert Merged.decode(None) == Merged()
    assert Merged.decode(pack_fields(3, 70_000)) == Merged(3, 70_000), "as first written"
    assert Merged.decode(Merged(3, 7, b"s").encode()) == Merged(3, 7, b"s")
    assert Merged.decode(pack_fields(3, 7, b"s")) == Merged(3, 7, b"s"), "as written next"
    assert Merged.decode(Merged(3, 7, b"s", "1.2").encode()) == Merged(3, 7, b"s", "1.2")


class Rows:
    """Local rows in a dict."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}

    def get_local_value(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        self.rows.update(rows)


class Watched:
    """A member's data that notes what was scanned, and fails when told to."""

    def __init__(self, data: CoreData) -> None:
        self._data = data
        self.scans: list[tuple[int, int]] = []
        self.surveys: list[tuple[int, int, bytes]] = []
        self.fail_after = 1_000_000

    @property
    def length(self) -> int:
        return self._data.length

    @property
    def fork(self) -> int:
        return self._data.fork

    @property
    def blocks_fetched(self) -> int:
        return self._data.blocks_fetched

    @property
    def bytes_fetched(self) -> int:
        return self._data.bytes_fetched

    def expect_pushes(self, member_id: bytes) -> bool:
        return self._data.expect_pushes(member_id)

    async def read(self, co_id: RawCoId, known: KnownState, version: int):  # type: ignore[no-untyped-def]
        return await self._data.read(co_id, known, version)

    async def scan(self, start: int, stop: int) -> Survey:
        if len(self.scans) >= self.fail_after:
            raise MemberDataError("gone")
        self.scans.append((start, stop))
        return await self._data.scan(start, stop)

    async def outline(self, co_id: RawCoId, version: int, *, is_dated: bool) -> Outline | None:
        return await self._data.outline(co_id, version, is_dated=is_dated)

    async def survey(self, start: int, stop: int, after: bytes) -> Survey:
        if len(self.scans) + len(self.surveys) >= self.fail_after:
            raise MemberDataError("gone")
        self.surveys.append((start, stop, after))
        return await self._data.survey(start, stop, after)


async def fill(node: MeshNode, count: int) -> None:
    author = Author(3)
    for start in range(0, count, 200):
        contents = [author.created(f"v{start + n}") for n in range(min(200, count - start))]
        receipt = await node.host.receive_content("test", contents)
        assert len(receipt.accepted) == len(contents)


def member_with(node: MeshNode, data: Watched) -> tuple[Member, Welcome]:
    session = MeshSession(
        MESH_KEY, is_initiator=True, handshake_hash=b"", judge=lambda _grant: Role.WRITER, now=0
    )
    member = Member(b"source", NoChannel(), session, NoChannel())  # type: ignore[arg-type]
    member.data = data
    member.change_role(Role.WRITER)
    return member, Welcome(node.data.key, node.data.length, "source", "writer", None, ())


async def test_catching_up_goes_page_by_page_and_on_where_it_stopped() -> None:
    policy = ReplicaPolicy(everything=True)
    async with open_mesh_node(1) as source, open_mesh_node(2) as replica:
        await fill(source, 800)
        data = Watched(CoreData(source.data))
        member, welcome = member_with(source, data)
        rows = Rows()
        fetcher = Fetcher(replica.host, {b"source": member}, policy)
        catch_up = CatchUp(replica.host, fetcher, rows, policy)
        data.fail_after = 1
        assert not await catch_up.run(member, welcome)
        assert catch_up.merged(source.data.key) == Merged(0, PAGE_BLOCKS)
        some = replica.store.count()
        assert 0 < some < 800
        data.fail_after = 1_000_000
        assert await catch_up.run(member, welcome)
        assert replica.store.count() == 800
        assert data.scans[1][0] == PAGE_BLOCKS
        assert catch_up.merged(source.data.key) == Merged(0, source.data.length)
        before = len(data.scans)
        assert await catch_up.run(member, welcome)
        assert len(data.scans) == before


async def test_a_row_of_another_fork_counts_for_nothing() -> None:
    policy = ReplicaPolicy(everything=True)
    async with open_mesh_node(1) as source, open_mesh_node(2) as replica:
        await fill(source, 10)
        data = Watched(CoreData(source.data))
        member, welcome = member_with(source, data)
        rows = Rows()
        rows.rows[merged_key(source.data.key)] = Merged(7, source.data.length).encode()
        fetcher = Fetcher(replica.host, {b"source": member}, policy)
        assert await CatchUp(replica.host, fetcher, rows, policy).run(member, welcome)
        assert replica.store.count() == 10


async def test_what_a_later_version_wrote_is_left_out_until_there_is_another_one_here() -> None:
    """Its member was sent away for it, and nothing behind it was ever read."""
    policy = ReplicaPolicy(everything=True)
    later, other = co_id(1), co_id(2)
    async with open_mesh_node(2) as replica, open_corestore(None) as cores:
        core = await cores.get(name="later")
        bee = Bee(core)
        store = BeeStore(bee, core)
        before, after = (Writer(name).account() for name in ("before", "after"))
        await Appender().put(store, before)
        header = {**before.header.fields, "shape": 2} if before.header else {}
        await bee.put(header_key(later), msgpack.packb(header))
        await bee.put(session_key(other, session_id(1)), b"\xc0")
        await bee.put(f"{other}:summary".encode(), b"\x01")
        await Appender().put(store, after)
        member, _ = member_with(replica, Watched(CoreData(core)))
        welcome = Welcome(core.key, core.length, "source", "writer", None, ())
        rows = Rows()

        def started_anew(version: str) -> tuple[CatchUp, Watched]:
            """A node of that version, with the same rows beside its log."""
            member.data = data = Watched(CoreData(core))
            fetcher = Fetcher(replica.host, {b"source": member}, policy)
            return CatchUp(replica.host, fetcher, rows, policy, version), data

        catch_up, data = started_anew("1")
        assert await catch_up.run(member, welcome)
        assert [id async for id in replica.store.ids()] == sorted((before.co_id, after.co_id))
        assert (member.failures, member.conduct.fault(), member.close_reason) == (0, None, None)
        for version, has_read in (("1", False), ("2", True), ("2", False)):
            catch_up, data = started_anew(version)
            assert await catch_up.run(member, welcome)
            assert bool(data.scans) == has_read
            assert catch_up.merged(core.key).length == core.length


@pytest.mark.parametrize("is_scanned", [True, False])
async def test_what_a_later_version_wrote_of_a_value_that_is_here_is_read_by_another_one(
    *, is_scanned: bool
) -> None:
    """It was taken for merged: the row says nothing of how far the session goes."""
    policy = ReplicaPolicy(everything=True)
    async with open_mesh_node(2) as replica, open_corestore(None) as cores:
        core = await cores.get(name="later")
        bee = Bee(core)
        content = Writer("writer").content(map_header("m"), edits(1), as_agent=True)
        await Appender().put(BeeStore(bee, core), content)
        await replica.host.receive_content("test", [content])
        (session,) = content.new
        await bee.put(session_key(content.co_id, session), b"\xc0")
        if not is_scanned:
            await core.clear(0, 1)
        member, _ = member_with(replica, Watched(CoreData(core)))
        welcome = Welcome(core.key, core.length, "source", "writer", None, ())
        rows = Rows()
        for version in ("1", "2"):
            member.data = data = Watched(CoreData(core))
            fetcher = Fetcher(replica.host, {b"source": member}, policy)
            catch_up = CatchUp(replica.host, fetcher, rows, policy, version)
            assert await catch_up.run(member, welcome)
            assert data.scans or data.surveys
            assert catch_up.merged(core.key).unread_by == version
        assert (member.failures, member.conduct.fault()) == (0, None)


async def test_a_core_that_is_no_bee_of_covalues_fails_and_is_not_merged() -> None:
    policy = ReplicaPolicy(everything=True)
    async with open_mesh_node(2) as replica, open_corestore(None) as cores:
        core = await cores.get(name="junk")
        await core.append([b"junk"] * 10)
        session = member_with(replica, Watched(CoreData(core)))[0]
        welcome = Welcome(core.key, core.length, "junk", "writer", None, ())
        fetcher = Fetcher(replica.host, {b"source": session}, policy)
        catch_up = CatchUp(replica.host, fetcher, Rows(), policy)
        assert not await catch_up.run(session, welcome)
        assert catch_up.merged(core.key) == Merged()


async def test_catching_up_with_a_member_that_gave_up_blocks(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It erased some values, overwrote rows and compacted: its log has gaps, its tree has not."""
    policy = ReplicaPolicy(everything=True)
    async with (
        open_mesh_node(1) as source,
        open_mesh_node(2) as replica,
        open_corestore(None) as cores,
        open_mux_pair(PROTOCOL) as (source_mux, our_mux),
        trio.open_nursery() as nursery,
    ):
        await fill(source, 600)
        copy = await cores.get(key=source.data.key)
        data = Watched(CoreData(copy, keeper=INITIATOR.public_key))
        bee = Bee(source.data)
        ids = [co_id async for co_id in source.store.ids()]
        for co_id in ids[::7]:
            start, stop = value_range(co_id)
            await bee.erase(gte=start, lt=stop)
        await bee.compact()
        nursery.start_soon(source.data.serve, source_mux)
        nursery.start_soon(copy.serve, our_mux)
        await copy.wait_length(source.data.length)
        member, welcome = member_with(source, data)
        rows = Rows()
        fetcher = Fetcher(replica.host, {b"source": member}, policy)
        catch_up = CatchUp(replica.host, fetcher, rows, policy)
        started = trio.current_time()
        data.fail_after = 2
        assert not await catch_up.run(member, welcome)
        assert catch_up.merged(source.data.key) == Merged(), "it begins anew"
        data.fail_after = 1_000_000
        assert await catch_up.run(member, welcome)
        assert len(data.surveys) >= 2, "page by page"
        assert trio.current_time() == started, "nobody waited for what nobody has"
        found = {co_id async for co_id in replica.store.ids()}
        assert found == {co_id for n, co_id in enumerate(ids) if n % 7}
        assert catch_up.merged(source.data.key) == Merged(0, source.data.length)
        # What comes later is read along the log again.
        surveys = len(data.surveys)
        receipt = await source.host.receive_content("test", [Author(4).created("later")])
        assert receipt.accepted
        await copy.wait_length(source.data.length)
        welcome = Welcome(source.data.key, source.data.length, "source", "writer", None, ())
        assert await catch_up.run(member, welcome)
        assert len(data.surveys) == surveys
        assert replica.store.count() == len(found) + 1
        nursery.cancel_scope.cancel()


async def test_a_read_begins_anew_when_the_member_compacted_under_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It first wrote what is to stay, and then gave up what we had in mind to read."""
    async with (
        open_mesh_node(1) as source,
        open_corestore(None) as cores,
        open_mux_pair(PROTOCOL) as (source_mux, our_mux),
        trio.open_nursery() as nursery,
    ):
        await fill(source, 300)
        ids = [co_id async for co_id in source.store.ids()]
        copy = await cores.get(key=source.data.key)
        data = CoreData(copy, keeper=INITIATOR.public_key)
        serving = trio.CancelScope()

        async def serve() -> None:
            with serving:
                async with trio.open_nursery() as both:
                    both.start_soon(source.data.serve, source_mux)
                    both.start_soon(copy.serve, our_mux)

        nursery.start_soon(serve)
        await copy.wait_length(source.data.length)
        serving.cancel()
        await trio.testing.wait_all_tasks_blocked()
        known = copy.length
        bee = Bee(source.data)
        for co_id in ids[1::2]:
            start, stop = value_range(co_id)
            await bee.erase(gte=start, lt=stop)
        await bee.compact()
        started = trio.current_time()
        serving = trio.CancelScope()
        nursery.start_soon(serve)
        for co_id in ids[:10:2]:
            reading = await data.read(co_id, NOTHING, known)
            assert [content.co_id for content in reading.contents] == [co_id]
        assert copy.length > known
        assert trio.current_time() == started
        nursery.cancel_scope.cancel()


async def test_a_read_waits_for_the_fork_that_the_member_has_gone_on_to(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It was put back to an older state, and has by now as many blocks as before."""
    first, second = Author(2).created("cut off"), Author(3).created("since then")
    async with (
        open_mesh_node(1) as source,
        open_corestore(None) as cores,
        open_mux_pair(PROTOCOL) as (source_mux, our_mux),
        trio.open_nursery() as nursery,
    ):
        await fill(source, 10)
        kept = source.data.length
        await source.host.receive_content("test", [first])
        length = source.data.length
        copy = await cores.get(key=source.data.key)
        data = CoreData(copy, keeper=INITIATOR.public_key)
        nursery.start_soon(source.data.serve, source_mux)
        nursery.start_soon(copy.serve, our_mux)
        await copy.wait_length(length)
        assert (await data.read(first.co_id, NOTHING, length)).contents
        await source.data.truncate(kept)
        await source.store.rebuild()
        await source.host.receive_content("test", [second])
        assert source.data.length == length
        with trio.fail_after(5):
            while not any(peer.fork for peer in copy.peers):
                await trio.lowlevel.checkpoint()
        assert copy.fork == 0
        reading = await data.read(second.co_id, NOTHING, length)
        assert [content.co_id for content in reading.contents] == [second.co_id]
        nursery.cancel_scope.cancel()
