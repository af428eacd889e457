"""Whose handler answers an extension message, and that each is handled once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from hypercore import Core, open_corestore
from hypercore.crypto import system_entropy
from hypercore.replication.early_data import NAME as EARLY_DATA
from hypercore.replication.early_data import EarlyData
from hypercore.replication.peer_handle import ExtensionHandler, PeerHandle
from tests.support.replicating_cores import replicating


def answering(text: bytes) -> ExtensionHandler:
    async def answer(_payload: bytes, _peer: PeerHandle) -> Sequence[bytes]:
        return [text]

    return answer


class Asker:
    """Sends messages from one core, and has the answers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.answers: list[bytes] = []
        core.set_extension("chat", self._note)

    async def _note(self, payload: bytes, _peer: PeerHandle) -> Sequence[bytes]:
        self.answers.append(payload)
        return []

    async def ask(self) -> list[bytes]:
        self.answers.clear()
        self._core.send_extension("chat", b"?")
        await trio.testing.wait_all_tasks_blocked()
        return self.answers


@pytest.mark.parametrize("checkpoints", range(8))
async def test_messages_that_come_as_the_last_one_is_done_are_handled_once(
    checkpoints: int,
) -> None:
    """Found in review: two tasks handled one message, and the second ended the connection."""
    handled: list[bytes] = []

    async def handle(payload: bytes, _peer: PeerHandle) -> Sequence[bytes]:
        handled.append(payload)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        return []

    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="core")
        core.set_extension("chat", handle)
        copy = await other.get(key=core.key)
        async with replicating(core, copy):
            await trio.testing.wait_all_tasks_blocked()
            for number in range(6):
                copy.send_extension("chat", b"%d" % number)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            assert len(core.peers) == 1
    assert handled == [b"%d" % number for number in range(6)]


async def test_the_last_handle_answers_and_leaves_that_to_the_one_before() -> None:
    """Found in review: the handler of a closed handle was asked, and ended the connection."""
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="core")
        core.set_extension("chat", answering(b"first"))
        second, third = core.session(), core.session()
        second.set_extension("chat", answering(b"second"))
        third.set_extension("chat", answering(b"third"))
        third.set_extension("chat", answering(b"third again"))
        copy = await other.get(key=core.key)
        asker = Asker(copy)
        async with replicating(core, copy):
            await trio.testing.wait_all_tasks_blocked()
            assert await asker.ask() == [b"third again"]
            second.release()
            assert await asker.ask() == [b"third again"]
            third.set_extension("chat", None)
            assert await asker.ask() == [b"first"]
            core.set_extension("chat", None)
            assert await asker.ask() == []
        with pytest.raises(trio.ClosedResourceError):
            second.set_extension("chat", answering(b"too late"))


async def test_a_handler_whose_core_is_closed_under_it_answers_nothing() -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="core")
        session = core.session()

        async def wait(_payload: bytes, _peer: PeerHandle) -> Sequence[bytes]:
            await session.wait_length(1)
            return [b"never"]

        session.set_extension("chat", wait)
        copy = await other.get(key=core.key)
        asker = Asker(copy)
        async with replicating(core, copy):
            await trio.testing.wait_all_tasks_blocked()
            assert await asker.ask() == []
            session.release()
            await trio.testing.wait_all_tasks_blocked()
            assert len(core.peers) == 1
            core.set_extension("chat", answering(b"here"))
            assert await asker.ask() == [b"here"]


async def test_early_data_that_comes_late_or_is_none_asks_nothing() -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="core")
        core.append_nowait([b"block"])
        core.set_extension("chat", answering(b"!"))
        copy = await other.get(key=core.key)
        async with replicating(core, copy):
            await copy.wait_length(1)
            asker = Asker(copy)
            early = EarlyData("chat", b"?").seal(copy.peers[0].link, core.key, system_entropy)
            for payload in (early, b"no early data"):
                copy.send_extension(EARLY_DATA, payload)
            await trio.testing.wait_all_tasks_blocked()
            assert not asker.answers
            assert await asker.ask() == [b"!"]


@pytest.mark.parametrize("waits", [False, True])
async def test_what_is_requested_beside_a_message_is_sent_once_its_handler_has_begun(
    waits: bool,
) -> None:
    """Else who has asked a bee for all that a read takes gets its root alone, and asks on."""
    sent: list[int] = []
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="core")
        await core.append(b"block")

        async def handle(_payload: bytes, _peer: PeerHandle) -> Sequence[bytes]:
            sent.append(core.statistics().replication.total.blocks_sent)
            if waits:
                await trio.sleep_forever()
            return []

        core.set_extension("chat", handle)
        copy = await other.get(key=core.key)
        async with replicating(core, copy):
            await copy.wait_length(1)
            for _ in range(2):
                copy.send_extension("chat", b"?")
                copy.prefetch([0])
                await trio.testing.wait_all_tasks_blocked()
                assert copy.has(0)  # whatever the handler waits for
                await copy.clear(0, 1)
        assert sent == ([0] if waits else [0, 1])
