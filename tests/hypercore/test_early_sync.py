"""Before a full buffer makes everybody wait for a sync, most of its log was synced in a thread."""

from __future__ import annotations

import contextlib
import errno
import subprocess
import sys
from pathlib import Path

import trio

from hypercore import Durability, open_corestore
from hypercore.errors import StorageFailed
from hypercore.storage.rocks_opening import WRITE_BUFFER_BYTES
from tests.support.power_cut import Calls, build_shim, fail_calls, shim_environment

_BLOCK = bytes(2048)  # small enough to be in the buffer, and not in a blob file
_PROJECT = Path(__file__).parents[2]


async def append_until_it_fails(path: Path) -> int:
    """Append with the first sync failing; returns the bytes after which no more was taken."""
    async with open_corestore(path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        fail_calls(Calls.SYNC, after=0, count=1, error=errno.EIO)
        with contextlib.suppress(StorageFailed):
            while core.byte_length < 2 * WRITE_BUFFER_BYTES:
                await core.append([_BLOCK] * 16)
                await trio.sleep(0.001)  # so that the thread has its turn
        return core.byte_length


def test_what_fails_in_the_thread_stops_the_store_before_the_buffer_is_full(tmp_path: Path) -> None:
    """A sync that failed is not believed a second time, though it would succeed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    child = subprocess.run(
        [sys.executable, "-m", "tests.hypercore.test_early_sync", str(disk)],
        env=shim_environment(build_shim(tmp_path), disk),
        cwd=_PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    # With their tree nodes and bitfield pages 5.8 MB of blocks fill it.
    assert int(child.stdout) < 5_000_000


if __name__ == "__main__":
    sys.stdout.write(str(trio.run(append_until_it_fails, Path(sys.argv[1]) / "store")))
