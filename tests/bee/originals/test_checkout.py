"""What hyperbee 2.27.3's test/checkout.js covers.

A checkout of a version that has not come yet is made when it has: `wait_length` of the core. What
the original takes as an option of each read ("checkouts can be set as an option") is a read of
the checkout.
"""

from __future__ import annotations

import pytest

from bee import UTF8, Bee
from hypercore import Core, Corestore
from hypercore.errors import OutOfRange
from tests.bee.originals.filling import collect
from tests.support.replicating_cores import replicating


async def test_a_version_that_is_yet_to_come(
    core: Core, bee: Bee[str, str], other_store: Corestore
) -> None:
    """checkouts can point to the future."""
    await bee.put("a", "a")
    await bee.put("b", "b")
    version = bee.version
    copy = await other_store.get(key=core.key)
    clone = Bee(copy, key_encoding=UTF8, value_encoding=UTF8)
    with pytest.raises(OutOfRange):
        clone.checkout(version)
    async with replicating(core, copy):
        await bee.put("b", "b*")
        await copy.wait_length(version)
        checkout = clone.checkout(version)
        assert await checkout.get("a") == (1, "a", "a")
        assert await checkout.get("b") == (2, "b", "b")


async def test_reads_of_an_older_version(bee: Bee[str, str]) -> None:
    """checkouts can be set as an option."""
    await bee.put("a", "a")
    await bee.put("b", "b")
    version = bee.version
    await bee.put("a", "a*")
    assert await bee.get("a") == (3, "a", "a*")
    assert await bee.checkout(version).get("a") == (1, "a", "a")
    assert [entry.value for entry in await collect(bee.range())] == ["a*", "b"]
    assert [entry.value for entry in await collect(bee.checkout(version).range())] == ["a", "b"]
