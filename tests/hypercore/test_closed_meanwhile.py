"""A core that is closed, or removed, while something of it is about to be committed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio

from hypercore import Core, Corestore, open_corestore

Meanwhile = Callable[[], Awaitable[None]]
Change = Callable[[Corestore, Core, Meanwhile], Awaitable[None]]


async def change_in_atom(store: Corestore, core: Core, meanwhile: Meanwhile) -> None:
    async with store.atom(core) as atom:
        atom[core].append(b"late")
        await meanwhile()


async def change_in_pieces(_: Corestore, core: Core, meanwhile: Meanwhile) -> None:
    begun = trio.Event()

    def pieces() -> Iterator[list[bytes]]:
        for _ in range(300):
            begun.set()
            yield [b"late"]

    async def interrupt() -> None:
        await begun.wait()
        await meanwhile()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.append_pieces, pieces())
        nursery.start_soon(interrupt)


CHANGES = pytest.mark.parametrize("change", [change_in_atom, change_in_pieces])


def rows(store: Corestore) -> list[tuple[bytes, bytes]]:
    return list(store.storage.items(b"\x00", b"\xff\xff"))


@CHANGES
async def test_what_others_appended_to_the_core_opened_anew_stays(change: Change) -> None:
    """Its head was that of the closed object, and the blocks that were acknowledged were lost."""
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two"])

        async def close_and_append() -> None:
            await core.close()
            again = await store.get(name="log")
            await again.append([b"three", b"four", b"five"])
            await again.close()

        with pytest.RaisesGroup(
            trio.ClosedResourceError, allow_unwrapped=True, flatten_subgroups=True
        ):
            await change(store, core, close_and_append)
        again = await store.get(name="log")
        assert [block async for block in again.blocks()] == [
            b"one",
            b"two",
            b"three",
            b"four",
            b"five",
        ]


@CHANGES
async def test_nothing_is_written_for_a_core_that_was_removed(change: Change) -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two"])

        async def purge() -> None:
            await store.purge(name="log")

        with pytest.RaisesGroup(
            trio.ClosedResourceError, allow_unwrapped=True, flatten_subgroups=True
        ):
            await change(store, core, purge)
        assert len(rows(store)) == 1  # the store's own


async def test_a_closed_handle_changes_nothing_for_others() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log", encryption_key=bytes(32))
        await core.append(b"one")
        closed = core.session()
        await closed.close()
        assert core.manifest is not None
        with pytest.raises(trio.ClosedResourceError):
            closed.set_encryption(None)
        with pytest.raises(trio.ClosedResourceError):
            closed.learn_manifest(core.manifest)
        assert await core.get(0) == b"one"
