"""Peers that still run Hypercore 10: the wire is the same, the files are not."""

from __future__ import annotations

import pytest
import trio

from hypercore.corestore import open_corestore
from hypercore.crypto import KeyPair
from tests.interop.replication_peer import block, connected, open_hypercore10_peer
from tests.interop.test_replication import BOTH_ROLES, digest_of, open_of_javascript

pytestmark = pytest.mark.interop

LIMIT_SECONDS = 60


@BOTH_ROLES
async def test_we_copy_and_follow_what_it_writes(is_initiator: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_hypercore10_peer() as peer, open_corestore(None) as store:
            core = await store.get(key=await open_of_javascript(peer, 2_000))
            async with connected(store, peer, is_initiator=is_initiator):
                await core.wait_length(2_000)
                await core.get_many(range(2_000))
                for index in range(5):
                    await peer("append", id="a", blocks=[(b"live %d" % index).hex()])
                    await core.wait_length(2_001 + index)
                    assert await core.get(2_000 + index) == b"live %d" % index
            assert digest_of(core) == (await peer("digest", id="a"))["digest"]
            assert not core.is_writable
            assert core.statistics().replication.total.answers_ignored == 0


@BOTH_ROLES
async def test_it_copies_and_follows_what_we_write(is_initiator: bool) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_hypercore10_peer() as peer, open_corestore(None) as store:
            core = await store.get(name="log")
            await core.append([block(index, 100) for index in range(2_000)])
            await peer("open", id="a", key=core.key.hex())
            async with connected(store, peer, is_initiator=is_initiator):
                await peer("update", id="a")
                assert (await peer("download", id="a", start=0, stop=2_000))["contiguous"] == 2_000
                await peer("follow", id="a")
                await core.append([b"live"] * 3)
                await peer("waitContiguous", id="a", length=2_003)
                assert digest_of(core) == (await peer("digest", id="a"))["digest"]
            assert (await peer("events"))["events"] in ([], ["closed"])


async def test_we_follow_it_to_another_fork_and_it_follows_us() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_hypercore10_peer() as peer, open_corestore(None) as store:
            theirs = await store.get(key=await open_of_javascript(peer, 300))
            pair = KeyPair.generate()
            ours = await store.get(key=pair.public_key, key_pair=pair)  # as it makes its own
            await ours.append([b"%d" % index for index in range(300)])
            await peer("open", id="b", key=ours.key.hex())
            async with connected(store, peer, is_initiator=True):
                await theirs.wait_length(300)
                await peer("waitLength", id="b", length=300)
                await peer("truncate", id="a", length=40)
                await peer("append", id="a", blocks=[b"anew".hex()] * 7)
                while (theirs.fork, theirs.length) != (1, 47):
                    await theirs.wait_change(theirs.length, theirs.fork)
                assert await theirs.get(46) == b"anew"
                await ours.truncate(250)
                await ours.append([b"other"] * 60)
                await peer("waitLength", id="b", length=310, fork=1)
                answer = await peer("getMany", id="b", indices=[249, 250, 309])
                assert [bytes.fromhex(each) for each in answer["blocks"]] == [
                    b"249",
                    b"other",
                    b"other",
                ]
