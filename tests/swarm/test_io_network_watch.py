"""Noticing another network, and sleep."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.abc
import trio.testing

from swarm.io.network_watch import (
    POLL_SECONDS,
    SLEEP_SECONDS,
    Fingerprint,
    NetworkChange,
    open_network_watch,
    read_fingerprint,
)
from tests.support.nat_lab import ip, is_possible
from tests.support.peer_process import open_process

ROOT = Path(__file__).parents[2]
HOME: Fingerprint = (("192.168.1.2",), "192.168.1.2")
CAFE: Fingerprint = (("10.0.0.7",), "10.0.0.7")


class _Machine:
    """Which network it is on, as the test says."""

    def __init__(self) -> None:
        self.now: Fingerprint | None = HOME

    def read(self) -> Fingerprint:
        if self.now is None:
            raise OSError("too many open files")
        return self.now


async def test_another_address_is_noticed_once(autojump_clock: trio.testing.MockClock) -> None:
    machine = _Machine()
    async with open_network_watch(machine.read) as watch:
        with trio.move_on_after(3 * POLL_SECONDS) as scope:
            await watch.wait_changed()
        assert scope.cancelled_caught, "nothing has changed"
        machine.now = CAFE
        started = trio.current_time()
        assert await watch.wait_changed() is NetworkChange.MOVED
        assert trio.current_time() - started <= POLL_SECONDS
        with trio.move_on_after(3 * POLL_SECONDS) as scope:
            await watch.wait_changed()
        assert scope.cancelled_caught, "it has been told"


@pytest.mark.parametrize("first", [HOME, None])
async def test_a_look_that_fails_is_no_change(
    autojump_clock: trio.testing.MockClock, first: Fingerprint | None
) -> None:
    machine = _Machine()
    machine.now = first
    async with open_network_watch(machine.read) as watch:
        for machine.now in (None, HOME):
            with trio.move_on_after(3 * POLL_SECONDS) as scope:
                await watch.wait_changed()
            assert scope.cancelled_caught
        machine.now = CAFE
        assert await watch.wait_changed() is NetworkChange.MOVED


async def test_a_machine_that_slept_is_told_so(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = 0.0
    monkeypatch.setattr(time, "time", lambda: trio.current_time() + slept)
    async with open_network_watch(_Machine().read) as watch:
        await trio.sleep(POLL_SECONDS + 1)
        slept = SLEEP_SECONDS + 1
        assert await watch.wait_changed() is NetworkChange.WOKE_UP


def test_this_machine_has_addresses() -> None:
    addresses, speaking_as = read_fingerprint()
    assert "127.0.0.1" in addresses
    assert speaking_as in ("", *addresses)
    assert not any(address.startswith("fe80") for address in addresses)


_WATCHER = """
import trio
from swarm.io.network_watch import open_network_watch

async def main():
    async with open_network_watch() as watch:
        print("watching", flush=True)
        started = trio.current_time()
        change = await watch.wait_changed()
        print(change.value, trio.current_time() - started, flush=True)

trio.run(main)
"""


@contextmanager
def open_namespace(name: str) -> Iterator[None]:
    ip("netns", "add", name)
    try:
        yield
    finally:
        ip("netns", "del", name)


async def read_line(stream: trio.abc.ReceiveStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += await stream.receive_some()
    return line.strip()


@pytest.mark.skipif(not is_possible(), reason="it takes root")
async def test_the_system_says_so_before_anybody_looks() -> None:
    name = f"bm{os.getpid()}watch"
    command = ["ip", "netns", "exec", name, sys.executable, "-c", _WATCHER]
    with open_namespace(name), trio.fail_after(20):
        async with open_process(command, ROOT) as process:
            assert process.stdout is not None
            assert await read_line(process.stdout) == b"watching"
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", "10.9.9.9/32", "dev", "lo")
            words = (await read_line(process.stdout)).split()
    assert words[0] == b"moved"
    assert float(words[1]) < POLL_SECONDS - 1
