"""As hypercore's test/conflicts.js, JavaScript on one side and Python on the other.

Its one test ("one forks") is skipped there, because the event is sometimes lost while sessions
close. Here the three parts in it, a writer, its double, and a reader who meets both, are played by
either side, and what is asserted (that both see it, at which length, and that a read of what
is missing fails) waits for nothing that may be lost. `tests/hypercore/test_frozen_core.py` has
the same with Python on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from hypercore import (
    Core,
    CoreFrozen,
    Corestore,
    ForkProof,
    KeyPair,
    open_corestore,
    verify_fork_proof,
)
from hypercore.crypto import discovery_key
from hypercore.proof_request import BlockRequest, ProofRequest
from hypercore.replication.capability import replicate_capability
from hypercore.replication.messages import (
    PROTOCOL,
    PROTOCOL_ALIASES,
    Data,
    Handshake,
    MessageType,
    Request,
    Sync,
)
from hypercore.storage.core_storage import FORK_PROOF_KEY
from swarm.io.mux import MuxHandle
from tests.interop.replication_peer import (
    dial,
    listening,
    open_javascript_peer,
)
from tests.support.forked_logs import ONE, OTHER, fork_proof, statement, with_other_sizes
from tests.support.peer_process import PeerProcess
from tests.support.trees import KEY_PAIR, MANIFEST

pytestmark = pytest.mark.interop

LIMIT_SECONDS = 180
SCRIPT = "originals/evidence_peer.cjs"
SEED = KEY_PAIR.secret_key[:32].hex()
KEY = MANIFEST.key


def hexed(blocks: Sequence[bytes]) -> list[str]:
    return [block.hex() for block in blocks]


async def open_writer(store: Corestore, blocks: Sequence[bytes]) -> Core:
    core = await store.get(key_pair=KeyPair(KEY_PAIR.public_key, KEY_PAIR.secret_key))
    await core.append(list(blocks))
    return core


async def wait_frozen(core: Core) -> ForkProof:
    with pytest.raises(CoreFrozen):
        await core.wait_length(1 << 40)
    assert core.fork_proof is not None
    return core.fork_proof


async def javascript_reader(peer: PeerProcess, store: Corestore, blocks: int) -> None:
    """JavaScript reads a core from our store."""
    await peer("open", id="reader", store="reader", key=KEY.hex())
    port = (await peer("listen", store="reader"))["port"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial, port, store.replicate)
        await peer("download", id="reader", stop=blocks)
        nursery.cancel_scope.cancel()


async def test_javascript_reads_from_us_and_meets_our_double() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_javascript_peer(SCRIPT) as peer,
            open_corestore(None) as one,
            open_corestore(None) as other,
        ):
            await open_writer(one, ONE)
            await javascript_reader(peer, one, 3)
            double = await open_writer(other, OTHER)
            port = (await peer("listen", store="reader"))["port"]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dial, port, other.replicate)
                state = await peer("waitConflict", id="reader")
                proof = await wait_frozen(double)
                nursery.cancel_scope.cancel()
            assert state["frozen"]
            assert {"conflict": 5, "fork": 0} in state["events"]
            assert verify_fork_proof(proof.encode(), KEY).lengths == (5, 6)
            assert (await peer("get", id="reader", index=4)).get("failure")
            with pytest.raises(CoreFrozen):
                await double.append(b"more")


async def test_we_read_from_javascript_and_meet_its_double() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer(SCRIPT) as peer, open_corestore(None) as store:
            for name, blocks in (("one", ONE), ("other", OTHER)):
                await peer("open", id=name, store=name, seed=SEED, blocks=hexed(blocks))
            core = await store.get(key=KEY)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    dial, (await peer("listen", store="one"))["port"], store.replicate
                )
                assert await core.get(2) == b"c"
                nursery.cancel_scope.cancel()
            async with trio.open_nursery() as nursery:
                port = (await peer("listen", store="other"))["port"]
                nursery.start_soon(dial, port, store.replicate)
                with pytest.raises(CoreFrozen, match="of 5 and 6 blocks"):
                    await core.get(4)
                state = await peer("waitConflict", id="other")
                assert state["frozen"]
                nursery.cancel_scope.cancel()
            assert {"conflict": 5, "fork": 0} in state["events"]
            assert core.fork_proof is not None
            assert verify_fork_proof(core.fork_proof, KEY).differs_below == 5
            assert await core.get(2) == b"c"
            assert core.length == 5


async def test_we_pass_the_evidence_on_to_javascript() -> None:
    """Frozen already, we meet a JavaScript reader who knows one history."""
    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_javascript_peer(SCRIPT) as peer,
            open_corestore(None) as one,
            open_corestore(None) as other,
        ):
            await open_writer(one, ONE)
            await javascript_reader(peer, one, 5)
            double = await open_writer(other, OTHER)
            ours, theirs = statement(ONE, 5), statement(OTHER, 5)
            assert ours.upgrade is not None
            assert theirs.upgrade is not None
            evidence = ForkProof(double.discovery_key, 0, MANIFEST, ours.upgrade, theirs.upgrade)
            await (await one.get(key=KEY)).freeze(evidence)
            async with trio.open_nursery() as nursery:
                port = (await peer("listen", store="reader"))["port"]
                nursery.start_soon(dial, port, one.replicate)
                state = await peer("waitConflict", id="reader")
                nursery.cancel_scope.cancel()
            assert state["frozen"]
            assert {"conflict": 5, "fork": 0} in state["events"]


async def test_javascript_freezes_for_sizes_that_anybody_can_change_and_we_do_not() -> None:
    """One signed head, told with other sizes: why we compare hashes alone."""
    blocks = [b"aa", b"bb", b"cc", b"dd", b"ee"]
    false = with_other_sizes(statement(blocks, 3))

    async def lie(mux: MuxHandle) -> None:
        capability = replicate_capability(
            is_initiator=mux.link.is_initiator, key=KEY, handshake_hash=mux.link.handshake_hash
        )
        channel = await mux.open_channel(
            PROTOCOL, discovery_key(KEY), Handshake(capability).encode(), aliases=PROTOCOL_ALIASES
        )
        sync = Sync(0, 5, 5, False, True, True, True, False)
        channel.send(MessageType.SYNC, sync.encode())
        channel.send(MessageType.DATA, Data(0, false).encode())
        channel.send(MessageType.REQUEST, Request(1, ProofRequest(0, BlockRequest(0, 0))).encode())
        await channel.receive()
        await trio.sleep_forever()

    with trio.fail_after(LIMIT_SECONDS):
        async with open_javascript_peer(SCRIPT) as peer, open_corestore(None) as store:
            writer = await open_writer(store, blocks)
            await javascript_reader(peer, store, 5)
            port = (await peer("listen", store="reader"))["port"]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dial, port, lie)
                state = await peer("waitConflict", id="reader")
                nursery.cancel_scope.cancel()
            assert state["frozen"], "hypercore has learned to tell: drop this test and the remark"
            async with listening(store.replicate) as port, trio.open_nursery() as nursery:
                nursery.start_soon(dial, port, lie)
                while not writer.statistics().replication.total.blocks_sent > 5:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert not writer.is_frozen
            assert not writer.statistics().replication.peers_refused
            await writer.append(b"goes on")


async def test_javascript_opens_a_store_with_a_frozen_core(tmp_path: Path) -> None:
    """It does not know that it is frozen (its own are so until they end), and keeps the row."""
    evidence = fork_proof()
    with trio.fail_after(LIMIT_SECONDS):
        async with open_corestore(tmp_path) as store:
            core = await open_writer(store, ONE)
            await core.freeze(evidence)
        async with open_javascript_peer(SCRIPT) as peer:
            state = await peer("open", id="a", store=str(tmp_path), key=KEY.hex())
            assert (state["length"], state["frozen"]) == (5, False)
            assert (await peer("get", id="a", index=4))["block"] == ONE[4].hex()
            answer = await peer("userData", id="a", key=FORK_PROOF_KEY)
            assert answer["value"] == evidence.encode().hex()
        async with open_corestore(tmp_path) as store:
            core = await store.get(key=KEY)
            assert core.fork_proof == evidence
