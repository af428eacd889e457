"""As hypercore's test/conflicts.js, with all three parts ours.

Its one test, "one forks", is skipped there because an event of it is sometimes lost. Here nothing
waits for an event: who is frozen says so whenever it is asked.
"""

from __future__ import annotations

import pytest

from hypercore import CoreFrozen, open_corestore
from tests.support.forked_cores import joined, open_writer
from tests.support.forked_logs import ONE, OTHER, fork_proof


async def test_one_forks() -> None:
    """Two writers with one key pair, and a reader who knows both."""
    async with (
        open_corestore(None) as one,
        open_corestore(None) as other,
        open_corestore(None) as third,
    ):
        a, c = await open_writer(one, ONE), await open_writer(other, OTHER)
        b = await third.get(key=a.key)
        async with joined(a, b):
            await b.update()
            assert await b.get(2) == b"c"
        async with joined(c, b):
            with pytest.raises(CoreFrozen, match="of 5 and 6 blocks"):
                await b.get(4)
        for core in (b, c):
            assert core.is_frozen
            assert core.info().is_frozen
            assert core.fork_proof == fork_proof()
        assert not a.is_frozen
        async with joined(a, b):  # whoever connects later is told
            pass
        assert a.fork_proof == fork_proof()
