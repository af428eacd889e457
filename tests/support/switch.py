"""Machines on one network, in namespaces, and a switch between them that loses what it is told to.

Each namespace has a TUN device whose other end is here; the kernel's own TCP runs over it. Which
packets pass is said on the standard input, a JSON line at a time, each of which replaces the last:

    {"cut": [[0, 1]], "loss": 0.2}        machine 0 does not reach 1, a fifth of all packets is lost

    python -m tests.support.switch bm 5

Namespaces are `<prefix>0` and so on, with the addresses 10.99.0.1 and so on. Runs until its input
ends, then takes all down. Needs root and /dev/net/tun, and no tool for packet filters.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import select
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from tests.support.nat_lab import add_namespace, is_possible

__all__ = ["Switch", "address_of", "in_namespace", "is_possible", "open_switch"]

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


def address_of(number: int) -> str:
    return f"10.99.0.{number + 1}"


def in_namespace(name: str, call: Callable[[], T]) -> T:
    """Call in a thread of its own whose network is that namespace's; what it raises is raised."""
    results: list[T] = []
    errors: list[Exception] = []

    def enter() -> None:
        try:
            descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(descriptor)
            results.append(call())
        except Exception as error:  # noqa: BLE001  # told to the caller
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Switch:
    """The process that switches; made by `open_switch`."""

    def __init__(self, process: trio.Process, prefix: str, count: int) -> None:
        self._process = process
        self._prefix = prefix
        self.count = count

    def namespace(self, number: int) -> str:
        return f"{self._prefix}{number}"

    async def set(self, cut: Collection[tuple[int, int]] = (), loss: float = 0.0) -> None:
        """From now on these do not reach those, and so many packets are lost."""
        assert self._process.stdin is not None
        wish = {"cut": sorted(cut), "loss": loss}
        await self._process.stdin.send_all(json.dumps(wish).encode() + b"\n")


@asynccontextmanager
async def open_switch(count: int) -> AsyncIterator[Switch]:
    prefix = f"bs{os.getpid()}x"
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.support.switch", prefix, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        with trio.fail_after(30):
            assert await process.stdout.receive_some(100)
        yield Switch(process, prefix, count)
    finally:
        with trio.CancelScope(shield=True):
            assert process.stdin is not None
            await process.stdin.aclose()
            await process.wait()


class _Switching:
    def __init__(self, tuns: list[int]) -> None:
        self._tuns = tuns
        self._cut: set[tuple[int, int]] = set()
        self._loss = 0.0
        self._chance = random.Random(len(tuns))
        self._pending = b""

    def run(self) -> None:
        poll = select.poll()
        numbers = {tun: number for number, tun in enumerate(self._tuns)}
        for descriptor in (0, *self._tuns):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == 0:
                    if not self._obey():
                        return
                    continue
                with contextlib.suppress(BlockingIOError):
                    while True:
                        self._pass_on(numbers[descriptor], os.read(descriptor, 65536))

    def _obey(self) -> bool:
        said = os.read(0, 65536)
        *lines, self._pending = (self._pending + said).split(b"\n")
        for line in lines:
            wish = json.loads(line)
            self._cut = {(source, target) for source, target in wish["cut"]}
            self._loss = wish["loss"]
        return bool(said)

    def _pass_on(self, source: int, packet: bytes) -> None:
        if packet[0] >> 4 != 4:
            return
        target = packet[19] - 1
        is_lost = (source, target) in self._cut or self._chance.random() < self._loss
        if not is_lost and 0 <= target < len(self._tuns):
            with contextlib.suppress(OSError):  # full, or nobody there: lost
                os.write(self._tuns[target], packet)


def main(prefix: str, count: int) -> None:
    names = [f"{prefix}{number}" for number in range(count)]
    try:
        tuns = [add_namespace(name, [address_of(number)]) for number, name in enumerate(names)]
        sys.stdout.write(f"{prefix}\n")
        sys.stdout.flush()
        _Switching(tuns).run()
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
