"""Cuts that are refused: nothing was cut, so nobody hears of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio.testing

from hypercore import Core, InvalidSignature, OutOfRange, UsageError, open_corestore
from hypercore.crypto import KeyPair
from hypercore.log import Changeset


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    """Four blocks, of which block 2 was cleared."""
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append([b"0", b"1", b"2", b"3"])
        await core.clear(2, 3)
        yield core


async def test_who_waits_for_a_block_waits_on(core: Core) -> None:
    found = []

    async def get() -> None:
        found.append(await core.get(2))

    stranger = KeyPair.from_seed(bytes(32))
    head = core.propose_truncation(1).signed_by(core.key_pair).head
    assert head is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(UsageError, match="fork"):
            await core.truncate(1, fork=0)
        with pytest.raises(OutOfRange):
            await core.truncate(5)
        with pytest.raises(UsageError, match="signer"):
            await core.truncate(1, key_pair=stranger)
        with pytest.raises(InvalidSignature):
            await core.truncate(1, signature=bytes(64))
        with pytest.raises(UsageError, match="exclude"):
            await core.truncate(1, signature=head.signature, key_pair=core.key_pair)
        await trio.testing.wait_all_tasks_blocked()
        core.commit([Changeset(blocks=[(2, b"2")])])
    assert found == [b"2"]


async def test_a_snapshot_keeps_nothing(core: Core) -> None:
    snapshot = core.snapshot()
    with pytest.raises(UsageError, match="fork"):
        await core.truncate(1, fork=0)
    core.commit([Changeset(blocks=[(2, b"2")])])
    assert await snapshot.get(2) == b"2"
