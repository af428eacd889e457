"""What hypercore 11.37.1's test/snapshots.js covers, with JavaScript on one side of a connection.

One side appends and truncates, the other one has a snapshot of its copy.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hypercore import SnapshotNotAvailable, Truncated, open_corestore
from tests.interop.replication_peer import connected, open_javascript_peer

pytestmark = pytest.mark.interop

LIMIT_SECONDS = 180
OLD = [b"block #%d.0" % index for index in range(10)]
NEW = [b"block #%d.1" % index for index in range(4, 12)]


async def test_javascript_cuts_what_we_have_a_snapshot_of() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            key = (await peer("open", id="a", name="log"))["key"]
            await peer("append", id="a", blocks=[block.hex() for block in OLD])
            core = await store.get(key=bytes.fromhex(key))
            async with connected(store, peer, is_initiator=True):
                await core.wait_length(10)
                async with core.snapshot() as snapshot, await core.checkout(6) as checkout:
                    assert await snapshot.get_many([1, 5, 8]) == [OLD[1], OLD[5], OLD[8]]
                    events = core.events()
                    await peer("append", id="a", blocks=[b"later".hex()])
                    await peer("truncate", id="a", length=4)
                    await peer("append", id="a", blocks=[block.hex() for block in NEW])
                    while not isinstance(event := await anext(events), Truncated):
                        pass
                    assert (event.length, event.fork) == (4, 1)
                    await core.wait_length(12)
                    assert (snapshot.length, snapshot.fork) == (10, 0)
                    assert await snapshot.get_many([0, 5, 8]) == [OLD[0], OLD[5], OLD[8]]
                    assert await checkout.get_many([3, 5]) == [OLD[3], OLD[5]]
                    for view, index in ((snapshot, 6), (snapshot, 9), (checkout, 4)):
                        with pytest.raises(SnapshotNotAvailable):
                            await view.get(index)
                    assert await core.get_many(range(12)) == OLD[:4] + NEW


async def test_we_cut_what_javascript_has_a_snapshot_of() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            core = await store.get(name="log")
            await core.append(OLD)
            await peer("open", id="a", key=core.key.hex())
            async with connected(store, peer, is_initiator=True):
                await peer("waitLength", id="a", length=10)
                # The first ones, too: JavaScript keeps as much as it can prove to be common.
                for start, stop in ((0, 4), (8, 9)):
                    await peer("download", id="a", start=start, stop=stop)
                await peer("snapshot", id="a", **{"as": "snapshot"})
                await core.truncate(4)
                await core.append(NEW)
                await peer("waitLength", id="a", length=12, fork=1)
                assert (await peer("info", id="snapshot"))["length"] == 10
                answer = await peer("getMany", id="snapshot", indices=[0, 3, 8])
                assert answer["blocks"] == [OLD[index].hex() for index in (0, 3, 8)]
                answer = await peer("getError", id="snapshot", index=5)
                assert answer == {"number": answer["number"], "code": "SNAPSHOT_NOT_AVAILABLE"}
                answer = await peer("getMany", id="a", indices=[5, 11])
                assert answer["blocks"] == [NEW[1].hex(), NEW[7].hex()]


async def test_requests_that_a_cut_of_javascript_overtakes() -> None:
    """JavaScript: implicit snapshot - gets are snapshotted at call time."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer() as peer, open_corestore(None) as store:
            key = (await peer("open", id="a", name="log"))["key"]
            await peer("append", id="a", blocks=[block.hex() for block in OLD])
            core = await store.get(key=bytes.fromhex(key))
            async with connected(store, peer, is_initiator=True):
                assert await core.get(0) == OLD[0]
            got: list[bytes] = []

            async def get() -> None:
                got.append(await core.get(1))

            async def get_in_vain() -> None:
                with pytest.raises(SnapshotNotAvailable):
                    await core.get(5)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(get)
                nursery.start_soon(get_in_vain)
                await trio.testing.wait_all_tasks_blocked()
                await peer("truncate", id="a", length=4)
                await peer("append", id="a", blocks=[block.hex() for block in NEW])
                async with connected(store, peer, is_initiator=True):
                    await core.wait_length(12)
                    assert await core.get(5) == NEW[1]
            assert got == [OLD[1]]
