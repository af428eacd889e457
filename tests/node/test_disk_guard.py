"""A disk without room: nothing is taken in, everything is served, and it goes on by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from bee.bee import Bee
from hypercore.corestore import open_corestore
from hypercore.errors import StorageFailed
from node.cojson.host import open_sync_host
from node.cojson.messages import Load
from node.cojson.room import Room
from node.config import load_config
from node.covalue.bee_store import BeeStore
from node.covalue.known_state import NOTHING
from node.covalue.store import ValueAppend
from node.daemon import open_node
from node.disk_guard import DiskGuard, DiskLimits, open_disk_guard
from node.running import Node
from tests.node.mesh.authors import Author, Value
from tests.node.mesh.nodes import wait_until
from tests.support.data_log import DataLog

BALLAST = "ballast"


class FailingStore(BeeStore):
    """Fails once when told to, before or after it has stored the batch."""

    fails: str = ""

    async def store(self, appends: Sequence[ValueAppend]) -> None:
        fails, self.fails = self.fails, ""
        if fails == "before":
            raise StorageFailed("no room")
        await super().store(appends)
        if fails == "after":
            raise StorageFailed("no room, it seems")


@pytest.mark.parametrize("fails", ["before", "after"])
async def test_a_batch_that_failed_is_stored_once_there_is_room(fails: str) -> None:
    log = DataLog()
    store, room = FailingStore(Bee(log), log), Room()
    value, second = Author(1).value("first"), Author(1).value("second")
    async with open_sync_host(store, room=room) as host:
        with host.client("uploader") as uploader, host.client("reader") as reader:
            store.fails = fails
            await uploader.receive([value.edit("[]", with_header=True)])
            await wait_until(lambda: not room.is_open)
            assert not (await host.known_state(value.id)).header, "not acknowledged"
            # Reading goes on; what is sent meanwhile is refused, and its sender has to come again.
            await wait_until(lambda: not host.takes_content)
            await uploader.receive([second.edit("[]", with_header=True)])
            assert host.statistics().refused_for_room == 1
            await reader.receive([Load(second.id, NOTHING)])
            await wait_until(lambda: reader.outbox.control_bytes > 0)
            receipt = await host.receive_content("member", [second.edit("[]")])
            assert set(receipt.refused.values()) == {room.reason}
            assert not uploader.outbox.end_reason
            room.open()
            await wait_until(lambda: bool(uploader.outbox.end_reason))
            assert not reader.outbox.end_reason
            state = await host.known_state(value.id)
            assert dict(state.sessions) == {value.session_id: 1}
            assert store.totals().transactions == 1
            assert store.count() == 1


async def test_without_a_room_a_failure_is_raised() -> None:
    log = DataLog()
    store = FailingStore(Bee(log), log)
    store.fails = "before"
    with pytest.RaisesGroup(StorageFailed, allow_unwrapped=True, flatten_subgroups=True):
        async with open_sync_host(store) as host:
            with host.client("uploader") as uploader:
                await uploader.receive([Author(1).created("x")])
                await trio.sleep_forever()


async def test_a_quota_closes_the_room_and_opens_it(tmp_path: Path) -> None:
    async with open_corestore(None) as cores:
        data = await cores.get(name="data")
        store, room = BeeStore(Bee(data), data), Room()
        (tmp_path / "inner").mkdir()
        ballast = tmp_path / "inner" / BALLAST
        ballast.write_bytes(bytes(1 << 20))
        guard = DiskGuard(room, DiskLimits((tmp_path,), 2 << 20, 1), cores, store)
        await guard.look()
        assert room.is_open
        assert 1 << 20 <= guard.status().used_bytes < 2 << 20
        ballast.write_bytes(bytes((2 << 20) - 8192))  # what may come until the next look counts
        await guard.look()
        assert room.reason.startswith("the quota is used up: ")
        assert guard.status().trouble == room.reason
        assert guard.status().trouble_since_unix is not None
        ballast.unlink()
        await guard.look()
        assert (room.is_open, guard.status().trouble, guard.status().recoveries) == (True, "", 1)
        full = DiskGuard(room, DiskLimits((tmp_path,), None, 1 << 60), cores, store)
        await full.look()
        assert room.reason.startswith("the disk is full: ")


async def test_the_reason_tells_how_much_is_free_now_and_with_how_much_it_goes_on(
    tmp_path: Path,
) -> None:
    free = [0]

    async def measure(_: tuple[Path, ...]) -> tuple[int, int]:
        return free[0], 0

    async with open_corestore(None) as cores:
        data = await cores.get(name="data")
        store, room = BeeStore(Bee(data), data), Room()
        guard = DiskGuard(room, DiskLimits((tmp_path,), None, 1 << 20), cores, store, measure)
        for free[0], said in (
            (900 << 10, "900.0 KiB free, 1.0 MiB are wanted"),
            (0, "0 B free, 1.2 MiB are wanted"),
            (1100 << 10, "1.1 MiB free, 1.2 MiB are wanted"),
        ):
            await guard.look()
            assert guard.status().trouble == room.reason == f"the disk is full: {said}"
        free[0] = 1300 << 10
        await guard.look()
        assert room.is_open
        assert room.closures == 1


async def test_a_disk_that_does_not_answer_for_a_moment_stops_no_node(tmp_path: Path) -> None:
    """Found in use: the data directory was away for a second, and so was the node, for good."""
    async with open_corestore(None) as cores:
        data = await cores.get(name="data")
        store, room = BeeStore(Bee(data), data), Room()
        place = tmp_path / "mounted"
        place.mkdir()
        async with open_disk_guard(room, DiskLimits((place,), None, 1), cores, store) as guard:
            assert room.is_open
            place.rename(tmp_path / "away")
            await guard.look()
            assert room.reason == "the disk does not answer: No such file or directory"
            assert guard.status().trouble == room.reason
            (tmp_path / "away").rename(place)
            await guard.look()
            assert (room.is_open, guard.status().trouble) == (True, "")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB, which takes root."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill_disk(path: Path) -> None:
    """Leave no byte free."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


async def send(node: Node, value: Value, *, with_header: bool = False) -> None:
    with node.host.client("uploader") as client:
        await client.receive([value.edit(f'["{"x" * 2000}"]', with_header=with_header)])
        await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
@pytest.mark.parametrize(
    ("store", "min_free"), [("bee", 4 << 20), ("bee", 1), ("hybrid", 1), ("sqlite", 1)]
)
async def test_a_disk_that_is_really_full(small_disk: Path, store: str, min_free: int) -> None:
    """With a reserve it is seen coming; without one, writes fail."""
    quiet = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    settings = {"data": small_disk / "node", "discovery": "off", "store": store, **quiet}
    config = load_config({**settings, "min_free_bytes": min_free}, {})
    author = Author(1)
    before = [author.value(f"before {number}") for number in range(20)]
    held_up, after = author.value("held up"), author.value("after")
    async with open_node(config) as node:
        for value in before:
            await send(node, value, with_header=True)
        assert node.missing_for_ready() == []
        fill_disk(small_disk / BALLAST)
        await send(node, held_up, with_header=True)
        await wait_until(lambda: bool(node.missing_for_ready()))
        assert "nothing is taken in" in node.missing_for_ready()[0]
        assert node.status().disk.trouble
        for value in before:
            report = await node.host.load(value.id)
            assert report is not None, "reads go on"
        (small_disk / BALLAST).unlink()
        await wait_until(lambda: node.missing_for_ready() == [])
        assert node.status().disk.recoveries >= 1
        await wait_until(lambda: node.host.takes_content)
        for value in (held_up, after):
            await send(node, value, with_header=not value.count or value is after)
        state = await node.host.known_state(after.id)
        assert dict(state.sessions) == {after.session_id: 1}
    async with open_node(config) as node:
        for value in (*before, after):
            assert await node.host.load(value.id) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
async def test_a_node_starts_on_a_full_disk_and_goes_on(small_disk: Path) -> None:
    """Found in use: there was no room for what RocksDB writes when it opens, nor for admin.json."""
    quiet = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    settings = {"data": small_disk / "node", "discovery": "off", **quiet}
    config = load_config({**settings, "min_free_bytes": 1}, {})
    before, after = (Author(1).value(name) for name in ("before", "after"))
    async with open_node(config) as node:
        await send(node, before, with_header=True)
    fill_disk(small_disk / BALLAST)
    async with open_node(config) as node:
        await wait_until(lambda: bool(node.missing_for_ready()))
        assert await node.host.load(before.id) is not None
        (small_disk / BALLAST).unlink()
        await wait_until(lambda: node.missing_for_ready() == [] and node.host.takes_content)
        await send(node, after, with_header=True)
        assert await node.host.load(after.id) is not None
    async with open_node(config) as node:
        assert await node.host.load(after.id) is not None
