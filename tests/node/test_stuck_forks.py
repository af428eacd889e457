"""A node that alone holds blocks where two histories of a core part says so, and what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trio.testing
from structlog.testing import capture_logs

from hypercore import Core, open_corestore
from hypercore.crypto import encode_id
from node.stuck_forks import report_stuck_forks
from node.verbs import AddMirror, CoreClear, CoreInfo
from node.web.tables import core_row
from tests.node.mesh.nodes import wait_until
from tests.node.test_mirrors import mirroring, perform, sharing, statuses
from tests.support.replicating_cores import replicating


async def part(core: Core) -> None:
    """Have the writer part from its first 17 blocks where it has none of them any more."""
    await core.truncate(13)
    await core.append([b"new"] * 4)
    await core.clear(8, 16)


@asynccontextmanager
async def log_and_copy() -> AsyncIterator[tuple[Core, Core, Callable[[], Iterable[Core]]]]:
    """A log of 17 blocks, a copy that holds one of them, and the open cores of the copy's store."""
    async with open_corestore(None) as store, open_corestore(None) as other_store:
        core = await store.get(name="log")
        copy = await other_store.get(key=core.key)
        await core.append([b"old %d" % index for index in range(17)])
        async with replicating(core, copy):
            await copy.wait_length(17)
            await copy.get(9)
        yield core, copy, other_store.open_cores


@asynccontextmanager
async def reports(open_cores: Callable[[], Iterable[Core]]) -> AsyncIterator[list[Any]]:
    """What is logged of these while the block lasts; they are looked at each second."""
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report_stuck_forks, open_cores, 1.0)
            yield logs
            nursery.cancel_scope.cancel()


async def test_it_is_logged_once_for_each_fork(autojump_clock: trio.testing.MockClock) -> None:
    async with log_and_copy() as (core, copy, open_cores):
        async with reports(open_cores) as logs:
            for count in (1, 2):
                await part(core)
                async with replicating(core, copy):
                    await trio.sleep(5)
                assert len(logs) == count
            await copy.clear(8, 16)
            async with replicating(core, copy):
                await trio.sleep(5)
                assert copy.head == core.head
        assert len(logs) == 2
        assert logs[0]["core"] == core.key.hex()
        assert "fork 1 parts from what is here in blocks 8 to 15" in logs[0]["reason"]
        assert logs[0]["reason"].endswith(f"beemesh core clear {encode_id(core.key)} 8 16")


async def test_it_is_logged_once_however_often_the_peer_comes_and_goes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with log_and_copy() as (core, copy, open_cores):
        await part(core)
        async with reports(open_cores) as logs:
            for _ in range(3):
                async with replicating(core, copy):
                    await trio.sleep(5)
                await trio.sleep(5)
        assert len(logs) == 1


async def test_who_is_slow_to_say_what_it_has_is_not_reported(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with log_and_copy() as (core, copy, open_cores):
        await part(core)
        async with reports(open_cores) as logs:
            await trio.sleep(0.9)
            async with replicating(core, copy):
                await trio.sleep(0.9)
                assert copy.stuck_fork is not None
            await trio.sleep(5)
        assert not logs


async def test_it_is_shown_and_the_command_that_is_shown_has_it_follow(tmp_path: Path) -> None:
    async with open_corestore(None) as store, mirroring(tmp_path) as node:
        core = await store.get(name="log")
        key = encode_id(core.key)
        await core.append([b"old %d" % index for index in range(17)])
        async with sharing(store) as address:
            await perform(node, AddMirror(key, peers=(address,)))
            await wait_until(lambda: statuses(node)[0].held == 17)
        await part(core)
        async with sharing(store) as address:
            await perform(node, AddMirror(key, peers=(address,)))
            await wait_until(lambda: "stuck" in statuses(node)[0].trouble)
            said = statuses(node)[0].trouble
            assert said.startswith("stuck: fork 1 ")
            (status,) = [each for each in node.status().cores if each.key == core.key.hex()]
            assert core_row(status)[2] == "17 of 17, stuck at a fork"
            (shown,) = [each async for each in node.perform(CoreInfo(key))]
            assert shown["trouble"] == said
            start, stop = map(int, said.split()[-2:])
            (cleared,) = [each async for each in node.perform(CoreClear(key, start, stop))]
            assert cleared["blocks"] == 8
            await wait_until(lambda: statuses(node)[0].fork == 1)
            assert not any(each.is_stuck for each in node.status().cores)
