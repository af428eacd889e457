"""What hypercore 11.37.1's test/preload.js covers.

There are no options that come later: what a core needs is awaited before it is opened.
"""

from __future__ import annotations

import trio

from hypercore import Corestore, KeyPair


async def test_a_key_pair_that_has_to_be_waited_for(store: Corestore) -> None:
    send, receive = trio.open_memory_channel[KeyPair](0)
    key_pair = KeyPair.generate()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send.send, key_pair)
        core = await store.get(key_pair=await receive.receive())
    assert core.is_writable
    assert core.key_pair == key_pair
