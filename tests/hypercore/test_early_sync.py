"""Before a full buffer makes everybody wait for a sync, most of its log was synced in a thread."""

from __future__ import annotations

import contextlib
import errno
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from hypercore import Durability, open_corestore
from hypercore.errors import StorageFailed
from hypercore.storage.rocks_opening import WRITE_BUFFER_BYTES
from tests.support.power_cut import Calls, build_shim, fail_calls, shim_environment

_BLOCK = bytes(2048)  # small enough to be in the buffer, and not in a blob file
_MOST_BYTES = WRITE_BUFFER_BYTES * 5 // 8  # with tree nodes and bitfield pages more would fill it
_PROJECT = Path(__file__).parents[2]


async def append_until_it_fails(path: Path) -> None:
    """Append less than fills the buffer, with the first sync failing, and wait for that."""
    async with open_corestore(path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        fail_calls(Calls.SYNC, after=0, count=1, error=errno.EIO)
        with contextlib.suppress(StorageFailed):
            while core.byte_length < _MOST_BYTES:
                await core.append([_BLOCK] * 16)
        with trio.fail_after(10):
            while not store.has_failed:  # noqa: ASYNC110  # a thread of the store's own
                await trio.sleep(0.01)
        with pytest.raises(StorageFailed):  # though another sync would succeed
            await core.append([_BLOCK])


def test_what_fails_in_the_thread_stops_the_store_before_the_buffer_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(
        [sys.executable, "-m", "tests.hypercore.test_early_sync", str(disk)],
        env=shim_environment(build_shim(tmp_path), disk),
        cwd=_PROJECT,
        check=True,
    )


if __name__ == "__main__":
    trio.run(append_until_it_fails, Path(sys.argv[1]) / "store")
