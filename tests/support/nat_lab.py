"""Homes behind NATs, and an internet between them: network namespaces and a router in user space.

Each namespace has a TUN device whose other end is here. What a home sends is given a public
address as its router would, and what comes for it is let in only as an answer. Needs root and
/dev/net/tun, and no tool for packet filters.

    python -m tests.support.nat_lab cone random

Namespaces: `<prefix>net` has the addresses 11.<n>.0.1; homes `<prefix>0`, `<prefix>1` are
192.168.<n>.2 behind 20.<n>.0.1. Runs until its input ends, then takes all down.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import fcntl
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_UDP = 17
_HOPS = 8
"""Routers between two homes: a probe with a low TTL gets lost among them."""

INTERNET_HOSTS = tuple(f"11.{index}.0.1" for index in range(1, 25))

Endpoint = tuple[bytes, int]


class NatMode(enum.Enum):
    """What a home's router does."""

    CONE = "cone"
    """One public port for each of ours, whoever we write to."""
    RANDOM = "random"
    """Another port for everybody we write to."""


@dataclass
class Nat:
    """A home's router. It lets in only answers, from where they are expected."""

    public: bytes
    mode: NatMode
    chance: random.Random
    _out: dict[object, int] = field(default_factory=dict)
    _in: dict[int, Endpoint] = field(default_factory=dict)
    _expected: set[tuple[int, Endpoint]] = field(default_factory=set)

    def leave(self, inside: Endpoint, remote: Endpoint) -> Endpoint:
        """As what a packet from inside appears outside."""
        key = inside if self.mode is NatMode.CONE else (inside, remote)
        port = self._out.get(key)
        if port is None:
            port = inside[1] if self.mode is NatMode.CONE else self._draw()
            while port in self._in:
                port = self._draw()
            self._out[key] = port
            self._in[port] = inside
        self._expected.add((port, remote))
        return self.public, port

    def enter(self, port: int, remote: Endpoint) -> Endpoint | None:
        """Whom a packet from outside is for; None when nobody expects it."""
        return self._in.get(port) if (port, remote) in self._expected else None

    def _draw(self) -> int:
        return self.chance.randrange(1024, 65536)


def open_tun(namespace: str) -> int:
    """A TUN device in a namespace; the descriptor of our end."""
    opened: list[int | OSError] = []

    def enter() -> None:
        try:
            descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(descriptor)
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", b"tun0", _IFF_TUN | _IFF_NO_PI))
            opened.append(tun)
        except OSError as error:
            opened.append(error)

    thread = threading.Thread(target=enter)  # a namespace is a thread's own
    thread.start()
    thread.join()
    (result,) = opened
    if isinstance(result, OSError):
        raise result
    return result


def is_possible() -> bool:
    """Whether this machine lets us make namespaces."""
    return os.geteuid() == 0 and os.path.exists("/dev/net/tun") and shutil.which("ip") is not None


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def add_namespace(name: str, addresses: Sequence[str]) -> int:
    ip("netns", "add", name)
    tun = open_tun(name)
    ip("-n", name, "link", "set", "lo", "up")
    for address in addresses:
        ip("-n", name, "addr", "add", f"{address}/32", "dev", "tun0")
    ip("-n", name, "link", "set", "tun0", "up", "mtu", "1500")
    ip("-n", name, "route", "add", "default", "dev", "tun0")
    return tun


def checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def rewrite(packet: bytes, source: Endpoint, to: Endpoint, ttl: int) -> bytes:
    """The same UDP packet between two other endpoints. It goes without a UDP checksum."""
    size = (packet[0] & 15) * 4
    header = bytearray(packet[:size])
    header[8] = ttl
    header[10:12] = b"\0\0"
    header[12:16], header[16:20] = source[0], to[0]
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    udp = bytearray(packet[size:])
    udp[0:2], udp[2:4], udp[6:8] = source[1].to_bytes(2, "big"), to[1].to_bytes(2, "big"), b"\0\0"
    return bytes(header + udp)


class Lab:
    """All routers in one."""

    def __init__(self, internet: int, homes: Sequence[tuple[int, Nat]]) -> None:
        self._internet = internet
        self._homes = homes
        self._by_tun = dict(homes)
        self._by_public = {nat.public: (tun, nat) for tun, nat in homes}

    def run(self) -> None:
        """Route until the input ends."""
        poll = select.poll()
        for descriptor in (0, self._internet, *self._by_tun):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == 0:
                    if not os.read(0, 1):
                        return
                    continue
                try:
                    while True:
                        self._route(descriptor, os.read(descriptor, 65536))
                except BlockingIOError:
                    pass

    def _route(self, tun: int, packet: bytes) -> None:
        if packet[0] >> 4 != 4 or packet[9] != _UDP:
            return
        size = (packet[0] & 15) * 4
        source_port, port = struct.unpack_from("!HH", packet, size)
        source: Endpoint = (packet[12:16], source_port)
        to: Endpoint = (packet[16:20], port)
        ttl = packet[8]
        nat = self._by_tun.get(tun)
        if nat is not None:
            if to[0][:2] == b"\xc0\xa8":
                return  # a private network that is not this home's
            source = nat.leave(source, to)
        if ttl <= _HOPS:
            return  # our router has seen it, and the next ones are too many
        exit_tun = self._internet
        if to[0] in self._by_public:
            exit_tun, remote_nat = self._by_public[to[0]]
            inside = remote_nat.enter(port, source)
            if inside is None:
                return
            to = inside
        with contextlib.suppress(OSError):  # full, or nobody there: lost
            os.write(exit_tun, rewrite(packet, source, to, ttl - _HOPS))


def main(prefix: str, modes: Sequence[NatMode]) -> None:
    names = [f"{prefix}net", *(f"{prefix}{index}" for index in range(len(modes)))]
    try:
        internet = add_namespace(names[0], INTERNET_HOSTS)
        homes = [
            (
                add_namespace(name, [f"192.168.{index + 1}.2"]),
                Nat(bytes((20, index + 1, 0, 1)), mode, random.Random(index)),
            )
            for index, (name, mode) in enumerate(zip(names[1:], modes, strict=True))
        ]
        sys.stdout.write(f"{prefix}\n")
        sys.stdout.flush()
        Lab(internet, homes).run()
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main(f"bm{os.getpid()}x", [NatMode(mode) for mode in sys.argv[1:]])
