"""What hypercore 11.37.1's test/user-data.js covers."""

from __future__ import annotations

from pathlib import Path

from hypercore import Core, Corestore, open_corestore
from tests.support.replicating_cores import replicating


async def test_user_data_is_set(core: Core) -> None:
    assert core.get_user_data("hello") is None
    await core.set_user_data("hello", b"world")
    assert core.get_user_data("hello") == b"world"
    await core.set_user_data("hello", b"")
    assert core.get_user_data("hello") == b""


async def test_user_data_of_a_new_core(store: Corestore) -> None:
    core = await store.get(name="new", user_data={"hello": b"world"})
    assert core.get_user_data("hello") == b"world"


async def test_user_data_survives(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log", user_data={"hello": b"world"})
        await core.set_user_data("other", b"another")
    async with open_corestore(tmp_path) as store:
        # JavaScript adds what it is opened with; here that is for a core which is made.
        core = await store.get(name="log", user_data={"late": b"x"})
        assert core.get_user_data("hello") == b"world"
        assert core.get_user_data("other") == b"another"
        assert core.get_user_data("late") is None


async def test_large_user_data(core: Core) -> None:
    for key in ("hello", "world", "world2"):
        await core.set_user_data(key, bytes(20_000))
    assert [core.get_user_data(key) for key in ("hello", "world", "world2")] == [bytes(20_000)] * 3


async def test_user_data_is_the_same_for_all_sessions_and_stays_here(
    core: Core, other_store: Corestore
) -> None:
    await core.append(b"block")
    await core.set_user_data("secret", b"1")
    async with core.session(read_only=True) as session:
        assert session.get_user_data("secret") == b"1"
        await session.set_user_data("secret", b"2")
    assert core.get_user_data("secret") == b"2"
    copy = await other_store.get(key=core.key)
    async with replicating(core, copy):
        assert await copy.get(0) == b"block"
    assert copy.get_user_data("secret") is None
